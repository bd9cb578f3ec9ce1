"""Learn: a pulled page, a conflict or an accepted answer meets the operations on its keys.

One statement lays the remote rows beside the operations, the rules say what becomes of each, and what is left
is written: to the rows, which only this and `stage` may do where a key has an edit, and to the operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import rules
from .file import Cursor
from .layout import Layout
from .store import Store

NO_ERROR = "error_code = null, error_column = null, error_message = null"
REMOTE = """
    h.remote_version as version, h.remote_operation as operation, h.remote_created as created,
    h.remote_updated as updated, h.remote_deleted as deleted
"""
FIRST = """
    h.id as first_id, h.sequence as first_sequence, h.given as first_given, h.deleted as first_deleted,
    h.rev as first_rev, h.staged_at as first_staged_at
"""
FOLLOWER = "f.id as behind_id, f.sequence as behind_sequence, f.given as behind_given, f.staged_at as behind_staged_at"


@dataclass(slots=True)
class Learnt:
    """What became of operations that met a remote row, counted."""

    settled: int = 0
    rebased: int = 0
    conflicts: int = 0
    unchanged: int = 0

    def add(self, act: str, count: int) -> None:
        if act in ("settle", "theirs"):
            self.settled += count
        elif act in ("conflict", "behind"):
            self.conflicts += count
        elif act == "same":
            self.unchanged += count
        else:
            self.rebased += count


def learn(
    store: Store, cursor: Cursor, layout: Layout, rev: int, mode: str = "fail", *, is_again: bool = False
) -> Learnt:
    """Let remote rows meet the operations on their keys.

    The temporary table `hit` has the key, v_*, version, operation, created, updated, deleted and forced:
    whether the row is the answer that accepted the operation.
    """
    cursor.run(
        f"""
        create or replace temp table joined as
        select {layout.keys_of("p")}, p.version, p.operation, p.created, p.updated, p.deleted, p.forced,
               {FIRST}, h.attempted as first_attempted, h.has_remote, h.remote_version,
               {FOLLOWER}, coalesce(f.deleted, false) as behind_deleted,
               r.rev is not null as base_there, r.version as row_version, t.version as gone_version,
               coalesce(split_part(p.operation, ' ', 1) = h.id, p.forced) as is_ours
               {layout.also("p.{v} as {p}")}{layout.also("r.{v} as {b}")}{layout.also("f.{l} as {f}")}
               {layout.also(rules.first_as_stored())}
        from hit p
        join {layout.firsts} h on {layout.on("h", "p")}
        left join {layout.followers} f on {layout.on("f", "p")}
        left join {layout.rows} r on {layout.on("r", "p")}
        left join {layout.gone} t on {layout.on("t", "p")}
        """
    )
    differing = _differing(cursor, layout)
    cursor.run(
        f"""
        create or replace temp table meeting as
        with acted as (select *, {rules.act(layout, differing, mode, is_again=is_again)} as act from joined)
        select *{layout.also(rules.rebased_local(), differing)}
               {layout.also("{p} as {n}", layout.others(differing))},
               case when act = 'settle' then behind_id is null or behind_deleted
                    when act = 'theirs' then deleted
                    when behind_id is not null then behind_deleted else first_deleted end as now_deleted
        from acted
        """
    )
    _refresh_same(cursor, layout)
    _behind(cursor, layout, rev)
    write_meeting(store, cursor, layout, rev)
    learnt = Learnt()
    for act, count in cursor.rows("select act, count(*) from meeting group by act"):
        learnt.add(act, count)
    for name in ("meeting", "joined", "hit"):
        cursor.run(f"drop table temp.{name}")
    return learnt


def _refresh_same(cursor: Cursor, layout: Layout) -> None:
    """A row of a known version says nothing new, but for columns that were not kept here before."""
    cursor.run(
        f"""
        create or replace temp table wider as select * from meeting
        where act = 'same' and not deleted and base_there and version is not distinct from row_version
          and not {layout.rows_like("{p}", "{b}")}
        """
    )
    if cursor.one("select count(*) from wider"):
        keep = layout.also(
            "{l} = case when get_bit(e.given, {i}) = 1 or e.deleted or e.{l} is distinct from w.{b} "
            "then e.{l} else w.{p} end"
        )
        cursor.run(f"update {layout.edits} e set rev = e.rev{keep} from wider w where {layout.on('e', 'w')}")
        cursor.run(
            f"""
            update {layout.rows} r set rev = r.rev{layout.also("{v} = w.{p}")} from wider w
            where {layout.on("r", "w")}
            """
        )
    cursor.run("drop table wider")
    # Nor was the remote of a conflict learnt with them.
    cursor.run(
        f"""
        update {layout.edits} e set rev = e.rev{layout.also("{r} = m.{p}")} from meeting m
        where {layout.on("e", "m")} and not e.follower and e.has_remote and not e.remote_deleted
          and m.act = 'same' and not m.deleted and m.version is not distinct from e.remote_version
        """
    )


def _behind(cursor: Cursor, layout: Layout, rev: int) -> None:
    """The first was applied, and another changed the row after it: what waited behind is in conflict with that.

    Its base is what the first sent, for nobody has seen more.
    """
    if not cursor.one("select count(*) from meeting where act = 'behind'"):
        return
    behind = f"{layout.on('e', 'm')} and m.act = 'behind'"
    cursor.run(f"delete from {layout.edits} e using meeting m where {behind} and not e.follower")
    cursor.run(f"update {layout.edits} e set follower = false from meeting m where {behind}")
    cursor.run(f"delete from {layout.rows} r using meeting m where {layout.on('r', 'm')} and m.act = 'behind'")
    cursor.run(
        f"""
        insert into {layout.rows} by name
        select {layout.keys}, null::varchar as version, {rev} as rev, {rev} as pulled_rev{layout.also("{h} as {v}")}
        from meeting where act = 'behind' and not first_deleted
        """
    )


def write_meeting(store: Store, cursor: Cursor, layout: Layout, rev: int) -> None:
    """Bring rows and operations to what `meeting` says: act, the remote row as p_*, what is left to say as n_*."""
    kept = "('conflict', 'same', 'behind')"
    over = f"""
        (act = 'theirs' or (act = 'settle' and behind_id is null) or (now_deleted and deleted)
         or (not now_deleted and not deleted and {layout.rows_like("{n}", "{p}")}))
    """
    cursor.run(f"delete from {layout.edits} e using meeting m where {layout.on('e', 'm')} and m.act not in {kept}")
    cursor.run(
        f"""
        insert into {layout.edits} by name
        select case when act = 'settle' then behind_sequence
                    when base_there then coalesce(behind_sequence, first_sequence)
                    else first_sequence end as sequence,
               case when act = 'settle' then behind_id else first_id end as id, {layout.keys}, false as follower,
               case when act = 'settle' then behind_given
                    else first_given | coalesce(behind_given, first_given) end as given,
               now_deleted as deleted, false as attempted, false as has_remote, false as retry,
               coalesce(behind_staged_at, first_staged_at) as staged_at, {rev} as rev{layout.also("{n} as {l}")}
        from meeting where act not in {kept} and not {over}
        """
    )
    cursor.run(
        f"""
        update {layout.edits} e set attempted = false, has_remote = true, remote_deleted = m.deleted,
            remote_version = m.version, remote_operation = m.operation, remote_created = m.created,
            remote_updated = m.updated, {NO_ERROR}, rev = {rev}{layout.also("{r} = m.{p}")}
        from meeting m where {layout.on("e", "m")} and m.act in ('conflict', 'behind') and not e.follower
        """
    )
    stored = f"""
        (select {layout.keys}, version, operation, created, updated, deleted{layout.also("{p} as {v}")},
                case when act = 'settle' and ((deleted and first_deleted) or (not deleted and not first_deleted
                          and {layout.rows_like("{p}", "{h}")})) then first_rev end as own_rev
         from meeting where act not in {kept})
    """
    store.put(cursor, layout, stored, rev)


def _differing(cursor: Cursor, layout: Layout) -> list[str]:
    """The value columns in which some rows in `joined` differ: the rules need to look at these alone."""
    differs = layout.each(
        "bool_or({p} is distinct from {h} or {p} is distinct from {b} "
        "or (behind_id is not null and {f} is distinct from {h}))"
    )
    if not differs:
        return []
    found = cursor.rows(f"select {', '.join(differs)} from joined")[0]
    return [name for name, differs_there in zip(layout.schema.values, found, strict=True) if differs_there]
