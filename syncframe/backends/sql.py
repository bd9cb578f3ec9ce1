"""What the back ends on a SQL database share: the feed of a change log, and batches settled as sets.

A tracked table has a change log beside it, one entry for each key that is there or was: its stamp
rises with every write, so that what changed after a checkpoint is a range of it, and its version is
the row's.  The table itself gets nothing added.  An untracked table is read in full each time, and
its rows' versions are hashes of what they hold.

A database brings a Session (an open transaction) and says how its tables look, how a log is made,
and what is to be recorded after a batch was applied; statements here are in the SQL that all of
them understand.  Aliases: `t` the table, `log` its log, `k` the keys that are asked for, `b` the
batch that is applied.  Logs, keys and batches have a key's columns as `k_<name>`, as Operations do.
"""

from __future__ import annotations

import datetime
import json
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BackendError, CheckpointLost, QueryError, SchemaError
from ..operation import Refusal
from ..query import Call, Condition, Literal, Node, Order, Query, Read
from ..query import Column as Named
from ..schema import RESERVED_PREFIX, Column, Schema, quote, shown
from ..texts import parsed, written
from .base import DELETED, HELD, OPERATION, VERSION, Checkpoint, Operations, Outcomes, Page, Promises, page_schema
from .decide import PLACE, STATE, THERE, conformed, outcomes, rejected, runs, verdicts, with_operation

L = TypeVar("L")
PUSH_ROWS = 10_000  # operations of one transaction
KEYS, BATCH, MATCHES = "_syncframe_keys", "_syncframe_batch", "_syncframe_matches"
SETTINGS = "_syncframe_settings"
LAST_STAMP = 2**63 - 1
MILLISECOND = datetime.timedelta(milliseconds=1)
DATABASE = ""  # the settings row whose incarnation names the database itself

_SYSTEM = {
    "createdAt": "log.created_at",
    "updatedAt": "log.updated_at",
    "version": "log.version",
    "deleted": "log.deleted",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table as its database describes it.

    Parameters
    ----------
    declared
        The columns' types in the database's own words.
    collated
        Key columns of which the database holds some that differ to be equal.
    texts
        Columns of numbers that are held as text.
    """

    name: str
    schema: Schema
    declared: Mapping[str, str]
    tracked: bool
    collated: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    @property
    def log(self) -> str:
        return quote(f"_syncframe_log_{self.name}")

    @property
    def keys(self) -> list[str]:
        """The key's columns in a log, as SQL."""
        return [quote(f"k_{name}") for name in self.schema.key]

    @property
    def there(self) -> str:
        return f"t.{quote(self.schema.key[0])} is not null"

    def has_key_of(self, other: str) -> str:
        """The condition that a row of the table has the key that `other` names."""
        pairs = {name: f"t.{quote(name)} = {other}.{quote(f'k_{name}')}" for name in self.schema.key}
        # The first terms are for the index, whose collation is the column's; these are for the truth.
        exact = [f"{pair} collate binary" for name, pair in pairs.items() if name in self.collated]
        return " and ".join([*pairs.values(), *exact])

    def logs_key_of(self, other: str) -> str:
        return " and ".join(f"log.{key} = {other}.{key}" for key in self.keys)


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to which stamp a log's `updatedAt` are published, the last of them in ms since 1970, and its newest stamp."""

    published: int
    last_ms: int
    newest: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows a read finds, as SQL.

    Parameters
    ----------
    found
        The tables that the condition and the order ask: `t`, `log`, or both of them joined.
    alias
        The one, if only one is asked.
    joined
        How the other one is joined to the rows that were found.
    """

    found: str
    alias: str
    joined: str
    where: str
    parameters: list[object]
    order: str


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


class Turns(Generic[L]):
    """A lock for each file, which all back ends on it in this process share."""

    def __init__(self, lock: Callable[[], L]) -> None:
        self._locks: defaultdict[Path, L] = defaultdict(lock)
        self._lock = threading.Lock()

    def of(self, path: Path) -> L:
        resolved = path.resolve()
        # Two threads that come first at one time would each make a lock of their own.
        with self._lock:
            return self._locks[resolved]


class Refused(Exception):
    """The database refused, and the transaction cannot go on."""

    def __init__(self, refusal: Refusal, positions: Sequence[int] = ()) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.positions = positions


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch as it was decided: what is there now, and the statements that apply it, with their operations' places."""

    batch: Operations
    table: Table
    keys: pa.Table
    now: pa.Table
    verdict: pa.Array
    statements: list[tuple[str, list[int]]]


class _TakenBack(Exception):
    """Not everything of an atomic push was accepted; unwinds its transaction."""


class Session(ABC):
    """An open transaction."""

    @abstractmethod
    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        """Run a statement whose result does not matter."""

    @abstractmethod
    def select(self, table: Table, sql: str, parameters: Sequence[object], columns: Sequence[Column]) -> pa.Table:
        """Return the rows of a query on `table` in the types of `columns`, which are in the query's order."""

    @abstractmethod
    def values(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Return the rows of a query of numbers and texts."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all tables, sorted, syncframe's own among them."""

    @abstractmethod
    def load(self, name: str, table: Table, rows: pa.Table) -> None:
        """Make a temporary table of `rows`: `position`, a key as `k_<name>`, values as `l_<name>`, and texts."""

    @abstractmethod
    def attempt(self, sql: str, positions: Sequence[int]) -> dict[int, Refusal]:
        """Run a statement on the batch between two positions, and return what was refused of it.

        Raises Refused where the database gives up the whole transaction.
        """

    @abstractmethod
    def bind(self, column: Column, value: pa.Scalar, declared: str) -> tuple[str, object]:
        """A value as a placeholder and its parameter."""


@dataclass
class SqlBackend(ABC):
    """A SQL database as a back end; `statements` counts what it was asked."""

    promises: Promises = field(default=Promises(atomic_push=True), init=False)
    statements: int = field(default=0, init=False)

    # What a database brings

    @abstractmethod
    def session(self, *, write: bool = False) -> AbstractContextManager[Session]:
        """Open a transaction, commit it at the end, and translate the driver's exceptions.

        Raises Refused if the database will not commit what it took before.
        """

    @abstractmethod
    def describe(self, session: Session, name: str) -> Table:
        """Return how a table looks; BackendError with status 404 if there is none of that name."""

    @abstractmethod
    def place_of_file(self) -> str:
        """Return what identifies an untracked database."""

    @abstractmethod
    def condition(self, condition: Condition, table: Table, column: Callable[[str], str]) -> tuple[str, list[object]]:
        """Render a condition with placeholders."""

    @abstractmethod
    def hashed(self, table: Table) -> str:
        """The version of an untracked row, as SQL over all its columns."""

    @abstractmethod
    def record(self, session: Session, table: Table) -> None:
        """Enter the batch, as it was applied, in the log: operation ids, and what triggers have not written."""

    @abstractmethod
    def track_statements(self, session: Session, table: Table) -> list[str]:
        """The SQL that makes a log, or mends one."""

    @abstractmethod
    def untrack_statements(self, session: Session, table: Table) -> list[str]:
        """The SQL that removes a table's log."""

    @abstractmethod
    def past(self, table: Table, column: Column) -> str:
        """The last value of a row that is gone, as SQL of the log's image."""

    @abstractmethod
    def sortable(self, table: Table, column: Column, sql: str) -> str:
        """A column's SQL in a form that the database sorts as its values are."""

    @abstractmethod
    def stamp_since(self, session: Session, table: Table, moment: datetime.datetime, until: int) -> int:
        """The first stamp up to `until` whose `updatedAt`, which rise with the stamps, is `moment` or later."""

    @abstractmethod
    def settings_statements(self, session: Session) -> list[str]:
        """The SQL that makes the settings, or adds what an earlier version had not."""

    @abstractmethod
    def milliseconds(self, moment: str) -> str:
        """A time of the log as whole milliseconds since 1970, none earlier than it, as SQL."""

    @abstractmethod
    def publish_statement(self, table: Table) -> str:
        """The SQL that gives the entries above a stamp the milliseconds from one on: parameters (ms, stamp)."""

    # Tables

    def tables(self) -> list[str]:
        """The names of the tables, syncframe's own left out."""
        with self.session() as session:
            return [name for name in session.names() if not name.lower().startswith(RESERVED_PREFIX)]

    def schema(self, table: str) -> Schema:
        """Return the table's columns and key.

        Raises
        ------
        BackendError
            With status 404 if there is no such table.
        SchemaError
            If it has no primary key, or a column of a type that cannot be kept exactly.
        """
        with self.session() as session:
            return self.describe(session, table).schema

    def identity(self) -> str:
        """What this database is, wherever it stands: of a tracked one its log's own name, else its place."""
        with self.session() as session:
            if SETTINGS not in session.names():
                return self.place_of_file()
            rows = session.values(f"select incarnation from {SETTINGS} where name = ?", [DATABASE])
            return str(rows[0][0]) if rows else self.place_of_file()

    def aliases(self) -> list[str]:
        """What this database was called before one of its tables was tracked."""
        return [self.place_of_file()]

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""

    # Tracking

    def is_tracked(self, table: str) -> bool:
        with self.session() as session:
            return self.describe(session, table).tracked

    def track_sql(self, table: str) -> list[str]:
        """The statements that `track` would run."""
        with self.session() as session:
            return self.track_statements(session, self.describe(session, table))

    def untrack_sql(self, table: str) -> list[str]:
        """The statements that `untrack` would run."""
        with self.session() as session:
            return self.untrack_statements(session, self.describe(session, table))

    def track(self, tables: Iterable[str]) -> None:
        """Add what incremental pulls and tombstones need; again on a tracked table, it mends what is missing."""
        self._alter(tables, self.track_statements)

    def untrack(self, tables: Iterable[str]) -> None:
        """Remove all that `track` added."""
        self._alter(tables, self.untrack_statements)

    def _alter(self, tables: Iterable[str], statements: Callable[[Session, Table], list[str]]) -> None:
        with self.session(write=True) as session:
            for name in tables:
                for sql in statements(session, self.describe(session, name)):
                    session.execute(sql)

    def purge_deleted(self, keep_days: float = 90, *, now: datetime.datetime | None = None) -> int:
        """Forget rows that were deleted more than `keep_days` ago, and return how many.

        Checkpoints from before what is forgotten are lost.  The newest entry of a log stays, so that
        stamps go on rising and the checkpoint of a client that has seen everything keeps its probe.
        """
        moment = (now or datetime.datetime.now(datetime.UTC)) - datetime.timedelta(days=keep_days)
        with self.session(write=True) as session:
            present = {*session.names()}
            if SETTINGS not in present:
                return 0
            logged = session.values(f"select name from {SETTINGS} where name <> ?", [DATABASE])
            tables = [self.describe(session, str(name)) for (name,) in logged if name in present]
            return sum(self._purge(session, table, moment) for table in tables if table.tracked)

    def _purge(self, session: Session, table: Table, moment: datetime.datetime) -> int:
        updated = Column("updated_at", "TIMESTAMPTZ")
        placeholder, value = session.bind(updated, pa.scalar(moment, updated.arrow), updated.type)
        forgotten = f"""
            from {table.log} where deleted and updated_at <= {placeholder}
            and stamp < (select max(stamp) from {table.log})
        """
        ((stamp, count),) = session.values(f"select coalesce(max(stamp), 0), count(*) {forgotten}", [value])
        session.execute(f"delete {forgotten}", [value])
        session.execute(f"update {SETTINGS} set purged = ? where name = ? and purged < ?", [stamp, table.name, stamp])
        return int(str(count))

    # Pull

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
            yield from self._read_all(described, query)
            return
        if since is None:
            yield from self._read_live(described, query, place)
        yield from self._read_changes(described, query, others, place, is_first=since is not None)

    def rows(self, table: str, keys: pa.Table) -> pa.Table:
        """Return the rows of these keys, tombstones included where they are known; others are left out."""
        with self.session() as session:
            described = self.describe(session, table)
            schema = described.schema
            wanted = keys.select(list(schema.key)).rename_columns([f"k_{name}" for name in schema.key])
            found = self._lookup(session, described, wanted, past=True)
        known = pc.or_(found[THERE], pc.is_valid(found[VERSION]))
        for name in schema.key:
            found = found.append_column(name, keys[name])
        return _as_rows(found.filter(known), schema)

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
            yield _page(table, query, entries.filter(entries[THERE]), place)

    def _read_changes(
        self, table: Table, query: Query, others: Sequence[Query], place: Place, *, is_first: bool
    ) -> Iterator[Page]:
        is_last = False
        while not is_last:
            entries = self._page(table, query, place.stamp, LAST_STAMP, others)
            is_last = len(entries) < query.page_rows
            if len(entries) or is_first:
                place = _last_place(table, entries, place.incarnation) if len(entries) else place
                yield _page(table, query, entries, place)
            is_first = False

    def _page(
        self, table: Table, query: Query, after: int, until: int, others: Sequence[Query] | None = None
    ) -> pa.Table:
        """Log entries in the order of their stamps, with their rows; without `others`, of matching rows only."""
        schema = table.schema.select(query.columns or table.schema.names)
        matches, parameters = self._any(table, [query])
        if others is None and query.where is not None:
            states, wanted = "true, false", f"log.stamp <= ? and {table.there} and {matches}"
            parameters = [after, until, *parameters]
        else:
            held, held_parameters = self._any(table, others or ())
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
            select {_state(table)}, {states}, {_columns(schema, "log", "t")}
            from {table.log} as log left join {quote(table.name)} as t on {table.has_key_of("log")}
            where log.stamp > ? and {wanted}
            order by log.stamp
            limit {int(query.page_rows)}
        """
        columns = [*STATE, Column(MATCHES, "BOOLEAN"), Column(HELD, "BOOLEAN"), *_ordered(schema)]
        with self.session() as session:
            return session.select(table, sql, parameters, columns)

    def _read_all(self, table: Table, query: Query) -> Iterator[Page]:
        """An untracked table, in the order of its key."""
        schema = table.schema.select(query.columns or table.schema.names)
        matches, parameters = self._any(table, [query])
        order = ", ".join(f"t.{quote(name)}" for name in schema.key)
        last: pa.Table | None = None
        is_last = False
        while not is_last:
            with self.session() as session:
                after, after_parameters = _after(session, table, last)
                # Hashes are made of a page's rows only.
                sql = f"""
                    select {_state(table, self.hashed(table))}, {_columns(schema, "t", "t")}
                    from (
                        select * from {quote(table.name)} as t
                        where {matches} and {after}
                        order by {order}
                        limit {int(query.page_rows)}
                    ) as t
                    order by {order}
                """
                rows = session.select(table, sql, [*parameters, *after_parameters], [*STATE, *_ordered(schema)])
            is_last = len(rows) < query.page_rows
            if len(rows) or last is None:
                yield Page(_as_rows(rows, schema), bytes=rows.nbytes)
            last = rows

    def _any(self, table: Table, queries: Sequence[Query]) -> tuple[str, list[object]]:
        """Whether a row matches one of the queries, as SQL that is never NULL."""
        texts, parameters = ["false"], []
        for query in queries:
            if query.where is None:
                return "true", []
            text, bound = self.condition(query.where, table, self._names(table))
            texts.append(f"coalesce({text}, false)")
            parameters += bound
        return f"({' or '.join(texts)})", parameters

    def _names(self, table: Table, *, log: bool = False, past: bool = False) -> Callable[[str], str]:
        """How a statement names columns: with `log` the key is the log's, with `past` a row that is gone has values."""

        def column(name: str) -> str:
            if name in table.schema.key and log:
                return f"log.{quote(f'k_{name}')}"
            if name in table.schema:
                held = f"t.{quote(name)}"
                if not past or name in table.schema.key:
                    return held
                return f"case when {table.there} then {held} else {self.past(table, table.schema[name])} end"
            if name not in _SYSTEM:
                raise QueryError(
                    f"table {table.name!r} has no column {name!r}", hint=f"it has {shown(table.schema.names)}"
                )
            if not table.tracked:
                raise QueryError(
                    f"{name!r} cannot be asked for: table {table.name!r} is not tracked",
                    hint="`syncframe track` adds what keeps it",
                )
            return _SYSTEM[name]

        return column

    # Read

    def read(self, table: str, read: Read) -> pa.Table:
        """Return rows as in a page, sorted by `order_by` and then by the key, in one transaction.

        NULLs come before all values, and last where the order is descending; texts are sorted by their bytes.
        A tombstone has the last values of its row; of what is not known of them, because a column came
        later or a value does not fit its type, NULL.

        Raises
        ------
        QueryError
            If a column is unknown, or a system column of a table that is not tracked.
        """
        with self.session() as session:
            described = self.describe(session, table)
            schema = described.schema.select(described.schema.names if read.columns is None else read.columns)
            selection = self._selection(session, described, read)
            found = f"from {selection.found} where {selection.where} order by {selection.order} {_limit(read)}"
            if alias := selection.alias:
                found = f"from (select {alias}.* {found}) as {alias} {selection.joined} order by {selection.order}"
            past = read.include_deleted and described.tracked
            named = self._names(described, log=past, past=past)
            sql = f"""
                select {_state(described, self.hashed(described))}, {", ".join(named(c.name) for c in _ordered(schema))}
                {found}
            """
            rows = session.select(described, sql, selection.parameters, [*STATE, *_ordered(schema)])
        return _as_rows(rows, schema)

    def count(self, table: str, read: Read) -> int:
        """How many rows match, `limit` and `offset` left out of account."""
        with self.session() as session:
            selection = self._selection(session, self.describe(session, table), read)
            sql = f"select count(*) from {selection.found} where {selection.where}"
            ((count,),) = session.values(sql, selection.parameters)
        return int(str(count))

    def _selection(self, session: Session, table: Table, read: Read) -> Selection:
        """Ask only the tables that the condition and the order need: the others are joined to a page, not to all."""
        past = read.include_deleted and table.tracked
        asked = {*(read.where.columns if read.where else ()), *(order.column for order in read.order_by)}
        wanted, bound = self._published(session, table, read)
        asks_table = not asked.isdisjoint(table.schema.values)
        asks_log = table.tracked and (past or bool(wanted) or not asked.issubset(table.schema.names))
        name, log, same = f"{quote(table.name)} as t", f"{table.log} as log", table.has_key_of("log")
        by_stamp = _is_by_stamp(table, read)
        if asks_log and asks_table:
            alias, joined = "", ""
            found = f"{log} left join {name} on {same}"
            if not past:
                # The first of a cross join is the outer one, so that entries come in the order of their stamps.
                found = f"{log} cross join {name}" if by_stamp else f"{log}, {name}"
                wanted = [same, *wanted]
        elif asks_log:
            alias, found, joined = "log", log, f"left join {name} on {same}"
            wanted = wanted if past else ["not log.deleted", *wanted]
        else:
            alias, found, joined = "t", name, f"left join {log} on {same}" if table.tracked else ""
        named = self._names(table, log=past or alias == "log", past=past)
        text, parameters = ("true", []) if read.where is None else self.condition(read.where, table, named)
        order = self._order(table, read, named)
        return Selection(found, alias, joined, " and ".join([*wanted, text]), [*bound, *parameters], order)

    def _order(self, table: Table, read: Read, named: Callable[[str], str]) -> str:
        if _is_by_stamp(table, read):
            # Published `updatedAt` rise with the stamps, in whose order the entries lie.
            return f"log.stamp {_direction(read.order_by[0])}"
        terms = [*read.order_by, *map(Order, table.schema.key)]
        return ", ".join(f"{self._sorted(table, term.column, named)} {_direction(term)}" for term in terms)

    def _sorted(self, table: Table, name: str, named: Callable[[str], str]) -> str:
        sql = named(name)
        return self.sortable(table, table.schema[name], sql) if name in table.schema else sql

    def _published(self, session: Session, table: Table, read: Read) -> tuple[list[str], list[object]]:
        """What a read of published rows asks of their stamps: up to the mark, and where its `updatedAt` lie."""
        if not (read.published and table.tracked):
            return [], []
        mark = self._mark(session, table)
        wanted: list[str] = []
        bound: list[object] = []
        if mark.newest > mark.published:
            wanted, bound = ["log.stamp <= ?"], [mark.published]
        if read.where is not None and "updatedAt" not in table.schema:
            low, high = edge(read.where.tree, "updatedAt", low=True), edge(read.where.tree, "updatedAt", low=False)
            if low is not None:
                wanted.append("log.stamp >= ?")
                bound.append(self.stamp_since(session, table, low, mark.published))
            if high is not None:
                wanted.append("log.stamp < ?")
                bound.append(self.stamp_since(session, table, _just_after(high), mark.published))
        return wanted, bound

    # Publish

    def publish(self, table: str, *, now: datetime.datetime | None = None) -> None:
        """Give the log's entries that have none yet their final `updatedAt`, in the order in which they were committed.

        They are whole milliseconds, unique and rising with the stamps, and none lies before the time of its
        write, which may have been shown as a provisional `updatedAt`: so a client that asks for what is newer
        than the last it saw misses nothing.  What changed since is left out by `Read(published=True)`.  Rows
        that are written faster than one a millisecond run ahead of the clock by as much.
        Versions stay.  If nothing is new, nothing is written.
        """
        with self.session() as session:
            described = self.describe(session, table)
            if not described.tracked or _is_published(self._mark(session, described)):
                return
        with self.session(write=True) as session:
            described = self.describe(session, table)
            if not described.tracked:
                return
            for sql in self.settings_statements(session):
                session.execute(sql)
            mark = self._mark(session, described)
            # Another one may have done it meanwhile.
            if not _is_published(mark):
                self._publish(session, described, mark, now or datetime.datetime.now(datetime.UTC))

    def _publish(self, session: Session, table: Table, mark: Mark, now: datetime.datetime) -> None:
        ((found,),) = session.values(f"select count(*) from {table.log} where stamp > ?", [mark.published])
        count = int(str(found))
        first = max(mark.last_ms + 1, (now - _EPOCH) // MILLISECOND - (count - 1))
        session.execute(self.publish_statement(table), [first, mark.published])
        written = self.milliseconds("updated_at")
        ((last,),) = session.values(f"select {written} from {table.log} where stamp = ?", [mark.newest])
        session.execute(
            f"update {SETTINGS} set published = ?, published_ms = ? where name = ?",
            [mark.newest, last, table.name],
        )

    def _mark(self, session: Session, table: Table) -> Mark:
        rows = session.values(f"select * from {SETTINGS} where name = ?", [table.name])
        if not rows:
            raise _settings_are_gone(table)
        ((newest,),) = session.values(f"select coalesce(max(stamp), 0) from {table.log}")
        # An earlier version's settings have three columns.
        published, last_ms = rows[0][3:5] or (0, 0)
        return Mark(int(str(published)), int(str(last_ms)), int(str(newest)))

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
        try:
            columns = zip(table.schema.key_columns, place.key, strict=True)
            keys = {f"k_{c.name}": parsed([text], c) for c, text in columns}
        except (ValueError, pa.ArrowException):  # a key of something else
            return False
        stamp = self._lookup(session, table, pa.table(keys))[PLACE][0].as_py()
        return stamp is not None and stamp > place.stamp

    def _settings(self, session: Session, table: Table, stamp: int = 0) -> tuple[str, int, str | None]:
        """The log's incarnation, up to where it was purged, and the version of its entry at `stamp`."""
        rows = session.values(
            f"""
            select incarnation, purged, (select version from {table.log} where stamp = ?)
            from {SETTINGS} where name = ?
            """,
            [stamp, table.name],
        )
        if not rows:
            raise _settings_are_gone(table)
        incarnation, purged, version = rows[0]
        return str(incarnation), int(str(purged)), None if version is None else str(version)

    # Push

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        """Apply `batch` in order, a transaction for each chunk, and yield its outcomes as they are committed."""
        for start in range(0, len(batch), PUSH_ROWS):
            yield from self._push(_part(batch, range(start, min(start + PUSH_ROWS, len(batch)))))

    def _push(self, batch: Operations) -> Iterator[Outcomes]:
        try:
            with self.session(write=True) as session:
                settled = self._settle(session, batch)
        except Refused as refused:
            if len(batch) == 1:
                yield self._rejected(batch, refused.refusal)
                return
            # One of them is refused, and took the others back with it.
            yield from self.split(batch)
        else:
            yield settled

    def split(self, batch: Operations) -> Iterator[Outcomes]:
        """Push the halves of a batch on their own, in order."""
        middle = len(batch) // 2
        yield from self._push(_part(batch, range(middle)))
        yield from self._push(_part(batch, range(middle, len(batch))))

    def push_atomic(self, batches: Sequence[Operations]) -> list[Outcomes]:
        """Apply all of `batches` in one transaction, or nothing.

        Returns
        -------
        The outcomes of each batch.  If any operation is conflicted or rejected, nothing was applied, and
        only such outcomes are returned.
        """
        settled: list[Outcomes] = []
        for singly in (False, True):
            settled = []
            try:
                with self.session(write=True) as session:
                    for batch in batches:
                        settled.append(self._settle(session, batch, singly=singly))
                    if any(_unaccepted(outcome) for outcome in settled):
                        raise _TakenBack
                return settled
            except _TakenBack:
                return [_only_unaccepted(outcome) for outcome in settled]
            except Refused as error:
                # The database gave up the transaction: once more, one by one, to learn at which operation.
                refused = error
        return self._refused_together(batches, len(settled), refused)

    def _refused_together(self, batches: Sequence[Operations], failed: int, refused: Refused) -> list[Outcomes]:
        """What an atomic push says of the operation that was refused, or of all if the database cannot tell."""
        answers = []
        for index, batch in enumerate(batches):
            positions: Sequence[int] = range(len(batch))
            if failed < len(batches):
                positions = (refused.positions or positions) if index == failed else range(0)
            answers.append(self._rejected(_part(batch, positions), refused.refusal))
        return answers

    def _settle(self, session: Session, batch: Operations, *, singly: bool = False) -> Outcomes:
        """Decide, apply and answer within an open transaction."""
        plan = self.plan(session, batch)
        refusals: dict[int, Refusal] = {}
        for sql, positions in plan.statements:
            for part in [[position] for position in positions] if singly else [positions]:
                refusals |= session.attempt(sql, part)
        if refusals:
            session.execute(f"delete from {BATCH} where position in ({', '.join(map(str, refusals))})")
        if plan.statements and plan.table.tracked:
            self.record(session, plan.table)
        return self.answer(session, plan, refusals)

    def plan(self, session: Session, batch: Operations) -> Plan:
        """Decide what is to be done, and load what is to be applied."""
        table = self.describe(session, batch.table)
        keys = batch.rows.select([f"k_{name}" for name in table.schema.key])
        now = self._lookup(session, table, keys)
        verdict = verdicts(batch, now, tracked=table.tracked)
        positions = pc.indices_nonzero(pc.equal(verdict, "apply")).to_pylist()
        if positions:
            known = [name for name in batch.rows.column_names if name[:2] in ("k_", "l_") and name[2:] in table.schema]
            ids = with_operation(batch["operation_id"], now[OPERATION])
            rows = batch.rows.select(["kind", *known]).append_column("operation_ids", ids)
            session.load(BATCH, table, rows.append_column("position", pa.array(range(len(batch)))).take(positions))
        statements = [(_statement(table, run.kind, run.given), run.positions) for run in runs(batch, positions)]
        return Plan(batch, table, keys, now, verdict, statements)

    def answer(self, session: Session, plan: Plan, refusals: Mapping[int, Refusal]) -> Outcomes:
        """Say what became of each operation, after those that could be were applied."""
        now = self._lookup(session, plan.table, plan.keys) if plan.statements else plan.now
        return outcomes(plan.batch, plan.verdict, refusals, now)

    def _lookup(self, session: Session, table: Table, keys: pa.Table, *, past: bool = False) -> pa.Table:
        """What is there of these keys, in their order: STATE and the value columns, with `past` of tombstones too."""
        session.load(KEYS, table, keys.append_column("position", pa.array(range(len(keys)))))
        log = f"left join {table.log} as log on {table.logs_key_of('k')}" if table.tracked else ""
        values, named = table.schema.value_columns, self._names(table, past=past and table.tracked)
        sql = f"""
            select {_state(table, self.hashed(table))}{"".join(f", {named(c.name)}" for c in values)}
            from {KEYS} as k {log} left join {quote(table.name)} as t on {table.has_key_of("k")}
            order by k.position
        """
        return session.select(table, sql, [], [*STATE, *values])

    def _rejected(self, batch: Operations, refusal: Refusal) -> Outcomes:
        with self.session() as session:
            table = self.describe(session, batch.table)
            now = self._lookup(session, table, batch.rows.select([f"k_{name}" for name in table.schema.key]))
        return rejected(batch, refusal, now)


def _is_published(mark: Mark) -> bool:
    return mark.published >= mark.newest


def _just_after(moment: datetime.datetime) -> datetime.datetime:
    return min(moment, _LAST_MOMENT) + datetime.timedelta(microseconds=1)


def _is_by_stamp(table: Table, read: Read) -> bool:
    first = read.order_by[0].column if read.order_by else ""
    return read.published and table.tracked and first == "updatedAt" and first not in table.schema


def _direction(order: Order) -> str:
    return "desc nulls last" if order.descending else "asc nulls first"


def _limit(read: Read) -> str:
    if read.limit is None and not read.offset:
        return ""
    limit, offset = (LAST_STAMP if read.limit is None else read.limit), read.offset
    return f"limit {min(int(limit), LAST_STAMP)} offset {min(int(offset), LAST_STAMP)}"


def edge(node: Node, name: str, *, low: bool) -> datetime.datetime | None:
    """The lowest (or highest) instant that a column has in rows that fulfil a condition, where it says so."""
    match node:
        case Call("and" | "or" as op, args):
            known = [edge(arg, name, low=low) for arg in args]
            some = [moment for moment in known if moment is not None]
            if not some or (op == "or" and len(some) < len(known)):
                return None
            return max(some) if low == (op == "and") else min(some)
        case Call("between", (Named(of), Literal() as first, Literal() as last)) if of == name:
            return _moment(first if low else last)
        case Call(op, (Named(of), Literal() as value)) if of == name and op in _BOUNDS[low]:
            return _moment(value)
        case Call(op, (Literal() as value, Named(of))) if of == name and op in _BOUNDS[not low]:
            return _moment(value)
    return None


def _moment(literal: Literal) -> datetime.datetime | None:
    return literal.value if isinstance(literal.value, datetime.datetime) else None


_BOUNDS = {True: ("=", ">", ">="), False: ("=", "<", "<=")}
_LAST_MOMENT = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def missing_table(name: str, path: object, session: Session) -> BackendError:
    known = shown(n for n in session.names() if not n.lower().startswith(RESERVED_PREFIX))
    return BackendError(
        f"table {name!r} is not in {path}, which has {known or 'no tables'}", hint="check the spelling", status=404
    )


def _settings_are_gone(table: Table) -> BackendError:
    return BackendError(
        f"the settings of the change log of table {table.name!r} are gone", hint="`syncframe track` makes it anew"
    )


def no_key(table: str, hint: str) -> SchemaError:
    return SchemaError(f"table {table!r} has no primary key, by which its rows could be told apart", hint=hint)


def given_types(table: str, given: Any, columns: Iterable[str]) -> dict[str, object]:
    """The types that are given in the declared ones' stead; SchemaError if one is of no column."""
    types = {f.name: f.type for f in given} if isinstance(given, pa.Schema) else dict(given)
    unknown = sorted(types.keys() - {*columns})
    if unknown:
        raise SchemaError(f"table {table!r} has no column {shown(unknown)}", hint="see connect(schema=...)")
    return types


def _statement(table: Table, kind: str, given: tuple[str, ...]) -> str:
    """The statement that applies the operations of one kind and shape between two positions of the batch."""
    name, between = quote(table.name), "b.position between ? and ?"
    if kind == "insert":
        columns = [quote(column) for column in (*table.schema.key, *given)]
        values = [f"b.{key}" for key in table.keys] + [f"b.{quote(f'l_{column}')}" for column in given]
        return f"""
            insert into {name} ({", ".join(columns)})
            select {", ".join(values)} from {BATCH} as b where {between} order by b.position
        """
    if kind == "update":
        sets = ", ".join(f"{quote(column)} = b.{quote(f'l_{column}')}" for column in given)
        return f"update {name} as t set {sets} from {BATCH} as b where {between} and {table.has_key_of('b')}"
    return f"""
        delete from {name} where ({", ".join(map(quote, table.schema.key))})
        in (select {", ".join(f"b.{key}" for key in table.keys)} from {BATCH} as b where {between})
    """


def _state(table: Table, version: str = "") -> str:
    """STATE as SQL; an untracked table has but its rows' hashes."""
    if table.tracked:
        return f"{table.there}, log.stamp, log.version, log.operation_ids, log.created_at, log.updated_at"
    return f"{table.there}, null, case when {table.there} then {version} end, null, null, null"


def _ordered(schema: Schema) -> list[Column]:
    return [*schema.key_columns, *schema.value_columns]


def _columns(schema: Schema, key_alias: str, alias: str) -> str:
    """The columns in `_ordered`'s order; the key is the log's where a row may be gone."""
    prefix = "k_" if key_alias == "log" else ""
    keys = [f"{key_alias}.{quote(prefix + name)}" for name in schema.key]
    return ", ".join([*keys, *(f"{alias}.{quote(name)}" for name in schema.values)])


def _after(session: Session, table: Table, last: pa.Table | None) -> tuple[str, list[object]]:
    """The condition that a row's key comes after the last one's."""
    if last is None:
        return "true", []
    bound = [session.bind(c, last[c.name][-1], table.declared[c.name]) for c in table.schema.key_columns]
    names = ", ".join(f"t.{quote(name)}" for name in table.schema.key)
    return f"({names}) > ({', '.join(placeholder for placeholder, _ in bound)})", [value for _, value in bound]


def _last_place(table: Table, entries: pa.Table, incarnation: str) -> Place:
    last = entries.slice(len(entries) - 1)
    key = tuple(str(written(last[c.name], c)[0]) for c in table.schema.key_columns)
    return Place(incarnation, last[PLACE][0].as_py(), last[VERSION][0].as_py(), key)


def _page(table: Table, query: Query, entries: pa.Table, place: Place) -> Page:
    schema = table.schema.select(query.columns or table.schema.names)
    leaves = pc.and_(entries[THERE], pc.invert(entries[MATCHES]))
    leavers = entries.filter(leaves).select([*schema.key, HELD])
    rows = _as_rows(entries.filter(pc.invert(leaves)), schema)
    return Page(rows, leavers if len(leavers) else None, place.checkpoint(), bytes=entries.nbytes)


def _as_rows(found: pa.Table, schema: Schema) -> pa.Table:
    return conformed(found.append_column(DELETED, pc.invert(found[THERE])), page_schema(schema))


def _part(batch: Operations, positions: Sequence[int]) -> Operations:
    if isinstance(positions, range):
        return replace(batch, rows=batch.rows.slice(positions.start, len(positions)))
    return replace(batch, rows=batch.rows.take(pa.array(positions, pa.int64())))


def _unaccepted(settled: Outcomes) -> bool:
    return bool(len(_only_unaccepted(settled)))


def _only_unaccepted(settled: Outcomes) -> Outcomes:
    return Outcomes(settled.rows.filter(pc.not_equal(settled["status"], "accepted")))
