"""What a job says of its slots and of itself holds in the store, too: AnyOf, start and end, H, gap and fold, tags."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import AnyOf, At, Beat, Cron, Every, Lockbeat
from lockbeat.jobs import Job
from lockbeat.triggers import Between
from tests.beats import Hands, ledger, overdue, scheduler


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
