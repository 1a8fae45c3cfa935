"""What ends a body, or a task, when its time is over: a timeout, max_delay, max_duration."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from lockbeat import Fixed, LeaseLost, Lockbeat, Run
from lockbeat.worker import worker as worker_module
from tests.beats import Beats
from tests.conftest import wait_until
from tests.tasks import end_of, no_lease, until, until_cancelled


async def test_an_attempt_that_times_out_is_cancelled_and_tried_again(lb: Lockbeat, beats: Beats) -> None:
    beat, cancelled = beats(), []

    @beat.task(timeout=0.1, max_attempts=2, retry=None)
    async def slow(run: Run) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(run.attempt)
            raise

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(slow)).task_id)
    assert cancelled == [1, 2]
    assert info.state == "dead"
    assert info.failure is not None
    assert (info.failure.type, info.failure.message) == ("TimedOut", "timed out after 100 ms")


async def test_a_plain_function_learns_of_its_time_out_by_heartbeat(
    lb: Lockbeat, beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    beat, reasons = beats(), []

    @beat.task(timeout=0.1, max_attempts=1)
    def slow(run: Run) -> None:
        try:
            while True:
                run.heartbeat()
                time.sleep(0.01)
        except LeaseLost as lost:
            reasons.append((lost.key, lost.owner, lost.fence, lost.reason))
            raise

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(slow)).task_id)
    assert info.failure is not None
    assert info.failure.type == "TimedOut"
    assert reasons == [(info.id, info.owner, info.fence, "timed out")]
    assert "never retrieved" not in caplog.text


async def test_a_task_that_nobody_began_in_time_is_cancelled_and_never_runs(lb: Lockbeat, beats: Beats) -> None:
    beat, ran = beats(), []

    @beat.task
    async def job(run: Run) -> None:
        ran.append(run.params)

    late = await lb.tasks.spawn("job", "late", max_delay=0.05)
    fine = await lb.tasks.spawn("job", "fine", max_delay=60)
    await until(lb, await lb.store.server_time() + 0.06)
    async with beat.lifespan():
        info = await end_of(lb, late.task_id)
        await end_of(lb, fine.task_id)
    assert ran == ["fine"]
    assert (info.state, info.attempts) == ("cancelled", 0)
    assert info.failure is not None
    assert info.failure.message == "max_delay: nobody began it in time"


async def test_max_delay_passes_while_the_only_place_is_taken(lb: Lockbeat, beats: Beats) -> None:
    beat, ran, go = beats(concurrency=1), [], asyncio.Event()

    @beat.task
    async def job(run: Run) -> None:
        ran.append(run.params)
        await go.wait()

    async with beat.lifespan():
        await beat.spawn(job, "first")
        await wait_until(lambda: ran, "the place is taken")
        spawned = await beat.spawn(job, "second", max_delay=0.1)
        await until(lb, await lb.store.server_time() + 0.15)
        go.set()
        assert (await end_of(lb, spawned.task_id)).state == "cancelled"
    assert ran == ["first"]


@pytest.mark.parametrize(("limit", "ends"), [({"max_delay": 0.5}, ("cancelled", [])), ({"max_duration": 0.5}, ("done", [1]))])
async def test_limits_count_from_when_a_body_begins_not_from_when_somebody_looked(
    lb: Lockbeat, beats: Beats, limit: Any, ends: tuple[str, list[int]]
) -> None:
    """An instance without the function claims it, and gives it back untouched."""
    old, new, ran = beats(), beats(), list[int]()

    @new.task
    async def fresh() -> None:
        ran.append(1)

    async with old.lifespan():
        spawned = await lb.tasks.spawn("fresh", **limit)
        await until(lb, await lb.store.server_time() + 0.6)
    async with new.lifespan():
        info = await end_of(lb, spawned.task_id)
    assert (info.state, ran) == ends


@pytest.mark.parametrize("concurrency", [1, 10])
async def test_a_body_is_cancelled_when_max_duration_is_over(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    """Also while the worker has no room, and so asks for no other task; its next renewal would come after 20 minutes."""
    monkeypatch.setattr(worker_module, "CLAIM_LEASE_MS", 3_600_000)
    beat, events = beats(concurrency=concurrency), list[str]()
    long = beat.task(max_duration=0.4)(until_cancelled(events))

    @beat.task
    async def short() -> str:
        return "its place is free"

    async with beat.lifespan():
        spawned = await beat.spawn(long)
        info = await end_of(lb, spawned.task_id)
        await wait_until(lambda: "cancelled" in events, "its body is cancelled")
        await no_lease(lb, raw, spawned.task_id)
        assert (await end_of(lb, (await beat.spawn(short)).task_id)).state == "done"
    assert events == ["began", "cancelled"]
    assert (info.state, info.attempts) == ("cancelled", 1)
    assert info.failure is not None
    assert info.failure.message == "max_duration: it had not ended in time"
    assert info.ended_at is not None
    assert info.started_at is not None
    assert round((info.ended_at - info.started_at) * 1000) >= 400


async def test_max_duration_counts_from_the_first_attempt(lb: Lockbeat, beats: Beats) -> None:
    beat, began = beats(), []

    @beat.task(max_duration=0.5, retry=None, max_attempts=1000)
    async def flaky(run: Run) -> None:
        began.append(run.attempt)
        await asyncio.sleep(0.15)
        raise ValueError

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(flaky)).task_id)
    assert info.state == "cancelled"
    assert began == [*range(1, len(began) + 1)]
    assert len(began) <= 4, "none began after half a second"


async def test_a_retry_that_would_come_after_max_duration_ends_it_at_once(lb: Lockbeat, beats: Beats) -> None:
    beat = beats()

    @beat.task(max_duration=30, retry=Fixed(60))
    async def flaky() -> None:
        raise ValueError

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(flaky)).task_id)
    assert (info.state, info.attempts) == ("cancelled", 1)
