"""One line a request for who runs the server: what was asked and what came of it, never a value.

The path is that of a route, with `{id}` for an id and without its query; a name of a table is one that is served;
a key, a filter or a body is not here at all.  `syncframe.server` logs the short line at INFO; what `Entry.told`
has travels with it as the record's `request`, which `Lines` writes as JSON.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import time
import uuid
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import Scope

log = logging.getLogger("syncframe.server")
REQUEST_ID = "x-request-id"
UNKNOWN = "?"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_GIVEN_ID = re.compile(r"[0-9a-fA-F-]{8,64}", re.ASCII)


@dataclass(slots=True)
class Entry:
    """What is known of a request while it is answered.

    Parameters
    ----------
    id
        Goes out as `X-Request-ID` too; that of a proxy is kept where it is hexadecimal digits and dashes.
    error
        The id under which the log has what went wrong.
    is_whole
        Whether the answer was sent to its end.
    """

    method: str
    id: str
    path: str = UNKNOWN
    table: str | None = None
    status: int = 0
    bytes: int = 0
    who: str | None = None
    error: str | None = None
    is_whole: bool = False
    began: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, scope: Scope) -> Entry:
        given = Headers(scope=scope).get(REQUEST_ID, "")
        method = scope["method"] if scope["method"] in _METHODS else UNKNOWN
        return cls(method, given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex)

    def told(self) -> dict[str, object]:
        """What there is to say, in the order of the line."""
        told = {
            "id": self.id,
            "method": self.method,
            "path": self.path,
            "table": self.table,
            "status": self.status,
            "ms": round(1_000 * (time.perf_counter() - self.began), 1),
            "bytes": 0 if self.method == "HEAD" else self.bytes,
            "who": self.who,
            "error": self.error,
            "cut": None if self.is_whole else True,
        }
        return {name: value for name, value in told.items() if value is not None}

    def write(self) -> None:
        told = self.told()
        log.info("%s %s %d %.0f ms", told["method"], told["path"], told["status"], told["ms"], extra={"request": told})


class Lines(logging.Formatter):
    """A record of a request as a line of JSON, its time first."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        time_ = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"time": time_, **record.__dict__["request"]})


def write_to(handler: logging.Handler) -> None:
    """Have a line for each request written by `handler`; warnings go to standard error as they do without it."""
    handler.setFormatter(Lines())
    handler.addFilter(lambda record: hasattr(record, "request"))
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    # A logger that has a handler has lost this one.
    if logging.lastResort is not None:
        log.addHandler(logging.lastResort)
