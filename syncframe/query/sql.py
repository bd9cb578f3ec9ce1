"""Reads a SQL condition: sqlglot parses it, and what is on the white list becomes our tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NoReturn, TypeVar

from ..schema import Schema
from . import rules
from .canonical import stated
from .rules import FUNCTIONS, Refused
from .source import Source, check_length
from .tree import DEPTH_MAX, PARTS, Condition, Literal, Node
from .values import (
    NULL,
    as_bool,
    as_date,
    as_decimal,
    as_float,
    as_float32,
    as_instant,
    as_int,
    as_number,
    as_text,
    as_time,
    as_timestamp,
    as_uuid,
)

T = TypeVar("T")


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
    reader = _Reader(Source(text, schema))
    try:
        return stated(reader.condition(_syntax_tree(text, reader.source)))
    except RecursionError:
        reader.source.refuse_depth()


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
    "StrPosition": ("strpos", "this", "substr"),
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

# By sqlglot's names of types.
_WHOLE_TYPES = ("TINYINT", "SMALLINT", "INT", "BIGINT", "INT128", "UTINYINT", "USMALLINT", "UINT", "UBIGINT")
_CASTS: dict[str, Callable[[Any], Literal]] = {
    "DATE": as_date,
    "TIME": as_time,
    "TIMESTAMP": as_timestamp,
    "TIMESTAMPNTZ": as_timestamp,
    "DATETIME": as_timestamp,
    "TIMESTAMPTZ": as_instant,
    "UUID": as_uuid,
    "BOOLEAN": as_bool,
    "DECIMAL": as_decimal,
    "DOUBLE": as_float,
    "FLOAT": as_float32,
    "VARCHAR": as_text,
    "TEXT": as_text,
    **dict.fromkeys(_WHOLE_TYPES, as_int),
}
# Arguments of sqlglot's nodes that say how to translate them between dialects, and nothing of their meaning here.
_TRANSLATION_ARGUMENTS = frozenset({"safe", "typed", "coalesce"})
# One of these inside another has to be in parentheses: DuckDB refuses a = b = c, and nobody reads a = b like c
# the way that either parser does.
_PREDICATES = frozenset({*_COMPARISONS, "Is", "In", "Between", "Like", "ILike", "Escape", "Not", "And", "Or"})


# From text to sqlglot's tree


def _syntax_tree(text: str, source: Source) -> Any:
    import sqlglot
    from sqlglot.errors import ParseError, TokenError

    check_length(text)
    try:
        _check_tokens(sqlglot.tokenize(text, dialect="duckdb"), source)
        return sqlglot.parse_one(text, dialect="duckdb")
    except TokenError:
        source.refuse("the condition cannot be read: a quote is not closed, or a character has no meaning in SQL")
    except ParseError as error:
        place = error.errors[0] if error.errors else {}
        source.refuse("the condition cannot be parsed", _offset(text, place.get("line"), place.get("col")))


def _check_tokens(tokens: Sequence[Any], source: Source) -> None:
    depth = 0
    for token in tokens:
        # A comment, a parameter or a second statement may vanish from the tree, and is seen here only.
        if token.comments or token.token_type.name in ("SEMICOLON", "PARAMETER", "PLACEHOLDER"):
            source.refuse("a condition has no comments, parameters or semicolons", token.start)
        depth += (token.text == "(") - (token.text == ")")
        if depth > DEPTH_MAX:
            source.refuse_depth()
    if not tokens:
        source.refuse("the condition is empty")


def _offset(text: str, line: int | None, column: int | None) -> int | None:
    """The place in `text` of sqlglot's line and column, which is that of a token's last character plus one."""
    if not line or not column:
        return None
    return sum(len(row) + 1 for row in text.split("\n")[: line - 1]) + column - 1


# From sqlglot's tree to ours


class _Reader:
    """Reads sqlglot's tree of one text; whatever has no method or table row here is refused."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def condition(self, syntax: Any) -> Node:
        tree = self.read(syntax, 0)
        try:
            return rules.condition(tree)
        except Refused as refusal:
            self.source.refuse(refusal.message, hint=refusal.hint)

    def read(self, syntax: Any, depth: int) -> Node:
        if depth > DEPTH_MAX:
            self.source.refuse_depth()
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
        return self.source.column(syntax.name, _place(syntax))

    def _literal(self, syntax: Any, _: int) -> Node:
        if syntax.is_string:
            return Literal(syntax.this, "text")
        try:
            return as_number(syntax.this)
        except ValueError as error:
            self.source.refuse(str(error), _place(syntax))

    def _boolean(self, syntax: Any, _: int) -> Node:
        return Literal(bool(syntax.this), "bool")

    def _null(self, _syntax: Any, _: int) -> Node:
        return NULL

    def _cast(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "to")
        value, target = self.read(syntax.this, depth + 1), syntax.args["to"]
        if not isinstance(value, Literal) or value.family == "null":
            self.source.refuse("only a literal can be cast", _place(syntax))
        convert = _CASTS.get(target.this.name)
        if convert is None or target.expressions:
            self.source.refuse(f"a cast to {target.sql()} is not part of the filter language", _place(syntax))
        return self._made(partial(rules.converted, convert, value.value), syntax)

    # Operators

    def _paren(self, syntax: Any, depth: int) -> Node:
        return self.read(syntax.this, depth + 1)

    def _negate(self, syntax: Any, depth: int) -> Node:
        return self._made(partial(rules.negative, self.read(syntax.this, depth + 1)), syntax)

    def _logic(self, syntax: Any, depth: int) -> Node:
        parts = _flattened(syntax)
        args = [self.read(part, depth + 1) for part in parts]
        return self._made(partial(rules.logic, type(syntax).__name__.lower(), args), syntax, parts)

    def _not(self, syntax: Any, depth: int) -> Node:
        return self._made(partial(rules.negation, self.read(syntax.this, depth + 1)), syntax, [syntax.this])

    def _comparison(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expression")
        args = self._operands([syntax.this, syntax.expression], depth)
        return self._made(partial(rules.comparison, _COMPARISONS[type(syntax).__name__], args), syntax)

    def _between(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "low", "high")
        args = self._operands([syntax.this, syntax.args["low"], syntax.args["high"]], depth)
        return self._made(partial(rules.comparison, "between", args), syntax)

    def _in(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expressions")
        if not syntax.expressions:
            self.source.refuse("in needs a list of values in parentheses", _place(syntax))
        args = self._operands([syntax.this, *syntax.expressions], depth)
        return self._made(partial(rules.comparison, "in", args), syntax)

    def _is(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expression")
        (value,) = self._operands([syntax.this], depth)
        return self._made(partial(rules.identity, value, self.read(syntax.expression, depth + 1)), syntax)

    def _like(self, syntax: Any, depth: int, escape: Any = None) -> Node:
        self._only(syntax, "this", "expression", "negate")
        parts = [syntax.this, syntax.expression] + ([escape] if escape is not None else [])
        args = self._operands(parts, depth)
        call = self._made(partial(rules.likeness, type(syntax).__name__.lower(), args), syntax, parts)
        return rules.negation(call) if syntax.args.get("negate") else call

    def _escape(self, syntax: Any, depth: int) -> Node:
        if type(syntax.this).__name__ != "Like":
            self.source.refuse("escape follows a like", _place(syntax))
        return self._like(syntax.this, depth, syntax.expression)

    def _arithmetic(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expression")
        args = self._operands([syntax.this, syntax.expression], depth)
        return self._made(partial(rules.arithmetic, _ARITHMETIC[type(syntax).__name__], args), syntax)

    # Functions

    def _function(self, syntax: Any, name: str, *keys: str, depth: int) -> Node:
        self._only(syntax, *keys)
        given = [part for key in keys for part in _as_list(syntax.args.get(key))]
        return self._call(name, given, syntax, depth)

    def _named(self, syntax: Any, depth: int) -> Node:
        """A function that sqlglot does not know."""
        name = syntax.name.lower()
        if name != "round_even":
            self._refuse_unknown(syntax, name)
        return self._call(name, syntax.expressions, syntax, depth)

    def _trim(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expression", "position")
        name = _TRIMS.get((syntax.args.get("position") or "").upper(), "trim")
        return self._call(name, [syntax.this, *_as_list(syntax.args.get("expression"))], syntax, depth)

    def _extract(self, syntax: Any, depth: int) -> Node:
        self._only(syntax, "this", "expression")
        name = syntax.name.lower()
        if name not in PARTS:
            self.source.refuse(f"extract({name} from ...) is not part of the filter language", _place(syntax))
        return self._call(name, [syntax.expression], syntax, depth)

    def _call(self, name: str, given: Sequence[Any], syntax: Any, depth: int) -> Node:
        args = [self.read(part, depth + 1) for part in given]
        return self._made(partial(rules.call, name, args), syntax, given)

    def _operands(self, parts: Sequence[Any], depth: int) -> list[Node]:
        for part in parts:
            if type(part).__name__ in _PREDICATES:
                self.source.refuse("a condition inside a comparison needs parentheses", _place(part))
        return [self.read(part, depth + 1) for part in parts]

    # Refusals

    def _made(self, build: Callable[[], T], syntax: Any, parts: Sequence[Any] = ()) -> T:
        """What `build` makes by the typing rules, whose refusal points at the node, or at one of its parts."""
        try:
            return build()
        except Refused as refusal:
            at = syntax if refusal.part is None else parts[refusal.part]
            self.source.refuse(refusal.message, _place(at), refusal.hint)

    def _only(self, syntax: Any, *keys: str) -> None:
        """Refuse a node with arguments other than those that are read, such as a table's name or a subquery."""
        for key, value in syntax.args.items():
            if value and key not in keys and key not in _TRANSLATION_ARGUMENTS:
                self._refuse_unknown(syntax, type(syntax).__name__)

    def _refuse_unknown(self, syntax: Any, name: str) -> NoReturn:
        what = _function_name(syntax) or f"{name}: this"
        hint = f"it has comparisons, and, or, not, in, between, like, arithmetic and {', '.join(FUNCTIONS)}"
        self.source.refuse(f"{what} is not part of the filter language", _place(syntax), hint=hint)

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
        "Anonymous": _named,
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
