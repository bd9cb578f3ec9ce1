"""The local store: the rows as last known from the back end, their queries, and what the file remembers.

Rows, queue and checkpoint that belong together change in one transaction.  One rule keeps operations
what they are: the row of a key that has an edit is written by the queue (rebase, settle, giving up) only;
a page, a sweep or a leaver says `anti join edits`, for an operation's kind follows from whether its base
is there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from .errors import BackendError, PendingError, QueryError, SchemaError, StoreError, SyncError
from .file import MEMORY, Cursor, StoreFile
from .layout import META, SCHEMAS, Layout
from .query import Condition, parse, to_duckdb
from .schema import SYSTEM_COLUMNS, Column, Schema, literal, quote, shown

FORMAT = 1
UNDO_STEPS = 20
LEASE = dt.timedelta(minutes=15)  # longer than any one batch takes; a dead process's lease ends at once
# What a page has beside its table's columns, each named `_syncframe_...`.
_PAGE_TYPES = {
    "version": "varchar", "deleted": "boolean", "operation": "varchar", "created": "timestamptz",
    "updated": "timestamptz", "part": "integer",
}  # fmt: skip
PART = "_syncframe_part"


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """One logical query of a table and how far it has been pulled."""

    name: str
    query_id: str | None
    where: str | None
    checkpoint: str | None
    complete: bool
    run: int
    sweeping: bool


@dataclass(frozen=True, slots=True)
class TableState:
    """What the store remembers of a synced table."""

    schema: Schema
    kept: tuple[str, ...] | None
    tracked: bool | None
    together: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """Rows as they are here: an Arrow table of the columns asked for, and the store's revision then."""

    rows: pa.Table
    revision: int


def query_name(query_id: str | None, where: str | None) -> str:
    """The name under which a query is kept; full pulls are told apart by their condition."""
    return f"id:{query_id}" if query_id is not None else f"where:{where or ''}"


class Store:
    """The local DuckDB file of a sync context.

    Parameters
    ----------
    path
        The file, or ":memory:"; made where there is none.
    lock_timeout_s
        How long to wait while another process holds the file, in seconds.

    Raises
    ------
    StoreError
        If the file is damaged, is no store, is newer than this version, or is held for too long.
    """

    def __init__(self, path: str | os.PathLike[str], lock_timeout_s: float = 5.0) -> None:
        self.file = StoreFile.named(path)
        self.lock_timeout_s = lock_timeout_s
        is_new = not self.file.exists
        with self.transaction() as cursor:
            self._create_or_check(cursor)
            self.id = str(cursor.one(f"select store_id from {META}.store"))
        if is_new and self.file.path != MEMORY:
            Path(self.file.path).chmod(0o600)  # a copy of other people's rows

    @property
    def path(self) -> str:
        return self.file.path

    @contextlib.contextmanager
    def reading(self) -> Iterator[Cursor]:
        with self.file.held(self.lock_timeout_s) as cursor:
            yield cursor

    @contextlib.contextmanager
    def looking(self) -> Iterator[Cursor]:
        """Hold the file for a query of the user's, which may write nothing."""
        with self.file.looking(self.lock_timeout_s) as cursor:
            yield cursor

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Cursor]:
        with self.file.transaction(self.lock_timeout_s) as cursor:
            yield cursor

    def _create_or_check(self, cursor: Cursor) -> None:
        schemas = {
            row[0] for row in cursor.rows("select schema_name from duckdb_schemas() where database_name = 'store'")
        }
        if META not in schemas:
            tables = cursor.rows("select table_name from duckdb_tables() where database_name = 'store'")
            if tables:
                raise StoreError(
                    f"{self.path} is a DuckDB file with tables of its own, not a store",
                    hint="name another file; to use this database as a back end: connect('duckdb:///...', store=...)",
                )
            self._create(cursor)
        found = cursor.one(f"select format from {META}.store")
        if found > FORMAT:
            raise StoreError(
                f"the store {self.path} has format {found}, newer than this version's {FORMAT}",
                hint="pip install -U syncframe",
            )
        # It came with a later version of this format.
        cursor.run(f"create table if not exists {META}.memory (name varchar, value varchar)")

    def _create(self, cursor: Cursor) -> None:
        for schema in (*SCHEMAS, "syncframe"):
            cursor.run(f"create schema {schema}")
        cursor.run(
            f"""create table {META}.store (store_id varchar, format integer, backend varchar, url varchar,
                created_at timestamptz, rev bigint, sequence bigint, pushes bigint)"""
        )
        cursor.run(
            f"insert into {META}.store values (?, ?, null, null, ?, 0, 0, 0)", [str(uuid.uuid4()), FORMAT, utc_now()]
        )
        cursor.run(
            f"""create table {META}.tables (name varchar, schema varchar, kept varchar, tracked boolean,
                together varchar, last_pull timestamptz, last_push timestamptz)"""
        )
        cursor.run(
            f"""create table {META}.queries (table_name varchar, name varchar, query_id varchar, filter varchar,
                checkpoint varchar, complete boolean, run bigint, sweeping boolean, pulled_at timestamptz)"""
        )
        cursor.run(
            f"""create table {META}.history (staging bigint, time timestamptz, action varchar, "table" varchar,
                rows bigint, note varchar, can_undo boolean)"""
        )
        cursor.run(f"create table {META}.lease (holder varchar, pid bigint, until timestamptz)")
        create_views(cursor, [])

    # -- the store's clock and history

    def tick(self, cursor: Cursor, sequences: int = 0) -> tuple[int, int]:
        """Begin a new revision; return it and the first of `sequences` new places in the queue."""
        cursor.run(f"update {META}.store set rev = rev + 1, sequence = sequence + ?", [sequences])
        rev, last = cursor.rows(f"select rev, sequence from {META}.store")[0]
        return rev, last - sequences + 1

    def record(
        self,
        cursor: Cursor,
        action: str,
        table: str | None,
        rows: int,
        note: str | None = None,
        staging: int | None = None,
    ) -> None:
        """Write one line of history; with a `staging` it can be undone."""
        cursor.run(
            f"insert into {META}.history values (?, ?, ?, ?, ?, ?, ?)",
            [staging, utc_now(), action, table, rows, note, staging is not None],
        )

    def history(self) -> pa.Table:
        with self.reading() as cursor:
            return cursor.arrow(f'select time, action, "table", rows, note from {META}.history order by time')

    # -- identity

    def backend(self, cursor: Cursor) -> str | None:
        """The identity of the back end that this store belongs to; None before the first answer."""
        identity: str | None = cursor.one(f"select backend from {META}.store")
        return identity

    def belong(self, identity: str, aliases: Collection[str], url: str, pending: int) -> str | None:
        """Remember which back end this store belongs to; return words where it is another one than before.

        Parameters
        ----------
        identity, aliases
            What it is called now, and was called before.
        url
            For people.
        pending
            How many operations wait.

        Raises
        ------
        PendingError
            If it is another one than before while operations are pending; names both.
        """
        with self.transaction() as cursor:
            known, known_url = cursor.rows(f"select backend, url from {META}.store")[0]
            if known == identity:
                return None
            if known in aliases:
                cursor.run(f"update {META}.store set backend = ?, url = ?", [identity, url])
                return None
            if known is not None and pending:
                raise PendingError(
                    f"{pending} operations are pending for {known_url}, and this is {_another(str(known_url), url)}",
                    hint=f"connect to {known_url}, or give them up with discard()",
                )
            if known is not None:
                self._forget_checkpoints(cursor)
            cursor.run(f"update {META}.store set backend = ?, url = ?", [identity, url])
            return None if known is None else f"this store belonged to {known_url}; its rows are those of {url} now"

    def _forget_checkpoints(self, cursor: Cursor) -> None:
        # Places in another back end's order of changes mean nothing here; the rows are compared by a full pull.
        cursor.run(f"update {META}.queries set checkpoint = null, complete = false")

    def remembered(self, name: str) -> str | None:
        """What was remembered under a name."""
        with self.reading() as cursor:
            value: str | None = cursor.one(f"select max(value) from {META}.memory where name = ?", [name])
            return value

    def remember(self, name: str, value: str | None) -> None:
        """Keep a text that is no secret under a name; None forgets it."""
        with self.transaction() as cursor:
            cursor.run(f"delete from {META}.memory where name = ?", [name])
            if value is not None:
                cursor.run(f"insert into {META}.memory values (?, ?)", [name, value])

    # -- tables

    def known(self, table: str) -> str:
        """A table's name.

        Raises
        ------
        SyncError
            If the store does not know it; names those that it knows.
        """
        tables = self.tables()
        if table not in tables:
            raise SyncError(f"table {table!r} is not in this store", hint=f"it has {shown(tables) or 'none yet'}")
        return table

    def tables(self) -> list[str]:
        with self.reading() as cursor:
            return [row[0] for row in cursor.rows(f"select name from {META}.tables order by name")]

    def state(self, table: str) -> TableState | None:
        with self.reading() as cursor:
            return self._state(cursor, table)

    def _state(self, cursor: Cursor, table: str) -> TableState | None:
        rows = cursor.rows(f"select schema, kept, tracked, together from {META}.tables where name = ?", [table])
        if not rows:
            return None
        schema, kept, tracked, together = rows[0]
        groups = tuple(tuple(group) for group in json.loads(together or "[]"))
        return TableState(Schema.from_json(schema), tuple(json.loads(kept)) if kept else None, tracked, groups)

    def schema(self, table: str) -> Schema | None:
        state = self.state(table)
        return state.schema if state else None

    def layout(self, cursor: Cursor, table: str) -> Layout:
        """The names of a table's parts.

        Raises
        ------
        SchemaError
            While no schema of the table is known.
        """
        state = self._state(cursor, table)
        if state is None:
            raise unknown_schema(table)
        return Layout(table, state.schema)

    def layouts(self, cursor: Cursor, tables: Iterable[str] | None = None) -> list[Layout]:
        wanted = None if tables is None else set(tables)
        rows = cursor.rows(f"select name, schema from {META}.tables order by name")
        return [Layout(n, Schema.from_json(s)) for n, s in rows if wanted is None or n in wanted]

    def define(self, table: str, schema: Schema, kept: Sequence[str] | None = None) -> Schema:
        """Make a table's parts, or take the columns that it has gained; return the schema that is kept here.

        Parameters
        ----------
        schema
            All columns that the back end has.
        kept
            The columns asked for; None: all.  What is kept belongs to the table: the union of what its
            queries asked for, and widening it starts their checkpoints anew.
        """
        with self.transaction() as cursor:
            state = self._state(cursor, table)
            if state is None:
                self._check_name(cursor, table)
                chosen = schema if kept is None else schema.select(kept)
                for statement in Layout(table, chosen).definitions():
                    cursor.run(statement)
                cursor.run(
                    f"insert into {META}.tables (name, schema, kept) values (?, ?, ?)",
                    [table, chosen.to_json(), None if kept is None else json.dumps(list(kept))],
                )
                create_views(cursor, self.layouts(cursor))
                return chosen
            if kept is not None:
                schema.select(kept)  # names those that are unknown
            union = None if kept is None or state.kept is None else tuple(dict.fromkeys((*state.kept, *kept)))
            chosen = schema if union is None else schema.select(union)
            if chosen != state.schema:
                self._evolve(cursor, table, state.schema, chosen)
            cursor.run(
                f"update {META}.tables set schema = ?, kept = ? where name = ?",
                [chosen.to_json(), None if union is None else json.dumps(union), table],
            )
            return chosen

    def _check_name(self, cursor: Cursor, table: str) -> None:
        if table.lower().startswith("_syncframe") or not table:
            raise SchemaError(
                f"table {table!r}: names that begin with '_syncframe' are reserved", hint="give the table another name"
            )
        twins = cursor.rows(f"select name from {META}.tables where lower(name) = lower(?)", [table])
        if twins:
            raise SchemaError(
                f"tables {twins[0][0]!r} and {table!r} have one name when case is not counted",
                hint=f"ctx[{twins[0][0]!r}] is the one that is here",
            )

    def _evolve(self, cursor: Cursor, table: str, old: Schema, new: Schema) -> None:
        """Take added columns; what was dropped or changed its type needs a word from the user."""
        gone = [name for name in old.names if name not in new]
        retyped = [n for n in old.names if n in new and (old[n].type, n in old.key) != (new[n].type, n in new.key)]
        if old.key != new.key or gone or retyped:
            if self._is_empty(cursor, Layout(table, old)):
                self._remake(cursor, Layout(table, old), Layout(table, new))
                return
            raise SchemaError(
                f"table {table!r} has changed at the back end: columns gone {shown(gone) or 'none'}, "
                f"of another type {shown(retyped) or 'none'}, key {old.key} -> {new.key}",
                hint=f"push or discard what is pending, then ctx[{table!r}].purge() and pull again",
            )
        added = [column for column in new.value_columns if column.name not in old]
        if added or old.values != new.values:
            self._rebuild(cursor, Layout(table, old), Layout(table, new), added)
            self._restart_queries(cursor, table)

    def _is_empty(self, cursor: Cursor, layout: Layout) -> bool:
        count: int = cursor.one(f"select (select count(*) from {layout.rows}) + (select count(*) from {layout.edits})")
        return count == 0

    def _remake(self, cursor: Cursor, old: Layout, new: Layout) -> None:
        """Make the parts of a table anew, of which nothing is here."""
        self.forget_queries(cursor, old.table)
        self._forget_undo(cursor, old.table)
        cursor.run(f"update {META}.tables set schema = ? where name = ?", [new.schema.to_json(), new.table])
        create_views(cursor, [layout for layout in self.layouts(cursor) if layout.table != new.table])
        cursor.run(f"drop view {old.view}")
        for part in old.parts():
            cursor.run(f"drop table {part}")
        for statement in new.definitions():
            cursor.run(statement)
        create_views(cursor, self.layouts(cursor))

    def _rebuild(self, cursor: Cursor, old: Layout, new: Layout, added: Sequence[Column]) -> None:
        letters = {old.rows: "v", old.edits: "lr", old.images: "ba", old.kept_edits: "lr", old.kept_rows: "v"}
        for part, prefixes in letters.items():
            for column in added:
                for letter in prefixes:
                    cursor.run(f"alter table {part} add column {quote(f'{letter}_{column.name}')} {column.store}")
        # The places of the BIT are the columns' places, so they are written anew with the new order.
        place = {name: i for i, name in enumerate(old.schema.values, 1)}
        bits = [f"get_bit(given, {place[n]})::varchar" if n in place else "'0'" for n in new.schema.values]
        text = " || ".join(["'0'", *bits])
        for part in (old.edits, old.kept_edits):
            cursor.run(f"update {part} set given = ({text})::bit")
        cursor.run(f"update {META}.tables set schema = ? where name = ?", [new.schema.to_json(), new.table])
        create_views(cursor, self.layouts(cursor))
        self._forget_undo(cursor, new.table)

    def _forget_undo(self, cursor: Cursor, table: str) -> None:
        # An image does not know columns that came later: taken back, it would say NULL in them.
        cursor.run(f'update {META}.history set can_undo = false where "table" = ?', [table])

    def together(self, table: str) -> tuple[tuple[str, ...], ...]:
        """The columns of a table that are merged as one, in groups."""
        state = self.state(table)
        return state.together if state is not None else ()

    def set_together(self, table: str, groups: Sequence[Sequence[str]]) -> None:
        with self.transaction() as cursor:
            cursor.run(f"update {META}.tables set together = ? where name = ?", [json.dumps(groups), table])

    def touched(self, cursor: Cursor, table: str, when: str, tracked: bool | None = None) -> None:
        """Note that a table was pulled or pushed now; `when` is "last_pull" or "last_push"."""
        cursor.run(
            f"update {META}.tables set {when} = ?, tracked = coalesce(?, tracked) where name = ?",
            [utc_now(), tracked, table],
        )

    # -- reading

    def read(
        self,
        table: str,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        *,
        extra: Sequence[str] = (),
        is_sorted: bool = True,
    ) -> Shown:
        """Rows as they are here, pending edits included.

        Parameters
        ----------
        columns
            Those wanted, the key always; None: all.
        extra
            More of what the store knows of a row: system columns by their names, and "_syncframe_version",
            "_syncframe_pending", "_syncframe_rev", "_syncframe_pulled_rev".
        """
        with self.reading() as cursor:
            layout = self.layout(cursor, table)
            wanted = layout.schema if columns is None else layout.schema.select(columns)
            statement, parameters = self.select(layout, wanted.names, parsed(where, layout.schema), extra)
            if is_sorted:  # in the key's order, so that an edit does not move a row to the end of the frame
                statement += f" order by {', '.join(quote(name) for name in layout.schema.key)}"
            rows = cursor.arrow(statement, parameters)
            return Shown(rows, cursor.one(f"select rev from {META}.store"))

    def select(
        self, layout: Layout, names: Sequence[str], where: Condition | None, extra: Sequence[str] = ()
    ) -> tuple[str, list[object]]:
        """A select statement over the rows as they are here, and its parameters."""
        source = _sources(layout.schema)
        picked = ", ".join(f"{source[name]} as {quote(name)}" for name in (*names, *extra))
        statement = f"select {picked} from ({shown_rows(layout)})"
        if where is None:
            return statement, []
        condition, parameters = to_duckdb(where, lambda name: source[name])
        return f"{statement} where {condition}", parameters

    def count(self, cursor: Cursor, layout: Layout) -> int:
        total: int = cursor.one(f"select count(*) from ({shown_rows(layout)})")
        return total

    def revision(self) -> int:
        with self.reading() as cursor:
            rev: int = cursor.one(f"select rev from {META}.store")
            return rev

    # -- queries and their checkpoints

    def queries(self, cursor: Cursor, table: str) -> list[StoredQuery]:
        rows = cursor.rows(
            f"""select name, query_id, filter, checkpoint, complete, run, sweeping from {META}.queries
                where table_name = ? order by pulled_at nulls first, name""",
            [table],
        )
        return [StoredQuery(*row) for row in rows]

    def query(self, cursor: Cursor, table: str, name: str) -> StoredQuery | None:
        return next((query for query in self.queries(cursor, table) if query.name == name), None)

    def put_query(self, cursor: Cursor, table: str, query: StoredQuery, pulled_at: dt.datetime | None) -> None:
        cursor.run(f"delete from {META}.queries where table_name = ? and name = ?", [table, query.name])
        cursor.run(
            f"insert into {META}.queries values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [table, query.name, query.query_id, query.where, query.checkpoint, query.complete, query.run,
             query.sweeping, pulled_at],
        )  # fmt: skip

    def claim_run(self, cursor: Cursor, table: str, name: str, run: int) -> None:
        cursor.run(f"update {META}.queries set run = ? where table_name = ? and name = ?", [run, table, name])

    def _restart_queries(self, cursor: Cursor, table: str) -> None:
        cursor.run(f"update {META}.queries set checkpoint = null, complete = false where table_name = ?", [table])

    def forget_queries(self, cursor: Cursor, table: str) -> None:
        # The checkpoints go first: if rows went and a checkpoint stayed, they would never be asked for again.
        cursor.run(f"delete from {META}.queries where table_name = ?", [table])

    # -- rows

    def load_page(self, cursor: Cursor, layout: Layout, rows: pa.Table) -> None:
        """Load a page into the temporary table `incoming`.

        Where pages are stored as one, `_syncframe_part` numbers them: of a key in several the last is the row.

        Raises
        ------
        BackendError
            If a key stands twice in one page: nothing could say which of the two is the row.
        """
        names = {f"k_{n}": n for n in layout.schema.key} | {f"v_{n}": n for n in layout.schema.values}
        missing = [n for n in names.values() if n not in rows.column_names]
        if missing:
            raise BackendError(f"a page of table {layout.table!r} lacks the columns {shown(missing)}")
        types = {
            f"{p}_{c.name}": c
            for p, cs in (("k", layout.schema.key_columns), ("v", layout.schema.value_columns))
            for c in cs
        }
        picked = [f"{_taken(quote(n), types[k])} as {quote(k)}" for k, n in names.items()]
        present = set(rows.column_names)
        for name, kind in _PAGE_TYPES.items():
            source = quote(f"_syncframe_{name}") if f"_syncframe_{name}" in present else "null"
            picked.append(f"{source}::{kind} as {name}")
        picked = [*picked, "null::bigint as own_rev"]
        cursor.run(
            f"""
            create or replace temp table incoming as
            select * replace (coalesce(deleted, false) as deleted) from (select {", ".join(picked)} from page)
            """,
            page=rows,
        )
        counted = f"select count(*), (select count(*) from (select distinct {layout.keys} from incoming)) from incoming"
        total, keys = cursor.rows(counted)[0]
        if total != keys and PART in present:
            newer = f"select 1 from incoming n where {layout.on('n', 'i')} and n.part > i.part"
            cursor.run(f"delete from incoming i where exists ({newer})")
            total, keys = cursor.rows(counted)[0]
        if total != keys:
            raise BackendError(
                f"a page of table {layout.table!r} has {total - keys} repeated keys",
                hint="report it to the back end's owner",
            )

    def put(self, cursor: Cursor, layout: Layout, source: str, rev: int) -> dict[str, int]:
        """Write rows as the back end has them; return how many were inserted, updated and deleted.

        `source` is a table or a subquery with the key, v_*, version, operation, created, updated, deleted and
        own_rev: of one's own operation, stored as it was sent, the revision at which it was staged, else NULL.
        What is shown does not change then, nor where only the version is new.
        An anti join of equal versions, DELETE and INSERT: MERGE rewrites every touched vector of every column,
        which costs ten times as much for scattered rows.
        """
        cursor.run(
            f"""
            create or replace temp table fresh as
            select p.*, r.rev is not null as was_there,
                   case when r.rev is not null and not p.deleted and {layout.rows_like("p.{v}", "r.{v}")} then r.rev end
                       as same_rev, r.pulled_rev as known_rev
            from {source} p left join {layout.rows} r on {layout.on("p", "r")}
            where not (not p.deleted and r.rev is not null and r.version is not distinct from p.version
                       and {layout.rows_like("p.{v}", "r.{v}")})
            """
        )
        # The revision at which what is shown last changed, and at which the back end last told something new.
        revisions = f"""
            coalesce(own_rev, same_rev, {rev}) as rev,
            case when own_rev is null and same_rev is null then {rev} else coalesce(known_rev, 0) end as pulled_rev
        """
        cursor.run(f"delete from {layout.rows} r using fresh n where {layout.on('r', 'n')}")
        cursor.run(
            f"""
            insert into {layout.rows} by name
            select {layout.keys}, version, operation, created, updated{layout.also("{v}")}, {revisions}
            from fresh where not deleted
            """
        )
        cursor.run(f"delete from {layout.gone} g using fresh n where {layout.on('g', 'n')}")
        cursor.run(
            f"""
            insert into {layout.gone} by name
            select {layout.keys}, version, 'deleted' as reason, {revisions} from fresh where deleted
            """
        )
        inserted, updated, deleted = cursor.rows(
            """
            select count(*) filter (where not deleted and not was_there),
                   count(*) filter (where not deleted and was_there), count(*) filter (where deleted and was_there)
            from fresh
            """
        )[0]
        cursor.run("drop table fresh")
        return {"inserted": inserted, "updated": updated, "deleted": deleted}

    def remember_members(self, cursor: Cursor, layout: Layout, query: StoredQuery) -> None:
        """Note which keys of the page this query brought, and in which of its runs."""
        cursor.run(
            f"delete from {layout.members} m using incoming i "
            f"where {layout.on('m', 'i')} and (m.query = ? or i.deleted)",
            [query.name],
        )
        cursor.run(
            f"insert into {layout.members} select ?, ?, {layout.keys} from incoming where not deleted",
            [query.name, query.run],
        )

    def remember_known(self, cursor: Cursor, layout: Layout, query: StoredQuery, listed: pa.Table) -> pa.Table:
        """Note as brought by this run the keys that are here in the version that is listed; return the others.

        `listed` has the key's columns and `_syncframe_version`.
        """
        keys = ", ".join(f"{_taken(quote(c.name), c)} as {quote('k_' + c.name)}" for c in layout.schema.key_columns)
        same = f"select 1 from {layout.rows} r where {layout.on('r', 'i')} and r.version = i.version"
        cursor.run(
            f"create or replace temp table incoming as select {keys}, _syncframe_version as version from page",
            page=listed,
        )
        cursor.run(f"create or replace temp table hit as select {layout.keys} from incoming i where exists ({same})")
        cursor.run(
            f"delete from {layout.members} m using hit i where {layout.on('m', 'i')} and m.query = ?", [query.name]
        )
        cursor.run(f"insert into {layout.members} select ?, ?, {layout.keys} from hit", [query.name, query.run])
        return cursor.arrow(f"select {_as_names(layout)} from incoming anti join hit using ({layout.keys})")

    def load_leavers(self, cursor: Cursor, layout: Layout, leavers: pa.Table) -> None:
        """Load the keys that left a query into the temporary table `leaving`."""
        keys = ", ".join(f"{_taken(quote(c.name), c)} as {quote('k_' + c.name)}" for c in layout.schema.key_columns)
        held = "coalesce(_syncframe_held, false)" if "_syncframe_held" in leavers.column_names else "false"
        cursor.run(f"create or replace temp table leaving as select {keys}, {held} as held from page", page=leavers)

    def take_leavers(self, cursor: Cursor, layout: Layout, query: StoredQuery, rev: int) -> int:
        """Remove the rows in `leaving` that no query holds and no operation needs; return how many."""
        cursor.run(
            f"delete from {layout.members} m using leaving i where {layout.on('m', 'i')} and m.query = ?", [query.name]
        )
        cursor.run(
            f"""
            create or replace temp table departing as
            select distinct {layout.keys} from leaving anti join {layout.members} m using ({layout.keys}) where not held
            """
        )
        return self.depart(cursor, layout, rev, "left")

    def sweep(self, cursor: Cursor, layout: Layout, query: StoredQuery, rev: int) -> int:
        """Remove what this query brought before and did not bring in this run; return how many rows went."""
        cursor.run(
            f"""
            create or replace temp table departing as
            select {layout.keys} from {layout.members} where query = ? and run < ?
            except select {layout.keys} from {layout.members} where query <> ? or run >= ?
            """,
            [query.name, query.run, query.name, query.run],
        )
        cursor.run(f"delete from {layout.members} where query = ? and run < ?", [query.name, query.run])
        return self.depart(cursor, layout, rev, "left")

    def missed(self, cursor: Cursor, layout: Layout, query: StoredQuery) -> tuple[int, int]:
        """How many rows this query held before, and how many it has brought in this run."""
        held, came = cursor.rows(
            f"""select count(*) filter (where run < ?), count(*) filter (where run >= ?) from {layout.members}
                where query = ?""",
            [query.run, query.run, query.name],
        )[0]
        return int(held), int(came)

    def swept_edits(self, cursor: Cursor, layout: Layout, query: StoredQuery) -> pa.Table:
        """Keys with an operation on a row that no query holds after this run: whether it is gone is to be asked."""
        return cursor.arrow(
            f"""
            select {_as_names(layout)} from (
                select {layout.keys_of("e")} from {layout.firsts} e left join {layout.rows} r on {layout.on("r", "e")}
                where r.rev is not null or e.has_remote
            )
            anti join (select * from {layout.members} where query <> ? or run >= ?) m using ({layout.keys})
            """,
            [query.name, query.run],
        )

    def strays(self, cursor: Cursor, layout: Layout) -> pa.Table:
        """Keys of rows without an operation that no query holds: a push brought them."""
        return cursor.arrow(
            f"""
            select {_as_names(layout)} from {layout.rows}
            anti join {layout.members} m using ({layout.keys}) anti join {layout.edits} e using ({layout.keys})
            """
        )

    def leaving_edits(self, cursor: Cursor, layout: Layout, leavers: pa.Table) -> pa.Table:
        """Keys of leavers with an operation: for them, leaving is a remote change like any other."""
        self.load_leavers(cursor, layout, leavers)
        return cursor.arrow(f"select {_as_names(layout)} from leaving semi join {layout.edits} e using ({layout.keys})")

    def drop_loaded(self, cursor: Cursor) -> None:
        """Drop what a page was loaded into: it holds memory, and would hide a table of that name."""
        for name in ("incoming", "hit", "leaving"):
            cursor.run(f"drop table if exists temp.{name}")

    def depart(self, cursor: Cursor, layout: Layout, rev: int, reason: str) -> int:
        """Take the keys in `departing` out of the rows, those with an operation excepted."""
        cursor.run(
            f"""
            create or replace temp table departed as
            select {layout.keys} from departing anti join {layout.edits} e using ({layout.keys})
            semi join {layout.rows} r using ({layout.keys})
            """
        )
        cursor.run(f"delete from {layout.gone} g using departed d where {layout.on('g', 'd')}")
        cursor.run(
            f"insert into {layout.gone} ({layout.keys}, version, reason, rev, pulled_rev) "
            f"select {layout.keys}, null, ?, {rev}, {rev} from departed",
            [reason],
        )
        cursor.run(f"delete from {layout.rows} r using departed d where {layout.on('r', 'd')}")
        total: int = cursor.one("select count(*) from departed")
        for name in ("departing", "departed"):
            cursor.run(f"drop table if exists temp.{name}")
        return total

    def purge(self, cursor: Cursor, layout: Layout, where: str | None, *, drop_edits: bool) -> int:
        """Drop rows and all checkpoints of a table; return how many rows went."""
        if where is None:
            self.forget_queries(cursor, layout.table)
            cursor.run(f"delete from {layout.members}")
        else:  # the rows that stay belong to their queries still, which are read in full the next time
            self._restart_queries(cursor, layout.table)
        statement, parameters = self.select(layout, layout.schema.key, parsed(where, layout.schema))
        keys = ", ".join(f"{quote(name)} as {quote('k_' + name)}" for name in layout.schema.key)
        cursor.run(f"create or replace temp table departing as select {keys} from ({statement})", parameters)
        if drop_edits:
            all_of_it = f"insert into departing select distinct {layout.keys} from {layout.edits}"
            if where is None:  # deletes that wait are not shown, and go as well
                cursor.run(f"{all_of_it} anti join departing d using ({layout.keys})")
            cursor.run(f"delete from {layout.edits} e using departing d where {layout.on('e', 'd')}")
        cursor.run(f"delete from {layout.members} m using departing d where {layout.on('m', 'd')}")
        rev, _ = self.tick(cursor)
        total = self.depart(cursor, layout, rev, "purged")
        self.record(cursor, "purge", layout.table, total, where)
        return total

    def drop_strays(self, cursor: Cursor, layout: Layout) -> int:
        """Drop rows that no query holds."""
        cursor.run(
            f"""
            create or replace temp table departing as
            select {layout.keys} from {layout.rows} anti join {layout.members} m using ({layout.keys})
            """
        )
        rev, _ = self.tick(cursor)
        return self.depart(cursor, layout, rev, "left")

    # -- the lease of a push

    def take_lease(self, holder: str, wait: Callable[[], None]) -> None:
        """Let one push run at a time; waits in words.

        Raises
        ------
        StoreError
            If another process is pushing for longer than `lock_timeout_s`; names it.
        """
        until = utc_now() + dt.timedelta(seconds=self.lock_timeout_s)
        while (other := self._try_lease(holder)) is not None:
            if utc_now() > until:
                raise StoreError(
                    f"process {other} is pushing from the store {self.path} for over {self.lock_timeout_s} s",
                    hint="wait until it has finished: two pushes at once would send an operation twice",
                )
            wait()

    def _try_lease(self, holder: str) -> int | None:
        with self.transaction() as cursor:
            rows = cursor.rows(f"select holder, pid, epoch(until) from {META}.lease")
            if rows and rows[0][0] != holder and rows[0][2] > utc_now().timestamp() and _is_alive(rows[0][1]):
                return int(rows[0][1])
            cursor.run(f"delete from {META}.lease")
            cursor.run(
                f"insert into {META}.lease values (?, ?, ?)",
                [holder, os.getpid(), utc_now() + LEASE],
            )
            return None

    def renew_lease(self, cursor: Cursor, holder: str) -> None:
        """Go on holding it: the next batch may take as long as the last."""
        if cursor.one(f"select count(*) from {META}.lease where holder = ?", [holder]) == 0:
            raise StoreError(
                f"another process has begun to push from the store {self.path}", hint="let it finish, then push again"
            )
        cursor.run(f"update {META}.lease set until = ? where holder = ?", [utc_now() + LEASE, holder])

    def drop_lease(self, holder: str) -> None:
        with self.transaction() as cursor:
            cursor.run(f"delete from {META}.lease where holder = ?", [holder])


def _another(known_url: str, url: str) -> str:
    return url if url != known_url else "another database at the same place, made anew or restored"


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def unknown_schema(table: str) -> SchemaError:
    return SchemaError(
        f"no schema of table {table!r} is known in this store",
        hint=f"pull it first, or give one: ctx.table({table!r}, schema={{'id': 'VARCHAR', ...}})",
    )


def parsed(where: str | None, schema: Schema) -> Condition | None:
    if where is not None and not isinstance(where, str):
        raise QueryError(f"where={where!r} is no SQL condition", hint="a text such as \"month = 1 and origin = 'JFK'\"")
    return None if where is None else parse(where, schema)


def shown_rows(layout: Layout) -> str:
    """A subquery of the rows as they are here: those without an edit, and the last edit of the others."""
    return f"""
        select {layout.keys}{layout.also("{v}")}, version, created, updated, null::varchar as pending, rev, pulled_rev
        from {layout.rows} anti join {layout.edits} e using ({layout.keys})
        union all
        select {layout.keys_of("e")}{layout.also("e.{l} as {v}")}, r.version, r.created, r.updated,
               case when r.rev is null then 'insert' else 'update' end, e.rev, r.pulled_rev
        from {layout.edits} e left join {layout.rows} r on {layout.on("e", "r")}
        where not e.deleted
          and (e.follower or not exists (select 1 from {layout.edits} f where f.follower and {layout.on("f", "e")}))
    """


def create_views(cursor: Cursor, layouts: Sequence[Layout]) -> None:
    """Make the views that people see who open the file with plain DuckDB: the tables and the schema `syncframe`."""
    for layout in layouts:
        names = ", ".join(f"{source} as {quote(name)}" for name, source in _sources(layout.schema).items()
                          if name in layout.schema)  # fmt: skip
        cursor.run(f"create or replace view {layout.view} as select {names} from ({shown_rows(layout)})")
    _view(cursor, "pending", [_pending_view(layout) for layout in layouts], _PENDING_EMPTY)
    _view(cursor, "conflicts", [_conflicts_view(layout) for layout in layouts], _CONFLICTS_EMPTY)
    _view(cursor, "errors", [_errors_view(layout) for layout in layouts], _ERRORS_EMPTY)
    cursor.run(
        f"""create or replace view syncframe.checkpoints as
            select table_name, query_id, filter, pulled_at, complete, checkpoint from {META}.queries
            where complete or checkpoint is not null"""
    )
    cursor.run(
        f"""create or replace view syncframe.history as
            select time, action, "table", rows, note from {META}.history order by time"""
    )


def operations_source(layout: Layout) -> str:
    """A subquery of the operations with their kind: `e` the edit, base values as {b}, kind, base_there."""
    base = layout.also("case when e.follower then h.{l} else r.{v} end as {b}")
    return f"""
        select e.*{base}, r.version as base_version,
               case when e.follower then not h.deleted else r.rev is not null end as base_there,
               case when not (case when e.follower then not h.deleted else r.rev is not null end) then 'insert'
                    when e.deleted then 'delete' else 'update' end as kind
        from {layout.edits} e
        left join {layout.rows} r on {layout.on("r", "e")}
        left join (select * from {layout.edits} where not follower) h on e.follower and {layout.on("h", "e")}
    """


def kinds_source(layout: Layout) -> str:
    """A subquery of the operations with their kind, without values, which of a wide table take long to plan."""
    return f"({operations_source(Layout(layout.table, layout.schema.select(())))})"


_PENDING_EMPTY = """
    select null::varchar as "table", null::varchar as key, null::varchar as kind, null::varchar as "column",
           null::varchar as base, null::varchar as local, null::timestamptz as staged_at, null::boolean as attempted,
           null::varchar as error, null::bigint as sequence where false
"""
_CONFLICTS_EMPTY = """
    select null::varchar as "table", null::varchar as key, null::varchar as "column", null::varchar as base,
           null::varchar as mine, null::varchar as theirs where false
"""
_ERRORS_EMPTY = """
    select null::varchar as "table", null::varchar as key, null::varchar as kind, null::varchar as code,
           null::varchar as "column", null::varchar as message, null::timestamptz as staged_at where false
"""


def _view(cursor: Cursor, name: str, parts: Sequence[str], empty: str) -> None:
    order = " order by sequence" if name == "pending" else ""
    picked = "* exclude (sequence)" if name == "pending" else "*"
    body = " union all ".join(f"({part})" for part in parts) or empty
    cursor.run(f"create or replace view syncframe.{name} as select {picked} from ({body}){order}")


def _pending_view(layout: Layout) -> str:
    cells = layout.each(
        "case when kind = 'update' and {l} is distinct from {b} "
        "then {{'column': {text}, 'base': {b}::varchar, 'local': {l}::varchar}} end"
    )
    whole = "{'column': null::varchar, 'base': null::varchar, 'local': null::varchar}"
    changed = f"list_filter([{', '.join(cells)}], lambda x: x is not null)" if cells else "[]"
    return f"""
        select {literal(layout.table)} as "table", key, kind, cell.column as "column", cell.base as base,
               cell.local as local, staged_at, attempted, error, sequence
        from (select {key_text(layout)} as key, kind, staged_at, attempted, error_message as error, sequence,
                     unnest(case when kind = 'update' then {changed} else [{whole}] end) as cell
              from ({operations_source(layout)}))
    """


def _conflicts_view(layout: Layout) -> str:
    cells = layout.each(
        "case when m.{l} is distinct from h.{r} or m.deleted <> h.remote_deleted "
        "then {{'column': {text}, 'base': r.{v}::varchar, 'mine': m.{l}::varchar, 'theirs': h.{r}::varchar}} end"
    )
    return f"""
        select {literal(layout.table)} as "table", key, cell.column as "column", cell.base as base,
               cell.mine as mine, cell.theirs as theirs
        from (select {key_text(layout, "h.")} as key,
                     unnest(list_filter([{", ".join(cells) or "null"}], lambda x: x is not null)) as cell
              from {layout.edits} h left join {layout.rows} r on {layout.on("r", "h")}
              join {layout.lasts} m on {layout.on("m", "h")}
              where h.has_remote)
    """


def _errors_view(layout: Layout) -> str:
    return f"""
        select {literal(layout.table)} as "table", {key_text(layout)} as key, kind, error_code as code,
               error_column as "column", error_message as message, staged_at
        from ({operations_source(layout)}) where error_code is not null
    """


def key_text(layout: Layout, alias: str = "") -> str:
    """The key as text; the parts of a compound one joined by a comma."""
    return " || ', ' || ".join(f"{alias}{quote('k_' + name)}::varchar" for name in layout.schema.key)


def _sources(schema: Schema) -> dict[str, str]:
    """Where each column that can be asked for stands in `shown_rows`."""
    source = {name: quote(f"{'k' if name in schema.key else 'v'}_{name}") for name in schema.names}
    taken = {name.lower() for name in schema.names}
    system = {"createdAt": "created", "updatedAt": "updated", "version": "version", "deleted": "false"}
    source |= {name: held for name, held in system.items() if name.lower() not in taken}
    held = {"version": "version", "pending": "pending", "rev": "rev", "pulled_rev": "coalesce(pulled_rev, 0)"}
    return source | {f"_syncframe_{name}": expression for name, expression in held.items()}


def system_names(schema: Schema) -> list[str]:
    """The system columns that a frame of this table can show.

    Raises
    ------
    SchemaError
        If the table has a column of its own by that name: then it is data.
    """
    own = [name for name in schema.names if name.lower() in {s.lower() for s in SYSTEM_COLUMNS}]
    if own:
        raise SchemaError(
            f"the table's own columns {shown(own)} bear the names of system columns, so these cannot be shown",
            hint="leave out system=True: they are in the frame as data",
        )
    return list(SYSTEM_COLUMNS)


def _as_names(layout: Layout) -> str:
    return ", ".join(f"{quote('k_' + name)} as {quote(name)}" for name in layout.schema.key)


def _taken(source: str, column: Column) -> str:
    """A value as the store keeps it: NaN of a float column is NULL."""
    if column.family == "float":
        return f"case when isnan({source}) then null else {source}::{column.store} end"
    return f"{source}::{column.store}"


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there, signal 0 is a Ctrl-C to the process; the lease's end has to do
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
