"""Promise 4: the server's clock decides. An instance whose own is an hour off fires nothing twice and nothing early."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import time_machine

from lockbeat import Lockbeat
from lockbeat.jobs import plan
from tests.beats import ledger, minutely, now_ms, overdue, scheduler, shot, tasks_of
from tests.conftest import Connect, only


async def test_fire_refuses_a_slot_that_is_not_due(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    await lb.jobs.put(job)
    before = await lb.jobs.get("report")
    assert before.next is not None
    slot = before.next.slot_ms
    expected = f"{slot} {slot} {job.rev}"
    row = shot(lb, job, slot, expected=expected, next=f"{slot + 60_000} {slot + 60_000} {job.rev}")
    assert (await lb.store.call_row(row, lb.jobs.shard_of("report"))).fired == 0
    assert await lb.jobs.get("report") == before
    assert tasks_of(raw, lb) == []
    assert await ledger(lb, "report") == []


@only("valkey", "redis", "cluster")  # memory's server has this process's clock
@pytest.mark.parametrize("hours", [1, -1, 24 * 400])
async def test_an_instance_with_a_wrong_clock_fires_what_is_due_and_nothing_else(
    lb: Lockbeat, connect: Connect, raw: Any, hours: int
) -> None:
    due, later = minutely("due"), minutely("later")
    slot = await overdue(lb, raw, due)
    await lb.jobs.put(later)
    real = await now_ms(lb)
    with time_machine.travel(time.time() + hours * 3600, tick=True):
        async with connect() as wrong:
            beat = scheduler(wrong, due, later)
            await beat.register()
            for shard in range(lb.store.shards):
                again = await beat.tick(shard)
                assert again is None or again <= 60
            assert beat.fired == 1
    assert tasks_of(raw, lb) == [f"due@{slot}"]
    for name in ("due", "later"):
        state = await lb.jobs.get(name)
        assert state.next is not None
        assert real - 60_000 < state.next.slot_ms <= real + 120_000


@only("valkey", "redis")
async def test_a_job_first_declared_by_a_wrong_clock_begins_at_the_servers_next_slot(lb: Lockbeat) -> None:
    with time_machine.travel(time.time() - 3600, tick=True):
        await lb.jobs.put(minutely())
    state, now = await lb.jobs.get("report"), await now_ms(lb)
    assert state.next is not None
    assert now - 1000 < state.next.slot_ms <= now + 60_000


@only("memory")
async def test_nothing_fires_a_millisecond_early(lb: Lockbeat, raw: Any) -> None:
    noon = 1_767_268_800.0
    with time_machine.travel(noon + 1, tick=False) as clock:
        beat = scheduler(lb, job := minutely(jitter=20))
        await beat.register()
        state = await lb.jobs.get("report")
        assert state.next is not None
        due = state.next.due_ms
        assert state.next.slot_ms == (noon + 60) * 1000
        assert due == plan.due(job, state.next.slot_ms, state.next.slot_ms + 60_000)
        move_to: Callable[[float], None] = clock.move_to
        move_to((due - 1) / 1000)
        again = await beat.tick(0)
        assert beat.fired == 0
        assert again == pytest.approx(0.001, abs=0.001)
        move_to(due / 1000)
        await beat.tick(0)
        assert beat.fired == 1
    assert len(tasks_of(raw, lb)) == 1
