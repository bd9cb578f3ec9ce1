"""Fixtures of all tests."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stories import Database, Line, synced, todo_database

import syncframe as sf


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A SQLite file with two tracked tables."""
    return todo_database(tmp_path)


@pytest.fixture
def line(database: Database) -> Line:
    """The same at the end of a line that may fail."""
    return Line(database.url)


@pytest.fixture
def context(line: Line) -> sf.SyncContext:
    """A store in memory that was pulled over that line."""
    return synced(line)


def pytest_configure() -> None:
    """Started in the background, a process ignores the stop button, and so would all that the tests start."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Acceptance rows at their full size run only when asked for: `pytest -m full`."""
    if "full" in (config.option.markexpr or ""):
        return
    left = [item for item in items if "full" not in item.keywords]
    config.hook.pytest_deselected(items=[item for item in items if "full" in item.keywords])
    items[:] = left


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """A worker can send no lone surrogate, and some tests log one."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _sendable(item) for key, item in value.items()}
    return type(value)(map(_sendable, value)) if type(value) in (list, tuple) else value
