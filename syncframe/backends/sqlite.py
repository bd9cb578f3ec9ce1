"""A SQLite file as a back end, by the driver of the standard library.

No transaction outlives a call, and any thread may call.  What SQLite does not have in types it keeps
as text (`texts`); a column's declared type says what that text is.  `sqlite_log` has the triggers that
log every program's writes.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import AccessError, BackendError, QueryError, SchemaError, SyncError, TransientError
from ..operation import Refusal
from ..query import Call, Condition, Literal, Node, register_sqlite_functions, to_sqlite
from ..query import Column as Named
from ..schema import SYSTEM_COLUMNS, Column, Schema, literal, quote, type_name
from ..texts import parsed, written
from . import sqlite_log
from .decide import THERE
from .sql import SqlBackend
from .sql_base import BATCH, Refused, Session, Table, Turns, given_types, missing_table, no_key
from .sql_read import searched
from .sqlite_connections import Connections, Held

LOCK_TIMEOUT_S = 5.0
_FUNCTION = re.compile(r"_syncframe_\w+\(")
_FUNCTION_FAILED = "user-defined function raised"
# SQLite lets one write at a time and wakes nobody who waits: threads of one process wait for each other here.
_WRITING = Turns(threading.Lock)
ARGUMENTS_MAX = 100  # of a SQL function

# What SQLite programs write and DuckDB has no name for, or means by it what SQLite does not.
_NAMES = {
    "INTEGER": "BIGINT",
    "INT": "BIGINT",
    "MEDIUMINT": "BIGINT",
    "BIGINT UNSIGNED": "UBIGINT",
    "UNSIGNED BIG INT": "UBIGINT",
    "REAL": "DOUBLE",
    "FLOAT": "DOUBLE",
    "CHARACTER": "VARCHAR",
    "VARYING CHARACTER": "VARCHAR",
    "NCHAR": "VARCHAR",
    "NATIVE CHARACTER": "VARCHAR",
    "NVARCHAR": "VARCHAR",
    "CLOB": "VARCHAR",
}
_LENGTH = re.compile(r"\s*\(\s*\d+\s*\)$")
_DECIMAL_TEXT = re.compile(r"DECTEXT\s*(\(.*\))", re.IGNORECASE)


def affinity(declared: str) -> str:
    """What SQLite makes of values in a column, by the five rules of https://sqlite.org/datatype3.html, 3.1."""
    upper = declared.upper()
    if "INT" in upper:
        return "integer"
    if any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        return "text"
    if "BLOB" in upper or not upper:
        return "blob"
    if any(word in upper for word in ("REAL", "FLOA", "DOUB")):
        return "real"
    return "numeric"


def column_of(name: str, declared: str, given: object = None, *, nullable: bool = True) -> Column:
    """Return the column that a declared type, or the type `given` in its stead, makes.

    Raises
    ------
    SchemaError
        If the type is none that is kept exactly, or the column has no declared type: it may hold anything.
    """
    if given is None and not declared:
        raise SchemaError(f"column {name!r} has no declared type")
    kind, labels = type_name(declared_name(declared) if given is None else given)
    column = Column(name, kind, nullable, labels)
    held = affinity(declared)
    if column.family == "float" and held == "text":
        raise SchemaError(f"column {name!r}: SQLite keeps 15 digits of a {kind} in a column declared {declared}")
    held_as = ""
    if column.family == "decimal" and held not in ("text", "blob"):
        held_as = "numeric"
    elif column.kind == "UBIGINT" and held != "text":
        held_as = "int64"
    elif column.family == "text" and kind != "UUID" and held not in ("text", "blob"):
        held_as = "numeric text"
    return Column(name, kind, nullable, labels, held_as)


def declared_name(declared: str) -> str:
    """The DuckDB name of a declared type; a type that is no SQLite habit stays as it is."""
    if match := _DECIMAL_TEXT.fullmatch(declared.strip()):
        return f"DECIMAL{match[1]}"
    plain = " ".join(_LENGTH.sub("", declared).upper().split())
    return _NAMES.get(plain, declared)


# Values


def encode(values: pa.Array | pa.ChunkedArray, column: Column, *, as_text: bool = False) -> list[Any]:
    """Return values as SQLite keeps them; NaN is NULL."""
    if column.family == "float":
        return _cells(pc.if_else(pc.is_nan(values), None, values))
    if column.family in ("bool", "int"):
        whole = values.cast(pa.int8()) if column.family == "bool" else values
        return _cells(whole.cast(pa.string()) if as_text else whole)
    if column.family == "bytes" or (column.family == "text" and column.kind != "UUID"):
        return _cells(values)
    return written(values, column)


def decode(values: Sequence[Any], column: Column, *, as_text: bool = False) -> pa.Array:
    """Return what SQLite keeps as values of `column`'s type.

    Raises pyarrow.ArrowInvalid, TypeError or ValueError if one does not fit; no value is rounded or cut.
    """
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values), column.arrow)
    if column.held_as in ("numeric", "numeric text") and kinds != {str}:
        values, kinds = [_number_text(value) for value in values], kinds - {int, float} | {str}
    if kinds != {str} if as_text else not kinds <= _HELD.get(column.family, {str}):
        raise TypeError(f"not a {column.type}")
    if column.family == "float":
        return _exactly(pa.array(values, pa.float64()), column.arrow)
    if column.family in ("bool", "int") and not as_text:
        whole = pa.array(values, pa.int64())
        return whole.cast(pa.uint8()).cast(pa.bool_()) if _is_flag(whole, column) else whole.cast(column.arrow)
    if column.family == "bytes" or (column.family == "text" and column.kind != "UUID"):
        return pa.array(values, column.arrow)
    return parsed(values, column)


_HELD: dict[str, set[type]] = {"bool": {int}, "int": {int}, "float": {float, int}, "bytes": {bytes}}


def _cells(values: pa.Array | pa.ChunkedArray) -> list[Any]:
    cells: list[Any] = values.to_pylist()
    return cells


def _number_text(value: Any) -> Any:
    """The text of a number that SQLite made of one; 15 digits are what it keeps of those it was given."""
    return format(value, ".15g") if isinstance(value, float) else str(value) if isinstance(value, int) else value


def _exactly(values: pa.Array, target: pa.DataType) -> pa.Array:
    narrow = values.cast(target)
    if not narrow.cast(values.type).equals(values):
        raise pa.ArrowInvalid(f"not a {target}")
    return narrow


def _is_flag(whole: pa.Array, column: Column) -> bool:
    if column.family != "bool":
        return False
    if pc.max(whole).as_py() > 1 or pc.min(whole).as_py() < 0:
        raise pa.ArrowInvalid("neither 0 nor 1")
    return True


def past_value(image: bytes | None, name: str, kind: str) -> Any:
    """A value of a row that is gone, as the table held it; NULL if nothing is known of it.

    Parameters
    ----------
    image
        What the log's triggers wrote, as bytes: a text that is no UTF-8 has no value, and the others have theirs.
    kind
        What a text in the image stands for: "blob", "real", "number" (a text that SQLite's NUMERIC affinity
        would have turned into a number) or "".
    """
    value = None if image is None else _image(image).get(name)
    if not isinstance(value, str):
        return value
    try:
        if kind == "blob":
            return bytes.fromhex(value)
        if kind == "real" or (kind == "number" and _REAL.fullmatch(value)):
            return float(value)
        value.encode()
    except ValueError:
        return None
    return value


@functools.lru_cache(maxsize=64)
def _image(image: bytes) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(image.decode(errors="surrogateescape"))
    return held


_REAL = re.compile(r"-?[0-9]+\.[0-9]+(e[+-][0-9]+)?")


def row_hash(*values: Any) -> str:
    """The version of an untracked row: equal for rows that hold the same, whatever is declared."""
    return hashlib.blake2b(repr(values).encode(), digest_size=10).hexdigest()


# Transactions


class _Session(Session):
    def __init__(self, held: Held, backend: SqliteBackend) -> None:
        self.held = held
        self.connection = held.connection
        self.backend = backend

    def _run(self, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
        self.backend.statements += 1
        if not self.held.has_functions and _FUNCTION.search(sql):
            # Putting them on the connection takes longer than most statements do.
            self.connection.create_function("_syncframe_hash", -1, row_hash, deterministic=True)
            self.connection.create_function("_syncframe_past", 3, past_value, deterministic=True)
            register_sqlite_functions(self.connection)
            self.held.has_functions = True
        return self.connection.execute(sql, parameters)

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        self._run(sql, parameters)

    def values(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        return self._run(sql, parameters).fetchall()

    def names(self) -> list[str]:
        rows = self.values("select name from sqlite_master where type = 'table' order by name")
        return [str(name) for (name,) in rows if not str(name).startswith("sqlite_")]

    def select(self, table: Table, sql: str, parameters: Sequence[object], columns: Sequence[Column]) -> pa.Table:
        held = list(zip(*self._fetched(sql, parameters), strict=True)) or [()] * len(columns)
        arrays = []
        for column, cells in zip(columns, held, strict=True):
            try:
                arrays.append(_checked(table, column, cells))
            except _MISFITS as error:
                if THERE not in (c.name for c in columns):
                    raise _misfit(table, column, columns, held) from error
                arrays.append(_without_past_misfits(table, column, columns, held, error))
        return pa.table(arrays, names=[column.name for column in columns])

    def _fetched(self, sql: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._run(sql, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if "decode to UTF-8" not in str(error):
                raise
        # Read again in a form that shows the broken text, so that the row with it can be named.
        self.held.is_kept = False
        self.connection.text_factory = lambda held: held.decode(errors="surrogateescape")
        return self._run(sql, parameters).fetchall()

    def load(self, name: str, table: Table, rows: pa.Table) -> None:
        columns = _loaded(table, rows)
        declared = [_declared(table, column) for column in columns]
        self._run(f"drop table if exists temp.{name}")
        self._run(f"create temp table {name} ({', '.join(declared)})")
        self.backend.statements += 1
        places = ", ".join("?" * len(columns))
        try:
            self.connection.executemany(f"insert into {name} values ({places})", zip(*columns.values(), strict=True))
        except OverflowError as error:
            raise Refused(Refusal("type", None, "a whole number of more than 63 bits")) from error

    def attempt(self, sql: str, positions: Sequence[int]) -> dict[int, Refusal]:
        refusal = self._tried(sql, positions[0], positions[-1])
        if refusal is None or len(positions) == 1:
            return {} if refusal is None else {positions[0]: refusal}
        singly = {position: self._tried(sql, position, position) for position in positions}
        return {position: refusal for position, refusal in singly.items() if refusal}

    def _tried(self, sql: str, first: int, last: int) -> Refusal | None:
        self.connection.execute("savepoint attempt")
        try:
            self._run(sql, [first, last])
        except sqlite3.Error as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            if not self.connection.in_transaction:  # ON CONFLICT ROLLBACK, or a trigger's RAISE(ROLLBACK)
                raise Refused(refusal, [first] if first == last else []) from error
            self.connection.execute("rollback to attempt")
            return refusal
        finally:
            if self.connection.in_transaction:
                self.connection.execute("release attempt")
        return None

    def bind(self, column: Column, value: pa.Scalar, declared: str) -> tuple[str, object]:
        return "?", encode(pa.array([value.as_py()], column.arrow), column, as_text=affinity(declared) == "text")[0]


@dataclass
class SqliteBackend(SqlBackend):
    """The tables of a SQLite file.

    Parameters
    ----------
    path
        The file.  Nothing touches it before the first call, and it is never created.
    schemas
        By table, types that replace the declared ones of some columns: a mapping name -> type, or a
        `pyarrow.Schema`.
    lock_timeout_s
        How long to wait for another program's write.
    """

    path: Path
    schemas: Mapping[str, Any] = field(default_factory=dict)
    lock_timeout_s: float = LOCK_TIMEOUT_S
    _connections: Connections = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._connections = Connections(self.path, self.lock_timeout_s)

    @contextmanager
    def session(self, *, write: bool = False) -> Iterator[_Session]:
        with _WRITING.of(self.path) if write else nullcontext():
            try:
                held = self._connections.take()
                held.connection.failures.clear()
                try:
                    held.connection.execute("begin immediate" if write else "begin")
                    yield _Session(held, self)
                    self._commit(held.connection)
                except BaseException as error:
                    # What is not committed is rolled back.
                    held.connection.close()
                    if _FUNCTION_FAILED in str(error) and not held.connection.failures:
                        raise KeyboardInterrupt from None
                    raise
                self._connections.give_back(held)
            except sqlite3.Error as error:
                raise self._translated(error) from error

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("commit")
        except sqlite3.IntegrityError as error:  # a constraint that is deferred
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise Refused(refusal) from error

    def _translated(self, error: sqlite3.Error) -> SyncError:
        code, words = _code(error), str(error)
        if code == sqlite3.SQLITE_CANTOPEN and not self.path.exists():
            return TransientError(
                f"the SQLite file {self.path} does not exist",
                hint="check the path: an absolute one makes four slashes, as in sqlite:////data/file.db",
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return TransientError(f"the SQLite file {self.path} is held by another program ({words})", detail=words)
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM):
            return TransientError(f"the SQLite file {self.path} cannot be read or written now: {words}", detail=words)
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
            return AccessError(f"the SQLite file {self.path} may not be written: {words}", status=403, detail=words)
        if _FUNCTION_FAILED in words:
            return QueryError("the condition cannot be computed for one of the rows: a division by zero, no time ...")
        return BackendError(f"the SQLite file {self.path}: {words}", hint="is it a SQLite file?", detail=words)

    # Tables

    def describe(self, session: Session, name: str) -> Table:
        if not isinstance(session, _Session):
            raise TypeError(session)
        ((version,),) = session.values("pragma schema_version")
        held = session.held
        if held.schema_version != version:
            held.schema_version, held.described = int(str(version)), {}
        if name not in held.described:
            held.described[name] = self._described(session, name)
        table: Table = held.described[name]
        return table

    def _described(self, session: Session, name: str) -> Table:
        rows = session.values(_DESCRIBE, [*sqlite_log.EVENTS, name])
        if not rows or name.lower().startswith(("sqlite_", "_syncframe")):
            raise missing_table(name, self.path, session)
        actual, triggers, has_log = str(rows[0][0]), rows[0][1], rows[0][2]
        declared = {str(row[3]): str(row[4]) for row in rows}
        schema = self._schema(actual, rows)
        return Table(
            actual,
            schema,
            declared,
            tracked=bool(has_log) and triggers == len(sqlite_log.EVENTS),
            collated=frozenset(str(row[3]) for row in rows if row[7] not in (None, "BINARY")),
            texts=frozenset(
                c.name for c in schema.columns if c.family in ("int", "bool") and affinity(declared[c.name]) == "text"
            ),
        )

    def _schema(self, table: str, rows: list[tuple[Any, ...]]) -> Schema:
        given = given_types(table, self.schemas.get(table, {}), [row[3] for row in rows])
        key = tuple(row[3] for row in sorted(rows, key=lambda row: row[6]) if row[6])
        if not key:
            raise no_key(table, "make a table with a primary key and copy the rows; SQLite cannot add one")
        try:
            columns = [
                column_of(name, declared, given.get(name), nullable=not (not_null or pk))
                for _, _, _, name, declared, not_null, pk, _ in rows
            ]
        except SchemaError as error:
            raise SchemaError(
                f"table {table!r}: {error.message}",
                hint=f'give a type: connect(..., schema={{"{table}": {{"column": "BIGINT"}}}})',
            ) from error
        return Schema(tuple(columns), key)

    def place_of_file(self) -> str:
        return f"sqlite:{self.path.resolve()}"

    def condition(self, condition: Condition, table: Table, column: Callable[[str], str]) -> tuple[str, list[object]]:
        tree = _in_sqlites_words(condition.tree, table)
        return to_sqlite(replace(condition, tree=tree), table.schema, lambda name: self._compared(table, name, column))

    def _compared(self, table: Table, name: str, column: Callable[[str], str]) -> str:
        is_number = name in table.texts and table.schema[name].kind != "UBIGINT"
        return f"cast({column(name)} as integer)" if is_number else column(name)

    def past(self, table: Table, column: Column) -> str:
        kinds = {"bytes": "blob", "float": "real"}
        kind = kinds.get(column.family, "number" if affinity(table.declared[column.name]) == "numeric" else "")
        return f"_syncframe_past(cast(log.image as blob), {literal(column.name)}, '{kind}')"

    def sortable(self, table: Table, column: Column, sql: str) -> str:
        if column.name in table.texts or column.family == "decimal":
            return f"_syncframe_key({sql})"
        if column.family in ("timestamp", "instant"):
            return f"_syncframe_moment({sql})"
        if column.family == "time":
            return f"_syncframe_clock({sql})"
        if column.family == "text":
            return f"{f'cast({sql} as text)' if column.held_as else sql} collate binary"
        return sql

    def stamp_since(self, session: Session, table: Table, moment: datetime.datetime, until: int) -> int:
        def is_late(written_at: object) -> bool:
            return datetime.datetime.fromisoformat(str(written_at)) >= moment

        return searched(session, table, until, "updated_at", [], is_late)

    def hashed(self, table: Table) -> str:
        # Texts go as bytes, for one that is not UTF-8 has no hash otherwise, and is to be named when it is read.
        names = [
            f"cast(t.{quote(name)} as blob)" if affinity(table.declared[name]) == "text" else f"t.{quote(name)}"
            for name in table.schema.names
        ]
        while len(names) > ARGUMENTS_MAX:
            names = [f"_syncframe_hash({', '.join(names[:ARGUMENTS_MAX])})", *names[ARGUMENTS_MAX:]]
        return f"_syncframe_hash({', '.join(names)})"

    # Tracking

    def track_statements(self, session: Session, table: Table) -> list[str]:
        return sqlite_log.track_statements(session, table)

    def untrack_statements(self, session: Session, table: Table) -> list[str]:
        return sqlite_log.untrack_statements(session, table)

    def settings_statements(self, session: Session) -> list[str]:
        return sqlite_log.settings_statements(session)

    def milliseconds(self, moment: str) -> str:
        return sqlite_log.milliseconds(moment)

    def publish_statement(self, table: Table) -> str:
        return sqlite_log.publish_statement(table)

    def close(self) -> None:
        """Let go of the connections that are kept."""
        self._connections.close()

    def record(self, session: Session, table: Table) -> None:
        """Triggers have written the entries; they leave the ids of operations alone."""
        session.execute(
            f"""
            update {table.log} as log set operation_ids = b.operation_ids
            from {BATCH} as b where {table.logs_key_of("b")}
            """
        )


_COMPARISONS = frozenset({"=", "<>", "<", "<=", ">", ">=", "is distinct from", "is not distinct from", "between", "in"})


def _in_sqlites_words(node: Node, table: Table) -> Node:
    """The tree with comparisons that SQLite can make itself, or that it makes otherwise with numbers held as text."""
    if not isinstance(node, Call):
        return node
    args = [_in_sqlites_words(arg, table) for arg in node.args]
    if node.op in _COMPARISONS:
        args = _as_stamps(args, table) or [_as_decimal(arg) if _has_large(args, table) else arg for arg in args]
    return replace(node, args=tuple(args))


def _as_stamps(args: Sequence[Node], table: Table) -> list[Node] | None:
    """`createdAt` and `updatedAt` compared with whole milliseconds, as the texts that they are in the log."""
    texts: list[Node] = []
    for arg in args:
        if (
            isinstance(arg, Named)
            and arg.family == "instant"
            and arg.name in SYSTEM_COLUMNS
            and arg.name not in table.schema
        ):
            texts.append(replace(arg, family="text", kind="VARCHAR"))
        elif (
            isinstance(arg, Literal) and isinstance(arg.value, datetime.datetime) and not arg.value.microsecond % 1_000
        ):
            texts.append(Literal(sqlite_log.stamp_text(arg.value), "text"))
        else:
            return None
    return texts


def _has_large(args: Sequence[Node], table: Table) -> bool:
    return any(isinstance(arg, Named) and arg.kind == "UBIGINT" and arg.name in table.texts for arg in args)


def _as_decimal(node: Node) -> Node:
    if node.family != "int":
        return node
    if isinstance(node, Literal):
        return Literal(None if node.value is None else Decimal(node.value), "decimal")
    return Call("to decimal", (node,), "decimal")


# A generated column cannot be written, and is left out.
_DESCRIBE = """
    select
        m.name,
        (
            select count(*) from sqlite_master as o
            where o.type = 'trigger' and o.tbl_name = m.name
            and o.name in ('_syncframe_' || ? || '_' || m.name, '_syncframe_' || ? || '_' || m.name,
                           '_syncframe_' || ? || '_' || m.name, '_syncframe_' || ? || '_' || m.name)
        ),
        exists (select 1 from sqlite_master as o where o.type = 'table' and o.name = '_syncframe_log_' || m.name),
        x.name, x.type, x."notnull", x.pk,
        (
            select i.coll from pragma_index_list(m.name) as l, pragma_index_xinfo(l.name) as i
            where l.origin = 'pk' and i.key and i.name = x.name
        )
    from sqlite_master as m, pragma_table_xinfo(m.name) as x
    where m.type in ('table', 'view') and m.name = ? collate nocase and x.hidden = 0
    order by x.cid
"""


def _loaded(table: Table, rows: pa.Table) -> dict[str, list[Any]]:
    """The columns of a temporary table, in SQLite's form."""
    held = {}
    for name in rows.column_names:
        if name[:2] in ("k_", "l_"):
            column = table.schema[name[2:]]
            held[name] = encode(rows[name].cast(column.arrow), column, as_text=column.name in table.texts)
        else:
            held[name] = _cells(rows[name])
    return held


def _declared(table: Table, name: str) -> str:
    """A key has its column's affinity, for an index to serve it; a value is held as it comes."""
    if name == "position":
        return "position integer primary key"
    return f"{quote(name)} {table.declared[name[2:]]}" if name.startswith("k_") else quote(name)


def _checked(table: Table, column: Column, cells: Sequence[Any]) -> pa.Array:
    array = decode(cells, column, as_text=column.name in table.texts)
    if column.name in table.schema.key and (array.null_count or not _is_normal(table, column, cells, array)):
        raise ValueError("not a key")
    return array


def _is_normal(table: Table, column: Column, cells: Sequence[Any], array: pa.Array) -> bool:
    """Whether a key is written as syncframe would: to SQLite a key that is written in two ways is two keys."""
    if column.family not in ("text", "decimal", "date", "time", "timestamp", "instant"):
        return True
    return encode(array, column, as_text=column.name in table.texts) == list(cells)


def _misfit(table: Table, column: Column, columns: Sequence[Column], held: Sequence[Sequence[Any]]) -> BackendError:
    """Name the row and the value that does not fit its column's type."""
    cells = held[[c.name for c in columns].index(column.name)]
    index = next(index for index, cell in enumerate(cells) if not _fits(table, column, cell))
    key = {c.name: held[place][index] for place, c in enumerate(columns) if c.name in table.schema.key}
    found = f"column {column.name!r} holds {cells[index]!r}, {_complaint(column, cells[index])}"
    return BackendError(
        f"table {table.name!r}, row {key}: {found}",
        hint=f'mend the row, or give another type: connect(..., schema={{"{table.name}": {{"{column.name}": ...}}}})',
    )


def _without_past_misfits(
    table: Table, column: Column, columns: Sequence[Column], held: Sequence[Sequence[Any]], error: Exception
) -> pa.Array:
    """Once more, with NULL for what does not fit of rows that are gone, for nobody can mend them."""
    places = [c.name for c in columns]
    cells, there = held[places.index(column.name)], held[places.index(THERE)]
    mended = [
        cell if is_there or _fits(table, column, cell) else None for cell, is_there in zip(cells, there, strict=True)
    ]
    try:
        return _checked(table, column, mended)
    except _MISFITS:
        raise _misfit(
            table, column, columns, [*held[: places.index(column.name)], mended, *held[places.index(column.name) + 1 :]]
        ) from error


def _fits(table: Table, column: Column, cell: Any) -> bool:
    try:
        _checked(table, column, [cell])
    except _MISFITS:
        return False
    return True


def _complaint(column: Column, cell: Any) -> str:
    try:
        normal = encode(decode([cell], column), column)[0]
    except _MISFITS:
        return f"which is no {column.type}"
    return "and a key is never NULL" if normal is None else f"and as a key it has to be written {normal!r}"


_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError)


# What a driver says


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


_CONSTRAINTS = {
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "reference",
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "unique",
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "unique",
    sqlite3.SQLITE_CONSTRAINT_ROWID: "unique",
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "not null",
    sqlite3.SQLITE_CONSTRAINT_CHECK: "check",
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: "trigger",
    sqlite3.SQLITE_MISMATCH: "type",
}
_FAULTS = (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_ERROR)
_TYPE_WORDS = re.compile(r"cannot store .* in .* column (.+)$")
_COLUMN_WORDS = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: [^,]*\.([^,]+)$")


def _refusal(error: sqlite3.Error) -> Refusal | None:
    """Why a statement was refused; None if it is not the statement's fault."""
    words, code = str(error), int(getattr(error, "sqlite_errorcode", 0))
    if match := _TYPE_WORDS.search(words):
        return Refusal("type", match[1].rpartition(".")[2], words)
    if _code(error) in _FAULTS:
        column = _COLUMN_WORDS.search(words)
        return Refusal(_CONSTRAINTS.get(code, "refused"), column[1] if column else None, words)
    return None
