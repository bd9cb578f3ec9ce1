"""Conditions for SQLite, with functions for what its own operators do differently."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ..errors import QueryError
from ..schema import Schema, quote
from .patterns import as_glob, is_prefix
from .sqlite_functions import INT64, clock, microseconds, sort_key
from .tree import ARITHMETIC, BY_NUMBER, Call, Column, Condition, Literal, Node
from .writer import Writer

_EXACT = frozenset({"int", "decimal"})
# SQLite's parser keeps at most 100 symbols that wait for others; the rest is for the statement around the condition.
STACK_MAX = 70
_SYMBOLS = re.compile(r'"(?:[^"]|"")*"|\w+|[(),]|[=<>]+')
_OPERATORS = re.compile(r"and|or|not|in|is|between|glob|[=<>]+")


def to_sqlite(condition: Condition, schema: Schema, column: Callable[[str], str] = quote) -> tuple[str, list[object]]:
    """Return `condition` as SQLite SQL with `?` placeholders, and their values in order.

    The connection needs `register_sqlite_functions`.  Comparisons of text, whole numbers, floats,
    booleans and dates are SQLite's own and may use an index.

    Parameters
    ----------
    condition
        What `parse` returned for this table.
    schema
        Says how the columns are held: decimals as text or numbers; dates and times as ISO text,
        instants with or without an offset, or as whole microseconds since 1970.
    column
        Gives the SQL expression of a column by name.

    Raises
    ------
    QueryError
        If SQLite cannot be asked for this with the same meaning.
    """
    writer = _Sqlite(column, schema)
    sql = writer.write(condition.tree)
    if _stack_used(sql) > STACK_MAX:
        raise QueryError(
            "the condition is nested too deeply for SQLite",
            hint="use in (...) for many values, and fewer parentheses and functions in functions",
        )
    return sql, writer.parameters


class _Sqlite(Writer):
    """Writes for SQLite.

    Between functions whole numbers above 64 bits and decimals travel as text, times as whole
    microseconds.  Exact numbers that SQLite cannot compare are compared by a sort key.
    """

    comparison_words: ClassVar[dict[str, str]] = {"is distinct from": "is not", "is not distinct from": "is"}

    def __init__(self, column: Callable[[str], str], schema: Schema) -> None:
        super().__init__(column)
        self.held_as = {held.name: held.held_as for held in schema.columns}

    def comparable(self, args: Sequence[Node]) -> list[str]:
        if all(_is_native(arg) for arg in args):
            return [self._collated(arg) for arg in args]
        return [self._sort_key(arg) for arg in args]

    def _collated(self, node: Node) -> str:
        # The column may be declared with another collation, such as NOCASE.
        collation = " collate binary" if node.family == "text" and isinstance(node, Column) else ""
        return self.write(node) + collation

    def _sort_key(self, node: Node) -> str:
        if isinstance(node, Literal):
            return self.bind(sort_key(node.value)) if node.value is not None else "null"
        return f"_syncframe_key({self.write(node)})"

    def name(self, node: Column) -> str:
        text = self.column(node.name)
        if self.held_as.get(node.name) == "numeric text":
            return f"cast({text} as text)"
        if node.family in ("timestamp", "instant"):
            return f"_syncframe_moment({text})"
        return f"_syncframe_clock({text})" if node.family == "time" else text

    def literal(self, node: Literal) -> str:
        if node.value is None:
            return "null"
        convert = _SQLITE_LITERALS.get(node.family)
        return self.bind(convert(node.value) if convert else node.value)

    def call(self, node: Call) -> str:
        if node.op in ("like", "ilike"):
            return self._like(node)
        if node.op == "round" and node.family in ("float", "float32"):
            self._check_round(node)
        args = [self.write(arg) for arg in node.args]
        if node.op == "coalesce":
            return args[0] if len(args) == 1 else f"coalesce({', '.join(args)})"
        text = f"_syncframe_{self._function(node)}({', '.join(args)})"
        return f"_syncframe_float32({text})" if node.family == "float32" else text

    def _check_round(self, node: Call) -> None:
        # DuckDB makes 2.67 of 2.675 and other digits of its neighbours than scaling or exact rounding would.
        if len(node.args) == 2 and isinstance(node.args[1], Literal) and (node.args[1].value or 0) > 0:
            raise QueryError(
                "SQLite cannot be asked to round a float to digits as DuckDB does",
                hint="compare with a range: x between 2.665 and 2.675",
            )

    def _function(self, node: Call) -> str:
        if node.op.startswith("to "):
            return {"decimal": "exact", "timestamp": "moment"}.get(node.family, "float")
        word = ARITHMETIC.get(node.op, node.op)
        if node.op in BY_NUMBER:
            return f"{word}_{'exact' if node.family in _EXACT else 'float'}"
        return word

    def _like(self, node: Call) -> str:
        text, pattern, *escape = node.args
        if node.op == "like" and isinstance(pattern, Literal) and not escape and is_prefix(pattern.value):
            # An index serves it; GLOB minds the case.  Only prefixes, for elsewhere GLOB stops at a NUL character.
            return f"({self.write(text)} glob {self.bind(as_glob(pattern.value))})"
        return f"_syncframe_{node.op}({', '.join(map(self.write, node.args))})"


def _is_native(node: Node) -> bool:
    """Whether SQLite compares these values itself: not decimals, and whole numbers if they have 64 bits for sure."""
    if node.family != "int":
        return node.family != "decimal"
    if isinstance(node, Literal):
        return node.value is None or node.value in INT64
    return isinstance(node, Column) or node.op not in BY_NUMBER | {"coalesce"}


# By family; what stands not here is bound as it is.
_SQLITE_LITERALS: dict[str, Callable[[Any], object]] = {
    "bool": int,
    "int": lambda value: value if value in INT64 else str(value),
    "decimal": str,
    "date": datetime.date.isoformat,
    "time": clock,
    "timestamp": microseconds,
    "instant": microseconds,
}


def _stack_used(sql: str) -> int:
    """How many symbols wait at most when SQLite reads a condition of ours; never too few."""
    levels, used, before = [0], 0, ""
    for symbol in _SYMBOLS.findall(sql):
        if symbol == "(":
            # A call waits with its name, "(" and what says whether its arguments are distinct.
            levels.append(3 if before and not _OPERATORS.fullmatch(before) and before not in "(," else 1)
            used = max(used, sum(levels) + 1)
        elif symbol == ")":
            levels.pop()
        elif symbol == "," or _OPERATORS.fullmatch(symbol):
            # What stands before waits with it.  After a comma there is one list, and nothing more of its last part.
            levels[-1] = min(levels[-1] + 2, 5) if symbol == "," else levels[-1] + (1 if symbol == "not" else 2)
            used = max(used, sum(levels) + 1)
        before = symbol
    return used
