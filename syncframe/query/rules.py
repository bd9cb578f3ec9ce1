"""What may stand with what: the typing rules of the filter language, whatever the text was written in.

Each function builds one node of the tree from nodes that are built, or raises Refused.  The readers
call them and add the place in their own text.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ..schema import TYPES
from .patterns import pieces
from .tree import ARGUMENTS_MAX, Call, Column, Literal, Node
from .values import CONTEXT, FROM_TEXT, NULL, as_instant, as_uuid, promoted, retyped


class Refused(Exception):
    """Nodes that have no meaning together; `part` is the number of the one at fault, None: all."""

    def __init__(self, message: str, hint: str | None = None, part: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.part = part


@dataclass(frozen=True, slots=True)
class Function:
    """A function's parameters as the families each may have, and the family of its result ("": the first's)."""

    parameters: tuple[frozenset[str], ...]
    result: str = ""
    optional: int = 0
    repeats: bool = False  # the last parameter takes any number of arguments

    def takes(self, count: int) -> bool:
        most = ARGUMENTS_MAX if self.repeats else len(self.parameters)
        return len(self.parameters) - self.optional <= count <= most


RANK = {"int": 0, "decimal": 1, "float32": 2, "float": 3}
_INT, _TEXT = frozenset({"int"}), frozenset({"text"})
NUMBER, _FRACTION = frozenset(RANK), frozenset({"decimal", "float32", "float"})
_DATED, _CLOCKED = frozenset({"date", "timestamp", "instant"}), frozenset({"time", "timestamp", "instant"})
_ANY = frozenset({row.family for row in TYPES.values()}) | NUMBER

FUNCTIONS = {
    "abs": Function((NUMBER,)),
    "ceil": Function((_FRACTION,)),
    "floor": Function((_FRACTION,)),
    "round": Function((NUMBER, _INT), optional=1),
    "round_even": Function((NUMBER, _INT)),
    "length": Function((_TEXT,), "int"),
    "strpos": Function((_TEXT, _TEXT), "int"),
    "lower": Function((_TEXT,)),
    "upper": Function((_TEXT,)),
    "trim": Function((_TEXT, _TEXT), optional=1),
    "ltrim": Function((_TEXT, _TEXT), optional=1),
    "rtrim": Function((_TEXT, _TEXT), optional=1),
    "substr": Function((_TEXT, _INT, _INT), optional=1),
    "replace": Function((_TEXT, _TEXT, _TEXT)),
    "concat": Function((_TEXT,), repeats=True),
    "starts_with": Function((_TEXT, _TEXT), "bool"),
    "ends_with": Function((_TEXT, _TEXT), "bool"),
    "contains": Function((_TEXT, _TEXT), "bool"),
    "year": Function((_DATED,), "int"),
    "month": Function((_DATED,), "int"),
    "day": Function((_DATED,), "int"),
    "hour": Function((_CLOCKED,), "int"),
    "minute": Function((_CLOCKED,), "int"),
    "second": Function((_CLOCKED,), "int"),
    "coalesce": Function((_ANY,), repeats=True),
}


# Conditions


def condition(tree: Node) -> Node:
    if tree.family not in ("bool", "null"):
        raise Refused(f"a condition is true or false, and this is of family {tree.family}", "compare it")
    return retyped(tree, "bool")


def logic(op: str, parts: Sequence[Node]) -> Node:
    """A chain of `and` or `or`, of any length."""
    return Call(op, tuple(_truth(part, index) for index, part in enumerate(parts)), "bool")


def negation(value: Node) -> Node:
    return Call("not", (_truth(value, 0),), "bool")


def _truth(value: Node, index: int) -> Node:
    if value.family not in ("bool", "null"):
        raise Refused(f"and, or and not take conditions, and this is of family {value.family}", part=index)
    return retyped(value, "bool")


def comparison(op: str, args: Sequence[Node]) -> Node:
    """One of COMPARISONS, `between` or `in`."""
    return Call(op, unified(args), "bool")


def identity(value: Node, wanted: Node) -> Node:
    """`value is wanted`."""
    if wanted == NULL:
        return Call("is null", (value,), "bool")
    if not (isinstance(wanted, Literal) and wanted.family == "bool" and value.family in ("bool", "null")):
        raise Refused("is takes null, or true and false after a condition")
    return Call(f"is {wanted.value}".lower(), (retyped(value, "bool"),), "bool")


def likeness(op: str, operands: Sequence[Node]) -> Node:
    """`like` or `ilike` of a text, a pattern and, where it has one, an escape character."""
    args = [retyped(operand, "text") for operand in operands]
    if any(arg.family != "text" for arg in args):
        raise Refused("like compares text with a pattern")
    if len(args) == 3:
        _check_pattern(*args[1:])
    return Call(op, tuple(args), "bool")


def _check_pattern(pattern: Node, escape: Node) -> None:
    if not (isinstance(escape, Literal) and isinstance(escape.value, str) and len(escape.value) == 1):
        raise Refused("escape takes one character", part=2)
    if not (isinstance(pattern, Literal) and isinstance(pattern.value, str)):
        raise Refused("escape needs a pattern that is a literal", part=2)
    if pieces(pattern.value, escape.value) is None:
        raise Refused("the pattern ends with its escape character", part=2)


# Numbers and functions


def negative(value: Node) -> Node:
    if value.family not in RANK:
        raise Refused(f"a minus needs a number, and this is of family {value.family}")
    if isinstance(value, Literal) and value.value is not None:
        # Not with a bare minus, which would round a Decimal to 28 digits.
        return Literal(CONTEXT.minus(value.value) if value.family == "decimal" else -value.value, value.family)
    return Call("negate", (value,), value.family)


def arithmetic(op: str, args: Sequence[Node]) -> Node:
    families = {arg.family for arg in args} - {"null"}
    if not families <= NUMBER:
        raise Refused(f"{op} computes with numbers, not with {_listed(families - NUMBER)}")
    family = max(families, key=RANK.__getitem__, default="int")
    if op == "/" and family in ("int", "decimal"):
        family = "float"
    if op == "//" and family != "int":
        raise Refused("// divides whole numbers", "floor(a / b)")
    return Call(op, tuple(promoted(arg, family) for arg in args), family)


def check_count(name: str, count: int) -> None:
    if not FUNCTIONS[name].takes(count):
        raise Refused(f"{name} does not take {count} arguments")


def call(name: str, given: Sequence[Node]) -> Node:
    """A function of FUNCTIONS."""
    check_count(name, len(given))
    args = unified(given) if name == "coalesce" else tuple(given)
    if name == "coalesce" and args[0].family == "null":
        raise Refused("coalesce of nothing but NULL has no type")
    args = tuple(_argument(name, arg, index) for index, arg in enumerate(args))
    # The number of digits is part of a DECIMAL's type.
    if name == "round" and len(args) == 2 and not _is_literal(args[1], range(-18, 19)):
        raise Refused("round takes its digits as a literal from -18 to 18")
    if name == "round_even" and not _is_literal(args[1], range(1)):
        raise Refused("round_even rounds to whole numbers: round_even(x, 0)")
    return Call(name, args, FUNCTIONS[name].result or args[0].family)


def _is_literal(node: Node, allowed: range) -> bool:
    return isinstance(node, Literal) and node.value in allowed


def _argument(name: str, value: Node, index: int) -> Node:
    parameters = FUNCTIONS[name].parameters
    allowed = parameters[min(index, len(parameters) - 1)]
    if value.family in allowed:
        return value
    if value.family == "null":
        return retyped(value, min(allowed))
    if value.family != "int" or "float" not in allowed:
        raise Refused(f"{name} takes {_listed(allowed)} here, not {value.family}", part=index)
    return promoted(value, "float")


# Families


def unified(args: Sequence[Node]) -> tuple[Node, ...]:
    """The operands of a comparison in one family; a text literal takes that of the column it meets."""
    args = _settled(args)
    families = {arg.family for arg in args} - {"null"}
    if len(families) <= 1:
        family = next(iter(families), "null")
    elif families <= NUMBER:
        args = _without_fractions(args) if families == {"int", "decimal"} else args
        family = max({arg.family for arg in args} - {"null"}, key=RANK.__getitem__)
    elif families == {"date", "timestamp"}:
        family = "timestamp"
    else:
        raise Refused(f"{_listed(families)} cannot be compared with each other")
    return tuple(promoted(arg, family) for arg in args)


def converted(convert: Callable[[Any], Literal], value: Any) -> Literal:
    """`value` as `convert` reads it."""
    try:
        return convert(value)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise Refused(f"{value!r} does not fit here: {error}") from None


def _settled(args: Sequence[Node]) -> list[Node]:
    """The operands with literals read as what they are compared with: text as a date, a date as an instant."""
    readers = _literal_readers(args)
    return [
        converted(readers[arg.family], arg.value)
        if isinstance(arg, Literal) and arg.family in readers and arg.value is not None
        else arg
        for arg in args
    ]


def _literal_readers(args: Sequence[Node]) -> dict[str, Callable[[Any], Literal]]:
    """By family of a literal among `args`, how to read it for the others."""
    if any(isinstance(arg, Column) and arg.kind == "UUID" for arg in args):
        return {"text": as_uuid}
    families = {arg.family for arg in args}
    # An instant before all others, for a date beside it becomes one too.
    timed = next((family for family in ("instant", "timestamp", "date", "time") if family in families), None)
    if timed is None:
        return {}
    whole = {"date": _in_utc, "timestamp": _in_utc} if timed == "instant" else {}
    return {"text": FROM_TEXT[timed], **whole}


def _in_utc(value: datetime.date) -> Literal:
    return as_instant(value.isoformat())


def _without_fractions(args: Sequence[Node]) -> list[Node]:
    """Decimal literals that are whole as whole numbers, so that n = 1.0 is compared as n = 1."""
    return [
        Literal(int(arg.value), "int")
        if isinstance(arg, Literal) and isinstance(arg.value, Decimal) and arg.value == int(arg.value)
        else arg
        for arg in args
    ]


def _listed(families: Iterable[str]) -> str:
    return " and ".join(sorted(families))
