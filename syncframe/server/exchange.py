"""A request as the rooms of the server read it, and what they answer: plain values, no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers

from ..wire import dumps

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Parameters
    ----------
    path
        The segments of the path, decoded one by one, so that a name may hold a slash.
    query
        Names and values in their order, decoded.
    base
        What stands before the path in a URL of this server.
    """

    method: str
    path: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    headers: Headers
    base: str
    body: bytes = b""

    def option(self, name: str) -> str | None:
        """The value of a parameter whose name is compared without case."""
        for given, value in self.query:
            if given.lower() == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a stream; `beat` is an empty part that may follow it, as often as one likes."""

    data: bytes
    beat: bytes = b""


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is made while it is sent.

    Parameters
    ----------
    pieces
        What raises before it yields is answered with a status of its own.
    """

    pieces: Iterator[Piece]
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


class Refusal(Exception):
    """A request that is not done, and why; what is said is for the client."""

    def __init__(
        self,
        status: int,
        words: str,
        *,
        hint: str | None = None,
        kind: str = "BackendError",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.hint = hint
        self.kind = kind
        self.headers = headers or {}
        self.more = more


def answer_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, dumps(value), {"content-type": JSON, **(headers or {})})


def refused(refusal: Refusal) -> Answer:
    if refusal.status == 204:
        return Answer(204, headers=refusal.headers)
    return Answer(
        refusal.status,
        error_text(refusal).encode(),
        {"content-type": JSON, "cache-control": "no-store", **refusal.headers},
    )


def error_text(refusal: Refusal) -> str:
    """A refusal as JSON, in ASCII: its words may hold what cannot be sent otherwise."""
    told = {
        "error": refusal.words,
        "hint": refusal.hint,
        "kind": refusal.kind,
        "status": refusal.status,
        **refusal.more,
    }
    return json.dumps({name: value for name, value in told.items() if value is not None})


def check_method(ask: Ask, allowed: Iterable[str], *, read_only: bool = False) -> None:
    """Refuse a method that is not among `allowed`; OPTIONS is answered with what is."""
    methods = ", ".join([*allowed, "OPTIONS"])
    if ask.method == "OPTIONS":
        raise Refusal(204, "", headers={"allow": methods})
    if ask.method not in allowed and read_only and ask.method not in ("GET", "HEAD"):
        words = "this server is read-only: nothing is written through it"
        raise Refusal(405, words, hint="ask whoever runs it", headers={"allow": methods})
    if ask.method not in allowed:
        raise Refusal(
            405, f"{ask.method[:20]} is not done here", hint=f"what is: {methods}", headers={"allow": methods}
        )
