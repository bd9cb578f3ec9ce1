"""Pages of the queue and the conflicts: beside the views that show one row at a time, and what "all shown" takes."""

from __future__ import annotations

import datetime as dt
import statistics
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from stories import late_requests, lost_answers, shown, synced, todo_database, waiting
from test_queue import walked

import syncframe as sf
from syncframe.errors import SchemaError, SyncError
from syncframe.operation import Operation
from syncframe.pages import Pages
from syncframe.sheet import CELL_CHARACTERS
from syncframe.store import operations_source
from syncframe.views import Conflict, ConflictView, PendingView


def pages_of(context: sf.SyncContext) -> Pages:
    return Pages(context._store, context._queue)


def listed(context: sf.SyncContext, kind: str | None = None, table: str | None = None) -> list[dict[str, Any]]:
    return pages_of(context).pending(table, kind, 0, 200)["rows"]


def revision(context: sf.SyncContext) -> int:
    return pages_of(context).pending(None, None, 0, 1)["rev"]


# -- what a page shows


def test_a_page_has_the_operations_in_the_order_they_were_staged_with_their_differing_cells(context):
    context["todo"].update("a", title="oat milk", n=5)
    context["lists"].insert({"id": "shop", "name": "Shop"})
    context["todo"].delete("b")

    update, insert, delete = listed(context)

    assert [update["table"], update["key"], update["kind"]] == ["todo", "a", "update"]
    assert update["cells"] == [["title", "VARCHAR", "milk", "oat milk"], ["n", "BIGINT", "1", "5"]]
    assert [insert["table"], insert["key"], insert["kind"]] == ["lists", "shop", "insert"]
    assert insert["cells"] == [["name", "VARCHAR", None, "Shop"]]
    assert delete["cells"] == [
        ["list", "VARCHAR", "home", None], ["title", "VARCHAR", "bread", None],
        ["n", "BIGINT", "2", None], ["stars", "BIGINT", "3", None],
    ]  # fmt: skip
    assert [update["attempted"], update["state"], update["error"], update["more"]] == [False, None, None, 0]
    assert pd.Timestamp(update["staged_at"]) <= pd.Timestamp.now("UTC")


def test_an_insert_shows_the_cells_that_were_given_and_no_others():
    context = sf.connect(store=":memory:")
    context.table("t", {"id": "VARCHAR", "a": "VARCHAR", "b": "VARCHAR", "c": "VARCHAR"}).insert({"id": "1", "b": None})

    (row,) = listed(context)

    assert row["cells"] == [["b", "VARCHAR", None, None]]


def test_values_travel_as_exact_text():
    context = sf.connect(store=":memory:")
    types = {
        "id": "BIGINT", "big": "UBIGINT", "money": "DECIMAL(38,10)", "at": "TIMESTAMPTZ", "day": "DATE",
        "raw": "BLOB", "yes": "BOOLEAN", "x": "DOUBLE",
    }  # fmt: skip
    row = {
        "id": 2**62 + 1, "big": 2**64 - 1, "money": Decimal("0.0000000001"), "at": pd.Timestamp("2026-01-02T03:04:05.000006Z"),
        "day": dt.date(2026, 1, 2), "raw": b"\x00\xff", "yes": True, "x": 0.1,
    }  # fmt: skip
    context.table("t", types).insert(row)

    (page_row,) = listed(context)

    assert page_row["key"] == "4611686018427387905"
    assert [cell[1:] for cell in page_row["cells"]] == [
        ["UBIGINT", None, "18446744073709551615"], ["DECIMAL(38,10)", None, "0.0000000001"],
        ["TIMESTAMPTZ", None, "2026-01-02T03:04:05.000006Z"], ["DATE", None, "2026-01-02"],
        ["BLOB", None, "00ff"], ["BOOLEAN", None, "true"], ["DOUBLE", None, "0.1"],
    ]  # fmt: skip


def test_the_parts_of_a_compound_key_are_joined_by_a_dot():
    context = sf.connect(store=":memory:")
    table = context.table("t", {"year": "INTEGER", "site": "VARCHAR", "n": "BIGINT"}, key=["year", "site"])
    table.insert({"year": 2013, "site": "EWR", "n": 1})

    (row,) = listed(context)

    assert row["key"] == "2013 · EWR"


def test_a_long_cell_is_cut_and_comes_whole_when_asked_for():
    context = sf.connect(store=":memory:")
    text, raw = "ä" * 70_000, b"\xab" * 1_000
    context.table("t", {"id": "VARCHAR", "text": "VARCHAR", "raw": "BLOB"}).insert(
        {"id": "1", "text": text, "raw": raw}
    )

    (row,) = listed(context)
    whole = pages_of(context).cell("pending", row["id"], "text", "local")

    assert row["cells"][0] == ["text", "VARCHAR", None, {"text": "ä" * CELL_CHARACTERS, "chars": 70_000}]
    assert row["cells"][1] == ["raw", "BLOB", None, {"text": "ab" * 120, "chars": 2_000}]
    assert whole == {"value": text}


def test_of_a_text_of_over_a_million_characters_the_first_million_come():
    context = sf.connect(store=":memory:")
    context.table("t", {"id": "VARCHAR", "text": "VARCHAR"}).insert({"id": "1", "text": "x" * 1_000_001})

    (row,) = listed(context)
    whole = pages_of(context).cell("pending", row["id"], "text", "local")

    assert whole == {"value": "x" * 1_000_000, "chars": 1_000_001}


def test_of_a_wide_row_eight_cells_come_and_how_many_more_there_are():
    context = sf.connect(store=":memory:")
    types = {"id": "VARCHAR"} | {f"c{i}": "BIGINT" for i in range(20)}
    context.table("t", types).insert({"id": "1"} | {f"c{i}": i for i in range(20)})

    (row,) = listed(context)

    assert [cell[0] for cell in row["cells"]] == ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"]
    assert row["more"] == 12


def test_a_table_whose_columns_are_all_key_is_shown():
    context = sf.connect(store=":memory:")
    context.table("t", {"id": "VARCHAR"}).insert({"id": "1"})

    (row,) = listed(context)

    assert [row["key"], row["kind"], row["cells"], row["more"]] == ["1", "insert", [], 0]


def test_pages_have_each_operation_once_and_a_page_behind_the_end_is_empty(context):
    context["todo"].insert([{"id": f"k{i:02}", "list": "home", "title": "t"} for i in range(25)])
    pages = pages_of(context)

    found = [pages.pending(None, None, offset, 10) for offset in (0, 10, 20, 30)]

    assert [page["total"] for page in found] == [25, 25, 25, 25]
    assert [len(page["rows"]) for page in found] == [10, 10, 5, 0]
    assert [row["key"] for page in found for row in page["rows"]] == [f"k{i:02}" for i in range(25)]


def test_a_store_without_tables_has_an_empty_page():
    context = sf.connect(store=":memory:")

    page = pages_of(context).pending(None, None, 0, 100)

    assert page == {"total": 0, "offset": 0, "rev": 0, "rows": []}


def test_a_rejected_operation_has_the_back_end_s_words_and_is_found_by_its_kind(context, line):
    context["todo"].update("a", n=-1)
    context["todo"].update("b", n=4)
    context.push(progress=False)
    context["todo"].update("b", n=5)

    (row,) = listed(context, "rejected")

    assert [row["key"], row["state"], row["error"]["code"]] == ["a", "rejected", "check"]
    assert "n >= 0" in row["error"]["message"]


def test_an_operation_behind_one_whose_answer_is_lost_is_a_row_of_its_own(context, line):
    context["todo"].update("a", n=4)
    with lost_answers(line), pytest.raises(sf.TransientError):
        context.push(progress=False)
    context["todo"].update("a", n=5)

    first, behind = listed(context)

    assert first["cells"] == [["n", "BIGINT", "1", "4"]]
    assert behind["cells"] == [["n", "BIGINT", "4", "5"]]
    assert [first["attempted"], behind["attempted"]] == [True, False]
    assert [row["id"] for row in listed(context, "attempted")] == [first["id"]]


# -- conflicts


def conflicted(tmp_path: Path, mine: str, theirs: str) -> tuple[sf.SyncContext, dict[str, Any]]:
    database = todo_database(tmp_path)
    context = synced(database.url)
    if mine == "delete":
        context["todo"].delete("a")
    elif mine == "insert":
        context["todo"].insert({"id": "z", "title": "mine", "n": 7})
    else:
        context["todo"].update("a", title="mine", n=7)
    database.run(theirs)
    context.push(progress=False)
    (row,) = pages_of(context).conflicts(None, None, 0, 100)["rows"]
    return context, row


def test_a_conflict_of_two_edits_shows_what_differs_and_what_clashes(tmp_path):
    _, row = conflicted(tmp_path, "edit", "update todo set title = 'theirs', stars = 9 where id = 'a'")

    assert [row["table"], row["key"], row["kind"], row["more"]] == ["todo", "a", "edit/edit", 0]
    assert row["cells"] == [
        ["title", "VARCHAR", "milk", "mine", "theirs", "clash", None],
        ["n", "BIGINT", "1", "7", "1", "mine", None],
        ["stars", "BIGINT", "3", "3", "9", "theirs", None],
    ]


def test_a_conflict_with_a_row_deleted_there_shows_what_mine_changed(tmp_path):
    _, row = conflicted(tmp_path, "edit", "delete from todo where id = 'a'")

    assert row["kind"] == "edit/delete"
    assert row["cells"] == [
        ["title", "VARCHAR", "milk", "mine", None, "mine", None],
        ["n", "BIGINT", "1", "7", None, "mine", None],
    ]


def test_a_conflict_with_a_row_deleted_here_shows_what_they_changed(tmp_path):
    _, row = conflicted(tmp_path, "delete", "update todo set title = 'theirs' where id = 'a'")

    assert row["kind"] == "delete/edit"
    assert row["cells"] == [["title", "VARCHAR", "milk", None, "theirs", "theirs", None]]


def test_a_conflict_of_two_inserts_has_no_base(tmp_path):
    _, row = conflicted(tmp_path, "insert", "insert into todo (id, title, n) values ('z', 'theirs', 7)")

    assert row["kind"] == "insert/insert"
    assert row["cells"] == [
        ["title", "VARCHAR", None, "mine", "theirs", "clash", None],
        ["stars", "BIGINT", None, None, "3", "theirs", None],
    ]


@pytest.mark.parametrize(
    ("side", "value"), [("base", "milk"), ("mine", "mine"), ("local", "mine"), ("theirs", "yours")]
)
def test_each_side_of_a_conflict_comes_whole(tmp_path, side, value):
    context, row = conflicted(tmp_path, "edit", "update todo set title = 'yours' where id = 'a'")

    assert pages_of(context).cell("conflicts", row["id"], "title", side) == {"value": value}


def test_a_cell_of_a_row_that_is_gone_or_of_no_column_is_refused_in_words(tmp_path):
    context, row = conflicted(tmp_path, "edit", "update todo set title = 'theirs' where id = 'a'")
    pages = pages_of(context)

    with pytest.raises(SyncError, match="not in the queue any more"):
        pages.cell("pending", "nobody", "title", "base")
    with pytest.raises(SchemaError, match="'colour' is not among"):
        pages.cell("pending", row["id"], "colour", "base")
    with pytest.raises(SyncError, match="no side 'theirs'"):
        pages.cell("pending", row["id"], "title", "theirs")
    context.conflicts["todo", "a"].keep_mine()
    with pytest.raises(SyncError, match="not in conflict any more"):
        pages.cell("conflicts", row["id"], "title", "base")


# -- the same as the views, over random walks of stagings, pulls, pushes and lost answers


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(3, 12))])
def test_pages_say_the_same_as_the_views(seed):
    walk = walked(seed)
    pages = Pages(walk.store, walk.queue)

    operations = list(PendingView(walk.store, walk.queue))
    conflicts = {conflict.key: conflict for conflict in ConflictView(walk.store, walk.queue)}

    assert [_of_page(row) for row in pages.pending(None, None, 0, 200)["rows"]] == [_of_view(op) for op in operations]
    for kind in ("insert", "update", "delete"):
        page = pages.pending("t", kind, 0, 200)
        assert [row["id"] for row in page["rows"]] == [op.id for op in operations if op.kind == kind]
        assert page["total"] == len(page["rows"])
    page = pages.conflicts(None, None, 0, 200)
    assert {row["key"] for row in page["rows"]} == conflicts.keys() and page["total"] == len(conflicts)
    for row in page["rows"]:
        _check_conflict(row, conflicts[row["key"]])
    _check_counts(walk, pages, operations, conflicts)


def _text(value: Any) -> str | None:
    return None if value is None else str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _of_page(row: dict[str, Any]) -> tuple[Any, ...]:
    cells = {name: (base, local) for name, _, base, local in row["cells"]}
    return row["id"], row["key"], row["kind"], row["attempted"], row["error"] and row["error"]["code"], cells


def _of_view(operation: Operation) -> tuple[Any, ...]:
    base, local = operation.base or {}, operation.local or {}
    names = (
        operation.changed if operation.kind != "delete" else [n for n, v in base.items() if v is not None and n != "k"]
    )
    cells = {name: (_text(base.get(name)), _text(local.get(name))) for name in names}
    error = operation.error and operation.error.code
    return operation.id, operation.key, operation.kind, operation.attempted, error, cells


def _check_conflict(row: dict[str, Any], conflict: Conflict) -> None:
    assert row["version"] == conflict.version
    assert {cell[0] for cell in row["cells"] if cell[5] == "clash"} == set(conflict.columns)
    sides = [conflict.base or {}, conflict.mine or {}, conflict.theirs or {}]
    for name, _, *values, _, _ in row["cells"]:
        assert values == [_text(side.get(name)) for side in sides]
    assert (row["kind"] == "delete/edit") == (conflict.mine is None)
    assert (row["kind"] == "edit/delete") == (conflict.theirs is None)


def _check_counts(walk: Any, pages: Pages, operations: list[Operation], conflicts: dict[Any, Conflict]) -> None:
    ((counts,), _, _) = pages.counts()
    assert counts["rows"] == len(walk.store.read("t").rows)
    for kind in ("insert", "update", "delete"):
        assert counts[kind] == sum(op.kind == kind for op in operations)
    assert counts["conflicts"] == len(conflicts)
    assert counts["rejected"] == sum(op.error is not None for op in operations)


# -- discard


def test_discarding_by_ids_gives_up_those_and_one_undo_brings_them_back(context):
    context["todo"].update("a", n=5)
    context["lists"].update("home", name="House")
    context["todo"].delete("b")
    before = waiting(context)
    a, house, _ = listed(context)

    done = pages_of(context).discard([a["id"], house["id"]])
    left = waiting(context)
    undone = pages_of(context).undo()

    assert [done.words, done.rows, sorted(done.tables)] == ["2 operations discarded", 2, ["lists", "todo"]]
    assert left == [("delete", "b")]
    assert undone.words == "taken back: discard of 2 rows"
    assert sorted(waiting(context)) == sorted(before)


def test_discarding_what_is_gone_says_so(context):
    context["todo"].update("a", n=5)
    (row,) = listed(context)
    pages_of(context).discard([row["id"]])

    again = pages_of(context).discard([row["id"], "nobody"])

    assert [again.words, again.rows] == ["2 operations not in the queue any more", 0]


def test_all_shown_of_a_kind_discards_that_kind_and_nothing_else(context):
    context["todo"].update("a", n=5)
    context["todo"].delete("b")
    context["todo"].insert({"id": "z", "title": "new"})

    done = pages_of(context).discard_shown("todo", "update", revision(context))

    assert done.words == "1 operation discarded"
    assert waiting(context) == [("delete", "b"), ("insert", "z")]


def test_all_shown_of_one_table_leaves_the_others(context):
    context["todo"].update("a", n=5)
    context["lists"].update("home", name="House")

    pages_of(context).discard_shown("lists", None, revision(context))

    assert waiting(context) == [("update", "a")]


def test_what_was_staged_after_it_was_shown_is_left_and_counted(context):
    context["todo"].update("a", n=5)
    context["todo"].update("c", n=5)
    rev = revision(context)
    context["todo"].update("b", n=6)
    context["todo"].update("c", n=7)  # folded into the operation that was shown

    done = pages_of(context).discard_shown(None, None, rev)

    assert done.words == "1 operation discarded; 2 operations left: changed since they were shown"
    assert [done.rows, done.late] == [1, 2]
    assert shown(context) == {"a": ["milk", 1], "b": ["bread", 6], "c": ["eggs", 7]}


def test_by_ids_with_a_revision_what_changed_since_is_left(context):
    context["todo"].update("a", n=5)
    rev, (row,) = revision(context), listed(context)
    context["todo"].update("a", n=6)

    done = pages_of(context).discard([row["id"]], rev)

    assert done.words == "1 operation left: changed since they were shown"
    assert waiting(context) == [("update", "a")]


def test_two_operations_of_one_row_go_together_and_the_words_say_so(context, line):
    context["todo"].insert({"id": "z", "title": "new", "n": 1})
    with lost_answers(line), pytest.raises(sf.TransientError):
        context.push(progress=False)
    context["todo"].update("z", n=2)

    done = pages_of(context).discard_shown(None, "update", revision(context))

    assert done.words == (
        "1 operation discarded; 1 more on the same rows went along; 1 may have arrived there: the next push takes them back"
    )
    context.push(progress=False)
    assert "z" not in shown(context) and waiting(context) == []


def test_a_row_with_an_operation_that_came_behind_after_it_was_shown_is_left(context, line):
    context["todo"].update("a", n=4)
    with lost_answers(line), pytest.raises(sf.TransientError):
        context.push(progress=False)
    rev = revision(context)
    context["todo"].update("a", n=5)

    done = pages_of(context).discard_shown(None, "attempted", rev)

    assert [done.rows, done.late] == [0, 1]
    assert shown(context)["a"] == ["milk", 5]


@pytest.mark.parametrize("kind", ["attempted", "update", None])
def test_what_a_push_began_to_send_since_it_was_shown_is_left(context, line, kind):
    context["todo"].update("a", n=4)
    with lost_answers(line), pytest.raises(sf.TransientError):
        context.push(progress=False)
    context["todo"].update("b", n=5)
    rev = revision(context)
    with lost_answers(line), pytest.raises(sf.TransientError):
        context.push(progress=False)  # sends both once more

    left = pages_of(context).discard_shown(None, kind, rev)
    taken = pages_of(context).discard_shown(None, "attempted", revision(context))

    assert [left.rows, left.late] == [0, 2]
    assert left.words == "2 operations left: changed since they were shown"
    assert taken.rows == 2


def test_what_was_sent_before_it_was_shown_is_given_up(context, line):
    context["todo"].update("a", n=4)
    with lost_answers(line), pytest.raises(sf.TransientError):
        context.push(progress=False)

    done = pages_of(context).discard_shown(None, "attempted", revision(context))

    assert done.rows == 1 and "the next push takes them back" in done.words


def test_an_empty_filter_discards_nothing_and_makes_no_call_to_take_back(context):
    rev = revision(context)

    done = pages_of(context).discard_shown(None, "delete", rev)

    assert [done.words, done.rows] == ["nothing to discard", 0]
    assert revision(context) == rev


def test_retrying_sends_a_rejected_operation_again(tmp_path):
    database = todo_database(tmp_path)
    context = synced(database.url)
    database.run("create trigger no_edits before update on todo begin select raise(abort, 'closed for today'); end")
    context["todo"].update("a", n=5)
    context.push(progress=False)
    (row,) = listed(context, "rejected")
    database.run("drop trigger no_edits")

    done = pages_of(context).retry([row["id"], "nobody"])
    context.push(progress=False)

    assert done.words == "1 operation will be sent again by the next push; 1 operation not rejected any more"
    assert database.todo()["a"] == ["milk", 5]


# -- settle


def three_conflicts(tmp_path: Path) -> tuple[sf.SyncContext, Any]:
    database = todo_database(tmp_path)
    context = synced(database.url)
    context["todo"].update("a", n=10)
    context["todo"].update("b", n=20)
    context["lists"].update("home", name="House")
    database.run("update todo set n = n + 100; update lists set name = 'Haus' where id = 'home'")
    context.push(progress=False)
    return context, database


def versions(context: sf.SyncContext, table: str | None = None) -> list[tuple[str, str]]:
    return [(row["id"], row["version"]) for row in pages_of(context).conflicts(table, None, 0, 100)["rows"]]


@pytest.mark.parametrize(
    ("side", "words", "n"),
    [("mine", "mine kept, to be sent with the next push", [10, 20]), ("theirs", "theirs taken", [101, 102])],
)
def test_settling_rows_by_a_side_is_one_call_and_one_undo(tmp_path, side, words, n):
    context, _ = three_conflicts(tmp_path)

    done = pages_of(context).settle(side, versions(context))
    settled = [shown(context)[key][1] for key in "ab"]
    undone = pages_of(context).undo()

    assert [done.words, done.rows, done.late] == [f"3 conflicts settled: {words}", 3, 0]
    assert settled == n
    assert undone.rows == 3 and len(context.conflicts) == 3


def test_a_conflict_with_a_newer_row_than_was_shown_is_left_and_the_words_say_so(tmp_path):
    context, database = three_conflicts(tmp_path)
    rows = versions(context, "todo")
    database.run("update todo set n = 1000 where id = 'a'")
    context["todo"].pull(query_id="all", progress=False)

    done = pages_of(context).settle("theirs", rows)

    assert [done.rows, done.late] == [1, 1]
    assert done.words == (
        "1 conflict settled: theirs taken; 1 conflict left: a newer row or edit has come since they were shown"
    )
    assert context.conflicts["todo", "a"].theirs["n"] == 1000


def test_a_conflict_that_was_edited_on_since_it_was_shown_is_left(tmp_path):
    database = todo_database(tmp_path)
    context = synced(database.url)
    context["todo"].update("a", n=5)
    database.run("update todo set n = 100 where id = 'a'")
    context.push(progress=False)
    pages = pages_of(context)
    page = pages.conflicts(None, None, 0, 10)
    rows = [(row["id"], row["version"]) for row in page["rows"]]
    context["todo"].update("a", title="typed since")

    left = pages.settle("theirs", rows, page["rev"])
    kept = context["todo"].get("a")["title"]
    settled = pages.settle("theirs", rows, pages.conflicts(None, None, 0, 10)["rev"])

    assert (left.rows, left.late, kept) == (0, 1, "typed since")
    assert "a newer row or edit has come" in left.words
    assert settled.rows == 1


def test_a_conflict_settled_elsewhere_says_so_instead_of_failing(tmp_path):
    context, _ = three_conflicts(tmp_path)
    rows = versions(context, "lists")
    context.conflicts["lists", "home"].keep_mine()

    done = pages_of(context).settle("theirs", rows)

    assert [done.words, done.rows, done.late] == ["1 conflict settled already elsewhere", 0, 1]
    assert waiting(context)[-1] == ("update", "home")


def test_all_shown_settles_the_conflicts_of_the_table_as_they_were_shown(tmp_path):
    context, database = three_conflicts(tmp_path)
    rev = pages_of(context).conflicts("todo", None, 0, 100)["rev"]
    database.run("update todo set n = 1000 where id = 'a'")
    context["todo"].pull(query_id="all", progress=False)

    done = pages_of(context).settle_shown("mine", "todo", None, rev)

    assert [done.rows, done.late, done.tables] == [1, 1, ["todo"]]
    assert [(c.table, c.key) for c in context.conflicts] == [("lists", "home"), ("todo", "a")]


def test_undo_says_what_it_took_back_and_when_there_is_nothing(context):
    context["todo"].update("a", n=5)

    first, second = pages_of(context).undo(), pages_of(context).undo()

    assert first.words == "taken back: update of 1 row"
    assert second.words == "there is nothing to take back"
    assert waiting(context) == []


def test_a_column_that_only_mine_changed_twice_is_no_clash_as_for_the_conflict_itself(context, line, database):
    context["todo"].update("a", n=5)
    with late_requests(line), pytest.raises(sf.TransientError):
        context.push(progress=False)
    context["todo"].update("a", n=6)
    database.run("update todo set title = 'tea' where id = 'a'")
    context["todo"].pull(query_id="all", push_first=False, progress=False)

    (shown,) = pages_of(context).conflicts("todo", None, 0, 10)["rows"]

    assert context.conflicts["todo", "a"].columns == ()
    assert [(cell[0], cell[5]) for cell in shown["cells"]] == [("title", "theirs"), ("n", "mine")]


def test_undo_says_how_many_rows_were_sent_since(context):
    context["todo"].update("a", n=5)
    context.push(progress=False)

    assert pages_of(context).undo().words == "nothing taken back; 1 row left: sent or settled since"


@pytest.mark.parametrize("call", ["pending", "conflicts"])
def test_an_unknown_table_is_refused_with_the_names_of_those_there_are(context, call):
    with pytest.raises(SyncError, match=r"'nowhere' is not in this store\nhint: it has 'lists', 'todo'"):
        getattr(pages_of(context), call)("nowhere", None, 0, 10)


# -- size


def queued(context: sf.SyncContext, count: int) -> None:
    """So many updates, inserts and deletes over three tables, by thousands in turn."""
    for name in ("one", "two", "three"):
        table = context.table(name, {"id": "BIGINT", "n": "BIGINT", "text": "VARCHAR"})
        with context._store.transaction() as cursor:
            layout = context._store.layout(cursor, name)
            cursor.run(
                f"insert into {layout.rows} by name select i as k_id, 'v' as version, 0 as rev, 0 as pulled_rev, "
                f"i as v_n, 'text ' || i as v_text from range({count}) t(i)"
            )
        frame = table.frame()
        edited = frame.iloc[count // 3 // 10 :].copy()
        edited.iloc[: count // 3 * 8 // 10, 0] = -1
        new = pd.DataFrame({"n": 1}, index=pd.Index(range(10**9, 10**9 + count // 3 // 10), name="id"))
        table.stage(pd.concat([edited, new]), base=frame, max_deletes=count)


def test_a_page_in_the_middle_of_many_operations_is_right():
    context = sf.connect(store=":memory:")
    queued(context, 3_000)

    page = pages_of(context).pending(None, None, 1_450, 100)
    with context._store.reading() as cursor:
        sources = [operations_source(context._store.layout(cursor, name)) for name in ("one", "two", "three")]
        wanted = cursor.rows(
            " union all ".join(f"select id, sequence from ({source})" for source in sources) + " order by sequence"
        )

    assert page["total"] == len(wanted) == 3_000
    assert [row["id"] for row in page["rows"]] == [id_ for id_, _ in wanted[1_450:1_550]]


@pytest.mark.full
def test_a_page_of_100_000_operations_takes_less_than_a_tenth_of_a_second(tmp_path):
    context = sf.connect(store=tmp_path / "store.duckdb")
    queued(context, 99_990)
    pages = pages_of(context)
    took = {}

    for kind, offset in ((None, 0), (None, 99_000), ("update", 50_000), ("insert", 0), ("delete", 9_000)):
        times = []
        for _ in range(7):
            began = time.perf_counter()
            rows = pages.pending(None, kind, offset, 100)["rows"]
            times.append(time.perf_counter() - began)
            assert len(rows) == 100
        took[kind, offset] = statistics.median(times)

    print({place: f"{1000 * seconds:.0f} ms" for place, seconds in took.items()})
    assert max(took.values()) < 0.1
