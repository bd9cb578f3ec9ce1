"""Conflicts settled by policies, by frames, by columns and by callables: what stands then, here and at the back end."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import syncframe as sf
from syncframe.backends import open as open_backend
from syncframe.conflict import merge

WAYS = ["sqlite", "v2", "v3", "extended"]

# What you and they do to one row (id, a, b, c), in the words of README's table; what stands at the back end then by
# what became of it: "theirs", and "yours" or "both", which are what you changed over theirs.  None: no such row.
ROW = (1, 2, "x")
MATRIX = {
    ("update", "update of other columns"): (
        lambda t, k: t.update(k, a=10),
        lambda t, k: t.update(k, b=20),
        {"theirs": (1, 20, "x"), "yours": (10, 20, "x"), "row": (7, 20, "x")},
    ),
    ("update", "update of a column of yours"): (
        lambda t, k: t.update(k, a=10, c="m"),
        lambda t, k: t.update(k, a=30, b=20),
        {"theirs": (30, 20, "x"), "yours": (10, 20, "m"), "row": (7, 20, "x")},
    ),
    ("update", "the same update"): (
        lambda t, k: t.update(k, a=10),
        lambda t, k: t.update(k, a=10),
        {"theirs": (10, 2, "x"), "yours": (10, 2, "x")},
    ),
    ("update", "delete"): (
        lambda t, k: t.update(k, a=10),
        lambda t, k: t.delete(k),
        {"theirs": None, "yours": (10, 2, "x"), "row": (7, 2, "x")},
    ),
    ("update", "delete, then insert"): (
        lambda t, k: t.update(k, a=10),
        lambda t, k: made_anew(t, k, a=30),
        {"theirs": (30, None, None), "yours": (10, None, None), "row": (7, None, None)},
    ),
    ("delete", "update"): (
        lambda t, k: t.delete(k),
        lambda t, k: t.update(k, b=20),
        {"theirs": (1, 20, "x"), "yours": None, "row": (7, 20, "x")},
    ),
    ("delete", "delete"): (
        lambda t, k: t.delete(k),
        lambda t, k: t.delete(k),
        {"theirs": None, "yours": None},
    ),
    ("delete", "delete, then insert"): (
        lambda t, k: t.delete(k),
        lambda t, k: made_anew(t, k, a=30),
        {"theirs": (30, None, None), "yours": None, "row": (7, None, None)},
    ),
    ("insert", "insert"): (
        lambda t, k: t.insert({"id": "new-" + k, "a": 10, "c": "m"}),
        lambda t, k: t.insert({"id": "new-" + k, "a": 30, "b": 20}),
        {"theirs": (30, 20, None), "yours": (10, 20, "m"), "row": (7, 20, None)},
    ),
    ("insert", "insert, then update"): (
        lambda t, k: t.insert({"id": "new-" + k, "a": 10}),
        lambda t, k: (t.insert({"id": "new-" + k, "a": 30}), pushed(t), t.update("new-" + k, b=20)),
        {"theirs": (30, 20, None), "yours": (10, 20, None), "row": (7, 20, None)},
    ),
    ("insert", "the same insert"): (
        lambda t, k: t.insert({"id": "new-" + k, "a": 10, "b": 20, "c": "m"}),
        lambda t, k: t.insert({"id": "new-" + k, "a": 10, "b": 20, "c": "m"}),
        {"theirs": (10, 20, "m"), "yours": (10, 20, "m")},
    ),
    ("insert", "insert, then delete"): (
        lambda t, k: t.insert({"id": "new-" + k, "a": 10, "b": 20, "c": "m"}),
        lambda t, k: (t.insert({"id": "new-" + k, "a": 30}), pushed(t), t.delete("new-" + k)),
        {"theirs": None, "yours": (10, 20, "m")},
    ),
}
POLICIES = {
    "fail": "fail",
    "merge": "merge",
    "mine": "mine",
    "theirs": "theirs",
    "a callable that says mine": lambda conflict: "mine",
    "a callable that says theirs": lambda conflict: "theirs",
    "a callable that says a row": lambda conflict: {"a": 7},
    "a callable that says nothing": lambda conflict: None,
}
README = Path(__file__).parents[1] / "README.md"


def documented() -> dict[tuple[str, str], dict[str, str]]:
    """README's table: what becomes of what you and they do, by policy."""
    lines = README.read_text().partition("| you | they |")[2].partition("\n\n")[0].splitlines()
    policies = re.findall(r'"(\w+)"', lines[0])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {(you, they): dict(zip(policies, said, strict=True)) for you, they, *said in cells}


def becomes(case: tuple[str, str], policy: str) -> str:
    said = documented()[case]
    if not policy.startswith("a callable"):
        return said[policy]
    what = policy.split()[-1]
    return (
        said["fail"]
        if what == "nothing" or said["fail"] != "conflict"
        else {"row": "row"}.get(what, said.get(what, ""))
    )


def made_anew(table: sf.SyncTable, key: str, **columns: object) -> None:
    table.delete(key)
    pushed(table)
    table.insert({"id": key, **columns})


def pushed(table: sf.SyncTable) -> None:
    table._session.push(["items"])


def name_of(case: tuple[str, str]) -> str:
    """The key of a case's row."""
    return "-".join(case).replace(",", "").replace(" ", "-")


def database(path: Path, n: int = 0) -> Path:
    """Rows k0 ... of the matrix, one for each case, or so many."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table items (id text primary key, a integer, b integer, c text, lat real, lon real)")
        keys = [f"k{i}" for i in range(n)] or [name_of(case) for case in MATRIX]
        connection.executemany("insert into items values (?, 1, 2, 'x', 48.0, 16.0)", [(key,) for key in keys])
    backend = open_backend(f"sqlite:///{path}")
    backend.track(["items"])
    backend.close()
    return path


def rows(path: Path) -> dict[str, tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {key: tuple(cells) for key, *cells in connection.execute("select id, a, b, c from items")}


@contextlib.contextmanager
def two(
    path: Path, way: str = "sqlite", store: str | Path = ":memory:"
) -> Iterator[tuple[sf.SyncContext, sf.SyncContext]]:
    """Two people with all rows, each with a store of their own; the first one's may be a file."""
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{path}"
        options = {}
        if way != "sqlite":
            url = stack.enter_context(sf.serve(url)).url
            options = {"protocol": "auto" if way == "extended" else way, "overlap_s": 0}
        mine, theirs = (stack.enter_context(sf.connect(url, store=at, **options)) for at in (store, ":memory:"))
        for ctx in (mine, theirs):
            ctx["items"].pull(query_id="all")
        yield mine, theirs


def test_the_table_of_outcomes_has_every_case():
    assert list(documented()) == list(MATRIX)


FEW = {("v2", "push", "merge"), ("v3", "pull", "fail"), ("extended", "push", "merge")}


def costs(way: str, verb: str, policy: str) -> list[pytest.MarkDecorator]:
    """What is settled is told to the queue, which knows nothing of back ends: over HTTP the whole only if asked for."""
    is_few = (way == "sqlite" and (verb == "push" or not callable(POLICIES[policy]))) or (way, verb, policy) in FEW
    return [] if is_few else [pytest.mark.full]


MEETINGS = [
    pytest.param(way, verb, policy, marks=costs(way, verb, policy))
    for way in WAYS
    for verb in ("push", "pull")
    for policy in POLICIES
]


def edited(mine: sf.SyncContext, theirs: sf.SyncContext) -> None:
    """What they do is pushed, what you do is queued."""
    for case, (own, other, _) in MATRIX.items():
        other(theirs["items"], name_of(case))
        own(mine["items"], name_of(case))
    theirs.push()


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with the database and your store, as they are before both meet."""
    folder = tmp_path_factory.mktemp("begun")
    with two(database(folder / "shop.db"), store=folder / "mine.duckdb") as (mine, theirs):
        edited(mine, theirs)
    return folder


@pytest.fixture
def meeting(request, tmp_path):
    """You, over one of the ways to the back end, before you meet what they did."""
    path, way = tmp_path / "shop.db", request.param
    if way == "sqlite":
        shutil.copytree(request.getfixturevalue("begun"), tmp_path, dirs_exist_ok=True)
        with sf.connect(f"sqlite:///{path}", store=tmp_path / "mine.duckdb") as mine:
            yield path, mine
        return
    with two(database(path), way) as (mine, theirs):
        edited(mine, theirs)
        yield path, mine


@pytest.mark.parametrize(("meeting", "verb", "policy"), MEETINGS, indirect=["meeting"])
def test_what_two_people_do_to_one_row_ends_by_the_policy(meeting, verb, policy):
    path, mine = meeting
    on_conflict = POLICIES[policy]
    if verb == "pull":
        mine["items"].pull(query_id="all", push_first=False, on_conflict=on_conflict)
        mine.push()
    else:
        mine.push(on_conflict=on_conflict)

    left = {conflict.key for conflict in mine.conflicts}
    mine["items"].pull(query_id="all", push_first=False)
    here = {row["id"]: (row["a"], row["b"], row["c"]) for row in mine["items"].arrow().to_pylist()}
    there = rows(path)
    ends = {}
    for case in MATRIX:
        key = "new-" * (case[0] == "insert") + name_of(case)
        ends[case] = ("conflict" if key in left else "settled", there.get(key))
        assert key in left or here.get(key) == there.get(key)
    assert ends == {case: end_of(case, becomes(case, policy)) for case in MATRIX}


def end_of(case: tuple[str, str], word: str) -> tuple[str, tuple | None]:
    """Whether a conflict is left, and the row at the back end."""
    ends = MATRIX[case][2]
    if word == "conflict":
        return "conflict", ends["theirs"]
    return "settled", ends["yours" if word == "both" else word]


# The merge


@pytest.fixture
def clash(tmp_path):
    """Six conflicts: k0 apart, k1 and k2 clash in a (k2 in c too), k3 in one place each, k4 deleted there, k5 here."""
    path = database(tmp_path / "shop.db", 7)
    with two(path) as (mine, theirs):
        items, others = mine["items"], theirs["items"]
        items.keep_together("lat", "lon")
        others.update("k0", a=100)
        others.update("k1", a=101)
        others.update("k2", a=102, c="theirs")
        others.update("k3", lat=5.0)
        others.delete("k4")
        others.update("k5", b=105)
        items.update("k0", b=200)
        items.update("k1", a=201, b=201)
        items.update("k2", a=202, c="mine", b=202)
        items.update("k3", lon=7.0)
        items.update("k4", a=204)
        items.delete("k5")
        theirs.push()
        yield path, mine, theirs


def open_keys(ctx: sf.SyncContext) -> dict[str, tuple]:
    return {conflict.key: conflict.columns for conflict in ctx.conflicts}


def test_a_merge_settles_what_is_apart_and_leaves_columns_that_belong_together(clash):
    _, mine, _ = clash
    mine.push()

    settled = mine.conflicts.merge()

    assert settled == 1
    assert open_keys(mine) == {"k1": ("a",), "k2": ("a", "c"), "k3": ("lat", "lon"), "k4": (), "k5": ()}
    assert mine["items"].get("k0")["a"] == 100 and mine["items"].get("k0")["b"] == 200
    mine.undo()
    assert open_keys(mine)["k0"] == ()
    assert mine.conflicts["items", "k0"].merged["a"] == 100


def test_a_policy_of_the_context_or_the_table_holds_until_a_call_says_otherwise(tmp_path):
    path = database(tmp_path / "shop.db", 3)
    with two(path) as (mine, theirs):
        table = mine.table("items", on_conflict="merge")
        for key in ("k0", "k1", "k2"):
            theirs["items"].update(key, a=100)
        theirs.push()
        table.update("k0", b=200)
        first = table.pull(query_id="all", push_first=False)
        mine["items"].update("k0", b=201)
        theirs["items"].pull(query_id="all")
        theirs["items"].update("k0", a=101)
        theirs.push()
        second = table.pull(query_id="all", push_first=False, on_conflict="fail")

    assert (first.conflicts, second.conflicts) == (0, 1)


@pytest.mark.parametrize("n", [1_500, pytest.param(100_000, marks=pytest.mark.full)])
def test_merge_and_results_are_for_many_rows_what_they_are_for_one(tmp_path, n):
    """The pure merge is the oracle; what is left is settled by a frame, and both sides end equal."""
    draw = random.Random(n)
    sides = [[[draw.choice([None, 0, 1]) for _ in range(4)] for _ in range(n)] for _ in range(3)]
    path = database(tmp_path / "many.db", n)

    def write(rows: list[list[int | None]]) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            statement = "update items set a = ?, b = ?, lat = ?, lon = ? where id = ?"
            connection.executemany(statement, [(*row, f"k{i}") for i, row in enumerate(rows)])

    names = ["a", "b", "lat", "lon"]
    before, here, there = sides
    write(before)
    with sf.connect(f"sqlite:///{path}", store=":memory:") as ctx:
        items = ctx["items"]
        items.pull(query_id="all", progress=False)
        items.keep_together("lat", "lon")
        write(there)
        frame = items.frame().sort_index(key=lambda keys: keys.str[1:].astype(int))
        frame[names] = pd.DataFrame(here, columns=names, index=frame.index, dtype="Float64")
        items.stage(frame)
        ctx.push(on_conflict="merge", progress=False)

        expected = {}
        for i in range(n):
            base, local, remote = (dict(zip(names, side[i], strict=True)) for side in sides)
            merged = merge(base, local, remote, [("lat", "lon")])
            # All that was edited here is there already: nothing is left to say, whatever else they changed.
            is_said = all(remote[name] == local[name] for name in names if local[name] != base[name])
            if merged.clashes and not is_said:
                expected[f"k{i}"] = set(merged.clashes)
        left = {conflict.key: set(conflict.columns) for conflict in ctx.conflicts}
        assert left == expected
        assert len(expected) > n / 10

        frame = ctx.conflicts.frame()
        frame["result"] = [draw.choice(cells) for cells in frame[["mine", "theirs"]].itertuples(index=False)]
        assert ctx.conflicts.resolve(frame) == len(expected)
        decided = frame[["key", "column", "result"]].itertuples(index=False)
        chosen = {(key, column): None if pd.isna(value) else value for key, column, value in decided}
        ctx.push(progress=False)
        items.pull(query_id="all", push_first=False, progress=False)
        shown = items.frame().to_dict("index")

    with contextlib.closing(sqlite3.connect(path)) as connection:
        ends = {key: cells for key, *cells in connection.execute("select id, a, b, lat, lon from items")}
    for i in range(n):
        key = f"k{i}"
        base, local, remote = (dict(zip(names, side[i], strict=True)) for side in sides)
        merged = merge(base, local, remote, [("lat", "lon")])
        row = merged.row if key not in expected else {c: chosen.get((key, c), remote[c]) for c in names}
        row = remote if merged.clashes and key not in expected else row
        assert ends[key] == [row[c] for c in names], key
        assert [None if pd.isna(shown[key][c]) else shown[key][c] for c in names] == ends[key], key


# By column


@pytest.mark.parametrize(("side", "a"), [("keep_mine", 202), ("take_theirs", 102)])
def test_one_column_of_many_conflicts_is_settled_and_the_others_stay_open(clash, side, a):
    path, mine, _ = clash
    mine.push()

    settled = getattr(mine.conflicts, side)(column="a")

    assert settled == 2  # k0 and k1; k2 clashes in c still
    assert open_keys(mine) == {"k2": ("c",), "k3": ("lat", "lon"), "k4": (), "k5": ()}
    conflict = mine.conflicts["items", "k2"]
    assert (conflict.mine["a"], conflict.mine["b"], conflict.theirs["a"]) == (a, 202, 102)
    mine.undo()
    assert open_keys(mine)["k2"] == ("a", "c")
    assert mine.conflicts["items", "k2"].mine["a"] == 202
    getattr(mine.conflicts, side)(column="a")
    mine.conflicts.take_theirs(column="c")
    assert "k2" not in open_keys(mine)
    mine.push()
    assert rows(path)["k2"] == (a, 202, "theirs")


def test_a_column_that_was_settled_clashes_again_where_a_newer_remote_changes_it(clash):
    _, mine, theirs = clash
    mine.push()
    mine.conflicts.keep_mine(column="a", where="id = 'k2'")
    theirs["items"].pull(query_id="all")
    theirs["items"].update("k2", a=1000)
    theirs.push()

    mine["items"].pull(query_id="all", push_first=False)

    assert open_keys(mine)["k2"] == ("a", "c")
    assert mine.conflicts["items", "k2"].theirs["a"] == 1000


def test_columns_kept_together_are_settled_together(clash):
    path, mine, _ = clash
    mine.push()

    mine.conflicts.keep_mine(column="lon")
    mine.push()

    assert "k3" not in open_keys(mine)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select lat, lon from items where id = 'k3'").fetchall() == [(48.0, 7.0)]


def test_a_column_that_is_none_is_refused_with_words(clash):
    _, mine, _ = clash
    mine.push()

    with pytest.raises(sf.SyncError, match="'colour' is no column of 'items'"):
        mine.conflicts.keep_mine(column="colour")


# By frame


def test_a_frame_with_results_settles_all_and_the_back_end_ends_as_it_says(clash):
    path, mine, _ = clash
    mine.push()
    frame = mine.conflicts.frame()
    frame["result"] = frame["mine"]
    frame.loc[(frame["key"] == "k2") & (frame["column"] == "a"), "result"] = 999
    frame.loc[frame["key"] == "k1", "result"] = frame["theirs"]

    settled = mine.conflicts.resolve(frame)
    mine.push()

    assert settled == 6
    assert len(mine.conflicts) == 0
    assert rows(path) == {
        "k0": (1, 200, "x"), "k1": (101, 2, "x"), "k2": (999, 202, "mine"), "k3": (1, 2, "x"), "k4": (204, 2, "x"),
        "k6": (1, 2, "x"),
    }  # fmt: skip


def test_results_that_are_all_empty_choose_the_side_that_deleted_the_row(clash):
    _, mine, _ = clash
    mine.push()
    frame = mine.conflicts.frame()
    frame = frame[frame["key"].isin(["k4", "k5"])]
    frame["result"] = frame["theirs"]

    assert mine.conflicts.resolve(frame) == 2
    assert "k4" not in mine["items"].frame().index
    assert mine["items"].get("k5")["b"] == 105
    mine.undo()
    frame["result"] = frame["mine"]
    assert mine.conflicts.resolve(frame) == 2
    assert mine["items"].get("k4")["a"] == 204
    assert "k5" not in mine["items"].frame().index


def test_a_part_of_a_frame_leaves_open_what_clashes_still_and_one_undo_opens_all(clash):
    _, mine, _ = clash
    mine.push()
    before = open_keys(mine)
    frame = mine.conflicts.frame().query("column == 'a' and key in ('k1', 'k2')")
    frame["result"] = 7

    settled = mine.conflicts.resolve(frame)

    assert settled == 1
    assert mine["items"].get("k1")["a"] == 7 and mine["items"].get("k1")["b"] == 201  # only mine changed b
    assert open_keys(mine)["k2"] == ("c",)
    mine.undo()
    assert open_keys(mine) == before


def test_rows_that_are_not_as_the_frame_has_them_are_left_and_named(clash):
    _, mine, theirs = clash
    mine.push()
    frame = mine.conflicts.frame()
    frame["result"] = frame["mine"]
    theirs["items"].pull(query_id="all")
    theirs["items"].update("k2", a=1000)
    theirs.push()
    mine["items"].pull(query_id="all", push_first=False)
    mine.conflicts["items", "k1"].take_theirs()

    with pytest.warns(UserWarning, match="2 rows left as they were.*'k1'.*'k2'|2 rows left as they were.*'k2'.*'k1'"):
        settled = mine.conflicts.resolve(frame)

    assert settled == 4
    assert open_keys(mine) == {"k2": ("a", "c")}


@pytest.mark.parametrize("remembers", [True, False], ids=["attrs", "no attrs"])
def test_a_row_that_they_delete_after_the_frame_was_made_does_not_come_back_unseen(clash, remembers):
    path, mine, theirs = clash
    theirs["items"].update("k2", c=None)
    theirs.push()
    mine.push()
    frame = mine.conflicts.frame()
    frame = frame[(frame["key"] == "k2") & (frame["column"] == "c")].copy()
    frame["result"] = frame["mine"]
    if not remembers:
        frame.attrs.clear()
    theirs["items"].delete("k2")
    theirs.push()
    mine["items"].pull(query_id="all", push_first=False)

    with pytest.warns(UserWarning, match="1 row left as they were.*'k2'"):
        settled = mine.conflicts.resolve(frame)

    assert [settled, mine.conflicts["items", "k2"].theirs] == [0, None]
    mine.push()
    assert "k2" not in rows(path)


def test_one_s_own_newer_edit_is_not_undone_by_a_decision_that_has_not_seen_it(clash):
    _, mine, _ = clash
    mine.push()
    frame = mine.conflicts.frame()
    frame = frame[frame["key"].isin(["k1", "k2"])].copy()
    frame["result"] = frame["theirs"]
    seen = {key: mine.conflicts["items", key] for key in ("k1", "k2")}
    mine["items"].update("k1", a=999)

    with pytest.warns(UserWarning, match="1 row left as they were.*newer remote row or edit.*'k1'"):
        settled = mine.conflicts.resolve(frame)
    for decide in (seen["k1"].take_theirs, lambda: seen["k1"].resolve({"a": 3})):
        with pytest.raises(sf.SyncError, match="newer remote row or edit has come; nothing was done"):
            decide()
    assert [settled, mine["items"].get("k1")["a"]] == [1, 999]

    seen["k1"].keep_mine()  # the newer edit is mine too
    assert [mine["items"].get("k1")["a"], "k1" in open_keys(mine)] == [999, False]


def test_a_part_of_a_row_that_both_made_cannot_be_decided_alone_and_that_is_said(tmp_path):
    with two(database(tmp_path / "shop.db", 1)) as (mine, theirs):
        theirs["items"].insert({"id": "new", "a": 1, "c": "theirs"})
        theirs.push()
        mine["items"].insert({"id": "new", "a": 2, "c": "mine"})
        mine.push()
        frame = mine.conflicts.frame()
        frame["result"] = frame["mine"]

        with pytest.warns(UserWarning, match="1 row left as they were, for both sides made them.*'new'"):
            by_frame = mine.conflicts.resolve(frame[frame["column"] == "a"])
        with pytest.warns(UserWarning, match="1 row left as they were, for both sides made them.*'new'"):
            by_column = mine.conflicts.keep_mine(column="a")

        assert [by_frame, by_column, len(mine.conflicts)] == [0, 0, 1]
        assert [mine.conflicts.resolve(frame), len(mine.conflicts)] == [1, 0]


WRONG = {
    "a number that is none": ("a", "many", sf.SchemaError, "'a'"),
    "a column that is none": (None, 1, sf.SyncError, "'colour' is no column"),
    "no result": ("a", ..., sf.SyncError, "lacks 'result'"),
    "a cell named twice": ("twice", 1, sf.SyncError, "decided twice"),
    "a table that is none": ("table", 1, sf.SyncError, "'nothing' is not in this store"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_frame_is_refused_with_words_and_nothing_is_done(clash, case):
    _, mine, _ = clash
    mine.push()
    column, value, error, words = WRONG[case]
    frame = mine.conflicts.frame().query("key in ('k1', 'k2')")
    if value is not ...:
        frame["result"] = pd.Series([value] * len(frame), index=frame.index, dtype=object)
    if column is None:
        frame = frame.query("column == 'a'").assign(column="colour")
    if column == "twice":
        frame = pd.concat([frame, frame])
    if column == "table":
        frame["table"] = "nothing"
    before = open_keys(mine)

    with pytest.raises(error, match=words):
        mine.conflicts.resolve(frame)

    assert open_keys(mine) == before


def test_an_empty_result_of_a_column_that_cannot_be_empty_is_refused(tmp_path):
    path = tmp_path / "named.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table items (id text primary key, name text not null)")
        connection.execute("insert into items values ('a', 'x')")
    backend = open_backend(f"sqlite:///{path}")
    backend.track(["items"])
    backend.close()
    with two(path) as (mine, theirs):
        mine["items"].update("a", name="m")
        theirs["items"].update("a", name="t")
        theirs.push()
        mine.push()
        frame = mine.conflicts.frame().assign(result=None)

        with pytest.raises(sf.SchemaError, match="'name' of 'items' cannot be empty: its result in row 'a' is"):
            mine.conflicts.resolve(frame)

        assert len(mine.conflicts) == 1


# By a callable


def test_a_callable_decides_many_in_one_call_and_an_error_in_it_leaves_that_row(clash):
    _, mine, _ = clash
    mine.push()

    def how(conflict):
        if conflict.key == "k3":
            raise ValueError("no idea")
        return {"k0": "mine", "k1": {"a": 5}, "k2": {"a": "many"}, "k4": "theirs", "k5": None}[conflict.key]

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        settled = mine.conflicts.resolve(how)

    assert settled == 3
    assert set(open_keys(mine)) == {"k2", "k3", "k5"}
    assert [str(one.message).split(": ")[0] for one in told] == [
        "conflict on row 'k2' of 'items' is left as it was",
        "conflict on row 'k3' of 'items' is left as it was",
    ]
    mine.undo()
    assert set(open_keys(mine)) == {"k0", "k1", "k2", "k3", "k4", "k5"}


def test_the_tutorial_s_rule_is_three_lines(clash):
    """Discard a failed insert or delete, revert a failed update to the server's copy."""
    path, mine, _ = clash

    result = mine.push(on_conflict=lambda conflict: "theirs")

    assert result.ok and len(mine.conflicts) == 0
    assert rows(path)["k2"] == (102, 2, "theirs")
