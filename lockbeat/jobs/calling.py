"""Slots that somebody calls for: which one a call belongs to, and beginning it, once for the slot whoever calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lockbeat.errors import Conflict, LockbeatError, UnknownJob
from lockbeat.jobs.definition import Job
from lockbeat.jobs.firing import first_attempt
from lockbeat.jobs.plan import MOST_COUNTED
from lockbeat.jobs.registry import Jobs
from lockbeat.leases.lease import monotonic
from lockbeat.store import Store, results
from lockbeat.tasks import Task, Tasks
from lockbeat.triggers import Called, Trigger, missed

Said = Literal["begun", "known", "soon", "busy", "paused", "unsure"]
SAID: dict[int, Said] = {
    results.STARTED: "begun",
    results.FINISHED: "known",
    results.NO: "soon",
    results.BUSY: "busy",
    results.PAUSED: "paused",
    results.LOST: "unsure",
}
EXEC = "exec"
"""The origin of such jobs: no instance declares them, retires them, or fires them."""
LOOKS = 20
"""How often a call looks anew when somebody else's was first."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a call for a slot came to."""

    said: Said
    """begun: run it, as `task`. known: the slot was run, is being run, or was skipped or missed. soon: too little time has passed
    since `of`. busy: the task or owner `of` has not ended. paused: by `of`. unsure: the slot may have run before the store was
    emptied, and is missed."""
    of: str
    """The id of the task that it is about; busy: or who holds the job's lock."""
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class Missed:
    """Slots that nobody called for."""

    first: int = 0
    last: int = 0
    count: int = 0
    """-1: too many to count."""


def nearest(slots: Trigger, now_ms: int, early_ms: int) -> int | None:
    """The slot that a call at `now_ms` belongs to: the last that has come, unless the next is as near, and within `early_ms`.

    None: none has come yet, and the next is further away.
    """
    last, following = slots.prev(now_ms), slots.next(now_ms)
    ahead = None if following is None else following - now_ms
    if ahead is not None and ahead <= early_ms and (last is None or ahead <= now_ms - last):
        return following
    return last


def uncalled(slots: Trigger | None, newest_ms: int, slot_ms: int) -> Missed:
    """The slots between the newest that is known and the one that is begun."""
    first = None if slots is None or newest_ms < 0 else slots.next(newest_ms)
    if first is None or slots is None or first >= slot_ms:
        return Missed()
    found = missed(slots, first, slot_ms - 1, MOST_COUNTED)
    return Missed(first, found.last, found.count or -1)


async def declare(jobs: Jobs, job: Job) -> bool:
    """Have the store know a job whose slots are called for, as it is declared; whether it knew its trigger.

    Raises Conflict where somebody else has declared it meanwhile; LockbeatError where a job of that name is fired by instances.
    """
    try:
        state = await jobs.get(job.name)
    except UnknownJob:
        await jobs.put_one(job, if_rev="")
        return False
    known = state.job
    if known.origin != EXEC or not isinstance(known.trigger, Called):
        raise LockbeatError(f"{job.name!r} is a job that instances fire ({known.trigger}): give the command a name of its own")
    if state.rev != job.rev:
        await jobs.put_one(job, if_rev=state.rev)
    return known.trigger == job.trigger


async def begin(
    store: Store, jobs: Jobs, tasks: Tasks, job: Job, slot_ms: int | None, *, lease_ms: int, skips: bool = True
) -> Call:
    """Begin a slot of a job that is called for (`job/begin`); None: of one without slots, now.

    A cancelled call gives back what it had begun; so does one whose reply was lost, once the store is there again.

    skips: a slot that meets an unfinished task of the job is skipped; else it is left to another call.
    """
    trigger, job = job.trigger, job.with_origin(EXEC)
    assert isinstance(trigger, Called)
    shard, owner, call = jobs.shard_of(job.name), store.owner, store.new_call()
    for _ in range(LOOKS):
        try:
            keeps = await declare(jobs, job)
        except Conflict:
            continue
        [*newest] = await jobs.ledger(job.name, 1)
        newest_ms = newest[0].slot_ms if newest else -1
        lost = uncalled(trigger.slots if keeps else None, newest_ms, slot_ms) if slot_ms is not None else Missed()
        row = store.row["job/begin"](
            job=job.name,
            rev=job.rev,
            slot=-1 if slot_ms is None else slot_ms,
            newest=newest_ms,
            first=lost.first,
            last=lost.last,
            count=lost.count,
            least_ms=trigger.least_ms,
            skips=int(skips),
            record=job.record,
            keep=job.keeps,
            owner=owner,
            call=call,
            lease_ms=lease_ms,
        )
        asked_at = monotonic()
        try:
            reply = await store.call_row(row, shard, lease=lease_ms / 1000)
        except BaseException:
            tasks.reply_lost(shard, owner, [call])
            store.settle(tasks.find_lost(shard, owner, "", lease_ms))
            raise
        of = reply.of.decode(errors="replace")
        if reply.said == results.STARTED:
            began_ms = int(of.rpartition("@")[2])
            task = first_attempt(job, began_ms, shard, owner, reply.fence, reply.expires_at_ms, asked_at, lease_ms)
            return Call("begun", of, task)
        if reply.said in SAID:
            return Call(SAID[reply.said], of)
        if reply.said == results.EXPIRED:
            raise LockbeatError(f"{of} was begun, and its lease ran out before the store had answered: raise ttl")
    raise LockbeatError(f"{job.name!r} is declared differently by others, again and again: let all say the same")
