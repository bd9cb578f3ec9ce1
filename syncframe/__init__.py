"""Shared tables in notebooks: pull, edit as pandas DataFrames with or without a network, push, and settle conflicts.

>>> import syncframe as sf
>>> ctx = sf.connect(store=":memory:")
>>> sites = ctx.table("sites", schema={"id": "VARCHAR", "name": "VARCHAR", "depth": "DOUBLE"})
>>> sites.insert({"id": "a", "name": "Weir", "depth": 1.5})
'a'
>>> df = sites.frame()
>>> df.loc["a", "depth"] = 1.75
>>> sites.stage(df).counts
{'insert': 0, 'update': 1, 'delete': 0}
>>> ctx.pending.summary().loc["sites", "insert"]
np.int64(1)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backends import Backend, Checkpoint, Operations, Outcomes, Page, Promises
    from .context import SyncContext, connect
    from .diff import Changes
    from .errors import (
        AccessError,
        BackendError,
        CheckpointLost,
        DeleteGuardError,
        KeyColumnError,
        PendingError,
        QueryError,
        SchemaError,
        StaleFrameError,
        StoreError,
        SyncError,
        TransientError,
    )
    from .operation import Operation
    from .plan import PushPlan
    from .pull import PullResult
    from .push import PushResult
    from .query import Query
    from .remote_table import RemoteTable
    from .schema import Schema
    from .server import serve
    from .table import SyncTable
    from .views import Conflict, ConflictView, PendingView

__version__ = "0.1.0"

__all__ = [
    "AccessError",
    "Backend",
    "BackendError",
    "Changes",
    "Checkpoint",
    "CheckpointLost",
    "Conflict",
    "ConflictView",
    "DeleteGuardError",
    "KeyColumnError",
    "Operation",
    "Operations",
    "Outcomes",
    "Page",
    "PendingError",
    "PendingView",
    "Promises",
    "PullResult",
    "PushPlan",
    "PushResult",
    "Query",
    "QueryError",
    "RemoteTable",
    "Schema",
    "SchemaError",
    "StaleFrameError",
    "StoreError",
    "SyncContext",
    "SyncError",
    "SyncTable",
    "TransientError",
    "__version__",
    "connect",
    "serve",
]

# The command line answers --help at once: pandas, pyarrow and duckdb come with the first name that needs them.
_HOMES = {
    "backends": ("Backend", "Checkpoint", "Operations", "Outcomes", "Page", "Promises"),
    "context": ("SyncContext", "connect"),
    "diff": ("Changes",),
    "errors": (
        "AccessError", "BackendError", "CheckpointLost", "DeleteGuardError", "KeyColumnError", "PendingError",
        "QueryError", "SchemaError", "StaleFrameError", "StoreError", "SyncError", "TransientError",
    ),
    "operation": ("Operation",),
    "plan": ("PushPlan",),
    "pull": ("PullResult",),
    "push": ("PushResult",),
    "query": ("Query",),
    "remote_table": ("RemoteTable",),
    "schema": ("Schema",),
    "server": ("serve",),
    "table": ("SyncTable",),
    "views": ("Conflict", "ConflictView", "PendingView"),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "backends":
        return import_module(".backends", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f".{_HOME[name]}", __name__)
    if home.__name__ == f"{__name__}.context":
        home.make_widget = _make_widget  # type: ignore[attr-defined]
    value = getattr(home, name)
    globals()[name] = value
    return value


def _make_widget(context: SyncContext) -> object:
    return import_module(".widget", __name__).SyncWidget(context)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
