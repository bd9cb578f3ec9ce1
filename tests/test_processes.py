"""Several processes on one store: two kernels that stage, a command line that pushes, and nobody waits without words."""

from __future__ import annotations

import fcntl
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from stories import Database, Line, shown, synced, todo_database, waiting

import syncframe as sf
from syncframe.errors import StoreError

spawn = multiprocessing.get_context("forkserver")
spawn.set_forkserver_preload(["syncframe.context", "pytest"])

PATIENCE_S = 60  # of processes that do much at once: a slow machine is no failure


@pytest.fixture
def store(tmp_path: Path, database: Database) -> Path:
    path = tmp_path / "store.duckdb"
    synced(database.url, path).close()
    return path


def in_children(*calls: tuple[Any, ...]) -> list[Any]:
    """Run functions with their arguments in processes of their own, at once, and return what they return."""
    pipes, children = [], []
    for function, *arguments in calls:
        here, there = spawn.Pipe()
        child = spawn.Process(target=_answer, args=(there, function, arguments))
        child.start()
        there.close()
        pipes.append(here)
        children.append(child)
    answers = [pipe.recv() for pipe in pipes]
    for child in children:
        child.join()
    return answers


def _answer(pipe: Connection, function: Callable[..., Any], arguments: list[Any]) -> None:
    pipe.send(function(*arguments))


@contextmanager
def held_by(function: Callable[..., Any], *arguments: Any) -> Iterator[int]:
    """A process that holds something until the block is left; gives its number."""
    here, there = spawn.Pipe()
    child = spawn.Process(target=function, args=(there, *arguments))
    child.start()
    there.close()
    here.recv()
    try:
        yield child.pid
    finally:
        here.send("done")
        child.join()


# -- both see the truth, and nothing is pushed twice


def stage_many(store: Path, name: str, count: int) -> None:
    """Insert rows and edit one, a call each."""
    context = sf.connect(store=store, lock_timeout_s=PATIENCE_S)
    for n in range(count):
        context["todo"].insert({"id": f"{name}{n}", "title": name, "n": n})
        context["todo"].update("a" if name == "ann" else "b", n=n + 1)
        assert context["todo"].get(f"{name}{n}")["title"] == name


def push_many(url: str, store: Path, count: int) -> None:
    context = sf.connect(url, store=store, lock_timeout_s=PATIENCE_S)
    for _ in range(count):
        context.push(progress=False)


def command_line(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "syncframe", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_two_kernels_stage_while_the_command_line_pushes_and_nothing_is_lost_or_doubled(
    database: Database, store: Path
) -> None:
    with ThreadPoolExecutor() as threads:
        kernels = threads.submit(in_children, (stage_many, store, "ann", 6), (stage_many, store, "ben", 6))
        pushes = [command_line("push", store, "--url", database.url)]
        while not kernels.done():
            pushes.append(command_line("push", store, "--url", database.url))
        kernels.result()
    pushes.append(command_line("push", store, "--url", database.url))

    inserted = [key for kind, key in database.audit() if kind == "insert"]
    context = sf.connect(database.url, store=store)
    assert pushes[-1].returncode == 0, pushes[-1].stderr
    assert all(push.returncode == 0 or "held by" in push.stderr for push in pushes), pushes
    assert sorted(inserted) == sorted(f"{name}{n}" for name in ("ann", "ben") for n in range(6))  # each once
    assert len(context.pending) == len(context.conflicts) == 0
    assert database.todo()["a"] == ["milk", 6]
    assert database.todo()["b"] == ["bread", 6]
    assert shown(context) == database.todo()


def test_the_command_line_sees_what_a_kernel_has_staged_and_the_kernel_what_it_pulled(
    database: Database, store: Path
) -> None:
    context = sf.connect(database.url, store=store)
    context["todo"].update("a", n=11)
    database.run("update todo set title = 'tea' where id = 'c'")

    pending = command_line("pending", store, "--json")
    pulled = command_line("pull", store, "--url", database.url)

    assert '"a"' in pending.stdout
    assert pulled.returncode == 0, pulled.stderr
    assert shown(context) == database.todo() == {"a": ["milk", 11], "b": ["bread", 2], "c": ["tea", 3]}
    assert len(context.pending) == 0


def test_processes_that_push_at_once_send_each_operation_once(database: Database, store: Path) -> None:
    context = sf.connect(database.url, store=store)
    context["todo"].insert([{"id": f"x{n}", "title": "salt", "n": n} for n in range(50)])
    context["todo"].update("a", n=11)
    context["todo"].delete("b")

    in_children(*[(push_many, database.url, store, 2)] * 3)

    assert len(database.audit()) == 52
    assert len(set(database.audit())) == 52
    assert len(context.pending) == 0
    assert shown(context) == database.todo()


def see(store: Path) -> tuple[dict[str, list[Any]], list[tuple[str, Any]]]:
    context = sf.connect(store=store)
    return shown(context), waiting(context)


def test_what_one_kernel_stages_the_other_sees_at_once(database: Database, store: Path) -> None:
    context = sf.connect(database.url, store=store)
    context["todo"].update("a", n=11)
    context["todo"].delete("b")

    (seen,) = in_children((see, store))
    context.push(progress=False)
    (after,) = in_children((see, store))

    assert seen == ({"a": ["milk", 11], "c": ["eggs", 3]}, [("update", "a"), ("delete", "b")])
    assert after == ({"a": ["milk", 11], "c": ["eggs", 3]}, [])


def edit_row(store: Path, key: str, n: int) -> None:
    sf.connect(store=store)["todo"].update(key, n=n)


def test_a_frame_taken_before_another_kernel_staged_leaves_its_rows_alone(database: Database, store: Path) -> None:
    context = sf.connect(database.url, store=store)
    df = context["todo"].frame()
    in_children((edit_row, store, "a", 11))

    df.loc["b", "n"] = 22
    context["todo"].stage(df)

    assert shown(context) == {"a": ["milk", 11], "b": ["bread", 22], "c": ["eggs", 3]}
    assert waiting(context) == [("update", "a"), ("update", "b")]


def test_an_operation_staged_while_another_process_pushes_waits_its_turn(database: Database, store: Path) -> None:
    line = Line(database.url)
    context = sf.connect(line, store=store)
    context["todo"].update("a", n=11)
    line.before_answer = lambda: in_children((edit_row, store, "a", 12))  # the file is free while the answer is awaited

    first = context.push(progress=False)
    line.before_answer = lambda: None
    second = context.push(progress=False)

    assert (first.counts["accepted"], first.ok, second.ok) == (1, False, True)
    assert database.audit() == [("update", "a"), ("update", "a")]
    assert database.todo()["a"] == ["milk", 12]


def push_here(url: str, store: Path) -> tuple[int, str]:
    try:
        return sf.connect(url, store=store, lock_timeout_s=0.5).push(progress=False).counts["accepted"], ""
    except StoreError as error:
        return 0, error.message


def test_a_push_waits_for_another_and_says_whose_it_is(database: Database, store: Path) -> None:
    line = Line(database.url)
    context = sf.connect(line, store=store)
    context["todo"].update("a", n=11)
    answers: list[tuple[int, str]] = []
    line.before_answer = lambda: answers.extend(in_children((push_here, database.url, store)))

    assert context.push(progress=False).ok

    ((accepted, words),) = answers
    assert accepted == 0
    assert f"process {multiprocessing.current_process().pid} is pushing" in words
    assert database.audit() == [("update", "a")]


# -- a file that is held


def hold_plainly(pipe: Connection, store: Path) -> None:
    with duckdb.connect(str(store)):
        pipe.send("held")
        pipe.recv()


def hold_a_relation(pipe: Connection, store: Path) -> None:
    relation = sf.connect(store=store)["todo"].relation()
    pipe.send("held")
    pipe.recv()
    del relation


@pytest.mark.parametrize("holder", [hold_plainly, hold_a_relation])
def test_a_held_store_is_a_store_error_that_names_the_process(
    database: Database, store: Path, holder: Callable[..., None]
) -> None:
    context = sf.connect(database.url, store=store, lock_timeout_s=0.3)
    calls = {
        "frame": lambda: context["todo"].frame(),
        "update": lambda: context["todo"].update("a", n=11),
        "pending": lambda: len(context.pending),
        "push": lambda: context.push(),
        "pull": lambda: context["todo"].pull(query_id="all"),
        "connect": lambda: sf.connect(store=store, lock_timeout_s=0.3),
    }

    words = {}
    with held_by(holder, store) as pid:
        for name, call in calls.items():
            with pytest.raises(StoreError) as refused:
                call()
            words[name] = str(refused.value)

    assert all(f"(PID {pid})" in text or f"process {pid}" in text for text in words.values()), words
    assert all("0.3 s" in text for text in words.values())
    context["todo"].update("a", n=11)
    assert shown(context)["a"] == ["milk", 11]


def test_a_store_that_is_let_go_in_time_is_waited_for(database: Database, store: Path) -> None:
    context = sf.connect(database.url, store=store, lock_timeout_s=PATIENCE_S)

    with ThreadPoolExecutor() as threads:
        with held_by(hold_plainly, store):
            edit = threads.submit(context["todo"].update, "a", n=11)
            while not is_waited_for(store) and not edit.done():
                time.sleep(0.01)
            was_done = edit.done()
        edit.result()

    assert not was_done
    assert waiting(context) == [("update", "a")]


def is_waited_for(store: Path) -> bool:
    """Whether somebody stands in the turnstile."""
    with Path(f"{store}.lock").open("a") as turnstile:
        try:
            fcntl.flock(turnstile, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def test_a_relation_lets_the_file_go_when_it_is_dropped(store: Path) -> None:
    context = sf.connect(store=store)
    relation = context["todo"].relation()
    assert relation.aggregate("count(*)").fetchall() == [(3,)]
    (locked,) = in_children((is_locked, store))

    del relation

    assert locked
    assert in_children((is_locked, store)) == [False]


# -- nothing keeps the file locked after a call


def is_locked(store: Path) -> bool:
    try:
        duckdb.connect(str(store), read_only=True).close()
    except duckdb.IOException:
        return True
    return False


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(sf.SyncError):
        call()


def half_read(context: sf.SyncContext) -> object:
    iterator = iter(context.pending)
    next(iterator)
    return iterator


def half_read_conflicts(context: sf.SyncContext) -> object:
    iterator = iter(context.conflicts)
    next(iterator)
    return iterator


def stopped_pull(context: sf.SyncContext) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        context["todo"].pull(page_rows=1, progress=stop)


CALLS: dict[str, Callable[[sf.SyncContext], object]] = {
    "connect": lambda context: context,
    "frame": lambda context: context["todo"].frame(),
    "frame where": lambda context: context["todo"].frame("n > 1", system=True, pending=True),
    "arrow": lambda context: context["todo"].arrow(),
    "get": lambda context: context["todo"].get("a"),
    "len": lambda context: len(context["todo"]),
    "schema": lambda context: context["todo"].schema,
    "diff": lambda context: context["todo"].diff(context["todo"].frame()),
    "stage": lambda context: context["todo"].stage(context["todo"].frame().assign(n=9)),
    "stage arrow": lambda context: context["todo"].stage(context["todo"].arrow()),
    "insert": lambda context: context["todo"].insert({"id": "y", "title": "glue"}),
    "update": lambda context: context["todo"].update("a", n=9),
    "delete": lambda context: context["todo"].delete("a"),
    "sql": lambda context: context.sql("select * from todo"),
    "status": lambda context: context.status(),
    "history": lambda context: context.history,
    "tables": lambda context: context.tables,
    "repr": lambda context: repr(context),
    "pending": lambda context: repr(context.pending),
    "pending frame": lambda context: context.pending.frame(),
    "pending wide": lambda context: context.pending["todo"].frame(wide=True),
    "pending half read": half_read,
    "conflicts": lambda context: context.conflicts.frame(),
    "conflicts half read": half_read_conflicts,
    "keep mine": lambda context: context.conflicts.keep_mine(),
    "take theirs": lambda context: context.conflicts["todo", "c"].take_theirs(),
    "undo": lambda context: context.undo(),
    "revert": lambda context: context["todo"].revert("b"),
    "discard": lambda context: context.discard(),
    "push": lambda context: context.push(progress=False),
    "pull": lambda context: context["todo"].pull(query_id="all", progress=False),
    "full pull": lambda context: context["todo"].pull(page_rows=1, progress=False),
    "stopped pull": stopped_pull,
    "sync": lambda context: context.sync(progress=False),
    "resync": lambda context: context["todo"].resync(progress=False),
    "purge": lambda context: context["lists"].purge(),
    "a bad query": lambda context: refused(lambda: context.sql("select nothing from nowhere")),
    "a bad where": lambda context: refused(lambda: context["todo"].frame("nothing > 1")),
    "a bad frame": lambda context: refused(lambda: context["todo"].stage(pd.DataFrame({"x": [1]}))),
    "a bad value": lambda context: refused(lambda: context["todo"].update("a", n="many")),
    "a refused purge": lambda context: refused(lambda: context["todo"].purge()),
}


@pytest.fixture(scope="module")
def clashing(tmp_path_factory: pytest.TempPathFactory) -> sf.SyncContext:
    """A context with two pending operations and a conflict."""
    folder = tmp_path_factory.mktemp("clashing")
    database = todo_database(folder)
    context = synced(database.url, folder / "store.duckdb")
    database.run("update todo set title = 'tea' where id = 'c'")
    context["todo"].update("c", title="coffee")
    context.push(progress=False)
    context["todo"].insert({"id": "x", "title": "nails"})
    context["todo"].update("b", n=22)
    return context


@pytest.fixture
def watched(clashing: sf.SyncContext, tmp_path: Path) -> sf.SyncContext:
    """The same context, on a copy of its files."""
    folder = Path(clashing._store.path).parent
    shutil.copytree(folder, tmp_path / "copy")
    return sf.connect(f"sqlite:///{tmp_path}/copy/todo.db", store=tmp_path / "copy" / "store.duckdb")


@pytest.mark.parametrize("name", CALLS)
def test_no_call_keeps_the_file_locked(watched: sf.SyncContext, name: str) -> None:
    kept = CALLS[name](watched)

    assert in_children((is_locked, Path(watched._store.path))) == [False]
    del kept
