"""Whole walks of people in JupyterLab: the tutorial's, two notebooks on one server, the stop button, a saved notebook."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from scenes import database, rows
from test_widget_in_lab import part, shown, until_text

import syncframe as sf

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NOWHERE = "http://127.0.0.1:9"
TOKEN = "s3cr3t-t0ken-of-the-test"


@pytest.fixture
def shop(tmp_path):
    return database(tmp_path / "shop.db")


def test_the_walk_of_the_tutorial(notebook, shop, pictures):
    """Pull, wrong URL, edit, restart the kernel, still pending, right URL, push; then sqlite3 and curl are asked."""
    with sf.serve(f"sqlite:///{shop}") as server:
        page = notebook(
            f"import syncframe as sf\nctx = sf.connect({server.url!r}, store='walk.duckdb', timeout_s=2)\nctx['items'].pull()",
            f"ctx = sf.connect({NOWHERE!r}, store='walk.duckdb', timeout_s=1)\nitems = ctx['items']",
            "df = items.frame()\ndf.loc['apple', 'price'] = 1.75\ndf.loc['lime'] = ['Lime', 0.8, 5, None]\ndf = df.drop('kiwi')\nitems.stage(df)",
            "ctx",
            "ctx.push()",
            f"import syncframe as sf\nctx = sf.connect({server.url!r}, store='walk.duckdb')\nctx",
        )
        page.run(0)
        page.run(1)
        page.run(2)
        widget = shown(page.run(3))
        until_text(widget.get_by_role("tab", name="Pending"), "3")
        pictures(page.page, "walk-1-edited.png")
        part(widget, "push").click()
        alert = until_text(part(widget, "alert"), "TransientError")
        queued = until_text(part(widget, "status"), "queued")
        pictures(page.page, "walk-2-wrong-url.png")
        page.run(4)
        failed = page.text(4)
        page.restart()
        widget = shown(page.run(5))
        until_text(widget.get_by_role("tab", name="Pending"), "3")
        pictures(page.page, "walk-3-after-restart.png")
        part(widget, "push").click()
        words = until_text(part(widget, "status"), "accepted")
        pictures(page.page, "walk-4-pushed.png")
        with urllib.request.urlopen(f"{server.url}/tables/items/lime", timeout=10) as answer:
            by_http = json.load(answer)
        by_curl = subprocess.run(["curl", "-s", f"{server.url}/tables/items/kiwi", "-o", "-", "-w", "%{http_code}"], capture_output=True, text=True, timeout=20, check=True)  # fmt: skip

    assert "no connection" in alert and "3 operations still queued" in queued
    assert "TransientError" in failed
    assert "3 accepted, 0 conflicts, 0 rejected" in words
    assert rows(shop, "select id, price from items order by id") == [("apple", 1.75), ("fig", 3.0), ("lime", 0.8), ("pear", 2.0), ("plum", 2.5)]  # fmt: skip
    assert (by_http["name"], by_http["price"], by_http["stock"]) == ("Lime", 0.8, 5)
    assert by_curl.stdout.endswith("410")
    assert page.errors == []


@pytest.mark.full
def test_two_notebooks_edit_one_row_a_click_settles_the_conflict_and_both_end_equal(notebook, shop, pictures):
    with sf.serve(f"sqlite:///{shop}") as server:
        cells = (
            f"import syncframe as sf\nctx = sf.connect({server.url!r}, store={{store!r}})\nitems = ctx['items']\nitems.pull(query_id='all')",
            "{edit}",
            "ctx",
            "print(items.frame().reset_index().to_json(orient='values'))",
        )
        mine = notebook(
            *(c.format(store="mine.duckdb", edit="items.update('apple', price=1.75, note='ripe')") for c in cells),
            name="mine",
        )
        theirs = notebook(
            *(c.format(store="theirs.duckdb", edit="items.update('apple', price=1.6, stock=9)") for c in cells),
            name="theirs",
        )
        for page in (mine, theirs):
            page.run(0)
            page.run(1)
        other = shown(theirs.run(2))
        part(other, "push").click()
        until_text(part(other, "status"), "1 accepted")

        widget = shown(mine.run(2))
        part(widget, "push").click()
        words = until_text(part(widget, "status"), "1 conflict")
        widget.get_by_role("tab", name="Conflicts").click()
        conflict = until_text(widget, "1.6")
        pictures(mine.page, "conflict.png")
        widget.get_by_role("button", name="Keep mine", exact=False).first.click()
        until_text(widget.get_by_role("tab", name="Conflicts"), "^\\D*0$")
        part(widget, "push").click()
        until_text(part(widget, "status"), "1 accepted")
        part(widget, "pull").click()
        until_text(part(widget, "status"), "(?i)pull|new|changed")
        part(other, "pull").click()
        until_text(part(other, "status"), "(?i)changed|updated")
        ends = []
        for page in (mine, theirs):
            page.run(3)
            ends.append(json.loads(page.text(3)))

    assert "0 accepted, 1 conflict" in words
    assert "1.75" in conflict and "1.5" in conflict
    assert ends[0] == ends[1]
    assert ends[0][0] == ["apple", "Apple", 1.75, 9, "ripe"]
    assert rows(shop, "select price, stock, note from items where id = 'apple'") == [(1.75, 9, "ripe")]


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=pytest.mark.full) for what in ("pull", "push", "stage")]
)  # test_stop.py stops each call; here it is the button of a notebook
def test_after_the_stop_button_the_next_call_goes_on_and_nothing_is_lost(notebook, tmp_path, what):
    n = 60_000
    path = database(
        tmp_path / "many.db",
        "create table items (id integer primary key, n integer, text text);"
        f"with recursive c(i) as (select 1 union all select i + 1 from c where i < {n}) "
        "insert into items select i, i, 'text ' || i from c;",
    )
    page = notebook(
        f"import syncframe as sf\nctx = sf.connect('sqlite:///{path}', store='stop.duckdb')\nitems = ctx['items']",
        "items.pull(query_id='all', page_rows=500)",
        "df = items.frame()\ndf['n'] += 1",
        "for _ in range(1000):\n    items.stage(df)\n    ctx.undo()\n    df = items.frame()\n    df['n'] += 1" if what == "stage" else "items.stage(df)",
        "ctx.push()",
        "if len(ctx.pending): items.stage(df)\nitems.stage(df)\nctx.push()\nprint(items.pull(query_id='all').rows, len(items), len(ctx.pending), int((items.frame()['n'] == items.frame().index + 1).sum()))",
    )  # fmt: skip
    stopped_at = {"pull": 1, "push": 4, "stage": 3}[what]
    for cell in range(stopped_at):
        page.run(cell)

    page.begin(stopped_at)
    page.page.wait_for_timeout(700)
    page.interrupt()
    page.ended(stopped_at)
    stopped = page.text(stopped_at)
    for cell in range(stopped_at, 6):
        if cell != 3 or what != "stage":
            page.run(cell)

    assert "KeyboardInterrupt" in stopped
    assert page.text(5).split()[-3:] == [str(n), "0", str(n)]


def test_a_saved_notebook_shows_a_summary_without_a_kernel_and_holds_no_secret_and_no_row(
    notebook, lab, browser, shop, pictures
):
    with sf.serve(f"sqlite:///{shop}", tokens=[TOKEN]) as server:
        page = notebook(
            "import os, syncframe as sf\n"
            f"ctx = sf.connect({server.url!r}, store='saved.duckdb', token=lambda: open('token').read())\n"
            "items = ctx['items']",
            "items.pull()\nitems.update('apple', note='only in the widget')",
            "ctx",
        )
        (lab.folder / page.path).with_name("token").write_text(TOKEN)
        page.run(0)
        page.run(1)
        widget = shown(page.run(2))
        until_text(widget.locator(".sf-row").first, "only in the widget")
        summary_while_live = page.outputs(2).locator("[data-syncframe-static]")
        is_hidden = not summary_while_live.is_visible()
        text = page.save()
        copy = Path(page.path).with_name("saved.ipynb")
        shutil.copy(lab.folder / page.path, lab.folder / copy)
        page.close()

    from lab import Notebook

    opened = browser.new_context(viewport={"width": 1280, "height": 700}).new_page()
    try:
        reader = Notebook(lab, opened, str(copy), kernel=False)
        summary = until_text(reader.outputs(2), "items")
        visible = reader.outputs(2).locator("[data-syncframe-static]").is_visible()
        opened.wait_for_timeout(500)
        pictures(opened, "saved-without-kernel.png")
    finally:
        opened.context.close()
    html, _ = HTMLExporter().from_notebook_node(nbformat.reads(text, as_version=4))

    assert is_hidden and visible
    assert "items" in summary and "1" in summary
    assert "only in the widget" not in text.replace("note='only in the widget'", "")
    assert TOKEN not in text and TOKEN not in html
    assert "items" in html and "data-syncframe-static" in html
    assert "Ripe" not in text and "Kiwi" not in text


@pytest.mark.full
def test_the_quickstart_by_hand(notebook, lab, pictures):
    """Cell by cell as a reader runs it, with the conflict settled by a click."""
    given = nbformat.read(NOTEBOOKS / "01_quickstart.ipynb", as_version=4)
    cells = [cell.source for cell in given.cells if cell.cell_type == "code"]
    page = notebook(*cells)

    for at in range(11):
        page.run(at)
    widget = shown(page.outputs(10))
    widget.get_by_role("tab", name="Conflicts").click()
    until_text(widget, "gate changed")
    pictures(page.page, "quickstart-conflict.png")
    widget.get_by_role("button", name="Keep mine", exact=False).first.click()
    until_text(widget.get_by_role("tab", name="Conflicts"), "^\\D*0$")
    page.run(11)

    assert next(line for line in page.text(11).splitlines() if line.startswith("flights ")).split()[:5] == [
        "flights",
        "27,004",
        "0",
        "0",
        "0",
    ]
    assert page.errors == []
