"""Acceptance: many writers at once, transactions long and short, and a client that pulls all the time misses nothing.

Beside it reads who asks for `changed > the last that I saw`, and what that loses is counted.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import adbc_driver_manager
import pytest
from adbc_driver_postgresql import dbapi
from postgres import Server, execute
from test_serving import WORKER, Process, by_turns

import syncframe as sf

WRITERS = 8
KEYS = 400
DDL = """
    create table things (id text primary key, n bigint not null, changed timestamptz not null default now());
    create table few (id bigint primary key, n bigint);
"""


def table_of(url: str, table: str) -> dict[Any, Any]:
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"select id, n from {table}")
        return dict(cursor.fetchall())


@dataclass
class Writer:
    """Random transactions on keys that all writers share; what fails by a deadlock or a lock is rolled back."""

    url: str
    seed: int
    longest_s: float
    until: float
    committed: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        chance = random.Random(self.seed)
        try:
            with dbapi.connect(self.url, autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute("set lock_timeout = '10s'")
                number = 0
                while time.time() < self.until:
                    number += 1
                    self._transaction(cursor, chance, f"{self.seed}_{number}")
        except BaseException as error:
            self.failures.append(repr(error))

    def _transaction(self, cursor: Any, chance: random.Random, name: str) -> None:
        cursor.execute("begin")
        try:
            for _ in range(chance.randint(1, 4)):
                self._write(cursor, chance)
                if chance.random() < 0.2:
                    time.sleep(chance.random() * 0.05)
            if chance.random() < 0.03:
                time.sleep(chance.random() * self.longest_s)
            if chance.random() < 0.2:
                cursor.execute("rollback")
                return
            if chance.random() < 0.02:
                # Two-phase commit: others see it only when the second phase comes.
                cursor.execute(f"prepare transaction '{name}'")
                time.sleep(chance.random() * self.longest_s / 4)
                cursor.execute(f"commit prepared '{name}'")
            else:
                cursor.execute("commit")
            self.committed += 1
        except adbc_driver_manager.Error as error:
            if error.sqlstate not in ("40P01", "55P03", "23505"):
                raise
            cursor.execute("rollback")

    def _write(self, cursor: Any, chance: random.Random) -> None:
        key, n = f"k{chance.randrange(KEYS)}", chance.randrange(10**9)
        act = chance.random()
        if act < 0.45:
            cursor.execute(
                f"""
                insert into things (id, n) values ('{key}', {n})
                on conflict (id) do update set n = excluded.n, changed = now()
                """
            )
        elif act < 0.75:
            cursor.execute(f"update things set n = {n}, changed = now() where id in ('{key}', '{key}1', '{key}2')")
        elif act < 0.85:
            cursor.execute(f"delete from things where id = '{key}'")
        elif act < 0.9:
            # Its key is changed to another one that may be there.
            other = f"k{chance.randrange(KEYS)}"
            cursor.execute(
                f"update things set id = '{other}', n = {n}, changed = now() where id = '{key}' "
                f"and not exists (select from things where id = '{other}')"
            )
        elif act < 0.95:
            cursor.execute(f"delete from things where id = '{key}'")
            cursor.execute(f"insert into things (id, n) values ('{key}', {n})")
        else:
            cursor.execute("savepoint here")
            cursor.execute(f"delete from things where id > '{key}' and id < '{key}5'")
            cursor.execute("rollback to savepoint here")
            cursor.execute(f"update few set n = {n} where id = {n % 10}")


@dataclass
class Cursor:
    """The usual reader: what changed after the last stamp that was seen."""

    url: str
    seen: dict[str, int] = field(default_factory=dict)
    last: Any = None

    def pull(self) -> None:
        with dbapi.connect(self.url, autocommit=True) as connection, connection.cursor() as cursor:
            where = "" if self.last is None else f"where changed > '{self.last.isoformat()}'"
            cursor.execute(f"select id, n, changed from things {where} order by changed")
            for key, n, changed in cursor.fetchall():
                self.seen[key], self.last = n, changed

    def lost(self, there: dict[str, int]) -> int:
        """Rows that are there and not as they are; of deleted ones it never hears."""
        return sum(self.seen.get(key) != n for key, n in there.items())


def work(url: str, seconds: float, longest_s: float, said: Any) -> None:
    """All writers, in a process of their own: as threads of the reader's they would take its turns."""
    until = time.time() + seconds
    writers = [Writer(url, seed, longest_s, until) for seed in range(WRITERS)]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said.send([(writer.committed, writer.failures) for writer in writers])


@contextlib.contextmanager
def written_meanwhile(server: Server, url: str, *, seconds: float, longest_s: float) -> Iterator[Callable[[], bool]]:
    """Writers work on the database until the block ends; yields what says whether they do still."""
    spawn = multiprocessing.get_context("spawn")
    heard, said = spawn.Pipe(duplex=False)
    writers = spawn.Process(target=work, args=(url, seconds, longest_s, said))
    with (
        server.database() as elsewhere,
        dbapi.connect(elsewhere, autocommit=True) as connection,
        connection.cursor() as forgotten,
    ):
        # A transaction that nobody ends for a long time, in another database of the cluster.
        forgotten.execute("create table t (n int)")
        forgotten.execute("begin")
        forgotten.execute("insert into t values (1)")
        writers.start()
        timers = [
            threading.Timer(seconds / 3, _truncate, [url]),
            threading.Timer(seconds / 2, forgotten.execute, ["rollback"]),
        ]
        for timer in timers:
            timer.start()
        yield writers.is_alive
        for each in (writers, *timers):
            each.join(timeout=60)
    assert heard.poll(60)
    done = heard.recv()
    assert [failures for _, failures in done] == [[]] * WRITERS
    assert all(committed for committed, _ in done)
    print(f"{sum(committed for committed, _ in done)} transactions, ", end="")


def _truncate(url: str) -> None:
    execute(url, "truncate few", "insert into few select n, n from generate_series(1, 12) as n")
    # Whoever holds a row is waited for, and all others wait meanwhile.
    with contextlib.suppress(adbc_driver_manager.Error):
        execute(url, "set lock_timeout = '9s'", "truncate things")


@pytest.fixture
def written(postgres: Server) -> Iterator[str]:
    with postgres.database() as url:
        execute(url, *filter(str.strip, DDL.split(";")))
        execute(url, "insert into few select n, n from generate_series(0, 9) as n")
        execute(url, f"insert into things select 'k' || n, n from generate_series(1, {KEYS // 2}) as n")
        backend = sf.backends.open(url)
        backend.track(["things", "few"])
        backend.close()
        yield url


def check_nothing_is_missed(
    postgres: Server, url: str, asked: str, *, seconds: float, longest_s: float, **options: Any
) -> None:
    cursor, pulls = Cursor(url), 0
    tables = ("things",) if options else ("things", "few")  # the plain protocol has ids of text alone
    with sf.connect(asked, store=":memory:", timeout_s=60, **options) as ctx:
        with written_meanwhile(postgres, url, seconds=seconds, longest_s=longest_s) as are_writing:
            while are_writing():
                cursor.pull()
                for table in tables:
                    ctx[table].pull(query_id="all", page_rows=50, progress=False)
                pulls += 1
        for table in tables:
            ctx[table].pull(query_id="all", page_rows=50, progress=False)
        here = {table: ctx[table].frame()["n"].to_dict() for table in tables}
    there = {table: table_of(url, table) for table in tables}
    cursor.pull()
    print(f"{pulls} pulls, {len(there['things'])} rows, a cursor on stamps has {cursor.lost(there['things'])} wrong")
    assert here == there
    assert pulls > 2


def test_eight_writers_and_a_client_that_misses_nothing(postgres, written):
    check_nothing_is_missed(postgres, written, written, seconds=6, longest_s=2)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_eight_writers_for_a_minute(postgres, written):
    check_nothing_is_missed(postgres, written, written, seconds=60, longest_s=8)


# Through two processes of the server, whose requests a balancer sends by turns

PROTOCOLS: list[dict[str, Any]] = [
    {},
    {"protocol": "v2", "schema": {"things": {"id": "VARCHAR", "n": "BIGINT", "changed": "TIMESTAMPTZ"}}},
]


@pytest.fixture
def balanced(written: str) -> Iterator[Any]:
    with (
        Process("-c", WORKER, written) as first,
        Process("-c", WORKER, written) as second,
        by_turns([first.url, second.url], lambda number, request: None) as balancer,
    ):
        yield balancer


def check_both_were_asked(balancer: Any) -> None:
    assert len(balancer.asked) > 6


@pytest.mark.parametrize("options", PROTOCOLS[1:], ids=["v2"])
def test_eight_writers_and_a_client_of_two_servers_that_misses_nothing(postgres, written, balanced, options):
    check_nothing_is_missed(postgres, written, balanced.url, seconds=4, longest_s=2, **options)
    check_both_were_asked(balanced)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("options", PROTOCOLS, ids=["extended", "v2"])
def test_eight_writers_for_a_minute_and_a_client_of_two_servers(postgres, written, balanced, options):
    check_nothing_is_missed(postgres, written, balanced.url, seconds=60, longest_s=8, **options)
    check_both_were_asked(balanced)
