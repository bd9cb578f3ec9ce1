"""Plan: what a push would send, which of its rows have changed there since, and a push of just that."""

from __future__ import annotations

import datetime as dt
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from faulty import proxy
from stories import Database, Line, Unasked, late_requests, lost_answers, offline, shown, synced, todo_database, waiting
from test_displays import PAYLOADS, TAGS, Page
from test_own_backend import Notes

import syncframe as sf
from syncframe import backends
from syncframe.backends import Backend
from syncframe.backends.datasync import DatasyncBackend
from syncframe.errors import AccessError, BackendError, PendingError, SyncError, TransientError
from syncframe.server import serve

TABLES = ["goods", "levels"]
DDL = [
    "create table goods (id VARCHAR not null primary key, n BIGINT, name VARCHAR)",
    "create table levels (site VARCHAR not null, day DATE not null, level DOUBLE, primary key (site, day))",
]
ODD = [
    "o'neil",
    'say "so"',
    "a/b?c=d&e",
    "tab\there",
    "naïve ü",
    "percent%41",
    "back\\slash",
    "semi;--",
    "$1 {id}",
    "x" * 100,
]


def push(context: sf.SyncContext, what: Any = None, **options: Any) -> sf.PushResult:
    return context.push(what, progress=False, **options)


def pull(context: sf.SyncContext, table: str = "todo") -> sf.PullResult:
    return context[table].pull(query_id="all", push_first=False, progress=False)


def insert_on_the_way(context: sf.SyncContext, line: Line) -> None:
    """An insert that was sent, has not arrived, and whose answer is lost."""
    context["todo"].insert({"id": "d", "title": "salt", "n": 4})
    with late_requests(line), pytest.raises(TransientError):
        push(context)


def refuse_salt(database: Database) -> None:
    database.run("create trigger no_salt before insert on todo when new.title = 'salt' begin "
                 "select raise(abort, 'no salt'); end")  # fmt: skip


def edited(context: sf.SyncContext) -> None:
    """One operation of each kind, and one of another table."""
    context["todo"].update("a", n=11, title="oat milk")
    context["todo"].delete("b")
    context["todo"].insert({"id": "d", "title": "salt", "n": 4})
    context["lists"].insert({"id": "club", "name": "Club"})


def cells(plan: sf.PushPlan) -> list[tuple[Any, ...]]:
    return [tuple(None if v != v else v for v in row) for row in plan.cells.itertuples(index=False, name=None)]


def risks(plan: sf.PushPlan) -> list[tuple[Any, ...]]:
    assert plan.at_risk is not None
    return list(plan.at_risk.itertuples(index=False, name=None))


# What a push would send


def test_a_plan_says_what_would_be_sent_and_asks_and_changes_nothing(context, line):
    edited(context)
    asked, queue, revision = list(line.asked), context.pending.frame(), context._store.revision()

    plan = context.plan()

    assert plan.counts == {"insert": 2, "update": 1, "delete": 1}
    assert plan.held == {"conflicts": 0, "rejected": 0}
    assert [(op.kind, op.table, op.key) for op in plan.operations] == [
        ("update", "todo", "a"), ("delete", "todo", "b"), ("insert", "todo", "d"), ("insert", "lists", "club")]  # fmt: skip
    assert cells(plan) == [
        ("todo", "a", "update", "n", 1, 11),
        ("todo", "a", "update", "title", "milk", "oat milk"),
        ("todo", "b", "delete", None, None, None),
        ("todo", "d", "insert", "n", None, 4),
        ("todo", "d", "insert", "title", None, "salt"),
        ("lists", "club", "insert", "name", None, "Club"),
    ]
    assert (bool(plan), plan.checked, plan.at_risk, plan.tables) == (True, False, None, None)
    assert line.asked == asked
    assert context.pending.frame().equals(queue)
    assert context._store.revision() == revision


def test_a_plan_needs_no_back_end_and_a_checked_one_says_so():
    context = sf.connect(store=":memory:")
    context.table("todo", schema={"id": "VARCHAR", "n": "BIGINT"}).insert({"id": "a", "n": 1})

    assert context.plan().counts["insert"] == 1
    with pytest.raises(SyncError, match="no back end"):
        context.plan(check=True)


def test_its_operations_are_a_sequence_in_the_order_they_were_staged(context):
    for number in range(3):
        context["lists"].insert({"id": f"l{number}", "name": "x"})
        context["todo"].insert({"id": f"t{number}", "title": "x", "list": f"l{number}"})

    operations = context.plan().operations

    keys = ["l0", "t0", "l1", "t1", "l2", "t2"]
    assert isinstance(operations, Sequence)
    assert [op.key for op in operations] == keys
    assert [operations[i].key for i in range(6)] == keys
    assert [op.key for op in operations[1:3]] == ["t0", "l1"]
    assert (operations[-1].key, len(operations)) == ("t2", 6)
    with pytest.raises(IndexError):
        operations[6]


def test_an_operation_of_a_plan_can_be_given_up(context):
    edited(context)

    context.plan().operations[0].revert()

    assert shown(context)["a"] == ["milk", 1]
    assert context.plan().counts == {"insert": 2, "update": 0, "delete": 1}


def test_nothing_pending_is_a_plan_of_nothing_and_asks_nothing():
    context = sf.connect(Unasked(), store=":memory:")
    context.table("todo", schema={"id": "VARCHAR", "n": "BIGINT"})

    plan = context.plan(check=True)

    assert (bool(plan), plan.checked, risks(plan), len(plan.cells)) == (False, True, [], 0)
    assert plan.counts == {"insert": 0, "update": 0, "delete": 0}
    assert (repr(plan), push(context, plan).ok) == ("PushPlan: nothing to send", True)


def test_conflicts_and_rejections_stay_and_are_counted_apart(context, database):
    database.run("update todo set n = 9 where id = 'a'")
    context["todo"].update("a", n=11)
    context["todo"].update("b", n=-1)
    push(context)
    context["todo"].update("c", n=33)

    plan = context.plan()

    assert plan.counts == {"insert": 0, "update": 1, "delete": 0}
    assert plan.held == {"conflicts": 1, "rejected": 1}
    assert [op.key for op in plan.operations] == ["c"]
    result = push(context, plan)
    assert result.counts == {"accepted": 1, "conflicts": 1, "rejected": 1}
    assert database.todo() == {"a": ["milk", 9], "b": ["bread", 2], "c": ["eggs", 33]}


def test_where_all_is_in_conflict_there_is_nothing_to_send(context, database, line):
    database.run("update todo set n = 9")
    for key in "abc":
        context["todo"].update(key, n=0)
    push(context)
    asked = list(line.asked)

    plan = context.plan(check=True)

    assert (bool(plan), plan.held) == (False, {"conflicts": 3, "rejected": 0})
    assert line.asked == asked
    assert push(context, plan).counts == {"accepted": 0, "conflicts": 3, "rejected": 0}


def test_a_plan_can_be_of_some_tables(context, database):
    edited(context)

    plan = context.plan("lists")
    result = push(context, plan)

    assert (plan.counts, plan.tables) == ({"insert": 1, "update": 0, "delete": 0}, ("lists",))
    assert (result.ok, result.counts["accepted"]) == (True, 1)
    assert waiting(context) == [("update", "a"), ("delete", "b"), ("insert", "d")]
    with pytest.raises(SyncError, match="'lost'"):
        context.plan(["todo", "lost"])


def test_a_plan_is_frozen_public_and_no_two_are_mixed_up(context):
    edited(context)
    plan = context.plan()

    assert isinstance(plan, sf.PushPlan)
    assert "PushPlan" in sf.__all__
    assert plan != context.plan()
    with pytest.raises(FrozenInstanceError):
        plan.counts = {}


# What is at risk, over every back end


@dataclass
class Place:
    """A back end, and the database behind it as another client writes it."""

    backend: Backend
    other: sf.SyncContext
    wire: Any = None

    def pulled(self) -> sf.SyncContext:
        context = sf.connect(self.backend, store=":memory:")
        for table in TABLES:
            context[table].pull(query_id="all", progress=False)
        return context

    def asked(self) -> int:
        return 0 if self.wire is None else len(self.wire.asked)


def opened(kind: str, folder: Path, *, is_tracked: bool = True) -> Any:
    if kind == "sqlite":
        with closing(sqlite3.connect(folder / "far.db")) as connection:
            connection.executescript(";".join(DDL))
    else:
        with duckdb.connect(str(folder / "far.db")) as connection:
            for statement in DDL:
                connection.execute(statement)
    backend: Any = backends.open(f"{kind}:///{folder}/far.db")
    if is_tracked:
        backend.track(TABLES)
    return backend


def ways(*few: str) -> list[Any]:
    """All of them; those beside these few only if asked for."""
    every = [kind + way for kind in ("sqlite", "duckdb") for way in ("", " untracked", " extended", " v2", " v3")]
    return [pytest.param(way, marks=[] if way in few else [pytest.mark.full]) for way in every]


# What is asked is the same over each of these, and how it is asked differs.
FEW_WAYS = pytest.mark.parametrize("place", ways("sqlite", "duckdb untracked", "sqlite v3"), indirect=True)


@pytest.fixture(params=ways("sqlite", "sqlite v2"))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    kind, _, way = request.param.partition(" ")
    behind = opened(kind, tmp_path, is_tracked=way != "untracked")
    other = sf.connect(behind, store=":memory:")
    with ExitStack() as stack:
        if way in ("", "untracked"):
            yield Place(behind, other)
            return
        server = stack.enter_context(serve(behind, tables=TABLES))
        wire = stack.enter_context(proxy(server.url))
        schemas = {name: behind.schema(name) for name in TABLES}
        options = {} if way == "extended" else {"protocol": way, "overlap_s": 0, "schemas": schemas}
        backend = stack.enter_context(closing(DatasyncBackend(wire.url, **options)))
        yield Place(backend, other, wire)


def filled(place: Place, rows: dict[str, list[dict[str, Any]]]) -> sf.SyncContext:
    for table, values in rows.items():
        for row in values:
            place.other.remote(table).insert(row)
    return place.pulled()


def test_rows_that_changed_there_are_at_risk_each_in_its_words(place):
    context = filled(place, {"goods": [{"id": key, "n": 1} for key in "abcdef"]})
    goods, there = context["goods"], place.other.remote("goods")
    goods.update("a", n=10)
    goods.update("b", n=10)
    goods.delete("c")
    goods.delete("d")
    goods.update("e", n=10)
    goods.delete("f")
    goods.insert([{"id": "x", "n": 1}, {"id": "y", "n": 1}])
    quiet = context.plan(check=True)
    there.update("a", n=2)
    there.delete("b")
    there.update("c", n=2)
    there.delete("d")
    there.insert({"id": "x", "n": 2})
    queue, checkpoints = context.pending.frame(), context.sql("from syncframe.checkpoints")
    rows = context["goods"].frame()

    plan = context.plan(check=True)

    gone = "deleted there" if place.other.remote("goods").read(include_deleted=True).shape[0] > 5 else "gone there"
    assert (quiet.checked, risks(quiet)) == (True, [])
    assert risks(plan) == [
        ("goods", "a", "update", "changed there"),
        ("goods", "b", "update", gone),
        ("goods", "c", "delete", "changed there"),
        ("goods", "d", "delete", gone),
        ("goods", "x", "insert", "exists there"),
    ]
    assert context.pending.frame().equals(queue)
    assert context.sql("from syncframe.checkpoints").equals(checkpoints)
    assert context["goods"].frame().equals(rows)
    assert not any(context.pending.frame()["attempted"])
    result = push(context, plan)
    assert [c.key for c in result.conflicts] == ["a", "b", "c", "x"]
    assert result.counts["accepted"] == 4


@FEW_WAYS
def test_compound_keys_and_keys_of_odd_text_are_asked_for_as_they_are(place):
    days = [dt.date(2013, 1, day) for day in (1, 2, 3)]
    levels = [{"site": site, "day": day, "level": 1.5} for site in ("weir, old", "o'neil") for day in days]
    context = filled(place, {"goods": [{"id": key, "n": i} for i, key in enumerate(ODD)], "levels": levels})
    # A client of the plain protocol knows a key by the id that the service makes of it.
    here = context["goods"].frame().reset_index().set_index("n")["id"].to_dict()
    for i in range(len(ODD)):
        context["goods"].update(here[i], n=-1)
    for row in levels:
        context["levels"].update((row["site"], row["day"]), level=2.5)
    context["levels"].insert({"site": "new / one", "day": days[0], "level": 0.0})
    for key in ODD[::2]:
        place.other.remote("goods").update(key, n=-2)
    place.other.remote("levels").update(("o'neil", days[1]), level=9.0)
    place.other.remote("levels").insert({"site": "new / one", "day": days[0], "level": 9.0})

    plan = context.plan(check=True)

    assert risks(plan) == [
        *(("goods", here[i], "update", "changed there") for i in range(0, len(ODD), 2)),
        ("levels", ("o'neil", days[1]), "update", "changed there"),
        ("levels", ("new / one", days[0]), "insert", "exists there"),
    ]
    result = push(context, plan)
    assert (result.counts["accepted"], result.counts["conflicts"]) == (5 + 5, 5 + 2)


@pytest.mark.parametrize(
    ("place", "rows", "requests_max"),
    [
        ("sqlite", 10_000, 0),
        ("duckdb", 10_000, 0),
        ("sqlite extended", 10_000, 3),
        pytest.param("duckdb extended", 10_000, 3, marks=pytest.mark.full),
        pytest.param("sqlite v2", 10_000, 501, marks=pytest.mark.full),  # a filter of the plain protocol names twenty
        ("sqlite v2", 1_000, 51),
        pytest.param("sqlite v3", 1_000, 51, marks=pytest.mark.full),
    ],
    indirect=["place"],
)
def test_ten_thousand_rows_are_asked_for_in_sets(place, rows, requests_max):
    place.other["goods"].pull(query_id="all")
    place.other["goods"].insert([{"id": f"k{i:05}", "n": i} for i in range(rows)])
    assert push(place.other).ok
    context = place.pulled()
    frame = context["goods"].frame()
    frame["n"] += 1
    context["goods"].stage(frame)
    there = place.other.remote("goods")
    changed = ["k00000", f"k{rows // 2:05}", f"k{rows - 1:05}"]
    for key in changed:
        there.update(key, n=-1)
    before = place.asked()

    plan = context.plan(check=True)

    assert risks(plan) == [("goods", key, "update", "changed there") for key in changed]
    assert place.asked() - before <= requests_max


def test_a_back_end_that_can_only_be_pulled_from_is_asked_by_conditions():
    notes = Notes()
    wheres: list[str] = []
    pull_of = notes.pull

    def pulling(table: str, query: sf.Query, since: Any, others: Sequence[sf.Query] = ()) -> Any:
        wheres.append(query.where.text if query.where else "")
        return pull_of(table, query, since, others)

    notes.pull = pulling  # type: ignore[method-assign]
    mine, theirs = (sf.connect(notes, store=":memory:") for _ in range(2))
    mine["notes"].pull(query_id="all")
    mine["notes"].insert([{"id": f"o'{i}", "n": i} for i in range(100)])
    push(mine)
    theirs["notes"].pull(query_id="all")
    frame = mine["notes"].frame()
    frame["n"] = -1
    mine["notes"].stage(frame)
    mine["notes"].insert({"id": "new", "n": 1})
    theirs["notes"].update("o'7", n=70)
    theirs["notes"].delete("o'99")
    theirs["notes"].insert({"id": "new", "n": 2})
    push(theirs)
    wheres.clear()

    plan = mine.plan(check=True)

    assert risks(plan) == [
        ("notes", "o'7", "update", "changed there"),
        ("notes", "o'99", "update", "deleted there"),
        ("notes", "new", "insert", "exists there"),
    ]
    assert len(wheres) == 2
    assert [where.count("\"id\" = 'o''") for where in wheres] == [90, 10]


@FEW_WAYS
def test_an_operation_that_was_applied_and_whose_answer_was_lost_is_not_at_risk(place):
    context = filled(place, {"goods": [{"id": key, "n": 1} for key in "abc"]})
    line = Line(place.backend)
    context._session.backend = line
    context["goods"].update("a", n=10)
    context["goods"].delete("b")
    context["goods"].insert({"id": "x", "n": 1})
    with lost_answers(line), pytest.raises(TransientError):
        push(context)
    context["goods"].update("c", n=10)

    plan = context.plan(check=True)

    assert risks(plan) == []
    assert [op.attempted for op in plan.operations] == [True, True, True, False]
    assert push(context, plan).ok
    assert place.other.remote("goods").read()["n"].to_dict() == {"a": 10, "c": 10, "x": 1}


def test_an_insert_that_was_applied_or_never_sent_is_not_at_risk_where_a_tombstone_stands(context, line, database):
    context["todo"].insert([{"id": "x", "title": "one"}])
    with lost_answers(line), pytest.raises(TransientError):
        push(context)
    database.run("delete from todo where id in ('a', 'x')")
    database.run("insert into todo (id, title) values ('y', 'theirs'); delete from todo where id = 'y'")
    context["todo"].insert({"id": "y", "title": "two"})

    plan = context.plan(check=True)

    # The back end knows that the first one was applied, by its id; the second takes the tombstone's place.
    assert risks(plan) == []
    assert push(context, plan).counts["accepted"] == 2


def test_an_insert_that_never_arrived_meets_another_s_tombstone(context, line, database):
    context["todo"].insert({"id": "y", "title": "mine"})
    with late_requests(line), pytest.raises(TransientError):
        push(context)
    database.run("insert into todo (id, title) values ('y', 'theirs'); delete from todo where id = 'y'")

    plan = context.plan(check=True)

    assert risks(plan) == [("todo", "y", "insert", "deleted there")]
    assert push(context, plan).counts["conflicts"] == 1


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
@pytest.mark.parametrize("is_tracked", [True, False], ids=["tracked", "untracked"])
def test_columns_that_are_not_kept_here_make_no_row_look_changed(tmp_path, kind, is_tracked):
    behind = opened(kind, tmp_path, is_tracked=is_tracked)
    sf.connect(behind, store=":memory:").remote("goods").insert({"id": "a", "n": 1, "name": "kept there"})
    context = sf.connect(behind, store=":memory:")
    context["goods"].pull(columns=["id", "n"], query_id="all", progress=False)
    context["goods"].update("a", n=2)

    assert risks(context.plan(check=True)) == []


def test_offline_a_checked_plan_is_a_transient_error_and_nothing_is_lost(context, line):
    edited(context)
    queue = context.pending.frame()

    with offline(line), pytest.raises(TransientError, match="no route"):
        context.plan(check=True)

    assert context._session.is_online is False
    assert context.pending.frame().equals(queue)
    with offline(line):
        assert context.plan().counts == {"insert": 2, "update": 1, "delete": 1}
    assert context.plan(check=True).checked
    assert context._session.is_online is True


def test_refused_by_the_back_end_or_without_the_table_a_checked_plan_says_so(context, line, database):
    edited(context)
    line.fault = AccessError("no", status=403)
    with pytest.raises(AccessError):
        context.plan(check=True)
    line.fault = None
    lone = sf.connect(database.url, store=":memory:")
    lone.table("nowhere", schema={"id": "VARCHAR"}).insert({"id": "a"})

    with pytest.raises(BackendError) as missing:
        lone.plan(check=True)

    assert missing.value.status == 404


def test_another_back_end_than_the_one_that_the_operations_are_for_is_not_asked(tmp_path, database):
    store = tmp_path / "here.duckdb"
    with synced(database.url, store=store) as context:
        context["todo"].update("a", n=11)
    elsewhere = todo_database(tmp_path, "elsewhere.db")

    with sf.connect(elsewhere.url, store=store) as context, pytest.raises(PendingError):
        context.plan(check=True)


# The push of a plan


def test_what_was_staged_or_edited_since_stays_queued(context, database):
    edited(context)
    plan = context.plan()
    context["todo"].update("a", n=12)
    context["todo"].update("c", n=33)
    context["todo"].update("d", n=5)

    result = push(context, plan)

    assert result.counts == {"accepted": 2, "conflicts": 0, "rejected": 0}
    assert [op.key for op in result.accepted] == ["b", "club"]
    assert (result.ok, result.left) == (False, 3)
    assert sorted(waiting(context)) == [("insert", "d"), ("update", "a"), ("update", "c")]
    assert database.todo() == {"a": ["milk", 1], "c": ["eggs", 3]}
    assert push(context, context.plan()).ok
    assert database.todo() == {"a": ["oat milk", 12], "c": ["eggs", 33], "d": ["salt", 5]}


def test_a_plan_that_nothing_touched_is_sent_whole_and_once(context, database):
    edited(context)
    plan = context.plan()

    first, second = push(context, plan), push(context, plan)

    assert (first.ok, first.counts["accepted"]) == (True, 4)
    assert (second.ok, second.counts["accepted"]) == (True, 0)
    assert database.audit() == [("update", "a"), ("delete", "b"), ("insert", "d"), ("insert", "club")]


def test_parents_go_before_children_and_a_child_without_its_parent_is_left_to_the_back_end(context, database):
    context["lists"].insert({"id": "club", "name": "Club"})
    context["todo"].insert({"id": "d", "title": "salt", "list": "club"})
    context["lists"].insert({"id": "gym", "name": "Gym"})
    context["todo"].insert({"id": "e", "title": "tea", "list": "gym"})
    plan = context.plan()

    assert push(context, plan).ok

    assert database.audit() == [("insert", "club"), ("insert", "d"), ("insert", "gym"), ("insert", "e")]


def test_what_is_refused_for_a_reference_is_tried_once_more_within_the_plan(context, database):
    context["todo"].insert({"id": "d", "title": "salt", "list": "club"})
    context["lists"].insert({"id": "club", "name": "Club"})
    plan = context.plan()
    context["lists"].insert({"id": "gym", "name": "Gym"})

    result = push(context, plan)

    assert [op.key for op in result.accepted] == ["club", "d"]
    assert waiting(context) == [("insert", "gym")]


def test_undone_between_is_not_sent(context, database):
    context["todo"].update("a", n=11)
    context["todo"].update("b", n=22)
    plan = context.plan()
    context.undo()

    result = push(context, plan)

    assert (result.ok, [op.key for op in result.accepted]) == (True, ["a"])
    assert database.todo() == {"a": ["milk", 11], "b": ["bread", 2], "c": ["eggs", 3]}


def test_given_up_or_sent_between_is_not_sent_again(context, database):
    edited(context)
    plan = context.plan()
    context["todo"].revert("a")
    push(context, "lists")

    result = push(context, plan)

    assert [op.key for op in result.accepted] == ["b", "d"]
    assert database.audit() == [("insert", "club"), ("delete", "b"), ("insert", "d")]


def test_changed_there_and_pulled_between_is_left_in_conflict(context, database):
    context["todo"].update("a", n=11)
    context["todo"].update("c", n=33)
    plan = context.plan()
    database.run("update todo set n = 9 where id = 'a'")
    pull(context)

    result = push(context, plan)

    assert result.counts == {"accepted": 1, "conflicts": 1, "rejected": 0}
    assert database.todo()["a"] == ["milk", 9]


def test_a_conflict_that_a_person_settled_since_is_not_what_was_shown(context, database):
    context["todo"].update("a", n=11)
    plan = context.plan()
    database.run("update todo set n = 9 where id = 'a'")
    pull(context)
    context.conflicts["todo", "a"].resolve({"n": 77})

    result = push(context, plan)

    assert (result.counts["accepted"], waiting(context)) == (0, [("update", "a")])
    assert database.todo()["a"] == ["milk", 9]


@pytest.mark.parametrize(
    ("policy", "there"),
    [
        ("mine", ["oat milk", 11]),
        ("theirs", ["milk", 9]),
        (lambda conflict: {"n": 50, "title": "both"}, ["both", 50]),
        ("fail", ["milk", 9]),
        ("merge", ["milk", 9]),
    ],
    ids=["mine", "theirs", "callable", "fail", "merge"],
)
def test_a_policy_settles_the_plan_s_conflicts_and_what_it_settles_goes_out(context, database, policy, there):
    context["todo"].update("a", n=11, title="oat milk")
    plan = context.plan()
    context["todo"].update("c", n=33)
    database.run("update todo set n = 9 where id = 'a'")

    result = push(context, plan, on_conflict=policy)

    assert database.todo()["a"] == there
    assert database.todo()["c"] == ["eggs", 3]
    assert result.counts["conflicts"] == (1 if policy in ("fail", "merge") else 0)
    assert ("update", "c") in waiting(context)


def test_a_policy_sends_no_conflict_that_was_held_back_from_the_plan(context, database):
    database.run("update todo set n = 9 where id = 'a'")
    context["todo"].update("a", n=11)
    push(context)
    context["todo"].update("c", n=33)
    plan = context.plan()

    result = push(context, plan, on_conflict="mine")

    assert [op.key for op in result.accepted] == ["c"]
    assert database.todo()["a"] == ["milk", 9]
    assert waiting(context) == [("update", "a")]


def test_what_waits_behind_an_operation_of_unknown_answer_goes_with_the_plan(context, line, database):
    context["todo"].update("a", n=11)
    with lost_answers(line), pytest.raises(TransientError):
        push(context)
    context["todo"].update("a", n=12)
    plan = context.plan()

    assert plan.counts == {"insert": 0, "update": 2, "delete": 0}
    assert [(op.base["n"], op.local["n"]) for op in plan.operations] == [(1, 11), (11, 12)]
    assert push(context, plan).ok

    assert database.todo()["a"] == ["milk", 12]


def test_what_came_to_wait_behind_since_stays_queued(context, line, database):
    context["todo"].update("a", n=11)
    with lost_answers(line), pytest.raises(TransientError):
        push(context)
    plan = context.plan()
    context["todo"].update("a", n=12)

    result = push(context, plan)

    assert (result.counts["accepted"], waiting(context)) == (1, [("update", "a")])
    assert database.todo()["a"] == ["milk", 11]


def test_an_edit_that_came_since_is_not_sent_when_it_is_folded_into_a_refused_operation(context, line, database):
    """The first was sent and its answer lost; refused the second time, what waits behind becomes part of it."""
    insert_on_the_way(context, line)
    plan = context.plan()
    context["todo"].update("d", title="sea salt")
    refuse_salt(database)

    result = push(context, plan)

    assert result.counts["accepted"] == 0
    assert waiting(context) == [("insert", "d")]
    assert "d" not in database.todo()
    assert push(context).ok
    assert database.todo()["d"] == ["sea salt", 4]


def test_what_is_folded_into_a_refused_operation_goes_out_where_both_were_planned(context, line, database):
    insert_on_the_way(context, line)
    context["todo"].update("d", title="sea salt")
    plan = context.plan()
    refuse_salt(database)

    result = push(context, plan)

    assert (plan.counts["insert"], plan.counts["update"]) == (1, 1)
    assert result.ok
    assert database.todo()["d"] == ["sea salt", 4]


def test_what_waits_behind_a_conflict_is_not_planned(context, line, database):
    context["todo"].update("a", n=11)
    with late_requests(line), pytest.raises(TransientError):
        push(context)
    context["todo"].update("a", n=12)
    database.run("update todo set n = 9 where id = 'a'")
    pull(context)

    plan = context.plan()

    assert len(context.pending) == 2
    assert (bool(plan), plan.held) == (False, {"conflicts": 1, "rejected": 0})


def test_a_merge_of_columns_that_are_apart_goes_out_with_the_plan(context, database):
    context["todo"].update("a", title="oat milk")
    plan = context.plan()
    context["todo"].update("c", n=33)
    database.run("update todo set n = 9 where id = 'a'")

    result = push(context, plan, on_conflict="merge")

    assert [op.key for op in result.accepted] == ["a"]
    assert database.todo()["a"] == ["oat milk", 9]
    assert waiting(context) == [("update", "c")]


def test_an_operation_that_was_rejected_since_stays_with_its_error(context, database):
    context["todo"].update("a", n=-1)
    context["todo"].update("b", n=22)
    plan = context.plan()
    push(context)

    result = push(context, plan)

    assert result.counts == {"accepted": 0, "conflicts": 0, "rejected": 1}
    with pytest.raises(SyncError, match="no rejected operations"):
        push(context, plan, retry_rejected=True)


def test_all_or_nothing_is_all_of_the_plan(context, database):
    edited(context)
    plan = context.plan()
    context["todo"].update("c", n=33)

    result = push(context, plan, atomic=True)

    assert result.counts["accepted"] == 4
    assert waiting(context) == [("update", "c")]
    assert database.todo() == {"a": ["oat milk", 11], "c": ["eggs", 3], "d": ["salt", 4]}


def test_all_or_nothing_with_one_conflict_is_nothing(context, database):
    edited(context)
    plan = context.plan()
    database.run("update todo set n = 9 where id = 'a'")

    result = push(context, plan, atomic=True)

    assert (result.counts["accepted"], result.counts["conflicts"]) == (0, 1)
    assert database.audit() == [("update", "a")]


def test_all_or_nothing_of_a_plan_that_is_not_whole_any_more_is_refused(context, database):
    edited(context)
    plan = context.plan()
    context["todo"].update("a", n=12)

    with pytest.raises(SyncError, match="of the 4 operations of this plan 1 changed since"):
        push(context, plan, atomic=True)

    assert database.audit() == []
    assert len(context.pending) == 4


def test_offline_a_pushed_plan_loses_nothing_and_goes_out_later(context, line, database):
    edited(context)
    plan = context.plan()
    with offline(line), pytest.raises(TransientError):
        push(context, plan)

    with lost_answers(line, after=1):
        stopped = push(context, plan)
    assert isinstance(stopped.stopped_by, TransientError)
    result = push(context, plan)

    assert result.ok
    assert database.audit() == [("update", "a"), ("delete", "b"), ("insert", "d"), ("insert", "club")]


def test_a_plan_of_another_context_or_store_is_refused(tmp_path, database):
    store = tmp_path / "here.duckdb"
    with synced(database.url, store=store) as context:
        context["todo"].update("a", n=11)
        plan = context.plan()
    elsewhere = synced(database.url)
    elsewhere["todo"].update("a", n=12)

    for other in (elsewhere, sf.connect(database.url, store=store)):
        with pytest.raises(SyncError, match="made by another context"):
            push(other, plan)

    assert database.todo()["a"] == ["milk", 1]
    assert len(elsewhere.pending) == 1


def test_a_closed_context_still_knows_its_plan(context, database):
    context["todo"].update("a", n=11)
    plan = context.plan()
    context.close()

    assert push(context, plan).ok
    assert database.todo()["a"] == ["milk", 11]


def test_a_plan_of_more_than_a_batch_is_sent_whole_and_no_more(tmp_path):
    behind = opened("sqlite", tmp_path)
    context = sf.connect(behind, store=":memory:")
    context["goods"].pull(query_id="all")
    context["goods"].insert([{"id": f"k{i:05}", "n": i} for i in range(12_000)])
    plan = context.plan()
    context["goods"].update("k00003", n=-3)
    context["goods"].insert({"id": "late", "n": 0})
    told: list[tuple[int, int | None]] = []

    result = context.push(plan, progress=lambda done, total, what: told.append((done, total)))

    assert (result.counts["accepted"], len(context.pending)) == (11_999, 2)
    assert told[-1] == (11_999, 11_999)


# What is shown


def test_a_plan_says_what_it_is_in_words(context, database):
    database.run("update todo set n = 9 where id = 'c'")
    context["todo"].update("c", n=33)
    push(context)
    context["lists"].insert({"id": "club", "name": "Club"})
    context["todo"].update("a", n=7)
    context["todo"].delete("b")
    database.run("update todo set n = 8 where id = 'a'")

    plan, checked = context.plan(), context.plan(check=True)
    quiet = context.plan("lists", check=True)

    said = [
        "PushPlan: 1 insert, 1 update, 1 delete; held back: 1 conflict",
        "  insert lists 'club': name 'Club'",
        "  update todo 'a': n 1 -> 7",
        "  delete todo 'b'",
    ]
    last = "  nothing was sent; ctx.push(plan) sends just that"
    ask = "  ctx.plan(check=True) asks which of these rows have changed there"
    assert repr(plan).splitlines() == [*said, ask, last]
    assert repr(checked).splitlines() == [*said, "  at risk: update todo 'a': changed there", last]
    assert repr(quiet).splitlines()[2:] == ["  none of these rows has changed there", last]
    page = Page(checked._repr_html_())
    assert page.body_rows == 3
    assert said[0] in page.text
    assert "todoupdate'a'n 1 -> 7" in page.text
    assert "at risk: update todo 'a': changed there" in page.text


def test_of_many_operations_and_risks_the_first_are_shown(context, database):
    context["todo"].insert([{"id": f"k{i:02}", "title": "x"} for i in range(25)])
    database.run("insert into todo (id, title) " + " union all ".join(f"select 'k{i:02}', 'y'" for i in range(5)))

    lines = repr(context.plan(check=True)).splitlines()

    assert len(lines) == 1 + 20 + 1 + 3 + 1 + 1
    assert lines[21:26] == [
        "  ... and 5 more (plan.cells has all)",
        "  at risk: insert todo 'k00': exists there",
        "  at risk: insert todo 'k01': exists there",
        "  at risk: insert todo 'k02': exists there",
        "  ... and 2 more (plan.at_risk has all)",
    ]
    assert Page(context.plan()._repr_html_()).body_rows == 20
    operations = repr(context.plan().operations).splitlines()
    assert (operations[0], operations[-1], len(operations)) == ("Planned: 25 operations", "... and 5 more", 22)


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_nothing_of_a_row_becomes_markup(payload):
    context = sf.connect(store=":memory:")
    context.table(f"t {payload[:20]}", schema={"id": "VARCHAR", f"c{payload}": "VARCHAR"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.table(f"t {payload[:20]}").insert({"id": payload, f"c{payload}": payload})
    plan = context.plan()

    for html in (plan._repr_html_(), plan.operations._repr_html_()):
        page = Page(html)
        assert page.tags <= TAGS
        assert not any(name.startswith("on") or name in ("href", "src") for name in page.attributes)
    assert len(repr(plan).splitlines()) == 4
