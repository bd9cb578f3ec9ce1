"""What can go wrong, as one family.

SyncError                  .hint says what to do next
  SchemaError              the data does not fit the table                  (also a ValueError)
    KeyColumnError         a key is missing or repeated                     (also a KeyError)
    StaleFrameError        nothing to diff against, or rows moved since and the frame cannot say how
  DeleteGuardError         more rows would be deleted than max_deletes allows
  QueryError               a `where` that cannot be parsed or asked         (also a ValueError)
  StoreError               the local file is damaged, newer than this version, or held by another process
  PendingError             refused while operations are pending
  CheckpointLost           the back end no longer knows the place where a pull stopped
  BackendError             the back end answered, and not as agreed; carries .status and .detail
    TransientError         may succeed later: offline, timeout, 429, 503; carries .retry_after_s
    AccessError            401 or 403: retrying will not help

A conflict is no error: it is an outcome, and stands in the PushResult.
"""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import Any


class SyncError(Exception):
    """Anything syncframe refuses or cannot do; `hint` says what to do next."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: one's own lines and what went wrong, not the hundred frames between them."""
        inner = (str(Path(__file__).parent), *map(sysconfig.get_path, ("purelib", "platlib", "stdlib")))
        frames = traceback.extract_tb(self.__traceback__)
        own = [frame for frame in frames if frame.line and not frame.filename.startswith(inner)]
        lines = "".join(traceback.format_list(own)).splitlines()
        return [*(["Traceback (most recent call last):", *lines] if lines else []), f"{type(self).__name__}: {self}"]


class SchemaError(SyncError, ValueError):
    """The data does not fit the table: an unknown column, a value of another type, a missing value."""


class KeyColumnError(SchemaError, KeyError):
    """A key is missing, repeated, unknown or not to be told from the frame."""

    # KeyError shows the repr of its argument, which would put a sentence in quotes.
    __str__ = SyncError.__str__


class StaleFrameError(SchemaError):
    """There is no snapshot to compare with, or rows moved since and the frame cannot say who edited what."""


class DeleteGuardError(SyncError):
    """More rows would be deleted than the guard allows; nothing was changed."""


class QueryError(SyncError, ValueError):
    """A `where` that cannot be parsed, or not asked of this back end with the same meaning."""


class StoreError(SyncError):
    """The local file cannot be read, is newer than this version, or is held by another process."""


class PendingError(SyncError):
    """Refused while operations are pending, because they would be lost or sent to the wrong place."""


class CheckpointLost(SyncError):
    """The back end no longer knows the place where the last pull stopped; pull everything again."""


class BackendError(SyncError):
    """The back end answered, and not as agreed."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        detail: str | None = None,
        row: dict[str, Any] | None = None,
        code: str | None = None,
        column: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.detail = detail
        self.row = row
        self.code = code  # of a refused row: why, as in Outcomes
        self.column = column


class TransientError(BackendError):
    """The back end could not answer now; nothing is lost, the operations stay queued."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        detail: str | None = None,
        retry_after_s: float | None = None,
        was_sent: bool = True,
    ) -> None:
        super().__init__(message, hint=hint, status=status, detail=detail)
        self.retry_after_s = retry_after_s
        # False: certainly nothing reached the back end, so that what was to be sent need not count as attempted.
        self.was_sent = was_sent


class AccessError(BackendError):
    """401 or 403: the back end knows who asks, or does not, and says no."""

    was_sent = True  # False: certainly nothing of what was pushed was applied, as with TransientError
