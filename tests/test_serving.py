"""A server to run: what it says of itself, how it is stopped, what it logs, and several of it over one database."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import duckdb
import httpx2
import jsonschema
import pyarrow as pa
import pytest
from faulty import Reply, Request, service
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from test_server import V2, Wrapped, running

import syncframe as sf
from syncframe.backends import open as open_backend
from syncframe.server import Limits, make_app, serve
from syncframe.server.health import ANSWER_S

KEY = "a-key-of-more-than-sixteen-letters"
HOSTILE = '<script>alert("1")</script> & {id} \'/%'
SHOP = f"""
create table todo (id text primary key, title text not null, n bigint, price dectext(10,2));
insert into todo values ('a', 'milk', 1, '1.50'), ('b', 'bread', null, null), ('c', 'salt', 9007199254740993, '0.10');
create table numbers (id integer primary key, name text);
insert into numbers values (7, 'seven');
create table weather (origin text not null, hour timestamptz not null, temp double, primary key (origin, hour));
insert into weather values ('EWR', '2013-01-01T06:00:00Z', 39.02);
create table "{HOSTILE.replace('"', '""')}" (id text primary key, "<b> & ""c" text);
"""
DOCUMENT = "/openapi.json"


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """The URL of a database with four tables, one of them named to do harm."""
    return made(tmp_path / "shop.db", SHOP)


def made(path: Path, script: str) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    open_backend(f"sqlite:///{path}").track([name for (name,) in _names(path)])  # type: ignore[attr-defined]
    return f"sqlite:///{path}"


def _names(path: Path) -> list[tuple[str]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("select name from sqlite_master where type = 'table'").fetchall()


@contextlib.contextmanager
def served(url: str, **options: Any) -> Iterator[httpx2.Client]:
    with serve(url, **options) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        yield client


def until(is_so: Callable[[], object], timeout_s: float = 20) -> None:
    ends = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


# /healthz


def test_healthz_is_answered_to_anybody_and_shows_nothing_of_the_data(shop: str) -> None:
    with served(shop, tokens=[KEY]) as client:
        got, head, live = client.get("/healthz"), client.head("/healthz"), client.get("/healthz?live")
        posted = client.post("/healthz", json={})

    assert [(answer.status_code, answer.text) for answer in (got, head, live)] == [
        (200, '{"status":"ok"}'), (200, ""), (200, '{"status":"ok"}'),
    ]  # fmt: skip
    assert got.headers["cache-control"] == "no-store"
    assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_healthz_is_503_while_the_back_end_does_not_answer_and_says_no_more(tmp_path: Path, shop: str) -> None:
    with served(shop) as client:
        first = client.get("/healthz")
        (tmp_path / "shop.db").rename(tmp_path / "elsewhere.db")
        time.sleep(1.1)  # an answer is good for a second
        gone, live = client.get("/healthz"), client.get("/healthz?live")
        (tmp_path / "elsewhere.db").rename(tmp_path / "shop.db")
        time.sleep(1.1)
        back = client.get("/healthz")

    assert [answer.status_code for answer in (first, gone, live, back)] == [200, 503, 200, 200]
    assert gone.headers["retry-after"] == "1"
    assert "shop" not in gone.text and "todo" not in gone.text


def test_healthz_waits_for_a_slow_back_end_but_not_long_and_asks_it_once_for_all(tmp_path: Path, shop: str) -> None:
    backend = Wrapped(open_backend(shop))
    may_go_on, asked = threading.Event(), []

    def identity() -> str:
        asked.append(1)
        may_go_on.wait(30)
        return "it"

    backend.identity = identity  # type: ignore[attr-defined]
    with serve(backend, tables=["todo"]) as server, ThreadPoolExecutor(8) as pool:  # type: ignore[arg-type]
        began = time.monotonic()
        slow = list(pool.map(lambda _: httpx2.get(f"{server.url}/healthz", timeout=60), range(8)))
        took_s = time.monotonic() - began
        may_go_on.set()
        until(lambda: httpx2.get(f"{server.url}/healthz").status_code == 200)

    assert {answer.status_code for answer in slow} == {503}
    assert took_s < ANSWER_S + 3
    assert len(asked) == 1


def test_a_server_that_has_all_hands_full_is_not_called_dead(tmp_path: Path, shop: str) -> None:
    backend = Wrapped(open_backend(shop))
    may_go_on = threading.Event()
    backend.before = lambda verb: may_go_on.wait(30) if verb == "read" else None
    app = make_app(backend, tables=["todo"], limits=Limits(workers=2, waiting_max=3))  # type: ignore[arg-type]
    with running(app) as url, ThreadPoolExecutor(3) as pool:
        held = [pool.submit(httpx2.get, f"{url}/tables/todo", timeout=60) for _ in range(3)]
        until(lambda: app.work._busy == 3)
        refused, health = httpx2.get(f"{url}/tables/todo"), httpx2.get(f"{url}/healthz")
        may_go_on.set()
        done = [future.result().status_code for future in held]

    assert (refused.status_code, health.status_code, done) == (503, 200, [200, 200, 200])


def test_healthz_is_503_once_the_server_is_being_stopped(shop: str) -> None:
    app = make_app(open_backend(shop))
    with running(app) as url, httpx2.Client(base_url=url) as client:
        before = client.get("/healthz").status_code
        app.stop()
        after = [client.get("/healthz"), client.get("/healthz?live"), client.get("/tables/todo/a")]

    assert before == 200
    assert [answer.status_code for answer in after] == [503, 503, 200]
    assert "being stopped" in after[0].text


# /openapi.json


def document_of(client: httpx2.Client, **headers: str) -> Any:
    return client.get(DOCUMENT, headers=headers).json()


@pytest.mark.parametrize("options", [{}, {"read_only": True}, {"tokens": [KEY]}], ids=["open", "read only", "keys"])
def test_the_document_is_valid_whatever_the_names_are(shop: str, options: dict[str, Any]) -> None:
    with served(shop, **options) as client:
        document = document_of(client, **{"x-zumo-auth": KEY})

    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    tables = {"todo", "numbers", "weather", HOSTILE}
    assert set(document["paths"]) == {"/healthz"} | {
        f"/tables/{quote(name, safe='')}{rest}" for name in tables for rest in ("", "/{id}")
    }
    verbs = {verb for item in document["paths"].values() for verb in item} - {"parameters"}
    assert verbs == ({"get"} if options.get("read_only") else {"get", "post", "put", "delete"})
    ids = [held["operationId"] for item in document["paths"].values() for held in item.values() if "responses" in held]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"\w+", id_, re.ASCII) for id_ in ids)


def test_the_document_needs_a_key_where_the_server_has_keys_and_says_how_it_is_sent(shop: str) -> None:
    with served(shop, tokens=[KEY]) as client:
        without, with_it = client.get(DOCUMENT), document_of(client, authorization=f"Bearer {KEY}")
    with served(shop) as client:
        of_all = document_of(client)

    assert without.status_code == 401
    assert with_it["security"] == [{"key": []}, {"bearer": []}]
    assert with_it["components"]["securitySchemes"]["key"] == {"type": "apiKey", "in": "header", "name": "X-ZUMO-AUTH"}
    assert "security" not in of_all and "securitySchemes" not in of_all["components"]
    assert "401" not in of_all["paths"]["/tables/todo"]["get"]["responses"]


def test_the_document_says_types_what_may_be_null_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "kinds.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            """
            create table kinds (
                id varchar primary key, n bigint, small tinyint, kind enum('a', 'b'), moment timestamptz, doc json
            )
            """
        )
        connection.execute("create table Error (id varchar primary key, must boolean not null)")
    with served(f"duckdb:///{path}", track=True) as client:
        schemas = document_of(client)["components"]["schemas"]

    columns = schemas["kinds"]["properties"]
    assert re.fullmatch(columns["id"]["pattern"], "x_c3_b6")
    assert columns["small"] == {"type": ["integer", "null"], "minimum": -128, "maximum": 127}
    assert columns["kind"] == {"type": ["string", "null"], "enum": ["a", "b", None]}
    assert columns["moment"] == {"type": ["string", "null"], "format": "date-time"}
    assert columns["n"]["anyOf"][1:] == [{"type": "string", "pattern": r"^-?\d{1,19}$"}, {"type": "null"}]
    assert columns["version"]["readOnly"]
    assert schemas["Error_2"]["properties"]["must"] == {"type": "boolean"}
    assert "error" in schemas["Error"]["properties"]


class Held:
    """A client whose answers are held against the document."""

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client
        self.document = document_of(client)
        self.seen: set[tuple[str, str, str]] = set()

    def ask(self, verb: str, table: str, id_: str | None = None, query: str = "", **options: Any) -> Any:
        path = f"/tables/{quote(table, safe='')}"
        template = path if id_ is None else f"{path}/{{id}}"
        target = path if id_ is None else f"{path}/{quote(id_, safe='')}"
        answer = self.client.request(verb.upper(), f"{target}{query}", **options)
        told = self.document["paths"][template][verb]["responses"][str(answer.status_code)]
        self.seen.add((verb, template, str(answer.status_code)))
        if "content" not in told:
            assert answer.content == b""
            return answer
        schema = told["content"]["application/json"]["schema"]
        self._validator(schema).validate(answer.json())
        for name in told.get("headers", {}):
            assert name.lower() in answer.headers
        return answer

    def takes(self, table: str, body: Any) -> bool:
        told = self.document["paths"][f"/tables/{quote(table, safe='')}"]["post"]["requestBody"]
        return bool(self._validator(told["content"]["application/json"]["schema"]).is_valid(body))

    def _validator(self, schema: Any) -> Any:
        whole = {"components": self.document["components"], "allOf": [schema]}
        return Draft202012Validator(whole, format_checker=jsonschema.FormatChecker())


def test_what_is_answered_is_what_the_document_says(shop: str) -> None:
    with served(shop, page_rows=2) as client:
        held = Held(client)
        rows = [("todo", {"id": "new", "title": "tea", "n": str(2**62), "price": 2.5}), ("numbers", {"id": 8, "name": None}),
                ("weather", {"origin": "JFK", "hour": "2013-01-01T07:00:00Z", "temp": "INF"}),
                (HOSTILE, {"id": "x_c3_b6_2f_c3_bc", '<b> & "c': "x"})]  # fmt: skip
        for table, row in rows:
            assert held.takes(table, row)
            made_ = held.ask("post", table, json=row)
            assert made_.status_code == 201
            id_, etag = made_.json()["id"], made_.headers["etag"]
            assert held.ask("post", table, json=row).status_code == 409
            assert held.ask("get", table, id_).json() == made_.json()
            assert held.ask("get", table, id_, headers={"if-none-match": etag}).status_code == 304
            for query in (
                "",
                "?$count=true&$top=1",
                "?$select=id,version",
                "?$orderby=updatedAt",
                "?$filter=id eq 'a'",
            ):
                assert held.ask("get", table, query=query).status_code == 200
            assert held.ask("get", table, query="?$filter=nothing eq 1").status_code == 400
            changed = held.ask("put", table, id_, json=made_.json(), headers={"if-match": etag})
            assert changed.status_code == 200
            stale = held.ask("put", table, id_, json=made_.json(), headers={"if-match": '"stale"'})
            assert (stale.status_code, stale.json()["id"]) == (412, id_)
            assert held.ask("delete", table, id_, headers={"if-match": '"stale"'}).status_code == 412
            assert held.ask("put", table, id_, content=b"x").status_code == 415
            assert held.ask("delete", table, id_).status_code == 204
            assert [held.ask(verb, table, id_).status_code for verb in ("get", "delete")] == [410, 410]
            assert held.ask("get", table, id_, "?__includedeleted=true").json()["deleted"]
            assert held.ask("put", table, "nobody", json={}).status_code == 404

        assert (
            held.ask("post", "todo", content=b"x" * 2**21, headers={"content-type": "application/json"}).status_code
            == 413
        )
    assert len(held.seen) > 50


@pytest.mark.parametrize(
    "body",
    [{"id": "x"}, {"id": "x", "title": 7}, {"id": "x", "title": None}, {"id": "x", "title": "t", "n": 1.5},
     {"id": "x", "title": "t", "n": 2**64}, {"id": "x", "title": "t", "nothing": 1}, {"id": ["x"], "title": "t"},
     {"id": "x", "title": "t", "deleted": True}],
    ids=str,
)  # fmt: skip
def test_what_the_document_does_not_take_the_server_does_not_take(shop: str, body: Any) -> None:
    """But for a column that must have a value and is not sent: it may have a default, of which nobody says."""
    with served(shop) as client:
        is_taken, answer = Held(client).takes("todo", body), client.post("/tables/todo", json=body)

    assert answer.status_code in (400, 409)
    assert is_taken == ("title" not in body)


def test_a_column_that_comes_is_in_the_document_and_a_table_that_goes_is_not(tmp_path: Path, shop: str) -> None:
    with served(shop) as client:
        with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
            connection.execute("alter table todo add column extra text")
            connection.execute("drop table numbers")
            connection.commit()
        document = document_of(client)
        page = client.get("/").text

    assert "extra" in document["components"]["schemas"]["todo"]["properties"]
    assert "/tables/numbers" not in document["paths"]
    assert "extra" in page and "numbers" not in page


# / for a person


class Page(HTMLParser):
    """What a browser makes of a page: its tags, its text, and what it would load or run."""

    def __init__(self, answer: httpx2.Response) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.style = ""
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "style", "onload", "onclick")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1] == "style" and not self.style:
            self.style = data
        else:
            self.text += data


def test_the_page_shows_tables_rows_columns_and_how_to_connect(shop: str) -> None:
    with served(shop, read_only=True) as client:
        answer = client.get("/")
        head = client.head("/")
        page = Page(answer)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(answer.content)))
    assert "4 tables, to be read from this machine, without a key." in page.text
    assert "todo3id VARCHAR (key), title VARCHAR, n BIGINT, price DECIMAL(10,2)" in page.text
    assert "weather1origin VARCHAR (key), hour TIMESTAMPTZ (key), temp DOUBLE" in page.text
    assert f'ctx = sf.connect("{str(client.base_url).rstrip("/")}", store="mine.duckdb")' in page.text
    assert f"syncframe {sf.__version__}" in page.text


def test_the_lines_of_the_page_connect_by_the_address_that_was_asked(tmp_path: Path, shop: str) -> None:
    with serve(shop, tables=["todo"]) as server:
        port = urlsplit(server.url).port
        page = Page(httpx2.get(f"http://localhost:{port}/"))
        code = re.search(r"import syncframe.*?\.pull\(\)", page.text, re.DOTALL)
        assert code is not None
        assert f"http://localhost:{port}" in code[0]
        done = subprocess.run(
            [sys.executable, "-c", f"{code[0]}\nprint(len(ctx['todo']))"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    assert done.stdout.splitlines()[-1:] == ["3"], done.stderr


def test_names_are_escaped_and_nothing_is_loaded_or_run(shop: str) -> None:
    with served(shop) as client:
        answer = client.get("/")
    page, policy = Page(answer), answer.headers["content-security-policy"]

    assert HOSTILE in page.text and '<b> & "c' in page.text
    assert {"script", "b", "img", "link", "iframe"}.isdisjoint(page.tags)
    assert page.links == ["openapi.json", "healthz"]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert "frame-ancestors 'none'" in policy


def test_with_keys_the_page_shows_nothing_but_how_to_see_it(shop: str) -> None:
    with served(shop, tokens=[KEY]) as client:
        closed, wrong = client.get("/"), client.get("/", headers={"x-zumo-auth": "wrong"})
        command = re.search(r"curl .*? > ", Page(closed).text)
        shown = client.get("/", headers={"x-zumo-auth": KEY}).text
        methods = [client.post("/").status_code, client.post("/", headers={"x-zumo-auth": KEY}).status_code]

    assert (closed.status_code, wrong.status_code, methods) == (200, 401, [405, 405])
    assert "www-authenticate" not in closed.headers
    assert command is not None and "X-ZUMO-AUTH: $KEY" in command[0]
    assert [word for word in ("todo", "weather", "milk", sf.__version__, KEY) if word in closed.text] == []
    assert "todo" in shown and "with a key" in shown and KEY not in shown


@pytest.mark.parametrize("path", ["//", "/?", "/./", "/healthz/x", "//healthz", "/%2f", "/tables/todo/../../"])
def test_no_spelling_of_an_open_path_opens_anything_else(shop: str, path: str) -> None:
    with serve(shop, tokens=[KEY]) as server:
        parts = urlsplit(server.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:  # type: ignore[arg-type]
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            came = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert b"todo" not in came.partition(b"\r\n\r\n")[2]
    assert came.split(b" ")[1] in (b"401", b"200")


def test_a_count_that_takes_long_is_left_out_and_the_page_comes(shop: str) -> None:
    backend = Wrapped(open_backend(shop))
    may_go_on = threading.Event()
    backend.before = lambda verb: may_go_on.wait(30) if verb == "count" else None
    with serve(backend, tables=["todo"]) as server:  # type: ignore[arg-type]
        began = time.monotonic()
        first, second = httpx2.get(server.url, timeout=60), httpx2.get(server.url, timeout=60)
        took_s = time.monotonic() - began
        may_go_on.set()
        until(lambda: "todo3id" in Page(httpx2.get(server.url)).text)

    assert ["todo-id VARCHAR" in Page(answer).text for answer in (first, second)] == [True, True]
    assert took_s < 5


# The log, and processes


class Process:
    """A server in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.url = ""

    def __enter__(self) -> Process:
        assert self.process.stdout is not None and self.process.stderr is not None
        while not self.url:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            found = re.search(r"connect\('(http://.*?)'|^(http://\S+)$", line)
            self.url = (found[1] or found[2]) if found else ""
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def sign(self, sign: int) -> None:
        self.process.send_signal(sign)

    def ended(self, timeout_s: float = 30) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, err


def command(url: str, *options: str, port: int = 0) -> Process:
    return Process("-m", "syncframe", "serve", url, "--port", str(port), *options)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


SECRETS = (
    "secret-id",
    "secret-value",
    "secret-filter",
    "secret-table",
    "secret-verb",
    "SECRETMETHOD",
    "secret-key",
    KEY,
)


def asked_in_secret(url: str) -> list[str]:
    """Requests with a secret in each place where one can be; return their ids."""
    ids = []
    headers = {"x-zumo-auth": KEY}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
        for verb, path, options in (
            ("GET", "/tables/todo", {}),
            ("GET", "/tables/todo?$filter=title eq 'secret-filter'&$orderby=secret-id", {}),
            ("GET", "/tables/todo?secret-key=secret-value", {}),
            ("POST", "/tables/todo", {"json": {"id": "secret-id", "title": "secret-value"}}),
            ("GET", "/tables/todo/secret-id", {}),
            ("PUT", "/tables/todo/secret-id", {"json": {"title": 7, "n": "secret-value"}}),
            ("DELETE", "/tables/todo/secret-id", {"headers": {"if-match": '"secret-value"'}}),
            ("GET", "/tables/secret-table", {}),
            ("GET", "/secret-table?x=secret-value", {}),
            ("POST", "/syncframe/secret-verb?table=secret-table", {}),
            ("POST", "/syncframe/pull?table=todo", {"json": {"where": "title = 'secret-filter'"}}),
            ("POST", "/syncframe/count?table=secret-table", {"json": {}}),
            ("SECRETMETHOD", "/tables/todo", {}),
            ("GET", "/tables/todo", {"headers": {"x-zumo-auth": "secret-key"}}),
            ("GET", "/tables/todo", {"headers": {"x-request-id": "secret-value"}}),
            ("HEAD", "/tables/todo/a", {"headers": {"x-request-id": "0123456789abcdef-0123"}}),
            ("GET", "/healthz?x=secret-value", {}),
            ("GET", "/openapi.json?x=secret-value", {}),
        ):  # fmt: skip
            answer = client.request(verb, path, **options)  # type: ignore[arg-type]
            ids.append(answer.headers["x-request-id"])
    return ids


def test_the_log_has_a_line_of_json_for_each_request_and_nothing_that_is_secret(tmp_path: Path, shop: str) -> None:
    (tmp_path / "keys.txt").write_text(f"{KEY}\n")
    log = tmp_path / "requests.log"
    with command(shop, "--tokens", str(tmp_path / "keys.txt"), "--log", str(log)) as server:
        ids = asked_in_secret(server.url)
        server.sign(signal.SIGTERM)
        code, err = server.ended()
    text = log.read_text()
    told = lines(text)

    assert code == 0
    assert [word for word in SECRETS if word in text + err] == []
    assert [line["id"] for line in told] == ids
    assert ids[-3] == "0123456789abcdef-0123"
    assert [(line["method"], line["path"], line.get("table"), line["status"]) for line in told] == [
        ("GET", "/tables/todo", "todo", 200), ("GET", "/tables/todo", "todo", 400), ("GET", "/tables/todo", "todo", 200),
        ("POST", "/tables/todo", "todo", 201), ("GET", "/tables/todo/{id}", "todo", 200),
        ("PUT", "/tables/todo/{id}", "todo", 400), ("DELETE", "/tables/todo/{id}", "todo", 412),
        ("GET", "?", None, 404), ("GET", "?", None, 404), ("POST", "?", None, 404),
        ("POST", "/syncframe/pull", "todo", 200), ("POST", "/syncframe/count", None, 404), ("?", "?", None, 405),
        ("GET", "?", None, 401), ("GET", "/tables/todo", "todo", 200), ("HEAD", "/tables/todo/{id}", "todo", 200),
        ("GET", "/healthz", None, 200), ("GET", "/openapi.json", None, 200),
    ]  # fmt: skip
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in told)
    assert all(0 < line["ms"] < 60_000 and "cut" not in line for line in told)
    assert (told[-3]["bytes"], told[-2]["bytes"]) == (0, len('{"status":"ok"}'))


def test_the_log_s_file_may_be_moved_away_and_warnings_go_to_standard_error(tmp_path: Path, shop: str) -> None:
    log = tmp_path / "requests.log"
    with command(shop, "--log", str(log)) as server:
        httpx2.get(f"{server.url}/tables/todo/a")
        log.rename(tmp_path / "requests.log.1")
        (tmp_path / "shop.db").rename(tmp_path / "elsewhere.db")
        failed = httpx2.get(f"{server.url}/tables/todo/b")
        server.sign(signal.SIGINT)
        code, err = server.ended()
    (line,) = lines(log.read_text())

    assert (code, failed.status_code, line["status"]) == (0, 503, 503)
    assert line["error"] == failed.json()["id"]
    assert f"{line['error']}: TransientError" in err  # for who runs it, and not in the log of requests
    assert len(lines((tmp_path / "requests.log.1").read_text())) == 1


def test_a_dash_is_standard_error_and_without_the_option_nothing_is_logged(tmp_path: Path, shop: str) -> None:
    told = []
    for options in (["--log", "-"], []):
        with command(shop, *options) as server:
            httpx2.get(f"{server.url}/tables/todo/a")
            server.sign(signal.SIGTERM)
            told.append(server.ended())

    (_, with_log), (_, without) = told
    first, last = with_log.splitlines()
    assert (json.loads(first)["path"], last) == ("/tables/todo/{id}", without.strip())
    assert without == "syncframe: requests under way have 10 s to end; once more ends at once\n"


def test_a_log_that_cannot_be_written_is_said_at_once(tmp_path: Path, shop: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "syncframe", "serve", shop, "--port", "0", "--log", str(tmp_path / "no" / "where")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stderr.startswith("syncframe: the log cannot be written")) == (2, True)


# To stop


MANY = """
create table many (id integer primary key, text text);
insert into many with recursive n(i) as (select 1 union all select i + 1 from n where i < 30000)
    select i, printf('%0400d', i) from n;
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    """30,000 rows, 12 MB: more than lies between a server and a client that takes nothing."""
    return made(tmp_path_factory.mktemp("many") / "many.db", MANY)


class Pull:
    """A pull under way, of which the first bytes have come."""

    def __init__(self, url: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        self.connection.request(
            "POST", "/syncframe/pull?table=many", '{"page_rows": 1000}', {"Content-Type": "application/json"}
        )
        self.answer = self.connection.getresponse()
        self.came = self.answer.read(100_000)

    def rest(self) -> pa.Table:
        reader = pa.ipc.open_stream(self.came + self.answer.read())
        batches = []
        with contextlib.suppress(StopIteration):
            while True:
                batch, metadata = reader.read_next_batch_with_custom_metadata()
                batches.append(batch)
                self.last = dict(metadata or {})
        return pa.Table.from_batches(batches)


def takes_no_more(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5).close()
    except OSError:
        return True
    return False


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_pull_under_way_ends_whole_no_other_begins_and_then_the_process_goes(many: str, sign: int) -> None:
    with command(many, "--stop-s", "60") as server:
        pull = Pull(server.url)
        server.sign(sign)
        until(lambda: takes_no_more(server.url))
        time.sleep(0.5)
        is_there = server.process.poll() is None
        rows = pull.rest()
        ended = time.monotonic()
        code, err = server.ended()

    assert is_there
    assert (rows.num_rows, pull.last) == (30_000, {b"end": b"1"})
    assert (code, err.count("\n"), time.monotonic() - ended < 10) == (0, 1, True)


def test_what_takes_longer_than_the_limit_is_cut_and_its_client_goes_on_from_there(tmp_path: Path, many: str) -> None:
    log = tmp_path / "log"
    with command(many, "--stop-s", "1", "--log", str(log)) as server:
        pull = Pull(server.url)
        server.sign(signal.SIGTERM)
        code, _ = server.ended(15)
        pull.connection.close()
    (line,) = lines(log.read_text())

    assert (code, line["cut"], line["path"]) == (0, True, "/syncframe/pull")


def test_a_second_sign_ends_at_once(many: str) -> None:
    with command(many, "--stop-s", "60") as server:
        pull = Pull(server.url)
        server.sign(signal.SIGTERM)
        until(lambda: takes_no_more(server.url))
        is_there = server.process.poll() is None
        server.sign(signal.SIGTERM)
        code, _ = server.ended(5)
        pull.connection.close()

    assert (is_there, code) == (True, 130)


def test_what_goes_on_in_the_back_end_does_not_hold_a_server_for_ever(tmp_path: Path, shop: str) -> None:
    backend = Wrapped(open_backend(shop))
    may_go_on = threading.Event()
    backend.before = lambda verb: may_go_on.wait(30) if verb == "read" else None
    server = serve(backend, tables=["todo"], stop_s=1)  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx2.get, f"{server.url}/tables/todo", timeout=30)
        until(lambda: server._app.work._busy == 1)
        began = time.monotonic()
        server.close()
        took_s = time.monotonic() - began
        was_busy = server.is_busy
        may_go_on.set()
        with contextlib.suppress(httpx2.HTTPError):
            assert asked.result().status_code == 503

    server.close()
    assert (took_s < 6, was_busy, server.is_busy) == (True, True, False)


# Several over one database


WORKER = """
import sys
import syncframe as sf
server = sf.serve(sys.argv[1], page_rows=7)
print(server.url, flush=True)
server.wait()
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """Two processes before one file."""
    path = tmp_path_factory.mktemp("both") / "both.db"
    url = made(path, "create table todo (id text primary key, n bigint)")
    with Process("-c", WORKER, url) as first, Process("-c", WORKER, url) as second:
        yield path, [first.url, second.url]


@pytest.fixture
def two(both: tuple[Path, list[str]]) -> tuple[Path, list[str]]:
    """The same with the 100 rows k000 to k099."""
    path, _ = both
    write(path, "delete from todo")
    write(
        path,
        """
        insert into todo (id, n) with recursive n(i) as (select 0 union all select i + 1 from n where i < 99)
            select printf('k%03d', i), i from n
        """,
    )
    return both


def write(path: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute(sql)


@contextlib.contextmanager
def by_turns(urls: Sequence[str], between: Callable[[int, Request], None]) -> Iterator[Any]:
    """Requests to several servers by turns, as a balancer sends them; before each, what happens meanwhile."""
    count, lock = [0], threading.Lock()

    def answer(request: Request) -> Reply:
        with lock:
            number, count[0] = count[0], count[0] + 1
        between(number, request)
        target = urlsplit(urls[number % len(urls)])
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
        try:
            headers = {name: text for name, text in request.headers.items() if name.lower() != "connection"}
            connection.request(request.method, request.target, request.body or None, headers)
            came = connection.getresponse()
            kept = {
                name: text
                for name, text in came.getheaders()
                if name.lower() in ("content-type", "etag", "link", "date")
            }
            return Reply(came.status, came.read(), kept)
        finally:
            connection.close()

    with service(answer) as balancer:
        yield balancer


def far(path: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("select id, n from todo").fetchall())


TYPES = {"todo": {"id": "VARCHAR", "n": "BIGINT"}}


@pytest.mark.parametrize("protocol", ["auto", "v2", "v3"])
def test_pulls_whose_requests_go_to_two_processes_by_turns_miss_nothing(two: Any, protocol: str) -> None:
    """Rows come, change and go between any two requests; what came too late for one pull comes with the next."""
    path, urls = two

    def between(number: int, request: Request) -> None:
        write(path, f"insert into todo (id, n) values ('new{number:03}', {number})")
        write(path, f"update todo set n = n + 1000 where id = 'k{number % 100:03}'")
        write(path, f"delete from todo where id = 'k{99 - number % 50:03}'")

    quiet = threading.Event()
    options = {} if protocol == "auto" else {"protocol": protocol, "schema": TYPES, "overlap_s": 0}
    with (
        by_turns(urls, lambda number, request: None if quiet.is_set() else between(number, request)) as balancer,
        sf.connect(balancer.url, store=":memory:", **options) as ctx,  # type: ignore[arg-type]
    ):
        for _ in range(3):
            ctx["todo"].pull(query_id="all", progress=False)
        ctx["todo"].update("k050", n=-50)
        ctx["todo"].insert({"id": "mine", "n": 1})
        pushed = ctx.push(progress=False)
        quiet.set()
        ctx["todo"].pull(query_id="all", progress=False)
        here = {row.id: row.n for row in ctx["todo"].frame().reset_index().itertuples()}

    assert pushed.counts["rejected"] == 0
    assert here == far(path)
    assert here["mine"] == 1 and len(balancer.asked) > 6


@pytest.mark.parametrize("version", [{}, V2], ids=["v3", "v2"])
def test_the_links_of_a_list_go_on_in_the_other_process(two: Any, version: dict[str, str]) -> None:
    path, urls = two
    link, seen, pages = "$orderby=updatedAt", [], 0
    while link:
        answer = httpx2.get(f"{urls[pages % 2]}/tables/todo?{link}", headers=version)
        rows = answer.json() if version else answer.json()["items"]
        seen += [row["id"] for row in rows]
        following = answer.headers.get("link", "") if version else answer.json()["nextLink"] or ""
        link = following.partition("?")[2].partition(">")[0] if version else following
        # A row that was seen leaves its place, and those behind it move up.
        write(path, f"update todo set n = 0 where id = '{rows[0]['id']}'")
        pages += 1
        assert pages < 100

    assert set(seen) == set(far(path))
    assert pages > 14


def test_the_pages_of_a_pull_go_on_in_the_other_process(two: Any) -> None:
    path, urls = two
    held: dict[str, int] = {}
    since, pages = None, 0
    while pages < 40:
        body = {"page_rows": 7, "since": since}
        answer = httpx2.post(f"{urls[pages % 2]}/syncframe/pull?table=todo", json=body)
        reader = pa.ipc.open_stream(answer.content)
        batch, metadata = reader.read_next_batch_with_custom_metadata()
        since = dict(metadata)[b"checkpoint"].decode()
        for row in batch.to_pylist():
            held.pop(row["id"], None) if row["_syncframe_deleted"] else held.update({row["id"]: row["n"]})
        if pages < 10:
            write(path, f"update todo set n = -{pages} where id = 'k{pages:03}'")
            write(path, f"delete from todo where id = 'k{99 - pages:03}'")
            write(path, f"insert into todo values ('k2{pages:02}', {pages})")
        elif not batch.num_rows:
            break
        pages += 1

    assert held == far(path)
    assert 14 < pages < 40


def test_operations_that_reach_both_processes_are_applied_once(two: Any) -> None:
    _, urls = two
    operation = {
        "operation_id": "o1",
        "kind": "update",
        "base_version": None,
        "key": {"id": "k001"},
        "values": {"n": 7},
    }
    operation["base_version"] = httpx2.get(f"{urls[0]}/tables/todo/k001").json()["version"]
    told = [
        httpx2.post(f"{url}/syncframe/push", json={"table": "todo", "operations": [operation]}).json()[0]
        for url in urls
    ]

    assert [outcome["status"] for outcome in told] == ["accepted", "accepted"]
    assert told[0]["version"] == told[1]["version"]


def test_many_who_change_one_row_through_two_processes_lose_no_change(two: Any) -> None:
    _, urls = two

    def add(number: int) -> None:
        for _ in range(500):
            row = httpx2.get(f"{urls[number % 2]}/tables/todo/k001", timeout=60)
            body = {"id": "k001", "n": row.json()["n"] + 1}
            done = httpx2.put(
                f"{urls[number % 2]}/tables/todo/k001", json=body, headers={"if-match": row.headers["etag"]}, timeout=60
            )
            if done.status_code == 200:
                return
        raise AssertionError("never came through")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))

    assert httpx2.get(f"{urls[0]}/tables/todo/k001").json()["n"] == 13


def test_a_column_that_comes_is_known_to_both_processes_at_once(two: Any) -> None:
    path, urls = two
    before = [httpx2.get(f"{url}/tables/todo/k001").json() for url in urls]
    write(path, "alter table todo add column extra text default 'x'")

    assert [("extra" in row) for row in before] == [False, False]
    assert [httpx2.get(f"{url}/tables/todo/k001").json()["extra"] for url in urls] == ["x", "x"]
