"""Push: each operation is applied once, whatever happens to requests and answers, and what is left is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from stories import Database, Line, Unasked, late_requests, lost_answers, offline, shown, synced, todo_database, waiting

import syncframe as sf
from syncframe.errors import AccessError, SyncError, TransientError


def push(context: sf.SyncContext, **options: Any) -> sf.PushResult:
    return context.push(progress=False, **options)


def pull(context: sf.SyncContext) -> sf.PullResult:
    return context["todo"].pull(query_id="all", push_first=False, progress=False)


def edit(context: sf.SyncContext, kind: str) -> None:
    todo = context["todo"]
    if kind == "insert":
        todo.insert({"id": "d", "title": "salt", "n": 4})
    elif kind == "update":
        todo.update("a", title="oat milk", n=11)
    else:
        todo.delete("b")


def another_client(database: Database, kind: str, how: str) -> None:
    """Change another column of the row that was written, or make a row anew under the key that was deleted."""
    if how == "a program":
        changes = {
            "insert": "update todo set stars = 5 where id = 'd'",
            "update": "update todo set stars = 5 where id = 'a'",
            "delete": "insert into todo (id, title, n, stars) values ('b', 'buns', 20, 5)",
        }
        database.run(changes[kind])
        return
    other = synced(database.url)
    if kind == "delete":
        other["todo"].insert({"id": "b", "title": "buns", "n": 20, "stars": 5})
    else:
        other["todo"].update("d" if kind == "insert" else "a", stars=5)
    assert push(other).ok


KEYS = {"insert": "d", "update": "a", "delete": "b"}

# Title, n and stars of the row in the end, by hand; stars has a default that no insert gives.
QUIET = {"insert": ("salt", 4, 3), "update": ("oat milk", 11, 3), "delete": None}
LOUD = {"insert": ("SALT", 4, 3), "update": ("OAT MILK", 11, 3), "delete": None}
CHANGED = {"insert": ("salt", 4, 5), "update": ("oat milk", 11, 5), "delete": ("buns", 20, 5)}
LOUD_CHANGED = {"insert": ("SALT", 4, 5), "update": ("OAT MILK", 11, 5), "delete": ("BUNS", 20, 5)}

# What the audit has of it: the operation once, and the row that the other client made anew.
ONCE = {
    "insert": [("insert", "d")],
    "update": [("update", "a")],
    "delete": [("delete", "b")],
}


def between(*pairs: tuple[str | None, bool]) -> pytest.MarkDecorator:
    """Who writes between the two pushes, over a database that changes what it is given, or not."""
    every = [(who, is_loud) for who in (None, "a program", "a context") for is_loud in (False, True)]
    marks = {pair: [] if pair in pairs else [pytest.mark.full] for pair in every}
    params = [
        pytest.param(*pair, id=f"{pair[0]}-{'loud' if pair[1] else 'quiet'}", marks=marks[pair]) for pair in every
    ]
    return pytest.mark.parametrize(("between", "is_loud"), params)


@pytest.mark.parametrize("kind", ["insert", "update", "delete"])
@between((None, False), (None, True), ("a program", False), ("a context", True))
def test_an_operation_whose_answer_was_lost_is_applied_once(
    tmp_path: Path, kind: str, is_loud: bool, between: str | None
) -> None:
    database = todo_database(tmp_path, loud=is_loud)
    line = Line(database.url)
    context = synced(line)
    edit(context, kind)
    with lost_answers(line), pytest.raises(TransientError):
        push(context)
    if between:
        another_client(database, kind, between)

    result = push(context)
    pull(context)

    expected = {
        (False, False): QUIET,
        (True, False): LOUD,
        (False, True): CHANGED,
        (True, True): LOUD_CHANGED,
    }[is_loud, bool(between)][kind]
    assert result.counts == {"accepted": 1, "conflicts": 0, "rejected": 0}
    assert len(context.pending) == len(context.conflicts) == 0
    assert database.audit() == ONCE[kind] + ([("insert", "b")] if kind == "delete" and between else [])
    row = context["todo"].get(KEYS[kind])
    assert (row and (row["title"], row["n"], row["stars"])) == expected
    assert database.rows(f"select title, n, stars from todo where id = '{KEYS[kind]}'") == (
        [expected] if expected else []
    )


@pytest.mark.parametrize("kind", ["insert", "update", "delete"])
@pytest.mark.parametrize("is_loud", [False, True], ids=["quiet", "loud"])
def test_a_pull_recognises_an_operation_whose_answer_was_lost(tmp_path: Path, kind: str, is_loud: bool) -> None:
    database = todo_database(tmp_path, loud=is_loud)
    line = Line(database.url)
    context = synced(line)
    edit(context, kind)
    with lost_answers(line), pytest.raises(TransientError):
        push(context)

    pulled = pull(context)

    assert pulled.conflicts == len(context.conflicts) == len(context.pending) == 0
    assert database.audit() == ONCE[kind]
    assert shown(context) == database.todo()


@pytest.mark.parametrize("kind", ["insert", "update", "delete"])
@pytest.mark.parametrize("is_loud", [False, True], ids=["quiet", "loud"])
def test_a_request_that_arrives_after_the_second_push_changes_nothing(tmp_path: Path, kind: str, is_loud: bool) -> None:
    database = todo_database(tmp_path, loud=is_loud)
    line = Line(database.url)
    context = synced(line)
    edit(context, kind)
    with late_requests(line), pytest.raises(TransientError):
        push(context)

    assert push(context).ok
    line.arrive()
    pull(context)

    assert database.audit() == ONCE[kind]
    assert shown(context) == database.todo()
    assert len(context.conflicts) == 0


def test_a_late_insert_does_not_bring_back_a_row_that_was_deleted_since(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "insert")
    with late_requests(line), pytest.raises(TransientError):
        push(context)
    context["todo"].delete("d")

    assert push(context).ok
    line.arrive()
    pull(context)

    assert database.audit() == [("insert", "d"), ("delete", "d")]
    assert "d" not in database.todo()
    assert shown(context) == database.todo()


def test_a_late_update_does_not_revert_what_came_after_it(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "update")
    with late_requests(line), pytest.raises(TransientError):
        push(context)
    context["todo"].update("a", title="milk", n=1)

    assert push(context).ok
    line.arrive()
    pull(context)

    assert database.audit() == [("update", "a"), ("update", "a")]
    assert database.todo()["a"] == ["milk", 1]
    assert shown(context) == database.todo()


def test_a_late_delete_does_not_take_the_row_that_was_inserted_again(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "delete")
    with late_requests(line), pytest.raises(TransientError):
        push(context)
    context["todo"].insert({"id": "b", "title": "buns", "n": 20})

    assert push(context).ok
    line.arrive()
    pull(context)

    assert database.audit() == [("delete", "b"), ("insert", "b")]
    assert database.todo()["b"] == ["buns", 20]
    assert shown(context) == database.todo()


def test_a_late_request_that_another_client_s_change_has_overtaken_is_a_conflict_and_changes_nothing(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "update")
    with late_requests(line), pytest.raises(TransientError):
        push(context)
    another_client(database, "update", "a context")

    result = push(context)
    line.arrive()
    pull(context)

    assert result.counts == {"accepted": 0, "conflicts": 1, "rejected": 0}
    assert database.audit() == []
    assert database.rows("select title, n, stars from todo where id = 'a'") == [("milk", 1, 5)]
    conflict = context.conflicts["todo", "a"]
    assert (conflict.mine["title"], conflict.theirs["stars"], conflict.columns) == ("oat milk", 5, ())


# -- what is staged while an answer is awaited, or after it was lost


def test_a_row_inserted_and_lost_and_then_deleted_here_stays_deleted(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "insert")
    with lost_answers(line), pytest.raises(TransientError):
        push(context)

    context["todo"].delete("d")
    assert waiting(context) == [("insert", "d"), ("delete", "d")]
    result = push(context)
    pull(context)

    assert result.counts == {"accepted": 2, "conflicts": 0, "rejected": 0}
    assert "d" not in shown(context)
    assert database.audit() == [("insert", "d"), ("delete", "d")]
    assert shown(context) == database.todo()


def test_a_row_deleted_and_lost_and_then_inserted_again_is_the_new_row(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "delete")
    with lost_answers(line), pytest.raises(TransientError):
        push(context)

    context["todo"].insert({"id": "b", "title": "buns", "n": 20})
    assert waiting(context) == [("delete", "b"), ("insert", "b")]
    assert push(context).ok
    pull(context)

    assert database.audit() == [("delete", "b"), ("insert", "b")]
    assert shown(context)["b"] == ["buns", 20]
    assert shown(context) == database.todo()


def test_an_edit_made_while_the_answer_is_on_its_way_waits_behind_and_goes_out_next(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "update")
    line.before_answer = lambda: context["todo"].update("a", n=12)

    first = push(context)
    line.before_answer = lambda: None
    between = waiting(context), shown(context)["a"]
    second = push(context)

    assert (first.counts["accepted"], first.ok) == (1, False)
    assert between == ([("update", "a")], ["oat milk", 12])
    assert second.ok
    assert database.audit() == [("update", "a"), ("update", "a")]
    assert shown(context) == database.todo()
    assert database.todo()["a"] == ["oat milk", 12]


def test_an_edit_behind_a_lost_update_is_put_on_what_the_back_end_made_of_the_first(tmp_path: Path) -> None:
    database = todo_database(tmp_path, loud=True)
    line = Line(database.url)
    context = synced(line)
    edit(context, "update")
    with lost_answers(line), pytest.raises(TransientError):
        push(context)

    context["todo"].update("a", n=12)
    assert push(context).ok

    assert database.audit() == [("update", "a"), ("update", "a")]
    assert database.todo()["a"] == ["OAT MILK", 12]
    assert shown(context) == database.todo()


def test_several_lost_answers_in_a_row_apply_each_edit_once(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    for n in (11, 12, 13):
        context["todo"].update("a", n=n)
        with lost_answers(line), pytest.raises(TransientError):
            push(context)

    while not push(context).ok:
        pass
    pull(context)

    assert database.todo()["a"] == ["milk", 13]
    assert shown(context) == database.todo()
    assert database.audit() == [("update", "a")] * 2  # the second and third became one behind the first


def test_after_a_request_that_never_left_an_edit_folds_into_the_first(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "update")
    with offline(line), pytest.raises(TransientError, match="no route"):
        push(context)

    context["todo"].update("a", n=12)

    assert waiting(context) == [("update", "a")]
    assert push(context).ok
    assert database.audit() == [("update", "a")]


def test_a_push_that_is_refused_entry_leaves_all_queued(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "update")
    edit(context, "delete")

    line.fault = AccessError("the token has expired", status=401)
    with pytest.raises(AccessError, match="expired"):
        push(context)
    left = waiting(context), database.audit()
    line.fault = None

    assert left == ([("update", "a"), ("delete", "b")], [])
    assert push(context).ok
    assert database.audit() == [("update", "a"), ("delete", "b")]


@pytest.mark.parametrize(
    ("kind", "applied"),
    [
        ("insert", [("insert", "d"), ("delete", "d")]),
        ("update", [("update", "a"), ("update", "a")]),
        ("delete", [("delete", "b"), ("insert", "b")]),
    ],
)
def test_giving_up_an_operation_whose_answer_was_lost_sends_its_inverse(
    context: sf.SyncContext, line: Line, database: Database, kind: str, applied: list[tuple[str, str]]
) -> None:
    before = shown(context)
    edit(context, kind)
    with lost_answers(line), pytest.raises(TransientError):
        push(context)

    context.discard()
    given_up = shown(context)
    result = push(context)

    assert given_up == before
    assert result.counts == {"accepted": 2, "conflicts": 0, "rejected": 0}
    assert database.audit() == applied
    assert shown(context) == database.todo() == before


def test_a_lost_insert_that_another_client_deleted_stays_deleted(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "insert")
    with lost_answers(line), pytest.raises(TransientError):
        push(context)
    database.run("delete from todo where id = 'd'")

    push(context)
    pull(context)

    assert database.audit() == [("insert", "d"), ("delete", "d")]
    assert "d" not in shown(context)
    assert waiting(context) == []


def test_an_edit_behind_a_lost_update_does_not_overwrite_what_another_client_wrote_since(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    edit(context, "update")
    with lost_answers(line), pytest.raises(TransientError):
        push(context)
    context["todo"].update("a", n=12)
    database.run("update todo set n = 70 where id = 'a'")

    result = push(context)
    (conflict,) = context.conflicts

    assert result.counts == {"accepted": 1, "conflicts": 1, "rejected": 0}
    assert (conflict.base["n"], conflict.mine["n"], conflict.theirs["n"]) == (11, 12, 70)
    assert database.todo()["a"] == ["oat milk", 70]
    conflict.keep_mine()
    assert push(context).ok
    assert shown(context) == database.todo()
    assert database.todo()["a"] == ["oat milk", 12]


def test_an_edit_behind_a_request_that_was_refused_is_folded_into_it(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    context["todo"].update("a", n=-1)
    with late_requests(line), pytest.raises(TransientError):
        push(context)
    context["todo"].update("a", n=4, title="soy milk")
    assert len(context.pending) == 2

    result = push(context)

    assert result.ok
    assert database.audit() == [("update", "a")]
    assert shown(context) == database.todo()
    assert database.todo()["a"] == ["soy milk", 4]


# -- refusals


REFUSALS = {
    "check": ({"id": "x", "title": "nails", "n": -1}, "check", "n >= 0", {"n": 1}),
    "not null": ({"id": "x", "n": 1}, "not null", "todo.title", {"title": "nails"}),
    "unique": ({"id": "x", "title": "nails", "code": "K"}, "unique", "todo.code", {"code": "L"}),
    "reference": ({"id": "x", "title": "nails", "list": "none"}, "reference", "FOREIGN KEY", {"list": "work"}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_insert_keeps_the_back_end_s_words_and_is_mended_by_editing_it(tmp_path: Path, name: str) -> None:
    database = todo_database(tmp_path)
    database.run("update todo set code = 'K' where id = 'c'")
    context = synced(database.url)
    row, code, words, mended = REFUSALS[name]
    context["todo"].insert(row)
    context["todo"].update("a", n=11)

    result = push(context)

    assert result.counts == {"accepted": 1, "conflicts": 0, "rejected": 1}
    assert not result
    (refused,) = result.rejected
    assert (refused.kind, refused.key, refused.error.code) == ("insert", "x", code)
    assert words in refused.error.message
    assert database.todo()["a"] == ["milk", 11]
    assert push(context).counts == {"accepted": 0, "conflicts": 0, "rejected": 1}  # not sent again as it is

    context["todo"].update("x", **mended)

    assert [operation.error for operation in context.pending] == [None]
    assert push(context).ok
    assert shown(context) == database.todo()
    assert database.audit() == [("update", "a"), ("insert", "x")]


def test_a_refused_update_shows_the_edit_and_goes_out_when_mended(context: sf.SyncContext, database: Database) -> None:
    context["todo"].update("a", n=-5)
    context["todo"].delete("b")

    result = push(context)
    (refused,), left = result.rejected, shown(context)["a"]
    context["todo"].update("a", n=5)

    assert result.counts == {"accepted": 1, "conflicts": 0, "rejected": 1}
    assert (refused.key, refused.error.code) == ("a", "check")
    assert left == ["milk", -5]
    assert push(context).ok
    assert database.todo() == {"a": ["milk", 5], "c": ["eggs", 3]}


def test_a_refused_operation_taken_back_leaves_nothing(context: sf.SyncContext, database: Database) -> None:
    context["todo"].update("a", n=-5)
    push(context)

    context["todo"].revert("a")

    assert push(context).ok
    assert shown(context)["a"] == ["milk", 1]
    assert database.audit() == []


def test_retry_rejected_sends_a_refused_operation_once_more(context: sf.SyncContext, database: Database) -> None:
    context["todo"].insert({"id": "x", "title": "nails", "list": "barn"})
    assert push(context).rejected[0].error.code == "reference"
    database.run("insert into lists values ('barn', 'Barn')")

    as_it_is = push(context)
    again = push(context, retry_rejected=True)

    assert as_it_is.counts == {"accepted": 0, "conflicts": 0, "rejected": 1}
    assert again.ok
    assert database.rows("select list from todo where id = 'x'") == [("barn",)]


def test_one_refused_operation_can_be_sent_again_by_itself(context: sf.SyncContext, database: Database) -> None:
    context["todo"].insert([{"id": "x", "title": "nails", "list": "barn"}, {"id": "y", "title": "glue", "n": -1}])
    push(context)
    database.run("insert into lists values ('barn', 'Barn')")

    next(operation for operation in context.pending if operation.key == "x").retry()
    result = push(context)

    assert result.counts == {"accepted": 1, "conflicts": 0, "rejected": 1}
    assert [operation.key for operation in result.rejected] == ["y"]


# -- order


def test_parents_staged_after_their_children_are_found_in_the_same_push(
    context: sf.SyncContext, database: Database
) -> None:
    context["todo"].insert({"id": "x", "title": "nails", "list": "barn"})
    context["todo"].insert({"id": "y", "title": "glue", "list": "barn"})
    context["lists"].insert({"id": "barn", "name": "Barn"})

    result = push(context)

    assert result.counts == {"accepted": 3, "conflicts": 0, "rejected": 0}
    assert result.ok
    assert database.audit() == [("insert", "barn"), ("insert", "x"), ("insert", "y")]


def test_deletes_of_parents_staged_before_their_children_go_in_reverse(
    context: sf.SyncContext, database: Database
) -> None:
    context["lists"].delete("work")
    context["todo"].delete("c")

    result = push(context)

    assert result.ok
    assert database.audit() == [("delete", "c"), ("delete", "work")]
    assert database.rows("select id from lists") == [("home",)]


def test_a_value_that_another_row_gives_up_later_in_the_push_is_taken_by_the_retry(
    tmp_path: Path,
) -> None:
    database = todo_database(tmp_path)
    database.run("update todo set code = 'K' where id = 'a'")
    context = synced(database.url)
    context["todo"].update("b", code="K")
    context["lists"].update("home", name="Casa")  # a batch of its own lies between
    context["todo"].update("a", code="L")

    assert push(context).ok

    assert database.rows("select id, code from todo order by id") == [("a", "L"), ("b", "K"), ("c", None)]


def test_operations_go_in_the_order_in_which_they_were_staged_across_tables(
    context: sf.SyncContext, database: Database
) -> None:
    context["lists"].insert({"id": "barn", "name": "Barn"})
    context["todo"].insert({"id": "x", "title": "nails", "list": "barn"})
    context["todo"].update("a", n=11)
    context["lists"].insert({"id": "shed", "name": "Shed"})
    context["todo"].update("b", n=12)

    result = push(context)

    order = [("insert", "barn"), ("insert", "x"), ("update", "a"), ("insert", "shed"), ("update", "b")]
    assert [(operation.kind, operation.key) for operation in result.accepted] == order
    assert database.audit() == order


def test_an_insert_keeps_its_first_place_and_an_update_takes_its_last(
    context: sf.SyncContext, database: Database
) -> None:
    context["todo"].insert({"id": "x", "title": "nails", "n": 1})
    context["todo"].update("a", n=11)
    context["todo"].update("b", n=12, title="rolls")
    context["todo"].update("x", n=2)
    context["todo"].update("a", n=13)

    assert waiting(context) == [("insert", "x"), ("update", "b"), ("update", "a")]
    push(context)

    assert database.audit() == [("insert", "x"), ("update", "b"), ("update", "a")]


def test_a_push_of_one_table_leaves_the_other_queued(context: sf.SyncContext, database: Database) -> None:
    context["lists"].insert({"id": "barn", "name": "Barn"})
    context["todo"].update("a", n=11)

    result = push(context, tables="todo")

    assert result.ok
    assert database.audit() == [("update", "a")]
    assert waiting(context) == [("insert", "barn")]


def test_a_pull_of_the_child_pushes_the_parents_before_it(context: sf.SyncContext, database: Database) -> None:
    context["lists"].insert({"id": "barn", "name": "Barn"})
    context["todo"].insert({"id": "x", "title": "nails", "list": "barn"})
    context["lists"].insert({"id": "shed", "name": "Shed"})

    pulled = context["todo"].pull(query_id="all", progress=False)

    assert pulled.pushed.counts == {"accepted": 2, "conflicts": 0, "rejected": 0}
    assert database.audit() == [("insert", "barn"), ("insert", "x")]
    assert waiting(context) == [("insert", "shed")]


# -- all or nothing


def test_an_atomic_push_applies_all(context: sf.SyncContext, database: Database) -> None:
    context["lists"].insert({"id": "barn", "name": "Barn"})
    context["todo"].insert({"id": "x", "title": "nails", "list": "barn"})
    context["todo"].delete("b")

    assert push(context, atomic=True).ok

    assert database.audit() == [("insert", "barn"), ("insert", "x"), ("delete", "b")]
    assert shown(context) == database.todo()


def test_an_atomic_push_with_one_conflict_applies_nothing(context: sf.SyncContext, database: Database) -> None:
    database.run("update todo set title = 'tea' where id = 'c'")
    context["lists"].insert({"id": "barn", "name": "Barn"})
    context["todo"].update("a", n=11)
    context["todo"].update("c", title="coffee")

    result = push(context, atomic=True)

    assert result.counts == {"accepted": 0, "conflicts": 1, "rejected": 0}
    assert database.audit() == []
    assert waiting(context) == [("insert", "barn"), ("update", "a"), ("update", "c")]
    assert not any(operation.attempted for operation in context.pending)

    context.conflicts["todo", "c"].take_theirs()
    assert push(context, atomic=True).ok
    assert database.audit() == [("insert", "barn"), ("update", "a")]


def test_an_atomic_push_with_one_refusal_applies_nothing(context: sf.SyncContext, database: Database) -> None:
    context["todo"].update("a", n=11)
    context["todo"].update("b", n=-1)
    context["lists"].insert({"id": "barn", "name": "Barn"})

    result = push(context, atomic=True)

    assert result.counts == {"accepted": 0, "conflicts": 0, "rejected": 1}
    assert result.rejected[0].key == "b"
    assert database.audit() == []
    context["todo"].update("b", n=12)
    assert push(context, atomic=True).ok
    assert shown(context) == database.todo() == {"a": ["milk", 11], "b": ["bread", 12], "c": ["eggs", 3]}


def test_an_atomic_push_whose_answer_was_lost_is_applied_once(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    context["todo"].update("a", n=11)
    context["todo"].delete("b")
    with lost_answers(line), pytest.raises(TransientError):
        push(context, atomic=True)

    assert push(context, atomic=True).counts == {"accepted": 2, "conflicts": 0, "rejected": 0}

    assert database.audit() == [("update", "a"), ("delete", "b")]


def test_an_atomic_push_is_refused_before_anything_is_sent_where_the_back_end_cannot(database: Database) -> None:
    line = Line(database.url)
    line.promises = sf.Promises(atomic_push=False)
    context = synced(line)
    context["todo"].update("a", n=11)

    with pytest.raises(SyncError, match="all or nothing"):
        push(context, atomic=True)

    assert not {"push", "push_atomic"} & set(line.asked)
    assert database.audit() == []
    assert push(context).ok


# -- interrupted


def test_a_push_stopped_between_two_batches_is_finished_by_the_next(
    context: sf.SyncContext, database: Database
) -> None:
    context["todo"].update("a", n=11)
    context["lists"].insert({"id": "barn", "name": "Barn"})
    context["todo"].delete("b")

    def stop(done: int, total: int | None, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        context.push(progress=stop)
    left, applied = waiting(context), database.audit()
    result = push(context)

    assert left == [("insert", "barn"), ("delete", "b")]
    assert applied == [("update", "a")]
    assert result.counts == {"accepted": 2, "conflicts": 0, "rejected": 0}
    assert database.audit() == [("update", "a"), ("insert", "barn"), ("delete", "b")]
    assert shown(context) == database.todo()


def test_progress_is_told_how_many_of_how_many(context: sf.SyncContext) -> None:
    context["todo"].update("a", n=11)
    context["lists"].insert({"id": "barn", "name": "Barn"})
    context["todo"].delete("b")
    told: list[tuple[int, int | None, str]] = []

    context.push(progress=lambda *what: told.append(what))

    assert told == [(1, 3, "push"), (2, 3, "push"), (3, 3, "push")]


def test_a_push_of_which_some_outcomes_came_says_what_stopped_it(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    context["todo"].update("a", n=11)
    context["todo"].update("b", n=12)
    context["todo"].update("c", n=13)

    with lost_answers(line, after=2):
        first = push(context)
    left = waiting(context)
    second = push(context)

    assert isinstance(first.stopped_by, TransientError)
    assert (first.counts["accepted"], first.ok, bool(first)) == (2, False, False)
    assert left == [("update", "c")]
    assert second.ok
    assert database.audit() == [("update", "a"), ("update", "b"), ("update", "c")]


def test_a_push_of_which_no_outcome_came_raises_and_keeps_all(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    context["todo"].update("a", n=11)

    with offline(line), pytest.raises(TransientError, match="no route"):
        push(context)

    assert waiting(context) == [("update", "a")]
    assert shown(context)["a"] == ["milk", 11]
    assert database.audit() == []


def test_an_empty_queue_asks_nothing() -> None:
    context = sf.connect(Unasked(), store=":memory:")
    context.table("todo", schema={"id": "VARCHAR", "title": "VARCHAR"})

    result = context.push()

    assert result.ok
    assert result.counts == {"accepted": 0, "conflicts": 0, "rejected": 0}
    assert result.stopped_by is None


def test_a_queue_that_was_edited_back_to_nothing_asks_nothing(context: sf.SyncContext, line: Line) -> None:
    context["todo"].update("a", n=11)
    context["todo"].update("a", n=1)
    line.asked.clear()

    assert push(context).ok

    assert line.asked == []


def test_what_was_accepted_is_told_as_it_was_sent(tmp_path: Path) -> None:
    context = synced(todo_database(tmp_path, loud=True).url)
    edit(context, "insert")
    edit(context, "update")
    edit(context, "delete")

    inserted, updated, deleted = push(context).accepted

    assert (inserted.kind, inserted.base, inserted.local) == ("insert", None, {"id": "d", "title": "salt", "n": 4})
    assert (updated.kind, updated.changed) == ("update", ("n", "title"))
    assert (updated.base["title"], updated.local["title"]) == ("milk", "oat milk")
    assert (deleted.kind, deleted.base["title"], deleted.local) == ("delete", "bread", None)
    assert shown(context) == {"a": ["OAT MILK", 11], "c": ["eggs", 3], "d": ["SALT", 4]}


# -- conflicts


def clash(context: sf.SyncContext, database: Database) -> None:
    """Row c is another on both sides; row a is edited here alone."""
    database.run("update todo set title = 'tea', n = 30 where id = 'c'; delete from audit")
    context["todo"].update("c", title="coffee")
    context["todo"].update("a", n=11)


def test_a_conflict_stands_is_not_sent_again_and_is_counted_in_each_push(
    context: sf.SyncContext, line: Line, database: Database
) -> None:
    clash(context, database)

    first = push(context)
    line.asked.clear()
    second = push(context)

    assert first.counts == {"accepted": 1, "conflicts": 1, "rejected": 0}
    assert second.counts == {"accepted": 0, "conflicts": 1, "rejected": 0}
    assert "push" not in line.asked
    assert [conflict.key for conflict in second.conflicts] == ["c"]
    (conflict,) = first.conflicts
    assert (conflict.base["title"], conflict.mine["title"], conflict.theirs["title"]) == ("eggs", "coffee", "tea")
    assert conflict.columns == ("title",)
    assert database.todo()["c"] == ["tea", 30]


@pytest.mark.parametrize(
    ("policy", "row", "applied"),
    [
        ("mine", ["coffee", 30], [("update", "a")]),
        ("theirs", ["tea", 30], [("update", "a")]),
        (lambda conflict: {"title": "both", "n": 31}, ["both", 31], [("update", "a"), ("update", "c")]),
        (lambda conflict: "theirs" if conflict.theirs["n"] == 30 else None, ["tea", 30], [("update", "a")]),
    ],
    ids=["mine", "theirs", "a row", "a word"],
)
@pytest.mark.parametrize("stands", [False, True], ids=["new", "standing"])
def test_a_policy_settles_and_what_it_settles_goes_out_in_the_same_push(
    context: sf.SyncContext, database: Database, policy: Any, row: list[Any], applied: list[Any], stands: bool
) -> None:
    clash(context, database)
    if stands:
        push(context)

    result = push(context, on_conflict=policy)

    assert result.ok
    assert len(context.pending) == 0
    assert database.todo()["c"] == row
    assert shown(context) == database.todo()
    assert database.audit() == applied


def test_a_policy_that_leaves_a_conflict_alone_leaves_it(context: sf.SyncContext, database: Database) -> None:
    clash(context, database)

    result = push(context, on_conflict=lambda conflict: None)

    assert result.counts == {"accepted": 1, "conflicts": 1, "rejected": 0}
    assert database.todo()["c"] == ["tea", 30]


def test_a_policy_that_raises_leaves_that_conflict_and_settles_the_others(
    context: sf.SyncContext, database: Database
) -> None:
    database.run("update todo set title = 'tea' where id in ('b', 'c')")
    context["todo"].update("b", title="rolls")
    context["todo"].update("c", title="coffee")

    def unsure(conflict: sf.Conflict) -> str:
        if conflict.key == "b":
            raise ZeroDivisionError("no idea")
        return "mine"

    with pytest.warns(UserWarning, match="'b'.*no idea"):
        result = push(context, on_conflict=unsure)

    assert result.counts["conflicts"] == 1
    assert [conflict.key for conflict in result.conflicts] == ["b"]
    assert database.todo() == {"a": ["milk", 1], "b": ["tea", 2], "c": ["coffee", 3]}


def test_a_context_s_policy_holds_where_the_call_says_nothing(database: Database) -> None:
    context = synced(database.url, on_conflict="theirs")
    clash(context, database)

    assert push(context).ok

    assert shown(context)["c"] == ["tea", 30]


def test_a_delete_here_of_a_row_changed_there_is_a_conflict_that_either_side_settles(
    context: sf.SyncContext, database: Database
) -> None:
    database.run("update todo set n = 30 where id = 'c'; update todo set n = 20 where id = 'b'")
    context["todo"].delete(["b", "c"])

    result = push(context)
    context.conflicts["todo", "b"].keep_mine()
    context.conflicts["todo", "c"].take_theirs()

    assert result.counts["conflicts"] == 2
    assert push(context).ok
    assert shown(context) == database.todo() == {"a": ["milk", 1], "c": ["eggs", 30]}


def test_the_same_row_inserted_by_two_is_a_conflict_for_the_second(context: sf.SyncContext, database: Database) -> None:
    other = synced(database.url)
    other["todo"].insert({"id": "d", "title": "pepper", "n": 5})
    assert push(other).ok
    edit(context, "insert")

    result = push(context)
    context.conflicts["todo", "d"].keep_mine()

    assert result.counts == {"accepted": 0, "conflicts": 1, "rejected": 0}
    assert push(context).ok
    assert database.todo()["d"] == ["salt", 4]
    other["todo"].pull(query_id="all", progress=False)
    assert shown(other) == shown(context) == database.todo()


def test_a_table_that_is_not_tracked_recognises_what_it_holds_already(tmp_path: Path) -> None:
    database = todo_database(tmp_path, tracked=False)
    line = Line(database.url)
    context = synced(line)
    for kind in ("insert", "update", "delete"):
        edit(context, kind)
    with lost_answers(line), warnings.catch_warnings(), pytest.raises(TransientError):
        push(context)

    result = push(context)

    assert result.counts == {"accepted": 3, "conflicts": 0, "rejected": 0}
    assert database.audit() == [("insert", "d"), ("update", "a"), ("delete", "b")]
    assert shown(context) == database.todo()


def test_all_or_nothing_sends_nothing_while_an_earlier_conflict_stands(tmp_path):
    database = todo_database(tmp_path)
    ctx = synced(database.url)
    ctx["todo"].update("a", n=50)
    ctx["todo"].update("b", n=100)
    database.run("update todo set n = 5 where id = 'b'")

    first, second = ctx.push(atomic=True), ctx.push(atomic=True)

    assert [r.counts["accepted"] for r in (first, second)] == [0, 0]
    assert [r.counts["conflicts"] for r in (first, second)] == [1, 1]
    assert database.todo()["a"][1] != 50
    ctx.conflicts.keep_mine()
    assert ctx.push(atomic=True).counts["accepted"] == 2


def test_a_row_deleted_on_both_sides_behind_a_lost_answer_is_no_conflict(database, line, context):
    context["todo"].update("a", n=5)
    with lost_answers(line), pytest.raises(sf.TransientError):
        context.push(progress=False)
    context["todo"].delete("a")
    database.run("delete from todo where id = 'a'")

    result = context.push(progress=False)

    assert [result.counts, len(context.pending)] == [{"accepted": 1, "conflicts": 0, "rejected": 0}, 0]
    assert context["todo"].get("a") is None
