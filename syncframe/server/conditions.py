"""Conditional requests: RFC 9110, section 13, over rows whose entity tags are their versions.

A tag is compared strongly everywhere: a weak one never is a version.  Dates have whole seconds, and a
row's is cut to them, so that the `Last-Modified` that was sent is true when it comes back.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from ..wire import UPDATED_AT, VERSION, parse_http_date, version_of
from .exchange import Refusal

_TAG = re.compile(r'\s*(?P<tag>(?:W/)?"(?:[^"\\]|\\.)*")\s*(?:,|$)')
_ANY = "*"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a request asks of the row as it is.

    Parameters
    ----------
    match, none_match
        Versions, `*` among them for any; None: not asked.
    unmodified_since, modified_since
        Times in whole seconds.
    """

    match: tuple[str, ...] | None = None
    none_match: tuple[str, ...] | None = None
    unmodified_since: datetime.datetime | None = None
    modified_since: datetime.datetime | None = None

    @classmethod
    def of(cls, headers: Headers) -> Conditions:
        """Read the headers; a Refusal with status 400 if one that protects a row cannot be read."""
        unmodified = headers.get("if-unmodified-since")
        since = parse_http_date(unmodified)
        if unmodified is not None and since is None:
            raise Refusal(400, f"If-Unmodified-Since is {unmodified[:100]!r}, which is no HTTP date (RFC 9110, 5.6.7)")
        return cls(
            _tags(headers, "if-match"),
            _tags(headers, "if-none-match"),
            since,
            parse_http_date(headers.get("if-modified-since")),
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked that matters for writing."""
        return self.match is None and self.none_match is None and self.unmodified_since is None

    @property
    def version(self) -> str | None:
        """The one version that all that is asked comes down to, if it does."""
        if self.match is None or self.none_match is not None or len(self.match) != 1 or self.match[0] == _ANY:
            return None
        return self.match[0]

    def failed(self, row: Mapping[str, Any], *, writes: bool) -> int | None:
        """The status with which the request ends, in the order of RFC 9110, 13.2.2; None if it goes on."""
        version, stamp = row.get(VERSION), row.get(UPDATED_AT)
        changed = None if stamp is None else stamp.replace(microsecond=0)
        if self.match is not None:
            if _ANY not in self.match and version not in self.match:
                return 412
        elif self.unmodified_since is not None and (changed is None or changed > self.unmodified_since):
            return 412
        if self.none_match is not None:
            if _ANY in self.none_match or version in self.none_match:
                return 412 if writes else 304
        elif not writes and self.modified_since is not None and changed is not None and changed <= self.modified_since:
            return 304
        return None


def _tags(headers: Headers, name: str) -> tuple[str, ...] | None:
    given = headers.getlist(name)
    if not given:
        return None
    text = ", ".join(given).strip()
    if text == _ANY:
        return (_ANY,)
    versions, place = [], 0
    while place < len(text):
        found = _TAG.match(text, place)
        if found is None:
            raise Refusal(
                400,
                f'{name} is {text[:100]!r}, and should be * or entity tags, like "v1", with commas between them',
                hint="a version goes in double quotes",
            )
        version = version_of(found["tag"])
        # A weak tag stands for no version; the condition is asked all the same.
        versions += [] if version is None or version == _ANY else [version]
        place = found.end()
    return tuple(versions)
