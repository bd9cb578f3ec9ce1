"""The sync context: the session with one back end and one local store, and where it begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

import duckdb
import pandas as pd
import pyarrow as pa

from . import words
from .backends import Backend
from .conflict import check_policy
from .diff import Changes, diff
from .errors import QueryError, SyncError
from .file import Cursor
from .frame import declared, to_pandas
from .layout import META
from .plan import PushPlan, check_plan
from .progress import runs
from .pull import PullResult
from .push import PushResult
from .queue import KINDS
from .remote_table import RemoteTable
from .schema import Column, Schema, as_names, literal, type_name
from .secrets import found_token
from .session import Session, expanded
from .store import Store
from .table import SyncTable
from .undo import Staging, last_call, staged_keys
from .views import ConflictView, History, PendingView, Shown

STATUS_COLUMNS = ["rows", "pending", "conflicts", "rejected", "last_pull", "last_push", "bytes", "promises"]
BLOCK_BYTES = 262_144

# Makes the widget of a context.  `syncframe/__init__.py` fills it, for this room knows no widget.
make_widget: Callable[[SyncContext], Any] | None = None


def connect(
    url: str | Backend | None = None,
    *,
    store: str | os.PathLike[str],
    schema: Mapping[str, object] | None = None,
    on_conflict: object = "fail",
    token: str | Callable[[], str] | None = None,
    token_file: str | os.PathLike[str] | None = None,
    headers: Mapping[str, str] | None = None,
    protocol: str = "auto",
    timeout_s: float = 30.0,
    lock_timeout_s: float = 5.0,
    overlap_s: float = 600.0,
    in_flight: int = 16,
) -> SyncContext:
    """Open a local store and name the back end it syncs with; asks the network nothing yet.

    Parameters
    ----------
    url
        ``https://host/path`` (a Datasync service, v2 or v3, or `syncframe serve`), ``sqlite:///path``,
        ``duckdb:///path`` (an absolute path makes four slashes) or a `Backend`; None: local only.
    store
        Path of the local DuckDB file, made where there is none; or ":memory:".
    schema
        Table name -> types of its columns, where the back end's own say too little, such as a decimal in a
        column of SQLite that is declared TEXT: ``{"prices": {"amount": "DECIMAL(38,10)"}}``.  A Datasync
        service of others says no types at all: without them they are read off the first rows.
    on_conflict
        "fail" (a row changed on both sides is a conflict, recorded, nothing overwritten), "mine", "theirs", or a
        callable Conflict -> "mine" | "theirs" | row mapping | None.
    token
        For a service: a text, a callable that is asked again after a 401, or ``keyring:SERVICE/NAME``, an entry of
        the operating system's keyring.  Sent as ``Authorization: Bearer`` and ``X-ZUMO-AUTH``, to this host only;
        kept in memory only.  Where neither this nor `token_file` is given, the environment's SYNCFRAME_TOKEN or
        SYNCFRAME_TOKEN_FILE is taken, for https and for this machine alone.
    token_file
        A file with the token alone, which is read again when it has changed, and after a 401.
    headers
        For a service: more headers, to this host only.
    protocol
        "v2" (Azure Mobile Apps) or "v3" (Datasync toolkit); "auto" asks once and remembers it in the store, and
        uses the faster way of a syncframe server where there is one.
    timeout_s
        How long a service may take to answer, and how long a request is tried again, in seconds.
    overlap_s
        How far back a pull from a service of others looks, for rows that were committed late, in seconds.
    in_flight
        How many requests of a push may be under way at once.
    lock_timeout_s
        How long to wait while another process holds the store, in seconds.

    Raises
    ------
    StoreError
        If the file is damaged, newer than this version, or held for too long.
    SyncError
        If the URL's scheme or `on_conflict` is not known.
    """
    check_policy(on_conflict)
    service = {
        "token": found_token(url, token, token_file),
        "headers": headers,
        "protocol": protocol,
        "timeout_s": timeout_s,
        "overlap_s": overlap_s,
        "in_flight": in_flight,
    }
    options: dict[str, Any] = {"schema": schema, **service}
    return SyncContext(Session(url, Store(expanded(store), lock_timeout_s), on_conflict, options))


class SyncContext:
    """The session with one back end and one local store; `connect` makes it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._store, self._queue = session.store, session.queue
        self._widget: Any = None
        self._widgets: WeakSet[Any] = WeakSet()  # this one, and those that marimo shows

    # -- tables

    def table(
        self,
        name: str,
        schema: object = None,
        *,
        key: str | Iterable[str] | None = None,
        on_conflict: object = None,
    ) -> SyncTable:
        """Return a sync table; asks nothing.

        Parameters
        ----------
        schema
            A `pyarrow.Schema`, a mapping name -> type or a DataFrame to take it from, so that a table that was
            never pulled can be filled offline.
        key
            The key's columns, where it is not ``id``.
        on_conflict
            Of this table's pulls; None: the context's.
        """
        check_policy(on_conflict)
        if schema is not None:
            self._store.define(name, Schema.of(schema, key), None)
        return SyncTable(self._session, name, on_conflict)

    def __getitem__(self, name: str) -> SyncTable:
        return self.table(name)

    def _ipython_key_completions_(self) -> list[str]:
        return self.tables

    @property
    def tables(self) -> list[str]:
        """The names of the tables that the store knows, sorted."""
        return self._store.tables()

    def remote(self, name: str) -> RemoteTable:
        """The same table asked over the network, nothing kept; asks nothing yet.

        Raises
        ------
        SyncError
            If this context was made without a back end.
        """
        return RemoteTable(self._session.asked(), name, self._session.url)

    # -- the queue

    @property
    def pending(self) -> PendingView:
        """What is queued."""
        return PendingView(self._store, self._queue)

    @property
    def conflicts(self) -> ConflictView:
        """What waits for a decision."""
        return ConflictView(self._store, self._queue)

    def push(
        self,
        tables: str | Iterable[str] | PushPlan | None = None,
        *,
        on_conflict: object = None,
        atomic: bool = False,
        retry_rejected: bool = False,
        progress: object = None,
    ) -> PushResult:
        """Send what is queued, in the order it was staged.

        Parameters
        ----------
        tables
            Whose operations; None: all.  Or a plan: just what it names is sent.  What was staged, edited or moved by
            a pull since then stays queued; with `atomic` nothing is sent then.
        on_conflict
            "fail", "mine", "theirs" or a callable, also for conflicts that stand already; None: the context's.
        atomic
            All or nothing, where the back end can: one conflict or rejection, and nothing is applied.  Nothing is
            sent either while one of an earlier push stands in these tables.
        retry_rejected
            Send what was rejected again, too.
        progress
            None: a bar after half a second; False: none; a callable (done, total or None, what).

        Raises
        ------
        TransientError, AccessError
            If the back end gave no outcome at all; everything is still queued.
        PendingError
            If this store's operations belong to another back end.
        SyncError
            If the plan is of another context; if it is not whole any more and `atomic` asks for all of it.
        """
        plan = tables if isinstance(tables, PushPlan) else None
        if plan is not None:
            check_plan(plan, self._session, retry_rejected=retry_rejected)
        return self._session.push(
            self._known(tables.tables if isinstance(tables, PushPlan) else tables),
            plan=plan,
            on_conflict=on_conflict,
            atomic=atomic,
            retry_rejected=retry_rejected,
            progress=progress,
        )

    def pull(self, tables: str | Iterable[str] | None = None, **options: Any) -> PullResult:
        """Pull every table with its stored queries; a table that was never pulled is skipped and named.

        Takes full, push_first, page_rows, progress and on_conflict as `SyncTable.pull` does.
        """
        return self._session.pull_all(self.tables if tables is None else self._known(tables) or [], **options)

    def sync(self, tables: str | Iterable[str] | None = None, **options: Any) -> PullResult:
        """Push, then pull."""
        options["progress"] = runs(options.get("progress"))
        pushed = self.push(tables, on_conflict=options.get("on_conflict"), progress=options.get("progress"))
        if pushed.stopped_by is not None:
            raise pushed.stopped_by
        result = self.pull(tables, **options)
        result.pushed = pushed
        return result

    def plan(self, tables: str | Iterable[str] | None = None, *, check: bool = False) -> PushPlan:
        """What a push would send now; nothing is sent, and `push(plan)` sends just that.

        Parameters
        ----------
        tables
            Whose operations; None: all.
        check
            Ask the back end, in sets, for the rows of these operations, and say which have changed there since they
            were last known here: `PushPlan.at_risk`.  Rows and checkpoints here stay as they are.

        Raises
        ------
        TransientError, AccessError
            If the back end was to be asked and did not answer.
        PendingError
            If it was to be asked and this store's operations belong to another one.
        SyncError
            If it was to be asked and this context has none.
        """
        return self._session.plan(self._known(tables), check=check)

    def discard(self, tables: str | Iterable[str] | None = None) -> int:
        """Give up pending operations: rows go back to the last known remote ones; return on how many rows."""
        with self._store.transaction() as cursor:
            layouts = self._store.layouts(cursor, self._known(tables))
            rev, _ = self._store.tick(cursor)  # one call, so that one undo takes it back
            total = sum(self._queue.discard(cursor, layout, rev=rev) for layout in layouts)
            for layout in layouts:
                self._session.taken_back(layout.table)
            return total

    def undo(self) -> Changes:
        """Take back the last call that changed the queue, one further back at each call, up to 20.

        Returns
        -------
        Changes: what that changed here (of several tables the first; the others are in its notes); `left` names
        the keys that were sent or settled since and are left.

        Raises
        ------
        SyncError
            If there is nothing to take back.
        """
        with self._store.transaction() as cursor:
            call = last_call(cursor)
            if not call:
                raise SyncError("there is nothing to take back", hint="ctx.history shows what was done")
            first, *others = [self._undo(cursor, part) for part in call]
            first.notes.extend(f"and in table {p.table!r}: {c!r}" for p, c in zip(call[1:], others, strict=True))
            return first

    def _undo(self, cursor: Cursor, part: Staging) -> Changes:
        layout = self._store.layout(cursor, part.table)
        keys = staged_keys(cursor, layout, part.staging)
        before = self._shown(cursor, part.table, keys)
        left = self._queue.undo(cursor, part)
        changes = diff(before, self._shown(cursor, part.table, keys), layout.schema)
        changes.left.extend(left)
        self._session.taken_back(part.table)
        return changes

    def _shown(self, cursor: Any, table: str, keys: pa.Table) -> pa.Table:
        layout = self._store.layout(cursor, table)
        return SyncTable(self._session, table)._rows_of(cursor, layout, keys)

    # -- looking

    @property
    def history(self) -> pd.DataFrame:
        """What was staged, pushed, pulled and resolved: time, action, table, rows, note."""
        return History(_frame(self._store.history()))

    def sql(self, query: str) -> pd.DataFrame:
        """Return the result of a DuckDB query over the synced tables as they are here, pending edits included.

        Raises
        ------
        QueryError
            If it is not one query, or DuckDB refuses it.
        """
        known = ", ".join(self._store.tables()) or "none yet"
        with self._store.looking() as cursor:
            try:
                _check_reads(cursor.connection, query)
                return _frame(cursor.arrow(query))
            except duckdb.FatalException:
                raise
            except duckdb.Error as error:  # DuckDB itself refuses what writes: a WITH may do so
                raise QueryError(str(error), hint=f"the tables here are {known}") from error

    def status(self) -> pd.DataFrame:
        """One row for each table: rows, pending, conflicts, rejected, last pull, last push, bytes, promises."""
        found = []
        with self._store.reading() as cursor:
            times = {
                row["name"]: row
                for row in cursor.arrow(f"select name, tracked, last_pull, last_push from {META}.tables").to_pylist()
            }
            for layout in self._store.layouts(cursor):
                counts = self._queue.counts(cursor, layout)
                size = _bytes(cursor, layout.parts())
                told = times[layout.table]
                promises = self._session.promises(told["tracked"])
                found.append(
                    [
                        layout.table,
                        self._store.count(cursor, layout),
                        *counts.values(),
                        told["last_pull"],
                        told["last_push"],
                        size,
                        promises,
                    ]
                )
        frame = pd.DataFrame(found, columns=["table", *STATUS_COLUMNS])
        stamps = dict.fromkeys(("last_pull", "last_push"), "datetime64[us, UTC]")
        return Shown(frame.astype({"table": "str", "promises": "str", **stamps}).set_index("table"))

    @property
    def widget(self) -> Any:
        """The widget of this context: pending operations and conflicts; None where there is none.

        Made once, and anew where its host has closed it, as marimo does when the cell of its first use runs again.
        """
        if self._widget is None or self._widget.is_over:
            self._widget = self._new_widget()
        return self._widget

    def _new_widget(self) -> Any:
        widget = make_widget(self) if make_widget is not None else None
        if widget is not None:
            self._widgets.add(widget)
        return widget

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """The widget, and HTML and text for where it cannot be shown."""
        said = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if self.widget is None:
            return said
        data, metadata = self.widget._repr_mimebundle_()
        return {**data, **said}, metadata

    def _display_(self) -> Any:
        """What marimo shows: a widget for each cell, for it closes those of a cell that runs again."""
        widget = self._new_widget()
        return repr(self) if widget is None else widget

    def _ipython_display_(self) -> None:
        """In a kernel two outputs: the summary, which a saved notebook keeps, and the live view, which hides it.

        One output of both would be an error line where there is no kernel: a front end that knows widgets shows
        nothing but the widget.
        """
        from IPython import get_ipython
        from IPython.display import display

        if getattr(get_ipython(), "kernel", None) is None or self.widget is None:
            print(repr(self))
            return
        view, _ = self.widget._repr_mimebundle_()
        model_id = self.widget.model_id
        advice = "<p>The live view needs a running kernel: run this cell.</p>"
        summary = f'<div data-syncframe-static="{model_id}">{self._repr_html_()}{advice}</div>'
        live = {**view, "text/plain": "(the live view of the above; it needs a running kernel)"}
        display({"text/plain": repr(self), "text/html": summary}, raw=True)  # type: ignore[no-untyped-call]
        display(live, raw=True)  # type: ignore[no-untyped-call]

    # -- its life

    def close(self) -> None:
        """Close the back end and the widget; the store needs no closing, for it is held only inside a call."""
        self._widget = None
        for widget in [*self._widgets]:
            widget.close()  # else ipywidgets would keep it, and its thread, for good
        self._session.close()

    def __enter__(self) -> SyncContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _known(self, tables: str | Iterable[str] | None) -> list[str] | None:
        if tables is None:
            return None
        names = list(as_names(tables))
        unknown = [name for name in names if name not in self.tables]
        if unknown:
            raise SyncError(
                f"tables {', '.join(map(repr, unknown))} are not in this store",
                hint=f"it has {', '.join(self.tables) or 'none yet'}",
            )
        return names

    def __repr__(self) -> str:
        names, rows = self._summary()
        return "\n".join([self._headline(), *(words.table(names, rows, indent="  ") if rows else ["  no tables yet"])])

    def _repr_html_(self) -> str:
        """Counts for each table; no keys and no cells, for it is kept in saved notebooks."""
        names, rows = self._summary()
        below = words.left_out(len(rows), words.SHOWN_ROWS) if rows else ["no tables yet"]
        table = words.html_table(names, rows, code=[0]) if rows else ""
        return words.html(words.paragraphs([self._headline()]), table, words.paragraphs(below))

    def _headline(self) -> str:
        return f"syncframe  {self._session.url}  store {Path(self._store.path).name}"

    def _summary(self) -> tuple[list[str], list[list[str]]]:
        """The heads and lines of a table: how much of each table is here and waits."""
        with self._store.reading() as cursor:
            found = cursor.rows(f"select name, last_pull, last_push from {META}.tables order by name")
            counts = {layout.table: self._queue.figures(cursor, layout) for layout in self._store.layouts(cursor)}
        names = ["rows", *KINDS, "conflicts", "rejected"]
        rows = [
            [words.name(table), *(words.figure(counts[table][n]) for n in names), *map(words.figure, times)]
            for table, *times in found
            if table in counts
        ]
        return ["table", *names, "last pull", "last push"], rows


def _check_reads(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    statements = connection.extract_statements(query)
    # EXPLAIN ANALYZE runs what it explains.
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise QueryError(
            "sql() takes one query that reads", hint="edit with table.stage(frame), table.update(...) and the like"
        )


def _bytes(cursor: Cursor, parts: Sequence[str]) -> int:
    """The blocks of the file that hold these tables; small ones share a block."""
    blocks = " union all ".join(
        f"select block_id from pragma_storage_info({literal(part)}) where persistent" for part in parts
    )
    count: int = cursor.one(f"select count(distinct block_id) from ({blocks})")
    return count * BLOCK_BYTES


def _frame(rows: pa.Table) -> pd.DataFrame:
    """Any Arrow table as pandas, in the dtypes of the type table where it has the type."""
    columns = {}
    for i, field in enumerate(rows.schema):
        columns[i] = _series(rows.column(i), field)
    frame = pd.DataFrame(columns)
    frame.columns = pd.Index(rows.column_names)
    return frame


def _series(values: pa.ChunkedArray, field: pa.Field) -> Any:
    try:
        name, _ = type_name(field.type)
    except SyncError:  # nested and other types of DuckDB
        return pd.arrays.ArrowExtensionArray(values)
    column = Column(field.name, name)
    plain = declared(pa.table({"value": values}), Schema((Column("value", name),), ("value",)))["value"]
    return to_pandas(plain, column)
