"""Pull: bring what changed at the back end into the store, page by page.

    push what is pending -> ask since the checkpoint -> a page: rows, operations on them, leavers and the
    checkpoint in one transaction -> again, until the back end says that this was all -> remove what is gone

Killed between two pages, the next pull goes on behind the last one, for its checkpoint came with its rows.
A page applied twice does no harm: rows of a known version are left.  Only a run that came to its end removes
what it did not bring, and only rows that the same query had brought, that no other query of the table holds
and that no operation needs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import words
from .backends.base import DELETED, Backend, Checkpoint, Page
from .diff import deletes_allowed
from .errors import CheckpointLost, DeleteGuardError, QueryError, StoreError
from .file import Cursor
from .frame import matched
from .layout import Layout
from .progress import Told, ended, told
from .push import PushResult
from .query import Condition, Query, parse
from .queue import Queue
from .schema import Schema
from .store import PART, Store, StoredQuery, query_name, utc_now

PAGE_ROWS = 10_000
# Pages that come quickly are stored together: a transaction costs 0.1 s and more in a store of a million rows.
TOGETHER_ROWS = 100_000
TOGETHER_BYTES = 32 * 2**20
TOGETHER_S = 1.0
QUICK_S = 0.25  # a page that took longer is stored at once: the next one may take as long
OVERTAKEN_MAX = 3
HELD_BACK_S = 60.0

log = logging.getLogger("syncframe")


@dataclass(slots=True)
class PullResult:
    """What a pull brought.

    Parameters
    ----------
    inserted, updated, deleted
        Rows that changed here.
    conflicts
        Operations that met a newer row and could not be settled.
    unchanged
        Rows that came and were known.
    rows, requests, bytes, seconds
        What came over the wire, and how long it took.
    held_back_s
        How old the oldest open transaction is that holds newer rows back, where over 60 s.
    pushed
        The push before it, or None.
    notes
        What the user should know, in words.
    tables, skipped
        Of a pull of several tables: each one's result, and the names that were never pulled.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    conflicts: int = 0
    unchanged: int = 0
    rows: int = 0
    requests: int = 0
    bytes: int = 0
    seconds: float = 0.0
    held_back_s: float | None = None
    pushed: PushResult | None = None
    notes: list[str] = field(default_factory=list)
    tables: dict[str, PullResult] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def add(self, other: PullResult) -> None:
        """Count another pull's figures in."""
        for name in (
            "inserted",
            "updated",
            "deleted",
            "conflicts",
            "unchanged",
            "rows",
            "requests",
            "bytes",
            "seconds",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.held_back_s = max((s for s in (self.held_back_s, other.held_back_s) if s is not None), default=None)
        self.notes += other.notes

    def brought(self) -> list[str]:
        """What is new, changed and gone here, in words; nothing of what is not."""
        counts = {"new": self.inserted, "changed": self.updated, "gone": self.deleted}
        return [f"{count:,} {what}" for what, count in counts.items() if count]

    def __repr__(self) -> str:
        lines = [f"  {words.name(table)}: {', '.join(part._counts())}" for table, part in self.tables.items()]
        return "\n".join([self._headline(), *lines, *self._below()])

    def _repr_html_(self) -> str:
        parts = list(self.tables.items())
        rows = [[words.name(table), *map(words.figure, part._figures().values())] for table, part in parts]
        names = ["table", *self._figures()]
        table = words.html_table(names, rows, caption=self._headline(), code=[0])
        more = words.left_out(len(rows), words.SHOWN_ROWS)
        head = table if rows else words.paragraphs([self._headline()])
        return words.html(head, words.paragraphs([*more, *self._below()]))

    def _figures(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("inserted", "updated", "deleted", "conflicts")}

    def _counts(self) -> list[str]:
        return [f"{count} {name}" for name, count in self._figures().items()]

    def _headline(self) -> str:
        came = f"{words.many(self.rows, 'row')} in {words.many(self.requests, 'request')}, {self.seconds:.2f} s"
        came += f"; {self.unchanged:,} as here already" if self.unchanged else ""
        text = f"PullResult: {', '.join(self._counts())} ({came})"
        if self.held_back_s is not None:
            text += f"; held back by a transaction open for {self.held_back_s:.0f} s"
        return text + (f"; never pulled: {', '.join(map(words.name, self.skipped))}" if self.skipped else "")

    def _below(self) -> list[str]:
        pushed = self.pushed if self.pushed is not None and self.pushed.did_anything else None
        before = [f"before it, {line}" if at == 0 else line for at, line in enumerate(repr(pushed).splitlines())]
        return [*(before if pushed is not None else []), *self.notes]


def together(pages: Iterator[Page], rows_max: int) -> Iterator[Page]:
    """Pages as they came, those that follow one another quickly as one, up to so many rows.

    Where the back end fails, what it gave before comes first.  A page that cannot be stored takes those with it that
    are held beside it.
    """
    kept: list[Page] = []
    rows = size = 0
    began = asked = time.monotonic()
    try:
        for page in pages:
            came = time.monotonic()
            if kept and not (
                _joins(kept[-1], page)
                and rows + len(page.rows) <= rows_max
                and size + page.rows.nbytes <= TOGETHER_BYTES
            ):
                yield _joined(kept)
                kept = []
            if not kept:
                rows, size, began = 0, 0, came
            kept.append(page)
            rows, size = rows + len(page.rows), size + page.rows.nbytes
            if rows >= rows_max or came - asked > QUICK_S or came - began > TOGETHER_S:
                yield _joined(kept)
                kept = []
            asked = time.monotonic()
    except Exception:
        if kept:
            yield _joined(kept)
        raise
    if kept:
        yield _joined(kept)


def _joins(last: Page, page: Page) -> bool:
    """Whether a page can be stored with the one before it: not where rows leave, for a row may leave and come back."""
    has_leavers = any(one.leavers is not None and len(one.leavers) for one in (last, page))
    return not has_leavers and bool(page.rows.schema == last.rows.schema)


def _joined(pages: Sequence[Page]) -> Page:
    if len(pages) == 1:
        return pages[0]
    rows = [
        page.rows.append_column(PART, pa.repeat(pa.scalar(part, pa.int32()), len(page.rows)))
        for part, page in enumerate(pages)
    ]
    return replace(
        pages[-1],
        rows=pa.concat_tables(rows),
        leavers=None,
        requests=sum(page.requests for page in pages),
        bytes=sum(page.bytes or page.rows.nbytes for page in pages),
        held_back_s=max((s for p in pages if (s := p.held_back_s) is not None), default=None),
    )


@dataclass(frozen=True, slots=True)
class _Absent:
    """What the back end said of rows that a full run did not bring: those with an operation, those of no query."""

    edited: pa.Table | None = None
    strays: pa.Table | None = None
    revision: int = 0


class _Overtaken(Exception):
    """Another process or context wrote to the store since these pages were asked for."""


class Pull:
    """One pull of one table."""

    def __init__(self, store: Store, queue: Queue, backend: Backend, table: str) -> None:
        self.store, self.queue, self.backend, self.table = store, queue, backend, table
        self.begun: str | None = None  # the checkpoint where the run began
        self.is_alone = True  # no other run of this query was seen beside it
        self.seen_rev = 0  # the store's revision before the pages were asked for
        self.restarts = OVERTAKEN_MAX

    def prepare(self, where: str | None, columns: Sequence[str] | None, query_id: str | bool | None) -> None:
        """Check what is asked for before anything is pushed or changed; see `SyncTable.pull`."""
        self.there = self.backend.schema(self.table)
        self.columns = columns
        if columns is not None:
            self.there.select(columns)
        self.condition = None if where is None else parse(where, self.there)
        self.stored = self._stored(self.condition, query_id)

    def run(
        self, *, full: bool = False, page_rows: int | None = None, progress: object = None, mode: str = "fail"
    ) -> PullResult:
        """Bring what changed, as prepared."""
        began = time.monotonic()
        self.page_rows = PAGE_ROWS if page_rows is None else page_rows
        self.together_rows = TOGETHER_ROWS if page_rows is None else page_rows
        schema = self.store.define(self.table, self.there, self.columns)
        result = PullResult()
        with told(progress, "rows") as tell:
            try:
                self._run_pages(result, schema, mode, full, tell)
            except CheckpointLost as lost:
                # The edits stay and are rebased; the rows are compared one by one with what is there.
                result.notes.append(f"{lost.message}: table {self.table!r} is pulled in full")
                log.warning("%s: table %s is pulled in full", lost.message, self.table)
                self._run_pages(result, schema, mode, True, tell)
        result.seconds = time.monotonic() - began
        self._record(result)
        return result

    def _stored(self, condition: Condition | None, query_id: str | bool | None) -> StoredQuery:
        """The query as the store knows it, or a new one.

        Raises
        ------
        QueryError
            If the query id was used with another condition.
        """
        text = None if condition is None else condition.text
        name = (text or "all") if query_id is True else query_id or None
        with self.store.reading() as cursor:
            found = self.store.query(cursor, self.table, query_name(name, text))
        if found is None:
            return StoredQuery(query_name(name, text), name, text, None, False, 0, False)
        if found.where != text:
            raise QueryError(
                f"query id {name!r} of table {self.table!r} was pulled with {found.where or 'no condition'!r}, "
                f"now with {text or 'none'!r}",
                hint="give the new condition a query id of its own",
            )
        return found

    def _run_pages(self, result: PullResult, schema: Schema, mode: str, full: bool, tell: Told) -> None:
        """Ask again for pages that were overtaken: what a push beside this pull has stored is newer than they are."""
        while True:
            try:
                return self._pages(result, schema, mode, full, tell)
            except _Overtaken:
                self.restarts -= 1
                full = False

    def _pages(self, result: PullResult, schema: Schema, mode: str, full: bool, tell: Told) -> None:
        with self.store.reading():
            self.seen_rev, stored = self.store.revision(), self._restored()
        since = None if full or stored.query_id is None or stored.checkpoint is None else Checkpoint(stored.checkpoint)
        self.query = stored
        if self.is_alone:
            self.begun = None if since is None else str(since)
        if since is None:
            self.query = replace(stored, run=self._claimed_run(stored), sweeping=True, checkpoint=None)
        asked = Query(self.condition, tuple(schema.names), self.page_rows)
        tracked = True
        pages = self._compared(asked, result) if full and stored.checkpoint is not None else None
        with ended(pages or self.backend.pull(self.table, asked, since, self._others())) as pages:
            for page in together(pages, self.together_rows):
                self._apply(result, page, mode)
                tracked = page.checkpoint is not None
                tell(result.rows, None, f"pull {self.table}")
        self._finish(result, mode, tracked)

    def _compared(self, asked: Query, result: PullResult) -> Iterator[Page] | None:
        """A full run of what is here already, where the back end can list keys and versions: rows that differ only."""
        listed = getattr(self.backend, "keys", None)
        if listed is None or getattr(self.backend, "rows", None) is None:
            return None

        def pages() -> Iterator[Page]:
            place = None
            for page in listed(self.table, asked):
                rows = self._ask(self._unknown(page, result))
                place = page.checkpoint or place
                if rows is not None:
                    yield Page(rows.filter(pc.invert(rows[DELETED])))
            # What was written meanwhile; and the place where the next pull starts.
            yield from self.backend.pull(self.table, asked, place, self._others())

        return pages()

    def _unknown(self, page: Page, result: PullResult) -> pa.Table:
        """The keys of a list that are not here in the version that they have there."""
        with self.store.transaction() as cursor:
            layout = self.store.layout(cursor, self.table)
            self._check_run(cursor)
            unknown = self.store.remember_known(cursor, layout, self.query, page.rows)
            self.store.drop_loaded(cursor)
        known = len(page.rows) - len(unknown)
        result.rows += known
        result.unchanged += known
        result.requests += page.requests
        result.bytes += page.bytes
        return unknown

    def _claimed_run(self, stored: StoredQuery) -> int:
        """A run of its own: two full pulls at once would each take the other's rows for its own."""
        with self.store.transaction() as cursor:
            known = self.store.query(cursor, self.table, stored.name)
            run = 1 if known is None else known.run + 1
            self.store.claim_run(cursor, self.table, stored.name, run)
            return run

    def _restored(self) -> StoredQuery:
        """The query as the store has it now: the push before may have reset checkpoints."""
        with self.store.reading() as cursor:
            return self.store.query(cursor, self.table, self.stored.name) or self.stored

    def _others(self) -> list[Query]:
        """The table's other stored queries, so that a leaver can say which of them its row still matches."""
        with self.store.reading() as cursor:
            queries = self.store.queries(cursor, self.table)
        return [
            Query(None if q.where is None else parse(q.where, self.there), None, self.page_rows)
            for q in queries
            if q.name != self.query.name
        ]

    def _apply(self, result: PullResult, page: Page, mode: str) -> None:
        """One page, in one transaction: its rows, the operations on them, its leavers, and the checkpoint."""
        met = self._ask_leavers(page)
        with self.store.transaction() as cursor:
            layout = self.store.layout(cursor, self.table)
            self._check_run(cursor)
            rev, _ = self.store.tick(cursor)
            if rev > self.seen_rev + 1 and self.restarts and self.query.checkpoint is not None:
                raise _Overtaken
            self.store.load_page(cursor, layout, page.rows)
            self._count_page(result, page)
            self._put_page(cursor, layout, rev, result, mode)
            if page.leavers is not None and len(page.leavers):
                self.store.load_leavers(cursor, layout, page.leavers)
                result.deleted += self.store.take_leavers(cursor, layout, self.query, rev)
                self._learn_absent(cursor, layout, rev, result, met, mode)
            self.query = replace(self.query, checkpoint=page.checkpoint and str(page.checkpoint), complete=False)
            self.store.put_query(cursor, self.table, self.query, None)
            self.store.drop_loaded(cursor)
            self.seen_rev = rev

    def _put_page(self, cursor: Cursor, layout: Layout, rev: int, result: PullResult, mode: str) -> None:
        came = cursor.one("select count(*) from incoming")
        cursor.run(f"create or replace temp table hit as {_met(layout)}")
        counts = self.store.put(cursor, layout, _unmet(layout), rev)
        for name, count in counts.items():
            setattr(result, name, getattr(result, name) + count)
        self.store.remember_members(cursor, layout, self.query)
        changed = sum(counts.values()) + self._learn(cursor, layout, rev, result, mode)
        result.unchanged += came - changed

    def _learn(self, cursor: Cursor, layout: Layout, rev: int, result: PullResult, mode: str) -> int:
        if not cursor.one("select count(*) from hit"):
            return 0
        learnt = self.queue.learn(cursor, layout, rev, mode)
        result.conflicts += learnt.conflicts
        result.updated += learnt.settled + learnt.rebased
        return learnt.settled + learnt.rebased + learnt.conflicts

    def _ask_leavers(self, page: Page) -> pa.Table | None:
        """The rows, as they are there, of leavers that an operation waits for; None if there are none."""
        if page.leavers is None or not len(page.leavers):
            return None
        with self.store.transaction() as cursor:
            keys = self.store.leaving_edits(cursor, self.store.layout(cursor, self.table), page.leavers)
        return self._ask(keys)

    def _ask(self, keys: pa.Table) -> pa.Table | None:
        """Rows by key, those not found as tombstones without a version."""
        ask = getattr(self.backend, "rows", None)
        if not len(keys) or ask is None:
            return None
        found = ask(self.table, keys)
        there, _ = matched(found.select(keys.column_names), keys)
        absent = keys.take(pa.array(np.setdiff1d(np.arange(len(keys)), there)))
        gone = absent.append_column(DELETED, pa.array([True] * len(absent), pa.bool_()))
        return pa.concat_tables([found, gone], promote_options="permissive")

    def _learn_absent(
        self, cursor: Cursor, layout: Layout, rev: int, result: PullResult, met: pa.Table | None, mode: str
    ) -> None:
        if met is None or not len(met):
            return
        self.store.load_page(cursor, layout, met)
        cursor.run(f"create or replace temp table hit as {_met(layout)}")
        self._learn(cursor, layout, rev, result, mode)

    def _count_page(self, result: PullResult, page: Page) -> None:
        result.rows += len(page.rows)
        result.requests += page.requests
        result.bytes += page.bytes or page.rows.nbytes
        if page.held_back_s is not None and page.held_back_s > HELD_BACK_S:
            result.held_back_s = page.held_back_s

    def _check_run(self, cursor: Cursor) -> None:
        """Two full pulls of one query at once would each take the other's rows for gone."""
        known = self.store.query(cursor, self.table, self.query.name)
        if known is not None and known.run > self.query.run:
            raise StoreError(
                f"another process began to pull this query of {self.table!r}",
                hint="let it finish; its rows are yours too",
            )
        # Of two runs side by side one may put an older page over the other's newer one, and the place of the other
        # be behind both: then the next run begins where this one did.
        is_ours = known is None or self.query.sweeping or known.checkpoint == self.query.checkpoint
        self.is_alone = self.is_alone and is_ours

    def _finish(self, result: PullResult, mode: str, tracked: bool) -> None:
        """The back end has said that this was all: remove what is gone, and note when."""
        gone = self._ask_gone() if self.query.sweeping else _Absent()
        with self.store.transaction() as cursor:
            layout = self.store.layout(cursor, self.table)
            self._check_run(cursor)
            if self.query.sweeping:
                self._guard_empty(cursor, layout)
                rev, _ = self.store.tick(cursor)
                result.deleted += self.store.sweep(cursor, layout, self.query, rev)
                self._learn_absent(cursor, layout, rev, result, gone.edited, mode)
                self._drop_strays(cursor, layout, rev, result, gone)
            checkpoint = self.query.checkpoint if self.is_alone else self.begun
            self.query = replace(self.query, checkpoint=checkpoint, complete=True, sweeping=False)
            self.store.put_query(cursor, self.table, self.query, utc_now())
            self.store.drop_loaded(cursor)
            was_tracked = self.store.state(self.table)
            self.store.touched(cursor, self.table, "last_pull", tracked)
            if (
                not tracked
                and self.query.query_id is not None
                and was_tracked is not None
                and was_tracked.tracked is None
            ):
                result.notes.append(
                    f"table {self.table!r} is not tracked, so each pull reads it in full; to bring only what changed: "
                    f"syncframe track URL {self.table}"
                )

    def _ask_gone(self) -> _Absent:
        """Ask by key for the rows that this run did not bring and that a sweep may not judge by itself."""
        with self.store.transaction() as cursor:
            layout = self.store.layout(cursor, self.table)
            edited = self.store.swept_edits(cursor, layout, self.query)
            strays = self.store.strays(cursor, layout)
            revision = self.store.revision()
        return _Absent(self._ask(edited), self._ask(strays), revision)

    def _drop_strays(self, cursor: Cursor, layout: Layout, rev: int, result: PullResult, gone: _Absent) -> None:
        """Bring the rows that no query holds up to date: nothing else would tell that they were deleted."""
        if gone.strays is None:
            return
        self.store.load_page(cursor, layout, gone.strays)
        # What was written here since was not asked for.
        newer = f"select 1 from {layout.rows} r where {layout.on('r', 'i')} and r.rev > {gone.revision}"
        cursor.run(f"delete from incoming i where exists ({newer})")
        counts = self.store.put(cursor, layout, _unmet(layout), rev)
        result.updated += counts["updated"]
        result.deleted += counts["deleted"]

    def _guard_empty(self, cursor: Cursor, layout: Layout) -> None:
        held, came = self.store.missed(cursor, layout, self.query)
        if not came and held > deletes_allowed(held):
            raise DeleteGuardError(
                f"the pull of {self.table!r} came back empty where {held} rows were; nothing was removed",
                hint=f"if they are meant to be gone: ctx[{self.table!r}].purge(), then pull again",
            )

    def _record(self, result: PullResult) -> None:
        with self.store.transaction() as cursor:
            self.store.record(
                cursor,
                "pull",
                self.table,
                result.inserted + result.updated + result.deleted,
                "; ".join(result.notes) or None,
            )
        log.info("pull %s: %d rows in %d requests, %.2f s", self.table, result.rows, result.requests, result.seconds)


def _unmet(layout: Layout) -> str:
    """The pulled rows that no operation waits for: they go in as a set."""
    return f"(from incoming anti join {layout.edits} e using ({layout.keys}))"


def _met(layout: Layout) -> str:
    """The pulled rows that an operation waits for."""
    return f"select *, false as forced from incoming semi join {layout.edits} e using ({layout.keys})"
