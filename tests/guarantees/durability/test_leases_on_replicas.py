"""What was answered under `durability=` is where it was asked to be; else NotDurable, and nothing is held."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lockbeat import Claim, Durability, Lockbeat, NotDurable
from lockbeat.errors import LockTimeout
from lockbeat.store.scripts import load
from tests import servers
from tests.conftest import needs, wait_until
from tests.guarantees.conftest import Pair, started
from tests.guarantees.durability.replicas import ONE, SOON


async def test_an_acknowledged_lock_is_on_the_replica(pair: Pair, lb: Lockbeat) -> None:
    lease = await lb.locks.try_acquire("k", "alice", 30, durability=ONE)
    assert lease is not None
    held = pair.replica.call("HGET", lb.store.keys.key(0, "lock"), "k")
    assert str(lease.fence) in str(held)
    assert pair.calls("wait") > 0


@needs("valkey")
async def test_an_acknowledged_lock_outlives_the_primary(namespace: str) -> None:
    with started(servers.valkey_binary()) as pair:
        async with Lockbeat(pair.primary.url, namespace=namespace) as lb:
            lease = await lb.locks.try_acquire("k", "alice", 30, durability=ONE)
            pair.primary.kill()
        pair.replica.call("REPLICAOF", "NO", "ONE")
        async with Lockbeat(pair.replica.url, namespace=namespace) as lb:
            assert await lb.locks.try_acquire("k", "bob", 30) is None
            assert await lb.locks.list() == [lease]


@pytest.mark.parametrize("how", ["try_acquire", "lock", "once"])
async def test_without_enough_replicas_nothing_is_held(pair: Pair, lb: Lockbeat, how: str) -> None:
    two = Durability(replicas=2, timeout=0.05)
    with pytest.raises(NotDurable, match=r"[01] of 2 replicas have it after 0\.05 s"):
        if how == "try_acquire":
            await lb.locks.try_acquire("k", "alice", 30, durability=two)
        else:
            await lb.lock("k", wait=None if how == "lock" else 0, durability=two).__aenter__()
    key = lb.store.keys.key(0, "lock")
    # A blocking client, so that nothing more is sent meanwhile.
    assert pair.primary.call("EVAL", load("lock/owner").source, 1, key, "k") == [[]], "by the time that the error is raised"
    assert not lb.locks._room._waiters


async def test_what_is_taken_back_is_not_asked_for_again(pair: Pair, lb: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that reconnects has all who wait ask again; also at this moment."""
    undo = lb.store.undo

    def undo_and_reconnect(*args: Any, **options: Any) -> Any:
        undone = undo(*args, **options)
        lb.locks._room._on_gap()
        return undone

    monkeypatch.setattr(lb.store, "undo", undo_and_reconnect)
    with pytest.raises(NotDurable):
        await lb.lock("k", durability=Durability(replicas=2, timeout=0.05)).__aenter__()
    assert await lb.locks.owner("k") is None


async def test_a_frozen_replica_is_none(pair: Pair, lb: Lockbeat, other: Lockbeat) -> None:
    pair.replica.freeze()
    with pytest.raises(NotDurable, match="0 of 1 replicas"):
        async with lb.lock("k", durability=SOON):
            pytest.fail("it was held")
    assert await other.locks.try_acquire("k", "bob", 30)
    pair.replica.thaw()
    assert await other.locks.release("k", "bob")
    async with lb.lock("k", durability=ONE) as lease:
        assert await other.locks.list() == [lease]


async def test_what_the_owner_had_before_stays(pair: Pair, lb: Lockbeat) -> None:
    first = await lb.locks.try_acquire("k", "alice", 30)
    assert first is not None
    pair.replica.freeze()
    with pytest.raises(NotDurable):
        await lb.locks.try_acquire("k", "alice", 30, durability=SOON)
    assert [lease.fence for lease in await lb.locks.list()] == [first.fence]


@pytest.mark.parametrize("how", ["try_acquire", "once"])
async def test_a_refusal_waits_for_nothing(pair: Pair, lb: Lockbeat, how: str) -> None:
    """For as long as the replica is frozen, and that is until the test is over."""
    await lb.locks.try_acquire("k", "alice", 30)
    pair.replica.freeze()
    async with asyncio.timeout(30):
        if how == "try_acquire":
            assert await lb.locks.try_acquire("k", "bob", 30, durability=ONE) is None
        else:
            with pytest.raises(LockTimeout):
                await lb.lock("k", wait=0, durability=ONE).__aenter__()


# Claims


async def test_an_acknowledged_claim_is_on_the_replica(pair: Pair, lb: Lockbeat) -> None:
    claim = await lb.claims.acquire("k", "alice", durability=ONE)
    assert isinstance(claim, Claim)
    async with lb.claims.hold("other", durability=ONE) as handle:
        for fence in (claim.fence, handle.fence):
            assert str(fence) in str(pair.replica.call("HVALS", lb.store.keys.key(0, "claim")))


async def test_a_claim_that_is_not_durable_is_not_claimed_and_its_attempt_does_not_count(
    pair: Pair, lb: Lockbeat, other: Lockbeat
) -> None:
    pair.replica.freeze()
    with pytest.raises(NotDurable):
        await lb.claims.acquire("k", "alice", durability=SOON)
    assert await other.claims.is_claimed("k") is None
    with pytest.raises(NotDurable):
        async with lb.claims.hold("k", durability=SOON):
            pytest.fail("it was claimed")
    claim = await other.claims.acquire("k", "bob")
    assert isinstance(claim, Claim)
    assert (claim.attempt, claim.outcome) == (1, "acquired")
    async with asyncio.timeout(30):  # a refusal waits for nothing
        assert not await lb.claims.acquire("k", "alice", durability=ONE)


async def test_a_cancelled_durable_claim_is_nobodys(pair: Pair, lb: Lockbeat, other: Lockbeat) -> None:
    pair.replica.freeze()
    task = asyncio.create_task(lb.claims.acquire("k", "alice", durability=ONE))
    await wait_until(pair.blocked, "the server waits for the replica")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(30):
        while await other.claims.is_claimed("k"):
            await asyncio.sleep(0.001)
    assert pair.blocked(), "and that did not take until the wait was over"
