"""A real JupyterLab with a real Chromium: a notebook is written, opened, run cell by cell, and looked at.

JupyterLab, and classic Notebook 7 in the same way, is driven by its commands (`expose_app_in_browser`), for its page
shows "idle" before a kernel is attached.  Everything it keeps goes into a folder of the test run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, Locator, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_S = 60.0
CELL_S = 60.0
WIDTH, HEIGHT = 1280, 900
PLACES = (
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
    "IPYTHONDIR",
)
QUIET = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}

# What keeps the page: a page of JupyterLab's is loaded in four times the work of a notebook opened in it.
_LEAVE = """
async () => {
  await window.panel.sessionContext.shutdown();
  await window.panel.context.save();
  window.panel.dispose();
  delete window.panel;
  await window.jupyterapp.commands.execute('application:close-all');
  await new Promise((done) => setTimeout(done, 300));  // what fails behind it is no other notebook's
  const left = '.syncframe, .jp-Dialog, .jp-Notebook';
  return document.querySelector(left) === null && window.hostile === undefined;
}
"""
_OPEN = """
async (path) => {
  const app = window.jupyterapp;
  await app.started; await app.restored; await app.serviceManager.ready;
  const panel = await app.commands.execute('docmanager:open', {path});
  await panel.context.ready; await panel.sessionContext.ready;
  window.panel = panel;
  app.shell.activateById(panel.id);
  app.shell.collapseLeft();
}
"""
# In classic Notebook 7 the page has its shell before the notebook is in it.
_ATTACH = """
async (limit) => {
  const app = window.jupyterapp, began = performance.now();
  await app.started;
  while (!app.shell.currentWidget?.sessionContext) {
    if (performance.now() - began > limit) throw new Error('no notebook came into the page');
    await new Promise((done) => setTimeout(done, 20));
  }
  window.panel = app.shell.currentWidget;
  await window.panel.context.ready; await window.panel.sessionContext.ready;
}
"""
_IDLE = """
async (limit) => {
  const session = window.panel.sessionContext, began = performance.now();
  await session.session.kernel.info;
  while (session.kernelDisplayStatus !== 'idle') {
    if (performance.now() - began > limit) throw new Error('the kernel is ' + session.kernelDisplayStatus);
    await new Promise((done) => setTimeout(done, 20));
  }
}
"""
_RUN = """
async (index) => {
  window.panel.content.activeCellIndex = index;
  window.panel.content.scrollToItem(index);
  await window.jupyterapp.commands.execute('notebook:run-cell');
}
"""
_OUTPUTS = """
(index) => {
  const texts = [], outputs = window.panel.content.widgets[index].model.outputs;
  for (let at = 0; at < outputs.length; at++) {
    const output = outputs.get(at).toJSON();
    texts.push(output.text ?? (output.data ?? {})['text/plain'] ?? (output.traceback ?? []).join('\\n'));
  }
  return texts.map((text) => Array.isArray(text) ? text.join('') : text).join('\\n');
}
"""


def chromium() -> str | None:
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


class Server:
    """A server in a process of its own; made when it answers at `health`."""

    def __init__(self, name: str, command: Sequence[str], health: str, log: Path, **how: Any) -> None:
        self.log = log.open("w")
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True, **how
        )
        try:
            self._wait(name, health)
        except BaseException:
            self.close()
            raise

    def _wait(self, name: str, health: str) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.process.poll() is None:
            with (
                contextlib.suppress(urllib.error.URLError, ConnectionError),
                urllib.request.urlopen(health, timeout=5) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"{name} did not start:\n" + Path(self.log.name).read_text()[-4_000:])

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Lab(Server):
    """One server over one folder: JupyterLab, or with `app="notebook"` classic Notebook 7."""

    def __init__(self, folder: Path, *, app: str = "lab") -> None:
        self.folder, self.app = folder / "work", app
        self.pages: list[Page] = []  # that are left as they came, and may be used again
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        places = {name: str(folder / name.lower()) for name in PLACES}
        for plugin, values in QUIET.items() if app == "lab" else ():
            home, name = plugin.split(":")
            place = folder / "jupyterlab_settings_dir" / home
            place.mkdir(parents=True)
            (place / f"{name}.jupyterlab-settings").write_text(json.dumps(values))
        command = [
            sys.executable, "-m", "jupyter", app, "--no-browser", "--allow-root", "--ip=127.0.0.1",
            f"--port={self.port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.folder}",
            "--IdentityProvider.token=", "--LabApp.news_url=None",
            f"--{'LabApp' if app == 'lab' else 'JupyterNotebookApp'}.expose_app_in_browser=True",
        ]  # fmt: skip
        super().__init__(
            f"jupyter {app}", command, f"{self.url}/api/status", folder / "jupyter.log", env=os.environ | places
        )

    def write(self, name: str, cells: Sequence[str]) -> Path:
        """A notebook of these code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        return path


class Notebook:
    """One notebook in one page."""

    def __init__(self, lab: Lab, page: Page, path: str, *, kernel: bool = True) -> None:
        self.lab, self.page, self.path = lab, page, path
        self.errors: list[str] = []
        self.asked: list[str] = []
        self._is_first = page.url == "about:blank"
        self._heard = {
            "pageerror": self._hear_error,
            "request": lambda request: self.asked.append(request.url),
        }
        for event, hear in self._heard.items():
            page.on(event, hear)  # type: ignore[call-overload]
        if self._is_first:
            page.goto(f"{lab.url}/{self._place()}", wait_until="domcontentloaded")
            page.wait_for_function("() => window.jupyterapp", timeout=START_S * 1000)
        if lab.app == "lab":
            page.evaluate(_OPEN, path)
        else:
            page.evaluate(_ATTACH, START_S * 1000)
        if kernel:
            self.idle()

    def _hear_error(self, error: object) -> None:
        # JupyterLab's own: the toolbar of a notebook that was closed asks its disposed timer to measure it once more.
        if self._is_first or "null (reading 'promise')" not in str(error):
            self.errors.append(str(error))

    def _place(self) -> str:
        if self.lab.app != "lab":
            return f"notebooks/{self.path}"
        space = self.path.replace("/", "-").removesuffix(".ipynb")
        return f"lab/workspaces/{space}-{time.monotonic_ns()}"

    def idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.evaluate(_IDLE, CELL_S * 1000)

    def run(self, index: int) -> Locator:
        """Run a cell to its end; return its outputs."""
        self.page.evaluate(_RUN, index)
        return self.outputs(index)

    def begin(self, index: int) -> None:
        """Run a cell and do not wait for its end."""
        self.page.evaluate(f"(index) => {{ ({_RUN})(index); }}", index)

    def ended(self, index: int) -> None:
        """Wait for the end of a cell; the kernel's status says nothing of it while a widget asks on a subshell."""
        prompt = "(index) => /\\d/.test(window.panel.content.widgets[index].promptNode.textContent)"
        self.page.wait_for_function(prompt, arg=index, timeout=CELL_S * 1000)

    def restart(self) -> None:
        """Restart the kernel, as the menu does, without asking."""
        self.page.evaluate("async () => { await window.panel.sessionContext.restartKernel(); }")
        self.idle()

    def interrupt(self) -> None:
        """What the stop button does."""
        self.page.evaluate("async () => { await window.panel.sessionContext.session.kernel.interrupt(); }")

    def outputs(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-Cell-outputArea")

    def text(self, index: int) -> str:
        """The outputs of a cell as plain text, as they would be saved."""
        found: str = self.page.evaluate(_OUTPUTS, index)
        return found

    def save(self) -> str:
        """Save it; return what is in the file."""
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
        return (self.lab.folder / self.path).read_text()

    def theme(self, name: str) -> None:
        self.page.evaluate(
            "async (theme) => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme}); }", name
        )
        self.page.wait_for_function(
            "(light) => document.body.dataset.jpThemeLight === light", arg="false" if "Dark" in name else "true"
        )

    def close(self) -> None:
        """End its kernel, and the page."""
        with contextlib.suppress(Exception):
            self.page.evaluate("async () => { await window.panel.sessionContext.shutdown(); }")
        self.page.close()

    def leave(self) -> bool:
        """End its kernel and close it; whether the page is as it was before."""
        with contextlib.suppress(Exception):
            is_left: bool = self.page.evaluate(_LEAVE)
            return is_left and not self.errors
        return False

    def hear_no_more(self) -> None:
        for event, hear in self._heard.items():
            self.page.remove_listener(event, hear)

    def elsewhere(self) -> list[str]:
        """The requests that left for another place than the server."""
        return [url for url in self.asked if not url.startswith((self.lab.url, "blob:", "data:"))]


@contextlib.contextmanager
def opened(lab: Lab, browser: Browser, name: str, cells: Sequence[str], **size: int) -> Iterator[Notebook]:
    """A notebook of these cells, in a page that no other notebook is in: one that was left clean, or a new one."""
    lab.write(name, cells)
    viewport = {"width": WIDTH, "height": HEIGHT, **size}
    page = lab.pages.pop() if lab.pages else _new_page(browser)
    page.set_viewport_size(viewport)  # type: ignore[arg-type]
    notebook, is_clean = Notebook(lab, page, name), False
    try:
        yield notebook
        is_clean = lab.app == "lab" and not page.is_closed() and notebook.leave()
    finally:
        for other in page.context.pages:
            if other is not page:
                other.close()
        if is_clean:
            notebook.hear_no_more()
            lab.pages.append(page)
        else:
            notebook.close()
            page.context.close()


def _new_page(browser: Browser) -> Page:
    context = browser.new_context()
    context.set_default_timeout(15_000)
    return context.new_page()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
