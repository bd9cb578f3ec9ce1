"""Values as ISO 8601 and plain decimal text, which is how SQLite keeps them and checkpoints name keys.

What is written: ``2013-01-01``, ``10:00:00``, ``2013-01-01T10:00:00``, the same with ``Z`` for
instants, microseconds only if there are any, decimals with their scale and no exponent, uuids in
lower case, bytes in hex.  Read are also a blank for the ``T``, offsets, and times without seconds.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from .schema import Column

DAYS = ("date", "timestamp", "instant")
_YEARS = (dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999))
_DAY = "1970-01-01T"
_UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
OFFSET = ":[0-9]{2}(\\.[0-9]+)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"


def written(values: pa.Array | pa.ChunkedArray, column: Column) -> list[str | None]:
    """Return values of `column`'s type as text."""
    write = _WRITERS.get("uuid" if column.kind == "UUID" else column.family, _cast)
    return write(values)


def parsed(texts: Sequence[str | None], column: Column) -> pa.Array:
    """Return texts as values of `column`'s type; pyarrow.ArrowInvalid if one is none."""
    parse = _PARSERS.get("uuid" if column.kind == "UUID" else column.family)
    array = pa.array(texts, pa.string())
    values = parse(array) if parse else array.cast(column.arrow)
    if column.family in DAYS and not pc.all(in_years(values)).as_py():
        raise pa.ArrowInvalid("beyond the years 1 to 9999")
    return values


def in_years(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Whether dates or moments are of the years 1 to 9999: Python has no others, and a frame could not show them."""
    first, last = (pa.scalar(moment, pa.timestamp("us")).cast(pa.int64()) for moment in _YEARS)
    if pa.types.is_date(values.type):
        first, last = (pa.scalar(moment.date(), values.type) for moment in _YEARS)
        return pc.and_(pc.greater_equal(values, first), pc.less_equal(values, last))
    since = values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64())
    return pc.and_(pc.greater_equal(since, first), pc.less_equal(since, last))


def is_arrow_decimal(value: Decimal) -> bool:
    """Whether Arrow can be given a decimal; it crashes on an exponent that is far from what it holds."""
    return value.is_finite() and value.adjusted() <= 38 and int(value.as_tuple().exponent) >= -76


def _cast(values: pa.Array) -> list[str | None]:
    texts: list[str | None] = values.cast(pa.string()).to_pylist()
    return texts


def _decimals(values: pa.Array) -> list[str | None]:
    # Arrow and str() write small decimals with an exponent.
    return [None if value is None else format(value, "f") for value in values.to_pylist()]


def _hex(values: pa.Array) -> list[str | None]:
    return [None if value is None else value.hex() for value in values.to_pylist()]


def _times(values: pa.Array) -> list[str | None]:
    texts = pc.replace_substring(values.cast(pa.string()), " ", "T")
    return _cast(pc.replace_substring_regex(texts, "\\.000000(Z?)$", "\\1"))


def _lower(values: pa.Array) -> list[str | None]:
    return _cast(pc.utf8_lower(values))


_WRITERS: dict[str, Callable[[pa.Array], list[str | None]]] = {
    "decimal": _decimals,
    "bytes": _hex,
    "time": _times,
    "timestamp": _times,
    "instant": _times,
    "uuid": _lower,
}


def _bytes(texts: pa.Array) -> pa.Array:
    return pa.array([None if text is None else bytes.fromhex(text) for text in texts.to_pylist()], pa.large_binary())


def _clock(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(_DAY, texts, "").cast(pa.timestamp("us")).cast(pa.time64("us"))


def _instants(texts: pa.Array) -> pa.Array:
    """A time without an offset is UTC, as SQLite's own current_timestamp is."""
    has_offset = pc.match_substring_regex(texts, OFFSET)
    return pc.if_else(has_offset, texts, pc.binary_join_element_wise(texts, "Z", "")).cast(pa.timestamp("us", "UTC"))


def _uuids(texts: pa.Array) -> pa.Array:
    lower = pc.utf8_lower(texts)
    wrong = lower.filter(pc.invert(pc.match_substring_regex(lower, _UUID)))
    if len(wrong) - wrong.null_count:
        raise pa.ArrowInvalid("not a uuid")
    return lower.cast(pa.large_string())


_PARSERS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "bytes": _bytes,
    "time": _clock,
    "instant": _instants,
    "uuid": _uuids,
}
