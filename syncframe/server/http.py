"""uvicorn in a thread: that it is up is told, and a connection that only takes up room is ended."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import HEAD_BYTES_MAX, MIB

DISCARDED_BYTES_MAX = 64 * MIB  # of a body that was refused: the client may be sending yet, and shall see why


class Uvicorn(uvicorn.Server):
    """uvicorn with our protocol, for one application."""

    def __init__(self, app: Any, stop_s: int, idle_s: float, stall_s: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=_protocol(idle_s, stall_s),
                ws="none",
                lifespan="off",
                log_config=None,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=stop_s,
                h11_max_incomplete_event_size=HEAD_BYTES_MAX,
            )
        )
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


def _protocol(idle_s_: float, stall_s_: float) -> type[asyncio.Protocol]:
    class Protocol(_Protocol):
        idle_s = idle_s_
        stall_s = stall_s_

    return Protocol


class _Protocol(H11Protocol):
    """HTTP/1.1, of which uvicorn itself bounds the size of a request's head, and not its time."""

    idle_s = 30.0
    stall_s = 60.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # it has whole query strings; the application logs
        self._discarded = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Whatever the client has not taken yet is watched.
        transport.set_write_buffer_limits(0)
        self._deadline = self.loop.call_later(self.idle_s, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        self._flow()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        # To close a connection is to wait until the client has taken all.
        self._stall = self.loop.call_later(self.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._flow()
        super().resume_writing()

    def _flow(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def data_received(self, data: bytes) -> None:
        is_answered = self.cycle is not None and self.cycle.response_complete
        if is_answered and self.conn.their_state is h11.SEND_BODY:
            self._discarded += len(data)
            if self._discarded > DISCARDED_BYTES_MAX:
                self.transport.close()
                return
        else:
            self._discarded = 0
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._calm()
        elif self._deadline is None and self._waits():
            self._deadline = self.loop.call_later(self.idle_s, self._give_up)

    def _waits(self) -> bool:
        """Whether a request has begun, and is not whole enough to be worked on; or a refused body goes on coming."""
        return self.cycle is None or self.cycle.response_complete

    def _give_up(self) -> None:
        self._deadline = None
        if self._waits() and not self.transport.is_closing():
            self.transport.close()

    def _calm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def send_400_response(self, msg: str) -> None:
        words = f"this is no HTTP request, or its head has more than {HEAD_BYTES_MAX} bytes"
        body = json.dumps({"error": words, "kind": "BackendError", "status": 400}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
