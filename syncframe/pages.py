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

from .conflict import grouped
from .errors import SyncError
from .file import Cursor
from .layout import META, Layout
from .queue import Queue
from .schema import Column, quote
from .store import Store, kinds_source, operations_source
from .texts import written
from .undo import last_call
from .words import many

PAGE_ROWS_MAX = 200
PENDING_CELLS = 8
CONFLICT_CELLS = 12
CELL_CHARACTERS = 240
WHOLE_CHARACTERS = 1_000_000
WORDS_CHARACTERS = 2_000
KEY_JOINT = " · "
KINDS = {
    "insert": "kind = 'insert'",
    "update": "kind = 'update'",
    "delete": "kind = 'delete'",
    "rejected": "error_code is not null",
    "attempted": "attempted",
}
_IN_CONFLICT = "has_remote and not follower"
_SETTLED = {"mine": "mine kept, to be sent with the next push", "theirs": "theirs taken"}
# Whose two values of a conflict's column differ: h the first operation, m the last, r the row as last known.
_PAIRS = {
    "first_base": ("h.{l}", "r.{v}"),
    "first_theirs": ("h.{l}", "h.{r}"),
    "mine_base": ("m.{l}", "r.{v}"),
    "mine_first": ("m.{l}", "h.{l}"),
    "mine_theirs": ("m.{l}", "h.{r}"),
    "theirs_base": ("h.{r}", "r.{v}"),
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
                attempted.append(counted.pop("attempted"))  # a push marks what it sends; that makes no revision
                pulled, pushed = map(_iso, times[layout.table])
                tables.append({"name": layout.table, **counted, "last_pull": pulled, "last_push": pushed})
            can_undo = bool(cursor.one(f"select count(*) from {META}.history where can_undo"))
        return tables, can_undo, (rev, attempted)

    # -- pages

    def pending(self, table: str | None, kind: str | None, offset: int, limit: int) -> dict[str, Any]:
        """Operations in sequence, of one table or all, of one of KINDS or all."""
        return self._page(table, lambda layout: _operations(layout, kind), offset, limit, _operation_rows)

    def conflicts(self, table: str | None, offset: int, limit: int) -> dict[str, Any]:
        """Conflicts in sequence, of one table or all."""
        return self._page(
            table, lambda layout: f"{layout.edits} where {_IN_CONFLICT}", offset, limit, self._conflict_rows
        )

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
            parts = [f"select {i} as part, sequence, id from {source(layout)}" for i, layout in enumerate(layouts)]
            total, places = _places(cursor, parts, offset, limit)
            rows: dict[tuple[int, str], dict[str, Any]] = {}
            for i in {part for part, _ in places}:
                found = read(cursor, layouts[i], [id_ for part, id_ in places if part == i])
                rows |= {(i, id_): row for id_, row in found.items()}
            rev = cursor.one(f"select rev from {META}.store")
        return {"total": total, "offset": offset, "rev": rev, "rows": [rows[place] for place in places]}

    def _conflict_rows(self, cursor: Cursor, layout: Layout, ids: list[str]) -> dict[str, dict[str, Any]]:
        return _conflict_rows(cursor, layout, ids, self._store.together(layout.table))

    def cell(self, of: str, id_: str, column: str, side: str) -> dict[str, Any]:
        """One value as text, whole; of over a million characters the first million, and how many there are."""
        with self._store.reading() as cursor:
            for layout in self._store.layouts(cursor):
                if _holds(cursor, layout, id_):
                    return _whole_cell(cursor, layout, of, id_, layout.schema[column], side)
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
        """
        looked_at = dict(rows)
        named = pa.table({"id": pa.array(looked_at, pa.string()), "version": pa.array(looked_at.values(), pa.string())})
        named_too = f"join named n on n.id = h.id where {_IN_CONFLICT}"
        as_shown = "h.remote_version is not distinct from n.version"
        as_shown += f" and {_unchanged(rev)}" if rev is not None else ""
        settled, standing, tables = self._settle(side, None, named_too, as_shown, {"named": named})
        return _settled(side, settled, standing - settled, len(looked_at) - standing, tables)

    def settle_shown(self, side: str, table: str | None, rev: int) -> Done:
        """Settle the conflicts that this filter shows, in one call, but for those that changed after `rev`."""
        settled, standing, tables = self._settle(side, table, f"where {_IN_CONFLICT}", _unchanged(rev), {})
        return _settled(side, settled, standing - settled, 0, tables)

    def _settle(
        self, side: str, table: str | None, which: str, condition: str, named: Mapping[str, pa.Table]
    ) -> tuple[int, int, list[str]]:
        """How many were settled, how many of those asked for are in conflict, and the tables that changed."""
        settle = self._queue.keep_mine if side == "mine" else self._queue.take_theirs
        settled = standing = 0
        tables = []
        with self._store.transaction() as cursor:
            call: int | None = None
            for layout in self._layouts(cursor, table):
                found = cursor.arrow(
                    f"""
                    select {layout.keys_of("h")}, {condition.format(edits=layout.edits, on=layout.on("f", "h"))} as free
                    from {layout.edits} h {which}
                    """,
                    **named,
                )
                standing += len(found)
                keys = found.filter(found["free"]).drop_columns(["free"])
                if len(keys):
                    call = self._store.tick(cursor)[0] if call is None else call
                    settled += settle(cursor, layout, keys, call)
                    tables.append(layout.table)
        return settled, standing, tables

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


def _settled(side: str, settled: int, late: int, gone: int, tables: list[str]) -> Done:
    parts = [f"{many(settled, 'conflict')} settled: {_SETTLED[side]}"] * bool(settled)
    parts += [f"{many(late, 'conflict')} left: a newer row or edit has come since they were shown"] * bool(late)
    parts += [f"{many(gone, 'conflict')} settled already elsewhere"] * bool(gone)
    return Done("; ".join(parts) or "no conflicts to settle", settled, late + gone, tables)


# Which operations


def _operations(layout: Layout, kind: str | None) -> str:
    """The operations of one of KINDS; their own columns say all but what kind they are."""
    condition = KINDS[kind] if kind else "true"
    return f"{_source(layout, condition)} where {condition}"


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


def _unchanged(rev: int) -> str:
    """The condition that an operation h and what waits behind it are as they were at a revision."""
    return f"(h.rev <= {rev:d} and not exists (select 1 from {{edits}} f where {{on}} and f.rev > {rev:d}))"


def _pick(
    cursor: Cursor,
    layout: Layout,
    condition: str,
    rev: int | None,
    named: Mapping[str, pa.Table],
    given: _Given,
) -> pa.Table:
    """The keys of the rows to give up: those of operations that meet the condition, if none on the row is newer."""
    newer = "false" if rev is None else f"rev > {rev:d}"
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


def _holds(cursor: Cursor, layout: Layout, id_: str) -> bool:
    return bool(cursor.one(f"select count(*) from {layout.edits} where id = ?", [id_]))


# One page


def _operation_rows(cursor: Cursor, layout: Layout, ids: list[str]) -> dict[str, dict[str, Any]]:
    flags = layout.each(
        "case when case kind when 'update' then {l} is distinct from {b} when 'insert' then get_bit(given, {i}) = 1 "
        "else {b} is not null end then '1' else '0' end"
    )
    sides = {"base": "b_", "local": "l_"}
    rows = cursor.arrow(
        f"""
        select id, kind, staged_at, attempted, has_remote, deleted, error_code, error_column,
               left(error_message, {WORDS_CHARACTERS}) as error_message, concat('', {_listed(flags)}) as flags,
               {_key_parts(layout, "")}{_cell_parts(layout, sides)}
        from ({operations_source(layout)}) where id in ({_marks(ids)})
        """,
        ids,
    )
    cells = _Cells(rows, layout, tuple(sides))
    return {row["id"]: _operation(layout, i, row, cells) for i, row in enumerate(_plain(rows))}


def _operation(layout: Layout, i: int, row: Mapping[str, Any], cells: _Cells) -> dict[str, Any]:
    places = [at for at, flag in enumerate(row["flags"]) if flag == "1"]
    error = {"code": row["error_code"], "column": row["error_column"], "message": row["error_message"]}
    return {
        "id": row["id"],
        "table": layout.table,
        "key": cells.key(i),
        "kind": row["kind"],
        "staged_at": _iso(row["staged_at"]),
        "attempted": bool(row["attempted"]),
        "state": "conflict" if row["has_remote"] else "rejected" if row["error_code"] else None,
        "error": error if row["error_code"] else None,
        "cells": [_operation_cell(i, at, row["kind"], cells) for at in places[:PENDING_CELLS]],
        "more": max(0, len(places) - PENDING_CELLS),
    }


def _operation_cell(i: int, at: int, kind: str, cells: _Cells) -> list[Any]:
    base = None if kind == "insert" else cells.cell(i, at, "base")
    local = None if kind == "delete" else cells.cell(i, at, "local")
    return [*cells.head(at), base, local]


def _conflict_rows(
    cursor: Cursor, layout: Layout, ids: list[str], together: tuple[tuple[str, ...], ...]
) -> dict[str, dict[str, Any]]:
    differing = "case when {} is distinct from {} then '1' else '0' end"
    bits = {name: layout.each(differing.format(*pair)) for name, pair in _PAIRS.items()}
    bits["given"] = layout.each("get_bit(m.given | h.given, {i})::varchar")
    bits["there"] = layout.each("case when h.{r} is null then '0' else '1' end")
    flags = "".join(f", concat('', {_listed(parts)}) as {name}" for name, parts in bits.items())
    sides = {"base": "r.v_", "mine": "m.l_", "theirs": "h.r_"}
    rows = cursor.arrow(
        f"""
        select h.id, h.remote_version as version, r.rev is not null as base_there, h.deleted as first_deleted,
               m.deleted as mine_deleted, h.remote_deleted as theirs_deleted{flags},
               {_key_parts(layout, "h.")}{_cell_parts(layout, sides)}
        from {_standing(layout, ids)}
        """,
        ids,
    )
    cells = _Cells(rows, layout, tuple(sides))
    return {row["id"]: _conflict(layout, i, row, cells, together) for i, row in enumerate(_plain(rows))}


def _standing(layout: Layout, ids: Sequence[str]) -> str:
    """The conflicts of these ids: h, the last operation on the row m, the row as last known r."""
    return f"""
        (select * from {layout.edits} where {_IN_CONFLICT} and id in ({_marks(ids)})) h
        join {layout.lasts} m on {layout.on("m", "h")} left join {layout.rows} r on {layout.on("r", "h")}
    """


def _conflict(
    layout: Layout, i: int, row: Mapping[str, Any], cells: _Cells, together: tuple[tuple[str, ...], ...]
) -> dict[str, Any]:
    bits = {name: [bit == "1" for bit in row[name]] for name in (*_PAIRS, "given", "there")}
    clashes = _clashes(layout, row, bits, together)
    places = sorted(_differing(row, bits), key=lambda at: (at not in clashes, at))
    return {
        "id": row["id"],
        "version": row["version"],
        "table": layout.table,
        "key": cells.key(i),
        "kind": _conflict_kind(row),
        "cells": [[*cells.head(at), *_sides(i, at, row, bits, cells), at in clashes] for at in places[:CONFLICT_CELLS]],
        "more": max(0, len(places) - CONFLICT_CELLS),
    }


def _conflict_kind(row: Mapping[str, Any]) -> str:
    if row["mine_deleted"]:
        return "delete/edit"
    if row["theirs_deleted"]:
        return "edit/delete"
    return "edit/edit" if row["base_there"] else "insert/insert"


def _sides(i: int, at: int, row: Mapping[str, Any], bits: Mapping[str, list[bool]], cells: _Cells) -> list[Any]:
    is_given = row["base_there"] or bits["given"][at]
    base = cells.cell(i, at, "base") if row["base_there"] else None
    mine = None if row["mine_deleted"] or not is_given else cells.cell(i, at, "mine")
    return [base, mine, None if row["theirs_deleted"] else cells.cell(i, at, "theirs")]


def _differing(row: Mapping[str, Any], bits: Mapping[str, list[bool]]) -> list[int]:
    """The places of columns of which two sides differ; where one side has no row, those that the other changed."""
    if row["mine_deleted"]:
        taken = [bits["theirs_base"] if row["base_there"] else bits["there"]]
    elif row["theirs_deleted"]:
        taken = [bits["mine_base"] if row["base_there"] else bits["given"]]
    elif row["base_there"]:
        taken = [bits["theirs_base"], bits["mine_base"], bits["mine_theirs"]]
    else:
        taken = [bits["mine_theirs"]]
    return [at for at, found in enumerate(zip(*taken, strict=True)) if any(found)]


def _clashes(
    layout: Layout, row: Mapping[str, Any], bits: Mapping[str, list[bool]], together: tuple[tuple[str, ...], ...]
) -> set[int]:
    """The places of columns changed on both sides, differently; `Conflict.columns` says the same of one row."""
    if row["mine_deleted"] or row["theirs_deleted"]:
        return set()
    places = range(len(bits["given"]))
    if not row["base_there"] or row["first_deleted"]:
        return {at for at in places if bits["mine_theirs"][at] and (row["base_there"] or bits["given"][at])}
    names = layout.schema.values
    groups = [[names.index(name) for name in group] for group in grouped(names, together)]

    def differ(group: Sequence[int], *pairs: str) -> bool:
        return all(any(bits[pair][at] for at in group) for pair in pairs)

    return {
        at
        for group in groups
        for at in group
        if differ(group, "first_base", "theirs_base", "first_theirs")
        # Where the first one changed the columns, they are its own after the first merge, and nothing of theirs.
        or (not differ(group, "first_base") and differ(group, "mine_first", "first_theirs", "mine_theirs"))
    }


# Cells


class _Cells:
    """The cells of a page as text, written column by column and only where asked for."""

    def __init__(self, rows: pa.Table, layout: Layout, sides: Sequence[str]) -> None:
        self._rows, self._layout, self._columns = rows, layout, layout.schema.value_columns
        self._written: dict[str, list[str | None]] = {}
        self._counted: dict[str, list[int | None]] = {}
        self._sides = sides

    def head(self, at: int) -> list[str]:
        return [self._columns[at].name, self._columns[at].type]

    def key(self, i: int) -> str:
        keys = enumerate(self._layout.schema.key_columns)
        return KEY_JOINT.join(_ended(self._texts(f"key{at}", column)[i] or "") for at, column in keys)

    def cell(self, i: int, at: int, side: str) -> Any:
        """None, the text, or of a long one its first characters and how many there are."""
        text = self._texts(f"{side}{at}", self._columns[at])[i]
        count = self._counts(f"{side}{at}_n")[i] if _is_cut(self._columns[at]) else 0
        return text if text is None or not count or count <= CELL_CHARACTERS else {"text": text, "chars": count}

    def _texts(self, name: str, column: Column) -> list[str | None]:
        if name not in self._written:
            self._written[name] = written(self._rows[name], column)
        return self._written[name]

    def _counts(self, name: str) -> list[int | None]:
        if name not in self._counted:
            self._counted[name] = self._rows[name].to_pylist()
        return self._counted[name]


def _cell_parts(layout: Layout, sides: Mapping[str, str]) -> str:
    """For a select list: each side's value of each column, cut, and how many characters it has."""
    parts = []
    for side, source in sides.items():
        table, _, prefix = source.rpartition(".")
        for at, column in enumerate(layout.schema.value_columns):
            value = (f"{table}." if table else "") + quote(prefix + column.name)
            parts.append(f", {_cut(value, column, CELL_CHARACTERS)} as {side}{at}")
            parts += [f", {_count(value, column)} as {side}{at}_n"] * _is_cut(column)
    return "".join(parts)


def _key_parts(layout: Layout, alias: str) -> str:
    parts = (
        f"{_cut(alias + quote('k_' + column.name), column, CELL_CHARACTERS + 2)} as key{at}"
        for at, column in enumerate(layout.schema.key_columns)
    )
    return ", ".join(parts)


def _whole_cell(cursor: Cursor, layout: Layout, of: str, id_: str, column: Column, side: str) -> dict[str, Any]:
    is_key = column.name in layout.schema.key
    sides = {"base": "b_", "local": "l_"} if of == "pending" else {"base": "r.v_", "local": "m.l_", "theirs": "h.r_"}
    side = "local" if side == "mine" else side
    if side not in sides:
        raise SyncError(f"a pending operation has no side {side!r}", hint="base or local; a conflict has theirs too")
    table, _, prefix = sides[side].rpartition(".")
    alias = "" if of == "pending" else "h." if is_key else f"{table}."
    value = alias + quote(("k_" if is_key else prefix) + column.name)
    source = f"({operations_source(layout)}) where id in (?)" if of == "pending" else _standing(layout, [id_])
    found = cursor.arrow(
        f"select {_cut(value, column, WHOLE_CHARACTERS)} as value, {_count(value, column)} as chars from {source}",
        [id_],
    )
    if not len(found):
        raise SyncError("this row is not in conflict any more: it was settled since it was shown")
    text, count = written(found["value"], column)[0], found["chars"][0].as_py()
    return {"value": text, **({"chars": count} if (count or 0) > WHOLE_CHARACTERS else {})}


def _is_cut(column: Column) -> bool:
    return column.family in ("text", "bytes")


def _cut(value: str, column: Column, characters: int) -> str:
    if column.family == "bytes":  # two characters each, as hex
        return f"array_slice({value}, 1, {characters // 2})"
    return f"left({value}, {characters})" if column.family == "text" else value


def _count(value: str, column: Column) -> str:
    if column.family == "bytes":
        return f"2 * octet_length({value})"
    return f"length({value})" if column.family == "text" else "null::bigint"


def _ended(text: str) -> str:
    return text if len(text) <= CELL_CHARACTERS else text[:CELL_CHARACTERS] + "…"


def _plain(rows: pa.Table) -> list[dict[str, Any]]:
    """The rows without their cells."""
    names = [name for name in rows.column_names if not name[-1].isdigit() and not name.endswith("_n")]
    plain: list[dict[str, Any]] = rows.select(names).to_pylist()
    return plain


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts) or "''"


def _marks(ids: Sequence[str]) -> str:
    return ", ".join("?" * len(ids))


def _iso(when: dt.datetime | None) -> str | None:
    return when.isoformat() if when is not None else None
