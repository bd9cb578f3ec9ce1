"""What becomes of a row that was changed on both sides: the table of outcomes, written by hand before the code.

Two clients and one back end.  *Mine* is the client under test, *theirs* is the other one, which is never
offline.  One row is told of, with two text columns; it is written `(title, note)`, and None is no row.

How a cell is played, step by step:

1. Where mine is an update or a delete, the back end holds `BASE` and both clients have pulled it.  Where mine
   is an insert, the back end has never had the key.  Mine pulls under a query id, so that its checkpoint is
   from before all that follows and a tombstone is brought, too.
2. Mine stages `MINE[mine]`.
3. `attempted`: mine pushes; the request is lost on its way, so the back end has *not* applied it and mine does
   not know.  (A request that was applied and whose answer was lost is another matter: the operation's id tells.
   What theirs did after that is among EXTRA.)
4. `follower`: mine stages `FOLLOWER[mine]`, which waits behind the attempted operation.
5. Theirs writes, one push for each row of `THEIRS_OF_A_NEW_KEY[theirs]` or `THEIRS_OF_A_KNOWN_ROW[theirs]`.
6. They meet under `on_conflict="fail"`: `push()`, or `pull(..., push_first=False)`.

What each pair means:

- insert, insert    both make the same key.
- insert, update    theirs made the key and edited it before mine had ever seen it: one newer row, as above.
- insert, delete    theirs made the key and deleted it: only a tombstone is there.
- update, insert    theirs deleted the row and inserted the key again: it comes as a newer version of the row.
- update, update    both edit `title`.
- update, delete    a tombstone stands where mine edited.
- delete, insert    theirs deleted the row and inserted the key again, mine deleted the old one.
- delete, update    mine deleted what theirs edited.
- delete, delete    both want the same.

What is expected right after the meeting:

- `state`     "settled": nothing of this row is queued; "pending": queued, to be sent by the next push;
              "conflict": queued, with the remote row beside it.
- `pending`   the kinds of what is queued for the row, in sequence; its length is the length of the queue.
- `shown`     what `table.frame()` shows; in a conflict it is mine.
- `server`    the row at the back end; "theirs": as theirs left it.
- and no operation is attempted any more, but where `still_attempted` says so.

Whatever is settled or pending ends, after one more push and pull, with `shown` on both sides.  A conflict ends
with one of three rows on both sides, after the decision, a push and a pull:

- `keep_mine`     the cells that mine edited, laid over theirs; of a delete: deleted; where the row is gone
                  there: the whole of mine, inserted or undeleted.
- `take_theirs`   theirs, and the operations are over.
- `resolve`       of `resolve({"title": "both"})`: the given cells laid over theirs; where the row is gone there
                  over mine, for a cell that nobody spoke of must not become NULL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["insert", "update", "delete"]
Met = Literal["push", "pull"]
State = Literal["settled", "pending", "conflict"]
Row = tuple[str | None, str | None] | None  # (title, note); None: no row

KEY = "k"
BASE: Row = ("base", "base")
RESOLUTION = {"title": "both"}

MINE: dict[Kind, Row] = {
    "insert": ("mine", "mine"),
    "update": ("mine", "base"),
    "delete": None,
}
# Behind an insert or an update: an edit of the other column.  Behind a delete: the key is inserted again.
# (A delete behind an insert or an update is among EXTRA.)
FOLLOWER: dict[Kind, Row] = {
    "insert": ("mine", "mine 2"),
    "update": ("mine", "mine 2"),
    "delete": ("mine 2", "mine 2"),
}
THEIRS_OF_A_NEW_KEY: dict[Kind, tuple[Row, ...]] = {
    "insert": (("theirs", "theirs"),),
    "update": (("base", "base"), ("theirs", "base")),
    "delete": (("base", "base"), None),
}
THEIRS_OF_A_KNOWN_ROW: dict[Kind, tuple[Row, ...]] = {
    "insert": (None, ("theirs", "theirs")),
    "update": (("theirs", "base"),),
    "delete": (None,),
}


@dataclass(frozen=True, slots=True)
class Conflict:
    """What the conflict shows, the row that both sides have after each way to end it, and the merge that is offered."""

    base: Row
    mine: Row
    theirs: Row
    keep_mine: Row
    take_theirs: Row
    resolve: Row
    merged: Row = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One of the 72 meetings.  `state` None: it cannot arise, and `reason` says why."""

    mine: Kind
    theirs: Kind
    met: Met
    attempted: bool
    follower: bool
    state: State | None
    pending: tuple[Kind, ...] = ()
    shown: Row = None
    conflict: Conflict | None = None
    server: Row | Literal["theirs"] = "theirs"
    reason: str = ""

    @property
    def id(self) -> str:
        sent = "attempted" if self.attempted else "never_sent"
        return f"{self.mine}-{self.theirs}-{self.met}-{sent}-{'followed' if self.follower else 'alone'}"


# fmt: off

# The conflicts: one for each pair, then the same with a follower, where mine is the last row staged.
# delete against delete is none.

INSERT_INSERT = Conflict(
    base=None, mine=("mine", "mine"), theirs=("theirs", "theirs"),
    keep_mine=("mine", "mine"), take_theirs=("theirs", "theirs"), resolve=("both", "theirs"),
)
INSERT_INSERT_FOLLOWED = Conflict(
    base=None, mine=("mine", "mine 2"), theirs=("theirs", "theirs"),
    keep_mine=("mine", "mine 2"), take_theirs=("theirs", "theirs"), resolve=("both", "theirs"),
)
INSERT_UPDATE = Conflict(
    base=None, mine=("mine", "mine"), theirs=("theirs", "base"),
    keep_mine=("mine", "mine"), take_theirs=("theirs", "base"), resolve=("both", "base"),
)
INSERT_UPDATE_FOLLOWED = Conflict(
    base=None, mine=("mine", "mine 2"), theirs=("theirs", "base"),
    keep_mine=("mine", "mine 2"), take_theirs=("theirs", "base"), resolve=("both", "base"),
)
INSERT_DELETE = Conflict(
    base=None, mine=("mine", "mine"), theirs=None,
    keep_mine=("mine", "mine"), take_theirs=None, resolve=("both", "mine"),
)
INSERT_DELETE_FOLLOWED = Conflict(
    base=None, mine=("mine", "mine 2"), theirs=None,
    keep_mine=("mine", "mine 2"), take_theirs=None, resolve=("both", "mine 2"),
)
UPDATE_INSERT = Conflict(
    base=("base", "base"), mine=("mine", "base"), theirs=("theirs", "theirs"),
    keep_mine=("mine", "theirs"), take_theirs=("theirs", "theirs"), resolve=("both", "theirs"),
)
UPDATE_INSERT_FOLLOWED = Conflict(
    base=("base", "base"), mine=("mine", "mine 2"), theirs=("theirs", "theirs"),
    keep_mine=("mine", "mine 2"), take_theirs=("theirs", "theirs"), resolve=("both", "theirs"),
)
UPDATE_UPDATE = Conflict(
    base=("base", "base"), mine=("mine", "base"), theirs=("theirs", "base"),
    keep_mine=("mine", "base"), take_theirs=("theirs", "base"), resolve=("both", "base"),
)
UPDATE_UPDATE_FOLLOWED = Conflict(
    base=("base", "base"), mine=("mine", "mine 2"), theirs=("theirs", "base"),
    keep_mine=("mine", "mine 2"), take_theirs=("theirs", "base"), resolve=("both", "base"),
)
UPDATE_DELETE = Conflict(
    base=("base", "base"), mine=("mine", "base"), theirs=None,
    keep_mine=("mine", "base"), take_theirs=None, resolve=("both", "base"),
)
UPDATE_DELETE_FOLLOWED = Conflict(
    base=("base", "base"), mine=("mine", "mine 2"), theirs=None,
    keep_mine=("mine", "mine 2"), take_theirs=None, resolve=("both", "mine 2"),
)
DELETE_INSERT = Conflict(
    base=("base", "base"), mine=None, theirs=("theirs", "theirs"),
    keep_mine=None, take_theirs=("theirs", "theirs"), resolve=("both", "theirs"),
)
DELETE_INSERT_FOLLOWED = Conflict(
    base=("base", "base"), mine=("mine 2", "mine 2"), theirs=("theirs", "theirs"),
    keep_mine=("mine 2", "mine 2"), take_theirs=("theirs", "theirs"), resolve=("both", "theirs"),
)
DELETE_UPDATE = Conflict(
    base=("base", "base"), mine=None, theirs=("theirs", "base"),
    keep_mine=None, take_theirs=("theirs", "base"), resolve=("both", "base"),
)
DELETE_UPDATE_FOLLOWED = Conflict(
    base=("base", "base"), mine=("mine 2", "mine 2"), theirs=("theirs", "base"),
    keep_mine=("mine 2", "mine 2"), take_theirs=("theirs", "base"), resolve=("both", "base"),
)

NEVER_SENT, ATTEMPTED = False, True
ALONE, FOLLOWED = False, True
NOTHING_WAITS = "nothing waits behind an operation that was never sent: the later edit is folded into it"

CELLS: tuple[Cell, ...] = (
    # Two rows of one key, and no base to say what either of them changed.
    Cell("insert", "insert", "push", NEVER_SENT, ALONE,    "conflict", ("insert",), ("mine", "mine"), INSERT_INSERT),
    Cell("insert", "insert", "push", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("insert", "insert", "push", ATTEMPTED,  ALONE,    "conflict", ("insert",), ("mine", "mine"), INSERT_INSERT),
    Cell("insert", "insert", "push", ATTEMPTED,  FOLLOWED, "conflict", ("insert", "update"), ("mine", "mine 2"), INSERT_INSERT_FOLLOWED),
    Cell("insert", "insert", "pull", NEVER_SENT, ALONE,    "conflict", ("insert",), ("mine", "mine"), INSERT_INSERT),
    Cell("insert", "insert", "pull", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("insert", "insert", "pull", ATTEMPTED,  ALONE,    "conflict", ("insert",), ("mine", "mine"), INSERT_INSERT),
    Cell("insert", "insert", "pull", ATTEMPTED,  FOLLOWED, "conflict", ("insert", "update"), ("mine", "mine 2"), INSERT_INSERT_FOLLOWED),

    # Mine never saw the row that theirs edited, so it cannot tell this from an insert.
    Cell("insert", "update", "push", NEVER_SENT, ALONE,    "conflict", ("insert",), ("mine", "mine"), INSERT_UPDATE),
    Cell("insert", "update", "push", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("insert", "update", "push", ATTEMPTED,  ALONE,    "conflict", ("insert",), ("mine", "mine"), INSERT_UPDATE),
    Cell("insert", "update", "push", ATTEMPTED,  FOLLOWED, "conflict", ("insert", "update"), ("mine", "mine 2"), INSERT_UPDATE_FOLLOWED),
    Cell("insert", "update", "pull", NEVER_SENT, ALONE,    "conflict", ("insert",), ("mine", "mine"), INSERT_UPDATE),
    Cell("insert", "update", "pull", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("insert", "update", "pull", ATTEMPTED,  ALONE,    "conflict", ("insert",), ("mine", "mine"), INSERT_UPDATE),
    Cell("insert", "update", "pull", ATTEMPTED,  FOLLOWED, "conflict", ("insert", "update"), ("mine", "mine 2"), INSERT_UPDATE_FOLLOWED),

    # A tombstone.  Under an insert that never left, and one that was refused for it at its first sending and so was
    # certainly not applied, it is another's: undelete and replace, which the same push sends at once.  Under an
    # insert whose answer was lost it may stand for the very row that was inserted: that is asked about.
    Cell("insert", "delete", "push", NEVER_SENT, ALONE,    "settled",  (), ("mine", "mine"), server=("mine", "mine")),
    Cell("insert", "delete", "push", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("insert", "delete", "push", ATTEMPTED,  ALONE,    "conflict", ("insert",), ("mine", "mine"), INSERT_DELETE),
    Cell("insert", "delete", "push", ATTEMPTED,  FOLLOWED, "conflict", ("insert", "update"), ("mine", "mine 2"), INSERT_DELETE_FOLLOWED),
    Cell("insert", "delete", "pull", NEVER_SENT, ALONE,    "pending",  ("insert",), ("mine", "mine")),
    Cell("insert", "delete", "pull", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("insert", "delete", "pull", ATTEMPTED,  ALONE,    "conflict", ("insert",), ("mine", "mine"), INSERT_DELETE),
    Cell("insert", "delete", "pull", ATTEMPTED,  FOLLOWED, "conflict", ("insert", "update"), ("mine", "mine 2"), INSERT_DELETE_FOLLOWED),

    # Deleted and inserted again: nothing but a newer version of the row, with other cells.
    Cell("update", "insert", "push", NEVER_SENT, ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_INSERT),
    Cell("update", "insert", "push", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("update", "insert", "push", ATTEMPTED,  ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_INSERT),
    Cell("update", "insert", "push", ATTEMPTED,  FOLLOWED, "conflict", ("update", "update"), ("mine", "mine 2"), UPDATE_INSERT_FOLLOWED),
    Cell("update", "insert", "pull", NEVER_SENT, ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_INSERT),
    Cell("update", "insert", "pull", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("update", "insert", "pull", ATTEMPTED,  ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_INSERT),
    Cell("update", "insert", "pull", ATTEMPTED,  FOLLOWED, "conflict", ("update", "update"), ("mine", "mine 2"), UPDATE_INSERT_FOLLOWED),

    # The same cell on both sides.
    Cell("update", "update", "push", NEVER_SENT, ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_UPDATE),
    Cell("update", "update", "push", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("update", "update", "push", ATTEMPTED,  ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_UPDATE),
    Cell("update", "update", "push", ATTEMPTED,  FOLLOWED, "conflict", ("update", "update"), ("mine", "mine 2"), UPDATE_UPDATE_FOLLOWED),
    Cell("update", "update", "pull", NEVER_SENT, ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_UPDATE),
    Cell("update", "update", "pull", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("update", "update", "pull", ATTEMPTED,  ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_UPDATE),
    Cell("update", "update", "pull", ATTEMPTED,  FOLLOWED, "conflict", ("update", "update"), ("mine", "mine 2"), UPDATE_UPDATE_FOLLOWED),

    # Edited here, gone there.  It stays an update: the conflict keeps its base until it is resolved.
    Cell("update", "delete", "push", NEVER_SENT, ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_DELETE),
    Cell("update", "delete", "push", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("update", "delete", "push", ATTEMPTED,  ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_DELETE),
    Cell("update", "delete", "push", ATTEMPTED,  FOLLOWED, "conflict", ("update", "update"), ("mine", "mine 2"), UPDATE_DELETE_FOLLOWED),
    Cell("update", "delete", "pull", NEVER_SENT, ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_DELETE),
    Cell("update", "delete", "pull", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("update", "delete", "pull", ATTEMPTED,  ALONE,    "conflict", ("update",), ("mine", "base"), UPDATE_DELETE),
    Cell("update", "delete", "pull", ATTEMPTED,  FOLLOWED, "conflict", ("update", "update"), ("mine", "mine 2"), UPDATE_DELETE_FOLLOWED),

    # Gone here; there it was deleted, too, and then made anew: the new row was not seen, so it is not deleted.
    Cell("delete", "insert", "push", NEVER_SENT, ALONE,    "conflict", ("delete",), None, DELETE_INSERT),
    Cell("delete", "insert", "push", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("delete", "insert", "push", ATTEMPTED,  ALONE,    "conflict", ("delete",), None, DELETE_INSERT),
    Cell("delete", "insert", "push", ATTEMPTED,  FOLLOWED, "conflict", ("delete", "insert"), ("mine 2", "mine 2"), DELETE_INSERT_FOLLOWED),
    Cell("delete", "insert", "pull", NEVER_SENT, ALONE,    "conflict", ("delete",), None, DELETE_INSERT),
    Cell("delete", "insert", "pull", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("delete", "insert", "pull", ATTEMPTED,  ALONE,    "conflict", ("delete",), None, DELETE_INSERT),
    Cell("delete", "insert", "pull", ATTEMPTED,  FOLLOWED, "conflict", ("delete", "insert"), ("mine 2", "mine 2"), DELETE_INSERT_FOLLOWED),

    # Gone here, edited there.
    Cell("delete", "update", "push", NEVER_SENT, ALONE,    "conflict", ("delete",), None, DELETE_UPDATE),
    Cell("delete", "update", "push", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("delete", "update", "push", ATTEMPTED,  ALONE,    "conflict", ("delete",), None, DELETE_UPDATE),
    Cell("delete", "update", "push", ATTEMPTED,  FOLLOWED, "conflict", ("delete", "insert"), ("mine 2", "mine 2"), DELETE_UPDATE_FOLLOWED),
    Cell("delete", "update", "pull", NEVER_SENT, ALONE,    "conflict", ("delete",), None, DELETE_UPDATE),
    Cell("delete", "update", "pull", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("delete", "update", "pull", ATTEMPTED,  ALONE,    "conflict", ("delete",), None, DELETE_UPDATE),
    Cell("delete", "update", "pull", ATTEMPTED,  FOLLOWED, "conflict", ("delete", "insert"), ("mine 2", "mine 2"), DELETE_UPDATE_FOLLOWED),

    # Both want it gone, and it is.  The insert that waited is left, on top of a tombstone that is known now: a
    # push sends it at once, a pull leaves it to the next push.
    Cell("delete", "delete", "push", NEVER_SENT, ALONE,    "settled", (), None),
    Cell("delete", "delete", "push", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("delete", "delete", "push", ATTEMPTED,  ALONE,    "settled", (), None),
    Cell("delete", "delete", "push", ATTEMPTED,  FOLLOWED, "settled", (), ("mine 2", "mine 2"), server=("mine 2", "mine 2")),
    Cell("delete", "delete", "pull", NEVER_SENT, ALONE,    "settled", (), None),
    Cell("delete", "delete", "pull", NEVER_SENT, FOLLOWED, None, reason=NOTHING_WAITS),
    Cell("delete", "delete", "pull", ATTEMPTED,  ALONE,    "settled", (), None),
    Cell("delete", "delete", "pull", ATTEMPTED,  FOLLOWED, "pending", ("insert",), ("mine 2", "mine 2")),
)


@dataclass(frozen=True, slots=True)
class Extra:
    """A meeting beside the 72, played by the same steps; what each side writes is given row by row.

    `mine`: what mine stages; a second row waits behind the attempted first.  `theirs`: one push each; () is
    nothing.  `known_tombstone`: before the first step theirs made the key and deleted it, and mine has pulled
    that.  `newer`: what theirs writes after the meeting, brought by one more `pull(..., push_first=False)`; all
    that is expected is then expected after that pull.  `applied`: it was the answer that was lost, not the request,
    and theirs pulls mine's first row before it writes.
    """

    id: str
    met: Met
    base: Row
    mine: tuple[Row, ...]
    theirs: tuple[Row, ...]
    state: State
    pending: tuple[Kind, ...] = ()
    shown: Row = None
    conflict: Conflict | None = None
    attempted: bool = False
    known_tombstone: bool = False
    newer: tuple[Row, ...] = ()
    server: Row | Literal["theirs"] = "theirs"
    still_attempted: bool = False
    applied: bool = False


APART = Conflict(
    base=("base", "base"), mine=("mine", "base"), theirs=("base", "theirs"),
    keep_mine=("mine", "theirs"), take_theirs=("base", "theirs"), resolve=("both", "theirs"), merged=("mine", "theirs"),
)
APART_FOLLOWED = Conflict(
    base=("base", "base"), mine=("mine 2", "base"), theirs=("base", "theirs"),
    keep_mine=("mine 2", "theirs"), take_theirs=("base", "theirs"), resolve=("both", "theirs"), merged=("mine 2", "theirs"),
)
SET_BACK = Conflict(
    base=("base", "base"), mine=("base", "base"), theirs=("theirs", "base"),
    keep_mine=("base", "base"), take_theirs=("theirs", "base"), resolve=("both", "base"),
)
# Nobody has seen more of the row than what the first sent, so that is the base.
SET_BACK_BEHIND = Conflict(
    base=("mine", "base"), mine=("base", "base"), theirs=("mine", "theirs"),
    keep_mine=("base", "theirs"), take_theirs=("mine", "theirs"), resolve=("both", "theirs"), merged=("base", "theirs"),
)
# The first was applied, its answer lost, and theirs went on from there: what waited behind has seen none of that.
AFTER_AN_EDIT = Conflict(
    base=("mine", "base"), mine=("mine 2", "base"), theirs=("theirs", "base"),
    keep_mine=("mine 2", "base"), take_theirs=("theirs", "base"), resolve=("both", "base"),
)
AFTER_AN_EDIT_APART = Conflict(
    base=("mine", "base"), mine=("mine 2", "base"), theirs=("mine", "theirs"),
    keep_mine=("mine 2", "theirs"), take_theirs=("mine", "theirs"), resolve=("both", "theirs"), merged=("mine 2", "theirs"),
)
AFTER_A_DELETE = Conflict(
    base=("mine", "base"), mine=("mine 2", "base"), theirs=None,
    keep_mine=("mine 2", "base"), take_theirs=None, resolve=("both", "base"),
)
INSERTED_AND_DELETED = Conflict(
    base=None, mine=None, theirs=("theirs", "theirs"),
    keep_mine=None, take_theirs=("theirs", "theirs"), resolve=("both", "theirs"),
)
UPDATED_AND_DELETED = Conflict(
    base=("base", "base"), mine=None, theirs=("theirs", "base"),
    keep_mine=None, take_theirs=("theirs", "base"), resolve=("both", "base"),
)
NEWER_THEIRS = Conflict(
    base=("base", "base"), mine=("mine", "base"), theirs=("theirs 2", "theirs 2"),
    keep_mine=("mine", "theirs 2"), take_theirs=("theirs 2", "theirs 2"), resolve=("both", "theirs 2"),
)

EXTRA: tuple[Extra, ...] = (
    # Both sides equal is never a conflict: nothing is left to say.
    Extra("the_same_edit-push", "push", BASE, mine=(("mine", "base"),), theirs=(("mine", "base"),),
          state="settled", shown=("mine", "base")),
    Extra("the_same_edit-pull", "pull", BASE, mine=(("mine", "base"),), theirs=(("mine", "base"),),
          state="settled", shown=("mine", "base")),
    Extra("the_same_edit-pull-attempted", "pull", BASE, mine=(("mine", "base"),), theirs=(("mine", "base"),), attempted=True,
          state="settled", shown=("mine", "base")),
    Extra("the_same_insert-push", "push", None, mine=(("same", "same"),), theirs=(("same", "same"),),
          state="settled", shown=("same", "same")),
    Extra("the_same_insert-pull", "pull", None, mine=(("same", "same"),), theirs=(("same", "same"),),
          state="settled", shown=("same", "same")),

    # Theirs has all that mine edited, and more.
    Extra("my_edit_and_one_more-push", "push", BASE, mine=(("mine", "base"),), theirs=(("mine", "theirs"),),
          state="settled", shown=("mine", "theirs")),
    Extra("my_edit_and_one_more-pull", "pull", BASE, mine=(("mine", "base"),), theirs=(("mine", "theirs"),),
          state="settled", shown=("mine", "theirs")),

    # Columns apart: "fail" still asks, and offers the merge.  An edit is a set of cells, so keep_mine is the merge.
    Extra("columns_apart-push", "push", BASE, mine=(("mine", "base"),), theirs=(("base", "theirs"),),
          state="conflict", pending=("update",), shown=("mine", "base"), conflict=APART),
    Extra("columns_apart-pull", "pull", BASE, mine=(("mine", "base"),), theirs=(("base", "theirs"),),
          state="conflict", pending=("update",), shown=("mine", "base"), conflict=APART),
    Extra("columns_apart-pull-followed", "pull", BASE, mine=(("mine", "base"), ("mine 2", "base")), theirs=(("base", "theirs"),), attempted=True,
          state="conflict", pending=("update", "update"), shown=("mine 2", "base"), conflict=APART_FOLLOWED),

    # With a follower.  Theirs equals the first: only the follower is left.  Theirs equals the last: nothing is.
    Extra("equal_to_the_first-push", "push", BASE, mine=(("mine", "base"), ("mine", "mine 2")), theirs=(("mine", "base"),), attempted=True,
          state="settled", shown=("mine", "mine 2"), server=("mine", "mine 2")),
    Extra("equal_to_the_first-pull", "pull", BASE, mine=(("mine", "base"), ("mine", "mine 2")), theirs=(("mine", "base"),), attempted=True,
          state="pending", pending=("update",), shown=("mine", "mine 2")),
    Extra("equal_to_the_last-push", "push", BASE, mine=(("mine", "base"), ("mine 2", "base")), theirs=(("mine 2", "base"),), attempted=True,
          state="settled", shown=("mine 2", "base")),
    Extra("equal_to_the_last-pull", "pull", BASE, mine=(("mine", "base"), ("mine 2", "base")), theirs=(("mine 2", "base"),), attempted=True,
          state="settled", shown=("mine 2", "base")),

    # The follower sets the edit back.  Folding the two would say "nothing" and leave "mine" standing there.  Where
    # theirs has the first's cell, and another one: the first is over, and what waited behind is asked about.
    Extra("set_back_where_theirs_has_the_first-push", "push", BASE, mine=(("mine", "base"), ("base", "base")), theirs=(("mine", "theirs"),), attempted=True,
          state="conflict", pending=("update",), shown=("base", "base"), conflict=SET_BACK_BEHIND),
    Extra("set_back_where_theirs_has_the_first-pull", "pull", BASE, mine=(("mine", "base"), ("base", "base")), theirs=(("mine", "theirs"),), attempted=True,
          state="conflict", pending=("update",), shown=("base", "base"), conflict=SET_BACK_BEHIND),
    Extra("set_back_where_theirs_has_another-push", "push", BASE, mine=(("mine", "base"), ("base", "base")), theirs=(("theirs", "base"),), attempted=True,
          state="conflict", pending=("update", "update"), shown=("base", "base"), conflict=SET_BACK),
    Extra("set_back_where_theirs_has_another-pull", "pull", BASE, mine=(("mine", "base"), ("base", "base")), theirs=(("theirs", "base"),), attempted=True,
          state="conflict", pending=("update", "update"), shown=("base", "base"), conflict=SET_BACK),
    Extra("set_back_where_theirs_has_the_base-pull", "pull", BASE, mine=(("mine", "base"), ("base", "base")), theirs=(("base", "theirs"),), attempted=True,
          state="settled", shown=("base", "theirs")),

    # A newer version with the cells of the base: the version is taken, the operation stays; a push sends it again at once.
    Extra("newer_version_only-update-push", "push", BASE, mine=(("mine", "base"),), theirs=(("theirs", "base"), ("base", "base")),
          state="settled", shown=("mine", "base"), server=("mine", "base")),
    Extra("newer_version_only-update-pull", "pull", BASE, mine=(("mine", "base"),), theirs=(("theirs", "base"), ("base", "base")),
          state="pending", pending=("update",), shown=("mine", "base")),
    Extra("newer_version_only-update-pull-attempted", "pull", BASE, mine=(("mine", "base"),), theirs=(("theirs", "base"), ("base", "base")), attempted=True,
          state="pending", pending=("update",), shown=("mine", "base")),
    Extra("newer_version_only-delete-push", "push", BASE, mine=(None,), theirs=(("theirs", "base"), ("base", "base")),
          state="settled", shown=None, server=None),
    Extra("newer_version_only-delete-pull", "pull", BASE, mine=(None,), theirs=(("theirs", "base"), ("base", "base")),
          state="pending", pending=("delete",), shown=None),

    # Nothing newer: it says nothing about what was sent.
    Extra("nothing_newer-pull-attempted", "pull", BASE, mine=(("mine", "base"),), theirs=(), attempted=True,
          state="pending", pending=("update",), shown=("mine", "base"), still_attempted=True),

    # The other follower of an insert or an update: the row is deleted here.  It is never folded into "nothing",
    # for theirs may be an edit of the very row that was inserted.
    Extra("inserted_and_deleted-insert-push", "push", None, mine=(("mine", "mine"), None), theirs=(("theirs", "theirs"),), attempted=True,
          state="conflict", pending=("insert", "delete"), shown=None, conflict=INSERTED_AND_DELETED),
    Extra("inserted_and_deleted-insert-pull", "pull", None, mine=(("mine", "mine"), None), theirs=(("theirs", "theirs"),), attempted=True,
          state="conflict", pending=("insert", "delete"), shown=None, conflict=INSERTED_AND_DELETED),
    Extra("updated_and_deleted-update-push", "push", BASE, mine=(("mine", "base"), None), theirs=(("theirs", "base"),), attempted=True,
          state="conflict", pending=("update", "delete"), shown=None, conflict=UPDATED_AND_DELETED),
    Extra("updated_and_deleted-update-pull", "pull", BASE, mine=(("mine", "base"), None), theirs=(("theirs", "base"),), attempted=True,
          state="conflict", pending=("update", "delete"), shown=None, conflict=UPDATED_AND_DELETED),
    Extra("inserted_and_deleted-delete-push", "push", None, mine=(("mine", "mine"), None), theirs=(("base", "base"), None), attempted=True,
          state="settled", shown=None),
    Extra("inserted_and_deleted-delete-pull", "pull", None, mine=(("mine", "mine"), None), theirs=(("base", "base"), None), attempted=True,
          state="settled", shown=None),
    Extra("updated_and_deleted-delete-push", "push", BASE, mine=(("mine", "base"), None), theirs=(None,), attempted=True,
          state="settled", shown=None),
    Extra("updated_and_deleted-delete-pull", "pull", BASE, mine=(("mine", "base"), None), theirs=(None,), attempted=True,
          state="settled", shown=None),

    # The answer to the first was lost, and theirs changed the row that the first had left.  The first is over; what
    # waited behind must not write over what nobody here has seen.
    Extra("edited_after_the_first-push", "push", BASE, mine=(("mine", "base"), ("mine 2", "base")), theirs=(("theirs", "base"),), attempted=True, applied=True,
          state="conflict", pending=("update",), shown=("mine 2", "base"), conflict=AFTER_AN_EDIT),
    Extra("edited_after_the_first_in_another_cell-push", "push", BASE, mine=(("mine", "base"), ("mine 2", "base")), theirs=(("mine", "theirs"),), attempted=True, applied=True,
          state="conflict", pending=("update",), shown=("mine 2", "base"), conflict=AFTER_AN_EDIT_APART),
    Extra("deleted_after_the_first-push", "push", BASE, mine=(("mine", "base"), ("mine 2", "base")), theirs=(None,), attempted=True, applied=True,
          state="conflict", pending=("update",), shown=("mine 2", "base"), conflict=AFTER_A_DELETE),
    Extra("deleted_after_the_insert-push", "push", None, mine=(("mine", "base"), ("mine 2", "base")), theirs=(None,), attempted=True, applied=True,
          state="conflict", pending=("update",), shown=("mine 2", "base"), conflict=AFTER_A_DELETE),
    Extra("edited_after_the_insert-push", "push", None, mine=(("mine", "base"), ("mine 2", "base")), theirs=(("theirs", "base"),), attempted=True, applied=True,
          state="conflict", pending=("update",), shown=("mine 2", "base"), conflict=AFTER_AN_EDIT),
    Extra("edited_after_the_first-pull", "pull", BASE, mine=(("mine", "base"), ("mine 2", "base")), theirs=(("theirs", "base"),), attempted=True, applied=True,
          state="conflict", pending=("update",), shown=("mine 2", "base"), conflict=AFTER_AN_EDIT),
    Extra("edited_after_the_first_in_another_cell-pull", "pull", BASE, mine=(("mine", "base"), ("mine 2", "base")), theirs=(("mine", "theirs"),), attempted=True, applied=True,
          state="conflict", pending=("update",), shown=("mine 2", "base"), conflict=AFTER_AN_EDIT_APART),
    Extra("deleted_after_the_first-pull", "pull", BASE, mine=(("mine", "base"), ("mine 2", "base")), theirs=(None,), attempted=True, applied=True,
          state="conflict", pending=("update",), shown=("mine 2", "base"), conflict=AFTER_A_DELETE),
    Extra("deleted_after_the_insert-pull", "pull", None, mine=(("mine", "base"), ("mine 2", "base")), theirs=(None,), attempted=True, applied=True,
          state="conflict", pending=("update",), shown=("mine 2", "base"), conflict=AFTER_A_DELETE),
    Extra("edited_after_the_insert-pull", "pull", None, mine=(("mine", "base"), ("mine 2", "base")), theirs=(("theirs", "base"),), attempted=True, applied=True,
          state="conflict", pending=("update",), shown=("mine 2", "base"), conflict=AFTER_AN_EDIT),
    Extra("alone_and_edited_after-push", "push", BASE, mine=(("mine", "base"),), theirs=(("theirs", "base"),), attempted=True, applied=True,
          state="settled", shown=("theirs", "base")),
    Extra("alone_and_edited_after-pull", "pull", BASE, mine=(("mine", "base"),), theirs=(("theirs", "base"),), attempted=True, applied=True,
          state="settled", shown=("theirs", "base")),
    Extra("alone_and_deleted_after-push", "push", None, mine=(("mine", "base"),), theirs=(None,), attempted=True, applied=True,
          state="settled", shown=None),
    Extra("alone_and_deleted_after-pull", "pull", None, mine=(("mine", "base"),), theirs=(None,), attempted=True, applied=True,
          state="settled", shown=None),

    # An insert over a tombstone that was known when it was staged carries its version; for a newer one it is refused,
    # and takes that one's.
    Extra("known_tombstone-push", "push", None, mine=(("mine", "mine"),), theirs=(), known_tombstone=True,
          state="settled", shown=("mine", "mine"), server=("mine", "mine")),
    Extra("newer_tombstone-push", "push", None, mine=(("mine", "mine"),), theirs=(("theirs", "theirs"), None), known_tombstone=True,
          state="settled", shown=("mine", "mine"), server=("mine", "mine")),
    Extra("newer_tombstone-pull", "pull", None, mine=(("mine", "mine"),), theirs=(("theirs", "theirs"), None), known_tombstone=True,
          state="pending", pending=("insert",), shown=("mine", "mine")),

    # A conflict stands, and something newer comes.
    Extra("in_conflict-newer_row", "pull", BASE, mine=(("mine", "base"),), theirs=(("theirs", "base"),), newer=(("theirs 2", "theirs 2"),),
          state="conflict", pending=("update",), shown=("mine", "base"), conflict=NEWER_THEIRS),
    Extra("in_conflict-newer_row_is_mine", "pull", BASE, mine=(("mine", "base"),), theirs=(("theirs", "base"),), newer=(("mine", "base"),),
          state="settled", shown=("mine", "base")),
    Extra("in_conflict-newer_row_is_the_base", "pull", BASE, mine=(("mine", "base"),), theirs=(("theirs", "base"),), newer=(("base", "base"),),
          state="pending", pending=("update",), shown=("mine", "base")),
    Extra("in_conflict-deleted_there", "pull", BASE, mine=(("mine", "base"),), theirs=(("theirs", "base"),), newer=(None,),
          state="conflict", pending=("update",), shown=("mine", "base"), conflict=UPDATE_DELETE),
    Extra("in_conflict-both_deleted", "pull", BASE, mine=(None,), theirs=(("theirs", "base"),), newer=(None,),
          state="settled", shown=None),
    # An insert whose tombstone became a row: the newer remote replaces the one that was learned.
    Extra("in_conflict-inserted_again_there", "push", None, mine=(("mine", "mine"),), theirs=(("base", "base"), None), attempted=True, newer=(("theirs", "theirs"),),
          state="conflict", pending=("insert",), shown=("mine", "mine"), conflict=INSERT_INSERT),
)
# fmt: on
