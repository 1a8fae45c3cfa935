"""What a store is at: its queues, who serves them, what is held, and how often what happened."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields

from lockbeat.monitor._instances import SILENT, Instance, instances
from lockbeat.store import Store
from lockbeat.tasks import Tasks

PAGE_QUEUES, PAGE_LOCKS = 100, 500  # that one run of a script looks at; keeps it under 5 ms
MOST_RUNNING = 1_000
"""Running tasks that are looked at one by one, to say whose and of which queue they are."""
MOST_LOCKS = 5_000
"""Locks of a shard that are looked at one by one."""


@dataclass(frozen=True, slots=True)
class TaskStats:
    """How often what happened to the tasks of a store, those of jobs included, since it was first used."""

    spawned: int
    begun: int
    """Attempts."""
    done: int
    retried: int
    """An attempt failed or was lost, and another follows."""
    failed: int
    """The last attempt failed; the task is dead."""
    lost: int
    """The last attempt was lost; the task is dead."""
    cancelled: int


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """One queue: how many tasks it holds, and how many instances serve it."""

    queue: str
    ready: int
    delayed: int
    running: int | None
    """None: there are too many to look at."""
    dead: int
    workers: int


@dataclass(frozen=True, slots=True)
class Overview:
    """A store at one moment."""

    at: float
    """Seconds since the Unix epoch, by the server's clock."""
    queues: tuple[QueueLoad, ...]
    """Those that hold tasks or are served, in order of name."""
    instances: tuple[Instance, ...]
    running: int
    """Leases on tasks, in all queues."""
    running_by: Mapping[str, int] | None
    """Running tasks by owner; None: there are too many to look at."""
    locks: int
    locks_complete: bool
    """False: there are more locks than were looked at."""
    locks_by: Mapping[str, int]
    """Locks by owner, of those that were looked at."""
    claims: int
    """Claimed, and neither finished nor taken over."""
    stats: TaskStats

    def rates_since(self, earlier: Overview) -> dict[str, float] | None:
        """What happened to tasks in between, a second; None: no time has passed, or the store was emptied."""
        elapsed = self.at - earlier.at
        changes = [now - then for now, then in zip(astuple(self.stats), astuple(earlier.stats), strict=True)]
        if elapsed <= 0 or min(changes) < 0:
            return None
        return {field.name: change / elapsed for field, change in zip(fields(TaskStats), changes, strict=True)}


async def overview(store: Store) -> Overview:
    """Look at a store (`task/counts`, `lock/list`, `claim/stats`, `beat/instances`); changes nothing.

    O(queues + running tasks + locks + instances), of the two in the middle up to 1,000, and 5,000 a shard.
    """
    shards = range(store.shards)
    counted, locks, claims, living = await asyncio.gather(
        asyncio.gather(*(_counts(store, shard) for shard in shards)),
        asyncio.gather(*(_locks(store, shard) for shard in shards)),
        asyncio.gather(*(_claims(store, shard) for shard in shards)),
        instances(store),
    )
    running = await Tasks(store).list(state="running", limit=MOST_RUNNING + 1)
    known = len(running) <= MOST_RUNNING
    leases = len(running) if known else max(len(running), sum(shard.running for shard in counted))
    held: dict[str, list[int]] = {}
    for shard in counted:
        for queue, counts in shard.queues.items():
            held[queue] = [a + b for a, b in zip(held.get(queue, [0, 0, 0]), counts, strict=True)]
    running_in = Counter(info.queue for info in running)
    at_ms = max(shard.now_ms for shard in counted)
    heard = [instance for instance in living if at_ms - instance.seen_ms <= SILENT * 1000]
    served = Counter(queue for instance in heard for queue in instance.queues)
    queues = []
    for queue in sorted(held.keys() | running_in.keys() | served.keys()):
        ready, delayed, dead = held.get(queue, (0, 0, 0))
        queues.append(QueueLoad(queue, ready, delayed, running_in[queue] if known else None, dead, served[queue]))
    return Overview(
        at=at_ms / 1000,
        queues=tuple(queues),
        instances=tuple(living),
        running=leases,
        running_by=Counter(info.owner for info in running if info.owner is not None) if known else None,
        locks=sum(owners.total() for owners, _ in locks),
        locks_complete=all(complete for _, complete in locks),
        locks_by=sum((owners for owners, _ in locks), Counter()),
        claims=max(sum(claims), 0),
        stats=TaskStats(*(sum(column) for column in zip(*(shard.stats for shard in counted), strict=True))),
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    now_ms: int
    running: int
    stats: list[int]
    queues: dict[str, tuple[int, int, int]]


async def _counts(store: Store, shard: int) -> _Counts:
    queues: dict[str, tuple[int, int, int]] = {}
    async for page in store.pages("task/counts", shard, queue="", limit=PAGE_QUEUES):
        queues.update((queue.decode(), (ready, delayed, dead)) for queue, ready, delayed, dead in page.queues)
    return _Counts(page.now_ms, page.running, [int(count or 0) for count in page.stats], queues)


async def _locks(store: Store, shard: int) -> tuple[Counter[str], bool]:
    owners: Counter[str] = Counter()
    looked = 0
    async for page in store.pages("lock/list", shard, owner="", limit=PAGE_LOCKS):
        owners.update(owner.decode() for _, owner, _, _ in page.locks)
        if (looked := looked + PAGE_LOCKS) >= MOST_LOCKS:
            return owners, not page.cursor
    return owners, True


async def _claims(store: Store, shard: int) -> int:
    acquired, _, took_over, completed, failed, released, _, expired = await store.call("claim/stats", shard)
    return int(acquired + took_over - completed - failed - released - expired)
