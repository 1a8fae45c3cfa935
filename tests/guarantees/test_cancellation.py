"""Promise 8: what may happen to a call that is cancelled, besides what every verb has in test_every_verb.

redis-py, coredis, pottery and redis-lock-py leave a lock behind when the acquire is cancelled in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import LockTimeout
from lockbeat.tasks import NewTask, Task
from lockbeat.worker import Function, Worker
from tests.claims import ran_out
from tests.conftest import PATIENCE, Backend, Connect
from tests.tasks import begun, cancelled_after

STEPS = 40


async def nobody_holds(lb: Lockbeat, key: str) -> None:
    """The next call of the same client finds the lock free: its undoing went ahead."""
    assert await lb.locks.owner(key) is None, "an orphan holds the lock"
    assert not lb.locks._room._waiters, "an orphan waits for the lock"


@pytest.fixture
def queue_is_empty(raw: Any, backend: Backend, namespace: str) -> Callable[[], None]:
    def check() -> None:
        for shard in range(backend.shards):
            assert raw.zcard(f"{{{namespace}:{shard}}}:lock:queue") == 0, "an orphan is in the queue"

    return check


async def test_a_cancelled_waiter_leaves_neither_lock_nor_place(
    lb: Lockbeat, connect: Connect, queue_is_empty: Callable[[], None]
) -> None:
    async def block() -> None:
        async with lb.lock("k", ttl=30):
            pytest.fail("it was held")

    async with connect() as other, other.lock("k", ttl=30):
        for steps in range(STEPS):
            await cancelled_after(steps, block())
            assert await lb.locks.owner("k") == other.owner
            queue_is_empty()


async def test_a_waiter_cancelled_around_the_hand_off_leaves_no_lock(lb: Lockbeat, connect: Connect) -> None:
    """The grant and the cancellation cross each other."""

    async def block() -> None:
        async with lb.lock("k", ttl=30):
            await asyncio.sleep(0)

    async with connect() as other:
        for steps in range(STEPS):
            assert await other.locks.try_acquire("k", "holder", 30)
            waiting = asyncio.create_task(block())
            while not lb.locks._room._rooms:
                await asyncio.sleep(0)
            await lb.store.server_time()  # a round trip behind the waiter's call
            releasing = asyncio.create_task(other.locks.release("k", "holder"))
            for _ in range(steps):
                await asyncio.sleep(0)
            waiting.cancel()
            assert await releasing
            await asyncio.gather(waiting, return_exceptions=True)
            await free_soon(other, "k")


async def free_soon(lb: Lockbeat, key: str) -> None:
    """Sooner than by its end: a handed-over lease that nobody took would last for two seconds, and many more looks."""
    for _ in range(200):
        if not await lb.locks.is_locked(key):
            return
        await asyncio.sleep(0.001)
    pytest.fail("an orphan holds the lock")


async def test_a_wait_that_runs_out_around_the_hand_off_leaves_no_lock(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        for n in range(25):
            assert await other.locks.try_acquire("k", "holder", 30)

            async def block() -> bool:
                try:
                    async with lb.lock("k", ttl=30, wait=0.01):
                        return True
                except LockTimeout:
                    return False

            waiting = asyncio.create_task(block())
            await asyncio.sleep(0.0092 + n * 0.0001)
            assert await other.locks.release("k", "holder")
            await waiting
            await free_soon(other, "k")


async def test_undoing_a_cancelled_call_spares_what_the_owner_took_meanwhile(lb: Lockbeat) -> None:
    for steps in range(8):
        both = asyncio.gather(
            cancelled_after(steps, lb.locks.try_acquire("k", "alice", 30)),
            lb.locks.try_acquire("k", "alice", 30),
        )
        _, lease = await both
        assert lease is not None
        assert [held.fence for held in await lb.locks.list()] == [lease.fence]
        assert await lb.locks.release("k", "alice")


@pytest.mark.parametrize("calls", [2, 3, 8])
async def test_a_lock_that_its_owner_took_by_several_calls_is_free_once_all_are_cancelled(lb: Lockbeat, calls: int) -> None:
    for steps in range(STEPS):
        several = asyncio.gather(
            *(cancelled_after(steps, lb.locks.try_acquire("k", "alice", 3600)) for _ in range(calls)),
        )
        if any(await several):
            assert await lb.locks.release("k", "alice")
            continue
        await nobody_holds(lb, "k")


async def test_of_several_calls_by_one_owner_any_that_is_not_cancelled_keeps_the_lock(lb: Lockbeat) -> None:
    for kept in range(3):
        taking = [asyncio.create_task(lb.locks.try_acquire("k", "alice", 3600)) for _ in range(3)]
        await asyncio.sleep(0)
        for number, task in enumerate(taking):
            if number != kept:
                task.cancel()
        lease = await taking[kept]
        await asyncio.gather(*taking, return_exceptions=True)
        assert lease is not None
        assert [held.fence for held in await lb.locks.list()] == [lease.fence]
        assert await lb.locks.release("k", "alice")


async def test_a_cancelled_acquire_of_a_short_lease_leaves_nothing_to_take_over(lb: Lockbeat) -> None:
    """It has run out before it is undone."""
    for steps in range(12):
        over = await cancelled_after(steps, lb.claims.acquire(f"k{steps}", "alice", lease=0.001))
        await asyncio.sleep(0.002)
        await ran_out(lb, f"k{steps}")
        assert await lb.claims.cleanup() == (1 if over else 0), "an orphan ran out"


async def claimed_soon(lb: Lockbeat, expected: int = 1) -> list[Task]:
    """So many tasks, claimed before any lease of 30 s would have ended."""
    found: list[Task] = []
    async with asyncio.timeout(30):
        while len(found) < expected:
            found += await lb.tasks.claim("default", "other", expected, 30)
            await asyncio.sleep(0.002)
    return found


@pytest.mark.parametrize(("limit", "steps_of"), [(3, range(STEPS)), (120, range(0, STEPS, 8))])
async def test_a_cancelled_claim_leaves_no_leased_task(
    lb: Lockbeat, connect: Connect, limit: int, steps_of: Iterable[int]
) -> None:
    """At many turns of the loop. Nothing ran, so the one attempt that there is is not used up."""
    async with connect() as other:
        for steps in steps_of:
            await other.tasks.spawn_many([NewTask("job", max_attempts=1)] * limit)
            tasks = await cancelled_after(steps, lb.tasks.claim("default", "alice", limit, 30))
            if tasks is None:
                tasks = await claimed_soon(other, limit)
            assert [task.attempt for task in tasks] == [1] * limit
            assert [await other.tasks.complete(task) for task in tasks] == [True] * limit


async def test_a_cancelled_claim_of_a_worker_leaves_no_leased_task(lb: Lockbeat, connect: Connect) -> None:
    """At many turns of the loop. What it had begun runs; what it had not is given back, and so its one attempt is not used up."""

    async def job() -> None: ...

    worker = Worker(lb.store, lb.keeper, lb.tasks, {"job": Function.of(job)}, ["default"], 3)
    async with connect() as other:
        for steps in range(STEPS):
            spawned = await other.tasks.spawn_many([NewTask("job", max_attempts=1)] * 3)
            for shard in range(lb.store.shards):
                await cancelled_after(steps, worker.tick(shard))
            async with asyncio.timeout(PATIENCE):
                while waiting := [one for one in spawned if (await other.tasks.get(one.task_id)).state != "done"]:
                    for task in await other.tasks.claim("default", "other", len(waiting), 30):
                        assert await other.tasks.complete(task)
    await worker.drain(PATIENCE)


async def test_undoing_a_cancelled_claim_spares_what_its_owner_runs(lb: Lockbeat) -> None:
    mine = await begun(lb)
    for steps in range(STEPS):
        spawned = await lb.tasks.spawn("job")
        both = asyncio.gather(
            cancelled_after(steps, lb.tasks.claim("default", "alice", 1, 30)), lb.tasks.claim("default", "alice", 1, 30)
        )
        cancelled, tasks = await both
        for task in (cancelled or tasks) or await claimed_soon(lb):
            assert task.id == spawned.task_id
            assert (await lb.tasks.get(task.id)).fence == task.fence, "it was taken from the one that claimed it"
            assert await lb.tasks.complete(task)
    assert await lb.tasks.heartbeat(mine)
