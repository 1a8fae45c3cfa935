"""Jobs as the store has them: definitions and next slots."""

from __future__ import annotations

import asyncio
import builtins
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Unpack, overload

from lockbeat.calendars import read_view
from lockbeat.errors import Conflict, InvalidArgument, InvalidType, StoreError, Unreadable
from lockbeat.jobs import around, plan
from lockbeat.jobs.applying import Applying, Put
from lockbeat.jobs.around import Upcoming
from lockbeat.jobs.control import PAUSE, Change, paused_by, who
from lockbeat.jobs.definition import API, CODE, READS, Job, JobOptions, check_origin
from lockbeat.jobs.listing import Stands, State, Wanted
from lockbeat.jobs.past import Past
from lockbeat.jobs.plan import Slot
from lockbeat.jobs.several import SeveralJobs
from lockbeat.jobs.standing import Standing, standings
from lockbeat.store import reasons, results
from lockbeat.store.records import JobCounts, Retirement, SlotLine
from lockbeat.store.rows import Row
from lockbeat.store.scripts import load
from lockbeat.triggers import ByHand, Called, Trigger, upcoming
from lockbeat.triggers.rules import UNKNOWN, rules_version
from lockbeat.values.checks import of_type, whole
from lockbeat.values.durations import instant
from lockbeat.values.names import check_name

log = logging.getLogger("lockbeat")

DELETED = 100
"""Entries of a ledger that one run of job/delete forgets, with their tasks; keeps it under 5 ms."""
PAGES_OF_FAILURES = 10
NAMES = 200  # that one run of job/get takes
ABREAST = 16
"""Runs of job/put that are on their way at a time."""


@dataclass(frozen=True, slots=True)
class JobState:
    """A job, and where it stands."""

    job: Job
    next: Slot | None
    """The next slot that is to be fired; None: it has ended, or is paused until somebody resumes it."""
    open: str | None
    """The task that has not ended, unless overlap is `allow`."""
    counts: JobCounts
    """How often what became of its slots since it was declared, also of those that the ledger has forgotten."""
    paused: Change | None = None
    """By what it is paused; None: it is not."""
    rev: str = ""
    """Of its definition, as the store has it: `put(..., if_rev=state.rev)` changes it only if nobody has since."""
    in_line: int = 0
    """How many slots wait for that task to end: under overlap `buffer_one`, `buffer_all`, `cancel_other`, and catch-up `all`."""
    retired_at: float | None = None
    """When it retired, for no instance that lives declares it any more: seconds since the Unix epoch. None: it has not."""

    @property
    def state(self) -> Stands:
        """How it stands."""
        if self.retired_at is not None:
            return "retired"
        if self.paused is not None:
            return "paused"
        if self.next is not None:
            return "scheduled"
        return "by_hand" if isinstance(self.job.trigger, ByHand) else "ended"

    @property
    def next_slot(self) -> datetime | None:
        """Its next slot (aware, UTC); None: it has ended."""
        return None if self.next is None else instant(self.next.slot_ms)

    @property
    def due_at(self) -> float | None:
        """When that slot is to be fired, later than itself by its jitter: seconds since the Unix epoch."""
        return None if self.next is None else self.next.due_ms / 1000


class Jobs(Past, Applying):
    """The jobs of a store."""

    @overload
    async def put(self, *jobs: Job, since_ms: int = 0, by: str | None = None) -> dict[int, int]: ...
    @overload
    async def put(self, job: Job, /, *, if_rev: str, take_over: bool = False, by: str | None = None) -> Put: ...
    @overload
    async def put(
        self,
        name: str,
        trigger: Trigger | None,
        *,
        function: str | None = None,
        origin: str = API,
        if_rev: str | None = None,
        take_over: bool = False,
        by: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Put: ...
    async def put(
        self,
        *jobs: Any,
        since_ms: int = 0,
        if_rev: str | None = None,
        take_over: bool = False,
        by: str | None = None,
        **options: Any,
    ) -> Any:
        """`put("report-7", Cron("0 9 * * *"), function="send_report", params={"customer": 7})`: declare a job (`job/apply`).

        Its slots begin after now; a known job keeps its slot unless its trigger changed.

        trigger: when its slots are; None: it has none, and runs when it is triggered.
        function: which one runs, by the name under which a program of the store has it; None: the one with the job's name.
        params: what its `run.params` is, JSON of at most 16 KiB.
        origin: whose it is, see `apply`.
        if_rev: put it only if it has this rev (`JobState.rev`); empty: only if there is none of that name.
        take_over: though another origin has it.
        by: who did it; None: the user of the operating system.
        options: queue, overlap, catchup and all that the decorators take.

        Also `put(job, ...)`: several of `Job.declare(...)` (`job/put`), each of the origin that it names, else "api". Returns the
        epoch of each shard that was written to. Of those, what belongs to another origin is left as it is, and the rest declared.
        And `put(job, if_rev=rev)`: one.

        Raises: Conflict for a job of another origin, or another rev: it is as it was. InvalidArgument, InvalidType.
        """
        if jobs and isinstance(jobs[0], str):
            job = _declared(jobs[0], *jobs[1:], **options)
            return await self.put_one(job, if_rev=if_rev, take_over=take_over, by=by)
        for unknown in options:
            raise InvalidArgument(unknown, "belongs to a job by its name: put(name, trigger, ...)")
        for job in jobs:
            of_type("jobs", job, Job, "Job")
        if if_rev is not None or take_over:
            if len(jobs) != 1:
                raise InvalidArgument("if_rev", f"is for one job, not {len(jobs)}")
            return await self.put_one(jobs[0], if_rev=if_rev, take_over=take_over, by=by)
        epochs, refused = await self._put_all([job.with_origin(API) for job in jobs], since_ms, by)
        if refused:
            raise others(refused)
        return epochs

    async def declare(self, jobs: Iterable[Job], since_ms: int = 0, version: str = "") -> dict[int, int]:
        """`put` for a program. What another origin or a newer version of its code has stays as it is, and the log says so.

        version: of the code, as `beat/heartbeat` takes it; empty: it has none.
        """
        epochs, refused = await self._put_all([job.with_origin(CODE) for job in jobs], since_ms, None, version)
        for name, origin in refused.items():
            log.error("job %r of this program is left out: the name belongs to origin %r; lockbeat delete frees it", name, origin)
        return epochs

    async def _put_all(
        self, jobs: Iterable[Job], since_ms: int, by: str | None, version: str = ""
    ) -> tuple[dict[int, int], dict[str, str]]:
        """The epoch of each shard; and of jobs that belong to another origin, which."""
        groups: dict[int, list[Job]] = defaultdict(list)
        told_by = who(by)
        for job in jobs:
            groups[self.shard_of(job.name)].append(job)
        refused = dict[str, str]()
        done = {shard: await self._put(shard, several, since_ms, told_by, refused, version) for shard, several in groups.items()}
        return done, refused

    async def _put(
        self, shard: int, jobs: builtins.list[Job], since_ms: int, by: str, refused: dict[str, str], version: str
    ) -> int:
        """Declare those of a shard, some runs at a time: the server works on one while the next is being worked out."""
        now_ms = await self._store.server_ms(shard)
        epoch, ahead_ms, older, most = 0, 0, 0, load("job/put").most
        if len(jobs) > most and since_ms == 0:
            epoch, jobs = await self._not_there(shard, jobs, now_ms, version)
        while jobs:
            overtaken = list[Job]()
            for begin in range(0, len(jobs), most * ABREAST):
                some, sent = jobs[begin : begin + most * ABREAST], list[asyncio.Future[Sequence[Any]]]()
                try:
                    for start in range(0, len(some), most):
                        rows = [self._row(job, now_ms + ahead_ms, since_ms, by, version) for job in some[start : start + most]]
                        sent.append(asyncio.ensure_future(self._store.call_many(rows, shard)))
                        await asyncio.sleep(0)  # it goes out now
                    replies = [reply for run in await asyncio.gather(*sent) for reply in run]
                finally:
                    for run in sent:
                        run.cancel()
                epoch, now_ms = replies[-1].epoch, replies[-1].now_ms
                told = [(job, reply.code, reply.stands.decode()) for job, reply in zip(some, replies, strict=True)]
                refused |= {job.name: stands for job, code, stands in told if code == results.ANOTHERS}
                stray = [(job, stands) for job, code, stands in told if stands and code != results.ANOTHERS]
                await self.stand_again(shard, stray, now_ms)
                overtaken += [job for job, code, _ in told if code == results.TOO_LATE]
                older += sum(code == results.STALE for _, code, _ in told)
            # Overtaken by the clock on the way: others may have fired that slot meanwhile. Aim a little further ahead.
            jobs, ahead_ms = overtaken, ahead_ms * 2 or 20
        if older:
            log.info("%d of this program's jobs stay as a newer version of its code has them, while that lives", older)
        return epoch

    async def _not_there(self, shard: int, jobs: builtins.list[Job], now_ms: int, version: str) -> tuple[int, builtins.list[Job]]:
        """The shard's epoch, and those of the jobs that do not stand there as they are declared (`job/declared`)."""
        if (rules := rules_version()) == UNKNOWN:
            return 0, jobs
        most, epoch, others = load("job/declared").most, 0, list[Job]()
        at, abreast = 0, 1  # where none of the first stand, no more are asked for: all of them may be new
        while at < len(jobs):
            asked = list[tuple[builtins.list[Job], asyncio.Future[Sequence[int]]]]()
            try:
                for _ in range(abreast):
                    some = jobs[at : at + most]
                    rows = [self._place(job, now_ms, rules, version) for job in some]
                    asked.append((some, asyncio.ensure_future(self._store.call_many(rows, shard))))
                    at += len(some)
                    await asyncio.sleep(0)  # it goes out now
                for some, asking in asked:
                    replies = await asking
                    epoch = max(epoch, *replies)
                    others += [job for job, found in zip(some, replies, strict=True) if not found]
            finally:
                for _, asking in asked:
                    asking.cancel()
            if not epoch:
                return 0, jobs
            abreast = min(ABREAST, -(-(len(jobs) - at) // most))
        return epoch, others

    def _place(self, job: Job, now_ms: int, rules: str, version: str) -> Row:
        """How it stands if nothing of it has to be put."""
        first, rev = plan.first(job, now_ms) or plan.none(job), job.rev
        place = f"{first.slot_ms} {first.due_ms} {rev} {rules}"
        return self._store.row["job/declared"](job=job.name, head=job.head_in(_id(job, version)), place=place)

    def _row(self, job: Job, now_ms: int, since_ms: int, by: str, version: str) -> Row:
        first = plan.first(job, now_ms) or plan.none(job)
        return self._store.row["job/put"](
            job=job.name,
            rev=job.rev,
            definition=job.stored_in(_id(job, version)),
            slot=first.slot_ms,
            due=first.due_ms,
            since=max(since_ms - job.jitter_ms, 0),
            keep=job.keeps,
            rules=rules_version(),
            reads=READS,
            limit=job.limit or 0,
            version=version,
            by=by,
        )

    async def stand_again(self, shard: int, stray: Iterable[tuple[Job, str]], now_ms: int) -> None:
        """Reckon anew where jobs stand whose slot, as the store has it, may be wrong; empty: it was lost (`job/anchor`)."""
        rows: builtins.list[Row] = []
        for job, stands in stray:
            if stands:
                slot_ms, _, _, rules = SlotLine.of(stands)
                again = plan.again(job, slot_ms, now_ms, rules) if slot_ms >= 0 else None
            else:
                again = plan.first(job, now_ms), "", ""
            if again is not None:
                slot, code, detail = again[0] or plan.none(job), again[1], again[2]
                row = self._store.row["job/anchor"](
                    job=job.name,
                    expected=stands,
                    slot=slot.slot_ms,
                    due=slot.due_ms,
                    words=f"{job.rev} {rules_version()}",
                    code=code,
                    detail=detail,
                    keep=job.keeps,
                )
                rows.append(row)
        for row, done in zip(rows, await self._store.call_many(rows, shard), strict=True):
            if done == results.DONE:
                why = reasons.sentence(row.code, row.detail) if row.code else "its next slot was lost from the store"
                log.warning("job %r is reckoned anew: %s", row.job, why)

    async def get(self, name: str) -> JobState:
        """A job, and where it stands (`job/get`). Raises UnknownJob."""
        check_name("name", name)
        states = await self._states(self.shard_of(name), [name], strict=True)
        if not states:
            raise self._unknown(name)
        return states[0]

    async def get_many(self, names: Iterable[str]) -> dict[str, JobState]:
        """Several jobs by their names (`job/get`). One that is unknown is left out; so is one that can't be read, and the log
        says so."""
        by_shard = defaultdict[int, builtins.list[str]](builtins.list)
        for name in names:
            by_shard[self.shard_of(check_name("names", name))].append(name)
        found = await asyncio.gather(*(self._states(shard, some) for shard, some in by_shard.items()))
        return {state.job.name: state for states in found for state in states}

    async def _states(self, shard: int, names: Iterable[str], *, strict: bool = False) -> list[JobState]:
        states = []
        for name, standing in (await standings(self._store, shard, names)).items():
            state = self._state(shard, standing) if isinstance(standing, Standing) else standing
            if isinstance(state, JobState):
                states.append(state)
            elif strict:
                raise state
            else:
                log.warning("job %r is left out: %s", name, state)
        return states

    def _state(self, shard: int, standing: Standing) -> JobState | StoreError:
        job, place = standing.job, standing.place
        try:
            entry = "job:slot"
            at = Slot(*SlotLine.of(place)[:2]) if place and place[0] != "-" else None
            retired = Retirement.of(place)
            entry = "job:counts"
            counts = JobCounts.of(standing.counts)
            entry = "job:paused"
            paused = paused_by(place, standing.paused)
        except (ValueError, TypeError):
            return Unreadable(self._store.keys.key(shard, entry), job.name)
        if paused is not None and at is not None:
            at = _after_pause(job, at, paused)
        opened, *in_line = standing.open.split(b"\xff")
        since = retired and retired.at_ms / 1000
        return JobState(job, at, opened.decode() or None, counts, paused, standing.rev, len(in_line), since)

    async def list(
        self,
        tag: str | None = None,
        *,
        origin: str | None = None,
        state: State | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> builtins.list[JobState]:
        """Jobs in order of name (`job/list`, in pages).

        tag, origin, state: only those that have the tag, are of that origin, stand so. What few jobs have is found by looking at
            all of them (of an origin other than "code": at its own), some thousands at a time.
        after: only names behind this one, such as the last that the call before returned; the job itself may be gone.
        limit: at most so many; None: all.

        Raises: InvalidArgument and InvalidType.
        """
        wanted, found, batch = Wanted.of(tag, origin, state), list[JobState](), list[tuple[bytes, int]]()
        begin = b"" if after is None else check_name("after", after).encode()
        most = whole("limit", limit, 1, 1_000_000) if limit is not None else math.inf
        names = wanted.names(self._store, begin, int(min(NAMES, most)))
        async for name in names:
            batch.append(name)
            if len(batch) == min(NAMES, most - len(found)):
                found += await self._those(batch, wanted)
                batch = []
            if len(found) == most:
                break
        return found + await self._those(batch, wanted)

    async def _those(self, batch: Sequence[tuple[bytes, int]], wanted: Wanted) -> builtins.list[JobState]:
        """Those of them that are wanted, in order of name."""
        by_shard = defaultdict[int, builtins.list[str]](builtins.list)
        for name, shard in batch:
            by_shard[shard].append(name.decode(errors="replace"))
        several = await asyncio.gather(*(self._states(shard, names) for shard, names in by_shard.items()))
        found = (state for states in several for state in states if wanted.takes(state))
        return sorted(found, key=lambda state: state.job.name)

    def all(self, *, tag: str | None = None, queue: str | None = None) -> SeveralJobs:
        """Several jobs at once: `await lb.jobs.all(tag="billing").pause()`. Without tag and queue: every job."""
        for argument, name in (("tag", tag), ("queue", queue)):
            if name is not None:
                check_name(argument, name)
        return SeveralJobs(self, tag, queue)

    async def next(self, name: str, n: int = 5) -> builtins.list[datetime]:
        """The next `n` slots of a job that are to be fired, before jitter. Raises UnknownJob."""
        return [coming.slot for coming in await self.upcoming(name, n) if not coming.calendar]

    async def upcoming(self, name: str, n: int = 5) -> builtins.list[Upcoming]:
        """The same, and of each day before the last of them that a calendar excludes the first slot, and which calendar. Raises
        UnknownJob."""
        whole("n", n, 1, 10_000)
        state = await self.get(name)
        job = state.job
        if isinstance(job.trigger, Called) and job.trigger.slots is not None:
            now_ms = await self._store.server_ms(self.shard_of(name))
            return [Upcoming(slot_ms) for slot_ms in upcoming(job.trigger.slots, now_ms, n)]
        if state.next is None:
            return []
        if job.limit is not None:
            n = min(n, job.limit - state.counts.fired)
        view = await read_view(self._store, self.shard_of(name), job.exclude, job.trigger.timezone)
        found = list[Upcoming]()
        for coming in around.upcoming(job, state.next.slot_ms, view.closed):
            if n <= 0:
                break
            found.append(coming)
            n -= not coming.calendar
        return found

    async def delete(self, name: str, *, by: str | None = None) -> bool:
        """Forget a job, its ledger, and its tasks that wait; whether there was one (`job/delete`).

        A task of it that runs goes on. An instance that declares the job in code declares it again when it starts.

        by: who did it; None: the user of the operating system. `changes` has the last fifty jobs of a shard that were deleted.
        """
        check_name("name", name)
        told_by = who(by)
        existed, more, call = False, 1, self._store.new_call()
        while more:
            gone, more = await self._store.call("job/delete", self.shard_of(name), job=name, limit=DELETED, call=call, by=told_by)
            existed = existed or bool(gone)
        return existed

    async def pause_failing(self, job: Job, place: str) -> bool:
        """Pause a job whose last `pause_after` tasks failed, or were lost, since it was last resumed; whether they did.

        place: where it stands, as `job:slot` has it. If it has moved on meanwhile, it is not paused.
        """
        if job.pause_after is None or not await self._has_failed(job.name, job.pause_after):
            return False
        why = f"{job.pause_after} failures in a row" if job.pause_after > 1 else "a failure"
        done = await self._pause(job.name, PAUSE, 0, why, "pause_after", Standing(job, job.rev, place, ""))
        if done == results.DONE:
            log.error("job %r is paused: %s; when they are seen to: lockbeat resume %s", job.name, why, job.name)
        return True

    async def see_failure(self, name: str) -> None:
        """A slot of a job has failed for good: pause the job, if it is to be. A loss that nobody sees is found when the next slot
        comes due (`pause_failing`)."""
        known = (await standings(self._store, self.shard_of(name), [name])).get(name)
        if isinstance(known, Standing) and known.place[:1].isdigit():
            await self.pause_failing(known.job, known.place)

    async def _has_failed(self, name: str, times: int) -> bool:
        """Whether the latest tasks of a job failed, so often. What was skipped or cancelled, or has not ended, is passed over."""
        resumed_at = next((change.at or 0 for change in await self.changes(name) if change.what == "resume"), 0)
        before_ms = 0
        for _ in range(PAGES_OF_FAILURES):
            page = await self.ledger(name, times + 20, before_ms)
            for entry in page:
                failed = entry.state in ("failed", "lost")
                if entry.state == "done" or (failed and (entry.ended_at or 0) <= resumed_at):
                    return False
                times -= failed
                if times == 0:
                    return True
            if not page:
                break
            before_ms = page[-1].slot_ms
        return False


_MISSING = object()


def _declared(name: str, trigger: object = _MISSING, *rest: object, origin: str = API, **options: Any) -> Job:
    if rest or trigger is _MISSING:
        raise InvalidType("jobs", "must be jobs, or a name and a trigger")
    made: Any = ByHand() if trigger is None else trigger
    return Job.declare(name, made, origin=check_origin("origin", origin), **options)


def others(refused: Mapping[str, str]) -> Conflict:
    """Jobs that belong to another origin, which stands beside each."""
    name, origin = next(iter(refused.items()))
    more = f", and so do {len(refused) - 1} more to theirs" if len(refused) > 1 else ""
    return Conflict(f"job {name!r} belongs to origin {origin!r}{more}: left as they are", sorted(refused)[:100])


def _id(job: Job, version: str) -> str | None:
    """The version that a job is declared by."""
    return version.partition(" ")[0] or job.version


def _after_pause(job: Job, at: Slot, paused: Change) -> Slot | None:
    """The first slot that a paused job is to fire; None: none, until it is resumed."""
    return None if paused.last_ms is None else plan.first(job, max(paused.last_ms, at.slot_ms - 1))
