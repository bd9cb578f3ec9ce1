"""What the tables of one context share: the store, the queue, the back end, and the frames that were handed out."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import uuid
import weakref
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa

from .backends import Backend
from .backends import open as open_backend
from .backends.base import Promises
from .conflict import check_policy
from .errors import BackendError, KeyColumnError, SyncError, TransientError
from .frame import Snapshots
from .plan import Plan, PushPlan, standing
from .progress import runs
from .pull import Pull, PullResult
from .push import Push, PushResult, belong
from .queue import Queue
from .store import Store, utc_now
from .words import many

_SECRET = re.compile(r"(?<=[?&])([^=&]*(?:token|key|password|secret|sig)[^=&]*)=[^&]*", re.IGNORECASE)


class Session:
    """One store and one back end; opened lazily, so that nothing is asked before the first pull or push."""

    def __init__(
        self, url: str | Backend | None, store: Store, on_conflict: object, options: Mapping[str, Any]
    ) -> None:
        self.store = store
        self.queue = Queue(store)
        self.snapshots = Snapshots()
        self.on_conflict = on_conflict
        self.backend = open_backend(url, memory=_Memory(store), **options) if isinstance(url, str) else url
        self.url = redacted(url) if isinstance(url, str) else (type(url).__name__ if url is not None else "no back end")
        if isinstance(url, str) and same_file(str(getattr(self.backend, "path", "")), store.path):
            raise SyncError(
                f"{store.path} is named as the back end and as the store", hint="give the store a file of its own"
            )
        self.is_online: bool | None = None  # whether the back end answered when it was last asked; None: not asked yet
        self.asked_at: dt.datetime | None = None
        self._oldest: dict[str, int] = {}
        self._taken_back: dict[str, int] = {}
        self._made: list[weakref.ref[object]] = []

    # -- what was handed out

    def handed_out(self, table: str, revision: int) -> None:
        self._oldest.setdefault(table, revision)

    def oldest(self, table: str) -> int | None:
        """The store's revision when this process handed out its oldest frame of a table; None if it did not."""
        return self._oldest.get(table)

    def taken_back(self, table: str) -> None:
        """Remember that edits were taken back now: frames that were staged before still show them."""
        self._taken_back[table] = self.store.revision()

    def was_taken_back_since(self, table: str, revision: int) -> bool:
        return self._taken_back.get(table, 0) > revision

    def new_key(self) -> str:
        return str(uuid.uuid4())

    def made_without_writing(self, frame: object) -> None:
        """Remember an object that could not take the keys that were made for it."""
        try:
            self._made.append(weakref.ref(frame))
        except TypeError:  # it cannot be remembered; staged again it inserts again, as its documentation says
            return

    def refuse_second_making(self, frame: object) -> None:
        if any(reference() is frame for reference in self._made):
            raise KeyColumnError(
                "the new rows of this frame were staged already; their keys could not be written into it",
                hint="take them from Changes.inserts, or stage a pandas frame",
            )

    # -- the back end

    def asked(self) -> Backend:
        """The back end.

        Raises
        ------
        SyncError
            If this context was made without one.
        """
        if self.backend is None:
            raise SyncError("this context has no back end", hint='connect("sqlite:///...", store=...)')
        return self.backend

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Note where the back end does not answer, or refuses; where nothing is raised, it may not have been asked."""
        try:
            yield
        except BackendError as error:
            self._heard(error)
            raise

    def _heard(self, error: BaseException | None) -> None:
        self.is_online = not isinstance(error, TransientError)
        self.asked_at = utc_now()

    @contextlib.contextmanager
    def _queued(self, tables: Collection[str] | None, only: pa.Table | None) -> Iterator[None]:
        """Whoever hears that a push came to nothing hears that nothing is lost."""
        try:
            yield
        except BackendError as error:
            with self.store.reading() as cursor:
                count = self.queue.pending(cursor, tables, only)
            kept = f"{many(count, 'operation')} still queued"
            error.hint = f"{error.hint}; {kept}" if error.hint else kept
            raise

    def policy(self, given: object) -> object:
        """What holds for a call: what it says, else the context's."""
        return check_policy(given) if given is not None else self.on_conflict

    def promises(self, tracked: bool | None) -> str:
        """What the back end promises of a table, in words."""
        if tracked is None:
            return ""
        told: Promises = getattr(self.backend, "promises", Promises())
        words = ["reads only what changed" if tracked else "read in full each time"]
        words += ["sees deletes"] * told.sees_deletes + ["sees late commits"] * told.sees_late_commits
        words += ["exact types"] * told.exact_types + ["atomic push"] * told.atomic_push
        return ", ".join(words)

    # -- the procedures

    def push(
        self,
        tables: Collection[str] | None,
        *,
        until: int | None = None,
        on_conflict: object = None,
        settled: Collection[str] | None = None,
        atomic: bool = False,
        retry_rejected: bool = False,
        progress: object = None,
        plan: PushPlan | None = None,
    ) -> PushResult:
        policy = self.policy(on_conflict)
        with self.store.reading() as cursor:
            only = None if plan is None else standing(plan, self.queue, cursor, is_whole=atomic)
            waiting = self.queue.pending(cursor, tables, only)
        backend = self.asked() if waiting else self.backend
        push = Push(self.store, self.queue, backend, self.url)  # type: ignore[arg-type]
        with self._asking(), self._queued(tables, only):
            result = push.run(
                tables,
                until=until,
                policy=policy,
                settled=settled,
                atomic=atomic,
                retry_rejected=retry_rejected,
                progress=progress,
                only=only,
            )
        if push.outcomes:
            self._heard(result.stopped_by)
        return result

    def plan(self, tables: Collection[str] | None, *, check: bool) -> PushPlan:
        """What a push would send, and with `check` what the back end says of these rows."""
        backend = self.asked() if check else None
        making = Plan(self.store, self.queue, tables)
        plan = making.read(self)
        if backend is None:
            return plan
        if not plan:
            return making.checked(plan, backend)
        with self._asking():
            belong(self.store, self.queue, backend, self.url)
            plan = making.checked(plan, backend)
        self._heard(None)
        return plan

    def pull(
        self,
        table: str,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        query_id: str | bool | None = None,
        *,
        full: bool = False,
        push_first: bool = True,
        page_rows: int | None = None,
        progress: object = None,
        on_conflict: object = None,
    ) -> PullResult:
        """Push what is pending, pull, and settle by the policy what came into conflict."""
        policy = self.policy(on_conflict)
        if page_rows is not None and page_rows < 1:
            raise SyncError(
                f"page_rows={page_rows}: a page has at least one row", hint="page_rows=10_000, or leave it out"
            )
        backend = self.asked()
        progress = runs(progress)
        pull = Pull(self.store, self.queue, backend, table)
        with self._asking():
            pull.prepare(where, columns, query_id)
        pushed = self._push_before(table, policy, progress) if push_first else None
        with self._asking():
            moved = belong(self.store, self.queue, backend, self.url)
            result = pull.run(full=full, page_rows=page_rows, progress=progress)
        self._heard(None)
        result.pushed = pushed
        result.notes += [moved] if moved else []
        if policy != "fail":
            Push(self.store, self.queue, backend, self.url).settle_conflicts([table], policy)
            with self.store.reading() as cursor:
                result.conflicts = self.queue.counts(cursor, self.store.layout(cursor, table))["conflicts"]
        return result

    def _push_before(self, table: str, policy: object, progress: object) -> PushResult | None:
        """The whole queue up to this table's last operation, so that parents in other tables go along."""
        with self.store.reading() as cursor:
            last = self.queue.last_place(cursor, [table])
        if not last:
            return None
        result = self.push(None, until=last, on_conflict=policy, settled=[table], progress=progress)
        if result.stopped_by is not None:
            raise result.stopped_by
        return result

    def pull_all(self, tables: Collection[str], **options: Any) -> PullResult:
        """Every table with its stored queries; a table never pulled is named."""
        total = PullResult()
        options["progress"] = runs(options.get("progress"))
        for table in tables:
            with self.store.reading() as cursor:
                queries = self.store.queries(cursor, table)
            if not queries:
                total.skipped.append(table)
                continue
            parts = PullResult()
            for query in queries:
                part = self.pull(table, query.where, self.kept(table), query.query_id, **options)
                parts.pushed = parts.pushed or part.pushed
                parts.add(part)
            total.tables[table] = parts
            total.pushed = total.pushed or parts.pushed
            total.add(parts)
        return total

    def kept(self, table: str) -> tuple[str, ...] | None:
        state = self.store.state(table)
        return state.kept if state is not None else None

    def resync(self, table: str, progress: object) -> PullResult:
        result = self.pull_all([table], full=True, push_first=False, progress=progress)
        if not result.skipped:
            with self.store.transaction() as cursor:
                result.deleted += self.store.drop_strays(cursor, self.store.layout(cursor, table))
        return result

    def close(self) -> None:
        close = getattr(self.backend, "close", None)
        if close is not None:
            close()


class _Memory(MutableMapping[str, str]):
    """What a back end remembers about its service, such as its dialect, in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, name: str) -> str:
        value = self._store.remembered(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: str) -> None:
        self._store.remember(name, value)

    def __delitem__(self, name: str) -> None:
        self._store.remember(name, None)

    def __iter__(self) -> Iterator[str]:
        raise TypeError("what is remembered is asked for by name")

    def __len__(self) -> int:
        raise TypeError("what is remembered is asked for by name")


def redacted(url: str) -> str:
    """A URL without what is secret in it."""
    parts = urlsplit(url)
    if not parts.netloc:  # a file: urlunsplit would drop the slashes of an absolute path
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, _SECRET.sub(r"\1=...", "?" + parts.query)[1:], ""))


def same_file(one: str, other: str) -> bool:
    return other != ":memory:" and os.path.realpath(one) == os.path.realpath(other)


def expanded(path: object) -> str:
    """A path with ~ as people write it."""
    return str(path) if str(path) == ":memory:" else str(Path(str(path)).expanduser())
