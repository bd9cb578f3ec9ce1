"""SQLite's own: the triggers that log every program's writes, and how values are held."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import random
import shutil
import sqlite3
import struct
import threading
from decimal import Decimal

import pyarrow as pa
import pytest

from syncframe import backends
from syncframe.backends.base import CREATED, DELETED, OPERATION, UPDATED, VERSION
from syncframe.backends.sqlite import SqliteBackend, affinity, column_of
from syncframe.backends.sqlite_connections import Connections
from syncframe.errors import AccessError, BackendError, CheckpointLost, QueryError, SchemaError, TransientError
from syncframe.query import Query
from syncframe.testing import (
    count,
    delete,
    insert,
    keys,
    pages,
    pulled,
    push,
    read,
    rows,
    statuses,
    update,
    versions,
)

UTC = dt.UTC


class File:
    """A SQLite file that other programs write, and the back end over it."""

    def __init__(self, path, *statements, schema=None):
        self.path = path
        self.write(*statements)
        self.backend = backends.open(f"sqlite:///{path}", schema=schema)

    def write(self, *statements):
        with sqlite3.connect(self.path) as connection:
            for sql in statements:
                connection.execute(sql)
        connection.close()

    def ask(self, sql):
        connection = sqlite3.connect(self.path)
        found = connection.execute(sql).fetchall()
        connection.close()
        return found

    def objects(self):
        return {name for (name,) in self.ask("select name from sqlite_master where name not like 'sqlite%'")}


@pytest.fixture
def file(tmp_path):
    return File(
        tmp_path / "app.db",
        "create table people (id TEXT primary key, email TEXT unique, team TEXT, n BIGINT)",
        "insert into people values ('a', 'a@x', 'red', 1), ('b', 'b@x', 'red', 2), ('c', 'c@x', 'blue', 3)",
    )


@pytest.fixture
def followed(file):
    """The file, tracked, and a function that gives what changed since it was last called."""
    file.backend.track(["people"])
    _, place = pulled(file.backend, "people")

    def changes():
        nonlocal place
        held, place = pulled(file.backend, "people", place)
        return {key: None if row[DELETED] else row["n"] for key, row in held.items()}

    file.changes = changes
    return file


# Tracking


def test_tracking_gives_each_row_a_place_in_the_order_of_the_key(file):
    file.backend.track(["people"])

    assert file.ask("select k_id, stamp, deleted from _syncframe_log_people order by stamp") == [
        ("a", 1, 0), ("b", 2, 0), ("c", 3, 0),
    ]  # fmt: skip
    assert file.backend.is_tracked("people")
    assert file.backend.tables() == ["people"]


def test_tracking_twice_changes_nothing(file):
    file.backend.track(["people"])
    before, identity = versions(file.backend, "people"), file.backend.identity()

    file.backend.track(["people"])

    assert versions(file.backend, "people") == before
    assert file.backend.identity() == identity


def test_the_sql_that_is_shown_is_the_sql_that_tracks(file):
    file.write(*file.backend.track_sql("people"))

    assert file.backend.is_tracked("people")
    assert len(pulled(file.backend, "people")[0]) == 3


def test_untrack_removes_everything(file):
    before = file.objects()
    file.backend.track(["people"])
    assert file.objects() != before

    file.backend.untrack(["people"])

    assert file.objects() == before
    assert file.backend.identity() == f"sqlite:{file.path.resolve()}"
    assert not file.backend.is_tracked("people")


def test_untrack_leaves_what_another_table_needs(file):
    file.write("create table other (id BIGINT primary key)")
    file.backend.track(["people", "other"])

    file.backend.untrack(["people"])

    assert file.backend.is_tracked("other")
    assert file.backend.identity() != f"sqlite:{file.path.resolve()}"


def test_a_checkpoint_from_before_tracking_anew_is_lost(file):
    file.backend.track(["people"])
    _, old = pulled(file.backend, "people")
    file.backend.untrack(["people"])
    file.write("delete from people where id = 'a'")
    file.backend.track(["people"])

    with pytest.raises(CheckpointLost):
        pulled(file.backend, "people", old)


def test_a_table_that_was_made_anew_is_not_tracked_until_it_is_tracked_again(file):
    file.backend.track(["people"])
    _, old = pulled(file.backend, "people")
    file.write("drop table people", "create table people (id TEXT primary key, n BIGINT)",
               "insert into people values ('z', 26)")  # fmt: skip

    assert not file.backend.is_tracked("people")
    with pytest.raises(CheckpointLost, match="not tracked any more"):
        pulled(file.backend, "people", old)
    assert pulled(file.backend, "people")[1] is None

    file.backend.track(["people"])
    assert list(pulled(file.backend, "people")[0]) == ["z"]
    with pytest.raises(CheckpointLost):
        pulled(file.backend, "people", old)


def test_a_column_that_is_added_later_breaks_nothing(followed):
    followed.write("alter table people add column note TEXT", "update people set note = 'x' where id = 'a'",
                   "delete from people where id = 'b'")  # fmt: skip

    assert followed.changes() == {"a": 1, "b": None}
    assert rows(followed.backend, "people")["a"]["note"] == "x"
    assert statuses(followed.backend, "people", insert("d", note="y")) == ["accepted"]


def test_a_table_without_a_primary_key_is_refused_in_words(tmp_path):
    file = File(tmp_path / "x.db", "create table t (a TEXT)", "create view v as select a from t")

    for name in ("t", "v"):
        with pytest.raises(SchemaError, match="no primary key") as caught:
            file.backend.schema(name)
        assert caught.value.hint


def test_a_unique_index_over_an_expression_cannot_be_tracked(file):
    file.write("create unique index people_lower on people (lower(email))")

    with pytest.raises(SchemaError, match="people_lower"):
        file.backend.track(["people"])
    assert not file.backend.is_tracked("people")


# Writes of other programs


@pytest.mark.parametrize(
    ("statements", "changes"),
    [
        (["insert into people values ('d', 'd@x', 'red', 4)"], {"d": 4}),
        (["update people set n = 9 where id = 'b'"], {"b": 9}),
        (["delete from people where team = 'red'"], {"a": None, "b": None}),
        (["delete from people"], {"a": None, "b": None, "c": None}),
        (["update people set id = 'z' where id = 'a'"], {"a": None, "z": 1}),
        (["update people set id = 'z' where id = 'a'", "update people set id = 'a' where id = 'b'"],
         {"z": 1, "a": 2, "b": None}),
        (["update people set id = 'z' where id = 'a'", "update people set id = 'a' where id = 'z'"],
         {"z": None, "a": 1}),
        (["delete from people where id = 'a'", "insert into people values ('a', 'a@x', 'red', 7)"], {"a": 7}),
        (["insert into people values ('d', 'd@x', '', 4)", "delete from people where id = 'd'"], {"d": None}),
        (["insert or replace into people values ('a', 'new@x', 'red', 5)"], {"a": 5}),
        (["insert or replace into people values ('d', 'a@x', 'red', 5)"], {"a": None, "d": 5}),
        (["insert or replace into people values ('b', 'a@x', 'red', 5)"], {"a": None, "b": 5}),
        (["update or replace people set email = 'a@x' where id = 'b'"], {"a": None, "b": 2}),
        (["update or replace people set id = 'a' where id = 'b'"], {"a": 2, "b": None}),
        (["update or replace people set id = 'a', email = 'c@x' where id = 'b'"], {"a": 2, "b": None, "c": None}),
        (["insert or ignore into people values ('d', 'a@x', 'red', 5)"], {}),
        (["insert or ignore into people values ('d', 'a@x', 'red', 5)", "delete from people where id = 'c'"],
         {"c": None}),
        (["insert into people values ('d', 'a@x', '', 5) on conflict (email) do update set n = 50"], {"a": 50}),
        (["insert into people values ('a', 'a@x', '', 5) on conflict do nothing"], {}),
        (["update or ignore people set email = 'a@x' where id = 'b'"], {}),
    ],
)  # fmt: skip
def test_what_any_program_writes_is_logged(followed, statements, changes):
    followed.write(*statements)

    assert followed.changes() == changes
    assert followed.changes() == {}


def test_a_write_that_fails_leaves_no_trace(followed):
    with pytest.raises(sqlite3.IntegrityError):
        followed.write("insert into people values ('d', 'a@x', 'red', 5)")

    assert followed.changes() == {}


def test_replacing_over_several_unique_indexes_leaves_a_tombstone_for_each(tmp_path):
    file = File(
        tmp_path / "x.db",
        "create table t (id BIGINT primary key, u TEXT, v TEXT, w TEXT collate nocase)",
        "create unique index t_uv on t (u, v)",
        "create unique index t_w on t (w) where w is not null",
        "insert into t values (1, 'u', 'v', 'one'), (2, 'u', 'x', 'two'), (3, 'u', 'y', 'three')",
    )
    file.backend.track(["t"])
    _, place = pulled(file.backend, "t")

    file.write("insert or replace into t values (4, 'u', 'v', 'TWO')")

    held, _ = pulled(file.backend, "t", place)
    assert {key: row[DELETED] for key, row in held.items()} == {1: True, 2: True, 4: False}
    assert [row["id"] for row in file.backend.rows("t", pa.table({"id": [1, 2, 3, 4]})).to_pylist()] == [1, 2, 3, 4]


def test_cascades_and_other_triggers_are_logged(tmp_path):
    file = File(
        tmp_path / "x.db",
        "create table p (id BIGINT primary key)",
        "create table c (id BIGINT primary key, p BIGINT references p (id) on delete cascade, name TEXT)",
        "create trigger shout after insert on c begin update c set name = upper(name) where id = new.id; end",
        "insert into p values (1)",
        "insert into c values (1, 1, 'a')",
    )
    file.backend.track(["p", "c"])
    (outcome,) = push(file.backend, "c", insert(2, p=1, name="b"))
    assert (outcome["r_name"], outcome["version"]) == ("B", versions(file.backend, "c")[2])
    _, place = pulled(file.backend, "c")

    assert statuses(file.backend, "p", delete(1, versions(file.backend, "p")[1])) == ["accepted"]

    assert {key: row[DELETED] for key, row in pulled(file.backend, "c", place)[0].items()} == {1: True, 2: True}


def test_a_write_of_another_program_keeps_the_ids_of_operations_and_says_that_it_came_after(followed):
    push(followed.backend, "people", update("a", versions(followed.backend, "people")["a"], "first", n=5))
    followed.write("update people set n = 6 where id = 'a'", "update people set n = 7 where id = 'a'")

    row = pulled(followed.backend, "people")[0]["a"]
    assert (row["n"], row[OPERATION]) == (7, "- first")

    push(followed.backend, "people", update("a", row[VERSION], "second", n=8))
    assert pulled(followed.backend, "people")[0]["a"][OPERATION] == "second first"


def test_a_deleted_row_leaves_its_last_values(tmp_path):
    file = File(
        tmp_path / "x.db",
        "create table t (id BIGINT primary key, a TEXT, b BLOB, c DOUBLE, d BIGINT, e TEXT)",
        "insert into t values (1, 'it''s', x'00ff', 0.1, 9007199254740993, null)",
    )
    file.backend.track(["t"])
    file.write("delete from t")

    assert file.ask("select image from _syncframe_log_t") == [
        ('{"id":1,"a":"it\'s","b":"00FF","c":"0.10000000000000000555","d":9007199254740993,"e":null}',)
    ]


def test_a_wide_table_can_be_tracked_and_read_untracked(tmp_path):
    columns = ", ".join(f"c{n} BIGINT" for n in range(600))
    file = File(
        tmp_path / "x.db", f"create table t (id BIGINT primary key, {columns})", "insert into t (id) values (1)"
    )
    before = versions(file.backend, "t")
    file.write("update t set c599 = 1")
    assert versions(file.backend, "t") != before

    file.backend.track(["t"])
    file.write("delete from t")

    assert pulled(file.backend, "t")[0] == {}
    assert '"c599":1}' in file.ask("select image from _syncframe_log_t")[0][0]


@pytest.mark.parametrize(
    "table",
    [
        "create table t (id INTEGER primary key, n BIGINT)",
        "create table t (id BIGINT primary key, n BIGINT) without rowid",
        "create table t (id INTEGER not null, n INT not null, primary key (id, n)) without rowid",
        "create table t (id INTEGER primary key, n INTEGER) strict",
    ],
)
def test_every_kind_of_table_is_followed(tmp_path, table):
    file = File(tmp_path / "x.db", table, "insert into t values (1, 10), (2, 20)")
    file.backend.track(["t"])
    _, place = pulled(file.backend, "t")
    file.write("update t set n = 11 where id = 1", "delete from t where id = 2", "insert into t values (3, 30)")

    held, _ = pulled(file.backend, "t", place)

    there = {row["id"]: row["n"] for row in held.values() if not row[DELETED]}
    assert there == {1: 11, 3: 30}
    assert any(row[DELETED] and row["id"] == 2 for row in held.values())


def test_keys_that_sqlite_holds_to_be_equal_stay_apart(tmp_path):
    file = File(tmp_path / "x.db", "create table t (id TEXT collate nocase primary key, n BIGINT)",
                "insert into t values ('a', 1)")  # fmt: skip
    file.backend.track(["t"])
    known, place = pulled(file.backend, "t")

    assert [o["code"] for o in push(file.backend, "t", insert("A", n=2))] == ["unique"]
    assert statuses(file.backend, "t", update("A", known["a"][VERSION], n=2)) == ["conflicted"]

    file.write("update t set id = 'A'")
    assert {key: row[DELETED] for key, row in pulled(file.backend, "t", place)[0].items()} == {"a": True, "A": False}


# Checkpoints


def test_a_restored_backup_is_noticed(followed, tmp_path):
    backup = tmp_path / "backup.db"
    shutil.copy(followed.path, backup)
    followed.write("update people set n = 9 where id = 'a'")
    _, place = pulled(followed.backend, "people")

    shutil.copy(backup, followed.path)
    with pytest.raises(CheckpointLost):
        pulled(followed.backend, "people", place)

    followed.write("update people set n = 10 where id = 'b'")
    with pytest.raises(CheckpointLost, match="backup"):
        pulled(followed.backend, "people", place)


def test_a_row_that_was_read_last_may_be_written_again(followed):
    for n in range(5):
        followed.write(f"update people set n = {n} where id = 'c'")
        assert followed.changes() == {"c": n}


def test_a_checkpoint_from_before_what_was_purged_is_lost(followed):
    _, old = pulled(followed.backend, "people")
    followed.write("delete from people where id = 'a'", "delete from people where id = 'b'")
    _, seen = pulled(followed.backend, "people", old)

    assert followed.backend.purge_deleted(keep_days=1) == 0
    assert followed.backend.purge_deleted(keep_days=0) == 1

    with pytest.raises(CheckpointLost, match="forgotten"):
        pulled(followed.backend, "people", old)
    assert pulled(followed.backend, "people", seen)[0] == {}
    followed.write("update people set n = 4 where id = 'c'")
    assert list(pulled(followed.backend, "people", seen)[0]) == ["c"]


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "{}", "[1]", "2013-01-01", '["x", 1, "y", []]', '["x", 1e999, {}, [[]]]', '["x", 1.5, "y", ["a"]]',
        '["x", -1, "y", ["a"]]', '["x", 1180591620717411303424, "y", ["a"]]', '["x", 1, 2, ["a"]]', '["x", 1, "y", [1]]',
        '["x", 1, "y", 7]', pytest.param("[" * 100_000, id="deep"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_something_else_is_lost(followed, text):
    with pytest.raises(CheckpointLost):
        pulled(followed.backend, "people", backends.Checkpoint(text))


def test_a_checkpoint_with_the_key_of_another_table_is_lost(tmp_path):
    file = File(tmp_path / "x.db", "create table t (id BIGINT primary key)", "insert into t values (1)")
    file.backend.track(["t"])
    incarnation, stamp, _, _ = json.loads(pulled(file.backend, "t")[1])

    for key in (["x"], ["1", "2"], []):
        with pytest.raises(CheckpointLost, match="backup"):
            pulled(file.backend, "t", backends.Checkpoint(json.dumps([incarnation, stamp, "y", key])))


def test_a_pull_of_nothing_new_is_three_statements(followed):
    _, place = pulled(followed.backend, "people")
    before = followed.backend.statements

    list(followed.backend.pull("people", Query(), place))

    assert followed.backend.statements - before == 3


def test_writers_that_go_on_while_pages_are_read_lose_nothing(tmp_path):
    file = File(tmp_path / "x.db", "create table t (id BIGINT primary key, n BIGINT)")
    file.backend = SqliteBackend(file.path, lock_timeout_s=60)
    file.backend.track(["t"])

    def write(start):
        connection = sqlite3.connect(file.path, timeout=60)
        for n in range(start, 300, 3):
            with connection:
                connection.execute("insert into t values (?, 0)", [n])
                connection.execute("update t set n = n + 1 where id = ?", [n // 2])
                connection.execute("delete from t where id = ?", [n - 20] if n % 7 == 0 else [-1])
        connection.close()

    writers = [threading.Thread(target=write, args=(start,)) for start in range(3)]
    for writer in writers:
        writer.start()
    held, place = {}, None
    while any(writer.is_alive() for writer in writers) or place is None:
        for page in pages(file.backend, "t", place, page_rows=10):
            held |= {row["id"]: None if row[DELETED] else row["n"] for row in page.rows.to_pylist()}
            place = page.checkpoint
    held |= {key: None if row[DELETED] else row["n"] for key, row in pulled(file.backend, "t", place)[0].items()}

    assert {key: n for key, n in held.items() if n is not None} == dict(file.ask("select id, n from t"))


# What the file says


def test_a_locked_file_is_a_transient_error_and_nothing_is_written(file):
    backend = SqliteBackend(file.path, lock_timeout_s=0.05)
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("begin immediate")

    with pytest.raises(TransientError, match="held by another program"):
        push(backend, "people", insert("d"))

    other.execute("rollback")
    other.close()
    assert statuses(backend, "people", insert("d")) == ["accepted"]


def test_a_file_that_is_no_database_is_an_error_in_words(tmp_path):
    (tmp_path / "x.db").write_text("id,name\n" * 1000)

    with pytest.raises(BackendError, match="not a database"):
        backends.open(f"sqlite:///{tmp_path}/x.db").tables()


def test_a_file_that_may_not_be_written_can_be_read(file, monkeypatch):
    opened = Connections._opened

    def reading(self):
        held = opened(self)
        held.connection.execute("pragma query_only = on")
        return held

    monkeypatch.setattr(Connections, "_opened", reading)

    assert len(rows(file.backend, "people")) == 3
    with pytest.raises(AccessError) as caught:
        file.backend.track(["people"])
    assert caught.value.status == 403


def test_a_constraint_that_is_checked_at_the_end_rejects_its_operation_only(tmp_path):
    file = File(
        tmp_path / "x.db",
        "create table p (id BIGINT primary key)",
        "create table c (id BIGINT primary key, p BIGINT references p (id) deferrable initially deferred)",
        "insert into p values (1)",
    )

    outcomes = push(file.backend, "c", insert(1, p=1), insert(2, p=2), insert(3, p=1))

    assert [(o["status"], o["code"]) for o in outcomes] == [
        ("accepted", None), ("rejected", "reference"), ("accepted", None),
    ]  # fmt: skip


@pytest.mark.parametrize("resolution", ["ABORT", "FAIL", "ROLLBACK"])
def test_a_trigger_may_refuse_in_its_own_words(file, resolution):
    file.write(
        f"create trigger guard before update on people when new.n > 100 "
        f"begin select raise({resolution}, 'n is at most 100'); end"
    )
    known = versions(file.backend, "people")

    outcomes = push(
        file.backend, "people", *(update(key, known[key], n=n) for key, n in zip("abc", (1, 101, 9), strict=True))
    )

    assert [(o["status"], o["code"], o["message"]) for o in outcomes] == [
        ("accepted", None, None), ("rejected", "trigger", "n is at most 100"), ("accepted", None, None),
    ]  # fmt: skip
    assert {key: row["n"] for key, row in rows(file.backend, "people").items()} == {"a": 1, "b": 2, "c": 9}


def test_a_strict_table_rejects_another_type(tmp_path):
    file = File(tmp_path / "x.db", "create table t (id INTEGER primary key, n INTEGER) strict",
                schema={"t": {"n": "VARCHAR"}})  # fmt: skip

    (outcome,) = push(file.backend, "t", insert(1, n="word"))

    assert (outcome["status"], outcome["code"], outcome["column"]) == ("rejected", "type", "n")


def test_a_generated_column_is_left_out(tmp_path):
    file = File(tmp_path / "x.db", "create table t (id BIGINT primary key, n BIGINT, m BIGINT as (n + 1))")

    assert file.backend.schema("t").names == ["id", "n"]
    assert statuses(file.backend, "t", insert(1, n=1)) == ["accepted"]


def test_a_condition_that_cannot_be_computed_is_a_query_error(file):
    backend = backends.open(f"sqlite:///{file.path}", schema={"people": {"team": "TIMESTAMP"}})

    with pytest.raises(QueryError):
        list(pages(backend, "people", where="team > timestamp '2013-01-01 00:00:00'"))


# Values


@pytest.mark.parametrize(
    ("declared", "type_", "held_as"),
    [
        ("INTEGER", "BIGINT", ""), ("INT", "BIGINT", ""), ("BIGINT", "BIGINT", ""), ("SMALLINT", "SMALLINT", ""),
        ("TINYINT", "TINYINT", ""), ("UBIGINT", "UBIGINT", "int64"), ("DECTEXT(20,0)", "DECIMAL(20,0)", ""),
        ("REAL", "DOUBLE", ""), ("FLOAT", "DOUBLE", ""), ("DOUBLE PRECISION", "DOUBLE", ""),
        ("DECIMAL(10,2)", "DECIMAL(10,2)", "numeric"), ("NUMERIC", "DECIMAL(18,3)", "numeric"),
        ("dectext(38, 10)", "DECIMAL(38,10)", ""), ("TEXT", "VARCHAR", ""), ("VARCHAR(20)", "VARCHAR", ""),
        ("NVARCHAR(20)", "VARCHAR", ""), ("CLOB", "VARCHAR", ""), ("STRING", "VARCHAR", "numeric text"),
        ("JSON", "JSON", "numeric text"), ("UUID", "UUID", ""), ("BLOB", "BLOB", ""), ("BOOLEAN", "BOOLEAN", ""),
        ("DATE", "DATE", ""), ("TIME", "TIME", ""), ("DATETIME", "TIMESTAMP", ""), ("TIMESTAMP", "TIMESTAMP", ""),
        ("TIMESTAMPTZ", "TIMESTAMPTZ", ""), ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ", ""),
    ],
)  # fmt: skip
def test_declared_types_are_read_by_duckdb_s_names(declared, type_, held_as):
    column = column_of("c", declared)

    assert (column.type, column.held_as) == (type_, held_as)


@pytest.mark.parametrize("declared", ["", "TEXT", "INT", "REAL", "DECIMAL(10,2)", "STRING", "BLOB", "FLOATING POINT"])
def test_affinity_is_sqlite_s_own(declared):
    connection = sqlite3.connect(":memory:")
    connection.execute(f"create table t (c {declared})")
    connection.execute("insert into t values ('7'), (7)")
    kinds = [kind for (kind,) in connection.execute("select typeof(c) from t")]
    connection.close()

    expected = {"blob": ["text", "integer"], "text": ["text"] * 2, "real": ["real"] * 2}
    assert kinds == expected.get(affinity(declared), ["integer"] * 2)


@pytest.mark.parametrize(
    ("table", "schema", "words"),
    [
        ("a", {}, "no declared type"),
        ("a GEOMETRY", {}, "not one that syncframe keeps"),
        ("a TEXT", {"b": "BIGINT"}, "no column 'b'"),
        ("a TEXT", {"a": "DOUBLE"}, "15 digits"),
    ],
)
def test_a_column_without_an_exact_type_is_refused(tmp_path, table, schema, words):
    file = File(tmp_path / "x.db", f"create table t (id BIGINT primary key, {table})", schema={"t": schema})

    with pytest.raises(SchemaError, match=words) as caught:
        file.backend.schema("t")
    assert "connect(" in caught.value.hint


@pytest.mark.parametrize("schema", [{"a": "DECIMAL(38,10)"}, pa.schema([("a", pa.decimal128(38, 10))])])
def test_a_type_may_be_given_instead_of_the_declared_one(tmp_path, schema):
    file = File(tmp_path / "x.db", "create table t (id BIGINT primary key, a TEXT)",
                "insert into t values (1, '1234567890123456789012345678.0123456789')", schema={"t": schema})  # fmt: skip

    assert rows(file.backend, "t")[1]["a"] == Decimal("1234567890123456789012345678.0123456789")


def test_values_are_written_as_others_read_them(tmp_path):
    file = File(
        tmp_path / "x.db",
        "create table t (id BIGINT primary key, d DATE, c TIME, m TIMESTAMP, i TIMESTAMPTZ, f BOOLEAN, u UUID, "
        "x DECTEXT(10,2), r DOUBLE)",
    )
    push(
        file.backend, "t",
        insert(1, d=dt.date(1, 2, 3), c=dt.time(10), m=dt.datetime(2013, 1, 1, 10), f=True, r=float("nan"),
               i=dt.datetime(2013, 1, 1, 10, tzinfo=UTC), u="ABCDEF00-0000-0000-0000-000000000000", x=Decimal("1.50")),
        insert(2, c=dt.time(10, 0, 0, 1), m=dt.datetime(2013, 1, 1, 10, 0, 0, 1), f=False,
               i=dt.datetime(2013, 1, 1, 10, 0, 0, 1, tzinfo=UTC), x=Decimal("0.00")),
    )  # fmt: skip

    assert file.ask("select d, c, m, i, f, u, x, r from t order by id") == [
        ("0001-02-03", "10:00:00", "2013-01-01T10:00:00", "2013-01-01T10:00:00Z", 1,
         "abcdef00-0000-0000-0000-000000000000", "1.50", None),
        (None, "10:00:00.000001", "2013-01-01T10:00:00.000001", "2013-01-01T10:00:00.000001Z", 0, None, "0.00", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "written", "value"),
    [
        ("TIMESTAMP", "'2013-01-01 10:00'", dt.datetime(2013, 1, 1, 10)),
        ("TIMESTAMP", "'2013-01-01'", dt.datetime(2013, 1, 1)),
        ("TIMESTAMPTZ", "'2013-01-01 10:00'", dt.datetime(2013, 1, 1, 10, tzinfo=UTC)),
        ("TIMESTAMPTZ", "'2013-01-01T10:00:00.5+02:00'", dt.datetime(2013, 1, 1, 8, 0, 0, 500_000, tzinfo=UTC)),
        ("TIMESTAMPTZ", "'2013-01-01 10:00:00-05'", dt.datetime(2013, 1, 1, 15, tzinfo=UTC)),
        ("TIME", "'10:00'", dt.time(10)),
        ("UUID", "'ABCDEF00-0000-0000-0000-000000000000'", "abcdef00-0000-0000-0000-000000000000"),
        ("DECIMAL(10,2)", "0.1 + 0.2", Decimal("0.30")),
        ("DECIMAL(10,2)", "'3.10'", Decimal("3.10")),
        ("STRING", "'007'", "7"),
        ("JSON", "1.5", "1.5"),
        ("DOUBLE", "9e999", float("inf")),
    ],
)
def test_what_others_write_is_understood(tmp_path, declared, written, value):
    file = File(tmp_path / "x.db", f"create table t (id BIGINT primary key, c {declared})",
                f"insert into t values (1, {written}), (2, null)")  # fmt: skip

    assert {key: row["c"] for key, row in rows(file.backend, "t").items()} == {1: value, 2: None}


@pytest.mark.parametrize(
    ("declared", "written", "shown"),
    [
        ("INTEGER", "'abc'", "'abc'"), ("INTEGER", "1.5", "1.5"), ("TINYINT", "300", "300"), ("UBIGINT", "-1", "-1"),
        ("BOOLEAN", "2", "2"), ("BOOLEAN", "'true'", "'true'"), ("TEXT", "x'00'", r"b'\x00'"),
        ("TEXT", "cast(x'61ff' as text)", "udcff"), ("BLOB", "'a'", "'a'"), ("DATE", "'2013-1-1'", "'2013-1-1'"),
        ("DATE", "2456293.5", "2456293.5"), ("TIMESTAMP", "'2013-01-01T10:00:00Z'", "10:00:00Z"),
        ("TIMESTAMPTZ", "'soon'", "'soon'"), ("TIMESTAMPTZ", "'2013-01-01T10:00:00.1234567Z'", "1234567Z"),
        ("DECTEXT(4,2)", "'1.234'", "'1.234'"), ("DECIMAL(10,2)", "1.234", "1.234"), ("UUID", "'x'", "'x'"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_its_type_is_named(tmp_path, declared, written, shown):
    file = File(tmp_path / "x.db", f"create table t (id BIGINT primary key, c {declared})",
                f"insert into t values (1, null), (2, {written})")  # fmt: skip

    with pytest.raises(BackendError) as caught:
        rows(file.backend, "t")

    for word in ("'t'", "{'id': 2}", "'c'", shown, file.backend.schema("t")["c"].type):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "written", "words"),
    [
        ("TIMESTAMPTZ", "'2013-01-01 10:00:00'", "'2013-01-01T10:00:00Z'"),
        ("UUID", "'ABCDEF00-0000-0000-0000-000000000000'", "'abcdef00-"),
        ("TEXT", "null", "never NULL"),
    ],
)
def test_a_key_that_is_written_in_another_way_is_refused(tmp_path, declared, written, words):
    file = File(tmp_path / "x.db", f"create table t (id {declared} primary key)", f"insert into t values ({written})")

    with pytest.raises(BackendError, match=words):
        rows(file.backend, "t")


def test_a_number_of_more_than_63_bits_is_rejected_alone(tmp_path):
    file = File(tmp_path / "x.db", "create table t (id BIGINT primary key, n UBIGINT)")

    outcomes = push(file.backend, "t", insert(1, n=1), insert(2, n=2**64 - 1), insert(3, n=2**63 - 1))

    assert [(o["status"], o["code"]) for o in outcomes] == [
        ("accepted", None), ("rejected", "type"), ("accepted", None),
    ]  # fmt: skip


# Reading: rows that are gone


def gone(tmp_path, columns, *inserts, schema=None):
    """A tracked table `t` whose rows another program deleted."""
    file = File(
        tmp_path / "x.db", f"create table t (id BIGINT primary key, {columns})", *inserts, schema={"t": schema or {}}
    )
    file.backend.track(["t"])
    file.write("delete from t")
    return file.backend


def test_doubles_of_any_size_are_last_values_to_the_bit(tmp_path):
    numbers = random.Random(7)
    doubles = [struct.unpack("d", numbers.randbytes(8))[0] for _ in range(2_000)]
    doubles = [x for x in doubles if not math.isnan(x)] + [
        math.inf,
        -math.inf,
        5e-324,
        1.7976931348623157e308,
        0.1,
        1e23,
        0.0,
    ]
    file = File(tmp_path / "x.db", "create table t (id BIGINT primary key, x DOUBLE)")
    push(file.backend, "t", *(insert(n, x=x) for n, x in enumerate(doubles)))
    file.backend.track(["t"])
    file.write("delete from t")

    assert [row["x"] for row in read(file.backend, "t", include_deleted=True)] == doubles


@pytest.mark.parametrize(
    ("declared", "written", "where", "value"),
    [
        ("DOUBLE", "0.1", "c = 0.1e0", 0.1), ("DOUBLE", "9e999", "c > 1e308", math.inf), ("DOUBLE", "3", "c = 3", 3.0),
        ("BIGINT", "9007199254740993", "c = 9007199254740993", 2**53 + 1), ("UBIGINT", "7", "c < 10", 7),
        ("BOOLEAN", "1", "c", True), ("TEXT", "'it''s \"q\"'", "c like '%q%'", 'it\'s "q"'), ("TEXT", "'00FF'", "c = '00FF'", "00FF"),
        ("TEXT", "'a' || char(0) || 'b'", "length(c) = 3", "a\x00b"), ("TEXT", "'1.5'", "c = '1.5'", "1.5"),
        ("BLOB", "x'00ff'", "c is not null", b"\x00\xff"), ("BLOB", "x''", "c is not null", b""),
        ("DECIMAL(10,2)", "0.1 + 0.2", "c = 0.3", Decimal("0.30")), ("DECIMAL(10,2)", "3", "c > 2.5", Decimal("3.00")),
        ("DECTEXT(38,10)", "'1234567890123456789012345678.0123456789'", "c > 1",
         Decimal("1234567890123456789012345678.0123456789")),
        ("STRING", "'007'", "c = '7'", "7"), ("JSON", "1.5", "c = '1.5'", "1.5"), ("JSON", "'{}'", "c = '{}'", "{}"),
        ("DATE", "'2013-01-31'", "c < date '2013-02-01'", dt.date(2013, 1, 31)),
        ("TIME", "'10:00'", "c = time '10:00:00'", dt.time(10)),
        ("TIMESTAMP", "'2013-01-01 10:00'", "c = timestamp '2013-01-01 10:00:00'", dt.datetime(2013, 1, 1, 10)),
        ("TIMESTAMPTZ", "'2013-01-01T10:00:00.5+02:00'", "c < timestamptz '2013-01-01 08:00:01Z'",
         dt.datetime(2013, 1, 1, 8, 0, 0, 500_000, tzinfo=UTC)),
        ("UUID", "'ABCDEF00-0000-0000-0000-000000000000'", "c is not null", "abcdef00-0000-0000-0000-000000000000"),
    ],
)  # fmt: skip
def test_a_last_value_is_what_the_row_had_whatever_is_declared(tmp_path, declared, written, where, value):
    backend = gone(tmp_path, f"c {declared}", f"insert into t values (1, {written}), (2, null)")

    assert [(row["id"], row["c"]) for row in read(backend, "t", include_deleted=True)] == [(1, value), (2, None)]
    assert keys(read(backend, "t", where, include_deleted=True)) == [1]
    assert keys(read(backend, "t", "c is null", include_deleted=True)) == [2]


def test_whole_numbers_held_as_text_are_compared_and_sorted_as_numbers(tmp_path):
    file = File(tmp_path / "x.db", "create table t (id BIGINT primary key, n TEXT, u TEXT)",
                "insert into t values (1, '9', '9'), (2, '10', '18446744073709551615'), (3, '-11', '10'), (4, null, null)",
                schema={"t": {"n": "BIGINT", "u": "UBIGINT"}})  # fmt: skip
    file.backend.track(["t"])

    def answers(**options):
        return [
            keys(read(file.backend, "t", where, order_by=order, **options))
            for where, order in [("n > 9", ()), ("n in (9, 10)", ()), ("u > 9", ()), ("u between 9 and 10", ()),
                                 ("u = 18446744073709551615", ()), ("n + 1 > u", ()), (None, ["n"]), (None, ["-u"])]
        ]  # fmt: skip

    expected = [[2], [1, 2], [2, 3], [1, 3], [2], [1], [4, 3, 1, 2], [2, 3, 1, 4]]
    assert answers() == expected
    assert sorted(pulled(file.backend, "t", where="u > 9")[0]) == [2, 3]

    file.write("delete from t")
    assert answers(include_deleted=True) == expected


def test_a_last_value_that_does_not_fit_is_null_and_a_row_s_is_still_named(tmp_path):
    file = File(tmp_path / "x.db", "create table t (id BIGINT primary key, c DATE, d TEXT)",
                "insert into t values (1, 'soon', 'x'), (2, '2013-01-01', cast(x'61ff' as text)), (3, '2013-01-01', 'y')")  # fmt: skip
    file.backend.track(["t"])
    file.write("delete from t where id < 3")

    found = read(file.backend, "t", include_deleted=True)
    assert [(row["id"], row["c"], row["d"]) for row in found] == [
        (1, None, "x"), (2, dt.date(2013, 1, 1), None), (3, dt.date(2013, 1, 1), "y"),
    ]  # fmt: skip

    file.write("update t set c = 'later'")
    with pytest.raises(BackendError, match="'later'"):
        read(file.backend, "t", include_deleted=True)


def test_a_column_that_is_added_later_is_null_of_rows_that_are_gone(followed):
    followed.write("delete from people where id = 'a'", "alter table people add column note TEXT default 'x'")

    found = read(followed.backend, "people", include_deleted=True)

    assert [(row["id"], row["team"], row["note"]) for row in found] == [
        ("a", "red", None), ("b", "red", "x"), ("c", "blue", "x"),
    ]  # fmt: skip


def test_a_row_that_was_replaced_away_has_its_last_values(followed):
    followed.write("insert or replace into people values ('d', 'a@x', 'red', 5)")

    (row,) = read(followed.backend, "people", "deleted", include_deleted=True)

    assert (row["id"], row["email"], row["n"]) == ("a", "a@x", 1)


def test_keys_that_sqlite_holds_to_be_equal_stay_apart_when_they_are_read(tmp_path):
    file = File(tmp_path / "x.db", "create table t (id TEXT collate nocase primary key, n BIGINT)",
                "insert into t values ('a', 1), ('B', 2)")  # fmt: skip
    file.backend.track(["t"])
    file.write("update t set id = 'A' where id = 'a'")

    assert keys(read(file.backend, "t")) == ["A", "B"]
    assert [(row["id"], row["n"], row[DELETED]) for row in read(file.backend, "t", include_deleted=True)] == [
        ("A", 1, False), ("B", 2, False), ("a", 1, True),
    ]  # fmt: skip
    assert keys(read(file.backend, "t", "deleted or n = 2", include_deleted=True, order_by=["-id"])) == ["a", "B"]


def test_a_wide_table_is_read_with_its_rows_that_are_gone(tmp_path):
    columns = ", ".join(f"c{n} BIGINT" for n in range(600))
    file = File(
        tmp_path / "x.db",
        f"create table t (id BIGINT primary key, {columns})",
        "insert into t (id, c599) values (1, 7)",
    )
    untracked = read(file.backend, "t", "c599 = 7")
    file.backend.track(["t"])
    file.write("delete from t")

    (row,) = read(file.backend, "t", "c599 = 7", include_deleted=True)

    assert (untracked[0]["c599"], row["c599"], row["c0"]) == (7, 7, None)


def test_a_limit_and_an_offset_may_be_as_large_as_they_like(file):
    assert len(read(file.backend, "people", limit=2**70)) == 3
    assert read(file.backend, "people", limit=2**70, offset=2**70) == []


# Publishing

NOON = dt.datetime(2063, 1, 1, 12, tzinfo=UTC)  # later than any write of the tests


def stamps(file, **options):
    """By key, how many milliseconds after noon the rows were published."""
    found = read(file.backend, "people", published=True, order_by=["updatedAt"], **options)
    return {row["id"]: (row[UPDATED] - NOON) / dt.timedelta(milliseconds=1) for row in found}


def test_stamps_reach_the_present_and_never_go_back(file):
    file.backend.track(["people"])

    file.backend.publish("people", now=NOON)
    assert stamps(file) == {"a": -2, "b": -1, "c": 0}

    file.write("update people set n = 9 where id = 'a'", "insert into people values ('d', 'd', '', 4)")
    file.backend.publish("people", now=NOON - dt.timedelta(hours=1))
    assert stamps(file) == {"b": -1, "c": 0, "a": 1, "d": 2}

    file.write("delete from people where id = 'd'", "update people set n = 10 where id = 'a'")
    file.backend.publish("people", now=NOON + dt.timedelta(seconds=1, microseconds=999))
    assert stamps(file, include_deleted=True) == {"b": -1, "c": 0, "d": 999, "a": 1000}


def test_a_row_came_before_it_last_changed(file):
    file.backend.track(["people"])
    file.backend.publish("people", now=NOON)
    first = {row["id"]: row[CREATED] for row in read(file.backend, "people")}
    file.write("update people set n = 9 where id = 'a'")
    file.backend.publish("people", now=NOON + dt.timedelta(hours=1))

    found = read(file.backend, "people", order_by=["updatedAt"], published=True)

    assert all(row[CREATED] <= row[UPDATED] for row in found)
    assert found[2][UPDATED] - found[1][UPDATED] == dt.timedelta(hours=1)
    assert {row["id"]: row[CREATED] for row in found} == first


def test_nothing_is_written_where_nothing_is_new(file):
    file.backend.track(["people"])
    file.backend.publish("people")
    backend = SqliteBackend(file.path, lock_timeout_s=0.05)
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("begin immediate")

    backend.publish("people")
    other.execute("update people set n = 9 where id = 'a'")
    other.execute("commit")
    other.execute("begin immediate")
    with pytest.raises(TransientError, match="held by another program"):
        backend.publish("people")

    other.execute("rollback")
    other.close()
    assert keys(read(backend, "people", published=True)) == ["b", "c"]


def test_tombstones_are_purged_by_their_published_stamps(file):
    file.backend.track(["people"])
    file.write("delete from people where id = 'a'", "delete from people where id = 'b'")
    file.backend.publish("people", now=NOON)

    assert file.backend.purge_deleted(keep_days=1, now=NOON + dt.timedelta(hours=23)) == 0
    assert file.backend.purge_deleted(keep_days=1, now=NOON + dt.timedelta(hours=24)) == 1
    assert stamps(file, include_deleted=True) == {"c": -2, "b": 0}


def without_marks(file):
    """Take back what this version added to the settings."""
    file.write(
        "create table kept as select name, incarnation, purged from _syncframe_settings",
        "drop table _syncframe_settings",
        "create table _syncframe_settings (name text primary key, incarnation text not null, purged integer not null)",
        "insert into _syncframe_settings select * from kept",
        "drop table kept",
    )


def test_settings_of_an_earlier_version_are_mended_when_it_is_published(file):
    file.backend.track(["people"])
    without_marks(file)
    assert (len(rows(file.backend, "people")), count(file.backend, "people", published=True)) == (3, 0)

    file.backend.publish("people")

    assert keys(read(file.backend, "people", published=True)) == ["a", "b", "c"]


def test_settings_of_an_earlier_version_are_mended_when_it_is_tracked_again(file):
    file.backend.track(["people"])
    before, identity = versions(file.backend, "people"), file.backend.identity()
    without_marks(file)

    file.write(*file.backend.track_sql("people"))

    assert file.ask("select count(*), sum(published) from _syncframe_settings") == [(2, 0)]
    assert (versions(file.backend, "people"), file.backend.identity()) == (before, identity)


def test_settings_that_are_gone_are_not_published_over(file):
    file.backend.track(["people"])
    file.write("delete from _syncframe_settings where name = 'people'")

    for ask in (lambda: file.backend.publish("people"), lambda: count(file.backend, "people", published=True)):
        with pytest.raises(BackendError, match="settings") as caught:
            ask()
        assert "syncframe track" in caught.value.hint


def test_a_log_that_is_made_anew_goes_on_after_the_last_stamp(file):
    file.backend.track(["people"])
    later = dt.datetime.now(UTC) + dt.timedelta(days=1)
    file.backend.publish("people", now=later)
    file.write("drop trigger _syncframe_update_people")
    file.backend.track(["people"])
    assert count(file.backend, "people", published=True) == 0

    file.backend.publish("people")

    assert all(row[UPDATED] > later for row in read(file.backend, "people", published=True))


@pytest.mark.parametrize("limit", [3, 100])
def test_a_keyset_of_published_stamps_follows_the_transactions_of_other_programs(tmp_path, limit):
    file = File(tmp_path / "x.db", "create table t (id BIGINT primary key, n BIGINT)")
    file.backend = SqliteBackend(file.path, lock_timeout_s=60)
    file.backend.track(["t"])

    def write(start):
        connection = sqlite3.connect(file.path, timeout=60)
        for n in range(start, 120, 2):
            with connection:
                connection.execute("insert into t values (?, 0)", [n])
                connection.execute("update t set n = n + 1 where id = ?", [n // 2])
                connection.execute("delete from t where id = ?", [n - 20] if n % 7 == 0 else [-1])
        connection.close()

    writers = [threading.Thread(target=write, args=(start,)) for start in range(2)]
    for writer in writers:
        writer.start()
    held, seen, place, is_over = {}, [], "updatedAt >= timestamptz '1970-01-01 00:00:00Z'", False
    while not is_over:
        is_over = not any(writer.is_alive() for writer in writers)
        file.backend.publish("t")
        page = read(
            file.backend, "t", place, published=True, include_deleted=True, order_by=["updatedAt", "id"], limit=limit
        )
        for row in page:
            held[row["id"]] = None if row[DELETED] else row["n"]
            seen.append(row[UPDATED])
            last = f"timestamptz '{row[UPDATED].isoformat()}'"
            place = f"updatedAt > {last} or (updatedAt = {last} and id > {row['id']})"
        is_over = is_over and not page

    assert {key: n for key, n in held.items() if n is not None} == dict(file.ask("select id, n from t"))
    assert all(earlier < later for earlier, later in itertools.pairwise(seen))


# Connections that are kept


def test_a_backup_that_is_copied_over_the_file_is_what_is_read_next(file, tmp_path):
    """The number by which SQLite knows its cache to be old is the same in both files."""
    shutil.copy(file.path, tmp_path / "backup.db")
    file.write("update people set n = 10 where id = 'a'")
    assert rows(file.backend, "people")["a"]["n"] == 10

    shutil.copy(tmp_path / "backup.db", file.path)
    file.write("update people set n = 20 where id = 'a'")

    assert rows(file.backend, "people")["a"]["n"] == 20


def test_no_connection_is_kept_in_wal_mode_whose_log_the_last_one_brings_into_the_file(tmp_path):
    file = File(tmp_path / "x.db", "create table t (id BIGINT primary key)")
    file.ask("pragma journal_mode = wal")

    push(file.backend, "t", insert(1))

    assert {path.name for path in tmp_path.iterdir()} == {"x.db"}


def test_threads_that_write_at_one_time_wait_for_each_other(file):
    file.backend.lock_timeout_s = 0.05

    def write(number):
        for step in range(5):
            told = statuses(file.backend, "people", insert(f"{number}-{step}", n=step))
            assert told == ["accepted"]

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(rows(file.backend, "people")) == 43


def test_a_file_that_is_replaced_as_a_transaction_ends_is_what_is_read_next(file, tmp_path, monkeypatch):
    """A connection to the file that had the name before would read and write what nobody sees."""
    rows(file.backend, "people")
    shutil.copy(file.path, tmp_path / "new.db")
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute("update people set n = 30 where id = 'a'")
    connection.close()
    give_back = Connections.give_back

    def replaced(self, held):
        if (tmp_path / "new.db").exists():
            (tmp_path / "new.db").replace(file.path)
        give_back(self, held)

    monkeypatch.setattr(Connections, "give_back", replaced)
    count(file.backend, "people")

    assert rows(file.backend, "people")["a"]["n"] == 30


def test_tracking_a_large_table_publishes_nothing_into_the_future(tmp_path):
    file = File(
        tmp_path / "x.db",
        "create table t (id BIGINT primary key)",
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) insert into t select i from n",
    )
    file.backend.track(["t"])
    file.backend.publish("t")

    found = [row[UPDATED] for row in read(file.backend, "t", order_by=["updatedAt"], published=True)]

    assert len(set(found)) == 5_000
    assert found[-1] <= dt.datetime.now(UTC) + dt.timedelta(milliseconds=50)
