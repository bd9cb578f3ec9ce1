"""A conflict as people decide it: from which side each column is taken, and where both sides say something else.

What is said of a column is what the merge does with it (`conflict.merge`, `rules.merged_row`), behind a first
operation that waits for its answer too:

    clash       both sides changed it, differently; of two rows that were both made, what was given here and differs
    mine        only this side changed it: the result is mine
    theirs      only they changed it, or it was not given here: the result is theirs
    same        both changed it alike
    unchanged   nobody changed it
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from .conflict import grouped
from .file import Cursor
from .layout import Layout
from .sheet import SIDES, Sheet, cell_parts, differing, key_parts, key_texts, narrow, standing

CONFLICT_CELLS = 12
KINDS = {
    "edit/edit": "not m.deleted and not h.remote_deleted and r.rev is not null",
    "edit/delete": "not m.deleted and h.remote_deleted",
    "delete/edit": "m.deleted",
    "insert/insert": "not m.deleted and not h.remote_deleted and r.rev is null",
}
ONE_SIDED = ("edit/delete", "delete/edit")
# Whose two values of a column differ: h the first operation, m the last, r the row as last known.
_PAIRS = {
    "mine_base": ("m.{l}", "r.{v}"),
    "mine_theirs": ("m.{l}", "h.{r}"),
    "theirs_base": ("h.{r}", "r.{v}"),
}
_BEHIND = {
    "first_base": ("h.{l}", "r.{v}"),
    "first_theirs": ("h.{l}", "h.{r}"),
    "mine_first": ("m.{l}", "h.{l}"),
}
Groups = Sequence[Sequence[str]]
Together = Mapping[int, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Standing:
    """One conflict without its cells.

    Parameters
    ----------
    kind
        What mine and theirs did, as KINDS has it.
    states
        Of each value column, in the table's order.
    differing
        The places of the value columns that differ on some side.
    given
        Of each value column, whether mine says something of it: all of them, but for an insert.
    edited
        The revision of the newest operation on the row: a long value is shown cut, and may differ behind the cut.
    """

    id: str
    version: str | None
    kind: str
    states: tuple[str, ...]
    differing: tuple[int, ...]
    given: tuple[bool, ...]
    base_there: bool
    edited: int
    key: str

    @property
    def shown(self) -> list[int]:
        """The places that differ, clashes first."""
        return sorted(self.differing, key=lambda at: (self.states[at] != "clash", at))


def read_standing(cursor: Cursor, layout: Layout, ids: Sequence[str], groups: Groups) -> list[Standing]:
    """The conflicts of these ids; one that stands no more is left out."""
    slim = narrow(layout, ())
    rows = cursor.arrow(
        f"""
        select h.id, h.remote_version as version, r.rev is not null as base_there, h.deleted as first_deleted,
               m.deleted as mine_deleted, h.remote_deleted as theirs_deleted, m.follower as has_follower,
               greatest(h.rev, m.rev) as edited, (m.given | h.given)::varchar as given, {key_parts(layout, "h")}
        from {standing(slim, len(ids))}
        """,
        ids,
    )
    listed = rows.drop_columns([name for name in rows.column_names if name.startswith("key")]).to_pylist()
    bits = _bits(cursor, layout, listed)
    together = _together(layout, groups)
    keys = key_texts(rows, layout)
    return [_standing(row, bits[row["id"]], key, together) for row, key in zip(listed, keys, strict=True)]


def conflict_rows(
    cursor: Cursor, layout: Layout, ids: Sequence[str], groups: Groups, cells_max: int | None = CONFLICT_CELLS
) -> dict[str, dict[str, Any]]:
    """Conflicts by their id as a front end shows them: cells that differ, the first so many, or every column."""
    found = read_standing(cursor, layout, ids, groups)
    every = range(len(layout.schema.values))
    places = {one.id: every if cells_max is None else one.shown[:cells_max] for one in found}
    needed = {at for shown in places.values() for at in shown}
    rows = pa.table({"id": pa.array(ids, pa.string())})
    if needed:
        cells, slim = cell_parts(layout, SIDES, needed), narrow(layout, needed)
        rows = cursor.arrow(f"select h.id{cells} from {standing(slim, len(ids))}", list(ids))
    sheet, numbers = Sheet(rows, layout), _numbers(layout, groups)
    return {one.id: _row(layout.table, one, places[one.id], sheet, numbers) for one in found}


def _bits(cursor: Cursor, layout: Layout, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[bool]]]:
    """What differs in each conflict; where nothing waits behind the first operation, that is the last."""
    behind = [row["id"] for row in rows if row["has_follower"]]
    alone = [row["id"] for row in rows if not row["has_follower"]]
    one = {name: (left.replace("m.", "h."), right) for name, (left, right) in _PAIRS.items()}
    return differing(cursor, layout, standing(layout, len(alone), has_followers=False), one, alone) | differing(
        cursor, layout, standing(layout, len(behind)), _PAIRS | _BEHIND, behind
    )


def _standing(row: Mapping[str, Any], bits: Mapping[str, list[bool]], key: str, together: Together) -> Standing:
    given = tuple(row["base_there"] or bit == "1" for bit in row["given"][1:])
    kind = _kind(row)
    differing_places = _differing(kind, row, bits, given)
    return Standing(
        id=row["id"],
        version=row["version"],
        kind=kind,
        states=_states(kind, row, bits, given, differing_places, together),
        differing=tuple(differing_places),
        given=given,
        base_there=row["base_there"],
        edited=row["edited"],
        key=key,
    )


def _kind(row: Mapping[str, Any]) -> str:
    if row["mine_deleted"]:
        return "delete/edit"
    if row["theirs_deleted"]:
        return "edit/delete"
    return "edit/edit" if row["base_there"] else "insert/insert"


def _differing(kind: str, row: Mapping[str, Any], bits: Mapping[str, list[bool]], given: Sequence[bool]) -> list[int]:
    """The places of columns of which two sides differ; where one side has no row, those that the other changed."""
    if kind == "delete/edit":
        taken = [bits["theirs_base"]]
    elif kind == "edit/delete":
        taken = [bits["mine_base"] if row["base_there"] else list(given)]
    elif kind == "edit/edit":
        taken = [bits["theirs_base"], bits["mine_base"], bits["mine_theirs"]]
    else:
        taken = [bits["mine_theirs"]]
    return [at for at, found in enumerate(zip(*taken, strict=True)) if any(found)]


def _states(
    kind: str,
    row: Mapping[str, Any],
    bits: Mapping[str, list[bool]],
    given: Sequence[bool],
    differing_places: Sequence[int],
    together: Together,
) -> tuple[str, ...]:
    found = ["same" if kind == "insert/insert" else "unchanged"] * len(given)
    for at in differing_places:
        if kind in ONE_SIDED:
            found[at] = "theirs" if kind == "delete/edit" else "mine"
        elif kind == "insert/insert":
            found[at] = "clash" if given[at] else "theirs"
        elif row["first_deleted"]:  # made anew behind a delete that waits for its answer: nothing can be merged
            found[at] = "clash" if bits["mine_theirs"][at] else "same"
        else:
            found[at] = _of_column(at, together[at], bits, row["has_follower"])
    return tuple(found)


def _of_column(at: int, group: Sequence[int], bits: Mapping[str, list[bool]], has_follower: bool) -> str:
    """The state of a column that differs, of a row that is on all sides; a group is merged as one."""

    def some(pair: str) -> bool:
        return any(bits[pair][place] for place in group)

    first_base, first_theirs = ("first_base", "first_theirs") if has_follower else ("mine_base", "mine_theirs")
    is_first, is_behind = some(first_base), has_follower and some("mine_first")
    is_clash = is_first and some("theirs_base") and some(first_theirs)
    # Where the first one changed the columns, they are its own after the first merge, and nothing of theirs.
    is_clash |= not is_first and is_behind and some(first_theirs) and some("mine_theirs")
    is_alike = not bits["mine_theirs"][at]
    # What the first operation, the last and they say alike needs no decision, whatever its group needs.
    if is_clash and not (is_alike and not bits[first_theirs][at]):
        return "clash"
    if is_alike:
        return "same" if bits["theirs_base"][at] else "unchanged"
    return "mine" if is_first or is_behind else "theirs"


def _together(layout: Layout, groups: Groups) -> Together:
    """By the place of each column the places of those that are merged with it, its own too."""
    at = {name: place for place, name in enumerate(layout.schema.values)}
    listed = [tuple(at[name] for name in group) for group in grouped(layout.schema.values, groups)]
    return {place: group for group in listed for place in group}


def _numbers(layout: Layout, groups: Groups) -> dict[int, int]:
    """The number of its group by the place of each column that is merged with others."""
    several = dict.fromkeys(group for group in _together(layout, groups).values() if len(group) > 1)
    return {place: number for number, group in enumerate(several) for place in group}


def _row(
    table: str, one: Standing, places: Collection[int], sheet: Sheet, numbers: Mapping[int, int]
) -> dict[str, Any]:
    cells = [[*sheet.head(at), *_sides(one, at, sheet), one.states[at], numbers.get(at)] for at in places]
    return {
        "id": one.id,
        "version": one.version,
        "table": table,
        "key": one.key,
        "kind": one.kind,
        "cells": cells,
        "more": max(0, len(one.differing) - len(places)),
        "clashes": one.states.count("clash"),
        "same": len(one.states) - len(one.differing),
        "has_base": one.base_there,
        "edited": one.edited,
    }


def _sides(one: Standing, at: int, sheet: Sheet) -> list[Any]:
    base = sheet.cell(one.id, at, "base") if one.base_there else None
    mine = None if one.kind == "delete/edit" or not one.given[at] else sheet.cell(one.id, at, "mine")
    return [base, mine, None if one.kind == "edit/delete" else sheet.cell(one.id, at, "theirs")]
