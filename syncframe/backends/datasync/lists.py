"""Lists of a plain service: one page at a time, whatever its caps, and what came of it in figures."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import AccessError, BackendError, QueryError, SyncError, TransientError
from ...wire import ID, parse_http_date
from .answers import Answer
from .dialect import Dialect, both, one_of, query_of, table_path, text
from .transport import Ask, Transport

TOP_USUAL = 1_000  # what the services of the family take at most, by default
IDS_MAX = 20  # in one filter: ASP.NET takes 100 nodes, and IIS 2,048 characters
STALE_MAX = 3
_NOT_READ = re.compile(r"\(at index \d+\)|no such function")  # how Node.js says of a filter, with a 500, what is wrong
Object = dict[str, Any]


@dataclass(slots=True)
class Tally:
    """What was asked and came since the last look."""

    requests: int = 0
    received: int = 0

    def add(self, answer: Answer) -> None:
        self.requests += answer.requests
        self.received += answer.received

    def taken(self) -> tuple[int, int]:
        figures = self.requests, self.received
        self.requests = self.received = 0
        return figures


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of a list.

    Parameters
    ----------
    count
        How many rows match in all, where the service says so.
    is_last
        No row is left behind this page.
    date
        The service's clock.
    """

    objects: list[Object]
    count: int | None
    is_last: bool
    date: dt.datetime | None


@dataclass(slots=True)
class Lists:
    """The lists of one service in one dialect."""

    transport: Transport
    dialect: Dialect
    tally: Tally = field(default_factory=Tally)
    top_max: dict[str, int | None] = field(default_factory=dict)  # what a table was found to take; None: no $top
    exact: bool = False  # numbers with a point come as decimals

    def own(self, *, exact: bool = False) -> Lists:
        """The same with a tally of its own, for one run."""
        return Lists(self.transport, self.dialect, Tally(), self.top_max, exact)

    def page(
        self,
        table: str,
        *,
        where: str | None = None,
        order: str = ID,
        top: int = TOP_USUAL,
        skip: int = 0,
        select: Sequence[str] | None = None,
        deleted: bool = False,
        is_asked: bool = False,
        counted: bool = True,
    ) -> Listed:
        """Ask for one page.

        Parameters
        ----------
        counted
            Ask for the count, by which a service of v2 says whether more rows follow.  To count them costs it a
            scan, so that a run asks for it once: if it does not end with the first page, it ends with an empty one.
        is_asked
            The filter is a user's: that the service refuses it is a QueryError.
        """
        options = {
            "$filter": where,
            "$orderby": order,
            "$select": None if select is None else ",".join(select),
            "$skip": skip or None,
            self.dialect.count: counted,
            self.dialect.with_deleted: deleted,
        }
        for number in self._tops(table, top):
            try:
                answer = self._answer(table, {"$top": number, **options})
            except TransientError as error:
                if is_asked and error.status == 500 and _NOT_READ.search(error.message):
                    raise _not_taken(error) from error
                raise
            if answer.status != 400:
                self.top_max |= {table: number} if number is None or number < top else {}
                break
        if not answer.ok:
            raise _refusal(table, answer, is_asked and where is not None)
        return _listed(answer, answer.json(exact=self.exact), skip, number)

    def _tops(self, table: str, top: int) -> Iterator[int | None]:
        """What to ask for: fewer rows where the service refuses so many, and then as many as it likes."""
        if table in self.top_max:
            known = self.top_max[table]
            yield None if known is None else min(top, known)
            return
        if not self.dialect.needs_count or top <= TOP_USUAL:
            yield top
        if top > TOP_USUAL:
            yield TOP_USUAL
        if top > 1:
            yield None

    def _answer(self, table: str, options: Mapping[str, Any]) -> Answer:
        headers = self.dialect.headers
        if options["$top"] is not None and not self.dialect.needs_count:
            # In v3 `$top` makes no page longer; this may (RFC 7240; OData 4.01, 8.2.8.5).
            headers = {**headers, "Prefer": f"maxpagesize={options['$top']}"}
        answer = self.transport.request(Ask("GET", table_path(table), query_of(options), headers))
        self.tally.add(answer)
        return answer

    def by_id(
        self,
        table: str,
        *,
        after: str | None = None,
        where: str | None = None,
        top: int = TOP_USUAL,
        **options: Any,
    ) -> Iterator[Listed]:
        """All pages in the order of the ids, which no change of a row moves.

        Raises
        ------
        BackendError
            If the service gives the same page again and again.
        """
        seen: set[str] = set()
        stale, is_first = 0, True
        while True:
            behind = None if after is None else f"id gt {text(after)}"
            counted = self.dialect.needs_count and is_first
            page = self.page(table, where=both(where, behind), order=ID, top=top, counted=counted, **options)
            is_first = False
            yield page
            if page.is_last:
                return
            after = id_of(table, page.objects[-1])
            stale = stale + 1 if after in seen else 0
            check_stale(table, stale)
            seen.add(after)

    def found(self, table: str, ids: Sequence[str], *, select: Sequence[str] | None = None) -> dict[str, Object]:
        """Rows by id, tombstones among them."""
        objects: dict[str, Object] = {}
        for start in range(0, len(ids), IDS_MAX):
            wanted = ids[start : start + IDS_MAX]
            for page in self.by_id(table, where=one_of(wanted), top=len(wanted), select=select, deleted=True):
                objects |= {id_of(table, found): found for found in page.objects}
                if objects.keys() >= set(wanted):  # a full page does not say that it is the last one
                    break
        return objects


def id_of(table: str, found: Object) -> str:
    id_ = found.get(ID)
    if not isinstance(id_, str):
        raise BackendError(f"a row of table {table!r} has no text id: {str(found)[:200]}")
    return id_


def check_stale(table: str, stale: int) -> None:
    """A service that ignores the filter would be asked for ever."""
    if stale >= STALE_MAX:
        raise BackendError(
            f"the service answered {STALE_MAX} requests for more rows of table {table!r} with rows it had sent before",
            hint="it seems to ignore `$filter`; is this a Datasync service?",
        )


def _listed(answer: Answer, body: Any, skip: int, top: int | None) -> Listed:
    objects, count, is_end = _parts(body)
    if not isinstance(objects, list) or not all(isinstance(found, dict) for found in objects):
        raise BackendError(
            f"{answer.what} was answered with JSON that is no list of rows: {answer.hide(str(body)[:200])}",
            hint="is this a Datasync service?",
        )
    if isinstance(count, int) and count >= 0:
        is_last = count <= skip + len(objects)
    else:
        count = None
        is_last = is_end and (top is None or len(objects) < top)
    return Listed(objects, count, is_last or not objects, parse_http_date(answer.headers.get("date")))


def _parts(body: Any) -> tuple[Any, Any, bool]:
    """Rows, count, and whether the service says that there are no more; whichever dialect it answers in."""
    if isinstance(body, list):
        return body, None, False
    if isinstance(body, Mapping) and "items" in body:
        return body["items"], body.get("count"), "nextLink" in body and body["nextLink"] is None
    if isinstance(body, Mapping) and "results" in body:
        return body["results"], body.get("count"), False
    return None, None, False


def _refusal(table: str, answer: Answer, is_asked: bool) -> Exception:
    if answer.status in (404, 410):
        return BackendError(
            f"table {table!r} is not at {answer.what.partition(' ')[2]}",
            hint="check the spelling; the URL of a service ends before /tables",
            status=404,
        )
    error = answer.error()
    if is_asked and answer.status == 400 and not isinstance(error, TransientError | AccessError | QueryError):
        return _not_taken(error)
    return error


def _not_taken(error: SyncError) -> QueryError:
    return QueryError(f"the service does not take this condition: {error.message}", hint=error.hint)
