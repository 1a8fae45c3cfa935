"""Declaring jobs: those of a program, and several at a time. What stands as it is declared is left alone."""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack, overload

from lockbeat.errors import Conflict, InvalidArgument, InvalidType
from lockbeat.jobs import plan
from lockbeat.jobs.applying import Applying, Put
from lockbeat.jobs.control import who
from lockbeat.jobs.definition import READS, Job
from lockbeat.jobs.options import API, CODE, JobOptions, check_origin
from lockbeat.jobs.plan import Slot
from lockbeat.store import reasons, results
from lockbeat.store.records import SlotLine
from lockbeat.store.rows import Row
from lockbeat.store.scripts import load
from lockbeat.triggers import ByHand, Trigger
from lockbeat.triggers.rules import UNKNOWN, rules_version
from lockbeat.values.checks import of_type

log = logging.getLogger("lockbeat")

ABREAST = 16
"""Runs of job/put that are on their way at a time."""


class Declaring(Applying):
    """The verbs that declare jobs; they are `lb.jobs`' own."""

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
            log.error(LEFT_OUT, name, origin)
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
        firsts = dict[int, Slot]()
        if len(jobs) > most and since_ms == 0:
            epoch, jobs = await self._not_there(shard, jobs, now_ms, version, firsts)
        while jobs:
            overtaken = list[Job]()
            runs = _runs(jobs, most)
            for begin in range(0, len(runs), ABREAST):
                some, sent = [job for run in runs[begin : begin + ABREAST] for job in run], list[asyncio.Future[Sequence[Any]]]()
                try:
                    for run in runs[begin : begin + ABREAST]:
                        rows = [
                            self._row(job, _first(job, now_ms + ahead_ms, firsts.get(id(job))), since_ms, by, version)
                            for job in run
                        ]
                        sent.append(asyncio.ensure_future(self._store.call_many(rows, shard)))
                        await asyncio.sleep(0)  # it goes out now
                    replies = [reply for replied in await asyncio.gather(*sent) for reply in replied]
                finally:
                    for each in sent:
                        each.cancel()
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
            log.info(STAY, older)
        return epoch

    async def _not_there(
        self, shard: int, jobs: builtins.list[Job], now_ms: int, version: str, firsts: dict[int, Slot]
    ) -> tuple[int, builtins.list[Job]]:
        """The shard's epoch, and those of the jobs that do not stand there as they are declared (`job/declared`).

        firsts: is told, by id(job), of the first slots of these, as far as they were worked out.
        """
        if (rules := rules_version()) == UNKNOWN:
            return 0, jobs
        most, epoch, others = load("job/declared").most, 0, list[Job]()
        at, abreast = 0, 1  # where none of the first stand, no more are asked for: all of them may be new
        while at < len(jobs):
            asked = list[tuple[builtins.list[Job], asyncio.Future[Sequence[int]]]]()
            try:
                for _ in range(abreast):
                    some = jobs[at : at + most]
                    firsts |= {id(job): _first(job, now_ms) for job in some}
                    rows = [self._place(job, firsts[id(job)], rules, version) for job in some]
                    asked.append((some, asyncio.ensure_future(self._store.call_many(rows, shard))))
                    at += len(some)
                    await asyncio.sleep(0)  # it goes out now
                for some, asking in asked:
                    replies = await asking
                    epoch = max(epoch, *replies)
                    for job, found in zip(some, replies, strict=True):
                        if found:
                            firsts.pop(id(job), None)
                        else:
                            others.append(job)
            finally:
                for _, asking in asked:
                    asking.cancel()
            if not epoch:
                return 0, jobs
            abreast = min(ABREAST, -(-(len(jobs) - at) // most))
        return epoch, others

    def _place(self, job: Job, first: Slot, rules: str, version: str) -> Row:
        """How it stands if nothing of it has to be put."""
        place = f"{first.slot_ms} {first.due_ms} {job.rev} {rules}"
        return self._store.row["job/declared"](job=job.name, head=job.head_in(_id(job, version)), place=place)

    def _row(self, job: Job, first: Slot, since_ms: int, by: str, version: str) -> Row:
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


def _runs(jobs: Iterable[Job], most: int) -> list[list[Job]]:
    """As many of them as one run takes, each. A tag that is entered in its index costs a third of a job."""
    runs, room = [list[Job]()], float(most)
    for job in jobs:
        weight = 1 + len(job.tags) / 3
        if runs[-1] and room < weight:
            runs.append([])
            room = most
        runs[-1].append(job)
        room -= weight
    return runs


def _first(job: Job, after_ms: int, known: Slot | None = None) -> Slot:
    """Where a job stands that is declared now. `known`: as it was worked out a moment ago, good until its slot has passed."""
    if known is not None and not 0 <= known.slot_ms <= after_ms:
        return known
    return plan.first(job, after_ms) or plan.none(job)


LEFT_OUT = (
    "job %r of this program is left out: the name belongs to origin %r. Give one of them another name; or delete that one"
    " (lockbeat delete), by which its ledger is forgotten, and start this program again"
)
STAY = (
    "%d of this program's jobs stay as another version of its code has declared them, which counts as the newer (its version= is"
    " greater, or it was first declared later): until no instance of that lives any more"
)
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
