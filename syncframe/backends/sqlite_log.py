"""The change log of a SQLite table: triggers that enter every program's writes.

Whoever writes takes the stamp in the writing transaction, and SQLite lets one in at a time: so
stamps are in the order of commits.  The stamp is the log's highest plus one: a counter in a table
of its own made an insert twice as dear.  Versions end in random digits, for a restored backup gives
out the same stamps again.

An entry keeps the ids of the operations that wrote its row, and a dash before them if another program
wrote it since.  Of a deleted row it keeps the last values as JSON: numbers and texts as they are, floats
in 20 digits (with 17, SQLite's own printing is one off in the last of some very large and small ones), bytes in hex.
"""

from __future__ import annotations

import datetime

from ..errors import SchemaError
from ..schema import literal, quote
from .sql_base import DATABASE, SETTINGS, Session, Table

EVENTS = ("insert", "update", "rekey", "delete")
_UNIQUE_EVENTS = ("note_insert", "note_update", "gone_insert", "gone_update")
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
_VERSION = "stamp || '-' || lower(hex(randomblob(4)))"
# A write that is no push is marked before the ids, once: so a client can tell whether its own operation wrote last.
_FOREIGN = "iif(operation_ids glob '-*', operation_ids, '- ' || operation_ids)"


def track_statements(session: Session, table: Table) -> list[str]:
    """The SQL that adds a log with an entry for each row; of a tracked table it makes the triggers anew.

    Raises
    ------
    SchemaError
        If a unique index is over an expression: INSERT OR REPLACE would delete rows without a trace.
    """
    uniques = _unique_indexes(session, table)
    # A log whose triggers were gone for a while has missed writes, and cannot be mended.
    fresh = [*_drop_log(table), _settings_row(table.name), _renew(table), _create_log(table), _fill_log(table)]
    return [
        *settings_statements(session),
        _settings_row(DATABASE),
        *_drop_triggers(table),
        *([] if table.tracked else fresh),
        *_triggers(table),
        *(_unique_triggers(table, uniques) if uniques else []),
    ]


def untrack_statements(session: Session, table: Table) -> list[str]:
    """The SQL that removes a table's log, and with the last one the settings."""
    statements = [*_drop_triggers(table), *_drop_log(table)]
    if SETTINGS not in session.names():
        return statements
    ((others,),) = session.values(f"select count(*) from {SETTINGS} where name not in (?, ?)", [DATABASE, table.name])
    return [*statements, _forget(table) if others else f"drop table {SETTINGS}"]


def settings_statements(session: Session) -> list[str]:
    """The SQL that makes the settings; an earlier version's had nothing of what is published."""
    held = [name for (name,) in session.values("select name from pragma_table_info(?)", [SETTINGS])]
    if not held:
        return [
            f"""
            create table {SETTINGS} (
                name text primary key, incarnation text not null, purged integer not null,
                published integer not null default 0, published_ms integer not null default 0
            )
            """
        ]
    added = [name for name in ("published", "published_ms") if name not in held]
    return [f"alter table {SETTINGS} add column {name} integer not null default 0" for name in added]


def publish_statement(table: Table) -> str:
    """The SQL that gives the entries above a stamp the milliseconds from one on, none before the time of its write."""
    moment = "strftime('%Y-%m-%dT%H:%M:%S', n.ms / 1000, 'unixepoch') || printf('.%03dZ', n.ms % 1000)"
    return f"""
        update {table.log} as log set updated_at = {moment}, created_at = min(created_at, {moment})
        from (
            select stamp, place + max(max(written - place, ?)) over (order by stamp) as ms
            from (
                select stamp, row_number() over (order by stamp) - 1 as place, {milliseconds("updated_at")} as written
                from {table.log} where stamp > ?
            )
        ) as n
        where n.stamp = log.stamp
    """


def milliseconds(moment: str) -> str:
    """A time of the log, which has milliseconds, as their number since 1970, as SQL."""
    return f"(cast(strftime('%s', {moment}) as integer) * 1000 + cast(substr({moment}, 21, 3) as integer))"


def stamp_text(moment: datetime.datetime) -> str:
    """An instant of whole milliseconds as the log has it."""
    return moment.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _settings_row(name: str) -> str:
    values = f"{literal(name)}, lower(hex(randomblob(16))), 0"
    return f"insert or ignore into {SETTINGS} (name, incarnation, purged) values ({values})"


def _renew(table: Table) -> str:
    """A new log's settings; its `updatedAt` go on after the last that any client has seen."""
    return f"""
        update {SETTINGS} set incarnation = lower(hex(randomblob(16))), purged = 0, published = 0
        where name = {literal(table.name)}
    """


def _forget(table: Table) -> str:
    return f"delete from {SETTINGS} where name = {literal(table.name)}"


def _drop_triggers(table: Table) -> list[str]:
    return [f"drop trigger if exists {_named(event, table)}" for event in (*EVENTS, *_UNIQUE_EVENTS)]


def _drop_log(table: Table) -> list[str]:
    return [f"drop table if exists {table.log}", f"drop table if exists {_named('noted', table)}"]


def _named(what: str, table: Table) -> str:
    return quote(f"_syncframe_{what}_{table.name}")


def _create_log(table: Table) -> str:
    # Entries lie in the order of their stamps, which is the order in which they are read.
    return f"""
        create table {table.log} (
            stamp integer primary key,
            {_key_definitions(table)},
            version text not null,
            deleted integer not null,
            operation_ids text,
            created_at text not null,
            updated_at text not null,
            image text,
            unique ({", ".join(table.keys)})
        )
    """


def _key_definitions(table: Table) -> str:
    return ", ".join(f"{key} {table.declared[name]}" for key, name in zip(table.keys, table.schema.key, strict=True))


def _fill_log(table: Table) -> str:
    keys = ", ".join(map(quote, table.schema.key))
    # A millisecond each, up to now: published, they would else run ahead of the clock.
    moment = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ((stamp - rows) / 1000.0) || ' seconds')"
    return f"""
        insert into {table.log} (stamp, {", ".join(table.keys)}, version, deleted, created_at, updated_at)
        select stamp, {keys}, {_VERSION}, 0, {moment}, {moment}
        from (
            select row_number() over (order by {keys}) as stamp, count(*) over () as rows, {keys}
            from {quote(table.name)}
        )
    """


def _entry(table: Table, key: list[str], image: str | None = None, source: str = "", stamp: str = "1") -> str:
    """Write the entry of a key: of a row that is there, or with its image, of one that is not."""
    deleted = int(image is not None)
    return f"""
        insert into {table.log} (stamp, {", ".join(table.keys)}, version, deleted, created_at, updated_at, image)
        select stamp, {", ".join(table.keys)}, {_VERSION}, {deleted}, {_NOW}, {_NOW}, image
        from (
            select (select coalesce(max(stamp), 0) from {table.log}) + {stamp} as stamp,
                {", ".join(f"{value} as {name}" for value, name in zip(key, table.keys, strict=True))},
                {image or "null"} as image
            {source}
        )
        where true
        on conflict ({", ".join(table.keys)}) do update set
            stamp = excluded.stamp, version = excluded.version, updated_at = excluded.updated_at,
            created_at = iif({table.log}.deleted and not excluded.deleted, excluded.created_at, created_at),
            deleted = excluded.deleted, image = excluded.image, operation_ids = {_FOREIGN};
    """


def _triggers(table: Table) -> list[str]:
    name = quote(table.name)
    old, new = _key_of("old", table), _key_of("new", table)
    rekeyed = " or ".join(f"{a} is not {b} collate binary" for a, b in zip(old, new, strict=True))
    return [
        f"create trigger {_named('insert', table)} after insert on {name} begin {_entry(table, new)} end",
        f"create trigger {_named('update', table)} after update on {name} begin {_entry(table, new)} end",
        f"""
        create trigger {_named("rekey", table)} after update on {name} when {rekeyed}
        begin {_entry(table, old, _image("old", table))} end
        """,
        f"""
        create trigger {_named("delete", table)} after delete on {name}
        begin {_entry(table, old, _image("old", table))} end
        """,
    ]


def _key_of(alias: str, table: Table) -> list[str]:
    return [f"{alias}.{quote(name)}" for name in table.schema.key]


def _image(alias: str, table: Table) -> str:
    """The values of a row as JSON; pairs as rows, for a function takes no more than 100 arguments."""
    pairs = []
    for name in table.schema.names:
        cell = f"{alias}.{quote(name)}"
        cases = f"when 'blob' then hex({cell}) when 'real' then printf('%!.20g', {cell}) else {cell}"
        pairs.append((literal(name), f"case typeof({cell}) {cases} end"))
    (name, value), *others = pairs
    more = f" union all values {', '.join(f'({n}, {v})' for n, v in others)}" if others else ""
    return f"(select json_group_object(name, value) from (select {name} as name, {value} as value{more}))"


# INSERT OR REPLACE over a unique value deletes the row that had it, and no delete trigger fires.  So
# before a write the rows with its unique values are noted, and after it those that are gone are entered.


def _unique_indexes(session: Session, table: Table) -> list[list[tuple[str, str]]]:
    """The (column, collation) of each unique index but the key's.  A partial one counts as whole: more is noted."""
    rows = session.values(
        """
        select l.name, i.name, i.coll
        from pragma_index_list(?) as l, pragma_index_xinfo(l.name) as i
        where l."unique" and l.origin <> 'pk' and i.key
        """,
        [table.name],
    )
    indexes: dict[str, list[tuple[str, str]]] = {}
    for index, column, collation in rows:
        if column is None:
            raise SchemaError(
                f"table {table.name!r} cannot be tracked: its unique index {index!r} is over an expression",
                hint="make it a unique index over a column, which a trigger may compute",
            )
        indexes.setdefault(str(index), []).append((str(column), str(collation)))
    return list(indexes.values())


def _unique_triggers(table: Table, uniques: list[list[tuple[str, str]]]) -> list[str]:
    name, noted = quote(table.name), _named("noted", table)
    holders = " or ".join(
        "(" + " and ".join(f"t.{quote(c)} = new.{quote(c)} collate {quote(collation)}" for c, collation in index) + ")"
        for index in uniques
    )
    note = f"""
        delete from {noted};
        insert into {noted} ({", ".join(table.keys)}, image)
        select {", ".join(_key_of("t", table))}, {_image("t", table)} from {name} as t where {holders};
    """
    is_gone = f"from {noted} as noted where not exists (select 1 from {name} as t where {table.has_key_of('noted')})"
    keys = [f"noted.{key}" for key in table.keys]
    gone = f"{_entry(table, keys, 'noted.image', is_gone, 'noted.position')} delete from {noted};"
    return [
        f"create table if not exists {noted} (position integer primary key, {_key_definitions(table)}, image text)",
        f"create trigger {_named('note_insert', table)} before insert on {name} begin {note} end",
        f"create trigger {_named('note_update', table)} before update on {name} begin {note} end",
        f"create trigger {_named('gone_insert', table)} after insert on {name} begin {gone} end",
        f"create trigger {_named('gone_update', table)} after update on {name} begin {gone} end",
    ]
