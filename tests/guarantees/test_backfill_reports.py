"""What users of other schedulers reported of their backfills."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.jobs import backfiller
from tests.backfills import Filler, at, claimed, hours
from tests.beats import backdate, minutely, scheduler, states
from tests.conftest import only

here_and_there = only("memory", "valkey")


@here_and_there
async def test_airflow_47886_a_backfill_does_not_move_where_the_job_stands(lb: Lockbeat, raw: Any) -> None:
    slots = await hours(lb, 5)
    key, shard = lb.store.keys.key, lb.jobs.shard_of("report")
    before = raw.hget(key(shard, "job:slot"), "report"), raw.zscore(key(shard, "job:due"), "report")
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    await Filler(lb).go_on()
    assert (raw.hget(key(shard, "job:slot"), "report"), raw.zscore(key(shard, "job:due"), "report")) == before


@here_and_there
async def test_airflow_1266_and_temporal_5213_neither_a_slot_more_nor_one_less_than_asked_for(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 9), Filler(lb)
    await lb.jobs.backfill("report", at(slots[2]), at(slots[5]))
    await filler.go_on()
    assert filler.ran == slots[2:5], "from the first on, and before the end"


@here_and_there
async def test_airflow_38954_a_slot_that_takes_long_holds_up_no_others_under_allow(
    lb: Lockbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfiller, "AT_ONCE", 3)
    slots, filler = await hours(lb, 9, minutely(overlap="allow")), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    [long, *others] = sorted(await filler.turn(), key=lambda task: task.slot_ms)
    for task in others:
        await lb.tasks.complete(task)
    found = await filler.go_on()
    assert (found.done, found.running, found.left) == (8, 1, 0)
    await lb.tasks.complete(long)
    assert (await filler.go_on()).state == "done"


@here_and_there
async def test_airflow_72337_what_a_cancelled_backfill_fired_can_be_retried(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 5), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    [task] = await filler.turn()
    await lb.jobs.cancel_backfill("report")
    await lb.tasks.fail(task, "broken")
    assert (await filler.go_on()).failed == 1
    assert await lb.tasks.retry(task.id)
    [again] = await filler.turn()
    assert again.id == task.id
    assert await lb.tasks.complete(again)
    assert await states(lb, "report") == ["done"]


@here_and_there
async def test_airflow_570_what_ends_in_any_way_holds_nothing_up(lb: Lockbeat, raw: Any) -> None:
    """Cancelled before it began, and its record deleted by hand."""
    slots, filler = await hours(lb, 4, minutely(overlap="allow")), Filler(lb)
    shard = lb.jobs.shard_of("report")
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    await filler.filler.tick(shard)
    assert await lb.tasks.cancel(f"report@{slots[0]}")
    deleted, *others = await claimed(lb)
    raw.hdel(lb.store.keys.key(shard, "task"), deleted.id)
    for task in others:
        await lb.tasks.complete(task)
    found = await filler.go_on()
    assert (found.state, found.cancelled, found.missed, found.done) == ("done", 1, 1, 2)


@here_and_there
async def test_airflow_72730_slots_that_come_due_again_and_again_do_not_starve_it(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    slots, filler, beat = await hours(lb, 30, job), Filler(lb), scheduler(lb, job)
    shard = lb.jobs.shard_of("report")
    await lb.jobs.backfill("report", at(slots[0]), at(slots[5]))
    for slot in slots[10:]:
        await backdate(lb, raw, "report", slot)
        await beat.tick(shard)
        for task in await filler.turn():
            filler.ran.append(task.slot_ms)
            await lb.tasks.complete(task)
    assert set(filler.ran) >= {*slots[:5]}, "they take turns"


@here_and_there
async def test_kestra_13873_of_a_time_without_gaps_nothing_is_fired(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 4), Filler(lb)
    for _ in range(2):
        await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
        found = await filler.go_on()
    assert (found.fired, found.known, found.state) == (0, 4, "done")
    assert filler.ran == slots


# What people are told of it.
