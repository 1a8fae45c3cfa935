"""Promise 7: a lease is trusted only until its deadline, and whoever lost it is told by then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from lockbeat import LeaseLost, Lockbeat
from lockbeat.leases.keeper import GONE, OVERDUE
from lockbeat.leases.lease import NOBODY, Held
from lockbeat.store.rows import Row
from tests.conftest import Connect, only, wait_until
from tests.keeping import hurry, kept, renewed
from tests.servers import Server


def test_trust_ends_before_the_lease_and_counts_from_before_the_request() -> None:
    held = Held(Row(), 0, 30.0, 0.0, NOBODY)
    held.taken(100.0)
    assert held.trusted_until == 100 + 30 - 1  # no more than a second's margin
    held.ttl = 2.0
    held.taken(100.0)
    assert held.trusted_until == pytest.approx(100 + 2 - 0.1)
    held.taken(100.0, ttl=1.0)
    assert held.trusted_until == pytest.approx(100 + 1 - 0.05)


async def test_a_block_is_cancelled_when_its_lock_is_gone(lb: Lockbeat) -> None:
    cancelled = False
    with pytest.raises(LeaseLost) as caught:
        async with lb.lock("k"):
            await lb.locks.release("k", lb.owner)
            hurry(lb)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled = True
                raise
    assert cancelled
    assert (caught.value.key, caught.value.owner, caught.value.reason) == ("k", lb.owner, GONE)
    assert caught.value.fence > 0


async def test_the_loss_does_not_leak_a_cancellation_into_the_caller(lb: Lockbeat) -> None:
    with pytest.raises(LeaseLost):
        async with lb.lock("k"):
            await lb.locks.release("k", lb.owner)
            hurry(lb)
            await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    async with asyncio.timeout(30):
        await asyncio.sleep(0.001)


async def test_the_blocks_own_error_comes_first_with_the_loss_as_a_note(lb: Lockbeat) -> None:
    with pytest.raises(RuntimeError, match="my own") as caught:
        async with lb.lock("k"):
            await lb.locks.release("k", lb.owner)
            hurry(lb)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise RuntimeError("my own") from None
    assert any("lease on 'k'" in note and "is lost" in note for note in caught.value.__notes__)


async def test_an_error_without_a_loss_passes_unchanged_and_releases(lb: Lockbeat) -> None:
    with pytest.raises(RuntimeError, match="my own") as caught:
        async with lb.lock("k"):
            raise RuntimeError("my own")
    assert not hasattr(caught.value, "__notes__")
    assert not await lb.locks.is_locked("k")


async def test_a_cancellation_from_outside_stays_a_cancellation(lb: Lockbeat) -> None:
    entered = asyncio.Event()

    async def body() -> None:
        async with lb.lock("k"):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel("outside")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await lb.locks.is_locked("k")


async def test_a_block_that_ends_after_its_lock_was_taken_away_is_told(lb: Lockbeat) -> None:
    handle = lb.lock("k", ttl=30)
    with pytest.raises(LeaseLost, match="before the block did"):
        async with handle:
            await lb.locks.release("k", lb.owner)
    assert handle.lost


@only("valkey")
async def test_a_block_that_blocks_the_event_loop_for_longer_than_its_lease_keeps_its_lock(
    lb: Lockbeat, connect: Connect
) -> None:
    async with lb.lock("k", ttl=4) as lease:
        time.sleep(5)  # noqa: ASYNC251 - the point
        async with connect() as other:
            assert await other.locks.owner("k") == lb.owner
            assert await other.locks.try_acquire("k", "rival", 1) is None
            assert [held.fence for held in await other.locks.list()] == [lease.fence]


async def test_each_renewal_gives_the_whole_lease_again(lb: Lockbeat) -> None:
    async with lb.lock("k") as lease:
        ends = lease.expires_at
        for _ in range(5):
            await renewed(lb)
            [held] = await lb.locks.list()
            assert held.fence == lease.fence
            assert held.expires_at >= await lb.store.server_time() + 30 - 15
            assert held.expires_at >= ends
            ends = held.expires_at


@pytest.mark.parametrize("harm", [Server.freeze, Server.kill], ids=["hangs", "is dead"])
async def test_while_the_store_is_away_a_block_is_cancelled_by_the_deadline(
    server: Server, namespace: str, harm: Callable[[Server], None]
) -> None:
    """Not at the first error, and not after waiting for a store that does not answer."""
    async with Lockbeat(server.url, namespace=namespace, timeout=60) as lb:
        with pytest.raises(LeaseLost) as caught:
            async with lb.lock("k", ttl=1.5):
                harm(server)
                held = kept(lb)
                try:
                    await asyncio.sleep(60)
                finally:
                    assert time.monotonic() >= held.trusted_until
        assert time.monotonic() < held.trusted_until + 30
        assert caught.value.reason == OVERDUE
        await asyncio.to_thread(server.restart)


async def test_a_store_that_comes_back_in_time_costs_nothing(
    server: Server, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "lockbeat")
    async with Lockbeat(server.url, namespace=namespace, timeout=1) as lb, lb.lock("k") as lease:
        server.freeze()
        hurry(lb)
        await wait_until(lambda: "could not renew" in caplog.text, "a renewal was not answered in time")
        server.thaw()
        await renewed(lb)
        assert [held.fence for held in await lb.locks.list()] == [lease.fence]


async def test_a_lease_that_ran_out_while_the_loop_was_blocked_is_reported(server: Server, namespace: str) -> None:
    """The block never reached an await at which it could have been cancelled, and the store can't be asked either."""
    async with Lockbeat(server.url, namespace=namespace, timeout=1) as lb:
        with pytest.raises(LeaseLost):
            async with lb.lock("k", ttl=1):
                server.freeze()
                time.sleep(1.1)  # noqa: ASYNC251 - the point
        server.thaw()


async def test_work_that_was_done_in_time_is_no_error_when_the_store_dies_before_the_release(
    server: Server, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Lockbeat(server.url, namespace=namespace, timeout=1) as lb:
        async with lb.lock("k", ttl=30):
            server.kill()
        assert "could not release 'k'" in caplog.text


async def test_losing_one_lock_leaves_the_others_alone(lb: Lockbeat) -> None:
    done: dict[str, Any] = {}
    over = asyncio.Event()

    async def body(key: str) -> None:
        try:
            async with lb.lock(key):
                await over.wait()
            done[key] = "held"
        except LeaseLost:
            done[key] = "lost"

    tasks = [asyncio.create_task(body(f"k{n}")) for n in range(6)]
    await wait_until(lambda: len(lb.keeper) == 6, "all are held")
    await lb.locks.release("k3", lb.owner)
    hurry(lb)
    await wait_until(lambda: done, "its block is told")
    await renewed(lb)
    over.set()
    await asyncio.gather(*tasks)
    assert done == {f"k{n}": "lost" if n == 3 else "held" for n in range(6)}
