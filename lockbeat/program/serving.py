"""One run of a beat over an open client: scheduler, worker and signs of life, from the start to the shutdown."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskStatus

from lockbeat.client import Lockbeat
from lockbeat.errors import StoreError, StoreFormatError
from lockbeat.health import Health
from lockbeat.health.state import Serves, Sign
from lockbeat.jobs import Backfiller, Job, Outbox, Scheduler, Version
from lockbeat.leases.lease import monotonic
from lockbeat.monitor import HEARTBEAT, HEARTBEAT_TTL_MS, MOST_FUNCTIONS
from lockbeat.store import results
from lockbeat.store.durable import Durability
from lockbeat.store.rows import Row
from lockbeat.store.wakeup import Turns
from lockbeat.triggers.rules import rules_version
from lockbeat.worker import CLAIM_LEASE_MS, Function, Worker

if TYPE_CHECKING:
    from lockbeat.alarms import Alarms, Monitor, Webhook

log = logging.getLogger("lockbeat")

CLOCK_JUMP = 0.5
"""Seconds by which the server's clock moves against ours when it is set, not when it drifts."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a beat declares, and how it is to be served."""

    jobs: Mapping[str, Job]
    functions: Mapping[str, Function]
    tasks: Sequence[str]
    """The functions that are run when they are spawned."""
    queues: Sequence[str]
    concurrency: int
    grace: float
    durability: Durability | None
    stall: float | None
    leases_ms: Sequence[int]
    """What its jobs and tasks say of theirs."""
    version: Version | None = None
    """Of its code; None: it declares no jobs."""
    monitors: Sequence[Monitor | Webhook] = ()
    queue: str = "default"
    """Where the tasks of its webhooks go."""


class Serving(Serves):
    """Serves a program over a client. `shared`: the client is not ours, nor are all of its leases.

    health: is told how it stands.
    """

    worker_class = Worker

    def __init__(self, client: Lockbeat, program: Program, health: Health, *, schedule: bool, work: bool, shared: bool) -> None:
        self._client, self._store, self._program = client, client.store, program
        self._schedules, self._works, self._shared = schedule, work, shared
        self._store.check_loop()
        self._refused: StoreFormatError | None = None
        self._clocks: dict[int, float] = {}
        self._worker = self.worker_class(
            self._store,
            client.keeper,
            client.tasks,
            program.functions,
            program.queues,
            program.concurrency,
            program.durability,
            min(program.leases_ms, default=CLAIM_LEASE_MS),
            program.grace,
        )
        self._worker.reports.failed_slot = client.jobs.see_failure
        self._scheduler = Scheduler(
            self._store, client.jobs, program.jobs, self._worker if work else None, program.durability, program.version
        )
        self._backfiller = Backfiller(self._store)
        self._alarms: Alarms | None = None
        if program.monitors:
            from lockbeat.alarms import Alarms

            self._alarms = Alarms(program.monitors, program.jobs, client.jobs, client.tasks, program.queue)
        self._outbox = Outbox(self._store, [self._alarms.tell] if self._alarms is not None else [])
        self._health = health
        self._pulse = Turns()  # of the heartbeat

    @property
    def abandoned(self) -> list[str]:
        """The tasks whose functions still run after the shutdown."""
        return self._worker.abandoned

    def signs(self) -> Iterator[Sign]:
        yield Sign("the heartbeat", self._pulse)
        if self._schedules:
            yield from (Sign("firing", turns) for turns in self._scheduler.turning)
        if self._works:
            full = self._worker.room <= 0
            yield from (Sign("claiming", turns, full) for turns in self._worker.turning)

    def away(self) -> bool:
        return self._store.connector.outage.away

    def unanswered(self, now: float) -> float:
        return 0.0 if self._pulse.began_at is None else self._pulse.late(now)

    def owed(self, now: float) -> tuple[str, float] | None:
        return self._scheduler.owed(now)

    async def run(self, task_status: TaskStatus[None]) -> None:
        store = self._store
        try:
            for shard in range(store.shards):
                await store.listening(shard)
            await self._outbox.register()
            if self._schedules:
                await self._introduce()
                await self._scheduler.register()
            async with anyio.create_task_group() as group:
                try:
                    group.start_soon(self._heartbeat, group.cancel_scope)
                    for shard in range(store.shards):
                        group.start_soon(self._outbox.serve, shard)
                        if self._schedules:
                            group.start_soon(self._scheduler.serve, shard)
                            group.start_soon(self._backfiller.serve, shard)
                        if self._works:
                            group.start_soon(self._worker.serve, shard)
                    log.info("serving %s as %s on %s", self._what(), store.owner, store.connector.location)
                    self._health.serving(self)
                    task_status.started()
                    await anyio.sleep_forever()
                finally:
                    group.cancel_scope.cancel()
            if self._refused is not None:
                raise self._refused
        finally:
            with anyio.CancelScope(shield=True):
                await self._outbox.aclose()
                if self._alarms is not None:
                    await self._alarms.aclose()
                await self._shut_down()

    def _what(self) -> str:
        declared = (self._program.jobs, "job"), (self._program.tasks if self._works else (), "task")
        return " and ".join(_several(len(of), word) for of, word in declared if of) or "what others declared"

    def _info(self) -> dict[str, object]:
        """What the instance says of itself."""
        program = self._program
        names = [*dict.fromkeys([*program.tasks, *program.functions])]  # a job's function can be spawned, too
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "schedules": self._schedules,
            "queues": list(program.queues) if self._works else [],
            "jobs": len(program.jobs),
            "concurrency": program.concurrency,
            "tzdata": rules_version(),
            "version": program.version and program.version.name,
            "tasks": names[:MOST_FUNCTIONS] if self._works else [],
        }

    def _sign(self, shard: int, said: Mapping[str, object]) -> Row:
        """A sign of life. Shard 0 knows the instances, each shard the versions that declare its jobs."""
        return self._store.row["beat/heartbeat"](
            owner=self._store.owner, info=json.dumps(said), ttl_ms=HEARTBEAT_TTL_MS, version=self._scheduler.deployed.said
        )

    async def _beat(self, shard: int) -> int:
        """Give a sign of life, and look whether there is anything for the scheduler to do.

        Returns when the shard's next job comes due, in ms; 0: none does.
        """
        reply = await self._store.call_row(self._sign(shard, self._info() if shard == 0 else {}), shard)
        if not self._store.is_agreed(shard, reply.format, reply.shards):
            await self._store.reassert()
        if shard == 0 and self._store.counting is not None:
            self._store.counting.clock_offset = time.time() - reply.now_ms / 1000
        # The next due time was told by a clock that has been set since: ask again, do not sleep it out.
        was, self._clocks[shard] = self._clocks.get(shard), reply.now_ms / 1000 - monotonic()
        jumped = was is not None and abs(self._clocks[shard] - was) > CLOCK_JUMP
        # A store that was emptied, or lost some of its keys, knows of no job that might be due: nobody would ask before
        # the next slot. Nor would one whose bell was lost.
        odd = reply.odd > results.NO or 0 < reply.next_due_ms <= reply.now_ms + HEARTBEAT * 1000
        if jumped or odd or reply.epoch != self._scheduler.epoch(shard, reply.epoch):
            self._scheduler.wake(shard)
        await self._scheduler.heard(shard, reply, self._schedules)
        return int(reply.next_due_ms)

    async def _introduce(self) -> None:
        """Say which version of the code is about to declare its jobs. Raises StoreError."""
        try:
            for shard in range(self._store.shards):
                await self._beat(shard)
        except StoreError:
            raise
        except Exception:
            log.exception("the first heartbeat failed; the next may not")

    async def _heartbeat(self, serving: anyio.CancelScope) -> None:
        def standing(still: float, gave_up: bool) -> Row:
            return self._sign(0, self._info() | {"stuck_s": round(still), "gave_up": gave_up})

        self._client.keeper.watch(self._program.stall, standing)
        while True:
            failed: Exception | None = None
            self._pulse.begin()
            try:
                await self._store.on_every_shard(self._beat)
                if self._schedules:
                    await self._scheduler.mend_calendars()
            except StoreFormatError as problem:
                failed = problem
                log.error("stopping: %s", problem)
                self._refused = problem
                serving.cancel()
            except StoreError as problem:
                failed = problem
                log.debug("heartbeat: %s", problem)
            except Exception as problem:
                failed = problem
                log.exception("the heartbeat failed, and goes on")
            self._pulse.end(failed)
            self._pulse.wait(HEARTBEAT)
            await anyio.sleep(HEARTBEAT)

    async def _shut_down(self) -> None:
        client, worker = self._client, self._worker
        self._health.draining()
        client.keeper.unwatch()
        await worker.drain(self._program.grace)
        with anyio.move_on_after(self._store.timeout):
            try:
                # What is shared is not ours to give back; nor what a thread still works on.
                if not self._shared:
                    if not worker.abandoned:
                        await client.tasks.release_all(client.owner)
                        await client.claims.release_all(client.owner)
                        await client.locks.release_all(client.owner)
                    await self._store.call("beat/heartbeat", 0, owner=client.owner, info="", ttl_ms=0, version="")
            except StoreError as problem:
                log.warning("could not give everything back, leases end by themselves: %s", problem)
        log.info("shut down: %d completed, %d failed", worker.reports.completed, worker.reports.failed)


def _several(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
