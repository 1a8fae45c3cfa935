"""Schedulers: N jobs with one period, on one grid; counts what fires and how late it is.

Lateness is counted from the nominal slot to the start of the function, or for those that only send (RedBeat, and lockbeat without
a worker) to the end of the sending.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from child import OPTIONS, answer_from_thread, say

URL: str = OPTIONS["url"]
JOBS: int = OPTIONS["jobs"]
PERIOD: float = OPTIONS.get("period", 1)
ANCHOR: float = OPTIONS.get("anchor", 0)
"""A slot, in seconds since the epoch; 0: now."""
YEAR = 31_536_000
KEEP_LATENESS: bool = OPTIONS.get("lateness", False)


class Counts:
    fired = 0
    lateness: ClassVar[list[float]] = []


def fired() -> None:
    Counts.fired += 1
    if KEEP_LATENESS:
        Counts.lateness.append((time.time() - ANCHOR) % PERIOD * 1000)


def rss() -> int:
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stat() -> dict[str, Any]:
    return {"fired": Counts.fired, "cpu": time.process_time(), "rss": rss()}


def lateness() -> list[float]:
    """In ms, of what fired since the last question."""
    taken, Counts.lateness = Counts.lateness, []
    return taken


def serving(started: float) -> None:
    """The scheduler runs: say how long that took, then answer questions."""
    say({"setup_s": time.monotonic() - started, "cpu": time.process_time()})
    answer_from_thread(stat=stat, lateness=lateness)


def lockbeat() -> None:
    """`instances`: so many in this process, each with the same jobs. `spread`: the slots of a period come one by one."""
    from lockbeat import Beat, Every, Lockbeat
    from lockbeat.jobs import Job

    work = OPTIONS.get("work", True)
    # Without a worker nothing ends, and under `skip` nothing would fire again.
    rest = {} if work else {"overlap": "allow"}
    anchor = datetime.fromtimestamp(ANCHOR or time.time(), UTC)
    apart = timedelta(seconds=PERIOD / JOBS) if OPTIONS.get("spread") else timedelta()

    def function() -> Callable[..., Any]:
        async def job() -> None:
            fired()

        return job

    def declared(**more: Any) -> Beat:
        beat = Beat(URL, **OPTIONS.get("beat", {}))
        for number in range(JOBS):
            beat.every(PERIOD, anchor=anchor + number * apart, name=f"job-{number}", **rest, **more)(function())
        for number in range(OPTIONS.get("yearly", 0)):
            expression = f"{number % 60} {number // 60 % 24} 1 1 *"
            beat.cron(expression, name=f"yearly-{number}", **rest, **more)(function())
        return beat

    empty, begun = rss(), time.monotonic()
    beats = [declared() for _ in range(OPTIONS.get("instances", 1))]
    took = time.monotonic() - begun

    def made_of(jobs: int, rare: int, **options: Any) -> list[Job]:
        when = Every(YEAR, datetime.fromtimestamp(YEAR, UTC))
        tags = {True: ["rare"], False: ["often"]}
        return [Job.declare(f"made-{n}", when, tags=tags[n % rare == 0], **options) for n in range(jobs)]

    async def apply(lb: Lockbeat, jobs: int, rare: int) -> dict[str, float]:
        """All new; all as they were; one in so many changed, and as many gone; and none left."""
        some = set(range(0, jobs, rare))
        changed = [made_of(1, 1, queue="other")[0] if n in some else job for n, job in enumerate(made_of(jobs, rare))]
        changed = [replace(job, name=f"made-{n}", function=f"made-{n}") if n in some else job for n, job in enumerate(changed)]
        kept = [job for n, job in enumerate(changed) if n - 1 not in some]
        times = {}
        for what, jobs_now in (
            ("new", made_of(jobs, rare)),
            ("as they were", made_of(jobs, rare)),
            ("some changed", kept),
            ("none left", []),
        ):
            started = time.monotonic()
            await lb.jobs.apply(jobs_now, origin="bench", prune=True)
            times[what] = time.monotonic() - started
        return times

    async def compare(_: Lockbeat) -> dict[str, float]:
        """What a deploy of the same would do, and of the same in another queue."""
        times = {}
        for what, options in (("as it is", {}), ("all changed", {"queue": "other"})):
            beat = declared(**options)
            started = time.monotonic()
            await beat.compare()
            times[what] = time.monotonic() - started
        return times

    async def put(lb: Lockbeat, jobs: int, rare: int) -> dict[str, float]:
        """As a program does that makes jobs at run time: all new, and all as they were."""
        times = {}
        for what in ("new", "as they were"):
            made = made_of(jobs, rare)
            started = time.monotonic()
            await lb.jobs.put(*made)
            times[what] = time.monotonic() - started
        return times

    async def page(lb: Lockbeat, times: int, **wanted: Any) -> list[float]:
        """How long a page takes, in ms."""
        found = list[float]()
        for _ in range(times):
            started = time.perf_counter()
            assert await lb.jobs.list(**wanted)
            found.append((time.perf_counter() - started) * 1000)
        return found

    async def main() -> None:
        loop, started = asyncio.get_running_loop(), time.monotonic()
        async with AsyncExitStack() as stack:
            for beat in beats:
                await stack.enter_async_context(beat.lifespan(work=work))
            lb = await stack.enter_async_context(Lockbeat(URL))

            def asked(question: Callable[..., Any]) -> Callable[..., Any]:
                return lambda **given: asyncio.run_coroutine_threadsafe(question(lb, **given), loop).result()

            say({"setup_s": time.monotonic() - started, "declare_s": took, "cpu": time.process_time(), "rss": rss() - empty})
            verbs = {verb.__name__: asked(verb) for verb in (put, page, apply, compare)}
            answer_from_thread(stat=stat, lateness=lateness, **verbs)
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
