"""Values of the filter language: how a literal's text is read, and how one family becomes another.

Values cross families here and nowhere else.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from .tree import DIGITS_MAX, Call, Literal, Node

NULL = Literal(None, "null")
EXACT_LIMIT = 2**127
CONTEXT = decimal.Context(prec=120)


def retyped(node: Node, family: str) -> Node:
    """A NULL of no known family as one of `family`; anything else as it is."""
    return Literal(None, family) if node == NULL else node


def promoted(node: Node, family: str) -> Node:
    """`node` in a wider family: a literal is converted now, anything else when it is evaluated."""
    node = retyped(node, family)
    if node.family == family:
        return node
    if isinstance(node, Literal) and node.value is not None:
        return Literal(_WIDEN[family](node.value), family)
    return Call(f"to {family}", (node,), family)


def float32(value: Any) -> float:
    """The nearest single-precision number, as DuckDB makes one: out of range is infinite."""
    try:
        return float(struct.unpack("f", struct.pack("f", float(value)))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


_WIDEN: dict[str, Callable[[Any], Any]] = {
    "decimal": Decimal,
    "float32": float32,
    "float": float,
    "timestamp": lambda date: datetime.datetime(date.year, date.month, date.day),
}

_NUMBER_TEXT = re.compile(r"\d*(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
_DATE_TEXT = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME_TEXT = re.compile(r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?")
_TIMESTAMP_TEXT = re.compile(rf"{_DATE_TEXT.pattern}([ T]{_TIME_TEXT.pattern})?")
_INSTANT_TEXT = re.compile(rf"{_TIMESTAMP_TEXT.pattern}\s?(Z|[+-]\d{{2}}(:?\d{{2}})?)?")


def as_number(text: str) -> Literal:
    """A number as DuckDB types it: whole, decimal with a point, float with an exponent."""
    if not _NUMBER_TEXT.fullmatch(text):
        raise ValueError(f"{text!r} is not a number")
    if "e" in text.lower():
        return as_float(text)
    if "." in text:
        return as_decimal(text)
    return as_int(text)


def as_int(value: Any) -> Literal:
    number = Decimal(value)
    if number != number.to_integral_value() or number.copy_abs() >= EXACT_LIMIT:
        raise ValueError("a whole number of at most 127 bits is needed")
    return Literal(int(number), "int")


def as_decimal(value: Any) -> Literal:
    number = Decimal(value)
    # The exponent is bounded too: 1e999999999 would be written with a billion digits.
    if not number.is_finite() or max(len(number.as_tuple().digits), abs(number.adjusted()) + 1) > DIGITS_MAX:
        raise ValueError(f"a decimal has at most {DIGITS_MAX} digits")
    # 1.50 and 1.5 are one number, and so are -0 and 0; without an exponent, so that 100 does not become 1E+2.
    return Literal(Decimal(format(number.normalize(CONTEXT), "f")) if number else Decimal(0), "decimal")


def as_float(value: Any) -> Literal:
    number = float(value)
    if math.isnan(number) or (math.isinf(number) and "inf" not in str(value).lower()):
        raise ValueError("no double is as large, and NaN is NULL")
    return Literal(number + 0.0, "float")


def as_float32(value: Any) -> Literal:
    return Literal(float32(as_float(value).value), "float32")


def as_text(value: Any) -> Literal:
    if not isinstance(value, str):
        raise ValueError("write it as text")
    return Literal(value, "text")


def as_bool(value: Any) -> Literal:
    names = {"true": True, "false": False}
    if str(value).lower() not in names:
        raise ValueError("true or false is needed")
    return Literal(names[str(value).lower()], "bool")


def as_uuid(value: Any) -> Literal:
    return Literal(str(uuid.UUID(value)), "text")


def _matched(pattern: re.Pattern[str], value: Any, expected: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{expected} is needed")
    return value


def as_date(value: Any) -> Literal:
    return Literal(datetime.date.fromisoformat(_matched(_DATE_TEXT, value, "a date as 2024-02-29")), "date")


def as_time(value: Any) -> Literal:
    return Literal(datetime.time.fromisoformat(_matched(_TIME_TEXT, value, "a time as 10:30:00")), "time")


def as_timestamp(value: Any) -> Literal:
    text = _matched(_TIMESTAMP_TEXT, value, "a time as 2024-02-29 10:30:00, without an offset,")
    return Literal(datetime.datetime.fromisoformat(text), "timestamp")


def as_instant(value: Any) -> Literal:
    text = _matched(_INSTANT_TEXT, value, "a time as 2024-02-29 10:30:00+00")
    return Literal(_in_utc(text.replace(" ", "T", 1).replace(" ", "")), "instant")


def _in_utc(text: str) -> datetime.datetime:
    date, _, rest = text.partition("T")
    # An offset may follow a bare date, where Python's own reading takes none.
    match = re.fullmatch(r"(\d{4}-\d{2}-\d{2})(Z|[+-].*)", date) if not rest else None
    moment = datetime.datetime.fromisoformat(f"{match[1]}T00:00{match[2]}" if match else text)
    return moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)


FROM_TEXT: dict[str, Callable[[Any], Literal]] = {
    "date": as_date,
    "time": as_time,
    "timestamp": as_timestamp,
    "instant": as_instant,
}
