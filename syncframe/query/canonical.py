"""The language's own text of a tree, equal for filters that differ in spelling only, and parseable again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from ..schema import literal, quote
from .source import check_length
from .tree import ARITHMETIC, COMPARISONS, Call, Column, Condition, Literal, Node, walk


def stated(tree: Node) -> Condition:
    """The condition that `tree` is."""
    text = canonical(tree)
    # It is what is stored and parsed again, so that it has to keep the bound too.
    check_length(text)
    return Condition(text, tree, frozenset(node.name for node in walk(tree) if isinstance(node, Column)))


def canonical(node: Node) -> str:
    """The text of `node`, with as few parentheses as keep the tree."""
    match node:
        case Column(name):
            return quote(name)
        case Literal(value, family):
            return "null" if value is None else _CANONICAL_LITERALS[family](value)
        case Call(op, (arg,)) if op.startswith("to "):
            return canonical(arg)
        case Call(("and" | "or") as op, args):
            return f" {op} ".join(_inner(arg, _binding(node)) for arg in args)
        case Call("not", (arg,)):
            return f"not {_inner(arg, _NOT_BINDS)}"
        case Call("negate", (arg,)):
            return f"-{_inner(arg, _ATOM_BINDS)}"
        case Call(op, args) if _binding(node) == _PREDICATE_BINDS:
            return _predicate(op, [_inner(arg, _PREDICATE_BINDS + 1) for arg in args])
        case Call(op, (left, right)) if op in ARITHMETIC:
            return f"{_inner(left, _binding(node))} {op} {_inner(right, _binding(node) + 1)}"
        case Call(op, args):
            return f"{op}({', '.join(map(canonical, args))})"


def _inner(node: Node, binding: int) -> str:
    text = canonical(node)
    return text if _binding(node) >= binding else f"({text})"


def _predicate(op: str, args: Sequence[str]) -> str:
    first, *rest = args
    if op == "in":
        return f"{first} in ({', '.join(rest)})"
    word = {"between": " and ", "like": " escape ", "ilike": " escape "}.get(op, "")
    return f"{first} {op} {word.join(rest)}".rstrip()


_NOT_BINDS, _PREDICATE_BINDS, _UNARY_BINDS, _ATOM_BINDS = 3, 4, 7, 8
_BINDING = {
    "or": 1, "and": 2, "not": _NOT_BINDS, "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6, "negate": _UNARY_BINDS,
    **dict.fromkeys(COMPARISONS, _PREDICATE_BINDS),
    **dict.fromkeys(("in", "between", "like", "ilike", "is null", "is true", "is false"), _PREDICATE_BINDS),
}  # fmt: skip


def _binding(node: Node) -> int:
    """How tightly a node's text holds together."""
    match node:
        case Call(op, (arg,)) if op.startswith("to "):
            return _binding(arg)
        case Call(op):
            return _BINDING.get(op, _ATOM_BINDS)
        case Literal(value, "int" | "decimal" | "float" | "float32") if value is not None and value < 0:
            return _UNARY_BINDS
    return _ATOM_BINDS


def _canonical_decimal(value: Decimal) -> str:
    text = format(value, "f")
    return text if "." in text else f"{text}.0"


def _canonical_float(value: float) -> str:
    if math.isinf(value):
        return f"cast('{value}' as double)"
    text = repr(value)
    return text if "e" in text else f"{text}e0"


_CANONICAL_LITERALS: dict[str, Callable[[Any], str]] = {
    "bool": lambda value: str(value).lower(),
    "int": str,
    "decimal": _canonical_decimal,
    # As a cast, for beside a plain float a FLOAT would be computed in double precision.
    "float32": lambda value: f"cast('{value!r}' as float)",
    "float": _canonical_float,
    "text": literal,
    "date": lambda value: f"date '{value}'",
    "time": lambda value: f"time '{value}'",
    "timestamp": lambda value: f"timestamp '{value}'",
    "instant": lambda value: f"timestamptz '{value}'",
}
