"""The policies of a job held against what must be so whatever happens, in any order, at any moment between two slots.

No slot is lost or doubled, what runs runs alone, and whatever waits has its turn. LOCKBEAT_TEST_EXAMPLES=1000 looks longer.
"""

from __future__ import annotations

import os
from typing import Any

import fakeredis
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from lockbeat import Every
from lockbeat.jobs import Job, LedgerEntry
from lockbeat.store.records import TaskRecord
from lockbeat.tasks import Task
from tests.beats import Hands, ledger, scheduler
from tests.conftest import CHOSEN
from tests.stepped import START_MS, Stepped, played

EXAMPLES = int(os.environ.get("LOCKBEAT_TEST_EXAMPLES", "12"))
PERIOD, LEASE = 10, 8
POLICIES = st.fixed_dictionaries(
    {
        "overlap": st.sampled_from(["skip", "buffer_one", "buffer_all", "cancel_other"]),
        "catchup": st.sampled_from(["latest", "all"]),
        "max_attempts": st.integers(1, 2),
    }
)
MOST = st.integers(1, 3)


class Line(Stepped):
    """One job, two instances, a worker; and somebody who meddles."""

    @initialize(policies=POLICIES, buffer=MOST, cap=MOST)
    def begin(self, policies: dict[str, Any], buffer: int, cap: int) -> None:
        self.raw: Any = fakeredis.FakeRedis(server=self.server)
        self.running: list[Task] = []
        self.most = 0
        self.declare(policies, buffer, cap)
        self.began_ms = self.now_ms

    def declare(self, policies: dict[str, Any], buffer: int, cap: int) -> None:
        given = policies | ({"buffer": buffer} if policies["overlap"] == "buffer_all" else {})
        given |= {"cap": cap} if policies["catchup"] == "all" else {}
        self.job = Job.declare("job", Every(PERIOD), lease=LEASE, keep=1000, **given)
        self.most = max(self.most, buffer, cap, 1)
        self.run(self.lb.jobs.put(self.job))

    @rule(policies=POLICIES, buffer=MOST, cap=MOST)
    def change_policies(self, policies: dict[str, Any], buffer: int, cap: int) -> None:
        self.declare(policies, buffer, cap)

    @rule(ms=st.sampled_from([1, 900, 2500, 4000, 9999, 10_000, 10_001, 35_000]))
    def let_time_pass(self, ms: int) -> None:
        self.let_pass(ms)

    @rule(room=st.sampled_from([0, 1, 1]))
    def fire(self, room: int) -> None:
        """An instance looks, which may have a place for what it fires."""
        hands = Hands("job", places=room)
        self.run(scheduler(self.lb, self.job, runner=hands).tick(0))
        self.running += hands.tasks

    @rule()
    def claim(self) -> None:
        self.running += self.run(self.lb.tasks.claim("default", self.lb.owner, 5, LEASE))

    def one(self, which: int) -> Task:
        assume(self.running)
        return self.running[which % len(self.running)]

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), how=st.sampled_from(["complete", "complete", "fail", "release", "heartbeat"]))
    def end(self, which: int, how: str) -> None:
        task = self.one(which)
        if how == "heartbeat":
            self.run(self.lb.tasks.heartbeat(task, LEASE))
            return
        self.running.remove(task)
        if how == "complete":
            done = self.run(self.lb.tasks.complete(task))
            if not done:
                self.run(self.lb.tasks.release(task, begun=True))
        elif how == "fail":
            if not self.run(self.lb.tasks.fail(task, "broken")):
                self.run(self.lb.tasks.release(task, begun=True))
        else:
            self.run(self.lb.tasks.release(task, begun=True))

    @precondition(lambda self: self.running)
    @rule()
    def lose_all(self) -> None:
        """The worker dies."""
        self.running.clear()

    @rule(which=st.integers(0, 5), retry=st.booleans())
    def meddle(self, which: int, retry: bool) -> None:
        found = [
            task
            for task, record in self.records().items()
            if record.state in (("dead", "cancelled") if retry else ("waiting", "running"))
        ]
        assume(found)
        one = found[which % len(found)]
        self.run(self.lb.tasks.retry(one, cancelled=True) if retry else self.lb.tasks.cancel(one))

    def records(self) -> dict[str, TaskRecord]:
        found: dict[bytes, bytes] = self.raw.hgetall(self.lb.store.keys.key(0, "task"))
        return {task.decode(): TaskRecord.of(text) for task, text in found.items()}

    def line(self) -> list[str]:
        text = self.raw.hget(self.lb.store.keys.key(0, "job:open"), "job")
        if text is None:
            return []
        first, *slots = text.split(b"\xff")
        return [first.decode(), *(f"job@{slot.decode()}" for slot in slots)]

    def queued(self) -> set[str]:
        members = [m for name in ("task:ready", "task:delayed") for m in self.raw.zrange(self.lb.store.keys.key(0, name), 0, -1)]
        return {member.split(b"\xff", 1)[1][33:].decode() for member in members}

    @invariant()
    def what_runs_runs_alone(self) -> None:
        if hasattr(self, "raw"):
            assert sum(record.state in ("running", "stopping") for record in self.records().values()) <= 1

    @invariant()
    def what_waits_stands_in_a_queue_or_in_line(self) -> None:
        if not hasattr(self, "raw"):
            return
        records, line, queued = self.records(), self.line(), self.queued()
        waiting = {task for task, record in records.items() if record.state == "waiting"}
        assert waiting <= queued | set(line[1:]), "or nobody would ever begin it"
        assert not queued & set(line[1:])
        assert queued <= waiting
        assert len(line) == len(set(line)) <= self.most + 1
        assert all(records[task].state == "waiting" for task in line[1:])
        assert line[1:] == sorted(line[1:], key=lambda task: int(task.rpartition("@")[2])), "the oldest first"

    def at_the_end(self) -> None:
        """All that waits has its turn, and each slot its reason."""
        if not hasattr(self, "raw"):
            return
        self.running.clear()
        for _ in range(12):
            self.let_pass(LEASE * 1000 + 1)
            self.run(scheduler(self.lb, self.job).tick(0))
            for task in self.run(self.lb.tasks.claim("default", self.lb.owner, 5, LEASE)):
                self.run(self.lb.tasks.complete(task))
        unfinished = [task for task, record in self.records().items() if record.state in ("waiting", "running", "stopping")]
        assert len(unfinished) <= 1 + self.most, "but for what came due last"
        last = self.now_ms // (PERIOD * 1000) * PERIOD * 1000
        told: dict[int, LedgerEntry] = {}
        for entry in self.run(ledger(self.lb, "job")):
            for slot in range(entry.slot_ms, (entry.last_ms or entry.slot_ms) + 1, PERIOD * 1000):
                assert slot not in told, f"{entry} and {told[slot]}"
                told[slot] = entry
        first = START_MS // (PERIOD * 1000) * PERIOD * 1000 + PERIOD * 1000
        assert (
            set(range(first, last - 2 * PERIOD * 1000, PERIOD * 1000))
            <= told.keys()
            <= set(range(first, last + 1, PERIOD * 1000))
        )


if "memory" in CHOSEN:
    TestLine = played(Line, EXAMPLES, steps=25)
