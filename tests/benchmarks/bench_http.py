"""How a year of flights is pulled and pushed over HTTP: plain v2, plain v3, and the extension of one's own server.

Run by hand: `python tests/benchmarks/bench_http.py [rows]`.  The server is a process of its own, and so is each
client, so that its peak memory is its own.  Over loopback there is neither latency nor a narrow line: the figures
are what the work costs on both sides.  The floor is the same pull straight from the SQLite file.
"""

import contextlib
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import syncframe as sf
from syncframe.demo import database_url, demo_database

ALL = 336_776
UPDATES, STALE = 5_000, 50
WHERE = "month = 1"


def client(what, url, protocol, store, **options):
    """Run one step in a process of its own and return what it printed."""
    command = [sys.executable, __file__, "--step", what, url, protocol, str(store), json.dumps(options)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def context(url, protocol, store, **options):
    return sf.connect(url, store=store, protocol=protocol, overlap_s=0, **options)


def measured(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - start
    return found | {
        "seconds": seconds,
        "peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def pull(ctx, where=None):
    result = ctx["flights"].pull(where, query_id=where or "all", page_rows=10_000, progress=False)
    return {name: getattr(result, name) for name in ("rows", "requests", "bytes", "inserted", "updated", "deleted")}


def stage_updates(ctx, path):
    """5,000 rows get a note here; 50 of them are changed there meanwhile."""
    flights = ctx["flights"]
    frame = flights.frame(columns=["note"])
    keys = list(frame.sample(UPDATES, random_state=1).index)
    frame.loc[keys, "note"] = f"pushed at {time.time()}"
    flights.stage(frame)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        theirs = f"theirs at {time.time()}"
        connection.executemany("update flights set note = ? where id = ?", [(theirs, key) for key in keys[:STALE]])


def push(ctx):
    counts = ctx.push(progress=False).counts
    return {"accepted": counts["accepted"], "conflicts": counts["conflicts"]}


def step(what, url, protocol, store, options):
    path = options.pop("path", None)
    ctx = context(url, protocol, store, **options)
    if what == "push":
        stage_updates(ctx, path)
    work = {"pull": lambda: pull(ctx), "pull where": lambda: pull(ctx, WHERE), "push": lambda: push(ctx)}[what]
    print(json.dumps(measured(work)))


@contextlib.contextmanager
def served(path):
    command = [sys.executable, "-m", "syncframe", "serve", database_url(path), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield server.stdout.readline().split(" at ")[1].split("/tables")[0]
    finally:
        server.terminate()
        server.wait(timeout=30)


def told(name, found, *more):
    words = [f"{found['seconds']:8.1f} s", f"{found['rows'] / found['seconds']:9,.0f} rows/s"]
    words += [f"{found['requests']:6,} requests", f"{found['bytes'] / 2**20:8.1f} MiB", f"+{found['peak_mib']:.0f} MiB"]
    print(f"  {name:34}{'  '.join(words)}", *more, flush=True)


def build(path, rows):
    subprocess.run([sys.executable, __file__, "--build", str(path), str(rows)], check=True)


def flights(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("select count(*) from flights").fetchone()[0]


def pulls(folder, path):
    ways = {"SQLite, no HTTP": (database_url(path), "auto")}
    with served(path) as url:
        ways |= {"plain v2": (url, "v2"), "plain v3": (url, "v3"), "extended": (url, "auto")}
        for name, (there, protocol) in ways.items():
            print(name)
            store = folder / f"{protocol}-{name[:3]}.duckdb"
            first = client("pull", there, protocol, store)
            assert first["inserted"] == flights(path), first
            told("all", first)
            told("nothing new", client("pull", there, protocol, store))
            filtered = client("pull where", there, protocol, folder / f"where-{store.name}")
            told(f"where {WHERE}", filtered)
            change(path)
            changed = client("pull where", there, protocol, folder / f"where-{store.name}")
            told("  20 changed, 10 left, 5 deleted", changed, [changed[n] for n in ("inserted", "updated", "deleted")])
            told("  nothing new", client("pull where", there, protocol, folder / f"where-{store.name}"))


def change(path):
    """Of January's flights 20 are changed, 10 leave for December and 5 are deleted."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        ids = [
            row[0] for row in connection.execute("select id from flights where month = 1 order by random() limit 35")
        ]
        for sql, part in (
            ("update flights set note = coalesce(note, '') || 'x' where id = ?", ids[:20]),
            ("update flights set month = 12 where id = ?", ids[20:30]),
            ("delete from flights where id = ?", ids[30:]),
        ):
            connection.executemany(sql, [(key,) for key in part])


def pushes(folder, path):
    print(f"push of {UPDATES:,} updates, {STALE} of them stale")
    with served(path) as url:
        for protocol, in_flight in (("v2", 1), ("v2", 16), ("v3", 1), ("v3", 16), ("auto", 16)):
            store = folder / f"push-{protocol}-{in_flight}.duckdb"
            client("pull", url, protocol, store)
            found = client("push", url, protocol, store, in_flight=in_flight, path=str(path))
            assert (found["accepted"], found["conflicts"]) == (UPDATES - STALE, STALE), found
            name = "one batch, Arrow" if protocol == "auto" else f"{protocol}, {in_flight} in flight"
            print(f"  {name:34}{found['seconds']:8.1f} s  {UPDATES / found['seconds']:9,.0f} a second", flush=True)


def main(rows=ALL):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "flights.db"
        build(path, rows)
        pulls(folder, path)
        path.unlink()
        build(path, min(rows, 50_000))
        pushes(folder, path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        demo_database(Path(sys.argv[2]), small=None if int(sys.argv[3]) == ALL else int(sys.argv[3]))
    elif sys.argv[1:2] == ["--step"]:
        step(*sys.argv[2:6], json.loads(sys.argv[6]))
    else:
        main(*map(int, sys.argv[1:]))
