"""Pages of the queue and of the conflicts, as plain texts and counts that go to a front end as JSON.

A queue may hold 100,000 operations: what is shown is picked, counted and paged in SQL, and only the cells of
one page are read, long ones cut.  What is discarded or settled as "all shown" is picked by the same condition,
so that it is what the filter shows; what changed after the revision that was shown is left, and counted in words.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from . import sides
from .errors import SyncError
from .file import Cursor
from .layout import META, Layout
from .queue import Queue
from .sheet import (
    IN_CONFLICT,
    Sheet,
    cell_parts,
    differing,
    key_parts,
    key_texts,
    marks,
    narrow,
    standing,
    table_of,
    unchanged,
    whole_cell,
)
from .store import Store, kinds_source, operations_source
from .undo import last_call
from .words import many

PAGE_ROWS_MAX = 200
HISTORY_ROWS_MAX = 100
PENDING_CELLS = 8
WORDS_CHARACTERS = 2_000
KINDS = {
    "insert": "kind = 'insert'",
    "update": "kind = 'update'",
    "delete": "kind = 'delete'",
    "rejected": "error_code is not null",
    "attempted": "attempted",
}
_SETTLED = {
    "mine": "mine kept, to be sent with the next push",
    "theirs": "theirs taken",
    "merge": "both changes kept, to be sent with the next push",
}


@dataclass(slots=True)
class Done:
    """What an action did, in words and counts.

    Parameters
    ----------
    rows
        Rows given up, operations sent again, or conflicts settled.
    late
        How many were left, because they are not as they were shown.
    tables
        The tables that changed.
    """

    words: str
    rows: int = 0
    late: int = 0
    tables: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Given:
    """Counts of a discard over all its tables."""

    rows: int = 0
    picked: int = 0
    joined: int = 0
    sent: int = 0
    late: int = 0


@dataclass(slots=True)
class _Settling:
    """Counts of settling over all its tables: conflicts asked for, as they were shown, and settled of them."""

    standing: int = 0
    free: int = 0
    settled: int = 0
    one_sided: int = 0
    both_made: int = 0
    tables: list[str] = field(default_factory=list)


class Pages:
    """What a front end sees of one store, and what it does there."""

    def __init__(self, store: Store, queue: Queue) -> None:
        self._store, self._queue = store, queue

    # -- counts

    def counts(self) -> tuple[list[dict[str, Any]], bool, object]:
        """Counts of each table, whether there is something to take back, and a mark that moves with the lists."""
        with self._store.reading() as cursor:
            rev = cursor.one(f"select rev from {META}.store")
            times = {name: when for name, *when in cursor.rows(f"select name, last_pull, last_push from {META}.tables")}
            tables, attempted = [], []
            for layout in self._store.layouts(cursor):
                counted = self._queue.figures(cursor, layout)
                attempted.append(counted.pop("attempted"))  # taking a mark back makes no revision
                pulled, pushed = map(_iso, times[layout.table])
                tables.append({"name": layout.table, **counted, "last_pull": pulled, "last_push": pushed})
            can_undo = bool(cursor.one(f"select count(*) from {META}.history where can_undo"))
        return tables, can_undo, (rev, attempted)

    # -- pages

    def pending(self, table: str | None, kind: str | None, offset: int, limit: int) -> dict[str, Any]:
        """Operations in sequence, of one table or all, of one of KINDS or all."""
        return self._page(table, lambda layout: _operations(layout, kind), offset, limit, _operation_rows)

    def conflicts(self, table: str | None, kind: str | None, offset: int, limit: int) -> dict[str, Any]:
        """Conflicts in sequence, of one table or all, of one of `sides.KINDS` or all."""
        return self._page(table, lambda layout: _conflicts(layout, kind), offset, limit, self._conflict_rows)

    def _page(
        self,
        table: str | None,
        source: Callable[[Layout], str],
        offset: int,
        limit: int,
        read: Callable[[Cursor, Layout, list[str]], dict[str, dict[str, Any]]],
    ) -> dict[str, Any]:
        with self._store.reading() as cursor:
            layouts = self._layouts(cursor, table)
            parts = [f"select {i} as part, h.sequence, h.id from {source(layout)}" for i, layout in enumerate(layouts)]
            total, places = _places(cursor, parts, offset, limit)
            rows: dict[tuple[int, str], dict[str, Any]] = {}
            for i in {part for part, _ in places}:
                found = read(cursor, layouts[i], [id_ for part, id_ in places if part == i])
                rows |= {(i, id_): row for id_, row in found.items()}
            rev = cursor.one(f"select rev from {META}.store")
        return {"total": total, "offset": offset, "rev": rev, "rows": [rows[place] for place in places]}

    def _conflict_rows(self, cursor: Cursor, layout: Layout, ids: list[str]) -> dict[str, dict[str, Any]]:
        return sides.conflict_rows(cursor, layout, ids, self._store.together(layout.table))

    def cell(self, of: str, id_: str, column: str, side: str) -> dict[str, Any]:
        """One value as text, whole; of over a million characters the first million, and how many there are."""
        with self._store.reading() as cursor:
            layout = table_of(self._store, cursor, id_)
            if layout is not None:
                return whole_cell(cursor, layout, of, id_, layout.schema[column], side)
        raise SyncError("this row is not in the queue any more: it was sent, discarded or settled since it was shown")

    # -- actions

    def discard(self, ids: Sequence[str], rev: int | None = None) -> Done:
        """Give up the operations named, in one call; with a `rev`, those that changed after it are left."""
        named = pa.table({"id": pa.array(ids, pa.string())})
        given, tables = self._discard(None, "id in (select id from named)", rev, {"named": named})
        gone = len(set(ids)) - given.picked - given.late
        return _discarded(given, tables, [f"{many(gone, 'operation')} not in the queue any more"] * bool(gone))

    def discard_shown(self, table: str | None, kind: str | None, rev: int) -> Done:
        """Give up what this filter shows, in one call, but for what changed after `rev`."""
        given, tables = self._discard(table, KINDS[kind] if kind else "true", rev, {})
        return _discarded(given, tables, [])

    def _discard(
        self, table: str | None, condition: str, rev: int | None, named: Mapping[str, pa.Table]
    ) -> tuple[_Given, list[str]]:
        given = _Given()
        tables = []
        with self._store.transaction() as cursor:
            call: int | None = None
            for layout in self._layouts(cursor, table):
                keys = _pick(cursor, layout, condition, rev, named, given)
                if len(keys):
                    call = self._store.tick(cursor)[0] if call is None else call  # so that one undo takes it back
                    given.rows += self._queue.discard(cursor, layout, keys, rev=call)
                    tables.append(layout.table)
        return given, tables

    def retry(self, ids: Sequence[str]) -> Done:
        """Make rejected operations ready again."""
        named = pa.table({"id": pa.array(ids, pa.string())})
        rows, tables = 0, []
        with self._store.transaction() as cursor:
            for layout in self._store.layouts(cursor):
                rejected = "error_code is not null and id in (select id from named)"
                found = cursor.arrow(f"select id from {layout.edits} where {rejected}", named=named)
                if len(found):
                    self._queue.retry(cursor, layout, found)
                    tables.append(layout.table)
                    rows += len(found)
            if rows:
                self._store.tick(cursor)
        gone = len(set(ids)) - rows
        parts = [f"{many(rows, 'operation')} will be sent again by the next push"] * bool(rows)
        parts += [f"{many(gone, 'operation')} not rejected any more"] * bool(gone)
        return Done("; ".join(parts) or "nothing to send again", rows, gone, tables)

    def settle(self, side: str, rows: Sequence[tuple[str, str | None]], rev: int | None = None) -> Done:
        """Settle conflicts by one side, in one call; one whose remote is not of the version shown is left.

        With a `rev`, so is one that changed after it: what was edited here since was not shown either.

        Parameters
        ----------
        side
            "mine", "theirs", or "merge": those in which no column clashes, keeping both changes.
        """
        looked_at = dict(rows)
        named = pa.table({"id": pa.array(looked_at, pa.string()), "version": pa.array(looked_at.values(), pa.string())})
        as_shown = "h.remote_version is not distinct from n.version"
        as_shown += f" and {unchanged(rev)}" if rev is not None else ""
        settled = self._settle(side, None, f"join named n on n.id = h.id where {IN_CONFLICT}", as_shown, named)
        return _settled(side, settled, len(looked_at) - settled.standing)

    def settle_shown(self, side: str, table: str | None, kind: str | None, rev: int) -> Done:
        """Settle the conflicts that this filter shows, in one call, but for those that changed after `rev`."""
        return _settled(side, self._settle(side, table, kind, unchanged(rev)), 0)

    def _settle(
        self, side: str, table: str | None, which: str | None, as_shown: str, named: pa.Table | None = None
    ) -> _Settling:
        """Settle those of a kind, or that are named, which are as they were shown."""
        found = _Settling()
        with self._store.transaction() as cursor:
            call: int | None = None
            for layout in self._layouts(cursor, table):
                source = _conflicts(layout, which) if named is None else f"{layout.edits} h {which}"
                keys = _free(cursor, layout, source, as_shown, named, found)
                if len(keys):
                    call = self._store.tick(cursor)[0] if call is None else call  # so that one undo opens them again
                    settled = self._settle_keys(cursor, layout, side, keys, call)
                    if settled < len(keys):
                        _count_whole(cursor, layout, keys, found)
                    found.settled += settled
                    found.tables += [layout.table] * bool(settled)
        return found

    def _settle_keys(self, cursor: Cursor, layout: Layout, side: str, keys: pa.Table, call: int) -> int:
        if side == "merge":
            return self._queue.merge(cursor, layout, call, keys)
        settle = self._queue.keep_mine if side == "mine" else self._queue.take_theirs
        return settle(cursor, layout, keys, call)

    def history(self, limit: int) -> list[dict[str, Any]]:
        """The last calls, newest first, and whether each can be taken back still."""
        with self._store.reading() as cursor:
            rows = cursor.rows(
                f"""
                select time, action, "table", rows, note, can_undo from {META}.history
                order by time desc, rowid desc limit {limit:d}
                """
            )
        names = ("time", "action", "table", "rows", "note", "can_undo")
        return [dict(zip(names, (_iso(when), *rest), strict=True)) for when, *rest in rows]

    def undo(self) -> Done:
        """Take back the last call that changed the queue."""
        with self._store.transaction() as cursor:
            call = last_call(cursor)
            if not call:
                return Done("there is nothing to take back")
            of_call = f"select sum(rows)::bigint from {META}.history where can_undo and staging = ?"
            rows = cursor.one(of_call, [call[0].staging])
            left = sum(len(self._queue.undo(cursor, part)) for part in call)
        parts = [f"taken back: {call[0].action} of {many(rows, 'row')}" if rows > left else "nothing taken back"]
        parts += [f"{many(left, 'row')} left: sent or settled since"] * bool(left)
        return Done("; ".join(parts), rows, left, [part.table for part in call])

    def _layouts(self, cursor: Cursor, table: str | None) -> list[Layout]:
        return list(self._store.layouts(cursor, None if table is None else [self._store.known(table)]))


# What was done, in words


def _discarded(given: _Given, tables: list[str], gone: list[str]) -> Done:
    parts = [f"{many(given.picked, 'operation')} discarded"] * bool(given.picked)
    parts += [f"{given.joined:,} more on the same rows went along"] * bool(given.joined)
    parts += [f"{given.sent:,} may have arrived there: the next push takes them back"] * bool(given.sent)
    parts += [f"{many(given.late, 'operation')} left: changed since they were shown"] * bool(given.late)
    return Done("; ".join(parts + gone) or "nothing to discard", given.rows, given.late, tables)


def _settled(side: str, found: _Settling, gone: int) -> Done:
    late = found.standing - found.free
    clashing = found.free - found.settled - found.one_sided - found.both_made
    parts = [f"{many(found.settled, 'conflict')} settled: {_SETTLED[side]}"] * bool(found.settled)
    parts += [f"{clashing:,} left: a column was changed on both sides"] * bool(clashing)
    parts += [f"{found.one_sided:,} left: one side has deleted the row"] * bool(found.one_sided)
    parts += [f"{found.both_made:,} left: both sides have made the row"] * bool(found.both_made)
    parts += [f"{many(late, 'conflict')} left: a newer row or edit has come since they were shown"] * bool(late)
    parts += [f"{many(gone, 'conflict')} settled already elsewhere"] * bool(gone)
    return Done("; ".join(parts) or "no conflicts to settle", found.settled, late + gone, found.tables)


# Which operations


def _operations(layout: Layout, kind: str | None) -> str:
    """The operations of one of KINDS; their own columns say all but what kind they are."""
    condition = KINDS[kind] if kind else "true"
    return f"{_source(layout, condition)} h where {condition}"


def _conflicts(layout: Layout, kind: str | None) -> str:
    """The conflicts of one of `sides.KINDS`, or all."""
    if kind is None:
        return f"{layout.edits} h where {IN_CONFLICT}"
    return f"{standing(narrow(layout, []))} where {sides.KINDS[kind]}"


def _source(layout: Layout, condition: str) -> str:
    """Where a condition finds its columns: what kind an operation is, the rows must be asked."""
    return kinds_source(layout) if condition.startswith("kind") else layout.edits


def _places(cursor: Cursor, parts: Sequence[str], offset: int, limit: int) -> tuple[int, list[tuple[int, str]]]:
    """How many there are, and the part and id of those on the page."""
    if not parts:
        return 0, []
    listed = " union all ".join(parts)
    found = cursor.rows(
        f"""
        with listed as materialized ({listed})
        select part, id, (select count(*) from listed) from listed
        order by sequence, part, id limit {limit:d} offset {offset:d}
        """
    )
    total = found[0][2] if found else cursor.one(f"select count(*) from ({listed})") if offset else 0
    return total, [(part, id_) for part, id_, _ in found]


def _free(
    cursor: Cursor, layout: Layout, source: str, as_shown: str, named: pa.Table | None, counts: _Settling
) -> pa.Table:
    """The keys of conflicts that are as they were shown."""
    condition = as_shown.format(edits=layout.edits, on=layout.on("f", "h"))
    found = cursor.arrow(
        f"select {layout.keys_of('h')}, {condition} as free from {source}",
        **({} if named is None else {"named": named}),
    )
    keys = found.filter(found["free"]).drop_columns(["free"])
    counts.standing += len(found)
    counts.free += len(keys)
    return keys


def _count_whole(cursor: Cursor, layout: Layout, keys: pa.Table, counts: _Settling) -> None:
    """How many conflicts that stand on these keys are decided whole, for one side has no row or both have made it."""
    standing_on = f"{standing(narrow(layout, []))} semi join only_keys o on {layout.on('o', 'h')}"
    gone = "m.deleted or h.remote_deleted or h.deleted"
    found = cursor.arrow(
        f"""
        select count(*) filter (where {gone}) as one_sided,
               count(*) filter (where r.rev is null and not ({gone})) as both_made
        from {standing_on}
        """,
        only_keys=keys,
    ).to_pylist()[0]
    counts.one_sided += found["one_sided"]
    counts.both_made += found["both_made"]


def _pick(
    cursor: Cursor,
    layout: Layout,
    condition: str,
    rev: int | None,
    named: Mapping[str, pa.Table],
    given: _Given,
) -> pa.Table:
    """The keys of the rows to give up: those of operations that meet the condition, if none on the row is newer.

    One that a push has begun to send since is newer too: it was not shown as sent, and its answer is on its way.
    """
    newer = "false" if rev is None else f"rev > {rev:d} or (attempted and sent > {rev:d})"
    picked = cursor.arrow(f"select id, {layout.keys} from {_source(layout, condition)} where {condition}", **named)
    free = cursor.arrow(
        f"""
        select id, {layout.keys} from picked
        anti join (select * from {layout.edits} where {newer}) n using ({layout.keys})
        """,
        picked=picked,
    )
    keys = cursor.arrow(f"select distinct {layout.keys} from free", free=free)
    waiting = cursor.arrow(
        f"""
        select count(*) as operations, count(*) filter (where attempted and not has_remote) as sent
        from {layout.edits} semi join only_keys o using ({layout.keys})
        """,
        only_keys=keys,
    ).to_pylist()[0]
    given.picked += len(free)
    given.late += len(picked) - len(free)
    given.joined += waiting["operations"] - len(free)
    given.sent += waiting["sent"]
    return keys


# One page


def _operation_rows(cursor: Cursor, layout: Layout, ids: list[str]) -> dict[str, dict[str, Any]]:
    slim = narrow(layout, [])
    found = cursor.arrow(
        f"""
        select id, kind, staged_at, attempted, has_remote, follower, given::varchar as given, error_code, error_column,
               left(error_message, {WORDS_CHARACTERS}) as error_message, {key_parts(layout, "h")}
        from ({operations_source(slim)}) h where id in ({marks(len(ids))})
        """,
        ids,
    )
    keys = key_texts(found, layout)
    rows = found.drop_columns([name for name in found.column_names if name.startswith("key")]).to_pylist()
    touched = _touched(cursor, layout, rows)
    places = {row["id"]: _mendable_first(layout, row, touched[row["id"]]) for row in rows}
    sheet = _local_cells(cursor, layout, ids, {at for shown in places.values() for at in shown[:PENDING_CELLS]})
    return {
        row["id"]: _operation(layout.table, row, key, places[row["id"]], sheet)
        for row, key in zip(rows, keys, strict=True)
    }


def _touched(cursor: Cursor, layout: Layout, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The places of the cells that each operation says something of: given, changed, or gone with the row."""
    found = {row["id"]: [bit == "1" for bit in row["given"][1:]] for row in rows if row["kind"] == "insert"}
    for kind, is_follower in {(row["kind"], row["follower"]) for row in rows if row["kind"] != "insert"}:
        ids = [row["id"] for row in rows if (row["kind"], row["follower"]) == (kind, is_follower)]
        base, letter = (layout.firsts, "l") if is_follower else (layout.rows, "v")
        source = f"""
            (select * from {layout.edits} where id in ({marks(len(ids))})) h
            join {base} b on {layout.on("b", "h")}
        """
        pair = ("h.{l}" if kind == "update" else "null", f"b.{{{letter}}}")
        bits = differing(cursor, layout, source, {"touched": pair}, ids)
        found |= {id_: lists["touched"] for id_, lists in bits.items()}
    return {id_: [at for at, is_touched in enumerate(bits) if is_touched] for id_, bits in found.items()}


def _mendable_first(layout: Layout, row: Mapping[str, Any], places: list[int]) -> list[int]:
    """The column that was refused stands first, also where an insert did not give it: there it is mended."""
    names = layout.schema.values
    if row["kind"] == "delete" or row["error_column"] not in names:
        return places
    at = names.index(row["error_column"])
    return [at, *(place for place in places if place != at)]


def _local_cells(cursor: Cursor, layout: Layout, ids: list[str], places: set[int]) -> Sheet:
    if not places:
        return Sheet(pa.table({"id": pa.array(ids, pa.string())}), layout)
    source = operations_source(narrow(layout, places))
    cells = cell_parts(layout, {"base": "h.b_", "local": "h.l_"}, places)
    return Sheet(cursor.arrow(f"select id{cells} from ({source}) h where id in ({marks(len(ids))})", ids), layout)


def _operation(table: str, row: Mapping[str, Any], key: str, places: list[int], sheet: Sheet) -> dict[str, Any]:
    error = {"code": row["error_code"], "column": row["error_column"], "message": row["error_message"]}
    return {
        "id": row["id"],
        "table": table,
        "key": key,
        "kind": row["kind"],
        "staged_at": _iso(row["staged_at"]),
        "attempted": bool(row["attempted"]),
        "state": "conflict" if row["has_remote"] else "rejected" if row["error_code"] else None,
        "error": error if row["error_code"] else None,
        "cells": [_operation_cell(row, at, sheet) for at in places[:PENDING_CELLS]],
        "more": max(0, len(places) - PENDING_CELLS),
    }


def _operation_cell(row: Mapping[str, Any], at: int, sheet: Sheet) -> list[Any]:
    base = None if row["kind"] == "insert" else sheet.cell(row["id"], at, "base")
    local = None if row["kind"] == "delete" else sheet.cell(row["id"], at, "local")
    return [*sheet.head(at), base, local]


def _iso(when: dt.datetime | None) -> str | None:
    return when.isoformat() if when is not None else None
