"""What tests of backfills share: an instance that goes on with them, and a worker that runs what they fire."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from lockbeat import Lockbeat
from lockbeat.jobs import Backfill, Backfiller, Job
from lockbeat.tasks import Task
from tests.beats import MINUTE, minutely, now_ms


async def claimed(lb: Lockbeat, limit: int = 1000) -> list[Task]:
    """What a worker of every shard would begin."""
    found: list[Task] = []
    for shard in range(lb.store.shards):
        tasks, *_ = await lb.tasks.claim_on(shard, ["default"], lb.owner, limit, 60_000)
        found += tasks
    return found


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


async def told(lb: Lockbeat, name: str = "report") -> Backfill:
    found = await lb.jobs.get_backfill(name)
    assert found is not None
    return found


async def hours(lb: Lockbeat, slots: int, job: Job | None = None, **options: Any) -> list[int]:
    """Declare a job of a slot a minute: its last slots, the oldest first. Nothing is known of any."""
    job = job or minutely(**options)
    await lb.jobs.put(job)
    latest = job.trigger.prev(await now_ms(lb))
    assert latest is not None
    return [latest - MINUTE * back for back in range(slots - 1, -1, -1)]


class Filler:
    """Goes on with the backfills of one job, and runs what they fire."""

    def __init__(self, lb: Lockbeat, name: str = "report", end: Callable[[Lockbeat, Task], Any] | None = None) -> None:
        self.lb, self.shard = lb, lb.jobs.shard_of(name)
        self.filler = Backfiller(lb.store)
        self.end = end or (lambda lb, task: lb.tasks.complete(task))
        self.ran: list[int] = []
        """The slots that were run, in order."""

    async def step(self) -> None:
        """One turn, whatever it was told to wait for."""
        self.filler._mine[self.shard].next = dict.fromkeys(self.filler._mine[self.shard].next, 0.0)
        self.filler._mine[self.shard].look = 0.0
        await self.filler.tick(self.shard)

    async def turn(self) -> list[Task]:
        """One turn: what can be begun after it."""
        await self.step()
        return await claimed(self.lb)

    async def go_on(self, name: str = "report", turns: int = 1000) -> Backfill:
        """Until it is over, or paused, or nothing more happens."""
        for _ in range(turns):
            tasks = await self.turn()
            for task in tasks:
                self.ran.append(task.slot_ms)
                await self.end(self.lb, task)
            found = await told(self.lb, name)
            if found.is_over or not tasks:
                return found
        raise AssertionError(f"it never ended: {found}")


async def claimed_in_order(lb: Lockbeat) -> list[Task]:
    return sorted(await claimed(lb), key=lambda task: task.slot_ms)
