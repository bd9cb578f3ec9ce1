"""Pull: what changed is brought, what is gone goes, and nothing else is touched."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import time

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from stories import Line

import syncframe as sf
from syncframe.backends import Checkpoint, Page
from syncframe.backends import open as open_backend
from syncframe.pull import together

COLUMNS = ("id", "month", "dest", "delay", "note")
DESTS = ("ATL", "LAX", "ORD", "SFO", "SEA")
SMALL, FULL = 1_200, 336_776
NOTHING = {"inserted": 0, "updated": 0, "deleted": 0, "conflicts": 0, "unchanged": 0, "rows": 0}


class Far:
    """A SQLite database with a table `flights`, written by the sqlite3 module: a twelfth of its rows in each month."""

    def __init__(self, folder, rows=SMALL, *, tracked=True):
        self.path = folder / "far.db"
        self.url = f"sqlite:///{self.path}"
        self.write(
            "create table flights (id text primary key, month bigint, dest text, delay bigint, note text);"
            "create table airports (id text primary key, name text)"
        )
        made = ((f"f{i:06}", i % 12 + 1, DESTS[i % 5], i % 97, None) for i in range(rows))
        connection = sqlite3.connect(self.path)
        with connection:
            connection.executemany("insert into flights values (?, ?, ?, ?, ?)", made)
        connection.close()
        self.backend = open_backend(self.url)
        if tracked:
            self.backend.track(["flights", "airports"])

    def write(self, script):
        connection = sqlite3.connect(self.path)
        connection.executescript(f"begin; {script}; commit")
        connection.close()

    def read(self, where="true", columns=COLUMNS):
        connection = sqlite3.connect(self.path)
        rows = connection.execute(f"select {', '.join(columns)} from flights where {where} order by id").fetchall()
        connection.close()
        return rows

    def keys(self, where="true"):
        return [row[0] for row in self.read(where)]


def here(table, columns=COLUMNS):
    """The rows of a table as they are here."""
    rows = table.arrow(columns=[name for name in columns if name != "id"]).sort_by("id").to_pylist()
    return [tuple(row[name] for name in columns) for row in rows]


def counted(result):
    return {name: getattr(result, name) for name in NOTHING}


class Wrapped:
    """A back end whose answers a test may delay, count or lose."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.fixture
def far(tmp_path):
    return Far(tmp_path)


@pytest.fixture
def ctx(far):
    return sf.connect(far.backend, store=":memory:")


@pytest.fixture
def flights(ctx):
    return ctx["flights"]


# Acceptance, row 3 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "changed"),
    [pytest.param(SMALL, 50, id="small"), pytest.param(FULL, 1_000, id="full", marks=pytest.mark.full)],
)
def test_an_incremental_pull_brings_what_changed_and_no_more(tmp_path, rows, changed):
    far = Far(tmp_path, rows)
    flights = sf.connect(far.backend, store=tmp_path / "here.duckdb")["flights"]
    january = rows // 12 + (rows % 12 > 0)

    first = flights.pull("month = 1", query_id="january")
    asked = far.backend.statements
    nothing_new = flights.pull("month = 1", query_id="january")
    statements = far.backend.statements - asked
    keys = far.keys("month = 1")
    coming = far.keys("month = 2")
    assert (len(keys), len(set(keys))) == (january, january)
    listed = [", ".join(f"'{k}'" for k in part) for part in (keys[:changed], keys[-10:], keys[-15:-10], coming[:5])]
    far.write(
        f"update flights set delay = delay + 1 where id in ({listed[0]}); delete from flights where id in ({listed[1]});"
        f"update flights set month = 7 where id in ({listed[2]}); update flights set month = 1 where id in ({listed[3]})"
    )
    third = flights.pull("month = 1", query_id="january")
    again = flights.pull("month = 1", query_id="january")

    assert counted(first) == NOTHING | {"inserted": january, "rows": january}
    assert counted(nothing_new) == NOTHING
    assert nothing_new.requests == 1
    assert statements <= 8
    assert counted(third) == NOTHING | {"inserted": 5, "updated": changed, "deleted": 15, "rows": changed + 15}
    assert third.requests == 1
    assert counted(again) == NOTHING
    assert here(flights) == far.read("month = 1")


@pytest.mark.full
def test_an_incremental_pull_of_real_flights_brings_what_changed_and_no_more(tmp_path):
    demo = pytest.importorskip("syncframe.demo")
    demo.demo_database(tmp_path / "far.db")
    columns = ("id", "month", "dest", "dep_delay", "note")
    connection = sqlite3.connect(tmp_path / "far.db")
    backend = open_backend(f"sqlite:///{tmp_path}/far.db")
    flights = sf.connect(backend, store=tmp_path / "here.duckdb")["flights"]

    first = flights.pull("month = 1", query_id="january")
    with connection:
        picked = [row[0] for row in connection.execute("select id from flights where month = 1 order by id limit 1015")]
        changed, deleted, leaving = picked[:1000], picked[1000:1010], picked[1010:]
        connection.executemany("update flights set note = 'seen' where id = ?", [[k] for k in changed])
        connection.executemany("delete from flights where id = ?", [[k] for k in deleted])
        connection.executemany("update flights set month = 2 where id = ?", [[k] for k in leaving])
        connection.execute(
            "update flights set month = 1 where id in (select id from flights where month = 3 order by id limit 5)"
        )
    asked = backend.statements
    second = flights.pull("month = 1", query_id="january")
    statements = backend.statements - asked
    third = flights.pull("month = 1", query_id="january")

    assert counted(first) == NOTHING | {"inserted": 27_004, "rows": 27_004}
    assert counted(second) == NOTHING | {"inserted": 5, "updated": 1_000, "deleted": 15, "rows": 1_015}
    assert second.requests == 1
    assert statements <= 8
    assert counted(third) == NOTHING
    there = connection.execute(f"select {', '.join(columns)} from flights where month = 1 order by id").fetchall()
    connection.close()
    assert here(flights, columns) == there


def test_the_statements_of_a_pull_do_not_grow_with_the_table(tmp_path):
    asked = []
    for rows in (120, 1_200):
        (tmp_path / str(rows)).mkdir()
        far = Far(tmp_path / str(rows), rows)
        flights = sf.connect(far.backend, store=":memory:")["flights"]
        flights.pull(query_id="all")
        far.write("update flights set note = 'x' where month = 1")
        before = far.backend.statements
        flights.pull(query_id="all")
        asked.append(far.backend.statements - before)

    assert asked[0] == asked[1]


def test_two_query_ids_that_overlap_hold_the_union(far, flights):
    def pull_both():
        return [flights.pull(where, query_id=name) for name, where in queries.items()]

    queries = {"early": "month <= 2", "later": "month >= 2 and month <= 4"}
    pull_both()
    assert here(flights) == far.read("month <= 4")
    one, two, four = far.keys("month = 1"), far.keys("month = 2"), far.keys("month = 4")

    far.write(
        f"update flights set month = 3 where id = '{two[0]}';"  # leaves early, later holds it
        f"update flights set month = 1 where id = '{two[1]}';"  # leaves later, early holds it
        f"update flights set month = 9 where id = '{two[2]}';"  # leaves both
        f"update flights set month = 4 where id = '{one[0]}';"  # from early into later
        f"update flights set month = 2 where id = '{four[0]}';"  # from later into both
        f"delete from flights where id in ('{one[1]}', '{two[3]}')"
    )
    pull_both()

    assert here(flights) == far.read("month <= 4")
    assert [counted(result) for result in pull_both()] == [NOTHING, NOTHING]


def test_a_row_that_leaves_one_query_stays_while_another_holds_it(far, flights):
    flights.pull("month <= 2", query_id="early")
    flights.pull("dest = 'LAX'", query_id="lax")
    key = far.keys("month = 2 and dest = 'LAX'")[0]
    far.write(f"update flights set month = 12, note = 'moved' where id = '{key}'")

    left = flights.pull("month <= 2", query_id="early")

    assert left.deleted == 0
    assert flights.get(key) is not None
    flights.pull("dest = 'LAX'", query_id="lax")
    assert flights.get(key)["note"] == "moved"
    assert here(flights) == far.read("month <= 2 or dest = 'LAX'")


def test_a_full_pull_under_a_second_where_removes_only_what_it_brought_itself(far, flights):
    flights.pull("month = 1", query_id="january")
    flights.pull("dest = 'LAX'")
    assert here(flights) == far.read("month = 1 or dest = 'LAX'")
    lax = far.keys("dest = 'LAX' and month <> 1")
    both = far.keys("dest = 'LAX' and month = 1")

    far.write(
        f"update flights set dest = 'ORD' where id = '{lax[0]}'; delete from flights where id = '{lax[1]}';"
        f"update flights set dest = 'ORD' where id = '{both[0]}'; update flights set dest = 'LAX' where id = 'f000002'"
    )
    january = flights.pull("month = 1", query_id="january")
    second = flights.pull("dest = 'LAX'")

    assert january.updated == 1  # both[0] is still of January
    assert (second.inserted, second.updated) == (1, 0)
    assert january.deleted + second.deleted == 2  # lax[0] and lax[1]
    assert here(flights) == far.read("month = 1 or dest = 'LAX'")


def test_a_full_pull_of_nothing_that_is_not_much_removes_it(far, flights):
    flights.pull("month = 1 and dest = 'LAX' and delay < 10")
    held = len(flights)
    assert 0 < held <= 10

    far.write("update flights set delay = 99 where month = 1 and dest = 'LAX'")
    result = flights.pull("month = 1 and dest = 'LAX' and delay < 10")

    assert result.deleted == held
    assert len(flights) == 0


# Pages and interruptions ----------------------------------------------------------------------------------------------


def stop_after(pages):
    """A progress callable that stops the work, as the stop button does, when so many pages are stored."""
    seen = []

    def tell(done, total, what):
        seen.append((done, total, what))
        if len(seen) == pages:
            raise KeyboardInterrupt

    return tell


def test_an_interrupted_pull_goes_on_where_it_stopped(far, flights):
    with pytest.raises(KeyboardInterrupt):
        flights.pull(query_id="all", page_rows=100, progress=stop_after(3))

    assert len(flights) == 300
    rest = flights.pull(query_id="all", page_rows=100)
    assert rest.rows == rest.inserted == 900
    assert here(flights) == far.read()


def test_an_interrupted_full_pull_begins_anew_and_removes_nothing(far, flights):
    flights.pull("month <= 6")
    far.write("delete from flights where month = 1")

    with pytest.raises(KeyboardInterrupt):
        flights.pull("month <= 6", page_rows=100, progress=stop_after(2))

    assert len(flights) == 600
    again = flights.pull("month <= 6", page_rows=100)
    assert (again.rows, again.deleted) == (500, 100)
    assert here(flights) == far.read("month <= 6")


def test_progress_is_told_the_rows_so_far(flights):
    told = []

    flights.pull(query_id="all", page_rows=500, progress=lambda done, total, what: told.append((done, what)))

    assert told == [(500, "pull flights"), (1_000, "pull flights"), (1_200, "pull flights")]


class Meanwhile(Wrapped):
    """Between two pages, somebody writes."""

    def __init__(self, inner, write):
        super().__init__(inner)
        self.write = write

    def pull(self, *question):
        for page in self.inner.pull(*question):
            yield page
            self.write()


def test_what_is_written_between_two_pages_is_not_missed(far):
    numbers = iter(range(8))

    def write():
        if (i := next(numbers, None)) is not None:
            far.write(
                f"delete from flights where id = 'f{i:06}'; update flights set note = 'late' where id = 'f{i + 50:06}';"
                f"insert into flights values ('new{i}', 1, 'LAX', 0, null); update flights set month = 9 where id = 'f{i * 12 + 60:06}'"
            )

    ctx = sf.connect(Meanwhile(far.backend, write), store=":memory:")
    ctx["flights"].pull("month = 1", query_id="january", page_rows=20)
    ctx["flights"].pull("month <= 3", page_rows=50)
    ctx["flights"].pull("month = 1", query_id="january", page_rows=20)
    ctx["flights"].pull("month <= 3", page_rows=50)

    assert len(far.keys("id like 'new%'")) == 8
    assert here(ctx["flights"]) == far.read("month <= 3")


class EmptyPages(Wrapped):
    """Each page is followed by one without rows: the end is where the back end says so."""

    def pull(self, *question):
        for page in self.inner.pull(*question):
            yield page
            yield sf.Page(page.rows.slice(0, 0), checkpoint=page.checkpoint)


def test_a_pull_does_not_end_at_a_short_page(far):
    ctx = sf.connect(EmptyPages(far.backend), store=":memory:")

    ctx["flights"].pull(query_id="all", page_rows=500)

    assert here(ctx["flights"]) == far.read()


class Twice(Wrapped):
    """Every page comes twice."""

    def pull(self, *question):
        for page in self.inner.pull(*question):
            yield page
            yield page


def test_a_page_that_comes_twice_does_no_harm(far):
    ctx = sf.connect(Twice(far.backend), store=":memory:")
    ctx["flights"].pull("month = 1", query_id="january", page_rows=30)
    far.write("delete from flights where id = 'f000000'; update flights set month = 2 where id = 'f000012'")

    result = ctx["flights"].pull("month = 1", query_id="january", page_rows=30)

    assert result.deleted == 2
    assert here(ctx["flights"]) == far.read("month = 1")


class Repeating(Wrapped):
    """Each row stands twice in its page."""

    def pull(self, *question):
        import pyarrow as pa

        for page in self.inner.pull(*question):
            yield sf.Page(pa.concat_tables([page.rows, page.rows]), checkpoint=page.checkpoint)


def test_a_key_that_is_twice_in_a_page_is_refused_and_nothing_is_stored(far):
    ctx = sf.connect(Repeating(far.backend), store=":memory:")

    with pytest.raises(sf.BackendError, match="a page of table 'flights' has 1200 repeated keys"):
        ctx["flights"].pull(query_id="all")

    assert len(ctx["flights"]) == 0
    assert ctx.sql("select count(*) as n from syncframe.checkpoints where checkpoint is not null")["n"].tolist() == [0]


# Query ids ------------------------------------------------------------------------------------------------------------


def test_full_reads_all_again_and_removes_what_is_gone(far, flights):
    flights.pull("month <= 2", query_id="early")
    far.write("delete from flights where id = 'f000000'; update flights set delay = -1 where id = 'f000001'")

    result = flights.pull("month <= 2", query_id="early", full=True)

    assert counted(result) == NOTHING | {"updated": 1, "deleted": 1, "unchanged": 198, "rows": 199}
    assert here(flights) == far.read("month <= 2")
    assert counted(flights.pull("month <= 2", query_id="early")) == NOTHING


def test_a_changed_where_under_an_old_query_id_is_refused(far, flights):
    flights.pull("month = 1", query_id="january")

    with pytest.raises(sf.QueryError, match="query id 'january' of table 'flights' was pulled with"):
        flights.pull("month = 2", query_id="january")

    assert here(flights) == far.read("month = 1")


def test_the_same_where_written_otherwise_is_the_same_query(flights):
    flights.pull("month = 1 and dest = 'LAX'", query_id="q")

    result = flights.pull("MONTH=1 AND (dest) = 'LAX'", query_id="q")

    assert (counted(result), result.requests) == (NOTHING, 1)


def test_query_id_true_makes_the_name_from_where(ctx, flights):
    flights.pull("month = 1", query_id=True)
    flights.pull("month = 2", query_id=True)

    assert counted(flights.pull("month = 1", query_id=True)) == NOTHING
    assert counted(flights.pull("month = 2", query_id=True)) == NOTHING
    assert len(ctx.sql("select distinct query_id from syncframe.checkpoints")) == 2


# Pending edits --------------------------------------------------------------------------------------------------------


def test_the_queue_is_pushed_before_a_pull(far, ctx, flights):
    flights.pull(query_id="all")
    flights.update("f000000", note="mine")

    result = flights.pull(query_id="all")

    assert result.pushed.counts == {"accepted": 1, "conflicts": 0, "rejected": 0}
    assert far.read("id = 'f000000'") == [("f000000", 1, "ATL", 0, "mine")]
    assert len(ctx.pending) == 0


def test_a_pull_pushes_the_other_tables_up_to_its_own_last_operation(far, ctx, flights):
    ctx["airports"].pull()
    flights.pull(query_id="all")
    ctx["airports"].insert({"id": "EWR", "name": "Newark"})
    flights.update("f000000", dest="EWR")
    ctx["airports"].insert({"id": "JFK", "name": "Kennedy"})

    result = flights.pull(query_id="all")

    assert result.pushed.counts["accepted"] == 2
    assert [(o.table, o.key) for o in ctx.pending] == [("airports", "JFK")]


def test_push_first_false_leaves_the_queue(far, ctx, flights):
    flights.pull(query_id="all")
    flights.update("f000000", note="mine")
    far.write("update flights set note = 'theirs' where id = 'f000001'")

    result = flights.pull(query_id="all", push_first=False)

    assert (result.pushed, result.updated, result.conflicts) == (None, 1, 0)
    assert far.read("id = 'f000000'")[0][4] is None
    assert (flights.get("f000000")["note"], flights.get("f000001")["note"]) == ("mine", "theirs")
    assert len(ctx.pending) == 1


def test_a_conflict_in_the_push_before_does_not_stop_the_pull(far, ctx, flights):
    flights.pull(query_id="all")
    flights.update("f000000", note="mine")
    far.write("update flights set note = 'theirs' where id in ('f000000', 'f000001')")

    result = flights.pull(query_id="all")

    assert result.pushed.counts == {"accepted": 0, "conflicts": 1, "rejected": 0}
    assert flights.get("f000001")["note"] == "theirs"
    conflict = ctx.conflicts["flights", "f000000"]
    assert (conflict.base["note"], conflict.mine["note"], conflict.theirs["note"]) == (None, "mine", "theirs")


class Deaf(Wrapped):
    """Takes no operation: offline."""

    def push(self, batch):
        raise sf.TransientError("no answer", was_sent=False)


def test_a_push_that_finds_nobody_stops_the_pull(far, tmp_path):
    ctx = sf.connect(Deaf(far.backend), store=":memory:")
    ctx["flights"].pull(query_id="all")
    ctx["flights"].update("f000000", note="mine")
    far.write("update flights set note = 'theirs' where id = 'f000001'")

    with pytest.raises(sf.TransientError, match="no answer"):
        ctx["flights"].pull(query_id="all")

    assert ctx["flights"].get("f000001")["note"] is None
    assert [o.attempted for o in ctx.pending] == [False]


@pytest.mark.parametrize(
    ("policy", "note"), [("mine", "mine"), ("theirs", "theirs"), (lambda c: {"note": "both"}, "both")]
)
def test_a_policy_settles_what_a_pull_brought_into_conflict(far, ctx, flights, policy, note):
    flights.pull(query_id="all")
    flights.update("f000000", note="mine")
    far.write("update flights set note = 'theirs', delay = 77 where id = 'f000000'")

    result = flights.pull(query_id="all", push_first=False, on_conflict=policy)

    assert result.conflicts == 0
    assert flights.get("f000000") == {"id": "f000000", "month": 1, "dest": "ATL", "delay": 77, "note": note}
    assert ctx.sync().pushed.ok
    assert here(flights) == far.read()


def test_a_leaver_with_a_pending_edit_is_a_conflict(far, ctx, flights):
    flights.pull("month = 1", query_id="january")
    flights.update("f000000", note="mine")
    far.write("update flights set month = 7 where id in ('f000000', 'f000012')")

    result = flights.pull("month = 1", query_id="january", push_first=False)

    assert (result.deleted, result.conflicts) == (1, 1)
    conflict = ctx.conflicts["flights", "f000000"]
    assert (conflict.mine["note"], conflict.theirs["month"], conflict.theirs["note"]) == ("mine", 7, None)


@pytest.mark.parametrize(("settle", "note"), [("keep_mine", "mine"), ("take_theirs", None)])
def test_a_leaver_in_conflict_is_settled_and_is_not_stale_for_ever(far, ctx, flights, settle, note):
    flights.pull("month = 1", query_id="january")
    flights.update("f000000", note="mine")
    far.write("update flights set month = 7 where id = 'f000000'")
    flights.pull("month = 1", query_id="january", push_first=False)

    getattr(ctx.conflicts["flights", "f000000"], settle)()
    ctx.sync()
    far.write("update flights set delay = 500 where id = 'f000000'")
    ctx.sync()

    assert far.read("id = 'f000000'") == [("f000000", 7, "ATL", 500, note)]
    assert len(ctx.pending) == 0
    assert here(flights) == far.read("month = 1")


def test_an_edit_that_takes_a_row_out_of_its_own_filter_is_pushed_and_the_row_goes(far, ctx, flights):
    flights.pull("month = 1", query_id="january")
    flights.update("f000000", month=7)

    ctx.sync()

    assert far.read("id = 'f000000'")[0][1] == 7
    assert here(flights) == far.read("month = 1")


def test_a_pulled_row_that_says_the_same_settles_the_edit(far, ctx, flights):
    flights.pull(query_id="all")
    flights.update("f000000", note="same")
    far.write("update flights set note = 'same' where id = 'f000000'")

    result = flights.pull(query_id="all", push_first=False)

    assert (result.conflicts, len(ctx.pending)) == (0, 0)


@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "untracked"])
def test_rows_gone_from_a_full_pull_meet_their_pending_edits(tmp_path, tracked):
    far = Far(tmp_path, tracked=tracked)
    ctx = sf.connect(far.backend, store=":memory:")
    flights = ctx["flights"]
    flights.pull("month = 1")
    flights.update("f000000", note="mine")
    flights.delete("f000012")
    flights.insert({"id": "new", "month": 1})
    far.write("delete from flights where id in ('f000000', 'f000012', 'f000024')")

    result = flights.pull("month = 1", push_first=False)

    assert (result.deleted, result.conflicts) == (1, 1)
    conflict = ctx.conflicts["flights", "f000000"]
    assert (conflict.kind, conflict.mine["note"], conflict.theirs) == ("update", "mine", None)
    assert [(o.key, o.kind) for o in ctx.pending] == [("f000000", "update"), ("new", "insert")]
    conflict.keep_mine()
    assert ctx.push().counts == {"accepted": 2, "conflicts": 0, "rejected": 0}
    flights.pull("month = 1")
    assert here(flights) == far.read("month = 1")
    assert far.read("id = 'f000000'")[0][4] == "mine"


def test_a_pending_delete_of_a_row_that_changed_there_is_a_conflict(far, ctx, flights):
    flights.pull(query_id="all")
    flights.delete("f000000")
    far.write("update flights set note = 'theirs' where id = 'f000000'")

    flights.pull(query_id="all", push_first=False)

    conflict = ctx.conflicts["flights", "f000000"]
    assert (conflict.kind, conflict.mine, conflict.theirs["note"]) == ("delete", None, "theirs")
    conflict.take_theirs()
    assert flights.get("f000000")["note"] == "theirs"


# Columns --------------------------------------------------------------------------------------------------------------


def test_a_pull_of_some_columns_keeps_only_those(far, flights):
    flights.pull("month = 1", columns=["dest"], query_id="january")

    assert flights.columns == ["dest"]
    assert list(flights.frame().columns) == ["dest"]
    assert here(flights, ("id", "dest")) == far.read("month = 1", ("id", "dest"))


def test_widening_brings_the_new_columns_and_keeps_the_pending_edit(far, ctx, flights):
    flights.pull("month = 1", columns=["dest"], query_id="january")
    flights.update("f000000", dest="JFK")

    result = flights.pull("month = 1", columns=["delay"], query_id="january", push_first=False)

    assert result.conflicts == 0
    assert flights.columns == ["dest", "delay"]
    assert [(o.key, o.changed, dict(o.base), dict(o.local)) for o in ctx.pending] == [
        (
            "f000000",
            ("dest",),
            {"id": "f000000", "dest": "ATL", "delay": 0},
            {"id": "f000000", "dest": "JFK", "delay": 0},
        )
    ]
    wanted = [
        (k, "JFK" if k == "f000000" else dest, delay)
        for k, dest, delay in far.read("month = 1", ("id", "dest", "delay"))
    ]
    assert here(flights, ("id", "dest", "delay")) == wanted
    assert ctx.push().ok
    assert far.read("id = 'f000000'") == [("f000000", 1, "JFK", 0, None)]


def test_a_narrower_pull_does_not_take_columns_away(far, flights):
    flights.pull("month = 1", query_id="january")
    flights.pull("month = 2", columns=["dest"], query_id="february")

    assert flights.columns == ["month", "dest", "delay", "note"]
    assert here(flights) == far.read("month <= 2")


def test_a_column_added_at_the_back_end_comes_with_the_next_pull(far, ctx, flights):
    flights.pull("month = 1", query_id="january")
    far.write(
        "alter table flights add column gate text; update flights set gate = 'A1' where id in ('f000000', 'f000012')"
    )

    flights.pull("month = 1", query_id="january")

    columns = (*COLUMNS, "gate")
    assert flights.columns == ["month", "dest", "delay", "note", "gate"]
    assert here(flights, columns) == far.read("month = 1", columns)
    assert flights.get("f000012")["gate"] == "A1"
    flights.update("f000012", gate="B2")
    assert ctx.push().ok
    assert far.read("id in ('f000000', 'f000012')", ("id", "note", "gate")) == [
        ("f000000", None, "A1"),
        ("f000012", None, "B2"),
    ]


def test_a_column_added_at_the_back_end_leaves_a_pending_edit_alone(far, ctx, flights):
    flights.pull("month = 1", query_id="january")
    flights.update("f000000", note="mine")
    flights.insert({"id": "new", "month": 1, "note": "fresh"})
    far.write("alter table flights add column gate text default 'G'")

    result = flights.pull("month = 1", query_id="january", push_first=False)

    assert result.conflicts == 0
    assert [(o.key, o.kind, o.changed) for o in ctx.pending] == [
        ("f000000", "update", ("note",)), ("new", "insert", ("month", "note"))]  # fmt: skip
    assert ctx.push().ok
    assert far.read("id in ('f000000', 'new')", ("id", "note", "gate")) == [
        ("f000000", "mine", "G"),
        ("new", "fresh", "G"),
    ]


# Places that are lost -------------------------------------------------------------------------------------------------


def test_a_restored_backup_is_pulled_in_full_and_edits_are_kept(far, ctx, flights, tmp_path):
    flights.pull("month = 1", query_id="january")
    shutil.copy(far.path, tmp_path / "backup.db")
    far.write(
        "update flights set note = 'lost' where id = 'f000012'; insert into flights values ('gone', 1, 'LAX', 0, null)"
    )
    flights.pull("month = 1", query_id="january")
    flights.update("f000024", note="mine")
    shutil.copy(tmp_path / "backup.db", far.path)

    result = flights.pull("month = 1", query_id="january", push_first=False)

    assert len(result.notes) == 1
    assert "as after a restored backup: table 'flights' is pulled in full" in result.notes[0]
    assert (result.updated, result.deleted, result.conflicts) == (1, 1, 0)
    assert [(o.key, o.local["note"]) for o in ctx.pending] == [("f000024", "mine")]
    assert "restored backup" in ctx.history["note"].dropna().iloc[-1]
    assert ctx.sync().pushed.ok
    assert here(flights) == far.read("month = 1")
    assert far.read("id = 'f000024'")[0][4] == "mine"


def test_a_backup_restored_under_an_edited_row_is_a_conflict_and_nothing_is_lost(far, ctx, flights, tmp_path):
    flights.pull("month = 1", query_id="january")
    shutil.copy(far.path, tmp_path / "backup.db")
    far.write("update flights set note = 'lost' where id = 'f000012'")
    flights.pull("month = 1", query_id="january")
    flights.update("f000012", note="mine")
    shutil.copy(tmp_path / "backup.db", far.path)

    flights.pull("month = 1", query_id="january", push_first=False)

    conflict = ctx.conflicts["flights", "f000012"]
    assert (conflict.base["note"], conflict.mine["note"], conflict.theirs["note"]) == ("lost", "mine", None)


def test_a_new_change_log_is_pulled_in_full_with_a_note(far, flights):
    flights.pull("month = 1", query_id="january")
    far.backend.untrack(["flights"])
    far.write("delete from flights where id = 'f000000'")
    far.backend.track(["flights"])

    result = flights.pull("month = 1", query_id="january")

    assert "has a new change log since the last pull" in result.notes[0]
    assert result.deleted == 1
    assert here(flights) == far.read("month = 1")
    assert flights.pull("month = 1", query_id="january").notes == []


# Untracked tables -----------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path):
    return Far(tmp_path, tracked=False)


def test_an_untracked_table_is_read_in_full_each_time_and_the_first_pull_says_so(plain):
    flights = sf.connect(plain.backend, store=":memory:")["flights"]

    first = flights.pull("month = 1", query_id="january")
    plain.write(
        "delete from flights where id = 'f000000'; update flights set delay = -1 where id = 'f000012';"
        "update flights set month = 2 where id = 'f000024'; update flights set month = 1 where id = 'f000001'"
    )
    second = flights.pull("month = 1", query_id="january")

    assert [
        note for note in first.notes if "syncframe track" in note and "'flights' is not tracked" in note
    ] == first.notes
    assert len(first.notes) == 1
    assert second.notes == []
    assert counted(second) == NOTHING | {"inserted": 1, "updated": 1, "deleted": 2, "unchanged": 97, "rows": 99}
    assert here(flights) == plain.read("month = 1")


def test_an_untracked_edit_is_pushed_and_recognised(plain):
    ctx = sf.connect(plain.backend, store=":memory:")
    flights = ctx["flights"]
    flights.pull("month = 1", query_id="january")
    flights.update("f000000", note="mine")

    result = flights.pull("month = 1", query_id="january")

    assert result.pushed.counts["accepted"] == 1
    assert counted(result) == NOTHING | {"unchanged": 100, "rows": 100}
    assert here(flights) == plain.read("month = 1")


# Purge and resync -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [None, "delay < 20"])
def test_what_was_purged_comes_with_the_next_pull(far, ctx, flights, where):
    flights.pull("month = 1", query_id="january")

    dropped = flights.purge(where)

    assert dropped == len(far.keys(f"month = 1 and {where or 'true'}"))
    assert len(flights) == 100 - dropped
    assert ctx.sql("select count(*) as n from syncframe.checkpoints")["n"].tolist() == [0]
    assert flights.pull("month = 1", query_id="january").inserted == dropped
    assert here(flights) == far.read("month = 1")


def test_purge_with_force_drops_the_pending_edits_too(far, ctx, flights):
    flights.pull("month = 1", query_id="january")
    flights.update("f000000", note="mine")
    flights.delete("f000012")

    flights.purge(force=True)

    assert (len(ctx.pending), len(flights)) == (0, 0)
    flights.pull("month = 1", query_id="january")
    assert here(flights) == far.read("month = 1")


def test_resync_pulls_all_queries_again_and_keeps_the_edits_rebased(far, ctx, flights):
    flights.pull("month = 1", query_id="january")
    flights.pull("dest = 'LAX'")
    flights.update("f000000", note="mine")
    far.write("update flights set delay = -5 where id = 'f000012'; delete from flights where id = 'f000024'")

    result = flights.resync()

    assert (result.updated, result.deleted, result.conflicts) == (1, 1, 0)
    assert [(o.key, o.local["note"]) for o in ctx.pending] == [("f000000", "mine")]
    ctx.push()
    assert here(flights) == far.read("month = 1 or dest = 'LAX'")


def test_resync_drops_rows_that_no_query_holds(far, ctx, flights):
    flights.pull("month = 1", query_id="january")
    flights.insert({"id": "stray", "month": 5})
    ctx.push()
    assert flights.get("stray") is not None

    flights.resync()

    assert flights.get("stray") is None
    assert here(flights) == far.read("month = 1")


# The whole context ----------------------------------------------------------------------------------------------------


def test_ctx_pull_pulls_every_stored_query_and_names_what_was_never_pulled(far, ctx, flights):
    far.write("insert into airports values ('LAX', 'Los Angeles')")
    flights.pull("month = 1", query_id="january")
    flights.pull("dest = 'LAX'")
    ctx["airports"].pull()
    ctx.table("sites", schema={"id": "VARCHAR"})
    far.write(
        "update flights set note = 'x' where id in ('f000000', 'f000001'); insert into airports values ('ATL', 'Atlanta')"
    )

    result = ctx.pull()

    assert result.skipped == ["sites"]
    assert sorted(result.tables) == ["airports", "flights"]
    assert (result.tables["airports"].inserted, result.tables["flights"].updated) == (1, 2)
    assert (result.inserted, result.updated, result.deleted) == (1, 2, 0)
    assert "never pulled: sites" in repr(result)
    assert here(flights) == far.read("month = 1 or dest = 'LAX'")


def test_ctx_pull_keeps_to_the_columns_that_were_asked_for(far, ctx, flights):
    flights.pull("month = 1", columns=["dest"], query_id="january")

    ctx.pull()

    assert flights.columns == ["dest"]


def test_sync_pushes_then_pulls(far, ctx, flights):
    flights.pull(query_id="all")
    flights.update("f000000", note="mine")
    far.write("update flights set note = 'theirs' where id = 'f000001'")

    result = ctx.sync()

    assert result.pushed.counts == {"accepted": 1, "conflicts": 0, "rejected": 0}
    assert result.tables["flights"].updated == 1
    assert here(flights) == far.read()


def test_a_pull_of_one_table_leaves_the_other_alone(far, ctx, flights):
    flights.pull(query_id="all")
    ctx["airports"].pull()
    far.write("insert into airports values ('ATL', 'Atlanta'); update flights set note = 'x' where id = 'f000000'")

    result = ctx.pull("airports")

    assert list(result.tables) == ["airports"]
    assert flights.get("f000000")["note"] is None


def test_a_pulled_table_can_be_read_by_plain_duckdb(far, tmp_path):
    sf.connect(far.backend, store=tmp_path / "here.duckdb")["flights"].pull("month = 1", query_id="january")

    with duckdb.connect(str(tmp_path / "here.duckdb"), read_only=True) as store:
        rows = store.execute("select id, month, dest, delay, note from flights order by id").fetchall()
        ((query_id, complete),) = store.execute("select query_id, complete from syncframe.checkpoints").fetchall()

    assert rows == far.read("month = 1")
    assert (query_id, complete) == ("january", True)


def test_a_pull_result_shows_its_counts(far, flights):
    result = flights.pull("month = 1", query_id="january")

    assert repr(result).startswith("PullResult: 100 inserted, 0 updated, 0 deleted, 0 conflicts (100 rows in ")
    assert result.bytes > 0
    assert result.seconds > 0
    assert isinstance(flights.frame(), pd.DataFrame)


# -- pages that come quickly are stored together


class Paged(Line):
    """A line whose back end gives pages of two rows each, and where something happens before some of them."""

    def __init__(self, backend, before=None):
        super().__init__(backend)
        self.before = before or {}

    def pull(self, table, query, since, others=()):
        for at, page in enumerate(super().pull(table, dataclasses.replace(query, page_rows=2), since, others)):
            self.before.get(at, lambda: None)()
            yield page


def pulled(ctx, **options):
    """A pull's result, and how many rows had come after each of its transactions."""
    told = []
    result = ctx["flights"].pull(query_id="all", progress=lambda done, total, what: told.append(done), **options)
    return result, told


@pytest.fixture
def few(tmp_path):
    return Far(tmp_path, 6)


def test_pages_that_come_quickly_are_one_transaction_and_all_are_counted(few):
    with sf.connect(Paged(few.url), store=":memory:") as ctx:
        result, told = pulled(ctx)

        assert here(ctx["flights"]) == few.read()
        assert (result.rows, result.inserted) == (6, 6)
        assert result.requests > 3
        assert told == [6]


def test_pages_of_a_size_that_was_asked_for_are_a_transaction_each(few):
    with sf.connect(few.url, store=":memory:") as ctx:
        _, told = pulled(ctx, page_rows=2)

        assert told[:3] == [2, 4, 6]


def test_of_a_row_that_came_in_two_pages_the_later_is_stored(few):
    script = "update flights set note = 'new' where id = 'f000000'; delete from flights where id = 'f000001'"
    with sf.connect(Paged(few.url, {1: lambda: few.write(script)}), store=":memory:") as ctx:
        result, told = pulled(ctx)

        assert len(told) == 1
        assert here(ctx["flights"]) == few.read()
        assert (result.inserted, result.deleted) == (5, 0)
        assert ctx["flights"].pull(query_id="all").rows == 0


def test_a_key_that_is_twice_in_one_page_is_refused_though_pages_are_stored_together(few):
    class Twice(Paged):
        def pull(self, *asked, **options):
            for page in super().pull(*asked, **options):
                yield dataclasses.replace(page, rows=pa.concat_tables([page.rows, page.rows.slice(0, 1)]))

    with (
        sf.connect(Twice(few.url), store=":memory:") as ctx,
        pytest.raises(sf.BackendError, match="3 repeated keys"),
    ):
        ctx["flights"].pull(query_id="all")


def test_what_came_before_the_back_end_failed_is_stored(few):
    def fail():
        raise sf.TransientError("the line is down")

    line = Paged(few.url, {2: fail})
    with sf.connect(line, store=":memory:") as ctx:
        with pytest.raises(sf.TransientError, match="the line is down"):
            ctx["flights"].pull(query_id="all")

        assert len(here(ctx["flights"])) == 4
        line.before.clear()
        assert ctx["flights"].pull(query_id="all").rows == 2
        assert here(ctx["flights"]) == few.read()


def test_a_row_that_left_the_query_and_came_back_in_a_later_page_is_here(few):
    line = Paged(few.url)
    with sf.connect(line, store=":memory:") as ctx:
        ctx["flights"].pull("delay < 50", query_id="some")
        few.write("update flights set delay = 60")
        line.before = {1: lambda: few.write("update flights set delay = 7 where id = 'f000000'")}
        ctx["flights"].pull("delay < 50", query_id="some")

        assert here(ctx["flights"]) == few.read("delay < 50")


def test_a_page_that_took_long_is_stored_at_once(few):
    seen = []

    def look():
        time.sleep(0.3)
        seen.append(len(here(ctx["flights"])))

    with sf.connect(Paged(few.url, dict.fromkeys(range(3), look)), store=":memory:") as ctx:
        ctx["flights"].pull(query_id="all")

    assert seen == [0, 2, 4]


@pytest.mark.parametrize("policy", ["fail", "theirs"])
def test_what_another_context_pushes_while_pages_are_on_their_way_is_not_overwritten_by_them(few, tmp_path, policy):
    """Both have one store; the page with the older row was asked for before the push."""
    store, line = tmp_path / "here.duckdb", Paged(few.url)
    with sf.connect(line, store=store, on_conflict=policy) as ctx, sf.connect(few.url, store=store) as other:
        ctx["flights"].pull(query_id="all")
        few.write("update flights set note = 'theirs'")

        def push_and_stage():
            line.before.clear()
            other["flights"].pull(query_id="other", push_first=False)
            other["flights"].update("f000000", note="pushed here")
            assert other.push().ok
            other["flights"].update("f000000", delay=77)

        line.before = {1: push_and_stage}
        ctx["flights"].pull(query_id="all", push_first=False)

        assert few.read("id = 'f000000'", ["note"]) == [("pushed here",)]
        row = ctx["flights"].get("f000000")
        assert (row["note"], row["delay"]) == ("pushed here", 77)
        assert (len(ctx.pending), len(ctx.conflicts)) == (1, 0)
        assert ctx.push().ok
        assert few.read("id = 'f000000'", ["note", "delay"]) == [("pushed here", 77)]


def test_pages_of_another_schema_are_stored_by_themselves_and_one_that_lacks_a_column_is_refused(few):
    class Bare(Paged):
        def pull(self, *asked, **options):
            for at, page in enumerate(super().pull(*asked, **options)):
                yield dataclasses.replace(page, rows=page.rows.drop_columns(["note"])) if at == 1 else page

    with sf.connect(Bare(few.url), store=":memory:") as ctx:
        with pytest.raises(sf.BackendError, match="lacks the columns"):
            ctx["flights"].pull(query_id="all")

        assert len(here(ctx["flights"])) == 2


def test_many_small_pages_cost_no_more_than_their_rows():
    rows = pa.table({"id": ["a"]})
    pages = [Page(rows, None, Checkpoint(str(at))) for at in range(3_000)]

    joined = list(together(iter(pages), 100_000))

    assert sum(len(page.rows) for page in joined) == 3_000
    assert joined[-1].checkpoint == "2999"
    assert len(joined) < 10
