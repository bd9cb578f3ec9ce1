"""Stage: lay the edited cells over what is shown, and fold them into the operation that waits, or wait behind it.

What a staging changed is kept, so that `undo` can take it back.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa

from . import rules
from .errors import KeyColumnError, StaleFrameError
from .file import Cursor
from .layout import META, Layout
from .learn import NO_ERROR, REMOTE, learn
from .progress import told
from .schema import shown
from .store import UNDO_STEPS, Store, utc_now

STEPS = 3
EVERY_REVISION = 2**62  # nothing is newer: a staging of what is shown now
_RARE = "verdict in ('whole', 'clash', 'back')"


def stage(
    store: Store,
    cursor: Cursor,
    layout: Layout,
    operations: pa.Table,
    *,
    held: Collection[str],
    revision: int,
    action: str = "stage",
    note: str | None = None,
) -> int:
    """Queue the operations of one frame; return the staging's number.

    Parameters
    ----------
    operations
        As `Changes.operations()` gives them: ord, k_*, deleted, touched, l_*, and the snapshot's row as
        held_there, b_*, held_version.
    held
        The value columns that the snapshot had.
    revision
        The store's revision when the snapshot was taken.

    Raises
    ------
    KeyColumnError
        If an inserted key stands in the store outside the snapshot.
    StaleFrameError
        If a cell was changed on both sides while an operation on its row waits for its answer.
    """
    rev, first = store.tick(cursor, len(operations))
    with told(None, "steps") as tell:  # a million rows take seconds
        touched = _judge(cursor, layout, operations, held, revision)
        _refuse(cursor, layout)
        cursor.run("delete from judged where verdict = 'nothing'")
        tell(1, STEPS, f"stage {layout.table}")
        _lay(cursor, layout, held, touched)
        keep_conflicts(cursor, layout, rev, f"(select {layout.keys} from staged where has_remote)")
        tell(2, STEPS, f"stage {layout.table}")
        _put_back(cursor, layout, rev)
        _fold(cursor, layout, rev, first)
        tell(3, STEPS, f"stage {layout.table}")
        _move_revisions(cursor, layout, rev)
        _keep_images(cursor, layout, rev)
    again = cursor.one("select count(*) from staged where has_remote or verdict = 'clash'")
    if again:
        _learn_again(store, cursor, layout, rev)
        _note_settled(cursor, layout, rev)
    store.record(cursor, action, layout.table, len(operations), note, staging=rev)
    forget_images(store, cursor)
    for name in ("asked", "judged", "before", "ground", "after", "staged", "met"):
        cursor.run(f"drop table if exists temp.{name}")
    return rev


def _judge(cursor: Cursor, layout: Layout, operations: pa.Table, held: Collection[str], revision: int) -> list[str]:
    """Load the edits as `asked`, and what is to be done with each as `judged`; return the columns they touch.

    A CASE for every column of a table of 500 would take seconds to plan, so only touched columns get one.
    """
    cursor.run(
        """
        create or replace temp table asked as
        select * replace (('0' || touched)::bit as touched), uuid()::varchar as new_id from operations
        """,
        operations=operations,
    )
    touched = _touched(cursor, layout)
    last = "case when f.id is not null then f.{l} when h.id is not null then h.{l} else r.{v} end as {s}"
    cells = "".join(layout.also(template, touched) for template in (last, "r.{v}", "g.{l}", "g.{b}"))
    cursor.run(
        f"""
        create or replace temp table judged as
        with joined as (
            select g.ord, {layout.keys_of("g")}, g.deleted, g.touched, g.held_there, g.held_version, g.new_id,
                   h.id as first_id, h.given as first_given, coalesce(h.attempted, false) as first_attempted,
                   coalesce(h.deleted, false) as first_deleted, coalesce(h.has_remote, false) as has_remote,
                   f.id as behind_id, f.given as behind_given, coalesce(f.deleted, false) as behind_deleted,
                   r.rev is not null as row_there, t.reason, t.version as gone_version,
                   coalesce(r.pulled_rev, t.pulled_rev, 0) > {revision} as is_foreign,
                   greatest(coalesce(r.rev, 0), coalesce(h.rev, 0), coalesce(f.rev, 0)) > {revision} as is_moved,
                   not ({layout.rows_like("g.{b}", "r.{v}", held)}) as held_differs,
                   case when f.id is not null then not f.deleted when h.id is not null then not h.deleted
                        else r.rev is not null end as shown_there{cells}
            from asked g
            left join {layout.firsts} h on {layout.on("h", "g")}
            left join {layout.followers} f on {layout.on("f", "g")}
            left join {layout.rows} r on {layout.on("r", "g")}
            left join {layout.gone} t on {layout.on("t", "g")}
        )
        select * exclude (first_given, behind_given, behind_deleted, held_differs),
               {rules.verdict(layout, held, touched)} as verdict,
               case when behind_id is not null then behind_id
                    when not first_attempted then first_id end as target,
               case when behind_id is not null then behind_given
                    when not first_attempted then first_given end as target_given,
               case when behind_id is not null then behind_deleted
                    else not first_attempted and first_deleted end as target_deleted
        from joined
        """
    )
    return touched


def _lay(cursor: Cursor, layout: Layout, held: Collection[str], touched: Collection[str]) -> None:
    """Lay the edits over what is shown: `before`, `ground` (what they build on), `after`, and `staged`."""
    cursor.run(f"create or replace temp table before as {_shown_before(layout)}")
    cursor.run(f"create or replace temp table ground as {_ground(layout, held)}")
    cursor.run(
        f"""
        create or replace temp table after as
        select {layout.keys_of("g")}, true as there
               {layout.also("case when get_bit(a.touched, {i}) = 1 then a.{l} else b.{s} end as {n}", touched)}
               {layout.also("b.{s} as {n}", layout.others(touched))}
        from judged g join asked a on {layout.on("a", "g")} left join before b on {layout.on("b", "g")}
        where g.verdict = 'lay' and not g.deleted
        """
    )
    if cursor.one(f"select count(*) from judged where {_RARE} and not deleted"):
        _lay_on_snapshot(cursor, layout, held, touched)
    cursor.run(
        f"""
        create or replace temp table staged as
        select g.*, coalesce(p.there, false) as base_there,
               case when verdict = 'whole' or (target_deleted and not deleted) then '{layout.all_bits}'::bit
                    else touched | coalesce(target_given, '{layout.no_bits}'::bit) end as now_given,
               not has_remote and verdict <> 'clash' and case
                   when deleted then p.there is null
                   else p.there is not null and {layout.rows_like("n.{n}", "p.{p}")} end as is_nothing
        from judged g
        left join ground p on {layout.on("p", "g")} left join after n on {layout.on("n", "g")}
        """
    )


def _lay_on_snapshot(cursor: Cursor, layout: Layout, held: Collection[str], touched: Collection[str]) -> None:
    """Where the row shown is not what the frame was made from, the cells it did not touch are the snapshot's.

    A clashing insert has no snapshot; own edits of other cells stay.
    """
    was = {name: "a.{b}" if name in held else "r.{v}" for name in layout.schema.values}
    own = "g.verdict <> 'whole' and h.id is not null and h.{l} is distinct from r.{v}"
    none = "g.verdict <> 'whole' and not g.held_there"
    cells = "".join(
        layout.also(
            "case "
            + ("when get_bit(a.touched, {i}) = 1 then a.{l} " if name in touched else "")
            + f"when {none} then null when {own} then h.{{l}} else {was[name]} end as {{n}}",
            [name],
        )
        for name in layout.schema.values
    )
    cursor.run(
        f"""
        insert into after by name
        select {layout.keys_of("g")}, true as there{cells}
        from judged g join asked a on {layout.on("a", "g")}
        left join {layout.firsts} h on {layout.on("h", "g")} left join {layout.rows} r on {layout.on("r", "g")}
        where g.{_RARE} and not g.deleted
        """
    )


def _refuse(cursor: Cursor, layout: Layout) -> None:
    there = _named(cursor, layout, "verdict = 'exists'")
    if there:
        raise KeyColumnError(
            f"keys {shown(there)} cannot be inserted into {layout.table!r}: they are there, outside this frame",
            hint="take a frame that holds them, or update(key, ...)",
        )
    unsure = _named(cursor, layout, "verdict = 'clash' and first_attempted")
    if unsure:
        raise StaleFrameError(
            f"rows {shown(unsure)} of {layout.table!r} were changed here and at the back end since this frame was "
            "taken, while an operation on them waits for its answer",
            hint="push or pull, take a new frame and edit that",
        )


def _named(cursor: Cursor, layout: Layout, condition: str) -> list[Any]:
    """The keys in `judged` that meet a condition, as people write them."""
    return key_values(cursor.arrow(f"select {layout.keys} from judged where {condition} order by ord"), layout)


def _put_back(cursor: Cursor, layout: Layout, rev: int) -> None:
    """Make the snapshot's row the base again where the newer one clashes with this edit, or left.

    The newer row becomes the remote of the conflict that follows, in `met`.
    """
    if not cursor.one("select count(*) from staged where verdict in ('clash', 'back')"):
        return
    cursor.run(
        f"""
        create or replace temp table met as
        select {layout.keys_of("g")}, not g.row_there as deleted, coalesce(r.version, g.gone_version) as version,
               r.operation, r.created, r.updated{layout.also("r.{v}")}
        from staged g left join {layout.rows} r on {layout.on("r", "g")} where g.verdict = 'clash'
        """
    )
    cursor.run(
        f"delete from {layout.rows} r using staged g where {layout.on('r', 'g')} and g.verdict in ('clash', 'back')"
    )
    cursor.run(
        f"""
        insert into {layout.rows} by name
        select {layout.keys_of("g")}, held_version as version, {rev} as rev, {rev} as pulled_rev
               {layout.also("p.{p} as {v}")}
        from staged g join ground p on {layout.on("p", "g")} where verdict in ('clash', 'back') and held_there
        """
    )


def _fold(cursor: Cursor, layout: Layout, rev: int, first: int) -> None:
    """Fold each operation into the one that waits for its key, or queue it, or drop both if they say nothing."""
    cursor.run(
        f"""
        merge into {layout.edits} e
        using (select g.*{layout.also("n.{n}")} from staged g left join after n on {layout.on("n", "g")}
               where target is not null or not is_nothing) g on e.id = g.target
        when matched and g.is_nothing then delete
        when matched then update set deleted = g.deleted, given = g.now_given, {NO_ERROR}, sent = null,
            retry = false, rev = {rev}, staged_at = {_now()},
            sequence = case when g.base_there then {first} + g.ord else e.sequence end{layout.also("{l} = g.{n}")}
        when not matched then insert
            (sequence, id, {layout.keys}, follower, given, deleted, attempted, has_remote, retry, staged_at,
             rev{layout.also("{l}")})
        values ({first} + g.ord, g.new_id, {layout.keys_of("g")}, g.first_id is not null, g.now_given, g.deleted,
                false, false, false, {_now()}, {rev}{layout.also("g.{n}")})
        """
    )


def _move_revisions(cursor: Cursor, layout: Layout, rev: int) -> None:
    """An edit that is taken back to nothing changes what is shown, too."""
    cursor.run(
        f"""
        update {layout.rows} r set rev = {rev} from staged g
        where {layout.on("r", "g")} and g.target is not null and g.is_nothing
        """
    )
    vanished = "select * from staged where target is not null and is_nothing and not row_there"
    cursor.run(f"delete from {layout.gone} t using ({vanished}) g where {layout.on('t', 'g')}")
    cursor.run(
        f"""
        insert into {layout.gone} by name
        select {layout.keys}, gone_version as version, coalesce(reason, 'staged') as reason, {rev} as rev,
               0 as pulled_rev
        from ({vanished})
        """
    )


def _keep_images(cursor: Cursor, layout: Layout, rev: int) -> None:
    cursor.run(
        f"""
        insert into {layout.images} by name
        select {rev} as staging, {layout.keys_of("g")}, has_remote as was_conflict,
               target as before_id, case when not is_nothing then coalesce(target, new_id) end as left_id,
               shown_there as before_there, not deleted as after_there
               {layout.also("b.{s} as {b}")}{layout.also("n.{n} as {a}")}
        from staged g
        left join before b on {layout.on("b", "g")} left join after n on {layout.on("n", "g")}
        """
    )


def keep_conflicts(cursor: Cursor, layout: Layout, rev: int, keys: str) -> None:
    """Keep rows in conflict as they are, so that undo can open the conflict again."""
    if not cursor.one(f"select count(*) from {keys}"):
        return
    for part, kept in ((layout.edits, layout.kept_edits), (layout.rows, layout.kept_rows)):
        cursor.run(
            f"""
            insert into {kept} by name
            select {rev} as staging, e.* from {part} e semi join {keys} g using ({layout.keys})
            """
        )


def _learn_again(store: Store, cursor: Cursor, layout: Layout, rev: int) -> None:
    """Try the remote that is known already against the edited local."""
    known = f"""
        select {layout.keys_of("h")}, {REMOTE}{layout.also("h.{r} as {v}")}
        from {layout.firsts} h semi join (select {layout.keys} from staged where has_remote) g using ({layout.keys})
        where has_remote
    """
    if cursor.one("select count(*) from duckdb_tables() where table_name = 'met' and temporary"):
        known += " union all by name from met"
    cursor.run(f"create or replace temp table hit as select *, false as forced from ({known})")
    learn(store, cursor, layout, rev, is_again=True)


def _note_settled(cursor: Cursor, layout: Layout, rev: int) -> None:
    """An edited conflict that met its remote may have left no operation."""
    cursor.run(
        f"""
        update {layout.images} u set left_id = null
        where staging = {rev} and was_conflict
          and not exists (select 1 from {layout.edits} e where {layout.on("e", "u")} and e.id = u.left_id)
        """
    )


def forget_images(store: Store, cursor: Cursor) -> None:
    """Keep what undo needs of the last stagings only."""
    rows = cursor.rows(
        f"select staging from {META}.history where can_undo order by staging desc offset {UNDO_STEPS} limit 1"
    )
    if not rows:
        return
    cursor.run(f"update {META}.history set can_undo = false where staging <= ?", [rows[0][0]])
    for layout in store.layouts(cursor):
        for part in (layout.images, layout.kept_edits, layout.kept_rows):
            cursor.run(f"delete from {part} where staging <= ?", [rows[0][0]])


def forget_staging(cursor: Cursor, layout: Layout, staging: int) -> None:
    for part in (layout.images, layout.kept_edits, layout.kept_rows):
        cursor.run(f"delete from {part} where staging = ?", [staging])


def key_values(keys: pa.Table, layout: Layout) -> list[Any]:
    """Keys as people write them: the value, or a tuple for a compound key."""
    columns = [keys[f"k_{name}"].to_pylist() for name in layout.schema.key]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def _touched(cursor: Cursor, layout: Layout) -> list[str]:
    """The value columns that some edit in `asked` touches."""
    bits = cursor.one("select bit_or(touched)::varchar from asked") or layout.no_bits
    return [name for name, bit in zip(layout.schema.values, bits[1:], strict=True) if bit == "1"]


def _shown_before(layout: Layout) -> str:
    """What is shown of the judged keys, as three plain selects: the follower, else the first, else the row."""
    ours = f"semi join judged g using ({layout.keys})"
    return f"""
        select {layout.keys}, true as there{layout.also("{l} as {s}")}
        from {layout.lasts} e {ours} where not e.deleted
        union all
        select {layout.keys}, true{layout.also("{v}")}
        from {layout.rows} r {ours} anti join {layout.edits} e using ({layout.keys})
    """


def _ground(layout: Layout, held: Collection[str]) -> str:
    """What the judged edits build on: the snapshot's row, the first's local behind it, or the row."""
    behind = "(behind_id is not null or first_attempted)"
    put_back = "verdict in ('clash', 'back')"
    return f"""
        select {layout.keys_of("g")}, true as there
               {layout.also("a.{b} as {p}", held)}{layout.also("r.{v} as {p}", layout.others(held))}
        from judged g join asked a on {layout.on("a", "g")} left join {layout.rows} r on {layout.on("r", "g")}
        where g.{put_back} and g.held_there
        union all by name
        select {layout.keys}, true as there{layout.also("{l} as {p}")}
        from {layout.firsts} h
        semi join (select * from judged where not {put_back} and {behind}) g using ({layout.keys}) where not h.deleted
        union all by name
        select {layout.keys}, true as there{layout.also("{v} as {p}")}
        from {layout.rows} r
        semi join (select * from judged where not {put_back} and not {behind}) g using ({layout.keys})
    """


def _now() -> str:
    return f"timestamptz '{utc_now().isoformat()}'"
