"""Connections to a PostgreSQL server, kept for the next transaction.

The driver commits each statement by itself; transactions are begun and ended by statements, so that savepoints can
be gone back to after an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pyarrow as pa

from ..errors import BackendError, SyncError
from ..schema import quote
from .kept import Kept

KEPT_MAX = 8
CONNECT_TIMEOUT_S = 10
VERSION_MIN = 140_000
_HIDDEN = "***"
_QUESTION = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|(\?)""")
# Whoever reads texts of dates, times, intervals and numbers, ours among them, reads these forms.
_SETTINGS = {
    "standard_conforming_strings": "on",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "xmloption": "content",
    "row_security": "on",
}


def driver() -> Any:
    try:
        import adbc_driver_postgresql.dbapi as dbapi
    except ImportError as error:
        raise SyncError(
            "the driver for postgresql:// is not installed", hint='pip install "syncframe[postgres]"'
        ) from error
    return dbapi


def numbered(sql: str) -> str:
    """Placeholders as PostgreSQL has them: `$1` for the first `?`."""
    count = 0

    def number(found: re.Match[str]) -> str:
        nonlocal count
        if found[1] is None:
            return found[0]
        count += 1
        return f"${count}"

    return _QUESTION.sub(number, sql)


@dataclass(slots=True, eq=False)
class Held:
    """A connection, new until its first transaction has ended."""

    connection: Any
    is_new: bool = True

    def run(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """The rows of a statement, of which one that is no query has none."""
        with self.connection.cursor() as cursor:
            cursor.execute(numbered(sql), list(parameters) or None)
            return cursor.fetch_arrow_table()

    def close(self) -> None:
        self.connection.close()


class Connections:
    """The connections to one database; any thread may take one."""

    def __init__(self, url: str, lock_timeout_s: float) -> None:
        self._url = _with_defaults(url)
        self._lock_timeout_s = lock_timeout_s
        self._kept: Kept[Held] = Kept(KEPT_MAX)

    def take(self) -> Held:
        """Return a connection without a transaction; the driver's error if there is none to be had."""
        return self._kept.take() or self._opened()

    def give_back(self, held: Held) -> None:
        held.is_new = False
        self._kept.keep(held)

    def close(self) -> None:
        self._kept.close()

    def _opened(self) -> Held:
        held = Held(driver().connect(self._url, autocommit=True))
        try:
            told = held.run(_ASKED).to_pylist()[0]
            _check(told)
            settings = _SETTINGS | {
                "search_path": ", ".join(filter(None, [told["path"], quote("_syncframe")])),
                "lock_timeout": f"{int(self._lock_timeout_s * 1000)}ms",
            }
            given = [part for pair in settings.items() for part in pair]
            held.run(f"select {', '.join(['set_config(?, ?, false)'] * len(settings))}", given)
        except BaseException:
            held.close()
            raise
        return held


_ASKED = """
    select current_setting('server_version_num')::int as number, current_setting('server_encoding') as encoding,
        current_setting('search_path') as path, version() as version, to_regproc('pg_current_xact_id') is not null
        and to_regproc('pg_control_system') is not null
        and to_regproc('pg_current_snapshot') is not null as has_transactions
"""


def _check(told: dict[str, Any]) -> None:
    """Refuse a server that lacks what the back end stands on."""
    if told["number"] < VERSION_MIN or not told["has_transactions"]:
        raise BackendError(
            f"the server is {told['version']!r}, and lacks what this back end asks for",
            hint="PostgreSQL 14 or newer, or an engine with its transaction ids and snapshots",
        )
    if told["encoding"] != "UTF8":
        raise BackendError(
            f"the database is in the encoding {told['encoding']}, of whose texts only UTF-8's are kept exactly",
            hint="create a database with encoding 'UTF8' and restore the tables into it",
        )


def _with_defaults(url: str) -> str:
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    options = {"connect_timeout": str(CONNECT_TIMEOUT_S), "application_name": "syncframe"} | given
    return urlunsplit(parts._replace(query=urlencode(options)))


def secrets(url: str) -> list[str]:
    """What of a URL must not be shown."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    found = [parts.password, given.get("password"), given.get("sslpassword")]
    return [secret for secret in found if secret]


def without_secrets(text: str, url: str) -> str:
    for secret in secrets(url):
        text = text.replace(secret, _HIDDEN)
    return text


def shown(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.username else ""
    return f"postgresql://{user}{host}{parts.path}"
