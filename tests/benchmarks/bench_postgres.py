"""A million rows pulled from PostgreSQL and through the server, and 100,000 updates pushed each way.

Run by hand: `python tests/benchmarks/bench_postgres.py [rows] [updates]`.  Of the updates one in a hundred is stale,
one in 200 breaks a check and one in 500 a foreign key.  Beside them, in the same run: ADBC alone reading the table,
and COPY to a temporary table and one UPDATE alone.  The server is a process of its own, and so is each client.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow as pa
from adbc_driver_postgresql import dbapi
from postgres import execute, started

import syncframe as sf
from syncframe import backends

DDL = """
    create table parents (id bigint primary key);
    insert into parents select generate_series(1, 20);
    create table readings (
        id bigint primary key, site text not null, taken timestamptz not null, value double precision,
        amount numeric(12,2) check (amount >= 0), parent bigint references parents (id), note text, ok boolean,
        day date not null, small smallint
    );
"""


def timed(work):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found = work() or {}
    return found | {
        "seconds": time.perf_counter() - start,
        "peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def read_alone(url):
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("select id, site, taken, value, amount::text, parent, note, ok, day, small from readings")
        return {"rows": sum(len(batch) for batch in cursor.fetch_record_batch())}


def written_alone(url, updates):
    rows = pa.table({"id": list(range(1, updates + 1)), "note": [f"alone {i}" for i in range(updates)]})
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("batch", rows, mode="create", temporary=True)
        cursor.execute("update readings as r set note = b.note from batch as b where b.id = r.id")
        connection.commit()


def pulled(ctx):
    result = ctx["readings"].pull(query_id="all", progress=False)
    return {"rows": result.rows, "requests": result.requests, "mib": result.bytes / 2**20}


def staged(ctx, updates, text):
    """Edits of which some break a rule."""
    readings = ctx["readings"]
    frame = readings.frame(f"id <= {updates}", columns=["note", "amount", "parent"])
    frame["note"] = [f"{text} {i}" for i in range(len(frame))]
    frame.loc[frame.index % 200 == 7, "amount"] = -1
    frame.loc[frame.index % 500 == 9, "parent"] = 99
    readings.stage(frame)
    return {"queued": len(ctx.pending)}


def pushed(ctx):
    return dict(ctx.push(progress=False).counts)


def step(what, url, store, *rest):
    command = [sys.executable, __file__, "--step", what, url, str(store), *map(str, rest)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def run_step(what, url, store, *rest):
    if what in ("read alone", "write alone"):
        work = (lambda: read_alone(url)) if what == "read alone" else (lambda: written_alone(url, int(rest[0])))
        print(json.dumps(timed(work)))
        return
    with sf.connect(url, store=store) as ctx:
        work = {"pull": pulled, "stage": staged, "push": pushed}[what]
        print(json.dumps(timed(lambda: work(ctx, *rest))))


def shown(what, found, count, floor=None):
    ratio = f", {found['seconds'] / floor:.2f} of the floor" if floor else ""
    rest = {k: v for k, v in found.items() if k not in ("seconds", "peak_mib")}
    rate = f"{count / found['seconds']:>10,.0f}/s, +{found['peak_mib']:.0f} MiB"
    print(f"{what:<28} {found['seconds']:7.2f} s {rate}{ratio} {rest}", flush=True)


def main(rows, updates):
    with started() as server, server.database() as url, tempfile.TemporaryDirectory() as folder:
        execute(url, *filter(str.strip, DDL.split(";")))
        execute(
            url,
            f"""
            insert into readings select i, 'site ' || i % 300, timestamptz '2013-01-01Z' + i * interval '1 second',
                i / 7.0, i % 100000 / 100.0, 1 + i % 20, 'note ' || i, i % 2 = 0, date '2013-01-01' + i % 365, i % 1000
            from generate_series(1, {rows}) as i
            """,
            "analyze readings",
        )
        shown("COPY and UPDATE, untracked", step("write alone", url, "-", updates), updates)
        backend = backends.open(url)
        shown("track", timed(lambda: backend.track(["readings"])), rows)
        backend.close()
        alone = step("write alone", url, "-", updates)
        shown("COPY and UPDATE, tracked", alone, updates)
        floor = step("read alone", url, "-")
        shown("ADBC alone", floor, rows)
        command = [sys.executable, "-m", "syncframe", "serve", url, "--tables", "readings", "--port", "0"]
        served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = next(
                word for line in served.stdout for word in line.split() if word.startswith("http://")
            ).partition("/tables")[0]
            for way, at in (("direct", url), ("server", address)):
                store = Path(folder) / f"{way}.duckdb"
                shown(f"pull, {way}", step("pull", at, store), rows, floor["seconds"])
                shown(f"pull again, {way}", step("pull", at, store), rows)
                shown(f"stage, {way}", step("stage", at, store, updates, way), updates)
                # Other ones change rows meanwhile.
                execute(url, f"update readings set small = small + 1 where id <= {updates} and id % 100 = 3")
                shown(f"push, {way}", step("push", at, store), updates, alone["seconds"])
        finally:
            served.terminate()
            served.wait(30)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        run_step(*sys.argv[2:])
    else:
        main(*map(int, [*sys.argv[1:], *["1000000", "100000"][len(sys.argv) - 1 :]]))
