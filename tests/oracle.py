"""What the queue's SQL must do, row by row: pure functions on one row's state.

Written from the rules of the design, for `test_queue.py` to walk beside the SQL.  A row is a dict of cells or
None; a remote is (row, version, operation ids).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

Row = dict[str, Any] | None
Remote = tuple[Row, str | None, str | None]


@dataclass(frozen=True)
class Edit:
    id: str
    sequence: int
    local: Row
    given: frozenset[str]
    attempted: bool = False
    remote: Remote | None = None
    error: str | None = None


@dataclass(frozen=True)
class State:
    row: Row = None
    version: str | None = None
    tombstone: str | None = None
    edits: tuple[Edit, ...] = ()


def shown(state: State) -> Row:
    return state.edits[-1].local if state.edits else state.row


def base_of(state: State, place: int) -> Row:
    return state.row if place == 0 else state.edits[0].local


def stage(state: State, local: Row, touched: frozenset[str], id: str, sequence: int, columns: list[str]) -> State:
    now = shown(state)
    if local is None and now is None:
        return state
    new = None if local is None else {c: local[c] if c in touched else (now[c] if now else None) for c in columns}
    edits = list(state.edits)
    if edits and (len(edits) == 2 or not edits[0].attempted):
        place = len(edits) - 1
        before, base = edits[place], base_of(state, place)
        given = frozenset(columns) if before.local is None and new is not None else before.given | touched
        sequence = sequence if base is not None else before.sequence
        edits[place] = replace(before, local=new, given=given, error=None, sequence=sequence)
    else:
        place, base = len(edits), base_of(state, len(edits))
        edits.append(Edit(id, sequence, new, touched))
    if edits[place].local == base and edits[0].remote is None:
        edits.pop(place)
    state = replace(state, edits=tuple(edits))
    if edits and edits[0].remote is not None:
        return learn(state, edits[0].remote, "fail", again=True)
    return state


def put(state: State, remote: Remote, edits: tuple[Edit, ...]) -> State:
    row, version, _ = remote
    if row is None:
        return State(None, None, version, edits)
    return State(row, version, None, edits)


def learn(state: State, remote: Remote, mode: str, *, forced: bool = False, again: bool = False) -> State:
    row, version, ids = remote
    first = state.edits[0]
    last = state.edits[-1]
    follower = last if len(state.edits) == 2 else None
    base = state.row
    if not forced and not again and is_known(state, version):
        return state
    sent = as_stored(base, first, row)
    if follower and not forced and says(row, follower.local, sent, base):
        return put(state, remote, ())
    if forced or (ids and first.id in ids.split()) or equal_to_first(row, sent, base):
        is_ours = forced or (bool(ids) and ids.split()[0] == first.id)
        if follower and not is_ours and is_unseen(row, sent, follower.local, mode):
            return replace(
                state,
                row=sent,
                version=None,
                edits=(replace(follower, remote=remote, attempted=False, error=None),),
            )
        return settled(state, remote, sent, follower)
    if (row is None and base is None and not first.attempted and not first.remote) or (row is not None and row == base):
        return only_version(state, remote, first, follower)
    if first.remote and not follower and first.local == base:
        return put(state, remote, ())
    merged = (
        merge(base, sent, follower.local if follower else None, row)
        if mode == "merge" and (not follower or follower.local)
        else None
    )
    if merged is not None:
        return left_to_say(state, remote, merged, first, follower)
    conflict = replace(first, remote=remote, attempted=False, error=None)
    return replace(state, edits=(conflict, *state.edits[1:]))


def is_known(state: State, version: str | None) -> bool:
    if version is None:
        return False
    first = state.edits[0]
    if first.remote:
        return version == first.remote[1] or (state.row is not None and version == state.version)
    return version == (state.version if state.version is not None else state.tombstone)


def as_stored(base: Row, first: Edit, row: Row) -> Row:
    """What the first sent; columns that an insert did not give are as the back end made them."""
    if base is not None or first.local is None or row is None:
        return first.local
    return {c: first.local[c] if c in first.given else row[c] for c in row}


def equal_to_first(row: Row, sent: Row, base: Row) -> bool:
    if row is None or sent is None:
        return row is None and sent is None
    return all(row[c] == sent[c] or (base is not None and sent[c] == base[c]) for c in row)


def says(row: Row, last: Row, sent: Row, base: Row) -> bool:
    if row is None or last is None:
        return row is None and last is None
    if sent is None:
        return False
    return all(row[c] == last[c] or (last[c] == sent[c] and base is not None and sent[c] == base[c]) for c in row)


def is_unseen(row: Row, sent: Row, last: Row, mode: str) -> bool:
    if row is None or sent is None or last is None:
        return (row is None) != (sent is None) or (
            last is None and row is not None and sent is not None and row != sent
        )
    if mode == "merge":
        return any(last[c] != sent[c] and row[c] != sent[c] and row[c] != last[c] for c in row)
    return row != sent


def settled(state: State, remote: Remote, sent: Row, follower: Edit | None) -> State:
    row = remote[0]
    if follower is None:
        return put(state, remote, ())
    if follower.local is None:
        local = None
    elif sent is None:
        local = follower.local
    else:
        local = {
            c: follower.local[c] if follower.local[c] != sent[c] else (row[c] if row else None) for c in follower.local
        }
    rest = () if local == row else (replace(follower, local=local, error=None),)
    return put(state, remote, rest)


def only_version(state: State, remote: Remote, first: Edit, follower: Edit | None) -> State:
    return left_to_say(state, remote, (follower or first).local, first, follower)


def left_to_say(state: State, remote: Remote, local: Row, first: Edit, follower: Edit | None) -> State:
    if local == remote[0]:
        return put(state, remote, ())
    sequence = follower.sequence if follower and state.row is not None else first.sequence
    given = first.given | (follower.given if follower else frozenset())
    return put(state, remote, (Edit(first.id, sequence, local, given),))


def merge(base: Row, first: Row, last: Row, row: Row) -> Row:
    """The merged row, None where it is not clean."""
    if base is None or first is None or row is None:
        return None
    merged = three_way(base, first, row)
    return merged if last is None or merged is None else three_way(first, last, merged)


def three_way(base: dict[str, Any], local: dict[str, Any], remote: dict[str, Any]) -> Row:
    out = {}
    for c in remote:
        if local[c] == base[c]:
            out[c] = remote[c]
        elif remote[c] in (base[c], local[c]):
            out[c] = local[c]
        else:
            return None
    return out


def reject(state: State, error: str) -> State:
    first = replace(state.edits[0], attempted=False, error=error)
    if len(state.edits) == 1:
        return replace(state, edits=(first,))
    follower = state.edits[1]
    if follower.local == state.row:
        return replace(state, edits=())
    sequence = follower.sequence if state.row is not None else first.sequence
    folded = replace(first, local=follower.local, given=first.given | follower.given, error=None, sequence=sequence)
    return replace(state, edits=(folded,))


def pull(state: State, remote: Remote, mode: str) -> State:
    if state.edits:
        return learn(state, remote, mode)
    return put(state, remote, ())
