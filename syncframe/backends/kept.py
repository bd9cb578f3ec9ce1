"""Connections kept for the next transaction, which a forked child leaves to its parent."""

from __future__ import annotations

import os
import threading
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class Kept(Generic[C]):
    """A few open connections; any thread may take one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: list[C] = []
        self._inherited: list[C] = []
        self._owner = os.getpid()

    def take(self) -> C | None:
        """Return one that was kept, if there is any."""
        with self._lock:
            if self._owner != os.getpid():
                # A forked child must not so much as close what is its parent's.
                self._inherited += self._kept
                self._owner, self._kept = os.getpid(), []
            return self._kept.pop() if self._kept else None

    def keep(self, held: C) -> None:
        """Keep one whose transaction has ended well, or close it if there are enough."""
        with self._lock:
            if len(self._kept) < self._most and self._owner == os.getpid():
                self._kept.append(held)
                return
        held.close()

    def close(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, []
        for held in kept:
            held.close()
