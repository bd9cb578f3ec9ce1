"""Pulls from a plain service: what is there by id, what changed by stamp, and what left the query.

    first run:   note the newest row -> what is there, in the order of ids -> what changed since the note
    later runs:  all keys that changed (if the query has a filter) -> what changed of the query -> leavers:
                 the keys that changed and did not come

Why this misses nothing: in the order of ids no change moves a row, and what is inserted or changed behind the
reader is behind the note.  The second stream is read after the first, so that a key that matched when its turn
came is in it; one that leaves the filter later is behind the next run's beginning.  A run begins a while before
the last one did (`overlap_s`), for rows that were committed late; rows seen before are known by their versions.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import pyarrow as pa

from ...errors import BackendError
from ...wire import DELETED, ID, SYSTEM, UPDATED_AT, VERSION, Wire
from ..base import Checkpoint, Page, page_schema
from ..decide import conformed
from .dialect import both
from .lists import Listed, Lists, Object, check_stale, id_of
from .place import Place, State, earlier, next_ms, place_of, stamp_of

KEYS_TOP = 1_000
STAMPED = (ID, VERSION, UPDATED_AT)


@dataclass(slots=True)
class PlainPull:
    """One pull of one query.

    Parameters
    ----------
    lists
        With a tally of its own.
    where
        The query's filter in the service's dialect.
    select
        The columns to ask for; None: all.
    overlap_s
        How long after its stamp a row may become visible.
    """

    lists: Lists
    table: str
    wire: Wire
    where: str | None
    select: Sequence[str] | None
    page_rows: int
    overlap_s: float
    began: dt.datetime | None = field(default=None, init=False)  # by the service's clock
    _note: Place | None = field(default=None, init=False)  # of the newest row, before this run read any
    _read: set[tuple[str, object]] = field(default_factory=set, init=False)  # of the noted millisecond

    def run(self, state: State) -> Iterator[Page]:
        """Yield pages; at least one, the last with the checkpoint where the next pull starts.

        A page is kept back until it is known whether it is the last: then it takes the last checkpoint along.
        """
        kept: Page | None = None
        try:
            for page in self._pages(state):
                if kept is not None and len(page.rows) == 0 and page.leavers is None:
                    page = replace(kept, checkpoint=page.checkpoint)
                elif kept is not None:
                    yield self._counted(kept)
                kept = page
        except Exception:
            if kept is not None:
                last, kept = kept, None
                yield self._counted(last)
            raise
        if kept is not None:
            yield self._counted(kept)

    def note(self, now: float) -> State:
        """Where a full run that begins now has to read on from when it has read all."""
        newest = self._ask(order=f"{UPDATED_AT} desc,{ID} desc", top=1, select=STAMPED, deleted=True, counted=False)
        self._note = place = place_of(self.table, newest.objects[0]) if newest.objects else None
        return State(now, "", self._from(place), self._from(place) if self.where else None)

    # What is there, then what changed

    def _pages(self, state: State) -> Iterator[Page]:
        if state.live is not None:
            for objects in self._live(state.live):
                self._read |= self._noted(objects, self._note or state.changed)
                state = replace(state, live=id_of(self.table, objects[-1]))
                yield self._page(objects, state)
            state = replace(state, live=None)
        # In the run that read what is there, later rows alone are new; the overlap is for the next one.
        begin = state if self._note is None else replace(state, changed=self._note, all_changed=self._note)
        if self.where is None:
            yield from self._changed(state, begin)
        else:
            yield from self._changed_and_left(state, begin)

    def _live(self, after: str) -> Iterator[list[Object]]:
        pages = self.lists.by_id(
            self.table, after=after or None, where=self.where, top=self.page_rows, select=self.select,
            is_asked=self.where is not None,
        )  # fmt: skip
        # A service may cap its pages at 50 rows, and to store one takes as long as to store thousands.
        gathered: list[Object] = []
        try:
            for page in pages:
                self._clocked(page)
                gathered += page.objects
                if len(gathered) >= self.page_rows:
                    yield gathered
                    gathered = []
        except BackendError:
            if gathered:
                yield gathered  # what came before the wire failed need not come again
            raise
        if gathered:
            yield gathered

    def _noted(self, objects: Sequence[Object], note: Place | None) -> set[tuple[str, object]]:
        """Those of the note's millisecond: the stream of changes begins within it and would bring them again."""
        if note is None:
            return set()
        begin = note[0].removesuffix("Z")
        return {self._key(found) for found in objects if str(found.get(UPDATED_AT)).startswith(begin)}

    def _changed(self, state: State, begin: State) -> Iterator[Page]:
        """All that changed: what matches and what was deleted are one stream."""
        place = begin.changed
        for objects, place in self._stream(begin.changed, self.where, self.select, self.page_rows):
            yield self._page(objects, replace(state, changed=self._from(place)))
        yield self._page([], replace(state, changed=self._from(place)))

    def _changed_and_left(self, state: State, begin: State) -> Iterator[Page]:
        left, end = self._keys(begin.all_changed, None)
        if left or state.changed != state.all_changed:
            # An interrupted run had brought these, and will not bring them again.
            if state.changed is not None and state.changed != state.all_changed:
                brought, _ = self._keys(state.all_changed, both(self.where, self._until(state.changed)))
                left -= brought
            for objects, place in self._stream(begin.changed, self.where, self.select, self.page_rows):
                left -= {id_of(self.table, found) for found in objects}
                yield self._page(objects, replace(state, changed=self._reached(state, place)))
        done = replace(state, changed=self._from(end), all_changed=self._from(end))
        yield replace(self._page([], done), leavers=self._leavers(left) if left else None)

    def _keys(self, place: Place | None, where: str | None) -> tuple[set[str], Place | None]:
        """The ids of what changed since a place, and where that ends."""
        ids: set[str] = set()
        end = place
        for objects, behind in self._stream(place, where, STAMPED, max(self.page_rows, KEYS_TOP)):
            ids |= {id_of(self.table, found) for found in objects}
            end = behind
        return ids, end

    def _until(self, place: Place) -> str:
        return self.lists.dialect.before(next_ms(place[0]))

    # The stream of changes

    def _stream(
        self, place: Place | None, where: str | None, select: Sequence[str] | None, top: int
    ) -> Iterator[tuple[list[Object], Place]]:
        """Rows that changed since a place, tombstones among them, each once, and the place behind each page.

        The service's stamps may be finer than the wire's milliseconds: behind a row of 10:00:00.000 come all
        those of 10:00:00.0001 again, and if they fill a page there is no way past them by stamp.  Then that
        millisecond is read in the order of ids, and the stream goes on behind it.
        """
        seen = set(self._read)  # of the place's millisecond
        visited: set[Place] = set()
        stale, is_first = 0, True
        while True:
            behind = self.lists.dialect.after(place) if place else None
            page = self._ask(
                where=both(where, behind), order=f"{UPDATED_AT},{ID}", top=top, select=select, deleted=True,
                counted=self.lists.dialect.needs_count and is_first,
            )  # fmt: skip
            is_first = False
            if not page.objects:
                return
            end = place_of(self.table, page.objects[-1])
            fresh = [found for found in page.objects if self._key(found) not in seen]
            if place is None or end[0] != place[0]:
                seen.clear()
            seen |= {self._key(found) for found in self._last_millisecond(page.objects, end[0])}
            if not page.is_last and (end in visited or not fresh):
                stale += 1
                check_stale(self.table, stale)
                for objects in self._millisecond(end[0], where, select, top, seen):
                    yield objects, end
                place = next_ms(end[0]), ""
                continue
            stale = 0
            visited.add(end)
            place = end
            if fresh:
                yield fresh, place
            if page.is_last:
                return

    def _millisecond(
        self, stamp: str, where: str | None, select: Sequence[str] | None, top: int, seen: set[tuple[str, object]]
    ) -> Iterator[list[Object]]:
        within = both(where, self.lists.dialect.after((stamp, "")), self.lists.dialect.before(next_ms(stamp)))
        for page in self.lists.by_id(self.table, where=within, top=top, select=select, deleted=True):
            self._clocked(page)
            if fresh := [found for found in page.objects if self._key(found) not in seen]:
                yield fresh

    def _last_millisecond(self, objects: Sequence[Object], stamp: str) -> Iterator[Object]:
        return takewhile(lambda found: place_of(self.table, found)[0] == stamp, reversed(objects))

    def _key(self, found: Object) -> tuple[str, object]:
        return id_of(self.table, found), found.get(VERSION)

    def _ask(self, **options: object) -> Listed:
        page = self.lists.page(self.table, is_asked=self.where is not None, **options)  # type: ignore[arg-type]
        self._clocked(page)
        return page

    def _clocked(self, page: Listed) -> None:
        self.began = self.began or page.date or dt.datetime.now(dt.UTC)

    # Places and pages

    def _from(self, place: Place | None) -> Place | None:
        """Where the next run begins that has read up to `place`."""
        if place is None or not self.overlap_s or self.began is None:
            return place
        return earlier(place, (stamp_of(self.began - dt.timedelta(seconds=self.overlap_s)), ""))

    def _reached(self, state: State, place: Place) -> Place | None:
        """The same within a run that began at `all_changed`, which stays behind."""
        reached = self._from(place)
        return reached if state.all_changed is None or reached is None else max(reached, state.all_changed)

    def _page(self, objects: list[Object], state: State) -> Page:
        # Of a tombstone the values do not count.
        there = [
            {name: found.get(name) for name in (ID, *SYSTEM)} if found.get(DELETED) is True else found
            for found in objects
        ]
        rows = conformed(self.wire.table(there), page_schema(self.wire.schema))
        return Page(rows, None, state.checkpoint(), 0, 0)

    def _counted(self, page: Page) -> Page:
        requests, received = self.lists.tally.taken()
        return replace(page, requests=requests, bytes=received)

    def _leavers(self, ids: set[str]) -> pa.Table:
        keys = [self.wire.key_of(id_) for id_ in sorted(ids)]
        columns = self.wire.schema.key_columns
        return pa.table(
            {c.name: pa.array(part, c.arrow) for c, part in zip(columns, zip(*keys, strict=True), strict=True)}
        )


def keys(pull: PlainPull, state: State) -> Iterator[Page]:
    """Keys and versions of what is there, a page at a time; the last has the checkpoint from which to read on."""
    schema = pull.wire.schema.select(())
    wanted = page_schema(schema)
    pages = pull.lists.by_id(
        pull.table, where=pull.where, top=max(pull.page_rows, KEYS_TOP), select=(ID, VERSION),
        is_asked=pull.where is not None,
    )  # fmt: skip
    for page in pages:
        rows = conformed(Wire(schema, is_foreign=True).table(page.objects), wanted)
        yield pull._counted(Page(rows, None, _place(state), 0, 0))


def _place(state: State) -> Checkpoint:
    return replace(state, live=None).checkpoint()
