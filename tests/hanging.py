"""A run that hangs, and slots that are skipped for it, without anybody waiting for hours."""

from __future__ import annotations

from typing import Any

from lockbeat import Lockbeat
from lockbeat.jobs import Job, LedgerEntry
from lockbeat.tasks import Task
from lockbeat.triggers import Every
from tests.beats import Hands, backdate, eventually, now_ms, scheduler

HOURS = 7 * 3600


async def hung(
    lb: Lockbeat, raw: Any, name: str = "report", *, done: int = 3, skipped: int = 1, seconds: float = HOURS, **options: Any
) -> tuple[Task, list[LedgerEntry]]:
    """A run that seems to run for so long, after so many that took no time; and what was skipped for it, the newest first."""
    job, hands = Job.declare(name, Every(0.05), **options), Hands(name)
    await lb.jobs.put(job)
    beat, shard = scheduler(lb, job, runner=hands), lb.jobs.shard_of(name)

    async def fired() -> Any:
        await beat.tick(shard)
        return hands.tasks

    for _ in range(done):
        await eventually(fired, "a slot is fired")
        await lb.tasks.complete(hands.tasks.pop())
    await eventually(fired, "the slot is fired whose run hangs")
    [task] = hands.tasks

    async def left() -> list[LedgerEntry]:
        await beat.tick(shard)
        return [entry for entry in await lb.jobs.ledger(name, 50) if entry.code == "overlap"]

    async def enough() -> bool:
        return len(await left()) >= skipped

    if skipped:
        await eventually(enough, "slots are skipped")
    await backdate(lb, raw, name, await now_ms(lb) + 3_600_000)  # no more of them
    began(lb, raw, task.id, round(await now_ms(lb) - seconds * 1000))
    return task, await left()


def began(lb: Lockbeat, raw: Any, task_id: str, at_ms: int) -> None:
    """Have the record of a task say that its attempt began then."""
    key = lb.store.keys.key(lb.tasks.shard_of(task_id), "task")
    head, attempts, rest = raw.hget(key, task_id).split(b"\xff", 2)
    words, tries = head.split(b" "), attempts.split(b"\xfe")
    last = tries[-1].split(b" ")
    words[7] = last[2] = b"%d" % at_ms
    raw.hset(key, task_id, b"\xff".join([b" ".join(words), b"\xfe".join([*tries[:-1], b" ".join(last)]), rest]))
