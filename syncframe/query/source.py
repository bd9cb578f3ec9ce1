"""A condition's text, the columns that it may name, and how a refusal points into it."""

from __future__ import annotations

from typing import NoReturn

from ..errors import QueryError
from ..schema import TYPES, Schema
from .tree import SYSTEM_KINDS, TEXT_BYTES_MAX, Column


def check_length(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > TEXT_BYTES_MAX:
        raise QueryError(
            f"the condition has {size} bytes, and may have {TEXT_BYTES_MAX}",
            hint="pull in several queries, or filter the frame",
        )


class Source:
    """One text that a reader reads, over one table's columns."""

    def __init__(self, text: str, schema: Schema) -> None:
        self.text = text
        self.own_names = schema.names
        self._columns = {name.lower(): Column(name, TYPES[kind].family, kind) for name, kind in SYSTEM_KINDS.items()}
        for held in schema.columns:
            family = "float32" if held.kind == "FLOAT" else held.family
            self._columns[held.name.lower()] = Column(held.name, family, held.kind)

    def column(self, name: str, place: int | None) -> Column:
        """The column of this name, in any case; a table's own comes before the system's."""
        column = self._columns.get(name.lower())
        if column is None:
            self.refuse(f"column {name!r} is not known", place)
        return column

    def has(self, name: str) -> bool:
        return name.lower() in self._columns

    def refuse_depth(self) -> NoReturn:
        self.refuse("the condition is nested too deeply", hint="use in (...) for many values, and fewer parentheses")

    def refuse(self, message: str, place: int | None = None, hint: str | None = None) -> NoReturn:
        shown = f"  {self.text[:200]}" if place is None else _pointed(self.text, place)
        hint = hint or f"the columns are {', '.join(self.own_names)}"
        raise QueryError(f"{message}\n{shown}", hint=hint)


def _pointed(text: str, place: int) -> str:
    """The line around `place`, shortened, and a caret under it."""
    start = max(text.rfind("\n", 0, place) + 1, place - 60)
    end = text.find("\n", place)
    line = text[start : min(place + 40, end if end >= 0 else len(text))]
    return f"  {line}\n  {' ' * (place - start)}^"
