"""PostgreSQL as people have it: roles, policies, schemas, views, triggers, changed tables, and who else writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from adbc_driver_postgresql import dbapi
from postgres import Server, execute
from test_postgres_writers import table_of

import syncframe as sf
from syncframe import backends
from syncframe.backends.postgres import PostgresBackend
from syncframe.errors import AccessError, BackendError, SchemaError, TransientError
from syncframe.query import Query
from syncframe.testing import batch, delete, insert, push, rows, statuses, update, versions


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    with postgres.database() as url:
        execute(url, "create table items (id bigint primary key, n bigint, name text)")
        execute(url, "insert into items select i, i, 'row ' || i from generate_series(1, 10) as i")
        yield url


@pytest.fixture
def ctx(url: str) -> Iterator[sf.SyncContext]:
    with sf.connect(url, store=":memory:") as context:
        yield context


def tracked(url: str, *tables: str) -> backends.Backend:
    backend = backends.open(url)
    backend.track(tables or ["items"])  # type: ignore[attr-defined]
    return backend


def as_role(url: str, role: str) -> str:
    """A login of its own, which may nothing yet."""
    execute(url, f"drop role if exists {role}", f"create role {role} login password 'geheim'")
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}:geheim@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
def reader(url: str) -> Iterator[str]:
    role = f"reader_{time.time_ns()}"
    yield as_role(url, role)
    execute(url, f"drop owned by {role}", f"drop role {role}")


def role_of(url: str) -> str:
    return str(urlsplit(url).username)


# The journey


@pytest.mark.parametrize("is_tracked", [True, False])
def test_pull_edit_push_and_what_another_program_does_meanwhile(url, ctx, is_tracked):
    if is_tracked:
        tracked(url)
    items = ctx["items"]
    items.pull(query_id="all", progress=False)
    frame = items.frame()
    frame.loc[[1, 2, 3], "n"] = [100, 200, 300]
    frame = frame.drop(index=4)
    frame.loc[11] = {"n": 11, "name": "new"}
    items.stage(frame, max_deletes=5)
    execute(url, "update items set name = 'theirs' where id = 2", "delete from items where id = 3")

    result = ctx.push(progress=False)

    assert result.counts == {"accepted": 3, "conflicts": 2, "rejected": 0}
    assert {c.key: (c.theirs or {}).get("name") for c in ctx.conflicts} == {2: "theirs", 3: None}
    ctx.conflicts["items", 2].keep_mine()
    ctx.conflicts["items", 3].take_theirs()
    assert ctx.push(progress=False).ok
    items.pull(query_id="all", progress=False)
    here = items.frame()["n"].to_dict()
    assert here == table_of(url, "items")
    assert (here[1], here[2], 3 in here, 4 in here, here[11]) == (100, 200, False, False, 11)


def test_what_defaults_triggers_and_generated_columns_make_of_a_row_is_stored_here(url, ctx):
    execute(
        url,
        """
        create table made (
            id bigint generated always as identity primary key, name text, at text default 'by default',
            twice bigint generated always as (length(name) * 2) stored, n bigint
        )
        """,
        "create function shout() returns trigger language plpgsql as $$ begin new.name := upper(new.name); return new; end $$",
        "create trigger shout before insert or update on made for each row execute function shout()",
    )
    tracked(url, "made")
    made = ctx["made"]
    made.pull(progress=False)
    made.insert({"id": 7, "name": "quiet"})

    assert ctx.push(progress=False).ok

    assert made.get(7) == {"id": 7, "name": "QUIET", "at": "by default", "n": None}
    assert "twice" not in made.columns


# Each operation its own outcome


@pytest.mark.parametrize("is_tracked", [True, False])
def test_of_a_large_batch_exactly_what_breaks_a_rule_is_rejected_in_the_databases_words(url, is_tracked):
    execute(
        url,
        "create table parents (id bigint primary key)",
        "insert into parents values (1)",
        """
        create table children (
            id bigint primary key, parent bigint references parents (id) deferrable initially deferred,
            n bigint check (n >= 0), code text unique, v varchar(3), day date not null default '2013-01-01'
        )
        """,
        "insert into children (id, parent, n) select i, 1, i from generate_series(1, 1000) as i",
    )
    backend = tracked(url, "children") if is_tracked else backends.open(url)
    known = versions(backend, "children")
    changes = [update(i, known[i], n=i + 1) for i in range(1, 1001)]
    changes[99] = update(100, known[100], n=-5)
    changes[299] = update(300, known[300], parent=2)
    changes[300] = update(301, known[301], v="too long")
    changes[500] = update(501, known[501], day=None)
    changes[501] = update(502, known[502], code="x")
    changes[700] = update(701, known[701], code="x")
    changes[900] = update(901, "of an older row", n=1)

    outcomes = push(backend, "children", *changes)

    rejected = {number + 1: o for number, o in enumerate(outcomes) if o["status"] == "rejected"}
    assert {k: (o["code"], o["column"]) for k, o in rejected.items()} == {
        100: ("check", None), 300: ("reference", "parent"), 301: ("type", None), 501: ("not null", "day"),
        701: ("unique", "code"),
    }  # fmt: skip
    assert "children_n_check" in rejected[100]["message"] and "parents" in rejected[300]["message"]
    assert [o["status"] for o in outcomes].count("conflicted") == 1
    there = table_of(url, "children")
    assert there == {i: i if i in (100, 300, 301, 501, 502, 701, 901) else i + 1 for i in range(1, 1001)}
    backend.close()


def test_atomic_a_constraint_that_is_deferred_holds_at_the_end(url):
    execute(
        url,
        "create table a (id bigint primary key, other bigint)",
        "create table b (id bigint primary key, other bigint references a deferrable initially deferred)",
        "alter table a add foreign key (other) references b deferrable initially deferred",
    )
    backend = tracked(url, "a", "b")
    good = [batch(backend, "a", [insert(1, other=1)]), batch(backend, "b", [insert(1, other=1)])]
    assert [o["status"] for out in backend.push_atomic(good) for o in out] == ["accepted", "accepted"]
    bad = [batch(backend, "a", [insert(2, other=9)]), batch(backend, "b", [insert(2, other=2)])]
    assert {o["status"] for out in backend.push_atomic(bad) for o in out} == {"rejected"}
    assert list(rows(backend, "a")) == [1]
    backend.close()


def test_two_inserts_of_one_key_at_once_are_one_row_and_one_conflict(url):
    execute(url, "alter index items_pkey rename to whatever")
    backend = tracked(url)
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute("insert into items values (50, 1, 'theirs')")
        done: list[dict] = []
        pushing = threading.Thread(target=lambda: done.extend(push(backend, "items", insert(50, n=2), insert(51, n=3))))
        pushing.start()
        time.sleep(0.5)
        assert pushing.is_alive()
        cursor.execute("commit")
        pushing.join(timeout=30)

    assert [(o["status"], o["r_name"], o["r_n"]) for o in done] == [("conflicted", "theirs", 1), ("accepted", None, 3)]
    backend.close()


@pytest.mark.parametrize("is_tracked", [True, False])
def test_an_update_that_waits_for_another_ones_sees_it(url, is_tracked):
    """What is compared is the row as it is once the lock is there, not as it was when the wait began."""
    backend = tracked(url) if is_tracked else backends.open(url)
    known = versions(backend, "items")
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute("update items set name = 'theirs' where id = 5")
        done: list[dict] = []
        changes = [update(4, known[4], n=40), update(5, known[5], n=50), delete(6, known[6])]
        pushing = threading.Thread(target=lambda: done.extend(push(backend, "items", *changes)))
        pushing.start()
        time.sleep(0.5)
        assert pushing.is_alive()
        cursor.execute("commit")
        pushing.join(timeout=30)

    assert [o["status"] for o in done] == ["accepted", "conflicted", "accepted"]
    assert table_of(url, "items")[5] == 5
    backend.close()


def test_a_row_that_somebody_holds_for_too_long_is_a_transient_error_and_nothing_is_lost(url, ctx):
    tracked(url)
    ctx["items"].pull(progress=False)
    ctx["items"].update(5, n=50)
    backend = PostgresBackend(url, lock_timeout_s=0.3)
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute("update items set n = 1 where id = 5")
        with pytest.raises(TransientError, match="another program"):
            push(backend, "items", update(5, versions(backend, "items")[5], n=50))
        cursor.execute("rollback")
    assert ctx.push(progress=False).ok
    backend.close()


# Roles


def test_a_role_that_may_only_read_pulls_what_changed_and_is_told_when_it_pushes(url, reader):
    execute(url, f"grant select on items to {role_of(reader)}")
    tracked(url)
    with sf.connect(reader, store=":memory:") as ctx:
        assert ctx["items"].pull(query_id="all", progress=False).inserted == 10
        execute(url, "update items set n = 0 where id = 3", "delete from items where id = 4")
        result = ctx["items"].pull(query_id="all", progress=False)
        assert (result.updated, result.deleted, result.rows) == (1, 1, 2)

        ctx["items"].update(1, n=5)
        with pytest.raises(AccessError, match="may not update") as caught:
            ctx.push(progress=False)
        assert caught.value.status == 403 and "grant update" in caught.value.hint
        assert len(ctx.pending) == 1


@pytest.mark.parametrize("atomic", [False, True])
def test_what_a_role_may_not_write_was_not_sent_and_can_be_given_up(url, reader, atomic):
    execute(url, f"grant select on items to {role_of(reader)}")
    with sf.connect(reader, store=":memory:") as ctx:
        ctx["items"].pull(query_id="all", progress=False)
        before = ctx["items"].frame()
        ctx["items"].delete(before.index[0])
        with pytest.raises(AccessError):
            ctx.push(atomic=atomic, progress=False)
        ctx.discard()

        assert len(ctx.pending) == 0
        assert ctx["items"].frame().equals(before)


def test_a_role_without_rights_on_the_log_pulls_in_full(url, reader):
    tracked(url)
    execute(url, f"grant select on items to {role_of(reader)}")
    with sf.connect(reader, store=":memory:") as ctx:
        ctx["items"].pull(query_id="all", progress=False)
        execute(url, "delete from items where id = 4")
        assert ctx["items"].pull(query_id="all", progress=False).deleted == 1


def test_a_role_that_may_write_pushes_to_a_tracked_table_and_its_operations_are_known(url, reader):
    execute(url, f"grant select, insert, update, delete on items to {role_of(reader)}")
    execute(url, "revoke temporary on database " + urlsplit(url).path[1:] + " from public")
    execute(url, f"grant temporary on database {urlsplit(url).path[1:]} to {role_of(reader)}")
    tracked(url)
    backend = backends.open(reader)
    known = versions(backend, "items")
    changes = [update(1, known[1], n=9), delete(2, known[2]), insert(20, n=1)]
    assert statuses(backend, "items", *changes) == ["accepted"] * 3
    assert statuses(backend, "items", *changes) == ["accepted"] * 3  # the same ids once more
    backend.close()


def test_row_level_policies_hide_rows_and_what_they_keep_as_it_was_is_rejected(url, reader):
    role = role_of(reader)
    execute(
        url,
        "alter table items enable row level security",
        "create policy seen on items for select using (n <= 8)",
        "create policy changed on items for update using (n <= 4) with check (n <= 100)",
        "create policy made on items for insert with check (n <= 100)",
        f"grant select, insert, update on items to {role}",
    )
    for is_tracked in (False, True):
        if is_tracked:
            tracked(url)
        backend = backends.open(reader)
        known = versions(backend, "items")
        assert sorted(known) == list(range(1, 9))
        outcomes = push(
            backend, "items",
            update(1, known[1], name="a"), update(6, known[6], name="b"), update(2, known[2], n=1000),
            insert(30, n=1000),
        )  # fmt: skip
        assert [o["status"] for o in outcomes] == ["accepted", "rejected", "rejected", "rejected"]
        assert "policy" in outcomes[1]["message"] and "policy" in outcomes[2]["message"]
        backend.close()
    # Whoever is granted the log sees what changed; a row that went out of sight leaves.
    execute(url, f'grant select on _syncframe."log_public.items" to {role}')
    execute(url, f'grant update (operation_ids) on _syncframe."log_public.items" to {role}')
    with sf.connect(reader, store=":memory:") as ctx:
        assert ctx["items"].pull(query_id="all", progress=False).inserted == 8
        execute(url, "update items set n = 9 where id = 1")
        result = ctx["items"].pull(query_id="all", progress=False)
        assert (result.deleted, sorted(ctx["items"].frame().index)) == (1, list(range(2, 9)))


def test_a_wrong_password_database_host_or_driver_url_is_said_and_no_secret_is_shown(url, reader):
    parts = urlsplit(url)
    execute(url, "select 1")
    wrong = {
        parts._replace(netloc=f"postgres:wr0ng-secret@{parts.hostname}:{parts.port}").geturl(): AccessError,
        parts._replace(path="/nowhere").geturl(): BackendError,
        "postgresql://postgres:wr0ng-secret@127.0.0.1:1/x": TransientError,
        "postgresql://postgres@127.0.0.1:1/x?password=wr0ng-secret": TransientError,
    }
    for bad, kind in wrong.items():
        backend = backends.open(bad)
        with pytest.raises(kind) as caught:
            backend.tables()  # type: ignore[attr-defined]
        told = f"{caught.value} {caught.value.detail} {backend!r} {caught.value.__cause__}"
        assert "wr0ng-secret" not in told


# Names


def test_tables_of_other_schemas_and_names_that_need_quotes(url, ctx):
    name = "Ein \"Na.me' $1 ?"
    long = "x" * 63
    execute(
        url,
        'create schema "Sales dept"',
        'create table "Sales dept"."Orders" ("Id" bigint primary key, "a?b" text, "$1" text)',
        """insert into "Sales dept"."Orders" values (1, 'what?', 'one')""",
        'create table "{}" (id bigint primary key, n bigint)'.format(name.replace('"', '""')),
        f"create table {long} (id bigint primary key, n bigint)",
        f"create table {long[:62]}y (id bigint primary key, n bigint)",
    )
    backend = tracked(url, "Sales dept.Orders", name, long, long[:62] + "y", "public.items")
    assert {"Sales dept.Orders", name, long, "items"} <= set(backend.tables())
    for table in (name, long, long[:62] + "y"):
        assert statuses(backend, table, insert(1, n=2)) == ["accepted"]
        assert list(rows(backend, table)) == [1]
        execute(url, 'delete from "{}"'.format(table.replace('"', '""')))
    orders = ctx["Sales dept.Orders"]
    orders.pull(query_id="q", progress=False)
    orders.update(1, {"a?b": "so?", "$1": "two"})
    assert ctx.push(progress=False).ok
    assert orders.get(1) == {"Id": 1, "a?b": "so?", "$1": "two"}
    backend.untrack(["Sales dept.Orders", name, long, long[:62] + "y", "items"])
    assert backend.tables() and not backend.is_tracked("items")
    backend.close()


def test_names_that_differ_in_case_only_are_refused_naming_both(url, ctx):
    execute(
        url,
        'create table "Items" (id bigint primary key)',
        'create table cols (id bigint primary key, "A" text, a text)',
    )
    with pytest.raises(SchemaError, match=r"'items'.*'Items'|'Items'.*'items'"):
        ctx["items"].pull(progress=False)
    with pytest.raises(SchemaError, match=r"'A'.*'a'"):
        ctx["cols"].pull(progress=False)


# Views, partitions


def test_a_view_is_read_with_a_key_that_is_given(url):
    execute(url, "create view seen as select id, n * 2 as twice from items where n < 6")
    with sf.connect(url, store=":memory:") as ctx, pytest.raises(SchemaError, match="no primary key"):
        ctx["seen"].pull(progress=False)
    schema = {"seen": sf.Schema.of({"id": "BIGINT", "twice": "BIGINT"}, key="id")}
    with sf.connect(url, store=":memory:", schema=schema) as ctx:
        assert ctx["seen"].pull(progress=False).inserted == 5
        execute(url, "update items set n = 7 where id = 1", "update items set n = 1 where id = 2")
        result = ctx["seen"].pull(progress=False)
        assert (result.updated, result.deleted) == (1, 1)
        with pytest.raises(SchemaError, match="view"):
            backends.open(url, schema=schema).track(["seen"])  # type: ignore[attr-defined]


def test_a_partitioned_table_is_tracked_by_row_triggers_whichever_part_is_written(url, ctx):
    execute(
        url,
        "create table parted (id bigint primary key, n bigint) partition by range (id)",
        "create table low partition of parted for values from (0) to (100)",
        "create table high partition of parted for values from (100) to (1000)",
        "insert into parted values (1, 1), (101, 1)",
    )
    tracked(url, "parted")
    parted = ctx["parted"]
    parted.pull(query_id="all", progress=False)
    execute(
        url, "insert into high values (102, 2)", "update low set n = 5", "delete from parted where id = 101",
        "update parted set id = 103 where id = 102",
    )  # fmt: skip
    result = parted.pull(query_id="all", progress=False)
    assert (result.rows > 0, parted.frame()["n"].to_dict()) == (True, {1: 5, 103: 2})
    parted.update(1, n=9)
    assert ctx.push(progress=False).ok


# What other programs do


def test_every_way_to_write_is_seen(url, ctx):
    tracked(url)
    items = ctx["items"]
    items.pull(query_id="all", progress=False)
    ways = [
        "update items set id = id + 100 where id >= 9",
        "with gone as (delete from items where id = 1 returning *) insert into items select * from gone",
        "insert into items values (2, 99, 'upserted') on conflict (id) do update set n = excluded.n",
        "merge into items using (values (3, 33), (40, 40)) as s (id, n) on items.id = s.id "
        "when matched then update set n = s.n when not matched then insert (id, n) values (s.id, s.n)",
        "delete from items where id = 4",
    ]
    for way in ways:
        execute(url, way)
    execute(url, "set session_replication_role = replica", "update items set n = 55 where id = 5")
    items.pull(query_id="all", progress=False)
    assert items.frame()["n"].to_dict() == table_of(url, "items")
    execute(url, "truncate items", "insert into items values (5, 5, 'after')")
    items.pull(query_id="all", progress=False)
    assert items.frame()["n"].to_dict() == {5: 5} == table_of(url, "items")


def test_columns_added_dropped_and_retyped_between_pulls(url, ctx):
    tracked(url)
    items = ctx["items"]
    items.pull(query_id="all", progress=False)
    execute(url, "alter table items add column extra text default 'new'")
    items.pull(query_id="all", full=True, progress=False)
    assert items.columns == ["n", "name", "extra"] and set(items.frame()["extra"]) == {"new"}
    items.update(1, extra="mine")
    for change in ("alter column n type text using 'n' || n", "drop column name"):
        execute(url, f"alter table items {change}")
        with pytest.raises(SchemaError, match=r"'n'|'name'") as caught:
            items.pull(query_id="all", push_first=False, progress=False)
        assert "purge" in caught.value.hint
        assert len(ctx.pending) == 1
    with pytest.raises(SchemaError, match="'n'"):
        ctx.push(progress=False)
    assert len(ctx.pending) == 1


def test_track_again_mends_what_is_missing_and_undo_leaves_nothing(url, ctx):
    backend = tracked(url)
    ctx["items"].pull(query_id="all", progress=False)
    execute(url, "drop trigger zz_syncframe_delete on items", "delete from items where id = 4")
    assert not backend.is_tracked("items")
    ctx["items"].pull(query_id="all", progress=False)
    assert 4 not in ctx["items"].frame().index
    backend.track(["items"])
    ctx["items"].pull(query_id="all", progress=False)
    execute(url, "delete from items where id = 5")
    assert ctx["items"].pull(query_id="all", progress=False).deleted == 1
    backend.untrack(["items"])
    left = "select count(*) from pg_trigger where tgname like 'zz_syncframe%' union all select count(*) from pg_namespace where nspname = '_syncframe'"
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(left)
        assert [n for (n,) in cursor.fetchall()] == [0, 0]
    backend.close()


def test_rows_above_the_horizon_are_shown_and_the_wait_is_said_when_it_is_long(url, ctx, monkeypatch):
    monkeypatch.setattr("syncframe.pull.HELD_BACK_S", 0.1)
    tracked(url)
    items = ctx["items"]
    items.pull(query_id="all", progress=False)
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as forgotten:
        forgotten.execute("begin")
        forgotten.execute("update items set n = 70 where id = 7")
        execute(url, "update items set n = 80 where id = 8")
        time.sleep(0.3)
        result = items.pull(query_id="all", progress=False)
        assert (result.updated, items.get(8)["n"], items.get(7)["n"]) == (1, 80, 7)
        assert result.held_back_s > 0.2
        again = items.pull(query_id="all", progress=False)
        assert (again.updated, again.unchanged) == (0, 1)
        forgotten.execute("commit")
    assert items.pull(query_id="all", progress=False).updated == 1
    assert items.get(7)["n"] == 70


def test_a_page_reads_its_rows_by_key_and_not_the_whole_table(url):
    execute(url, "insert into items select i, i, 'x' from generate_series(11, 5000) as i", "analyze items")
    backend = tracked(url)
    pages = list(backend.pull("items", Query(page_rows=1_000), None))
    assert [page.rows.num_rows for page in pages][:5] == [1_000] * 5
    backend.close()


def test_a_database_that_is_renamed_is_the_same_and_a_restarted_server_is_found_again(postgres, url):
    execute(url, "select 1")
    with sf.connect(url, store=":memory:") as ctx:
        ctx["items"].pull(progress=False)
        ctx["items"].update(1, n=5)
        old, new = urlsplit(url).path[1:], f"renamed_{time.time_ns()}"
        execute(postgres.url, f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{old}'")
        execute(postgres.url, f'alter database "{old}" rename to "{new}"')
        try:
            backend = backends.open(url.replace(quote(old), new))
            assert backend.identity() == ctx.status().attrs.get("identity", backend.identity())
        finally:
            backend.close()
            execute(postgres.url, f'alter database "{new}" rename to "{old}"')
        assert ctx.push(progress=False).ok
