"""Promise 2: a fence never repeats and never goes back for a key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import ScriptError
from lockbeat.store.keys import Keys, shard_of
from tests.conftest import Connect, only


def fence_key(lb: Lockbeat, key: str = "k") -> str:
    return Keys(lb.store.keys.namespace).key(shard_of(key, lb.store.shards), "fence")


async def take(lb: Lockbeat, owner: str, ttl: float = 30) -> int:
    lease = await lb.locks.try_acquire("k", owner, ttl)
    assert lease is not None
    assert lease.fence < 2**53
    return lease.fence


async def ended(lb: Lockbeat) -> None:
    async with asyncio.timeout(30):
        while await lb.locks.is_locked("k"):
            await asyncio.sleep(0.002)


async def test_a_fence_grows_after_release_and_after_expiry(lb: Lockbeat) -> None:
    fences = []
    for n in range(6):
        fences.append(await take(lb, f"o{n % 2}", 0.005))
        if n % 3:
            await lb.locks.release("k", f"o{n % 2}")
        await ended(lb)
    assert fences == sorted(set(fences))


@only("valkey", "redis")
async def test_a_busy_counter_does_not_run_ahead_of_the_clock(lb: Lockbeat, raw: Any) -> None:
    """Else the fence would go back when the counter is lost."""
    for _ in range(400):
        await lb.locks.try_acquire("k", "alice", 30)
        await lb.locks.release("k", "alice")
    await asyncio.gather(*(lb.locks.try_acquire(f"k{n}", "alice", 30) for n in range(512)))
    assert int(raw.get(fence_key(lb)).split()[0]) / 1e6 <= await lb.store.server_time() + 0.002
    first = await take(lb, "alice")
    raw.flushall()
    assert await take(lb, "bob") > first


async def test_acquiring_again_and_renewing_keep_the_fence(lb: Lockbeat) -> None:
    first = await take(lb, "alice")
    await lb.locks.renew("k", "alice", 60)
    assert await take(lb, "alice") == first
    assert [lease.fence for lease in await lb.locks.list()] == [first]


async def test_a_fence_grows_after_flushall(lb: Lockbeat, raw: Any) -> None:
    first = await take(lb, "alice")
    raw.flushall()
    assert await take(lb, "bob") > first


async def test_a_fence_grows_when_its_key_was_deleted(lb: Lockbeat, raw: Any) -> None:
    first = await take(lb, "alice")
    raw.delete(fence_key(lb))
    await lb.locks.release("k", "alice")
    assert await take(lb, "bob") > first


async def test_a_fence_grows_past_a_counter_from_the_future(lb: Lockbeat, raw: Any) -> None:
    """As after a clock that was wrong and was put right: the counter carries on until the clock has caught up."""
    future = 9_000_000_000_000_000
    raw.set(fence_key(lb), future)
    first = await take(lb, "alice")
    assert first == future + 1
    await lb.locks.release("k", "alice")
    assert first < await take(lb, "bob") < future + 10


async def test_a_counter_that_fell_back_is_overtaken_by_the_clock(lb: Lockbeat, raw: Any) -> None:
    """As after a failover that lost the last writes."""
    first = await take(lb, "alice")
    raw.set(fence_key(lb), first - 1000)
    await lb.locks.release("k", "alice")
    assert await take(lb, "bob") > first


async def test_a_fence_is_the_servers_time_in_microseconds_or_more(lb: Lockbeat) -> None:
    before = await lb.store.server_time()
    assert (await take(lb, "alice")) / 1e6 == pytest.approx(before, abs=10)


async def test_many_grants_in_one_microsecond_still_differ(lb: Lockbeat) -> None:
    leases = await asyncio.gather(*(lb.locks.try_acquire(f"k{n}", "alice", 30) for n in range(200)))
    fences = [(shard_of(lease.key, lb.store.shards), lease.fence) for lease in leases if lease is not None]
    assert len(set(fences)) == 200


async def test_fences_grow_along_a_queue_of_waiters(lb: Lockbeat, connect: Connect) -> None:
    fences = []

    async def worker(client: Lockbeat) -> None:
        async with client.lock("k", ttl=10) as lease:
            fences.append(lease.fence)

    async with connect() as other:
        await asyncio.gather(*(worker((lb, other)[n % 2]) for n in range(12)))
    assert fences == sorted(set(fences))
    assert len(fences) == 12


async def test_foreign_data_under_the_fence_is_an_error_not_a_grant(lb: Lockbeat, raw: Any) -> None:
    raw.set(fence_key(lb), "not a number")
    with pytest.raises(ScriptError):
        await lb.locks.try_acquire("k", "alice", 30)
    assert not await lb.locks.is_locked("k")
