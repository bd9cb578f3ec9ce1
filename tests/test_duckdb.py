"""DuckDB's own: the log that the back end writes itself, and the types that go through text."""

from __future__ import annotations

import subprocess
import sys
import uuid
from decimal import Decimal

import duckdb
import pytest

from syncframe import backends
from syncframe.backends.base import DELETED, OPERATION
from syncframe.errors import BackendError, CheckpointLost, SchemaError, TransientError
from syncframe.testing import delete, insert, pulled, push, rows, statuses, update, versions


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "app.duckdb"
    write(
        path,
        "create table people (id VARCHAR primary key, n BIGINT, name VARCHAR)",
        "insert into people values ('a', 1, 'x'), ('b', 2, 'y'), ('c', 3, null)",
    )
    return path


@pytest.fixture
def backend(path):
    backend = backends.open(f"duckdb:///{path}")
    yield backend
    backend.close()


def write(path, *statements):
    with duckdb.connect(str(path)) as connection:
        for sql in statements:
            connection.execute(sql)


def test_what_others_wrote_while_the_file_was_closed_is_found_when_it_is_opened(backend, path):
    backend.track(["people"])
    push(backend, "people", update("a", versions(backend, "people")["a"], "mine", n=5))
    before, place = pulled(backend, "people")
    backend.close()
    write(path, "update people set n = 6 where id = 'a'", "delete from people where id = 'b'",
          "insert into people values ('d', 4, 'z')")  # fmt: skip

    changed, place = pulled(backend, "people", place)

    assert {key: None if row[DELETED] else row["n"] for key, row in changed.items()} == {"a": 6, "b": None, "d": 4}
    assert changed["a"][OPERATION] == "- mine"
    assert statuses(backend, "people", update("a", before["a"]["_syncframe_version"], n=7)) == ["conflicted"]

    backend.close()
    assert pulled(backend, "people", place)[0] == {}


def test_a_change_that_others_took_back_is_a_change(backend, path):
    backend.track(["people"])
    push(backend, "people", delete("a", versions(backend, "people")["a"]))
    _, place = pulled(backend, "people")
    backend.close()
    write(path, "insert into people values ('a', 1, 'x')")

    assert pulled(backend, "people", place)[0]["a"]["n"] == 1


def test_a_file_with_tracked_tables_is_held_until_it_is_closed(backend, path):
    backend.track(["people"])
    assert backend.is_tracked("people")
    other = [sys.executable, "-c", f"import duckdb; duckdb.connect({str(path)!r})"]

    assert subprocess.run(other, capture_output=True).returncode != 0
    backend.close()
    assert subprocess.run(other, capture_output=True).returncode == 0


def test_a_file_without_tracked_tables_is_held_for_a_call_only(backend, path):
    assert len(rows(backend, "people")) == 3

    other = [sys.executable, "-c", f"import duckdb; duckdb.connect({str(path)!r})"]
    assert subprocess.run(other, capture_output=True).returncode == 0


def test_a_file_that_another_process_holds_is_a_transient_error_naming_it(backend, path):
    held = f"import duckdb; c = duckdb.connect({str(path)!r}); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(TransientError, match=f"PID {other.pid}"):
            backend.tables()
        other.communicate(b"\n")

    assert backend.tables() == ["people"]


def test_a_file_that_is_no_database_is_an_error_in_words(tmp_path):
    (tmp_path / "x.duckdb").write_text("id,name\n" * 1000)

    with pytest.raises(BackendError, match="not a valid DuckDB"):
        backends.open(f"duckdb:///{tmp_path}/x.duckdb").tables()


def test_untrack_removes_everything(backend, path):
    backend.track(["people"])
    backend.untrack(["people"])
    backend.close()

    with duckdb.connect(str(path)) as connection:
        assert connection.execute("select table_name from duckdb_tables()").fetchall() == [("people",)]


def test_enums_uuids_and_json_go_as_text(tmp_path):
    path, key = tmp_path / "x.duckdb", str(uuid.uuid4())
    write(
        path,
        "create type mood as enum ('sad', 'it''s ok')",
        "create table t (id UUID primary key, mood mood, note JSON, hour TIME, huge DECIMAL(38,0))",
    )
    backend = backends.open(f"duckdb:///{path}")
    backend.track(["t"])

    column = backend.schema("t")["mood"]
    assert (column.type, column.labels) == ("ENUM", ("sad", "it's ok"))
    outcomes = push(
        backend, "t",
        insert(key, mood="it's ok", note='{"a": 1}', huge=Decimal(10**38 - 1)),
        insert(str(uuid.uuid4()), mood="glad"), insert(str(uuid.uuid4()), note="{"),
    )  # fmt: skip

    assert [(o["status"], o["code"]) for o in outcomes] == [
        ("accepted", None),
        ("rejected", "type"),
        ("rejected", "type"),
    ]
    assert rows(backend, "t") == {
        key: {"id": key, "mood": "it's ok", "note": '{"a": 1}', "hour": None, "huge": Decimal(10**38 - 1)}
    }
    assert statuses(backend, "t", update(key, versions(backend, "t")[key], mood="sad")) == ["accepted"]
    assert list(pulled(backend, "t", where="mood = 'sad'")[0]) == [key]
    backend.close()


@pytest.mark.parametrize("type_", ["HUGEINT", "INTEGER[]", "STRUCT(a INTEGER)", "INTERVAL", "TIMESTAMP_NS"])
def test_a_type_that_is_not_kept_exactly_is_refused(tmp_path, type_):
    path = tmp_path / "x.duckdb"
    write(path, f"create table t (id BIGINT primary key, c {type_})")

    with pytest.raises(SchemaError, match="column 'c'"):
        backends.open(f"duckdb:///{path}").schema("t")


def test_a_table_without_a_primary_key_is_refused_in_words(tmp_path):
    path = tmp_path / "x.duckdb"
    write(path, "create table t (a BIGINT)")

    with pytest.raises(SchemaError, match="no primary key") as caught:
        backends.open(f"duckdb:///{path}").schema("t")
    assert "primary key" in caught.value.hint


def test_a_deleted_row_leaves_its_last_values(backend, path):
    backend.track(["people"])
    push(backend, "people", delete("a", versions(backend, "people")["a"]))
    backend.close()

    with duckdb.connect(str(path)) as connection:
        found = connection.execute("select k_id, deleted, image from _syncframe_log_people order by stamp").fetchall()
    assert found == [("b", False, None), ("c", False, None), ("a", True, '{"id":"a","n":1,"name":"x"}')]


def test_purged_tombstones_make_old_checkpoints_lost(backend):
    backend.track(["people"])
    _, old = pulled(backend, "people")
    known = versions(backend, "people")
    push(backend, "people", delete("a", known["a"]), delete("b", known["b"]))
    _, seen = pulled(backend, "people", old)

    assert backend.purge_deleted(keep_days=0) == 1

    with pytest.raises(CheckpointLost, match="forgotten"):
        pulled(backend, "people", old)
    assert pulled(backend, "people", seen)[0] == {}


def test_two_back_ends_of_one_process_share_a_file(backend, path):
    backend.track(["people"])
    second = backends.open(f"duckdb:///{path}")
    known, place = pulled(second, "people")

    push(backend, "people", update("a", known["a"]["_syncframe_version"], n=9))

    assert pulled(second, "people", place)[0]["a"]["n"] == 9
    second.close()
