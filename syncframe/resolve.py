"""Settling conflicts, always as sets: by a chosen row, by one side, by the merge of columns, or cell by cell.

    conflicts -> (decided cells laid over their three sides) -> merged where no column clashes any more -> `resolve`
                                                             -> else what is decided is kept, and the rest stays open

A decided cell counts as seen: its base becomes what is there, so that only a newer change of it clashes again.
A conflict where one side has deleted the row, or both have made it, has no columns to merge: it is decided whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from . import rules, stage
from .conflict import grouped
from .file import Cursor
from .layout import Layout
from .learn import FIRST, FOLLOWER, REMOTE, write_meeting
from .store import Store

Groups = Iterable[Iterable[str]]


@dataclass(slots=True)
class Settled:
    """What became of conflicts, by their keys.

    Parameters
    ----------
    settled
        How many stand no more.
    open
        How many have decided cells and stand still.
    late
        The keys whose remote is another than was looked at, or that were in no conflict any more.
    left
        The keys whose decided cells could not be remembered, so that all of a row's clashes must be decided at once.
    """

    settled: int = 0
    open: int = 0
    late: list[Any] = field(default_factory=list)
    left: list[Any] = field(default_factory=list)

    def __iadd__(self, other: Settled) -> Settled:
        self.settled += other.settled
        self.open += other.open
        self.late += other.late
        self.left += other.left
        return self


def resolve(
    store: Store, cursor: Cursor, layout: Layout, chosen: pa.Table, action: str = "resolve", rev: int | None = None
) -> list[Any]:
    """Settle conflicts by chosen rows; return the keys whose remote is a newer one than was looked at.

    Parameters
    ----------
    chosen
        The key as k_*, the chosen row as n_*, now_deleted, and looked_at: the remote version that was seen.  Where it
        has `given`, a text of 0 and 1 over ``schema.values`` as BIT of given columns, an insert sends those too.
    rev
        The revision that the call makes, where it settles more than these.
    """
    rev = store.tick(cursor)[0] if rev is None else rev
    late = _meet(cursor, layout, chosen)
    _settle_chosen(store, cursor, layout, rev)
    _record(store, cursor, layout, rev, action)
    return late


def keep_mine(
    store: Store, cursor: Cursor, layout: Layout, keys: pa.Table | None, groups: Groups, rev: int | None = None
) -> int:
    """Settle conflicts by laying the cells that mine changed over the remote rows; return how many."""
    chosen = _chosen(cursor, layout, keys, rules.kept_mine(layout, groups), "m.deleted")
    return _resolve_all(store, cursor, layout, chosen, "keep mine", rev)


def take_theirs(store: Store, cursor: Cursor, layout: Layout, keys: pa.Table | None, rev: int | None = None) -> int:
    """Settle conflicts by the remote rows, all of them or those named; return how many."""
    chosen = _chosen(cursor, layout, keys, layout.each("h.{r} as {n}"), "h.remote_deleted")
    return _resolve_all(store, cursor, layout, chosen, "take theirs", rev)


def merge(
    store: Store,
    cursor: Cursor,
    layout: Layout,
    groups: Groups,
    rev: int | None = None,
    keys: pa.Table | None = None,
) -> int:
    """Settle the conflicts, all or those named, in which no column was changed on both sides, differently."""
    _decide(cursor, layout, None, groups, keys)
    chosen = _merged(cursor, layout, groups)
    cursor.run("drop table temp.deciding")
    return _resolve_all(store, cursor, layout, chosen, "merge", rev)


def settle_cells(
    store: Store,
    cursor: Cursor,
    layout: Layout,
    decided: pa.Table,
    groups: Groups,
    action: str = "resolve",
    rev: int | None = None,
) -> Settled:
    """Settle cells of conflicts, and the conflicts in which nothing clashes any more.

    Parameters
    ----------
    decided
        The key as k_*; `decided`, a text of 0 and 1 over ``schema.values`` as BIT of given columns; the chosen
        cells as n_*; the remote cells that were looked at as t_*.
    groups
        The columns that are merged as one.
    """
    rev = store.tick(cursor)[0] if rev is None else rev
    names = _decide(cursor, layout, decided, groups)
    late = _late(cursor, layout)
    one_sided, merged = _one_sided(cursor, layout, names), _merged(cursor, layout, groups)
    chosen = pa.concat_tables([one_sided, merged])
    is_open, left = _kept_open(store, cursor, layout, rev, groups)
    _meet(cursor, layout, chosen)
    _settle_chosen(store, cursor, layout, rev)
    _record(store, cursor, layout, rev, action)
    cursor.run("drop table temp.deciding")
    return Settled(len(chosen), is_open, late, left)


def column_cells(cursor: Cursor, layout: Layout, names: Sequence[str], side: str, keys: pa.Table | None) -> pa.Table:
    """The cells of these columns in conflicts where they differ, decided for one side; as `settle_cells` takes them.

    The columns are merged as one; what only they changed is theirs, whichever side is chosen.
    """
    only = f"semi join only_keys o using ({layout.keys})" if keys is not None else ""
    mine = [rules.kept_cell(layout, name, names) for name in layout.schema.values if name in names]
    values = mine if side == "mine" else layout.each("h.{r} as {n}", names)
    return cursor.arrow(
        f"""
        select {layout.keys_of("h")}, '{layout.bits(names)}' as decided{"".join(f", {value}" for value in values)}
               {layout.also("h.{r} as {t}", names)}
        from (select * from {layout.edits} {only} where has_remote and not follower and not remote_deleted) h
        join {layout.lasts} m on {layout.on("m", "h")} and not m.deleted and not h.deleted
        left join {layout.rows} r on {layout.on("r", "h")}
        where {layout.some("m.{l} is distinct from h.{r}", names)}
        """,
        **({} if keys is None else {"only_keys": keys}),
    )


# By rows


def _chosen(cursor: Cursor, layout: Layout, keys: pa.Table | None, values: Sequence[str], deleted: str) -> pa.Table:
    only = f"semi join only_keys o using ({layout.keys})" if keys is not None else ""
    return cursor.arrow(
        f"""
        select {layout.keys_of("h")}, h.remote_version as looked_at, {deleted} as now_deleted
               {"".join(f", {value}" for value in values)}
        from (select * from {layout.edits} {only} where has_remote and not follower) h
        join {layout.lasts} m on {layout.on("m", "h")}
        left join {layout.rows} r on {layout.on("r", "h")}
        """,
        **({} if keys is None else {"only_keys": keys}),
    )


def _resolve_all(store: Store, cursor: Cursor, layout: Layout, chosen: pa.Table, action: str, rev: int | None) -> int:
    if len(chosen):
        resolve(store, cursor, layout, chosen, action, rev)
    return len(chosen)


def _meet(cursor: Cursor, layout: Layout, chosen: pa.Table) -> list[Any]:
    """Lay the chosen rows beside the conflicts; return the keys of those that a newer remote has overtaken."""
    also_given = "c.given" if "given" in chosen.column_names else f"'{layout.no_bits}'"
    cursor.run(
        f"""
        create or replace temp table meeting as
        select {layout.keys_of("c")}, {REMOTE}, {FIRST}, {FOLLOWER}, r.rev is not null as base_there,
               c.now_deleted, 'resolve' as act, c.looked_at is distinct from h.remote_version as is_late,
               {also_given}::bit as also_given
               {layout.also("c.{n}")}{layout.also("h.{r} as {p}")}{layout.also("h.{l} as {h}")}
        from chosen c
        join (select * from {layout.edits} where has_remote and not follower) h on {layout.on("h", "c")}
        left join {layout.followers} f on {layout.on("f", "c")}
        left join {layout.rows} r on {layout.on("r", "c")}
        """,
        chosen=chosen,
    )
    late = stage.key_values(cursor.arrow(f"select {layout.keys} from meeting where is_late"), layout)
    cursor.run("delete from meeting where is_late")
    return late


def _settle_chosen(store: Store, cursor: Cursor, layout: Layout, rev: int) -> None:
    if cursor.one("select count(*) from meeting"):
        stage.keep_conflicts(cursor, layout, rev, "meeting")
        # What is chosen is given, all of it: an insert over a deleted row sends the whole row.
        cursor.run(
            "update meeting set first_given = case when deleted and not now_deleted and base_there "
            f"then '{layout.all_bits}'::bit else first_given | also_given end"
        )
        write_meeting(store, cursor, layout, rev)
        _keep_images(cursor, layout, rev, "select *, not now_deleted as after_there from meeting")
    cursor.run("drop table temp.meeting")


def _keep_images(cursor: Cursor, layout: Layout, rev: int, rows: str) -> None:
    """What undo needs to open conflicts again."""
    cursor.run(
        f"""
        insert into {layout.images} by name
        select {rev} as staging, {layout.keys_of("m")}, e.id as left_id, true as was_conflict,
               true as before_there, m.after_there
        from ({rows}) m left join {layout.edits} e on {layout.on("e", "m")} and not e.follower
        """
    )


def _record(store: Store, cursor: Cursor, layout: Layout, rev: int, action: str) -> None:
    rows = cursor.one(f"select count(*) from {layout.images} where staging = {rev}")
    if rows:
        store.record(cursor, action, layout.table, rows, staging=rev)
        stage.forget_images(store, cursor)


# By cells


def _decide(
    cursor: Cursor, layout: Layout, decided: pa.Table | None, groups: Groups, keys: pa.Table | None = None
) -> list[str]:
    """Lay decided cells over the three sides of conflicts: `deciding` has b_*, h_* (first), f_* (last), p_*.

    Returns the columns of which some cell is decided.
    """
    columns = set(decided.column_names) if decided is not None else set()
    names = [name for name in layout.schema.values if f"n_{name}" in columns]
    others = layout.others(names)
    of_first = "case when m.follower then h.{r} else d.{n} end"
    first = f"case when {rules.IS_DECIDED} then {of_first} else h.{{l}} end as {{h}}"
    last = f"case when {rules.IS_DECIDED} then d.{{n}} else m.{{l}} end as {{f}}"
    bits = "d.decided::bit" if decided is not None else f"'{layout.no_bits}'::bit"
    only = f"semi join only_keys o using ({layout.keys})" if keys is not None else ""
    given = {"decided": decided, "only_keys": keys}
    cursor.run(
        f"""
        create or replace temp table deciding as
        select {layout.keys_of("h")}, h.remote_version, h.remote_deleted, m.deleted as mine_deleted,
               h.remote_deleted or m.deleted or h.deleted as is_one_sided, r.rev is not null as base_there,
               m.follower as has_follower, (m.given | h.given)::bit as given, {bits} as decided
               {_bases(layout, names, groups)}
               {layout.also(first, names)}{layout.also("h.{l} as {h}", others)}
               {layout.also(last, names)}{layout.also("m.{l} as {f}", others)}{layout.also("h.{r} as {p}")}
               {layout.also("d.{n}", names)}, {_is_late(layout, names, columns)} as is_late
        from (select * from {layout.edits} {only} where has_remote and not follower) h
        {f"join decided d on {layout.on('d', 'h')}" if decided is not None else ""}
        join {layout.lasts} m on {layout.on("m", "h")}
        left join {layout.rows} r on {layout.on("r", "h")}
        """,
        **{name: table for name, table in given.items() if table is not None},
    )
    if decided is not None:
        cursor.run(f"create or replace temp table asked as select {layout.keys} from decided", decided=decided)
    return names


def _is_late(layout: Layout, names: Sequence[str], columns: Collection[str]) -> str:
    """Whether a cell is another than was looked at, or one side has deleted the row since.

    That one is not to be seen by its cells: NULL is what they say of a column of either.  Where nothing tells when
    they were looked at, all of its cells that are not NULL must have been.
    """
    seen = [name for name in names if f"s_{name}" in columns]
    unlike = (
        layout.some(f"{rules.IS_DECIDED} and d.{{t}} is distinct from h.{{r}}", names),
        layout.some(f"{rules.IS_DECIDED} and d.{{s}} is distinct from {rules.MINE_SHOWN}", seen),
    )
    is_overlooked = f"{rules.IS_DECIDED} is not true and coalesce({rules.MINE_SHOWN}, h.{{r}}) is not null"
    others = layout.some(is_overlooked)
    since = f"case when d.seen is null then {others} else greatest(h.rev, m.rev) > d.seen end"
    half = f"((h.remote_deleted or m.deleted or h.deleted) and {since})"
    return f"({' or '.join((*unlike, half) if 'seen' in columns else unlike)})"


def _bases(layout: Layout, decided: Collection[str], groups: Groups) -> str:
    """The base of each cell: what is there, once it is decided.

    What both sides say needs no decision: of columns that belong together the others may be decided alone.
    """
    cell = ("not m.follower and h.{l} is not distinct from h.{r}", rules.IS_DECIDED, "h.{r}", "r.{v}", "{b}")
    parts = []
    for group in grouped(layout.schema.values, groups):
        some = layout.some(rules.IS_DECIDED, [name for name in group if name in decided])
        for name in group:
            is_alike, is_own, theirs, base, named = (layout.each(part, [name])[0] for part in cell)
            own = is_own if name in decided else "false"
            parts.append(f"case when {own} or ({is_alike} and {some}) then {theirs} else {base} end as {named}")
    return "".join(f", {part}" for part in parts)


def _late(cursor: Cursor, layout: Layout) -> list[Any]:
    """The keys whose remote cells are others than were looked at, or that are in no conflict: nothing is done."""
    fresh = "(select * from deciding where not is_late)"
    late = stage.key_values(
        cursor.arrow(f"select {layout.keys} from asked anti join {fresh} using ({layout.keys})"), layout
    )
    cursor.run("delete from deciding where is_late; drop table temp.asked")
    return late


def _one_sided(cursor: Cursor, layout: Layout, names: Sequence[str]) -> pa.Table:
    """Where a side has deleted the row: cells that are all empty choose that side, others are laid over the row."""
    some = layout.some("get_bit(decided, {i}) = 1 and {n} is not null", names)
    cell = "case when get_bit(decided, {i}) = 1 then {n} when remote_deleted then {f} else {p} end as {n}"
    other = "case when remote_deleted then {f} else {p} end as {n}"
    return cursor.arrow(
        f"""
        select {layout.keys}, remote_version as looked_at, not {some} as now_deleted, decided::varchar as given
               {_in_order(layout, cell, other, names)}
        from deciding where is_one_sided
        """
    )


def _merged(cursor: Cursor, layout: Layout, groups: Groups) -> pa.Table:
    """The merged rows of conflicts in which nothing clashes."""
    values = rules.merged_row(layout, groups)
    return cursor.arrow(
        f"""
        select {layout.keys}, remote_version as looked_at, false as now_deleted, decided::varchar as given
               {"".join(f", {v}" for v in values)}
        from deciding where not is_one_sided and not {rules.clashes(layout, groups)}
        """
    )


def _kept_open(store: Store, cursor: Cursor, layout: Layout, rev: int, groups: Groups) -> tuple[int, list[Any]]:
    """Of conflicts that clash still, remember the decided cells; return how many they are, and the keys of others."""
    cursor.run(
        f"""
        create or replace temp table still as
        select *, true as after_there from deciding where not is_one_sided and {rules.clashes(layout, groups)}
        """
    )
    # Behind what was sent and not answered there is no base to move; both made: there is none at all.
    has_no_base = "not base_there or has_follower"
    left = stage.key_values(cursor.arrow(f"select {layout.keys} from still where {has_no_base}"), layout)
    cursor.run(f"delete from still where {has_no_base}")
    total: int = cursor.one("select count(*) from still")
    if total:
        stage.keep_conflicts(cursor, layout, rev, "still")
        for part, change in (
            (layout.rows, layout.also("{v} = s.{b}")),
            (layout.edits, ", given = e.given | s.decided" + layout.also("{l} = s.{f}")),
        ):
            cursor.run(f"update {part} e set rev = {rev}{change} from still s where {layout.on('e', 's')}")
        _keep_images(cursor, layout, rev, "select * from still")
    cursor.run("drop table temp.still")
    return total, left


def _in_order(layout: Layout, template: str, other: str, names: Sequence[str]) -> str:
    """One template for the columns named and another for the rest, in the table's order."""
    return "".join(layout.also(template if name in names else other, [name]) for name in layout.schema.values)
