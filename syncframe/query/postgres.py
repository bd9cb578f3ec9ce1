"""Conditions for PostgreSQL, by its own operators and functions alone.

Nothing has to be there but the tables.  Where PostgreSQL means something else than the language, or raises where
the language has an answer, a formula puts the value together: of doubles all that overflows, underflows, divides by
zero or leaves a remainder; of texts upper and lower case, which here hang on the database's locale.  A formula reads
its arguments from a subquery, so that none is written or computed twice.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import ClassVar

from ..errors import QueryError
from ..schema import quote
from .patterns import pieces
from .sqlite_functions import BLANKS, INT64, case_tables, lower, upper
from .tree import ARITHMETIC, BY_NUMBER, COMPARISONS, PARTS, Call, Column, Condition, Literal, Node
from .writer import Writer, balanced

_EXACT, _FLOATS = ("int", "decimal"), ("float", "float32")
_TURNED = {
    "=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<=", "is not distinct from": "is not distinct from",
    "is distinct from": "is distinct from",
}  # fmt: skip


def to_postgres(condition: Condition, column: Callable[[str], str] = quote) -> tuple[str, list[object]]:
    """Return `condition` as PostgreSQL SQL with `?` placeholders, and their values in order.

    Where it is not true it may be false or NULL alike: its opposite is `(...) is not true`.  Every placeholder is
    cast to its type; values are Python's, or lists of them, and texts for decimals and for whole numbers of more than
    64 bits.  Comparisons of a column with literals may use an index: the order of texts one whose collation is "C",
    and prefixes such a one or one of the class text_pattern_ops.

    Parameters
    ----------
    condition
        What `parse` returned for this table.
    column
        Gives the SQL expression of a column by name: text where the column's family is text, as of a uuid or an
        enum, which PostgreSQL compares with no text.

    Raises
    ------
    QueryError
        If PostgreSQL cannot be asked for this with the same meaning.
    """
    writer = _Postgres(column)
    return writer.selection(condition.tree), writer.parameters


class _Postgres(Writer):
    """Writes for PostgreSQL 14 and later.

    Whole numbers and decimals are computed as numeric, which has more digits than any other engine.  NaN is NULL
    from the column on.
    """

    types: ClassVar[dict[str, str]] = {
        "bool": "boolean", "int": "bigint", "decimal": "numeric", "float32": "real", "float": "double precision",
        "text": "text", "bytes": "bytea", "date": "date", "time": "time", "timestamp": "timestamp",
        "instant": "timestamptz", "null": "text",
    }  # fmt: skip

    # Conditions that an index may serve

    def selection(self, node: Node) -> str:
        """A condition that selects rows; where it is not true it may be false or NULL."""
        match node:
            case Call(("and" | "or") as op, args):
                return balanced(f" {op} ", [self.selection(arg) for arg in args])
            case Call(op, (Literal() as value, Column() as column)) if op in _TURNED:
                return self.selection(Call(_TURNED[op], (column, value), "bool"))
            case Call("is not distinct from", args) if _are_plain(args[1:]):
                return self.selection(Call("=", args, "bool"))
            case Call(("=" | "in") as op, (Column(family="text") as column, *values)) if _are_plain(values):
                return self._text_equality(op, column, values)
            case Call(op, (Column(family="float" | "float32") as column, *values)) if _are_plain(values):
                return self._float_comparison(op, column, values)
        return self.write(node)

    def _text_equality(self, op: str, column: Column, values: Sequence[Node]) -> str:
        # The first term is for the index, whose collation is the column's, and the second for the truth: a collation
        # may hold 'a' and 'A' to be equal.  Within coalesce it is not counted as a filter that leaves as few again.
        name = self.column(column.name)
        for_index, exact = self._compared(op, name, values), self._compared(op, f'{name} collate "C"', values)
        return f"({for_index} and coalesce({exact}, true))"

    def _float_comparison(self, op: str, column: Column, values: Sequence[Node]) -> str:
        if op.startswith("is "):
            return self.write(Call(op, (column, *values), "bool"))
        # NaN is larger than all other numbers.
        name = self.column(column.name)
        above = f" and {name} < 'NaN'" if op in (">", ">=", "<>") else ""
        return f"({self._compared(op, name, values)}{above})"

    def _compared(self, op: str, sql: str, values: Sequence[Node]) -> str:
        if op == "in":
            return f"{sql} = any({self.array(values)})"
        return f"{sql} {op} {' and '.join(self.write(value) for value in values)}"

    # Comparisons

    def write(self, node: Node) -> str:
        match node:
            case Call("is null", (Column(family="float" | "float32") as column,)):
                name = self.column(column.name)
                return f"({name} is null or {name} = 'NaN')"
            case Call("in", (value, *values)) if all(isinstance(one, Literal) for one in values):
                return self._membership(value, values)
            case Call(op, args) if op in (*COMPARISONS, "between") and any(map(_has_nul, args)):
                return self._beside_nul(op, args)
        return super().write(node)

    def comparable(self, args: Sequence[Node]) -> list[str]:
        first, *others = [self.operand(arg) for arg in args]
        # By bytes: nothing else is compared alike everywhere.  A column says so itself.
        by_bytes = args[0].family == "text" and not isinstance(args[0], Column)
        return [f'({first} collate "C")' if by_bytes else first, *others]

    def _membership(self, value: Node, values: Sequence[Node]) -> str:
        values = [one for one in values if not _has_nul(one)]
        if not values:
            return self._beside_nul("=", (value, _NUL))
        if all(one.value is None for one in values if isinstance(one, Literal)):
            return "cast(null as boolean)"
        return f"({self._compared('in', self.comparable([value])[0], values)})"

    def array(self, values: Sequence[Node]) -> str:
        """Literals as one parameter, which PostgreSQL looks up in a hash table."""
        family = values[0].family
        given = [one.value for one in values if isinstance(one, Literal)]
        if family == "decimal" or (family == "int" and not all(value is None or value in INT64 for value in given)):
            texts = [None if value is None else _digits(value) for value in given]
            return f"cast(cast({self.bind(texts)} as text[]) as numeric[])"
        return f"cast({self.bind(given)} as {self.types[family]}[])"

    def _beside_nul(self, op: str, args: Sequence[Node]) -> str:
        """A comparison with a text that has U+0000, which none of PostgreSQL's has: what stands before it decides."""
        if op == "between":
            value, low, high = args
            return (
                f"({self.write(Call('>=', (value, low), 'bool'))} and {self.write(Call('<=', (value, high), 'bool'))})"
            )
        if _has_nul(args[0]):
            args, op = (args[1], args[0]), _TURNED[op]
        value, other = args
        if _has_nul(value) or not isinstance(other, Literal):
            raise _no_nul()
        match op:
            case "is distinct from" | "is not distinct from":
                return "true" if op == "is distinct from" else "false"
            case "=" | "<>":  # false or true, and NULL where the value is
                return f"({self.comparable([value])[0]} {'<' if op == '=' else '>='} '')"
        before = Literal(other.value.partition("\0")[0], "text")
        return self.write(Call("<=" if op in ("<", "<=") else ">", (value, before), "bool"))

    # Values

    def name(self, node: Column) -> str:
        text = self.column(node.name)
        if node.family == "text":
            return f'({text} collate "C")'
        return f"nullif({text}, 'NaN')" if node.family in _FLOATS else text

    def literal(self, node: Literal) -> str:
        if isinstance(node.value, bool):
            return str(node.value).lower()
        if node.value is None:
            return f"cast(null as {self.types[node.family]})"
        if _has_nul(node):
            raise _no_nul()
        if node.family == "decimal" or (node.family == "int" and node.value not in INT64):
            return f"cast({self.bind(_digits(node.value))} as numeric)"
        return f"cast({self.bind(node.value)} as {self.types[node.family]})"

    def call(self, node: Call) -> str:
        if node.op in ARITHMETIC:
            return self._arithmetic(node)
        if node.op.startswith("to "):
            return f"cast({self.write(node.args[0])} as {self.types[node.family]})"
        if node.op in ("like", "ilike"):
            return self._like(node)
        if node.op in ("lower", "upper"):
            return self._in_case(node.op, node.args[0])
        if node.op in PARTS:
            return self._part(node)
        if node.op in BY_NUMBER:
            return self._rounded(node)
        if node.op == "substr":
            return self._substr(node)
        args = [self.write(arg) for arg in node.args]
        if node.op in ("trim", "ltrim", "rtrim") and len(args) == 1:
            args.append(self.write(Literal(BLANKS, "text")))
        if node.op in _FORMULAS:
            return let(_FORMULAS[node.op], *args)
        if node.op == "contains":
            return f"(strpos({args[0]}, {args[1]}) > 0)"
        return f"{_NAMES.get(node.op, node.op)}({', '.join(args)})"

    # Numbers

    def _arithmetic(self, node: Call) -> str:
        computed = "numeric" if node.family in _EXACT else "double precision"
        args = [f"cast({self.write(arg)} as {computed})" for arg in node.args]
        if node.op == "negate":
            return self._as_family(node, f"(- {args[0]})")
        if node.family in _EXACT:
            return f"div({args[0]}, {args[1]})" if node.op == "//" else f"({args[0]} {node.op} {args[1]})"
        if node.family == "float32" and node.op in _NARROW:
            # Of two single-precision numbers a double holds what comes next to the exact result, and never overflows.
            return let(_SINGLE, let(_NARROW[node.op], *args))
        return self._as_family(node, let(_DOUBLE[node.op], *args))

    def _rounded(self, node: Call) -> str:
        is_exact = node.family in _EXACT
        value = f"cast({self.write(node.args[0])} as {'numeric' if is_exact else 'double precision'})"
        if node.op == "round":
            digits = node.args[1].value if len(node.args) == 2 and isinstance(node.args[1], Literal) else 0
            if is_exact:
                return f"round({value}, {digits})"
            return self._as_family(node, self._rounded_float(value, digits))
        if node.op == "round_even":
            # PostgreSQL's own round does so with doubles.
            return let(_HALF_EVEN, value) if is_exact else self._as_family(node, f"round({value})")
        return self._as_family(node, f"{node.op}({value})")

    def _rounded_float(self, value: str, digits: int) -> str:
        if digits > 0:
            # DuckDB makes 2.67 of 2.675 and other digits of its neighbours than scaling or exact rounding would.
            raise QueryError(
                "PostgreSQL cannot be asked to round a float to digits as DuckDB does",
                hint="compare with a range: x between 2.665 and 2.675",
            )
        if digits == 0:
            return let(_HALF_AWAY, value)
        power = double(math.pow(10, -digits))
        # What is far below it would underflow.
        scaled = let(f"case when abs({{0}}) < {power} / 4 then 0 else {{0}} / {power} end", value)
        return f"({let(_HALF_AWAY, scaled)} * {power})"

    def _as_family(self, node: Call, sql: str) -> str:
        """A double that a single-precision number was made of, as one again."""
        return f"cast({sql} as real)" if node.family == "float32" else sql

    # Texts

    def _like(self, node: Call) -> str:
        value, pattern, *escape = node.args
        folded = node.op == "ilike"
        text = self._in_case("lower", value) if folded else self.comparable([value])[0]
        if not (isinstance(pattern, Literal) and isinstance(pattern.value, str)):
            pattern_sql = self._in_case("lower", pattern) if folded else self.write(pattern)
            return f"({text} like {pattern_sql} escape '')"
        wanted = lower(pattern.value) if folded else pattern.value
        wanted = _escaped(wanted, str(escape[0].value) if escape and isinstance(escape[0], Literal) else "")
        if "\0" in wanted:
            return f"({text} < '')"  # false, and NULL where the text is
        return f"({text} like {self.write(Literal(wanted, 'text'))})"

    def _in_case(self, op: str, value: Node) -> str:
        if isinstance(value, Literal) and isinstance(value.value, str):
            return self.write(Literal((lower if op == "lower" else upper)(value.value), "text"))
        # Of ASCII by PostgreSQL's own function; of other letters, where there are any, by the table of their alphabet.
        mapped = "{0}"
        for alphabet in _alphabets(op):
            mapped = let(_IN_CASE, mapped, *(self.write(Literal(part, "text")) for part in alphabet))
        ascii = f'{op}({self.write(value)} collate "C")'
        return let(f"case when octet_length({{0}}) = length({{0}}) then {{0}} else {mapped} end", ascii)

    def _substr(self, node: Call) -> str:
        text, *places = [self.write(arg) for arg in node.args]
        if all(isinstance(arg, Literal) and arg.value in _PLACES for arg in node.args[1:]):
            return f"substr({', '.join([text, *(f'cast({place} as integer)' for place in places)])})"
        # All whole numbers of 64 bits, as DuckDB has them, and sums of them.
        exact = [f"cast(cast({place} as bigint) as numeric)" for place in places]
        return let(_SUBSTR if len(places) == 2 else _SUBSTR_TO_THE_END, text, *exact)

    # Times

    def _part(self, node: Call) -> str:
        (arg,) = node.args
        text = self.write(arg)
        if arg.family == "instant":
            text = f"({text} at time zone 'UTC')"
        if node.op == "year":
            return _YEAR.format(text) if isinstance(arg, Column) else let(_YEAR, text)
        return f"trunc(extract(second from {text}))" if node.op == "second" else f"extract({node.op} from {text})"


def _are_plain(values: Sequence[Node]) -> bool:
    return all(isinstance(one, Literal) and one.value is not None and not _has_nul(one) for one in values)


def _has_nul(node: Node) -> bool:
    return isinstance(node, Literal) and isinstance(node.value, str) and "\0" in node.value


def _no_nul() -> QueryError:
    return QueryError(
        "PostgreSQL cannot be asked about the character U+0000 but by comparisons and patterns",
        hint="leave it out: no text of PostgreSQL has it",
    )


def _digits(value: int | Decimal) -> str:
    """An exact number as text; a format would take a whole number for a float."""
    return str(value) if isinstance(value, int) else format(value, "f")


def _escaped(pattern: str, escape: str) -> str:
    """A pattern with PostgreSQL's own escape character, the backslash."""
    kept = {"\\": "\\\\", "%": "\\%", "_": "\\_", None: "_"}
    return "%".join("".join(kept.get(one, one or "") for one in piece) for piece in pieces(pattern, escape) or ())


@functools.cache
def _alphabets(op: str) -> list[tuple[str, str, str]]:
    """DuckDB's table of letters that `op` changes, in parts: a pattern that finds one, the letters, their images."""
    table = {code: image for code, image in case_tables()[op].items() if code > 127 and image != chr(code)}
    parts = [[code for code in table if code in codes] for codes in _ALPHABETS]
    return [
        (f"[{''.join(map(chr, part))}]", "".join(map(chr, part)), "".join(table[code] for code in part))
        for part in parts
    ]


# Latin, Greek, Cyrillic, and all others: a table is read from its start for each character.
_ALPHABETS = (range(0x80, 0x250), range(0x250, 0x400), range(0x400, 0x530), range(0x530, 0x110000))

_NUL = Literal("\0", "text")
_NAMES = {"trim": "btrim"}


# Formulas, of their arguments {0}, {1}, ...; nothing in them is a NaN, which is NULL


def let(formula: str, *args: str) -> str:
    """SQL of `formula` with each of `args` computed once, for no planner moves them over an offset."""
    names = [f"a{index}" for index in range(len(args))]
    given = ", ".join(f"{arg} as {name}" for arg, name in zip(args, names, strict=True))
    return f"(select {formula.format(*(f'_v.{name}' for name in names))} from (select {given} offset 0) as _v)"


def double(value: float) -> str:
    return f"cast('{value!r}' as double precision)"


_INF = double(math.inf)


def _sum(op: str) -> str:
    """Where the whole might be too large halves are added; what is below 1 is lost beside such numbers anyhow."""
    halves = [f"case when abs({part}) < 1 then 0 else {part} / 2 end" for part in ("{0}", "{1}")]
    doubled = f"case when abs({{0}}) >= {double(2.0**1023)} then sign({{0}}) * {_INF} else {{0}} * 2 end"
    most = double(8e307)
    return f"""
        case
            when abs({{0}}) <= {most} and abs({{1}}) <= {most} then {{0}} {op} {{1}}
            else nullif({let(doubled, f"{halves[0]} {op} {halves[1]}")}, 'NaN')
        end
    """


def _scaled(op: str) -> str:
    """A product or quotient; that of factors near 1 tells where theirs overflows or underflows, and so would raise."""
    least, most, two = double(1e-150), double(1e150), double(2.0)
    near = [
        f"{part} * case when abs({part}) > {most} then {double(2.0**-600)}"
        f" when abs({part}) < {least} then {double(2.0**600)} else 1 end"
        for part in ("{0}", "{1}")
    ]
    powers = [
        f"case when abs({part}) > {most} then 600 when abs({part}) < {least} then -600 else 0 end"
        for part in ("{0}", "{1}")
    ]
    careful = f"""
        case
            when {{1}} > 0 and abs({{0}}) >= power({two}, 1024 - {{1}}) then sign({{0}}) * {_INF}
            when {{1}} < 0 and abs({{0}}) <= power({two}, -1075 - {{1}}) then 0
            else {{2}} {op} {{3}}
        end
    """
    power = f"{powers[0]} {'+' if op == '*' else '-'} {powers[1]}"
    return f"""
        case
            when {{0}} in (0, {_INF}, -{_INF}) or {{1}} in (0, {_INF}, -{_INF}) then nullif({{0}} {op} {{1}}, 'NaN')
            when abs({{0}}) between {least} and {most} and abs({{1}}) between {least} and {most} then {{0}} {op} {{1}}
            else {let(careful, f"({near[0]}) {op} ({near[1]})", power, "{0}", "{1}")}
        end
    """


def _quotient(formula: str) -> str:
    """By zero, which has no sign, a number is infinite, and zero is NaN."""
    return f"case when {{1}} = 0 then nullif(sign({{0}}) * {_INF}, 'NaN') else {formula} end"


def _remainder() -> str:
    """The exact one: whole numbers of as many digits as it takes, times a power of two."""
    bits = ["cast(cast('x' || encode(float8send(abs({" + part + "})), 'hex') as bit(64)) as bigint)" for part in "01"]
    mantissa = "({0} & 4503599627370495) + case when {0} >> 52 > 0 then 4503599627370496 else 0 end"
    scaled = """
        case
            when {1} >= 0 then {0} * power(cast(2 as numeric), {1})
            else {0} * power(cast(5 as numeric), - {1}) * cast('1e' || cast({1} as text) as numeric)
        end
    """
    exact = let(scaled, mantissa, "greatest({0} >> 52, 1) - 1075")
    whole = [let(exact, one) for one in bits]
    return f"""
        case
            when abs({{0}}) = {_INF} or {{1}} = 0 then null
            when abs({{0}}) < abs({{1}}) then {{0}}
            else sign({{0}}) * cast(mod({whole[0]}, {whole[1]}) as double precision)
        end
    """


_DOUBLE = {
    "+": _sum("+"),
    "-": _sum("-"),
    "*": _scaled("*"),
    "/": _quotient(_scaled("/")),
    "%": _remainder(),
}
_NARROW = {op: f"nullif({{0}} {op} {{1}}, 'NaN')" for op in "+-*"} | {"/": _quotient("nullif({0} / {1}, 'NaN')")}
_SINGLE = f"""
    cast(
        case
            when abs({{0}}) >= {double(2.0**128 - 2.0**103)} then sign({{0}}) * {_INF}
            when abs({{0}}) <= {double(2.0**-150)} then 0
            else {{0}}
        end as real
    )
"""
# A number less its whole part is exact, and 0.49999999999999994 + 0.5 is not.
_HALF_AWAY = "case when abs({0} - trunc({0})) >= 0.5 then trunc({0}) + sign({0}) else trunc({0}) end"
_HALF_EVEN = "case when abs({0} - trunc({0})) = 0.5 then 2 * round({0} * 0.5) else round({0}) end"
# A year before 1 is one less in PostgreSQL, which has no year 0.
_YEAR = """
    case when isfinite({0}) then extract(year from {0}) + case when {0} < '0001-01-01' then 1 else 0 end end
"""
_IN_CASE = "case when {0} ~ {1} then translate({0}, {2}, {3}) else {0} end"
_FORMULAS = {"ends_with": "(right({0}, length({1})) = {1})"}
_PLACES = range(1, 2**30)
# Counted from one, from the end if negative; a negative length takes what stands before.
_FIRST = "case when {1} >= 0 then {1} - 1 else length({0}) + {1} end"
_CUT = """
    case when {1} + {2} is not null then substr(
        {0},
        cast(least(greatest(least({1}, {1} + {2}), 0), length({0})) as integer) + 1,
        cast(
            least(greatest({1}, {1} + {2}, 0), length({0})) - least(greatest(least({1}, {1} + {2}), 0), length({0}))
            as integer
        )
    ) end
"""
_SUBSTR = let(_CUT, "{0}", _FIRST, "{2}")
_SUBSTR_TO_THE_END = let(_CUT, "{0}", _FIRST, f"length({{0}}) - {_FIRST}")
