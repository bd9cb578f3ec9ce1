"""The Datasync client: pulls that miss nothing from services that page, round and cap, and pushes that overwrite nothing.

Two far sides: `Canned`, a plain service over a Python list, whose stamps, caps and manners a test says; and our own
server over SQLite, through a wire that cuts, repeats, delays and loses.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from faulty import HTML, Reply, Request, as_json, proxy, service
from stories import synced, todo_database

import syncframe as sf
from syncframe.backends import Checkpoint, Page
from syncframe.backends.base import DELETED, VERSION
from syncframe.backends.datasync import DatasyncBackend
from syncframe.errors import (
    AccessError,
    BackendError,
    CheckpointLost,
    QueryError,
    SchemaError,
    SyncError,
    TransientError,
)
from syncframe.query import Order, Query, Read, parse
from syncframe.server import serve
from syncframe.testing import delete, insert, push, statuses, update

START = dt.datetime(2026, 11, 24, 10, tzinfo=dt.UTC)
DAY_S = 24 * 3600.0
SERVED = ["lists", "todo"]

# A plain service over a list


_TOKEN = re.compile(
    r"datetimeoffset'([^']*)'|cast\(([^,]+),Edm\.DateTimeOffset\)|('(?:[^']|'')*')|(-?\d+)|([()])|([A-Za-z_]\w*)"
)
_WORDS = {
    "eq": "==",
    "ne": "!=",
    "gt": ">",
    "ge": ">=",
    "lt": "<",
    "le": "<=",
    "true": "True",
    "false": "False",
    "null": "None",
}


def holds(text: str | None) -> Callable[[dict[str, Any]], bool]:
    """What a `$filter` of comparisons says of a row."""
    if text is None:
        return lambda row: True
    words = []
    for match in _TOKEN.finditer(text):
        v2, v3, literal, number, bracket, word = match.groups()
        if stamp := v2 or v3:
            words.append(repr(dt.datetime.fromisoformat(stamp)))
        elif literal:
            words.append(repr(literal[1:-1].replace("''", "'")))
        elif number or bracket:
            words.append(number or bracket)
        else:
            words.append(word if word in ("and", "or", "not") else _WORDS.get(word) or f"row[{word!r}]")
    code = compile(" ".join(words), "filter", "eval")
    return lambda row: bool(eval(code, {"row": row, "datetime": dt}))


class Canned:
    """A plain Datasync service.

    Parameters
    ----------
    dialect
        "v2" or "v3".
    cap
        How many rows it gives at most, whatever is asked for.
    top_max
        The largest `$top` that it takes; beyond, 400.
    counts
        Whether it says how many rows match.
    now
        The clock that its answers bear; rows are stamped by the tests.
    """

    def __init__(self, dialect: str, *, cap: int = 50, top_max: int = 100_000, counts: bool = True) -> None:
        self.dialect, self.cap, self.top_max, self.counts = dialect, cap, top_max, counts
        self.rows: dict[str, dict[str, Any]] = {}
        self.now = START + dt.timedelta(days=1)
        self.after_list: Callable[[int], object] = lambda number: None
        self.lists = 0
        self.lock = threading.Lock()

    def put(self, id_: str, updated: dt.datetime, deleted: bool = False, **values: Any) -> None:
        version = int(self.rows.get(id_, {"version": "0"})["version"]) + 1
        self.rows[id_] = {"id": id_, **values, "updatedAt": updated, "version": str(version), "deleted": deleted}

    @contextmanager
    def running(self, **options: Any) -> Iterator[DatasyncBackend]:
        with service(self.answer) as self.there:
            backend = DatasyncBackend(self.there.url, protocol=self.dialect, **options)
            yield backend
            backend.close()

    def answer(self, request: Request) -> Reply:
        with self.lock:
            if request.method != "GET":
                return as_json({"error": "read only"}, 405)
            reply = self._list(request.query)
            self.lists += 1
            self.after_list(self.lists)
            return reply

    def _list(self, query: dict[str, str]) -> Reply:
        top = int(query.get("$top", self.cap))
        if "$top" in query and top > self.top_max:
            return as_json({"error": f"$top is at most {self.top_max}"}, 400)
        with_deleted = "__includeDeleted" in query or query.get("__includedeleted") == "true"
        matches = holds(query.get("$filter"))
        found = [row for row in self.rows.values() if (with_deleted or not row["deleted"]) and matches(row)]
        for column in reversed(query.get("$orderby", "id").split(",")):
            name, _, direction = column.partition(" ")
            found.sort(key=lambda row: row[name], reverse=direction == "desc")
        skip = int(query.get("$skip", 0))
        shown = found[skip : skip + min(top, self.cap)]
        select = query["$select"].split(",") if "$select" in query else None
        objects = [self._shown(row, select) for row in shown]
        return as_json(self._page(objects, len(found), skip, top), Date=_http(self.now))

    def _shown(self, row: dict[str, Any], select: list[str] | None) -> dict[str, Any]:
        # The wire has milliseconds, cut off, whatever the service's own stamps are.
        stamp = row["updatedAt"].astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        return {name: cell for name, cell in {**row, "updatedAt": stamp}.items() if select is None or name in select}

    def _page(self, objects: list[Any], count: int, skip: int, top: int) -> Any:
        if self.dialect == "v2":
            return {"results": objects, "count": count} if self.counts else objects
        # As the toolkit's: the link takes what was given off `$top`, and ends with it.
        left = min(top, count - skip) - len(objects)
        link = f"$skip={skip + len(objects)}&$top={top - len(objects)}" if left > 0 else None
        return {"items": objects, "count": count if self.counts else None, "nextLink": link}


def _http(moment: dt.datetime) -> str:
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


def taken(pages: Iterator[Page]) -> tuple[dict[str, Any], list[str], Checkpoint | None]:
    """What is held after pages were applied, every id that came, and the last checkpoint."""
    held: dict[str, Any] = {}
    came: list[str] = []
    checkpoint = None
    for page in pages:
        for row in page.rows.to_pylist():
            came.append(row["id"])
            held.pop(row["id"], None)
            if not row[DELETED]:
                held[row["id"]] = row.get("n")
        for row in page.leavers.to_pylist() if page.leavers is not None else []:
            held.pop(row["id"], None)
        checkpoint = page.checkpoint
    return held, came, checkpoint


def ms(count: float) -> dt.timedelta:
    return dt.timedelta(milliseconds=count)


def whole(table: str, **types: str) -> dict[str, sf.Schema]:
    """All that a table has, so that nothing is asked to find out."""
    return {table: sf.Schema.of({"id": "VARCHAR", **types})}


SCHEMAS = whole("todo", n="BIGINT")
DIALECTS = pytest.mark.parametrize("dialect", ["v2", "v3"])

# Paging


def exact(_: int) -> dt.datetime:
    return START


def finer(n: int) -> dt.datetime:
    """All within one millisecond, in another order than the ids'."""
    return START + dt.timedelta(microseconds=n * 7919 % 997)


def crowded(canned: Canned, size: int, stamp: Callable[[int], dt.datetime]) -> None:
    for n in range(size):
        canned.put(f"k{n:05}", stamp(n), n=n)


@DIALECTS
@pytest.mark.parametrize("stamp", [exact, finer])
@pytest.mark.parametrize("size", [300, pytest.param(10_000, marks=pytest.mark.full)])
def test_rows_of_one_and_the_same_millisecond_come_once_each(dialect, stamp, size):
    canned = Canned(dialect)
    canned.put("first", START - ms(1000), n=-1)

    with canned.running(schemas=SCHEMAS) as backend:
        _, _, checkpoint = taken(backend.pull("todo", Query(), None))
        crowded(canned, size, stamp)
        before = canned.lists
        changed, came, checkpoint = taken(backend.pull("todo", Query(), checkpoint))
        # All pages, and that many again where stamps are finer than the wire's.
        assert canned.lists - before <= size // 50 + 5
        first, first_came, _ = taken(backend.pull("todo", Query(), None))

    assert [id_ for id_ in sorted(came) if id_ != "first"] == [f"k{n:05}" for n in range(size)]
    assert changed.keys() | {"first"} == first.keys()
    assert len(first_came) == len(set(first_came)) == size + 1


@DIALECTS
@pytest.mark.parametrize("stamp", [exact, finer])
@pytest.mark.parametrize("where", [None, "n >= 0"])
@pytest.mark.parametrize("size", [300, pytest.param(10_000, marks=pytest.mark.full)])
def test_what_changes_between_two_pages_of_one_millisecond_is_not_missed(dialect, stamp, where, size):
    canned, dice = Canned(dialect), random.Random(4)
    clock = iter(START + ms(1 + n) for n in range(10**6))

    def change(number: int) -> None:
        if number % 3:
            return
        id_ = dice.choice([*canned.rows])
        if id_ != "first":
            canned.put(id_, next(clock), deleted=dice.random() < 0.3, n=dice.choice([-1, number]))
        canned.put(f"new{number:05}", next(clock), n=number)

    def query(backend: DatasyncBackend) -> Query:
        return Query(parse(where, backend.schema("todo")) if where else None)

    with canned.running(schemas=SCHEMAS) as backend:
        for is_first in (True, False):
            canned.rows.clear()
            canned.put("first", START - ms(5000), n=0)
            held, _, checkpoint = taken(backend.pull("todo", query(backend), None))
            crowded(canned, size, stamp)
            canned.after_list = change
            since = None if is_first else checkpoint
            for _ in range(3):
                _, _, since = taken_into(held, backend.pull("todo", query(backend), since))
                canned.after_list = lambda number: None

            there = {id_: row["n"] for id_, row in canned.rows.items() if not row["deleted"]}
            assert held == {id_: n for id_, n in there.items() if where is None or n >= 0}


def taken_into(held: dict[str, Any], pages: Iterator[Page]) -> tuple[dict[str, Any], list[str], Checkpoint | None]:
    came, checkpoint = [], None
    for page in pages:
        for row in page.rows.to_pylist():
            came.append(row["id"])
            held.pop(row["id"], None)
            held.update({} if row[DELETED] else {row["id"]: row["n"]})
        for row in page.leavers.to_pylist() if page.leavers is not None else []:
            held.pop(row["id"], None)
        checkpoint = page.checkpoint
    return held, came, checkpoint


@DIALECTS
def test_a_client_that_pages_by_skip_loses_rows_where_this_one_does_not(dialect):
    canned = Canned(dialect)
    crowded(canned, 300, exact)

    def first_row_changes(number: int) -> None:
        # A row that was read moves behind, and all after it one place forward.
        id_ = min(id_ for id_, row in canned.rows.items() if row["updatedAt"] == START)
        canned.put(id_, START + ms(1000 + number), n=-number)

    canned.after_list = first_row_changes
    skipped: set[str] = set()
    while len(page := canned._list({"$orderby": "updatedAt", "$skip": str(len(skipped))}).body) > 0:
        rows = json.loads(page)
        found = {row["id"] for row in rows.get("results", rows.get("items"))}
        if not found - skipped:
            break
        skipped |= found
        canned.lists += 1
        canned.after_list(canned.lists)
    with canned.running(schemas=SCHEMAS) as backend:
        _, came, _ = taken(backend.pull("todo", Query(), None))

    assert len(canned.rows.keys() - skipped) > 0
    assert canned.rows.keys() - set(came) == set()


@DIALECTS
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize(("cap", "page_rows"), [(7, 1000), (1000, 7), (50, 50), (1, 1)])
def test_a_run_ends_when_the_service_says_so_and_never_on_a_short_page(dialect, counts, cap, page_rows):
    canned = Canned(dialect, cap=cap, counts=counts)
    crowded(canned, 30, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        held, came, checkpoint = taken(backend.pull("todo", Query(page_rows=page_rows), None))
        assert (len(held), len(came)) == (30, 30)
        crowded(canned, 30, lambda n: START + ms(1000 + n))
        held, came, _ = taken(backend.pull("todo", Query(page_rows=page_rows), checkpoint))

    assert sorted(came) == sorted(canned.rows)


@pytest.mark.parametrize(("dialect", "refused"), [("v2", 0), ("v3", 1)])
def test_a_service_that_refuses_large_pages_is_asked_for_smaller_ones_from_then_on(dialect, refused):
    """Of v2 it is known that 1,000 is the usual bound."""
    canned = Canned(dialect, cap=1000, top_max=1000)
    crowded(canned, 2500, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        held, _, checkpoint = taken(backend.pull("todo", Query(page_rows=10_000), None))
        taken(backend.pull("todo", Query(page_rows=10_000), checkpoint))

    assert len(held) == 2500
    assert len([r for r in canned.there.asked if int(r.query.get("$top", 0)) > 1000]) == refused


def test_a_service_that_takes_no_top_at_all_gives_as_many_as_it_likes():
    canned = Canned("v2", cap=20, top_max=10)
    crowded(canned, 45, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        held, _, _ = taken(backend.pull("todo", Query(), None))

    assert len(held) == 45


@pytest.mark.parametrize("since", [None, "changed"])
@pytest.mark.parametrize("where", [None, "n > 0"])
def test_an_endless_page_ends_with_words(since, where):
    page = {"results": [{"id": "a", "n": 1, "version": "1", "updatedAt": "2026-11-24T10:00:00.000Z"}], "count": 99}
    state = {"plain": 1, "full_at": 0, "live": None, "changed": None, "all_changed": None}

    with service(as_json(page)) as there:
        backend = DatasyncBackend(there.url, protocol="v2", schemas=SCHEMAS, clock=lambda: 0.0)
        query = Query(parse(where, backend.schema("todo")) if where else None)
        with pytest.raises(BackendError, match="had sent before"):
            list(backend.pull("todo", query, Checkpoint(json.dumps(state)) if since else None))
        backend.close()

    assert len(there.asked) <= 8


# Runs, one after another


@DIALECTS
def test_nothing_new_is_one_request(dialect):
    canned = Canned(dialect)
    crowded(canned, 10, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        _, _, checkpoint = taken(backend.pull("todo", Query(), None))
        before = canned.lists
        (page,) = backend.pull("todo", Query(), checkpoint)

    assert (len(page.rows), page.leavers, page.checkpoint) == (0, None, checkpoint)
    assert page.requests == canned.lists - before == 1
    assert page.bytes > 0


@DIALECTS
def test_nothing_new_of_a_query_with_a_filter_is_at_most_two_requests(dialect):
    canned = Canned(dialect)
    crowded(canned, 10, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        query = Query(parse("n < 5", backend.schema("todo")))
        held, _, checkpoint = taken(backend.pull("todo", query, None))
        before = canned.lists
        (page,) = backend.pull("todo", query, checkpoint)

    assert sorted(held.values()) == [0, 1, 2, 3, 4]
    assert (len(page.rows), page.leavers, page.checkpoint) == (0, None, checkpoint)
    assert page.requests == canned.lists - before <= 2


@DIALECTS
def test_rows_by_key_are_asked_for_once(dialect):
    canned = Canned(dialect, counts=False)
    crowded(canned, 50, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        schema = backend.schema("todo")
        (page,) = backend.pull("todo", Query(parse("n < 40", schema)), None)
        keys = page.rows.select(["id"])
        before = canned.lists
        found = backend.rows("todo", keys)
        asked = canned.lists - before

    assert (len(keys), len(found)) == (40, 40)
    assert asked == 2  # twenty keys to a request


@DIALECTS
def test_every_request_of_a_run_is_counted(dialect):
    canned = Canned(dialect, cap=4)
    crowded(canned, 10, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        pages = list(backend.pull("todo", Query(), None))

    assert sum(page.requests for page in pages) == canned.lists
    assert sum(page.bytes for page in pages) > 500


@DIALECTS
def test_a_first_pull_does_not_download_tombstones(dialect):
    canned = Canned(dialect)
    for n in range(100):
        canned.put(f"k{n}", START + ms(n), deleted=n % 10 != 0, n=n)

    with canned.running(schemas=SCHEMAS) as backend:
        _, came, _ = taken(backend.pull("todo", Query(), None))

    assert sorted(came) == ["k0", "k10", "k20", "k30", "k40", "k50", "k60", "k70", "k80", "k90"]


@DIALECTS
def test_rows_that_left_the_filter_and_rows_that_were_deleted_go(dialect):
    canned = Canned(dialect)
    crowded(canned, 6, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        query = Query(parse("n < 5", backend.schema("todo")))
        held, _, checkpoint = taken(backend.pull("todo", query, None))
        canned.put("k00000", START + ms(100), n=7)
        canned.put("k00001", START + ms(101), deleted=True, n=1)
        canned.put("k00002", START + ms(102), deleted=True, n=9)
        canned.put("k00003", START + ms(103), n=4)
        canned.put("k00005", START + ms(104), n=0)
        taken_into(held, backend.pull("todo", query, checkpoint))

    assert held == {"k00003": 4, "k00004": 4, "k00005": 0}


@DIALECTS
@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_interrupted_run_of_a_filter_goes_on_and_takes_nothing_for_gone(dialect, stop_after):
    canned = Canned(dialect, cap=5)
    crowded(canned, 30, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        query = Query(parse("n < 100", backend.schema("todo")))
        held, _, checkpoint = taken(backend.pull("todo", query, None))
        for n in range(30):
            canned.put(f"k{n:05}", START + ms(1000 + n), n=n + (100 if n % 7 == 0 else 0))
        pages = backend.pull("todo", query, checkpoint)
        for _ in range(stop_after):
            page = next(pages)
            taken_into(held, iter([page]))
        pages.close()
        taken_into(held, backend.pull("todo", query, page.checkpoint))

    assert held == {id_: row["n"] for id_, row in canned.rows.items() if row["n"] < 100}


@DIALECTS
@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_interrupted_first_run_goes_on_where_it_stopped(dialect, stop_after):
    canned = Canned(dialect, cap=5)
    crowded(canned, 30, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        pages = backend.pull("todo", Query(page_rows=5), None)
        held: dict[str, Any] = {}
        for _ in range(stop_after):
            page = next(pages)
            taken_into(held, iter([page]))
        pages.close()
        canned.put("k00000", START + ms(1000), deleted=True, n=0)
        canned.put("k00001", START + ms(1001), n=-1)
        canned.put("k00029", START + ms(1002), n=-29)
        _, came, _ = taken_into(held, backend.pull("todo", Query(page_rows=5), page.checkpoint))

    assert len(came) == 30 - 5 * stop_after + 3
    assert held == {id_: row["n"] for id_, row in canned.rows.items() if not row["deleted"]}


@DIALECTS
def test_a_row_that_was_committed_late_is_found_within_the_overlap(dialect):
    canned = Canned(dialect)
    canned.now = START + dt.timedelta(seconds=1000)
    canned.put("a", canned.now - ms(1000), n=1)

    with canned.running(schemas=SCHEMAS, overlap_s=600) as backend:
        held, _, checkpoint = taken(backend.pull("todo", Query(), None))
        canned.put("late", canned.now - dt.timedelta(seconds=500), n=2)
        canned.put("too late", canned.now - dt.timedelta(seconds=700), n=3)
        _, came, checkpoint = taken_into(held, backend.pull("todo", Query(), checkpoint))
        # Ten minutes on, nothing is seen twice any more.
        canned.now += dt.timedelta(seconds=601)
        taken(backend.pull("todo", Query(), checkpoint))
        _, _, checkpoint = taken(backend.pull("todo", Query(), checkpoint))
        _, again, _ = taken(backend.pull("todo", Query(), checkpoint))

    assert held == {"a": 1, "late": 2}
    assert (sorted(came), again) == (["a", "late"], [])


def test_the_service_s_clock_counts_and_not_ours():
    canned = Canned("v3")
    canned.now = START - dt.timedelta(days=365)
    canned.put("a", canned.now - ms(1), n=1)

    with canned.running(schemas=SCHEMAS, overlap_s=60) as backend:
        _, _, checkpoint = taken(backend.pull("todo", Query(), None))
        canned.put("late", canned.now - dt.timedelta(seconds=50), n=2)
        held, _, _ = taken(backend.pull("todo", Query(), checkpoint))

    assert held == {"a": 1, "late": 2}


def test_after_a_day_keys_and_versions_are_compared_in_full():
    canned, now = Canned("v2"), [0.0]
    crowded(canned, 5, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS, clock=lambda: now[0]) as backend:
        _, _, checkpoint = taken(backend.pull("todo", Query(), None))
        now[0] = DAY_S - 1
        taken(backend.pull("todo", Query(), checkpoint))
        now[0] = DAY_S + 1
        with pytest.raises(CheckpointLost, match="last compared in full on 1970-01-01 at 00:00 UTC"):
            list(backend.pull("todo", Query(), checkpoint))
        (page,) = backend.keys("todo", Query())
        taken(backend.pull("todo", Query(), page.checkpoint))

    assert page.rows.select(["id", VERSION]).to_pylist() == [{"id": f"k{n:05}", VERSION: "1"} for n in range(5)]


def test_the_daily_comparison_finds_what_stamps_do_not_tell_and_keeps_edits():
    canned, now = Canned("v2"), [0.0]
    crowded(canned, 5, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS, clock=lambda: now[0]) as backend, sf.connect(backend, store=":memory:") as ctx:
        ctx["todo"].pull(query_id="all")
        ctx["todo"].update("k00004", n=40)
        del canned.rows["k00000"]  # deleted for good
        canned.put("k00001", START - ms(10_000), n=10)  # committed ever so late
        unseen = ctx["todo"].pull(query_id="all", push_first=False)
        now[0] = DAY_S + 1
        before = len(canned.there.asked)
        found = ctx["todo"].pull(query_id="all", push_first=False)

    assert (unseen.updated, unseen.deleted) == (0, 0)
    assert (found.updated, found.deleted, found.rows) == (1, 1, 4)
    assert "last compared in full" in found.notes[0]
    assert [op.key for op in ctx.pending] == ["k00004"]
    selects = [request.query.get("$select") for request in canned.there.asked[before:]]
    assert "id,version" in selects


@pytest.mark.parametrize("checkpoint", ["nonsense", "{}", '["x", 1, null, []]', '{"plain": 2}', '{"plain": 1}'])
def test_a_checkpoint_of_another_service_is_lost(checkpoint):
    with Canned("v2").running(schemas=SCHEMAS) as backend, pytest.raises(CheckpointLost):
        list(backend.pull("todo", Query(), Checkpoint(checkpoint)))


def test_a_row_without_a_stamp_is_named():
    page = {"items": [{"id": "a", "n": 1, "version": "1", "updatedAt": None}], "count": 1}

    with service(as_json(page)) as there:
        backend = DatasyncBackend(there.url, protocol="v3", schemas=SCHEMAS)
        with pytest.raises(BackendError, match="row 'a' of table 'todo' has the updatedAt 'None'"):
            list(backend.pull("todo", Query(), None))
        backend.close()


@DIALECTS
def test_only_columns_that_were_asked_for_are_downloaded(dialect):
    canned = Canned(dialect)
    canned.put("a", START, n=1, wide="x" * 10_000)

    with canned.running(schemas=whole("todo", n="BIGINT", wide="VARCHAR")) as backend:
        pages = list(backend.pull("todo", Query(columns=("n",)), None))
        canned.put("a", START + ms(1), deleted=True, n=1, wide="x" * 10_000)
        changed = list(backend.pull("todo", Query(columns=("n",)), pages[-1].checkpoint))

    assert pages[0].rows.select(["id", "n"]).to_pylist() == [{"id": "a", "n": 1}]
    assert sum(page.bytes for page in pages) < 1_000
    assert changed[0].rows[DELETED].to_pylist() == [True]


def test_a_service_whose_rows_have_no_deleted_is_not_asked_for_it_by_name():
    """A v2 service answers a `$select` of a name that it does not know with no rows."""
    row = {"id": "a", "n": 1, "m": 2, "version": "1", "updatedAt": "2026-11-24T10:00:00.000Z"}

    def answer(request):
        names = request.query.get("$select", "id").split(",")
        return as_json(
            {"results": [row] if {*names} <= row.keys() else [], "count": 1 if {*names} <= row.keys() else 0}
        )

    with service(answer) as there:
        backend = DatasyncBackend(there.url, protocol="v2", schemas=whole("todo", n="BIGINT", m="BIGINT"))
        held, _, _ = taken(backend.pull("todo", Query(columns=("n",)), None))
        backend.close()

    assert held == {"a": 1}


# Remote tables and filters


@DIALECTS
def test_a_read_follows_pages_by_key_or_by_what_it_is_sorted_by(dialect):
    canned = Canned(dialect, cap=4)
    for n in range(30):
        canned.put(f"k{n:02}", START + ms(n), deleted=n == 29, n=n * 7 % 10)

    with canned.running(schemas=SCHEMAS) as backend:
        where = parse("n <> 3", backend.schema("todo"))
        read = [backend.read("todo", each)["id"].to_pylist() for each in (
            Read(), Read(limit=5), Read(limit=5, offset=10), Read(where=where, order_by=(Order("n", True),), limit=6),
            Read(order_by=(Order("n"),), offset=26), Read(limit=0), Read(include_deleted=True, offset=28),
        )]  # fmt: skip
        counts = [backend.count("todo", each) for each in (Read(), Read(where=where), Read(include_deleted=True))]

    assert read == [
        [f"k{n:02}" for n in range(29)], ["k00", "k01", "k02", "k03", "k04"], ["k10", "k11", "k12", "k13", "k14"],
        ["k07", "k17", "k27", "k04", "k14", "k24"], ["k07", "k17", "k27"], [], ["k28", "k29"],
    ]  # fmt: skip
    assert counts == [29, 27, 30]


@DIALECTS
def test_rows_by_key_come_in_the_keys_order_tombstones_among_them(dialect):
    canned = Canned(dialect)
    for n in range(100):
        canned.put(f"it's {n}", START + ms(n), deleted=n == 7, n=n)
    keys = [f"it's {n}" for n in range(99, -1, -1)]

    with canned.running(schemas=SCHEMAS) as backend:
        found = backend.rows("todo", pa.table({"id": [*keys, "nobody"]})).to_pylist()

    assert [row["id"] for row in found] == keys
    assert [row["id"] for row in found if row[DELETED]] == ["it's 7"]
    assert all(len(request.target) < 2_000 for request in canned.there.asked)


def test_a_condition_that_the_dialect_cannot_say_is_refused_before_anything_is_asked():
    canned = Canned("v2")

    with canned.running(schemas=whole("todo", n="BIGINT", **{"sp ace": "VARCHAR"})) as backend:
        query = Query(parse("\"sp ace\" = 'x'", backend.schema("todo")))
        with pytest.raises(QueryError, match="sp ace"):
            list(backend.pull("todo", query, None))

    assert canned.there.asked == []


def test_a_condition_that_the_service_does_not_take_is_a_query_error_with_its_words():
    with service(as_json({"error": "no such function: length"}, 400)) as there:
        backend = DatasyncBackend(there.url, protocol="v3", schemas=whole("todo", t="VARCHAR"))
        with pytest.raises(QueryError, match="no such function"):
            backend.read("todo", Read(where=parse("length(t) = 1", backend.schema("todo"))))
        backend.close()


# Schemas


ROWS = [
    {"id": "a", "b": True, "i": 1, "f": 1.5, "m": 1, "t": "x", "w": "2026-11-24T10:00:00.123Z", "d": "2026-11-24",
     "o": {"x": [1]}, "l": [1, 2], "z": None, "big": 2**53, "mix": "2026-11-24", "u": None},
    {"id": "b", "b": False, "i": 2, "f": 2, "m": None, "t": "", "w": "2026-11-24T10:00:00Z", "d": None,
     "o": None, "l": [], "z": None, "big": 1, "mix": "no day", "u": None, "late": 1},
]  # fmt: skip
SYSTEM = {
    "version": "1",
    "updatedAt": "2026-11-24T10:00:00.000Z",
    "createdAt": "2026-11-24T10:00:00.000Z",
    "deleted": False,
}


def list_of(rows: list[dict[str, Any]], dialect: str = "v2") -> Reply:
    objects = [{**row, **SYSTEM} for row in rows]
    return as_json({("results" if dialect == "v2" else "items"): objects, "count": len(objects)})


def test_types_are_read_off_the_first_rows():
    with service(list_of(ROWS)) as there:
        backend = DatasyncBackend(there.url, protocol="v2")
        schema = backend.schema("t")
        backend.schema("t")
        backend.close()

    assert {c.name: c.type for c in schema.columns} == {
        "id": "VARCHAR", "b": "BOOLEAN", "i": "BIGINT", "f": "DOUBLE", "m": "BIGINT", "t": "VARCHAR", "w": "TIMESTAMPTZ",
        "d": "DATE", "o": "JSON", "l": "JSON", "z": "VARCHAR", "big": "BIGINT", "mix": "VARCHAR", "u": "VARCHAR",
        "late": "BIGINT",
    }  # fmt: skip
    assert schema.key == ("id",)
    assert {c.name: c.held_as for c in schema.columns if c.held_as} == {
        "i": "int53", "m": "int53", "big": "int53", "late": "int53", "f": "finite", "w": "ms",
    }  # fmt: skip
    assert len(there.asked) == 1


def test_values_of_those_types_come_as_they_are():
    with service(list_of(ROWS)) as there:
        backend = DatasyncBackend(there.url, protocol="v2")
        first, _ = next(iter(backend.pull("t", Query(), None))).rows.to_pylist()
        backend.close()

    assert first["w"] == dt.datetime(2026, 11, 24, 10, 0, 0, 123_000, tzinfo=dt.UTC)
    assert (first["d"], first["f"], first["big"]) == (dt.date(2026, 11, 24), 1.5, 2**53)
    assert (json.loads(first["o"]), json.loads(first["l"])) == ({"x": [1]}, [1, 2])


@pytest.mark.parametrize(("cells", "words"), [([1, "a"], "several kinds"), ([True, 1], "several kinds")])
def test_a_column_of_several_kinds_is_refused_with_the_way_out(cells, words):
    with service(list_of([{"id": str(n), "x": cell} for n, cell in enumerate(cells)])) as there:
        backend = DatasyncBackend(there.url, protocol="v2")
        with pytest.raises(SchemaError, match=words) as caught:
            backend.schema("t")
        backend.close()

    assert 'connect(..., schema={"t": {"x": ...}})' in caught.value.hint


def test_a_later_value_that_does_not_fit_names_row_column_and_value():
    with service(list_of([{"id": "a", "x": 1}]), list_of([{"id": "a", "x": 1}, {"id": "b", "x": 1.5}])) as there:
        backend = DatasyncBackend(there.url, protocol="v2")
        assert backend.schema("t")["x"].type == "BIGINT"
        with pytest.raises(SchemaError, match=r"row 'b': column 'x' is BIGINT.*1\.5") as caught:
            list(backend.pull("t", Query(), None))
        assert backend.schema("t")["x"].type == "BIGINT"
        backend.close()

    assert "schema=" in caught.value.hint


def test_types_are_the_same_the_next_time_and_new_columns_are_seen():
    memory: dict[str, str] = {}
    with service(
        list_of([{"id": "a", "x": 1, "z": None}]), list_of([{"id": "a", "x": 1.5, "z": 1, "new": True}])
    ) as there:
        first = DatasyncBackend(there.url, protocol="v2", memory=memory)
        before = first.schema("t")
        second = DatasyncBackend(there.url, protocol="v2", memory=memory)
        after = second.schema("t")
        first.close(), second.close()

    assert [c.type for c in before.value_columns] == ["BIGINT", "VARCHAR"]
    assert {c.name: c.type for c in after.value_columns} == {"x": "BIGINT", "z": "BIGINT", "new": "BOOLEAN"}


@pytest.mark.parametrize(
    "given",
    [
        {"n": "DECIMAL(10,2)"}, {"id": "VARCHAR", "n": "DECIMAL(10,2)", "version": "VARCHAR"},
        pa.schema([("n", pa.decimal128(10, 2))]), sf.Schema.of({"id": str, "n": "DECIMAL(10,2)"}),
    ],
    ids=["mapping", "with id", "arrow", "Schema"],
)  # fmt: skip
def test_a_schema_that_is_given_is_not_asked_for(given):
    with Canned("v2").running(schemas={"t": given}) as backend:
        schema = backend.schema("t")

    assert [(c.name, c.type, c.held_as) for c in schema.columns] == [
        ("id", "VARCHAR", ""), ("n", "DECIMAL(10,2)", "numeric"),
    ]  # fmt: skip


def test_a_table_without_rows_tells_nothing_until_it_has_some():
    with service(list_of([]), list_of([{"id": "a", "x": 1}])) as there:
        backend = DatasyncBackend(there.url, protocol="v2")
        assert backend.schema("t").names == ["id"]
        assert backend.schema("t").names == ["id", "x"]
        backend.close()


# Which service it is


LISTS = {"v2": as_json([]), "v3": as_json({"items": [], "count": None, "nextLink": None})}


@DIALECTS
@pytest.mark.parametrize(
    "nothing", [as_json({"error": "none"}, 404), HTML, Reply(404, b"Cannot GET")], ids=["404", "page", "text"]
)
def test_a_plain_service_is_told_by_one_list_and_remembered(dialect, nothing):
    memory: dict[str, str] = {}

    with service(lambda request: nothing if request.path == "/syncframe" else LISTS[dialect]) as there:
        for _ in range(2):
            backend = DatasyncBackend(there.url, memory=memory, token="secret-token", headers={"X": "secret-key"})
            assert backend.schema("todo").names == ["id"]
            backend.close()

    assert [request.path for request in there.asked].count("/syncframe") == 1
    assert memory == {f"{there.url} protocol": dialect}
    assert ("ZUMO-API-VERSION" in there.asked[-1].headers) == (dialect == "v2")


def test_our_own_server_is_told_and_remembered(tmp_path):
    memory: dict[str, str] = {}

    with serve(todo_database(tmp_path).url, tables=SERVED) as server:
        for _ in range(2):
            backend = DatasyncBackend(server.url, memory=memory)
            assert backend.schema("todo")["n"].type == "BIGINT"
            assert backend.identity() != server.url
            assert backend.promises.atomic_push
            assert backend.tables() == ["lists", "todo"]
            backend.close()

    assert memory == {f"{server.url} protocol": "extended"}


def test_a_server_that_became_another_is_asked_anew(tmp_path):
    memory: dict[str, str] = {}
    with service(lambda request: HTML if request.path == "/syncframe" else LISTS["v3"]) as there:
        memory[f"{there.url} protocol"] = "extended"
        backend = DatasyncBackend(there.url, memory=memory)
        assert backend.identity() == there.url
        assert backend.schema("todo").names == ["id"]
        backend.close()

    assert memory == {f"{there.url} protocol": "v3"}


def test_a_table_that_is_not_there_is_named():
    with service(as_json({"error": "no"}, 404)) as there:
        for options in ({}, {"protocol": "v2"}, {"protocol": "v3", "schemas": {"nowhere": {"n": int}}}):
            backend = DatasyncBackend(there.url, **options)
            with pytest.raises(BackendError, match="'nowhere'") as caught:
                list(backend.pull("nowhere", Query(), None))
            assert caught.value.status == 404
            backend.close()


def test_a_plain_service_is_named_by_scheme_host_port_and_path():
    backend = DatasyncBackend("https://me:secret@Example.net/some/path/", protocol="v2")

    assert backend.identity() == "https://example.net/some/path"
    assert repr(backend) == "DatasyncBackend('https://example.net/some/path')"
    assert not backend.promises.exact_types


@pytest.mark.parametrize("options", [{"protocol": "v4"}, {"in_flight": 0}, {"timeout_s": 0}, {"overlap_s": -1}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(SyncError):
        DatasyncBackend("http://host", **options)


# Pushes to a plain service


class Writes:
    """A plain service whose writes are answered by a script, and whose lists show `rows`."""

    def __init__(self, dialect: str, *replies: Reply, rows: list[dict[str, Any]] = ()) -> None:
        self.dialect, self.replies, self.rows = dialect, list(replies), list(rows)
        self.writes: list[Request] = []

    @contextmanager
    def running(self, **options: Any) -> Iterator[DatasyncBackend]:
        with service(self.answer) as self.there:
            options = {"protocol": self.dialect, "schemas": whole("todo", n="BIGINT", t="VARCHAR"), **options}
            backend = DatasyncBackend(self.there.url, sleep=lambda s: None, **options)
            yield backend
            backend.close()

    def answer(self, request: Request) -> Reply:
        if request.method == "GET":
            wanted = holds(request.query.get("$filter"))
            found = [row for row in self.rows if wanted(row)]
            return as_json({("results" if self.dialect == "v2" else "items"): found, "count": len(found)})
        self.writes.append(request)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


def stored(id_: str = "a", version: str = "2", deleted: bool = False, **values: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "n": 1,
        "t": "x",
        **values,
        "version": version,
        "updatedAt": "2026-11-24T10:00:00.000Z",
        "deleted": deleted,
    }


def test_a_v2_update_sends_changed_columns_with_the_base_s_version():
    far = Writes("v2", as_json(stored(n=5, version="3"), ETag='"3"'))

    with far.running() as backend:
        (outcome,) = push(backend, "todo", update("a", 'M"Q==', n=5))

    (sent,) = far.writes
    assert (sent.method, sent.path, sent.json(), sent.headers["If-Match"]) == (
        "PATCH",
        "/tables/todo/a",
        {"n": 5},
        '"M\\"Q=="',
    )
    assert sent.headers["ZUMO-API-VERSION"] == "2.0.0"
    assert (outcome["status"], outcome["version"], outcome["r_n"]) == ("accepted", "3", 5)


def test_an_insert_sends_given_columns_and_no_if_match():
    far = Writes("v2", as_json(stored(n=5, t=None), 201))

    with far.running() as backend:
        push(backend, "todo", insert("a", n=5))

    assert far.writes[0].json() == {"id": "a", "n": 5}
    assert "If-Match" not in far.writes[0].headers


def test_an_id_is_quoted_in_the_path():
    far = Writes("v2", lambda: None)
    far.replies = [as_json(stored("ä/b?c %", n=5))]

    with far.running() as backend:
        told = statuses(backend, "todo", update("ä/b?c %", "1", n=5), update("..", "1", n=5))

    assert [request.target for request in far.writes] == ["/tables/todo/%C3%A4%2Fb%3Fc%20%25"]
    assert told == ["accepted", "rejected"]


def test_a_weak_tag_is_no_version():
    row = stored(n=5)
    del row["version"]

    for tag, version in (('W/"7"', None), ('"7"', "7")):
        far = Writes("v2", as_json(row, ETag=tag))
        with far.running() as backend:
            (outcome,) = push(backend, "todo", update("a", "1", n=5))
        assert outcome["version"] == version


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (stored(n=9), ("conflicted", False, 9, "2")),
        (stored(n=5, t="other"), ("accepted", False, 5, "2")),
        (stored(n=9, deleted=True), ("conflicted", True, None, "2")),
        (None, ("rejected", True, None, None)),
    ],
    ids=["another row", "one's own", "a tombstone", "nothing"],
)
def test_a_v2_duplicate_is_judged_by_what_is_there_and_not_by_the_body_which_is_one_s_own(there, told):
    own = {"id": "a", "n": 5}
    far = Writes("v2", as_json(own, 409, ETag='W/"1"'), rows=[there] if there else [])

    with far.running() as backend:
        (o,) = push(backend, "todo", insert("a", n=5))

    assert (o["status"], o["deleted"], o["r_n"], o["version"]) == told
    assert all(request.query["__includeDeleted"] for request in far.there.asked if request.method == "GET")


@DIALECTS
@pytest.mark.parametrize("status", [409, 412])
def test_a_stale_update_conflicts_with_the_row_in_the_answer_or_is_one_s_own(dialect, status):
    for n, told in ((9, "conflicted"), (5, "accepted")):
        far = Writes(dialect, as_json(stored(n=n, version="3"), status), rows=[stored(version="1")])
        with far.running() as backend:
            (o,) = push(backend, "todo", update("a", "1", n=5))
        assert (o["status"], o["version"], o["r_n"]) == (told, "3", n)


def test_a_409_of_a_row_that_has_not_moved_is_a_rejection():
    far = Writes("v2", as_json({"error": "UNIQUE constraint failed: todo.t"}, 409), rows=[stored(version="1")])

    with far.running() as backend:
        (o,) = push(backend, "todo", update("a", "1", t="taken"))

    assert (o["status"], o["code"], o["deleted"], o["r_t"]) == ("rejected", "unique", False, "x")
    assert "UNIQUE" in o["message"]


@DIALECTS
@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_a_delete_s_goal_and_an_update_s_conflict(dialect, status):
    gone = as_json({"error": "The item does not exist"}, status)
    rows = [stored("a", "2", deleted=True)]
    live = [stored("b", "1")] if dialect == "v3" else []  # so that v3 gets to send its PUT

    far = Writes(dialect, gone, rows=[*rows, *live])
    with far.running() as backend:
        a, b = push(backend, "todo", delete("a", "1"), delete("c", "1"))
        (u,) = push(backend, "todo", update("a", "1", n=3))

    assert [(o["status"], o["deleted"], o["version"]) for o in (a, b)] == [
        ("accepted", True, "2"),
        ("accepted", True, None),
    ]
    assert (u["status"], u["deleted"], u["version"], u["r_n"]) == ("conflicted", True, "2", None)


def test_a_refused_row_is_rejected_with_the_service_s_words_and_sent_once_more_after_the_others():
    refusal = as_json([{"memberNames": ["t"], "errorMessage": "t is too short"}], 400)
    far = Writes("v3", as_json(stored("a", n=1), 201), refusal, as_json(stored("b", n=2), 201))

    with far.running(in_flight=1) as backend:
        told = statuses(backend, "todo", insert("a", n=1), insert("b", n=2))
    assert told == ["accepted", "accepted"]

    far = Writes("v3", as_json(stored("a", n=1), 201), refusal)
    with far.running(in_flight=1) as backend:
        _, o = push(backend, "todo", insert("a", n=1), insert("b", n=2))
    assert (o["status"], o["code"], o["column"], o["message"]) == ("rejected", "400", "t", "t is too short")


def test_a_401_stops_the_push_after_what_was_answered():
    far = Writes("v2", as_json(stored("a"), 201), as_json({"error": "who?"}, 401))

    with far.running(in_flight=1) as backend:
        outcomes, operations = [], [insert(key, n=1) for key in "abcd"]
        with pytest.raises(AccessError, match="who"):
            for part in backend.push(sf.testing.batch(backend, "todo", operations)):
                outcomes += list(part)

    assert [o["operation_id"] for o in outcomes] == [operations[0]["operation_id"]]
    assert len(far.writes) == 2


def test_a_500_for_one_row_does_not_hold_up_the_others():
    far = Writes(
        "v2", as_json(stored("a"), 201), as_json({"error": "Unsupported type"}, 500), as_json(stored("c"), 201)
    )

    with far.running(in_flight=1) as backend:
        outcomes, operations = [], [insert(key, n=1) for key in "abc"]
        with pytest.raises(TransientError, match=r"insert of 'b'.*Unsupported type"):
            for part in backend.push(sf.testing.batch(backend, "todo", operations)):
                outcomes += list(part)

    assert [o["operation_id"] for o in outcomes] == [operations[0]["operation_id"], operations[2]["operation_id"]]


def test_nothing_was_sent_where_nobody_listens():
    with service(HTML) as there:
        url = there.url
    backend = DatasyncBackend(url, protocol="v2", schemas=SCHEMAS, sleep=lambda s: None)

    with pytest.raises(TransientError) as caught:
        push(backend, "todo", insert("a", n=1), insert("b", n=1))

    assert caught.value.was_sent is False
    backend.close()


def test_requests_are_under_way_side_by_side_and_no_more_than_was_said():
    together, most, now = threading.Barrier(4), [0], [0]
    lock = threading.Lock()

    def answer(request):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait(10)
        with lock:
            now[0] -= 1
        return as_json(stored(request.json()["id"], n=1), 201)

    with service(answer) as there:
        backend = DatasyncBackend(there.url, protocol="v2", schemas=whole("todo", n="BIGINT", t="VARCHAR"), in_flight=4)
        outcomes = push(backend, "todo", *(insert(f"k{n:02}", n=1) for n in range(40)))
        backend.close()

    assert most == [4]
    assert [o["status"] for o in outcomes] == ["accepted"] * 40


def test_v3_sends_the_whole_row_and_columns_it_does_not_know_survive_to_the_last_digit():
    body = json.dumps({"items": [stored(n=1, version="1")], "count": 1})
    body = body.replace('"t"', '"unknown": {"deep": [1.10, 12345678901234567890.123456789]}, "t"')
    far = Writes("v3", as_json(stored(n=5)))
    far.answer = lambda request: (
        Reply(200, body.encode(), {"Content-Type": "application/json"})
        if request.method == "GET"
        else Writes.answer(far, request)
    )

    with far.running() as backend:
        push(backend, "todo", update("a", "1", n=5))

    (sent,) = far.writes
    assert (sent.method, sent.headers["If-Match"]) == ("PUT", '"1"')
    assert b"[1.10,12345678901234567890.123456789]" in sent.body
    assert {name: sent.json()[name] for name in ("id", "n", "t")} == {"id": "a", "n": 5, "t": "x"}
    assert not {"version", "updatedAt", "deleted"} & sent.json().keys()


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (stored(n=9, version="2"), ("conflicted", False, 9)), (stored(n=5, version="2"), ("accepted", False, 5)),
        (stored(version="2", deleted=True), ("conflicted", True, None)), (None, ("conflicted", True, None)),
    ],
    ids=["moved", "one's own", "deleted", "gone"],
)  # fmt: skip
def test_v3_puts_nothing_over_a_row_that_is_not_its_base(there, told):
    far = Writes("v3", as_json({}, 500), rows=[there] if there else [])

    with far.running() as backend:
        (o,) = push(backend, "todo", update("a", "1", n=5))

    assert (o["status"], o["deleted"], o["r_n"]) == told
    assert far.writes == []


def test_a_v2_insert_over_a_tombstone_undeletes_it_and_then_changes_it():
    far = Writes(
        "v2", as_json(stored(version="3", n=0), 201, ETag='"3"'), as_json(stored(version="4", n=5, t=None)),
        rows=[stored(version="2", n=0, deleted=True)],
    )  # fmt: skip

    with far.running() as backend:
        (o,) = push(backend, "todo", insert("a", "2", n=5))

    undelete, patch = far.writes
    assert (undelete.method, undelete.path, undelete.body, undelete.headers["If-Match"]) == (
        "POST",
        "/tables/todo/a",
        b"",
        '"2"',
    )
    assert (patch.method, patch.headers["If-Match"], patch.json()) == ("PATCH", '"3"', {"n": 5, "t": None})
    assert (o["status"], o["version"], o["r_n"], o["r_t"]) == ("accepted", "4", 5, None)


def test_a_v2_insert_over_a_tombstone_that_is_refused_leaves_it_deleted():
    far = Writes(
        "v2", as_json(stored(version="3"), 201), as_json({"error": "t is short"}, 400), as_json(stored(deleted=True)),
        rows=[stored(version="2", deleted=True)],
    )  # fmt: skip

    with far.running() as backend:
        (o,) = push(backend, "todo", insert("a", "2", n=5))

    assert [(request.method, request.headers.get("If-Match")) for request in far.writes] == [
        ("POST", '"2"'),
        ("PATCH", '"3"'),
        ("DELETE", '"3"'),
    ]
    assert (o["status"], o["message"], o["deleted"]) == ("rejected", "t is short", True)


def test_a_v2_undelete_that_was_sent_twice_is_not_taken_for_another_s():
    far = Writes(
        "v2", as_json(stored(version="3"), 412), as_json(stored(version="4", n=5, t=None)),
        rows=[stored(version="2", deleted=True)],
    )  # fmt: skip

    with far.running() as backend:
        assert statuses(backend, "todo", insert("a", "2", n=5)) == ["accepted"]

    assert [(r.method, r.headers["If-Match"]) for r in far.writes] == [("POST", '"2"'), ("PATCH", '"3"')]


@pytest.mark.parametrize("there", [stored(version="3", n=7), stored(version="3", deleted=True, n=7)])
def test_a_v2_insert_over_a_tombstone_that_has_moved_is_a_conflict(there):
    far = Writes("v2", as_json(there, 412), rows=[stored(version="2", deleted=True)])
    with far.running() as backend:
        (o,) = push(backend, "todo", insert("a", "2", n=5))
    assert (o["status"], o["version"], o["deleted"], len(far.writes)) == ("conflicted", "3", there["deleted"], 1)

    far = Writes("v2", as_json({}, 500), rows=[there])
    with far.running() as backend:
        (o,) = push(backend, "todo", insert("a", "2", n=5))
    assert (o["status"], o["version"], len(far.writes)) == ("conflicted", "3", 0)


def test_a_v3_insert_over_a_tombstone_is_one_put():
    far = Writes("v3", as_json(stored(version="4", n=5)))

    with far.running() as backend:
        push(backend, "todo", insert("a", "2", n=5))

    (sent,) = far.writes
    assert (sent.method, sent.target, sent.headers["If-Match"]) == (
        "PUT",
        "/tables/todo/a?__includedeleted=true",
        '"2"',
    )
    assert sent.json() == {"id": "a", "n": 5, "deleted": False}


@DIALECTS
def test_an_insert_over_a_tombstone_that_is_forgotten_is_an_insert(dialect):
    refusals = [as_json({"error": "none"}, 404)] if dialect == "v3" else []
    far = Writes(dialect, *refusals, as_json(stored(n=5), 201))

    with far.running() as backend:
        assert statuses(backend, "todo", insert("a", "2", n=5)) == ["accepted"]

    last = far.writes[-1]
    assert (last.method, last.json(), "If-Match" in last.headers) == ("POST", {"id": "a", "n": 5}, False)


@pytest.mark.parametrize(
    ("type_", "sent", "there", "told"),
    [
        ("TIMESTAMPTZ", dt.datetime(2026, 1, 1, 0, 0, 0, 1999, tzinfo=dt.UTC), "2026-01-01T00:00:00.001Z", "accepted"),
        ("TIMESTAMPTZ", dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "2026-01-01T00:00:00.001Z", "conflicted"),
        ("TIME", dt.time(1, 2, 3, 4999), "01:02:03.004", "accepted"),
        ("DOUBLE", 0.1, 0.1, "accepted"), ("DOUBLE", 1.0, 1, "accepted"), ("DOUBLE", 0.1, 0.2, "conflicted"),
        ("JSON", '{"a": 1, "b": 2}', {"b": 2, "a": 1}, "accepted"), ("JSON", '{"a": 1}', {"a": 2}, "conflicted"),
        ("VARCHAR", None, None, "accepted"), ("VARCHAR", "", None, "conflicted"), ("VARCHAR", "x", "X", "conflicted"),
        ("BOOLEAN", True, True, "accepted"), ("BLOB", b"\x00\xff", "AP8=", "accepted"),
    ],
)  # fmt: skip
def test_one_s_own_write_is_known_by_what_it_wrote_after_the_wire_s_rounding(type_, sent, there, told):
    far = Writes("v2", as_json({**stored(version="9"), "c": there}, 412))

    with far.running(schemas=whole("todo", c=type_)) as backend:
        assert statuses(backend, "todo", update("a", "1", c=sent)) == [told]


# Over our own server, by a wire that fails


@pytest.fixture
def server(database):
    with serve(database.url, tables=SERVED) as running:
        yield running


PROTOCOLS = pytest.mark.parametrize("protocol", ["v2", "v3", "auto"])


@PROTOCOLS
def test_a_column_added_on_the_server_keeps_its_value_when_an_older_store_updates_the_row(database, tmp_path, protocol):
    with serve(database.url, tables=SERVED) as server, synced(server.url, protocol=protocol) as ctx:
        database.run("alter table todo add column extra varchar; update todo set extra = 'kept' where id = 'a'")
        ctx["todo"].pull(query_id="all") if protocol == "auto" else None
    with (
        serve(database.url, tables=SERVED) as server,
        synced(server.url, store=tmp_path / "old.duckdb", protocol=protocol) as ctx,
    ):
        ctx["todo"].pull(query_id="some", columns=["title", "n"])
        ctx["todo"].update("a", n=10)
        assert ctx.push().ok

    assert database.rows("select n, extra, title from todo where id = 'a'") == [(10, "kept", "milk")]


def test_a_stream_that_is_cut_goes_on_behind_its_last_page(database, server):
    database.run("; ".join(f"insert into todo (id, title, n) values ('k{n:03}', 'x{n}', {n})" for n in range(300)))
    cuts = iter(["", "", "cut", "cut", "cut"])

    with proxy(server.url, fault=lambda request: next(cuts, "") if "pull" in request.path else "") as wire:
        backend = DatasyncBackend(wire.url, sleep=lambda s: None)
        list(backend.pull("todo", Query(), None)), list(backend.pull("todo", Query(), None))
        held, came, _ = taken(backend.pull("todo", Query(page_rows=10), None))
        backend.close()

    assert len(held) == 303
    assert len(came) == len(set(came))
    assert wire.faults.count("cut") == 3
    asked = [request.json() for request in wire.asked if "pull" in request.path][2:]
    assert [part["since"] is None for part in asked] == [True, False, False, False]


def test_a_stream_that_is_always_cut_is_a_transient_error_after_its_first_pages(database, server):
    with proxy(server.url, fault=lambda request: "refuse" if "pull" in request.path else "") as wire:
        backend = DatasyncBackend(wire.url, sleep=lambda s: None)
        with pytest.raises(TransientError):
            list(backend.pull("todo", Query(), None))
        backend.close()

    assert wire.faults.count("refuse") == 6


@pytest.mark.parametrize("fault", ["lose", "cut", "twice", "first", "503", "refuse"])
def test_a_pushed_batch_is_applied_once_whatever_the_wire_does(database, server, fault):
    faults = iter([fault, fault])
    with proxy(server.url, fault=lambda request: next(faults, "") if "push" in request.path else "") as wire:
        backend = DatasyncBackend(wire.url, sleep=lambda s: None)
        known = {
            row["id"]: row[VERSION] for page in backend.pull("todo", Query(), None) for row in page.rows.to_pylist()
        }
        told = statuses(
            backend, "todo", *(insert(f"k{n}", title="x", n=n) for n in range(20)),
            update("a", known["a"], n=10), delete("b", known["b"]),
        )  # fmt: skip
        backend.close()

    assert told == ["accepted"] * 22
    assert sorted(database.audit()) == sorted(
        [("insert", f"k{n}") for n in range(20)] + [("update", "a"), ("delete", "b")]
    )


@pytest.mark.parametrize("protocol", ["v2", "v3"])
@pytest.mark.parametrize("fault", ["lose", "cut", "late"])
def test_a_plain_write_whose_answer_was_lost_is_known_by_the_next_push(database, server, protocol, fault):
    with proxy(server.url) as wire, synced(wire.url, protocol=protocol, timeout_s=5) as ctx:
        wire.fault = lambda request: "" if request.method == "GET" else fault
        ctx["todo"].insert({"id": "new", "title": "tea", "n": 1})
        ctx["todo"].update("a", n=10)
        ctx["todo"].delete("b")
        with contextlib.suppress(TransientError):  # an answer without a body cannot be cut
            assert ctx.push().stopped_by is not None
        wire.fault = lambda request: ""
        assert wire.deliver() > 0 or fault != "late"
        result = ctx.push()

        assert (result.ok, len(ctx.conflicts), len(ctx.pending)) == (True, 0, 0)
        assert ctx["todo"].pull(query_id="all").conflicts == 0

    assert database.todo() == {"a": ["milk", 10], "c": ["eggs", 3], "new": ["tea", 1]}
    assert sorted(database.audit()) == [("delete", "b"), ("insert", "new"), ("update", "a")]


class Dice:
    """Faults by a fixed seed."""

    def __init__(self, seed: int, share: float, names: list[str]) -> None:
        self.dice, self.share, self.names, self.lock = random.Random(seed), share, names, threading.Lock()
        self.deck: list[str] = []  # so that each fault comes as often as any other
        self.is_on = True

    def __call__(self, request: Request) -> str:
        with self.lock:
            if not self.is_on or self.dice.random() >= self.share:
                return ""
            self.deck = self.deck or self.dice.sample(self.names, len(self.names))
            return self.deck.pop()


FAULTS = ["refuse", "lose", "cut", "twice", "first", "late", "503"]


@PROTOCOLS
@pytest.mark.parametrize(
    ("seed", "steps"), [(1, 8), *(pytest.param(seed, 60, marks=pytest.mark.full) for seed in range(2, 8))]
)
def test_two_replicas_over_a_failing_wire_converge_and_keep_what_each_staged_last(
    database, server, protocol, seed, steps
):
    """Each has rows of its own; refused, lost, cut, doubled and late requests come to a third of all.

    In the plain protocol a write of one's own may be met as a conflict, for its rows bear no operation ids; nothing
    is overwritten by it, and "mine" ends it.
    """
    dice, faults = random.Random(seed), Dice(seed, 0.33, FAULTS)
    intent: dict[str, int | None] = {}

    with proxy(server.url, fault=faults) as wire:
        faults.is_on = False
        replicas = [synced(wire.url, protocol=protocol, timeout_s=2, overlap_s=0, in_flight=4) for _ in range(2)]
        for step in range(steps):
            faults.is_on = True
            for name, ctx in zip("xy", replicas, strict=True):
                key = f"{name}{dice.randrange(6)}"
                intent[key] = changed(ctx["todo"], key, name, step, dice)
                with contextlib.suppress(TransientError):
                    dice.choice([ctx.push, lambda ctx=ctx: ctx["todo"].pull(query_id="all"), lambda: None])()
            if dice.random() < 0.2:
                wire.deliver()
        faults.is_on = False
        wire.deliver()
        conflicts = 0
        for _ in range(3):
            for ctx in replicas:
                ctx.sync()
                conflicts += len(ctx.conflicts)
                ctx.push(on_conflict="mine")
        left = [len(ctx.pending) for ctx in replicas]
        shown = [{row["id"]: row["n"] for row in ctx["todo"].arrow().to_pylist()} for ctx in replicas]
        for ctx in replicas:
            ctx.close()

    assert {fault for fault in wire.faults if fault} == set(FAULTS)
    there = {key: n for key, (_, n) in database.todo().items()}
    assert shown == [there, there]
    assert left == [0, 0]
    assert {key: n for key, n in there.items() if key[0] in "xy"} == {k: n for k, n in intent.items() if n is not None}
    assert protocol != "auto" or conflicts == 0


def changed(todo: sf.SyncTable, key: str, name: str, step: int, dice: random.Random) -> int | None:
    """Insert, delete or update a row of one's own; return what it holds then."""
    if todo.get(key) is None:
        todo.insert({"id": key, "title": name, "n": step})
    elif dice.random() < 0.3:
        todo.delete(key)
        return None
    else:
        todo.update(key, n=step)
    return step


def test_a_token_that_expired_is_asked_for_again_in_the_middle_of_a_push(database):
    given: list[str] = []

    def token() -> str:
        given.append("the-only-key-there-is")
        return given[-1]

    with serve(database.url, tables=SERVED, tokens=["the-only-key-there-is"]) as server:
        backend = DatasyncBackend(server.url, token=lambda: "wrong-key")
        with pytest.raises(AccessError):
            backend.identity()
        backend.close()
        with synced(server.url, token=token) as ctx:
            ctx["todo"].update("a", n=10)
            assert ctx.push().ok

    assert given == ["the-only-key-there-is"]


# What only happens to some services


@DIALECTS
@pytest.mark.parametrize("order", [(), (Order("n", False),)], ids=["by key", "sorted"])
def test_a_read_of_a_service_that_ignores_what_is_asked_for_ends_with_words(dialect, order):
    rows = [stored(f"k{n}") for n in range(5)]
    page = {"results": rows, "count": 100} if dialect == "v2" else {"items": rows, "nextLink": "$skip=5"}

    with service(as_json(page)) as there:
        backend = DatasyncBackend(there.url, protocol=dialect, schemas=SCHEMAS)
        with pytest.raises(BackendError, match="rows it had sent before"):
            backend.read("todo", Read(order_by=order))
        backend.close()

    assert len(there.asked) < 10


def test_a_fraction_within_json_is_known_as_one_s_own():
    far = Writes("v2", as_json({}, 412), rows=[stored(j={"x": 0.1}, version="3")])

    with far.running(schemas=whole("todo", j="JSON")) as backend:
        (outcome,) = push(backend, "todo", update("a", "2", j='{"x": 0.1}'))

    assert outcome["status"] == "accepted"


@pytest.mark.parametrize("cells", [(10**400,), (10**400, 1)])
def test_a_number_beyond_all_types_is_named_and_not_a_crash(cells):
    rows = [stored(f"k{at}", n=cell) for at, cell in enumerate(cells)]

    with service(as_json({"items": rows, "nextLink": None})) as there:
        backend = DatasyncBackend(there.url, protocol="v3")
        with pytest.raises(SchemaError, match="column 'n' is DECIMAL"):
            list(backend.pull("todo", Query(), None))
        backend.close()


def test_a_service_that_accepts_and_never_answers_is_not_waited_for_again():
    held = threading.Event()
    with service(lambda _: Reply(503) if held.wait(5) else HTML) as there:
        backend = DatasyncBackend(there.url, protocol="v3", timeout_s=0.3)
        with pytest.raises(TransientError, match="too long"):
            backend.schema("todo")
        held.set()
        backend.close()

    assert len(there.asked) == 1


def test_the_stop_button_does_not_wait_for_a_service_that_does_not_answer():
    held, came = threading.Event(), threading.Event()

    def never(request: Request) -> Reply:
        if not came.is_set():
            came.set()
            held.wait(1.5)  # a signal that comes just before the main thread begins to wait would be seen after it
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        held.wait(20)
        return as_json({}, 400)

    try:
        with service(never) as there:
            backend = DatasyncBackend(there.url, protocol="v2", schemas=SCHEMAS, timeout_s=20)
            began = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                push(backend, "todo", *(insert(f"k{n}", n=n) for n in range(100)))
            assert time.monotonic() - began < 5
            held.set()
            backend.close()
    finally:
        held.set()

    assert len(there.asked) <= 16  # the others were not sent afterwards


@DIALECTS
def test_small_pages_of_a_service_are_stored_together_and_what_came_before_a_failure_stays(dialect):
    canned = Canned(dialect, cap=5)
    crowded(canned, 30, lambda n: START + ms(n))

    with canned.running(schemas=SCHEMAS) as backend:
        whole_run = [len(page.rows) for page in backend.pull("todo", Query(), None)]
        answer, canned.there.answer = (
            canned.there.answer,
            lambda request: (
                Reply(400, b"{}", {"Content-Type": "application/json"})
                if "k00014" in request.target
                else answer(request)
            ),
        )
        sizes, checkpoint = [], None
        with pytest.raises(BackendError):
            for page in backend.pull("todo", Query(), None):
                sizes.append(len(page.rows))
                checkpoint = page.checkpoint
        canned.there.answer = answer
        rest = [len(page.rows) for page in backend.pull("todo", Query(), checkpoint)]

    assert whole_run == [30]
    assert (sizes, sum(rest)) == ([15], 15)
