"""Reads `$filter` and `$orderby` of OData: one reader takes the dialects of v2, v3 and v4.

Its conditions have the meaning of the language: three-valued, so that `x ne 'a'` is not true where x is
NULL, and neither is `not (x eq 'a')`; `x eq null` and `x ne null` alone ask whether it is, and `in` is a
chain of `eq`.  `div` and `mod` of whole numbers give whole numbers, cut towards zero; any other division
is real.  `round` rounds halves to even, as the toolkit's server does.  Texts are counted in characters
(code points) from zero; parts of instants are those of UTC.  A literal with an offset, compared with a
date or a time without one, is its time in UTC.  Names, keywords and functions are taken in any case.

A parser by precedence: an operator takes what binds tighter than itself (OData 4.01 part 2, 5.1.1.16).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar

from ..errors import SchemaError
from ..schema import Schema
from . import rules
from .canonical import stated
from .odata_tokens import Token, cast, is_literal, is_type, literal, plain, tokens
from .rules import Refused
from .source import Source, check_length
from .tree import ARGUMENTS_MAX, DEPTH_MAX, Call, Column, Condition, Literal, Node, Order
from .values import NULL, as_decimal, as_instant, as_uuid

T = TypeVar("T")
KeyOf = Callable[[str], tuple[Any, ...]]

_COMPARISONS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SUMS, _PRODUCTS = {"add": "+", "sub": "-"}, {"mul": "*", "div": "/", "divby": "/", "mod": "%"}
_COMPARES = 3
_BINDING = {
    "or": 1,
    "and": 2,
    **dict.fromkeys((*_COMPARISONS, "in", "has"), _COMPARES),
    **dict.fromkeys(_SUMS, 4),
    **dict.fromkeys(_PRODUCTS, 5),
}

# By the name in lower case: ours, and how many arguments it takes at least and at most.
_FUNCTIONS = {
    "startswith": ("starts_with", 2, 2),
    "endswith": ("ends_with", 2, 2),
    "contains": ("contains", 2, 2),
    "substringof": ("contains", 2, 2),
    "length": ("length", 1, 1),
    "indexof": ("strpos", 2, 2),
    "substring": ("substr", 2, 3),
    "replace": ("replace", 3, 3),
    "tolower": ("lower", 1, 1),
    "toupper": ("upper", 1, 1),
    "trim": ("trim", 1, 1),
    "concat": ("concat", 2, 2),
    "year": ("year", 1, 1),
    "month": ("month", 1, 1),
    "day": ("day", 1, 1),
    "hour": ("hour", 1, 1),
    "minute": ("minute", 1, 1),
    "second": ("second", 1, 1),
    "floor": ("floor", 1, 1),
    "ceiling": ("ceil", 1, 1),
    "round": ("round_even", 1, 1),
}
# How many levels a function makes where it is not one, for the canonical text has to keep the bound too.
_DEPTH = {"indexof": 3, "substring": 2}
_ONE = Literal(1, "int")


def parse_filter(text: str, schema: Schema, key_of: KeyOf | None = None) -> Condition:
    """Return the condition that a `$filter` states over the columns of `schema`.

    Parameters
    ----------
    text
        What stands after `$filter=`, decoded; at most 32 KiB and 100 levels deep.
    schema
        Gives the columns and their families.  The system columns createdAt, updatedAt, version and
        deleted may be named too, where the table has no column of that name.
    key_of
        Reads a text id as the values of the key's columns, in the key's order, and raises KeyColumnError
        for one that is no row's.  With it, `id` may be compared with such ids where the table has no
        column `id`, or it is the key: rows are ordered by the key's columns.

    Raises
    ------
    QueryError
        As of `parse`: the message has the text and points at the place.
    """
    source = _source(text, schema)
    reader = _Reader(source, schema, key_of)
    try:
        return stated(reader.condition())
    except RecursionError:
        source.refuse_depth()


def parse_orderby(text: str, schema: Schema) -> tuple[Order, ...]:
    """Return the columns that an `$orderby` states, for `id` those of the key where the table has no such column.

    Raises
    ------
    QueryError
        If it is no list of columns, each with `asc`, `desc` or neither.
    """
    source = _source(text, schema)
    words = iter(tokens(source))
    orders: list[Order] = []
    token = next(words)
    while True:
        if token.kind != "name":
            source.refuse("a column is expected here", token.place)
        names = _ordered_by(token, source, schema)
        token = next(words)
        descending = token.word == "desc"
        orders += [Order(name, descending) for name in names]
        if token.word in ("asc", "desc"):
            token = next(words)
        if token.kind == "end":
            return tuple(orders)
        if token.text != ",":
            source.refuse("asc, desc, a comma or the end is expected here", token.place)
        token = next(words)


def _ordered_by(token: Token, source: Source, schema: Schema) -> Sequence[str]:
    if token.word == "id" and not source.has("id"):
        return schema.key
    return [source.column(token.text, token.place).name]


def _source(text: str, schema: Schema) -> Source:
    check_length(text)
    source = Source(text, schema)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        source.refuse("half of a character stands alone here", error.start)
    return source


@dataclass(frozen=True, slots=True)
class _Operand:
    """A node and where its text begins; `is_id`: it is the row's text id, of which the node says nothing."""

    node: Node
    place: int
    is_id: bool = False


class _Reader:
    """Reads the words of one text, of which `here` is the next."""

    def __init__(self, source: Source, schema: Schema, key_of: KeyOf | None) -> None:
        self.source = source
        self.words = tokens(source)
        self.next = 0
        self.ids = _Ids(source, schema, key_of)

    @property
    def here(self) -> Token:
        return self.words[self.next]

    def take(self) -> Token:
        token = self.here
        self.next += 1
        return token

    def expect(self, sign: str) -> None:
        if self.here.text != sign:
            self._refuse_here(f"{sign!r} is expected here")
        self.next += 1

    def condition(self) -> Node:
        if self.here.kind == "end":
            self.source.refuse("the condition is empty")
        operand = self._expression(0, 0)
        if self.here.kind != "end":
            self._refuse_here("an operator or the end is expected here")
        return self._made(partial(rules.condition, self._node(operand)), [operand])

    # Operators

    def _expression(self, binding: int, depth: int) -> _Operand:
        """What stands here, as far as its operators bind tighter than `binding`."""
        if depth > DEPTH_MAX:
            self.source.refuse_depth()
        left = self._prefixed(depth)
        while (own := _BINDING.get(self.here.word, 0)) > binding:
            depth += 1
            if depth > DEPTH_MAX:
                self.source.refuse_depth()
            word = self.take().word
            if word in ("and", "or"):
                left = self._chain(word, left, depth)
            elif word == "in":
                left = self._in(left, depth)
            elif word == "has":
                self._refuse_before("has is not part of the filter language")
            else:
                left = self._binary(word, left, self._expression(own, depth))
            if own == _COMPARES == _BINDING.get(self.here.word):
                self._refuse_here("a condition inside a comparison needs parentheses")
        if self.here.kind != "end" and self.here.text not in (")", ",") and self.here.word not in _BINDING:
            self._refuse_here("an operator or the end is expected here")
        return left

    def _chain(self, word: str, first: _Operand, depth: int) -> _Operand:
        parts = [first, self._expression(_BINDING[word], depth)]
        while self.here.word == word:
            self.take()
            parts.append(self._expression(_BINDING[word], depth))
        call = self._made(partial(rules.logic, word, [self._node(part) for part in parts]), parts)
        return _Operand(_flat(call), first.place)

    def _binary(self, word: str, left: _Operand, right: _Operand) -> _Operand:
        if word in _COMPARISONS:
            return self._comparison(_COMPARISONS[word], left, right)
        args = [self._node(left), self._node(right)]
        op = (_SUMS | _PRODUCTS)[word]
        if word == "div" and {arg.family for arg in args} <= {"int", "null"}:
            op = "//"
        if op in ("//", "%") and args[1] == Literal(0, "int"):
            self.source.refuse("this divides by zero", right.place)
        return _Operand(self._made(partial(rules.arithmetic, op, args), [left, right]), left.place)

    def _comparison(self, op: str, left: _Operand, right: _Operand) -> _Operand:
        if right.is_id:
            left, right, op = right, left, _MIRRORED.get(op, op)
        return _Operand(self._made(partial(self._compared, op, left, right), [left, right]), left.place)

    def _compared(self, op: str, left: _Operand, right: _Operand) -> Node:
        value = right.node
        if left.is_id and (node := self.ids.compared(op, value)) is not None:
            return node
        args = [self._node(left), self._node(right)]
        if NULL in args and op in ("=", "<>"):
            absent = rules.identity(args[0] if args[1] == NULL else args[1], NULL)
            return absent if op == "=" else rules.negation(absent)
        return rules.comparison(op, _without_offsets(args))

    def _in(self, left: _Operand, depth: int) -> _Operand:
        self.expect("(")
        items = [self._expression(0, depth + 1)]
        while self.here.text == ",":
            self.take()
            items.append(self._expression(0, depth + 1))
        self.expect(")")
        return _Operand(self._made(partial(self._listed, left, items), [left, *items]), left.place)

    def _listed(self, left: _Operand, items: Sequence[_Operand]) -> Node:
        """`in` as the chain of eq that it is, in as few nodes as can be."""
        if left.is_id and (node := self.ids.listed([item.node for item in items])) is not None:
            return node
        families = {item.node.family if isinstance(item.node, Literal) else None for item in items}
        if left.is_id or len(families) > 1 or not families.isdisjoint({None, "null"}):
            return _joined("or", [self._compared("=", left, item) for item in items])
        return rules.comparison("in", _without_offsets([self._node(left), *(item.node for item in items)]))

    # Operands

    def _prefixed(self, depth: int) -> _Operand:
        token = self.here
        if token.word in ("not", "-"):
            return self._unary(self.take(), depth)
        if token.text == "(":
            self.take()
            inner = self._expression(0, depth + 1)
            self.expect(")")
            return inner
        if token.kind == "name" and self.words[self.next + 1].text == "(":
            return self._function(self.take(), depth)
        if is_literal(token) and not (token.word == "inf" and self.source.has("inf")):
            self.take()
            return _Operand(self._value(partial(literal, token), token), token.place)
        if token.kind != "name":
            self._refuse_here("a column, a value or a function is expected here")
        return self._column(self.take())

    def _unary(self, token: Token, depth: int) -> _Operand:
        if depth >= DEPTH_MAX:
            self.source.refuse_depth()
        operand = self._prefixed(depth + 1)
        build = rules.negation if token.word == "not" else rules.negative
        return _Operand(self._made(partial(build, self._node(operand)), [operand]), token.place)

    def _column(self, token: Token) -> _Operand:
        if token.word == "nan" and not self.source.has(token.text):
            self.source.refuse("NaN is NULL here", token.place, "ask with eq null")
        is_id = token.word == "id" and self.ids.has_ids
        # Where the table has no such column, its key's first one stands for it until it is compared.
        node = self.ids.key[0] if is_id and not self.source.has("id") else self.source.column(token.text, token.place)
        return _Operand(node, token.place, is_id)

    def _value(self, build: Callable[[], Literal], token: Token) -> Literal:
        try:
            return build()
        except (ValueError, ArithmeticError) as error:
            self.source.refuse(f"{token.text} is no value of the filter language: {error}", token.place)

    def _node(self, operand: _Operand) -> Node:
        if operand.is_id and not self.source.has("id"):
            self.source.refuse(
                "id stands for the key here, and can only be compared with an id",
                operand.place,
                f"the key's columns are {', '.join(column.name for column in self.ids.key)}",
            )
        return operand.node

    # Functions

    def _function(self, token: Token, depth: int) -> _Operand:
        self.expect("(")
        if token.word == "cast":
            return self._cast(token)
        if token.word not in _FUNCTIONS:
            hint = f"the functions are {', '.join(_FUNCTIONS)}"
            self.source.refuse(f"function {token.text!r} is not part of the filter language", token.place, hint)
        given = self._arguments(depth + _DEPTH.get(token.word, 1))
        name, fewest, most = _FUNCTIONS[token.word]
        if not fewest <= len(given) <= most:
            self.source.refuse(f"{token.text} does not take {len(given)} arguments", token.place)
        given = given[::-1] if token.word == "substringof" else given
        args = [self._node(operand) for operand in given]
        return _Operand(self._made(partial(_called, token.text, name, args), [*given, given[0]]), token.place)

    def _arguments(self, depth: int) -> list[_Operand]:
        given: list[_Operand] = []
        while self.here.text != ")" or given:
            given.append(self._expression(0, depth))
            if self.here.text != "," or len(given) > ARGUMENTS_MAX:
                break
            self.take()
        self.expect(")")
        return given

    def _cast(self, name: Token) -> _Operand:
        sign = self.take().text if self.here.text == "-" else ""
        token = self.take()
        if not is_literal(token):
            self.source.refuse("only a literal can be cast", token.place)
        self.expect(",")
        target = plain(self.here)
        if not is_type(target):
            self._refuse_here(f"a cast to {target or 'nothing'} is not part of the filter language")
        self.take()
        self.expect(")")
        return _Operand(self._value(partial(cast, token, target, sign), token), name.place)

    # Refusals

    def _made(self, build: Callable[[], T], operands: Sequence[_Operand]) -> T:
        """What `build` makes by the typing rules, whose refusal points at the first operand, or at the one at fault."""
        try:
            return build()
        except Refused as refusal:
            self.source.refuse(refusal.message, operands[refusal.part or 0].place, refusal.hint)

    def _refuse_here(self, message: str) -> NoReturn:
        self.source.refuse(message, self.here.place)

    def _refuse_before(self, message: str) -> NoReturn:
        self.source.refuse(message, self.words[self.next - 1].place)


def _flat(node: Node) -> Node:
    """A chain of `and` or `or` with the terms of chains inside it."""
    if not (isinstance(node, Call) and node.op in ("and", "or")):
        return node
    terms: list[Node] = []
    for arg in node.args:
        terms += arg.args if isinstance(arg, Call) and arg.op == node.op else [arg]
    return Call(node.op, tuple(terms), "bool")


def _joined(op: str, terms: Sequence[Node]) -> Node:
    return terms[0] if len(terms) == 1 else _flat(rules.logic(op, terms))


def _without_offsets(args: Sequence[Node]) -> list[Node]:
    """Literals with an offset, beside a date or a time that has none, as the time that they are in UTC."""
    beside = {arg.family for arg in args if not isinstance(arg, Literal)}
    if "instant" in beside or not beside & {"date", "timestamp"}:
        return list(args)
    return [
        Literal(arg.value.replace(tzinfo=None), "timestamp")
        if isinstance(arg, Literal) and isinstance(arg.value, datetime.datetime)
        else arg
        for arg in args
    ]


def _called(written: str, name: str, args: Sequence[Node]) -> Node:
    """A function of the language, from OData's arguments; `written` is how the text calls it."""
    try:
        if name == "strpos":
            return rules.arithmetic("-", [rules.call(name, args), _ONE])
        if name == "substr":
            return rules.call(name, [args[0], _counted_from_one(args[1]), *map(_not_negative, args[2:])])
        if name == "round_even":
            return rules.call(name, [*args, Literal(0, "int")])
        return rules.call(name, args)
    except Refused as refusal:
        raise Refused(refusal.message.replace(name, written, 1), refusal.hint, refusal.part) from None


def _counted_from_one(start: Node) -> Node:
    if isinstance(start, Literal) and isinstance(start.value, int):
        return Literal(_not_negative(start).value + 1, "int")
    if isinstance(start, Call) and start.op == "-" and start.args[1] == _ONE:
        return start.args[0]
    return rules.arithmetic("+", [start, _ONE])


def _not_negative(node: Node) -> Any:
    if isinstance(node, Literal) and isinstance(node.value, int) and node.value < 0:
        raise Refused("substring counts from zero, and not from the end", part=1)
    return node


class _Ids:
    """What the comparison of the row's text id with another means for the key's columns."""

    def __init__(self, source: Source, schema: Schema, key_of: KeyOf | None) -> None:
        self.key = [source.column(name, None) for name in schema.key]
        self.key_of = key_of
        self.is_column = source.has("id")
        is_key = [column.name.lower() for column in self.key] == ["id"]
        self.has_ids = key_of is not None and (is_key or not self.is_column)

    def compared(self, op: str, value: Node) -> Node | None:
        """The condition, or None if it is that of the column `id` as it stands."""
        if self.is_column and not (isinstance(value, Literal) and value.family == "text"):
            return None
        if not isinstance(value, Literal):
            raise Refused("id stands for the key here, and can only be compared with an id")
        if value.value is None:
            return self._none(op)
        values = self._values(str(value.value))
        if values is not None:
            return self._ordered(op, [_key_literal(*pair) for pair in zip(self.key, values, strict=True)])
        if self.is_column and self.key[0].kind != "UUID" and self.key[0].family == "text":
            return None
        return self._none(op)

    def _values(self, text: str) -> tuple[Any, ...] | None:
        try:
            return self.key_of(text) if self.key_of else None
        except SchemaError:
            return None

    def _none(self, op: str) -> Node:
        """Compared with what is the id of no row."""
        if op not in ("=", "<>"):
            raise Refused("this is no id of the table, and so comes neither before nor after one", part=1)
        return Literal(op == "<>", "bool")

    def _ordered(self, op: str, values: Sequence[Literal]) -> Node:
        pairs = list(zip(self.key, values, strict=True))
        if op in ("=", "<>"):
            return _joined("and" if op == "=" else "or", [rules.comparison(op, pair) for pair in pairs])
        # Rows come in the order of the key's columns: the first that differ decide, and only the last may be equal.
        choices = []
        for i, pair in enumerate(pairs):
            own = op if i == len(pairs) - 1 else op[0]
            equal = [rules.comparison("=", earlier) for earlier in pairs[:i]]
            choices.append(_joined("and", [*equal, rules.comparison(own, pair)]))
        return _joined("or", choices)

    def listed(self, items: Sequence[Node]) -> Node | None:
        """`in` of ids that are all rows' of a table whose key is one column, else None."""
        if len(self.key) > 1 or not all(isinstance(item, Literal) and item.family == "text" for item in items):
            return None
        values = [self._values(str(item.value)) for item in items if isinstance(item, Literal)]
        if None in values:
            return None
        return rules.comparison("in", [*self.key, *(_key_literal(self.key[0], value[0]) for value in values if value)])


def _key_literal(column: Column, value: Any) -> Literal:
    """A key's value as a literal of its column's family."""
    match column.family:
        case "instant":
            return as_instant(value.isoformat())
        case "text":
            return as_uuid(str(value)) if column.kind == "UUID" else Literal(str(value), "text")
        case "decimal":
            return as_decimal(value)
    return Literal(value, column.family)
