"""The protocol as data: values, ids, tags and dates, each to the wire and back."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from syncframe.errors import KeyColumnError, SchemaError
from syncframe.schema import Column, Schema
from syncframe.wire import (
    Wire,
    cells_in,
    cells_out,
    dumps,
    encoded_id,
    etag,
    http_date,
    is_plain_id,
    loads,
    parse_http_date,
    version_of,
)

UTC = dt.UTC
ID_FORM = r"[a-zA-Z0-9][a-zA-Z0-9_.|:-]{0,126}"


def page(schema, *rows, **system):
    """Rows of a page; system columns are the same in all of them."""
    table = pa.Table.from_pylist(list(rows), schema=pa.schema([(c.name, c.arrow) for c in schema.columns]))
    held = {"version": "v1", "deleted": False, "created": None, "updated": None} | system
    types = {"version": pa.string(), "deleted": pa.bool_()}
    for name, value in held.items():
        cells = pa.array([value] * len(rows), types.get(name, pa.timestamp("us", "UTC")))
        table = table.append_column(f"_syncframe_{name}", cells)
    return table


# Values

CASES = [
    ("BOOLEAN", True, True),
    ("SMALLINT", -5, -5),
    ("BIGINT", 2**53, 2**53),
    ("BIGINT", 2**53 + 1, "9007199254740993"),
    ("BIGINT", -(2**63), "-9223372036854775808"),
    ("UBIGINT", 2**64 - 1, "18446744073709551615"),
    ("DOUBLE", 0.1, 0.1),
    ("DOUBLE", 1e300, 1e300),
    ("DOUBLE", math.inf, "INF"),
    ("DOUBLE", -math.inf, "-INF"),
    ("DECIMAL(10,2)", Decimal("1.50"), 1.5),
    ("DECIMAL(10,2)", Decimal("7.00"), 7),
    ("DECIMAL(38,10)", Decimal("123456789012.1234"), "123456789012.1234000000"),
    ("VARCHAR", "é'\"\n\x00", "é'\"\n\x00"),
    ("JSON", '{"a": 1}', '{"a": 1}'),
    ("BLOB", b"\x00\xff", "AP8="),
    ("DATE", dt.date(1, 2, 3), "0001-02-03"),
    ("TIME", dt.time(1, 2, 3), "01:02:03.000"),
    ("TIME", dt.time(1, 2, 3, 4), "01:02:03.000004"),
    ("TIMESTAMP", dt.datetime(2013, 1, 1, 10, 0, 0, 5_000), "2013-01-01T10:00:00.005"),
    ("TIMESTAMPTZ", dt.datetime(2013, 1, 1, 10, tzinfo=UTC), "2013-01-01T10:00:00.000Z"),
    ("TIMESTAMPTZ", dt.datetime(2013, 1, 1, 10, 0, 0, 1, tzinfo=UTC), "2013-01-01T10:00:00.000001Z"),
    ("UUID", "0123abcd-0000-0000-0000-00000000000f", "0123abcd-0000-0000-0000-00000000000f"),
]


@pytest.mark.parametrize(("kind", "value", "cell"), CASES, ids=lambda case: str(case)[:30])
def test_a_value_goes_out_as_json_and_comes_back_as_it_was(kind, value, cell):
    column = Column("c", kind)

    (out, nothing) = cells_out(pa.array([value, None], column.arrow), column)
    back = cells_in(loads(dumps([out, None])), column)

    assert (out, type(out), nothing) == (cell, type(cell), None)
    assert back.to_pylist() == [value, None]


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        ("BIGINT", 5.0, 5),
        ("BIGINT", "5", 5),
        ("DOUBLE", 5, 5.0),
        ("DOUBLE", "0.5", 0.5),
        ("DOUBLE", "Infinity", math.inf),
        ("DECIMAL(10,2)", 0.1, Decimal("0.10")),
        ("DECIMAL(10,2)", "0.1", Decimal("0.10")),
        ("JSON", {"a": [1, None]}, '{"a":[1,null]}'),
        ("DATE", "2013-01-02T00:00:00.000Z", dt.date(2013, 1, 2)),
        ("TIME", "01:02:03.1230000", dt.time(1, 2, 3, 123_000)),
        ("TIMESTAMP", "2013-01-01T10:00:00.1234560", dt.datetime(2013, 1, 1, 10, 0, 0, 123_456)),
        ("TIMESTAMP", "2013-01-01T10:00:00Z", dt.datetime(2013, 1, 1, 10)),
        ("TIMESTAMPTZ", "2013-01-01T12:00:00+02:00", dt.datetime(2013, 1, 1, 10, tzinfo=UTC)),
        ("UUID", "0123ABCD-0000-0000-0000-00000000000F", "0123abcd-0000-0000-0000-00000000000f"),
    ],
)
def test_what_other_servers_write_is_read(kind, cell, value):
    assert cells_in([cell], Column("c", kind)).to_pylist() == [value]


@pytest.mark.parametrize(
    ("kind", "cell", "words"),
    [
        ("BOOLEAN", "yes", "'yes' is a JSON string"),
        ("BOOLEAN", 1, "'1' is a JSON number"),
        ("BIGINT", True, "'True' is a JSON boolean"),
        ("SMALLINT", 40_000, "'40000' is no SMALLINT"),
        ("BIGINT", 1.5, "'1.5' is no BIGINT"),
        ("BIGINT", 2**64, "is no BIGINT"),
        ("BIGINT", 1e300, "is no BIGINT"),
        ("DOUBLE", 2**53 + 1, "'9007199254740993' is no DOUBLE"),
        ("DOUBLE", "nan", "'nan' is no DOUBLE"),
        ("DOUBLE", " 1", "' 1' is no DOUBLE"),
        ("DECIMAL(10,2)", "0.001", "'0.001' is no DECIMAL(10,2)"),
        ("DECIMAL(4,2)", 100, "'100' is no DECIMAL(4,2)"),
        ("DECIMAL(4,2)", "x", "'x' is no DECIMAL(4,2)"),
        ("DECIMAL(4,2)", "1_0", "'1_0' is no DECIMAL(4,2)"),
        ("DECIMAL(4,2)", "NaN", "'NaN' is no DECIMAL(4,2)"),
        # Arrow itself crashes on the first, and Python never ends with the second.
        ("DECIMAL(4,2)", Decimal("1e-99999999"), "is no DECIMAL(4,2)"),
        ("BIGINT", Decimal("1e99999999"), "is no BIGINT"),
        ("VARCHAR", 5, "'5' is a JSON number"),
        ("VARCHAR", ["a"], "is a JSON array"),
        ("VARCHAR", "\ud800", "is no VARCHAR"),
        ("BLOB", "%%", "'%%' is no BLOB"),
        ("DATE", "2013-02-30", "'2013-02-30' is no DATE"),
        ("DATE", "2013-01-02T10:00:00.000Z", "is no DATE"),
        ("TIMESTAMP", "garbage", "'garbage' is no TIMESTAMP"),
        ("TIMESTAMP", "2013-01-01T10:00:00+02:00", "is no TIMESTAMP"),
        ("DATE", "0000-01-01", "is no DATE"),
        ("TIMESTAMP", "10000-01-01", "is no TIMESTAMP"),
        ("TIMESTAMPTZ", "9999-12-31T23:59:59-14:00", "is no TIMESTAMPTZ"),
        ("TIMESTAMPTZ", "0001-01-01T00:00:00+14:00", "is no TIMESTAMPTZ"),
        ("UUID", "x", "'x' is no UUID"),
    ],
)
def test_what_would_have_to_be_changed_is_refused_with_the_value(kind, cell, words):
    with pytest.raises(ValueError, match=r".") as caught:
        cells_in([None, cell], Column("c", kind))

    assert words in str(caught.value)


def test_a_label_that_an_enum_has_not_is_refused():
    column = Column("c", "ENUM", labels=("a", "b"))

    assert cells_in(["a", None], column).to_pylist() == ["a", None]
    with pytest.raises(ValueError, match="'c' is no ENUM"):
        cells_in(["c"], column)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", '{"a":1,}', "'a'", "", b"\xff", "[" * 100_000])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r".*"):
        loads(text)


def test_decimals_in_objects_are_numbers_with_all_their_digits():
    assert dumps({"a": [Decimal("1.10"), 1], "é": None}) == '{"a":[1.10,1],"é":null}'.encode()
    assert cells_in([{"x": Decimal("1.10")}], Column("c", "JSON")).to_pylist() == ['{"x":1.10}']


def test_numbers_with_a_point_are_exact_where_the_schema_has_decimals():
    schema = Schema.of({"id": "VARCHAR", "d": "DECIMAL(38,20)"})

    assert loads('{"d": 1234567.89012345678901234567}', schema)["d"] == Decimal("1234567.89012345678901234567")
    assert loads('{"d": 0.5}')["d"] == 0.5


# Ids


def test_every_text_has_an_id_of_its_own_that_every_client_takes():
    schema = Schema.of({"id": "VARCHAR", "n": "BIGINT"})
    letters = ["a", "x", "_", "-", "4", "1", "A", "é", "|", " ", "7", "8", "."]
    texts = ["".join(parts) for size in range(5) for parts in itertools.product(letters, repeat=size)]

    ids = Wire(schema).ids(pa.table({"id": texts}))

    assert len(set(ids)) == len(texts) == 30_941
    assert pc.all(pc.match_substring_regex(pa.array(ids), f"^{ID_FORM}$")).as_py()
    wire = Wire(schema)
    assert [wire.key_of(id_) for id_ in ids[::7]] == [(text,) for text in texts[::7]]


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ("UA-1545-EWR-2013010110", "UA-1545-EWR-2013010110"),
        ("a|b", "a|b"),
        ("a_b", "a_b"),
        ("A b", "x_41_20b"),
        ("x_41_20b", "x_78_5f41_5f20b"),  # it would be taken for the one above
        ("-a", "x-a"),
        ("x-a", "x_78-a"),
        ("é", "x_c3_a9"),
        ("", "x_"),
    ],
)
def test_a_text_that_fits_is_its_own_id_and_another_is_spelt_out(text, id_):
    schema = Schema.of({"id": "VARCHAR"})

    assert Wire(schema).id_of((text,)) == id_
    assert Wire(schema).key_of(id_) == (text,)
    assert is_plain_id(text) == (text == id_)


@pytest.mark.parametrize(
    ("types", "key", "id_"),
    [
        ({"n": "BIGINT"}, (7,), "7"),
        ({"n": "BIGINT"}, (-5,), "x-5"),
        ({"u": "UUID"}, ("0123abcd-0000-0000-0000-00000000000f",), "0123abcd-0000-0000-0000-00000000000f"),
        ({"d": "DATE"}, (dt.date(2013, 1, 2),), "2013-01-02"),
        ({"b": "BOOLEAN"}, (True,), "true"),
        ({"m": "DECIMAL(6,2)"}, (Decimal("1.50"),), "1.50"),
        ({"b": "BLOB"}, (b"\x00\xff",), "00ff"),
        (
            {"origin": "VARCHAR", "hour": "TIMESTAMPTZ"},
            ("EWR", dt.datetime(2013, 1, 1, 10, tzinfo=UTC)),
            "x_45_57_52|2013-01-01_5410:00:00_5a",
        ),
        ({"a": "VARCHAR", "b": "VARCHAR"}, ("y|", ""), "y_7c|"),
    ],
    ids=str,
)
def test_other_keys_are_served_as_text(types, key, id_):
    wire = Wire(Schema.of(types, list(types)))

    assert wire.id_of(key) == id_
    assert wire.key_of(id_) == key


@pytest.mark.parametrize("id_", ["", "05", "5|6", "x", "é", "5 ", "x5", "_35", "+5", "5.0", "9" * 200])
def test_an_id_of_no_row_is_refused(id_):
    with pytest.raises(KeyColumnError):
        Wire(Schema.of({"n": "BIGINT"}, "n")).key_of(id_)


def test_keys_that_can_be_no_id_are_refused_in_words():
    text, number = Wire(Schema.of({"id": "VARCHAR"})), Wire(Schema.of({"x": "DOUBLE"}, "x"))

    with pytest.raises(KeyColumnError, match="an id of 130 characters"):
        text.id_of(("a" * 130,))
    with pytest.raises(KeyColumnError, match="NULL"):
        text.id_of((None,))
    with pytest.raises(KeyColumnError, match="a float is no id"):
        number.id_of((1.5,))


def test_an_id_of_a_service_of_others_stays_as_it_is():
    wire = Wire(Schema.of({"id": "VARCHAR"}), is_foreign=True)

    assert wire.id_of(("a b/c?",)) == "a b/c?"
    assert wire.key_of("x_41") == ("x_41",)


def test_a_joined_id_says_where_its_parts_end():
    assert encoded_id(["a|b", "c"]) == "a_7cb|c"
    assert encoded_id(["a", "b|c"]) == "a|b_7cc"


# Rows


def test_rows_are_objects_with_id_columns_and_system_columns():
    schema = Schema.of({"origin": "VARCHAR", "n": "BIGINT", "temp": "DOUBLE"}, ["origin", "n"])
    stamp = dt.datetime(2013, 1, 1, 10, 0, 0, 123_000, tzinfo=UTC)

    (found,) = Wire(schema).objects(page(schema, {"origin": "jfk", "n": 1, "temp": 2.5}, updated=stamp))

    assert found == {
        "id": "jfk|1", "origin": "jfk", "n": 1, "temp": 2.5,
        "createdAt": None, "updatedAt": "2013-01-01T10:00:00.123Z", "version": "v1", "deleted": False,
    }  # fmt: skip


def test_a_key_that_is_called_id_is_sent_once_and_as_text():
    schema = Schema.of({"id": "BIGINT", "n": "BIGINT"})
    rows = page(schema, {"id": 5, "n": 1})

    assert Wire(schema).objects(rows, system=()) == [{"id": "5", "n": 1}]
    assert Wire(schema).objects(rows, ["n"], ["version"]) == [{"n": 1, "version": "v1"}]


def test_objects_are_rows_again():
    schema = Schema.of({"origin": "VARCHAR", "n": "BIGINT", "temp": "DOUBLE"}, ["origin", "n"])
    rows = page(schema, {"origin": "é", "n": 1, "temp": None}, {"origin": "b", "n": 2, "temp": 1.0}, deleted=True)

    back = Wire(schema).table(Wire(schema).objects(rows))

    assert back.select(rows.column_names).to_pylist() == rows.to_pylist()
    assert back["_syncframe_operation"].to_pylist() == [None, None]


def test_a_value_that_does_not_fit_names_row_column_and_value():
    schema = Schema.of({"id": "VARCHAR", "n": "BIGINT"})

    with pytest.raises(SchemaError, match=r"row 'b': column 'n' is BIGINT, and the service sent '1\.5'"):
        Wire(schema).table([{"id": "a", "n": 1}, {"id": "b", "n": 1.5}])


@pytest.mark.parametrize("row", [{"n": 1}, {"id": None}, {"id": 5}])
def test_a_row_without_a_text_id_is_refused(row):
    with pytest.raises(SchemaError, match="no text id"):
        Wire(Schema.of({"id": "VARCHAR", "n": "BIGINT"})).table([row])


def test_a_body_gives_values_and_names_what_is_unknown():
    wire = Wire(Schema.of({"id": "VARCHAR", "n": "BIGINT", "Name": "VARCHAR"}))

    values, unknown = wire.values({"id": "a", "N": "5", "name": None, "version": "v", "DELETED": True, "other": 1})

    assert (values, unknown) == ({"n": 5, "Name": None}, ["other"])
    with pytest.raises(SchemaError, match="column 'n' is BIGINT: 'x' is no BIGINT"):
        wire.values({"n": "x"})


# Headers


@pytest.mark.parametrize(
    ("tag", "version"),
    [('"a"', "a"), ('"a\\"b"', 'a"b'), ('""', ""), ('W/"a"', None), ("a", None), ('"', None), (None, None)],
)
def test_only_a_strong_tag_is_a_version(tag, version):
    assert version_of(tag) == version


def test_a_version_in_a_tag_comes_out_again():
    assert version_of(etag('1-ab"\\')) == '1-ab"\\'


def test_dates_of_headers_are_whole_seconds_in_utc():
    moment = dt.datetime(2013, 1, 1, 10, 0, 5, 900_000, tzinfo=UTC)

    assert http_date(moment) == "Tue, 01 Jan 2013 10:00:05 GMT"
    assert parse_http_date("Tue, 01 Jan 2013 10:00:05 GMT") == moment.replace(microsecond=0)
    assert parse_http_date("yesterday") is parse_http_date(None) is None
