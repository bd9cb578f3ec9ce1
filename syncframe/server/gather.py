"""Single writes and reads that come at the same time, done together.

A back end works on sets: sixteen rows cost it little more than one.  So whoever comes while it is busy
waits, and when it is free one of those who wait asks for all of them.  Nobody waits for company: what
comes alone goes alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from ..backends.base import Backend, Operations, Outcomes
from ..errors import TransientError

TOGETHER_MAX = 1_000


class Gathering:
    """A back end whose single pushes and look-ups go together; in all else it is the back end itself."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._gates: dict[tuple[str, str], _Gate] = {}
        if hasattr(backend, "rows"):
            self.rows = self._rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        """As the back end's; a single operation goes with those of others."""
        if len(batch) == 1:
            return iter([self._gate("push", batch.table, self._pushed).go(batch)])
        return self._backend.push(batch)

    def _rows(self, table: str, keys: pa.Table) -> pa.Table:
        """As the back end's; a single key goes with those of others."""
        if len(keys) == 1:
            found: pa.Table = self._gate("rows", table, lambda parts: self._found(table, parts)).go(keys)
            return found
        return self._backend.rows(table, keys)  # type: ignore[attr-defined]

    def _gate(self, verb: str, table: str, work: Callable[[Sequence[Any]], list[Any]]) -> _Gate:
        with self._lock:
            return self._gates.setdefault((verb, table), _Gate(work))

    def _pushed(self, batches: Sequence[Operations]) -> list[Outcomes]:
        together = replace(batches[0], rows=pa.concat_tables([batch.rows for batch in batches]))
        answers = pa.concat_tables([part.rows for part in self._backend.push(together)])
        # A back end says what it knows as soon as it knows it: outcomes have ids, and no order.
        places = {id_: place for place, id_ in enumerate(answers["operation_id"].to_pylist())}
        return [Outcomes(_one(answers, places.get(batch["operation_id"][0].as_py()))) for batch in batches]

    def _found(self, table: str, parts: Sequence[pa.Table]) -> list[pa.Table]:
        rows = self._backend.rows(table, pa.concat_tables(parts))  # type: ignore[attr-defined]
        names = parts[0].column_names
        places = {key: place for place, key in enumerate(_keys(rows.select(names)))}
        return [_one(rows, places.get(next(_keys(part)))) for part in parts]


@dataclass(slots=True, eq=False)
class _Asked:
    """What one thread asks, and what came of it."""

    part: Any
    names: frozenset[Any]  # of two that share one, the row's key or the operation's id, the second waits
    is_done: bool = False
    answer: Any = None
    error: BaseException | None = None


class _Gate:
    """One kind of work on one table: one thread at a time does it, for all that wait."""

    def __init__(self, work: Callable[[Sequence[Any]], list[Any]]) -> None:
        self._work = work
        self._waiting: list[_Asked] = []
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def go(self, part: Any) -> Any:
        asked = _Asked(part, _names(part))
        with self._lock:
            self._waiting.append(asked)
        with self._turn:
            while not asked.is_done:
                self._lead(self._taken())
        if asked.error is not None:
            raise asked.error
        return asked.answer

    def _taken(self) -> list[_Asked]:
        """Those who wait, in the order they came; of one row only the first, and of one form only."""
        taken: list[_Asked] = []
        left: list[_Asked] = []
        seen: set[Any] = set()
        with self._lock:
            for asked in self._waiting:
                is_like = not taken or _form(asked.part) == _form(taken[0].part)
                is_fit = is_like and len(taken) < TOGETHER_MAX and seen.isdisjoint(asked.names)
                (taken if is_fit else left).append(asked)
                # What stands behind a row that is left is left, too.
                seen |= asked.names
            self._waiting = left
        return taken

    def _lead(self, taken: Sequence[_Asked]) -> None:
        try:
            for asked, answer in zip(taken, self._work([asked.part for asked in taken]), strict=True):
                asked.answer = answer
        except BaseException as error:
            if len(taken) > 1 and isinstance(error, Exception) and not isinstance(error, TransientError):
                # It may be the fault of one of them; pushed again, what was applied is known by its id.
                for asked in taken:
                    self._lead([asked])
                return
            for asked in taken:
                asked.error = error
        for asked in taken:
            asked.is_done = True


def _form(part: Operations | pa.Table) -> pa.Schema:
    return part.rows.schema if isinstance(part, Operations) else part.schema


def _names(part: Operations | pa.Table) -> frozenset[Any]:
    if not isinstance(part, Operations):
        return frozenset([next(_keys(part))])
    key = part.rows.select([name for name in part.column_names if name.startswith("k_")])
    return frozenset([next(_keys(key)), part["operation_id"][0].as_py()])


def _one(rows: pa.Table, place: int | None) -> pa.Table:
    return rows.slice(0, 0) if place is None else rows.slice(place, 1)


def _keys(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)
