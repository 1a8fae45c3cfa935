"""Promise 8: cancelling any call at any await leaves no orphan behind.

redis-py, coredis, pottery and redis-lock-py leave a lock behind when the acquire is cancelled in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import LockTimeout
from tests.conftest import Backend, Connect

STEPS = 40


async def cancelled_after(steps: int, coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Run it for so many turns of the loop, then cancel. Whether it was over by then."""
    task = asyncio.create_task(coroutine)
    for _ in range(steps):
        await asyncio.sleep(0)
    over = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return over


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


async def test_a_cancelled_try_acquire_leaves_no_lock(lb: Lockbeat) -> None:
    """At every turn of the loop, and 100 times in flight."""
    for steps in [*range(STEPS), *[2] * 100]:
        over = await cancelled_after(steps, lb.locks.try_acquire("k", "alice", 30))
        if over:
            assert await lb.locks.release("k", "alice")
        await nobody_holds(lb, "k")


async def test_a_cancelled_block_leaves_no_lock(lb: Lockbeat) -> None:
    async def block() -> None:
        async with lb.lock("k", ttl=30):
            await asyncio.sleep(0)

    for steps in [*range(STEPS), *[3] * 100]:
        await cancelled_after(steps, block())
        await nobody_holds(lb, "k")


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


async def test_a_cancelled_exit_still_gives_the_lock_back(lb: Lockbeat) -> None:
    async def block(leaving: asyncio.Event) -> None:
        async with lb.lock("k", ttl=30):
            leaving.set()

    for steps in range(STEPS):
        leaving = asyncio.Event()
        task = asyncio.create_task(block(leaving))
        await leaving.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await nobody_holds(lb, "k")


async def test_a_cancelled_release_releases(lb: Lockbeat) -> None:
    for steps in range(1, STEPS):
        await lb.locks.try_acquire("k", "alice", 30)
        await cancelled_after(steps, lb.locks.release("k", "alice"))
        await nobody_holds(lb, "k")


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


async def test_undoing_a_cancelled_call_spares_what_the_owner_had_before(lb: Lockbeat) -> None:
    first = await lb.locks.try_acquire("k", "alice", 30)
    assert first is not None
    for steps in range(STEPS):
        await cancelled_after(steps, lb.locks.try_acquire("k", "alice", 30))
        assert [lease.fence for lease in await lb.locks.list()] == [first.fence]


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


@pytest.mark.parametrize("verb", ["renew", "is_locked", "owner", "release_all", "list"])
async def test_cancelling_any_other_verb_leaves_the_client_usable(lb: Lockbeat, verb: str) -> None:
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "renew": lambda: lb.locks.renew("k", "alice", 30),
        "is_locked": lambda: lb.locks.is_locked("k"),
        "owner": lambda: lb.locks.owner("k"),
        "release_all": lambda: lb.locks.release_all("bob"),
        "list": lambda: lb.locks.list(),
    }
    await lb.locks.try_acquire("k", "alice", 30)
    for steps in range(12):

        async def run() -> None:
            await calls[verb]()

        await cancelled_after(steps, run())
        assert await lb.locks.owner("k") == "alice"
