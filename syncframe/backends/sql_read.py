"""What remote tables and lists read: rows by condition and order, deleted ones too, and published stamps."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ..query import Call, Literal, Node, Order, Read
from ..query import Column as Named
from .base import VERSION
from .decide import STATE, THERE
from .sql_base import LAST_STAMP, SETTINGS, Database, Session, Table, as_rows, ordered, settings_are_gone, state

MILLISECOND = datetime.timedelta(milliseconds=1)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LAST_MOMENT = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
_BOUNDS = {True: ("=", ">", ">="), False: ("=", "<", "<=")}


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


class Reads(Database):
    """The half of a SQL back end that is read from."""

    def rows(self, table: str, keys: pa.Table) -> pa.Table:
        """Return the rows of these keys, tombstones included where they are known; others are left out."""
        with self.session() as session:
            described = self.describe(session, table)
            schema = described.schema
            wanted = keys.select(list(schema.key)).rename_columns([f"k_{name}" for name in schema.key])
            found = self.lookup(session, described, wanted, past=True)
        known = pc.or_(found[THERE], pc.is_valid(found[VERSION]))
        for name in schema.key:
            found = found.append_column(name, keys[name])
        return as_rows(found.filter(known), schema)

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
                whole = described.whole if alias == "t" else "*"
                found = (
                    f"from (select {alias}.{whole} {found}) as {alias} {selection.joined} order by {selection.order}"
                )
            past = read.include_deleted and described.tracked
            named = self.names(described, log=past, past=past)
            columns = ", ".join(self.cell(described, c.name, named(c.name)) for c in ordered(schema))
            sql = f"""
                select {state(described, self.hashed(described))}, {columns}
                {found}
            """
            rows = session.select(described, sql, selection.parameters, [*STATE, *ordered(schema)])
        return as_rows(rows, schema)

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
        name, log, same = f"{table.sql} as t", f"{table.log} as log", table.has_key_of("log")
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
        named = self.names(table, log=past or alias == "log", past=past)
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
        first = first_ms(mark, count, now)
        session.execute(self.publish_statement(table), [first, mark.published])
        written = self.milliseconds("updated_at")
        ((last,),) = session.values(f"select {written} from {table.log} where stamp = ?", [mark.newest])
        session.execute(
            f"update {SETTINGS} set published = ?, published_ms = ? where name = ?",
            [mark.newest, last, table.entry],
        )

    def _mark(self, session: Session, table: Table) -> Mark:
        rows = session.values(f"select * from {SETTINGS} where name = ?", [table.entry])
        if not rows:
            raise settings_are_gone(table)
        ((newest,),) = session.values(f"select coalesce(max(stamp), 0) from {table.log}")
        # An earlier version's settings have three columns.
        published, last_ms = rows[0][3:5] or (0, 0)
        return Mark(int(str(published)), int(str(last_ms)), int(str(newest)))


def first_ms(mark: Mark, count: int, now: datetime.datetime) -> int:
    """The first of so many milliseconds that are published now, behind all that were."""
    return max(mark.last_ms + 1, (now - _EPOCH) // MILLISECOND - (count - 1))


def searched(
    session: Session,
    table: Table,
    until: int,
    asked: str,
    parameters: Sequence[object],
    is_late: Callable[[object], bool],
) -> int:
    """The first stamp up to `until` of whose entry `is_late` what is `asked`, by halves: it holds of all behind it."""
    low, high = 1, until + 1
    while low < high:
        middle = (low + high) // 2
        sql = f"select stamp, {asked} from {table.log} where stamp between ? and ? order by stamp limit 1"
        found = session.values(sql, [*parameters, middle, until])
        if not found or is_late(found[0][1]):
            high = middle
        else:
            low = int(str(found[0][0])) + 1
    return low


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
