"""What an exception becomes as an answer: a status and words, and never what is nobody's business.

Words of a back end may name files and hosts, so that only those about the request go out; of the
others the log has all, under an id that the answer has too.
"""

from __future__ import annotations

import logging
import uuid

from ..errors import (
    AccessError,
    BackendError,
    CheckpointLost,
    KeyColumnError,
    QueryError,
    SchemaError,
    StaleFrameError,
    SyncError,
    TransientError,
)
from .exchange import Refusal
from .limits import RETRY_AFTER_S

log = logging.getLogger("syncframe.server")


def refusal_of(error: BaseException) -> Refusal:
    """Return how `error` is answered; what nobody foresaw is logged with its traceback."""
    if isinstance(error, Refusal):
        return error
    kind = type(error).__name__
    if isinstance(error, CheckpointLost):
        return Refusal(410, error.message, hint=error.hint, kind=kind)
    if isinstance(error, QueryError | SchemaError) and not isinstance(error, StaleFrameError):
        return Refusal(400, error.message, hint=error.hint, kind=_public(error))
    if isinstance(error, TransientError):
        after = max(1, round(error.retry_after_s or RETRY_AFTER_S))
        headers = {"retry-after": str(after)}
        words = "the back end cannot answer now, or not in time"
        return Refusal(503, words, kind=kind, headers=headers, id=_logged(error))
    if isinstance(error, AccessError):
        return Refusal(403, "the back end refuses that", kind=kind, id=_logged(error))
    if isinstance(error, BackendError) and error.status is not None and 400 <= error.status < 500:
        more = {name: value for name in ("code", "column") if (value := getattr(error, name, None)) is not None}
        return Refusal(error.status, error.message, hint=error.hint, kind=kind, **more)
    if isinstance(error, SyncError):
        words = "the back end answered, and not as agreed"
        return Refusal(
            502, words, hint="the server's log has more under this id", kind="BackendError", id=_logged(error)
        )
    words = "something went wrong here that should not"
    return Refusal(500, words, hint="the server's log has more under this id", id=_logged(error, unforeseen=True))


def _public(error: SyncError) -> str:
    for kind in (KeyColumnError, QueryError, SchemaError):
        if isinstance(error, kind):
            return kind.__name__
    return "SyncError"


def _logged(error: BaseException, *, unforeseen: bool = False) -> str:
    id_ = uuid.uuid4().hex[:12]
    if unforeseen:
        log.error("%s: %s", id_, type(error).__name__, exc_info=error)
    else:
        log.warning("%s: %s: %s", id_, type(error).__name__, error)
    return id_
