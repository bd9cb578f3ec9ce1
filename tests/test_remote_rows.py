"""Single rows of any back end: what each verb does, gives back and refuses, tracked, untracked and of one's own."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from test_own_backend import Notes

from syncframe import backends
from syncframe.backends.base import DELETED, VERSION
from syncframe.errors import BackendError, KeyColumnError, SchemaError, TransientError
from syncframe.remote import Rows
from syncframe.schema import Schema

UTC = dt.UTC
NOTES = "create table notes (id VARCHAR not null primary key, text VARCHAR, n BIGINT)"
PLACES = (
    "create table places (site BIGINT not null, day DATE not null, seen TIMESTAMPTZ, price DECIMAL(10,2), note VARCHAR "
    "default 'none', kind VARCHAR not null, primary key (site, day))"
)


def opened(scheme: str, folder: Path, *statements: str):
    path = folder / f"back.{scheme}"
    connection = sqlite3.connect(path, isolation_level=None) if scheme == "sqlite" else duckdb.connect(str(path))
    for sql in statements or (NOTES, PLACES.replace("DECIMAL", "DECTEXT") if scheme == "sqlite" else PLACES):
        connection.execute(sql)
    connection.close()
    return backends.open(f"{scheme}:///{path}")


@pytest.fixture(params=["sqlite", "duckdb"])
def tracked(request, tmp_path):
    backend = opened(request.param, tmp_path)
    backend.track(["notes", "places"])
    yield backend
    backend.close()


@pytest.fixture(params=["sqlite", "duckdb", "sqlite untracked", "duckdb untracked", "of one's own"])
def notes(request, tmp_path):
    if request.param == "of one's own":
        yield Rows(Notes(), "notes")
        return
    backend = opened(request.param.split()[0], tmp_path)
    if "untracked" not in request.param:
        backend.track(["notes"])
    yield Rows(backend, "notes")
    backend.close()


def own(row):
    """The table's own columns of a row."""
    return {name: row[name] for name in ("id", "text", "n")}


def refused(call):
    with pytest.raises(BackendError) as caught:
        call()
    return caught.value


# Every back end


def test_a_row_is_inserted_read_changed_and_deleted(notes):
    inserted = notes.insert({"id": "a", "text": "x"})
    changed = notes.update("a", {"n": 1})
    replaced = notes.replace("a", {"n": 2})
    gone = notes.delete("a")

    assert own(inserted) == {"id": "a", "text": "x", "n": None}
    assert own(changed) == {"id": "a", "text": "x", "n": 1}
    assert own(replaced) == {"id": "a", "text": None, "n": 2}
    assert own(gone) == {"id": "a", "text": None, "n": 2}
    assert [row["deleted"] for row in (inserted, changed, replaced, gone)] == [False, False, False, True]
    assert notes.get("a") is None


def test_what_is_given_back_is_what_is_there(notes):
    written = notes.insert({"id": "a", "text": "x", "n": 1})

    assert notes.get("a") == written
    assert list(written) == ["id", "text", "n", "createdAt", "updatedAt", "version", "deleted"]
    assert notes.get("b") is None


def test_a_row_that_is_there_is_not_inserted_again(notes):
    there = notes.insert({"id": "a", "n": 1})

    for values in ({"id": "a", "n": 2}, {"id": "a", "n": 1}):
        error = refused(lambda values=values: notes.insert(values))
        assert (error.status, error.row) == (409, there)
    assert notes.get("a") == there


def test_a_row_that_is_not_there_is_a_404(notes):
    for call in (lambda: notes.update("a", {"n": 1}), lambda: notes.replace("a", {}), lambda: notes.delete("a"),
                 lambda: notes.undelete("a")):  # fmt: skip
        assert refused(call).status == 404


def test_a_stale_version_changes_nothing_and_shows_what_is_there(notes):
    old = notes.insert({"id": "a", "n": 1})["version"]
    there = notes.update("a", {"n": 2})

    for call in (
        lambda: notes.update("a", {"n": 3}, if_version=old),
        lambda: notes.replace("a", {"n": 3}, if_version=old),
        lambda: notes.delete("a", if_version=old),
        lambda: notes.undelete("a", if_version=old),
        lambda: notes.update("a", {}, if_version=old),
    ):
        error = refused(call)
        assert (error.status, error.row) == (412, there)
    assert notes.get("a") == there


def test_the_version_that_was_seen_lets_a_change_through(notes):
    first = notes.insert({"id": "a", "n": 1})

    second = notes.update("a", {"n": 2}, if_version=first["version"])
    third = notes.replace("a", {"text": "x"}, if_version=second["version"])
    gone = notes.delete("a", if_version=third["version"])

    assert [row["n"] for row in (second, third)] == [2, None]
    assert gone["deleted"]


def test_an_update_of_nothing_is_the_row_as_it_is(notes):
    there = notes.insert({"id": "a", "n": 1})

    assert notes.update("a", {}) == there
    assert notes.update("a", {"id": "a"}) == there


def test_a_missing_text_key_is_made(notes):
    first, second = notes.insert({"n": 1}), notes.insert({"id": None, "n": 1})

    assert len({first["id"], second["id"]}) == 2
    assert notes.get(first["id"]) == first


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nowhere": 1}, "'nowhere'"), ({"n": "1"}, "takes whole numbers"), ({"n": 1.5}, "fraction"), ({"text": 1}, "takes text"),
        ({"version": "x"}, "'version'"), ({"deleted": True}, "'deleted'"), ({"n": 2**63}, "'n'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_it_is_sent(notes, values, words):
    there = notes.insert({"id": "a", "n": 1})

    for call in (lambda: notes.insert({"id": "b", **values}), lambda: notes.update("a", values),
                 lambda: notes.replace("a", values)):  # fmt: skip
        with pytest.raises(SchemaError, match=words) as caught:
            call()
        assert "df" not in str(caught.value)
    assert notes.get("a") == there
    assert notes.get("b") is None


def test_a_row_that_was_read_can_be_put_back_as_it_is(notes):
    row = notes.insert({"id": "a", "n": 1})

    again = notes.replace("a", {**row, "n": 2})

    assert own(again) == {"id": "a", "text": None, "n": 2}
    with pytest.raises(SchemaError, match="system column") as caught:
        notes.replace("a", {**row, "n": 3})
    assert "if_version" in caught.value.hint


def test_a_key_is_not_changed_and_has_its_column_s_type(notes):
    notes.insert({"id": "a", "n": 1})

    with pytest.raises(KeyColumnError, match="cannot be changed"):
        notes.update("a", {"id": "b"})
    for key in (1, None, ("a", "b")):
        with pytest.raises(KeyColumnError):
            notes.get(key)


# Tombstones


def test_a_deleted_row_is_a_410_with_what_is_left_of_it(tracked):
    notes = Rows(tracked, "notes")
    notes.insert({"id": "a", "text": "x", "n": 1})
    gone = notes.delete("a")

    for call in (lambda: notes.update("a", {"n": 2}), lambda: notes.replace("a", {}), lambda: notes.delete("a")):
        error = refused(call)
        assert (error.status, error.row) == (410, gone)
    assert notes.get("a") is None
    assert notes.get("a", include_deleted=True) == gone
    assert own(gone) == {"id": "a", "text": "x", "n": 1}


def test_an_insert_does_not_bring_a_deleted_row_back(tracked):
    notes = Rows(tracked, "notes")
    notes.insert({"id": "a", "n": 1})
    gone = notes.delete("a")

    error = refused(lambda: notes.insert({"id": "a", "n": 2}))

    assert (error.status, error.row) == (409, gone)


def test_undelete_brings_the_last_values_back_and_lays_others_over_them(tracked):
    notes = Rows(tracked, "notes")
    notes.insert({"id": "a", "text": "x", "n": 1})
    gone = notes.delete("a")
    assert refused(lambda: notes.undelete("a", if_version="older")).row == gone

    back = notes.undelete("a", if_version=gone["version"], values={"n": 2})

    assert own(back) == {"id": "a", "text": "x", "n": 2}
    assert notes.get("a") == back
    assert notes.undelete("a", values={"n": 3}) == back


def test_system_columns_say_when_a_row_came_and_last_changed(tracked):
    notes = Rows(tracked, "notes")
    before = dt.datetime.now(UTC) - dt.timedelta(seconds=1)
    first = notes.insert({"id": "a", "n": 1})
    second = notes.update("a", {"n": 2})

    assert before < first["createdAt"] == second["createdAt"] <= second["updatedAt"] <= dt.datetime.now(UTC)


def test_a_column_of_one_s_own_is_not_hidden_by_a_system_column(tmp_path):
    backend = opened("sqlite", tmp_path, "create table t (id VARCHAR not null primary key, version BIGINT)")
    backend.track(["t"])
    rows = Rows(backend, "t")

    row = rows.insert({"id": "a", "version": 7})

    assert (row["version"], rows.update("a", {"version": 8})["version"]) == (7, 8)


# Values and refusals


def test_a_compound_key_is_a_tuple(tracked):
    places = Rows(tracked, "places")
    day = dt.date(2013, 1, 1)
    at = dt.datetime(2013, 1, 1, 10, 0, 0, 1, tzinfo=UTC)
    row = places.insert({"site": 1, "day": day, "seen": at, "price": Decimal("1.50"), "kind": "x"})

    assert (row["seen"], row["price"], row["note"]) == (at, Decimal("1.50"), "none")
    assert places.get((1, day)) == row
    assert places.get((1, dt.datetime(2013, 1, 1))) == row
    assert places.update((1, day), {"price": 2})["price"] == Decimal("2.00")
    assert places.replace((1, day), {"kind": "y"})["note"] is None
    for key in (1, (1,), (1, day, 2), ("1", day), (1, None)):
        with pytest.raises(KeyColumnError):
            places.get(key)
    with pytest.raises(KeyColumnError, match="'day'"):
        places.insert({"site": 1, "kind": "x"})


def test_what_the_back_end_refuses_is_a_400_that_says_why(tracked):
    places = Rows(tracked, "places")
    key = (1, dt.date(2013, 1, 1))
    absent = refused(lambda: places.insert({"site": 1, "day": key[1]}))
    there = places.insert({"site": 1, "day": key[1], "kind": "x"})
    replaced = refused(lambda: places.replace(key, {"note": "y"}))
    updated = refused(lambda: places.update(key, {"kind": None}))

    assert [(e.status, e.code, e.column) for e in (absent, replaced, updated)] == [(400, "not null", "kind")] * 3
    assert "kind" in str(absent)
    assert places.get(key) == there


def test_a_schema_that_is_given_is_not_asked_for():
    class Closed:
        def schema(self, table):
            raise AssertionError

    schema = Schema.of({"id": "VARCHAR"})

    assert Rows(Closed(), "notes", schema).schema is schema


# Others write at the same time


class Meanwhile:
    """A back end on which somebody else writes just before each push, up to a number of times."""

    def __init__(self, inner, other, times):
        self.inner, self.other, self.times = inner, other, times

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def push(self, batch):
        if self.times:
            self.times -= 1
            self.other()
        return self.inner.push(batch)


def test_without_a_version_the_last_writer_wins(tracked):
    theirs = Rows(tracked, "notes")
    theirs.insert({"id": "a", "n": 0})
    mine = Rows(Meanwhile(tracked, lambda: theirs.update("a", {"text": "theirs"}), 3), "notes")

    row = mine.update("a", {"n": 1})

    assert own(row) == {"id": "a", "text": "theirs", "n": 1}


def test_with_a_version_the_one_who_comes_between_is_shown(tracked):
    theirs = Rows(tracked, "notes")
    seen = theirs.insert({"id": "a", "n": 0})["version"]
    mine = Rows(Meanwhile(tracked, lambda: theirs.update("a", {"n": 5}), 1), "notes")

    error = refused(lambda: mine.update("a", {"n": 1}, if_version=seen))

    assert (error.status, error.row["n"]) == (412, 5)
    assert theirs.get("a")["n"] == 5


@pytest.mark.parametrize(("other", "status"), [("delete", 410), ("update", None)])
def test_a_row_that_goes_meanwhile_is_not_brought_back(tracked, other, status):
    theirs = Rows(tracked, "notes")
    theirs.insert({"id": "a", "n": 0})
    write = {"delete": lambda: theirs.delete("a"), "update": lambda: theirs.update("a", {"text": "x"})}[other]
    mine = Rows(Meanwhile(tracked, write, 1), "notes")

    if status:
        assert refused(lambda: mine.update("a", {"n": 1})).status == status
        assert theirs.get("a") is None
    else:
        assert mine.delete("a")["text"] == "x"


def test_an_insert_that_comes_second_is_a_409(tracked):
    theirs = Rows(tracked, "notes")
    mine = Rows(Meanwhile(tracked, lambda: theirs.insert({"id": "a", "n": 1}), 1), "notes")

    error = refused(lambda: mine.insert({"id": "a", "n": 2}))

    assert (error.status, error.row["n"]) == (409, 1)


def test_a_row_that_never_stands_still_is_given_up(tracked):
    theirs = Rows(tracked, "notes")
    theirs.insert({"id": "a", "n": 0})
    mine = Rows(Meanwhile(tracked, lambda: theirs.update("a", {"text": "x"}), 99), "notes")

    with pytest.raises(TransientError, match="changed by others"):
        mine.update("a", {"n": 1})


def test_counting_up_by_versions_from_many_threads_loses_no_step(tmp_path):
    backend = opened("sqlite", tmp_path)
    backend.lock_timeout_s = 60
    backend.track(["notes"])
    Rows(backend, "notes").insert({"id": "a", "n": 0})

    def count_up():
        rows = Rows(backend, "notes")
        for _ in range(10):
            while True:
                seen = rows.get("a")
                try:
                    rows.update("a", {"n": seen["n"] + 1}, if_version=seen["version"])
                    break
                except BackendError as error:
                    assert error.status == 412

    threads = [threading.Thread(target=count_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Rows(backend, "notes").get("a")["n"] == 30


# Rows by key


def test_rows_of_keys_have_the_last_values_of_those_that_are_gone_and_an_outcome_has_not(tracked):
    notes = Rows(tracked, "notes")
    for key in "abc":
        notes.insert({"id": key, "text": key, "n": 1})
    notes.delete("b")

    found = tracked.rows("notes", pa.table({"id": ["c", "b", "nobody"]})).to_pylist()

    assert [(row["id"], row["text"], row[DELETED]) for row in found] == [("c", "c", False), ("b", "b", True)]
    assert found[1][VERSION] == notes.get("b", include_deleted=True)["version"]
