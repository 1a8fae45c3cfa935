"""The page: what it costs the store, and how long one waits for it, over many jobs and tasks."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import httpx
from harness import Bench, server

from lockbeat import Every, Job, Lockbeat, NewTask
from lockbeat.web import dashboard
from lockbeat.web.pages import PAGES
from tests.servers import Server
from tests.web.browsing import launched, opened, served

FILTERED = (
    *("/jobs?sort=next", "/jobs?tag=rare", "/jobs?tag=odd", "/jobs?state=failing", "/jobs?q=job-0999"),
    *("/tasks?state=waiting&queue=queue-3", "/tasks?function=function-2", "/tasks?function=none"),
)
QUERIES = {"/job": "?name=job-000100", "/backfill": "?name=job-000100", "/task": "?id=job-000100@1"}
BROWSED = "/jobs"
AT_ONCE = 2_000


async def fill(lb: Lockbeat, jobs: int, tasks: int) -> None:
    def tags(number: int) -> list[str]:
        return [*(["odd"] if number % 2 else []), *(["rare"] if number % 1000 == 0 else [])]

    for first in range(0, jobs, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, jobs))
        await lb.jobs.put(*(Job.declare(f"job-{n:06}", Every(3600 + n), tags=tags(n)) for n in numbers))
    for first in range(0, tasks, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, tasks))
        await lb.tasks.spawn_many([NewTask(f"function-{n % 7}", {"n": n}, queue=f"queue-{n % 5}") for n in numbers])


def spent(it: Server) -> tuple[int, int, float]:
    """Calls of scripts; all commands, those inside of scripts, too, but for INFO; ms that scripts took."""
    calls, ms, scripts = 0, 0.0, 0
    for line in str(it.call("INFO", "commandstats")).splitlines():
        name, _, rest = line.removeprefix("cmdstat_").partition(":calls=")
        assert name not in ("keys", "scan")
        if rest and name != "info":
            calls += int(rest.partition(",")[0])
            if name == "evalsha":
                scripts = int(rest.partition(",")[0])
                ms = int(rest.partition("usec=")[2].partition(",")[0]) / 1000
    return scripts, calls, ms


async def asked(it: Server, lb: Lockbeat, times: int) -> dict[str, dict[str, Any]]:
    """Each page, asked for within this process: no socket, no browser."""
    board = dashboard(lb, user=lambda scope: "alice", hosts=("page",))
    found = {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=board), base_url="http://page", timeout=60) as client:
        for path in (*PAGES, *FILTERED):
            path += QUERIES.get(path, "")
            await client.get(path)
            took, before = [], spent(it)
            for _ in range(times):
                started = time.perf_counter()
                response = await client.get(path)
                took.append((time.perf_counter() - started) * 1000)
                assert response.status_code in (200, 404), response.text
            scripts, calls, ms = (after - was for was, after in zip(before, spent(it), strict=True))
            found[path] = {
                "p50_ms": statistics.median(took),
                "max_ms": max(took),
                "scripts": scripts / times,
                "commands": calls / times,
                "server_ms": ms / times,
                "kb": len(response.content) / 1000,
            }
    return found


async def browsed(it: Server, jobs: int, times: int) -> list[float]:
    """ms from asking for the page of all jobs until the browser has loaded it, in a browser that knows nothing of it."""
    took = []
    async with launched() as browser, served(it) as site:
        await fill(site.lb, jobs, 0)
        for _ in range(times):
            async with opened(browser) as page:
                started = time.perf_counter()
                await page.goto(site.at.rstrip("/") + BROWSED)
                took.append((time.perf_counter() - started) * 1000)
    return took


def run(bench: Bench) -> dict[str, Any]:
    jobs, tasks, times = bench.pick((100_000, 1_000_000, 10), (2_000, 5_000, 2))

    async def measured(it: Server) -> dict[str, Any]:
        async with Lockbeat(it.url) as lb:
            bench.log(f"web: {jobs} jobs, {tasks} tasks")
            await fill(lb, jobs, tasks)
            bench.log("web: pages")
            return await asked(it, lb, times)

    with server() as it:
        pages = asyncio.run(measured(it))
    bench.log("web: in a browser")
    with server() as it:
        opening = asyncio.run(browsed(it, jobs, times))
    return {
        "jobs": jobs,
        "tasks": tasks,
        "times": times,
        "pages": pages,
        "browser_ms": {"median": statistics.median(opening), "max": max(opening)},
    }
