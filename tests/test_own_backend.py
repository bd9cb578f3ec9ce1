"""A back end of one's own: three methods over a dict are enough for the whole journey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest

import syncframe as sf

COLUMNS = {"id": "VARCHAR", "text": "VARCHAR", "n": "BIGINT"}


class Notes:
    """A table of notes in memory: key -> (version, row or None, id of the operation that wrote it last)."""

    promises = sf.Promises()

    def __init__(self) -> None:
        self.held: dict[str, tuple[int, dict[str, Any] | None, str]] = {}

    def schema(self, table: str) -> sf.Schema:
        if table != "notes":
            raise sf.BackendError(f"no table {table!r}", status=404)
        return sf.Schema.of(COLUMNS)

    def pull(
        self, table: str, query: sf.Query, since: sf.Checkpoint | None, others: Sequence[sf.Query] = ()
    ) -> Iterator[sf.Page]:
        after = int(since or 0)
        changed = sorted((held[0], key) for key, held in self.held.items() if held[0] > after)
        yield sf.Page(
            page([(key, *self.held[key]) for _, key in changed]), checkpoint=sf.Checkpoint(max([after, *dict(changed)]))
        )

    def push(self, batch: sf.Operations) -> Iterator[sf.Outcomes]:
        yield sf.Outcomes.of(batch, [self.apply(operation) for operation in batch])

    def apply(self, operation: dict[str, Any]) -> dict[str, Any]:
        key = operation["k_id"]
        version, row, writer = self.held.get(key, (None, None, None))
        status = "accepted"
        if writer != operation["operation_id"]:
            if operation["base_version"] != (None if version is None else str(version)):
                status = "conflicted"
            else:
                cells = {name: operation[f"l_{name}"] for name in operation["given"]}
                row = None if operation["kind"] == "delete" else {"text": None, "n": None, **(row or {}), **cells}
                version = 1 + max((held[0] for held in self.held.values()), default=0)
                self.held[key] = (version, row, operation["operation_id"])
        stored = {f"r_{name}": value for name, value in (row or {}).items()}
        return {
            "operation_id": operation["operation_id"],
            "status": status,
            "version": str(version),
            "deleted": row is None,
            **stored,
        }


def page(held: list[tuple[str, int, dict[str, Any] | None, str]]) -> pa.Table:
    types = {"id": pa.string(), "text": pa.string(), "n": pa.int64()}
    types |= {"_syncframe_version": pa.string(), "_syncframe_deleted": pa.bool_(), "_syncframe_operation": pa.string()}
    system = [
        {"_syncframe_version": str(v), "_syncframe_deleted": r is None, "_syncframe_operation": o}
        for _, v, r, o in held
    ]
    rows = [{"id": key, **(row or {}), **more} for (key, _, row, _), more in zip(held, system, strict=True)]
    return pa.Table.from_pylist(rows, schema=pa.schema(types))


@pytest.fixture
def two() -> tuple[sf.SyncTable, sf.SyncTable, sf.SyncContext, sf.SyncContext]:
    notes = Notes()
    mine, theirs = sf.connect(notes, store=":memory:"), sf.connect(notes, store=":memory:")
    mine["notes"].pull(query_id="all")
    theirs["notes"].pull(query_id="all")
    return mine["notes"], theirs["notes"], mine, theirs


def test_it_is_a_back_end():
    assert isinstance(Notes(), sf.Backend)


def test_rows_travel_from_one_store_to_another(two):
    mine, theirs, context, _ = two
    mine.insert([{"id": "a", "text": "x"}, {"id": "b", "n": 3}])

    pushed, pulled = context.push(), theirs.pull(query_id="all")

    assert (pushed.counts["accepted"], pulled.inserted) == (2, 2)
    assert theirs.get("b") == {"id": "b", "text": None, "n": 3}


def test_a_row_changed_by_both_is_a_conflict_that_is_settled_by_one_word(two):
    mine, theirs, context, other = two
    mine.insert({"id": "a", "text": "x"})
    context.push()
    theirs.pull(query_id="all")
    mine.update("a", text="y")
    theirs.update("a", text="z")
    context.push()

    first = other.push()
    other.conflicts.keep_mine()
    second = other.push()
    mine.pull(query_id="all")

    assert (first.counts["conflicts"], second.ok) == (1, True)
    assert mine.get("a") == {"id": "a", "text": "z", "n": None}


def test_a_deleted_row_goes_in_both(two):
    mine, theirs, context, _ = two
    mine.insert({"id": "a"})
    context.push()
    theirs.pull(query_id="all")
    mine.delete("a")
    context.push()

    pulled = theirs.pull(query_id="all")

    assert (pulled.deleted, len(theirs), len(mine)) == (1, 0, 0)
