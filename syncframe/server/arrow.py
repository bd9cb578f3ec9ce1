"""Arrow streams over HTTP: what comes from strangers is held against its own words before Arrow reads it.

A stream is a sequence of messages: ``FF FF FF FF``, the length of the metadata, the metadata (a
flatbuffer that says how long the body is), the body.  A length that lies, a stream that stops
without its end mark, and a compressed body, whose true size nobody knows before it is unpacked, are
refused here; https://arrow.apache.org/docs/format/Columnar.html has the format.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping

import pyarrow as pa

from .exchange import Refusal

_MARK = b"\xff\xff\xff\xff"
_END = _MARK + bytes(4)
_ROWS, _SCHEMA = 3, 1  # the kinds of messages that a stream of ours has
METADATA_BYTES_MAX = 2**20


def split(body: bytes) -> list[pa.Buffer]:
    """Return the streams that stand one after another in `body`; a Refusal if one is not whole."""
    streams, start, place = [], 0, 0
    view = memoryview(body)
    while place < len(body):
        if body[place : place + 8] == _END:
            place += 8
            streams.append(pa.py_buffer(view[start:place]))
            start = place
        else:
            place = _after(view, place)
    if start != place:
        raise broken("it stops without its end mark")
    return streams


def _after(view: memoryview, place: int) -> int:
    """Return where the message at `place` ends."""
    if view[place : place + 4] != _MARK:
        raise broken(f"byte {place} begins no message")
    try:
        length: int = struct.unpack_from("<i", view, place + 4)[0]
        if not 0 < length <= METADATA_BYTES_MAX or place + 8 + length > len(view):
            raise broken(f"the message at byte {place} says that its metadata has {length} bytes")
        body_length = _body_length(view[place + 8 : place + 8 + length])
    except (struct.error, IndexError) as error:
        raise broken(f"the metadata of the message at byte {place} cannot be read") from error
    end = place + 8 + length + body_length
    if body_length < 0 or end > len(view):
        raise broken(f"the message at byte {place} says that {body_length} bytes follow")
    return end


def _body_length(metadata: memoryview) -> int:
    message = _Flat.root(metadata)
    kind = message.number(1, "<B")
    if kind not in (_SCHEMA, _ROWS):
        raise broken("a stream has a schema and batches of rows, and no dictionaries")
    if kind == _ROWS and message.table(2).has(3):
        raise broken("its batches are compressed", hint="send them as they are")
    return message.number(3, "<q")


class _Flat:
    """A table in a flatbuffer: https://flatbuffers.dev/internals/."""

    def __init__(self, data: memoryview, place: int) -> None:
        self.data = data
        self.place = place
        (back,) = struct.unpack_from("<i", data, place)
        self.fields = place - back
        if self.fields < 0:
            raise IndexError(self.fields)
        self.fields_bytes: int = struct.unpack_from("<H", data, self.fields)[0]

    @classmethod
    def root(cls, data: memoryview) -> _Flat:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _offset(self, number: int) -> int:
        where = 4 + 2 * number
        return struct.unpack_from("<H", self.data, self.fields + where)[0] if where < self.fields_bytes else 0

    def has(self, number: int) -> bool:
        return self._offset(number) != 0

    def number(self, number: int, form: str) -> int:
        offset = self._offset(number)
        return int(struct.unpack_from(form, self.data, self.place + offset)[0]) if offset else 0

    def table(self, number: int) -> _Flat:
        offset = self._offset(number)
        if not offset:
            raise IndexError(number)
        where = self.place + offset
        return _Flat(self.data, where + struct.unpack_from("<I", self.data, where)[0])


def read(stream: pa.Buffer) -> pa.Table:
    """Return a stream's rows, with its schema's metadata; a Refusal if Arrow finds fault with it."""
    try:
        with pa.ipc.open_stream(stream) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise broken(f"Arrow cannot read it: {str(error)[:200]}") from error
    return table


def schema_of(stream: pa.Buffer) -> pa.Schema:
    """Return a stream's schema without its rows."""
    try:
        with pa.ipc.open_stream(stream) as reader:
            return reader.schema
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise broken(f"Arrow cannot read its schema: {str(error)[:200]}") from error


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows in exactly `schema`, whose columns must all be there, in any order.

    A column's type may differ where no value can change: in how texts and bytes are laid out, and in
    the width of whole numbers, which must fit.
    """
    if sorted(table.column_names) != sorted(schema.names):
        raise Refusal(
            400,
            f"the stream has the columns {', '.join(table.column_names)[:500]}, "
            f"and should have {', '.join(schema.names)}",
            kind="SchemaError",
        )
    columns = []
    for wanted in schema:
        column = table[wanted.name]
        if column.type != wanted.type:
            if not _is_alike(column.type, wanted.type):
                raise Refusal(
                    400, f"column {wanted.name!r} is {column.type}, and should be {wanted.type}", kind="SchemaError"
                )
            try:
                column = column.cast(wanted.type)
            except pa.ArrowException as error:
                raise Refusal(400, f"column {wanted.name!r}: {error}", kind="SchemaError") from error
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def _is_alike(given: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_list(wanted):
        return (pa.types.is_list(given) or pa.types.is_large_list(given)) and _is_alike(
            given.value_type, wanted.value_type
        )
    return any(is_one(given) and is_one(wanted) for is_one in (_is_text, _is_bytes, pa.types.is_integer))


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _is_bytes(kind: pa.DataType) -> bool:
    return kind in (pa.binary(), pa.large_binary(), pa.binary_view())


def broken(words: str, hint: str | None = None) -> Refusal:
    return Refusal(400, f"the Arrow stream is broken: {words}", hint=hint, kind="SchemaError")


class Writer:
    """One stream, written piece by piece."""

    def __init__(self, schema: pa.Schema, *, compression: str | None = None) -> None:
        self.schema = schema
        self._sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression=compression)
        self._writer = pa.ipc.new_stream(self._sink, schema, options=options)
        self._empty = pa.RecordBatch.from_pylist([], schema=schema)
        self.beat = bytes(self._empty.serialize())

    def batches(self, table: pa.Table, metadata: Mapping[str, str]) -> Iterator[bytes]:
        """The batches of a table; the last, which may be empty, has the metadata."""
        *first, last = table.combine_chunks().to_batches(max_chunksize=BATCH_ROWS) or [self._empty]
        for batch in first:
            self._writer.write_batch(batch)
            yield self.taken()
        self._writer.write_batch(last, custom_metadata=dict(metadata) or None)
        yield self.taken()

    def mark(self, metadata: Mapping[str, str]) -> bytes:
        """An empty batch with metadata."""
        self._writer.write_batch(self._empty, custom_metadata=dict(metadata) or None)
        return self.taken()

    def end(self) -> bytes:
        """The last batch, which says that it is, and the stream's end."""
        self._writer.write_batch(self._empty, custom_metadata={"end": "1"})
        self._writer.close()
        return self.taken()

    def taken(self) -> bytes:
        """What was written since the last time; the schema stands before the first."""
        data = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return data


BATCH_ROWS = 10_000
