"""Faults that users of other schedulers reported, each a test named so. Those that come with a pause: test_pauses.py."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat, Run
from lockbeat.jobs import Job
from lockbeat.triggers import Every
from tests.beats import Beats, eventually, ledger, now_ms, scheduler, states
from tests.conftest import Connect, only
from tests.guarantees.test_pauses import Fleet, at, done, told
from tests.tasks import NOON, stopped, until


async def test_bullmq_3063_a_job_that_is_removed_and_put_within_a_period_fires_again(lb: Lockbeat, connect: Connect) -> None:
    """bullmq #3063: a scheduler that was removed and added within one period never fired again."""
    job, shard = Job.declare("report", Every(1)), lb.jobs.shard_of("report")
    async with connect() as other:
        beats = [scheduler(lb, job), scheduler(other, job)]
        fired: list[int] = []
        for _ in range(3):
            await lb.jobs.put(job)
            assert await other.jobs.delete("report")
            await lb.jobs.put(job)
            coming = (await lb.jobs.get("report")).next
            assert coming is not None

            async def fires() -> bool:
                for beat in beats:
                    await beat.tick(shard)
                return bool(await ledger(lb, "report"))

            await eventually(fires, "it fires within its next period")
            fired += [entry.slot_ms for entry in await ledger(lb, "report")]
            assert fired[-1] >= coming.slot_ms
    assert len(set(fired)) == len(fired)


@only("memory", "valkey", "redis")
async def test_prefect_18894_no_slot_runs_twice_after_an_update(lb: Lockbeat, beats: Beats) -> None:
    """prefect #18894: after an update of a schedule its runs were doubled: those of before stood beside the new ones."""
    ran = Counter[tuple[str, Any]]()

    def instance(seconds: float, priority: int) -> Beat:
        beat = beats()

        @beat.every(seconds, name="report", priority=priority, overlap="allow")
        async def report(run: Run) -> None:
            ran[run.job or "", run.slot] += 1

        return beat

    async def fired(times: int) -> bool:
        return len(ran) >= times

    async with instance(0.5, 0).lifespan(), instance(0.25, 1).lifespan():
        for number, seconds in enumerate([0.5, 0.25, 0.25, 0.5]):
            before = len(ran)
            changed = Job.declare("report", Every(seconds), priority=number, overlap="allow")
            await lb.jobs.put_one(changed, if_rev=None, take_over=True)
            await eventually(lambda before=before: fired(before + 3), "it goes on")  # type: ignore[misc]
    assert set(ran.values()) == {1}
    entries = await ledger(lb, "report")
    assert len({entry.slot_ms for entry in entries}) == len(entries)


async def test_sidekiq_5116_a_change_keeps_the_history(lb: Lockbeat, raw: Any) -> None:
    """sidekiq #5116: a changed schedule began with an empty history."""
    job, shard = Job.declare("report", Every(0.2)), lb.jobs.shard_of("report")
    await lb.jobs.put(job)
    await lb.jobs.pause("report", "why not", by="anna")
    await lb.jobs.resume("report", by="anna")

    async def fired() -> bool:
        await scheduler(lb, job).tick(shard)
        for task in await lb.tasks.claim("default", "worker", 10):
            await lb.tasks.complete(task)
        return len(await states(lb, "report")) >= 3

    await eventually(fired, "it has a history")
    changed = dataclasses.replace(job, trigger=Every(86_400), overlap="allow", keep=50, queue="other", tags=("new",))
    before, counts, said = await ledger(lb, "report"), (await lb.jobs.get("report")).counts, await lb.jobs.changes("report")
    await lb.jobs.put(changed)
    await lb.jobs.put(dataclasses.replace(changed, priority=7))
    after = await ledger(lb, "report")
    assert after[: len(before)] == before
    assert [entry.code for entry in after[len(before) :]] in ([], ["trigger_changed"])
    found = await lb.jobs.get("report")
    assert (found.counts.fired, found.counts.done) == (counts.fired, counts.done)
    assert (await lb.jobs.changes("report"))[-len(said) :] == said


@only("memory")
@pytest.mark.parametrize(("overlap", "catchup", "runs"), [("allow", "latest", 1), ("skip", "latest", 1), ("allow", "all", 5)])
async def test_kestra_pr15116_what_was_missed_in_two_hours_floods_nothing(
    lb: Lockbeat, overlap: str, catchup: str, runs: int
) -> None:
    """kestra PR15116: what had not run for two hours was all run at once. Here as many are as the job says."""
    with stopped() as to:
        options: dict[str, Any] = {"cap": 5} if catchup == "all" else {}
        job = Job.declare("report", Every(1), overlap=overlap, catchup=catchup, **options)
        fleet = Fleet(lb, to, job)
        await fleet.declare()
        await fleet.until(2, 1)
        to(NOON + 7202)
        for _ in range(runs):
            await fleet.turn()
        assert fleet.ran[2:] == [*range(7203 - runs, 7203)]
        missed = ("missed", 3, 7202 - runs, -1, "no instance fired it before the next was due")
        assert await told(lb) == [*done(1, 2), missed, *done(*fleet.ran[2:])]


@only("memory")
async def test_dbos_803_after_a_laptops_sleep_no_tick_is_replayed(lb: Lockbeat) -> None:
    """dbos #803: a laptop that slept ran every tick of the night when it woke. All instances slept here."""
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(1), overlap="allow"), instances=3)
        await fleet.declare()
        await fleet.until(3, 1)
        to(NOON + 8 * 3600 + 0.5)
        await fleet.turn()
        assert fleet.ran == [1, 2, 3, 28_800]
        await fleet.until(28_802, 28_801)
        assert fleet.ran == [1, 2, 3, 28_800, 28_801, 28_802]
        [missed] = [entry for entry in await ledger(lb, "report") if entry.state == "missed"]
        assert (missed.slot, missed.last_slot, missed.count) == (at(4), at(28_799), -1)


@only("valkey", "redis")
async def test_dbos_803_on_a_real_server(lb: Lockbeat) -> None:
    job = Job.declare("report", Every(0.1), overlap="allow")
    await lb.jobs.put(job)
    beat = scheduler(lb, job)
    asleep_ms = await now_ms(lb)
    await until(lb, asleep_ms / 1000 + 2)
    await beat.tick(lb.jobs.shard_of("report"))
    assert beat.fired == 1
    missed, fired = await ledger(lb, "report")
    assert (missed.state, fired.state) == ("missed", "fired")
    assert missed.count is not None
    assert missed.count >= 18


@only("memory")
@pytest.mark.parametrize("periods", [2, 4, 400])
async def test_quartz_308_a_resume_runs_none_of_the_slots_of_the_pause(lb: Lockbeat, periods: int) -> None:
    """quartz #308, #939: a resume ran as many as had come due, or one that was misfired beside the next. None is to run but the
    next, and that once."""
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(5), overlap="allow"))
        await fleet.declare()
        await fleet.until(5, 5)
        await lb.jobs.pause("report", by="anna")
        to(NOON + 5 + 5 * periods + 1)
        resumed = await lb.jobs.resume("report", by="anna")
        assert resumed is not None
        assert resumed.skipped == periods
        await fleet.turn()
        assert fleet.ran == [5]
        coming = 10 + 5 * periods
        await fleet.until(coming, coming)
        assert fleet.ran == [5, coming]


@only("memory")
@pytest.mark.parametrize("change", [{"trigger": Every(7)}, {"queue": "other"}, {"overlap": "allow"}], ids=str)
async def test_apscheduler_170_a_paused_job_that_is_changed_stays_paused(lb: Lockbeat, change: dict[str, Any]) -> None:
    """apscheduler #170: to reschedule a paused job resumed it."""
    with stopped() as to:
        job = Job.declare("report", Every(10))
        fleet = Fleet(lb, to, job)
        await fleet.declare()
        await lb.jobs.pause("report", by="anna")
        await lb.jobs.put_one(dataclasses.replace(job, **change), if_rev=None, take_over=True)
        await fleet.until(30, 1)
        assert fleet.ran == []
        assert (await lb.jobs.get("report")).paused
