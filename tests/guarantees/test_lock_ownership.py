"""Promise 3: only the owner renews or releases, and renewal never revives. Promise 4: only the server's clock decides."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest
import time_machine

from lockbeat import LeaseLost, Lockbeat
from lockbeat.errors import LockbeatError
from tests.conftest import Backend, Connect, only, wait_until
from tests.keeping import hurry, renewed


async def test_two_handles_of_one_owner_exclude_each_other(lb: Lockbeat) -> None:
    async with lb.lock("k"):
        with pytest.raises(TimeoutError):
            await lb.lock("k", wait=0.02).__aenter__()


async def test_a_handle_in_use_refuses_a_second_block(lb: Lockbeat) -> None:
    handle = lb.lock("k")
    async with handle as lease:
        with pytest.raises(LockbeatError, match=r"handle on 'k' is in use; make one for each block"):
            await handle.__aenter__()
        assert handle.lease is lease
        assert await lb.locks.owner("k") == lb.owner
    async with handle:
        assert not handle.lost


async def test_a_handle_that_already_waits_refuses_a_second_task(lb: Lockbeat) -> None:
    handle = lb.lock("k")

    async def hold() -> None:
        async with handle:
            assert await lb.locks.owner("k") == lb.owner

    async with lb.lock("k"):
        waiting = asyncio.create_task(hold())
        await asyncio.sleep(0)
        with pytest.raises(LockbeatError, match="in use"):
            await handle.__aenter__()
    await waiting
    assert not await lb.locks.is_locked("k")


async def test_a_handle_does_not_release_what_its_owner_took_since(lb: Lockbeat) -> None:
    """Same owner, another ownership: the token tells them apart."""
    with pytest.raises(LeaseLost):
        async with lb.lock("k", ttl=30):
            await lb.locks.release("k", lb.owner)
            assert await lb.locks.try_acquire("k", lb.owner, 30)
    assert await lb.locks.owner("k") == lb.owner


async def test_renewal_of_a_handle_never_takes_over_its_owners_next_lease(lb: Lockbeat) -> None:
    with pytest.raises(LeaseLost):
        async with lb.lock("k"):
            await lb.locks.release("k", lb.owner)
            lease = await lb.locks.try_acquire("k", lb.owner, 30)
            hurry(lb)
            await asyncio.sleep(60)
    assert await lb.locks.list() == [lease]


@pytest.mark.parametrize("hours", [-1, 1])
@only("valkey", "redis", "cluster")
async def test_a_client_clock_an_hour_off_changes_nothing(connect: Connect, raw: Any, backend: Backend, hours: float) -> None:
    away = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
    async with connect() as right:
        with time_machine.travel(away):
            async with connect() as wrong:
                before = await right.store.server_time()
                lease = await wrong.locks.try_acquire("k", "wrong", 30)
                assert lease is not None
                assert await right.locks.try_acquire("k", "right", 30) is None
                assert await wrong.locks.renew("k", "wrong", 30)
                after = await right.store.server_time()
                assert before <= lease.expires_at - 30 + 0.0001 <= after + 0.001
                assert before <= lease.fence / 1e6 < after + 0.001
                await wrong.locks.try_acquire("brief", "wrong", 0.01)
                while await wrong.locks.is_locked("brief"):
                    await asyncio.sleep(0.002)
                taken = await right.locks.try_acquire("brief", "right", 30)
                assert taken is not None
                assert await wrong.locks.try_acquire("brief", "wrong", 30) is None
                async with wrong.lock("held"):
                    await renewed(wrong, 3)
                    assert await right.locks.owner("held") == wrong.owner


async def test_a_block_keeps_its_lock_when_its_owner_also_takes_it_by_hand(lb: Lockbeat) -> None:
    async with lb.lock("k") as lease:
        again = await lb.locks.try_acquire("k", lb.owner, 30)
        assert again is not None
        assert again.fence == lease.fence
        await renewed(lb, 2)
        assert await lb.locks.owner("k") == lb.owner
    assert not await lb.locks.is_locked("k")


async def test_unlock_gives_back_what_was_seen_and_nothing_that_was_taken_since(lb: Lockbeat) -> None:
    first = await lb.locks.try_acquire("report", "gone", 60)
    assert first is not None
    assert await lb.locks.holder("report") == first
    assert await lb.locks.release("report", "gone")
    again = await lb.locks.try_acquire("report", "gone", 60)
    assert again is not None
    assert not await lb.locks.unlock(first), "the same owner has taken it again: another fence"
    assert not await lb.locks.unlock(again._replace(owner="another"))
    assert await lb.locks.owner("report") == "gone"
    assert await lb.locks.unlock(again)
    assert await lb.locks.holder("report") is None
    assert not await lb.locks.unlock(again)
    assert await lb.locks.release_all("gone") == 0


async def test_unlock_hands_the_lock_to_the_first_who_waits_and_its_holder_is_told(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        entered = asyncio.Event()

        async def hold() -> None:
            async with other.lock("report", ttl=30):
                entered.set()
                await asyncio.sleep(60)

        holding = asyncio.create_task(hold())
        await entered.wait()
        [lease] = await lb.locks.list()
        waiting = asyncio.create_task(lb.lock("report", ttl=30, wait=30).__aenter__())
        await wait_until(lambda: lb.locks._room._waiters, "another waits")
        assert await lb.locks.unlock(lease)
        got = await waiting
        assert got.fence > lease.fence
        hurry(other)
        with pytest.raises(LeaseLost):
            await holding
        await lb.locks.unlock(got)
