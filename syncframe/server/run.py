"""Serving: the tables are chosen, the application is made, and uvicorn runs it in a thread."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from .. import words
from ..backends import Backend
from ..backends import open as open_backend
from ..errors import SyncError
from .access import Access
from .app import App
from .limits import Limits
from .rights import Rights
from .tables import Tables, chosen
from .tokens import Jwt

log = logging.getLogger("syncframe.server")
BACKLOG = 1_024  # connections that wait to be taken
WAIT_S = 3_600.0
STOP_S = 10  # for requests that are under way when the server is closed


class Server:
    """A running server, where `url` says; `left_out` says which tables are not served, and why.  A context manager."""

    def __init__(
        self,
        app: App,
        backend: Any,
        listener: socket.socket,
        url: str,
        *,
        is_own: bool,
        stop_s: int = STOP_S,
    ) -> None:
        from .http import Uvicorn

        self.url = url
        self.tables = app.tables.names
        self.left_out = dict(app.tables.left_out)
        self._app = app
        self._backend = backend
        self._is_own = is_own
        self._stop_s = stop_s
        self.is_busy = False
        self._uvicorn = Uvicorn(app, stop_s, app.limits.timeout_s, app.limits.stall_s)
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([listener],), name=f"syncframe server {url}", daemon=True
        )
        self._thread.start()
        while not self._uvicorn.is_up.wait(0.1):
            if not self._thread.is_alive():
                raise SyncError(f"the server at {url} did not start", hint="the log says why")

    def wait(self) -> None:
        """Return when the server has ended, or raise KeyboardInterrupt at Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(WAIT_S)

    def stop(self) -> None:
        """Begin to end: no connection is taken any more, and `wait` returns when those that are there have ended.

        What takes longer than `stop_s` is cut; a client goes on from its last checkpoint, or sends again.
        """
        self._app.stop()
        self._uvicorn.should_exit = True

    def close(self) -> None:
        """Take no more requests, let those under way end, and let go of the back end if it was given as a URL.

        A statement that goes on in the back end longer than `stop_s` after its client was cut is left to itself:
        then `is_busy` says so, and the back end stays open for it.
        """
        self.stop()
        self._thread.join()
        ending = threading.Thread(target=self._app.close, name=f"syncframe server {self.url} ends", daemon=True)
        ending.start()
        ending.join(self._stop_s)
        self.is_busy = ending.is_alive()
        if self.is_busy:
            log.warning("the back end is still busy %g s after its last client was cut", self._stop_s)
        elif self._is_own and hasattr(self._backend, "close"):
            self._backend.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._thread.is_alive() else ", closed"
        return f"<syncframe server at {self.url}{state}: {', '.join(self.tables) or 'no tables'}>"

    def _repr_html_(self) -> str:
        rows = [(words.name(table), f"{self.url}/tables/{quote(table)}") for table in self.tables]
        state = "serving" if self._thread.is_alive() else "closed; it served"
        table = words.html_table(["table", "URL"], rows, caption=f"syncframe server at {self.url}", code=[0, 1])
        below = words.left_out(len(rows), words.SHOWN_ROWS)
        return words.html(table, words.paragraphs([f"{state} {words.many(len(rows), 'table')}", *below]))


def serve(
    backend: str | Backend,
    *,
    tables: Iterable[str] | None = None,
    track: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
    tokens: Iterable[str] | Mapping[str, str] | str | Path | None = None,
    jwt: Jwt | Mapping[str, Any] | str | Path | None = None,
    rights: Any = None,
    page_rows: int | None = None,
    keep_deleted_days: float | None = 90,
    read_only: bool = False,
    body_bytes_max: int = Limits().body_bytes_max,
    timeout_s: float = Limits().timeout_s,
    stop_s: int = STOP_S,
) -> Server:
    """Serve the tables of a back end as a Datasync service, in a thread of its own.

    Parameters
    ----------
    backend
        A URL as in `connect`, or a Backend, which stays open when the server is closed.
    tables
        Their names; None: all that have a primary key and can be served (`Server.left_out` has the others).
    track
        Whether to add the tracking to tables that lack it.
    host, port
        Where to listen; port 0 takes a free one.
    tokens
        The keys of those who may ask: an iterable, a mapping name -> key, or the path of a file with one a line,
        before which its name and a blank may stand.  Without any, and without `jwt`, the host must be this
        machine alone.
    jwt
        Which JSON Web Tokens are taken too: a `Jwt`, its settings as a mapping, or a TOML or JSON file of them.
    rights
        Who may do what: a mapping table -> rules, a TOML or JSON file of one, or a callable (identity, table) ->
        Right, several or None; `syncframe.server` says more.  None: whoever may ask may do all.
    page_rows
        Rows of a list whose request does not say (by default 50 in v2 and 100 in v3).
    keep_deleted_days
        Rows that were deleted longer ago are forgotten when the server starts; None: never.
    read_only
        Whether to refuse all writing, with status 405.
    body_bytes_max
        The largest body; a row of the plain protocol has at most 1 MiB.
    timeout_s
        How long a request may take.
    stop_s
        How long requests that are under way may go on when the server is stopped.

    Raises
    ------
    AccessError
        If other machines could ask, and there are no tokens.
    SyncError
        If a table cannot be served, or is not tracked and `track` is False; names it.
    """
    access = Access.of(tokens, jwt)
    access.check_host(host)
    opened = open_backend(backend) if isinstance(backend, str) else backend
    is_own = isinstance(backend, str)
    listener: socket.socket | None = None
    try:
        listener = _listener(host, port)
        app = make_app(
            opened,
            tables=tables,
            track=track,
            rights=rights,
            access=access,
            limits=_limits(page_rows, body_bytes_max, timeout_s),
            keep_deleted_days=keep_deleted_days,
            read_only=read_only,
        )
        return Server(app, opened, listener, _url(host, listener), is_own=is_own, stop_s=stop_s)
    except BaseException:
        if listener is not None:
            listener.close()
        if is_own and hasattr(opened, "close"):
            opened.close()
        raise


def make_app(
    backend: Backend,
    *,
    tables: Iterable[str] | None = None,
    track: bool = False,
    tokens: Iterable[str] | Mapping[str, str] | str | Path | None = None,
    jwt: Jwt | Mapping[str, Any] | str | Path | None = None,
    rights: Any = None,
    access: Access | None = None,
    limits: Limits | None = None,
    keep_deleted_days: float | None = 90,
    read_only: bool = False,
) -> App:
    """Return the ASGI application alone, for another ASGI server; it asks who may, and knows no host.

    The parameters are those of `serve`.
    """
    access = access or Access.of(tokens, jwt)
    given = Rights.of(rights)
    if given is not None and access.is_open:
        raise SyncError("rights= says who may do what, and nobody says who they are", hint="give tokens= or jwt= too")
    selected = replace(chosen(backend, tables, track=track), rights=given)
    if given is not None:
        _check_rights(given, selected, access)
    if keep_deleted_days is not None and not read_only and hasattr(backend, "purge_deleted"):
        forgotten = backend.purge_deleted(keep_deleted_days)
        log.info("%d rows that were deleted more than %g days ago are forgotten", forgotten, keep_deleted_days)
    return App(selected, access=access, limits=limits, read_only=read_only)


def _check_rights(rights: Rights, tables: Tables, access: Access) -> None:
    schemas = {name: tables.wire(name).schema for name in tables.names}
    keys = () if access.keys is None else access.keys.names
    rights.check(schemas, can_filter=hasattr(tables.backend, "rows"), keys=keys)


def _limits(page_rows: int | None, body_bytes_max: int, timeout_s: float) -> Limits:
    for name, value in (("page_rows", page_rows), ("body_bytes_max", body_bytes_max), ("timeout_s", timeout_s)):
        if value is not None and value <= 0:
            raise SyncError(f"{name} is {value}, and should be more than 0")
    plain = Limits()
    return Limits(
        body_bytes_max=body_bytes_max,
        row_bytes_max=min(plain.row_bytes_max, body_bytes_max),
        bodies_bytes_max=max(plain.bodies_bytes_max, body_bytes_max),
        page_rows=page_rows,
        v2_top_max=max(plain.v2_top_max, page_rows or 0),
        timeout_s=timeout_s,
    )


def _listener(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        # With any other protocol number asyncio leaves Nagle's algorithm on, and each answer waits 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        raise SyncError(f"cannot listen on {host!r}, port {port}: {error}", hint="port 0 takes a free one") from error
    return listener


def _url(host: str, listener: socket.socket) -> str:
    """Where a client on this machine finds it."""
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    port = listener.getsockname()[1]
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
