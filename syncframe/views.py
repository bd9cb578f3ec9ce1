"""What people look at: pending operations and conflicts, one by one or as frames.

The queue stays a table; these classes read it page by page, and settle conflicts one by one or many at once.
"""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any, overload

import pandas as pd
import pyarrow as pa

from . import words
from .conflict import merge
from .decisions import SEEN, check_decisions, decided_cells, frame_of_conflicts
from .errors import KeyColumnError, SyncError
from .file import Cursor
from .frame import hand_out, listed_frame, normalise, object_frame
from .keys import key_of, key_table, parts
from .layout import META, Layout
from .operation import CELLS_SHOWN, Operation, Refusal, Row, operation_words, operations_table, same, state_words
from .queue import KINDS, Queue
from .resolve import Settled
from .schema import quote, shown
from .store import Store, operations_source, parsed

PAGE_ROWS = 1_000
PAGE_ROWS_OF_ALL = 10_000  # where all are read: each page is joined with the whole queue
COLUMNS_SHOWN = 8  # of one conflict among others


class PendingView:
    """What is queued, of all tables or of some; always as the store has it now."""

    def __init__(self, store: Store, queue: Queue, tables: Collection[str] | None = None) -> None:
        self._store, self._queue, self._tables = store, queue, tables

    def __len__(self) -> int:
        with self._store.reading() as cursor:
            return self._queue.pending(cursor, self._tables)

    def __iter__(self) -> Iterator[Operation]:
        """The operations in sequence, read page by page."""
        return self._in_sequence("true", PAGE_ROWS)

    def first(self, count: int, *, rejected: bool = False) -> list[Operation]:
        """The first operations, or the first of those that the back end refused; no more are read."""
        condition = "error_code is not null" if rejected else "true"
        with self._store.reading():
            return list(islice(self._in_sequence(condition, count), count))

    def rejected(self) -> Iterator[Operation]:
        """The operations that the back end refused, in sequence."""
        return self._in_sequence("error_code is not null", PAGE_ROWS)

    def _in_sequence(self, condition: str, page_rows: int) -> Iterator[Operation]:
        with self._store.reading() as cursor:
            tables = [layout.table for layout in self._store.layouts(cursor, self._tables)]
        pages = (self._of(table, condition, page_rows) for table in tables)
        return (operation for _, operation in heapq.merge(*pages, key=lambda pair: pair[0]))

    def __getitem__(self, table: str) -> PendingView:
        return PendingView(self._store, self._queue, [self._store.known(table)])

    def _of(self, table: str, condition: str, page_rows: int) -> Iterator[tuple[int, Operation]]:
        last = -1
        while True:
            with self._store.reading() as cursor:
                layout = self._store.layout(cursor, table)
                after = f"{condition} and sequence > {last} order by sequence limit {page_rows}"
                page = _operation_rows(cursor, layout, after)
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
                found = self._queue.figures(cursor, layout)
                if any(found[kind] for kind in KINDS):
                    counts.append({"table": layout.table, **found})
        frame = pd.DataFrame(counts, columns=["table", *KINDS])
        return frame.astype(dict.fromkeys(KINDS, "int64")).set_index("table")

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
        frame = listed_frame(columns, [row for operation in self for row in _cells(operation)])
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
        counts, total, first = self._shown()
        if not total:
            return "Pending: nothing"
        lines = [f"Pending: {words.many(total, 'operation')}", *words.table(*counts), ""]
        for operation in first:
            lines += [operation_words(operation), *(f"  {state}" for state in state_words(operation))]
        return "\n".join([*lines, *self._more(total)])

    def _repr_html_(self) -> str:
        counts, total, first = self._shown()
        if not total:
            return words.html(words.paragraphs(["Pending: nothing"]))
        return words.html(
            words.html_table(*counts, caption=f"Pending: {words.many(total, 'operation')}", code=[0]),
            operations_table(first, "In the order they were staged", has_states=True),
            words.paragraphs(self._more(total)),
        )

    def _shown(self) -> tuple[Table, int, list[Operation]]:
        """The counts as a table, how many operations there are, and the first of them."""
        with self._store.reading() as cursor:
            layouts = self._store.layouts(cursor, self._tables)
            found = {layout.table: self._queue.figures(cursor, layout) for layout in layouts}
            first = self.first(words.SHOWN_ROWS)
        found = {table: counts for table, counts in found.items() if any(counts[kind] for kind in KINDS)}
        total = sum(counts[kind] for counts in found.values() for kind in KINDS)
        extra = [n for n in ("conflicts", "rejected") if any(counts[n] for counts in found.values())]
        names = [*KINDS, *extra]
        rows = [[words.name(table), *(words.figure(counts[n]) for n in names)] for table, counts in found.items()]
        return (["table", *names], rows), total, first

    def _more(self, total: int) -> list[str]:
        return words.left_out(total, words.SHOWN_ROWS, f"{_called('pending', self._tables)}.frame() has all")


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
    key_names: tuple[str, ...] = field(default=(), repr=False)
    _view: ConflictView | None = field(default=None, repr=False, compare=False)
    _edited: int = field(default=0, repr=False, compare=False)  # the revision of the newest edit that is in mine

    def __repr__(self) -> str:
        return f"Conflict({conflict_words(self)})"

    def _repr_html_(self) -> str:
        title, names, rows = self._title(), ["column", "base", "mine", "theirs"], conflict_cells(self)
        table = words.html_table(names, rows, caption=title, code=[0, 1, 2, 3])
        more = words.left_out(len(rows), words.SHOWN_ROWS)
        return words.html(table if rows else words.paragraphs([title]), words.paragraphs([*more, _HOW_ONE]))

    def _title(self) -> str:
        return f"{words.name(self.table)} {words.key(self.key)}: {_what(self)}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns changed on both sides, differently."""
        if self.mine is None or self.theirs is None:
            return ()
        if self.base is None or self.first is None:
            return tuple(sorted(n for n, v in self.mine.items() if n in self.theirs and not same(v, self.theirs[n])))
        step = merge(self.base, self.first, self.theirs, self.together)
        behind = merge(self.first, self.mine, step.row, self.together)
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
        self._decide("mine")

    def take_theirs(self) -> None:
        """Let this row be as it is there."""
        self._decide("theirs")

    def resolve(self, values: Mapping[str, Any]) -> None:
        """Lay the given columns over theirs (over mine where the row is not there).

        Raises
        ------
        SyncError
            If a newer remote row, or another edit of it, has come since this conflict was read; nothing is done then.
        """
        self._decide(dict(values))

    def _decide(self, decision: object) -> None:
        if self._of_view()._settle([(self, decision)]):
            raise SyncError(
                f"row {self.key!r} of {self.table!r} is not in this conflict any more, "
                "or a newer remote row or edit has come; nothing was done",
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
        return self._by_table(PAGE_ROWS)

    def first(self, count: int) -> list[Conflict]:
        """The first conflicts; no more are read."""
        with self._store.reading():
            return list(islice(self._by_table(count), count))

    def _by_table(self, page_rows: int) -> Iterator[Conflict]:
        with self._store.reading() as cursor:
            tables = [layout.table for layout in self._store.layouts(cursor, self._tables)]
        for table in tables:
            yield from self._of(table, page_rows)

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
            return ConflictView(self._store, self._queue, [self._store.known(wanted)])
        table, key = wanted[0], wanted[1] if len(wanted) == 2 else tuple(wanted[1:])
        with self._store.reading() as cursor:
            found = self._read(cursor, self._store.layout(cursor, table), [key])
        if not found:
            raise KeyColumnError(
                f"row {key!r} of {table!r} is not in conflict", hint="ctx.conflicts lists those that are"
            )
        return found[0]

    def _of(self, table: str, page_rows: int) -> Iterator[Conflict]:
        last = -1
        while True:
            with self._store.reading() as cursor:
                layout = self._store.layout(cursor, table)
                page = self._read(cursor, layout, None, last, page_rows)
                last = self._last
            yield from page
            if len(page) < page_rows:
                return

    def _read(
        self,
        cursor: Cursor,
        layout: Layout,
        keys: Sequence[Any] | None,
        after: int = -1,
        page_rows: int = PAGE_ROWS,
    ) -> list[Conflict]:
        together = self._store.together(layout.table)
        only = f"semi join only_keys o using ({layout.keys})" if keys is not None else ""
        tables = {"only_keys": key_table(layout, keys)} if keys is not None else {}
        rows = cursor.arrow(
            f"""
            select h.sequence, {layout.keys_of("h")}, r.rev is not null as base_there, m.deleted as mine_deleted,
                   h.deleted as first_deleted, h.remote_deleted, h.remote_version, greatest(h.rev, m.rev) as edited,
                   (m.given | h.given)::varchar as bits, m.follower{layout.also("r.{v} as {b}")}
                   {layout.also("m.{l}")}{layout.also("h.{r}")}{layout.also("h.{l} as {f}")}
            from (select * from {layout.edits} {only} where has_remote and not follower and sequence > {after}) h
            join {layout.lasts} m on {layout.on("m", "h")}
            left join {layout.rows} r on {layout.on("r", "h")} order by h.sequence limit {page_rows}
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
        return Conflict(
            layout.table, key_of(layout, row), kind, base, mine, theirs, row["remote_version"], first, together,
            layout.schema.key, self, row["edited"],
        )  # fmt: skip

    def frame(self) -> pd.DataFrame:
        """One row per differing cell, with columns table, key, column, base, mine, theirs.

        Cells that they alone have changed are among them, with mine as it was in base: taking mine there takes their
        change back.
        """
        with self._store.reading() as cursor:
            found = [frame_of_conflicts(cursor, layout) for layout in self._layouts(cursor, None)]
            rev = cursor.one(f"select rev from {META}.store")
        empty = pd.DataFrame(columns=["table", "key", "column", "base", "mine", "theirs"], dtype=object)
        frame = pd.concat([part for part in found if len(part)] or [empty], ignore_index=True)
        frame = frame.astype({"table": "str", "column": "str"})
        frame.attrs[SEEN] = rev
        return frame

    def keep_mine(self, table: str | None = None, column: str | None = None, where: str | None = None) -> int:
        """Settle all that are shown by what was edited here; return how many.

        Parameters
        ----------
        table
            Whose conflicts; None: of all tables shown here.
        column
            Settle this column alone, with those that are kept together with it; the others stay open.  A conflict
            in which no other column clashes is settled with it.
        where
            A SQL condition on the rows as they are here.
        """
        return self._settle_many("mine", table, column, where)

    def take_theirs(self, table: str | None = None, column: str | None = None, where: str | None = None) -> int:
        """Settle all that are shown by what is there; return how many.  Its options are those of `keep_mine`."""
        return self._settle_many("theirs", table, column, where)

    def merge(self, table: str | None = None) -> int:
        """Settle those in which no column was changed on both sides, differently; return how many.

        A column changed on one side is taken from that side; columns that `keep_together` names count as one.  Where
        a side has deleted the row, or both have made it, there is nothing to merge: the conflict stays.
        """
        with self._store.transaction() as cursor:
            rev, _ = self._store.tick(cursor)
            return sum(self._queue.merge(cursor, layout, rev) for layout in self._layouts(cursor, table))

    def resolve(self, how: Callable[[Conflict], object] | pd.DataFrame) -> int:
        """Settle many at once, by a callable or a frame, in one transaction; return how many stand no more.

        Parameters
        ----------
        how
            A callable that gets each Conflict and gives "mine", "theirs", a mapping column -> value, or None to leave
            it.  An error in it leaves that conflict as it was; it is told in a warning that names the row.

            Or the frame of `frame()`, or any rows of it, with a column ``result``: the chosen values.  Cells that it
            does not name are merged; a conflict stays open while a column that it does not name clashes.  Of a row
            that one side has deleted, results that are all empty choose that side.

        Warns
        -----
        UserWarning
            Of rows that are left, because what is there is not what the frame or the callable has seen.

        Raises
        ------
        SyncError, SchemaError, KeyColumnError
            If the frame lacks a column, names a cell twice or a row that is none, or a value does not fit its column;
            nothing is done then.
        """
        return settle_by(self, how) if callable(how) else self._resolve_frame(how)

    def _resolve_frame(self, frame: pd.DataFrame) -> int:
        check_decisions(frame)
        total = Settled()
        with self._store.transaction() as cursor:
            rev, _ = self._store.tick(cursor)
            for table, decisions in frame.groupby("table", sort=False):
                decisions.attrs = frame.attrs
                layout = self._store.layout(cursor, self._store.known(str(table)))
                cells = decided_cells(cursor, layout, decisions)
                total += self._queue.settle_cells(cursor, layout, cells, rev=rev)
        _warn_late(total.late)
        _warn_left(total.left)
        return total.settled

    def _settle_many(self, side: str, table: str | None, column: str | None, where: str | None) -> int:
        total = Settled()
        with self._store.transaction() as cursor:
            rev, _ = self._store.tick(cursor)  # one call, so that one undo opens them again
            layouts = self._layouts(cursor, table)
            if column is not None and not any(column in layout.schema.values for layout in layouts):
                names = ", ".join(repr(layout.table) for layout in layouts)
                raise SyncError(
                    f"{column!r} is no column of {names or 'any table here'}",
                    hint="a column that is not part of the key; ctx.conflicts.frame() lists those that differ",
                )
            for layout in layouts:
                if column is None or column in layout.schema.values:
                    keys = self._matching(cursor, layout, where)
                    total += self._settle_in(cursor, layout, side, column, keys, rev)
        _warn_left(total.left)
        return total.settled

    def _layouts(self, cursor: Cursor, table: str | None) -> list[Layout]:
        return list(self._store.layouts(cursor, self._tables if table is None else [self._store.known(table)]))

    def _layout_of(self, table: str) -> Layout:
        with self._store.reading() as cursor:
            return self._store.layout(cursor, table)

    def _matching(self, cursor: Cursor, layout: Layout, where: str | None) -> pa.Table | None:
        """Keys whose row as it is here meets the condition; None: all."""
        condition = parsed(where, layout.schema)
        if condition is None:
            return None
        statement, parameters = self._store.select(layout, layout.schema.key, condition)
        found = cursor.arrow(statement, parameters)
        return found.rename_columns([f"k_{name}" for name in layout.schema.key])

    def _settle_in(
        self, cursor: Cursor, layout: Layout, side: str, column: str | None, keys: pa.Table | None, rev: int
    ) -> Settled:
        if column is not None:
            return self._queue.settle_column(cursor, layout, column, side, keys, rev)
        settle = self._queue.keep_mine if side == "mine" else self._queue.take_theirs
        return Settled(settle(cursor, layout, keys, rev))

    def _settle(self, decisions: Sequence[tuple[Conflict, object]]) -> list[Conflict]:
        """Settle these, in one transaction; return those that stand no more, or that a newer remote has overtaken."""
        late = []
        with self._store.transaction() as cursor:
            rev, _ = self._store.tick(cursor)
            for table in dict.fromkeys(conflict.table for conflict, _ in decisions):
                layout = self._store.layout(cursor, table)
                own = [(c, decision) for c, decision in decisions if c.table == table]
                overtaken = set(self._overtaken(cursor, layout, own))
                late += [c for place, (c, _) in enumerate(own) if place in overtaken]
                self._settle_table(cursor, layout, [one for i, one in enumerate(own) if i not in overtaken], rev)
        return late

    def _settle_table(
        self, cursor: Cursor, layout: Layout, decisions: Sequence[tuple[Conflict, object]], rev: int
    ) -> None:
        for side in ("mine", "theirs"):
            if keys := [conflict.key for conflict, decision in decisions if decision == side]:
                self._settle_in(cursor, layout, side, None, key_table(layout, keys), rev)
        chosen = [(c, dict(decision)) for c, decision in decisions if isinstance(decision, Mapping)]
        if chosen:
            self._queue.resolve(cursor, layout, _chosen_rows(layout, chosen), rev=rev)

    def _overtaken(self, cursor: Cursor, layout: Layout, decisions: Sequence[tuple[Conflict, object]]) -> list[int]:
        """The places of those that are not in this conflict any more, or that would undo an edit made here since."""
        seen = key_table(layout, [conflict.key for conflict, _ in decisions])
        seen = seen.append_column("looked_at", pa.array([c.version for c, _ in decisions], pa.string()))
        edited = [None if how == "mine" else conflict._edited for conflict, how in decisions]  # mine keeps newer edits
        seen = seen.append_column("edited", pa.array(edited, pa.int64()))
        seen = seen.append_column("place", pa.array(range(len(decisions))))
        standing = cursor.arrow(
            f"""
            select s.place from seen s join {layout.firsts} h on {layout.on("h", "s")}
            join {layout.lasts} m on {layout.on("m", "s")}
            where h.has_remote and h.remote_version is not distinct from s.looked_at
              and coalesce(greatest(h.rev, m.rev) <= s.edited, true)
            """,
            seen=seen,
        )["place"].to_pylist()
        return sorted(set(range(len(decisions))) - set(standing))

    def __repr__(self) -> str:
        total, first = self._shown()
        if not total:
            return "Conflicts: none"
        lines = [f"Conflicts: {total:,}"]
        for conflict in first:
            lines += ["", conflict._title(), *conflict_table(conflict)]
        return "\n".join([*lines, "", *self._more(total, first)])

    def _repr_html_(self) -> str:
        total, first = self._shown()
        if not total:
            return words.html(words.paragraphs(["Conflicts: none"]))
        names = ["table", "key", "what", "column", "base", "mine", "theirs"]
        rows = [row for conflict in first for row in _html_rows(conflict)]
        return words.html(
            words.html_table(names, rows, caption=f"Conflicts: {total:,}", code=[0, 1, 3, 4, 5, 6]),
            words.paragraphs(self._more(total, first)),
        )

    def _more(self, total: int, first: Sequence[Conflict]) -> list[str]:
        """What stands below those that are shown: how many more there are, and how they are settled."""
        all_of_them = _called("conflicts", self._tables)
        return [
            *words.left_out(total, len(first), f"{all_of_them}.frame() has all"),
            f"settle one: {_indexed(first[0])}.keep_mine(), .take_theirs() or .resolve({{column: value}})",
            f"settle all: {all_of_them}.keep_mine() or .take_theirs()",
        ]

    def _shown(self) -> tuple[int, list[Conflict]]:
        """How many there are, and as many of the first as have no more cells than are shown."""
        with self._store.reading():
            total, first = len(self), self.first(words.SHOWN_ROWS)
        lines = list(accumulate(len(_html_rows(conflict)) for conflict in first))
        return total, first[: max(1, sum(count <= words.SHOWN_ROWS for count in lines))]


def settle_by(view: ConflictView, how: Callable[[Conflict], object]) -> int:
    """Ask a callable about each conflict and settle those it decides, in one transaction; return how many.

    An error in it leaves that conflict as it was; it is told in a warning that names the row.
    """
    decisions = []
    for conflict in view._by_table(PAGE_ROWS_OF_ALL):
        try:
            decision = _decided(how, conflict)
        except SyncError as error:
            _warn(conflict, error.message)
        else:
            if decision is not None:
                decisions.append((conflict, decision))
    late = view._settle(decisions) if decisions else []
    _warn_late([conflict.key for conflict in late])
    return len(decisions) - len(late)


def _decided(how: Callable[[Conflict], object], conflict: Conflict) -> object:
    """What a callable says of a conflict, checked, so that one that is wrong leaves that row alone."""
    try:
        decision = how(conflict)
    except Exception as error:
        raise SyncError(f"{type(error).__name__}: {error}") from error
    if isinstance(decision, Mapping):
        _chosen_rows(conflict._of_view()._layout_of(conflict.table), [(conflict, dict(decision))])
    elif decision not in (None, "mine", "theirs"):
        raise SyncError(f"{decision!r} is no decision", hint="'mine', 'theirs', a mapping column -> value, or None")
    return decision


def _warn(conflict: Conflict, message: str) -> None:
    warnings.warn(f"conflict on row {conflict.key!r} of {conflict.table!r} is left as it was: {message}", stacklevel=4)


def _warn_late(late: Sequence[Any]) -> None:
    if late:
        warnings.warn(
            f"{words.many(len(late), 'row')} left as they were, for they are in no conflict any more or a newer remote "
            f"row or edit has come: {shown(late)}; look again at ctx.conflicts",
            stacklevel=4,
        )


def _warn_left(left: Sequence[Any]) -> None:
    if left:
        warnings.warn(
            f"{words.many(len(left), 'row')} left as they were, for both sides made them or an edit waits behind one "
            f"that was sent: {shown(left)}; decide all columns of theirs that clash in one call",
            stacklevel=4,
        )


def _chosen_rows(layout: Layout, chosen: Sequence[tuple[Conflict, dict[str, Any]]]) -> pa.Table:
    """The rows that people have chosen, as the queue takes them."""
    rows = [_chosen_row(layout, conflict, values) for conflict, values in chosen]
    fitted = normalise(object_frame(rows), layout.schema).rows
    names = {n: f"k_{n}" for n in layout.schema.key} | {n: f"n_{n}" for n in layout.schema.values}
    table = fitted.rename_columns([names[n] for n in fitted.column_names])
    table = table.append_column("given", pa.array([layout.bits(values) for _, values in chosen], pa.string()))
    table = table.append_column("now_deleted", pa.array([False] * len(rows), pa.bool_()))
    return table.append_column("looked_at", pa.array([c.version for c, _ in chosen], pa.string()))


def _chosen_row(layout: Layout, conflict: Conflict, values: dict[str, Any]) -> dict[str, Any]:
    unknown = [name for name in values if name not in layout.schema.names]
    if unknown:
        raise SyncError(
            f"columns {shown(unknown)} are not among those of {layout.table!r}",
            hint=f"they are {shown(layout.schema.names)}",
        )
    keys = zip(layout.schema.key, parts(layout, conflict.key), strict=True)
    row = {**(conflict.theirs or conflict.mine or {}), **values}
    return {**dict.fromkeys(layout.schema.names), **row, **dict(keys)}


# What is shown

Table = tuple[list[str], list[list[str]]]
_HOW_ONE = "settle it: .keep_mine(), .take_theirs() or .resolve({column: value})"


_APART = "changed on both sides, in different columns: keep_mine() and merge() keep both"


def one_sided(conflict: Conflict) -> str:
    """Words for a row that is not on both sides, or was not before; else nothing."""
    if conflict.mine is None:
        return "you have deleted it, they have changed it"
    if conflict.theirs is None:
        return "you have changed it, they have deleted it"
    return "both have made it" if conflict.base is None else ""


def _what(conflict: Conflict) -> str:
    return one_sided(conflict) or ("changed on both sides" if conflict.columns else _APART)


def differing(conflict: Conflict) -> Iterator[tuple[str, Any, Any, Any]]:
    """(column, base, mine, theirs) of the cells in which the sides differ; of a row that one side lacks, what the
    other has changed."""
    base, mine, theirs = (side or {} for side in (conflict.base, conflict.mine, conflict.theirs))
    if conflict.mine is None or conflict.theirs is None:
        other = theirs if conflict.mine is None else mine
        names = [n for n in other if not same(other[n], base.get(n))]
    else:
        names = [n for n in theirs if n in mine and not same(mine[n], theirs[n])]
    return ((n, base.get(n), mine.get(n), theirs.get(n)) for n in names)


def conflict_words(conflict: Conflict) -> str:
    """The row and its first cells that differ, on one line."""
    cells = [
        "{}: base {}, mine {}, theirs {}".format(words.name(n), *words.cells(*values))
        for n, *values in islice(differing(conflict), CELLS_SHOWN)
    ]
    is_there = conflict.mine is not None and conflict.theirs is not None
    what = "; ".join(cells) if is_there else one_sided(conflict)
    if _what(conflict) == _APART:
        what += f" ({_APART})"
    return f"{words.name(conflict.table)} {words.key(conflict.key)}: {what}"


def conflict_cells(conflict: Conflict) -> list[list[str]]:
    """The cells that differ, in words; "-" on a side where the row is not."""
    sides = (conflict.base, conflict.mine, conflict.theirs)
    return [
        [words.name(n), *(v if side is not None else "-" for v, side in zip(words.cells(*values), sides, strict=True))]
        for n, *values in differing(conflict)
    ]


def conflict_table(conflict: Conflict) -> list[str]:
    """The lines of a conflict's cells: base, mine, theirs."""
    rows = conflict_cells(conflict)
    more = words.left_out(len(rows), words.SHOWN_ROWS)
    return [*words.table(["", "base", "mine", "theirs"], rows[: words.SHOWN_ROWS], indent="  "), *more]


def _html_rows(conflict: Conflict) -> list[list[str]]:
    head = [words.name(conflict.table), words.key(conflict.key)]
    cells = conflict_cells(conflict) or [[""] * 4]
    more = [[text, "", "", ""] for text in words.left_out(len(cells), COLUMNS_SHOWN)]
    shown = [*cells[:COLUMNS_SHOWN], *more]
    what = [_what(conflict), *[""] * (len(shown) - 1)]
    return [[*head, said, *row] for said, row in zip(what, shown, strict=True)]


def _called(view: str, tables: Collection[str] | None) -> str:
    """How a view is written."""
    return f"ctx.{view}" + (f"[{next(iter(tables))!r}]" if tables is not None and len(tables) == 1 else "")


def _indexed(conflict: Conflict) -> str:
    """How a conflict is written; a key of times and the like would not be Python as it is shown."""
    parts = conflict.key if isinstance(conflict.key, tuple) else (conflict.key,)
    key = words.key(conflict.key) if all(isinstance(part, (str, int)) for part in parts) else "key"
    return f"ctx.conflicts[{conflict.table!r}, {key}]"


class Shown(pd.DataFrame):
    """A DataFrame that shows itself in words; whatever is made from it is a plain one."""

    is_newest_last = False

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __repr__(self) -> str:
        (names, rows), notes = self._words()
        return "\n".join([*words.table(names, rows), *notes]) if rows else f"nothing yet: {', '.join(names)}"

    def _repr_html_(self) -> str:
        (names, rows), notes = self._words()
        code = [i for i, name in enumerate(names) if name in ("table", "note")]
        return words.html(words.html_table(names, rows, code=code), words.paragraphs(notes))

    def _words(self) -> tuple[Table, list[str]]:
        """The rows that are shown, and what stands below them; whatever was made of it in place."""
        shown = self.tail(words.SHOWN_ROWS) if self.is_newest_last else self.head(words.SHOWN_ROWS)
        full = shown.reset_index() if self.index.name is not None and self.index.name not in shown else shown
        has_promises = {"table", "promises"} <= set(full.columns) and full.columns.is_unique
        taken = [i for i, name in enumerate(full.columns) if not (has_promises and name == "promises")]
        names = [str(full.columns[i]) for i in taken]
        rows = [[_figure(full.columns[i], line[i]) for i in taken] for line in full.itertuples(index=False, name=None)]
        notes = [] if self.is_newest_last else words.left_out(len(self), words.SHOWN_ROWS)
        if self.is_newest_last and len(self) > words.SHOWN_ROWS:
            notes.append(f"these are the last {words.SHOWN_ROWS} of {len(self):,} lines")
        said = dict.fromkeys(full["promises"]) if has_promises else {}
        for promise in filter(None, said):
            tables = ", ".join(words.name(t) for t in full.loc[full["promises"] == promise, "table"])
            notes.append(f"{tables}: {promise}")
        return ([name.replace("_", " ") for name in names], rows), notes


class History(Shown):
    """What was done, newest last: of more than are shown, the last."""

    is_newest_last = True


def _figure(name: Hashable, value: Any) -> str:
    if name == "bytes" and isinstance(value, int):
        return words.size(value)
    return words.line(value) if name == "note" and isinstance(value, str) else words.figure(value)


class Recalled(Sequence[Operation]):
    """Operations of several tables, made from Arrow when they are asked for.

    Parameters
    ----------
    title
        What they are, for the display.
    parts
        The rows of each table, as `make` takes them.
    """

    def __init__(
        self,
        title: str,
        parts: Sequence[tuple[Layout, pa.Table]],
        make: Callable[[Layout, dict[str, Any]], Operation],
    ) -> None:
        self._title, self._parts, self._make = title, parts, make

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self._parts)

    @overload
    def __getitem__(self, index: int) -> Operation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Operation]: ...
    def __getitem__(self, index: int | slice) -> Operation | list[Operation]:
        if isinstance(index, slice):
            places = self._places()[index]
            return [self._at(place) for place in places] if len(places) <= PAGE_ROWS else list(self)[index]
        return self._at(self._places()[index])

    def _places(self) -> Sequence[int]:
        """Where each operation stands in the parts, one behind another."""
        return range(len(self))

    def _at(self, place: int) -> Operation:
        for layout, rows in self._parts:
            if place < len(rows):
                return self._make(layout, rows.slice(place, 1).to_pylist()[0])
            place -= len(rows)
        raise IndexError(place)

    def __iter__(self) -> Iterator[Operation]:
        return (operation for part in self._parts for _, operation in self._made(*part))

    def _made(self, layout: Layout, rows: pa.Table) -> Iterator[tuple[dict[str, Any], Operation]]:
        """The rows of one table, a batch at a time, with what is made of them."""
        for batch in rows.to_batches(max_chunksize=PAGE_ROWS):
            yield from ((row, self._make(layout, row)) for row in batch.to_pylist())

    def _headline(self) -> str:
        return f"{self._title}: {words.many(len(self), 'operation')}"

    def __repr__(self) -> str:
        first = [f"  {operation!r}" for operation in islice(self, words.SHOWN_ROWS)]
        return "\n".join([self._headline(), *first, *words.left_out(len(self), words.SHOWN_ROWS)])

    def _repr_html_(self) -> str:
        table = operations_table(islice(self, words.SHOWN_ROWS), self._headline())
        return words.html(table, words.paragraphs(words.left_out(len(self), words.SHOWN_ROWS)))


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
        row["staged_at"], layout.schema.key, bool(row["has_remote"]), act,
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


def _cells(operation: Operation) -> list[tuple[Any, ...]]:
    tail = (operation.staged_at, operation.attempted, str(operation.error) if operation.error else None)
    head = (operation.table, operation.key, operation.kind)
    if operation.kind != "update" or operation.base is None or operation.local is None:
        return [(*head, None, None, None, *tail)]
    return [(*head, name, operation.base[name], operation.local[name], *tail) for name in operation.changed]
