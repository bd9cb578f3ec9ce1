"""A DuckDB file as a back end.

DuckDB has no triggers, so that a log is complete only where its one writer is here: from the first
call on a file with tracked tables the back end holds it until `close`, and when it opens it, it
compares every row with the hash in the log to find what other programs wrote before.  A file
without tracked tables is held for each call only.
"""

from __future__ import annotations

import datetime
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import AccessError, BackendError, QueryError, SchemaError, SyncError, TransientError
from ..operation import Refusal
from ..progress import stoppable
from ..query import Condition, to_duckdb
from ..schema import Column, Schema, literal, quote, type_name
from .base import Operations, Outcomes
from .sql import SqlBackend
from .sql_base import (
    BATCH,
    DATABASE,
    LAST_STAMP,
    SETTINGS,
    Refused,
    Session,
    Table,
    Turns,
    given_types,
    missing_table,
    no_key,
)

# DuckDB refuses the second of two transactions that write one row, where others wait.
_WRITING = Turns(threading.RLock)
_VERSION = "stamp || '-' || left(cast(uuid() as varchar), 8)"


class _Session(Session):
    def __init__(self, cursor: duckdb.DuckDBPyConnection, backend: DuckdbBackend) -> None:
        self.cursor = cursor
        self.backend = backend

    def values(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        self.backend.statements += 1
        # A result that is not read to its end would block the connection.
        rows: list[tuple[object, ...]] = self.cursor.execute(sql, list(parameters)).fetchall()
        return rows

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        self.values(sql, parameters)

    def names(self) -> list[str]:
        rows = self.values(
            """
            select table_name from duckdb_tables()
            where database_name = current_database() and schema_name = current_schema() and not temporary
            order by table_name
            """
        )
        return [str(name) for (name,) in rows]

    def select(self, table: Table, sql: str, parameters: Sequence[object], columns: Sequence[Column]) -> pa.Table:
        self.backend.statements += 1
        found = self.cursor.sql(sql, params=list(parameters)).to_arrow_table()
        arrays = []
        for column, held in zip(columns, found.columns, strict=True):
            try:
                arrays.append(_normal(held.cast(column.arrow), column))
            except pa.ArrowException as error:
                raise BackendError(
                    f"table {table.name!r}: column {column.name!r} has a value that is no {column.type}: {error}"
                ) from error
        return pa.table(arrays, names=[column.name for column in columns])

    def load(self, name: str, table: Table, rows: pa.Table) -> None:
        given, columns = {}, []
        for column in rows.column_names:
            is_data = column[:2] in ("k_", "l_")
            given[column] = _normal(rows[column], table.schema[column[2:]]) if is_data else rows[column]
            # Arrow has no uuid, enum or JSON here: they come as text.
            cast = f"cast({quote(column)} as {table.declared[column[2:]]})" if is_data else column
            columns.append(f"{cast} as {quote(column)}")
        self.cursor.register("_syncframe_given", pa.table(given))
        try:
            self.execute(f"create or replace temp table {name} as select {', '.join(columns)} from _syncframe_given")
        except _REFUSALS as error:
            raise Refused(_refusal(error)) from error
        self.cursor.unregister("_syncframe_given")
        if name == BATCH:
            self._keep_images(table)

    def _keep_images(self, table: Table) -> None:
        """Add to the batch, as JSON of texts that lead back to every value, the rows that it deletes."""
        pairs = ", ".join(f"{literal(name)}, cast(t.{quote(name)} as varchar)" for name in table.schema.names)
        self.execute(
            f"""
            create or replace temp table {BATCH} as
            select b.*, case when {table.there} then cast(json_object({pairs}) as varchar) end as image
            from {BATCH} as b
            left join {quote(table.name)} as t on b.kind = 'delete' and {table.has_key_of("b")}
            """
        )

    def attempt(self, sql: str, positions: Sequence[int]) -> dict[int, Refusal]:
        try:
            self.execute(sql, [positions[0], positions[-1]])
        except _REFUSALS as error:
            # There are no savepoints: with the statement the transaction is over.
            raise Refused(_refusal(error), positions) from error
        return {}

    def bind(self, column: Column, value: pa.Scalar, declared: str) -> tuple[str, object]:
        return f"cast(? as {declared})", value.as_py()


@dataclass
class DuckdbBackend(SqlBackend):
    """The tables of a DuckDB file's main schema.

    Parameters
    ----------
    path
        The file.  Nothing touches it before the first call, and it is never created.
    schemas
        By table, types that replace the declared ones of some columns: a mapping name -> type, or a
        `pyarrow.Schema`.
    """

    path: Path
    schemas: Mapping[str, Any] = field(default_factory=dict)
    _held: duckdb.DuckDBPyConnection | None = field(default=None, init=False, repr=False)

    @contextmanager
    def session(self, *, write: bool = False) -> Iterator[_Session]:
        writing = _WRITING.of(self.path)
        try:
            with stoppable():
                with writing:
                    connection = self._opened()
                if write:
                    with writing:
                        yield from self._transaction(connection)
                else:
                    yield from self._transaction(connection)
        except duckdb.Error as error:
            raise self._translated(error) from error

    def _transaction(self, connection: duckdb.DuckDBPyConnection) -> Iterator[_Session]:
        cursor = connection.cursor()
        try:
            cursor.execute("set TimeZone = 'UTC'")
            cursor.execute("set arrow_large_buffer_size = true")
            cursor.execute("begin")
            yield _Session(cursor, self)
            self._commit(cursor)
        finally:
            # What is not committed is rolled back.
            cursor.close()
            if connection is not self._held:
                connection.close()

    def _commit(self, cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.execute("commit")
        except duckdb.Error as error:
            if "constraint" not in str(error):
                raise
            raise Refused(_refusal(error)) from error

    def _opened(self) -> duckdb.DuckDBPyConnection:
        if self._held is not None:
            return self._held
        if not self.path.exists():
            raise TransientError(
                f"the DuckDB file {self.path} does not exist",
                hint="check the path: an absolute one makes four slashes, as in duckdb:////data/file.duckdb",
            )
        connection = duckdb.connect(str(self.path))
        has_settings = connection.execute(
            "select count(*) from duckdb_tables() where table_name = ?", [SETTINGS]
        ).fetchall()
        if has_settings != [(0,)]:
            self._held = connection
            try:
                self._catch_up()
            except BaseException:
                self.close()
                raise
        return connection

    def _catch_up(self) -> None:
        """Enter in the logs what other programs wrote while the file was not held."""
        with self.session(write=True) as session:
            names = session.names()
            for name in names:
                if f"_syncframe_log_{name}" in names:
                    self._compare(session, self.describe(session, name))

    def _compare(self, session: Session, table: Table) -> None:
        name, keys = quote(table.name), ", ".join(table.keys)
        own = ", ".join(f"t.{quote(k)} as {quote(f'k_{k}')}" for k in table.schema.key)
        session.execute(
            f"""
            create or replace temp table {BATCH} as
            select row_number() over (order by {keys}) as position, {keys},
                cast(null as varchar) as operation_ids, cast(null as varchar) as image
            from (
                select {own} from {name} as t left join {table.log} as log on {table.has_key_of("log")}
                where log.stamp is null or log.deleted or log.row_hash <> {self.hashed(table)}
                union all
                select {", ".join(f"log.{key}" for key in table.keys)}
                from {table.log} as log anti join {name} as t on {table.has_key_of("log")}
                where not log.deleted
            )
            """
        )
        self.record(session, table)

    def close(self) -> None:
        """Let go of the file."""
        with _WRITING.of(self.path):
            held, self._held = self._held, None
            if held is not None:
                held.close()

    def _translated(self, error: duckdb.Error) -> SyncError:
        words = str(error)
        if "lock" in words and isinstance(error, duckdb.IOException):
            holder = re.search(r"held in (.+?\(PID \d+\))", words)
            return TransientError(
                f"the DuckDB file {self.path} is held by {holder[1] if holder else 'another process'}", detail=words
            )
        if "Permission denied" in words or "read-only" in words:
            return AccessError(f"the DuckDB file {self.path} may not be written: {words}", status=403, detail=words)
        if isinstance(error, duckdb.TransactionException):
            return TransientError(f"the DuckDB file {self.path} was written at the same time: {words}", detail=words)
        if isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException | duckdb.InvalidInputException):
            return QueryError(f"the condition cannot be computed for one of the rows: {words}")
        return BackendError(f"the DuckDB file {self.path}: {words}", detail=words)

    # Tables

    def describe(self, session: Session, name: str) -> Table:
        rows: list[Any] = session.values(_DESCRIBE, [name])
        if not rows or name.lower().startswith("_syncframe"):
            raise missing_table(name, self.path, session)
        actual, has_log, key = rows[0][0], rows[0][1], rows[0][2]
        if not key:
            raise no_key(actual, f"alter table {quote(actual)} add primary key (...)")
        given = given_types(actual, self.schemas.get(actual, {}), [row[3] for row in rows])
        columns = tuple(_column(actual, name, given.get(name, declared), null) for *_, name, declared, null in rows)
        spelt = {column.name.lower(): column.name for column in columns}
        schema = Schema(columns, tuple(spelt[part.lower()] for part in key))
        return Table(actual, schema, {row[3]: row[4] for row in rows}, tracked=has_log)

    def place_of_file(self) -> str:
        return f"duckdb:{self.path.resolve()}"

    def condition(self, condition: Condition, table: Table, column: Callable[[str], str]) -> tuple[str, list[object]]:
        def plain(name: str) -> str:
            return _without_nan(table.schema[name], column(name)) if name in table.schema.names else column(name)

        return to_duckdb(condition, plain)

    def hashed(self, table: Table) -> str:
        return f"md5(cast(row({', '.join(f't.{quote(name)}' for name in table.schema.names)}) as varchar))"

    def past(self, table: Table, column: Column) -> str:
        # A JSON pointer, for a path has no way to write every name.
        pointer = literal("/" + column.name.replace("~", "~0").replace("/", "~1"))
        return f"try_cast(json_extract_string(log.image, {pointer}) as {table.declared[column.name]})"

    def sortable(self, table: Table, column: Column, sql: str) -> str:
        # An enum is sorted by its place among the labels, where SQLite has texts.
        return f"cast({sql} as varchar)" if column.kind == "ENUM" else _without_nan(column, sql)

    def stamp_since(self, session: Session, table: Table, moment: datetime.datetime, until: int) -> int:
        sql = f"select coalesce(min(stamp), ?) from {table.log} where stamp <= ? and updated_at >= ?"
        ((stamp,),) = session.values(sql, [until + 1, until, moment])
        return int(str(stamp))

    # Tracking

    def settings_statements(self, session: Session) -> list[str]:
        return [
            f"create table if not exists {SETTINGS} (name varchar primary key, incarnation varchar, purged bigint)",
            # Not in an earlier version's.
            f"alter table {SETTINGS} add column if not exists published bigint default 0",
            f"alter table {SETTINGS} add column if not exists published_ms bigint default 0",
        ]

    def milliseconds(self, moment: str) -> str:
        return f"((epoch_us({moment}) + 999) // 1000)"

    def publish_statement(self, table: Table) -> str:
        return f"""
            update {table.log} as log set updated_at = n.moment, created_at = least(created_at, n.moment)
            from (
                select stamp,
                    cast(make_timestamp((place + max(greatest(written - place, ?)) over (order by stamp)) * 1000)
                        as timestamptz) as moment
                from (
                    select stamp, row_number() over (order by stamp) - 1 as place,
                        {self.milliseconds("updated_at")} as written
                    from {table.log} where stamp > ?
                )
            ) as n
            where n.stamp = log.stamp
        """

    def track_statements(self, session: Session, table: Table) -> list[str]:
        keys = ", ".join(map(quote, table.schema.key))
        own = ", ".join(f"{k} {table.declared[n]}" for k, n in zip(table.keys, table.schema.key, strict=True))
        settings = [*self.settings_statements(session), f"{_settings_row(DATABASE)} do nothing"]
        log = [
            f"{_settings_row(table.name)} {_RENEWED}",
            f"""
            create table {table.log} (
                stamp bigint, {own}, version varchar, deleted boolean, operation_ids varchar,
                created_at timestamptz, updated_at timestamptz, image varchar, row_hash varchar
            )
            """,
            f"""
            insert into {table.log}
            select stamp, {keys}, {_VERSION}, false, null, moment, moment, null, row_hash
            from (
                select row_number() over (order by {keys}) as stamp, {keys}, {self.hashed(table)} as row_hash,
                    now() - (count(*) over () - row_number() over (order by {keys})) * interval 1 millisecond as moment
                from {quote(table.name)} as t
            )
            """,
        ]
        return settings if table.tracked else settings + log

    def untrack_statements(self, session: Session, table: Table) -> list[str]:
        if SETTINGS not in session.names():
            return []
        ((others,),) = session.values(
            f"select count(*) from {SETTINGS} where name not in (?, ?)", [DATABASE, table.name]
        )
        rest = f"delete from {SETTINGS} where name = {literal(table.name)}" if others else f"drop table {SETTINGS}"
        return [f"drop table if exists {table.log}", rest]

    # Push

    def split(self, batch: Operations) -> Iterator[Outcomes]:
        """Apply a batch piece by piece where DuckDB refused a part of it: it has no savepoints."""
        try:
            settled = self._piecemeal(batch)
        except Refused:  # A value is not of its column's type, and not even the batch could be loaded.
            yield from super().split(batch)
        else:
            yield settled

    def _piecemeal(self, batch: Operations) -> Outcomes:
        """Each piece is a transaction; nobody else writes before the end, so that what was decided holds."""
        with self.session(write=True) as session:
            plan = self.plan(session, batch)
            session.execute("commit")
            refusals: dict[int, Refusal] = {}
            for sql, positions in plan.statements:
                refusals |= self._piece(session, plan.table, sql, positions)
            session.execute("begin")
            return self.answer(session, plan, refusals)

    def _piece(self, session: Session, table: Table, sql: str, positions: list[int]) -> dict[int, Refusal]:
        first, last = positions[0], positions[-1]
        session.execute("begin")
        try:
            session.execute(sql, [first, last])
            if table.tracked:
                self.record(session, table, first, last)
            session.execute("commit")
        except _REFUSALS as error:
            session.execute("rollback")
            if len(positions) == 1:
                return {first: _refusal(error)}
        else:
            return {}
        middle = len(positions) // 2
        refusals = self._piece(session, table, sql, positions[:middle])
        return refusals | self._piece(session, table, sql, positions[middle:])

    def record(self, session: Session, table: Table, first: int = 0, last: int = LAST_STAMP) -> None:
        """Give each key of the batch between two positions the next stamp, and what is there now its hash."""
        keys = ", ".join(table.keys)
        session.execute(
            f"""
            create or replace temp table _syncframe_entries as
            select
                (select coalesce(max(stamp), 0) from {table.log}) + row_number() over (order by b.position) as stamp,
                {", ".join(f"b.{key}" for key in table.keys)},
                not ({table.there}) as deleted,
                coalesce(b.operation_ids, '- ' || ltrim(log.operation_ids, '- ')) as operation_ids,
                case when log.stamp is null or (log.deleted and {table.there}) then now() else log.created_at end
                    as created_at,
                case when {table.there} then null else coalesce(b.image, log.image) end as image,
                case when {table.there} then {self.hashed(table)} end as row_hash
            from {BATCH} as b
            left join {table.log} as log on {table.logs_key_of("b")}
            left join {quote(table.name)} as t on {table.has_key_of("b")}
            where b.position between ? and ?
            """,
            [first, last],
        )
        session.execute(f"delete from {table.log} where ({keys}) in (select {keys} from _syncframe_entries)")
        session.execute(
            f"""
            insert into {table.log}
            select stamp, {keys}, {_VERSION}, deleted, operation_ids, created_at, now(), image, row_hash
            from _syncframe_entries
            """
        )


def _settings_row(name: str) -> str:
    values = f"{literal(name)}, cast(uuid() as varchar), 0"
    return f"insert into {SETTINGS} (name, incarnation, purged) values ({values}) on conflict"


# A new log's `updatedAt` go on after the last that any client has seen.
_RENEWED = "(name) do update set incarnation = excluded.incarnation, purged = 0, published = 0"

_DESCRIBE = """
    select
        c.table_name,
        exists (
            select 1 from duckdb_tables() as o
            where o.database_name = current_database() and o.schema_name = current_schema()
            and o.table_name = '_syncframe_log_' || c.table_name
        ),
        (
            select k.constraint_column_names from duckdb_constraints() as k
            where k.database_name = current_database() and k.schema_name = current_schema()
            and k.table_name = c.table_name and k.constraint_type = 'PRIMARY KEY'
        ),
        c.column_name, c.data_type, c.is_nullable
    from duckdb_columns() as c
    where c.database_name = current_database() and c.schema_name = current_schema()
    and lower(c.table_name) = lower(?) and not c.is_generated
    order by c.column_index
"""


def _column(table: str, name: str, given: object, nullable: bool) -> Column:
    try:
        kind, labels = type_name(given)
    except SchemaError as error:
        raise SchemaError(f"table {table!r}, column {name!r}: {error.message}", hint=error.hint) from error
    return Column(name, kind, nullable, labels)


def _normal(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """NaN is NULL."""
    return pc.if_else(pc.is_nan(values), None, values) if column.family == "float" else values


def _without_nan(column: Column, sql: str) -> str:
    return f"nullif({sql}, cast('nan' as {column.type}))" if column.family == "float" else sql


_REFUSALS = (
    duckdb.ConstraintException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.InvalidInputException,
    duckdb.BinderException,
)
_WORDS = {
    "foreign key": "reference",
    "primary key": "unique",
    "unique": "unique",
    "not null": "not null",
    "check constraint": "check",
    "conversion": "type",
}
_COLUMN = re.compile(r'NOT NULL constraint failed: .*\.("(?:[^"]|"")+"|[^."]+)$|Duplicate key "([^:,"]+): [^"]*"')


def _refusal(error: duckdb.Error) -> Refusal:
    words = str(error).partition("\n")[0]
    code = next((code for word, code in _WORDS.items() if word in words.lower()), "refused")
    found = _COLUMN.search(words)
    column = (found[1] or found[2]) if found else None
    return Refusal(code, column.strip('"').replace('""', '"') if column else None, words)
