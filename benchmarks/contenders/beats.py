"""Schedulers: N jobs with one period, on one grid; counts what fires and how late it is.

Lateness is counted from the nominal slot to the start of the function, or for those that only send (RedBeat, and lockbeat without
a worker) to the end of the sending.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from child import OPTIONS, answer_from_thread, say

URL: str = OPTIONS["url"]
JOBS: int = OPTIONS["jobs"]
PERIOD: float = OPTIONS.get("period", 1)
ANCHOR: float = OPTIONS.get("anchor", 0)
"""A slot, in seconds since the epoch; 0: now."""
KEEP_LATENESS: bool = OPTIONS.get("lateness", False)


class Counts:
    fired = 0
    lateness: ClassVar[list[float]] = []


def fired() -> None:
    Counts.fired += 1
    if KEEP_LATENESS:
        Counts.lateness.append((time.time() - ANCHOR) % PERIOD * 1000)


def stat() -> dict[str, Any]:
    return {"fired": Counts.fired, "cpu": time.process_time()}


def lateness() -> list[float]:
    """In ms, of what fired since the last question."""
    taken, Counts.lateness = Counts.lateness, []
    return taken


def serving(started: float) -> None:
    """The scheduler runs: say how long that took, then answer questions."""
    say({"setup_s": time.monotonic() - started, "cpu": time.process_time()})
    answer_from_thread(stat=stat, lateness=lateness)


def lockbeat() -> None:
    from lockbeat import Beat

    work = OPTIONS.get("work", True)
    beat = Beat(URL, **OPTIONS.get("beat", {}))
    # Without a worker nothing ends, and under `skip` nothing would fire again.
    rest = {} if work else {"overlap": "allow"}
    anchor = datetime.fromtimestamp(ANCHOR or time.time(), UTC)

    def function() -> Callable[..., Any]:
        async def job() -> None:
            fired()

        return job

    begun = time.monotonic()
    for number in range(JOBS):
        beat.every(PERIOD, anchor=anchor, name=f"job-{number}", **rest)(function())
    for number in range(OPTIONS.get("yearly", 0)):
        expression = f"{number % 60} {number // 60 % 24} 1 1 *"
        beat.cron(expression, name=f"yearly-{number}", **rest)(function())
    declared = time.monotonic() - begun

    async def main() -> None:
        started = time.monotonic()
        async with beat.lifespan(work=work):
            say({"setup_s": time.monotonic() - started, "declare_s": declared, "cpu": time.process_time()})
            answer_from_thread(stat=stat, lateness=lateness)
            await asyncio.sleep(math.inf)

    asyncio.run(main())


def redbeat() -> None:
    from celery import Celery
    from celery.beat import Service
    from celery.schedules import schedule
    from celery.signals import after_task_publish, beat_init
    from redbeat import RedBeatScheduler
    from redbeat.schedules import rrule

    app = Celery("bench", broker=URL)
    app.conf.redbeat_redis_url = URL
    app.conf.broker_connection_retry_on_startup = True
    app.conf.update(OPTIONS.get("conf", {}))
    # `schedule` is what its users write; it counts from the last run. A burst on a grid needs the other one.
    when: Any = schedule(timedelta(seconds=PERIOD))
    if ANCHOR:
        start = datetime.fromtimestamp(ANCHOR, UTC)
        when = rrule("SECONDLY", dtstart=start, interval=int(PERIOD), app=app)
    app.conf.beat_schedule = {f"job-{number}": {"task": "job", "schedule": when} for number in range(JOBS)}
    started = time.monotonic()

    @after_task_publish.connect(weak=False)
    def published(**_: Any) -> None:
        fired()

    @beat_init.connect(weak=False)
    def locked(**_: Any) -> None:
        serving(started)

    Service(app, scheduler_cls=RedBeatScheduler).start()


def noop() -> None:
    fired()


def apscheduler() -> None:
    from urllib.parse import urlsplit

    from apscheduler.executors.asyncio import AsyncIOExecutor
    from apscheduler.jobstores.redis import RedisJobStore
    from apscheduler.schedulers.asyncio import AsyncIOScheduler
    from apscheduler.triggers.interval import IntervalTrigger

    async def main() -> None:
        address = urlsplit(URL)
        scheduler = AsyncIOScheduler(
            jobstores={"default": RedisJobStore(host=address.hostname, port=address.port)},
            executors={"default": AsyncIOExecutor()},
            job_defaults=OPTIONS.get("defaults", {}),
            timezone=UTC,
        )
        start = datetime.fromtimestamp(ANCHOR or math.ceil(time.time()), UTC)
        for number in range(JOBS):
            trigger = IntervalTrigger(seconds=int(PERIOD), start_date=start, timezone=UTC)
            scheduler.add_job("beats:noop", trigger, id=f"job-{number}")
        started = time.monotonic()
        scheduler.start()
        serving(started)
        await asyncio.sleep(math.inf)

    # The store keeps a reference by name: be found under it, and not be imported a second time.
    import sys

    sys.modules["beats"] = sys.modules["__main__"]
    asyncio.run(main())


CONTENDERS: dict[str, Callable[[], None]] = {"lockbeat": lockbeat, "redbeat": redbeat, "apscheduler": apscheduler}
CONTENDERS[OPTIONS["contender"]]()
