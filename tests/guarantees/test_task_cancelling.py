"""A task that somebody cancels ends at once; its body is told, and nothing starts beside it before it has stopped."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from lockbeat import LeaseLost, Lockbeat, Run
from lockbeat.worker import Worker
from lockbeat.worker import worker as worker_module
from tests.beats import Beats, client_of, eventually, held_by, ledger
from tests.conftest import only, wait_until
from tests.keeping import hurry
from tests.tasks import end_of, is_leased, no_lease, state, until_cancelled


async def test_cancelling_a_waiting_task_ends_it_before_it_began(lb: Lockbeat, beats: Beats) -> None:
    beat, ran = beats(), []

    @beat.task
    async def job(run: Run) -> None:
        ran.append(run.params)

    ready, delayed = await lb.tasks.spawn("job", "ready"), await lb.tasks.spawn("job", "delayed", delay=0.2)
    assert await lb.tasks.cancel(ready.task_id)
    assert await lb.tasks.cancel(delayed.task_id)
    async with beat.lifespan():
        await end_of(lb, (await beat.spawn(job, "after", delay=0.3)).task_id)
    assert ran == ["after"]
    assert await state(lb, ready.task_id) == await state(lb, delayed.task_id) == "cancelled"


async def test_a_running_body_is_cancelled_by_the_notification_long_before_its_next_renewal(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would come after 20 minutes; and the lease goes as soon as the body has stopped, not before."""
    monkeypatch.setattr(worker_module, "CLAIM_LEASE_MS", 3_600_000)
    beat, events, go = beats(owner="me"), [], asyncio.Event()

    @beat.task
    async def long() -> None:
        events.append("began")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("cancelled")
            await go.wait()
            events.append("stopped")
            raise

    async with beat.lifespan():
        task_id = (await beat.spawn(long)).task_id
        await wait_until(lambda: events, "it runs")
        assert await lb.tasks.cancel(task_id)
        await wait_until(lambda: "cancelled" in events, "it is cancelled")
        assert await state(lb, task_id) == "cancelled"
        assert await is_leased(lb, raw, task_id), "its body has not stopped yet"
        go.set()
        await no_lease(lb, raw, task_id)
        assert events == ["began", "cancelled", "stopped"]
        assert held_by(raw, lb.store, "me") == []
    info = await lb.tasks.get(task_id)
    assert (info.state, info.attempts, info.result) == ("cancelled", 1, None)


async def test_a_body_whose_notification_was_lost_is_cancelled_at_the_next_renewal(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "_cancel", lambda self, task_id: None)
    beat, events = beats(), list[str]()
    long = beat.task(until_cancelled(events))
    async with beat.lifespan():
        task_id = (await beat.spawn(long)).task_id
        await wait_until(lambda: events, "it runs")
        assert await lb.tasks.cancel(task_id)
        hurry(client_of(beat))
        await wait_until(lambda: "cancelled" in events, "it is cancelled")
        await no_lease(lb, raw, task_id)
    assert await state(lb, task_id) == "cancelled"


@only("valkey", "redis")
async def test_a_body_is_cancelled_though_the_server_hung_up_on_who_listens(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, events = beats(), []

    @beat.task
    async def long(run: Run) -> None:
        events.append(f"began {run.params}")
        try:
            await asyncio.sleep(60)
        finally:
            events.append(f"cancelled {run.params}")

    async with beat.lifespan():
        for turn in range(3):
            task_id = (await beat.spawn(long, turn)).task_id
            await wait_until(lambda turn=turn: f"began {turn}" in events, "it runs")  # type: ignore[misc]
            raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            assert await lb.tasks.cancel(task_id)
            hurry(client_of(beat))
            await wait_until(lambda turn=turn: f"cancelled {turn}" in events, "it is cancelled")  # type: ignore[misc]


@pytest.mark.parametrize("heard", [True, False], ids=["told", "by renewal"])
async def test_a_plain_function_sees_by_heartbeat_that_it_was_cancelled(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, heard: bool
) -> None:
    if not heard:
        monkeypatch.setattr(Worker, "_cancel", lambda self, task_id: None)
    beat, began, reasons = beats(), threading.Event(), []

    @beat.task
    def long(run: Run) -> None:
        run.heartbeat()
        began.set()
        try:
            while True:
                run.heartbeat()
                time.sleep(0.005)
        except LeaseLost as lost:
            reasons.append(lost.reason)
            raise

    async with beat.lifespan():
        task_id = (await beat.spawn(long)).task_id
        await wait_until(began.is_set, "it runs")
        assert await lb.tasks.cancel(task_id)
        hurry(client_of(beat))
        await wait_until(lambda: reasons, "it sees that it is to stop")
        await no_lease(lb, raw, task_id)
    assert reasons == ["it was cancelled"]
    assert await state(lb, task_id) == "cancelled"
    assert "never retrieved" not in caplog.text


async def test_a_cancelled_body_that_ends_well_all_the_same_stays_cancelled(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat, began = beats(), asyncio.Event()

    @beat.task
    async def stubborn() -> str:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return "done all the same"

    async with beat.lifespan():
        task_id = (await beat.spawn(stubborn)).task_id
        await asyncio.wait_for(began.wait(), 30)
        assert await lb.tasks.cancel(task_id)
        await no_lease(lb, raw, task_id)
    info = await lb.tasks.get(task_id)
    assert (info.state, info.result) == ("cancelled", None)


async def test_a_cancelled_task_is_not_tried_again(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat, attempts = beats(), []

    @beat.task(max_attempts=5, retry=None)
    async def long(run: Run) -> None:
        attempts.append(run.attempt)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("on the way out") from None

    @beat.task
    async def other() -> None: ...

    async with beat.lifespan():
        task_id = (await beat.spawn(long)).task_id
        await wait_until(lambda: attempts, "it runs")
        assert await lb.tasks.cancel(task_id)
        await no_lease(lb, raw, task_id)
        await end_of(lb, (await beat.spawn(other)).task_id)
    assert attempts == [1]
    assert await state(lb, task_id) == "cancelled"


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_no_slot_starts_beside_the_cancelled_body_of_the_one_before(lb: Lockbeat, beats: Beats, kind: str) -> None:
    """Under overlap skip: the job's lock goes when the body has stopped."""
    beat, running, most = beats(), [], []
    slots: list[str] = []
    stop = threading.Event()

    if kind == "async":

        @beat.every(0.2, name="job")
        async def job(run: Run) -> None:
            slots.append(run.task_id)
            running.append(1)
            most.append(len(running))
            try:
                await asyncio.sleep(60 if len(slots) == 1 else 0)
            finally:
                while not stop.is_set():
                    await asyncio.sleep(0.01)
                running.pop()

    else:

        @beat.every(0.2, name="job")
        def plain(run: Run) -> None:
            slots.append(run.task_id)
            running.append(1)
            most.append(len(running))
            stop.wait(30)
            running.pop()

    async def skipped() -> bool:
        later = [entry.state for entry in await ledger(lb, "job") if entry.task_id != first]
        return later.count("skipped") >= 2

    async with beat.lifespan():
        await wait_until(lambda: slots, "the first runs")
        first = slots[0]
        assert await lb.tasks.cancel(first)
        await eventually(skipped, "later slots came while it was stopping")
        assert slots == [first]
        stop.set()
        await wait_until(lambda: len(slots) > 1, "another follows")
    assert set(most) == {1}
    found = {entry.task_id: entry.state for entry in await ledger(lb, "job")}
    assert found[first] == "cancelled"
