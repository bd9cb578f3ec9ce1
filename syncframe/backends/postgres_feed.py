"""What a pull of PostgreSQL reads: entries below the horizon in their order, then the tail above it.

Below the horizon all transactions have ended, so that nothing comes there any more and the checkpoint may move.
What is above it and committed is shown too, without moving the checkpoint, for one forgotten transaction anywhere
in the cluster holds the horizon back; it comes again with the next pull, and is recognised by its version.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from ..errors import CheckpointLost
from ..query import Query
from ..schema import Column
from .base import HELD, VERSION, Checkpoint, Page
from .decide import STATE, THERE
from .postgres_log import PostgresTable
from .sql_base import LAST_STAMP, SETTINGS, Session, Table, as_rows, ordered, settings_are_gone, state
from .sql_feed import MATCHES, Feed, changed_page, key_of, key_texts

XID, SEQ = "_syncframe_xid", "_syncframe_seq"
_PLACES = (Column(XID, "BIGINT"), Column(SEQ, "BIGINT"))
_HORIZON = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_NEXT = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


@dataclass(frozen=True, slots=True)
class Place:
    """What a checkpoint says: which cluster and log it is of, and the last entry that was read.

    A restored backup has another entry there, or none: its versions have a random part.
    """

    cluster: str
    incarnation: str
    xid: int = 0
    seq: int = 0
    version: str | None = None
    key: tuple[str, ...] = ()

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            json.dumps(["pg", self.cluster, self.incarnation, self.xid, self.seq, self.version, self.key])
        )

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Place:
        try:
            mark, cluster, incarnation, xid, seq, version, key = json.loads(checkpoint)
            place = cls(cluster, incarnation, xid, seq, version, tuple(key))
            place._check(mark)
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointLost(f"the checkpoint {checkpoint[:200]!r} is not of this back end") from error
        return place

    def _check(self, mark: object) -> None:
        """A checkpoint may come from anywhere."""
        texts = [self.cluster, self.incarnation, *self.key, *([] if self.version is None else [self.version])]
        numbers = [self.xid, self.seq]
        if (
            mark != "pg"
            or not all(type(n) is int and 0 <= n <= LAST_STAMP for n in numbers)
            or not all(isinstance(t, str) for t in texts)
        ):
            raise ValueError(self)


class PostgresFeed(Feed):
    """The half of the PostgreSQL back end that is pulled from."""

    def pull(self, table: str, query: Query, since: Checkpoint | None, others: Sequence[Query] = ()) -> Iterator[Page]:
        """Yield what changed after `since`, oldest change first; everything that is there if None.

        Where each part ends is fixed when it begins, so that a pull ends however much is written meanwhile.
        """
        with self.session() as session:
            described = self.describe(session, table)
            if described.tracked:
                asked = None if since is None else Place.of(since)
                place = (
                    self._start(session, described) if asked is None else self._resumed_at(session, described, asked)
                )
                horizon = self._horizon(session)
        if not described.tracked:
            yield from self._read_untracked(described, query, since)
            return
        if since is None:
            place = yield from self._read_below(described, query, place, horizon)
            with self.session() as session:
                horizon = self._horizon(session)  # it has gone on meanwhile
        yield from self._read_above(described, query, others, place, horizon, is_first=since is not None)

    @abstractmethod
    def describe(self, session: Session, name: str) -> PostgresTable:
        """How a table looks, with what is PostgreSQL's own."""

    @abstractmethod
    def streamed(
        self, table: Table, sql: str, parameters: Sequence[object], columns: Sequence[Column], rows: int
    ) -> Iterator[pa.Table]:
        """The rows of a query in pieces of about so many, read in one snapshot and never all held."""

    def _read_below(
        self, table: PostgresTable, query: Query, place: Place, horizon: int
    ) -> Generator[Page, None, Place]:
        """The rows that were last written below the horizon as it was when the pull began.

        What is written meanwhile moves above it, and comes as a change.
        """
        is_last = False
        while not is_last:
            entries = self._entries(table, query, place, horizon, live=True)
            is_last = len(entries) < query.page_rows
            if len(entries):
                place = self._last(table, entries, place)
            if is_last and place.xid < horizon - 1:
                # Nothing is left below; what was read last stays the probe.
                place = replace(place, xid=horizon - 1, seq=LAST_STAMP)
            yield changed_page(table, query, entries.filter(entries[THERE]), place.checkpoint())
        return place

    def _read_above(
        self,
        table: PostgresTable,
        query: Query,
        others: Sequence[Query],
        place: Place,
        horizon: int,
        *,
        is_first: bool,
    ) -> Iterator[Page]:
        """What changed up to the horizon, and then the tail."""
        is_last = False
        while not is_last:
            entries = self._entries(table, query, place, horizon, others)
            is_last = len(entries) < query.page_rows
            if len(entries) or is_first:
                place = self._last(table, entries, place) if len(entries) else place
                yield changed_page(table, query, entries, place.checkpoint())
            is_first = False
        yield from self._read_tail(table, query, others, place, horizon)

    def _read_tail(
        self, table: PostgresTable, query: Query, others: Sequence[Query], place: Place, horizon: int
    ) -> Iterator[Page]:
        after = replace(place, xid=max(horizon - 1, place.xid), seq=LAST_STAMP)
        with self.session() as session:
            following = self._following(session)
            is_last = after.xid >= following - 1
            held_back_s = None if is_last else self._held_back_s(session)
        while not is_last:
            entries = self._entries(table, query, after, following, others)
            is_last = len(entries) < query.page_rows
            if len(entries):
                after = self._last(table, entries, after)
                yield changed_page(table, query, entries, place.checkpoint(), held_back_s)

    def _entries(
        self,
        table: PostgresTable,
        query: Query,
        after: Place,
        until: int,
        others: Sequence[Query] = (),
        *,
        live: bool = False,
    ) -> pa.Table:
        """Log entries after a place and below a transaction, with their rows.

        Parameters
        ----------
        live
            Of matching rows that are there only; a condition is then asked before the page is counted.
        """
        schema = table.schema.select(query.columns or table.schema.names)
        matches, parameters = self.any_of(table, [query])
        held, held_parameters = self.any_of(table, others)
        with self.session() as session:
            # A page is few entries of many: their rows are looked up by key, whatever the planner thinks of it.
            session.execute(
                "select set_config('enable_' || way, 'off', true) from unnest(array['hashjoin', 'mergejoin']) as way"
            )
            between = f"(log.xid, log.seq) > ({after.xid}, {after.seq}) and log.xid < {until}"
            limit = f"order by log.xid, log.seq limit {int(query.page_rows)}"
            by_row = live and query.where is not None
            sql = f"""
                select {state(table)}, log.xid, log.seq, {matches}, {held}, {self.columns_of(table, schema, "log", "t")}
                from (
                    select * from {table.log} as log
                    where {between} {"and not deleted" if live else ""} {"" if by_row else limit}
                ) as log
                left join {table.sql} as t on {table.has_key_of("log")}
                where {f"{table.there} and {matches}" if by_row else "true"} {limit}
            """
            columns = [*STATE, *_PLACES, Column(MATCHES, "BOOLEAN"), Column(HELD, "BOOLEAN"), *ordered(schema)]
            bound = [*parameters, *held_parameters, *(parameters if by_row else [])]
            return session.select(table, sql, bound, columns)

    def _read_all(self, table: Table, query: Query) -> Iterator[Page]:
        """An untracked table, as it is at one moment."""
        schema = table.schema.select(query.columns or table.schema.names)
        matches, parameters = self.any_of(table, [query])
        sql = f"""
            select {state(table, self.hashed(table))}, {self.columns_of(table, schema, "t", "t")}
            from {table.sql} as t where {matches}
        """
        for rows in self.streamed(table, sql, parameters, [*STATE, *ordered(schema)], query.page_rows):
            yield Page(as_rows(rows, schema), bytes=rows.nbytes)

    # Checkpoints

    def _start(self, session: Session, table: PostgresTable) -> Place:
        """Before all entries; until one is read, the newest that is finished is what is looked for again."""
        incarnation, _ = self._log_settings(session, table)
        place = Place(self._cluster(session), incarnation)
        keys = ", ".join(self.cell(table, name, f"log.{key}") for name, key in table.key_pairs)
        sql = f"""
            select log.xid, log.seq, log.version, {keys}
            from {table.log} as log where log.xid < {_HORIZON} order by log.xid desc, log.seq desc limit 1
        """
        columns = [*_PLACES, Column(VERSION, "VARCHAR"), *table.schema.key_columns]
        newest = session.select(table, sql, [], columns)
        return replace(self._last(table, newest, place), xid=0, seq=0) if len(newest) else place

    def _cluster(self, session: Session) -> str:
        """The cluster and its timeline, which a restore to a point in time or a promoted replica begins anew."""
        ((cluster,),) = session.values(
            """
            select (select system_identifier from pg_control_system())::text || ':' ||
                (select timeline_id from pg_control_checkpoint())
            """
        )
        return str(cluster)

    def _log_settings(self, session: Session, table: PostgresTable) -> tuple[str, int]:
        rows = session.values(f"select incarnation, purged from {SETTINGS} where name = ?", [table.entry])
        if not rows:
            raise settings_are_gone(table)
        return str(rows[0][0]), int(str(rows[0][1]))

    def _horizon(self, session: Session) -> int:
        ((horizon,),) = session.values(f"select {_HORIZON}")
        return int(str(horizon))

    def _resumed_at(self, session: Session, table: PostgresTable, place: Place) -> Place:
        """The place itself, if what was read there is still there or was written again since."""
        what = f"table {table.name!r}"
        incarnation, purged = self._log_settings(session, table)
        if place.cluster != self._cluster(session):
            raise CheckpointLost(f"{what} is in another cluster, or one restored or promoted, since the last pull")
        if place.incarnation != incarnation:
            raise CheckpointLost(f"{what} has a new change log since the last pull")
        if place.xid < purged:
            raise CheckpointLost(f"{what} has forgotten rows that were deleted since the last pull")
        following, ((is_replica,),) = self._following(session), session.values("select pg_is_in_recovery()")
        if place.xid >= following and is_replica:
            # A replica that lags: nothing comes until it has caught up.
            return place
        if place.xid >= following or not self._is_held(session, table, place):
            raise CheckpointLost(f"{what} is not where the last pull left it, as after a restored backup")
        return place

    def _is_held(self, session: Session, table: PostgresTable, place: Place) -> bool:
        if place.version is None:
            return True
        keys = key_of(table, place.key)
        if keys is None:
            return False
        asked, parameters = session.keys(table, keys)
        found = session.values(
            f"select log.xid, log.version from {table.log} as log, {asked} as k where {table.logs_key_of('k')}",
            parameters,
        )
        return bool(found) and (found[0][1] == place.version or int(str(found[0][0])) > place.xid)

    def _last(self, table: PostgresTable, entries: pa.Table, place: Place) -> Place:
        last = entries.slice(len(entries) - 1)
        xid, seq, version = (last[name][0].as_py() for name in (XID, SEQ, VERSION))
        return replace(place, xid=xid, seq=seq, version=version, key=key_texts(table, last))

    def _following(self, session: Session) -> int:
        """The transaction after the last that is seen."""
        ((following,),) = session.values(f"select {_NEXT}")
        return int(str(following))

    def _held_back_s(self, session: Session) -> float | None:
        """How old the oldest transaction is that writes; of other roles' one may not be told."""
        ((age,),) = session.values(
            """
            select cast(extract(epoch from clock_timestamp() - min(begun)) as double precision) from (
                select xact_start as begun from pg_stat_activity where backend_xid is not null
                union all select prepared from pg_prepared_xacts
            ) as open
            """
        )
        return None if age is None else float(str(age))
