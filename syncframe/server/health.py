"""/healthz: whether this server can serve, for what watches it; asked by anybody, and nothing of the data in it.

The back end is asked its cheapest question in a thread of its own, beside those that work: a server that has all
hands full is not a dead one.  Whoever comes meanwhile waits for the same answer, and one that is a second old will
do, so that nobody can ask the database too much this way.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .exchange import Answer, Ask, Refusal, answer_json, check_method
from .failures import refusal_of
from .limits import RETRY_AFTER_S

PATH = "/healthz"
ANSWER_S = 2.0
FRESH_S = 1.0


class Health:
    """What one server says of itself."""

    def __init__(self, backend: Any, names: tuple[str, ...]) -> None:
        self.is_stopping = False
        self._question = _cheapest(backend, names)
        self._lock = threading.Lock()
        self._asked: Future[Refusal | None] | None = None
        self._answered = float("-inf")

    async def answer(self, ask: Ask) -> Answer:
        """200, or a Refusal with status 503 if the back end does not answer in time, or the server is being stopped.

        `?live` asks the back end nothing: whether it is of use to start this process anew.
        """
        check_method(ask, ("GET", "HEAD"))
        if self.is_stopping:
            raise _not_now("the server is being stopped")
        if ask.option("live") is None:
            try:
                failed = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._probe())), ANSWER_S)
            except TimeoutError:
                raise _not_now(f"the back end has not answered for {ANSWER_S:g} s") from None
            if failed is not None:
                raise failed
        return answer_json({"status": "ok"}, headers={"cache-control": "no-store"})

    def _probe(self) -> Future[Refusal | None]:
        """The question that is under way, or was answered just now; else a new one."""
        with self._lock:
            is_old = time.monotonic() - self._answered > FRESH_S
            if self._asked is None or (self._asked.done() and is_old):
                self._asked = Future()
                threading.Thread(target=self._put, args=(self._asked,), name="syncframe-health", daemon=True).start()
            return self._asked

    def _put(self, asked: Future[Refusal | None]) -> None:
        failed = None
        try:
            self._question()
        except Exception as error:
            failed = _not_now("the back end does not answer", id=refusal_of(error).more.get("id"))
        self._answered = time.monotonic()
        asked.set_result(failed)


def _cheapest(backend: Any, names: tuple[str, ...]) -> Callable[[], object]:
    if hasattr(backend, "identity"):
        return lambda: backend.identity()
    return lambda: backend.schema(names[0]) if names else None


def _not_now(words: str, **more: Any) -> Refusal:
    return Refusal(503, words, kind="TransientError", headers={"retry-after": str(RETRY_AFTER_S)}, **more)
