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

from .about import About
from .access import Access, Identity
from .exchange import Answer, Ask, Refusal, Stream, check_method, refused
from .extension import Extension
from .failures import refusal_of
from .journal import REQUEST_ID, Entry
from .limits import BODY_RATE_MIN, HEAD_BYTES_MAX, RETRY_AFTER_S, Limits
from .plain import Plain
from .tables import Tables
from .tokens import KeysWanted
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
    table: str | None = None


class App:
    """The application of one server; any ASGI server may run it, and `close` ends its threads."""

    def __init__(
        self, tables: Tables, *, access: Access | None = None, limits: Limits | None = None, read_only: bool = False
    ) -> None:
        self.tables = tables
        self.access = access or Access()
        self.limits = limits or Limits()
        self.work = Work(self.limits)
        self._about = About(tables, self.limits, has_keys=not self.access.is_open, read_only=read_only)
        self._read_only = read_only
        self._held_bytes = 0

    def __repr__(self) -> str:
        return f"<syncframe server of {', '.join(self.tables.names) or 'no tables'}; {self.access!r}>"

    def stop(self) -> None:
        """Say to what watches the server that it takes no more requests."""
        self._about.health.is_stopping = True

    def close(self) -> None:
        self.stop()
        self.work.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            entry = Entry.of(scope)
            await self._served(scope, receive, _Sending(send, self.limits.stall_s, entry), entry)
            entry.write()
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _served(self, scope: Scope, receive: Receive, sending: _Sending, entry: Entry) -> None:
        """Answer, and note what the log says of it."""
        try:
            if (open_path := self._about.open_path(scope)) is not None:
                entry.path = open_path
                await sending.whole(await self._about.open(open_path, _ask(scope, self.limits)))
                return
            identity = await self._identified(Headers(scope=scope))
            entry.who = None if identity is None else identity.shown()
            ask = _ask(scope, self.limits)
            route = self._route(ask, await self._seen_by(identity))
            entry.path, entry.table = route.shown, route.table
            async with self._body(ask, route, receive) as body:
                whole = replace(ask, body=body)
                answer = await self.work.run(lambda: route.handler(whole))
                if isinstance(answer, Stream):
                    await self._streamed(answer, receive, sending)
                else:
                    await sending.whole(answer)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, _Stalled):
                log.info("a client took nothing for %g s", self.limits.stall_s)
                return
            # Cancelled: the server is stopped, and this has had the time that it gives.
            refusal = _stopped() if isinstance(error, asyncio.CancelledError) else refusal_of(error)
            entry.error = refusal.more.get("id")
            if not sending.is_begun:
                await sending.whole(refused(refusal))
            # Else the status is said already; that the answer stops without its end says the rest.

    async def _identified(self, headers: Headers) -> Identity | None:
        """Who asks; keys that have to be fetched first are fetched in a thread."""
        try:
            return self.access.identify(headers)
        except KeysWanted:
            return await asyncio.to_thread(self.access.identify, headers, may_fetch=True)

    async def _seen_by(self, identity: Identity | None) -> Tables:
        """The tables as they are to who asks; a callable that says so may take its time."""
        if self.tables.rights is None or not self.tables.rights.is_callable:
            return self.tables.seen_by(identity)
        return await self.work.run(lambda: self.tables.seen_by(identity))

    async def _streamed(self, stream: Stream, receive: Receive, sending: _Sending) -> None:
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await self.work.send(stream, gone, lambda data: sending.part(stream, data))
            if not gone.done():
                await sending.end()
        finally:
            gone.cancel()

    def _route(self, ask: Ask, tables: Tables) -> Route:
        if (page := self._about.handler(ask, tables)) is not None:
            return Route(f"/{ask.path[0]}", page, self.limits.row_bytes_max)
        match ask.path:
            case ("syncframe", *rest) if len(rest) <= 1:
                return self._extended(ask, Extension(tables, self.limits, self._read_only), rest[0] if rest else "")
            case ("tables", name, *rest) if len(rest) <= 1:
                shown = f"/tables/{name}" if name in self.tables.names else "/tables/?"
                handler = Plain(tables, self.limits, self._read_only).handler(ask, name, rest[0] if rest else None)
                return Route(shown + ("/{id}" if rest else ""), handler, self.limits.row_bytes_max, name)
        raise Refusal(404, "there is nothing here", hint="tables are under /tables/<name>")

    def _extended(self, ask: Ask, extension: Extension, verb: str) -> Route:
        if verb not in extension.verbs:
            raise Refusal(404, f"the extension has no verb {verb[:100]!r}", hint="one of " + ", ".join(extension.verbs))
        method, handler = extension.verbs[verb]
        allowed = [] if verb == "push" and self._read_only else [method, "HEAD"] if method == "GET" else [method]
        check_method(ask, allowed, read_only=self._read_only and verb == "push")
        is_large = verb in ("push", "rows")
        limit = self.limits.body_bytes_max if is_large else self.limits.row_bytes_max
        table = ask.option("table")
        return Route(f"/syncframe/{verb}".rstrip("/"), handler, limit, table if table in self.tables.names else None)

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


def _stopped() -> Refusal:
    headers = {"retry-after": str(RETRY_AFTER_S)}
    return Refusal(503, "the server is being stopped", kind="TransientError", headers=headers)


class _Stalled(Exception):
    """The client takes nothing of what it is sent."""


class _Sending:
    """One answer on its way, in pieces that even a slow client takes in time."""

    def __init__(self, send: Send, stall_s: float, entry: Entry) -> None:
        self._send = send
        self._stall_s = stall_s
        self._entry = entry
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
        self._entry.is_whole = True

    async def _begin(self, status: int, headers: dict[str, str]) -> None:
        always = {"cache-control": "no-cache", "x-content-type-options": "nosniff", REQUEST_ID: self._entry.id}
        headers = {**always, **headers}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self.is_begun, self._entry.status = True, status
        await self._put({"type": "http.response.start", "status": status, "headers": raw})

    async def _parts(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), PART_BYTES):
            part = bytes(view[start : start + PART_BYTES])
            await self._put({"type": "http.response.body", "body": part, "more_body": True})
            self._entry.bytes += len(part)

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
