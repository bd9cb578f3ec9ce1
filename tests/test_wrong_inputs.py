"""Wrong inputs: each is refused by an error of the right class that says what, where and what to do, and nothing changes."""

from __future__ import annotations

import contextlib
import datetime as dt
import inspect
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import textwrap

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import syncframe as sf
from syncframe.backends import open as open_backend

TABLES = """
    create table todo (id text primary key, title text not null, n bigint, at timestamptz, done boolean);
    create table numbers (id bigint primary key, x bigint);
    create table weather (year bigint, origin text, temp double, primary key (year, origin));
    create table heap (a bigint, b text);
    create table odd (id text primary key, price money);
    create table loose (id text primary key, anything);
    create table twins (id text primary key, "Note" text, "_syncframe_note" text);
    insert into todo values ('a', 'milk', 1, '2013-01-01T05:00:00Z', 0), ('b', 'bread', 2, null, 1), ('c', 'eggs', null, null, null);
    insert into weather values (2013, 'EWR', 39.02), (2013, 'JFK', null);
"""
LOCAL = {
    "id": "VARCHAR",
    "u": "UUID",
    "j": "JSON",
    "e": "ENUM('new', 'paid')",
    "d": "DATE",
    "x": "FLOAT",
    "p": "DECIMAL(5,2)",
}


class World:
    """A SQLite database, a store with its tables pulled, and one edit of `todo` that waits: b's title is 'rye'."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "far.db"
        self.url = f"sqlite:///{self.path}"
        self.store = folder / "here.duckdb"
        if not self.path.exists():
            self.make()
        self.ctx = sf.connect(self.url, store=self.store)
        self.todo, self.numbers = self.ctx["todo"], self.ctx["numbers"]
        self.weather, self.typed = self.ctx["weather"], self.ctx["typed"]

    def make(self):
        self.write(TABLES)
        self.write("".join(f"insert into numbers values ({i}, {i * 10});" for i in range(1, 61)))
        open_backend(self.url).track(["todo", "numbers", "weather"])
        ctx = sf.connect(self.url, store=self.store)
        for table in ("todo", "numbers", "weather"):
            ctx[table].pull(query_id="all")
        ctx.table("typed", schema=LOCAL)
        ctx["todo"].update("b", title="rye")

    def copied(self, folder):
        """A world like this one, that a test may change."""
        shutil.copy(self.path, folder)
        shutil.copy(self.store, folder)
        return World(folder)

    def write(self, script):
        connection = sqlite3.connect(self.path)
        connection.executescript(script)
        connection.close()

    def everything(self):
        """All that the store keeps but its counters, and the whole database."""
        kept = {}
        with duckdb.connect(str(self.store)) as store:
            parts = store.execute(
                "select schema_name, table_name from duckdb_tables() where schema_name <> 'syncframe_meta' order by all"
            ).fetchall()
            for schema, table in parts:
                kept[schema, table] = store.execute(f'from "{schema}"."{table}" order by all').fetchall()
            for table in ("tables", "history"):
                columns = "name, schema, kept, together" if table == "tables" else "*"
                kept[table] = store.execute(f"select {columns} from syncframe_meta.{table} order by all").fetchall()
        connection = sqlite3.connect(self.path)
        kept["far"] = list(connection.iterdump())
        connection.close()
        kept["files"] = sorted(p.name for p in self.folder.iterdir() if not p.name.endswith(".lock"))
        return kept


@pytest.fixture(scope="module")
def made_world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(made_world, tmp_path):
    return made_world.copied(tmp_path)


@pytest.fixture(scope="module")
def still(made_world, tmp_path_factory):
    """One world for all that must change nothing, and what was in it when it was last looked at."""
    world = made_world.copied(tmp_path_factory.mktemp("still"))
    world.seen = world.everything()
    return world


def edited(table, key, column, value, **how):
    frame = table.frame(**how)
    frame[column] = frame[column].astype(object)
    frame.at[key, column] = value
    return frame


def with_row(table, **row):
    return pd.concat([table.frame().reset_index(), pd.DataFrame([row])])


def restarted(frame):
    """As after a kernel restart: the token's text is kept, its snapshot is gone."""
    return pickle.loads(pickle.dumps(frame))


def wide(frame):
    frame.columns = pd.MultiIndex.from_product([["all"], frame.columns])
    return frame


# Each: the call, the error's class, and what its text must say: what, where, and, last, what to do.
REFUSED = {
    # frames
    "a repeated key": (
        lambda w: w.todo.stage(pd.concat([w.todo.frame(), w.todo.frame().loc[["a"]]])),
        sf.KeyColumnError, "a key is repeated: 'a'", "df[~df.index.duplicated(keep=\"last\")]"),
    "an unnamed index on integer keys": (
        lambda w: w.numbers.stage(w.numbers.frame().sort_values("x", ignore_index=True)),
        sf.KeyColumnError, "the key 'id' is neither in the index", "df.index.name = 'id'"),
    "an unnamed index that is not of keys": (
        lambda w: w.todo.stage(w.todo.frame().reset_index(drop=True)),
        sf.KeyColumnError, "the key 'id' is neither in the index", "df.index.name = 'id'"),
    "a frame that lost its compound key": (
        lambda w: w.weather.stage(w.weather.frame().reset_index(drop=True)),
        sf.KeyColumnError, "the key 'year', 'origin' is neither in the index", "df.index.names = ['year', 'origin']"),
    "an Arrow table without its key": (
        lambda w: w.todo.stage(pa.table({"title": ["x"]})),
        sf.KeyColumnError, "the key 'id' is not among the columns 'title'", "keep the key's columns"),
    "a key both in the index and in a column": (
        lambda w: w.todo.stage(w.todo.frame().assign(id="a")),
        sf.KeyColumnError, "'id' is both a column and in the index", "df.drop(columns='id')"),
    "an unknown column": (
        lambda w: w.todo.stage(w.todo.frame().assign(colour="red")),
        sf.SchemaError, "columns 'colour' are not among the table's: 'id', 'title', 'n', 'at', 'done'", 'extra="ignore"'),
    "a reserved column in a frame": (
        lambda w: w.todo.stage(w.todo.frame().assign(_syncframe_rev=1)),
        sf.SchemaError, "columns '_syncframe_rev' are not among the table's", 'extra="ignore"'),
    "a column that was not handed out": (
        lambda w: w.todo.stage(w.todo.frame(columns=["title"]).assign(n=1)),
        sf.SchemaError, "columns 'n' were not handed out with this frame", "frame(columns=['id', 'title', 'n'])"),
    "columns that are there twice": (
        lambda w: w.todo.stage(pd.concat([w.todo.frame(), w.todo.frame()[["title"]]], axis=1)),
        sf.SchemaError, "columns 'title' are there twice", "keep one of each"),
    "columns of several levels": (
        lambda w: w.todo.stage(wide(w.todo.frame())),
        sf.SchemaError, "the frame's columns have several levels", "stage the table"),
    "a list for a frame": (
        lambda w: w.todo.stage([{"id": "a"}]),
        sf.SchemaError, "a list is no table", "pandas.DataFrame(...)"),
    "a series for a frame": (
        lambda w: w.todo.stage(w.todo.frame()["title"]),
        sf.SchemaError, "a Series is no table", "pandas.DataFrame(...)"),
    "a frame of another table": (
        lambda w: w.numbers.stage(w.todo.frame()),
        sf.SchemaError, "this frame is of table 'todo', not of 'numbers'", "ctx['todo'].stage(...)"),
    "an edited system column": (
        lambda w: w.todo.stage(edited(w.todo, "a", "version", "mine", system=True)),
        sf.SchemaError, "system column 'version' was edited", "stage(frame.drop(columns='version'))"),
    "a system column of a new row": (
        lambda w: w.todo.stage(with_row(w.todo, id="z", title="new", version="1")),
        sf.SchemaError, "system column 'version' was edited", "stage(frame.drop(columns='version'))"),
    "deletes= of another word": (
        lambda w: w.todo.stage(w.todo.frame(), deletes="all"),
        sf.SchemaError, "deletes='all' is not known", '"infer" or "ignore"'),
    "dtypes= of another word": (
        lambda w: w.todo.frame(dtypes="polars"),
        sf.SchemaError, "dtypes='polars' is not known", '"pandas" or "pyarrow"'),
    "extra= of another word": (
        lambda w: w.todo.stage(w.todo.frame(), extra="drop"),
        sf.SchemaError, "extra='drop' is not known", '"error" or "ignore"'),
    "a frame of columns that are none": (
        lambda w: w.todo.frame(columns=["colour"]),
        sf.SchemaError, "columns 'colour' are not among the table's: 'id', 'title', 'n', 'at', 'done'"),
    "system columns of a table never pulled": (
        lambda w: w.ctx["flights"].frame(),
        sf.SchemaError, "no schema of table 'flights' is known in this store", "pull it first, or give one"),
    # values
    "1.5 in an integer": (
        lambda w: w.todo.stage(edited(w.todo, "a", "n", 1.5)),
        sf.SchemaError, "column 'n' (BIGINT) takes whole numbers", "1.5 in row 'a'", "round, or correct the values"),
    "a float of 2**53 in an integer": (
        lambda w: w.todo.stage(w.todo.frame().assign(n=[2.0**53, 2.0, 3.0])),
        sf.SchemaError, "column 'n' (BIGINT)", "9007199254740992.0 in row 'a'", "not exact as floats"),
    "an integer beyond 64 bits": (
        lambda w: w.todo.stage(edited(w.todo, "a", "n", 2**63)),
        sf.SchemaError, "column 'n' (BIGINT)", "9223372036854775808 in row 'a'"),
    "a boolean in an integer": (
        lambda w: w.todo.update("a", n=True),
        sf.SchemaError, "column 'n' (BIGINT)", "True in row 'a'", "astype(\"Int64\")"),
    "text in an integer": (
        lambda w: w.todo.update("a", n="12"),
        sf.SchemaError, "column 'n' (BIGINT)", "'12' in row 'a'"),
    "a number in a text": (
        lambda w: w.todo.update("a", title=12),
        sf.SchemaError, "column 'title' (VARCHAR) takes text", "12 in row 'a'"),
    "NaN in a column that is NOT NULL": (
        lambda w: w.todo.stage(edited(w.todo, "a", "title", np.nan)),
        sf.SchemaError, "column 'title' (VARCHAR)", "NULL is not allowed", "NULL in row 'a'", "give a value, or drop the rows"),
    "a time without a zone in one with it": (
        lambda w: w.todo.update("a", at=dt.datetime(2013, 1, 1)),
        sf.SchemaError, "column 'at' (TIMESTAMPTZ)", "in row 'a'", 'tz_localize("UTC")'),
    "a bad uuid": (
        lambda w: w.typed.insert({"id": "a", "u": "12-34"}),
        sf.SchemaError, "column 'u' (UUID)", "'12-34' in row 'a'"),
    "bad JSON": (
        lambda w: w.typed.insert({"id": "a", "j": "{'a': 1}"}),
        sf.SchemaError, "column 'j' (JSON)", "in row 'a'", "json.dumps"),
    "a label that the enum lacks": (
        lambda w: w.typed.insert({"id": "a", "e": "old"}),
        sf.SchemaError, "column 'e' (ENUM) takes text, that is one of 'new', 'paid'", "'old' in row 'a'"),
    "a time of day in a date": (
        lambda w: w.typed.insert({"id": "a", "d": dt.datetime(2013, 1, 1, 5)}),
        sf.SchemaError, "column 'd' (DATE)", "in row 'a'", "normalize()"),
    "a float that is none of 32 bits": (
        lambda w: w.typed.insert({"id": "a", "x": 0.1}),
        sf.SchemaError, "column 'x' (FLOAT)", "0.1 in row 'a'", "astype('float32')"),
    "a decimal of too many places": (
        lambda w: w.typed.insert({"id": "a", "p": 1.005}),
        sf.SchemaError, "column 'p' (DECIMAL(5,2))", "1.005 in row 'a'", "correct these values"),
    "an empty part of a compound key": (
        lambda w: w.weather.stage(with_row(w.weather, year=2014, origin=None, temp=1.0)),
        sf.KeyColumnError, "the key 'year', 'origin' is empty in 1 rows, at the positions 2", "give the others"),
    "an empty integer key": (
        lambda w: w.numbers.insert({"x": 1}),
        sf.KeyColumnError, "the key 'id' is empty in 1 rows, at the positions 0", "only a text or uuid key"),
    # deletes
    "too many deletes": (
        lambda w: w.numbers.stage(w.numbers.frame().iloc[13:]),
        sf.DeleteGuardError, "this would delete 13 of the 60 rows", "more than the 12 allowed", "1, 2, 3, 4, 5",
        'deletes="ignore", or stage the whole frame', "max_deletes=13"),
    "all rows deleted": (
        lambda w: w.todo.stage(w.todo.frame().iloc[:0]),
        sf.DeleteGuardError, "this would delete 3 of the 3 rows", "all of its rows", "'a', 'b', 'c'", "max_deletes=3"),
    "more deletes than one's own max_deletes": (
        lambda w: w.todo.stage(w.todo.frame().iloc[1:], max_deletes=0),
        sf.DeleteGuardError, "this would delete 1 of the 3 rows", "more than the 0 allowed", "max_deletes=1"),
    # single rows
    "an insert of a key that is here": (
        lambda w: w.todo.insert({"id": "a", "title": "again"}),
        sf.KeyColumnError, "rows 'a' are in 'todo' already", "update(key, ...)"),
    "an insert of a key twice": (
        lambda w: w.todo.insert([{"id": "y", "title": "1"}, {"id": "y", "title": "2"}]),
        sf.KeyColumnError, "keys are repeated: 'y'", "a key of its own"),
    "an insert without a column that is NOT NULL": (
        lambda w: w.todo.insert({"id": "y", "title": None}),
        sf.SchemaError, "column 'title' (VARCHAR)", "NULL in row 'y'", "give a value"),
    "an insert of no mapping": (
        lambda w: w.todo.insert(["y"]),
        sf.SchemaError, "a row is a mapping column -> value, not a str", "insert({'id': ..., ...})"),
    "an insert with an unknown column": (
        lambda w: w.todo.insert({"id": "y", "title": "t", "colour": "red"}),
        sf.SchemaError, "columns 'colour' are not among the table's"),
    "an update of a key that is not here": (
        lambda w: w.todo.update("zzz", title="x"),
        sf.KeyColumnError, "rows 'zzz' are not in 'todo' here", "frame().index"),
    "an update of the key itself": (
        lambda w: w.todo.update("a", id="z"),
        sf.KeyColumnError, "the key column 'id' of a row cannot be changed", "delete the row and insert it"),
    "an update of an unknown column": (
        lambda w: w.todo.update("a", colour="red"),
        sf.SchemaError, "columns 'colour' are not among the table's"),
    "a delete of keys of which one is not here": (
        lambda w: w.todo.delete(["a", "zzz"]),
        sf.KeyColumnError, "rows 'zzz' are not in 'todo' here", "frame().index"),
    "an update by a key of the wrong type": (
        lambda w: w.numbers.update("seven", x=1),
        sf.KeyColumnError, "keys 'seven' do not fit the key of 'numbers' (id BIGINT)"),
    "a delete by a key of the wrong type": (
        lambda w: w.todo.delete([1]),
        sf.KeyColumnError, "keys 1 do not fit the key of 'todo' (id VARCHAR)"),
    "a get by a key with a fraction": (
        lambda w: w.numbers.get(1.5),
        sf.KeyColumnError, "1.5", "'numbers' (id BIGINT)"),
    "a delete by a key with a fraction": (
        lambda w: w.numbers.delete(1.5),
        sf.KeyColumnError, "1.5", "'numbers' (id BIGINT)"),
    "a get by one part of a compound key": (
        lambda w: w.weather.get(2013),
        sf.KeyColumnError, "key 2013 of 'weather': expected a tuple (year, origin)"),
    "an update by one part of a compound key": (
        lambda w: w.weather.update(2013, temp=1.0),
        sf.KeyColumnError, "key 2013 of 'weather': expected a tuple (year, origin)"),
    "a revert of a key of the wrong type": (
        lambda w: w.numbers.revert("seven"),
        sf.KeyColumnError, "keys 'seven' do not fit the key of 'numbers' (id BIGINT)"),
    "a group of columns that are none": (
        lambda w: w.todo.keep_together("title", "colour"),
        sf.SchemaError, "columns 'colour' are not among the table's"),
    # where and sql
    "a where that ends too early": (
        lambda w: w.todo.frame("n >"), sf.QueryError, "n >"),
    "a where of an unknown column": (
        lambda w: w.todo.frame("colour = 'red'"), sf.QueryError, "column 'colour' is not known", "the columns are id, title, n, at, done"),
    "a where with a subquery": (
        lambda w: w.todo.pull("n in (select n from todo)"), sf.QueryError, "n in (select n from todo)"),
    "a where with a parameter": (
        lambda w: w.todo.pull("n = ?"), sf.QueryError, "?"),
    "a where with an unknown function": (
        lambda w: w.todo.pull("sleep(n) = 1"), sf.QueryError, "sleep"),
    "a where of two statements": (
        lambda w: w.todo.purge("n = 1; drop table todo", force=True), sf.QueryError, "n = 1; drop table todo"),
    "a where that is no condition": (
        lambda w: w.todo.pull("n + 1"), sf.QueryError, "n + 1"),
    "an empty where": (
        lambda w: w.todo.frame(""), sf.QueryError, "empty"),
    "a changed where under an old query id": (
        lambda w: w.todo.pull("n = 1", query_id="all"),
        sf.QueryError, "query id 'all' of table 'todo' was pulled with", "no condition", "now with '\"n\" = 1'", "a query id of its own"),
    "SQL that writes": (
        lambda w: w.ctx.sql("delete from syncframe_rows.todo"),
        sf.QueryError, "sql() takes one query that reads", "edit with table.stage(frame)"),
    "SQL that writes behind an explanation": (
        lambda w: w.ctx.sql("explain analyze delete from syncframe_rows.todo"),
        sf.QueryError, "sql() takes one query that reads", "edit with table.stage(frame)"),
    "SQL of two statements": (
        lambda w: w.ctx.sql("select 1; drop view todo"),
        sf.QueryError, "sql() takes one query that reads", "edit with table.stage(frame)"),
    "SQL that attaches": (
        lambda w: w.ctx.sql("attach 'other.duckdb'"),
        sf.QueryError, "sql() takes one query that reads", "edit with table.stage(frame)"),
    "SQL that cannot be parsed": (
        lambda w: w.ctx.sql("selekt 1"), sf.QueryError, "selekt", "the tables here are numbers, todo, typed, weather"),
    "SQL over a table that is not here": (
        lambda w: w.ctx.sql("from flights"), sf.QueryError, "flights", "the tables here are numbers, todo, typed, weather"),
    # names and schemas
    "a reserved table name": (
        lambda w: w.ctx.table("_syncframe_mine", schema={"id": "VARCHAR"}),
        sf.SchemaError, "table '_syncframe_mine': names that begin with '_syncframe' are reserved"),
    "a change log pulled as a table": (
        lambda w: w.ctx["_syncframe_log_todo"].pull(),
        sf.BackendError, "table '_syncframe_log_todo' is not in"),
    "a reserved column name": (
        lambda w: w.ctx.table("new", schema={"id": "VARCHAR", "_syncframe_x": "BIGINT"}),
        sf.SchemaError, "column '_syncframe_x': names that begin with '_syncframe' are reserved", "rename the column"),
    "a reserved column name at the back end": (
        lambda w: w.ctx["twins"].pull(),
        sf.SchemaError, "column '_syncframe_note': names that begin with '_syncframe' are reserved", "rename the column"),
    "columns that differ in case only": (
        lambda w: w.ctx.table("new", schema={"id": "VARCHAR", "note": "VARCHAR", "Note": "VARCHAR"}),
        sf.SchemaError, "columns 'note' and 'Note' have one name when case is not counted", "rename one of them"),
    "tables that differ in case only": (
        lambda w: w.ctx.table("Todo", schema={"id": "VARCHAR"}),
        sf.SchemaError, "tables 'todo' and 'Todo' have one name when case is not counted"),
    "a table pulled again in another case": (
        lambda w: w.ctx["TODO"].pull(),
        sf.SchemaError, "tables 'todo' and 'TODO' have one name when case is not counted"),
    "a schema without its key": (
        lambda w: w.ctx.table("new", schema={"name": "VARCHAR"}),
        sf.KeyColumnError, "the key 'id' is not among the columns 'name'", 'key="id"'),
    "a schema of an unknown type": (
        lambda w: w.ctx.table("new", schema={"id": "VARCHAR", "where": "GEOMETRY"}),
        sf.SchemaError, "type 'GEOMETRY' is not one that syncframe keeps exactly", "one of BOOLEAN, TINYINT"),
    "a schema of nothing that has one": (
        lambda w: w.ctx.table("new", schema=["id", "name"]),
        sf.SchemaError, "a schema cannot be taken from a list", "pyarrow.Schema"),
    "another schema for a table that is here": (
        lambda w: w.ctx.table("todo", schema={"id": "VARCHAR", "title": "BIGINT"}),
        sf.SchemaError, "table 'todo'", "'title'"),
    # the back end
    "a table that the back end lacks": (
        lambda w: w.ctx["flights"].pull(), sf.BackendError, "table 'flights' is not in", "far.db", "'todo'"),
    "a table without a primary key": (
        lambda w: w.ctx["heap"].pull(), sf.SchemaError, "table 'heap' has no primary key", "a table with a primary key"),
    "a column of a type that is not kept exactly": (
        lambda w: w.ctx["odd"].pull(), sf.SchemaError, "table 'odd'", "'money'", 'schema={"odd"'),
    "a column without a declared type": (
        lambda w: w.ctx["loose"].pull(),
        sf.SchemaError, "table 'loose'", "column 'anything' has no declared type", 'schema={"loose"'),
    "columns to keep that are none": (
        lambda w: w.numbers.pull(columns=["x", "colour"]),
        sf.SchemaError, "columns 'colour' are not among the table's: 'id', 'x'"),
    "pages of no row": (
        lambda w: w.numbers.pull(page_rows=0), sf.SyncError, "page_rows=0: a page has at least one row"),
    "an unknown scheme": (
        lambda w: sf.connect("mysql://host/db", store=":memory:"),
        sf.SyncError, "'mysql://host/db' has no scheme that is known", "duckdb:///path, sqlite:///path"),
    "a URL that names no file": (
        lambda w: sf.connect("sqlite://far.db", store=":memory:"),
        sf.SyncError, "'sqlite://far.db' names no file", "with four slashes"),
    "a SQLite file that is not there": (
        lambda w: sf.connect(f"sqlite:///{w.folder}/none.db", store=":memory:")["todo"].pull(),
        sf.TransientError, "none.db does not exist", "an absolute one makes four slashes"),
    "a DuckDB file that is not there": (
        lambda w: sf.connect(f"duckdb:///{w.folder}/none.duckdb", store=":memory:")["todo"].pull(),
        sf.TransientError, "none.duckdb does not exist", "an absolute one makes four slashes"),
    "a pull without a back end": (
        lambda w: sf.connect(store=w.store)["todo"].pull(), sf.SyncError, "this context has no back end", "connect("),
    "a push without a back end": (
        lambda w: sf.connect(store=w.store).push(), sf.SyncError, "this context has no back end", "connect("),
    "a type given for a column that is none": (
        lambda w: sf.connect(w.url, store=":memory:", schema={"todo": {"colour": "VARCHAR"}})["todo"].pull(),
        sf.SchemaError, "table 'todo' has no column 'colour'", "connect(schema=...)"),
    # the queue
    "a purge while operations are pending": (
        lambda w: w.todo.purge(), sf.PendingError, "1 operations of 'todo' are pending", "discard()", "purge(force=True)"),
    "an unknown policy of a context": (
        lambda w: sf.connect(w.url, store=":memory:", on_conflict="ours"),
        sf.SyncError, "on_conflict='ours' is not known", "one of fail, merge, mine, theirs, or a callable"),
    "an unknown policy of a push": (
        lambda w: w.ctx.push(on_conflict="ours"), sf.SyncError, "on_conflict='ours' is not known", "or a callable"),
    "an unknown policy of a pull": (
        lambda w: w.todo.pull(on_conflict=1), sf.SyncError, "on_conflict=1 is not known", "or a callable"),
    "an unknown policy of a table": (
        lambda w: w.ctx.table("todo", on_conflict="ours"), sf.SyncError, "on_conflict='ours' is not known", "or a callable"),
    "a push of a table that is not here": (
        lambda w: w.ctx.push("flights"), sf.SyncError, "tables 'flights' are not in this store", "numbers, todo, typed, weather"),
    "a conflict that does not stand": (
        lambda w: w.ctx.conflicts["todo", "b"], sf.KeyColumnError, "row 'b' of 'todo' is not in conflict", "ctx.conflicts"),
    "a purge of rows with pending operations": (
        lambda w: w.todo.purge("id = 'b'"), sf.PendingError, "1 operations of 'todo' are pending", "discard()"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_input_is_refused_in_words_and_changes_nothing(still, name):
    call, kind, *words = REFUSED[name]

    with pytest.raises(sf.SyncError) as raised:
        call(still)

    before, still.seen = still.seen, still.everything()
    assert type(raised.value) is kind
    assert [word for word in words if word not in str(raised.value)] == []
    assert raised.value.hint
    assert still.seen == before


# Those that need something set up first: what stands behind the `yield` is to be refused ------------------------------


def damaged_file(w):
    """A store whose first bytes are lost."""
    sf.connect(store=w.folder / "hurt.duckdb")
    with (w.folder / "hurt.duckdb").open("r+b") as file:
        file.write(b"\0" * 4096)
    yield sf.StoreError, "hurt.duckdb cannot be read or written", "is it a DuckDB file"
    sf.connect(store=w.folder / "hurt.duckdb")


def text_file(w):
    (w.folder / "notes.txt").write_text("milk, bread")
    yield sf.StoreError, "notes.txt cannot be read or written", "is it a DuckDB file"
    sf.connect(store=w.folder / "notes.txt")


def sqlite_file_as_store(w):
    yield sf.StoreError, "far.db"
    sf.connect(store=w.path)


def folder_as_store(w):
    (w.folder / "sub").mkdir()
    yield sf.StoreError, "sub"
    sf.connect(store=w.folder / "sub")


def store_in_no_folder(w):
    yield sf.StoreError, "nowhere/here.duckdb"
    sf.connect(store=w.folder / "nowhere" / "here.duckdb")


def database_as_store(w):
    with duckdb.connect(str(w.folder / "sales.duckdb")) as own:
        own.execute("create table sales (id integer)")
    yield sf.StoreError, "sales.duckdb is a DuckDB file with tables of its own", "name another file"
    sf.connect(store=w.folder / "sales.duckdb")


def newer_format(w):
    sf.connect(store=w.folder / "new.duckdb")
    with duckdb.connect(str(w.folder / "new.duckdb")) as own:
        own.execute("update syncframe_meta.store set format = 999")
    yield sf.StoreError, "new.duckdb has format 999, newer than this version's", "pip install -U syncframe"
    sf.connect(store=w.folder / "new.duckdb")


def garbage_as_back_end(w):
    (w.folder / "garbage.db").write_bytes(b"no database at all" * 100)
    yield sf.BackendError, "garbage.db", "not a database"
    sf.connect(f"sqlite:///{w.folder}/garbage.db", store=":memory:")["todo"].pull()


def value_of_another_type(w):
    w.write("create table sizes (id text primary key, n bigint)")
    w.ctx["sizes"].pull()
    w.write("insert into sizes values ('q', 'x')")
    yield (
        sf.BackendError,
        "table 'sizes', row {'id': 'q'}: column 'n' holds 'x', which is no BIGINT",
        'schema={"sizes": {"n": ...}}',
    )
    w.ctx["sizes"].pull()


def another_back_end(w):
    other = World(_made(w.folder / "other"))
    ctx = sf.connect(other.url, store=w.store)
    yield sf.PendingError, "1 operations are pending for", "far.db", "other/far.db", "discard()"
    ctx.push()


def another_back_end_pulled(w):
    other = World(_made(w.folder / "other"))
    ctx = sf.connect(other.url, store=w.store)
    yield sf.PendingError, "1 operations are pending for", "far.db", "other/far.db", "discard()"
    ctx["todo"].pull(push_first=False)


def emptied_table(w):
    w.write("delete from numbers;")
    yield sf.DeleteGuardError, "the pull of 'numbers' came back empty where 60 rows were", "ctx['numbers'].purge()"
    w.numbers.pull(query_id="all", full=True)


def dropped_column(w):
    w.write("create table sizes (id text primary key, n bigint, m bigint); insert into sizes values ('a', 1, 1)")
    w.ctx["sizes"].pull()
    w.write("alter table sizes drop column n")
    yield sf.SchemaError, "table 'sizes' has changed at the back end", "columns gone 'n'", "ctx['sizes'].purge()"
    w.ctx["sizes"].pull()


def retyped_column(w):
    w.write("create table sizes (id text primary key, n bigint); insert into sizes values ('a', 1)")
    w.ctx["sizes"].pull()
    w.write("drop table sizes; create table sizes (id text primary key, n double)")
    yield sf.SchemaError, "table 'sizes' has changed at the back end", "of another type 'n'", "ctx['sizes'].purge()"
    w.ctx["sizes"].pull()


def stale_frame(w):
    frame = restarted(edited(w.todo, "a", "title", "mine"))
    w.write("update todo set title = 'theirs' where id = 'a';")
    w.todo.pull(push_first=False, query_id="all")
    yield sf.StaleFrameError, "rows 'a' of 'todo' changed here after this frame was taken", 'base="current"'
    w.todo.stage(frame)


def row_that_left(w):
    frame = restarted(edited(w.todo, "c", "title", "mine"))
    w.write("delete from todo where id = 'c';")
    w.todo.pull(push_first=False, query_id="all")
    yield sf.StaleFrameError, "rows 'c' of 'todo' changed here after this frame was taken", 'base="current"'
    w.todo.stage(frame)


def frame_without_token(w):
    frame = edited(w.todo, "a", "title", "mine").reset_index()
    w.write("update todo set title = 'theirs' where id = 'a';")
    w.todo.pull(push_first=False, query_id="all")
    yield sf.StaleFrameError, "rows 'a' of 'todo' were changed by a pull after a frame was taken", "base="
    w.todo.stage(pd.DataFrame(frame.to_dict("list")))


def insert_of_a_row_outside_the_filter(w):
    frame = w.todo.frame("n = 1")
    frame.loc["c"] = ["new", 1, pd.NaT, None]
    yield (
        sf.KeyColumnError,
        "keys 'c' cannot be inserted into 'todo': they are there",
        "update(key, ...)",
    )
    w.todo.stage(frame)


def insert_of_a_pending_row_outside_the_filter(w):
    frame = w.todo.frame("n = 1")
    frame.loc["b"] = ["new", 1, pd.NaT, None]
    yield (
        sf.KeyColumnError,
        "keys 'b' cannot be inserted into 'todo': they are there",
        "update(key, ...)",
    )
    w.todo.stage(frame)


def overtaken_conflict(w):
    w.write("update todo set title = 'toast' where id = 'b';")
    w.ctx.push()
    looked_at = w.ctx.conflicts["todo", "b"]
    w.write("update todo set title = 'bun' where id = 'b';")
    w.todo.pull(push_first=False, query_id="all")
    yield (
        sf.SyncError,
        "row 'b' of 'todo' is not in this conflict any more, or a newer remote row or edit has come",
        "ctx.conflicts['todo', 'b']",
    )
    looked_at.keep_mine()


def conflict_resolved_by_another_type(w):
    w.write("update todo set title = 'toast' where id = 'b';")
    w.ctx.push()
    yield sf.SchemaError, "column 'n'", "'two'"
    w.ctx.conflicts["todo", "b"].resolve({"n": "two"})


def conflict_resolved_by_no_column(w):
    w.write("update todo set title = 'toast' where id = 'b';")
    w.ctx.push()
    yield sf.SyncError, "columns 'colour' are not among those of 'todo'", "'id', 'title', 'n', 'at', 'done'"
    w.ctx.conflicts["todo", "b"].resolve({"colour": "red"})


def nothing_to_undo(w):
    ctx = sf.connect(store=w.folder / "fresh.duckdb")
    yield sf.SyncError, "there is nothing to take back", "ctx.history"
    ctx.undo()


def rows_without_keys_twice(w):
    rows = pa.table({"id": pa.array([None], pa.string()), "title": ["new"]})
    w.todo.stage(rows)
    yield sf.KeyColumnError, "the new rows of this frame were staged already", "Changes.inserts"
    w.todo.stage(rows)


PREPARED = [f for f in list(globals().values()) if inspect.isgeneratorfunction(f) and f.__module__ == __name__]


def _made(folder):
    folder.mkdir()
    return folder


@pytest.mark.parametrize("case", PREPARED, ids=lambda case: case.__name__.replace("_", " "))
def test_a_wrong_state_is_refused_in_words_and_changes_nothing(world, case):
    steps = case(world)
    kind, *words = next(steps)
    before = world.everything()

    with pytest.raises(sf.SyncError) as raised:
        next(steps)

    assert type(raised.value) is kind
    assert [word for word in words if word not in str(raised.value)] == []
    assert raised.value.hint
    assert world.everything() == before


def test_there_are_more_than_forty_wrong_inputs():
    assert len(REFUSED) + len(PREPARED) > 40


# What is told in another way ------------------------------------------------------------------------------------------

HOLDER = """
    import duckdb, sys
    held = duckdb.connect(sys.argv[1])
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(path):
    """Another process holds the file, as a program that reads it with plain DuckDB does."""
    code = textwrap.dedent(HOLDER)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        holder.stdout.readline()
        yield holder
        holder.stdin.close()


def test_a_store_that_another_process_holds_is_refused_naming_it(world):
    before = world.everything()
    impatient = sf.connect(world.url, store=world.store, lock_timeout_s=0.2)

    with held_by_another(world.store) as holder:
        with pytest.raises(sf.StoreError) as by_connect:
            sf.connect(store=world.store, lock_timeout_s=0.2)
        with pytest.raises(sf.StoreError) as by_call:
            impatient["todo"].update("a", title="x")

    for raised in (by_connect, by_call):
        assert f"{world.store} is held by process {holder.pid}" in str(raised.value)
        assert "for over 0.2 s" in str(raised.value)
        assert "lock_timeout_s" in raised.value.hint
    assert world.everything() == before


def test_a_missing_table_says_404(world):
    with pytest.raises(sf.BackendError) as raised:
        world.ctx["flights"].pull()

    assert raised.value.status == 404


def test_a_missing_file_is_never_created(world):
    for url in (f"sqlite:///{world.folder}/none.db", f"duckdb:///{world.folder}/none.duckdb"):
        ctx = sf.connect(url, store=":memory:")
        ctx.table("todo", schema={"id": "VARCHAR"}).insert({"id": "a"})
        with pytest.raises(sf.TransientError):
            ctx.push()
        assert len(ctx.pending) == 1

    assert not (world.folder / "none.db").exists()
    assert not (world.folder / "none.duckdb").exists()


def test_a_key_that_is_not_here_gets_none(world):
    assert world.todo.get("zzz") is None
    assert world.numbers.get(7) == {"id": 7, "x": 70}
    assert world.numbers.get(np.int64(7)) == {"id": 7, "x": 70}
    assert world.weather.get((2013, "LGA")) is None
    assert world.weather.get((2013, "EWR")) == {"year": 2013, "origin": "EWR", "temp": 39.02}


def test_a_key_error_can_be_caught_as_pandas_users_do(world):
    with pytest.raises(KeyError):
        world.todo.update("zzz", title="x")
    with pytest.raises(ValueError, match="takes whole numbers"):
        world.todo.update("a", n=1.5)


def test_a_policy_that_raises_leaves_the_conflict_and_warns_naming_the_row(world):
    world.write("update todo set title = 'toast' where id = 'b';")

    def clumsy(conflict):
        raise RuntimeError(f"no idea about {conflict.key}")

    with pytest.warns(
        UserWarning, match="conflict on row 'b' of 'todo' is left as it was: RuntimeError: no idea about b"
    ):
        result = world.ctx.push(on_conflict=clumsy)

    assert result.counts == {"accepted": 0, "conflicts": 1, "rejected": 0}
    assert world.ctx.conflicts["todo", "b"].mine["title"] == "rye"
    assert world.ctx.conflicts["todo", "b"].theirs["title"] == "toast"


def test_a_policy_that_decides_nothing_known_leaves_the_conflict_and_warns(world):
    world.write("update todo set title = 'toast' where id = 'b';")

    with pytest.warns(UserWarning, match="'yours' is no decision"):
        world.ctx.push(on_conflict=lambda conflict: "yours")

    assert len(world.ctx.conflicts) == 1


def test_a_frame_of_another_store_deletes_nothing(world):
    other = sf.connect(world.url, store=":memory:")
    other["todo"].pull("n = 1")
    frame = other["todo"].frame()
    frame.loc["a", "title"] = "oat milk"

    changes = world.todo.stage(frame)

    assert changes.counts == {"insert": 0, "update": 1, "delete": 0}
    assert sorted(world.todo.frame().index) == ["a", "b", "c"]


def test_an_unknown_table_asks_nothing_until_it_is_used(world):
    before = world.everything()

    table = world.ctx["flights"]

    assert table.name == "flights"
    assert "no schema" in repr(table)
    assert world.everything() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_may_not_be_written_is_refused(world):
    world.store.chmod(0o400)

    with pytest.raises(sf.StoreError) as raised:
        world.todo.update("a", title="x")

    assert "may this user write there?" in raised.value.hint
