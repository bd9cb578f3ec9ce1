"""How far long work is: a bar after half a second, a callable, or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

Told = Callable[[int, int | None, str], object]
DELAY_S = 0.5


@contextlib.contextmanager
def told(progress: object, what: str, unit: str) -> Iterator[Told]:
    """Give what is called with (done, total or None, what); what it raises stops the work.

    Parameters
    ----------
    progress
        None: a tqdm bar once the work takes over half a second; False: none; a callable: that.
    """
    if progress is False:
        yield lambda done, total, what: None
    elif callable(progress):
        yield progress
    else:
        with _bar(what, unit) as bar:
            yield bar


@contextlib.contextmanager
def _bar(what: str, unit: str) -> Iterator[Told]:
    from tqdm.auto import tqdm

    bar: Any = tqdm(desc=what, unit=f" {unit}", delay=DELAY_S, leave=False)

    def moved(done: int, total: int | None, what: str) -> None:
        bar.total = total
        bar.set_description(what, refresh=False)
        bar.update(done - bar.n)

    try:
        yield moved
    finally:
        bar.close()
