"""Staging through the whole house: what an unedited frame stages (nothing), and what each edit stages.

Every table here is in a tracked SQLite file and was pulled; `there(...)` is what another client does to it.
"""

import datetime as dt
import io
import pickle
import sqlite3
import time
import uuid

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import syncframe as sf
from syncframe.backends import open as open_backend

ROWS = 24
TODO = "create table todo (id text primary key, title varchar, done boolean, n bigint, due date)"
WORDS = ["milk", "bread", "eggs", "salt", "", None]


class House:
    """A tracked SQLite file, and one context that has pulled its table."""

    def __init__(self, folder, statements, store=":memory:", table="todo"):
        self.path, self.store, self.name = folder / "remote.db", store, table
        with sqlite3.connect(self.path) as connection:
            connection.executescript(statements)
        self.url = f"sqlite:///{self.path}"
        backend = open_backend(self.url)
        backend.track([table])
        backend.close()
        self.start()

    def start(self):
        """A new kernel: snapshots and tokens of the one before are gone."""
        self.context = sf.connect(self.url, store=self.store)
        self.table = self.context[self.name]

    def pull(self, where=None):
        return self.table.pull(where, query_id=where or "all", push_first=False, progress=False)

    def there(self, *statements):
        with sqlite3.connect(self.path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    def remote(self):
        connection = sqlite3.connect(self.path)
        rows = {row[0]: row[1:] for row in connection.execute(f"select * from {self.name}")}
        connection.close()
        return rows

    def staged(self):
        """What is queued, in words: (kind, key, what is said)."""
        said = []
        for operation in self.context.pending:
            given = {n: operation.local[n] for n in operation.changed} if operation.local else {}
            said.append((operation.kind, operation.key, given))
        return sorted(said, key=lambda each: (each[0], str(each[1])))


def todo_rows(count=6):
    """a milk, b bread ...: done and n alternate with NULL, due is the day of the row."""
    lines = []
    for i in range(count):
        title = "null" if WORDS[i % 6] is None else f"'{WORDS[i % 6]}'"
        done = ("0", "1", "null")[i % 3]
        n = "null" if i % 4 == 3 else str(i)
        due = "null" if i % 5 == 4 else f"'2024-01-{i + 1:02}'"
        lines.append(f"('{chr(97 + i)}', {title}, {done}, {n}, {due})")
    return f"{TODO}; insert into todo values {', '.join(lines)};"


@pytest.fixture
def house(tmp_path):
    """Six rows: a milk, b bread, c eggs, d salt, e '', f NULL."""
    made = House(tmp_path, todo_rows())
    made.pull()
    yield made
    made.context.close()


# An unedited frame stages nothing ---------------------------------------------------------------------------------------

EVERY_TYPE = """
create table things (
    id text primary key, n bigint, small smallint, done boolean, x double, word varchar, price dectext(20,2), big dectext(20,0),
    day date, at time, stamp timestamp, moment timestamptz, ref uuid, raw blob
);
"""


def things():
    """Two dozen rows, a third of the cells of each type NULL, each column in a rhythm of its own."""
    cells = {
        "n": [1, None, 2**53 + 1, -5, None],
        "small": [1, None, -32768],
        "done": [0, 1, None],
        "x": [0.1, None, -2.5e300, float("inf")],
        "word": ["a", None, "", "é\u0000b", "NULL"],
        "price": ["0.10", None, "999999999999999999.99"],
        "big": ["18446744073709551615", "0", None],
        "day": ["2024-02-29", None, "0001-01-01"],
        "at": ["01:02:03.000004", None],
        "stamp": ["2024-01-01T00:00:00", "2024-01-01T00:00:00.000001", None],
        "moment": ["2024-01-01T00:00:00Z", None, "2024-03-31T00:59:59.999999Z"],
        "ref": [str(uuid.UUID(int=7)), None],
        "raw": [b"", None, bytes(range(256))],
    }
    return [
        (f"k{i:02}", *(values[(i * (2 if j % 2 else 1) + j) % len(values)] for j, values in enumerate(cells.values())))
        for i in range(ROWS)
    ]


@pytest.fixture(scope="module")
def unedited(tmp_path_factory):
    house = House(
        tmp_path_factory.mktemp("unedited"),
        EVERY_TYPE,
        table="things",
        store=str(tmp_path_factory.mktemp("store") / "here.duckdb"),
    )
    with sqlite3.connect(house.path) as connection:
        connection.executemany(f"insert into things values ({', '.join('?' * 14)})", things())
    connection.close()
    house.pull()
    assert len(house.table) == ROWS
    yield house
    house.context.close()


def by_parquet(frame, **options):
    file = io.BytesIO()
    frame.to_parquet(file)
    return pd.read_parquet(file, **options)


def halves(frame, column):
    """A frame by three queries, put together again."""
    return pd.concat([frame.query(f"{column} > 1"), frame.query(f"{column} <= 1"), frame.query(f"{column}.isna()")])


ARROWS = {"n": "int64[pyarrow]", "done": "bool[pyarrow]", "word": "string[pyarrow]", "x": "double[pyarrow]"}
DERIVED = {
    "itself": lambda f: f,
    "copy": lambda f: f.copy(),
    "shallow copy": lambda f: f.copy(deep=False),
    "sort_values": lambda f: f.sort_values("n"),
    "sort_values by two, backwards": lambda f: f.sort_values(["word", "n"], ascending=False, na_position="first"),
    "sort_index": lambda f: f.sort_index(ascending=False),
    "sample": lambda f: f.sample(frac=1, random_state=5),
    "reset_index": lambda f: f.reset_index(),
    "reset_index and shuffled": lambda f: f.reset_index().sample(frac=1, random_state=6),
    "set_index": lambda f: f.reset_index().set_index("id"),
    "set_index on another column too": lambda f: f.reset_index().set_index(["word", "id"]),
    "query and concat back": lambda f: halves(f, "n"),
    "columns in another order": lambda f: f[f.columns[::-1]],
    "rename and back": lambda f: f.rename(columns={"n": "m"}).rename(columns={"m": "n"}),
    "assign of the same": lambda f: f.assign(n=f["n"], word=f["word"]),
    "parquet": by_parquet,
    "parquet, without the index": lambda f: by_parquet(f.reset_index()),
    "parquet, read as Arrow": lambda f: by_parquet(f, dtype_backend="pyarrow"),
    "parquet, read as nullable": lambda f: by_parquet(f, dtype_backend="numpy_nullable"),
    "pickle": lambda f: by_pickle(f),
    "to Arrow types": lambda f: f.astype({n: t for n, t in ARROWS.items() if n in f.columns}),
    "to Arrow types and back": lambda f: f.astype({n: t for n, t in ARROWS.items() if n in f.columns}).astype(f.dtypes),
    "to objects": lambda f: f.astype(object),
    "to objects and back": lambda f: f.astype(object).astype(f.dtypes),
    "an Arrow table and back": lambda f: pa.Table.from_pandas(f).to_pandas(types_mapper=pd.ArrowDtype),
}  # fmt: skip
FRAMES = {
    "whole": {},
    "where": {"where": "n > 0 or n is null"},
    "columns": {"columns": ["n", "word", "done", "day"]},
}


@pytest.mark.parametrize("derived", DERIVED.values(), ids=DERIVED)
@pytest.mark.parametrize("dtypes", ["pandas", "pyarrow"])
@pytest.mark.parametrize("part", FRAMES.values(), ids=FRAMES)
def test_an_unedited_frame_stages_nothing(unedited, part, dtypes, derived):
    frame = unedited.table.frame(**part, dtypes=dtypes)

    changes = unedited.table.stage(derived(frame))

    assert changes.counts == {"insert": 0, "update": 0, "delete": 0}
    assert len(unedited.context.pending) == 0


def by_pickle(frame):
    return pickle.loads(pickle.dumps(frame))


@pytest.fixture(scope="module")
def kept(unedited):
    """Frames that went to a file before the kernel was restarted: their snapshots are gone."""
    ways = [
        (by_parquet, "whole", "pandas"), (by_pickle, "whole", "pandas"), (by_parquet, "where", "pandas"),
        (by_pickle, "columns", "pandas"), (by_parquet, "whole", "pyarrow"), (by_pickle, "where", "pyarrow"),
    ]  # fmt: skip
    frames = [way(unedited.table.frame(**FRAMES[part], dtypes=dtypes)) for way, part, dtypes in ways]
    unedited.context.close()
    unedited.start()
    return frames


@pytest.mark.parametrize("derived", DERIVED.values(), ids=DERIVED)
def test_an_unedited_frame_stages_nothing_after_the_kernel_was_restarted(unedited, kept, derived):
    counts = [unedited.table.stage(derived(frame.copy())).counts for frame in kept]

    assert counts == [{"insert": 0, "update": 0, "delete": 0}] * 6
    assert len(unedited.context.pending) == 0


# pandas itself raises on decimal, date and time columns, and on timestamps of Arrow.
CONVERTIBLE = {
    "pandas": ["n", "small", "done", "x", "word", "ref", "raw", "stamp", "moment"],
    "pyarrow": ["n", "small", "done", "x", "word", "ref", "raw"],
}


@pytest.mark.parametrize("options", [{}, {"dtype_backend": "pyarrow"}, {"convert_integer": False}], ids=str)
@pytest.mark.parametrize("dtypes", ["pandas", "pyarrow"])
@pytest.mark.parametrize("where", [None, "n > 0 or n is null"])
def test_convert_dtypes_stages_nothing(unedited, where, dtypes, options):
    frame = unedited.table.frame(where, columns=CONVERTIBLE[dtypes], dtypes=dtypes)

    changes = unedited.table.stage(frame.convert_dtypes(**options))

    assert not changes
    assert len(unedited.context.pending) == 0


def test_a_frame_with_system_columns_and_the_pending_column_stages_nothing(unedited):
    for options in ({"system": True}, {"pending": True}, {"system": True, "pending": True}):
        frame = unedited.table.frame(**options)
        assert not unedited.table.stage(frame)
        assert not unedited.table.stage(by_parquet(frame))

    assert len(unedited.context.pending) == 0


NO_TABLE = {
    "groupby": lambda f: f.groupby("done")[["n"]].sum(),
    "groupby, as columns": lambda f: f.groupby("done", as_index=False)[["n"]].sum(),
    "melt": lambda f: f.reset_index()[["id", "n", "small"]].melt(id_vars="id"),
    "melt without the key": lambda f: f[["n", "small"]].melt(),
    "describe": lambda f: f[["n", "x"]].describe(),
    "T": lambda f: f[["n", "word"]].T,
    "value_counts": lambda f: f["word"].value_counts().to_frame(),
    "sort_values(ignore_index=True)": lambda f: f.sort_values("n", ignore_index=True),
    "reset_index(drop=True)": lambda f: f.reset_index(drop=True),
    "unstack": lambda f: f[["n"]].unstack().to_frame(),
    "pivot": lambda f: f.reset_index().pivot(index="id", columns="word", values=["n"]),
    "a Series": lambda f: f["n"],
}


@pytest.mark.parametrize("derived", NO_TABLE.values(), ids=NO_TABLE)
def test_what_is_no_table_any_more_is_refused_whatever_token_it_carries(unedited, derived):
    frame = unedited.table.frame()

    with pytest.raises(sf.SchemaError):
        unedited.table.stage(derived(frame))

    assert len(unedited.context.pending) == 0


def test_rows_numbered_anew_are_never_taken_for_integer_keys(tmp_path):
    house = House(
        tmp_path,
        f"create table todo (id bigint primary key, title varchar); insert into todo values {', '.join(f'({i}, {9 - i})' for i in range(6))};",
    )
    house.pull()
    frame = house.table.frame()

    for derived in (
        frame.sort_values("title", ignore_index=True),
        frame.reset_index(drop=True),
        pd.concat([frame, frame[:0]], ignore_index=True),
    ):
        with pytest.raises(sf.KeyColumnError, match="id") as caught:
            house.table.stage(derived)
        assert "df.index.name = 'id'" in caught.value.hint
    assert not house.table.stage(frame.sort_values("title"))
    assert len(house.context.pending) == 0


# Each edit is staged exactly ---------------------------------------------------------------------------------------------

DAY = dt.date(2030, 1, 2)


def at_loc(f):
    f.loc["a", "title"] = "oats"
    return f


def at_loc_rows(f):
    f.loc[f["n"].isna(), "title"] = "none"
    return f


def at_at(f):
    f.at["b", "n"] = 2**53 + 1
    return f


def at_array(f):
    f["title"].array[0] = "oats"
    return f


def at_array_of_integers(f):
    f["n"].array[0] = 7
    return f


def at_numpy(f):
    f["x"].to_numpy()[0] = 7.5
    return f


def by_mask(f):
    f["title"] = f["title"].mask((f["title"] == "milk").fillna(False), "oats")
    return f


def by_replace(f):
    return f.replace({"title": {"bread": "rye"}})


def by_setitem(f):
    f["done"] = True
    return f


def by_setitem_row(f):
    f.loc["g"] = ["new", None, 1, DAY]
    return f


def by_iloc(f):
    f.iloc[1:3, 2] = None
    return f


def by_map(f):
    f["title"] = f["title"].str.upper()
    return f


def by_replaced_key(f):
    return f.rename(index={"a": "z"})


EDITS = {
    ".loc": (at_loc, [("update", "a", {"title": "oats"})]),
    ".loc of rows": (at_loc_rows, [("update", "d", {"title": "none"})]),
    ".at": (at_at, [("update", "b", {"n": 2**53 + 1})]),
    ".array[0] of text": (at_array, [("update", "a", {"title": "oats"})]),
    ".array[0] of integers": (at_array_of_integers, [("update", "a", {"n": 7})]),
    "mask of a column": (by_mask, [("update", "a", {"title": "oats"})]),
    "replace": (by_replace, [("update", "b", {"title": "rye"})]),
    "a whole column": (
        by_setitem,
        [("update", k, {"done": True}) for k in "acdf"],
    ),
    "a new row by .loc": (by_setitem_row, [("insert", "g", {"title": "new", "done": None, "n": 1, "due": DAY})]),
    ".iloc to NULL": (by_iloc, [("update", "b", {"n": None}), ("update", "c", {"n": None})]),
    ".str.upper": (by_map, [("update", k, {"title": t}) for k, t in zip("abcd", ["MILK", "BREAD", "EGGS", "SALT"], strict=True)]),
    "assign": (lambda f: f.assign(n=f["n"] + 1), [("update", k, {"n": n}) for k, n in zip("abcef", [1, 2, 3, 5, 6], strict=True)]),
    "drop": (lambda f: f.drop(["a", "c"]), [("delete", "a", {}), ("delete", "c", {})]),
    "head": (lambda f: f.head(4), [("delete", "e", {}), ("delete", "f", {})]),
    "query": (lambda f: f.query("n < 5"), [("delete", "d", {}), ("delete", "f", {})]),
    "a key changed": (
        by_replaced_key,
        [("delete", "a", {}), ("insert", "z", {"title": "milk", "done": False, "n": 0, "due": dt.date(2024, 1, 1)})],
    ),
    "dropna": (lambda f: f.dropna(subset=["title"]), [("delete", "f", {})]),
    "fillna": (lambda f: f.assign(title=f["title"].fillna("?")), [("update", "f", {"title": "?"})]),
    "where to NULL": (lambda f: f.assign(done=f["done"].where(~f["done"].fillna(False))), [("update", "b", {"done": None}), ("update", "e", {"done": None})]),
}  # fmt: skip


@pytest.mark.parametrize("dtypes", ["pandas", "pyarrow"])
@pytest.mark.parametrize(("edit", "expected"), EDITS.values(), ids=EDITS)
def test_each_edit_is_staged_exactly_and_a_second_staging_stages_nothing(house, edit, expected, dtypes):
    edited = edit(house.table.frame(dtypes=dtypes))

    preview = house.table.diff(edited)
    changes = house.table.stage(edited)
    again = house.table.stage(edited)

    assert house.staged() == expected
    assert preview.counts == changes.counts
    assert sum(changes.counts.values()) == len(expected)
    assert not again
    assert house.staged() == expected


def test_what_was_staged_is_there_after_a_push_cell_by_cell(house):
    edited = by_replaced_key(at_at(at_loc_rows(by_iloc(house.table.frame())))).drop("f")
    house.table.stage(edited)

    assert house.context.push().counts == {"accepted": 6, "conflicts": 0, "rejected": 0}

    assert house.remote() == {
        "b": ("none", 1, 2**53 + 1, "2024-01-02"),
        "c": ("none", None, None, "2024-01-03"),
        "d": ("none", 0, None, "2024-01-04"),
        "e": ("", 1, 4, None),
        "z": ("milk", 0, 0, "2024-01-01"),
    }
    assert house.table.frame().equals(edited.sort_index())


@pytest.mark.parametrize(
    "edit", [at_numpy, lambda f: (np.asarray(f["x"]).__setitem__(0, 7.5), f)[1]], ids=[".to_numpy()[0]", "np.asarray()"]
)
def test_an_edit_through_a_numpy_view_is_staged_or_refused_by_pandas_and_never_lost(tmp_path, edit):
    house = House(
        tmp_path, "create table todo (id text primary key, x double); insert into todo values ('a', 0.5), ('b', 1.5);"
    )
    house.pull()
    frame = house.table.frame()

    try:
        frame = edit(frame)
    except ValueError as error:  # copy on write gives read-only views
        assert "read-only" in str(error)
        assert not house.table.stage(frame)
        return

    house.table.stage(frame)
    assert house.staged() == [("update", "a", {"x": 7.5})]


def test_an_edit_through_the_array_s_own_numpy_data_is_staged(house):
    frame = house.table.frame()

    frame["n"].array._data[0] = 9

    house.table.stage(frame)
    assert house.staged() == [("update", "a", {"n": 9})]


# New rows ---------------------------------------------------------------------------------------------------------------


def new_rows(keys, **columns):
    return pd.DataFrame({**columns}, index=pd.Index(keys, name="id"))


def test_new_rows_by_concat_lose_the_token_and_are_inserted(house):
    frame = pd.concat([house.table.frame(), new_rows(["g", "h"], title=["new", "newer"])])
    assert "syncframe" not in frame.attrs

    changes = house.table.stage(frame)

    assert changes.counts == {"insert": 2, "update": 0, "delete": 0}
    assert [(kind, key, said["title"]) for kind, key, said in house.staged()] == [
        ("insert", "g", "new"),
        ("insert", "h", "newer"),
    ]
    assert not house.table.stage(frame)


def test_without_a_token_rows_that_are_missing_are_never_deleted(house):
    lost = pd.DataFrame(house.table.frame().drop(["a", "b"]).to_dict("index")).T.rename_axis("id")
    assert "syncframe" not in lost.attrs

    changes = house.table.stage(lost)

    assert not changes
    assert len(house.context.pending) == 0


def test_made_keys_are_written_into_the_frame_and_inserted_once(house):
    frame = pd.concat([house.table.frame(), new_rows([None, None], title=["new", "newer"])])

    first = house.table.stage(frame)
    again = house.table.stage(frame)

    keys = list(frame.index[-2:])
    assert first.counts["insert"] == 2
    assert [uuid.UUID(key).version for key in keys] == [4, 4]
    assert not again
    assert {key: said["title"] for _, key, said in house.staged()} == {keys[0]: "new", keys[1]: "newer"}


def test_made_keys_go_into_a_key_column_as_well(house):
    frame = pd.concat(
        [house.table.frame().reset_index(), pd.DataFrame({"id": [None], "title": ["new"]})], ignore_index=True
    )

    house.table.stage(frame)

    assert uuid.UUID(frame["id"].iloc[-1]).version == 4
    assert not house.table.stage(frame)
    assert [kind for kind, *_ in house.staged()] == ["insert"]


def test_a_frame_with_made_keys_that_is_edited_on_updates_its_new_row(house):
    frame = pd.concat([house.table.frame(), new_rows([None], title=["new"])])
    house.table.stage(frame)
    key = frame.index[-1]

    frame.loc[key, "title"] = "newer"
    changes = house.table.stage(frame)

    assert changes.counts == {"insert": 0, "update": 1, "delete": 0}
    assert [(kind, k, said["title"]) for kind, k, said in house.staged()] == [("insert", key, "newer")]


def test_an_integer_key_is_never_made(tmp_path):
    house = House(
        tmp_path, "create table todo (id bigint primary key, title varchar); insert into todo values (1, 'a');"
    )
    house.pull()
    frame = pd.concat([house.table.frame().reset_index(), pd.DataFrame({"title": ["new"]})])

    with pytest.raises(sf.KeyColumnError, match="empty in 1 rows"):
        house.table.stage(frame)

    assert len(house.context.pending) == 0


@pytest.mark.parametrize("made_of", [pl.from_pandas, pa.Table.from_pandas], ids=["polars", "pyarrow"])
def test_keys_made_for_a_frame_that_cannot_be_written_are_not_made_twice(house, made_of):
    new = made_of(pd.DataFrame({"id": [None], "title": ["new"]}).astype("str"))

    house.table.stage(new)
    with pytest.raises(sf.KeyColumnError, match="staged already"):
        house.table.stage(new)

    assert [kind for kind, *_ in house.staged()] == ["insert"]


# Other frames, and a base ------------------------------------------------------------------------------------------------


def to_relation(frame):
    return duckdb.connect().from_arrow(pa.Table.from_pandas(frame, preserve_index=False))


OTHERS = {
    "polars": lambda f: pl.from_pandas(f),
    "pyarrow": lambda f: pa.Table.from_pandas(f, preserve_index=False),
    "a DuckDB relation": to_relation,
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_frame_of_another_library_inserts_and_updates_and_never_deletes(house, other):
    edited = house.table.frame().drop("f").reset_index()
    edited.loc[0, "title"] = "oats"
    edited.loc[len(edited)] = ["g", "new", True, 1, DAY]

    changes = house.table.stage(other(edited))

    assert changes.counts == {"insert": 1, "update": 1, "delete": 0}
    assert house.staged() == [
        ("insert", "g", {"title": "new", "done": True, "n": 1, "due": DAY}),
        ("update", "a", {"title": "oats"}),
    ]


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_with_a_base_a_frame_of_another_library_deletes_as_well(house, other):
    before = house.table.frame()
    edited = before.drop("f").reset_index()
    edited.loc[0, "title"] = "oats"

    changes = house.table.stage(other(edited), base=before)

    assert changes.counts == {"insert": 0, "update": 1, "delete": 1}
    assert house.staged() == [("delete", "f", {}), ("update", "a", {"title": "oats"})]


def test_the_table_s_own_relation_and_arrow_table_stage_nothing(house):
    assert not house.table.stage(house.table.arrow())
    assert not house.table.stage(pl.from_arrow(house.table.arrow()))

    relation = house.table.relation()
    assert not house.table.stage(relation.arrow())
    del relation

    assert len(house.context.pending) == 0


def test_a_base_frame_makes_the_diff_exact_when_the_token_was_lost(house):
    before = house.table.frame()
    edited = pd.concat([before.drop("a"), new_rows(["g"], title=["new"])])

    changes = house.table.stage(edited, base=before)

    assert changes.counts == {"insert": 1, "update": 0, "delete": 1}
    assert [each[:2] for each in house.staged()] == [("delete", "a"), ("insert", "g")]


def test_a_base_without_a_snapshot_is_compared_as_it_is(house):
    before = by_parquet(house.table.frame())
    edited = before.copy()
    edited.loc["a", "title"] = "oats"
    edited = edited.drop("b")

    house.table.stage(edited, base=before)

    assert house.staged() == [("delete", "b", {}), ("update", "a", {"title": "oats"})]


def test_base_current_inserts_and_updates_against_the_rows_as_they_are_now_and_never_deletes(house):
    house.table.frame()
    house.there("update todo set title = 'pulled' where id = 'b'")
    house.pull()
    made = pd.DataFrame({"title": ["oats", "mine"]}, index=pd.Index(["a", "b"], name="id"))

    with pytest.raises(sf.StaleFrameError, match="'b'") as caught:
        house.table.stage(made)
    assert 'base="current"' in caught.value.hint
    assert len(house.context.pending) == 0
    changes = house.table.stage(made, base="current")

    assert changes.counts == {"insert": 0, "update": 2, "delete": 0}
    assert house.staged() == [("update", "a", {"title": "oats"}), ("update", "b", {"title": "mine"})]


# Options ---------------------------------------------------------------------------------------------------------------


def test_a_dry_run_checks_and_queues_nothing_and_the_frame_does_not_advance(house):
    frame = house.table.frame()
    token = frame.attrs["syncframe"]
    frame.loc["a", "title"] = "oats"

    changes = house.table.stage(frame, dry_run=True)

    assert changes.counts == {"insert": 0, "update": 1, "delete": 0}
    assert frame.attrs["syncframe"] is token
    assert len(house.context.pending) == 0
    assert house.table.stage(frame).counts["update"] == 1


def test_a_column_of_one_s_own_is_refused_or_ignored_when_asked(house):
    frame = house.table.frame().assign(mine=1)
    frame.loc["a", "title"] = "oats"

    with pytest.raises(sf.SchemaError, match="'mine'"):
        house.table.stage(frame)
    house.table.stage(frame, extra="ignore")

    assert house.staged() == [("update", "a", {"title": "oats"})]


def test_deletes_ignore_leaves_rows_that_the_frame_lacks(house):
    frame = house.table.frame().head(2)
    frame.loc["a", "title"] = "oats"

    changes = house.table.stage(frame, deletes="ignore")

    assert changes.counts == {"insert": 0, "update": 1, "delete": 0}
    assert house.staged() == [("update", "a", {"title": "oats"})]


def test_a_frame_staged_with_deletes_ignored_does_not_delete_these_rows_later(house):
    frame = house.table.frame().head(2)
    house.table.stage(frame, deletes="ignore")

    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)

    assert house.staged() == [("update", "a", {"title": "oats"})]


def test_partial_columns_touch_only_these_columns(house):
    frame = house.table.frame(columns=["title"])
    house.table.update("a", n=100)
    frame.loc["a", "title"] = "oats"
    frame.loc["g", "title"] = "new"

    house.table.stage(frame)

    assert house.staged() == [("insert", "g", {"title": "new"}), ("update", "a", {"n": 100, "title": "oats"})]
    house.context.push()
    assert house.remote()["a"] == ("oats", 0, 100, "2024-01-01")
    assert house.remote()["g"] == ("new", None, None, None)


def test_a_frame_of_fewer_columns_than_were_handed_out_leaves_the_others(house):
    frame = house.table.frame()[["title"]]
    frame.loc["a", "title"] = "oats"

    house.table.stage(frame)

    assert house.staged() == [("update", "a", {"title": "oats"})]


def test_a_filtered_frame_touches_nothing_outside_its_filter(house):
    frame = house.table.frame("n >= 2").drop("c")

    house.table.stage(frame)

    assert house.staged() == [("delete", "c", {})]


def test_an_insert_of_a_key_that_stands_outside_the_frame_is_refused(house):
    frame = house.table.frame("n >= 2")
    frame.loc["a", "title"] = "again"

    with pytest.raises(sf.KeyColumnError, match="'a'"):
        house.table.stage(frame)

    assert len(house.context.pending) == 0


def many(tmp_path, count):
    house = House(
        tmp_path,
        f"{TODO}; with recursive c(i) as (select 0 union all select i + 1 from c where i < {count - 1}) insert into todo (id, n) select printf('k%04d', i), i from c;",
    )
    house.pull()
    return house


def test_more_deletes_than_meant_are_refused_with_three_ways_out(tmp_path):
    house = many(tmp_path, 1_000)
    frame = house.table.frame()

    with pytest.raises(sf.DeleteGuardError, match="101") as caught:
        house.table.stage(frame.iloc[101:])
    assert all(way in caught.value.hint for way in ('deletes="ignore"', "max_deletes="))
    with pytest.raises(sf.DeleteGuardError):
        house.table.stage(frame.head(1), max_deletes=998)
    assert len(house.context.pending) == 0

    assert house.table.stage(frame.iloc[100:]).counts["delete"] == 100
    assert house.table.stage(house.table.frame().iloc[150:], max_deletes=150).counts["delete"] == 150
    assert house.context.pending.summary().loc["todo"].to_dict() == {"insert": 0, "update": 0, "delete": 250}


def test_a_staging_that_would_empty_the_table_is_refused_unless_said_just_so(house):
    frame = house.table.frame()

    with pytest.raises(sf.DeleteGuardError, match="6"):
        house.table.stage(frame.head(0))
    assert house.table.diff(frame.head(0)).counts["delete"] == 6
    house.table.stage(frame.head(0), max_deletes=6)

    assert [each[:2] for each in house.staged()] == [("delete", k) for k in "abcdef"]


# The staged frame goes on ------------------------------------------------------------------------------------------------


def test_a_cell_set_back_takes_its_operation_away(house):
    frame = house.table.frame()
    frame.loc["a", "title"] = "oats"
    frame.loc["b", "n"] = 9
    house.table.stage(frame)

    frame.loc["a", "title"] = "milk"
    changes = house.table.stage(frame)

    assert changes.counts == {"insert": 0, "update": 1, "delete": 0}
    assert house.staged() == [("update", "b", {"n": 9})]


def test_an_edit_in_place_after_a_staging_does_not_reach_the_snapshot(house):
    frame = house.table.frame()
    frame["n"].array[0] = 7
    frame["title"].array[0] = "oats"
    house.table.stage(frame)

    frame["n"].array[0] = 8
    frame["title"].array[0] = "soy"
    changes = house.table.stage(frame)

    assert changes.counts == {"insert": 0, "update": 1, "delete": 0}
    assert house.staged() == [("update", "a", {"n": 8, "title": "soy"})]


def test_a_new_row_that_is_dropped_again_leaves_nothing(house):
    frame = pd.concat([house.table.frame(), new_rows(["g"], title=["new"])])
    house.table.stage(frame)

    house.table.stage(frame.drop("g"))

    assert len(house.context.pending) == 0
    assert house.table.get("g") is None


def test_a_row_dropped_and_put_back_leaves_nothing(house):
    frame = house.table.frame()
    row = frame.loc[["a"]]
    frame = frame.drop("a")
    house.table.stage(frame)
    assert house.staged() == [("delete", "a", {})]

    house.table.stage(pd.concat([frame, row]))

    assert len(house.context.pending) == 0


def test_a_copy_taken_before_a_first_staging_does_not_revert_what_it_did_not_touch(house):
    frame = house.table.frame()
    copy = frame.copy()
    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)

    assert not house.table.stage(copy)
    copy.loc["b", "title"] = "rye"
    house.table.stage(copy)

    assert house.staged() == [("update", "a", {"title": "oats"}), ("update", "b", {"title": "rye"})]


def test_of_two_own_stagings_of_one_cell_the_later_wins(house):
    frame = house.table.frame()
    copy = frame.copy()
    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)

    copy.loc["a", "title"] = "soy"
    house.table.stage(copy)

    assert house.staged() == [("update", "a", {"title": "soy"})]
    assert len(house.context.conflicts) == 0


def test_after_a_push_the_frame_goes_on(house):
    frame = house.table.frame()
    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)
    house.context.push()

    assert not house.table.stage(frame)
    frame.loc["a", "n"] = 5
    house.table.stage(frame)

    assert house.staged() == [("update", "a", {"n": 5})]
    assert house.context.push().counts == {"accepted": 1, "conflicts": 0, "rejected": 0}
    assert house.remote()["a"] == ("oats", 0, 5, "2024-01-01")


# A pull moved the rows of a frame (law 6) --------------------------------------------------------------------------------


def test_another_cell_is_laid_over_the_pulled_row(house):
    frame = house.table.frame()
    house.there("update todo set n = 100 where id = 'a'", "update todo set title = 'rye' where id = 'b'")
    house.pull()

    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)

    assert house.staged() == [("update", "a", {"title": "oats"})]
    assert house.table.get("a")["n"] == 100
    assert house.table.get("b")["title"] == "rye"
    assert house.context.push().ok
    assert house.remote()["a"] == ("oats", 0, 100, "2024-01-01")
    assert house.remote()["b"] == ("rye", 1, 1, "2024-01-02")


def test_the_same_cell_on_both_sides_is_a_conflict_whose_base_is_the_snapshot_s(house):
    frame = house.table.frame()
    house.there("update todo set title = 'theirs', n = 100 where id = 'a'")
    house.pull()

    frame.loc["a", "title"] = "mine"
    house.table.stage(frame)

    (conflict,) = house.context.conflicts
    assert (conflict.key, conflict.columns) == ("a", ("title",))
    assert (conflict.base["title"], conflict.mine["title"], conflict.theirs["title"]) == ("milk", "mine", "theirs")
    assert (conflict.base["n"], conflict.theirs["n"]) == (0, 100)
    assert not house.context.push().ok
    assert house.remote()["a"] == ("theirs", 0, 100, "2024-01-01")
    conflict.keep_mine()
    assert house.context.push().ok
    assert house.remote()["a"] == ("mine", 0, 100, "2024-01-01")


def test_the_same_value_on_both_sides_is_nothing(house):
    frame = house.table.frame()
    house.there("update todo set title = 'alike' where id = 'a'")
    house.pull()

    frame.loc["a", "title"] = "alike"
    house.table.stage(frame)

    assert len(house.context.pending) == 0
    assert len(house.context.conflicts) == 0


def test_a_row_dropped_here_and_changed_there_is_a_conflict(house):
    frame = house.table.frame()
    house.there("update todo set title = 'theirs' where id = 'a'")
    house.pull()

    house.table.stage(frame.drop("a"))

    (conflict,) = house.context.conflicts
    assert (conflict.kind, conflict.mine, conflict.theirs["title"]) == ("delete", None, "theirs")
    assert not house.context.push().ok
    assert "a" in house.remote()


def test_a_row_edited_here_and_deleted_by_a_pull_is_a_conflict_and_does_not_come_back_by_itself(house):
    frame = house.table.frame()
    house.there("delete from todo where id = 'a'")
    house.pull()

    frame.loc["a", "title"] = "mine"
    house.table.stage(frame)

    (conflict,) = house.context.conflicts
    assert (conflict.base["title"], conflict.mine["title"], conflict.theirs) == ("milk", "mine", None)
    house.context.push()
    assert "a" not in house.remote()
    conflict.take_theirs()
    assert len(house.context.pending) == 0
    assert house.table.get("a") is None


def test_a_row_that_a_pull_deleted_and_the_frame_left_alone_stays_deleted(house):
    frame = house.table.frame()
    house.there("delete from todo where id = 'a'")
    house.pull()

    frame.loc["b", "title"] = "rye"
    house.table.stage(frame)

    assert house.staged() == [("update", "b", {"title": "rye"})]
    assert house.table.get("a") is None


def test_rows_that_came_with_a_pull_are_not_deleted_by_an_older_frame(house):
    frame = house.table.frame()
    house.there("insert into todo (id, title) values ('g', 'came later')")
    house.pull()

    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)

    assert house.staged() == [("update", "a", {"title": "oats"})]
    assert house.table.get("g")["title"] == "came later"


def test_a_row_inserted_on_both_sides_is_a_conflict(house):
    frame = house.table.frame()
    house.there("insert into todo (id, title) values ('g', 'theirs')")
    house.pull()

    frame.loc["g", "title"] = "mine"
    house.table.stage(frame)

    (conflict,) = house.context.conflicts
    assert (conflict.kind, conflict.base, conflict.theirs["title"]) == ("insert", None, "theirs")
    assert conflict.mine["title"] == "mine"


def test_a_frame_from_before_two_pulls_reverts_neither(house):
    frame = house.table.frame()
    house.there("update todo set n = 100 where id = 'a'", "update todo set title = 'theirs' where id = 'b'")
    house.pull()
    house.there("update todo set done = 1 where id = 'a'", "update todo set title = 'theirs again' where id = 'b'")
    house.pull()

    frame.loc["a", "title"] = "oats"
    frame.loc["b", "title"] = "mine"
    frame.loc["c", "title"] = "quiet"
    house.table.stage(frame)

    assert house.table.get("a") == {"id": "a", "title": "oats", "done": True, "n": 100, "due": dt.date(2024, 1, 1)}
    (conflict,) = house.context.conflicts
    assert (conflict.base["title"], conflict.mine["title"], conflict.theirs["title"]) == (
        "bread",
        "mine",
        "theirs again",
    )
    house.context.push()
    assert house.remote()["a"] == ("oats", 1, 100, "2024-01-01")
    assert house.remote()["b"][0] == "theirs again"
    assert house.remote()["c"][0] == "quiet"


def test_a_row_that_left_the_filter_is_edited_against_the_snapshot(tmp_path):
    house = House(tmp_path, todo_rows())
    house.pull("n < 10")
    frame = house.table.frame()
    house.there("update todo set n = 50 where id = 'a'", "update todo set n = 60 where id = 'b'")
    house.pull("n < 10")
    assert house.table.get("a") is None

    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)
    assert house.staged() == [("update", "a", {"title": "oats"})]
    result = house.context.push()

    # Nobody has seen here what changed there, so it is not overwritten: the push finds the newer version.
    assert result.counts == {"accepted": 0, "conflicts": 1, "rejected": 0}
    (conflict,) = house.context.conflicts
    assert (conflict.mine["title"], conflict.theirs["n"], conflict.merged["title"], conflict.merged["n"]) == (
        "oats",
        50,
        "oats",
        50,
    )
    assert house.remote()["a"] == ("milk", 0, 50, "2024-01-01")


def test_a_frame_advanced_while_a_pull_came_between_does_not_overwrite_what_was_pulled_when_edited_later(house):
    frame = house.table.frame()
    house.there("update todo set n = 100 where id = 'a'")
    house.pull()
    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)

    # The frame still shows n as it was before the pull: who edits it now has not seen 100.
    frame.loc["a", "n"] = 7
    house.table.stage(frame)

    (conflict,) = house.context.conflicts
    assert (conflict.base["n"], conflict.mine["n"], conflict.theirs["n"]) == (0, 7, 100)
    assert (conflict.mine["title"], conflict.columns) == ("oats", ("n",))
    house.context.push()
    assert house.remote()["a"] == ("milk", 0, 100, "2024-01-01")


def test_a_frame_advanced_over_a_pulled_row_and_pushed_does_not_overwrite_it_later_either(house):
    frame = house.table.frame()
    house.there("update todo set n = 100 where id = 'a'")
    house.pull()
    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)
    assert house.context.push().ok
    assert house.remote()["a"] == ("oats", 0, 100, "2024-01-01")

    frame.loc["a", "n"] = 7
    house.table.stage(frame)
    house.context.push()

    assert house.remote()["a"] == ("oats", 0, 100, "2024-01-01")
    (conflict,) = house.context.conflicts
    assert (conflict.mine["n"], conflict.theirs["n"]) == (7, 100)


def test_a_frame_staged_unedited_after_a_pull_does_not_take_the_pulled_rows_for_its_own(house):
    frame = house.table.frame()
    house.there("update todo set n = 100 where id = 'a'")
    house.pull()
    assert not house.table.stage(frame)

    frame.loc["a", "n"] = 7
    house.table.stage(frame)

    (conflict,) = house.context.conflicts
    assert (conflict.base["n"], conflict.mine["n"], conflict.theirs["n"]) == (0, 7, 100)


def test_a_push_that_brought_newer_cells_does_not_make_an_older_frame_overwrite_them(tmp_path):
    house = House(
        tmp_path,
        f"{todo_rows()} create trigger upper after update of title on todo begin update todo set title = upper(new.title) where id = new.id; end;",
    )
    house.pull()
    frame = house.table.frame()
    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)
    assert house.context.push().ok
    assert house.table.get("a")["title"] == "OATS"

    frame.loc["a", "n"] = 5
    house.table.stage(frame)

    assert house.staged() == [("update", "a", {"n": 5})]
    assert house.context.push().ok
    assert house.remote()["a"] == ("OATS", 0, 5, "2024-01-01")


# After a restart ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def restarted(tmp_path):
    """A frame that went through parquet into a new kernel."""
    house = House(tmp_path, todo_rows(), store=str(tmp_path / "here.duckdb"))
    house.pull()
    frame = by_parquet(house.table.frame())

    def restart(*there):
        if there:
            house.there(*there)
            house.pull()
        house.context.close()
        house.start()
        return house, frame

    yield restart
    house.context.close()


def test_after_a_restart_rows_that_did_not_move_are_their_own_base(restarted):
    house, frame = restarted()

    frame.loc["a", "title"] = "oats"
    frame.loc["g", "title"] = "new"
    house.table.stage(frame.drop("b"))

    assert [(kind, key) for kind, key, _ in house.staged()] == [("delete", "b"), ("insert", "g"), ("update", "a")]
    assert house.staged()[2] == ("update", "a", {"title": "oats"})


def test_after_a_restart_a_row_that_moved_since_is_refused_by_name_and_nothing_is_staged(restarted):
    house, frame = restarted("update todo set n = 100 where id = 'a'")

    frame.loc["b", "title"] = "rye"
    with pytest.raises(sf.StaleFrameError, match="'a'"):
        house.table.stage(frame)

    assert len(house.context.pending) == 0
    house.table.stage(frame.drop("a"))
    assert house.staged() == [("update", "b", {"title": "rye"})]


def test_after_a_restart_a_row_that_was_deleted_since_does_not_come_back(restarted):
    house, frame = restarted("delete from todo where id = 'a'")

    with pytest.raises(sf.StaleFrameError, match="'a'"):
        house.table.stage(frame)

    assert len(house.context.pending) == 0


def test_after_a_restart_rows_that_came_since_are_not_deleted(restarted):
    house, frame = restarted("insert into todo (id, title) values ('g', 'came later')")

    frame.loc["a", "title"] = "oats"
    house.table.stage(frame)

    assert house.staged() == [("update", "a", {"title": "oats"})]
    assert house.table.get("g")["title"] == "came later"


def test_after_a_restart_a_base_says_what_was_edited(restarted):
    house, frame = restarted("update todo set n = 100 where id = 'a'")
    edited = frame.copy()
    edited.loc["a", "title"] = "oats"

    house.table.stage(edited, base=frame)

    assert house.staged() == [("update", "a", {"title": "oats"})]
    assert house.table.get("a")["n"] == 100


# Single rows ---------------------------------------------------------------------------------------------------------------


def test_single_rows_are_inserted_updated_and_deleted_without_a_frame(house):
    key = house.table.insert({"title": "new", "n": 1})
    keys = house.table.insert([{"id": "x", "title": "one"}, {"id": "y", "n": 2}])
    house.table.update("a", title="oats")
    house.table.update("b", {"title": "rye"}, n=None)
    house.table.delete(["c", "d"])

    assert uuid.UUID(key).version == 4
    assert keys == ["x", "y"]
    assert house.staged() == sorted(
        [
            ("insert", key, {"n": 1, "title": "new"}),
            ("insert", "x", {"title": "one"}),
            ("insert", "y", {"n": 2}),
            ("update", "a", {"title": "oats"}),
            ("update", "b", {"title": "rye", "n": None}),
            ("delete", "c", {}),
            ("delete", "d", {}),
        ],
        key=lambda each: (each[0], str(each[1])),
    )
    assert house.table.get("a") == {"id": "a", "title": "oats", "done": False, "n": 0, "due": dt.date(2024, 1, 1)}
    assert house.table.get("c") is None
    assert house.context.push().ok
    assert sorted(house.remote()) == sorted(["a", "b", "e", "f", "x", "y", key])


@pytest.mark.parametrize(
    "act",
    [
        lambda t: t.update("nobody", title="x"),
        lambda t: t.delete("nobody"),
        lambda t: t.delete(["a", "nobody"]),
        lambda t: t.insert({"id": "a", "title": "x"}),
        lambda t: t.insert([{"id": "x"}, {"id": "x"}]),
        lambda t: t.update("a", id="z"),
    ],
    ids=[
        "update of none",
        "delete of none",
        "delete of one and none",
        "insert of one that is",
        "insert of a key twice",
        "a key changed",
    ],
)
def test_a_single_row_that_cannot_be_is_a_key_error_and_nothing_is_staged(house, act):
    with pytest.raises(sf.KeyColumnError):
        act(house.table)

    assert len(house.context.pending) == 0


def test_a_column_may_be_named_key(tmp_path):
    house = House(
        tmp_path,
        "create table todo (id text primary key, key varchar, self varchar); insert into todo values ('a', 'x', 'y');",
    )
    house.pull()

    house.table.update("a", key="k", self="s")

    assert house.staged() == [("update", "a", {"key": "k", "self": "s"})]


def test_an_update_that_changes_nothing_stages_nothing(house):
    house.table.update("a", title="milk")

    assert len(house.context.pending) == 0


def test_a_compound_key_is_a_tuple(tmp_path):
    house = House(
        tmp_path,
        "create table todo (place text, hour bigint, wind double, primary key (place, hour)); insert into todo values ('JFK', 4, 1.5), ('JFK', 5, 2.5), ('LGA', 4, null);",
    )
    house.pull()
    frame = house.table.frame()
    assert list(frame.index.names) == ["place", "hour"]

    frame.loc[("JFK", 4), "wind"] = 9.0
    house.table.stage(frame.drop(("LGA", 4)))
    house.table.update(("JFK", 5), wind=3.5)
    house.table.insert({"place": "EWR", "hour": 1, "wind": 0.5})

    assert house.staged() == [
        ("delete", ("LGA", 4), {}),
        ("insert", ("EWR", 1), {"wind": 0.5}),
        ("update", ("JFK", 4), {"wind": 9.0}),
        ("update", ("JFK", 5), {"wind": 3.5}),
    ]
    assert house.table.get(("JFK", 4)) == {"place": "JFK", "hour": 4, "wind": 9.0}
    assert not house.table.stage(house.table.frame().reset_index())
    with pytest.raises(sf.KeyColumnError):
        house.table.stage(house.table.frame().reset_index("hour", drop=True))


# The whole frame, in exact counts (acceptance row 4) ------------------------------------------------------------------------


def counted(house, rows):
    """1% edits, 100 inserts, 50 deletes; then twice more, the last time with one cell set back."""
    frame = house.table.frame()
    before = frame.iloc[0]["n"]
    edited = np.arange(0, rows, 100)
    frame.iloc[edited, frame.columns.get_loc("n")] = -1
    deleted = frame.index[1:51]
    added = new_rows([f"new{i:03}" for i in range(100)], n=pd.array(np.arange(100), "Int64"))
    frame = pd.concat([frame.drop(deleted), added])
    frame.attrs = house.table.frame().attrs

    started = time.perf_counter()
    first = house.table.stage(frame)
    seconds = time.perf_counter() - started
    again = house.table.stage(frame)
    frame.iloc[0, frame.columns.get_loc("n")] = before
    back = house.table.stage(frame)

    assert first.counts == {"insert": 100, "update": len(edited), "delete": 50}
    assert again.counts == {"insert": 0, "update": 0, "delete": 0}
    assert back.counts == {"insert": 0, "update": 1, "delete": 0}
    assert house.context.pending.summary().loc["todo"].to_dict() == {
        "insert": 100,
        "update": len(edited) - 1,
        "delete": 50,
    }
    return seconds


def test_a_whole_frame_is_staged_in_exact_counts(tmp_path):
    house = many(tmp_path, 6_000)

    counted(house, 6_000)

    assert house.context.push().counts == {"accepted": 100 + 59 + 50, "conflicts": 0, "rejected": 0}
    remote = house.remote()
    assert len(remote) == 6_050
    assert sum(row[2] == -1 for row in remote.values()) == 59


@pytest.mark.full
def test_a_whole_frame_of_the_flights_is_staged_in_exact_counts(tmp_path):
    house = many(tmp_path, 336_776)

    seconds = counted(house, 336_776)

    assert house.context.pending.summary().loc["todo"].to_dict() == {"insert": 100, "update": 3_367, "delete": 50}
    print(f"336,776 rows: {seconds:.2f} s")
