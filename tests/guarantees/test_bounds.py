"""What grows is bounded, and what is bounded is seen to whole: leases of a lost call, ended tasks, nesting, keys that clash."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.claims import Claim
from lockbeat.errors import InvalidArgument, Unreadable
from lockbeat.tasks import NewTask
from lockbeat.values.payloads import MOST_DEPTH
from tests.beats import Beats
from tests.conftest import only, wait_until
from tests.tasks import NOON, begun, claim_one, stopped

here_and_there = only("memory", "valkey")


@only("valkey")
async def test_what_a_claim_had_begun_whose_reply_was_lost_is_found_among_thousands_of_leases(lb: Lockbeat, raw: Any) -> None:
    await lb.tasks.spawn_many([NewTask("job", n) for n in range(2600)])
    held = await lb.tasks.claim("default", "alice", 2500)
    assert len(held) == 2500
    claim = lb.tasks.claim_on(0, ["default"], "alice", 50, 30_000, call="lost")
    begun_by_it = {task.id for task in (await claim).tasks}  # as if nobody had heard; a slow server ends it sooner than 50
    assert begun_by_it
    live = lb.store.keys.key(0, "task:live")
    before = {task_id: raw.zscore(live, task_id) for task_id in begun_by_it}
    assert await lb.store.call("task/renew_call", 0, owner="alice", call="lost", lease_ms=90_000) > 0
    assert all(raw.zscore(live, task_id) > expires_ms + 50_000 for task_id, expires_ms in before.items())
    lb.tasks.reply_lost(0, "alice", ["lost"])
    found = (await lb.tasks.claim_on(0, ["other"], "alice", 1, 30_000)).tasks
    assert {task.id for task in found} == begun_by_it
    assert len(found) == len(begun_by_it)


@only("valkey")
async def test_an_idle_worker_forgets_what_ended_while_there_is_more(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    spawned = await lb.tasks.spawn_many([NewTask("job", n, retention=0) for n in range(1000)])
    for task in await lb.tasks.claim("default", "alice", 1000):
        assert await lb.tasks.complete(task)
    ended = lb.store.keys.key(0, "task:ended")
    assert raw.zcard(ended) == len(spawned)
    raw.zadd(ended, dict.fromkeys(raw.zrange(ended, 0, -1), 1))  # their retention is over
    beat = beats()

    @beat.task
    async def other() -> None: ...

    async with beat.lifespan():
        await wait_until(lambda: raw.zcard(ended) == 0, "all are forgotten, one look after the other")
    assert raw.hlen(lb.store.keys.key(0, "task")) == 0


@only("memory")
async def test_a_claim_by_hand_does_not_wait_for_what_is_left_to_forget(lb: Lockbeat, raw: Any) -> None:
    with stopped() as to:
        await lb.tasks.spawn_many([NewTask("job", n, retention=0) for n in range(300)])
        for task in await lb.tasks.claim("default", "alice", 300):
            assert await lb.tasks.complete(task)
        to(NOON + 30)
        assert await lb.tasks.claim("default", "alice") == []
        assert raw.zcard(lb.store.keys.key(0, "task:ended")) >= 200


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@here_and_there
async def test_values_nested_beyond_a_bound_are_refused_before_anything_is_sent(lb: Lockbeat) -> None:
    task, claim = await begun(lb), await lb.claims.acquire("c", "alice", 30)
    assert isinstance(claim, Claim)
    for deep in (nested(MOST_DEPTH + 1), {"a": nested(975)}, nested(5000)):
        for call in (
            lb.tasks.spawn("job", deep),
            lb.tasks.spawn("job", headers={"deep": deep}),
            lb.tasks.complete(task, deep),
            lb.tasks.fail(task, deep),
            lb.claims.complete(claim, deep, hold=5),
            lb.claims.fail(claim, deep),
            lb.fenced.set("name", deep, fence=claim.fence),
        ):
            with pytest.raises(InvalidArgument, match="nested"):
                await call
    assert await lb.tasks.spawn("job", nested(MOST_DEPTH))
    assert (await claim_one(lb)).params == nested(MOST_DEPTH)
    assert await lb.tasks.complete(task, nested(MOST_DEPTH))
    assert (await lb.tasks.get(task.id)).result == nested(MOST_DEPTH)


@here_and_there
@pytest.mark.parametrize("depth", [500, 975, 100_000])
async def test_what_is_nested_too_deep_in_the_store_harms_no_listing_and_no_worker(
    lb: Lockbeat, raw: Any, beats: Beats, depth: int
) -> None:
    beat, ran = beats(), []

    @beat.task
    async def job() -> None:
        ran.append(1)

    deep, good = await lb.tasks.spawn_many([NewTask("job", 1, max_attempts=1), NewTask("job", 2)])
    key = lb.store.keys.key(0, "task:params")
    raw.hset(key, deep.task_id, '{"params":' + "[" * depth + "]" * depth + ',"headers":{}}')
    with pytest.raises(Unreadable, match="task:params"):
        await lb.tasks.get(deep.task_id)
    assert [info.id for info in await lb.tasks.list()] == [good.task_id]
    async with beat.lifespan():
        assert (await lb.tasks.wait(good.task_id, 30)).state == "done"
        await wait_until(lambda: raw.zcard(lb.store.keys.key(0, "task:dead")) == 1, "it ends among the dead")
        record = raw.hget(lb.store.keys.key(0, "task"), deep.task_id)
        assert b"\xfdwhat the store has of it can't be read" in record, "its worker says so: nobody waits for its lease"
    assert ran == [1]
    assert await lb.tasks.purge() == 1


@only("memory")
@pytest.mark.parametrize("clash", [{1: "a", "1": "b"}, {None: 1, "null": 2}, {True: 1, "true": 2}, [{"in": {1.5: 1, "1.5": 2}}]])
async def test_keys_that_are_the_same_in_json_are_refused(lb: Lockbeat, clash: Any) -> None:
    assert isinstance(json.loads(json.dumps(clash)), (dict, list)), "json itself does not mind"
    task = await begun(lb)
    for call in (lb.tasks.spawn("job", clash), lb.tasks.complete(task, clash), lb.tasks.spawn("job", headers={"h": clash})):
        with pytest.raises(InvalidArgument, match="the same in JSON"):
            await call
    assert await lb.tasks.spawn("job", {1: "a", "2": "b"}), "which JSON makes text of"


@only("memory")
@pytest.mark.parametrize("kind", ["lock", "claim"])
async def test_what_was_entered_by_hand_in_a_task_that_ended_is_warned_of(
    lb: Lockbeat, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    handle = lb.lock("k") if kind == "lock" else lb.claims.hold("k")
    with caplog.at_level(logging.WARNING, "lockbeat"):
        await asyncio.create_task(handle.__aenter__())
        await asyncio.sleep(0)
        assert [record.message for record in caplog.records if "'k'" in record.message and "async with" in record.message]
        caplog.clear()
        await handle.__aexit__(None, None, None)
        async with lb.lock("k"), lb.claims.hold("k"):
            pass
        assert not caplog.records
