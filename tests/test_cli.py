"""The command line: what it prints, what it does to store and database, and the code it ends with."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

import syncframe as sf
from syncframe.backends import open as open_backend
from syncframe.cli import main

SHOP = """
    create table orders (
        id text primary key, item varchar not null, n bigint check (n >= 0), price DECTEXT(10,2), at timestamptz
    );
    insert into orders values
        ('a', 'milk', 1, '2.50', '2020-01-01T00:00:00Z'), ('b', 'bread', 2, null, null), ('c', 'eggs', 3, '7.00', null);
    create table hours (place text, hour timestamptz, temp double, primary key (place, hour));
    insert into hours values ('EWR', '2013-01-01T06:00:00Z', 39.02);
"""
SIX = dt.datetime(2013, 1, 1, 6, tzinfo=dt.UTC)
COMMANDS = ["demo", "serve", "track", "status", "pending", "conflicts", "resolve", "push", "pull"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of its own with shop.db, in which the commands are given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNCFRAME_URL", raising=False)
    run(SHOP)
    return tmp_path


def run(script: str, path: str = "shop.db") -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def rows(query: str, path: str = "shop.db") -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def definitions(path: str) -> dict[str, str]:
    """What a database is made of, blanks apart."""
    return {name: " ".join((sql or "").split()) for name, sql in rows("select name, sql from sqlite_master", path)}


def files() -> set[str]:
    return {path.name for path in Path().iterdir()}


def store(name: str = "mine.duckdb") -> sf.SyncContext:
    """A store with both tables pulled."""
    ctx = sf.connect("sqlite:///shop.db", store=name)
    for table in ("orders", "hours"):
        ctx[table].pull(query_id=True, progress=False)
    return ctx


def in_conflict() -> sf.SyncContext:
    """A store with one conflict in each table, not pushed yet."""
    open_backend("sqlite:///shop.db").track(["orders", "hours"])
    mine = store()
    run("update orders set item = 'soy milk' where id = 'a'; update hours set temp = 40")
    mine["orders"].update("a", item="oat milk")
    mine["hours"].update(("EWR", SIX), temp=41.0)
    return mine


# Help and usage


def test_help_comes_without_pandas_arrow_or_duckdb():
    code = "import sys\nfrom syncframe.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print('imported:', {'pandas', 'pyarrow', 'duckdb', 'sqlglot'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert done.stdout.endswith("imported: set()\n"), done.stderr
    assert [name for name in COMMANDS if f"\n    {name}" not in done.stdout] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_s_help_has_examples(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])

    assert ended.value.code == 0
    assert f"examples:\n  syncframe {name}" in capsys.readouterr().out


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "syncframe", "status", "nothing.duckdb"], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 2
    assert done.stderr.startswith("syncframe: there is no store nothing.duckdb\nhint: ")


@pytest.mark.parametrize(
    "words",
    [[], ["serve", "sqlite:///shop.db", "--port", "many"], ["status"], ["resolve", "mine.duckdb", "orders", "a"],
     ["track", "sqlite:///shop.db", "orders", "--keep-deleted-days", "soon"], ["push", "mine.duckdb", "--on-conflict", "ours"]],
    ids=["nothing", "no port", "no store", "no side", "no number of days", "no such policy"],
)  # fmt: skip
def test_wrong_usage_ends_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: syncframe")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["track", "sqlite:///shop.db"], "which tables?"),
        (["resolve", "mine.duckdb", "--mine"], "which conflict?"),
        (["resolve", "mine.duckdb", "orders", "--mine"], "which conflict?"),
        (["resolve", "mine.duckdb", "orders", "a", "--all", "--mine"], "which conflict?"),
        (["push", "mine.duckdb"], "which back end?"),
        (["pull", "mine.duckdb", "orders"], "which back end?"),
        (["push", "mine.duckdb", "--url", "ftp://shop"], "has no scheme that is known"),
        (
            ["push", "mine.duckdb", "--url", "sqlite:///shop.db", "--token-file", "none"],
            "token file none cannot be read",
        ),
        (["push", "mine.duckdb", "prices", "--url", "sqlite:///shop.db"], "tables 'prices' are not in this store"),
        (["pull", "mine.duckdb", "prices", "--url", "sqlite:///shop.db"], "table 'prices' is not in"),
    ],
)
def test_what_cannot_be_done_ends_with_2_in_words(words, said, capsys):
    store()

    code = main(words)

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


# Tracking


def test_track_shows_the_sql_that_it_runs(capsys):
    shutil.copy("shop.db", "copy.db")

    assert main(["track", "sqlite:///shop.db", "orders", "hours"]) == 0
    shown = capsys.readouterr().out
    run(shown, "copy.db")

    assert open_backend("sqlite:///copy.db").is_tracked("orders")
    assert definitions("copy.db") == definitions("shop.db")
    assert shown.endswith("commit;\n-- hours: tracked\n")


def test_a_dry_run_shows_the_sql_and_changes_nothing(capsys):
    before = definitions("shop.db")

    assert main(["track", "sqlite:///shop.db", "orders", "--dry-run"]) == 0

    assert 'create table "_syncframe_log_orders" (\n    stamp integer primary key,\n' in capsys.readouterr().out
    assert definitions("shop.db") == before


def test_a_tracked_table_can_be_tracked_again_and_keeps_its_log(capsys):
    main(["track", "sqlite:///shop.db", "orders"])
    versions = rows("select k_id, version from _syncframe_log_orders")
    capsys.readouterr()

    assert main(["track", "sqlite:///shop.db", "orders"]) == 0

    assert capsys.readouterr().out.startswith("-- orders: is tracked already; this makes its triggers anew\nbegin;\n")
    assert rows("select k_id, version from _syncframe_log_orders") == versions


def test_undo_leaves_the_database_as_it_was(capsys):
    before = definitions("shop.db")
    main(["track", "sqlite:///shop.db", "orders", "hours"])
    assert definitions("shop.db") != before

    assert main(["track", "sqlite:///shop.db", "orders", "hours", "--undo"]) == 0

    assert definitions("shop.db") == before
    assert "drop table _syncframe_settings;" in capsys.readouterr().out


def test_one_wrong_table_among_several_changes_nothing(capsys):
    before = definitions("shop.db")

    assert main(["track", "sqlite:///shop.db", "orders", "prices"]) == 2

    out, err = capsys.readouterr()
    assert (out, definitions("shop.db")) == ("", before)
    assert err.startswith("syncframe: table 'prices' is not in ")


def test_what_was_deleted_long_ago_is_forgotten(capsys):
    main(["track", "sqlite:///shop.db", "orders"])
    run("delete from orders where id = 'a'; delete from orders where id = 'b'; update orders set n = 4")
    run("update _syncframe_log_orders set updated_at = '2020-01-01T00:00:00.000Z' where k_id = 'a'")

    assert main(["track", "sqlite:///shop.db", "--keep-deleted-days", "30"]) == 0

    assert capsys.readouterr().out.endswith("-- 1 row deleted more than 30 days ago forgotten\n")
    assert rows("select k_id from _syncframe_log_orders where deleted") == [("b",)]


def test_a_duckdb_file_is_tracked_too(capsys):
    import duckdb

    with duckdb.connect("far.duckdb") as connection:
        connection.execute("create table t (id bigint primary key, x double)")

    assert main(["track", "duckdb:///far.duckdb", "t"]) == 0

    assert "create table " in capsys.readouterr().out
    with duckdb.connect("far.duckdb") as connection:
        assert connection.execute("select count(*) from _syncframe_log_t").fetchall() == [(0,)]


# Looking


@pytest.mark.parametrize(
    "words",
    [["status"], ["pending"], ["conflicts"], ["push", "--url", "sqlite:///shop.db"],
     ["pull", "--url", "sqlite:///shop.db"], ["resolve", "--all", "--mine"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_store_that_is_not_there_is_said_and_not_made(words, capsys):
    assert main([words[0], "mien.duckdb", *words[1:]]) == 2

    assert "there is no store mien.duckdb" in capsys.readouterr().err
    assert files() == {"shop.db"}


def test_status_shows_each_table(capsys):
    ctx = store()
    ctx["orders"].update("a", n=9)
    capsys.readouterr()

    assert main(["status", "mine.duckdb"]) == 0
    head, hours, orders = capsys.readouterr().out.splitlines()
    assert main(["status", "mine.duckdb", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)

    assert head.split("  ")[0] == "table"
    assert hours.split()[:5] == ["hours", "1", "0", "0", "0"]
    assert orders.split()[:5] == ["orders", "3", "1", "0", "0"]
    assert (first["table"], second["table"], second["pending"], second["last_push"]) == ("hours", "orders", 1, None)
    assert dt.datetime.fromisoformat(second["last_pull"]).utcoffset() == dt.timedelta(0)


def test_pending_shows_what_is_queued(capsys):
    ctx = store()
    ctx["orders"].update("a", item="oat milk", price=Decimal("3.10"))
    ctx["orders"].delete("b")
    ctx["orders"].insert({"id": "d e", "item": "salt"})

    assert main(["pending", "mine.duckdb"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "3 operations pending",
        "table   insert  update  delete",
        "orders       1       1       1",
        "",
        "update orders a: item 'milk' -> 'oat milk', price 2.50 -> 3.10",
        "delete orders b",
        "insert orders 'd e'",
    ]


def test_pending_as_json_has_every_operation_whole(capsys):
    ctx = store()
    ctx["orders"].update("a", n=2**53 + 1)
    ctx["hours"].delete(("EWR", SIX))

    assert main(["pending", "mine.duckdb", "--json"]) == 0

    first, second = json.loads(capsys.readouterr().out)
    base = {"id": "a", "item": "milk", "n": 1, "price": "2.50", "at": "2020-01-01T00:00:00Z"}
    assert (first["table"], first["key"], first["kind"], first["changed"]) == ("orders", "a", "update", ["n"])
    assert (first["base"], first["local"]) == (base, base | {"n": 9007199254740993})
    assert (first["attempted"], first["error"]) == (False, None)
    assert (second["key"], second["kind"], second["local"]) == (["EWR", "2013-01-01T06:00:00Z"], "delete", None)


def test_json_has_a_form_for_every_type(capsys):
    types = {
        "id": "BIGINT",
        "b": "BLOB",
        "d": "DATE",
        "t": "TIME",
        "f": "DOUBLE",
        "u": "UUID",
        "s": "VARCHAR",
        "x": "BOOLEAN",
    }
    things = sf.connect(store="mine.duckdb").table("things", schema=types)
    uuid = "00000000-0000-4000-8000-000000000001"
    things.insert({"id": 1, "b": b"\x00\xff", "d": dt.date(1, 1, 1), "t": dt.time(6, 30), "f": float("inf"), "u": uuid,
                   "s": "ß", "x": True})  # fmt: skip

    assert main(["pending", "mine.duckdb", "--json"]) == 0

    (operation,) = json.loads(capsys.readouterr().out)
    assert operation["local"] == {
        "id": 1, "b": "00ff", "d": "0001-01-01", "t": "06:30:00", "f": "inf", "u": uuid, "s": "ß", "x": True,
    }  # fmt: skip


def test_nothing_to_show_is_said(capsys):
    store()

    for command in ("pending", "conflicts"):
        assert main([command, "mine.duckdb"]) == 0
        assert main([command, "mine.duckdb", "--json"]) == 0

    assert capsys.readouterr().out == "nothing is pending\n[]\nno conflicts\n[]\n"


def test_a_reader_that_stops_early_is_no_error():
    ctx = store()
    ctx["orders"].insert([{"id": f"{n:05}", "item": "x" * 100} for n in range(1_000)])

    command = [sys.executable, "-m", "syncframe", "pending", "mine.duckdb", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1) == b"["
        process.stdout.close()
        complaint = process.stderr.read()

    assert (process.returncode, complaint) == (0, b"")


# Pushing and pulling


def test_pull_makes_a_store_and_the_next_one_brings_what_has_changed(capsys):
    main(["track", "sqlite:///shop.db", "orders", "hours"])
    capsys.readouterr()

    first = main(["pull", "mine.duckdb", "orders", "hours", "--url", "sqlite:///shop.db"])
    told_first = [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()]
    run("update orders set n = 5 where id = 'a'; delete from orders where id = 'b'")
    second = main(["pull", "mine.duckdb", "--url", "sqlite:///shop.db"])
    told_second = capsys.readouterr().out.splitlines()

    assert (first, second) == (0, 0)
    assert told_first == ["orders: 3 new", "hours: 1 new"]
    assert told_second[0].startswith("hours: nothing new (0 rows read")
    assert told_second[1].startswith("orders: 1 changed, 1 gone (2 rows read")
    assert sf.connect(store="mine.duckdb")["orders"].frame()["n"].to_dict() == {"a": 5, "c": 3}


def test_push_sends_what_is_queued(capsys, monkeypatch):
    ctx = store()
    ctx["orders"].update("a", item="oat milk")
    ctx["orders"].delete("b")
    monkeypatch.setenv("SYNCFRAME_URL", "sqlite:///shop.db")

    assert main(["push", "mine.duckdb"]) == 0
    assert main(["push", "mine.duckdb"]) == 0

    sent, nothing = capsys.readouterr().out.splitlines()
    assert sent.startswith("pushed 2 operations in ")
    assert nothing == "nothing to push"
    assert rows("select id, item from orders order by id") == [("a", "oat milk"), ("c", "eggs")]


def test_push_of_one_table_leaves_the_others_queued():
    ctx = store()
    ctx["orders"].delete("b")
    ctx["hours"].delete(("EWR", SIX))

    assert main(["push", "mine.duckdb", "hours", "--url", "sqlite:///shop.db"]) == 0

    assert [op.key for op in ctx.pending] == ["b"]
    assert rows("select count(*) from hours union all select count(*) from orders") == [(0,), (3,)]


@pytest.mark.parametrize("command", ["push", "pull"])
def test_a_back_end_that_cannot_be_reached_ends_with_3_and_loses_nothing(command, capsys):
    ctx = store()
    ctx["orders"].delete("b")

    code = main([command, "mine.duckdb", "--url", "sqlite:///nowhere.db"])

    out, err = capsys.readouterr()
    assert (code, out) == (3, "")
    assert "nowhere.db does not exist\nhint: check the path" in err
    assert [op.kind for op in ctx.pending] == ["delete"]
    assert "nowhere.db" not in files()


def test_another_database_while_operations_are_pending_ends_with_2(capsys):
    ctx = store()
    ctx["orders"].delete("b")
    run(SHOP, "other.db")

    code = main(["push", "mine.duckdb", "--url", "sqlite:///other.db"])

    assert code == 2
    assert "1 operations are pending for sqlite:///shop.db" in capsys.readouterr().err


def test_a_token_file_is_taken(capsys):
    store()
    Path("token").write_text("secret\n")

    assert main(["pull", "mine.duckdb", "--url", "sqlite:///shop.db", "--token-file", "token"]) == 0

    assert "secret" not in "".join(capsys.readouterr())


def test_a_rejection_ends_with_1_and_the_back_end_s_reason(capsys):
    ctx = store()
    ctx["orders"].update("a", n=-1)

    assert main(["push", "mine.duckdb", "--url", "sqlite:///shop.db"]) == 1
    pushed = capsys.readouterr().out.splitlines()
    assert main(["pull", "mine.duckdb", "--url", "sqlite:///shop.db"]) == 1
    pulled = capsys.readouterr().out.splitlines()

    assert "rejected: update orders a: CHECK constraint failed: n >= 0 (check)" in pushed[1]
    assert pushed[-1] == pulled[-1] == "1 operation rejected: syncframe pending mine.duckdb"


# Conflicts


def test_a_push_with_conflicts_ends_with_1_and_conflicts_shows_them(capsys):
    in_conflict()

    assert main(["push", "mine.duckdb", "--url", "sqlite:///shop.db"]) == 1
    pushed = capsys.readouterr().out
    assert main(["conflicts", "mine.duckdb"]) == 0
    shown = capsys.readouterr().out

    assert pushed.endswith("2 conflicts to settle: syncframe conflicts mine.duckdb\n")
    assert shown.splitlines()[:8] == [
        "2 conflicts",
        "",
        "hours EWR 2013-01-01T06:00:00Z",
        "        base   mine  theirs",
        "  temp  39.02  41.0  40.0",
        "",
        "orders a",
        "        base    mine        theirs",
    ]
    assert "  item  'milk'  'oat milk'  'soy milk'\n" in shown


def test_conflicts_as_json_have_the_three_rows(capsys):
    in_conflict()
    main(["push", "mine.duckdb", "orders", "--url", "sqlite:///shop.db"])
    capsys.readouterr()

    assert main(["conflicts", "mine.duckdb", "--json"]) == 0

    (conflict,) = json.loads(capsys.readouterr().out)
    assert (conflict["table"], conflict["key"], conflict["kind"], conflict["columns"]) == (
        "orders",
        "a",
        "update",
        ["item"],
    )
    assert [conflict[side]["item"] for side in ("base", "mine", "theirs")] == ["milk", "oat milk", "soy milk"]


def test_a_row_deleted_on_one_side_is_said_so(capsys):
    ctx = in_conflict()
    ctx.discard()
    run("delete from orders where id = 'b'; update orders set n = 8 where id = 'c'")
    ctx["orders"].update("b", n=7)
    ctx["orders"].delete("c")
    ctx.push(progress=False)

    assert main(["conflicts", "mine.duckdb"]) == 0

    shown = capsys.readouterr().out
    assert "\norders b: you have changed it, they have deleted it\n" in shown
    assert "\norders c: you have deleted it, they have changed it\n" in shown


def test_resolve_settles_one_row_by_mine_and_a_compound_key_by_theirs(capsys):
    ctx = in_conflict()
    ctx.push(progress=False)

    assert main(["resolve", "mine.duckdb", "orders", "a", "--mine"]) == 0
    assert main(["resolve", "mine.duckdb", "hours", "EWR", "2013-01-01T06:00:00Z", "--theirs"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert main(["push", "mine.duckdb", "--url", "sqlite:///shop.db"]) == 0

    assert told == [
        "1 conflict settled: yours, to be sent with the next push", "1 conflict left", "1 conflict settled: theirs",
    ]  # fmt: skip
    assert rows("select item from orders where id = 'a'") == [("oat milk",)]
    assert rows("select temp from hours") == [(40.0,)]
    assert ctx["hours"].get(("EWR", SIX))["temp"] == 40.0


def test_resolve_all_settles_what_stands(capsys):
    ctx = in_conflict()
    ctx.push(progress=False)

    assert main(["resolve", "mine.duckdb", "--all", "--theirs"]) == 0
    assert main(["resolve", "mine.duckdb", "--all", "--theirs"]) == 0

    assert capsys.readouterr().out == "2 conflicts settled: theirs\n0 conflicts settled\n"
    assert (len(ctx.pending), ctx["orders"].get("a")["item"]) == (0, "soy milk")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["orders", "zz"], "orders zz is not in conflict\nhint: syncframe conflicts mine.duckdb"),
        (["orders", "a", "b"], "a key of 'orders' has 1 part (id), not 2"),
        (["hours", "EWR"], "a key of 'hours' has 2 parts (place, hour), not 1"),
        (["hours", "EWR", "yesterday"], "key 'yesterday': hour is of type TIMESTAMPTZ"),
        (["prices", "a"], "prices"),
    ],
)
def test_a_key_that_is_not_in_conflict_is_refused_in_words(words, said, capsys):
    ctx = in_conflict()
    ctx.push(progress=False)

    assert main(["resolve", "mine.duckdb", *words, "--mine"]) == 2

    assert said in capsys.readouterr().err
    assert len(ctx.conflicts) == 2


@pytest.mark.parametrize(("policy", "item"), [("mine", "oat milk"), ("theirs", "soy milk")])
def test_on_conflict_settles_as_it_pushes(policy, item):
    ctx = in_conflict()

    assert main(["push", "mine.duckdb", "orders", "--url", "sqlite:///shop.db", "--on-conflict", policy]) == 0

    assert rows("select item from orders where id = 'a'") == [(item,)]
    assert ctx["orders"].get("a")["item"] == item
    assert len(ctx.conflicts) == 0


# What stops half-way, and the demo


def test_a_push_that_stops_half_way_says_what_is_left(capsys):
    ctx = store()
    ctx["orders"].delete("b")
    ctx["hours"].delete(("EWR", SIX))
    run("drop table hours")

    code = main(["push", "mine.duckdb", "--url", "sqlite:///shop.db"])

    out, err = capsys.readouterr()
    assert code == 2
    assert out.startswith("pushed 1 operation in ")
    assert out.endswith("\n1 operation still pending\n")
    assert err.startswith("syncframe: table 'hours' is not in ")


def test_a_pull_that_stops_half_way_keeps_and_shows_what_came(capsys):
    store()
    run("update orders set n = 5; drop table hours; create table prices (id text primary key)")

    code = main(["pull", "mine.duckdb", "orders", "hours", "--url", "sqlite:///shop.db"])

    out, err = capsys.readouterr()
    assert code == 2
    assert out.startswith("orders: 3 changed (3 rows read in ")
    assert err.startswith("syncframe: table 'hours' is not in ")
    assert sf.connect(store="mine.duckdb")["orders"].get("a")["n"] == 5


def test_a_table_that_was_never_pulled_is_left_until_it_is_named(capsys):
    sf.connect(store="mine.duckdb").table("orders", schema={"id": "VARCHAR", "item": "VARCHAR"})

    assert main(["pull", "mine.duckdb", "--url", "sqlite:///shop.db"]) == 0
    assert main(["pull", "mine.duckdb", "orders", "--url", "sqlite:///shop.db"]) == 0

    left, came, *notes = capsys.readouterr().out.splitlines()
    assert left == "orders: was never pulled; `syncframe pull mine.duckdb orders` brings it"
    assert came.startswith("orders: 3 new (3 rows read in ")
    assert "syncframe track URL orders" in notes[0]


class Command:
    """A command that runs until it is stopped, and what it prints until then."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "syncframe", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes)
        self.out = ""

    def until(self, words):
        while words not in self.out:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.out += line
        return self.out

    def url(self):
        return re.search(r"http://127\.0\.0\.1:\d+", self.out)[0]

    def stopped(self, sign=signal.SIGINT):
        """The exit code, and what was printed after the sign."""
        self.process.send_signal(sign)
        out, err = self.process.communicate(timeout=30)
        self.out += out
        return self.process.returncode, err

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()


def test_demo_serves_its_database_until_it_is_stopped_and_check_wants_an_empty_folder(capsys):
    with Command("demo", "--folder", "flights", "--small", "1000", "--no-browser") as demo:
        out = demo.until("The folder stays until you remove it.")
        with sf.connect(demo.url(), store="mine.duckdb") as ctx:
            assert ctx["flights"].pull(query_id="all", progress=False).inserted == 1_000
        code, err = demo.stopped()

    assert (code, err) == (0, "")
    assert 'flights.pull("month = 1", query_id="january")' in out
    assert demo.out.endswith("The server has stopped.\n")
    assert rows("select count(*) from flights", "flights/flights.db") == [(1_000,)]
    assert main(["demo", "--folder", "flights", "--small", "1000", "--check"]) == 2
    assert capsys.readouterr().err.splitlines()[0].endswith("has flights.db of an earlier run")


# Serving

KEY = "a-key-of-more-than-sixteen-letters"


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_serve_tracks_and_serves_until_it_is_stopped(sign):
    with Command("serve", "sqlite:///shop.db", "--track", "--port", "0") as serve:
        out = serve.until("Ctrl-C stops it")
        assert out.startswith("serving 2 tables of sqlite:///shop.db at http://127.0.0.1:")
        assert "hours, orders" in out
        assert main(["pull", "mine.duckdb", "orders", "--url", serve.url()]) == 0
        ctx = sf.connect(store="mine.duckdb")
        ctx["orders"].update("a", item="oat milk")
        assert main(["push", "mine.duckdb", "--url", serve.url()]) == 0
        code, err = serve.stopped(sign)

    assert (code, err) == (0, "syncframe: requests under way have 10 s to end; once more ends at once\n")
    assert rows("select item from orders where id = 'a'") == [("oat milk",)]


def test_serve_asks_for_a_key_that_a_token_file_gives_and_nothing_shows(capsys):
    Path("keys.txt").write_text(f"# who may\n\n{KEY}\n")
    Path("token.txt").write_text(f"{KEY}\n")
    with Command("serve", "sqlite:///shop.db", "--track", "--port", "0", "--tokens", "keys.txt") as serve:
        serve.until("Ctrl-C stops it")
        without = main(["pull", "mine.duckdb", "orders", "--url", serve.url()])
        with_it = main(["pull", "mine.duckdb", "orders", "--url", serve.url(), "--token-file", "token.txt"])
        _, err = serve.stopped()

    told = capsys.readouterr()
    assert (without, with_it) == (3, 0)
    assert "token" in told.err
    assert KEY not in serve.out + err + told.out + told.err
    assert KEY.encode() not in Path("mine.duckdb").read_bytes()


def test_serve_read_only_takes_no_push(capsys):
    with Command("serve", "sqlite:///shop.db", "--track", "--port", "0", "--read-only", "--tables", "orders") as serve:
        assert "serving 1 table " in serve.until("Ctrl-C stops it")
        assert main(["pull", "mine.duckdb", "orders", "--url", serve.url()]) == 0
        sf.connect(store="mine.duckdb")["orders"].update("a", item="oat milk")

        assert main(["push", "mine.duckdb", "--url", serve.url()]) == 2

    assert rows("select item from orders where id = 'a'") == [("milk",)]
    assert len(sf.connect(store="mine.duckdb").pending) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["sqlite:///shop.db"], 2, "not tracked"),
        (["sqlite:///shop.db", "--track", "--host", "0.0.0.0"], 3, "tokens"),
        (["sqlite:///shop.db", "--track", "--tables", "nowhere"], 2, "nowhere"),
        (["sqlite:///shop.db", "--track", "--tokens", "nothing.txt"], 2, "nothing.txt"),
        (["nothing.db"], 2, "scheme"),
        (["sqlite:///nothing.db"], 3, "does not exist"),
    ],
)
def test_serve_refuses_in_words(arguments, code, words, capsys):
    assert main(["serve", *arguments, "--port", "0"]) == code
    assert words in capsys.readouterr().err


def test_the_name_of_a_table_cannot_steer_a_terminal(tmp_path, capsys):
    store = tmp_path / "mine.duckdb"
    context = sf.connect(store=store)
    context.table("a\x1b[31m", {"id": "VARCHAR"}).insert({"id": "1"})

    codes = [main([command, str(store)]) for command in ("status", "pending", "conflicts")]

    assert codes == [0, 0, 0]
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["serve URL", "track URL todo"])
def test_the_password_in_a_url_is_never_printed(command):
    words = command.replace("URL", "postgresql+psycopg2://me:hush@h/db").split()
    done = subprocess.run(
        [sys.executable, "-m", "syncframe", *words], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode != 0
    assert "hush" not in done.stdout + done.stderr
    assert "postgresql://me@h/db" in done.stderr
