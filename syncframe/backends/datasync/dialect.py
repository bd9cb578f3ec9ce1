"""What differs between the two dialects of the plain protocol, and how a list is asked for in them.

"v2" is Azure Mobile Apps, "v3" the Datasync toolkit.  Only the service can say that a page was the last, for a
short page may be a cap of its own: v3 says so by its link to the next page, v2 by a count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from ...errors import KeyColumnError, QueryError
from ...wire import UPDATED_AT

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEPT = "()',:"  # what a query may hold unescaped; blanks and quotes make up most of a list of ids


@dataclass(frozen=True, slots=True)
class Dialect:
    """One dialect; `odata` is its filter language."""

    name: Literal["v2", "v3"]
    odata: Literal["v2", "v4"]
    headers: Mapping[str, str] = field(hash=False)
    count: str
    needs_count: bool  # to know whether a page was the last
    with_deleted: str
    instant: str

    def after(self, place: tuple[str, str]) -> str:
        """The rows behind a place, a stamp and an id; without an id, those from the stamp on."""
        stamp, id_ = self.instant.format(place[0]), place[1]
        if not id_:
            return f"{UPDATED_AT} ge {stamp}"
        return f"({UPDATED_AT} gt {stamp}) or ({UPDATED_AT} eq {stamp} and id gt {text(id_)})"

    def before(self, stamp: str) -> str:
        return f"{UPDATED_AT} lt {self.instant.format(stamp)}"


V2 = Dialect(
    "v2",
    "v2",
    {"ZUMO-API-VERSION": "2.0.0"},
    "$inlinecount=allpages",
    True,
    "__includeDeleted=true",
    "datetimeoffset'{}'",
)
V3 = Dialect("v3", "v4", {}, "$count=true", False, "__includedeleted=true", "cast({},Edm.DateTimeOffset)")
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (V2, V3)}


def text(value: str) -> str:
    """An OData text literal."""
    return "'" + value.replace("'", "''") + "'"


def both(*filters: str | None) -> str | None:
    """Filters that shall all hold."""
    given = [found for found in filters if found]
    return " and ".join(f"({found})" for found in given) if len(given) > 1 else (given[0] if given else None)


def one_of(ids: Sequence[str]) -> str:
    return " or ".join(f"id eq {text(id_)}" for id_ in ids)


def column(name: str) -> str:
    """A column's name in a query; QueryError where it is none that OData can say."""
    if not NAME.fullmatch(name):
        raise QueryError(f"column {name!r} cannot be named in a query to a Datasync service")
    return name


def query_of(options: Mapping[str, Any]) -> str:
    """A query string; what is None is left out, and texts without a value stand as they are."""
    parts = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        parts.append(name if value is True else f"{name}={quote(str(value), safe=_KEPT)}")
    return "&".join(parts)


def table_path(table: str) -> str:
    return f"/tables/{_segment(table)}"


def row_path(table: str, id_: str) -> str:
    return f"{table_path(table)}/{_segment(id_)}"


def _segment(name: str) -> str:
    if name in ("", ".", ".."):
        raise KeyColumnError(f"{name!r} cannot be named in a URL")
    return quote(name, safe="")
