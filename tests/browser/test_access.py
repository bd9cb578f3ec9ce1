"""Every view of the widget by axe-core, in light and dark, and in a narrow page: for everyone, at every size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scenes import database
from test_widget_in_lab import part, shown, until_text

ROWS = ", ".join(f"('k{i:02d}', 'Item {i}', {i}.5, {i}, 1, 'a note')" for i in range(40))
SHOP = f"""
create table items (id text primary key, name text, price double, stock integer not null, fresh boolean, note text,
    check (price < 1000));
insert into items values {ROWS};
"""
# Both sides change rows in each way there is; one is rejected; the back end is out of reach while a file says so.
FIRST = """
from pathlib import Path
import syncframe as sf
from syncframe.backends import open as open_backend

class Cable:
    def __init__(self, inner):
        self.inner = inner
    def __getattr__(self, name):
        if name in ("pull", "push") and Path("unplugged").exists():
            raise sf.TransientError("no connection to the shop", hint="is the server running?")
        return getattr(self.inner, name)

url = {url!r}
ctx, other = sf.connect(Cable(open_backend(url)), store="mine.duckdb"), sf.connect(url, store="theirs.duckdb")
items, theirs = ctx["items"], other["items"]
for table in (items, theirs):
    table.pull(query_id="all")
theirs.update("k01", note="theirs " * 40, stock=7, price=8.25)
theirs.update("k02", note="seen by them")
theirs.delete("k03")
theirs.insert({{"id": "new", "name": "Theirs", "stock": 1}})
other.push()
items.update("k00", price=2000)
items.update("k01", note="mine", stock=8, name="Renamed here")
items.delete("k02")
items.update("k03", note="and I changed it")
items.insert({{"id": "new", "name": "Mine", "stock": 2}})
ctx.push()
df = items.frame()
df.loc["k05":"k35", "note"] = "a long note of many words that does not fit into any line of a table " * 3
df.loc["k04", ["name", "note", "fresh"]] = [None, "", False]
df.loc["k40"] = df.loc["k39"]
items.stage(df.drop("k38"))
"""
LAYOUT = """
(root) => {
  const found = [], box = root.getBoundingClientRect();
  const say = (words, ...nodes) => found.push([words, ...nodes.map((node) =>
    `<${node.tagName} ${node.dataset.syncframe ?? node.className}> ${node.textContent.slice(0, 30)}`)].join(': '));
  const isSeen = (node) => node.checkVisibility() && node.getClientRects().length && !node.closest('.sf-hidden');
  const isScroller = (node) => /auto|scroll/.test(getComputedStyle(node).overflowX);
  // What of a node is in sight: its place within the parts of the widget that scroll.
  const sight = (node) => {
    let { left, right, top, bottom } = node.getBoundingClientRect();
    for (let at = node.parentElement; at !== root.parentElement; at = at.parentElement) {
      if (!isScroller(at)) continue;
      const clip = at.getBoundingClientRect();
      [left, right] = [Math.max(left, clip.left), Math.min(right, clip.right)];
      [top, bottom] = [Math.max(top, clip.top), Math.min(bottom, clip.bottom)];
    }
    return { left, right, top, bottom, isThere: right - left > 1 && bottom - top > 1 };
  };
  const meet = (one, two) => Math.min(one.right, two.right) - Math.max(one.left, two.left) > 1.5
    && Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top) > 1.5;
  const pairs = (nodes, words) => {
    const places = nodes.map((node) => [node, sight(node)]).filter(([, place]) => place.isThere);
    places.forEach(([one, first], at) => places.slice(at + 1).forEach(([two, second]) => {
      if (meet(first, second) && !one.contains(two) && !two.contains(one)) say(words, one, two);
    }));
  };
  for (const node of [root, ...root.querySelectorAll('.sf-list, .sf-detail')])
    if (isSeen(node) && node.scrollWidth > node.clientWidth + 1) say('scrolls sideways', node);
  for (const node of root.querySelectorAll('*')) {
    const place = sight(node);
    if (isSeen(node) && place.isThere && (place.left < box.left - 1 || place.right > box.right + 1)) say('sticks out', node);
  }
  const controls = [...root.querySelectorAll('button, select, input, textarea, summary')].filter(isSeen);
  for (const node of controls)
    if (node.matches('button') && node.scrollWidth > node.clientWidth + 1) say('is cut off', node);
  pairs(controls, 'overlap');
  for (const row of root.querySelectorAll('.sf-row')) pairs([...row.children].filter(isSeen), 'overlap');
  return found;
}
"""


@pytest.fixture(scope="module")
def page(lab, browser, tmp_path_factory) -> Iterator[object]:
    from lab import opened

    path = database(tmp_path_factory.mktemp("access") / "shop.db", SHOP)
    with opened(lab, browser, "access/access.ipynb", [FIRST.format(url=f"sqlite:///{path}"), "ctx"]) as page:
        page.run(0)
        shown(page.run(1))
        yield page


@pytest.fixture
def widget(page):
    page.page.set_viewport_size({"width": 1280, "height": 900})
    return shown(page.outputs(1))


def views(page, widget) -> Iterator[str]:
    """Goes from view to view, and names each."""
    pending, conflicts = (widget.get_by_role("tab", name=name) for name in ("Pending", "Conflicts"))
    pending_rows, detail = widget.get_by_role("grid", name="Pending operations"), widget.locator(".sf-detail:visible")
    pending.click()
    kinds = widget.get_by_role("combobox", name="Kind").first
    kinds.select_option("")
    until_text(pending_rows.locator(".sf-row").first, "k00")
    yield "pending list"
    pending_rows.locator(".sf-row", has_text="k04").click()
    until_text(detail, "empty text")
    yield "pending detail"
    kinds.select_option("rejected")
    widget.get_by_text("1 shown", exact=True).first.wait_for()  # else a row of the list before is clicked
    pending_rows.locator(".sf-row", has_text="k00").click()
    until_text(detail, "Rejected by the back end")
    yield "rejected detail"
    part(widget, "edit price").click()
    part(widget, "value price").fill("12a")
    part(widget, "value price").press("Enter")
    until_text(widget.locator(".sf-refusal:visible"), "12a")
    yield "a wrong value refused"
    part(widget, "value price").press("Escape")
    kinds.select_option("")
    pending_rows.locator(".sf-row", has_text="k05").wait_for()
    part(widget, "discard-all").click()
    until_text(widget.get_by_role("alertdialog"), "Discard")
    yield "question"
    part(widget, "no").click()

    conflicts.click()
    for key, words in {"k01": "not decided", "k02": "", "k03": "", "new": ""}.items():
        widget.get_by_role("grid", name="Conflicts").locator(".sf-row", has_text=key).click()
        until_text(detail, f"{key}(.|\n)*{words}")
        yield f"conflict {key}"
    widget.get_by_role("grid", name="Conflicts").locator(".sf-row", has_text="k01").click()
    for column in ("note", "stock"):
        part(widget, f"edit {column}").click()
        part(widget, f"value {column}").wait_for()
    yield "editors open"
    for column in ("note", "stock"):
        part(widget, f"value {column}").press("Escape")
    widget.locator(".sf-details summary").first.click()
    history = part(widget, "history")
    history.locator("summary").click()
    until_text(history, "push")
    yield "tables and history opened"
    widget.locator(".sf-details summary").first.click()
    history.locator("summary").click()
    with unplugged(page):
        part(widget, "pull").click()
        until_text(part(widget, "alert"), "no connection")
        yield "offline"
    part(widget, "dismiss").click()


@contextmanager
def unplugged(page) -> Iterator[None]:
    file: Path = (page.lab.folder / page.path).with_name("unplugged")
    file.touch()
    try:
        yield
    finally:
        file.unlink()


def audit(page) -> list[tuple[str, str]]:
    """What axe-core finds in the widget: how bad it is, and what it is of which element."""
    from axe_playwright_python.sync_playwright import Axe

    # JupyterLab's body has no height and clips what is in it, so axe-core would take all for hidden.
    page.page.evaluate("() => document.body.style.setProperty('overflow', 'visible', 'important')")
    found = Axe().run(page.page, context=".syncframe", options={"resultTypes": ["violations", "passes"]}).response
    looked_at = {rule["id"]: len(rule["nodes"]) for rule in [*found["passes"], *found["violations"]]}
    assert looked_at["color-contrast"] > 10, looked_at
    return [
        (node["impact"] or rule["impact"], f"{rule['id']} {node['target'][-1]} {node['failureSummary'][:200]!r}")
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("theme", ["Light", pytest.param("Dark", marks=pytest.mark.full)])
def test_axe_finds_nothing_serious_in_any_view(page, widget, theme, figures, pictures):
    page.theme(f"JupyterLab {theme}")
    grave, count = [], 0
    for view in views(page, widget):
        count += 1
        pictures(widget, f"access-{theme.lower()}-{view.replace(' ', '-')}.png")
        for impact, words in audit(page):
            if impact in ("serious", "critical"):
                grave.append(f"{view}: {impact}: {words}")
            else:
                figures(f"row 9: axe, {theme.lower()}, {view}: {impact}: {words}")

    figures(f"row 9: axe-core, {theme.lower()}: {len(grave)} serious findings in {count} views")
    assert grave == []
    assert page.errors == []


# A page of 640 pixels is what 200% leaves of 1280.
SIZES = {"600 px": (600, 900), "200%": (640, 450)}


def test_in_a_narrow_page_nothing_is_cut_off_and_nothing_overlaps(page, widget, pictures):
    page.theme("JupyterLab Light")
    found = []
    for view in views(page, widget):
        for name, (width, height) in SIZES.items():
            page.page.set_viewport_size({"width": width, "height": height})
            widget.page.wait_for_timeout(100)
            pictures(widget, f"narrow-{width}-{view.replace(' ', '-')}.png")
            found += [f"{name}, {view}: {words}" for words in widget.evaluate(LAYOUT)]

    assert found == []


def test_the_theme_follows_jupyterlab_s(page, widget):
    themes = []
    for theme in ("Dark", "Light"):
        page.theme(f"JupyterLab {theme}")
        page.page.wait_for_function("([view, name]) => view.dataset.theme === name", arg=[widget.element_handle(), theme.lower()])  # fmt: skip
        themes.append(widget.evaluate("(view) => getComputedStyle(view).color"))

    assert themes[0] != themes[1]
