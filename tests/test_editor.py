"""What a person decides cell by cell: the states of a conflict, typed values, a conflict settled, a refused row mended."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import random
import sqlite3
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from stories import late_requests, synced, todo_database, waiting
from test_queue import COLUMNS, walked

import syncframe as sf
from syncframe.conflict import grouped, merge
from syncframe.editor import Choice, Editor
from syncframe.errors import KeyColumnError, SchemaError, SyncError
from syncframe.operation import same
from syncframe.pages import Pages
from syncframe.schema import Column
from syncframe.sides import KINDS, conflict_rows
from syncframe.typed import kept, typed
from syncframe.views import Conflict, ConflictView

MINE, THEIRS, BASE, NULL = Choice(side="mine"), Choice(side="theirs"), Choice(side="base"), Choice()


def text(value: str) -> Choice:
    return Choice(text=value)


def editor_of(context: sf.SyncContext) -> Editor:
    return Editor(context._store, context._queue)


def pages_of(context: sf.SyncContext) -> Pages:
    return Pages(context._store, context._queue)


@dataclass
class Shown:
    """One conflict as a front end shows it, with what resolves it."""

    context: sf.SyncContext
    database: Any
    row: dict[str, Any]

    @property
    def states(self) -> dict[str, str]:
        return {cell[0]: cell[5] for cell in self.row["cells"]}

    def resolve(self, cells: dict[str, Choice] | None = None, row: str | None = None) -> Any:
        at = self.row
        return editor_of(self.context).resolve(at["id"], at["version"], at["rev"], cells or {}, row)


def conflicted(folder: Path, mine: Any, theirs: str) -> Shown:
    database = todo_database(folder)
    context = synced(database.url)
    mine(context["todo"])
    database.run(theirs)
    context.push(progress=False)
    (row,) = pages_of(context).conflicts(None, None, 0, 10)["rows"]
    return Shown(context, database, editor_of(context).conflict(row["id"]))


def clashing(folder: Path) -> Shown:
    """Of row a: title clashes, n is mine, stars theirs, code alike, list unchanged."""
    return conflicted(
        folder,
        lambda todo: todo.update("a", title="mine", n=7, code="both"),
        "update todo set title = 'theirs', stars = 9, code = 'both' where id = 'a'",
    )


def row_there(shown: Shown, key: str = "a") -> tuple[Any, ...] | None:
    found = shown.database.rows(f"select list, title, n, stars, code from todo where id = '{key}'")
    return found[0] if found else None


# -- one conflict in full


def test_a_whole_conflict_has_every_column_in_the_table_s_order_with_its_state(tmp_path):
    shown = clashing(tmp_path)

    assert shown.row["cells"] == [
        ["list", "VARCHAR", "home", "home", "home", "unchanged", None],
        ["title", "VARCHAR", "milk", "mine", "theirs", "clash", None],
        ["n", "BIGINT", "1", "7", "1", "mine", None],
        ["stars", "BIGINT", "3", "3", "9", "theirs", None],
        ["code", "VARCHAR", None, "both", "both", "same", None],
    ]
    assert [shown.row[name] for name in ("kind", "more", "clashes", "same")] == ["edit/edit", 0, 1, 1]
    assert {name for name, about in shown.row["columns"].items() if not about["nullable"]} == {"title"}


def test_a_page_shows_what_differs_clashes_first_and_counts_the_rest(tmp_path):
    shown = clashing(tmp_path)

    (row,) = pages_of(shown.context).conflicts(None, None, 0, 10)["rows"]

    assert [cell[0] for cell in row["cells"]] == ["title", "n", "stars", "code"]
    assert [row["more"], row["clashes"], row["same"]] == [0, 1, 1]


def test_columns_kept_together_bear_the_number_of_their_group_and_clash_as_one(tmp_path):
    database = todo_database(tmp_path)
    context = synced(database.url)
    context["todo"].keep_together("n", "stars")
    context["todo"].update("a", n=7)
    database.run("update todo set stars = 9 where id = 'a'")
    context.push(progress=False)

    (row,) = pages_of(context).conflicts(None, None, 0, 10)["rows"]

    assert row["cells"] == [
        ["n", "BIGINT", "1", "7", "1", "clash", 0],
        ["stars", "BIGINT", "3", "3", "9", "clash", 0],
    ]


def test_a_whole_conflict_that_was_settled_is_refused_in_words(tmp_path):
    shown = clashing(tmp_path)
    shown.context.conflicts.take_theirs()

    with pytest.raises(SyncError, match="not in conflict any more"):
        editor_of(shown.context).conflict(shown.row["id"])


# -- states beside the pure merge, on random walks of stagings, pulls, pushes and lost answers, with and without groups


@pytest.mark.parametrize("together", [(), (("x", "y"),), (("x", "y", "z"),)], ids=["alone", "two", "three"])
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(3, 6))])
def test_the_states_are_what_the_merge_does(seed, together):
    walk = walk_of(seed)
    walk.store.set_together("t", together)
    conflicts = {conflict.key: conflict for conflict in ConflictView(walk.store, walk.queue)}
    with walk.store.reading() as cursor:
        layout = walk.store.layout(cursor, "t")
        ids = [row["id"] for row in Pages(walk.store, walk.queue).conflicts(None, None, 0, 200)["rows"]]
        rows = conflict_rows(cursor, layout, ids, together, cells_max=None)

    assert len(rows) == len(conflicts)
    for row in rows.values():
        check_states(row, conflicts[row["key"]], together)


walk_of = functools.cache(walked)


def check_states(row: dict[str, Any], conflict: Conflict, together: Any) -> None:
    states = {cell[0]: cell[5] for cell in row["cells"]}
    base, first, mine, theirs = conflict.base, conflict.first, conflict.mine, conflict.theirs
    if mine is None or theirs is None:
        assert set(states.values()) <= {"unchanged", "mine" if theirs is None else "theirs"}
        return
    clashes = {name for name, state in states.items() if state == "clash"}
    # Columns of a group that all say alike need no decision, though their group does.
    alike = {n for n in COLUMNS if same(mine.get(n), theirs[n]) and (first is None or same(first.get(n), theirs[n]))}
    assert clashes == {*conflict.columns} - alike
    assert row["clashes"] == len(clashes)
    result = {n: (mine if state == "mine" else theirs)[n] for n, state in states.items() if state != "clash"}
    if conflict.merged is not None:
        assert all(same(conflict.merged[n], value) for n, value in result.items())
    for n, state in states.items():
        if state in ("same", "unchanged"):
            assert same(mine.get(n), theirs[n]) or n not in mine
        if state == "unchanged" and base is not None:
            assert same(base[n], theirs[n])


def test_the_states_of_many_random_rows_are_those_of_the_pure_merge():
    pick = random.Random(7)
    names = ("x", "y", "z", "w")
    rows = [{side: {n: pick.choice([None, 1, 2, 3]) for n in names} for side in ("v", "l", "r")} for _ in range(300)]
    together = [("x", "y")]
    context = sf.connect(store=":memory:")
    context.table("t", {"id": "BIGINT", **dict.fromkeys(names, "BIGINT")})
    standing_conflicts(context, rows)
    context["t"].keep_together("x", "y")

    for page in (pages_of(context).conflicts("t", None, offset, 100)["rows"] for offset in (0, 100, 200)):
        for row in page:
            sides = rows[int(row["key"])]
            found = merge(sides["v"], sides["l"], sides["r"], together)
            states = {cell[0]: cell[5] for cell in row["cells"]}
            alike = {n for n in names if same(sides["l"][n], sides["r"][n])}
            assert {n for n, state in states.items() if state == "clash"} == {*found.clashes} - alike
            for group in grouped(names, together):
                changed = any(not same(sides["l"][n], sides["v"][n]) for n in group)
                for n in group:
                    if n in states and n not in found.clashes and n not in alike:
                        assert states[n] == ("mine" if changed else "theirs")
            assert row["same"] + len(states) == 4


def standing_conflicts(context: sf.SyncContext, rows: list[dict[str, Any]], table: str = "t") -> None:
    """Rows that are in conflict, with the base v, mine l and theirs r."""
    with context._store.transaction() as cursor:
        layout = context._store.layout(cursor, table)
        for i, sides in enumerate(rows):
            cells = {f"{side}_{n}": v for side, values in sides.items() for n, v in values.items()}
            base = {n: v for n, v in cells.items() if n.startswith("v_")}
            cursor.run(
                f"insert into {layout.rows} by name select {i} as k_id, 'v1' as version, 0 as rev, 0 as pulled_rev"
                + "".join(f', ?::bigint as "{n}"' for n in base),
                list(base.values()),
            )
            edit = {n: v for n, v in cells.items() if not n.startswith("v_")}
            cursor.run(
                f"insert into {layout.edits} by name select {i} as sequence, 'e{i}' as id, {i} as k_id, "
                f"false as follower, '{layout.all_bits}'::bit as given, false as deleted, false as attempted, "
                "true as has_remote, false as remote_deleted, 'v2' as remote_version, 0 as rev"
                + "".join(f', ?::bigint as "{n}"' for n in edit),
                list(edit.values()),
            )


# -- kinds


def test_conflicts_are_filtered_by_kind(tmp_path):
    database = todo_database(tmp_path)
    context = synced(database.url)
    context["todo"].update("a", n=7)
    context["todo"].update("b", n=8)
    context["todo"].delete("c")
    context["todo"].insert({"id": "z", "title": "mine"})
    database.run(
        "update todo set n = 70 where id in ('a', 'c'); delete from todo where id = 'b';"
        "insert into todo (id, title) values ('z', 'theirs')"
    )
    context.push(progress=False)
    pages = pages_of(context)

    found = {kind: pages.conflicts(None, kind, 0, 10) for kind in KINDS}
    rev = found["edit/edit"]["rev"]
    done = pages.settle_shown("theirs", "todo", "edit/delete", rev)

    assert {kind: [row["key"] for row in page["rows"]] for kind, page in found.items()} == {
        "edit/edit": ["a"], "edit/delete": ["b"], "delete/edit": ["c"], "insert/insert": ["z"],
    }  # fmt: skip
    assert [row["kind"] for page in found.values() for row in page["rows"]] == list(KINDS)
    assert done.words == "1 conflict settled: theirs taken"
    assert sorted(conflict.key for conflict in context.conflicts) == ["a", "c", "z"]


# -- typed values

# type -> what is typed and how it is kept
TAKEN = {
    "BOOLEAN": [("true", "true"), ("False", "false")],
    "TINYINT": [("12", "12"), ("+7", "7"), ("-128", "-128"), (" 3 ", "3"), ("007", "7")],
    "UBIGINT": [("18446744073709551615", "18446744073709551615")],
    "BIGINT": [("-9223372036854775808", "-9223372036854775808")],
    "DOUBLE": [("1.50", "1.5"), ("1e3", "1000"), (".5", "0.5"), ("-inf", "-inf"), ("0.1", "0.1")],
    "FLOAT": [("0.1", "0.1")],
    "DECIMAL(10,2)": [("1.5", "1.50"), ("1.5000", "1.50"), ("-12345678.99", "-12345678.99"), ("1e3", "1000.00")],
    "DECIMAL(38,10)": [("0.0000000001", "0.0000000001")],
    "VARCHAR": [("", ""), (" a ", " a "), ("a\nb\0c", "a\nb\0c"), ("7", "7")],
    "DATE": [("2026-01-02", "2026-01-02"), (" 2026-01-02", "2026-01-02")],
    "TIME": [("10:30", "10:30:00"), ("10:30:00.5", "10:30:00.500000")],
    "TIMESTAMP": [("2026-01-02 10:30", "2026-01-02T10:30:00"), ("2026-01-02", "2026-01-02T00:00:00")],
    "TIMESTAMPTZ": [
        ("2026-01-02T10:30:00+02:00", "2026-01-02T08:30:00Z"), ("2026-01-02 10:30Z", "2026-01-02T10:30:00Z"),
    ],
    "UUID": [("6F9619FF-8B86-4011-B42D-00C04FC964FF", "6f9619ff-8b86-4011-b42d-00c04fc964ff")],
    "BLOB": [("00FF", "00ff"), ("00 ff", "00ff")],
    "JSON": [('{"a": 1}', '{"a": 1}')],
}  # fmt: skip


@pytest.mark.parametrize(("type_", "given", "as_kept"), [(t, *pair) for t, pairs in TAKEN.items() for pair in pairs])
def test_what_is_typed_is_kept_as_it_is_then_shown(type_, given, as_kept):
    column = Column("c", type_)

    assert kept(given, column) == as_kept
    assert typed(given, column).type == column.arrow
    assert kept(as_kept, column) == as_kept


REFUSED = {
    "BOOLEAN": [("yes", "'yes' is neither true nor false (column 'c', BOOLEAN) / such as true")],
    "TINYINT": [
        ("300", "'300' is beyond what TINYINT holds (column 'c', TINYINT) / such as 12"),
        ("1.0", "'1.0' is no whole number"),
    ],
    "BIGINT": [
        ("12a", "'12a' is no whole number (column 'c', BIGINT) / such as 12"),
        ("9223372036854775808", "'9223372036854775808' is beyond what BIGINT holds"),
        ("1_0", "'1_0' is no whole number"), ("0x10", "'0x10' is no whole number"), ("9" * 9_000, "'999"),
        ("", "an empty text is no whole number (column 'c', BIGINT) / choose NULL to leave it empty"),
    ],
    "UBIGINT": [("-1", "'-1' is beyond what UBIGINT holds")],
    "DOUBLE": [
        ("1,5", "'1,5' is no number (column 'c', DOUBLE) / such as 1.5"), ("NaN", "'NaN' is no number"),
        ("1e400", "'1e400' is not held exactly: the nearest is inf"),
        ("9007199254740993", "'9007199254740993' is not held exactly: the nearest is 9.007199254740992e+15"),
    ],
    "DECIMAL(10,2)": [
        ("1.505", "'1.505' is more than 8 digits before the point and 2 after it (column 'c', DECIMAL(10,2))"),
        ("123456789", "'123456789' is more than"), ("1e999", "'1e999' is more than"), ("NaN", "'NaN' is no decimal number"),
    ],
    "VARCHAR": [("\ud800", "'?' is no text")],
    "DATE": [("2026-1-2", "'2026-1-2' is no date (column 'c', DATE) / such as 2026-01-31"), ("2026-02-30", "'2026-02-30' is no"), ("0000-01-01", "'0000-01-01' is no date")],
    "TIME": [("25:00", "'25:00' is no time of day (column 'c', TIME) / such as 10:30:00"), ("10:30Z", "'10:30Z' is no")],
    "TIMESTAMP": [
        ("0000-01-01T00:00:00", "'0000-01-01T00:00:00' is no"),
        ("2026-01-02T10:00Z", "'2026-01-02T10:00Z' is no date and time without a zone"),
        ("2026-01-02T10:00:00.1234567", "'2026-01-02T10:00:00.1234567' is no"),
    ],
    "TIMESTAMPTZ": [("soon", "'soon' is no date and time with a zone (column 'c', TIMESTAMPTZ) / such as 2026-01-31T10:30:00Z"),
        ("2026-01-31T10:30:00", "'2026-01-31T10:30:00' is no date and time with a zone"),
        ("0001-01-01T00:00:00+05:00", "'0001-01-01T00:00:00+05:00' is no"),
        ("9999-12-31T23:59:59-05:00", "'9999-12-31T23:59:59-05:00' is no"),
    ],
    "UUID": [("6f96", "'6f96' is no uuid")],
    "BLOB": [("0", "'0' is not bytes in hex (column 'c', BLOB) / such as 00ff"), ("zz", "'zz' is not bytes in hex")],
    "JSON": [("{a: 1}", "'{a: 1}' is no JSON"), ("[NaN]", "'[NaN]' is no JSON")],
}  # fmt: skip


@pytest.mark.parametrize(("type_", "given", "words"), [(t, *pair) for t, pairs in REFUSED.items() for pair in pairs])
def test_what_does_not_fit_is_refused_with_what_was_expected_and_an_example(type_, given, words):
    with pytest.raises(SchemaError) as caught:
        typed(given, Column("c", type_))

    assert f"{caught.value.message} / {caught.value.hint}".startswith(words)


def test_null_of_a_column_that_takes_none_an_unknown_label_and_what_the_back_end_does_not_keep_are_refused():
    with pytest.raises(
        SchemaError, match=r"NULL is not allowed \(column 'c', DATE\)\nhint: a value, such as 2026-01-31"
    ):
        typed(None, Column("c", "DATE", nullable=False))
    with pytest.raises(SchemaError, match=r"'mid' does not fit: .* one of 'low', 'high'\nhint: such as low"):
        typed("mid", Column("c", "ENUM", labels=("low", "high")))
    with pytest.raises(SchemaError, match=r"'007' does not fit: .* SQLite does not read as a number"):
        typed("007", Column("c", "VARCHAR", held_as="numeric text"))
    with pytest.raises(SchemaError, match=r"does not fit: .* at most 2\*\*53"):
        typed(str(2**53 + 1), Column("c", "BIGINT", held_as="int53"))
    assert typed(None, Column("c", "DATE")).to_pylist() == [None]


# What is said of one value, as typed and as a Python value: Conflict.resolve takes the one where the other is taken.
ALIKE = [
    ("title", "x", "x"), ("title", "", ""), ("title", "a\0b", "a\0b"), ("title", "\ud800", "\ud800"), ("title", None, None),
    ("n", "5", 5), ("n", str(2**63), 2**63), ("n", str(-(2**63)), -(2**63)), ("n", None, None), ("n", "true", True),
    ("n", "1.5", 1.5), ("code", "7", "7"), ("code", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("column", "given", "value"), ALIKE)
def test_a_typed_value_is_refused_where_the_same_value_in_python_is(tmp_path, column, given, value):
    shown = clashing(tmp_path)

    def is_taken(act: Any) -> bool:
        try:
            act()
        except SyncError:
            return False
        return True

    by_typing = is_taken(lambda: editor_of(shown.context).value(shown.row["id"], column, given))
    conflict = shown.context.conflicts["todo", "a"]

    assert by_typing == is_taken(lambda: conflict.resolve({column: value}))


def test_a_value_is_asked_of_an_operation_that_waits_too(context):
    context["todo"].update("a", n=5)
    (row,) = pages_of(context).pending(None, None, 0, 10)["rows"]

    assert editor_of(context).value(row["id"], "n", " 7") == "7"
    with pytest.raises(SchemaError, match="'colour' is not among"):
        editor_of(context).value(row["id"], "colour", "red")
    with pytest.raises(KeyColumnError, match="part of the key"):
        editor_of(context).value(row["id"], "id", "b")
    with pytest.raises(SyncError, match="not in the queue any more"):
        editor_of(context).value("nobody", "n", "7")


# -- resolve by cells: the row that is pushed is what the result showed

# how it is decided -> the row at the back end after the push
DECIDED = {
    "theirs of the clash": ({"title": THEIRS}, ("home", "theirs", 7, 9, "both")),
    "mine of the clash": ({"title": MINE}, ("home", "mine", 7, 9, "both")),
    "base of the clash": ({"title": BASE}, ("home", "milk", 7, 9, "both")),
    "a typed text": ({"title": text("oat milk")}, ("home", "oat milk", 7, 9, "both")),
    "all of theirs": ({"title": THEIRS, "n": THEIRS}, ("home", "theirs", 1, 9, "both")),
    "all of the base": (dict.fromkeys(("title", "n", "stars", "code"), BASE), ("home", "milk", 1, 3, None)),
    "typed over what no side changed": ({"title": MINE, "list": text("work")}, ("work", "mine", 7, 9, "both")),
    "NULL over what both say": ({"title": MINE, "code": NULL}, ("home", "mine", 7, 9, None)),
    "a number": ({"title": MINE, "n": text(" +12 ")}, ("home", "mine", 12, 9, "both")),
}


@pytest.mark.parametrize(("cells", "row"), DECIDED.values(), ids=DECIDED)
def test_the_pushed_row_is_what_the_result_showed(tmp_path, cells, row):
    shown = clashing(tmp_path)

    done = shown.resolve(cells)
    pushed = shown.context.push(progress=False)

    assert [done.rows, done.late, len(shown.context.conflicts)] == [1, 0, 0]
    assert row_there(shown) == row
    is_theirs = row == ("home", "theirs", 1, 9, "both")
    assert ("nothing is left to send" in done.words) == is_theirs == (not pushed.counts["accepted"])
    assert done.words in (
        "1 conflict settled: as the result shows, to be sent with the next push",
        "1 conflict settled: theirs taken, nothing is left to send",
    )


def deleted_there(folder: Path) -> Shown:
    return conflicted(folder, lambda todo: todo.update("a", title="mine", n=7), "delete from todo where id = 'a'")


def deleted_here(folder: Path) -> Shown:
    return conflicted(folder, lambda todo: todo.delete("a"), "update todo set title = 'theirs' where id = 'a'")


def both_made(folder: Path) -> Shown:
    return conflicted(
        folder,
        lambda todo: todo.insert({"id": "a2", "title": "mine", "n": 7}),
        "insert into todo (id, title, n, code) values ('a2', 'theirs', 7, 'c')",
    )


WHOLE = {
    "deleted there, kept": (deleted_there, "keep", {}, "a", ("home", "mine", 7, 3, None)),
    "deleted there, kept with cells": (
        deleted_there, "keep", {"title": text("new"), "n": BASE, "stars": NULL}, "a", ("home", "new", 1, None, None),
    ),
    "deleted there, deleted": (deleted_there, "delete", {}, "a", None),
    "deleted here, kept": (deleted_here, "keep", {}, "a", ("home", "theirs", 1, 3, None)),
    "deleted here, kept with cells": (
        deleted_here, "keep", {"title": BASE, "n": text("5")}, "a", ("home", "milk", 5, 3, None),
    ),
    "deleted here, deleted": (deleted_here, "delete", {}, "a", None),
    "both made, mine": (both_made, None, {"title": MINE}, "a2", (None, "mine", 7, 3, "c")),
    "both made, theirs": (both_made, None, {"title": THEIRS}, "a2", (None, "theirs", 7, 3, "c")),
    "both made, cells": (
        both_made, None, {"title": text("new"), "code": NULL, "stars": text("1")}, "a2", (None, "new", 7, 1, None),
    ),
    "both made, mine of what was not given is empty": (
        both_made, None, {"title": MINE, "code": MINE}, "a2", (None, "mine", 7, 3, None),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("made", "row", "cells", "key", "there"), WHOLE.values(), ids=WHOLE)
def test_a_row_on_one_side_or_made_by_both_ends_as_the_result_showed(tmp_path, made, row, cells, key, there):
    shown = made(tmp_path)

    done = shown.resolve(cells, row)
    pushed = shown.context.push(progress=False)

    assert [done.rows, len(shown.context.conflicts), pushed.counts["rejected"]] == [1, 0, 0]
    assert row_there(shown, key) == there
    here = shown.context["todo"].get(key)
    assert (None if here is None else tuple(here[n] for n in ("list", "title", "n", "stars", "code"))) == there


def by_cells(context: sf.SyncContext, row: dict, chosen: dict) -> None:
    cells = {name: NULL if value is None else text(str(value)) for name, value in chosen.items()}
    editor_of(context).resolve(row["id"], row["version"], row["rev"], cells, "keep")


def by_frame(context: sf.SyncContext, row: dict, chosen: dict) -> None:
    cells = {"title": "mine", "n": 7, **chosen}
    head = {"table": "todo", "key": "a2", "theirs": None}
    context.conflicts.resolve(pd.DataFrame([{**head, "column": n, "result": v} for n, v in cells.items()]))


CHOOSING = {
    "cells": by_cells,
    "a row": lambda context, row, chosen: context.conflicts["todo", "a2"].resolve(chosen),
    "a callable": lambda context, row, chosen: context.conflicts.resolve(lambda conflict: chosen),
    "a frame": by_frame,
}


@pytest.mark.parametrize("choose", CHOOSING.values(), ids=CHOOSING)
def test_an_insert_that_was_deleted_there_comes_back_with_every_cell_that_was_chosen(tmp_path, choose):
    shown = both_made(tmp_path)
    shown.database.run("delete from todo where id = 'a2'")
    shown.context["todo"].pull(query_id="all", push_first=False, progress=False)
    row = editor_of(shown.context).conflict(shown.row["id"])

    choose(shown.context, row, {"list": "work", "stars": None})
    shown.context.push(progress=False)

    assert [row["kind"], row["has_base"]] == ["edit/delete", False]
    assert row_there(shown, "a2") == ("work", "mine", 7, None, None)


def test_a_text_of_a_million_letters_is_taken_where_it_stands(tmp_path):
    long = "ä" * 1_000_001
    shown = conflicted(
        tmp_path, lambda todo: todo.update("a", title=long, n=7), "update todo set title = 't', n = 8 where id = 'a'"
    )

    shown.resolve({"title": MINE, "n": THEIRS})
    shown.context.push(progress=False)

    assert row_there(shown) == ("home", long, 8, 3, None)


def test_one_undo_opens_the_conflict_again_as_it_was(tmp_path):
    shown = clashing(tmp_path)

    shown.resolve({"title": text("typed")})
    undone = pages_of(shown.context).undo()
    again = editor_of(shown.context).conflict(shown.row["id"])

    assert undone.words == "taken back: resolve of 1 row"
    assert [again[name] for name in ("version", "cells", "kind")] == [
        shown.row[name] for name in ("version", "cells", "kind")
    ]


def test_a_row_that_waits_behind_an_unanswered_operation_is_decided_whole(context, line, database):
    context["todo"].update("a", n=5)
    with late_requests(line), pytest.raises(sf.TransientError):
        context.push(progress=False)
    context["todo"].update("a", n=6, title="mine")
    database.run("update todo set n = 9, code = 'c' where id = 'a'")
    context["todo"].pull(query_id="all", push_first=False, progress=False)
    (row,) = pages_of(context).conflicts(None, None, 0, 10)["rows"]

    done = editor_of(context).resolve(
        row["id"], row["version"], pages_of(context).pending(None, None, 0, 1)["rev"], {"n": MINE}
    )
    context.push(progress=False)

    assert [(cell[0], cell[5]) for cell in row["cells"]] == [("n", "clash"), ("title", "mine"), ("code", "theirs")]
    assert done.rows == 1 and waiting(context) == []
    assert database.rows("select title, n, code from todo where id = 'a'") == [("mine", 6, "c")]


# -- refused, or left as it was


def test_a_clash_that_is_not_named_and_choices_that_do_not_fit_are_refused_and_nothing_is_done(tmp_path):
    shown = clashing(tmp_path)
    before = waiting(shown.context)

    for cells, row, words in (
        ({}, None, "'title': changed on both sides, and not decided"),
        ({"title": NULL}, None, "NULL is not allowed (column 'title', VARCHAR)"),
        ({"title": MINE, "n": text("x")}, None, "'x' is no whole number (column 'n', BIGINT)"),
        ({"title": MINE, "colour": MINE}, None, "column 'colour' is not among"),
        ({"title": MINE, "id": text("b")}, None, "column 'id' is part of the key"),
        ({"title": MINE}, "delete", "neither side has deleted this row"),
    ):
        with pytest.raises(SyncError) as caught:
            shown.resolve(cells, row)
        assert caught.value.message.startswith(words)

    assert waiting(shown.context) == before and len(shown.context.conflicts) == 1


@pytest.mark.parametrize(
    ("made", "cells", "row", "words"),
    [
        (deleted_there, {}, None, "say whether it is kept"),
        (deleted_there, {"title": THEIRS}, "keep", "cannot be taken from 'theirs': the row is not there on that side"),
        (deleted_here, {"title": MINE}, "keep", "cannot be taken from 'mine'"),
        (both_made, {"title": BASE}, None, "cannot be taken from 'base'"),
    ],
)  # fmt: skip
def test_a_side_that_has_no_row_is_refused_and_a_row_on_one_side_needs_a_word(tmp_path, made, cells, row, words):
    shown = made(tmp_path)

    with pytest.raises(SyncError, match=words):
        shown.resolve(cells, row)
    assert len(shown.context.conflicts) == 1


def test_a_newer_row_of_theirs_leaves_it_as_it_was(tmp_path):
    shown = clashing(tmp_path)
    shown.database.run("update todo set n = 100 where id = 'a'")
    shown.context["todo"].pull(query_id="all", push_first=False, progress=False)

    done = shown.resolve({"title": MINE})

    assert [done.rows, done.late] == [0, 1]
    assert done.words == "left as it was: a newer row or edit has come since it was shown; look at it again"
    assert len(shown.context.conflicts) == 1


def test_another_version_than_was_shown_leaves_it_as_it_was(tmp_path):
    shown = clashing(tmp_path)
    shown.row["version"] = "an older one"

    assert [shown.resolve({"title": MINE}).rows, len(shown.context.conflicts)] == [0, 1]


def test_a_newer_edit_of_mine_leaves_it_as_it_was(tmp_path):
    shown = clashing(tmp_path)
    shown.context["todo"].update("a", list="work")

    done = shown.resolve({"title": MINE})

    assert [done.rows, done.late] == [0, 1] and "look at it again" in done.words
    assert shown.context["todo"].get("a")["list"] == "work"


def test_a_conflict_that_was_settled_elsewhere_says_so(tmp_path):
    shown = clashing(tmp_path)
    shown.context.conflicts.keep_mine()
    before = waiting(shown.context)

    done = shown.resolve({"title": THEIRS})

    assert [done.rows, done.late, done.words] == [0, 1, "settled already elsewhere"]
    assert waiting(shown.context) == before


# -- settle what is apart


def test_merging_all_that_is_shown_keeps_both_changes_and_says_what_is_left(tmp_path):
    database = todo_database(tmp_path)
    context = synced(database.url)
    context["todo"].update("a", n=7)
    context["todo"].update("b", n=8)
    context["todo"].update("c", n=9)
    context["lists"].update("home", name="House")
    database.run(
        "update todo set title = 'tea' where id = 'a'; update todo set n = 80 where id = 'b';"
        "delete from todo where id = 'c'; update lists set name = 'Haus' where id = 'home'"
    )
    context.push(progress=False)
    pages = pages_of(context)

    done = pages.settle_shown("merge", None, None, pages.conflicts(None, None, 0, 1)["rev"])
    context.push(progress=False)

    assert done.words == (
        "1 conflict settled: both changes kept, to be sent with the next push; "
        "2 left: a column was changed on both sides; 1 left: one side has deleted the row"
    )
    assert [done.rows, done.late, done.tables] == [1, 0, ["todo"]]
    assert database.todo()["a"] == ["tea", 7]
    assert sorted(conflict.key for conflict in context.conflicts) == ["b", "c", "home"]


def test_merging_rows_settles_those_alone_and_one_undo_opens_them(tmp_path):
    database = todo_database(tmp_path)
    context = synced(database.url)
    for key in "abc":
        context["todo"].update(key, n=7)
    database.run("update todo set title = 'tea'")
    context.push(progress=False)
    pages = pages_of(context)
    page = pages.conflicts(None, None, 0, 10)

    done = pages.settle("merge", [(row["id"], row["version"]) for row in page["rows"][:2]], page["rev"])
    left = [conflict.key for conflict in context.conflicts]
    pages.undo()

    assert [done.rows, done.words] == [2, "2 conflicts settled: both changes kept, to be sent with the next push"]
    assert left == ["c"] and len(context.conflicts) == 3


# -- history


def test_the_history_tells_the_last_calls_newest_first(context):
    context["todo"].update("a", n=5)
    context["todo"].delete("b")
    pages = pages_of(context)
    pages.undo()

    undo, delete, update = pages.history(3)

    assert [undo["action"], undo["table"], undo["rows"], undo["note"]] == ["undo", "todo", 1, "delete"]
    assert [line["action"] for line in (delete, update)] == ["delete", "update"]
    assert [line["can_undo"] for line in (undo, delete, update)] == [False, False, True]
    assert dt.datetime.fromisoformat(undo["time"]) >= dt.datetime.fromisoformat(update["time"])


# -- mend


def rejected(context: sf.SyncContext) -> dict[str, Any]:
    context.push(progress=False)
    (row,) = pages_of(context).pending(None, "rejected", 0, 10)["rows"]
    return row


def revision(context: sf.SyncContext) -> int:
    return pages_of(context).pending(None, None, 0, 1)["rev"]


def test_a_rejected_update_is_mended_and_goes_out_with_the_next_push(context, database):
    context["todo"].update("a", n=-1, title="tea")
    row = rejected(context)

    done = editor_of(context).mend(row["id"], revision(context), {"n": text("4")})
    (mended,) = pages_of(context).pending(None, None, 0, 10)["rows"]
    context.push(progress=False)

    assert [done.rows, done.words] == [1, "1 operation mended: it will be sent by the next push"]
    assert [mended["id"], mended["error"]] == [row["id"], None]
    assert database.todo()["a"] == ["tea", 4]
    assert pages_of(context).history(2)[1]["action"] == "mend"


def test_a_rejected_insert_is_mended_in_a_column_that_it_did_not_give_too(context, database):
    context["todo"].insert({"id": "z", "title": "new", "list": "nowhere"})
    row = rejected(context)

    editor_of(context).mend(row["id"], revision(context), {"list": NULL, "n": text("4"), "title": text("neu")})
    context.push(progress=False)

    assert waiting(context) == []
    assert database.rows("select list, title, n, stars from todo where id = 'z'") == [(None, "neu", 4, 3)]


def test_a_mended_operation_that_says_nothing_new_is_sent_no_more(context):
    context["todo"].update("a", n=-1)
    row = rejected(context)

    done = editor_of(context).mend(row["id"], revision(context), {"n": text("1")})

    assert done.words == "1 operation mended: it says nothing new any more, and is sent no more"
    assert waiting(context) == []


def test_mending_without_a_change_sends_it_again(context):
    context["todo"].update("a", n=-1)
    row = rejected(context)

    done = editor_of(context).mend(row["id"], revision(context), {})

    assert done.rows == 1 and pages_of(context).pending(None, "rejected", 0, 10)["total"] == 0
    assert waiting(context) == [("update", "a")]


def test_what_does_not_fit_or_is_rejected_no_more_or_was_edited_since_is_not_mended(context):
    context["todo"].update("a", n=-1)
    row, rev = rejected(context), revision(context)
    editor = editor_of(context)

    with pytest.raises(SchemaError, match="'many' is no whole number"):
        editor.mend(row["id"], rev, {"n": text("many")})
    still = pages_of(context).pending(None, "rejected", 0, 10)["total"]
    context["todo"].update("a", list="work")
    edited = editor.mend(row["id"], rev, {"n": text("4")})
    gone = editor.mend("nobody", rev, {"n": text("4")})

    assert still == 1
    assert [edited.rows, edited.late, edited.words] == [0, 1, "not rejected any more"]
    assert [gone.rows, gone.late] == [0, 1]


def test_the_refused_column_is_shown_first_also_where_an_insert_did_not_give_it(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as connection, connection:
        names = ", ".join(f"c{i} integer" for i in range(10))
        connection.execute(f"create table t (id text primary key, {names}, must text not null)")
    context = sf.connect(f"sqlite:///{tmp_path / 't.db'}", store=":memory:")
    context["t"].pull(query_id="all", progress=False)
    context["t"].insert({"id": "1"} | {f"c{i}": i for i in range(10)})
    row = rejected(context)

    assert [row["error"]["column"], row["cells"][0], len(row["cells"]), row["more"]] == [
        "must", ["must", "VARCHAR", None, None], 8, 3,
    ]  # fmt: skip


# -- every type, from the typed text to the back end


def test_a_typed_value_of_every_type_reaches_the_store_as_it_is():
    context = sf.connect(store=":memory:")
    types = {
        "yes": "BOOLEAN", "small": "TINYINT", "big": "UBIGINT", "x": "DOUBLE", "money": "DECIMAL(18,2)", "name": "VARCHAR",
        "day": "DATE", "clock": "TIME", "at": "TIMESTAMP", "moment": "TIMESTAMPTZ", "code": "UUID", "raw": "BLOB",
    }  # fmt: skip
    cells = {
        "yes": "true", "small": "-7", "big": "18446744073709551615", "x": "0.1", "money": "1.50", "name": "a'\"\n",
        "day": "2026-01-02", "clock": "10:30:00.000001", "at": "2026-01-02T03:04:05", "moment": "2026-01-02T03:04:05+01:00",
        "code": "6F9619FF-8B86-4011-B42D-00C04FC964FF", "raw": "00ff",
    }  # fmt: skip
    context.table("t", {"id": "BIGINT", **types}).insert({"id": 0, **dict.fromkeys(types)})
    with context._store.transaction() as cursor:
        layout = context._store.layout(cursor, "t")
        cursor.run(
            f"insert into {layout.rows} by name select k_id, 'v1' as version, 0 as rev, 0 as pulled_rev from {layout.edits}"
        )
        cursor.run(
            f"update {layout.edits} set has_remote = true, remote_deleted = false, remote_version = 'v2', "
            "l_name = 'mine', r_name = 'theirs'"
        )
    row = editor_of(context).conflict(pages_of(context).conflicts(None, None, 0, 1)["rows"][0]["id"])

    editor_of(context).resolve(
        row["id"], row["version"], row["rev"], {name: text(value) for name, value in cells.items()}
    )
    found = context["t"].get(0)

    assert found == {
        "id": 0, "yes": True, "small": -7, "big": 2**64 - 1, "x": 0.1, "money": Decimal("1.50"), "name": "a'\"\n",
        "day": dt.date(2026, 1, 2), "clock": dt.time(10, 30, 0, 1), "at": dt.datetime(2026, 1, 2, 3, 4, 5),
        "moment": dt.datetime(2026, 1, 2, 2, 4, 5, tzinfo=dt.UTC), "code": "6f9619ff-8b86-4011-b42d-00c04fc964ff",
        "raw": b"\x00\xff",
    }  # fmt: skip
