"""From a URL to the back end it names."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..errors import SyncError
from ..secrets import without_password
from .base import Backend
from .duckdb import DuckdbBackend
from .sqlite import SqliteBackend

_FILES = {"sqlite": SqliteBackend, "duckdb": DuckdbBackend}
_SERVICES = ("https", "http")
_POSTGRES = ("postgresql", "postgres")


def open(
    url: str,
    *,
    schema: Mapping[str, Any] | None = None,
    memory: MutableMapping[str, str] | None = None,
    **service: Any,
) -> Backend:
    """Return the back end that a URL names, without touching it.

    Parameters
    ----------
    url
        ``https://host/path`` of a Datasync service, ``postgresql://user@host:port/database`` as libpq takes it,
        ``sqlite:///path`` or ``duckdb:///path``; an absolute path makes four slashes, and characters may be
        percent-encoded.  A file must exist when it is first asked, and is never created.
    schema
        By table, types that replace the declared ones: a mapping column -> type, or a `pyarrow.Schema`.
    memory
        Where a service's dialect is remembered.
    service
        token, headers, protocol, timeout_s, overlap_s and in_flight: see `connect`.

    Raises
    ------
    SyncError
        If the scheme is not known, or the URL names no file or host.
    """
    scheme, separator, rest = url.partition("://")
    if scheme in _SERVICES and separator:
        from .datasync import DatasyncBackend  # the HTTP client is loaded where it is asked for

        return DatasyncBackend(url, schemas=schema, memory=memory, **service)
    if scheme in _POSTGRES and separator:
        from .postgres import PostgresBackend  # and so is the driver

        return PostgresBackend(url, dict(schema or {}))
    if scheme not in _FILES or not separator:
        shown = without_password(url)
        known = re.sub(r"^(\w+)\+\w+(?=://)", r"\1", shown)  # as SQLAlchemy has a driver in it
        hint = known if known != shown else f"one of {_known()}"
        raise SyncError(f"the back end {shown!r} has no scheme that is known", hint=hint)
    path = unquote(rest.removeprefix("/"))
    if not rest.startswith("/") or path in ("", ":memory:"):
        raise SyncError(
            f"{url!r} names no file",
            hint=f"{scheme}:///relative/path or, with four slashes, {scheme}:////absolute/path",
        )
    backend: Backend = _FILES[scheme](Path(path).absolute(), dict(schema or {}))
    return backend


def _known() -> str:
    return ", ".join(
        [
            "https://host",
            "http://127.0.0.1:8000",
            "postgresql://host/database",
            *(f"{scheme}:///path" for scheme in sorted(_FILES)),
        ]
    )
