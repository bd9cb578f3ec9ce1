"""A value as a person types it, read into its column's type, or refused in words for who typed it.

Text is read as `texts` writes it, so that what is shown can be typed, and then held to what a frame is held to: what
`normalise` refuses of a DataFrame is refused here, but the words name no row and no line of Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa

from . import words
from .errors import SchemaError
from .frame import normalise
from .schema import Column, Schema
from .texts import OFFSET, is_arrow_decimal, parsed, written

DIGITS_MAX = 400  # of a number that is read at all; none that is kept has more
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)

# By kind, else by family: what a text is that cannot be read, and one that can.
_WANTED = {
    "bool": ("neither true nor false", "true"),
    "int": ("no whole number", "12"),
    "float": ("no number", "1.5"),
    "decimal": ("no decimal number", "1.5"),
    "text": ("no text", "abc"),
    "bytes": ("not bytes in hex", "00ff"),
    "date": ("no date", "2026-01-31"),
    "time": ("no time of day", "10:30:00"),
    "timestamp": ("no date and time without a zone", "2026-01-31T10:30:00"),
    "instant": ("no date and time with a zone", "2026-01-31T10:30:00Z or 2026-01-31T12:30:00+02:00"),
    "UUID": ("no uuid", "6f9619ff-8b86-4011-b42d-00c04fc964ff"),
    "JSON": ("no JSON", '{"a": 1}'),
}


def typed(text: str | None, column: Column) -> pa.Array:
    """Return a typed text as one value of `column`'s type; None is NULL.

    Raises
    ------
    SchemaError
        If it is no value of the type, or one that the column does not take; says what is expected, with an example.
    """
    if text is None:
        return _nothing(column)
    given = text if column.family == "text" and column.kind != "UUID" else text.strip()
    if not given and column.kind != "VARCHAR":
        raise SchemaError(f"an empty text is {_wanted(column)[0]} ({_named(column)})", hint=_hint_of_empty(column))
    try:
        values = _READERS.get(column.family, _plain)(given, column)
    except (pa.ArrowException, ArithmeticError, ValueError) as error:
        if isinstance(error, SchemaError):
            raise
        raise _refused(given, _wanted(column)[0], column) from error
    return _held(values, given, column)


def kept(text: str | None, column: Column) -> str | None:
    """A typed text as it will be kept and shown; it is refused as `typed` does."""
    return written(typed(text, column), column)[0]


def _nothing(column: Column) -> pa.Array:
    if not column.nullable:
        raise SchemaError(f"NULL is not allowed ({_named(column)})", hint=f"a value, such as {_example(column)}")
    return pa.nulls(1, column.arrow)


def _plain(text: str, column: Column) -> pa.Array:
    return parsed([text], column)


def _whole(text: str, column: Column) -> pa.Array:
    if not _WHOLE.fullmatch(text) or len(text) > DIGITS_MAX:
        raise ValueError(text)
    try:
        return parsed([str(int(text))], column)
    except pa.ArrowInvalid as error:
        raise _refused(text, f"beyond what {column.type} holds", column) from error


def _number(text: str, column: Column) -> pa.Array:
    """A floating number whose shortest text is what was typed: another one would be kept unseen."""
    if _INFINITE.fullmatch(text):
        return parsed([text], column)
    number = _decimal_of(text)
    values = parsed([text], column)
    nearest = written(values, column)[0] or ""
    if Decimal(nearest) != number:
        raise _refused(text, f"not held exactly: the nearest is {nearest}", column)
    return values


def _decimal(text: str, column: Column) -> pa.Array:
    number, (digits, scale) = _decimal_of(text), column.precision
    try:
        if not is_arrow_decimal(number):
            raise pa.ArrowInvalid(text)
        return parsed([format(number, "f")], column)
    except pa.ArrowInvalid as error:
        holds = f"{digits - scale} digits before the point and {scale} after it"
        raise _refused(text, f"more than {holds}", column) from error


def _decimal_of(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text) or len(text) > DIGITS_MAX:
        raise ValueError(text)
    return Decimal(text)


def _instant(text: str, column: Column) -> pa.Array:
    """A moment of a named zone: another than one's own would be kept unseen."""
    if not re.search(OFFSET, text):
        raise ValueError(text)
    return parsed([text], column)


_READERS: dict[str, Callable[[str, Column], pa.Array]] = {
    "int": _whole,
    "float": _number,
    "decimal": _decimal,
    "instant": _instant,
}


def _held(values: pa.Array, text: str, column: Column) -> pa.Array:
    """What a frame with this value would be refused for."""
    key = Column(f"{column.name}_key", "VARCHAR", False)
    one = pa.table({key.name: ["one"], column.name: values})
    try:
        return normalise(one, Schema((key, replace(column, nullable=True)), (key.name,))).rows[column.name].chunk(0)
    except SchemaError as error:
        if column.kind in _WANTED:
            raise _refused(text, _wanted(column)[0], column) from error
        why = error.message.partition(": 1 value does not fit")[0]
        raise SchemaError(f"{words.cell(text)} does not fit: {why}", hint=f"such as {_example(column)}") from error


def _refused(text: str, what: str, column: Column) -> SchemaError:
    shown = words.cell(text.encode("utf-8", "replace").decode())
    return SchemaError(f"{shown} is {what} ({_named(column)})", hint=f"such as {_example(column)}")


def _hint_of_empty(column: Column) -> str:
    return "choose NULL to leave it empty" if column.nullable else f"a value, such as {_example(column)}"


def _wanted(column: Column) -> tuple[str, str]:
    return _WANTED.get(column.kind) or _WANTED[column.family]


def _example(column: Column) -> str:
    return column.labels[0] if column.labels else _wanted(column)[1]


def _named(column: Column) -> str:
    return f"column {column.name!r}, {column.type}"
