"""One pending change of one row, as a pair: the row as last known, and the row as edited here.

The queue itself is a table and works in sets; `Operation` and the pure functions here are the view
for people, for callables and for a wire that sends one row at a time, and the oracle that the tests
hold the queue's SQL to.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from . import words

CELLS_SHOWN = 4

Row = Mapping[str, Any]
Kind = Literal["insert", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a back end rejected an operation, in its own words."""

    code: str
    column: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


@dataclass(frozen=True, slots=True, repr=False)
class Operation:
    """One pending change of one row.

    Parameters
    ----------
    id
        Fixed when first staged; a back end that keeps it recognises a repeated request.
    table
        The table's name.
    key
        The value itself; a tuple only for a compound key.
    base
        The row as last known from the back end, key columns included, system columns not; None: never there.
    local
        The row as edited here; None: deleted here.  Of an insert, the given columns only.
    attempted
        Sent, and its answer unknown: the back end may hold it already.
    remote
        The row there now, while in conflict; None also where it was deleted there.
    """

    id: str
    table: str
    key: Any
    base: Row | None
    local: Row | None
    attempted: bool = False
    error: Refusal | None = None
    remote: Row | None = None
    staged_at: dt.datetime | None = None
    key_names: tuple[str, ...] = ()
    in_conflict: bool = field(default=False, compare=False)
    _act: Callable[[str, Operation], None] | None = field(default=None, repr=False, compare=False)

    @property
    def kind(self) -> Kind:
        if self.base is None:
            return "insert"
        return "delete" if self.local is None else "update"

    @property
    def changed(self) -> tuple[str, ...]:
        """Sorted: the given columns of an insert (the key apart), those that differ of an update, none of a delete."""
        if self.local is None:
            return ()
        if self.base is None:
            return tuple(sorted(self.local.keys() - {*self.key_names}))
        base = self.base
        return tuple(sorted(name for name, value in self.local.items() if not same(value, base.get(name))))

    def __repr__(self) -> str:
        return f"Operation({'; '.join([operation_words(self), *state_words(self)])})"

    def _repr_html_(self) -> str:
        head = _named(self)
        rows = [(words.name(n), *words.change(base, local)) for n, base, local in _pairs(self)]
        more = words.left_out(len(rows), words.SHOWN_ROWS)
        table = words.html_table(["column", "base", "local"], rows, caption=head, code=[0, 1, 2])
        return words.html(table if rows else words.paragraphs([head]), words.paragraphs([*more, *state_words(self)]))

    def revert(self) -> None:
        """Give this operation up: the row goes back to the last known remote one."""
        self._asked("revert")

    def retry(self) -> None:
        """Send a rejected operation again with the next push."""
        self._asked("retry")

    def _asked(self, what: str) -> None:
        if self._act is None:
            raise RuntimeError("this operation is not part of a queue")
        self._act(what, self)


def operation_words(operation: Operation) -> str:
    """Its kind and row, and the first of its cells, on one line."""
    cells = ", ".join(cell_words(operation, CELLS_SHOWN))
    return f"{_named(operation)}: {cells}" if cells else _named(operation)


def operations_table(operations: Iterable[Operation], caption: str, *, has_states: bool = False) -> str:
    """Operations as a table in HTML, with what is the matter with them if that is asked for."""
    rows = [
        (words.name(op.table), op.kind, words.key(op.key), cell_words(op, CELLS_SHOWN), state_words(op))
        for op in operations
    ]
    names = ["table", "kind", "key", "cells", ""]
    shown = len(names) if has_states else len(names) - 1
    return words.html_table(names[:shown], [row[:shown] for row in rows], caption=caption, code=[0, 2, 3])


def _named(operation: Operation) -> str:
    return f"{operation.kind} {words.name(operation.table)} {words.key(operation.key)}"


def cell_words(operation: Operation, cells_max: int | None = None) -> list[str]:
    """What an operation says of cells: old and new of an update, the given ones of an insert."""
    pairs = _pairs(operation)
    shown = pairs[:cells_max]
    if operation.kind == "update":
        said = [f"{words.name(n)} {' -> '.join(words.change(base, local))}" for n, base, local in shown]
    else:
        said = [f"{words.name(n)} {words.cell(local)}" for n, _, local in shown]
    left = len(pairs) - len(said)
    return [*said, f"and {words.many(left, 'more cell')}"] if left else said


def state_words(operation: Operation) -> list[str]:
    """What is the matter with an operation, if anything."""
    said = ["sent, and its answer is not known"] * operation.attempted + ["in conflict"] * operation.in_conflict
    return [*said, f"rejected: {words.line(operation.error)}"] if operation.error else said


def _pairs(operation: Operation) -> list[tuple[str, Any, Any]]:
    """(column, base, local) of each cell that an operation says something of."""
    base, local = operation.base or {}, operation.local or {}
    return [(n, base.get(n), local.get(n)) for n in operation.changed]


def same(a: Any, b: Any) -> bool:
    """Whether two cells are equal as SQL's IS NOT DISTINCT FROM has it; NaN is NULL."""
    return (is_null(a) and is_null(b)) or (not is_null(a) and not is_null(b) and bool(a == b))


def is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def same_rows(a: Row | None, b: Row | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)


def collapse(earlier: Operation, later: Operation) -> list[Operation]:
    """Return what is left to push of two successive operations on one row, in order.

    The queue does this for sets, in SQL; the tests hold that SQL to this function.
    """
    if earlier.attempted:
        # The back end may hold `earlier` although its answer was lost.  Folding into it would let a
        # row that was inserted, sent and then deleted come back with the next pull.
        return [earlier, later]
    both = replace(earlier, local=later.local, error=None)
    return [] if same_rows(both.base, both.local) else [both]
