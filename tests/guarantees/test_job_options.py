"""What a job says of its slots and of itself holds in the store, too: AnyOf, start and end, H, gap and fold, tags."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from lockbeat import AnyOf, At, Beat, Cron, Every, Lockbeat
from lockbeat.jobs import Job
from lockbeat.triggers import Between
from tests.beats import Hands, backdate, ledger, now_ms, overdue, scheduler
from tests.conftest import only


async def this_minute(lb: Lockbeat) -> datetime:
    """The minute that has begun: of what has a slot now, the next one is far enough away for a test to end before it."""
    return datetime.fromtimestamp(await lb.store.server_time(), UTC).replace(second=0, microsecond=0)


FAR = datetime(2900, 1, 1, tzinfo=UTC)


async def test_a_definition_says_the_same_to_whoever_reads_it(lb: Lockbeat) -> None:
    jobs = [
        Job.declare("hashed", Cron("H H(0-7) * * *", "Europe/Berlin")),
        Job.declare("several", AnyOf(Cron("0 9 * * *", "Asia/Tokyo"), Every(7))),
        Job.declare("bounded", Every(60), start=FAR, end=FAR + timedelta(minutes=2)),
        Job.declare("skips", Cron("30 2 * * *", "Europe/Berlin", gap="skip", fold="last")),
        Job.declare("told", Every(60), description="bills of the day", tags=["billing", "eu"]),
    ]
    await lb.jobs.put(*jobs)
    assert [state.job for state in await lb.jobs.list()] == sorted(jobs, key=lambda job: job.name)
    assert await lb.jobs.next("bounded", 5) == [FAR, FAR + timedelta(minutes=1)]
    assert [state.job.name for state in await lb.jobs.list(tag="billing")] == ["told"]
    assert await lb.jobs.list(tag="nobody's") == []


async def test_an_instant_that_several_triggers_have_is_one_slot(lb: Lockbeat, raw: Any) -> None:
    minute = await this_minute(lb)
    job = Job.declare("job", AnyOf(Every(3600, minute), Every(7200, minute), Cron(f"{minute.minute} * * * *")))
    slot, hands = await overdue(lb, raw, job), Hands("job")
    for _ in range(3):
        await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("job"))
    assert [task.slot_ms for task in hands.tasks] == [slot]
    assert [entry.slot_ms for entry in await ledger(lb, "job")] == [slot]
    following = (await lb.jobs.get("job")).next
    assert following is not None
    assert following.slot_ms == slot + 3_600_000


async def test_a_job_ends_with_its_last_slot_before_the_end(lb: Lockbeat, raw: Any) -> None:
    minute = await this_minute(lb)
    job = Job.declare("job", Every(3600, minute), start=minute, end=minute + timedelta(minutes=59))
    await lb.jobs.put(job)
    slot, hands = await overdue(lb, raw, job), Hands("job")
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("job"))
    assert [task.slot_ms for task in hands.tasks] == [slot]
    assert (await lb.jobs.get("job")).next is None
    assert await lb.jobs.next("job") == []


async def test_a_later_end_lets_a_job_that_had_ended_go_on(lb: Lockbeat) -> None:
    await lb.jobs.put(Job.declare("job", Every(60), start=FAR - timedelta(days=1), end=FAR))
    await lb.jobs.put(Job.declare("job", At(datetime(2000, 1, 1, tzinfo=UTC))))
    assert (await lb.jobs.get("job")).next is None
    await lb.jobs.put(Job.declare("job", Every(60), start=FAR, end=FAR + timedelta(days=1)))
    assert (await lb.jobs.get("job")).next_slot == FAR


def test_the_decorators_take_them() -> None:
    beat = Beat("memory://")

    @beat.cron("H 3 * * *", "Europe/Berlin", gap="skip", fold="both", description="at night", tags=["night"])
    async def clean() -> None: ...

    @beat.job(AnyOf(Cron("H * * * *"), Every(7)), start=FAR)
    async def look() -> None: ...

    cleaned, looked = beat.declared["clean"], beat.declared["look"]
    assert cleaned == Job.declare(
        "clean", Cron("H 3 * * *", "Europe/Berlin", gap="skip", fold="both"), description="at night", tags=["night"]
    )
    assert looked.trigger == Between(AnyOf(Cron("H * * * *").of_job("look"), Every(7)), FAR)


@pytest.mark.parametrize("option", ["strat", "tag", "describe"])
def test_an_option_that_is_none_is_named(option: str) -> None:
    given: dict[str, Any] = {option: "x"}
    with pytest.raises(ValueError, match=f"{option}: no such option of a job"):
        Job.declare("job", Every(7), **given)


async def fired(lb: Lockbeat, raw: Any, job: Job, ticks: int = 1) -> int:
    """How many slots several instances fire, while one has come due at each of their ticks."""
    hands, shard = Hands("job"), lb.jobs.shard_of("job")
    several = [scheduler(lb, job, runner=hands) for _ in range(2)]
    for _ in range(ticks):
        if (await lb.jobs.get("job")).next is not None:
            slot = max([0] + [entry.slot_ms for entry in await ledger(lb, "job")]) or await now_ms(lb) - 60_000
            await backdate(lb, raw, "job", slot + 1000)
        for one in several:
            await one.tick(shard)
    return len(hands.tasks)


async def limited(lb: Lockbeat, limit: int | None) -> Job:
    """One that has no slot of its own in a test."""
    return Job.declare("job", Every(7200, await this_minute(lb) + timedelta(hours=1)), limit=limit, overlap="allow")


async def test_a_job_with_a_limit_ends_when_it_was_fired_as_often(lb: Lockbeat, raw: Any) -> None:
    job = await limited(lb, 3)
    await lb.jobs.put(job)
    assert len(await lb.jobs.next("job", 9)) == 3
    assert await fired(lb, raw, job) == 1
    assert len(await lb.jobs.next("job", 9)) == 2
    assert await fired(lb, raw, job, ticks=4) == 2
    state = await lb.jobs.get("job")
    assert (state.next, state.counts.fired) == (None, 3)
    assert await lb.jobs.next("job") == []
    await lb.jobs.put(job)
    assert (await lb.jobs.get("job")).next is None, "whoever declares it again does not begin anew"


async def test_another_limit_counts_what_was_fired_before(lb: Lockbeat, raw: Any) -> None:
    one, two, three, none = [await limited(lb, limit) for limit in (1, 2, 3, None)]
    await lb.jobs.put(two)
    assert await fired(lb, raw, two, ticks=3) == 2
    assert (await lb.jobs.get("job")).next is None
    await lb.jobs.put(three)
    assert (await lb.jobs.get("job")).next is not None
    await lb.jobs.put(one)
    assert (await lb.jobs.get("job")).next is None
    await lb.jobs.put(three)
    assert await fired(lb, raw, three, ticks=2) == 1
    await lb.jobs.put(none)
    assert await fired(lb, raw, none, ticks=2) == 2
    assert await lb.jobs.delete("job")
    await lb.jobs.put(two)
    assert await fired(lb, raw, two, ticks=4) == 2, "its count went with it"


async def test_a_limit_that_was_met_meanwhile_fires_nothing_more(lb: Lockbeat, raw: Any) -> None:
    """The counts say so, though the job has a slot: it was lost, and reckoned anew."""
    job = await limited(lb, 1)
    await lb.jobs.put(job)
    assert await fired(lb, raw, job) == 1
    before = await ledger(lb, "job")
    await backdate(lb, raw, "job", await now_ms(lb))
    await scheduler(lb, job).tick(lb.jobs.shard_of("job"))
    assert await ledger(lb, "job") == before
    assert (await lb.jobs.get("job")).next is None


@only("memory")
async def test_a_job_that_met_its_limit_is_remembered_for_a_year(lb: Lockbeat, raw: Any) -> None:
    with time_machine.travel(datetime(2026, 5, 1, tzinfo=UTC), tick=False) as clock:
        job = await limited(lb, 1)
        await lb.jobs.put(job)
        assert await fired(lb, raw, job) == 1
        for days, there in ((360, True), (7, False)):
            clock.shift(timedelta(days=days))
            await scheduler(lb).tick(0)
            assert [state.job.name for state in await lb.jobs.list()] == ["job"] * there


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
def test_a_limit_is_a_number_of_slots(limit: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="limit: "):
        Job.declare("job", Every(7), limit=limit)
