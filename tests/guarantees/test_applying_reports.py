"""What users of other schedulers report about jobs made at run time, tried here."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from lockbeat import Every, Job, Lockbeat
from lockbeat.errors import Conflict
from tests.beats import Beats, Hands, ledger, minutely, overdue, scheduler
from tests.conftest import Connect, only, wait_until
from tests.tasks import NOON, stopped

NOON_MS = round(NOON * 1000)


async def test_sidekiq_cron_pr405_redisbeat_5_a_program_that_starts_leaves_jobs_of_run_time(lb: Lockbeat) -> None:
    """They were gone, or reset, after every restart."""
    put = await lb.jobs.put("theirs", Every(3600), function="send", params=7)
    for _ in range(2):
        await scheduler(lb, minutely("mine")).register()
    state = await lb.jobs.get("theirs")
    assert (state.job, state.rev) == (put.job, put.rev)


async def test_django_celery_beat_153_code_does_not_undo_at_each_start_what_a_person_changed(lb: Lockbeat) -> None:
    beat = scheduler(lb, minutely())
    await beat.register()
    changed = await lb.jobs.put("report", Every(120), take_over=True)
    await beat.register()
    assert (await lb.jobs.get("report")).rev == changed.rev


@only("memory")
async def test_bullmq_2940_3095_each_change_of_the_params_is_what_the_next_slot_runs_with(lb: Lockbeat) -> None:
    """The second change and those after it did not reach the runs. solid_queue #738: nor did any before a restart."""
    with stopped() as go_to:
        hands = Hands("report")
        beat = scheduler(lb, runner=hands)
        for n in range(4):
            await lb.jobs.put("report", Every(10), params=n, overlap="allow")
            go_to(NOON + 10 * (n + 1))
            await beat.tick(0)
    assert [(task.slot_ms - NOON_MS, task.params) for task in hands.tasks] == [(10_000 * (n + 1), n) for n in range(4)]


@only("memory")
async def test_redbeat_221_a_job_whose_trigger_was_changed_runs_by_the_new_one(lb: Lockbeat) -> None:
    with stopped() as go_to:
        beat = scheduler(lb)
        await lb.jobs.put("report", Every(3600), function="send")
        await lb.jobs.put("report", Every(60), function="send")
        go_to(NOON + 60)
        await beat.tick(0)
        assert beat.fired == 1


async def test_temporal_sdk_go_2233_an_update_by_a_stale_read_is_refused_and_says_so(lb: Lockbeat, connect: Connect) -> None:
    await lb.jobs.put("report", Every(3600))
    async with connect() as other:
        mine, theirs = await lb.jobs.get("report"), await other.jobs.get("report")
        await other.jobs.put(dataclasses.replace(theirs.job, priority=1), if_rev=theirs.rev)
        with pytest.raises(Conflict):
            await lb.jobs.put(dataclasses.replace(mine.job, keep=7), if_rev=mine.rev)
    job = (await lb.jobs.get("report")).job
    assert (job.priority, job.keep) == (1, 100)


async def test_temporal_pr11425_an_update_by_an_older_read_does_not_end_a_pause(lb: Lockbeat) -> None:
    await lb.jobs.put("report", Every(3600))
    before = await lb.jobs.get("report")
    await lb.jobs.pause("report", "the printer burns", by="anna")
    for job in (dataclasses.replace(before.job, priority=1), Job.declare("report", Every(60))):
        await lb.jobs.put(job, if_rev=(await lb.jobs.get("report")).rev)
        paused = (await lb.jobs.get("report")).paused
        assert paused is not None
        assert paused.reason == "the printer burns"


async def test_dbos_java_449_many_who_apply_the_same_set_at_once_leave_slots_pauses_and_ledgers(
    lb: Lockbeat, raw: Any, connect: Connect
) -> None:
    """An apply that deletes and inserts forgets what ran."""
    await overdue(lb, raw, minutely(origin="billing"))
    await scheduler(lb).tick(lb.jobs.shard_of("report"))
    await lb.jobs.put(minutely("paused", origin="billing"))
    await lb.jobs.pause("paused", by="anna")
    before = await lb.jobs.list()
    assert len(await ledger(lb, "report")) == 1
    async with connect() as other:
        wanted = [minutely(), minutely("paused"), minutely("new")]
        await asyncio.gather(*(client.jobs.apply(wanted, origin="billing", prune=True) for client in (lb, other) * 4))
    after = {state.job.name: state for state in await lb.jobs.list()}
    assert [after.pop(state.job.name) for state in before] == before
    assert [*after] == ["new"]
    assert len(await ledger(lb, "report")) == 1


@only("memory", "valkey")
async def test_celery_pr5065_params_that_a_run_changes_are_not_the_next_ones(beats: Beats) -> None:
    seen: list[Any] = []
    beat = beats()

    @beat.every(1, params={"to": ["ann"]}, overlap="allow")
    async def mail(run: Any) -> None:
        seen.append([*run.params["to"]])
        run.params["to"].append("bob")

    async with beat.lifespan():
        await wait_until(lambda: len(seen) >= 3, "it has run three times")
    assert seen[:3] == [["ann"]] * 3


async def test_procrastinate_436_apscheduler_720_one_function_with_other_params_is_another_job_and_one_name_is_one(
    lb: Lockbeat,
) -> None:
    for _ in range(2):
        for n in range(3):
            await lb.jobs.put(f"foo {n}", Every(60), function="foo", params={"a": n})
    assert [state.job.params for state in await lb.jobs.list()] == [{"a": 0}, {"a": 1}, {"a": 2}]


@only("memory")
async def test_bullmq_2876_a_program_that_puts_its_jobs_again_and_again_doubles_no_slot(lb: Lockbeat) -> None:
    """A crash loop did so, while workers ran."""
    with stopped() as go_to:
        beats = [scheduler(lb) for _ in range(2)]
        for step in range(60):
            go_to(NOON + step)
            await asyncio.gather(*(lb.jobs.put("report", Every(10), params=step % 2, overlap="allow") for _ in beats))
            await asyncio.gather(*(beat.tick(0) for beat in beats))
        entries = await ledger(lb, "report")
    assert [entry.slot_ms for entry in entries] == [NOON_MS + 1000 * at for at in range(10, 60, 10)]
