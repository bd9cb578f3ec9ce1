"""The contract that every back end keeps, as tests that anybody can run on a back end of their own.

    from syncframe.testing import BackendContract

    class TestMine(BackendContract):
        def make(self, folder):
            return MyBackend(...)      # fresh, with the tables of `DDL`, all empty

pytest finds the tests in the subclass.  A back end that is not tracked (its pages have no checkpoint)
says so with ``tracked = False``.  The other helpers here make batches and read tables in a line.
"""

# ruff: noqa: S101  (assertions are what this file is for)

from __future__ import annotations

import datetime as dt
import itertools
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from .backends.base import DELETED, HELD, OPERATION, VERSION, Backend, Checkpoint, Operations, Page, operation_schema
from .errors import BackendError, QueryError
from .query import Query, parse

UTC = dt.UTC

DDL = [
    "create table items (id VARCHAR not null primary key, n BIGINT, name VARCHAR default 'new')",
    """
    create table kinds (
        id BIGINT not null primary key, flag BOOLEAN, small SMALLINT, whole BIGINT, big UBIGINT, real DOUBLE,
        exact DECIMAL(38,10), text VARCHAR, bytes BLOB, day DATE, clock TIME, moment TIMESTAMP,
        instant TIMESTAMPTZ, guid UUID
    )
    """,
    "create table parents (id BIGINT not null primary key, code VARCHAR unique)",
    """
    create table children (
        id BIGINT not null primary key, parent BIGINT references parents (id), name VARCHAR not null,
        amount BIGINT check (amount >= 0)
    )
    """,
    """
    create table weather (
        origin VARCHAR not null, hour TIMESTAMPTZ not null, temp DOUBLE, primary key (origin, hour)
    )
    """,
    """
    create table "odd "" name" ("select" BIGINT not null primary key, "a "" b" VARCHAR, "sp ace" VARCHAR)
    """,
]
"""The tables of the contract, in DuckDB's types; `name` of `items` has a default."""


# Batches and tables in a line

Change = Mapping[str, Any]
_numbers = itertools.count(1)


def insert(key: Any, base_version: str | None = None, operation_id: str | None = None, **values: Any) -> Change:
    """An insert; `base_version` is a tombstone's."""
    return _change("insert", key, base_version, operation_id, values)


def update(key: Any, base_version: str | None, operation_id: str | None = None, **values: Any) -> Change:
    """An update of the row as it was at `base_version`."""
    return _change("update", key, base_version, operation_id, values)


def delete(key: Any, base_version: str | None, operation_id: str | None = None) -> Change:
    """A delete of the row as it was at `base_version`."""
    return _change("delete", key, base_version, operation_id, {})


def _change(kind: str, key: Any, version: str | None, operation_id: str | None, values: dict[str, Any]) -> Change:
    return {
        "kind": kind,
        "key": key if isinstance(key, tuple) else (key,),
        "base_version": version,
        "operation_id": operation_id or f"operation-{next(_numbers)}",
        "given": sorted(values),
        **{f"l_{name}": value for name, value in values.items()},
    }


def batch(backend: Backend, table: str, changes: Sequence[Change]) -> Operations:
    """Make a batch of operations to push."""
    schema = backend.schema(table)
    rows = [
        {**{f"k_{name}": part for name, part in zip(schema.key, change["key"], strict=True)}, **change}
        for change in changes
    ]
    for row in rows:
        del row["key"]
    return Operations(table, schema, pa.Table.from_pylist(rows, schema=operation_schema(schema)))


def push(backend: Backend, table: str, *changes: Change) -> list[dict[str, Any]]:
    """Push changes and return their outcomes as mappings."""
    outcomes = [row for part in backend.push(batch(backend, table, changes)) for row in part]
    assert [row["operation_id"] for row in outcomes] == [change["operation_id"] for change in changes]
    return outcomes


def statuses(backend: Backend, table: str, *changes: Change) -> list[str]:
    return [outcome["status"] for outcome in push(backend, table, *changes)]


def pages(
    backend: Backend,
    table: str,
    since: Checkpoint | None = None,
    where: str | None = None,
    others: Sequence[str | None] = (),
    page_rows: int = 10_000,
    columns: tuple[str, ...] | None = None,
) -> Iterator[Page]:
    """Pull page by page."""
    schema = backend.schema(table)

    def query(text: str | None) -> Query:
        return Query(parse(text, schema) if text else None, columns, page_rows)

    return backend.pull(table, query(where), since, [query(text) for text in others])


def pulled(
    backend: Backend, table: str, *args: Any, **options: Any
) -> tuple[dict[Any, dict[str, Any]], Checkpoint | None]:
    """Pull to the end; return the last state of each key, tombstones included, and the checkpoint."""
    schema, held, checkpoint = backend.schema(table), {}, None
    for page in pages(backend, table, *args, **options):
        for row in page.rows.to_pylist():
            key = tuple(row[name] for name in schema.key)
            held[key if len(key) > 1 else key[0]] = row
        checkpoint = page.checkpoint
    return held, checkpoint


def rows(backend: Backend, table: str) -> dict[Any, dict[str, Any]]:
    """The rows that are there, by key, with their own columns only."""
    names = backend.schema(table).names
    held, _ = pulled(backend, table)
    return {key: {name: row[name] for name in names} for key, row in held.items() if not row[DELETED]}


def versions(backend: Backend, table: str) -> dict[Any, str]:
    return {key: row[VERSION] for key, row in pulled(backend, table)[0].items()}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_syncframe")}


class BackendContract:
    """What a back end promises; subclass it and give `make`."""

    tracked = True

    def make(self, folder: Path) -> Backend:
        """Return a fresh back end with the tables of `DDL`, all empty."""
        raise NotImplementedError

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        backend = self.make(tmp_path)
        yield backend
        if hasattr(backend, "close"):
            backend.close()

    def _only_tracked(self) -> None:
        if not self.tracked:
            pytest.skip("an untracked table is read in full")

    # Schema

    def test_a_schema_says_key_types_and_what_may_be_null(self, backend: Backend) -> None:
        kinds = backend.schema("kinds")

        assert kinds.key == ("id",)
        assert [c.type for c in kinds.columns] == [
            "BIGINT", "BOOLEAN", "SMALLINT", "BIGINT", "UBIGINT", "DOUBLE", "DECIMAL(38,10)", "VARCHAR", "BLOB",
            "DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ", "UUID",
        ]  # fmt: skip
        assert [c.name for c in kinds.columns if not c.nullable] == ["id"]
        assert backend.schema("weather").key == ("origin", "hour")

    def test_a_table_that_is_not_there_is_a_404(self, backend: Backend) -> None:
        for ask in (backend.schema, lambda name: list(backend.pull(name, Query(), None))):
            with pytest.raises(BackendError, match="nowhere") as caught:
                ask("nowhere")
            assert caught.value.status == 404

    # Values

    EXACT: ClassVar[dict[int, dict[str, Any]]] = {
        1: {
            "flag": True, "small": -(2**15), "whole": 2**53 + 1, "big": 2**64 - 1, "real": 0.1 + 0.2,
            "exact": Decimal("1234567890123456789012345678.0123456789"), "text": "", "bytes": bytes(range(256)),
            "day": dt.date(1, 1, 1), "clock": dt.time(23, 59, 59, 999_999),
            "moment": dt.datetime(1, 1, 1, 0, 0, 0, 1), "guid": str(uuid.UUID(int=2**128 - 1)),
            "instant": dt.datetime(2013, 1, 1, 10, 0, 0, 1, tzinfo=UTC),
        },
        2: {
            "flag": False, "small": 2**15 - 1, "whole": -(2**63), "big": 0, "real": math.inf,
            "exact": Decimal("-0.0000000001"), "text": "a'\"\x00\n\U0001f6eb Ä", "bytes": b"",
            "day": dt.date(9999, 12, 31), "clock": dt.time(0), "moment": dt.datetime(9999, 12, 31, 23, 59, 59),
            "guid": str(uuid.UUID(int=1)), "instant": dt.datetime(2013, 1, 1, 10, tzinfo=UTC),
        },
        3: dict.fromkeys(
            ["flag", "small", "whole", "big", "real", "exact", "text", "bytes", "day", "clock", "moment", "guid",
             "instant"]
        ),
        4: {"flag": None, "real": -math.inf, "whole": 2**63 - 1, "text": "007", "exact": Decimal("7.0")},
    }  # fmt: skip

    def test_values_come_back_exactly(self, backend: Backend) -> None:
        outcomes = push(backend, "kinds", *(insert(key, **values) for key, values in self.EXACT.items()))

        held = rows(backend, "kinds")

        for outcome, (key, values) in zip(outcomes, self.EXACT.items(), strict=True):
            assert outcome["status"] == "accepted"
            assert {name: held[key][name] for name in values} == values
            assert {name: outcome[f"r_{name}"] for name in values} == values

    def test_values_change_exactly(self, backend: Backend) -> None:
        push(backend, "kinds", *(insert(key) for key in self.EXACT))
        known = versions(backend, "kinds")

        changes = [update(key, known[key], **values) for key, values in self.EXACT.items()]
        assert statuses(backend, "kinds", *changes) == ["accepted"] * len(self.EXACT)

        held = rows(backend, "kinds")
        assert {k: {name: held[k][name] for name in values} for k, values in self.EXACT.items()} == self.EXACT

    def test_nan_is_null(self, backend: Backend) -> None:
        push(backend, "kinds", insert(1, real=math.nan))

        assert rows(backend, "kinds")[1]["real"] is None

    def test_a_column_that_is_not_given_has_its_default(self, backend: Backend) -> None:
        outcomes = push(backend, "items", insert("a", n=1), insert("b", n=2, name=None))

        assert [outcome["r_name"] for outcome in outcomes] == ["new", None]

    def test_a_compound_key_names_a_row(self, backend: Backend) -> None:
        ten, eleven = dt.datetime(2013, 1, 1, 10, tzinfo=UTC), dt.datetime(2013, 1, 1, 11, 0, 0, 1, tzinfo=UTC)
        push(backend, "weather", *(insert((o, h), temp=1.0) for o in ("EWR", "JFK") for h in (ten, eleven)))
        known = versions(backend, "weather")

        told = statuses(
            backend, "weather",
            update(("EWR", eleven), known["EWR", eleven], temp=2.5),
            delete(("JFK", ten), known["JFK", ten]),
            insert(("JFK", eleven), temp=0.0),
        )  # fmt: skip

        assert told == ["accepted", "accepted", "conflicted"]
        held = {key: row["temp"] for key, row in rows(backend, "weather").items()}
        assert held == {("EWR", ten): 1.0, ("EWR", eleven): 2.5, ("JFK", eleven): 1.0}

    def test_names_that_need_quoting_are_quoted(self, backend: Backend) -> None:
        table = 'odd " name'
        push(backend, table, insert(1, **{'a " b': "x"}), insert(2, **{"sp ace": "y"}))
        known = versions(backend, table)
        push(backend, table, update(1, known[1], **{'a " b': "z"}), delete(2, known[2]))

        assert rows(backend, table) == {1: {"select": 1, 'a " b': "z", "sp ace": None}}
        assert list(pulled(backend, table, where='"a "" b" = \'z\'')[0]) == [1]

    # Pull

    def test_an_empty_table_is_one_empty_page(self, backend: Backend) -> None:
        (page,) = pages(backend, "items")

        assert page.rows.num_rows == 0
        assert (page.checkpoint is not None) == self.tracked

    def test_pages_have_as_many_rows_as_were_asked_for(self, backend: Backend) -> None:
        push(backend, "items", *(insert(f"k{n}", n=n) for n in range(25)))

        sizes = [page.rows.num_rows for page in pages(backend, "items", page_rows=10)]
        assert sizes == [10, 10, 5]
        assert {row["n"] for row in rows(backend, "items").values()} == set(range(25))

    def test_only_rows_that_match_come(self, backend: Backend) -> None:
        push(backend, "items", *(insert(f"k{n}", n=n) for n in range(25)))

        found = list(pages(backend, "items", where="n >= 20 and name like 'ne%'", page_rows=2))

        assert sorted(n for page in found for n in page.rows["n"].to_pylist()) == [20, 21, 22, 23, 24]

    def test_only_columns_that_were_asked_for_come(self, backend: Backend) -> None:
        push(backend, "items", insert("a", n=1, name="x"))

        held, _ = pulled(backend, "items", columns=("n",))

        assert _plain(held["a"]) == {"id": "a", "n": 1}

    def test_a_version_changes_with_its_row_and_with_nothing_else(self, backend: Backend) -> None:
        push(backend, "items", insert("a", n=1), insert("b", n=1))
        before = versions(backend, "items")
        (outcome,) = push(backend, "items", update("a", before["a"], n=2))
        after = versions(backend, "items")

        assert before["a"] != after["a"] == outcome["version"]
        assert before["b"] == after["b"]

    def test_rows_are_found_by_key(self, backend: Backend) -> None:
        push(backend, "items", insert("a", n=1), insert("b", n=2))
        known = versions(backend, "items")
        push(backend, "items", delete("b", known["b"]))

        found = backend.rows("items", pa.table({"id": ["nobody", "a", "b"]})).to_pylist()  # type: ignore[attr-defined]

        assert [(row["id"], row["n"], row[DELETED]) for row in found if not row[DELETED]] == [("a", 1, False)]
        assert [row["id"] for row in found] == (["a", "b"] if self.tracked else ["a"])

    # Changes

    def test_the_next_pull_brings_what_changed(self, backend: Backend) -> None:
        self._only_tracked()
        push(backend, "items", *(insert(key, n=0) for key in "abcd"))
        known, checkpoint = pulled(backend, "items")
        push(
            backend, "items", update("b", known["b"][VERSION], n=1), delete("c", known["c"][VERSION]), insert("e", n=2)
        )

        changed, checkpoint = pulled(backend, "items", checkpoint)

        assert {key: (row["n"], row[DELETED]) for key, row in changed.items()} == {
            "b": (1, False), "c": (None, True), "e": (2, False),
        }  # fmt: skip
        assert pulled(backend, "items", checkpoint) == ({}, checkpoint)

    def test_nothing_new_is_one_empty_page(self, backend: Backend) -> None:
        self._only_tracked()
        push(backend, "items", insert("a"))
        _, checkpoint = pulled(backend, "items")

        (page,) = pages(backend, "items", checkpoint)

        assert (page.rows.num_rows, page.leavers, page.checkpoint) == (0, None, checkpoint)

    def test_an_interrupted_pull_goes_on_where_it_stopped(self, backend: Backend) -> None:
        self._only_tracked()
        push(backend, "items", *(insert(f"k{n}", n=n) for n in range(25)))
        first = next(pages(backend, "items", page_rows=10))

        rest, _ = pulled(backend, "items", first.checkpoint, page_rows=10)

        assert len(rest) == 15
        assert {row["n"] for row in [*first.rows.to_pylist(), *rest.values()]} == set(range(25))

    @pytest.mark.parametrize("where", [None, "n < 100"])
    def test_what_is_written_between_two_pages_is_not_missed(self, backend: Backend, where: str | None) -> None:
        self._only_tracked()
        push(backend, "items", *(insert(f"k{n:02}", n=n) for n in range(30)))
        known = versions(backend, "items")
        held: dict[str, int] = {}
        for number, page in enumerate(pages(backend, "items", where=where, page_rows=10)):
            for row in page.rows.to_pylist():
                held.pop(row["id"], None)
                if not row[DELETED]:
                    held[row["id"]] = row["n"]
            for row in page.leavers.to_pylist() if page.leavers is not None else []:
                held.pop(row["id"], None)
            if number == 0:
                seen, unseen = page.rows["id"].to_pylist(), sorted({*known} - {*page.rows["id"].to_pylist()})
                push(
                    backend, "items",
                    delete(seen[0], known[seen[0]]), update(seen[1], known[seen[1]], n=50),
                    update(seen[2], known[seen[2]], n=500), delete(unseen[0], known[unseen[0]]),
                    update(unseen[1], known[unseen[1]], n=60), insert("new", n=70),
                )  # fmt: skip

        there = {key: row["n"] for key, row in rows(backend, "items").items()}
        assert held == {key: n for key, n in there.items() if where is None or n < 100}

    def test_a_row_that_left_the_query_is_named(self, backend: Backend) -> None:
        self._only_tracked()
        push(backend, "items", insert("a", n=1), insert("b", n=1), insert("c", n=1), insert("d", n=2))
        known, checkpoint = pulled(backend, "items", where="n = 1")
        push(backend, "items", update("a", known["a"][VERSION], n=2), update("b", known["b"][VERSION], n=3),
             update("c", known["c"][VERSION], n=None))  # fmt: skip

        (page,) = pages(backend, "items", checkpoint, where="n = 1", others=["n = 2", "n = 5"])

        assert page.rows.num_rows == 0
        assert page.leavers is not None
        assert {row["id"]: row[HELD] for row in page.leavers.to_pylist()} == {"a": True, "b": False, "c": False}

    def test_a_tombstone_comes_whatever_the_query(self, backend: Backend) -> None:
        self._only_tracked()
        push(backend, "items", insert("a", n=1))
        known, checkpoint = pulled(backend, "items", where="n = 1")
        push(backend, "items", delete("a", known["a"][VERSION]))

        changed, _ = pulled(backend, "items", checkpoint, where="n = 1")

        assert changed["a"][DELETED]

    def test_system_columns_can_be_asked_for_where_they_are_kept(self, backend: Backend) -> None:
        push(backend, "items", insert("a", n=1))

        if self.tracked:
            past = "updatedAt > timestamptz '2001-01-01 00:00:00Z' and not deleted and createdAt is not null"
            assert list(pulled(backend, "items", where=past)[0]) == ["a"]
            assert pulled(backend, "items", where="version = 'x'")[0] == {}
        else:
            with pytest.raises(QueryError, match="updatedAt"):
                pulled(backend, "items", where="updatedAt is null")

    # Push: what is decided

    def test_an_insert_where_a_row_is_conflicts_with_it(self, backend: Backend) -> None:
        push(backend, "items", insert("a", n=1))

        (outcome,) = push(backend, "items", insert("a", n=2))

        assert (outcome["status"], outcome["deleted"], outcome["r_n"]) == ("conflicted", False, 1)
        assert outcome["version"] == versions(backend, "items")["a"]

    @pytest.mark.parametrize("kind", ["update", "delete"])
    def test_a_change_of_a_row_that_has_moved_conflicts_with_it(self, backend: Backend, kind: str) -> None:
        push(backend, "items", insert("a", n=1))
        old = versions(backend, "items")["a"]
        push(backend, "items", update("a", old, n=2))

        (outcome,) = push(backend, "items", update("a", old, n=3) if kind == "update" else delete("a", old))

        assert (outcome["status"], outcome["deleted"], outcome["r_n"]) == ("conflicted", False, 2)
        assert rows(backend, "items")["a"]["n"] == 2

    def test_an_update_of_a_row_that_is_gone_conflicts_with_its_absence(self, backend: Backend) -> None:
        push(backend, "items", insert("a", n=1))
        old = versions(backend, "items")["a"]
        (gone,) = push(backend, "items", delete("a", old))

        outcomes = push(backend, "items", update("a", old, n=3), update("b", "1", n=3))

        assert [(o["status"], o["deleted"], o["r_n"]) for o in outcomes] == [("conflicted", True, None)] * 2
        assert outcomes[0]["version"] == gone["version"]

    def test_a_delete_of_a_row_that_is_gone_is_accepted(self, backend: Backend) -> None:
        push(backend, "items", insert("a", n=1))
        old = versions(backend, "items")["a"]
        push(backend, "items", delete("a", old))

        outcomes = push(backend, "items", delete("a", old), delete("nobody", "1"))

        assert [(o["status"], o["deleted"]) for o in outcomes] == [("accepted", True)] * 2

    def test_an_insert_where_a_tombstone_is_needs_its_version(self, backend: Backend) -> None:
        self._only_tracked()
        push(backend, "items", insert("a", n=1, name="old"))
        (gone,) = push(backend, "items", delete("a", versions(backend, "items")["a"]))

        (refused,) = push(backend, "items", insert("a", n=2))
        assert (refused["status"], refused["deleted"], refused["version"]) == ("conflicted", True, gone["version"])

        (taken,) = push(backend, "items", insert("a", gone["version"], n=2))
        assert (taken["status"], taken["deleted"]) == ("accepted", False)
        assert rows(backend, "items") == {"a": {"id": "a", "n": 2, "name": "new"}}

    def test_a_repeated_request_is_applied_once(self, backend: Backend) -> None:
        push(backend, "items", insert("a", n=1), insert("b", n=1))
        known = versions(backend, "items")
        again = [update("a", known["a"], n=2), delete("b", known["b"]), insert("c", n=3)]
        first = push(backend, "items", *again)

        second = push(backend, "items", *again)

        assert [o["status"] for o in second] == ["accepted"] * 3
        assert [o["version"] for o in second] == [o["version"] for o in first]

    def test_a_repeated_request_does_not_undo_what_came_after_it(self, backend: Backend) -> None:
        self._only_tracked()
        first, late = insert("a", n=1), insert("b", n=1)
        push(backend, "items", first, late)
        known = versions(backend, "items")
        push(backend, "items", update("a", known["a"], n=2), delete("b", known["b"]))

        outcomes = push(backend, "items", first, late)

        assert [(o["status"], o["deleted"], o["r_n"]) for o in outcomes] == [
            ("accepted", False, 2), ("accepted", True, None),
        ]  # fmt: skip
        assert rows(backend, "items")["a"]["n"] == 2

    def test_a_row_carries_the_operations_that_wrote_it_last(self, backend: Backend) -> None:
        self._only_tracked()
        push(backend, "items", insert("a", operation_id="o0", n=0))
        for number in range(1, 10):
            push(backend, "items", update("a", versions(backend, "items")["a"], f"o{number}", n=number))

        row = pulled(backend, "items")[0]["a"]

        assert row[OPERATION] == "o9 o8 o7 o6 o5 o4 o3 o2"

    def test_an_untracked_row_that_equals_what_was_sent_is_taken_for_its_effect(self, backend: Backend) -> None:
        if self.tracked:
            pytest.skip("a tracked table keeps operation ids")
        push(backend, "items", insert("a", n=1, name="x"))
        old = versions(backend, "items")["a"]
        push(backend, "items", update("a", old, n=2))

        assert statuses(backend, "items", insert("a", n=2)) == ["accepted"]
        assert statuses(backend, "items", update("a", old, n=2)) == ["accepted"]
        assert statuses(backend, "items", update("a", old, n=3)) == ["conflicted"]

    # Push: what is refused

    def test_what_a_constraint_refuses_is_rejected_and_the_rest_goes_through(self, backend: Backend) -> None:
        push(backend, "parents", insert(1, code="x"))

        outcomes = push(
            backend, "children",
            insert(1, parent=1, name="ok"), insert(2, parent=9, name="no parent"), insert(3, parent=1, name=None),
            insert(4, name="negative", amount=-1), insert(5, name="ok too", amount=1),
        )  # fmt: skip

        told = [(o["status"], o["code"]) for o in outcomes]
        assert told == [
            ("accepted", None), ("rejected", "reference"), ("rejected", "not null"), ("rejected", "check"),
            ("accepted", None),
        ]  # fmt: skip
        assert all(o["message"] for o in outcomes if o["status"] == "rejected")
        assert outcomes[2]["column"] == "name"
        assert sorted(rows(backend, "children")) == [1, 5]

    def test_a_unique_value_that_is_taken_is_rejected(self, backend: Backend) -> None:
        outcomes = push(backend, "parents", insert(1, code="x"), insert(2, code="x"), insert(3, code="y"))

        assert [(o["status"], o["code"]) for o in outcomes][1] == ("rejected", "unique")
        assert outcomes[1]["deleted"]
        assert {key: row["code"] for key, row in rows(backend, "parents").items()} == {1: "x", 3: "y"}

    def test_a_rejected_update_leaves_its_row_and_says_how_it_stands(self, backend: Backend) -> None:
        push(backend, "parents", insert(1, code="x"), insert(2, code="y"))
        known = versions(backend, "parents")

        (outcome,) = push(backend, "parents", update(2, known[2], code="x"))

        assert (outcome["status"], outcome["deleted"], outcome["r_code"]) == ("rejected", False, "y")
        assert versions(backend, "parents") == known

    def test_operations_are_applied_in_order(self, backend: Backend) -> None:
        push(backend, "parents", insert(1, code="x"), insert(2, code="y"))
        known = versions(backend, "parents")

        told = statuses(
            backend, "parents",
            delete(1, known[1]), insert(3, code="x"), update(2, known[2], code="z"), insert(4, code="y"),
        )  # fmt: skip

        assert told == ["accepted"] * 4
        assert {key: row["code"] for key, row in rows(backend, "parents").items()} == {2: "z", 3: "x", 4: "y"}

    # Push: all or nothing

    def test_an_atomic_push_applies_everything(self, backend: Backend) -> None:
        self._only_atomic(backend)
        batches = [
            batch(backend, "parents", [insert(1, code="x")]),
            batch(backend, "children", [insert(1, parent=1, name="a"), insert(2, parent=1, name="b")]),
        ]

        outcomes = backend.push_atomic(batches)  # type: ignore[attr-defined]

        assert [row["status"] for part in outcomes for row in part] == ["accepted"] * 3
        assert sorted(rows(backend, "children")) == [1, 2]

    def test_an_atomic_push_applies_nothing_if_anything_is_refused(self, backend: Backend) -> None:
        self._only_atomic(backend)
        batches = [
            batch(backend, "parents", [insert(1, code="x")]),
            batch(backend, "children", [insert(1, parent=1, name="a"), insert(2, parent=9, name="b")]),
        ]

        outcomes = backend.push_atomic(batches)  # type: ignore[attr-defined]

        assert [len(part) for part in outcomes] == [0, 1]
        assert [row["code"] for part in outcomes for row in part] == ["reference"]
        assert rows(backend, "parents") == rows(backend, "children") == {}

    def test_an_atomic_push_applies_nothing_if_anything_conflicts(self, backend: Backend) -> None:
        self._only_atomic(backend)
        push(backend, "items", insert("a", n=1))
        batches = [batch(backend, "items", [insert("b", n=1), update("a", "old", n=2)])]

        (outcomes,) = backend.push_atomic(batches)  # type: ignore[attr-defined]

        assert [(row["status"], row["r_n"]) for row in outcomes] == [("conflicted", 1)]
        assert sorted(rows(backend, "items")) == ["a"]

    def _only_atomic(self, backend: Backend) -> None:
        if not backend.promises.atomic_push:
            pytest.skip("this back end does not promise it")

    def test_a_large_batch_is_pushed_in_order_and_once(self, backend: Backend) -> None:
        size = 100_000
        schema = backend.schema("items")
        table = pa.table(
            {
                "operation_id": [f"large-{n}" for n in range(size)],
                "kind": ["insert"] * size,
                "base_version": pa.nulls(size, pa.string()),
                "given": [["n"]] * size,
                "k_id": [f"k{n * 7919 % size}" for n in range(size)],
                "l_n": range(size),
                "l_name": pa.nulls(size, pa.string()),
            }
        )
        operations = Operations("items", schema, table.cast(operation_schema(schema)))

        outcomes = pa.concat_tables([part.rows for part in backend.push(operations)])

        assert outcomes["operation_id"].to_pylist() == table["operation_id"].to_pylist()
        assert outcomes["status"].unique().to_pylist() == ["accepted"]
        assert len(pulled(backend, "items")[0]) == size
