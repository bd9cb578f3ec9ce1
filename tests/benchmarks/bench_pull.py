"""How fast a year of flights is pulled, beside reading the same file with sqlite3 and with pandas.

Run by hand: `python tests/benchmarks/bench_pull.py [rows]`.  Each way runs in a process of its own, so that its
peak memory is its own; the file was read once before, so that none pays for the disk.
"""

import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pandas as pd

import syncframe as sf
from syncframe.demo import database_url, demo_database

ALL = 336_776
PAGE_ROWS = 10_000


def pull(path):
    """All in pages, rows and checkpoint together in a file that survives a crash."""
    context = sf.connect(database_url(path), store=path.with_name("here.duckdb"))
    return context["flights"].pull(query_id="all", page_rows=PAGE_ROWS, progress=False).rows


def pull_again(path):
    """Nothing has changed since."""
    context = sf.connect(database_url(path), store=path.with_name("here.duckdb"))
    context["flights"].pull(query_id="all", page_rows=PAGE_ROWS, progress=False)
    return len(context["flights"])


def frame(path):
    """The rows as they are here, as a DataFrame."""
    return len(sf.connect(store=path.with_name("here.duckdb"))["flights"].frame())


def fetchall(path):
    with closing(sqlite3.connect(path)) as connection:
        return len(connection.execute("select * from flights").fetchall())


def read_sql(path):
    with closing(sqlite3.connect(path)) as connection:
        return len(pd.read_sql("select * from flights", connection))


WAYS = {
    "pull, pages of 10,000": pull,
    "pull, nothing new": pull_again,
    "frame()": frame,
    "sqlite3, fetchall": fetchall,
    "pandas.read_sql": read_sql,
}


def run(name, path):
    """In a process of its own: seconds, rows, peak memory in MiB over what the imports take.

    A child's peak begins at its parent's (Linux counts on through exec), so the parent does no work itself.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    rows = WAYS[name](path)
    seconds = time.perf_counter() - start
    print(seconds, rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def in_a_child(what, path, argument):
    return subprocess.run(
        [sys.executable, __file__, what, path, str(argument)], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main(rows=ALL):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flights.db"
        in_a_child("--build", path, rows)
        found = {name: tuple(map(float, in_a_child("--only", path, name).split())) for name in WAYS}
        assert {count for _, count, _ in found.values()} == {rows}
    base = found["sqlite3, fetchall"][0]
    print(f"{'':24}{'seconds':>9}{'rows/s':>12}{'peak MiB':>10}{'x fetchall':>12}")
    for name, (seconds, count, peak) in found.items():
        print(f"{name:24}{seconds:9.2f}{count / seconds:12,.0f}{peak:10,.0f}{seconds / base:12.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        demo_database(Path(sys.argv[2]), small=None if int(sys.argv[3]) == ALL else int(sys.argv[3]))
        fetchall(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--only"]:
        run(sys.argv[3], Path(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
