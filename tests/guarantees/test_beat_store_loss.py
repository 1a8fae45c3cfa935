"""Promise 9: losing the store never ends an instance: it backs off, rejoins, and applies the catch-up policy."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat, Run
from lockbeat.program import serving as serving_module
from lockbeat.tasks import Task, Tasks
from tests.beats import Beats, backdate, eventually, last_slot, ledger, minutely, now_ms, scheduler, states, tasks_of
from tests.conftest import Backend, wait_until
from tests.proxy import proxy
from tests.servers import Server


def declare(beat: Beat) -> list[Any]:
    """A job that fires often; the slots it ran for."""
    slots: list[Any] = []

    @beat.every(0.1)
    async def often(run: Run) -> None:
        slots.append(run.slot)

    return slots


@pytest.fixture
def beat(server: Server, namespace: str) -> Beat:
    return Beat(server.url, namespace=namespace, timeout=1, grace=1)


async def runs_on(slots: list[Any], why: str) -> None:
    ran = len(slots)
    await wait_until(lambda: len(slots) > ran + 1, f"it runs {why}")


async def test_it_outlives_a_restart_of_the_server(beat: Beat, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Without its data: the jobs are declared again by themselves."""
    slots = declare(beat)
    async with beat.lifespan():
        await runs_on(slots, "at first")
        await asyncio.to_thread(server.kill)
        await wait_until(lambda: "the store is away" in caplog.text, "it notices")
        await asyncio.to_thread(server.restart)
        await runs_on(slots, "again")
    assert len(slots) == len(set(slots))
    assert "the store was emptied" in caplog.text
    assert caplog.text.count("the store is away") == 1, "said once, not at every try"


async def test_it_outlives_a_server_that_hangs(beat: Beat, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    slots = declare(beat)
    async with beat.lifespan():
        await runs_on(slots, "at first")
        server.freeze()
        try:
            await wait_until(lambda: "the store is away" in caplog.text, "it notices")
        finally:
            server.thaw()
        await runs_on(slots, "again")
        found = await beat.jobs.ledger("often", 100)
    assert len(slots) == len(set(slots))
    missed = [entry for entry in found if entry.state == "missed"]
    assert any((entry.count or 0) >= 3 for entry in missed), "the outage is in the ledger"


async def test_an_outcome_is_reported_when_the_store_is_back(beat: Beat, server: Server) -> None:
    """The work is done: it would be wrong to call it lost."""
    began, finish = asyncio.Event(), asyncio.Event()

    @beat.every(0.2, lease=60)
    async def work() -> None:
        began.set()
        await finish.wait()

    async with beat.lifespan():
        await began.wait()
        server.freeze()
        try:
            finish.set()
            await asyncio.sleep(1.2)  # longer than the first report waits for its answer
        finally:
            server.thaw()

        async def done() -> bool:
            return "done" in [entry.state for entry in await beat.jobs.ledger("work")]

        await eventually(done, "the outcome arrives")


async def test_an_outcome_is_reported_when_the_store_lets_us_in_again(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that is changed on both sides, on one a moment later: each try is refused at once."""
    finish, tries, complete = asyncio.Event(), [], Tasks.complete

    async def counted(self: Tasks, task: Task, result: Any = None) -> bool:
        tries.append(task.id)
        return await complete(self, task, result)

    monkeypatch.setattr(Tasks, "complete", counted)
    async with proxy(server.port) as store, Lockbeat(server.url, namespace=namespace) as lb:
        beat = Beat(store.url, namespace=namespace, timeout=1, grace=1)

        @beat.task(lease=60)
        async def work() -> None:
            await finish.wait()

        async with beat.lifespan():
            task_id = (await lb.tasks.spawn("work", max_attempts=1)).task_id

            async def in_state(state: str) -> bool:
                return (await lb.tasks.get(task_id)).state == state

            await eventually(lambda: in_state("running"), "it runs")
            await store.become("wrong password")
            finish.set()
            await wait_until(lambda: len(tries) > 7, "it was refused more often than an outage makes for")
            await store.listen()
            await eventually(lambda: in_state("done"), "the outcome arrives")


async def test_shutdown_while_the_store_is_away_is_bounded(server: Server, namespace: str) -> None:
    beat = Beat(server.url, namespace=namespace, timeout=1, grace=0.2)
    slots = declare(beat)
    serving = asyncio.create_task(beat.serve())
    await wait_until(lambda: slots, "it runs")
    server.freeze()
    try:
        serving.cancel()
        await asyncio.wait([serving], timeout=30)
        assert serving.cancelled()
    finally:
        server.thaw()


async def test_an_emptied_store_is_noticed_before_the_next_slot(
    lb: Lockbeat, raw: Any, backend: Backend, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daily job must be there again long before it is due."""
    monkeypatch.setattr(serving_module, "HEARTBEAT", 0.1)
    beat = beats()
    for number in range(9):  # on every shard

        @beat.every(86_400, name=f"daily-{number}")
        async def daily() -> None: ...

    async def complete() -> bool:
        return len(await lb.jobs.list()) == 9

    async with beat.lifespan():
        assert await complete()
        for client in backend.nodes():
            client.flushall()
        assert not await complete()
        await eventually(complete, "they are back")
        states_now = await lb.jobs.list()
        assert all(state.next is not None and state.next.slot_ms > 0 for state in states_now)
        for state in states_now:
            [entry] = await ledger(lb, state.job.name)
            assert entry.state == "missed"
            assert entry.reason == "unknown: the store was emptied in this time"


async def test_after_flushall_slots_begin_after_now(lb: Lockbeat, raw: Any, backend: Backend) -> None:
    """Whatever an instance remembers: another may have fired the one before."""
    job = minutely()
    beat = scheduler(lb, job)
    await beat.register()
    shard = lb.jobs.shard_of("report")
    await beat.tick(shard)
    before = await now_ms(lb)
    for client in backend.nodes():
        client.flushall()
    assert await beat.tick(shard) == 0
    again = await beat.tick(shard)
    assert again is not None
    assert again <= 60
    assert beat.fired == 0
    state, now = await lb.jobs.get("report"), await now_ms(lb)
    assert state.next is not None
    assert before < state.next.slot_ms <= now + 60_000
    [entry] = await ledger(lb, "report")
    assert entry.last_ms is not None
    assert entry.slot_ms <= before + 1
    assert entry.last_ms <= now


async def test_a_job_that_was_running_when_the_store_was_emptied_is_cancelled(
    lb: Lockbeat, backend: Backend, beats: Beats
) -> None:
    beat, events = beats(), []

    @beat.every(60, lease=0.5)
    async def long() -> None:
        events.append("began")
        try:
            await asyncio.sleep(30)
        finally:
            events.append("cancelled")

    async with beat.lifespan():
        client = backend.client()
        await backdate(lb, client, "long", (await now_ms(lb)) // 60_000 * 60_000)
        await lb.store.call(
            "job/put",
            lb.jobs.shard_of("x"),
            job="x",
            rev="1.1",
            definition="{}",
            slot=-1,
            due=-1,
            since=0,
            keep="1",
            rules="-",
            reads=1,
            limit=0,
            version="",
            by="somebody",
        )  # rings the bell
        for shard in range(lb.store.shards):
            client.publish(lb.store.bell(shard), "job")
        await wait_until(lambda: events, "it runs")
        for node in backend.nodes():
            node.flushall()
        await wait_until(lambda: "cancelled" in events, "its lease is gone, and so it is cancelled")


async def test_one_jobs_broken_trigger_does_not_stop_the_others(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lockbeat.jobs import Job, plan

    good, bad = minutely("good"), minutely("bad")
    await lb.jobs.put(good, bad)
    for name in ("good", "bad"):
        await backdate(lb, raw, name, await last_slot(lb, await lb.jobs.get(name)))
    real = plan.of

    def plan_of(job: Job, slot_ms: int, now: int) -> Any:
        if job.name == "bad":
            raise RuntimeError("no idea")
        return real(job, slot_ms, now)

    monkeypatch.setattr(plan, "of", plan_of)
    caplog.set_level(logging.ERROR, logger="lockbeat")
    beat = scheduler(lb, good, bad)
    for shard in range(lb.store.shards):
        await beat.tick(shard)
    assert await states(lb, "good") == ["fired"]
    assert await states(lb, "bad") == []
    assert "of job 'bad'" in caplog.text
    assert len(tasks_of(raw, lb)) == 1
