"""How fast updates of one cell are pushed, beside writing them with sqlite3 alone.

Run by hand: `python tests/benchmarks/bench_push.py [updates ...]`; by default 5,000 and 100,000.  The table is
tracked for all of them, so that each pays for the triggers.  sqlite3 alone asks no versions, keeps no record of
what was applied, and overwrites unseen.
"""

import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import syncframe as sf
from syncframe.demo import database_url, demo_database

LOOP_MAX = 5_000  # one commit each: more would only take longer


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def push(context, keys):
    """(seconds to stage, seconds to push)"""
    flights = context["flights"]
    frame = flights.frame()
    frame.loc[keys, "note"] = f"pushed {len(keys)}"
    stage = timed(lambda: flights.stage(frame))
    assert len(context.pending) == len(keys)
    seconds = timed(lambda: context.push(progress=False))
    assert len(context.pending) == 0
    return stage, seconds


def one_commit_each(path, keys):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for key in keys:
            connection.execute("update flights set note = 'looped' where id = ?", [key])


def executemany(path, keys):
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany("update flights set note = ? where id = ?", [(f"many {len(keys)}", key) for key in keys])
        connection.commit()


def main(*counts):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flights.db"
        demo_database(path)
        context = sf.connect(database_url(path), store=Path(folder) / "here.duckdb")
        context["flights"].pull(query_id="all", progress=False)
        every = context["flights"].frame(columns=["note"]).sample(frac=1, random_state=1).index
        print(
            f"{'updates':>9}{'stage s':>9}{'push s':>9}{'per s':>9}{'executemany s':>15}{'push x':>8}{'loop s':>9}{'push x':>8}"
        )
        for count in counts or (5_000, 100_000):
            keys = list(every[:count])
            stage, seconds = push(context, keys)
            many = timed(lambda keys=keys: executemany(path, keys))
            looped = keys[:LOOP_MAX]
            loop = timed(lambda looped=looped: one_commit_each(path, looped)) * len(keys) / len(looped)
            context["flights"].pull(query_id="all", progress=False)
            print(
                f"{count:9,}{stage:9.2f}{seconds:9.2f}{count / seconds:9,.0f}{many:15.2f}{seconds / many:8.1f}{loop:9.2f}{seconds / loop:8.2f}"
            )
    print(f"the loop commits each update; beyond {LOOP_MAX:,} it is reckoned from the first {LOOP_MAX:,}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
