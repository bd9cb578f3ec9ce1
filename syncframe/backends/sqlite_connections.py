"""Connections to a SQLite file, kept for the next transaction where nobody can tell.

To open one, and for SQLite to read the schema anew, takes longer than most transactions do.  A kept
connection has no transaction and holds no lock.  It is used again only if the file is the very one it
last saw: what SQLite keeps in memory would be wrong of a backup that was copied over it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .kept import Kept

CACHE_KIB = 65_536  # keys of a batch lie anywhere; with SQLite's own 2 MiB every page is read and written many times
KEPT_MAX = 4


class Connection(sqlite3.Connection):
    """A connection that keeps what functions of ours raised, for SQLite shows none of it.

    Where one failed and nothing was kept, it was the stop button: that comes before a function's first line, too.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.failures: list[Exception] = []

    def create_function(
        self, name: str, narg: int, func: Callable[..., Any] | None, /, *, deterministic: bool = False
    ) -> None:
        failures = self.failures  # not the connection: it would keep itself open

        def watched(*values: Any) -> Any:
            try:
                return func(*values)  # type: ignore[misc]
            except Exception as error:
                failures.append(error)
                raise

        super().create_function(name, narg, watched, deterministic=deterministic)


@dataclass(slots=True, eq=False)
class Held:
    """A connection and what is known on it.

    Parameters
    ----------
    described
        Tables as they were described, under `schema_version`.
    is_kept
        Whether it may be kept: not in WAL mode, where only the last one that closes brings the log into the file.
    file
        Device and inode of what it was opened on, which another file may have taken the name of since.
    """

    connection: Connection
    is_kept: bool
    file: tuple[int, ...]
    has_functions: bool = False
    schema_version: int = -1
    described: dict[str, Any] = field(default_factory=dict)
    seen: tuple[int, ...] = ()

    def close(self) -> None:
        self.connection.close()


class Connections:
    """The connections to one file; any thread may take one."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._kept: Kept[Held] = Kept(KEPT_MAX)

    def take(self) -> Held:
        """Return a connection without a transaction."""
        while (held := self._kept.take()) is not None:
            if held.seen == self._state():
                return held
            held.close()
        return self._opened()

    def give_back(self, held: Held) -> None:
        """Keep a connection whose transaction has ended well."""
        if held.is_kept:
            held.seen = self._state()
            if held.seen[:2] == held.file:
                self._kept.keep(held)
                return
        held.close()

    def close(self) -> None:
        self._kept.close()

    def _opened(self) -> Held:
        file = self._state()[:2]
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
        try:
            connection.execute("pragma foreign_keys = on")
            connection.execute(f"pragma cache_size = -{CACHE_KIB}")
            ((mode,),) = connection.execute("pragma journal_mode").fetchall()
        except BaseException:
            connection.close()
            raise
        is_kept = mode != "wal" and self._state()[:2] == file
        return Held(connection, is_kept, file)

    def _state(self) -> tuple[int, ...]:
        """What changes with every write to the file, and with every other file in its place."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
