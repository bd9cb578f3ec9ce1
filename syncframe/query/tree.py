"""What the filter language is made of: a small typed tree, and what back ends are asked with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..schema import SYSTEM_COLUMNS

TEXT_BYTES_MAX = 32 * 1024
DEPTH_MAX = 100
ARGUMENTS_MAX = 100  # SQLite takes 127
DIGITS_MAX = 38

SYSTEM_KINDS = dict(zip(SYSTEM_COLUMNS, ("TIMESTAMPTZ", "TIMESTAMPTZ", "VARCHAR", "BOOLEAN"), strict=True))


# "float32" is the family of FLOAT, which DuckDB computes with in single precision, and "null" that of a
# NULL whose place says nothing about its type; the other families are schema.TYPES'.


@dataclass(frozen=True, slots=True)
class Column:
    """A column in the schema's spelling; `kind` is its name in TYPES."""

    name: str
    family: str
    kind: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as a Python object of its family: int, Decimal, float, str, bool, date, time, datetime or None."""

    value: Any
    family: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operator or function over arguments whose families agree; `family` is that of its result."""

    op: str
    args: tuple[Node, ...]
    family: str


Node = Column | Literal | Call


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked filter.

    Parameters
    ----------
    text
        The canonical text: equal for filters that differ in spelling only, and parseable again.
    tree
        What the writers render; its family is bool.
    columns
        The columns it reads, in the schema's spelling.
    """

    text: str
    tree: Node
    columns: frozenset[str]


@dataclass(frozen=True, slots=True)
class Query:
    """What a pull asks a back end for: which rows, which columns (None: all), and how many rows a page has."""

    where: Condition | None = None
    columns: tuple[str, ...] | None = None
    page_rows: int = 10_000


@dataclass(frozen=True, slots=True)
class Order:
    """One column to sort by, a table's own or a system column."""

    column: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """What a remote table or a list asks a back end for.

    Parameters
    ----------
    where
        Which rows; of deleted rows their last values count.
    columns
        The value columns wanted (None: all); the key and the system columns always come.
    order_by
        By what they are sorted; ties, and all if there is none, by the key.
    limit, offset
        How many rows at most (None: all), and how many to leave out before them.
    include_deleted
        Tombstones too, with their last values.
    published
        Only rows whose `updatedAt` is published: see `SqlBackend.publish`.
    """

    where: Condition | None = None
    columns: tuple[str, ...] | None = None
    order_by: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0
    include_deleted: bool = False
    published: bool = False


COMPARISONS = ("=", "<>", "<", "<=", ">", ">=", "is not distinct from", "is distinct from")
# Each arithmetic operator's name as a function.
ARITHMETIC = {
    "+": "add", "-": "subtract", "*": "multiply", "/": "divide", "//": "quotient", "%": "remainder",
    "negate": "negate",
}  # fmt: skip
BY_NUMBER = frozenset({*ARITHMETIC, "abs", "ceil", "floor", "round", "round_even"})
PARTS = frozenset({"year", "month", "day", "hour", "minute", "second"})


def walk(tree: Node) -> Iterator[Node]:
    """Every node of `tree`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Call):
            waiting.extend(node.args)
