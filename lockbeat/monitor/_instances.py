"""Which instances live, by what they say of themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lockbeat.store import Store
from lockbeat.store.calls import Calls

HEARTBEAT = 10.0
"""Seconds between two signs of life of an instance."""
HEARTBEAT_TTL_MS = round(HEARTBEAT * 3000)
"""One without a sign of life for three of them is taken for dead."""
SILENT = HEARTBEAT + 2
"""Seconds without a sign of life after which one was due and did not come."""
MOST_INSTANCES = 1000
MOST_FUNCTIONS = 1000
"""Names that an instance says of itself; one that says so many may have more."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One running process, as it said of itself."""

    owner: str
    pid: int | None
    host: str | None
    schedules: bool
    queues: tuple[str, ...]
    """What its worker serves; none: it has no worker."""
    jobs: int | None
    """How many it declares."""
    concurrency: int | None
    tasks: tuple[str, ...]
    """The functions that its worker runs when they are spawned, those of jobs included; the first MOST_FUNCTIONS."""
    seen_ms: int
    """Its last sign of life."""
    stuck_s: float | None = None
    """Seconds for which its event loop had not turned when it said so; None: it turns."""
    gave_up: bool = False
    """Stuck for so long that its leases are renewed no more."""
    tzdata: str | None = None
    """The version of the time zones' rules by which it reckons; None: it does not know."""
    version: str | None = None
    """Of its code: the number that it has, or a digest of its jobs; None: it declares none."""

    @property
    def seen_at(self) -> float:
        """`seen_ms` in seconds since the Unix epoch, by the server's clock."""
        return self.seen_ms / 1000


async def instances(store: Calls) -> list[Instance]:
    """Who lives, by owner (`beat/instances`). One that was killed stays for up to 30 s."""
    found = []
    for owner, text, dead_at_ms in await store.call("beat/instances", 0, limit=MOST_INSTANCES):
        info = json.loads(text)
        found.append(
            Instance(
                owner.decode(),
                info.get("pid"),
                info.get("host"),
                bool(info.get("schedules")),
                tuple(info.get("queues", ())),
                info.get("jobs"),
                info.get("concurrency"),
                tuple(info.get("tasks", ())),
                dead_at_ms - HEARTBEAT_TTL_MS,
                info.get("stuck_s"),
                bool(info.get("gave_up")),
                info.get("tzdata") if info.get("tzdata") != "-" else None,
                info.get("version"),
            )
        )
    return sorted(found, key=lambda instance: instance.owner)


async def engine(store: Store) -> str:
    """The server's name and version, as it says: Valkey 9.0.1."""
    info = fields(await store.wire(0).command("INFO", "server"))
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version', '?')}"


def fields(text: bytes) -> dict[str, str]:
    """The `name:value` lines of INFO."""
    pairs = (line.partition(":") for line in text.decode(errors="replace").splitlines() if line and line[0] != "#")
    return {name: value for name, _, value in pairs}


class Wants(Protocol):
    """A job, as far as it matters who can run it."""

    @property
    def queue(self) -> str: ...
    @property
    def function(self) -> str: ...


async def nobody_runs(store: Calls, jobs: Sequence[Wants]) -> str:
    """That no living instance can run one of these jobs, if none can."""
    living = await instances(store) if jobs else []
    for job in jobs:
        serving = [instance for instance in living if job.queue in instance.queues]
        if not serving:
            return f"no instance serves queue {job.queue!r}"
        if not any(job.function in instance.tasks or len(instance.tasks) >= MOST_FUNCTIONS for instance in serving):
            return f"no instance that serves queue {job.queue!r} has a function {job.function!r}"
    return ""
