"""A service that is ours: whole pages and batches as Arrow streams, under the back end's own checkpoints.

The server's docstring (`syncframe.server`) has the extension written down.  Everything here may be repeated:
a pull is asked again from the last page's checkpoint, and operations that were applied already are recognised
by their ids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import AccessError, BackendError, QueryError, SchemaError, TransientError
from ...query import Query, Read
from ...schema import Schema
from ...wire import ARROW, LEFT, dumps, loads
from ..base import (
    HELD,
    Checkpoint,
    Operations,
    Outcomes,
    Page,
    Promises,
    outcome_schema,
    page_schema,
)
from ..decide import conformed
from .answers import Answer, Body, shown_text
from .patience import Patience
from .transport import Ask, Transport

KEPT_S = 60.0  # how long a schema and who the server is are not asked for again
PUSH_ROWS, PUSH_BYTES = 10_000, 16 << 20  # where the server does not say
KEY_ROWS = 10_000


def greeting(transport: Transport) -> dict[str, Any] | None:
    """What the server says of itself; None if the service is not ours."""
    answer = transport.request(Ask("GET", "/syncframe"))
    try:
        told = answer.json() if answer.ok else None
    except BackendError:
        return None
    return told if isinstance(told, dict) and told.get("syncframe") == 1 else None


class Extended:
    """The verbs of a back end, asked of our server."""

    def __init__(
        self,
        transport: Transport,
        *,
        forget: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._forget = forget
        self._clock = clock
        self._schemas: dict[str, tuple[float, Schema]] = {}
        self._told: tuple[float, dict[str, Any]] | None = None

    # Who the server is

    def welcome(self, told: dict[str, Any]) -> None:
        """Take what the server said of itself just now."""
        self._told = self._clock(), told

    def about(self) -> dict[str, Any]:
        if self._told is None or self._clock() - self._told[0] > KEPT_S:
            told = greeting(self._transport)
            if told is None:
                self._forget()
                raise BackendError(
                    f"{self._transport.base} was a syncframe server and is none now", hint="it is asked anew next time"
                )
            self.welcome(told)
        return self._told[1]  # type: ignore[index]

    def identity(self) -> str:
        return str(self.about().get("identity") or self._transport.base)

    def aliases(self) -> list[str]:
        return [str(alias) for alias in self.about().get("aliases") or ()]

    def tables(self) -> list[str]:
        self._told = None
        return [str(name) for name in self.about().get("tables") or ()]

    @property
    def promises(self) -> Promises:
        """What the server said when it was asked last; no request."""
        told = self._told[1].get("promises") if self._told else None
        known = {name: bool(value) for name, value in (told or {}).items() if name in Promises.__dataclass_fields__}
        return Promises(**known)

    def schema(self, table: str) -> Schema:
        """Return the table's columns and key; BackendError with status 404 if there is none of that name."""
        asked_at, schema = self._schemas.get(table, (0.0, None))
        if schema is None or self._clock() - asked_at > KEPT_S:
            told = self._json(Ask("GET", "/syncframe/schema", _table(table)))
            try:
                schema = Schema.from_json(dumps(told["schema"]).decode())
            except (KeyError, TypeError, ValueError) as error:
                raise BackendError(f"the schema of {table!r} that the server sent cannot be read") from error
            self._schemas[table] = self._clock(), schema
        return schema

    # Pull

    def pull(self, table: str, query: Query, since: Checkpoint | None, others: Sequence[Query] = ()) -> Iterator[Page]:
        """Yield pages as they come; a stream that is cut is asked for again behind its last page."""
        patience, place, is_first = self._transport.patience(), since, True
        while True:
            try:
                for page in self._pages(table, query, place, others, patience):
                    patience.renew()
                    place, is_first = page.checkpoint, False
                    yield page
                return
            except TransientError as error:
                if place is None and not is_first:
                    raise  # such a table can only be read from its beginning
                patience.wait(error)

    def _pages(
        self, table: str, query: Query, since: Checkpoint | None, others: Sequence[Query], patience: Patience
    ) -> Iterator[Page]:
        schema = _selected(self.schema(table), query.columns)
        asked = {
            "where": _text(query),
            "columns": None if query.columns is None else list(query.columns),
            "page_rows": query.page_rows,
            "since": since,
            "others": [_text(other) for other in others],
        }
        received, requests, batches = 0, patience.requests, []
        with self._streamed("pull", table, _json_body(asked), patience) as stream:
            for batch, told in stream:
                batches.append(batch)
                if "checkpoint" not in told:
                    continue
                yield _page(
                    pa.Table.from_batches(batches),
                    schema,
                    told,
                    patience.requests - requests,
                    stream.body.received - received,
                )
                received, requests, batches = stream.body.received, patience.requests, []
                stream.body.next_page()

    # Push

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        """Send the batch in chunks and yield outcomes as they come.

        What was not answered when the wire failed is sent again: the server knows operations that it applied.
        """
        done, patience = 0, self._transport.patience()
        while done < len(batch):
            part, content = self._chunk(batch, done)
            try:
                for outcomes in self._pushed(batch, part, content, patience):
                    done += len(outcomes)
                    patience.renew()
                    yield outcomes
            except TransientError as error:
                patience.wait(error)
            except AccessError as error:
                # The whole request was refused; the one before it, if any, may have been applied.
                error.was_sent = patience.was_sent
                raise

    def _chunk(self, batch: Operations, start: int) -> tuple[pa.Table, bytes]:
        """As many operations as the server takes at once."""
        about = self.about()
        rows, bytes_max = int(about.get("push_rows") or PUSH_ROWS), int(about.get("body_bytes") or PUSH_BYTES)
        while True:
            part = batch.rows.slice(start, rows)
            content = _stream_of(part, batch.table)
            if len(content) <= bytes_max or len(part) == 1:
                return part, content
            rows = len(part) // 2

    def _pushed(self, batch: Operations, part: pa.Table, content: bytes, patience: Patience) -> Iterator[Outcomes]:
        wanted, answered = outcome_schema(batch.schema), 0
        body = {"content": content, "headers": _ARROW_HEADERS}
        with self._streamed("push", None, body, patience) as stream:
            for found, _ in stream:
                if not len(found):
                    continue
                outcomes = _conformed(pa.Table.from_batches([found]), wanted)
                sent = part["operation_id"].slice(answered, len(outcomes))
                if outcomes["operation_id"].to_pylist() != sent.to_pylist():
                    raise BackendError(f"the server answered other operations of {batch.table!r} than were sent")
                answered += len(outcomes)
                stream.body.next_page()
                yield Outcomes(outcomes)
        if answered != len(part):
            raise BackendError(f"the server gave {answered} outcomes for {len(part)} operations of {batch.table!r}")

    def push_atomic(self, batches: Sequence[Operations]) -> list[Outcomes]:
        """All or nothing: the outcomes of each batch, or only those that stood in the way."""
        content = b"".join(_stream_of(batch.rows, batch.table) for batch in batches)
        patience = self._transport.patience()
        while True:
            try:
                return self._pushed_together(batches, content, patience)
            except TransientError as error:
                patience.wait(error)
            except AccessError as error:
                error.was_sent = patience.was_sent
                raise

    def _pushed_together(self, batches: Sequence[Operations], content: bytes, patience: Patience) -> list[Outcomes]:
        ask = Ask("POST", "/syncframe/push", "atomic=1", {**_ARROW_HEADERS, "Accept": ARROW}, content)
        answers = []
        with self._transport.opened(ask, patience) as body:
            _check_arrow(body)
            for batch in batches:
                wanted = outcome_schema(batch.schema)
                found = [_conformed(pa.Table.from_batches([part]), wanted) for part, _ in _Stream(body)]
                answers.append(Outcomes(pa.concat_tables([wanted.empty_table(), *found])))
        return answers

    # Remote tables

    def rows(self, table: str, keys: pa.Table) -> pa.Table:
        """Rows by key, as in a page, tombstones included."""
        schema = self.schema(table)
        keys = conformed(keys, pa.schema([pa.field(c.name, c.arrow) for c in schema.key_columns]))
        parts = [page_schema(schema).empty_table()]
        for start in range(0, len(keys), KEY_ROWS):
            body = {"content": _stream_of(keys.slice(start, KEY_ROWS), table), "headers": _ARROW_HEADERS}
            parts.append(self._whole("rows", table, body, schema))
        return pa.concat_tables(parts)

    def read(self, table: str, read: Read) -> pa.Table:
        """The rows that a remote table asks for."""
        schema = self.schema(table)
        return self._whole("read", table, _json_body(_read(read)), _selected(schema, read.columns))

    def count(self, table: str, read: Read) -> int:
        told = self._json(Ask("POST", "/syncframe/count", _table(table), **_json_body(_read(read))))
        return int(told["count"])

    def _whole(self, verb: str, table: str, body: Mapping[str, Any], schema: Schema) -> pa.Table:
        patience = self._transport.patience()
        while True:
            try:
                with self._streamed(verb, table, body, patience) as stream:
                    parts = [_conformed(pa.Table.from_batches([batch]), page_schema(schema)) for batch, _ in stream]
                return pa.concat_tables([page_schema(schema).empty_table(), *parts])
            except TransientError as error:
                patience.wait(error)

    # Requests

    @contextmanager
    def _streamed(self, verb: str, table: str | None, body: Mapping[str, Any], patience: Patience) -> Iterator[_Stream]:
        query = "atomic=0" if table is None else f"{_table(table)}&compression=lz4"
        headers = {**body["headers"], "Accept": ARROW}
        ask = Ask("POST", f"/syncframe/{verb}", query, headers, body["content"])
        try:
            with self._transport.opened(ask, patience) as answer:
                _check_arrow(answer)
                yield _Stream(answer)
        except (SchemaError, QueryError):
            # The table may have been altered: the next call asks how it looks now.
            self._schemas.pop(table or "", None)
            raise

    def _json(self, ask: Ask) -> Any:
        answer = self._transport.request(ask)
        if not answer.ok:
            raise answer.error()
        return answer.json()


class _Stream:
    """The batches of one Arrow stream with what is said beside each; ends only where the server says so."""

    def __init__(self, body: Body) -> None:
        self.body = body

    def __iter__(self) -> Iterator[tuple[pa.RecordBatch, dict[str, str]]]:
        is_end = False
        try:
            # Not closed: another stream may follow on the same body.
            reader = pa.ipc.open_stream(pa.PythonFile(self.body, mode="r"))
            while (found := self._next(reader)) is not None:
                batch, told = found
                if "error" in told:
                    raise _told_error(self.body.answer, told["error"])
                is_end = is_end or "end" in told
                yield batch, told
        except (pa.ArrowException, OSError) as error:
            if self.body.ended:
                raise self._cut() from error
            raise BackendError(
                f"{self.body.answer.what} was answered with Arrow that cannot be read: {error}"
            ) from error
        if not is_end:
            raise self._cut()

    def _next(self, reader: Any) -> tuple[pa.RecordBatch, dict[str, str]] | None:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            return None
        told = {} if metadata is None else {k.decode(): v.decode() for k, v in metadata.items()}
        return batch, told

    def _cut(self) -> TransientError:
        return TransientError(f"{self.body.answer.what}: the answer was cut")


def _told_error(answer: Answer, text: str) -> Exception:
    """An error in the middle of a stream, as if it had been the whole answer."""
    try:
        status = int(loads(text).get("status") or 500)
    except (ValueError, AttributeError, TypeError):
        status = 500
    return replace(answer, status=status, headers={"content-type": "application/json"}, body=text.encode()).error()


def _check_arrow(body: Body) -> None:
    """Raise what an answer means that is no Arrow stream."""
    answer = body.answer
    if not answer.ok:
        raise body.whole().error()
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != ARROW:
        found = answer.hide(shown_text(body.read(1_000)))
        raise BackendError(
            f"{answer.what} was answered with {kind[:100] or 'no content type'} instead of an Arrow stream: {found}",
            hint="is something between here and the server?",
            status=answer.status,
        )


_ARROW_HEADERS = {"Content-Type": ARROW}


def _json_body(value: object) -> dict[str, Any]:
    return {"content": dumps(value), "headers": {"Content-Type": "application/json"}}


def _stream_of(rows: pa.Table, table: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema.with_metadata({"table": table})) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _read(read: Read) -> dict[str, Any]:
    return {
        "where": None if read.where is None else read.where.text,
        "columns": None if read.columns is None else list(read.columns),
        "order_by": [[order.column, order.descending] for order in read.order_by],
        "limit": read.limit,
        "offset": read.offset,
        "include_deleted": read.include_deleted,
    }


def _selected(schema: Schema, columns: Sequence[str] | None) -> Schema:
    return schema if columns is None else schema.select(columns)


def _text(query: Query) -> str | None:
    return None if query.where is None else query.where.text


def _table(name: str) -> str:
    return f"table={quote(name, safe='')}"


def _page(found: pa.Table, schema: Schema, told: Mapping[str, str], requests: int, received: int) -> Page:
    left = pc.fill_null(found[LEFT], False)
    leavers = found.filter(left)
    held_back = told.get("held_back_s")
    return Page(
        _conformed(found.filter(pc.invert(left)), page_schema(schema)),
        leavers.select([*schema.key, HELD]) if len(leavers) else None,
        Checkpoint(told["checkpoint"]) if told["checkpoint"] else None,
        requests,
        received,
        float(held_back) if held_back else None,
    )


def _conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    try:
        return conformed(table, schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(
            f"the server's columns are of other types than it said: {error}", hint="the table was altered; ask again"
        ) from error
