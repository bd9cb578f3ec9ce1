"""The words of an OData condition: its text cut into names, literals and signs, each with its place."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from .source import Source
from .tree import Literal
from .values import (
    NULL,
    as_bool,
    as_date,
    as_decimal,
    as_float,
    as_float32,
    as_instant,
    as_int,
    as_number,
    as_text,
    as_time,
    as_timestamp,
    as_uuid,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the text: its kind, itself, and where it begins."""

    kind: str  # "name", "sign", "end" or that of a literal
    text: str
    place: int

    @property
    def word(self) -> str:
        """What it is in any case, if it is a name or a sign."""
        return self.text.lower() if self.kind in ("name", "sign") else ""


_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME_OF_DAY = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?"
_OFFSET = r"Z|[+-][0-9]{2}:[0-9]{2}|[ ][0-9]{2}:[0-9]{2}"  # the last is refused in words
_TOKENS = re.compile(
    rf"""
      (?P<blank>\s+)
    | (?P<prefixed>[^\W\d][\w.]*'(?:[^']|'')*')
    | (?P<text>'(?:[^']|'')*')
    | (?P<guid>[0-9a-f]{{8}}-(?:[0-9a-f]{{4}}-){{3}}[0-9a-f]{{12}}(?![\w-]))
    | (?P<moment>{_DAY}T{_TIME_OF_DAY}(?:{_OFFSET})?(?![\w.:-]))
    | (?P<date>{_DAY}(?![\w.:-]))
    | (?P<time>{_TIME_OF_DAY}(?![\w.:-]))
    | (?P<number>[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?[fmdl]?(?![\w.]))
    | (?P<name>[^\W\d]\w*(?:\.\w+)*)
    | (?P<sign>[(),-])
    """,
    re.VERBOSE | re.IGNORECASE,
)


def tokens(source: Source) -> list[Token]:
    """The words of the text, and one of kind "end" after them."""
    found, place = [], 0
    while place < len(source.text):
        match = _TOKENS.match(source.text, place)
        if match is None:
            source.refuse(_unreadable(source.text[place:]), place)
        if match.lastgroup != "blank":
            found.append(Token(str(match.lastgroup), match[0], place))
        place = match.end()
    return [*found, Token("end", "", len(source.text))]


def _unreadable(rest: str) -> str:
    return "a quote is not closed" if "'" in rest[:1] else "the condition cannot be read from here"


def literal(token: Token) -> Literal:
    """The value that a token states; ValueError if it states none of the language's."""
    return _NAMED[token.word] if token.word in _NAMED else _LITERALS[token.kind](token.text)


def is_literal(token: Token) -> bool:
    return token.kind in _LITERALS or token.word in _NAMED


def cast(token: Token, target: str, sign: str = "") -> Literal:
    """The value that a token states as one of the type `target`."""
    return NULL if token.word == "null" else _CASTS[target.lower()](sign + plain(token))


def is_type(name: str) -> bool:
    return name.lower() in _CASTS


def plain(token: Token) -> str:
    """A token's text without what marks its kind."""
    if token.kind == "text":
        return _unquoted(token.text)
    if token.kind == "prefixed":
        return _unquoted(token.text[token.text.index("'") :])
    return token.text.rstrip("fFmMdDlL") if token.kind == "number" else token.text


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'")


def _number(text: str) -> Literal:
    convert = {"f": as_float32, "m": as_decimal, "d": as_float, "l": _whole}.get(text[-1].lower())
    return convert(text[:-1]) if convert else as_number(text)


def _whole(text: str) -> Literal:
    if not text.isdigit():
        raise ValueError("a whole number is needed")
    return as_int(text)


def _prefixed(text: str) -> Literal:
    prefix, _, rest = text.partition("'")
    convert = {"datetime": _moment, "datetimeoffset": _instant, "guid": as_uuid, "time": _clock}.get(prefix.lower())
    if convert is None:
        raise ValueError(f"literals {prefix}'...' are not part of the filter language")
    return convert(_unquoted(f"'{rest}"))


def _moment(text: str) -> Literal:
    """A date and time: an instant if it has an offset."""
    text = _microseconds(text)
    return as_instant(text) if re.search(r"(Z|[+-]\d\d:?\d\d)$", text) else as_timestamp(text)


def _instant(text: str) -> Literal:
    return as_instant(_microseconds(text))


def _microseconds(text: str) -> str:
    """`text` without the zeros that .NET writes after the microseconds."""
    if re.search(r"T\d\d:\d\d(:\d\d(\.\d+)?)? \d\d:\d\d$", text):
        raise ValueError("the offset's sign is missing: in a URL a + is written %2B")
    short = re.sub(r"(\.\d{6})0+(?!\d)", r"\1", text)
    if re.search(r"\.\d{7}", short):
        raise ValueError("no time is finer than a microsecond")
    return short


_DURATION = re.compile(r"PT(?:(\d{1,2})H)?(?:(\d{1,2})M)?(?:(\d{1,2})(?:\.(\d+))?S)?", re.ASCII)


def _clock(text: str) -> Literal:
    """A time of day, as 10:30:00 or, for v2 and v3, as PT10H30M."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return as_time(_microseconds(text))
    if not any(match.groups()):
        raise ValueError("a time as PT10H30M is needed")
    hour, minute, second = (int(part or 0) for part in match.groups()[:3])
    return as_time(_microseconds(f"{hour:02}:{minute:02}:{second:02}.{match[4] or '0'}"))


_NAMED = {
    "null": NULL,
    "true": Literal(True, "bool"),
    "false": Literal(False, "bool"),
    "inf": Literal(math.inf, "float"),
}
_LITERALS: dict[str, Callable[[str], Literal]] = {
    "prefixed": _prefixed,
    "text": lambda text: as_text(_unquoted(text)),
    "guid": as_uuid,
    "moment": _moment,
    "date": as_date,
    "time": _clock,
    "number": _number,
}
_CASTS: dict[str, Callable[[str], Literal]] = {
    "edm.boolean": as_bool,
    "edm.date": as_date,
    "edm.datetime": _moment,
    "edm.datetimeoffset": _instant,
    "edm.decimal": as_decimal,
    "edm.double": as_float,
    "edm.guid": as_uuid,
    "edm.single": as_float32,
    "edm.string": as_text,
    "edm.time": _clock,
    "edm.timeofday": _clock,
    **dict.fromkeys(("edm.byte", "edm.sbyte", "edm.int16", "edm.int32", "edm.int64"), as_int),
}
