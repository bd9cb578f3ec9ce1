"""Single rows of a back end, written at once: what the server does for a request, and a remote table for a user.

It stands beside push and pull and keeps nothing.  A back end knows rows by key and takes operations with
the version that they were made on; from that come the verbs that people and HTTP know: a change of the
row as it is, or only if it is still what was seen.  Values are held to the same rules as those of a frame.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa

from .backends.base import CREATED, DELETED, UPDATED, VERSION, Backend, Operations, operation_schema
from .errors import BackendError, KeyColumnError, SchemaError, TransientError
from .frame import make_keys, normalise, object_frame
from .operation import same
from .query import Query, parse
from .schema import PAGE_NAMES, Column, Schema, literal, quote, shown
from .texts import written

TRIES = 5  # a row that is written all the time by others is given up

_Found = Mapping[str, Any]  # a row as in a page: columns and `_syncframe_*`


class Rows:
    """The rows of one table, one at a time.

    A row that is given back is a mapping: the table's columns as Python values and createdAt, updatedAt,
    version and deleted, but for those that the table has as columns of its own.  A key is the value itself,
    of a compound key a tuple.

    Parameters
    ----------
    backend
        Anything with `schema`, `pull` and `push`; asked by `rows` where it has that.
    table
        The table's name.
    schema
        The table's; None: the back end is asked, once.
    """

    def __init__(self, backend: Backend, table: str, schema: Schema | None = None) -> None:
        self.backend = backend
        self.table = table
        self._schema = schema

    @property
    def schema(self) -> Schema:
        if self._schema is None:
            self._schema = self.backend.schema(self.table)
        return self._schema

    # The verbs

    def get(self, key: Any, *, include_deleted: bool = False) -> dict[str, Any] | None:
        """Return a row; None if there is none, or only a tombstone that was not asked for."""
        found = self._find(self._key(key))
        return None if found is None or (found[DELETED] and not include_deleted) else self._row(found)

    def insert(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Insert a row and return it as stored.

        Raises
        ------
        SchemaError, KeyColumnError
            If a column is unknown or a value does not fit; if a key is missing that cannot be made.
        BackendError
            With status 409 and `.row` if a row of that key is there, or its tombstone: that takes `undelete`.
            With status 400, `.code` and `.column` if the back end refuses it.
        """
        self._check_names(values, {})
        fitted = self._fitted(self._with_key(values))
        key = {name: fitted[name] for name in self.schema.key}
        found = self._find(key)
        if found is None:
            outcome = self._push("insert", key, fitted, None)
            if outcome["status"] == "accepted":
                return self._row(_stored(key, outcome))
            found = self._find(key) or _stored(key, outcome)
        raise self._error(409, f"has row {self._shown(key)} already", found)

    def update(self, key: Any, values: Mapping[str, Any], *, if_version: str | None = None) -> dict[str, Any]:
        """Change some columns of a row and return it as stored.

        Parameters
        ----------
        if_version
            Only if the row has this version; None: whatever it has, the last writer wins.

        Raises
        ------
        SchemaError, KeyColumnError
            If a column is unknown, a value does not fit, or the key would change.
        BackendError
            With status 404 if there is no such row, 410 if it was deleted, 412 with `.row` if it has another
            version; with status 400, `.code` and `.column` if the back end refuses it.
        """
        parts = self._key(key)
        fitted: dict[str, Any] = {}
        if if_version is not None and values and all(name in self.schema for name in values):
            self._check_key(values, parts)
            fitted = self._fitted({**values, **parts})
            if (changed := self._at_once(parts, fitted, if_version)) is not None:
                return changed

        def change(found: _Found) -> _Found | None:
            self._check_names(values, found)
            self._check_key(values, parts)
            fitted.update(fitted or self._fitted({**values, **parts}))
            return self._changed("update", parts, fitted, found) if len(fitted) > len(parts) else found

        return self._changing(parts, if_version, change)

    def replace(self, key: Any, values: Mapping[str, Any], *, if_version: str | None = None) -> dict[str, Any]:
        """Put `values` in a row's place, columns that it does not give NULL; as `update` does."""
        parts = self._key(key)
        if if_version is not None and all(name in self.schema for name in values):
            self._check_key(values, parts)
            fitted = dict.fromkeys(self.schema.names) | self._fitted({**values, **parts})
            if (changed := self._at_once(parts, fitted, if_version)) is not None:
                return changed

        def change(found: _Found) -> _Found | None:
            self._check_names(values, found)
            self._check_key(values, parts)
            fitted = dict.fromkeys(self.schema.names) | self._fitted({**values, **parts})
            return self._changed("update", parts, fitted, found)

        return self._changing(parts, if_version, change)

    def delete(self, key: Any, *, if_version: str | None = None) -> dict[str, Any]:
        """Delete a row and return its tombstone with its last values; as `update` does."""
        parts = self._key(key)

        def change(found: _Found) -> _Found | None:
            gone = self._changed("delete", parts, {}, found)
            return gone and {**found, DELETED: True, VERSION: gone[VERSION], UPDATED: gone[UPDATED]}

        return self._changing(parts, if_version, change)

    def undelete(
        self, key: Any, *, if_version: str | None = None, values: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Bring a deleted row back and return it as stored; of a row that is there, return it as it is.

        It has its last values, where the back end keeps them, and `values` over them.

        Raises
        ------
        BackendError
            With status 404 if nothing is known of such a row; otherwise as `update`.
        """
        parts, given = self._key(key), values or {}

        def change(found: _Found) -> _Found | None:
            if not found[DELETED]:
                return found
            self._check_names(given, found)
            self._check_key(given, parts)
            last = {name: found[name] for name in self.schema.values}
            return self._changed("insert", parts, last | self._fitted({**given, **parts}), found)

        return self._changing(parts, if_version, change, of_deleted=True)

    # The row as it is, and a change of it

    def _changing(
        self,
        key: Mapping[str, Any],
        if_version: str | None,
        change: Callable[[_Found], _Found | None],
        *,
        of_deleted: bool = False,
    ) -> dict[str, Any]:
        """Change the row as it is now; again if it moved meanwhile, which `if_version` then tells."""
        for _ in range(TRIES):
            found = self._present(key, if_version, of_deleted=of_deleted)
            changed = change(found)
            if changed is not None:
                return self._row(changed)
        raise TransientError(
            f"row {self._shown(key)} of table {self.table!r} was changed by others {TRIES} times meanwhile",
            hint="try again",
            status=409,
        )

    def _present(self, key: Mapping[str, Any], if_version: str | None, *, of_deleted: bool) -> _Found:
        found = self._find(key)
        if found is None:
            raise self._error(404, f"has no row {self._shown(key)}")
        if found[DELETED] and not of_deleted:
            raise self._error(410, f"has no row {self._shown(key)} any more: it was deleted", found)
        if if_version is not None and if_version != found[VERSION]:
            raise self._error(
                412, f"has row {self._shown(key)} in version {found[VERSION]!r}, not {if_version!r}", found
            )
        return found

    def _find(self, key: Mapping[str, Any]) -> _Found | None:
        """The row or tombstone of a key, as in a page."""
        ask = getattr(self.backend, "rows", None)
        if ask is None:
            return self._pulled(key)
        fields = [pa.field(c.name, c.arrow) for c in self.schema.key_columns]
        found = ask(self.table, pa.Table.from_pylist([dict(key)], schema=pa.schema(fields))).to_pylist()
        return found[0] if found else None

    def _pulled(self, key: Mapping[str, Any]) -> _Found | None:
        """The same of a back end that can only be pulled from; its last word on a row counts."""
        terms = [f"{quote(c.name)} = {_text(c, key[c.name])}" for c in self.schema.key_columns if c.family != "bytes"]
        query = Query(parse(" and ".join(terms), self.schema) if terms else None)
        found = None
        for page in self.backend.pull(self.table, query, None):
            for row in page.rows.to_pylist():
                found = row if all(row[name] == part for name, part in key.items()) else found
        return found and {CREATED: None, UPDATED: None, **found}

    def _at_once(self, key: Mapping[str, Any], fitted: Mapping[str, Any], version: str) -> dict[str, Any] | None:
        """The row after an update at that version, which the back end compares; None: look what is there instead."""
        changed = self._changed("update", key, fitted, {VERSION: version})
        return None if changed is None else self._row(changed)

    def _changed(self, kind: str, key: Mapping[str, Any], fitted: Mapping[str, Any], found: _Found) -> _Found | None:
        """The row after an operation on `found`; None if another one came before."""
        outcome = self._push(kind, key, fitted, found[VERSION])
        return _stored(key, outcome) if outcome["status"] == "accepted" else None

    def _push(self, kind: str, key: Mapping[str, Any], fitted: Mapping[str, Any], version: str | None) -> _Found:
        given = [name for name in self.schema.values if name in fitted]
        operation = {
            "operation_id": str(uuid.uuid4()),
            "kind": kind,
            "base_version": version,
            "given": given,
            **{f"k_{name}": part for name, part in key.items()},
            **{f"l_{name}": fitted[name] for name in given},
        }
        rows = pa.Table.from_pylist([operation], schema=operation_schema(self.schema))
        outcomes = [row for part in self.backend.push(Operations(self.table, self.schema, rows)) for row in part]
        if not outcomes:
            raise BackendError(f"table {self.table!r}: the back end said nothing about row {self._shown(key)}")
        outcome = outcomes[0]
        if outcome["status"] == "rejected":
            raise self._error(
                400,
                f"refuses row {self._shown(key)}: {outcome['message']}",
                code=outcome["code"],
                column=outcome["column"],
            )
        return outcome

    # Values and keys

    def _key(self, key: Any) -> dict[str, Any]:
        """A key as its columns' values, in their types."""
        names = self.schema.key
        parts = (key,) if len(names) == 1 else key
        if not isinstance(parts, (tuple, list)) or len(parts) != len(names):
            raise KeyColumnError(f"key {key!r} of {self.table!r}: expected a tuple ({', '.join(names)})")
        if all(map(_is_normal, parts, self.schema.key_columns)):
            return dict(zip(names, parts, strict=True))
        given = pd.DataFrame({name: pd.Series([part], dtype=object) for name, part in zip(names, parts, strict=True)})
        try:
            fitted = normalise(given, Schema(self.schema.key_columns, names))
        except SchemaError as error:
            raise KeyColumnError(f"key {key!r} of {self.table!r}: {error.message}", hint=error.hint) from error
        if fitted.missing_keys.size:
            raise KeyColumnError(f"a key of {self.table!r} is empty", hint="give each of its columns")
        return dict(fitted.rows.to_pylist()[0])

    def _with_key(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a new row, with an empty key where that is made."""
        columns = self.schema.key_columns
        lacking = [c.name for c in columns if values.get(c.name) is None]
        if lacking and (len(columns) > 1 or columns[0].kind not in ("VARCHAR", "UUID")):
            raise KeyColumnError(
                f"a new row of {self.table!r} needs its key, and has no {shown(lacking)}",
                hint="only a text or uuid key of one column is made",
            )
        return {**values, **dict.fromkeys(lacking)}

    def _fitted(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The table's columns among the values in their types, as a frame's are; a key that is empty is made.

        Whether a value may be NULL is left to the back end, which says by a code what it refuses.
        """
        own = {name: value for name, value in values.items() if name in self.schema}
        values_given = [(value, self.schema[name]) for name, value in own.items()]
        if all((value is None and c.name not in self.schema.key) or _is_normal(value, c) for value, c in values_given):
            return own
        columns = [c if c.name in self.schema.key else replace(c, nullable=True) for c in self.schema.columns]
        schema = Schema(tuple(columns), self.schema.key)
        try:
            edited = normalise(object_frame([own]), schema)
        except SchemaError as error:
            # The hint is for a frame.
            raise type(error)(error.message, hint="give a value of the column's type") from error
        return dict(make_keys(edited, schema, lambda: str(uuid.uuid4())).rows.to_pylist()[0])

    def _check_names(self, values: Mapping[str, Any], found: _Found) -> None:
        """Only the table's columns are written; system columns may be as they are."""
        unknown = [name for name in values if name not in self.schema and name not in PAGE_NAMES]
        if unknown:
            raise SchemaError(
                f"columns {shown(unknown)} are not among those of table {self.table!r}: {shown(self.schema.names)}",
                hint="leave them out",
            )
        for name, value in values.items():
            if name not in self.schema and not same(value, found.get(PAGE_NAMES[name])):
                raise SchemaError(
                    f"system column {name!r} is the back end's, and cannot be written; it is not {value!r} now",
                    hint="leave it out; if_version says which version is meant",
                )

    def _check_key(self, values: Mapping[str, Any], key: Mapping[str, Any]) -> None:
        moved = [name for name in key if name in values and not same(values[name], key[name])]
        if moved and self._key_of(values, key) != key:
            raise KeyColumnError(
                f"the key column {moved[0]!r} of a row cannot be changed",
                hint="delete the row and insert it under its new key",
            )

    def _key_of(self, values: Mapping[str, Any], key: Mapping[str, Any]) -> dict[str, Any]:
        parts = tuple(values.get(name, part) for name, part in key.items())
        return self._key(parts if len(parts) > 1 else parts[0])

    def _row(self, found: _Found) -> dict[str, Any]:
        system = {name: found[held] for name, held in PAGE_NAMES.items() if name not in self.schema}
        return {name: found[name] for name in self.schema.names} | system

    def _shown(self, key: Mapping[str, Any]) -> str:
        parts = tuple(key.values())
        return repr(parts if len(parts) > 1 else parts[0])

    def _error(
        self,
        status: int,
        words: str,
        found: _Found | None = None,
        *,
        code: str | None = None,
        column: str | None = None,
    ) -> BackendError:
        row = None if found is None else self._row(found)
        return BackendError(f"table {self.table!r} {words}", status=status, row=row, code=code, column=column)


def _stored(key: Mapping[str, Any], outcome: _Found) -> dict[str, Any]:
    """An outcome as a row in a page."""
    values = {name[2:]: value for name, value in outcome.items() if name.startswith("r_")}
    system = {VERSION: outcome["version"], DELETED: outcome["deleted"]}
    return {**key, **values, **system, CREATED: outcome["created"], UPDATED: outcome["updated"]}


def _text(column: Column, value: Any) -> str:
    """A key's value as a condition has it: a text takes the type of the column that it meets."""
    (text,) = written(pa.array([value], column.arrow), column)
    return str(text) if column.family in ("int", "decimal", "float", "bool") else literal(str(text))


_PLAIN_TYPES = {"bool": bool, "int": int, "text": str, "bytes": bytes}


def _is_normal(value: Any, column: Column) -> bool:
    """Whether a value is in its column's type as it stands, so that a whole frame need not be made to find out."""
    if column.held_as or column.labels or column.kind in ("UUID", "JSON"):
        return False
    if type(value) is not _PLAIN_TYPES.get(column.family):
        return False
    try:
        pa.scalar(value, column.arrow)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return False
    return True
