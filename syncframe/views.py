"""What people look at: pending operations and conflicts, one by one or as frames.

The queue stays a table; these classes read it page by page, and settle conflicts one by one or many at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from .conflict import merge
from .errors import KeyColumnError, SchemaError, SyncError
from .file import Cursor
from .frame import hand_out, normalise, object_frame
from .layout import Layout
from .operation import Operation, Refusal, Row, same
from .queue import Queue
from .schema import Schema, quote, shown
from .store import Store, operations_source, parsed

PAGE_ROWS = 1_000
SHOWN_ROWS = 20
_KEY_HINT = "a key is one value of the key's type; of a compound key a tuple, such as get((2013, 'EWR'))"


class PendingView:
    """What is queued, of all tables or of some; always as the store has it now."""

    def __init__(self, store: Store, queue: Queue, tables: Collection[str] | None = None) -> None:
        self._store, self._queue, self._tables = store, queue, tables

    def __len__(self) -> int:
        with self._store.reading() as cursor:
            return self._queue.pending(cursor, self._tables)

    def __iter__(self) -> Iterator[Operation]:
        """The operations in sequence, read page by page."""
        with self._store.reading() as cursor:
            tables = [layout.table for layout in self._store.layouts(cursor, self._tables)]
        merged = heapq.merge(*(self._of(table) for table in tables), key=lambda pair: pair[0])
        return (operation for _, operation in merged)

    def __getitem__(self, table: str) -> PendingView:
        return PendingView(self._store, self._queue, [_known(self._store, table)])

    def _of(self, table: str) -> Iterator[tuple[int, Operation]]:
        last = -1
        while True:
            with self._store.reading() as cursor:
                layout = self._store.layout(cursor, table)
                page = _operation_rows(cursor, layout, f"sequence > {last} order by sequence limit {PAGE_ROWS}")
            if not page:
                return
            yield from ((row["sequence"], operation_of(layout, row, self._act)) for row in page)
            last = page[-1]["sequence"]

    def _act(self, what: str, operation: Operation) -> None:
        with self._store.transaction() as cursor:
            layout = self._store.layout(cursor, operation.table)
            if what == "revert":
                self._queue.discard(cursor, layout, key_table(layout, [operation.key]), action="revert")
            else:
                self._queue.retry(cursor, layout, pa.table({"id": [operation.id]}))

    def summary(self) -> pd.DataFrame:
        """Counts, indexed by table, with columns insert, update, delete."""
        counts = []
        with self._store.reading() as cursor:
            for layout in self._store.layouts(cursor, self._tables):
                found = dict(cursor.rows(f"select kind, count(*) from ({operations_source(layout)}) group by kind"))
                if found:
                    counts.append(
                        {"table": layout.table, **{k: found.get(k, 0) for k in ("insert", "update", "delete")}}
                    )
        frame = pd.DataFrame(counts, columns=["table", "insert", "update", "delete"])
        return frame.astype({"insert": "int64", "update": "int64", "delete": "int64"}).set_index("table")

    def frame(self, wide: bool = False) -> pd.DataFrame:
        """One row per changed cell of an update, and one per insert and delete.

        Parameters
        ----------
        wide
            One row per operation instead, with the values here in the table's own types; one table only.
        """
        if wide:
            return self._wide()
        columns = ["table", "key", "kind", "column", "base", "local", "staged_at", "attempted", "error"]
        rows = [row for operation in self for row in _cells(operation)]
        frame = pd.DataFrame({name: pd.Series([r[i] for r in rows], dtype=object) for i, name in enumerate(columns)})
        return frame.astype({"table": "str", "kind": "str", "column": "str", "error": "str", "attempted": "bool",
                             "staged_at": "datetime64[us, UTC]"})  # fmt: skip

    def _wide(self) -> pd.DataFrame:
        with self._store.reading() as cursor:
            layouts = [
                lay for lay in self._store.layouts(cursor, self._tables) if self._queue.counts(cursor, lay)["pending"]
            ]
            if len(layouts) != 1:
                raise SyncError(
                    f"operations of {len(layouts)} tables have no one set of columns",
                    hint='ctx.pending["table"].frame(wide=True)',
                )
            layout = layouts[0]
            keys = ", ".join(f"{quote('k_' + n)} as {quote(n)}" for n in layout.schema.key)
            rows = cursor.arrow(
                f"""
                select {keys}{layout.also("{l} as {q}")}, kind as _syncframe_kind, attempted as _syncframe_attempted,
                       staged_at as _syncframe_staged_at
                from (select {layout.keys}{layout.also("{l}")}, kind, attempted, staged_at, sequence
                      from ({operations_source(layout)})) order by sequence
                """
            )
        frame = hand_out(rows.select(layout.schema.names), layout.schema)
        for place, name in enumerate(("kind", "attempted", "staged_at")):
            told = f"_{name}" if name in layout.schema else name
            frame.insert(place, told, rows[f"_syncframe_{name}"].to_pandas().array)
        return frame

    def __repr__(self) -> str:
        total = len(self)
        if not total:
            return "Pending: nothing"
        return f"Pending: {total} operations\n{self.summary().to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>Pending: {len(self)} operations</p>{self.summary().to_html()}"


@dataclass(frozen=True, slots=True, repr=False)
class Conflict:
    """A pending operation that has learned of a remote row it could not be merged with.

    Parameters
    ----------
    base, mine, theirs
        The row as last known, as edited here, as it is there; None: not there.
    version
        The remote version that was looked at.
    first
        What was sent before mine and not answered, where mine waits behind it; else mine.
    """

    table: str
    key: Any
    kind: str
    base: Row | None
    mine: Row | None
    theirs: Row | None
    version: str | None = field(default=None, repr=False)
    first: Row | None = field(default=None, repr=False)
    together: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    _view: ConflictView | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        cells = "; ".join(
            f"{name}: base {_short(base)}, mine {_short(mine)}, theirs {_short(theirs)}"
            for _, _, name, base, mine, theirs in _conflict_cells(self)
            if self.mine is not None and self.theirs is not None
        )
        gone = "deleted here, edited there" if self.mine is None else "edited here, deleted there"
        return f"Conflict({self.table!r}, {self.key!r}: {cells or gone})"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns changed on both sides, differently."""
        if self.mine is None or self.theirs is None:
            return ()
        if self.base is None or self.first is None:
            return tuple(sorted(n for n, v in self.mine.items() if n in self.theirs and not same(v, self.theirs[n])))
        step = merge(self.base, self.first, self.theirs, self.together)
        behind = merge(self.first, self.mine, self.theirs, self.together)
        return tuple(sorted({*step.clashes, *behind.clashes}))

    @property
    def merged(self) -> Row | None:
        """What a three-way merge gives, None where it is not clean."""
        # A row that is missing on one side is nothing to merge: what was inserted may have been deleted since.
        if self.base is None or self.first is None or self.mine is None or self.theirs is None:
            return None
        step = merge(self.base, self.first, self.theirs, self.together)
        behind = merge(self.first, self.mine, step.row, self.together)
        return behind.row if step.is_clean and behind.is_clean else None

    def keep_mine(self) -> None:
        """Lay the cells that mine changed over theirs; a row deleted there comes back, one deleted here goes."""
        self._told(self._of_view()._settle(self.table, [self.key], "mine", [self.version]))

    def take_theirs(self) -> None:
        """Let this row be as it is there."""
        self._told(self._of_view()._settle(self.table, [self.key], "theirs", [self.version]))

    def resolve(self, values: Mapping[str, Any]) -> None:
        """Lay the given columns over theirs (over mine where the row is not there).

        Raises
        ------
        SyncError
            If a newer remote row has come since this conflict was read; nothing is done then.
        """
        self._told(self._of_view()._choose(self.table, [(self, dict(values))]))

    def _told(self, late: Sequence[Any]) -> None:
        if late:
            raise SyncError(
                f"row {self.key!r} of {self.table!r} is not in this conflict any more, "
                "or a newer remote row has come; nothing was done",
                hint=f"look again: ctx.conflicts[{self.table!r}, {self.key!r}]",
            )

    def _of_view(self) -> ConflictView:
        if self._view is None:
            raise SyncError("this conflict is not part of a queue")
        return self._view


class ConflictView:
    """The conflicts that stand, of all tables or of some."""

    def __init__(self, store: Store, queue: Queue, tables: Collection[str] | None = None) -> None:
        self._store, self._queue, self._tables = store, queue, tables

    def __len__(self) -> int:
        with self._store.reading() as cursor:
            layouts = self._store.layouts(cursor, self._tables)
            return sum(self._queue.counts(cursor, layout)["conflicts"] for layout in layouts)

    def __iter__(self) -> Iterator[Conflict]:
        with self._store.reading() as cursor:
            tables = [layout.table for layout in self._store.layouts(cursor, self._tables)]
        for table in tables:
            yield from self._of(table)

    def __getitem__(self, wanted: str | tuple[str, Any]) -> Any:
        """`[table]`: the conflicts of a table; `[table, key]`: that one."""
        if (
            isinstance(wanted, str)
            and self._tables is not None
            and len(self._tables) == 1
            and wanted not in self._tables
        ):
            wanted = (next(iter(self._tables)), wanted)  # of one table's conflicts, a key
        if isinstance(wanted, str):
            return ConflictView(self._store, self._queue, [_known(self._store, wanted)])
        table, key = wanted[0], wanted[1] if len(wanted) == 2 else tuple(wanted[1:])
        with self._store.reading() as cursor:
            found = self._read(cursor, self._store.layout(cursor, table), [key])
        if not found:
            raise KeyColumnError(
                f"row {key!r} of {table!r} is not in conflict", hint="ctx.conflicts lists those that are"
            )
        return found[0]

    def _of(self, table: str) -> Iterator[Conflict]:
        last = -1
        while True:
            with self._store.reading() as cursor:
                layout = self._store.layout(cursor, table)
                page = self._read(cursor, layout, None, last)
                last = self._last
            yield from page
            if len(page) < PAGE_ROWS:
                return

    def _read(self, cursor: Cursor, layout: Layout, keys: Sequence[Any] | None, after: int = -1) -> list[Conflict]:
        state = self._store.state(layout.table)
        together = state.together if state else ()
        only = f"semi join only_keys o using ({layout.keys})" if keys is not None else ""
        tables = {"only_keys": key_table(layout, keys)} if keys is not None else {}
        rows = cursor.arrow(
            f"""
            select h.sequence, {layout.keys_of("h")}, r.rev is not null as base_there, m.deleted as mine_deleted,
                   h.deleted as first_deleted, h.remote_deleted, h.remote_version,
                   (m.given | h.given)::varchar as bits, m.follower{layout.also("r.{v} as {b}")}
                   {layout.also("m.{l}")}{layout.also("h.{r}")}{layout.also("h.{l} as {f}")}
            from (select * from {layout.edits} {only} where has_remote and not follower and sequence > {after}) h
            join {layout.lasts} m on {layout.on("m", "h")}
            left join {layout.rows} r on {layout.on("r", "h")} order by h.sequence limit {PAGE_ROWS}
            """,
            **tables,
        ).to_pylist()
        self._last = rows[-1]["sequence"] if rows else after
        return [self._conflict(layout, row, together) for row in rows]

    def _conflict(self, layout: Layout, row: dict[str, Any], together: tuple[tuple[str, ...], ...]) -> Conflict:
        base = _values(layout, row, "b_") if row["base_there"] else None
        mine = None if row["mine_deleted"] else _values(layout, row, "l_", None if base else row["bits"])
        theirs = None if row["remote_deleted"] else _values(layout, row, "r_")
        first = None if row["first_deleted"] else _values(layout, row, "f_") if row["follower"] else mine
        kind = "insert" if base is None else "delete" if row["first_deleted"] else "update"
        version = row["remote_version"]
        return Conflict(layout.table, key_of(layout, row), kind, base, mine, theirs, version, first, together, self)

    def frame(self) -> pd.DataFrame:
        """One row per differing cell, with columns table, key, column, base, mine, theirs."""
        columns = ["table", "key", "column", "base", "mine", "theirs"]
        rows = [row for conflict in self for row in _conflict_cells(conflict)]
        frame = pd.DataFrame({name: pd.Series([r[i] for r in rows], dtype=object) for i, name in enumerate(columns)})
        return frame.astype({"table": "str", "column": "str"})

    def keep_mine(self, table: str | None = None, column: str | None = None, where: str | None = None) -> int:
        """Settle all that are shown by what was edited here; return how many."""
        return self._settle_many("mine", table, column, where)

    def take_theirs(self, table: str | None = None, column: str | None = None, where: str | None = None) -> int:
        """Settle all that are shown by what is there; return how many."""
        return self._settle_many("theirs", table, column, where)

    def resolve(self, how: Callable[[Conflict], object] | pd.DataFrame) -> int:
        """Settle many at once by a callable; return how many.

        It gets each Conflict and gives "mine", "theirs", a mapping column -> value, or None to leave it.
        """
        if not callable(how):
            raise SyncError(
                "resolving by a frame is not there yet",
                hint="give a callable Conflict -> 'mine' | 'theirs' | mapping | None",
            )
        return settle_by(self, how)

    def _settle_many(self, side: str, table: str | None, column: str | None, where: str | None) -> int:
        if column is not None:
            return self._settle_column(side, table, column, where)
        tables = self._tables if table is None else [table]
        with self._store.transaction() as cursor:
            rev, _ = self._store.tick(cursor)  # one call, so that one undo opens them again
            return sum(
                self._settle_in(cursor, layout, side, self._matching(cursor, layout, where), rev)
                for layout in self._store.layouts(cursor, tables)
            )

    def _settle_column(self, side: str, table: str | None, column: str, where: str | None) -> int:
        raise SyncError(
            "settling one column of many conflicts is not there yet",
            hint="conflict.resolve({column: value}) settles one",
        )

    def _matching(self, cursor: Cursor, layout: Layout, where: str | None) -> pa.Table | None:
        """Keys whose row as it is here meets the condition; None: all."""
        condition = parsed(where, layout.schema)
        if condition is None:
            return None
        statement, parameters = self._store.select(layout, layout.schema.key, condition)
        found = cursor.arrow(statement, parameters)
        return found.rename_columns([f"k_{name}" for name in layout.schema.key])

    def _settle_in(
        self, cursor: Cursor, layout: Layout, side: str, keys: pa.Table | None, rev: int | None = None
    ) -> int:
        return (self._queue.keep_mine if side == "mine" else self._queue.take_theirs)(cursor, layout, keys, rev)

    def _settle(self, table: str, keys: Sequence[Any], side: str, versions: Sequence[str | None]) -> list[Any]:
        """Settle the conflicts named; return the keys of those that a newer remote has overtaken."""
        with self._store.transaction() as cursor:
            layout = self._store.layout(cursor, table)
            standing = {c.key: c.version for c in self._read(cursor, layout, keys)}
            late = [k for k, v in zip(keys, versions, strict=True) if k not in standing or standing[k] != v]
            fresh = [k for k in keys if k not in late]
            if fresh:
                self._settle_in(cursor, layout, side, key_table(layout, fresh))
            return late

    def _choose(self, table: str, chosen: Sequence[tuple[Conflict, dict[str, Any]]]) -> list[Any]:
        """Settle conflicts by given cells; return the keys that a newer remote has overtaken or that stand no more."""
        with self._store.transaction() as cursor:
            layout = self._store.layout(cursor, table)
            rows = [_chosen_row(layout, conflict, values) for conflict, values in chosen]
            fitted = normalise(object_frame(rows), layout.schema).rows
            names = {n: f"k_{n}" for n in layout.schema.key} | {n: f"n_{n}" for n in layout.schema.values}
            table_ = fitted.rename_columns([names[n] for n in fitted.column_names])
            table_ = table_.append_column("now_deleted", pa.array([False] * len(rows), pa.bool_()))
            table_ = table_.append_column("looked_at", pa.array([c.version for c, _ in chosen], pa.string()))
            standing = {c.key for c in self._read(cursor, layout, [c.key for c, _ in chosen])}
            late = self._queue.resolve(cursor, layout, table_)
            return late + [c.key for c, _ in chosen if c.key not in standing]

    def __repr__(self) -> str:
        total = len(self)
        return f"Conflicts: {total}" + (f"\n{self.frame().head(SHOWN_ROWS).to_string()}" if total else "")

    def _repr_html_(self) -> str:
        return f"<p>Conflicts: {len(self)}</p>{self.frame().head(SHOWN_ROWS).to_html()}"


def _known(store: Store, table: str) -> str:
    tables = store.tables()
    if table not in tables:
        raise SyncError(f"table {table!r} is not in this store", hint=f"it has {shown(tables) or 'none yet'}")
    return table


def settle_by(view: ConflictView, how: Callable[[Conflict], object]) -> int:
    """Ask a callable about each conflict and settle those it decides.

    An error in it leaves that conflict as it was; it is told in a warning that names the row.
    """
    import warnings

    settled = 0
    for conflict in list(view):
        try:
            settled += _apply(conflict, _decided(how, conflict))
        except SyncError as error:
            warnings.warn(
                f"conflict on row {conflict.key!r} of {conflict.table!r} is left as it was: {error.message}",
                stacklevel=3,
            )
    return settled


def _decided(how: Callable[[Conflict], object], conflict: Conflict) -> object:
    try:
        return how(conflict)
    except Exception as error:
        raise SyncError(f"{type(error).__name__}: {error}") from error


def _apply(conflict: Conflict, decision: object) -> int:
    if decision is None:
        return 0
    if isinstance(decision, Mapping):
        conflict.resolve(decision)
    elif decision == "mine":
        conflict.keep_mine()
    elif decision == "theirs":
        conflict.take_theirs()
    else:
        raise SyncError(f"{decision!r} is no decision", hint="'mine', 'theirs', a mapping column -> value, or None")
    return 1


def _chosen_row(layout: Layout, conflict: Conflict, values: dict[str, Any]) -> dict[str, Any]:
    unknown = [name for name in values if name not in layout.schema.names]
    if unknown:
        raise SyncError(
            f"columns {shown(unknown)} are not among those of {layout.table!r}",
            hint=f"they are {shown(layout.schema.names)}",
        )
    keys = zip(layout.schema.key, _parts(layout, conflict.key), strict=True)
    row = {**(conflict.theirs or conflict.mine or {}), **values}
    return {**dict.fromkeys(layout.schema.names), **row, **dict(keys)}


def _operation_rows(cursor: Cursor, layout: Layout, condition: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = cursor.arrow(
        f"select * replace (given::varchar as given) from ({operations_source(layout)}) where {condition}"
    ).to_pylist()
    return rows


def operation_of(layout: Layout, row: dict[str, Any], act: Callable[[str, Operation], None] | None = None) -> Operation:
    """An Operation from one row of `operations_source`."""
    base = _values(layout, row, "b_") if row["base_there"] else None
    local = None if row["deleted"] else _values(layout, row, "l_", None if base else row["given"])
    remote = _values(layout, row, "r_") if row["has_remote"] and not row["remote_deleted"] else None
    error = Refusal(row["error_code"], row["error_column"], row["error_message"]) if row["error_code"] else None
    return Operation(
        row["id"], layout.table, key_of(layout, row), base, local, bool(row["attempted"]), error, remote,
        row["staged_at"], layout.schema.key, act,
    )  # fmt: skip


def sent_operation(layout: Layout, row: dict[str, Any]) -> Operation:
    """An Operation from one row of what was sent."""
    base = _values(layout, row, "b_") if row["base_there"] else None
    local = None if row["is_deleted"] else _values(layout, row, "l_", None if base else row["bits"])
    return Operation(
        row["operation_id"],
        layout.table,
        key_of(layout, row),
        base,
        local,
        staged_at=row["staged_at"],
        key_names=layout.schema.key,
    )


def _values(layout: Layout, row: dict[str, Any], prefix: str, bits: str | None = None) -> Row:
    """A mapping column -> Python value, the key's columns first; of an insert (with its bits) the given ones only."""
    keys = {name: row[f"k_{name}"] for name in layout.schema.key}
    names = [n for i, n in enumerate(layout.schema.values, 1) if bits is None or bits[i] == "1"]
    return keys | {name: row[prefix + name] for name in names}


def key_of(layout: Layout, row: Mapping[str, Any]) -> Any:
    values = tuple(row[f"k_{name}"] for name in layout.schema.key)
    return values[0] if len(values) == 1 else values


def _parts(layout: Layout, key: Any) -> tuple[Any, ...]:
    return (key,) if len(layout.schema.key) == 1 else tuple(key)


def key_table(layout: Layout, keys: Sequence[Any]) -> pa.Table:
    """Keys as people write them as an Arrow table k_*.

    Raises
    ------
    KeyColumnError
        If a key does not have the key's parts or types.
    """
    width = len(layout.schema.key)
    wrong = [k for k in keys if width > 1 and not (isinstance(k, (tuple, list)) and len(k) == width)]
    if wrong:
        raise KeyColumnError(
            f"key {wrong[0]!r} of {layout.table!r}: expected a tuple ({', '.join(layout.schema.key)})", hint=_KEY_HINT
        )
    columns = {
        n: pd.Series([_parts(layout, key)[i] for key in keys], dtype=object) for i, n in enumerate(layout.schema.key)
    }
    try:
        fitted = normalise(pd.DataFrame(columns), Schema(layout.schema.key_columns, layout.schema.key))
    except SchemaError as error:
        types = ", ".join(f"{c.name} {c.type}" for c in layout.schema.key_columns)
        raise KeyColumnError(
            f"keys {shown(keys)} do not fit the key of {layout.table!r} ({types}): {error.message}", hint=_KEY_HINT
        ) from error
    if fitted.missing_keys.size:
        raise KeyColumnError(f"a key of {layout.table!r} is empty", hint=_KEY_HINT)
    return fitted.rows.rename_columns([f"k_{name}" for name in fitted.rows.column_names])


def _short(value: Any) -> str:
    return "NULL" if value is None else f"{value!r:.40}"


def _cells(operation: Operation) -> list[tuple[Any, ...]]:
    tail = (operation.staged_at, operation.attempted, str(operation.error) if operation.error else None)
    head = (operation.table, operation.key, operation.kind)
    if operation.kind != "update" or operation.base is None or operation.local is None:
        return [(*head, None, None, None, *tail)]
    return [(*head, name, operation.base[name], operation.local[name], *tail) for name in operation.changed]


def _conflict_cells(conflict: Conflict) -> list[tuple[Any, ...]]:
    base, mine, theirs = conflict.base or {}, conflict.mine or {}, conflict.theirs or {}
    names = [n for n in {**theirs, **mine} if not same(mine.get(n), theirs.get(n))]
    return [(conflict.table, conflict.key, n, base.get(n), mine.get(n), theirs.get(n)) for n in names]
