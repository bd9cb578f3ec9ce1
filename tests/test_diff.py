"""The diff: laws 1 to 3, what it shows and queues, its guards, and walks of edits as pandas users make them."""

import collections
import concurrent.futures
import contextlib
import copy
import datetime as dt
import decimal
import io
import pickle
import random
import uuid
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncframe.diff import diff, guard, refuse_repeated
from syncframe.errors import DeleteGuardError, KeyColumnError, SchemaError
from syncframe.frame import Snapshot, Token, TokenText, declared, hand_out, normalise
from syncframe.schema import Column, Schema

D = decimal.Decimal
UTC = dt.UTC
ID = Column("id", "VARCHAR", nullable=False)
TODO = Schema((ID, Column("title", "VARCHAR"), Column("done", "BOOLEAN"), Column("rank", "BIGINT")), ("id",))
VERSIONS = ["v1", "v2", "v3", "v4"]


def table(schema, **columns):
    return declared(
        pa.table({n: pa.array(v, schema[n].arrow if n in schema else None) for n, v in columns.items()}), schema
    )


@pytest.fixture
def todo():
    return table(
        TODO,
        id=["a", "b", "c", "d"],
        title=["milk", "eggs", None, "tea"],
        done=[True, None, False, None],
        rank=[1, 2, None, 4],
        _syncframe_version=VERSIONS,
    )


def changes_of(base, frame, schema=TODO, **options):
    return diff(base, normalise(frame, schema, snapshot=Snapshot(base, 1)).rows, schema, **options)


# What changed


def test_updates_inserts_and_deletes_are_found_and_shown(todo):
    frame = hand_out(todo, TODO)
    frame.loc["a", ["title", "rank"]] = ["cream", None]
    frame.loc["c", "title"] = "ham"
    frame = frame.drop("b")
    frame.loc["e"] = ["jam", False, 5]

    changes = changes_of(todo, frame)

    assert changes.counts == {"insert": 1, "update": 2, "delete": 1}
    assert bool(changes)
    assert changes.cells.to_dict("records") == [
        {"key": "a", "column": "title", "base": "milk", "local": "cream"},
        {"key": "a", "column": "rank", "base": 1, "local": None},
        {"key": "c", "column": "title", "base": None, "local": "ham"},
    ]
    assert changes.inserts.reset_index().to_dict("records") == [{"id": "e", "title": "jam", "done": False, "rank": 5}]
    assert changes.updates.index.tolist() == ["a", "c"]
    assert changes.updates["title"].tolist() == ["cream", "ham"]
    assert changes.updates["done"].tolist() == [True, False]
    assert changes.deletes.reset_index()[["id", "title", "rank"]].to_dict("records") == [
        {"id": "b", "title": "eggs", "rank": 2}
    ]
    assert changes.deletes.dtypes.equals(hand_out(todo, TODO).dtypes)
    assert changes.left == []
    assert repr(changes) == (
        "Changes: 1 deletes, 1 inserts, 2 updates\n"
        "  deletes: 'b'\n"
        "  inserts: 'e': title 'jam', done False, rank 5\n"
        "  updates: 'a': title 'milk' -> 'cream', rank 1 -> NULL\n"
        "  updates: 'c': title NULL -> 'ham'"
    )


def test_an_unedited_frame_changes_nothing_and_says_so(todo):
    changes = changes_of(todo, hand_out(todo, TODO))

    assert not changes
    assert repr(changes) == "Changes: 0 deletes, 0 inserts, 0 updates"
    assert ">Changes: 0 deletes, 0 inserts, 0 updates</p>" in changes._repr_html_()
    assert changes.cells.columns.tolist() == ["key", "column", "base", "local"]
    assert len(changes.cells) == len(changes.inserts) == len(changes.updates) == len(changes.deletes) == 0
    assert len(changes.operations()) == 0


def test_the_display_names_a_few_of_many_and_escapes_html(todo):
    many = table(TODO, id=[f"<{i}>" for i in range(50)], title=["x"] * 50, done=[None] * 50, rank=[0] * 50)
    frame = hand_out(many, TODO).assign(title="y" * 100)

    changes = changes_of(many, frame)

    text = repr(changes).splitlines()
    assert text[0] == "Changes: 0 deletes, 0 inserts, 50 updates"
    assert text[1] == "  updates: '<0>': title 'x' -> '" + "y" * 36 + "... (100 characters)"
    assert text[-1] == "  updates: and 40 more"
    assert "&lt;0&gt;" in changes._repr_html_()
    assert "<0>" not in changes._repr_html_()


def test_a_changed_key_is_a_delete_and_an_insert_and_is_named(todo):
    frame = hand_out(todo, TODO).rename(index={"a": "z"})

    changes = changes_of(todo, frame)

    assert changes.counts == {"insert": 1, "update": 0, "delete": 1}
    assert changes.key_changed == [("a", "z")]
    assert "  key changed: 'a' -> 'z'" in repr(changes)
    # The delete goes first: a unique title would have the insert refused.
    assert changes.operations()["deleted"].to_pylist() == [True, False]


def test_the_operations_that_the_queue_takes(todo):
    frame = hand_out(todo, TODO)
    frame.loc["d", "done"] = True
    frame = frame.iloc[::-1]
    frame = pd.concat(
        [
            frame.iloc[:1],
            pd.DataFrame({"title": ["jam"], "done": [None], "rank": [None]}, index=pd.Index(["e"], name="id")),
            frame.iloc[1:],
        ]
    )
    frame.loc["a", "rank"] = None
    frame = frame.drop("b")

    operations = changes_of(todo, frame).operations()

    assert operations.schema == pa.schema(
        {
            "ord": pa.int64(), "k_id": pa.large_string(), "deleted": pa.bool_(), "touched": pa.large_string(),
            "l_title": pa.large_string(), "l_done": pa.bool_(), "l_rank": pa.int64(),
            "b_title": pa.large_string(), "b_done": pa.bool_(), "b_rank": pa.int64(),
            "held_there": pa.bool_(), "held_version": pa.large_string(),
        }
    )  # fmt: skip
    assert [tuple(row.values()) for row in operations.to_pylist()] == [
        (0, "b", True, "000", None, None, None, "eggs", None, 2, True, "v2"),
        (1, "d", False, "010", None, True, None, "tea", None, 4, True, "v4"),
        (2, "e", False, "111", "jam", None, None, None, None, None, False, None),
        (3, "a", False, "001", None, None, None, "milk", True, 1, True, "v1"),
    ]


def test_the_operations_of_a_partial_frame_give_only_its_columns():
    partial = table(TODO, id=["a", "b"], rank=[1, 2])
    frame = hand_out(partial, TODO)
    frame.loc["a", "rank"] = 9
    frame.loc["n"] = [7]

    operations = changes_of(partial, frame).operations()

    assert operations.select(
        ["k_id", "touched", "l_title", "l_rank", "b_title", "b_rank", "held_version"]
    ).to_pylist() == [
        {
            "k_id": "a",
            "touched": "001",
            "l_title": None,
            "l_rank": 9,
            "b_title": None,
            "b_rank": 1,
            "held_version": None,
        },
        {
            "k_id": "n",
            "touched": "001",
            "l_title": None,
            "l_rank": 7,
            "b_title": None,
            "b_rank": None,
            "held_version": None,
        },
    ]


def test_a_table_wider_than_64_columns():
    schema = Schema((ID, *(Column(f"c{i}", "INTEGER") for i in range(100))), ("id",))
    base = table(schema, id=["a"], **{f"c{i}": [i] for i in range(100)})
    frame = hand_out(base, schema)
    frame.loc["a", "c70"] = -1

    operations = changes_of(base, frame, schema).operations()

    assert operations["touched"].to_pylist() == ["0" * 70 + "1" + "0" * 29]


def test_a_table_that_is_only_a_key():
    schema = Schema((ID,), ("id",))
    base = table(schema, id=["a", "b"])

    changes = changes_of(base, pd.DataFrame({"id": ["b", "c"]}), schema)

    assert changes.counts == {"insert": 1, "update": 0, "delete": 1}
    assert changes.key_changed == []
    assert changes.operations()["touched"].to_pylist() == ["", ""]


def test_compound_keys_are_tuples():
    schema = Schema((Column("y", "INTEGER"), Column("s", "VARCHAR"), Column("x", "DOUBLE")), ("y", "s"))
    base = table(schema, y=[1, 1, 2], s=["a", "b", "a"], x=[0.5, 1.5, 2.5])
    frame = hand_out(base, schema).iloc[::-1]
    frame.loc[(1, "b"), "x"] = None
    frame = frame.drop((2, "a"))
    frame.loc[(3, "a"), "x"] = 2.5

    changes = changes_of(base, frame, schema)

    assert changes.cells.to_dict("records") == [{"key": (1, "b"), "column": "x", "base": 1.5, "local": None}]
    assert changes.key_changed == [((2, "a"), (3, "a"))]
    assert changes.inserts.index.tolist() == [(3, "a")]
    assert changes.operations().select(["k_y", "k_s"]).to_pylist() == [
        {"k_y": 2, "k_s": "a"}, {"k_y": 1, "k_s": "b"}, {"k_y": 3, "k_s": "a"},
    ]  # fmt: skip


def test_deletes_may_be_left_alone(todo):
    assert changes_of(todo, hand_out(todo, TODO).head(1), deletes=False).counts == {
        "insert": 0,
        "update": 0,
        "delete": 0,
    }


def test_a_frame_never_touches_columns_that_it_has_not(todo):
    frame = hand_out(todo, TODO)[["rank"]].copy()
    frame.loc["a", "rank"] = 10

    changes = changes_of(todo, frame)

    assert changes.cells.to_dict("records") == [{"key": "a", "column": "rank", "base": 1, "local": 10}]
    assert changes.updates.loc["a"].tolist() == ["milk", True, 10]
    assert changes.operations()["touched"].to_pylist() == ["001"]


def test_changes_are_not_changed_by_further_edits_of_the_frame(todo):
    frame = hand_out(todo, TODO)
    frame["rank"] = frame["rank"] + 10
    fresh = pd.concat([frame, frame.rename(index=lambda key: key + "2")])
    fresh.index.name = "id"
    everything = changes_of(todo, fresh)
    inserted = diff(todo.slice(0, 0), normalise(frame, TODO).rows, TODO)

    fresh["rank"].array[:] = 0
    frame["rank"].array[:] = 0

    assert inserted.inserted["rank"].to_pylist() == [11, 12, None, 14]
    assert everything.new["rank"].to_pylist() == [11, 12, 14]


def test_a_column_that_was_not_handed_out_is_refused():
    partial = table(TODO, id=["a"], rank=[1])

    with pytest.raises(SchemaError, match=r"'title' were not handed out.*\n.*table.frame\(columns="):
        changes_of(partial, hand_out(partial, TODO).assign(title="x"))


def test_nan_and_minus_zero_of_the_base_are_no_changes():
    schema = Schema((ID, Column("f", "DOUBLE"), Column("u", "UUID")), ("id",))
    low = str(uuid.UUID(int=0xABC))
    base = pa.table(
        {
            "id": pa.array(["a", "b"], pa.large_string()),
            "f": [float("nan"), -0.0],
            "u": pa.array([low.upper()] * 2, pa.large_string()),
        }
    )

    assert not changes_of(base, pd.DataFrame({"id": ["b", "a"], "f": [0.0, None], "u": [low, low]}), schema)


# Keys


def test_repeated_keys_are_refused_and_named(todo):
    frame = hand_out(todo, TODO)
    new = frame.rename(index=lambda key: "new")

    with pytest.raises(KeyColumnError, match=r"a key is repeated: 'b'\n.*duplicated"):
        changes_of(todo, pd.concat([frame, frame.loc[["b"]]]))
    with pytest.raises(KeyColumnError, match="a key is repeated: 'new'"):
        changes_of(todo, pd.concat([frame, new]))
    with pytest.raises(KeyColumnError, match="keys are repeated: 'a', 'b', 'c', 'd'"):
        refuse_repeated(pa.concat_tables([todo, todo]).select(["id"]))
    refuse_repeated(todo.select(["id"]))


def test_keys_that_were_not_made_are_refused(todo):
    frame = hand_out(todo, TODO).reset_index()
    frame.loc[0, "id"] = None

    with pytest.raises(KeyColumnError, match="'id' is empty"):
        changes_of(todo, frame)


BIG = Schema((Column("id", "BIGINT", nullable=False), Column("n", "BIGINT"), Column("u", "UBIGINT")), ("id",))


@pytest.mark.parametrize("column", ["n", "u"])
def test_an_integer_that_pandas_rounded_is_refused_and_an_edit_is_not(column):
    base = table(BIG, id=[1, 2], n=[2**53 + 1, 5], u=[2**53 + 1, 2**64 - 1])
    rounded = hand_out(base, BIG)
    rounded.loc[1, column] = 2**53
    edited = hand_out(base, BIG)
    edited.loc[1, column] = 2**53 + 2
    edited.loc[2, column] = 2**62

    with pytest.raises(SchemaError, match="9007199254740993 became 9007199254740992 in rows 1; that is what a float"):
        changes_of(base, rounded, BIG)
    assert changes_of(base, edited, BIG).counts["update"] == 2


def test_a_key_that_pandas_rounded_is_refused():
    base = table(BIG, id=[2**53 + 1, 7], n=[1, 2], u=[1, 2])

    with pytest.raises(KeyColumnError, match="9007199254740992 is what a float makes of a key"):
        changes_of(base, hand_out(base, BIG).rename(index={2**53 + 1: 2**53}), BIG)
    assert changes_of(base, hand_out(base, BIG).rename(index={7: 2**60}), BIG).counts["delete"] == 1


# The guard


@pytest.mark.parametrize(
    ("rows", "deletes", "allowed", "refused"),
    [
        (1, 1, None, False), (2, 2, None, True), (2, 1, None, False), (10, 9, None, False), (10, 10, None, True),
        (10, 10, 9, True), (10, 10, 10, False), (20, 10, None, False), (20, 11, None, True), (100, 20, None, False),
        (100, 21, None, True), (1000, 100, None, False), (1000, 101, None, True), (1000, 101, 101, False),
        (1000, 5, 4, True), (3, 1, 0, True), (3, 0, 0, False), (0, 0, None, False),
    ],
)  # fmt: skip
def test_the_delete_guard(rows, deletes, allowed, refused):
    schema = Schema((ID,), ("id",))
    base = table(schema, id=[f"k{i:04}" for i in range(rows)])
    changes = diff(base, base.slice(deletes), schema)

    if not refused:
        return guard(changes, rows, allowed)
    with pytest.raises(DeleteGuardError) as stopped:
        guard(changes, rows, allowed)
    text = str(stopped.value)
    assert f"delete {deletes:,} of the {rows:,} rows" in text
    assert "'k0000'" in text
    assert all(way in text for way in ('deletes="ignore"', f"max_deletes={deletes}", "stage the whole frame"))
    return None


# Many rows, and several threads


def test_a_large_shuffled_frame_with_edits_inserts_and_deletes_in_several_threads():
    rows = 20_000
    base = table(
        TODO, id=[f"k{i}" for i in range(rows)], title=["x"] * rows, done=[None] * rows, rank=list(range(rows))
    )
    frame = hand_out(base, TODO)
    frame.loc[["k5", "k19999"], "title"] = "edited"
    new = pd.DataFrame({"title": ["n"] * 30}, index=pd.Index([f"n{i}" for i in range(30)], name="id"))
    frame = pd.concat([frame.iloc[10:], frame.iloc[4:6], new]).sample(frac=1, random_state=1)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: changes_of(base, frame), range(16)))

    for changes in found:
        assert changes.counts == {"insert": 30, "update": 2, "delete": 8}
        assert sorted(changes.cells["key"]) == ["k19999", "k5"]
        assert changes.deletes.index.tolist() == ["k0", "k1", "k2", "k3", "k6", "k7", "k8", "k9"]
        order = changes.operations()["k_id"].to_pylist()
        assert order == changes.deletes.index.tolist() + [
            key for key in frame.index if key[0] == "n" or key in ("k5", "k19999")
        ]


# Law 1: an unedited frame stages nothing, whatever its types, order or origin

KINDS = {
    "i": ("BIGINT", [2**53 + 1, None, -5, 0, 7]),
    "b": ("BOOLEAN", [True, None, False, None, True]),
    "f": ("DOUBLE", [0.1, None, -0.0, float("inf"), 1e300]),
    "s": ("VARCHAR", ["", None, "nan", "é", "NULL"]),
    "ts": ("TIMESTAMP", [dt.datetime(1, 1, 1), None, dt.datetime(2024, 1, 1, 0, 0, 0, 1), None, None]),
    "tz": ("TIMESTAMPTZ", [dt.datetime(2024, 1, 1, 0, 0, 0, 1, UTC), None, None, None, None]),
    "e": ("ENUM", ["new", None, "paid", None, "new"]),
    "j": ("JSON", ["null", None, "[1]", "{}", '"x"']),
    "bin": ("BLOB", [b"", None, bytes(range(256)), b"x", None]),
    "none": ("INTEGER", [None] * 5),
}
DATED = {
    "d": ("DATE", [dt.date(1, 1, 1), None, dt.date(2024, 2, 29), None, dt.date(9999, 12, 31)]),
    "t": ("TIME", [dt.time(23, 59, 59, 999999), None, dt.time(0), None, None]),
    "dec": ("DECIMAL(38,10)", [D("1.5"), None, D("-0.0000000001"), D("9" * 28), None]),
}


def wide(kinds):
    columns = [Column(n, kind, labels=("new", "paid") if kind == "ENUM" else ()) for n, (kind, _) in kinds.items()]
    schema = Schema((ID, *columns), ("id",))
    return schema, table(schema, id=list("edcba"), **{n: values for n, (_, values) in kinds.items()})


UNEDITED = {
    "copy": lambda d: d.copy(),
    "deepcopy": copy.deepcopy,
    "sort": lambda d: d.sort_values("i"),
    "sort_index": lambda d: d.sort_index(),
    "reset_index": lambda d: d.reset_index(),
    "reset_index and sort": lambda d: d.reset_index().sort_values("s", ignore_index=True),
    "set_index": lambda d: d.reset_index().set_index("id"),
    "query and concat back": lambda d: pd.concat([d[d["i"] > 0], d[~(d["i"] > 0).fillna(False)]]),
    "concat of halves": lambda d: pd.concat([d.iloc[3:], d.iloc[:3]]),
    "parquet": lambda d: pd.read_parquet(io.BytesIO(d.to_parquet())),
    "parquet after reset_index": lambda d: pd.read_parquet(io.BytesIO(d.reset_index().to_parquet())),
    "parquet in Arrow types": lambda d: pd.read_parquet(io.BytesIO(d.to_parquet()), dtype_backend="pyarrow"),
    "pickle": lambda d: pickle.loads(pickle.dumps(d)),
    "Arrow table": lambda d: pa.Table.from_pandas(d),
    "Arrow and back": lambda d: pa.Table.from_pandas(d).to_pandas(types_mapper=pd.ArrowDtype),
    "objects": lambda d: d.astype(object),
    "infer_objects": lambda d: d.astype(object).infer_objects(),
    "polars": lambda d: pl.from_pandas(d.reset_index()),
    "reindex": lambda d: d.reindex(sorted(d.index)),
    "a column set to itself": lambda d: d.assign(**{name: d[name] for name in d}),
    "columns in another order": lambda d: d[sorted(d.columns)],
    "some columns": lambda d: d[["i"]],
    "no columns": lambda d: d[[]],
    "category key": lambda d: d.reset_index().astype({"id": "category"}).set_index("id"),
}
CONVERTED = {
    "convert_dtypes": lambda d: d.convert_dtypes(),
    "convert_dtypes to Arrow": lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
    "to Arrow and back": lambda d: d.convert_dtypes(dtype_backend="pyarrow").astype(d.dtypes),
    "python strings": lambda d: d.astype({"s": "string[python]"}),
    "other units": lambda d: d.assign(tz=d["tz"].dt.tz_convert("Asia/Tokyo")),
}


@pytest.mark.parametrize("dtypes", ["pandas", "pyarrow"])
@pytest.mark.parametrize("derive", UNEDITED.values(), ids=UNEDITED)
def test_an_unedited_frame_of_all_types(derive, dtypes):
    schema, base = wide(KINDS | DATED)

    changes = changes_of(base, derive(hand_out(base, schema, dtypes=dtypes)), schema)

    assert changes.counts == {"insert": 0, "update": 0, "delete": 0}


@pytest.mark.parametrize("dtypes", ["pandas", "pyarrow"])
@pytest.mark.parametrize("derive", CONVERTED.values(), ids=CONVERTED)
def test_an_unedited_frame_whose_dtypes_were_converted(derive, dtypes):
    """Without decimal, date and time: pandas' own convert_dtypes raises on them."""
    schema, base = wide(KINDS)
    try:
        frame = derive(hand_out(base, schema, dtypes=dtypes))
    except KeyError:
        pytest.skip("pandas' own convert_dtypes raises on timestamp[us][pyarrow], too")

    changes = changes_of(base, frame, schema)

    assert changes.counts == {"insert": 0, "update": 0, "delete": 0}


# Laws 1 and 2 by property

CELLS = {
    "i": ("BIGINT", st.integers(-(2**63), 2**63 - 1)),
    "u": ("UBIGINT", st.integers(0, 2**64 - 1)),
    "f": ("DOUBLE", st.floats()),
    "s": ("VARCHAR", st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    "b": ("BOOLEAN", st.booleans()),
    "bin": ("BLOB", st.binary(max_size=4)),
    "d": ("DATE", st.dates()),
    "t": ("TIME", st.times()),
    "ts": ("TIMESTAMP", st.datetimes()),
    "tz": ("TIMESTAMPTZ", st.datetimes(timezones=st.just(UTC))),
    "dec": ("DECIMAL(38,10)", st.decimals(-(10**27), 10**27, places=10)),
}
LAWFUL = Schema((ID, *(Column(n, kind) for n, (kind, _) in CELLS.items())), ("id",))
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
ROWS = st.dictionaries(
    KEYS, st.fixed_dictionaries({n: st.none() | cells for n, (_, cells) in CELLS.items()}), max_size=6
)


def as_table(rows, schema, keys):
    columns = {k: [key[i] for key in rows] for i, k in enumerate(keys)}
    columns |= {n: [row[n] for row in rows.values()] for n in schema.values}
    return table(schema, **columns)


def applied(base, changes, keys, columns):
    """Law 2's `apply`, on Python rows and from what people see: inserted rows, deleted keys and cells."""
    key = (lambda row: tuple(row[k] for k in keys)) if len(keys) > 1 else (lambda row: (row[keys[0]],))
    rows = {k: dict(row) for k, row in base.items()}
    for row in changes.deleted.to_pylist():
        del rows[key(row)]
    for cell in changes.cells.to_dict("records"):
        at = cell["key"] if len(keys) > 1 else (cell["key"],)
        assert rows[at][cell["column"]] == cell["base"] or cell["base"] is None
        rows[at][cell["column"]] = cell["local"]
    for row in changes.inserted.to_pylist():
        rows[key(row)] = {n: row[n] for n in columns}
    return rows


def nan_as_null(rows):
    return {(k,): {n: None if v != v else v for n, v in row.items()} for k, row in rows.items()}


@settings(max_examples=150, deadline=None)
@given(a=ROWS, b=ROWS, shared=st.randoms(use_true_random=False))
def test_applying_the_diff_of_two_frames_to_one_gives_the_other(a, b, shared):
    b |= {key: dict(row) for key, row in a.items() if shared.random() < 0.6}
    for row in b.values():
        row |= {n: None for n in row if shared.random() < 0.1}
    a, b = nan_as_null(a), nan_as_null(b)
    base, other = as_table(a, LAWFUL, ["id"]), as_table(b, LAWFUL, ["id"])
    frame = hand_out(other, LAWFUL).sample(frac=1, random_state=shared.randrange(100))

    # An integer that equals the rounded one of the base is refused by rule.
    try:
        changes = changes_of(base, frame, LAWFUL)
    except SchemaError as refused:
        assert "that is what a float makes of it" in str(refused)
        return

    assert applied(a, changes, ["id"], LAWFUL.values) == b


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, dtypes=st.sampled_from(["pandas", "pyarrow"]), seed=st.integers(0, 99))
def test_a_shuffled_frame_of_any_values_is_unedited(rows, dtypes, seed):
    base = as_table(nan_as_null(rows), LAWFUL, ["id"])

    frame = hand_out(base, LAWFUL, dtypes=dtypes).sample(frac=1, random_state=seed)

    assert not changes_of(base, frame, LAWFUL)


# Edits by all the ways of pandas

EDITS = {
    "loc": lambda d: d.loc.__setitem__(("a", "rank"), 9),
    "at": lambda d: d.at.__setitem__(("a", "rank"), 9),
    "iloc": lambda d: d.iloc.__setitem__((0, 2), 9),
    "mask": lambda d: d.loc.__setitem__((d["title"] == "milk", "rank"), 9),
    "array": lambda d: d["rank"].array.__setitem__(0, 9),
    "assign": lambda d: d.assign(rank=[9, *d["rank"][1:]]),
    "objects": lambda d: d.assign(rank=pd.Series([9, 2, None, 4], index=d.index, dtype=object)),
    "floats": lambda d: d.assign(rank=[9.0, 2.0, np.nan, 4.0]),
    "Float64": lambda d: d.assign(rank=(d["rank"] * 1.0).where(d.index != "a", 9.0)),
    "int64[pyarrow]": lambda d: d.assign(rank=pd.array([9, 2, None, 4], dtype="int64[pyarrow]")),
    "polars": lambda d: pl.from_pandas(d.reset_index()).with_columns(rank=pl.Series([9, 2, None, 4])),
    "Arrow": lambda d: pa.table({"id": list("abcd"), "rank": [9, 2, None, 4]}),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_one_edited_cell_is_one_changed_cell(edit, todo):
    frame = hand_out(todo, TODO)
    returned = edit(frame)

    changes = changes_of(todo, frame if returned is None else returned)

    assert changes.cells.to_dict("records") == [{"key": "a", "column": "rank", "base": 1, "local": 9}]


@pytest.mark.parametrize(
    "derive",
    [
        lambda d: d.groupby("title").sum(), lambda d: d.melt(), lambda d: d.T, lambda d: d.describe(),
        lambda d: d[["rank"]].describe(), lambda d: d.rename(columns={"rank": "r"}), lambda d: d.assign(more=1),
        lambda d: d.pivot_table(index="title", values="rank"), lambda d: d.sort_values("rank", ignore_index=True),
        lambda d: d.assign(rank=d["rank"] / 2), lambda d: d.stack(), lambda d: d.agg({"rank": ["min", "max"]}),
    ],
    ids=["groupby", "melt", "T", "describe", "describe of one", "rename", "another column", "pivot", "ignore_index", "halves",
         "stack", "agg"],
)  # fmt: skip
def test_what_is_no_longer_the_table_is_refused_and_never_a_delete(derive, todo):
    frame = hand_out(todo, TODO, Token(TokenText("s", "todo", "1", 1), Snapshot(todo, 1)))

    with pytest.raises(SchemaError):
        changes_of(todo, derive(frame))


# Random walks: up to eight edits of a frame, mirrored on Python rows, and the diff held to the mirror

POOL = {
    "i8": ("TINYINT", [-128, 127, 0, 1]),
    "i64": ("BIGINT", [2**53 + 1, -(2**63), 2**63 - 1, 0, 5]),
    "u64": ("UBIGINT", [2**64 - 1, 2**53 + 1, 0]),
    "f64": ("DOUBLE", [-0.0, 0.0, 1.5, float("inf"), -float("inf"), 1e300, 2.0**53, 0.1]),
    "f32": ("FLOAT", [0.5, -0.0, 1.25, float("inf")]),
    "b": ("BOOLEAN", [True, False]),
    "s": ("VARCHAR", ["", "é", "a'b", "x" * 50, "nan", "None"]),
    "u": ("UUID", [str(uuid.UUID(int=i)) for i in range(4)]),
    "j": ("JSON", ['{"a": 1}', "[1,null]", "null", '"x"']),
    "e": ("ENUM", ["new", "paid", "sent"]),
    "dec": ("DECIMAL(20,2)", [D("0.10"), D("999999999999999999.99"), D("-1.00")]),
    "d": ("DATE", [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2024, 2, 29)]),
    "t": ("TIME", [dt.time(0, 0), dt.time(23, 59, 59, 999999)]),
    "ts": ("TIMESTAMP", [dt.datetime(1, 1, 1), dt.datetime(2024, 1, 1, 0, 0, 0, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)]),
    "tz": ("TIMESTAMPTZ", [dt.datetime(2024, 1, 1, 0, 0, 0, 1, UTC), dt.datetime(1, 1, 2, tzinfo=UTC)]),
    "bin": ("BLOB", [b"", b"\x00\xff", bytes(range(256))]),
}  # fmt: skip
WALKED = [Column(n, kind, labels=("new", "paid", "sent") if kind == "ENUM" else ()) for n, (kind, _) in POOL.items()]
DAY, HOUR = dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=UTC)
WALK_KEYS = {
    "text": ([ID], lambda r: (f"k{r.randrange(10**6):06}",)),
    "number": ([Column("id", "BIGINT")], lambda r: (2**53 + r.randrange(10**6),)),
    "compound": (
        [Column("k1", "INTEGER"), Column("k2", "VARCHAR")],
        lambda r: (r.randrange(50), f"é{r.randrange(10**5)}"),
    ),
    "times": (
        [Column("k1", "DATE"), Column("k2", "TIMESTAMPTZ")],
        lambda r: (DAY + dt.timedelta(r.randrange(900)), HOUR + dt.timedelta(microseconds=r.randrange(10**9))),
    ),
}
PANDAS_RAISES = (ValueError, TypeError, OverflowError, KeyError, pa.ArrowException)


class Walk:
    """One frame and the rows it should have."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        columns, self.make = WALK_KEYS[self.random.choice(list(WALK_KEYS))]
        self.key = [column.name for column in columns]
        chosen = self.random.sample(WALKED, self.random.randint(1, len(WALKED)))
        self.schema = Schema((*columns, *chosen), tuple(self.key))
        self.base = {}
        while len(self.base) < self.random.choice([0, 1, 2, 10, 60]):
            self.base[self.make(self.random)] = self.row()
        self.snapshot = as_table(self.base, self.schema, self.key)
        self.frame = hand_out(self.snapshot, self.schema)
        self.rows = {key: dict(row) for key, row in self.base.items()}

    def row(self):
        return {name: self.value(name) for name in self.schema.values}

    def value(self, name):
        return None if self.random.random() < 0.25 else self.random.choice(POOL[name][1])

    def some(self):
        return np.array([self.random.random() < 0.3 for _ in self.rows], dtype=bool)

    def column(self):
        return self.random.choice(self.schema.values)

    @property
    def is_indexed(self):
        return list(self.frame.index.names) == self.key

    def step(self):
        steps = [self.set_cell, self.set_cell, self.set_mask, self.set_column, self.clear_column, self.append, self.drop,
                 self.shuffle, self.move_key, self.convert, self.to_arrow, self.parquet, self.pickled, self.halves]  # fmt: skip
        self.random.choice(steps)()

    def set_cell(self):
        if not self.rows or self.has_arrow_integers():
            return
        at, name = self.random.randrange(len(self.rows)), self.column()
        value = self.value(name)
        self.frame.iloc[at, self.frame.columns.get_loc(name)] = value
        list(self.rows.values())[at][name] = value

    def set_mask(self):
        if not self.rows or self.has_arrow_integers():
            return
        some, name = self.some(), self.column()
        value = self.value(name)
        self.frame.loc[some, name] = value
        for row, is_set in zip(self.rows.values(), some, strict=True):
            row |= {name: value} if is_set else {}

    def has_arrow_integers(self):
        """pandas truncates 1.25 into them."""
        return any("[pyarrow]" in str(dtype) and "int" in str(dtype) for dtype in self.frame.dtypes)

    def set_column(self):
        name = self.column()
        values = [self.value(name) for _ in self.rows]
        self.frame[name] = pd.Series(values, index=self.frame.index, dtype=object)
        for row, value in zip(self.rows.values(), values, strict=True):
            row[name] = value

    def clear_column(self):
        name = self.column()
        self.frame = self.frame.assign(**{name: None})
        for row in self.rows.values():
            row[name] = None

    def append(self):
        new = {}
        while len(new) < self.random.randint(1, 3):
            key = self.make(self.random)
            if key not in self.rows:
                new[key] = self.row()
        added = (
            self.plain(new)
            if self.random.random() < 0.5
            else hand_out(as_table(new, self.schema, self.key), self.schema)
        )
        self.frame = pd.concat([self.frame, added if self.is_indexed else added.reset_index()])
        self.rows |= new

    def plain(self, new):
        columns = self.schema.values
        index = (
            pd.MultiIndex.from_tuples(list(new), names=self.key)
            if len(self.key) > 1
            else pd.Index([k[0] for k in new], name=self.key[0])
        )
        return pd.DataFrame([row.values() for row in new.values()], columns=columns, index=index, dtype=object)

    def drop(self):
        some = self.some()
        self.frame = self.frame[~some]
        self.rows = {key: row for (key, row), gone in zip(self.rows.items(), some, strict=True) if not gone}

    def shuffle(self):
        order = self.random.sample(range(len(self.rows)), len(self.rows))
        self.frame = self.frame.iloc[order]
        keys = list(self.rows)
        self.rows = {keys[at]: self.rows[keys[at]] for at in order}

    def move_key(self):
        self.frame = self.frame.reset_index() if self.is_indexed else self.frame.set_index(self.key)

    def convert(self):
        # It raises on decimals and times; the frame is then as it was.
        with contextlib.suppress(KeyError):
            self.frame = self.frame.convert_dtypes()

    def to_arrow(self):
        if "object" not in map(str, self.frame.dtypes):
            with contextlib.suppress(KeyError):
                self.frame = self.frame.convert_dtypes(dtype_backend="pyarrow")

    def parquet(self):
        self.frame = pd.read_parquet(io.BytesIO(self.frame.to_parquet()))

    def pickled(self):
        self.frame = pickle.loads(pickle.dumps(self.frame))

    def halves(self):
        half = len(self.rows) // 2
        self.frame = pd.concat([self.frame.iloc[:half], self.frame.iloc[half:]])


def walked(seed):
    """How a walk ended; asserts that what was staged is what was edited."""
    walk = Walk(seed)
    try:
        for _ in range(walk.random.randint(0, 8)):
            walk.step()
    except PANDAS_RAISES:
        return "pandas raised"
    try:
        changes = changes_of(walk.snapshot, walk.frame, walk.schema)
    except SchemaError as refused:
        # pandas had made floats of integers; both are refused in words.
        assert any(words in str(refused) for words in ("not exact", "what a float makes of it")), refused
        return "refused"
    assert applied(walk.base, changes, walk.key, walk.schema.values) == walk.rows, seed
    edited = {
        (k, n)
        for k in walk.rows.keys() & walk.base.keys()
        for n in walk.schema.values
        if walk.rows[k][n] != walk.base[k][n]
    }
    told = {(cell.key if len(walk.key) > 1 else (cell.key,), cell.column) for cell in changes.cells.itertuples()}
    assert told == edited, seed
    return "right"


@pytest.mark.parametrize("runs_max", [1_000, 1], ids=["by slices", "by take"])
def test_random_walks_of_edits_are_staged_exactly_or_refused_in_words(runs_max, monkeypatch):
    monkeypatch.setattr("syncframe.diff.RUNS_MAX", runs_max)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ends = collections.Counter(walked(seed) for seed in range(300))

    assert ends["right"] >= 280, ends
