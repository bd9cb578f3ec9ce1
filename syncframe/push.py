"""Push: send what is queued, in the order it was staged, and settle each outcome durably.

    take the lease -> next batch, marked as attempted -> send -> settle its outcomes -> again, until nothing is ready

Each arrow is a transaction of its own and the file is not held while the back end works.  Killed before a
batch is marked, nothing was sent.  Killed after it was marked, or the answer lost: the operations stay
attempted, are sent again with the same ids by the next push, and the back end recognises those it has
applied.  Killed between two outcomes: the settled ones are gone from the queue, the others are as above.
A conflict or a rejection is recorded on its operation and the rest goes on.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from . import words
from .backends.base import Backend, Operations, Outcomes, operation_schema
from .errors import AccessError, BackendError, SyncError, TransientError
from .file import Cursor
from .layout import Layout
from .operation import Operation
from .progress import Told, ended, told
from .queue import Batch, Queue
from .store import Store
from .views import Conflict, ConflictView, PendingView, Recalled, conflict_words, sent_operation, settle_by

POLICY_ROUNDS = 5
LEASE_POLL_S = 0.05
WORDS_SHOWN = 3

log = logging.getLogger("syncframe")


@dataclass(slots=True)
class PushResult:
    """What a push did, and what is left.

    Parameters
    ----------
    accepted
        The operations that the back end accepted, as they were sent.
    stopped_by
        None, or the error that stopped it; what was not sent is still queued.
    unsure
        How many conflicts may hold one's own change already: its answer was lost, and the back end, which
        knows no operation ids, has another row now.
    """

    accepted: Sequence[Operation]
    stopped_by: SyncError | None = None
    seconds: float = 0.0
    left: int = 0
    unsure: int = 0
    _conflicts: ConflictView | None = field(default=None, repr=False)
    _pending: PendingView | None = field(default=None, repr=False)
    _counts: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def conflicts(self) -> list[Conflict]:
        """The conflicts that stand, those of earlier pushes too."""
        return list(self._conflicts) if self._conflicts is not None else []

    @property
    def rejected(self) -> list[Operation]:
        """The operations that the back end refused, with its words; those of earlier pushes too."""
        return list(self._pending.rejected()) if self._pending is not None and self._counts.get("rejected") else []

    @property
    def counts(self) -> dict[str, int]:
        return {"accepted": len(self.accepted), "conflicts": 0, "rejected": 0, **self._counts}

    @property
    def did_anything(self) -> bool:
        """Something was sent, or waits for a decision."""
        return any(self.counts.values()) or self.stopped_by is not None

    @property
    def ok(self) -> bool:
        """Nothing is left of what was asked."""
        return self.stopped_by is None and not self.left

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return "\n".join([self._headline(), *(f"  {line}" for line in self._explained())])

    def _repr_html_(self) -> str:
        return words.html(words.paragraphs([self._headline(), *(f"  {line}" for line in self._explained())]))

    def _headline(self) -> str:
        """The counts, and what stopped it; nothing of a row."""
        counts = self.counts
        text = (
            f"PushResult: {counts['accepted']} accepted, {counts['conflicts']} conflicts, {counts['rejected']} rejected"
        )
        waiting = self.left - counts["conflicts"] - counts["rejected"]
        if self.stopped_by is not None:
            text += f"; stopped by {type(self.stopped_by).__name__}: {words.line(self.stopped_by.message)}"
        return text + (f"; {waiting:,} still queued" if waiting > 0 else "")

    def _explained(self) -> list[str]:
        """The first rejections and conflicts, why and where to look."""
        counts, lines = self.counts, []
        if not self.did_anything and not self.left:
            lines.append("nothing was pending; what you edit in a frame is sent after table.stage(frame)")
        if counts["rejected"] and self._pending is not None:
            for op in self._pending.first(WORDS_SHOWN, rejected=True):
                lines.append(
                    f"rejected: {op.kind} of {words.name(op.table)} {words.key(op.key)}: {words.line(op.error)}"
                )
            lines += words.left_out(counts["rejected"], WORDS_SHOWN)
            lines.append("ctx.pending has them; edit the row, or revert it; push(retry_rejected=True) sends it again")
        if counts["conflicts"] and self._conflicts is not None:
            lines += [f"conflict: {conflict_words(conflict)}" for conflict in self._conflicts.first(WORDS_SHOWN)]
            lines += words.left_out(counts["conflicts"], WORDS_SHOWN)
            lines.append(
                "ctx.conflicts has base, mine and theirs; keep_mine(), take_theirs() or resolve(...) settles them"
            )
        if self.unsure:
            lines.append(
                f"in {self.unsure} of them your own change may be already: it was sent, and its answer was lost"
            )
        return lines


def belong(store: Store, queue: Queue, backend: Backend, url: str) -> str | None:
    """Ask the back end who it is, and refuse another one than before while operations are pending.

    Returns words for the user where it is another one and nothing was pending.
    """
    identity = getattr(backend, "identity", None)
    aliases = getattr(backend, "aliases", None)
    with store.reading() as cursor:
        pending = queue.pending(cursor)
    return store.belong(identity() if identity else url, aliases() if aliases else (), url, pending)


class Push:
    """One push from one store to one back end."""

    def __init__(self, store: Store, queue: Queue, backend: Backend, url: str) -> None:
        self.store, self.queue, self.backend, self.url = store, queue, backend, url
        self.holder = str(uuid.uuid4())
        self.accepted: list[tuple[Layout, pa.Table]] = []
        self.outcomes = self.sent = self.waiting = self.unsure = 0
        self._tell: Callable[[], None] = lambda: None
        self._raised: BaseException | None = None  # by what it is told to

    def run(
        self,
        tables: Collection[str] | None = None,
        *,
        until: int | None = None,
        policy: object = "fail",
        settled: Collection[str] | None = None,
        atomic: bool = False,
        retry_rejected: bool = False,
        progress: object = None,
        only: pa.Table | None = None,
    ) -> PushResult:
        """Send what is queued.

        Parameters
        ----------
        tables
            Whose operations; None: all.
        until
            The last place in the queue to send; None: all that stand there now.
        policy
            "fail", "merge", "mine", "theirs" or a callable, for the conflicts of these tables, for those that stand
            already too.
        settled
            The tables that the policy is for; None: all whose operations are sent.
        atomic
            All or nothing, where the back end can.
        only
            Of a plan, what is sent of it; see `Queue.planned`.

        Raises
        ------
        TransientError, AccessError, BackendError
            What stopped it, if not one outcome came.
        PendingError
            If the store belongs to another back end.
        """
        began = time.monotonic()
        self.settled = tables if settled is None else settled
        self.only = only
        with self.store.transaction() as cursor:
            last = self.queue.last_place(cursor, tables) if until is None else until
            waiting = self.waiting = self.queue.pending(cursor, tables, only)
        if not waiting:
            return self._result(tables, None, began, last)
        # Asked before anything is marked as sent: offline, nothing needs to count as attempted.
        belong(self.store, self.queue, self.backend, self.url)
        self.store.take_lease(self.holder, lambda: time.sleep(LEASE_POLL_S))
        stopped: SyncError | None = None
        try:
            with told(progress, "operations") as tell:
                self._tell = partial(self._tell_outcomes, tell, waiting)
                self._send_all(tables, last, policy, atomic, retry_rejected)
        except BackendError as error:
            if not self.outcomes or error is self._raised:
                raise
            stopped = error
        finally:
            self.store.drop_lease(self.holder)
        return self._result(tables, stopped, began, last)

    def _tell_outcomes(self, tell: Told, total: int) -> None:
        try:
            tell(self.outcomes, max(total, self.outcomes), "push")  # what a policy settles is sent again
        except BaseException as error:
            self._raised = error
            raise

    def _send_all(
        self, tables: Collection[str] | None, last: int, policy: object, atomic: bool, retry_rejected: bool
    ) -> None:
        with self.store.transaction() as cursor:
            number = self.queue.next_push(cursor)
            if retry_rejected:
                for layout in self.store.layouts(cursor, tables):
                    self.queue.retry(cursor, layout)
        self.settle_conflicts(self.settled, policy)
        for _ in range(POLICY_ROUNDS):
            (self._send_atomic if atomic else self._send_ready)(tables, number, last)
            # What a policy settles goes out in the same push; a row that clashes again and again is left.
            if not self.settle_conflicts(self.settled, policy):
                return

    def _send_ready(self, tables: Collection[str] | None, number: int, last: int) -> None:
        """Send until nothing is ready; what an answer made ready goes out too, but not for ever."""
        bound = self.sent + POLICY_ROUNDS * self.waiting
        for is_retry in (False, True):
            while self.sent < bound and (batch := self._next(tables, number, last, is_retry)) is not None:
                self._send(batch)

    def _next(self, tables: Collection[str] | None, number: int, last: int, is_retry: bool) -> Batch | None:
        with self.store.transaction() as cursor:
            self.store.renew_lease(cursor, self.holder)
            return self.queue.next_batch(cursor, tables, number, last, is_retry=is_retry, only=self.only)

    def _send(self, batch: Batch) -> None:
        operations = _as_operations(batch)
        self.sent += len(operations)
        answered = 0
        try:
            with ended(self.backend.push(operations)) as answers:
                for outcomes in answers:
                    answered += self._settle(batch, outcomes)
                    self._tell()
        except (TransientError, AccessError) as error:
            if not error.was_sent and not answered:
                self._unmark([batch])
            raise
        if answered < len(batch.sent):
            raise BackendError(
                f"the back end gave {answered} outcomes for {len(batch.sent)} operations of {batch.table!r}",
                hint="the others stay queued; push again",
            )

    def _send_atomic(self, tables: Collection[str] | None, number: int, last: int) -> None:
        """All that is ready in one transaction of the back end, or nothing."""
        send = getattr(self.backend, "push_atomic", None)
        if send is None or not self.backend.promises.atomic_push:
            raise SyncError(
                "this back end cannot push all or nothing; nothing was sent", hint="push without atomic=True"
            )
        if self._stands_in_the_way(tables):
            return
        batches = []
        while (batch := self._next(tables, number, last, False)) is not None:
            batches.append(batch)
        if not batches:
            return
        try:
            answers = send([_as_operations(batch) for batch in batches])
        except (TransientError, AccessError) as error:
            if not error.was_sent:
                self._unmark(batches)
            raise
        batch_of = {id_: batch for batch in batches for id_ in batch.sent["operation_id"].to_pylist()}
        refused = any(set(o.rows["status"].to_pylist()) - {"accepted"} for o in answers)
        for outcomes in answers:
            if len(outcomes):
                self._settle(batch_of[outcomes.rows["operation_id"][0].as_py()], outcomes)
        if refused:
            self._unmark(batches)
        self._tell()

    def _stands_in_the_way(self, tables: Collection[str] | None) -> bool:
        """Whether a conflict or rejection of earlier pushes stands: without it the rest would not be all."""
        with self.store.reading() as cursor:
            found = self._counts(cursor, tables)
        return any(counts["conflicts"] or counts["rejected"] for counts in found)

    def _counts(self, cursor: Cursor, tables: Collection[str] | None) -> list[dict[str, int]]:
        return [self.queue.counts(cursor, layout) for layout in self.store.layouts(cursor, tables)]

    def _unmark(self, batches: Sequence[Batch]) -> None:
        with self.store.transaction() as cursor:
            for batch in batches:
                self.queue.unmark(cursor, batch)

    def _settle(self, batch: Batch, outcomes: Outcomes | pa.Table) -> int:
        rows = outcomes if isinstance(outcomes, pa.Table) else outcomes.rows
        if not len(rows):
            return 0
        with self.store.transaction() as cursor:
            self.queue.settle(cursor, batch.layout, rows, sent=batch.sent)
            self.store.touched(cursor, batch.table, "last_push")
        self.outcomes += len(rows)
        self.unsure += _unsure(batch.sent, rows)
        accepted = rows.filter(pc.equal(rows["status"], "accepted"))["operation_id"].cast(pa.large_string())
        sent = batch.sent.filter(pc.is_in(batch.sent["operation_id"], value_set=accepted.combine_chunks()))
        self.accepted.append((batch.layout, sent))
        log.debug("push %s: %d outcomes", batch.table, len(rows))
        return len(rows)

    def settle_conflicts(self, tables: Collection[str] | None, policy: object) -> int:
        """Apply a policy other than "fail" to the conflicts that stand; return how many it settled."""
        if policy == "fail":
            return 0
        view = ConflictView(self.store, self.queue, tables)
        if callable(policy):
            return settle_by(view, policy)
        settle = {"mine": view.keep_mine, "theirs": view.take_theirs, "merge": view.merge}
        return settle[str(policy)]()

    def _result(self, tables: Collection[str] | None, stopped: SyncError | None, began: float, last: int) -> PushResult:
        with self.store.transaction() as cursor:
            found = self._counts(cursor, tables)
            accepted = Recalled("Sent", self.accepted, sent_operation)
            counts = {name: sum(c[name] for c in found) for name in ("conflicts", "rejected")}
            left = sum(c["pending"] for c in found)
            if self.outcomes:
                self.store.record(
                    cursor,
                    "push",
                    None,
                    len(accepted),
                    f"{counts['conflicts']} conflicts, {counts['rejected']} rejected",
                )
        seconds = time.monotonic() - began
        views: dict[str, Any] = {
            "_conflicts": ConflictView(self.store, self.queue, tables),
            "_pending": PendingView(self.store, self.queue, tables),
        }
        result = PushResult(accepted, stopped, seconds, left, self.unsure, _counts=counts, **views)
        if self.outcomes:
            log.info("%s in %.2f s", result._headline(), seconds)
        return result


def _unsure(sent: pa.Table, outcomes: pa.Table) -> int:
    """How many conflicts are of operations that were sent before, and of rows that say not who wrote them."""
    repeated = sent.filter(sent["attempted"])["operation_id"].cast(pa.string()).combine_chunks()
    unknown = pc.is_in(outcomes["operation_id"].cast(pa.string()), value_set=repeated)
    if "operation" in outcomes.column_names:
        unknown = pc.and_(unknown, pc.is_null(outcomes["operation"]))
    return int(pc.sum(pc.and_(unknown, pc.equal(outcomes["status"], "conflicted"))).as_py() or 0)


def _as_operations(batch: Batch) -> Operations:
    """What a back end gets of a batch."""
    schema = batch.layout.schema
    wanted = operation_schema(schema)
    return Operations(batch.table, schema, batch.sent.select(wanted.names).cast(wanted))
