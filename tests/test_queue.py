"""The queue's SQL beside pure per-row functions: random walks of stagings, pulls, pushes and lost answers."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import oracle
import pyarrow as pa
import pytest
from oracle import State

from syncframe.backends.base import Page
from syncframe.pull import Pull, PullResult
from syncframe.queue import Queue
from syncframe.schema import Column, Schema
from syncframe.stage import EVERY_REVISION
from syncframe.store import Store, StoredQuery

COLUMNS = ["x", "y", "z"]
ARROW = {"x": pa.int32(), "y": pa.large_string(), "z": pa.float64()}
SCHEMA = Schema(
    (Column("k", "VARCHAR", False), Column("x", "INTEGER"), Column("y", "VARCHAR"), Column("z", "DOUBLE")), ("k",)
)
KEYS = [f"k{i}" for i in range(40)]


class Walk:
    """One store, and beside it the state of each row by the oracle."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.store = Store(":memory:")
        self.store.define("t", SCHEMA)
        self.queue = Queue(self.store)
        self.pull_ = Pull(self.store, self.queue, None, "t")  # type: ignore[arg-type]
        self.pull_.query = StoredQuery("id:q", "q", None, None, False, 1, False)
        self.states: dict[str, State] = {}
        self.sequence = self.versions = 0

    def cells(self) -> dict[str, Any]:
        r = self.random
        return {"x": r.choice([None, 0, 1]), "y": r.choice([None, "a", "b"]), "z": r.choice([None, 0.5])}

    def state(self, key: str) -> State:
        return self.states.get(key, State())

    def version(self) -> str:
        self.versions += 1
        return f"v{self.versions}"

    # -- each step does the same to the store and to the oracle

    def stage(self, keys: list[str]) -> None:
        rows = []
        for at, key in enumerate(keys):
            state = self.state(key)
            now = oracle.shown(state)
            local = None if self.random.random() < 0.25 else self.cells()
            touched = frozenset() if local is None else frozenset(c for c in COLUMNS if self.random.random() < 0.5)
            rows.append(
                {"ord": at, "k_k": key, "deleted": local is None, "touched": "".join("01"[c in touched] for c in COLUMNS),
                 "held_there": now is not None, "held_version": None}
                | {f"l_{c}": (local or {}).get(c) if c in touched else None for c in COLUMNS}
                | {f"b_{c}": (now or {}).get(c) for c in COLUMNS}
            )  # fmt: skip
            self.states[key] = oracle.stage(state, local, touched, f"?{key}", self.sequence + 1 + at, COLUMNS)
        self.sequence += len(keys)
        with self.store.transaction() as cursor:
            layout = self.store.layout(cursor, "t")
            self.queue.stage(cursor, layout, operations_table(rows), held=COLUMNS, revision=EVERY_REVISION)

    def pull(self, keys: list[str]) -> None:
        mode = self.random.choice(["fail", "merge"])
        rows = []
        for key in keys:
            state = self.state(key)
            row, version, ids = self.remote(state)
            rows.append(
                {
                    "k": key,
                    "_syncframe_deleted": row is None,
                    "_syncframe_version": version,
                    "_syncframe_operation": ids,
                }
                | {c: (row or {}).get(c) for c in COLUMNS}
            )
            self.states[key] = oracle.pull(self.state(key), (row, version, ids), mode)
        self.pull_._apply(PullResult(), Page(page_table(rows)), mode)

    def remote(self, state: State) -> oracle.Remote:
        """A row as another may have left it: like the base, like the local, changed a little, or anything."""
        chance, pick = self.random.random(), self.random.random()
        if state.row is not None and chance < 0.1:
            return dict(state.row), state.version, None
        local = state.edits[self.random.randrange(len(state.edits))].local if state.edits else None
        ids = f"other {real_id(self, state)}" if state.edits and state.edits[0].attempted and chance > 0.8 else "other"
        if state.edits and state.edits[0].attempted and chance > 0.92:
            ids = real_id(self, state)
        if pick < 0.15:
            return None, self.version(), ids
        if state.row is not None and pick < 0.4:
            return dict(state.row), self.version(), ids
        if state.row is not None and pick < 0.6:
            return {**state.row, "x": self.random.choice([0, 1, None])}, self.version(), ids
        if local is not None and pick < 0.75:
            return dict(local), self.version(), ids
        return self.cells(), self.version(), ids

    def push(self, count: int) -> None:
        with self.store.transaction() as cursor:
            number = self.queue.next_push(cursor)
            batch = self.queue.next_batch(cursor, None, number, 10**9, is_retry=False)
        wanted = sorted(
            (s.edits[0].sequence, key)
            for key, s in self.states.items()
            if s.edits and not s.edits[0].remote and not s.edits[0].error
        )
        sent = [] if batch is None else batch.sent.to_pylist()
        assert [row["k_k"] for row in sent] == [key for _, key in wanted]
        for row in sent:
            self.states[row["k_k"]] = attempted(self.states[row["k_k"]])
        answers, mode = [], self.random.choice(["fail", "merge"])
        for row in sent[:count]:
            if self.random.random() < 0.3:
                continue  # the answer is lost
            answers.append(self.answer(row))
        if self.random.random() < 0.6:  # the user goes on while the back end works
            self.stage([row["k_k"] for row in sent[::2]])
        for answer in answers:
            key = answer.pop("key")
            remote = ({c: answer[f"r_{c}"] for c in COLUMNS}, answer["version"], None)
            if answer["deleted"]:
                remote = (None, answer["version"], None)
            if answer["status"] == "rejected":
                self.states[key] = oracle.reject(self.states[key], "check")
            elif answer["status"] == "accepted":
                self.states[key] = oracle.learn(
                    self.states[key], (remote[0], remote[1], real_id(self, self.states[key])), mode, forced=True
                )
            else:
                self.states[key] = oracle.learn(self.states[key], remote, mode)
        if answers:
            with self.store.transaction() as cursor:
                self.queue.settle(cursor, self.store.layout(cursor, "t"), outcome_table(answers), mode)

    def answer(self, row: dict[str, Any]) -> dict[str, Any]:
        state, chance = self.states[row["k_k"]], self.random.random()
        local = state.edits[0].local
        answer = {"operation_id": row["operation_id"], "key": row["k_k"], "version": self.version(), "code": None}
        if chance < 0.4:
            stored = None if local is None else {**local, "z": self.random.choice([local["z"], 0.5])}
            return answer | {"status": "accepted"} | remote_cells(stored)
        if chance < 0.8:
            return answer | {"status": "conflicted"} | remote_cells(self.remote(state)[0])
        return answer | {"status": "rejected", "code": "check"} | remote_cells(None)

    # -- and then both must agree

    def check(self, step: str) -> None:
        held, wanted = self.held(), {k: without_ids(s) for k, s in self.states.items() if s != State()}
        for key in sorted({*held, *wanted}):
            assert held.get(key) == wanted.get(key), f"{step}, {key}"
        rows = {r["k"]: {c: r[c] for c in COLUMNS} for r in self.store.read("t").rows.to_pylist()}
        assert rows == {k: oracle.shown(s) for k, s in self.states.items() if oracle.shown(s) is not None}

    def held(self) -> dict[str, State]:
        """What the store has, as the oracle writes it."""
        with self.store.reading() as cursor:
            layout = self.store.layout(cursor, "t")
            rows = cursor.arrow(f"from {layout.rows}").to_pylist()
            gone = cursor.arrow(f"from {layout.gone} where version is not null").to_pylist()
            edits = cursor.arrow(
                f"select * replace (given::varchar as given) from {layout.edits} order by k_k, follower"
            ).to_pylist()
        states: dict[str, State] = {}
        for r in rows:
            states[r["k_k"]] = State({c: r[f"v_{c}"] for c in COLUMNS}, r["version"])
        for r in gone:
            states[r["k_k"]] = replace(states.get(r["k_k"], State()), tombstone=r["version"])
        for r in edits:
            state = states.get(r["k_k"], State())
            assert r["follower"] == bool(state.edits)
            states[r["k_k"]] = replace(state, edits=(*state.edits, held_edit(r)))
        return states


def held_edit(r: dict[str, Any]) -> oracle.Edit:
    local = None if r["deleted"] else {c: r[f"l_{c}"] for c in COLUMNS}
    given = frozenset(c for c, bit in zip(COLUMNS, r["given"][1:], strict=True) if bit == "1")
    remote = None
    if r["has_remote"]:
        remote = (None if r["remote_deleted"] else {c: r[f"r_{c}"] for c in COLUMNS}, r["remote_version"], None)
    return oracle.Edit("", r["sequence"], local, given, r["attempted"], remote, r["error_code"])


def without_ids(state: State) -> State:
    return replace(
        state, edits=tuple(replace(e, id="", remote=e.remote and (*e.remote[:2], None)) for e in state.edits)
    )


def attempted(state: State) -> State:
    return replace(state, edits=(replace(state.edits[0], attempted=True), *state.edits[1:]))


def real_id(walk: Walk, state: State) -> str:
    """The id that the store made for the first operation, which the oracle then bears too."""
    key = state.edits[0].id[1:] if state.edits[0].id.startswith("?") else None
    if key is None:
        return state.edits[0].id
    with walk.store.reading() as cursor:
        layout = walk.store.layout(cursor, "t")
        found = cursor.one(f"select id from {layout.edits} where k_k = ? and not follower", [key])
    walk.states[key] = replace(state, edits=(replace(state.edits[0], id=found), *state.edits[1:]))
    return str(found)


def operations_table(rows: list[dict[str, Any]]) -> pa.Table:
    types = {
        "ord": pa.int64(),
        "k_k": pa.large_string(),
        "deleted": pa.bool_(),
        "touched": pa.string(),
        "held_there": pa.bool_(),
        "held_version": pa.string(),
    }
    types |= {f"{letter}_{c}": ARROW[c] for letter in "lb" for c in COLUMNS}
    return pa.Table.from_pylist(rows, pa.schema(types))


def page_table(rows: list[dict[str, Any]]) -> pa.Table:
    types = {
        "k": pa.large_string(),
        **ARROW,
        "_syncframe_version": pa.string(),
        "_syncframe_deleted": pa.bool_(),
        "_syncframe_operation": pa.string(),
    }
    return pa.Table.from_pylist(rows, pa.schema(types))


def outcome_table(rows: list[dict[str, Any]]) -> pa.Table:
    types = {
        "operation_id": pa.string(),
        "status": pa.string(),
        "code": pa.string(),
        "version": pa.string(),
        "deleted": pa.bool_(),
    }
    return pa.Table.from_pylist(rows, pa.schema(types | {f"r_{c}": ARROW[c] for c in COLUMNS}))


def remote_cells(row: oracle.Row) -> dict[str, Any]:
    return {"deleted": row is None, **{f"r_{c}": (row or {}).get(c) for c in COLUMNS}}


def walked(seed: int, steps: int = 14) -> Walk:
    walk = Walk(seed)
    for step in range(steps):
        kind = walk.random.choice(["stage", "stage", "pull", "pull", "push", "push"]) if step else "pull"
        some = walk.random.sample(KEYS, len(KEYS) // 2)
        if kind == "push":
            walk.push(walk.random.randint(1, len(KEYS)))
        else:
            getattr(walk, kind)(some)
        walk.check(f"seed {seed}, step {step}, {kind}")
    return walk


@pytest.mark.parametrize("seed", range(5))
def test_the_queue_does_for_sets_what_the_rules_say_of_one_row(seed):
    walk = walked(seed)

    states = list(walk.states.values())
    assert any(s.edits and s.edits[0].remote for s in states), "no conflict arose: the walk is too tame"
    assert any(len(s.edits) == 2 for s in states) or any(s.edits for s in states)


@pytest.mark.full
def test_the_queue_and_the_rules_agree_in_many_walks():
    for seed in range(1_000, 1_300):
        walked(seed)
