"""How far long work is: a bar after half a second, a callable, or nothing; and the stop button that ends it."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import duckdb

from .words import line

Told = Callable[[int, int | None, str], object]
S = TypeVar("S")
DELAY_S = 0.5
_STOPPED = "Query interrupted"  # what DuckDB makes of the KeyboardInterrupt that it has swallowed


# The stop button


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """While DuckDB works the stop button surfaces as an error of DuckDB's: raise the KeyboardInterrupt that it was."""
    try:
        yield
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if str(error) != _STOPPED:
            raise
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def ended(stream: S) -> Iterator[S]:
    """End a back end's stream with the work: a kernel keeps what was stopped, and its connection, in a traceback."""
    try:
        yield stream
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()


# How far it is


class Runs:
    """The progress of one call that is several runs.

    A callable's figures go on from run to run under each name, and a bar's half second is counted from the call's
    beginning.
    """

    def __init__(self, progress: object) -> None:
        self.progress = progress
        self.began = time.monotonic()
        self._before: dict[str, tuple[int, int]] = {}

    @contextlib.contextmanager
    def told(self, tell: Told) -> Iterator[Told]:
        """What one run tells, put on what those before it have told."""
        now: dict[str, tuple[int, int]] = {}

        def told(done: int, total: int | None, what: str) -> None:
            done_before, total_before = self._before.get(what, (0, 0))
            now[what] = done_before + done, total_before + (total or 0)
            tell(now[what][0], None if total is None else now[what][1], what)

        try:
            yield told
        finally:
            self._before |= now


def runs(progress: object) -> object:
    """What to hand on as `progress` where one call makes several runs."""
    return progress if progress is False or isinstance(progress, Runs) else Runs(progress)


@contextlib.contextmanager
def told(progress: object, unit: str) -> Iterator[Told]:
    """Give what is called with (done, total or None, what); what it raises stops the work.

    Parameters
    ----------
    progress
        None: a tqdm bar once the work takes over half a second; False: none; a callable: that; or `runs` of these.
    """
    given = progress.progress if isinstance(progress, Runs) else progress
    if given is False:
        yield lambda done, total, what: None
    elif not callable(given):
        with _bar(unit, progress.began if isinstance(progress, Runs) else time.monotonic()) as bar:
            yield bar
    elif isinstance(progress, Runs):
        with progress.told(given) as tell:
            yield tell
    else:
        yield given


@contextlib.contextmanager
def _bar(unit: str, began: float) -> Iterator[Told]:
    bar = _Bar(unit, began)
    try:
        yield bar.moved
    finally:
        bar.close()


class _Bar:
    """A bar that is made when the work has taken half a second, and gone when it ends, however it ends."""

    def __init__(self, unit: str, began: float) -> None:
        self.unit, self.began = unit, began
        self._shown: Any = None
        self._output: Any = None  # of a notebook

    def moved(self, done: int, total: int | None, what: str) -> None:
        took_s = time.monotonic() - self.began
        if self._shown is None:
            if took_s < DELAY_S:
                return
            self._show(total, what, took_s)
        bar = self._shown
        bar.set_description_str(line(what), refresh=False)
        bar.update(done - bar.n)

    def _show(self, total: int | None, what: str, took_s: float) -> None:
        tqdm, is_notebook = _tqdm()
        # Neither shows itself before it has figures; a notebook's is shown below, to be taken away again.
        how: dict[str, Any] = {"display": False} if is_notebook else {"delay": 1e-9}
        self._shown = bar = tqdm(desc=line(what), total=total, unit=f" {self.unit}", leave=False, **how)
        bar.start_t -= took_s
        bar.last_print_t = bar.start_t
        if is_notebook:
            import IPython.display

            show: Any = IPython.display.display
            self._output = show(bar.container, display_id=True)

    def close(self) -> None:
        bar, self._shown = self._shown, None
        if bar is None:
            return
        bar.total = None  # stopped before its end, a notebook's would stay, in red
        bar.close()
        if self._output is not None:
            for widget in (*bar.container.children, bar.container):
                widget.close()
            # Of a closed widget a saved notebook would show an error.
            self._output.update({"text/plain": ""}, raw=True)


def _tqdm() -> tuple[Any, bool]:
    """The bar for where this runs, and whether it is a notebook's."""
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # without ipywidgets a bar of text does
        from tqdm.auto import tqdm
    return tqdm, hasattr(tqdm, "status_printer") and tqdm.__mro__[1].__name__ == "tqdm_notebook"
