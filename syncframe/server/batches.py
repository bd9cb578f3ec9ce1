"""Batches of operations from strangers: checked as a whole before any of them is applied, and as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..backends.base import STAMP, Operations, Outcomes, operation_schema
from ..schema import Column, Schema, shown
from ..wire import UPDATED_AT, Wire, cells_in, cells_out
from .arrow import fitted
from .exchange import Refusal

KINDS = ("insert", "update", "delete")
# Ids of operations are kept side by side with blanks between them, and a dash among them has a meaning.
_ID = re.compile(r"[A-Za-z0-9][!-~]{0,127}")
_STAMP = Column(UPDATED_AT, "TIMESTAMPTZ")
_TEXTS = ("operation_id", "status", "code", "column", "message", "version", "deleted", "operation")


def checked(table: str, schema: Schema, rows: pa.Table, rows_max: int) -> Operations:
    """Return `rows` as a batch; a Refusal names what no client of good faith sends."""
    if len(rows) > rows_max:
        raise Refusal(413, f"the batch has {len(rows)} operations, and may have {rows_max}", hint="send parts of it")
    sent = {name[2:] for name in rows.column_names if name.startswith("l_")}
    rows = fitted(_completed(rows, schema), operation_schema(schema))
    ids = rows["operation_id"]
    if ids.null_count or not all(_ID.fullmatch(id_) for id_ in ids.to_pylist()):
        raise _wrong("operation_id", "1 to 128 printable characters, the first a letter or digit")
    if len(pc.unique(ids)) != len(ids):
        raise _wrong("operation_id", "unique in a batch")
    if not set(pc.unique(rows["kind"]).to_pylist()) <= {*KINDS}:
        raise _wrong("kind", "one of " + ", ".join(KINDS))
    named = rows["given"]
    names = set(pc.unique(pc.list_flatten(named.combine_chunks())).to_pylist())
    if named.null_count:
        raise _wrong("given", f"names of columns other than the key's: {shown(schema.values)}")
    if unknown := sorted(str(name) for name in names - {*schema.values}):
        raise Refusal(
            400,
            f"table {table!r} has no column {shown(unknown)} to write: it has {shown(schema.values)}",
            hint="if the table was altered: connect anew and pull(push_first=False), which keeps what is pending",
            kind="SchemaError",
            column=unknown[0][:200],
        )
    if lacking := sorted(names - sent):
        raise _wrong("given", f"names of columns whose values are in the stream, and l_{lacking[0]} is not")
    for name in schema.key:
        if rows[f"k_{name}"].null_count:
            raise _wrong(f"k_{name}", "never null: a key is not", "KeyColumnError")
    keys = rows.select([f"k_{name}" for name in schema.key])
    if len(keys.group_by(keys.column_names).aggregate([])) != len(keys):
        raise _wrong("the key", "unique in a batch: one operation for each row", "KeyColumnError")
    _check_times(schema, rows)
    return Operations(table, schema, rows)


def _completed(rows: pa.Table, schema: Schema) -> pa.Table:
    """The columns of values that the table has: a client may know fewer, or some that are gone."""
    known = {f"l_{name}" for name in schema.values}
    rows = rows.drop_columns([name for name in rows.column_names if name.startswith("l_") and name not in known])
    for name in sorted(known.difference(rows.column_names)):
        rows = rows.append_column(name, pa.nulls(len(rows), schema[name[2:]].arrow))
    return rows


# What Python and ISO 8601 have, year 1 to 9999, in days and microseconds since 1970.
_DAYS = (-719_162, 2_932_896)
_MICROSECONDS = (_DAYS[0] * 86_400_000_000, (_DAYS[1] + 1) * 86_400_000_000 - 1)


def _check_times(schema: Schema, rows: pa.Table) -> None:
    """Arrow has days and times of years that nothing else has."""
    for name in rows.column_names:
        if name[:2] not in ("k_", "l_"):
            continue
        family = schema[name[2:]].family
        if family == "date":
            least, most = _bounds(rows[name].cast(pa.int32()))
            is_right = least >= _DAYS[0] and most <= _DAYS[1]
        elif family in ("timestamp", "instant"):
            least, most = _bounds(rows[name].cast(pa.int64()))
            is_right = least >= _MICROSECONDS[0] and most <= _MICROSECONDS[1]
        else:
            continue
        if not is_right:
            raise _wrong(name, "of the years 1 to 9999")


def _bounds(values: pa.ChunkedArray) -> tuple[int, int]:
    found = pc.min_max(values).as_py()
    return found["min"] or 0, found["max"] or 0


def _wrong(name: str, words: str, kind: str = "SchemaError") -> Refusal:
    return Refusal(400, f"{name} should be {words}", kind=kind)


# JSON


def from_json(wire: Wire, operations: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Operations in JSON as a table of `operation_schema`.

    An operation has `operation_id`, `kind`, `base_version`, `key` (an object of the key's columns, or the
    text id), `values` (an object) and, if it is not all of them, `given` (the columns to write).
    """
    rows = [_row(wire, operation) for operation in operations]
    schema = operation_schema(wire.schema)
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise Refusal(400, f"an operation has what does not fit: {str(error)[:200]}", kind="SchemaError") from error


_MEMBERS = {"operation_id", "kind", "base_version", "given", "key", "values"}


def _row(wire: Wire, operation: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted({*operation} - _MEMBERS)
    if unknown:
        raise Refusal(400, f"an operation has {unknown[0][:100]!r}, and may have {', '.join(sorted(_MEMBERS))}")
    values = operation.get("values") or {}
    if not isinstance(values, dict):
        raise _wrong("values", "an object")
    key = _key(wire, operation.get("key"))
    row = {name: operation.get(name) for name in ("operation_id", "kind", "base_version")}
    row["given"] = operation["given"] if operation.get("given") is not None else list(values)
    row |= {f"k_{name}": part for name, part in zip(wire.schema.key, key, strict=True)}
    for name, cell in values.items():
        if name not in wire.schema.values:
            raise Refusal(400, f"column {name[:200]!r} is not among the values of the table", kind="SchemaError")
        row[f"l_{name}"] = _cell(cell, wire.schema[name])
    return row


def _key(wire: Wire, given: Any) -> tuple[Any, ...]:
    if isinstance(given, str):
        return wire.key_of(given)
    if not isinstance(given, dict) or {*given} != {*wire.schema.key}:
        raise _wrong("key", f"an object with {shown(wire.schema.key)}, or the text id", "KeyColumnError")
    return tuple(_cell(given[name], wire.schema[name]) for name in wire.schema.key)


def _cell(cell: Any, column: Column) -> Any:
    try:
        return cells_in([cell], column)[0].as_py()
    except ValueError as error:
        raise Refusal(400, f"column {column.name!r} is {column.type}: {error}", kind="SchemaError") from None


def to_json(wire: Wire, outcomes: Outcomes) -> list[dict[str, Any]]:
    """Outcomes as JSON; `row` has the value columns of a row that is there."""
    rows = outcomes.rows
    columns: dict[str, Sequence[Any]] = {name: rows[name].to_pylist() for name in _TEXTS if name in rows.column_names}
    for name, shown_as in (("created", "createdAt"), ("updated", "updatedAt")):
        if name in rows.column_names:
            columns[shown_as] = cells_out(rows[name].cast(STAMP), _STAMP)
    values = {
        c.name: cells_out(rows[f"r_{c.name}"], c)
        for c in wire.schema.value_columns
        if f"r_{c.name}" in rows.column_names
    }
    told = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    for place, outcome in enumerate(told):
        is_there = outcome.get("deleted") is not True
        outcome["row"] = {name: cells[place] for name, cells in values.items()} if is_there else None
    return told
