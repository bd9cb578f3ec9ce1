"""Giving up and taking back: discard, and undo of the last calls that changed the queue.

Both are stagings of the inverse where something was staged, and put a row in conflict back as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from . import rules
from .file import Cursor
from .layout import META, Layout
from .learn import REMOTE
from .stage import EVERY_REVISION, forget_images, forget_staging, keep_conflicts, key_values, stage
from .store import Store, shown_rows


@dataclass(frozen=True, slots=True)
class Staging:
    """One call that changed the queue, by its number: the store's revision that it made."""

    staging: int
    action: str
    table: str


def discard(
    store: Store,
    cursor: Cursor,
    layout: Layout,
    keys: pa.Table | None = None,
    action: str = "discard",
    rev: int | None = None,
) -> int:
    """Give up operations, of a whole table or of the keys named; return on how many rows.

    `rev` is the revision that the call makes, where it gives up more than these.

    One that was never sent goes; behind one whose answer is unknown its inverse is queued; a row in
    conflict becomes the remote that is known.
    """
    rev = store.tick(cursor)[0] if rev is None else rev
    tables = {} if keys is None else {"only_keys": keys}
    only = f"semi join only_keys o using ({layout.keys})" if keys is not None else ""
    cursor.run(
        f"""
        create or replace temp table given_up as
        select {layout.keys_of("h")}, h.id, h.attempted, h.has_remote, h.deleted as first_deleted, m.deleted,
               m.id as last_id, r.rev is not null as base_there, r.version
               {layout.also("m.{l}")}{layout.also("r.{v}")}
        from (select * from {layout.edits} {only} where not follower) h
        join {layout.lasts} m on {layout.on("m", "h")}
        left join {layout.rows} r on {layout.on("r", "h")}
        """,
        **tables,
    )
    total: int = cursor.one("select count(*) from given_up")
    if total:
        keep_conflicts(cursor, layout, rev, "(select * from given_up where has_remote)")
        _discard_images(cursor, layout, rev)
        _discard_edits(store, cursor, layout, rev)
        store.record(cursor, action, layout.table, total, staging=rev)
        _invert_attempted(store, cursor, layout, rev)
        forget_images(store, cursor)
    cursor.run("drop table temp.given_up")
    return total


def _discard_images(cursor: Cursor, layout: Layout, rev: int) -> None:
    cursor.run(
        f"""
        insert into {layout.images} by name
        select {rev} as staging, {layout.keys}, case when not attempted then last_id end as before_id,
               null::varchar as left_id, has_remote as was_conflict,
               not deleted as before_there, base_there as after_there
               {layout.also("{l} as {b}")}{layout.also("{v} as {a}")}
        from given_up
        """
    )


def _discard_edits(store: Store, cursor: Cursor, layout: Layout, rev: int) -> None:
    cursor.run(f"delete from {layout.edits} e using given_up g where {layout.on('e', 'g')} and e.follower")
    cursor.run(
        f"""
        create or replace temp table remote_rows as
        select {layout.keys_of("h")}, {REMOTE}, null::bigint as own_rev{layout.also("h.{r} as {v}")}
        from {layout.firsts} h semi join given_up g using ({layout.keys}) where has_remote
        """
    )
    store.put(cursor, layout, "remote_rows", rev)
    cursor.run("drop table temp.remote_rows")
    cursor.run(
        f"""
        update {layout.rows} r set rev = {rev} from given_up g
        where {layout.on("r", "g")} and not g.attempted and not g.has_remote
        """
    )
    never = "select * from given_up where not attempted and not has_remote and not base_there"
    cursor.run(
        f"""
        insert into {layout.gone} by name
        select {layout.keys}, null::varchar as version, 'staged' as reason, {rev} as rev, 0 as pulled_rev
        from ({never}) anti join {layout.gone} t using ({layout.keys})
        """
    )
    cursor.run(f"delete from {layout.edits} e using given_up g where {layout.on('e', 'g')} and not e.attempted")


def _invert_attempted(store: Store, cursor: Cursor, layout: Layout, rev: int) -> None:
    """Queue behind each operation whose answer is unknown what takes it back."""
    bits = "'" + layout.all_bits[1:] + "'"
    operations = cursor.arrow(
        f"""
        select row_number() over () - 1 as ord, {layout.keys}, not base_there as deleted,
               case when base_there then {bits} else '{layout.no_bits[1:]}' end as touched,
               not first_deleted as held_there, version as held_version
               {layout.also("{v} as {l}")}{layout.also("{l} as {b}")}
        from given_up where attempted and not has_remote
        """
    )
    if len(operations):
        _stage_inverse(store, cursor, layout, operations)


def last_call(cursor: Cursor) -> list[Staging]:
    """The last call that can be taken back, by table; empty if there is none."""
    rows = cursor.rows(
        f"""
        select staging, action, "table" from {META}.history
        where can_undo and staging = (select max(staging) from {META}.history where can_undo) order by "table"
        """
    )
    return [Staging(*row) for row in rows]


def staged_keys(cursor: Cursor, layout: Layout, staging: int) -> pa.Table:
    return cursor.arrow(f"select {layout.keys} from {layout.images} where staging = {staging}")


def undo(store: Store, cursor: Cursor, last: Staging) -> list[Any]:
    """Take back a call that changed the queue; return the keys that were sent or settled since, and are left.

    Each row's edit becomes what it was before, by merge(after, before, now), so that what came since
    stays; a row that was in conflict is put back as it was, if nothing has come since.
    """
    layout = store.layout(cursor, last.table)
    cursor.run(
        f'update {META}.history set can_undo = false where staging = ? and "table" = ?', [last.staging, last.table]
    )
    reopened, late = _reopen(cursor, layout, last.staging)
    operations, left = _inverse(cursor, layout, last.staging)
    if len(operations):
        _stage_inverse(store, cursor, layout, operations)
        _give_back_ids(cursor, layout, last.staging)
    forget_staging(cursor, layout, last.staging)
    store.record(cursor, "undo", last.table, len(operations) + reopened, last.action)
    return left + late


def _stage_inverse(store: Store, cursor: Cursor, layout: Layout, operations: pa.Table) -> None:
    """Stage what takes something back; it is no call of the user's own, so it leaves no history."""
    staging = stage(store, cursor, layout, operations, held=layout.schema.values, revision=EVERY_REVISION)
    cursor.run(f"delete from {META}.history where staging = ?", [staging])
    forget_staging(cursor, layout, staging)


def _give_back_ids(cursor: Cursor, layout: Layout, staging: int) -> None:
    """An operation that comes back is the one it was, so that an undo further back finds it; it was never sent."""
    cursor.run(
        f"""
        update {layout.edits} e set id = u.before_id from {layout.images} u
        where u.staging = {staging} and {layout.on("e", "u")} and u.before_id is not null and u.left_id is null
          and not e.attempted and not e.follower
          and not exists (select 1 from {layout.edits} o where o.id = u.before_id)
        """
    )


def _inverse(cursor: Cursor, layout: Layout, staging: int) -> tuple[pa.Table, list[Any]]:
    """The staging that takes a staging back, and the keys that were sent or settled since."""
    waits = f"""
        exists (select 1 from {layout.edits} e where {layout.on("e", "u")} and e.id = u.left_id and not e.attempted)
    """
    quiet = f"not exists (select 1 from {layout.edits} e where {layout.on('e', 'u')} and e.rev > {staging})"
    cells = layout.each(rules.undone_cell())
    cursor.run(
        f"""
        create or replace temp table taken_back as
        select u.*, s.rev is not null as now_there{layout.also("s.{v}")}, s.version as now_version,
               concat('', {", ".join(cells) or "''"}) as touched,
               case when u.left_id is null then {quiet} else {waits} end
                   and u.after_there = (s.rev is not null) as is_free
        from (select * from {layout.images} where staging = {staging} and not was_conflict) u
        left join ({shown_rows(layout)}) s on {layout.on("s", "u")}
        """
    )
    operations = cursor.arrow(
        f"""
        select row_number() over () - 1 as ord, {layout.keys}, not before_there as deleted, touched,
               now_there as held_there, now_version as held_version
               {layout.also("{b} as {l}")}{layout.also("{v} as {b}")}
        from (select * from taken_back where is_free) order by ord
        """
    )
    left = key_values(cursor.arrow(f"select {layout.keys} from taken_back where not is_free"), layout)
    cursor.run("drop table temp.taken_back")
    return operations, left


def _reopen(cursor: Cursor, layout: Layout, staging: int) -> tuple[int, list[Any]]:
    """Put conflicts back as they were before that call, where neither the row nor its remote is a newer one since."""
    cursor.run(
        f"""
        create or replace temp table reopening as
        select u.*, coalesce(
                   case when u.left_id is null then e.id is null
                        else e.id = u.left_id and not e.attempted
                             and (not e.has_remote or e.remote_version is not distinct from k.remote_version) end
                   and case when r.rev is null then k.remote_deleted or b.rev is null
                            else r.version is not distinct from k.remote_version
                                 or r.version is not distinct from b.version end, false) as is_free
        from (select {layout.keys}, left_id from {layout.images} where staging = {staging} and was_conflict) u
        left join (select * from {layout.kept_edits} where staging = {staging} and not follower) k
            on {layout.on("k", "u")}
        left join (select * from {layout.kept_rows} where staging = {staging}) b on {layout.on("b", "u")}
        left join {layout.lasts} e on {layout.on("e", "u")}
        left join {layout.rows} r on {layout.on("r", "u")}
        """
    )
    free = "(select * from reopening where is_free)"
    for part, kept in ((layout.edits, layout.kept_edits), (layout.rows, layout.kept_rows)):
        cursor.run(f"delete from {part} e using {free} g where {layout.on('e', 'g')}")
        cursor.run(
            f"""
            insert into {part} by name
            select * exclude (staging) from (select * from {kept} where staging = {staging})
            semi join {free} g using ({layout.keys})
            """
        )
    total: int = cursor.one(f"select count(*) from {free}")
    late = key_values(cursor.arrow(f"select {layout.keys} from reopening where not is_free"), layout)
    cursor.run("drop table temp.reopening")
    return total, late
