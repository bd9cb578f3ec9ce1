"""A dump in a new cluster, a backup under a running client, a promoted copy: said, pulled in full, edits kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from postgres import Server, database, execute, started
from test_postgres_writers import table_of

import syncframe as sf
from syncframe import backends


@pytest.fixture
def url(postgres: Server) -> str:
    if postgres.folder is None:
        pytest.skip("SYNCFRAME_TEST_POSTGRES is a server that somebody else runs")
    url = database(postgres)
    execute(url, "create table items (id bigint primary key, n bigint, name text)")
    execute(url, "insert into items select i, i, 'row ' || i from generate_series(1, 100) as i")
    backend = backends.open(url)
    backend.track(["items"])  # type: ignore[attr-defined]
    backend.close()  # type: ignore[attr-defined]
    return url


def with_pending_edits(url: str, store: Path) -> None:
    """A store that was pulled, with an update that will meet another one, a delete and an insert queued."""
    with sf.connect(url, store=store) as ctx:
        items = ctx["items"]
        items.pull(query_id="all", progress=False)
        items.update(1, n=100)
        items.update(2, n=200)
        items.delete(3)
        items.insert({"id": 1000, "n": 1})


def check_edits_go_on(url: str, store: Path, caught: pytest.WarningsRecorder) -> None:
    """The client says that it began anew, keeps what was edited, and ends with what is there."""
    with sf.connect(url, store=store) as ctx:
        items = ctx["items"]
        items.pull(query_id="all", push_first=False, progress=False)
        assert len(ctx.pending) == 4
        assert items.get(1)["n"] == 100 and items.get(3) is None and items.get(1000)["n"] == 1
        result = ctx.push(progress=False)
        assert (result.counts["accepted"], [c.key for c in result.conflicts]) == (3, [2])
        ctx.conflicts["items", 2].take_theirs()
        ctx.push(progress=False)
        items.pull(query_id="all", progress=False)
        assert items.frame()["n"].to_dict() == table_of(url, "items")


def test_a_dump_restored_into_a_new_cluster(postgres, url, tmp_path, recwarn):
    store = tmp_path / "store.duckdb"
    # The old cluster is far ahead of a new one, whose transactions are counted from the beginning.
    for _ in range(50):
        execute(url, "update items set name = name where id = 50")
    with_pending_edits(url, store)
    execute(url, "update items set n = -2 where id = 2", "delete from items where id = 4")
    postgres.run("pg_dump", "--format=custom", "--file", tmp_path / "dump", url)
    with started() as other:
        restored = database(other)
        other.run("pg_restore", "--dbname", restored, "--exit-on-error", tmp_path / "dump")
        fresh = backends.open(restored)
        with sf.connect(restored, store=":memory:") as new:
            new["items"].pull(query_id="all", progress=False)
            assert len(new["items"]) == 99, "a new client sees all, though the log's transactions lie in the future"

        check_edits_go_on(restored, store, recwarn)

        assert not fresh.is_tracked("items")  # type: ignore[attr-defined]
        fresh.track(["items"])  # type: ignore[attr-defined]
        with sf.connect(restored, store=store) as ctx:
            ctx["items"].pull(query_id="all", progress=False)
            execute(restored, "update items set n = 0 where id = 7", "delete from items where id = 8")
            result = ctx["items"].pull(query_id="all", progress=False)
            assert (result.rows, result.updated, result.deleted) == (2, 1, 1)
        fresh.close()  # type: ignore[attr-defined]


def test_a_base_backup_restored_under_a_client_with_edits(postgres, url, tmp_path, recwarn):
    store = tmp_path / "store.duckdb"
    copy = postgres.copied()
    execute(url, "update items set n = n + 1 where id between 10 and 20", "insert into items values (500, 5, 'lost')")
    with_pending_edits(url, store)
    with started(copy) as restored_server:
        restored = restored_server.url_of(url)
        # In its new life it goes on, and uses the same transaction ids for something else.
        for _ in range(10):
            execute(restored, "update items set n = n - 1000 where id = 30")
        execute(restored, "update items set n = -2 where id = 2")

        check_edits_go_on(restored, store, recwarn)

        with sf.connect(restored, store=store) as ctx:
            assert ctx["items"].get(500) is None
            assert ctx["items"].get(10)["n"] == 10
