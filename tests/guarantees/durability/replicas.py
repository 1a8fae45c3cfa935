"""What the tests of durability share: how durable, and what a lock has to look like after it.

A replica that is frozen keeps its connection and acknowledges nothing: calls wait for it as long as it stays so.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lockbeat import Durability, Lockbeat
from tests.conftest import wait_until
from tests.guarantees.conftest import Pair
from tests.tasks import cancelled_after

ONE = Durability(replicas=1, timeout=20)
SOON = Durability(replicas=1, timeout=0.05)
DISK = Durability(fsync=True, timeout=20)


async def free(lb: Lockbeat, key: str = "k") -> None:
    """Nobody holds the lock any more, and nobody waits for it."""
    async with asyncio.timeout(30):
        while not await lb.locks.try_acquire(key, "prober", 30):
            await asyncio.sleep(0.001)
    assert await lb.locks.release(key, "prober")
    assert await lb.locks.owner(key) is None


def in_queue(pair: Pair, lb: Lockbeat) -> object:
    """How many wait."""
    return pair.primary.call("ZCARD", lb.store.keys.key(0, "lock:queue"))


async def waiting(pair: Pair, lb: Lockbeat, key: str = "k", durability: Durability = ONE) -> asyncio.Task[Any]:
    """An acquire that waits for the replica, which is frozen."""
    pair.replica.freeze()
    task = asyncio.create_task(lb.locks.try_acquire(key, "alice", 30, durability=durability))
    await wait_until(pair.blocked, "the server waits for the replica")
    return task


async def idle(lb: Lockbeat) -> None:
    """Nothing is on its way."""
    durable = lb.store._durable.values()
    await wait_until(lambda: not lb.store._undoing and not any(wire._working for wire in durable), "nothing is on its way")


async def cancel_everywhere(url: str, namespace: str, durability: Durability, *, fresh: bool, closed: bool) -> None:
    """Cancel an acquire at many turns of the loop, and find the lock free when all that was on its way has arrived."""
    async with Lockbeat(url, namespace=namespace) as other:
        for steps in [*range(0, 40, 2), *range(40, 1000, 80)]:
            async with Lockbeat(url, namespace=namespace) as lb:
                if not fresh:
                    await lb.locks.try_acquire("warm", "alice", 30, durability=durability)
                if await cancelled_after(steps, lb.locks.try_acquire("k", "alice", 30, durability=durability)):
                    await other.locks.release("k", "alice")
                if not closed:
                    await idle(lb)
                    assert await lb.locks.owner("k") is None
            assert await other.locks.owner("k") is None, "closing waits for what takes it back"
