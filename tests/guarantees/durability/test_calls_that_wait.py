"""Durable calls go over a connection of their own: what shares it, what goes ahead, and who gives up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lockbeat import Durability, Lockbeat, NotDurable
from lockbeat.errors import LockTimeout, ScriptError, StoreError
from tests.conftest import wait_until
from tests.guarantees.conftest import Pair
from tests.guarantees.durability.replicas import ONE, SOON, cancel_everywhere, free, in_queue, waiting


async def test_ordinary_calls_go_ahead_while_one_waits_for_its_replica(pair: Pair, lb: Lockbeat) -> None:
    task = await waiting(pair, lb)
    assert await lb.locks.owner("k") == "alice", "it is held from the start, by one who does not know yet"
    assert await lb.locks.try_acquire("other", "bob", 30)
    assert await lb.locks.release("other", "bob")
    async with lb.lock("other", wait=0):
        pass
    assert pair.blocked()
    assert not task.done()
    pair.replica.thaw()
    assert await task


async def test_calls_made_meanwhile_share_the_next_wait(pair: Pair, lb: Lockbeat) -> None:
    before = pair.calls("wait")
    first = await waiting(pair, lb)
    tasks = [asyncio.create_task(lb.locks.try_acquire(f"k{n}", "alice", 30, durability=ONE)) for n in range(300)]
    await asyncio.sleep(0)
    assert await lb.locks.owner("k0") is None
    pair.replica.thaw()
    leases = await asyncio.gather(first, *tasks)
    assert len({lease.fence for lease in leases if lease is not None}) == 301
    assert [lease.key for lease in leases[1:] if lease is not None] == [f"k{n}" for n in range(300)]
    assert pair.calls("wait") - before == 2


async def test_each_gets_what_it_asked_for(pair: Pair, lb: Lockbeat) -> None:
    """Of several made at once, that of two replicas is not met by one."""
    both = Durability(replicas=2, timeout=0.05)
    tasks = [lb.locks.try_acquire(f"k{n}", "alice", 30, durability=(ONE, both, None)[n % 3]) for n in range(9)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["Lease", "NotDurable", "Lease"] * 3
    assert {lease.key for lease in await lb.locks.list()} == {f"k{n}" for n in range(9) if n % 3 != 1}


async def test_a_call_of_many_groups_shares_its_runs_and_its_outcome(pair: Pair, lb: Lockbeat) -> None:
    row = lb.store.row
    args: dict[str, Any] = {"owner": "alice", "ttl_ms": 30_000, "reentrant": 1, "channel": ""}
    rows = [row["lock/try_acquire"](key=f"k{n}", token=f"t{n}", **args) for n in range(100)]
    replies = await asyncio.gather(
        lb.store.call_many_durably(rows, 0, ONE),
        lb.store.call_durably(row["lock/is_locked"](key="k3"), 0, ONE),
        lb.store.call_durably(row["store/open"](shards=0, format=0), 0, ONE),
        lb.store.call_many_durably(rows, 0, ONE),
    )
    assert [reply[0] for reply in replies[0]] == [reply[0] for reply in replies[3]]
    assert len({reply[0] for reply in replies[0]}) == 100
    assert replies[1] in (0, 1)
    assert replies[2][0] == 0
    with pytest.raises(NotDurable) as caught:
        asked = [row["lock/owner"](key=key) for key in ("k1", "x")]
        await lb.store.call_many_durably(asked, 0, Durability(replicas=2, timeout=0.05))
    assert [bool(reply) for reply in caught.value.reply] == [True, False]
    with pytest.raises(NotDurable) as caught:
        await lb.store.call_durably(row["store/open"](shards=0, format=0), 0, Durability(replicas=2, timeout=0.05))
    assert len(caught.value.reply) == 4


async def test_an_error_of_one_script_leaves_the_others(lb: Lockbeat, pair: Pair) -> None:
    pair.primary.call("SET", lb.store.keys.key(0, "fence"), "nonsense")
    results = await asyncio.gather(
        lb.locks.try_acquire("a", "alice", 30, durability=ONE),
        lb.store.call_durably(lb.store.row["lock/is_locked"](key="a"), 0, ONE),
        return_exceptions=True,
    )
    assert isinstance(results[0], ScriptError)
    assert results[1] == 0
    pair.primary.call("DEL", lb.store.keys.key(0, "fence"))


# What others wrote


async def test_a_call_that_finds_all_done_waits_for_those_who_did_it(pair: Pair, lb: Lockbeat, other: Lockbeat) -> None:
    """As one does that is repeated, on a new connection. WAIT alone counts what its own connection has written: nothing."""
    pair.replica.freeze()
    assert await other.locks.try_acquire("k", "alice", 30)
    with pytest.raises(NotDurable) as caught:
        await lb.store.call_durably(lb.store.row["lock/is_locked"](key="k"), 0, SOON)
    assert caught.value.reply == 1


async def test_a_lock_that_was_handed_over_is_waited_for_like_one_that_was_free(
    pair: Pair, lb: Lockbeat, other: Lockbeat
) -> None:
    entered = asyncio.Event()

    async def block() -> None:
        async with lb.lock("k", durability=ONE):
            entered.set()

    assert await other.locks.try_acquire("k", "alice", 30)
    task = asyncio.create_task(block())
    await wait_until(lambda: in_queue(pair, lb) == 1, "it waits")
    pair.replica.freeze()
    assert await other.locks.release("k", "alice")
    await wait_until(pair.blocked, "the server waits for the replica")
    assert await other.locks.owner("k") == lb.owner
    assert not entered.is_set()
    pair.replica.thaw()
    await task
    assert entered.is_set()


async def test_a_lock_that_was_handed_over_and_is_not_durable_goes_to_the_next(pair: Pair, lb: Lockbeat, other: Lockbeat) -> None:
    assert await other.locks.try_acquire("k", "alice", 30)
    task = asyncio.create_task(lb.lock("k", durability=SOON).__aenter__())
    await wait_until(lambda: in_queue(pair, lb) == 1, "it waits")
    next_one = asyncio.create_task(other.lock("k").__aenter__())
    await wait_until(lambda: in_queue(pair, lb) == 2, "the next one waits")
    pair.replica.freeze()
    assert await other.locks.release("k", "alice")
    with pytest.raises(NotDurable):
        await task
    lease = await asyncio.wait_for(next_one, 5)
    assert lease.owner == other.owner
    assert in_queue(pair, lb) == 0


# Cancelled


@pytest.mark.parametrize("how", ["cancelled", "out of time"])
async def test_who_gives_up_while_the_replica_is_waited_for_holds_nothing(
    pair: Pair, lb: Lockbeat, other: Lockbeat, how: str
) -> None:
    if how == "cancelled":
        task = await waiting(pair, lb)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        pair.replica.freeze()
        with pytest.raises(LockTimeout):
            await lb.lock("k", wait=0.1, durability=ONE).__aenter__()
    await free(other)
    assert pair.blocked(), "and that did not take until the wait was over"


async def test_a_call_that_is_cancelled_before_it_was_sent_is_never_sent(pair: Pair, lb: Lockbeat, other: Lockbeat) -> None:
    first = await waiting(pair, lb)
    task = asyncio.create_task(lb.locks.try_acquire("second", "alice", 30, durability=ONE))
    last = asyncio.create_task(lb.locks.try_acquire("third", "alice", 30, durability=ONE))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await lb.locks.owner("second")  # behind what takes it back
    pair.replica.thaw()
    assert await first
    assert await last
    assert {lease.key for lease in await other.locks.list()} == {"k", "third"}


@pytest.mark.parametrize("fresh", [False, True], ids=["connected", "not yet connected"])
@pytest.mark.parametrize("closed", [False, True], ids=["left open", "closed at once"])
async def test_a_cancelled_durable_call_leaves_no_lock(pair: Pair, namespace: str, fresh: bool, closed: bool) -> None:
    """As the first call of a client and as a later one."""
    await cancel_everywhere(pair.primary.url, namespace, ONE, fresh=fresh, closed=closed)


async def test_closing_does_not_wait_for_a_replica_that_nobody_waits_for(pair: Pair, namespace: str, other: Lockbeat) -> None:
    async with Lockbeat(pair.primary.url, namespace=namespace, timeout=60) as lb:
        task = await waiting(pair, lb)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        leaving = asyncio.timeout(10)  # ONE waits for 20 s
        await leaving.__aenter__()
    await leaving.__aexit__(None, None, None)
    await free(other)


async def test_closing_waits_for_what_takes_back_a_call_that_is_on_its_way(pair: Pair, namespace: str, other: Lockbeat) -> None:
    async with Lockbeat(pair.primary.url, namespace=namespace) as lb:
        await lb.locks.try_acquire("warm", "alice", 30, durability=ONE)
        pair.primary.freeze()
        task = asyncio.create_task(lb.locks.try_acquire("k", "alice", 30, durability=ONE))
        await wait_until(lambda: lb.store.unanswered(0), "it was sent")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        lb.store.loop.call_later(0.05, pair.primary.thaw)
    assert await other.locks.owner("k") is None


async def test_who_waits_when_the_client_is_closed_is_told(pair: Pair, namespace: str, other: Lockbeat) -> None:
    async with Lockbeat(pair.primary.url, namespace=namespace, timeout=1) as lb:
        task = await waiting(pair, lb)
        queued = asyncio.create_task(lb.locks.try_acquire("second", "alice", 30, durability=ONE))
        await asyncio.sleep(0)
    for each in (task, queued):
        with pytest.raises(StoreError):
            await asyncio.wait_for(each, 30)
    assert await other.locks.owner("second") is None
