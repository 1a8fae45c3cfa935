"""Promises 1, 2 and 3 for tasks: one attempt at a time, its fence newer than all before, and nobody else ends it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from lockbeat import Lockbeat
from lockbeat.tasks import NewTask, Task
from tests.conftest import Backend, Connect, only
from tests.tasks import begun, claim_one, state, until

SHORT = 0.02  # seconds: a lease that ends within the test


async def race(lb: Lockbeat, other: Lockbeat) -> list[Task]:
    claims = await asyncio.gather(*((lb, other)[n % 2].tasks.claim("default", f"racer{n}", 5, 30) for n in range(8)))
    return [task for tasks in claims for task in tasks]


async def test_of_eight_racers_one_gets_the_task(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        for n in range(20):
            spawned = await lb.tasks.spawn("job", n)
            [task] = await race(lb, other)
            assert task.id == spawned.task_id
            assert (await lb.tasks.get(task.id)).owner == task.owner
            assert await lb.tasks.complete(task)


async def test_of_eight_racers_one_takes_over_what_expired(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        lost = await begun(lb, lease=SHORT, retry=None, max_attempts=100)
        for attempt in range(2, 12):
            await until(lb, lost.expires_at)
            [task] = await race(lb, other)
            assert (task.id, task.attempt) == (lost.id, attempt)
            beat = await lb.tasks.heartbeat(task, SHORT)
            assert beat.expires_at is not None
            lost = replace(task, expires_at=beat.expires_at)


async def test_a_zombie_can_not_touch_its_successors_attempt(lb: Lockbeat) -> None:
    """Not even under the same owner."""
    zombie = await begun(lb, lease=SHORT, retry=None)
    await until(lb, zombie.expires_at)
    for owner in ("alice", "bob"):
        successor = await claim_one(lb, owner=owner, lease=30)
        assert successor.fence > zombie.fence
        assert await lb.tasks.complete(zombie, "zombie") is False
        assert (await lb.tasks.fail(zombie, "zombie")).outcome == "refused"
        assert await lb.tasks.release(zombie) is False
        assert await lb.tasks.defer(zombie, 60) is False
        assert not await lb.tasks.heartbeat(zombie, 0.001)
        info = await lb.tasks.get(zombie.id)
        assert (info.state, info.owner, info.fence) == ("running", owner, successor.fence)
        assert info.expires_at == successor.expires_at
        if owner == "alice":
            assert await lb.tasks.release(successor)
        else:
            assert await lb.tasks.complete(successor, "right") is True
    assert (await lb.tasks.get(zombie.id)).result == "right"


@only("memory", "valkey")
async def test_an_attempt_is_its_owners_alone(lb: Lockbeat) -> None:
    task = await begun(lb, retry=None)
    theirs = replace(task, owner="bob")
    assert (await lb.tasks.heartbeat(theirs)).refusal == "not the owner"
    assert [await lb.tasks.complete(theirs), await lb.tasks.release(theirs), await lb.tasks.defer(theirs, 1)] == [False] * 3
    assert (await lb.tasks.fail(theirs, "not mine")).outcome == "refused"
    assert (await lb.tasks.get(task.id)).owner == "alice"
    assert await lb.tasks.complete(task)


async def test_a_fence_grows_with_each_attempt_however_the_last_one_ended(lb: Lockbeat) -> None:
    task = await begun(lb, retry=None, max_attempts=1000, lease=30)
    fences = [task.fence]
    for n in range(12):
        match n % 4:
            case 0:
                assert await lb.tasks.fail(task, "broken")
            case 1:
                assert await lb.tasks.release(task)
            case 2:
                assert await lb.tasks.defer(task, 0)
            case _:
                beat = await lb.tasks.heartbeat(task, SHORT)
                await until(lb, beat.expires_at)
        task = await claim_one(lb, owner=f"o{n % 2}")
        fences.append(task.fence)
    assert fences == sorted(set(fences))
    assert fences[-1] < 2**53


async def test_a_heartbeat_keeps_the_fence(lb: Lockbeat) -> None:
    task = await begun(lb)
    assert await lb.tasks.heartbeat(task)
    assert (await lb.tasks.get(task.id)).fence == task.fence


async def test_attempts_used_up_by_crashes_end_in_a_dead_letter_that_says_lost(lb: Lockbeat) -> None:
    spawned = await lb.tasks.spawn("job", max_attempts=3, retry=None)
    for attempt in (1, 2, 3):
        task = await claim_one(lb, lease=SHORT)
        assert task.attempt == attempt
        await until(lb, task.expires_at)
    assert await lb.tasks.claim("default", "bob") == []
    info = await lb.tasks.get(spawned.task_id)
    assert (info.state, info.attempts) == ("dead", 3)
    assert info.failure is not None
    assert info.failure.type == "Lost"
    assert [dead.id for dead in await lb.tasks.dead()] == [spawned.task_id]
    assert await lb.tasks.complete(task, "too late") is False
    assert await state(lb, spawned.task_id) == "dead"


async def test_crashes_and_failures_draw_on_the_same_attempts(lb: Lockbeat) -> None:
    task = await begun(lb, max_attempts=2, retry=None, lease=SHORT)
    await until(lb, task.expires_at)
    failed = await lb.tasks.fail(await claim_one(lb), "broken")
    assert failed.outcome == "dead_lettered"
    info = await lb.tasks.get(task.id)
    assert info.failure is not None
    assert info.failure.message == "broken"


@pytest.mark.parametrize("seed", range(3))
async def test_attempts_never_exceed_their_maximum(lb: Lockbeat, connect: Connect, seed: int) -> None:
    """However workers fail, die, give back and interfere with each other."""
    dice = random.Random(seed)
    most = {}
    for _ in range(12):
        limit = dice.choice([1, 2, 3])
        most[(await lb.tasks.spawn("job", max_attempts=limit, retry=None)).task_id] = limit
    begun_as: dict[str, set[int]] = {task_id: set() for task_id in most}
    counted = dict.fromkeys(most, 0)
    seen: list[Task] = []

    async def worker(client: Lockbeat, owner: str) -> None:
        while (counts := await client.tasks.counts()).ready or counts.running or counts.delayed:
            for task in await client.tasks.claim("default", owner, 2, SHORT):
                begun_as[task.id].add(task.attempt)
                seen.append(task)
                match dice.randrange(6):
                    case 0:
                        counted[task.id] += bool(await client.tasks.fail(task, "broken"))
                    case 1:
                        await client.tasks.release(task)
                    case 2:
                        await client.tasks.defer(task, 0.005)
                    case 3:
                        await client.tasks.fail(dice.choice(seen), "a zombie")
                    # else it dies
            await asyncio.sleep(0.002)

    async with connect() as other, asyncio.timeout(60):
        await asyncio.gather(*(worker((lb, other)[n % 2], f"w{n}") for n in range(4)))
    for task_id, limit in most.items():
        info = await lb.tasks.get(task_id)
        assert (info.state, info.attempts) == ("dead", limit)
        assert begun_as[task_id] <= set(range(1, limit + 1)), "a reply that is slower than the lease hands out nothing"
        assert counted[task_id] <= limit


@only("valkey", "redis")
async def test_expired_attempts_are_swept_in_bounded_batches(lb: Lockbeat, backend: Backend) -> None:
    """A claim after a great crash takes back some of what was lost, not all at once; the claims after it the rest."""
    total = 3000
    spawned = await lb.tasks.spawn_many([NewTask("job", max_attempts=2, retry=None)] * total)
    taken: list[Task] = []
    while tasks := await lb.tasks.claim("default", "alice", 100, 60):
        taken += tasks
    assert len(taken) == total
    beats = await asyncio.gather(*(lb.tasks.heartbeat(task, 0.05) for task in taken))
    await until(lb, max(beat.expires_at or 0 for beat in beats))
    before = sum(backend.calls().values())
    first = await lb.tasks.claim("default", "bob", 1, 60)
    commands = sum(backend.calls().values()) - before
    assert [task.attempt for task in first] == [2]
    assert commands < total, "it looked at every expired attempt in one run"
    again = first
    while tasks := await lb.tasks.claim("default", "bob", 100, 60):
        again += tasks
    assert {task.id for task in again} == {task.task_id for task in spawned}
    assert len(again) == total
    assert {task.attempt for task in again} == {2}
