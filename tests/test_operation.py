"""One pending change as a pair: its kind, what it changes, and what is left of two."""

import datetime as dt
import decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncframe.operation import Operation, collapse, same, same_rows

D = decimal.Decimal
NAN = float("nan")


def row(title, n=None):
    return {"id": "a", "title": title, "n": n}


MILK, OATS, SOY = row("milk", 1), row("oats", 1), row("soy", 2)
GIVEN = {"id": "a", "title": "milk"}  # an insert that gave no n


def operation(base, local, **more):
    return Operation("first", "todo", "a", base, local, key_names=("id",), **more)


def later(base, local):
    return Operation("later", "todo", "a", base, local, key_names=("id",))


# The kind and what is changed


@pytest.mark.parametrize(
    ("base", "local", "kind", "changed"),
    [
        (None, MILK, "insert", ("n", "title")),
        (None, GIVEN, "insert", ("title",)),
        (None, {"id": "a", "n": None}, "insert", ("n",)),
        (None, {"id": "a"}, "insert", ()),
        (MILK, SOY, "update", ("n", "title")),
        (MILK, OATS, "update", ("title",)),
        (MILK, row("milk", None), "update", ("n",)),
        (row("milk", None), row("milk", NAN), "update", ()),
        (MILK, None, "delete", ()),
    ],
    ids=[
        "all given", "some given", "NULL is a given value", "only a key", "two cells", "one cell", "to NULL",
        "NULL to NaN is none", "deleted",
    ],
)  # fmt: skip
def test_kind_and_changed_columns_follow_from_the_pair(base, local, kind, changed):
    found = operation(base, local)

    assert (found.kind, found.changed) == (kind, changed)


def test_a_compound_key_is_no_changed_column_of_an_insert():
    found = Operation(
        "1", "weather", ("JFK", 4), None, {"place": "JFK", "hour": 4, "wind": 1.5}, key_names=("place", "hour")
    )

    assert found.changed == ("wind",)


def test_an_operation_of_no_queue_cannot_be_reverted_or_retried():
    for act in (operation(None, MILK).revert, operation(None, MILK).retry):
        with pytest.raises(RuntimeError, match="not part of a queue"):
            act()


# Equality of cells


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (None, None, True),
        (None, NAN, True),
        (NAN, NAN, True),
        (None, 0, False),
        (None, "", False),
        (None, False, False),
        (0.0, -0.0, True),
        (2**53, 2**53 + 1, False),
        (D("1.10"), D("1.1"), True),
        (D("0.1"), D("0.10000000001"), False),
        ("a", "A", False),
        ("é", "e\u0301", False),
        (b"", None, False),
        (b"a", bytearray(b"a"), True),
        (
            dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
            dt.datetime(2024, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            True,
        ),
        (dt.date(1, 1, 1), dt.date(1, 1, 2), False),
    ],
)
def test_cells_are_equal_as_sql_says_is_not_distinct_from(a, b, equal):
    assert same(a, b) is equal
    assert same(b, a) is equal


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (None, None, True),
        (None, MILK, False),
        (None, {}, False),
        (MILK, dict(reversed(MILK.items())), True),
        (MILK, GIVEN, False),
        (row("milk", None), GIVEN, False),
        (row("milk", None), row("milk", NAN), True),
    ],
    ids=[
        "none",
        "one none",
        "no row is not an empty row",
        "order",
        "fewer columns",
        "NULL is not absent",
        "NaN is NULL",
    ],
)
def test_rows_are_equal_by_column(a, b, equal):
    assert same_rows(a, b) is equal
    assert same_rows(b, a) is equal


# Collapse


@pytest.mark.parametrize(
    ("base", "first", "last", "left"),
    [
        (None, MILK, SOY, (None, SOY)),
        (None, MILK, None, None),
        (MILK, OATS, SOY, (MILK, SOY)),
        (MILK, OATS, MILK, None),
        (MILK, OATS, None, (MILK, None)),
        (MILK, None, SOY, (MILK, SOY)),
        (MILK, None, MILK, None),
        (row("milk", None), row("milk", 1), row("milk", NAN), None),
    ],
    ids=[
        "insert, update: an insert of the last",
        "insert, delete: nothing",
        "update, update: the first base, the last local",
        "update, back: nothing",
        "update, delete: a delete of the first base",
        "delete, insert: an update",
        "delete, insert of the same: nothing",
        "back to NULL by a NaN: nothing",
    ],
)
def test_a_later_edit_collapses_into_one_that_was_not_sent(base, first, last, left):
    earlier = operation(base, first)

    found = collapse(earlier, later(first, last))

    assert [(o.id, o.base, o.local) for o in found] == ([] if left is None else [("first", *left)])


@pytest.mark.parametrize(
    ("base", "first", "last"),
    [(None, MILK, None), (None, MILK, SOY), (MILK, OATS, MILK), (MILK, OATS, None), (MILK, None, MILK)],
    ids=["insert, delete", "insert, update", "update, back", "update, delete", "delete, insert"],
)
def test_a_later_edit_waits_behind_one_whose_answer_is_unknown(base, first, last):
    earlier, follower = operation(base, first, attempted=True), later(first, last)

    assert collapse(earlier, follower) == [earlier, follower]


def test_editing_a_rejected_operation_makes_it_ready_again():
    from syncframe.operation import Refusal

    rejected = operation(MILK, OATS, error=Refusal("check", "title", "no oats"))

    (found,) = collapse(rejected, later(OATS, SOY))

    assert found.error is None
    assert found.local == SOY


cells = st.sampled_from([None, NAN, 0, 1, "x", ""])
rows = st.none() | st.fixed_dictionaries({"id": st.just("a"), "title": cells, "n": cells})


def replayed(base, operations):
    """What the back end holds after these operations, one after the other."""
    held = base
    for found in operations:
        assert same_rows(found.base, held)
        held = found.local
    return held


@settings(derandomize=True, max_examples=400, deadline=None)
@given(base=rows, edits=st.lists(rows, min_size=1, max_size=6), attempted=st.booleans())
def test_collapse_keeps_what_applying_all_would_give_and_at_most_two(base, edits, attempted):
    queue = []

    for edit in edits:
        shown = queue[-1].local if queue else base
        if same_rows(shown, edit):
            continue
        if not queue:
            queue = [operation(base, edit, attempted=attempted)]
        else:
            queue[-1:] = collapse(queue[-1], later(shown, edit))

    assert len(queue) <= 2
    assert same_rows(replayed(base, queue), edits[-1])
    assert all(o.base is not None or o.local is not None for o in queue)
