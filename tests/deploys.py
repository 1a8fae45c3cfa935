"""Instances of several versions of a program, step by step; and time that passes for versions."""

from __future__ import annotations

import re
from typing import Any

from lockbeat import Lockbeat
from lockbeat.jobs import Job, Scheduler, Version, version_of
from tests.beats import backdate, last_slot

TTL_MS = 30_000


class Instance:
    """A process of a program with these jobs in its code, as far as deploys see it."""

    def __init__(self, lb: Lockbeat, *jobs: Job, number: str = "-", runner: Any = None) -> None:
        self.lb = lb
        self.jobs = jobs
        self.version: Version | None = version_of(jobs, number)
        self.scheduler = Scheduler(lb.store, lb.jobs, {job.name: job for job in jobs}, runner, None, self.version)

    async def sign(self) -> None:
        """Give a sign of life, as every ten seconds."""
        for shard in range(self.lb.store.shards):
            row: dict[str, Any] = {
                "owner": self.lb.owner,
                "info": "{}",
                "ttl_ms": TTL_MS,
                "version": self.scheduler.deployed.said,
            }
            await self.scheduler.heard(shard, await self.lb.store.call("beat/heartbeat", shard, **row), True)

    async def start(self) -> Instance:
        await self.sign()
        await self.scheduler.register()
        return self

    async def tick(self) -> None:
        for shard in range(self.lb.store.shards):
            await self.scheduler.tick(shard)


def pass_for_versions(raw: Any, lb: Lockbeat, seconds: float, *instances: Instance) -> None:
    """As if so much time had passed since these were last heard of; without any: since all were."""
    chosen = {instance.version.id for instance in instances if instance.version}
    for shard in range(lb.store.shards):
        key = lb.store.keys.key(shard, "version")

        def earlier(line: re.Match[str]) -> str:
            if chosen and line[1] not in chosen:
                return line[0]
            return f"\n{line[1]} {line[2]} {int(line[3]) - round(seconds * 1000)}"

        text = (raw.get(key) or b"").decode()
        if text:
            raw.set(key, re.sub(r"\n(\w+) (\d+) (\d+)", earlier, text))


async def gone(raw: Any, lb: Lockbeat, *instances: Instance, seconds: float = 31) -> None:
    """No instance of these versions has been heard of for a while."""
    pass_for_versions(raw, lb, seconds, *instances)


async def came_due(lb: Lockbeat, raw: Any, job: Job, back: int = 0) -> int:
    """Let a declared job's slot have come due, and `back` more since; returns the first of them."""
    slot = await last_slot(lb, await lb.jobs.get(job.name), back)
    await backdate(lb, raw, job.name, slot)
    return slot
