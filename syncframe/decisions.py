"""Conflicts as a frame, a row for each cell that differs; and the frame with results, as the queue takes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from . import rules, words
from .errors import SchemaError, SyncError
from .file import Cursor
from .frame import normalise, object_frame
from .keys import key_of, key_table, parts
from .layout import Layout
from .schema import Schema, quote, shown

SEEN = "syncframe_rev"  # in the attrs of a frame of conflicts: the store's revision that it shows
NEEDED = ("table", "key", "column", "theirs", "result")


def frame_of_conflicts(cursor: Cursor, layout: Layout) -> pd.DataFrame:
    """The cells in which mine and theirs differ, in the order of the queue and of the table's columns.

    Returns
    -------
    pd.DataFrame: table, key, column, base, mine, theirs, as plain Python values; None where a side lacks the row.
    """
    theirs = "case when not h.remote_deleted then h.{r} end"
    cursor.run(
        f"""
        create or replace temp table differing as
        select row_number() over (order by h.sequence) as place, {layout.keys_of("h")}
               {layout.also("r.{v} as {b}")}{layout.also(rules.MINE_SHOWN + " as {l}")}{layout.also(theirs + " as {r}")}
        from (select * from {layout.edits} where has_remote and not follower) h
        join {layout.lasts} m on {layout.on("m", "h")}
        left join {layout.rows} r on {layout.on("r", "h")}
        """
    )
    listed = cursor.arrow(f"select {layout.keys} from differing order by place")
    rows = zip(*(column.to_pylist() for column in listed.columns), strict=True)
    keys = _objects(row[0] if len(row) == 1 else row for row in rows)
    found = [
        _column(cursor, name, at, *layout.each(_DIFFERING, [name])) for at, name in enumerate(layout.schema.values)
    ]
    cursor.run("drop table temp.differing")
    frame = pd.concat([pd.DataFrame(columns=[*_SIDES, "place", "at", "column"]), *found], ignore_index=True)
    frame = frame.sort_values(["place", "at"], ignore_index=True)
    places = frame["place"].to_numpy(dtype="int64") - 1
    head = {"table": [layout.table] * len(frame), "key": pd.Series(keys[places], dtype=object)}
    return pd.DataFrame(head | {name: frame[name] for name in ("column", *_SIDES)})


_DIFFERING = "select place, {b}, {l}, {r} from differing where {l} is distinct from {r}"
_SIDES = ("base", "mine", "theirs")


def _column(cursor: Cursor, name: str, at: int, statement: str) -> pd.DataFrame:
    cells = cursor.arrow(statement)
    sides = {side: _objects(cells.column(i + 1).to_pylist()) for i, side in enumerate(_SIDES)}
    frame = pd.DataFrame({side: pd.Series(values, dtype=object) for side, values in sides.items()})
    return frame.assign(place=cells["place"].to_numpy(), at=at, column=name)


def _objects(values: Iterable[Any]) -> np.ndarray:
    """Values as they are: numpy would make two dimensions of tuples, and NaN of None."""
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def check_decisions(frame: pd.DataFrame) -> None:
    """Refuse a frame that is not one of decided cells.

    Raises
    ------
    SyncError
        If a column is missing, or a cell is named twice.
    """
    if not isinstance(frame, pd.DataFrame):
        raise SyncError(
            f"{type(frame).__name__} settles nothing",
            hint="give a callable, or ctx.conflicts.frame() with a column result",
        )
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing:
        raise SyncError(
            f"the frame lacks {shown(missing)}",
            hint='frame = ctx.conflicts.frame(); frame["result"] = frame["theirs"]; ctx.conflicts.resolve(frame)',
        )
    repeated = frame.duplicated(["table", "key", "column"])
    if repeated.any():
        table, key, column = frame.loc[repeated, ["table", "key", "column"]].iloc[0]
        raise SyncError(
            f"column {column!r} of row {words.key(key)} of {table!r} is decided twice", hint="one row for each cell"
        )


def decided_cells(cursor: Cursor, layout: Layout, decisions: pd.DataFrame) -> pa.Table:
    """The decided cells of one table, a row for each key.

    Returns
    -------
    pa.Table: k_*, `decided`, the results as n_*, what was looked at as t_* (theirs) and, where the frame has it, s_*
    (mine), and `seen`, the revision at which it was, where the frame says so.

    Raises
    ------
    SyncError, SchemaError, KeyColumnError
        If a column is none of the table's, or a key or a result does not fit.
    """
    columns = {str(name): _cells(layout, str(name), rows) for name, rows in decisions.groupby("column", sort=False)}
    named = {f"cells_{place}": cells for place, cells in enumerate(columns.values())}
    keys = " union ".join(f"select {layout.keys} from {name}" for name in named)
    joins = "".join(f" left join {name} using ({layout.keys})" for name in named)
    places = {name: f"cells_{place}" for place, name in enumerate(columns)}
    bits = ", ".join(
        f"case when {places[name]}.is_decided then '1' else '0' end" if name in places else "'0'"
        for name in layout.schema.values
    )
    letters = ["n", "t", *(["s"] if "mine" in decisions else [])]
    values = "".join(f", {quote(f'{letter}_{name}')}" for name in columns for letter in letters)
    seen = decisions.attrs.get(SEEN, "null")
    decided = cursor.arrow(
        f"""
        select {layout.keys}, concat('0', {bits}) as decided, {seen}::bigint as seen{values} from ({keys}){joins}
        """,
        **named,
    )
    _refuse_empty(cursor, layout, decided)
    return decided


def _cells(layout: Layout, column: str, rows: pd.DataFrame) -> pa.Table:
    """One column's cells: the key as k_*, is_decided, n_, t_ and s_."""
    if column not in layout.schema.values:
        raise SyncError(
            f"{column!r} is no column of {layout.table!r} that can be decided",
            hint=f"those are {shown(layout.schema.values)}",
        )
    keys = rows["key"].tolist()
    table = key_table(layout, keys).append_column("is_decided", pa.array([True] * len(rows)))
    # Empty is what a side that deleted the row says of each column; `_refuse_empty` looks at the others.
    typed = replace(layout.schema[column], nullable=True)
    schema = Schema((*layout.schema.key_columns, typed), layout.schema.key)
    sides = {"n": "result", "t": "theirs", "s": "mine"}
    for letter, values in ((letter, rows[side]) for letter, side in sides.items() if side in rows):
        row_keys = [dict(zip(layout.schema.key, parts(layout, key), strict=True)) for key in keys]
        given = [{**key, column: value} for key, value in zip(row_keys, values, strict=True)]
        table = table.append_column(f"{letter}_{column}", normalise(object_frame(given), schema).rows[column])
    return table


def _refuse_empty(cursor: Cursor, layout: Layout, decided: pa.Table) -> None:
    """Refuse an empty result of a NOT NULL column, but where a row that one side has deleted is to go."""
    needed = [c.name for c in layout.schema.value_columns if not c.nullable and f"n_{c.name}" in decided.column_names]
    if not needed:
        return
    empty = layout.each(f"case when {rules.IS_DECIDED} and d.{{n}} is null then {{text}} end", needed)
    given = [name for name in layout.schema.values if f"n_{name}" in decided.column_names]
    stays = layout.some(f"{rules.IS_DECIDED} and d.{{n}} is not null", given)
    found = cursor.arrow(
        f"""
        select {layout.keys_of("d")}, coalesce({", ".join(empty)}) as "column"
        from decided d join {layout.firsts} h on {layout.on("h", "d")} and h.has_remote
        join {layout.lasts} m on {layout.on("m", "d")}
        where (not (h.remote_deleted or m.deleted or h.deleted) or {stays})
          and coalesce({", ".join(empty)}) is not null limit 1
        """,
        decided=decided,
    ).to_pylist()
    if found:
        key = words.key(key_of(layout, found[0]))
        raise SchemaError(
            f"column {found[0]['column']!r} of {layout.table!r} cannot be empty: its result in row {key} is",
            hint="give it a value, or leave the row out of the frame",
        )
