"""Every type of PostgreSQL comes here and goes back exactly, or is refused naming the row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres import Server, execute

import syncframe as sf
from syncframe.errors import BackendError, SchemaError

# A column of each type, and SQL that makes a random value of it from the number `i`.
TYPES = {
    "b": ("boolean", "random() < 0.5"),
    "i2": ("smallint", "(random() * 65535 - 32768)::int::smallint"),
    "i4": ("integer", "(random() * 4294967295 - 2147483648)::bigint::integer"),
    "i8": ("bigint", "(array[9223372036854775807, -9223372036854775808, 9007199254740993, i])[1 + i % 4]"),
    "f4": ("real", "(random() * power(10, i % 70 - 35))::real"),
    "f8": ("double precision", "case when i % 50 = 0 then 'infinity' else random() * power(10.0, i % 600 - 300) end"),
    "n20": ("numeric(20,2)", "(random() * 1e17)::numeric(20,2) * sign(random() - 0.5)::numeric"),
    "n38": ("numeric(38,10)", "random()::numeric * 1e28 - 5e27"),
    "n": ("numeric", "round((random() * 1e10)::numeric, i % 10)"),
    "t": ("text", "substr(chr(i % 50000 + 1) || repeat(E'\\\\Ä \\'\"\\n', i % 5) || md5(i::text), 1, i % 40)"),
    "v": ("varchar(12)", "substr(md5(i::text), 1, i % 13)"),
    "c": ("char(5)", "substr(md5(i::text), 1, i % 6)"),
    "by": ("bytea", "decode(repeat(md5(random()::text), i % 9), 'hex')"),
    "d": ("date", "date '0001-01-01' + (random() * 3652058)::int"),
    "ti": ("time", "time '00:00' + random() * interval '86399.999999 seconds'"),
    "tz": ("timetz", "(time '00:00' + random() * interval '86399 seconds')::timetz"),
    "ts": ("timestamp", "timestamp '0001-01-01' + random() * interval '3652058 days'"),
    "tsz": ("timestamptz", "timestamptz '0001-01-02Z' + random() * interval '3652056 days'"),
    "iv": ("interval", "random() * interval '1000 months 400 days 5 hours' - interval '17 months 1.000001 seconds'"),
    "u": ("uuid", "gen_random_uuid()"),
    "j": ("json", 'format(\'{"a" : [%s, "x\\u00e4", null ] }\', i)::json'),
    "jb": (
        "jsonb",
        "jsonb_build_object('n', 12345678901234567890.5, 't', chr(i % 50000 + 1), 'l', jsonb_build_array(i))",
    ),
    "ia": ("integer[]", "case i % 5 when 0 then '{}' when 1 then array[i, null, -i] else array[i] end"),
    "ta": ("text[]", "array['a,\"', E'\\\\', null, '', md5(i::text)]"),
    "da": ("timestamptz[]", "array[timestamptz '2013-01-01Z' + i * interval '1 second']"),
    "aa": ("bigint[]", "array[[9007199254740993, i], [3, 4]]"),
    "e": ("mood", "(enum_range(null::mood))[1 + i % 3]"),
    "p": ("pair", "row(i, 'x,' || i)::pair"),
    "o": ("code", "'c' || (i % 10)"),
    "r": ("int4range", "int4range(i, i + i % 7)"),
    "ip": ("inet", "('10.0.' || (i % 255) || '.1/24')::inet"),
    "bi": ("bit(3)", "(i % 8)::bit(3)"),
    "mo": ("money", "(i * 1.37)::numeric::money"),
    "ts_": ("tsvector", "to_tsvector('simple', 'a fat cat ' || i)"),
    "po": ("point", "point(i, random())"),
    "xx": ("xid8", "(i::text)::xid8"),
}
MADE = """
    create type mood as enum ('sad', 'it''s ok', 'Äh');
    create type pair as (a bigint, b text);
    create domain code as varchar(4) not null check (value like 'c%')
"""


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    with postgres.database() as url:
        columns = ", ".join(f"{name} {declared}" for name, (declared, _) in TYPES.items())
        execute(url, *MADE.split(";"), f"create table held (id bigint primary key, {columns})")
        execute(url, "create table again (like held including all)")
        yield url


def filled(url: str, rows: int) -> None:
    """Random values, every fifth of them NULL where it may be."""
    values = [
        made if name == "o" else f"case when (i + {at}) % 5 <> 0 then {made} end"
        for at, (name, (_, made)) in enumerate(TYPES.items())
    ]
    execute(url, f"insert into held select i, {', '.join(values)} from generate_series(1, {rows}) as i")


def check_exact(url: str, rows: int) -> None:
    filled(url, rows)
    with sf.connect(url, store=":memory:") as ctx:
        ctx["held"].pull(progress=False)
        ctx["again"].pull(progress=False)
        frame = ctx["held"].frame()
        assert not ctx["held"].stage(frame)
        ctx["again"].stage(frame.reset_index(), base="current")
        result = ctx.push(progress=False)
        assert result.counts == {"accepted": rows, "conflicts": 0, "rejected": 0}
    # The database compares its own texts: of a number without scale its value counts, not its zeros.
    same = " and ".join(
        "a.n is not distinct from h.n" if name == "n" else f"a.{name}::text is not distinct from h.{name}::text"
        for name in TYPES
    )
    wrong = {
        name: value
        for name in TYPES
        if (
            value := _first(
                url,
                f"select h.{name}::text, a.{name}::text from held h join again a using (id) where h.{name}::text is distinct from a.{name}::text",
            )
        )
        and name != "n"
    }
    assert wrong == {}
    assert _first(url, f"select count(*) from held as h join again as a using (id) where {same}") == (rows,)


def _first(url: str, sql: str) -> tuple[object, ...] | None:
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


def test_every_type_comes_and_goes_back_exactly(url):
    check_exact(url, 300)


@pytest.mark.full
def test_every_type_comes_and_goes_back_exactly_in_ten_thousand_rows(url):
    check_exact(url, 10_000)


@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        ("numeric(20,2)", "'NaN'", "numeric|DECIMAL"),
        ("numeric", "1e-12", "after the point"),
        ("numeric", "1e30", "before the point"),
        ("timestamptz", "'infinity'", "1 to 9999"),
        ("timestamp", "'-infinity'", "1 to 9999"),
        ("timestamp", "'4714-11-24 BC'", "1 to 9999"),
        ("date", "'infinity'", "1 to 9999"),
        ("date", "'10000-01-01'", "1 to 9999"),
        ("time", "'24:00'", "24:00"),
        ("integer[]", "'[0:1]={1,2}'", "first place"),
    ],
)
def test_a_value_that_cannot_be_kept_is_refused_naming_row_and_column(postgres, declared, value, words):
    with postgres.database() as url:
        execute(url, f"create table t (id bigint primary key, x {declared})", "insert into t values (1, null)")
        execute(url, f"insert into t values (7, {value})")
        with sf.connect(url, store=":memory:") as ctx:
            with pytest.raises(BackendError, match=words) as caught:
                ctx["t"].pull(progress=False)
            assert "{'id': 7}" in caught.value.message
            assert "'x'" in caught.value.message

            text = sf.connect(url, store=":memory:", schema={"t": {"x": "VARCHAR"}})
            text["t"].pull(progress=False)
            assert text["t"].get(7)["x"]
            text.close()


def test_a_number_of_more_than_38_digits_is_refused_with_what_to_do(postgres):
    with postgres.database() as url:
        execute(url, "create table t (id bigint primary key, x numeric(50,10))")
        with sf.connect(url, store=":memory:") as ctx, pytest.raises(SchemaError, match="numeric") as caught:
            ctx["t"].pull(progress=False)
        assert "schema=" in caught.value.hint


def test_a_text_with_a_nul_character_is_refused_when_it_is_staged(postgres):
    with postgres.database() as url:
        execute(url, "create table t (id bigint primary key, x text)", "insert into t values (1, 'a')")
        with sf.connect(url, store=":memory:") as ctx:
            ctx["t"].pull(progress=False)
            frame = ctx["t"].frame()
            frame.loc[1, "x"] = "a\x00b"
            with pytest.raises(SchemaError, match=r"U\+0000"):
                ctx["t"].stage(frame)
            assert len(ctx.pending) == 0
