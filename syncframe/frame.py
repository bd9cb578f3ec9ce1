"""Frames: how rows are handed out as a DataFrame, and read back after the user's edits.

The first room of a local edit's journey.  A frame is handed out in dtypes that the schema gives, with
a token in `attrs` that leads back to its snapshot: the same rows in Arrow, where no edit can reach
them.  What comes back, from pandas or from anything that speaks Arrow, is normalised to the declared
types, or refused naming row, column and value.  `diff` then compares the two.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .errors import KeyColumnError, SchemaError
from .progress import stoppable
from .schema import NAMES_SHOWN, TYPES, Column, Schema, quote, shown
from .texts import DAYS, in_years, is_arrow_decimal

MARK = "syncframe"
VERSION_COLUMN = "_syncframe_version"
PENDING_COLUMN = "_syncframe_pending"
SNAPSHOT_BYTES_MAX = 2**30
CULPRITS_MAX = 1_000  # how many rows that do not fit are counted, where each costs a try
SHOWN_CHARACTERS_MAX = 60

_SYSTEM = {
    column.name: column
    for column in (
        Column("createdAt", "TIMESTAMPTZ"),
        Column("updatedAt", "TIMESTAMPTZ"),
        Column("version", "VARCHAR"),
        Column("deleted", "BOOLEAN"),
        Column(PENDING_COLUMN, "VARCHAR"),
    )
}

Dtypes = Literal["pandas", "pyarrow"]


# The token ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True, weakref_slot=True)
class Snapshot:
    """What was handed out, in the declared Arrow types, so that nobody can change it.

    Parameters
    ----------
    rows
        The key columns and the columns handed out, one chunk each; and `_syncframe_version`, the
        version of each row, where it is known.
    revision
        The store's revision at that time.
    """

    rows: pa.Table
    revision: int


@dataclass(frozen=True, slots=True)
class TokenText:
    """What a token says of its frame; it outlives the process in parquet and pickle."""

    store: str
    table: str
    snapshot: str
    revision: int
    where: str | None = None
    columns: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return json.dumps(
            {
                MARK: 1,
                "store": self.store,
                "table": self.table,
                "snapshot": self.snapshot,
                "revision": self.revision,
                "where": self.where,
                "columns": self.columns,
            }
        )

    @classmethod
    def parse(cls, text: object) -> TokenText | None:
        """The token in `text`; None for whatever else may stand in a frame's attrs."""
        try:
            said = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict) or said.get(MARK) != 1:
            return None
        return cls._checked(said)

    @classmethod
    def _checked(cls, said: dict[str, Any]) -> TokenText | None:
        names: list[Any]
        revision: Any
        names = [said.get(name) for name in ("store", "table", "snapshot")]
        where, columns, revision = said.get("where"), said.get("columns"), said.get("revision")
        is_named = all(isinstance(name, str) for name in names) and type(revision) is int
        is_filtered = where is None or isinstance(where, str)
        is_listed = columns is None or (isinstance(columns, list) and all(isinstance(name, str) for name in columns))
        if not (is_named and is_filtered and is_listed):
            return None
        store, table, snapshot = names
        return cls(store, table, snapshot, revision, where, None if columns is None else tuple(columns))


class Token(str):
    """Text that identifies a snapshot, and holds it as long as a frame derived from it lives.

    Frames are told apart by this text (pandas' `concat` keeps attrs that are equal), so it is unique
    to the snapshot.  A token identifies; it never authorises.
    """

    snapshot: Snapshot | None

    def __new__(cls, text: TokenText | str, snapshot: Snapshot | None = None) -> Token:
        self = super().__new__(cls, str(text))
        self.snapshot = snapshot
        return self

    # pandas deep-copies attrs at each step: a copy would be a second snapshot, and never freed.
    def __copy__(self) -> Token:
        return self

    def __deepcopy__(self, memo: object) -> Token:
        return self

    # Without this, pickle would carry the snapshot's rows along.
    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str.__str__(self),)


def read_token(frame: object) -> TokenText | None:
    """The token that `frame` carries; None if there is none, or it is malformed or somebody else's."""
    attrs = getattr(frame, "attrs", None)
    return TokenText.parse(attrs.get(MARK)) if isinstance(attrs, dict) else None


def snapshot_of(frame: object) -> Snapshot | None:
    """The snapshot of `frame` if it is still in memory."""
    attrs = getattr(frame, "attrs", None)
    token = attrs.get(MARK) if isinstance(attrs, dict) else None
    return token.snapshot if isinstance(token, Token) else None


def advance(frame: object, token: Token) -> None:
    """Give the passed frame a new token; copies taken of it earlier keep theirs."""
    if isinstance(frame, pd.DataFrame):
        frame.attrs = {**frame.attrs, MARK: token}


class Snapshots:
    """Bounds the bytes that one context's snapshots hold.

    The frames hold their snapshots, through their tokens; this class only knows them weakly, and
    takes the oldest from its token when there are too many bytes.  Such a frame is then staged as one
    that came back from a file.
    """

    def __init__(self, bytes_max: int = SNAPSHOT_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._lock = threading.Lock()
        self._tokens: dict[int, weakref.ref[Token]] = {}  # by order of arrival

    def hold(self, token: Token) -> Token:
        """Count `token`'s snapshot, and let the oldest go while there are more bytes than allowed."""
        with self._lock:
            self._tokens[max(self._tokens, default=0) + 1] = weakref.ref(token)
            self._evict()
        return token

    @property
    def bytes_held(self) -> int:
        return sum(self._buffers().values())

    def _alive(self) -> list[Token]:
        """The tokens whose snapshots are still held, oldest first."""
        known = {at: reference() for at, reference in self._tokens.items()}
        alive = {at: token for at, token in known.items() if token is not None and token.snapshot is not None}
        self._tokens = {at: self._tokens[at] for at in alive}
        return list(alive.values())

    def _buffers(self) -> dict[int, int]:
        """Address -> bytes: a snapshot shares the arrays of its predecessor where nothing was edited."""
        held: dict[int, int] = {}
        for token in self._alive():
            held |= _buffers(token.snapshot)
        return held

    def _evict(self) -> None:
        if self.bytes_held <= self.bytes_max:
            return
        for token in self._alive():
            token.snapshot = None
            if self.bytes_held <= self.bytes_max:
                return


def _buffers(snapshot: Snapshot | None) -> dict[int, int]:
    if snapshot is None:
        return {}
    chunks = [chunk for column in snapshot.rows.columns for chunk in column.chunks]
    return {b.address: b.size for chunk in chunks for b in chunk.buffers() if b is not None}


# Handing out ----------------------------------------------------------------------------------------------------------


def hand_out(rows: pa.Table, schema: Schema, token: Token | None = None, dtypes: Dtypes = "pandas") -> pd.DataFrame:
    """Return `rows` as a DataFrame that may be edited, indexed by the key.

    Parameters
    ----------
    rows
        Key columns, any of the table's columns, any system columns.  They are never changed by edits.
    token
        Goes into ``attrs["syncframe"]``.
    dtypes
        "pandas": by the type table.  "pyarrow": Arrow's types for reading and speed; but integers stay
        masked, enums categories and bytes objects, for pandas itself would silently make 1 of 1.5
        assigned to an ``int64[pyarrow]``, and bytes of a text.

    Notes
    -----
    Dtypes follow from the schema and never from the values: the same with and without NULLs, with no
    rows and with all NULL.  Integers are masked even where NOT NULL: as numpy's, one appended row or
    one None would turn the column into floats, and 2**53 + 1 would be gone.  Not to be helped: into
    ``date32[pyarrow]``, pandas takes a Timestamp and drops its time of day.
    """
    columns = {name: _column(schema, name) for name in rows.column_names if name != VERSION_COLUMN}
    arrays = {name: to_pandas(rows[name], column, dtypes) for name, column in columns.items()}
    levels = [arrays.pop(name) for name in schema.key]
    frame = pd.DataFrame(arrays, index=_index(levels, schema.key), copy=False)
    if token is not None:
        frame.attrs[MARK] = token
    return frame


def declared(rows: pa.Table, schema: Schema) -> pa.Table:
    """`rows` as a snapshot keeps them: the declared types, NaN as NULL, one chunk each.

    One chunk, because `take` of a text column in several copies the whole column first.
    """
    columns = {name: _column(schema, name, or_text=True) for name in rows.column_names}
    return pa.table({name: _declared(rows[name], column) for name, column in columns.items()})


def _declared(values: pa.ChunkedArray, column: Column) -> pa.Array:
    plain = one_chunk(values) if values.type == column.arrow else _decoded(values).cast(column.arrow)
    return nan_is_null(plain)


def _column(schema: Schema, name: str, *, or_text: bool = False) -> Column:
    """The table's own column, else the system's: a table of one's own may have a column `version`."""
    if name in schema or (name not in _SYSTEM and not or_text):
        return schema[name]
    return _SYSTEM.get(name) or Column(name, "VARCHAR")


def _index(levels: list[Any], names: tuple[str, ...]) -> Any:
    if len(levels) == 1:
        return pd.Index(levels[0], name=names[0], copy=False)
    return pd.MultiIndex.from_arrays(levels, names=names)


def pandas_dtype(column: Column, dtypes: Dtypes = "pandas") -> Any:
    """The pandas dtype of a column, from the schema alone."""
    named = TYPES[column.kind].pandas
    if column.family == "bytes":
        # Bytes in Arrow's type would let pandas encode a text that is assigned, without a word.
        return np.dtype(object)
    if named == "category":
        return pd.CategoricalDtype(list(column.labels))
    if named == "arrow" or (dtypes == "pyarrow" and column.family != "int"):
        return pd.ArrowDtype(column.arrow)
    if named == "str":
        return pd.StringDtype(na_value=np.nan)
    return pd.api.types.pandas_dtype(named)


def to_pandas(values: pa.ChunkedArray, column: Column, dtypes: Dtypes = "pandas") -> Any:
    """A writable pandas array of one column."""
    dtype = pandas_dtype(column, dtypes)
    if values.type != column.arrow:
        values = pa.chunked_array([_declared(values, column)])
    if isinstance(dtype, pd.CategoricalDtype):
        return _categories(values, column, dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return dtype.__from_arrow__(values).copy()  # else read-only
    if not isinstance(dtype, np.dtype):
        return dtype.__from_arrow__(values)
    plain = values.to_numpy()
    # A view of the snapshot where there is one chunk without NULLs.
    return plain if plain.flags.writeable else plain.copy()


def _categories(values: pa.ChunkedArray, column: Column, dtype: pd.CategoricalDtype) -> pd.Categorical:
    codes = pc.fill_null(pc.index_in(values, value_set=pa.array(column.labels, values.type)), -1)
    return pd.Categorical.from_codes(codes.to_numpy(), dtype=dtype)


# Reading back ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Edited:
    """A frame in the table's declared types.

    Parameters
    ----------
    rows
        Key columns first, then those of the table's columns that the frame has, in the table's order;
        one chunk each.  They may share memory with the frame: `advanced_rows` makes copies.
    missing_keys
        The positions of rows whose key is to be made.
    system
        The system columns that the frame has, to be found unchanged.
    """

    rows: pa.Table
    missing_keys: np.ndarray
    system: dict[str, pa.Array] = field(default_factory=dict)


def normalise(
    frame: object, schema: Schema, *, extra: Literal["error", "ignore"] = "error", snapshot: Snapshot | None = None
) -> Edited:
    """Return `frame` in the declared types, every value exactly as it is, or refuse it in words.

    Parameters
    ----------
    frame
        A DataFrame with the key as its index or in columns, or any object with ``__arrow_c_stream__``.
    extra
        What to do with columns that are not the table's.
    snapshot
        The rows that the frame was made from.  They tell whether an unnamed index is the key, and a
        value that was handed out just so is not refused, whatever the schema says.

    Raises
    ------
    KeyColumnError
        If the key is not to be found, or is empty where it cannot be made.
    SchemaError
        If a column is unknown or there twice, or a value does not fit; names row, column and value.

    Notes
    -----
    Families of types (text, whole numbers, dates ...) do not mix but for the pairs in `_PAIRS`, and a
    cast counts only if casting back gives the same, for pyarrow's "safe" casts lose silently: a date
    drops its time, a float becomes a narrower one, a zone is forgotten.
    """
    if extra not in ("error", "ignore"):
        raise SchemaError(f"extra={extra!r} is not known", hint='"error" or "ignore"')
    given = _given(frame, schema, snapshot)
    _refuse_extra(given, schema, extra)
    known = snapshot.rows if snapshot is not None else None
    keys = {column.name: _Fit(column)(given[column.name]) for column in schema.key_columns}
    missing = _missing(keys, schema)
    table = pa.table(keys)
    rows = keys | {c.name: _Fit(c, table, known)(given[c.name]) for c in schema.value_columns if c.name in given}
    system = {n: _Fit(_SYSTEM[n], table)(given[n]) for n in given if _is_system(n, schema) and n != PENDING_COLUMN}
    return Edited(pa.table(rows), missing, system)


def object_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of the same columns as a frame of plain objects, so that each value is judged by its own type."""
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in rows[0]})


def listed_frame(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Rows as they are listed, a column for each name, as a frame of plain objects; there may be none."""
    return pd.DataFrame({name: pd.Series([row[i] for row in rows], dtype=object) for i, name in enumerate(names)})


def make_keys(edited: Edited, schema: Schema, new_key: Callable[[], str]) -> Edited:
    """Fill the keys that were left empty; whether a key is repeated is the diff's business."""
    name = schema.key[0]
    keys = one_chunk(edited.rows[name])
    if not keys.null_count:
        return edited
    made = pa.array([new_key() for _ in range(keys.null_count)], keys.type)
    filled = pc.replace_with_mask(keys, pc.is_null(keys), made)
    return replace(edited, rows=edited.rows.set_column(0, name, filled))


def write_keys(frame: object, edited: Edited, schema: Schema) -> bool:
    """Write the made keys into the passed pandas frame; False where that cannot be done.

    Without it, staging the same frame again would insert its new rows once more.
    """
    if not len(edited.missing_keys):
        return True
    if not isinstance(frame, pd.DataFrame):
        return False
    column = schema.key_columns[0]
    keys = to_pandas(edited.rows[column.name], column)
    if column.name in frame.columns:
        frame[column.name] = keys
    else:
        frame.index = _index_with(frame.index, column.name, keys)
    return True


def _index_with(index: Any, name: str, keys: Any) -> Any:
    if index.nlevels == 1:
        return pd.Index(keys, name=index.name)
    levels = [keys if level == name else index.get_level_values(i) for i, level in enumerate(index.names)]
    return pd.MultiIndex.from_arrays(levels, names=index.names)


def advanced_rows(old: pa.Table | None, edited: pa.Table, key: Sequence[str] = ()) -> pa.Table:
    """The snapshot after a staging: the frame as staged, out of reach of further edits.

    `edited` may share memory with the frame (an Arrow table made of a masked array does), so columns
    are the old snapshot's own arrays where nothing was edited, and real copies elsewhere.  With
    `key`, rows keep the version that the old snapshot has of them.
    """
    kept = (
        set() if old is None else {n for n in edited.column_names if n in old.column_names and old[n].equals(edited[n])}
    )
    rows = {
        name: old[name] if old is not None and name in kept else copied(edited[name]) for name in edited.column_names
    }
    if old is not None and key and VERSION_COLUMN in old.column_names:
        same = kept.issuperset(key)
        rows[VERSION_COLUMN] = old[VERSION_COLUMN] if same else _versions(old, edited.select(list(key)))
    return pa.table(rows)


def _versions(old: pa.Table, keys: pa.Table) -> pa.Array:
    """The versions of the old snapshot's rows, in the order of `keys`; NULL of rows that are new."""
    at_new, at_old = matched(old.select(keys.column_names), keys)
    at = np.full(len(keys), -1)
    at[at_new] = at_old
    return one_chunk(old[VERSION_COLUMN]).take(pa.array(at, mask=at < 0))


def copied(values: pa.ChunkedArray) -> pa.Array:
    return one_chunk(values).copy_to(pa.default_cpu_memory_manager())


# Where the columns are ------------------------------------------------------------------------------------------------


def _given(frame: object, schema: Schema, snapshot: Snapshot | None) -> dict[str, Any]:
    """Name -> values of all that `frame` has, the key's columns among them."""
    if isinstance(frame, pd.DataFrame):
        return _given_pandas(frame, schema, snapshot)
    given = _given_arrow(frame)
    lacking = [name for name in schema.key if name not in given]
    if lacking:
        raise KeyColumnError(
            f"the key {shown(schema.key)} is not among the columns {shown(given)}", hint="keep the key's columns"
        )
    return given


def _given_arrow(frame: object) -> dict[str, Any]:
    if not (hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__")) or isinstance(
        frame, pd.Series
    ):
        hint = "collect() it first" if hasattr(frame, "collect") else "pandas.DataFrame(...) makes one of most things"
        raise SchemaError(
            f"a {type(frame).__name__} is no table; expected is a DataFrame, an Arrow table or a relation",
            hint=hint,
        )
    table = pa.table(frame)
    _refuse_repeated_names(table.column_names)
    return dict(zip(table.column_names, table.columns, strict=True))


def _given_pandas(frame: pd.DataFrame, schema: Schema, snapshot: Snapshot | None) -> dict[str, Any]:
    if isinstance(frame.columns, pd.MultiIndex):
        raise SchemaError(
            "the frame's columns have several levels, the table's have one",
            hint="this looks like a pivot: stage the table",
        )
    _refuse_repeated_names(list(frame.columns))
    columns = {name: frame[name] for name in frame.columns}
    levels = {name: frame.index.get_level_values(i) for i, name in enumerate(frame.index.names) if name is not None}
    _refuse_ambiguous(columns.keys() & levels.keys(), schema)
    given: dict[Any, Any] = {**levels, **columns}
    if any(name not in given for name in schema.key):
        given[schema.key[0]] = _unnamed_key(frame, given, schema, snapshot)
    return given


def _refuse_repeated_names(names: list[Any]) -> None:
    twice = list(dict.fromkeys(name for name in names if names.count(name) > 1))
    if twice:
        raise SchemaError(f"columns {shown(twice)} are there twice", hint="keep one of each")


def _refuse_ambiguous(names: Iterable[Any], schema: Schema) -> None:
    both = sorted(map(str, names))
    if not both:
        return
    error = KeyColumnError if set(both) & set(schema.key) else SchemaError
    raise error(
        f"{shown(both)} is both a column and in the index, and they may differ: which counts is ambiguous",
        hint=f"keep one, for example df.drop(columns={both[0]!r})",
    )


def _unnamed_key(frame: pd.DataFrame, given: Mapping[Any, Any], schema: Schema, snapshot: Snapshot | None) -> pd.Index:
    """The index, if it lost its name and still is the key.

    Text says what it is: most of its labels are keys that were handed out, or it is another thing, such
    as the count, mean ... of `describe()`.  A number does not: after `ignore_index=True` the index is
    0..n-1, and the wrong rows would be updated.
    """
    index = frame.index
    may_be = len(schema.key) == 1 and _is_made(schema.key_columns[0]) and index.nlevels == 1 and index.name is None
    if may_be and snapshot is not None and _are_mostly_keys(index, one_chunk(snapshot.rows[schema.key[0]])):
        return index
    lacking = [name for name in schema.key if name not in given]
    name = f"df.index.name = {schema.key[0]!r}" if len(schema.key) == 1 else f"df.index.names = {list(schema.key)!r}"
    raise KeyColumnError(
        f"the key {shown(lacking)} is neither in the index, which bears {shown(index.names)}, "
        f"nor among the columns {shown(frame.columns)}",
        hint=f"if the index is the key: {name}",
    )


def _are_mostly_keys(index: pd.Index, keys: pa.Array) -> bool:
    labels = [label for label in index if isinstance(label, str)]
    known = pc.sum(pc.is_in(pa.array(labels, keys.type), value_set=keys)).as_py() or 0
    return bool(2 * known > len(index))


def _is_made(column: Column) -> bool:
    """Whether a key of this type is made where it was left empty."""
    return column.kind in ("VARCHAR", "UUID")


def _is_system(name: Any, schema: Schema) -> bool:
    return name in _SYSTEM and name not in schema


def _refuse_extra(given: Iterable[Any], schema: Schema, extra: str) -> None:
    unknown = [name for name in given if name not in schema and name not in _SYSTEM]
    if unknown and extra != "ignore":
        raise SchemaError(
            f"columns {shown(unknown)} are not among the table's: {shown(schema.names)}",
            hint='stage(df[table.columns]) leaves them out, and so does extra="ignore"',
        )


def _missing(keys: Mapping[str, pa.Array], schema: Schema) -> np.ndarray:
    """The positions of rows with an empty key, if it can be made."""
    empty = np.logical_or.reduce([np.asarray(pc.is_null(values)) for values in keys.values()])
    missing = np.flatnonzero(empty)
    if len(missing) and not (len(keys) == 1 and _is_made(schema.key_columns[0])):
        raise KeyColumnError(
            f"the key {shown(schema.key)} is empty in {len(missing)} rows, at the positions {shown(missing.tolist())}",
            hint="only a text or uuid key of one column is made; give the others",
        )
    return missing


# Values into their declared type --------------------------------------------------------------------------------------

# (given, declared): the families that mix.  All others do not: pyarrow would read 5 as a date, True as
# 1, and forget a time zone.
_PAIRS = {
    ("float", "int"), ("int", "float"), ("int", "decimal"), ("decimal", "int"), ("float", "decimal"),
    ("timestamp", "date"), ("date", "timestamp"),
}  # fmt: skip

_TAKES = {
    "bool": "true and false", "int": "whole numbers", "float": "numbers", "decimal": "decimals", "text": "text",
    "bytes": "bytes", "date": "dates", "time": "times of day",
    "timestamp": "timestamps without a time zone", "instant": "timestamps with a time zone",
}  # fmt: skip

_HINTS = {
    ("timestamp", "instant"): 'say which zone they are in: df[{0!r}].dt.tz_localize("UTC")',
    ("instant", "timestamp"): 'df[{0!r}].dt.tz_convert("UTC").dt.tz_localize(None), if UTC is what is meant',
    ("bool", "int"): 'df[{0!r}].astype("Int64"), if 1 and 0 are what is meant',
    ("int", "bool"): "compare: df[{0!r}] != 0",
    ("float", "bool"): "compare: df[{0!r}] != 0",
    ("float", "int"): "round, or correct the values; integers of 2**53 and more are not exact as floats",
    ("float", "decimal"): "give decimal.Decimal values, or round to the column's scale",
    ("decimal", "decimal"): "round to the column's scale",
    ("decimal", "float"): 'df[{0!r}].astype("float64"), if rounding is meant',
    ("text", "date"): "pd.to_datetime(df[{0!r}]), or datetime.date values",
    ("text", "timestamp"): "pd.to_datetime(df[{0!r}])",
    ("text", "instant"): "pd.to_datetime(df[{0!r}], utc=True)",
    ("text", "int"): "pd.to_numeric(df[{0!r}])",
    ("text", "float"): "pd.to_numeric(df[{0!r}])",
    ("text", "decimal"): "df[{0!r}].map(decimal.Decimal)",
    ("int", "text"): 'df[{0!r}].astype("str")',
    ("float", "text"): 'df[{0!r}].astype("str")',
    ("text", "bytes"): "encode it: df[{0!r}].str.encode()",
    ("bytes", "text"): "decode it: df[{0!r}].str.decode()",
    ("timestamp", "date"): "df[{0!r}].dt.normalize() drops the time of day",
    ("timestamp", "timestamp"): 'df[{0!r}].dt.floor("us")',
    ("instant", "instant"): 'df[{0!r}].dt.floor("us")',
    ("float", "float"): "correct the values, or round them: df[{0!r}].astype('float32')",
}  # fmt: skip

_SEVERAL = (dt.datetime, pd.Timestamp)
_NUMBERS = (int, float, decimal.Decimal)

# The exact Python types that an object column may have: an instance of bool is an int to Python, and
# a datetime a date, and Arrow's inference goes by that.
_OBJECTS: dict[str, tuple[type, ...]] = {
    "bool": (bool,), "int": _NUMBERS, "float": (float, int), "decimal": (decimal.Decimal, int, float),
    "text": (str,), "bytes": (bytes, bytearray), "date": (dt.date, *_SEVERAL), "time": (dt.time,),
    "timestamp": (*_SEVERAL, dt.date), "instant": _SEVERAL,
}  # fmt: skip

_UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

# What SQLite's NUMERIC affinity turns into a number (tried, version 3.40): '007', '1e5', ' 12 ', '5.',
# '.5'; not '0x10', 'inf', '1_000' nor digits beyond ASCII.
_SQLITE_NUMBER = r"^[ \t\n\v\f\r]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\v\f\r]*$"
_DOUBLE_DIGITS_MAX = 15

# DuckDB takes these for JSON, RFC 8259 does not, nor do the databases that rows are pushed to.
_JSON_DOUBTFUL = r"(?i)nan|inf|,\s*[\]}]"


_MEND = "correct these values, or leave their rows out"


class _Fit:
    """Fits the values of one column into its declared type, and names the rows that do not fit.

    Parameters
    ----------
    column
        The declared type.
    keys
        The key columns, fitted already, to name rows by; of the key itself there are none yet.
    known
        The rows that were handed out.
    """

    def __init__(self, column: Column, keys: pa.Table | None = None, known: pa.Table | None = None) -> None:
        # An empty key is another matter: it may be made.
        self.column = column if keys is not None else replace(column, nullable=True)
        self.keys = keys
        self.known = known if keys is not None and known is not None and column.name in known.column_names else None

    def __call__(self, given: Any) -> pa.Array:
        values = self._arrow(given)
        fitted = self._fitted(values)
        if self.known is not None and self.known[self.column.name].equals(pa.chunked_array([fitted])):
            return fitted
        return self._checked(fitted)

    def _arrow(self, given: Any) -> pa.Array:
        """The values as they are, in whatever Arrow type they bear."""
        if isinstance(given, pa.ChunkedArray):
            return nan_is_null(self._decoded(given))
        if _is_object(given.dtype):
            return self._objects(np.asarray(given, dtype=object))
        try:
            return nan_is_null(self._decoded(pa.array(_dense(given), from_pandas=True)))
        except (pa.ArrowException, TypeError, ValueError):
            return self._objects(np.asarray(given, dtype=object))

    def _decoded(self, values: Any) -> pa.Array:
        if isinstance(values.type, pa.UuidType):
            return self._objects(np.array([*values.to_pylist(), None], dtype=object)[:-1])
        return _decoded(values)

    def _fitted(self, values: pa.Array) -> pa.Array:
        if values.null_count == len(values):
            return pa.nulls(len(values), self.column.arrow)
        return values if values.type == self.column.arrow else self._cast(values)

    # Casts

    def _cast(self, values: pa.Array) -> pa.Array:
        have, want = _family(values.type), self.column.family
        if have != want and (have, want) not in _PAIRS:
            self._refuse(pc.is_valid(values), values, f"not {_TAKES.get(have, have)}", have)
        if have == "float" and want != "float":
            self._refuse_large(values)
        convert = _conversion(have, want, self.column.arrow)
        try:
            fitted = convert(values)
        except pa.ArrowException:
            self._refuse(_culprits(convert, values), values, "and these cannot be held exactly", have)
        return fitted if "decimal" in (have, want) or want in ("text", "bytes") else self._same(fitted, values)

    def _same(self, fitted: pa.Array, values: pa.Array) -> pa.Array:
        """Refuse what casting back does not give again."""
        back = fitted.cast(values.type, safe=False)
        if not back.equals(values):
            self._refuse(pc.not_equal(back, values), values, "and these cannot be held exactly", _family(values.type))
        return fitted

    def _refuse_large(self, values: pa.Array) -> None:
        """A float stands for one number only up to 2**53; as a decimal, for its 15 digits."""
        want = self.column.family
        limit = 2.0**53 if want == "int" else 10.0 ** (_DOUBLE_DIGITS_MAX - self.column.precision[1])
        large = pc.greater_equal(pc.abs(values), pa.scalar(limit, values.type))
        self._refuse(large, values, "and floats as large as these are not exact", "float")

    # Python objects

    def _objects(self, given: np.ndarray) -> pa.Array:
        """Judge an object column by the exact Python types in it, for Arrow's inference loses silently.

        [date, datetime] would become dates, [naive, aware] naive, [b"a", "b"] bytes, and 1.5 in a declared
        integer column 1.
        """
        values: list[Any] = given.tolist()
        if not set(map(type, values)) <= {str, int, bytes, bool, type(None)}:
            values = [_plain(value) for value in values]
        allowed = _OBJECTS[self.column.family] + ((uuid.UUID,) if _is_made(self.column) else ())
        types = set(map(type, values)) - {type(None)}
        if types - set(allowed):
            wrong = [value is not None and type(value) not in allowed for value in values]
            expected = " or ".join(sorted({name.__name__ for name in allowed} - {"Timestamp"}))
            self._refuse(wrong, values, f"as {expected}", _OBJECT_FAMILIES.get(next(iter(types - set(allowed))), ""))
        return self._from_objects(values, types)

    def _from_objects(self, values: list[Any], types: set[type]) -> pa.Array:
        family = self.column.family
        if family in ("date", "timestamp", "instant"):
            return self._moments(values, types)
        if family in ("int", "decimal") and types - {int}:
            return self._decimals(values)
        if family == "time":
            zoned = [value is not None and value.tzinfo is not None for value in values]
            self._refuse(zoned, values, "without a zone", "time")  # Arrow would drop it
        if uuid.UUID in types:
            values = [str(value) if isinstance(value, uuid.UUID) else value for value in values]
        # Straight into float32 would round without a word; `_cast` does not.
        arrow = pa.float64() if family == "float" else self.column.arrow
        return self._built(values, arrow)

    def _built(self, values: list[Any], arrow: pa.DataType, shown_values: list[Any] | None = None) -> pa.Array:
        def build(some: list[Any]) -> pa.Array:
            return pa.array(some, arrow)

        try:
            return build(values)
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            self._refuse(_culprits(build, values), shown_values or values, "and these cannot be held exactly", "")
            raise

    def _decimals(self, values: list[Any]) -> pa.Array:
        """Floats by their shortest text, as in Arrow; then all as decimals, where nothing is rounded."""
        want = self.column.family
        limit = 2.0**53 if want == "int" else 10.0 ** (_DOUBLE_DIGITS_MAX - self.column.precision[1])
        large = [type(value) is float and not abs(value) < limit for value in values]
        self._refuse(large, values, "and floats as large as these are not exact", "float")
        exact = [decimal.Decimal(repr(value)) if type(value) is float else value for value in values]
        # Before anything is computed with them: of such an exponent an integer has a billion digits.
        beyond = [isinstance(value, decimal.Decimal) and not is_arrow_decimal(value) for value in exact]
        self._refuse(beyond, values, "and these cannot be held exactly", "")
        if want == "decimal":
            return self._built(exact, self.column.arrow, values)
        unfit = [value is not None and value != int(value) for value in exact]
        self._refuse(unfit, values, "and these have a fraction", "float")
        return self._built([None if value is None else int(value) for value in exact], self.column.arrow, values)

    def _moments(self, values: list[Any], types: set[type]) -> pa.Array:
        """Dates and datetimes, by the zones that they have; not by `pd.to_datetime`, which overflows
        where a Timestamp of nanoseconds stands beside the year 9999."""
        aware = self.column.family == "instant"
        wrong_zone = [isinstance(v, dt.datetime) and (v.tzinfo is not None) != aware for v in values]
        words = ("with", "instant") if not aware else ("without", "timestamp")
        self._refuse(wrong_zone, values, f"not {words[0]} {'one' if aware else 'a zone'}", words[1])
        fine = [getattr(value, "nanosecond", 0) != 0 for value in values]
        self._refuse(fine, values, "and these are finer than microseconds", self.column.family)
        if types == {dt.date}:
            return pa.array(values, pa.date32())
        whole = [_midnight(value) for value in values]
        return self._built(whole, pa.timestamp("us", "UTC" if aware else None), values)

    # Checks

    def _checked(self, values: pa.Array) -> pa.Array:
        """What the Arrow type does not say."""
        column = self.column
        if column.kind == "UUID":
            values = pc.utf8_lower(values)
            self._check(pc.match_substring_regex(values, _UUID), values, "in the form of a uuid")
        if column.kind == "JSON":
            self._check(_is_json(values), values, "that is JSON", "json.dumps(...) makes it")
        if column.kind == "ENUM":
            labels = pa.array(column.labels, values.type)
            self._check(pc.is_in(values, value_set=labels), values, f"that is one of {shown(column.labels)}")
        if column.family in DAYS:
            self._check(in_years(values), values, "of the years 1 to 9999")
        self._check_held(values)
        if not column.nullable and values.null_count:
            self._refuse_unless_known(
                pc.is_null(values), values, "and NULL is not allowed", "give a value, or drop the rows"
            )
        return values

    def _check_held(self, values: pa.Array) -> None:
        """Refuse what the back end would change, as it holds less than the type does."""
        held, family = self.column.held_as, self.column.family
        if held == "numeric text" and family == "text":
            number = pc.match_substring_regex(values, _SQLITE_NUMBER)
            self._check(pc.invert(number), values, "that SQLite does not read as a number", "declare the column TEXT")
        if held == "no nul" and family == "text":
            whole = pc.invert(pc.match_substring(values, "\x00"))
            self._check(whole, values, "without the character U+0000, which the back end cannot hold")
        if held == "numeric" and family == "decimal":
            few = pc.less_equal(_digits(values), _DOUBLE_DIGITS_MAX)
            hint = "over SQLite declare it DECTEXT; services of this protocol keep no more"
            self._check(few, values, f"of at most {_DOUBLE_DIGITS_MAX} digits, as the back end keeps", hint)
        if held == "int64" and values.type == pa.uint64():
            small = pc.less_equal(values, pa.scalar(2**63 - 1, pa.uint64()))
            self._check(small, values, "up to 2**63 - 1, as the back end keeps")
        if held == "int53" and family == "int":
            self._check(_are_doubles(values), values, "of at most 2**53, as the back end keeps")
        if held == "finite" and family == "float":
            self._check(pc.invert(pc.is_inf(values)), values, "that is finite: the service's JSON has no infinity")
        if held == "ms" and family in ("time", "timestamp", "instant"):
            floored = None if family == "time" else f'df[{self.column.name!r}].dt.floor("ms")'
            self._check(_are_milliseconds(values), values, "in whole milliseconds, as the back end keeps", floored)

    def _check(self, good: pa.Array, values: pa.Array, expected: str, hint: str | None = None) -> None:
        wrong = pc.and_(pc.is_valid(values), pc.invert(pc.fill_null(good, False)))
        self._refuse_unless_known(wrong, values, expected, hint)

    def _refuse_unless_known(self, wrong: pa.Array, values: pa.Array, why: str, hint: str | None) -> None:
        if pc.any(wrong).as_py():
            self._refuse(self._not_known(np.asarray(wrong), values), values, why, hint=hint)

    def _not_known(self, wrong: np.ndarray, values: pa.Array) -> np.ndarray:
        """Leave out what was handed out just so: a back end may hold what the schema forbids, and a
        frame that nobody edited stages nothing."""
        if self.known is None or self.keys is None:
            return wrong
        at = np.flatnonzero(wrong)
        at_new, at_known = matched(self.known.select(self.keys.column_names), self.keys.take(pa.array(at)))
        known = one_chunk(self.known[self.column.name]).take(pa.array(at_known))
        still = wrong.copy()
        still[at[at_new]] = distinct(known, values.take(pa.array(at[at_new])))
        return still

    # Words

    def _refuse(self, wrong: Any, values: Any, why: str, have: str | None = None, hint: str | None = None) -> None:
        """Raise, naming the rows where `wrong` is true; nothing if there are none."""
        at = np.flatnonzero(
            np.asarray(pc.fill_null(wrong, False) if isinstance(wrong, pa.Array) else wrong, dtype=bool)
        )
        if not len(at):
            return
        column = self.column
        named = ", ".join(f"{_text(_cell(values, i))} in {self._row(int(i))}" for i in at[:NAMES_SHOWN])
        more = ", ..." if len(at) > NAMES_SHOWN else ""
        count = "1 value does" if len(at) == 1 else f"{len(at)} values do"
        known_hint = _HINTS.get((have or "", column.family))
        raise SchemaError(
            f"column {column.name!r} ({column.type}) takes {_TAKES[column.family]}, {why}: "
            f"{count} not fit: {named}{more}",
            hint=hint or (known_hint or _MEND).format(column.name),
        )

    def _row(self, at: int) -> str:
        if self.keys is None:
            return f"row {at} (counted from 0)"
        key = tuple(values[at].as_py() for values in self.keys.columns)
        return f"row {_text(key[0] if len(key) == 1 else key)}"


_OBJECT_FAMILIES: dict[type, str] = {
    bool: "bool", int: "int", float: "float", decimal.Decimal: "decimal", str: "text", bytes: "bytes",
    bytearray: "bytes", dt.date: "date", dt.datetime: "timestamp", pd.Timestamp: "timestamp", dt.time: "time",
}  # fmt: skip


def _cell(values: Any, at: int) -> Any:
    value = values[int(at)]
    return value.as_py() if isinstance(value, pa.Scalar) else value


def _text(value: Any) -> str:
    shown_value = "NULL" if value is None else repr(value)
    return shown_value if len(shown_value) <= SHOWN_CHARACTERS_MAX else shown_value[: SHOWN_CHARACTERS_MAX - 3] + "..."


def _is_object(dtype: Any) -> bool:
    """Of a series, not of its array: `series.array.dtype == object` is False."""
    if isinstance(dtype, pd.CategoricalDtype):
        return not isinstance(dtype.categories.dtype, pd.StringDtype)
    return bool(dtype.kind == "O" and isinstance(dtype, np.dtype))


def _dense(given: Any) -> Any:
    dtype = given.dtype
    if isinstance(dtype, pd.SparseDtype) or dtype == np.float16:
        return np.asarray(given, dtype=np.float64 if dtype == np.float16 else dtype.subtype)
    return given.array


def _plain(value: Any) -> Any:
    """A cell as Python has it; all that pandas takes for missing is None."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.datetime64):
        return _plain(pd.Timestamp(value))
    if isinstance(value, np.generic):
        value = value.item()
    is_nan = value.is_nan() if isinstance(value, decimal.Decimal) else isinstance(value, float) and value != value
    return None if is_nan else value


def _midnight(value: Any) -> Any:
    is_day = isinstance(value, dt.date) and not isinstance(value, dt.datetime)
    return dt.datetime.combine(value, dt.time()) if is_day else value


def one_chunk(values: Any) -> pa.Array:
    if not isinstance(values, pa.ChunkedArray):
        return values
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()


def nan_is_null(values: pa.Array) -> pa.Array:
    """pandas and SQLite cannot tell them apart, so for us they are one."""
    if not pa.types.is_floating(values.type) or not pc.any(pc.is_nan(values)).as_py():
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _decoded(values: Any) -> pa.Array:
    """Dictionaries, runs and JSON as the plain values that they stand for."""
    if pa.types.is_dictionary(values.type) and isinstance(values, pa.ChunkedArray) and values.num_chunks > 1:
        # Each chunk has a dictionary of its own, and those of polars' text cannot be made one.
        return pa.concat_arrays([_decoded(chunk) for chunk in values.chunks])
    values = one_chunk(values)
    if pa.types.is_dictionary(values.type):
        labels = values.dictionary
        # Arrow cannot take from the views that polars hands over.
        labels = labels.cast(_WIDE[labels.type]) if labels.type in _WIDE else labels
        return labels.take(values.indices)
    if pa.types.is_run_end_encoded(values.type):
        return pc.run_end_decode(values)
    if isinstance(values.type, pa.JsonType):
        return values.storage
    return values.cast(pa.float32()) if values.type == pa.float16() else values


_WIDE = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


def _family(arrow: pa.DataType) -> str:
    """What a type says, apart from its width; an unknown type's own name."""
    for name, is_of in _FAMILIES:
        if is_of(arrow):
            return name
    if pa.types.is_timestamp(arrow):
        return "instant" if arrow.tz else "timestamp"
    return f"{arrow} values"


def _is_text(arrow: pa.DataType) -> bool:
    return arrow in (pa.string(), pa.large_string(), pa.string_view())


def _is_bytes(arrow: pa.DataType) -> bool:
    return arrow in (pa.binary(), pa.large_binary(), pa.binary_view()) or pa.types.is_fixed_size_binary(arrow)


_FAMILIES: list[tuple[str, Callable[[pa.DataType], bool]]] = [
    ("bool", pa.types.is_boolean), ("int", pa.types.is_integer), ("float", pa.types.is_floating),
    ("decimal", pa.types.is_decimal), ("text", _is_text), ("bytes", _is_bytes), ("date", pa.types.is_date),
    ("time", pa.types.is_time),
]  # fmt: skip


def _conversion(have: str, want: str, arrow: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    if (have, want) == ("float", "decimal"):
        # By the shortest text: a cast would round.
        return lambda values: values.cast(pa.string()).cast(arrow)
    if (have, want) == ("int", "decimal"):
        # pyarrow refuses an int64 in any decimal of less than 19 digits before the point.
        return lambda values: values.cast(pa.decimal256(76, arrow.scale)).cast(arrow)
    return lambda values: values.cast(arrow)


def _culprits(convert: Callable[[Any], Any], values: Any) -> np.ndarray:
    """Where `convert` fails, found by halving; it stops counting at CULPRITS_MAX."""
    wrong = np.zeros(len(values), dtype=bool)
    spans = [(0, len(values))]
    while spans and wrong.sum() < CULPRITS_MAX:
        start, end = spans.pop()
        try:
            convert(values[start:end])
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            middle = (start + end) // 2
            if end - start == 1:
                wrong[start] = True
            else:
                spans += [(middle, end), (start, middle)]
    return wrong


def _are_doubles(values: pa.Array) -> pa.Array:
    """Whether whole numbers are among those that a double holds, all of them."""
    limit = 2**53
    if pa.types.is_unsigned_integer(values.type):
        return pc.less_equal(values.cast(pa.uint64()), pa.scalar(limit, pa.uint64()))
    whole = values.cast(pa.int64())
    return pc.and_(pc.less_equal(whole, limit), pc.greater_equal(whole, -limit))


def _are_milliseconds(values: pa.Array) -> pa.Array:
    micros = values.cast(pa.int64())
    return pc.equal(micros, pc.multiply(pc.divide(micros, 1_000), 1_000))


def _digits(values: pa.Array) -> pa.Array:
    """How many digits of a decimal count: neither leading nor trailing zeros do."""
    text = pc.replace_substring_regex(values.cast(pa.string()), r"[eE].*$", "")
    digits = pc.replace_substring_regex(text, "[^0-9]", "")
    return pc.utf8_length(pc.utf8_trim(digits, "0"))


def _is_json(values: pa.Array) -> pa.Array:
    with stoppable(), closing(cursor()) as connection:
        connection.register("given", pa.table({"x": values}))
        good = one_chunk(connection.sql("select json_valid(x) as good from given").to_arrow_table()["good"])
    doubtful = pc.and_(pc.fill_null(good, False), pc.fill_null(pc.match_substring_regex(values, _JSON_DOUBTFUL), False))
    if not pc.any(doubtful).as_py():
        return good
    really = [_is_strict_json(text) for text in values.filter(doubtful).to_pylist()]
    return pc.replace_with_mask(good, doubtful, pa.array(really, pa.bool_()))


def _is_strict_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


# Sets of rows ---------------------------------------------------------------------------------------------------------

_connections: dict[int, duckdb.DuckDBPyConnection] = {}  # by process
_connecting = threading.Lock()


def cursor() -> duckdb.DuckDBPyConnection:
    """A cursor of its own on a DuckDB in memory, which holds nothing; close it when done."""
    with _connecting:
        # A process that was forked has none of its parent's threads: using the parent's connection,
        # or closing it, would wait for them for ever.
        if os.getpid() not in _connections:
            made = duckdb.connect(":memory:")
            # Large text is pandas' own type: it is then handed over without a copy.
            made.execute("set global timezone = 'UTC'; set global arrow_large_buffer_size = true")
            _connections[os.getpid()] = made
        return _connections[os.getpid()].cursor()


def matched(base: pa.Table, new: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of `new` and of `base` where the keys are equal, in no order.

    Both have the key columns alone.  A key that is there twice comes in as many pairs; NULL matches
    nothing.
    """
    on = " and ".join(f"base.{quote(name)} = new.{quote(name)}" for name in base.column_names)
    with stoppable(), closing(cursor()) as connection:
        connection.register("base", _numbered(base))
        connection.register("new", _numbered(new))
        pairs = connection.sql(
            f"""
            select new.{_AT} as new, base.{_AT} as base
              from new
              join base on {on}
            """
        ).to_arrow_table()
    return pairs["new"].to_numpy(), pairs["base"].to_numpy()


_AT = "_syncframe_at"


def _numbered(keys: pa.Table) -> pa.Table:
    return keys.append_column(_AT, pa.array(np.arange(len(keys))))


def distinct(old: Any, now: Any) -> np.ndarray:
    """SQL's IS DISTINCT FROM: a missing value equals a missing one."""
    differs = pc.fill_null(pc.not_equal(old, now), False)
    if old.null_count or now.null_count:
        differs = pc.or_(differs, pc.xor(pc.is_null(old), pc.is_null(now)))
    return np.asarray(differs)
