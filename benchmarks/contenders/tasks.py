"""Task queues: spawn tasks that do nothing, and run them; counts what runs, and how long it took from the spawn to the start.

One process spawns, or works, or first spawns and then works. The task of every queue takes one number: when it was spawned.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import socket
import struct
import time
import traceback
from datetime import timedelta
from typing import Any

from child import OPTIONS, answer

URL: str = OPTIONS["url"]
SETTINGS: dict[str, Any] = OPTIONS.get("settings", {})
CALLERS: int = OPTIONS["callers"]
"""Spawn at once, where a queue has no call for many."""
BATCH = 500
"""Tasks in one call, where it has."""
WARM = 5
AGE = struct.Struct("d")


class Ran:
    """What ran in this process. `time.monotonic` is the machine's: other processes read the same clock."""

    count = wanted = 0
    first = last = 0.0
    enough = asyncio.Event()
    tell: str | None = None
    voice = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def ran(spawned_at: float) -> None:
    """Every queue's task calls this, and nothing else."""
    Ran.last = time.monotonic()
    Ran.first = Ran.first or Ran.last
    Ran.count += 1
    if Ran.tell is not None:
        Ran.voice.sendto(AGE.pack(Ran.last - spawned_at), Ran.tell)
    if Ran.count == Ran.wanted:
        Ran.enough.set()


class Contender:
    """`open` once, then `spawn`; or `work`, which serves until the process ends. Without a concurrency: as many as by default."""

    async def open(self) -> None: ...

    async def spawn(self) -> None:
        raise NotImplementedError

    async def spawn_many(self, count: int) -> None:
        """The queue's own call for many, or so many callers at once."""
        left = iter(range(count))

        async def caller() -> None:
            for _ in left:
                await self.spawn()

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    async def work(self, concurrency: int | None) -> None:
        raise NotImplementedError


def given(**options: Any) -> dict[str, Any]:
    """Without those left to the defaults."""
    return {name: value for name, value in options.items() if value is not None}


class Ours(Contender):
    async def open(self) -> None:
        from lockbeat import Lockbeat

        self.lb = await Lockbeat(URL).__aenter__()

    async def spawn(self) -> None:
        await self.lb.tasks.spawn("noop", time.monotonic())

    async def spawn_many(self, count: int) -> None:
        from lockbeat.tasks import NewTask

        await self.lb.tasks.spawn_many([NewTask("noop", time.monotonic()) for _ in range(count)])

    async def work(self, concurrency: int | None) -> None:
        from lockbeat import Beat, Run

        beat = Beat(URL, **given(concurrency=concurrency))

        @beat.task
        async def noop(run: Run) -> None:
            ran(run.params)

        await beat.serve(schedule=False)


class Docket(Contender):
    def docket(self) -> Any:
        from docket import Docket as Queue

        kept = SETTINGS.get("execution_ttl")
        return Queue(url=URL, **given(execution_ttl=None if kept is None else timedelta(seconds=kept)))

    @staticmethod
    async def noop(spawned_at: float) -> None:
        ran(spawned_at)

    async def open(self) -> None:
        self.queue = await self.docket().__aenter__()

    async def spawn(self) -> None:
        await self.queue.add(self.noop)(time.monotonic())

    async def spawn_many(self, count: int) -> None:
        await self.queue.add_many([self.queue.call(self.noop)(time.monotonic()) for _ in range(count)])

    async def work(self, concurrency: int | None) -> None:
        from docket import Worker

        check = SETTINGS.get("minimum_check_interval")
        async with self.docket() as queue:
            queue.register(self.noop)
            options = given(concurrency=concurrency, minimum_check_interval=None if check is None else timedelta(seconds=check))
            async with Worker(queue, **options) as worker:
                await worker.run_forever()


class Arq(Contender):
    async def open(self) -> None:
        from arq import create_pool
        from arq.connections import RedisSettings

        self.pool = await create_pool(RedisSettings.from_dsn(URL))

    async def spawn(self) -> None:
        await self.pool.enqueue_job("noop", time.monotonic())

    async def work(self, concurrency: int | None) -> None:
        from arq.connections import RedisSettings
        from arq.worker import Worker

        async def noop(_: Any, spawned_at: float) -> None:
            ran(spawned_at)

        noop.__qualname__ = "noop"
        options = given(max_jobs=concurrency, poll_delay=SETTINGS.get("poll_delay"))
        await Worker([noop], redis_settings=RedisSettings.from_dsn(URL), **options).async_run()


class Saq(Contender):
    @staticmethod
    async def noop(_: Any, *, spawned_at: float) -> None:
        ran(spawned_at)

    async def open(self) -> None:
        from saq import Queue

        self.queue = Queue.from_url(URL)

    async def spawn(self) -> None:
        await self.queue.enqueue("noop", spawned_at=time.monotonic())

    async def work(self, concurrency: int | None) -> None:
        from saq import Queue, Worker

        await Worker(Queue.from_url(URL), [("noop", self.noop)], **given(concurrency=concurrency)).start()


class Taskiq(Contender):
    def broker(self) -> Any:
        import taskiq_redis

        broker = getattr(taskiq_redis, SETTINGS["broker"])(URL)
        if kept := SETTINGS.get("results"):
            broker = broker.with_result_backend(taskiq_redis.RedisAsyncResultBackend(URL, result_ex_time=kept))

        @broker.task(task_name="noop")
        async def noop(spawned_at: float) -> None:
            ran(spawned_at)

        return broker, noop

    async def open(self) -> None:
        broker, self.noop = self.broker()
        await broker.startup()  # declares the stream's group: what is sent before that is not delivered

    async def spawn(self) -> None:
        await self.noop.kiq(time.monotonic())

    async def work(self, concurrency: int | None) -> None:
        from taskiq.api import run_receiver_task

        broker, _ = self.broker()
        await broker.startup()
        await run_receiver_task(broker, **given(max_async_tasks=concurrency, max_prefetch=SETTINGS.get("max_prefetch")))


class Streaq(Contender):
    def worker(self, **options: Any) -> Any:
        from streaq import Worker

        worker: Any = Worker(URL, **options)

        @worker.task(name="noop")
        async def noop(spawned_at: float) -> None:
            ran(spawned_at)

        return worker, noop

    async def open(self) -> None:
        self.sender, self.noop = self.worker()
        await self.sender.__aenter__()

    async def spawn(self) -> None:
        await self.noop.enqueue(time.monotonic())

    async def spawn_many(self, count: int) -> None:
        await self.sender.enqueue_many([self.noop.enqueue(time.monotonic()) for _ in range(count)])

    async def work(self, concurrency: int | None) -> None:
        worker, _ = self.worker(**given(concurrency=concurrency))
        await worker.run_async()


CONTENDERS: dict[str, type[Contender]] = {
    "lockbeat": Ours,
    "docket": Docket,
    "arq": Arq,
    "saq": Saq,
    "taskiq": Taskiq,
    "streaq": Streaq,
}


async def main() -> None:
    contender = CONTENDERS[OPTIONS["contender"]]()
    begun: list[asyncio.Future[None]] = []

    async def connect() -> int:
        """Connect, and spawn some, so that scripts are loaded and pools are full. Returns how many."""
        await contender.open()
        await contender.spawn()
        await contender.spawn_many(CALLERS)
        return 1 + CALLERS

    async def spawn(count: int, seconds: float, many: bool) -> dict[str, Any]:
        """At most so many, for at most so long: one after the other, or many in a call."""
        done, cpu, started = 0, time.process_time(), time.monotonic()
        while done < count and time.monotonic() - started < seconds:
            batch = min(BATCH, count - done) if many else 1
            await (contender.spawn_many(batch) if many else contender.spawn())
            done += batch
        return {"spawned": done, "seconds": time.monotonic() - started, "cpu": time.process_time() - cpu}

    async def work(concurrency: int | None) -> None:
        """Begin to serve."""

        async def serve() -> None:
            try:
                await contender.work(concurrency)
            except BaseException:
                traceback.print_exc()
            os._exit(1)  # the pipe closes, and whoever asks hears of it

        begun.append(asyncio.ensure_future(serve()))

    async def drain(count: int, seconds: float) -> dict[str, Any]:
        """Until so many ran, or for so long from the start of the first one, which has 10 s to come."""
        deadline = time.monotonic() + 10
        while not Ran.first and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        Ran.wanted = count
        if Ran.count < count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(Ran.enough.wait(), seconds)
        # Where it was cut off, the pause that it may just be making counts as well.
        until = Ran.last if Ran.count >= count else time.monotonic()
        return {"ran": Ran.count, "seconds": until - Ran.first if Ran.first else 0.0}

    async def tell(path: str) -> None:
        """From now on, send the age of each task at its start to that socket."""
        Ran.tell = path

    async def stat() -> dict[str, Any]:
        return {"ran": Ran.count, "cpu": time.process_time()}

    async def pace(path: str, seconds: float, pause: float) -> list[float]:
        """One task at a time, each after a pause of its own: ms from the call that spawns it to the start of its function."""
        loop, ages = asyncio.get_running_loop(), []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(path)
            heard.setblocking(False)
            deadline = 0.0
            for number in itertools.count():
                if number == WARM:
                    ages, deadline = [], time.monotonic() + seconds
                if deadline and time.monotonic() > deadline:
                    break
                await asyncio.sleep(0.01 + random.random() * pause)
                await contender.spawn()
                (age,) = AGE.unpack(await asyncio.wait_for(loop.sock_recv(heard, AGE.size), 10))
                ages.append(age * 1000)
        return ages

    await answer(connect=connect, spawn=spawn, work=work, drain=drain, tell=tell, stat=stat, pace=pace)


asyncio.run(main())
