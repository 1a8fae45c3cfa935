"""The keeper: many leases, few calls, and no loss before its time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Any

import pytest

from lockbeat import LeaseLost, Lockbeat
from lockbeat.leases.keeper import GONE, OVERDUE, Keeper
from lockbeat.leases.lease import NOBODY, Held, Holder, monotonic
from lockbeat.store.scripts import load
from tests.conftest import Backend, Connect, only, wait_until
from tests.keeping import hurry, renewed
from tests.servers import Server


def keeper_of(lb: Lockbeat) -> Keeper:
    assert lb._keeper is not None
    return lb._keeper


class Locked(Holder):
    """Takes a lock and gives it to the keeper, as a handle does; remembers what it is told."""

    def __init__(self, lb: Lockbeat, key: str, ttl: float) -> None:
        self.lb, self.key, self.ttl = lb, key, ttl
        self.told: list[str] = []
        self.token = lb.store.new_call()
        self.shard = lb.store.shard_of(key)

    def on_lost(self, reason: str) -> None:
        self.told.append(reason)

    async def hold(self) -> None:
        store, asked_at, ttl_ms = self.lb.store, monotonic(), round(self.ttl * 1000)
        args: dict[str, Any] = {"key": self.key, "owner": self.lb.owner, "token": self.token, "ttl_ms": ttl_ms}
        assert (await store.call("lock/try_acquire", self.shard, reentrant=0, channel="", **args)).fence
        self.held = Held(store.row["lock/renew"](**args), self.shard, self.ttl, 0.0, self)
        self.held.taken(asked_at)
        keeper_of(self.lb).hold(self.held)


async def holders(lb: Lockbeat, count: int, ttl: float) -> list[Locked]:
    made = [Locked(lb, f"k{n}", ttl) for n in range(count)]
    await asyncio.gather(*(holder.hold() for holder in made))
    return made


@only("valkey", "cluster")
async def test_what_is_due_together_is_renewed_in_one_call_a_shard(lb: Lockbeat, backend: Backend) -> None:
    await holders(lb, 200, 30)
    await renewed(lb)
    leases_before = [lease.expires_at for lease in await lb.locks.list()]
    before = backend.calls("evalsha")["evalsha"]
    await renewed(lb)
    assert backend.calls("evalsha")["evalsha"] - before == backend.shards
    leases = [lease.expires_at for lease in await lb.locks.list()]
    assert all(now > then for then, now in zip(leases_before, leases, strict=True))


@only("valkey")
async def test_more_than_a_scripts_share_is_split(lb: Lockbeat, backend: Backend) -> None:
    made = await holders(lb, load("lock/renew").most * 2 + 10, 30)
    await renewed(lb)
    before = backend.calls("evalsha")["evalsha"]
    await renewed(lb)
    assert backend.calls("evalsha")["evalsha"] - before == 3
    assert not any(holder.told for holder in made)
    assert len(await lb.locks.list()) == len(made)


async def test_renewal_of_a_released_lock_never_revives_it_and_its_holder_is_told_once(lb: Lockbeat) -> None:
    first, second = await holders(lb, 2, 30)
    assert await lb.locks.release(first.key, lb.owner)
    hurry(lb)
    await wait_until(lambda: first.told, "the loss is told")
    await renewed(lb, 2)
    assert first.told == [GONE]
    assert second.told == []
    assert not await lb.locks.is_locked(first.key)
    assert await lb.locks.is_locked(second.key)
    assert not keeper_of(lb).drop(first.held)
    assert keeper_of(lb).drop(second.held)


async def test_what_was_dropped_is_renewed_no_longer_and_never_told(lb: Lockbeat) -> None:
    [holder] = await holders(lb, 1, 0.5)
    assert keeper_of(lb).drop(holder.held)
    assert not keeper_of(lb).holds(holder.held)
    async with asyncio.timeout(30):
        while await lb.locks.is_locked(holder.key):
            await asyncio.sleep(0.01)
    assert holder.told == []


async def test_an_error_is_no_loss_until_the_deadline(server: Server, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "lockbeat")
    async with Lockbeat(server.url, namespace=namespace, timeout=1) as lb:
        [holder] = await holders(lb, 1, 30)
        await asyncio.to_thread(server.kill)
        hurry(lb)
        await wait_until(lambda: "could not renew 1 leases" in caplog.text, "a renewal failed")
        assert holder.told == []
        assert keeper_of(lb).holds(holder.held)
        holder.held.trusted_until = monotonic() + 0.5
        hurry(lb)
        await wait_until(lambda: holder.told, "the loss is told")
        assert monotonic() >= holder.held.trusted_until
        assert holder.told == [OVERDUE]


@only("memory")
async def test_a_tick_is_over_by_the_next_renewal_or_deadline(lb: Lockbeat) -> None:
    """So a loss is told by the deadline: the thread sleeps no longer than this."""
    keeper = Keeper(lb.store.connector, lb.store.keys, 1)
    row = lb.store.row["lock/renew"](key="k", owner="o", token="-", ttl_ms=30_000)
    leases = [Held(row, 0, 30, 0.0, NOBODY) for _ in range(3)]
    first, second, last = leases
    for held in leases:
        held.taken(monotonic())
        keeper._held[held] = asyncio.get_running_loop()
    first.trusted_until, second.renew_at = monotonic() + 4, monotonic() + 6
    assert 0 < (keeper.tick(lb.store) or 0) <= 4
    first.trusted_until = 0.0
    assert 4 < (keeper.tick(lb.store) or 0) <= 6, "a third of the lease of the last is ten"
    assert [keeper.holds(held) for held in leases] == [False, True, True]
    assert keeper.drop(second)
    assert 6 < (keeper.tick(lb.store) or 0) <= 10
    assert keeper.drop(last)
    assert keeper.tick(lb.store) is None


async def test_a_renewal_that_failed_is_tried_again_before_the_deadline(server: Server, namespace: str) -> None:
    async with Lockbeat(server.url, namespace=namespace) as lb:
        [holder] = await holders(lb, 1, 30)
        for _ in range(3):
            await renewed(lb)
            server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await renewed(lb)
        assert holder.told == []


async def test_a_lease_just_handed_over_gets_a_second_try(server: Server, namespace: str) -> None:
    """It was granted for two seconds of its thirty, and the first renewal fails."""
    async with Lockbeat(server.url, namespace=namespace, timeout=1) as lb:
        [holder] = await holders(lb, 1, 30)
        await lb.locks.renew(holder.key, lb.owner, 8)
        server.freeze()
        holder.held.taken(monotonic(), ttl=8)
        hurry(lb)
        await wait_until(lambda: holder.held.renew_at > 0, "the first try is on its way")
        assert holder.held.renew_at < holder.held.trusted_until - 4, "there is room for another"
        server.thaw()
        server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await wait_until(lambda: holder.told or holder.held.trusted_until > monotonic() + 15, "renewed or lost")
        assert holder.told == []


async def test_no_thread_is_started_until_something_is_held(lb: Lockbeat) -> None:
    def threads() -> int:
        return sum(thread.name == "lockbeat keeper" for thread in threading.enumerate())

    await lb.locks.try_acquire("k", "alice", 30)
    assert threads() == 0
    async with lb.lock("k2"):
        assert threads() == 1


async def test_its_thread_ends_with_the_client(connect: Connect) -> None:
    async with connect() as lb, lb.lock("k"):
        pass
    assert not any(thread.name == "lockbeat keeper" for thread in threading.enumerate())


async def test_a_client_that_closes_under_a_block_ends_it_with_a_loss_and_soon(connect: Connect) -> None:
    lb = connect()
    await lb.__aenter__()
    held, closed = asyncio.Event(), asyncio.Event()

    async def body() -> None:
        async with lb.lock("k"):
            held.set()
            await closed.wait()

    task = asyncio.create_task(body())
    await held.wait()
    await lb.__aexit__(None, None, None)
    closed.set()
    with contextlib.suppress(asyncio.TimeoutError), pytest.raises(LeaseLost):
        await asyncio.wait_for(task, 30)
    assert task.done()


async def test_a_failing_tick_does_not_end_the_keeper(
    lb: Lockbeat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, failures = keeper_of(lb), [RuntimeError("once")]
    tick = keeper.tick

    def failing(calls: Any) -> float | None:
        if failures:
            raise failures.pop()
        return tick(calls)

    monkeypatch.setattr(keeper, "tick", failing)
    async with lb.lock("k") as lease:
        await renewed(lb)
        assert [held.fence for held in await lb.locks.list()] == [lease.fence]
    assert "the keeper failed, and goes on" in caplog.text
