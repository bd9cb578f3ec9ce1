"""The two dialects of the plain protocol, and what each shows of a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..backends.base import CREATED, DELETED, UPDATED, VERSION, page_schema
from ..query import Order
from ..wire import SYSTEM, UPDATED_AT, Wire
from .exchange import Ask

_V2 = re.compile(r"2(\.\d{1,9}){1,3}")
_PAGE_NAMES = dict(zip(SYSTEM, (CREATED, UPDATED, VERSION, DELETED), strict=True))


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the dialects as data; what differs in deed asks `is_v2`."""

    is_v2: bool
    system: tuple[str, ...]
    page_rows: int

    def __str__(self) -> str:
        return "v2" if self.is_v2 else "v3"


V2 = Dialect(True, SYSTEM, 50)
V3 = Dialect(False, SYSTEM[SYSTEM.index(UPDATED_AT) :], 100)


def dialect_of(ask: Ask) -> Dialect:
    """v2 if `ZUMO-API-VERSION`, a header or a parameter in any case, is 2.x; v3 otherwise."""
    given = ask.headers.get("zumo-api-version") or ask.option("zumo-api-version") or ""
    return V2 if _V2.fullmatch(given.strip()) else V3


def with_deleted(ask: Ask, dialect: Dialect) -> bool:
    """Whether deleted rows are asked for: in v2 by any value at all, in v3 by `true`."""
    given = ask.option("__includedeleted") or ""
    return bool(given) if dialect.is_v2 else given.strip().lower() == "true"


def by_each_once(orders: Iterable[Order]) -> tuple[Order, ...]:
    """The same order without columns that come again, which decide nothing: databases bound their number."""
    first: dict[str, Order] = {}
    for order in orders:
        first.setdefault(order.column, order)
    return tuple(first.values())


def shown(row: Mapping[str, Any], wire: Wire, dialect: Dialect) -> dict[str, Any]:
    """A row as its JSON object."""
    cells = {name: row[name] for name in wire.schema.names} | {held: row.get(n) for n, held in _PAGE_NAMES.items()}
    page = pa.Table.from_pylist([cells], schema=page_schema(wire.schema))
    return objects(page, wire, dialect)[0]


def objects(rows: pa.Table, wire: Wire, dialect: Dialect, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows of a page as JSON objects, all of them or what `names` says; their stamps have whole milliseconds."""
    for name in (CREATED, UPDATED):
        place = rows.column_names.index(name)
        rows = rows.set_column(place, name, pc.floor_temporal(rows[name], unit="millisecond"))
    system = dialect.system if names is None else [name for name in dialect.system if name in names]
    return wire.objects(rows, names, system)
