"""The ASGI application: a request is read within bounds, worked on in a thread, answered and logged.

Nothing that a client sends ends in a 500: what is refused is a Refusal with words, what a back end
cannot do is a status of `failures`, and what nobody foresaw is logged under an id.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from .access import Keys, check_key
from .exchange import Answer, Ask, Refusal, Stream, check_method, refused
from .extension import Extension
from .failures import refusal_of
from .limits import BODY_RATE_MIN, HEAD_BYTES_MAX, RETRY_AFTER_S, Limits
from .plain import Plain
from .tables import Tables
from .work import Work

log = logging.getLogger("syncframe.server")
_WITH_BODY = ("POST", "PUT", "PATCH")
PART_BYTES = 64 * 1024  # sent at one time


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a request, how large its body may be, and the path as the log may show it: without values."""

    shown: str
    handler: Callable[[Ask], Answer | Stream]
    body_bytes_max: int


class App:
    """The application of one server; any ASGI server may run it, and `close` ends its threads."""

    def __init__(
        self, tables: Tables, *, keys: Keys | None = None, limits: Limits | None = None, read_only: bool = False
    ) -> None:
        self.tables = tables
        self.keys = keys
        self.limits = limits or Limits()
        self.work = Work(self.limits)
        self._extension = Extension(tables, self.limits, read_only)
        self._plain = Plain(tables, self.limits, read_only)
        self._read_only = read_only
        self._held_bytes = 0

    def __repr__(self) -> str:
        keys = "no keys" if self.keys is None else f"{len(self.keys)} keys"
        return f"<syncframe server of {', '.join(self.tables.names) or 'no tables'}; {keys}>"

    def close(self) -> None:
        self.work.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            began = time.perf_counter()
            shown, status = await self._served(scope, receive, send)
            log.info("%s %s %d %.0f ms", scope["method"], shown, status, 1_000 * (time.perf_counter() - began))
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _served(self, scope: Scope, receive: Receive, send: Send) -> tuple[str, int]:
        """Answer, and return the path and the status for the log."""
        sending = _Sending(send, self.limits.stall_s)
        shown = "?"
        try:
            check_key(Headers(scope=scope), self.keys)
            ask = _ask(scope, self.limits)
            route = self._route(ask)
            shown = route.shown
            async with self._body(ask, route, receive) as body:
                whole = replace(ask, body=body)
                answer = await self.work.run(lambda: route.handler(whole))
                if isinstance(answer, Stream):
                    await self._streamed(answer, receive, sending)
                else:
                    await sending.whole(answer)
        except Exception as error:
            if isinstance(error, _Stalled):
                log.info("a client took nothing for %g s", self.limits.stall_s)
            elif sending.is_begun:
                # The status is said already; that the answer stops without its end says the rest.
                refusal_of(error)
            else:
                await sending.whole(refused(refusal_of(error)))
        return shown, sending.status

    async def _streamed(self, stream: Stream, receive: Receive, sending: _Sending) -> None:
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await self.work.send(stream, gone, lambda data: sending.part(stream, data))
            if not gone.done():
                await sending.end()
        finally:
            gone.cancel()

    def _route(self, ask: Ask) -> Route:
        match ask.path:
            case ("syncframe", *rest) if len(rest) <= 1:
                return self._extended(ask, rest[0] if rest else "")
            case ("tables", name, *rest) if len(rest) <= 1:
                shown = f"/tables/{name}" if name in self.tables.names else "/tables/?"
                handler = self._plain.handler(ask, name, rest[0] if rest else None)
                return Route(shown + ("/{id}" if rest else ""), handler, self.limits.row_bytes_max)
        raise Refusal(404, "there is nothing here", hint="tables are under /tables/<name>")

    def _extended(self, ask: Ask, verb: str) -> Route:
        if verb not in self._extension.verbs:
            raise Refusal(
                404, f"the extension has no verb {verb[:100]!r}", hint="one of " + ", ".join(self._extension.verbs)
            )
        method, handler = self._extension.verbs[verb]
        allowed = [] if verb == "push" and self._read_only else [method, "HEAD"] if method == "GET" else [method]
        check_method(ask, allowed, read_only=self._read_only and verb == "push")
        is_large = verb in ("push", "rows")
        limit = self.limits.body_bytes_max if is_large else self.limits.row_bytes_max
        return Route(f"/syncframe/{verb}".rstrip("/"), handler, limit)

    @asynccontextmanager
    async def _body(self, ask: Ask, route: Route, receive: Receive) -> AsyncIterator[bytes]:
        """The body, counted among all that are held."""
        if ask.method not in _WITH_BODY:
            yield b""
            return
        if ask.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "the body has a content encoding, and is taken only as it is")
        _check_length(ask.headers.get("content-length"), route.body_bytes_max)
        parts: list[bytes] = []
        size = 0
        try:
            async for part in _received(receive, self.limits.timeout_s):
                size += len(part)
                self._held_bytes += len(part)
                if size > route.body_bytes_max:
                    raise _too_large(route.body_bytes_max)
                if self._held_bytes > self.limits.bodies_bytes_max:
                    raise Refusal(
                        503,
                        "too much is being sent",
                        kind="TransientError",
                        headers={"retry-after": str(RETRY_AFTER_S)},
                    )
                parts.append(part)
            yield b"".join(parts)
        finally:
            self._held_bytes -= size


# Reading


def _ask(scope: Scope, limits: Limits) -> Ask:
    headers = Headers(scope=scope)
    if (size := sum(len(name) + len(value) for name, value in headers.raw)) > HEAD_BYTES_MAX:
        raise Refusal(431, f"the headers have {size} bytes, and may have {HEAD_BYTES_MAX}")
    query = scope["query_string"]
    if len(query) > limits.query_bytes_max:
        raise Refusal(414, f"the query string has {len(query)} bytes, and may have {limits.query_bytes_max}")
    if query.count(b"&") >= limits.parameters_max:
        raise Refusal(400, f"the query string has more than {limits.parameters_max} parameters")
    try:
        raw = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("ascii")
        # A request's target may be a whole URL (RFC 9112, 3.2.2).
        raw = _ORIGIN.sub("", raw)
        root = quote(scope.get("root_path", ""))
        path = tuple(unquote_to_bytes(part).decode() for part in raw.removeprefix(root).split("/"))
        pairs = tuple(parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict"))
    except (UnicodeDecodeError, ValueError):
        raise Refusal(400, "the URL has bytes that are no UTF-8") from None
    # One slash at the end is nothing; a path of nothing but names has none in it.
    path = path[1:-1] if len(path) > 2 and path[-1] == "" else path[1:]
    return Ask(scope["method"], path, pairs, headers, f"{scope['scheme']}://{_host(scope, headers)}{root}")


_ORIGIN = re.compile(r"\Ahttps?://[^/]*(?=/)", re.IGNORECASE)
_HOST = re.compile(r"([\w.-]+|\[[0-9a-f:.]+\])(:\d+)?", re.ASCII | re.IGNORECASE)


def _host(scope: Scope, headers: Headers) -> str:
    """The host as the client names it, for it becomes part of links; of HTTP/1.0, which has none, the address."""
    given = headers.get("host", "")
    if given and not _HOST.fullmatch(given):
        raise Refusal(400, f"Host is {given[:100]!r}, which is none")
    if not given and scope.get("server"):
        name, port = scope["server"]
        return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    return given


def _check_length(given: str | None, limit: int) -> None:
    # What is no number has been refused by the HTTP parser.
    if given is not None and given.isdecimal() and int(given[:20]) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"the body has more than {limit} bytes", hint="send parts of it")


async def _received(receive: Receive, timeout_s: float) -> AsyncIterator[bytes]:
    """The parts of the body; 408 if they stop coming, or come so slowly that it never ends."""
    began, size = time.monotonic(), 0
    more = True
    while more:
        left_s = timeout_s + size / BODY_RATE_MIN - (time.monotonic() - began)
        try:
            message = await asyncio.wait_for(receive(), min(timeout_s, max(left_s, 0)))
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {timeout_s:g} s", kind="TransientError") from None
        if message["type"] != "http.request":
            raise Refusal(400, "the body stopped before its end")
        more = message.get("more_body", False)
        body = message.get("body", b"")
        size += len(body)
        yield body


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# Sending


class _Stalled(Exception):
    """The client takes nothing of what it is sent."""


class _Sending:
    """One answer on its way, in pieces that even a slow client takes in time."""

    def __init__(self, send: Send, stall_s: float) -> None:
        self._send = send
        self._stall_s = stall_s
        self.status = 0
        self.is_begun = False

    async def whole(self, answer: Answer) -> None:
        headers = {"content-length": str(len(answer.body)), **answer.headers}
        if answer.status in (204, 304):
            del headers["content-length"]
        await self._begin(answer.status, headers)
        await self._parts(answer.body)
        await self.end()

    async def part(self, stream: Stream, data: bytes) -> None:
        if not self.is_begun:
            await self._begin(stream.status, dict(stream.headers))
        await self._parts(data)

    async def end(self) -> None:
        await self._put({"type": "http.response.body", "body": b""})

    async def _begin(self, status: int, headers: dict[str, str]) -> None:
        headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff", **headers}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self.is_begun, self.status = True, status
        await self._put({"type": "http.response.start", "status": status, "headers": raw})

    async def _parts(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), PART_BYTES):
            part = bytes(view[start : start + PART_BYTES])
            await self._put({"type": "http.response.body", "body": part, "more_body": True})

    async def _put(self, message: dict[str, Any]) -> None:
        try:
            await asyncio.wait_for(self._send(message), self._stall_s)
        except TimeoutError:
            raise _Stalled from None


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
