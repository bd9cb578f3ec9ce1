"""What came back: bodies within bounds, JSON or words, and the error that an answer means.

Nothing here holds a header's value in an error: a service may echo a token, and errors are printed,
logged and kept in notebooks.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ... import errors
from ...errors import AccessError, BackendError, SyncError, TransientError
from ...schema import Column, Schema
from ...wire import loads, parse_http_date

WORDS_MAX = 200
CHUNK_BYTES = 1 << 16
SLOWEST_BYTES_PER_S = 1_000  # a body that trickles slower than this ends, whatever its length
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]+")
_PERMANENT = (501, 505)
_KEY_HINT = "connect(..., token=...) gives the key, a callable a fresh one; on the command line --token-file FILE"
_EXACT = Schema((Column("number", "DECIMAL(38,0)"),), ("number",))  # one with decimals, for which numbers come exactly


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer.

    Parameters
    ----------
    what
        The request in words: method and address, without its query.
    requests, received
        How many requests it took, and how many bytes came over the wire.
    hide
        Takes secrets out of a text.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    what: str
    hide: Callable[[str], str]
    requests: int = 1
    received: int = 0

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self, *, exact: bool = False) -> Any:
        """The body as JSON; `exact`: numbers with a point as decimals.

        Raises
        ------
        BackendError
            If it is something else, with what was found.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and not (kind.endswith(("/json", "+json"))):
            raise self._not_json(f"{self.hide(kind)[:WORDS_MAX]} instead of JSON")
        try:
            return loads(self.body, _EXACT if exact else None)
        except (ValueError, RecursionError) as error:
            raise self._not_json("JSON that cannot be read") from error

    def error(self) -> SyncError:
        """The error that this answer means."""
        told = self.told()
        words = told.get("error") or f"the service answered {self.status}"
        named = getattr(errors, str(told.get("kind")), None)
        if isinstance(named, type) and issubclass(named, SyncError) and not issubclass(named, BackendError):
            return named(words, hint=told.get("hint"))
        message = words if "kind" in told else f"{self.what}: {words}"
        options: dict[str, Any] = {"hint": told.get("hint"), "status": self.status, "detail": told.get("detail")}
        if self.status == 401:
            options["hint"] = _KEY_HINT
        if self.status in (401, 403):
            return AccessError(message, **options)
        if self.status in (408, 429) or (self.status >= 500 and self.status not in _PERMANENT):
            return TransientError(message, **options, retry_after_s=self.retry_after_s())
        return BackendError(message, **options, code=told.get("code"), column=told.get("column"))

    def retry_after_s(self) -> float | None:
        """`Retry-After` (RFC 9110, 10.2.3) in seconds from now."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        return _seconds_until(text, self.headers.get("date", ""))

    def told(self) -> dict[str, Any]:
        """What the service says of an error: error, hint, kind, code, column, detail, as far as they are there."""
        try:
            body = self.json()
        except BackendError:
            return {"error": self._shown()} if self.body else {}
        told = {name: value for name, value in _said(body).items() if value}
        return {name: self.hide(str(value)) for name, value in told.items()}

    def _not_json(self, found: str) -> BackendError:
        return BackendError(
            f"{self.what} was answered with {found}: {self._shown() or 'an empty body'}",
            hint="does the URL name a Datasync service, and is no login page in between?",
            status=self.status,
        )

    def _shown(self) -> str:
        return self.hide(shown_text(self.body))


def shown_text(body: bytes) -> str:
    """The first characters of a body, in one line."""
    text = _BLANKS.sub(" ", body[: 4 * WORDS_MAX].decode("utf-8", "replace")).strip()
    return text if len(text) <= WORDS_MAX else f"{text[:WORDS_MAX]}..."


def _said(body: object) -> dict[str, Any]:
    """Our server's error; v2's ``{"error": words}``; v3's problem details or list of validation results."""
    if isinstance(body, str):
        return {"error": body}
    if isinstance(body, list):
        return _validation([found for found in body if isinstance(found, Mapping)])
    if not isinstance(body, Mapping):
        return {}
    said = {name: body.get(name) for name in ("error", "hint", "kind", "code", "column", "detail")}
    if isinstance(said["error"], Mapping):
        said["error"] = said["error"].get("message")
    if not said["error"]:
        said["error"] = body.get("message") or _problem(body)
    return said


def _problem(body: Mapping[str, Any]) -> str:
    """RFC 9457, with ASP.NET's `errors` by member."""
    members = body.get("errors")
    details = [f"{name}: {words}" for name, words in members.items()] if isinstance(members, Mapping) else []
    return "; ".join(str(part) for part in (body.get("title"), body.get("detail"), *details) if part)


def _validation(results: list[Mapping[str, Any]]) -> dict[str, Any]:
    words = [str(found.get("errorMessage")) for found in results if found.get("errorMessage")]
    names = [name for found in results for name in found.get("memberNames") or ()]
    return {"error": "; ".join(words), "column": names[0] if names else None}


def _seconds_until(text: str, now: str) -> float | None:
    moment = parse_http_date(text)
    if moment is None:
        return None
    # The service's own clock, where it tells it: ours may be off by hours.
    told = parse_http_date(now)
    return max(0.0, moment.timestamp() - (told.timestamp() if told else time.time()))


class Body:
    """The bytes of one answer as they come, unpacked, counted and bounded; reads like a file."""

    closed = False

    def __init__(
        self,
        answer: Answer,
        raw: Iterable[bytes],
        *,
        bytes_max: int,
        timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.answer = answer  # without its body
        self.received = 0
        self.ended = False
        self._bytes_max, self._timeout_s, self._clock = bytes_max, timeout_s, clock
        self._spent_s = 0.0
        self._counted = 0
        self._chunks = self._unpacked(iter(raw))
        self._rest = memoryview(b"")

    def read(self, count: int = -1) -> bytes:
        """Return `count` bytes, fewer only at the end."""
        if count > self._bytes_max:
            raise self._too_large()
        parts, missing = [], count if count >= 0 else self._bytes_max + 1
        while missing > 0:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    self.ended = True
                    break
                self._rest = memoryview(chunk)
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def whole(self) -> Answer:
        """Read to the end."""
        body = self.read()
        return replace(self.answer, body=body, received=self.received)

    def next_page(self) -> None:
        """The bound holds for each page of a stream."""
        self._counted = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """The connection is let go by whoever opened it."""

    def _unpacked(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        coding = self.answer.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip", "x-gzip"):
            raise BackendError(
                f"{self.answer.what} was answered in the content encoding {coding[:20]!r}, which was not asked for"
            )
        unpack = self._plain if coding == "identity" else self._gunzipped
        for chunk in unpack(self._timed(raw)):
            self._counted += len(chunk)
            if self._counted > self._bytes_max:
                raise self._too_large()
            yield chunk

    def _plain(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        return raw

    def _gunzipped(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        # A little at a time: 64 kB on the wire may be 64 MB of zeros.
        unpacker = zlib.decompressobj(wbits=31)
        try:
            for packed in raw:
                rest = packed
                while rest:
                    if unpacker.eof:
                        unpacker = zlib.decompressobj(wbits=31)
                    yield unpacker.decompress(rest, CHUNK_BYTES)
                    rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            if not unpacker.eof and self.received:
                raise TransientError(f"{self.answer.what}: the answer was cut")
        except zlib.error as error:
            raise BackendError(f"{self.answer.what} was answered with gzip that cannot be unpacked") from error

    def _timed(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            began = self._clock()
            chunk = next(raw, None)
            self._spent_s += self._clock() - began
            if chunk is None:
                return
            self.received += len(chunk)
            if self._spent_s > self._timeout_s + self.received / SLOWEST_BYTES_PER_S:
                raise TransientError(f"{self.answer.what}: the answer did not end within {self._spent_s:.0f} s")
            yield chunk

    def _too_large(self) -> BackendError:
        return BackendError(
            f"{self.answer.what} was answered with more than {self._bytes_max:,} bytes, unpacked; it was not read on",
            hint="ask for fewer rows at a time: pull(page_rows=...)",
        )
