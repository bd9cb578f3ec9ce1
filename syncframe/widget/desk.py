"""What each message of the widget asks, answered from one context; nothing here knows a front end.

Every message is answered, with data or with an error in words.  Long work runs in a thread of its own, so that the
kernel goes on; it tells how far it is, stops at its next step when it is cancelled, and ends with a message.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..context import SyncContext
from ..editor import Choice, Editor
from ..errors import SyncError
from ..file import MEMORY
from ..pages import HISTORY_ROWS_MAX, KINDS, PAGE_ROWS_MAX, WORDS_CHARACTERS, Done, Pages
from ..pull import PullResult
from ..push import PushResult
from ..sides import KINDS as CONFLICT_KINDS
from ..words import many

TELL_S = 0.2
REJECTIONS_SHOWN = 3
OFFSET_MAX = 2**62

log = logging.getLogger("syncframe")

Message = dict[str, Any]
Args = Mapping[str, Any]


class Desk:
    """Answers messages, and runs a push or a pull at a time.

    It calls `on_change` when `summary` or `rev` has changed, `on_progress` with how far the work is or None when it
    is over, and `on_end` with the message of its end; each from the thread that did it.
    """

    def __init__(self, context: SyncContext) -> None:
        self._context = context
        self._session = context._session
        self._pages = Pages(self._session.store, self._session.queue)
        self._editor = Editor(self._session.store, self._session.queue)
        self.on_change: Callable[[], object] = lambda: None
        self.on_progress: Callable[[Message | None], object] = lambda progress: None
        self.on_end: Callable[[Message], object] = lambda message: None
        self._looking = threading.Lock()  # so that an older look is never shown after a newer one
        self._starting = threading.Lock()
        self._mark: object = None
        self._stamp: object = None
        self._work: _Work | None = None
        self._works = 0
        self.summary: Message = {}
        self.rev = 0
        self.progress: Message | None = None
        self.last_ended: Message | None = None
        self._answers: dict[str, Callable[[Args], Message]] = {
            "hello": self._hello,
            "pending": self._pending,
            "conflicts": self._conflicts,
            "conflict": self._conflict,
            "history": self._history,
            "cell": self._cell,
            "value": self._value,
            "discard": self._discard,
            "retry": self._retry,
            "mend": self._mend,
            "settle": self._settle,
            "resolve": self._resolve,
            "undo": self._undo,
            "push": lambda args: self._start("push", args),
            "pull": lambda args: self._start("pull", args),
            "cancel": self._cancel,
        }

    # -- messages

    def answer(self, message: Args) -> Message:
        """The answer to one message; what goes wrong is an answer too."""
        head = {"t": "answer", "id": message.get("id")}
        try:
            return {**head, "ok": True, "data": self._answered(message.get("what"), message.get("args"))}
        except (Exception, KeyboardInterrupt) as error:  # the stop button too: a view waits for its answer
            return {**head, "ok": False, "error": error_words(error)}

    def _answered(self, what: object, args: object) -> Message:
        answer = self._answers.get(what) if isinstance(what, str) else None
        if answer is None:
            raise SyncError(f"message {what!r:.80} is not known", hint=f"one of {', '.join(self._answers)}")
        if args is not None and not isinstance(args, Mapping):
            raise SyncError(f"the arguments of {what!r} are a {type(args).__name__}, not names with values")
        return answer(args or {})

    def _hello(self, args: Args) -> Message:
        self.refresh()
        return {"summary": self.summary, "rev": self.rev, "progress": self.progress, "ended": self.last_ended}

    def _pending(self, args: Args) -> Message:
        return self._pages.pending(_table(args), _kind(args), *_window(args))

    def _conflicts(self, args: Args) -> Message:
        return self._pages.conflicts(_table(args), _kind(args, CONFLICT_KINDS), *_window(args))

    def _conflict(self, args: Args) -> Message:
        return self._editor.conflict(_text(args, "id"))

    def _history(self, args: Args) -> Message:
        return {"rows": self._pages.history(_number(args, "limit", 1, HISTORY_ROWS_MAX))}

    def _cell(self, args: Args) -> Message:
        of, side = _one_of(args, "of", ("pending", "conflicts")), _one_of(args, "side", _SIDES)
        return self._pages.cell(of, _text(args, "id"), _text(args, "column"), side)

    def _value(self, args: Args) -> Message:
        _one_of(args, "of", ("pending", "conflicts"))
        return {"value": self._editor.value(_text(args, "id"), _text(args, "column"), _text_if_any(args, "text"))}

    def _discard(self, args: Args) -> Message:
        if "shown" in args:
            shown = _mapping(args, "shown")
            act = partial(self._pages.discard_shown, _table(shown), _kind(shown), _rev(args))
        else:
            act = partial(self._pages.discard, _texts(args, "ids"), _rev_if_any(args))
        done = self._taken_back(act)
        return self._after(done, rows=done.rows)

    def _retry(self, args: Args) -> Message:
        done = self._pages.retry(_texts(args, "ids"))
        return self._after(done, rows=done.rows)

    def _settle(self, args: Args) -> Message:
        side = _one_of(args, "side", ("mine", "theirs", "merge"))
        if "shown" in args:
            shown = _mapping(args, "shown")
            done = self._pages.settle_shown(side, _table(shown), _kind(shown, CONFLICT_KINDS), _rev(args))
        else:
            done = self._pages.settle(side, _versions(args, "rows"), _rev_if_any(args))
        return self._after(done, settled=done.rows, late=done.late)

    def _resolve(self, args: Args) -> Message:
        row = None if args.get("row") is None else _one_of(args, "row", ("keep", "delete"))
        version = _text_if_any(args, "version")
        done = self._editor.resolve(_text(args, "id"), version, _rev(args), _choices(args, _CELL_SIDES), row)
        return self._after(done, settled=done.rows, late=done.late)

    def _mend(self, args: Args) -> Message:
        done = self._editor.mend(_text(args, "id"), _rev(args), _choices(args, ()))
        return self._after(done, rows=done.rows, late=done.late)

    def _undo(self, args: Args) -> Message:
        return self._after(self._taken_back(self._pages.undo))

    def _taken_back(self, act: Callable[[], Done]) -> Done:
        """Give up edits, and note in the same go that frames handed out before still show them."""
        with self._session.store.transaction():
            done = act()
            for table in done.tables:
                self._session.taken_back(table)
        return done

    def _after(self, done: Done, **counts: int) -> Message:
        """Who has acted sees at once what came of it; where it cannot be read now, it is done all the same."""
        try:
            self.refresh()
        except SyncError as error:  # the watcher looks again
            log.debug("the counts could not be read: %s", error)
        return {**counts, "words": done.words}

    # -- the summary

    def follow(self) -> bool:
        """Look again if something may have changed; return whether something has."""
        return self.refresh() if self._now() != self._stamp else False

    def refresh(self) -> bool:
        """Look again; return whether something has changed."""
        with self._looking:
            store = self._session.store
            with store.reading():
                stamp = self._now()  # while the file is held: what is written next will differ from it
                tables, can_undo, mark = self._pages.counts()
            asked_at = self._session.asked_at
            summary: Message = {
                "back_end": self._session.url,
                "store": store.path if store.path == MEMORY else Path(store.path).name,
                "online": self._session.is_online,
                "asked_at": asked_at.isoformat() if asked_at is not None else None,
                "tables": tables,
                "can_undo": can_undo,
            }
            self._stamp = stamp
            if (summary, mark) == (self.summary, self._mark):
                return False
            self.summary, self._mark = summary, mark
            self.rev += 1
            self.on_change()
            return True

    def _now(self) -> object:
        return self._session.store.file.stamp(), self._session.is_online, self._session.asked_at

    # -- push and pull

    def _start(self, what: str, args: Args) -> Message:
        tables = self._context._known(_tables(args))
        with self._starting:
            if self._work is not None:
                raise SyncError(f"a {self._work.what} is running", hint="cancel it, or wait until it has ended")
            self._works += 1
            work = self._work = _Work(self._works, what, self._told)
        threading.Thread(target=self._run, args=(work, tables), name=f"syncframe-{what}", daemon=True).start()
        return {"n": work.number}

    def _cancel(self, args: Args) -> Message:
        with self._starting:  # else it could say that it is cancelling what has ended
            if self._work is not None:
                self._work.cancel()
        return {}

    def _told(self, progress: Message | None) -> None:
        self.progress = progress
        self.on_progress(progress)

    def _run(self, work: _Work, tables: list[str] | None) -> None:
        head = {"t": "ended", "n": work.number, "what": work.what}
        message: Message = {**head, "ok": False, "words": "", "is_cancelled": False, "error": None}
        try:
            work.tell(0, None, work.what)
            message |= self._push(work, tables) if work.what == "push" else self._pull(work, tables)
        except _Cancelled:
            message |= {"is_cancelled": True, "words": self._cancelled(work)}
        except BaseException as error:  # whatever it was: a view waits for the end
            if not isinstance(error, SyncError):
                log.exception("the %s that the widget started failed", work.what)
            message |= {"error": error_words(error), "words": self._failed(work)}
        self._end(message)

    def _end(self, message: Message) -> None:
        """Say that the work is over: first what it changed, so that the message finds it shown."""
        with self._starting:
            self.last_ended = message
            self._work = None
            self._told(None)
        try:
            self.refresh()
        except Exception:
            log.exception("the counts could not be read after the %s", message["what"])
        self.on_end(message)

    def _push(self, work: _Work, tables: list[str] | None) -> Message:
        result = self._context.push(tables, progress=work.tell)
        error = error_words(result.stopped_by) if result.stopped_by is not None else None
        return {"ok": error is None, "error": error, "words": "\n".join(self._pushed(result, tables))}

    def _pushed(self, result: PushResult, tables: list[str] | None) -> list[str]:
        """What a push did, and the first rejections in the back end's words."""
        counts = result.counts
        queued = result.left - counts["conflicts"] - counts["rejected"]
        if not result.did_anything and not result.left:
            return ["nothing was queued"]
        parts = [f"{counts['accepted']:,} accepted", many(counts["conflicts"], "conflict")]
        parts += [f"{counts['rejected']:,} rejected"] + [f"{queued:,} still queued"] * (queued > 0)
        lines = [", ".join(parts)]
        if counts["rejected"]:
            lines += [_rejection(row) for row in self._rejected(tables)]
        if result.unsure:
            lines.append(f"in {many(result.unsure, 'conflict')} your own change may be already: its answer was lost")
        return lines

    def _rejected(self, tables: list[str] | None) -> list[Message]:
        names: Sequence[str | None] = tables or [None]
        pages = [self._pages.pending(name, "rejected", 0, REJECTIONS_SHOWN)["rows"] for name in names]
        return [row for page in pages for row in page][:REJECTIONS_SHOWN]

    def _pull(self, work: _Work, tables: list[str] | None) -> Message:
        result = self._context.pull(tables, progress=work.tell)
        return {"ok": True, "words": "\n".join(self._pulled(result))}

    def _pulled(self, result: PullResult) -> list[str]:
        lines = [f"{name}: {_brought(part)}" for name, part in result.tables.items()]
        lines += [f"{name}: never pulled here, so it was skipped" for name in result.skipped]
        if result.pushed is not None and result.pushed.accepted:
            lines += [f"before it, pushed: {line}" for line in self._pushed(result.pushed, None)[:1]]
        return lines + result.notes or ["no tables yet"]

    def _cancelled(self, work: _Work) -> str:
        if work.what == "pull":
            return f"cancelled after {many(work.done, 'row')}: what came is kept, the next pull goes on from there"
        return f"cancelled after {many(work.done, 'operation')}; {self._queued()}"

    def _failed(self, work: _Work) -> str:
        return f"the {work.what} did not finish; {self._queued()}"

    def _queued(self) -> str:
        """How many operations wait; read anew, for the work may have sent some."""
        try:
            with self._session.store.reading() as cursor:
                count = self._session.queue.pending(cursor)
        except Exception:  # the work has failed already; its own error is told
            return "what is queued stays queued"
        return f"{many(count, 'operation')} still queued" if count else "nothing is queued"


class _Cancelled(Exception):
    """Raised in the work's own thread at its next step; what it has finished stays."""


class _Work:
    """One push or pull under way."""

    def __init__(self, number: int, what: str, show: Callable[[Message | None], None]) -> None:
        self.number, self.what, self.done = number, what, 0
        self._show = show
        self._showing = threading.Lock()  # so that "cancelling" is never overtaken by what was so before it
        self._is_cancelled = threading.Event()
        self._told_at = 0.0
        self._last: tuple[int, int | None, str] = (0, None, what)

    def tell(self, done: int, total: int | None, what: str) -> None:
        """Show how far it is, at most five times a second; raise where it was cancelled."""
        self.done, self._last = done, (done, total, what)
        if self._is_cancelled.is_set():
            raise _Cancelled
        if time.monotonic() - self._told_at >= TELL_S:
            self._told_at = time.monotonic()
            self._show_now()

    def cancel(self) -> None:
        self._is_cancelled.set()
        self._show_now()

    def _show_now(self) -> None:
        with self._showing:
            self._show(self._progress())

    def _progress(self) -> Message:
        done, total, what = self._last
        words = "operations" if what == "push" else what.removeprefix("pull").strip()
        is_cancelling = self._is_cancelled.is_set()
        return {"what": self.what, "done": done, "total": total, "words": words, "is_cancelling": is_cancelling}


def error_words(error: BaseException) -> Message:
    """An error as a front end shows it."""
    message = error.message if isinstance(error, SyncError) else str(error) or "no words were given"
    hint = error.hint if isinstance(error, SyncError) else None
    return {"type": type(error).__name__, "message": _sendable(message), "hint": hint and _sendable(hint)}


def _sendable(text: str) -> str:
    return text[:WORDS_CHARACTERS].encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be sent


def _rejection(row: Message) -> str:
    error = row["error"]
    return f"rejected: {row['kind']} of {row['table']} {row['key']}: {error['message'] or error['code']}"


def _brought(part: PullResult) -> str:
    conflicts = [many(part.conflicts, "conflict")] * bool(part.conflicts)
    return ", ".join([*part.brought(), *conflicts]) or "nothing new"


# Arguments: what does not fit is refused in words

_SIDES = ("base", "local", "mine", "theirs")
_CELL_SIDES = ("base", "mine", "theirs")


def _given(args: Args, name: str) -> Any:
    if name not in args:
        raise SyncError(f"argument {name!r} is missing")
    return args[name]


def _refused(name: str, value: object, wanted: str) -> SyncError:
    return SyncError(f"argument {name!r} is {value!r:.80}", hint=f"expected: {wanted}")


def _text(args: Args, name: str) -> str:
    value = _given(args, name)
    if not isinstance(value, str):
        raise _refused(name, value, "a text")
    return value


def _text_if_any(args: Args, name: str) -> str | None:
    return None if _given(args, name) is None else _text(args, name)


def _table(args: Args) -> str | None:
    return None if args.get("table") is None else _text(args, "table")


def _kind(args: Args, known: Iterable[str] = KINDS) -> str | None:
    return None if args.get("kind") is None else _one_of(args, "kind", tuple(known))


def _one_of(args: Args, name: str, known: Sequence[str]) -> str:
    value = _text(args, name)
    if value not in known:
        raise _refused(name, value, f"one of {', '.join(known)}")
    return value


def _number(args: Args, name: str, least: int, most: int) -> int:
    value = _given(args, name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _refused(name, value, f"a whole number from {least:,} to {most:,}")
    return value


def _rev(args: Args) -> int:
    return _number(args, "rev", 0, OFFSET_MAX)


def _rev_if_any(args: Args) -> int | None:
    return None if args.get("rev") is None else _rev(args)


def _window(args: Args) -> tuple[int, int]:
    return _number(args, "offset", 0, OFFSET_MAX), _number(args, "limit", 1, PAGE_ROWS_MAX)


def _mapping(args: Args, name: str) -> Args:
    value = _given(args, name)
    if not isinstance(value, Mapping):
        raise _refused(name, value, "names with values")
    return value


def _texts(args: Args, name: str) -> list[str]:
    value = _given(args, name)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _refused(name, value, "a list of texts")
    return value


def _tables(args: Args) -> list[str] | None:
    return None if args.get("tables") is None else _texts(args, "tables")


def _versions(args: Args, name: str) -> list[tuple[str, str | None]]:
    value = _given(args, name)
    is_list = isinstance(value, list) and all(isinstance(row, list) and len(row) == 2 for row in value)
    if not is_list or not all(isinstance(id_, str) and isinstance(v, str | None) for id_, v in value):
        raise _refused(name, value, "a list of [id, version]")
    return [(id_, version) for id_, version in value]


def _choices(args: Args, sides: Sequence[str]) -> dict[str, Choice]:
    """What was chosen for each column: one of the sides, a text, or NULL."""
    return {name: _choice(name, chosen, sides) for name, chosen in _mapping(args, "cells").items()}


def _choice(column: str, chosen: object, sides: Sequence[str]) -> Choice:
    match chosen:
        case {"side": str(side)} if side in sides:
            return Choice(side=side)
        case {"text": str(text)}:
            return Choice(text=text)
        case {"null": True}:
            return Choice()
    known = [f'{{"side": one of {", ".join(sides)}}}'] * bool(sides) + ['{"text": ...}', '{"null": true}']
    raise _refused(f"cells.{column}", chosen, " or ".join(known))
