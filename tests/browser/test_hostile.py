"""Values of a hostile back end, in every place of the widget that shows them: text and nothing else, pushed as it was."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest
from scenes import BREAKS, rows
from test_widget_in_lab import part, shown, until_text

from syncframe.backends import open as open_backend

MARKUP = [
    '<img src=x onerror="window.hostile=1">',
    "<script>window.hostile=1</script>",
    '"><svg onload=window.hostile=1>',
    "javascript:window.hostile=1",
    "<iframe srcdoc='<script>parent.hostile=1</script>'></iframe>",
    "<style>@import url(https://evil.example/a.css);*{display:none}</style>",
    "<a href='javascript:window.hostile=1' onmouseover=window.hostile=1>here</a>",
    "</script><script>window.hostile=1</script>",
    "</textarea></select></option><b>bold</b>",
    "&lt;img src=x onerror=window.hostile=1&gt; &#60;b&#62;",
    "`${window.hostile=1}`",
    "{{constructor.constructor('window.hostile=1')()}}",
    "__proto__",
    "constructor",
    "toString",
    "\u202egnp.<b>exe",
    "\x1b[31mred<u>",
    "background:url(https://evil.example/x);width:expression(window.hostile=1)",
    "![x](https://evil.example/x.png) [y](javascript:window.hostile=1) $\\href{javascript:window.hostile=1}{x}$ **b**",
    "data:text/html,<script>window.hostile=1</script>",
]
TABLES = [
    text for text in MARKUP if text.startswith(("<img", "<script", '">', "</textarea", "&lt;", "__", "con", "\u202e"))
]
# What no name in a database can be.
VALUES = [*MARKUP, "nothing\x00<i>after</i>"]
BIG = "<b>" * 350_000
FIRST = (
    BREAKS
    + """
url, markup, values, tables = {url!r}, {markup!r}, {values!r}, {tables!r}
back_end = Broken(open_backend(url))
ctx, other = sf.connect(back_end, store="mine.duckdb"), sf.connect(url, store="theirs.duckdb")
for one in (ctx, other):
    one["cells"].pull()
df = other["cells"].frame()
df.loc[values, "plain"] = ["<s>theirs</s>" + text for text in values]
other["cells"].stage(df)
other.push()
df = ctx["cells"].frame()
df.loc[values, "plain"] = values
for text in markup:
    df.loc[text, text] = text
ctx["cells"].stage(df)
words = ctx["words"]
words.pull()
words.stage(words.frame().assign(n=1))
for name in tables:
    ctx[name].pull()
    ctx[name].update(1, n=2)
ctx.push("cells")
ctx.push("words")
ctx["cells"].update("big", plain="<b>" * 350_000)
back_end.words = " ".join(values) + "\\ud800"
"""
)
# Nothing ran, nothing was made of it but text, and no object got a property by it.
CLEAN = """
() => {
  const made = 'img, script, svg, a, iframe, style, b, i, s, u, object, embed, link, form, base, meta';
  const places = [...document.querySelectorAll('.syncframe, .jp-RenderedHTML')];
  const nodes = places.flatMap((place) => [...place.querySelectorAll('*')]);
  const isBad = ({ name }) => /^(on|href|src|srcdoc|formaction|xlink)/.test(name);
  return {
    hostile: window.hostile ?? null,
    places: places.length > 0,
    nodes: nodes.filter((node) => node.matches(made)).map((node) => node.outerHTML.slice(0, 80)),
    attributes: nodes.filter((node) => [...node.attributes].some(isBad)).map((node) => node.outerHTML.slice(0, 80)),
    polluted: Object.keys(Object.prototype),
  };
}
"""


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.fixture
def hostile(tmp_path) -> Path:
    """Tables, columns, keys and words of rejections by each of the texts."""
    path = tmp_path / "hostile.db"
    columns = ", ".join(f"{quoted(name)} text" for name in MARKUP)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"create table cells (id text primary key, plain text, {columns})")
        connection.executemany("insert into cells (id, plain) values (?, 'base')", [(key,) for key in (*VALUES, "big")])
        connection.execute("create table words (id integer primary key, n integer)")
        for number, words in enumerate(MARKUP):
            connection.execute("insert into words values (?, 0)", [number])
            connection.execute(
                f"create trigger refuse_{number} before update on words when new.id = {number} "
                f"begin select raise(abort, {text_literal(words)}); end"
            )
        for name in TABLES:
            connection.execute(f"create table {quoted(name)} (id integer primary key, n integer)")
            connection.execute(f"insert into {quoted(name)} values (1, 1)")
        connection.commit()
    backend = open_backend(f"sqlite:///{path}")
    backend.track(["cells", "words", *TABLES])
    backend.close()
    return path


def is_clean(page) -> bool:
    found = page.page.evaluate(CLEAN)
    assert found == {"hostile": None, "places": True, "nodes": [], "attributes": [], "polluted": []}
    assert page.elsewhere() == [] and page.errors == []
    return True


def test_hostile_texts_are_text_in_every_view_and_are_pushed_as_they_were(notebook, hostile, pictures):
    first = FIRST.format(url=f"sqlite:///{hostile}", markup=MARKUP, values=VALUES, tables=TABLES)
    page = notebook(first, "ctx", "ctx.pending", "ctx.conflicts", "ctx.status()", "ctx.history")
    page.run(0)
    widget = shown(page.run(1))
    conflicts = widget.get_by_role("tab", name="Conflicts")
    detail, table = widget.locator(".sf-detail:visible"), widget.get_by_role("combobox", name="Table").first

    # Pending: by table, rejected with the back end's words, the whole of a long value, the names of tables.
    table.select_option("cells")
    until_text(widget.locator(".sf-row").first, "base")
    assert is_clean(page)
    table.select_option("words")
    until_text(widget.locator(".sf-row").first, "rejected")
    for number, words in enumerate(MARKUP[:3]):
        widget.locator(".sf-row").nth(number).click()
        until_text(detail, "Rejected by the back end")
        assert words in detail.text_content()
    pictures(page.page, "hostile-rejected.png")
    assert is_clean(page)
    options = table.locator("option").all_text_contents()
    table.select_option(MARKUP[0])
    until_text(widget.locator(".sf-row").first, "img src")
    table.select_option("cells")
    until_text(widget.locator(".sf-row").first, "base")
    widget.get_by_role("grid", name="Pending operations").press("End")
    until_text(detail, "big")
    detail.get_by_role("button", name="Show all of local plain").click()
    whole = until_text(widget.locator(".sf-whole"), "<b><b>")
    assert is_clean(page)
    widget.locator(".sf-details summary").first.click()
    part(widget, "history").locator("summary").click()
    until_text(part(widget, "history"), "img src")
    pictures(page.page, "hostile-tables-and-history.png")
    assert is_clean(page)

    # Conflicts: each is looked at; one is typed at, some are settled by their cells, the others all at once.
    conflicts.click()
    grid = widget.get_by_role("grid", name="Conflicts")
    until_text(detail, "<s>theirs</s>")
    grid.press("Home")
    seen = [until_text(detail.locator(".sf-name"), "cells")]
    for _ in VALUES[1:]:
        grid.press("ArrowDown")
        seen.append(until_other(detail.locator(".sf-name"), seen[-1]))
    pictures(page.page, "hostile-conflicts.png")
    for cell in (2, 3, 4, 5):
        page.run(cell)
    assert is_clean(page)
    for key in ("__proto__", "constructor"):
        grid.press("Home")
        while f"· {key}" not in detail.locator(".sf-name").text_content():
            before = detail.locator(".sf-name").text_content()
            grid.press("ArrowDown")
            until_other(detail.locator(".sf-name"), before)
        count = conflicts.text_content()
        part(widget, "choose mine plain").click()
        part(widget, "resolve").click()
        until_other(conflicts, count)
    grid.press("Home")
    typed = MARKUP[0] + '"\u202e`'
    count = conflicts.text_content()
    part(widget, "edit plain").click()
    part(widget, "value plain").fill(typed)
    part(widget, "take plain").click()
    part(widget, "value plain").wait_for(state="detached")
    assert is_clean(page)
    part(widget, "resolve").click()
    until_other(conflicts, count)
    part(widget, "all-mine").click()
    until_text(conflicts, "^\\D*0$", timeout_s=60)

    part(widget, "push").click()
    until_text(part(widget, "status"), "accepted", timeout_s=90)
    part(widget, "pull").click()
    alert = until_text(part(widget, "alert"), "RuntimeError")
    pictures(page.page, "hostile-alert.png")
    assert is_clean(page)

    assert {text for text in TABLES if text.isprintable()} <= set(options)
    assert len(whole) >= 1_000_000 and set(whole) == set("<b>")
    assert len(set(seen)) == len(VALUES)
    assert all(text in alert for text in MARKUP if text.isprintable())
    pushed = dict(rows(hostile, "select id, plain from cells"))
    other = {key: plain for key, plain in pushed.items() if plain != {"big": BIG}.get(key, key)}
    assert sorted(pushed) == sorted([*VALUES, "big"]) and list(other.values()) == [typed]
    for text in MARKUP:
        assert rows(hostile, f"select id from cells where {quoted(text)} = {text_literal(text)}") == [(text,)]
    for name in TABLES:
        assert rows(hostile, f"select n from {quoted(name)}") == [(2,)]


def until_other(locator, text: str) -> str:
    """Wait until a part of the page has other words than these; return them."""
    return until_text(locator, f"^(?!{re.escape(text)}$)(.|\n)+")
