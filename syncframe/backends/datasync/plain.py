"""A foreign Datasync service, in the plain protocol of its dialect: lists, and a request for each row written.

It tells no types, keeps no operation ids and names no rows that left a filter: the types are given or taken from
its rows, one's own writes are known by what they wrote, and what left is found by asking twice.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from ...errors import CheckpointLost, QueryError, SchemaError
from ...query import Condition, Order, Query, Read, to_odata
from ...schema import Column, Schema, shown
from ...wire import CREATED_AT, DELETED, ID, SYSTEM, UPDATED_AT, VERSION, Wire
from ..base import Checkpoint, Operations, Outcomes, Page, Promises, page_schema
from ..decide import conformed
from .dialect import NAME, V2, Dialect, both, column, text
from .infer import as_held, given_schema, inferred_schema
from .lists import TOP_USUAL, Lists, Object, check_stale, id_of
from .place import State
from .plain_pull import PlainPull, keys
from .plain_push import PlainPush
from .transport import Transport

# What is true of each row and what Node.js over SQLite says of none, without an error: it adds the texts as numbers,
# and takes the type in `mod` for a column that is not there.
TRIED = {
    "startswith": "startswith(id,'')",
    "endswith": "endswith(id,'')",
    "substringof": "substringof('',id)",
    "mod": "(5 mod 2) eq 1",
}
_WORD = re.compile(r"'(?:[^']|'')*'|([A-Za-z_]\w*)")
COMPARED_S = 24 * 3600.0
READ_TOP = 1_000


class Plain:
    """The verbs of a back end, asked of a plain service.

    Parameters
    ----------
    given
        The schemas that were given, by table.
    memory
        Where the types that rows were found to have are kept, so that they are the same the next time.
    clock
        Seconds since 1970, for the daily comparison.
    """

    promises = Promises(sees_deletes=True, sees_late_commits=False, exact_types=False, atomic_push=False)

    def __init__(
        self,
        transport: Transport,
        dialect: Dialect,
        given: Mapping[str, Any],
        memory: MutableMapping[str, str],
        *,
        overlap_s: float,
        in_flight: int,
        clock: Callable[[], float],
    ) -> None:
        self.dialect = dialect
        self._lists = Lists(transport, dialect)
        self._base = transport.base
        self._given, self._memory = given, memory
        self._overlap_s, self._in_flight, self._clock = overlap_s, in_flight, clock
        self._schemas: dict[str, Schema] = {}
        self._fields: dict[str, frozenset[str]] = {}  # the names that a table's rows have on the wire
        self._guessed: dict[str, frozenset[str]] = {}  # columns taken for text, for no row had a value
        self._works: set[str] = set()  # the functions of `TRIED` that were found to
        self._lock = threading.Lock()

    def identity(self) -> str:
        return self._base

    def aliases(self) -> list[str]:
        return []

    # Schema

    def schema(self, table: str) -> Schema:
        """The schema as it was given, or as the first rows have it; it stays the same from then on.

        Raises
        ------
        BackendError
            With status 404 if there is no such table.
        SchemaError
            If a column has values of several kinds, or a type was given for one that is not there.
        """
        with self._lock:
            if table not in self._schemas:
                given = given_schema(table, self._given[table]) if table in self._given else None
                # A Schema is whole; types by column go over those that the rows show.
                is_whole = given is not None and isinstance(self._given[table], Schema)
                schema = given if given is not None and is_whole else self._inferred(table, given)
                if len(schema.columns) == 1 and given is None:
                    return schema  # a table without rows tells nothing yet
                self._schemas[table] = schema
            return self._schemas[table]

    def _inferred(self, table: str, given: Schema | None) -> Schema:
        objects = self._lists.own().page(table, top=TOP_USUAL).objects
        self._note_fields(table, objects)
        schema, guessed = inferred_schema(table, objects, given)
        self._guessed[table] = guessed
        name = f"{self._base} types of {table}"
        known = json.loads(self._memory.get(name) or "{}")
        known = {column: kind for column, kind in known.items() if given is None or column not in given}
        schema = as_held(Schema(tuple(_remembered(c, known) for c in schema.columns), schema.key))
        told = {c.name: c.type for c in schema.value_columns if c.name not in guessed or c.name in known}
        if told and told != known:
            self._memory[name] = json.dumps(known | told)
        return schema

    def _note_fields(self, table: str, objects: Sequence[Object]) -> None:
        if objects:
            self._fields[table] = frozenset(name for found in objects for name in found)

    # Pull

    def pull(self, table: str, query: Query, since: Checkpoint | None, others: Sequence[Query] = ()) -> Iterator[Page]:
        """Yield what changed after `since`; see `plain_pull`.

        Raises
        ------
        CheckpointLost
            If keys and versions were last compared in full more than a day ago: rows that were committed very
            late, and deletes of a table that forgets them, are seen by that alone.
        QueryError
            If the dialect cannot say the condition.
        """
        pull = self._prepared(table, query)
        now = self._clock()
        if since is None:
            yield from pull.run(pull.note(now))
            return
        state = State.of(since)
        if state.live is None and now - state.full_at > COMPARED_S:
            then = datetime.fromtimestamp(state.full_at, UTC)
            raise CheckpointLost(f"table {table!r} was last compared in full on {then:%Y-%m-%d at %H:%M} UTC")
        yield from pull.run(state)

    def keys(self, table: str, query: Query) -> Iterator[Page]:
        """Yield keys and versions of all rows that match; a pull after their checkpoint brings what changed since."""
        pull = self._prepared(table, query)
        yield from keys(pull, pull.note(self._clock()))

    def _prepared(self, table: str, query: Query) -> PlainPull:
        schema = self.schema(table)
        where = self._filter(table, query.where, schema)
        wanted = schema if query.columns is None else schema.select(query.columns)
        return PlainPull(
            self._lists.own(exact=_has_decimals(wanted)), table, Wire(wanted, is_foreign=True), where,
            self._select(table, wanted, schema), query.page_rows, self._overlap_s,
        )  # fmt: skip

    def _filter(self, table: str, condition: Condition | None, schema: Schema) -> str | None:
        if condition is None:
            return None
        where = to_odata(condition, self.dialect.odata, schema)
        if self.dialect is V2:
            for name in sorted({*_WORD.findall(where)} & TRIED.keys() - self._works):
                self._try(table, name)
        return where

    def _try(self, table: str, name: str) -> None:
        """Ask once whether a function of filters works; one that finds nothing would be taken for an empty table."""
        lists = self._lists.own()
        if lists.page(table, where=TRIED[name], top=1, deleted=True, counted=False, is_asked=True).objects:
            self._works.add(name)
        elif lists.page(table, top=1, deleted=True, counted=False).objects:
            raise QueryError(
                f"the service does not take this condition: its {name} finds no row, whatever is asked for",
                hint="ask with comparisons, such as name >= 'A' and name < 'B'",
            )

    def _select(self, table: str, wanted: Schema, schema: Schema) -> list[str] | None:
        """What to ask for by name; None: everything.

        A service of v2 answers a name that it does not know with no rows at all, so that system columns are
        named only where rows were seen to have them.
        """
        if wanted.names == schema.names or not all(NAME.fullmatch(name) for name in wanted.names):
            return None
        if table not in self._fields:
            self._note_fields(table, self._lists.own().page(table, top=1, deleted=True).objects)
        fields = self._fields.get(table, frozenset())
        if not {VERSION, UPDATED_AT, *wanted.values} <= fields:
            return None
        system = [name for name in (VERSION, UPDATED_AT, CREATED_AT, DELETED) if name in fields]
        return [ID, *(name for name in wanted.names if name in fields and name != ID), *system]

    # Push

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        """Send each operation in a request of its own; see `plain_push`."""
        wire = Wire(_combined(self.schema(batch.table), batch.schema), is_foreign=True)
        guessed = self._guessed.get(batch.table, frozenset())
        return PlainPush(self._lists.own(exact=True), wire, batch, self._in_flight, guessed).run()

    # Remote tables

    def rows(self, table: str, keys: pa.Table) -> pa.Table:
        """Rows by key, as in a page and in the keys' order, tombstones included."""
        schema = self.schema(table)
        wire = Wire(schema, is_foreign=True)
        ids = wire.ids(conformed(keys, pa.schema([pa.field(c.name, c.arrow) for c in schema.key_columns])))
        found = self._lists.own(exact=_has_decimals(schema)).found(table, list(dict.fromkeys(ids)))
        return conformed(wire.table([found[id_] for id_ in ids if id_ in found]), page_schema(schema))

    def read(self, table: str, read: Read) -> pa.Table:
        """The rows that a remote table asks for, page by page."""
        schema = self.schema(table)
        wanted = schema.select(read.columns) if read.columns is not None else schema
        wire, parts = Wire(wanted, is_foreign=True), [page_schema(wanted).empty_table()]
        for objects in self._read_pages(table, read, schema, wanted):
            parts.append(conformed(wire.table(objects), page_schema(wanted)))
        return pa.concat_tables(parts)

    def _read_pages(self, table: str, read: Read, schema: Schema, wanted: Schema) -> Iterator[list[Object]]:
        lists = self._lists.own(exact=_has_decimals(wanted))
        where, select = self._filter(table, read.where, schema), self._select(table, wanted, schema)
        order = ",".join(_order(read.order_by, schema))
        left, skip, after = read.limit, read.offset, None
        seen: set[str] = set()
        stale = 0
        while left is None or left > 0:
            page = lists.page(
                table, where=_behind(where, after), order=order, skip=skip, select=select,
                top=READ_TOP if left is None else min(left, READ_TOP), deleted=read.include_deleted,
                is_asked=where is not None,
            )  # fmt: skip
            objects = page.objects if left is None else page.objects[:left]
            yield objects
            left = None if left is None else left - len(objects)
            if page.is_last:
                return
            fresh = {id_of(table, found) for found in objects} - seen
            stale = 0 if fresh else stale + 1
            check_stale(table, stale)
            seen |= fresh
            if read.order_by:
                skip += len(objects)
            else:
                skip, after = 0, id_of(table, objects[-1])

    def count(self, table: str, read: Read) -> int:
        """How many rows match."""
        schema = self.schema(table)
        where = self._filter(table, read.where, schema)
        lists = self._lists.own()
        first = lists.page(
            table, where=where, top=1, select=[ID], deleted=read.include_deleted, is_asked=where is not None
        )
        if first.count is not None:
            return first.count
        pages = lists.by_id(table, where=where, select=[ID], deleted=read.include_deleted)
        return sum(len(page.objects) for page in pages)


def _remembered(found: Column, known: Mapping[str, str]) -> Column:
    return replace(found, type=known[found.name]) if found.name in known else found


def _combined(there: Schema, sent: Schema) -> Schema:
    """The columns that are sent, and how the service holds them."""
    if there.key != sent.key:
        raise SchemaError(f"the key is {sent.key} here and {there.key} at the service")
    return as_held(sent)


def _has_decimals(schema: Schema) -> bool:
    return any(c.family == "decimal" for c in schema.columns)


def _order(orders: Sequence[Order], schema: Schema) -> list[str]:
    """What to sort by, ties by the id; each column once, for of one that is named twice Node.js takes the last."""
    directions: dict[str, str] = {}
    for order in orders:
        if order.column not in (*schema.names, *SYSTEM):
            raise QueryError(f"there is no column {order.column!r} to sort by", hint=f"there are {shown(schema.names)}")
        name = ID if schema.key == (order.column,) else column(order.column)
        directions.setdefault(name, f"{name} desc" if order.descending else name)
    return [*directions.values(), *([] if ID in directions else [ID])]


def _behind(where: str | None, after: str | None) -> str | None:
    return both(where, None if after is None else f"id gt {text(after)}")
