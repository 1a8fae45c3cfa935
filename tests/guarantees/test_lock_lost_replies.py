"""Promise 8: a call whose reply was lost is repeated, and gives the first outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lockbeat import Lockbeat
from lockbeat.store.scripts import load
from tests.conftest import only, wait_until
from tests.proxy import Proxy

pytestmark = only("valkey", "redis")


def calls_of(script: str) -> Callable[[bytes], bool]:
    """Whether a request runs that script: by its digest, or first on a connection by its source."""
    digest, source = load(script).sha.encode(), f"-- {script}: ".encode()
    return lambda request: digest in request or source in request


@pytest.mark.parametrize("times", [1, 3])
async def test_try_acquire_grants_once(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    await lb.locks.is_locked("k")
    lossy.lose_reply(calls_of("lock/try_acquire"), times)
    lease = await client.locks.try_acquire("k", "alice", 30)
    assert lossy.lost == times
    assert lease is not None
    assert await lb.locks.list() == [lease]
    again = await client.locks.try_acquire("k", "alice", 30)
    assert again is not None
    assert again.fence == lease.fence


async def test_a_handle_that_lost_the_reply_holds_what_it_was_granted(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    """Handles exclude each other, so the repeat must know itself by its token, or it would wait for itself."""
    lossy.lose_reply(calls_of("lock/try_acquire"))
    async with asyncio.timeout(2), client.lock("k", ttl=30) as lease:
        assert lossy.lost == 1
        assert [held.fence for held in await lb.locks.list()] == [lease.fence]
    assert not await lb.locks.is_locked("k")


async def test_release_is_true_though_it_had_been_released_by_then(client: Lockbeat, lossy: Proxy) -> None:
    await client.locks.try_acquire("k", "alice", 30)
    lossy.lose_reply(calls_of("lock/release"))
    assert await client.locks.release("k", "alice") is True
    assert lossy.lost == 1
    assert await client.locks.release("k", "alice") is False


async def test_release_is_true_though_others_have_held_the_lock_since(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    await client.locks.try_acquire("k", "alice", 30)
    lossy.lose_reply(calls_of("lock/release"), 3)
    releasing = asyncio.create_task(client.locks.release("k", "alice"))
    await wait_until(lambda: lossy.lost, "the reply is lost")
    for owner in ("bob", "carol", "dave"):
        assert await lb.locks.try_acquire("k", owner, 30)
        assert await lb.locks.release("k", owner)
    erin = await lb.locks.try_acquire("k", "erin", 30)
    assert not releasing.done()
    assert await releasing is True
    assert await lb.locks.list() == [erin]


async def test_a_block_is_not_told_of_a_loss_that_was_its_own_release(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    async with client.lock("k", ttl=30):
        lossy.lose_reply(calls_of("lock/release"), 2)
        rivals = asyncio.Event()
        lossy.on_lost = rivals.set

        async def rival() -> None:
            await rivals.wait()
            for owner in ("bob", "carol"):
                assert await lb.locks.try_acquire("k", owner, 30)
                assert await lb.locks.release("k", owner)

        task = asyncio.create_task(rival())
    await asyncio.wait_for(task, 5)
    assert lossy.lost == 2


async def test_a_repeated_release_does_not_release_the_next_owner(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    """Even of the same name."""
    await client.locks.try_acquire("k", "alice", 30)
    lossy.lose_reply(calls_of("lock/release"))
    releasing = asyncio.create_task(client.locks.release("k", "alice"))
    await wait_until(lambda: lossy.lost, "the reply is lost")
    next_one = await lb.locks.try_acquire("k", "bob", 30)
    assert await releasing is True
    assert await lb.locks.list() == [next_one]


async def test_renew_is_true(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    await client.locks.try_acquire("k", "alice", 1)
    lossy.lose_reply(calls_of("lock/renew"))
    assert await client.locks.renew("k", "alice", 60) is True
    assert lossy.lost == 1
    [lease] = await lb.locks.list()
    assert lease.expires_at > await lb.store.server_time() + 50


async def test_release_all_counts_what_the_first_call_released(client: Lockbeat, lossy: Proxy) -> None:
    await asyncio.gather(*(client.locks.try_acquire(f"k{n}", "alice", 30) for n in range(620)))
    for page in (0, 1):
        lossy.lose_reply(calls_of("lock/release_all"))
        count = await client.locks.release_all("alice")
        assert count == (620 if page == 0 else 0)
    assert lossy.lost == 2


async def test_a_whole_batch_survives_a_lost_reply(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    lossy.lose_reply(calls_of("lock/try_acquire"))
    leases = await asyncio.gather(*(client.locks.try_acquire(f"k{n}", "alice", 30) for n in range(64)))
    assert lossy.lost >= 1
    listed = await lb.locks.list("alice")
    assert sorted((lease.fence for lease in leases if lease), key=int) == sorted(lease.fence for lease in listed)
    assert len(listed) == 64


async def test_a_waiter_whose_connection_breaks_keeps_its_wait(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    assert await lb.locks.try_acquire("k", "holder", 30)
    waiting = asyncio.create_task(client.lock("k", wait=5).__aenter__())
    await wait_until(lambda: client.locks._room._rooms.get("k"), "it waits")
    await client.store.server_time()
    lossy.cut()
    assert await lb.locks.release("k", "holder")
    lease = await asyncio.wait_for(waiting, 3)
    assert await lb.locks.list() == [lease]
