"""The rules of the queue as SQL: what is to be done with a staged edit, and with an operation that meets a row.

Pure text over the columns of two temporary tables: `judged` of `stage` (an edit beside what is shown and what it
builds on) and `joined` of `learn` (a remote row beside the operations on its key).  The letters before a column name
are those of `layout`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .conflict import grouped
from .layout import Layout

IS_DECIDED = "get_bit(d.decided::bit, {i}) = 1"
# Mine (m, behind the first h) as a person sees it: of a row that is not there, or of an insert that did not give the
# column, nothing.
MINE_SHOWN = "case when not m.deleted and (r.rev is not null or get_bit(m.given | h.given, {i}) = 1) then m.{l} end"


def verdict(layout: Layout, held: Collection[str], touched: Collection[str]) -> str:
    """What is to be done with each staged edit; only the columns that some edit touches are looked at.

    lay
        Its cells go over what is shown.
    nothing
        There is nothing to do.
    exists
        An insert of a key that stands outside the frame.
    clash
        A cell, or the row, changed here and at the back end since the snapshot.
    back
        The row left the store: the snapshot's row is the base again.
    whole
        One's own delete lies between: the later edit wins, with the whole row.
    """
    unlike = layout.some("get_bit(touched, {i}) = 1 and {s} is distinct from {l}", touched)
    # The cell that is shown is the back end's, and neither what the frame held nor what it says now.
    cell = layout.some(
        "get_bit(touched, {i}) = 1 and {s} is not distinct from {v} and {s} is distinct from {b} "
        "and {s} is distinct from {l}",
        [name for name in touched if name in held],
    )
    return f"""
        case when deleted and not shown_there then 'nothing'
             when deleted and is_foreign and first_id is null and held_differs then 'clash'
             when deleted then 'lay'
             when not held_there and shown_there and is_foreign and first_id is null
                  then case when {unlike} then 'clash' else 'nothing' end
             when not held_there and shown_there and not is_moved then 'exists'
             when not held_there then 'lay'
             when shown_there and is_foreign and row_there and not has_remote and {cell} then 'clash'
             when shown_there then 'lay'
             when first_id is not null then 'whole'
             when reason = 'deleted' and is_foreign then 'clash'
             when reason in ('deleted', 'staged') then 'whole'
             else 'back' end
    """


def first_as_stored() -> str:
    """What the first operation sent; of an insert, columns that were not given are as the back end made them."""
    return """
        case when r.rev is null and not h.deleted and not p.deleted and get_bit(h.given, {i}) = 0
             then p.{v} else h.{l} end as {h}
    """


def act(layout: Layout, names: Collection[str], mode: str, *, is_again: bool) -> str:
    """What becomes of each operation that meets a remote row.

    `names` are the columns in which some of these rows differ.

    same
        The row is of a known version and says nothing new; an attempted operation stays attempted.
    settle
        The row says what the first operation says: it leaves, what waits behind it is put on the row.
    behind
        The same, but another changed the row after it, so that what waits behind is in conflict with that.
    theirs
        The row says what the last edit says, or the conflict was edited back to its base: all leave.
    vonly
        Only the version is new, or a tombstone meets an insert that was never sent.
    merge
        The columns are apart.
    conflict
        All else.
    """
    is_merging = str(mode == "merge").lower()
    return f"""
        case when not forced and {"false" if is_again else _SAME_VERSION} then 'same'
             when {_says_last(layout, names)} then 'theirs'
             when {_says_first(layout, names)}
                  then case when {_unseen(layout, names, mode)} then 'behind' else 'settle' end
             when (deleted and not base_there and not first_attempted and not has_remote)
                  or (not deleted and base_there and {layout.rows_like("{p}", "{b}", names)}) then 'vonly'
             when has_remote and behind_id is null
                  and case when first_deleted then not base_there
                           else base_there and {layout.rows_like("{h}", "{b}", names)} end then 'theirs'
             when {is_merging} and {_apart(layout, names)} then 'merge'
             else 'conflict' end
    """


_SAME_VERSION = """
    (version is not null
     and case when has_remote then version = remote_version or (base_there and version = row_version)
              else version = coalesce(row_version, gone_version) end)
"""


def _says_last(layout: Layout, names: Collection[str]) -> str:
    """Whether the row is what the edit behind the first one says: then nothing is left of either."""
    says = layout.every(
        "{p} is not distinct from {f} "
        "or ({f} is not distinct from {h} and base_there and {h} is not distinct from {b})",
        names,
    )
    return f"""
        (behind_id is not null and not forced
         and ((deleted and behind_deleted) or (not deleted and not behind_deleted and not first_deleted and {says})))
    """


def _says_first(layout: Layout, names: Collection[str]) -> str:
    """Whether the row is the first operation's: by the answer, by its id, or in all that it changed."""
    says = layout.every("{p} is not distinct from {h} or (base_there and {h} is not distinct from {b})", names)
    return f"""
        (forced or coalesce(list_contains(string_split(operation, ' '), first_id), false)
         or (deleted and first_deleted) or (not deleted and not first_deleted and {says}))
    """


def _unseen(layout: Layout, names: Collection[str], mode: str) -> str:
    """Whether what waits behind the first would write over a change of another that came after the first."""
    new_there = layout.some("{p} is distinct from {h}", names)
    clash = layout.some("{f} is distinct from {h} and {p} is distinct from {h} and {p} is distinct from {f}", names)
    return f"""
        (behind_id is not null and not (deleted and behind_deleted)
         and (not is_ours or (forced and deleted <> first_deleted))
         and case when deleted or first_deleted or behind_deleted
                  then deleted <> first_deleted or (behind_deleted and {new_there})
                  else {clash if mode == "merge" else new_there} end)
    """


def _apart(layout: Layout, names: Collection[str]) -> str:
    """Whether no column was changed on both sides, differently."""
    first = layout.some("{h} is distinct from {b} and {p} is distinct from {b} and {p} is distinct from {h}", names)
    last = layout.some(
        "{f} is distinct from {h} and {h} is not distinct from {b} and {p} is distinct from {b} "
        "and {p} is distinct from {f}",
        names,
    )
    return f"""
        (not deleted and not first_deleted and base_there and not behind_deleted
         and not {first} and (behind_id is null or not {last}))
    """


def rebased_local() -> str:
    """What is left to say after meeting a remote row."""
    return """
        case act when 'settle' then case when behind_id is null or behind_deleted then null
                                         when first_deleted or {f} is distinct from {h} then {f} else {p} end
                 when 'vonly' then case when behind_id is not null then {f} else {h} end
                 when 'merge' then case when behind_id is not null and {f} is distinct from {h} then {f}
                                        when {h} is not distinct from {b} then {p} else {h} end
                 when 'theirs' then {p} end as {n}
    """


def kept_mine(layout: Layout, groups: Iterable[Iterable[str]]) -> list[str]:
    """The cells that mine (m, behind the first h) changed against the base r, laid over theirs; as n_*.

    Columns that are merged as one stay one: all of mine where mine changed some of them.
    """
    group_of = {name: group for group in grouped(layout.schema.values, groups) for name in group}
    return [kept_cell(layout, name, group_of[name]) for name in layout.schema.values]


def kept_cell(layout: Layout, name: str, group: Collection[str]) -> str:
    """One of them, of a group of columns that are merged as one."""
    is_mine = layout.some("m.{l} is distinct from r.{v} or (m.follower and m.{l} is distinct from h.{l})", group)
    is_given = "get_bit(m.given, {i}) = 1 or get_bit(h.given, {i}) = 1"
    mine, theirs, said, cell = (layout.each(t, [name])[0] for t in ("m.{l}", "h.{r}", is_given, "{n}"))
    return f"""
        case when m.deleted then null
             when h.remote_deleted then {mine}
             when r.rev is null then case when {said} then {mine} else {theirs} end
             when {is_mine} then {mine}
             else {theirs} end as {cell}
    """


def clashes(layout: Layout, groups: Iterable[Iterable[str]]) -> str:
    """Whether some columns of `deciding` were changed on both sides, differently; `conflict.merge` says it of one row.

    Behind a first operation that waits for its answer stands the last: it is merged with what the first one's
    merge gives.  Where there is no base both have made the row, and a column clashes if it was given and differs.
    """
    together = grouped(layout.schema.values, groups)
    both = " or ".join(f"{_first_clashes(layout, group)} or {_last_clashes(layout, group)}" for group in together)
    made = layout.some("get_bit(given, {i}) = 1 and get_bit(decided, {i}) = 0 and {f} is distinct from {p}")
    return f"(case when base_there then ({both or 'false'}) else {made} end)"


def merged_row(layout: Layout, groups: Iterable[Iterable[str]]) -> list[str]:
    """The cells of the merged row, as n_* in the table's order."""
    group_of = {name: group for group in grouped(layout.schema.values, groups) for name in group}
    return [_merged_cell(layout, name, group_of[name]) for name in layout.schema.values]


def _merged_cell(layout: Layout, name: str, group: Collection[str]) -> str:
    said = "(get_bit(given, {i}) = 1 or get_bit(decided, {i}) = 1)"
    first, last, theirs, cell, is_said = (layout.each(t, [name])[0] for t in ("{h}", "{f}", "{p}", "{n}", said))
    return f"""
        case when not base_there then case when {is_said} then {last} else {theirs} end
             when has_follower and {layout.some("{f} is distinct from {h}", group)} then {last}
             when {layout.some("{h} is distinct from {b}", group)} then {first}
             else {theirs} end as {cell}
    """


def _first_clashes(layout: Layout, group: Collection[str]) -> str:
    changes = ("{h} is distinct from {b}", "{p} is distinct from {b}", "{h} is distinct from {p}")
    return "(" + " and ".join(layout.some(change, group) for change in changes) + ")"


def _last_clashes(layout: Layout, group: Collection[str]) -> str:
    # Where the first one changed the columns, they are its own after the first merge, and nothing of theirs.
    changes = ("{f} is distinct from {h}", "{p} is distinct from {h}", "{f} is distinct from {p}")
    clash = " and ".join(layout.some(change, group) for change in changes)
    return f"(has_follower and not {layout.some('{h} is distinct from {b}', group)} and {clash})"


def undone_cell() -> str:
    """Whether a cell goes back: that staging changed it, and it still is as that staging left it."""
    return """
        case when u.before_there
                  and (not u.after_there or (u.{a} is distinct from u.{b} and s.{v} is not distinct from u.{a}))
             then '1' else '0' end
    """
