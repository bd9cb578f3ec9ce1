"""The contract that every back end keeps, as tests that anybody can run on a back end of their own.

    from syncframe.testing import BackendContract

    class TestMine(BackendContract):
        def make(self, folder):
            return MyBackend(...)      # fresh, with the tables of `DDL`, all empty

pytest finds the tests in the subclass.  What a back end cannot have it says by the class's attributes, such
as ``tracked = False`` (its pages have no checkpoint).  Verbs that it need not have are tested where they are
there.  The other helpers here make batches and read tables in a line.
"""

# ruff: noqa: S101  (assertions are what this file is for)

from __future__ import annotations

import datetime as dt
import itertools
import math
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from .backends.base import (
    CREATED,
    DELETED,
    HELD,
    OPERATION,
    UPDATED,
    VERSION,
    Backend,
    Checkpoint,
    Operations,
    Page,
    operation_schema,
)
from .errors import BackendError, QueryError
from .query import Order, Query, Read, parse
from .remote import Rows

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


def read(
    backend: Backend, table: str, where: str | None = None, *, order_by: Sequence[str] = (), **options: Any
) -> list[dict[str, Any]]:
    """Read rows in order; of `order_by` those with a leading "-" descending, and the options of `Read`."""
    asked = _read(backend, table, where, order_by, options)
    found: list[dict[str, Any]] = backend.read(table, asked).to_pylist()  # type: ignore[attr-defined]
    return found


def count(backend: Backend, table: str, where: str | None = None, **options: Any) -> int:
    """Count rows."""
    number: int = backend.count(table, _read(backend, table, where, (), options))  # type: ignore[attr-defined]
    return number


def _read(backend: Backend, table: str, where: str | None, order_by: Sequence[str], options: dict[str, Any]) -> Read:
    order = tuple(Order(name.removeprefix("-"), name.startswith("-")) for name in order_by)
    return Read(parse(where, backend.schema(table)) if where else None, order_by=order, **options)


def keys(rows: Sequence[Mapping[str, Any]], name: str = "id") -> list[Any]:
    return [row[name] for row in rows]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_syncframe")}


def _write(backend: Backend, start: int) -> None:
    """A writer of its own rows: each comes, changes, and every third goes."""
    table = Rows(backend, "items")
    for n in range(start, 60, 2):
        table.insert({"id": f"k{n}", "n": 0})
        table.update(f"k{n}", {"n": n})
        if n % 3 == 0:
            table.delete(f"k{n}")


class BackendContract:
    """What a back end promises; subclass it and give `make`."""

    # What a back end cannot have: each of these, set to False in the subclass, leaves out the tests of that alone.
    tracked = True  # pages have a checkpoint, rows that were deleted leave tombstones
    exact = True  # every value of every type comes back as it went: 64 bits, 38 digits, microseconds, every character
    has_infinity = True  # a float may be infinite
    holds_nul = True  # a text may have the character U+0000
    remembers_operations = (
        True  # rows carry the ids of the operations that wrote them: a repeated one is known for sure
    )
    names_leavers = True  # a row that changed and left the query is named in a page
    knows_held = True  # and with it whether another of the stored queries still matches it
    gives_codes = True  # a rejection says by a code why, and which column
    large = 100_000  # how many operations the large batch has

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

    def _only(self, attribute: str) -> None:
        if not getattr(self, attribute):
            pytest.skip(f"this back end has {attribute} = False")

    def _only_with(self, backend: Backend, *verbs: str) -> None:
        lacking = [verb for verb in verbs if not hasattr(backend, verb)]
        if lacking:
            pytest.skip(f"this back end has no {', '.join(lacking)}")

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
            "flag": False, "small": 2**15 - 1, "whole": -(2**63), "big": 0, "real": -1.7976931348623157e308,
            "exact": Decimal("-0.0000000001"), "text": "a'\"\n\U0001f6eb Ä", "bytes": b"",
            "day": dt.date(9999, 12, 31), "clock": dt.time(0), "moment": dt.datetime(9999, 12, 31, 23, 59, 59),
            "guid": str(uuid.UUID(int=1)), "instant": dt.datetime(2013, 1, 1, 10, tzinfo=UTC),
        },
        3: dict.fromkeys(
            ["flag", "small", "whole", "big", "real", "exact", "text", "bytes", "day", "clock", "moment", "guid",
             "instant"]
        ),
        4: {"flag": None, "real": 5e-324, "whole": 2**63 - 1, "text": "007", "exact": Decimal("7.0")},
    }  # fmt: skip

    INFINITE: ClassVar[dict[int, dict[str, Any]]] = {1: {"real": math.inf}, 2: {"real": -math.inf}}

    def test_values_come_back_exactly(self, backend: Backend) -> None:
        self._only("exact")
        self._check_values(backend, self.EXACT)

    def _check_values(self, backend: Backend, expected: dict[int, dict[str, Any]]) -> None:
        outcomes = push(backend, "kinds", *(insert(key, **values) for key, values in expected.items()))

        held = rows(backend, "kinds")

        for outcome, (key, values) in zip(outcomes, expected.items(), strict=True):
            assert outcome["status"] == "accepted"
            assert {name: held[key][name] for name in values} == values
            assert {name: outcome[f"r_{name}"] for name in values} == values

    def test_infinity_comes_back(self, backend: Backend) -> None:
        self._only("has_infinity")
        push(backend, "kinds", *(insert(key, **values) for key, values in self.INFINITE.items()))

        assert {key: row["real"] for key, row in rows(backend, "kinds").items()} == {1: math.inf, 2: -math.inf}

    def test_values_change_exactly(self, backend: Backend) -> None:
        self._only("exact")
        self._check_changes(backend, self.EXACT)

    def _check_changes(self, backend: Backend, expected: dict[int, dict[str, Any]], **before: Any) -> None:
        push(backend, "kinds", *(insert(key, **before) for key in expected))
        known = versions(backend, "kinds")

        changes = [update(key, known[key], **values) for key, values in expected.items()]
        assert statuses(backend, "kinds", *changes) == ["accepted"] * len(expected)

        held = rows(backend, "kinds")
        assert {k: {name: held[k][name] for name in values} for k, values in expected.items()} == expected

    def test_a_text_with_a_nul_character_comes_back_or_is_rejected(self, backend: Backend) -> None:
        (outcome,) = push(backend, "kinds", insert(1, text="a\x00b"))

        if self.holds_nul:
            assert (outcome["status"], outcome["r_text"]) == ("accepted", "a\x00b")
            assert rows(backend, "kinds")[1]["text"] == "a\x00b"
        else:
            assert outcome["status"] == "rejected"
            assert not self.gives_codes or (outcome["code"], outcome["column"]) == ("type", "text")
            assert rows(backend, "kinds") == {}

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
        assert [size for size in sizes if size] == [10, 10, 5]
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
        self._only_with(backend, "rows")
        push(backend, "items", insert("a", n=1), insert("b", n=2))
        known = versions(backend, "items")
        push(backend, "items", delete("b", known["b"]))

        found = backend.rows("items", pa.table({"id": ["nobody", "a", "b"]})).to_pylist()  # type: ignore[attr-defined]

        assert [(row["id"], row["n"], row[DELETED]) for row in found if not row[DELETED]] == [("a", 1, False)]
        assert [row["id"] for row in found] == (["a", "b"] if self.tracked else ["a"])

    # Read

    def test_a_read_has_the_rows_that_match_in_the_order_of_the_key(self, backend: Backend) -> None:
        self._only_with(backend, "read")
        push(backend, "items", *(insert(key, n=n) for n, key in enumerate("dbca")))

        assert keys(read(backend, "items")) == ["a", "b", "c", "d"]
        assert [(row["id"], row["n"], row["name"]) for row in read(backend, "items", "n < 2")] == [
            ("b", 1, "new"), ("d", 0, "new"),
        ]  # fmt: skip
        assert read(backend, "items", "n > 9") == []

    def test_a_read_row_has_the_version_that_a_pull_has(self, backend: Backend) -> None:
        self._only_with(backend, "read")
        push(backend, "items", insert("a", n=1), insert("b", n=2))

        found = read(backend, "items")

        assert {row["id"]: row[VERSION] for row in found} == versions(backend, "items")
        assert [row[DELETED] for row in found] == [False, False]

    def test_rows_are_sorted_by_several_columns_and_ties_by_the_key(self, backend: Backend) -> None:
        self._only_with(backend, "read")
        push(backend, "items", insert("d", n=1, name="x"), insert("a", n=2, name="x"), insert("c", n=1, name="y"),
             insert("b", n=1, name="x"))  # fmt: skip

        assert keys(read(backend, "items", order_by=["n"])) == ["b", "c", "d", "a"]
        assert keys(read(backend, "items", order_by=["-n"])) == ["a", "b", "c", "d"]
        assert keys(read(backend, "items", order_by=["-name", "n"])) == ["c", "b", "d", "a"]
        assert keys(read(backend, "items", order_by=["-id"])) == ["d", "c", "b", "a"]

    def test_null_is_sorted_before_all_values(self, backend: Backend) -> None:
        self._only_with(backend, "read")
        push(backend, "items", insert("a", n=1), insert("b", n=None), insert("c", n=-5))

        assert keys(read(backend, "items", order_by=["n"])) == ["b", "c", "a"]
        assert keys(read(backend, "items", order_by=["-n"])) == ["a", "c", "b"]

    def test_texts_are_sorted_by_their_bytes(self, backend: Backend) -> None:
        self._only_with(backend, "read")
        names = ["", "A", "B", "a", "b", "é", "\U0001f6eb"]
        push(backend, "items", *(insert(f"k{7 - n}", name=name) for n, name in enumerate(names)))

        assert [row["name"] for row in read(backend, "items", order_by=["name"])] == names

    RISING: ClassVar[dict[str, list[Any]]] = {
        "flag": [False, True],
        "whole": [-(2**63), -1, 9, 10, 2**63 - 1],
        "big": [0, 9, 10, 2**63, 2**64 - 1],
        "real": [-1.7976931348623157e308, -0.5, 0.0, 5e-324, 9.0, 10.0],
        "exact": [Decimal("-10"), Decimal("-9.5"), Decimal(0), Decimal("0.0000000001"), Decimal(9), Decimal(10)],
        "bytes": [b"", b"\x00", b"\x00\x01", b"\x7f", b"\xff"],
        "day": [dt.date(1, 1, 1), dt.date(2013, 1, 31), dt.date(2013, 2, 1), dt.date(9999, 12, 31)],
        "clock": [dt.time(0), dt.time(9), dt.time(9, 0, 0, 1), dt.time(10)],
        "moment": [dt.datetime(2013, 1, 1, 9), dt.datetime(2013, 1, 1, 9, 0, 0, 1), dt.datetime(2013, 1, 1, 10)],
        "instant": [dt.datetime(2013, 1, 1, 9, tzinfo=UTC), dt.datetime(2013, 1, 1, 9, 0, 0, 1, tzinfo=UTC),
                    dt.datetime(2013, 1, 1, 10, tzinfo=UTC)],
        "guid": [str(uuid.UUID(int=n)) for n in (1, 2**64, 2**128 - 1)],
    }  # fmt: skip

    def test_values_of_every_type_are_sorted_as_they_are(self, backend: Backend) -> None:
        self._only_with(backend, "read")
        self._only("exact")
        length = max(map(len, self.RISING.values()))
        cells = [{name: rising[n] for name, rising in self.RISING.items() if n < len(rising)} for n in range(length)]
        push(backend, "kinds", *(insert(length - n, **values) for n, values in enumerate(cells)))

        for name, rising in self.RISING.items():
            found = [row[name] for row in read(backend, "kinds", f"{name} is not null", order_by=[name])]
            assert found == rising
            found = [row[name] for row in read(backend, "kinds", f"{name} is not null", order_by=[f"-{name}"])]
            assert found == rising[::-1]

    def test_limit_and_offset_cut_a_read(self, backend: Backend) -> None:
        self._only_with(backend, "read")
        push(backend, "items", *(insert(key, n=1) for key in "abcd"))

        for order in ((), ("n",)):
            assert keys(read(backend, "items", order_by=order, limit=2)) == ["a", "b"]
            assert keys(read(backend, "items", order_by=order, limit=2, offset=1)) == ["b", "c"]
            assert keys(read(backend, "items", order_by=order, offset=3)) == ["d"]
            assert keys(read(backend, "items", order_by=order, limit=0)) == []
            assert keys(read(backend, "items", order_by=order, limit=9)) == ["a", "b", "c", "d"]
            assert keys(read(backend, "items", order_by=order, limit=2, offset=4)) == []

    def test_a_read_has_the_columns_that_were_asked_for(self, backend: Backend) -> None:
        self._only_with(backend, "read")
        push(backend, "items", insert("a", n=1, name="x"))

        assert [_plain(row) for row in read(backend, "items", columns=("n",))] == [{"id": "a", "n": 1}]
        assert [_plain(row) for row in read(backend, "items", "n = 1", columns=())] == [{"id": "a"}]

    def test_rows_are_counted_whatever_the_limit(self, backend: Backend) -> None:
        self._only_with(backend, "count")
        push(backend, "items", *(insert(f"k{n}", n=n) for n in range(25)))

        assert count(backend, "items") == 25
        assert count(backend, "items", "n >= 20", limit=2, offset=1) == 5
        assert count(backend, "items", "n > 99") == 0

    def test_a_column_that_is_not_known_cannot_be_sorted_by(self, backend: Backend) -> None:
        self._only_with(backend, "read")

        with pytest.raises(QueryError, match="nowhere"):
            read(backend, "items", order_by=["nowhere"])

    def test_a_read_is_sorted_by_system_columns_where_they_are_kept(self, backend: Backend) -> None:
        self._only_with(backend, "read", "count")
        push(backend, "items", insert("b", n=1))
        push(backend, "items", insert("a", n=1))

        if self.tracked:
            assert sorted(keys(read(backend, "items", order_by=["updatedAt"]))) == ["a", "b"]
            assert keys(read(backend, "items", "not deleted", order_by=["deleted", "-id"])) == ["b", "a"]
            assert count(backend, "items", "updatedAt > timestamptz '2001-01-01 00:00:00Z'") == 2
        else:
            for ask in (lambda: read(backend, "items", order_by=["updatedAt"]),
                        lambda: count(backend, "items", "deleted")):  # fmt: skip
                with pytest.raises(QueryError, match="not tracked"):
                    ask()

    # Read: rows that are gone

    def test_deleted_rows_come_with_their_last_values_if_they_are_asked_for(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read", "count")
        push(backend, "items", insert("a", n=1), insert("b", n=2, name="x"))
        push(backend, "items", update("b", versions(backend, "items")["b"], n=3))
        (gone,) = push(backend, "items", delete("b", versions(backend, "items")["b"]))

        found = read(backend, "items", include_deleted=True)

        assert [(row["id"], row["n"], row["name"], row[DELETED]) for row in found] == [
            ("a", 1, "new", False), ("b", 3, "x", True),
        ]  # fmt: skip
        assert found[1][VERSION] == gone["version"]
        assert keys(read(backend, "items")) == ["a"]
        assert (count(backend, "items"), count(backend, "items", include_deleted=True)) == (1, 2)

    def test_a_deleted_row_is_judged_by_its_last_values(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read", "count")
        push(backend, "items", *(insert(key, n=n, name=key) for n, key in enumerate("abcd")))
        known = versions(backend, "items")
        push(backend, "items", delete("a", known["a"]), delete("c", known["c"]))

        assert keys(read(backend, "items", "n >= 1", include_deleted=True)) == ["b", "c", "d"]
        assert keys(read(backend, "items", "name like 'c%'", include_deleted=True)) == ["c"]
        assert keys(read(backend, "items", "deleted", include_deleted=True, order_by=["-n"])) == ["c", "a"]
        assert keys(read(backend, "items", "id > 'b' and deleted", include_deleted=True)) == ["c"]
        assert count(backend, "items", "n < 1", include_deleted=True) == 1
        assert read(backend, "items", "deleted") == []

    def test_last_values_are_exact(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read", "rows")
        self._only("exact")
        self._check_last_values(backend, self.EXACT)

    def test_the_last_value_may_be_infinite(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read", "rows")
        self._only("has_infinity")
        self._check_last_values(backend, self.INFINITE)

    def _check_last_values(self, backend: Backend, expected: dict[int, dict[str, Any]]) -> None:
        push(backend, "kinds", *(insert(key, **values) for key, values in expected.items()))
        known = versions(backend, "kinds")
        push(backend, "kinds", *(delete(key, known[key]) for key in expected))

        by_read = read(backend, "kinds", include_deleted=True)
        by_key = backend.rows("kinds", pa.table({"id": list(expected)})).to_pylist()  # type: ignore[attr-defined]

        for found in (by_read, by_key):
            assert {row["id"]: {n: row[n] for n in expected[row["id"]]} for row in found} == expected
            assert all(row[DELETED] for row in found)

    def test_filters_mean_the_same_over_last_values(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read")
        self._only("exact")
        conditions = [
            "real > 0.3e0 or real < -1e308", "big > 18446744073709551614 or big = 0", "whole = 9007199254740993",
            "exact < 0 or exact > 1", "bytes is not null", "instant >= timestamptz '2013-01-01 10:00:00Z'",
            "moment <> timestamp '2000-01-01 00:00:00'", "day > date '2000-01-01' or day < date '0002-01-01'",
            "clock < time '01:00:00' or clock > time '23:00:00'", "length(text) < 99", "flag or not flag",
            "guid > '00000000-0000-0000-0000-000000000000'", "small in (-32768, 32767)",
        ]  # fmt: skip
        push(backend, "kinds", *(insert(key, **self.EXACT[key]) for key in (1, 2, 3)))
        there = {where: keys(read(backend, "kinds", where)) for where in conditions}
        known = versions(backend, "kinds")
        push(backend, "kinds", *(delete(key, known[key]) for key in (1, 2, 3)))

        assert {where: keys(read(backend, "kinds", where, include_deleted=True)) for where in conditions} == there
        assert all(found in ([1], [1, 2]) for found in there.values())

    def test_last_values_are_kept_under_names_that_need_quoting(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read")
        table = 'odd " name'
        push(backend, table, insert(1, **{'a " b': "x", "sp ace": "y"}), insert(2, **{'a " b': "z"}))
        known = versions(backend, table)
        push(backend, table, delete(1, known[1]), delete(2, known[2]))

        found = read(backend, table, '"a "" b" >= \'x\'', order_by=['-a " b'], include_deleted=True)

        assert [_plain(row) for row in found] == [
            {"select": 2, 'a " b': "z", "sp ace": None}, {"select": 1, 'a " b': "x", "sp ace": "y"},
        ]  # fmt: skip

    def test_a_row_that_came_back_has_its_new_values(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read")
        push(backend, "items", insert("a", n=1, name="old"))
        (gone,) = push(backend, "items", delete("a", versions(backend, "items")["a"]))
        push(backend, "items", insert("a", gone["version"], n=2))

        (row,) = read(backend, "items", include_deleted=True)

        assert (row["n"], row["name"], row[DELETED]) == (2, "new", False)

    def test_an_untracked_row_that_is_deleted_is_gone(self, backend: Backend) -> None:
        self._only_with(backend, "read")
        if self.tracked:
            pytest.skip("a tracked table keeps tombstones")
        push(backend, "items", insert("a", n=1), insert("b", n=2))
        push(backend, "items", delete("a", versions(backend, "items")["a"]))

        assert keys(read(backend, "items", include_deleted=True, published=True)) == ["b"]

    def test_a_deleted_row_is_brought_back_with_its_last_values(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "rows")
        push(backend, "items", insert("a", n=1, name="x"))
        table = Rows(backend, "items")
        gone = table.delete("a")

        back = table.undelete("a", if_version=gone["version"], values={"n": 2})

        assert (gone["n"], gone["name"], gone["deleted"]) == (1, "x", True)
        assert (back["n"], back["name"], back["deleted"]) == (2, "x", False)
        assert rows(backend, "items") == {"a": {"id": "a", "n": 2, "name": "x"}}

    # Publish

    def test_published_stamps_are_unique_and_rise_in_the_order_of_commits(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read", "publish")
        push(backend, "items", *(insert(f"k{n}", n=n) for n in range(500)))
        push(backend, "items", insert("a", n=500), update("k7", versions(backend, "items")["k7"], n=501))
        push(backend, "items", delete("k9", versions(backend, "items")["k9"]))

        self._publish(backend)

        found = read(backend, "items", order_by=["updatedAt"], include_deleted=True, published=True)
        stamps = [row[UPDATED] for row in found]
        assert keys(found) == [f"k{n}" for n in range(500) if n not in (7, 9)] + ["a", "k7", "k9"]
        assert all(earlier < later for earlier, later in itertools.pairwise(stamps))
        assert all(stamp.microsecond % 1_000 == 0 for stamp in stamps)
        assert all(row[CREATED] <= row[UPDATED] for row in found)

    def test_no_published_stamp_lies_before_one_that_was_shown(self, backend: Backend) -> None:
        """A client that has seen a provisional stamp asks for what is newer than that from then on."""
        self._only_tracked()
        self._only_with(backend, "read", "publish")
        push(backend, "items", insert("first", n=0))
        self._publish(backend)
        push(backend, "items", insert("shown", n=1))
        shown = max(row[UPDATED] for row in read(backend, "items") if row[UPDATED] is not None)
        push(backend, "items", *(insert(f"k{n:04}", n=n) for n in range(3_000)))

        self._publish(backend)

        newer = f"updatedAt > timestamptz '{shown.isoformat()}'"
        found = read(backend, "items", newer, order_by=["updatedAt"], published=True)
        assert keys(found)[-3_000:] == [f"k{n:04}" for n in range(3_000)]
        assert found[-1][UPDATED] <= dt.datetime.now(UTC) + dt.timedelta(seconds=3)  # one a millisecond

    def test_what_changed_since_it_was_published_is_left_out_until_the_next_time(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read", "count", "publish")
        push(backend, "items", *(insert(key, n=n) for n, key in enumerate("abc")))
        self._publish(backend)
        last = read(backend, "items", order_by=["-updatedAt"], limit=1, published=True)[0][UPDATED]
        known = versions(backend, "items")
        push(backend, "items", insert("d", n=3), update("b", known["b"], n=10), delete("a", known["a"]))

        assert keys(read(backend, "items", published=True, include_deleted=True)) == ["c"]
        assert count(backend, "items", published=True) == 1
        assert keys(read(backend, "items")) == ["b", "c", "d"]

        self._publish(backend)
        newer = f"updatedAt > timestamptz '{last.isoformat()}'"
        found = read(backend, "items", newer, published=True, include_deleted=True, order_by=["updatedAt", "id"])
        assert keys(found) == ["d", "b", "a"]
        assert keys(read(backend, "items", "n >= 2", published=True, order_by=["-updatedAt"])) == ["b", "d", "c"]

    def test_publishing_changes_no_version_and_twice_nothing(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read", "publish")
        push(backend, "items", insert("a", n=1), insert("b", n=2))
        known = versions(backend, "items")

        self._publish(backend)
        once = read(backend, "items", published=True)
        self._publish(backend)

        assert read(backend, "items", published=True) == once
        assert versions(backend, "items") == known

    @pytest.mark.parametrize("column", ["updatedAt", "id"])
    def test_published_rows_are_found_by_any_interval(self, backend: Backend, column: str) -> None:
        self._only_tracked()
        self._only_with(backend, "read", "publish")
        push(backend, "items", *(insert(f"k{n:02}", n=n) for n in range(40)))
        self._publish(backend)
        found = read(backend, "items", published=True, order_by=["updatedAt"])
        at = [f"timestamptz '{row[UPDATED].isoformat()}'" for row in found]
        asked = {
            f"updatedAt > {at[30]}": found[31:],
            f"updatedAt >= {at[30]} and updatedAt < {at[33]}": found[30:33],
            f"{at[5]} >= updatedAt": found[:6],
            f"updatedAt between {at[5]} and {at[7]}": found[5:8],
            f"updatedAt > {at[10]} or (updatedAt = {at[10]} and id > 'k00')": found[10:],
            f"(updatedAt = {at[3]} or updatedAt = {at[6]}) and n > 3": found[6:7],
            f"updatedAt in ({at[1]}, {at[2]})": found[1:3],
            f"updatedAt < {at[2]} or n = 20": [*found[:2], found[20]],
            f"not (updatedAt < {at[38]})": found[38:],
            f"updatedAt > {at[39]}": [],
        }

        for where, expected in asked.items():
            assert read(backend, "items", where, published=True, order_by=[column]) == expected, where

    def test_who_asks_for_what_is_newer_than_the_last_misses_nothing(self, backend: Backend) -> None:
        self._only_tracked()
        self._only_with(backend, "read", "publish", "rows")
        writers = [threading.Thread(target=_write, args=(backend, start)) for start in range(2)]
        for writer in writers:
            writer.start()
        seen: dict[str, int | None] = {}
        last, is_over = "timestamptz '1970-01-01 00:00:00Z'", False
        while not is_over:
            is_over = not any(writer.is_alive() for writer in writers)
            self._publish(backend)
            newer = read(backend, "items", f"updatedAt > {last}", published=True, include_deleted=True,
                         order_by=["updatedAt", "id"], limit=7)  # fmt: skip
            for row in newer:
                seen[row["id"]] = None if row[DELETED] else row["n"]
                last = f"timestamptz '{row[UPDATED].isoformat()}'"
            is_over = is_over and not newer

        assert {key: n for key, n in seen.items() if n is not None} == {
            key: row["n"] for key, row in rows(backend, "items").items()
        }
        assert len(seen) == 60

    def test_an_untracked_table_has_nothing_to_publish(self, backend: Backend) -> None:
        self._only_with(backend, "read", "publish")
        if self.tracked:
            pytest.skip("a tracked table is published")
        push(backend, "items", insert("a", n=1))

        self._publish(backend)

        assert keys(read(backend, "items", published=True)) == ["a"]

    def _publish(self, backend: Any) -> None:
        backend.publish("items")

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

        def take(page: Page) -> None:
            for row in page.rows.to_pylist():
                held.pop(row["id"], None)
                if not row[DELETED]:
                    held[row["id"]] = row["n"]
            for row in page.leavers.to_pylist() if page.leavers is not None else []:
                held.pop(row["id"], None)

        for number, page in enumerate(pages(backend, "items", where=where, page_rows=10)):
            take(page)
            if number == 0:
                seen, unseen = page.rows["id"].to_pylist(), sorted({*known} - {*page.rows["id"].to_pylist()})
                push(
                    backend, "items",
                    delete(seen[0], known[seen[0]]), update(seen[1], known[seen[1]], n=50),
                    update(seen[2], known[seen[2]], n=500), delete(unseen[0], known[unseen[0]]),
                    update(unseen[1], known[unseen[1]], n=60), insert("new", n=70),
                )  # fmt: skip

        # Pages may have been read ahead; what was written behind them comes after their checkpoint.
        for later in pages(backend, "items", page.checkpoint, where=where, page_rows=10):
            take(later)
        there = {key: row["n"] for key, row in rows(backend, "items").items()}
        assert held == {key: n for key, n in there.items() if where is None or n < 100}

    def test_a_row_that_left_the_query_is_named(self, backend: Backend) -> None:
        self._only_tracked()
        self._only("names_leavers")
        leavers, matching = self._left(backend)

        assert {row["id"] for row in leavers} == {"a", "b", "c"}
        assert matching == 0

    def test_a_row_that_left_the_query_says_whether_another_query_holds_it(self, backend: Backend) -> None:
        self._only_tracked()
        self._only("names_leavers")
        self._only("knows_held")
        leavers, _ = self._left(backend)

        assert {row["id"]: row[HELD] for row in leavers} == {"a": True, "b": False, "c": False}

    def _left(self, backend: Backend) -> tuple[list[dict[str, Any]], int]:
        """The leavers of a pull for `n = 1`, and how many rows came with them."""
        push(backend, "items", insert("a", n=1), insert("b", n=1), insert("c", n=1), insert("d", n=2))
        known, checkpoint = pulled(backend, "items", where="n = 1")
        push(backend, "items", update("a", known["a"][VERSION], n=2), update("b", known["b"][VERSION], n=3),
             update("c", known["c"][VERSION], n=None))  # fmt: skip
        found = list(pages(backend, "items", checkpoint, where="n = 1", others=["n = 2", "n = 5"]))
        leavers = [row for page in found if page.leavers is not None for row in page.leavers.to_pylist()]
        return leavers, sum(page.rows.num_rows for page in found)

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

        assert [(o["deleted"], o["r_n"]) for o in outcomes] == [(False, 2), (True, None)]
        assert {key: row["n"] for key, row in rows(backend, "items").items()} == {"a": 2}

    def test_a_repeated_request_is_known_after_others_came_too(self, backend: Backend) -> None:
        self._only_tracked()
        self._only("remembers_operations")
        first, late = insert("a", n=1), insert("b", n=1)
        push(backend, "items", first, late)
        known = versions(backend, "items")
        push(backend, "items", update("a", known["a"], n=2), delete("b", known["b"]))

        assert statuses(backend, "items", first, late) == ["accepted"] * 2

    def test_a_row_carries_the_operations_that_wrote_it_last(self, backend: Backend) -> None:
        self._only_tracked()
        self._only("remembers_operations")
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

        assert [o["status"] for o in outcomes] == ["accepted", "rejected", "rejected", "rejected", "accepted"]
        assert all(o["message"] for o in outcomes if o["status"] == "rejected")
        assert sorted(rows(backend, "children")) == [1, 5]

    def test_a_rejection_says_why_by_a_code_and_in_which_column(self, backend: Backend) -> None:
        self._only("gives_codes")
        push(backend, "parents", insert(1, code="x"))

        outcomes = push(
            backend, "children",
            insert(2, parent=9, name="no parent"), insert(3, parent=1, name=None), insert(4, name="debt", amount=-1),
        )  # fmt: skip
        outcomes += push(backend, "parents", insert(2, code="x"))

        assert [o["code"] for o in outcomes] == ["reference", "not null", "check", "unique"]
        assert outcomes[1]["column"] == "name"

    def test_a_unique_value_that_is_taken_is_rejected(self, backend: Backend) -> None:
        outcomes = push(backend, "parents", insert(1, code="x"), insert(2, code="x"), insert(3, code="y"))

        assert [o["status"] for o in outcomes] == ["accepted", "rejected", "accepted"]
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
        size = self.large
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
