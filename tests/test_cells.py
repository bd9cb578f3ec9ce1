"""Each row of the table in `cells.py`, played by two real contexts on one tracked SQLite file.

A play takes many cells at once, each a row of its own, so that what is decided for one row is decided for sets;
`pytest -m full` plays each cell on its own as well.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cells import (
    BASE,
    CELLS,
    EXTRA,
    FOLLOWER,
    MINE,
    RESOLUTION,
    THEIRS_OF_A_KNOWN_ROW,
    THEIRS_OF_A_NEW_KEY,
    Cell,
    Extra,
    Row,
)
from cells import Conflict as Expected

import syncframe as sf
from syncframe.backends import Backend, Checkpoint, Operations, Outcomes, Page
from syncframe.backends import open as open_backend
from syncframe.query import Query
from syncframe.schema import Schema

TABLE, QUERY_ID = "todo", "all"
ENDINGS = ("keep_mine", "take_theirs", "resolve")
KINDS = ("insert", "update", "delete")
CAN_ARISE = [cell for cell in CELLS if cell.state is not None]
CANNOT_ARISE = [cell for cell in CELLS if cell.state is None]
PLAYED = [*CAN_ARISE, *EXTRA]
IN_CONFLICT = [cell for cell in PLAYED if cell.state == "conflict"]


class Loses:
    """A back end whose requests to push are lost on their way there, or whose answers on their way back."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.promises, self.loses = backend, backend.promises, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def schema(self, table: str) -> Schema:
        return self.backend.schema(table)

    def pull(self, table: str, query: Query, since: Checkpoint | None, others: Sequence[Query] = ()) -> Iterator[Page]:
        return self.backend.pull(table, query, since, others)

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        for outcomes in self.backend.push(batch) if self.loses != "requests" else ():
            if not self.loses:
                yield outcomes
        if self.loses:
            raise sf.TransientError("no answer came in time")


@dataclass(frozen=True)
class Steps:
    """A row of either table as the steps of its play."""

    cell: Cell | Extra
    base: Row
    mine: tuple[Row, ...]
    theirs: tuple[Row, ...]
    newer: tuple[Row, ...] = ()
    known_tombstone: bool = False
    still_attempted: bool = False
    applied: bool = False


def steps_of(cell: Cell | Extra) -> Steps:
    if isinstance(cell, Extra):
        known, still = cell.known_tombstone, cell.still_attempted
        return Steps(cell, cell.base, cell.mine, cell.theirs, cell.newer, known, still, cell.applied)
    base, theirs = (None, THEIRS_OF_A_NEW_KEY) if cell.mine == "insert" else (BASE, THEIRS_OF_A_KNOWN_ROW)
    mine = (MINE[cell.mine], FOLLOWER[cell.mine]) if cell.follower else (MINE[cell.mine],)
    return Steps(cell, base, mine, theirs[cell.theirs])


@dataclass
class Seen:
    """What is to be seen of one row: right after the meeting, and at its end."""

    pending: tuple[str, ...] = ()
    attempted: tuple[bool, ...] = ()
    shown: Row = None
    server: Row = None
    conflict: dict[str, Row] | None = None
    ended: dict[str, Row] = field(default_factory=dict)
    left: int = 0


class Play:
    """Cells that meet in the same way, each under a key of its own for each way to end it."""

    def __init__(self, path: Path, cells: Sequence[Cell | Extra]) -> None:
        url = f"sqlite:///{path}"
        self.path = path
        self.backend = Loses(open_backend(url))
        self.mine = sf.connect(self.backend, store=":memory:")
        self.theirs = sf.connect(url, store=":memory:")
        number = next(numbers)
        self.ends = {f"{number}-{how}-{cell.id}": (how, cell) for cell in cells for how in ways_to_end(cell)}
        self.steps = {key: steps_of(cell) for key, (_, cell) in self.ends.items()}
        self.pull(self.mine)
        self.pull(self.theirs)

    # -- the steps, as the table tells them

    def until_they_meet(self) -> None:
        self.write_theirs({key: ("gone", "gone") for key, s in self.steps.items() if s.known_tombstone})
        self.write_theirs({key: None for key, s in self.steps.items() if s.known_tombstone})
        self.write_theirs({key: s.base for key, s in self.steps.items() if s.base})
        self.pull(self.mine)
        self.stage_mine()
        for number in range(max(len(s.theirs) for s in self.steps.values())):
            self.write_theirs({key: s.theirs[number] for key, s in self.steps.items() if number < len(s.theirs)})

    def stage_mine(self) -> None:
        attempted = {key: s for key, s in self.steps.items() if s.cell.attempted}
        # Whose requests are lost come last, for each push sends what was attempted before as well.
        for loses, applied in (("answers", True), ("requests", False)):
            sent = {key: s for key, s in attempted.items() if s.applied is applied}
            if sent:
                stage(self.mine, {key: s.mine[0] for key, s in sent.items()})
                self.push_in_vain(loses, sent)
        stage(self.mine, {key: s.mine[1] for key, s in attempted.items() if len(s.mine) > 1})
        self.pull(self.theirs)
        stage(self.mine, {key: s.mine[0] for key, s in self.steps.items() if not s.cell.attempted})

    def push_in_vain(self, loses: str, keys: Collection[str]) -> None:
        self.backend.loses = loses
        with pytest.raises(sf.TransientError):
            self.mine.push()
        self.backend.loses = ""
        assert {op.key for op in self.mine.pending if op.attempted} >= {*keys}

    def write_theirs(self, rows: Mapping[str, Row]) -> None:
        stage(self.theirs, rows)
        assert self.theirs.push().ok

    def meet(self) -> None:
        """Meet in the way that all of these cells do, and once more where something newer comes."""
        (met,) = {s.cell.met for s in self.steps.values()}
        if met == "push":
            self.mine.push()
        else:
            self.pull(self.mine, push_first=False)
        newer = {key: s.newer[0] for key, s in self.steps.items() if s.newer}
        if newer:
            self.write_theirs(newer)
            self.pull(self.mine, push_first=False)

    def pull(self, context: sf.SyncContext, *, push_first: bool = True) -> None:
        context[TABLE].pull(query_id=QUERY_ID, push_first=push_first)

    def end(self, *, singly: bool) -> None:
        """Decide each conflict in its way, push, pull, and let theirs pull too."""
        if singly:
            for conflict in list(self.mine.conflicts):
                how, _ = self.ends[conflict.key]
                getattr(conflict, how)(*[RESOLUTION] if how == "resolve" else [])
        else:
            words = {"resolve": RESOLUTION, "take_theirs": "theirs", "keep_mine": None}
            self.mine.conflicts.resolve(lambda conflict: words[self.ends[conflict.key][0]])
            self.mine.conflicts.keep_mine()
        self.mine.push()
        self.pull(self.mine)
        self.pull(self.theirs)

    # -- what is to be seen

    def look(self) -> dict[str, Seen]:
        shown, server = rows_of(self.mine), server_rows(self.path)
        seen = {key: Seen(shown=shown.get(key), server=server.get(key)) for key in self.steps}
        for operation in self.mine.pending:
            row = seen[operation.key]
            row.pending += (operation.kind,)
            row.attempted += (operation.attempted,)
        for conflict in self.mine.conflicts:
            sides = ("base", "mine", "theirs", "merged")
            seen[conflict.key].conflict = {side: pair(getattr(conflict, side)) for side in sides}
        return seen

    def look_at_the_end(self, seen: dict[str, Seen]) -> dict[str, dict[str, Seen]]:
        mine, theirs, server = rows_of(self.mine), rows_of(self.theirs), server_rows(self.path)
        left = [operation.key for operation in self.mine.pending]
        for key, row in seen.items():
            row.ended = {"mine": mine.get(key), "theirs": theirs.get(key), "server": server.get(key)}
            row.left = left.count(key)
        found: dict[str, dict[str, Seen]] = {how: {} for how in ENDINGS}
        for key, (how, cell) in self.ends.items():
            found[how][cell.id] = seen[key]
        return found


numbers = itertools.count(1)


def ways_to_end(cell: Cell | Extra) -> Sequence[str]:
    """What is no conflict ends in no other way."""
    return ENDINGS if cell.state == "conflict" else ENDINGS[:1]


def stage(context: sf.SyncContext, rows: Mapping[str, Row]) -> None:
    """Edit the frame so that it has these rows, None: not, and stage it."""
    frame = context[TABLE].frame()
    frame = frame.drop(index=[key for key, row in rows.items() if row is None])
    for key, row in rows.items():
        if row is not None:
            frame.loc[key, ["title", "note"]] = list(row)
    context[TABLE].stage(frame, max_deletes=1_000)


def rows_of(context: sf.SyncContext) -> dict[str, Row]:
    frame = context[TABLE].frame()
    return dict(zip(frame.index, zip(frame["title"], frame["note"], strict=True), strict=True))


def server_rows(path: Path) -> dict[str, Row]:
    connection = sqlite3.connect(path)
    try:
        return {key: (title, note) for key, title, note in connection.execute("select id, title, note from todo")}
    finally:
        connection.close()


def pair(row: Mapping[str, Any] | None) -> Row:
    return None if row is None else (row.get("title", "(not given)"), row.get("note", "(not given)"))


def played(path: Path, cells: Sequence[Cell | Extra], *, singly: bool = False) -> dict[str, dict[str, Seen]]:
    """What was seen of each cell, by the way its conflict was ended."""
    play = Play(path, cells)
    play.until_they_meet()
    play.meet()
    seen = play.look()
    play.end(singly=singly)
    return play.look_at_the_end(seen)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tracked database for all plays; a row that nobody touches keeps it from ever being empty."""
    path = tmp_path_factory.mktemp("cells") / "server.db"
    connection = sqlite3.connect(path)
    connection.execute("create table todo (id text primary key, title text, note text)")
    connection.execute("insert into todo values ('untouched', 'untouched', 'untouched')")
    connection.commit()
    connection.close()
    open_backend(f"sqlite:///{path}").track([TABLE])
    return path


@pytest.fixture(scope="module")
def seen(path: Path) -> dict[str, dict[str, Seen]]:
    """What was seen of each cell, by the way its conflict was ended."""
    ways: dict[tuple[str, bool], list[Cell | Extra]] = {}
    for cell in PLAYED:
        ways.setdefault((cell.met, bool(steps_of(cell).newer)), []).append(cell)
    plays = [played(path, cells) for cells in ways.values()]
    return {how: {i: s for play in plays for i, s in play[how].items()} for how in ENDINGS}


def check_meeting(cell: Cell | Extra, seen: Seen) -> None:
    steps = steps_of(cell)
    theirs = (steps.base, *steps.theirs, *steps.newer)[-1]
    assert seen.pending == cell.pending
    assert seen.attempted == (steps.still_attempted,) * len(cell.pending)
    assert seen.shown == cell.shown
    assert seen.server == (theirs if cell.server == "theirs" else cell.server)
    assert seen.conflict == (cell.conflict and conflict_of(cell.conflict))


def conflict_of(expected: Expected) -> dict[str, Row]:
    return {"base": expected.base, "mine": expected.mine, "theirs": expected.theirs, "merged": expected.merged}


def check_end(cell: Cell | Extra, seen: Seen, how: str) -> None:
    row = getattr(cell.conflict, how) if cell.conflict else cell.shown
    assert seen.ended == {"mine": row, "theirs": row, "server": row}
    assert seen.left == 0


def test_the_table_names_each_pair_met_in_each_way_once():
    named = [(c.mine, c.theirs, c.met, c.attempted, c.follower) for c in CELLS]

    assert len(named) == 72
    assert set(named) == set(itertools.product(KINDS, KINDS, ("push", "pull"), (False, True), (False, True)))
    assert len({cell.id for cell in PLAYED}) == len(PLAYED)


@pytest.mark.parametrize("cell", PLAYED, ids=lambda cell: cell.id)
def test_a_table_s_row_says_one_thing(cell):
    """Settled is an empty queue, pending is a queue without a conflict, a conflict is a queue with one."""
    queued, in_conflict = {"settled": (False, False), "pending": (True, False), "conflict": (True, True)}[cell.state]

    assert bool(cell.pending) is queued
    assert (cell.conflict is not None) is in_conflict


@pytest.mark.parametrize("cell", PLAYED, ids=lambda cell: cell.id)
def test_they_meet_as_the_table_says(cell, seen):
    check_meeting(cell, seen["keep_mine"][cell.id])


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("cell", IN_CONFLICT, ids=lambda cell: cell.id)
def test_a_conflict_ends_with_both_sides_equal_to_the_row_that_was_chosen(cell, how, seen):
    check_end(cell, seen[how][cell.id], how)


@pytest.mark.parametrize("cell", [c for c in PLAYED if c.state != "conflict"], ids=lambda cell: cell.id)
def test_what_is_no_conflict_ends_with_both_sides_equal_to_what_was_shown(cell, seen):
    check_end(cell, seen["keep_mine"][cell.id], "keep_mine")


@pytest.mark.parametrize("mine", KINDS)
def test_nothing_waits_behind_an_operation_that_was_never_sent(path, mine):
    (cell, *_) = [cell for cell in CANNOT_ARISE if cell.mine == mine]
    play = Play(path, [cell])
    ((key, steps),) = play.steps.items()
    play.write_theirs({key: steps.base} if steps.base else {})
    play.pull(play.mine)

    stage(play.mine, {key: MINE[mine]})
    stage(play.mine, {key: FOLLOWER[mine]})

    folded = {"insert": ("insert",), "update": ("update",), "delete": ("update",)}[mine]
    assert play.look()[key].pending == folded
    assert {(c.attempted, c.follower) for c in CANNOT_ARISE} == {(False, True)}
    assert len(CANNOT_ARISE) == 18


@pytest.mark.full
@pytest.mark.parametrize("cell", PLAYED, ids=lambda cell: cell.id)
def test_a_cell_on_its_own_meets_and_ends_as_the_table_says(path, cell):
    play = played(path, [cell], singly=True)
    for how in ways_to_end(cell):
        check_meeting(cell, play[how][cell.id])
        check_end(cell, play[how][cell.id], how)
