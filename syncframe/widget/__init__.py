"""The widget of a context: pending operations and conflicts, live in a notebook.

Its traits hold counts and how far work is, for they end up in saved notebooks; rows and words of errors come by
messages, which `desk` answers.  A thread follows the store, so that what a cell, another view or another
process does is shown within a second.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from pathlib import Path

import anywidget
import traitlets

from ..context import SyncContext
from ..errors import SyncError
from .desk import Desk, Message

POLL_S = 0.3
# A look at a large queue takes its time; the rest is left to others.
REST = 4

log = logging.getLogger("syncframe")
_STATIC = Path(__file__).parent / "static"


class SyncWidget(anywidget.AnyWidget):
    """Pending operations and conflicts of one context; `SyncContext.widget` makes it."""

    _esm = _STATIC / "widget.js"
    _css = _STATIC / "widget.css"
    summary = traitlets.Dict().tag(sync=True)
    rev = traitlets.Int(0).tag(sync=True)
    progress = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)

    def __init__(self, context: SyncContext) -> None:
        self._sending = threading.RLock()  # traits and messages come from several threads
        self._is_over = threading.Event()
        self._watcher: threading.Thread | None = None
        self.desk = Desk(context)
        self.desk.refresh()
        super().__init__(summary=self.desk.summary, rev=self.desk.rev)
        self.desk.on_change, self.desk.on_progress, self.desk.on_end = self._show, self._show_progress, self._tell
        self.on_msg(self._asked)

    @property
    def is_over(self) -> bool:
        """Whether it was closed, or its host has closed the way to its views."""
        return self._is_over.is_set() or getattr(self.comm, "_closed", False)

    def close(self) -> None:
        self._is_over.set()
        super().close()

    def _asked(self, _: object, message: object, buffers: object) -> None:
        if not isinstance(message, dict) or message.get("t") != "ask":
            return
        if message.get("what") == "hello":
            self._watch()
        self._tell(self.desk.answer(message))

    def _tell(self, message: Message) -> None:
        with self._sending:
            self.send(message)

    def _show(self) -> None:
        with self._sending, self.hold_sync():
            self.summary, self.rev = self.desk.summary, self.desk.rev

    def _show_progress(self, progress: Message | None) -> None:
        with self._sending:
            self.set_trait("progress", progress)

    def _watch(self) -> None:
        """Follow the store from the first view on."""
        with self._sending:
            if self._watcher is None and not self._is_over.is_set():
                self._watcher = threading.Thread(
                    target=_follow, args=(weakref.ref(self), self._is_over), name="syncframe-widget", daemon=True
                )
                self._watcher.start()


def _follow(widget: weakref.ref[SyncWidget], is_over: threading.Event) -> None:
    pause = POLL_S
    while not is_over.wait(pause):
        found = widget()
        if found is None:
            return
        if found.is_over:
            found.close()  # else ipywidgets would keep it for good
            return
        began = time.monotonic()
        try:
            found.desk.follow()
        except SyncError as error:  # held by another for long: the next look will do
            log.debug("the widget could not look: %s", error)
        except Exception:
            log.exception("the widget could not look; it tries again")
        del found
        pause = max(POLL_S, REST * (time.monotonic() - began))
