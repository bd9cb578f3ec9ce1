"""Where a newer remote row meets an edit: the three-way merge, rebase, and the policies, as pure functions.

Nothing here touches a file or a network.  The queue does the same for sets in SQL; the tests hold that
SQL to these functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from .errors import SyncError
from .operation import Operation, Row, same, same_rows

POLICIES = ("fail", "merge", "mine", "theirs")


@dataclass(frozen=True, slots=True)
class Merged:
    """What a three-way merge gives.

    Parameters
    ----------
    row
        The merged row, None where it is deleted; where `clashes` is not empty, theirs in those columns.
    clashes
        The columns changed on both sides, differently.
    is_possible
        False where one side deleted what the other edited, or both inserted differently.
    """

    row: Row | None
    clashes: tuple[str, ...] = ()
    is_possible: bool = True

    @property
    def is_clean(self) -> bool:
        return self.is_possible and not self.clashes


def merge(base: Row | None, local: Row | None, remote: Row | None, together: Iterable[Iterable[str]] = ()) -> Merged:
    """Merge three states of one row, column by column.

    Parameters
    ----------
    base, local, remote
        The row as last known, as edited here, as it is there; None: not there.
    together
        Groups of columns that are merged as one, such as latitude and longitude.

    Notes
    -----
    A column changed on one side only is taken from that side; changed alike on both it is no clash.  This is
    the merge of diff3 (Khanna, Kunal and Pierce, "A formal investigation of diff3", 2007) with cells for lines.
    """
    if same_rows(local, remote) or same_rows(base, local):
        return Merged(remote)
    if same_rows(base, remote):
        return Merged(local)
    if base is None or local is None or remote is None:
        return Merged(remote, is_possible=False)
    groups = grouped(remote, together)
    mine = {name for group in groups for name in group if _changed(group, base, local)}
    theirs = {name for group in groups for name in group if _changed(group, base, remote)}
    unlike = {name for group in groups for name in group if _changed(group, local, remote)}
    clashes = mine & theirs & unlike
    row = {name: local[name] if name in mine - clashes else remote[name] for name in remote}
    return Merged(row, tuple(sorted(clashes)))


def rebase(operation: Operation, remote: Row | None) -> Operation | None:
    """Put a pending operation on a newer remote row; None where nothing is left to say.

    Raises
    ------
    SyncError
        Where the merge is not clean: a conflict is for its owner to settle.
    """
    merged = merge(operation.base, operation.local, remote)
    if not merged.is_clean:
        raise SyncError(f"operation {operation.id} and the remote row clash in {', '.join(merged.clashes) or 'all'}")
    if same_rows(merged.row, remote):
        return None
    return replace(operation, base=remote, local=merged.row, attempted=False)


def keep_mine(
    base: Row | None, mine: Row | None, theirs: Row | None, together: Iterable[Iterable[str]] = ()
) -> Row | None:
    """Lay the cells that mine changed over theirs; columns that are merged as one stay one.

    An edit is a set of cells: what only they changed stays theirs, so that nothing is overwritten unseen.
    """
    if mine is None or theirs is None or base is None:
        return mine if theirs is None or mine is None else {**theirs, **mine}
    kept = {name for group in grouped(theirs, together) for name in group if _changed(group, base, mine)}
    return {name: mine[name] if name in kept else theirs[name] for name in theirs}


def check_policy(policy: object) -> object:
    """Refuse a policy that is none, at once.

    Raises
    ------
    SyncError
        Naming the known ones.
    """
    if policy is not None and policy not in POLICIES and not callable(policy):
        raise SyncError(f"on_conflict={policy!r} is not known", hint=f"one of {', '.join(POLICIES)}, or a callable")
    return policy


def grouped(names: Collection[str], together: Iterable[Iterable[str]]) -> list[tuple[str, ...]]:
    """The columns, those that are merged as one in a group, each other in one of its own."""
    joined = [tuple(name for name in group if name in names) for group in together]
    taken = {name for group in joined for name in group}
    return [group for group in joined if group] + [(name,) for name in names if name not in taken]


def _changed(group: Iterable[str], before: Row, after: Row) -> bool:
    return any(not same(before[name], after[name]) for name in group)
