"""Conditions for DuckDB, whose meaning the language has."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from ..schema import quote
from .tree import ARITHMETIC, BY_NUMBER, PARTS, Call, Condition, Literal, Node, walk
from .writer import Writer


def to_duckdb(condition: Condition, column: Callable[[str], str] = quote) -> tuple[str, list[object]]:
    """Return `condition` as DuckDB SQL with `?` placeholders, and their values in order.

    `column` gives the SQL expression of a column, of its own type, by name.
    """
    writer = _DuckDB(column)
    return writer.write(condition.tree), writer.parameters


class _DuckDB(Writer):
    """Casts fix what would else follow from a column's width."""

    types: ClassVar[dict[str, str]] = {
        "bool": "BOOLEAN", "int": "HUGEINT", "decimal": "DECIMAL(38,9)", "float32": "FLOAT", "float": "DOUBLE",
        "text": "VARCHAR", "bytes": "BLOB", "date": "DATE", "time": "TIME", "timestamp": "TIMESTAMP",
        "instant": "TIMESTAMPTZ",
    }  # fmt: skip

    def literal(self, node: Literal) -> str:
        if node.value is None:
            return f"cast(null as {self.types[node.family]})" if node.family in self.types else "null"
        # A Python float is bound as a DOUBLE, in which a FLOAT beside it would be computed too.
        return f"cast({self.bind(node.value)} as FLOAT)" if node.family == "float32" else self.bind(node.value)

    def operand(self, node: Node) -> str:
        """A value with NULL for NaN, which every operator and function before has passed on."""
        text = self.write(node)
        ops = {inner.op for inner in walk(node) if isinstance(inner, Call)}
        if node.family not in ("float", "float32") or ops.isdisjoint(ARITHMETIC):
            return text
        if "coalesce" in ops:
            # DuckDB reads what stands in a nullif twice, and four times in one within another.
            return f"list_filter([{text}], lambda number: not isnan(number))[1]"
        return f"nullif({text}, cast('nan' as {self.types[node.family]}))"

    def call(self, node: Call) -> str:
        if node.op in ARITHMETIC:
            return self._arithmetic(node)
        if node.op.startswith("to "):
            return self._widened(node)
        if node.op in ("like", "ilike"):
            return self._like(node)
        if node.op == "coalesce":
            return f"coalesce({', '.join(map(self.operand, node.args))})"
        args = [self._argument(node, arg, index) for index, arg in enumerate(node.args)]
        return f"{node.op}({', '.join(args)})"

    def _arithmetic(self, node: Call) -> str:
        args = [self.write(arg) for arg in node.args]
        if node.family == "int":
            args = [f"cast({arg} as HUGEINT)" for arg in args]
        if node.op == "negate":
            return f"(-{args[0]})"
        if node.op == "/":
            args[1] = f"({args[1]} + 0)"  # -0.0 is 0.0 in syncframe, and SQLite cannot keep it
        return f"({args[0]} {node.op} {args[1]})"

    def _widened(self, node: Call) -> str:
        (arg,) = node.args
        text = self.write(arg)
        if node.family == "decimal":
            return text  # DuckDB finds the precision itself
        if node.family != "timestamp" and (arg.family == "decimal" or (arg.family == "int" and isinstance(arg, Call))):
            # The direct cast of a wide DECIMAL or HUGEINT rounds twice; a text becomes the nearest number.
            text = f"cast({text} as VARCHAR)"
        return f"cast({text} as {self.types[node.family]})"

    def _like(self, node: Call) -> str:
        text, pattern, *escape = map(self.write, node.args)
        return f"({text} {node.op} {pattern}{f' escape {escape[0]}' if escape else ''})"

    def _argument(self, node: Call, arg: Node, index: int) -> str:
        if node.op in ("round", "round_even") and index == 1 and isinstance(arg, Literal):
            return str(arg.value)  # a whole number of ours, checked; it makes the result's type
        text = self.write(arg)
        if node.op == "substr" and index > 0:
            return f"cast({text} as BIGINT)"
        if arg.family == "int" and node.op in BY_NUMBER:
            return f"cast({text} as HUGEINT)"
        if arg.family == "instant" and node.op in PARTS:
            # The parts of an instant are those of UTC, whatever the session's time zone.
            return f"make_timestamp(epoch_us({text}))"
        return text
