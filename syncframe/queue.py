"""The operation queue: local changes that the back end has not yet accepted.

Frames stage operations here, push takes them in sequence and settles them, and pull rebases them when
a newer remote row arrives.  The queue lives in the same file as the rows, so that a row and its pending
operation change in one transaction: after a crash there is never an edit without its operation, nor an
operation without its edit.

Three ideas carry it, each a few statements over sets.  *Stage*: lay the touched cells over what is shown
and fold them into the operation that waits, or wait behind one whose answer is unknown.  *Learn*: a pulled
row, a conflict or an accepted answer meets the operations on its key.  *Settle*, within it: the answer
becomes the row, and what waited behind is put on it.  Undo is a staging of the inverse, giving up an
attempted operation a staging of its base, and editing a conflict a staging followed by learning the remote
that is known already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from . import resolve, stage, undo
from .file import Cursor
from .layout import META, Layout
from .learn import NO_ERROR, Learnt, learn
from .resolve import Settled
from .schema import quote
from .store import Store, kinds_source, operations_source

BATCH_ROWS = 10_000
KINDS = ("insert", "update", "delete")
FIGURES = (*KINDS, "conflicts", "rejected", "attempted")
RETRIED_CODES = ("reference", "unique")


@dataclass(frozen=True, slots=True)
class Batch:
    """What is sent next: operations of one table, marked as attempted.

    `sent` has the columns of `Operations` and the base's values as `b_<name>`, so that what was sent can be
    shown when it is accepted and no longer in the queue.
    """

    layout: Layout
    sent: pa.Table

    @property
    def table(self) -> str:
        return self.layout.table


class Queue:
    """All statements on operations; each method runs in the caller's transaction."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # -- stage, learn, give up, take back: each in a room of its own

    def stage(
        self,
        cursor: Cursor,
        layout: Layout,
        operations: pa.Table,
        *,
        held: Collection[str],
        revision: int,
        action: str = "stage",
        note: str | None = None,
    ) -> int:
        """Queue the operations of one frame; see `stage.stage`."""
        return stage.stage(
            self.store, cursor, layout, operations, held=held, revision=revision, action=action, note=note
        )

    def learn(self, cursor: Cursor, layout: Layout, rev: int, mode: str = "fail") -> Learnt:
        """Let the remote rows in `hit` meet the operations on their keys; see `learn.learn`."""
        return learn(self.store, cursor, layout, rev, mode)

    def discard(
        self,
        cursor: Cursor,
        layout: Layout,
        keys: pa.Table | None = None,
        action: str = "discard",
        rev: int | None = None,
    ) -> int:
        """Give up operations, of a whole table or of the keys named; see `undo.discard`."""
        return undo.discard(self.store, cursor, layout, keys, action, rev)

    def undo(self, cursor: Cursor, last: undo.Staging) -> list[Any]:
        """Take back a call that changed the queue; see `undo.undo`."""
        return undo.undo(self.store, cursor, last)

    # -- settle conflicts; see `resolve`

    def resolve(
        self, cursor: Cursor, layout: Layout, chosen: pa.Table, action: str = "resolve", rev: int | None = None
    ) -> list[Any]:
        """Settle conflicts by chosen rows; see `resolve.resolve`."""
        return resolve.resolve(self.store, cursor, layout, chosen, action, rev)

    def keep_mine(self, cursor: Cursor, layout: Layout, keys: pa.Table | None, rev: int | None = None) -> int:
        """Settle conflicts, all of them or those named, by the cells that mine changed; return how many."""
        return resolve.keep_mine(self.store, cursor, layout, keys, self.store.together(layout.table), rev)

    def take_theirs(self, cursor: Cursor, layout: Layout, keys: pa.Table | None, rev: int | None = None) -> int:
        """Settle conflicts, all of them or those named, by the remote rows; return how many."""
        return resolve.take_theirs(self.store, cursor, layout, keys, rev)

    def merge(self, cursor: Cursor, layout: Layout, rev: int | None = None, keys: pa.Table | None = None) -> int:
        """Settle the conflicts, all of them or those named, in which no column clashes; return how many."""
        return resolve.merge(self.store, cursor, layout, self.store.together(layout.table), rev, keys)

    def settle_cells(
        self, cursor: Cursor, layout: Layout, decided: pa.Table, action: str = "resolve", rev: int | None = None
    ) -> Settled:
        """Settle cells of conflicts, and what clashes no more; see `resolve.settle_cells`."""
        return resolve.settle_cells(self.store, cursor, layout, decided, self.store.together(layout.table), action, rev)

    def settle_column(
        self, cursor: Cursor, layout: Layout, column: str, side: str, keys: pa.Table | None, rev: int
    ) -> Settled:
        """Settle a column of conflicts, with those that belong to it, for one side; the others stay open."""
        group = next((group for group in self.store.together(layout.table) if column in group), (column,))
        decided = resolve.column_cells(cursor, layout, group, side, keys)
        action = "keep mine" if side == "mine" else "take theirs"
        return self.settle_cells(cursor, layout, decided, action, rev)

    # -- send

    def next_batch(
        self,
        cursor: Cursor,
        tables: Collection[str] | None,
        push: int,
        last: int,
        *,
        is_retry: bool,
        only: pa.Table | None = None,
    ) -> Batch | None:
        """Mark the next operations as attempted and return them; None when nothing is ready.

        A batch is a run of one table's operations in the order they were staged, up to where another
        table's next one stands, so that parents go before their children.

        Parameters
        ----------
        last
            The last place in the queue that this push sends.
        is_retry
            Send what was refused for a reference or a unique value once more, deletes in reverse.
        only
            Of a plan: nothing else is sent; see `planned`.
        """
        ready = _ready(push, last, is_retry, only)
        firsts = []
        for layout in self.store.layouts(cursor, tables):
            turns = f"select min({_turn(is_retry)}) as first from {layout.edits} where {ready}"
            first = cursor.arrow(turns, **_planned(only))["first"][0].as_py()
            if first is not None:
                firsts.append((first, layout))
        if not firsts:
            return None
        firsts.sort(key=lambda pair: pair[0])
        until = firsts[1][0] if len(firsts) > 1 else None
        return self._mark(cursor, firsts[0][1], push, ready, until, is_retry, only)

    def _mark(
        self,
        cursor: Cursor,
        layout: Layout,
        push: int,
        ready: str,
        until: int | None,
        is_retry: bool,
        only: pa.Table | None,
    ) -> Batch:
        turn = _turn(is_retry)
        bound = f" and {turn} < {until}" if until is not None else ""
        cursor.run(
            f"""
            create or replace temp table batch as
            select id from {layout.edits} where {ready}{bound} order by {turn} limit {BATCH_ROWS}
            """,
            **_planned(only),
        )
        sent = self._sent(cursor, layout, turn)
        # Marked at a revision of its own, so that who has looked before knows that it was not attempted then.
        cursor.run(f"update {META}.store set rev = greatest(rev + 1, {push})")
        cursor.run(
            f"""
            update {layout.edits} e set attempted = true, sent = (select rev from {META}.store),
                retry = {str(is_retry).lower()}, {NO_ERROR}
            from batch b where e.id = b.id
            """
        )
        cursor.run("drop table temp.batch")
        return Batch(layout, sent)

    def _sent(self, cursor: Cursor, layout: Layout, turn: str) -> pa.Table:
        changed = layout.each("case when {l} is distinct from {b} then {text} end")
        given = layout.each("case when get_bit(given, {i}) = 1 then {text} end")
        return cursor.arrow(
            f"""
            select o.id as operation_id, kind, coalesce(o.base_version, t.version) as base_version,
                   case kind when 'delete' then []::varchar[]
                             when 'insert' then {_named_list(given)} else {_named_list(changed)} end as given,
                   {layout.keys_of("o")}{layout.also("{l}")}{layout.also("{b}")}, attempted, base_there,
                   deleted as is_deleted, staged_at, given::varchar as bits
            from ({operations_source(layout)}) o semi join batch using (id)
            left join {layout.gone} t on {layout.on("t", "o")} and not o.base_there
            order by {turn}
            """
        )

    def unmark(self, cursor: Cursor, batch: Batch) -> None:
        """Say that a batch was certainly never sent: what was not attempted before is not attempted now."""
        layout = batch.layout
        before = batch.sent.select(["operation_id", "attempted"])
        cursor.run(
            f"""
            update {layout.edits} e set attempted = b.attempted, sent = null
            from unsent b where e.id = b.operation_id and not e.has_remote and e.error_code is null
            """,
            unsent=before,
        )

    def settle(
        self, cursor: Cursor, layout: Layout, outcomes: pa.Table, mode: str = "fail", sent: pa.Table | None = None
    ) -> Learnt:
        """Store what became of pushed operations.

        Parameters
        ----------
        outcomes
            As a back end gives them.
        sent
            The batch: operation_id and whether it was attempted before.
        """
        rev, _ = self.store.tick(cursor)
        self._load_outcomes(cursor, layout, outcomes)
        if sent is not None:
            # Refused at its first sending, it was certainly not applied.
            cursor.run(
                f"""
                update {layout.edits} e set attempted = false from outcome o join sent s using (operation_id)
                where e.id = o.operation_id and o.status = 'conflicted' and not s.attempted
                """,
                sent=sent.select(["operation_id", "attempted"]),
            )
        cursor.run(
            f"""
            create or replace temp table hit as
            select {layout.keys}, version, created, updated,
                   case when status = 'accepted' then coalesce(operation, operation_id) end as operation,
                   deleted, status = 'accepted' as forced{layout.also("{r} as {v}")}
            from outcome where status <> 'rejected'
            """
        )
        learnt = learn(self.store, cursor, layout, rev, mode)
        self._reject(cursor, layout, rev)
        cursor.run("drop table temp.outcome")
        return learnt

    def _load_outcomes(self, cursor: Cursor, layout: Layout, outcomes: pa.Table) -> None:
        present = set(outcomes.column_names)

        def given(name: str, kind: str) -> str:
            return f"o.{quote(name)}::{kind}" if name in present else f"null::{kind}"

        values = "".join(
            f", {given('r_' + c.name, c.store)} as {quote('r_' + c.name)}" for c in layout.schema.value_columns
        )
        cursor.run(
            f"""
            create or replace temp table outcome as
            select {layout.keys_of("e")}, o.operation_id, o.status, {given("code", "varchar")} as code,
                   {given("column", "varchar")} as "column", {given("message", "varchar")} as message,
                   {given("version", "varchar")} as version, {given("operation", "varchar")} as operation,
                   coalesce({given("deleted", "boolean")}, false) as deleted,
                   {given("created", "timestamptz")} as created, {given("updated", "timestamptz")} as updated{values}
            from answers o join {layout.edits} e on e.id = o.operation_id and not e.follower
            where e.attempted  -- else another call has learnt what became of it, and this answer is late
            """,
            answers=outcomes,
        )

    def _reject(self, cursor: Cursor, layout: Layout, rev: int) -> None:
        """Record refusals; what waited behind is folded into a refused operation, for it was certainly not applied."""
        if not cursor.one("select count(*) from outcome where status = 'rejected'"):
            return
        cursor.run(
            f"""
            update {layout.edits} e set attempted = false, error_code = coalesce(o.code, 'rejected'),
                error_column = o.column, error_message = o.message, rev = {rev}
            from outcome o where e.id = o.operation_id and o.status = 'rejected'
            """
        )
        cursor.run(
            f"""
            create or replace temp table waiting as
            select f.*, r.rev is not null as base_there,
                   case when f.deleted then r.rev is null
                        else r.rev is not null and {layout.rows_like("f.{l}", "r.{v}")} end as is_nothing
            from {layout.followers} f join outcome o on {layout.on("f", "o")} and o.status = 'rejected'
            left join {layout.rows} r on {layout.on("r", "f")}
            """
        )
        cursor.run(f"delete from {layout.edits} e using waiting w where e.id = w.id")
        cursor.run(
            f"""
            merge into {layout.edits} e using waiting w on {layout.on("e", "w")}
            when matched and w.is_nothing then delete
            when matched then update set deleted = w.deleted, given = e.given | w.given, {NO_ERROR}, sent = null,
                rev = {rev}, staged_at = w.staged_at,
                sequence = case when w.base_there then w.sequence else e.sequence end
                {layout.also("{l} = w.{l}")}
            """
        )
        cursor.run("drop table temp.waiting")

    def retry(self, cursor: Cursor, layout: Layout, ids: pa.Table | None = None) -> None:
        """Make rejected operations ready again: all of a table, or those named."""
        only = "" if ids is None else " and id in (select id from only_ids)"
        tables = {} if ids is None else {"only_ids": ids}
        cursor.run(
            f"update {layout.edits} set {NO_ERROR}, sent = null where error_code is not null{only}",
            **tables,
        )

    def counts(self, cursor: Cursor, layout: Layout) -> dict[str, int]:
        """Operations of a table: pending, conflicts, rejected."""
        pending, conflicts, rejected = cursor.rows(
            f"""
            select count(*), count(*) filter (where has_remote), count(*) filter (where error_code is not null)
            from {layout.edits}
            """
        )[0]
        return {"pending": pending, "conflicts": conflicts, "rejected": rejected}

    def figures(self, cursor: Cursor, layout: Layout) -> dict[str, int]:
        """Rows of a table as they are here, and its operations: by kind, and those in conflict, rejected, attempted."""
        rows = cursor.one(f"select count(*) from {layout.rows}")
        if not cursor.one(f"select count(*) from {layout.edits}"):
            return {"rows": rows, **dict.fromkeys(FIGURES, 0)}
        *counts, change = cursor.rows(
            f"""
            select count(*) filter (where kind = 'insert'), count(*) filter (where kind = 'update'),
                   count(*) filter (where kind = 'delete'), count(*) filter (where has_remote),
                   count(*) filter (where error_code is not null), count(*) filter (where attempted),
                   -- each operation, applied to the row as it was before it, adds one, takes one or changes none
                   count(*) filter (where kind = 'insert' and not deleted) - count(*) filter (where kind = 'delete')
            from {kinds_source(layout)}
            """
        )[0]
        return {"rows": rows + change, **dict(zip(FIGURES, counts, strict=True))}

    def pending(self, cursor: Cursor, tables: Collection[str] | None = None, only: pa.Table | None = None) -> int:
        """How many operations there are, of these tables and, where that is given, of a plan."""
        layouts = self.store.layouts(cursor, tables)
        if only is None:
            return sum(self.counts(cursor, layout)["pending"] for layout in layouts)
        counted = [f"select id from {layout.edits} where {_IN_PLAN}" for layout in layouts]
        return sum(len(cursor.arrow(ids, **_planned(only))) for ids in counted)

    def planned(self, cursor: Cursor, tables: Collection[str] | None, ids: pa.Table) -> pa.Table:
        """What of a plan stands as it was planned, for a push to send.

        Parameters
        ----------
        ids
            The operations' id, and rev: the revision at which each had last changed.

        Returns
        -------
        Their id and staged_at, by which a push knows them whatever its own answers make of them.  What waited
        behind a refused or conflicted operation is folded into that, so that one has both times.
        """
        parts = [_NO_IDS.empty_table()]
        for layout in self.store.layouts(cursor, tables):
            standing = f"(select e.* from {layout.edits} e join ids using (id, rev))"
            parts.append(
                cursor.arrow(
                    f"""
                    select id, staged_at from {standing}
                    union all
                    select h.id, f.staged_at from {standing} h join {standing} f on {layout.on("h", "f")}
                    where not h.follower and f.follower
                    """,
                    ids=ids,
                ).cast(_NO_IDS)
            )
        return pa.concat_tables(parts)

    def last_place(self, cursor: Cursor, tables: Collection[str] | None = None) -> int:
        """The last place in the queue of these tables' operations; 0 if they have none."""
        places = [
            cursor.one(f"select max(sequence) from {layout.edits}") for layout in self.store.layouts(cursor, tables)
        ]
        return max((place for place in places if place is not None), default=0)

    def next_push(self, cursor: Cursor) -> int:
        """A number above every revision so far: what this push sends is marked with that one or a later."""
        cursor.run(f"update {META}.store set pushes = greatest(pushes, rev) + 1")
        number: int = cursor.one(f"select pushes from {META}.store")
        return number


def _named_list(parts: Sequence[str]) -> str:
    return f"list_filter([{', '.join(parts)}], lambda x: x is not null)" if parts else "[]::varchar[]"


_NO_IDS = pa.schema([("id", pa.string()), ("staged_at", pa.timestamp("us", "UTC"))])
_IN_PLAN = "(id, staged_at) in (select id, staged_at from planned)"


def _planned(only: pa.Table | None) -> dict[str, pa.Table]:
    return {} if only is None else {"planned": only}


def _ready(push: int, last: int, is_retry: bool, only: pa.Table | None) -> str:
    """Which operations a push may send now."""
    waits = f"not follower and not has_remote and sequence <= {last}" + (f" and {_IN_PLAN}" if only is not None else "")
    if is_retry:
        codes = ", ".join(f"'{code}'" for code in RETRIED_CODES)
        return f"{waits} and error_code in ({codes}) and sent >= {push} and not retry"
    return f"{waits} and error_code is null and (sent is null or sent < {push})"


def _turn(is_retry: bool) -> str:
    """The order of sending; of refused operations the deletes come last and in reverse, children before parents."""
    return "case when deleted then 4611686018427387904 - sequence else sequence end" if is_retry else "sequence"
