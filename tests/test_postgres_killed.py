"""Acceptance: PostgreSQL's process for a connection, and the server before it, are killed in the middle of pushes and pulls.

Each operation is applied once, and no change is missed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import adbc_driver_manager
import pytest
from adbc_driver_postgresql import dbapi
from postgres import Server, execute, started
from test_postgres_writers import table_of
from test_serving import Process, command

import syncframe as sf
from syncframe import backends
from syncframe.errors import TransientError

ROWS = 3_000
TRIES_MAX = 40


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One of its own: a process that is killed takes all of a server's connections with it."""
    with started(restart_after_crash="on") as server:
        yield server


def ended(server: Server, signal_: int) -> None:
    """End the processes that work for syncframe, once."""
    with contextlib.suppress(adbc_driver_manager.Error):
        with dbapi.connect(server.url, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("select pid from pg_stat_activity where application_name = 'syncframe'")
            pids = [pid for (pid,) in cursor.fetchall()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_)


def until_done(work: Callable[[], object], end: Callable[[], object], after_s: float) -> int:
    """Do the work, which is cut off once after some time, and again until it is done; how often it failed."""
    killer = threading.Timer(after_s, end)
    killer.start()
    failed = 0
    for _ in range(TRIES_MAX):
        try:
            work()
        except TransientError:
            failed += 1
            time.sleep(0.1)
        else:
            killer.join()
            return failed
    raise AssertionError("never done")


def pushed(ctx: sf.SyncContext) -> None:
    result = ctx.push(progress=False)
    assert not result.conflicts and not result.rejected
    if not result.ok:
        raise TransientError(str(result.stopped_by))


@pytest.fixture
def items(server: Server) -> Iterator[str]:
    """A table that counts how often a row was written: an operation that is applied twice shows."""
    with server.database() as url:
        execute(
            url,
            "create table items (id bigint primary key, n bigint, writes bigint not null default 0)",
            f"insert into items select i, i from generate_series(1, {ROWS}) as i",
            """
            create function count_writes() returns trigger language plpgsql as
            $$ begin new.writes := old.writes + 1; return new; end $$
            """,
            "create trigger count_writes before update on items for each row execute function count_writes()",
        )
        backend = backends.open(url)
        backend.track(["items"])  # type: ignore[attr-defined]
        backend.close()  # type: ignore[attr-defined]
        yield url


def check_killed(url: str, asked: str, end: Callable[[], object], times: int, within_s: float = 0.4) -> None:
    chance, failed = random.Random(7), 0
    with sf.connect(asked, store=":memory:") as ctx, sf.connect(asked, store=":memory:") as other:
        items = ctx["items"]
        items.pull(query_id="all", progress=False)
        for number in range(1, times + 1):
            frame = items.frame()
            frame["n"] = frame["n"] + 1
            items.stage(frame)
            failed += until_done(lambda: pushed(ctx), end, chance.random() * within_s)
            failed += until_done(
                lambda: other["items"].pull(query_id="all", page_rows=200, progress=False),
                end,
                chance.random() * within_s / 2,
            )
            assert table_of(url, "items") == {i: i + number for i in range(1, ROWS + 1)}
        other["items"].pull(query_id="all", progress=False)
        assert other["items"].frame()["n"].to_dict() == table_of(url, "items")
        assert set(other["items"].frame()["writes"]) == {times}, "each operation was applied once"
    print(f"{2 * times} times, {failed} calls failed")
    assert failed


def test_processes_that_are_ended_in_the_middle(server, items):
    check_killed(items, items, lambda: ended(server, signal.SIGTERM), 4)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_processes_that_are_killed_in_the_middle_fifty_times(server, items):
    check_killed(items, items, lambda: ended(server, signal.SIGKILL), 50)


class Killed:
    """A server process that is killed and comes back at the same place."""

    def __init__(self, url: str) -> None:
        self.behind, self.port = url, 0
        self.process = self.start()
        self.port = urlsplit(self.process.url).port

    def start(self) -> Process:
        return command(self.behind, port=self.port).__enter__()

    def end(self) -> None:
        self.process.sign(signal.SIGKILL)
        self.process.ended()
        self.process = self.start()


@pytest.fixture
def served(items: str) -> Iterator[Killed]:
    killed = Killed(items)
    yield killed
    killed.process.__exit__()


def test_a_server_that_is_killed_in_the_middle(items, served):
    check_killed(items, served.process.url, served.end, 2, within_s=1)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_server_that_is_killed_in_the_middle_fifty_times(items, served):
    check_killed(items, served.process.url, served.end, 50, within_s=1)
