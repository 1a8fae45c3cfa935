"""Tasks: durable units of work, claimed under a lease. So far the beat's own; `spawn` and the rest are to come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lockbeat.errors import StoreUnavailable
from lockbeat.keys import job_lock
from lockbeat.lease import monotonic
from lockbeat.store import Store

PAGE = 100


@dataclass(slots=True, eq=False)
class Task:
    """One attempt of a task, claimed by this instance."""

    id: str
    shard: int
    name: str
    """Of the function to run."""
    attempt: int
    owner: str
    fence: int
    lease_ms: int
    asked_at: float
    """Monotonic time before the request that claimed it."""
    job: str
    slot_ms: int
    lock: str
    """The job's lock that goes with the attempt; empty: none."""
    timeout_ms: int | None = None

    @classmethod
    def of(
        cls,
        task_id: str,
        record: dict[str, Any],
        shard: int,
        attempt: int,
        owner: str,
        fence: int,
        asked_at: float,
    ) -> Task:
        job = record["job"]
        return cls(
            id=task_id,
            shard=shard,
            name=record["name"],
            attempt=attempt,
            owner=owner,
            fence=fence,
            lease_ms=record["lease_ms"],
            asked_at=asked_at,
            job=job,
            slot_ms=int(task_id.rpartition("@")[2]),
            lock=job_lock(job) if record["overlap"] == "skip" else "",
            timeout_ms=record.get("timeout_ms"),
        )


class Tasks:
    """The tasks of a store, as a worker sees them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lost: dict[int, set[str]] = {}

    def reply_lost(self, shard: int, calls: Iterable[str]) -> None:
        """These calls may have started attempts in our name; the next `claim` brings those that they did."""
        self._lost.setdefault(shard, set()).update(calls)

    async def claim(
        self, queue: str, owner: str, shard: int, limit: int, lease_ms: int, strangers: Iterable[str] = ()
    ) -> tuple[list[Task], float | None]:
        """Begin an attempt of up to `limit` tasks (`task/claim`). Also: seconds until there may be more; None: not by itself.

        `strangers`: names of functions whose tasks are left to others.
        """
        store, call = self._store, self._store.new_call()
        lost = self._lost.setdefault(shard, set())
        asked_about: frozenset[str] = frozenset()
        deadline = monotonic() + store.timeout
        while True:
            asked_at, asked_about = monotonic(), frozenset(lost)
            args = (queue, owner, call, limit, lease_ms, json.dumps(list(asked_about)), json.dumps(list(strangers)))
            try:
                now_ms, wake_ms, *rows = await store.submit("task/claim", shard, args)
                break
            except StoreUnavailable:
                lost.add(call)  # it may have claimed: the next that gets through says what
                if monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
        lost -= asked_about
        tasks = [
            Task.of(task_id.decode(), json.loads(record), shard, attempt, owner, fence, asked_at)
            for task_id, record, attempt, fence, _ in rows
        ]
        return tasks, (wake_ms - now_ms) / 1000 if wake_ms else None

    async def complete(self, task: Task) -> bool:
        """End the task. False: the attempt was no longer the newest (`task/complete`)."""
        return bool(await self._store.call("task/complete", task.shard, (task.id, task.owner, task.fence)))

    async def fail(self, task: Task, error: str, retry_at_ms: int = 0) -> float | None:
        """The attempt failed. When it is tried again, in seconds since the epoch; None: not again (`task/fail`)."""
        args = (task.id, task.owner, task.fence, error, retry_at_ms)
        said = await self._store.call("task/fail", task.shard, args)
        return said / 1000 if said > 0 else None

    async def release(self, task: Task, *, begun: bool, delay_ms: int = 0) -> bool:
        """Give an attempt back. False: it was no longer ours, or was its last (`task/release`)."""
        args = (task.id, task.owner, task.fence, int(begun), delay_ms)
        return bool(await self._store.call("task/release", task.shard, args) == 2)

    async def release_all(self, owner: str) -> int:
        """Take back all that an owner, now gone, had claimed: as if its leases had expired (`task/release_all`)."""

        async def one_shard(shard: int) -> int:
            count, more = 0, 1
            while more:
                released, more = await self._store.call("task/release_all", shard, (owner, PAGE))
                count += released
            return count

        return sum(await asyncio.gather(*(one_shard(shard) for shard in range(self._store.shards))))
