"""Frames: handed out in dtypes of the schema, out of reach of each other, and read back exactly or refused."""

import contextlib
import copy
import datetime as dt
import decimal
import gc
import io
import pickle
import uuid
import weakref

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from syncframe.errors import KeyColumnError, SchemaError
from syncframe.frame import (
    Snapshot,
    Snapshots,
    Token,
    TokenText,
    advance,
    advanced_rows,
    declared,
    hand_out,
    make_keys,
    normalise,
    read_token,
    snapshot_of,
    write_keys,
)
from syncframe.schema import Column, Schema

D = decimal.Decimal
UTC = dt.UTC
PARIS = dt.timezone(dt.timedelta(hours=2))
U0, U1 = str(uuid.UUID(int=0xA0)), str(uuid.UUID(int=0xA1))

# One column of each type, with two values of which the second is at the type's edge.
VALUES = {
    "bo": ("BOOLEAN", True, False),
    "i8": ("TINYINT", 1, -128),
    "i16": ("SMALLINT", 1, 32767),
    "i32": ("INTEGER", 1, -(2**31)),
    "i64": ("BIGINT", 1, 2**53 + 1),
    "u8": ("UTINYINT", 1, 255),
    "u64": ("UBIGINT", 1, 2**64 - 1),
    "f32": ("FLOAT", 0.5, float("inf")),
    "f64": ("DOUBLE", 0.1, 1e300),
    "dec": ("DECIMAL(20,2)", D("0.10"), D("999999999999999999.99")),
    "s": ("VARCHAR", "é", ""),
    "u": ("UUID", U0, U1),
    "j": ("JSON", '{"a": 1}', "null"),
    "e": ("ENUM", "new", "paid"),
    "bin": ("BLOB", b"x", bytes(range(256))),
    "d": ("DATE", dt.date(2024, 2, 29), dt.date(1, 1, 1)),
    "t": ("TIME", dt.time(1, 2), dt.time(23, 59, 59, 999999)),
    "ts": ("TIMESTAMP", dt.datetime(2024, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)),
    "tz": ("TIMESTAMPTZ", dt.datetime(2024, 1, 1, tzinfo=UTC), dt.datetime(2024, 1, 1, 0, 0, 0, 1, UTC)),
}
COLUMNS = {n: Column(n, t, labels=("new", "paid") if t == "ENUM" else ()) for n, (t, _, _) in VALUES.items()}
ID = Column("id", "VARCHAR", nullable=False)
ALL = Schema((ID, *COLUMNS.values()), ("id",))
TEXT = TokenText("store", "todo", "s1", 7, "a > 1", ("id", "s"))


def one(column, key="VARCHAR"):
    """A table with a key and one column `x`."""
    return Schema(
        (Column("id", key, nullable=False), Column("x", column) if isinstance(column, str) else column), ("id",)
    )


def rows_of(schema, **columns):
    return declared(pa.table({n: pa.array(v, schema[n].arrow) for n, v in columns.items()}), schema)


def repeated(rows, nulls):
    """All types, `rows` rows; with or without NULLs."""
    some = {n: [a, None if nulls else b] for n, (_, a, b) in VALUES.items()}
    at = pa.array(np.arange(rows) % 2)
    table = {n: pa.array(v, COLUMNS[n].arrow).take(at) for n, v in some.items()}
    return pa.table({"id": pa.array([f"k{i}" for i in range(rows)], pa.large_string())} | table)


def read(frame, schema, **options):
    return normalise(frame, schema, **options).rows.to_pylist()


# Handing out


DTYPES = {
    "bo": "boolean", "i8": "Int8", "i16": "Int16", "i32": "Int32", "i64": "Int64", "u8": "UInt8", "u64": "UInt64",
    "f32": "float32", "f64": "float64", "dec": "decimal128(20, 2)[pyarrow]", "s": "str", "u": "str", "j": "str",
    "e": "category", "bin": "object", "d": "date32[day][pyarrow]", "t": "time64[us][pyarrow]",
    "ts": "datetime64[us]", "tz": "datetime64[us, UTC]",
}  # fmt: skip


@pytest.mark.parametrize("nulls", [False, True], ids=["no NULLs", "NULLs"])
@pytest.mark.parametrize("rows", [0, 1, 10, 100_000, 500_000])
def test_a_frame_is_writable_at_every_size_and_its_snapshot_is_not_changed(rows, nulls):
    held = repeated(rows, nulls)
    before = copied_out = repeated(min(rows, 4), nulls)

    frame = hand_out(held, ALL)

    assert {n: str(t) for n, t in frame.dtypes.items()} == DTYPES
    if rows == 0:
        return
    for name, (_, first, second) in VALUES.items():
        frame.iloc[0, frame.columns.get_loc(name)] = second
        frame.loc["k0", name] = first
        frame.at["k0", name] = second
        frame[name].array[0] = second
        if rows > 1:
            frame.loc[np.arange(rows) == 1, name] = None
    assert held.slice(0, 4).equals(before.slice(0, 4))
    assert copied_out.num_rows == min(rows, 4)
    now = normalise(frame.iloc[:2], ALL).rows.to_pylist()
    assert now[0] == {"id": "k0"} | {n: second for n, (_, _, second) in VALUES.items()}
    assert rows == 1 or now[1] == {"id": "k1"} | dict.fromkeys(VALUES)


@pytest.mark.parametrize("dtypes", ["pandas", "pyarrow"])
def test_dtypes_are_the_same_for_no_rows_all_null_and_full(dtypes):
    full = repeated(4, nulls=False)
    nothing = pa.table({"id": ["k0"]} | {n: pa.nulls(1, c.arrow) for n, c in COLUMNS.items()}).cast(full.schema)

    frames = [hand_out(rows, ALL, dtypes=dtypes) for rows in (full, nothing, full.slice(0, 0))]

    assert frames[0].dtypes.equals(frames[1].dtypes)
    assert frames[0].dtypes.equals(frames[2].dtypes)


def test_pyarrow_dtypes_keep_integers_masked_and_bytes_objects_for_pandas_would_change_what_is_assigned():
    frame = hand_out(repeated(2, nulls=True), ALL, dtypes="pyarrow")

    assert str(frame.dtypes["i64"]) == "Int64"
    assert str(frame.dtypes["bin"]) == "object"
    assert str(frame.dtypes["f64"]) == "double[pyarrow]"
    assert str(frame.dtypes["s"]) == "large_string[pyarrow]"
    assert str(frame.dtypes["tz"]) == "timestamp[us, tz=UTC][pyarrow]"
    with pytest.raises(TypeError):
        frame.loc["k0", "i64"] = 1.5


def test_a_compound_key_is_a_multiindex_and_comes_back():
    schema = Schema((Column("y", "INTEGER"), Column("site", "VARCHAR"), Column("x", "DOUBLE")), ("y", "site"))
    rows = rows_of(schema, y=[2024, 2025], site=["a", "b"], x=[0.5, None])

    frame = hand_out(rows, schema)

    assert frame.index.names == ["y", "site"]
    assert normalise(frame, schema).rows.equals(rows)
    assert normalise(frame.reset_index("site"), schema).rows.equals(rows)


def test_system_columns_and_pending_are_handed_out_and_the_row_versions_are_not():
    schema = one("BIGINT")
    at = dt.datetime(2024, 1, 1, tzinfo=UTC)
    rows = pa.table({"id": ["a"], "x": [1], "updatedAt": [at], "version": ["v1"], "deleted": [False],
                     "_syncframe_pending": ["update"], "_syncframe_version": ["v1"]})  # fmt: skip

    frame = hand_out(declared(rows, schema), schema)
    edited = normalise(frame, schema)

    assert list(frame.columns) == ["x", "updatedAt", "version", "deleted", "_syncframe_pending"]
    assert str(frame.dtypes["updatedAt"]) == "datetime64[us, UTC]"
    assert edited.rows.column_names == ["id", "x"]
    assert {n: v.to_pylist() for n, v in edited.system.items()} == {
        "updatedAt": [at], "version": ["v1"], "deleted": [False],
    }  # fmt: skip


def test_a_table_s_own_column_named_like_a_system_column_is_data():
    schema = one(Column("version", "BIGINT"))
    frame = hand_out(rows_of(schema, id=["a"], version=[3]), schema)
    frame.loc["a", "version"] = 4

    edited = normalise(frame, schema)

    assert edited.rows.to_pylist() == [{"id": "a", "version": 4}]
    assert edited.system == {}


# Edits that reach under pandas


@pytest.mark.filterwarnings("ignore:Series.values")
@pytest.mark.parametrize("name", ["bo", "i64", "u64", "f64", "s", "dec", "d", "t", "ts", "tz", "e", "bin"])
@pytest.mark.parametrize("how", ["array", "to_numpy", "asarray", "values"])
@pytest.mark.parametrize("dtypes", ["pandas", "pyarrow"])
def test_a_write_into_a_column_s_array_is_seen_or_did_not_happen_and_leaves_the_snapshot(name, how, dtypes):
    held = repeated(4, nulls=False)
    frame = hand_out(held, ALL, dtypes=dtypes)
    second = VALUES[name][2]
    reach = {
        "array": lambda s: s.array,
        "to_numpy": lambda s: s.to_numpy(),
        "asarray": np.asarray,
        "values": lambda s: s.values,
    }

    with contextlib.suppress(ValueError, TypeError):  # read-only, or not of this type
        reach[how](frame[name])[0] = second

    shown = frame[name].iloc[0]
    edited = normalise(frame, ALL).rows[name][0].as_py()
    assert edited == (shown.to_pydatetime() if isinstance(shown, pd.Timestamp) else shown)
    assert held.equals(repeated(4, nulls=False))


def test_the_snapshot_after_a_staging_is_not_changed_by_further_edits():
    held = repeated(4, nulls=False)
    frame = hand_out(held, ALL)
    frame.loc["k1", "i64"] = 5
    rows = advanced_rows(held, normalise(frame, ALL).rows, ("id",))
    frame["i64"].array[0] = 77
    frame["f64"].to_numpy()
    frame.loc["k0", "f64"] = 9.5

    assert rows["i64"].to_pylist() == [1, 5, 1, 2**53 + 1]
    assert rows["f64"].to_pylist() == [0.1, 1e300, 0.1, 1e300]
    assert rows["s"].chunk(0).buffers()[2].address == held["s"].chunk(0).buffers()[2].address


def test_the_snapshot_after_a_staging_keeps_the_versions_of_its_rows():
    schema = one("BIGINT")
    old = declared(pa.table({"id": ["a", "b"], "x": [1, 2], "_syncframe_version": ["v1", "v2"]}), schema)

    moved = advanced_rows(old, rows_of(schema, id=["new", "b", "a"], x=[3, 2, 1]), ("id",))
    edited = advanced_rows(old, rows_of(schema, id=["a", "b"], x=[7, 2]), ("id",))

    assert moved["_syncframe_version"].to_pylist() == [None, "v2", "v1"]
    assert edited["_syncframe_version"].to_pylist() == ["v1", "v2"]
    assert advanced_rows(None, old.select(["id", "x"])).to_pylist() == [{"id": "a", "x": 1}, {"id": "b", "x": 2}]


# The token


@pytest.fixture
def handed():
    schema = Schema((ID, Column("g", "VARCHAR"), Column("n", "BIGINT"), Column("f", "DOUBLE")), ("id",))
    rows = rows_of(schema, id=["a", "b", "c", "d"], g=["x", "y", "x", None], n=[1, 2, None, 4], f=[0.5, None, 1.5, 2.5])
    return hand_out(rows, schema, Token(TEXT, Snapshot(rows, 7)))


SAME = {
    "copy": lambda d: d.copy(),
    "shallow copy": lambda d: d.copy(deep=False),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "query": lambda d: d.query("n > 1"),
    "mask": lambda d: d[d["f"] > 1],
    "columns": lambda d: d[["n", "f"]],
    "loc": lambda d: d.loc[["a", "b"]],
    "iloc": lambda d: d.iloc[1:3],
    "head": lambda d: d.head(2),
    "tail": lambda d: d.tail(2),
    "sample": lambda d: d.sample(2, random_state=1),
    "drop rows": lambda d: d.drop("a"),
    "drop columns": lambda d: d.drop(columns="n"),
    "assign": lambda d: d.assign(n=1),
    "sort_values": lambda d: d.sort_values("f"),
    "sort_index": lambda d: d.sort_index(ascending=False),
    "reset_index": lambda d: d.reset_index(),
    "set_index": lambda d: d.reset_index().set_index("id"),
    "reindex": lambda d: d.reindex(["b", "a"]),
    "rename": lambda d: d.rename(columns={"n": "m"}),
    "astype": lambda d: d.astype({"n": "float64"}),
    "convert_dtypes": lambda d: d.convert_dtypes(),
    "infer_objects": lambda d: d.infer_objects(),
    "fillna": lambda d: d.fillna({"n": 0}),
    "dropna": lambda d: d.dropna(),
    "ffill": lambda d: d.ffill(),
    "replace": lambda d: d.replace({"n": {1: 2}}),
    "where": lambda d: d[["n"]].where(d["f"] > 1),
    "clip": lambda d: d[["f"]].clip(0, 1),
    "round": lambda d: d[["f"]].round(1),
    "drop_duplicates": lambda d: d.drop_duplicates("g"),
    "nlargest": lambda d: d.nlargest(2, "f"),
    "pipe": lambda d: d.pipe(lambda x: x),
    "update of a column": lambda d: d.assign(f=d["f"] * 2),
    "concat of its parts": lambda d: pd.concat([d.iloc[:2], d.iloc[2:]]),
    "groupby sum": lambda d: d.groupby("g").sum(),
    "describe": lambda d: d[["f"]].describe(),
    "melt": lambda d: d.melt(),
    "T": lambda d: d.T,
}
TEXT_ONLY = {
    "pickle": lambda d: pickle.loads(pickle.dumps(d)),
    "parquet": lambda d: pd.read_parquet(io.BytesIO(d.to_parquet())),
}
LOST = {
    "concat with a plain frame": lambda d: pd.concat([d, pd.DataFrame({"n": [1]}, index=pd.Index(["z"], name="id"))]),
    "the constructor": lambda d: pd.DataFrame(dict(d)),
    "csv": lambda d: pd.read_csv(io.StringIO(d.to_csv()), index_col="id"),
}


@pytest.mark.parametrize("derive", SAME.values(), ids=SAME)
def test_a_derived_frame_carries_the_very_same_token(handed, derive):
    assert derive(handed).attrs["syncframe"] is handed.attrs["syncframe"]
    assert snapshot_of(derive(handed)) is snapshot_of(handed)


@pytest.mark.parametrize("derive", TEXT_ONLY.values(), ids=TEXT_ONLY)
def test_through_a_file_the_token_keeps_its_text_and_loses_the_snapshot(handed, derive):
    assert read_token(derive(handed)) == TEXT
    assert snapshot_of(derive(handed)) is None
    assert len(pickle.dumps(handed.attrs["syncframe"])) < 300


@pytest.mark.parametrize("derive", LOST.values(), ids=LOST)
def test_where_pandas_loses_the_token_there_is_none(handed, derive):
    assert read_token(derive(handed)) is None


def test_a_token_is_kept_by_merge_or_lost_but_never_another_s(handed):
    other = handed.copy()
    other.attrs = {"syncframe": Token(TokenText("store", "todo", "s2", 7), None)}

    assert read_token(handed.merge(handed[["n"]], on="id")) in (None, TEXT)
    assert read_token(pd.concat([handed, other])) is None


@pytest.mark.parametrize(
    "attrs",
    [
        {}, {"syncframe": 5}, {"syncframe": "hello"}, {"syncframe": "[1]"}, {"syncframe": "{}"}, {"syncframe": None},
        {"syncframe": '{"syncframe": 2}'}, {"syncframe": '{"syncframe": 1, "store": "a"}'}, {"syncframe": "[" * 100_000},
        {"syncframe": '{"syncframe":1,"store":"a","table":"b","snapshot":"c","revision":"1"}'},
        {"syncframe": '{"syncframe":1,"store":"a","table":"b","snapshot":"c","revision":true}'},
        {"syncframe": '{"syncframe":1,"store":"a","table":"b","snapshot":"c","revision":1,"columns":[1]}'},
        {"other": "x"},
    ],
)  # fmt: skip
def test_a_malformed_or_foreign_token_is_no_token(attrs):
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = attrs

    assert read_token(frame) is None
    assert snapshot_of(frame) is None
    assert read_token(object()) is None


def test_a_snapshot_is_freed_with_the_last_frame_derived_from_it(handed):
    snapshot = weakref.ref(snapshot_of(handed))
    derived = [handed.copy(), handed.query("n > 1"), handed["n"]]

    handed.attrs.clear()
    derived[:] = derived[2:]
    gc.collect()
    assert snapshot() is not None  # the series holds it too

    derived.clear()
    gc.collect()
    assert snapshot() is None


def test_the_oldest_snapshots_go_when_a_context_holds_too_many_bytes():
    snapshots = Snapshots(bytes_max=20_000)
    tokens = [
        snapshots.hold(Token(f"t{i}", Snapshot(pa.table({"x": np.arange(1_000)}), i))) for i in range(4)
    ]  # 8,000 bytes each

    assert [token.snapshot is not None for token in tokens] == [False, False, True, True]
    assert snapshots.bytes_held == 16_000
    del tokens
    gc.collect()
    assert snapshots.bytes_held == 0


def test_arrays_that_snapshots_share_are_counted_once():
    snapshots = Snapshots(bytes_max=10_000)
    rows = pa.table({"x": np.arange(1_000)})
    tokens = [snapshots.hold(Token(f"t{i}", Snapshot(rows, i))) for i in range(3)]

    assert snapshots.bytes_held == 8_000
    assert all(token.snapshot for token in tokens)


def test_advancing_a_frame_leaves_its_copies_their_token(handed):
    earlier = handed.copy()

    advance(handed, Token(TokenText("store", "todo", "s2", 8)))

    assert read_token(handed).snapshot == "s2"
    assert read_token(earlier).snapshot == "s1"


# The key

NUMBERED = one("BIGINT", key="BIGINT")
COMPOUND = Schema((Column("a", "VARCHAR"), Column("b", "BIGINT"), Column("x", "BIGINT")), ("a", "b"))


def test_the_key_is_the_named_index_or_ordinary_columns():
    schema = one("BIGINT")
    frame = hand_out(rows_of(schema, id=["a", "b"], x=[1, 2]), schema)
    expected = [{"id": "a", "x": 1}, {"id": "b", "x": 2}]

    assert read(frame, schema) == expected
    assert read(frame.reset_index(), schema) == expected
    assert read(frame.reset_index().set_index("x"), schema) == expected
    assert read(frame.reset_index().set_axis(["r1", "r2"]), schema) == expected
    assert read(frame.set_index("x", append=True), schema) == expected


def test_an_unnamed_text_index_is_the_key_if_most_of_its_labels_were_handed_out():
    schema = one("DOUBLE")
    rows = rows_of(schema, id=["a", "b", "c"], x=[1.0, 2.0, 3.0])
    frame = hand_out(rows, schema)
    appended = pd.concat([frame, pd.DataFrame({"x": [4.0]}, index=["d"])])

    assert appended.index.name is None
    assert [row["id"] for row in read(appended, schema, snapshot=Snapshot(rows, 1))] == ["a", "b", "c", "d"]
    with pytest.raises(KeyColumnError, match=r"df.index.name = 'id'"):
        read(frame.describe(), schema, snapshot=Snapshot(rows, 1))
    with pytest.raises(KeyColumnError, match=r"df.index.name = 'id'"):
        read(appended, schema)  # nobody knows its keys


@pytest.mark.parametrize(
    ("schema", "frame", "words"),
    [
        (NUMBERED, pd.DataFrame({"x": [1]}), "df.index.name = 'id'"),
        (NUMBERED, pd.DataFrame({"id": [2, 1], "x": [1, 2]}).set_index("id").sort_values("x", ignore_index=True), "neither"),
        (COMPOUND, pd.DataFrame({"x": [1]}, index=["a"]), r"df.index.names = \['a', 'b'\]"),
        (COMPOUND, pd.DataFrame({"a": ["q"], "x": [1]}), "the key 'b' is neither"),
        (one("BIGINT"), pd.DataFrame({"id": ["a"], "x": [1]}).set_index("id", drop=False), "ambiguous"),
        (one("BIGINT"), pd.DataFrame(), "neither"),
        (one("BIGINT"), pd.DataFrame({"x": [1]}, index=pd.Index(["a"], name="carrier")), "bears 'carrier'"),
        (NUMBERED, pd.DataFrame({"id": [1, None], "x": [1, 2]}), r"empty in 1 rows, at the positions 1"),
        (COMPOUND, pd.DataFrame({"a": ["q", None], "b": [1, 2], "x": [1, 2]}), r"at the positions 1"),
        (one("BIGINT", key="DOUBLE"), pd.DataFrame({"id": [np.nan], "x": [1]}), r"at the positions 0"),
        (one("BIGINT"), pa.table({"x": [1]}), "not among the columns 'x'"),
    ],
    ids=["number without name", "ignore_index", "compound without names", "half a compound key", "index and column",
         "nothing", "index of another name", "empty number", "empty compound", "empty float", "Arrow without key"],
)  # fmt: skip
def test_a_key_that_is_not_to_be_found_is_refused(schema, frame, words):
    with pytest.raises(KeyColumnError, match=words):
        normalise(frame, schema)


def test_a_key_that_does_not_fit_names_its_row():
    with pytest.raises(SchemaError, match=r"column 'id' \(BIGINT\).*1\.5 in row 1 \(counted from 0\)"):
        normalise(pd.DataFrame({"id": [1.0, 1.5], "x": [1, 2]}), NUMBERED)


@pytest.mark.parametrize("where", ["column", "index"])
@pytest.mark.parametrize("empty", [None, np.nan, pd.NA])
def test_empty_text_keys_are_made_and_written_into_the_frame(where, empty):
    schema = one("BIGINT")
    frame = pd.DataFrame({"id": pd.Series(["a", empty, empty], dtype=object), "x": [1, 2, 3]})
    frame = frame if where == "column" else frame.set_index("id")
    made = iter(["new1", "new2"])

    edited = normalise(frame, schema)
    filled = make_keys(edited, schema, lambda: next(made))

    assert edited.missing_keys.tolist() == [1, 2]
    assert filled.rows["id"].to_pylist() == ["a", "new1", "new2"]
    assert write_keys(frame, filled, schema) is True
    assert list(frame["id"] if where == "column" else frame.index) == ["a", "new1", "new2"]
    assert len(normalise(frame, schema).missing_keys) == 0


def test_made_keys_cannot_be_written_into_polars():
    schema = one("BIGINT", key="UUID")
    frame = pl.DataFrame({"id": [None, U0], "x": [1, 2]})

    filled = make_keys(normalise(frame, schema), schema, lambda: U1)

    assert filled.rows["id"].to_pylist() == [U1, U0]
    assert write_keys(frame, filled, schema) is False


# Columns


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            pd.DataFrame({"id": ["a"], "x": [1], "y": [1], "z": [1]}),
            r"columns 'y', 'z' are not among .*\n.*df\[table.columns\]",
        ),
        (pd.DataFrame([["a", 1, 2]], columns=["id", "x", "x"]), "'x' are there twice"),
        (pd.DataFrame({("id", ""): ["a"], ("x", "q"): [1]}), "several levels"),
        (pd.Series([1], name="x"), "a Series is no table"),
        ([{"id": 1}], "a list is no table"),
        (pl.LazyFrame({"id": ["a"]}), "collect"),
        (pa.table([["a"], [1], [1]], names=["id", "x", "x"]), "'x' are there twice"),
    ],
    ids=["unknown", "repeated", "MultiIndex", "Series", "list", "lazy", "repeated in Arrow"],
)
def test_what_is_not_the_table_is_refused(frame, words):
    with pytest.raises(SchemaError, match=words):
        normalise(frame, one("BIGINT"))


def test_unknown_columns_may_be_ignored():
    frame = pd.DataFrame({"id": ["a"], "x": [1], "y": [1]})

    assert read(frame, one("BIGINT"), extra="ignore") == [{"id": "a", "x": 1}]


def test_columns_stand_in_the_table_s_order_key_first_in_one_chunk():
    schema = Schema((Column("b", "BIGINT"), ID, Column("a", "BIGINT")), ("id",))
    frame = pd.DataFrame({"a": [1], "b": [2], "id": ["k"]})
    rows = normalise(pd.concat([frame, frame.assign(id="l")]), schema).rows

    assert rows.column_names == ["id", "b", "a"]
    assert [column.num_chunks for column in rows.columns] == [1, 1, 1]


# Values: what is taken, and as what

NS = pd.Timestamp("2024-01-01 00:00:00.000000001")
ENUM = Column("x", "ENUM", labels=("new", "paid"))
o = lambda *values: pd.Series(values, dtype=object)  # noqa: E731

TAKEN = {
    "2.0 into int": ("INTEGER", pd.Series([2.0, np.nan]), [2, None]),
    "2.0 object into int": ("INTEGER", o(2.0, None, 3), [2, None, 3]),
    "-0.0 into int": ("INTEGER", pd.Series([-0.0]), [0]),
    "Float64 into int": ("INTEGER", pd.Series([2.0, None], dtype="Float64"), [2, None]),
    "int[pyarrow] into int": ("INTEGER", pd.Series([2, None], dtype="int64[pyarrow]"), [2, None]),
    "2**53-1 float into int": ("BIGINT", pd.Series([2.0**53 - 1]), [2**53 - 1]),
    "2**53+1 into int": ("BIGINT", pd.Series([2**53 + 1]), [2**53 + 1]),
    "2**64-1 object": ("UBIGINT", o(2**64 - 1), [2**64 - 1]),
    "numpy scalars": ("BIGINT", o(np.int8(3), np.float64(4)), [3, 4]),
    "decimal into int": ("BIGINT", pd.Series([D("7.00")], dtype=pd.ArrowDtype(pa.decimal128(10, 2))), [7]),
    "decimal object into int": ("BIGINT", o(D("7.00"), 8), [7, 8]),
    "category of ints": ("BIGINT", pd.Series([5, 6], dtype="category"), [5, 6]),
    "sparse ints": ("BIGINT", pd.Series(pd.arrays.SparseArray([0, 1])), [0, 1]),
    "2**53 into float": ("DOUBLE", pd.Series([2**53]), [2.0**53]),
    "int object into float": ("DOUBLE", o(1, 2.5, None), [1.0, 2.5, None]),
    "NaN into float is NULL": ("DOUBLE", pd.Series([np.nan, np.inf]), [None, float("inf")]),
    "Arrow's NaN is NULL": ("DOUBLE", pa.array([float("nan"), 1.0]), [None, 1.0]),
    "float64 into float32": ("FLOAT", pd.Series([0.5]), [0.5]),
    "float16 into float32": ("FLOAT", pd.Series(np.array([0.5, np.nan], "float16")), [0.5, None]),
    "int into decimal": ("DECIMAL(10,2)", pd.Series([7]), [D("7.00")]),
    "int object into decimal": ("DECIMAL(10,2)", o(7, D("1.5"), None), [D("7.00"), D("1.50"), None]),
    "uint64 into decimal": ("DECIMAL(22,2)", pd.Series([2**64 - 1], dtype="UInt64"), [D("18446744073709551615.00")]),
    "float into decimal": ("DECIMAL(10,2)", pd.Series([0.1, 1234567.25]), [D("0.10"), D("1234567.25")]),
    "float object into decimal": ("DECIMAL(10,2)", o(0.1, D(1)), [D("0.10"), D("1.00")]),
    "small float into decimal": ("DECIMAL(10,8)", pd.Series([1e-7]), [D("0.00000010")]),
    "decimal of another scale": ("DECIMAL(20,2)", pd.Series([D("1.500")], dtype=pd.ArrowDtype(pa.decimal128(30, 3))), [D("1.50")]),
    "bool object": ("BOOLEAN", o(True, np.False_, None), [True, False, None]),
    "numpy bool": ("BOOLEAN", pd.Series([True]), [True]),
    "text object": ("VARCHAR", o("a", None, np.nan, pd.NA), ["a", None, None, None]),
    "'' and 'nan' are text": ("VARCHAR", pd.Series(["", "nan", "NULL"]), ["", "nan", "NULL"]),
    "category of text": ("VARCHAR", pd.Series(["a", None], dtype="category"), ["a", None]),
    "UUID object into text": ("VARCHAR", o(uuid.UUID(U0)), [U0]),
    "UUID object": ("UUID", o(uuid.UUID(U0), U1), [U0, U1]),
    "upper-case uuid": ("UUID", pd.Series([U0.upper()]), [U0]),
    "uuid[arrow]": ("UUID", pa.array([uuid.UUID(U0).bytes], pa.uuid()), [U0]),
    "JSON null and NULL": ("JSON", o("null", None, "[1]"), ["null", None, "[1]"]),
    "JSON text that says NaN": ("JSON", pd.Series(['"NaN,]"']), ['"NaN,]"']),
    "a label": (ENUM, pd.Series(["new", None]), ["new", None]),
    "category with other labels": (ENUM, pd.Series(["paid"], dtype=pd.CategoricalDtype(["zz", "paid"])), ["paid"]),
    "bytearray": ("BLOB", o(bytearray(b"x"), b"y"), [b"x", b"y"]),
    "binary[pyarrow]": ("BLOB", pd.Series([b"x"], dtype=pd.ArrowDtype(pa.binary())), [b"x"]),
    "midnight into date": ("DATE", pd.Series([pd.Timestamp("2024-01-02")]), [dt.date(2024, 1, 2)]),
    "date and midnight objects": ("DATE", o(dt.date(2024, 1, 1), pd.Timestamp("2024-01-02")), [dt.date(2024, 1, 1), dt.date(2024, 1, 2)]),
    "date of year 1 and 9999": ("DATE", o(dt.date(1, 1, 1), dt.date(9999, 12, 31)), [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    "date into timestamp": ("TIMESTAMP", o(dt.date(2024, 1, 1)), [dt.datetime(2024, 1, 1)]),
    "date and datetime into timestamp": ("TIMESTAMP", o(dt.date(2024, 1, 1), dt.datetime(1, 1, 1, 5)), [dt.datetime(2024, 1, 1), dt.datetime(1, 1, 1, 5)]),
    "ns of a whole us": ("TIMESTAMP", pd.Series(np.array(["2024-01-01T00:00:00.000001000"], "M8[ns]")), [dt.datetime(2024, 1, 1, 0, 0, 0, 1)]),
    "ns Timestamp beside year 9999": ("TIMESTAMP", o(pd.Timestamp("2024-01-01").as_unit("ns"), dt.datetime(9999, 1, 1)), [dt.datetime(2024, 1, 1), dt.datetime(9999, 1, 1)]),
    "any zone into timestamptz": ("TIMESTAMPTZ", pd.Series([pd.Timestamp("2024-07-01 02:00", tz="Europe/Paris")]), [dt.datetime(2024, 7, 1, tzinfo=UTC)]),
    "mixed zones": ("TIMESTAMPTZ", o(dt.datetime(2024, 7, 1, 2, tzinfo=PARIS), pd.Timestamp("2024-07-01", tz="UTC")), [dt.datetime(2024, 7, 1, tzinfo=UTC)] * 2),
    "time64[ns]": ("TIME", pa.array([3_600_000_001_000], pa.time64("ns")), [dt.time(1, 0, 0, 1)]),
    "all NULL of another type": ("DATE", pd.Series([np.nan, np.nan]), [None, None]),
    "NaT into text": ("VARCHAR", pd.Series([pd.NaT, None]), [None, None]),
}  # fmt: skip


@pytest.mark.parametrize(("column", "values", "expected"), TAKEN.values(), ids=TAKEN)
def test_taken(column, values, expected):
    schema = one(column)
    keys = [f"k{i}" for i in range(len(values))]
    frame = (
        pd.DataFrame({"id": keys, "x": values})
        if isinstance(values, pd.Series)
        else pa.table({"id": keys, "x": values})
    )

    rows = normalise(frame, schema).rows

    assert rows["x"].type == schema["x"].arrow
    assert rows["x"].to_pylist() == expected


REFUSED = {
    "1.5 into int": ("INTEGER", pd.Series([1.0, 1.5]), "1.5 in row 'k1'"),
    "1.5 object into int": ("INTEGER", o(1, 1.5), "1.5 in row 'k1'"),
    "2**53 as float": ("BIGINT", pd.Series([2.0**53]), "9007199254740992.0 in row 'k0'"),
    "2**53 object as float": ("BIGINT", o(2.0**53), "9007199254740992.0"),
    "inf into int": ("BIGINT", pd.Series([np.inf]), "inf"),
    "300 into int8": ("TINYINT", pd.Series([300]), "300"),
    "300 object into int8": ("TINYINT", o(1, 300), "300 in row 'k1'"),
    "-1 into uint8": ("UTINYINT", pd.Series([-1]), "-1"),
    "True into int": ("INTEGER", pd.Series([True]), "not true and false"),
    "True object into int": ("INTEGER", o(1, True), "True in row 'k1'"),
    "'5' into int": ("INTEGER", pd.Series(["5"]), "not text.*'5' in row 'k0'"),
    "1.5 decimal into int": ("INTEGER", o(D("1.5")), "1.5"),
    "date into int": ("INTEGER", o(dt.date(2024, 1, 1)), "2024"),
    "timestamp into int": ("BIGINT", pd.Series([pd.Timestamp("2024-01-01")]), "not timestamps"),
    "timedelta into int": ("BIGINT", pd.Series([pd.Timedelta("1s")]), "duration"),
    "complex into float": ("DOUBLE", pd.Series([1j]), "1j"),
    "period into date": ("DATE", pd.Series(pd.period_range("2024", periods=1, freq="D")), "period"),
    "2**53+1 into float": ("DOUBLE", pd.Series([2**53 + 1]), "9007199254740993"),
    "2**53+1 object into float": ("DOUBLE", o(2**53 + 1), "9007199254740993"),
    "0.1 into float32": ("FLOAT", pd.Series([0.1]), "0.1 in row 'k0'"),
    "0.1 object into float32": ("FLOAT", o(0.1), "0.1"),
    "1e300 into float32": ("FLOAT", pd.Series([1e300]), "1e.300"),
    "2**24+1 into float32": ("FLOAT", pd.Series([2**24 + 1]), "16777217"),
    "decimal into float": ("DOUBLE", pd.Series([D("0.1")], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), "not decimals"),
    "text into float": ("DOUBLE", pd.Series(["1.5"]), "not text"),
    "1.999 into scale 2": ("DECIMAL(20,2)", o(D("1.999")), "1.999"),
    "1.999 Arrow into scale 2": ("DECIMAL(20,2)", pd.Series([D("1.999")], dtype=pd.ArrowDtype(pa.decimal128(10, 3))), "1.999"),
    "1E19 into decimal": ("DECIMAL(20,2)", o(D("1E19")), "1E.19"),
    "Infinity into decimal": ("DECIMAL(20,2)", o(D("Infinity")), "Infinity"),
    "0.125 float into scale 2": ("DECIMAL(20,2)", pd.Series([0.125]), "0.125"),
    "0.125 float object into scale 2": ("DECIMAL(20,2)", o(0.125), "0.125"),
    "1e13 float into scale 2": ("DECIMAL(20,2)", pd.Series([1e13]), "floats as large"),
    "text into decimal": ("DECIMAL(20,2)", pd.Series(["1.5"]), "not text"),
    "1 into bool": ("BOOLEAN", pd.Series([1]), "not whole numbers"),
    "1 object into bool": ("BOOLEAN", o(True, 1), "1 in row 'k1'"),
    "1.0 into bool": ("BOOLEAN", pd.Series([1.0, np.nan]), "not numbers.*1.0 in row 'k0'"),
    "5 into text": ("VARCHAR", pd.Series([5]), "5 in row 'k0'"),
    "5 object into text": ("VARCHAR", o("a", 5), "5 in row 'k1'"),
    "bytes into text": ("VARCHAR", o("a", b"b"), "b'b' in row 'k1'"),
    "a lone surrogate": ("VARCHAR", o("\ud800"), "in row 'k0'"),
    "list into text": ("VARCHAR", o(["a"]), r"\['a'\]"),
    "zz into uuid": ("UUID", pd.Series([U0, "zz"]), "'zz' in row 'k1'"),
    "zz into JSON": ("JSON", pd.Series(["zz"]), "'zz'"),
    "NaN into JSON": ("JSON", pd.Series(["1", "NaN"]), "'NaN' in row 'k1'"),
    "trailing comma into JSON": ("JSON", pd.Series(["[1,]"]), r"\[1,\]"),
    "'' into JSON": ("JSON", pd.Series([""]), "''"),
    "list into JSON": ("JSON", o([1]), r"\[1\]"),
    "dict into JSON": ("JSON", o({"a": 1}), "'a'"),
    "struct into JSON": ("JSON", pa.array([{"a": 1}]), "struct"),
    "unknown label": (ENUM, pd.Series(["sent"]), "'new', 'paid'.*'sent'"),
    "unknown category": (ENUM, pd.Series(["sent"], dtype="category"), "'sent'"),
    "str into bytes": ("BLOB", pd.Series(["a"]), "not text"),
    "str object into bytes": ("BLOB", o(b"a", "b"), "'b' in row 'k1'"),
    "zz into date": ("DATE", pd.Series(["zz"]), "not text"),
    "05:00 into date": ("DATE", pd.Series([pd.Timestamp("2024-01-01 05:00")]), "05:00|5, 0"),
    "05:00 object into date": ("DATE", o(dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 5)), "5, 0.*in row 'k1'"),
    "instant into date": ("DATE", pd.Series([pd.Timestamp("2024-01-01", tz="UTC")]), "not timestamps with a time zone"),
    "5 into date": ("DATE", pd.Series([5]), "not whole numbers"),
    "text into time": ("TIME", pd.Series(["10:00"]), "not text"),
    "time with a zone": ("TIME", o(dt.time(10, tzinfo=UTC)), "without a zone"),
    "time64[ns] finer than us": ("TIME", pa.array([1], pa.time64("ns")), "exactly"),
    "naive into timestamptz": ("TIMESTAMPTZ", pd.Series([pd.Timestamp("2024-01-01")]), 'tz_localize'),
    "naive object into timestamptz": ("TIMESTAMPTZ", o(dt.datetime(2024, 1, 1, tzinfo=UTC), dt.datetime(2024, 1, 1)), "in row 'k1'"),
    "aware into timestamp": ("TIMESTAMP", pd.Series([pd.Timestamp("2024-01-01", tz="UTC")]), "tz_convert"),
    "aware object into timestamp": ("TIMESTAMP", o(dt.datetime(2024, 1, 1, tzinfo=UTC)), "2024"),
    "date into timestamptz": ("TIMESTAMPTZ", o(dt.date(2024, 1, 1)), "2024"),
    "ns into us": ("TIMESTAMP", pd.Series([NS]), "exactly"),
    "ns object into us": ("TIMESTAMP", o(NS), "finer than microseconds"),
    "ns into us, with a zone": ("TIMESTAMPTZ", pd.Series([NS.tz_localize("UTC")]), "exactly"),
    "int into timestamp": ("TIMESTAMP", pd.Series([5]), "not whole numbers"),
    "NULL into NOT NULL": (Column("x", "BIGINT", nullable=False), pd.Series([1, None], dtype="Int64"), "NULL in row 'k1'"),
}  # fmt: skip


@pytest.mark.parametrize(("column", "values", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(column, values, words):
    schema = one(column)
    keys = [f"k{i}" for i in range(len(values))]
    frame = (
        pd.DataFrame({"id": keys, "x": values})
        if isinstance(values, pd.Series)
        else pa.table({"id": keys, "x": values})
    )

    with pytest.raises(SchemaError, match=words) as refused:
        normalise(frame, schema)
    assert "column 'x'" in str(refused.value)
    assert "row 'k" in str(refused.value)


def test_a_refusal_names_five_rows_and_counts_all():
    frame = pd.DataFrame({"id": [f"k{i}" for i in range(1000)], "x": [0.0, 1.5] * 500})

    with pytest.raises(SchemaError, match=r"500 values do not fit: 1.5 in row 'k1', .* in row 'k9', \.\.\.") as refused:
        normalise(frame, one("BIGINT"))
    assert str(refused.value).count("in row") == 5


@pytest.mark.parametrize(
    ("held_as", "kind", "good", "bad"),
    [
        ("numeric text", "VARCHAR", ["0x10", "inf", "1_000", "", "12a", "2024-01-01", "12\u00a0", "5e", "\u0661"], ["007", "1e5", " 12 ", "5.", ".5", "+5", "\t12\n", "\x0b12", "1.0"]),
        ("numeric text", "JSON", ["[1]", '"1"'], ["7", " 1.0 "]),
        ("numeric", "DECIMAL(38,10)", [D("12345.6789012345"), D("100000000000000000000"), D("-0.5"), D("0")], [D("123456.6789012345"), D("1234567890123456")]),
        ("int64", "UBIGINT", [0, 2**63 - 1], [2**63, 2**64 - 1]),
        ("", "VARCHAR", ["007"], []),
    ],
    ids=["text", "JSON", "decimal", "uint64", "exact"],
)  # fmt: skip
def test_what_the_back_end_would_change_is_refused(held_as, kind, good, bad):
    schema = one(Column("x", kind, held_as=held_as))

    def frame(values):
        return pa.table({"id": [f"k{i}" for i in range(len(values))], "x": pa.array(values, schema["x"].arrow)})

    assert [row["x"] for row in read(frame(good), schema)] == good
    for value in bad:
        with pytest.raises(SchemaError, match=r"in row 'k0'"):
            normalise(frame([value]), schema)


def test_sqlite_reads_as_numbers_what_we_refuse_and_nothing_else():
    import sqlite3

    schema = one(Column("x", "VARCHAR", held_as="numeric text"))
    database = sqlite3.connect(":memory:")
    database.execute("create table t (x numeric)")
    parts = ["", "0", "12", ".", "e", "E5", "+", "-", " ", "\t", "\x0b", "x", "1_0", "inf", "\u00a0", "e+5"]
    for text in {a + b + c for a in parts for b in parts for c in parts}:
        database.execute("delete from t")
        database.execute("insert into t values (?)", (text,))
        kept = database.execute("select typeof(x) from t").fetchone()[0] == "text"
        try:
            normalise(pa.table({"id": ["a"], "x": [text]}), schema)
            taken = True
        except SchemaError:
            taken = False
        assert taken == kept, repr(text)


def test_values_that_were_handed_out_just_so_are_not_refused_and_others_are():
    """A back end may hold what the schema forbids; a frame that nobody edited stages nothing."""
    schema = Schema((ID, Column("x", "VARCHAR", nullable=False), Column("j", "JSON")), ("id",))
    rows = rows_of(schema, id=["a", "b", "c"], x=["x", None, None], j=["zz", "1", None])
    frame = hand_out(rows, schema)

    assert normalise(frame, schema, snapshot=Snapshot(rows, 1)).rows.equals(rows)
    assert len(read(frame.iloc[::-1], schema, snapshot=Snapshot(rows, 1))) == 3
    with pytest.raises(SchemaError, match="1 value does not fit: NULL in row 'a'"):
        normalise(frame.iloc[::-1].assign(x=None), schema, snapshot=Snapshot(rows, 1))
    with pytest.raises(SchemaError, match="'zz' in row 'a'"):
        normalise(frame.assign(x="x"), schema)


# Other frames


def test_polars_arrow_and_duckdb_are_read_exactly():
    import duckdb

    held = repeated(6, nulls=True)
    frame = pl.DataFrame(held)
    connection = duckdb.connect()
    connection.execute("set timezone = 'America/New_York'")
    sources = {
        "polars": frame,
        "table": held,
        "chunks": pa.concat_tables([held.slice(0, 2), held.slice(2)]),
        "reader": held.to_reader(),
        "batch": held.combine_chunks().to_batches()[0],
        "relation": connection.from_arrow(held),
    }

    for name, source in sources.items():
        assert normalise(source, ALL).rows.equals(held), name


def test_polars_categories_strings_and_nanoseconds():
    schema = Schema(
        (ID, Column("e", "ENUM", labels=("a", "b")), Column("t", "TIME"), Column("ts", "TIMESTAMP")), ("id",)
    )
    frame = pl.DataFrame(
        {"id": ["k"], "e": pl.Series(["a"], dtype=pl.Categorical), "t": [dt.time(1)], "ts": [dt.datetime(2024, 1, 1)]}
    ).with_columns(pl.col("ts").cast(pl.Datetime("ns")))
    more = pl.concat([frame, frame.with_columns(id=pl.lit("l"), e=pl.lit("b", dtype=pl.Categorical))], rechunk=False)

    assert [row["e"] for row in read(more, schema)] == ["a", "b"]
    assert read(frame, schema) == [{"id": "k", "e": "a", "t": dt.time(1), "ts": dt.datetime(2024, 1, 1)}]


def test_nan_and_minus_zero_of_a_snapshot():
    schema = one("DOUBLE")

    rows = rows_of(schema, id=["a", "b"], x=[float("nan"), -0.0])

    assert rows["x"].to_pylist() == [None, 0.0]
