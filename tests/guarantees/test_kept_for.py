"""The ledger keeps by count and by age: `keep`, `keep_for`."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import InvalidArgument, Lockbeat
from lockbeat.jobs import Job
from lockbeat.tasks import Task
from tests.beats import MINUTE, Hands, eventually, ledger, minutely, overdue, scheduler, shot
from tests.conftest import only


async def fire(lb: Lockbeat, raw: Any, job: Job, back: int = 0) -> list[Task]:
    hands = Hands(job.name)
    await overdue(lb, raw, job, back)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of(job.name))
    return hands.tasks


async def left(lb: Lockbeat) -> list[str]:
    """What the ledger has, after a worker has looked for work: that forgets what is over."""
    await lb.tasks.claim("default", lb.owner, 1, 30)
    return [entry.state for entry in await ledger(lb, "report")]


async def test_a_slot_is_forgotten_when_its_time_is_over_though_no_other_comes_bullmq_1353_3505(lb: Lockbeat, raw: Any) -> None:
    [task] = await fire(lb, raw, minutely(keep_for=1))
    await lb.tasks.complete(task)

    async def gone() -> bool:
        return await left(lb) == []

    await eventually(gone, "the ledger is empty")
    assert (await lb.jobs.history()).entries == ()
    assert (await lb.jobs.get("report")).counts.done == 1, "the counters stay"


async def test_so_is_what_was_not_fired(lb: Lockbeat, raw: Any) -> None:
    assert await fire(lb, raw, minutely(keep_for=1, catchup="skip", window=0.001), back=3) == []
    assert {*await left(lb)} <= {"missed"}

    async def gone() -> bool:
        return await left(lb) == []

    await eventually(gone, "the ledger is empty")


async def test_a_failed_one_is_among_the_dead_no_longer(lb: Lockbeat, raw: Any) -> None:
    [task] = await fire(lb, raw, minutely(keep_for=1))
    await lb.tasks.fail(task, "broken")

    async def gone() -> bool:
        return await left(lb) == [] and await lb.tasks.dead("default") == []

    await eventually(gone, "nothing is left of it")
    assert raw.exists(*(lb.store.keys.key(task.shard, name) for name in ("task:dead", "task:ended", "task:failure"))) == 0


async def test_one_that_runs_longer_stays_until_it_has_ended_rundeck_5683(lb: Lockbeat, raw: Any) -> None:
    short, long = minutely(keep_for=1), minutely("long", keep_for=1)
    [task] = await fire(lb, raw, long)
    [other] = await fire(lb, raw, short)
    await lb.tasks.complete(other)

    async def gone() -> bool:
        return await left(lb) == []

    await eventually(gone, "the other one is forgotten")
    assert [entry.state for entry in await ledger(lb, "long")] == ["fired"]
    await lb.tasks.complete(task)

    async def also_gone() -> bool:
        return await left(lb) == [] and await ledger(lb, "long") == []

    await eventually(also_gone, "it is forgotten when it has ended")


async def test_a_failed_one_is_forgotten_by_age_after_it_could_be_retried_no_more(lb: Lockbeat, raw: Any) -> None:
    """The week in which it may be retried ends first: then the ledger goes on with it until its age is over."""
    [task] = await fire(lb, raw, minutely(keep_for=30 * 86_400))
    await lb.tasks.fail(task, "broken")
    key = lb.store.keys.key(task.shard, "task:ended")
    week = raw.zscore(key, task.id)
    raw.zadd(key, {task.id: 1})
    assert await left(lb) == ["failed"]
    assert await lb.tasks.dead("default") == []
    assert raw.zscore(key, task.id) > week


async def test_without_it_age_is_no_matter_and_count_is(lb: Lockbeat, raw: Any) -> None:
    job = minutely(keep=2, keep_for=86_400, overlap="allow")
    await lb.jobs.put(job)
    slot, shard = await overdue(lb, raw, job, 600), lb.jobs.shard_of("report")
    at = slot

    async def thinned() -> bool:
        nonlocal at
        await lb.store.call_row(shot(lb, job, at, next=f"{at + MINUTE} {at + MINUTE} {job.rev}"), shard)
        at += MINUTE
        return at >= slot + 40 * MINUTE and 2 <= len(await ledger(lb, "report")) < 40

    await eventually(thinned, "count is: at each eighth that is entered, and each call draws which that is")


async def test_one_jobs_short_age_takes_nothing_from_another_bullmq_3475(lb: Lockbeat, raw: Any) -> None:
    [long] = await fire(lb, raw, minutely("long", keep_for=3600))
    [ever] = await fire(lb, raw, minutely("ever"))
    [short] = await fire(lb, raw, minutely(keep_for=1))
    for task in (long, ever, short):
        await lb.tasks.complete(task)

    async def gone() -> bool:
        return await left(lb) == []

    await eventually(gone, "the short one is forgotten")
    assert [entry.state for name in ("long", "ever") for entry in await ledger(lb, name)] == ["done", "done"]


@only("memory", "valkey")
async def test_what_was_lost_of_when_to_forget_it_is_put_right(lb: Lockbeat, raw: Any) -> None:
    [task] = await fire(lb, raw, minutely(keep_for=3600))
    await lb.tasks.complete(task)
    key = lb.store.keys.key(task.shard, "task:ended")
    before = raw.zscore(key, task.id)
    raw.delete(key)
    assert await lb.store.call("task/mend", task.shard, limit=50) == 1
    assert raw.zscore(key, task.id) == before


@pytest.mark.parametrize("keep_for", [0, -1, 0.5, 11 * 365 * 86_400])
def test_bad_ages_are_refused(keep_for: float) -> None:
    with pytest.raises(InvalidArgument, match="keep_for"):
        minutely(keep_for=keep_for)


def test_where_it_says_nothing_the_definition_is_as_before() -> None:
    assert "keep_for" not in minutely().definition
    assert minutely(keep_for=60).rev.partition(".")[0] == minutely().rev.partition(".")[0], "it decides no slot"
    assert '"needs"' not in minutely(keep_for=60).definition
