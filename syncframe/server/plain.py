"""The plain protocol at /tables/<name>: which verb a method is, in each dialect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .dialect import Dialect, dialect_of
from .exchange import Answer, Ask, check_method
from .limits import Limits
from .lists import list_rows
from .rows import RowVerbs
from .tables import Tables

_READING = ("GET", "HEAD")
# What a method asks to be allowed; a POST inserts, or brings back what was deleted.
_RIGHTS = {"GET": "read", "HEAD": "read", "POST": "insert", "PATCH": "update", "PUT": "update", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Plain:
    """The plain protocol over one server's tables."""

    tables: Tables
    limits: Limits
    read_only: bool = False

    def handler(self, ask: Ask, name: str, id_: str | None) -> Callable[[Ask], Answer]:
        """Return what answers a request; a Refusal if its method is not done there."""
        self.tables.check(name)
        dialect = dialect_of(ask)
        verbs = self._of_table(name, dialect) if id_ is None else self._of_row(name, dialect, id_)
        allowed = [method for method in verbs if method in _READING or not self.read_only]
        check_method(ask, allowed, read_only=self.read_only)
        self.tables.check_may(name, _RIGHTS[ask.method])
        return verbs[ask.method]

    def _of_table(self, name: str, dialect: Dialect) -> dict[str, Callable[[Ask], Answer]]:
        rows = RowVerbs(self.tables, name, dialect)
        verbs: dict[str, Callable[[Ask], Answer]] = {
            **dict.fromkeys(_READING, lambda ask: list_rows(self.tables, self.limits, name, ask, dialect)),
            "POST": rows.insert,
        }
        return verbs | ({"PATCH": lambda ask: rows.update(ask, None)} if dialect.is_v2 else {})

    def _of_row(self, name: str, dialect: Dialect, id_: str) -> dict[str, Callable[[Ask], Answer]]:
        rows = RowVerbs(self.tables, name, dialect)
        verbs: dict[str, Callable[[Ask], Answer]] = dict.fromkeys(_READING, lambda ask: rows.read(ask, id_))
        if dialect.is_v2:
            verbs |= {"PATCH": lambda ask: rows.update(ask, id_), "POST": lambda ask: rows.undelete(ask, id_)}
        else:
            verbs["PUT"] = lambda ask: rows.replace(ask, id_)
        return verbs | {"DELETE": lambda ask: rows.delete(ask, id_)}
