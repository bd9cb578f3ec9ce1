"""Fixtures of all tests."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from postgres import new_database, postgres, shared_database  # noqa: F401
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


# The files that take longest, longest first: one that began as the last would keep one worker, and the others idle.
# Those of the browser are together, so that a worker starts JupyterLab once.
LONG = [
    "interop/test_node_contract.py", "test_query_postgres.py", "test_server_access.py", "test_postgres.py",
    "browser/test_conflicts_in_lab.py", "browser/test_widget_in_lab.py", "browser/test_hosts.py",
    "browser/test_access.py", "browser/test_kernels.py", "browser/test_walks.py", "browser/test_hostile.py",
    "test_model.py", "test_backends.py", "test_datasync.py", "test_crash.py", "test_stop.py", "test_plan.py",
    "test_laws.py", "test_push.py", "test_backends_http.py", "test_staging.py", "test_resolve.py", "test_journeys.py",
    "test_displays.py", "test_store.py", "test_server.py", "test_cli.py", "test_processes.py", "test_widget.py",
    "test_notebooks.py", "test_merge_laws.py", "test_pages.py", "test_editor.py", "test_demo.py", "test_progress.py",
    "test_types.py",
]  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Started in the background, a process ignores the stop button, and so would all that the tests start."""
    # By itself it starts the files of most tests first, which are the quick ones.
    config.option.loadscopereorder = False
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Each worker keeps one core busy: threads of DuckDB's own for tables of ten rows cost a fifth of all time.
        duckdb.connect = functools.partial(duckdb.connect, config={"threads": 1})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Acceptance rows at their full size run only when asked for: `pytest -m full`.  The longest files come first."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))
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
