"""The Datasync protocol as data: a table's rows as JSON objects and back, text ids, ETags and dates.

Client and server read and write by this one file, so that both have one meaning.  A value is written
so that no client of the family changes it unseen: a number that a double does not hold exactly goes as
text, a time has three digits after its seconds, or six where it has more to say.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import MAXYEAR, MINYEAR
from decimal import Decimal
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .errors import KeyColumnError, SchemaError
from .schema import PAGE_NAMES, SYSTEM_COLUMNS, Column, Schema, shown
from .texts import is_arrow_decimal, parsed, written

SYSTEM = SYSTEM_COLUMNS
CREATED_AT, UPDATED_AT, VERSION, DELETED = SYSTEM
ID = "id"
ID_LENGTH_MAX = 127
DOUBLE_DIGITS = 15  # a decimal of as many digits survives as a double
DOUBLE_WHOLE = 2**53  # and a whole number up to this

ARROW = "application/vnd.apache.arrow.stream"  # the extension's streams
LEFT = "_syncframe_left"  # and their column that says whether a row has left its query

_OPERATION = "_syncframe_operation"
_STAMP = Column(UPDATED_AT, "TIMESTAMPTZ")


class Wire:
    """One table's rows on the wire.

    Parameters
    ----------
    schema
        The table's.
    is_foreign
        The service is not ours: a key that is one text column `id` is its id as it stands, and JSON
        columns are objects, not texts.
    """

    def __init__(self, schema: Schema, *, is_foreign: bool = False) -> None:
        self.schema = schema
        self.is_foreign = is_foreign
        self.is_text_id = len(schema.key) == 1 and schema.key_columns[0].family == "text"
        # What is sent as `id` is not sent a second time.
        self.columns = [c for c in schema.columns if (c.name,) != schema.key or c.name != ID]
        self._spelt = {name.lower(): name for name in schema.names}

    # Ids

    @property
    def has_id(self) -> bool:
        """Whether the key is one text column named `id`."""
        return self.is_text_id and self.schema.key == (ID,)

    def ids(self, rows: pa.Table) -> list[str]:
        """The text ids of rows.

        Raises
        ------
        KeyColumnError
            If a key is missing or its id would be longer than every client takes.
        """
        parts = [_key_texts(rows[c.name], c) for c in self.schema.key_columns]
        if self.is_text_id and (self.is_foreign or all(map(_is_simple, parts[0]))) and None not in parts[0]:
            return parts[0]  # type: ignore[return-value]
        return [self._id(texts) for texts in zip(*parts, strict=True)]

    def id_of(self, key: Sequence[Any]) -> str:
        """The text id of one key, given as its parts."""
        arrays = [pa.array([part], c.arrow) for part, c in zip(key, self.schema.key_columns, strict=True)]
        return self.ids(pa.table(arrays, names=list(self.schema.key)))[0]

    def _id(self, texts: Sequence[str | None]) -> str:
        if None in texts:
            raise KeyColumnError(f"a key of {shown(self.schema.key)} is NULL", hint="a key is never NULL")
        known = [text for text in texts if text is not None]
        if self.is_text_id and (self.is_foreign or is_plain_id(known[0])):
            return known[0]
        id_ = encoded_id(known)
        if len(id_) > ID_LENGTH_MAX:
            raise KeyColumnError(
                f"the key {shown(known)} makes an id of {len(id_)} characters, and one has at most {ID_LENGTH_MAX}",
                hint="services of this protocol take no longer ones; make the key shorter",
            )
        return id_

    def key_of(self, id_: str) -> tuple[Any, ...]:
        """The key's values that a text id stands for.

        Raises
        ------
        KeyColumnError
            If it is the id of no key of this table.
        """
        if self.is_text_id and (self.is_foreign or is_plain_id(id_)) and self.schema.key_columns[0].kind != "UUID":
            return (id_,)
        parts = [id_] if self.is_text_id and self.is_foreign else decoded_id(id_)
        try:
            columns = zip(parts, self.schema.key_columns, strict=True)
            key = tuple(_key_value(part, column) for part, column in columns)
        except (ValueError, TypeError, ArithmeticError, pa.ArrowException):
            raise KeyColumnError(f"{id_[:200]!r} is the id of no row of this table") from None
        if self.id_of(key) != id_:
            raise KeyColumnError(f"{id_[:200]!r} is no id in its canonical form, {self.id_of(key)!r}")
        return key

    # Rows

    def objects(
        self, rows: pa.Table, names: Sequence[str] | None = None, system: Sequence[str] = SYSTEM
    ) -> list[dict[str, Any]]:
        """Rows of a page as JSON objects, in their order.

        Parameters
        ----------
        rows
            As a back end gives them.
        names
            The columns to show (None: all), `id` among them or not.
        system
            The system columns to show.
        """
        fields: dict[str, Sequence[Any]] = {}
        if names is None or ID in names:
            fields[ID] = self.ids(rows)
        for column in self.columns:
            if column.name in rows.column_names and (names is None or column.name in names):
                fields[column.name] = cells_out(rows[column.name], column, nested=self.is_foreign)
        for name in system:
            cells = rows[PAGE_NAMES[name]]
            fields[name] = cells_out(cells, _STAMP) if name in (CREATED_AT, UPDATED_AT) else cells.to_pylist()
        return [dict(zip(fields, cells, strict=True)) for cells in zip(*fields.values(), strict=True)]

    def table(self, objects: Sequence[Mapping[str, Any]]) -> pa.Table:
        """JSON objects as rows of a page; columns that they have not are NULL.

        Raises
        ------
        SchemaError
            If a value does not fit its column; names row, column and value.
        """
        arrays, names = [], []
        keys = self._keys(objects)
        for column in self.schema.columns:
            is_key = column.name in keys
            arrays.append(keys[column.name] if is_key else self._column(objects, column))
            names.append(column.name)
        for name, page_name in PAGE_NAMES.items():
            arrays.append(self._system(objects, name))
            names.append(page_name)
        arrays.append(pa.nulls(len(objects), pa.string()))
        return pa.Table.from_arrays(arrays, names=[*names, _OPERATION])

    def _keys(self, objects: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
        try:
            keys = [self.key_of(object_[ID]) for object_ in objects]
        except (KeyError, AttributeError, TypeError) as error:
            if isinstance(error, KeyColumnError):
                raise
            raise SchemaError("a row of the service has no text id", hint="is this a Datasync table?") from error
        columns = list(zip(*keys, strict=True)) or [()] * len(self.schema.key)
        return {c.name: pa.array(part, c.arrow) for c, part in zip(self.schema.key_columns, columns, strict=True)}

    def _column(self, objects: Sequence[Mapping[str, Any]], column: Column) -> pa.Array:
        cells = [object_.get(column.name) for object_ in objects]
        try:
            return cells_in(cells, column)
        except ValueError:
            index = next(i for i, cell in enumerate(cells) if not _fits(cell, column))
            raise SchemaError(
                f"row {objects[index].get(ID)!r}: column {column.name!r} is {column.type}, and the service sent "
                f"{str(cells[index])[:100]!r}",
                hint=f'give its type: connect(..., schema={{"table": {{"{column.name}": ...}}}})',
            ) from None

    def _system(self, objects: Sequence[Mapping[str, Any]], name: str) -> pa.Array:
        cells = [object_.get(name) for object_ in objects]
        if name == DELETED:
            return pa.array([cell is True for cell in cells], pa.bool_())
        if name == VERSION:
            return pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
        return cells_in(cells, _STAMP)

    def values(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """One object's columns as Python values, the key's left out where `id` stands for them, and unknown names.

        Raises
        ------
        SchemaError
            If a value does not fit its column.
        """
        found: dict[str, Any] = {}
        unknown = []
        for name, cell in body.items():
            spelt = name if name in self.schema else self._spelt.get(name.lower())
            if name in SYSTEM or name == ID or (spelt is None and name.lower() in _SYSTEM_SPELT):
                continue
            if spelt is None:
                unknown.append(name)
                continue
            try:
                found[spelt] = cells_in([cell], self.schema[spelt])[0].as_py()
            except ValueError as error:
                raise SchemaError(f"column {spelt!r} is {self.schema[spelt].type}: {error}") from None
        return found, unknown


_SYSTEM_SPELT = frozenset({ID, *(name.lower() for name in SYSTEM)})


# Ids


_ID_FORM = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.|:-]{0,126}")
_SIMPLE = re.compile(r"[a-wyzA-Z0-9][a-zA-Z0-9.|:-]{0,126}")  # stands for itself, and quickly told
_KEPT = re.compile(rb"[0-9a-z.:-]")
_ESCAPED = re.compile(r"_([0-9a-f]{2})")
_ENCODED = re.compile(r"(?:[0-9a-z.:|-]|_[0-9a-f]{2})*")
_EMPTY_ID = "x_"


def _is_simple(text: str | None) -> bool:
    return text is not None and _SIMPLE.fullmatch(text) is not None


def encoded_id(parts: Sequence[str]) -> str:
    """The id of a key's texts: joined by `|`, other bytes than `[0-9a-z.:-]` as `_` and two hex digits."""
    body = "|".join("".join(_byte(byte) for byte in part.encode()) for part in parts)
    if not body:
        return _EMPTY_ID
    if not body[0].isalnum():
        return f"x{body}"
    # An x of the key's own is not taken for the one that goes before what is not alphanumeric.
    return f"x_78{body[1:]}" if body[0] == "x" and body[1:2] and not body[1].isalnum() else body


def decoded_id(id_: str) -> list[str]:
    """The texts that `encoded_id` made an id of; KeyColumnError if it made none such."""
    if id_ == _EMPTY_ID:
        return [""]
    body = id_[1:] if id_[:1] == "x" and id_[1:2] and not id_[1].isalnum() else id_
    if not _ENCODED.fullmatch(body):
        raise KeyColumnError(f"{id_[:200]!r} is no id in its canonical form")
    try:
        return [_unescaped(part) for part in body.split("|")]
    except UnicodeDecodeError:
        raise KeyColumnError(f"{id_[:200]!r} is no id in its canonical form") from None


def is_plain_id(text: str) -> bool:
    """Whether a text key is its own id: it has the form, and no other key's id is spelt like it."""
    if _SIMPLE.fullmatch(text):
        return True
    if not _ID_FORM.fullmatch(text):
        return False
    try:
        parts = decoded_id(text)
    except KeyColumnError:
        return True
    return len(parts) > 1 or parts[0] == text or encoded_id(parts) != text or is_plain_id(parts[0])


def _byte(byte: int) -> str:
    return chr(byte) if _KEPT.match(bytes([byte])) else f"_{byte:02x}"


def _unescaped(text: str) -> str:
    pieces = _ESCAPED.split(text)  # between two escapes stands plain text
    return b"".join(p.encode() if i % 2 == 0 else bytes([int(p, 16)]) for i, p in enumerate(pieces)).decode()


def _key_texts(values: pa.ChunkedArray, column: Column) -> list[str | None]:
    if column.family == "float":
        raise KeyColumnError(f"the key column {column.name!r} is {column.type}: a float is no id")
    if column.family == "text" and column.kind != "UUID":
        texts: list[str | None] = values.to_pylist()
        return texts
    if column.family == "bool":
        return [None if value is None else str(value).lower() for value in values.to_pylist()]
    return written(values, column)


def _key_value(text: str, column: Column) -> Any:
    if column.family == "text" and column.kind != "UUID":
        return text
    if column.family == "bool":
        return {"true": True, "false": False}[text]
    return parsed([text], column)[0].as_py()


# Cells


def cells_out(values: pa.Array | pa.ChunkedArray, column: Column, *, nested: bool = False) -> list[Any]:
    """Values as JSON has them; `nested`: a JSON column's as objects, not as text."""
    write = _OUT.get(column.family)
    if write is not None:
        return write(values, column)
    cells: list[Any] = values.to_pylist()
    return [_object(cell) for cell in cells] if nested and column.kind == "JSON" else cells


def cells_in(cells: Sequence[Any], column: Column) -> pa.Array:
    """JSON values as values of a column; ValueError names one that would have to be changed."""
    kinds = set(map(type, cells)) - {type(None)}
    if not kinds:
        return pa.nulls(len(cells), column.arrow)
    if column.kind == "JSON":
        return pa.array([None if c is None else _json_text(c) for c in cells], column.arrow)
    if not kinds <= _IN_KINDS[column.family]:
        odd = next(cell for cell in cells if cell is not None and type(cell) not in _IN_KINDS[column.family])
        raise ValueError(f"{str(odd)[:100]!r} is a JSON {_JSON_WORDS.get(type(odd), 'value')}")
    read = _IN.get(column.family, _as_texts)
    try:
        return read(cells, column)
    except (ValueError, TypeError, ArithmeticError) as error:  # ArrowInvalid is a ValueError
        if len(cells) > 1:
            odd = next(cell for cell in cells if not _fits(cell, column))
            raise ValueError(f"{str(odd)[:100]!r} is no {column.type}") from error
        raise ValueError(f"{str(cells[0])[:100]!r} is no {column.type}") from error


def _fits(cell: Any, column: Column) -> bool:
    try:
        cells_in([cell], column)
    except ValueError:
        return False
    return True


def _ints_out(values: pa.ChunkedArray, _: Column) -> list[Any]:
    bounds = pc.min_max(values).as_py()
    if bounds["min"] is None or (bounds["min"] >= -DOUBLE_WHOLE and bounds["max"] <= DOUBLE_WHOLE):
        cells: list[Any] = values.to_pylist()
        return cells
    return [str(v) if v is not None and abs(v) > DOUBLE_WHOLE else v for v in values.to_pylist()]


def _floats_out(values: pa.ChunkedArray, _: Column) -> list[Any]:
    # OData JSON Format 4.01, 7.1.
    cells = values.to_pylist()
    return [v if v is None or math.isfinite(v) else _infinity(v) for v in cells]


def _infinity(value: float) -> str | None:
    return None if math.isnan(value) else "INF" if value > 0 else "-INF"


def _decimals_out(values: pa.ChunkedArray, _: Column) -> list[Any]:
    return [None if value is None else _decimal_out(value) for value in values.to_pylist()]


def _decimal_out(value: Decimal) -> float | int | str:
    if len(value.normalize().as_tuple().digits) > DOUBLE_DIGITS:
        return format(value, "f")
    return int(value) if value == value.to_integral_value() and abs(value) <= DOUBLE_WHOLE else float(value)


def _bytes_out(values: pa.ChunkedArray, _: Column) -> list[Any]:
    return [None if value is None else base64.b64encode(value).decode() for value in values.to_pylist()]


def _times_out(values: pa.ChunkedArray, column: Column) -> list[Any]:
    texts = pc.replace_substring_regex(pa.array(written(values, column), pa.string()), r"(:\d\d)(Z?)$", r"\1.000\2")
    cells: list[Any] = pc.replace_substring_regex(texts, r"(\.\d{3})000(Z?)$", r"\1\2").to_pylist()
    return cells


def _texts_out(values: pa.ChunkedArray, column: Column) -> list[Any]:
    return written(values, column)


_OUT: dict[str, Callable[[pa.ChunkedArray, Column], list[Any]]] = {
    "int": _ints_out,
    "float": _floats_out,
    "decimal": _decimals_out,
    "bytes": _bytes_out,
    "date": _texts_out,
    "time": _times_out,
    "timestamp": _times_out,
    "instant": _times_out,
}
_NUMBERS = {int, float, Decimal, str}
_IN_KINDS: dict[str, set[type]] = {
    "bool": {bool},
    "int": _NUMBERS,
    "float": _NUMBERS,
    "decimal": _NUMBERS,
    **{family: {str} for family in ("text", "bytes", "date", "time", "timestamp", "instant")},
}
_JSON_WORDS = {bool: "boolean", int: "number", float: "number", Decimal: "number", str: "string",
               list: "array", dict: "object"}  # fmt: skip


def _bools_in(cells: Sequence[Any], column: Column) -> pa.Array:
    return pa.array(cells, column.arrow)


def _ints_in(cells: Sequence[Any], column: Column) -> pa.Array:
    if set(map(type, cells)) <= {int, type(None)}:
        return pa.array(cells, column.arrow)
    return pa.array([None if cell is None else _whole(cell) for cell in cells], column.arrow)


_WHOLE = re.compile(r"-?\d{1,20}", re.ASCII)


def _whole(cell: Any) -> int:
    if isinstance(cell, int):
        return cell
    if isinstance(cell, str):
        if not _WHOLE.fullmatch(cell):
            raise ValueError(cell)
        return int(cell)
    # The bound first: a Decimal's exponent may be such that its integer has a billion digits.
    if not abs(cell) <= DOUBLE_WHOLE or cell != int(cell):
        raise ValueError(cell)
    return int(cell)


def _floats_in(cells: Sequence[Any], column: Column) -> pa.Array:
    return pa.array([None if cell is None else _double(cell) for cell in cells], pa.float64()).cast(column.arrow)


_INFINITIES = {"INF": math.inf, "-INF": -math.inf, "Infinity": math.inf, "-Infinity": -math.inf}
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def _double(cell: Any) -> float:
    if isinstance(cell, str) and not _NUMBER.fullmatch(cell):
        return _INFINITIES[cell] if cell in _INFINITIES else _refuse(cell)
    value = float(cell)
    if not math.isfinite(value) or (isinstance(cell, int) and int(value) != cell):
        _refuse(cell)
    return value + 0.0


def _refuse(cell: Any) -> Any:
    raise ValueError(cell)


def _decimals_in(cells: Sequence[Any], column: Column) -> pa.Array:
    return pa.array([None if cell is None else _decimal(cell) for cell in cells], column.arrow)


def _decimal(cell: Any) -> Decimal:
    if isinstance(cell, str) and not _NUMBER.fullmatch(cell):
        _refuse(cell)
    # A decimal that came as a double is what the double's shortest text says.
    value = Decimal(repr(cell) if isinstance(cell, float) else cell)
    return value if is_arrow_decimal(value) else _refuse(cell)


def _bytes_in(cells: Sequence[Any], column: Column) -> pa.Array:
    return pa.array([None if c is None else base64.b64decode(c, validate=True) for c in cells], column.arrow)


def _as_texts(cells: Sequence[Any], column: Column) -> pa.Array:
    if column.labels:
        for cell in cells:
            if cell is not None and cell not in column.labels:
                _refuse(cell)
    texts = pa.array(cells, pa.string())  # a lone surrogate ends here
    if column.family == "text" and column.kind != "UUID":
        return texts.cast(column.arrow)
    if column.family in ("time", "timestamp", "instant"):
        texts = pc.replace_substring_regex(texts, r"(\.\d{6})0+", r"\1")  # .NET writes seven digits
    if column.family == "timestamp":
        texts = pc.replace_substring_regex(texts, "Z$", "")  # .NET's DateTime has a Z and means no zone
    if column.family == "date":
        texts = pc.replace_substring_regex(texts, r"T00:00:00(\.0+)?Z?$", "")
    values = parsed(texts.to_pylist(), column)
    if column.family in ("date", "timestamp", "instant"):
        years = pc.min_max(pc.year(values)).as_py()
        if years["min"] is not None and not (years["min"] >= MINYEAR and years["max"] <= MAXYEAR):
            _refuse(cells[0])  # Arrow has years that neither Python nor ISO 8601 has
    return values


_IN: dict[str, Callable[[Sequence[Any], Column], pa.Array]] = {
    "bool": _bools_in,
    "int": _ints_in,
    "float": _floats_in,
    "decimal": _decimals_in,
    "bytes": _bytes_in,
}


def _object(cell: str | None) -> Any:
    try:
        return None if cell is None else loads(cell)
    except ValueError:
        return cell


def _json_text(cell: Any) -> str:
    return cell if isinstance(cell, str) else dumps(cell).decode()


# JSON


def loads(text: str | bytes, schema: Schema | None = None) -> Any:
    """Strict JSON, of which NaN is no part; numbers with a point are exact where the schema has decimals.

    Raises ValueError for what is no JSON, nested too deeply, or not UTF-8.
    """
    has_decimals = schema is not None and any(c.family == "decimal" for c in schema.columns)
    try:
        return json.loads(text, parse_float=Decimal if has_decimals else None, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8; a Decimal is a number with all its digits."""
    try:
        return _plain_json(value).encode()
    except TypeError:  # there is a Decimal in it, which json does not know
        return _exact_json(value).encode()


def _plain_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _exact_json(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_plain_json(str(name))}:{_exact_json(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_exact_json, value)) + "]"
    return _plain_json(value)


# Headers


def etag(version: str) -> str:
    """A version as a strong entity tag (RFC 9110, 8.8.3)."""
    escaped = version.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def version_of(tag: str | None) -> str | None:
    """The version in a strong entity tag; None for a weak one, which never is a version, and for what is none."""
    if tag is None or len(tag) < 2 or tag[0] != '"' or tag[-1] != '"':
        return None
    return re.sub(r'\\(["\\])', r"\1", tag[1:-1])


def http_date(moment: datetime.datetime) -> str:
    """A time as headers have it, in whole seconds (RFC 9110, 5.6.7)."""
    return format_datetime(moment.astimezone(datetime.UTC), usegmt=True)


def parse_http_date(text: str | None) -> datetime.datetime | None:
    """The time that a header names; None if it names none."""
    try:
        moment = None if text is None else parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    if moment is None:
        return None
    return moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)
