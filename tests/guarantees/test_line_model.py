"""The policies of a job held against what must be so whatever happens, in any order, at any moment between two slots.

No slot is lost or doubled, what runs runs alone, and whatever waits has its turn. LOCKBEAT_TEST_EXAMPLES=1000 looks longer.
"""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import Any

import fakeredis
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from lockbeat import Every, Fixed
from lockbeat.errors import LockbeatError
from lockbeat.jobs import Job, LedgerEntry
from lockbeat.tasks import Task
from tests.backfills import Filler
from tests.beats import Hands, ledger, scheduler
from tests.conftest import CHOSEN
from tests.lines import OVERLAPS, UNFINISHED, Look, Watch, check_fired
from tests.stepped import START_MS, Stepped, played

EXAMPLES = int(os.environ.get("LOCKBEAT_TEST_EXAMPLES", "20"))
PERIOD, LEASE = 10, 25
POLICIES = st.fixed_dictionaries(
    {
        "overlap": st.sampled_from(OVERLAPS),
        "catchup": st.sampled_from(["latest", "latest", "all"]),
        "max_attempts": st.integers(1, 2),
        "retry": st.sampled_from([None, 15]),
    }
)
MOST = st.integers(1, 3)
WHICH = st.integers(0, 5)


class Line(Stepped):
    """One job, two instances, a worker; and somebody who meddles."""

    @initialize(policies=POLICIES, buffer=MOST, cap=MOST)
    def begin(self, policies: dict[str, Any], buffer: int, cap: int) -> None:
        self.raw: Any = fakeredis.FakeRedis(server=self.server)
        self.watch = Watch(self.lb, self.raw, "job")
        self.filler = Filler(self.lb, "job")
        self.running: list[Task] = []
        self.first_ms = START_MS
        self.declare(policies, buffer, cap)

    def declare(self, policies: dict[str, Any], buffer: int, cap: int) -> None:
        given = dict(policies)
        retry = given.pop("retry")
        given |= {"buffer": buffer} if policies["overlap"] == "buffer_all" else {}
        given |= {"cap": cap} if policies["catchup"] == "all" else {}
        given |= {"retry": Fixed(retry)} if retry else {}
        self.policies = policies | {"buffer": buffer}
        self.job = Job.declare("job", Every(PERIOD), lease=LEASE, keep=1000, **given)
        self.run(self.lb.jobs.put(self.job))
        self.check()

    def check(self, *, split: bool = False) -> Look:
        return self.watch.check(self.now_ms, split=split)

    @rule(policies=POLICIES, buffer=MOST, cap=MOST)
    def change_policies(self, policies: dict[str, Any], buffer: int, cap: int) -> None:
        self.declare(policies, buffer, cap)

    @rule(policies=POLICIES, buffer=MOST, cap=MOST)
    def delete_and_put(self, policies: dict[str, Any], buffer: int, cap: int) -> None:
        """What runs goes on, and is the last task of the job that is put."""
        led = self.watch.look(self.now_ms)
        self.run(self.lb.jobs.delete("job"))
        self.watch.forget(self.now_ms)
        after = self.watch.look(self.now_ms)
        assert (after.leader, after.line) == (led.holder or None, []) or not led.holder or led.leader != led.holder
        self.first_ms = self.now_ms
        self.declare(policies, buffer, cap)

    @rule(ms=st.sampled_from([1, 900, 2500, 4000, 9999, 10_000, 10_001, 35_000]))
    def let_time_pass(self, ms: int) -> None:
        self.let_pass(ms)

    @rule(room=st.sampled_from([0, 1, 1]))
    def fire(self, room: int) -> None:
        """An instance looks, which may have a place for what it fires."""
        hands, before = Hands("job", places=room), self.watch.look(self.now_ms)
        self.run(scheduler(self.lb, self.job, runner=hands).tick(0))
        self.running += hands.tasks
        after = self.check()
        if self.policies["catchup"] == "latest":
            check_fired(before, after, self.policies["overlap"], self.policies["buffer"])

    @rule(limit=st.sampled_from([1, 5]))
    def claim(self, limit: int) -> None:
        self.running += self.run(self.lb.tasks.claim("default", self.lb.owner, limit, LEASE))
        self.check()

    def one(self, which: int) -> Task:
        assume(self.running)
        return self.running[which % len(self.running)]

    @precondition(lambda self: self.running)
    @rule(which=WHICH, how=st.sampled_from(["complete", "complete", "fail", "release", "put back", "heartbeat"]))
    def end(self, which: int, how: str) -> None:
        """heartbeat: of one that was cancelled, too, as its function goes on."""
        task = self.one(which)
        if how == "heartbeat":
            self.run(self.lb.tasks.heartbeat(task, LEASE))
            self.check()
            return
        self.running.remove(task)
        if how == "complete":
            if not self.run(self.lb.tasks.complete(task)):
                self.run(self.lb.tasks.release(task, begun=True))
        elif how == "fail":
            if not self.run(self.lb.tasks.fail(task, "broken")):
                self.run(self.lb.tasks.release(task, begun=True))
        else:
            self.run(self.lb.tasks.release(task, begun=how == "release"))
        self.check()

    @precondition(lambda self: self.running)
    @rule(told=st.booleans())
    def lose_all(self, told: bool) -> None:
        """The worker dies, or somebody says that it has."""
        self.running.clear()
        if told:
            self.run(self.lb.tasks.release_all(self.lb.owner))
            self.check()

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        self.run(self.lb.tasks.cancel(self.some(which, *UNFINISHED)))
        self.check()

    @rule(which=WHICH, delay=st.sampled_from([0, 0, 12]))
    def retry(self, which: int, delay: int) -> None:
        self.run(self.lb.tasks.retry(self.some(which, "dead", "cancelled"), cancelled=True, delay=delay))
        self.check()

    @rule()
    def redrive(self) -> None:
        self.run(self.lb.tasks.redrive())
        self.check()

    def some(self, which: int, *states: str) -> str:
        found = [task for task, record in self.watch.look(self.now_ms).records.items() if record.state in states]
        assume(found)
        return found[which % len(found)]

    @rule(beside=st.booleans())
    def trigger(self, beside: bool) -> None:
        before = self.watch.look(self.now_ms)
        spawned = self.run(self.lb.jobs.trigger("job", overlap="allow" if beside else None))
        if before.holder and not beside and self.policies["overlap"] != "allow":
            assert (spawned.created, spawned.task_id) == (False, before.holder)
        self.check()

    @rule(back=st.integers(1, 6), what=st.sampled_from(["begin", "go on", "go on", "cancel", "pause"]))
    def backfill(self, back: int, what: str) -> None:
        going = self.run(self.lb.jobs.get_backfill("job"))
        if what == "begin":
            assume(going is None or going.is_over)
            self.run(self.lb.jobs.backfill("job", self.instant(self.now_ms) - timedelta(seconds=back * PERIOD)))
        elif what == "go on" or going is None or going.is_over:
            self.run(self.filler.step())
        else:
            with contextlib.suppress(LockbeatError):  # it has ended
                if what == "cancel":
                    self.run(self.lb.jobs.cancel_backfill("job"))
                elif going.state == "paused":
                    self.run(self.lb.jobs.resume_backfill("job"))
                else:
                    self.run(self.lb.jobs.pause_backfill("job"))
        self.check(split=True)

    @rule(what=st.sampled_from(["pause", "skip", "resume", "resume"]))
    def pause(self, what: str) -> None:
        if what == "resume":
            self.run(self.lb.jobs.resume("job"))
        elif what == "skip":
            with contextlib.suppress(LockbeatError):  # it is paused
                self.run(self.lb.jobs.skip_next("job"))
        else:
            self.run(self.lb.jobs.pause("job"))
        self.check(split=True)

    @rule(takes=st.booleans())
    def hold_the_lock(self, takes: bool) -> None:
        """Somebody who has nothing to do with the job."""
        if takes:
            self.run(self.lb.locks.try_acquire("job:job", "somebody", 25))
        else:
            self.run(self.lb.locks.release("job:job", "somebody"))
        self.check()

    def at_the_end(self) -> None:
        """All that waits has its turn, and each slot its reason; and the next one fires and runs."""
        if not hasattr(self, "raw"):
            return
        self.running.clear()
        self.run(self.lb.locks.release("job:job", "somebody"))
        last = self.now_ms // (PERIOD * 1000) * PERIOD * 1000
        self.run(self.lb.jobs.resume("job"))
        self.run(scheduler(self.lb, self.job).tick(0))
        self.run(self.lb.jobs.pause("job"))
        going = self.run(self.lb.jobs.get_backfill("job"))
        if going is not None and not going.is_over:
            self.run(self.lb.jobs.cancel_backfill("job"))
        self.check(split=True)
        for _ in range(3 * len(self.watch.last) + 10):
            self.let_pass(LEASE * 1000 + 1)
            for task in self.run(self.lb.tasks.claim("default", self.lb.owner, 5, LEASE)):
                self.run(self.lb.tasks.complete(task))
            at = self.check()
            if not [task for task, record in at.records.items() if record.state in UNFINISHED]:
                break
        assert (at.of(*UNFINISHED), at.leader, at.line, at.queued, at.holder) == ([], None, [], set(), None)
        self.told_once(last)
        self.run(self.lb.jobs.resume("job"))
        self.let_pass(PERIOD * 1000)
        self.run(scheduler(self.lb, self.job).tick(0))
        [task] = self.run(self.lb.tasks.claim("default", self.lb.owner, 5, LEASE))
        self.check(split=True)
        assert self.run(self.lb.tasks.complete(task)), "the next slot fires and runs"
        self.nothing_is_left()

    def told_once(self, last: int) -> None:
        told: dict[int, LedgerEntry] = {}
        for entry in self.run(ledger(self.lb, "job")):
            for slot in range(entry.slot_ms, (entry.last_ms or entry.slot_ms) + 1, PERIOD * 1000):
                assert slot not in told, f"{entry} and {told[slot]}"
                told[slot] = entry
        first = self.first_ms // (PERIOD * 1000) * PERIOD * 1000 + PERIOD * 1000
        assert set(range(first, last - 2 * PERIOD * 1000, PERIOD * 1000)) <= told.keys()
        assert max(told, default=0) <= last

    def nothing_is_left(self) -> None:
        self.run(self.lb.jobs.delete("job"))
        self.let_pass(8 * 86_400_000)
        for _ in range(20):
            self.run(self.lb.tasks.claim("default", self.lb.owner, 5, LEASE))
        self.watch.forget(self.now_ms)
        hashes, indexes = ("task", "job:open", "job:counts"), ("task:ready", "task:delayed", "task:live", "task:owned")
        for name in (*hashes, *indexes, "lock:live", "task:ended"):
            key = self.watch.key(name)
            left = self.raw.hkeys(key) if name in hashes else self.raw.zrange(key, 0, -1)
            assert not [one for one in left if b"job" in one], name


if "memory" in CHOSEN:
    TestLine = played(Line, EXAMPLES, steps=30)
