"""The functions that conditions written for SQLite call.

Between functions whole numbers above 64 bits and decimals travel as text, times as whole microseconds.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import math
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from .patterns import like
from .values import CONTEXT, EXACT_LIMIT, float32

INT64 = range(-(2**63), 2**63)


def register_sqlite_functions(connection: sqlite3.Connection) -> None:
    """Put the functions that `to_sqlite` uses on `connection`, all of them deterministic.

    A value they cannot compute (a division of whole numbers by zero, a text that is no time) makes
    the statement fail with sqlite3.OperationalError, where DuckDB raises too.
    """
    for name, function in _SQLITE_FUNCTIONS.items():
        connection.create_function(f"_syncframe_{name}", -1, function, deterministic=True)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


def microseconds(moment: datetime.datetime) -> int:
    aware = moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // _MICROSECOND


def clock(value: Any) -> int:
    """Microseconds since midnight of an ISO time."""
    time = value if isinstance(value, datetime.time) else datetime.time.fromisoformat(value)
    return ((time.hour * 60 + time.minute) * 60 + time.second) * 1_000_000 + time.microsecond


def _moment(value: Any) -> int:
    """Microseconds since 1970 of an ISO date and time, in UTC if it has no offset."""
    return value if isinstance(value, int) else microseconds(datetime.datetime.fromisoformat(value))


def _calendar(value: Any) -> datetime.datetime:
    """The UTC calendar of a date's text, or of microseconds since 1970 (or midnight)."""
    if isinstance(value, str):
        return datetime.datetime.fromisoformat(value)
    return _EPOCH + datetime.timedelta(microseconds=value)


def _exact(value: Any) -> Decimal:
    """An exact number as SQLite holds it: a whole number, a decimal's text, or a REAL of at most 15 digits."""
    return Decimal(format(value, ".15g")) if isinstance(value, float) else Decimal(value)


def _held(value: Decimal) -> int | str:
    """An exact result as it travels between functions."""
    if value.copy_abs() >= EXACT_LIMIT:
        raise ValueError("no engine computes exact numbers as large")
    if value == value.to_integral_value() and int(value) in INT64:
        return int(value)
    return format(value, "f")


_COMPLEMENT = str.maketrans("0123456789", "9876543210")


def sort_key(value: Any) -> str:
    """A text that sorts as the exact number does: sign, magnitude, digits; complemented below zero."""
    number = _exact(value)
    if not number:
        return "1"
    text = f"{500 + number.adjusted():03}{format(number.copy_abs(), 'f').replace('.', '').strip('0')}"
    # What ends earlier is nearer to zero, and so comes later below zero: "~" sorts after every digit.
    return f"0{text.translate(_COMPLEMENT)}~" if number < 0 else f"2{text}"


def _on_exact(compute: Callable[..., Decimal]) -> Callable[..., int | str]:
    return lambda *args: _held(compute(*map(_exact, args)))


def _on_float(compute: Callable[..., float]) -> Callable[..., float]:
    return lambda *args: compute(*map(float, args))


def _quotient(a: Decimal, b: Decimal) -> Decimal:
    return CONTEXT.divide_int(a, b)


def _divide(a: float, b: float) -> float:
    """IEEE 754 division, which has an answer for zero; NaN becomes NULL on its way to SQLite."""
    if b:
        return a / b
    return math.copysign(math.inf, a) if a else math.nan


def _remainder(a: float, b: float) -> float:
    return math.nan if not b or math.isinf(a) else math.fmod(a, b)


def _whole(compute: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: value if math.isinf(value) else float(compute(value))


def _half_away(value: float) -> float:
    """C's round: halves go away from zero."""
    if math.isinf(value):
        return value
    whole = math.trunc(value)
    return float(whole + math.copysign(1, value)) if abs(value - whole) >= 0.5 else float(whole)


def _round_float(value: float, digits: float = 0.0) -> float:
    """Round to a whole number, or to tens and hundreds where `digits` is negative."""
    power = math.pow(10, -digits)
    return _half_away(value / power) * power


def _round_exact(value: Decimal, digits: Decimal | int = 0) -> Decimal:
    if digits >= -int(value.as_tuple().exponent):
        return value
    places = Decimal(1).scaleb(-int(digits))
    return value.quantize(places, decimal.ROUND_HALF_UP, CONTEXT)


def _integral(rounding: str) -> Callable[[Decimal], Decimal]:
    return lambda value: value.to_integral_value(rounding, CONTEXT)


@functools.cache
def case_tables() -> dict[str, dict[int, str]]:
    """DuckDB's own upper and lower of each character: SQLite's know ASCII only, Python's make SS of one letter."""
    import duckdb

    found = duckdb.connect().execute(
        """
        select code, upper(chr(code)), lower(chr(code))
        from (select cast(range as INTEGER) as code from range(1, 1114112))
        where code not between 55296 and 57343 and (upper(chr(code)) <> chr(code) or lower(chr(code)) <> chr(code))
        """
    )
    rows = found.fetchall()
    return {"upper": {code: upper for code, upper, _ in rows}, "lower": {code: lower for code, _, lower in rows}}


def upper(text: str) -> str:
    return text.upper() if text.isascii() else text.translate(case_tables()["upper"])


def lower(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(case_tables()["lower"])


# Unicode's space separators, and not Python's whitespace, which has tabs and line ends.
BLANKS = "\u0020\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


def _substr(text: str, start: int, length: int | None = None) -> str:
    """Counts from one, from the end if negative; a negative length takes what stands before."""
    first = start - 1 if start >= 0 else len(text) + start
    last = len(text) if length is None else first + length
    low, high = min(first, last), max(first, last)
    return text[max(low, 0) : max(high, 0)]


def _replace(text: str, old: str, new: str) -> str:
    return text.replace(old, new) if old else text


def _concat(*parts: str | None) -> str:
    return "".join(part for part in parts if part is not None)


def _ilike(text: str, pattern: str) -> bool:
    return like(lower(text), lower(pattern))


def _strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """NULL if any argument is."""
    return lambda *args: None if None in args else function(*args)


_STRICT_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "key": sort_key,
    "exact": _on_exact(lambda a: a),
    "float": float,
    "float32": float32,
    "moment": _moment,
    "clock": clock,
    "add_exact": _on_exact(CONTEXT.add),
    "subtract_exact": _on_exact(CONTEXT.subtract),
    "multiply_exact": _on_exact(CONTEXT.multiply),
    "quotient_exact": _on_exact(_quotient),
    "remainder_exact": _on_exact(CONTEXT.remainder),
    "negate_exact": _on_exact(CONTEXT.minus),
    "abs_exact": _on_exact(CONTEXT.abs),
    "ceil_exact": _on_exact(_integral(decimal.ROUND_CEILING)),
    "floor_exact": _on_exact(_integral(decimal.ROUND_FLOOR)),
    "round_exact": _on_exact(_round_exact),
    "round_even_exact": _on_exact(lambda value, _: value.to_integral_value(decimal.ROUND_HALF_EVEN, CONTEXT)),
    "add_float": _on_float(lambda a, b: a + b),
    "subtract_float": _on_float(lambda a, b: a - b),
    "multiply_float": _on_float(lambda a, b: a * b),
    "divide_float": _on_float(_divide),
    "remainder_float": _on_float(_remainder),
    "negate_float": _on_float(lambda a: -a),
    "abs_float": _on_float(abs),
    "ceil_float": _on_float(_whole(math.ceil)),
    "floor_float": _on_float(_whole(math.floor)),
    "round_float": _on_float(_round_float),
    "round_even_float": _on_float(lambda value, _: _whole(round)(value)),
    "length": len,
    "strpos": lambda text, part: text.find(part) + 1,
    "lower": lower,
    "upper": upper,
    "trim": lambda text, blanks=BLANKS: text.strip(blanks),
    "ltrim": lambda text, blanks=BLANKS: text.lstrip(blanks),
    "rtrim": lambda text, blanks=BLANKS: text.rstrip(blanks),
    "substr": _substr,
    "replace": _replace,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
    "like": like,
    "ilike": _ilike,
    "year": lambda value: _calendar(value).year,
    "month": lambda value: _calendar(value).month,
    "day": lambda value: _calendar(value).day,
    "hour": lambda value: _calendar(value).hour,
    "minute": lambda value: _calendar(value).minute,
    "second": lambda value: _calendar(value).second,
}
_SQLITE_FUNCTIONS = {name: _strict(function) for name, function in _STRICT_FUNCTIONS.items()} | {"concat": _concat}
