"""Single rows of the plain protocol: read, insert, change, replace, delete and undelete, if the conditions hold."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..errors import BackendError, KeyColumnError, SchemaError, TransientError
from ..remote import Rows
from ..schema import shown as shown_names
from ..wire import CREATED_AT, DELETED, ID, UPDATED_AT, VERSION, Wire, cells_in, etag, http_date
from .bodies import json_object
from .conditions import Conditions
from .dialect import Dialect, shown, with_deleted
from .exchange import Answer, Ask, Refusal, answer_json
from .guard import CODE, WORDS
from .tables import Tables

TRIES = 5
_RESERVED = {name.lower(): name for name in (CREATED_AT, UPDATED_AT, DELETED)}
_Row = dict[str, Any]
_Change = Callable[[str | None, Mapping[str, Any] | None], _Row]


@dataclass(frozen=True, slots=True)
class RowVerbs:
    """The verbs on one table's rows, for one request."""

    tables: Tables
    name: str
    dialect: Dialect

    def read(self, ask: Ask, id_: str) -> Answer:
        wire, rows = self._table()
        row = rows.get(_key(wire, id_), include_deleted=True)
        if row is None or (row[DELETED] and self.dialect.is_v2):
            raise _missing()
        if row[DELETED] and not with_deleted(ask, self.dialect):
            raise Refusal(410, "the row was deleted", hint="__includedeleted=true shows it")
        if status := Conditions.of(ask.headers).failed(row, writes=False):
            return Answer(304, headers=_validators(row)) if status == 304 else self._answer(wire, row, status)
        return self._answer(wire, row, 200)

    def insert(self, ask: Ask) -> Answer:
        wire, rows = self._table()
        body = json_object(ask, wire.schema)
        values = self._values(wire, body)
        key = self._new_key(wire, body, values)
        try:
            row = rows.insert({**values, **key})
        except BackendError as error:
            return self._conflict(wire, error)
        return self._created(ask, wire, row)

    def update(self, ask: Ask, id_: str | None) -> Answer:
        """v2: change the columns that the body has."""
        wire, rows = self._table()
        body = json_object(ask, wire.schema)
        values = self._values(wire, body)
        if id_ is None:
            id_ = _text_id(wire, body)
            if id_ is None:
                raise Refusal(400, "neither the URL nor the body has an id")
        key = _key(wire, id_)
        _check_id(wire, body, id_)
        conditions = Conditions.of(ask.headers)
        version = _member(wire, body, VERSION)
        is_in_body = version is not None and conditions.is_empty
        if is_in_body:
            if not isinstance(version, str):
                raise Refusal(400, f"version is {str(version)[:100]!r}, and should be a string")
            conditions = Conditions(match=(version,))
        try:
            row = self._changing(rows, key, conditions, lambda at, _: rows.update(key, values, if_version=at))
        except BackendError as error:
            # A version in the body is no precondition of HTTP, and its failure is a 409.
            return self._conflict(wire, error, stale=409 if is_in_body else 412)
        return self._answer(wire, row, 200)

    def replace(self, ask: Ask, id_: str) -> Answer:
        """v3: put the body in the row's place; with `__includedeleted=true` a deleted row comes back so."""
        wire, rows = self._table()
        key = _key(wire, id_)
        body = json_object(ask, wire.schema)
        values = self._values(wire, body)
        _check_id(wire, body, id_)
        of_deleted = with_deleted(ask, self.dialect)

        def change(at: str | None, found: Mapping[str, Any] | None) -> _Row:
            if found is not None and found[DELETED]:
                return rows.undelete(key, if_version=at, values=dict.fromkeys(wire.schema.values) | values)
            return rows.replace(key, values, if_version=at)

        try:
            row = self._changing(rows, key, Conditions.of(ask.headers), change, of_deleted=of_deleted)
        except BackendError as error:
            return self._conflict(wire, error)
        return self._answer(wire, row, 200)

    def delete(self, ask: Ask, id_: str) -> Answer:
        wire, rows = self._table()
        key = _key(wire, id_)
        try:
            row = self._changing(rows, key, Conditions.of(ask.headers), lambda at, _: rows.delete(key, if_version=at))
        except BackendError as error:
            gone = self.dialect.is_v2 and error.status in (404, 410) and rows.get(key, include_deleted=True)
            if gone:
                return self._answer(wire, gone, 200)  # done already: the JavaScript client never gets past a 404
            return self._conflict(wire, error)
        return self._answer(wire, row, 200) if self.dialect.is_v2 else Answer(204)

    def undelete(self, ask: Ask, id_: str) -> Answer:
        """v2: bring a deleted row back; of a row that is there, nothing changes."""
        wire, rows = self._table()
        key = _key(wire, id_)
        if ask.body.strip() not in (b"", b"{}"):
            raise Refusal(400, "a row is undeleted by a POST without a body", hint="PATCH it afterwards")
        try:
            row = self._changing(
                rows,
                key,
                Conditions.of(ask.headers),
                lambda at, _: rows.undelete(key, if_version=at),
                of_deleted=True,
            )
        except BackendError as error:
            return self._conflict(wire, error)
        return self._created(ask, wire, row)

    def _changing(
        self, rows: Rows, key: Any, conditions: Conditions, change: _Change, *, of_deleted: bool = False
    ) -> _Row:
        with self.tables.turn(self.name, key):
            return _changed(rows, key, conditions, change, of_deleted=of_deleted)

    # Answers

    def _table(self) -> tuple[Wire, Rows]:
        wire = self.tables.wire(self.name)
        return wire, Rows(self.tables.backend, self.name, wire.schema)

    def _answer(self, wire: Wire, row: Mapping[str, Any], status: int) -> Answer:
        return answer_json(shown(row, wire, self.dialect), status, _validators(row))

    def _created(self, ask: Ask, wire: Wire, row: Mapping[str, Any]) -> Answer:
        body = shown(row, wire, self.dialect)
        location = f"{ask.base}/tables/{quote(self.name, safe='')}/{quote(body[ID], safe='')}"
        return answer_json(body, 201, {**_validators(row), "location": location})

    def _conflict(self, wire: Wire, error: BackendError, *, stale: int = 412) -> Answer:
        """The row that is there, where a status says that it is another than the client thinks."""
        if error.status in (404, 410) and self.dialect.is_v2:
            raise _missing()
        if error.code == CODE:
            raise Refusal(403, WORDS, hint="ask whoever runs the server", kind="AccessError", code=CODE)
        if error.status in (409, 412) and error.row is not None:
            return self._answer(wire, error.row, stale if error.status == 412 else 409)
        raise error

    # Bodies

    def _values(self, wire: Wire, body: Mapping[str, Any]) -> _Row:
        """The body's columns as Python values."""
        self._check_system(body)
        _check_spelling(body)
        values, unknown = wire.values(body)
        lost = [name for name in unknown if body[name] is not None]
        if lost:
            # Both families' servers drop these.  That loses what a user wrote, without a word to anyone.
            raise Refusal(
                400,
                f"column {lost[0][:200]!r} is not among the table's: {shown_names(wire.schema.names)}",
                hint="leave it out, or add it to the table",
                kind="SchemaError",
                column=lost[0][:200],
            )
        for name, value in values.items():
            if value is None and not wire.schema[name].nullable and name not in wire.schema.key:
                words = f"column {name!r} takes no NULL"
                raise Refusal(400, words, hint="give a value", kind="SchemaError", code="not null", column=name)
        return values

    def _check_system(self, body: Mapping[str, Any]) -> None:
        for name, value in body.items():
            reserved = _RESERVED.get(name.lower())
            if reserved is not None and self.dialect.is_v2:
                raise Refusal(400, f"Cannot write property {name!r} as it is reserved", column=reserved)
            if reserved == DELETED and value not in (None, False):
                raise Refusal(
                    400,
                    f"deleted is {str(value)[:100]!r}, and can only be written as false",
                    hint="DELETE deletes",
                    column=DELETED,
                )

    def _new_key(self, wire: Wire, body: Mapping[str, Any], values: Mapping[str, Any]) -> _Row:
        names = wire.schema.key
        id_ = _text_id(wire, body)
        if id_ is not None:
            key = dict(zip(names, wire.key_of(id_), strict=True))
            if other := [name for name in names if values.get(name) not in (None, key[name])]:
                raise KeyColumnError(f"the id and the column {other[0]!r} say different keys")
            return key
        lacking = [name for name in names if values.get(name) is None]
        if lacking and (len(names) > 1 or wire.schema.key_columns[0].family != "text"):
            raise KeyColumnError(f"a new row needs its key, and has no {shown_names(lacking)}")
        if lacking:
            is_plain = not self.dialect.is_v2 and wire.schema.key_columns[0].kind != "UUID"
            return {names[0]: uuid.uuid4().hex if is_plain else str(uuid.uuid4())}
        return {name: values[name] for name in names}


def _changed(rows: Rows, key: Any, conditions: Conditions, change: _Change, *, of_deleted: bool = False) -> _Row:
    """Change a row if the conditions hold.

    What is not a version alone is asked of the row as it is, and again if it moved meanwhile.

    `change` gets the version that the row must have (None: any), and the row where it was read.
    """
    if not of_deleted and (conditions.is_empty or conditions.version is not None):
        return change(conditions.version, None)
    for _ in range(TRIES):
        row = rows.get(key, include_deleted=True)
        is_asked = row is not None and (of_deleted or not row[DELETED])
        if row is not None and is_asked and conditions.failed(row, writes=True):
            raise BackendError("the row is another than the condition asks for", status=412, row=row)
        try:
            return change(None if row is None else row[VERSION], row)
        except BackendError as error:
            if error.status != 412:
                raise
    raise TransientError(f"the row was changed by others {TRIES} times meanwhile")


def _key(wire: Wire, id_: str) -> Any:
    try:
        parts = wire.key_of(id_)
    except KeyColumnError:
        raise _missing() from None
    return parts if len(parts) > 1 else parts[0]


def _missing() -> Refusal:
    return Refusal(404, "The item does not exist")


def _text_id(wire: Wire, body: Mapping[str, Any]) -> str | None:
    """The body's id as text; None if it has none.  A key that is a number may be sent as one."""
    given = _member(wire, body, ID)
    if given is None or given == "":
        return None
    if isinstance(given, str):
        return given
    column = wire.schema.key_columns[0]
    if isinstance(given, bool) or not isinstance(given, int) or len(wire.schema.key) > 1 or column.family != "int":
        raise Refusal(400, f"id is {str(given)[:100]!r}, and should be a string", column=ID)
    try:
        return wire.id_of((cells_in([given], column)[0].as_py(),))
    except ValueError as error:
        raise Refusal(400, f"id is {column.type}: {error}", column=ID) from None


def _check_id(wire: Wire, body: Mapping[str, Any], id_: str) -> None:
    given = _text_id(wire, body)
    if given is not None and given != id_:
        raise Refusal(400, f"the id in the body is {given[:200]!r}, and in the URL {id_[:200]!r}", column=ID)


def _member(wire: Wire, body: Mapping[str, Any], name: str) -> Any:
    """A member that is no column, whatever its case."""
    if name in body:
        return body[name]
    return next((body[given] for given in body if given.lower() == name and given not in wire.schema), None)


def _check_spelling(body: Mapping[str, Any]) -> None:
    """Names are compared without case, so that one column could be there twice."""
    seen: dict[str, str] = {}
    for name in body:
        lower = name.lower()
        if name == ID:
            # A key that is spelt otherwise, `Id`, stands beside its text.
            continue
        if lower in seen:
            raise SchemaError(f"the body has one column twice: {seen[lower]!r} and {name!r}")
        seen[lower] = name


def _validators(row: Mapping[str, Any]) -> dict[str, str]:
    headers = {}
    version = row.get(VERSION)
    if version is not None and version.isascii() and version.isprintable():
        headers["etag"] = etag(version)
    if row.get(UPDATED_AT) is not None:
        headers["last-modified"] = http_date(row[UPDATED_AT])
    return headers
