"""Promise 10: `release_all(owner)` is O(owned), one round trip a shard, exact and idempotent."""

from __future__ import annotations

import asyncio

from lockbeat import Lockbeat
from tests.conftest import Backend, Connect, only


async def test_it_is_exact_over_several_pages(lb: Lockbeat) -> None:
    await asyncio.gather(*(lb.locks.try_acquire(f"k{n}", "alice", 30) for n in range(1203)))
    await asyncio.gather(*(lb.locks.try_acquire(f"b{n}", "bob", 30) for n in range(7)))
    assert len(await lb.locks.list("alice")) == 1203
    assert len(await lb.locks.list()) == 1210
    assert await lb.locks.release_all("alice") == 1203
    assert await lb.locks.release_all("alice") == 0
    assert len(await lb.locks.list()) == 7


async def test_two_at_once_count_each_lock_once(lb: Lockbeat, connect: Connect) -> None:
    await asyncio.gather(*(lb.locks.try_acquire(f"k{n}", "alice", 30) for n in range(700)))
    async with connect() as other:
        counts = await asyncio.gather(lb.locks.release_all("alice"), other.locks.release_all("alice"))
    assert sum(counts) == 700


async def test_whoever_waits_goes_on_at_once(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        for n in range(3):
            await lb.locks.try_acquire(f"k{n}", "alice", 600)
        waiting = [asyncio.create_task(other.lock(f"k{n}", wait=5).__aenter__()) for n in range(3)]
        while sum(len(room.waiters) for room in other.locks._room._rooms.values()) < 3:
            await asyncio.sleep(0)
        await other.store.server_time()  # a round trip: they are in the queue
        assert await lb.locks.release_all("alice") == 3
        leases = await asyncio.wait_for(asyncio.gather(*waiting), 2)
        assert {lease.owner for lease in leases} == {other.owner}
        assert await lb.locks.release_all("alice") == 0
        assert await other.locks.release_all(other.owner) == 3


@only("valkey", "redis", "cluster")
async def test_it_is_one_script_call_a_shard_and_never_scans(lb: Lockbeat, backend: Backend) -> None:
    await asyncio.gather(*(lb.locks.try_acquire(f"k{n}", "alice", 30) for n in range(50)))
    await lb.locks.release_all("nobody")  # loads the script
    before = backend.calls()
    assert await lb.locks.release_all("alice") == 50
    after = backend.calls()
    spent = {name: after[name] - before.get(name, 0) for name in after}
    assert spent["evalsha"] == backend.shards
    assert not any(spent.get(name) for name in ("keys", "scan", "hscan", "zscan", "hgetall", "eval"))


@only("valkey")
async def test_its_cost_does_not_grow_with_what_others_hold(lb: Lockbeat, backend: Backend) -> None:
    async def cost() -> dict[str, int]:
        for n in range(5):
            await lb.locks.try_acquire(f"a{n}", "alice", 30)
        await lb.locks.release_all("nobody")
        before = backend.calls()
        await lb.locks.release_all("alice")
        after = backend.calls()
        return {name: after[name] - before.get(name, 0) for name in ("hget", "hset", "zadd", "zrem")}

    alone = await cost()
    await asyncio.gather(*(lb.locks.try_acquire(f"b{n}", "bob", 30) for n in range(2000)))
    assert await cost() == alone
