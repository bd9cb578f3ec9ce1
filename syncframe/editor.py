"""What a person decides cell by cell: one conflict in full, a typed value, a conflict settled, a refused row mended.

A side that was chosen never travels: it is named, and its value is taken where it stands, so that a text of a million
letters comes out as it was.  Each call is one transaction, and does nothing where the row is not as it was shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from .diff import diff
from .errors import KeyColumnError, SyncError
from .file import Cursor
from .frame import VERSION_COLUMN, declared
from .layout import META, Layout
from .pages import Done
from .queue import Queue
from .schema import Column, quote, shown
from .sheet import IN_CONFLICT, SIDES, named, standing, table_of, unchanged
from .sides import ONE_SIDED, Standing, conflict_rows, read_standing
from .store import Store
from .typed import kept, typed

NOT_AS_SHOWN = "left as it was: a newer row or edit has come since it was shown; look at it again"
ELSEWHERE = "settled already elsewhere"
_AS_SHOWN = "as the result shows, to be sent with the next push"
_AS_THEIRS = "theirs taken, nothing is left to send"
_GONE = {"edit/delete": "theirs", "delete/edit": "mine"}
# Of a row that one side has deleted and that is kept: whose cells it has where nothing else is said.
_LEFT_OF = {"edit/delete": "mine", "delete/edit": "theirs"}
_BY_STATE = {"mine": "mine", "theirs": "theirs", "same": "theirs", "unchanged": "theirs"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person chose for one cell: the value of a side, a typed text, or NULL where there is neither."""

    side: str | None = None
    text: str | None = None


class Editor:
    """Decides single rows of one store."""

    def __init__(self, store: Store, queue: Queue) -> None:
        self._store, self._queue = store, queue

    def conflict(self, id_: str) -> dict[str, Any]:
        """One conflict with all its columns in the table's order, and which of them may be NULL.

        Raises
        ------
        SyncError
            If it was settled since it was shown.
        """
        with self._store.reading() as cursor:
            layout = table_of(self._store, cursor, id_, IN_CONFLICT)
            if layout is not None:
                groups = self._store.together(layout.table)
                row = conflict_rows(cursor, layout, [id_], groups, cells_max=None)[id_]
                columns = {column.name: {"nullable": column.nullable} for column in layout.schema.value_columns}
                return {**row, "rev": cursor.one(f"select rev from {META}.store"), "columns": columns}
        raise SyncError("this row is not in conflict any more: it was settled since it was shown")

    def value(self, id_: str, column: str, text: str | None) -> str | None:
        """A typed text as it will be kept; None is NULL.

        Raises
        ------
        SyncError
            If it does not fit, or the row is not in the queue any more.
        """
        with self._store.reading() as cursor:
            layout = table_of(self._store, cursor, id_)
            if layout is not None:
                return kept(text, _column(layout, column))
        raise SyncError("this row is not in the queue any more: it was sent, discarded or settled since it was shown")

    def resolve(
        self, id_: str, version: str | None, rev: int, cells: Mapping[str, Choice], row: str | None = None
    ) -> Done:
        """Settle one conflict as a person has decided it.

        Parameters
        ----------
        version, rev
            The remote version and the list's revision that were shown.
        cells
            By column; what is not named is taken from the side that changed it.
        row
            "keep" or "delete", where one side has deleted the row.

        Raises
        ------
        SyncError
            If a column that clashes is not named, or a choice does not fit; nothing is done then.
        """
        with self._store.transaction() as cursor:
            layout = table_of(self._store, cursor, id_, IN_CONFLICT)
            if layout is None:
                return Done(ELSEWHERE, late=1)
            (one,) = read_standing(cursor, layout, [id_], self._store.together(layout.table))
            if one.version != version or not _is_as_shown(cursor, layout, id_, rev):
                return Done(NOT_AS_SHOWN, late=1)
            chosen = _chosen(cursor, layout, one, cells, _is_kept(one, row))
            self._queue.resolve(cursor, layout, chosen)
            is_left = table_of(self._store, cursor, id_) is not None
        how = _AS_SHOWN if is_left else _AS_THEIRS
        return Done(f"1 conflict settled: {how}", 1, 0, [layout.table])

    def mend(self, id_: str, rev: int, cells: Mapping[str, Choice]) -> Done:
        """Edit the row of a rejected insert or update, so that it is sent again by the next push.

        Undo brings back the value, to be refused once more, but not the words of its refusal.

        Raises
        ------
        SyncError
            If a value does not fit; nothing is done then.
        """
        with self._store.transaction() as cursor:
            layout = table_of(self._store, cursor, id_, "error_code is not null and not deleted and not has_remote")
            if layout is None:
                return Done("not rejected any more", late=1)
            if not _is_as_shown(cursor, layout, id_, rev):
                return Done(NOT_AS_SHOWN, late=1)
            values = {name: typed(choice.text, _column(layout, name)) for name, choice in cells.items()}
            if not self._stage(cursor, layout, id_, values):
                return Done("1 operation will be sent again by the next push", 1, 0, [layout.table])
            is_left = table_of(self._store, cursor, id_) is not None
        how = "it will be sent by the next push" if is_left else "it says nothing new any more, and is sent no more"
        return Done(f"1 operation mended: {how}", 1, 0, [layout.table])

    def _stage(self, cursor: Cursor, layout: Layout, id_: str, values: Mapping[str, pa.Array]) -> bool:
        """Stage an edit of the row of a rejected operation, as `SyncTable.update` does; the error goes with it.

        False where the values say nothing new: then it is merely sent again.
        """
        base = self._row(cursor, layout, id_)
        edited = pa.table({name: base[name] for name in layout.schema.key} | dict(values))
        operations = diff(base, edited, layout.schema, deletes=False).operations()
        if not len(operations):
            self._store.tick(cursor)
            self._queue.retry(cursor, layout, pa.table({"id": [id_]}))
            return False
        revision = cursor.one(f"select rev from {META}.store")
        self._queue.stage(cursor, layout, operations, held=layout.schema.values, revision=revision, action="mend")
        return True

    def _row(self, cursor: Cursor, layout: Layout, id_: str) -> pa.Table:
        """The row of an operation as it is here."""
        statement, _ = self._store.select(layout, (*layout.schema.names, VERSION_COLUMN), None)
        on = " and ".join(f"r.{quote(n)} = e.{quote('k_' + n)}" for n in layout.schema.key)
        own = f"(select {layout.keys} from {layout.edits} where id = ?)"
        rows = cursor.arrow(f"select r.* from ({statement}) r semi join {own} e on {on}", [id_])
        return declared(rows, layout.schema)


def _column(layout: Layout, name: str) -> Column:
    if name in layout.schema.key:
        raise KeyColumnError(
            f"column {name!r} is part of the key of {layout.table!r}, which stays", hint="make a row with the other key"
        )
    return layout.schema[name]


def _is_as_shown(cursor: Cursor, layout: Layout, id_: str, rev: int) -> bool:
    """Whether nothing on an operation's row is newer than a revision."""
    is_same = unchanged(rev).format(edits=layout.edits, on=layout.on("f", "h"))
    return bool(cursor.one(f"select {is_same} from {layout.edits} h where h.id = ?", [id_]))


def _is_kept(one: Standing, row: str | None) -> bool:
    """Whether the row stays, or comes back."""
    if one.kind in ONE_SIDED and row is None:
        raise SyncError("one side has deleted this row: say whether it is kept", hint="keep the row, or delete it")
    if one.kind not in ONE_SIDED and row is not None:
        raise SyncError("neither side has deleted this row: it stays", hint="decide its columns")
    return row != "delete"


def _chosen(cursor: Cursor, layout: Layout, one: Standing, cells: Mapping[str, Choice], is_kept: bool) -> pa.Table:
    """The row that a person has decided, as the queue takes it."""
    named_cells = {_column(layout, name).name: choice for name, choice in cells.items()} if is_kept else {}
    columns = layout.schema.value_columns
    undecided = [c.name for at, c in enumerate(columns) if one.states[at] == "clash" and c.name not in named_cells]
    if undecided and is_kept:
        raise SyncError(
            f"{shown(undecided)}: changed on both sides, and not decided",
            hint="choose base, mine or theirs, or give a value",
        )
    typed_cells = {"one": pa.array([1])}
    parts = [_cell(one, at, column, named_cells.get(column.name), typed_cells) for at, column in enumerate(columns)]
    values = parts if is_kept else [f"null::{column.store}" for column in columns]
    listed = "".join(f", {value} as {quote('n_' + column.name)}" for value, column in zip(values, columns, strict=True))
    return cursor.arrow(
        f"""
        select {layout.keys_of("h")}, h.remote_version as looked_at, {str(not is_kept).lower()} as now_deleted,
               '{layout.bits(named_cells)}' as given{listed}
        from {standing(layout, 1)} cross join typed t
        """,
        [one.id],
        typed=pa.table(typed_cells),
    )


def _cell(one: Standing, at: int, column: Column, choice: Choice | None, typed_cells: dict[str, pa.Array]) -> str:
    """The value of a cell as SQL; a typed one is laid by for the statement."""
    if choice is None:
        return named(SIDES[_LEFT_OF.get(one.kind) or _BY_STATE.get(one.states[at], "theirs")], column)
    is_given = choice.side != "mine" or one.given[at]  # an insert that did not give it has no value of its own
    if choice.side is not None and is_given:
        if (choice.side == "base" and not one.base_there) or choice.side == _GONE.get(one.kind):
            raise SyncError(
                f"column {column.name!r} cannot be taken from {choice.side!r}: the row is not there on that side",
                hint="take another side, or give a value",
            )
        return named(SIDES[choice.side], column)
    typed_cells[f"at{at}"] = typed(choice.text if is_given else None, column)
    return f"t.at{at}"
