"""What the writers of SQL share: logic and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from ..schema import quote
from .tree import COMPARISONS, Call, Column, Literal, Node


class Writer:
    """Writes a tree with `?` for its values; a subclass writes names, literals and calls."""

    comparison_words: ClassVar[dict[str, str]] = {}

    def __init__(self, column: Callable[[str], str] = quote) -> None:
        self.column = column
        self.parameters: list[object] = []

    def write(self, node: Node) -> str:
        match node:
            case Column():
                return self.name(node)
            case Literal():
                return self.literal(node)
            case Call(("and" | "or") as op, args):
                return balanced(f" {op} ", [self.write(arg) for arg in args])
            case Call("not", (arg,)):
                return f"(not {self.write(arg)})"
            case Call(("is null" | "is true" | "is false") as op, (arg,)):
                return f"({self.column(arg.name) if isinstance(arg, Column) else self.operand(arg)} {op})"
            case Call("in", args):
                first, *rest = self.comparable(args)
                return f"({first} in ({', '.join(rest)}))"
            case Call("between", args):
                value, low, high = self.comparable(args)
                return f"({value} between {low} and {high})"
            case Call(op, args) if op in COMPARISONS:
                left, right = self.comparable(args)
                return f"({left} {self.comparison_words.get(op, op)} {right})"
        return self.call(node)

    def bind(self, value: object) -> str:
        self.parameters.append(value)
        return "?"

    def comparable(self, args: Sequence[Node]) -> list[str]:
        """The operands of a comparison, in a form that the engine compares as DuckDB does."""
        return [self.operand(arg) for arg in args]

    def operand(self, node: Node) -> str:
        """A value that is looked at, and no longer computed with."""
        return self.write(node)

    def name(self, node: Column) -> str:
        return self.column(node.name)

    def literal(self, node: Literal) -> str:
        raise NotImplementedError

    def call(self, node: Call) -> str:
        raise NotImplementedError


def balanced(word: str, parts: Sequence[str]) -> str:
    """`parts` joined in halves, for both engines bound the depth of a chain: 5,000 terms are 13 levels."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({balanced(word, parts[:middle])}{word}{balanced(word, parts[middle:])})"
