"""The change log of a PostgreSQL table: triggers that enter every program's writes, in a schema of its own.

An entry bears the id of the transaction that wrote it and a number from a sequence.  Transactions commit in any
order, but all below the horizon (`pg_snapshot_xmin`) have ended: what lies below it is read in the order of
(transaction, number), and is complete.  A version is the number and random digits, for a restored backup gives
out the same numbers again.  `stamp` is what publishing gave, NULL since the last write.

Statement triggers with transition tables write a set at once.  Where they are not fired (logical replication) or
not allowed (partitions), row triggers enter the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from ..errors import SchemaError
from ..schema import literal, quote
from .postgres_types import Held
from .sql_base import DATABASE, SETTINGS, Session, Table

LOGS = "_syncframe"  # the schema
TRIGGERS = ("insert", "update", "delete", "truncate")
NAME_BYTES_MAX = 40  # of PostgreSQL's 63
# Who this is: a cluster, which a dump does not copy, a backup does.
SYSTEM = "(select system_identifier::text from pg_control_system())"
TRANSACTION = "pg_current_xact_id()::text::bigint"
_KEYS_AND = "xid, seq, version, deleted, created_at, updated_at"


@dataclass(frozen=True, slots=True)
class PostgresTable(Table):
    """A table as PostgreSQL describes it.

    Parameters
    ----------
    namespace, relation
        The names of its schema and of itself.
    kind
        "r" of a table, "p" of a partitioned one, "v" and "m" of views, "f" of a foreign table.
    held
        How each column is held.
    has_log
        Whether there is a log, which need not be this cluster's (`is_foreign`) or whole.
    readers, writers
        Roles other than the owner that may read and write it, as SQL.
    always
        Columns that the database fills unless it is overridden.
    """

    namespace: str = ""
    relation: str = ""
    kind: str = "r"
    held: dict[str, Held] = field(default_factory=dict)
    has_log: bool = False
    is_foreign: bool = False
    has_policies: bool = False
    is_subscribed: bool = False
    readers: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    always: frozenset[str] = frozenset()

    @property
    def sql(self) -> str:
        return f"{quote(self.namespace)}.{quote(self.relation)}"

    @property
    def entry(self) -> str:
        return f"{self.namespace}.{self.relation}"

    @property
    def log(self) -> str:
        return own(log_name(self.namespace, self.relation))

    @property
    def whole(self) -> str:
        return "*, t.xmin" if self.has_xmin and not self.tracked else "*"

    @property
    def has_xmin(self) -> bool:
        return self.kind in "rp"

    @property
    def key_pairs(self) -> list[tuple[str, str]]:
        """The key's columns, and what they are in a log."""
        return list(zip(self.schema.key, self.keys, strict=True))

    def typed(self, sql: str, name: str) -> str:
        """A key's value in the column's own type and collation."""
        collation = self.held[name].collation
        return f"({sql})::{self.declared[name]}{f' collate {collation}' if collation else ''}"

    def own(self, what: str) -> str:
        """Something of this table's in the schema of the logs."""
        return own(f"{what}_{_short(self.entry)}")


def own(name: str) -> str:
    return f"{quote(LOGS)}.{quote(name)}"


def log_name(namespace: str, relation: str) -> str:
    return f"log_{_short(f'{namespace}.{relation}')}"


def trigger_name(event: str) -> str:
    """PostgreSQL fires triggers in the order of their names: these see what the others made of a row."""
    return f"zz_syncframe_{event}"


def _short(name: str) -> str:
    if len(name.encode()) <= NAME_BYTES_MAX:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    return f"{name.encode()[: NAME_BYTES_MAX - 13].decode(errors='ignore')}_{digest}"


def track_statements(session: Session, table: PostgresTable) -> list[str]:
    """The SQL that adds a log with an entry for each row; of a tracked table it makes the triggers and grants anew.

    A log that another cluster wrote, as a restored dump has it, gets this one's transactions, and clients read in full.

    Raises
    ------
    SchemaError
        If the table is a view or a foreign table, where no trigger sees what is written.
    """
    if table.kind not in "rp":
        raise SchemaError(
            f"{table.name!r} is no table of this database but a view or foreign table, and cannot be tracked",
            hint="track the tables beneath; untracked it is read in full each time",
        )
    log = _restamp(table) if table.has_log and table.is_foreign else []
    return [
        *settings_statements(session),
        f"{_settings_row(DATABASE)} on conflict (name) do nothing",
        f"lock table {table.sql} in share row exclusive mode",
        *_drop_triggers(table),
        *([] if table.tracked or table.is_foreign else [*_drop_log(table), *_fresh(table)]),
        *log,
        *_functions(table),
        *_triggers(table),
        *_grants(table),
    ]


def untrack_statements(session: Session, table: PostgresTable) -> list[str]:
    """The SQL that removes a table's log, and with the last one the schema of the logs."""
    statements = [*_drop_triggers(table), *_drop_log(table)]
    if SETTINGS not in session.names():
        return statements
    ((others,),) = session.values(f"select count(*) from {SETTINGS} where name not in (?, ?)", [DATABASE, table.entry])
    if others:
        return [*statements, f"delete from {own(SETTINGS)} where name = {literal(table.entry)}"]
    return [*statements, f"drop table {own(SETTINGS)}", f"drop schema {quote(LOGS)}"]


def settings_statements(session: Session) -> list[str]:
    if SETTINGS in session.names():
        return []
    return [
        f"create schema if not exists {quote(LOGS)}",
        f"grant usage on schema {quote(LOGS)} to public",
        f"""
        create table {own(SETTINGS)} (
            name text primary key, incarnation text not null, purged bigint not null,
            published bigint not null default 0, published_ms bigint not null default 0,
            published_xid bigint not null default 0, system text not null
        )
        """,
        f"grant select on {own(SETTINGS)} to public",
    ]


def publish_statement(table: PostgresTable) -> str:
    """The SQL that gives entries of ended transactions that have none their stamps and milliseconds.

    Parameters: the first stamp's predecessor, the first millisecond, from which transaction on, and the horizon.
    """
    return f"""
        update {table.log} as log set stamp = n.stamp,
            updated_at = to_timestamp(0) + n.ms * interval '1 millisecond',
            created_at = least(created_at, to_timestamp(0) + n.ms * interval '1 millisecond')
        from (
            select seq, cast(? as bigint) + place + 1 as stamp,
                place + max(greatest(written - place, cast(? as bigint))) over (order by xid, seq) as ms
            from (
                select xid, seq, row_number() over (order by xid, seq) - 1 as place,
                    {milliseconds("updated_at")} as written
                from {table.log} where stamp is null and xid >= cast(? as bigint) and xid < cast(? as bigint)
            ) as entries
        ) as n
        where n.seq = log.seq and log.stamp is null
    """


def milliseconds(moment: str) -> str:
    return f"cast(ceil(extract(epoch from {moment}) * 1000) as bigint)"


def _settings_row(name: str) -> str:
    return f"""
        insert into {own(SETTINGS)} (name, incarnation, purged, system)
        values ({literal(name)}, gen_random_uuid()::text, 0, {SYSTEM})
    """


def _fresh(table: PostgresTable) -> list[str]:
    keys = ", ".join(f"{key} {table.declared[name]}{_collated(table, name)} not null" for name, key in table.key_pairs)
    names, values = ", ".join(table.keys), ", ".join(map(quote, table.schema.key))
    as_keys = ", ".join(f"{quote(name)} as {key}" for name, key in table.key_pairs)
    return [
        # A new log's `updatedAt` go on after the last that any client has seen.
        f"""
        {_settings_row(table.entry)} on conflict (name) do update set
            incarnation = excluded.incarnation, purged = 0, published = 0, published_xid = 0, system = excluded.system
        """,
        f"create sequence {table.own('seq')} cache 100",
        f"""
        create table {table.log} (
            {keys}, xid bigint not null, seq bigint not null, version text not null, deleted boolean not null,
            operation_ids text, created_at timestamptz not null, updated_at timestamptz not null,
            image jsonb, stamp bigint, primary key ({names})
        )
        """,
        f"""
        insert into {table.log} ({names}, {_KEYS_AND})
        select {names}, {TRANSACTION}, seq, seq || {_MARK}, false, moment, moment
        from (
            select nextval({literal(table.own("seq"))}) as seq, {as_keys},
                clock_timestamp() - (rows - place) * interval '1 millisecond' as moment
            from (
                select {values}, count(*) over () as rows, row_number() over (order by {values}) as place
                from {table.sql} order by {values}
            ) as sorted
        ) as numbered
        """,
        f"create index on {table.log} (xid, seq)",
        f"create unique index on {table.log} (seq)",
        f"create index on {table.log} (stamp) where stamp is not null",
        f"analyze {table.log}",
    ]


def _collated(table: PostgresTable, name: str) -> str:
    collation = table.held[name].collation
    return f" collate {collation}" if collation else ""


def _restamp(table: PostgresTable) -> list[str]:
    """Versions stay, so that pending edits still say which row they changed."""
    return [
        f"""
        {_settings_row(table.entry)} on conflict (name) do update set
            incarnation = excluded.incarnation, purged = 0, published_xid = 0, system = excluded.system
        """,
        f"update {own(SETTINGS)} set system = {SYSTEM} where name = {literal(DATABASE)}",
        f"select setval({literal(table.own('seq'))}, (select coalesce(max(seq), 0) + 1 from {table.log}))",
        f"""
        update {table.log} as log set xid = {TRANSACTION}, seq = n.number
        from (
            select seq, nextval({literal(table.own("seq"))}) as number
            from (select seq from {table.log} order by xid, seq) as sorted
        ) as n
        where n.seq = log.seq
        """,
    ]


_MARK = "'-' || substr(md5(random()::text || clock_timestamp()::text), 1, 8)"
_FOREIGN = "case when log.operation_ids like '-%' then log.operation_ids else '- ' || log.operation_ids end"


def _entries(table: PostgresTable, source: str, *, deleted: bool, where: str = "true") -> str:
    """Enter rows that are there, or with their images, rows that are not."""
    names = ", ".join(table.keys)
    keys = ", ".join(f"n.{quote(name)} as {key}" for name, key in table.key_pairs)
    image = "to_jsonb(n.*)" if deleted else "null::jsonb"
    return f"""
        insert into {table.log} as log ({names}, {_KEYS_AND}, image)
        select {names}, x, seq, seq || mark, {str(deleted).lower()}, moment, moment, image
        from (
            select nextval({literal(table.own("seq"))}) as seq, {keys}, {image} as image
            from {source} as n where {where}
        ) as entries
        on conflict ({names}) do update set
            xid = excluded.xid, seq = excluded.seq, version = excluded.version, updated_at = excluded.updated_at,
            created_at =
                case when log.deleted and not excluded.deleted then excluded.created_at else log.created_at end,
            deleted = excluded.deleted, image = excluded.image, stamp = null, operation_ids = {_FOREIGN};
    """


def _functions(table: PostgresTable) -> list[str]:
    by_row = _by_row(table)
    new, old = ("(select new.*)", "(select old.*)") if by_row else ("new_rows", "old_rows")
    same = " and ".join(f"s.{quote(name)} = n.{quote(name)}" for name in table.schema.key)
    is_gone = f"not exists (select from {new} as s where {same})"
    # A statement may delete a row and insert its key, and the triggers of both fire at its end.
    is_not_there = f"not exists (select from {table.sql} as s where {same})"
    bodies = {
        "insert": _entries(table, new, deleted=False),
        "update": _entries(table, new, deleted=False) + _entries(table, old, deleted=True, where=is_gone),
        "delete": _entries(table, old, deleted=True, where=is_not_there),
        "truncate": _entries(table, table.sql, deleted=True),
    }
    return [
        f"""
        create or replace function {table.own(event)}() returns trigger
        language plpgsql security definer set search_path = pg_catalog, pg_temp as $syncframe$
        declare
            x bigint := {TRANSACTION};
            moment timestamptz := clock_timestamp();
            mark text := {_MARK};
        begin
            {body}
            return null;
        end
        $syncframe$
        """
        for event, body in bodies.items()
    ]


def _triggers(table: PostgresTable) -> list[str]:
    statements = []
    for event in TRIGGERS:
        name, each, seen = trigger_name(event), "statement", ""
        if event != "truncate" and _by_row(table):
            each = "row"
        elif event != "truncate":
            tables = {"insert": ["new"], "update": ["old", "new"], "delete": ["old"]}[event]
            seen = "referencing " + " ".join(f"{side} table as {side}_rows" for side in tables)
        when = "before" if event == "truncate" else "after"
        statements += [
            f"create trigger {name} {when} {event} on {table.sql} {seen} for each {each} "
            f"execute function {table.own(event)}()",
            f"alter table {table.sql} enable always trigger {name}",
        ]
    return statements


def _by_row(table: PostgresTable) -> bool:
    return table.kind == "p" or table.is_subscribed


def _drop_triggers(table: PostgresTable) -> list[str]:
    triggers = [f"drop trigger if exists {trigger_name(event)} on {table.sql}" for event in TRIGGERS]
    return triggers + [f"drop function if exists {table.own(event)}()" for event in TRIGGERS]


def _drop_log(table: PostgresTable) -> list[str]:
    return [f"drop table if exists {table.log}", f"drop sequence if exists {table.own('seq')}"]


def _grants(table: PostgresTable) -> list[str]:
    """Who may read the table may read its log, and who may write it enters the ids of operations.

    Not where policies hide rows: the log has the keys of all, and its reader is chosen by a person.
    """
    if table.has_policies:
        return []
    return [
        *(f"grant select on {table.log} to {role}" for role in table.readers),
        *(f"grant update (operation_ids) on {table.log} to {role}" for role in table.writers),
    ]
