"""Fixtures of the interop tests: the packages of Node.js, and one process with the back end for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import node


@pytest.fixture(scope="package")
def packages() -> Path:
    """Where Node's packages are.  Lacking them is a failure where CI is set; elsewhere the tests are skipped."""
    if words := node.lacking():
        _lacking(words)
    try:
        return node.installed()
    except RuntimeError as error:
        return _lacking(str(error))


@pytest.fixture(scope="package")
def service(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[node.NodeService]:
    running = node.NodeService(packages, tmp_path_factory.mktemp("node"))
    yield running
    running.close()


@pytest.fixture(autouse=True)
def shown_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the service printed while a test ran is shown where the test fails."""
    if "service" not in request.fixturenames:
        yield
        return
    log = request.getfixturevalue("service").log
    start = log.stat().st_size
    yield
    with log.open() as file:
        file.seek(start)
        print(file.read()[-4_000:])


def _lacking(words: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)
