"""The schema of a table whose service says nothing of it: from its first page of rows, and as far as it was given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ...errors import SchemaError
from ...schema import Column, Schema, shown
from ...wire import ID, SYSTEM, cells_in

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?Z", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LARGE = re.compile(r"-?[1-9]\d{15,37}", re.ASCII)
_INT64 = 2**63
_HELD_AS = {"int": "int53", "float": "finite", "decimal": "numeric", "instant": "ms", "timestamp": "ms", "time": "ms"}
_WIDE = ("BIGINT", "UBIGINT")


def given_schema(table: str, given: object) -> Schema:
    """The schema that was given for a table; the key is `id` unless a Schema says otherwise."""
    if isinstance(given, Schema):
        return as_held(given)
    if isinstance(given, Mapping):
        given = {name: type_ for name, type_ in given.items() if name not in SYSTEM}
        return as_held(Schema.of(given if ID in given else {ID: "VARCHAR", **given}, ID))
    if isinstance(given, pa.Schema):
        fields = [field for field in given if field.name not in SYSTEM]
        has_id = any(field.name == ID for field in fields)
        return as_held(Schema.of(pa.schema(fields if has_id else [pa.field(ID, pa.string()), *fields]), ID))
    raise SchemaError(
        f"the schema given for table {table!r} is a {type(given).__name__}",
        hint="a mapping column -> type, a pyarrow.Schema or a Schema",
    )


def inferred_schema(
    table: str, objects: Sequence[Mapping[str, Any]], given: Schema | None
) -> tuple[Schema, frozenset[str]]:
    """The schema that rows have, and the columns whose type was a guess because they hold nothing.

    Raises
    ------
    SchemaError
        If a column has values of several kinds, or a type is given for one that the rows do not have.
    """
    names = dict.fromkeys(name for found in objects for name in found if name not in (ID, *SYSTEM))
    told = {} if given is None else {column.name: column for column in given.columns}
    if objects and (unknown := [name for name in told if name != ID and name not in names]):
        raise SchemaError(
            f"table {table!r} has no column {shown(unknown)}, of which schema= gives the type: it has {shown(names)}",
            hint="check the spelling",
        )
    columns, guessed = [told.get(ID) or Column(ID, "VARCHAR", nullable=False)], set()
    for name in names or [name for name in told if name != ID]:
        if name in told:
            columns.append(told[name])
            continue
        cells = [cell for found in objects if (cell := found.get(name)) is not None]
        guessed |= set() if cells else {name}
        columns.append(Column(name, _type(table, name, cells) if cells else "VARCHAR"))
    return as_held(Schema(tuple(columns), (ID,))), frozenset(guessed)


def as_held(schema: Schema) -> Schema:
    """The same, with what a service keeps less of than the types do."""
    return Schema(tuple(replace(column, held_as=_held_as(column)) for column in schema.columns), schema.key)


def _held_as(column: Column) -> str:
    if column.family == "int" and column.kind not in _WIDE:
        return ""
    return _HELD_AS.get(column.family, "")


def is_instant(cell: object) -> bool:
    return isinstance(cell, str) and _INSTANT.fullmatch(cell) is not None


def _type(table: str, name: str, cells: Sequence[Any]) -> str:
    kinds = {_KINDS.get(type(cell), "JSON") for cell in cells}
    if kinds == {"int", "text"} and all(_LARGE.fullmatch(cell) for cell in cells if isinstance(cell, str)):
        # What a double does not hold goes over the wire as text.
        return _number([int(cell) for cell in cells])
    if kinds <= {"int", "float"}:
        return _number(cells)
    if len(kinds) > 1:
        examples = shown(
            next(cell for cell in cells if _KINDS.get(type(cell), "JSON") == kind) for kind in sorted(kinds)
        )
        raise SchemaError(
            f"column {name!r} of table {table!r} has values of several kinds: {examples}",
            hint=f'give its type: connect(..., schema={{"{table}": {{"{name}": ...}}}})',
        )
    kind = kinds.pop()
    return _text(name, cells) if kind == "text" else kind


_KINDS = {bool: "BOOLEAN", int: "int", float: "float", str: "text"}


def _number(cells: Sequence[Any]) -> str:
    if any(isinstance(cell, float) and not cell.is_integer() for cell in cells):
        return "DOUBLE"
    if all(-_INT64 <= cell < _INT64 for cell in cells):
        return "BIGINT"
    return "DOUBLE" if all(_is_double(cell) for cell in cells) else "DECIMAL(38,0)"


def _is_double(cell: int | float) -> bool:
    try:
        return int(float(cell)) == cell
    except OverflowError:
        return False


def _text(name: str, cells: Sequence[str]) -> str:
    for form, type_ in ((_INSTANT, "TIMESTAMPTZ"), (_DATE, "DATE")):
        if all(form.fullmatch(cell) for cell in cells) and _are(cells, Column(name, type_)):
            return type_
    return "VARCHAR"


def _are(cells: Sequence[str], column: Column) -> bool:
    try:
        cells_in(cells, column)
    except ValueError:
        return False
    return True
