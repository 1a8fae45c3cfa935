"""The scheduler: asks what is due, works out what follows, and fires. Every instance runs one.

One turn for a shard is two scripts: `beat/due` hands out what is due, `beat/fire` decides, job by job, whether this
instance is the one to fire it. The clock that decides is the server's in both; ours only says how long to sleep between.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import anyio

from lockbeat.calendars import Copies, View, mend
from lockbeat.connection.outage import REMIND
from lockbeat.errors import LockbeatError, NotDurable, Unreadable
from lockbeat.jobs import around, plan
from lockbeat.jobs.definition import Job, task_id
from lockbeat.jobs.plan import Plan
from lockbeat.jobs.registry import Jobs
from lockbeat.leases.lease import monotonic
from lockbeat.store import Store, messages, results
from lockbeat.store.durable import Durability
from lockbeat.store.keys import job_lock
from lockbeat.store.records import NEVER_MS, JobLine, SlotLine
from lockbeat.store.rows import Row
from lockbeat.store.scripts import load
from lockbeat.store.wakeup import LOOK_IN_MEMORY, Wakeup, at_most
from lockbeat.tasks import Task
from lockbeat.triggers.rules import rules_version
from lockbeat.values.durations import instant

log = logging.getLogger("lockbeat")

LEAST, MOST = 100, 1000
"""Jobs that one instance takes on at a time, by the room that its worker has: the others woke at the same time, and share a
burst by what they can run."""
HIDE_MS = 300
"""If an instance dies between asking and firing, its handful is this much later."""
LOOK_AGAIN = 60.0
"""Seconds. What is due is looked at this often though nobody rang: the bell of a job that was declared can be lost."""
NEVER = f" {NEVER_MS} "
"""In where a paused job stands."""
WALK = 200
"""Jobs that one run of job/walk looks at."""
WALK_AGAIN = 1.0, 10.0, 600.0
"""Seconds between walks through the jobs of an odd store: its clock was set back; something was lost; the same, at most."""
ORPHANED = 30.0
"""Seconds after which a job without a definition is forgotten: an instance that declares it has had time to say so."""


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


class Scheduler:
    """Fires jobs of one store. `declared`: the jobs of this program; others are read from the store."""

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        declared: Mapping[str, Job],
        runner: Runner | None,
        durability: Durability | None = None,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._declared = declared
        self._runner: Runner = runner or _Nobody()
        self._durability = durability
        self._wakeups = [Wakeup() for _ in range(store.shards)]
        self._read: dict[str, tuple[str, Job]] = {}
        self._calendars = Copies(store)
        self._epochs: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._handed: dict[int, bytes] = {}  # as beat/due says it; a store that says less next time has lost something
        self._walks: dict[int, tuple[float, float]] = {}  # when to walk again at the earliest, and how long to wait then
        self._orphans: dict[str, float] = {}
        self._told: dict[str, float] = {}  # when the log was told of a job that can't be worked out
        self.fired = 0
        """Slots that this instance fired, since it started."""

    def epoch(self, shard: int, default: int) -> int:
        """The shard's epoch as last seen: another one means that it was emptied. `default`: nothing was in it so far."""
        return self._epochs.get(shard) or default

    async def register(self) -> None:
        """Declare this program's jobs. Raises StoreUnavailable."""
        self._epochs |= await self._jobs.put(*self._declared.values())

    def wake(self, shard: int) -> None:
        """There may be something to fire on a shard."""
        self._wakeups[shard].ring()

    async def serve(self, shard: int) -> None:
        """Fire what is due on a shard, until cancelled. Losing the store ends nothing."""
        wakeup, store = self._wakeups[shard], self._store
        unlisten = store.listen({messages.JobDue: lambda _: wakeup.ring()}, wakeup.ring, bell=shard)
        try:
            await wakeup.keep_turning(
                lambda: self.tick(shard),
                doing="firing",
                blocked="can't ask what is due",
                longest_pause=1.0,
                look=LOOK_IN_MEMORY if store.connector.kind == "memory" else LOOK_AGAIN,
                told=lambda: store.connector.outage.away,
            )
        finally:
            unlisten()

    async def tick(self, shard: int) -> float | None:
        """One turn: fire what is due. Returns in how many seconds to look again; None: when told to. Raises StoreError."""
        handful = min(max(self._runner.room, LEAST), MOST)
        reply = await self._store.call("beat/due", shard, limit=handful, hide_ms=HIDE_MS, seen=self._handed.get(shard, b""))
        now_ms, epoch, next_ms, handed, odd, rows = reply
        answered = monotonic()
        if epoch != self.epoch(shard, epoch):
            await self._rejoin(shard)
            return 0
        self._epochs[shard] = epoch
        self._seen[shard] = now_ms
        self._handed[shard] = handed
        if rows:
            # Whatever becomes of us: what has been fired in our name must reach the worker, or be given back by it.
            with self._runner.burst(), anyio.CancelScope(shield=True):
                planned_ms = await self._fire(shard, now_ms, rows)
            next_ms = min(next_ms or planned_ms, planned_ms or next_ms)
        if len(rows) >= 2 * handful or (odd and await self._walk(shard, odd)):
            return 0
        pause = None if not next_ms else max(answered + (next_ms - now_ms) / 1000 - monotonic(), 0)
        return at_most(self._walks[shard][0] - monotonic(), pause) if odd else pause

    async def mend_calendars(self) -> None:
        """Where jobs that this instance knows of exclude: see to it that their shards have the calendars as shard 0 has them."""
        if self._store.shards == 1:
            return
        used = self._calendars.used()
        for job in self._declared.values():
            if job.exclude:
                used.setdefault(self._jobs.shard_of(job.name), set()).update(job.exclude)
        await mend(self._store, used)

    async def _rejoin(self, shard: int) -> None:
        """The store was emptied: declare this program's jobs again."""
        count = len(self._declared)
        log.warning("the store was emptied; declaring %d %s again", count, "job" if count == 1 else "jobs")
        mine = [job for job in self._declared.values() if self._jobs.shard_of(job.name) == shard]
        epochs = await self._jobs.put(*mine, since_ms=self._seen.get(shard, 0))
        self._epochs[shard] = epochs.get(shard, 0)

    async def _walk(self, shard: int, odd: int) -> bool:
        """The store's clock was set back (SET_BACK), or something of the jobs was lost (LOST): set right where they stand.

        False: that was done a moment ago.
        """
        not_before, pause = self._walks.get(shard, (0.0, 0.0))
        if monotonic() < not_before:
            return False
        first, second, most = WALK_AGAIN
        pause = first if odd == results.SET_BACK else min(max(2 * pause, second), most)
        self._walks[shard] = monotonic() + pause, pause
        log.warning(
            "%s: looking through its jobs",
            "the server's clock was set back" if odd == results.SET_BACK else "the store lost keys of jobs",
        )
        there = set[str]()
        async for page in self._store.pages("job/walk", shard, limit=WALK):
            found = [(name.decode(errors="replace"), rev.decode(), slot.decode()) for name, rev, slot in page.jobs]
            there.update(name for name, _, _ in found)
            await self._set_right(shard, page.now_ms, found, odd)
        await self._undefined(
            shard, [name for name in self._declared if name not in there and self._jobs.shard_of(name) == shard]
        )
        await self._store.call("job/walk", shard, after="", limit=0)
        return True

    async def _set_right(self, shard: int, now_ms: int, page: Sequence[tuple[str, str, str]], odd: int) -> None:
        back = odd == results.SET_BACK
        asked = {name: slot for name, rev, slot in page if rev and (not slot or (back and SlotLine.of(slot).slot_ms > now_ms))}
        known = await self._definitions(shard, [(name, f"0 0 {rev}") for name, rev, _ in page if name in asked])
        await self._jobs.stand_again(shard, [(job, asked[name]) for name, job in known.items()], now_ms)
        await self._undefined(shard, [name for name, rev, _ in page if not rev])

    async def _undefined(self, shard: int, names: Sequence[str]) -> None:
        """The definitions of these jobs were lost. Declare ours again; forget those that nobody declares."""
        mine = [self._declared[name] for name in names if name in self._declared]
        if mine:
            await self._jobs.put(*mine, since_ms=self._seen.get(shard, 0))
        for name in names:
            if name not in self._declared and monotonic() - self._orphans.setdefault(name, monotonic()) > ORPHANED:
                del self._orphans[name]
                if await self._jobs.delete(name) is False:
                    log.error("the definition of job %r was lost from the store: it is forgotten", name)

    async def _fire(self, shard: int, now_ms: int, rows: Sequence[bytes]) -> int:
        """Fire a handful. Returns the earliest due time of what follows, in ms; 0: nothing does."""
        handed = [(rows[at].decode(), rows[at + 1].decode()) for at in range(0, len(rows), 2)]
        pairs = [pair for pair in handed if NEVER not in pair[1]]
        if len(pairs) < len(handed):
            await self._jobs.resume_due(shard, (name for name, place in handed if NEVER in place), self._tell)
        known = await self._definitions(shard, pairs)
        failing = await self._pause_failing([(known[name], place) for name, place in pairs if name in known])
        pairs = [pair for pair in pairs if pair[0] not in failing]
        if names := {name for job in known.values() for name in job.exclude}:
            await self._calendars.read(shard, names)
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
                    view = self._calendars.view(shard, job.exclude, job.trigger.timezone) if job.exclude else None
                    planned = around.of(job, slot_ms, now_ms, view.closed if view else None)
                    shots.append(_Shot(job, expected, rev, planned, view))
            except Exception:  # one job's trigger, or what the store says of it, must not stop the others
                if self._may_tell(name):
                    log.exception("could not work out what follows %r of job %r", expected, name)
        return shots, stray

    def _may_tell(self, name: str) -> bool:
        """Whether the log was not told of this job for a while."""
        if monotonic() < self._told.get(name, -math.inf) + REMIND:
            return False
        self._told[name] = monotonic()
        return True

    def _tell(self, name: str, problem: Exception) -> None:
        if self._may_tell(name):
            log.error("the pause of job %r is over, but it can't be resumed: %s", name, problem)

    async def _shoot(self, shard: int, shots: Sequence[_Shot]) -> int:
        """Fire a chunk, and begin what was started in our name. Returns the earliest due time of what follows."""
        if not shots:
            return 0
        asked_at, soonest, call = monotonic(), 0, self._store.new_call()
        telling = log.isEnabledFor(logging.DEBUG)
        with self._runner.starting(shard, call, [shot.job for shot in shots]) as starting:
            rows = [self._row(shot, call, here) for shot, here in zip(shots, starting.here, strict=True)]
            replies, durable = await self._shots(shard, rows)
            for (job, _, _, planned, view), row, reply in zip(shots, rows, replies, strict=True):
                if isinstance(reply, Unreadable):
                    log.error("could not fire %s of %s: %s", instant(planned.fire).isoformat(), job.name, reply)
                    continue  # beat/due brings it again
                if view is not None:
                    self._after(shard, job, planned, view, reply.fired)
                # Not fired may mean that another is at it, or that the ledger says why and the next slot is as planned.
                again_ms = reply.now_ms + HIDE_MS
                due_ms = row.next_due if reply.fired > results.NO else min(row.next_due or again_ms, again_ms)
                if due_ms and (not soonest or due_ms < soonest):
                    soonest = due_ms
                self.fired += reply.fired > results.NO
                if telling and reply.fired > results.NO:
                    log.debug("fired %s of %s", instant(planned.fire).isoformat(timespec="milliseconds"), job.name)
                if reply.fired == results.STARTED:
                    ends_ms = reply.expires_at_ms
                    task = _first_attempt(job, planned.fire, shard, self._store.owner, reply.fence, ends_ms, asked_at)
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
            first=planned.first,
            last=planned.last,
            count=planned.count,
            window=-1 if planned.excluded else job.fires_within_ms,
            next=f"{following.slot_ms} {following.due_ms} {rev} {rules_version()}" if following else "",
            next_due=following.due_ms if following else 0,
            record=job.record,
            overlap=job.overlap,
            keep=job.keep,
            owner=self._store.owner,
            call=call,
            lease_ms=job.lease_ms if here else 0,
            limit=job.limit or 0,
            buffer=job.buffer,
            cap=job.cap if job.catchup == "all" else 0,
            calendars=view.words if view else "",
            excluded=planned.excluded,
        )

    def _after(self, shard: int, job: Job, planned: Plan, view: View, fired: int) -> None:
        """What there is to say, and to forget, of the calendars by which a job that was shot excludes."""
        if fired == results.TOO_LATE:
            self._calendars.forget(shard, job.exclude)
        elif fired > results.NO:
            for problem in view.problems(planned.fire):
                if self._may_tell(problem):
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

    async def _definitions(self, shard: int, pairs: Sequence[tuple[str, str]]) -> dict[str, Job]:
        """The jobs as the store has them: the slots were reckoned by that definition, whatever the code here says."""
        known, strange = {}, []
        for name, expected in pairs:
            rev = "".join(expected.split(" ")[2:3])  # a slot that can't be read has none
            declared = self._declared.get(name)
            if declared is not None and declared.rev == rev:
                known[name] = declared
                continue
            read = self._read.get(name)
            if read is not None and read[0] == rev:
                known[name] = read[1]
            else:
                strange.append(name)
        if strange:
            undefined = list[str]()
            replies = await self._store.call_many([self._store.row["job/get"](job=name) for name in strange], shard)
            for name, reply in zip(strange, replies, strict=True):
                if not reply:
                    undefined.append(name)
                    continue
                rev, definition = JobLine.of(reply.definition.decode())
                try:
                    self._read[name] = rev, Job.from_definition(name, definition)
                except LockbeatError as problem:
                    log.warning("job %r is left to newer instances: %s", name, problem)
                else:
                    known[name] = self._read[name][1]
            if undefined:
                await self._undefined(shard, undefined)
        return known


def _first_attempt(job: Job, slot_ms: int, shard: int, owner: str, fence: int, expires_ms: int, asked_at: float) -> Task:
    return Task(
        id=task_id(job.name, slot_ms),
        name=job.name,
        queue=job.queue,
        params=None,
        headers={},
        attempt=1,
        max_attempts=job.max_attempts,
        owner=owner,
        fence=fence,
        expires_at=expires_ms / 1000,
        shard=shard,
        lease_ms=job.lease_ms,
        asked_at=asked_at,
        slot_ms=slot_ms,
        job=job.name,
        lock=job_lock(job.name) if job.overlap != "allow" else "",
        timeout_ms=job.timeout_ms,
    )
