"""What the notebooks of the browser tests begin with: a small shop, a long queue, and back ends with faults."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from syncframe.backends import open as open_backend

SHOP = """
create table items (id text primary key, name text, price double, stock integer, note text, check (price < 1000));
insert into items (id, name, price, stock) values ('apple', 'Apple', 1.5, 10), ('fig', 'Fig', 3, 40),
    ('kiwi', 'Kiwi', 0.5, 50), ('pear', 'Pear', 2, 20), ('plum', 'Plum', 2.5, 30);
"""

# Operations of two tables, 90 and 10 of a hundred; nothing is asked of a network.
LONG_QUEUE = """
import numpy as np, pandas as pd, syncframe as sf
ctx = sf.connect(store="long.duckdb")
orders = ctx.table("orders", schema={{"id": "BIGINT", "item": "VARCHAR", "price": "DOUBLE"}})
customers = ctx.table("customers", schema={{"id": "VARCHAR", "name": "VARCHAR"}})
made = np.arange({n} * 9 // 10)
orders.insert(pd.DataFrame({{"id": made, "item": [f"item {{i}}" for i in made], "price": made / 4}}))
customers.insert(pd.DataFrame({{"id": [f"c{{i}}" for i in range({n} // 10)], "name": "Ada"}}))
"""

# A back end that takes its time, and one with a fault; each is a real one with something before it.
SLOW = """
import time
import syncframe as sf
from syncframe.backends import open as open_backend

class Slow:
    def __init__(self, inner):
        self.inner = inner
    def __getattr__(self, name):
        return getattr(self.inner, name)
    def push(self, batch, **options):
        for start in range(0, len(batch), 50):
            time.sleep(0.3)
            part = sf.Operations(batch.table, batch.schema, batch.rows.slice(start, 50))
            yield from self.inner.push(part, **options)

ctx = sf.connect(Slow(open_backend({url!r})), store="slow.duckdb")
items = ctx["items"]
"""
BREAKS = """
import syncframe as sf
from syncframe.backends import open as open_backend

class Broken:
    words = None
    def __init__(self, inner):
        self.inner = inner
    def __getattr__(self, name):
        return getattr(self.inner, name)
    def pull(self, *given, **options):
        if self.words:
            raise RuntimeError(self.words)
        return self.inner.pull(*given, **options)
"""
BROKEN = (
    BREAKS
    + """
back_end = Broken(open_backend({url!r}))
ctx = sf.connect(back_end, store="broken.duckdb")
items = ctx["items"]
items.pull()
back_end.words = "the cable <img src=x onerror=window.hostile=1> burnt"
"""
)

# A kernel that takes its time for every answer to a widget.
SLOW_ANSWERS = """
import time
desk = ctx.widget.desk
answer = desk.answer

def slow(message):
    time.sleep(0.4)
    return answer(message)

desk.answer = slow
"""


def database(path: Path, script: str = SHOP) -> Path:
    """A SQLite file, made by a script and tracked."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
    backend = open_backend(f"sqlite:///{path}")
    backend.track(tables)  # type: ignore[attr-defined]
    backend.close()  # type: ignore[attr-defined]
    return path


def rows(path: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


# Two people edit the same rows, and the other is the first to push.
QUARREL = """
import syncframe as sf
url = {url!r}
ctx, other = sf.connect(url, store="mine.duckdb"), sf.connect(url, store="theirs.duckdb")
mine, theirs = ctx["items"], other["items"]
mine.pull(query_id="all")
theirs.pull(query_id="all")
{edits}
other.push()
ctx.push()
"""


def quarrel(path: Path, *edits: str) -> str:
    """A first cell after which `ctx` is in conflict with what `other` has pushed."""
    return QUARREL.format(url=f"sqlite:///{path}", edits="\n".join(edits))
