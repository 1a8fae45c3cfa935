"""Sizes: what one lock, claim, task, slot and job take in the store, what an instance takes, and its connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from harness import Bench, Child, server

from lockbeat import Beat, Every, Job, Lockbeat, NewTask
from suites.registry import used_memory
from tests.servers import Server

PARAMS = {"customer": 12345, "report": "monthly-revenue", "to": "somebody@example.org", "pages": [1, 2, 3]}
"""About a hundred bytes of JSON."""
JOBS = 100
Made = Callable[[Lockbeat, int], Awaitable[int]]
"""Makes so many of something; how many it has made."""


async def locks(lb: Lockbeat, count: int) -> int:
    async def one(number: int) -> None:
        assert await lb.locks.try_acquire(f"lock-{number}", lb.owner, 3600)

    await asyncio.gather(*map(one, range(count)))
    return count


async def claims(lb: Lockbeat, count: int, *, done: bool = False) -> int:
    async def one(number: int) -> None:
        claim = await lb.claims.acquire(f"claim-{number}", lb.owner, lease=3600)
        assert claim
        if done:
            assert await lb.claims.complete(claim, hold=3600)

    await asyncio.gather(*map(one, range(count)))
    return count


async def claims_done(lb: Lockbeat, count: int) -> int:
    return await claims(lb, count, done=True)


async def tasks(lb: Lockbeat, count: int) -> int:
    await lb.tasks.spawn_many([NewTask("report", PARAMS, max_attempts=1) for _ in range(count)])
    return count


async def tasks_ended(lb: Lockbeat, count: int, end: Callable[[Any], Awaitable[object]]) -> int:
    await tasks(lb, count)
    while begun := await lb.tasks.claim("default", lb.owner, limit=500, lease=600):
        await asyncio.gather(*map(end, begun))
    return count


async def tasks_done(lb: Lockbeat, count: int) -> int:
    return await tasks_ended(lb, count, lb.tasks.complete)


def raised() -> ValueError:
    """With a traceback of a few lines, as a function's has."""
    try:
        int("no number")
    except ValueError as problem:
        return problem
    raise AssertionError


async def tasks_dead(lb: Lockbeat, count: int) -> int:
    return await tasks_ended(lb, count, lambda task: lb.tasks.fail(task, raised()))


async def jobs(lb: Lockbeat, count: int) -> int:
    await lb.jobs.put(*(Job.declare(f"job-{number}", Every(86_400)) for number in range(count)))
    return count


async def slots(lb: Lockbeat, count: int) -> int:
    """Slots that were fired, run and done, and are all kept: beside a hundred jobs, which is what they have in common."""
    beat = Beat(lb)
    for number in range(100):
        beat.every(0.2, name=f"job-{number}", keep=10_000)(lambda: None)
    async with beat.lifespan():
        while (done := sum(state.counts.fired for state in await lb.jobs.list())) < count:
            await asyncio.sleep(0.2)
    return done


MADE: dict[str, Made] = {
    "a job": jobs,
    "a slot in the ledger, done": slots,
    "a task that waits, with 100 bytes of params": tasks,
    "… done, for as long as it is kept": tasks_done,
    "… dead, with a short traceback": tasks_dead,
    "a lock that is held": locks,
    "a claim that is held": claims,
    "… that is remembered as done": claims_done,
}


def bytes_each(bench: Bench, made: Made) -> float:
    count = bench.pick(10_000, 500)
    with server() as it:

        async def measured() -> float:
            async with Lockbeat(it.url) as lb:
                await lb.locks.is_locked("report")  # scripts are there before the first look
                before = used_memory(it)
                done = await made(lb, count)
            return (used_memory(it) - before) / done

        return asyncio.run(measured())


def connections(it: Server) -> int:
    """Those that are not ours."""
    with it.client() as client:
        found: Any = client.client_list()
    return len(found) - 1


@contextlib.asynccontextmanager
async def waiting(lb: Lockbeat) -> AsyncIterator[None]:
    async with lb.lock("report", ttl=3):
        waiter = asyncio.create_task(lb.lock("report").__aenter__())
        await asyncio.sleep(3)
        yield
        waiter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiter


async def short() -> None: ...


async def long() -> None:
    await asyncio.sleep(4)  # its lease is renewed by then


async def connected(it: Server) -> dict[str, int]:
    """How many connections a process has, by what it does."""
    found: dict[str, int] = {}
    async with Lockbeat(it.url) as lb:
        await lb.locks.is_locked("report")
        found["a client"] = connections(it)
        async with lb.lock("report", ttl=3):
            await asyncio.sleep(3)  # until it was renewed
            found["… that holds a lock"] = connections(it)
        async with waiting(lb):
            found["… that holds one and waits for another"] = connections(it)
    for what, function in (("shorter", short), ("longer", long)):
        beat = Beat(it.url, namespace=what)
        beat.every(1)(function)
        async with beat.lifespan():
            await asyncio.sleep(8)
            found[f"an instance, whose functions are {what} than a third of their lease"] = connections(it)
    return found


def process(it: Server, jobs: int) -> int:
    """Bytes of memory of an instance that has so many jobs and waits for the next."""
    with Child("beats", contender="lockbeat", url=it.url, jobs=0, yearly=jobs) as child:
        child.answer()
        time.sleep(1)
        return int(child.ask("stat")["rss"])


def run(bench: Bench) -> dict[str, Any]:
    with server() as it:
        links = asyncio.run(connected(it))
        instance = process(it, JOBS)
    sizes = {}
    for what, made in MADE.items():
        bench.log(f"sizing: {what}")
        sizes[what] = bytes_each(bench, made)
    return {
        "bytes": sizes,
        "connections": links,
        "jobs": JOBS,
        "instance_bytes": instance,
        "scripts": [],
    }
