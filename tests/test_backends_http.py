"""The contract over HTTP: our server over SQLite and over DuckDB, asked in each of its three languages.

What the plain protocol cannot say is left out by the contract's attributes, or tested here for what it does
instead; none of it touches what a push overwrites, what a pull misses or what changes together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from test_backends import (
    FEWER,
    TABLES,
    duckdb_backend,
    postgres_backend,
    sqlite_backend,
    tracked,
)

from syncframe.backends import Backend
from syncframe.backends.base import DELETED, VERSION
from syncframe.backends.datasync import DatasyncBackend
from syncframe.errors import QueryError
from syncframe.server import serve
from syncframe.testing import BackendContract, delete, insert, pulled, push, read, rows, update, versions


class Served(DatasyncBackend):
    """A client, and the server it asks."""

    def __init__(self, behind: Backend, **options: Any) -> None:
        self.behind = behind
        self.server = serve(behind, tables=TABLES)
        super().__init__(self.server.url, **options)

    def close(self) -> None:
        super().close()
        self.server.close()
        self.behind.close()


class Extended(BackendContract):
    """Our own extension keeps the whole contract."""

    large = FEWER

    def make_behind(self, folder: Path) -> Backend:
        raise NotImplementedError

    def make(self, folder: Path) -> Backend:
        served = Served(tracked(self.make_behind(folder)))
        served.identity()  # what a service promises is known when it was asked
        return served


class TestExtendedOverSqlite(Extended):
    def make_behind(self, folder: Path) -> Backend:
        return sqlite_backend(folder)


@pytest.mark.full
class TestExtendedOverDuckdb(Extended):
    def make_behind(self, folder: Path) -> Backend:
        return duckdb_backend(folder)


class OverPostgres:
    """One database for all tests, whose tables are made anew."""

    holds_nul = False
    large = 200

    @pytest.fixture(autouse=True)
    def the_database(self, shared_database: str) -> None:
        self.url = shared_database

    def make_behind(self, folder: Path) -> Backend:
        return postgres_backend(self.url)


@pytest.mark.full  # both halves have their tests: the extension over SQLite, the back end by itself
class TestExtendedOverPostgres(OverPostgres, Extended):
    large = FEWER


class Plain(BackendContract):
    """The plain protocol, of which the types were given, and nothing overlaps so that pages are as the contract counts them."""

    protocol: ClassVar[str]

    remembers_operations = False  # its rows have no place for the ids: own writes are known by what they wrote
    knows_held = False  # a leaver is a key that changed and did not come; nobody asks the other queries for it
    gives_codes = False  # a service says why in its own words
    large = 200  # a request each

    def make_behind(self, folder: Path) -> Backend:
        raise NotImplementedError

    def make(self, folder: Path) -> Backend:
        behind = tracked(self.make_behind(folder))
        return Served(
            behind, protocol=self.protocol, overlap_s=0, schemas={name: behind.schema(name) for name in TABLES}
        )

    def test_names_that_need_quoting_are_quoted(self, backend: Backend) -> None:
        """OData has no quotes for names: such a column is pulled and pushed, but not asked for."""
        table = 'odd " name'
        push(backend, table, insert(1, **{'a " b': "x"}), insert(2, **{"sp ace": "y"}))
        known = versions(backend, table)
        push(backend, table, update(1, known[1], **{'a " b': "z"}), delete(2, known[2]))

        assert rows(backend, table) == {1: {"select": 1, 'a " b': "z", "sp ace": None}}
        assert list(pulled(backend, table, where='"select" = 1')[0]) == [1]
        with pytest.raises(QueryError, match="OData"):
            pulled(backend, table, where='"a "" b" = \'z\'')

    def test_last_values_are_kept_under_names_that_need_quoting(self, backend: Backend) -> None:
        table = 'odd " name'
        push(backend, table, insert(1, **{'a " b': "x", "sp ace": "y"}), insert(2, **{'a " b': "z"}))
        known = versions(backend, table)
        push(backend, table, delete(1, known[1]), delete(2, known[2]))

        found = read(backend, table, '"select" > 0', order_by=["-select"], include_deleted=True)

        assert [(row["select"], row['a " b'], row["sp ace"]) for row in found] == [(2, "z", None), (1, "x", "y")]

    def test_filters_mean_the_same_over_last_values(self, backend: Backend) -> None:
        """Of the contract's conditions one has a number beyond OData's, and is refused; the others are in its test."""
        with pytest.raises(QueryError, match="18446744073709551614"):
            read(backend, "kinds", "big > 18446744073709551614")

    def test_a_row_that_came_back_has_its_new_values(self, backend: Backend) -> None:
        """Nor can it say "the default": a column that was not given is NULL, and never what the deleted row had."""
        push(backend, "items", insert("a", n=1, name="old"))
        (gone,) = push(backend, "items", delete("a", versions(backend, "items")["a"]))

        (back,) = push(backend, "items", insert("a", gone["version"], n=2))

        assert (back["status"], back["deleted"]) == ("accepted", False)
        (row,) = read(backend, "items", include_deleted=True)
        assert (row["n"], row["name"], row[DELETED], row[VERSION]) == (2, None, False, back["version"])

    def test_an_insert_where_a_tombstone_is_needs_its_version(self, backend: Backend) -> None:
        push(backend, "items", insert("a", n=1, name="old"))
        (gone,) = push(backend, "items", delete("a", versions(backend, "items")["a"]))

        (refused,) = push(backend, "items", insert("a", n=2))
        assert (refused["status"], refused["deleted"], refused["version"]) == ("conflicted", True, gone["version"])

        (taken,) = push(backend, "items", insert("a", gone["version"], n=2))
        assert (taken["status"], taken["deleted"]) == ("accepted", False)
        assert rows(backend, "items") == {"a": {"id": "a", "n": 2, "name": None}}

    def test_a_unique_value_that_is_taken_is_rejected(self, backend: Backend) -> None:
        """Requests are under way side by side: which of two inserts takes the value is not said, but one does."""
        outcomes = push(backend, "parents", insert(1, code="x"), insert(2, code="x"), insert(3, code="y"))

        assert sorted(o["status"] for o in outcomes[:2]) == ["accepted", "rejected"]
        assert (outcomes[2]["status"], [o["deleted"] for o in outcomes[:2]]) == (
            "accepted",
            [o["status"] == "rejected" for o in outcomes[:2]],
        )
        winner = next(o for o in outcomes[:2] if o["status"] == "accepted")
        assert {row["code"] for row in rows(backend, "parents").values()} == {"x", "y"}
        assert winner["r_code"] == "x"


class TestV2OverSqlite(Plain):
    protocol = "v2"

    def make_behind(self, folder: Path) -> Backend:
        return sqlite_backend(folder)


@pytest.mark.full  # both halves have their tests: the protocol over SQLite, the back end by itself
class TestV2OverDuckdb(Plain):
    protocol = "v2"

    def make_behind(self, folder: Path) -> Backend:
        return duckdb_backend(folder)


class TestV3OverSqlite(Plain):
    protocol = "v3"

    def make_behind(self, folder: Path) -> Backend:
        return sqlite_backend(folder)


@pytest.mark.full  # both halves have their tests: the protocol over SQLite, the back end by itself
class TestV3OverDuckdb(Plain):
    protocol = "v3"

    def make_behind(self, folder: Path) -> Backend:
        return duckdb_backend(folder)


@pytest.mark.full  # CI goes through it in test_postgres_writers.py and in the npm client's rounds
class TestV2OverPostgres(OverPostgres, Plain):
    protocol = "v2"


@pytest.mark.full  # both halves have their tests: the protocol over SQLite, the back end by itself
class TestV3OverPostgres(OverPostgres, Plain):
    protocol = "v3"
