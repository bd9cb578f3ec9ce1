"""The local file: its format, its views for plain DuckDB, its life, and what can be read, undone and given up in it."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import os
import sqlite3
import stat
import subprocess
import sys

import duckdb
import pyarrow as pa
import pytest

import syncframe as sf
from syncframe.backends import open as open_backend

SCHEMA = {"id": "VARCHAR", "title": "VARCHAR", "n": "BIGINT"}


class Far:
    """A tracked SQLite table `todo` of three rows."""

    def __init__(self, folder):
        self.path = folder / "far.db"
        self.url = f"sqlite:///{self.path}"
        self.write(
            "create table todo (id text primary key, title text, n bigint, check (n < 1000));"
            "insert into todo values ('a', 'milk', 1), ('b', 'bread', 2), ('c', 'eggs', null)"
        )
        self.backend = open_backend(self.url)
        self.backend.track(["todo"])

    def write(self, script):
        connection = sqlite3.connect(self.path)
        connection.executescript(script)
        connection.close()

    def read(self):
        connection = sqlite3.connect(self.path)
        rows = connection.execute("select * from todo order by id").fetchall()
        connection.close()
        return rows


class Lossy:
    """Applies what is pushed, and loses every answer while `lossy`."""

    def __init__(self, inner):
        self.inner, self.lossy = inner, False

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def push(self, batch):
        for outcomes in self.inner.push(batch):
            if self.lossy:
                raise sf.TransientError("the answer was lost")
            yield outcomes


@pytest.fixture
def far(tmp_path):
    return Far(tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "here.duckdb"


@pytest.fixture
def lossy(far):
    return Lossy(far.backend)


@pytest.fixture
def ctx(lossy, path):
    made = sf.connect(lossy, store=path)
    made["todo"].pull(query_id="all")
    return made


@pytest.fixture
def todo(ctx):
    return ctx["todo"]


def titles(todo):
    return {key: row["title"] for key, row in todo.frame().iterrows()}


MILK = {"a": "milk", "b": "bread", "c": "eggs"}


@contextlib.contextmanager
def plain(path):
    """The file as anybody opens it, in UTC."""
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


def lost_push(ctx, lossy):
    """A push that was applied and whose answer was lost."""
    lossy.lossy = True
    with pytest.raises(sf.TransientError):
        ctx.push()
    lossy.lossy = False


# What plain DuckDB sees -----------------------------------------------------------------------------------------------

VIEWS = {
    "pending": ["table", "key", "kind", "column", "base", "local", "staged_at", "attempted", "error"],
    "conflicts": ["table", "key", "column", "base", "mine", "theirs"],
    "errors": ["table", "key", "kind", "code", "column", "message", "staged_at"],
    "checkpoints": ["table_name", "query_id", "filter", "pulled_at", "complete", "checkpoint"],
    "history": ["time", "action", "table", "rows", "note"],
}


@pytest.mark.parametrize("view", VIEWS)
def test_the_views_of_an_empty_store_have_their_columns(path, view):
    sf.connect(store=path)

    with plain(path) as connection:
        found = connection.sql(f"from syncframe.{view}")
        assert found.columns == VIEWS[view]
        assert found.fetchall() == []


def test_each_synced_table_is_a_view_with_its_pending_edits(path, todo):
    todo.update("a", title="oat milk")
    todo.delete("b")
    todo.insert({"id": "d", "title": "salt"})

    with plain(path) as connection:
        found = connection.sql("from todo order by id")
        assert found.columns == ["id", "title", "n"]
        assert found.fetchall() == [("a", "oat milk", 1), ("c", "eggs", None), ("d", "salt", None)]


def test_the_view_of_pending_operations_has_a_row_for_each_changed_cell(path, todo):
    todo.update("a", title="oat milk", n=7)
    todo.delete("b")
    todo.insert({"id": "d", "title": "salt"})

    with plain(path) as connection:
        rows = connection.execute("select * exclude (staged_at) from syncframe.pending").fetchall()
        stamps = connection.execute("select distinct typeof(staged_at) from syncframe.pending").fetchall()

    assert sorted(rows[:2]) == [
        ("todo", "a", "update", "n", "1", "7", False, None),
        ("todo", "a", "update", "title", "milk", "oat milk", False, None),
    ]
    assert rows[2:] == [
        ("todo", "b", "delete", None, None, None, False, None),
        ("todo", "d", "insert", None, None, None, False, None),
    ]
    assert stamps == [("TIMESTAMP WITH TIME ZONE",)]


def test_the_views_of_conflicts_and_errors_say_what_stands(far, path, ctx, todo):
    todo.update("a", title="mine")
    todo.update("b", n=5000)
    far.write("update todo set title = 'theirs' where id = 'a'")
    ctx.push()

    with plain(path) as connection:
        conflicts = connection.execute("from syncframe.conflicts").fetchall()
        errors = connection.execute("select * exclude (message, staged_at) from syncframe.errors").fetchall()
        ((message,),) = connection.execute("select message from syncframe.errors").fetchall()

    assert conflicts == [("todo", "a", "title", "milk", "mine", "theirs")]
    assert errors == [("todo", "b", "update", "check", None)]
    assert "CHECK constraint failed" in message


def test_the_view_of_checkpoints_names_the_queries(path, todo):
    todo.pull("n = 1")
    todo.pull("n = 2", query_id="two")

    with plain(path) as connection:
        rows = connection.execute(
            "select table_name, query_id, filter, complete, checkpoint is not null from syncframe.checkpoints order by query_id"
        ).fetchall()

    assert [(t, q, done) for t, q, _, done, _ in rows] == [
        ("todo", "all", True),
        ("todo", "two", True),
        ("todo", None, True),
    ]
    assert [where for _, _, where, _, _ in rows] == [None, '"n" = 2', '"n" = 1']
    assert [has for *_, has in rows][:2] == [True, True]


def test_the_views_say_the_same_as_the_frames(far, path, ctx, todo):
    todo.update("a", title="mine", n=3)
    todo.insert({"id": "d"})
    far.write("update todo set title = 'theirs' where id = 'a'")
    ctx.push()

    with plain(path) as connection:
        pending = connection.sql("from syncframe.pending").to_arrow_table().to_pylist()
        conflicts = connection.sql("from syncframe.conflicts").to_arrow_table().to_pylist()
        history = connection.sql("from syncframe.history").to_arrow_table().to_pylist()

    assert list(ctx.pending.frame().columns) == VIEWS["pending"]
    assert list(ctx.conflicts.frame().columns) == VIEWS["conflicts"]
    assert list(ctx.history.columns) == VIEWS["history"]
    assert sorted(r["column"] for r in pending) == sorted(ctx.pending.frame()["column"]) == ["n", "title"]
    assert [r["column"] for r in conflicts] == ctx.conflicts.frame()["column"].tolist()
    assert [r["action"] for r in history] == ctx.history["action"].tolist() == ["pull", "update", "insert", "push"]


def test_a_table_with_a_quote_in_its_name_is_a_view_of_that_name(path):
    ctx = sf.connect(store=path)
    table = ctx.table('it\'s "so"', schema={"id": "VARCHAR", 'a "b"': "BIGINT"})
    table.insert({"id": "1", 'a "b"': 2})
    table.update("1", {'a "b"': 3})

    with plain(path) as connection:
        assert connection.execute('from "it\'s ""so"""').fetchall() == [("1", 3)]
        assert connection.execute('select "table", key, kind from syncframe.pending').fetchall() == [
            ('it\'s "so"', "1", "insert")
        ]


WORDS = [
    "given", "deleted", "attempted", "sequence", "staged_at", "rev", "there", "version", "operation", "created", "updated",
    "touched", "key", "kind", "error", "pending", "base", "local", "remote", "title_", "k", "v", "l", "r", "b",
]  # fmt: skip


def test_columns_may_bear_the_names_of_the_bookkeeping(tmp_path):
    far = Far(tmp_path)
    names = ", ".join(f'"{name}" bigint' for name in WORDS)
    ones = ", ".join("1" for _ in WORDS)
    far.write(
        f"create table t (k0 text primary key, {names}, other text);"
        f"insert into t values ('a', {ones}, 'x'), ('b', {ones}, 'y')"
    )
    far.backend.track(["t"])
    my_ctx, their_ctx = (sf.connect(far.backend, store=":memory:") for _ in range(2))
    mine, theirs = my_ctx["t"], their_ctx["t"]
    mine.pull(query_id="all")
    theirs.pull(query_id="all")
    here, there = ({name: start + at for at, name in enumerate(WORDS)} for start in (200, 100))
    frame = theirs.frame()
    frame.loc["a", WORDS] = [*there.values()]
    frame.loc["c"] = [*there.values(), "z"]
    theirs.stage(frame)
    their_ctx.push()
    mine.update("a", here)

    mine.pull(query_id="all")

    (conflict,) = mine.conflicts
    assert [{name: side[name] for name in WORDS} for side in (conflict.base, conflict.mine, conflict.theirs)] == [
        dict.fromkeys(WORDS, 1), here, there
    ]  # fmt: skip
    pending = mine.pending.frame()[["column", "base", "local"]].values.tolist()
    assert sorted(pending) == sorted([name, 1, value] for name, value in here.items())
    conflict.keep_mine()
    assert my_ctx.push().ok
    assert mine.get("a") == {"k0": "a", **here, "other": "x"}
    assert mine.get("c") == {"k0": "c", **there, "other": "z"}
    theirs.pull(query_id="all")
    assert {name: theirs.get("a")[name] for name in WORDS} == here


# The file itself ------------------------------------------------------------------------------------------------------


def test_a_new_file_is_readable_by_its_owner_only(path):
    sf.connect(store=path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_keeps_its_mode_when_opened_again(path):
    sf.connect(store=path)
    path.chmod(0o640)

    sf.connect(store=path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_store_keeps_its_identity_and_a_second_one_has_its_own(path, tmp_path):
    def identity(of):
        with plain(of) as connection:
            return connection.execute("select store_id, format from syncframe_meta.store").fetchall()

    sf.connect(store=path)
    first = identity(path)
    sf.connect(store=path)["x"]
    sf.connect(store=tmp_path / "other.duckdb")

    assert identity(path) == first
    assert [number for _, number in first] == [1]
    assert identity(tmp_path / "other.duckdb") != first


def test_the_store_remembers_the_back_end_by_identity_and_not_by_path(far, path, ctx, todo, tmp_path):
    todo.update("a", title="mine")
    far.path.rename(tmp_path / "moved.db")

    moved = sf.connect(f"sqlite:///{tmp_path}/moved.db", store=path)

    assert moved.push().counts == {"accepted": 1, "conflicts": 0, "rejected": 0}


def test_another_back_end_without_pending_operations_is_pulled_in_full(far, path, ctx, tmp_path):
    (tmp_path / "other").mkdir()
    other = Far(tmp_path / "other")
    other.write("delete from todo where id = 'b'; update todo set title = 'tofu' where id = 'a'")

    second = sf.connect(other.url, store=path)
    second["todo"].pull(query_id="all")

    assert titles(second["todo"]) == {"a": "tofu", "c": "eggs"}


def test_what_was_staged_is_there_after_a_restart(path, todo):
    todo.update("a", title="oat milk")
    code = f"import syncframe as sf; c = sf.connect(store={str(path)!r}); print(len(c.pending), c['todo'].get('a')['title'])"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert said == "1 oat milk\n"


def test_times_are_kept_in_utc_whatever_the_time_zone_of_the_process(path):
    code = f"""
import datetime as dt, syncframe as sf
ctx = sf.connect(store={str(path)!r})
table = ctx.table("t", schema={{"id": "VARCHAR", "moment": "TIMESTAMPTZ"}})
table.insert({{"id": "a", "moment": dt.datetime(2013, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))}})
print(table.frame()["moment"].iloc[0].isoformat(), ctx.sql("select moment::varchar as m from t")["m"].iloc[0])
print(table.frame("hour(moment) = 10").index.tolist(), ctx.history["time"].dtype)
"""
    tokyo = {**os.environ, "TZ": "Asia/Tokyo"}

    said = subprocess.run([sys.executable, "-c", code], env=tokyo, capture_output=True, text=True, check=True).stdout

    assert said == "2013-01-01T10:00:00+00:00 2013-01-01 10:00:00+00\n['a'] datetime64[us, UTC]\n"
    with plain(path) as connection:
        ((age,),) = connection.execute("select epoch(now()) - epoch(max(time)) from syncframe.history").fetchall()
    assert abs(age) < 3600  # Tokyo is nine hours away


def test_the_file_is_held_only_inside_a_call(path, ctx, todo):
    """DuckDB lets one process in at a time, so that another one gets in between two calls only if nothing is held."""
    code = f"import duckdb; c = duckdb.connect({str(path)!r}); print(c.execute('select count(*) from todo').fetchall()[0][0])"

    def another_process():
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout

    frame = todo.frame()
    frame.loc["a", "title"] = "x"
    seen = [another_process()]
    for step in (
        lambda: todo.diff(frame), lambda: todo.stage(frame), lambda: ctx.pending.frame(), lambda: list(ctx.pending), ctx.push,
        lambda: todo.pull(query_id="all"), lambda: ctx.sql("from todo"), todo.arrow, ctx.status, ctx.conflicts.frame, lambda: len(todo),
        lambda: next(iter(ctx.pending), None), lambda: repr(ctx), lambda: todo.get("a"),
    ):  # fmt: skip
        step()
        seen.append(another_process())

    assert seen == ["3\n"] * 15


def test_a_call_that_failed_does_not_hold_the_file(path, ctx, todo):
    for wrong in (lambda: todo.update("zzz", title="x"), lambda: ctx.sql("from nowhere"), lambda: todo.frame("n >")):
        with pytest.raises(sf.SyncError):
            wrong()

    with duckdb.connect(str(path)) as connection:
        assert connection.execute("select count(*) from todo").fetchall() == [(3,)]


def test_a_relation_is_lazy_and_holds_the_file_as_long_as_it_lives(path, ctx, todo):
    todo.update("a", title="oat milk")
    code = f"import duckdb; duckdb.connect({str(path)!r})"

    def is_free():
        return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0

    relation = todo.relation()
    rows = sorted(relation.filter("n = 1 or n is null").fetchall(), key=str)
    held = is_free()
    del relation
    gc.collect()

    assert rows == [("a", "oat milk", 1), ("c", "eggs", None)]
    assert (held, is_free()) == (False, True)


def test_this_process_goes_on_beside_its_own_relation(ctx, todo):
    relation = todo.relation()

    todo.update("a", title="oat milk")
    second = todo.relation()

    assert titles(todo)["a"] == "oat milk"
    assert len(second.fetchall()) == 3
    del relation, second


def test_two_contexts_of_one_process_share_the_file(path, ctx, todo):
    other = sf.connect(store=path)

    other["todo"].update("a", title="oat milk")

    assert titles(todo)["a"] == "oat milk"
    assert len(ctx.pending) == len(other.pending) == 1


def test_a_store_in_memory_is_one_s_own():
    one, two = sf.connect(store=":memory:"), sf.connect(store=":memory:")

    one.table("t", schema=SCHEMA).insert({"id": "a"})

    assert (one.tables, two.tables) == (["t"], [])


# Looking --------------------------------------------------------------------------------------------------------------


def test_status_counts_what_is_in_each_table(far, ctx, todo):
    began = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    ctx.table("sites", schema=SCHEMA)
    todo.update("a", title="mine")
    todo.update("b", n=5000)
    far.write("update todo set title = 'theirs' where id = 'a'")
    ctx.push()
    todo.insert({"id": "d"})

    status = ctx.status()

    assert status.index.name == "table"
    assert list(status.index) == ["sites", "todo"]
    assert list(status.columns) == [
        "rows",
        "pending",
        "conflicts",
        "rejected",
        "last_pull",
        "last_push",
        "bytes",
        "promises",
    ]
    row = status.loc["todo"]
    assert (row["rows"], row["pending"], row["conflicts"], row["rejected"]) == (4, 3, 1, 1)
    assert began < row["last_pull"] <= row["last_push"] <= dt.datetime.now(dt.UTC)
    assert "reads only what changed" in row["promises"]
    assert "sees deletes" in row["promises"]
    assert status.loc["sites", "rows"] == 0
    assert status.loc[["sites"], ["last_pull", "last_push"]].isna().all().all()
    assert status["bytes"].min() >= 0


def test_status_of_an_untracked_table_says_that_it_is_read_in_full(far, tmp_path):
    far.write("create table plainly (id text primary key)")
    ctx = sf.connect(far.url, store=":memory:")
    ctx["plainly"].pull()

    assert "read in full each time" in ctx.status().loc["plainly", "promises"]


def test_history_says_what_was_done_when_and_to_how_many_rows(far, ctx, todo):
    frame = todo.frame()
    frame["n"] = [10, 20, 30]
    todo.stage(frame, note="counted again")
    todo.update("a", title="mine")
    todo.delete(["b", "c"])
    todo.insert([{"id": "d"}, {"id": "e"}])
    todo.revert("d")
    ctx.undo()
    far.write("update todo set title = 'theirs' where id = 'a'")
    ctx.push()
    ctx.conflicts.keep_mine()
    ctx.discard()
    todo.purge()

    history = ctx.history

    assert list(history.columns) == ["time", "action", "table", "rows", "note"]
    assert list(zip(history["action"], history["rows"], strict=True)) == [
        ("pull", 3), ("stage", 3), ("update", 1), ("delete", 2), ("insert", 2), ("revert", 1), ("undo", 1), ("push", 4),
        ("keep mine", 1), ("discard", 1), ("purge", 3),
    ]  # fmt: skip
    assert history["note"].iloc[1] == "counted again"
    assert history["time"].is_monotonic_increasing
    assert str(history["time"].dtype) == "datetime64[us, UTC]"


def test_sql_reads_the_tables_with_pending_edits_in_the_type_table_s_dtypes(ctx, todo):
    todo.update("a", n=100)
    todo.delete("b")

    found = ctx.sql(
        "select id, n, n * 0.5 as half, title like 'm%' as is_m, date '2013-01-01' as day from todo order by id"
    )

    assert found["id"].tolist() == ["a", "c"]
    assert found["n"].tolist()[0] == 100
    assert found["n"].isna().tolist() == [False, True]
    assert [str(t) for t in found.dtypes][:2] == ["str", "Int64"]
    assert str(found["is_m"].dtype) == "boolean"
    assert str(found["day"].dtype) == "date32[day][pyarrow]"


def test_sql_joins_tables(ctx, todo):
    ctx.table("shops", schema={"id": "VARCHAR", "todo": "VARCHAR"}).insert(
        [{"id": "s", "todo": "a"}, {"id": "t", "todo": "c"}]
    )

    found = ctx.sql("select s.id, t.title from shops s join todo t on t.id = s.todo order by 1")

    assert found.to_dict("list") == {"id": ["s", "t"], "title": ["milk", "eggs"]}


def test_sql_takes_duplicate_and_nested_columns(ctx, todo):
    found = ctx.sql("select id, id, [n] as list, {'t': title} as pair from todo order by 1")

    assert list(found.columns) == ["id", "id", "list", "pair"]
    assert list(found["list"].iloc[0]) == [1]
    assert found["pair"].iloc[0] == {"t": "milk"}


def test_arrow_gives_the_declared_types_the_key_first(ctx, todo):
    todo.insert({"id": "d", "title": "salt", "n": 2**53 + 1})

    rows = todo.arrow("n is not null", columns=["n"])

    assert rows.schema.names == ["id", "n"]
    assert rows.schema.field("n").type == pa.int64()
    assert rows.to_pylist() == [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "d", "n": 9007199254740993}]
    assert todo.arrow(system=True).schema.names == ["id", "title", "n", "createdAt", "updatedAt", "version", "deleted"]


def test_tables_and_schema_say_what_is_known(ctx, todo):
    ctx.table("alpha", schema=SCHEMA)
    ctx["beta"]

    assert ctx.tables == ["alpha", "todo"]
    assert (todo.name, todo.key, todo.columns, len(todo)) == ("todo", ("id",), ["title", "n"], 3)
    assert [(c.name, c.type, c.nullable) for c in todo.schema.columns] == [
        ("id", "VARCHAR", False), ("title", "VARCHAR", True), ("n", "BIGINT", True)]  # fmt: skip


def test_a_context_displays_itself(ctx, todo):
    todo.update("a", n=5)

    assert [line.split()[:7] for line in repr(ctx).splitlines()[1:]] == [
        ["table", "rows", "insert", "update", "delete", "conflicts", "rejected"],
        ["todo", "3", "0", "1", "0", "0", "0"],
    ]


# Taking back ----------------------------------------------------------------------------------------------------------


def test_undo_takes_back_one_call_and_then_the_one_before(ctx, todo):
    todo.update("a", title="1")
    todo.update("a", title="2")
    todo.delete("b")
    todo.insert({"id": "d", "title": "salt"})
    frame = todo.frame()
    frame["title"] = frame["title"] + "!"
    todo.stage(frame)

    seen = []
    for _ in range(5):
        changes = ctx.undo()
        seen.append((changes.counts, titles(todo)))

    assert seen == [
        ({"insert": 0, "update": 3, "delete": 0}, {"a": "2", "c": "eggs", "d": "salt"}),
        ({"insert": 0, "update": 0, "delete": 1}, {"a": "2", "c": "eggs"}),
        ({"insert": 1, "update": 0, "delete": 0}, {"a": "2", "b": "bread", "c": "eggs"}),
        ({"insert": 0, "update": 1, "delete": 0}, {"a": "1", "b": "bread", "c": "eggs"}),
        ({"insert": 0, "update": 1, "delete": 0}, MILK),
    ]
    assert len(ctx.pending) == 0
    with pytest.raises(sf.SyncError, match="nothing to take back"):
        ctx.undo()


def test_undo_goes_back_twenty_calls_and_no_more(ctx, todo):
    for i in range(25):
        todo.update("a", n=i + 100)

    for _ in range(20):
        ctx.undo()

    assert todo.get("a")["n"] == 104
    with pytest.raises(sf.SyncError, match="nothing to take back"):
        ctx.undo()
    assert todo.get("a")["n"] == 104


def test_undo_is_there_after_a_restart(path, far, ctx, todo):
    todo.update("a", title="oat milk")
    code = f"import syncframe as sf; c = sf.connect(store={str(path)!r}); c.undo(); print(len(c.pending), c['todo'].get('a')['title'])"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert said == "0 milk\n"


def test_undo_leaves_rows_that_were_sent_since_and_names_them(far, ctx, todo):
    frame = todo.frame()
    frame["n"] = [10, 20, 5000]
    todo.stage(frame)
    ctx.push()  # the database refuses 5000

    changes = ctx.undo()

    assert sorted(changes.left) == ["a", "b"]
    assert changes.counts == {"insert": 0, "update": 1, "delete": 0}
    assert far.read() == [("a", "milk", 10), ("b", "bread", 20), ("c", "eggs", None)]
    assert [todo.get(key)["n"] for key in "abc"] == [10, 20, None]
    assert len(ctx.pending) == 0


def test_undo_goes_back_beyond_a_revert(ctx, todo):
    todo.update("a", title="mine")
    todo.revert("a")

    first = ctx.undo()
    between = titles(todo)["a"]
    second = ctx.undo()

    assert (first.left, between, second.left) == ([], "mine", [])
    assert (titles(todo)["a"], len(ctx.pending)) == ("milk", 0)


def test_undo_keeps_what_a_pull_has_brought_since(far, ctx, todo):
    todo.update("a", title="mine")
    far.write("update todo set title = 'rye' where id = 'b'")
    todo.pull(query_id="all", push_first=False)

    ctx.undo()

    assert titles(todo) == {"a": "milk", "b": "rye", "c": "eggs"}


def test_undo_of_a_discard_brings_the_edits_back(ctx, todo):
    todo.update("a", title="mine")
    todo.delete("b")
    todo.insert({"id": "d", "title": "salt"})

    given_up = ctx.discard()
    after = titles(todo)
    ctx.undo()

    assert (given_up, after) == (3, MILK)
    assert titles(todo) == {"a": "mine", "c": "eggs", "d": "salt"}
    assert sorted((o.key, o.kind) for o in ctx.pending) == [("a", "update"), ("b", "delete"), ("d", "insert")]


def in_conflict(far, ctx, todo):
    todo.update("a", title="mine")
    far.write("update todo set title = 'theirs', n = 7 where id = 'a'")
    ctx.push()
    return ctx.conflicts["todo", "a"]


@pytest.mark.parametrize(
    ("settle", "row"),
    [
        (lambda c: c.keep_mine(), ("mine", 7)),
        (lambda c: c.take_theirs(), ("theirs", 7)),
        (lambda c: c.resolve({"title": "both"}), ("both", 7)),
    ],
    ids=["keep_mine", "take_theirs", "resolve"],
)
def test_undo_of_a_resolution_opens_the_conflict_again(far, ctx, todo, settle, row):
    settle(in_conflict(far, ctx, todo))
    settled = (len(ctx.conflicts), todo.get("a")["title"], todo.get("a")["n"])

    ctx.undo()

    assert settled == (0, *row)
    conflict = ctx.conflicts["todo", "a"]
    assert (dict(conflict.base), dict(conflict.mine), dict(conflict.theirs)) == (
        {"id": "a", "title": "milk", "n": 1}, {"id": "a", "title": "mine", "n": 1}, {"id": "a", "title": "theirs", "n": 7})  # fmt: skip
    conflict.keep_mine()
    assert ctx.push().ok
    assert far.read()[0] == ("a", "mine", 7)


def test_undo_of_a_resolution_that_was_sent_is_left(far, ctx, todo):
    in_conflict(far, ctx, todo).keep_mine()
    ctx.push()

    changes = ctx.undo()

    assert (changes.counts, changes.left) == ({"insert": 0, "update": 0, "delete": 0}, ["a"])
    assert (len(ctx.conflicts), far.read()[0]) == (0, ("a", "mine", 7))


def test_undo_of_an_edit_of_a_row_in_conflict_leaves_the_conflict(far, ctx, todo):
    in_conflict(far, ctx, todo)
    todo.update("a", title="mine too")

    ctx.undo()

    conflict = ctx.conflicts["todo", "a"]
    assert (conflict.mine["title"], conflict.theirs["title"]) == ("mine", "theirs")


# Giving up ------------------------------------------------------------------------------------------------------------


def test_revert_gives_up_the_operations_of_some_keys(ctx, todo):
    todo.update("a", title="mine")
    todo.update("b", title="rye")
    todo.insert({"id": "d"})

    given_up = todo.revert(["a", "d"])

    assert given_up == 2
    assert titles(todo) == {"a": "milk", "b": "rye", "c": "eggs"}
    assert [o.key for o in ctx.pending] == ["b"]


def test_an_operation_gives_itself_up(ctx, todo):
    todo.update("a", title="mine")
    todo.delete("b")

    next(o for o in ctx.pending if o.key == "b").revert()

    assert titles(todo) == {"a": "mine", "b": "bread", "c": "eggs"}


def test_discard_of_a_row_in_conflict_makes_it_the_remote_one(far, ctx, todo):
    in_conflict(far, ctx, todo)

    ctx.discard()

    assert todo.get("a") == {"id": "a", "title": "theirs", "n": 7}
    assert (len(ctx.pending), len(ctx.conflicts)) == (0, 0)


def test_giving_up_what_may_be_applied_already_queues_its_inverse(far, lossy, ctx, todo):
    todo.update("a", title="mine", n=9)
    todo.delete("b")
    todo.insert({"id": "d", "title": "salt"})
    lost_push(ctx, lossy)
    assert far.read() == [("a", "mine", 9), ("c", "eggs", None), ("d", "salt", None)]

    ctx.discard()

    assert titles(todo) == MILK
    assert sorted((o.key, o.kind, o.attempted) for o in ctx.pending) == [
        ("a", "update", False), ("a", "update", True), ("b", "delete", True), ("b", "insert", False),
        ("d", "delete", False), ("d", "insert", True)]  # fmt: skip
    assert ctx.push().ok
    assert far.read() == [("a", "milk", 1), ("b", "bread", 2), ("c", "eggs", None)]
    assert titles(todo) == MILK


def test_giving_up_a_follower_of_what_may_be_applied_takes_both_back(far, lossy, ctx, todo):
    todo.update("a", title="first")
    lost_push(ctx, lossy)
    todo.update("a", title="second")

    ctx.discard()
    ctx.push()

    assert far.read()[0] == ("a", "milk", 1)
    assert titles(todo) == MILK
    assert len(ctx.pending) == 0


def test_undo_leaves_what_may_be_applied_already(far, lossy, ctx, todo):
    todo.update("a", title="mine")
    lost_push(ctx, lossy)

    changes = ctx.undo()
    ctx.push()

    assert changes.left == ["a"]
    assert far.read()[0] == ("a", "mine", 1)
    assert titles(todo)["a"] == "mine"


def test_discard_of_one_table_leaves_the_others(ctx, todo):
    ctx.table("sites", schema=SCHEMA).insert({"id": "s"})
    todo.update("a", title="mine")

    ctx.discard("todo")

    assert [(o.table, o.key) for o in ctx.pending] == [("sites", "s")]


def test_a_rejected_operation_that_is_given_up_leaves_no_error(path, ctx, todo):
    todo.update("b", n=5000)
    ctx.push()

    todo.discard()

    assert len(ctx.pending) == 0
    with plain(path) as connection:
        assert connection.execute("from syncframe.errors").fetchall() == []
    assert todo.get("b")["n"] == 2


def test_a_short_hold_of_another_process_is_waited_for(path, ctx, todo):
    code = f"import duckdb, sys, time; c = duckdb.connect({str(path)!r}); print('held', flush=True); time.sleep(0.5)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        todo.update("a", title="oat milk")
        holder.wait()

    assert titles(todo)["a"] == "oat milk"
