"""DuckDB's own: the log that the back end writes itself, and the types that go through text."""

from __future__ import annotations

import datetime as dt
import math
import subprocess
import sys
import uuid
from decimal import Decimal

import duckdb
import pytest

from syncframe import backends
from syncframe.backends.base import CREATED, DELETED, OPERATION, UPDATED
from syncframe.errors import BackendError, CheckpointLost, SchemaError, TransientError
from syncframe.query import Read
from syncframe.testing import (
    count,
    delete,
    insert,
    keys,
    pulled,
    push,
    read,
    rows,
    statuses,
    update,
    versions,
)

UTC = dt.UTC


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
    assert found == [("b", False, None), ("c", False, None), ("a", True, '{"id":"a","n":"1","name":"x"}')]


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


# Reading


def test_last_values_of_duckdb_s_own_types_come_back(tmp_path):
    path, key = tmp_path / "x.duckdb", str(uuid.uuid4())
    write(
        path,
        "create type mood as enum ('sad', 'it''s ok')",
        """
        create table t (
            id UUID primary key, mood mood, note JSON, huge DECIMAL(38,0), tiny DECIMAL(4,4), single FLOAT, "/~$.'a" DATE
        )
        """,
    )
    backend = backends.open(f"duckdb:///{path}")
    backend.track(["t"])
    values = {
        "mood": "it's ok", "note": '{"a": [1, "x"]}', "huge": Decimal(-(10**38 - 1)), "tiny": Decimal("-0.0001"),
        "single": 0.10000000149011612, "/~$.'a": dt.date(2013, 1, 31),
    }  # fmt: skip
    push(backend, "t", insert(key, **values))
    push(backend, "t", delete(key, versions(backend, "t")[key]))

    (row,) = read(backend, "t", "mood = 'it''s ok' and huge < 0 and tiny < 0", include_deleted=True)

    assert {name: row[name] for name in ("id", *values)} == {"id": key, **values}
    backend.close()


def test_enums_are_sorted_as_the_texts_that_they_are(tmp_path):
    path = tmp_path / "x.duckdb"
    write(
        path,
        "create type size as enum ('small', 'large')",
        "create table t (id BIGINT primary key, size size)",
        "insert into t values (1, 'small'), (2, 'large'), (3, null)",
    )
    backend = backends.open(f"duckdb:///{path}")

    assert [row["size"] for row in read(backend, "t", order_by=["size"])] == [None, "large", "small"]


def test_nan_that_others_wrote_is_null_in_filters_and_in_order_too(tmp_path):
    path = tmp_path / "x.duckdb"
    write(
        path,
        "create table t (id BIGINT primary key, x DOUBLE, y FLOAT)",
        "insert into t values (1, 'nan', 'nan'), (2, 1, 1), (3, 'inf', '-inf'), (4, null, null)",
    )
    backend = backends.open(f"duckdb:///{path}")

    assert [row["x"] for row in read(backend, "t", order_by=["x"])] == [None, None, 1.0, math.inf]
    assert keys(read(backend, "t", order_by=["-y"])) == [2, 3, 1, 4]
    assert keys(read(backend, "t", "x is null and y is null")) == [1, 4]
    assert keys(read(backend, "t", "x > 0")) == [2, 3]
    assert list(pulled(backend, "t", where="y is null")[0]) == [1, 4]


def test_nothing_is_known_of_the_values_of_a_row_that_another_program_deleted(backend, path):
    backend.track(["people"])
    backend.close()
    write(path, "delete from people where id = 'a'")

    found = read(backend, "people", include_deleted=True)

    assert [(row["id"], row["n"], row[DELETED]) for row in found] == [
        ("a", None, True),
        ("b", 2, False),
        ("c", 3, False),
    ]
    assert keys(read(backend, "people", "n is null", include_deleted=True)) == ["a"]


def test_a_column_that_came_later_or_is_of_another_type_now_is_null_of_a_row_that_is_gone(backend, path):
    backend.track(["people"])
    push(backend, "people", delete("a", versions(backend, "people")["a"]))
    backend.close()
    write(
        path,
        "alter table people add column note varchar default 'x'",
        "alter table people alter name type date using null",
    )

    (row,) = read(backend, "people", "deleted", include_deleted=True)

    assert (row["n"], row["name"], row["note"]) == (1, None, None)


def test_a_limit_and_an_offset_may_be_as_large_as_they_like(backend):
    assert len(read(backend, "people", limit=2**70)) == 3
    assert read(backend, "people", limit=2**70, offset=2**70) == []


# Publishing


def test_stamps_reach_the_present_and_never_go_back(backend):
    backend.track(["people"])
    noon = dt.datetime(2063, 1, 1, 12, tzinfo=UTC)  # later than any write of the tests
    backend.publish("people", now=noon)
    push(backend, "people", update("a", versions(backend, "people")["a"], n=9))
    backend.publish("people", now=noon - dt.timedelta(hours=1))

    found = read(backend, "people", order_by=["updatedAt"], published=True)

    assert [(row["id"], (row[UPDATED] - noon) / dt.timedelta(milliseconds=1)) for row in found] == [
        ("b", -1.0), ("c", 0.0), ("a", 1.0),
    ]  # fmt: skip
    assert all(row[CREATED] <= row[UPDATED] for row in found)


def test_settings_of_an_earlier_version_are_mended_when_it_is_published(backend, path):
    backend.track(["people"])
    backend.close()
    write(path, "alter table _syncframe_settings drop published", "alter table _syncframe_settings drop published_ms")
    assert (count(backend, "people", published=True), len(rows(backend, "people"))) == (0, 3)

    backend.publish("people")

    assert count(backend, "people", published=True) == 3


def test_a_file_tracked_by_an_earlier_version_can_be_tracked_again(backend, path):
    backend.track(["people"])
    before = versions(backend, "people")
    backend.close()
    write(path, "alter table _syncframe_settings drop published", "alter table _syncframe_settings drop published_ms")

    backend.track(["people"])

    assert versions(backend, "people") == before
    assert len(backend.read("people", Read(published=True))) == 0


def test_a_log_that_is_made_anew_goes_on_after_the_last_stamp(backend):
    backend.track(["people"])
    later = dt.datetime.now(UTC) + dt.timedelta(days=1)
    backend.publish("people", now=later)
    with backend.session(write=True) as session:
        session.execute('drop table "_syncframe_log_people"')
    backend.track(["people"])

    backend.publish("people")

    assert all(row[UPDATED] > later for row in read(backend, "people", published=True))
