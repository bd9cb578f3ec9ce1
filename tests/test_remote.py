"""Remote tables: asked over the network, nothing kept; over a SQLite file, a DuckDB file and our server."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3

import duckdb
import pandas as pd
import pytest

import syncframe as sf
from syncframe import BackendError, QueryError, SchemaError, SyncError, TransientError, backends

UTC = dt.UTC
DDL = [
    "create table todo (id VARCHAR not null primary key, title VARCHAR not null, n BIGINT check (n >= 0), done BOOLEAN)",
    "insert into todo values ('a', 'milk', 3, false), ('b', 'bread', 1, true), ('c', 'salt', null, false), "
    "('d', 'tea', 2, null)",
    "create table weather (origin VARCHAR not null, hour TIMESTAMPTZ not null, temp DOUBLE, primary key (origin, hour))",
]


def sqlite_url(folder):
    path = folder / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for sql in DDL:
            connection.execute(sql)
    return f"sqlite:///{path}"


def duckdb_url(folder):
    with duckdb.connect(str(folder / "app.duckdb")) as connection:
        for sql in DDL:
            connection.execute(sql)
    return f"duckdb:///{folder}/app.duckdb"


@pytest.fixture(params=["sqlite", "duckdb", "http", "http v2", "http v3"])
def ctx(request, tmp_path):
    """A context over each kind of back end; the last two are asked as a service of others would be."""
    url = duckdb_url(tmp_path) if request.param == "duckdb" else sqlite_url(tmp_path)
    with contextlib.ExitStack() as stack:
        options = {}
        if request.param.startswith("http"):
            url = stack.enter_context(sf.serve(url, track=True)).url
            _, _, protocol = request.param.partition(" ")
            options = {
                "protocol": protocol or "auto",
                "schema": {"todo": TYPES, "weather": WEATHER} if protocol else None,
            }
        else:
            backend = backends.open(url)
            backend.track(["todo", "weather"])
            backend.close()
        yield stack.enter_context(sf.connect(url, store=":memory:", **options))


TYPES = {"id": "VARCHAR", "title": "VARCHAR", "n": "BIGINT", "done": "BOOLEAN"}
WEATHER = sf.Schema.of({"origin": "VARCHAR", "hour": "TIMESTAMPTZ", "temp": "DOUBLE"}, ["origin", "hour"])


@pytest.fixture
def todo(ctx):
    return ctx.remote("todo")


def test_reading_gives_a_frame_indexed_by_the_key_in_the_dtypes_of_every_frame(todo):
    frame = todo.read()

    assert list(frame.index) == ["a", "b", "c", "d"]
    assert frame.index.name == "id"
    assert frame.dtypes.astype(str).to_dict() == {"title": "str", "n": "Int64", "done": "boolean"}
    assert frame.loc["c"].isna().to_dict() == {"title": False, "n": True, "done": False}


def test_nothing_is_kept(ctx):
    ctx.remote("todo").read()

    assert ctx.tables == []


def test_reading_takes_a_condition_columns_an_order_a_limit_and_an_offset(todo):
    found = todo.read("n >= 1", columns=["n"], order_by="-n", limit=2)

    assert list(found.columns) == ["n"]
    assert list(found["n"].items()) == [("a", 3), ("d", 2)]
    assert list(todo.read("n >= 1", order_by=["done", "-n"], offset=1).index) in (["a", "b"], ["b", "d"])
    assert list(todo.read(limit=0).index) == []
    assert list(todo.read(offset=3).index) == ["d"]
    assert list(todo.read("title like '%ea%'", order_by="-title").index) == ["d", "b"]


def test_counting_reads_no_rows(todo):
    assert (todo.count(), todo.count("n >= 1"), todo.count("n is null"), todo.count("n > 99")) == (4, 3, 1, 0)


def test_one_row_is_a_mapping_with_its_version(todo):
    row = todo.get("a")

    assert {name: row[name] for name in TYPES} == {"id": "a", "title": "milk", "n": 3, "done": False}
    assert isinstance(row["version"], str)
    assert row["deleted"] is False
    assert todo.get("nobody") is None


def test_a_row_is_inserted_and_returned_as_it_is_stored(todo):
    row = todo.insert({"id": "e", "title": "oil", "n": 7})

    assert (row["id"], row["title"], row["n"], row["done"]) == ("e", "oil", 7, None)
    assert todo.get("e")["version"] == row["version"]
    made = todo.insert({"title": "no key"})
    assert len(made["id"]) == 36


def test_an_insert_of_a_row_that_is_there_is_a_409_with_that_row(todo):
    with pytest.raises(BackendError) as caught:
        todo.insert({"id": "a", "title": "other"})

    assert (caught.value.status, caught.value.row["title"]) == (409, "milk")
    assert todo.get("a")["title"] == "milk"


def test_a_row_is_updated_in_the_columns_that_are_given(todo):
    row = todo.update("a", {"title": "oat milk"}, n=4)

    assert (row["title"], row["n"], row["done"]) == ("oat milk", 4, False)
    assert todo.get("a")["version"] == row["version"]


@pytest.mark.parametrize("write", ["update", "replace", "delete"])
def test_a_stale_version_is_a_412_with_the_row_that_is_there_and_nothing_is_written(todo, write):
    old = todo.get("a")["version"]
    new = todo.update("a", n=10)["version"]

    def ask():
        if write == "update":
            return todo.update("a", {"n": 11}, if_version=old)
        if write == "replace":
            return todo.replace("a", {"title": "x"}, if_version=old)
        return todo.delete("a", if_version=old)

    with pytest.raises(BackendError) as caught:
        ask()
    assert (caught.value.status, caught.value.row["n"], caught.value.row["version"]) == (412, 10, new)
    assert todo.get("a")["version"] == new


def test_the_version_that_is_there_lets_a_write_through(todo):
    row = todo.update("a", {"n": 11}, if_version=todo.get("a")["version"])
    row = todo.replace("a", {"title": "x"}, if_version=row["version"])

    assert (row["title"], row["n"], row["done"]) == ("x", None, None)
    assert todo.delete("a", if_version=row["version"])["deleted"] is True
    assert todo.get("a") is None


@pytest.mark.parametrize("write", ["update", "delete"])
def test_what_is_not_there_cannot_be_written(todo, write):
    with pytest.raises(BackendError) as caught:
        todo.update("nobody", n=1) if write == "update" else todo.delete("nobody")

    assert caught.value.status == 404


def test_a_deleted_row_is_seen_with_its_last_values_and_comes_back(todo):
    todo.update("a", n=42)
    todo.delete("a")

    assert todo.get("a") is None
    assert list(todo.read().index) == ["b", "c", "d"]
    frame = todo.read(include_deleted=True)
    assert frame["deleted"].to_dict() == {"a": True, "b": False, "c": False, "d": False}
    assert (frame.loc["a", "title"], frame.loc["a", "n"]) == ("milk", 42)

    row = todo.undelete("a")

    assert (row["title"], row["n"], row["deleted"]) == ("milk", 42, False)
    assert todo.get("a")["version"] == row["version"]


def test_a_row_that_the_back_end_refuses_is_a_400_in_its_words(todo):
    with pytest.raises(BackendError, match=r"(?i)check") as caught:
        todo.update("a", n=-1)

    assert caught.value.status == 400
    assert todo.get("a")["n"] == 3


def test_system_columns_can_be_asked_for(todo):
    before = todo.read(columns=["updatedAt", "version"])
    todo.update("b", n=5)

    assert list(before.columns) == ["updatedAt", "version"]
    newest = todo.read(order_by="-updatedAt", limit=1, columns="updatedAt")
    assert list(newest.index) == ["b"]
    assert newest["updatedAt"].iloc[0] >= before["updatedAt"].max()
    assert list(todo.read("updatedAt > timestamptz '2001-01-01 00:00:00Z' and n = 5").index) == ["b"]


def test_a_compound_key_is_a_tuple(ctx):
    weather = ctx.remote("weather")
    ten = dt.datetime(2013, 1, 1, 10, tzinfo=UTC)
    weather.insert({"origin": "JFK", "hour": ten, "temp": 1.5})

    row = weather.update(("JFK", ten), temp=2.5)

    assert (row["origin"], row["hour"], row["temp"]) == ("JFK", ten, 2.5)
    frame = weather.read("origin = 'JFK'")
    assert frame.index.names == ["origin", "hour"]
    assert frame.loc[("JFK", pd.Timestamp(ten)), "temp"] == 2.5
    assert weather.delete(("JFK", ten))["deleted"] is True
    assert weather.count() == 0


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda t: t.read("nope = 1"), QueryError, "nope"),
        (lambda t: t.read(columns=["nope"]), SchemaError, "nope"),
        (lambda t: t.read(order_by="nope"), SchemaError, "nope"),
        (lambda t: t.read(limit=-1), SyncError, "limit=-1"),
        (lambda t: t.read(offset=1.5), SyncError, r"offset=1\.5"),
        (lambda t: t.insert({"id": "z", "nope": 1}), SchemaError, "nope"),
        (lambda t: t.insert({"id": "z", "title": "x", "n": "many"}), SchemaError, "n"),
        (lambda t: t.update("a", n=1.5), SchemaError, "n"),
    ],
    ids=lambda case: getattr(case, "__name__", str(case))[:20],
)
def test_wrong_input_is_refused_in_words_before_anything_is_written(todo, ask, error, words):
    before = todo.read()

    with pytest.raises(error, match=words):
        ask(todo)

    pd.testing.assert_frame_equal(todo.read(), before)


def test_a_table_that_is_not_there_is_a_404(ctx):
    with pytest.raises(BackendError) as caught:
        ctx.remote("nowhere").read()

    assert caught.value.status == 404


def test_a_context_without_a_back_end_has_no_remote_tables():
    with pytest.raises(SyncError, match="no back end"):
        sf.connect(store=":memory:").remote("todo")


def test_without_a_network_it_is_a_transient_error():
    with sf.connect("http://127.0.0.1:9", store=":memory:", timeout_s=0.2) as ctx, pytest.raises(TransientError):
        ctx.remote("todo").read()
