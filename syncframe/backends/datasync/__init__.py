"""Datasync services over HTTP, as a back end: Azure Mobile Apps (v2), the Datasync toolkit (v3), and our own server.

DatasyncBackend      which of them it is, asked once
extended             ours: Arrow streams, the back end's own checkpoints, operation ids
plain                the others: plain_pull and plain_push over lists, dialect, infer and place
transport            requests: patience decides on tries, answers on what came back
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa

from ...errors import BackendError, SyncError, TransientError
from ...query import Query, Read
from ...schema import Schema
from ..base import Checkpoint, Operations, Outcomes, Page, Promises
from .dialect import DIALECTS, V2, query_of, table_path
from .extended import Extended, greeting
from .plain import Plain
from .transport import BODY_BYTES_MAX, Ask, Token, Transport

__all__ = ["DatasyncBackend"]

PROTOCOLS = ("auto", "v2", "v3")
REFUSED = (None, 200, 400, 404, 405, 410, 415)  # with what a service of another kind answers a request

T = TypeVar("T")


class DatasyncBackend:
    """A Datasync service at a URL; asked nothing before the first pull or push.

    Parameters
    ----------
    url
        Its base; tables are at `<url>/tables/<name>`.
    schemas
        By table, for a service that tells no types: a mapping column -> type, a pyarrow.Schema or a Schema.
    token
        A key that is sent, or a callable that is asked for one, and again once after a 401.
    headers
        Sent with every request.
    protocol
        "auto": the service is asked once and the answer remembered; "v2" or "v3": plain, in that dialect.
    timeout_s
        How long a request may take, and how long is waited between its tries in all.
    overlap_s
        How late a row of a plain service may be committed under an older stamp; 0: never.
    in_flight
        How many requests a push has under way at once.
    memory
        Where the answer of "auto" is remembered, and the types that a plain service's rows were found to have.
    clock
        Seconds since 1970.
    """

    def __init__(
        self,
        url: str,
        *,
        schemas: Mapping[str, Any] | None = None,
        token: Token | None = None,
        headers: Mapping[str, str] | None = None,
        protocol: str = "auto",
        timeout_s: float = 30.0,
        overlap_s: float = 600.0,
        in_flight: int = 16,
        memory: MutableMapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise SyncError(f"protocol={protocol!r} is none", hint=f"one of {', '.join(map(repr, PROTOCOLS))}")
        if in_flight < 1 or timeout_s <= 0 or overlap_s < 0:
            raise SyncError("in_flight is at least 1, timeout_s more than 0, and overlap_s not less than 0")
        self._transport = Transport(
            url, token=token, headers=headers, timeout_s=timeout_s, in_flight=in_flight,
            body_bytes_max=body_bytes_max, sleep=sleep,
        )  # fmt: skip
        self.url = self._transport.base
        self._protocol = protocol
        self._schemas_given = dict(schemas or {})
        self._memory = {} if memory is None else memory
        self._options: dict[str, Any] = {"overlap_s": overlap_s, "in_flight": in_flight, "clock": clock}
        self._verbs: Extended | Plain | None = None
        self._is_remembered = False  # nobody has asked since the store was opened

    def __repr__(self) -> str:
        return f"DatasyncBackend({self.url!r})"

    # Which service it is

    def _asked(self, table: str | None = None) -> Extended | Plain:
        """The verbs of the service, which is asked what it is where that is not known; `table` tells a dialect."""
        if self._verbs is None:
            name = f"{self.url} protocol"
            known = self._protocol if self._protocol != "auto" else self._memory.get(name)
            told = None
            self._is_remembered = self._protocol == "auto" and known is not None
            if known is None:
                told = greeting(self._transport)
                known = "extended" if told is not None else self._dialect(table)
            if known is None:
                # Nobody can tell yet; what needs no dialect needs none.
                return self._plain("v3")
            if self._protocol == "auto" and self._memory.get(name) != known:
                self._memory[name] = known
            self._verbs = self._extended(told) if known == "extended" else self._plain(known)
        return self._verbs

    def _extended(self, told: dict[str, Any] | None) -> Extended:
        verbs = Extended(self._transport, forget=self._forget)
        if told is not None:
            verbs.welcome(told)
        return verbs

    def _forget(self) -> None:
        """The service is not what it was: the next call asks again."""
        self._verbs = None
        self._memory.pop(f"{self.url} protocol", None)

    def _turned(self, verbs: Extended | Plain, table: str | None, error: BackendError) -> bool:
        """Whether the service that answered with `error` is another than was remembered; then it is asked anew."""
        if self._protocol != "auto" or error.status not in REFUSED:
            return False
        try:
            is_ours = greeting(self._transport) is not None
            is_same = is_ours if isinstance(verbs, Extended) else not is_ours and self._is_of(verbs, table)
        except BackendError:
            return False  # the first error says more
        if not is_same:
            self._forget()
        return not is_same

    def _is_of(self, verbs: Plain, table: str | None) -> bool:
        """Whether the service answers in the dialect of `verbs`."""
        is_same = table is None or self._dialect(table) == verbs.dialect.name
        self._is_remembered = self._is_remembered and table is None
        return is_same

    def _first(self, ask: Callable[[Extended | Plain], T], table: str | None = None) -> T:
        """Ask what comes before a pull or push; once more where the service is another than was remembered."""
        verbs = self._asked(table)
        try:
            return ask(verbs)
        except BackendError as error:
            if not self._turned(verbs, table, error):
                raise
        return ask(self._asked(table))

    @contextmanager
    def _verb(self, table: str | None) -> Iterator[Extended | Plain]:
        """Ask; rows of another service than was remembered are for a new call, which sees whose they are."""
        verbs = self._asked(table)
        try:
            yield verbs
        except BackendError as error:
            if self._turned(verbs, table, error):
                raise BackendError(
                    f"{self.url} is another kind of service than it was", hint="it is asked anew next time"
                ) from error
            raise

    def _check_dialect(self, verbs: Extended | Plain, table: str) -> Extended | Plain:
        """Ask once in which dialect a service is written to that was only remembered: the other refuses each row."""
        if not self._is_remembered or not isinstance(verbs, Plain):
            return verbs
        try:
            is_same = self._is_of(verbs, table)
        except TransientError as error:
            error.was_sent = False  # nothing of what is pushed
            raise
        if is_same:
            return verbs
        self._forget()
        return self._asked(table)

    def _plain(self, dialect: str) -> Plain:
        return Plain(self._transport, DIALECTS[dialect], self._schemas_given, self._memory, **self._options)

    def _dialect(self, table: str | None) -> str | None:
        """Ask one list and see in which dialect it is answered."""
        if table is None:
            return None
        answer = self._transport.request(Ask("GET", table_path(table), query_of({"$top": 1}), V2.headers))
        if answer.status in (404, 410):
            raise BackendError(
                f"table {table!r} is not at {self.url}",
                hint="check the spelling; the URL of a service ends before /tables",
                status=404,
            )
        if not answer.ok:
            raise answer.error()
        body = answer.json()
        if isinstance(body, list) or (isinstance(body, dict) and "results" in body):
            return "v2"
        if isinstance(body, dict) and "items" in body:
            return "v3"
        raise BackendError(
            f"{answer.what} was answered with JSON that is no list of rows", hint="is this a Datasync service?"
        )

    def identity(self) -> str:
        """What names the data: of our server its back end's own name, of another scheme, host, port and path."""
        return self._first(lambda verbs: verbs.identity())

    def aliases(self) -> list[str]:
        """What it was called before."""
        return self._asked().aliases()

    @property
    def promises(self) -> Promises:
        """What the service promises; until it was asked, what a plain one does."""
        return Plain.promises if self._verbs is None else self._verbs.promises

    def tables(self) -> list[str]:
        """Return the names of the tables; BackendError of a plain service, which cannot tell."""
        verbs = self._asked()
        if isinstance(verbs, Plain):
            raise BackendError("a plain Datasync service does not list its tables")
        return verbs.tables()

    # The verbs

    def schema(self, table: str) -> Schema:
        """The table's columns and key; BackendError with status 404 if there is none of that name."""
        return self._first(lambda verbs: verbs.schema(table), table)

    def pull(self, table: str, query: Query, since: Checkpoint | None, others: Sequence[Query] = ()) -> Iterator[Page]:
        """Yield what changed after `since`; everything that is there if None."""
        with self._verb(table) as verbs:
            yield from verbs.pull(table, query, since, others)

    def push(self, batch: Operations) -> Iterator[Outcomes]:
        """Apply `batch` and yield the outcomes, in order, as they become known."""
        with self._verb(batch.table) as verbs:
            yield from self._check_dialect(verbs, batch.table).push(batch)

    def push_atomic(self, batches: Sequence[Operations]) -> list[Outcomes]:
        """All or nothing, where the service can: see `promises`."""
        verbs = self._asked()
        if isinstance(verbs, Plain):
            raise SyncError("a plain Datasync service cannot push all or nothing", hint="push without atomic=True")
        return verbs.push_atomic(batches)

    def rows(self, table: str, keys: pa.Table) -> pa.Table:
        """Rows by key, as in a page, tombstones included."""
        return self._first(lambda verbs: verbs.rows(table, keys), table)

    def read(self, table: str, read: Read) -> pa.Table:
        """The rows that a remote table asks for."""
        return self._first(lambda verbs: verbs.read(table, read), table)

    def count(self, table: str, read: Read) -> int:
        """How many rows match."""
        return self._first(lambda verbs: verbs.count(table, read), table)

    @property
    def keys(self) -> Callable[[str, Query], Iterator[Page]]:
        """List keys and versions, for a comparison in full; only a plain service needs it."""
        if not isinstance(self._verbs, Plain):
            raise AttributeError("this service is not known to be a plain one")
        return self._verbs.keys

    def close(self) -> None:
        """Close the connections; asked again, new ones are made."""
        self._transport.close()
