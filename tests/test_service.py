"""The journey to a service: what a context does over HTTP that it does not do over SQL."""

from __future__ import annotations

import contextlib
import http.client
import sqlite3
import threading
from urllib.parse import urlsplit

import duckdb
import pytest
from faulty import Reply, as_json, proxy, service

import syncframe as sf
from syncframe.backends.datasync import DatasyncBackend

TYPES = {"todo": {"id": "VARCHAR", "title": "VARCHAR", "n": "BIGINT"}}
DAY_S = 24 * 3600.0
SECRET = "sesame-of-more-than-sixteen-letters"


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table todo (id text primary key, title text, n bigint)")
        rows = [(f"k{n:03}", f"a title of some length, number {n}", n) for n in range(300)]
        connection.executemany("insert into todo values (?, ?, ?)", rows)
    return path


@pytest.fixture
def url(database):
    with sf.serve(f"sqlite:///{database}", track=True) as server:
        yield server.url


def write(database, *statements):
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for sql in statements:
            connection.execute(sql)


def committed_late(database, key, n):
    """A change whose stamp is older than what was pulled, as a long transaction's."""
    write(
        database,
        f"create table kept as select stamp, updated_at from _syncframe_log_todo where k_id = '{key}'",
        f"update todo set n = {n} where id = '{key}'",
        f"update _syncframe_log_todo set (stamp, updated_at) = (select * from kept) where k_id = '{key}'",
        "drop table kept",
    )


def forgotten(database, key):
    """A delete that leaves no tombstone."""
    write(database, f"delete from todo where id = '{key}'", f"delete from _syncframe_log_todo where k_id = '{key}'")


def far(database):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute("select id, title, n from todo order by id").fetchall()


def here(ctx):
    rows = ctx["todo"].frame().reset_index()
    return [(row.id, row.title, row.n) for row in rows.itertuples()]


PLAIN = pytest.mark.parametrize("protocol", ["v2", "v3"])


@PLAIN
def test_a_full_pull_of_what_is_here_lists_versions_and_brings_what_differs(database, url, protocol):
    with sf.connect(url, store=":memory:", protocol=protocol, schema=TYPES, overlap_s=0) as ctx:
        first = ctx["todo"].pull(query_id="all")
        committed_late(database, "k007", n=-1)
        forgotten(database, "k008")
        missed = ctx["todo"].pull(query_id="all")
        full = ctx["todo"].pull(query_id="all", full=True)

        assert (missed.updated, missed.deleted) == (0, 0)
        assert (full.inserted, full.updated, full.deleted, full.unchanged) == (0, 1, 1, 298)
        assert full.bytes < first.bytes / 2
        assert here(ctx) == far(database)


@PLAIN
def test_once_a_day_a_pull_compares_all_versions_and_says_so(database, url, protocol):
    now = [1_700_000_000.0]
    backend = DatasyncBackend(url, protocol=protocol, schemas=TYPES, clock=lambda: now[0])
    with sf.connect(backend, store=":memory:") as ctx:
        ctx["todo"].pull(query_id="all")
        ctx["todo"].update("k001", n=1_000)
        forgotten(database, "k008")
        now[0] += DAY_S - 60
        before = ctx["todo"].pull(query_id="all", push_first=False)
        now[0] += 120
        after = ctx["todo"].pull(query_id="all", push_first=False)
        again = ctx["todo"].pull(query_id="all", push_first=False)

        assert (before.deleted, before.notes) == (0, [])
        assert after.deleted == 1
        assert "was last compared in full on 2023-11-14 at 22:13 UTC" in after.notes[0]
        assert again.notes == []
        assert ctx["todo"].get("k001")["n"] == 1_000
        assert len(ctx.pending) == 1


def test_what_a_service_speaks_is_remembered_in_the_store_and_a_token_is_not(database, tmp_path):
    store = tmp_path / "here.duckdb"
    with sf.serve(f"sqlite:///{database}", track=True, tokens=[SECRET]) as server:
        headers = {"X-Also-Secret": f"{SECRET}-2"}
        with sf.connect(server.url, store=store, token=SECRET, headers=headers) as ctx:
            ctx["todo"].pull(query_id="all")
            ctx["todo"].update("k001", n=5)
            ctx.push()
            shown = repr(ctx) + repr(ctx._session.backend) + repr(ctx.remote("todo"))
        with pytest.raises(sf.AccessError) as refused:
            sf.connect(server.url, store=":memory:", token=f"{SECRET}-3")["todo"].pull()

    with duckdb.connect(str(store), read_only=True) as file:
        remembered = file.sql("select value from syncframe_meta.memory").fetchall()
    assert ("extended",) in remembered
    assert SECRET not in shown + str(refused.value)
    assert SECRET.encode() not in store.read_bytes()


def test_a_context_whose_store_knows_the_dialect_asks_one_request_less(database, url, tmp_path):
    counts = []
    with proxy(url) as wire:
        for _ in range(2):
            with sf.connect(wire.url, store=tmp_path / "here.duckdb", schema=TYPES, overlap_s=0) as ctx:
                before = len(wire.asked)
                ctx["todo"].pull(query_id="all")
                counts.append(len(wire.asked) - before)

    assert counts[1] <= counts[0]


@PLAIN
def test_a_conflict_with_ones_own_lost_answer_says_so(database, url, protocol):
    """The service writes titles in capitals, so that the row is not as it was sent."""
    write(
        database,
        "create trigger shout after update on todo when new.title <> upper(new.title) "
        "begin update todo set title = upper(new.title) where id = new.id; end",
    )
    with proxy(url) as wire, sf.connect(wire.url, store=":memory:", protocol=protocol, schema=TYPES) as ctx:
        ctx["todo"].pull(query_id="all")
        ctx["todo"].update("k001", title="quiet")
        wire.fault = lambda request: "" if request.method == "GET" else "lose"
        with pytest.raises(sf.TransientError):
            ctx.push(progress=False)
        wire.fault = lambda request: ""
        result = ctx.push(progress=False)

        assert (result.counts["conflicts"], result.unsure) == (1, 1)
        assert "in 1 of them your own change may be already" in repr(result)
        ctx["todo"].conflicts.take_theirs()
        assert ctx["todo"].get("k001")["title"] == "QUIET"
        assert ctx.push().ok


def test_over_our_own_server_that_is_no_conflict(database, url):
    write(
        database,
        "create trigger shout after update on todo when new.title <> upper(new.title) "
        "begin update todo set title = upper(new.title) where id = new.id; end",
    )
    with proxy(url) as wire, sf.connect(wire.url, store=":memory:") as ctx:
        ctx["todo"].pull(query_id="all")
        ctx["todo"].update("k001", title="quiet")
        faults = iter(["lose"])
        wire.fault = lambda request: next(faults, "") if "push" in request.path else ""

        result = ctx.push(progress=False)

        assert (result.ok, result.counts["accepted"]) == (True, 1)
        assert ctx["todo"].get("k001")["title"] == "QUIET"


def test_a_push_of_all_or_nothing_goes_over_http(database, url):
    with sf.connect(url, store=":memory:") as ctx:
        ctx["todo"].pull(query_id="all")
        ctx["todo"].update("k001", n=1_000)
        ctx["todo"].update("k002", n=1_000)
        write(database, "update todo set n = 5 where id = 'k002'")

        refused = ctx.push(atomic=True)

        assert (refused.counts["accepted"], refused.counts["conflicts"]) == (0, 1)
        assert [row[2] for row in far(database)[1:3]] == [1, 5]
        ctx.conflicts.keep_mine()
        assert ctx.push(atomic=True).ok
        assert [row[2] for row in far(database)[1:3]] == [1_000, 1_000]


@PLAIN
def test_a_plain_service_cannot_push_all_or_nothing_and_nothing_is_sent(database, url, protocol):
    with sf.connect(url, store=":memory:", protocol=protocol, schema=TYPES) as ctx:
        ctx["todo"].pull(query_id="all")
        ctx["todo"].update("k001", n=1_000)

        with pytest.raises(sf.SyncError, match="all or nothing"):
            ctx.push(atomic=True)

        assert far(database)[1][2] == 1
        assert ctx.push().ok


def spoken(service_url, speaks):
    """The service as one that speaks otherwise: `speaks` holds "ours", "v2" or "v3"."""
    target = urlsplit(service_url)

    def answer(request):
        headers = {name: text for name, text in request.headers.items() if name.lower() != "zumo-api-version"}
        asked_for = "v2" if len(headers) < len(request.headers) else "v3"
        if speaks[0] != "ours" and request.path.startswith("/syncframe"):
            return Reply(404, b"Cannot GET", {"Content-Type": "text/html"})
        if speaks[0] == "v2" and asked_for == "v3":
            return as_json({"error": "An invalid API version was specified"}, 400)
        headers |= {"ZUMO-API-VERSION": "2.0.0"} if "v2" in (speaks[0], speaks[0] == "ours" and asked_for) else {}
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
        try:
            connection.request(request.method, request.target, request.body or None, headers)
            came = connection.getresponse()
            kept = {name: text for name, text in came.getheaders() if name.lower() in ("content-type", "etag", "date")}
            return Reply(came.status, came.read(), kept)
        finally:
            connection.close()

    return service(answer)


@pytest.mark.parametrize(
    ("before", "after", "reopened"),
    [
        *((*pair, True) for pair in [("ours", "v2"), ("ours", "v3"), ("v3", "v2"), ("v2", "v3"), ("v2", "ours")]),
        *((*pair, False) for pair in [("ours", "v2"), ("ours", "v3"), ("v3", "v2"), ("v3", "ours")]),
    ],
)
def test_a_service_that_speaks_otherwise_than_was_remembered_is_asked_anew(
    database, url, tmp_path, before, after, reopened
):
    speaks = [before]
    store = tmp_path / "here.duckdb"
    with spoken(url, speaks) as there, contextlib.ExitStack() as open_now:
        ctx = open_now.enter_context(sf.connect(there.url, store=store, schema=TYPES))
        ctx["todo"].pull(query_id="all")
        speaks[0] = after
        if reopened:
            ctx.close()
            ctx = open_now.enter_context(sf.connect(there.url, store=store, schema=TYPES))

        with contextlib.suppress(sf.BackendError):  # it may say so once
            ctx["todo"].pull(query_id="all")
        write(database, "update todo set n = -7 where id = 'k007'")
        ctx["todo"].pull(query_id="all")
        ctx["todo"].update("k001", n=1_000)

        assert ctx.push().ok
        assert here(ctx) == far(database)
        assert [row[2] for row in far(database) if row[0] in ("k001", "k007")] == [1_000, -7]


def test_rows_are_written_in_the_dialect_that_the_service_speaks_now(database, url, tmp_path):
    """Asked once before the first row that the other dialect's verb would have refused."""
    speaks = ["v2"]
    store = tmp_path / "here.duckdb"
    with spoken(url, speaks) as there:
        with sf.connect(there.url, store=store, schema=TYPES) as ctx:
            ctx["todo"].pull(query_id="all")
            ctx["todo"].update("k001", n=1_000)
        speaks[0] = "v3"
        with sf.connect(there.url, store=store, schema=TYPES) as ctx:
            result = ctx.push()

    assert (result.ok, result.counts["accepted"], far(database)[1][2]) == (True, 1, 1_000)


def test_a_column_that_the_server_was_given_meanwhile_stops_no_push(database, url):
    with sf.connect(url, store=":memory:") as ctx:
        ctx["todo"].pull(query_id="all")
        ctx["todo"].update("k001", n=1_000)
        ctx["todo"].insert({"id": "new", "title": "tea"})
        write(database, "alter table todo add column extra text default 'E'")

        result = ctx.push()

        assert result.counts == {"accepted": 2, "conflicts": 0, "rejected": 0}
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found = connection.execute("select id, title, n, extra from todo where id in ('k001', 'new')").fetchall()
    assert found == [("k001", "a title of some length, number 1", 1_000, "E"), ("new", "tea", None, "E")]


def test_a_column_that_is_gone_there_is_named_and_what_is_pending_stays(database, url):
    with sf.connect(url, store=":memory:") as ctx:
        ctx["todo"].pull(query_id="all")
        ctx["todo"].update("k001", n=1_000)
        ctx["todo"].update("k002", title="changed")
        write(database, "drop trigger _syncframe_rekey_todo", "alter table todo rename column n to number")
        sf.backends.open(f"sqlite:///{database}").track(["todo"])

        with pytest.raises(sf.SchemaError, match="table 'todo' has no column 'n' to write") as caught:
            ctx.push()

        assert "push_first=False" in caught.value.hint
        assert len(ctx.pending) == 2


@pytest.mark.parametrize("protocol", ["auto", "v2", "v3"])
def test_a_store_with_a_few_columns_pushes_over_http(database, url, protocol):
    options = {} if protocol == "auto" else {"protocol": protocol, "schema": TYPES}
    with sf.connect(url, store=":memory:", **options) as ctx:
        ctx["todo"].pull(columns=["n"])
        ctx["todo"].update("k001", n=1_000)
        ctx["todo"].insert({"id": "new", "n": 7})
        ctx["todo"].delete("k002")

        assert ctx.push().counts == {"accepted": 3, "conflicts": 0, "rejected": 0}

    rows = {row[0]: row[1:] for row in far(database)}
    assert rows["k001"] == ("a title of some length, number 1", 1_000)
    assert rows["new"] == (None, 7)
    assert "k002" not in rows


def test_two_processes_that_pull_one_query_at_once_leave_no_row_stale(database, url, tmp_path):
    """One has read its page and waits; the other reads a newer one and stores it; then the first stores its own."""
    with (
        sf.connect(url, store=tmp_path / "here.duckdb") as mine,
        sf.connect(url, store=tmp_path / "here.duckdb") as other,
    ):
        mine["todo"].pull(query_id="all")
        write(database, "update todo set n = 100 where id = 'k001'")
        held, stored, ended = threading.Event(), threading.Event(), []
        asked_by_mine, asked_by_other = mine._session.backend.pull, other._session.backend.pull

        def of_other(*args, **options):
            yield from asked_by_other(*args, **options)
            stored.set()
            held.wait(10)

        def of_mine(*args, **options):
            pages = list(asked_by_mine(*args, **options))
            write(database, "update todo set n = 200 where id = 'k001'")
            other._session.backend.pull = of_other
            ended.append(threading.Thread(target=lambda: other["todo"].pull(query_id="all", progress=False)))
            ended[0].start()
            stored.wait(10)
            yield from pages

        mine._session.backend.pull = of_mine
        mine["todo"].pull(query_id="all", progress=False)
        held.set()
        ended[0].join()
        mine._session.backend.pull = asked_by_mine
        for _ in range(2):
            mine["todo"].pull(query_id="all")

        assert mine["todo"].get("k001")["n"] == 200


@PLAIN
def test_types_of_some_columns_go_over_those_that_the_rows_show(url, protocol):
    """And one of a column that is not there is a spelling mistake, and no column of NULLs."""
    with sf.connect(url, store=":memory:", protocol=protocol, schema={"todo": {"n": "DECIMAL(10,2)"}}) as ctx:
        ctx["todo"].pull()
        assert [str(column.type) for column in ctx["todo"].schema.columns] == ["VARCHAR", "VARCHAR", "DECIMAL(10,2)"]
    with (
        sf.connect(url, store=":memory:", protocol=protocol, schema={"todo": {"m": "BIGINT"}}) as ctx,
        pytest.raises(sf.SchemaError, match="table 'todo' has no column 'm'"),
    ):
        ctx["todo"].pull()
