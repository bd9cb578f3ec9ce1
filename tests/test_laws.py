"""The laws that hold for any data and any order of calls, by generated examples and by a machine of two stores.

Derandomised, so that a run is the same everywhere; `pytest -m full` walks longer.
"""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import math
import random
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import syncframe as sf
from syncframe.backends import open as open_backend

D = decimal.Decimal


def laws(examples):
    return settings(
        derandomize=True,
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


# What may stand in a cell of each type -------------------------------------------------------------------------------

# A text that SQLite keeps and DuckDB takes: no lone surrogates.
texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", "NULL", "nan", "007", "1e5", " ", "'", '"', "é", "e\u0301", "\x00", "a\x00b"]
)
stamps = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
VALUES = {
    "big": ("bigint", st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1])),
    "huge": ("dectext(20,0)", st.integers(0, 2**64 - 1).map(D)),
    "small": ("smallint", st.integers(-(2**15), 2**15 - 1)),
    "yes": ("boolean", st.booleans()),
    "real": (
        "double",
        st.floats(allow_nan=False) | st.sampled_from([0.1, -0.0, math.inf, -math.inf, 5e-324, 1.7976931348623157e308]),
    ),
    "word": ("varchar", texts),
    "price": (
        "dectext(38,10)",
        st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: D(n).scaleb(-10, decimal.Context(prec=60))),
    ),
    "day": ("date", st.dates() | st.sampled_from([dt.date.min, dt.date.max])),
    "hour": ("time", st.times()),
    "stamp": ("timestamp", stamps),
    "moment": ("timestamptz", stamps.map(lambda at: at.replace(tzinfo=dt.UTC))),
    "ref": ("uuid", st.uuids().map(str)),
    "raw": ("blob", st.binary(max_size=6) | st.just(bytes(range(256)))),
}
KEYS = [f"k{i}" for i in range(8)]
THINGS = f"create table things (id text primary key, {', '.join(f'{n} {t}' for n, (t, _) in VALUES.items())});"
TYPES = {"id": "VARCHAR"} | {n: t.upper().replace("DECTEXT", "DECIMAL") for n, (t, _) in VALUES.items()}

row_cells = st.fixed_dictionaries({n: st.none() | cells for n, (_, cells) in VALUES.items()})
tables = st.dictionaries(st.sampled_from(KEYS), row_cells, max_size=len(KEYS))
few = st.dictionaries(
    st.sampled_from(KEYS),
    st.fixed_dictionaries(
        {
            "n": st.sampled_from([None, 0, 2**53 + 1]),
            "word": st.sampled_from([None, "", "a"]),
            "real": st.sampled_from([None, 0.0, 0.5]),
        }
    ),
    max_size=len(KEYS),
)
FEW = {"id": "VARCHAR", "n": "BIGINT", "word": "VARCHAR", "real": "DOUBLE"}


def rows_of(table):
    """What a sync table shows, as plain values."""
    return {row.pop("id"): row for row in table.arrow().to_pylist()}


def local_table(rows, types=FEW, name="few"):
    """A table of a store in memory, filled."""
    table = sf.connect(store=":memory:").table(name, schema=types, key="id")
    if rows:
        table.insert([{"id": key, **cells} for key, cells in rows.items()])
    return table


def made_into(frame, rows):
    """The frame edited until it holds `rows`: rows dropped, rows added, cells set one by one.

    New rows by `reindex`, which keeps integers: `frame.loc[key] = [2**53 + 1, None]` makes floats of a list in pandas itself.
    """
    frame = frame.drop([key for key in frame.index if key not in rows])
    frame = frame.reindex([*frame.index, *(key for key in rows if key not in frame.index)])
    for key, cells in rows.items():
        for name, value in cells.items():
            frame.at[key, name] = value
    return frame


# Laws 1 to 3: frames ------------------------------------------------------------------------------------------------------

MOVES = [
    lambda f: f.copy(),
    lambda f: f.sample(frac=1, random_state=1),
    lambda f: f.sort_values("word"),
    lambda f: f[f.columns[::-1]],
    lambda f: f.reset_index().set_index("id"),
    lambda f: f.astype(object),
    lambda f: pd.concat([f.iloc[::2], f.iloc[1::2]]),
    lambda f: f.assign(word=f["word"]),
]


@laws(8)
@given(rows=tables, dtypes=st.sampled_from(["pandas", "pyarrow"]), moves=st.lists(st.sampled_from(MOVES), max_size=3))
def test_law_1_an_unedited_frame_stages_nothing(rows, dtypes, moves):
    table = local_table(rows, TYPES, "things")
    pending = len(table.pending)
    frame = table.frame(dtypes=dtypes)

    for move in moves:
        frame = move(frame)

    assert not table.stage(frame)
    assert len(table.pending) == pending


@laws(9)
@given(before=few, after=few, seed=st.integers(0, 9))
def test_law_2_staging_a_frame_makes_the_table_equal_to_it_and_a_second_time_nothing(before, after, seed):
    table = local_table(before)
    frame = made_into(table.frame(), after).sample(frac=1, random_state=seed)

    changes = table.stage(frame, max_deletes=len(KEYS))
    shown = rows_of(table)
    again = table.stage(frame)

    assert shown == after
    assert changes.counts["insert"] == len(after.keys() - before.keys())
    assert changes.counts["delete"] == len(before.keys() - after.keys())
    assert changes.counts["update"] == sum(before[key] != after[key] for key in before.keys() & after.keys())
    assert not again


@laws(6)
@given(before=few, after=few)
def test_law_2_undo_of_a_staging_is_its_inverse(before, after):
    table = local_table(before)
    queued = [(o.kind, o.key, o.local) for o in table.pending]
    changes = table.stage(made_into(table.frame(), after), max_deletes=len(KEYS))

    if changes:
        sf.SyncContext(table._session).undo()

    assert rows_of(table) == before
    assert sorted((o.kind, o.key, o.local) for o in table.pending) == sorted(queued)


@laws(9)
@given(
    before=few, after=few, later=few, low=st.booleans(), columns=st.sampled_from([None, ["n"], ["word"], ["n", "real"]])
)
def test_law_3_a_frame_never_touches_what_it_never_held(before, after, later, low, columns):
    table = local_table(before)
    where = "n = 0" if low else "n > 0 or n is null"
    held = {key for key, cells in before.items() if (cells["n"] == 0) is low}
    frame = table.frame(where, columns=columns)
    assert set(frame.index) == held
    came = {key: cells for key, cells in later.items() if key not in before}
    if came:
        table.insert([{"id": key, **cells} for key, cells in came.items()])
    # Inserting a key that stands outside the frame is refused; that has a test of its own.
    wanted = {
        key: {n: cells[n] for n in frame.columns}
        for key, cells in after.items()
        if key in held or (key not in before and key not in came)
    }

    table.stage(made_into(frame, wanted), max_deletes=len(KEYS))

    shown = rows_of(table)
    outside = {key: cells for key, cells in (before | came).items() if key not in held}
    assert {key: shown.get(key) for key in outside} == outside
    assert shown.keys() == outside.keys() | wanted.keys()
    for key, cells in wanted.items():
        kept = before.get(key, dict.fromkeys(FEW.keys() - {"id"}))
        assert shown[key] == {**kept, **cells}


# Law 8: values --------------------------------------------------------------------------------------------------------------


def as_kept(value):
    """Of floats: NaN is NULL, -0.0 is 0.0."""
    return 0.0 if isinstance(value, float) and value == 0 else value


@laws(5)
@given(rows=tables.filter(bool), dtypes=st.sampled_from(["pandas", "pyarrow"]))
def test_law_8_values_survive_store_frame_edit_back_end_and_back(rows, dtypes):
    with tempfile.TemporaryDirectory() as folder:
        url = database(Path(folder) / "remote.db", THINGS, "things")
        mine, other = (sf.connect(url, store=":memory:")["things"] for _ in range(2))
        for table in (mine, other):
            table.pull(query_id="all", progress=False)
        mine.stage(pd.DataFrame(list(rows.values()), index=pd.Index(rows, name="id"), dtype=object))
        assert sf.SyncContext(mine._session).push().counts == {"accepted": len(rows), "conflicts": 0, "rejected": 0}
        other.pull(query_id="all", progress=False)

        assert exact(rows_of(mine)) == exact(rows_of(other)) == exact(rows)
        # And once more through a frame, each cell set to itself: nothing is changed by handing out and taking back.
        frame = other.frame(dtypes=dtypes)
        for name in frame.columns:
            for key in frame.index:
                frame.at[key, name] = frame.at[key, name]
        assert not other.stage(frame)


def exact(rows):
    """Rows with the type of each value: True is not 1, nor is 1.0."""
    told = {key: {n: as_kept(value) for n, value in cells.items()} for key, cells in rows.items()}
    return {key: {n: (type(value).__name__, str(value) if n == "ref" else value) for n, value in cells.items() if value is not None} | {
        n: None for n, value in cells.items() if value is None} for key, cells in told.items()}  # fmt: skip


any_cell = st.one_of(
    st.none(),
    *(cells for _, cells in VALUES.values()),
    st.floats(),
    st.integers(),
    st.just(pd.NA),
    st.just(math.nan),
    st.decimals(allow_nan=False, allow_infinity=False),
)


@laws(45)
@given(column=st.sampled_from(sorted(VALUES)), value=any_cell)
def test_law_8_any_value_in_any_column_is_kept_exactly_or_refused_naming_it(column, value):
    if column not in SHARED:
        SHARED[column] = local_table({"k": dict.fromkeys(VALUES)}, TYPES, "things")
    table = SHARED[column]

    try:
        table.update("k", {column: value})
    except sf.SchemaError as error:
        assert column in str(error)
        assert "k" in str(error)
        return

    kept = table.get("k")[column]
    assert kept == as_value(column, value) or (kept is None and is_missing(value))
    table.update("k", {column: None})


SHARED: dict[str, sf.SyncTable] = {}


def is_missing(value):
    return value is None or value is pd.NA or value != value


def as_value(column, value):
    """Where families mix, what the value is in the column's own type."""
    if column == "day" and isinstance(value, dt.datetime):
        return value.date() if value.time() == dt.time() else None
    if column == "stamp" and type(value) is dt.date:
        return dt.datetime.combine(value, dt.time())
    return value


# Law 10: two stores and one database --------------------------------------------------------------------------------------

PAIRS = "create table pairs (id text primary key, x bigint, y varchar);"
NAMES = ["a", "b", "c", "d"]
Row = dict | None


def database(path, statements, table):
    with sqlite3.connect(path) as connection:
        connection.executescript(statements)
    connection.close()
    url = f"sqlite:///{path}"
    backend = open_backend(url)
    backend.track([table])
    backend.close()
    return url


class Replica:
    """What one store must know of each row, written from the rules, without lost answers.

    `base` and `version`: as last known from the database.  `local`: what is pending.  `theirs`: the remote row
    and its version, of a row in conflict.
    """

    def __init__(self) -> None:
        self.base: dict[str, dict] = {}
        self.version: dict[str, int] = {}
        self.local: dict[str, Row] = {}
        self.theirs: dict[str, tuple[Row, int]] = {}

    def shown(self) -> dict[str, dict]:
        every = {**self.base, **self.local}
        return {key: row for key, row in every.items() if row is not None}

    def edit(self, key: str, row: Row) -> None:
        self.local[key] = row
        if key in self.theirs and (row == self.base.get(key) or says(*self.theirs[key][:1], row, self.base.get(key))):
            self.settle(key, *self.theirs[key])
        elif key not in self.theirs and row == self.base.get(key):
            del self.local[key]

    def settle(self, key: str, row: Row, version: int) -> None:
        """The row becomes the base; nothing is left to say."""
        self.local.pop(key, None)
        self.rebase(key, row, version)

    def rebase(self, key: str, row: Row, version: int) -> None:
        self.theirs.pop(key, None)
        self.base.pop(key, None)
        if row is not None:
            self.base[key] = row
        self.version[key] = version

    def meet(self, key: str, row: Row, version: int) -> None:
        """A remote row arrives, by a pull or as the answer to a push that found another version."""
        known = self.theirs[key][1] if key in self.theirs else self.version.get(key, 0)
        if version == known:
            return
        if key not in self.local or says(row, self.local[key], self.base.get(key)):
            self.settle(key, row, version)
        elif row == self.base.get(key) and (row is not None or key not in self.theirs):
            self.rebase(key, row, version)
        else:
            # An insert in conflict stays so when the row there is deleted: it may have been sent and applied before.
            self.theirs[key] = (row, version)

    def resolve(self, key: str, is_mine: bool) -> None:
        (row, version), base, mine = self.theirs[key], self.base.get(key), self.local[key]
        if not is_mine or mine is None or row is None:
            chosen = mine if is_mine else row
        elif base is None:
            chosen = mine
        else:
            chosen = {n: row[n] if mine[n] == base[n] else mine[n] for n in row}
        self.rebase(key, row, version)
        self.local[key] = chosen
        if chosen == row:
            del self.local[key]

    def give_up(self, key: str) -> None:
        if key in self.theirs:
            self.settle(key, *self.theirs[key])
        self.local.pop(key, None)


def says(row: Row, local: Row, base: Row) -> bool:
    """Whether the remote row has every cell that was changed here."""
    if row is None or local is None:
        return row is local
    return all(row[n] == local[n] or (base is not None and local[n] == base[n]) for n in row)


class Database:
    """What the shared database must hold."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.versions: dict[str, int] = {}

    def write(self, key: str, row: Row) -> None:
        self.rows[key] = row
        self.versions[key] = self.versions.get(key, 0) + 1

    def now(self, key: str) -> tuple[Row, int]:
        return self.rows.get(key), self.versions.get(key, 0)

    def push(self, replica: Replica) -> None:
        for key in [key for key in replica.local if key not in replica.theirs]:
            # A second round where the first only taught the version of a tombstone.
            for _ in range(2):
                if key not in replica.local or key in replica.theirs:
                    break
                if replica.version.get(key, 0) == self.versions.get(key, 0):
                    self.write(key, replica.local[key])
                    replica.settle(key, *self.now(key))
                else:
                    replica.meet(key, *self.now(key))

    def pull(self, replica: Replica) -> None:
        for key in self.versions:
            replica.meet(key, *self.now(key))


cells = st.fixed_dictionaries({"x": st.sampled_from([None, 0, 1]), "y": st.sampled_from([None, "", "u"])})
names = st.sampled_from(NAMES)
sides = st.sampled_from([0, 1])
edits = st.dictionaries(
    names, st.none() | cells | st.sampled_from([("x", 0), ("x", 1), ("y", "u"), ("y", None)]), min_size=1, max_size=3
)


class TwoStores(RuleBasedStateMachine):
    """Two stores edit, push and pull in any order; the real ones beside the model, looked at after each step."""

    @initialize(rows=st.dictionaries(names, cells))
    def begin(self, rows):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "remote.db"
        url = database(self.path, PAIRS, "pairs")
        with sqlite3.connect(self.path) as connection:
            connection.executemany(
                "insert into pairs values (?, ?, ?)", [(key, row["x"], row["y"]) for key, row in rows.items()]
            )
        connection.close()
        self.contexts = [sf.connect(url, store=":memory:") for _ in range(2)]
        self.tables = [context["pairs"] for context in self.contexts]
        self.database = Database()
        for key, row in rows.items():
            self.database.write(key, row)
        self.replicas = [Replica(), Replica()]
        self.frames = [None, None]
        self.undos: list[list[Replica]] = [[], []]
        self.seen = Counter()
        for side in (0, 1):
            self.tables[side].pull(query_id="all", progress=False)
            self.database.pull(self.replicas[side])

    def teardown(self):
        if hasattr(self, "folder"):
            self.settle_all()
            self.folder.cleanup()

    # -- steps

    @rule(side=sides, edits=edits)
    def stage(self, side, edits):
        """Stage a frame taken now."""
        frame = self.tables[side].frame()
        self.stage_edits(side, frame, edits)

    @precondition(lambda self: any(frame is not None for frame in self.frames))
    @rule(side=sides, edits=edits)
    def edit_again(self, side, edits):
        """Edit on and stage the frame that was staged before."""
        if self.frames[side] is not None:
            self.stage_edits(side, self.frames[side], edits)

    def stage_edits(self, side, frame, edits):
        replica, shown = self.replicas[side], self.replicas[side].shown()
        wanted = {}
        for key, edit in edits.items():
            if isinstance(edit, tuple) and key not in shown:
                continue
            wanted[key] = {**shown[key], edit[0]: edit[1]} if isinstance(edit, tuple) else edit
        wanted = {key: row for key, row in wanted.items() if row != shown.get(key)}
        frame = made_into(frame, {key: row for key, row in {**shown, **wanted}.items() if row is not None})
        if wanted:
            self.remember(side)
        for key, row in wanted.items():
            replica.edit(key, row)
        changes = self.tables[side].stage(frame, max_deletes=len(NAMES))
        assert sum(changes.counts.values()) == len(wanted)
        # Where an edit settled a conflict, the table shows the remote row and the frame does not.
        self.frames[side] = frame if rows_of_frame(frame) == replica.shown() else None

    @rule(side=sides)
    def pull(self, side):
        self.frames[side], self.undos[side] = None, []
        self.tables[side].pull(query_id="all", push_first=False, progress=False)
        self.database.pull(self.replicas[side])

    @rule(side=sides)
    def push(self, side):
        self.frames[side], self.undos[side] = None, []
        self.contexts[side].push(progress=False)
        self.database.push(self.replicas[side])

    @rule(side=sides, key=names, edit=st.none() | cells)
    def another_program_writes(self, side, key, edit):
        if edit == self.database.rows.get(key):
            return
        with sqlite3.connect(self.path) as connection:
            if edit is None:
                connection.execute("delete from pairs where id = ?", [key])
            else:
                connection.execute(
                    "insert into pairs values (?, ?, ?) on conflict (id) do update set x = excluded.x, y = excluded.y",
                    [key, edit["x"], edit["y"]],
                )
        connection.close()
        self.database.write(key, edit)

    @rule(side=sides)
    def undo(self, side):
        if not self.undos[side]:
            return
        self.frames[side] = None
        self.seen["undone"] += 1
        assert self.contexts[side].undo().left == []
        self.replicas[side] = self.undos[side].pop()

    @rule(side=sides)
    def discard(self, side):
        if not self.replicas[side].local:
            return
        self.frames[side] = None
        self.remember(side)
        self.contexts[side].discard()
        for key in list(self.replicas[side].local):
            self.replicas[side].give_up(key)

    @rule(side=sides, key=names)
    def revert(self, side, key):
        if key not in self.replicas[side].local:
            return
        self.frames[side] = None
        self.remember(side)
        assert self.tables[side].revert(key) == 1
        self.replicas[side].give_up(key)

    @precondition(lambda self: any(replica.theirs for replica in self.replicas))
    @rule(side=sides, is_mine=st.booleans(), pick=st.integers(0, 3))
    def resolve(self, side, is_mine, pick):
        keys = sorted(self.replicas[side].theirs)
        if not keys:
            return
        key = keys[pick % len(keys)]
        self.frames[side] = None
        self.remember(side)
        conflict = self.contexts[side].conflicts["pairs", key]
        (conflict.keep_mine if is_mine else conflict.take_theirs)()
        self.replicas[side].resolve(key, is_mine)

    def remember(self, side):
        self.undos[side].append(copy.deepcopy(self.replicas[side]))

    # -- what must hold after each

    @invariant()
    def each_store_shows_what_the_rules_say(self):
        if not hasattr(self, "replicas"):
            return
        for side, replica in enumerate(self.replicas):
            table = self.tables[side]
            assert rows_of(table) == replica.shown()
            assert {o.key: (o.kind, o.base, o.local) for o in table.pending} == {
                key: (kind_of(replica, key), with_key(key, replica.base.get(key)), with_key(key, row))
                for key, row in replica.local.items()
            }
            assert {c.key: (c.base, c.mine, c.theirs) for c in table.conflicts} == {
                key: (with_key(key, replica.base.get(key)), with_key(key, replica.local[key]), with_key(key, row))
                for key, (row, _) in replica.theirs.items()
            }
            self.seen["conflict"] += len(replica.theirs)
        assert self.there() == {key: row for key, row in self.database.rows.items() if row is not None}

    def there(self):
        connection = sqlite3.connect(self.path)
        rows = {key: {"x": x, "y": y} for key, x, y in connection.execute("select * from pairs")}
        connection.close()
        return rows

    def settle_all(self):
        """Law 10: when nobody edits, and conflicts are settled, both stores come to equal the database."""
        for _ in range(2):
            for side in (0, 1):
                self.push(side)
                self.pull(side)
                for key in sorted(self.replicas[side].theirs):
                    self.contexts[side].conflicts["pairs", key].keep_mine()
                    self.replicas[side].resolve(key, is_mine=True)
                self.push(side)
        for side in (0, 1):
            self.pull(side)
        self.each_store_shows_what_the_rules_say()
        assert all(not replica.local for replica in self.replicas)
        assert rows_of(self.tables[0]) == rows_of(self.tables[1]) == self.there()


def rows_of_frame(frame):
    return {
        key: {"x": None if pd.isna(x) else int(x), "y": None if pd.isna(y) else y}
        for key, x, y in zip(frame.index, frame["x"], frame["y"], strict=True)
    }


def with_key(key: str, row: Row) -> Row:
    return None if row is None else {"id": key, **row}


def kind_of(replica: Replica, key: str) -> str:
    if key not in replica.base:
        return "insert"
    return "delete" if replica.local[key] is None else "update"


def walk(seed, steps):
    """The same machine, driven densely by chance: generated walks begin with much that does nothing."""
    chance = random.Random(seed)

    def some_cells():
        return {"x": chance.choice([None, 0, 1, 2, 3]), "y": chance.choice([None, "", "u", "v"])}

    def some_edits():
        kinds = [None, some_cells(), ("x", chance.randrange(4)), ("x", None), ("y", chance.choice(["u", "v"]))]
        return {key: chance.choice(kinds) for key in chance.sample(NAMES, 3)}

    machine = TwoStores()
    machine.begin({key: some_cells() for key in NAMES[:3]})
    weights = {
        "stage": 6,
        "edit_again": 4,
        "pull": 3,
        "push": 3,
        "write": 2,
        "undo": 4,
        "discard": 0.5,
        "revert": 1,
        "resolve": 2,
    }
    for _ in range(steps):
        side, act = chance.randrange(2), chance.choices([*weights], [*weights.values()])[0]
        if act in ("stage", "edit_again"):
            getattr(machine, act)(side, some_edits())
        elif act == "write":
            machine.another_program_writes(side, chance.choice(NAMES), chance.choice([None, some_cells()]))
        elif act == "revert":
            machine.revert(side, chance.choice(NAMES))
        elif act == "resolve":
            machine.resolve(side, chance.random() < 0.5, chance.randrange(4))
        else:
            getattr(machine, act)(side)
        machine.each_store_shows_what_the_rules_say()
    machine.teardown()
    return machine.seen


@pytest.mark.parametrize("seed", [0, pytest.param(8, marks=pytest.mark.full)])
def test_law_10_two_stores_and_a_database_follow_the_rules_and_converge(seed):
    seen = walk(seed, 40)

    assert seen["conflict"] >= 2
    assert seen["undone"] >= 1


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 200))
def test_law_10_in_many_walks(seed):
    walk(seed, 60)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_law_10_in_many_generated_walks():
    run_state_machine_as_test(TwoStores, settings=settings(laws(200), stateful_step_count=40))


def walked(seed, policy):
    """Three stores, each the only writer of its own rows, all of them writers of one shared row."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "remote.db"
        url = database(path, PAIRS, "pairs")
        contexts = [sf.connect(url, store=":memory:", on_conflict=policy) for _ in range(3)]
        tables = [context["pairs"] for context in contexts]
        last: dict[str, Row] = {}
        for table in tables:
            table.pull(query_id="all", progress=False)
        for _ in range(24):
            at = chance.randrange(3)
            frame = tables[at].frame()
            what = chance.choice(["stage", "stage", "push", "pull"])
            if what == "stage":
                for key in chance.sample([f"{at}a", f"{at}b", f"{at}c", "shared"], 2):
                    row = (
                        None
                        if chance.random() < 0.3
                        else {"x": chance.choice([None, 0, 1, 2]), "y": chance.choice([None, "", "u"])}
                    )
                    last[key] = row
                    if row is None:
                        frame = frame.drop(key, errors="ignore")
                    else:
                        frame.loc[key] = [row["x"], row["y"]]
                tables[at].stage(frame, max_deletes=9)
            elif what == "push":
                contexts[at].push(progress=False)
            else:
                tables[at].pull(query_id="all", push_first=False, progress=False)
        for _ in range(3):
            for context in contexts:
                context.sync(progress=False)
        ends = [rows_of(table) for table in tables]
        pending = sum(len(context.pending) for context in contexts)
        connection = sqlite3.connect(path)
        there = {key: {"x": x, "y": y} for key, x, y in connection.execute("select * from pairs")}
        connection.close()
    return ends, there, pending, last


@pytest.mark.parametrize("policy", ["mine", "theirs"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in (1, 2))])
def test_law_10_replicas_converge_and_a_row_with_one_writer_ends_as_last_staged(seed, policy):
    ends, there, pending, last = walked(seed, policy)

    assert ends == [there] * 3
    assert pending == 0
    own = {key: row for key, row in last.items() if key != "shared"}
    assert {key: there.get(key) for key in own} == own
