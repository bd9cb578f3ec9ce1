"""A SQL database as a back end: its tables, their tracking, and batches of operations settled as sets.

`sql_base` says what a database brings, `sql_feed` what a pull reads, `sql_read` what a list does.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import AccessError, SchemaError
from ..operation import Refusal
from ..schema import RESERVED_PREFIX, Column, Schema, quote
from .base import OPERATION, Operations, Outcomes, Promises
from .decide import outcomes, rejected, runs, verdicts, with_operation
from .sql_base import BATCH, DATABASE, SETTINGS, Refused, Session, Table
from .sql_feed import Feed
from .sql_read import Reads

PUSH_ROWS = 10_000  # operations of one transaction


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch as it was decided: what is there now, and the statements that apply it, with their operations' places."""

    batch: Operations
    table: Table
    keys: pa.Table
    now: pa.Table
    verdict: pa.Array
    statements: list[tuple[str, list[int]]]


class _TakenBack(Exception):
    """Not everything of an atomic push was accepted; unwinds its transaction."""


@dataclass
class SqlBackend(Feed, Reads):
    """A SQL database as a back end; `statements` counts what it was asked."""

    promises: Promises = field(default=Promises(atomic_push=True), init=False)
    statements: int = field(default=0, init=False)

    # Tables

    def tables(self) -> list[str]:
        """The names of the tables, syncframe's own left out."""
        with self.session() as session:
            return [name for name in session.names() if not name.lower().startswith(RESERVED_PREFIX)]

    def schema(self, table: str) -> Schema:
        """Return the table's columns and key.

        Raises
        ------
        BackendError
            With status 404 if there is no such table.
        SchemaError
            If it has no primary key, or a column of a type that cannot be kept exactly.
        """
        with self.session() as session:
            return self.describe(session, table).schema

    def identity(self) -> str:
        """What this database is, wherever it stands: of a tracked one its log's own name, else its place."""
        with self.session() as session:
            if SETTINGS not in session.names():
                return self.place_of_file()
            rows = session.values(f"select incarnation from {SETTINGS} where name = ?", [DATABASE])
            return str(rows[0][0]) if rows else self.place_of_file()

    def aliases(self) -> list[str]:
        """What this database was called before one of its tables was tracked."""
        return [self.place_of_file()]

    # Tracking

    def is_tracked(self, table: str) -> bool:
        with self.session() as session:
            return self.describe(session, table).tracked

    def track_sql(self, table: str) -> list[str]:
        """The statements that `track` would run."""
        with self.session() as session:
            return self.track_statements(session, self.describe(session, table))

    def untrack_sql(self, table: str) -> list[str]:
        """The statements that `untrack` would run."""
        with self.session() as session:
            return self.untrack_statements(session, self.describe(session, table))

    def track(self, tables: Iterable[str]) -> None:
        """Add what incremental pulls and tombstones need; again on a tracked table, it mends what is missing."""
        self._alter(tables, self.track_statements)

    def untrack(self, tables: Iterable[str]) -> None:
        """Remove all that `track` added."""
        self._alter(tables, self.untrack_statements)

    def _alter(self, tables: Iterable[str], statements: Callable[[Session, Table], list[str]]) -> None:
        with self.session(write=True) as session:
            for name in tables:
                for sql in statements(session, self.describe(session, name)):
                    session.execute(sql)

    def purge_deleted(self, keep_days: float = 90, *, now: datetime.datetime | None = None) -> int:
        """Forget rows that were deleted more than `keep_days` ago, and return how many.

        Checkpoints from before what is forgotten are lost.  The newest entry of a log stays, so that
        stamps go on rising and the checkpoint of a client that has seen everything keeps its probe.
        """
        moment = (now or datetime.datetime.now(datetime.UTC)) - datetime.timedelta(days=keep_days)
        with self.session(write=True) as session:
            present = {*session.names()}
            if SETTINGS not in present:
                return 0
            logged = session.values(f"select name from {SETTINGS} where name <> ?", [DATABASE])
            tables = [self.describe(session, str(name)) for (name,) in logged if name in present]
            return sum(self._purge(session, table, moment) for table in tables if table.tracked)

    def _purge(self, session: Session, table: Table, moment: datetime.datetime) -> int:
        updated = Column("updated_at", "TIMESTAMPTZ")
        placeholder, value = session.bind(updated, pa.scalar(moment, updated.arrow), updated.type)
        forgotten = f"""
            from {table.log} where deleted and updated_at <= {placeholder}
            and stamp < (select max(stamp) from {table.log})
        """
        ((stamp, count),) = session.values(f"select coalesce(max(stamp), 0), count(*) {forgotten}", [value])
        session.execute(f"delete {forgotten}", [value])
        session.execute(f"update {SETTINGS} set purged = ? where name = ? and purged < ?", [stamp, table.entry, stamp])
        return int(str(count))

    # Push

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        """Apply `batch` in order, a transaction for each chunk, and yield its outcomes as they are committed."""
        for start in range(0, len(batch), PUSH_ROWS):
            yield from self._push(_part(batch, range(start, min(start + PUSH_ROWS, len(batch)))))

    def _push(self, batch: Operations) -> Iterator[Outcomes]:
        try:
            with _refused_whole(), self.session(write=True) as session:
                settled = self._settle(session, batch)
        except Refused as refused:
            if len(batch) == 1:
                yield self._rejected(batch, refused.refusal)
                return
            # One of them is refused, and took the others back with it.
            yield from self.split(batch)
        else:
            yield settled

    def split(self, batch: Operations) -> Iterator[Outcomes]:
        """Push the halves of a batch on their own, in order."""
        middle = len(batch) // 2
        yield from self._push(_part(batch, range(middle)))
        yield from self._push(_part(batch, range(middle, len(batch))))

    def push_atomic(self, batches: Sequence[Operations]) -> list[Outcomes]:
        """Apply all of `batches` in one transaction, or nothing.

        Returns
        -------
        The outcomes of each batch.  If any operation is conflicted or rejected, nothing was applied, and
        only such outcomes are returned.
        """
        settled: list[Outcomes] = []
        for singly in (False, True):
            settled = []
            try:
                with _refused_whole(), self.session(write=True) as session:
                    for batch in batches:
                        settled.append(self._settle(session, batch, singly=singly))
                    if any(_unaccepted(outcome) for outcome in settled):
                        raise _TakenBack
                return settled
            except _TakenBack:
                return [_only_unaccepted(outcome) for outcome in settled]
            except Refused as error:
                # The database gave up the transaction: once more, one by one, to learn at which operation.
                refused = error
        return self._refused_together(batches, len(settled), refused)

    def _refused_together(self, batches: Sequence[Operations], failed: int, refused: Refused) -> list[Outcomes]:
        """What an atomic push says of the operation that was refused, or of all if the database cannot tell."""
        answers = []
        for index, batch in enumerate(batches):
            positions: Sequence[int] = range(len(batch))
            if failed < len(batches):
                positions = (refused.positions or positions) if index == failed else range(0)
            answers.append(self._rejected(_part(batch, positions), refused.refusal))
        return answers

    def _settle(self, session: Session, batch: Operations, *, singly: bool = False) -> Outcomes:
        """Decide, apply and answer within an open transaction."""
        plan = self.plan(session, batch)
        refusals: dict[int, Refusal] = {}
        for sql, positions in plan.statements:
            for part in [[position] for position in positions] if singly else [positions]:
                refusals |= session.attempt(sql, part)
        if refusals:
            session.execute(f"delete from {BATCH} where position in ({', '.join(map(str, refusals))})")
        if plan.statements and plan.table.tracked:
            self.record(session, plan.table)
        return self.answer(session, plan, refusals)

    def plan(self, session: Session, batch: Operations) -> Plan:
        """Decide what is to be done, and load what is to be applied."""
        table = self.describe(session, batch.table)
        _check_types(batch, table)
        keys = batch.rows.select([f"k_{name}" for name in table.schema.key])
        self.before_plan(session, table, batch, keys)
        now = self.lookup(session, table, keys)
        verdict = verdicts(batch, now, tracked=table.tracked)
        positions = pc.indices_nonzero(pc.equal(verdict, "apply")).to_pylist()
        if positions:
            known = [name for name in batch.rows.column_names if name[:2] in ("k_", "l_") and name[2:] in table.schema]
            ids = with_operation(batch["operation_id"], now[OPERATION])
            rows = batch.rows.select(["kind", *known]).append_column("operation_ids", ids)
            session.load(BATCH, table, rows.append_column("position", pa.array(range(len(batch)))).take(positions))
        statements = [(self._statement(table, run.kind, run.given), run.positions) for run in runs(batch, positions)]
        return Plan(batch, table, keys, now, verdict, statements)

    def before_plan(self, session: Session, table: Table, batch: Operations, keys: pa.Table) -> None:
        """What a database has to do before a batch is compared with what is there."""

    def answer(self, session: Session, plan: Plan, refusals: Mapping[int, Refusal]) -> Outcomes:
        """Say what became of each operation, after those that could be were applied."""
        now = self.lookup(session, plan.table, plan.keys) if plan.statements else plan.now
        return outcomes(plan.batch, *self.looked_at(plan, now, refusals), now)

    def looked_at(
        self, plan: Plan, now: pa.Table, refusals: Mapping[int, Refusal]
    ) -> tuple[pa.Array, Mapping[int, Refusal]]:
        """The verdict and the refusals, once it is seen what is there now."""
        return plan.verdict, refusals

    def stored(self, table: Table, name: str, sql: str) -> str:
        """A value of the batch in the form that its column takes."""
        return sql

    def overriding(self, table: Table, columns: Sequence[str]) -> str:
        """What an insert says to give columns that the database fills itself."""
        return ""

    def _statement(self, table: Table, kind: str, given: tuple[str, ...]) -> str:
        """The statement that applies the operations of one kind and shape between two positions of the batch."""
        name, between = table.sql, "b.position between ? and ?"
        values = {column: self.stored(table, column, f"b.{quote(f'l_{column}')}") for column in given}
        if kind == "insert":
            columns = [*table.schema.key, *given]
            cells = [*(f"b.{key}" for key in table.keys), *values.values()]
            return f"""
                insert into {name} ({", ".join(map(quote, columns))}) {self.overriding(table, columns)}
                select {", ".join(cells)} from {BATCH} as b where {between} order by b.position
            """
        if kind == "update":
            sets = ", ".join(f"{quote(column)} = {value}" for column, value in values.items())
            return f"update {name} as t set {sets} from {BATCH} as b where {between} and {table.has_key_of('b')}"
        return f"""
            delete from {name} where ({", ".join(map(quote, table.schema.key))})
            in (select {", ".join(f"b.{key}" for key in table.keys)} from {BATCH} as b where {between})
        """

    def _rejected(self, batch: Operations, refusal: Refusal) -> Outcomes:
        with self.session() as session:
            table = self.describe(session, batch.table)
            now = self.lookup(session, table, batch.rows.select([f"k_{name}" for name in table.schema.key]))
        return rejected(batch, refusal, now)


@contextmanager
def _refused_whole() -> Iterator[None]:
    """Who may not write has written nothing: the transaction was taken back, or never begun."""
    try:
        yield
    except AccessError as error:
        error.was_sent = False
        raise


def _check_types(batch: Operations, table: Table) -> None:
    """Refuse a batch that was made before a column's type was changed."""
    there = {column.name: column for column in table.schema.columns}
    for column in batch.schema.columns:
        if column.name in there and there[column.name].arrow != column.arrow:
            raise SchemaError(
                f"table {table.name!r} has changed: its column {column.name!r} is {there[column.name].type}, "
                f"and the operations have {column.type}",
                hint="pull the table, which says what to do",
            )


def _part(batch: Operations, positions: Sequence[int]) -> Operations:
    if isinstance(positions, range):
        return replace(batch, rows=batch.rows.slice(positions.start, len(positions)))
    return replace(batch, rows=batch.rows.take(pa.array(positions, pa.int64())))


def _unaccepted(settled: Outcomes) -> bool:
    return bool(len(_only_unaccepted(settled)))


def _only_unaccepted(settled: Outcomes) -> Outcomes:
    return Outcomes(settled.rows.filter(pc.not_equal(settled["status"], "accepted")))
