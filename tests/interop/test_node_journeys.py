"""Whole journeys over the real Node.js back end: what it would alter, lost answers, kills, days offline, a filter.

Its version of a row is a counter in base64, from "MQ==" (1) on: it says how often a row was written.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from faulty import Request, proxy
from node import NodeService, asked

import syncframe as sf
from syncframe.errors import BackendError, SchemaError, TransientError

spawn = multiprocessing.get_context("forkserver")
START = {"a": ("milk", 1), "b": ("bread", 2), "c": ("eggs", 3)}
FIXED = {"id": "VARCHAR", "n": "BIGINT", "extra": "VARCHAR"}
TYPES = {"items": {"n": "BIGINT", "name": "VARCHAR"}}


@pytest.fixture
def url(service: NodeService) -> str:
    """A service with three items."""
    made = service.mount()
    for key, (name, n) in START.items():
        put(made, "items", {"id": key, "name": name, "n": n})
    return made


@pytest.fixture
def context(url: str) -> Iterator[sf.SyncContext]:
    with connected(url) as made:
        yield made


@contextlib.contextmanager
def connected(url: str, store: str | Path = ":memory:", **options: Any) -> Iterator[sf.SyncContext]:
    context = sf.connect(url, store=store, **{"overlap_s": 0, "timeout_s": 5, **options})
    context["items"].pull(query_id="all", progress=False)
    yield context
    context.close()


def put(url: str, table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Insert a row, or change one, as another client would."""
    status, _, body = asked("POST", f"{url}/tables/{table}", json.dumps(row).encode())
    if status == 409:
        status, _, body = asked("PATCH", f"{url}/tables/{table}/{row['id']}", json.dumps(row).encode())
    assert status in (200, 201), body
    changed: dict[str, Any] = json.loads(body)
    return changed


def there(url: str, table: str = "items") -> dict[str, dict[str, Any]]:
    """The rows of the service, tombstones among them."""
    _, _, body = asked("GET", f"{url}/tables/{table}?$top=1000&__includeDeleted=true")
    return {row["id"]: row for row in json.loads(body)}


def items(url: str) -> dict[str, tuple[str, int]]:
    return {key: (row["name"], row["n"]) for key, row in there(url).items() if not row["deleted"]}


def shown(context: sf.SyncContext) -> dict[str, tuple[str, int]]:
    rows = context["items"].arrow().to_pylist()
    return {row["id"]: (row["name"], row["n"]) for row in sorted(rows, key=lambda row: row["id"])}


def writes(url: str) -> dict[str, int]:
    """How often each row was written."""
    return {key: int(base64.b64decode(row["version"])) for key, row in there(url).items()}


# What the service would alter

GIVEN = {"exact": "DECIMAL(38,10)", "moment": "TIMESTAMP", "clock": "TIME"}
KIND = {"id": "a", "flag": True, "whole": 1, "real": 1.5, "exact": 1.25, "instant": "2013-01-01T10:00:00.001Z"}


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("whole", 2**53 + 1, r"at most 2\*\*53"),
        ("whole", "garbage", "BIGINT"),
        ("real", float("inf"), "finite"),
        ("exact", Decimal("1234567890.1234567"), "15 digits"),
        ("instant", dt.datetime(2013, 1, 1, 10, 0, 0, 1, tzinfo=dt.UTC), "whole milliseconds"),
        ("instant", "garbage", "as datetime"),
        ("instant", "2013-02-30", "as datetime"),
        ("moment", dt.datetime(2013, 1, 1, 10, 0, 0, 1), "whole milliseconds"),
        ("clock", dt.time(10, 0, 0, 1), "whole milliseconds"),
        ("flag", "yes", "BOOLEAN"),
    ],
)
def test_a_value_that_the_service_would_alter_is_refused_when_staged(service, column, value, words):
    """Node.js answers 200 to each: 9007199254740993 is kept as ...992, microseconds are cut, "garbage" is null, "yes"
    is true."""
    url = service.mount()
    put(url, "kinds", KIND)
    context = sf.connect(url, store=":memory:", schema={"kinds": GIVEN})
    context["kinds"].pull(progress=False)

    with pytest.raises(SchemaError, match=words):
        context["kinds"].update("a", {column: value})

    assert len(context.pending) == 0
    context.close()


def test_what_the_service_does_alter_it_does_without_a_word(service):
    url = service.mount()
    sent = b'{"id":"a","whole":9007199254740993,"flag":"yes","instant":"garbage","moment":"2013-01-01T10:00:00.000"}'

    status, _, body = asked("POST", f"{url}/tables/kinds", sent)

    kept = json.loads(body)
    assert status == 201
    assert (kept["whole"], kept["flag"], kept["instant"]) == (2**53, True, None)
    assert kept["moment"] == "2013-01-01T15:00:00.000Z"  # taken for a time of its own zone: ours are sent with a Z


@pytest.mark.parametrize(("text", "kept"), [("soon", "None"), ("2013-01-01 10:00", "'2013-01-01T15:00:00.000Z'")])
def test_a_text_for_a_column_of_dates_that_was_empty_is_rejected_with_what_was_kept_of_it(service, text, kept):
    """No row had a value, so that the column was taken for one of text; Node.js answers 200."""
    url = service.mount()
    put(url, "kinds", KIND)
    context = sf.connect(url, store=":memory:", schema={"kinds": {"clock": "TIME"}})
    context["kinds"].pull(progress=False)
    context["kinds"].update("a", moment=text, text="a text")

    result = context.push(progress=False)
    (refused,) = result.rejected

    assert result.counts == {"accepted": 0, "conflicts": 0, "rejected": 1}
    assert (refused.error.code, refused.error.column) == ("type", "moment")
    assert f"was kept as {kept}" in refused.error.message
    assert context["kinds"].get("a")["moment"] == text  # here still
    context["kinds"].pull(progress=False)
    (conflict,) = context.conflicts
    assert conflict.mine["moment"] == text
    context.close()


def test_a_text_for_a_column_of_text_that_was_empty_is_kept(service):
    url = service.mount()
    put(url, "kinds", KIND)
    context = sf.connect(url, store=":memory:")
    context["kinds"].pull(progress=False)
    context["kinds"].update("a", text="soon", guid=None)

    assert context.push(progress=False).ok
    assert there(url, "kinds")["a"]["text"] == "soon"
    context.close()


@pytest.mark.parametrize("key", ["", ".", ".."])
def test_a_key_that_no_url_can_name_is_rejected_and_nothing_is_made(url, context, key):
    """Node.js gives an empty id one of its own, at every push another."""
    context["items"].insert({"id": key, "name": "salt"})
    context["items"].update("b", n=22)

    for _ in range(2):
        result = context.push(progress=False, retry_rejected=True)

    assert [operation.key for operation in result.rejected] == [key]
    assert "cannot be named in a URL" in result.rejected[0].error.message
    assert items(url) == START | {"b": ("bread", 22)}


@pytest.mark.parametrize(
    "key", ["a b/c?d+e#%", "é\U0001f6eb", "x" * 600, "a'b", "007", "a\\b", '"q"', " a ", "A", "%2F"]
)
def test_a_key_of_any_other_kind_names_its_row(url, context, key):
    context["items"].insert({"id": key, "n": 1})
    assert context.push(progress=False).ok
    context["items"].update(key, n=2)
    assert context.push(progress=False).ok
    assert there(url)[key]["n"] == 2

    context["items"].delete(key)

    assert context.sync(progress=False).pushed.ok
    assert there(url)[key]["deleted"]
    assert items(url) == shown(context) == START


def test_a_table_whose_keys_are_numbers_is_refused_in_words(url):
    """Its service makes them: an id that is sent is ignored, and another insert of it makes another row."""
    for _ in range(2):
        asked("POST", f"{url}/tables/numbered", b'{"id": 7, "name": "x"}')
    assert sorted(there(url, "numbered")) == [1, 2]

    context = sf.connect(url, store=":memory:")
    with pytest.raises(BackendError, match="no text id"):
        context["numbered"].pull(progress=False)
    context.close()


# Lost answers

FAULTS = ["refuse", "lose", "cut", "twice", "first", "503", "late"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_push_whose_answers_are_lost_is_applied_once(url, fault):
    def on_writes(request: Request) -> str:
        return fault if request.method != "GET" and is_on else ""

    is_on = False
    with proxy(url, fault=on_writes) as between, connected(between.url, timeout_s=1) as context:
        context["items"].insert({"id": "d", "name": "salt", "n": 4})
        context["items"].update("a", name="oat milk")
        context["items"].delete("c")
        is_on = True
        with contextlib.suppress(TransientError):
            context.push(progress=False)
        is_on = False
        expected = {"a": ("oat milk", 1), "b": ("bread", 2), "d": ("salt", 4)}
        assert shown(context) == expected

        result = context.push(progress=False)
        between.deliver()
        context["items"].pull(query_id="all", progress=False)

        assert (result.ok, len(context.pending), len(context.conflicts)) == (True, 0, 0)
        assert shown(context) == items(url) == expected
        assert writes(url) == {"a": 2, "b": 1, "c": 2, "d": 1}


@pytest.mark.parametrize("fault", ["lose", "cut", "twice", "first", "503"])
@pytest.mark.parametrize("at", [0, pytest.param(1, marks=pytest.mark.full)])
def test_a_row_that_was_deleted_there_comes_back_as_it_is_here_whatever_is_lost(url, fault, at):
    """Two requests, of which either may fail: the undelete and the update behind it."""
    seen: list[Request] = []

    def on_writes(request: Request) -> str:
        if request.method == "GET" or not is_on:
            return ""
        seen.append(request)
        return fault if len(seen) == at + 1 else ""

    is_on = False
    with proxy(url, fault=on_writes) as between, connected(between.url, timeout_s=1) as context:
        context["items"].update("a", name="oat milk")
        asked("DELETE", f"{url}/tables/items/a")
        context.push(progress=False)
        (conflict,) = context.conflicts
        conflict.keep_mine()
        is_on = True
        with contextlib.suppress(TransientError):
            context.push(progress=False)
        is_on = False
        for conflict in context.conflicts:
            conflict.keep_mine()  # half of it was done, and is shown as what it is

        assert context.sync(progress=False).pushed.ok
        assert shown(context) == items(url) == START | {"a": ("oat milk", 1)}
        assert len(context.conflicts) == 0


def test_a_request_that_comes_late_overwrites_nothing(url):
    held = ["late"] * 3
    with (
        proxy(url, fault=lambda request: held.pop() if request.method != "GET" and held else "") as between,
        connected(between.url, timeout_s=3) as ann,
        connected(url) as ben,
    ):
        ann["items"].update("a", name="oat milk")
        ann["items"].delete("c")
        ann["items"].insert({"id": "d", "name": "salt", "n": 4})
        with pytest.raises(TransientError):
            ann.push(progress=False)
        ben["items"].update("a", name="soy milk")
        ben["items"].update("c", n=33)
        ben["items"].insert({"id": "d", "name": "pepper", "n": 5})
        assert ben.push(progress=False).ok

        assert between.deliver() in (1, 2, 3)  # who is sent beside the first that got no answer, goes out too
        result = ann.push(progress=False)

        assert result.counts == {"accepted": 0, "conflicts": 3, "rejected": 0}
        assert items(url) == START | {"a": ("soy milk", 1), "c": ("eggs", 33), "d": ("pepper", 5)}


# Killed


def push_and_be_killed(url: str, store: Path) -> None:
    with connected(url, store) as context:
        context["items"].insert([{"id": f"k{n}", "n": n} for n in range(6)])
        context["items"].update("a", name="oat milk")
        context.push(progress=False)


def pull_and_be_killed(url: str, store: Path) -> None:
    def killed(done: int, total: int | None, what: str) -> None:
        if done >= 20:
            os.kill(os.getpid(), signal.SIGKILL)

    context = sf.connect(url, store=store, overlap_s=0)
    context["items"].pull(query_id="all", page_rows=10, progress=killed)


def test_a_process_that_is_killed_while_it_pushes_loses_and_doubles_nothing(url, tmp_path):
    child = None
    count = 0

    def kill_at_the_third(request: Request) -> str:
        nonlocal count
        count += request.method != "GET"
        if count == 3 and child is not None and child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        return ""

    with proxy(url, fault=kill_at_the_third) as between:
        child = spawn.Process(target=push_and_be_killed, args=(between.url, tmp_path / "store.duckdb"))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL

        context = sf.connect(between.url, store=tmp_path / "store.duckdb", overlap_s=0)
        expected = START | {"a": ("oat milk", 1)} | {f"k{n}": (None, n) for n in range(6)}
        assert shown(context) == expected
        assert context.sync(progress=False).pushed.ok

        assert shown(context) == items(url)
        assert writes(url) == {"a": 2, "b": 1, "c": 1} | {f"k{n}": 1 for n in range(6)}
        context.close()


def test_a_process_that_is_killed_while_it_pulls_goes_on_where_it_was(url, tmp_path):
    for n in range(57):
        put(url, "items", {"id": f"k{n:02}", "n": n})
    child = spawn.Process(target=pull_and_be_killed, args=(url, tmp_path / "store.duckdb"))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    put(url, "items", {"id": "a", "n": 100})
    asked("DELETE", f"{url}/tables/items/b")

    context = sf.connect(url, store=tmp_path / "store.duckdb", overlap_s=0)
    kept = len(context["items"])
    result = context["items"].pull(query_id="all", page_rows=10, progress=False)

    assert 10 <= kept < 60
    assert result.rows <= 60 - kept + 12  # what had come is not read again, but for what changed
    assert shown(context) == items(url)
    context.close()


# Pulls


def test_rows_of_one_stamp_are_not_missed_while_they_change_between_pages(service):
    """As in PROTOCOL.md, 3, 1: twelve rows of one stamp, pages of five, one row changed between two of them.  The
    SDKs' way, by stamp and `$skip`, misses a row for good."""
    name = "ties"
    url = service.mount(name)
    with contextlib.closing(sqlite3.connect(service.folder / f"{name}.db")) as file:
        file.executemany(
            "insert into items (id, n, name, version, createdAt, updatedAt) values (?, ?, 'x', '1', ?, ?)",
            [(f"t{n:02}", n, *["2026-01-01T10:00:00.000Z"] * 2) for n in range(12)],
        )
        file.commit()
    lists = 0

    def change(request: Request) -> str:
        nonlocal lists
        lists += 1
        if lists in (3, 5, 7, 9):
            put(url, "items", {"id": f"t{lists:02}", "n": 100 + lists})
        if lists == 6:
            asked("DELETE", f"{url}/tables/items/t00")
        return ""

    with proxy(url, fault=change) as between:
        context = sf.connect(between.url, store=":memory:", schema=TYPES, overlap_s=0)
        for where, query_id in ((None, "all"), ("n < 1000", "few")):
            for _ in range(2):
                context["items"].pull(where, query_id=query_id, page_rows=5, progress=False)

        for _ in range(2):
            context["items"].pull(query_id="all", page_rows=5, progress=False)
            context["items"].pull("n < 1000", query_id="few", page_rows=5, progress=False)
        assert shown(context) == items(url)
        assert len(items(url)) == 11
        context.close()


def test_rows_that_leave_the_filter_of_a_query_go(url):
    context = sf.connect(url, store=":memory:", schema=TYPES, overlap_s=0)
    pull = {"where": "n <= 2", "query_id": "few", "progress": False}
    context["items"].pull(**pull)
    assert sorted(shown(context)) == ["a", "b"]
    put(url, "items", {"id": "a", "n": 10})  # leaves
    put(url, "items", {"id": "c", "n": 0})  # comes
    asked("DELETE", f"{url}/tables/items/b")

    result = context["items"].pull(**pull)

    assert shown(context) == {"c": ("eggs", 0)}
    assert (result.inserted, result.deleted) == (1, 2)
    context.close()


def test_a_table_without_tombstones_shows_its_deletes_when_it_is_read_in_full(url):
    """`softDelete` off: the row is gone, and no list says so."""
    for key in "ab":
        put(url, "forgetful", {"id": key, "n": 1})
    context = sf.connect(url, store=":memory:", overlap_s=0)
    context["forgetful"].pull(query_id="all", progress=False)
    asked("DELETE", f"{url}/tables/forgetful/a")

    context["forgetful"].pull(query_id="all", progress=False)
    assert sorted(context["forgetful"].frame().index) == ["a", "b"]

    context["forgetful"].pull(query_id="all", full=True, progress=False)
    assert list(context["forgetful"].frame().index) == ["b"]
    context["forgetful"].delete("b")
    assert context.push(progress=False).ok
    assert there(url, "forgetful") == {}
    context.close()


def test_the_service_begins_the_versions_of_a_row_anew_where_it_keeps_no_tombstones(url):
    """The one way past law 6, and Node.js's own: a row that was deleted and made again has the version "MQ==" again,
    so that a change of the old one fits the new one.

        POST   /tables/forgetful     {"id":"a","n":1}                      201  ETag: "MQ=="
        DELETE /tables/forgetful/a                                         200
        POST   /tables/forgetful     {"id":"a","n":5}                      201  ETag: "MQ=="
        PATCH  /tables/forgetful/a   {"n":2}   If-Match: "MQ=="            200

    With `softDelete` the second insert is 409: there it does not happen.
    """
    tags = []
    for n in (1, 5):
        status, headers, _ = asked("POST", f"{url}/tables/forgetful", json.dumps({"id": "a", "n": n}).encode())
        tags.append((status, headers["etag"]))
        if n == 1:
            asked("DELETE", f"{url}/tables/forgetful/a")
    status, _, _ = asked("PATCH", f"{url}/tables/forgetful/a", b'{"n": 2}', If_Match='"MQ=="')

    assert tags == [(201, '"MQ=="')] * 2
    assert status == 200
    asked("DELETE", f"{url}/tables/items/a")
    assert asked("POST", f"{url}/tables/items", b'{"id": "a"}')[0] == 409


def test_what_the_database_itself_refuses_is_rejected_and_mended_by_an_edit(url):
    """Node.js answers 500 with `{"error":"SQLITE_CONSTRAINT: NOT NULL constraint failed: strict.name"}`, as to any
    trouble.  Taken for an answer that says nothing, the operation would be sent as it was for ever."""
    put(url, "strict", {"id": "a", "name": "x"})
    context = sf.connect(url, store=":memory:", timeout_s=5)
    context["strict"].pull(progress=False)
    context["strict"].insert([{"id": "b"}, {"id": "c", "name": "y"}])

    result = context.push(progress=False)
    (refused,) = result.rejected

    assert result.counts == {"accepted": 1, "conflicts": 0, "rejected": 1}
    assert (refused.key, refused.error.code, refused.error.column) == ("b", "not null", "name")
    assert sorted(there(url, "strict")) == ["a", "c"]
    context["strict"].update("b", name="z")
    assert context.push(progress=False).ok
    assert there(url, "strict")["b"]["name"] == "z"
    context.close()


def test_a_column_that_the_service_does_not_have_is_a_rejection(url):
    """`dynamicSchema` off: 500 with `SQLITE_ERROR: table fixed has no column named extra`."""
    put(url, "fixed", {"id": "a", "n": 1})
    context = sf.connect(url, store=":memory:", schema={"fixed": sf.Schema.of(FIXED, "id")}, timeout_s=5)
    context["fixed"].pull(progress=False)
    context["fixed"].insert({"id": "b", "n": 2, "extra": "x"})

    (refused,) = context.push(progress=False).rejected

    assert "no column named extra" in refused.error.message
    assert sorted(there(url, "fixed")) == ["a"]
    context.close()


# A journey


def test_days_offline_a_conflict_and_its_settlement(packages, tmp_path):
    service = NodeService(packages, tmp_path)
    try:
        url = service.mount("shop")
        for key, (name, n) in START.items():
            put(url, "items", {"id": key, "name": name, "n": n})
        with connected(url, tmp_path / "ann.duckdb", timeout_s=1) as ann, connected(url) as ben:
            df = ann["items"].frame()
            df.loc["a", "name"] = "oat milk"
            df.loc["d"] = {"n": 4, "name": "salt"}
            ann["items"].stage(df.drop("c"))
            service.close()
            with pytest.raises(TransientError):
                ann.push(progress=False)
            ann["items"].update("b", n=22)
            assert shown(ann) == {"a": ("oat milk", 1), "b": ("bread", 22), "d": ("salt", 4)}

            service.start()
            service.mount("shop")
            ben["items"].update("a", name="soy milk")
            ben["items"].update("c", n=33)
            assert ben.push(progress=False).ok
            result = ann.sync(progress=False)

            assert result.pushed.counts == {"accepted": 2, "conflicts": 2, "rejected": 0}
            assert items(url) == {"a": ("soy milk", 1), "b": ("bread", 22), "c": ("eggs", 33), "d": ("salt", 4)}
            a, c = ann.conflicts["items", "a"], ann.conflicts["items", "c"]
            assert (a.base["name"], a.mine["name"], a.theirs["name"]) == ("milk", "oat milk", "soy milk")
            assert (c.kind, c.mine, c.theirs["n"]) == ("delete", None, 33)
            a.keep_mine()
            c.take_theirs()
            assert ann.sync(progress=False).pushed.ok
            ben.sync(progress=False)

            expected = {"a": ("oat milk", 1), "b": ("bread", 22), "c": ("eggs", 33), "d": ("salt", 4)}
            assert shown(ann) == shown(ben) == items(url) == expected
            assert writes(url) == {"a": 3, "b": 2, "c": 2, "d": 1}
    finally:
        service.close()


def test_the_service_is_known_without_being_told(url):
    """`protocol="auto"` asks once, and tells its types by its rows."""
    with connected(url) as context:
        schema = context["items"].schema

    assert {column.name: column.type for column in schema.columns} == {
        "id": "VARCHAR",
        "n": "BIGINT",
        "name": "VARCHAR",
    }
