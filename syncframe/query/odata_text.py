"""Writes a condition as `$filter`, for services that we have not written.

Services differ in what NULL does: in SQL `x <> 'a'` is not true of it, in the toolkit's C# it is.  So nothing
is left to them: negations are carried inwards, and wherever a NULL could decide, the text asks for it
itself, as in `x ne 'a' and x ne null`.  What is written selects the same rows under both readings, or there
is a QueryError that names the part.

Beyond that a service is taken at the word of its dialect: how it orders text, which letters outside ASCII
have another case, which blanks it trims, and how exactly it computes with doubles, is its own.  Times finer
than a millisecond are written in v4 and refused in v2, whose services cut them off.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import QueryError
from ..schema import Schema, literal
from .canonical import canonical
from .patterns import pieces
from .sqlite_functions import lower
from .tree import COMPARISONS, PARTS, Call, Column, Condition, Literal, Node, walk

DIALECTS = ("v2", "v4")

_WORDS = {"=": "eq", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_OPPOSITE = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "div", "%": "mod"}
_FUNCTIONS = {
    "starts_with": "startswith", "ends_with": "endswith", "contains": "contains",
    "length": "length", "lower": "tolower", "upper": "toupper", "trim": "trim", "strpos": "indexof",
    "ceil": "ceiling", "floor": "floor", **{part: part for part in PARTS},
}  # fmt: skip
_TESTS = frozenset({"starts_with", "ends_with", "contains"})
_OF_TEXT = _TESTS | {"length", "lower", "upper", "trim", "strpos", "substr", "replace", "concat"}
_KEYWORDS = frozenset(
    {*_WORDS.values(), *_OPERATORS.values(), "divby", "and", "or", "not", "in", "has", "null", "true", "false"}
    | {"inf", "nan"}
)
# What may have a value although an argument is NULL, beside what begins with "is".
_FORGIVING = frozenset({"concat", "coalesce", "and", "or", "in", "between"})
_REPLACEMENT_MAX = 100  # the Node.js service takes no longer one
_DECIMAL_DIGITS_MAX = 28  # of .NET's decimal
_INT32, _INT64 = range(-(2**31), 2**31), range(-(2**63), 2**63)


def to_odata(condition: Condition, dialect: str, schema: Schema) -> str:
    """Return `condition` as the text of a `$filter`, not yet encoded for a URL.

    Parameters
    ----------
    condition
        What `parse` or `parse_filter` returned for this table.
    dialect
        "v2" for the services of Azure Mobile Apps (OData 2 and 3), "v4" for the Datasync toolkit's.
    schema
        Says which columns may be NULL.

    Raises
    ------
    QueryError
        If the dialect has no words for a part, or words that a service may take otherwise; names the part.
    """
    if dialect not in DIALECTS:
        raise QueryError(f"OData {dialect!r} is not known", hint="it is 'v2' or 'v4'")
    try:
        return str(_Writer(dialect, schema).truth(condition.tree, True))
    except RecursionError:
        raise QueryError("the condition is nested too deeply for a $filter", hint=_HINT) from None


_HINT = "pull without this part, and filter the frame"


# Formulas: text that is true or not, whatever a service does with NULL


@dataclass(frozen=True, slots=True)
class _Atom:
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class _Chain:
    word: str
    parts: tuple[_Formula, ...]

    def __str__(self) -> str:
        return f" {self.word} ".join(f"({part})" for part in self.parts)


_Formula: TypeAlias = _Atom | _Chain
_TRUE, _FALSE = _Atom("1 eq 1"), _Atom("1 eq 0")


def _joined(word: str, decides: _Formula, parts: Iterable[_Formula]) -> _Formula:
    """A chain, flat and without what does not count; `decides` is the constant that settles it."""
    kept: dict[_Formula, None] = {}
    for part in parts:
        inner = part.parts if isinstance(part, _Chain) and part.word == word else (part,)
        kept |= dict.fromkeys(inner)
    if decides in kept:
        return decides
    terms = [part for part in kept if part not in (_TRUE, _FALSE)]
    if len(terms) > 1:
        return _Chain(word, tuple(terms))
    return terms[0] if terms else (_TRUE if decides is _FALSE else _FALSE)


def _all(parts: Iterable[_Formula]) -> _Formula:
    return _joined("and", _FALSE, parts)


def _any(parts: Iterable[_Formula]) -> _Formula:
    return _joined("or", _TRUE, parts)


class _Writer:
    def __init__(self, dialect: str, schema: Schema) -> None:
        self.dialect = dialect
        self.nullable = {column.name for column in schema.columns if column.nullable and column.name not in schema.key}

    # Conditions.  `wanted` is the truth value asked for, `or_null` whether NULL will do too.

    def truth(self, node: Node, wanted: bool, or_null: bool = False) -> _Formula:
        """When `node` has the truth value `wanted`, or is NULL if `or_null`."""
        match node:
            case Literal(value):
                return _TRUE if (or_null if value is None else value is wanted) else _FALSE
            case Column():
                return self._flag(node, wanted, or_null)
            case Call(("and" | "or") as op, args):
                join = _all if (op == "and") is wanted else _any
                return join([self.truth(arg, wanted, or_null) for arg in args])
            case Call("not", (arg,)):
                return self.truth(arg, not wanted, or_null)
            case Call("is true", (arg,)):
                return self.truth(arg, wanted, not wanted)
            case Call("is false", (arg,)):
                return self.truth(arg, not wanted, not wanted)
            case Call("is null", (arg,)):
                absent = self._absent(arg)
                return absent if wanted else self._present(arg)
            case Call("between", (value, low, high)):
                bounds = (self._pair(node, ">=", value, low), self._pair(node, "<=", value, high))
                return self.truth(Call("and", bounds, "bool"), wanted, or_null)
            case Call("in"):
                return self._in(node, wanted, or_null)
            case Call("like" | "ilike"):
                return self._like(node, wanted, or_null)
            case Call("is distinct from", args):
                return self._distinct(args, wanted)
            case Call("is not distinct from", args):
                return self._distinct(args, not wanted)
            case Call(op, args) if op in COMPARISONS:
                return self._comparison(node, op if wanted else _OPPOSITE[op], args, or_null)
            case Call(op) if op in _TESTS:
                return self._test(node, wanted, or_null)
        raise self._refusal(node, "it has no such condition")

    def _flag(self, node: Column, wanted: bool, or_null: bool) -> _Formula:
        name = self._name(node)
        is_bare = wanted and self.dialect == "v4"
        atom = _Atom(name if is_bare else f"{name} eq {str(wanted).lower()}")
        return _any([atom, self._absent(node)]) if or_null else atom

    def _test(self, node: Call, wanted: bool, or_null: bool) -> _Formula:
        if any(map(_is_null, node.args)):
            return _TRUE if or_null else _FALSE
        text = self._value(node)
        return self._held(_Atom(text if wanted else f"not {text}"), node.args, or_null, () if wanted else node.args)

    def _comparison(self, node: Call, op: str, args: Sequence[Node], or_null: bool) -> _Formula:
        if any(map(_is_null, args)):
            return _TRUE if or_null else _FALSE
        left, right = self._comparables(node, op, args)
        guarded: Sequence[Node] = args if op == "<>" else ()
        if op == "=" and self._nullables(args[1]):
            guarded = args[:1]  # or else two NULLs would be equal where C# decides
        return self._held(_Atom(f"{left} {_WORDS[op]} {right}"), args, or_null, guarded)

    def _held(self, atom: _Formula, args: Sequence[Node], or_null: bool, guarded: Sequence[Node]) -> _Formula:
        """`atom`, which is NULL if any of `args` is, so that true is said of no NULL among the `guarded`."""
        if or_null:
            return _any([atom, *map(self._absent, args)])
        return _all([atom, *map(self._present, guarded)])

    def _distinct(self, args: Sequence[Node], wanted: bool) -> _Formula:
        left, right = args
        if not wanted:
            return _any([self.truth(Call("=", (left, right), "bool"), True), _all(map(self._absent, args))])
        one_absent = [
            _all([self._absent(left), self._present(right)]),
            _all([self._present(left), self._absent(right)]),
        ]
        return _any([self.truth(Call("<>", (left, right), "bool"), True), *one_absent])

    def _in(self, node: Call, wanted: bool, or_null: bool) -> _Formula:
        value, *items = node.args
        is_listable = self.dialect == "v4" and value.family in ("text", "int") and not _is_guid(value)
        if not is_listable or not all(isinstance(item, Literal) for item in items):
            equal = tuple(self._pair(node, "=", value, item) for item in items)
            return self.truth(Call("or", equal, "bool"), wanted, or_null)
        known = [self._literal(item) for item in items if isinstance(item, Literal) and item.value is not None]
        if len(known) < len(items) and or_null is wanted:
            # With a NULL in the list nothing is known to be outside it.
            return _TRUE if wanted else _FALSE
        if not known or _is_null(value):
            return _TRUE if or_null else _FALSE
        text = f"{self._value(value)} in ({','.join(known)})"
        return self._held(_Atom(text if wanted else f"not ({text})"), [value], or_null, () if wanted else [value])

    def _pair(self, node: Node, op: str, value: Node, other: Node) -> Node:
        """One comparison of several in a row, in which all are compared as what the widest of them is."""
        if value.family in ("float", "float32") and value.family not in (_own_family(value), _own_family(other)):
            raise self._refusal(node, "it has no way to compare these two as doubles")
        return Call(op, (value, other), "bool")

    def _like(self, node: Call, wanted: bool, or_null: bool) -> _Formula:
        text, pattern, *escape = node.args
        if not isinstance(pattern, Literal):
            raise self._refusal(node, "it has no patterns but those of a text's begin, end or part")
        if pattern.value is None or _is_null(text):
            return _TRUE if or_null else _FALSE
        if node.op == "ilike":
            text = Call("lower", (text,), "text")
        own = escape[0].value if escape and isinstance(escape[0], Literal) else ""
        found = pieces(lower(pattern.value) if node.op == "ilike" else pattern.value, own) or ()
        if any(None in piece for piece in found):
            raise self._refusal(node, "it has no sign for any one character")
        tests = self._tests(node, text, ["".join(map(str, piece)) for piece in found])
        if tests:
            return self.truth(Call("and", tests, "bool"), wanted, or_null)
        # Any text is like a bare %.
        if wanted:
            return _TRUE if or_null else self._present(text)
        return self._absent(text) if or_null else _FALSE

    def _tests(self, node: Call, text: Node, found: Sequence[str]) -> tuple[Node, ...]:
        """What a pattern asks of `text`, by its stretches between the %."""
        first, *inner = found
        if not inner:
            return (Call("=", (text, Literal(first, "text")), "bool"),)
        last = inner.pop()
        inner = [piece for piece in inner if piece]
        if len(inner) > 1 or (inner and (first or last)):
            raise self._refusal(node, "it cannot say in which order the parts of a text come")
        tests = [("starts_with", first), ("ends_with", last), *(("contains", piece) for piece in inner)]
        terms: list[Node] = [Call(op, (text, Literal(piece, "text")), "bool") for op, piece in tests if piece]
        if first and last:
            least = Literal(len(first) + len(last), "int")
            terms.append(Call(">=", (Call("length", (text,), "int"), least), "bool"))
        return tuple(terms)

    # What may be NULL

    def _nullables(self, node: Node) -> list[Column]:
        """The columns any of whose being NULL makes `node` NULL."""
        match node:
            case Column(name):
                return [node] if name in self.nullable else []
            case Literal() | Call("concat"):
                return []
            case Call(op) if op.startswith("is "):
                return []
            case Call(op) if op in _FORGIVING:
                raise self._refusal(node, "it cannot say when this is NULL")
        return [column for arg in node.args for column in self._nullables(arg)]

    def _absent(self, node: Node) -> _Formula:
        if _is_null(node):
            return _TRUE
        for inner in walk(node):
            if isinstance(inner, Call) and inner.op in _OPERATORS and inner.family in ("float", "float32"):
                raise self._refusal(inner, "it cannot say when a double is not a number, which is NULL here")
        return _any(_Atom(f"{self._name(column)} eq null") for column in self._nullables(node))

    def _present(self, node: Node) -> _Formula:
        if _is_null(node):
            return _FALSE
        return _all(_Atom(f"{self._name(column)} ne null") for column in self._nullables(node))

    # Values

    def _comparables(self, node: Call, op: str, args: Sequence[Node]) -> list[str]:
        """The operands of a comparison, whose literals depend on what they are compared with."""
        is_guid = any(map(_is_guid, args))
        if op not in ("=", "<>") and (is_guid or args[0].family in ("bool", "bytes")):
            raise self._refusal(node, "services order these in other ways")
        if is_guid:
            return [self._as_guid(node, arg) for arg in args]
        if self.dialect == "v4" and any(isinstance(arg, Call) and arg.op == "to timestamp" for arg in args):
            return [self._as_date(node, arg) for arg in args]
        return [self._value(arg) for arg in args]

    def _as_guid(self, node: Node, arg: Node) -> str:
        match arg:
            case Literal(value):
                return f"guid'{value}'" if self.dialect == "v2" else f"cast({value},Edm.Guid)"
            case Column(_, _, "UUID"):
                return self._name(arg)
        raise self._refusal(node, "it compares no text with a guid")

    def _as_date(self, node: Node, arg: Node) -> str:
        """A date that was to be compared as a time."""
        match arg:
            case Call("to timestamp", (date,)):
                return self._value(date)
            case Literal(value) if value.time() == datetime.time():
                return self._literal(Literal(value.date(), "date"))
        raise self._refusal(node, "it compares no date with a time")

    def _value(self, node: Node) -> str:
        match node:
            case Column(_, _, kind):
                if kind == "JSON":
                    raise self._refusal(node, "services hold JSON in other ways")
                return self._name(node)
            case Literal():
                return self._literal(node)
            case Call("-", (Call("strpos", args), Literal(1))):
                return self._function(Call("strpos", args, "int"))
            case Call("strpos"):
                return f"({self._function(node)} add 1)"
            case Call("negate", (arg,)):
                # The Node.js service takes a minus before a literal only.
                return f"(0 sub {self._value(arg)})" if self.dialect == "v2" else self._minus(self._value(arg))
            case Call(op, (left, right)) if op in _OPERATORS:
                return self._arithmetic(node, left, right)
            case Call(op, (arg,)) if op.startswith("to "):
                return self._value(arg)
        return self._call(node)

    def _minus(self, text: str) -> str:
        return f"-({text})" if text.startswith("-") else f"-{text}"

    def _arithmetic(self, node: Call, left: Node, right: Node) -> str:
        if node.op in ("/", "//", "%") and not (isinstance(right, Literal) and right.value):
            raise self._refusal(node, "services divide by zero in different ways")
        first, second = self._value(left), self._value(right)
        if node.op == "/" and self.dialect == "v2" and not any(_is_real(inner) for inner in walk(left)):
            raise self._refusal(node, "its services cut the quotient of whole numbers")
        if node.op == "//" and self.dialect == "v2":
            # The Node.js service keeps any number as a double; what a divisor divides is divided alike by all.
            if any(isinstance(inner, Call) and inner.op == "//" for inner in walk(left)):
                raise self._refusal(node, "its services divide whole numbers in different ways")
            return f"(({first} sub ({first} mod {second})) div {second})"
        return f"({first} {_OPERATORS[node.op]} {second})"

    def _call(self, node: Call) -> str:
        if node.op in _OF_TEXT and any(map(_is_guid, node.args)):
            raise self._refusal(node, "a guid is no text there")
        match node:
            case Call("trim", (_, _)):
                raise self._refusal(node, "it trims blanks only")
            case Call(op) if op in _FUNCTIONS:
                return self._function(node)
            case Call("round", (arg, *digits)) if node.family == "int" and not any(_is_negative(one) for one in digits):
                return self._value(arg)
            case Call("round"):
                raise self._refusal(node, "services round halves in different ways", "compare with a range")
            case Call("round_even", (arg, _)):
                return self._rounded(node, arg)
            case Call("substr", (text, *numbers)):
                return self._substring(node, text, numbers)
            case Call("replace", args):
                return self._replaced(node, args)
            case Call("concat", args):
                return self._concatenated(node, args)
        raise self._refusal(node, "it has no such function" if node.family != "bool" else "it compares no conditions")

    def _function(self, node: Call) -> str:
        given = [self._value(arg) for arg in node.args]
        if node.op == "contains" and self.dialect == "v2":
            return f"substringof({given[1]},{given[0]})"
        return f"{_FUNCTIONS[node.op]}({','.join(given)})"

    def _rounded(self, node: Call, arg: Node) -> str:
        if node.family == "int":
            return self._value(arg)
        if self.dialect == "v2":
            raise self._refusal(node, "its services round halves away from zero", "compare with a range")
        return f"round({self._value(arg)})"

    def _substring(self, node: Call, text: Node, numbers: Sequence[Node]) -> str:
        start, *length = (number.value if isinstance(number, Literal) else None for number in numbers)
        if start is None or start < 1 or any(count is None or count < 0 for count in length):
            raise self._refusal(node, "it counts from a text's begin, by numbers")
        return f"substring({','.join(map(str, (self._value(text), start - 1, *length)))})"

    def _replaced(self, node: Call, args: Sequence[Node]) -> str:
        if self.dialect == "v4":
            raise self._refusal(node, "it has no such function")
        old, new = (arg.value if isinstance(arg, Literal) else None for arg in args[1:])
        is_nested = any(isinstance(inner, Call) and inner.op == "replace" for inner in walk(args[0]))
        if not old or new is None or len(new) > _REPLACEMENT_MAX or is_nested:
            raise self._refusal(node, "its services take literals only, once")
        return f"replace({','.join(map(self._value, args))})"

    def _concatenated(self, node: Call, args: Sequence[Node]) -> str:
        if any(self._nullables(arg) for arg in args):
            raise self._refusal(node, "services append NULL in different ways")
        *others, last = [self._value(arg) for arg in args if not _is_null(arg)] or ["''"]
        for text in reversed(others):
            last = f"concat({text},{last})"
        return last

    def _literal(self, node: Literal) -> str:
        match node.family:
            case "bool":
                return str(node.value).lower()
            case "text":
                return literal(node.value)
            case "date" if self.dialect == "v4":
                return f"cast({node.value},Edm.Date)"
            case "date":
                return f"datetime'{node.value}T00:00:00.000Z'"
            case "time":
                return self._time(node, node.value)
            case "timestamp" | "instant":
                return self._moment(node, node.value.replace(tzinfo=None))
        return self._number(node, node.value)

    def _number(self, node: Literal, value: Any) -> str:
        is_v2 = self.dialect == "v2"
        match node.family:
            case "int" if value in _INT64:
                return f"{value}L" if is_v2 and value not in _INT32 else str(value)
            case "decimal" if len(value.as_tuple().digits) <= _DECIMAL_DIGITS_MAX:
                return format(value, "f") + ("m" if is_v2 else "M" if "." in format(value, "f") else ".0M")
            case "float" | "float32" if math.isfinite(value):
                text = repr(value).replace("e+", "e")
                if node.family == "float32":
                    return f"{text}f"
                return f"{text}d" if is_v2 else text if "e" in text else f"{text}e0"
        raise self._refusal(node, "it has no number as large or as long")

    def _moment(self, node: Literal, value: datetime.datetime) -> str:
        text = f"{value.isoformat(timespec=self._precision(node, value.microsecond))}Z"
        if self.dialect == "v4":
            return f"cast({text},Edm.DateTimeOffset)"
        return f"{'datetime' if node.family == 'timestamp' else 'datetimeoffset'}'{text}'"

    def _time(self, node: Literal, value: datetime.time) -> str:
        text = value.isoformat(self._precision(node, value.microsecond))
        if self.dialect == "v4":
            return f"cast({text},Edm.TimeOfDay)"
        hour, minute, second = text.split(":")
        return f"time'PT{hour}H{minute}M{second}S'"

    def _precision(self, node: Literal, microsecond: int) -> str:
        if microsecond % 1000 == 0:
            return "milliseconds"
        if self.dialect == "v2":
            raise self._refusal(node, "its services cut times to milliseconds")
        return "microseconds"

    def _name(self, column: Column) -> str:
        if not re.fullmatch(r"[^\W\d]\w*", column.name) or column.name.lower() in _KEYWORDS:
            raise self._refusal(column, "it has no way to quote such a name")
        return column.name

    def _refusal(self, node: Node, reason: str, hint: str = _HINT) -> QueryError:
        return QueryError(f"OData {self.dialect} cannot say {canonical(node)}: {reason}", hint=hint)


def _is_null(node: Node) -> bool:
    """Whether `node` is NULL whatever the row is."""
    if isinstance(node, Literal):
        return node.value is None
    if not isinstance(node, Call) or node.op in _FORGIVING or node.op.startswith("is "):
        return False
    return any(map(_is_null, node.args))


def _own_family(node: Node) -> str:
    """The family that a service knows `node` by."""
    return node.args[0].family if isinstance(node, Call) and node.op.startswith("to ") else node.family


def _is_guid(node: Node) -> bool:
    return isinstance(node, Column) and node.kind == "UUID"


def _is_real(node: Node) -> bool:
    """Whether a service surely computes with it as with a number that has a fraction."""
    return isinstance(node, Column) and node.family in ("decimal", "float", "float32")


def _is_negative(node: Node) -> bool:
    return isinstance(node, Literal) and node.value is not None and node.value < 0
