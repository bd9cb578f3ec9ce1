"""What becomes of each pushed operation, decided for a whole batch at once; pure.

A back end reads the rows of a batch's keys, asks `verdicts` which operations to apply, applies them
in `runs`, reads the rows again and says with `outcomes` what came of it.  So an answer shows what is
stored, with the back end's own defaults, triggers and rounding, and never what was sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..operation import Refusal
from ..schema import Column
from .base import CREATED, OPERATION, UPDATED, VERSION, Operations, Outcomes, outcome_schema

THERE, PLACE = "_syncframe_there", "_syncframe_stamp"
STATE = (
    Column(THERE, "BOOLEAN"),  # whether the row is there
    Column(PLACE, "BIGINT"),  # its place in the change log
    Column(VERSION, "VARCHAR"),  # of a row that is not there: its tombstone's
    Column(OPERATION, "VARCHAR"),
    Column(CREATED, "TIMESTAMPTZ"),
    Column(UPDATED, "TIMESTAMPTZ"),
)
OPERATIONS_KEPT = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Operations that stand side by side and are one statement: the same kind, the same columns given."""

    kind: str
    given: tuple[str, ...]
    positions: list[int]


def verdicts(batch: Operations, now: pa.Table, *, tracked: bool) -> pa.Array:
    """Return "apply", "accepted" or "conflicted" for each operation.

    Parameters
    ----------
    batch
        The operations.
    now
        What is there: STATE and the value columns, one row for each operation, in the same order.
    tracked
        Whether the back end keeps the ids of the operations that wrote a row.  Where it does not, a
        row that equals what was sent is taken for the effect of the same request, sent before.
    """
    kind, there, version = batch["kind"], now[THERE], now[VERSION]
    inserts, deletes = pc.equal(kind, "insert"), pc.equal(kind, "delete")
    same_version = pc.fill_null(pc.equal(batch["base_version"], version), False)
    # A late insert carries no version, so that it cannot bring back what was deleted since.
    may_insert = pc.and_(pc.invert(there), pc.or_(pc.is_null(version), same_version))
    may_apply = pc.if_else(inserts, may_insert, pc.and_(there, same_version))
    if tracked:
        done = _was_applied(batch["operation_id"], now[OPERATION])
    else:
        done = pc.and_(pc.and_(there, pc.invert(deletes)), _equals_local(batch, now))
    done = pc.or_(done, pc.and_(deletes, pc.invert(there)))
    return _flat(pc.if_else(done, "accepted", pc.if_else(may_apply, "apply", "conflicted")))


def runs(batch: Operations, positions: list[int]) -> Iterator[Run]:
    """Split the operations at `positions` into runs; their order is the batch's.

    Order matters: a row that gives up a unique value is staged before the row that takes it.
    """
    if not positions:
        return
    chosen = batch.rows.take(positions)
    shape = pc.binary_join_element_wise(chosen["kind"], pc.binary_join(_given(chosen), "\x1f"), "\x1f")
    codes = shape.combine_chunks().dictionary_encode().indices.to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], len(positions)], strict=True):
        given = tuple(name for name in chosen["given"][start].as_py() or () if name not in batch.schema.key)
        yield Run(chosen["kind"][start].as_py(), given, positions[start:end])


def outcomes(batch: Operations, verdict: pa.Array, refusals: Mapping[int, Refusal], now: pa.Table) -> Outcomes:
    """Return the outcomes, in order.

    Parameters
    ----------
    verdict
        What `verdicts` said.
    refusals
        Why the back end refused to apply operations, by their place in the batch.
    now
        What is there after the batch was applied, in the same form.
    """
    refused = [refusals.get(position) for position in range(len(batch))]
    # A row that was written and is not there went with another one, or a trigger did not let it in.
    gone = pc.and_(pc.not_equal(batch["kind"], "delete"), pc.invert(now[THERE]))
    applied = pc.equal(verdict, "apply")
    status = pc.if_else(applied, pc.if_else(gone, "conflicted", "accepted"), verdict)
    columns = {
        "operation_id": batch["operation_id"],
        "status": pc.if_else(pa.array([r is not None for r in refused]), "rejected", status),
        "code": pa.array([r.code if r else None for r in refused], pa.string()),
        "column": pa.array([r.column if r else None for r in refused], pa.string()),
        "message": pa.array([r.message if r else None for r in refused], pa.string()),
        "version": now[VERSION],
        "deleted": pc.invert(now[THERE]),
        "operation": now[OPERATION],
        "created": now[CREATED],
        "updated": now[UPDATED],
    }
    columns |= {f"r_{name}": now[name] for name in batch.schema.values if name in now.column_names}
    return Outcomes(conformed(pa.table(columns), outcome_schema(batch.schema)))


def rejected(batch: Operations, refusal: Refusal, now: pa.Table) -> Outcomes:
    """Return outcomes that reject every operation for one reason."""
    verdict = pa.array(["conflicted"] * len(batch))
    return outcomes(batch, verdict, dict.fromkeys(range(len(batch)), refusal), now)


def with_operation(operation_id: pa.ChunkedArray, earlier: pa.ChunkedArray) -> pa.Array:
    """Prepend each operation's id to those that wrote the row before, and keep the newest few.

    The dash of a write that was no push goes: it says that one came last.
    """
    pushed = pc.replace_substring_regex(earlier.cast(pa.string()), "^- ", "")
    joined = pc.binary_join_element_wise(operation_id.cast(pa.string()), pushed, " ", null_handling="skip")
    return pc.binary_join(pc.list_slice(_flat(pc.split_pattern(joined, " ")), 0, OPERATIONS_KEPT), " ")


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema` in its types; those that `table` has not are NULL."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _was_applied(operation_id: pa.ChunkedArray, earlier: pa.ChunkedArray) -> pa.Array:
    """Whether each operation's id is among those that wrote its row."""
    ids = pc.split_pattern(_flat(earlier).cast(pa.string()), " ")
    parents = pc.list_parent_indices(ids)
    found = pc.equal(pc.list_flatten(ids), _flat(operation_id).cast(pa.string()).take(parents))
    return _mask(len(operation_id), parents.filter(found))


def _equals_local(batch: Operations, now: pa.Table) -> pa.Array:
    """Whether each row that is there has the values that its operation gives, in the columns given."""
    given = _given(batch.rows)
    parents, names = pc.list_parent_indices(given), pc.list_flatten(given)
    equal = pa.array(np.ones(len(batch), dtype=bool))
    for name in set(pc.unique(names).to_pylist()) - {*batch.schema.key}:
        is_given = _mask(len(batch), parents.filter(pc.equal(names, name)))
        same = _same(batch[f"l_{name}"], now[name]) if name in now.column_names else pa.scalar(False)
        equal = pc.and_(equal, pc.or_(pc.invert(is_given), same))
    return equal


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    """IS NOT DISTINCT FROM."""
    both_null = pc.and_(pc.is_null(left, nan_is_null=True), pc.is_null(right, nan_is_null=True))
    return pc.or_(both_null, pc.fill_null(pc.equal(left, right.cast(left.type)), False))


def _given(rows: pa.Table) -> pa.Array:
    empty = pa.scalar([], pa.list_(pa.string()))
    return pc.fill_null(_flat(rows["given"]).cast(pa.list_(pa.string())), empty)


def _mask(length: int, indices: pa.Array) -> pa.Array:
    mask = np.zeros(length, dtype=bool)
    mask[indices.to_numpy()] = True
    return pa.array(mask)


def _flat(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
