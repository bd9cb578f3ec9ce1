"""The diff: a snapshot and the edited frame in, the changes between them out, as sets.

The second room of a local edit's journey.  It takes what `frame` normalised, compares columns in
Arrow, and joins keys only where they do not stand in the same order; what comes out is what the queue
stages, and shows itself.  Nothing here reads or writes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from . import words
from .errors import DeleteGuardError, KeyColumnError, SchemaError
from .frame import VERSION_COLUMN, distinct, hand_out, matched, nan_is_null, one_chunk
from .schema import NAMES_SHOWN, Schema, shown

ROWS_SHOWN = 10
CELLS_SHOWN = 4
KEY_CHANGES_MAX = 10_000  # of more inserts, the display does not look for pairs
RUNS_MAX = 1_000
DELETES_MAX = 100
DELETES_ALWAYS = 10  # so that small tables can be worked on
DELETES_SHARE = 5  # a fifth of the snapshot

Positions = np.ndarray
Said = tuple[str, str, str]  # a cell in words: its column, the old value, the new one


@dataclass(frozen=True, eq=False, repr=False)
class Changes:
    """What an edited frame changes; displays itself, deletes first.

    Parameters
    ----------
    inserted
        Key and given columns of new rows, in the frame's order.
    old, new
        The rows that were updated, as they were and as they will be: key and the columns handed out.
    touched
        For each row of `new`, which cells differ: one column of booleans for each column of the frame.
    deleted
        Whole rows as they were, as far as they were handed out; and their `_syncframe_version`.
    inserted_at, updated_at
        Where these rows stand in the frame.
    left
        The operations that an undo left alone, because their rows were sent or settled since.
    notes
        What the user should know, in words.
    """

    schema: Schema
    inserted: pa.Table
    old: pa.Table
    new: pa.Table
    touched: pa.Table
    deleted: pa.Table
    inserted_at: Positions
    updated_at: Positions
    left: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        return {"insert": len(self.inserted), "update": len(self.new), "delete": len(self.deleted)}

    def __bool__(self) -> bool:
        return any(self.counts.values())

    @cached_property
    def inserts(self) -> pd.DataFrame:
        """The new rows, given columns only."""
        return hand_out(self.inserted, self.schema)

    @cached_property
    def updates(self) -> pd.DataFrame:
        """Whole rows as they will be."""
        return hand_out(self.new, self.schema)

    @cached_property
    def deletes(self) -> pd.DataFrame:
        """Whole rows as they were."""
        return hand_out(self.deleted, self.schema)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row for each changed cell of an update: key, column, base, local."""
        found = {name: np.flatnonzero(np.asarray(self.touched[name])) for name in self.touched.column_names}
        rows = np.concatenate([*found.values(), np.array([], np.int64)])
        order = np.argsort(rows, kind="stable")
        keys = _keys(self.new.select(list(self.schema.key)))
        columns = [name for name, at in found.items() for _ in at]
        base = [value for name, at in found.items() for value in _cells(self.old, name, at)]
        local = [value for name, at in found.items() for value in _cells(self.new, name, at)]
        listed = {"key": [keys[i] for i in rows], "column": columns, "base": base, "local": local}
        # Said outright, for pandas would make `str` of an object array of texts, and NaN of its None.
        return pd.DataFrame({name: _objects(values)[order] for name, values in listed.items()}, dtype=object)

    @cached_property
    def key_changed(self) -> list[tuple[Any, Any]]:
        """(old key, new key) where a deleted and an inserted row agree in all other cells."""
        columns = [name for name in self.inserted.column_names if name not in self.schema.key]
        if not columns or not len(self.inserted) or not len(self.deleted):
            return []
        waiting: dict[tuple[Any, ...], list[Any]] = {}
        for key, row in zip(_deleted_keys(self), _rows(self.deleted, columns), strict=True):
            waiting.setdefault(row, []).append(key)
        pairs = zip(_inserted_keys(self), _rows(self.inserted, columns), strict=True)
        return [(waiting[row].pop(0), key) for key, row in pairs if waiting.get(row)]

    def operations(self) -> pa.Table:
        """The changes as the queue takes them: one row each, in the order to send them.

        Returns
        -------
        pa.Table
            `ord`; the key as `k_<name>`; `deleted`; `touched`, a text of 0 and 1 over
            ``schema.values``: the given columns of an insert, the cells that differ of an update;
            `l_<name>` the touched cells as edited, else NULL; `held_there`, `b_<name>` and `held_version`,
            the row in the snapshot and its version.

        Notes
        -----
        Deletes go first: where a key was changed, a unique value of the old row would otherwise have
        the new one refused.  Inserts and updates keep the frame's order.
        """
        written = _stacked([_insert_operations(self), _update_operations(self)])
        places = np.concatenate([self.inserted_at, self.updated_at])
        if (np.diff(places) < 0).any():
            written = _rows_at(written, np.argsort(places, kind="stable"))
        operations = _stacked([_delete_operations(self), written])
        return operations.add_column(0, "ord", pa.array(np.arange(len(operations))))

    def __repr__(self) -> str:
        lines = [
            f"  {what}: {key}{': ' * bool(cells)}{', '.join(map(_on_one_line, cells))}"
            for what, key, cells in _described(self)
        ]
        return "\n".join([_headline(self), *lines, *self.notes])

    def _repr_html_(self) -> str:
        rows = [row for line in _described(self) for row in _table_rows(line)]
        notes = [line for note in self.notes for line in note.splitlines()]
        if not rows:
            return words.html(words.paragraphs([_headline(self), *notes]))
        names = ["", "key", "column", "old", "new"]
        table = words.html_table(names, rows, caption=_headline(self), code=[1, 2, 3, 4], rows_max=len(rows))
        return words.html(table, words.paragraphs(notes))


def diff(base: pa.Table, edited: pa.Table, schema: Schema, *, deletes: bool = True) -> Changes:
    """Return the changes that turn `base` into `edited`, as sets.

    Parameters
    ----------
    base
        The snapshot that was handed out, in the declared types: the key columns and those handed out,
        and `_syncframe_version` if known.  Its keys are unique.
    edited
        The same table after the user's edits, normalised, its columns a subset of `base`'s.  Rows may
        be added, dropped and reordered; row order is not a change.
    deletes
        Whether rows of `base` that `edited` lacks are deleted, or left alone.

    Raises
    ------
    KeyColumnError
        If a key in `edited` is missing or repeated; names up to five of them.
    SchemaError
        If `edited` has a column that was not handed out, or an integer that was rounded by the way.

    Notes
    -----
    O(n + m): one hash join on the key, or none where the keys stand in the same order.  Equality is
    SQL's IS NOT DISTINCT FROM (SQL:2003, features T151 and T152), not pandas' ==, for which a missing
    value differs from itself; -0.0 equals 0.0, and NaN is NULL.
    """
    key = list(schema.key)
    columns = [name for name in schema.values if name in edited.column_names]
    _refuse_columns_not_handed_out(columns, base)
    _refuse_empty_keys(edited.select(key))
    aligned = _aligned(base.select(key), edited.select(key))
    differs = {name: _differs(name, base, edited, aligned, schema) for name in columns}
    masks = [mask for mask in differs.values() if mask is not None]
    at = np.flatnonzero(reduce(np.logical_or, masks)) if masks else np.array([], np.int64)
    deleted = aligned.deleted if deletes else aligned.deleted[:0]
    changes = _gathered(base, edited, schema, aligned, at, differs, deleted)
    _refuse_rounded_keys(changes)
    return changes


def guard(changes: Changes, snapshot_rows: int, max_deletes: int | None) -> None:
    """Refuse more deletes than meant.

    A `query()` or `head()` kept by mistake must not empty a table: by default, at most 100 rows may go,
    or the larger of 10 and a fifth of the snapshot if that is less; and never all of several rows,
    unless `max_deletes` says just so.

    Raises
    ------
    DeleteGuardError
        Says how many of how many, and the three ways out.
    """
    deletes = len(changes.deleted)
    allowed = deletes_allowed(snapshot_rows) if max_deletes is None else max_deletes
    is_everything = deletes == snapshot_rows > 1 and (max_deletes is None or max_deletes < snapshot_rows)
    if deletes <= allowed and not is_everything:
        return
    more = "all of its rows" if is_everything else f"more than the {allowed} allowed"
    raise DeleteGuardError(
        f"this would delete {deletes:,} of the {snapshot_rows:,} rows that the frame was made from, {more}: "
        f"{shown(_deleted_keys(changes, NAMES_SHOWN))}{' ...' if deletes > NAMES_SHOWN else ''}",
        hint=f'if rows were only left out: deletes="ignore", or stage the whole frame; '
        f"if they are to go: max_deletes={deletes}",
    )


def deletes_allowed(rows: int) -> int:
    """How many of so many rows may go without a word."""
    return min(DELETES_MAX, max(DELETES_ALWAYS, rows // DELETES_SHARE))


def refuse_repeated(keys: pa.Table) -> None:
    """Refuse a table in which a key stands twice; `keys` has the key columns alone."""
    counted = keys.group_by(keys.column_names).aggregate([([], "count_all")])
    if len(counted) < len(keys):
        twice = counted.filter(pc.greater(counted["count_all"], 1)).select(keys.column_names)
        raise _repeated(twice)


# Which rows belong together -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Aligned:
    """Row numbers: of the rows that are in both, in the new order (None: all, as they stand); of the
    rows only in the new table; of those only in the base."""

    at_base: Positions | None
    at_new: Positions | None
    inserted: Positions
    deleted: Positions
    runs_base: list[tuple[int, int]] | None
    runs_new: list[tuple[int, int]] | None

    def rows(self, at: Positions) -> tuple[Positions, Positions]:
        """The row numbers in the base and in the new table of the matched rows `at`."""
        return (at if self.at_base is None else self.at_base[at]), (at if self.at_new is None else self.at_new[at])


def _aligned(base: pa.Table, new: pa.Table) -> _Aligned:
    none = np.array([], np.int64)
    if all(base[name].equals(new[name]) for name in base.column_names):
        return _Aligned(None, None, none, none, None, None)
    at_new, at_base = matched(base, new)
    at = np.full(len(new), -1)
    at[at_new] = at_base
    inserted = np.flatnonzero(at < 0)
    times = np.bincount(at_base, minlength=len(base))
    _refuse_repeated_pairs(base, new, times, inserted)
    there = np.flatnonzero(at >= 0)
    return _Aligned(at[there], there, inserted, np.flatnonzero(times == 0), _runs(at[there]), _runs(there))


def _refuse_repeated_pairs(base: pa.Table, new: pa.Table, times: np.ndarray, inserted: Positions) -> None:
    known_twice = base.take(pa.array(np.flatnonzero(times > 1)[:NAMES_SHOWN]))
    if len(known_twice):
        raise _repeated(known_twice)
    refuse_repeated(_rows_at(new, inserted))


def _repeated(keys: pa.Table) -> KeyColumnError:
    return KeyColumnError(
        f"{'keys are' if len(keys) > 1 else 'a key is'} repeated: {shown(_keys(keys.slice(0, NAMES_SHOWN)))}",
        hint='df[~df.index.duplicated(keep="last")] keeps one row of each',
    )


def _refuse_columns_not_handed_out(columns: Iterable[str], base: pa.Table) -> None:
    """What such a column held before is not known, so neither is what was edited."""
    gained = [name for name in columns if name not in base.column_names]
    if gained:
        raise SchemaError(
            f"columns {shown(gained)} were not handed out with this frame, so its edits cannot be told",
            hint=f"take a frame that has them: table.frame(columns={[*_values(base), *gained]!r})",
        )


def _values(base: pa.Table) -> list[str]:
    return [name for name in base.column_names if name != VERSION_COLUMN]


def _refuse_empty_keys(keys: pa.Table) -> None:
    # The join would take them for inserts.
    empty = [name for name in keys.column_names if keys[name].null_count]
    if empty:
        raise KeyColumnError(f"the key {shown(empty)} is empty in some rows", hint="give these rows a key")


# Which cells differ ---------------------------------------------------------------------------------------------------


def _differs(name: str, base: pa.Table, edited: pa.Table, aligned: _Aligned, schema: Schema) -> np.ndarray | None:
    """Which of the matched rows differ in this column; None if no row does."""
    old = _chosen(base[name], aligned.at_base, aligned.runs_base)
    now = _chosen(edited[name], aligned.at_new, aligned.runs_new)
    if old.equals(now):
        return None
    differs = distinct(_comparable(old, schema[name].kind), now)
    if old.type in (pa.int64(), pa.uint64()):
        _refuse_rounded(name, old, now, differs, lambda at: _keys(_key_rows(edited, aligned, schema, at)))
    return differs


def _chosen(values: pa.ChunkedArray, at: Positions | None, runs: list[tuple[int, int]] | None) -> pa.ChunkedArray:
    """The values at those rows; a `take` is dear for text, so slices where they stand together."""
    if at is None:
        return values
    plain = one_chunk(values)
    parts = [plain.take(pa.array(at))] if runs is None else [plain.slice(start, end - start) for start, end in runs]
    return pa.chunked_array(parts, values.type)


def _runs(at: Positions | None) -> list[tuple[int, int]] | None:
    """(start, end) of rows that stand together, if these are few: inserts and deletes leave most rows so."""
    if at is None or not len(at):
        return []
    ends = np.flatnonzero(np.diff(at) != 1) + 1
    if len(ends) >= RUNS_MAX:
        return None
    starts = at[np.concatenate([[0], ends])]
    lengths = np.diff(np.concatenate([[0], ends, [len(at)]]))
    return list(zip(starts.tolist(), (starts + lengths).tolist(), strict=True))


def _comparable(values: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """A base that came from elsewhere, in the form that an edited value has."""
    return pc.utf8_lower(values) if kind == "UUID" else nan_is_null(values)


def _key_rows(edited: pa.Table, aligned: _Aligned, schema: Schema, at: Positions) -> pa.Table:
    return _rows_at(edited.select(list(schema.key)), aligned.rows(at)[1])


def _refuse_rounded(
    name: str, old: pa.ChunkedArray, now: pa.ChunkedArray, differs: np.ndarray, keys: Callable[[Positions], list[Any]]
) -> None:
    """Refuse an integer that became exactly what a float makes of it: pandas rounded it, nobody edited it.

    `convert_dtypes()` of an object column does so without a word, and concat makes such columns.
    """
    at = np.flatnonzero(differs)
    was, became = old.take(pa.array(at)), now.take(pa.array(at))
    # Compared as floats: casting 2**63 back to an integer would wrap around, and refuse true edits.
    wrong = np.flatnonzero(_is_float_of(became, pc.equal(_as_float(was), _as_float(became))))
    if len(wrong):
        rounded = ", ".join(f"{was[i]} became {became[i]}" for i in wrong[:NAMES_SHOWN].tolist())
        raise SchemaError(
            f"column {name!r}: {rounded} in rows {shown(keys(at[wrong]))}; that is what a float makes of it",
            hint="keep the column Int64: pandas rounds integers of 2**53 and more on the way through floats",
        )


def _is_float_of(values: pa.Array, candidates: pa.Array) -> np.ndarray:
    """Of the candidates, those that are large, and exact as floats."""
    floats = _as_float(values)
    large = pc.greater_equal(pc.abs(floats), 2.0**53)
    exact = pc.equal(floats.cast(values.type, safe=False), values)
    return np.asarray(pc.fill_null(pc.and_(pc.and_(candidates, large), exact), False))


def _as_float(values: pa.Array) -> pa.Array:
    return values.cast(pa.float64(), safe=False)


def _refuse_rounded_keys(changes: Changes) -> None:
    """A rounded key would be a delete and an insert."""
    for name in changes.schema.key:
        gone, come = one_chunk(changes.deleted[name]), one_chunk(changes.inserted[name])
        if come.type not in (pa.int64(), pa.uint64()) or not len(gone) or not len(come):
            continue
        wrong = _is_float_of(come, pc.is_in(_as_float(come), value_set=_as_float(gone)))
        if len(changes.schema.key) == 1 and wrong.any():
            raise KeyColumnError(
                f"key {name!r}: {shown(come.filter(pa.array(wrong)).to_pylist())} is what a float makes of a key "
                f"that is gone",
                hint="keep the key Int64: pandas rounds integers of 2**53 and more on the way through floats",
            )


# The rows that changed ------------------------------------------------------------------------------------------------


def _gathered(
    base: pa.Table,
    edited: pa.Table,
    schema: Schema,
    aligned: _Aligned,
    at: Positions,
    differs: dict[str, np.ndarray | None],
    deleted: Positions,
) -> Changes:
    at_base, at_new = aligned.rows(at)
    old, now = _rows_at(base, at_base), _rows_at(edited, at_new)
    new = pa.table({name: now[name] if name in differs else old[name] for name in _values(old)})
    none = np.zeros(len(at), dtype=bool)
    touched = {name: pa.array(none if mask is None else mask[at]) for name, mask in differs.items()}
    inserted = _rows_at(edited.select([*schema.key, *differs]), aligned.inserted)
    return Changes(
        schema, inserted, old, new, pa.table(touched), _rows_at(base, deleted), aligned.inserted, at_new
    )  # fmt: skip


def _rows_at(table: pa.Table, at: Positions) -> pa.Table:
    """Real copies of these rows: the edited table may share memory with a frame that is edited on.

    Column by column and none for none: `table.take` copies every chunk before it takes one row.
    """
    if not len(at):
        return table.slice(0, 0)
    return pa.table({name: one_chunk(table[name]).take(pa.array(at)) for name in table.column_names})


# Operations for the queue ---------------------------------------------------------------------------------------------


def _insert_operations(changes: Changes) -> pa.Table:
    rows = changes.inserted
    given = {name: np.ones(len(rows), dtype=bool) for name in rows.column_names if name not in changes.schema.key}
    return _operations(changes.schema, rows, given, local=rows, base=None)


def _update_operations(changes: Changes) -> pa.Table:
    touched = {name: np.asarray(changes.touched[name]) for name in changes.touched.column_names}
    # The key as the base has it: that is the row which is meant.
    return _operations(changes.schema, changes.old, touched, local=changes.new, base=changes.old)


def _delete_operations(changes: Changes) -> pa.Table:
    return _operations(changes.schema, changes.deleted, {}, local=None, base=changes.deleted)


def _operations(
    schema: Schema, rows: pa.Table, touched: dict[str, np.ndarray], *, local: pa.Table | None, base: pa.Table | None
) -> pa.Table:
    count = len(rows)
    operations: dict[str, Any] = {f"k_{name}": one_chunk(rows[name]) for name in schema.key}
    operations["deleted"] = pa.array(np.full(count, local is None))
    operations["touched"] = _bits(schema.values, touched, count)
    for column in schema.value_columns:
        cells = _taken(local if column.name in touched else None, column.name, column.arrow, count)
        operations[f"l_{column.name}"] = _masked(cells, touched.get(column.name))
    for column in schema.value_columns:
        operations[f"b_{column.name}"] = _taken(base, column.name, column.arrow, count)
    operations["held_there"] = pa.array(np.full(count, base is not None))
    operations["held_version"] = _taken(base, VERSION_COLUMN, pa.large_string(), count)
    return pa.table(operations)


def _taken(table: pa.Table | None, name: str, arrow: pa.DataType, count: int) -> pa.Array:
    """A column of `table`, or NULLs where it has none."""
    if table is None or name not in table.column_names:
        return pa.nulls(count, arrow)
    return one_chunk(table[name]).cast(arrow)


def _masked(values: pa.Array, mask: np.ndarray | None) -> pa.Array:
    if mask is None or mask.all():
        return values
    return pc.if_else(pa.array(mask), values, pa.scalar(None, values.type))


def _bits(names: Sequence[str], touched: dict[str, np.ndarray], count: int) -> pa.Array:
    """A text of 0 and 1 for each row, one character a column: more than 64 columns fit, and SQL can read it."""
    if not names or not count:
        return pa.array([""] * count, pa.large_string())
    digits = np.full((count, len(names)), ord("0"), dtype=np.uint8)
    for at, name in enumerate(names):
        if name in touched:
            digits[:, at] += touched[name]
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(len(names)), count, [None, pa.py_buffer(digits.tobytes())])
    return fixed.cast(pa.large_binary()).cast(pa.large_string())


def _stacked(tables: list[pa.Table]) -> pa.Table:
    full = [table for table in tables if len(table)] or tables[:1]
    return full[0] if len(full) == 1 else pa.concat_tables(full).combine_chunks()


# Words ----------------------------------------------------------------------------------------------------------------


def _headline(changes: Changes) -> str:
    counts = changes.counts
    return f"Changes: {counts['delete']} deletes, {counts['insert']} inserts, {counts['update']} updates"


def _described(changes: Changes) -> list[tuple[str, str, list[Said]]]:
    """(what, keys, cells) of the lines below the first: deletes before all else, for they are what can hurt."""
    pairs = changes.key_changed if len(changes.inserted) <= KEY_CHANGES_MAX else []
    lines: list[tuple[str, str, list[Said]]] = [
        ("deletes", words.keys(_deleted_keys(changes, ROWS_SHOWN), len(changes.deleted)), []),
        ("key changed", _listed_pairs(pairs), []),
        *_rows_described("inserts", changes, changes.inserted),
        *_rows_described("updates", changes, changes.new),
        (
            "left alone, for they were sent or settled since",
            words.keys(changes.left[:ROWS_SHOWN], len(changes.left)),
            [],
        ),
    ]
    return [line for line in lines if line[1]]


def _listed_pairs(pairs: list[tuple[Any, Any]]) -> str:
    more = f" and {len(pairs) - ROWS_SHOWN:,} more" if len(pairs) > ROWS_SHOWN else ""
    return ", ".join(f"{words.key(old)} -> {words.key(new)}" for old, new in pairs[:ROWS_SHOWN]) + more


def _rows_described(what: str, changes: Changes, rows: pa.Table) -> list[tuple[str, str, list[Said]]]:
    """The first rows with their first cells."""
    keys = _keys(rows.select(list(changes.schema.key)).slice(0, ROWS_SHOWN))
    cells = _inserted_cells if what == "inserts" else _updated_cells
    said: list[tuple[str, str, list[Said]]] = [
        (what, words.key(key), _first_cells(cells(changes, at))) for at, key in enumerate(keys)
    ]
    more = len(rows) - len(keys)
    return [*said, (what, f"and {more:,} more", [])] if more else said


def _updated_cells(changes: Changes, at: int) -> list[Said]:
    """(column, old, new) of each cell of an updated row that differs."""
    names = [name for name in changes.touched.column_names if changes.touched[name][at].as_py()]
    return [(words.name(n), *words.change(_cell(changes.old, n, at), _cell(changes.new, n, at))) for n in names]


def _inserted_cells(changes: Changes, at: int) -> list[Said]:
    """(column, nothing, new) of each cell of a new row that is not empty."""
    names = [name for name in changes.inserted.column_names if name not in changes.schema.key]
    values = [(name, _cell(changes.inserted, name, at)) for name in names]
    return [(words.name(name), "", words.cell(value)) for name, value in values if value is not None]


def _first_cells(cells: list[Said]) -> list[Said]:
    more = len(cells) - CELLS_SHOWN
    return [*cells[:CELLS_SHOWN], (f"and {words.many(more, 'more cell')}", "", "")] if more > 0 else cells


def _on_one_line(cell: Said) -> str:
    name, old, new = cell
    return " ".join(filter(None, (name, f"{old} ->" if old else "", new)))


def _table_rows(line: tuple[str, str, list[Said]]) -> list[list[str]]:
    """One line of the text as rows of the table, one for each cell."""
    what, key, cells = line
    first, *others = cells or [("", "", "")]
    return [[what, key, *first], *(["", "", *cell] for cell in others)]


def _cell(table: pa.Table, name: str, at: int) -> Any:
    return table[name][at].as_py()


def _cells(table: pa.Table, name: str, at: Positions) -> list[Any]:
    return list(_rows_at(table.select([name]), at)[name].to_pylist())


def _rows(table: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def _keys(keys: pa.Table) -> list[Any]:
    """The key of each row: the value itself, a tuple only of a compound one."""
    if keys.num_columns == 1:
        return list(keys.column(0).to_pylist())
    return _rows(keys, keys.column_names)


def _deleted_keys(changes: Changes, count: int | None = None) -> list[Any]:
    return _keys(changes.deleted.select(list(changes.schema.key)).slice(0, count))


def _inserted_keys(changes: Changes, count: int | None = None) -> list[Any]:
    return _keys(changes.inserted.select(list(changes.schema.key)).slice(0, count))


def _objects(values: list[Any]) -> np.ndarray:
    """An object array, whatever is in it: numpy would make two dimensions of tuples."""
    return np.fromiter(values, dtype=object, count=len(values))
