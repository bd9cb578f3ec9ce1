"""kill -9 at each commit, of the store and of the back end: nothing half done, nothing lost, and both sides end equal.

A child process walks a scenario, and dies by SIGKILL just before or just after its n-th commit.  The parent then looks
at the file with plain DuckDB, finishes the scenario, and compares both sides with what was written down by hand.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from stories import Database, Line, shown, todo_database

import syncframe as sf
from syncframe.backends.sqlite import SqliteBackend
from syncframe.file import Cursor

# A child is forked from a server that has imported all this and done nothing: as good as a new interpreter.
spawn = multiprocessing.get_context("forkserver")
spawn.set_forkserver_preload(["test_crash"])

When = str  # "before" or "after"


# -- the scenario; each step may be run again after it was interrupted, as a user runs a cell again


def first_pull(context: sf.SyncContext, database: Path) -> None:
    for table in ("lists", "todo"):
        context[table].pull(query_id="all", page_rows=2, progress=False)


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

# What the list shows after each step, and what is queued, by hand.
START = {"a": ["milk", 1], "b": ["bread", 2], "c": ["eggs", 3]}
EDITED = {"a": ["oat milk", 11], "c": ["eggs", 3], "d": ["salt", 4]}
COFFEE = EDITED | {"c": ["coffee", 3]}
COCOA = EDITED | {"c": ["cocoa", 3]}
END = COCOA | {"d": ["salt", 5]}
AFTER: list[tuple[dict[str, list[Any]], set[tuple[str, str]]]] = [
    (START, set()),
    (EDITED, {("update", "a"), ("insert", "d"), ("delete", "b")}),
    (EDITED, set()),
    (COFFEE, {("update", "c")}),
    (COFFEE, {("update", "c")}),
    (COCOA, {("update", "c")}),
    (COCOA | {"a": ["oat milk", 99]}, {("update", "c"), ("update", "a")}),
    (COCOA, {("update", "c")}),
    (COCOA | {"d": ["salt", 98]}, {("update", "c"), ("update", "d")}),
    (COCOA, {("update", "c")}),
    (END, {("update", "c"), ("update", "d")}),
    (END, set()),
]
APPLIED = {("update", "a"), ("insert", "d"), ("delete", "b"), ("update", "d")}


def walk(folder: Path, step: Callable[[Callable[[], object]], object], begin: int = 0) -> None:
    """Walk the scenario; `done` has a line for each step that came to its end."""
    with sf.connect(f"sqlite:///{folder / 'todo.db'}", store=folder / "store.duckdb") as context:
        for at, run in enumerate(STEPS[begin:], begin):
            step(lambda run=run: run(context, folder / "todo.db"))
            with (folder / "done").open("a") as acknowledged:
                acknowledged.write(f"{at}\n")


def die(folder: Path, at: int, when: When) -> None:
    """Walk the scenario and be killed before or after the commit number `at`; in a child process."""
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

    Cursor.run = run  # type: ignore[method-assign]
    SqliteBackend._commit = lambda self, connection: committed(  # type: ignore[method-assign]
        lambda: plain_commit(self, connection)
    )
    walk(folder, lambda step: step())
    (folder / "commits").write_text(str(commits))


def in_a_child(target: Callable[..., None], *arguments: object) -> int | None:
    child = spawn.Process(target=target, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def commits_of_the_scenario(folder: Path) -> int:
    folder.mkdir()
    todo_database(folder)
    assert in_a_child(die, folder, 0, "never") == 0
    return int((folder / "commits").read_text())


# -- what must hold after each kill


def look(store: Path) -> tuple[dict[str, list[Any]], set[tuple[str, str]], int | None, int]:
    """What plain DuckDB shows: the rows, the queue, the stamp of the checkpoint and the highest stamp of a row."""
    with duckdb.connect(str(store), read_only=True) as plain:
        tables = {name for (name,) in plain.execute("select view_name from duckdb_views() where not internal").fetchall()}
        if "todo" not in tables:
            return {}, set(), None, 0
        rows = {key: [title, n] for key, title, n in plain.execute("select id, title, n from todo order by id").fetchall()}
        pending = {*plain.execute("select distinct kind, key from syncframe.pending where \"table\" = 'todo'").fetchall()}
        conflicts = {key for (key,) in plain.execute("select key from syncframe.conflicts").fetchall()}
        assert conflicts <= {key for _, key in pending}
        checkpoint = plain.execute("select checkpoint from syncframe.checkpoints where table_name = 'todo'").fetchone()
        stamp = json.loads(checkpoint[0])[1] if checkpoint and checkpoint[0] else None
        stamps = plain.execute("select split_part(version, '-', 1)::bigint from syncframe_rows.todo").fetchall()
        edited = {key for (key,) in plain.execute("select k_id from syncframe_edits.todo").fetchall()}
        assert edited == {key for _, key in pending}
        return rows, pending, stamp, max((s for (s,) in stamps), default=0)


def check(folder: Path) -> int:
    """Hold the store to what was acknowledged, or to the step that was interrupted; return that step."""
    done = (folder / "done").read_text().splitlines() if (folder / "done").exists() else []
    step = len(done)
    if not (folder / "store.duckdb").exists():
        assert step == 0
        return step
    rows, pending, stamp, newest = look(folder / "store.duckdb")
    before = AFTER[step - 1] if step else ({}, set())
    after = AFTER[step] if step < len(AFTER) else AFTER[-1]
    if STEPS[step] is first_pull:
        assert rows.items() <= START.items()
        assert pending == set()
        assert stamp is None or stamp >= newest  # a checkpoint came with its rows
        assert (stamp is None) == (not rows)
    elif STEPS[step] in (push, push_into_conflict, sync):
        assert rows == after[0]
        assert after[1] <= pending <= before[1]
    elif STEPS[step] is clash:
        assert (rows, pending) in (before, after)
    else:
        assert (rows, pending) in (before, after)
    return step


def finish(folder: Path, step: int) -> None:
    walk(folder, lambda run: run(), step)
    database = Database.__new__(Database)
    database.path = folder / "todo.db"
    rows, pending, stamp, newest = look(folder / "store.duckdb")
    assert rows == database.todo() == END
    assert pending == set()
    assert stamp >= newest
    applied = database.audit()
    assert len(applied) == len(APPLIED)
    assert set(applied) == APPLIED


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_killed_at_any_commit_loses_nothing_and_does_nothing_twice(tmp_path: Path, when: When) -> None:
    commits = commits_of_the_scenario(tmp_path / "whole")
    assert commits > len(STEPS)

    for at in range(1, commits + 1):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        todo_database(folder)
        assert in_a_child(die, folder, at, when) == -signal.SIGKILL

        finish(folder, check(folder))
