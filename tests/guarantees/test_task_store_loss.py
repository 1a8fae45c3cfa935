"""Tasks whose replies are lost, or whose store goes away, loses keys, or has others take over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat, Run
from lockbeat.tasks import NewTask
from tests import servers
from tests.beats import Beats, client_of, states
from tests.conftest import Backend, Connect, needs, only, wait_until
from tests.keeping import hurry
from tests.proxy import calls_of, proxy
from tests.servers import Server
from tests.tasks import end_of


@only("valkey", "redis")
@pytest.mark.parametrize("script", ["task/claim", "task/complete", "task/fail", "task/spawn"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_lost_reply_neither_loses_nor_doubles_a_task(
    lb: Lockbeat, backend: Backend, namespace: str, script: str, times: int
) -> None:
    ran: list[tuple[Any, int]] = []
    async with proxy(backend.servers[0].port) as lossy:
        beat = Beat(lossy.url, namespace=namespace, timeout=2, grace=1, concurrency=3)

        @beat.task(max_attempts=2, retry=None)
        async def job(run: Run) -> Any:
            ran.append((run.params, run.attempt))
            if run.params % 2 and run.attempt == 1:
                raise ValueError
            return run.params

        async with beat.lifespan():
            lossy.lose_reply(calls_of(script), times)
            spawned = [await beat.spawn(job, number) for number in range(12)]
            infos = [await end_of(lb, one.task_id) for one in spawned]
        assert lossy.lost == times
    assert [(info.state, info.result, info.attempts) for info in infos] == [("done", n, 1 + n % 2) for n in range(12)]
    assert sorted(ran) == sorted([(n, 1) for n in range(12)] + [(n, 2) for n in range(1, 12, 2)])
    assert len(await lb.tasks.list()) == 12


async def test_tasks_that_run_while_the_store_hangs_are_reported_when_it_is_back(server: Server, namespace: str) -> None:
    beat, ran, go = Beat(server.url, namespace=namespace, timeout=1, grace=1), [], asyncio.Event()

    @beat.task
    async def job(run: Run) -> Any:
        ran.append(run.params)
        await go.wait()
        if run.params == 7:
            raise ValueError("no luck")
        return run.params

    async with beat.lifespan(), Lockbeat(server.url, namespace=namespace) as lb:
        spawned = await lb.tasks.spawn_many([NewTask("job", n, max_attempts=1) for n in range(10)])
        await wait_until(lambda: len(ran) == 10, "they run")
        server.freeze()
        try:
            go.set()
            await asyncio.sleep(2.2)  # longer than the first reports wait for their answers
        finally:
            server.thaw()
        infos = [await end_of(lb, one.task_id) for one in spawned]
    assert [info.state for info in infos] == ["done"] * 7 + ["dead"] + ["done"] * 2
    assert infos[7].failure is not None
    assert infos[7].failure.message == "no luck"
    assert sorted(ran) == list(range(10))


@needs("valkey")
async def test_a_server_that_dies_and_comes_back_with_its_data_loses_and_doubles_nothing(
    namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with servers.standalone(servers.valkey_binary(), aof_dir=tmp_path, extra=["appendfsync always"]) as server:
        beat = Beat(server.url, namespace=namespace, timeout=1, grace=1, concurrency=10)
        ran: list[int] = []
        go = asyncio.Event()

        @beat.task
        async def job(run: Run) -> Any:
            ran.append(run.params)
            await go.wait()
            return run.params

        async with beat.lifespan(), Lockbeat(server.url, namespace=namespace) as lb:
            spawned = await lb.tasks.spawn_many([NewTask("job", n) for n in range(30)])
            await wait_until(lambda: len(ran) == 10, "some of them run")
            await asyncio.to_thread(server.kill)
            go.set()
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.restart)
            infos = [await end_of(lb, one.task_id) for one in spawned]
    assert [(info.state, info.result, info.attempts) for info in infos] == [("done", n, 1) for n in range(30)]
    assert sorted(ran) == list(range(30))


async def test_a_store_that_is_emptied_while_tasks_run_stops_their_bodies(
    lb: Lockbeat, backend: Backend, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, events = beats(), []

    @beat.task
    async def long(run: Run) -> None:
        events.append("began")
        try:
            await asyncio.sleep(60)
        finally:
            events.append("cancelled")

    @beat.task
    async def short() -> str:
        return "goes on"

    async with beat.lifespan():
        await beat.spawn(long)
        await wait_until(lambda: events, "it runs")
        for client in backend.nodes():
            client.flushall()
        hurry(client_of(beat))
        await wait_until(lambda: "cancelled" in events, "its lease is gone, and so it is cancelled")
        assert (await end_of(lb, (await beat.spawn(short)).task_id)).result == "goes on"


async def test_an_attempt_that_was_lost_stops_and_does_not_overwrite_who_took_over(
    lb: Lockbeat, connect: Connect, beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    beat, events = beats(owner="me"), []

    @beat.task(max_attempts=5)
    async def robbed(run: Run) -> str:
        events.append(f"began {run.attempt}")
        if run.attempt > 1:
            return "second"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        return "first"

    async with beat.lifespan():
        task_id = (await beat.spawn(robbed)).task_id
        await wait_until(lambda: events, "it runs")
        await lb.tasks.release_all("me")
        info = await end_of(lb, task_id)
        await wait_until(lambda: "cancelled" in events, "the first is cancelled")
    assert sorted(events) == ["began 1", "began 2", "cancelled"]
    assert (info.result, info.attempts) == ("second", 2)
    assert (await lb.tasks.get(task_id)).result == "second"


async def test_jobs_and_tasks_share_one_worker(lb: Lockbeat, beats: Beats) -> None:
    beat, ran = beats(concurrency=1), []

    @beat.every(0.1)
    async def job(run: Run) -> None:
        ran.append("job")

    @beat.task
    async def task(run: Run) -> None:
        ran.append("task")

    async with beat.lifespan():
        spawned = [await beat.spawn(task) for _ in range(5)]
        for one in spawned:
            await end_of(lb, one.task_id)
        await wait_until(lambda: ran.count("job") > 2, "both run")
    assert ran.count("task") == 5
    assert "done" in await states(lb, "job")
