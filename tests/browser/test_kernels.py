"""Kernels that die, views of one kernel in two tabs, and another process that pushes the same queue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from scenes import SLOW, database, rows
from test_widget_in_lab import edit, in_conflict, part, shown, until_text

PUSH = """
import sys
import syncframe as sf
with sf.connect(sys.argv[1], store=sys.argv[2], lock_timeout_s=60) as ctx:
    print(ctx.tables, flush=True)
    sys.stdin.readline()
    print(len(ctx.push(progress=False).accepted))
"""


@pytest.fixture
def shop(tmp_path):
    return database(tmp_path / "shop.db")


@contextmanager
def another_process(url: str, store: object) -> Iterator[Callable[[], int]]:
    """A process that has opened a store, and what has it push its queue: how much was accepted there."""
    command = [sys.executable, "-c", PUSH, url, str(store)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith("['items']")
        yield lambda: int(process.communicate("go\n", timeout=120)[0])
    finally:
        process.kill()
        process.wait()


def press(button) -> None:
    """A click also on a button that says it is disabled: these answer in words."""
    button.dispatch_event("click", {"detail": 1})


def pending(widget):
    return widget.get_by_role("tab", name="Pending")


def test_a_killed_kernel_is_said_no_button_hangs_and_the_same_queue_is_there_again(notebook, shop, figures, pictures):
    again = edit(shop, "pass").replace("items.pull(query_id='all')", "")
    page = notebook(edit(shop), "ctx", "import os\nprint(os.getpid())", again, "ctx")
    page.run(0)
    widget = shown(page.run(1))
    before = until_text(widget.locator(".sf-row").first, "apple")
    page.run(2)

    began = time.perf_counter()
    os.kill(int(page.text(2)), signal.SIGKILL)
    press(part(widget, "push"))
    words = until_text(part(widget, "kernel"), "run this cell again")
    said_s = time.perf_counter() - began
    claims = part(widget, "online").is_visible()
    page.page.locator(".jp-Dialog button").first.click()  # JupyterLab says itself that it starts a kernel anew
    discard = part(widget.locator(".sf-row").first, "discard")
    for button in (part(widget, "push"), part(widget, "pull"), part(widget, "undo"), discard):
        press(button)
    page.page.wait_for_timeout(500)
    busy = widget.locator('[aria-busy="true"]').count()
    is_off = part(widget, "push").get_attribute("aria-disabled")
    pictures(page.page, "kernel-killed.png")
    page.idle()
    page.run(3)
    widget = shown(page.run(4))
    until_text(pending(widget), "4")
    after = until_text(widget.locator(".sf-row").first, "apple")
    part(widget, "push").click()
    pushed = until_text(part(widget, "status"), "accepted")

    figures(f"row 12: a killed kernel is said after {said_s:.1f} s")
    assert "kernel is gone" in words
    assert not claims
    assert (busy, is_off) == (0, "true")
    assert after == before
    assert "4 accepted" in pushed
    assert page.errors == []


@pytest.fixture
def many(tmp_path):
    values = ", ".join(f"('k{i:02d}', null)" for i in range(9))
    return database(
        tmp_path / "many.db", f"create table items (id text primary key, note text); insert into items values {values}"
    )


def test_what_is_settled_in_one_tab_is_said_in_the_other(notebook, many, figures):
    from lab import Notebook

    page = notebook(in_conflict(many), "ctx")
    page.run(0)
    shown(page.run(1))
    page.save()
    other = Notebook(page.lab, page.page.context.new_page(), page.path)
    one, two = (shown(tab.outputs(1)) for tab in (page, other))
    for widget in (one, two):
        widget.get_by_role("tab", name="Conflicts").click()
        until_text(widget.locator(".sf-detail:visible"), "k00")

    began = time.perf_counter()
    part(one, "mine").click()
    late = until_text(two.locator(".sf-detail:visible"), "has left this list")
    seen_s = time.perf_counter() - began
    one.get_by_role("tab", name="Conflicts").wait_for()
    # Both act on what both see: whoever comes second is told, and nothing fails.
    two.get_by_role("grid", name="Conflicts").focus()
    other.page.keyboard.press("ArrowDown")
    until_text(two.locator(".sf-detail:visible"), "Both sides")
    row = two.locator('.sf-row[aria-selected="true"]').text_content()
    key = next(name for name in (f"k{i:02d}" for i in range(9)) if name in row)
    one.locator(".sf-row", has_text=key).click()
    until_text(one.locator(".sf-detail:visible"), key)
    clicked = "(view) => view.querySelector('[data-syncframe=\"theirs\"]').click()"
    one.evaluate(clicked)
    two.evaluate(clicked)
    until_text(one.get_by_role("tab", name="Conflicts"), "7")
    second = until_text(two, "settled already elsewhere|has left this list")
    alerts = [part(widget, "alert").count() for widget in (one, two)]

    figures(f"row 13: a conflict settled in one tab has left the other after {seen_s:.2f} s")
    assert "k00" in late and second
    assert alerts == [0, 0]
    assert page.errors == [] and other.errors == []


def test_another_process_pushes_the_same_queue_and_what_is_shown_is_true(notebook, tmp_path, figures):
    script = "create table items (id text primary key, n bigint);" + "".join(
        f"insert into items values ('k{i:03d}', {i});" for i in range(300)
    )
    path = database(tmp_path / "many.db", script)
    url, changed = f"sqlite:///{path}", "select count(*) from items where n <> cast(substr(id, 2) as integer)"
    edited = "df = items.frame()\ndf['n'] += 1000\nitems.stage(df)"
    page = notebook(SLOW.format(url=url), f"items.pull()\n{edited}", "ctx", edited)
    store = (page.lab.folder / page.path).with_name("slow.duckdb")
    page.run(0)
    page.run(1)
    widget = shown(page.run(2))
    until_text(pending(widget), "300")

    with another_process(url, store) as push:
        accepted = push()
    began = time.perf_counter()
    until_text(pending(widget), "Pending 0")
    seen_s = time.perf_counter() - began
    press(part(widget, "push"))
    nothing = until_text(part(widget, "status"), "(?i)nothing")
    assert (accepted, rows(path, changed)) == (300, [(300,)])

    # The same while the widget's own push is under way: each operation is sent, and the end is told in words.
    page.run(3)
    until_text(pending(widget), "300")
    with another_process(url, store) as push:
        part(widget, "push").click()
        part(widget, "cancel").wait_for()
        by_other = push()
    words = until_text(part(widget, "status"), "accepted|queued")
    until_text(pending(widget), "Pending 0")
    figures(f"row 13: another process' push of 300 shows {seen_s:.2f} s after its end; while the widget pushes: "
            f"there {by_other} accepted, here {words!r}")  # fmt: skip
    assert "nothing to push" in nothing
    assert rows(path, "select count(*), min(n - cast(substr(id, 2) as integer)), max(n - cast(substr(id, 2) as integer)) from items") == [(300, 2000, 2000)]  # fmt: skip
    assert widget.get_by_role("tab", name="Conflicts").text_content() == "Conflicts 0"
    assert part(widget, "alert").count() == 0
    assert page.errors == []
