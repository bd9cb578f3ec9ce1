"""The patterns of `like`, cut at their %."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass


@functools.lru_cache(maxsize=256)
def pieces(pattern: str, escape: str = "") -> tuple[tuple[str | None, ...], ...] | None:
    """The characters between a pattern's %, None for any one character; None if it ends with its escape character."""
    found: list[list[str | None]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if escape and character == escape:
            literal = next(characters, None)
            if literal is None:
                return None
            found[-1].append(literal)
        elif character == "%":
            found.append([])
        else:
            found[-1].append(None if character == "_" else character)
    return tuple(map(tuple, found))


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a pattern without %, of as many characters as it matches."""

    characters: re.Pattern[str]
    length: int


@functools.lru_cache(maxsize=256)
def segments(pattern: str, escape: str = "") -> tuple[Segment, ...]:
    return tuple(
        Segment(re.compile("".join("." if one is None else re.escape(one) for one in piece), re.DOTALL), len(piece))
        for piece in pieces(pattern, escape) or ()
    )


def like(text: str, pattern: str, escape: str = "") -> bool:
    first, *others = segments(pattern, escape)
    if not others:
        return first.characters.fullmatch(text) is not None
    found = first.characters.match(text)
    # The earliest place of each stretch leaves the most for those after it, so that nothing is tried twice.
    for segment in others[:-1]:
        found = found and segment.characters.search(text, found.end())
    start = len(text) - others[-1].length
    return found is not None and found.end() <= start and others[-1].characters.match(text, start) is not None


def is_prefix(pattern: object) -> bool:
    """Whether `pattern` is plain characters and one % after them."""
    return isinstance(pattern, str) and re.fullmatch(r"[^%_]+%", pattern, re.DOTALL) is not None


def as_glob(pattern: str) -> str:
    """A prefix's pattern in the form of SQLite's GLOB."""
    return re.sub(r"([*?[])", r"[\1]", pattern[:-1]) + "*"
