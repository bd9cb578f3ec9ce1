"""The operation queue: local changes that the back end has not yet accepted.

Frames stage operations here, push takes them in sequence and settles them, and pull rebases them when
a newer remote row arrives.  The queue lives in the same file as the rows, so that a row and its pending
operation change in one transaction: after a crash there is never an edit without its operation, nor an
operation without its edit.

Three ideas carry it, each a few statements over sets.  *Stage*: lay the touched cells over what is shown
and fold them into the operation that waits, or wait behind one whose answer is unknown.  *Learn*: a pulled
row, a conflict or an accepted answer meets the operations on its key.  *Settle*, within it: the answer
becomes the row, and what waited behind is put on it.  Undo is a staging of the inverse, giving up an
attempted operation a staging of its base, and editing a conflict a staging followed by learning the remote
that is known already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from . import rules
from .errors import KeyColumnError, StaleFrameError
from .file import Cursor
from .layout import META, Layout
from .schema import quote, shown
from .store import UNDO_STEPS, Store, operations_source, shown_rows, utc_now

BATCH_ROWS = 10_000
RETRIED_CODES = ("reference", "unique")
EVERY_REVISION = 2**62  # nothing is newer: a staging of what is shown now

_RARE = "verdict in ('whole', 'clash', 'back')"
_NO_ERROR = "error_code = null, error_column = null, error_message = null"
_REMOTE = """
    h.remote_version as version, h.remote_operation as operation, h.remote_created as created,
    h.remote_updated as updated, h.remote_deleted as deleted
"""
_FIRST = """
    h.id as first_id, h.sequence as first_sequence, h.given as first_given, h.deleted as first_deleted,
    h.rev as first_rev, h.staged_at as first_staged_at
"""
_FOLLOWER = "f.id as behind_id, f.sequence as behind_sequence, f.given as behind_given, f.staged_at as behind_staged_at"


@dataclass(frozen=True, slots=True)
class Batch:
    """What is sent next: operations of one table, marked as attempted.

    `sent` has the columns of `Operations` and the base's values as `b_<name>`, so that what was sent can be
    shown when it is accepted and no longer in the queue.
    """

    table: str
    sent: pa.Table


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


@dataclass(frozen=True, slots=True)
class Staging:
    """One call that changed the queue, by its number: the store's revision that it made."""

    staging: int
    action: str
    table: str


class Queue:
    """All statements on operations; each method runs in the caller's transaction."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # -- stage

    def stage(
        self,
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
        rev, first = self.store.tick(cursor, len(operations))
        touched = self._judge(cursor, layout, operations, held, revision)
        self._refuse(cursor, layout)
        cursor.run("delete from judged where verdict = 'nothing'")
        self._lay(cursor, layout, held, touched)
        self._keep_conflicts(cursor, layout, rev, f"(select {layout.keys} from staged where has_remote)")
        self._put_back(cursor, layout, rev)
        self._fold(cursor, layout, rev, first)
        self._move_revisions(cursor, layout, rev)
        self._keep_images(cursor, layout, rev)
        again = cursor.one("select count(*) from staged where has_remote or verdict = 'clash'")
        if again:
            self._learn_again(cursor, layout, rev)
            self._note_settled(cursor, layout, rev)
        self.store.record(cursor, action, layout.table, len(operations), note, staging=rev)
        self._forget_images(cursor)
        for name in ("asked", "judged", "before", "ground", "after", "staged", "met"):
            cursor.run(f"drop table if exists temp.{name}")
        return rev

    def _judge(
        self, cursor: Cursor, layout: Layout, operations: pa.Table, held: Collection[str], revision: int
    ) -> list[str]:
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

    def _lay(self, cursor: Cursor, layout: Layout, held: Collection[str], touched: Collection[str]) -> None:
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
            self._lay_on_snapshot(cursor, layout, held, touched)
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

    def _lay_on_snapshot(self, cursor: Cursor, layout: Layout, held: Collection[str], touched: Collection[str]) -> None:
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

    def _refuse(self, cursor: Cursor, layout: Layout) -> None:
        there = self._named(cursor, layout, "verdict = 'exists'")
        if there:
            raise KeyColumnError(
                f"keys {shown(there)} cannot be inserted into {layout.table!r}: they are there, outside this frame",
                hint="take a frame that holds them, or update(key, ...)",
            )
        unsure = self._named(cursor, layout, "verdict = 'clash' and first_attempted")
        if unsure:
            raise StaleFrameError(
                f"rows {shown(unsure)} of {layout.table!r} were changed here and at the back end since this frame was "
                "taken, while an operation on them waits for its answer",
                hint="push or pull, take a new frame and edit that",
            )

    def _named(self, cursor: Cursor, layout: Layout, condition: str) -> list[Any]:
        """The keys in `judged` that meet a condition, as people write them."""
        return key_values(cursor.arrow(f"select {layout.keys} from judged where {condition} order by ord"), layout)

    def _put_back(self, cursor: Cursor, layout: Layout, rev: int) -> None:
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

    def _fold(self, cursor: Cursor, layout: Layout, rev: int, first: int) -> None:
        """Fold each operation into the one that waits for its key, or queue it, or drop both if they say nothing."""
        cursor.run(
            f"""
            merge into {layout.edits} e
            using (select g.*{layout.also("n.{n}")} from staged g left join after n on {layout.on("n", "g")}
                   where target is not null or not is_nothing) g on e.id = g.target
            when matched and g.is_nothing then delete
            when matched then update set deleted = g.deleted, given = g.now_given, {_NO_ERROR}, sent = null,
                retry = false, rev = {rev}, staged_at = {_now()},
                sequence = case when g.base_there then {first} + g.ord else e.sequence end{layout.also("{l} = g.{n}")}
            when not matched then insert
                (sequence, id, {layout.keys}, follower, given, deleted, attempted, has_remote, retry, staged_at,
                 rev{layout.also("{l}")})
            values ({first} + g.ord, g.new_id, {layout.keys_of("g")}, g.first_id is not null, g.now_given, g.deleted,
                    false, false, false, {_now()}, {rev}{layout.also("g.{n}")})
            """
        )

    def _move_revisions(self, cursor: Cursor, layout: Layout, rev: int) -> None:
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

    def _keep_images(self, cursor: Cursor, layout: Layout, rev: int) -> None:
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

    def _keep_conflicts(self, cursor: Cursor, layout: Layout, rev: int, keys: str) -> None:
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

    def _learn_again(self, cursor: Cursor, layout: Layout, rev: int) -> None:
        """Try the remote that is known already against the edited local."""
        known = f"""
            select {layout.keys_of("h")}, {_REMOTE}{layout.also("h.{r} as {v}")}
            from {layout.firsts} h semi join (select {layout.keys} from staged where has_remote) g using ({layout.keys})
            where has_remote
        """
        if cursor.one("select count(*) from duckdb_tables() where table_name = 'met' and temporary"):
            known += " union all by name from met"
        cursor.run(f"create or replace temp table hit as select *, false as forced from ({known})")
        self.learn(cursor, layout, rev, is_again=True)

    def _note_settled(self, cursor: Cursor, layout: Layout, rev: int) -> None:
        """An edited conflict that met its remote may have left no operation."""
        cursor.run(
            f"""
            update {layout.images} u set left_id = null
            where staging = {rev} and was_conflict
              and not exists (select 1 from {layout.edits} e where {layout.on("e", "u")} and e.id = u.left_id)
            """
        )

    def _forget_images(self, cursor: Cursor) -> None:
        """Keep what undo needs of the last stagings only."""
        rows = cursor.rows(
            f"select staging from {META}.history where can_undo order by staging desc offset {UNDO_STEPS} limit 1"
        )
        if not rows:
            return
        cursor.run(f"update {META}.history set can_undo = false where staging <= ?", [rows[0][0]])
        for layout in self.store.layouts(cursor):
            for part in (layout.images, layout.kept_edits, layout.kept_rows):
                cursor.run(f"delete from {part} where staging <= ?", [rows[0][0]])

    # -- learn

    def learn(self, cursor: Cursor, layout: Layout, rev: int, mode: str = "fail", *, is_again: bool = False) -> Learnt:
        """Let remote rows meet the operations on their keys.

        The temporary table `hit` has the key, v_*, version, operation, created, updated, deleted and forced:
        whether the row is the answer that accepted the operation.
        """
        cursor.run(
            f"""
            create or replace temp table joined as
            select {layout.keys_of("p")}, p.version, p.operation, p.created, p.updated, p.deleted, p.forced,
                   {_FIRST}, h.attempted as first_attempted, h.has_remote, h.remote_version,
                   {_FOLLOWER}, coalesce(f.deleted, false) as behind_deleted,
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
        self._refresh_same(cursor, layout)
        self._behind(cursor, layout, rev)
        self._write_meeting(cursor, layout, rev)
        learnt = Learnt()
        for act, count in cursor.rows("select act, count(*) from meeting group by act"):
            learnt.add(act, count)
        for name in ("meeting", "joined", "hit"):
            cursor.run(f"drop table temp.{name}")
        return learnt

    def _refresh_same(self, cursor: Cursor, layout: Layout) -> None:
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

    def _behind(self, cursor: Cursor, layout: Layout, rev: int) -> None:
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

    def _write_meeting(self, cursor: Cursor, layout: Layout, rev: int) -> None:
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
                remote_updated = m.updated, {_NO_ERROR}, rev = {rev}{layout.also("{r} = m.{p}")}
            from meeting m where {layout.on("e", "m")} and m.act in ('conflict', 'behind') and not e.follower
            """
        )
        stored = f"""
            (select {layout.keys}, version, operation, created, updated, deleted{layout.also("{p} as {v}")},
                    case when act = 'settle' and ((deleted and first_deleted) or (not deleted and not first_deleted
                              and {layout.rows_like("{p}", "{h}")})) then first_rev end as own_rev
             from meeting where act not in {kept})
        """
        self.store.put(cursor, layout, stored, rev)

    # -- resolve

    def resolve(self, cursor: Cursor, layout: Layout, chosen: pa.Table, action: str = "resolve") -> list[Any]:
        """Settle conflicts by chosen rows; return the keys whose remote is a newer one than was looked at.

        Parameters
        ----------
        chosen
            The key as k_*, the chosen row as n_*, now_deleted, and looked_at: the remote version that was seen.
        """
        rev, _ = self.store.tick(cursor)
        cursor.run(
            f"""
            create or replace temp table meeting as
            select {layout.keys_of("c")}, {_REMOTE}, {_FIRST}, {_FOLLOWER}, r.rev is not null as base_there,
                   c.now_deleted, 'resolve' as act, c.looked_at is distinct from h.remote_version as is_late
                   {layout.also("c.{n}")}{layout.also("h.{r} as {p}")}{layout.also("h.{l} as {h}")}
            from chosen c
            join (select * from {layout.edits} where has_remote and not follower) h on {layout.on("h", "c")}
            left join {layout.followers} f on {layout.on("f", "c")}
            left join {layout.rows} r on {layout.on("r", "c")}
            """,
            chosen=chosen,
        )
        late = key_values(cursor.arrow(f"select {layout.keys} from meeting where is_late"), layout)
        cursor.run("delete from meeting where is_late")
        self._settle_chosen(cursor, layout, rev, action)
        return late

    def take_theirs(self, cursor: Cursor, layout: Layout, keys: pa.Table | None) -> int:
        """Settle conflicts by the remote rows, all of them or those named; return how many."""
        return self._resolve_all(cursor, layout, keys, "h.{r}", "h.remote_deleted", "take theirs")

    def keep_mine(self, cursor: Cursor, layout: Layout, keys: pa.Table | None) -> int:
        """Settle conflicts by laying the cells that mine changed over the remote rows; return how many."""
        return self._resolve_all(cursor, layout, keys, rules.kept_mine(), "m.deleted", "keep mine")

    def _resolve_all(
        self, cursor: Cursor, layout: Layout, keys: pa.Table | None, value: str, deleted: str, action: str
    ) -> int:
        only = f"semi join only_keys o using ({layout.keys})" if keys is not None else ""
        tables = {} if keys is None else {"only_keys": keys}
        chosen = cursor.arrow(
            f"""
            select {layout.keys_of("h")}, h.remote_version as looked_at, {deleted} as now_deleted
                   {layout.also(value + " as {n}")}
            from (select * from {layout.edits} {only} where has_remote and not follower) h
            join {layout.lasts} m on {layout.on("m", "h")}
            left join {layout.rows} r on {layout.on("r", "h")}
            """,
            **tables,
        )
        if len(chosen):
            self.resolve(cursor, layout, chosen, action)
        return len(chosen)

    def _settle_chosen(self, cursor: Cursor, layout: Layout, rev: int, action: str) -> None:
        rows = cursor.one("select count(*) from meeting")
        if rows:
            self._keep_conflicts(cursor, layout, rev, "meeting")
            # What is chosen is given, all of it: an insert over a deleted row sends the whole row.
            cursor.run(f"update meeting set first_given = '{layout.all_bits}'::bit where deleted and not now_deleted")
            self._write_meeting(cursor, layout, rev)
            cursor.run(
                f"""
                insert into {layout.images} by name
                select {rev} as staging, {layout.keys_of("m")}, e.id as left_id, true as was_conflict,
                       true as before_there, not now_deleted as after_there
                from meeting m left join {layout.edits} e on {layout.on("e", "m")}
                """
            )
            self.store.record(cursor, action, layout.table, rows, staging=rev)
            self._forget_images(cursor)
        cursor.run("drop table temp.meeting")

    # -- push

    def next_batch(
        self, cursor: Cursor, tables: Collection[str] | None, push: int, last: int, *, is_retry: bool
    ) -> Batch | None:
        """Mark the next operations as attempted and return them; None when nothing is ready.

        A batch is a run of one table's operations in the order they were staged, up to where another
        table's next one stands, so that parents go before their children.

        Parameters
        ----------
        last
            The last place in the queue that this push sends.
        is_retry
            Send what was refused for a reference or a unique value once more, deletes in reverse.
        """
        ready = _ready(push, last, is_retry)
        firsts = []
        for layout in self.store.layouts(cursor, tables):
            first = cursor.one(f"select min({_turn(is_retry)}) from {layout.edits} where {ready}")
            if first is not None:
                firsts.append((first, layout))
        if not firsts:
            return None
        firsts.sort(key=lambda pair: pair[0])
        until = firsts[1][0] if len(firsts) > 1 else None
        return self._mark(cursor, firsts[0][1], push, ready, until, is_retry)

    def _mark(self, cursor: Cursor, layout: Layout, push: int, ready: str, until: int | None, is_retry: bool) -> Batch:
        turn = _turn(is_retry)
        bound = f" and {turn} < {until}" if until is not None else ""
        cursor.run(
            f"""
            create or replace temp table batch as
            select id from {layout.edits} where {ready}{bound} order by {turn} limit {BATCH_ROWS}
            """
        )
        sent = self._sent(cursor, layout, turn)
        cursor.run(
            f"""
            update {layout.edits} e set attempted = true, sent = {push}, retry = {str(is_retry).lower()}, {_NO_ERROR}
            from batch b where e.id = b.id
            """
        )
        cursor.run("drop table temp.batch")
        return Batch(layout.table, sent)

    def _sent(self, cursor: Cursor, layout: Layout, turn: str) -> pa.Table:
        changed = layout.each("case when {l} is distinct from {b} then {text} end")
        given = layout.each("case when get_bit(given, {i}) = 1 then {text} end")
        return cursor.arrow(
            f"""
            select o.id as operation_id, kind, coalesce(o.base_version, t.version) as base_version,
                   case kind when 'delete' then []::varchar[]
                             when 'insert' then {_named_list(given)} else {_named_list(changed)} end as given,
                   {layout.keys_of("o")}{layout.also("{l}")}{layout.also("{b}")}, attempted, base_there,
                   deleted as is_deleted, staged_at, given::varchar as bits
            from ({operations_source(layout)}) o semi join batch using (id)
            left join {layout.gone} t on {layout.on("t", "o")} and not o.base_there
            order by {turn}
            """
        )

    def unmark(self, cursor: Cursor, batch: Batch) -> None:
        """Say that a batch was certainly never sent: what was not attempted before is not attempted now."""
        layout = self.store.layout(cursor, batch.table)
        before = batch.sent.select(["operation_id", "attempted"])
        cursor.run(
            f"""
            update {layout.edits} e set attempted = b.attempted, sent = null
            from unsent b where e.id = b.operation_id and not e.has_remote and e.error_code is null
            """,
            unsent=before,
        )

    def settle(
        self, cursor: Cursor, layout: Layout, outcomes: pa.Table, mode: str = "fail", sent: pa.Table | None = None
    ) -> Learnt:
        """Store what became of pushed operations.

        Parameters
        ----------
        outcomes
            As a back end gives them.
        sent
            The batch: operation_id and whether it was attempted before.
        """
        rev, _ = self.store.tick(cursor)
        self._load_outcomes(cursor, layout, outcomes)
        if sent is not None:
            # Refused at its first sending, it was certainly not applied.
            cursor.run(
                f"""
                update {layout.edits} e set attempted = false from outcome o join sent s using (operation_id)
                where e.id = o.operation_id and o.status = 'conflicted' and not s.attempted
                """,
                sent=sent.select(["operation_id", "attempted"]),
            )
        cursor.run(
            f"""
            create or replace temp table hit as
            select {layout.keys}, version, created, updated,
                   case when status = 'accepted' then coalesce(operation, operation_id) end as operation,
                   deleted, status = 'accepted' as forced{layout.also("{r} as {v}")}
            from outcome where status <> 'rejected'
            """
        )
        learnt = self.learn(cursor, layout, rev, mode)
        self._reject(cursor, layout, rev)
        cursor.run("drop table temp.outcome")
        return learnt

    def _load_outcomes(self, cursor: Cursor, layout: Layout, outcomes: pa.Table) -> None:
        present = set(outcomes.column_names)

        def given(name: str, kind: str) -> str:
            return f"o.{quote(name)}::{kind}" if name in present else f"null::{kind}"

        values = "".join(
            f", {given('r_' + c.name, c.store)} as {quote('r_' + c.name)}" for c in layout.schema.value_columns
        )
        cursor.run(
            f"""
            create or replace temp table outcome as
            select {layout.keys_of("e")}, o.operation_id, o.status, {given("code", "varchar")} as code,
                   {given("column", "varchar")} as "column", {given("message", "varchar")} as message,
                   {given("version", "varchar")} as version, {given("operation", "varchar")} as operation,
                   coalesce({given("deleted", "boolean")}, false) as deleted,
                   {given("created", "timestamptz")} as created, {given("updated", "timestamptz")} as updated{values}
            from answers o join {layout.edits} e on e.id = o.operation_id and not e.follower
            """,
            answers=outcomes,
        )

    def _reject(self, cursor: Cursor, layout: Layout, rev: int) -> None:
        """Record refusals; what waited behind is folded into a refused operation, for it was certainly not applied."""
        if not cursor.one("select count(*) from outcome where status = 'rejected'"):
            return
        cursor.run(
            f"""
            update {layout.edits} e set attempted = false, error_code = coalesce(o.code, 'rejected'),
                error_column = o.column, error_message = o.message, rev = {rev}
            from outcome o where e.id = o.operation_id and o.status = 'rejected'
            """
        )
        cursor.run(
            f"""
            create or replace temp table waiting as
            select f.*, r.rev is not null as base_there,
                   case when f.deleted then r.rev is null
                        else r.rev is not null and {layout.rows_like("f.{l}", "r.{v}")} end as is_nothing
            from {layout.followers} f join outcome o on {layout.on("f", "o")} and o.status = 'rejected'
            left join {layout.rows} r on {layout.on("r", "f")}
            """
        )
        cursor.run(f"delete from {layout.edits} e using waiting w where e.id = w.id")
        cursor.run(
            f"""
            merge into {layout.edits} e using waiting w on {layout.on("e", "w")}
            when matched and w.is_nothing then delete
            when matched then update set deleted = w.deleted, given = e.given | w.given, {_NO_ERROR}, sent = null,
                rev = {rev}, sequence = case when w.base_there then w.sequence else e.sequence end
                {layout.also("{l} = w.{l}")}
            """
        )
        cursor.run("drop table temp.waiting")

    def retry(self, cursor: Cursor, layout: Layout, ids: pa.Table | None = None) -> None:
        """Make rejected operations ready again: all of a table, or those named."""
        only = "" if ids is None else " and id in (select id from only_ids)"
        tables = {} if ids is None else {"only_ids": ids}
        cursor.run(
            f"update {layout.edits} set {_NO_ERROR}, sent = null where error_code is not null{only}",
            **tables,
        )

    # -- give up and take back

    def discard(self, cursor: Cursor, layout: Layout, keys: pa.Table | None = None, action: str = "discard") -> int:
        """Give up operations, of a whole table or of the keys named; return on how many rows.

        One that was never sent goes; behind one whose answer is unknown its inverse is queued; a row in
        conflict becomes the remote that is known.
        """
        rev, _ = self.store.tick(cursor)
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
            self._keep_conflicts(cursor, layout, rev, "(select * from given_up where has_remote)")
            self._discard_images(cursor, layout, rev)
            self._discard_edits(cursor, layout, rev)
            self.store.record(cursor, action, layout.table, total, staging=rev)
            self._invert_attempted(cursor, layout, rev)
            self._forget_images(cursor)
        cursor.run("drop table temp.given_up")
        return total

    def _discard_images(self, cursor: Cursor, layout: Layout, rev: int) -> None:
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

    def _discard_edits(self, cursor: Cursor, layout: Layout, rev: int) -> None:
        cursor.run(f"delete from {layout.edits} e using given_up g where {layout.on('e', 'g')} and e.follower")
        cursor.run(
            f"""
            create or replace temp table remote_rows as
            select {layout.keys_of("h")}, {_REMOTE}, null::bigint as own_rev{layout.also("h.{r} as {v}")}
            from {layout.firsts} h semi join given_up g using ({layout.keys}) where has_remote
            """
        )
        self.store.put(cursor, layout, "remote_rows", rev)
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

    def _invert_attempted(self, cursor: Cursor, layout: Layout, rev: int) -> None:
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
            self._stage_inverse(cursor, layout, operations)

    def last_staging(self, cursor: Cursor) -> Staging | None:
        """The last call that can be taken back."""
        rows = cursor.rows(
            f'select staging, action, "table" from {META}.history where can_undo order by staging desc limit 1'
        )
        return Staging(*rows[0]) if rows else None

    def staged_keys(self, cursor: Cursor, layout: Layout, staging: int) -> pa.Table:
        return cursor.arrow(f"select {layout.keys} from {layout.images} where staging = {staging}")

    def undo(self, cursor: Cursor, last: Staging) -> list[Any]:
        """Take back a call that changed the queue; return the keys that were sent or settled since, and are left.

        Each row's edit becomes what it was before, by merge(after, before, now), so that what came since
        stays; a row that was in conflict is put back as it was, if nothing has come since.
        """
        layout = self.store.layout(cursor, last.table)
        cursor.run(f"update {META}.history set can_undo = false where staging = ?", [last.staging])
        reopened, late = self._reopen(cursor, layout, last.staging)
        operations, left = self._inverse(cursor, layout, last.staging)
        if len(operations):
            self._stage_inverse(cursor, layout, operations)
            self._give_back_ids(cursor, layout, last.staging)
        self._forget_staging(cursor, layout, last.staging)
        self.store.record(cursor, "undo", last.table, len(operations) + reopened, last.action)
        return left + late

    def _stage_inverse(self, cursor: Cursor, layout: Layout, operations: pa.Table) -> None:
        """Stage what takes something back; it is no call of the user's own, so it leaves no history."""
        staging = self.stage(cursor, layout, operations, held=layout.schema.values, revision=EVERY_REVISION)
        cursor.run(f"delete from {META}.history where staging = ?", [staging])
        self._forget_staging(cursor, layout, staging)

    def _give_back_ids(self, cursor: Cursor, layout: Layout, staging: int) -> None:
        """An operation that comes back is the one it was, so that an undo further back finds it; it was never sent."""
        cursor.run(
            f"""
            update {layout.edits} e set id = u.before_id from {layout.images} u
            where u.staging = {staging} and {layout.on("e", "u")} and u.before_id is not null and u.left_id is null
              and not e.attempted and not e.follower
              and not exists (select 1 from {layout.edits} o where o.id = u.before_id)
            """
        )

    def _forget_staging(self, cursor: Cursor, layout: Layout, staging: int) -> None:
        for part in (layout.images, layout.kept_edits, layout.kept_rows):
            cursor.run(f"delete from {part} where staging = ?", [staging])

    def _inverse(self, cursor: Cursor, layout: Layout, staging: int) -> tuple[pa.Table, list[Any]]:
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

    def _reopen(self, cursor: Cursor, layout: Layout, staging: int) -> tuple[int, list[Any]]:
        """Put conflicts back as they were before that call, where nothing has come since."""
        cursor.run(
            f"""
            create or replace temp table reopening as
            select u.*, case when u.left_id is null then e.id is null
                             else e.id = u.left_id and e.rev <= {staging} and not e.attempted end
                        and coalesce(r.rev, 0) <= {staging} and coalesce(r.pulled_rev, 0) <= {staging} as is_free
            from (select {layout.keys}, left_id from {layout.images} where staging = {staging} and was_conflict) u
            left join {layout.lasts} e on {layout.on("e", "u")}
            left join {layout.rows} r on {layout.on("r", "u")}
            """
        )
        cursor.run("update reopening set is_free = false where is_free is null")
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

    # -- counting

    def counts(self, cursor: Cursor, layout: Layout) -> dict[str, int]:
        """Operations of a table: pending, conflicts, rejected."""
        pending, conflicts, rejected = cursor.rows(
            f"""
            select count(*), count(*) filter (where has_remote), count(*) filter (where error_code is not null)
            from {layout.edits}
            """
        )[0]
        return {"pending": pending, "conflicts": conflicts, "rejected": rejected}

    def pending(self, cursor: Cursor, tables: Collection[str] | None = None) -> int:
        return sum(self.counts(cursor, layout)["pending"] for layout in self.store.layouts(cursor, tables))

    def last_place(self, cursor: Cursor, tables: Collection[str] | None = None) -> int:
        """The last place in the queue of these tables' operations; 0 if they have none."""
        places = [
            cursor.one(f"select max(sequence) from {layout.edits}") for layout in self.store.layouts(cursor, tables)
        ]
        return max((place for place in places if place is not None), default=0)

    def next_push(self, cursor: Cursor) -> int:
        cursor.run(f"update {META}.store set pushes = pushes + 1")
        number: int = cursor.one(f"select pushes from {META}.store")
        return number


def key_values(keys: pa.Table, layout: Layout) -> list[Any]:
    """Keys as people write them: the value, or a tuple for a compound key."""
    columns = [keys[f"k_{name}"].to_pylist() for name in layout.schema.key]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def _touched(cursor: Cursor, layout: Layout) -> list[str]:
    """The value columns that some edit in `asked` touches."""
    bits = cursor.one("select bit_or(touched)::varchar from asked") or layout.no_bits
    return [name for name, bit in zip(layout.schema.values, bits[1:], strict=True) if bit == "1"]


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


def _named_list(parts: Sequence[str]) -> str:
    return f"list_filter([{', '.join(parts)}], lambda x: x is not null)" if parts else "[]::varchar[]"


def _ready(push: int, last: int, is_retry: bool) -> str:
    """Which operations a push may send now."""
    waits = f"not follower and not has_remote and sequence <= {last}"
    if is_retry:
        codes = ", ".join(f"'{code}'" for code in RETRIED_CODES)
        return f"{waits} and error_code in ({codes}) and sent = {push} and not retry"
    return f"{waits} and error_code is null and (sent is null or sent <> {push})"


def _turn(is_retry: bool) -> str:
    """The order of sending; of refused operations the deletes come last and in reverse, children before parents."""
    return "case when deleted then 4611686018427387904 - sequence else sequence end" if is_retry else "sequence"
