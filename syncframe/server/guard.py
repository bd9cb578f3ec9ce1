"""A back end as one identity sees it: rows that it may not read are not there, what it may not write stays as it is.

A write is held against the row's filters before and after.  Before: an operation has the version of the row that was
looked at here, and the back end applies it to no other, so that nothing comes between the look and the write.
After: a default or a trigger may have made of it what the identity may not write; then it is taken back.

Of a row that left what may be read only who holds it should hear, and nobody here knows who does: a pull that meets
one starts anew instead (`CheckpointLost`), and a row that is not listed then is gone.  Within one pull it is known
what was sent, and such a row leaves by its key.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..backends.base import (
    DELETED,
    HELD,
    OPERATION,
    Checkpoint,
    Operations,
    Outcomes,
    Page,
    operation_schema,
    outcome_schema,
)
from ..errors import CheckpointLost
from ..frame import cursor
from ..query import Call, Condition, Literal, Query, Read, to_duckdb
from ..query.tree import COMPARISONS, walk
from ..schema import Schema
from .exchange import Refusal
from .rights import Granted, both

log = logging.getLogger("syncframe.server")

PUSH_ROWS = 10_000  # looked at and pushed at one time
CODE = "access"
WORDS = "it may not be written by who asks"
PREFIX = "filtered:"
# What can be computed of any value; what is not here is asked only of rows that may be read.
_TOTAL = frozenset(
    {*COMPARISONS, "and", "or", "not", "in", "between", "like", "ilike", "is null", "is true", "is false", "lower",
     "upper", "length", "starts_with", "ends_with", "contains", "strpos"}
)  # fmt: skip

_Keys = list[tuple[Any, ...]]


class Guard:
    """A back end for one identity and one request; it has the verbs that the back end has."""

    def __init__(self, backend: Any, granted: Callable[[str, Schema], Granted]) -> None:
        self._backend = backend
        self._ask = granted
        self._schemas: dict[str, Schema] = {}
        self._known: dict[str, Granted] = {}
        self.promises = backend.promises
        for name in ("rows", "read", "count"):
            if hasattr(backend, name):
                setattr(self, name, getattr(self, f"_{name}"))
        for name in ("identity", "publish"):
            if hasattr(backend, name):
                setattr(self, name, getattr(backend, name))

    def schema(self, table: str) -> Schema:
        found: Schema = self._backend.schema(table)
        self._schemas[table] = found
        return found

    def granted(self, table: str) -> Granted:
        if table not in self._known:
            self._known[table] = self._ask(table, self._schemas.get(table) or self.schema(table))
        return self._known[table]

    # Reading

    def _read(self, table: str, read: Read) -> pa.Table:
        return self._backend.read(table, replace(read, where=self._narrowed(table, read.where)))

    def _count(self, table: str, read: Read) -> int:
        return int(self._backend.count(table, replace(read, where=self._narrowed(table, read.where))))

    def _rows(self, table: str, keys: pa.Table) -> pa.Table:
        found: pa.Table = self._backend.rows(table, keys)
        return found.filter(self._readable(table, found))

    def _readable(self, table: str, rows: pa.Table) -> pa.Array:
        """Which rows may be read; of tombstones their last values count."""
        return pa.array(_masks(self.granted(table), ("read",), rows, self._schemas[table])["read"], pa.bool_())

    def _filter(self, table: str) -> Condition | None:
        granted = self.granted(table)
        if not granted.may("read"):
            raise may_not("read", table)
        return granted.filters["read"]

    def _narrowed(self, table: str, where: Condition | None) -> Condition | None:
        return _within(self._filter(table), where)

    def pull(self, table: str, query: Query, since: Checkpoint | None, others: Sequence[Query] = ()) -> Iterator[Page]:
        """As the back end's, of the rows that may be read."""
        where = self._filter(table)
        place = _unwrapped(since, where)
        pages = self._backend.pull(table, _of(query, where), place, [_of(other, where) for other in others])
        if where is None:
            yield from pages
            return
        shown = _Shown() if since is None else None
        for page in pages:
            yield self._page(table, where, page, shown)

    def _page(self, table: str, where: Condition, page: Page, shown: _Shown | None) -> Page:
        names = list(self._schemas[table].key)
        is_gone = pc.fill_null(page.rows[DELETED], False)
        live, gone = page.rows.filter(pc.invert(is_gone)), page.rows.filter(is_gone)
        left = page.leavers if page.leavers is not None else gone.select(names).slice(0, 0)
        gone_told, left_told = self._told(table, gone.select(names)), self._told(table, left.select(names))
        hidden = [*_listed(gone.filter(pc.invert(gone_told)).select(names))]
        hidden += _listed(left.filter(pc.invert(left_told)).select(names))
        named = _leavers(self._named(table, hidden, shown), self._schemas[table])
        leavers = pa.concat_tables([left.filter(left_told), named], promote_options="permissive")
        if shown is not None:
            shown.add(_listed(live.select(names)))
        return replace(
            page,
            rows=pa.concat_tables([live, gone.filter(gone_told)]),
            leavers=leavers if len(leavers) else None,
            checkpoint=None if page.checkpoint is None else _wrapped(page.checkpoint, where),
        )

    def _told(self, table: str, keys: pa.Table) -> pa.Array:
        """Which of the keys are of rows and tombstones that may be read."""
        readable = {*_listed(self._rows(table, keys).select(keys.column_names))} if len(keys) else set()
        return pa.array([key in readable for key in _listed(keys)], pa.bool_())

    def _named(self, table: str, hidden: _Keys, shown: _Shown | None) -> _Keys:
        """Which rows that may not be read are told to have left."""
        if not hidden or self.granted(table).names_leavers:
            return hidden
        if shown is not None:
            return shown.among(hidden)
        raise CheckpointLost("rows have changed that may not be read, and some that were read before may be among them")

    # Writing

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        """As the back end's; what may not be written is rejected."""
        if self.granted(batch.table).is_whole:
            yield from self._backend.push(batch)
            return
        for start in range(0, len(batch), PUSH_ROWS):
            looked = self._looked(replace(batch, rows=batch.rows.slice(start, PUSH_ROWS)))
            answers = []
            if looked.pushed:
                answers = [part.rows for part in self._backend.push(looked.part())]
            yield looked.merged(self._settled(looked, answers))

    def push_atomic(self, batches: Sequence[Operations]) -> list[Outcomes]:
        """As the back end's: one operation that may not be done, and nothing is applied."""
        if all(self.granted(batch.table).is_whole for batch in batches):
            settled: list[Outcomes] = self._backend.push_atomic(batches)
            return settled
        looked = [self._looked(batch) for batch in batches]
        if any(_unaccepted(outcome) for one in looked for outcome in one.said.values()):
            return [one.merged({}, only_unaccepted=True) for one in looked]
        found: list[Outcomes] = self._backend.push_atomic([one.part() for one in looked])
        is_applied = all(len(outcomes) == len(one.pushed) for one, outcomes in zip(looked, found, strict=True))
        is_applied = is_applied and not any(_unaccepted(o) for outcomes in found for o in outcomes)
        settled_rows = [self._settled(one, [part.rows]) for one, part in zip(looked, found, strict=True)]
        if not is_applied:
            return [one.merged(rows, only_unaccepted=True) for one, rows in zip(looked, settled_rows, strict=True)]
        if any(_unaccepted(outcome) for rows in settled_rows for outcome in rows.values()):
            # A default or a trigger made one of them what it may not be: none of them stays.
            for one, rows in zip(reversed(looked), reversed(settled_rows), strict=True):
                for place in reversed(one.pushed):
                    if not _unaccepted(rows[place]):
                        self._take_back(one, place, rows[place])
            return [one.merged(rows, only_unaccepted=True) for one, rows in zip(looked, settled_rows, strict=True)]
        return [one.merged(rows) for one, rows in zip(looked, settled_rows, strict=True)]

    def _looked(self, batch: Operations) -> _Looked:
        """Look at the rows of a batch, and say which operations may go on, and what comes of the others."""
        granted, schema = self.granted(batch.table), batch.schema
        keys = batch.rows.select([f"k_{name}" for name in schema.key]).rename_columns(list(schema.key))
        found: pa.Table = self._backend.rows(batch.table, keys)
        places = {key: place for place, key in enumerate(_listed(found.select(list(schema.key))))}
        at = [places.get(key) for key in _listed(keys)]
        held = _masks(granted, ("read", "update", "delete"), found, schema)
        becomes = _results(batch, found, at)
        fits = _masks(granted, ("insert", "update"), becomes, schema)
        looked = _Looked(batch, found, at, [place is not None and held["read"][place] for place in at])
        gone = found[DELETED].to_pylist()
        for number, kind in enumerate(batch["kind"].to_pylist()):
            place = at[number]
            if not granted.may(kind):
                looked.said[number] = _refused()
            elif place is not None and not held["read"][place]:
                looked.said[number] = looked.of_hidden(number, kind)
            elif kind == "insert":
                looked.take(number, fits["insert"][number])
            elif place is None or gone[place]:
                looked.take(number, True)  # there is nothing to be seen or changed, and the back end says so
            else:
                looked.take(number, held[kind][place] and (kind == "delete" or fits["update"][number]))
        return looked

    def _settled(self, looked: _Looked, answers: Sequence[pa.Table]) -> dict[int, dict[str, Any]]:
        """What the back end said, without rows that may not be read; what may not be written is taken back."""
        batch, schema = looked.batch, looked.batch.schema
        granted = self.granted(batch.table)
        wanted = outcome_schema(schema)
        rows = pa.concat_tables([wanted.empty_table(), *answers], promote_options="default")
        numbers = {id_: number for number, id_ in enumerate(batch["operation_id"].to_pylist())}
        order = [numbers[id_] for id_ in rows["operation_id"].to_pylist()]
        whole = _as_stored(batch, rows, order)
        masks = _masks(granted, ("read", "insert", "update"), whole, schema)
        kinds = batch["kind"].to_pylist()
        settled: dict[int, dict[str, Any]] = {}
        for at, (number, outcome) in enumerate(zip(order, rows.to_pylist(), strict=True)):
            kind = kinds[number]
            is_there, is_accepted = outcome["deleted"] is False, outcome["status"] == "accepted"
            is_written = is_accepted and not looked.was_applied(number)
            if is_there and is_written and kind != "delete" and not masks[kind][at]:
                self._take_back(looked, number, outcome)
                outcome = _refused()
            elif is_there and not is_written and not masks["read"][at]:
                outcome = _refused() if kind == "insert" and not is_accepted else _hidden(outcome)
            elif not is_there and not looked.seen[number] and not is_written:
                outcome = _hidden(outcome)
            settled[number] = outcome
        return settled

    def _take_back(self, looked: _Looked, number: int, outcome: Mapping[str, Any]) -> None:
        """Write the row as it was, if it still is what was written."""
        operation = looked.inverse(number, outcome)
        batch = looked.batch
        rows = pa.Table.from_pylist([operation], schema=operation_schema(batch.schema))
        parts = list(self._backend.push(Operations(batch.table, batch.schema, rows)))
        if any(_unaccepted(answer) for part in parts for answer in part):
            log.error("a row of table %r was written that may not be, and could not be taken back", batch.table)


@dataclass(slots=True)
class _Looked:
    """A batch beside the rows as they were looked at.

    Parameters
    ----------
    found, at
        The rows that are there, and where among them each operation's is.
    seen
        Of which the identity may know.
    said
        What came of operations that the back end is not asked for, by their number.
    pushed
        The numbers of those that it is.
    """

    batch: Operations
    found: pa.Table
    at: list[int | None]
    seen: list[bool]
    said: dict[int, dict[str, Any]] = field(default_factory=dict)
    pushed: list[int] = field(default_factory=list)

    def take(self, number: int, is_fit: bool) -> None:
        if is_fit:
            self.pushed.append(number)
        else:
            self.said[number] = _refused()

    def of_hidden(self, number: int, kind: str) -> dict[str, Any]:
        """What comes of an operation on a row that may not be read: as if it were not there."""
        if self.was_applied(number):
            return _hidden({"status": "accepted"})
        if kind == "insert":
            return _refused()
        return _hidden({"status": "accepted" if kind == "delete" else "conflicted"})

    def was_applied(self, number: int) -> bool:
        """Whether the row was written by this operation already, whose answer was lost then."""
        place = self.at[number]
        ids = None if place is None else self.found[OPERATION][place].as_py()
        return ids is not None and self.batch["operation_id"][number].as_py() in ids.split(" ")

    def part(self) -> Operations:
        """What the back end is asked for."""
        return replace(self.batch, rows=self.batch.rows.take(pa.array(self.pushed, pa.int64())))

    def merged(self, settled: Mapping[int, Mapping[str, Any]], *, only_unaccepted: bool = False) -> Outcomes:
        """All that is said, in the order of the operations."""
        ids = self.batch["operation_id"].to_pylist()
        told = {**self.said, **settled}
        rows = [{**told[number], "operation_id": ids[number]} for number in sorted(told)]
        return Outcomes.of(self.batch, [row for row in rows if not only_unaccepted or _unaccepted(row)])

    def inverse(self, number: int, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """The operation that undoes one of these, if the row is still what the outcome says."""
        sent, place, schema = self.batch.rows.slice(number, 1).to_pylist()[0], self.at[number], self.batch.schema
        was = self.found.slice(place, 1).to_pylist()[0] if place is not None else {}
        kind = {"insert": "delete", "update": "update", "delete": "insert"}[sent["kind"]]
        given = [] if kind == "delete" else list(schema.values)
        if kind == "update":
            # What a trigger did beside it, too.
            given = [name for name in given if outcome[f"r_{name}"] != was[name]]
        return {
            "operation_id": str(uuid.uuid4()),
            "kind": kind,
            "base_version": outcome[_VERSION],
            "given": given,
            **{f"k_{name}": sent[f"k_{name}"] for name in schema.key},
            **{f"l_{name}": was.get(name) for name in given},
        }


_VERSION = "version"  # as an outcome calls it


def _refused() -> dict[str, Any]:
    return {"status": "rejected", "code": CODE, "message": WORDS}


def _hidden(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """An outcome that knows of no row."""
    told = {name: outcome.get(name) for name in ("status", "code", "column", "message")}
    return {**told, "deleted": True}


def _unaccepted(outcome: Mapping[str, Any]) -> bool:
    return bool(outcome["status"] != "accepted")


def may_not(verb: str, table: str) -> Refusal:
    return Refusal(
        403, f"who asks may not {verb} in table {table!r}", hint="ask whoever runs the server", kind="AccessError"
    )


# Checkpoints


def _wrapped(checkpoint: Checkpoint, where: Condition) -> Checkpoint:
    return Checkpoint(f"{PREFIX}{_mark(where)}:{checkpoint}")


def _unwrapped(checkpoint: Checkpoint | None, where: Condition | None) -> Checkpoint | None:
    """The back end's own checkpoint, if what may be read is what it was: else rows would never be asked for."""
    if checkpoint is None:
        return None
    prefix = "" if where is None else f"{PREFIX}{_mark(where)}:"
    if not checkpoint.startswith(prefix) or (where is None and checkpoint.startswith(PREFIX)):
        raise CheckpointLost("what may be read has changed since the last pull")
    return Checkpoint(checkpoint[len(prefix) :])


def _mark(where: Condition) -> str:
    return hashlib.sha256(where.text.encode()).hexdigest()[:16]


class _Shown:
    """The keys that one pull has sent, as hashes."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []

    def add(self, keys: _Keys) -> None:
        self._parts.append(_hashes(keys))

    def among(self, keys: _Keys) -> _Keys:
        known = np.isin(_hashes(keys), np.concatenate([_hashes([]), *self._parts]))
        return [key for key, is_known in zip(keys, known, strict=True) if is_known]


def _hashes(keys: _Keys) -> np.ndarray:
    return np.fromiter(map(hash, keys), np.int64, len(keys))


def _leavers(keys: _Keys, schema: Schema) -> pa.Table:
    columns = list(zip(*keys, strict=True)) or [()] * len(schema.key)
    made = {c.name: pa.array(part, c.arrow) for c, part in zip(schema.key_columns, columns, strict=True)}
    return pa.table({**made, HELD: pa.array([False] * len(keys), pa.bool_())})


# Rows and conditions


def _listed(keys: pa.Table) -> _Keys:
    return list(zip(*(column.to_pylist() for column in keys.columns), strict=True))


def _results(batch: Operations, found: pa.Table, at: Sequence[int | None]) -> pa.Table:
    """What the rows would be after each operation: of an insert, columns that are not given are NULL."""
    kinds, given = batch["kind"].to_pylist(), [set(names or ()) for names in batch["given"].to_pylist()]
    is_update = [kind == "update" for kind in kinds]
    places = pa.array([place if of else None for place, of in zip(at, is_update, strict=True)], pa.int64())
    columns = {}
    for column in batch.schema.columns:
        if column.name in batch.schema.key:
            columns[column.name] = batch[f"k_{column.name}"]
            continue
        is_given = pa.array([column.name in names for names in given], pa.bool_())
        kept = found[column.name].combine_chunks().take(places)
        columns[column.name] = pc.if_else(is_given, batch[f"l_{column.name}"], kept.cast(column.arrow))
    return pa.table(columns)


def _as_stored(batch: Operations, rows: pa.Table, order: Sequence[int]) -> pa.Table:
    """The rows of outcomes, with their keys."""
    sent = batch.rows.take(pa.array(order, pa.int64()))
    keys = {name: sent[f"k_{name}"] for name in batch.schema.key}
    return pa.table({**keys, **{name: rows[f"r_{name}"] for name in batch.schema.values}})


def _masks(granted: Granted, verbs: Sequence[str], rows: pa.Table, schema: Schema) -> dict[str, list[bool]]:
    """On which rows each verb may be used; one filter is asked once, whatever it is for."""
    wheres = {verb: granted.filters.get(verb) for verb in verbs}
    asked = {where.text: where for where in wheres.values() if where is not None}
    found = {text: _matching(where, rows, schema).to_pylist() for text, where in asked.items()}
    return {
        verb: [granted.may(verb)] * len(rows) if where is None else found[where.text] for verb, where in wheres.items()
    }


def _matching(where: Condition, rows: pa.Table, schema: Schema) -> pa.Array:
    if not len(rows):
        return pa.array([], pa.bool_())
    # The key is there in any case, so that a condition on no column has rows to be asked of.
    names = [name for name in schema.names if name in where.columns or name == schema.key[0]]
    asked = pa.table([_without_nan(rows[name]) for name in names], names)
    sql, parameters = to_duckdb(where)
    with closing(cursor()) as connection:
        connection.register("asked", asked.append_column(_AT, pa.array(range(len(rows)))))
        found = connection.sql(f"select coalesce({sql}, false) as fit from asked order by {_AT}", params=parameters)
        return found.to_arrow_table()["fit"].combine_chunks()


_AT = "_syncframe_at"


def _without_nan(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _of(query: Query, where: Condition | None) -> Query:
    return replace(query, where=_within(where, query.where))


def _within(where: Condition | None, asked: Condition | None) -> Condition | None:
    """Both; what can fail is computed of rows within `where` alone, for a failure tells of its row."""
    if where is None or asked is None or all(node.op in _TOTAL for node in walk(asked.tree) if isinstance(node, Call)):
        return both(where, asked)
    # Arguments of a coalesce are computed until one is not NULL; without `where` the first is false.
    is_out = Call("and", (Call("is true", (where.tree,), "bool"), Literal(None, "bool")), "bool")
    kept = Call("coalesce", (is_out, asked.tree), "bool")
    return both(where, Condition(asked.text, kept, asked.columns | where.columns))
