"""Pushes to a plain service: one request for each operation, many at once, and what each answer means.

    a chunk -> the rows as they are there, where a row is replaced whole (v3) -> its operations side by side ->
    those refused once more, one after another -> the rows of answers that had none -> outcomes, in order

The service keeps no operation ids.  A write goes with the version of its base, so that sent twice it is refused
the second time; and a row that is there and equals what was sent is taken for the effect of the same request.
What was not answered is not sent again here, for nobody knows what became of it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import AccessError, BackendError, KeyColumnError, SyncError, TransientError
from ...schema import Column
from ...wire import DELETED, ID, SYSTEM, VERSION, Wire, cells_in, cells_out, dumps, etag, loads, version_of
from ..base import CREATED, UPDATED, Operations, Outcomes, outcome_schema
from ..base import DELETED as ROW_DELETED
from ..base import VERSION as ROW_VERSION
from ..decide import conformed
from .answers import Answer
from .dialect import V2, row_path, table_path
from .infer import is_instant
from .lists import IDS_MAX, Lists, Object
from .transport import Ask

CHUNK_ROWS = 400
FAILURES_MAX = 5  # answers of 500 after which the service, and not the row, is taken to be broken
ORDERLESS = ("not null", "check", "type")  # refusals that no other operation can mend
GONE = (404, 410)
# What Node.js says with a 500, as to any trouble, where its database refused a row and took the request back.
_CONSTRAINT = re.compile(
    r"SQLITE_(?:CONSTRAINT|MISMATCH|TOOBIG): (?:(NOT NULL|CHECK|FOREIGN KEY) constraint failed)?(?:: \w+\.(\w+)$)?.*"
    r"|SQLITE_ERROR: .* has no column named .*"
)
_CODES = {"NOT NULL": "not null", "CHECK": "check", "FOREIGN KEY": "reference"}
LOOK_S = 0.2  # how soon the stop button is seen


@dataclass(frozen=True, slots=True)
class Change:
    """One operation as the wire has it; `given` are its columns as JSON."""

    id: str
    kind: str
    base_version: str | None
    given: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What became of an operation.

    Parameters
    ----------
    found
        The row as it is there; None: there is none, or nobody has asked yet.
    is_seen
        Whether `found` is what is there.
    """

    status: str
    found: Object | None = None
    is_seen: bool = True
    code: str | None = None
    column: str | None = None
    message: str | None = None


@dataclass(slots=True)
class PlainPush:
    """One push of one batch."""

    lists: Lists
    wire: Wire
    batch: Operations
    in_flight: int
    guessed: frozenset[str] = frozenset()  # columns that were taken for text, for no row had a value
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _failures: list[SyncError] = field(default_factory=list, init=False)
    _has_sent: bool = field(default=False, init=False)

    def run(self) -> Iterator[Outcomes]:
        """Yield outcomes chunk by chunk, in order; then raise what stopped it, if anything did."""
        pool = ThreadPoolExecutor(max(1, min(self.in_flight, len(self.batch))))
        try:
            for start in range(0, len(self.batch), CHUNK_ROWS):
                chunk = Operations(self.batch.table, self.batch.schema, self.batch.rows.slice(start, CHUNK_ROWS))
                said = self._settled(pool, self._changes(chunk))
                if outcomes := self._outcomes(chunk, said):
                    yield outcomes
                if self._stop.is_set():
                    break
        except BaseException as error:
            self._stop.set()
            # The stop button does not wait for answers: what is under way counts as sent, its answer as lost.
            pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
            raise
        pool.shutdown()
        if self._failures:
            raise self._failure()

    # A chunk

    def _settled(self, pool: ThreadPoolExecutor, changes: Sequence[Change]) -> list[Said | None]:
        """What became of each; None: not known."""
        bases = self._bases(pool, changes)
        said = list(_answers(pool, lambda change: self._tried(change, bases.get(change.id)), changes))
        for position, change in enumerate(changes):
            first = said[position]
            if position and first is not None and first.status == "rejected" and first.code not in ORDERLESS:
                # Side by side, a child may have come before its parent, or a value before it was given up.
                said[position] = self._tried(change, bases.get(change.id)) or first
        return self._seen(pool, changes, said)

    def _bases(self, pool: ThreadPoolExecutor, changes: Sequence[Change]) -> dict[str, Object]:
        """The rows that are replaced whole, as they are there."""
        if self.lists.dialect is V2:
            return {}
        try:
            return self._found(pool, [change.id for change in changes if change.kind == "update"])
        except TransientError as error:
            error.was_sent = self._has_sent
            raise

    def _found(self, pool: ThreadPoolExecutor, ids: Sequence[str]) -> dict[str, Object]:
        parts = [ids[start : start + IDS_MAX] for start in range(0, len(ids), IDS_MAX)]
        found: dict[str, Object] = {}
        for part in _answers(pool, lambda part: self.lists.found(self.batch.table, part), parts):
            found |= part
        return found

    def _seen(self, pool: ThreadPoolExecutor, changes: Sequence[Change], said: list[Said | None]) -> list[Said | None]:
        """Ask for the rows that answers did not show."""
        unseen = [position for position, answer in enumerate(said) if answer is not None and not answer.is_seen]
        if not unseen:
            return said
        try:
            found = self._found(pool, [changes[position].id for position in unseen])
        except SyncError as error:
            self._failed(error)
            return [None if answer is not None and not answer.is_seen else answer for answer in said]
        for position in unseen:
            said[position] = replace(said[position], found=found.get(changes[position].id), is_seen=True)  # type: ignore[type-var]
        return said

    def _tried(self, change: Change, base: Object | None) -> Said | None:
        """Send one operation, unless the push has stopped; an error is kept for its end."""
        if self._stop.is_set():
            return None
        try:
            return self._sent(change, base)
        except KeyColumnError as error:
            return Said("rejected", None, True, "type", None, error.message)
        except SyncError as error:
            if refused := _constraint(error):
                return refused
            self._failed(error, change)
            return None

    def _failed(self, error: SyncError, change: Change | None = None) -> None:
        if change is not None and isinstance(error, TransientError) and error.status == 500:
            # Often this service's answer to this row only: the others need not wait for it.
            error.message = f"{change.kind} of {change.id!r}: {error.message}"
            error.args = (error.message,)
        else:
            self._stop.set()
        self._failures.append(error)
        if len(self._failures) >= FAILURES_MAX:
            self._stop.set()

    def _failure(self) -> SyncError:
        """The error that says most."""
        grave = [error for error in self._failures if not isinstance(error, TransientError)]
        chosen = next((error for error in grave if isinstance(error, AccessError)), (grave or self._failures)[0])
        if isinstance(chosen, (AccessError, TransientError)):
            chosen.was_sent = self._has_sent
        return chosen

    # One operation

    def _sent(self, change: Change, base: Object | None) -> Said:
        if change.kind == "insert":
            # What cannot be named later must not be made: to an empty id a service gives one of its own.
            row_path(self.batch.table, change.id)
            return self._insert(change)
        return self._update(change, base) if change.kind == "update" else self._delete(change)

    def _insert(self, change: Change) -> Said:
        if change.base_version is not None:
            return self._insert_again(change, change.base_version)
        answer = self._write("POST", table_path(self.batch.table), self._body(change))
        if answer.status != 409:
            return self._judged(change, answer)
        # Whatever the body shows: a service of v2 sends back what it was sent.
        found = self._now(change)
        return self._refused(answer, "unique") if found is None else self._met(change, found)

    def _insert_again(self, change: Change, version: str) -> Said:
        """Undelete the row whose tombstone is known, and replace it."""
        path = row_path(self.batch.table, change.id)
        if self.lists.dialect is not V2:
            answer = self._write(
                "PUT", path, {**self._body(change), DELETED: False}, version, self.lists.dialect.with_deleted
            )
            return self._insert_anew(change) if answer.status in GONE else self._judged(change, answer)
        tombstone = self._now(change)
        if tombstone is None:
            return self._insert_anew(change)
        if not _is_deleted(tombstone) or tombstone.get(VERSION) != version:
            return self._met(change, tombstone)
        found = self._undeleted(change, path, version, tombstone)
        if isinstance(found, Said):
            return found
        # The old row's values are not the new one's.  Sent again if need be: its version guards it, and between
        # the two requests the row is as nobody wants it.
        blank = {c.name: None for c in self.wire.columns if c.nullable and c.name not in self.wire.schema.key}
        undeleted = str(found.get(VERSION))
        body = {**blank, **change.given}
        try:
            said = self._judged(change, self._write("PATCH", path, body, undeleted, may_repeat=True))
        except TransientError as error:
            if (refused := _constraint(error)) is None:
                raise
            said = refused
        if said.status == "rejected":
            self._write("DELETE", path, None, undeleted)
        return said

    def _undeleted(self, change: Change, path: str, version: str, tombstone: Object) -> Object | Said:
        """The row after its undelete, or what else became of that.

        A row that is there and has the tombstone's values is taken for the effect of the request, whose answer may
        have been lost or be that to its repetition.
        """
        try:
            answer = self._write("POST", path, None, version)
        except TransientError as error:
            found = self._now(change) if error.was_sent else None
            if found is None or not _is_back(found, tombstone):
                raise
            return found
        found = _row_in(answer, change)
        if found is None or VERSION not in found:
            found = self._now(change)
        if found is not None and (answer.ok or _is_back(found, tombstone)):
            return found
        return self._insert_anew(change) if answer.status in GONE else self._judged(change, answer)

    def _insert_anew(self, change: Change) -> Said:
        """The tombstone is forgotten."""
        return self._insert(replace(change, base_version=None))

    def _update(self, change: Change, base: Object | None) -> Said:
        path = row_path(self.batch.table, change.id)
        if not change.given:
            found = self._now(change)
            is_same = found is not None and found.get(VERSION) == change.base_version and not _is_deleted(found)
            return Said("accepted", found) if is_same else self._met(change, found)
        if self.lists.dialect is V2:
            return self._judged(change, self._write("PATCH", path, dict(change.given), change.base_version))
        if base is None or _is_deleted(base) or base.get(VERSION) != change.base_version:
            return self._met(change, base)
        # The body is the whole row: columns that are not known here keep their values.
        known = {name: cell for name, cell in base.items() if name not in SYSTEM}
        return self._judged(change, self._write("PUT", path, {**known, **change.given}, change.base_version))

    def _delete(self, change: Change) -> Said:
        answer = self._write("DELETE", row_path(self.batch.table, change.id), None, change.base_version)
        if answer.ok or answer.status in GONE:
            found = _row_in(answer, change) if answer.ok else None
            return Said("accepted", found, found is not None and _is_deleted(found))
        return self._judged(change, answer)

    def _write(
        self,
        method: str,
        path: str,
        body: object,
        version: str | None = None,
        query: str = "",
        *,
        may_repeat: bool = False,
    ) -> Answer:
        headers = {**self.lists.dialect.headers}
        if version is not None:
            headers["If-Match"] = etag(version)
        if body is not None:
            headers["Content-Type"] = "application/json"
        content = None if body is None else dumps(body)
        ask = Ask(method, path, query, headers, content, may_repeat)
        try:
            answer = self.lists.transport.request(ask, stopped=self._stop.is_set)
        except TransientError as error:
            self._has_sent = self._has_sent or error.was_sent
            raise
        except AccessError:
            raise
        except BackendError:
            self._has_sent = True
            raise
        self._has_sent = True
        return answer

    # What an answer means

    def _judged(self, change: Change, answer: Answer) -> Said:
        if answer.ok:
            found = _row_in(answer, change)
            return self._not_kept(change, found) or Said("accepted", found, found is not None)
        if answer.status not in (409, 412, *GONE):
            return self._refused(answer)
        found = _row_in(answer, change) if answer.status in (409, 412) else None
        if found is None or VERSION not in found:
            found = self._now(change)
        if found is not None and not _is_deleted(found) and found.get(VERSION) == change.base_version:
            # The row has not moved: something else stands in the way, such as a value that is taken.
            return self._refused(answer, "unique" if answer.status == 409 else None)
        return self._met(change, found)

    def _met(self, change: Change, found: Object | None) -> Said:
        """Another state of the row than the operation was made on."""
        if found is None or _is_deleted(found):
            return Said("accepted" if change.kind == "delete" else "conflicted", found)
        if change.kind != "delete" and self._equals(change, found):
            return Said("accepted", found)
        message = "the row was changed there; your own change may be in it already"
        return Said("conflicted", found, message=message)

    def _refused(self, answer: Answer, code: str | None = None) -> Said:
        error = answer.error()
        if isinstance(error, AccessError | TransientError):
            raise error
        # To a value that is taken Node.js answers with the row as it was sent, whose columns are no words of its own.
        told = {} if _is_row(answer) else answer.told()
        words = told.get("error") or f"the service answered {answer.status}"
        return Said("rejected", None, False, told.get("code") or code or str(answer.status), told.get("column"), words)

    def _not_kept(self, change: Change, found: Object | None) -> Said | None:
        """The refusal of a text for a column that was taken for one of text and is shown to be one of dates.

        Node.js keeps nothing of a text that is no date, and of another what the date says in its own zone.
        """
        for name in sorted(self.guessed & change.given.keys()) if found is not None else ():
            sent, kept = change.given[name], found.get(name)  # type: ignore[union-attr]
            if sent is not None and sent != kept and (kept is None or is_instant(kept)):
                words = f"column {name!r} holds no text there: {str(sent)[:100]!r} was kept as {kept!r}"
                return Said("rejected", found, True, "type", name, f"{words}; give its type: connect(..., schema=...)")
        return None

    def _now(self, change: Change) -> Object | None:
        return self.lists.found(self.batch.table, [change.id]).get(change.id)

    def _equals(self, change: Change, found: Object) -> bool:
        """Whether the row is what was sent, after the wire's rounding."""
        schema = self.wire.schema
        return all(_same(schema[name], cell, found.get(name)) for name, cell in change.given.items())

    # Between Arrow and JSON

    def _changes(self, chunk: Operations) -> list[Change]:
        rows, schema = chunk.rows, chunk.schema
        keys = rows.select([f"k_{name}" for name in schema.key]).rename_columns(list(schema.key))
        givens = [[name for name in given or () if name not in schema.key] for given in rows["given"].to_pylist()]
        cells = {
            name: _cells(rows[f"l_{name}"], self.wire.schema[name], nested=self.wire.is_foreign)
            for name in {name for given in givens for name in given}
        }
        parts = zip(
            self.wire.ids(keys), rows["kind"].to_pylist(), rows["base_version"].to_pylist(), givens, strict=True
        )
        return [
            Change(id_, kind, version, {name: cells[name][at] for name in given})
            for at, (id_, kind, version, given) in enumerate(parts)
        ]

    def _body(self, change: Change) -> dict[str, Any]:
        """An insert's; a key that is not the id goes as its columns too."""
        key = self.wire.key_of(change.id)
        parts = {
            column.name: _cells(pa.array([part], column.arrow), column)[0]
            for column, part in zip(self.wire.schema.key_columns, key, strict=True)
        }
        return {**parts, ID: change.id, **change.given}

    def _outcomes(self, chunk: Operations, said: Sequence[Said | None]) -> Outcomes | None:
        known = [position for position, answer in enumerate(said) if answer is not None]
        answers = [answer for answer in said if answer is not None]
        if not answers:
            return None
        ids = self.wire.ids(
            chunk.rows.select([f"k_{n}" for n in chunk.schema.key]).rename_columns(list(chunk.schema.key)).take(known)
        )
        rows = self.wire.table([answer.found or {ID: id_} for answer, id_ in zip(answers, ids, strict=True)])
        gone = pa.array([self._is_gone(chunk, at, answer) for at, answer in zip(known, answers, strict=True)])
        columns = {
            "operation_id": chunk.rows["operation_id"].take(known),
            "status": [answer.status for answer in answers],
            "code": pa.array([answer.code for answer in answers], pa.string()),
            "column": pa.array([answer.column for answer in answers], pa.string()),
            "message": pa.array([answer.message for answer in answers], pa.string()),
            # Of a row that is gone only its tombstone's version counts, not that of one which came back since.
            "version": pc.if_else(pc.and_(gone, pc.invert(rows[ROW_DELETED])), None, rows[ROW_VERSION]),
            "deleted": gone,
            "created": rows[CREATED],
            "updated": rows[UPDATED],
        }
        for column in chunk.schema.value_columns:
            if column.name in rows.column_names:
                columns[f"r_{column.name}"] = pc.if_else(gone, pa.scalar(None, column.arrow), rows[column.name])
        return Outcomes(conformed(pa.table(columns), outcome_schema(chunk.schema)))

    @staticmethod
    def _is_gone(chunk: Operations, position: int, answer: Said) -> bool:
        is_accepted_delete = answer.status == "accepted" and chunk.rows["kind"][position].as_py() == "delete"
        return is_accepted_delete or answer.found is None or _is_deleted(answer.found)


def _answers(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """As `pool.map`, but looks up while it waits: a signal that comes just before a wait begins does not end it."""
    for future in [pool.submit(work, item) for item in items]:
        while not future.done():
            wait((future,), LOOK_S)
        yield future.result()


def _is_deleted(found: Object) -> bool:
    return found.get(DELETED) is True


def _is_back(found: Object, tombstone: Object) -> bool:
    """Whether a row is there again and nothing else of it has changed."""
    names = (found.keys() | tombstone.keys()) - {*SYSTEM}
    return not _is_deleted(found) and all(found.get(name) == tombstone.get(name) for name in names)


def _row_in(answer: Answer, change: Change) -> Object | None:
    """The row in an answer's body; None if it holds none of that id."""
    try:
        body = answer.json(exact=True)
    except BackendError:
        return None
    if not isinstance(body, dict) or ID not in body:
        return None
    if body[ID] != change.id:
        raise BackendError(f"the service keeps row {change.id!r} under the id {str(body[ID])[:200]!r}")
    # A weak tag is no version, whatever it looks like.
    version = body.get(VERSION) or version_of(answer.headers.get("etag"))
    return {**body, VERSION: version} if version else dict(body)


def _cells(values: pa.Array | pa.ChunkedArray, column: Column, *, nested: bool = False) -> list[Any]:
    """Values as JSON has them; a timestamp without a zone in UTC, for a service takes others to be of its own zone."""
    cells = cells_out(values, column, nested=nested)
    return [cell and f"{cell}Z" for cell in cells] if column.family == "timestamp" else cells


def _constraint(error: SyncError) -> Said | None:
    """The refusal in an answer of 500; taken for an unknown one, the operation could never be mended by an edit."""
    found = _CONSTRAINT.search(error.message) if isinstance(error, TransientError) and error.status == 500 else None
    if found is None:
        return None
    return Said("rejected", None, False, _CODES.get(found[1], "500"), found[2], found[0])


def _is_row(answer: Answer) -> bool:
    try:
        body = answer.json()
    except BackendError:
        return False
    return isinstance(body, dict) and ID in body


def _same(column: Column, mine: Any, theirs: Any) -> bool:
    if mine is None or theirs is None:
        return mine is None and theirs is None
    if column.kind == "JSON":
        # Both as doubles: the answer was read with exact numbers.
        return bool(loads(dumps(_object(mine))) == loads(dumps(_object(theirs))))
    try:
        left, right = cells_in([mine, theirs], column).to_pylist()
    except ValueError:
        return False
    if column.family in ("time", "timestamp", "instant"):
        left, right = (value.replace(microsecond=value.microsecond // 1000 * 1000) for value in (left, right))
    if column.family == "decimal":
        return float(left) == float(right)
    return bool(left == right)


def _object(cell: Any) -> Any:
    try:
        return loads(cell) if isinstance(cell, str) else cell
    except ValueError:
        return cell
