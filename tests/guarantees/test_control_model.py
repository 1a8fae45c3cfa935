"""People step in at any moment, beside instances that lose replies: no slot is doubled or vanishes, and each has its reason.

LOCKBEAT_TEST_EXAMPLES=1000 looks longer.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from lockbeat import Lockbeat
from lockbeat.errors import LockbeatError, UnknownJob
from lockbeat.jobs import Job, LedgerEntry
from lockbeat.jobs.options import OF_SLOTS
from lockbeat.tasks import Task
from lockbeat.triggers import AnyOf, ByHand, Every, Trigger
from tests.backfills import Filler
from tests.beats import Hands, ledger
from tests.conftest import CHOSEN
from tests.deploys import Instance
from tests.stepped import Stepped, played

EXAMPLES = int(os.environ.get("LOCKBEAT_TEST_EXAMPLES", "20"))
NAME = "a report!b@7"
TRIGGERS = st.sampled_from([Every(10), Every(10), Every(15), AnyOf(Every(10), Every(15)), ByHand()])
POLICIES = st.fixed_dictionaries(
    {
        "overlap": st.sampled_from(["skip", "allow", "buffer_one", "buffer_all", "cancel_other"]),
        "catchup": st.sampled_from(["latest", "latest", "all"]),
        "jitter": st.sampled_from([0, 0, 4]),
        "priority": st.integers(0, 1),
    }
)
OTHER = Job.declare("other", ByHand())
"""In the code of every version: whoever takes it over follows the versions before."""
LEASE = 8
LOST = st.integers(0, 4)


class SteppedIn(Stepped):
    """A job that two instances fire, each with a worker; and people who put, pause, resume, skip, trigger, backfill and delete
    it, or take it out of the code."""

    def __init__(self) -> None:
        super().__init__()
        self.connect()
        self.hands = [Hands(NAME, places=1) for _ in self.clients]
        self.beats = [Instance(lb, runner=hands).scheduler for lb, hands in zip(self.clients, self.hands, strict=True)]
        self.fillers = [Filler(lb, NAME) for lb in self.clients]
        self.deploys = 0
        self.retired = False
        self.filled: list[tuple[int, int]] = []
        """Stretches that were backfilled, so far as they have a part in them; the first end is in."""
        self.handed: list[Any] = [None, None]
        self.job: Job | None = None
        self.banned: list[tuple[int, int]] = []
        """Stretches whose slots are not to be fired; both ends are in."""
        self.paused: tuple[str, int, int | None] | None = None
        """By what, since when, and the last instant whose slot is skipped."""
        self.eras: list[tuple[int, Trigger]] = []
        """From when on which trigger was in force, since the job was put anew."""
        self.runs: list[tuple[Lockbeat, Task]] = []
        self.began: set[str] = set()
        self.fired: set[int] = set()
        """Slots that have begun, also of a job that was deleted since."""

    @initialize(trigger=TRIGGERS, policies=POLICIES)
    def declare(self, trigger: Trigger, policies: dict[str, Any]) -> None:
        self.put(0, trigger, policies)

    def put(self, instance: int, trigger: Trigger, policies: dict[str, Any]) -> None:
        """An instance declares the job so; what the other has in its code stays as it is."""
        if isinstance(trigger, ByHand):
            policies = {name: value for name, value in policies.items() if name not in OF_SLOTS}
        self.job, self.retired = Job.declare(NAME, trigger, keep=100_000, lease=LEASE, **policies), False
        self.deploy(instance, self.job)
        if not self.eras or self.eras[-1][1] != trigger:
            self.eras.append((self.now_ms, trigger))

    def deploy(self, instance: int, *jobs: Job) -> Instance:
        """An instance has these jobs in its code, by the newest version of it."""
        self.deploys += 1
        hands = self.hands[instance]
        hands.names, hands.places = {job.name for job in jobs}, 1
        made = Instance(self.clients[instance], *jobs, OTHER, number=str(self.deploys), runner=hands)
        made.scheduler._handed = self.beats[instance]._handed
        self.beats[instance] = made.scheduler
        return self.run(made.start())

    @property
    def has_slots(self) -> bool:
        return self.job is not None and not self.retired and not isinstance(self.job.trigger, ByHand)

    def began_with(self, lb: Lockbeat, tasks: list[Task]) -> None:
        for task in tasks:
            assert task.id not in self.began, f"{task.id} has begun twice"
            self.began.add(task.id)
            self.runs.append((lb, task))
            if task.job:
                assert task.slot_ms is not None
                self.fired.add(task.slot_ms)

    def look(self, instance: int) -> None:
        """Turns of an instance until nothing more is due. It hears all: it is of what is done next that nobody is to hear."""
        lost, self.faults.to_lose = self.faults.to_lose, 0
        hands = self.hands[instance]
        hands.places = 1
        for turn in range(400):
            self.run(self.beats[instance].tick(0))
            self.took(instance)
            if turn > 0 and not self.is_due():  # whoever resumes a job looks again at once
                break
            if turn % 20 == 19:
                self.let_pass(301)  # it was handed out, and is hidden for a moment
        else:
            raise AssertionError("it does not come to an end")
        what, _, last = self.paused or ("", 0, None)
        if self.has_slots and last is not None and self.now_ms >= (last if what == "skip_next" else last + 1):
            self.end_pause(last)  # a slot at the end of a pause fires
        self.faults.to_lose = lost

    def is_due(self) -> bool:
        if self.job is None:
            return False
        state = self.run(self.lb.jobs.get(NAME))
        return state.next is not None and state.next.due_ms <= self.now_ms

    def took(self, instance: int) -> None:
        """What an instance has begun as it fired it."""
        hands = self.hands[instance]
        if self.paused is not None and self.paused[2] is None:
            assert not hands.tasks, "it was fired in a pause"
        self.began_with(self.clients[instance], hands.tasks)
        hands.tasks.clear()

    def end_pause(self, last_ms: int) -> None:
        assert self.paused
        self.banned.append((self.paused[1] + 1, last_ms))
        self.paused = None

    @rule(ms=st.sampled_from([1, 400, 3000, 9999, 10_000, 26_000, 190_000, 3_600_000]))
    def pass_time(self, ms: int) -> None:
        self.let_pass(ms)

    def lose(self, number: int) -> None:
        """The reply to the call of that number from now on: it is done, and nobody hears of it. 0: none is lost."""
        self.faults.to_pass, self.faults.to_lose = max(number - 1, 0), min(number, 1)

    @rule(number=LOST)
    def lose_a_reply(self, number: int) -> None:
        self.lose(number)

    @rule(instance=st.integers(0, 1))
    def fire(self, instance: int) -> None:
        self.run(self.beats[instance].tick(0))
        self.took(instance)
        self.look(instance)

    @rule(instance=st.integers(0, 1))
    def hand_out(self, instance: int) -> None:
        """An instance is told what is due, and stopped before it fires it."""
        self.handed[instance] = self.run(self.clients[instance].store.call("beat/due", 0, limit=100, hide_ms=300, seen=b""))

    @rule(instance=st.integers(0, 1))
    def fire_late(self, instance: int) -> None:
        """It goes on, by what it was told then."""
        reply, self.handed[instance] = self.handed[instance], None
        if reply is not None and reply.jobs:
            self.run(self.beats[instance]._firing.fire(0, reply.now_ms, reply.jobs))
            self.took(instance)

    @rule(instance=st.integers(0, 1), most=st.integers(1, 3))
    def claim(self, instance: int, most: int) -> None:
        lb = self.clients[instance]
        self.began_with(lb, self.run(lb.tasks.claim("default", lb.owner, most, LEASE)))

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 3), how=st.sampled_from(["complete", "complete", "fail", "heartbeat", "lost"]))
    def end(self, which: int, how: str) -> None:
        lb, task = self.runs[which % len(self.runs)]
        if how == "heartbeat":
            self.run(lb.tasks.heartbeat(task, LEASE))
            return
        self.runs.remove((lb, task))
        if how != "lost" and not self.run(lb.tasks.complete(task) if how == "complete" else lb.tasks.fail(task, "broken")):
            self.run(lb.tasks.release(task, begun=True))

    @precondition(lambda self: self.has_slots)
    @rule(instance=st.integers(0, 1), lasts=st.sampled_from([None, None, 1, 10_000, 47_000]), looks=st.booleans(), lost=LOST)
    def pause(self, instance: int, lasts: int | None, looks: bool, lost: int) -> None:
        if looks:  # or an instance has just been handed what is due
            self.look(instance)
        self.lose(lost)
        until = self.instant(self.now_ms + lasts) if lasts else None
        new = self.run(self.clients[instance].jobs.pause(NAME, until=until, by="anna"))
        assert new == (self.paused is None)
        since = self.now_ms if self.paused is None else self.paused[1]
        self.paused = "pause", since, self.now_ms + lasts - 1 if lasts else None

    @precondition(lambda self: self.has_slots and (not self.paused or self.paused[0] == "skip_next"))
    @rule(instance=st.integers(0, 1), n=st.integers(1, 3), lost=LOST)
    def skip_next(self, instance: int, n: int, lost: int) -> None:
        self.look(0)
        self.lose(lost)
        last = round(self.run(self.clients[instance].jobs.skip_next(NAME, n, by="anna")).timestamp() * 1000)
        self.paused = "skip_next", self.paused[1] if self.paused else self.now_ms, last

    @precondition(lambda self: self.stands)
    @rule(instance=st.integers(0, 1), catchup=st.sampled_from([None, "latest", "all"]), lost=LOST)
    def resume(self, instance: int, catchup: Any, lost: int) -> None:
        assert self.job is not None
        if catchup == "all" and self.job.catchup != "all":
            catchup = "latest"
        self.look(1)
        self.lose(lost)
        resumed = self.run(self.clients[instance].jobs.resume(NAME, catchup, by="anna"))
        assert (resumed is None) == (self.paused is None)
        if resumed is not None:
            following = None if resumed.next_slot is None else round(resumed.next_slot.timestamp() * 1000)
            self.end_pause(self.now_ms if following is None else min(following - 1, self.now_ms))

    @property
    def stands(self) -> bool:
        return self.job is not None and not self.retired

    @precondition(lambda self: self.stands)
    @rule(instance=st.integers(0, 1), overlap=st.sampled_from([None, "allow"]), lost=LOST)
    def trigger(self, instance: int, overlap: Any, lost: int) -> None:
        self.lose(lost)
        spawned = self.run(self.clients[instance].jobs.trigger(NAME, overlap=overlap, by="anna"))
        assert spawned.task_id.startswith(f"{NAME}!" if spawned.created else NAME)

    @rule(instance=st.integers(0, 1), trigger=TRIGGERS, policies=POLICIES, lost=LOST)
    def change(self, instance: int, trigger: Trigger, policies: dict[str, Any], lost: int) -> None:
        if self.job is not None:
            self.look(0)
        self.lose(lost)
        self.put(instance, trigger, policies)

    @precondition(lambda self: self.has_slots)
    @rule(
        instance=st.integers(0, 1),
        first=st.integers(0, 9),
        several=st.sampled_from([1, 3, 10, 30]),
        rate=st.sampled_from([None, None, 0.5, 10]),
        passes=st.sampled_from([0, 26_000, 190_000]),
        lost=LOST,
    )
    def backfill(self, instance: int, first: int, several: int, rate: float | None, passes: int, lost: int) -> None:
        """A stretch of the time since the job was put, perhaps by other triggers; nothing is known of what was before it was
        deleted."""
        self.let_pass(passes)
        since = self.eras[0][0] + 1
        start = since + (self.now_ms - since) * first // 10
        end = min(start + several * 10_000, self.now_ms)
        if start >= end:
            return
        before = self.run(self.lb.jobs.get_backfill(NAME))
        self.lose(lost)
        try:
            self.run(self.clients[instance].jobs.backfill(NAME, self.instant(start), self.instant(end), rate=rate, by="anna"))
        except LockbeatError:
            assert before is not None
            assert not before.is_over
        else:
            assert before is None or before.is_over
            self.filled.append((start, end))

    @precondition(lambda self: self.job)
    @rule(instance=st.integers(0, 1), verb=st.sampled_from(["pause", "resume", "resume", "cancel"]), lost=LOST)
    def step_into_a_backfill(self, instance: int, verb: str, lost: int) -> None:
        before = self.run(self.lb.jobs.get_backfill(NAME))
        states = ["running", "paused", "cancelled"]
        goal = states[["resume", "pause", "cancel"].index(verb)]
        self.lose(lost)
        try:
            done = self.run(getattr(self.clients[instance].jobs, f"{verb}_backfill")(NAME, by="anna"))
        except LockbeatError:
            assert before is None or before.state in ("done", "cancelled")
        else:
            assert before is not None
            assert done == (before.state != goal)

    @rule(instance=st.integers(0, 1), lost=LOST)
    def go_on(self, instance: int, lost: int) -> None:
        """An instance goes on with the backfill, if there is one."""
        self.lose(lost)
        self.run(self.fillers[instance].step())

    @rule(instance=st.integers(0, 1))
    def die(self, instance: int) -> None:
        """It forgets which backfills are its own. What it runs runs on."""
        self.fillers[instance] = Filler(self.clients[instance], NAME)

    @precondition(lambda self: self.stands)
    @rule(instance=st.integers(0, 1), fires=st.booleans(), rolls=st.booleans(), lost=LOST)
    def retire(self, instance: int, fires: bool, rolls: bool, lost: int) -> None:
        """The job leaves the code: by the one instance, by both, and ten minutes after the last that had it."""
        first = self.deploy(instance)
        if rolls:
            self.let_pass(3_000)
            self.look(1 - instance)
        self.lose(lost)
        last = self.deploy(1 - instance)
        self.let_pass(31_000)
        self.lose(0)
        for one in (first, last):
            self.run(one.sign())
        if fires:
            self.look(instance)
        self.let_pass(601_000)
        if fires and lost % 2:
            self.look(instance)
        self.lose(lost)
        self.run(last.sign())
        self.lose(0)
        assert self.run(self.lb.jobs.get(NAME)).state == "retired"
        self.retired = True
        for verb in ("pause", "resume", "skip_next", "trigger"):
            try:
                self.run(getattr(self.clients[instance].jobs, verb)(NAME))
            except LockbeatError:
                continue
            raise AssertionError(f"{verb} of a job that has retired")

    @precondition(lambda self: self.job)
    @rule(instance=st.integers(0, 1))
    def delete(self, instance: int) -> None:
        """With its ledger, its pause and what waits of it; what runs goes on."""
        assert self.run(self.clients[instance].jobs.delete(NAME))
        for verb in ("pause", "resume", "skip_next", "trigger"):
            try:
                self.run(getattr(self.clients[instance].jobs, verb)(NAME))
            except UnknownJob:
                continue
            raise AssertionError(f"{verb} of a job that was deleted")
        assert self.run(ledger(self.lb, NAME)) == []
        self.job, self.paused, self.retired = None, None, False
        self.eras, self.banned, self.filled = [], [], []

    def fill_up(self) -> None:
        """Whatever runs ends, and so does the backfill. What it fired has run."""
        found = self.run(self.lb.jobs.get_backfill(NAME))
        if found is None:
            return
        if found.state == "paused":
            assert self.run(self.lb.jobs.resume_backfill(NAME))
        for turn in range(1000):
            self.look(turn % 2)
            self.run(self.fillers[turn % 2].step())
            self.claim(0, 100)
            while self.runs:
                self.end(0, "complete")
            found = self.run(self.lb.jobs.get_backfill(NAME))
            if found is None or found.is_over:
                break
            self.let_pass(2000 if turn % 5 else 1)
        else:
            raise AssertionError(f"the backfill does not come to an end: {found}")
        if found is not None:
            assert found.fired == found.done + found.failed + found.cancelled + found.missed
            assert found.missed == 0, "what a backfill fired waits for nothing but a worker"

    def at_the_end(self) -> None:
        self.faults.to_lose = 0
        if self.job is None:
            return
        if self.retired:
            self.put(0, self.eras[-1][1], {})
        self.look(0)
        if self.paused:
            assert self.run(self.lb.jobs.resume(NAME))
            self.end_pause(self.now_ms)
        self.fill_up()
        self.let_pass(100_000)
        self.look(1)
        told: dict[int, LedgerEntry] = {}
        entries = self.run(ledger(self.lb, NAME))
        assert all(entry.code for entry in entries if entry.state in ("skipped", "missed"))
        ends = [start for start, _ in self.eras[1:]] + [self.now_ms]
        for (start, trigger), end in zip(self.eras, ends, strict=True):
            slot = trigger.next(start)
            while slot is not None and slot <= end:
                found = [entry for entry in entries if entry.slot_ms <= slot <= (entry.last_ms or entry.slot_ms)]
                assert found or slot + self.job.jitter_ms >= end, f"slot {slot} of {trigger} vanished"
                assert len(found) <= 1, f"slot {slot} of {trigger} is told of twice: {found}"
                if found:
                    told[slot] = found[0]
                slot = trigger.next(slot)
        for slot, entry in told.items():
            if entry.state not in ("skipped", "missed") and not any(start <= slot < end for start, end in self.filled):
                assert not [(first, last) for first, last in self.banned if first <= slot <= last], f"fired in a pause: {entry}"


if "memory" in CHOSEN:
    TestNoSlotIsDoubledOrVanishesWhenPeopleStepIn = played(SteppedIn, EXAMPLES)
