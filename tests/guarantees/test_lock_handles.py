"""Where a handle is entered and left, and what those who wait beside it get."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from lockbeat import LeaseLost, Lockbeat
from lockbeat.errors import InvalidArgument
from tests.conftest import Connect, only, wait_until
from tests.keeping import hurry


async def test_a_handle_may_be_left_by_another_task_than_entered_it(lb: Lockbeat) -> None:
    """As the teardown of a pytest-asyncio fixture does."""
    handle = lb.lock("k")
    await asyncio.create_task(handle.__aenter__())
    assert await lb.locks.is_locked("k")
    await asyncio.create_task(handle.__aexit__(None, None, None))
    assert not await lb.locks.is_locked("k")


async def test_handles_may_be_left_in_the_order_they_were_entered(lb: Lockbeat) -> None:
    """Hand over hand along a chain."""
    first, second = lb.lock("a"), lb.lock("b")
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    assert [lease.key for lease in await lb.locks.list()] == ["b"]
    await second.__aexit__(None, None, None)


async def test_a_loss_and_a_cancellation_from_outside_are_told_apart(lb: Lockbeat) -> None:
    async def body() -> None:
        async with lb.lock("k"):
            await asyncio.sleep(30)

    held = asyncio.create_task(body())
    await asyncio.sleep(0)
    while not await lb.locks.is_locked("k"):
        await asyncio.sleep(0.01)
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    assert not await lb.locks.is_locked("k")

    async with asyncio.timeout(45):
        with pytest.raises(LeaseLost):
            async with lb.lock("k"):
                await lb.locks.release_all(lb.owner)
                hurry(lb)
                await asyncio.sleep(60)
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0  # a TaskGroup around it would else take itself for cancelled


@only("valkey")
async def test_when_the_first_waiter_of_a_process_loses_what_it_got_the_second_still_gets_it(connect: Connect, raw: Any) -> None:
    entered: list[str] = []

    async def wait(client: Lockbeat, name: str) -> None:
        with contextlib.suppress(LeaseLost):
            async with client.lock("k", ttl=0.6):
                entered.append(name)
                if name == "first":
                    raw.flushall()  # nobody is told
                    await asyncio.sleep(30)

    async with connect() as client:
        assert await client.locks.try_acquire("k", "dead", 0.3)  # nobody releases it: a timer finds out
        async with asyncio.TaskGroup() as group:
            group.create_task(wait(client, "first"))
            await asyncio.sleep(0.05)
            group.create_task(wait(client, "second"))
            await wait_until(lambda: entered == ["first", "second"], "both were in")


@only("valkey")
async def test_after_flushall_a_newcomer_does_not_guess_how_many_shards_there_are(raw: Any, url: str, namespace: str) -> None:
    async with Lockbeat(url, namespace=namespace, shards=4) as first:
        raw.flushall()
        for key in range(8):  # in use again, on several shards
            assert await first.locks.try_acquire(f"k{key}", "first", 30)
        with pytest.raises(InvalidArgument, match="shards"):
            async with Lockbeat(url, namespace=namespace):
                pass
        async with Lockbeat(url, namespace=namespace, shards=4) as second:
            assert await second.locks.try_acquire("k0", "second", 30) is None
        async with Lockbeat(url, namespace=namespace) as third:  # by now it says so again
            assert third.store.shards == 4


@only("memory", "valkey")
async def test_a_store_of_one_shard_in_use_is_not_split(url: str, namespace: str) -> None:
    async with Lockbeat(url, namespace=namespace) as first:
        assert await first.locks.try_acquire("k", "first", 30)
        with pytest.raises(InvalidArgument, match="has 1, not 4"):
            async with Lockbeat(url, namespace=namespace, shards=4):
                pass
