"""The names of one table's parts in the local file, and its column lists for SQL.

Each part has the key as `k_<name>`; the value columns bear a letter that says whose they are: `v_` the row
as last known, `l_` local, `r_` remote in a conflict, `b_` before and `a_` after a staging.  So no column of
a user's table can clash with the bookkeeping beside it.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

from .schema import Schema, literal, quote

SCHEMAS = META, ROWS, EDITS, GONE, MEMBERS, IMAGES, KEPT_EDITS, KEPT_ROWS = (
    "syncframe_meta",
    "syncframe_rows",
    "syncframe_edits",
    "syncframe_gone",
    "syncframe_members",
    "syncframe_images",
    "syncframe_kept_edits",
    "syncframe_kept_rows",
)


class Layout:
    """One synced table in the local file."""

    def __init__(self, table: str, schema: Schema) -> None:
        self.table = table
        self.schema = schema
        name = quote(table)
        self.rows = f"{ROWS}.{name}"
        self.edits = f"{EDITS}.{name}"
        self.gone = f"{GONE}.{name}"
        self.members = f"{MEMBERS}.{name}"
        self.images = f"{IMAGES}.{name}"
        self.kept_edits = f"{KEPT_EDITS}.{name}"
        self.kept_rows = f"{KEPT_ROWS}.{name}"
        self.view = f"main.{name}"

    @cached_property
    def keys(self) -> str:
        """The key's columns, for a select list or a USING."""
        return ", ".join(quote("k_" + name) for name in self.schema.key)

    def keys_of(self, alias: str) -> str:
        return ", ".join(f"{alias}.{quote('k_' + name)}" for name in self.schema.key)

    def on(self, left: str, right: str) -> str:
        """The condition that two parts speak of one row."""
        names = [quote("k_" + name) for name in self.schema.key]
        return " and ".join(f"{left}.{name} = {right}.{name}" for name in names)

    def each(self, template: str, names: Collection[str] | None = None) -> list[str]:
        """The template once for each value column, or for those of them that are named.

        {v} {l} {r} {b} {a} {n} {p} {h} {f} {s} {t} are its quoted names with that letter, {q} its own name, {text} that
        name as text, {i} its place in the BIT of given columns.
        """
        letters = "vlrbanphfst"
        return [
            template.format(
                q=quote(name), i=i, text=literal(name), **{letter: quote(f"{letter}_{name}") for letter in letters}
            )
            for i, name in enumerate(self.schema.values, 1)
            if names is None or name in names
        ]

    def also(self, template: str, names: Collection[str] | None = None) -> str:
        """The template for each value column, or those named, behind what stands before it: `, a, b`."""
        return "".join(f", {part}" for part in self.each(template, names))

    def others(self, names: Collection[str]) -> list[str]:
        """The value columns that are not named."""
        return [name for name in self.schema.values if name not in names]

    def every(self, template: str, names: Collection[str] | None = None) -> str:
        """A condition that holds in every value column."""
        return "(" + " and ".join([f"({part})" for part in self.each(template, names)] or ["true"]) + ")"

    def some(self, template: str, names: Collection[str] | None = None) -> str:
        """A condition that holds in some value column."""
        return "(" + " or ".join([f"({part})" for part in self.each(template, names)] or ["false"]) + ")"

    def rows_like(self, left: str, right: str, names: Collection[str] | None = None) -> str:
        """Whether two parts, each named by a template, agree in all value columns, or in those named."""
        mine, theirs = self.each(left, names), self.each(right, names)
        if not mine:
            return "true"
        return f"row({', '.join(mine)}) is not distinct from row({', '.join(theirs)})"

    @property
    def firsts(self) -> str:
        """A subquery of the first operation on each key."""
        return f"(select * from {self.edits} where not follower)"

    @property
    def followers(self) -> str:
        """A subquery of the operations that wait behind one whose answer is unknown."""
        return f"(select * from {self.edits} where follower)"

    @property
    def is_last(self) -> str:
        """The condition that an operation e is the last on its key."""
        return f"(e.follower or not exists (select 1 from {self.edits} f where f.follower and {self.on('f', 'e')}))"

    @property
    def lasts(self) -> str:
        """A subquery of the last operation on each key: what is shown."""
        return f"(select * from {self.edits} e where {self.is_last})"

    @property
    def no_bits(self) -> str:
        """The BIT of given columns with none set; its first place stands for no column, so that it is never empty."""
        return self.bits(())

    def bits(self, names: Collection[str]) -> str:
        """The BIT of given columns with those set that are named."""
        return "0" + "".join("1" if name in names else "0" for name in self.schema.values)

    @property
    def all_bits(self) -> str:
        return "0" + "1" * len(self.schema.values)

    def definitions(self) -> list[str]:
        """The statements that make this table's parts."""
        keys = ", ".join(f"{quote('k_' + c.name)} {c.store}" for c in self.schema.key_columns)
        stored = f"version varchar, operation varchar, created timestamptz, updated timestamptz{self._typed('v')}"
        edit = (
            f"sequence bigint, id varchar, {keys}, follower boolean, given bit, deleted boolean, attempted boolean, "
            "sent bigint, retry boolean, has_remote boolean, remote_deleted boolean, remote_version varchar, "
            "remote_operation varchar, remote_created timestamptz, remote_updated timestamptz, "
            "error_code varchar, error_column varchar, error_message varchar, staged_at timestamptz, rev bigint"
            f"{self._typed('l')}{self._typed('r')}"
        )
        row = f"{keys}, {stored}, rev bigint, pulled_rev bigint"
        return [
            f"create table {self.rows} ({row})",
            f"create table {self.edits} ({edit})",
            f"create table {self.gone} ({keys}, version varchar, reason varchar, rev bigint, pulled_rev bigint)",
            f"create table {self.members} (query varchar, run bigint, {keys})",
            f"create table {self.images} (staging bigint, {keys}, before_id varchar, left_id varchar, "
            f"was_conflict boolean, before_there boolean, after_there boolean{self._typed('b')}{self._typed('a')})",
            f"create table {self.kept_edits} (staging bigint, {edit})",
            f"create table {self.kept_rows} (staging bigint, {row})",
        ]

    def parts(self) -> list[str]:
        return [self.rows, self.edits, self.gone, self.members, self.images, self.kept_edits, self.kept_rows]

    def _typed(self, letter: str) -> str:
        return "".join(f", {quote(f'{letter}_{c.name}')} {c.store}" for c in self.schema.value_columns)
