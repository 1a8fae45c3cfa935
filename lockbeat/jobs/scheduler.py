"""The scheduler: asks what is due, and has it fired. Every instance runs one.

One turn for a shard is two scripts: `beat/due` hands out what is due, `beat/fire` decides, job by job, whether this
instance is the one to fire it. The clock that decides is the server's in both; ours only says how long to sleep between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio

from lockbeat.calendars import mend
from lockbeat.jobs.definition import Job
from lockbeat.jobs.deployed import Deployed
from lockbeat.jobs.firing import HIDE_MS, MOST, Firing, Runner
from lockbeat.jobs.known import Known
from lockbeat.jobs.registry import Jobs
from lockbeat.jobs.standby import Standby
from lockbeat.jobs.version import Version
from lockbeat.jobs.walk import Walk
from lockbeat.leases.lease import monotonic
from lockbeat.store import Store, messages
from lockbeat.store.durable import Durability
from lockbeat.store.records import SlotLine
from lockbeat.store.wakeup import Turns, Wakeup, at_most

LEAST = 100
"""Jobs that one instance takes on at a time at least, and more by the room that its worker has: the others woke at the same time,
and share a burst by what they can run."""
APART = 0.005
"""Seconds between two turns that fire, at least: slots that come due one by one share a run, which costs the store less."""
LOOK_AGAIN = 60.0
"""Seconds. What is due is looked at this often though nobody rang: the bell of a job that was declared can be lost."""


class Scheduler:
    """Fires jobs of one store. `declared`: the jobs of this program; others are read from the store. `version`: of its code."""

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        declared: Mapping[str, Job],
        runner: Runner | None,
        durability: Durability | None = None,
        version: Version | None = None,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._known = Known(store, declared)
        self.deployed = Deployed(store, jobs, declared, version)
        self._walk = Walk(store, jobs, self._known, self.deployed)
        self._firing = Firing(store, jobs, self._known, self._walk, runner, durability)
        self._wakeups = [Wakeup() for _ in range(store.shards)]
        self._standby = [Standby() for _ in range(store.shards)]
        self._handed: dict[int, bytes] = {}  # as beat/due says it; a store that says less next time has lost something
        self._excluding = [job for job in declared.values() if job.exclude]

    @property
    def fired(self) -> int:
        """Slots that this instance fired, since it started."""
        return self._firing.fired

    @property
    def turning(self) -> list[Turns]:
        """How it turns, shard by shard."""
        return [wakeup.turns for wakeup in self._wakeups]

    def owed(self, now: float) -> tuple[str, float] | None:
        """The slot that it was handed again and again for longest, and that nobody fired; and for how many seconds."""
        return self._firing.owed.longest(now)

    def epoch(self, shard: int, default: int) -> int:
        """The shard's epoch as last seen: another one means that it was emptied. `default`: nothing was in it so far."""
        return self._walk.epochs.get(shard) or default

    async def register(self) -> None:
        """Declare this program's jobs. Raises StoreUnavailable."""
        self._walk.epochs |= await self.deployed.declare(self._known.declared.values())
        for shard in range(self._store.shards):
            await self._jobs.forget_removed(shard)  # by somebody who died before they did

    async def heard(self, shard: int, reply: Any, acts: bool) -> None:
        """What a sign of life has learned, see `Deployed`."""
        await self.deployed.heard(shard, reply, self.epoch(shard, reply.epoch), acts)

    def wake(self, shard: int) -> None:
        """There may be something to fire on a shard."""
        self._wakeups[shard].ring()

    async def serve(self, shard: int) -> None:
        """Fire what is due on a shard, until cancelled. Losing the store ends nothing."""
        wakeup, store = self._wakeups[shard], self._store
        unlisten = store.listen({messages.JobDue: lambda _: wakeup.ring()}, wakeup.ring, bell=shard)
        try:
            await wakeup.serve(
                store.connector, lambda: self.tick(shard), doing="firing", blocked="can't ask what is due", look=LOOK_AGAIN
            )
        finally:
            unlisten()

    async def tick(self, shard: int) -> float | None:
        """One turn: fire what is due. Returns in how many seconds to look again; None: when told to. Raises StoreError."""
        walk, standby = self._walk, self._standby[shard]
        handful = min(max(self._firing.runner.room, LEAST), MOST)
        reply = await self._store.call("beat/due", shard, limit=handful, hide_ms=HIDE_MS, seen=self._handed.get(shard, b""))
        now_ms, epoch, next_ms, handed, odd, rows = reply
        answered = monotonic()
        if epoch != self.epoch(shard, epoch):
            await walk.rejoin(shard)
            return 0
        walk.epochs[shard] = epoch
        walk.seen[shard] = now_ms
        self._handed[shard] = handed
        standby.asked(now_ms, _due_ms(rows[1]) if rows else None, next_ms)
        if rows:
            # Whatever becomes of us: what has been fired in our name must reach the worker, or be given back by it.
            with self._firing.runner.burst(), anyio.CancelScope(shield=True):
                planned_ms = await self._firing.fire(shard, now_ms, rows)
            next_ms = min(next_ms or planned_ms, planned_ms or next_ms)
        if len(rows) >= 2 * handful or (odd and await walk.through(shard, odd)):
            return 0
        soonest = answered + APART if rows else 0.0
        pause = None
        if next_ms:
            pause = max(max(answered + (next_ms - now_ms) / 1000 + standby.after(next_ms), soonest) - monotonic(), 0)
        return at_most(walk.waits(shard), pause) if odd else pause

    async def mend_calendars(self) -> None:
        """Where jobs that this instance knows of exclude: see to it that their shards have the calendars as shard 0 has them."""
        if self._store.shards == 1:
            return
        used = self._firing.calendars.used()
        for job in self._excluding:
            used.setdefault(self._jobs.shard_of(job.name), set()).update(job.exclude)
        await mend(self._store, used)


def _due_ms(place: bytes) -> int | None:
    """When a job came due that stands there; None: that can't be read."""
    try:
        return SlotLine.of(place.decode()).due_ms
    except ValueError:
        return None
