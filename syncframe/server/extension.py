"""The extension: whole batches to push, and changes since a checkpoint to pull, as Arrow streams.

The page in `syncframe.server` says what goes over the wire; here is how it is made of a back end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..backends.base import DELETED, HELD, Checkpoint, Operations, Outcomes, Page, outcome_schema, page_schema
from ..query import Condition, Order, Query, Read, parse
from ..schema import SYSTEM_COLUMNS, Schema
from ..wire import ARROW, LEFT, Wire
from .arrow import Writer, fitted, read, schema_of, split
from .batches import checked, from_json, to_json
from .bodies import Fields, json_body
from .dialect import by_each_once
from .exchange import JSON, Answer, Ask, Piece, Refusal, Stream, answer_json, error_text
from .failures import refusal_of
from .guard import may_not
from .limits import Limits
from .tables import Tables

VERSION_OF_PROTOCOL = 1
OTHERS_MAX = 500


@dataclass(frozen=True, slots=True)
class Extension:
    """The verbs of the extension over one server's tables."""

    tables: Tables
    limits: Limits
    read_only: bool = False

    @property
    def verbs(self) -> dict[str, tuple[str, Callable[[Ask], Answer | Stream]]]:
        """By the path's last segment, the method and what answers it."""
        return {
            "": ("GET", self.about),
            "schema": ("GET", self.schema),
            "pull": ("POST", self.pull),
            "push": ("POST", self.push),
            "rows": ("POST", self.rows),
            "read": ("POST", self.read),
            "count": ("POST", self.count),
        }

    def about(self, _: Ask) -> Answer:
        backend = self.tables.backend
        return answer_json(
            {
                "syncframe": VERSION_OF_PROTOCOL,
                "identity": backend.identity() if hasattr(backend, "identity") else None,
                "promises": asdict(backend.promises),
                "tables": list(self.tables.names),
                "push_rows": self.limits.push_rows_max,
                "body_bytes": self.limits.body_bytes_max,
                "read_only": self.read_only,
            }
        )

    def schema(self, ask: Ask) -> Answer:
        wire = self._table(ask)
        return Answer(200, f'{{"schema":{wire.schema.to_json()},"tracked":true}}'.encode(), {"content-type": JSON})

    # Reading

    def pull(self, ask: Ask) -> Stream:
        schema = self._table(ask, "read").schema
        fields = json_body(ask, "where", "columns", "page_rows", "since", "others")
        page_rows = min(fields.whole("page_rows", least=1) or 10_000, self.limits.pull_rows_max)
        query = Query(_condition(fields.text("where"), schema), _columns(fields, schema), page_rows)
        others: list[str | None] = fields.texts("others", may_be_null=True) or []
        if len(others) > OTHERS_MAX:
            raise Refusal(400, f"others has {len(others)} queries, and may have {OTHERS_MAX}", kind="QueryError")
        held = [Query(_condition(text, schema)) for text in others]
        since = fields.text("since")
        checkpoint = None if since is None else Checkpoint(since)
        name = str(ask.option("table"))
        shown = schema.select(query.columns) if query.columns is not None else schema
        writer = _writer(ask, _pull_schema(shown))
        pages = self.tables.backend.pull(name, query, checkpoint, held)
        return _stream(writer, _parts(pages, shown))

    def rows(self, ask: Ask) -> Stream:
        self.tables.must_have("rows", "rows by key")
        schema = self._table(ask, "read").schema
        (keys,) = _streams(ask, 1)
        wanted = fitted(read(keys), pa.schema([pa.field(c.name, c.arrow) for c in schema.key_columns]))
        found = self.tables.backend.rows(str(ask.option("table")), wanted)
        return _stream(_writer(ask, page_schema(schema)), iter([(_filled(found, page_schema(schema), {}), {})]))

    def read(self, ask: Ask) -> Stream:
        self.tables.must_have("read", "lists of rows")
        schema = self._table(ask, "read").schema
        wanted = _read(ask, schema)
        found = self.tables.backend.read(str(ask.option("table")), wanted)
        shown = schema.select(wanted.columns) if wanted.columns is not None else schema
        return _stream(_writer(ask, page_schema(shown)), iter([(_filled(found, page_schema(shown), {}), {})]))

    def count(self, ask: Ask) -> Answer:
        self.tables.must_have("count", "the number of rows")
        wanted = _read(ask, self._table(ask, "read").schema)
        return answer_json({"count": self.tables.backend.count(str(ask.option("table")), wanted)})

    # Writing

    def push(self, ask: Ask) -> Answer | Stream:
        is_atomic = _is_atomic(ask)
        if is_atomic and not self.tables.backend.promises.atomic_push:
            raise Refusal(400, "the back end of this server has no push of all or nothing", kind="SyncError")
        if media_type(ask) == JSON:
            return self._push_json(ask, is_atomic)
        batches = []
        streams = _streams(ask)
        for stream in streams:
            name = (schema_of(stream).metadata or {}).get(b"table", b"").decode(errors="replace")
            if not name:
                raise Refusal(400, "a stream of operations names its table in its schema's metadata, as `table`")
            schema = self.tables.wire(name).schema
            batches.append(checked(name, schema, read(stream), self.limits.push_rows_max))
        self._check_size(batches)
        self._check_rights(batches)
        return Stream(self._outcomes(batches, is_atomic, _compression(ask)), {"content-type": ARROW})

    def _check_rights(self, batches: Sequence[Operations]) -> None:
        """Refuse a request of which nothing may be done; else those operations are rejected that may not."""
        asked = {(batch.table, kind): None for batch in batches for kind in pc.unique(batch["kind"]).to_pylist()}
        if asked and not any(self.tables.may(*pair) for pair in asked):
            table, kind = next(iter(asked))
            raise may_not(kind, table)
        for batch in batches:
            self.tables.check_granted(batch.table)

    def _check_size(self, batches: Sequence[Operations]) -> None:
        count = sum(map(len, batches))
        if count > self.limits.push_rows_max:
            raise Refusal(
                413,
                f"the request has {count} operations, and may have {self.limits.push_rows_max}",
                hint="send parts of it",
            )

    def _outcomes(self, batches: Sequence[Operations], is_atomic: bool, compression: str | None) -> Iterator[Piece]:
        """A stream of outcomes for each batch, as they are committed; what breaks ends the last of them with words."""
        settled: list[Outcomes] | None = None
        for number, batch in enumerate(batches):
            schema = outcome_schema(batch.schema).with_metadata({"table": batch.table})
            writer = Writer(schema, compression=compression)
            # Applying may take long, and the client shall see that something lives.
            yield Piece(writer.mark({}), writer.beat)
            try:
                if is_atomic and settled is None:
                    settled = list(self.tables.backend.push_atomic(batches))
                for outcomes in self.tables.backend.push(batch) if settled is None else [settled[number]]:
                    for data in writer.batches(_filled(outcomes.rows, schema, {}), {}):
                        yield Piece(data, writer.beat)
            except Exception as error:
                yield Piece(writer.mark({"error": error_text(refusal_of(error))}))
                return
            yield Piece(writer.end())

    def _push_json(self, ask: Ask, is_atomic: bool) -> Answer:
        fields = json_body(ask, "table", "operations")
        name = fields.text("table") or ""
        wire = self.tables.wire(name)
        rows = from_json(wire, fields.objects("operations"))
        batch = checked(name, wire.schema, rows, self.limits.push_rows_max)
        self._check_size([batch])
        self._check_rights([batch])
        told: list[dict[str, Any]] = []
        try:
            backend = self.tables.backend
            for outcomes in backend.push_atomic([batch]) if is_atomic else backend.push(batch):
                told += to_json(wire, outcomes)
        except Exception as error:
            refusal = refusal_of(error)
            if told:
                # What was committed before is known to the client, whatever became of the rest.
                refusal.more["outcomes"] = told
            raise refusal from error
        return answer_json(told)

    def _table(self, ask: Ask, verb: str | None = None) -> Wire:
        name = ask.option("table")
        if name is None:
            raise Refusal(400, "the parameter `table` is missing")
        wire = self.tables.wire(name)
        if verb is not None:
            self.tables.check_may(name, verb)
        return wire


# Requests


def media_type(ask: Ask) -> str:
    return ask.headers.get("content-type", "").partition(";")[0].strip().lower()


def _streams(ask: Ask, count: int | None = None) -> list[pa.Buffer]:
    if media_type(ask) != ARROW:
        raise Refusal(415, f"the content type is {media_type(ask)[:100]!r}, and should be {ARROW}")
    streams = split(ask.body)
    if count is not None and len(streams) != count:
        raise Refusal(400, f"the body has {len(streams)} Arrow streams, and should have {count}")
    return streams


def _is_atomic(ask: Ask) -> bool:
    given = ask.option("atomic") or "0"
    if given not in ("0", "1"):
        raise Refusal(400, f"atomic is {given[:100]!r}, and should be 0 or 1")
    return given == "1"


def _compression(ask: Ask) -> str | None:
    given = ask.option("compression")
    if given not in (None, "", "lz4"):
        raise Refusal(400, f"compression is {given[:100]!r}, and may be lz4 or missing")
    return given or None


def _condition(text: str | None, schema: Schema) -> Condition | None:
    return None if text is None else parse(text, schema)


def _columns(fields: Fields, schema: Schema) -> tuple[str, ...] | None:
    names = fields.texts("columns")
    # `select` names those that are not there.
    return None if names is None else tuple(schema.select([name for name in names if name is not None]).values)


def _read(ask: Ask, schema: Schema) -> Read:
    fields = json_body(ask, "where", "columns", "order_by", "limit", "offset", "include_deleted")
    return Read(
        where=_condition(fields.text("where"), schema),
        columns=_columns(fields, schema),
        order_by=by_each_once(_order(pair, schema) for pair in fields.array("order_by") or []),
        limit=fields.whole("limit"),
        offset=fields.whole("offset") or 0,
        include_deleted=fields.flag("include_deleted") or False,
    )


def _order(pair: Any, schema: Schema) -> Order:
    match pair:
        case [str(name), bool(descending)]:
            if name not in schema and name not in SYSTEM_COLUMNS:
                raise Refusal(400, f"order_by: column {name[:200]!r} is not among the table's", kind="QueryError")
            return Order(name, descending)
    raise Refusal(
        400,
        f"order_by has {str(pair)[:100]!r}, and should have [name, true or false for descending]",
        kind="QueryError",
    )


# Streams


def _writer(ask: Ask, schema: pa.Schema) -> Writer:
    return Writer(schema, compression=_compression(ask))


def _stream(writer: Writer, parts: Iterator[tuple[pa.Table, Mapping[str, str]]]) -> Stream:
    return Stream(_pieces(writer, parts), {"content-type": ARROW})


def _pieces(writer: Writer, parts: Iterator[tuple[pa.Table, Mapping[str, str]]]) -> Iterator[Piece]:
    """Each part as batches, its metadata on the last, then the end, or the error that came in its place."""
    first = next(parts)  # what fails here has a status of its own
    try:
        for table, metadata in chain([first], parts):
            for data in writer.batches(table, metadata):
                yield Piece(data, writer.beat)
    except Exception as error:
        yield Piece(writer.mark({"error": error_text(refusal_of(error))}))
        return
    yield Piece(writer.end())


def _pull_schema(schema: Schema) -> pa.Schema:
    return pa.schema([*page_schema(schema), pa.field(LEFT, pa.bool_()), pa.field(HELD, pa.bool_())])


def _parts(pages: Iterator[Page], schema: Schema) -> Iterator[tuple[pa.Table, dict[str, str]]]:
    for page in pages:
        table = _filled(page.rows, _pull_schema(schema), {LEFT: False})
        if page.leavers is not None:
            table = pa.concat_tables([table, _filled(page.leavers, _pull_schema(schema), {LEFT: True, DELETED: False})])
        metadata = {"checkpoint": page.checkpoint or ""}
        if page.held_back_s is not None:
            metadata["held_back_s"] = repr(float(page.held_back_s))
        yield table, metadata


def _filled(table: pa.Table, schema: pa.Schema, constants: Mapping[str, Any]) -> pa.Table:
    """The columns of `schema`; those that a back end of one's own left out are NULL, or as `constants` says."""
    columns = []
    for field in schema:
        if field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        else:
            columns.append(pa.repeat(pa.scalar(constants.get(field.name), field.type), len(table)))
    return pa.Table.from_arrays(columns, schema=schema)
