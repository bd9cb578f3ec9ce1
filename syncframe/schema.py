"""What a table looks like: its key, its columns, and the one table of types.

A type is given by the schema and never by the values in a column, so that a frame has the same
dtypes with and without NULLs, empty or full.  Types bear DuckDB's names; TYPES says what each is
in Arrow, in the local file, in pandas, and in SQLite.
"""

from __future__ import annotations

import datetime
import decimal
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from . import words
from .errors import KeyColumnError, SchemaError

SYSTEM_COLUMNS = ("createdAt", "updatedAt", "version", "deleted")
# What a page of rows calls them: a table of one's own may have columns of the others' names.
PAGE_NAMES = dict(
    zip(
        SYSTEM_COLUMNS,
        ("_syncframe_created", "_syncframe_updated", "_syncframe_version", "_syncframe_deleted"),
        strict=True,
    )
)
RESERVED_PREFIX = "_syncframe"
NAMES_SHOWN = 5
COLUMNS_SHOWN = 100
_SHOWN = ("column", "type", "null", "key")


@dataclass(frozen=True, slots=True)
class Type:
    """One row of the type table."""

    family: str  # values never cross families but as `frame` says
    arrow: pa.DataType
    store: str  # the type in the local DuckDB file
    pandas: str  # a pandas dtype by name; "arrow": the Arrow type itself; "category": from the labels
    sqlite: str  # how SQLite keeps it: "integer", "real", "text" or "blob"


TYPES: dict[str, Type] = {
    "BOOLEAN": Type("bool", pa.bool_(), "BOOLEAN", "boolean", "integer"),
    "TINYINT": Type("int", pa.int8(), "TINYINT", "Int8", "integer"),
    "SMALLINT": Type("int", pa.int16(), "SMALLINT", "Int16", "integer"),
    "INTEGER": Type("int", pa.int32(), "INTEGER", "Int32", "integer"),
    "BIGINT": Type("int", pa.int64(), "BIGINT", "Int64", "integer"),
    "UTINYINT": Type("int", pa.uint8(), "UTINYINT", "UInt8", "integer"),
    "USMALLINT": Type("int", pa.uint16(), "USMALLINT", "UInt16", "integer"),
    "UINTEGER": Type("int", pa.uint32(), "UINTEGER", "UInt32", "integer"),
    "UBIGINT": Type("int", pa.uint64(), "UBIGINT", "UInt64", "integer"),
    "FLOAT": Type("float", pa.float32(), "FLOAT", "float32", "real"),
    "DOUBLE": Type("float", pa.float64(), "DOUBLE", "float64", "real"),
    "DECIMAL": Type("decimal", pa.decimal128(18, 3), "DECIMAL", "arrow", "text"),
    "VARCHAR": Type("text", pa.large_string(), "VARCHAR", "str", "text"),
    "UUID": Type("text", pa.large_string(), "VARCHAR", "str", "text"),
    "JSON": Type("text", pa.large_string(), "VARCHAR", "str", "text"),
    "ENUM": Type("text", pa.large_string(), "VARCHAR", "category", "text"),
    "BLOB": Type("bytes", pa.large_binary(), "BLOB", "arrow", "blob"),
    "DATE": Type("date", pa.date32(), "DATE", "arrow", "text"),
    "TIME": Type("time", pa.time64("us"), "TIME", "arrow", "text"),
    "TIMESTAMP": Type("timestamp", pa.timestamp("us"), "TIMESTAMP", "datetime64[us]", "text"),
    "TIMESTAMPTZ": Type("instant", pa.timestamp("us", "UTC"), "TIMESTAMPTZ", "datetime64[us, UTC]", "text"),
}

_ALIASES = {
    "BOOL": "BOOLEAN", "LOGICAL": "BOOLEAN",
    "INT1": "TINYINT", "INT2": "SMALLINT", "SHORT": "SMALLINT", "INT4": "INTEGER", "INT": "INTEGER",
    "SIGNED": "INTEGER", "INT8": "BIGINT", "LONG": "BIGINT",
    "FLOAT4": "FLOAT", "REAL": "FLOAT", "FLOAT8": "DOUBLE", "DOUBLE PRECISION": "DOUBLE",
    "NUMERIC": "DECIMAL", "TEXT": "VARCHAR", "STRING": "VARCHAR", "CHAR": "VARCHAR", "BPCHAR": "VARCHAR",
    "BYTEA": "BLOB", "BINARY": "BLOB", "VARBINARY": "BLOB",
    "DATETIME": "TIMESTAMP", "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
}  # fmt: skip

_ARROW_NAMES = {row.arrow: name for name, row in TYPES.items() if name not in ("UUID", "JSON", "ENUM", "DECIMAL")} | {
    pa.string(): "VARCHAR",
    pa.string_view(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.binary_view(): "BLOB",
    pa.uuid(): "UUID",
}

_PYTHON_NAMES: dict[Any, str] = {
    bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR", bytes: "BLOB", datetime.date: "DATE",
    datetime.time: "TIME", datetime.datetime: "TIMESTAMP", uuid.UUID: "UUID", decimal.Decimal: "DECIMAL(38,9)",
}  # fmt: skip

_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?", re.IGNORECASE)
_ENUM = re.compile(r"ENUM\s*\((.*)\)", re.IGNORECASE | re.DOTALL)
_LENGTH = re.compile(r"\s*\(\s*\d+\s*\)$")


@lru_cache(maxsize=1_000)
def _kind(type_: str) -> str:
    return type_.partition("(")[0]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    name
        As the back end spells it.  Case is kept, but no two columns may differ in case only.
    type
        A name of TYPES; decimals with precision and scale: ``DECIMAL(18,2)``.
    nullable
        Whether NULL is allowed.
    labels
        The values of an ENUM.
    held_as
        How the back end holds it where that keeps less than the type does: "" (all is kept),
        "numeric" (SQLite's NUMERIC affinity: decimals of at most 15 digits),
        "numeric text" (the same, for text: a text that looks like a number is turned into one),
        "int64" (whole numbers up to 2**63 - 1), "no nul" (PostgreSQL's texts: without the character U+0000), and
        of a service whose numbers are doubles and whose times have milliseconds "int53", "finite" and "ms".  A
        value that would be changed is refused
        when staged.
    """

    name: str
    type: str
    nullable: bool = True
    labels: tuple[str, ...] = ()
    held_as: str = ""

    @property
    def kind(self) -> str:
        """The type's name without precision."""
        return _kind(self.type)

    @property
    def family(self) -> str:
        return TYPES[self.kind].family

    @property
    def arrow(self) -> pa.DataType:
        if self.kind == "DECIMAL":
            precision, scale = self.precision
            return pa.decimal128(precision, scale)
        return TYPES[self.kind].arrow

    @property
    def precision(self) -> tuple[int, int]:
        """(precision, scale) of a DECIMAL."""
        precision, scale = self.type[len("DECIMAL(") : -1].split(",")
        return int(precision), int(scale)

    @property
    def store(self) -> str:
        """The type of this column in the local file."""
        return self.type if self.kind == "DECIMAL" else TYPES[self.kind].store


@dataclass(frozen=True, slots=True, repr=False)
class Schema:
    """The columns of a table and which of them are its key.

    Parameters
    ----------
    columns
        In the table's order, key columns included.
    key
        The names of the key's columns, in the key's order.

    Raises
    ------
    SchemaError
        For a reserved name, a name that is there twice (compared without case), or a key that is no column.
    """

    columns: tuple[Column, ...]
    key: tuple[str, ...]

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for name in self.names:
            if name.lower().startswith(RESERVED_PREFIX):
                raise SchemaError(
                    f"column {name!r}: names that begin with {RESERVED_PREFIX!r} are reserved",
                    hint="rename the column",
                )
            if name.lower() in seen:
                raise SchemaError(
                    f"columns {seen[name.lower()]!r} and {name!r} have one name when case is not counted",
                    hint="rename one of them",
                )
            seen[name.lower()] = name
        missing = [name for name in self.key if name not in self.names]
        if missing or not self.key:
            raise KeyColumnError(
                f"the key {', '.join(map(repr, missing)) or '()'} is not among the columns {shown(self.names)}",
                hint='name the key, for example key="id" or key=["year", "site"]',
            )

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def key_columns(self) -> tuple[Column, ...]:
        return tuple(self[name] for name in self.key)

    @property
    def value_columns(self) -> tuple[Column, ...]:
        """The columns that are not the key's, in the table's order."""
        return tuple(column for column in self.columns if column.name not in self.key)

    @property
    def values(self) -> list[str]:
        return [column.name for column in self.value_columns]

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise SchemaError(f"column {name!r} is not among the table's: {shown(self.names)}")

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def arrow(self) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.arrow, c.nullable) for c in self.columns])

    def select(self, names: Iterable[str]) -> Schema:
        """The same table with only these columns; the key always stays."""
        wanted = {*names, *self.key}
        unknown = wanted - set(self.names)
        if unknown:
            raise SchemaError(
                f"columns {shown(sorted(unknown))} are not among the table's: {shown(self.names)}",
                hint="schema.names lists them",
            )
        return Schema(tuple(c for c in self.columns if c.name in wanted), self.key)

    def to_json(self) -> str:
        columns = [[c.name, c.type, c.nullable, list(c.labels), c.held_as] for c in self.columns]
        return json.dumps({"key": self.key, "columns": columns})

    @classmethod
    @lru_cache(maxsize=256)  # the store is asked for it in each transaction
    def from_json(cls, text: str) -> Schema:
        held = json.loads(text)
        columns = (Column(n, t, nullable, tuple(labels), as_) for n, t, nullable, labels, as_ in held["columns"])
        return cls(tuple(columns), tuple(held["key"]))

    @classmethod
    def of(cls, source: object, key: str | Iterable[str] | None = None) -> Schema:
        """Take a schema from a `pyarrow.Schema`, a mapping name -> type, a DataFrame or a Schema.

        Parameters
        ----------
        source
            Types in a mapping may be DuckDB's names, Arrow types, pandas dtypes or Python classes.
        key
            The key's column or columns; by default the named index of a DataFrame, else ``id``.
        """
        if isinstance(source, Schema):
            return source if key is None else cls(source.columns, as_names(key))
        fields, index = _fields(source)
        names = as_names(key) if key is not None else index or ("id",)
        columns = tuple(Column(n, t, nullable and n not in names, labels) for n, t, nullable, labels in fields)
        return cls(columns, names)

    def __repr__(self) -> str:
        return "\n".join([self._headline(), *words.table(_SHOWN, self._described()), *self._left_out()])

    def _repr_html_(self) -> str:
        table = words.html_table(
            _SHOWN, self._described(), caption=self._headline(), code=[0, 1], rows_max=COLUMNS_SHOWN
        )
        return words.html(table, words.paragraphs(self._left_out()))

    def _headline(self) -> str:
        return f"Schema: {words.many(len(self.columns), 'column')}, key {', '.join(map(words.name, self.key))}"

    def _described(self) -> list[tuple[str, ...]]:
        return [
            (words.name(c.name), c.type, "" if c.nullable else "NOT NULL", "key" if c.name in self.key else "")
            for c in self.columns[:COLUMNS_SHOWN]
        ]

    def _left_out(self) -> list[str]:
        return words.left_out(len(self.columns), COLUMNS_SHOWN)


def as_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def shown(names: Iterable[object]) -> str:
    """Names for an error text: the first few, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > NAMES_SHOWN else ""
    return ", ".join(map(repr, listed[:NAMES_SHOWN])) + more


def quote(name: str) -> str:
    """A SQL identifier; the one place where a name becomes part of a statement."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A SQL text literal, where a statement cannot take a parameter."""
    return "'" + value.replace("'", "''") + "'"


def type_name(given: object) -> tuple[str, tuple[str, ...]]:
    """The name in TYPES of a type given as text, Arrow type, pandas dtype or Python class, and an ENUM's labels.

    Raises
    ------
    SchemaError
        If the type is none that syncframe keeps exactly; lists those it does.
    """
    if isinstance(given, str):
        return _named(given)
    if isinstance(given, pa.DataType):
        return _from_arrow(given), ()
    if given in _PYTHON_NAMES:
        return _PYTHON_NAMES[given], ()
    return _from_pandas(given)


def _named(text: str) -> tuple[str, tuple[str, ...]]:
    plain = " ".join(text.split())
    if match := _DECIMAL.fullmatch(plain):
        precision, scale = int(match[1] or 18), int(match[2] or (0 if match[1] else 3))
        if not (1 <= precision <= 38 and scale <= precision):
            raise SchemaError(f"type {text!r}: a decimal has 1 to 38 digits, and no more after the point than in all")
        return f"DECIMAL({precision},{scale})", ()
    if match := _ENUM.fullmatch(plain):
        labels = tuple(label.replace("''", "'") for label in re.findall(r"'((?:[^']|'')*)'", match[1]))
        return "ENUM", labels
    upper = _LENGTH.sub("", plain.upper())
    name = _ALIASES.get(upper, upper)
    if name in TYPES and name != "ENUM":
        return name, ()
    raise SchemaError(f"type {text!r} is not one that syncframe keeps exactly", hint=f"one of {', '.join(TYPES)}")


def _from_arrow(given: pa.DataType) -> str:
    if given in _ARROW_NAMES:
        return _ARROW_NAMES[given]
    if pa.types.is_decimal(given) and given.precision <= 38:
        return f"DECIMAL({given.precision},{given.scale})"
    if pa.types.is_timestamp(given) and given.unit in ("s", "ms", "us", "ns"):
        return "TIMESTAMPTZ" if given.tz else "TIMESTAMP"
    if pa.types.is_time(given):
        return "TIME"
    if pa.types.is_dictionary(given):
        return _from_arrow(given.value_type)
    if pa.types.is_null(given):
        return "VARCHAR"
    raise SchemaError(f"Arrow type {given} is not one that syncframe keeps exactly", hint=f"one of {', '.join(TYPES)}")


def _from_pandas(given: object) -> tuple[str, tuple[str, ...]]:
    import pandas as pd

    try:
        dtype = pd.api.types.pandas_dtype(given)
    except TypeError:
        raise SchemaError(f"type {given!r} is not known", hint=f"one of {', '.join(TYPES)}") from None
    if isinstance(dtype, pd.CategoricalDtype):
        return "ENUM", tuple(dtype.categories)
    if isinstance(dtype, pd.ArrowDtype):
        return _from_arrow(dtype.pyarrow_dtype), ()
    if dtype.kind == "M":
        return ("TIMESTAMPTZ" if isinstance(dtype, pd.DatetimeTZDtype) else "TIMESTAMP"), ()
    if isinstance(dtype, pd.StringDtype) or dtype.kind == "O":
        return "VARCHAR", ()
    plain = str(dtype).lower()  # int64 and Int64 are both BIGINT
    for name, row in TYPES.items():
        if row.pandas.lower() == plain or (name == "BOOLEAN" and plain == "bool"):
            return name, ()
    raise SchemaError(
        f"pandas dtype {dtype} is not one that syncframe keeps exactly", hint=f"one of {', '.join(TYPES)}"
    )


_Field = tuple[str, str, bool, tuple[str, ...]]


def _fields(source: object) -> tuple[list[_Field], tuple[str, ...]]:
    """(name, type, nullable, labels) of each column, and the names of a DataFrame's index where it has them."""
    if isinstance(source, pa.Schema):
        return [(f.name, _from_arrow(f.type), f.nullable, ()) for f in source], ()
    if isinstance(source, Mapping):
        return [(str(n), name, True, labels) for n, t in source.items() for name, labels in [type_name(t)]], ()
    if hasattr(source, "dtypes") and hasattr(source, "index"):
        return _frame_fields(source)
    raise SchemaError(
        f"a schema cannot be taken from a {type(source).__name__}",
        hint="give a pyarrow.Schema, a mapping name -> type, or a DataFrame",
    )


def _frame_fields(frame: Any) -> tuple[list[_Field], tuple[str, ...]]:
    index = tuple(frame.index.names) if all(name is not None for name in frame.index.names) else ()
    dtypes = (frame.reset_index() if index else frame).dtypes
    return [(str(n), kind, True, labels) for n, t in dtypes.items() for kind, labels in [type_name(t)]], index
