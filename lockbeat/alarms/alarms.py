"""Tells monitors and webhooks of what happens: each event once, however many instances there are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import anyio

from lockbeat.alarms.checkins import CheckIn, Monitor, check_ins
from lockbeat.alarms.http import Http, NotTold, load
from lockbeat.alarms.webhook import OPTIONS, PREFIX, Webhook
from lockbeat.connection.outage import REMIND
from lockbeat.errors import InvalidArgument, InvalidType, UnknownJob
from lockbeat.events import Event
from lockbeat.jobs import Job, Jobs
from lockbeat.leases.lease import monotonic
from lockbeat.process import chance
from lockbeat.tasks import Tasks

log = logging.getLogger("lockbeat")

TRIES = 5
"""So often a service is tried in all."""
PAUSE = 1.0
"""Seconds before the second try, twice as long before each further one."""
AT_ONCE = 8
"""Requests of one instance that are under way."""


def check_monitors(monitors: Iterable[Monitor | Webhook] | None) -> tuple[Monitor | Webhook, ...]:
    """Those that a beat was given. Raises InvalidType, InvalidArgument; MissingExtra: httpx is not there."""
    found = tuple(monitors or ())
    for one in found:
        if not isinstance(one, Monitor | Webhook):
            raise InvalidType("monitors", f"must be such as Sentry, Healthchecks, Cronitor or Webhook, not {type(one).__name__}")
    names = [one.task for one in found if isinstance(one, Webhook)]
    for name in names:
        if names.count(name) > 1:
            raise InvalidArgument("monitors", f"two webhooks are named {name.removeprefix(PREFIX)!r}; give one another name=")
    if found:
        load()
    return found


class Alarms:
    """Tells the monitors of one program. `jobs`: those that it declares; others are read from the store."""

    def __init__(
        self, monitors: Iterable[Monitor | Webhook], declared: Mapping[str, Job], jobs: Jobs, tasks: Tasks, queue: str
    ) -> None:
        found = tuple(monitors)
        self._monitors = [one for one in found if isinstance(one, Monitor)]
        self._webhooks = [one for one in found if isinstance(one, Webhook)]
        self._declared, self._jobs, self._tasks, self._queue = declared, jobs, tasks, queue
        self._http = Http()
        self._limit = anyio.CapacityLimiter(AT_ONCE)
        self._told: dict[str, float] = {}
        self.failed = 0
        """Check-ins that a service did not take."""

    async def tell(self, event: Event, event_id: str) -> None:
        """Tell all whom it concerns; bounded. What a service does not take is counted, and said. Raises StoreError."""
        for webhook in self._webhooks:
            if (params := webhook.params(event, event_id)) is not None:
                options: Any = {**OPTIONS, "queue": self._queue, "idempotency_key": f"{webhook.task} {event_id}"}
                await self._tasks.spawn(webhook.task, params, **options)
        name, slot = getattr(event, "job", ""), getattr(event, "slot", None)
        if not self._monitors or not name or slot is None:
            return
        job = await self._job(name)
        if job is None:
            return
        async with anyio.create_task_group() as group:
            for monitor in self._monitors:
                schedule = monitor.schedule(job)
                if schedule is not None:
                    group.start_soon(self._send, monitor, check_ins(event, job, schedule))
                elif monitor.watches(job) and self._may(name):
                    log.info("job %r is not told to %s: it takes no such schedule as %s", name, monitor.name, job.trigger)

    async def _send(self, monitor: Monitor, told: list[CheckIn]) -> None:
        for one in told:
            for number in range(1, TRIES + 1):
                try:
                    async with self._limit:
                        await monitor.send(self._http, one)
                    break
                except NotTold as problem:
                    if not problem.again or number == TRIES:
                        self._not_told(monitor, one, str(problem))
                        break
                    pause = PAUSE * 2 ** (number - 1) * chance.between(0.8, 1.2)
                    await anyio.sleep(max(pause, problem.wait))

    def _not_told(self, monitor: Monitor, told: CheckIn, problem: str) -> None:
        self.failed += 1
        if self._may(monitor.name):
            said = "%s was not told of %s of job %r: %s (%d check-ins so far)"
            log.warning(said, monitor.name, told.slot.isoformat(), told.job.name, problem, self.failed)

    async def _job(self, name: str) -> Job | None:
        if (job := self._declared.get(name)) is not None:
            return job
        try:
            return (await self._jobs.get(name)).job
        except UnknownJob:  # it is deleted
            return None

    def _may(self, what: str) -> bool:
        """Whether the log may be told of it: once a minute."""
        now = monotonic()
        if now < self._told.get(what, float("-inf")) + REMIND:
            return False
        if len(self._told) > 1000:
            self._told.clear()
        self._told[what] = now
        return True

    async def aclose(self) -> None:
        """Hang up."""
        await self._http.__aexit__()
