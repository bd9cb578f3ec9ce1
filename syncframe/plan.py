"""Plan: what a push would send now, and which of its rows have changed at the back end since.

    read what is ready -> ask the back end for just these rows, in sets, if wanted -> compare the versions

Nothing is sent or marked as attempted, and of what the back end answers nothing is stored.  A plan knows each of
its operations by id and revision, so that a push of it sends those that still are what was shown, and no other.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from . import words
from .backends.base import DELETED, OPERATION, VERSION, Backend, page_schema
from .errors import SyncError
from .file import Cursor
from .frame import listed_frame, matched
from .keys import key_of
from .layout import Layout
from .operation import Operation, operation_words, operations_table, same
from .progress import ended
from .query import Query, parse
from .queue import KINDS, Queue
from .schema import Column, Schema, literal, quote
from .store import Store, operations_source
from .texts import written
from .views import PendingView, Recalled, operation_of

CHECK_ROWS = 10_000  # asked for at once
TERM_KEYS_MAX = 90  # in one condition: the language takes 100 arguments
TERM_BYTES_MAX = 30_000
RISKS_SHOWN = 3

Row = Mapping[str, Any]
Act = Callable[[str, Operation], None]


class Planned(Recalled):
    """The operations of a plan, in the order they were staged."""

    def __init__(self, parts: Sequence[tuple[Layout, pa.Table]], act: Act) -> None:
        super().__init__("Planned", parts, partial(operation_of, act=act))
        turns = [rows["sequence"].to_numpy() for _, rows in parts]
        self._order: list[int] = np.argsort(np.concatenate([*turns, np.array([], np.int64)]), kind="stable").tolist()

    def _places(self) -> Sequence[int]:
        return self._order

    def __iter__(self) -> Iterator[Operation]:
        parts = (self._made(*part) for part in self._parts)
        return (operation for _, operation in heapq.merge(*parts, key=lambda pair: pair[0]["sequence"]))


@dataclass(frozen=True, eq=False, repr=False)
class PushPlan:
    """What a push would send, as the queue stood when it was made; `ctx.push(plan)` sends just that.

    Parameters
    ----------
    operations
        What would be sent, in the order it was staged.
    counts
        How many of each kind: insert, update, delete.
    held
        What stays, and why: conflicts, and operations that the back end rejected.
    at_risk
        With `check=True`, one row for each operation whose row is not there as it was known here: table, key, kind
        and what: "changed there", "deleted there", "exists there" (of an insert) or "gone there" (nothing is known
        of it).  Else None.
    tables
        What was asked for; None: all tables.
    """

    operations: Sequence[Operation]
    counts: dict[str, int]
    held: dict[str, int]
    at_risk: pd.DataFrame | None = None
    tables: tuple[str, ...] | None = None
    _ids: pa.Table | None = field(default=None, repr=False)
    _maker: object = field(default=None, repr=False)

    @property
    def checked(self) -> bool:
        """Whether the back end was asked."""
        return self.at_risk is not None

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row for each cell that would be sent, with its old and new value; one for a delete."""
        rows = [row for operation in self.operations for row in _cells(operation)]
        return _frame(["table", "key", "kind", "column", "base", "local"], rows, ("table", "kind", "column"))

    def __bool__(self) -> bool:
        return len(self.operations) > 0

    def __repr__(self) -> str:
        operations = [f"  {operation_words(op)}" for op in self.operations[: words.SHOWN_ROWS]]
        return "\n".join([self._headline(), *operations, *(f"  {line}" for line in self._below())])

    def _repr_html_(self) -> str:
        if not self:
            return words.html(words.paragraphs([self._headline(), *self._below()]))
        table = operations_table(self.operations[: words.SHOWN_ROWS], self._headline())
        return words.html(table, words.paragraphs(self._below()))

    def _headline(self) -> str:
        """The counts; nothing of a row."""
        kinds = [words.many(count, kind) for kind, count in self.counts.items()]
        text = f"PushPlan: {', '.join(kinds) if self else 'nothing to send'}"
        held = [words.many(self.held["conflicts"], "conflict")] * (self.held["conflicts"] > 0)
        held += [f"{self.held['rejected']:,} rejected"] * (self.held["rejected"] > 0)
        return text + (f"; held back: {', '.join(held)}" if held else "")

    def _below(self) -> list[str]:
        more = words.left_out(len(self.operations), words.SHOWN_ROWS, "plan.cells has all")
        return [*more, *self._risk_words(), "nothing was sent; ctx.push(plan) sends just that"] if self else []

    def _risk_words(self) -> list[str]:
        if self.at_risk is None:
            return ["ctx.plan(check=True) asks which of these rows have changed there"]
        count, first = len(self.at_risk), self.at_risk.head(RISKS_SHOWN)
        if not count:
            return ["none of these rows has changed there"]
        lines = [
            f"at risk: {kind} {words.name(table)} {words.key(key)}: {what}"
            for table, key, kind, what in first.itertuples(index=False, name=None)
        ]
        return [*lines, *words.left_out(count, RISKS_SHOWN, "plan.at_risk has all")]


class Plan:
    """The making of a plan, of some tables of a store or of all."""

    def __init__(self, store: Store, queue: Queue, tables: Collection[str] | None) -> None:
        self.store, self.queue = store, queue
        self.tables = None if tables is None else tuple(tables)
        self.parts: list[tuple[Layout, pa.Table]] = []

    def read(self, maker: object) -> PushPlan:
        """Read what a push would send now; asks nothing."""
        with self.store.reading() as cursor:
            layouts = list(self.store.layouts(cursor, self.tables))
            found = [(layout, _ready_rows(cursor, layout)) for layout in layouts]
            counts = [self.queue.counts(cursor, layout) for layout in layouts]
        self.parts = [(layout, rows) for layout, rows in found if len(rows)]
        kinds = Counter(kind for _, rows in self.parts for kind in rows["kind"].to_pylist())
        ids = pa.concat_tables([rows.select(["id", "rev"]) for _, rows in self.parts] or [_NO_IDS.empty_table()])
        return PushPlan(
            operations=Planned(self.parts, PendingView(self.store, self.queue)._act),
            counts={kind: kinds[kind] for kind in KINDS},
            held={name: sum(c[name] for c in counts) for name in ("conflicts", "rejected")},
            tables=self.tables,
            _ids=ids,
            _maker=maker,
        )

    def checked(self, plan: PushPlan, backend: Backend) -> PushPlan:
        """The plan with what the back end says of its rows; of a row with a follower the first counts."""
        rows = [row for layout, planned in self.parts for row in _risks(backend, layout, planned)]
        return replace(plan, at_risk=_frame(["table", "key", "kind", "what"], rows, ("table", "kind", "what")))


_NO_IDS = pa.schema([("id", pa.string()), ("rev", pa.int64())])


def _ready_rows(cursor: Cursor, layout: Layout) -> pa.Table:
    """What a push would send of a table; what waits behind a first one goes with it."""
    behind = f"select 1 from {layout.edits} h where h.has_remote and {layout.on('h', 'o')}"
    return cursor.arrow(
        f"""
        select o.id, o.sequence, o.rev, o.follower, kind, coalesce(o.base_version, t.version) as base_version,
               base_there, o.deleted, o.given::varchar as given, o.attempted, o.staged_at, false as has_remote,
               null::varchar as error_code, {layout.keys_of("o")}{layout.also("o.{l}")}{layout.also("o.{b}")}
        from ({operations_source(layout)}) o
        left join {layout.gone} t on {layout.on("t", "o")} and not o.base_there
        where not o.has_remote and o.error_code is null and not (o.follower and exists ({behind}))
        order by o.sequence
        """
    )


# The push of a plan


def check_plan(plan: PushPlan, maker: object, *, retry_rejected: bool) -> None:
    """Refuse a plan that another context made, and what a plan cannot say."""
    if plan._maker is not maker:
        raise SyncError(
            "this plan was made by another context; nothing was sent", hint="plan = ctx.plan(), then ctx.push(plan)"
        )
    if retry_rejected:
        raise SyncError(
            "a plan has no rejected operations; nothing was sent",
            hint="push(retry_rejected=True) without a plan sends them again",
        )


def standing(plan: PushPlan, queue: Queue, cursor: Cursor, *, is_whole: bool) -> pa.Table:
    """What of a plan is still what was shown, as a push takes it.

    Raises
    ------
    SyncError
        If that must be all of it, and is not.
    """
    found = queue.planned(cursor, plan.tables, plan._ids)
    planned = len(plan.operations)
    left = planned - len(found["id"].unique())
    if is_whole and left:
        raise SyncError(
            f"of the {words.many(planned, 'operation')} of this plan {left:,} changed since, or went; nothing was sent",
            hint="plan again, or push without atomic=True",
        )
    return found


# What is at risk


def _risks(backend: Backend, layout: Layout, planned: pa.Table) -> Iterator[tuple[Any, ...]]:
    """(table, key, kind, what) of the operations whose row is not there as it was known."""
    names = [f"k_{name}" for name in layout.schema.key]
    firsts = planned.filter(pc.invert(planned["follower"]))
    for start in range(0, len(firsts), CHECK_ROWS):
        part = firsts.slice(start, CHECK_ROWS)
        keys = part.select(names).rename_columns(list(layout.schema.key))
        found = _found(backend, layout.table, keys)
        system = [name for name in (VERSION, DELETED, OPERATION) if name in found.column_names]
        places, there = _places(found, keys), found.select(system).to_pylist()
        rows = part.select([*names, "id", "kind", "base_version", "attempted"]).to_pylist()
        for i, (row, at) in enumerate(zip(rows, places, strict=True)):
            what = _risk(row, None if at < 0 else there[at])
            if what is not None and not (at >= 0 and row["attempted"] and _says(layout, part, i, found, at)):
                yield layout.table, key_of(layout, row), row["kind"], what


def _risk(planned: Row, there: Row | None) -> str | None:
    """Why an operation may not be applied to what is there; None if nothing speaks against it.

    Parameters
    ----------
    planned
        Its id, kind, base_version, and whether it is attempted: a delete of that kind may have been applied.
    there
        The row or tombstone, as in a page; None if there is none.
    """
    kind, is_attempted = planned["kind"], planned["attempted"]
    if there is None:
        return None if kind == "insert" or (kind == "delete" and is_attempted) else "gone there"
    is_known = there[VERSION] == planned["base_version"]
    if planned["id"] in (there.get(OPERATION) or "").split():
        return None  # it was applied, and the answer was lost
    if there[DELETED]:
        # An insert that was never sent takes the place of a tombstone.
        is_fine = {"insert": is_known or not is_attempted, "update": False, "delete": is_attempted}[kind]
        return None if is_fine else "deleted there"
    if kind == "insert":
        return "exists there"
    return None if is_known else "changed there"


def _says(layout: Layout, part: pa.Table, i: int, found: pa.Table, at: int) -> bool:
    """Whether the row is what the operation makes of it: so a back end that knows no ids recognises what it applied."""
    there = found.slice(at, 1).to_pylist()[0]
    operation = operation_of(layout, part.slice(i, 1).to_pylist()[0])
    if operation.local is None or there[DELETED] or there.get(OPERATION) is not None:
        return False
    return all(name in there and same(operation.local[name], there[name]) for name in operation.changed)


def _places(found: pa.Table, keys: pa.Table) -> list[int]:
    """Where each key's row stands, its last one; -1 for none."""
    there, asked = matched(keys, found.select(keys.column_names))
    places = np.full(len(keys), -1, np.int64)
    np.maximum.at(places, asked, there)
    return [int(at) for at in places]


def _found(backend: Backend, table: str, keys: pa.Table) -> pa.Table:
    """The rows and tombstones of these keys, as in a page; of a back end that can only be pulled from, others too."""
    ask = getattr(backend, "rows", None)
    if ask is not None:
        rows: pa.Table = ask(table, keys)
        return rows
    schema = backend.schema(table)
    parts = [page_schema(schema).empty_table()]
    for where in _conditions(schema, keys):
        with ended(backend.pull(table, Query(parse(where, schema) if where else None), None)) as pages:
            parts += [page.rows for page in pages]
    return pa.concat_tables(parts, promote_options="permissive")


def _conditions(schema: Schema, keys: pa.Table) -> Iterator[str | None]:
    """Conditions that name the keys, as many in each as the language takes; None: keys that it cannot name."""
    columns = [schema[name] for name in keys.column_names]
    if any(column.family == "bytes" for column in columns):
        yield None
        return
    texts = [_literals(keys[column.name], column) for column in columns]
    terms: list[str] = []
    for values in zip(*texts, strict=True):
        pairs = zip(columns, values, strict=True)
        term = f"({' and '.join(f'{quote(column.name)} = {value}' for column, value in pairs)})"
        if terms and (len(terms) == TERM_KEYS_MAX or sum(map(_size, terms)) + _size(term) > TERM_BYTES_MAX):
            yield " or ".join(terms)
            terms = []
        terms.append(term)
    if terms:
        yield " or ".join(terms)


def _size(term: str) -> int:
    return len(term.encode()) + 4


def _literals(values: pa.ChunkedArray, column: Column) -> list[str]:
    """Values as a condition has them: a text takes the type of the column that it meets."""
    is_plain = column.family in ("int", "decimal", "float", "bool")
    return [str(text) if is_plain else literal(str(text)) for text in written(values, column)]


# What is shown


def _cells(operation: Operation) -> list[tuple[Any, ...]]:
    """The cells that an operation sends: given ones of an insert, changed ones of an update; None of a delete."""
    head, base, local = (operation.table, operation.key, operation.kind), operation.base or {}, operation.local or {}
    return [(*head, name, base.get(name), local[name]) for name in operation.changed] or [(*head, None, None, None)]


def _frame(names: list[str], rows: Sequence[tuple[Any, ...]], texts: Collection[str]) -> pd.DataFrame:
    return listed_frame(names, rows).astype(dict.fromkeys(texts, "str"))
