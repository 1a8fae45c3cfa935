"""What users of other schedulers have reported of deploys, each tried here under its name."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.jobs import Job
from lockbeat.triggers import ByHand, Every
from tests.beats import ledger, minutely, now_ms, states
from tests.deploys import Instance, came_due, gone
from tests.tasks import state as state_of


def hourly(name: str = "report", period: int = 3600, **options: Any) -> Job:
    return Job.declare(name, Every(period), **options)


async def test_sidekiq_cron_192_a_job_removed_from_the_code_is_fired_no_more(lb: Lockbeat, raw: Any) -> None:
    """Also sidekiq-cron #267 and #504, redbeat #11, django-celery-beat #248 and #706, celery-beatx #2, whenever #341."""
    old = await Instance(lb, hourly(), minutely("left")).start()
    new = await Instance(lb, hourly()).start()
    await gone(raw, lb, old, seconds=700)
    await new.sign()
    shard = lb.jobs.shard_of("left")
    assert raw.zscore(lb.store.keys.key(shard, "job:due"), "left") > await now_ms(lb) + 86_400_000 * 300, "nobody looks at it"
    assert (await lb.jobs.get("left")).next is None


async def test_redisbeat_17_when_the_last_job_is_removed_none_comes_back(lb: Lockbeat, raw: Any) -> None:
    old = await Instance(lb, hourly()).start()
    none = await Instance(lb).start()
    await none.tick()
    await none.sign()
    assert (await lb.jobs.get("report")).retired_at is None
    await gone(raw, lb, old, seconds=90_000)
    await none.sign()
    await none.tick()
    assert (await lb.jobs.get("report")).retired_at is not None


async def test_sidekiq_5035_a_period_changed_in_a_rolling_restart_holds_at_once_and_for_good(lb: Lockbeat, raw: Any) -> None:
    old = await Instance(lb, hourly(period=300)).start()
    new = await Instance(lb, hourly(period=60)).start()
    for instance in (old, new, old):
        again = await Instance(lb, *instance.jobs).start()
    slot = await came_due(lb, raw, hourly(period=60))
    await again.tick()
    state = await lb.jobs.get("report")
    assert again.scheduler.fired == 1
    assert state.next is not None
    assert state.next.slot_ms == slot + 60_000


async def test_prefect_17764_what_waits_for_a_worker_waits_on_through_a_deploy(lb: Lockbeat, raw: Any) -> None:
    old = await Instance(lb, job := minutely()).start()
    slot = await came_due(lb, raw, job)
    await old.tick()
    assert await states(lb, "report") == ["fired"]
    await Instance(lb, hourly()).start()
    assert await state_of(lb, f"report@{slot}") == "waiting"
    assert await states(lb, "report") == ["fired"]


async def test_prefect_23097_a_job_whose_trigger_is_removed_has_no_slots_and_can_be_triggered(lb: Lockbeat) -> None:
    await Instance(lb, minutely()).start()
    await Instance(lb, Job.declare("report", ByHand())).start()
    assert (await lb.jobs.get("report")).next is None
    assert await lb.jobs.next("report") == []
    assert (await lb.jobs.trigger("report")).created


async def test_bull_856_a_changed_schedule_takes_the_place_of_the_one_before(lb: Lockbeat) -> None:
    """Also bull #1701, bullmq #1709 and #453: the old schedule went on beside the new one."""
    for period in (3600, 60, 90):
        for _ in range(2):
            await Instance(lb, hourly(period=period)).start()
    [state] = await lb.jobs.list()
    assert str(state.job.trigger) == "every 1m30s"


async def test_apscheduler_341_an_instance_without_a_jobs_function_or_with_older_code_removes_nothing(lb: Lockbeat) -> None:
    """Also apscheduler #99: listing the jobs deleted those whose function was not there."""
    await Instance(lb, hourly("a"), hourly("b")).start()
    other = await Instance(lb, hourly("c")).start()
    for _ in range(3):
        await other.sign()
        await other.tick()
    assert [state.job.name for state in await lb.jobs.list()] == ["a", "b", "c"]


async def test_sidekiq_5116_a_changed_trigger_keeps_the_ledger(lb: Lockbeat, raw: Any) -> None:
    old = await Instance(lb, job := minutely(overlap="allow")).start()
    slot = await came_due(lb, raw, job)
    await old.tick()
    await Instance(lb, hourly(period=90, overlap="allow")).start()
    assert [(entry.slot_ms, entry.state) for entry in await ledger(lb, "report")] == [(slot, "fired")]
    assert (await lb.jobs.get("report")).counts.fired == 1


@pytest.mark.parametrize("declared", [True, False])
async def test_bullmq_3063_what_is_removed_and_declared_again_within_a_period_fires_on(
    lb: Lockbeat, raw: Any, declared: bool
) -> None:
    """By a rollback of the code, and by a person who deletes it."""
    left = minutely("left", overlap="allow")
    old = await Instance(lb, hourly(), left).start()
    if declared:
        new = await Instance(lb, hourly()).start()
        await gone(raw, lb, old, seconds=700)
        await new.sign()
        assert (await lb.jobs.get("left")).retired_at is not None
    else:
        await lb.jobs.delete("left")
    back = await Instance(lb, hourly(), left).start()
    slot = await came_due(lb, raw, left)
    await back.tick()
    state = await lb.jobs.get("left")
    assert back.scheduler.fired == 1
    assert state.next is not None
    assert state.next.slot_ms == slot + 60_000


async def test_prefect_18822_a_deploy_neither_ends_nor_begins_a_pause(lb: Lockbeat) -> None:
    await Instance(lb, hourly(), hourly("other")).start()
    await lb.jobs.pause("report", by="ann")
    await Instance(lb, hourly(period=60), hourly("other", 60)).start()
    assert [(state.job.name, state.paused is not None) for state in await lb.jobs.list()] == [("other", False), ("report", True)]
