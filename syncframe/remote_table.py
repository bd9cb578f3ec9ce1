"""A table asked over the network: nothing is kept here, and without a network nothing is there.

For a look at what a store does not hold, and for single writes that should not wait for a push.
What is written here meets the same versions as a push: nothing is overwritten that `if_version` did
not name, if it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from . import words
from .backends.base import Backend
from .errors import SchemaError, SyncError
from .frame import hand_out
from .query import Condition, Order, Read, parse
from .remote import Rows
from .schema import PAGE_NAMES, SYSTEM_COLUMNS, Schema, as_names, shown

if TYPE_CHECKING:
    import pandas as pd


class RemoteTable:
    """A table of the back end, asked over the network; `SyncContext.remote` makes it."""

    def __init__(self, backend: Backend, name: str, url: str = "") -> None:
        self._backend = backend
        self._url = url or type(backend).__name__
        self.name = name
        self._known: Rows | None = None

    @property
    def _rows(self) -> Rows:
        if self._known is None:
            self._known = Rows(self._backend, self.name)
        return self._known

    @property
    def schema(self) -> Schema:
        """The columns, their types and the key, as the back end says."""
        return self._rows.schema

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the key's columns."""
        return self.schema.key

    # -- reading

    def read(
        self,
        where: str | None = None,
        *,
        columns: str | Iterable[str] | None = None,
        order_by: str | Iterable[str] | None = None,
        limit: int | None = None,
        offset: int | None = None,
        include_deleted: bool = False,
    ) -> pd.DataFrame:
        """Return rows as they are there now, indexed by the key.

        Parameters
        ----------
        where
            A SQL condition over the table's columns and createdAt, updatedAt, version and deleted.
        columns
            The columns wanted, system columns among them if they are named; None: all of the table's own.
        order_by
            A column or several, with a leading "-" for descending; ties, and all if it is None, by the key.
        limit, offset
            How many rows at most, and how many to leave out before them.
        include_deleted
            Deleted rows too, with their last values, and the column `deleted`.

        Raises
        ------
        QueryError
            If the condition cannot be parsed, or not be asked of this back end.
        SchemaError
            If a column is unknown.
        TransientError, AccessError
            If the back end cannot be reached, or says no.
        """
        named = None if columns is None else list(as_names(columns))
        shown_columns = self._shown(named, include_deleted)
        read = Read(
            where=self._condition(where),
            columns=tuple(name for name in shown_columns if name in self.schema),
            order_by=tuple(self._order(text) for text in as_names(order_by or ())),
            limit=_counted("limit", limit),
            offset=_counted("offset", offset) or 0,
            include_deleted=include_deleted,
        )
        rows = self._verb("read")(self.name, read)
        return hand_out(_named(rows, [*self.key, *shown_columns], self.schema), self.schema)

    def count(self, where: str | None = None) -> int:
        """How many rows match."""
        count: int = self._verb("count")(self.name, Read(where=self._condition(where)))
        return count

    def get(self, key: Any) -> dict[str, Any] | None:
        """Return one row as a mapping, with its createdAt, updatedAt, version and deleted; None if it is not there."""
        return self._rows.get(key)

    # -- writing

    def insert(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Insert a row and return it as stored; a missing text or uuid key is made.

        Raises
        ------
        BackendError
            With status 409 and the row that is there as `row` if there is one of that key, or was: then
            `undelete` brings it back.  With status 400 if the back end refuses it, in its words.
        """
        return self._rows.insert(row)

    def update(
        self, key: Any, values: Mapping[str, Any] | None = None, /, *, if_version: str | None = None, **columns: Any
    ) -> dict[str, Any]:
        """Change some columns of a row and return it as stored.

        Parameters
        ----------
        key
            The row's key; of a compound key a tuple.
        values, columns
            The new values.
        if_version
            Only if the row still has this version; None: whatever it has.

        Raises
        ------
        BackendError
            With status 404 or 410 if the row is not there; 412 with the row that is there as `row` if it has
            another version.
        """
        return self._rows.update(key, {**(values or {}), **columns}, if_version=if_version)

    def replace(self, key: Any, row: Mapping[str, Any], *, if_version: str | None = None) -> dict[str, Any]:
        """Put another row in a row's place, columns that it does not give NULL; as `update` does."""
        return self._rows.replace(key, row, if_version=if_version)

    def delete(self, key: Any, *, if_version: str | None = None) -> dict[str, Any]:
        """Delete a row and return what is left of it; as `update` does."""
        return self._rows.delete(key, if_version=if_version)

    def undelete(self, key: Any) -> dict[str, Any]:
        """Bring a deleted row back with its last values, where the back end keeps them, and return it."""
        return self._rows.undelete(key)

    # -- what is asked for

    def _condition(self, where: str | None) -> Condition | None:
        return None if where is None else parse(where, self.schema)

    def _shown(self, named: list[str] | None, include_deleted: bool) -> list[str]:
        """The value and system columns of the frame, in its order."""
        known = [*self.schema.values, *(name for name in SYSTEM_COLUMNS if name not in self.schema)]
        unknown = [name for name in named or () if name not in known and name not in self.schema]
        if unknown:
            raise SchemaError(
                f"columns {shown(unknown)} are not among those of table {self.name!r}: {shown(known)}",
                hint="remote.schema lists them",
            )
        wanted = self.schema.values if named is None else [name for name in named if name not in self.key]
        return [*wanted, "deleted"] if include_deleted and "deleted" not in wanted else wanted

    def _order(self, text: str) -> Order:
        name = text.removeprefix("-")
        if name not in self.schema and name not in SYSTEM_COLUMNS:
            raise SchemaError(
                f"order_by={text!r}: table {self.name!r} has no column {name!r}",
                hint=f"one of {shown(self.schema.names)}, with a leading - for descending",
            )
        return Order(name, text.startswith("-"))

    def _verb(self, name: str) -> Any:
        verb = getattr(self._backend, name, None)
        if verb is None:
            raise SyncError(
                f"this back end cannot be asked to {name}", hint=f"ctx[{self.name!r}].pull() keeps its rows"
            )
        return verb

    def __repr__(self) -> str:
        return f"RemoteTable {self.name!r} of {self._url}: asked over the network, nothing is kept"

    def _repr_html_(self) -> str:
        return words.html(words.paragraphs([repr(self)]))


def _counted(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise SyncError(f"{name}={value!r}: a whole number from 0 is needed", hint=f"leave {name} out for all rows")
    return value


def _named(rows: pa.Table, names: list[str], schema: Schema) -> pa.Table:
    """The columns of a frame under the names that people know."""
    held = {name: name if name in schema else PAGE_NAMES[name] for name in names}
    return pa.table({name: rows[there] for name, there in held.items()})
