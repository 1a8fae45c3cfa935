"""What a store is at: its queues, who serves them, what is held, and how often what happened."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import NamedTuple

from lockbeat.monitor._instances import SILENT, Instance, instances
from lockbeat.store import Store
from lockbeat.store.calls import Calls
from lockbeat.store.keys import job_lock
from lockbeat.store.replies import sifted
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
    """Attempts, less those that were left to others."""
    done: int
    retried: int
    """An attempt failed or was lost, and another follows."""
    failed: int
    """The last attempt failed; the task is dead."""
    lost: int
    """The last attempt was lost; the task is dead."""
    cancelled: int
    left: int = 0
    """An attempt was given back before its function ran: its instance had no room or no such function, or was shut down."""


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
    """Less those that a running task of a job holds: each lease counts once."""
    locks_complete: bool
    """False: there are more locks than were looked at."""
    locks_by: Mapping[str, int]
    """Locks by owner, of those that were looked at."""
    claims: int
    """Those that are live."""
    stats: TaskStats

    def running_of(self, owner: str) -> int | None:
        """Running tasks of one owner; None: there are too many to look at."""
        return None if self.running_by is None else self.running_by.get(owner, 0)

    def rates_since(self, earlier: Overview) -> dict[str, float] | None:
        """What happened to tasks in between, a second; None: no time has passed, or the store was emptied."""
        elapsed = self.at - earlier.at
        changes = [now - then for now, then in zip(astuple(self.stats), astuple(earlier.stats), strict=True)]
        change = {field.name: by for field, by in zip(fields(TaskStats), changes, strict=True)}
        change["begun"] = max(change["begun"], 0 if change["left"] > 0 else -1)  # what was begun before may have been left since
        if elapsed <= 0 or min(change.values()) < 0:
            return None
        return {name: by / elapsed for name, by in change.items()}


async def overview(store: Store) -> Overview:
    """Look at a store (`task/counts`, `lock/list`, `beat/instances`); changes nothing.

    O(queues + running tasks + locks + instances), of the two in the middle up to 1,000, and 5,000 a shard.
    """
    shards = range(store.shards)
    counted, locks, claims, living = await asyncio.gather(
        asyncio.gather(*(counts(store, shard) for shard in shards)),
        asyncio.gather(*(_locks(store, shard) for shard in shards)),
        asyncio.gather(*(_claims(store, shard) for shard in shards)),
        instances(store),
    )
    running = await Tasks(store).list(state="running", limit=MOST_RUNNING + 1)
    known = len(running) <= MOST_RUNNING
    of_jobs = {(job_lock(info.job), info.fence) for info in running}
    owners = Counter(owner for found, _ in locks for key, owner, fence in found if (key, fence) not in of_jobs)
    held: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for name, *numbers in (row for shard in counted for row in shard.queues):
        held[name.decode()] = [a + b for a, b in zip(held[name.decode()], numbers, strict=True)]
    running_in = Counter(info.queue for info in running)
    at_ms = max(shard.now_ms for shard in counted)
    served = Counter(queue for each in living if at_ms - each.seen_ms <= SILENT * 1000 for queue in each.queues)
    queues = []
    for queue in sorted(held.keys() | running_in.keys() | served.keys()):
        ready, delayed, dead = held[queue]
        queues.append(QueueLoad(queue, ready, delayed, running_in[queue] if known else None, dead, served[queue]))
    return Overview(
        at=at_ms / 1000,
        queues=tuple(queues),
        instances=tuple(living),
        running=len(running) if known else max(len(running), sum(shard.running for shard in counted)),
        running_by=Counter(info.owner for info in running if info.owner is not None) if known else None,
        locks=owners.total(),
        locks_complete=all(complete for _, complete in locks),
        locks_by=owners,
        claims=sum(claims),
        stats=stats_of(shard.stats for shard in counted)[0],
    )


def stats_of(counts: Iterable[Sequence[bytes | int | None]]) -> tuple[TaskStats, int]:
    """What `task/counts` says of these shards, added up; and how many of the tasks were fired for a slot."""
    *stats, fired = (sum(int(count or 0) for count in column) for column in zip(*counts, strict=True))
    found = TaskStats(*stats)
    return replace(found, begun=max(found.begun - found.left, 0)), fired


class Counts(NamedTuple):
    """What the queues of a shard hold."""

    now_ms: int
    running: int
    stats: Sequence[bytes | int | None]
    queues: list[tuple[bytes, int, int, int]]
    """Name, ready, delayed, dead."""


async def counts(store: Calls, shard: int) -> Counts:
    """What `task/counts` says of a shard, page by page."""
    queues: list[tuple[bytes, int, int, int]] = []
    async for page in store.pages("task/counts", shard, queue="", limit=PAGE_QUEUES):
        queues += page.queues
    return Counts(page.now_ms, page.running, page.stats, queues)


async def _locks(store: Store, shard: int) -> tuple[list[tuple[str, str, int]], bool]:
    """Key, owner and fence of each lock that was looked at; and whether that was all of them."""
    found: list[tuple[str, str, int]] = []
    looked = 0
    async for page in store.pages("lock/list", shard, owner="", limit=PAGE_LOCKS):
        found += [(key.decode(), owner.decode(), fence) for key, owner, fence, _ in sifted(page.locks)]
        if (looked := looked + PAGE_LOCKS) >= MOST_LOCKS:
            return found, not page.cursor
    return found, True


async def _claims(store: Store, shard: int) -> int:
    """How many are live. What ran out stays where it is until somebody takes it over."""
    now_ms, live = await store.server_ms(shard), store.keys.key(shard, "claim:live")
    return int(await store.wire(shard).command("ZCOUNT", live, f"({now_ms}", "(+inf"))
