"""The laws of the merge, and that every way to settle conflicts ends with local = remote: by chance, over all kinds of values.

The pure functions are asked case by case.  The queue's SQL is asked for all cases at once, each of them a row of one
store, and held to the pure functions.  `pytest -m full` takes 100,000 of each.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import sqlite3
from collections.abc import Callable
from decimal import Decimal as D
from typing import Any

import pyarrow as pa
import pytest

import syncframe as sf
from syncframe.backends import open as open_backend
from syncframe.conflict import keep_mine, merge
from syncframe.operation import same, same_rows
from syncframe.widget.desk import Desk

FEW, ALL = 50, 100_000
FEW_SINGLY = {FEW: 20, ALL: 100}  # of so many cases, what is a transaction each
many_cases = pytest.mark.parametrize("n", [FEW, pytest.param(ALL, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])

VIENNA = dt.timezone(dt.timedelta(hours=2))
MOMENT = dt.datetime(2025, 7, 1, 8, 30, 0, 1, dt.UTC)
VALUES: dict[str, tuple[str, pa.DataType, list[Any]]] = {
    "word": ("text", pa.string(), [None, "", " ", "NULL", "a", "A", "é", "e\u0301", "a\nb"]),
    "n": ("bigint not null", pa.int64(), [0, 1, 2**53 + 1, -(2**63)]),
    "share": ("double", pa.float64(), [None, float("nan"), 0.0, -0.0, 0.1, float("-inf")]),
    "price": ("dectext(12,4)", pa.decimal128(12, 4), [None, D(0), D("1.5"), D("1.5000"), D("-99999999.9999")]),
    "moment": ("timestamptz", pa.timestamp("us", "UTC"),
               [None, MOMENT, MOMENT.astimezone(VIENNA), MOMENT.replace(microsecond=0), dt.datetime.max.replace(tzinfo=dt.UTC)]),
    "raw": ("blob", pa.binary(), [None, b"", b"\x00", b"\xff\x00", b"a"]),
    "lat": ("double", pa.float64(), [None, 48.2, 5.0]),
    "lon": ("double", pa.float64(), [None, 16.4, 7.0]),
}  # fmt: skip
COLUMNS = list(VALUES)
TOGETHER = ("lat", "lon")
GROUPS = [TOGETHER]
# Of an insert here, some columns only may be given.
GIVEN = [COLUMNS, ["n", "word", "lat"]]

Row = dict[str, Any] | None
Case = tuple[Row, Row, Row]


# Cases


def some_row(draw: random.Random) -> dict[str, Any]:
    return {name: draw.choice(values) for name, (_, _, values) in VALUES.items()}


def edited(draw: random.Random, row: Row, kinds: list[str]) -> Row:
    """What a person may make of a row, or of none."""
    kind = draw.choice(kinds)
    if kind == "nothing":
        return row
    if kind == "delete":
        return None
    if row is None:
        return some_row(draw)
    touched = draw.sample(COLUMNS, draw.randint(1, 3))
    return {name: draw.choice(VALUES[name][2]) if name in touched else value for name, value in row.items()}


def some_case(draw: random.Random) -> Case:
    """Base, mine and theirs; one in eight rows is made by both, one in eight by one of them."""
    base = None if draw.random() < 0.25 else some_row(draw)
    kinds = ["edit"] * 6 + ["delete", "nothing"]
    mine = edited(draw, base, kinds)
    theirs = edited(draw, base, kinds)
    if draw.random() < 0.1 and mine is not None:
        theirs = dict(mine)
    return base, mine, theirs


def is_there(value: Any) -> bool:
    return value is not None and value == value


def plain(row: Row) -> Row:
    """A row as it is kept: NaN is NULL, -0.0 is 0.0, a time is in UTC, and a decimal has its column's scale."""
    if row is None:
        return None
    return {
        name: value + 0.0 if isinstance(value, float) and value == 0 else value if is_there(value) else None
        for name, value in row.items()
    }


def exact(row: Row) -> Row:
    """Values with their types, so that 1 is not True and a text not bytes; -0.0 and 0.0 are told apart."""
    return row and {
        name: (type(value).__name__, str(value) if isinstance(value, float) else value) for name, value in row.items()
    }


# The pure merge


def test_the_merge_of_one_row_keeps_its_laws(n_pure):
    draw = random.Random(n_pure)
    for _ in range(n_pure):
        base, a, b = some_case(draw)
        together = draw.choice([(), GROUPS, [("word", "n", "raw")]])

        for found in (merge(base, a, base, together), merge(base, base, a, together), merge(base, a, a, together)):
            assert found.is_clean and same_rows(found.row, a), (base, a, together)
        one, other = merge(base, a, b, together), merge(base, b, a, together)
        assert (one.is_clean, one.clashes, one.is_possible) == (other.is_clean, other.clashes, other.is_possible)
        assert not one.is_clean or same_rows(one.row, other.row)
        if base is None or a is None or b is None:
            continue
        for name in COLUMNS if not together else ():
            expected = a[name] if same(b[name], base[name]) else b[name]
            assert name in one.clashes or same(one.row[name], expected)
            assert (name in one.clashes) == (
                not (same(a[name], base[name]) or same(b[name], base[name]) or same(a[name], b[name]))
            )
        for group in together:
            assert len({*group} & {*one.clashes}) in (0, len(group))
            assert any(all(same(one.row[name], side[name]) for name in group) for side in (a, b))


def test_columns_apart_always_merge(n_pure):
    draw = random.Random(n_pure)
    for _ in range(n_pure):
        base, other, another = some_row(draw), some_row(draw), some_row(draw)
        own = {name for name in COLUMNS if draw.random() < 0.5}
        own = own | {*TOGETHER} if draw.random() < 0.5 else own - {*TOGETHER}
        mine = {name: (other if name in own else base)[name] for name in COLUMNS}
        theirs = {name: (base if name in own else another)[name] for name in COLUMNS}

        found = merge(base, mine, theirs, GROUPS)

        assert found.is_clean
        assert all(same(found.row[name], (mine if name in own else theirs)[name]) for name in COLUMNS)


@pytest.fixture(params=[2_000, pytest.param(ALL, marks=pytest.mark.full)])
def n_pure(request) -> int:
    return request.param


# The same as rows of one store


class Meeting:
    """Two people and a database: what one of them pushed and the other edited, a row for each case."""

    def __init__(self, folder, n: int, seed: str) -> None:
        self.draw = random.Random(f"{seed} {n}")
        self.cases: dict[str, Case] = {}
        for i in range(0, n, 2):
            # Each case with its mirror image: what clashes does not depend on the side.
            base, mine, theirs = some_case(self.draw)
            self.cases |= {f"k{i:06}": (base, mine, theirs), f"k{i + 1:06}": (base, theirs, mine)}
        self.cases = {key: tuple(map(plain, case)) for key, case in self.cases.items()}
        self.given = dict.fromkeys(self.cases, COLUMNS)
        for key, (base, mine, theirs) in self.cases.items():
            if base is None and mine is not None and self.draw.random() < 0.5:
                self.given[key] = GIVEN[1]
                self.cases[key] = (None, {name: mine[name] for name in GIVEN[1]}, theirs)
        self.url = made(folder / "shared.db")
        self.mine, self.theirs = (sf.connect(self.url, store=":memory:") for _ in range(2))
        self.desk = Desk(self.mine)
        self._fill(folder / "shared.db")

    def _fill(self, path) -> None:
        base, mine, theirs = ({key: case[side] for key, case in self.cases.items()} for side in range(3))
        self.theirs["things"].pull(query_id="all", progress=False)
        stage(self.theirs["things"], base)
        self.theirs.push(progress=False)
        self.mine["things"].pull(query_id="all", progress=False)
        stage(self.theirs["things"], theirs)
        assert self.theirs.push(progress=False).ok
        self.mine["things"].keep_together(*TOGETHER)
        stage(self.mine["things"], {key: row for key, row in mine.items() if self.given[key] is COLUMNS or base[key]})
        partly = [{"id": key, **mine[key]} for key, given in self.given.items() if given is not COLUMNS]
        if partly:
            self.mine["things"].insert(partly)

    def outcome(self, key: str, policy: str) -> tuple[bool, Row]:
        """Whether a row is in conflict after a push or pull with this policy, and the row as it ends or as it is there."""
        base, mine, theirs = self.cases[key]
        if same_rows(mine, base) or is_said(base, mine, theirs):
            return False, theirs
        if same_rows(theirs, base):
            return False, filled(mine)
        if policy == "merge":
            merged = merge(base, mine, theirs, GROUPS)
            return (False, merged.row) if merged.is_clean else (True, theirs)
        if policy == "fail":
            return True, theirs
        return False, filled(keep_mine(base, mine, theirs, GROUPS)) if policy == "mine" else theirs

    def conflicts(self, policy: str = "fail") -> list[str]:
        return [key for key in self.cases if self.outcome(key, policy)[0]]

    def expected(self, policy: str = "fail") -> dict[str, Row]:
        return {key: self.outcome(key, policy)[1] for key in self.cases}

    def ends(self, expected: dict[str, Row]) -> None:
        """After the next push and pull nothing is open, and both sides have what is expected."""
        assert self.mine.push(progress=False).ok
        self.mine["things"].pull(query_id="all", push_first=False, progress=False)
        assert (len(self.mine.conflicts), len(self.mine.pending)) == (0, 0)
        with sf.connect(self.url, store=":memory:") as other:
            other["things"].pull(progress=False)
            there = held(other["things"])
        here = held(self.mine["things"])
        for key in self.cases:
            row = exact(plain(expected[key]))
            assert exact(here.get(key)) == exact(there.get(key)) == row, (key, self.cases[key])
        assert len(here) == len(there) == sum(row is not None for row in expected.values())


def made(path) -> str:
    columns = ", ".join(f"{name} {kind}" for name, (kind, _, _) in VALUES.items())
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"create table things (id text primary key, {columns})")
    backend = open_backend(f"sqlite:///{path}")
    backend.track(["things"])
    backend.close()
    return f"sqlite:///{path}"


def stage(table: sf.SyncTable, rows: dict[str, Row]) -> None:
    """Make these rows of a table, as a person would with a frame: None is none."""
    there = {key: row for key, row in rows.items() if row is not None}
    columns = {name: pa.array([row[name] for row in there.values()], kind) for name, (_, kind, _) in VALUES.items()}
    table.stage(pa.table({"id": pa.array([*there], pa.string()), **columns}), base=table.frame(), max_deletes=len(rows))


def held(table: sf.SyncTable) -> dict[str, Row]:
    return {row.pop("id"): row for row in table.arrow().to_pylist()}


def filled(row: Row) -> Row:
    """An inserted row with what the database makes of columns that were not given."""
    return row and {name: row.get(name) for name in COLUMNS}


def is_said(base: Row, mine: Row, theirs: Row) -> bool:
    """Whether all that was edited here is there already."""
    if mine is None or theirs is None:
        return mine is theirs
    return all(same(mine[name], theirs[name]) or (base is not None and same(mine[name], base[name])) for name in mine)


@many_cases
def test_what_is_in_conflict_is_for_many_rows_what_it_is_for_one_and_the_same_from_both_sides(tmp_path, n):
    meeting = Meeting(tmp_path, n, "clashes")

    counts = meeting.mine.push(progress=False).counts

    assert counts["rejected"] == 0
    found = {conflict.key: conflict for conflict in meeting.mine.conflicts}
    assert sorted(found) == meeting.conflicts()
    clashes = {}
    for key, conflict in found.items():
        base, mine, theirs = meeting.cases[key]
        merged = merge(base, mine, theirs, GROUPS)
        assert all(
            same_rows(plain(side), cells(read))
            for side, read in zip((base, mine, theirs), (conflict.base, conflict.mine, conflict.theirs), strict=True)
        )
        if base is not None:
            assert conflict.columns == merged.clashes, (key, meeting.cases[key])
            clashes[key] = conflict.columns
        assert (conflict.merged is None) == (not merged.is_clean)
        assert conflict.merged is None or same_rows(cells(conflict.merged), plain(merged.row))
    for key in clashes:
        mirror = f"k{int(key[1:]) ^ 1:06}"
        assert mirror not in clashes or clashes[mirror] == clashes[key]
    assert len(found) > n / 3


def cells(row: Any) -> Row:
    return row and {name: value for name, value in row.items() if name != "id"}


# Every way to settle


def by_side(side: str) -> Callable[[Meeting], dict[str, Row]]:
    def settle(meeting: Meeting) -> dict[str, Row]:
        meeting.mine.push(progress=False)
        settled = meeting.mine.conflicts.keep_mine() if side == "mine" else meeting.mine.conflicts.take_theirs()
        assert settled == len(meeting.conflicts())
        return meeting.expected(side)

    return settle


def by_merge_and_theirs(meeting: Meeting) -> dict[str, Row]:
    meeting.mine.push(progress=False)
    meeting.mine.conflicts.merge()
    assert sorted(conflict.key for conflict in meeting.mine.conflicts) == meeting.conflicts("merge")
    meeting.mine.conflicts.take_theirs()
    return meeting.expected("merge")


def by_column(meeting: Meeting) -> dict[str, Row]:
    """Column by column, in any order and for any side; what has no columns to settle is settled whole."""
    meeting.mine.push(progress=False)
    states = {key: meeting.cases[key] for key in meeting.conflicts()}
    expected = meeting.expected()
    groups = [(name,) for name in COLUMNS if name not in TOGETHER] + GROUPS
    for names in meeting.draw.sample(groups, len(groups)):
        side = meeting.draw.choice(["mine", "theirs"])
        found = {key: after for key, state in states.items() if (after := settled_column(state, names, side))}
        settled = {key: row for key, (_, row) in found.items() if row is not None}
        way = meeting.mine.conflicts.keep_mine if side == "mine" else meeting.mine.conflicts.take_theirs

        assert way(column=meeting.draw.choice(names)) == len(settled)

        expected |= settled
        states = {key: found[key][0] if key in found else state for key, state in states.items() if key not in settled}
        assert sorted(conflict.key for conflict in meeting.mine.conflicts) == sorted(states)
    meeting.mine.conflicts.keep_mine()
    return expected | {key: filled(keep_mine(*state, GROUPS)) for key, state in states.items()}


def settled_column(state: Case, names: tuple[str, ...], side: str) -> tuple[Case, Row] | None:
    """A conflict after these columns were decided, and its row where nothing clashes any more; None: nothing to decide."""
    base, mine, theirs = state
    if mine is None or theirs is None or all(same(filled(mine)[name], theirs[name]) for name in names):
        return None
    kept = keep_mine(base, mine, theirs, GROUPS) if side == "mine" else theirs
    chosen = {name: kept[name] for name in names}
    if base is None:  # both made it: there is no base that could move, so it is settled at once or not at all
        is_open = any(not same(value, theirs[name]) for name, value in mine.items() if name not in names)
        return state, None if is_open else {**theirs, **mine, **chosen}
    after = base | {name: theirs[name] for name in names}, mine | chosen, theirs
    merged = merge(*after, GROUPS)
    return after, merged.row if merged.is_clean else None


def by_frame(meeting: Meeting) -> dict[str, Row]:
    """Some rows whole by one side, of the others each cell that differs by a side of its own."""
    meeting.mine.push(progress=False)
    frame = meeting.mine.conflicts.frame()
    wholly = {key: meeting.draw.choice(["mine", "theirs", None]) for key in meeting.conflicts()}
    results: dict[str, dict[str, Any]] = {key: {} for key in wholly}
    for key, column, *sides in frame[["key", "column", "mine", "theirs"]].itertuples(index=False):
        chosen = sides[(wholly[key] or meeting.draw.choice(["mine", "theirs"])) == "theirs"]
        if wholly[key] is None and column == "n" and chosen is None:
            chosen = next(value for value in sides if value is not None)  # of a row that is kept it cannot be empty
        results[key][column] = chosen
    frame["result"] = [results[key][column] for key, column in zip(frame["key"], frame["column"], strict=True)]

    assert meeting.mine.conflicts.resolve(frame) == len(wholly)

    expected = meeting.expected()
    for key, cells_ in results.items():
        _, mine, theirs = meeting.cases[key]
        is_deleted = (mine is None or theirs is None) and not any(value is not None for value in cells_.values())
        expected[key] = None if is_deleted else {**filled(theirs or mine), **cells_}
    return expected


def decisions(meeting: Meeting) -> dict[str, object]:
    def one(key: str) -> object:
        _, mine, theirs = meeting.cases[key]
        if meeting.draw.random() < 0.5 or (mine is None and theirs is None):
            return meeting.draw.choice(["mine", "theirs"])
        row = some_row(meeting.draw)
        return {name: row[name] for name in meeting.draw.sample(COLUMNS, 2)}

    return {key: one(key) for key in meeting.conflicts()}


def decided(meeting: Meeting, how: dict[str, object]) -> dict[str, Row]:
    expected = meeting.expected()
    for key, decision in how.items():
        base, mine, theirs = meeting.cases[key]
        if isinstance(decision, dict):
            expected[key] = filled({**(theirs or mine), **decision})
        else:
            expected[key] = filled(keep_mine(base, mine, theirs, GROUPS)) if decision == "mine" else theirs
    return expected


def by_callable(meeting: Meeting) -> dict[str, Row]:
    meeting.mine.push(progress=False)
    how = decisions(meeting)
    assert meeting.mine.conflicts.resolve(lambda conflict: how[conflict.key]) == len(how)
    return decided(meeting, how)


def one_by_one(meeting: Meeting) -> dict[str, Row]:
    """Conflict.keep_mine(), .take_theirs() and .resolve(): a transaction each, so only the first ones of many."""
    meeting.mine.push(progress=False)
    how = dict(list(decisions(meeting).items())[: FEW_SINGLY[len(meeting.cases)]])
    for key, decision in how.items():
        conflict = meeting.mine.conflicts["things", key]
        if isinstance(decision, dict):
            conflict.resolve(decision)
        else:
            (conflict.keep_mine if decision == "mine" else conflict.take_theirs)()
    meeting.mine.conflicts.take_theirs()
    return decided(meeting, how)


def by_policy(verb: str, policy: str) -> Callable[[Meeting], dict[str, Row]]:
    def settle(meeting: Meeting) -> dict[str, Row]:
        how = decisions(meeting) if policy == "callable" else {}
        on_conflict = (lambda conflict: how[conflict.key]) if how else policy
        if verb == "push":
            meeting.mine.push(on_conflict=on_conflict, progress=False)
        else:
            meeting.mine["things"].pull(query_id="all", push_first=False, on_conflict=on_conflict, progress=False)
        left = sorted(conflict.key for conflict in meeting.mine.conflicts)
        assert left == (meeting.conflicts("merge") if policy == "merge" else [])
        meeting.mine.conflicts.take_theirs()
        return decided(meeting, how) if how else meeting.expected(policy)

    return settle


def by_the_widget(side: str) -> Callable[[Meeting], dict[str, Row]]:
    """The whole list by one button."""

    def settle(meeting: Meeting) -> dict[str, Row]:
        meeting.mine.push(progress=False)
        page = asked(meeting.desk, "conflicts", table=None, kind=None, offset=0, limit=1)
        asked(meeting.desk, "settle", side=side, shown={"table": None, "kind": None}, rev=page["rev"])
        return meeting.expected(side)

    return settle


def by_the_widget_s_cells(meeting: Meeting) -> dict[str, Row]:
    """The first ones cell by cell: a side for each clash, some typed; of a row that one side deleted, whether it stays."""
    meeting.mine.push(progress=False)
    expected = meeting.expected()
    page = asked(meeting.desk, "conflicts", table=None, kind=None, offset=0, limit=FEW_SINGLY[len(meeting.cases)])
    for row in page["rows"]:
        shown = asked(meeting.desk, "conflict", id=row["id"])
        case = meeting.cases[row["key"]]
        is_one_sided = case[1] is None or case[2] is None
        cells_, result = (
            ({}, filled(case[2] or case[1])) if is_one_sided else chosen_cells(meeting, case, shown["cells"])
        )
        if meeting.draw.random() < 0.5:
            cells_ |= {"word": {"text": "typed"}, "n": {"text": "9007199254740993"}, "share": {"null": True}}
            result = result | {"word": "typed", "n": 2**53 + 1, "share": None}
        stays = meeting.draw.choice(["keep", "delete"]) if is_one_sided else None
        is_gone = stays == "delete"
        head = {"id": row["id"], "version": shown["version"], "rev": shown["rev"]}

        answer = asked(meeting.desk, "resolve", **head, cells={} if is_gone else cells_, row=stays)

        assert (answer["settled"], answer["late"]) == (1, 0), answer
        expected[row["key"]] = None if is_gone else result
    meeting.mine.conflicts.take_theirs()
    return expected


def chosen_cells(meeting: Meeting, case: Case, cells: list[list[Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A side for each column that clashes, the same for columns that belong together, and the row that comes of it."""
    base, mine, theirs = case
    states = {column: state for column, _, *_, state, _ in cells}
    for column, state in states.items():
        assert (state == "clash") == is_clash(*case, column), (column, state, case)
    named, result = {}, {}
    for group in [[name] for name in COLUMNS if name not in TOGETHER] + [[*TOGETHER]]:
        side = meeting.draw.choice(["base", "mine", "theirs"] if base else ["mine", "theirs"])
        has_clash = base is not None and any(states[column] == "clash" for column in group)
        for column in group:
            if has_clash or states[column] == "clash":
                named[column] = {"side": side}
                result[column] = {"base": base, "mine": mine, "theirs": theirs}[side][column]
            else:
                result[column] = (mine if states[column] == "mine" else theirs)[column]
    return named, result


def is_clash(base: Row, mine: Row, theirs: Row, column: str) -> bool:
    """Whether a column must be decided: of columns that belong together not those that both sides say alike."""
    if column not in mine or same(mine[column], theirs[column]):
        return False
    return base is None or column in merge(base, mine, theirs, GROUPS).clashes


def asked(desk: Desk, what: str, **args: Any) -> dict[str, Any]:
    answer = desk.answer({"t": "ask", "id": "1", "what": what, "args": args})
    assert answer["ok"], answer
    return answer["data"]


WAYS: dict[str, Callable[[Meeting], dict[str, Row]]] = {
    "keep_mine()": by_side("mine"),
    "take_theirs()": by_side("theirs"),
    "merge(), then take_theirs()": by_merge_and_theirs,
    "by column": by_column,
    "resolve(frame)": by_frame,
    "resolve(callable)": by_callable,
    "one by one": one_by_one,
    **{
        f"{verb}(on_conflict={policy})": by_policy(verb, policy)
        for verb in ("push", "pull")
        for policy in ("mine", "theirs", "merge", "callable")
    },
    "the widget, keep mine": by_the_widget("mine"),
    "the widget, take theirs": by_the_widget("theirs"),
    "the widget, cell by cell": by_the_widget_s_cells,
}


# What a push settles by a policy is settled as what a pull brings, and the buttons for both sides are one call.
TWINS = {"pull(on_conflict=mine)", "pull(on_conflict=callable)", "the widget, take theirs"} | {
    f"{verb}(on_conflict={policy})" for verb, policy in (("push", "theirs"), ("push", "merge"), ("pull", "theirs"))
}


@many_cases
@pytest.mark.parametrize("way", [pytest.param(way, marks=[pytest.mark.full] * (way in TWINS)) for way in WAYS])
def test_settled_by_any_way_both_sides_are_equal_after_the_next_push_and_pull(tmp_path, way, n):
    meeting = Meeting(tmp_path, n, way)

    expected = WAYS[way](meeting)

    meeting.ends(expected)
