"""Promise 5: for a job and a slot at most one task ever exists; creating it and moving on is one script."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.jobs import scheduler as module
from tests.beats import Hands, eventually, last_slot, ledger, minutely, overdue, scheduler, tasks_of
from tests.conftest import Connect


async def test_schedulers_that_all_saw_the_slot_create_one_task(
    lb: Lockbeat, connect: Connect, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HIDE_MS", 0)  # nothing is hidden: all of them are told of it
    job = minutely()
    slot = await overdue(lb, raw, job)
    async with connect() as b, connect() as c:
        rivals = [scheduler(client, job) for client in (lb, b, c) for _ in range(3)]
        shard = lb.jobs.shard_of(job.name)
        await asyncio.gather(*(rival.tick(shard) for rival in rivals))
        assert sum(rival.fired for rival in rivals) == 1
    assert tasks_of(raw, lb) == [f"report@{slot}"]
    assert [(entry.slot_ms, entry.state) for entry in await ledger(lb, "report")] == [(slot, "fired")]


async def test_a_thousand_slots_in_a_race_are_fired_once_each(
    lb: Lockbeat, connect: Connect, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HIDE_MS", 0)
    jobs = [minutely(f"job-{number}", overlap="allow") for number in range(250)]
    await lb.jobs.put(*jobs)
    async with connect() as b, connect() as c:
        for half in (jobs[:125], jobs[125:]):
            for job in half:
                await overdue(lb, raw, job)
            rivals = [scheduler(client, *jobs) for client in (lb, b, c)]
            for shard in range(lb.store.shards):
                await asyncio.gather(*(rival.tick(shard) for rival in rivals))
            assert sum(rival.fired for rival in rivals) == 125
    assert len(tasks_of(raw, lb)) == len(set(tasks_of(raw, lb)))


async def test_the_task_and_the_next_slot_come_together(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    slot = await overdue(lb, raw, job)
    await scheduler(lb, job).tick(lb.jobs.shard_of(job.name))
    state = await lb.jobs.get("report")
    assert state.next is not None
    assert state.next.slot_ms == slot + 60_000
    assert tasks_of(raw, lb) == [f"report@{slot}"]


async def test_an_instance_that_dies_between_asking_and_firing_loses_nothing(lb: Lockbeat, connect: Connect, raw: Any) -> None:
    job = minutely()
    slot = await overdue(lb, raw, job)
    shard = lb.jobs.shard_of(job.name)
    async with connect() as doomed:
        reply = await doomed.store.call("beat/due", shard, limit=400, hide_ms=300, seen="")
        assert len(reply.jobs) == 2  # and that is the last of it
    other = scheduler(lb, job)

    async def fires() -> bool:
        again = await other.tick(shard)
        assert again is not None
        if not other.fired:
            assert again <= 0.3  # it is told when to look again
            await asyncio.sleep(again)
        return bool(other.fired)

    await eventually(fires, "the other fires it")
    assert tasks_of(raw, lb) == [f"report@{slot}"]


async def test_a_handful_is_hidden_from_the_others_for_a_moment(lb: Lockbeat, raw: Any) -> None:
    """So that instances share a burst; what decides is the comparison."""
    await overdue(lb, raw, minutely())
    shard = lb.jobs.shard_of("report")
    now, _, _, _, _, rows = await lb.store.call("beat/due", shard, limit=400, hide_ms=300, seen="")
    assert len(rows) == 2
    _, _, next_due, _, _, rows = await lb.store.call("beat/due", shard, limit=400, hide_ms=300, seen="")
    assert not rows
    assert 0 < next_due - now <= 310


async def test_a_slot_that_was_fired_is_not_fired_for_another_that_still_expects_it(lb: Lockbeat, raw: Any) -> None:
    job = minutely(overlap="allow")
    await overdue(lb, raw, job)
    shard = lb.jobs.shard_of("report")
    late = scheduler(lb, job)
    now, _, _, _, _, rows = await lb.store.call("beat/due", shard, limit=400, hide_ms=0, seen="")
    await scheduler(lb, job).tick(shard)
    before = await lb.jobs.get("report")
    await late._firing.fire(shard, now, rows)
    assert late.fired == 0
    assert await lb.jobs.get("report") == before
    assert len(tasks_of(raw, lb)) == 1


async def test_the_one_who_fires_starts_it_itself_when_it_has_room(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    slot = await overdue(lb, raw, job)
    hands = Hands("report")
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    [task] = hands.tasks
    assert (task.id, task.attempt, task.slot_ms, task.lock) == (f"report@{slot}", 1, slot, "job:report")
    [lease] = await lb.locks.list()
    assert (lease.key, lease.owner, lease.fence) == ("job:report", lb.owner, task.fence)
    [entry] = await ledger(lb, "report")
    assert (entry.fence, entry.by) == (task.fence, lb.owner)


async def test_what_it_has_no_room_for_waits_for_any_worker(lb: Lockbeat, connect: Connect, raw: Any) -> None:
    jobs = [minutely(f"job-{number}") for number in range(6)]
    for job in jobs:
        await overdue(lb, raw, job)
    hands = Hands(*(job.name for job in jobs), places=4)
    beat = scheduler(lb, *jobs, runner=hands)
    claimed = []
    async with connect() as other:
        for shard in range(lb.store.shards):
            await beat.tick(shard)
            claimed += (await other.tasks.claim_on(shard, ["default"], other.owner, 50, 5000))[0]
    assert len(hands.tasks) == 4
    assert len(claimed) == 2
    assert {task.name for task in (*hands.tasks, *claimed)} == {job.name for job in jobs}


async def test_a_slot_fires_once_though_the_job_is_declared_again(lb: Lockbeat, connect: Connect, raw: Any) -> None:
    job = minutely(overlap="allow")
    await overdue(lb, raw, job)
    shard = lb.jobs.shard_of("report")
    await scheduler(lb, job).tick(shard)
    async with connect() as restarted:
        beat = scheduler(restarted, job)
        await beat.register()
        again = await beat.tick(shard)
        assert beat.fired == 0
        assert again is not None
        assert again <= 60
    assert len(tasks_of(raw, lb)) == 1
    assert await last_slot(lb, await lb.jobs.get("report"))
