"""The local DuckDB file, held only inside a call.

DuckDB lets one process in at a time, not even a reader beside a writer.  So that two notebooks and
the command line can share a store, the file is attached at the start of the outermost call and
detached at its end (1.3 ms; connecting and closing take 17).  A process that waits holds the
turnstile, a lock on a side file, and is therefore next: without it one process waited 9 s while
another did 200 calls.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa

from .errors import StoreError
from .progress import stoppable
from .schema import literal

try:
    import fcntl
except ImportError:  # Windows: waiting works without the turnstile, only less fairly
    fcntl = None  # type: ignore[assignment]

MEMORY = ":memory:"
POLL_S = 0.002
_SQLITE = b"SQLite format 3\0"
_HOLDER = re.compile(r"lock is held in (.*?) \(PID (\d+)\)")
_BROKEN = (duckdb.IOException, duckdb.FatalException, duckdb.InternalException, duckdb.OutOfMemoryException)


class Cursor:
    """What runs statements while the file is held."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def run(self, statement: str, parameters: object = None, **tables: pa.Table) -> None:
        """Execute one statement; `tables` are Arrow tables it may name."""
        with stoppable(), self._registered(tables):
            self.connection.execute(statement, parameters).fetchall()

    def rows(self, statement: str, parameters: object = None) -> list[tuple[Any, ...]]:
        with stoppable():
            rows: list[tuple[Any, ...]] = self.connection.execute(statement, parameters).fetchall()
        return rows

    def one(self, statement: str, parameters: object = None) -> Any:
        """The first value of the first row, or None."""
        rows = self.rows(statement, parameters)
        return rows[0][0] if rows else None

    def arrow(self, statement: str, parameters: object = None, **tables: pa.Table) -> pa.Table:
        """The result as an Arrow table, read to its end: a half-read one keeps the file locked."""
        with stoppable(), self._registered(tables):
            return self.connection.sql(statement, params=parameters).to_arrow_table()

    @contextlib.contextmanager
    def _registered(self, tables: Mapping[str, pa.Table]) -> Iterator[None]:
        for name, table in tables.items():
            self.connection.register(name, table)
        try:
            yield
        except BaseException:
            with contextlib.suppress(duckdb.Error):  # of a transaction that is over: it must not hide what ended it
                self._unregister(tables)
            raise
        self._unregister(tables)

    def _unregister(self, tables: Mapping[str, pa.Table]) -> None:
        for name in tables:  # a registration keeps its table in memory
            self.connection.unregister(name)


class StoreFile:
    """One local file in this process, shared by all contexts that name it.

    Parameters
    ----------
    path
        The DuckDB file, or ":memory:".
    """

    _open: ClassVar[weakref.WeakValueDictionary[str, StoreFile]] = weakref.WeakValueDictionary()
    _open_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: str) -> None:
        self.path = path
        self._refuse_sqlite()
        self._lock = threading.RLock()
        self._depth = 0
        self._in_transaction = False
        self._relations = 0
        self._attached = False
        self._commits = 0
        self._pid = os.getpid()
        self._connect()

    @classmethod
    def named(cls, path: str | os.PathLike[str]) -> StoreFile:
        """The one object for a path: a second DuckDB instance in a process cannot open the same file."""
        text = os.fspath(path)
        if text == MEMORY:
            return cls(MEMORY)
        real = os.path.realpath(text)
        with cls._open_lock:
            file = cls._open.get(real)
            if file is None or file._pid != os.getpid():
                file = cls._open[real] = cls(real)
            return file

    @property
    def exists(self) -> bool:
        return self.path != MEMORY and Path(self.path).exists()

    def stamp(self) -> tuple[int, int, int]:
        """What moves when the file was written by this process or another; cheap, and holds nothing.

        Reading moves it not: DuckDB leaves a file alone that it only looked at.
        """
        if self.path == MEMORY:
            return self._commits, 0, 0
        try:
            found = Path(self.path).stat()
        except OSError:  # someone has taken the file away; the next call will say so
            return self._commits, 0, 0
        return self._commits, found.st_mtime_ns, found.st_size

    @contextlib.contextmanager
    def held(self, lock_timeout_s: float) -> Iterator[Cursor]:
        """Hold the file for one call; calls within it share it.

        Raises
        ------
        StoreError
            If another process (or thread) holds it for longer than `lock_timeout_s`; names the process.
        """
        until = time.monotonic() + lock_timeout_s
        if not self._lock.acquire(timeout=lock_timeout_s):
            raise StoreError(
                f"the store {self.path} is held by another thread of this process for over {lock_timeout_s} s"
            )
        try:
            self._enter(until, lock_timeout_s)
            try:
                yield Cursor(self._connection)
            except _BROKEN as error:
                raise self._broken(error) from error
            finally:
                self._leave()
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def transaction(self, lock_timeout_s: float) -> Iterator[Cursor]:
        """Hold the file, and change all of what is changed inside, or nothing; an inner one joins the outer."""
        with self.held(lock_timeout_s) as cursor:
            if self._in_transaction:
                yield cursor
                return
            try:
                self._in_transaction = True  # first: stopped behind the statement, it is rolled back
                cursor.run("begin")
                yield cursor
                cursor.run("commit")
            except BaseException:
                with contextlib.suppress(duckdb.Error):  # a failed commit has rolled back already
                    self._surely("rollback")
                raise
            finally:
                self._commits += 1  # the stop button may come just behind the commit
                self._in_transaction = False

    @contextlib.contextmanager
    def looking(self, lock_timeout_s: float) -> Iterator[Cursor]:
        """Hold the file for a query of the user's: DuckDB itself refuses what writes."""
        with self.held(lock_timeout_s) as cursor:
            if self._in_transaction:
                yield cursor
                return
            try:
                cursor.run("begin transaction read only")
                yield cursor
            finally:
                with contextlib.suppress(duckdb.Error):
                    self._surely("rollback")

    def relation(self, statement: str, lock_timeout_s: float) -> duckdb.DuckDBPyRelation:
        """A lazy relation; the file stays held by this process until it is dropped."""
        with self.held(lock_timeout_s):
            cursor = self._connection.cursor()
            cursor.execute("use store")
            relation = cursor.sql(statement)
            self._relations += 1
        weakref.finalize(relation, self._release_relation, cursor)
        return relation

    def _release_relation(self, cursor: duckdb.DuckDBPyConnection) -> None:
        with self._lock:
            cursor.close()
            self._relations -= 1
            if self._depth == 0:
                self._detach()

    def _connect(self) -> None:
        folder = None if self.path == MEMORY else str(Path(self.path).parent)
        self._connection = duckdb.connect(MEMORY)
        self._connection.execute("set timezone = 'UTC'")
        self._connection.execute("set arrow_large_buffer_size = true")
        with contextlib.suppress(duckdb.InvalidInputException):  # a kernel without ipywidgets has none
            self._connection.execute("set enable_progress_bar = false")
        self._connection.execute("set autoinstall_known_extensions = false")  # the local file asks the network nothing
        if folder:  # by default it is `.tmp` in the working directory
            self._connection.execute(f"set temp_directory = {literal(os.path.join(folder, '.syncframe-tmp'))}")  # noqa: PTH118

    def _enter(self, until: float, lock_timeout_s: float) -> None:
        if not self._attached:
            try:
                self._attach(until, lock_timeout_s)
            except KeyboardInterrupt:
                self._let_go()
                raise
        self._depth += 1

    def _leave(self) -> None:
        self._depth -= 1
        if self._depth == 0 and self._relations == 0:
            self._detach()

    def _attach(self, until: float, lock_timeout_s: float) -> None:
        if self.path == MEMORY:
            self._connection.execute("attach if not exists ':memory:' as store")
        else:
            with self._turnstile(until, lock_timeout_s):
                self._attach_file(until, lock_timeout_s)
        self._execute("use store")
        self._attached = True

    def _refuse_sqlite(self) -> None:
        file = Path(self.path)
        if not file.is_file():
            return
        with file.open("rb") as opened:
            is_sqlite = opened.read(len(_SQLITE)) == _SQLITE
        if is_sqlite:
            raise StoreError(
                f"{self.path} is a SQLite database: a back end, not a store",
                hint=f'connect("sqlite:///{self.path}", store="another file")',
            )

    def _attach_file(self, until: float, lock_timeout_s: float) -> None:
        self._let_go()  # what a call that was stopped half-way has left
        while True:
            try:
                self._execute(f"attach {literal(self.path)} as store (type duckdb)")
                return
            except duckdb.Error as error:
                if "lock" not in str(error).lower():
                    raise self._broken(error) from error
                if time.monotonic() > until:
                    raise self._held_elsewhere(str(error), lock_timeout_s) from error
                time.sleep(POLL_S)

    def _detach(self) -> None:
        if not self._attached or self.path == MEMORY:
            return
        self._attached = False
        self._let_go()

    def _let_go(self) -> None:
        if self.path != MEMORY:
            self._surely("use memory", "detach database if exists store")

    def _execute(self, statement: str) -> None:
        with stoppable():
            self._connection.execute(statement)

    def _surely(self, *statements: str) -> None:
        """Run statements that do no harm twice, and to their end: the stop button does not leave the file held."""
        stopped: KeyboardInterrupt | None = None
        for statement in statements:
            try:
                self._execute(statement)
            except KeyboardInterrupt as stop:
                stopped = stop
                with contextlib.suppress(duckdb.Error):
                    self._execute(statement)
        if stopped is not None:
            raise stopped

    @contextlib.contextmanager
    def _turnstile(self, until: float, lock_timeout_s: float) -> Iterator[None]:
        if fcntl is None:
            yield
            return
        handle = self._side_file()
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise self._held_elsewhere("", lock_timeout_s) from None
                    time.sleep(POLL_S)
            yield
        finally:
            os.close(handle)

    def _side_file(self) -> int:
        try:
            return os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(
                f"the store {self.path} cannot be made: {error.strerror}",
                hint="is its folder there, and may this user write in it?",
            ) from error

    def _held_elsewhere(self, text: str, lock_timeout_s: float) -> StoreError:
        match = _HOLDER.search(text)
        who = f"process {match[2]} ({match[1]})" if match else "another process"
        return StoreError(
            f"the store {self.path} is held by {who} for over {lock_timeout_s} s",
            hint="end that process, or drop the relation it holds; connect(lock_timeout_s=...) waits longer",
        )

    def _broken(self, error: duckdb.Error) -> StoreError:
        text = str(error).splitlines()[0]
        if isinstance(error, duckdb.FatalException):  # the instance refuses all that follows: begin with a new one
            self._connect()
            self._attached = False
        return StoreError(
            f"the store {self.path} cannot be read or written: {text}",
            hint="is it a DuckDB file, is there space on the disk, may this user write there?",
        )
