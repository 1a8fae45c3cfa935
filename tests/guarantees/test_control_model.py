"""People step in between two slots: none is fired twice or in a pause, none vanishes, and each has its reason."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from lockbeat import Task
from lockbeat.jobs import Job
from lockbeat.store import results
from lockbeat.triggers import Every
from tests.beats import Hands, ledger, scheduler
from tests.conftest import CHOSEN
from tests.stepped import Stepped, played

PERIODS = 10, 15


class SteppedIn(Stepped):
    """A job that two instances fire, and a person who pauses, resumes, skips, triggers, declares and deletes it."""

    def __init__(self) -> None:
        super().__init__()
        self.hands = Hands("report", places=10_000)
        self.banned: list[tuple[int, int]] = []
        """Stretches whose slots are not to be fired; both ends are in."""
        self.paused: tuple[str, int, int | None] | None = None
        """By what, since when, and the last instant whose slot is skipped."""
        self.eras: list[tuple[int, Every]] = []
        """From when on which trigger was in force."""
        self.runs: list[Task] = []
        self.fired: list[int] = []

    @initialize(period=st.sampled_from(PERIODS))
    def declare(self, period: int) -> None:
        self.put(period, 0)

    def put(self, period: int, priority: int) -> None:
        trigger = Every(period)
        self.job = Job.declare("report", trigger, keep=100_000, priority=priority)
        self.beats = [scheduler(self.lb, self.job, runner=self.hands) for _ in range(2)]
        self.run(self.beats[0].register())
        if not self.eras or self.eras[-1][1] != trigger:
            self.eras.append((self.now_ms, trigger))

    def look(self, instance: int) -> None:
        """A turn of an instance; whoever resumes a job looks again at once."""
        for _ in range(2):
            self.run(self.beats[instance].tick(0))
        what, _, last = self.paused or ("", 0, None)
        if last is not None and self.now_ms >= (last if what == "skip_next" else last + 1):  # a slot at the end of a pause fires
            self.end_pause(last)
        for task in self.hands.tasks[:]:
            self.hands.tasks.remove(task)
            self.runs.append(task)
            self.fired.append(task.slot_ms)
            assert not [(first, last) for first, last in self.banned if first <= task.slot_ms <= last]
            assert self.paused is None or task.slot_ms <= self.paused[1], "it was fired in a pause"
        assert len(set(self.fired)) == len(self.fired)

    def end_pause(self, last_ms: int) -> None:
        assert self.paused
        self.banned.append((self.paused[1] + 1, last_ms))
        self.paused = None

    @rule(ms=st.sampled_from([1, 400, 3000, 9999, 10_000, 26_000, 3_600_000]))
    def pass_time(self, ms: int) -> None:
        self.let_pass(ms)

    @rule(instance=st.integers(0, 1))
    def fire(self, instance: int) -> None:
        self.look(instance)

    @precondition(lambda self: self.runs)
    @rule()
    def end(self) -> None:
        assert self.run(self.lb.tasks.complete(self.runs.pop(0))) in (True, False)  # its lease may have run out

    @rule(lasts=st.sampled_from([None, 1, 10_000, 47_000]), lost=st.booleans())
    def pause(self, lasts: int | None, lost: bool) -> None:
        self.look(0)
        row = self.lb.store.row["job/pause"](
            job="report",
            what="pause",
            until=self.now_ms + lasts if lasts else 0,
            expected="",
            held="",
            by="anna",
            why="",
            call=self.lb.store.new_call(),
        )
        said = self.run(self.lb.store.call_row(row, 0))
        assert said == (results.DONE if self.paused is None else results.NO)
        if lost:
            assert self.run(self.lb.store.call_row(row, 0)) == said
        since = self.now_ms if self.paused is None else self.paused[1]
        self.paused = "pause", since, self.now_ms + lasts - 1 if lasts else None

    @precondition(lambda self: not self.paused or self.paused[0] == "skip_next")
    @rule(n=st.integers(1, 3))
    def skip_next(self, n: int) -> None:
        self.look(0)
        if self.paused is not None and self.paused[0] == "pause":
            return
        last = round(self.run(self.lb.jobs.skip_next("report", n, by="anna")).timestamp() * 1000)
        self.paused = "skip_next", self.paused[1] if self.paused else self.now_ms, last

    @rule(catchup=st.sampled_from([None, "latest"]))
    def resume(self, catchup: Any) -> None:
        self.look(1)
        resumed = self.run(self.lb.jobs.resume("report", catchup, by="anna"))
        assert (resumed is None) == (self.paused is None)
        if resumed is not None:
            latest = catchup == "latest" and resumed.next_slot is not None and resumed.next_slot.timestamp() * 1000 <= self.now_ms
            self.end_pause(round(resumed.next_slot.timestamp() * 1000) - 1 if latest and resumed.next_slot else self.now_ms)

    @rule()
    def trigger(self) -> None:
        spawned = self.run(self.lb.jobs.trigger("report", by="anna"))
        assert spawned.task_id.startswith("report!" if spawned.created else "report")
        for task in self.run(self.lb.tasks.claim("default", "worker", 10)):
            self.run(self.lb.tasks.complete(task))

    @rule(period=st.sampled_from(PERIODS), priority=st.integers(0, 1))
    def change(self, period: int, priority: int) -> None:
        self.look(0)
        self.put(period, priority)

    def at_the_end(self) -> None:
        if not self.eras:
            return
        self.look(0)
        if self.paused:
            self.run(self.lb.jobs.resume("report"))
            self.end_pause(self.now_ms)
        self.let_pass(100_000)
        self.look(1)
        entries = self.run(ledger(self.lb, "report"))
        covered = [(entry.slot_ms, entry.last_ms or entry.slot_ms) for entry in entries]
        assert all(entry.code for entry in entries if entry.state in ("skipped", "missed"))
        ends = [start for start, _ in self.eras[1:]] + [self.now_ms]
        for (start, trigger), end in zip(self.eras, ends, strict=True):
            slot = trigger.next(start)
            while slot is not None and slot <= end:
                assert any(first <= slot <= last for first, last in covered), f"slot {slot} of {trigger} vanished"
                slot = trigger.next(slot)


if "memory" in CHOSEN:
    TestNoSlotIsDoubledOrVanishesWhenPeopleStepIn = played(SteppedIn, 40)
