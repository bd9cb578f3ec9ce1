"""How long a request is tried again, and how long is waited in between.

One loop for the whole client: the caller knows what may be repeated, this knows when to give up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ...errors import TransientError

WAIT_FIRST_S, WAIT_MAX_S = 0.1, 10.0
TRIES_MAX = 6
REPEATED = (408, 429, 500, 502, 503, 504)
NOT_APPLIED = (429, 503)  # the service says that it did not take the request up
TRIES_500_MAX = 3  # most often it is what the service always says to this request


@dataclass(slots=True)
class Patience:
    """What is left of the tries of one request.

    Parameters
    ----------
    wait_max_s
        How long is waited in all, the time that failed tries took among it; a `Retry-After` beyond it ends them
        at once.
    sleep, random, clock
        Injected by tests; `random` gives a number in [0, 1).
    stopped
        Whether nobody waits for the answer any more.
    requests
        How many were made, those of a redirect and a renewed token among them.
    """

    wait_max_s: float
    sleep: Callable[[float], None]
    random: Callable[[], float]
    clock: Callable[[], float] = time.monotonic
    stopped: Callable[[], bool] = lambda: False
    tries: int = field(default=0, init=False)
    requests: int = field(default=0, init=False)
    waited_s: float = field(default=0.0, init=False)
    was_sent: bool = field(default=False, init=False)
    _began: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def wait(self, error: TransientError, *, may_repeat: bool = True) -> None:
        """Sleep before the next try; raise `error` if there is to be none.

        Parameters
        ----------
        may_repeat
            Whether the request does no harm when the service has it already: a GET, a push whose operations
            have ids.  Another one is repeated only if it certainly was not applied.
        """
        self.tries += 1
        self.was_sent = self.was_sent or error.was_sent
        wait_s = self._wait_s(error)
        passed_s = max(self.waited_s, self.clock() - self._began)
        if not self._repeats(error, may_repeat) or passed_s + wait_s > self.wait_max_s:
            # That the last try did not get through says nothing of those before it.
            error.was_sent = self.was_sent
            raise error
        self.waited_s += wait_s
        self.sleep(wait_s)
        if self.stopped():
            error.was_sent = self.was_sent
            raise error

    def renew(self) -> None:
        """Something came: what was waited for before it does not count any more."""
        self.tries, self.waited_s, self._began = 0, 0.0, self.clock()

    def _repeats(self, error: TransientError, may_repeat: bool) -> bool:
        if self.tries >= (TRIES_500_MAX if error.status == 500 else TRIES_MAX):
            return False
        if error.status is not None and error.status not in REPEATED:
            return False
        return may_repeat or not error.was_sent or error.status in NOT_APPLIED

    def _wait_s(self, error: TransientError) -> float:
        if error.retry_after_s is not None:
            return error.retry_after_s
        # Full jitter: of many clients that lost one service, no two come back together.
        return self.random() * min(WAIT_MAX_S, WAIT_FIRST_S * 2.0 ** (self.tries - 1))
