"""Values: exact from the back end through pull, store, frame, edit, diff, stage and push and back, or refused in words."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
import sqlite3
import uuid

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import syncframe as sf
from syncframe.backends import open as open_backend
from syncframe.schema import Column

D = decimal.Decimal
UTC = dt.UTC
BYTES = bytes(range(256))
WORDS = 'Łódź 🛶 "it\'s" \\ ; -- \n\t\0 end'

# One row for each column: its type in SQLite and in DuckDB, then three values: a plain one and the type's two ends.
# What SQLite holds of each stands in HELD.  Of text, '' stands beside NULL; of floats, inf and -inf.
COLUMNS = {
    "whole": ("bigint", "bigint", 2**53 + 1, -(2**63), 2**63 - 1),
    "count": ("dectext(20,0)", "ubigint", 2**53 + 1, 0, 2**64 - 1),
    "named": ("text", "ubigint", 7, 2**63, 2**64 - 1),
    "price": ("dectext(38,10)", "decimal(38,10)", D("0.1000000000"), D("-9999999999999999999999999999.9999999999"),
              D("9999999999999999999999999999.9999999999")),
    "at": ("timestamptz", "timestamptz", dt.datetime(2013, 1, 1, 5, 17, 0, 1, UTC), dt.datetime(1, 1, 1, tzinfo=UTC),
           dt.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    "local": ("timestamp", "timestamp", dt.datetime(2013, 1, 1, 5, 17, 0, 1), dt.datetime(1, 1, 1),
              dt.datetime(9999, 12, 31, 23, 59, 59, 999999)),
    "day": ("date", "date", dt.date(2024, 2, 29), dt.date(1, 1, 1), dt.date(9999, 12, 31)),
    "clock": ("time", "time", dt.time(10, 0, 0, 1), dt.time(0, 0), dt.time(23, 59, 59, 999999)),
    "mark": ("uuid", "uuid", "12345678-9abc-4def-8123-456789abcdef", str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1))),
    "doc": ("text", "json", '{"a": [1, null, "é"]}', "null", "1.0"),
    "photo": ("blob", "blob", BYTES, b"", b"\x00"),
    "words": ("text", "varchar", WORDS, "", "007"),
    "share": ("double", "double", 0.1, float("-inf"), float("inf")),
    "small": ("double", "double", 5e-324, -1.7976931348623157e308, 1.7976931348623157e308),
    "is_open": ("boolean", "boolean", True, False, True),
}  # fmt: skip
HELD = {
    "whole": (9007199254740993, -9223372036854775808, 9223372036854775807),
    "count": ("9007199254740993", "0", "18446744073709551615"),
    "named": ("7", "9223372036854775808", "18446744073709551615"),
    "price": ("0.1000000000", "-9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999"),
    "at": ("2013-01-01T05:17:00.000001Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    "local": ("2013-01-01T05:17:00.000001", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"),
    "day": ("2024-02-29", "0001-01-01", "9999-12-31"),
    "clock": ("10:00:00.000001", "00:00:00", "23:59:59.999999"),
    "mark": ("12345678-9abc-4def-8123-456789abcdef", "00000000-0000-0000-0000-000000000000",
             "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    "doc": ('{"a": [1, null, "é"]}', "null", "1.0"),
    "photo": (BYTES, b"", b"\x00"),
    "words": (WORDS, "", "007"),
    "share": (0.1, float("-inf"), float("inf")),
    "small": (5e-324, -1.7976931348623157e308, 1.7976931348623157e308),
    "is_open": (1, 0, 1),
}  # fmt: skip
EXTRA = {"mood": ("enum('calm', 'it''s wild')", "calm", "it's wild", "calm")}  # DuckDB alone has enums
STATES = ("plain", "low", "high", "empty")
SQLITE_GIVEN = {"things": {"named": "UBIGINT", "doc": "JSON"}}


class Sqlite:
    """A tracked SQLite table of all types, and what its rows hold as the sqlite3 module reads them."""

    names = tuple(COLUMNS)

    def __init__(self, folder):
        self.path = folder / "far.db"
        self.url = f"sqlite:///{self.path}"
        self.schema = SQLITE_GIVEN
        self.run(f"create table things (id text primary key, {', '.join(f'{n} {c[0]}' for n, c in COLUMNS.items())})")

    def run(self, sql, parameters=()):
        connection = sqlite3.connect(self.path)
        with connection:
            rows = connection.execute(sql, parameters).fetchall()
        connection.close()
        return rows

    def put(self, key, state):
        self.run(f"insert into things values (?{', ?' * len(self.names)})", (key, *self.holds(state).values()))

    def holds(self, state):
        at = STATES.index(state)
        return {name: None if state == "empty" else HELD[name][at] for name in self.names}

    def look(self):
        rows = self.run("select * from things")
        return {row[0]: dict(zip(self.names, row[1:], strict=True)) for row in rows}


class Duckdb:
    """The same in DuckDB, with an enum, as its own Arrow reads it."""

    names = (*COLUMNS, *EXTRA)

    def __init__(self, folder):
        self.path = folder / "far.duckdb"
        self.url = f"duckdb:///{self.path}"
        self.schema = None
        declared = [f'"{n}" {c[1]}' for n, c in COLUMNS.items()] + [f'"{n}" {c[0]}' for n, c in EXTRA.items()]
        self.run(f"create table things (id varchar primary key, {', '.join(declared)})")

    def run(self, sql, parameters=()):
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("set timezone = 'UTC'")
            found = connection.sql(sql, params=parameters)
            return [] if found is None else found.to_arrow_table().to_pylist()

    def put(self, key, state):
        values = {n: v if n != "at" or v is None else v.isoformat() for n, v in self.holds(state).items()}
        self.run(f"insert into things values (?{', ?' * len(self.names)})", (key, *values.values()))

    def holds(self, state):
        return expected(self.names, state)

    def look(self):
        return {row.pop("id"): {n: plain(v) for n, v in row.items()} for row in self.run("from things")}


def expected(names, state):
    """The Python values of one state, written in COLUMNS and EXTRA."""
    at = STATES.index(state)
    values = {n: c[2:] for n, c in COLUMNS.items()} | {n: c[1:] for n, c in EXTRA.items()}
    return {name: None if state == "empty" else values[name][at] for name in names}


def plain(value):
    return str(value) if isinstance(value, uuid.UUID) else value


def cells_of(frame, key):
    """The cells of one row as Python has them; all that pandas takes for missing is None."""
    found = {name: frame.at[key, name] for name in frame.columns}
    return {n: None if v is None or v is pd.NA or v is pd.NaT or v != v else v for n, v in found.items()}


def rows_of(frame):
    return {key: cells_of(frame, key) for key in frame.index}


@pytest.fixture(params=[Sqlite, Duckdb], ids=["sqlite", "duckdb"])
def far(request, tmp_path):
    """A tracked back end whose four rows hold a plain value of each type, its two ends, and NULL."""
    there = request.param(tmp_path)
    for state in STATES:
        there.put(state, state)
    backend = open_backend(there.url, schema=there.schema)
    backend.track(["things"])
    backend.close()
    return there


def pulled(far, store):
    ctx = sf.connect(far.url, store=store, schema=far.schema)
    ctx["things"].pull(query_id="all")
    ctx.close()
    return ctx


def test_a_pulled_frame_has_every_value_as_the_back_end_has_it(far, tmp_path):
    ctx = pulled(far, tmp_path / "here.duckdb")

    frame = ctx["things"].frame()

    assert rows_of(frame) == {state: expected(far.names, state) for state in STATES}
    assert ctx["things"].get("high") == {"id": "high", **expected(far.names, "high")}
    assert ctx["things"].get("empty") == {"id": "empty", **expected(far.names, "empty")}


def test_the_store_holds_every_value_exactly(far, tmp_path):
    pulled(far, tmp_path / "here.duckdb")

    with duckdb.connect(str(tmp_path / "here.duckdb"), read_only=True) as plain_duckdb:
        plain_duckdb.execute("set timezone = 'UTC'")
        rows = plain_duckdb.sql("from things").to_arrow_table().to_pylist()

    assert {row.pop("id"): row for row in rows} == {state: expected(far.names, state) for state in STATES}


@pytest.mark.parametrize("dtypes", ["pandas", "pyarrow"])
def test_an_unedited_frame_stages_nothing(far, tmp_path, dtypes):
    ctx = pulled(far, tmp_path / "here.duckdb")
    frame = ctx["things"].frame(dtypes=dtypes)

    counts = [ctx["things"].stage(f).counts for f in (frame, frame.copy(), frame.reset_index(), frame.iloc[::-1])]

    assert counts == [{"insert": 0, "update": 0, "delete": 0}] * 4
    assert len(ctx.pending) == 0


# Each row is given the values of another: so each column is edited from and to each of its values.
EDITS = {"plain": "low", "low": "high", "high": "empty", "empty": "plain"}


def edited(ctx, names):
    frame = ctx["things"].frame()
    for key, state in EDITS.items():
        for name, value in expected(names, state).items():
            frame.at[key, name] = pd.NA if value is None and frame[name].dtype.kind not in "Of" else value
    return frame


def test_the_diff_of_edited_cells_names_each_value_exactly(far, tmp_path):
    ctx = pulled(far, tmp_path / "here.duckdb")
    frame = edited(ctx, far.names)

    cells = ctx["things"].diff(frame).cells

    assert {(row.key, row.column): (row.base, row.local) for row in cells.itertuples()} == {
        (key, name): (expected(far.names, key)[name], expected(far.names, state)[name])
        for key, state in EDITS.items()
        for name in far.names
        if expected(far.names, key)[name] != expected(far.names, state)[name]
    }


def test_edited_values_reach_the_back_end_and_a_second_store_exactly(far, tmp_path):
    ctx = pulled(far, tmp_path / "here.duckdb")
    frame = edited(ctx, far.names)
    new = pd.DataFrame([{"id": f"new {s}", **expected(far.names, s)} for s in STATES], dtype=object)

    staged = ctx["things"].stage(frame)
    ctx["things"].insert(new)
    result = ctx.push()
    ctx.close()

    assert staged.counts == {"insert": 0, "update": 4, "delete": 0}
    assert result.counts == {"accepted": 8, "conflicts": 0, "rejected": 0}
    assert far.look() == {key: far.holds(state) for key, state in EDITS.items()} | {
        f"new {state}": far.holds(state) for state in STATES
    }
    other = pulled(far, tmp_path / "other.duckdb")
    wanted = {key: expected(far.names, state) for key, state in EDITS.items()} | {
        f"new {state}": expected(far.names, state) for state in STATES
    }
    assert rows_of(other["things"].frame()) == wanted
    assert rows_of(ctx["things"].frame()) == wanted
    assert other["things"].stage(other["things"].frame()).counts == {"insert": 0, "update": 0, "delete": 0}


def test_cells_edited_one_column_at_a_time_reach_the_back_end_exactly(far, tmp_path):
    ctx = pulled(far, tmp_path / "here.duckdb")

    for name, value in expected(far.names, "high").items():
        ctx["things"].update("plain", {name: value})
        ctx.push()
    ctx.close()

    assert far.look()["plain"] == far.holds("high")


def test_nan_of_a_float_column_is_null_everywhere(far, tmp_path):
    ctx = pulled(far, tmp_path / "here.duckdb")
    frame = ctx["things"].frame()
    frame.at["plain", "share"] = np.nan
    frame.at["empty", "share"] = np.nan

    staged = ctx["things"].stage(frame)
    ctx.push()
    ctx.close()

    assert staged.cells[["key", "column", "base", "local"]].values.tolist() == [["plain", "share", 0.1, None]]
    assert far.look()["plain"]["share"] is None
    assert ctx.sql("select count(*) as n from things where share is null")["n"].tolist() == [2]


def test_minus_zero_is_zero(far, tmp_path):
    ctx = pulled(far, tmp_path / "here.duckdb")
    ctx["things"].update("plain", share=0.0)
    ctx.push()
    frame = ctx["things"].frame()
    frame.at["plain", "share"] = -0.0

    staged = ctx["things"].stage(frame)
    ctx.close()

    assert staged.counts == {"insert": 0, "update": 0, "delete": 0}


# Refused --------------------------------------------------------------------------------------------------------------

TIGHT = """
    create table tight (
        id text primary key, price decimal(20,2), stock ubigint, doc json, code string,
        whole bigint, half float, fine dectext(38,10), at timestamptz, local timestamp, clock time
    )
"""
REFUSED = {
    "a decimal of more digits than SQLite's NUMERIC keeps": (
        "price", D("123456789012345.67"),
        "column 'price' (DECIMAL(20,2)) takes decimals, of at most 15 digits, as the back end keeps: "
        "1 value does not fit: Decimal('123456789012345.67') in row 'a'\nhint: over SQLite declare it DECTEXT; services of this protocol keep no more"),
    "an unsigned number beyond SQLite's 64 bits": (
        "stock", 2**63,
        "column 'stock' (UBIGINT) takes whole numbers, up to 2**63 - 1, as the back end keeps: "
        "1 value does not fit: 9223372036854775808 in row 'a'\nhint: correct these values, or leave their rows out"),
    "JSON that SQLite would make a number": (
        "doc", "1.0",
        "column 'doc' (JSON) takes text, that SQLite does not read as a number: "
        "1 value does not fit: '1.0' in row 'a'\nhint: declare the column TEXT"),
    "a text in a column declared STRING, that SQLite would make a number": (
        "code", "007",
        "column 'code' (VARCHAR) takes text, that SQLite does not read as a number: "
        "1 value does not fit: '007' in row 'a'\nhint: declare the column TEXT"),
    "a fraction in a whole number": (
        "whole", 1.5,
        "column 'whole' (BIGINT) takes whole numbers, and these have a fraction: 1 value does not fit: 1.5 in row 'a'\n"
        "hint: round, or correct the values; integers of 2**53 and more are not exact as floats"),
    "a float too large to be one number": (
        "whole", 2.0**53,
        "column 'whole' (BIGINT) takes whole numbers, and floats as large as these are not exact: "
        "1 value does not fit: 9007199254740992.0 in row 'a'\n"
        "hint: round, or correct the values; integers of 2**53 and more are not exact as floats"),
    "more places than the decimal has": (
        "fine", D("0.12345678901"),
        "column 'fine' (DECIMAL(38,10)) takes decimals, and these cannot be held exactly: "
        "1 value does not fit: Decimal('0.12345678901') in row 'a'\nhint: correct these values, or leave their rows out"),
    "nanoseconds": (
        "local", pd.Timestamp("2024-01-01T00:00:00.000000001"),
        "column 'local' (TIMESTAMP) takes timestamps without a time zone, and these are finer than microseconds: "
        "1 value does not fit: Timestamp('2024-01-01 00:00:00.000000001') in row 'a'\n"
        "hint: df['local'].dt.floor(\"us\")"),
    "a time without a zone where there is one": (
        "at", dt.datetime(2024, 1, 1),
        "column 'at' (TIMESTAMPTZ) takes timestamps with a time zone, not without one: "
        "1 value does not fit: datetime.datetime(2024, 1, 1, 0, 0) in row 'a'\n"
        "hint: say which zone they are in: df['at'].dt.tz_localize(\"UTC\")"),
    "a time of day with a zone": (
        "clock", dt.time(1, 2, tzinfo=UTC),
        "column 'clock' (TIME) takes times of day, without a zone: "
        "1 value does not fit: datetime.time(1, 2, tzinfo=datetime.timezone.utc) in row 'a'\nhint: correct these values, or leave their rows out"),
}  # fmt: skip


@pytest.fixture
def tight(tmp_path):
    path = tmp_path / "tight.db"
    connection = sqlite3.connect(path)
    connection.executescript(f"{TIGHT}; insert into tight (id) values ('a');")
    connection.close()
    ctx = sf.connect(f"sqlite:///{path}", store=":memory:")
    ctx["tight"].pull()
    return ctx


def test_there_are_no_more_than_ten_kinds_of_refused_values():
    assert len(REFUSED) <= 10


@pytest.mark.parametrize(("column", "value", "words"), REFUSED.values(), ids=REFUSED)
def test_a_value_that_would_be_changed_is_refused_in_words(tight, column, value, words):
    frame = tight["tight"].frame().astype({column: object})
    frame.at["a", column] = value

    with pytest.raises(sf.SchemaError) as by_frame:
        tight["tight"].stage(frame)
    with pytest.raises(sf.SchemaError) as by_row:
        tight["tight"].update("a", {column: value})

    assert str(by_frame.value) == str(by_row.value) == words
    assert len(tight.pending) == 0
    assert tight["tight"].get("a")[column] is None


def test_sqlite_itself_would_have_changed_what_is_refused():
    """The reason for four of the refusals: not a limit of ours."""
    connection = sqlite3.connect(":memory:")
    connection.execute(TIGHT)

    connection.execute(
        "insert into tight (id, price, doc, code) values ('a', '12345678901234567.89', '1.0', '007')"
    )  # fmt: skip
    price, doc, code = connection.execute("select price, doc, code from tight").fetchone()
    connection.close()

    assert (price, doc, code) == (12345678901234568, 1, 7)


def test_values_just_within_what_sqlite_keeps_are_taken(tight, tmp_path):
    values = {"price": D("1234567890123.45"), "stock": 2**63 - 1, "doc": '{"a": 1}', "code": "a7", "whole": 2**53 + 1,
              "fine": D("0.1234567891")}  # fmt: skip

    tight["tight"].update("a", values)
    result = tight.push()
    tight["tight"].pull()

    assert result.counts == {"accepted": 1, "conflicts": 0, "rejected": 0}
    assert {name: tight["tight"].get("a")[name] for name in values} == values


@pytest.mark.parametrize("text", ["1e-99999999", "1e99999999", "Infinity", "1e-80"])
@pytest.mark.parametrize("kind", ["DECIMAL(18,2)", "BIGINT"])
def test_a_decimal_of_an_exponent_that_nothing_holds_is_refused_at_once(kind, text):
    table = sf.connect(store=":memory:").table("t", schema={"id": "VARCHAR", "d": kind})

    with pytest.raises(sf.SchemaError, match="cannot be held exactly"):
        table.insert({"id": "a", "d": D(text)})


# A service whose numbers are doubles and whose times have milliseconds ------------------------------------------------

LOOSE = {
    "whole": ("BIGINT", "int53", 2**53 + 1, 2**53, "of at most 2**53"),
    "less": ("BIGINT", "int53", -(2**53) - 1, -(2**53), "of at most 2**53"),
    "big": ("UBIGINT", "int53", 2**64 - 1, 2**53, "of at most 2**53"),
    "share": ("DOUBLE", "finite", -math.inf, 1e308, "that is finite"),
    "price": ("DECIMAL(20,2)", "numeric", D("123456789012345.67"), D("1234567890123.45"), "of at most 15 digits"),
    "local": ("TIMESTAMP", "ms", dt.datetime(2024, 1, 1, 0, 0, 0, 1), dt.datetime(2024, 1, 1, 0, 0, 0, 1_000),
              "in whole milliseconds"),
    "at": ("TIMESTAMPTZ", "ms", dt.datetime(1969, 1, 1, 0, 0, 0, 1_001, UTC), dt.datetime(1969, 1, 1, tzinfo=UTC),
           "in whole milliseconds"),
    "clock": ("TIME", "ms", dt.time(1, 2, 3, 4), dt.time(1, 2, 3, 4_000), "in whole milliseconds"),
}  # fmt: skip


class Loose:
    """A back end with one row that holds less than its types do; it is never asked to push."""

    promises = sf.Promises(exact_types=False)

    def schema(self, table):
        columns = [Column(name, kind, held_as=held) for name, (kind, held, *_) in LOOSE.items()]
        return sf.Schema((Column("id", "VARCHAR", nullable=False), *columns), ("id",))

    def pull(self, table, query, since, others=()):
        rows = pa.Table.from_pylist([{"id": "a"}], schema=self.schema(table).arrow())
        for name, value in (("version", "1"), ("deleted", False), ("operation", None)):
            rows = rows.append_column(f"_syncframe_{name}", pa.array([value]))
        yield sf.Page(rows)

    def push(self, batch):
        raise AssertionError("nothing is to be pushed")


@pytest.mark.parametrize("column", LOOSE)
def test_what_a_service_would_change_is_refused_when_it_is_staged(column):
    ctx = sf.connect(Loose(), store=":memory:")
    ctx["loose"].pull()
    _, _, refused, taken, words = LOOSE[column]

    with pytest.raises(
        sf.SchemaError, match=rf"column '{column}' .*{re.escape(words)}.*(as the back end keeps|JSON has no)"
    ):
        ctx["loose"].update("a", {column: refused})
    assert ctx["loose"].get("a")[column] is None

    ctx["loose"].update("a", {column: taken})
    assert ctx["loose"].get("a")[column] == taken
