"""A SQL database as its back ends see it: tables, an open transaction, and what each database brings.

A tracked table has a change log beside it, one entry for each key that is there or was: its stamp
rises with every write, so that what changed after a checkpoint is a range of it, and its version is
the row's.  The table itself gets nothing added.  An untracked table is read in full each time, and
its rows' versions are hashes of what they hold.

Statements are in the SQL that all databases understand.  Aliases: `t` the table, `log` its log, `k` the
keys that are asked for, `b` the batch that is applied.  Logs, keys and batches have a key's columns as
`k_<name>`, as Operations do.
"""

from __future__ import annotations

import datetime
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BackendError, QueryError, SchemaError
from ..operation import Refusal
from ..query import Condition, Query
from ..schema import RESERVED_PREFIX, Column, Schema, quote, shown
from .base import DELETED, page_schema
from .decide import STATE, THERE, conformed

L = TypeVar("L")
KEYS, BATCH = "_syncframe_keys", "_syncframe_batch"
SETTINGS = "_syncframe_settings"
LAST_STAMP = 2**63 - 1
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
    def sql(self) -> str:
        """The table in a statement."""
        return quote(self.name)

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

    @property
    def entry(self) -> str:
        """What the settings call the table, whatever a user does."""
        return self.name

    @property
    def whole(self) -> str:
        """All that is read of a row, where a statement reads it for another one around it."""
        return "*"

    def has_key_of(self, other: str) -> str:
        """The condition that a row of the table has the key that `other` names."""
        pairs = {name: f"t.{quote(name)} = {other}.{quote(f'k_{name}')}" for name in self.schema.key}
        # The first terms are for the index, whose collation is the column's; these are for the truth.
        exact = [f"{pair} collate binary" for name, pair in pairs.items() if name in self.collated]
        return " and ".join([*pairs.values(), *exact])

    def logs_key_of(self, other: str) -> str:
        return " and ".join(f"log.{key} = {other}.{key}" for key in self.keys)


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

    def keys(self, table: Table, keys: pa.Table) -> tuple[str, list[object]]:
        """Return keys `k_<name>` as SQL that bears them and their `position`, and its parameters."""
        self.load(KEYS, table, keys.append_column("position", pa.array(range(len(keys)))))
        return KEYS, []

    @abstractmethod
    def attempt(self, sql: str, positions: Sequence[int]) -> dict[int, Refusal]:
        """Run a statement on the batch between two positions, and return what was refused of it.

        Raises Refused where the database gives up the whole transaction.
        """

    @abstractmethod
    def bind(self, column: Column, value: pa.Scalar, declared: str) -> tuple[str, object]:
        """A value as a placeholder and its parameter."""


class Database(ABC):
    """What a database brings, and what all that ask it share."""

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

    def cell(self, table: Table, name: str, sql: str) -> str:
        """A column's SQL in a form that the driver brings exactly."""
        return sql

    @abstractmethod
    def settings_statements(self, session: Session) -> list[str]:
        """The SQL that makes the settings, or adds what an earlier version had not."""

    @abstractmethod
    def milliseconds(self, moment: str) -> str:
        """A time of the log as whole milliseconds since 1970, none earlier than it, as SQL."""

    @abstractmethod
    def publish_statement(self, table: Table) -> str:
        """The SQL that gives the entries above a stamp the milliseconds from one on: parameters (ms, stamp)."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""

    # Statements

    def names(self, table: Table, *, log: bool = False, past: bool = False) -> Callable[[str], str]:
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

    def any_of(self, table: Table, queries: Sequence[Query]) -> tuple[str, list[object]]:
        """Whether a row matches one of the queries, as SQL that is never NULL."""
        texts, parameters = ["false"], []
        for query in queries:
            if query.where is None:
                return "true", []
            text, bound = self.condition(query.where, table, self.names(table))
            texts.append(f"coalesce({text}, false)")
            parameters += bound
        return f"({' or '.join(texts)})", parameters

    def lookup(self, session: Session, table: Table, keys: pa.Table, *, past: bool = False) -> pa.Table:
        """What is there of these keys, in their order: STATE and the value columns, with `past` of tombstones too."""
        asked, parameters = session.keys(table, keys)
        log = f"left join {table.log} as log on {table.logs_key_of('k')}" if table.tracked else ""
        values, named = table.schema.value_columns, self.names(table, past=past and table.tracked)
        sql = f"""
            select {state(table, self.hashed(table))}
                {"".join(f", {self.cell(table, c.name, named(c.name))}" for c in values)}
            from {asked} as k {log} left join {table.sql} as t on {table.has_key_of("k")}
            order by k.position
        """
        return session.select(table, sql, parameters, [*STATE, *values])

    def columns_of(self, table: Table, schema: Schema, key_alias: str, alias: str) -> str:
        """The columns in `ordered`'s order; the key is the log's where a row may be gone."""
        prefix = "k_" if key_alias == "log" else ""
        named = [(name, f"{key_alias}.{quote(prefix + name)}") for name in schema.key]
        named += [(name, f"{alias}.{quote(name)}") for name in schema.values]
        return ", ".join(self.cell(table, name, sql) for name, sql in named)


def missing_table(name: str, path: object, session: Session) -> BackendError:
    known = shown(n for n in session.names() if not n.lower().startswith(RESERVED_PREFIX))
    return BackendError(
        f"table {name!r} is not in {path}, which has {known or 'no tables'}", hint="check the spelling", status=404
    )


def settings_are_gone(table: Table) -> BackendError:
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


def state(table: Table, version: str = "") -> str:
    """STATE as SQL; an untracked table has but its rows' hashes."""
    if table.tracked:
        return f"{table.there}, log.stamp, log.version, log.operation_ids, log.created_at, log.updated_at"
    return f"{table.there}, null, case when {table.there} then {version} end, null, null, null"


def ordered(schema: Schema) -> list[Column]:
    return [*schema.key_columns, *schema.value_columns]


def as_rows(found: pa.Table, schema: Schema) -> pa.Table:
    return conformed(found.append_column(DELETED, pc.invert(found[THERE])), page_schema(schema))
