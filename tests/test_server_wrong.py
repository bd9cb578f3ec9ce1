"""Bad requests: each is answered with a 4xx and words, and changes nothing.

The table of a case is its name, what is sent, the status and some of the words.  After each, the
database file is what it was before, byte for byte of its dump, and the server's log has no error.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import random
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pyarrow as pa
import pytest

from syncframe.backends import open as open_backend
from syncframe.server import serve
from syncframe.testing import batch, delete, insert, update

V2 = {"ZUMO-API-VERSION": "2.0.0"}
JSON = {"content-type": "application/json"}
ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
KEY = "a key that nobody guesses"
BODY_MAX = 2**20

DDL = """
    create table lists (id text primary key, name varchar);
    create table todo (
        id text primary key, title varchar not null, n bigint check (n >= 0), done boolean, at timestamptz,
        day date, clock time, price decimal(18,2), code varchar unique, bytes blob, list text references lists (id)
    );
    create table numbers (id bigint primary key, big ubigint, x double);
    create table weather (origin varchar not null, hour timestamptz not null, temp double, primary key (origin, hour));
    insert into lists values ('home', 'Home');
    insert into todo (id, title, n, code, list) values
        ('a', 'milk', 1, 'x', 'home'), ('b', 'bread', 2, 'y', null), ('gone', 'old', 3, 'z', null);
    insert into numbers values (1, 1, 1.5);
    insert into weather values ('JFK', '2013-01-01T10:00:00Z', 1.5);
"""


@dataclass
class Site:
    url: str
    path: Path
    client: httpx2.Client
    schemas: dict[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def dump(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return list(connection.iterdump())

    def raw(self, data: bytes, *, stops: bool = False) -> bytes:
        """Send bytes, and return all that comes back until the server closes; `stops`: nothing more will come."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            if stops:
                connection.shutdown(socket.SHUT_WR)
            parts = []
            while part := connection.recv(65_536):
                parts.append(part)
        return b"".join(parts)


def built(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(DDL)
        connection.commit()
    open_backend(f"sqlite:///{path}").track(["lists", "todo", "numbers", "weather"])  # type: ignore[attr-defined]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("delete from todo where id = 'gone'")
        connection.commit()
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    path = built(tmp_path_factory.mktemp("wrong") / "wrong.db")
    with (
        serve(f"sqlite:///{path}", body_bytes_max=BODY_MAX, timeout_s=10) as server,
        httpx2.Client(base_url=server.url, timeout=30) as client,
    ):
        backend = open_backend(f"sqlite:///{path}")
        names = ("todo", "numbers", "weather")
        yield Site(server.url, path, client, {name: backend.schema(name) for name in names})


@pytest.fixture(autouse=True)
def nothing_happened(site: Site, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    before = site.dump()
    with caplog.at_level(logging.INFO, logger="syncframe.server"):
        yield
    assert site.dump() == before
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


def told(response: httpx2.Response) -> str:
    """The words of a refusal; they are JSON whatever was wrong."""
    body = response.json()
    assert body["status"] == response.status_code
    assert {"error", "kind", "status"} <= {*body} <= {"error", "kind", "status", "hint", "id", "code", "column"}
    return f"{body['error']}\n{body.get('hint', '')}"


# Where there is nothing, and how it is not asked

PATHS = [
    ("/tables", 404, "there is nothing here"),
    ("/tables/nowhere", 404, "no table 'nowhere'"),
    ("/tables/TODO", 404, "no table 'TODO'"),
    ("/tables/_syncframe_log_todo", 404, "no table"),
    ("/tables/_syncframe_settings/x", 404, "no table"),
    ("/tables/sqlite_master", 404, "no table 'sqlite_master'"),
    ("/tables/todo;drop%20table%20todo", 404, "no table"),
    ("/tables/todo%20where%201=1", 404, "no table"),
    ("/tables/%2e%2e/todo", 404, "no table '..'"),
    ("/tables/../todo", 404, "no table '..'"),
    ("/tables/todo/../../etc/passwd", 404, "there is nothing here"),
    ("/tables/todo/%2e%2e", 404, "does not exist"),
    ("/tables/todo/..%2f..%2fwrong.db", 404, "does not exist"),
    ("/tables/todo%2fa", 404, "no table 'todo/a'"),
    ("/tables//todo", 404, "no table ''"),
    ("//tables/todo", 404, "there is nothing here"),
    ("/tables/todo//", 404, "does not exist"),
    ("/tables/todo%00", 404, "no table"),
    ("/tables/todo/a%00", 404, "does not exist"),
    ("/tables/todo/a%0d%0aset-cookie:x", 404, "does not exist"),
    ("/tables/%ff", 400, "no UTF-8"),
    ("/tables/todo/%c0%ae", 400, "no UTF-8"),
    ("/tables/todo?$filter=%ff", 400, "no UTF-8"),
    ("/tables/todo/a/b", 404, "there is nothing here"),
    ("/tables/todo/" + "a" * 5_000, 404, "does not exist"),
    ("/tables/todo/nobody", 404, "does not exist"),
    ("/tables/todo/gone", 410, "was deleted"),
    ("/tables/numbers/1.0", 404, "does not exist"),
    ("/tables/numbers/one", 404, "does not exist"),
    ("/tables/numbers/9223372036854775808", 404, "does not exist"),
    ("/tables/weather/JFK", 404, "does not exist"),
    ("/tables/weather/JFK|2013-01-01", 404, "does not exist"),
    ("/syncframe/nothing", 404, "no verb 'nothing'"),
    ("/syncframe/pull/todo", 404, "there is nothing here"),
    ("/syncframe/schema", 400, "`table` is missing"),
    ("/syncframe/schema?table=sqlite_master", 404, "no table"),
    ("/syncframe/push", 405, "GET is not done here"),
]


@pytest.mark.parametrize(("path", "status", "words"), PATHS, ids=[path[:40] for path, *_ in PATHS])
def test_a_path_that_leads_nowhere(site: Site, path: str, status: int, words: str) -> None:
    # As it stands: a client would tidy it.
    head, _, body = site.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()).partition(
        b"\r\n\r\n"
    )

    assert head.split(b" ")[1] == str(status).encode()
    assert words in json.loads(body)["error"]


METHODS = [
    ("PATCH", "/tables/todo/a", {}, "GET, HEAD, PUT, DELETE, OPTIONS"),
    ("POST", "/tables/todo/a", {}, "GET, HEAD, PUT, DELETE, OPTIONS"),
    ("PUT", "/tables/todo/a", V2, "GET, HEAD, PATCH, POST, DELETE, OPTIONS"),
    ("PUT", "/tables/todo", {}, "GET, HEAD, POST, OPTIONS"),
    ("DELETE", "/tables/todo", {}, "GET, HEAD, POST, OPTIONS"),
    ("DELETE", "/tables/todo", V2, "GET, HEAD, POST, PATCH, OPTIONS"),
    ("TRACE", "/tables/todo", {}, "GET, HEAD, POST, OPTIONS"),
    ("PROPFIND", "/tables/todo/a", {}, "GET, HEAD, PUT, DELETE, OPTIONS"),
    ("POST", "/syncframe", {}, "GET, HEAD, OPTIONS"),
    ("DELETE", "/syncframe/push", {}, "POST, OPTIONS"),
]


@pytest.mark.parametrize(("method", "path", "headers", "allowed"), METHODS)
def test_a_method_that_is_not_done(site: Site, method: str, path: str, headers: dict[str, str], allowed: str) -> None:
    response = site.client.request(method, path, headers={**JSON, **headers}, content=b'{"id": "a", "title": "x"}')

    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert f"{method} is not done here" in told(response)


# Bodies

BODIES: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("malformed", b'{"title": "x"', JSON, 400, "no JSON"),
    ("trailing", b'{"title": "x"} {}', JSON, 400, "no JSON"),
    ("empty", b"", JSON, 400, "no JSON"),
    ("array", b'[{"title": "x"}]', JSON, 400, "a JSON array"),
    ("string", b'"x"', JSON, 400, "a JSON string"),
    ("null", b"null", JSON, 400, "a JSON null"),
    ("NaN", b'{"title": "x", "n": NaN}', JSON, 400, "no JSON"),
    ("deep", b'{"title": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON, 400, "nested too deeply"),
    ("no UTF-8", b'{"title": "\xff"}', JSON, 400, "no JSON"),
    ("UTF-16", '{"title": "x"}'.encode("utf-16"), {"content-type": "application/json; charset=utf-16"}, 415, "charset"),
    ("no type", b'{"title": "x"}', {}, 415, "content type"),
    ("text", b'{"title": "x"}', {"content-type": "text/plain"}, 415, "content type"),
    ("form", b"title=x", {"content-type": "application/x-www-form-urlencoded"}, 415, "content type"),
    ("gzip", gzip.compress(b'{"title": "x"}'), {**JSON, "content-encoding": "gzip"}, 415, "content encoding"),
    ("huge", b'{"title": "' + b"x" * BODY_MAX + b'"}', JSON, 413, f"more than {BODY_MAX} bytes"),
    ("many digits", b'{"title": "x", "n": ' + b"9" * 10_000 + b"}", JSON, 400, "no JSON"),
    # Neither may become a number of a billion digits, nor reach Arrow, which dies of it.
    ("a number without end", b'{"title": "x", "n": 1e99999999}', JSON, 400, "column 'n' is BIGINT"),
    ("a price without end", b'{"title": "x", "price": 1e99999999}', JSON, 400, "column 'price' is DECIMAL"),
    ("next to nothing", b'{"title": "x", "price": 1e-99999999}', JSON, 400, "column 'price' is DECIMAL"),
    ("next to nothing as text", b'{"title": "x", "price": "1e-99999999"}', JSON, 400, "column 'price' is DECIMAL"),
    ("surrogate", b'{"title": "\\ud800"}', JSON, 400, "'title'"),
    ("surrogate name", b'{"title": "x", "\\ud800": 1}', JSON, 400, "not among the table's"),
    ("one column twice", b'{"title": "x", "Title": "y"}', JSON, 400, "one column twice"),
]  # fmt: skip


@pytest.mark.parametrize("version", [{}, V2], ids=["v3", "v2"])
@pytest.mark.parametrize(("content", "headers", "status", "words"), [b[1:] for b in BODIES], ids=[b[0] for b in BODIES])
def test_a_body_that_cannot_be_read(
    site: Site, content: bytes, headers: dict[str, str], status: int, words: str, version: dict[str, str]
) -> None:
    insert_ = site.client.post("/tables/todo", content=content, headers={**headers, **version})
    method = "PATCH" if version else "PUT"
    change = site.client.request(method, "/tables/todo/a", content=content, headers={**headers, **version})

    for response in (insert_, change):
        assert response.status_code == status
        assert words in told(response)


ROWS: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("a number for a text", "todo", {"title": 5}, 400, "column 'title' is VARCHAR"),
    ("an object for a text", "todo", {"title": {"a": 1}}, 400, "column 'title' is VARCHAR"),
    ("a word for a number", "todo", {"title": "x", "n": "abc"}, 400, "column 'n' is BIGINT"),
    ("half a number", "todo", {"title": "x", "n": 1.5}, 400, "column 'n' is BIGINT"),
    ("a number too large", "todo", {"title": "x", "n": 2**63}, 400, "column 'n' is BIGINT"),
    ("a rounded number", "todo", {"title": "x", "n": 1e300}, 400, "column 'n' is BIGINT"),
    ("an exponent without end", "todo", {"title": "x", "n": "1e999999999"}, 400, "column 'n' is BIGINT"),
    ("a boolean for a number", "todo", {"title": "x", "n": True}, 400, "column 'n' is BIGINT"),
    ("yes", "todo", {"title": "x", "done": "yes"}, 400, "column 'done' is BOOLEAN"),
    ("one for true", "todo", {"title": "x", "done": 1}, 400, "column 'done' is BOOLEAN"),
    ("no time", "todo", {"title": "x", "at": "garbage"}, 400, "column 'at' is TIMESTAMPTZ"),
    ("no day", "todo", {"title": "x", "day": "2021-02-29"}, 400, "column 'day' is DATE"),
    ("a moment for a day", "todo", {"title": "x", "day": "2021-02-28T10:00:00Z"}, 400, "column 'day' is DATE"),
    ("25 o'clock", "todo", {"title": "x", "clock": "25:00:00"}, 400, "column 'clock' is TIME"),
    ("more digits than are kept", "todo", {"title": "x", "price": "1.234"}, 400, "'price'"),
    ("bytes that are no base64", "todo", {"title": "x", "bytes": "**"}, 400, "column 'bytes' is BLOB"),
    ("a column that is not there", "todo", {"title": "x", "color": "red"}, 400, "column 'color' is not among"),
    ("an id with a blank", "todo", {"id": "a b", "title": "x"}, 400, "id"),
    ("an id too long", "todo", {"id": "a" * 300, "title": "x"}, 400, "id"),
    ("an id that is a list", "todo", {"id": ["a"], "title": "x"}, 400, "id is"),
    ("an id that is true", "todo", {"id": True, "title": "x"}, 400, "id is"),
    ("deleted", "todo", {"title": "x", "deleted": True}, 400, "deleted"),
    ("a missing value", "todo", {"title": None}, 400, "takes no NULL"),
    ("what a check refuses", "todo", {"title": "x", "n": -1}, 400, "refuses"),
    ("what is taken", "todo", {"title": "x", "code": "x"}, 400, "refuses"),
    ("a parent that is not there", "todo", {"title": "x", "list": "nowhere"}, 400, "refuses"),
    ("a row that is there", "todo", {"id": "a", "title": "x"}, 409, "milk"),
    ("a row that was deleted", "todo", {"id": "gone", "title": "x"}, 409, '"deleted":true'),
    ("a missing key", "numbers", {"x": 1}, 400, "needs its key"),
    ("a key that is none", "numbers", {"id": "one"}, 400, "id of no row"),
    ("a key spelt otherwise", "numbers", {"id": "01"}, 400, "canonical"),
    ("a number that SQLite has not", "numbers", {"id": 2, "big": "18446744073709551615"}, 400, "'big'"),
    ("half a key", "weather", {"origin": "JFK"}, 400, "needs its key"),
    ("two keys", "weather", {"id": "_4a_46_4b|2013-01-01T10:00:00Z", "origin": "LGA", "hour": "2013-01-01T10:00:00Z"},
     400, "id"),
]  # fmt: skip


@pytest.mark.parametrize("version", [{}, V2], ids=["v3", "v2"])
@pytest.mark.parametrize(("table", "body", "status", "words"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_a_row_that_cannot_be_inserted(
    site: Site, table: str, body: dict[str, Any], status: int, words: str, version: dict[str, str]
) -> None:
    response = site.client.post(f"/tables/{table}", json=body, headers=version)

    assert response.status_code == status
    assert words in (response.text if status == 409 else told(response)) or (version and "reserved" in response.text)


CHANGES: list[tuple[str, str, str, dict[str, str], dict[str, Any], int, str]] = [
    ("another id", "PUT", "todo/a", {}, {"id": "b", "title": "x"}, 400, "the id in the body is 'b'"),
    ("another id, v2", "PATCH", "todo/a", V2, {"id": "b", "title": "x"}, 400, "the id in the body is 'b'"),
    ("no id at all", "PATCH", "todo", V2, {"title": "x"}, 400, "neither the URL nor the body"),
    ("another key", "PUT", "weather/x_4a_46_4b|2013-01-01t10:00:00z", {}, {"origin": "LGA"}, 404, "does not exist"),
    ("createdAt", "PATCH", "todo/a", V2, {"createdAt": "2020-01-01T00:00:00Z"}, 400, "reserved"),
    ("updatedat", "PATCH", "todo/a", V2, {"updatedat": "2020-01-01T00:00:00Z"}, 400, "reserved"),
    ("deleted", "PATCH", "todo/a", V2, {"deleted": False}, 400, "reserved"),
    ("deleted, v3", "PUT", "todo/a", {}, {"title": "x", "deleted": True}, 400, "DELETE deletes"),
    ("deleted, no boolean", "PUT", "todo/a", {}, {"title": "x", "deleted": "no"}, 400, "deleted"),
    ("a NULL that is not allowed", "PUT", "todo/a", {}, {"n": 1}, 400, "NOT NULL"),
    ("what is taken", "PATCH", "todo/a", V2, {"code": "y"}, 400, "refuses"),
    ("nobody", "PUT", "todo/nobody", {}, {"title": "x"}, 404, "no row 'nobody'"),
    ("nobody, v2", "PATCH", "todo/nobody", V2, {"title": "x"}, 404, "does not exist"),
    ("gone", "PUT", "todo/gone", {}, {"title": "x"}, 410, "was deleted"),
    ("gone, v2", "PATCH", "todo/gone", V2, {"title": "x"}, 404, "does not exist"),
    ("gone, kept so", "PUT", "todo/gone?__includedeleted=true", {}, {"title": "x", "deleted": True}, 400, "deleted"),
    ("undelete nobody", "POST", "todo/nobody", V2, {}, 404, "does not exist"),
    ("undelete with values", "POST", "todo/gone", V2, {"title": "x"}, 400, "without a body"),
    ("a version that is a number", "PATCH", "todo/a", V2, {"title": "x", "version": 1}, 400, "version is '1'"),
    ("an old version", "PATCH", "todo/a", V2, {"title": "x", "version": "0"}, 409, "milk"),
    ("an old tag", "PUT", "todo/a", {"if-match": '"0"'}, {"title": "x"}, 412, "milk"),
    ("an old tag, v2", "PATCH", "todo/a", {**V2, "if-match": '"0"'}, {"title": "x"}, 412, "milk"),
    ("an old tag of one gone", "POST", "todo/gone", {**V2, "if-match": '"0"'}, {}, 412, '"deleted":true'),
    ("tags without it", "PUT", "todo/a", {"if-match": '"0", "1 \\" 2"'}, {"title": "x"}, 412, "milk"),
    ("a tag without quotes", "PUT", "todo/a", {"if-match": "0"}, {"title": "x"}, 400, "in double quotes"),
    ("half a tag", "PUT", "todo/a", {"if-match": '"0'}, {"title": "x"}, 400, "in double quotes"),
    ("a tag and rubbish", "PUT", "todo/a", {"if-match": '"0" x'}, {"title": "x"}, 400, "in double quotes"),
    ("only if it is not there", "PUT", "todo/a", {"if-none-match": "*"}, {"title": "x"}, 412, "milk"),
    ("since long ago", "PUT", "todo/a", {"if-unmodified-since": "Sat, 01 Jan 2000 00:00:00 GMT"}, {"title": "x"}, 412,
     "milk"),
    ("since no time", "PUT", "todo/a", {"if-unmodified-since": "yesterday"}, {"title": "x"}, 400, "no HTTP date"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "words"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_a_change_that_is_not_made(
    site: Site, method: str, path: str, headers: dict[str, str], body: dict[str, Any], status: int, words: str
) -> None:
    response = site.client.request(method, f"/tables/{path}", headers=headers, json=body)

    assert response.status_code == status
    if status in (409, 412):
        assert words in response.text
        assert response.headers["etag"] == f'"{response.json()["version"]}"'
    else:
        assert words in told(response)


def test_a_weak_tag_is_never_a_version(site: Site) -> None:
    tag = site.client.get("/tables/todo/a").headers["etag"]

    for method, headers in (("PUT", {}), ("DELETE", {}), ("PATCH", V2), ("DELETE", V2)):
        response = site.client.request(
            method, "/tables/todo/a", headers={"if-match": f"W/{tag}", **headers}, json={"title": "x"}
        )
        assert (response.status_code, response.headers["etag"]) == (412, tag)


@pytest.mark.parametrize(("path", "headers", "status"), [
    ("todo/nobody", {}, 404), ("todo/gone", {}, 410), ("todo/nobody", V2, 404),
    ("todo/a", {"if-match": '"0"'}, 412), ("todo/a", {**V2, "if-match": '"0"'}, 412), ("todo/a", {"if-match": "x"}, 400),
])  # fmt: skip
def test_a_delete_that_is_not_made(site: Site, path: str, headers: dict[str, str], status: int) -> None:
    assert site.client.delete(f"/tables/{path}", headers=headers).status_code == status


# Queries

LONG = f"title eq '{'x' * 33_000}'"
QUERIES = [
    ("$filter=n eq", 400, "^"),
    ("$filter=n eq eq 1", 400, "^"),
    ("$filter=(n eq 1", 400, "^"),
    ("$filter=n eq 1)", 400, "^"),
    ("$filter=n = 1", 400, "^"),
    ("$filter=title eq 'x", 400, "^"),
    ("$filter=title eq 5", 400, "^"),
    ("$filter=n eq 'x'", 400, "^"),
    ("$filter=n add 1", 400, "^"),
    ("$filter=nothing eq 1", 400, "nothing"),
    ("$filter=load_extension('x') eq 1", 400, "load_extension"),
    ("$filter=title eq 'x'; drop table todo", 400, "^"),
    ("$filter=title eq 'x' -- ", 400, "^"),
    ("$filter=exists(select 1)", 400, "^"),
    ("$filter=day eq datetime'2021-02-29T00:00:00Z'", 400, "^"),
    ("$filter=at gt cast(x,Edm.DateTimeOffset)", 400, "^"),
    ("$filter=n eq 1e999999999", 400, "^"),
    ("$filter=" + "(" * 500 + "n eq 1" + ")" * 500, 400, "deep"),
    ("$filter=" + "not " * 5_000 + "done", 400, "deep"),
    ("$filter=" + LONG, 400, "bytes"),
    ("$filter=" + "x" * 60_000, 414, "query string"),
    ("$filter=n eq 1&$filter=n eq 2", 400, "$filter is there twice"),
    ("$orderby=nothing", 400, "nothing"),
    ("$orderby=n downwards", 400, "^"),
    ("$orderby=n,,title", 400, "^"),
    ("$orderby=" + ",".join(["n downwards"] * 2_000), 400, "^"),
    ("$orderby=n; drop table todo", 400, "^"),
    ("$select=nothing", 400, "$select: column 'nothing'"),
    ("$select=id,,n", 400, "$select: column ''"),
    ("$top=-1", 400, "$top is '-1'"),
    ("$top=ten", 400, "$top is 'ten'"),
    ("$top=1e3", 400, "$top is '1e3'"),
    ("$top=", 400, "$top is ''"),
    ("$top=1000000", 400, "$top is 1000000"),
    ("$top=99999999999999999999", 400, "$top is"),
    ("$skip=-1", 400, "$skip is '-1'"),
    ("$skip=x", 400, "$skip is 'x'"),
    ("$skip=9999999999999999999999", 400, "$skip is"),
    ("$expand=lists", 400, "'$expand' is not known"),
    ("$filtr=n eq 1", 400, "'$filtr' is not known"),
    ("&".join(f"p{n}=1" for n in range(101)), 400, "more than 100 parameters"),
]


@pytest.mark.parametrize("version", [{}, V2], ids=["v3", "v2"])
@pytest.mark.parametrize(("query", "status", "words"), QUERIES, ids=[q[:40] for q, *_ in QUERIES])
def test_a_query_that_cannot_be_asked(site: Site, query: str, status: int, words: str, version: dict[str, str]) -> None:
    response = site.client.get(f"/tables/todo?{quote(query, safe='$&=')}", headers=version)

    assert response.status_code == status
    assert words in told(response)


def test_a_count_that_is_neither_true_nor_false(site: Site) -> None:
    response = site.client.get("/tables/todo?$count=maybe")

    assert response.status_code == 400
    assert "$count is 'maybe'" in told(response)


# The extension

ASKED: list[tuple[str, str, Any, int, str]] = [
    ("no table", "pull", {}, 400, "`table` is missing"),
    ("an unknown table", "pull?table=nowhere", {}, 404, "no table 'nowhere'"),
    ("an unknown member", "pull?table=todo", {"filter": "n = 1"}, 400, "'filter'"),
    ("an array", "pull?table=todo", [1], 400, "a JSON array"),
    ("no condition", "pull?table=todo", {"where": "n ="}, 400, "^"),
    ("a condition in a list", "pull?table=todo", {"where": ["n = 1"]}, 400, "where is"),
    ("a subquery", "pull?table=todo", {"where": "n in (select 1)"}, 400, "^"),
    ("an unknown column", "pull?table=todo", {"columns": ["nothing"]}, 400, "'nothing'"),
    ("columns that are none", "pull?table=todo", {"columns": [1]}, 400, "columns is"),
    ("no rows a page", "pull?table=todo", {"page_rows": 0}, 400, "page_rows is"),
    ("true rows a page", "pull?table=todo", {"page_rows": True}, 400, "page_rows is"),
    ("a checkpoint of elsewhere", "pull?table=todo", {"since": "x"}, 410, "checkpoint"),
    ("a checkpoint made up", "pull?table=todo", {"since": '["x", 1, "y", ["z"]]'}, 410, "change log"),
    ("a checkpoint with an odd key", "pull?table=todo", {"since": '["x", 1e999, {}, [[]]]'}, 410, "checkpoint"),
    ("too many others", "pull?table=todo", {"others": [None] * 501}, 400, "others has 501"),
    ("another that is none", "pull?table=todo", {"others": ["n ="]}, 400, "^"),
    ("a compression", "pull?table=todo&compression=zip", {}, 400, "compression"),
    ("an order", "read?table=todo", {"order_by": ["n"]}, 400, "order_by has"),
    ("an unknown order", "read?table=todo", {"order_by": [["nothing", True]]}, 400, "'nothing'"),
    ("a limit", "read?table=todo", {"limit": -1}, 400, "limit is"),
    ("an offset", "count?table=todo", {"offset": "1"}, 400, "offset is"),
    ("deleted or not", "count?table=todo", {"include_deleted": 1}, 400, "include_deleted is"),
    ("a division", "count?table=todo", {"where": "n // 0 = 1"}, 400, "cannot be computed"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "body", "status", "words"), [a[1:] for a in ASKED], ids=[a[0] for a in ASKED])
def test_a_question_of_the_extension(site: Site, verb: str, body: Any, status: int, words: str) -> None:
    response = site.client.post(f"/syncframe/{verb}", json=body)

    assert response.status_code == status
    assert words in told(response)


def stream(table: str, rows: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    schema = rows.schema.with_metadata({"table": table} if table else {})
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(rows.replace_schema_metadata(schema.metadata))
    return sink.getvalue()


def operations(site: Site, table: str, *changes: Any, **replaced: Any) -> pa.Table:
    """A batch of operations, some columns of it replaced by a list."""
    rows = batch(open_backend(f"sqlite:///{site.path}"), table, changes).rows
    for name, cells in replaced.items():
        place = rows.column_names.index(name)
        column = cells if isinstance(cells, pa.Array) else pa.array(cells, rows.schema.field(name).type)
        rows = rows.set_column(place, name, column)
    return rows


def good(site: Site) -> pa.Table:
    return operations(site, "todo", insert("new", title="x"), update("a", "0", n=5), delete("b", "0"))


BROKEN = [
    ("no Arrow", lambda s: b"nothing of the kind", "begins no message"),
    ("nothing of a stream", lambda s: stream("todo", good(s))[:6], "begins no message|cannot be read|says"),
    ("cut in the schema", lambda s: stream("todo", good(s))[:100], "says that its metadata"),
    ("cut in the rows", lambda s: stream("todo", good(s))[:-100], "bytes follow"),
    ("without its end", lambda s: stream("todo", good(s))[:-8], "without its end mark"),
    ("a second one cut", lambda s: stream("todo", good(s)) * 2 + b"\xff\xff\xff\xff", "cannot be read|says|begins"),
    ("a length that lies", lambda s: with_length(stream("todo", good(s)), 2**30), "says that its metadata"),
    ("a length below zero", lambda s: with_length(stream("todo", good(s)), -8), "says that its metadata"),
    ("compressed", lambda s: stream("todo", good(s), compression="zstd"), "compressed"),
    ("a dictionary", lambda s: stream("todo", as_dictionary(good(s), "kind")), "no dictionaries"),
    ("no table named", lambda s: stream("", good(s)), "names its table"),
    ("another table's", lambda s: stream("weather", good(s)), "should have"),
    ("an unknown table", lambda s: stream("nowhere", good(s)), "no table 'nowhere'"),
    ("syncframe's own table", lambda s: stream("_syncframe_log_todo", good(s)), "no table"),
    ("a column less", lambda s: stream("todo", good(s).drop_columns(["kind"])), "should have"),
    ("a value less", lambda s: stream("todo", good(s).drop_columns(["l_n"])), "l_n is not"),
    ("a column more", lambda s: stream("todo", good(s).append_column("x", pa.array([1, 2, 3]))), "should have"),
    ("another type", lambda s: stream("todo", retyped(good(s), "l_n", pa.float64())), "column 'l_n' is double"),
    ("numbers too large", lambda s: stream("todo", retyped(good(s), "l_n", pa.uint64(), [2**64 - 1] * 3)), "column 'l_n'"),
    ("an unknown kind", lambda s: stream("todo", operations(s, "todo", insert("new"), kind=["upsert"])), "kind should be"),
    ("no kind", lambda s: stream("todo", operations(s, "todo", insert("new"), kind=[None])), "kind should be"),
    ("no key", lambda s: stream("todo", operations(s, "todo", insert("new"), k_id=[None])), "k_id should be"),
    ("one key twice", lambda s: stream("todo", operations(s, "todo", insert("n", title="x"), insert("n", title="y"))),
     "the key should be unique"),
    ("no operation id", lambda s: stream("todo", operations(s, "todo", insert("n"), operation_id=[None])), "operation_id"),
    ("two ids in one", lambda s: stream("todo", operations(s, "todo", insert("n"), operation_id=["a b"])), "operation_id"),
    ("a dash for an id", lambda s: stream("todo", operations(s, "todo", insert("n"), operation_id=["-"])), "operation_id"),
    ("one id twice", lambda s: stream("todo", operations(s, "todo", insert("m"), insert("n"), operation_id=["a", "a"])),
     "operation_id should be unique"),
    ("an unknown column given", lambda s: stream("todo", operations(s, "todo", insert("n"), given=[["x"]])), "no column 'x' to write"),
    ("the key given", lambda s: stream("todo", operations(s, "todo", insert("n"), given=[["id"]])), "no column 'id' to write"),
    ("nothing given", lambda s: stream("todo", operations(s, "todo", insert("n"), given=[None])), "given"),
    ("a day of the year 50000", lambda s: stream("todo", odd_time(s, "l_day", pa.int32(), 17_000_000)), "l_day"),
    ("a moment before year 1", lambda s: stream("todo", odd_time(s, "l_at", pa.int64(), -(2**62))), "l_at"),
    ("30 o'clock", lambda s: stream("todo", odd_time(s, "l_clock", pa.int64(), 108_000_000_000)), "Arrow cannot read it"),
    ("text that is no UTF-8", lambda s: stream("todo", no_text(s)), "Arrow cannot read it"),
    ("one good and one bad", lambda s: stream("todo", good(s)) + stream("nowhere", good(s)), "no table 'nowhere'"),
]  # fmt: skip


def with_length(data: bytes, length: int) -> bytes:
    return data[:4] + length.to_bytes(4, "little", signed=True) + data[8:]


def as_dictionary(rows: pa.Table, name: str) -> pa.Table:
    place = rows.column_names.index(name)
    return rows.set_column(place, name, rows[name].dictionary_encode())


def retyped(rows: pa.Table, name: str, kind: pa.DataType, cells: list[Any] | None = None) -> pa.Table:
    column = pa.array(cells if cells is not None else rows[name].to_pylist(), kind)
    return rows.set_column(rows.column_names.index(name), name, column)


def odd_time(site: Site, name: str, held_as: pa.DataType, number: int) -> pa.Table:
    rows = operations(site, "todo", insert("new", title="x"))
    odd = pa.array([number], held_as).cast(rows.schema.field(name).type)
    return rows.set_column(rows.column_names.index(name), name, odd)


def no_text(site: Site) -> pa.Table:
    rows = operations(site, "todo", insert("new", title="x"))
    text = pa.Array.from_buffers(
        pa.large_string(),
        1,
        [None, pa.py_buffer((0).to_bytes(8, "little") + (1).to_bytes(8, "little")), pa.py_buffer(b"\xff")],
    )
    return rows.set_column(rows.column_names.index("l_title"), "l_title", text)


@pytest.mark.parametrize("atomic", [0, 1])
@pytest.mark.parametrize(("make", "words"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_batch_that_is_not_taken(site: Site, make: Any, words: str, atomic: int) -> None:
    response = site.client.post(f"/syncframe/push?atomic={atomic}", content=make(site), headers=ARROW)

    assert response.status_code == (404 if "no table" in words else 400)
    assert any(word in told(response) for word in words.split("|"))


PUSHED: list[tuple[str, Any, str]] = [
    ("no table", {"operations": []}, "no table ''"),
    ("an unknown table", {"table": "nowhere", "operations": []}, "no table 'nowhere'"),
    ("no operations", {"table": "todo"}, "operations is"),
    ("operations that are none", {"table": "todo", "operations": [1]}, "operations is"),
    ("an unknown member", {"table": "todo", "operations": [{"op": "insert"}]}, "'op'"),
    ("no kind", {"table": "todo", "operations": [{"operation_id": "o", "key": "n"}]}, "kind"),
    ("no key", {"table": "todo", "operations": [{"operation_id": "o", "kind": "insert"}]}, "key should be"),
    ("another key", {"table": "todo", "operations": [{"operation_id": "o", "kind": "insert", "key": {"n": 1}}]}, "key"),
    ("an unknown column", {"table": "todo", "operations": [
        {"operation_id": "o", "kind": "insert", "key": "n", "values": {"x": 1}}]}, "'x'"),
    ("a value that does not fit", {"table": "todo", "operations": [
        {"operation_id": "o", "kind": "insert", "key": "n", "values": {"n": "x"}}]}, "column 'n' is BIGINT"),
    ("a kind that is a number", {"table": "todo", "operations": [{"operation_id": "o", "kind": 1, "key": "n"}]}, "fit"),
    ("given that is a number", {"table": "todo", "operations": [
        {"operation_id": "o", "kind": "insert", "key": "n", "given": 1}]}, "fit"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words"), [p[1:] for p in PUSHED], ids=[p[0] for p in PUSHED])
def test_a_batch_in_json_that_is_not_taken(site: Site, body: Any, words: str) -> None:
    response = site.client.post("/syncframe/push", json=body)

    assert response.status_code == (404 if "no table" in words else 400)
    assert words in told(response)


@pytest.mark.parametrize(("path", "content", "headers", "status", "words"), [
    ("push", b"", {"content-type": "text/plain"}, 415, "content type"),
    ("push", b"x" * (BODY_MAX + 1), ARROW, 413, f"more than {BODY_MAX} bytes"),
    ("push?atomic=2", b"", ARROW, 400, "atomic is '2'"),
    ("rows?table=todo", b"", ARROW, 400, "0 Arrow streams"),
    ("rows?table=todo", b"{}", JSON, 415, "content type"),
    ("pull?table=todo", b"{}", ARROW, 415, "content type"),
])  # fmt: skip
def test_a_body_of_another_kind(
    site: Site, path: str, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    response = site.client.post(f"/syncframe/{path}", content=content, headers=headers)

    assert response.status_code == status
    assert words in told(response)


def test_a_body_without_a_length_is_read_no_further_than_it_may_be(site: Site) -> None:
    def long() -> Iterator[bytes]:
        yield from [b"x" * 65_536] * 64

    answers = [
        site.client.post("/tables/todo", content=long(), headers=JSON),
        site.client.post("/syncframe/push", content=long(), headers=ARROW),
    ]

    assert [answer.status_code for answer in answers] == [413, 413]
    assert all("more than" in told(answer) for answer in answers)


def test_keys_of_another_table(site: Site) -> None:
    response = site.client.post(
        "/syncframe/rows?table=numbers", content=stream("", pa.table({"id": ["a"]})), headers=ARROW
    )

    assert response.status_code == 400
    assert "column 'id' is string" in told(response)


def test_a_key_that_sqlite_cannot_hold_is_of_no_row(tmp_path: Path) -> None:
    path = tmp_path / "big.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table big (id ubigint primary key, x bigint)")
    with serve(f"sqlite:///{path}", track=True) as server, httpx2.Client(base_url=server.url) as client:
        found = client.get("/tables/big/18446744073709551615")
        made = client.post("/tables/big", json={"id": "18446744073709551615"})

    assert 400 <= found.status_code < 500
    assert 400 <= made.status_code < 500


def test_bytes_that_were_changed_on_the_way_never_end_in_a_500(tmp_path: Path) -> None:
    path = built(tmp_path / "flipped.db")
    chance = random.Random(4)
    with serve(f"sqlite:///{path}", timeout_s=20) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        right = stream(
            "todo", operations(Site(server.url, path, client), "todo", insert("n", title="x", n=1, price=None))
        )
        statuses = set()
        for _ in range(400):
            wrong = bytearray(right)
            for _ in range(chance.randint(1, 4)):
                wrong[chance.randrange(len(wrong))] = chance.randrange(256)
            statuses.add(client.post("/syncframe/push", content=bytes(wrong), headers=ARROW).status_code)

    assert {400} < statuses <= {200, 400, 404}


# HTTP itself

HEAD = b"POST /tables/todo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
LIES = [
    ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b" 400 "),
    ("an old version", b"GET /tables/todo HTTP/2.0.0\r\nHost: localhost\r\n\r\n", b" 400 "),
    ("no host", b"GET /tables/todo HTTP/1.1\r\n\r\n", b" 400 "),
    (
        "a header too large",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b" 431 ",
    ),
    ("a head without end", b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 11_000, b" 400 "),
    ("a blank in the path", b"GET /tables/todo /a HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 400 "),
    ("a length that is none", HEAD + b"Content-Length: many\r\n\r\n{}", b" 400 "),
    ("two lengths", HEAD + b'Content-Length: 2\r\nContent-Length: 14\r\n\r\n{"title": "x"}', b" 400 "),
    ("an unknown coding", HEAD + b'Transfer-Encoding: gzip\r\n\r\n{"title": "x"}', b" 400 "),
    ("a chunk that is none", HEAD + b'Transfer-Encoding: chunked\r\n\r\nzz\r\n{"title": "x"}\r\n0\r\n\r\n', b" 400 "),
    ("a chunk too short", HEAD + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"title": "x"}\r\n0\r\n\r\n', b" 400 "),
    ("a body that stops", HEAD + b'Content-Length: 100\r\n\r\n{"title": "x"}', b""),
    ("chunks that stop", HEAD + b'Transfer-Encoding: chunked\r\n\r\ne\r\n{"title": "x"}\r\n', b""),
    ("a huge length", HEAD + b'Content-Length: 99999999999\r\n\r\n{"title": "x"}', b" 413 "),
    ("a length beyond numbers", HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}", b" 4"),
]


@pytest.mark.parametrize(("data", "status"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_http_that_is_none(site: Site, data: bytes, status: bytes) -> None:
    answer = site.raw(data, stops=not status)

    assert status in answer.partition(b"\r\n")[0]
    assert b" 500 " not in answer.partition(b"\r\n")[0]


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    path = built(tmp_path / "slow.db")
    with serve(f"sqlite:///{path}", timeout_s=0.5) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(HEAD + b'Content-Length: 14\r\n\r\n{"ti')
            answer = connection.recv(65_536)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"GET /tables/todo HTTP/1.1\r\nHo")
            silence = connection.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert silence == b""


# Who may not


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    path = built(tmp_path_factory.mktemp("locked") / "locked.db")
    with (
        serve(f"sqlite:///{path}", tokens=[KEY.replace(" ", "-")]) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        yield Site(server.url, path, client)


@pytest.mark.parametrize("headers", [
    {}, {"x-zumo-auth": ""}, {"x-zumo-auth": "wrong"}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"},
    {"authorization": f"Basic {KEY.replace(' ', '-')}"}, {"authorization": KEY.replace(" ", "-")},
    {"x-zumo-auth": KEY.replace(" ", "-")[:-1]}, {"x-zumo-auth": KEY.replace(" ", "-").upper()},
    {"cookie": f"x-zumo-auth={KEY.replace(' ', '-')}"},
    # The first of the two that is there counts.
    {"x-zumo-auth": "wrong", "authorization": f"Bearer {KEY.replace(' ', '-')}"},
], ids=str)  # fmt: skip
def test_without_the_right_key_nothing_is_told(locked: Site, headers: dict[str, str]) -> None:
    before = locked.dump()
    answers = [
        locked.client.request(method, path, headers={**headers, **JSON}, content=b'{"title": "x"}')
        for method, path in [
            ("GET", "/tables/todo"), ("GET", "/tables/nowhere"), ("GET", "/syncframe"), ("GET", "/%ff"),
            ("POST", "/tables/todo"), ("DELETE", "/tables/todo/a"), ("POST", "/syncframe/push"), ("OPTIONS", "/tables/todo"),
        ]
    ]  # fmt: skip

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers} == {'Bearer realm="syncframe"'}
    assert len({answer.text for answer in answers}) == 1
    assert "X-ZUMO-AUTH" in told(answers[0])
    assert locked.dump() == before


@pytest.mark.parametrize("host", ["[::1", "a b", 'a"><b', "a:b", "a/b", "a@b"])
def test_a_host_that_is_none_becomes_no_part_of_a_link(locked: Site, host: str) -> None:
    response = locked.client.get(
        "/tables/todo?$top=1", headers={**V2, "host": host, "x-zumo-auth": KEY.replace(" ", "-")}
    )

    assert response.status_code == 400
    assert "Host is" in told(response)


@pytest.mark.parametrize(("headers", "status"), [
    ({"host": "evil.example"}, 421), ({"host": "127.0.0.1.evil.example"}, 421), ({"host": "[::1"}, 421),
    ({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403),
])  # fmt: skip
def test_without_keys_a_page_of_elsewhere_gets_nothing(site: Site, headers: dict[str, str], status: int) -> None:
    for method, path in (("GET", "/tables/todo"), ("POST", "/tables/todo/gone"), ("DELETE", "/tables/todo/a")):
        response = site.client.request(method, path, headers={**V2, **headers})
        assert response.status_code == status
        assert "no keys" in told(response)
