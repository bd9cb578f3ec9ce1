"""The threads that ask the back end, and the ways that what they make gets back to the loop.

Back ends are synchronous.  A request is worked on in one of a few threads; a stream is made in one
from its first piece to its last, a little ahead of what the client takes, and ends when it is gone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .exchange import Piece, Refusal, Stream
from .limits import RETRY_AFTER_S, Limits

T = TypeVar("T")
AHEAD = 2  # pieces that are made before the client took what came before


class Work:
    """The threads of one server."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._threads = ThreadPoolExecutor(limits.workers, thread_name_prefix="syncframe-server")
        self._busy = 0
        self._is_closed = False
        self._lock = threading.Lock()

    async def run(self, function: Callable[[], T]) -> T:
        """Return what `function` returns; a Refusal if it takes too long, or too many wait already."""
        future = self._submitted(function)
        try:
            # What was begun cannot be stopped, and keeps its place until it ends.
            return await asyncio.wait_for(asyncio.shield(future), self.limits.timeout_s)
        except TimeoutError:
            future.add_done_callback(_forget)
            raise too_long(self.limits.timeout_s) from None

    async def send(self, stream: Stream, gone: asyncio.Future[None], put: Callable[[bytes], Awaitable[None]]) -> None:
        """Make a stream and hand its pieces to `put`, until it ends or the client is gone.

        What goes wrong before the first piece is raised.
        """
        channel = _Channel(asyncio.get_running_loop())
        ended = self._submitted(lambda: _fill(stream.pieces, channel))
        ended.add_done_callback(_forget)
        ended.add_done_callback(lambda _: channel.put_now(None))
        beat, waited_s = b"", 0.0
        try:
            while True:
                step = asyncio.ensure_future(channel.queue.get())
                waiting: set[asyncio.Future[Any]] = {step, gone}
                await asyncio.wait(waiting, timeout=self.limits.beat_s, return_when=asyncio.FIRST_COMPLETED)
                if gone.done() or not step.done():
                    step.cancel()
                if gone.done():
                    return
                if not step.done():
                    waited_s += self.limits.beat_s
                    if waited_s > self.limits.stream_s:
                        raise too_long(self.limits.stream_s)
                    if beat:
                        await put(beat)
                    continue
                piece = step.result()
                if piece is None:
                    break
                channel.taken()
                beat, waited_s = piece.beat, 0.0
                await put(piece.data)
            await ended
        finally:
            channel.close()

    def close(self) -> None:
        """Begin nothing more, and wait for what was begun."""
        self._is_closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _submitted(self, function: Callable[[], T]) -> asyncio.Future[T]:
        with self._lock:
            if self._busy >= self.limits.waiting_max or self._is_closed:
                raise Refusal(
                    503,
                    "too many requests are being worked on",
                    kind="TransientError",
                    headers={"retry-after": str(RETRY_AFTER_S)},
                )
            self._busy += 1
        future = self._threads.submit(function)
        future.add_done_callback(self._done)
        return asyncio.wrap_future(future)

    def _done(self, _: object) -> None:
        with self._lock:
            self._busy -= 1


def too_long(limit_s: float) -> Refusal:
    return Refusal(
        503,
        f"this took more than {limit_s:g} s, and may still be done",
        kind="TransientError",
        headers={"retry-after": str(RETRY_AFTER_S)},
    )


def _forget(future: asyncio.Future[T]) -> None:
    if not future.cancelled():
        future.exception()  # seen, so that the loop does not complain


class _Gone(Exception):
    """Nobody takes what is made."""


class _Channel:
    """From one thread to the loop, at most AHEAD pieces at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.queue: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)
        self._is_closed = False

    def put(self, piece: Piece) -> None:
        self._room.acquire()
        if self._is_closed:
            raise _Gone
        try:
            self.loop.call_soon_threadsafe(self.queue.put_nowait, piece)
        except RuntimeError as error:  # the loop is closed
            raise _Gone from error

    def put_now(self, piece: Piece | None) -> None:
        self.queue.put_nowait(piece)

    def taken(self) -> None:
        self._room.release()

    def close(self) -> None:
        self._is_closed = True
        self._room.release()


def _fill(pieces: Iterator[Piece], channel: _Channel) -> None:
    try:
        for piece in pieces:
            channel.put(piece)
    except _Gone:
        pass
    finally:
        # A generator is closed in the thread that ran it, for its connection may be this thread's.
        if (close := getattr(pieces, "close", None)) is not None:
            close()
