"""Which tables of a back end are served, and why others are not."""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..backends.base import Backend
from ..errors import BackendError, SchemaError, SyncError
from ..schema import SYSTEM_COLUMNS, Schema, shown
from ..wire import ID, Wire
from .access import Identity
from .exchange import Refusal
from .gather import Gathering
from .guard import Guard, may_not
from .rights import Rights

log = logging.getLogger("syncframe.server")
_RESERVED = {name.lower() for name in SYSTEM_COLUMNS}
TURNS = 1_024


def _turns() -> tuple[threading.Lock, ...]:
    return tuple(threading.Lock() for _ in range(TURNS))


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one server.

    Parameters
    ----------
    left_out
        By table, why it is not served though none was named.
    rights
        Who may do what; None: all may do all.
    """

    backend: Any  # single writes and look-ups that come at one time are gathered
    names: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    rights: Rights | None = field(default=None, repr=False)
    _verbs: Mapping[str, frozenset[str]] | None = field(default=None, repr=False)
    _turns: tuple[threading.Lock, ...] = field(default_factory=_turns, repr=False)

    def seen_by(self, identity: Identity | None) -> Tables:
        """The tables as an identity sees them: those where it may do anything, and a back end that keeps the rest."""
        rights = self.rights
        if rights is None or identity is None:
            return self
        verbs = {name: rights.verbs(identity, name) for name in self.names}
        guard = Guard(self.backend, lambda name, schema: rights.granted(identity, name, schema))
        return replace(self, backend=guard, names=tuple(name for name in self.names if verbs[name]), _verbs=verbs)

    def check_may(self, name: str, verb: str) -> None:
        """Refuse a verb that the identity may use on no row of a table."""
        if not self.may(name, verb):
            raise may_not(verb, name)

    def check_granted(self, name: str) -> None:
        """Refuse a table on which the identity's rights cannot be worked out."""
        if isinstance(self.backend, Guard):
            self.backend.granted(name)

    def may(self, name: str, verb: str) -> bool:
        return self._verbs is None or verb in self._verbs.get(name, ())

    def turn(self, name: str, key: object) -> threading.Lock:
        """What is held while a row is looked at and changed; some rows share one.

        Without it, of many who change one row at a time most would find it changed by another, over and over.
        """
        return self._turns[hash((name, key)) % TURNS]

    def wire(self, name: str) -> Wire:
        """The table as it is now, for columns come and go; a Refusal if it is not served."""
        self.check(name)
        try:
            schema, reason = _looked_at(self.backend, name)
        except BackendError as error:
            if error.status != 404:
                raise
            schema, reason = None, "it is gone"
        if schema is None or reason is not None:
            raise Refusal(404, f"table {name!r} is not served any more: {reason}")
        return Wire(schema)

    def check(self, name: str) -> None:
        """Refuse a table that is not served."""
        if name not in self.names:
            raise Refusal(
                404,
                f"there is no table {name[:200]!r} here",
                hint=f"there are {shown(self.names) or 'none'}; names are compared with case",
            )

    def must_have(self, verb: str, what: str) -> None:
        """Refuse what this back end has no verb for."""
        if not hasattr(self.backend, verb):
            raise Refusal(501, f"the back end behind this server has no {verb!r}, so that {what} cannot be had")


def chosen(backend: Backend, tables: Iterable[str] | None, *, track: bool) -> Tables:
    """Return the tables to serve, tracking added to those that lack it if `track`.

    Raises
    ------
    SyncError
        If a table that was named cannot be served, or any is untracked and `track` is False.
    """
    if tables is None:
        names, left_out = _all(backend)
    else:
        names, left_out = _named(backend, [tables] if isinstance(tables, str) else list(tables)), {}
    untracked = [name for name in names if not _is_tracked(backend, name)]
    if untracked and track:
        backend.track(untracked)  # type: ignore[attr-defined]
    elif untracked:
        raise SyncError(
            f"{'table' if len(untracked) == 1 else 'tables'} {shown(untracked)} not tracked: a client could neither "
            "see what was deleted nor what changed",
            hint=f"`syncframe track URL {' '.join(map(shlex.quote, untracked[:5]))}` adds what is needed, so does "
            "`serve --track`, or serve(..., track=True)",
        )
    return Tables(Gathering(backend), tuple(names), left_out)


def unfit(schema: Schema) -> str | None:
    """Why a table cannot be served: what the protocol's own names would hide, or a key that makes no id."""
    for column in schema.columns:
        if column.name.lower() in _RESERVED:
            return f"its column {column.name!r} has the name of a system column"
        if column.name.lower() == ID and schema.key != (column.name,):
            return f"its column {column.name!r} is not its key, and the protocol calls the key so"
    for column in schema.key_columns:
        if column.family == "float":
            return f"its key column {column.name!r} is {column.type}, and a float is no id"
    return None


def _looked_at(backend: Backend, name: str) -> tuple[Schema | None, str | None]:
    """A table's schema, and why it cannot be served; None: it can."""
    try:
        schema = backend.schema(name)
    except SchemaError as error:
        return None, error.message
    return schema, unfit(schema)


def _all(backend: Backend) -> tuple[list[str], dict[str, str]]:
    if not hasattr(backend, "tables"):
        raise SyncError("this back end does not say which tables it has", hint='name them: serve(..., tables=["a"])')
    names, left_out = [], {}
    for name in backend.tables():
        _, reason = _looked_at(backend, name)
        if reason is None:
            names.append(name)
        else:
            left_out[name] = reason
            log.warning("table %r is left out: %s", name, reason)
    return names, left_out


def _named(backend: Backend, names: Sequence[str]) -> list[str]:
    for name in names:
        try:
            _, reason = _looked_at(backend, name)
        except BackendError as error:
            if error.status != 404:
                raise
            raise SyncError(f"table {name!r} is not there: {error.message}", hint=error.hint) from error
        if reason is not None:
            raise SyncError(f"table {name!r} cannot be served: {reason}", hint="mend that, or leave the table out")
    return list(dict.fromkeys(names))


def _is_tracked(backend: Backend, name: str) -> bool:
    # A back end of one's own that does not say is its own business.
    return bool(backend.is_tracked(name)) if hasattr(backend, "is_tracked") else True
