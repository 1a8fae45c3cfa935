"""What heals by itself: keys that were lost one by one, and attempts of which nobody was told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import StoreUnavailable
from lockbeat.jobs import Job
from lockbeat.triggers import Every
from tests.beats import Beats, eventually, overdue, scheduler, states
from tests.conftest import only, wait_until


@only("valkey")
@pytest.mark.parametrize("key", ["task", "task:lease", "job:due", "job:slot", "job:open"])
async def test_a_job_goes_on_after_one_of_its_keys_was_lost(key: str, lb: Lockbeat, raw: Any, beats: Beats) -> None:
    """Eviction, or a hand that deletes: whatever is left must not silence the job for ever."""

    def program() -> tuple[Any, list[int]]:
        beat, ran = beats(grace=0), []

        @beat.every(0.3, lease=0.5)
        async def job() -> None:
            ran.append(1)
            if len(ran) == 2:
                raw.delete(lb.store.keys.key(0, key))  # while it runs, so that its own lease is there to be lost

        return beat, ran

    beat, ran = program()
    async with beat.lifespan():
        await wait_until(lambda: len(ran) >= 2, "it runs, and loses a key")
        await asyncio.sleep(0.1)
    beat, ran = program()
    async with beat.lifespan():
        await wait_until(lambda: ran, f"it runs again without {key}")


@only("memory", "valkey")
async def test_attempts_that_were_claimed_while_the_store_went_away_are_begun_when_it_is_back(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job.declare("late", Every(60))
    await overdue(lb, raw, job)
    await scheduler(lb, job).tick(0)
    monkeypatch.setattr(lb.store, "timeout", 0.3)
    submit = lb.store.submit

    def lossy(name: str, shard: int, args: Any) -> Any:
        async def lose() -> None:
            await submit(name, shard, args)
            raise StoreUnavailable("the reply was lost")

        return asyncio.ensure_future(lose())

    monkeypatch.setattr(lb.store, "submit", lossy)
    with pytest.raises(StoreUnavailable):
        await lb.tasks.claim_on(0, ["default"], "me", 10, 5000)
    monkeypatch.setattr(lb.store, "submit", submit)
    tasks, *_ = await lb.tasks.claim_on(0, ["default"], "me", 10, 5000)
    assert [task.name for task in tasks] == ["late"]
    assert tasks[0].attempt == 1
    tasks, *_ = await lb.tasks.claim_on(0, ["default"], "me", 10, 5000)
    assert tasks == []
    assert await lb.tasks.release_all("me") == 1


async def test_a_slot_outside_of_its_window_is_missed_though_it_was_fired_in_time(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    """No worker was there: what comes too late at its function is as late as what is fired too late."""
    beat, ran = beats(), []

    @beat.every(60, catchup="skip", window=0.3)
    async def tight() -> None:
        ran.append(1)

    await overdue(lb, raw, Job.declare("tight", Every(60), catchup="skip", window=3600))
    await scheduler(lb).tick(lb.jobs.shard_of("tight"))
    assert await states(lb, "tight") == ["fired"]
    raw_record = beat.declared["tight"].record
    shard = lb.jobs.shard_of("tight")
    name = lb.store.keys.key(shard, "task")
    for task_id, value in raw.hgetall(name).items():
        head = value.split(b" ", 6)[:6]
        raw.hset(name, task_id, b" ".join([*head, raw_record.encode()]))  # as if fired by this definition
    async with beat.lifespan(schedule=False):

        async def missed() -> bool:
            return await states(lb, "tight") == ["missed"]

        await eventually(missed, "it is entered as missed")
    assert ran == []
