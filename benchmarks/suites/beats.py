"""The schedulers as they are measured, and how one is watched for a while."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from harness import Child, Seen

from lockbeat.store.keys import Keys
from tests.servers import Server


@dataclass(frozen=True)
class Scheduler:
    contender: str
    options: dict[str, Any] = field(default_factory=dict)
    runs: bool = True
    """The function runs in the same process; else the task is only enqueued."""


# What the peers' own documentation suggests for a fast takeover, and for late jobs to be run all the same.
TUNED = {"redbeat_lock_timeout": 5, "beat_max_loop_interval": 1}
SCHEDULERS = {
    "lockbeat": Scheduler("lockbeat"),
    "lockbeat (concurrency 1,000)": Scheduler("lockbeat", {"beat": {"concurrency": 1000}}),
    "lockbeat, enqueue only": Scheduler("lockbeat", {"work": False}, runs=False),
    "RedBeat": Scheduler("redbeat", runs=False),
    "RedBeat (lock 5 s, loop 1 s)": Scheduler("redbeat", {"conf": TUNED}, runs=False),
    "APScheduler 3": Scheduler("apscheduler"),
    "APScheduler 3 (no misfires)": Scheduler("apscheduler", {"defaults": {"misfire_grace_time": None, "coalesce": False}}),
}


def start(name: str, it: Server, jobs: int, **options: Any) -> tuple[Child, dict[str, Any]]:
    """A running scheduler, and what it says of its start."""
    kind = SCHEDULERS[name]
    child = Child("beats", contender=kind.contender, url=it.url, jobs=jobs, **kind.options, **options)
    try:
        return child, child.answer()
    except BaseException:
        child.kill()
        raise


def enqueued(name: str, it: Server) -> int:
    """Tasks that lie in the store, for those that only enqueue: counted in the store, not by the scheduler."""
    kind = SCHEDULERS[name]
    with it.client() as client:
        count: Any = client.llen("celery") if kind.contender == "redbeat" else client.hlen(Keys("lockbeat").key(0, "task"))
    return int(count)


def watch(name: str, child: Child, it: Server, seconds: float) -> dict[str, float]:
    """Rates over a while: fires, what they cost the server, and processor time of both."""

    def look() -> tuple[Seen, float, int]:
        stat = child.ask("stat")
        return Seen.of(it), stat["cpu"], stat["fired"] if SCHEDULERS[name].runs else enqueued(name, it)

    before, cpu, fired = look()
    time.sleep(seconds)
    after, cpu_after, fired_after = look()
    took, fires = after.at - before.at, fired_after - fired
    rates = {
        "fires_per_second": fires / took,
        "instance_cpu": (cpu_after - cpu) / took,
        "server_cpu": (after.cpu - before.cpu) / took,
    }
    if fires:
        rates |= {
            "round_trips_per_fire": (after.reads - before.reads) / fires,
            "script_calls_per_fire": (after.scripts - before.scripts) / fires,
            "executed_per_fire": (after.executed - before.executed) / fires,
            "server_us_per_fire": (after.cpu - before.cpu) / fires * 1e6,
            "instance_us_per_fire": (cpu_after - cpu) / fires * 1e6,
        }
    return rates
