"""How long a diff takes, beside one scan of both tables and beside pandas' merge and compare.

Run by hand: `python tests/benchmarks/bench_diff.py [rows]`.  Each figure is the median of five runs
after one warm-up, in the same process, so that the ratios hold where the seconds do not.
"""

import sys
import time
from contextlib import closing

import numpy as np
import pandas as pd
import pyarrow as pa

from syncframe.diff import diff
from syncframe.frame import Snapshot, cursor, hand_out, normalise
from syncframe.schema import Column, Schema

KINDS = ["BIGINT", "BIGINT", "DOUBLE", "DOUBLE", "VARCHAR", "VARCHAR", "VARCHAR", "TIMESTAMP", "BOOLEAN"]
SCHEMA = Schema((Column("id", "VARCHAR", False), *(Column(f"c{i}", kind) for i, kind in enumerate(KINDS))), ("id",))
RUNS = 5


def made(rows, seed=1):
    """`rows` rows of ten columns, a text key of 32 characters, a tenth of the cells NULL."""
    numbers = np.random.default_rng(seed)
    columns = {"id": pa.array([f"{i * 2654435761 % 2**32:032x}" for i in range(rows)], pa.large_string())}
    words = pa.array([f"some text of {i}" for i in range(1_000)], pa.large_string())
    for column in SCHEMA.value_columns:
        whole = numbers.integers(0, 1_000, rows)
        missing = numbers.random(rows) < 0.1
        if column.family == "text":
            columns[column.name] = words.take(pa.array(whole, mask=missing))
        else:
            values = whole % 2 == 1 if column.family == "bool" else whole
            columns[column.name] = pa.array(values, mask=missing).cast(column.arrow)
    return pa.table(columns)


def edited(frame, share, seed=2):
    """One column of numbers and one of text, in so many of the rows."""
    numbers = np.random.default_rng(seed)
    rows = np.flatnonzero(numbers.random(len(frame)) < share)
    frame = frame.copy()
    frame.iloc[rows, 0] = 5_000
    frame.iloc[rows, 4] = "edited"
    return frame


def with_inserts_and_deletes(frame):
    added = frame.iloc[:100].rename(index=lambda key: "new" + key)
    added.index.name = frame.index.name
    return pd.concat([frame.iloc[50:], added])


def timed(work):
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def scan(base, new):
    """Count and minimum of every column of both tables: the least that any comparison must read."""
    looks = ", ".join(f"count({name}), min({name})" for name in base.column_names)
    with closing(cursor()) as connection:
        for table in (base, new):
            connection.register("given", table)
            connection.sql(f"select {looks} from given").fetchall()


def ours(base, frame):
    return diff(base, normalise(frame, SCHEMA, snapshot=Snapshot(base, 1)).rows, SCHEMA)


def by_pandas(before, after):
    """Merge on the key, and compare column by column with missing equal to missing."""
    both = before.merge(after, left_index=True, right_index=True, how="outer", indicator=True, suffixes=("", "_new"))
    kept = both[both["_merge"] == "both"]
    differs = pd.Series(False, index=kept.index)
    for name in before.columns:
        old, new = kept[name], kept[f"{name}_new"]
        differs |= ((old != new) & ~(old.isna() & new.isna())).fillna(True).astype(bool)
    return {
        "insert": int((both["_merge"] == "right_only").sum()),
        "update": int(differs.sum()),
        "delete": int((both["_merge"] == "left_only").sum()),
    }


def main(rows=1_000_000):
    base = made(rows)
    frame = hand_out(base, SCHEMA)
    cases = {
        "unedited": frame,
        "1% in place": edited(frame, 0.01),
        "30% in place": edited(frame, 0.3),
        "1%, inserts, deletes": with_inserts_and_deletes(edited(frame, 0.01)),
        "the same, shuffled": with_inserts_and_deletes(edited(frame, 0.01)).sample(frac=1, random_state=3),
    }
    print(
        f"{rows:,} rows x {len(SCHEMA.columns)} columns; hand_out {timed(lambda: hand_out(base, SCHEMA)) * 1e3:.0f} ms"
    )
    print(f"{'':22}{'ours ms':>9}{'normalise':>11}{'scan ms':>9}{'x scan':>8}{'pandas ms':>11}{'x pandas':>10}")
    for name, case in cases.items():
        assert ours(base, case).counts == by_pandas(frame, case)
        new = normalise(case, SCHEMA).rows
        of_both = timed(lambda new=new: scan(base, new))
        mine, norm = timed(lambda case=case: ours(base, case)), timed(lambda case=case: normalise(case, SCHEMA))
        theirs = timed(lambda case=case: by_pandas(frame, case))
        print(
            f"{name:22}{mine * 1e3:9.0f}{norm * 1e3:11.0f}{of_both * 1e3:9.0f}{mine / of_both:8.1f}{theirs * 1e3:11.0f}{theirs / mine:10.0f}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
