"""What heals by itself: keys that were lost one by one, and attempts of which nobody was told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lockbeat import Fixed, Lockbeat
from lockbeat.errors import StoreUnavailable
from lockbeat.jobs import Job
from lockbeat.jobs import walk as module
from lockbeat.store import results
from lockbeat.triggers import Every
from tests.beats import Beats, Hands, backdate, eventually, ledger, minutely, now_ms, overdue, scheduler, states
from tests.conftest import only, wait_until
from tests.tasks import NOON, claim_one, stopped, until


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


@only("memory")
@pytest.mark.parametrize("lost", ["task:delayed", "task:ready"])
async def test_a_retry_that_was_lost_from_its_queue_does_not_silence_its_job(lb: Lockbeat, raw: Any, lost: str) -> None:
    """Under overlap skip the next slots wait for it to end, so whoever skips one puts it back."""
    with stopped() as at:
        job, hands = minutely(max_attempts=2, retry=Fixed(1 if lost == "task:delayed" else 0, jitter=0)), Hands("report")
        await overdue(lb, raw, job)
        await scheduler(lb, job, runner=hands).tick(0)
        assert await lb.tasks.fail(hands.tasks[0], "broken")
        raw.delete(lb.store.keys.key(0, lost))
        at(NOON + 61)
        assert await lb.tasks.claim("default", "bob", 1, 30) == []
        await scheduler(lb, job, runner=hands).tick(0)
        assert await states(lb, "report") == ["retrying", "skipped"]
        again = await claim_one(lb, owner="bob")
        assert (again.id, again.attempt) == (hands.tasks[0].id, 2)
        assert await lb.tasks.complete(again)
        at(NOON + 121)
        await scheduler(lb, job, runner=hands).tick(0)
        assert [task.attempt for task in hands.tasks] == [1, 1]


def lose(raw: Any, lb: Lockbeat, lost: str) -> None:
    """A hand that deletes: whole keys of the shard, or the entry of one job."""
    for name in lost.split():
        key = lb.store.keys.key(0, name.removesuffix("/report"))
        if not name.endswith("/report"):
            raw.delete(key)
        elif raw.type(key) == b"hash":
            raw.hdel(key, "report")
        else:
            raw.zrem(key, "report")


LOSSES = [
    *("job:slot", "job:due", "job:slot job:due", "job:order", "job", "job:order job:due", "job job:order job:slot job:due"),
    *("job:slot/report", "job:due/report", "job:slot/report job:due/report", "job:order/report", "job/report"),
    "job:slot/report job:due/report job:order/report",
]


@only("memory", "valkey")
@pytest.mark.parametrize("lost", LOSSES)
@pytest.mark.parametrize("declared", [True, False])
async def test_what_is_lost_of_a_job_is_healed_without_a_restart(lb: Lockbeat, raw: Any, lost: str, declared: bool) -> None:
    """Of one that the code declares, and of one that was put; of the definition of the latter there is no other copy."""
    job, other = minutely(overlap="allow"), minutely("other")
    beat = scheduler(lb, job, other) if declared else scheduler(lb, other)
    await lb.jobs.put(job)
    await beat.register()
    await overdue(lb, raw, job)
    await beat.tick(0)
    before = await lb.jobs.get("report")
    lose(raw, lb, lost)
    said = await lb.store.call("beat/heartbeat", 0, owner="me", info="{}", ttl_ms=30_000, version="")
    assert said[2] == results.LOST, "whoever sleeps is told that something is odd"
    for _ in range(2):
        await beat.tick(0)
        beat._walk.again.clear()
    if not declared and "job" in lost.replace("/report", "").split():
        return
    said = await lb.store.call("beat/heartbeat", 0, owner="me", info="{}", ttl_ms=30_000, version="")
    assert said[2] == results.NO
    after = await lb.jobs.get("report")
    assert after.next is not None
    assert before.next is not None
    assert after.next.slot_ms in (before.next.slot_ms, before.next.slot_ms + 60_000)
    assert [state.job.name for state in await lb.jobs.list()] == ["other", "report"]
    first, *rest = await ledger(lb, "report")
    assert first.state == "fired"
    assert [str(entry.reason)[:9] for entry in rest] == ["unknown: "] * ("job:slot" in lost)
    now = await now_ms(lb)
    await backdate(lb, raw, "report", now, now)
    await beat.tick(0)
    assert beat.fired == 2, "it fires on"


@only("memory", "valkey")
async def test_a_job_whose_definition_nobody_has_is_forgotten_after_a_while(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = scheduler(lb, minutely("other"))
    await beat.register()
    await lb.jobs.put(minutely())
    lose(raw, lb, "job/report")
    await beat.tick(0)
    assert raw.hexists(lb.store.keys.key(0, "job:slot"), "report"), "an instance that declares it may come"
    monkeypatch.setattr(module, "ORPHANED", -1.0)
    beat._walk.again.clear()
    await beat.tick(0)
    assert not raw.hexists(lb.store.keys.key(0, "job:slot"), "report")
    assert (await lb.store.call("beat/heartbeat", 0, owner="me", info="{}", ttl_ms=30_000, version=""))[2] == results.NO


@only("memory", "valkey")
async def test_a_store_that_stays_odd_is_not_looked_through_all_the_time(lb: Lockbeat, raw: Any) -> None:
    beat = scheduler(lb, minutely("other", trigger=Every(10_000_000)))
    await beat.register()
    await lb.jobs.put(minutely(trigger=Every(10_000_000)))
    lose(raw, lb, "job/report")
    assert await beat.tick(0) == 0
    again = await beat.tick(0)
    assert again is not None
    assert 8 < again <= 10


@only("memory", "valkey")
@pytest.mark.parametrize("back", [0, 3])
async def test_slots_that_ran_before_the_store_was_rolled_back_are_unknown_and_not_fired_again(
    lb: Lockbeat, raw: Any, back: int
) -> None:
    """An old snapshot, or a failover that lost the last writes. What came due since is caught up as ever."""
    job = minutely()
    first = await overdue(lb, raw, job, back=back)
    key = lb.store.keys.key
    names = [key(0, name) for name in ("job:slot", "job:due", "job:open", "job:counts", "ledger:order", "task", "task:ready")]
    beat = scheduler(lb, job)
    await lb.store.call("beat/due", 0, limit=0, hide_ms=0, seen="")
    snapshot = {name: raw.dump(name) for name in names if raw.exists(name)}
    await beat.tick(0)
    assert beat.fired == 1
    await beat.tick(0)
    for name in names:
        raw.delete(name)
        if name in snapshot:
            raw.restore(name, 0, snapshot[name])
    await backdate(lb, raw, "report", first)
    await beat.tick(0)
    assert beat.fired == 1
    found = await ledger(lb, "report")
    assert [entry.state for entry in found] == ["missed"] * (1 + (back > 0))
    assert {entry.reason for entry in found} == {"unknown: the store went back to an earlier state, and it may have run"}
    later = await now_ms(lb) + 1
    await backdate(lb, raw, "report", later)
    await until(lb, later / 1000 + 0.002)
    await beat.tick(0)
    assert beat.fired == 2


@only("memory", "valkey")
async def test_attempts_that_were_claimed_while_the_store_went_away_are_begun_when_it_is_back(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job.declare("late", Every(60))
    await overdue(lb, raw, job)
    await scheduler(lb, job).tick(0)
    monkeypatch.setattr(lb.store, "timeout", 0.3)
    submit = lb.store.submit

    def lossy(row: Any, shard: int, **options: Any) -> Any:
        async def lose() -> None:
            await submit(row, shard, **options)
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

    @beat.every(60, catchup="skip", window=0.001)
    async def tight() -> None:
        ran.append(1)

    await overdue(lb, raw, Job.declare("tight", Every(60), catchup="skip", window=3600))
    await scheduler(lb).tick(lb.jobs.shard_of("tight"))
    assert await states(lb, "tight") == ["fired"]
    raw_record = beat.declared["tight"].record
    shard = lb.jobs.shard_of("tight")
    name = lb.store.keys.key(shard, "task")
    for task_id, value in raw.hgetall(name).items():
        head, tries, _ = value.split(b"\xff")
        policies = raw_record.partition(" ")[2].encode()
        raw.hset(name, task_id, b"\xff".join([head, tries, policies]))  # as if fired by this definition
    async with beat.lifespan(schedule=False):

        async def missed() -> bool:
            return await states(lb, "tight") == ["missed"]

        await eventually(missed, "it is entered as missed")
    assert ran == []
