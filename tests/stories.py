"""Small builders that stories share: a todo list in SQLite, contexts on it, and a line to it that goes wrong when told.

The list has a table of lists and one of things to do, and an audit that triggers of its own write: one entry for each
insert, update of a title or number, and delete, whoever did it.  So a test can count what was applied, however often
it was sent.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import syncframe as sf
from syncframe.backends import Backend, Checkpoint, Operations, Outcomes, Page
from syncframe.backends import open as open_backend
from syncframe.errors import TransientError

SCHEMA = """
    create table lists (id text primary key, name varchar not null);
    create table todo (
        id text primary key,
        list text references lists (id),
        title varchar not null,
        n bigint check (n >= 0),
        stars bigint default 3,
        code varchar unique
    );
    insert into lists values ('home', 'Home'), ('work', 'Work');
    insert into todo (id, list, title, n) values
        ('a', 'home', 'milk', 1), ('b', 'home', 'bread', 2), ('c', 'work', 'eggs', 3);
    create table audit (number integer primary key, kind varchar, key varchar);
    create trigger audit_insert after insert on todo begin
        insert into audit (kind, key) values ('insert', new.id); end;
    create trigger audit_update after update of n on todo begin
        insert into audit (kind, key) values ('update', new.id); end;
    create trigger audit_delete after delete on todo begin
        insert into audit (kind, key) values ('delete', old.id); end;
    create trigger audit_lists after insert on lists begin
        insert into audit (kind, key) values ('insert', new.id); end;
    create trigger audit_lists_delete after delete on lists begin
        insert into audit (kind, key) values ('delete', old.id); end;
"""

# A database that changes what it is given: its clients learn of it from the answer only.
LOUD = """
    create trigger loud_insert after insert on todo when new.title <> upper(new.title) begin
        update todo set title = upper(title) where id = new.id; end;
    create trigger loud_update after update of title on todo when new.title <> upper(new.title) begin
        update todo set title = upper(title) where id = new.id; end;
"""


class Database:
    """The todo list's SQLite file, as any other program sees it."""

    def __init__(self, path: Path, *, loud: bool = False, tracked: bool = True) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.run(SCHEMA + (LOUD if loud else ""))
        if tracked:
            open_backend(self.url).track(["lists", "todo"])

    @classmethod
    def at(cls, path: Path) -> Database:
        """A file that was made before."""
        database = cls.__new__(cls)
        database.path, database.url = path, f"sqlite:///{path}"
        return database

    def run(self, script: str) -> None:
        """Run statements as another program would."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection:
            connection.executescript(f"pragma foreign_keys = on; begin immediate; {script}; commit;")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def todo(self) -> dict[str, list[Any]]:
        """Title and n of each row by its key."""
        return {key: [title, n] for key, title, n in self.rows("select id, title, n from todo order by id")}

    def audit(self) -> list[tuple[str, str]]:
        """What was applied, in order."""
        return self.rows("select kind, key from audit order by number")


def todo_database(folder: Path, name: str = "todo.db", **how: bool) -> Database:
    return Database(folder / name, **how)


def synced(backend: str | Backend, store: str | Path = ":memory:", **options: Any) -> sf.SyncContext:
    """A context with both tables pulled."""
    context = sf.connect(backend, store=store, **options)
    for table in ("lists", "todo"):
        context[table].pull(query_id="all", progress=False)
    return context


def shown(context: sf.SyncContext) -> dict[str, list[Any]]:
    """Title and n of each row of the todo list by its key, as the context shows them."""
    rows = context["todo"].arrow().select(["id", "title", "n"]).to_pylist()
    return {row["id"]: [row["title"], row["n"]] for row in sorted(rows, key=lambda row: row["id"])}


def waiting(context: sf.SyncContext) -> list[tuple[str, Any]]:
    """Kind and key of what is queued, in order."""
    return [(operation.kind, operation.key) for operation in context.pending]


class Line:
    """A back end at the end of a line that loses requests or answers when told; all else is handed on.

    Parameters
    ----------
    backend
        What is at its end: a back end, or the URL of one.
    """

    def __init__(self, backend: str | Backend) -> None:
        self.inner: Any = open_backend(backend) if isinstance(backend, str) else backend
        self.promises = self.inner.promises
        self.asked: list[str] = []  # the name of every call
        self.rows_read = 0
        self.fault: Exception | None = None  # what every call raises
        self.answers_left: int | None = None  # None: all come through
        self.is_slow = False  # requests stay on the way
        self.on_the_way: list[Operations] = []
        self.before_answer: Callable[[], object] = lambda: None

    def _use(self, call: str) -> Any:
        self.asked.append(call)
        if self.fault is not None:
            raise self.fault
        return getattr(self.inner, call)

    def identity(self) -> str:
        return self._use("identity")()

    def schema(self, table: str) -> sf.Schema:
        return self._use("schema")(table)

    def tables(self) -> list[str]:
        return self._use("tables")()

    def rows(self, table: str, keys: Any) -> Any:
        return self._use("rows")(table, keys)

    def pull(
        self, table: str, query: sf.Query, since: Checkpoint | None, others: Sequence[sf.Query] = ()
    ) -> Iterator[Page]:
        for page in self._use("pull")(table, query, since, others):
            self.rows_read += len(page.rows)
            yield page

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        send = self._use("push")
        if self.is_slow:
            self.on_the_way.append(batch)
            raise TransientError("the back end did not answer in time")
        for outcomes in list(send(batch)):  # applied to the end, whatever becomes of the answer
            self.before_answer()
            yield from self._answers(outcomes)

    def push_atomic(self, batches: Sequence[Operations]) -> list[Outcomes]:
        answers = self._use("push_atomic")(batches)
        if self.answers_left is not None:
            raise TransientError("the answer was lost on its way")
        return answers

    def _answers(self, outcomes: Outcomes) -> Iterator[Outcomes]:
        if self.answers_left is None:
            yield outcomes
            return
        for at in range(len(outcomes)):
            if not self.answers_left:
                raise TransientError("the answer was lost on its way")
            self.answers_left -= 1
            yield Outcomes(outcomes.rows.slice(at, 1))

    def arrive(self) -> None:
        """Let the requests that stayed on the way reach the back end; nobody waits for the answer any more."""
        while self.on_the_way:
            list(self.inner.push(self.on_the_way.pop(0)))


@contextlib.contextmanager
def offline(line: Line) -> Iterator[None]:
    """Nothing reaches the back end."""
    line.fault = TransientError("no route to the back end", was_sent=False)
    yield
    line.fault = None


@contextlib.contextmanager
def lost_answers(line: Line, after: int = 0) -> Iterator[None]:
    """What is pushed is applied, and but for the first ones the answers do not come."""
    line.answers_left = after
    yield
    line.answers_left = None


@contextlib.contextmanager
def late_requests(line: Line) -> Iterator[None]:
    """What is pushed stays on the way until `line.arrive()`."""
    line.is_slow = True
    yield
    line.is_slow = False


class Unasked:
    """A back end that must not be asked anything."""

    promises = sf.Promises()

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the back end was asked for {name!r}")
