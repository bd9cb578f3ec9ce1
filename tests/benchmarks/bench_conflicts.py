"""100,000 conflicts: recorded by a push, framed, settled in bulk; beside the loop that a user would write.

python tests/benchmarks/bench_conflicts.py [rows]
"""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import syncframe as sf
from syncframe.backends import open as open_backend

LOOPED = 100


@contextlib.contextmanager
def timed(words: str) -> Iterator[list[float]]:
    """Print how long it took; the list has the seconds afterwards."""
    seconds: list[float] = []
    began = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{words:<64} {seconds[0]:8.2f} s   peak {peak:,.0f} MiB", flush=True)


def conflicted(folder: Path, n: int) -> sf.SyncContext:
    """A context with n rows in conflict: a clash in a, b changed here and c there."""
    path = folder / "shop.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table items (id text primary key, a integer, b real, c text)")
        connection.executemany("insert into items values (?, 1, 2.5, 'x')", ((f"k{i:06d}",) for i in range(n)))
    backend = open_backend(f"sqlite:///{path}")
    backend.track(["items"])
    backend.close()
    mine, theirs = (sf.connect(f"sqlite:///{path}", store=folder / f"{who}.duckdb") for who in ("mine", "theirs"))
    for ctx in (mine, theirs):
        ctx["items"].pull(query_id="all", progress=False)
    for ctx, a, column, value in ((theirs, 30, "c", "t"), (mine, 10, "b", 7.5)):
        frame = ctx["items"].frame()
        frame["a"], frame[column] = a, value
        ctx["items"].stage(frame)
    theirs.push(progress=False)
    with timed(f"a push that records {n:,} conflicts"):
        mine.push(progress=False)
    return mine


def main(n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ctx = conflicted(Path(folder), n)
        with timed(f"ctx.conflicts.frame(), {n:,} conflicts"):
            frame = ctx.conflicts.frame()
        print(f"    {len(frame):,} cells")
        frame["result"] = frame["mine"].where(frame["column"] == "a", frame["theirs"])
        ways = {
            "resolve(frame)": lambda: ctx.conflicts.resolve(frame),
            "keep_mine()": lambda: ctx.conflicts.keep_mine(),
            'keep_mine(column="a")': lambda: ctx.conflicts.keep_mine(column="a"),
            "merge(), nothing merges": lambda: ctx.conflicts.merge(),
            "resolve(callable)": lambda: ctx.conflicts.resolve(lambda conflict: "theirs"),
        }
        took = {}
        for name, settle in ways.items():
            with timed(name) as took[name]:
                settled = settle()
            if settled:
                with timed(f"    {settled:,} settled; undo"):
                    ctx.undo()
            assert len(ctx.conflicts) == n
        with timed(f"a loop over the first {LOOPED}: conflict.keep_mine()") as looped:
            for _, conflict in zip(range(LOOPED), ctx.conflicts, strict=False):
                conflict.keep_mine()
        bulk_ms, loop_ms = took["keep_mine()"][0] / n * 1_000, looped[0] / LOOPED * 1_000
        print(
            f"for each conflict {bulk_ms:.3f} ms at once, {loop_ms:.1f} ms in the loop: {loop_ms / bulk_ms:,.0f} times "
            f"as long; all {n:,} would take it {loop_ms * n / 60_000:,.1f} min"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
