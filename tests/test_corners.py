"""Corners that were once wrong: two notebooks on one store, columns that come later, hostile names, the stop button."""

from __future__ import annotations

import pytest
from stories import Line, synced, todo_database

import syncframe as sf
from syncframe.backends import open as open_backend


def test_an_edit_made_while_an_answer_was_under_way_outlives_a_late_accepted(tmp_path):
    database = todo_database(tmp_path, tracked=False)
    line = Line(open_backend(database.url))
    store = tmp_path / "shared.duckdb"
    first, second = synced(line, store), sf.connect(database.url, store=store)
    first["todo"].update("a", n=50)

    def meanwhile(*_):
        line.before_answer = None
        database.run("update todo set n = 77 where id = 'a'")
        second["todo"].pull(query_id="all", push_first=False, progress=False)
        second["todo"].update("a", title="typed in flight")

    line.before_answer = meanwhile
    result = first.push()

    assert [c.mine["title"] for c in first.conflicts] == ["typed in flight"]
    assert first["todo"].get("a")["title"] == "typed in flight"
    assert len(first.pending) == 1
    assert result.counts["conflicts"] == 1


@pytest.mark.parametrize("statement", ["delete from syncframe_edits.todo", "update syncframe_rows.todo set v_n = 0"])
def test_a_query_that_writes_behind_a_with_is_refused_and_writes_nothing(database, statement):
    context = synced(database.url)
    context["todo"].update("a", n=9)

    with pytest.raises(sf.QueryError, match="read-only"):
        context.sql(f"with x as ({statement} returning *) select * from x")

    assert context["todo"].get("a")["n"] == 9
    assert context["todo"].get("b")["n"] == 2
    assert len(context.pending) == 1


def test_an_undo_from_before_a_column_was_kept_cannot_say_null_in_it(database):
    context = sf.connect(database.url, store=":memory:")
    context["todo"].pull(columns=["title"], query_id="all")
    context["todo"].delete("a")
    context["todo"].pull(columns=["title", "n"], query_id="all", push_first=False)

    with pytest.raises(sf.SyncError, match="nothing to take back"):
        context.undo()
    context.discard()

    assert context["todo"].get("a") == {"id": "a", "title": "milk", "n": 1}


def test_the_remote_of_a_conflict_gets_the_columns_that_are_kept_later(database):
    context = sf.connect(database.url, store=":memory:")
    context["todo"].pull(columns=["title"], query_id="all")
    context["todo"].update("a", title="mine")
    database.run("update todo set title = 'theirs' where id = 'a'")
    context.push()
    context["todo"].pull(columns=["title", "n"], query_id="all")

    context.conflicts["todo", "a"].take_theirs()

    assert context["todo"].get("a") == {"id": "a", "title": "theirs", "n": 1}


def test_a_table_s_policy_leaves_the_conflicts_of_other_tables(database):
    context = synced(database.url)
    context["lists"].update("home", name="mine")
    database.run("update lists set name = 'theirs' where id = 'home'")
    context.push()
    context["todo"].update("a", n=9)

    context.table("todo", on_conflict="mine").pull(query_id="all")

    assert database.rows("select name from lists where id = 'home'") == [("theirs",)]
    assert [c.key for c in context.conflicts] == ["home"]


def test_a_query_on_a_column_that_is_not_kept_stands_beside_another(database):
    context = sf.connect(database.url, store=":memory:")
    context["todo"].pull("n > 2", columns=["title"], query_id="many")

    context["todo"].pull("n < 2", columns=["title"], query_id="few")

    assert sorted(context["todo"].frame().index) == ["a", "c"]


def test_a_key_with_a_quote_in_its_name_is_a_name(tmp_path):
    context = sf.connect(store=":memory:")
    table = context.table("t", {'a"b': "VARCHAR", "v": "BIGINT"}, key='a"b')
    table.insert({'a"b': "x", "v": 1})

    table.update("x", v=2)
    shown = table.get("x")
    table.delete("x")

    assert shown == {'a"b': "x", "v": 2}
    assert len(table) == 0


def test_inserted_rows_keep_their_order_whatever_columns_each_gives():
    context = sf.connect(store=":memory:")
    table = context.table("t", {"id": "VARCHAR", "a": "BIGINT", "b": "BIGINT"})

    keys = table.insert([{"id": "3", "a": 1}, {"id": "1", "b": 2}, {"a": 3, "id": "2"}])

    assert keys == ["3", "1", "2"]
    assert [op.key for op in context.pending] == ["3", "1", "2"]


@pytest.mark.parametrize("statement", ["attach", "use memory", "begin"])
def test_a_call_stopped_behind_any_statement_leaves_a_store_that_works(tmp_path, monkeypatch, statement):
    context = sf.connect(store=tmp_path / "s.duckdb")
    table = context.table("t", {"id": "VARCHAR"})
    file = context._store.file

    class Stopped:
        def __init__(self, connection):
            self.connection = connection

        def __getattr__(self, name):
            return getattr(self.connection, name)

        def execute(self, text, *rest):
            result = self.connection.execute(text, *rest)
            if text.startswith(statement):
                raise KeyboardInterrupt
            return result

    real = file._connection
    file._connection = Stopped(real)
    with pytest.raises(KeyboardInterrupt):
        table.insert({"id": "a"})
    file._connection = real

    table.insert({"id": "b"})

    assert "b" in table.frame().index


def test_two_tables_whose_names_differ_by_a_word_are_two_tables():
    context = sf.connect(store=":memory:")

    for name in ("todo", "todo edits", "todo rows"):
        context.table(name, {"id": "VARCHAR"}).insert({"id": name})

    assert {name: list(context[name].frame().index) for name in context.tables} == {
        "todo": ["todo"], "todo edits": ["todo edits"], "todo rows": ["todo rows"],
    }  # fmt: skip


def test_a_table_that_changed_at_the_back_end_is_pulled_after_a_purge(database):
    context = synced(database.url)
    database.run("drop table audit")
    for trigger in ("insert", "update", "delete", "lists", "lists_delete"):
        database.run(f"drop trigger audit_{trigger}")
    backend = open_backend(database.url)
    backend.untrack(["todo"])
    database.run("alter table todo drop column stars")
    backend.track(["todo"])
    with pytest.raises(sf.SchemaError, match="columns gone 'stars'"):
        context["todo"].pull(query_id="all")

    context["todo"].purge()
    context["todo"].pull(query_id="all")

    assert context["todo"].columns == ["list", "title", "n", "code"]
    assert len(context["todo"]) == 3


def test_one_undo_takes_back_a_discard_of_two_tables(database):
    context = synced(database.url)
    context["todo"].update("a", n=9)
    context["lists"].update("home", name="mine")
    context.discard()

    context.undo()

    assert context["todo"].get("a")["n"] == 9
    assert context["lists"].get("home")["name"] == "mine"


def test_a_frame_whose_edits_were_taken_back_says_so_when_it_is_staged_again(database):
    context = synced(database.url)
    frame = context["todo"].frame()
    frame.loc["a", "n"] = 9
    context["todo"].stage(frame)
    context.undo()

    again = context["todo"].stage(frame)
    as_it_stands = context["todo"].stage(frame, base="current")

    assert not again
    assert 'base="current"' in repr(again)
    assert as_it_stands.counts["update"] == 1


def test_a_store_that_is_a_sqlite_file_or_the_back_end_itself_is_refused(database, tmp_path):
    with pytest.raises(sf.StoreError, match="is a SQLite database"):
        sf.connect(store=database.path)
    with pytest.raises(sf.SyncError, match="as the back end and as the store"):
        sf.connect(f"duckdb:///{tmp_path}/one.duckdb", store=tmp_path / "one.duckdb")


def test_another_back_end_with_nothing_pending_is_said(database, tmp_path):
    other = todo_database(tmp_path, "other.db")
    store = tmp_path / "s.duckdb"
    synced(database.url, store)

    result = sf.connect(other.url, store=store)["todo"].pull(query_id="all")

    assert "this store belonged to" in result.notes[0]


def test_keep_mine_of_an_insert_whose_rival_was_deleted_leaves_the_defaults_to_the_back_end(database):
    context = synced(database.url)
    context["todo"].insert({"id": "z", "title": "new", "list": "home"})
    database.run("insert into todo (id, title) values ('z', 'other')")
    context.push()
    database.run("delete from todo where id = 'z'")
    context["todo"].pull(query_id="all", push_first=False)

    context.conflicts["todo", "z"].keep_mine()
    context.push()

    assert database.rows("select title, list, n, stars from todo where id = 'z'") == [("new", "home", None, 3)]


def test_an_atomic_push_that_was_certainly_not_sent_leaves_nothing_attempted(database):
    class Unplugged(Line):
        def push_atomic(self, batches):
            raise sf.TransientError("offline", was_sent=False)

    context = synced(Unplugged(open_backend(database.url)))
    context["todo"].update("a", n=9)

    with pytest.raises(sf.TransientError):
        context.push(atomic=True)

    assert [operation.attempted for operation in context.pending] == [False]


def test_a_resync_of_a_table_that_was_never_pulled_keeps_its_rows(database):
    context = sf.connect(database.url, store=":memory:")
    table = context.table("lists", {"id": "VARCHAR", "name": "VARCHAR"})
    table.insert({"id": "new", "name": "New"})
    context.push()

    result = table.resync()

    assert result.skipped == ["lists"]
    assert table.get("new") == {"id": "new", "name": "New"}
