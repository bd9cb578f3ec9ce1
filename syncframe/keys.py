"""Keys as people write them: one value, a tuple of a compound key, a list of several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from . import words
from .errors import KeyColumnError, SchemaError
from .frame import normalise
from .layout import Layout
from .schema import Schema, shown

_PLACE = re.compile(r" in row (\d+) \(counted from 0\)")
_KEY_HINT = "a key is one value of the key's type; of a compound key a tuple, such as get((2013, 'EWR'))"


def key_of(layout: Layout, row: Mapping[str, Any]) -> Any:
    """The key of a row that has it as k_*."""
    values = tuple(row[f"k_{name}"] for name in layout.schema.key)
    return values[0] if len(values) == 1 else values


def parts(layout: Layout, key: Any) -> tuple[Any, ...]:
    """The parts of a key, of which there is one or several."""
    return (key,) if len(layout.schema.key) == 1 else tuple(key)


def key_table(layout: Layout, keys: Sequence[Any]) -> pa.Table:
    """Keys as people write them as an Arrow table k_*.

    Raises
    ------
    KeyColumnError
        If a key does not have the key's parts or types.
    """
    width = len(layout.schema.key)
    wrong = [k for k in keys if width > 1 and not (isinstance(k, (tuple, list)) and len(k) == width)]
    if wrong:
        raise KeyColumnError(
            f"key {wrong[0]!r} of {layout.table!r}: expected a tuple ({', '.join(layout.schema.key)})", hint=_KEY_HINT
        )
    columns = {
        n: pd.Series([parts(layout, key)[i] for key in keys], dtype=object) for i, n in enumerate(layout.schema.key)
    }
    try:
        fitted = normalise(pd.DataFrame(columns), Schema(layout.schema.key_columns, layout.schema.key))
    except SchemaError as error:
        types = ", ".join(f"{c.name} {c.type}" for c in layout.schema.key_columns)
        raise KeyColumnError(
            f"keys {shown(keys)} do not fit the key of {layout.table!r} ({types}): {_by_key(error.message, keys)}",
            hint=_KEY_HINT,
        ) from error
    if fitted.missing_keys.size:
        raise KeyColumnError(f"a key of {layout.table!r} is empty", hint=_KEY_HINT)
    return fitted.rows.rename_columns([f"k_{name}" for name in fitted.rows.column_names])


def _by_key(message: str, keys: Sequence[Any]) -> str:
    """What is wrong with keys, without the places that they have in the list of one call."""
    return _PLACE.sub(lambda found: f" in key {words.key(keys[int(found[1])])}" if len(keys) > 1 else "", message)
