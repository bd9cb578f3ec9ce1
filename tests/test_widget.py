"""The widget: traits after each step, each message and its answer, errors as messages, and a real kernel."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from stories import Line, offline, synced, todo_database, waiting

import syncframe as sf
from syncframe.backends import Operations, Outcomes
from syncframe.errors import StoreError
from syncframe.widget import SyncWidget
from syncframe.widget.desk import Desk

PATIENCE_S = 60.0
PACKAGE_FOLDER = Path(sf.__file__).parent.parent
KNOWN = (
    "hello, pending, conflicts, conflict, history, cell, value, discard, retry, mend, settle, resolve, undo, push, pull, "
    "cancel"
)
PAGE = {"offset": 0, "limit": 100}


def asked(desk: Desk, what: object, **args: Any) -> Any:
    """The data of an answer that is ok."""
    answer = desk.answer({"t": "ask", "id": "1", "what": what, "args": args})
    assert answer["ok"], answer
    return answer["data"]


def refused(desk: Desk, what: object, args: object) -> str:
    """Message and hint of an answer that is an error."""
    answer = desk.answer({"t": "ask", "id": "7", "what": what, "args": args})
    assert (answer["t"], answer["id"], answer["ok"]) == ("answer", "7", False), answer
    return f"{answer['error']['message']} / {answer['error']['hint']}"


def until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


class Heard:
    """A desk, and what a front end hears of it."""

    def __init__(self, context: sf.SyncContext) -> None:
        self.desk = Desk(context)
        self.progress: list[Any] = []
        self.ended: list[dict[str, Any]] = []
        self.desk.on_progress = self.progress.append
        self.desk.on_end = self.ended.append

    def run(self, what: str, **args: Any) -> dict[str, Any]:
        """Start work and wait for the message of its end."""
        count = len(self.ended)
        number = asked(self.desk, what, **args)["n"]
        until(lambda: len(self.ended) > count)
        assert self.ended[-1]["n"] == number
        return self.ended[-1]


class OneByOne(Line):
    """A back end that answers each operation by itself, and waits before each but the first until it may go on."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.answered = 0
        self.may_go_on = threading.Event()

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        for outcomes in super().push(batch):
            for at in range(len(outcomes)):
                if self.answered:
                    assert self.may_go_on.wait(PATIENCE_S)
                self.answered += 1
                yield Outcomes(outcomes.rows.slice(at, 1))


class Broken(Line):
    """A back end with a bug of its own."""

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        raise RuntimeError("index 7 is out of \ud800 range")
        yield


@pytest.fixture
def heard(context: sf.SyncContext) -> Heard:
    return Heard(context)


# -- messages and their answers


def test_hello_is_answered_with_the_counts(heard, context):
    context["todo"].update("a", n=5)
    context["todo"].delete("b")

    hello = asked(heard.desk, "hello")
    summary = hello["summary"]
    lists, todo = summary["tables"]

    assert [hello["rev"], hello["progress"], hello["ended"]] == [1, None, None]
    assert [summary["back_end"], summary["store"], summary["online"], summary["can_undo"]] == [
        "Line",
        ":memory:",
        True,
        True,
    ]
    assert lists["last_pull"] is not None and lists["last_push"] is None
    kept = ("name", "rows", "insert", "update", "delete", "conflicts", "rejected")
    assert [todo[name] for name in kept] == ["todo", 2, 0, 1, 1, 0, 0]


def test_pages_cells_and_discards_are_answered(heard, context):
    context["todo"].update("a", n=5)
    context["todo"].update("b", n=6)

    page = asked(heard.desk, "pending", table="todo", kind="update", offset=1, limit=1)
    value = asked(heard.desk, "cell", of="pending", id=page["rows"][0]["id"], column="n", side="local")
    done = asked(heard.desk, "discard", ids=[page["rows"][0]["id"]])
    rest = asked(heard.desk, "discard", shown={"table": None, "kind": None}, rev=page["rev"])
    back = asked(heard.desk, "undo")

    assert [page["total"], page["offset"], page["rows"][0]["key"]] == [2, 1, "b"]
    assert value == {"value": "6"}
    assert done == {"rows": 1, "words": "1 operation discarded"}
    assert rest == {"rows": 1, "words": "1 operation discarded"}
    assert back == {"words": "taken back: discard of 1 row"}


def test_conflicts_are_shown_and_settled(tmp_path):
    database = todo_database(tmp_path)
    heard = Heard(context := synced(database.url))
    context["todo"].update("a", n=5)
    context["todo"].update("b", n=6)
    database.run("update todo set n = 100 where id in ('a', 'b')")

    words = heard.run("push")["words"]
    first, _ = asked(heard.desk, "conflicts", table=None, **PAGE)["rows"]
    stale = asked(heard.desk, "settle", side="mine", rows=[[first["id"], "an older version"]])
    mine = asked(heard.desk, "settle", side="mine", rows=[[first["id"], first["version"]]])
    rev = asked(heard.desk, "conflicts", table="todo", **PAGE)["rev"]
    theirs = asked(heard.desk, "settle", side="theirs", shown={"table": "todo"}, rev=rev)

    assert words == "0 accepted, 2 conflicts, 0 rejected"
    assert [stale["settled"], stale["late"]] == [0, 1] and "a newer row" in stale["words"]
    assert mine == {"settled": 1, "late": 0, "words": "1 conflict settled: mine kept, to be sent with the next push"}
    assert theirs == {"settled": 1, "late": 0, "words": "1 conflict settled: theirs taken"}
    assert heard.run("push")["words"] == "1 accepted, 0 conflicts, 0 rejected"
    assert [database.todo()[key][1] for key in "ab"] == [5, 100]


def test_a_conflict_is_looked_at_typed_in_and_resolved_and_the_history_says_so(tmp_path):
    database = todo_database(tmp_path)
    heard = Heard(context := synced(database.url))
    context["todo"].update("a", title="mine", n=5)
    database.run("update todo set title = 'theirs', n = 100 where id = 'a'")
    heard.run("push")

    (row,) = asked(heard.desk, "conflicts", table=None, kind="edit/edit", **PAGE)["rows"]
    whole = asked(heard.desk, "conflict", id=row["id"])
    value = asked(heard.desk, "value", of="conflicts", id=row["id"], column="n", text=" 7 ")
    nothing = asked(heard.desk, "value", of="conflicts", id=row["id"], column="n", text=None)
    shown = {"id": row["id"], "version": row["version"], "rev": whole["rev"]}
    cells = {"title": {"side": "theirs"}, "n": {"text": value["value"]}, "list": {"null": True}}
    merged = asked(heard.desk, "settle", side="merge", rows=[[row["id"], row["version"]]], rev=whole["rev"])
    done = asked(heard.desk, "resolve", **shown, cells=cells)
    again = asked(heard.desk, "resolve", **shown, cells=cells, row=None)
    last, *_ = asked(heard.desk, "history", limit=5)["rows"]
    heard.run("push")

    assert [cell[0] for cell in whole["cells"]] == ["list", "title", "n", "stars", "code"]
    assert whole["columns"]["title"] == {"nullable": False}
    assert [value, nothing] == [{"value": "7"}, {"value": None}]
    assert merged == {"settled": 0, "late": 0, "words": "1 left: a column was changed on both sides"}
    assert [done["settled"], done["late"]] == [1, 0]
    assert done["words"] == "1 conflict settled: as the result shows, to be sent with the next push"
    assert again == {"settled": 0, "late": 1, "words": "settled already elsewhere"}
    assert [last[name] for name in ("action", "table", "rows", "note", "can_undo")] == [
        "resolve",
        "todo",
        1,
        None,
        True,
    ]
    assert database.rows("select list, title, n from todo where id = 'a'") == [(None, "theirs", 7)]


def test_a_rejected_operation_is_mended_and_pushed(heard, context, database):
    context["todo"].update("a", n=-1)
    heard.run("push")
    page = asked(heard.desk, "pending", kind="rejected", **PAGE)

    refusal = refused(
        heard.desk, "mend", {"id": page["rows"][0]["id"], "rev": page["rev"], "cells": {"n": {"text": "x"}}}
    )
    done = asked(heard.desk, "mend", id=page["rows"][0]["id"], rev=page["rev"], cells={"n": {"text": "4"}})

    assert refusal == "'x' is no whole number (column 'n', BIGINT) / such as 12"
    assert done == {"rows": 1, "late": 0, "words": "1 operation mended: it will be sent by the next push"}
    assert heard.run("push")["words"] == "1 accepted, 0 conflicts, 0 rejected"
    assert database.todo()["a"] == ["milk", 4]


def test_who_acts_finds_the_counts_changed_before_the_answer(heard, context):
    context["todo"].update("a", n=5)
    asked(heard.desk, "hello")
    seen: list[int] = []
    heard.desk.on_change = lambda: seen.append(heard.desk.summary["tables"][1]["update"])

    asked(heard.desk, "undo")

    assert seen == [0]
    assert heard.desk.rev == 2


@pytest.mark.parametrize("what", ["discard", "undo"])
def test_a_frame_whose_edits_were_taken_back_here_says_so_when_it_is_staged_again(heard, context, what):
    frame = context["todo"].frame()
    frame.loc["a", "n"] = 9
    context["todo"].stage(frame)
    ids = [row["id"] for row in asked(heard.desk, "pending", **PAGE)["rows"]]

    asked(heard.desk, what, **({"ids": ids} if what == "discard" else {}))
    again = context["todo"].stage(frame)

    assert not again
    assert "were taken back" in repr(again)


WRONG = {
    "an unknown name": ("fly", {}, f"message 'fly' is not known / one of {KNOWN}"),
    "a name that is none": (7, {}, f"message 7 is not known / one of {KNOWN}"),
    "no name": (None, {}, f"message None is not known / one of {KNOWN}"),
    "arguments that are a list": ("pending", [1], "the arguments of 'pending' are a list, not names with values / None"),
    "no offset": ("pending", {"limit": 10}, "argument 'offset' is missing / None"),
    "a negative offset": ("pending", {"offset": -1, "limit": 10}, "argument 'offset' is -1 / expected: a whole number from 0"),
    "half an offset": ("pending", {"offset": 0.5, "limit": 10}, "argument 'offset' is 0.5 / expected: a whole number"),
    "true for an offset": ("pending", {"offset": True, "limit": 10}, "argument 'offset' is True / expected: a whole number"),
    "an offset beyond all numbers": ("pending", {"offset": 2**70, "limit": 10}, "argument 'offset' is 1180591620717411303424"),
    "a page of a thousand million": ("pending", {"offset": 0, "limit": 10**9}, "argument 'limit' is 1000000000 / expected: a whole number from 1 to 200"),
    "an empty page": ("conflicts", {"offset": 0, "limit": 0}, "argument 'limit' is 0 / expected"),
    "a table that is a number": ("pending", {"table": 3, **PAGE}, "argument 'table' is 3 / expected: a text"),
    "an unknown table": ("conflicts", {"table": "nowhere", **PAGE}, "table 'nowhere' is not in this store / it has 'lists', 'todo'"),
    "an unknown kind": ("pending", {"kind": "upsert", **PAGE}, "argument 'kind' is 'upsert' / expected: one of insert, update, delete, rejected, attempted"),
    "an unknown operation": ("cell", {"of": "pending", "id": "x", "column": "n", "side": "base"}, "this row is not in the queue any more"),
    "an unknown page": ("cell", {"of": "history", "id": "x", "column": "n", "side": "base"}, "argument 'of' is 'history'"),
    "an unknown side": ("cell", {"of": "pending", "id": "x", "column": "n", "side": "left"}, "argument 'side' is 'left'"),
    "nothing to discard": ("discard", {}, "argument 'ids' is missing"),
    "ids that are a text": ("discard", {"ids": "x"}, "argument 'ids' is 'x' / expected: a list of texts"),
    "ids that are numbers": ("retry", {"ids": [1]}, "argument 'ids' is [1] / expected: a list of texts"),
    "all shown, of no revision": ("discard", {"shown": {"table": None, "kind": None}}, "argument 'rev' is missing"),
    "all shown, of nothing": ("discard", {"shown": None, "rev": 3}, "argument 'shown' is None / expected: names with values"),
    "no side": ("settle", {"rows": []}, "argument 'side' is missing"),
    "a side that cannot be taken": ("settle", {"side": "base", "rows": []}, "argument 'side' is 'base' / expected: one of mine, theirs, merge"),
    "rows without versions": ("settle", {"side": "mine", "rows": ["x"]}, "argument 'rows' is ['x'] / expected: a list of [id, version]"),
    "a version that is a number": ("settle", {"side": "mine", "rows": [["x", 1]]}, "argument 'rows' is [['x', 1]] / expected"),
    "an unknown kind of conflict": ("conflicts", {"kind": "insert", **PAGE}, "argument 'kind' is 'insert' / expected: one of edit/edit, edit/delete, delete/edit, insert/insert"),
    "a conflict that is none": ("conflict", {"id": "x"}, "this row is not in conflict any more"),
    "a value of nothing": ("value", {"of": "conflicts", "id": "x", "column": "n", "text": "1"}, "this row is not in the queue any more"),
    "no value": ("value", {"of": "conflicts", "id": "x", "column": "n"}, "argument 'text' is missing"),
    "a value that is a number": ("value", {"of": "conflicts", "id": "x", "column": "n", "text": 1}, "argument 'text' is 1 / expected: a text"),
    "cells that are a list": ("resolve", {"id": "x", "version": "v", "rev": 1, "cells": []}, "argument 'cells' is [] / expected: names with values"),
    "a cell of an unknown side": ("resolve", {"id": "x", "version": "v", "rev": 1, "cells": {"n": {"side": "left"}}}, "argument 'cells.n' is {'side': 'left'} / expected: {\"side\": one of base, mine, theirs} or {\"text\": ...} or {\"null\": true}"),
    "a cell that is no choice": ("resolve", {"id": "x", "version": "v", "rev": 1, "cells": {"n": {"null": False}}}, "argument 'cells.n' is {'null': False} / expected"),
    "a cell that is a text": ("resolve", {"id": "x", "version": "v", "rev": 1, "cells": {"n": "mine"}}, "argument 'cells.n' is 'mine' / expected"),
    "a row that is neither": ("resolve", {"id": "x", "version": "v", "rev": 1, "cells": {}, "row": "drop"}, "argument 'row' is 'drop' / expected: one of keep, delete"),
    "a conflict of no version": ("resolve", {"id": "x", "rev": 1, "cells": {}}, "argument 'version' is missing"),
    "a side to mend with": ("mend", {"id": "x", "rev": 1, "cells": {"n": {"side": "mine"}}}, "argument 'cells.n' is {'side': 'mine'} / expected: {\"text\": ...} or {\"null\": true}"),
    "a history of everything": ("history", {"limit": 1000}, "argument 'limit' is 1000 / expected: a whole number from 1 to 100"),
    "a push of an unknown table": ("push", {"tables": ["nowhere"]}, "tables 'nowhere' are not in this store / it has lists, todo"),
    "a pull of a text": ("pull", {"tables": "todo"}, "argument 'tables' is 'todo' / expected: a list of texts"),
}  # fmt: skip


@pytest.mark.parametrize(("what", "args", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_message_is_answered_in_words(heard, what, args, words):
    assert refused(heard.desk, what, args).startswith(words)


def test_an_unknown_id_is_no_failure_but_said(heard):
    assert asked(heard.desk, "discard", ids=["x"]) == {"rows": 0, "words": "1 operation not in the queue any more"}
    assert asked(heard.desk, "retry", ids=["x"]) == {"rows": 0, "words": "1 operation not rejected any more"}
    assert asked(heard.desk, "settle", side="mine", rows=[["x", None]]) == {
        "settled": 0, "late": 1, "words": "1 conflict settled already elsewhere",
    }  # fmt: skip
    resolved = asked(heard.desk, "resolve", id="x", version=None, rev=1, cells={"n": {"side": "mine"}})
    assert resolved == {"settled": 0, "late": 1, "words": "settled already elsewhere"}
    assert asked(heard.desk, "mend", id="x", rev=1, cells={}) == {
        "rows": 0,
        "late": 1,
        "words": "not rejected any more",
    }
    assert asked(heard.desk, "undo") == {"words": "there is nothing to take back"}
    assert asked(heard.desk, "cancel") == {}


def test_a_store_that_another_thread_holds_is_answered_in_words(tmp_path):
    context = synced(todo_database(tmp_path).url, tmp_path / "store.duckdb", lock_timeout_s=0.1)
    desk, is_held, may_end = Desk(context), threading.Event(), threading.Event()

    def hold() -> None:
        with context._store.transaction():
            is_held.set()
            may_end.wait(PATIENCE_S)

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait(PATIENCE_S)
    answer = desk.answer({"t": "ask", "id": "1", "what": "pending", "args": PAGE})
    may_end.set()
    holder.join()

    assert answer["error"]["type"] == "StoreError" and "held by another thread" in answer["error"]["message"]
    assert asked(desk, "pending", **PAGE)["total"] == 0


def test_messages_from_many_threads_at_once_are_all_answered(heard, context):
    context["todo"].insert([{"id": f"k{i}", "title": "t"} for i in range(40)])
    rows = asked(heard.desk, "pending", **PAGE)["rows"]
    answers: list[Any] = []

    def act(mine: list[dict[str, Any]]) -> None:
        for row in mine:
            answers.append(asked(heard.desk, "discard", ids=[row["id"]]))
            answers.append(asked(heard.desk, "pending", **PAGE))

    threads = [threading.Thread(target=act, args=(rows[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 80
    assert waiting(context) == []
    assert heard.desk.summary["tables"][1]["insert"] == 0


def test_a_closed_context_is_answered_still(heard, context):
    context["todo"].update("a", n=5)
    context.close()

    assert asked(heard.desk, "pending", **PAGE)["total"] == 1
    assert heard.run("push")["t"] == "ended"


# -- push and pull


def test_a_push_says_what_came_of_it_and_why_something_was_rejected(heard, context):
    context["todo"].update("a", n=5)
    context["todo"].update("b", n=-1)

    ended = dict(heard.run("push"))
    first, *others = ended.pop("words").splitlines()

    assert ended == {"t": "ended", "n": 1, "what": "push", "ok": True, "is_cancelled": False, "error": None}
    assert first == "1 accepted, 0 conflicts, 1 rejected"
    assert others == ["rejected: update of todo b: CHECK constraint failed: n >= 0"]
    assert heard.progress[0] == {
        "what": "push",
        "done": 0,
        "total": None,
        "words": "operations",
        "is_cancelling": False,
    }
    assert heard.progress[-1] is None
    assert asked(heard.desk, "hello")["ended"]["words"].startswith(first)


def test_a_push_of_nothing_says_so(heard):
    assert heard.run("push")["words"] == "nothing was queued"


def test_a_pull_says_what_it_brought_and_what_it_skipped(tmp_path):
    database = todo_database(tmp_path)
    context = synced(database.url)
    context.table("notes", {"id": "VARCHAR"})
    database.run(
        "insert into todo (id, title) values ('d', 'x'); update todo set n = 9 where id = 'a'; delete from todo where id = 'b'"
    )

    ended = Heard(context).run("pull")

    assert ended["words"].splitlines() == [
        "lists: nothing new", "todo: 1 new, 1 changed, 1 gone", "notes: never pulled here, so it was skipped",
    ]  # fmt: skip


def test_a_push_that_is_cancelled_stops_at_its_next_outcome_and_keeps_what_was_done(tmp_path):
    line = OneByOne(todo_database(tmp_path).url)
    heard = Heard(context := synced(line))
    context["todo"].update("a", n=5)
    context["todo"].update("b", n=6)
    context["todo"].update("c", n=7)
    asked(heard.desk, "push")
    until(lambda: waiting(context)[0] == ("update", "b"))

    second = refused(heard.desk, "pull", {})
    asked(heard.desk, "cancel")
    cancelling = heard.progress[-1]
    line.may_go_on.set()
    until(lambda: heard.ended)

    assert second == "a push is running / cancel it, or wait until it has ended"
    assert [cancelling["what"], cancelling["is_cancelling"]] == ["push", True]
    (ended,) = heard.ended
    assert [ended["ok"], ended["is_cancelled"], ended["error"]] == [False, True, None]
    assert ended["words"] == "cancelled after 2 operations; 1 operation still queued"
    assert heard.run("push")["words"] == "1 accepted, 0 conflicts, 0 rejected"
    assert waiting(context) == []


def test_offline_a_push_ends_in_words_and_everything_stays_queued(heard, context, line):
    context["todo"].update("a", n=5)

    with offline(line):
        ended = heard.run("push")
    summary = asked(heard.desk, "hello")["summary"]
    again = heard.run("push")

    hint = "1 operation still queued"
    assert ended["error"] == {"type": "TransientError", "message": "no route to the back end", "hint": hint}
    assert [ended["ok"], ended["words"]] == [False, "the push did not finish; 1 operation still queued"]
    assert summary["online"] is False and summary["tables"][1]["update"] == 1
    assert again["words"] == "1 accepted, 0 conflicts, 0 rejected"
    assert heard.desk.summary["online"] is True


def test_a_bug_in_a_back_end_ends_the_push_in_words_too(tmp_path, caplog):
    heard = Heard(context := synced(Broken(todo_database(tmp_path).url)))
    context["todo"].update("a", n=5)

    ended = heard.run("push")

    assert ended["error"] == {"type": "RuntimeError", "message": "index 7 is out of ? range", "hint": None}
    assert "the push that the widget started failed" in caplog.text
    assert asked(heard.desk, "hello")["progress"] is None


def test_without_a_back_end_a_push_ends_with_the_hint():
    context = sf.connect(store=":memory:")
    context.table("t", {"id": "VARCHAR"}).insert({"id": "1"})

    ended = Heard(context).run("push")

    assert ended["error"]["message"] == "this context has no back end"
    assert ended["error"]["hint"].startswith("connect(")


def test_progress_is_told_at_most_five_times_a_second(tmp_path):
    class Pages(Line):
        def pull(self, *arguments: Any, **options: Any) -> Iterator[Any]:
            for page in super().pull(*arguments, **options):
                for _ in range(12):
                    time.sleep(0.01)
                    yield page

    heard = Heard(synced(Pages(todo_database(tmp_path).url)))
    heard.progress.clear()

    began = time.monotonic()
    heard.run("pull")

    assert len(heard.progress) <= 5 * (time.monotonic() - began) + 2
    assert {shown["words"] for shown in heard.progress if shown} <= {"", "lists", "todo"}


def test_the_stop_button_ends_what_a_message_does_and_is_answered(heard, context, monkeypatch):
    context["todo"].update("a", n=5)
    ids = [row["id"] for row in asked(heard.desk, "pending", **PAGE)["rows"]]

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("syncframe.undo.forget_images", stopped)
        answer = heard.desk.answer({"t": "ask", "id": "1", "what": "discard", "args": {"ids": ids}})

    assert (answer["ok"], answer["error"]["type"]) == (False, "KeyboardInterrupt")
    assert waiting(context) == [("update", "a")]


def test_what_is_done_is_answered_as_done_where_the_counts_cannot_be_read(heard, context, monkeypatch):
    context["todo"].update("a", n=5)
    ids = [row["id"] for row in asked(heard.desk, "pending", **PAGE)["rows"]]

    def held() -> bool:
        raise StoreError("held by another process")

    monkeypatch.setattr(heard.desk, "refresh", held)

    assert asked(heard.desk, "discard", ids=ids)["words"] == "1 operation discarded"
    assert waiting(context) == []


def test_cancelling_is_not_overtaken_by_what_was_told_before(tmp_path):
    line = OneByOne(todo_database(tmp_path).url)
    heard = Heard(context := synced(line))
    for key in "abc":
        context["todo"].update(key, n=9)
    told: list[Any] = []
    cancels: list[threading.Thread] = []

    def tell(progress: Any) -> None:
        if not cancels:  # the first is told slowly, and cancelled meanwhile
            cancels.append(threading.Thread(target=heard.desk.answer, args=({"what": "cancel"},)))
            cancels[0].start()
            time.sleep(0.3)
        told.append(progress and progress["is_cancelling"])

    heard.desk.on_progress = tell
    line.may_go_on.set()
    heard.run("push")
    cancels[0].join(PATIENCE_S)

    assert told[:2] == [False, True]
    assert told[-1] is None


# -- online


def test_whether_the_back_end_answers_is_known_after_each_push_and_pull(tmp_path):
    line = Line(todo_database(tmp_path).url)
    context = sf.connect(line, store=":memory:")
    told = [context._session.is_online]

    context["todo"].pull(query_id="all", progress=False)
    told.append(context._session.is_online)
    for fault in (sf.TransientError("no route"), sf.AccessError("not you", status=401), sf.BackendError("what?")):
        line.fault = fault
        with pytest.raises(type(fault)):
            context["todo"].pull(query_id="all", progress=False)
        told.append(context._session.is_online)

    assert told == [None, True, False, True, True]
    assert context._session.asked_at is not None and context._session.asked_at.tzinfo is not None


def test_a_push_of_nothing_asks_nothing_and_so_knows_nothing(line):
    context = sf.connect(line, store=":memory:")

    context.push(progress=False)

    assert [context._session.is_online, context._session.asked_at] == [None, None]


def test_a_push_that_sends_nothing_does_not_say_that_the_back_end_answers(tmp_path):
    class Known(Line):
        """A service, which is known by its address."""

        def identity(self) -> str:
            return "https://app.example.net"

    database = todo_database(tmp_path)
    line = Known(database.url)
    context = synced(line)
    context["todo"].update("a", n=5)
    database.run("update todo set n = 100 where id = 'a'")
    context.push(progress=False)

    with offline(line):
        with pytest.raises(sf.TransientError):
            context["todo"].pull(query_id="all", push_first=False, progress=False)
        result = context.push(progress=False)  # all that is left is in conflict

    assert result.counts["conflicts"] == 1
    assert context._session.is_online is False


# -- the widget itself


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


def opened(context: sf.SyncContext) -> tuple[SyncWidget, list[dict[str, Any]]]:
    """A widget that a view has said hello to, and the messages that it sends."""
    widget, sent = context.widget, []
    widget.send = lambda message, buffers=None: sent.append(message)
    widget._handle_custom_msg({"t": "ask", "id": "view-1", "what": "hello"}, [])
    return widget, sent


def counts(widget: SyncWidget) -> tuple[int, int, int]:
    todo = next(table for table in widget.summary["tables"] if table["name"] == "todo")
    return todo["insert"], todo["update"], todo["delete"]


def test_making_a_widget_outside_a_kernel_says_nothing(context, recwarn, capsys):
    widget = context.widget

    assert widget is context.widget
    assert widget.summary["tables"][1]["name"] == "todo"
    assert [str(warning.message) for warning in recwarn] == []
    assert capsys.readouterr() == ("", "")


def test_importing_the_widget_starts_no_thread_and_opens_no_line():
    code = """
        import threading, sys
        import syncframe.widget
        from ipywidgets.widgets.widget import _instances
        print(threading.active_count(), len(_instances), "ipykernel.kernelapp" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(map(str.strip, code.splitlines()))],
        capture_output=True, text=True, cwd=PACKAGE_FOLDER, check=True,
    )  # fmt: skip

    assert done.stdout.split() == ["1", "0", "False"]


def test_a_view_is_answered_and_follows_what_a_cell_does(context):
    widget, (hello,) = opened(context)

    context["todo"].update("a", n=5)
    until(lambda: counts(widget) == (0, 1, 0))
    rev = widget.rev
    context.discard()
    until(lambda: counts(widget) == (0, 0, 0))

    assert [hello["t"], hello["id"], hello["ok"]] == ["answer", "view-1", True]
    assert widget.rev > rev
    widget.close()


def test_what_only_marks_operations_moves_the_revision_too(tmp_path):
    line = Line(todo_database(tmp_path).url)
    widget, _ = opened(context := synced(line))
    context["todo"].update("a", n=5)
    until(lambda: counts(widget) == (0, 1, 0))
    rev = widget.rev

    line.is_slow = True
    with pytest.raises(sf.TransientError):
        context.push(progress=False)

    until(lambda: widget.rev > rev)
    widget.close()


def test_two_widgets_on_two_contexts_over_one_store_agree(tmp_path, store):
    database = todo_database(tmp_path)
    one, other = synced(database.url, store), sf.connect(database.url, store=store)
    (here, _), (there, sent) = opened(one), opened(other)

    one["todo"].update("a", n=5)
    until(lambda: counts(there) == (0, 1, 0))
    there._handle_custom_msg({"t": "ask", "id": "p", "what": "undo", "args": {}}, [])
    until(lambda: counts(here) == (0, 0, 0))

    assert sent[-1] == {"t": "answer", "id": "p", "ok": True, "data": {"words": "taken back: update of 1 row"}}
    here.close()
    there.close()


def test_what_another_process_stages_is_followed(tmp_path, store):
    database = todo_database(tmp_path)
    widget, _ = opened(synced(database.url, store))
    code = f"import syncframe as sf; sf.connect(store={str(store)!r})['todo'].update('a', n=5)"

    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE_FOLDER)

    until(lambda: counts(widget) == (0, 1, 0))
    widget.close()


def test_looking_alone_moves_nothing(tmp_path, store):
    database = todo_database(tmp_path)
    context, other = synced(database.url, store), sf.connect(store=store)
    desk = Desk(context)
    desk.refresh()

    other["todo"].frame()
    asked(desk, "pending", **PAGE)
    len(other.pending)

    assert desk.follow() is False
    assert desk.rev == 1


def test_a_new_context_on_the_same_file_shows_the_same_queue(tmp_path, store):
    database = todo_database(tmp_path)
    context = synced(database.url, store)
    context["todo"].update("a", n=5)
    before = asked(Desk(context), "pending", **PAGE)
    context.close()

    after = asked(Desk(sf.connect(database.url, store=store)), "pending", **PAGE)

    assert after == before and after["total"] == 1


def test_the_watcher_ends_with_its_widget(context):
    widget, _ = opened(context)
    watcher = widget._watcher
    widget._handle_custom_msg({"t": "ask", "id": "view-2", "what": "hello"}, [])

    assert widget._watcher is watcher and watcher.daemon
    widget.close()
    watcher.join(PATIENCE_S)
    assert not watcher.is_alive()


def test_a_closed_context_leaves_no_widget_and_no_thread_behind(tmp_path, store):
    from ipywidgets.widgets.widget import _instances

    context = synced(todo_database(tmp_path).url, store)
    widget, _ = opened(context)
    id_, watcher = widget.model_id, widget._watcher

    context.close()
    watcher.join(PATIENCE_S)

    assert not watcher.is_alive()
    assert id_ not in _instances
    again = context.widget
    assert again is not widget and again.summary["tables"][1]["rows"] == 3
    context.close()


def test_a_watcher_goes_on_when_the_store_cannot_be_read_for_a_while(tmp_path, store):
    context = synced(todo_database(tmp_path).url, store, lock_timeout_s=0.05)
    widget, _ = opened(context)
    looks = []
    follow = widget.desk.follow

    def failing() -> bool:
        looks.append(1)
        if len(looks) < 3:
            raise StoreError("held by another process")
        return follow()

    widget.desk.follow = failing
    context["todo"].update("a", n=5)

    until(lambda: counts(widget) == (0, 1, 0))
    widget.close()


def test_messages_that_are_none_are_left_alone(context):
    widget, sent = opened(context)
    sent.clear()

    for message in ("hello", None, 7, {}, {"t": "answer", "id": "1"}):
        widget._handle_custom_msg(message, [])

    assert sent == []
    widget.close()


def test_traits_hold_no_cell_no_error_text_and_no_secret(tmp_path, store):
    database = todo_database(tmp_path)
    line = OneByOne(database.url)
    line.may_go_on.set()
    context = sf.connect(line, store=store, token="tok-SECRET-1", headers={"X-Pass": "hdr-SECRET-2"})
    for table in ("lists", "todo"):
        context[table].pull(query_id="all", progress=False)
    context["todo"].update("a", title="cell-SECRET-3")
    context["todo"].update("b", n=-5)
    context["todo"].delete("c")
    database.run("update todo set title = 'cell-SECRET-4' where id = 'a'")
    widget, sent = opened(context)
    states: list[Any] = []
    widget.observe(lambda change: states.append(change["new"]))

    widget._handle_custom_msg({"t": "ask", "id": "p", "what": "push", "args": {}}, [])
    until(lambda: any(message["t"] == "ended" for message in sent))
    state = {name: value for name, value in widget.get_state().items() if name not in ("_esm", "_css")}
    written = json.dumps([state, states], default=str)

    assert "CHECK" in json.dumps(sent)  # the messages have the words, the traits have not
    assert widget.summary["tables"][1]["rejected"] == 1 and widget.summary["tables"][1]["conflicts"] == 1
    for secret in ("SECRET", "milk", "bread", "eggs", "CHECK", "-5"):
        assert secret not in written
    widget.close()


def test_a_url_s_password_is_not_in_the_summary(tmp_path):
    context = sf.connect("https://me:tok-SECRET@app.example.net/x", store=":memory:")

    assert context.widget.summary["back_end"] == "https://app.example.net/x"


def test_a_context_prints_its_text_where_there_is_no_kernel(context, capsys):
    context._ipython_display_()

    assert capsys.readouterr().out == repr(context) + "\n"


# -- a real kernel, spoken to as a front end does


class Kernel:
    """A kernel with one notebook's cells, and its widget's line."""

    def __init__(self) -> None:
        from jupyter_client.manager import start_new_kernel

        self.manager, self.client = start_new_kernel(cwd=str(PACKAGE_FOLDER), extra_arguments=["--log-level=50"])
        self.outputs: list[dict[str, Any]] = []
        self.heard: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        self.comm = ""

    def run(self, code: str) -> None:
        reply = self.client.execute_interactive(code, output_hook=self._hear, timeout=PATIENCE_S)
        assert reply["content"]["status"] == "ok", reply["content"]

    def ask(self, what: str, id_: str, **args: Any) -> None:
        data = {"method": "custom", "content": {"t": "ask", "id": id_, "what": what, "args": args}}
        message = self.client.session.msg("comm_msg", {"comm_id": self.comm, "data": data})
        self.client.shell_channel.send(message)

    def until(self, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message of the widget that is so."""
        while not (found := [message for message in self.heard if is_so(message)]):
            self._hear(self.client.get_iopub_msg(timeout=PATIENCE_S))
        return found[0]

    def _hear(self, message: dict[str, Any]) -> None:
        content, data = message["content"], message["content"].get("data", {})
        if message["msg_type"] == "comm_open" and "summary" in data["state"]:
            self.comm, self.state = content["comm_id"], data["state"]
        elif message["msg_type"] == "comm_msg" and data.get("method") == "custom":
            self.heard.append(data["content"])
        elif message["msg_type"] == "comm_msg" and data.get("method") == "update":
            self.state |= data["state"]
        elif message["msg_type"] in ("display_data", "execute_result", "stream", "error"):
            self.outputs.append({"output_type": message["msg_type"], **content})

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    running = Kernel()
    yield running
    running.close()


def test_in_a_kernel_a_view_says_hello_pages_and_pushes(tmp_path, kernel):
    database = todo_database(tmp_path)
    kernel.run(f"""
import syncframe as sf
ctx = sf.connect({database.url!r}, store={str(tmp_path / "store.duckdb")!r})
ctx["todo"].pull(query_id="all", progress=False)
ctx["todo"].update("a", title="cell-SECRET")
ctx
""")  # fmt: skip
    outputs = list(kernel.outputs)

    kernel.ask("hello", "h")
    hello = kernel.until(lambda m: m.get("id") == "h")
    kernel.ask("pending", "p", **PAGE)
    page = kernel.until(lambda m: m.get("id") == "p")
    kernel.ask("push", "u")
    ended = kernel.until(lambda m: m["t"] == "ended")
    kernel.run("ctx['todo'].update('b', n=7);")
    while kernel.state["summary"]["tables"][0]["update"] != 1:
        kernel._hear(kernel.client.get_iopub_msg(timeout=PATIENCE_S))

    assert hello["ok"] and page["data"]["rows"][0]["cells"] == [["title", "VARCHAR", "milk", "cell-SECRET"]]
    assert [ended["ok"], ended["words"]] == [True, "1 accepted, 0 conflicts, 0 rejected"]
    assert database.todo()["a"] == ["cell-SECRET", 1]
    assert kernel.state["progress"] is None
    _check_outputs(outputs, kernel)


def _check_outputs(outputs: list[dict[str, Any]], kernel: Kernel) -> None:
    """Two outputs, the summary and the live view; saved with the widget's state there is no cell in them."""
    summary, view = outputs
    assert f'data-syncframe-static="{kernel.comm}"' in summary["data"]["text/html"]
    assert view["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == kernel.comm
    assert view["data"]["text/plain"] == "(the live view of the above; it needs a running kernel)"
    state = {name: value for name, value in kernel.state.items() if name not in ("_esm", "_css")}
    cells = [nbformat.v4.new_code_cell("ctx", outputs=[_output(output) for output in outputs])]
    saved = nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {kernel.comm: state}})
    text = nbformat.writes(saved)
    assert "todo" in text and "SECRET" not in text and "milk" not in text


def _output(output: dict[str, Any]) -> Any:
    return nbformat.v4.new_output(output["output_type"], data=output["data"], metadata=output["metadata"])
