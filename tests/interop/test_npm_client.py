"""A stranger's client against our server: full offline rounds of the JavaScript client of Azure Mobile Apps.

It keeps its rows and its queue in a SQLite file of its own, and knows nothing of syncframe.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from node import Node
from postgres import execute
from stories import SCHEMA, synced, todo_database
from test_cli import Command

import syncframe as sf
from syncframe.backends import open as open_backend
from syncframe.remote import Rows
from syncframe.testing import rows

COLUMNS = {"list": "string", "title": "string", "n": "integer", "stars": "integer", "code": "string"}
START = {"a": ("milk", 1), "b": ("bread", 2), "c": ("eggs", 3)}


class Refused(Exception):
    """What the client throws."""


class Client:
    """One app with an offline store."""

    def __init__(self, packages: Path, url: str, store: Path) -> None:
        self._node = Node(packages, "client.js", url, str(store), log=store.with_suffix(".log"))
        self.tell("open", tables={"todo": COLUMNS, "lists": {"name": "string"}})

    def tell(self, do: str, **what: Any) -> Any:
        print(json.dumps({"do": do, **what}), file=self._node.process.stdin, flush=True)
        answer = json.loads(self._node.line())
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["ok"]

    def pull(self, id_: str | None = "all", **how: Any) -> dict[str, tuple[str, int]]:
        self.tell("pull", table="todo", id=id_, **how)
        return self.todo()

    def todo(self) -> dict[str, tuple[str, int]]:
        return {row["id"]: (row["title"], row["n"]) for row in self.tell("rows", table="todo")}

    def insert(self, **row: Any) -> Any:
        return self.tell("insert", table="todo", row=row)

    def update(self, id_: str, **values: Any) -> None:
        """An app changes the row that it has read."""
        (row,) = [row for row in self.tell("rows", table="todo") if row["id"] == id_]
        self.tell("update", table="todo", row={"id": id_, "version": row["version"], **values})

    def delete(self, id_: str) -> None:
        self.tell("del", table="todo", id=id_)

    def push(self, conflicts: str = "leave") -> list[dict[str, Any]]:
        left: list[dict[str, Any]] = self.tell("push", conflicts=conflicts)
        return left

    def waiting(self) -> list[tuple[str, str]]:
        return [(found["action"], found["itemId"]) for found in self.tell("queue")]

    def close(self) -> None:
        self._node.close()


class Fixtures:
    """One kind of database behind a server; a subclass gives its URL, with the todo list of `stories` in it."""

    def make(self, folder: Path) -> str:
        raise NotImplementedError

    @pytest.fixture
    def behind(self, tmp_path: Path) -> str:
        return self.make(tmp_path)

    @pytest.fixture
    def there(self, behind: str) -> Iterator[Rows]:
        """The table as any other program sees it."""
        backend = open_backend(behind)
        yield Rows(backend, "todo")
        backend.close()  # type: ignore[attr-defined]

    @pytest.fixture
    def url(self, behind: str) -> Iterator[str]:
        with Command("serve", behind, "--track", "--tables", "lists", "todo", "--port", "0") as serve:
            serve.until("Ctrl-C stops it")
            yield serve.url()

    @pytest.fixture
    def app(self, packages: Path, url: str, tmp_path: Path) -> Iterator[Callable[[str], Client]]:
        with contextlib.ExitStack() as stack:

            def open_one(name: str) -> Client:
                return stack.enter_context(contextlib.closing(Client(packages, url, tmp_path / f"{name}.db")))

            yield open_one


class ClientRounds(Fixtures):
    """The rounds over it."""

    def test_rows_are_pulled_edited_offline_pushed_and_pulled_by_another(
        self, app: Callable[[str], Client], there: Rows
    ) -> None:
        ann, ben = app("ann"), app("ben")
        assert ann.pull() == ben.pull() == START
        ann.insert(id="d", list="home", title="salt", n=4)
        ann.update("a", title="oat milk")
        ann.update("b", n=22)
        ann.delete("c")
        assert shown(there) == START

        assert ann.push() == []

        expected = {"a": ("oat milk", 1), "b": ("bread", 22), "d": ("salt", 4)}
        assert ann.waiting() == []
        assert shown(there) == ann.todo() == expected
        assert ben.pull() == ann.pull() == expected

    def test_an_insert_without_an_id_gets_one_and_a_version(self, app: Callable[[str], Client], there: Rows) -> None:
        ann = app("ann")
        made = ann.insert(list="home", title="salt", n=4)

        assert ann.push() == []

        assert shown(there) == START | {made["id"]: ("salt", 4)}
        (row,) = [row for row in ann.tell("rows", table="todo") if row["id"] == made["id"]]
        assert row["version"] == there.get(made["id"])["version"]  # type: ignore[index]
        assert row["updatedAt"]
        assert row["deleted"] is False

    def test_what_changed_since_comes_page_by_page_and_what_was_deleted_goes(
        self, app: Callable[[str], Client], there: Rows
    ) -> None:
        for n in range(25):
            there.insert({"id": f"k{n:02}", "list": "home", "title": "t", "n": n})
        ann = app("ann")
        first = ann.pull(pageSize=7)
        assert first == shown(there)
        assert len(first) == 28
        for n in range(0, 25, 2):
            there.update(f"k{n:02}", {"n": 100 + n})
        for n in range(1, 25, 4):
            there.delete(f"k{n:02}")

        assert ann.pull(pageSize=7) == shown(there)

    def test_a_filtered_pull_brings_what_matches(self, app: Callable[[str], Client]) -> None:
        ann = app("ann")

        assert ann.pull("home", where={"list": "home"}) == {"a": ("milk", 1), "b": ("bread", 2)}

    @pytest.mark.parametrize("kind", ["update", "delete"])
    def test_a_row_that_another_has_changed_is_a_conflict_and_stays(
        self, app: Callable[[str], Client], there: Rows, kind: str
    ) -> None:
        ann = app("ann")
        ann.pull()
        there.update("a", {"title": "oat milk"})
        if kind == "update":
            ann.update("a", title="soy milk")
        else:
            ann.delete("a")
        ann.update("b", n=22)

        (conflict,) = ann.push()

        assert (conflict["action"], conflict["status"]) == (kind, 412)
        assert (conflict["theirs"]["title"], conflict["theirs"]["deleted"]) == ("oat milk", False)
        assert shown(there) == START | {"a": ("oat milk", 1), "b": ("bread", 22)}
        assert ann.waiting() == [(kind, "a")]

    @pytest.mark.parametrize(("side", "title"), [("theirs", "oat milk"), ("mine", "soy milk")])
    def test_a_conflict_is_settled_with_a_side(
        self, app: Callable[[str], Client], there: Rows, side: str, title: str
    ) -> None:
        ann = app("ann")
        ann.pull()
        there.update("a", {"title": "oat milk"})
        ann.update("a", title="soy milk")

        assert ann.push(side) == []

        assert ann.waiting() == []
        assert ann.todo() == shown(there) == START | {"a": (title, 1)}
        assert ann.pull() == shown(there)

    def test_an_insert_of_a_key_that_is_there_is_a_conflict_that_shows_the_row(
        self, app: Callable[[str], Client], there: Rows
    ) -> None:
        ann = app("ann")
        ann.insert(id="a", list="home", title="mine", n=9)

        (conflict,) = ann.push()

        assert (conflict["action"], conflict["status"]) == ("insert", 409)
        theirs = json.loads(conflict["body"])  # the client reads that of a 412 alone
        assert (theirs["id"], theirs["title"]) == ("a", "milk")
        assert shown(there) == START

    def test_a_row_that_another_has_deleted_goes_and_its_update_is_a_conflict_with_that(
        self, app: Callable[[str], Client], there: Rows
    ) -> None:
        ann, ben = app("ann"), app("ben")
        ann.pull()
        ben.pull()
        there.delete("a")
        ann.update("a", title="soy milk")

        told = told_by(lambda: ann.push())

        assert "a" not in shown(there)
        assert told
        assert sorted(ben.pull()) == ["b", "c"]

    def test_a_delete_of_what_another_has_deleted_is_done(self, app: Callable[[str], Client], there: Rows) -> None:
        """Of a service that answers it with 404 this client never gets past it."""
        ann = app("ann")
        ann.pull()
        there.delete("a")
        ann.delete("a")
        ann.update("b", n=22)

        told = told_by(lambda: ann.push())

        assert (told, ann.waiting()) == ([], [])
        assert shown(there) == {"b": ("bread", 22), "c": ("eggs", 3)}

    def test_what_the_database_refuses_stops_the_push_with_its_words(
        self, app: Callable[[str], Client], there: Rows
    ) -> None:
        ann = app("ann")
        ann.insert(id="d", list="nowhere", title="salt", n=4)

        with pytest.raises(Refused, match="action: insert, and record ID: d"):
            ann.push()

        assert shown(there) == START
        assert ann.waiting() == [("insert", "d")]

    def test_the_online_table_reads_and_writes(self, app: Callable[[str], Client], there: Rows) -> None:
        ann = app("ann")
        row = ann.tell("online", method="lookup", table="todo", argument="a")
        changed = ann.tell("online", method="update", table="todo", argument={**row, "n": 7})
        ann.tell("online", method="insert", table="todo", argument={"id": "d", "list": "home", "title": "salt", "n": 4})
        ann.tell("online", method="del", table="todo", argument={"id": "b"})

        assert (row["title"], changed["n"]) == ("milk", 7)
        assert changed["version"] != row["version"]
        assert shown(there) == {"a": ("milk", 7), "c": ("eggs", 3), "d": ("salt", 4)}

    def test_it_and_a_notebook_see_each_other_s_work(self, app: Callable[[str], Client], url: str, there: Rows) -> None:
        ann, context = app("ann"), synced(url)
        ann.pull()
        context["todo"].update("a", title="oat milk")
        ann.update("b", n=22)
        ann.delete("c")
        assert ann.push() == []

        assert context.sync().pushed.ok
        ann.pull()

        expected = {"a": ("oat milk", 1), "b": ("bread", 22)}
        assert ann.todo() == shown(there) == expected
        assert sorted(context["todo"].frame().index) == ["a", "b"]
        context.close()

    def test_two_of_one_row_meet_in_a_notebook_as_a_conflict(
        self, app: Callable[[str], Client], url: str, there: Rows
    ) -> None:
        ann, context = app("ann"), synced(url)
        ann.pull()
        ann.update("a", title="soy milk")
        ann.push()
        context["todo"].update("a", title="oat milk")

        result: sf.PushResult = context.push()
        (conflict,) = context.conflicts

        assert result.counts == {"accepted": 0, "conflicts": 1, "rejected": 0}
        assert conflict.theirs["title"] == "soy milk"
        assert shown(there)["a"] == ("soy milk", 1)
        conflict.keep_mine()
        assert context.push().ok
        assert ann.pull()["a"] == shown(there)["a"] == ("oat milk", 1)
        context.close()


def told_by(push: Callable[[], Any]) -> Any:
    """What a push leaves, or the words with which it stopped."""
    try:
        return push()
    except Refused as refused:
        return str(refused)


def shown(there: Rows) -> dict[str, tuple[str, int]]:
    return {key: (row["title"], row["n"]) for key, row in rows(there.backend, "todo").items()}


class TestOverSqlite(ClientRounds):
    def make(self, folder: Path) -> str:
        return todo_database(folder).url


class OverPostgres:
    @pytest.fixture(autouse=True)
    def database(self, new_database: Callable[[], str]) -> None:
        self.database_url = new_database()

    def make(self, folder: Path) -> str:
        execute(self.database_url, *filter(str.strip, SCHEMA.partition("create table audit")[0].split(";")))
        return self.database_url


@pytest.mark.full
class TestOverPostgres(OverPostgres, ClientRounds):
    """All rounds; CI goes two of them."""


class TestTwoOverPostgres(OverPostgres, Fixtures):
    test_a_round = ClientRounds.test_rows_are_pulled_edited_offline_pushed_and_pulled_by_another
    test_a_delete = ClientRounds.test_a_delete_of_what_another_has_deleted_is_done
