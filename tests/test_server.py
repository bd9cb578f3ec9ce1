"""The server over real HTTP: requests written by hand, and the answers that the protocol has for them."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import httpx2
import pyarrow as pa
import pytest
from starlette.datastructures import Headers

from syncframe.backends import Backend, Operations, Outcomes, Page
from syncframe.backends import open as open_backend
from syncframe.errors import AccessError, BackendError, SyncError, TransientError
from syncframe.query import Query, Read
from syncframe.remote import Rows
from syncframe.schema import Schema
from syncframe.server import Limits, make_app, serve
from syncframe.server.conditions import Conditions
from syncframe.server.http import Uvicorn
from syncframe.testing import batch, insert, update

V2 = {"ZUMO-API-VERSION": "2.0.0"}
V3: dict[str, str] = {}
ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
TOKEN = "correct-horse-battery-staple"

DDL = [
    "create table lists (id varchar not null primary key, name varchar)",
    """
    create table todo (
        id varchar not null primary key, title varchar not null, n bigint check (n >= 0), done boolean,
        code varchar unique, list varchar references lists (id)
    )
    """,
    "create table numbers (id bigint not null primary key, name varchar)",
    "create table weather (origin varchar not null, hour timestamptz not null, temp double, primary key (origin, hour))",
    """
    create table kinds (
        id varchar not null primary key, flag boolean, small smallint, whole bigint, big ubigint, real double,
        exact decimal(30,10), text varchar, bytes blob, day date, clock time, moment timestamp, instant timestamptz,
        guid uuid, doc json
    )
    """,
    'create table "odd "" name/%" (id varchar not null primary key, "a "" b" varchar)',
    "create table letters (id varchar not null primary key, n bigint)",
    'create table spelt ("Id" varchar not null primary key, name varchar)',
    "insert into lists values ('home', 'Home')",
    *(f"insert into letters values ('{letter}', {n})" for n, letter in enumerate("abcdefghij")),
]


def built(kind: str, path: Path, statements: Sequence[str] = DDL) -> str:
    """Make a database file, and return its URL."""
    connection: Any = sqlite3.connect(path) if kind == "sqlite" else duckdb.connect(str(path))
    with closing(connection):
        for statement in statements:
            # SQLite keeps 15 digits of a number in a column that is declared decimal.
            connection.execute(statement.replace("decimal", "dectext") if kind == "sqlite" else statement)
        connection.commit()
    return f"{kind}:///{path}"


@pytest.fixture(scope="module", params=["sqlite", "duckdb"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = built(request.param, tmp_path_factory.mktemp("served") / f"served.{request.param}")
    with serve(database, track=True) as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=60) as client:
        yield client


_numbers = iter(range(10**6))


@pytest.fixture
def new(client: httpx2.Client) -> Callable[..., dict[str, Any]]:
    """A row of `todo` that is new for this test, as v3 answers it."""

    def make(**values: Any) -> dict[str, Any]:
        body = {"id": f"row{next(_numbers)}", "title": "milk", "n": 1, **values}
        response = client.post("/tables/todo", json=body)
        assert response.status_code == 201
        made: dict[str, Any] = response.json()
        return made

    return make


def told(response: httpx2.Response) -> str:
    return str(response.json()["error"])


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


# Which dialect


@pytest.mark.parametrize(
    ("headers", "query", "is_v2"),
    [
        ({}, "", False),
        ({"zumo-api-version": "2.0.0"}, "", True),
        ({"ZUMO-API-VERSION": "2.0.7"}, "", True),
        ({"zumo-api-version": "3.0.0"}, "", False),
        ({"zumo-api-version": "20.0.0"}, "", False),
        ({"zumo-api-version": "2"}, "", False),
        ({}, "ZUMO-API-VERSION=2.0.0", True),
        ({}, "zumo-api-version=2.0.0", True),
    ],
    ids=str,
)
def test_the_version_says_which_dialect(
    client: httpx2.Client, headers: dict[str, str], query: str, is_v2: bool
) -> None:
    told = client.get(f"/tables/letters?{query}", headers=headers).json()

    assert isinstance(told, list) == is_v2


# Lists


def test_a_list_in_v3_is_an_object_with_its_nulls(client: httpx2.Client) -> None:
    told = client.get("/tables/letters?$top=1").json()

    assert list(told) == ["items", "count", "nextLink"]
    assert (told["count"], told["nextLink"]) == (None, None)
    (row,) = told["items"]
    assert list(row) == ["id", "n", "updatedAt", "version", "deleted"]
    assert (row["id"], row["n"], row["deleted"]) == ("a", 0, False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["updatedAt"])


def test_a_list_in_v2_is_an_array_and_with_its_count_an_object(client: httpx2.Client) -> None:
    plain = client.get("/tables/letters?$top=1", headers=V2).json()
    counted = client.get("/tables/letters?$top=1&$inlinecount=allpages", headers=V2).json()

    assert [list(row) for row in plain] == [["id", "n", "createdAt", "updatedAt", "version", "deleted"]]
    assert plain[0]["deleted"] is False
    assert counted == {"results": plain, "count": 10}


@pytest.mark.parametrize("query", ["$inlinecount=none", "$count=true", "$inlinecount=yes"])
def test_v2_counts_for_allpages_only(client: httpx2.Client, query: str) -> None:
    assert isinstance(client.get(f"/tables/letters?{query}", headers=V2).json(), list)


LISTED = [
    ("", "abcdefghij"),
    ("$orderby=n desc", "jihgfedcba"),
    ("$orderby=id desc&$top=3", "jih"),
    ("$filter=n gt 6", "hij"),
    ("$filter=n gt 6&$orderby=n desc", "jih"),
    ("$filter=n mod 2 eq 1 and not (id eq 'b')", "dfhj"),
    ("$filter=startswith(id,'c') or id eq 'e'", "ce"),
    ("$filter=id gt 'h'", "ij"),
    ("$skip=8", "ij"),
    ("$skip=20", ""),
    ("$top=0", ""),
    ("$top=2&$skip=3", "de"),
    ("$filter=n eq null", ""),
    ("$filter=deleted eq true", ""),
    ("$filter=", "abcdefghij"),
    ("$FILTER=n gt 8", "j"),
    ("filter=n gt 8&anything=1", "abcdefghij"),
    # A plus is a blank in a query string.
    ("$filter=n+gt+8", "j"),
]


@pytest.mark.parametrize("dialect", [V3, V2], ids=["v3", "v2"])
@pytest.mark.parametrize(("query", "ids"), LISTED, ids=[query or "all" for query, _ in LISTED])
def test_a_list_has_the_rows_that_are_asked_for(
    client: httpx2.Client, query: str, ids: str, dialect: dict[str, str]
) -> None:
    told = client.get(f"/tables/letters?{quote(query, safe='$&=+')}", headers=dialect).json()

    rows = told if dialect else told["items"]
    assert "".join(row["id"] for row in rows) == ids


@pytest.mark.parametrize(
    ("headers", "select", "names"),
    [
        (V3, "n", ["n"]),
        (V3, "ID,updatedat,version", ["id", "updatedAt", "version"]),
        (V2, "id,version,updatedAt", ["id", "updatedAt", "version"]),
        (V2, "createdAt,deleted", ["createdAt", "deleted"]),
        (V2, "*", ["id", "n", "createdAt", "updatedAt", "version", "deleted"]),
    ],
    ids=str,
)
def test_select_shows_just_these_columns(
    client: httpx2.Client, headers: dict[str, str], select: str, names: list[str]
) -> None:
    told = client.get(f"/tables/letters?$select={select}&$top=1", headers=headers).json()

    assert list((told if headers else told["items"])[0]) == names


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A server of the letters whose pages have four rows."""
    database = built("sqlite", tmp_path_factory.mktemp("small") / "small.db")
    with (
        serve(database, tables=["letters"], track=True, page_rows=4) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        yield client


def test_v3_pages_follow_a_query_string(small: httpx2.Client) -> None:
    seen, links = [], ["$filter=n ge 1&$orderby=n desc&$top=7&$count=true"]
    while links[-1] is not None:
        told = small.get(f"/tables/letters?{links[-1]}").json()
        seen.append("".join(row["id"] for row in told["items"]))
        links.append(told["nextLink"])
        assert told["count"] == 9

    assert seen == ["jihg", "fed"]
    assert links[1:] == ["$filter=n%20ge%201&$orderby=n%20desc&$count=true&$skip=4&$top=3", None]


def test_v2_pages_follow_a_link_that_can_be_followed(small: httpx2.Client) -> None:
    seen, link = [], f"{small.base_url}/tables/letters?$filter=n%20ge%201"
    while link:
        response = small.get(link, headers=V2)
        seen.append("".join(row["id"] for row in response.json()))
        found = re.fullmatch(
            r"<(http://127\.0\.0\.1:\d+/tables/letters\?.*)>; rel=next", response.headers.get("link", "")
        )
        link = found[1] if found else ""

    assert seen == ["bcde", "fghi", "j"]


def test_v2_takes_a_larger_page_than_its_own_and_v3_does_not(small: httpx2.Client) -> None:
    v2 = small.get("/tables/letters?$top=9", headers=V2)
    v3 = small.get("/tables/letters?$top=9").json()

    assert len(v2.json()) == 9
    assert v2.headers["link"].endswith("$skip=9&$top=9>; rel=next")
    assert (len(v3["items"]), v3["nextLink"]) == (4, "$skip=4&$top=5")


@pytest.mark.parametrize(("preferred", "applied", "rows"), [
    ("maxpagesize=7", "maxpagesize=7", 7), ("return=minimal, odata.maxpagesize=9", "maxpagesize=9", 9),
    ("maxpagesize=99999", "maxpagesize=10000", 10), ("maxpagesize=0", None, 4), ("maxpagesize=x", None, 4),
    ("other=7", None, 4),
])  # fmt: skip
def test_v3_has_longer_pages_for_who_prefers_them(
    small: httpx2.Client, preferred: str, applied: str | None, rows: int
) -> None:
    plain = small.get("/tables/letters", headers={"prefer": preferred})
    topped = small.get("/tables/letters?$top=5", headers={"prefer": preferred})

    assert (len(plain.json()["items"]), plain.headers.get("preference-applied")) == (rows, applied)
    assert len(topped.json()["items"]) == min(5, rows)


def test_pages_have_50_rows_in_v2_and_100_in_v3(tmp_path: Path) -> None:
    rows = (
        "insert into many with recursive n(i) as (select 1 union all select i + 1 from n where i < 101) select i from n"
    )
    database = built("sqlite", tmp_path / "many.db", ["create table many (id integer primary key)", rows])
    with serve(database, track=True) as server, httpx2.Client(base_url=server.url) as client:
        v2 = client.get("/tables/many", headers=V2)
        v3 = client.get("/tables/many").json()

    assert (len(v2.json()), len(v3["items"]), v3["nextLink"]) == (50, 100, "$skip=100")
    assert v2.headers["link"].endswith("?$skip=50&$top=50>; rel=next")


@pytest.mark.parametrize(
    ("headers", "query", "is_there"),
    [
        (V3, "", False),
        (V3, "&__includedeleted=true", True),
        (V3, "&__INCLUDEDELETED=True", True),
        (V3, "&__includedeleted=false", False),
        (V3, "&__includedeleted=1", False),
        (V2, "", False),
        (V2, "&__includeDeleted=true", True),
        (V2, "&__includeDeleted=false", True),
        (V2, "&__includeDeleted=", False),
    ],
    ids=str,
)
def test_deleted_rows_are_listed_when_asked_for(
    client: httpx2.Client, new: Callable[..., dict[str, Any]], headers: dict[str, str], query: str, is_there: bool
) -> None:
    row = new(title="bread")
    client.delete(f"/tables/todo/{row['id']}")

    told = client.get(f"/tables/todo?$filter=id eq '{row['id']}'{query}", headers=headers).json()

    rows = told if headers else told["items"]
    assert [(r["id"], r["title"], r["deleted"]) for r in rows] == ([(row["id"], "bread", True)] if is_there else [])


# Rows, v3


def test_v3_insert_answers_with_the_row(client: httpx2.Client) -> None:
    response = client.post("/tables/todo", json={"id": "i-1", "title": "milk", "n": 7})

    row = response.json()
    assert response.status_code == 201
    assert list(row) == ["id", "title", "n", "done", "code", "list", "updatedAt", "version", "deleted"]
    assert (row["id"], row["title"], row["n"], row["done"], row["deleted"]) == ("i-1", "milk", 7, None, False)
    assert response.headers["etag"] == f'"{row["version"]}"'
    assert response.headers["location"] == f"{client.base_url}/tables/todo/i-1"
    assert response.headers["content-type"] == "application/json"
    assert client.get("/tables/todo/i-1").json() == row


def test_v3_makes_an_id_of_32_digits(client: httpx2.Client) -> None:
    for id_ in ({}, {"id": None}, {"id": ""}):
        made = client.post("/tables/todo", json={"title": "x", **id_}).json()["id"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)


@pytest.mark.parametrize("dialect", [V3, V2], ids=["v3", "v2"])
def test_insert_where_a_row_is_shows_that_row(
    client: httpx2.Client, new: Callable[..., dict[str, Any]], dialect: dict[str, str]
) -> None:
    row = new(title="theirs")

    response = client.post("/tables/todo", json={"id": row["id"], "title": "mine"}, headers=dialect)

    assert (response.status_code, response.json()["title"]) == (409, "theirs")
    assert response.headers["etag"] == f'"{row["version"]}"'


def test_insert_over_a_deleted_row_shows_its_tombstone(
    client: httpx2.Client, new: Callable[..., dict[str, Any]]
) -> None:
    row = new(title="old")
    client.delete(f"/tables/todo/{row['id']}")

    response = client.post("/tables/todo", json={"id": row["id"], "title": "new"})

    assert (response.status_code, response.json()["deleted"], response.json()["title"]) == (409, True, "old")
    assert response.headers["etag"] == f'"{response.json()["version"]}"'


def test_v3_replaces_the_whole_row(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    row = new(n=5, done=True)

    response = client.put(f"/tables/todo/{row['id']}", json={"id": row["id"], "title": "bread", "n": 6})

    replaced = response.json()
    assert response.status_code == 200
    assert (replaced["title"], replaced["n"], replaced["done"]) == ("bread", 6, None)
    assert replaced["version"] != row["version"]
    assert response.headers["etag"] == f'"{replaced["version"]}"'


def test_v3_takes_the_server_s_own_body_back(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    row = new(done=False)

    response = client.put(f"/tables/todo/{row['id']}", json=row, headers={"if-match": f'"{row["version"]}"'})

    same = {name: value for name, value in row.items() if name not in ("version", "updatedAt")}
    assert response.status_code == 200
    assert {name: response.json()[name] for name in same} == same


def test_v3_deletes_without_a_body_and_then_the_row_is_gone(
    client: httpx2.Client, new: Callable[..., dict[str, Any]]
) -> None:
    path = f"/tables/todo/{new()['id']}"

    deleted, again, read = client.delete(path), client.delete(path), client.get(path)

    assert (deleted.status_code, deleted.content, again.status_code, read.status_code) == (204, b"", 410, 410)
    shown = client.get(f"{path}?__includedeleted=true")
    assert (shown.status_code, shown.json()["deleted"], shown.json()["title"]) == (200, True, "milk")


def test_v3_undeletes_by_a_put(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    path = f"/tables/todo/{new(done=True)['id']}"
    client.delete(path)
    gone = client.get(f"{path}?__includedeleted=true")

    refused = client.put(path, json={"title": "new"})
    stale = client.put(f"{path}?__includedeleted=true", json={"title": "new"}, headers={"if-match": '"0"'})
    back = client.put(
        f"{path}?__includedeleted=true", json={**gone.json(), "deleted": False, "title": "new", "done": None},
        headers={"if-match": gone.headers["etag"]},
    )  # fmt: skip

    assert (refused.status_code, stale.status_code, back.status_code) == (410, 412, 200)
    assert (back.json()["title"], back.json()["done"], back.json()["deleted"]) == ("new", None, False)
    assert client.get(path).json() == back.json()


# Rows, v2


def test_v2_insert_answers_with_the_row(client: httpx2.Client) -> None:
    response = client.post("/tables/todo", json={"title": "milk"}, headers=V2)

    row = response.json()
    assert response.status_code == 201
    assert list(row)[-4:] == ["createdAt", "updatedAt", "version", "deleted"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", row["id"])
    assert response.headers["etag"] == f'"{row["version"]}"'


def test_v2_changes_the_columns_that_are_sent(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    row = new(n=5, done=True)

    response = client.patch(f"/tables/todo/{row['id']}", json={"n": 6}, headers=V2)

    changed = response.json()
    assert response.status_code == 200
    assert (changed["title"], changed["n"], changed["done"]) == ("milk", 6, True)
    assert response.headers["etag"] == f'"{changed["version"]}"' != f'"{row["version"]}"'


def test_v2_changes_by_the_id_in_the_body(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    row = new()

    response = client.patch("/tables/todo", json={"id": row["id"], "n": 9}, headers=V2)

    assert (response.status_code, response.json()["n"]) == (200, 9)


def test_v2_changes_nothing_by_an_empty_body(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    row = new()

    response = client.patch(f"/tables/todo/{row['id']}", json={}, headers=V2)

    assert (response.status_code, response.json()["version"]) == (200, row["version"])


def test_v2_takes_a_version_in_the_body_for_a_condition(
    client: httpx2.Client, new: Callable[..., dict[str, Any]]
) -> None:
    row = new()
    path = f"/tables/todo/{row['id']}"

    right = client.patch(path, json={"n": 2, "version": row["version"]}, headers=V2)
    stale = client.patch(path, json={"n": 3, "version": row["version"]}, headers=V2)
    # A header goes first.
    headed = client.patch(
        path, json={"n": 4, "version": row["version"]}, headers={**V2, "if-match": right.headers["etag"]}
    )

    assert (right.status_code, stale.status_code, headed.status_code) == (200, 409, 200)
    assert (stale.json()["n"], stale.headers["etag"]) == (2, right.headers["etag"])


def test_v2_deletes_with_a_body_and_undeletes(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    row = new(n=5)
    path = f"/tables/todo/{row['id']}"

    deleted = client.delete(path, headers=V2)
    again, read = client.delete(path, headers=V2), client.get(f"{path}?__includeDeleted=true", headers=V2)
    stale = client.post(path, headers={**V2, "if-match": '"0"'})
    back = client.post(path, headers={**V2, "if-match": deleted.headers["etag"]})
    more = client.post(path, headers=V2)

    assert (deleted.status_code, deleted.json()["deleted"], deleted.json()["n"]) == (200, True, 5)
    # Done already; of a 404 the JavaScript client would make a failure that it never gets past.
    assert (again.status_code, again.headers["etag"]) == (200, deleted.headers["etag"])
    assert (read.status_code, told(read)) == (404, "The item does not exist")
    assert (stale.status_code, stale.headers["etag"]) == (412, deleted.headers["etag"])
    assert (back.status_code, back.json()["deleted"], back.json()["n"], back.json()["title"]) == (201, False, 5, "milk")
    assert back.headers["etag"] not in (deleted.headers["etag"], f'"{row["version"]}"')
    assert (more.status_code, more.headers["etag"]) == (201, back.headers["etag"])


# Both


@pytest.mark.parametrize(("method", "dialect"), [("PUT", V3), ("DELETE", V3), ("PATCH", V2), ("DELETE", V2)], ids=str)
def test_a_stale_version_is_answered_with_the_row(
    client: httpx2.Client, new: Callable[..., dict[str, Any]], method: str, dialect: dict[str, str]
) -> None:
    row = new()
    path = f"/tables/todo/{row['id']}"
    now = client.put(path, json={"title": "theirs"})

    response = client.request(
        method, path, json={"title": "mine"}, headers={**dialect, "if-match": f'"{row["version"]}"'}
    )

    assert (response.status_code, response.json()["title"]) == (412, "theirs")
    assert response.headers["etag"] == now.headers["etag"]
    assert client.get(path).json()["title"] == "theirs"


def test_without_a_version_the_last_writer_wins(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    path = f"/tables/todo/{new()['id']}"

    statuses = [client.put(path, json={"title": title}).status_code for title in ("first", "second")]

    assert (statuses, client.get(path).json()["title"]) == ([200, 200], "second")


def test_of_writers_at_once_with_a_version_no_change_is_lost(
    client: httpx2.Client, new: Callable[..., dict[str, Any]]
) -> None:
    path = f"/tables/todo/{new(n=0)['id']}"

    def count(dialect: dict[str, str]) -> int:
        done = 0
        while done < 5:
            row = client.get(path).json()
            method, body = ("PATCH", {}) if dialect else ("PUT", row)
            headers = {**dialect, "if-match": f'"{row["version"]}"'}
            response = client.request(method, path, json={**body, "n": row["n"] + 1}, headers=headers)
            assert response.status_code in (200, 412)
            done += response.status_code == 200
        return done

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(count, [V2, V3, V2, V3])) == 20
    assert client.get(path).json()["n"] == 20


@pytest.mark.parametrize("dialect", [V3, V2], ids=["v3", "v2"])
def test_what_a_constraint_refuses_says_which(
    client: httpx2.Client, new: Callable[..., dict[str, Any]], dialect: dict[str, str]
) -> None:
    taken = f"code{new()['id']}"
    new(code=taken)

    answers = [
        client.post("/tables/todo", json={"title": "x", **values}, headers=dialect)
        for values in ({"code": taken}, {"n": -1}, {"list": "nowhere"}, {"title": None})
    ]

    assert [answer.status_code for answer in answers] == [400] * 4
    assert [answer.json()["code"] for answer in answers] == ["unique", "check", "reference", "not null"]
    assert answers[3].json()["column"] == "title"
    assert all(told(answer) for answer in answers)


@pytest.mark.parametrize("dialect", [V3, V2], ids=["v3", "v2"])
def test_an_unknown_column_is_refused_unless_it_says_nothing(client: httpx2.Client, dialect: dict[str, str]) -> None:
    empty = client.post("/tables/todo", json={"title": "x", "color": None}, headers=dialect)
    full = client.post("/tables/todo", json={"title": "x", "color": "red"}, headers=dialect)

    assert (empty.status_code, "color" in empty.json()) == (201, False)
    assert (full.status_code, full.json()["column"]) == (400, "color")


def test_names_are_taken_in_any_case(client: httpx2.Client) -> None:
    row = client.post("/tables/todo", json={"TITLE": "x", "N": 3}).json()

    assert (row["title"], row["n"]) == ("x", 3)


def test_v3_ignores_the_system_columns_of_a_body_and_v2_refuses_them(client: httpx2.Client) -> None:
    body = {"title": "x", "updatedAt": "2001-01-01T00:00:00Z", "createdAt": "2001-01-01T00:00:00Z"}

    v3 = client.post("/tables/todo", json={**body, "version": "mine", "deleted": False})
    v2 = client.post("/tables/todo", json=body, headers=V2)

    assert v3.status_code == 201
    assert moment(v3.json()["updatedAt"]).year > 2001
    assert v3.json()["version"] != "mine"
    assert v2.status_code == 400
    assert "reserved" in told(v2)


def test_id_and_version_are_taken_in_any_case_too(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    row = new()

    made = client.post("/tables/todo", json={"ID": f"{row['id']}-2", "title": "x"})
    other = client.put(f"/tables/todo/{row['id']}", json={"Id": "other", "title": "x"})
    stale = client.patch(f"/tables/todo/{row['id']}", json={"Version": "0", "n": 2}, headers=V2)

    assert (made.json()["id"], other.status_code, stale.status_code) == (f"{row['id']}-2", 400, 409)


def test_a_key_that_is_spelt_otherwise_stands_beside_its_id(client: httpx2.Client) -> None:
    made = client.post("/tables/spelt", json={"Id": "k", "name": "x"}).json()

    again = client.put("/tables/spelt/k", json={**made, "name": "y"})

    assert (made["id"], made["Id"]) == ("k", "k")
    assert (again.status_code, again.json()["name"]) == (200, "y")
    assert client.put("/tables/spelt/k", json={**made, "Id": "other"}).status_code == 400


def test_head_is_get_without_its_body(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    path = f"/tables/todo/{new()['id']}"
    read, head = client.get(path), client.head(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == read.headers["etag"]
    assert head.headers["content-length"] == read.headers["content-length"]


def test_options_says_what_is_done_there(client: httpx2.Client) -> None:
    allowed = {
        (path, bool(dialect)): client.options(path, headers=dialect).headers["allow"]
        for path in ("/tables/todo", "/tables/todo/a")
        for dialect in (V3, V2)
    }

    assert allowed == {
        ("/tables/todo", False): "GET, HEAD, POST, OPTIONS",
        ("/tables/todo", True): "GET, HEAD, POST, PATCH, OPTIONS",
        ("/tables/todo/a", False): "GET, HEAD, PUT, DELETE, OPTIONS",
        ("/tables/todo/a", True): "GET, HEAD, PATCH, POST, DELETE, OPTIONS",
    }


# Conditions


NOON = dt.datetime(2020, 1, 1, 12, 0, 0, 600_000, tzinfo=dt.UTC)
BEFORE, AT, AFTER = (f"Wed, 01 Jan 2020 {time} GMT" for time in ("11:59:59", "12:00:00", "12:00:01"))


@pytest.mark.parametrize(
    ("headers", "read", "written"),
    [
        ({}, None, None),
        ({"if-match": '"v1"'}, None, None),
        ({"if-match": '"v2"'}, 412, 412),
        ({"if-match": "*"}, None, None),
        ({"if-match": '"v2", "v1"'}, None, None),
        ({"if-match": 'W/"v1"'}, 412, 412),
        ({"if-match": '"v2" , W/"v1","v1"'}, None, None),
        ({"if-none-match": '"v1"'}, 304, 412),
        ({"if-none-match": '"v2"'}, None, None),
        ({"if-none-match": "*"}, 304, 412),
        ({"if-unmodified-since": BEFORE}, 412, 412),
        ({"if-unmodified-since": AT}, None, None),
        ({"if-unmodified-since": AFTER}, None, None),
        ({"if-modified-since": BEFORE}, None, None),
        ({"if-modified-since": AT}, 304, None),
        ({"if-modified-since": AFTER}, 304, None),
        ({"if-modified-since": "yesterday"}, None, None),
        # A tag goes before a date, and what must match before what must not.
        ({"if-match": '"v1"', "if-unmodified-since": BEFORE}, None, None),
        ({"if-none-match": '"v2"', "if-modified-since": AFTER}, None, None),
        ({"if-match": '"v2"', "if-none-match": '"v1"'}, 412, 412),
    ],
    ids=str,
)
def test_a_condition_is_held_against_the_row(headers: dict[str, str], read: int | None, written: int | None) -> None:
    conditions = Conditions.of(Headers(headers))
    row = {"version": "v1", "updatedAt": NOON}

    assert (conditions.failed(row, writes=False), conditions.failed(row, writes=True)) == (read, written)


def test_a_quote_in_a_version_is_escaped_in_its_tag() -> None:
    conditions = Conditions.of(Headers({"if-match": r'"a\"b", "c,d"'}))

    assert conditions.match == ('a"b', "c,d")


@pytest.mark.parametrize("dialect", [V3, V2], ids=["v3", "v2"])
def test_what_is_known_already_is_not_sent_again(
    client: httpx2.Client, new: Callable[..., dict[str, Any]], dialect: dict[str, str]
) -> None:
    path = f"/tables/todo/{new()['id']}"
    read = client.get(path, headers=dialect)

    by_tag = client.get(path, headers={**dialect, "if-none-match": read.headers["etag"]})
    by_date = client.get(path, headers={**dialect, "if-modified-since": read.headers["last-modified"]})

    for response in (by_tag, by_date):
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == read.headers["etag"]


def test_a_row_may_be_changed_if_it_was_not_since_it_was_read(
    client: httpx2.Client, new: Callable[..., dict[str, Any]]
) -> None:
    path = f"/tables/todo/{new()['id']}"
    seen = client.get(path).headers["last-modified"]

    right = client.put(path, json={"title": "x"}, headers={"if-unmodified-since": seen})
    late = client.put(path, json={"title": "y"}, headers={"if-unmodified-since": "Sat, 01 Jan 2000 00:00:00 GMT"})
    there = client.put(path, json={"title": "z"}, headers={"if-match": "*"})

    assert (right.status_code, late.status_code, late.json()["title"], there.status_code) == (200, 412, "x", 200)


# Ids and values


def test_a_number_for_a_key_has_a_text_id(client: httpx2.Client) -> None:
    made = client.post("/tables/numbers", json={"id": 7, "name": "seven"})
    text = client.post("/tables/numbers", json={"id": -8, "name": "eight"})

    assert (made.json()["id"], made.headers["location"]) == ("7", f"{client.base_url}/tables/numbers/7")
    assert (text.json()["id"], text.headers["location"]) == ("x-8", f"{client.base_url}/tables/numbers/x-8")
    assert client.get("/tables/numbers/x-8").json()["name"] == "eight"
    listed = client.get("/tables/numbers?$orderby=id").json()["items"]
    assert [row["id"] for row in listed] == ["x-8", "7"]


def test_a_compound_key_has_a_text_id_beside_its_columns(client: httpx2.Client) -> None:
    made = client.post("/tables/weather", json={"origin": "JFK", "hour": "2013-01-01T10:00:00Z", "temp": 1.5})
    id_ = made.json()["id"]

    assert made.status_code == 201
    assert (made.json()["origin"], made.json()["hour"]) == ("JFK", "2013-01-01T10:00:00.000Z")
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.|:-]{0,126}", id_)
    path = f"/tables/weather/{quote(id_, safe='')}"
    assert client.put(path, json={"id": id_, "temp": 2}).json()["temp"] == 2
    assert client.put(path, json={"origin": "LGA", "temp": 3}).status_code == 400
    found = client.get(f"/tables/weather?$filter=id eq '{quote(id_)}'").json()["items"]
    assert [row["temp"] for row in found] == [2]
    assert client.delete(path).status_code == 204


def test_a_name_may_have_any_characters(client: httpx2.Client) -> None:
    path = "/tables/" + quote('odd " name/%', safe="")

    made = client.post(path, json={"id": "a", 'a " b': "x"})

    assert (made.status_code, made.json()['a " b']) == (201, "x")
    assert made.headers["location"] == f"{client.base_url}{path}/a"
    assert client.get(made.headers["location"]).json() == made.json()


KINDS = [
    ("flag", True, True), ("small", -5, -5), ("whole", 2**53, 2**53), ("whole", str(2**53 + 1), str(2**53 + 1)),
    ("whole", 7.0, 7), ("big", str(2**63 - 1), str(2**63 - 1)), ("real", 0.1, 0.1), ("real", 5, 5.0),
    ("real", "INF", "INF"), ("exact", 1.5, 1.5), ("exact", "12345678901234567890.0123456789",
     "12345678901234567890.0123456789"), ("text", "é'\"\u0000\U0001f6eb", "é'\"\u0000\U0001f6eb"), ("text", "", ""),
    ("bytes", "AP8=", "AP8="), ("day", "2020-02-29", "2020-02-29"), ("clock", "10:00", "10:00:00.000"),
    ("clock", "10:00:00.123456", "10:00:00.123456"), ("moment", "2020-02-29T10:00:00", "2020-02-29T10:00:00.000"),
    ("instant", "2020-02-29T10:00:00+02:00", "2020-02-29T08:00:00.000Z"),
    ("instant", "2020-02-29T10:00:00.1234560Z", "2020-02-29T10:00:00.123456Z"),
    ("guid", "00000000-0000-0000-0000-00000000000A", "00000000-0000-0000-0000-00000000000a"), ("text", None, None),
    ("doc", {"a": [1.5, None]}, '{"a":[1.5,null]}'), ("doc", "[1]", "[1]"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "sent", "shown"), KINDS, ids=[f"{k[0]} {k[1]!r}" for k in KINDS])
def test_a_value_is_stored_and_shown_exactly(client: httpx2.Client, column: str, sent: Any, shown: Any) -> None:
    made = client.post("/tables/kinds", json={column: sent})
    again = client.put(f"/tables/kinds/{made.json()['id']}", json=made.json())

    assert (made.status_code, made.json()[column]) == (201, shown)
    assert (again.status_code, again.json()[column]) == (200, shown)


# Published stamps


@pytest.mark.parametrize("dialect", [V3, V2], ids=["v3", "v2"])
def test_stamps_are_unique_and_rise_as_rows_were_written(
    client: httpx2.Client, new: Callable[..., dict[str, Any]], dialect: dict[str, str]
) -> None:
    mark = f"mark{new()['id']}"
    batch_ = [{"operation_id": f"{mark}-{n}", "kind": "insert", "key": f"{mark}-{99 - n}", "values": {"title": mark}}
              for n in range(40)]  # fmt: skip
    assert client.post("/syncframe/push", json={"table": "todo", "operations": batch_}).status_code == 200

    told = client.get(f"/tables/todo?$filter=title eq '{mark}'&$orderby=updatedAt&$top=100", headers=dialect).json()
    rows = told if dialect else told["items"]

    stamps = [row["updatedAt"] for row in rows]
    assert [row["id"] for row in rows] == [f"{mark}-{99 - n}" for n in range(40)]
    assert stamps == sorted({*stamps})
    assert len(stamps) == 40
    literal = f"datetimeoffset'{stamps[19]}'" if dialect else f"cast({stamps[19]},Edm.DateTimeOffset)"
    query = f"$filter=title eq '{mark}' and updatedAt gt {literal}&$orderby=updatedAt"
    told = client.get(f"/tables/todo?{query}", headers=dialect).json()
    assert [row["updatedAt"] for row in (told if dialect else told["items"])] == stamps[20:]


# The extension


def stream(operations: Operations) -> bytes:
    sink = io.BytesIO()
    rows = operations.rows.replace_schema_metadata({"table": operations.table})
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def made(client: httpx2.Client, table: str, *changes: Any) -> Operations:
    """A batch of operations on a table as the server describes it."""
    told = client.get(f"/syncframe/schema?table={table}").json()

    class Described:
        def schema(self, _: str) -> Schema:
            return Schema.from_json(json.dumps(told["schema"]))

    described: Any = Described()
    return batch(described, table, changes)


Part = tuple[list[dict[str, Any]], dict[str, str]]


def parts(data: bytes) -> list[list[Part]]:
    """The batches of the streams that stand in an answer, each with its rows and metadata."""
    source = pa.BufferReader(data)
    found = []
    while source.tell() < len(data):
        with pa.ipc.open_stream(source) as reader:
            batches = []
            for part in reader.iter_batches_with_custom_metadata():
                metadata = {} if part.custom_metadata is None else {
                    name.decode(): value.decode() for name, value in part.custom_metadata.items()
                }  # fmt: skip
                batches.append((part.batch.to_pylist(), metadata))
            found.append(batches)
    return found


def pushed(client: httpx2.Client, *batches: Operations, query: str = "") -> list[list[Part]]:
    response = client.post(f"/syncframe/push{query}", content=b"".join(map(stream, batches)), headers=ARROW)
    assert (response.status_code, response.headers["content-type"]) == (200, ARROW["content-type"])
    return parts(response.content)


def outcomes(streams: list[list[Part]]) -> list[dict[str, Any]]:
    return [row for batches in streams for rows, _ in batches for row in rows]


def pulled(client: httpx2.Client, table: str, **body: Any) -> list[Part]:
    response = client.post(f"/syncframe/pull?table={table}", json=body)
    assert (response.status_code, response.headers["content-type"]) == (200, ARROW["content-type"])
    (batches,) = parts(response.content)
    return batches


def test_the_extension_is_found_by_asking(client: httpx2.Client) -> None:
    told = client.get("/syncframe").json()

    assert told["syncframe"] == 1
    assert told["identity"]
    assert told["promises"] == {
        "sees_deletes": True, "sees_late_commits": True, "exact_types": True, "atomic_push": True,
    }  # fmt: skip
    assert {*told["tables"]} == {"lists", "todo", "numbers", "weather", "kinds", 'odd " name/%', "letters", "spelt"}
    assert (told["push_rows"], told["read_only"]) == (100_000, False)


def test_a_pull_brings_pages_with_their_checkpoints_and_then_the_end(client: httpx2.Client) -> None:
    *pages, end = pulled(client, "letters", where="n >= 3", columns=["n"], page_rows=4)

    assert [[row["id"] for row in rows] for rows, _ in pages if rows] == [["d", "e", "f", "g"], ["h", "i", "j"]]
    assert all(metadata["checkpoint"] for _, metadata in pages)
    assert end == ([], {"end": "1"})
    row = pages[0][0][0]
    assert list(row) == [
        "id", "n", "_syncframe_version", "_syncframe_deleted", "_syncframe_operation", "_syncframe_created",
        "_syncframe_updated", "_syncframe_left", "_syncframe_held",
    ]  # fmt: skip
    assert (row["n"], row["_syncframe_deleted"], row["_syncframe_left"]) == (3, False, False)


def test_the_next_pull_brings_changes_tombstones_and_leavers(
    client: httpx2.Client, new: Callable[..., dict[str, Any]]
) -> None:
    title = f"of {new()['id']}"
    kept, left, gone = (new(title=title, n=n) for n in (1, 2, 3))
    where = f"title = '{title}'"
    checkpoint = [m["checkpoint"] for _, m in pulled(client, "todo", where=where) if "checkpoint" in m][-1]
    client.patch(f"/tables/todo/{kept['id']}", json={"n": 10}, headers=V2)
    client.patch(f"/tables/todo/{left['id']}", json={"title": "other"}, headers=V2)
    client.delete(f"/tables/todo/{gone['id']}")

    batches = pulled(client, "todo", where=where, since=checkpoint, others=["title = 'other'", "n < 0"])

    rows = {row["id"]: row for rows, _ in batches for row in rows}
    assert {id_: (r["n"], r["_syncframe_deleted"], r["_syncframe_left"]) for id_, r in rows.items()} == {
        kept["id"]: (10, False, False), gone["id"]: (None, True, False), left["id"]: (None, False, True),
    }  # fmt: skip
    assert rows[left["id"]]["_syncframe_held"] is True
    newest = [m["checkpoint"] for _, m in batches if "checkpoint" in m][-1]
    idle = pulled(client, "todo", where=where, since=newest)
    assert [(rows, {*m}) for rows, m in idle] == [([], {"checkpoint"}), ([], {"end"})]


def test_an_answer_may_be_compressed(client: httpx2.Client) -> None:
    plain = client.post("/syncframe/pull?table=letters", json={})
    small = client.post("/syncframe/pull?table=letters&compression=lz4", json={})

    assert plain.content != small.content
    assert parts(plain.content) == parts(small.content)


def test_a_push_is_answered_operation_by_operation(client: httpx2.Client) -> None:
    first = made(client, "todo", insert("p1", title="x"), insert("p2", title="y", n=-1), insert("p3", title="z"))

    told = pushed(client, first)

    assert [(o["status"], o["code"], o["deleted"], o["r_title"]) for o in outcomes(told)] == [
        ("accepted", None, False, "x"), ("rejected", "check", True, None), ("accepted", None, False, "z"),
    ]  # fmt: skip
    assert told[0][-1] == ([], {"end": "1"})


def test_a_repeated_push_is_applied_once(client: httpx2.Client) -> None:
    (row,) = outcomes(pushed(client, made(client, "todo", insert("r1", title="x", n=1))))
    again = made(client, "todo", update("r1", row["version"], n=2), insert("r2", title="y"))
    first = outcomes(pushed(client, again))

    second = outcomes(pushed(client, again))

    assert [o["status"] for o in second] == ["accepted", "accepted"]
    assert [o["version"] for o in second] == [o["version"] for o in first]


def test_streams_of_several_tables_are_answered_in_their_order(client: httpx2.Client) -> None:
    batches = [made(client, "lists", insert("s1", name="S")), made(client, "todo", insert("s1", title="x", list="s1"))]

    told = pushed(client, *batches)

    assert [[row["status"] for row in outcomes([one])] for one in told] == [["accepted"], ["accepted"]]
    assert [one[-1] for one in told] == [([], {"end": "1"})] * 2


def test_an_atomic_push_is_all_or_nothing(client: httpx2.Client) -> None:
    bad = [made(client, "lists", insert("t1", name="T")), made(client, "todo", insert("t1", title="x", list="nowhere"))]
    good = [made(client, "lists", insert("t2", name="T")), made(client, "todo", insert("t2", title="x", list="t2"))]

    refused = pushed(client, *bad, query="?atomic=1")
    taken = pushed(client, *good, query="?atomic=1")

    assert [[row["code"] for row in outcomes([one])] for one in refused] == [[], ["reference"]]
    assert [row["status"] for row in outcomes(taken)] == ["accepted", "accepted"]
    assert [client.get(f"/tables/lists/{id_}").status_code for id_ in ("t1", "t2")] == [404, 200]


def test_text_and_whole_numbers_may_be_laid_out_otherwise(client: httpx2.Client) -> None:
    operations = made(client, "letters", insert("z", n=25))
    rows = operations.rows
    rows = rows.set_column(rows.column_names.index("k_id"), "k_id", rows["k_id"].cast(pa.string()))
    rows = rows.set_column(rows.column_names.index("l_n"), "l_n", rows["l_n"].cast(pa.int8()))

    told = outcomes(pushed(client, Operations("letters", operations.schema, rows.select(rows.column_names[::-1]))))

    assert [(o["status"], o["r_n"]) for o in told] == [("accepted", 25)]
    client.delete("/tables/letters/z")


def test_a_push_may_be_json(client: httpx2.Client) -> None:
    operations = [
        {"operation_id": "j1", "kind": "insert", "key": {"id": "j1"}, "values": {"title": "x", "n": "7"}},
        {"operation_id": "j2", "kind": "insert", "key": "j2", "values": {"title": "y", "n": 7, "done": True},
         "given": ["title", "n"]},
        {"operation_id": "j3", "kind": "delete", "key": "a", "base_version": "0"},
    ]  # fmt: skip

    told = client.post("/syncframe/push", json={"table": "todo", "operations": operations}).json()

    assert [(o["operation_id"], o["status"]) for o in told] == [
        ("j1", "accepted"),
        ("j2", "accepted"),
        ("j3", "accepted"),
    ]
    assert told[0]["row"] == {"title": "x", "n": 7, "done": None, "code": None, "list": None}
    assert (told[1]["row"]["done"], told[2]["row"], told[2]["deleted"]) == (None, None, True)


def test_rows_are_found_by_key(client: httpx2.Client, new: Callable[..., dict[str, Any]]) -> None:
    there, gone = new(title="there"), new(title="gone")
    client.delete(f"/tables/todo/{gone['id']}")
    keys = pa.table({"id": ["nobody", there["id"], gone["id"]]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, keys.schema) as writer:
        writer.write_table(keys)

    response = client.post("/syncframe/rows?table=todo", content=sink.getvalue(), headers=ARROW)

    found = outcomes(parts(response.content))
    assert [(r["id"], r["title"], r["_syncframe_deleted"]) for r in found] == [
        (there["id"], "there", False), (gone["id"], "gone", True),
    ]  # fmt: skip


def test_rows_are_read_and_counted_by_a_condition(client: httpx2.Client) -> None:
    body = {"where": "n between 2 and 7", "columns": ["n"], "order_by": [["n", True]], "limit": 3, "offset": 1}

    (read,) = parts(client.post("/syncframe/read?table=letters", json=body).content)
    count = client.post("/syncframe/count?table=letters", json={"where": "n between 2 and 7"}).json()

    assert [row["id"] for rows, _ in read for row in rows] == ["g", "f", "e"]
    assert read[-1] == ([], {"end": "1"})
    assert count == {"count": 6}


# Back ends that are not ours, or go wrong


class Wrapped:
    """A back end that passes everything on, but for what `self.before` does."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.promises = inner.promises
        self.before: Callable[[str], None] = lambda verb: None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found):
            return found

        def asked(*args: Any, **kwargs: Any) -> Any:
            self.before(name)
            return found(*args, **kwargs)

        return asked


@pytest.fixture
def wrapped(tmp_path: Path) -> Iterator[tuple[Wrapped, httpx2.Client]]:
    backend = Wrapped(open_backend(built("sqlite", tmp_path / "wrapped.db")))
    with (
        serve(backend, track=True, timeout_s=5) as server,  # type: ignore[arg-type]
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        yield backend, client


WENT_WRONG = [
    (TransientError("the file /secret/x.db is locked"), 503, "TransientError", "cannot answer now"),
    (TransientError("busy", retry_after_s=7), 503, "TransientError", "cannot answer now"),
    (AccessError("the file /secret/x.db may not be written", status=403), 403, "AccessError", "refuses"),
    (BackendError("the file /secret/x.db is broken"), 502, "BackendError", "not as agreed"),
    (SyncError("the file /secret/x.db is odd"), 502, "BackendError", "not as agreed"),
    (RuntimeError("/secret/x.db"), 500, "BackendError", "went wrong"),
]


@pytest.mark.parametrize(("error", "status", "kind", "words"), WENT_WRONG, ids=lambda value: str(value)[:30])
def test_what_goes_wrong_behind_the_server_is_answered_without_its_secrets(
    wrapped: tuple[Wrapped, httpx2.Client], caplog: pytest.LogCaptureFixture,
    error: Exception, status: int, kind: str, words: str,
) -> None:  # fmt: skip
    backend, client = wrapped

    def fail(verb: str) -> None:
        if verb in ("read", "rows", "pull"):
            raise error

    backend.before = fail
    answers = [
        client.get("/tables/letters"),
        client.get("/tables/letters/a", headers=V2),
        client.delete("/tables/letters/a"),
        client.post("/syncframe/pull?table=letters", json={}),
    ]

    for answer in answers:
        assert (answer.status_code, answer.json()["kind"]) == (status, kind)
        assert words in told(answer)
        assert "secret" not in answer.text
        assert answer.json()["id"] in caplog.text
    after = getattr(error, "retry_after_s", None) or 1
    assert [a.headers.get("retry-after") for a in answers] == [str(after) if status == 503 else None] * 4


def test_what_goes_wrong_in_the_middle_of_a_push_ends_its_stream_with_words(
    wrapped: tuple[Wrapped, httpx2.Client],
) -> None:
    backend, client = wrapped
    batches = [made(client, "lists", insert("a", name="A")), made(client, "letters", insert("z", n=1))]
    pushes = iter([None, TransientError("locked")])

    def fail(verb: str) -> None:
        if verb == "push" and (error := next(pushes)):
            raise error

    backend.before = fail
    first, second = pushed(client, *batches)

    assert [row["status"] for row in outcomes([first])] == ["accepted"]
    assert first[-1] == ([], {"end": "1"})
    (*_, (rows, metadata)) = second
    assert (rows, json.loads(metadata["error"])["kind"]) == ([], "TransientError")
    assert client.get("/tables/lists/a").status_code == 200


def test_what_takes_too_long_is_answered_and_the_server_goes_on(tmp_path: Path) -> None:
    backend = Wrapped(open_backend(built("sqlite", tmp_path / "slow.db")))
    may_go_on = threading.Event()
    with (
        serve(backend, track=True, timeout_s=2) as server,  # type: ignore[arg-type]
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        backend.before = lambda verb: may_go_on.wait(30) and None if verb == "read" else None  # type: ignore[func-returns-value]
        slow = client.get("/tables/letters")
        quick = client.get("/tables/letters/a")
        may_go_on.set()

    assert (slow.status_code, slow.headers["retry-after"]) == (503, "1")
    assert "may still be done" in told(slow)
    assert quick.status_code == 200


def test_more_requests_than_are_worked_on_are_told_to_come_again(tmp_path: Path) -> None:
    backend = Wrapped(open_backend(built("sqlite", tmp_path / "busy.db")))
    backend.inner.track(["letters"])  # type: ignore[attr-defined]
    may_go_on, begun = threading.Event(), threading.Semaphore(0)

    def wait(verb: str) -> None:
        if verb == "read":
            begun.release()
            may_go_on.wait(30)

    app = make_app(backend, tables=["letters"], limits=Limits(workers=2, waiting_max=3))  # type: ignore[arg-type]
    backend.before = wait
    with running(app) as url, ThreadPoolExecutor(3) as pool:
        held = [pool.submit(httpx2.get, f"{url}/tables/letters", timeout=60) for _ in range(3)]
        begun.acquire()
        begun.acquire()
        while app.work._busy < 3:
            time.sleep(0.01)
        refused = httpx2.get(f"{url}/tables/letters")
        may_go_on.set()
        done = [future.result().status_code for future in held]

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "too many requests" in told(refused)
    assert done == [200, 200, 200]


def test_writes_that_come_at_one_time_are_done_together_and_answered_each_for_itself(tmp_path: Path) -> None:
    backend = Wrapped(open_backend(built("sqlite", tmp_path / "together.db")))
    sizes: list[int] = []
    may_go_on, begun = threading.Event(), threading.Event()
    pushed_: Any = backend.inner.push

    def push(batch: Operations) -> Iterator[Outcomes]:
        sizes.append(len(batch))
        begun.set()
        may_go_on.wait(30)
        return iter(list(pushed_(batch)))

    backend.push = push  # type: ignore[attr-defined]
    app = make_app(backend, tables=["lists", "todo"], track=True)  # type: ignore[arg-type]
    bodies = [{"id": f"t{n}", "title": f"of {n}", "n": 4 - n} for n in range(8)]
    with running(app) as url, httpx2.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.post, "/tables/todo", json={"id": "first", "title": "alone"})
        assert begun.wait(30)
        others = [pool.submit(client.post, "/tables/todo", json=body) for body in bodies[:7]]
        gate = next(gate for (verb, _), gate in app.tables.backend._gates.items() if verb == "push")
        while len(gate._waiting) < 7:
            time.sleep(0.01)
        may_go_on.set()
        answers = [future.result() for future in others]

    assert first.result().json()["title"] == "alone"
    assert [(a.status_code, a.json().get("title"), a.json().get("code")) for a in answers] == [
        *((201, f"of {n}", None) for n in range(5)), (400, None, "check"), (400, None, "check"),
    ]  # fmt: skip
    assert sizes == [1, 7]


class running:
    """An application run by uvicorn, as somebody else would."""

    def __init__(self, app: Any, *, stall_s: float = 5.0) -> None:
        self.app = app
        self.server = Uvicorn(app, 5, 5.0, stall_s)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))

    def __enter__(self) -> str:
        self.thread.start()
        self.server.is_up.wait()
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.app.close()


def test_a_push_that_takes_long_shows_that_it_lives(tmp_path: Path) -> None:
    backend = Wrapped(open_backend(built("sqlite", tmp_path / "long.db")))
    backend.inner.track(["letters"])  # type: ignore[attr-defined]
    app = make_app(backend, tables=["letters"], limits=Limits(beat_s=0.05))  # type: ignore[arg-type]
    may_go_on = threading.Event()
    backend.before = lambda verb: may_go_on.wait(30) and None if verb == "push" else None  # type: ignore[func-returns-value]
    with running(app) as url, httpx2.Client(base_url=url, timeout=60) as client:
        body = stream(made(client, "letters", insert("z", n=1)))
        with client.stream("POST", "/syncframe/push", content=body, headers=ARROW) as response:
            came = response.iter_raw()
            received = [next(came) for _ in range(4)]
            may_go_on.set()
            received += came

    (batches,) = parts(b"".join(received))
    assert batches[:3] == [([], {})] * 3
    assert [row["status"] for rows, _ in batches for row in rows] == ["accepted"]
    assert batches[-1] == ([], {"end": "1"})


class Pages:
    """A back end of one's own with the two verbs alone: one page after another, without end."""

    def __init__(self) -> None:
        self.promises = open_backend("sqlite:///nowhere.db").promises
        self.made = 0
        self.ended = threading.Event()

    def schema(self, table: str) -> Schema:
        return Schema.of({"id": "VARCHAR", "n": "BIGINT"})

    def pull(self, table: str, query: Query, since: object, others: Sequence[Query] = ()) -> Iterator[Page]:
        try:
            while True:
                self.made += 1
                n = 1_000
                rows = {
                    "id": [f"{self.made}-{i}" for i in range(n)], "n": range(n), "_syncframe_version": ["1"] * n,
                    "_syncframe_deleted": [False] * n, "_syncframe_operation": pa.nulls(n, pa.string()),
                }  # fmt: skip
                yield Page(pa.table(rows))
        finally:
            self.ended.set()

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        yield Outcomes.of(batch, [])


def test_a_client_that_goes_away_ends_the_work() -> None:
    backend = Pages()
    with serve(backend, tables=["t"]) as server, httpx2.Client(base_url=server.url) as client:  # type: ignore[arg-type]
        with client.stream("POST", "/syncframe/pull?table=t", json={}) as response:
            next(response.iter_raw())
        assert backend.ended.wait(30)

    # A little ahead of what was taken, and no further.
    assert backend.made < 500


def test_pages_are_sent_as_they_are_made_and_not_before_they_are_taken() -> None:
    backend = Pages()
    with (
        serve(backend, tables=["t"]) as server,  # type: ignore[arg-type]
        httpx2.Client(base_url=server.url) as client,
        client.stream("POST", "/syncframe/pull?table=t", json={}) as response,
    ):
        parts_ = response.iter_raw()
        next(parts_)
        made = backend.made
        while backend.made == made:
            next(parts_)
        assert backend.made < 500


def test_a_back_end_with_two_verbs_alone_is_served_as_far_as_that_goes() -> None:
    backend = Pages()
    with serve(backend, tables=["t"]) as server, httpx2.Client(base_url=server.url) as client:  # type: ignore[arg-type]
        listed = client.get("/tables/t")
        counted = client.post("/syncframe/count?table=t", json={})
        about = client.get("/syncframe").json()

    assert (listed.status_code, counted.status_code) == (501, 501)
    assert "'read'" in told(listed)
    assert (about["identity"], about["tables"]) == (None, ["t"])
    with pytest.raises(SyncError, match="which tables it has"):
        serve(Pages())  # type: ignore[arg-type]


# Serving


@pytest.fixture
def database(tmp_path: Path) -> str:
    return built("sqlite", tmp_path / "data.db")


def test_a_server_says_where_it_is_and_nothing_secret(database: str) -> None:
    with serve(database, tables=["letters"], track=True, tokens=[TOKEN]) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        assert repr(server) == f"<syncframe server at {server.url}: letters>"
        assert TOKEN not in repr(vars(server))

    assert repr(server) == f"<syncframe server at {server.url}, closed: letters>"
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{server.url}/tables/letters")


def test_a_closed_server_leaves_its_port_and_may_be_closed_again(database: str) -> None:
    first = serve(database, track=True)
    port = int(first.url.rpartition(":")[2])
    with pytest.raises(SyncError, match=f"cannot listen on '127.0.0.1', port {port}"):
        serve(database, port=port)
    first.close()
    first.close()

    with serve(database, port=port) as second:
        assert second.url == first.url


def test_a_given_back_end_stays_open(tmp_path: Path) -> None:
    backend = open_backend(built("duckdb", tmp_path / "data.duckdb"))
    with serve(backend, track=True):
        pass

    assert backend.rows("letters", pa.table({"id": ["a"]})).num_rows == 1  # type: ignore[attr-defined]
    backend.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1", "example.net"])
def test_other_machines_are_let_in_with_tokens_only(database: str, host: str) -> None:
    with pytest.raises(AccessError, match="no tokens") as caught:
        serve(database, track=True, host=host)

    assert "secrets.token_urlsafe" in str(caught.value.hint)
    assert not open_backend(database).is_tracked("letters")  # type: ignore[attr-defined]


def test_with_tokens_any_host_will_do(database: str) -> None:
    with serve(database, track=True, host="0.0.0.0", tokens=[TOKEN]) as server:
        named = httpx2.get(f"{server.url}/tables/letters", headers={"x-zumo-auth": TOKEN, "host": "data.example.net"})

    assert named.status_code == 200


def test_a_key_is_taken_from_either_header(database: str) -> None:
    other = "another-key-of-some-length"
    with serve(database, track=True, tokens=[other, TOKEN]) as server:
        statuses = [
            httpx2.get(f"{server.url}/tables/letters", headers=headers).status_code
            for headers in (
                {"x-zumo-auth": TOKEN}, {"authorization": f"Bearer {TOKEN}"}, {"authorization": f"bearer  {other}"}, {},
            )
        ]  # fmt: skip

    assert statuses == [200, 200, 200, 401]


def test_keys_may_stand_in_a_file(database: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the notebook\n\n  {TOKEN}  \n#{TOKEN}2\n")
    for tokens in (file, str(file)):
        with serve(database, track=True, tokens=tokens) as server:
            assert httpx2.get(f"{server.url}/syncframe", headers={"x-zumo-auth": TOKEN}).status_code == 200
            assert httpx2.get(f"{server.url}/syncframe", headers={"x-zumo-auth": f"{TOKEN}2"}).status_code == 401


def test_keys_that_protect_nothing_are_refused(database: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# none yet\n")
    for tokens, words in [
        ([], "no key"), (empty, "no key"), ([TOKEN, ""], "key 2"), ([TOKEN, None], "key 2"), (["with a blank in it!"], "no header"), ([TOKEN + "é"], "no header"),
        (tmp_path / "nowhere", "cannot be read"),
    ]:  # fmt: skip
        with pytest.raises(SyncError, match=words):
            serve(database, track=True, tokens=tokens)  # type: ignore[arg-type]


def test_a_short_key_is_taken_with_a_warning_that_does_not_show_it(database: str, caplog: Any) -> None:
    with caplog.at_level("WARNING", "syncframe.server"), serve(database, track=True, tokens=["zq17"]) as server:
        assert httpx2.get(f"{server.url}/syncframe", headers={"x-zumo-auth": "zq17"}).status_code == 200

    assert "key 1 of tokens= is short enough to be guessed" in caplog.text
    assert "zq17" not in caplog.text


def test_an_untracked_table_is_refused_with_the_way_out(database: str) -> None:
    with pytest.raises(SyncError, match="'letters' not tracked") as caught:
        serve(database, tables=["letters"])
    assert "syncframe track URL letters" in str(caught.value.hint)
    with pytest.raises(SyncError, match="not tracked"):
        serve(database)

    with serve(database, tables=["letters"], track=True) as server:
        assert httpx2.get(f"{server.url}/tables/letters/a").status_code == 200
    with serve(database, tables=["letters"]):
        pass


UNFIT = [
    ("create table t (id varchar primary key, version bigint)", "its column 'version' has the name of a system column"),
    ("create table t (id varchar primary key, UPDATEDAT text)", "its column 'UPDATEDAT' has the name"),
    ("create table t (n bigint primary key, Id varchar)", "its column 'Id' is not its key"),
    ("create table t (id varchar not null, n bigint not null, primary key (id, n))", "its column 'id' is not its key"),
    ("create table t (x double primary key)", "a float is no id"),
    ("create table t (n bigint)", "primary key"),
    ("create table t (id varchar primary key, x)", "declared type"),
]


@pytest.mark.parametrize(("ddl", "words"), UNFIT, ids=[ddl for ddl, _ in UNFIT])
def test_a_table_that_cannot_be_served_is_refused_when_named_and_else_left_out(
    tmp_path: Path, ddl: str, words: str
) -> None:
    database = built("sqlite", tmp_path / "unfit.db", [ddl, "create table good (id varchar primary key)"])

    with pytest.raises(SyncError, match=re.escape(words)) as caught:
        serve(database, tables=["good", "t"], track=True)
    assert "'t'" in str(caught.value)
    with serve(database, track=True) as server:
        assert server.tables == ("good",)
        assert words in server.left_out["t"]
        assert httpx2.get(f"{server.url}/tables/t").status_code == 404


def test_a_table_that_is_not_there_is_named(database: str) -> None:
    with pytest.raises(SyncError, match="'nowhere' is not there"):
        serve(database, tables=["letters", "nowhere"], track=True)


def test_a_table_that_is_not_named_is_not_served(database: str) -> None:
    with serve(database, tables=["letters"], track=True) as server, httpx2.Client(base_url=server.url) as client:
        assert client.get("/syncframe").json()["tables"] == ["letters"]
        assert client.get("/tables/todo").status_code == 404
        assert client.post("/syncframe/pull?table=todo", json={}).status_code == 404


def test_read_only_is_no_writing(database: str) -> None:
    with serve(database, track=True, read_only=True) as server, httpx2.Client(base_url=server.url) as client:
        writes = [
            client.request(method, path, json={"n": 1}, headers=headers)
            for method, path, headers in [
                ("POST", "/tables/letters", V3), ("PUT", "/tables/letters/a", V3), ("DELETE", "/tables/letters/a", V3),
                ("PATCH", "/tables/letters/a", V2), ("POST", "/tables/letters/a", V2), ("POST", "/syncframe/push", V3),
            ]
        ]  # fmt: skip
        assert [write.status_code for write in writes] == [405] * 6
        assert client.options("/tables/letters").headers["allow"] == "GET, HEAD, OPTIONS"
        assert client.get("/tables/letters/a").json()["n"] == 0
        assert client.post("/syncframe/pull?table=letters", json={}).status_code == 200
        assert client.get("/syncframe").json()["read_only"] is True


def test_rows_that_were_deleted_long_ago_are_forgotten_when_it_starts(tmp_path: Path) -> None:
    database = built("sqlite", tmp_path / "old.db")
    backend: Any = open_backend(database)
    backend.track(["letters"])
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.execute("delete from letters where id in ('a', 'b')")
        connection.execute("update _syncframe_log_letters set updated_at = '2001-01-01T00:00:00Z' where k_id = 'a'")
        connection.commit()
    statuses = {}
    for days in (None, 90):
        with serve(database, tables=["letters"], keep_deleted_days=days) as server:
            statuses[days] = [httpx2.get(f"{server.url}/tables/letters/{id_}").status_code for id_ in "ab"]

    assert statuses == {None: [410, 410], 90: [404, 410]}


def test_the_log_has_a_line_for_each_request_and_no_values(database: str, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        serve(database, tables=["letters"], track=True, tokens=[TOKEN]) as server,
    ):
        caplog.clear()
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        logging.getLogger("httpcore2").setLevel(logging.WARNING)
        headers = {"x-zumo-auth": TOKEN}
        httpx2.get(f"{server.url}/tables/letters?$filter=id eq 'secret'", headers=headers)
        httpx2.put(f"{server.url}/tables/letters/secret", json={"n": 424242}, headers=headers)
        httpx2.get(f"{server.url}/tables/secret", headers=headers)
        httpx2.get(f"{server.url}/tables/letters", headers={"x-zumo-auth": "secret"})
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("syncframe")]

    assert [re.sub(r"\d+ ms", "n ms", line) for line in lines] == [
        "GET /tables/letters 200 n ms", "PUT /tables/letters/{id} 404 n ms", "GET ? 404 n ms", "GET ? 401 n ms",
    ]  # fmt: skip


def test_a_table_that_goes_while_it_is_served_is_not_there(tmp_path: Path) -> None:
    database = built("sqlite", tmp_path / "goes.db")
    with serve(database, tables=["letters"], track=True) as server, httpx2.Client(base_url=server.url) as client:
        with closing(sqlite3.connect(tmp_path / "goes.db")) as connection:
            connection.execute("alter table letters add column version bigint")
            connection.commit()
            odd = client.get("/tables/letters")
            connection.execute("drop table letters")
            connection.commit()
        gone = [client.get("/tables/letters/a"), client.post("/syncframe/pull?table=letters", json={})]

    assert [answer.status_code for answer in (odd, *gone)] == [404, 404, 404]
    assert "not served any more: its column 'version'" in told(odd)
    assert all(str(tmp_path) not in answer.text for answer in gone)


def test_a_column_that_comes_is_served_and_kept_by_who_does_not_know_it(tmp_path: Path) -> None:
    database = built("sqlite", tmp_path / "grows.db")
    with serve(database, tables=["letters"], track=True) as server, httpx2.Client(base_url=server.url) as client:
        client.get("/tables/letters/a")
        with closing(sqlite3.connect(tmp_path / "grows.db")) as connection:
            connection.execute("alter table letters add column name varchar default 'new'")
            connection.commit()
        body = client.get("/tables/letters/a").json()
        client.put("/tables/letters/a", json={**body, "n": 100})

        assert client.get("/tables/letters/a").json()["name"] == "new"


def test_without_its_extra_there_is_one_sentence() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; import syncframe; syncframe.serve"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert 'a server needs uvicorn\nhint: pip install "syncframe[server]"' in done.stderr


@pytest.mark.parametrize(("option", "value"), [("page_rows", 0), ("body_bytes_max", -1), ("timeout_s", 0)])
def test_an_option_that_makes_no_sense_is_refused(database: str, option: str, value: int) -> None:
    with pytest.raises(SyncError, match=option):
        serve(database, track=True, **{option: value})  # type: ignore[arg-type]


def test_the_application_may_be_run_by_any_server(database: str) -> None:
    app = make_app(open_backend(database), track=True, tokens=[TOKEN])
    assert TOKEN not in repr(app)

    with running(app) as url:
        assert httpx2.get(f"{url}/tables/letters/a", headers={"x-zumo-auth": TOKEN}).json()["id"] == "a"


def test_a_read_asks_the_back_end_for_one_row_more_than_a_page(tmp_path: Path) -> None:
    backend = Wrapped(open_backend(built("sqlite", tmp_path / "limited.db")))
    reads: list[Read] = []
    inner: Any = backend.inner
    kept = inner.read
    backend.read = lambda table, read: reads.append(read) or kept(table, read)  # type: ignore[attr-defined, func-returns-value]
    with serve(backend, tables=["letters"], track=True) as server:  # type: ignore[arg-type]
        httpx2.get(f"{server.url}/tables/letters?$top=3&$skip=2&$orderby=n desc,n,n&$select=id")

    (read,) = reads
    assert (read.limit, read.offset, len(read.order_by), read.columns, read.published) == (4, 2, 1, (), False)


class Backwards(Wrapped):
    """A back end that says of a batch what it knows last first."""

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        for part in self.inner.push(batch):
            yield Outcomes(part.rows.take(list(reversed(range(len(part))))))


def test_an_outcome_goes_to_the_one_whose_operation_it_is_in_whatever_order_it_comes(tmp_path: Path) -> None:
    backend = Backwards(open_backend(built("sqlite", tmp_path / "backwards.db")))
    app = make_app(backend, tables=["numbers"], track=True)  # type: ignore[arg-type]
    gathering = app.tables.backend
    turn = gathering._gate("push", "numbers", gathering._pushed)._turn

    def write(number: int) -> str:
        rows = Rows(gathering, "numbers")
        return str(rows.insert({"id": number, "name": f"of {number}"})["name"])

    with turn, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(write, number) for number in range(8)]
        while len(gathering._gates["push", "numbers"]._waiting) < 8:
            time.sleep(0.01)
        turn.release()
        names = [future.result() for future in futures]
        turn.acquire()
    app.close()

    assert names == [f"of {number}" for number in range(8)]


@pytest.mark.parametrize("headers", [V2, V3], ids=["v2", "v3"])
def test_links_of_a_list_by_stamps_miss_no_row_when_one_is_changed_between_two_pages(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with (
        serve(built("sqlite", tmp_path / "links.db"), tables=["letters"], track=True, page_rows=4) as server,
        httpx2.Client(base_url=server.url, headers=headers) as client,
    ):
        url, seen, counts = f"{server.url}/tables/letters?$orderby=updatedAt&$count=true&$filter=n ge 0", "", []
        while url:
            answer = client.get(url)
            told_ = answer.json()
            seen += "".join(row["id"] for row in (told_ if headers else told_["items"]))
            if headers:
                url = answer.headers.get("link", "").partition("<")[2].partition(">")[0]
            else:
                counts.append(told_["count"])
                url = told_["nextLink"] and f"{server.url}/tables/letters?{told_['nextLink']}"
            if seen == "abcd":
                client.patch("/tables/letters/b", json={"n": 77}) if headers else client.put(
                    "/tables/letters/b", json={"n": 77}
                )

    assert seen == "abcdefghijb"
    assert counts == ([] if headers else [10, 10, 10])


def test_many_who_change_one_row_at_one_time_all_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(built("sqlite", tmp_path / "hot.db"), tables=["letters"], track=True) as server:

        def write(number: int) -> list[int]:
            with httpx2.Client(base_url=server.url, timeout=60) as client:
                return [client.put("/tables/letters/a", json={"n": number}).status_code for _ in range(5)]

        with ThreadPoolExecutor(16) as pool:
            statuses = [status for told_ in pool.map(write, range(16)) for status in told_]

    assert statuses == [200] * 80


def test_the_target_of_a_request_may_be_a_whole_url(client: httpx2.Client) -> None:
    host = f"{client.base_url.host}:{client.base_url.port}"
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        line = f"GET http://{host}/tables/letters/a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(line.encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"id":"a"' in answer


def test_a_client_that_takes_nothing_is_let_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "insert into many with recursive n(i) as (select 1 union all select i + 1 from n where i < 9000) " \
        "select i, printf('%01000d', i) from n"  # fmt: skip
    database = built("sqlite", tmp_path / "stalled.db", ["create table many (id integer primary key, text text)", rows])
    app = make_app(open_backend(database), track=True, limits=Limits(stall_s=0.5))
    line = b"GET /tables/many HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: maxpagesize=10000\r\n\r\n"
    server = running(app, stall_s=0.5)
    connections = server.server.server_state.connections
    with server as url, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        connection.sendall(line)
        deadline = time.monotonic() + 20
        while not connections and time.monotonic() < deadline:
            time.sleep(0.01)
        while connections and time.monotonic() < deadline:
            time.sleep(0.05)

        assert not connections
    assert "Traceback" not in caplog.text


def test_a_slow_client_that_takes_a_little_at_a_time_gets_all(tmp_path: Path) -> None:
    rows = "insert into many with recursive n(i) as (select 1 union all select i + 1 from n where i < 9000) " \
        "select i, printf('%01000d', i) from n"  # fmt: skip
    database = built("sqlite", tmp_path / "slow.db", ["create table many (id integer primary key, text text)", rows])
    app = make_app(open_backend(database), track=True, limits=Limits(stall_s=0.5))
    line = b"POST /syncframe/pull?table=many HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" \
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"  # fmt: skip
    with running(app, stall_s=0.5) as url, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        connection.sendall(line)
        size, last = 0, b""
        while part := connection.recv(262_144):
            size, last = size + len(part), (last + part)[-5:]
            time.sleep(0.02)

    assert size > 9_000_000
    assert last == b"0\r\n\r\n"
