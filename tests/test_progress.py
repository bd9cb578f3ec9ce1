"""How far work is: a bar of the notebook or the terminal, a callable, or nothing; and what a stopped one leaves behind."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel
from stories import Line, lost_answers, shown, synced, waiting

import syncframe as sf

TESTS = Path(__file__).parent


class Slow(Line):
    """A back end that takes its time for each page and each answer."""

    pause_s = 0.2
    stop_at = -1  # the page or answer at which the stop button is pressed

    def pull(self, *asked: Any, **options: Any) -> Iterator[sf.Page]:
        for at, page in enumerate(super().pull(*asked, **options)):
            self._wait(at)
            yield page

    def _wait(self, at: int) -> None:
        time.sleep(self.pause_s)
        if at == self.stop_at:
            signal.raise_signal(signal.SIGINT)

    def push(self, batch: sf.Operations) -> Iterator[sf.Outcomes]:
        for at in range(len(batch)):
            self._wait(at)
            yield from super().push(sf.Operations(batch.table, batch.schema, batch.rows.slice(at, 1)))


class Told:
    """A progress callable that keeps what it was told, and raises when it was told so many times."""

    def __init__(self, error: BaseException | None = None, after: int = 1) -> None:
        self.calls: list[tuple[int, int | None, str]] = []
        self.error, self.after = error, after

    def __call__(self, done: int, total: int | None, what: str) -> None:
        self.calls.append((done, total, what))
        if self.error is not None and len(self.calls) >= self.after:
            raise self.error


# -- a callable


def test_a_pull_tells_how_many_rows_have_come(database):
    told = Told()

    sf.connect(database.url, store=":memory:")["todo"].pull(query_id="all", page_rows=1, progress=told)

    assert sorted({*told.calls}) == [(1, None, "pull todo"), (2, None, "pull todo"), (3, None, "pull todo")]
    assert told.calls == sorted(told.calls)


def test_a_push_tells_how_many_answers_have_come(database):
    context, told = synced(Slow(database.url)), Told()
    context["todo"].update("a", n=10)
    context["todo"].update("b", n=20)

    context.push(progress=told)

    assert told.calls == [(1, 2, "push"), (2, 2, "push")]


def test_what_a_policy_sends_again_is_told_as_more_than_waited(database):
    context, told = synced(database.url), Told()
    context["todo"].update("a", n=10)
    database.run("update todo set n = 11 where id = 'a'")

    context.push(on_conflict="mine", progress=told)

    assert told.calls == [(1, 1, "push"), (2, 2, "push")]


def test_done_never_falls_under_one_name_in_a_sync_of_many_queries(database):
    context, told = synced(database.url), Told()
    context["todo"].pull("n > 1", query_id="some", progress=False)
    for key in ("a", "b", "c"):
        context["todo"].update(key, n=9)
    database.run("update todo set title = 'tea' where id = 'c'; update lists set name = 'Office' where id = 'work'")

    context.sync(progress=told, full=True)

    by_name: dict[str, list[int]] = {}
    for done, _, what in told.calls:
        by_name.setdefault(what, []).append(done)
    assert by_name.keys() == {"push", "pull lists", "pull todo"}
    assert all(dones == sorted(dones) for dones in by_name.values())
    assert by_name["pull todo"][-1] == 6  # three rows of each of its two queries


@pytest.mark.parametrize("error", [RuntimeError("enough"), KeyboardInterrupt(), sf.errors.TransientError("enough")])
def test_what_a_callable_raises_is_what_the_caller_of_a_push_sees_and_answers_that_came_stay(database, error):
    context = synced(Slow(database.url))
    for key in ("a", "b", "c"):
        context["todo"].update(key, n=9)

    with pytest.raises(type(error)) as caught:
        context.push(progress=Told(error, after=2))

    assert caught.value is error
    assert waiting(context) == [("update", "c")]
    assert context.push(progress=False).counts == {"accepted": 1, "conflicts": 0, "rejected": 0}
    assert sorted(database.audit()) == [("update", "a"), ("update", "b"), ("update", "c")]


@pytest.mark.parametrize("error", [RuntimeError("enough"), KeyboardInterrupt(), sf.errors.TransientError("enough")])
def test_what_a_callable_raises_is_what_the_caller_of_a_pull_sees_and_pages_that_came_stay(database, error):
    context = sf.connect(database.url, store=":memory:")

    with pytest.raises(type(error)) as caught:
        context["todo"].pull(query_id="all", page_rows=1, progress=Told(error, after=2))

    assert caught.value is error
    assert list(shown(context)) == ["a", "b"]
    assert context["todo"].pull(query_id="all", progress=False).inserted == 1
    assert list(shown(context)) == ["a", "b", "c"]


CALLS = {
    "ctx.push": lambda context, progress: context.push(progress=progress),
    "ctx.pull": lambda context, progress: context.pull(progress=progress),
    "ctx.sync": lambda context, progress: context.sync(progress=progress),
    "table.pull": lambda context, progress: context["todo"].pull(progress=progress),
    "table.resync": lambda context, progress: context["todo"].resync(progress=progress),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_that_takes_progress_tells_a_callable_and_stops_when_it_raises(database, name):
    context = synced(Line(database.url))
    context["todo"].update("a", n=9)
    database.run("update todo set title = 'tea' where id = 'b'")
    stop = Told(RuntimeError("enough"))

    with pytest.raises(RuntimeError, match="enough"):
        CALLS[name](context, stop)
    CALLS[name](context, Told())
    context.sync(progress=False)

    assert len(stop.calls) == 1
    assert shown(context) == database.todo() == {"a": ["milk", 9], "b": ["tea", 2], "c": ["eggs", 3]}
    assert database.audit() == [("update", "a")]


@pytest.mark.parametrize("name", CALLS)
def test_false_shows_nothing_however_long_it_takes(database, capfd, name):
    context = synced(Slow(database.url))
    for key in ("a", "b", "c"):
        context["todo"].update(key, n=9)

    CALLS[name](context, False)

    assert capfd.readouterr() == ("", "")


def test_what_takes_less_than_the_delay_shows_nothing(database, capfd, monkeypatch):
    monkeypatch.setattr("syncframe.progress.DELAY_S", 60)
    context = synced(database.url)
    context["todo"].update("a", n=9)

    context.sync()

    assert capfd.readouterr() == ("", "")


def test_an_answer_that_was_lost_is_told_of_once(database):
    line, told = Line(database.url), Told()
    context = synced(line)
    context["todo"].update("a", n=9)
    with lost_answers(line), pytest.raises(sf.errors.TransientError):
        context.push(progress=told)

    context.push(progress=told)

    assert told.calls == [(1, 1, "push")]


# -- a bar of text

SLOW = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from test_progress import Slow
import syncframe as sf
Slow.pause_s = 0.4
"""
PULL = """
try:
    sf.connect(Slow(URL), store=":memory:")["todo"].pull(query_id="all", page_rows=1)
finally:
    print("end", flush=True)
"""
STOP = "Slow.stop_at = 2"


def in_a_terminal(code: str, *arguments: str) -> str:
    """Run a script in a terminal, and return what it wrote on it."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            ready, _, _ = select.select([ours], [], [], 30)
            part = os.read(ours, 65536) if ready else b""
        except OSError:  # the other end is closed
            part = b""
        if not part:
            break
        written += part
    os.close(ours)
    process.wait(30)
    return written.decode()


def on_screen(written: str) -> str:
    """What is left on the screen: a carriage return goes back to the beginning of its line."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", part)
            cells[: len(plain)] = plain
        lines.append("".join(cells).rstrip())
    return "\n".join(lines).strip()


def test_a_terminal_shows_a_bar_of_text_and_nothing_is_left_of_it(database):
    written = in_a_terminal(f"{SLOW}\nURL = {database.url!r}\n{PULL}")

    assert "pull todo: 2 rows" in written
    assert on_screen(written) == "end"


def test_a_table_s_name_gives_a_terminal_no_orders():
    code = """
import time
from syncframe.progress import told
with told(None, "rows") as tell:
    time.sleep(0.6)
    tell(1, None, "pull \x1b[31mred\u202e")
    time.sleep(0.2)
    tell(2, None, "pull \x1b[31mred\u202e")
"""
    written = in_a_terminal(code)

    assert "\\x1b[31mred\\u202e" in written
    assert "\x1b[31mred" not in written and "\u202e" not in written


def test_a_stopped_bar_of_text_is_not_left_behind(database):
    written = in_a_terminal(f"{SLOW}\nURL = {database.url!r}\n{STOP}\n{PULL}")

    assert "pull todo: 2 rows" in written
    assert on_screen(written).startswith("end\n")
    assert on_screen(written).endswith("KeyboardInterrupt")
    assert "rows" not in on_screen(written).partition("Traceback")[0]


# -- a notebook's bar


class Notebook:
    """A kernel, and the outputs of its cells as a front end holds them."""

    def __init__(self, setting: str) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3")
        self.history: list[str] = []  # every text that a display held at some time
        assert self.run(setting) == []

    def run(self, code: str) -> list[dict[str, Any]]:
        """Run a cell; return its outputs."""
        asked = self.client.execute(code)
        outputs: list[dict[str, Any]] = []
        displays: dict[str, dict[str, Any]] = {}
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind == "status" and content["execution_state"] == "idle":
                return outputs
            if kind == "display_data":
                output = {"kind": "display", **content["data"]}
                outputs.append(output)
                displays[content["transient"].get("display_id", "")] = output
            elif kind == "update_display_data":
                displays[content["transient"]["display_id"]].clear()
                displays[content["transient"]["display_id"]].update({"kind": "display", **content["data"]})
            elif kind == "stream":
                outputs.append({"kind": content["name"], "text": content["text"]})
            elif kind == "error":
                outputs.append({"kind": "error", "name": content["ename"]})
            self.history += [str(output) for output in outputs]
            self.history.append(str(content.get("data", "")))

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook(request: pytest.FixtureRequest) -> Iterator[Notebook]:
    opened = Notebook(f"{getattr(request, 'param', '')}{SLOW}")
    yield opened
    opened.close()


WIDGET = "application/vnd.jupyter.widget-view+json"
GONE = {"kind": "display", "text/plain": ""}  # a widget that is closed would be an error in the saved notebook


def test_a_notebook_shows_a_widget_and_takes_it_away_at_the_end_and_when_it_is_stopped(notebook, database):
    whole = notebook.run(f"URL = {database.url!r}\n{PULL}")
    seen, notebook.history = notebook.history, []
    stopped = notebook.run(f"URL = {database.url!r}\n{STOP}\n{PULL}")

    assert any(WIDGET in text for text in seen)
    assert any("2/?" in text and "rows/s" in text for text in seen)
    assert whole == [GONE, {"kind": "stdout", "text": "end\n"}]
    assert any(WIDGET in text for text in notebook.history)
    assert stopped == [GONE, {"kind": "stdout", "text": "end\n"}, {"kind": "error", "name": "KeyboardInterrupt"}]


def test_a_push_that_is_stopped_before_its_end_leaves_no_red_bar(notebook, database):
    notebook.run(
        f"from stories import synced; c = synced(Slow({database.url!r}))\nfor key in 'abc': c['todo'].update(key, n=9)"
    )

    outputs = notebook.run(f"{STOP}\nc.push()")

    assert any(WIDGET in text for text in notebook.history)
    assert outputs == [GONE, {"kind": "error", "name": "KeyboardInterrupt"}]


def test_what_is_soon_done_opens_no_widget(notebook, database):
    notebook.run(f"c = sf.connect({database.url!r}, store=':memory:')")
    notebook.history.clear()

    outputs = notebook.run("c['todo'].pull(query_id='all'); None")

    assert outputs == []
    assert not any("widget" in text for text in notebook.history)


WITHOUT_IPYWIDGETS = """
import sys
class Without:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "ipywidgets":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
"""


@pytest.mark.parametrize("notebook", [WITHOUT_IPYWIDGETS], indirect=True)
def test_a_notebook_without_ipywidgets_shows_a_bar_of_text_and_no_warning(notebook, database):
    outputs = notebook.run(f"URL = {database.url!r}\n{PULL}")

    texts = [output["text"] for output in outputs if output["kind"] == "stderr"]
    assert any("pull todo: 2 rows" in text for text in texts)
    assert not any("Warning" in text or "IProgress" in text for text in texts)
    assert on_screen("".join(texts)) == ""
