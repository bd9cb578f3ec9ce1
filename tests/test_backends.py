"""Every back end keeps the one contract; a new one adds a class of three lines."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from postgres import execute

from syncframe import backends
from syncframe.backends import Backend
from syncframe.errors import SyncError, TransientError
from syncframe.query import Query
from syncframe.testing import DDL, BackendContract

TABLES = ["items", "kinds", "parents", "children", "weather", 'odd " name']


def sqlite_backend(folder: Path) -> Backend:
    path = folder / "back end.db"
    with sqlite3.connect(path) as connection:
        for sql in DDL:
            connection.execute(sql.replace("DECIMAL", "DECTEXT").replace("UBIGINT", "TEXT"))
    connection.close()
    return backends.open(f"sqlite:///{folder}/back%20end.db", schema={"kinds": {"big": "UBIGINT"}})


def duckdb_backend(folder: Path) -> Backend:
    with duckdb.connect(str(folder / "back end.duckdb")) as connection:
        for sql in DDL:
            connection.execute(sql)
    return backends.open(f"duckdb:///{folder}/back%20end.duckdb")


def postgres_backend(url: str) -> Backend:
    """The contract's tables in a database that has been emptied."""
    anew = ["drop schema public cascade", "drop schema if exists _syncframe cascade", "create schema public"]
    execute(url, *anew, *map(_in_postgres_words, DDL))
    return backends.open(url, schema={"kinds": {"big": "UBIGINT"}})


def _in_postgres_words(sql: str) -> str:
    for ours, theirs in (("DOUBLE", "DOUBLE PRECISION"), ("BLOB", "BYTEA"), ("UBIGINT", "NUMERIC(20,0)")):
        sql = sql.replace(ours, theirs)
    return sql


def tracked(backend: Backend) -> Backend:
    backend.track(TABLES)
    return backend


FEWER = 25_000  # operations of the large batch where it is not the acceptance row: some chunks


class TestSqliteTracked(BackendContract):
    large = FEWER

    def make(self, folder: Path) -> Backend:
        return tracked(sqlite_backend(folder))


@pytest.mark.full
class TestSqliteTrackedAtSize(BackendContract):
    def make(self, folder: Path) -> Backend:
        return tracked(sqlite_backend(folder))


class TestSqliteUntracked(BackendContract):
    tracked = False
    large = FEWER

    def make(self, folder: Path) -> Backend:
        return sqlite_backend(folder)


class TestDuckdbTracked(BackendContract):
    large = FEWER

    def make(self, folder: Path) -> Backend:
        return tracked(duckdb_backend(folder))


@pytest.mark.full  # untracked tables are read in CI over SQLite and PostgreSQL
class TestDuckdbUntracked(BackendContract):
    tracked = False
    large = FEWER

    def make(self, folder: Path) -> Backend:
        return duckdb_backend(folder)


class Postgres(BackendContract):
    """One database for all tests, whose tables are made anew: to make a database takes longer than a test."""

    holds_nul = False
    large = FEWER

    @pytest.fixture
    def backend(self, shared_database: str) -> Iterator[Backend]:
        backend = postgres_backend(shared_database)
        if self.tracked:
            backend.track(TABLES)
        yield backend
        backend.close()


class TestPostgresTracked(Postgres):
    pass


class TestPostgresUntracked(Postgres):
    tracked = False


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_a_file_that_does_not_exist_is_a_transient_error_and_is_not_created(tmp_path, scheme):
    backend = backends.open(f"{scheme}:///{tmp_path}/none.db")

    for ask in (backend.tables, backend.identity, lambda: list(backend.pull("t", Query(), None))):
        with pytest.raises(TransientError, match="does not exist"):
            ask()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://host/db", "no scheme that is known"),
        ("file.db", "no scheme that is known"),
        ("sqlite:file.db", "no scheme that is known"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite://host/file.db", "names no file"),
        ("duckdb:///:memory:", "names no file"),
    ],
)
def test_a_url_that_cannot_be_opened_is_refused_with_a_hint(url, words):
    with pytest.raises(SyncError, match=words) as caught:
        backends.open(url)

    assert "sqlite:///" in caught.value.hint or "duckdb:///" in caught.value.hint
