"""What a pull reads: the change log from a checkpoint on, or an untracked table in full."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import CheckpointLost
from ..query import Query
from ..schema import Column, quote
from ..texts import parsed, written
from .base import HELD, VERSION, Checkpoint, Page
from .decide import PLACE, STATE, THERE
from .sql_base import (
    LAST_STAMP,
    SETTINGS,
    Database,
    Session,
    Table,
    as_rows,
    ordered,
    settings_are_gone,
    state,
)

MATCHES = "_syncframe_matches"


@dataclass(frozen=True, slots=True)
class Place:
    """What a checkpoint says: the last log entry that was read, so that it can be looked for again.

    A restored backup has another entry at that stamp, or none: its versions have a random part.
    """

    incarnation: str
    stamp: int
    version: str | None = None
    key: tuple[str, ...] = ()

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(json.dumps([self.incarnation, self.stamp, self.version, self.key]))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Place:
        try:
            incarnation, stamp, version, key = json.loads(checkpoint)
            place = cls(incarnation, stamp, version, tuple(key))
            place._check()
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointLost(f"the checkpoint {checkpoint[:200]!r} is not of this back end") from error
        return place

    def _check(self) -> None:
        """A checkpoint may come from anywhere."""
        texts = [self.incarnation, *self.key, *([] if self.version is None else [self.version])]
        if (
            type(self.stamp) is not int
            or not 0 <= self.stamp <= LAST_STAMP
            or not all(isinstance(t, str) for t in texts)
        ):
            raise ValueError(self)


class Feed(Database):
    """The half of a SQL back end that is pulled from."""

    def pull(self, table: str, query: Query, since: Checkpoint | None, others: Sequence[Query] = ()) -> Iterator[Page]:
        """Yield what changed after `since`, oldest change first; everything that is there if None.

        Each page is read in a short transaction of its own, so that writers go on between pages.
        """
        with self.session() as session:
            described = self.describe(session, table)
            if not described.tracked:
                place = None
            elif since is None:
                place = self._top(session, described)
            else:
                place = self._resumed(session, described, Place.of(since))
        if place is None:
            yield from self._read_untracked(described, query, since)
            return
        if since is None:
            yield from self._read_live(described, query, place)
        yield from self._read_changes(described, query, others, place, is_first=since is not None)

    def _read_live(self, table: Table, query: Query, top: Place) -> Iterator[Page]:
        """The rows that were last written up to `top`.

        What is written meanwhile moves above it, and comes as a change: so a row that is deleted after
        its page was read still gets its tombstone.
        """
        place, is_last = replace(top, stamp=0), False
        while not is_last:
            entries = self._page(table, query, place.stamp, top.stamp)
            is_last = len(entries) < query.page_rows
            place = top if is_last else _last_place(table, entries, place.incarnation)
            yield changed_page(table, query, entries.filter(entries[THERE]), place.checkpoint())

    def _read_changes(
        self, table: Table, query: Query, others: Sequence[Query], place: Place, *, is_first: bool
    ) -> Iterator[Page]:
        is_last = False
        while not is_last:
            entries = self._page(table, query, place.stamp, LAST_STAMP, others)
            is_last = len(entries) < query.page_rows
            if len(entries) or is_first:
                place = _last_place(table, entries, place.incarnation) if len(entries) else place
                yield changed_page(table, query, entries, place.checkpoint())
            is_first = False

    def _page(
        self, table: Table, query: Query, after: int, until: int, others: Sequence[Query] | None = None
    ) -> pa.Table:
        """Log entries in the order of their stamps, with their rows; without `others`, of matching rows only."""
        schema = table.schema.select(query.columns or table.schema.names)
        matches, parameters = self.any_of(table, [query])
        if others is None and query.where is not None:
            states, wanted = "true, false", f"log.stamp <= ? and {table.there} and {matches}"
            parameters = [after, until, *parameters]
        else:
            held, held_parameters = self.any_of(table, others or ())
            states = f"{matches}, {held}"
            # Where the page ends is known before the join, which would else be one of whole tables.
            wanted = f"""
                log.stamp <= (
                    select max(stamp) from (
                        select stamp from {table.log}
                        where stamp > ? and stamp <= ? order by stamp limit {int(query.page_rows)}
                    ) as page
                )
            """
            parameters = [*parameters, *held_parameters, after, after, until]
        sql = f"""
            select {state(table)}, {states}, {self.columns_of(table, schema, "log", "t")}
            from {table.log} as log left join {table.sql} as t on {table.has_key_of("log")}
            where log.stamp > ? and {wanted}
            order by log.stamp
            limit {int(query.page_rows)}
        """
        columns = [*STATE, Column(MATCHES, "BOOLEAN"), Column(HELD, "BOOLEAN"), *ordered(schema)]
        with self.session() as session:
            return session.select(table, sql, parameters, columns)

    def _read_untracked(self, table: Table, query: Query, since: Checkpoint | None) -> Iterator[Page]:
        if since is not None:
            raise CheckpointLost(f"table {table.name!r} is not tracked any more")
        yield from self._read_all(table, query)

    def _read_all(self, table: Table, query: Query) -> Iterator[Page]:
        """An untracked table, in the order of its key."""
        schema = table.schema.select(query.columns or table.schema.names)
        matches, parameters = self.any_of(table, [query])
        order = ", ".join(f"t.{quote(name)}" for name in schema.key)
        last: pa.Table | None = None
        is_last = False
        while not is_last:
            with self.session() as session:
                after, after_parameters = _after(session, table, last)
                # Hashes are made of a page's rows only.
                sql = f"""
                    select {state(table, self.hashed(table))}, {self.columns_of(table, schema, "t", "t")}
                    from (
                        select {table.whole} from {table.sql} as t
                        where {matches} and {after}
                        order by {order}
                        limit {int(query.page_rows)}
                    ) as t
                    order by {order}
                """
                rows = session.select(table, sql, [*parameters, *after_parameters], [*STATE, *ordered(schema)])
            is_last = len(rows) < query.page_rows
            if len(rows) or last is None:
                yield Page(as_rows(rows, schema), bytes=rows.nbytes)
            last = rows

    # Checkpoints

    def _top(self, session: Session, table: Table) -> Place:
        """The newest entry of the log."""
        sql = f"""
            select log.stamp, log.version, {", ".join(f"log.{key}" for key in table.keys)}
            from {table.log} as log
            where log.stamp = (select max(stamp) from {table.log})
        """
        columns = [Column(PLACE, "BIGINT"), Column(VERSION, "VARCHAR"), *table.schema.key_columns]
        entries = session.select(table, sql, [], columns)
        incarnation = self._settings(session, table)[0]
        return _last_place(table, entries, incarnation) if len(entries) else Place(incarnation, 0)

    def _resumed(self, session: Session, table: Table, place: Place) -> Place:
        """The place itself, if what was read there is still there or was written again since."""
        incarnation, purged, version = self._settings(session, table, place.stamp)
        if incarnation != place.incarnation:
            raise CheckpointLost(f"table {table.name!r} has a new change log since the last pull")
        if place.stamp < purged:
            raise CheckpointLost(f"table {table.name!r} has forgotten rows that were deleted since the last pull")
        if version != place.version and not self._was_rewritten(session, table, place):
            raise CheckpointLost(f"table {table.name!r} is not where the last pull left it, as after a restored backup")
        return place

    def _was_rewritten(self, session: Session, table: Table, place: Place) -> bool:
        keys = key_of(table, place.key)
        if keys is None:
            return False
        stamp = self.lookup(session, table, keys)[PLACE][0].as_py()
        return stamp is not None and stamp > place.stamp

    def _settings(self, session: Session, table: Table, stamp: int = 0) -> tuple[str, int, str | None]:
        """The log's incarnation, up to where it was purged, and the version of its entry at `stamp`."""
        rows = session.values(
            f"""
            select incarnation, purged, (select version from {table.log} where stamp = ?)
            from {SETTINGS} where name = ?
            """,
            [stamp, table.entry],
        )
        if not rows:
            raise settings_are_gone(table)
        incarnation, purged, version = rows[0]
        return str(incarnation), int(str(purged)), None if version is None else str(version)


def _after(session: Session, table: Table, last: pa.Table | None) -> tuple[str, list[object]]:
    """The condition that a row's key comes after the last one's."""
    if last is None:
        return "true", []
    bound = [session.bind(c, last[c.name][-1], table.declared[c.name]) for c in table.schema.key_columns]
    names = ", ".join(f"t.{quote(name)}" for name in table.schema.key)
    return f"({names}) > ({', '.join(placeholder for placeholder, _ in bound)})", [value for _, value in bound]


def _last_place(table: Table, entries: pa.Table, incarnation: str) -> Place:
    last = entries.slice(len(entries) - 1)
    return Place(incarnation, last[PLACE][0].as_py(), last[VERSION][0].as_py(), key_texts(table, last))


def key_texts(table: Table, entry: pa.Table) -> tuple[str, ...]:
    """The key of one entry, as a checkpoint has it."""
    return tuple(str(written(entry[c.name], c)[0]) for c in table.schema.key_columns)


def key_of(table: Table, texts: Sequence[str]) -> pa.Table | None:
    """The key that a checkpoint has, to be asked for; None: it is one of something else."""
    try:
        columns = zip(table.schema.key_columns, texts, strict=True)
        return pa.table({f"k_{c.name}": parsed([text], c) for c, text in columns})
    except (ValueError, pa.ArrowException):
        return None


def changed_page(
    table: Table, query: Query, entries: pa.Table, checkpoint: Checkpoint, held_back_s: float | None = None
) -> Page:
    """Log entries and their rows, of which those that do not match leave."""
    schema = table.schema.select(query.columns or table.schema.names)
    leaves = pc.and_(entries[THERE], pc.invert(entries[MATCHES]))
    leavers = entries.filter(leaves).select([*schema.key, HELD])
    rows = as_rows(entries.filter(pc.invert(leaves)), schema)
    left = leavers if len(leavers) else None
    return Page(rows, left, checkpoint, bytes=entries.nbytes, held_back_s=held_back_s)
