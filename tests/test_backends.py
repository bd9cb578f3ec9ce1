"""Every back end keeps the one contract; a new one adds a class of three lines."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import duckdb
import pytest

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


def tracked(backend: Backend) -> Backend:
    backend.track(TABLES)
    return backend


class TestSqliteTracked(BackendContract):
    def make(self, folder: Path) -> Backend:
        return tracked(sqlite_backend(folder))


FEWER = 25_000  # operations of the large batch where it is not the acceptance row: some chunks


class TestSqliteUntracked(BackendContract):
    tracked = False
    large = FEWER

    def make(self, folder: Path) -> Backend:
        return sqlite_backend(folder)


class TestDuckdbTracked(BackendContract):
    large = FEWER

    def make(self, folder: Path) -> Backend:
        return tracked(duckdb_backend(folder))


class TestDuckdbUntracked(BackendContract):
    tracked = False
    large = FEWER

    def make(self, folder: Path) -> Backend:
        return duckdb_backend(folder)


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
        ("postgresql://host/db", "later version"),
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
