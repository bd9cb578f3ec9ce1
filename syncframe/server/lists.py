"""Lists of rows: the query options of both dialects become a Read, and its rows a page."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode

import pyarrow as pa

from ..backends.base import STAMP, UPDATED
from ..query import Call, Condition, Order, Read, parse_filter, parse_orderby
from ..schema import shown
from ..wire import ID, UPDATED_AT, Wire
from .dialect import Dialect, by_each_once, objects, with_deleted
from .exchange import Answer, Ask, Refusal, answer_json
from .limits import Limits
from .tables import Tables

_OPTIONS = ("$filter", "$orderby", "$select", "$top", "$skip", "$skiptoken", "$count", "$inlinecount")
_PAGE_SIZE = re.compile(r'(?:^|[,;\s])(?:odata\.)?maxpagesize\s*=\s*"?(\d{1,9})', re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wish:
    """A list as asked for: `top` is what `$top` says, `names` what `$select` does, `counted` what is to be counted."""

    read: Read
    names: tuple[str, ...] | None
    top: int | None
    skip: int
    counted: Read | None


def list_rows(tables: Tables, limits: Limits, name: str, ask: Ask, dialect: Dialect) -> Answer:
    """Answer with a page: v2 an array, with its count an object; v3 an object with `nextLink`."""
    tables.must_have("read", "lists of rows")
    wire = tables.wire(name)
    wish = _wish(ask, wire, dialect, limits)
    preferred = None if dialect.is_v2 else _preferred(ask, limits)
    page_rows = preferred or limits.rows_of_page(dialect.page_rows)
    take = page_rows if wish.top is None else wish.top if dialect.is_v2 else min(wish.top, page_rows)
    if wish.read.published and hasattr(tables.backend, "publish"):
        # What changed since the last time has no final stamp yet, and a client that asks by stamps would miss it.
        tables.backend.publish(name)
    found = _found(tables, name, wish, take)
    items = objects(found.slice(0, take), wire, dialect, wish.names)
    count = None if wish.counted is None else tables.backend.count(name, wish.counted)
    has_more = len(found) > take
    if dialect.is_v2:
        link = _following(ask, _place(tables, wish, found, take), take) if has_more else None
        headers = {} if link is None else {"link": f"<{ask.base}/tables/{quote(name, safe='')}?{link}>; rel=next"}
        return answer_json(items if count is None else {"results": items, "count": count}, headers=headers)
    left = None if wish.top is None else wish.top - take
    link = _following(ask, _place(tables, wish, found, take), left) if has_more and left != 0 else None
    headers = {} if preferred is None else {"preference-applied": f"maxpagesize={preferred}"}
    return answer_json({"items": items, "count": count, "nextLink": link}, headers=headers)


def _preferred(ask: Ask, limits: Limits) -> int | None:
    """How long a page the client would like, as far as that goes (RFC 7240; OData 4.01, 8.2.8.5)."""
    found = _PAGE_SIZE.search(ask.headers.get("prefer", ""))
    return min(int(found[1]), limits.v3_page_max) or None if found else None


def _found(tables: Tables, name: str, wish: Wish, take: int) -> pa.Table:
    """The page and one row more, which says that there is a next one."""
    limit = take + 1 if take else 0
    found: pa.Table = tables.backend.read(name, replace(wish.read, limit=limit, offset=wish.skip))
    return found


def _place(tables: Tables, wish: Wish, found: pa.Table, take: int) -> tuple[str, str]:
    """Where the next page starts.

    By `updatedAt` it is behind the last one: a row that is changed between two pages leaves its place, those
    behind it move up, and by their number one of them would never be seen.
    """
    if wish.read.order_by[:1] == (Order(UPDATED_AT),) and hasattr(tables.backend, "publish"):
        return "$skiptoken", str(found[UPDATED][take - 1].cast(STAMP).value)
    return "$skip", str(wish.skip + take)


def _following(ask: Ask, place: tuple[str, str], top: int | None) -> str:
    """The query string of the next page."""
    kept = [(name, value) for name, value in ask.query if name.lower() not in ("$skip", "$skiptoken", "$top")]
    pairs = [*kept, place, *([] if top is None else [("$top", str(top))])]
    return urlencode(pairs, quote_via=quote, safe="$")


# Options


def _wish(ask: Ask, wire: Wire, dialect: Dialect, limits: Limits) -> Wish:
    options = _options(ask)
    where = None
    if text := options.get("$filter", "").strip():
        where = parse_filter(text, wire.schema, key_of=wire.key_of)
    order_by: tuple[Order, ...] = ()
    if text := options.get("$orderby", "").strip():
        order_by = by_each_once(parse_orderby(text, wire.schema))
    names = _selected(options.get("$select"), wire, dialect)
    most = limits.v2_top_max if dialect.is_v2 else limits.v3_top_max
    asks_stamps = (where is not None and UPDATED_AT in where.columns) or any(o.column == UPDATED_AT for o in order_by)
    whole = Read(
        where=where,
        columns=None if names is None else tuple(c for c in wire.schema.values if c in names),
        order_by=order_by,
        include_deleted=with_deleted(ask, dialect),
        published=asks_stamps,
    )
    read = _behind(whole, _whole(options, "$skiptoken", _LAST_STAMP), wire)
    skip = _whole(options, "$skip", 2**62)
    return Wish(read, names, _whole(options, "$top", most), skip or 0, whole if _is_counted(options, dialect) else None)


def _behind(read: Read, token: int | None, wire: Wire) -> Read:
    """What is left of a list behind a stamp in microseconds."""
    if token is None:
        return read
    moment = (_EPOCH + datetime.timedelta(microseconds=token)).replace(tzinfo=None).isoformat()
    where, asked = parse_filter(f"updatedAt gt cast({moment}Z,Edm.DateTimeOffset)", wire.schema), read.where
    if asked is not None:
        tree = Call("and", (asked.tree, where.tree), "bool")
        where = Condition(f"({asked.text}) and {where.text}", tree, asked.columns | where.columns)
    return replace(read, where=where, published=True)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LAST_STAMP = (datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC) - _EPOCH) // datetime.timedelta(microseconds=1)


def _options(ask: Ask) -> dict[str, str]:
    """The options whose names begin with `$`, each at most once.

    One that is not known would change what is found, and a misspelt `$filter` find everything: so it
    is refused (OData 4.01, 11.2.1.1).  Names without `$` are somebody else's.
    """
    options: dict[str, str] = {}
    for name, value in ask.query:
        if not name.startswith("$"):
            continue
        lower = name.lower()
        if lower not in _OPTIONS:
            raise _wrong(f"the query option {name[:100]!r} is not known", hint=f"one of {', '.join(_OPTIONS)}")
        if lower in options:
            raise _wrong(f"the query option {lower} is there twice")
        options[lower] = value
    return options


def _whole(options: dict[str, str], name: str, most: int) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text.strip()):
        raise _wrong(f"{name} is {text[:100]!r}, and should be a whole number from 0")
    value = int(text)
    if value > most:
        raise _wrong(f"{name} is {value}, and may be {most}", hint="ask for the rest by $skip, or follow the link")
    return value


def _is_counted(options: dict[str, str], dialect: Dialect) -> bool:
    if dialect.is_v2:
        return options.get("$inlinecount", "").strip().lower() == "allpages"
    given = options.get("$count", "false").strip().lower()
    if given not in ("true", "false"):
        raise _wrong(f"$count is {given[:100]!r}, and should be true or false")
    return given == "true"


def _selected(text: str | None, wire: Wire, dialect: Dialect) -> tuple[str, ...] | None:
    """The names in `$select`, in the schema's spelling."""
    if text is None or text.strip() in ("", "*"):
        return None
    known = [ID, *wire.schema.names, *dialect.system]
    spelt = {name.lower(): name for name in known} | {name: name for name in known}
    names = []
    for part in (part.strip() for part in text.split(",")):
        name = spelt.get(part) or spelt.get(part.lower())
        if name is None:
            raise _wrong(f"$select: column {part[:200]!r} is not among the table's: {shown(known)}")
        names.append(name)
    return tuple(names)


def _wrong(words: str, hint: str | None = None) -> Refusal:
    return Refusal(400, words, hint=hint, kind="QueryError")
