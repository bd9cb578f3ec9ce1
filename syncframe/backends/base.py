"""What a back end is made of: two verbs, and Arrow tables between the rooms.

A page of rows, a batch of operations and its outcomes travel as Arrow tables, so that 100,000
rows are a few statements on either side and no Python object each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from ..query import Query
from ..schema import PAGE_NAMES, Schema

CREATED, UPDATED, VERSION, DELETED = PAGE_NAMES.values()
OPERATION, HELD = "_syncframe_operation", "_syncframe_held"
STAMP = pa.timestamp("us", "UTC")


class Checkpoint(str):
    """The opaque place after a page where the next pull starts."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Promises:
    """What a back end can promise; laws 5, 7 and 8 are held to that, and `status()` shows it."""

    sees_deletes: bool = True
    sees_late_commits: bool = True
    exact_types: bool = True
    atomic_push: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One batch of pulled rows.

    Parameters
    ----------
    rows
        The table's columns and `_syncframe_version` (text), `_syncframe_deleted` (bool: a tombstone, whose
        value columns do not count) and `_syncframe_operation` (text or NULL: the ids of the operations
        that wrote the row last, newest first, separated by blanks; before them a dash if the last write
        was no push).  `_syncframe_created` and
        `_syncframe_updated` (timestamp[us, UTC]) may be there.
    leavers
        Keys of rows that changed and do not match the query: the key's columns and, where the back end
        knows, `_syncframe_held` (bool: whether another of the stored queries still matches it).
    checkpoint
        Covers all before it.  None: this table can only be read in full.
    """

    rows: pa.Table
    leavers: pa.Table | None = None
    checkpoint: Checkpoint | None = None
    requests: int = 1
    bytes: int = 0
    held_back_s: float | None = None


class _Rows:
    """An Arrow table with a name for what it holds; reads like one."""

    rows: pa.Table

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.rows.to_batches(max_chunksize=1_000):
            yield from batch.to_pylist()

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        return self.rows[name]

    def to_pylist(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.rows.to_pylist()
        return rows

    @property
    def num_rows(self) -> int:
        return len(self)

    @property
    def column_names(self) -> list[str]:
        return list(self.rows.column_names)


@dataclass(frozen=True, slots=True, repr=False)
class Operations(_Rows):
    """A batch of operations of one table to push, in sequence, at most one for each key.

    `rows` has `operation_id` (text), `kind` ("insert", "update", "delete"), `base_version` (text; None for
    an insert where no tombstone is known), `given` (list of text: the columns to write: of an insert those
    that were given, of an update those that changed, of a delete none), the key as `k_<name>` and the
    values as `l_<name>`, in the types of `schema`.
    """

    table: str
    schema: Schema
    rows: pa.Table


@dataclass(frozen=True, slots=True, repr=False)
class Outcomes(_Rows):
    """What became of pushed operations.

    `rows` has `operation_id`, `status` ("accepted", "conflicted", "rejected"), `code` (for rejected:
    "reference", "unique", "not null", "check", "type" or the back end's own), `column`, `message`, `version`,
    `deleted` (whether the row is not there now) and the row as `r_<name>` for each value column.  Of an
    accepted operation the row is what the back end stored, of a conflicted one what is there now.
    `operation` (as in a page: the ids of the operations that wrote the row last, newest first), `created` and
    `updated` (timestamp[us, UTC]) may be there.
    """

    rows: pa.Table

    @classmethod
    def of(cls, batch: Operations, outcomes: Iterable[Mapping[str, Any]]) -> Outcomes:
        """Make outcomes from mappings, for a back end that works row by row; what is missing is NULL."""
        return cls(pa.Table.from_pylist([dict(o) for o in outcomes], schema=outcome_schema(batch.schema)))


def outcome_schema(schema: Schema) -> pa.Schema:
    """The columns of Outcomes for a table."""
    text = ["operation_id", "status", "code", "column", "message", "version"]
    return pa.schema(
        [pa.field(name, pa.string()) for name in text]
        + [pa.field("deleted", pa.bool_()), pa.field("operation", pa.string())]
        + [pa.field("created", STAMP), pa.field("updated", STAMP)]
        + [pa.field(f"r_{c.name}", c.arrow) for c in schema.value_columns]
    )


def operation_schema(schema: Schema) -> pa.Schema:
    """The columns of Operations for a table."""
    text = ["operation_id", "kind", "base_version"]
    return pa.schema(
        [pa.field(name, pa.string()) for name in text]
        + [pa.field("given", pa.list_(pa.string()))]
        + [pa.field(f"k_{c.name}", c.arrow) for c in schema.key_columns]
        + [pa.field(f"l_{c.name}", c.arrow) for c in schema.value_columns]
    )


def page_schema(schema: Schema) -> pa.Schema:
    """The columns of Page.rows for a table."""
    return pa.schema(
        [pa.field(c.name, c.arrow) for c in schema.columns]
        + [pa.field(VERSION, pa.string()), pa.field(DELETED, pa.bool_()), pa.field(OPERATION, pa.string())]
        + [pa.field(CREATED, STAMP), pa.field(UPDATED, STAMP)]
    )


@runtime_checkable
class Backend(Protocol):
    """The far side of a sync: where rows are pulled from and operations pushed to.

    A back end keeps no state about clients.  It promises: (1) a page's checkpoint covers all rows before
    it; (2) a deleted row arrives as a tombstone, a row that left the query as a leaver; (3) an operation is
    applied only if the back end still holds the version of its base, and an insert not where a tombstone of
    its key stands unless it carries that tombstone's version; (4) pushing an operation twice does no harm:
    it is recognised by its id.  The contract suite (`syncframe.testing`) holds it to that.

    `schema`, `pull` and `push` are enough.  Asked for where they are there: `identity()`, a text that names the
    data and not the way to it; `aliases()`, such texts that it bore before; `tables()`; `rows(table, keys)`, rows by
    key as in a page, tombstones included, with their last values; `read(table, read)` and `count(table, read)`, what
    a `Read` asks for, rows as in a page, and how many; `publish(table)`, which makes the `updatedAt` of all that was
    committed final, unique and rising in the order of commits; `push_atomic(batches)`, all or nothing; `close()`.
    """

    @property
    def promises(self) -> Promises:
        """What it can promise."""

    def schema(self, table: str) -> Schema:
        """The table's columns and key; BackendError with status 404 if there is none of that name."""

    def pull(self, table: str, query: Query, since: Checkpoint | None, others: Sequence[Query] = ()) -> Iterator[Page]:
        """Yield what changed after `since`, oldest change first; everything that is there if None."""

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        """Apply `batch` in order and yield the outcomes, a chunk at a time, as soon as they are known."""
