"""How long staging a whole frame of flights takes, beside what one would write by hand.

Run by hand: `python tests/benchmarks/bench_stage.py [rows]`.  A year of flights (336,776 rows of 20 columns)
with 1% edited cells, 100 new rows and 50 dropped.  Beside it: pandas' merge and compare, which only finds the
differences, and a loop of one SQL statement for each, which writes them down unseen.  All in one process, so
that the ratios hold where the seconds do not.
"""

import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd

import syncframe as sf
from syncframe.demo import database_url, demo_database

ALL = 336_776


def edited(frame, share=0.01, inserts=100, deletes=50):
    """The frame with so many cells edited, and rows added and dropped, its token kept."""
    at = np.flatnonzero(np.random.default_rng(1).random(len(frame)) < share)
    at = at[at >= deletes]
    changed = frame.copy()
    changed.iloc[at, changed.columns.get_loc("note")] = "checked"
    added = changed.iloc[-inserts:].rename(index=lambda key: "new-" + key)
    added.index.name = frame.index.name
    whole = pd.concat([changed.iloc[deletes:], added])
    whole.attrs = dict(frame.attrs)
    return whole, {"insert": inserts, "update": len(at), "delete": deletes}


def by_pandas(before, after):
    """Merge on the key, and compare column by column with missing equal to missing."""
    both = before.merge(after, left_index=True, right_index=True, how="outer", indicator=True, suffixes=("", "_new"))
    kept = both[both["_merge"] == "both"]
    differs = pd.Series(False, index=kept.index)
    for name in before.columns:
        old, new = kept[name], kept[f"{name}_new"]
        differs |= ((old != new) & ~(old.isna() & new.isna())).fillna(True).astype(bool)
    counts = both["_merge"].value_counts()
    return {"insert": int(counts["right_only"]), "update": int(differs.sum()), "delete": int(counts["left_only"])}


def by_sql(path, changes):
    """One statement for each change, one commit at the end: the least that a loop can do."""
    updates = changes.updates["note"].items()
    inserts = changes.inserts.astype(object).where(changes.inserts.notna(), None)
    inserts["time_hour"] = inserts["time_hour"].astype(str)
    columns = ", ".join(["id", *inserts.columns])
    marks = ", ".join("?" * (len(inserts.columns) + 1))
    with closing(sqlite3.connect(path)) as connection:
        for key in changes.deletes.index:
            connection.execute("delete from flights where id = ?", [key])
        for row in inserts.itertuples():
            connection.execute(f"insert into flights ({columns}) values ({marks})", list(row))
        for key, note in updates:
            connection.execute("update flights set note = ? where id = ?", [note, key])
        connection.commit()


def timed(work):
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def main(rows=ALL):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flights.db"
        demo_database(path, small=None if rows == ALL else rows)
        context = sf.connect(database_url(path), store=Path(folder) / "here.duckdb")
        flights = context["flights"]
        flights.pull(query_id="all", progress=False)
        lines = []
        seconds, frame = timed(flights.frame)
        lines.append(("frame()", seconds, ""))
        after, expected = edited(frame)
        seconds, preview = timed(lambda: flights.diff(after))
        assert preview.counts == expected
        lines.append(("diff", seconds, ""))
        stage, changes = timed(lambda: flights.stage(after))
        assert changes.counts == expected
        lines.append(("diff and stage", stage, ""))
        seconds, again = timed(lambda: flights.stage(after))
        assert not again
        lines.append(("stage again: nothing", seconds, ""))
        note = after.columns.get_loc("note")
        after.iloc[np.flatnonzero(after["note"] == "checked")[0], note] = None
        seconds, back = timed(lambda: flights.stage(after))
        assert back.counts == {"insert": 0, "update": 1, "delete": 0}
        lines.append(("stage: one cell back", seconds, ""))
        seconds, found = timed(lambda: by_pandas(frame, edited(frame)[0]))
        assert found == expected
        lines.append(("pandas, merge and compare", seconds, f"{seconds / stage:.1f} x stage"))
        seconds, _ = timed(lambda: by_sql(path, changes))
        lines.append(("loop of SQL statements", seconds, f"{seconds / stage:.1f} x stage"))
    print(f"{rows:,} flights x 20 columns, {expected}")
    for name, seconds, ratio in lines:
        print(f"{name:28}{seconds:9.3f} s  {ratio}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
