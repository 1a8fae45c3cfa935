"""Firing: what a handful of jobs that are due comes to. It is planned here, and decided by `beat/fire`, job by job."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

from lockbeat.calendars import Copies, View
from lockbeat.errors import NotDurable, Unreadable
from lockbeat.events import SlotFired
from lockbeat.jobs import around, plan
from lockbeat.jobs.definition import Job, task_id
from lockbeat.jobs.known import Known
from lockbeat.jobs.owed import Owed
from lockbeat.jobs.plan import Plan
from lockbeat.jobs.registry import Jobs
from lockbeat.jobs.told import Told
from lockbeat.jobs.walk import Walk
from lockbeat.leases.lease import monotonic
from lockbeat.store import Store, results
from lockbeat.store.durable import Durability
from lockbeat.store.keys import job_lock
from lockbeat.store.records import NEVER_MS, SlotLine
from lockbeat.store.rows import Row
from lockbeat.store.scripts import load
from lockbeat.tasks import Task
from lockbeat.triggers.rules import rules_version
from lockbeat.values.durations import instant

log = logging.getLogger("lockbeat")

MOST = 1000
"""Jobs that are fired in one go."""
HIDE_MS = 300
"""If an instance dies between asking and firing, its handful is this much later."""
NEVER = f" {NEVER_MS} "
"""In where a paused job stands."""


class Starting(Protocol):
    """What a call that fires is about to start as well, in the name of this process's worker."""

    here: Sequence[bool]
    """Of each job, whether there is a place for its attempt."""

    def begin(self, task: Task) -> None:
        """Run an attempt that was started."""
        ...

    def put_off(self, task: Task) -> None:
        """Give it back, for a while."""
        ...


class Runner(Protocol):
    """What the scheduler may start attempts on: the worker of the same process."""

    @property
    def room(self) -> int:
        """How many more attempts it would take now."""
        ...

    def burst(self) -> AbstractContextManager[None]:
        """Slots are being fired: what they start goes first."""
        ...

    def starting(self, shard: int, call: str, jobs: Sequence[Job]) -> AbstractContextManager[Starting]:
        """Places for the first attempts of these jobs while a call is on its way that fires them."""
        ...


class _Nobody:
    """Takes no attempt: there is no worker."""

    room = MOST
    here: Sequence[bool] = ()
    burst = nullcontext[None]

    def starting(self, shard: int, call: str, jobs: Sequence[Job]) -> AbstractContextManager[Starting]:
        self.here = [False] * len(jobs)
        return nullcontext(self)

    def begin(self, task: Task) -> None: ...
    def put_off(self, task: Task) -> None: ...


class _Shot(NamedTuple):
    job: Job
    expected: str
    rev: str
    plan: Plan
    view: View | None
    """The calendars by which the job excludes, as the plan had them."""


class Firing:
    """Fires jobs of one store."""

    def __init__(
        self, store: Store, jobs: Jobs, known: Known, walk: Walk, runner: Runner | None, durability: Durability | None
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._known = known
        self._walk = walk
        self.runner: Runner = runner or _Nobody()
        self._durability = durability
        self.calendars = Copies(store)
        self._told = Told()
        self.owed = Owed()
        self.fired = 0
        """Slots that were fired here."""

    async def fire(self, shard: int, now_ms: int, rows: Sequence[bytes]) -> int:
        """Fire a handful. Returns the earliest due time of what follows, in ms; 0: nothing does."""
        handed = [(rows[at].decode(), rows[at + 1].decode()) for at in range(0, len(rows), 2)]
        pairs = [pair for pair in handed if NEVER not in pair[1]]
        if len(pairs) < len(handed):
            await self._jobs.resume_due(shard, (name for name, place in handed if NEVER in place), self._tell)
        known, undefined = await self._known.of(shard, pairs)
        if undefined:
            await self._walk.undefined(shard, undefined)
        failing = await self._pause_failing([(known[name], place) for name, place in pairs if name in known])
        pairs = [pair for pair in pairs if pair[0] not in failing]
        if names := {name for job in known.values() for name in job.exclude}:
            await self.calendars.read(shard, names)
        shooting, stray = [], list[tuple[Job, str]]()
        most = load("beat/fire").most
        for start in range(0, len(pairs), most):
            shots, strays = self._aim(shard, now_ms, pairs[start : start + most], known)
            stray += strays
            shooting.append(asyncio.ensure_future(self._shoot(shard, shots)))
            # Lets this chunk go out now: the server works on it while we work out the next, and run those before.
            await asyncio.sleep(0)
        # A chunk that fails must not take the others down: they may have started attempts that wait to be begun.
        results = await asyncio.gather(*shooting, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if stray:
            await self._jobs.stand_again(shard, stray, now_ms)
        if stray or len(pairs) < len(handed):
            return now_ms
        return min((due_ms for due_ms in results if isinstance(due_ms, int) and due_ms), default=0)

    async def _pause_failing(self, standing: Sequence[tuple[Job, str]]) -> set[str]:
        """Pause those of these jobs that have failed too often: their names."""
        asked = [(job, place) for job, place in standing if job.pause_after is not None]
        found = await asyncio.gather(*(self._jobs.pause_failing(job, place) for job, place in asked), return_exceptions=True)
        failing = set[str]()
        for (job, _), told in zip(asked, found, strict=True):
            if isinstance(told, Unreadable):  # it is fired: what can't be read is no failure
                log.error("could not find out whether job %r has failed too often: %s", job.name, told)
            elif isinstance(told, BaseException):
                raise told
            elif told:
                failing.add(job.name)
        return failing

    def _aim(
        self, shard: int, now_ms: int, pairs: Sequence[tuple[str, str]], known: Mapping[str, Job]
    ) -> tuple[list[_Shot], list[tuple[Job, str]]]:
        """What to fire; and jobs whose slot is none."""
        shots, stray = [], list[tuple[Job, str]]()
        for name, expected in pairs:
            job = known.get(name)
            if job is None:
                continue
            try:
                slot_ms, _, rev, rules = SlotLine.of(expected)
                if plan.again(job, slot_ms, now_ms, rules) is not None:
                    stray.append((job, expected))
                else:
                    view = self.calendars.view(shard, job.exclude, job.trigger.timezone) if job.exclude else None
                    planned = around.of(job, slot_ms, now_ms, view.closed if view else None)
                    shots.append(_Shot(job, expected, rev, planned, view))
            except Exception:  # one job's trigger, or what the store says of it, must not stop the others
                if self._told.may(name):
                    log.exception("could not work out what follows %r of job %r", expected, name)
        return shots, stray

    def _tell(self, name: str, problem: Exception) -> None:
        if self._told.may(name):
            log.error("the pause of job %r is over, but it can't be resumed: %s", name, problem)

    async def _shoot(self, shard: int, shots: Sequence[_Shot]) -> int:
        """Fire a chunk, and begin what was started in our name. Returns the earliest due time of what follows."""
        if not shots:
            return 0
        asked_at, soonest, call = monotonic(), 0, self._store.new_call()
        counting = self._store.counting
        telling, hook = log.isEnabledFor(logging.DEBUG), self._store.events.slot_fired
        with self.runner.starting(shard, call, [shot.job for shot in shots]) as starting:
            rows = [self._row(shot, call, here) for shot, here in zip(shots, starting.here, strict=True)]
            replies, durable = await self._shots(shard, rows)
            for (job, expected, _, planned, view), reply in zip(shots, replies, strict=True):
                if isinstance(reply, Unreadable):
                    log.error("could not fire %s of %s: %s", instant(planned.fire).isoformat(), job.name, reply)
                    continue  # beat/due brings it again
                if view is not None:
                    self._after(shard, job, planned, view, reply.fired)
                # Not fired may mean that another is at it, or that the ledger says why and the next slot is as planned.
                again_ms = reply.now_ms + HIDE_MS
                next_ms = 0 if planned.next is None else planned.next.due_ms
                due_ms = next_ms if reply.fired > results.NO else min(next_ms or again_ms, again_ms)
                if due_ms and (not soonest or due_ms < soonest):
                    soonest = due_ms
                if reply.fired > results.NO:
                    slot = planned.fire
                    self.fired += 1
                    if counting is not None:
                        counting.fired(job.name, (reply.now_ms - _was_due_ms(job, expected, slot)) / 1000)
                    if telling:
                        log.debug("fired %s of %s", instant(slot).isoformat(timespec="milliseconds"), job.name)
                    if hook.heard:
                        hook.tell(SlotFired(job.name, instant(slot), task_id(job.name, slot), (reply.now_ms - slot) / 1000))
                else:
                    self.owed.left(job.name, expected, asked_at)
                if reply.fired == results.STARTED:
                    ends_ms = reply.expires_at_ms
                    task = first_attempt(
                        job, planned.fire, shard, self._store.owner, reply.fence, ends_ms, asked_at, job.lease_ms
                    )
                    if durable:
                        starting.begin(task)
                    else:
                        starting.put_off(task)
        return soonest

    def _row(self, shot: _Shot, call: str, here: bool) -> Row:
        job, expected, rev, planned, view = shot
        following = planned.next
        return self._store.row["beat/fire"](
            job=job.name,
            expected=expected,
            slot=planned.fire,
            missed=f"{planned.first} {planned.last} {planned.count}" if planned.count else "",
            next=f"{following.slot_ms} {following.due_ms} {rev} {rules_version()}" if following else "",
            record=_record(job, expected, planned.fire),
            policies=job.firing,
            owner=self._store.owner,
            call=call,
            lease_ms=job.lease_ms if here else 0,
            calendars=view.words if view else "",
            excluded=planned.excluded,
        )

    def _after(self, shard: int, job: Job, planned: Plan, view: View, fired: int) -> None:
        """What there is to say, and to forget, of the calendars by which a job that was shot excludes."""
        if fired == results.TOO_LATE:
            self.calendars.forget(shard, job.exclude)
        elif fired > results.NO:
            for problem in view.problems(planned.fire):
                if self._told.may(problem):
                    log.warning("%s: jobs that exclude by it fire, such as %s", problem, job.name)

    async def _shots(self, shard: int, rows: Sequence[Row]) -> tuple[Sequence[Any], bool]:
        """Fire. Also: whether it is as durable as asked for; else what was started must not be begun, it might be fired again."""
        if self._durability is None:
            return await self._store.call_many(rows, shard), True
        try:
            fired = self._store.call_many_durably(rows, shard, self._durability, changed=lambda reply: reply.fired > results.NO)
            return await fired, True
        except NotDurable as problem:
            if problem.reply is None:
                raise
            log.error("fired, and put off: %s", problem)
            return problem.reply, False


def _record(job: Job, expected: str, slot_ms: int) -> str:
    """What its task carries. When it was to be fired, the script knows of the slot that it expects."""
    if not job.jitter_ms or SlotLine.of(expected).slot_ms == slot_ms:
        return job.record
    return job.record_due(plan.due(job, slot_ms, job.trigger.next(slot_ms)))


def _was_due_ms(job: Job, expected: str, slot_ms: int) -> int:
    """When a slot that was fired had come due."""
    if not job.jitter_ms:
        return slot_ms
    place = SlotLine.of(expected)
    return place.due_ms if place.slot_ms == slot_ms else plan.due(job, slot_ms, job.trigger.next(slot_ms))


def first_attempt(
    job: Job, slot_ms: int, shard: int, owner: str, fence: int, expires_ms: int, asked_at: float, lease_ms: int
) -> Task:
    """The first attempt of a slot, begun by the call that fired it."""
    return Task(
        id=task_id(job.name, slot_ms),
        name=job.function,
        queue=job.queue,
        params=json.loads(job.params_text) if job.params is not None else None,  # the function's own: it may change them
        headers={},
        attempt=1,
        max_attempts=job.max_attempts,
        owner=owner,
        fence=fence,
        expires_at=expires_ms / 1000,
        shard=shard,
        lease_ms=lease_ms,
        asked_at=asked_at,
        slot_ms=slot_ms,
        job=job.name,
        lock=job_lock(job.name) if job.overlap != "allow" else "",
        timeout_ms=job.timeout_ms,
    )
