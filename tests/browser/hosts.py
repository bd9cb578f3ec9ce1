"""marimo, as an editor and as an app: a notebook is written, opened, run cell by cell, and looked at."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab import HEIGHT, WIDTH, Server, free_port
from playwright.sync_api import Browser, Locator, Page

# Cells run when they are told to, and with them what they need: so one that edits does so when the test says.
SETTINGS = """
[runtime]
auto_instantiate = false
on_cell_change = "lazy"
auto_reload = "off"
[save]
autosave = "off"
"""


class Marimo(Server):
    """One server over one notebook: `edit` shows its cells, `run` what they show."""

    def __init__(self, folder: Path, cells: Sequence[str], *, mode: str = "edit") -> None:
        settings = folder / "config" / "marimo" / "marimo.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(SETTINGS)
        notebook = folder / "notebook.py"
        notebook.write_text(_script(cells))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "marimo", mode, str(notebook), "--headless", "--no-token", f"--port={port}"]
        places = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "CACHE", "STATE", "DATA")}
        environment = os.environ | places | {"MARIMO_SKIP_UPDATE_CHECK": "1"}
        super().__init__("marimo", command, f"{self.url}/health", folder / "marimo.log", cwd=folder, env=environment)


class MarimoPage:
    """The notebook of a server in one page."""

    def __init__(self, server: Marimo, page: Page) -> None:
        self.server, self.page = server, page
        self.errors: list[str] = []
        self.asked: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(server.url, wait_until="domcontentloaded")

    def cell(self, index: int) -> Locator:
        """A cell, with its outputs."""
        return self.page.locator("[data-cell-id]").nth(index)

    def run(self, index: int) -> Locator:
        """Have a cell run, and what it needs."""
        cell = self.cell(index)
        # By an event, for the bar at the top may lie over the button.
        cell.get_by_test_id("run-button").first.dispatch_event("click")
        return cell

    def elsewhere(self) -> list[str]:
        """The requests that left for another place than the server."""
        return [url for url in self.asked if not url.startswith((self.server.url, "blob:", "data:"))]


@contextlib.contextmanager
def marimo(folder: Path, browser: Browser, cells: Sequence[str], *, mode: str = "edit") -> Iterator[MarimoPage]:
    """A notebook of these cells in marimo, in a page of its own."""
    folder.mkdir()
    server = Marimo(folder, cells, mode=mode)
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(30_000)
    try:
        yield MarimoPage(server, context.new_page())
    finally:
        context.close()
        server.close()


def _script(cells: Sequence[str]) -> str:
    parts = [f"@app.cell\ndef _():\n{textwrap.indent(text.strip(), '    ')}\n    return\n" for text in cells]
    return "\n\n".join(["import marimo\n\napp = marimo.App()", *parts])
