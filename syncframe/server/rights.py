"""Who may do what: for each table the verbs that an identity may use, and on which rows.

Rules add up: whoever several of them name may do what each of them says, on its rows.  Where rights are given,
what no rule allows is not allowed.

    [[flights]]
    who = "*"
    may = ["read"]

    [[flights]]
    who = {role = "editor"}
    may = ["insert", "update"]
    where = "carrier in (:carriers)"

A `where` is a condition of the filter language over the table's columns, in which `:name` stands for a claim of the
token: the claim becomes one literal, whatever is in it.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import QueryError, SyncError
from ..query import Call, Condition, Literal, parse
from ..query.canonical import canonical
from ..schema import Schema, shown
from .access import Identity
from .exchange import Refusal
from .tokens import settings_in

log = logging.getLogger("syncframe.server")

VERBS = ("read", "insert", "update", "delete")
EVERYBODY = EVERY_TABLE = "*"
KEY = "key:"
_MEMBERS = ("who", "may", "where", "name_leavers")
CLAIMS_MAX = 3  # in one filter
# What a claim may turn out to be, to find out at the start whether a filter could have a meaning.
_SAMPLES = ("x", 1, True, 1.5, "2024-02-29", "2024-02-29T10:30:00", "10:30:00", "0b7c5a3e-3b5f-4d8a-9c1e-2f6d7a8b9c0d")


@dataclass(frozen=True, slots=True)
class Right:
    """What one identity may do with one table.

    Parameters
    ----------
    where
        On which rows; None: on all.
    name_leavers
        Whether the keys of rows that change outside `where` may be told, so that a pull goes on from its
        checkpoint; else it starts anew when such rows may have been among those that were read before.
    """

    read: bool = False
    insert: bool = False
    update: bool = False
    delete: bool = False
    where: str | None = None
    name_leavers: bool = False


Rule = Callable[[Identity, str], "Right | Iterable[Right] | None"]


@dataclass(frozen=True, slots=True)
class Granted:
    """What an identity may do with a table as it is now: by verb the rows, None for all of them.

    Parameters
    ----------
    filters
        A verb that is missing may not be used.
    """

    filters: Mapping[str, Condition | None]
    names_leavers: bool = False

    def may(self, verb: str) -> bool:
        return verb in self.filters

    @property
    def is_whole(self) -> bool:
        """Whether nothing is kept from it."""
        return all(verb in self.filters and self.filters[verb] is None for verb in VERBS)


class Rights:
    """The rights on one server, from rules or from a callable."""

    def __init__(self, ask: Rule | None = None, rules: Mapping[str, Sequence[tuple[Any, Right]]] | None = None) -> None:
        self._ask = ask or self._ruled
        self._rules = rules or {}
        self.is_callable = ask is not None
        named = (who for listed in self._rules.values() for who, _ in listed if isinstance(who, str))
        self._keys = frozenset(who for who in named if who.startswith(KEY))

    @classmethod
    def of(cls, given: Any) -> Rights | None:
        """Take rights from a mapping table -> rules, a TOML or JSON file of one, or a callable.

        Raises
        ------
        SyncError
            If a rule cannot be understood.
        """
        if given is None:
            return None
        if callable(given):
            return cls(given)
        if isinstance(given, str | Path):
            given = settings_in(Path(given).expanduser(), "rights")
        if not isinstance(given, Mapping):
            words = f"rights= is a {type(given).__name__}"
            raise SyncError(words, hint="a mapping table -> rules, a file of one, or a callable")
        rules = {table: [_rule(table, rule) for rule in _listed(table, listed)] for table, listed in given.items()}
        return cls(rules=rules)

    def _ruled(self, identity: Identity, table: str) -> list[Right]:
        listed = (*self._rules.get(table, ()), *self._rules.get(EVERY_TABLE, ()))
        return [right for who, right in listed if _is_meant(who, identity)]

    def check(self, schemas: Mapping[str, Schema], *, can_filter: bool, keys: Iterable[str]) -> None:
        """Find out whether the rules fit the tables that are served, and the names of the keys.

        Raises
        ------
        SyncError
            If one names a table or a key that is not there, or its filter has no meaning.
        """
        if unknown := sorted({*self._rules} - {*schemas, EVERY_TABLE}):
            raise SyncError(
                f"rights= names table {unknown[0]!r}, which is not served", hint=f"there are {shown(list(schemas))}"
            )
        if unknown := sorted(self._keys - {f"{KEY}{name}" for name in keys}):
            raise SyncError(
                f"rights= names {unknown[0]!r}, and tokens= has no key of that name",
                hint="a key's name stands before it in its line, with a blank between them",
            )
        for table, rules in self._rules.items():
            for name in schemas if table == EVERY_TABLE else [table]:
                for _, right in rules:
                    if right.where is None:
                        continue
                    if not can_filter:
                        raise SyncError(
                            f"rights= has a filter for table {name!r}, and the back end has no rows by key",
                            hint="`Backend` says what `rows` does; without it only whole tables are granted",
                        )
                    _check_filter(right.where, name, schemas[name])

    def verbs(self, identity: Identity, table: str) -> frozenset[str]:
        """What it may do with some rows at least."""
        return frozenset(verb for right in self._rights(identity, table) for verb in VERBS if getattr(right, verb))

    def granted(self, identity: Identity, table: str, schema: Schema) -> Granted:
        """What it may do, with the filters over the columns that are there now.

        Raises
        ------
        Refusal
            403 if a claim that a filter asks for is missing or of a type that does not fit.
        """
        filters: dict[str, list[Condition | None]] = {}
        leavers = []
        for right in self._rights(identity, table):
            where = None if right.where is None else _bound(right.where, identity, table, schema)
            for verb in (verb for verb in VERBS if getattr(right, verb)):
                filters.setdefault(verb, []).append(where)
            if right.read and where is not None:
                leavers.append(right.name_leavers)
        return Granted({verb: _any_of(wheres) for verb, wheres in filters.items()}, bool(leavers) and all(leavers))

    def _rights(self, identity: Identity, table: str) -> list[Right]:
        found = self._ask(identity, table)
        rights = [] if found is None else [found] if isinstance(found, Right) else list(found)
        if not all(isinstance(right, Right) for right in rights):
            words = f"rights= answered for table {table!r} what is no Right"
            raise SyncError(words, hint="a Right, several of them, or None")
        return rights


def both(first: Condition | None, second: Condition | None) -> Condition | None:
    """The rows that meet both."""
    if first is None or second is None:
        return second if first is None else first
    tree = Call("and", (first.tree, second.tree), "bool")
    return Condition(f"({first.text}) and ({second.text})", tree, first.columns | second.columns)


def _any_of(conditions: Sequence[Condition | None]) -> Condition | None:
    distinct = {condition.text: condition for condition in conditions if condition is not None}
    if any(condition is None for condition in conditions):
        return None
    first, *others = distinct.values()
    if not others:
        return first
    tree = Call("or", tuple(condition.tree for condition in (first, *others)), "bool")
    columns = frozenset[str]().union(*(condition.columns for condition in distinct.values()))
    return Condition(" or ".join(f"({text})" for text in distinct), tree, columns)


# Rules


def _listed(table: Any, rules: Any) -> list[Any]:
    if not isinstance(table, str):
        raise SyncError(f"rights= has {table!r}, which names no table", hint="table -> rules")
    if isinstance(rules, Mapping):
        return [rules]
    if not isinstance(rules, list | tuple):
        raise SyncError(f"rights= of table {table!r} is a {type(rules).__name__}", hint="a list of rules")
    return list(rules)


def _rule(table: str, rule: Any) -> tuple[Any, Right]:
    where = f"a rule of table {table!r} in rights="
    if not isinstance(rule, Mapping) or "who" not in rule or "may" not in rule:
        raise SyncError(f"{where} does not say who may what", hint='{"who": "*", "may": ["read"]}')
    if unknown := [name for name in rule if name not in _MEMBERS]:
        raise SyncError(f"{where} has {unknown[0]!r}", hint=f"it may have {', '.join(_MEMBERS)}")
    who, may, condition = rule["who"], rule["may"], rule.get("where")
    may = [may] if isinstance(may, str) else may
    if not isinstance(may, list | tuple) or not set(map(str, may)) <= {*VERBS}:
        raise SyncError(f"{where} has may {may!r}", hint=f"some of {', '.join(VERBS)}")
    if condition is not None and not isinstance(condition, str):
        raise SyncError(f"{where} has a where that is no text", hint='a condition: "owner = :sub"')
    is_claims = isinstance(who, Mapping) and who and all(isinstance(name, str) for name in who)
    if not is_claims and not (isinstance(who, str) and who):
        raise SyncError(f"{where} has who {who!r}", hint='"*", a subject, "key:NAME" or {claim: value}')
    is_open = rule.get("name_leavers", False)
    if not isinstance(is_open, bool):
        raise SyncError(f"{where} has name_leavers {is_open!r}", hint="true or false")
    granted: dict[str, bool] = dict.fromkeys(map(str, may), True)
    right = Right(**granted, where=condition, name_leavers=is_open)
    return (dict(who) if isinstance(who, Mapping) else who), right


def _is_meant(who: Any, identity: Identity) -> bool:
    if isinstance(who, str):
        # A token whose subject is spelt like the name of a key is not that key.
        return who == EVERYBODY or (who == identity.subject and who.startswith(KEY) == identity.is_key)
    return all(_has(identity.claims, name, value) for name, value in who.items())


def _has(claims: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether a claim is this value, or a list with it; `role` may stand in `roles`."""
    held = [claims[known] for known in ((name, "roles") if name == "role" else (name,)) if known in claims]
    flat = itertools.chain.from_iterable(one if isinstance(one, list) else [one] for one in held)
    return any(type(one) is type(value) and one == value for one in flat)


# Filters


@dataclass(frozen=True, slots=True)
class Place:
    """Where a claim stands in a filter's text; `is_list`: alone in the parentheses of an `in`."""

    claim: str
    start: int
    end: int
    is_list: bool


@lru_cache(maxsize=1_000)
def _places(text: str) -> tuple[Place, ...]:
    import sqlglot
    from sqlglot.errors import TokenError

    try:
        tokens = sqlglot.tokenize(text, dialect="duckdb")
    except TokenError:
        return ()  # the parser has words for it
    places = []
    for at, (colon, name) in enumerate(itertools.pairwise(tokens)):
        if colon.token_type.name != "COLON" or name.start != colon.end + 1 or name.token_type.name == "STRING":
            continue
        before = [token.token_type.name for token in tokens[max(at - 2, 0) : at]]
        after = tokens[at + 2].token_type.name if at + 2 < len(tokens) else ""
        is_list = before == ["IN", "L_PAREN"] and after == "R_PAREN"
        places.append(Place(name.text, colon.start, name.end + 1, is_list))
    return tuple(places)


class _Unfit(Exception):
    """A claim that cannot stand in a filter; without its value."""


def _bound(text: str, identity: Identity, table: str, schema: Schema) -> Condition:
    values = []
    try:
        for name in {place.claim: None for place in _places(text)}:
            value = identity.subject if name == "sub" else identity.claims.get(name)
            if value is None:
                raise _Unfit(f"says nothing of {name!r}")
            # 1, 1.0 and True are one key of a dictionary.
            listed = [_plain(name, one) for one in (value if isinstance(value, list) else [value])]
            values.append((name, isinstance(value, list), tuple((type(one).__name__, one) for one in listed)))
        return _parsed(text, tuple(values), schema)
    except _Unfit as unfit:
        words = f"the token {unfit}, which the rights on table {table!r} ask for"
    except QueryError as error:
        # The words show the filter with its literals.
        log.warning("a filter of table %r could not be made: %s", table, error.message.partition("\n")[0])
        words = f"the token's claims do not fit what the rights on table {table!r} ask for"
    raise Refusal(403, words, hint="ask whoever runs the server", kind="AccessError")


@lru_cache(maxsize=1_000)
def _parsed(text: str, values: tuple[tuple[str, bool, tuple[tuple[str, Any], ...]], ...], schema: Schema) -> Condition:
    known = {name: (is_list, [value for _, value in listed]) for name, is_list, listed in values}
    written, at = [], 0
    for place in _places(text):
        is_list, listed = known[place.claim]
        if is_list and not place.is_list:
            raise _Unfit(f"has a list as {place.claim!r}")
        written += [text[at : place.start], ", ".join(map(_literal, listed)) or "null"]
        at = place.end
    made = "".join([*written, text[at:]])
    _check_literals(made, text, known)
    return parse(made, schema)


def _plain(name: str, value: Any) -> Any:
    """A claim that can be a literal, alone or in a list."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Unfit(f"has no text as {name!r}") from None
        return value
    if isinstance(value, bool) or (isinstance(value, int) and -(2**63) <= value < 2**64):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise _Unfit(f"has a {type(value).__name__} as {name!r}, or a number out of range")


_FAMILIES = {bool: "bool", int: "int", float: "float", str: "text"}


def _literal(value: Any) -> str:
    text = canonical(Literal(value, _FAMILIES[type(value)]))
    # Two dashes would begin a comment.
    return f"({text})" if text.startswith("-") else text


def _check_literals(made: str, text: str, known: Mapping[str, tuple[bool, list[Any]]]) -> None:
    """Each text has become one token: what stands in a claim is no part of the condition."""
    import sqlglot
    from sqlglot.errors import TokenError

    wanted = [value for place in _places(text) for value in known[place.claim][1] if isinstance(value, str)]
    if not wanted:
        return
    try:
        given = [t.text for t in sqlglot.tokenize(text, dialect="duckdb") if t.token_type.name == "STRING"]
        found = [t.text for t in sqlglot.tokenize(made, dialect="duckdb") if t.token_type.name == "STRING"]
    except TokenError:
        raise _Unfit("has a text that cannot be written") from None
    if sorted(found) != sorted([*given, *wanted]):
        raise _Unfit("has a text that cannot be written")


def _check_filter(text: str, table: str, schema: Schema) -> None:
    names = sorted({place.claim for place in _places(text)})
    if len(names) > CLAIMS_MAX:
        words = f"the filter of table {table!r} in rights= asks for {len(names)} claims"
        raise SyncError(words, hint=f"{CLAIMS_MAX} at most")
    first: QueryError | None = None
    choices = [("x",) if name == "sub" else _SAMPLES for name in names]
    for samples in itertools.product(*choices):
        values = tuple((name, False, ((type(one).__name__, one),)) for name, one in zip(names, samples, strict=True))
        try:
            condition = _parsed(text, values, schema)
        except QueryError as error:
            first = first or error
            continue
        if system := sorted(condition.columns - {*schema.names}):
            raise SyncError(
                f"the filter of table {table!r} in rights= asks for {system[0]!r}, which is no column of its own",
                hint=f"the columns are {shown(schema.names)}",
            )
        return
    raise SyncError(
        f"the filter of table {table!r} in rights= has no meaning: {'' if first is None else first.message}",
        hint=None if first is None else first.hint,
    )
