"""Cells as text for a front end: which of them differ, and those that are shown, long ones cut.

A table may have 500 columns, and a page shows a dozen of each row: which columns differ is asked first, as plain
comparisons, and then only the columns that some row of the page shows are read.  The text is the one that `texts`
writes, so that what is shown is what can be typed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from .errors import SyncError
from .file import Cursor
from .layout import Layout
from .schema import Column, quote
from .store import Store, operations_source
from .texts import written

CELL_CHARACTERS = 240
WHOLE_CHARACTERS = 1_000_000
KEY_JOINT = " · "
# A conflict that stands: the first operation on its row says so.
IN_CONFLICT = "has_remote and not follower"
# Where the sides of a conflict are in `standing`, as the alias and the letter of their columns.
SIDES = {"base": "r.v_", "mine": "m.l_", "theirs": "h.r_"}
_OPERATION_SIDES = {"base": "h.b_", "local": "h.l_"}


class Sheet:
    """The cells of some rows as text, written column by column and only where asked for.

    Parameters
    ----------
    rows
        The rows with their id, and their cells as `cell_parts` names them.
    """

    def __init__(self, rows: pa.Table, layout: Layout) -> None:
        self._rows, self._columns = rows, layout.schema.value_columns
        self._places = {id_: i for i, id_ in enumerate(rows["id"].to_pylist())}
        self._texts: dict[str, list[str | None]] = {}
        self._counts: dict[str, list[int | None]] = {}

    def head(self, at: int) -> list[str]:
        return [self._columns[at].name, self._columns[at].type]

    def cell(self, id_: str, at: int, side: str) -> Any:
        """None, the text, or of a long one its first characters and how many there are."""
        name, column, i = f"{side}{at}", self._columns[at], self._places[id_]
        if name not in self._texts:
            self._texts[name] = written(self._rows[name], column)
        text, count = self._texts[name][i], self._count(name, i) if _is_cut(column) else 0
        return text if text is None or not count or count <= CELL_CHARACTERS else {"text": text, "chars": count}

    def _count(self, name: str, i: int) -> int | None:
        if name not in self._counts:
            self._counts[name] = self._rows[f"{name}_n"].to_pylist()
        return self._counts[name][i]


def cell_parts(layout: Layout, sides: Mapping[str, str], places: Collection[int]) -> str:
    """For a select list behind the id: each side's value in these columns, cut, and how many characters it has.

    `sides` says where each is, as the alias and the letter of its columns: "h.r_".
    """
    listed = []
    for side, source in sides.items():
        for at in sorted(places):
            column = layout.schema.value_columns[at]
            value = named(source, column)
            listed.append(f", {_cut(value, column, CELL_CHARACTERS)} as {side}{at}")
            listed += [f", {_count(value, column)} as {side}{at}_n"] * _is_cut(column)
    return "".join(listed)


def key_parts(layout: Layout, alias: str) -> str:
    """For a select list: the key's columns, cut."""
    return ", ".join(
        f"{_cut(named(f'{alias}.k_', column), column, CELL_CHARACTERS + 2)} as key{at}"
        for at, column in enumerate(layout.schema.key_columns)
    )


def key_texts(rows: pa.Table, layout: Layout) -> list[str]:
    """The keys that were read with `key_parts`, each on one line."""
    texts = [written(rows[f"key{at}"], column) for at, column in enumerate(layout.schema.key_columns)]
    return [KEY_JOINT.join(_ended(text or "") for text in key) for key in zip(*texts, strict=True)]


def differing(
    cursor: Cursor, layout: Layout, source: str, pairs: Mapping[str, tuple[str, str]], ids: Sequence[str]
) -> dict[str, dict[str, list[bool]]]:
    """Of each id in a source, for each pair of templates by its name, in which value columns the two differ.

    A list of comparisons, for a CASE for each column of 500 takes DuckDB twice the time.
    """
    if not ids:
        return {}
    lists = ", ".join(
        f"[{', '.join(layout.each(f'{left} is distinct from {right}'))}]::boolean[] as {name}"
        for name, (left, right) in pairs.items()
    )
    rows = cursor.arrow(f"select h.id, {lists} from {source}", list(ids)).to_pylist()
    return {row.pop("id"): row for row in rows}


def whole_cell(cursor: Cursor, layout: Layout, of: str, id_: str, column: Column, side: str) -> dict[str, Any]:
    """One value of an operation ("pending") or of a conflict as text, up to a million characters of it.

    Raises
    ------
    SyncError
        If there is no such side, or the row is not in conflict any more.
    """
    is_key = column.name in layout.schema.key
    sides = SIDES | {"local": SIDES["mine"]} if of == "conflicts" else _OPERATION_SIDES
    side = "local" if side == "mine" else side
    if side not in sides:
        raise SyncError(f"a pending operation has no side {side!r}", hint="base or local; a conflict has theirs too")
    value = named("h.k_" if is_key else sides[side], column)
    source = f"({operations_source(layout)}) h where id in (?)" if of == "pending" else standing(layout, 1)
    found = cursor.arrow(
        f"select {_cut(value, column, WHOLE_CHARACTERS)} as value, {_count(value, column)} as chars from {source}",
        [id_],
    )
    if not len(found):
        raise SyncError("this row is not in conflict any more: it was settled since it was shown")
    text, count = written(found["value"], column)[0], found["chars"][0].as_py()
    return {"value": text, **({"chars": count} if (count or 0) > WHOLE_CHARACTERS else {})}


def standing(layout: Layout, ids: int | None = None, *, has_followers: bool = True) -> str:
    """The conflicts, of so many ids or all: h, the last operation on the row m, the row as last known r.

    Where nothing waits behind any of them, the first is the last.
    """
    only = f" and id in ({marks(ids)})" if ids is not None else ""
    last = f"join {_edits(layout, layout.is_last)} m on {layout.on('m', 'h')}" if has_followers else ""
    first, row = _edits(layout, f"{IN_CONFLICT}{only}"), f"{layout.rows} r on {layout.on('r', 'h')}"
    return f"{first} h {last} left join {row}"


def _edits(layout: Layout, condition: str) -> str:
    """The operations with what is asked of them, named one by one: a `*` over 1,000 columns costs time, used or not."""
    asked = f"sequence, id, {layout.keys}, follower, given, deleted, remote_deleted, remote_version, rev"
    return f"(select {asked}{layout.also('{l}')}{layout.also('{r}')} from {layout.edits} e where {condition})"


def unchanged(rev: int) -> str:
    """The condition that an operation h and what waits behind it, {on} its key in {edits}, are as at a revision."""
    return f"(h.rev <= {rev:d} and not exists (select 1 from {{edits}} f where {{on}} and f.rev > {rev:d}))"


def narrow(layout: Layout, places: Collection[int]) -> Layout:
    """The same table with these value columns alone: each column of a join costs time, used or not."""
    return Layout(layout.table, layout.schema.select([layout.schema.values[at] for at in places]))


def table_of(store: Store, cursor: Cursor, id_: str, condition: str = "true") -> Layout | None:
    """The table in whose queue an operation of that id stands as the condition says."""
    counted = f"where id = ? and {condition}"
    every = store.layouts(cursor)
    return next((t for t in every if cursor.one(f"select count(*) from {t.edits} {counted}", [id_])), None)


def marks(count: int) -> str:
    return ", ".join("?" * count)


def named(source: str, column: Column) -> str:
    """A column of an alias and a letter: "h.r_" is where `standing` has theirs."""
    alias, _, prefix = source.rpartition(".")
    return f"{alias}.{quote(prefix + column.name)}"


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
