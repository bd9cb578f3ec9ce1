"""A PostgreSQL database as a back end, by the driver of Apache Arrow ADBC.

A read sees one moment; a push locks the rows of its batch, then compares and writes, and each operation has its own
outcome: what the database refuses of a set is found by savepoints.  `postgres_log` has the triggers that log every
program's writes, `postgres_feed` what a pull reads, `postgres_types` how values travel.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import AccessError, BackendError, QueryError, SchemaError, SyncError, TransientError
from ..operation import Refusal
from ..query import Condition, to_postgres
from ..schema import Column, Schema, quote
from ..texts import written
from . import postgres_log
from .base import VERSION, Operations
from .decide import THERE
from .postgres_connections import Connections, Held, driver, numbered, shown, without_secrets
from .postgres_feed import PostgresFeed
from .postgres_log import LOGS, TRIGGERS, PostgresTable, log_name, trigger_name
from .postgres_types import Held as HeldType
from .postgres_types import conformed, key_problem
from .sql import Plan, SqlBackend
from .sql_base import (
    BATCH,
    SETTINGS,
    Refused,
    Session,
    Table,
    given_types,
    missing_table,
    no_key,
    settings_are_gone,
)
from .sql_read import Mark, first_ms, searched

LOCK_TIMEOUT_S = 30.0
BLOCK = 64  # operations that are tried together once a set of them was refused
_REFUSED = ("22", "23", "P0", "44", "42501", "428C9")
_CODES = {"23503": "reference", "23505": "unique", "23502": "not null", "23514": "check", "23P01": "exclusion"}
_STATE = re.compile(r"SQLSTATE: (\w{5})")
_STATEMENT = re.compile(r"( CONTEXT:| LINE \d+:| Query was:| Query:|\. SQLSTATE:).*")
_LOADED_COLUMN = re.compile(r"COPY _syncframe_batch, line \d+, column [kl]_(.+?)(?:: |$|\n)")
_KEY_WORDS = re.compile(r"^Key \(([^()]+)\)=")


class _Session(Session):
    def __init__(self, held: Held, backend: PostgresBackend) -> None:
        self.held = held
        self.backend = backend

    def table(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        self.backend.statements += 1
        return self.held.run(sql, parameters)

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        self.table(sql, parameters)

    def values(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        return list(zip(*(column.to_pylist() for column in self.table(sql, parameters).columns), strict=True))

    def names(self) -> list[str]:
        return sorted(str(name) for (name,) in self.values(_NAMES))

    def select(self, table: Table, sql: str, parameters: Sequence[object], columns: Sequence[Column]) -> pa.Table:
        return _conformed(table, self.table(sql, parameters), columns)

    def keys(self, table: Table, keys: pa.Table) -> tuple[str, list[object]]:
        # No temporary table: a replica has none, and a role need not be allowed one.
        arrays, names, parameters = [], [], []
        for name, key in _pg(table).key_pairs:
            column, values = table.schema[name], keys[f"k_{name}"]
            is_number = column.family in ("int", "bool")
            parameters.append(values.to_pylist() if is_number else written(values.combine_chunks(), column))
            kind = {"int": "bigint", "bool": "boolean"}.get(column.family, "text")
            arrays.append(f"cast(? as {kind}[])")
            names.append(key)
        given = ", ".join(f"{_pg(table).typed(f'u.{key}', name)} as {key}" for name, key in _pg(table).key_pairs)
        unnested = f"unnest({', '.join(arrays)}) with ordinality as u({', '.join(names)}, position)"
        return f"(select {given}, u.position from {unnested})", parameters

    def load(self, name: str, table: Table, rows: pa.Table) -> None:
        self.execute(f"drop table if exists pg_temp.{name}")
        try:
            with self.held.connection.cursor() as cursor:
                cursor.adbc_ingest(name, _loaded(rows), mode="create", temporary=True)
            casts = [
                f"alter column {key} type {_pg(table).declared[part]} using {_pg(table).typed(key, part)}"
                for part, key in _pg(table).key_pairs
            ]
            self.execute(f"alter table pg_temp.{name} {', '.join(casts)}")
            self.execute(f"create index on pg_temp.{name} (position)")
        except self.backend.error as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise Refused(refusal) from error

    def attempt(self, sql: str, positions: Sequence[int]) -> dict[int, Refusal]:
        self.execute("savepoint attempt")
        try:
            self.execute(sql, [positions[0], positions[-1]])
        except self.backend.error as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            self.execute("rollback to savepoint attempt")
        else:
            self.execute("release savepoint attempt")
            return {}
        if len(positions) == 1:
            return {positions[0]: refusal}
        # One is refused and takes the others back: few stand together with it.
        size = BLOCK if len(positions) > 2 * BLOCK else (len(positions) + 1) // 2
        refusals: dict[int, Refusal] = {}
        for start in range(0, len(positions), size):
            refusals |= self.attempt(sql, positions[start : start + size])
        return refusals

    def bind(self, column: Column, value: pa.Scalar, declared: str) -> tuple[str, object]:
        return f"cast(cast(? as text) as {declared})", written(pa.array([value.as_py()], column.arrow), column)[0]


@dataclass
class PostgresBackend(PostgresFeed, SqlBackend):
    """The tables of a PostgreSQL database that its role may read.

    Parameters
    ----------
    url
        As libpq takes it: ``postgresql://user:password@host:port/database?sslmode=require``.
    schemas
        By table, types that replace the declared ones of some columns: a mapping name -> type, or a `pyarrow.Schema`;
        of a view a `Schema`, for its key.
    """

    url: str = field(repr=False)
    schemas: Mapping[str, Any] = field(default_factory=dict)
    lock_timeout_s: float = LOCK_TIMEOUT_S
    tracking_cost: ClassVar[str] = (
        "whatever writes to it takes 2 to 2.6 times as long (3 to 3.5 with partitions or in a subscription); "
        "reading costs nothing"
    )

    def __post_init__(self) -> None:
        self.error: type[Exception] = driver().Error
        self._connections = Connections(self.url, self.lock_timeout_s)

    def __repr__(self) -> str:
        return f"PostgresBackend({shown(self.url)!r})"

    # Transactions

    @contextmanager
    def session(self, *, write: bool = False) -> Iterator[_Session]:
        held = self._begun("read committed" if write else "repeatable read")
        try:
            yield _Session(held, self)
            self._commit(held)
        except BaseException as error:
            self._let_go(held)
            if isinstance(error, self.error):
                raise self._translated(error) from error
            raise
        self._connections.give_back(held)

    def _begun(self, isolation: str) -> Held:
        while True:
            try:
                held = self._connections.take()
            except self.error as error:
                raise self._not_connected(error) from error
            try:
                held.run(f"begin isolation level {isolation}")
            except self.error as error:
                # A kept connection may have ended since, as by a restart; a new one is another matter.
                is_new = held.is_new
                held.close()
                if is_new:
                    raise self._translated(error) from error
            else:
                return held

    def _commit(self, held: Held) -> None:
        try:
            held.run("commit")
        except self.error as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise Refused(refusal) from error  # a constraint that is deferred

    def _let_go(self, held: Held) -> None:
        try:
            held.run("rollback")
        except BaseException:
            with contextlib.suppress(self.error, RuntimeError):
                held.close()
            return
        self._connections.give_back(held)

    def streamed(
        self, table: Table, sql: str, parameters: Sequence[object], columns: Sequence[Column], rows: int
    ) -> Iterator[pa.Table]:
        with self.session() as session:
            self.statements += 1
            with session.held.connection.cursor() as cursor:
                cursor.execute(numbered(sql), list(parameters) or None)
                reader = cursor.fetch_record_batch()
                waiting = reader.schema.empty_table()
                for batch in reader:
                    waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
                    while len(waiting) >= rows:
                        yield _conformed(table, waiting.slice(0, rows), columns)
                        waiting = waiting.slice(rows)
                yield _conformed(table, waiting, columns)

    def close(self) -> None:
        """Let go of the connections that are kept."""
        self._connections.close()

    # Errors

    def _words(self, error: Exception) -> str:
        return without_secrets(_primary(error), self.url)

    def _not_connected(self, error: Exception) -> SyncError:
        words = self._words(error)
        what = f"no connection to {shown(self.url)}: {words}"
        if any(part in words for part in ("authentication failed", "no password supplied", "no pg_hba.conf entry")):
            return AccessError(
                what, status=401, detail=words, hint="check user and password; a password file is ~/.pgpass"
            )
        if "permission denied" in words:
            return AccessError(what, status=403, detail=words)
        if "does not exist" in words and "role" not in words:
            return BackendError(what, status=404, detail=words, hint="check the database's name in the URL")
        return TransientError(what, detail=words, was_sent=False)

    def _translated(self, error: Exception) -> SyncError:
        state, words = _state(error), self._words(error)
        what = f"{shown(self.url)}: {words}"
        if state == "55P03":
            return TransientError(f"{what}: another program's transaction holds the rows", detail=words)
        if not state or state[:2] in ("08", "53", "57", "58", "40", "25", "XX"):
            return TransientError(what, detail=words)
        if state == "42501":
            return AccessError(what, status=403, detail=words, hint="ask the database's owner to grant it")
        if state[:2] == "22":
            return QueryError(f"the condition cannot be computed for one of the rows: {words}")
        return BackendError(what, detail=words)

    # Tables

    def describe(self, session: Session, name: str) -> PostgresTable:
        namespace, dot, relation = name.partition(".")
        found = session.values(_FIND, [name, namespace if dot else "", relation])
        if not found or str(found[0][1]) == LOGS:
            raise missing_table(name, shown(self.url), session)
        oid, schema_name, relation, others = found[0][0], *map(str, found[0][1:3]), found[0][3]
        if others is not None:
            raise SchemaError(
                f"tables {relation!r} and {others!r} have one name when case is not counted", hint="rename one of them"
            )
        log = log_name(schema_name, relation)
        is_foreign = _SYSTEM_OF_LOG if SETTINGS in session.names() else "false"
        describe = _DESCRIBE.replace("{foreign}", is_foreign)
        triggers = list(map(trigger_name, TRIGGERS))
        rows: list[Any] = session.values(describe, [oid, log, triggers, f"{schema_name}.{relation}"])
        return self._described(name, schema_name, relation, [_Attribute(*row) for row in rows])

    def _described(self, name: str, namespace: str, relation: str, rows: list[_Attribute]) -> PostgresTable:
        first = rows[0]
        given = self.schemas.get(name, {})
        key = tuple(row.name for row in sorted(rows, key=lambda row: row.place or 0) if row.place)
        if isinstance(given, Schema):
            key, given = given.key, {column.name: column.type for column in given.columns}
        if not key:
            raise no_key(
                name,
                "alter table ... add primary key (...); of a view "
                f'connect(schema={{"{name}": Schema.of(..., key="id")}}) says its key',
            )
        types = given_types(name, given, [row.name for row in rows])
        held = {row.name: row.held() for row in rows if not row.is_generated}
        columns = [_column(name, row, held[row.name], types.get(row.name)) for row in rows if not row.is_generated]
        schema = Schema(tuple(columns), key)
        if problem := key_problem(schema, held):
            raise SchemaError(f"table {name!r} cannot be kept: {problem}", hint="leave it out")
        is_whole = first.triggers == len(TRIGGERS) and bool(first.may_read_log)
        return PostgresTable(
            name,
            schema,
            {column: held[column].base for column in schema.names},
            tracked=bool(first.has_log) and is_whole and not first.is_foreign,
            namespace=namespace,
            relation=relation,
            kind=first.kind,
            held=held,
            has_log=bool(first.has_log),
            is_foreign=bool(first.is_foreign),
            has_policies=bool(first.has_policies),
            is_subscribed=bool(first.is_subscribed),
            readers=tuple(first.readers or ()),
            writers=tuple(first.writers or ()),
            always=frozenset(row.name for row in rows if row.identity == "a"),
        )

    def place_of_file(self) -> str:
        """A cluster and a database in it, which may be renamed."""
        with self.session() as session:
            ((place,),) = session.values(
                """
                select (select system_identifier from pg_control_system())::text || ':' ||
                    (select oid from pg_database where datname = current_database())::text
                """
            )
        return f"postgresql:{place}"

    def condition(self, condition: Condition, table: Table, column: Callable[[str], str]) -> tuple[str, list[object]]:
        def seen(name: str) -> str:
            if name not in table.schema:
                return column(name)
            return _pg(table).held[name].as_text(column(name), table.schema[name])

        return to_postgres(condition, seen)

    def cell(self, table: Table, name: str, sql: str) -> str:
        return _pg(table).held[name].read(sql, table.schema[name])

    def stored(self, table: Table, name: str, sql: str) -> str:
        return _pg(table).held[name].write(sql, table.schema[name])

    def overriding(self, table: Table, columns: Sequence[str]) -> str:
        return "" if _pg(table).always.isdisjoint(columns) else "overriding system value"

    def hashed(self, table: Table) -> str:
        return "t.xmin::text" if _pg(table).has_xmin else "md5(cast(t.* as text))"

    def past(self, table: Table, column: Column) -> str:
        name = quote(column.name)
        return f"(select r.{name} from jsonb_to_record(log.image) as r ({name} {_pg(table).held[column.name].base}))"

    def sortable(self, table: Table, column: Column, sql: str) -> str:
        if column.family == "text":
            return f'{_pg(table).held[column.name].as_text(sql, column)} collate "C"'
        return f"nullif({sql}, 'NaN')" if column.family == "float" else sql

    def stamp_since(self, session: Session, table: Table, moment: datetime.datetime, until: int) -> int:
        return searched(
            session, table, until, "updated_at >= cast(? as timestamptz)", [moment], lambda is_late: is_late is True
        )

    # Tracking

    def track_statements(self, session: Session, table: Table) -> list[str]:
        return postgres_log.track_statements(session, _pg(table))

    def untrack_statements(self, session: Session, table: Table) -> list[str]:
        return postgres_log.untrack_statements(session, _pg(table))

    def settings_statements(self, session: Session) -> list[str]:
        return postgres_log.settings_statements(session)

    def milliseconds(self, moment: str) -> str:
        return postgres_log.milliseconds(moment)

    def publish_statement(self, table: Table) -> str:
        return postgres_log.publish_statement(_pg(table))

    def _publish(self, session: Session, table: Table, mark: Mark, now: datetime.datetime) -> None:
        session.execute("select pg_advisory_xact_lock(hashtextextended(?, 0))", [f"syncframe {table.entry}"])
        mark = self._mark(session, table)  # another one may have done it while this waited
        ((since,),) = session.values(f"select published_xid from {SETTINGS} where name = ?", [table.entry])
        horizon = self._horizon(session)
        ((found,),) = session.values(
            f"select count(*) from {table.log} where stamp is null and xid >= ? and xid < ?", [since, horizon]
        )
        count = int(str(found))
        if not count:
            return
        first = first_ms(mark, count, now)
        session.execute(self.publish_statement(table), [mark.published, first, since, horizon])
        session.execute(
            f"""
            update {SETTINGS} set published = ?, published_xid = ?, published_ms = greatest(published_ms, (
                select {self.milliseconds("updated_at")} from {table.log} order by stamp desc nulls last limit 1
            )) where name = ?
            """,
            [mark.published + count, horizon, table.entry],
        )

    def _mark(self, session: Session, table: Table) -> Mark:
        rows = session.values(
            f"""
            select published, published_ms,
                exists (select from {table.log} where stamp is null and xid >= s.published_xid)
            from {SETTINGS} as s where name = ?
            """,
            [table.entry],
        )
        if not rows:
            raise settings_are_gone(table)
        published, last_ms, has_newer = rows[0]
        return Mark(int(str(published)), int(str(last_ms)), int(str(published)) + int(bool(has_newer)))

    def _purge(self, session: Session, table: Table, moment: datetime.datetime) -> int:
        forgotten = f"""
            from {table.log} where deleted and updated_at <= cast(? as timestamptz)
            and (xid, seq) < (select xid, seq from {table.log} order by xid desc, seq desc limit 1)
        """
        ((last, count),) = session.values(f"select coalesce(max(xid), 0), count(*) {forgotten}", [moment])
        session.execute(f"delete {forgotten}", [moment])
        after = int(str(last)) + 1
        session.execute(f"update {SETTINGS} set purged = ? where name = ? and purged < ?", [after, table.entry, after])
        return int(str(count))

    # Push

    def before_plan(self, session: Session, table: Table, batch: Operations, keys: pa.Table) -> None:
        kinds = pc.unique(batch["kind"]).to_pylist()
        self._check_rights(session, table, kinds)
        if _pg(table).has_xmin and kinds != ["insert"]:
            self._lock(session, table, keys)

    def _check_rights(self, session: Session, table: Table, kinds: Sequence[str]) -> None:
        for kind in kinds:
            # A right on the whole table is one on any of its columns.
            asked = "has_table_privilege" if kind == "delete" else "has_any_column_privilege"
            ((may,),) = session.values(f"select {asked}(?::regclass, '{kind}')", [table.sql])
            if not may:
                raise AccessError(
                    f"{shown(self.url)} may not {kind} rows of {table.name!r}",
                    status=403,
                    hint=f"grant {kind} on {table.sql} to this role, or discard the operations",
                )

    def _lock(self, session: Session, table: Table, keys: pa.Table) -> None:
        """Whoever writes these rows is waited for, and waits: what is compared next stays as it is.

        Comparing in the statement that writes would read the log as it was before the wait.
        """
        asked, parameters = session.keys(table, keys)
        order = ", ".join(f"t.{quote(name)}" for name in table.schema.key)
        session.values(
            f"""
            select count(*) from (
                select from {asked} as k, {table.sql} as t where {table.has_key_of("k")}
                order by {order} for update of t
            ) as locked
            """,
            parameters,
        )

    def record(self, session: Session, table: Table) -> None:
        """Triggers have written the entries; of a row that a policy or trigger kept as it was there is none."""
        session.execute(
            f"""
            update {table.log} as log set operation_ids = b.operation_ids
            from {BATCH} as b where {table.logs_key_of("b")} and log.xid = {postgres_log.TRANSACTION}
            """
        )

    def looked_at(
        self, plan: Plan, now: pa.Table, refusals: Mapping[int, Refusal]
    ) -> tuple[pa.Array, Mapping[int, Refusal]]:
        """Another one's insert of the same key is a conflict; what was not written, without a word, is refused."""
        verdict, told = plan.verdict.to_pylist(), dict(refusals)
        there, kinds = now[THERE].to_pylist(), plan.batch["kind"].to_pylist()
        for position, refusal in refusals.items():
            if refusal.code == "unique" and kinds[position] == "insert" and there[position]:
                verdict[position] = "conflicted"
                del told[position]
        unchanged = pc.and_(pc.and_(now[THERE], plan.now[THERE]), pc.equal(now[VERSION], plan.now[VERSION]))
        unwritten = pc.and_(pc.fill_null(unchanged, False), pc.equal(plan.verdict, "apply"))
        for position in pc.indices_nonzero(unwritten).to_pylist():
            told.setdefault(position, Refusal("refused", None, _UNWRITTEN))
        return pa.array(verdict, pa.string()), told


_UNWRITTEN = "the database wrote nothing and said nothing: a row-level policy or a trigger keeps the row as it is"


@dataclass(frozen=True, slots=True)
class _Attribute:
    """A row of what `_DESCRIBE` finds: a column, and what is the same for all columns of its table."""

    kind: str
    has_policies: bool
    has_log: bool
    may_read_log: bool | None
    triggers: int
    is_foreign: bool | None
    is_subscribed: bool
    readers: list[str] | None
    writers: list[str] | None
    name: str
    is_required: bool
    is_generated: bool
    identity: str
    base: str
    type: str
    type_kind: str
    typmod: int
    labels: list[str] | None
    collation: str | None
    place: int | None

    def held(self) -> HeldType:
        precision = None
        if self.type == "numeric" and self.typmod >= 4:
            bits = self.typmod - 4
            precision = (bits >> 16 & 0xFFFF, ((bits & 0x7FF) ^ 1024) - 1024)
        return HeldType(self.base, self.type, self.type_kind, precision, tuple(self.labels or ()), self.collation or "")


def _column(table: str, row: _Attribute, held: HeldType, given: object) -> Column:
    try:
        return held.column(row.name, given, nullable=not (row.is_required or row.place))
    except SchemaError as error:
        raise SchemaError(
            f"table {table!r}: {error.message}",
            hint=f'give a type: connect(..., schema={{"{table}": {{"{row.name}": "DECIMAL(38,9)"}}}})',
        ) from error


_KINDS = "'r', 'p', 'v', 'm', 'f'"
_NAMES = f"""
    select case when pg_table_is_visible(c.oid) then c.relname else n.nspname || '.' || c.relname end::text
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ({_KINDS}) and not c.relispartition
    and n.nspname not like 'pg!_%' escape '!' and n.nspname <> 'information_schema'
    and (n.nspname <> '{LOGS}' or c.relname = '{SETTINGS}')
    and has_schema_privilege(n.oid, 'usage')
    and (has_table_privilege(c.oid, 'select') or has_any_column_privilege(c.oid, 'select'))
"""
_FIND = f"""
    select c.oid::bigint, n.nspname::text, c.relname::text, (
        select o.relname::text from pg_class as o
        where o.relnamespace = c.relnamespace and o.oid <> c.oid and lower(o.relname) = lower(c.relname)
        and o.relkind in ({_KINDS}) limit 1
    )
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ({_KINDS}) and (
        (c.relname = ? and pg_table_is_visible(c.oid)) or (n.nspname = ? and c.relname = ?)
    )
    order by pg_table_is_visible(c.oid) desc limit 1
"""
# A domain is known by the type beneath it, whose precision may be its own.
_DESCRIBE = f"""
    with recursive asked as (
        select cast(? as bigint)::oid as oid, cast(? as text) as log, cast(? as text[]) as triggers,
            cast(? as text) as entry
    ),
    types(attnum, oid, typmod, required) as (
        select a.attnum, a.atttypid, a.atttypmod, a.attnotnull from pg_attribute as a, asked
        where a.attrelid = asked.oid and a.attnum > 0 and not a.attisdropped
        union all
        select types.attnum, t.typbasetype, case when t.typtypmod = -1 then types.typmod else t.typtypmod end,
            types.required or t.typnotnull
        from types join pg_type as t on t.oid = types.oid where t.typtype = 'd'
    ),
    grants as (
        select case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end as role,
            g.privilege_type
        from pg_class as c, asked, aclexplode(c.relacl) as g where c.oid = asked.oid and g.grantee <> c.relowner
    ),
    log as (
        select l.oid from pg_class as l join pg_namespace as n on n.oid = l.relnamespace, asked
        where n.nspname = '{LOGS}' and l.relname = asked.log
    )
    select c.relkind::text, c.relrowsecurity, exists (select from log),
        (select has_table_privilege(oid, 'select') from log),
        (
            select count(*) from pg_trigger as t
            where t.tgrelid = c.oid and t.tgname = any(asked.triggers) and t.tgenabled = 'A'
        ),
        {{foreign}},
        exists (select from pg_subscription_rel as r where r.srrelid = c.oid),
        (select array_agg(distinct role) from grants where privilege_type = 'SELECT'),
        (select array_agg(distinct role) from grants where privilege_type in ('INSERT', 'UPDATE', 'DELETE')),
        a.attname::text, d.required, a.attgenerated <> '', a.attidentity::text,
        format_type(t.oid, -1), t.typname::text,
        case when t.typcategory = 'A' then 'a' else t.typtype end::text, d.typmod,
        (select array_agg(e.enumlabel::text order by e.enumsortorder) from pg_enum as e where e.enumtypid = t.oid),
        (
            select quote_ident(n.nspname) || '.' || quote_ident(o.collname)
            from pg_collation as o join pg_namespace as n on n.oid = o.collnamespace
            where o.oid = a.attcollation and o.collname <> 'default'
        ),
        array_position(i.indkey::smallint[], a.attnum) + 1
    from asked join pg_class as c on c.oid = asked.oid
    join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join types as d on d.attnum = a.attnum join pg_type as t on t.oid = d.oid and t.typtype <> 'd'
    left join pg_index as i on i.indrelid = c.oid and i.indisprimary
    order by a.attnum
"""
_SYSTEM_OF_LOG = f"""
    (select s.system <> {postgres_log.SYSTEM} from {postgres_log.own(SETTINGS)} as s where s.name = asked.entry)
"""


def _conformed(table: Table, rows: pa.Table, columns: Sequence[Column]) -> pa.Table:
    arrays = []
    for column, held in zip(columns, rows.columns, strict=True):
        try:
            arrays.append(conformed(held, column))
        except ValueError as error:  # Arrow's are, too
            raise _misfit(table, rows, columns, column, held) from error
    return pa.table(arrays, names=[column.name for column in columns])


def _misfit(
    table: Table, rows: pa.Table, columns: Sequence[Column], column: Column, held: pa.ChunkedArray
) -> BackendError:
    """Name the first row whose value does not fit its column's type."""
    names = [c.name for c in columns]
    for index in range(len(held)):
        try:
            conformed(held.slice(index, 1), column)
        except ValueError as error:
            key = {name: rows[names.index(name)][index].as_py() for name in table.schema.key if name in names}
            example = f'connect(..., schema={{"{table.name}": {{"{column.name}": "VARCHAR"}}}})'
            return BackendError(
                f"table {table.name!r}, row {key}: column {column.name!r} has what is no {column.type}: {error}",
                hint=f"mend the row, or give another type: {example}",
            )
    raise AssertionError(column)


def _loaded(rows: pa.Table) -> pa.Table:
    """Columns in types that the driver has: PostgreSQL has no unsigned numbers."""
    columns = [held.cast(pa.string()) if pa.types.is_unsigned_integer(held.type) else held for held in rows.columns]
    return pa.table(columns, names=rows.column_names).combine_chunks()


# What the driver says


def _diagnosis(error: Exception) -> dict[str, str]:
    details = getattr(error, "details", None) or ()
    return {_text(name): _text(value) for name, value in details}


def _text(said: object) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _state(error: Exception) -> str:
    """The five characters of SQLSTATE; "" if the server said nothing."""
    found = _STATE.search(str(error))
    return str(getattr(error, "sqlstate", None) or (found[1] if found else ""))


def _primary(error: Exception) -> str:
    said = _diagnosis(error)
    if "PG_DIAG_MESSAGE_PRIMARY" in said:
        return said["PG_DIAG_MESSAGE_PRIMARY"]
    words = _STATEMENT.sub("", " ".join(str(error).split()))
    return words.partition("ERROR: ")[2].strip() or words


def _refusal(error: Exception) -> Refusal | None:
    """Why a statement was refused; None if it is not the statement's fault."""
    state, said = _state(error), _diagnosis(error)
    if not state.startswith(_REFUSED):
        return None
    words, detail = _primary(error), said.get("PG_DIAG_MESSAGE_DETAIL", "")
    found = _KEY_WORDS.match(detail)
    column = said.get("PG_DIAG_COLUMN_NAME") or (found[1] if found and "," not in found[1] else None)
    if loaded := _LOADED_COLUMN.search(str(error)):
        column = loaded[1]
    # The detail of a check or of a missing value is the whole row.
    message = f"{words}: {detail}" if state in ("23503", "23505") and detail else words
    code = _CODES.get(state) or ("type" if state.startswith("22") else "refused")
    return Refusal(code, column.strip('"') if column else None, message)


def _pg(table: Table) -> PostgresTable:
    if not isinstance(table, PostgresTable):
        raise TypeError(table)
    return table
