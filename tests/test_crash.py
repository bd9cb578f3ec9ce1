"""kill -9 at each commit, of the store and of the back end: nothing half done, nothing lost, and both sides end equal.

A child process walks a step of a scenario, and dies by SIGKILL just before or just after its n-th commit.  The parent
looks at the file with plain DuckDB, runs the step again, and compares both sides with what was written down by hand.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from stories import Database, Line, shown, todo_database

import syncframe as sf
from syncframe.backends.sqlite import SqliteBackend
from syncframe.file import Cursor

# A child is forked from a server that has imported the package and done nothing: as good as a new interpreter, and soon there.
spawn = multiprocessing.get_context("forkserver")
spawn.set_forkserver_preload(["syncframe.context", "pytest"])

When = str  # "before" or "after"


# -- the scenario; each step may be run again after it was interrupted, as a user runs a cell again


def first_pull(context: sf.SyncContext, database: Path) -> None:
    context["todo"].pull(query_id="all", page_rows=2, progress=False)


def stage(context: sf.SyncContext, database: Path) -> None:
    df = context["todo"].frame()
    df.loc["a", ["title", "n"]] = ["oat milk", 11]
    df.loc["d", ["title", "n"]] = ["salt", 4]
    context["todo"].stage(df.drop("b", errors="ignore"))


def push(context: sf.SyncContext, database: Path) -> None:
    context.push(progress=False)


def clash(context: sf.SyncContext, database: Path) -> None:
    with sqlite3.connect(database) as other:
        other.execute("update todo set title = 'tea' where id = 'c' and title = 'eggs'")
    other.close()
    context["todo"].update("c", title="coffee")


def push_into_conflict(context: sf.SyncContext, database: Path) -> None:
    context.push(progress=False)


def resolve(context: sf.SyncContext, database: Path) -> None:
    for conflict in context.conflicts:
        conflict.resolve({"title": "cocoa"})


def edit(context: sf.SyncContext, database: Path) -> None:
    context["todo"].update("a", n=99)


def undo(context: sf.SyncContext, database: Path) -> None:
    if context["todo"].get("a")["n"] == 99:
        context.undo()


def edit_again(context: sf.SyncContext, database: Path) -> None:
    context["todo"].update("d", n=98)


def discard(context: sf.SyncContext, database: Path) -> None:
    context["todo"].revert("d")


def last_edit(context: sf.SyncContext, database: Path) -> None:
    context["todo"].update("d", n=5)


def sync(context: sf.SyncContext, database: Path) -> None:
    context.sync(progress=False)


STEPS = [
    first_pull, stage, push, clash, push_into_conflict, resolve, edit, undo, edit_again, discard, last_edit, sync,
]  # fmt: skip

# What the list shows after each step, and what is queued, by hand.  The database makes titles upper case.
START = {"a": ["milk", 1], "b": ["bread", 2], "c": ["eggs", 3]}
EDITED = {"a": ["oat milk", 11], "c": ["eggs", 3], "d": ["salt", 4]}
PUSHED = {"a": ["OAT MILK", 11], "c": ["eggs", 3], "d": ["SALT", 4]}
COFFEE = PUSHED | {"c": ["coffee", 3]}
COCOA = PUSHED | {"c": ["cocoa", 3]}
END = {"a": ["OAT MILK", 11], "c": ["COCOA", 3], "d": ["SALT", 5]}
AFTER: list[tuple[dict[str, list[Any]], set[tuple[str, str]]]] = [
    (START, set()),
    (EDITED, {("update", "a"), ("insert", "d"), ("delete", "b")}),
    (PUSHED, set()),
    (COFFEE, {("update", "c")}),
    (COFFEE, {("update", "c")}),
    (COCOA, {("update", "c")}),
    (COCOA | {"a": ["OAT MILK", 99]}, {("update", "c"), ("update", "a")}),
    (COCOA, {("update", "c")}),
    (COCOA | {"d": ["SALT", 98]}, {("update", "c"), ("update", "d")}),
    (COCOA, {("update", "c")}),
    (COCOA | {"d": ["SALT", 5]}, {("update", "c"), ("update", "d")}),
    (END, set()),
]

# What the database holds after each step, and what its audit has by then.
TEA = PUSHED | {"c": ["TEA", 3]}
THERE = [START, START, PUSHED, *[TEA] * 8, END]
FIRST_PUSH = [("delete", "b"), ("insert", "d"), ("update", "a")]
APPLIED: list[list[tuple[str, str]]] = [[], [], *[FIRST_PUSH] * 9, sorted([*FIRST_PUSH, ("update", "d")])]


def walk(folder: Path, steps: range) -> None:
    """Walk a part of the scenario; `done` has a line for each step that came to its end."""
    with sf.connect(f"sqlite:///{folder / 'todo.db'}", store=folder / "store.duckdb") as context:
        for at in steps:
            STEPS[at](context, folder / "todo.db")
            with (folder / "done").open("a") as acknowledged:
                acknowledged.write(f"{at}\n")


def die(folder: Path, step: int, at: int, when: When) -> None:
    """Walk one step and be killed before or after its commit number `at`; in a child process."""
    commits = 0
    plain_run, plain_commit = Cursor.run, SqliteBackend._commit

    def committed(commit: Callable[[], object]) -> None:
        nonlocal commits
        commits += 1
        if commits == at and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        commit()
        if commits == at and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    def run(self: Cursor, statement: str, *rest: Any, **tables: Any) -> None:
        if statement == "commit":
            committed(lambda: plain_run(self, statement))
        else:
            plain_run(self, statement, *rest, **tables)

    def commit(self: SqliteBackend, connection: sqlite3.Connection) -> None:
        if connection.total_changes:
            committed(lambda: plain_commit(self, connection))
        else:  # a transaction that only read
            plain_commit(self, connection)

    Cursor.run = run  # type: ignore[method-assign]
    SqliteBackend._commit = commit  # type: ignore[method-assign]
    walk(folder, range(step, step + 1))
    (folder / "commits").write_text(str(commits))


def in_a_child(target: Callable[..., None], *arguments: object) -> int | None:
    child = spawn.Process(target=target, args=arguments)
    child.start()
    child.join()
    return child.exitcode


@pytest.fixture(scope="module")
def beginnings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folder as it is at the beginning of each step."""
    folder = tmp_path_factory.mktemp("scenario")
    (folder / "0").mkdir()
    todo_database(folder / "0", loud=True)
    for step in range(len(STEPS)):
        shutil.copytree(folder / str(step), folder / str(step + 1))
        walk(folder / str(step + 1), range(step, step + 1))
    return [folder / str(step) for step in range(len(STEPS))]


# -- what must hold after each kill


@dataclass(frozen=True)
class Seen:
    """What plain DuckDB shows of a store."""

    rows: dict[str, list[Any]]
    pending: set[tuple[str, str]]
    stamp: int | None  # of the checkpoint
    newest: int  # stamp of a row


def look(store: Path) -> Seen:
    with duckdb.connect(str(store), read_only=True) as plain:
        views = plain.execute("select view_name from duckdb_views() where schema_name = 'main'").fetchall()
        if ("todo",) not in views:
            return Seen({}, set(), None, 0)
        rows = plain.execute("select id, title, n from todo order by id").fetchall()
        queued = "select distinct kind, key from syncframe.pending where \"table\" = 'todo'"
        pending = {*plain.execute(queued).fetchall()}
        checkpoints = (
            "select checkpoint from syncframe.checkpoints where table_name = 'todo' and checkpoint is not null"
        )
        stamp = [json.loads(text)[1] for (text,) in plain.execute(checkpoints).fetchall()]
        newest = plain.execute("select max(split_part(version, '-', 1)::bigint) from syncframe_rows.todo").fetchone()
        conflicts = {key for (key,) in plain.execute("select key from syncframe.conflicts").fetchall()}
        assert conflicts <= {key for _, key in pending}
    return Seen({key: [title, n] for key, title, n in rows}, pending, stamp[0] if stamp else None, newest[0] or 0)


def check_killed(folder: Path, step: int) -> None:
    """The store is as before the step or as after it, and between the two only where the step is many transactions."""
    if not (folder / "store.duckdb").exists():
        assert step == 0
        return
    seen = look(folder / "store.duckdb")
    rows, pending = AFTER[step]
    if STEPS[step] is first_pull:
        assert seen.rows.items() <= START.items()
        assert len(seen.rows) in (0, 2, 3)  # whole pages
        assert (seen.stamp is None) == (not seen.rows)
        assert seen.stamp is None or seen.stamp >= seen.newest  # it came with its rows
        assert seen.pending == set()
    elif STEPS[step] in (push, push_into_conflict, sync):
        before = AFTER[step - 1][0]
        assert seen.rows.keys() == rows.keys()
        assert all(row in (before[key], rows[key]) for key, row in seen.rows.items())
        assert pending <= seen.pending <= AFTER[step - 1][1]
    else:
        assert (seen.rows, seen.pending) in (AFTER[step - 1], AFTER[step])


def check_finished(folder: Path, step: int) -> None:
    """The step has done what it does, once."""
    seen = look(folder / "store.duckdb")
    database = Database.at(folder / "todo.db")
    assert (seen.rows, seen.pending) == AFTER[step]
    assert database.todo() == THERE[step]
    assert sorted(database.audit()) == APPLIED[step]


def kill_at(folder: Path, beginning: Path, step: int, at: int, when: When) -> None:
    shutil.copytree(beginning, folder)
    assert in_a_child(die, folder, step, at, when) == -signal.SIGKILL
    check_killed(folder, step)


def commits_of(folder: Path, beginning: Path, step: int) -> int:
    shutil.copytree(beginning, folder)
    assert in_a_child(die, folder, step, 0, "never") == 0
    check_finished(folder, step)
    return int((folder / "commits").read_text())


def steps(*few: Callable[[sf.SyncContext, Path], None]) -> pytest.MarkDecorator:
    """Each step, those of a kind of their own always."""
    marks = [[] if step in few else [pytest.mark.full] for step in STEPS]
    params = [pytest.param(at, id=step.__name__, marks=marks[at]) for at, step in enumerate(STEPS)]
    return pytest.mark.parametrize("step", params)


# Of the four edits of one row, one; a push, and one into a conflict.
@steps(first_pull, stage, push_into_conflict, sync)
def test_a_step_killed_at_any_commit_is_whole_or_undone_and_is_finished_by_running_it_again(
    tmp_path: Path, beginnings: list[Path], step: int
) -> None:
    commits = commits_of(tmp_path / "whole", beginnings[step], step)
    assert commits >= 2

    # Just after one commit is just before the next: what is durable is the same.
    for at, when in [(1, "before"), *((at, "after") for at in range(1, commits + 1))]:
        folder = tmp_path / f"{when} {at}"
        kill_at(folder, beginnings[step], step, at, when)
        walk(folder, range(step, step + 1))
        check_finished(folder, step)


@steps(first_pull, push)
def test_a_scenario_killed_within_a_step_ends_as_one_that_was_not(
    tmp_path: Path, beginnings: list[Path], step: int
) -> None:
    kill_at(tmp_path / "killed", beginnings[step], step, 2, "after")

    walk(tmp_path / "killed", range(step, len(STEPS)))

    check_finished(tmp_path / "killed", len(STEPS) - 1)


@pytest.mark.full
@pytest.mark.parametrize("step", range(len(STEPS)), ids=[step.__name__ for step in STEPS])
def test_a_scenario_killed_at_any_commit_ends_as_one_that_was_not(
    tmp_path: Path, beginnings: list[Path], step: int
) -> None:
    commits = commits_of(tmp_path / "whole", beginnings[step], step)

    for at in range(1, commits + 1):
        for when in ("before", "after"):
            folder = tmp_path / f"{when} {at}"
            kill_at(folder, beginnings[step], step, at, when)
            walk(folder, range(step, len(STEPS)))
            check_finished(folder, len(STEPS) - 1)


@pytest.mark.full
@pytest.mark.parametrize("step", range(len(STEPS)), ids=[step.__name__ for step in STEPS])
def test_a_scenario_killed_at_any_moment_ends_as_one_that_was_not(
    tmp_path: Path, beginnings: list[Path], step: int
) -> None:
    chance = random.Random(step)
    shutil.copytree(beginnings[step], tmp_path / "whole")
    begin = time.monotonic()
    assert in_a_child(walk, tmp_path / "whole", range(step, step + 1)) == 0
    took_s = time.monotonic() - begin

    for at in range(25):
        folder = tmp_path / f"{at}"
        shutil.copytree(beginnings[step], folder)
        child = spawn.Process(target=walk, args=(folder, range(step, step + 1)))
        child.start()
        time.sleep(chance.random() * took_s)
        child.kill()
        child.join()
        if len((folder / "done").read_text().splitlines() if step else []) == step:
            check_killed(folder, step)
        walk(folder, range(step, len(STEPS)))
        check_finished(folder, len(STEPS) - 1)


# -- a pull of many pages

SIZES = [
    pytest.param(4_000, 250, id="4,000 rows"),
    pytest.param(336_776, 10_000, id="336,776 rows", marks=pytest.mark.full),
]


def many(folder: Path, count: int) -> Database:
    database = todo_database(folder)
    database.run(
        f"""
        with recursive numbers(i) as (select 1 union all select i + 1 from numbers where i < {count})
        insert into todo (id, title, n) select printf('r%06d', i), 'row', i from numbers
        """
    )
    return database


def pull_and_die(folder: Path, pages: int, page_rows: int, when: When) -> None:
    """Pull and be killed between two pages, or within the transaction of the one after."""
    line = Line(f"sqlite:///{folder / 'todo.db'}")
    context = sf.connect(line, store=folder / "store.duckdb")
    kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    plain_run = Cursor.run

    def run(self: Cursor, statement: str, *rest: Any, **tables: Any) -> None:
        if statement == "commit" and line.rows_read > pages * page_rows:
            kill()
        plain_run(self, statement, *rest, **tables)

    def told(done: int, total: int | None, what: str) -> None:
        if when == "between" and done >= pages * page_rows:
            kill()

    if when == "within":
        Cursor.run = run  # type: ignore[method-assign]
    context["todo"].pull(query_id="all", page_rows=page_rows, progress=told)


@pytest.mark.parametrize("when", ["between", "within"])
@pytest.mark.parametrize(("count", "page_rows"), SIZES)
def test_a_pull_killed_in_the_middle_goes_on_where_it_was(
    tmp_path: Path, count: int, page_rows: int, when: When
) -> None:
    database = many(tmp_path, count)
    assert in_a_child(pull_and_die, tmp_path, 7, page_rows, when) == -signal.SIGKILL
    seen = look(tmp_path / "store.duckdb")

    line = Line(database.url)
    context = sf.connect(line, store=tmp_path / "store.duckdb")
    result = context["todo"].pull(query_id="all", page_rows=page_rows, progress=False)

    assert len(seen.rows) == 7 * page_rows
    assert seen.stamp == seen.newest
    left = count + 3 - 7 * page_rows
    assert left <= line.rows_read <= left + page_rows
    assert result.inserted == left
    assert shown(context) == database.todo()


def test_a_pull_killed_again_and_again_comes_to_its_end(tmp_path: Path) -> None:
    database = many(tmp_path, 2_000)
    for pages in (2, 3, 1):
        assert in_a_child(pull_and_die, tmp_path, pages, 250, "between") == -signal.SIGKILL

    seen = look(tmp_path / "store.duckdb")
    context = sf.connect(database.url, store=tmp_path / "store.duckdb")
    context["todo"].pull(query_id="all", page_rows=250, progress=False)

    assert len(seen.rows) == 6 * 250
    assert seen.stamp == seen.newest
    assert shown(context) == database.todo()


def test_a_full_pull_killed_in_the_middle_removes_nothing(tmp_path: Path) -> None:
    database = many(tmp_path, 4_000)
    context = sf.connect(database.url, store=tmp_path / "store.duckdb")
    context["todo"].pull("n <= 2000", progress=False)
    database.run("update todo set n = 2001 where id = 'r000001'")

    assert in_a_child(full_pull_and_die, tmp_path) == -signal.SIGKILL
    killed = look(tmp_path / "store.duckdb").rows
    context["todo"].pull("n <= 2000", progress=False)

    assert len(killed) == 2_003
    assert len(context["todo"]) == 2_002
    assert context["todo"].get("r000001") is None


def full_pull_and_die(folder: Path) -> None:
    context = sf.connect(f"sqlite:///{folder / 'todo.db'}", store=folder / "store.duckdb")
    context["todo"].pull("n <= 2000", page_rows=250, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
