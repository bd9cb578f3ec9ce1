"""A sync table: one table kept locally, read as frames, edited by staging them.

The journey of an edit: `frame()` hands out rows and remembers them; `stage()` normalises what comes back,
finds what it is to be compared with, and queues the differences in one transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from . import words
from .diff import Changes, diff, guard
from .errors import KeyColumnError, PendingError, SchemaError, StaleFrameError
from .file import Cursor
from .frame import (
    VERSION_COLUMN,
    Edited,
    Snapshot,
    Token,
    TokenText,
    advance,
    advanced_rows,
    declared,
    distinct,
    hand_out,
    make_keys,
    matched,
    normalise,
    object_frame,
    one_chunk,
    read_token,
    snapshot_of,
    write_keys,
)
from .keys import key_of, key_table
from .layout import Layout
from .pull import PullResult
from .schema import Schema, as_names, quote, shown
from .store import shown_rows, system_names, unknown_schema
from .views import ConflictView, PendingView

if TYPE_CHECKING:
    import duckdb

    from .session import Session

PENDING = "_syncframe_pending"
REVISIONS = ("_syncframe_rev", "_syncframe_pulled_rev")


@dataclass(frozen=True, slots=True)
class Prepared:
    """An edited frame and what it was compared with."""

    edited: Edited
    changes: Changes
    base: pa.Table
    snapshot: Snapshot | None
    revision: int
    held: list[str]
    text: TokenText | None = None
    guards: bool = False


class SyncTable:
    """One table of a sync context; made by `ctx.table(name)`, asks nothing until it is used."""

    def __init__(self, session: Session, name: str, on_conflict: object = None) -> None:
        self._session = session
        self._store, self._queue = session.store, session.queue
        self._on_conflict = on_conflict
        self.name = name

    # -- what it is

    @property
    def schema(self) -> Schema:
        """The columns kept here and the key.

        Raises
        ------
        SchemaError
            While none is known: pull first, or give one.
        """
        found = self._store.schema(self.name)
        if found is None:
            raise unknown_schema(self.name)
        return found

    @property
    def key(self) -> tuple[str, ...]:
        return self.schema.key

    @property
    def columns(self) -> list[str]:
        """The columns of a frame: all that are kept, but for the key."""
        return self.schema.values

    def __len__(self) -> int:
        with self._store.reading() as cursor:
            return self._store.count(cursor, self._store.layout(cursor, self.name))

    @property
    def pending(self) -> PendingView:
        return PendingView(self._store, self._queue, [self.name])

    @property
    def conflicts(self) -> ConflictView:
        return ConflictView(self._store, self._queue, [self.name])

    # -- pull

    def pull(
        self,
        where: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        query_id: str | bool | None = None,
        full: bool = False,
        push_first: bool = True,
        page_rows: int | None = None,
        progress: object = None,
        on_conflict: object = None,
    ) -> PullResult:
        """Bring rows from the back end.

        Parameters
        ----------
        where
            A SQL condition over the table's columns.
        columns
            Which to keep; belongs to the table: the union of what its pulls asked for.  None: all.
        query_id
            The next pull under it brings only what changed.  True makes the name from `where`.  None: everything
            that matches, each time; rows that this query brought before and that are gone there go here too.
        full
            Read all of the query again, remove what is gone, and start its checkpoint anew.
        push_first
            Push the queue up to this table's last operation first.
        page_rows
            How many rows to ask for at a time.
        progress
            None: a bar after half a second; False: none; a callable (done, total or None, what).
        on_conflict
            "fail", "mine", "theirs" or a callable; None: the table's, else the context's.

        Raises
        ------
        TransientError, AccessError
            If the back end cannot be reached or refuses; finished pages stay.
        QueryError
            If `where` cannot be parsed, or differs from that of an earlier pull under the same query id.
        """
        policy = on_conflict if on_conflict is not None else self._on_conflict
        return self._session.pull(
            self.name, where, columns, query_id, full=full, push_first=push_first, page_rows=page_rows,
            progress=progress, on_conflict=policy,
        )  # fmt: skip

    # -- read

    def frame(
        self,
        where: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        dtypes: Literal["pandas", "pyarrow"] = "pandas",
        system: bool = False,
        pending: bool = False,
    ) -> pd.DataFrame:
        """Return rows as they are here, pending edits included, indexed by the key and in its order.

        Parameters
        ----------
        where
            A SQL condition; staging the frame never touches rows outside it.
        columns
            Those wanted; staging the frame never touches the others.
        dtypes
            "pandas": by the type table of `syncframe.schema`; "pyarrow": Arrow's, for reading and speed
            (integers stay `Int64`: pandas would make 1 of 1.5 assigned to an ``int64[pyarrow]``).
        system
            Add createdAt, updatedAt, version and deleted; they are the back end's, and refused if edited.
        pending
            Add a text column `_syncframe_pending`: NULL, "insert" or "update".
        """
        if dtypes not in ("pandas", "pyarrow"):
            raise SchemaError(f"dtypes={dtypes!r} is not known", hint='"pandas" or "pyarrow"')
        schema = self.schema
        more = system_names(schema) if system else []
        wanted = None if columns is None else _checked_columns(columns, schema)
        read = self._store.read(
            self.name, where, wanted, extra=(VERSION_COLUMN, *more, *([PENDING] if pending else []))
        )
        text = TokenText(self._store.id, self.name, str(uuid.uuid4()), read.revision, where, wanted)
        snapshot = Snapshot(declared(read.rows, schema), read.revision)
        token = self._session.snapshots.hold(Token(text, snapshot))
        self._session.handed_out(self.name, read.revision)
        return hand_out(read.rows, schema, token, dtypes)

    def arrow(
        self, where: str | None = None, *, columns: Sequence[str] | None = None, system: bool = False
    ) -> pa.Table:
        """Return the same rows as a `pyarrow.Table`, the key's columns first."""
        schema = self.schema
        wanted = None if columns is None else _checked_columns(columns, schema)
        rows = self._store.read(self.name, where, wanted, extra=system_names(schema) if system else ()).rows
        return rows.select([*schema.key, *(n for n in rows.column_names if n not in schema.key)])

    def relation(self) -> duckdb.DuckDBPyRelation:
        """Return the same rows as a lazy DuckDB relation, for what does not fit in memory.

        The store's file is held by this process as long as the relation lives.
        """
        with self._store.reading() as cursor:
            layout = self._store.layout(cursor, self.name)
            statement, _ = self._store.select(layout, layout.schema.names, None)
        return self._store.file.relation(statement, self._store.lock_timeout_s)

    def get(self, key: Any) -> dict[str, Any] | None:
        """Return one row as a mapping with the key, pending edits included, or None."""
        with self._store.reading() as cursor:
            layout = self._store.layout(cursor, self.name)
            rows = self._rows_of(cursor, layout, key_table(layout, [key])).to_pylist()
        return {name: rows[0][name] for name in layout.schema.names} if rows else None

    # -- stage

    def diff(self, frame: object, *, base: object = None, extra: Literal["error", "ignore"] = "error") -> Changes:
        """Preview what staging `frame` would queue; see `stage`."""
        with self._store.transaction() as cursor:
            return self._prepare(cursor, frame, base, extra, deletes=True).changes

    def stage(
        self,
        frame: object,
        *,
        base: object = None,
        deletes: Literal["infer", "ignore"] = "infer",
        max_deletes: int | None = None,
        extra: Literal["error", "ignore"] = "error",
        note: str | None = None,
        dry_run: bool = False,
    ) -> Changes:
        """Queue what was edited in `frame`; it survives a crash and needs no network.

        Parameters
        ----------
        frame
            A DataFrame that `frame()` handed out, or one derived from it; or anything with the Arrow PyCapsule
            interface (polars, pyarrow, a DuckDB relation), which may only insert and update without a `base`.
        base
            A frame to compare with exactly, deletes included; or "current": made from the rows as they are now.
        deletes
            "infer": rows of the snapshot that the frame lacks are deleted; "ignore": they are left.
        max_deletes
            How many rows may be deleted; None: 100, or the larger of 10 rows and a fifth of the snapshot if less.
        extra
            What to do with columns that the table does not have.
        note
            Kept in the history.
        dry_run
            Check and preview only.

        Returns
        -------
        Changes: what was queued.  The passed frame advances: staging it again stages nothing, and keys that were
        made are in it.

        Raises
        ------
        SchemaError, KeyColumnError
            If a value, a column or a key does not fit; names rows and columns.
        StaleFrameError
            If nobody can say who edited what.
        DeleteGuardError
            If more rows would be deleted than allowed.
        """
        if deletes not in ("infer", "ignore"):
            raise SchemaError(f"deletes={deletes!r} is not known", hint='"infer" or "ignore"')
        with self._store.transaction() as cursor:
            prepared = self._prepare(cursor, frame, base, extra, deletes=deletes == "infer")
            if prepared.guards:
                guard(prepared.changes, len(prepared.base), max_deletes)
            if dry_run:
                return prepared.changes
            if prepared.changes:
                self._queue_changes(cursor, prepared.changes, prepared.held, prepared.revision, "stage", note)
            token = self._next_token(cursor, prepared) if isinstance(frame, pd.DataFrame) else None
            # Before the commit: stopped just behind it and staged again, no row is made under a second key.
            if token is not None:
                write_keys(frame, prepared.edited, self.schema)
            elif prepared.edited.missing_keys.size:
                self._session.made_without_writing(frame)
        if token is not None:
            advance(frame, token)
        return prepared.changes

    def _queue_changes(
        self, cursor: Cursor, changes: Changes, held: Sequence[str], revision: int, action: str, note: str | None = None
    ) -> None:
        layout = self._store.layout(cursor, self.name)
        self._queue.stage(cursor, layout, changes.operations(), held=held, revision=revision, action=action, note=note)

    def _prepare(self, cursor: Cursor, frame: object, base: object, extra: Any, *, deletes: bool) -> Prepared:
        """Normalise the frame, find what it is to be compared with, and compare."""
        schema = self._store.layout(cursor, self.name).schema
        origin = frame if base is None else base
        text = read_token(origin)
        if text is not None and text.store == self._store.id and text.table != self.name:
            raise SchemaError(
                f"this frame is of table {text.table!r}, not of {self.name!r}", hint=f"ctx[{text.table!r}].stage(...)"
            )
        now = self._store.revision()
        if text is not None and (text.store != self._store.id or text.revision > now):
            text = None  # of another store, or of a later state of this one: it says nothing here
        snapshot = snapshot_of(origin) if text is not None and not _is_current(base) else None
        edited = self._edited(frame, schema, extra, snapshot)
        if snapshot is not None:
            return self._from_snapshot(cursor, schema, edited, snapshot, text, deletes)
        if base is not None and not _is_current(base):
            return self._from_base(cursor, schema, edited, base, text, now, deletes)
        if text is not None and not _is_current(base):
            return self._from_token(cursor, schema, edited, text, now, deletes)
        return self._from_rows(cursor, schema, edited, now, is_current=_is_current(base))

    def _edited(self, frame: object, schema: Schema, extra: Any, snapshot: Snapshot | None) -> Edited:
        edited = normalise(frame, schema, extra=extra, snapshot=snapshot)
        if edited.missing_keys.size and not isinstance(frame, pd.DataFrame):
            self._session.refuse_second_making(frame)
        return make_keys(edited, schema, self._session.new_key)

    def _from_snapshot(
        self, cursor: Cursor, schema: Schema, edited: Edited, snapshot: Snapshot, text: TokenText | None, deletes: bool
    ) -> Prepared:
        """Case 1: an exact diff; only cells that differ from the snapshot are touched."""
        _check_system(edited, snapshot.rows, schema)
        base = _table_part(snapshot.rows, schema)
        changes = diff(base, edited.rows, schema, deletes=deletes)
        if self._session.was_taken_back_since(self.name, snapshot.revision):
            changes.notes.append(
                "edits of this table were taken back after this frame was taken or staged, and are not staged again; "
                'stage(frame, base="current") stages the frame as it stands'
            )
        return Prepared(edited, changes, base, snapshot, snapshot.revision, _held(base, schema), text, guards=True)

    def _from_base(
        self,
        cursor: Cursor,
        schema: Schema,
        edited: Edited,
        base: object,
        text: TokenText | None,
        now: int,
        deletes: bool,
    ) -> Prepared:
        """An exact diff against a frame whose snapshot is gone, or that never had one."""
        rows = normalise(base, schema).rows
        known = text.revision if text is not None else self._session.oldest(self.name)
        changes = diff(rows, edited.rows, schema, deletes=deletes)
        revision = now if known is None else known
        return Prepared(edited, changes, rows, None, revision, _held(rows, schema), text, guards=True)

    def _from_token(
        self, cursor: Cursor, schema: Schema, edited: Edited, text: TokenText, now: int, deletes: bool
    ) -> Prepared:
        """Case 2: rows within the token's filter that have not changed since are their own base."""
        columns = [n for n in schema.names if text.columns is None or n in (*schema.key, *text.columns)]
        every = self._store.read(
            self.name, None, columns, extra=(VERSION_COLUMN, *system_extra(edited), *REVISIONS)
        ).rows
        within = self._store.read(self.name, text.where, columns, extra=(VERSION_COLUMN, *REVISIONS)).rows
        moved = every.filter(pa.compute.greater(every[REVISIONS[0]], text.revision))
        still = within.filter(pa.compute.less_equal(within[REVISIONS[0]], text.revision))
        _check_system(edited, every, schema)
        rest = self._without_moved(
            cursor, edited.rows, declared(_table_part(moved, schema), schema), schema, text.revision
        )
        base = declared(_table_part(still, schema), schema)
        changes = diff(base, rest, schema, deletes=deletes)
        return Prepared(edited, changes, base, None, now, _held(base, schema), text, guards=True)

    def _without_moved(
        self, cursor: Cursor, edited: pa.Table, moved: pa.Table, schema: Schema, revision: int
    ) -> pa.Table:
        """The edited rows of which it can be said what was edited; the others must be as they are here.

        Raises
        ------
        StaleFrameError
            Naming those that changed here since, and are not.
        """
        key = list(schema.key)
        at, _ = matched(moved.select(key), edited.select(key))
        stale = diff(moved, edited.take(pa.array(at)), schema, deletes=False).new if len(at) else moved.slice(0, 0)
        layout = self._store.layout(cursor, self.name)
        gone = self._gone_since(cursor, layout, revision, "rev")
        left, _ = matched(gone, edited.select(key))
        if len(stale) or len(left):
            names = _key_list(stale.select(key), schema) + _key_list(edited.select(key).take(pa.array(left)), schema)
            raise StaleFrameError(
                f"rows {shown(names)} of {self.name!r} changed here after this frame was taken, "
                "and its snapshot is gone",
                hint='take a new frame, or say what it is compared with: stage(frame, base=...) or base="current"',
            )
        return edited.filter(_without(len(edited), at))

    def _from_rows(self, cursor: Cursor, schema: Schema, edited: Edited, now: int, *, is_current: bool) -> Prepared:
        """Case 3: no token; may insert and update, never delete."""
        columns = edited.rows.column_names
        read = self._store.read(
            self.name, None, columns, extra=(VERSION_COLUMN, *system_extra(edited), *REVISIONS)
        ).rows
        _check_system(edited, read, schema)
        base = declared(_table_part(read, schema), schema)
        changes = diff(base, edited.rows, schema, deletes=False)
        oldest = self._session.oldest(self.name)
        if not is_current and oldest is not None:
            self._refuse_unseen(cursor, schema, changes, read, oldest)
        return Prepared(edited, changes, base, None, now, _held(base, schema))

    def _refuse_unseen(self, cursor: Cursor, schema: Schema, changes: Changes, read: pa.Table, oldest: int) -> None:
        """A row that the back end changed since the oldest frame of this process may be older in this frame."""
        key = list(schema.key)
        newer = read.filter(pa.compute.greater(read[REVISIONS[1]], oldest)).select(key)
        gone = self._gone_since(cursor, self._store.layout(cursor, self.name), oldest, "pulled_rev")
        unseen = []
        for rows, known in ((changes.new, newer), (changes.inserted, gone)):
            at, _ = matched(known, rows.select(key))
            unseen += _key_list(rows.select(key).take(pa.array(at)), schema)
        if unseen:
            raise StaleFrameError(
                f"rows {shown(unseen)} of {self.name!r} were changed by a pull after a frame was taken, and this frame "
                "bears no token that says which it was made from (concat, merge and the constructor lose it)",
                hint="stage(frame, base=the frame it was made from), "
                'or base="current" if it was made from the rows as they are now',
            )

    def _gone_since(self, cursor: Cursor, layout: Layout, revision: int, which: str) -> pa.Table:
        """Keys of rows that left this store after a revision and are not shown."""
        return cursor.arrow(
            f"""
            select {", ".join(quote("k_" + n) + " as " + quote(n) for n in layout.schema.key)} from {layout.gone}
            anti join ({shown_rows(layout)}) s using ({layout.keys}) where {which} > {revision}
            """
        )

    def _next_token(self, cursor: Cursor, prepared: Prepared) -> Token | None:
        """The token of the frame as it was staged.

        Where a pull came between, its revision stays the old one: cells that were not touched are still as
        they were then, and an edit of them later must not revert what was pulled.
        """
        layout = self._store.layout(cursor, self.name)
        now = self._store.revision()
        before = prepared.revision
        newest = cursor.one(
            f"select greatest(coalesce((select max(pulled_rev) from {layout.rows}), 0), "
            f"coalesce((select max(pulled_rev) from {layout.gone}), 0))"
        )
        revision = before if newest > before else now
        old = prepared.snapshot.rows if prepared.snapshot is not None else prepared.base
        rows = advanced_rows(old, prepared.edited.rows, layout.schema.key)
        if prepared.edited.system:
            rows = _with_system(rows, prepared.edited)
        where = prepared.text.where if prepared.text is not None else None
        columns = prepared.text.columns if prepared.text is not None else tuple(rows.column_names)
        text = TokenText(self._store.id, self.name, str(uuid.uuid4()), revision, where, columns)
        return self._session.snapshots.hold(Token(text, Snapshot(rows, revision)))

    # -- single rows

    def insert(self, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | pd.DataFrame) -> Any:
        """Stage new rows; return the key, or the list of keys.

        Parameters
        ----------
        rows
            A mapping, a list of them, or a frame.  A missing text key becomes a uuid4 string.

        Raises
        ------
        KeyColumnError
            If a key is here already, is repeated, or is missing where it cannot be made.
        """
        with self._store.transaction() as cursor:
            layout = self._store.layout(cursor, self.name)
            places, frames = _by_columns(rows, layout.schema)
            if not frames:
                return []
            parts = [self._with_keys(frame, layout.schema) for frame in frames]
            order = np.argsort(np.concatenate([p for p in places if p is not None] or [np.arange(len(parts[0]))]))
            keys = pa.concat_tables([part.select(list(layout.schema.key)) for part in parts]).take(pa.array(order))
            self._refuse_present(cursor, layout, keys)
            operations = pa.concat_tables([diff(part.slice(0, 0), part, layout.schema).operations() for part in parts])
            self._stage_now(cursor, layout, operations.take(pa.array(order)), "insert")
        made = _key_list(keys, layout.schema)
        return made[0] if isinstance(rows, Mapping) else made

    def _with_keys(self, frame: object, schema: Schema) -> pa.Table:
        return make_keys(normalise(frame, schema), schema, self._session.new_key).rows

    def update(self, key: Any, values: Mapping[str, Any] | None = None, /, **columns: Any) -> None:
        """Stage changed cells of one row.

        Raises
        ------
        KeyColumnError
            If the row is not here.
        """
        with self._store.transaction() as cursor:
            layout = self._store.layout(cursor, self.name)
            schema = layout.schema
            base = self._present(cursor, layout, [key])
            given = {**(values or {}), **columns}
            parts = dict(zip(schema.key, key if len(schema.key) > 1 else (key,), strict=True))
            moved = [name for name in given if name in parts and given[name] != parts[name]]
            if moved:
                raise KeyColumnError(
                    f"the key column {moved[0]!r} of a row cannot be changed",
                    hint="delete the row and insert it under its new key",
                )
            edited = normalise(object_frame([{**given, **parts}]), schema)
            operations = diff(base, edited.rows, schema, deletes=False).operations()
            self._stage_now(cursor, layout, operations, "update")

    def delete(self, keys: Any) -> None:
        """Stage the deletion of a row, or of a list of rows.

        Raises
        ------
        KeyColumnError
            If one of them is not here; nothing is staged then.
        """
        listed = keys if isinstance(keys, list) else list(keys) if isinstance(keys, (pd.Index, np.ndarray)) else [keys]
        with self._store.transaction() as cursor:
            layout = self._store.layout(cursor, self.name)
            base = self._present(cursor, layout, listed)
            operations = diff(base, base.slice(0, 0), layout.schema).operations()
            self._stage_now(cursor, layout, operations, "delete")

    def _stage_now(self, cursor: Cursor, layout: Layout, operations: pa.Table, action: str) -> None:
        if not len(operations):
            return
        operations = operations.set_column(0, "ord", pa.array(range(len(operations)), pa.int64()))
        self._queue.stage(
            cursor, layout, operations, held=layout.schema.values, revision=self._store.revision(), action=action
        )

    def _rows_of(self, cursor: Cursor, layout: Layout, keys: pa.Table) -> pa.Table:
        """The rows of these keys as they are here, with their versions."""
        names = (*layout.schema.names, VERSION_COLUMN)
        statement, _ = self._store.select(layout, names, None)
        on = " and ".join(f"r.{quote(n)} = o.{quote('k_' + n)}" for n in layout.schema.key)
        return declared(
            cursor.arrow(f"select r.* from ({statement}) r semi join only_keys o on {on}", only_keys=keys),
            layout.schema,
        )

    def _present(self, cursor: Cursor, layout: Layout, keys: Sequence[Any]) -> pa.Table:
        wanted = key_table(layout, keys)
        rows = self._rows_of(cursor, layout, wanted)
        if len(rows) < len(wanted):
            here = set(_key_list(rows, layout.schema))
            absent = [k for k in (key_of(layout, row) for row in wanted.to_pylist()) if k not in here]
            if absent:
                raise KeyColumnError(
                    f"rows {shown(absent)} are not in {self.name!r} here", hint="pull, or look at frame().index"
                )
        return rows

    def _refuse_present(self, cursor: Cursor, layout: Layout, keys: pa.Table) -> None:
        renamed = keys.rename_columns([f"k_{n}" for n in keys.column_names])
        here = _key_list(self._rows_of(cursor, layout, renamed), layout.schema)
        listed = _key_list(keys, layout.schema)
        if here:
            raise KeyColumnError(
                f"rows {shown(here)} are in {self.name!r} already", hint="update(key, ...) changes a row"
            )
        if len(set(listed)) < len(listed):
            twice = sorted({k for k in listed if listed.count(k) > 1}, key=str)
            raise KeyColumnError(f"keys are repeated: {shown(twice)}", hint="give each row a key of its own")

    # -- give up, drop, group

    def revert(self, keys: Any = None) -> int:
        """Give up the pending operations of these keys, or of the table; return on how many rows."""
        with self._store.transaction() as cursor:
            layout = self._store.layout(cursor, self.name)
            listed = None if keys is None else key_table(layout, keys if isinstance(keys, list) else [keys])
            reverted = self._queue.discard(cursor, layout, listed, action="revert")
            self._session.taken_back(self.name)
            return reverted

    def discard(self) -> int:
        """Give up all pending operations of this table: rows go back to the last known remote ones."""
        return self.revert()

    def keep_together(self, *columns: str) -> None:
        """Merge these columns as one, such as latitude and longitude; remembered in the store.

        `Conflict.merged`, `Conflict.columns` and keep_mine() go by it.  Of a row that both sides have made there is no
        base that says what was changed: there each column stands for itself.
        """
        schema = self.schema
        _checked_columns(columns, schema)
        groups = [g for g in self._store.together(self.name) if not set(g) & set(columns)]
        self._store.set_together(self.name, [*groups, columns])

    def purge(self, where: str | None = None, *, force: bool = False) -> int:
        """Drop local rows and their checkpoints; return how many rows.

        Parameters
        ----------
        where
            Only rows that match; all checkpoints of the table go, so that the next pull brings them again.
        force
            Drop pending operations as well.

        Raises
        ------
        PendingError
            While operations of this table are pending, unless `force`.
        """
        with self._store.transaction() as cursor:
            layout = self._store.layout(cursor, self.name)
            pending = self._queue.counts(cursor, layout)["pending"]
            if pending and not force:
                raise PendingError(
                    f"{pending} operations of {self.name!r} are pending; purging would lose them",
                    hint="push them, give them up with discard(), or purge(force=True)",
                )
            return self._store.purge(cursor, layout, where, drop_edits=force)

    def resync(self, *, progress: object = None) -> PullResult:
        """Pull all of the table's queries again in full, and keep the edits, rebased.

        Rows that no query brings are dropped when all have come to their end.
        """
        return self._session.resync(self.name, progress)

    def __repr__(self) -> str:
        found = self._store.schema(self.name)
        columns = "" if found is None else f", columns {', '.join(map(words.name, found.values))}"
        return self._headline(found) + columns

    def _repr_html_(self) -> str:
        found = self._store.schema(self.name)
        return words.html(words.paragraphs([self._headline(found)]), found._repr_html_() if found else "")

    def _headline(self, schema: Schema | None) -> str:
        if schema is None:
            return f"SyncTable {self.name!r}: no schema is known yet; pull it, or give one"
        with self._store.reading() as cursor:
            counts = self._queue.counts(cursor, self._store.layout(cursor, self.name))
        said = [words.many(len(self), "row"), *(f"{n:,} {what}" for what, n in counts.items() if n)]
        return f"SyncTable {self.name!r}: {', '.join(said)}, key {', '.join(map(words.name, schema.key))}"


def _is_current(base: object) -> bool:
    return isinstance(base, str) and base == "current"


def _checked_columns(columns: Sequence[str], schema: Schema) -> tuple[str, ...]:
    names = as_names(columns)
    unknown = [name for name in names if name not in schema.names]
    if unknown:
        raise SchemaError(
            f"columns {shown(unknown)} are not among the table's: {shown(schema.names)}",
            hint="table.columns lists them",
        )
    return names


def _table_part(rows: pa.Table, schema: Schema) -> pa.Table:
    """The table's own columns and the version: what is compared."""
    return rows.select([n for n in rows.column_names if n in schema or n == VERSION_COLUMN])


def _held(base: pa.Table, schema: Schema) -> list[str]:
    return [name for name in schema.values if name in base.column_names]


def system_extra(edited: Edited) -> tuple[str, ...]:
    return tuple(edited.system)


def _check_system(edited: Edited, base: pa.Table, schema: Schema) -> None:
    """System columns are the back end's: in a frame they must be as they were handed out."""
    if not edited.system:
        return
    key = list(schema.key)
    at_new, at_base = matched(base.select(key), edited.rows.select(key))
    new = np.setdiff1d(np.arange(len(edited.rows)), at_new)
    for name, values in edited.system.items():
        wrong = values.take(pa.array(new)).null_count < len(new)
        if name in base.column_names:
            old = one_chunk(base[name]).take(pa.array(at_base))
            wrong = wrong or bool(distinct(old, values.take(pa.array(at_new))).any())
        if wrong:
            raise SchemaError(
                f"system column {name!r} was edited; it is the back end's", hint=f"stage(frame.drop(columns={name!r}))"
            )


def _with_system(rows: pa.Table, edited: Edited) -> pa.Table:
    for name, values in edited.system.items():
        rows = rows.append_column(name, pa.chunked_array([values]))
    return rows


def _without(length: int, at: np.ndarray) -> pa.Array:
    """A mask that leaves these rows out."""
    mask = np.full(length, True)
    mask[at] = False
    return pa.array(mask)


def _key_list(rows: pa.Table, schema: Schema) -> list[Any]:
    columns = [rows[name].to_pylist() for name in schema.key]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def _by_columns(rows: object, schema: Schema) -> tuple[list[np.ndarray | None], list[object]]:
    """Rows as frames, those with the same columns together, and their places: what a row does not give is not given."""
    if not isinstance(rows, (Mapping, list, tuple)):
        return [None], [rows]
    listed = [rows] if isinstance(rows, Mapping) else list(rows)
    wrong = [row for row in listed if not isinstance(row, Mapping)]
    if wrong:
        raise SchemaError(
            f"a row is a mapping column -> value, not a {type(wrong[0]).__name__}", hint="insert({'id': ..., ...})"
        )
    empty = dict.fromkeys(schema.key) if len(schema.key) == 1 else {}  # a key of one column is made
    full = [{**empty, **row} for row in listed]
    groups: dict[frozenset[str], list[int]] = {}
    for place, row in enumerate(full):
        groups.setdefault(frozenset(row), []).append(place)
    frames = [object_frame([full[place] for place in places]) for places in groups.values()]
    return [np.array(places) for places in groups.values()], list(frames)
