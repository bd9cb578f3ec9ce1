"""Where a pull of a plain service stopped, as the checkpoint that a store keeps.

A place is a stamp as the wire has it, in milliseconds, and an id: the last row that was read of a stream in the
order of both.  The service's stamps are its own clock's and rows may come late under them, so that the next run
begins at the earlier of its place and its start by that clock less the overlap.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import BackendError, CheckpointLost
from ...wire import ID, UPDATED_AT
from ..base import Checkpoint

Place = tuple[str, str]  # a stamp and an id; without an id: from the stamp on

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]00:00)", re.ASCII)
_MS = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class State:
    """What a checkpoint says.

    Parameters
    ----------
    full_at
        When the last full run began, by this side's clock (seconds since 1970).
    live
        While a full run reads what is there, in the order of ids: the last id ("": none yet); None: it has read all.
    changed
        Where the stream of the query's own changes goes on; None: at its beginning.
    all_changed
        The same of the stream without the filter, never later than `changed`; a query without one has none.
    """

    full_at: float
    live: str | None = None
    changed: Place | None = None
    all_changed: Place | None = None

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(json.dumps({"plain": 1, **asdict(self)}))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> State:
        try:
            told = json.loads(checkpoint)
            if told.pop("plain") != 1:
                raise ValueError(checkpoint)
            return cls(float(told["full_at"]), told["live"], _pair(told["changed"]), _pair(told["all_changed"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointLost(f"the checkpoint {str(checkpoint)[:100]!r} is not of such a service") from error


def _pair(told: Any) -> Place | None:
    if told is None:
        return None
    stamp, id_ = told
    return str(stamp), str(id_)


def place_of(table: str, found: dict[str, Any]) -> Place:
    """A row's place in the order of stamps and ids."""
    match = _STAMP.fullmatch(str(found.get(UPDATED_AT)))
    if match is None:
        raise BackendError(
            f"row {found.get(ID)!r} of table {table!r} has the updatedAt {str(found.get(UPDATED_AT))[:40]!r}, "
            "by which no pull can find what changed",
            hint="the service has to stamp every row when it is written",
        )
    # Cut, not rounded: a row behind the place comes again, one before it never would.
    return f"{match[1]}.{(match[2] or '')[:3]:0<3}Z", str(found.get(ID))


def next_ms(stamp: str) -> str:
    return stamp_of(dt.datetime.fromisoformat(stamp) + _MS)


def stamp_of(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def earlier(place: Place | None, other: Place | None) -> Place | None:
    """The earlier of two places; None is before all."""
    return None if place is None or other is None else min(place, other)
