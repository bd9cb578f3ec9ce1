"""A wire that fails on purpose: services with canned answers, and a proxy that cuts, delays, repeats and loses.

All of it over real sockets, in threads; what goes wrong is said by a script, so that a test fails the same way twice.
"""

from __future__ import annotations

import gzip
import http.client
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {
            name: values[-1] for name, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()
        }

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What is answered; `cut_after`: the connection is closed after so many bytes of the body, None: never."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **named})


def zipped(reply: Reply) -> Reply:
    return Reply(reply.status, gzip.compress(reply.body), {**reply.headers, "Content-Encoding": "gzip"})


HTML = Reply(200, b"<!doctype html><title>Sign in</title><p>Who are you?</p>", {"Content-Type": "text/html"})
GONE = Reply(cut_after=-1)
"""The connection is closed without an answer."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    failure: BaseException | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a client that hangs up is part of the game
            self.failure = error


class Service:
    """A server in a thread: `answer` says what each request gets; `asked` has what came."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self.asked: list[Request] = []
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._server.failure is not None:
            raise AssertionError("the test's own service failed") from self._server.failure

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = Request(self.command, self.path, dict(self.headers), self.rfile.read(length))
                service.asked.append(request)
                self._send(service.answer(request))

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def _send(self, reply: Reply) -> None:
                if reply.cut_after == -1:
                    self.close_connection = True
                    return
                is_whole = isinstance(reply.body, bytes)
                self.send_response_only(reply.status)
                if "Date" not in reply.headers:
                    self.send_header("Date", self.date_time_string())
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if is_whole and reply.status != 204:
                    self.send_header("Content-Length", str(len(reply.body)))
                elif not is_whole:
                    self.send_header("Connection", "close")
                    self.close_connection = True
                self.end_headers()
                self._send_body(reply)

            def _send_body(self, reply: Reply) -> None:
                try:
                    if not isinstance(reply.body, bytes):
                        for part in reply.body:
                            self.wfile.write(part)
                    elif reply.cut_after is None:
                        self.wfile.write(reply.body)
                    else:
                        self.wfile.write(reply.body[: reply.cut_after])
                        self.close_connection = True
                except OSError:
                    self.close_connection = True  # the client had enough

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


@contextmanager
def service(*answers: Reply | Callable[[Request], Reply]) -> Iterator[Service]:
    """A service that gives these answers in turn, the last one for ever."""
    left, lock = list(answers), threading.Lock()

    def answer(request: Request) -> Reply:
        with lock:
            given = left.pop(0) if len(left) > 1 else left[0]
        return given(request) if callable(given) else given

    running = Service(answer)
    try:
        yield running
    finally:
        running.close()


class Proxy:
    """Between a client and a server.

    `fault` says of each request what is done to it:

        ""        passed on, and answered
        "refuse"  the connection is closed, nothing is passed on
        "lose"    passed on, and its answer is lost
        "cut"     passed on, and the connection is closed in the middle of the answer's body
        "twice"   passed on twice; the client gets the answer to the second
        "first"   passed on twice; the client gets the answer to the first
        "late"    the connection is closed, and it is passed on when `deliver` is called
        "503"     answered by the proxy
    """

    def __init__(self, target: str, fault: Callable[[Request], str]) -> None:
        self.fault = fault
        self.faults: list[str] = []
        self._target = urlsplit(target)
        self._late: list[Request] = []
        self._service = Service(self._pass)
        self.url = self._service.url + self._target.path
        self.asked = self._service.asked

    def deliver(self) -> int:
        """Pass on what was held back; return how many requests."""
        late, self._late = self._late, []
        for request in late:
            self._forward(request)
        return len(late)

    def close(self) -> None:
        self._service.close()

    def _pass(self, request: Request) -> Reply:
        fault = self.fault(request)
        self.faults.append(fault)
        if fault == "503":
            return Reply(503, b"busy", {"Retry-After": "0"})
        if fault in ("refuse", "late"):
            self._late += [request] if fault == "late" else []
            return GONE
        reply = self._forward(request)
        if fault in ("twice", "first"):
            again = self._forward(request)
            return again if fault == "twice" else reply
        if fault == "lose":
            return GONE
        if fault == "cut":
            return Reply(reply.status, reply.body, reply.headers, cut_after=len(reply.body) // 2)
        return reply

    def _forward(self, request: Request) -> Reply:
        connection = http.client.HTTPConnection(self._target.hostname, self._target.port, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(request.method, request.target, request.body or None, headers)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            return Reply(answer.status, answer.read(), kept)
        finally:
            connection.close()


@contextmanager
def proxy(target: str, *faults: str, fault: Callable[[Request], str] | None = None) -> Iterator[Proxy]:
    """A proxy that does these faults to the requests in turn, and none to those after; or what `fault` says."""
    left, lock = list(faults), threading.Lock()

    def next_fault(_: Request) -> str:
        with lock:
            return left.pop(0) if left else ""

    running = Proxy(target, fault or next_fault)
    try:
        yield running
    finally:
        running.close()
