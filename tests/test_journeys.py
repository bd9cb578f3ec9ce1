"""Whole journeys over SQLite: days offline and a crash, another database by mistake, two notebooks on one table."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from stories import Database, shown, synced, todo_database, waiting

import syncframe as sf
from syncframe.errors import PendingError, TransientError

spawn = multiprocessing.get_context("forkserver")
spawn.set_forkserver_preload(["syncframe.context", "pytest"])

STAGED = [
    ("insert", "d"), ("insert", "e"), ("insert", "f"), ("update", "a"), ("update", "b"), ("delete", "c"),
]  # fmt: skip
SHOWN = {
    "a": ["oat milk", 1],
    "b": ["bread", 22],
    "d": ["salt", 4],
    "e": ["pepper", 5],
    "f": ["cumin", None],
}
START = {"a": ["milk", 1], "b": ["bread", 2], "c": ["eggs", 3]}


def stage_and_die(url: str, store: Path) -> None:
    """Stage three inserts, two updates and a delete where the back end is not to be found, and be killed."""
    context = sf.connect(url, store=store)
    todo = context["todo"]
    todo.insert(
        [
            {"id": "d", "title": "salt", "n": 4},
            {"id": "e", "title": "pepper", "n": 5},
            {"id": "f", "title": "cumin"},
        ]
    )
    df = todo.frame()
    df.loc["a", "title"] = "oat milk"
    df.loc["b", "n"] = 22
    todo.stage(df)
    todo.delete("c")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def killed(tmp_path: Path, database: Database) -> Path:
    """A store that was pulled, and edited offline by a process that was killed."""
    store = tmp_path / "store.duckdb"
    synced(database.url, store).close()
    child = spawn.Process(target=stage_and_die, args=(f"sqlite:///{tmp_path}/nobody.db", store))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    return store


def test_what_was_staged_offline_survives_a_kill_and_goes_out_when_the_back_end_is_there(
    tmp_path: Path, database: Database, killed: Path
) -> None:
    nobody = sf.connect(f"sqlite:///{tmp_path}/nobody.db", store=killed)
    with pytest.raises(TransientError, match=r"nobody\.db does not exist"):
        nobody.push()

    assert sorted(waiting(nobody)) == sorted(STAGED)
    assert shown(nobody) == SHOWN
    assert not (tmp_path / "nobody.db").exists()
    assert database.todo() == START
    assert database.audit() == []

    right = sf.connect(database.url, store=killed)
    result = right.push()

    assert result.counts == {"accepted": 6, "conflicts": 0, "rejected": 0}
    assert result.ok
    assert len(right.pending) == 0
    assert sorted(database.audit()) == sorted([("update", "b"), *(pair for pair in STAGED if pair[0] != "update")])
    assert database.todo() == SHOWN
    assert shown(right) == SHOWN


def test_offline_a_frame_is_edited_on_as_if_nothing_were_wrong(tmp_path: Path, killed: Path) -> None:
    nobody = sf.connect(f"sqlite:///{tmp_path}/nobody.db", store=killed)
    with pytest.raises(TransientError):
        nobody.sync()

    df = nobody["todo"].frame()
    df.loc["d", "title"] = "sea salt"
    changes = nobody["todo"].stage(df)

    assert changes.counts == {"insert": 0, "update": 1, "delete": 0}
    assert len(nobody.pending) == 6  # folded into the insert that waits
    assert shown(nobody) == SHOWN | {"d": ["sea salt", 4]}


def test_another_database_is_refused_while_operations_are_pending(
    tmp_path: Path, database: Database, killed: Path
) -> None:
    other = todo_database(tmp_path, "other.db")
    wrong = sf.connect(other.url, store=killed)

    with pytest.raises(PendingError) as refused:
        wrong.push()
    with pytest.raises(PendingError):
        wrong["todo"].pull()
    with pytest.raises(PendingError):
        wrong["todo"].pull(push_first=False)

    assert "todo.db" in str(refused.value)
    assert "other.db" in str(refused.value)
    assert "6 operations" in str(refused.value)
    assert other.audit() == []
    assert other.todo() == START
    assert sorted(waiting(wrong)) == sorted(STAGED)
    assert sf.connect(database.url, store=killed).push().ok


def test_another_database_is_taken_where_nothing_is_pending(tmp_path: Path, database: Database) -> None:
    store = tmp_path / "store.duckdb"
    synced(database.url, store)
    other = todo_database(tmp_path, "other.db")
    other.run("delete from todo where id = 'b'; update todo set title = 'tea' where id = 'c'")

    context = synced(other.url, store)

    assert shown(context) == other.todo() == {"a": ["milk", 1], "c": ["tea", 3]}


def test_a_database_that_was_moved_is_the_same_one(tmp_path: Path, database: Database, killed: Path) -> None:
    database.path.rename(tmp_path / "moved.db")

    context = sf.connect(f"sqlite:///{tmp_path}/moved.db", store=killed)

    assert context.push().counts["accepted"] == 6


# -- two notebooks


def test_two_notebooks_edit_apart_and_see_each_other_s_work(database: Database) -> None:
    ann, ben = synced(database.url), synced(database.url)
    df = ann["todo"].frame()
    df.loc["a", "title"] = "oat milk"
    df.loc["d", "title"] = "salt"
    ann["todo"].stage(df)
    df = ben["todo"].frame()
    df.loc["b", "n"] = 22
    ben["todo"].stage(df.drop("c"))

    ann.sync()
    ben.sync()
    ann.sync()

    assert shown(ann) == shown(ben) == database.todo()
    assert database.todo() == {"a": ["oat milk", 1], "b": ["bread", 22], "d": ["salt", None]}


def test_two_notebooks_meet_on_one_row_and_settle_it(database: Database) -> None:
    ann, ben = synced(database.url), synced(database.url)
    ann["todo"].update("a", title="oat milk", n=10)
    ben["todo"].update("a", title="soy milk")
    ben["todo"].update("b", n=22)
    assert ann.push().ok

    result = ben.push()
    (conflict,) = ben.conflicts

    assert result.counts == {"accepted": 1, "conflicts": 1, "rejected": 0}
    assert (conflict.table, conflict.key, conflict.kind, conflict.columns) == ("todo", "a", "update", ("title",))
    assert (conflict.base["title"], conflict.mine["title"], conflict.theirs["title"]) == (
        "milk", "soy milk", "oat milk",
    )  # fmt: skip
    assert shown(ben)["a"] == ["soy milk", 1]  # nothing is overwritten unseen
    assert database.todo()["a"] == ["oat milk", 10]

    conflict.resolve({"title": "any milk"})
    assert ben.sync().pushed.ok
    ann.sync()

    assert shown(ann) == shown(ben) == database.todo()
    assert database.todo() == {"a": ["any milk", 10], "b": ["bread", 22], "c": ["eggs", 3]}
    assert len(ann.conflicts) == len(ben.conflicts) == len(ann.pending) == len(ben.pending) == 0


@pytest.mark.parametrize(("settle", "row"), [("keep_mine", ["soy milk", 10]), ("take_theirs", ["oat milk", 10])])
def test_either_side_of_a_conflict_that_a_pull_found_ends_with_both_equal(
    database: Database, settle: str, row: list[object]
) -> None:
    ann, ben = synced(database.url), synced(database.url)
    ann["todo"].update("a", title="oat milk", n=10)
    ann.push()
    ben["todo"].update("a", title="soy milk")

    pulled = ben["todo"].pull(query_id="all", push_first=False)
    getattr(ben.conflicts["todo", "a"], settle)()
    ben.sync()
    ann.sync()

    assert pulled.conflicts == 1
    assert shown(ann) == shown(ben) == database.todo()
    assert database.todo()["a"] == row


def test_a_row_deleted_in_one_notebook_and_edited_in_the_other_waits_for_a_word(database: Database) -> None:
    ann, ben = synced(database.url), synced(database.url)
    ann["todo"].delete(["a", "b"])
    ann.push()
    ben["todo"].update("a", n=10)
    ben["todo"].update("b", n=20)

    ben.sync()
    theirs = {conflict.key: conflict.theirs for conflict in ben.conflicts}
    ben.conflicts["todo", "a"].keep_mine()
    ben.conflicts["todo", "b"].take_theirs()
    ben.sync()
    ann.sync()

    assert theirs == {"a": None, "b": None}
    assert shown(ann) == shown(ben) == database.todo() == {"a": ["milk", 10], "c": ["eggs", 3]}


def test_three_notebooks_that_stop_editing_end_equal(database: Database) -> None:
    notebooks = [synced(database.url, on_conflict="mine") for _ in range(3)]
    for n, notebook in enumerate(notebooks):
        notebook["todo"].update("a", n=100 + n)
        notebook["todo"].update("b", title=f"bread {n}")
        notebook["todo"].insert({"id": f"new {n}", "title": "salt", "n": n})

    for _ in range(2):
        for notebook in notebooks:
            notebook.sync()

    assert database.todo() == {
        "a": ["milk", 102],
        "b": ["bread 2", 2],
        "c": ["eggs", 3],
        "new 0": ["salt", 0],
        "new 1": ["salt", 1],
        "new 2": ["salt", 2],
    }
    assert all(shown(notebook) == database.todo() for notebook in notebooks)
