"""The one filter language: what rows a pull, a frame or a back end is asked for.

A `where` is a SQL condition with the meaning that DuckDB gives it.  It is parsed, held against a
white list and typed by the table's schema into one small tree, and each engine has a writer that
renders this tree with bound parameters.  A writer reproduces the meaning or raises QueryError, for
a filter that means one thing here and another there would lose rows: SQLite alone holds 7/2 = 3
and 'JFK' like 'jfk' to be true.  What SQLite's own operators do differently is done by functions
that `register_sqlite_functions` puts on the connection.

Settled here for every engine: NaN is NULL, as everywhere in syncframe; a time without an offset,
compared with an instant, is UTC; whole numbers are computed with 127 bits, so that a sum overflows
nowhere that it does not in DuckDB; a number becomes the nearest double.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import math
import re
import sqlite3
import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, NoReturn

from .errors import QueryError
from .schema import SYSTEM_COLUMNS, TYPES, Schema, quote

TEXT_BYTES_MAX = 32 * 1024
DEPTH_MAX = 100
ARGUMENTS_MAX = 100  # SQLite takes 127
DIGITS_MAX = 38

SYSTEM_KINDS = dict(zip(SYSTEM_COLUMNS, ("TIMESTAMPTZ", "TIMESTAMPTZ", "VARCHAR", "BOOLEAN"), strict=True))


# The tree.  "float32" is the family of FLOAT, which DuckDB computes with in single precision, and "null"
# that of a NULL whose place says nothing about its type; the other families are schema.TYPES'.


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


def parse(text: str, schema: Schema) -> Condition:
    """Return the condition that `text` states over the columns of `schema`.

    Parameters
    ----------
    text
        A SQL condition in DuckDB's dialect, at most 32 KiB and 100 levels deep.
    schema
        Gives the columns and their families.  The system columns createdAt, updatedAt, version and
        deleted may be named too, where the table has no column of that name.

    Raises
    ------
    QueryError
        If the text cannot be parsed, names an unknown column or function, is no condition, mixes
        families that have no common meaning, or uses what is not on the white list.  The message has
        the text and points at the place.
    """
    reader = _Reader(text, schema)
    try:
        tree = reader.condition(_syntax_tree(text, reader))
        canonical = _Canonical().write(tree)
    except RecursionError:
        reader.refuse_depth()
    # The canonical text is what is stored and parsed again, so that it has to keep the bound too.
    _check_length(canonical)
    return Condition(canonical, tree, frozenset(node.name for node in _walk(tree) if isinstance(node, Column)))


def to_duckdb(condition: Condition, column: Callable[[str], str] = quote) -> tuple[str, list[object]]:
    """Return `condition` as DuckDB SQL with `?` placeholders, and their values in order.

    `column` gives the SQL expression of a column, of its own type, by name.
    """
    writer = _DuckDB(column)
    return writer.write(condition.tree), writer.parameters


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
    return writer.write(condition.tree), writer.parameters


def register_sqlite_functions(connection: sqlite3.Connection) -> None:
    """Put the functions that `to_sqlite` uses on `connection`, all of them deterministic.

    A value they cannot compute (a division of whole numbers by zero, a text that is no time) makes
    the statement fail with sqlite3.OperationalError, where DuckDB raises too.
    """
    for name, function in _SQLITE_FUNCTIONS.items():
        connection.create_function(f"_syncframe_{name}", -1, function, deterministic=True)


# What the language has


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
_NUMBER, _FRACTION = frozenset(RANK), frozenset({"decimal", "float32", "float"})
_DATED, _CLOCKED = frozenset({"date", "timestamp", "instant"}), frozenset({"time", "timestamp", "instant"})
_ANY = frozenset({row.family for row in TYPES.values()}) | _NUMBER

FUNCTIONS = {
    "abs": Function((_NUMBER,)),
    "ceil": Function((_FRACTION,)),
    "floor": Function((_FRACTION,)),
    "round": Function((_NUMBER, _INT), optional=1),
    "length": Function((_TEXT,), "int"),
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

# Ours for each class of sqlglot's, with the arguments that make up ours.
_COMPARISONS = {
    "EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">=",
    "NullSafeEQ": "is not distinct from", "NullSafeNEQ": "is distinct from",
}  # fmt: skip
_ARITHMETIC = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "IntDiv": "//", "Mod": "%"}
_CALLS: dict[str, tuple[str, ...]] = {
    "Abs": ("abs", "this"),
    "Ceil": ("ceil", "this"),
    "Floor": ("floor", "this"),
    "Round": ("round", "this", "decimals"),
    "Length": ("length", "this"),
    "Lower": ("lower", "this"),
    "Upper": ("upper", "this"),
    "Substring": ("substr", "this", "start", "length"),
    "Replace": ("replace", "this", "expression", "replacement"),
    "Concat": ("concat", "expressions"),
    "StartsWith": ("starts_with", "this", "expression"),
    "EndsWith": ("ends_with", "this", "expression"),
    "Contains": ("contains", "this", "expression"),
    "Year": ("year", "this"),
    "Month": ("month", "this"),
    "Day": ("day", "this"),
    "Hour": ("hour", "this"),
    "Minute": ("minute", "this"),
    "Second": ("second", "this"),
    "Coalesce": ("coalesce", "this", "expressions"),
}
_TRIMS = {"": "trim", "BOTH": "trim", "LEADING": "ltrim", "TRAILING": "rtrim"}

# Arguments of sqlglot's nodes that say how to translate them between dialects, and nothing of their meaning here.
_TRANSLATION_ARGUMENTS = frozenset({"safe", "typed", "coalesce"})
# One of these inside another has to be in parentheses: DuckDB refuses a = b = c, and nobody reads a = b like c
# the way that either parser does.
_PREDICATES = frozenset({*_COMPARISONS, "Is", "In", "Between", "Like", "ILike", "Escape", "Not", "And", "Or"})


# From text to sqlglot's tree


def _check_length(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > TEXT_BYTES_MAX:
        raise QueryError(
            f"the condition has {size} bytes, and may have {TEXT_BYTES_MAX}",
            hint="pull in several queries, or filter the frame",
        )


def _syntax_tree(text: str, reader: _Reader) -> Any:
    import sqlglot
    from sqlglot.errors import ParseError, TokenError

    _check_length(text)
    try:
        _check_tokens(sqlglot.tokenize(text, dialect="duckdb"), reader)
        return sqlglot.parse_one(text, dialect="duckdb")
    except TokenError:
        reader.refuse("the condition cannot be read: a quote is not closed, or a character has no meaning in SQL")
    except ParseError as error:
        place = error.errors[0] if error.errors else {}
        reader.refuse("the condition cannot be parsed", _offset(text, place.get("line"), place.get("col")))


def _check_tokens(tokens: Sequence[Any], reader: _Reader) -> None:
    depth = 0
    for token in tokens:
        # A comment, a parameter or a second statement may vanish from the tree, and is seen here only.
        if token.comments or token.token_type.name in ("SEMICOLON", "PARAMETER", "PLACEHOLDER"):
            reader.refuse("a condition has no comments, parameters or semicolons", token.start)
        depth += (token.text == "(") - (token.text == ")")
        if depth > DEPTH_MAX:
            reader.refuse_depth()
    if not tokens:
        reader.refuse("the condition is empty")


def _offset(text: str, line: int | None, column: int | None) -> int | None:
    """The place in `text` of sqlglot's line and column, which is that of a token's last character plus one."""
    if not line or not column:
        return None
    return sum(len(row) + 1 for row in text.split("\n")[: line - 1]) + column - 1


def _pointed(text: str, place: int) -> str:
    """The line around `place`, shortened, and a caret under it."""
    start = max(text.rfind("\n", 0, place) + 1, place - 60)
    end = text.find("\n", place)
    line = text[start : min(place + 40, end if end >= 0 else len(text))]
    return f"  {line}\n  {' ' * (place - start)}^"


# From sqlglot's tree to ours


class _Reader:
    """Reads sqlglot's tree of one text; whatever has no method or table row here is refused."""

    def __init__(self, text: str, schema: Schema) -> None:
        self.text = text
        self.columns = {name.lower(): Column(name, TYPES[kind].family, kind) for name, kind in SYSTEM_KINDS.items()}
        for held in schema.columns:
            family = "float32" if held.kind == "FLOAT" else held.family
            self.columns[held.name.lower()] = Column(held.name, family, held.kind)
        self.own_names = schema.names

    def condition(self, syntax: Any) -> Node:
        tree = self.read(syntax, 0)
        if tree.family not in ("bool", "null"):
            self.refuse(f"a condition is true or false, and this is of family {tree.family}", hint="compare it")
        return _retyped(tree, "bool")

    def read(self, syntax: Any, depth: int) -> Node:
        if depth > DEPTH_MAX:
            self.refuse_depth()
        name = type(syntax).__name__
        if name in _COMPARISONS:
            return self._comparison(syntax, depth)
        if name in _ARITHMETIC:
            return self._arithmetic(syntax, depth)
        if name in _CALLS:
            return self._function(syntax, *_CALLS[name], depth=depth)
        method = self._METHODS.get(name)
        if method is None:
            self._refuse_unknown(syntax, name)
        return method(self, syntax, depth)

    # Leaves

    def _column(self, syntax: Any, _: int) -> Node:
        self._only(syntax, "this")
        column = self.columns.get(syntax.name.lower())
        if column is None:
            known = ", ".join(self.own_names)
            self.refuse(f"column {syntax.name!r} is not known", _place(syntax), hint=f"the columns are {known}")
        return column

    def _literal(self, syntax: Any, _: int) -> Node:
        if syntax.is_string:
            return Literal(syntax.this, "text")
        try:
            return _number(syntax.this)
        except ValueError as error:
            self.refuse(str(error), _place(syntax))

    def _boolean(self, syntax: Any, _: int) -> Node:
        return Literal(bool(syntax.this), "bool")

    def _null(self, _syntax: Any, _: int) -> Node:
        return Literal(None, "null")

    def _cast(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "to")
        value, target = self.read(syntax.this, depth + 1), syntax.args["to"]
        if not isinstance(value, Literal) or value.family == "null":
            self.refuse("only a literal can be cast", _place(syntax))
        convert = _CASTS.get(target.this.name)
        if convert is None or target.expressions:
            self.refuse(f"a cast to {target.sql()} is not part of the filter language", _place(syntax))
        return self._converted(convert, value, syntax)

    def _converted(self, convert: Callable[[Any], Literal], literal: Literal, syntax: Any) -> Literal:
        try:
            return convert(literal.value)
        except (ValueError, TypeError, ArithmeticError) as error:
            self.refuse(f"{literal.value!r} does not fit here: {error}", _place(syntax))

    # Operators

    def _paren(self, syntax: Any, depth: int) -> Node:
        return self.read(syntax.this, depth + 1)

    def _negate(self, syntax: Any, depth: int) -> Node:
        value = self.read(syntax.this, depth + 1)
        if value.family not in RANK:
            self.refuse(f"a minus needs a number, and this is of family {value.family}", _place(syntax))
        if isinstance(value, Literal) and value.value is not None:
            # Not with a bare minus, which would round a Decimal to 28 digits.
            return Literal(_CONTEXT.minus(value.value) if value.family == "decimal" else -value.value, value.family)
        return Call("negate", (value,), value.family)

    def _logic(self, syntax: Any, depth: int) -> Node:
        op = type(syntax).__name__.lower()
        parts = [self._truth(part, depth + 1) for part in _flattened(syntax)]
        return Call(op, tuple(parts), "bool")

    def _not(self, syntax: Any, depth: int) -> Node:
        return Call("not", (self._truth(syntax.this, depth + 1),), "bool")

    def _truth(self, syntax: Any, depth: int) -> Node:
        value = self.read(syntax, depth)
        if value.family not in ("bool", "null"):
            self.refuse(f"and, or and not take conditions, and this is of family {value.family}", _place(syntax))
        return _retyped(value, "bool")

    def _comparison(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expression")
        args = self._operands([syntax.this, syntax.expression], depth)
        return Call(_COMPARISONS[type(syntax).__name__], self._unified(args, syntax), "bool")

    def _between(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "low", "high")
        args = self._operands([syntax.this, syntax.args["low"], syntax.args["high"]], depth)
        return Call("between", self._unified(args, syntax), "bool")

    def _in(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expressions")
        if not syntax.expressions:
            self.refuse("in needs a list of values in parentheses", _place(syntax))
        args = self._operands([syntax.this, *syntax.expressions], depth)
        return Call("in", self._unified(args, syntax), "bool")

    def _is(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expression")
        (value,) = self._operands([syntax.this], depth)
        wanted = self.read(syntax.expression, depth + 1)
        if wanted == Literal(None, "null"):
            return Call("is null", (value,), "bool")
        if not (isinstance(wanted, Literal) and wanted.family == "bool" and value.family in ("bool", "null")):
            self.refuse("is takes null, or true and false after a condition", _place(syntax))
        return Call(f"is {wanted.value}".lower(), (_retyped(value, "bool"),), "bool")

    def _like(self, syntax: Any, depth: int, escape: Any = None) -> Node:
        self._only(syntax, "this", "expression", "negate")
        operands = [syntax.this, syntax.expression] + ([escape] if escape is not None else [])
        args = [_retyped(arg, "text") for arg in self._operands(operands, depth)]
        if any(arg.family != "text" for arg in args):
            self.refuse("like compares text with a pattern", _place(syntax))
        if escape is not None:
            self._check_pattern(args, escape)
        call = Call(type(syntax).__name__.lower(), tuple(args), "bool")
        return Call("not", (call,), "bool") if syntax.args.get("negate") else call

    def _escape(self, syntax: Any, depth: int) -> Node:
        if type(syntax.this).__name__ != "Like":
            self.refuse("escape follows a like", _place(syntax))
        return self._like(syntax.this, depth, syntax.expression)

    def _check_pattern(self, args: Sequence[Node], syntax: Any) -> None:
        _, pattern, escape = args
        if not (isinstance(escape, Literal) and isinstance(escape.value, str) and len(escape.value) == 1):
            self.refuse("escape takes one character", _place(syntax))
        if not (isinstance(pattern, Literal) and isinstance(pattern.value, str)):
            self.refuse("escape needs a pattern that is a literal", _place(syntax))
        if _segments(pattern.value, escape.value) is None:
            self.refuse("the pattern ends with its escape character", _place(syntax))

    def _arithmetic(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expression")
        op = _ARITHMETIC[type(syntax).__name__]
        args = self._operands([syntax.this, syntax.expression], depth)
        families = {arg.family for arg in args} - {"null"}
        if not families <= _NUMBER:
            self.refuse(f"{op} computes with numbers, not with {_listed(families - _NUMBER)}", _place(syntax))
        family = max(families, key=RANK.__getitem__, default="int")
        if op == "/" and family in ("int", "decimal"):
            family = "float"
        if op == "//" and family != "int":
            self.refuse("// divides whole numbers", _place(syntax), hint="floor(a / b)")
        return Call(op, tuple(_promoted(arg, family) for arg in args), family)

    # Functions

    def _function(self, syntax: Any, name: str, *keys: str, depth: int) -> Node:
        self._only(syntax, *keys)
        given = [part for key in keys for part in _as_list(syntax.args.get(key))]
        return self._call(name, given, syntax, depth)

    def _trim(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expression", "position")
        name = _TRIMS.get((syntax.args.get("position") or "").upper(), "trim")
        return self._call(name, [syntax.this, *_as_list(syntax.args.get("expression"))], syntax, depth)

    def _extract(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expression")
        name = syntax.name.lower()
        if name not in ("year", "month", "day", "hour", "minute", "second"):
            self.refuse(f"extract({name} from ...) is not part of the filter language", _place(syntax))
        return self._call(name, [syntax.expression], syntax, depth)

    def _call(self, name: str, given: Sequence[Any], syntax: Any, depth: int) -> Node:
        function = FUNCTIONS[name]
        if not function.takes(len(given)):
            self.refuse(f"{name} does not take {len(given)} arguments", _place(syntax))
        args: Sequence[Node] = [self.read(part, depth + 1) for part in given]
        if name == "coalesce":
            args = self._unified(args, syntax)
            if args[0].family == "null":
                self.refuse("coalesce of nothing but NULL has no type", _place(syntax))
        args = [self._argument(name, arg, i, part) for i, (arg, part) in enumerate(zip(args, given, strict=True))]
        if name == "round":
            self._check_round(args, syntax)
        return Call(name, tuple(args), function.result or args[0].family)

    def _argument(self, name: str, value: Node, index: int, syntax: Any) -> Node:
        parameters = FUNCTIONS[name].parameters
        allowed = parameters[min(index, len(parameters) - 1)]
        if value.family in allowed:
            return value
        if value.family == "null":
            return _retyped(value, min(allowed))
        if value.family != "int" or "float" not in allowed:
            self.refuse(f"{name} takes {_listed(allowed)} here, not {value.family}", _place(syntax))
        return _promoted(value, "float")

    def _check_round(self, args: Sequence[Node], syntax: Any) -> None:
        # The number of digits is part of a DECIMAL's type.
        if len(args) == 2 and not (isinstance(args[1], Literal) and args[1].value in range(-18, 19)):
            self.refuse("round takes its digits as a literal from -18 to 18", _place(syntax))

    # Types

    def _operands(self, parts: Sequence[Any], depth: int) -> list[Node]:
        for part in parts:
            if type(part).__name__ in _PREDICATES:
                self.refuse("a condition inside a comparison needs parentheses", _place(part))
        return [self.read(part, depth + 1) for part in parts]

    def _unified(self, args: Sequence[Node], syntax: Any) -> tuple[Node, ...]:
        """The operands of a comparison in one family; a text literal takes that of the column it meets."""
        args = self._settled(args, syntax)
        families = {arg.family for arg in args} - {"null"}
        if len(families) <= 1:
            family = next(iter(families), "null")
        elif families <= _NUMBER:
            args = _without_fractions(args) if families == {"int", "decimal"} else args
            family = max({arg.family for arg in args} - {"null"}, key=RANK.__getitem__)
        elif families == {"date", "timestamp"}:
            family = "timestamp"
        else:
            self.refuse(f"{_listed(families)} cannot be compared with each other", _place(syntax))
        return tuple(_promoted(arg, family) for arg in args)

    def _settled(self, args: Sequence[Node], syntax: Any) -> list[Node]:
        """The operands with literals read as what they are compared with: text as a date, a date as an instant."""
        readers = _literal_readers(args)
        return [
            self._converted(readers[arg.family], arg, syntax)
            if isinstance(arg, Literal) and arg.family in readers and arg.value is not None
            else arg
            for arg in args
        ]

    # Refusals

    def _only(self, syntax: Any, *keys: str) -> None:
        """Refuse a node with arguments other than those that are read, such as a table's name or a subquery."""
        for key, value in syntax.args.items():
            if value and key not in keys and key not in _TRANSLATION_ARGUMENTS:
                self._refuse_unknown(syntax, type(syntax).__name__)

    def _refuse_unknown(self, syntax: Any, name: str) -> NoReturn:
        what = _function_name(syntax) or f"{name}: this"
        hint = f"it has comparisons, and, or, not, in, between, like, arithmetic and {', '.join(FUNCTIONS)}"
        self.refuse(f"{what} is not part of the filter language", _place(syntax), hint=hint)

    def refuse_depth(self) -> NoReturn:
        self.refuse("the condition is nested too deeply", hint="use in (...) for many values, and fewer parentheses")

    def refuse(self, message: str, place: int | None = None, hint: str | None = None) -> NoReturn:
        shown = f"  {self.text[:200]}" if place is None else _pointed(self.text, place)
        hint = hint or f"the columns are {', '.join(self.own_names)}"
        raise QueryError(f"{message}\n{shown}", hint=hint)

    _METHODS: ClassVar[dict[str, Callable[[_Reader, Any, int], Node]]] = {
        "Column": _column,
        "Literal": _literal,
        "Boolean": _boolean,
        "Null": _null,
        "Cast": _cast,
        "Paren": _paren,
        "Neg": _negate,
        "And": _logic,
        "Or": _logic,
        "Not": _not,
        "Is": _is,
        "In": _in,
        "Between": _between,
        "Like": _like,
        "ILike": _like,
        "Escape": _escape,
        "Trim": _trim,
        "Extract": _extract,
    }


def _flattened(syntax: Any) -> list[Any]:
    """The terms of a chain of `and` or `or`, however long: sqlglot nests them to the left."""
    kind, parts, waiting = type(syntax), [], [syntax]
    while waiting:
        term = waiting.pop()
        inner = term.unnest()
        if type(inner) is kind:
            waiting += [inner.expression, inner.this]
        else:
            parts.append(term)
    return parts


def _place(syntax: Any) -> int | None:
    """Where a node begins: sqlglot knows the places of names and literals, so the first among its own."""
    starts = [node.meta["start"] for node in syntax.walk() if "start" in node.meta]
    return min(starts, default=None)


def _function_name(syntax: Any) -> str:
    from sqlglot import exp

    if not isinstance(syntax, exp.Func):
        return ""
    name = syntax.name if isinstance(syntax, exp.Anonymous) else syntax.sql_name().lower()
    return f"function {name!r}"


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _listed(families: Sequence[str] | set[str] | frozenset[str]) -> str:
    return " and ".join(sorted(families))


def _walk(tree: Node) -> Iterator[Node]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Call):
            waiting.extend(node.args)


# Families: values of one become values of another here and nowhere else


def _literal_readers(args: Sequence[Node]) -> dict[str, Callable[[Any], Literal]]:
    """By family of a literal among `args`, how to read it for the others."""
    if any(isinstance(arg, Column) and arg.kind == "UUID" for arg in args):
        return {"text": _uuid}
    families = {arg.family for arg in args}
    # An instant before all others, for a date beside it becomes one too.
    timed = next((family for family in ("instant", "timestamp", "date", "time") if family in families), None)
    if timed is None:
        return {}
    whole = {"date": _as_instant, "timestamp": _as_instant} if timed == "instant" else {}
    return {"text": _FROM_TEXT[timed], **whole}


def _retyped(node: Node, family: str) -> Node:
    """A NULL of no known family as one of `family`; anything else as it is."""
    return Literal(None, family) if node == Literal(None, "null") else node


def _promoted(node: Node, family: str) -> Node:
    """`node` in a wider family: a literal is converted now, anything else when it is evaluated."""
    node = _retyped(node, family)
    if node.family == family:
        return node
    if isinstance(node, Literal) and node.value is not None:
        return Literal(_WIDEN[family](node.value), family)
    return Call(f"to {family}", (node,), family)


def _without_fractions(args: Sequence[Node]) -> list[Node]:
    """Decimal literals that are whole as whole numbers, so that n = 1.0 is compared as n = 1."""
    return [
        Literal(int(arg.value), "int")
        if isinstance(arg, Literal) and isinstance(arg.value, Decimal) and arg.value == int(arg.value)
        else arg
        for arg in args
    ]


def _float32(value: Any) -> float:
    """The nearest single-precision number, as DuckDB makes one: out of range is infinite."""
    try:
        return float(struct.unpack("f", struct.pack("f", float(value)))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


_WIDEN: dict[str, Callable[[Any], Any]] = {
    "decimal": Decimal,
    "float32": _float32,
    "float": float,
    "timestamp": lambda date: datetime.datetime(date.year, date.month, date.day),
}

_NUMBER_TEXT = re.compile(r"\d*(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
_DATE_TEXT = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME_TEXT = re.compile(r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?")
_TIMESTAMP_TEXT = re.compile(rf"{_DATE_TEXT.pattern}([ T]{_TIME_TEXT.pattern})?")
_INSTANT_TEXT = re.compile(rf"{_TIMESTAMP_TEXT.pattern}\s?(Z|[+-]\d{{2}}(:?\d{{2}})?)?")


def _number(text: str) -> Literal:
    """A number as DuckDB types it: whole, decimal with a point, float with an exponent."""
    if not _NUMBER_TEXT.fullmatch(text):
        raise ValueError(f"{text!r} is not a number")
    if "e" in text.lower():
        return _double(text)
    if "." in text:
        return _decimal(text)
    return _integer(text)


def _integer(value: Any) -> Literal:
    number = Decimal(value)
    if number != number.to_integral_value() or number.copy_abs() >= _EXACT_LIMIT:
        raise ValueError("a whole number of at most 127 bits is needed")
    return Literal(int(number), "int")


def _decimal(value: Any) -> Literal:
    number = Decimal(value)
    if not number.is_finite() or len(number.as_tuple().digits) > DIGITS_MAX:
        raise ValueError(f"a decimal has at most {DIGITS_MAX} digits")
    # 1.50 and 1.5 are one number; without an exponent, so that 100 does not become 1E+2.
    return Literal(Decimal(format(number.normalize(decimal.Context(prec=DIGITS_MAX)), "f")), "decimal")


def _double(value: Any) -> Literal:
    number = float(value)
    if math.isnan(number) or (math.isinf(number) and "inf" not in str(value).lower()):
        raise ValueError("no double is as large, and NaN is NULL")
    return Literal(number + 0.0, "float")


def _single(value: Any) -> Literal:
    return Literal(_float32(_double(value).value), "float32")


def _text(value: Any) -> Literal:
    if not isinstance(value, str):
        raise ValueError("write it as text")
    return Literal(value, "text")


def _truth_value(value: Any) -> Literal:
    names = {"true": True, "false": False}
    if str(value).lower() not in names:
        raise ValueError("true or false is needed")
    return Literal(names[str(value).lower()], "bool")


def _uuid(value: Any) -> Literal:
    return Literal(str(uuid.UUID(value)), "text")


def _matched(pattern: re.Pattern[str], value: Any, expected: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{expected} is needed")
    return value


def _date(value: Any) -> Literal:
    return Literal(datetime.date.fromisoformat(_matched(_DATE_TEXT, value, "a date as 2024-02-29")), "date")


def _time(value: Any) -> Literal:
    return Literal(datetime.time.fromisoformat(_matched(_TIME_TEXT, value, "a time as 10:30:00")), "time")


def _timestamp(value: Any) -> Literal:
    text = _matched(_TIMESTAMP_TEXT, value, "a time as 2024-02-29 10:30:00, without an offset,")
    return Literal(datetime.datetime.fromisoformat(text), "timestamp")


def _instant(value: Any) -> Literal:
    text = _matched(_INSTANT_TEXT, value, "a time as 2024-02-29 10:30:00+00")
    return Literal(_in_utc(text.replace(" ", "T", 1).replace(" ", "")), "instant")


def _as_instant(value: datetime.date) -> Literal:
    return _instant(value.isoformat())


def _in_utc(text: str) -> datetime.datetime:
    date, _, rest = text.partition("T")
    # An offset may follow a bare date, where Python's own reading takes none.
    match = re.fullmatch(r"(\d{4}-\d{2}-\d{2})(Z|[+-].*)", date) if not rest else None
    moment = datetime.datetime.fromisoformat(f"{match[1]}T00:00{match[2]}" if match else text)
    return moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)


_FROM_TEXT: dict[str, Callable[[Any], Literal]] = {
    "date": _date,
    "time": _time,
    "timestamp": _timestamp,
    "instant": _instant,
}
_WHOLE_TYPES = ("TINYINT", "SMALLINT", "INT", "BIGINT", "INT128", "UTINYINT", "USMALLINT", "UINT", "UBIGINT")
# By sqlglot's names of types.
_CASTS: dict[str, Callable[[Any], Literal]] = {
    "DATE": _date,
    "TIME": _time,
    "TIMESTAMP": _timestamp,
    "TIMESTAMPNTZ": _timestamp,
    "DATETIME": _timestamp,
    "TIMESTAMPTZ": _instant,
    "UUID": _uuid,
    "BOOLEAN": _truth_value,
    "DECIMAL": _decimal,
    "DOUBLE": _double,
    "FLOAT": _single,
    "VARCHAR": _text,
    "TEXT": _text,
    **dict.fromkeys(_WHOLE_TYPES, _integer),
}


# From our tree to text


class _Writer:
    """What the three writers share: logic and comparisons; a subclass writes names, literals and calls."""

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
                return _balanced(f" {op} ", [self.write(arg) for arg in args])
            case Call("not", (arg,)):
                return f"(not {self.write(arg)})"
            case Call(("is null" | "is true" | "is false") as op, (arg,)):
                return f"({self.column(arg.name) if isinstance(arg, Column) else self.write(arg)} {op})"
            case Call("in", args):
                first, *rest = self.comparable(args)
                return f"({first} in ({', '.join(rest)}))"
            case Call("between", args):
                value, low, high = self.comparable(args)
                return f"({value} between {low} and {high})"
            case Call(op, args) if op in _COMPARISON_OPS:
                left, right = self.comparable(args)
                return f"({left} {self.comparison_words.get(op, op)} {right})"
        return self.call(node)

    def bind(self, value: object) -> str:
        self.parameters.append(value)
        return "?"

    def comparable(self, args: Sequence[Node]) -> list[str]:
        """The operands of a comparison, in a form that the engine compares as DuckDB does."""
        return [self.write(arg) for arg in args]

    def name(self, node: Column) -> str:
        return self.column(node.name)

    def literal(self, node: Literal) -> str:
        raise NotImplementedError

    def call(self, node: Call) -> str:
        raise NotImplementedError


_COMPARISON_OPS = frozenset(_COMPARISONS.values())


def _balanced(word: str, parts: Sequence[str]) -> str:
    """`parts` joined in halves, for both engines bound the depth of a chain: 5,000 terms are 13 levels."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_balanced(word, parts[:middle])}{word}{_balanced(word, parts[middle:])})"


class _DuckDB(_Writer):
    """Writes for DuckDB, whose meaning the language has; casts fix what would else follow from a column's width."""

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

    def call(self, node: Call) -> str:
        if node.op in _ARITHMETIC_WORDS:
            return self._arithmetic(node)
        if node.op.startswith("to "):
            return self._widened(node)
        if node.op in ("like", "ilike"):
            return self._like(node)
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
        text = f"({args[0]} {node.op} {args[1]})"
        kind = self.types[node.family]
        return f"nullif({text}, cast('nan' as {kind}))" if node.family in ("float32", "float") else text

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
        if node.op == "round" and index == 1 and isinstance(arg, Literal):
            return str(arg.value)  # a whole number of ours, checked; it makes the result's type
        text = self.write(arg)
        if node.op == "substr" and index > 0:
            return f"cast({text} as BIGINT)"
        if arg.family == "int" and node.op in _BY_NUMBER:
            return f"cast({text} as HUGEINT)"
        if arg.family == "instant" and node.op in _PARTS:
            # The parts of an instant are those of UTC, whatever the session's time zone.
            return f"make_timestamp(epoch_us({text}))"
        return text


_PARTS = frozenset({"year", "month", "day", "hour", "minute", "second"})
_ARITHMETIC_WORDS = {
    "+": "add", "-": "subtract", "*": "multiply", "/": "divide", "//": "quotient", "%": "remainder",
    "negate": "negate",
}  # fmt: skip
_BY_NUMBER = frozenset({*_ARITHMETIC_WORDS, "abs", "ceil", "floor", "round"})
_EXACT = frozenset({"int", "decimal"})
_INT64 = range(-(2**63), 2**63)


class _Sqlite(_Writer):
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
            return self.bind(_key(node.value)) if node.value is not None else "null"
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
        word = _ARITHMETIC_WORDS.get(node.op, node.op)
        if node.op in _BY_NUMBER:
            return f"{word}_{'exact' if node.family in _EXACT else 'float'}"
        return word

    def _like(self, node: Call) -> str:
        text, pattern, *escape = node.args
        if node.op == "like" and isinstance(pattern, Literal) and not escape and _is_prefix(pattern.value):
            # An index serves it; GLOB minds the case.  Only prefixes, for elsewhere GLOB stops at a NUL character.
            return f"({self.write(text)} glob {self.bind(_as_glob(pattern.value))})"
        return f"_syncframe_{node.op}({', '.join(map(self.write, node.args))})"


class _Canonical(_Writer):
    """Writes the language itself, with as few parentheses as keep the tree, so that it is parsed again."""

    def write(self, node: Node) -> str:
        match node:
            case Column(name):
                return quote(name)
            case Literal(value, family):
                return "null" if value is None else _CANONICAL_LITERALS[family](value)
            case Call(op, (arg,)) if op.startswith("to "):
                return self.write(arg)
            case Call(("and" | "or") as op, args):
                return f" {op} ".join(self._inner(arg, _binding(node)) for arg in args)
            case Call("not", (arg,)):
                return f"not {self._inner(arg, _NOT_BINDS)}"
            case Call("negate", (arg,)):
                return f"-{self._inner(arg, _ATOM_BINDS)}"
            case Call(op, args) if _binding(node) == _PREDICATE_BINDS:
                return self._predicate(op, [self._inner(arg, _PREDICATE_BINDS + 1) for arg in args])
            case Call(op, (left, right)) if op in _ARITHMETIC_WORDS:
                return f"{self._inner(left, _binding(node))} {op} {self._inner(right, _binding(node) + 1)}"
            case Call(op, args):
                return f"{op}({', '.join(map(self.write, args))})"

    def _inner(self, node: Node, binding: int) -> str:
        text = self.write(node)
        return text if _binding(node) >= binding else f"({text})"

    def _predicate(self, op: str, args: Sequence[str]) -> str:
        first, *rest = args
        if op == "in":
            return f"{first} in ({', '.join(rest)})"
        word = {"between": " and ", "like": " escape ", "ilike": " escape "}.get(op, "")
        return f"{first} {op} {word.join(rest)}".rstrip()


_NOT_BINDS, _PREDICATE_BINDS, _UNARY_BINDS, _ATOM_BINDS = 3, 4, 7, 8
_BINDING = {
    "or": 1, "and": 2, "not": _NOT_BINDS, "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6, "negate": _UNARY_BINDS,
    **dict.fromkeys(_COMPARISON_OPS, _PREDICATE_BINDS),
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


def _canonical_text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


_CANONICAL_LITERALS: dict[str, Callable[[Any], str]] = {
    "bool": lambda value: str(value).lower(),
    "int": str,
    "decimal": _canonical_decimal,
    # As a cast, for beside a plain float a FLOAT would be computed in double precision.
    "float32": lambda value: f"cast('{value!r}' as float)",
    "float": _canonical_float,
    "text": _canonical_text,
    "date": lambda value: f"date '{value}'",
    "time": lambda value: f"time '{value}'",
    "timestamp": lambda value: f"timestamp '{value}'",
    "instant": lambda value: f"timestamptz '{value}'",
}


# How SQLite holds values, and the functions on them


def _is_native(node: Node) -> bool:
    """Whether SQLite compares these values itself: not decimals, and whole numbers if they have 64 bits for sure."""
    if node.family != "int":
        return node.family != "decimal"
    if isinstance(node, Literal):
        return node.value is None or node.value in _INT64
    return isinstance(node, Column) or node.op not in _BY_NUMBER | {"coalesce"}


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


def _microseconds(moment: datetime.datetime) -> int:
    aware = moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // _MICROSECOND


def _clock(value: Any) -> int:
    """Microseconds since midnight of an ISO time."""
    time = value if isinstance(value, datetime.time) else datetime.time.fromisoformat(value)
    return ((time.hour * 60 + time.minute) * 60 + time.second) * 1_000_000 + time.microsecond


def _moment(value: Any) -> int:
    """Microseconds since 1970 of an ISO date and time, in UTC if it has no offset."""
    return value if isinstance(value, int) else _microseconds(datetime.datetime.fromisoformat(value))


def _calendar(value: Any) -> datetime.datetime:
    """The UTC calendar of a date's text, or of microseconds since 1970 (or midnight)."""
    if isinstance(value, str):
        return datetime.datetime.fromisoformat(value)
    return _EPOCH + datetime.timedelta(microseconds=value)


def _exact(value: Any) -> Decimal:
    """An exact number as SQLite holds it: a whole number, a decimal's text, or a REAL of at most 15 digits."""
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _held(value: Decimal) -> int | str:
    """An exact result as it travels between functions."""
    if value.copy_abs() >= _EXACT_LIMIT:
        raise ValueError("no engine computes exact numbers as large")
    if value == value.to_integral_value() and int(value) in _INT64:
        return int(value)
    return format(value, "f")


_EXACT_LIMIT = 2**127
_CONTEXT = decimal.Context(prec=120)
_COMPLEMENT = str.maketrans("0123456789", "9876543210")


def _key(value: Any) -> str:
    """A text that sorts as the exact number does: sign, magnitude, digits; complemented below zero."""
    number = _exact(value)
    if not number:
        return "1"
    text = f"{500 + number.adjusted():03}{format(number.copy_abs(), 'f').replace('.', '').strip('0')}"
    # What ends earlier is nearer to zero, and so comes later below zero: "~" sorts after every digit.
    return f"0{text.translate(_COMPLEMENT)}~" if number < 0 else f"2{text}"


def _on_exact(compute: Callable[..., Decimal]) -> Callable[..., int | str]:
    return lambda *args: _held(compute(*map(_exact, args)))


def _on_float(compute: Callable[..., float]) -> Callable[..., float]:
    return lambda *args: compute(*map(float, args))


def _quotient(a: Decimal, b: Decimal) -> Decimal:
    return _CONTEXT.divide_int(a, b)


def _divide(a: float, b: float) -> float:
    """IEEE 754 division, which has an answer for zero; NaN becomes NULL on its way to SQLite."""
    if b:
        return a / b
    return math.copysign(math.inf, a) if a else math.nan


def _remainder(a: float, b: float) -> float:
    return math.nan if not b or math.isinf(a) else math.fmod(a, b)


def _whole(compute: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: value if math.isinf(value) else float(compute(value))


def _half_away(value: float) -> float:
    """C's round: halves go away from zero."""
    if math.isinf(value):
        return value
    whole = math.trunc(value)
    return float(whole + math.copysign(1, value)) if abs(value - whole) >= 0.5 else float(whole)


def _round_float(value: float, digits: float = 0.0) -> float:
    """Round to a whole number, or to tens and hundreds where `digits` is negative."""
    power = math.pow(10, -digits)
    return _half_away(value / power) * power


def _round_exact(value: Decimal, digits: Decimal | int = 0) -> Decimal:
    if digits >= -int(value.as_tuple().exponent):
        return value
    places = Decimal(1).scaleb(-int(digits))
    return value.quantize(places, decimal.ROUND_HALF_UP, _CONTEXT)


def _integral(rounding: str) -> Callable[[Decimal], Decimal]:
    return lambda value: value.to_integral_value(rounding, _CONTEXT)


@functools.cache
def _case_tables() -> dict[str, dict[int, str]]:
    """DuckDB's own upper and lower of each character: SQLite's know ASCII only, Python's make SS of one letter."""
    import duckdb

    found = duckdb.connect().execute(
        """
        select code, upper(chr(code)), lower(chr(code))
        from (select cast(range as INTEGER) as code from range(1, 1114112))
        where code not between 55296 and 57343 and (upper(chr(code)) <> chr(code) or lower(chr(code)) <> chr(code))
        """
    )
    rows = found.fetchall()
    return {"upper": {code: upper for code, upper, _ in rows}, "lower": {code: lower for code, _, lower in rows}}


def _upper(text: str) -> str:
    return text.upper() if text.isascii() else text.translate(_case_tables()["upper"])


def _lower(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_case_tables()["lower"])


# Unicode's space separators, and not Python's whitespace, which has tabs and line ends.
_BLANKS = "\u0020\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


def _substr(text: str, start: int, length: int | None = None) -> str:
    """Counts from one, from the end if negative; a negative length takes what stands before."""
    first = start - 1 if start >= 0 else len(text) + start
    last = len(text) if length is None else first + length
    low, high = min(first, last), max(first, last)
    return text[max(low, 0) : max(high, 0)]


def _replace(text: str, old: str, new: str) -> str:
    return text.replace(old, new) if old else text


def _concat(*parts: str | None) -> str:
    return "".join(part for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class _Segment:
    """A stretch of a pattern without %, of as many characters as it matches."""

    characters: re.Pattern[str]
    length: int


def _is_prefix(pattern: Any) -> bool:
    return isinstance(pattern, str) and re.fullmatch(r"[^%_]+%", pattern, re.DOTALL) is not None


def _as_glob(pattern: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", pattern[:-1]) + "*"


@functools.lru_cache(maxsize=256)
def _segments(pattern: str, escape: str = "") -> tuple[_Segment, ...] | None:
    """The stretches of a pattern between its %; None if it ends with its escape character."""
    segments: list[list[str]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if escape and character == escape:
            literal = next(characters, None)
            if literal is None:
                return None
            segments[-1].append(re.escape(literal))
        elif character == "%":
            segments.append([])
        else:
            segments[-1].append("." if character == "_" else re.escape(character))
    return tuple(_Segment(re.compile("".join(parts), re.DOTALL), len(parts)) for parts in segments)


def _like(text: str, pattern: str, escape: str = "") -> bool:
    first, *others = _segments(pattern, escape) or ()
    if not others:
        return first.characters.fullmatch(text) is not None
    found = first.characters.match(text)
    # The earliest place of each stretch leaves the most for those after it, so that nothing is tried twice.
    for segment in others[:-1]:
        found = found and segment.characters.search(text, found.end())
    start = len(text) - others[-1].length
    return found is not None and found.end() <= start and others[-1].characters.match(text, start) is not None


def _ilike(text: str, pattern: str) -> bool:
    return _like(_lower(text), _lower(pattern))


def _strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """NULL if any argument is."""
    return lambda *args: None if None in args else function(*args)


# By family; what stands not here is bound as it is.
_SQLITE_LITERALS: dict[str, Callable[[Any], object]] = {
    "bool": int,
    "int": lambda value: value if value in _INT64 else str(value),
    "decimal": str,
    "date": datetime.date.isoformat,
    "time": _clock,
    "timestamp": _microseconds,
    "instant": _microseconds,
}

_STRICT_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "key": _key,
    "exact": _on_exact(lambda a: a),
    "float": float,
    "float32": _float32,
    "moment": _moment,
    "clock": _clock,
    "add_exact": _on_exact(_CONTEXT.add),
    "subtract_exact": _on_exact(_CONTEXT.subtract),
    "multiply_exact": _on_exact(_CONTEXT.multiply),
    "quotient_exact": _on_exact(_quotient),
    "remainder_exact": _on_exact(_CONTEXT.remainder),
    "negate_exact": _on_exact(_CONTEXT.minus),
    "abs_exact": _on_exact(_CONTEXT.abs),
    "ceil_exact": _on_exact(_integral(decimal.ROUND_CEILING)),
    "floor_exact": _on_exact(_integral(decimal.ROUND_FLOOR)),
    "round_exact": _on_exact(_round_exact),
    "add_float": _on_float(lambda a, b: a + b),
    "subtract_float": _on_float(lambda a, b: a - b),
    "multiply_float": _on_float(lambda a, b: a * b),
    "divide_float": _on_float(_divide),
    "remainder_float": _on_float(_remainder),
    "negate_float": _on_float(lambda a: -a),
    "abs_float": _on_float(abs),
    "ceil_float": _on_float(_whole(math.ceil)),
    "floor_float": _on_float(_whole(math.floor)),
    "round_float": _on_float(_round_float),
    "length": len,
    "lower": _lower,
    "upper": _upper,
    "trim": lambda text, blanks=_BLANKS: text.strip(blanks),
    "ltrim": lambda text, blanks=_BLANKS: text.lstrip(blanks),
    "rtrim": lambda text, blanks=_BLANKS: text.rstrip(blanks),
    "substr": _substr,
    "replace": _replace,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
    "like": _like,
    "ilike": _ilike,
    "year": lambda value: _calendar(value).year,
    "month": lambda value: _calendar(value).month,
    "day": lambda value: _calendar(value).day,
    "hour": lambda value: _calendar(value).hour,
    "minute": lambda value: _calendar(value).minute,
    "second": lambda value: _calendar(value).second,
}
_SQLITE_FUNCTIONS = {name: _strict(function) for name, function in _STRICT_FUNCTIONS.items()} | {"concat": _concat}
