"""Conflicts settled by policies, by frames, by columns and by callables: what stands then, here and at the back end."""

from __future__ import annotations

import contextlib
import random
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

# What two people do to one row (id, a, b, c), and what stands at the back end then; None: no such row.
# By policy: whether a conflict is left, and the row after the push that follows.
ROW = (1, 2, "x")
MATRIX = {
    "both-update-apart": (
        lambda t, k: t.update(k, a=10),
        lambda t, k: t.update(k, b=20),
        {"fail": (1, (1, 20, "x")), "merge": (0, (10, 20, "x")), "mine": (0, (10, 20, "x")), "theirs": (0, (1, 20, "x"))},
    ),
    "both-update-the-same-column": (
        lambda t, k: t.update(k, a=10, c="m"),
        lambda t, k: t.update(k, a=30, b=20),
        {"fail": (1, (30, 20, "x")), "merge": (1, (30, 20, "x")), "mine": (0, (10, 20, "m")), "theirs": (0, (30, 20, "x"))},
    ),
    "both-update-alike": (
        lambda t, k: t.update(k, a=10),
        lambda t, k: t.update(k, a=10),
        dict.fromkeys(("fail", "merge", "mine", "theirs"), (0, (10, 2, "x"))),
    ),
    "an-update-deleted-there": (
        lambda t, k: t.update(k, a=10),
        lambda t, k: t.delete(k),
        {"fail": (1, None), "merge": (1, None), "mine": (0, (10, 2, "x")), "theirs": (0, None)},
    ),
    "a-delete-updated-there": (
        lambda t, k: t.delete(k),
        lambda t, k: t.update(k, b=20),
        {"fail": (1, (1, 20, "x")), "merge": (1, (1, 20, "x")), "mine": (0, None), "theirs": (0, (1, 20, "x"))},
    ),
    "both-delete": (
        lambda t, k: t.delete(k),
        lambda t, k: t.delete(k),
        dict.fromkeys(("fail", "merge", "mine", "theirs"), (0, None)),
    ),
    "both-insert-unlike": (
        lambda t, k: t.insert({"id": "new-" + k, "a": 10, "c": "m"}),
        lambda t, k: t.insert({"id": "new-" + k, "a": 30, "b": 20}),
        {"fail": (1, (30, 20, None)), "merge": (1, (30, 20, None)), "mine": (0, (10, 20, "m")), "theirs": (0, (30, 20, None))},
    ),
    "both-insert-alike": (
        lambda t, k: t.insert({"id": "new-" + k, "a": 10, "b": 20, "c": "m"}),
        lambda t, k: t.insert({"id": "new-" + k, "a": 10, "b": 20, "c": "m"}),
        dict.fromkeys(("fail", "merge", "mine", "theirs"), (0, (10, 20, "m"))),
    ),
    "an-insert-inserted-and-deleted-there": (
        lambda t, k: t.insert({"id": "new-" + k, "a": 10, "b": 20, "c": "m"}),
        lambda t, k: (t.insert({"id": "new-" + k, "a": 30}), t._session.push(["items"]), t.delete("new-" + k)),
        dict.fromkeys(("fail", "merge", "mine", "theirs"), (0, (10, 20, "m"))),
    ),
}  # fmt: skip


def database(path: Path, n: int = 0) -> Path:
    """Rows k0 ... of the matrix, one for each case, or so many."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table items (id text primary key, a integer, b integer, c text, lat real, lon real)")
        keys = [f"k{i}" for i in range(n)] or list(MATRIX)
        connection.executemany("insert into items values (?, 1, 2, 'x', 48.0, 16.0)", [(key,) for key in keys])
    backend = open_backend(f"sqlite:///{path}")
    backend.track(["items"])
    backend.close()
    return path


def rows(path: Path) -> dict[str, tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {key: tuple(cells) for key, *cells in connection.execute("select id, a, b, c from items")}


@contextlib.contextmanager
def two(path: Path, way: str = "sqlite") -> Iterator[tuple[sf.SyncContext, sf.SyncContext]]:
    """Two people with all rows, each with a store of their own."""
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{path}"
        options = {}
        if way != "sqlite":
            url = stack.enter_context(sf.serve(url)).url
            options = {"protocol": "auto" if way == "extended" else way, "overlap_s": 0}
        mine, theirs = (stack.enter_context(sf.connect(url, store=":memory:", **options)) for _ in range(2))
        for ctx in (mine, theirs):
            ctx["items"].pull(query_id="all")
        yield mine, theirs


@pytest.mark.parametrize("policy", ["fail", "merge", "mine", "theirs"])
@pytest.mark.parametrize("verb", ["push", "pull"])
@pytest.mark.parametrize("way", WAYS)
def test_what_two_people_do_to_one_row_ends_by_the_policy(tmp_path, way, verb, policy):
    path = database(tmp_path / "shop.db")
    with two(path, way) as (mine, theirs):
        for key, (own, other, _) in MATRIX.items():
            other(theirs["items"], key)
            own(mine["items"], key)
        theirs.push()

        if verb == "pull":
            mine["items"].pull(query_id="all", push_first=False, on_conflict=policy)
            mine.push()
        else:
            mine.push(on_conflict=policy)

        left = {conflict.key.removeprefix("new-") for conflict in mine.conflicts}
        mine["items"].pull(query_id="all", push_first=False)
        here = {
            key: (row["a"], row["b"], row["c"])
            for key in mine["items"].frame().index
            if (row := mine["items"].get(key))
        }
    there = rows(path)
    ends = {key: (int(key in left), there.get("new-" + key if "insert" in key else key)) for key in MATRIX}
    assert ends == {key: outcomes[policy] for key, (_, _, outcomes) in MATRIX.items()}
    assert {key: row for key, row in here.items() if key.removeprefix("new-") not in left} == {
        key: row for key, row in there.items() if key.removeprefix("new-") not in left
    }


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
