"""Conditions in a real PostgreSQL: they select the rows that DuckDB selects, by an index where there is one."""

from __future__ import annotations

import itertools
import math
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import test_odata
import test_query
from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi
from hypothesis import HealthCheck, given, settings
from postgres import Server, database, dropped, started

from syncframe.errors import QueryError
from syncframe.query import FUNCTIONS, Call, Condition, parse, parse_filter, to_duckdb, to_postgres
from syncframe.query.tree import ARITHMETIC, COMPARISONS, walk
from syncframe.query.values import float32
from syncframe.schema import Column, Schema, literal, quote

DECLARED = {
    "DOUBLE": "double precision", "FLOAT": "real", "BLOB": "bytea", "VARCHAR": "text", "ENUM": "mood",
}  # fmt: skip
EXACT = {"DECIMAL", "UUID", "UBIGINT"}


def declared(column: Column) -> str:
    if column.kind == "UBIGINT":
        return "numeric(20,0)"
    return DECLARED.get(column.kind, column.type)


def as_text(schema: Schema) -> Any:
    """What a back end gives for a column: uuids and enums as text."""
    kinds = {column.name: column.kind for column in schema.columns}
    return lambda name: f"{quote(name)}::text" if kinds.get(name) in ("UUID", "ENUM") else quote(name)


class Engines:
    """The same rows in DuckDB and in PostgreSQL."""

    def __init__(self, url: str, schema: Schema, rows: Sequence[dict[str, Any]]) -> None:
        self.schema = schema
        self.duck = duckdb.connect()
        self.duck.execute("set TimeZone = 'UTC'")
        self.duck.execute(
            f"create table rows ({', '.join(f'{quote(column.name)} {column.store}' for column in schema.columns)})"
        )
        self.postgres = dbapi.connect(url, autocommit=True)
        # U+0000, which PostgreSQL cannot hold, is another character in both.
        rows = [
            {name: value.replace("\0", "\1") if isinstance(value, str) else value for name, value in row.items()}
            for row in rows
        ]
        self.duck.executemany(
            f"insert into rows values ({', '.join('?' for _ in schema.columns)})", [list(row.values()) for row in rows]
        )
        self.run("create type mood as enum ('sad', 'ok', 'happy')")
        self.run(
            f"create table rows ({', '.join(f'{quote(column.name)} {declared(column)}' for column in schema.columns)})"
        )
        for row in rows:
            held = [column for column in schema.columns if row[column.name] is not None]
            casts = ", ".join(f"cast(? as {declared(column)})" for column in held)
            values = [str(row[c.name]) if c.kind in EXACT | {"ENUM"} else row[c.name] for c in held]
            self.run(f"insert into rows ({', '.join(quote(c.name) for c in held)}) values ({casts})", values)

    def close(self) -> None:
        self.postgres.close()

    def run(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self.postgres.cursor() as cursor:
            cursor.execute(numbered(sql), list(parameters) or None)
            return cursor.fetchall() if cursor.description else []

    def ids_of(self, condition: Condition) -> tuple[list[int] | str, list[int] | str]:
        """The ids that either selects; "raised" where one raises for a division by zero or an overflow."""
        sql, parameters = to_postgres(condition, as_text(self.schema))
        here: list[int] | str
        there: list[int] | str
        try:
            text, bound = to_duckdb(condition)
            here = [
                id for (id,) in self.duck.execute(f"select id from rows where {text} order by id", bound).fetchall()
            ]
        except (duckdb.InvalidInputException, duckdb.OutOfRangeException, duckdb.ConversionException):
            here = "raised"
        try:
            there = [id for (id,) in self.run(f"select id from rows where {sql} order by id", parameters)]
        except Error as error:
            # 22: data exceptions, and no other
            assert error.sqlstate is not None and error.sqlstate.startswith("22"), (condition.text, sql, str(error))
            there = "raised"
        return here, there

    def ids(self, condition: Condition) -> list[int] | str:
        here, there = self.ids_of(condition)
        assert here == there, (condition.text, to_duckdb(condition), to_postgres(condition, as_text(self.schema)))
        return here


def numbered(sql: str) -> str:
    """Placeholders as PostgreSQL has them; nothing else in a condition is a question mark."""
    first, *others = sql.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(others, 1))


@pytest.fixture(scope="module")
def url(postgres: Server) -> Iterator[str]:
    url = database(postgres)
    yield url
    dropped(postgres, url)


@pytest.fixture(scope="module")
def engines(url: str) -> Iterator[Engines]:
    engines = Engines(url, test_query.SCHEMA, test_query.ROWS)
    yield engines
    engines.close()


@pytest.fixture(scope="module")
def odata(postgres: Server) -> Iterator[Engines]:
    url = database(postgres)
    engines = Engines(url, test_odata.SCHEMA, test_odata.ROWS)
    yield engines
    engines.close()
    dropped(postgres, url)


# The same rows as in DuckDB

EXPECTED = test_query.EXPECTED


@pytest.mark.parametrize("where", EXPECTED)
def test_a_condition_selects_these_rows(engines: Engines, where: str) -> None:
    assert engines.ids(parse(where, engines.schema)) == EXPECTED[where]


def test_what_is_agreed_with_sqlite_is_agreed_here(engines: Engines) -> None:
    """All of them in one test: each is a statement of a few milliseconds."""
    raised = [where for where in test_query.AGREEING if engines.ids(parse(where, engines.schema)) == "raised"]

    assert len(test_query.AGREEING) > 800
    assert raised == ["m % m > 1", "p % m > 1"]


@pytest.mark.parametrize("text", test_odata.SELECTED)
def test_a_filter_selects_these_rows(odata: Engines, text: str) -> None:
    assert odata.ids(parse_filter(text, odata.schema)) == test_odata.SELECTED[text]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(test_query.CONDITIONS)
def test_any_condition_selects_the_same_rows(engines: Engines, where: str) -> None:
    try:
        condition = parse(where, engines.schema)
    except QueryError:
        return

    here, there = engines.ids_of(condition)

    # DuckDB's decimals end at 38 digits, and a remainder by zero need not be computed where nothing hangs on it.
    assert here in (there, "raised") or (there == "raised" and any(op in where for op in "%*"))


def test_every_operator_and_function_is_among_them() -> None:
    conditions = [parse(where, test_query.SCHEMA) for where in [*EXPECTED, *test_query.AGREEING, *REFUSED]]
    conditions += [parse_filter(text, test_odata.SCHEMA) for text in test_odata.SELECTED]

    asked = {node.op for condition in conditions for node in walk(condition.tree) if isinstance(node, Call)}

    logic = {"and", "or", "not", "is null", "is true", "is false", "in", "between", "like", "ilike"}
    widened = {"to decimal", "to float32", "to float", "to timestamp"}
    assert asked == {*COMPARISONS, *ARITHMETIC, *FUNCTIONS, *logic, *widened}


# Doubles, of which PostgreSQL's own arithmetic raises for the largest and the smallest

NUMBERS = Schema.of({"id": "BIGINT", "x": "DOUBLE", "y": "DOUBLE", "f": "FLOAT", "g": "FLOAT", "told": "DOUBLE"})
EDGES = [
    0.0, -0.0, 1.0, -1.0, 0.1, 0.3, -2.5, 7.0, math.inf, -math.inf, 5e-324, -5e-324, 2.2250738585072014e-308, 1e-160, 1e-150,
    1e150, 1e160, 8e307, 9e307, 1.7976931348623157e308, -1.7976931348623157e308, 0.49999999999999994, 4503599627370497.5,
    1e-45, 7e-46, 1.1754943508222875e-38, 3.4028234663852886e38, 1e38,
]  # fmt: skip


def pairs() -> list[tuple[float, float]]:
    """Every edge beside every other, numbers of any bits, and ordinary ones."""
    chance = random.Random(7)
    drawn = [struct.unpack("<2d", chance.randbytes(16)) for _ in range(2000)]
    near = [(chance.uniform(-100, 100), chance.choice([0.1, 2.0, 3.0, chance.uniform(-9, 9)])) for _ in range(1000)]
    return [*itertools.product(EDGES, EDGES), *((a, b) for a, b in drawn if a == a and b == b), *near]


@pytest.fixture(scope="module")
def numbers() -> duckdb.DuckDBPyConnection:
    columns = dict(zip("xy", map(list, zip(*pairs(), strict=True)), strict=True))
    single = {name: [float32(value) for value in columns[wide]] for name, wide in (("f", "x"), ("g", "y"))}
    table = pa.table(columns | {name: pa.array(values, pa.float32()) for name, values in single.items()})
    duck = duckdb.connect()
    duck.register("given", table)
    duck.execute("create table numbers as from given")
    return duck


@pytest.mark.parametrize(
    "number",
    [
        *(f"x {op} y" for op in "+-*/%"), *(f"f {op} g" for op in "+-*/%"), "x * f", "-x", "abs(f)", "ceil(x)", "floor(f)",
        "round(x)", "round(f)", "round(x, -1)", "round(x, -3)", "round(f, -2)", "round_even(x, 0)", "round_even(f, 0)",
        "x * y + f / g - x", "(x / y) % 0.1e0",
    ],
)  # fmt: skip
def test_a_double_is_computed_to_the_last_bit(url: str, numbers: duckdb.DuckDBPyConnection, number: str) -> None:
    # In syncframe -0.0 is 0.0, and NaN is NULL.
    plain = number.replace("/ y", "/ (y + 0)").replace("/ g", "/ (g + 0)")
    told = numbers.sql(f"select *, nullif(cast({plain} as DOUBLE), 'nan') as told from numbers").to_arrow_table()
    assert len(told) > 3000 and len(set(told["told"].to_pylist())) > 100

    sql, parameters = to_postgres(parse(f"({number}) is distinct from told", NUMBERS))
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("numbers", told.combine_chunks(), mode="replace")
        cursor.execute(f"select x, y, told from numbers where {numbered(sql)}", parameters or None)
        wrong = cursor.fetchall()

    assert wrong == []


def test_nan_is_null(new_database: Any) -> None:
    schema = Schema.of({"id": "BIGINT", "x": "DOUBLE", "f": "FLOAT"})
    engines = Engines(new_database(), schema, [{"id": 1, "x": 1.0, "f": 2.0}, {"id": 2, "x": None, "f": None}])
    engines.run("insert into rows values (3, 'NaN', 'NaN')")

    def ids(where: str) -> list[int]:
        sql, parameters = to_postgres(parse(where, schema))
        return [id for (id,) in engines.run(f"select id from rows where {sql} order by id", parameters)]

    for where in ("x > 0", "x >= 1", "x <> 7", "0 < x", "f > 0", "x = f or x < f", "f in (2, 3)", "x between 0 and 9"):
        assert ids(where) == [1], where
    for where in (
        "not x > 9",
        "not x <= 0",
        "not (x = 7 or f <> 2)",
        "not x in (7, 8)",
        "(x < 9) = true",
        "x is not null",
    ):
        assert ids(where) == [1], where
    assert ids("x is null") == ids("x is not distinct from null") == ids("x + 1 is null") == [2, 3]
    assert ids("coalesce(x, 5) = 5") == ids("x is distinct from 1") == [2, 3]
    engines.close()


# Exact numbers


def test_whole_numbers_of_more_than_64_bits_and_their_columns(new_database: Any) -> None:
    schema = Schema.of({"id": "BIGINT", "big": "UBIGINT", "small": "SMALLINT"})
    rows = [
        {"id": 1, "big": 2**64 - 1, "small": 7},
        {"id": 2, "big": 2**63, "small": -7},
        {"id": 3, "big": 5, "small": None},
    ]
    engines = Engines(new_database(), schema, rows)

    assert engines.ids(parse("big = 18446744073709551615", schema)) == [1]
    assert engines.ids(parse("big in (9223372036854775808, 5, null)", schema)) == [2, 3]
    assert engines.ids(parse("big + big > 18446744073709551616", schema)) == [1]
    assert engines.ids(parse("small < 100000 and big % 2 = small % 2", schema)) == [1]
    assert engines.ids(parse("big * 1.0 = 18446744073709551615.0", schema)) == [1]
    assert engines.ids(parse("big = 18446744073709551615e0", schema)) == [1]
    engines.close()


# Texts


def test_upper_and_lower_follow_duckdb_for_every_character(url: str) -> None:
    duck = duckdb.connect()
    odd = duck.sql(
        """
        select code as id, chr(code) as t, upper(chr(code)) as u, lower(chr(code)) as l
        from (select cast(range as INTEGER) as code from range(1, 1114112))
        where code not between 55296 and 57343 and (upper(chr(code)) <> chr(code) or lower(chr(code)) <> chr(code))
        """
    ).to_arrow_table()
    schema = Schema.of({"id": "INTEGER", "t": "VARCHAR", "u": "VARCHAR", "l": "VARCHAR"})
    wrong = parse(
        "upper(t) <> u or lower(t) <> l or not t ilike l or not l ilike concat(t, '%') or upper(concat('ab', t)) <> concat('AB', u)",
        schema,
    )

    sql, parameters = to_postgres(wrong)
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("letters", odd.combine_chunks(), mode="create")
        cursor.execute(f"select t from letters where {numbered(sql)}", parameters)
        found = cursor.fetchall()

    assert len(odd) > 2500
    assert found == []


NUL = {
    "t = 'a\0b'": [], "not t = 'a\0b' and id < 4": [1, 2, 3], "t <> 'a\0b' and id < 4": [1, 2, 3], "'a\0b' <> t and id < 4": [1, 2, 3],
    "t in ('a\0b', 'abc')": [2], "t in ('\0')": [], "not t in ('\0') and id < 4": [1, 2, 3], "(t in ('\0')) is null and id < 17": [16],
    "t < 'a\0' and id < 4": [1, 3], "t <= 'abc\0' and id < 4": [1, 2, 3], "'abc\0' > t and id < 4": [1, 2, 3], "t > 'ab\0c' and id < 4": [2],
    "t >= 'abc\0' and id < 4": [], "t between 'abc' and 'abc\0' and id < 4": [2], "t is distinct from '\0' and id in (1, 16)": [1, 16],
    "t is not distinct from '\0'": [], "t like '\0%'": [], "not t like '%\0' and id < 4": [1, 2, 3], "t ilike '\0%'": [],
    "t like 'a\0%%' escape '\0'": [], "t like '%\0%' escape '\0'": [6],
}  # fmt: skip


@pytest.mark.parametrize("where", NUL, ids=lambda where: where.replace("\0", "0"))
def test_a_literal_with_the_character_that_postgresql_has_not(engines: Engines, where: str) -> None:
    assert engines.ids(parse(where.replace("\0", "\x00" if False else chr(0)), engines.schema)) == NUL[where]


REFUSED = {
    "round(x, 2) = 2.67": "round a float", "round(f, 1) = 2.3": "round a float",
    "strpos(t, '\0') = 0": "U+0000", "concat(t, '\0') = 'a'": "U+0000", "replace(t, '\0', '') = t": "U+0000",
    "coalesce(t, '\0') = t": "U+0000", "'\0' = 'a\0'": "U+0000", "t in (s, '\0')": "U+0000", "starts_with(t, 'a\0')": "U+0000",
}  # fmt: skip


@pytest.mark.parametrize("where", REFUSED, ids=lambda where: where.replace("\0", "0"))
def test_what_postgresql_cannot_do_as_duckdb_does_is_refused(where: str) -> None:
    condition = parse(where.replace("\0", chr(0)), test_query.SCHEMA)

    with pytest.raises(QueryError) as refusal:
        to_postgres(condition)

    assert REFUSED[where] in refusal.value.message
    assert refusal.value.hint


def test_what_raises_is_a_division_by_zero_alone() -> None:
    raised = [where for where, expected in EXPECTED.items() if expected == "raised"]

    assert raised == ["n // 0 = 1", "n % 0 = 1"]


# Columns, values and their number


def test_an_enum_is_compared_as_text(new_database: Any) -> None:
    schema = Schema.of({"id": "BIGINT", "mood": "ENUM('sad', 'ok', 'happy')"})
    engines = Engines(
        new_database(), schema, [{"id": 1, "mood": "sad"}, {"id": 2, "mood": "happy"}, {"id": 3, "mood": None}]
    )

    assert engines.ids(parse("mood = 'sad'", schema)) == [1]
    assert engines.ids(parse("mood < 'i'", schema)) == [2]
    assert engines.ids(parse("mood in ('happy', 'angry') or upper(mood) like 'S%'", schema)) == [1, 2]
    engines.close()


def test_years_before_the_first_and_without_an_end(new_database: Any) -> None:
    schema = Schema.of({"id": "BIGINT", "d": "DATE", "at": "TIMESTAMP", "instant": "TIMESTAMPTZ"})
    engines = Engines(new_database(), schema, [{"id": 9, "d": None, "at": None, "instant": None}])
    for id, text in enumerate(("0044-03-15 BC", "0001-12-31 BC", "infinity", "-infinity", "20000-01-01")):
        engines.run(f"insert into rows values ({id}, '{text}', '{text}', '{text}')")
        duck = f"'{text.replace(' BC', ' (BC)')}'::DATE"
        engines.duck.execute(
            f"insert into rows values ({id}, {duck}, {duck}::TIMESTAMP, {duck}::TIMESTAMP::TIMESTAMPTZ)"
        )

    for name in ("d", '"at"', "instant"):
        assert engines.ids(parse(f"year({name}) = -43", schema)) == [0]
        assert engines.ids(parse(f"year({name}) <= 0", schema)) == [0, 1]
        assert engines.ids(parse(f"year({name}) is null or year({name}) = 20000", schema)) == [2, 3, 4, 9]
        assert engines.ids(parse(f"month({name}) is null", schema)) == [2, 3, 9]
        assert engines.ids(parse(f"{name} < '0001-01-01'", schema)) == [0, 1, 3]
        assert engines.ids(parse(f"{name} > '9999-12-31'", schema)) == [2, 4]
    engines.close()


def test_the_parts_of_an_instant_are_those_of_utc_whatever_the_session_has(engines: Engines) -> None:
    engines.run("set time zone 'Asia/Tokyo'")
    try:
        assert engines.ids(parse("year(instant) = 2024 and month(instant) = 2", engines.schema)) == [17]
        assert engines.ids(parse("hour(instant) = 23", engines.schema)) == [17, 20, 21]
        assert engines.ids(parse("instant >= '2024-03-01'", engines.schema)) == [19, 21]
    finally:
        engines.run("set time zone 'UTC'")


def test_long_chains_and_lists(engines: Engines) -> None:
    assert engines.ids(parse(" or ".join(["n=1"] * 2000 + ["b"]), engines.schema)) == [2, 4, 6, 10]
    assert engines.ids(parse(f"n in ({', '.join(map(str, range(3, 4000)))})", engines.schema)) == [2, 4, 11, 12, 14, 15]
    assert engines.ids(parse(f"p in ({', '.join(map(str, range(3, 3000)))})", engines.schema)) == [3, 13, 15]
    assert engines.ids(parse(f"t in ({', '.join(repr(f'{n}') for n in range(3000))}, 'abc')", engines.schema)) == [
        2,
        13,
    ]
    days = ", ".join(f"'{1000 + n}-03-01'" for n in range(1500))
    assert engines.ids(parse(f"d in ({days})", engines.schema)) == [19]
    assert engines.ids(parse(f"not d in ({days})", engines.schema)) == [17, 18, 20, 21]


@pytest.mark.parametrize(
    ("inner", "nested", "levels"),
    [
        ("b", "not (<>)", 24), ("b", "(b = (<>))", 12), ("x", "(1.5e0 - <>)", 20), ("x", "(<> / 2 % 7)", 20), ("f", "round(<> + f)", 20),
        ("t", "lower(concat(t, <>))", 12), ("t", "substr(<>, -9)", 24), ("t", "replace(<>, 'a', t)", 8),
    ],
)  # fmt: skip
def test_what_is_nested_deeply_is_written_once_a_level(engines: Engines, inner: str, nested: str, levels: int) -> None:
    def text(levels: int) -> str:
        whole = inner
        for _ in range(levels):
            whole = nested.replace("<>", whole)
        return {"b": whole, "x": f"{whole} <> 1", "f": f"{whole} <> 1", "t": f"{whole} <> ''"}[inner]

    half, whole = (parse(text(count), engines.schema) for count in (levels // 2, levels))

    assert engines.ids(whole) != []
    assert len(to_postgres(whole)[0]) < 2.5 * len(to_postgres(half)[0])


def test_values_are_bound_and_names_quoted() -> None:
    schema = Schema.of({"id": "BIGINT", 'a"b{0}': "VARCHAR", "x": "DOUBLE"})

    sql, parameters = to_postgres(parse("\"a\"\"b{0}\" = 'x''; drop table rows'", schema))
    assert sql == ('("a""b{0}" = cast(? as text) and coalesce("a""b{0}" collate "C" = cast(? as text), true))')
    assert parameters == ["x'; drop table rows"] * 2
    assert to_postgres(parse('substr("a""b{0}", -1) = \'{1}\'', schema))[1] == [-1, "{1}"]
    assert to_postgres(parse("id in (1, 2) and x > 1.5", schema), lambda name: f"r.{quote(name)}") == (
        '((r."id" = any(cast(? as bigint[]))) and (r."x" > cast(? as double precision) and r."x" < \'NaN\'))',
        [[1, 2], 1.5],
    )


# A database that sorts by a language, and indexes

LANGUAGE = "en_US.UTF-8"


@pytest.fixture(scope="module")
def sorted_by_language() -> Iterator[str]:
    """The URL of a database in which 'a' < 'B' and é is a letter, on a server of its own."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="syncframe-") as name:
        found = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout.split()
        if "en_US.utf8" not in found and LANGUAGE not in found:
            folder = Path(name)
            made = shutil.which("localedef") and subprocess.run(
                ["localedef", "--no-archive", "-i", "en_US", "-f", "UTF-8", folder / LANGUAGE],
                capture_output=True,
                check=False,
            )
            if not made or not (folder / LANGUAGE).exists():
                pytest.skip("the machine has no locale en_US, nor can it make one")
            folder.chmod(0o755)
            patch.setenv("LOCPATH", str(folder))
        with started(locale=LANGUAGE) as server:
            yield database(server)


def test_texts_are_compared_by_bytes_where_the_database_sorts_by_a_language(sorted_by_language: str) -> None:
    engines = Engines(sorted_by_language, test_query.SCHEMA, test_query.ROWS)
    assert engines.run("select 'a' < 'B'") == [(True,)]

    for where in [
        *EXPECTED,
        *(where for where in test_query.AGREEING if where.startswith(("t ", "starts", "ends", "cont"))),
    ]:
        engines.ids(parse(where, engines.schema))
    assert engines.ids(
        parse("t < 'B' and concat(t, s) < 'a' and lower(s) >= 'A' and t between 'A' and 'B'", engines.schema)
    ) == [3]
    assert engines.ids(parse("'a' < 'B'", engines.schema)) == []
    engines.close()


INDEXED = [
    "n = 7", "7 = n", "m = 7", "n < 7", "n between 7 and 9", "n in (1, 2, 3)", "n is not distinct from 7", "n is null", "x = 7", "x < 7",
    "x > 74000", "7 > x", "x between 7e0 and 9e0", "x in (7, 9)", "f > 7142", "p = 7", "p between 7.5 and 9", "p in (1, 2.5)", "b", "b = true",
    "d = '2001-01-01'", "d in ('2001-01-01', '2002-01-01')", "instant > '2000-02-03' and instant < '2000-02-04'", '"at" < \'2000-01-02\'',
    "clock = '10:00'", "t = 'Row 7'", "t in ('Row 7', 'Row 8')", "s < 'Row 10001'", "s like 'Row 77%'", "starts_with(s, 'Row 77')",
    "u = 'Row 7'", "u like 'Row 77%'", "starts_with(u, 'Row 77')", "n = 1 or n = 5 or d = '2001-01-01'", "n = 7 and t ilike 'row%'",
]  # fmt: skip


@pytest.fixture(scope="module")
def indexed(sorted_by_language: str) -> Iterator[Any]:
    """50,000 rows: `t` with an ordinary index, `s` with one by bytes, `u` with one for patterns."""
    with dbapi.connect(sorted_by_language, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            """
            create table many as
            select g::bigint as id, g::bigint as n, (g % 1000)::integer as m, g * 1.5::float8 as x, (g / 7.0)::real as f,
                (g / 100.0)::numeric(20,2) as p, g = 7 as b, date '2000-01-01' + g::integer as d,
                timestamp '2000-01-01' + g * interval '1 minute' as "at",
                timestamptz '2000-01-01Z' + g * interval '1 minute' as instant, time '00:00' + g * interval '1 second' as clock,
                'Row ' || g as t, 'Row ' || g as s, 'Row ' || g as u
            from generate_series(1, 50000) as g
            """
        )
        for name in (
            "n",
            "m",
            "x",
            "f",
            "p",
            "b",
            "d",
            '"at"',
            "instant",
            "clock",
            "t",
            's collate "C"',
            "u text_pattern_ops",
        ):
            cursor.execute(f"create index on many ({name})")
        cursor.execute("analyze many")
        cursor.execute(
            """
            create function plan(query text) returns setof text language plpgsql
            as $$ begin return query execute 'explain ' || query; end $$
            """
        )
        yield cursor


@pytest.mark.parametrize("where", INDEXED)
def test_ordinary_conditions_use_an_index(indexed: Any, where: str) -> None:
    schema = Schema.of(test_query.TYPES | {"u": "VARCHAR"})
    sql, parameters = to_postgres(parse(where, schema))
    for value in parameters:
        sql = sql.replace("?", _written(value), 1)

    indexed.execute(f"select * from plan({literal(f'select id from many where {sql}')})")
    plan = " ".join(line for (line,) in indexed.fetchall())

    assert "Index Cond" in plan, plan


def _written(value: object) -> str:
    if isinstance(value, list):
        return f"array[{', '.join(map(_written, value))}]"
    return literal(str(value))
