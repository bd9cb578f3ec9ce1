"""Fixtures of the browser tests: one JupyterLab and one Chromium for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="package")
def browser() -> Iterator[object]:
    """Debian's Chromium.  Missing it is a failure where CI is set; elsewhere the tests are skipped with a line."""
    lab = _needed("lab")
    if (path := lab.chromium()) is None:
        _lacking("no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, headless=True, args=lab.FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    running = _needed("lab").Lab(tmp_path_factory.mktemp("jupyter"))
    yield running
    running.close()


@pytest.fixture
def notebook(lab, browser, request) -> Iterator[Callable[..., object]]:
    """Opens a notebook of the cells given: `notebook("import syncframe as sf", "ctx")`."""
    from lab import opened

    count = 0
    with ExitStack() as stack:

        def open_one(*cells: str, name: str = "", **size: int) -> object:
            nonlocal count
            count += 1
            folder = request.node.name.split("[")[0]
            path = f"{folder}/{name or f'notebook-{count}'}.ipynb"
            return stack.enter_context(opened(lab, browser, path, cells, **size))

        yield open_one


@dataclass(frozen=True)
class Pictures:
    """Keeps what the tests saw, where SYNCFRAME_PICTURES names a folder for it; else none is taken."""

    folder: Path | None

    def __call__(self, what: Page | Locator, name: str) -> None:
        if self.folder:
            what.screenshot(path=self.folder / name)


@pytest.fixture(scope="package")
def pictures() -> Pictures:
    folder = Path(named) if (named := os.environ.get("SYNCFRAME_PICTURES")) else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    return Pictures(folder)


@pytest.fixture(scope="package")
def figures(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Notes a figure beside the pictures."""
    folder = pictures.folder or tmp_path_factory.mktemp("figures")

    def note(words: str) -> None:
        with (folder / "figures.txt").open("a") as file:
            print(words, file=file)

    return note


def _needed(module: str) -> object:
    try:
        return __import__(module)
    except ModuleNotFoundError as error:
        return _lacking(f"{error.name} is not installed")


def _lacking(words: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)
