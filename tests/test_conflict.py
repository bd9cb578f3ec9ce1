"""Where a newer remote row meets an edit: merge, rebase and keep_mine on one row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncframe.conflict import check_policy, keep_mine, merge, rebase
from syncframe.errors import SyncError
from syncframe.operation import Operation, same, same_rows

NAN = float("nan")
COLUMNS = ("x", "y", "z")


def row(x=0, y=0, z=0):
    return {"id": "a", "x": x, "y": y, "z": z}


BASE = row()

# base, local, remote -> (merged row, clashes, possible)
MERGES = {
    "nobody changed it": (BASE, BASE, BASE, (BASE, (), True)),
    "changed here": (BASE, row(x=1), BASE, (row(x=1), (), True)),
    "changed there": (BASE, BASE, row(x=1), (row(x=1), (), True)),
    "alike on both sides": (BASE, row(x=1), row(x=1), (row(x=1), (), True)),
    "columns apart": (BASE, row(x=1), row(y=2), (row(x=1, y=2), (), True)),
    "one cell, differently": (BASE, row(x=1), row(x=2), (row(x=2), ("x",), True)),
    "one cell differently, others apart": (BASE, row(x=1, y=1), row(x=2, z=2), (row(x=2, y=1, z=2), ("x",), True)),
    "one cell alike, another differently": (BASE, row(x=1, y=1), row(x=1, y=2), (row(x=1, y=2), ("y",), True)),
    "all differently": (BASE, row(1, 1, 1), row(2, 2, 2), (row(2, 2, 2), ("x", "y", "z"), True)),
    "to NULL here": (BASE, row(x=None), row(y=2), (row(x=None, y=2), (), True)),
    "to NULL here, to a value there": (BASE, row(x=None), row(x=2), (row(x=2), ("x",), True)),
    "to NULL here, to NaN there": (BASE, row(x=None), row(x=NAN), (row(x=NAN), (), True)),
    "from NULL to NaN is no change": (row(x=None), row(x=NAN), row(x=2), (row(x=2), (), True)),
    "deleted on both sides": (BASE, None, None, (None, (), True)),
    "deleted here": (BASE, None, BASE, (None, (), True)),
    "deleted there": (BASE, BASE, None, (None, (), True)),
    "deleted here, edited there": (BASE, None, row(x=1), (row(x=1), (), False)),
    "edited here, deleted there": (BASE, row(x=1), None, (None, (), False)),
    "inserted here": (None, row(x=1), None, (row(x=1), (), True)),
    "inserted there": (None, None, row(x=1), (row(x=1), (), True)),
    "inserted alike": (None, row(x=1), row(x=1), (row(x=1), (), True)),
    "inserted differently": (None, row(x=1), row(x=2), (row(x=2), (), False)),
    "never there": (None, None, None, (None, (), True)),
}


@pytest.mark.parametrize(("base", "local", "remote", "expected"), MERGES.values(), ids=MERGES)
def test_three_states_of_a_row_merge_by_column(base, local, remote, expected):
    found = merge(base, local, remote)

    row_, clashes, possible = expected
    assert same_rows(found.row, row_)
    assert (found.clashes, found.is_possible) == (clashes, possible)
    assert found.is_clean is (possible and not clashes)


# x and y are one place, z stands alone.
TOGETHER = {
    "x here, y there: one place cannot be half of each": (row(x=1), row(y=2), (row(y=2), ("x", "y"))),
    "x here, z there": (row(x=1), row(z=2), (row(x=1, z=2), ())),
    "z here, the place there": (row(z=1), row(x=2, y=2), (row(x=2, y=2, z=1), ())),
    "the place alike on both sides": (row(1, 1), row(1, 1, 2), (row(1, 1, 2), ())),
    "the place half alike": (row(1, 1), row(1, 2), (row(1, 2), ("x", "y"))),
    "x alike, y there only": (row(x=1), row(x=1, y=2), (row(x=1, y=2), ("x", "y"))),
    "the place clashes, z is still merged": (row(x=1, z=1), row(y=2), (row(y=2, z=1), ("x", "y"))),
}


@pytest.mark.parametrize(("local", "remote", "expected"), TOGETHER.values(), ids=TOGETHER)
def test_columns_that_belong_together_are_merged_as_one(local, remote, expected):
    found = merge(BASE, local, remote, [("x", "y")])

    assert (found.row, found.clashes) == expected


def test_a_group_of_columns_that_the_row_does_not_have_is_no_group():
    found = merge(BASE, row(x=1), row(y=2), [("lat", "lon"), ("x", "lat")])

    assert (found.row, found.clashes) == (row(x=1, y=2), ())


cells = st.sampled_from([None, NAN, 0, 1, 2, "a"])
rows = st.fixed_dictionaries({"id": st.just("a"), "x": cells, "y": cells, "z": cells})
states = st.none() | rows
groups = st.sampled_from([(), (("x", "y"),), (("x", "y", "z"),), (("y", "z"),)])
props = settings(derandomize=True, max_examples=300, deadline=None)


@props
@given(base=states, other=states, together=groups)
def test_a_merge_with_an_unchanged_side_is_the_other_side(base, other, together):
    here = merge(base, other, base, together)
    there = merge(base, base, other, together)
    both = merge(base, other, other, together)

    for found in (here, there, both):
        assert found.is_clean
        assert same_rows(found.row, other)


@props
@given(base=rows, local=rows, remote=rows, mine=st.sets(st.sampled_from(COLUMNS)))
def test_columns_apart_always_merge_and_each_side_keeps_its_own(base, local, remote, mine):
    local = {n: local[n] if n in mine else base[n] for n in base}
    remote = {n: base[n] if n in mine else remote[n] for n in base}

    found = merge(base, local, remote)

    assert found.is_clean
    assert all(same(found.row[n], (local if n in mine else remote)[n]) for n in COLUMNS)


@props
@given(base=states, local=states, remote=states, together=groups)
def test_whether_a_merge_is_clean_does_not_depend_on_the_side(base, local, remote, together):
    one, other = merge(base, local, remote, together), merge(base, remote, local, together)

    assert (one.is_clean, one.clashes) == (other.is_clean, other.clashes)
    assert not one.is_clean or same_rows(one.row, other.row)


@props
@given(base=rows, local=rows, remote=rows, together=groups)
def test_a_merged_group_is_wholly_from_one_side_and_what_clashes_is_theirs(base, local, remote, together):
    found = merge(base, local, remote, together)

    for group in together:
        part = [found.row[n] for n in group]
        assert any(all(map(same, part, (side[n] for n in group))) for side in (local, remote))
        assert len(set(group) & set(found.clashes)) in (0, len(group))
    assert all(same(found.row[n], remote[n]) for n in found.clashes)


# Rebase


def pending(base, local, **more):
    return Operation("1", "todo", "a", base, local, key_names=("id",), **more)


@pytest.mark.parametrize(
    ("base", "local", "remote", "left"),
    [
        (BASE, row(x=1), row(y=2), (row(y=2), row(x=1, y=2))),
        (BASE, row(x=1), row(x=1), None),
        (BASE, row(x=1), row(x=1, y=2), None),
        (BASE, row(x=1), BASE, (BASE, row(x=1))),
        (BASE, None, BASE, (BASE, None)),
        (BASE, None, None, None),
        (None, row(x=1), None, (None, row(x=1))),
        (None, row(x=1), row(x=1), None),
    ],
    ids=[
        "columns apart: both", "the same is there: nothing left", "the same and more: nothing left",
        "nothing new", "a delete of what is unchanged", "deleted there too", "an insert of what is not there",
        "an insert of what is there",
    ],
)  # fmt: skip
def test_rebase_puts_an_operation_on_the_newer_row(base, local, remote, left):
    found = rebase(pending(base, local, attempted=True), remote)

    assert (found and (found.base, found.local)) == left
    assert found is None or (found.id == "1" and not found.attempted)


@pytest.mark.parametrize(
    ("base", "local", "remote", "words"),
    [
        (BASE, row(x=1, y=1), row(x=2, y=2), "x, y"),
        (BASE, None, row(x=1), "all"),
        (BASE, row(x=1), None, "all"),
        (None, row(x=1), row(x=2), "all"),
    ],
)
def test_rebase_of_what_clashes_is_left_to_its_owner(base, local, remote, words):
    with pytest.raises(SyncError, match=f"clash in {words}"):
        rebase(pending(base, local), remote)


@props
@given(base=states, local=states, remote=states)
def test_a_clean_rebase_ends_as_the_merge(base, local, remote):
    merged = merge(base, local, remote)
    if not merged.is_clean or same_rows(base, local):
        return

    found = rebase(pending(base, local), remote)

    assert same_rows(found.local if found else remote, merged.row)
    assert found is None or (same_rows(found.base, remote) and not same_rows(found.base, found.local))


# Keep mine


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "expected"),
    [
        (BASE, row(x=1), row(x=2, y=2), row(x=1, y=2)),
        (BASE, row(x=None), row(x=2, y=2), row(x=None, y=2)),
        (BASE, row(x=1), None, row(x=1)),
        (BASE, None, row(x=2), None),
        (BASE, None, None, None),
        (None, {"id": "a", "x": 1}, row(x=2, y=2), row(x=1, y=2)),
        (None, {"id": "a", "x": 1}, None, {"id": "a", "x": 1}),
    ],
    ids=[
        "what only they changed stays theirs", "a NULL is an edit", "deleted there: all of mine", "deleted here",
        "deleted on both sides", "an insert: the columns that were given", "an insert of what is gone",
    ],
)  # fmt: skip
def test_keep_mine_lays_the_cells_that_mine_changed_over_theirs(base, mine, theirs, expected):
    assert keep_mine(base, mine, theirs) == expected


@props
@given(base=states, mine=states, theirs=states)
def test_keep_mine_is_the_merge_where_that_is_clean(base, mine, theirs):
    merged = merge(base, mine, theirs)
    if not merged.is_clean or same_rows(base, mine):
        return

    assert same_rows(keep_mine(base, mine, theirs), merged.row)


# Policies


@pytest.mark.parametrize("policy", [None, "fail", "mine", "theirs", lambda conflict: None])
def test_known_policies_are_taken(policy):
    assert check_policy(policy) is policy


@pytest.mark.parametrize("policy", ["ours", "", 1, "MINE"])
def test_an_unknown_policy_is_refused_naming_the_known_ones(policy):
    with pytest.raises(SyncError, match="not known") as caught:
        check_policy(policy)

    assert all(name in caught.value.hint for name in ("fail", "mine", "theirs", "callable"))
