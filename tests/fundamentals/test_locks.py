"""Locks, for a newcomer: one concept a test, public API only."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lockbeat import LeaseLost, Lockbeat
from lockbeat.errors import LockTimeout
from tests.conftest import Connect


async def test_a_lock_is_held_while_its_block_runs(lb: Lockbeat) -> None:
    async with lb.lock("report", ttl=30) as lease:
        assert (lease.key, lease.owner) == ("report", lb.owner)
        assert await lb.locks.owner("report") == lb.owner
    assert not await lb.locks.is_locked("report")


async def test_whoever_comes_second_waits_for_the_first(lb: Lockbeat) -> None:
    order = []

    async def worker(name: str) -> None:
        async with lb.lock("report"):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            order.append(f"{name} out")

    await asyncio.gather(worker("first"), worker("second"))
    assert order == ["first in", "first out", "second in", "second out"]


async def test_wait_zero_tries_once(lb: Lockbeat) -> None:
    async with lb.lock("report"):
        with pytest.raises(LockTimeout, match="report"):
            async with lb.lock("report", wait=0):
                pytest.fail("two handles held one lock")


async def test_waiting_ends_after_the_seconds_you_allow(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other, other.lock("report"):
        with pytest.raises(TimeoutError):
            async with lb.lock("report", wait=timedelta(milliseconds=30)):
                pytest.fail("two instances held one lock")


async def test_each_new_ownership_has_a_higher_fence(lb: Lockbeat) -> None:
    fences = []
    for _ in range(3):
        async with lb.lock("report") as lease:
            fences.append(lease.fence)
    assert fences == sorted(set(fences))


async def test_a_lock_that_is_lost_cancels_the_block_and_says_so(lb: Lockbeat) -> None:
    with pytest.raises(LeaseLost) as caught:
        async with lb.lock("report", ttl=0.3):
            await lb.locks.release("report", lb.owner)  # as an operator would, with `lockbeat release-all`
            await asyncio.sleep(30)
    assert caught.value.key == "report"


async def test_the_plain_verbs_take_renew_and_release(lb: Lockbeat) -> None:
    lease = await lb.locks.try_acquire("report", "alice", 30)
    assert lease is not None
    assert await lb.locks.try_acquire("report", "bob", 30) is None
    assert await lb.locks.renew("report", "alice", 60)
    assert [held.key for held in await lb.locks.list("alice")] == ["report"]
    assert not await lb.locks.release("report", "bob")
    assert await lb.locks.release("report", "alice")


async def test_an_owner_gives_back_all_it_holds_in_one_call(lb: Lockbeat) -> None:
    for key in ("a", "b", "c"):
        await lb.locks.try_acquire(key, "alice", 30)
    await lb.locks.try_acquire("d", "bob", 30)
    assert await lb.locks.release_all("alice") == 3
    assert await lb.locks.owner("d") == "bob"
