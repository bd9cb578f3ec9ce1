"""/openapi.json: the served tables as OpenAPI 3.1 has it, for those who make a client by machine.

It is of the plain protocol in v3, which is what a request without `ZUMO-API-VERSION` gets, and is made of the
tables' schemas as they are when it is asked for.  What a column's JSON may be is what `syncframe.wire` reads and
writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from typing import Any
from urllib.parse import quote

from ..schema import Column
from ..wire import DELETED, DOUBLE_WHOLE, ID, UPDATED_AT, VERSION, Wire
from .limits import Limits

OPENAPI = "3.1.1"
ERROR = "Error"
Json = dict[str, Any]

_ID: Json = {"type": "string", "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_.|:-]{0,126}$"}

_WHOLE_BOUNDS = {
    f"{sign}{name}": (0 if sign else -(2 ** (bits - 1)), 2 ** (bits if sign else bits - 1) - 1)
    for sign in ("", "U")
    for name, bits in (("TINYINT", 8), ("SMALLINT", 16), ("INTEGER", 32), ("BIGINT", 64))
}
_DATE = r"(?!0000)\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
_HTTP_DATE: Json = {"type": "string", "examples": ["Mon, 30 Nov 2026 03:31:44 GMT"]}
_BY_FAMILY: dict[str, Json] = {
    "bool": {"type": "boolean"},
    "float": {"anyOf": [{"type": "number"}, {"enum": ["INF", "-INF"]}]},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "date": {"type": "string", "format": "date", "pattern": f"^{_DATE}$"},
    "time": {"type": "string", "pattern": f"^{_CLOCK}$"},
    "timestamp": {"type": "string", "pattern": f"^{_DATE}T{_CLOCK}$"},
    "instant": {"type": "string", "format": "date-time"},
}
_NUMBER_TEXT = r"^-?\d+(\.\d+)?$"


def document(
    wires: Mapping[str, Wire], *, base: str, version: str, limits: Limits, has_keys: bool, read_only: bool
) -> Json:
    """Return the document of these tables.

    Parameters
    ----------
    wires
        The tables that the document names, each as it is now.
    base
        What stands before the path in a URL of the server, as the client has named it.
    """
    names = _component_names(wires)
    paths: Json = {"/healthz": {"get": _health()}}
    schemas: Json = {ERROR: _ERROR}
    for name, wire in wires.items():
        paths |= _paths(name, names[name], limits, has_keys=has_keys, read_only=read_only)
        schemas |= _schemas(names[name], wire)
    made: Json = {
        "openapi": OPENAPI,
        "info": {"title": "Tables served by syncframe", "version": version, "description": _DESCRIPTION},
        "servers": [{"url": base or "/"}],
        "tags": [{"name": name} for name in wires],
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if has_keys:
        made["components"]["securitySchemes"] = _SECURITY
        made["security"] = [{scheme: []} for scheme in _SECURITY]
    return made


def _component_names(names: Iterable[str]) -> dict[str, str]:
    """By table, a name that may be part of an operation's id and of a component's, and of no other table's."""
    given: dict[str, str] = {}
    taken = {ERROR}
    for name in names:
        plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "table"
        given[name] = next(one for one in chain([plain], (f"{plain}_{n}" for n in count(2))) if one not in taken)
        taken.add(given[name])
    return given


# Rows


def _schemas(name: str, wire: Wire) -> Json:
    columns = {column.name: column_schema(column) for column in wire.columns}
    id_ = _id_schema(wire)
    row = {ID: id_, **columns, **{system: {**held, "readOnly": True} for system, held in _SYSTEM.items()}}
    reference = f"#/components/schemas/{name}"
    items = {"type": "array", "items": {"$ref": reference}}
    page = {"items": items, "count": {"type": ["integer", "null"]}, "nextLink": {"type": ["string", "null"]}}
    return {
        name: _object(row, [*row]),
        f"{name}.page": _object(page, [*page]),
        f"{name}.write": _written(wire, id_, columns),
        # `$select` leaves columns out.
        f"{name}.selected": _object(page | {"items": {"type": "array", "items": _object(row, [])}}, [*page]),
    }


def _object(properties: Json, required: Sequence[str]) -> Json:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _written(wire: Wire, id_: Json, columns: Json) -> Json:
    is_whole = [column.family for column in wire.schema.key_columns] == ["int"]
    # What a service says of a row may come back with it, and counts for nothing.
    system = {
        UPDATED_AT: {"type": ["string", "null"]},
        VERSION: {"type": ["string", "null"]},
        DELETED: {"const": False},
    }
    return _object({ID: {"type": ["string", "integer"]} if is_whole else id_, **columns, **system}, [])


def _id_schema(wire: Wire) -> Json:
    if wire.has_id:
        return _ID
    key = ", ".join(wire.schema.key)
    return {**_ID, "description": f"made of the key ({key}), whose columns stand beside it"}


def column_schema(column: Column) -> Json:
    """What a column's value is in JSON."""
    made = dict(_BY_FAMILY.get(column.family) or _numbers_and_texts(column))
    if column.labels:
        made = {"type": "string", "enum": list(column.labels)}
    return _nullable(made) if column.nullable else made


def _numbers_and_texts(column: Column) -> Json:
    if column.family == "int":
        return _whole(column)
    if column.family == "decimal":
        words = "a number of more digits than a double has goes as text"
        return {"anyOf": [{"type": "number"}, {"type": "string", "pattern": _NUMBER_TEXT}], "description": words}
    if column.kind == "UUID":
        return {"type": "string", "format": "uuid"}
    return {"type": "string", "contentMediaType": "application/json"} if column.kind == "JSON" else {"type": "string"}


def _whole(column: Column) -> Json:
    least, most = _WHOLE_BOUNDS[column.kind]
    if max(-least, most) <= DOUBLE_WHOLE:
        return {"type": "integer", "minimum": least, "maximum": most}
    number = {"type": "integer", "minimum": max(least, -DOUBLE_WHOLE), "maximum": DOUBLE_WHOLE}
    text = {"type": "string", "pattern": r"^\d{1,20}$" if least == 0 else r"^-?\d{1,19}$"}
    return {"anyOf": [number, text], "description": "beyond 2**53, which a double does not hold, as text"}


def _nullable(schema: Json) -> Json:
    if "enum" in schema:
        return {**schema, "type": [schema["type"], "null"], "enum": [*schema["enum"], None]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


_SYSTEM: Json = {
    UPDATED_AT: _nullable({"type": "string", "format": "date-time"}),
    VERSION: _nullable({"type": "string"}),
    DELETED: {"type": "boolean"},
}
_ERROR: Json = {
    "type": "object",
    "properties": {
        "error": {"type": "string"},
        "hint": {"type": "string"},
        "kind": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"enum": ["unique", "reference", "not null", "check", "type"]},
        "column": {"type": "string"},
        "id": {"type": "string", "description": "the server's log has more under it"},
    },
    "required": ["error", "status"],
}


# Paths


def _paths(table: str, name: str, limits: Limits, *, has_keys: bool, read_only: bool) -> Json:
    path = f"/tables/{quote(table, safe='')}"
    row = f"#/components/schemas/{name}"
    always = ["400", *(["401"] if has_keys else []), "404", "503"]
    written = {"required": True, "content": {"application/json": {"schema": {"$ref": f"{row}.write"}}}}
    whole = _answer("the row", {"$ref": row}, validators=True)
    clash = _answer("another row than was thought", {"anyOf": [{"$ref": row}, _REF_ERROR]})

    def verb(words: str, what: str, answers: Json, failures: Sequence[str], **more: Any) -> Json:
        failed = {status: _answer(_WORDS[status], _REF_ERROR) for status in failures}
        responses = dict(sorted((answers | failed).items()))
        return {"operationId": f"{what}_{name}", "tags": [table], "summary": words, "responses": responses, **more}

    listed = {"anyOf": [{"$ref": f"{row}.page"}, {"$ref": f"{row}.selected"}]}
    of_table: Json = {
        "get": verb("A list of rows", "list", {"200": _answer("a page", listed)}, always, parameters=_listing(limits))
    }
    of_row: Json = {
        "parameters": [_parameter(ID, "path", _ID, required=True)],
        "get": verb(
            "One row", "read", {"200": whole, "304": _EMPTY}, [*always, "410"], parameters=[*_READ, _DELETED_TOO]
        ),
    }
    if not read_only:
        made = _answer("the row as it was made", {"$ref": row}, validators=True)
        made["headers"]["Location"] = {"schema": {"type": "string"}}
        sent = [*always, "413", "415"]
        of_table["post"] = verb("Insert a row", "insert", {"201": made, "409": clash}, sent, requestBody=written)
        of_row["put"] = verb(
            "Put a row in the place of another; a column that is not sent becomes NULL",
            "replace",
            {"200": whole, "409": clash, "412": clash},
            [*sent, "410"],
            requestBody=written,
            parameters=[*_WRITE, _DELETED_TOO],
        )
        of_row["delete"] = verb(
            "Delete a row", "delete", {"204": _EMPTY, "409": clash, "412": clash}, [*always, "410"], parameters=_WRITE
        )
    return {path: of_table, f"{path}/{{{ID}}}": of_row}


def _health() -> Json:
    ok = _answer("it can serve", _object({"status": {"enum": ["ok"]}}, ["status"]))
    return {
        "operationId": "health",
        "summary": "Whether the server can serve",
        "security": [],
        "responses": {"200": ok, "503": _answer(_WORDS["503"], _REF_ERROR)},
    }


def _answer(words: str, schema: Json, *, validators: bool = False) -> Json:
    made: Json = {"description": words, "content": {"application/json": {"schema": schema}}}
    if validators:
        made["headers"] = {name: {"schema": {"type": "string"}} for name in ("ETag", "Last-Modified")}
    return made


def _parameter(name: str, where: str, schema: Json, words: str | None = None, *, required: bool = False) -> Json:
    made = {"name": name, "in": where, "schema": schema, "required": required}
    return made if words is None else {**made, "description": words}


def _listing(limits: Limits) -> list[Json]:
    number = {"type": "integer", "minimum": 0, "maximum": limits.v3_top_max}
    page = {"type": "string", "examples": [f"maxpagesize={limits.v3_page_max}"]}
    return [
        _parameter("$filter", "query", {"type": "string"}, "an OData filter: `n gt 3 and startswith(title,'a')`"),
        _parameter("$orderby", "query", {"type": "string"}, "columns, each with `asc` or `desc`: `n desc,id`"),
        _parameter("$select", "query", {"type": "string"}, "the columns to show, by commas"),
        _parameter("$top", "query", number, "rows at most, of all pages"),
        _parameter("$skip", "query", {"type": "integer", "minimum": 0}, "rows to leave out"),
        _parameter("$count", "query", {"type": "boolean"}, "whether to say how many there are"),
        _DELETED_TOO,
        _parameter("Prefer", "header", page, f"a page has {limits.rows_of_page(100)} rows; `nextLink` goes on"),
    ]


_EMPTY: Json = {"description": "nothing more is said"}
_REF_ERROR: Json = {"$ref": "#/components/schemas/Error"}
_TEXT: Json = {"type": "string"}
_DELETED_TOO = _parameter("__includedeleted", "query", {"type": "boolean"}, "deleted rows too")
_READ = [
    _parameter("If-None-Match", "header", _TEXT, "304 if the row still has this ETag"),
    _parameter("If-Modified-Since", "header", _HTTP_DATE),
]
_WRITE = [
    _parameter("If-Match", "header", _TEXT, "the ETag of the row as it was read; without it the last writer wins"),
    _parameter("If-Unmodified-Since", "header", _HTTP_DATE),
]
_SECURITY: Json = {
    "key": {"type": "apiKey", "in": "header", "name": "X-ZUMO-AUTH"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_WORDS = {
    "400": "not understood",
    "401": "no key that is known was sent",
    "404": "not there",
    "410": "deleted",
    "413": "too large",
    "415": "another kind of body",
    "503": "not now; try again later",
}
_DESCRIPTION = (
    "The protocol of the Datasync Community Toolkit (v3), which a request without `ZUMO-API-VERSION` is answered in. "
    "A row's ETag is its version: a PUT or DELETE with a stale If-Match changes nothing and is answered with 412 and "
    "the row that is there."
)
