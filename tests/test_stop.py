"""The stop button in the middle of each call: what is seen is a KeyboardInterrupt, and everything is whole.

A child process makes a call on 30,000 rows, and a SIGINT comes at a part of the time that the call takes.  The parent
looks at both sides with plain DuckDB and SQLite, the child makes the same call again, and both sides are compared with
what was written down by hand.  One test presses the button of a Jupyter kernel.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from jupyter_client.manager import start_new_kernel
from stories import shown, synced, todo_database, waiting

import syncframe as sf
from syncframe.backends import open as open_backend
from syncframe.file import Cursor

spawn = multiprocessing.get_context("forkserver")
spawn.set_forkserver_preload(["syncframe.context", "syncframe.server", "pytest"])

ROWS = 30_000
EDITED = 12_000  # of the operations that wait to be pushed; staged are all
PAGE_ROWS = 10_000
INSERTED = [f"x{i:03}" for i in range(100)]
DELETED = [f"r{i:06}" for i in range(ROWS - 49, ROWS + 1)]

START = {f"r{i:06}": i for i in range(1, ROWS + 1)}
EDITS = {f"r{i:06}": i + 1_000_000 for i in range(1, EDITED + 1)} | dict.fromkeys(INSERTED, 1)
END = {key: n for key, n in (START | EDITS).items() if key not in DELETED}
ALL_EDITED = {key: n + 1_000_000 for key, n in START.items() if key not in DELETED}
CHANGED = {*EDITS, *DELETED}

HEAVY = """
    select count(*) as found, sum(hash(a.id || b.title)) as h from rows a join rows b on a.n % 200 = b.n % 200
"""


# -- the calls; each may be made again after it was stopped, as a user runs a cell again


def edit(df: pd.DataFrame, count: int) -> pd.DataFrame:
    """Edit rows, drop some, and append some whose keys are to be made, or are given."""
    df.loc[df.index[:count], "n"] += 1_000_000
    return df.drop(DELETED)


@dataclass(frozen=True)
class Call:
    """What is called, and on what: the frame is made before the time begins."""

    beginning: str
    run: Callable[[sf.SyncContext, Any], object]
    prepare: Callable[[sf.SyncContext], Any] = lambda context: None


def staged_frame(context: sf.SyncContext) -> pd.DataFrame:
    new = pd.DataFrame({"title": "new", "n": 1}, index=pd.Index([None] * 100, name="id", dtype="str"))
    df = edit(context["rows"].frame(), ROWS)
    attrs = df.attrs
    df = pd.concat([df, new.astype({"n": "Int64", "title": "str"})])
    df.attrs = attrs
    return df


CALLS = {
    "pull": Call("new", lambda c, _: c["rows"].pull(query_id="all", page_rows=PAGE_ROWS, progress=False)),
    "push": Call("staged", lambda c, _: c.push(progress=False)),
    "stage": Call("pulled", lambda c, df: c["rows"].stage(df), staged_frame),
    "frame": Call("staged", lambda c, _: len(c["rows"].frame())),
    "sql": Call("staged", lambda c, _: int(c.sql(HEAVY)["found"][0])),
    "discard": Call("staged", lambda c, _: c.discard()),
    "undo": Call("staged", lambda c, _: c.undo() if len(c.pending) else None),  # again, there may be nothing left
    "keep mine": Call("conflicted", lambda c, _: c.conflicts.keep_mine()),
    "take theirs": Call("conflicted", lambda c, _: c.conflicts.take_theirs()),
}


# -- both sides


@dataclass
class Side:
    """A store and its database, as plain DuckDB and SQLite show them."""

    here: dict[str, int]
    pending: dict[str, str]
    operations: int
    conflicts: set[str]
    there: dict[str, int]
    audit: list[tuple[str, str]]


def look(folder: Path) -> Side:
    here: dict[str, int] = {}
    pending: dict[str, str] = {}
    operations, conflicts = 0, set()
    with duckdb.connect(str(folder / "store.duckdb"), read_only=True) as plain:  # refused while another holds it
        if plain.execute("select 1 from duckdb_views() where schema_name = 'main' and view_name = 'rows'").fetchall():
            here = dict(plain.execute("select id, n from rows").fetchall())
            pending = dict(plain.execute("select distinct key, kind from syncframe.pending").fetchall())
            operations = plain.execute("select count(*) from syncframe_edits.rows").fetchall()[0][0]
            conflicts = {key for (key,) in plain.execute("select distinct key from syncframe.conflicts").fetchall()}
    with contextlib.closing(sqlite3.connect(folder / "far.db")) as far:
        there = dict(far.execute("select id, n from rows").fetchall())
        audit = far.execute("select key, kind from audit").fetchall()
    return Side(here, pending, operations, conflicts, there, audit)


def make_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as far:
        far.executescript(
            f"""
            create table rows (id text primary key, title text, n bigint);
            with recursive numbers(i) as (select 1 union all select i + 1 from numbers where i < {ROWS})
            insert into rows select printf('r%06d', i), 'row', i from numbers;
            create table audit (key text, kind text);
            create trigger audit_insert after insert on rows begin insert into audit values (new.id, 'insert'); end;
            create trigger audit_update after update on rows begin insert into audit values (new.id, 'update'); end;
            create trigger audit_delete after delete on rows begin insert into audit values (old.id, 'delete'); end;
            """
        )
    open_backend(f"sqlite:///{path}").track(["rows"])


@pytest.fixture(scope="module")
def beginnings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a store and its database: never pulled, pulled, edits staged, edits in conflict."""
    base = tmp_path_factory.mktemp("beginnings")
    folders = {name: base / name for name in ("new", "pulled", "staged", "conflicted")}
    folders["new"].mkdir()
    make_database(folders["new"] / "far.db")
    before = folders["new"]
    for name in ("pulled", "staged", "conflicted"):
        shutil.copytree(before, folders[name])
        before = folders[name]
        with sf.connect(f"sqlite:///{before / 'far.db'}", store=before / "store.duckdb") as context:
            if name == "pulled":
                context["rows"].pull(query_id="all", progress=False)
            elif name == "staged":
                df = edit(context["rows"].frame(), EDITED)
                context["rows"].stage(pd.concat([df, inserted_rows()]), base=context["rows"].frame())
            else:
                with contextlib.closing(sqlite3.connect(before / "far.db")) as far:
                    far.execute(f"update rows set n = -n where n <= {EDITED}")
                    far.commit()
                context["rows"].pull(query_id="all", push_first=False, progress=False)
    return folders


def inserted_rows() -> pd.DataFrame:
    return pd.DataFrame({"title": "new", "n": 1}, index=pd.Index(INSERTED, name="id", dtype="str")).astype(
        {"n": "Int64", "title": "str"}
    )


# -- what must hold when the call was stopped, and when it was made again


def check_stopped(call: str, side: Side) -> None:
    """Finished transactions stay, and nothing lies between two of them."""
    if call == "pull":
        assert len(side.here) % PAGE_ROWS == 0
        assert side.here.items() <= START.items()
        assert not side.operations
    elif call == "push":
        assert side.here == END
        assert side.operations == len(side.pending)
        assert {key for key in CHANGED if side.there.get(key) != END.get(key)} <= side.pending.keys() <= CHANGED
        assert len(side.audit) == len({key for key, _ in side.audit})
    elif call == "stage":
        assert side.operations in (0, ROWS + 100)
        assert len(side.here) in (ROWS, ROWS + 50)
    elif call in ("frame", "sql"):
        assert (side.here, side.pending.keys(), side.there) == (END, CHANGED, START)
    elif call in ("discard", "undo"):
        assert (side.here, side.operations) in ((END, len(CHANGED)), (START, 0))
    else:
        assert len(side.conflicts) in (0, EDITED)
        assert side.there == START | {f"r{i:06}": -i for i in range(1, EDITED + 1)}


def check_finished(call: str, side: Side, answer: str) -> None:
    """The call has done what it does, once."""
    if call == "pull":
        assert side.here == side.there == START
    elif call == "push":
        assert side.here == side.there == END
        assert not side.operations
        assert sorted(key for key, _ in side.audit) == sorted(CHANGED)
    elif call == "stage":
        made = side.here.keys() - START.keys()
        assert len(made) == 100
        assert {key: n for key, n in side.here.items() if key not in made} == ALL_EDITED
        assert side.operations == ROWS + 100
    elif call == "frame":
        assert answer == str(len(END))
    elif call == "sql":
        assert answer == str(SQL_FOUND)
    elif call in ("discard", "undo"):
        assert (side.here, side.operations, side.there) == (START, 0, START)
    else:
        theirs = {f"r{i:06}": -i for i in range(1, EDITED + 1)}
        assert not side.conflicts
        assert side.here == (END if call == "keep mine" else END | theirs)
        assert side.operations == (len(CHANGED) if call == "keep mine" else 150)


# n modulo 200 of END: by hand, 12,000 rows 1,000,001 .. 1,012,000 and 17,950 rows 12,001 .. 29,950 spread evenly but for
# the 50 that are deleted (remainders 151 .. 199 and 0: 149 rows each, the others 150), and 100 more of remainder 1.
SQL_FOUND = 149 * 150**2 + 50 * 149**2 + 250**2


# -- a child that is stopped


def child(pipe: Connection, url: str, store: Path, name: str) -> None:
    """Make a call twice; what ended the first one is kept, as a kernel keeps it for its traceback."""
    call, kept = CALLS[name], []
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # one that is early or late is none
    with sf.connect(url, store=store) as context:
        given = call.prepare(context)
        pipe.send("ready")
        pipe.recv()
        began = time.monotonic()
        try:
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                call.run(context, given)
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        except BaseException as error:
            kept.append(error)
        took_s = time.monotonic() - began
        pipe.send((repr(kept[0]) if kept else "finished", took_s))
        if pipe.recv() == "again":
            pipe.send(str(call.run(context, given)))


@contextlib.contextmanager
def running(*arguments: Any) -> Iterator[tuple[Any, Connection]]:
    here, there = spawn.Pipe()
    process = spawn.Process(target=child, args=(there, *arguments))
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        here.close()
        process.join(60)
        process.kill()


def stop_at(folder: Path, url: str, name: str, at_s: float | None) -> tuple[str, float]:
    """Stop a call after so long, look, and let it be made again; return what was seen and how long it took.  None: only that."""
    with running(url, folder / "store.duckdb", name) as (process, pipe):
        assert pipe.recv() == "ready"
        pipe.send("go")
        if at_s is not None and not pipe.poll(at_s):
            os.kill(process.pid, signal.SIGINT)
        seen, took_s = pipe.recv()
        if at_s is None:
            pipe.send("enough")
            return seen, took_s
        if seen != "finished":
            check_stopped(name, look(folder))
        pipe.send("again")
        answer = pipe.recv()
    check_finished(name, look(folder), answer)
    return seen, took_s


def stop_at_parts(
    folder: Path, beginning: Path, url: Callable[[Path], str], name: str, parts: list[float]
) -> list[str]:
    """Measure a call, then stop it at each of these parts of its time."""
    shutil.copytree(beginning, folder / "whole")
    _, took_s = stop_at(folder / "whole", url(folder / "whole"), name, None)
    seen = []
    for part in parts:
        for at_s in (part * took_s, part * took_s / 2, part * took_s / 4):  # a machine is not always as slow
            shutil.copytree(beginning, folder / f"{part}")
            saw, _ = stop_at(folder / f"{part}", url(folder / f"{part}"), name, at_s)
            shutil.rmtree(folder / f"{part}")
            seen.append(saw)
            if saw != "finished":
                break
    return seen


def over_sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'far.db'}"


def serve(pipe: Connection, path: Path) -> None:
    with sf.serve(f"sqlite:///{path}", tables=["rows"]) as server:
        pipe.send(server.url)
        pipe.recv()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, beginnings: dict[str, Path]) -> Iterator[Path]:
    """A folder whose database another process serves, at the address in its `url`; a test puts its own in its place."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(beginnings["new"] / "far.db", folder / "far.db")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(there, folder / "far.db"))
    process.start()
    there.close()
    (folder / "url").write_text(here.recv())
    yield folder
    here.send("enough")
    process.join(60)


def over_http(served: Path) -> Callable[[Path], str]:
    def url(folder: Path) -> str:
        (folder / "far.db").replace(served / "far.db")
        (folder / "far.db").symlink_to(served / "far.db")
        return (served / "url").read_text()

    return url


STOPPED = "KeyboardInterrupt()"
FEW = [("stage", [0.3, 0.8])] + [(name, [0.5]) for name in ("pull", "push", "sql", "discard", "undo", "keep mine")]


@pytest.mark.parametrize(("name", "parts"), FEW, ids=[name for name, _ in FEW])
def test_a_call_that_is_stopped_raises_keyboard_interrupt_and_made_again_it_ends_as_if_it_had_not_been(
    tmp_path: Path, beginnings: dict[str, Path], name: str, parts: list[float]
) -> None:
    seen = stop_at_parts(tmp_path, beginnings[CALLS[name].beginning], over_sqlite, name, parts)

    assert STOPPED in seen
    assert {*seen} <= {STOPPED, "finished"}


@pytest.mark.parametrize(("name", "parts"), [("pull", [0.6]), ("push", [0.6])], ids=["pull", "push"])
def test_a_pull_or_push_over_http_that_is_stopped_goes_on(
    tmp_path: Path, beginnings: dict[str, Path], served: Path, name: str, parts: list[float]
) -> None:
    seen = stop_at_parts(tmp_path, beginnings[CALLS[name].beginning], over_http(served), name, parts)

    assert STOPPED in seen
    assert {*seen} <= {STOPPED, "finished"}


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_stopped_at_any_of_twenty_moments_goes_on(
    tmp_path: Path, beginnings: dict[str, Path], name: str
) -> None:
    parts = [at / 20 for at in range(20)]
    seen = stop_at_parts(tmp_path, beginnings[CALLS[name].beginning], over_sqlite, name, parts)

    assert STOPPED in seen
    assert {*seen} <= {STOPPED, "finished"}


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["pull", "push"])
def test_a_pull_or_push_over_http_stopped_at_any_of_twenty_moments_goes_on(
    tmp_path: Path, beginnings: dict[str, Path], served: Path, name: str
) -> None:
    parts = [at / 20 for at in range(20)]
    seen = stop_at_parts(tmp_path, beginnings[CALLS[name].beginning], over_http(served), name, parts)

    assert STOPPED in seen
    assert {*seen} <= {STOPPED, "finished"}


# -- stopped at one place


class Stopping:
    """A connection of which the n-th statement is run, and stopped."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.ran, self.at = connection, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, text: str, *rest: Any) -> Any:
        result = self.connection.execute(text, *rest)
        self.ran += 1
        if self.ran == self.at:
            raise RuntimeError("Query interrupted")  # what DuckDB makes of the KeyboardInterrupt
        return result

    def holds_the_file(self) -> bool:
        held = "select 1 from duckdb_databases() where database_name = 'store'"
        return bool(self.connection.execute(held).fetchall())


def test_a_call_stopped_behind_any_statement_lets_go_of_the_file_and_made_again_is_done_once(tmp_path: Path) -> None:
    context = synced(todo_database(tmp_path).url, tmp_path / "store.duckdb")
    stopping = context._store.file._connection = Stopping(context._store.file._connection)  # type: ignore[assignment]
    context["todo"].update("a", n=0)
    count = stopping.ran

    for at in range(1, count + 1):
        stopping.ran, stopping.at = 0, at
        with pytest.raises(KeyboardInterrupt):
            context["todo"].update("a", n=at)
        assert not stopping.holds_the_file(), at

        context["todo"].update("a", n=at)

        assert context["todo"].get("a")["n"] == at
    assert waiting(context) == [("update", "a")]
    assert count > 20


def test_a_staging_stopped_behind_its_commit_and_staged_again_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = sf.connect(store=tmp_path / "store.duckdb").table("todo", {"id": "VARCHAR", "n": "BIGINT"})
    df = table.frame()
    df = pd.concat([df, pd.DataFrame({"n": [1]}, index=pd.Index([None], name="id", dtype="str"), dtype="Int64")])
    plain_run = Cursor.run

    def run(self: Cursor, statement: str, *rest: Any, **tables: Any) -> None:
        plain_run(self, statement, *rest, **tables)
        if statement == "commit":
            raise KeyboardInterrupt

    with monkeypatch.context() as stop:
        stop.setattr(Cursor, "run", run)
        with pytest.raises(KeyboardInterrupt):
            table.stage(df)
    assert len(table) == 1

    table.stage(df)

    assert len(table) == 1
    assert df.index.tolist() == table.frame().index.tolist()


def test_the_stop_button_while_sqlite_runs_a_function_of_ours_is_no_error_of_a_condition(tmp_path: Path) -> None:
    path = tmp_path / "far.db"
    with contextlib.closing(sqlite3.connect(path)) as far:
        far.executescript(
            """
            create table rows (id integer primary key, n bigint);
            with recursive numbers(i) as (select 1 union all select i + 1 from numbers where i < 200000)
            insert into rows select i, i from numbers;
            """
        )
    backend = open_backend(f"sqlite:///{path}")  # not tracked: a row's version is a hash, which a function makes

    came = []
    for at_s in (0.05, 0.1, 0.15, 0.2):
        button = threading.Timer(at_s, signal.raise_signal, [signal.SIGINT])
        with pytest.raises(KeyboardInterrupt):
            button.start()
            for page in backend.pull("rows", sf.Query(None, None, 200_000), None):
                came.append(len(page.rows))
            button.join()
            time.sleep(1)

    assert sum(len(page.rows) for page in backend.pull("rows", sf.Query(None, None, 200_000), None)) == 200_000


def test_a_failing_function_is_still_an_error_of_the_condition(tmp_path: Path) -> None:
    context = synced(todo_database(tmp_path).url)

    with pytest.raises(sf.errors.QueryError, match="cannot be computed"):
        context.remote("todo").read("n // 0 = 1")


# -- cancelled from another thread, as the widget does


def test_a_push_and_a_pull_cancelled_in_another_thread_end_there_and_go_on(tmp_path: Path) -> None:
    database = todo_database(tmp_path)
    context = synced(database.url, tmp_path / "store.duckdb")
    for key, n in (("a", 10), ("b", 20)):
        context["todo"].update(key, n=n)
    database.run("update todo set n = 30 where id = 'c'")
    seen: dict[str, BaseException] = {}

    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int | None, what: str) -> None:
        raise Cancelled

    def work(name: str, call: Callable[..., object]) -> None:
        try:
            call(progress=cancel)
        except BaseException as error:
            seen[name] = error

    for name, call in (("push", context.push), ("pull", context["todo"].pull)):
        thread = threading.Thread(target=work, args=(name, call))
        thread.start()
        thread.join(60)

    assert {name: type(error) for name, error in seen.items()} == {"push": Cancelled, "pull": Cancelled}
    assert context.sync(progress=False).conflicts == 0
    assert shown(context) == database.todo() == {"a": ["milk", 10], "b": ["bread", 20], "c": ["eggs", 30]}
    assert sorted(database.audit()) == [("update", "a"), ("update", "b"), ("update", "c")]


# -- a kernel


@dataclass
class Kernel:
    """A Jupyter kernel with what its cells put out."""

    manager: Any
    client: Any

    def run(self, code: str, stop_after_s: float | None = None) -> tuple[str, str]:
        """Run a cell, and press the stop button after so long; return what it printed and the error's name."""
        asked = self.client.execute(code)
        button = threading.Timer(stop_after_s or 0, self.manager.interrupt_kernel)
        if stop_after_s is not None:
            button.start()
        printed, error = "", ""
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            printed += content["text"] if kind == "stream" else ""
            error = content["ename"] if kind == "error" else error
            if kind == "status" and content["execution_state"] == "idle":
                return printed.strip(), error


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    manager, client = start_new_kernel(kernel_name="python3")
    yield Kernel(manager, client)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_the_stop_button_of_a_kernel_ends_a_cell_with_keyboard_interrupt_and_the_cell_run_again_ends(
    tmp_path: Path, beginnings: dict[str, Path], served: Path, kernel: Kernel
) -> None:
    folder = tmp_path / "kernel"
    shutil.copytree(beginnings["new"], folder)
    url = over_http(served)(folder)
    cells = {
        "pull": "print(t.pull(query_id='all', page_rows=1_000, progress=False).inserted > 0)",
        "stage": f"df.iloc[:{EDITED}, df.columns.get_loc('n')] += 1; t.stage(df); print(True)",
        "push": "print(c.push(progress=False).ok)",
    }
    kernel.run(
        f"import syncframe as sf; c = sf.connect({url!r}, store={str(folder / 'store.duckdb')!r}); t = c['rows']"
    )

    seen = {}
    for name, after_s in (("pull", 0.3), ("stage", 0.1), ("push", 0.4)):
        if name == "stage":
            kernel.run("df = t.frame()")
            kernel.run(cells["stage"].partition(";")[0])
            cells["stage"] = "t.stage(df); print(True)"
        seen[name] = [kernel.run(cells[name], after_s), kernel.run(cells[name])]

    assert {name: error for name, ((_, error), _) in seen.items()} == dict.fromkeys(cells, "KeyboardInterrupt")
    assert {name: again for name, (_, again) in seen.items()} == dict.fromkeys(cells, ("True", ""))
    kernel.run("c.close()")
    side = look(folder)
    assert side.here == side.there == {key: n + (n <= EDITED) for key, n in START.items()}
    assert not side.operations
    assert sorted(side.audit) == [(key, "update") for key, n in START.items() if n <= EDITED]
