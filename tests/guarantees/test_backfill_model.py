"""Backfills between slots that come due, with instances that die: no slot is begun twice, and at the end each has run."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from lockbeat import Task
from lockbeat.errors import InvalidArgument, LockbeatError
from lockbeat.jobs import Job
from lockbeat.triggers import Every
from tests.backfills import Filler, at
from tests.beats import Hands, ledger, scheduler
from tests.conftest import CHOSEN
from tests.stepped import START_MS, Stepped, played

PERIOD_MS = 10_000


class Filled(Stepped):
    """A job whose slots two instances fire and backfill, or not, while somebody begins, pauses and ends backfills."""

    @initialize(
        overlap=st.sampled_from(["skip", "allow", "buffer_one", "buffer_all"]), catchup=st.sampled_from(["latest", "skip", "all"])
    )
    def declare(self, overlap: Any, catchup: Any) -> None:
        self.hands = Hands("report", places=10_000)
        self.job = Job.declare("report", Every(10), keep=100_000, overlap=overlap, catchup=catchup)
        self.beats = [scheduler(self.lb, self.job, runner=self.hands) for _ in range(2)]
        self.fillers = [Filler(self.lb) for _ in range(2)]
        self.run(self.beats[0].register())
        self.runs: list[Task] = []
        self.begun: list[int] = []

    def begin(self, tasks: list[Task]) -> None:
        for task in tasks:
            self.runs.append(task)
            self.begun.append(task.slot_ms)
        assert len(set(self.begun)) == len(self.begun), "a slot was begun twice"

    @rule(ms=st.sampled_from([1, 400, 3000, 10_000, 26_000, 200_000]))
    def pass_time(self, ms: int) -> None:
        self.let_pass(ms)

    @rule(instance=st.integers(0, 1))
    def fire(self, instance: int) -> None:
        self.run(self.beats[instance].tick(0))
        self.begin(self.hands.tasks[:])
        self.hands.tasks.clear()

    @rule(instance=st.integers(0, 1))
    def go_on(self, instance: int) -> None:
        self.begin(self.run(self.fillers[instance].turn()))

    @rule(instance=st.integers(0, 1))
    def die(self, instance: int) -> None:
        self.fillers[instance] = Filler(self.lb)

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 9), how=st.sampled_from(["complete", "fail"]))
    def end(self, which: int, how: str) -> None:
        task = self.runs.pop(which % len(self.runs))
        self.run(self.lb.tasks.complete(task) if how == "complete" else self.lb.tasks.fail(task, "broken"))

    @rule(first=st.integers(0, 30), several=st.integers(1, 30), rate=st.sampled_from([None, 0.5, 10]))
    def backfill(self, first: int, several: int, rate: float | None) -> None:
        start = START_MS - 100_000 + first * PERIOD_MS
        with contextlib.suppress(InvalidArgument, LockbeatError):  # it lies ahead, or there is one
            self.run(self.lb.jobs.backfill("report", at(start), at(start + several * PERIOD_MS), rate=rate))

    @rule(verb=st.sampled_from(["pause", "resume", "cancel"]))
    def step_in(self, verb: str) -> None:
        with contextlib.suppress(LockbeatError):  # there is none, or it has ended
            self.run(getattr(self.lb.jobs, f"{verb}_backfill")("report"))

    def at_the_end(self) -> None:
        """All that was fired ends; and a backfill of all slots so far leaves none that has not run."""
        if not hasattr(self, "job"):
            return
        self.step_in("cancel")
        began, until_ms, over = START_MS - 100_000, self.now_ms, False
        slots = range(-(-began // PERIOD_MS) * PERIOD_MS, until_ms, PERIOD_MS)
        for turn in range(400):
            self.fire(0)
            self.go_on(0)
            while self.runs:
                self.end(0, "complete")
            found = self.run(self.lb.jobs.get_backfill("report"))
            if not over and (found is None or found.is_over):
                self.run(self.lb.jobs.backfill("report", at(began), at(until_ms)))
                over = True
            elif over and found is not None and found.is_over and set(slots) <= set(self.begun):
                break  # what came due meanwhile may have stood in line between those of the backfill
            self.let_pass(2000 if turn % 5 else 1)
        assert found is not None
        assert found.is_over
        assert set(slots) <= set(self.begun)
        states = {entry.slot_ms: entry.state for entry in self.run(ledger(self.lb, "report"))}
        assert {states.get(slot) for slot in slots} <= {"done", "failed", "lost"}


if "memory" in CHOSEN:
    TestNoSlotIsBegunTwiceAndEachHasRunAtTheEnd = played(Filled, 60)
