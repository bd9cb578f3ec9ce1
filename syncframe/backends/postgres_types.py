"""How PostgreSQL holds each column: by a type of ours, or as the text that PostgreSQL itself writes and reads.

A value is asked for as SQL that the driver brings exactly, and written by a cast that loses nothing: a type's
length is left to the table's own column, for a cast to `varchar(5)` cuts what an assignment refuses.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SchemaError
from ..schema import Column, Schema, type_name
from ..texts import DAYS, in_years

# What a numeric without precision is taken for: none of its values may have more digits.
_ANY_NUMERIC = "DECIMAL(38,9)"
DIGITS_MAX = 38
_PLAIN = {
    "bool": "BOOLEAN",
    "int2": "SMALLINT",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "text": "VARCHAR",
    "varchar": "VARCHAR",
    "bytea": "BLOB",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMPTZ",
}
_AS_TEXT = {"uuid": "UUID", "json": "JSON", "jsonb": "JSON"}
MIDNIGHT_US = 86_400_000_000
_BOUNDS = r"^\[-?\d+:"  # an array whose first place is not 1 is written with its bounds


@dataclass(frozen=True, slots=True)
class Held:
    """A column as PostgreSQL describes it.

    Parameters
    ----------
    base
        Its type without length or precision, of a domain the type beneath, as SQL.
    name
        The type's own name (`int4`, `numeric`, `_text`), by which it is known.
    kind
        "b" of a base type, "e" of an enum, "c" of a composite, "r" of a range, "a" of an array.
    precision
        Of a numeric that has one, its precision and scale.
    """

    base: str
    name: str
    kind: str
    precision: tuple[int, int] | None = None
    labels: tuple[str, ...] = ()
    collation: str = ""

    def column(self, name: str, given: object = None, *, nullable: bool = True) -> Column:
        """The column that this makes, or the type `given` in its stead.

        Raises
        ------
        SchemaError
            If its numbers have more digits than can be kept.
        """
        if given is not None:
            kind, labels = type_name(given)
            return Column(name, kind, nullable, labels, _held_as(kind))
        if self.name == "numeric":
            return Column(name, self._numeric(name), nullable)
        if self.kind == "e":
            return Column(name, "ENUM", nullable, self.labels)
        if self.kind in "ac":
            return Column(name, "JSON", nullable)
        if self.name == "time":
            return Column(name, "TIME", nullable)
        kind = _PLAIN.get(self.name) or _AS_TEXT.get(self.name, "VARCHAR")
        return Column(name, kind, nullable, held_as=_held_as(kind))

    def _numeric(self, name: str) -> str:
        if self.precision is None:
            return _ANY_NUMERIC
        precision, scale = self.precision
        if not 0 <= scale <= precision <= DIGITS_MAX:
            raise SchemaError(f"column {name!r} is numeric({precision},{scale}), of which at most 38 digits are kept")
        return f"DECIMAL({precision},{scale})"

    def is_plain(self, column: Column) -> bool:
        """Whether the driver brings the values as they are."""
        return _PLAIN.get(self.name) == column.type

    def read(self, sql: str, column: Column) -> str:
        """SQL of the column as SQL that the driver brings exactly."""
        if self.is_plain(column):
            return sql
        if self.name == "time" and column.family == "time":
            # The driver brings 24:00 as 00:00.
            return f"cast(extract(epoch from {sql}) * 1000000 as bigint)"
        if self.kind == "a" and column.kind == "JSON":
            has_bounds = f"array_lower({sql}, 1) <> 1"
            return f"case when {has_bounds} then {sql}::text else to_json({sql})::text end"
        if self.kind == "c" and column.kind == "JSON":
            return f"to_json({sql})::text"
        return f"({sql})::text"

    def as_text(self, sql: str, column: Column) -> str:
        """SQL of the column for a condition, which sees text where the column's family is text."""
        return sql if self.is_plain(column) or column.family != "text" else self.read(sql, column)

    def write(self, sql: str, column: Column) -> str:
        """SQL of a value that was loaded, in the column's own type."""
        if self.name == "numeric" and self.precision is None:
            return f"trim_scale(({sql})::numeric)"
        if self.kind in "ac" and column.kind == "JSON":
            return f"(select x from jsonb_to_record(jsonb_build_object('x', ({sql})::jsonb)) as r (x {self.base}))"
        return f"({sql})::{self.base}"


def _held_as(kind: str) -> str:
    return "no nul" if kind == "VARCHAR" else ""


def conformed(held: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """What the driver brought, in the type of `column`; ValueError if a value does not fit it exactly."""
    values = _converted(held, column)
    if column.family in DAYS and pc.all(in_years(values)).as_py() is False:
        raise ValueError("infinity, or beyond the years 1 to 9999")
    if column.kind == "JSON" and pc.any(pc.match_substring_regex(values, _BOUNDS)).as_py():
        raise ValueError("an array whose first place is not 1")
    return values


def _converted(held: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    if isinstance(held.type, pa.BaseExtensionType):
        held = pa.chunked_array([chunk.storage for chunk in held.chunks], held.type.storage_type)
    if column.family == "float":
        values = held.cast(column.arrow)
        return pc.if_else(pc.is_nan(values), None, values)
    if column.family == "time":
        if pc.any(pc.greater_equal(held, MIDNIGHT_US)).as_py():
            raise ValueError("24:00:00, which no clock shows")
        return held.cast(column.arrow)
    if column.family == "decimal" and pa.types.is_string(held.type):
        return _decimals(held, column)
    return held.cast(column.arrow)


def _decimals(texts: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """Arrow rounds a text that has more places than the type."""
    precision, scale = column.precision
    places = pc.utf8_length(pc.replace_substring_regex(texts, r"^[^.]*\.?|0+$", ""))
    if (pc.max(places).as_py() or 0) > scale:
        raise ValueError(f"a number with more than {scale} digits after the point")
    digits = pc.utf8_length(pc.replace_substring_regex(texts, r"^-?0*|\..*$", ""))
    if (pc.max(digits).as_py() or 0) > precision - scale:
        raise ValueError(f"a number with more than {precision - scale} digits before the point, or none")
    return texts.cast(column.arrow)


def key_problem(schema: Schema, held: dict[str, Held]) -> str | None:
    """Why a key cannot tell rows apart as this machine does."""
    for column in schema.key_columns:
        if held[column.name].name == "citext":
            return f"its key column {column.name!r} is citext, in which keys that differ in case are one"
        if held[column.name].kind in "ac" or held[column.name].name in ("json", "jsonb"):
            return f"its key column {column.name!r} is {held[column.name].base}"
    return None
