"""The filter language: what it takes, what it refuses, and that every engine selects the same rows."""

import datetime
import math
import sqlite3
from decimal import Decimal

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncframe.errors import QueryError
from syncframe.query import Column, Condition, Query, parse, register_sqlite_functions, to_duckdb, to_sqlite
from syncframe.schema import Column as SchemaColumn
from syncframe.schema import Schema, quote

TYPES = {
    "id": "BIGINT", "n": "BIGINT", "m": "INTEGER", "x": "DOUBLE", "f": "FLOAT", "p": "DECIMAL(20,2)",
    "q": "DECIMAL(38,9)", "b": "BOOLEAN", "t": "VARCHAR", "s": "VARCHAR", "u": "UUID", "d": "DATE",
    "at": "TIMESTAMP", "instant": "TIMESTAMPTZ", "clock": "TIME", "raw": "BLOB", "Some Name": "VARCHAR",
}  # fmt: skip
SCHEMA = Schema.of(TYPES)
UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
BIG = 2**53 + 1
UTC = datetime.UTC


def row(id, **values):
    """A row of NULLs but for the given values."""
    return dict.fromkeys(TYPES) | {"id": id} | values


ROWS = [
    row(1, n=0, m=0, x=0.0, f=0.0, p=Decimal("0.00"), q=Decimal("0.000000000"), b=False, t="", s="", raw=b""),
    row(2, n=7, m=2, x=2.5, f=0.1, p=Decimal("2.00"), q=Decimal("1.000000001"), b=True, t="abc", s="b", raw=b"a\x00"),
    row(3, n=-7, m=2, x=-2.5, f=-2.5, p=Decimal("10.00"), q=Decimal("-1.5"), b=False, t="ABC", s="abc"),
    row(4, n=7, m=-2, x=0.1, f=16777216.0, p=Decimal("-0.01"), q=Decimal("9.99"), b=True, t="é", s="É"),
    row(5, n=-7, m=-2, x=math.inf, f=math.inf, p=Decimal("9.90"), q=Decimal("0.5"), t="É", s="é"),
    row(6, n=BIG, m=1, x=float(2**53), p=Decimal(f"{BIG}.00"), q=Decimal(BIG), b=True, t="100%", s="%"),
    row(7, n=-BIG, m=-1, x=-math.inf, f=-math.inf, p=Decimal("-10.00"), q=Decimal("-9.5"), t="a_b", s="_"),
    row(8, n=2**63 - 1, m=2**31 - 1, x=1e300, f=1.5, p=Decimal("123456789012345678.99"), t="a\\b", s="\\"),
    row(9, n=-(2**63), m=-(2**31), x=-0.5, f=0.5, p=Decimal("-2.50"), q=Decimal("2.5"), t="it's", s="'"),
    row(10, n=1, m=3, x=2.675, f=2.345, p=Decimal("2.50"), q=Decimal("2.499999999"), t="  padded ", s=" "),
    row(11, n=3, m=5, x=0.49999999999999994, p=Decimal("1.05"), q=Decimal("-2.5"), t="\tline\n", s="\n"),
    row(12, n=10, m=4, x=3.0, f=3.0, p=Decimal("2.00"), q=Decimal("2"), b=False, t="[a*?]", s="*"),
    row(13, n=2, m=10, x=1.005, f=-0.0, p=Decimal("100.00"), q=Decimal("100"), t="10", s="2"),
    row(14, n=5, m=7, x=1e-5, f=1e-5, p=Decimal("99.99"), q=Decimal("99.99"), t="ßİΣ", s="e\u0301"),
    row(15, n=100, m=100, x=1250.0, f=1250.0, p=Decimal("1250.00"), t="a\0b", s="a\u00a0"),
    row(16),
    row(17, u=UUID, d=datetime.date(2024, 2, 29), at=datetime.datetime(2024, 2, 29, 23, 59, 59, 999999),
        instant=datetime.datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC), clock=datetime.time(23, 59, 59, 999999)),
    row(18, u="ffffffff-0000-4000-8000-000000000000", d=datetime.date(1, 1, 1), at=datetime.datetime(1, 1, 1),
        instant=datetime.datetime(1, 1, 1, tzinfo=UTC), clock=datetime.time(0)),
    row(19, d=datetime.date(2024, 3, 1), at=datetime.datetime(2024, 3, 1), clock=datetime.time(10, 30),
        instant=datetime.datetime(2024, 3, 1, tzinfo=UTC), **{"Some Name": "x"}),
    row(20, d=datetime.date(1969, 12, 31), at=datetime.datetime(1969, 12, 31, 23, 59, 59, 500000),
        instant=datetime.datetime(1969, 12, 31, 23, 59, 59, 500000, tzinfo=UTC), clock=datetime.time(10, 30, 0, 500000)),
    row(21, d=datetime.date(9999, 12, 31), at=datetime.datetime(9999, 12, 31, 23, 59, 59),
        instant=datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), clock=datetime.time(12)),
]  # fmt: skip


def held_in_sqlite(value, name):
    """A value as SQLite holds it; some rows in the spellings of other people's data."""
    match value:
        case Decimal():
            return format(value, "f")
        case datetime.datetime() if name == "instant":
            text = value.replace(tzinfo=None).isoformat()
            return (
                f"{text}Z"
                if value.second
                else (value + datetime.timedelta(hours=2)).replace(tzinfo=None).isoformat(" ") + "+02:00"
            )
        case datetime.datetime():
            return value.isoformat(" " if value.microsecond else "T")
        case datetime.date() | datetime.time():
            return value.isoformat()
    return value


@pytest.fixture(scope="module")
def duck():
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")  # for the texts that DuckDB reads itself
    columns = ", ".join(f"{quote(column.name)} {column.store}" for column in SCHEMA.columns)
    connection.execute(f"create table rows ({columns})")
    marks = ", ".join("?" for _ in TYPES)
    connection.executemany(f"insert into rows values ({marks})", [list(r.values()) for r in ROWS])
    return connection


@pytest.fixture(scope="module")
def lite():
    connection = sqlite3.connect(":memory:")
    register_sqlite_functions(connection)
    declared = {"p": "DECTEXT(20,2)", "q": "DECTEXT(38,9)", "t": "VARCHAR collate nocase"}
    columns = ", ".join(f"{quote(name)} {declared.get(name, kind)}" for name, kind in TYPES.items())
    connection.execute(f"create table rows ({columns})")
    marks = ", ".join("?" for _ in TYPES)
    rows = [[held_in_sqlite(_single(v) if n == "f" else v, n) for n, v in r.items()] for r in ROWS]
    connection.executemany(f"insert into rows values ({marks})", rows)
    return connection


def _single(value):
    return (
        None
        if value is None
        else float(duckdb.execute("select cast(cast(? as FLOAT) as DOUBLE)", [value]).fetchone()[0])
    )


def ids(connection, sql, parameters=()):
    """The selected ids, or "raised": engines raise for a division by zero, an overflow."""
    try:
        return [
            id for (id,) in connection.execute(f"select id from rows where {sql} order by id", parameters).fetchall()
        ]
    except (
        duckdb.InvalidInputException,
        duckdb.OutOfRangeException,
        duckdb.ConversionException,
        sqlite3.OperationalError,
    ) as error:
        assert "no such" not in str(error) and "syntax" not in str(error), error
        return "raised"


def selected(duck, lite, where):
    """The rows that both writers select; they have to be the same."""
    condition = parse(where, SCHEMA)
    here = ids(duck, *to_duckdb(condition))
    there = ids(lite, *to_sqlite(condition, SCHEMA))
    assert here == there, (where, condition.text, to_duckdb(condition), to_sqlite(condition, SCHEMA))
    return here


# Written by hand: the ids that a condition selects.
EXPECTED = {
    "n = 7": [2, 4],
    "n <> 7 and n < 4 and n > -5": [1, 10, 11, 13],
    "N = 9007199254740993": [6],
    "n = 9007199254740992": [],
    "x = 9007199254740993": [6],  # DuckDB compares a double
    "n > 9223372036854775806": [8],
    "n < 9223372036854775808 and n > 100": [6, 8],
    "n = 1.0": [10],
    "n > 4.5 and n < 5.5": [14],
    "n in (1, 2, null)": [10, 13],
    "n not in (1, 2, null)": [],
    "n in (null)": [],
    "n not in (0, 7, -7)": [6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    "n = null": [],
    "n is not distinct from null": [16, 17, 18, 19, 20, 21],
    "n is distinct from 7 and n between 0 and 7": [1, 10, 11, 13, 14],
    "n between 7 and 5": [],
    "n / m = 3.5": [2, 5],
    "n / m = -3.5": [3, 4],
    "m <> 0 and m = 2 and n % 2 = 1": [2],
    "n % 2 = -1": [3, 5, 7],
    "n // 2 = -3": [3, 5],
    "n // -2 = 3": [3, 5],
    "m / 0 > 1": [2, 3, 6, 8, 10, 11, 12, 13, 14, 15],
    "m / 0 is null": [1, 16, 17, 18, 19, 20, 21],
    "1 / f = cast('inf' as float)": [1, 13],
    "f = 16777217": [4],
    "n // 0 = 1": "raised",
    "n % 0 = 1": "raised",
    "n + 1 > 9223372036854775807": [8],
    "p = 2": [2, 12],
    "p > 9.9 and p < 11": [3],
    "p < 10 and p > 2": [5, 10],
    "p between -1 and 0.00": [1, 4],
    "p in (2, 10.0)": [2, 3, 12],
    "p = 9007199254740993": [6],
    "p > 123456789012345678.98": [8],
    "p >= -2.5 and p < -2": [9],
    "p * 2 = 5": [10],
    "p % 2 = 0 and p > 0": [2, 3, 12, 13, 15],
    "q > 1 and q < 1.0000000011": [2],
    "p = q": [1, 6, 12, 13, 14],
    "x = 0.1": [4],
    "f = 0.1": [2],
    "f = x": [1, 3, 5, 7, 12, 15],
    "f = m": [1],
    "x > 1e300": [5],
    "x = cast('inf' as double)": [5],
    "round(x) = 3": [2, 10, 12],
    "round(x) = -1": [9],
    "round(p) = 3": [10],
    "round(p) = -3": [9],
    "round(n, -1) = 10 and id < 13": [2, 4, 12],
    "round(x, -2) = 1300": [15],
    "ceil(p) = 3": [10],
    "floor(p) = -3": [9],
    "abs(n) = 7": [2, 3, 4, 5],
    "-n = 7": [3, 5],
    "b": [2, 4, 6],
    "not b": [1, 3, 12],
    "b = false": [1, 3, 12],
    "b is not true and id < 7": [1, 3, 5],
    "b is not false and id < 6": [2, 4, 5],
    "t = 'abc'": [2],
    "t in ('abc', 'é')": [2, 4],
    "t < 'B'": [1, 3, 6, 10, 11, 13],
    "t >= 'é'": [4],
    "t = ''": [1],
    "t = 'it''s'": [9],
    "t like 'a%'": [2, 7, 8, 15],
    "t like 'A%'": [3],
    "t like '[a*%'": [12],
    "t like '%b'": [7, 8, 15],
    "t like 'a_b'": [7, 8, 15],
    "t like '%!%' escape '!'": [6],
    "t like 'a!_b' escape '!'": [7],
    "t like 'a\\b'": [8],
    "t like 'a\\\\b' escape '\\'": [8],
    "t not like '%'": [],
    "t like s": [1, 6],
    "t ilike 'ABC'": [2, 3],
    "t ilike 'É'": [4, 5],
    "upper(t) = 'É'": [4, 5],
    "upper(t) = 'ẞİΣ'": [14],
    "lower(t) = 'ßiσ'": [14],
    "length(t) = 1": [4, 5],
    "length(s) = 2": [13 + 1, 15],
    "length(t) = 3 and t like 'a%'": [2, 7, 8, 15],
    "trim(t) = 'padded'": [10],
    "ltrim(t) = 'padded '": [10],
    "rtrim(s) = 'a'": [15],
    "trim(t, 'ac') = 'b'": [2],
    "substr(t, 2) = 'bc'": [2],
    "substr(t, -2) = 'bc'": [2],
    "substring(t from 1 for 1) = 'a'": [2, 7, 8, 15],
    "substr(t, 0, 2) = 'a'": [2, 7, 8, 15],
    "replace(t, 'b', '') = 'ac'": [2],
    "replace(t, '', 'x') = 'abc'": [2],
    "concat(t, null, s) = 'abcb'": [2],
    "concat(t) = ''": [1, 16, 17, 18, 19, 20, 21],
    "starts_with(t, 'a')": [2, 7, 8, 15],
    "ends_with(t, 'C')": [3],
    "contains(t, '%')": [6],
    "\"Some Name\" = 'x'": [19],
    f"u = '{UUID.upper()}'": [17],
    "u is null and id > 16": [19, 20, 21],
    "d = '2024-02-29'": [17],
    "d > date '2024-02-28' and d < '2025-01-01'": [17, 19],
    "d between '0001-01-01' and '1970-01-01'": [18, 20],
    "d = timestamp '2024-03-01 00:00:00'": [19],
    "d = at": [18, 19],
    "at < '2024-03-01'": [17, 18, 20],
    "at > '2024-02-29 23:59:59.999998'": [17, 19, 21],
    "at = '2024-02-29T23:59:59.999999'": [17],
    "instant >= '2024-03-01'": [19, 21],
    "instant = '2024-03-01T02:00:00+02:00'": [19],
    "instant >= date '2024-03-01'": [19, 21],
    "instant < timestamptz '1969-12-31 23:59:59.6Z' and instant > '1900-01-01Z'": [20],
    "clock = '10:30'": [19],
    "clock > time '10:30:00' and clock < '12:00'": [20],
    "year(d) = 1": [18],
    "month(at) = 2": [17],
    "day(instant) = 29": [17],
    "extract(hour from instant) = 23 and minute(at) = 59 and second(clock) = 0": [20, 21],
    "hour(clock) in (10, 12)": [19, 20, 21],
    "second(at) = 59 and year(at) < 1970": [20],
    "coalesce(n, 1) = 1": [10, 16, 17, 18, 19, 20, 21],
    "coalesce(p, 0.5) = 0.5": [11 + 5, 17, 18, 19, 20, 21],
    "coalesce(t, s, 'none') = 'none'": [16, 17, 18, 19, 20, 21],
    "raw is not null": [1, 2],
    "raw = raw": [1, 2],
    "true": list(range(1, 22)),
    "null": [],
    "null is null and id = 1": [1],
    "(n = 7) = (m = 2)": [1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    "n = 7 or n = 1 and m = 3": [2, 4, 10],
    "(n = 7 or n = 1) and m = 3": [10],
    "not (n = 7 and m = 2) and id < 5": [1, 3, 4],
}


@pytest.mark.parametrize(("where", "expected"), EXPECTED.items(), ids=EXPECTED)
def test_a_condition_selects_these_rows_in_both_engines(duck, lite, where, expected):
    assert selected(duck, lite, where) == expected


def _products(template, **choices):
    (name, values), *rest = choices.items()
    made = [template.replace(f"<{name}>", str(value)) for value in values]
    return [text for one in made for text in (_products(one, **dict(rest)) if rest else [one])]


COMPARISON = ["=", "<>", "<", "<=", ">", ">=", "is distinct from", "is not distinct from"]
AGREEING = [
    *_products("<a> <op> <b>", a=["n", "m", "p", "q", "x", "f"], op=COMPARISON, b=["n", "p", "x", "f", "2", "2.5", "0.1", "1e-1"]),
    *_products("t <op> <b>", op=COMPARISON, b=["s", "''", "'é'", "'ABC'", "'\\'", "lower(s)"]),
    *_products("<a> <op> <b> > 1", a=["m", "p", "x", "f"], op=["+", "-", "*", "/", "%"], b=["m", "2", "-2", "0.5", "1.5e0"]),
    *_products("n <op> <b> < 0", op=["//", "%", "/"], b=["2", "-2", "3", "-7"]),
    *_products("<f>(<a>) = <b>", f=["abs", "ceil", "floor", "round"], a=["m", "p", "q", "x", "f"], b=["2", "-3", "2.5"]),
    *_products("round(<a>, <k>) = <b>", a=["m", "p", "q", "x"], k=[0, -1, -2], b=["2.7", "2.5", "10", "1.01", "2.68"]),
    *_products("round(<a>, <k>) = <b>", a=["m", "p", "q"], k=[1, 2, 9], b=["2.7", "2.5", "10", "1.01", "2.68"]),
    *_products("substr('hello', <i>, <k>) = substr('hello', id - 9, <k>)", i=range(-8, 9, 2), k=range(-6, 8)),
    *_products("t like '<p>'", p=["%", "_", "__", "%_", "a%b", "%a%", "%b%c", "_%_%_", "%\\%", "%%", "[%", "%*%", "a_", "%'' %".replace(" ", "")]),
    *_products("<f>(<a>) < 10", f=["year", "month", "day"], a=["d", "\"at\"", "instant"]),
    *_products("<f>(<a>) < 30", f=["hour", "minute", "second"], a=["clock", "\"at\"", "instant"]),
    *_products("<f>(t, <b>)", f=["starts_with", "ends_with", "contains"], b=["s", "''", "'b'", "null"]),
]  # fmt: skip


@pytest.mark.parametrize("where", AGREEING)
def test_both_engines_select_what_duckdb_selects_by_the_text_itself(duck, lite, where):
    rows = selected(duck, lite, where)

    # Where DuckDB raises for a sum too wide for its columns, syncframe's wider arithmetic may have an answer.
    assert ids(duck, without_nan(where)) in (rows, "raised")


def without_nan(where):
    """NaN is NULL in syncframe, and the largest number in DuckDB."""
    left, compared, right = where.rpartition(" > ")
    if compared and any(op in left for op in "+-*/%"):
        return f"(case when not isnan(cast({left} as DOUBLE)) then {left} end) > {right}"
    return where


ACCEPTED = {
    **dict.fromkeys(EXPECTED),
    "deleted": frozenset({"deleted"}),
    "not deleted and UPDATEDAT > '2024-01-01' or version = 'x'": frozenset({"deleted", "updatedAt", "version"}),
    "\"SOME name\" = 'x' and T = 'y'": frozenset({"Some Name", "t"}),
}


@pytest.mark.parametrize("where", ACCEPTED, ids=str)
def test_the_canonical_text_means_the_same_and_is_stable(where):
    first = parse(where, SCHEMA)

    again = parse(first.text, SCHEMA)

    assert again == first
    assert ACCEPTED[where] is None or first.columns == ACCEPTED[where]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("n=7 AND m = 2", "(n = 7) and ((M = 2))"),
        ("p = 1.50", "p = 1.5"),
        ("n != 1", "n <> 1"),
        ("d = '2024-02-29'", "d = DATE '2024-02-29'"),
        ("n not in (1)", "not (n in (1))"),
        ("extract(year from d) = 1", "year(d) = 1"),
        ("instant > '2024-01-01T02:00:00+02'", "instant > '2024-01-01'"),
    ],
)
def test_spellings_of_one_filter_have_one_text(one, other):
    assert parse(one, SCHEMA) == parse(other, SCHEMA)


def test_filters_that_differ_have_different_texts():
    same = {"instant >= date '2024-03-01'"}
    texts = [parse(where, SCHEMA).text for where in EXPECTED if where not in same]

    assert len(set(texts)) == len(texts)


REFUSED = {
    "": "empty", "  ": "empty",
    "n =": "parsed", "and": "parsed", "n = 1 n": "", "(n = 1": "parsed", "t = 'x": "quote",
    "nope = 1": "'nope' is not known", "rows.n = 1": "not part", "a.b.n = 1": "not part",
    "n": "family int", "t": "family text", "n + 1": "family int", "n and b": "family int", "not n": "family int",
    "n = 1; n = 2": "semicolons", "n = 1 -- all": "comments", "n /* x */ = 1": "comments",
    "n = ?": "parameters", "n = $1": "parameters", "n = :x": "not part",
    "n = (select 1)": "not part", "n in (select 1)": "not part", "exists (select 1)": "not part", "n in m": "not part",
    "n in ()": "list", "sum(n) = 1": "not part", "count(*) = 1": "not part", "*": "not part",
    "row_number() over () = 1": "not part", "pg_sleep(1) = 1": "'pg_sleep'", "random() < 1": "not part",
    "t[1] = 'a'": "not part", "t -> 'a' = 'b'": "not part", "t glob 'a*'": "not part", "t ~ 'a'": "not part",
    "t similar to 'a'": "not part", "t collate nocase = 'a'": "not part", "t || s = 'x'": "not part",
    "n ** 2 = 1": "not part", "n & 1 = 1": "not part", "case when b then true end": "not part",
    "current_date = d": "not part", "d = now()": "'now'", "d + interval 1 day > d": "not part",
    "cast(n as varchar) = '1'": "literal", "try_cast('1' as int) = n": "not part", "n::text = '1'": "literal",
    "n = '1'": "int and text", "n = 'x'": "int and text", "t = 1": "int and text", "b = 1": "bool and int",
    "x = '0.1'": "float and text", "p = '1'": "decimal and text", "b = 'true'": "bool and text", "raw = 'a'": "bytes and text",
    "d = 'yesterday'": "a date as", "d = '2023-02-29'": "does not fit", "at = '2024-01-01T00:00:00Z'": "without an offset",
    "instant = 'soon'": "a time as", "clock = '25:00'": "does not fit", "u = 'x'": "does not fit", "d = '20240229'": "a date as",
    "at = instant": "instant and timestamp", "d = instant": "date and instant", "d = t": "date and text", "d < 1": "date and int",
    "n = 1 = b": "parentheses", "n = (m) = (x)": "parentheses", "b = not b": "parentheses", "n is m": "is takes", "n is true": "is takes",
    "n // 1.5 = 1": "whole numbers", "x // 2 = 1": "whole numbers", "t + 1 = 2": "computes with numbers", "-t = 'a'": "minus",
    "d - d = 1": "computes with numbers", "round(x, n) = 1": "literal", "round(x, 99) = 1": "literal",
    "length(n) = 1": "length takes text", "length(raw) = 1": "length takes text", "concat(t, 1) = 'a'": "concat takes text",
    "hour(d) = 0": "hour takes", "year(t) = 1": "year takes", "year(clock) = 1": "year takes", "upper(t, s) = 'a'": "",
    "replace(t, 'a') = 'b'": "", "coalesce(null) is null": "no type", "coalesce(n, 'a') = 1": "int and text",
    "t like 1": "like compares", "n like '1'": "like compares", "t like 'a!' escape '!'": "escape character",
    "t like 'a' escape 'xy'": "one character", "t like 'a' escape ''": "one character", "t ilike 'a' escape 'b'": "escape follows",
    "n = 1e400 or x = 1e400": "double", "n = 170141183460469231731687303715884105728": "127 bits",
    "p = 0.123456789012345678901234567890123456789": "38 digits", "cast(1.5 as integer) = n": "does not fit",
    "cast('x' as bigint) = n": "does not fit", "cast('nan' as double) = x": "NaN", "t = E'\\n'": "not part", "n = 0x10": "not part",
    "select 1": "not part", "drop table rows": "not part", "extract(epoch from d) = 1": "epoch", "d at time zone 'UTC' = d": "not part",
    "(" * 150 + "b" + ")" * 150: "deeply", "not " * 5000 + "b": "deeply", "+".join(["n"] * 5000) + " = 1": "deeply",
    "- " * 5000 + "n = 1": "deeply", "n = 1 and " * 5000 + "b": "32768",
}  # fmt: skip


@pytest.mark.parametrize(("where", "reason"), REFUSED.items(), ids=[where[:40] or "nothing" for where in REFUSED])
def test_what_the_language_does_not_have_is_refused_in_words(where, reason):
    with pytest.raises(QueryError) as refusal:
        parse(where, SCHEMA)

    assert reason in refusal.value.message
    assert refusal.value.hint


def test_a_refusal_points_at_the_place_and_names_the_columns():
    with pytest.raises(QueryError) as refusal:
        parse("n = 1\n  and nope = 2 or b", SCHEMA)

    assert refusal.value.message.splitlines() == ["column 'nope' is not known", "    and nope = 2 or b", "        ^"]
    assert "id, n, m, x" in refusal.value.hint


def test_an_unknown_function_is_answered_with_those_there_are():
    with pytest.raises(QueryError, match="'levenshtein'") as refusal:
        parse("n = 1 and levenshtein(t, s) = 1", SCHEMA)

    assert refusal.value.message.splitlines()[-1].index("^") == len("  n = 1 and ")
    assert "starts_with" in refusal.value.hint


@pytest.mark.parametrize("where", ["round(x, 2) = 2.67", "round(f, 1) = 2.3"])
def test_what_sqlite_cannot_do_as_duckdb_does_is_refused_by_its_writer_alone(duck, where):
    condition = parse(where, SCHEMA)

    assert ids(duck, *to_duckdb(condition)) == [10]
    with pytest.raises(QueryError, match="round a float"):
        to_sqlite(condition, SCHEMA)


def test_a_long_chain_of_terms_works_in_both_engines(duck, lite):
    where = " or ".join(["n=1"] * 2000 + ["b"])

    assert selected(duck, lite, where) == [2, 4, 6, 10]


def test_a_long_list_works_in_both_engines(duck, lite):
    assert selected(duck, lite, f"n in ({', '.join(map(str, range(3, 4000)))})") == [2, 4, 11, 12, 14, 15]
    assert selected(duck, lite, f"p in ({', '.join(map(str, range(3, 3000)))})") == [3, 13, 15]


def test_a_table_s_own_column_comes_before_the_system_s():
    schema = Schema.of({"id": "BIGINT", "Deleted": "VARCHAR"})

    assert parse("deleted = 'no'", schema).columns == {"Deleted"}


def test_values_are_bound_and_names_quoted():
    schema = Schema.of({"id": "BIGINT", 'a"b': "VARCHAR"})
    condition = parse("\"a\"\"b\" = 'x''; drop table rows'", schema)

    assert to_duckdb(condition) == ('("a""b" = ?)', ["x'; drop table rows"])
    assert to_sqlite(condition, schema, lambda name: f"r.{quote(name)}")[0] == '(r."a""b" collate binary = ?)'


def test_text_that_looks_like_a_number_is_compared_as_text_where_sqlite_made_it_one(lite):
    schema = Schema((SchemaColumn("id", "BIGINT"), SchemaColumn("code", "VARCHAR", held_as="numeric text")), ("id",))
    lite.execute("create temp table codes (id bigint, code string)")
    lite.executemany("insert into codes values (?, ?)", [(1, "10"), (2, "9"), (3, "x")])

    sql, parameters = to_sqlite(parse("code = '10' or code < '2'", schema), schema)

    assert lite.execute(f"select id from codes where {sql}", parameters).fetchall() == [(1,)]


def test_decimals_that_sqlite_holds_as_numbers_compare_exactly(lite):
    schema = Schema((SchemaColumn("id", "BIGINT"), SchemaColumn("price", "DECIMAL(10,2)", held_as="numeric")), ("id",))
    lite.execute("create temp table prices (id bigint, price numeric)")
    lite.executemany("insert into prices values (?, ?)", [(1, "0.10"), (2, "2.00"), (3, "10.00"), (4, "0.30")])

    sql, parameters = to_sqlite(parse("price in (0.1, 2) or price + 0.1 = 0.4 and price < 10", schema), schema)

    assert lite.execute(f"select id from prices where {sql}", parameters).fetchall() == [(1,), (2,), (4,)]


@pytest.mark.parametrize(
    "where", ["n = 7", "n between 1 and 7", "s = 'abc'", "s like 'ab%'", "d >= '2024-01-01'", "n in (1, 2)"]
)
def test_ordinary_conditions_use_an_index(lite, where):
    sql, parameters = to_sqlite(parse(where, SCHEMA), SCHEMA)
    for name in "nsd":
        lite.execute(f"create index if not exists by_{name} on rows ({name})")

    plan = " ".join(
        step[-1] for step in lite.execute(f"explain query plan select id from rows where {sql}", parameters)
    )

    assert "SEARCH rows USING INDEX" in plan


def test_upper_lower_and_ilike_follow_duckdb_for_every_character(duck, lite):
    odd = "select chr(code) from (select cast(range as integer) code from range(1, 1114112)) where code not between 55296 and 57343 and (upper(chr(code)) <> chr(code) or lower(chr(code)) <> chr(code))"
    characters = [text for (text,) in duck.execute(odd).fetchall()]

    for character in characters:
        expected = duck.execute("select upper(?), lower(?), ? ilike lower(?)", [character] * 4).fetchone()
        assert (
            lite.execute(
                "select _syncframe_upper(?), _syncframe_lower(?), _syncframe_ilike(?, _syncframe_lower(?))",
                [character] * 4,
            ).fetchone()
            == expected
        )


def test_a_like_of_many_wildcards_does_not_take_for_ever(lite):
    pattern = "%a" * 40 + "%b"

    assert lite.execute("select _syncframe_like(?, ?)", ["a" * 20_000, pattern]).fetchone() == (0,)


def test_conditions_and_queries_are_values():
    condition = parse("n = 1", SCHEMA)

    assert hash(condition) == hash(parse("N=1", SCHEMA)) and isinstance(condition, Condition)
    assert Query() == Query(None, None, 10_000)
    assert condition.tree.args[0] == Column("n", "int", "BIGINT")


NUMBERS = st.one_of(
    st.sampled_from(["n", "m", "p", "q", "x", "f", "null"]),
    st.integers(-(2**70), 2**70).map(str),
    st.decimals(-1000, 1000, places=2).map(lambda value: format(value, "f")),
    st.floats(-1e10, 1e10).map(lambda value: f"{value!r}" if "e" in repr(value) else f"{value!r}e0"),
)
TEXTS = st.one_of(
    st.sampled_from(["t", "s", '"Some Name"', "null"]),
    st.text("aAéÉ%_\\' b", max_size=4).map(lambda text: "'" + text.replace("'", "''") + "'"),
)


def _deeper_numbers(inner):
    return st.one_of(
        st.tuples(inner, st.sampled_from("+-*/%"), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(st.sampled_from(["abs", "ceil", "floor", "round"]), inner).map(
            lambda parts: f"{parts[0]}({parts[1]})"
        ),
        st.tuples(inner, inner).map(lambda parts: f"coalesce({parts[0]}, {parts[1]})"),
        TEXTS.map(lambda text: f"length({text})"),
    )


def _deeper_texts(inner):
    return st.one_of(
        st.tuples(st.sampled_from(["lower", "upper", "trim", "ltrim", "rtrim"]), inner).map(
            lambda parts: f"{parts[0]}({parts[1]})"
        ),
        st.tuples(inner, st.integers(-4, 4), st.integers(-4, 4)).map(
            lambda parts: f"substr({parts[0]}, {parts[1]}, {parts[2]})"
        ),
        st.tuples(inner, inner, inner).map(lambda parts: f"replace({', '.join(parts)})"),
        st.tuples(inner, inner).map(lambda parts: f"concat({', '.join(parts)})"),
    )


DEEP_NUMBERS = st.recursive(NUMBERS, _deeper_numbers, max_leaves=4)
DEEP_TEXTS = st.recursive(TEXTS, _deeper_texts, max_leaves=4)
TERMS = st.one_of(
    st.tuples(DEEP_NUMBERS, st.sampled_from(COMPARISON), DEEP_NUMBERS).map(" ".join),
    st.tuples(DEEP_TEXTS, st.sampled_from(COMPARISON), DEEP_TEXTS).map(" ".join),
    st.tuples(DEEP_TEXTS, st.sampled_from(["like", "not like", "ilike"]), DEEP_TEXTS).map(" ".join),
    st.tuples(DEEP_NUMBERS, DEEP_NUMBERS, DEEP_NUMBERS).map(
        lambda parts: f"{parts[0]} between {parts[1]} and {parts[2]}"
    ),
    st.tuples(DEEP_NUMBERS, DEEP_NUMBERS, DEEP_NUMBERS).map(
        lambda parts: f"{parts[0]} not in ({parts[1]}, {parts[2]})"
    ),
    st.sampled_from(["b", "b is not true", "d > '2024-01-01'", "clock < '11:00'", "at < '2024-03-01'"]),
)
CONDITIONS = st.recursive(
    TERMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda text: f"not ({text})"),
        inner.map(lambda text: f"({text}) is true"),
    ),
    max_leaves=3,
)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(CONDITIONS)
def test_any_condition_selects_the_same_rows_in_both_engines(duck, lite, where):
    try:
        condition = parse(where, SCHEMA)
    except QueryError:
        return
    assert parse(condition.text, SCHEMA) == condition

    here = ids(duck, *to_duckdb(condition))
    there = ids(lite, *to_sqlite(condition, SCHEMA))

    # Both stop where exact numbers are too large, DuckDB by a DECIMAL's 38 digits a little earlier; and it need
    # not compute a remainder by zero, or a product, whose value its optimizer sees not to matter.
    assert here in (there, "raised") or (there == "raised" and any(op in where for op in "%*"))
