"""Lost replies, broken connections, another primary and rights that lack while a durable call waits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from lockbeat import Lockbeat, NotDurable
from tests.conftest import wait_until
from tests.guarantees.conftest import Pair
from tests.guarantees.durability.replicas import ONE, SOON, waiting
from tests.proxy import Proxy, calls_of, proxy


@pytest.fixture
async def lossy(pair: Pair) -> AsyncIterator[Proxy]:
    async with proxy(pair.primary.port) as made:
        yield made


@pytest.fixture
async def client(lossy: Proxy, namespace: str) -> AsyncIterator[Lockbeat]:
    """Behind the proxy."""
    async with Lockbeat(lossy.url, namespace=namespace, timeout=2) as lb:
        yield lb


@pytest.mark.parametrize("times", [1, 3])
async def test_a_durable_call_whose_reply_was_lost_gives_the_first_outcome(
    client: Lockbeat, lossy: Proxy, other: Lockbeat, times: int
) -> None:
    lossy.lose_reply(calls_of("lock/try_acquire"), times)
    lease = await client.locks.try_acquire("k", "alice", 30, durability=ONE)
    assert lossy.lost == times
    assert lease is not None
    assert [held.fence for held in await other.locks.list()] == [lease.fence]


async def test_a_connection_that_breaks_while_the_replica_is_waited_for_begins_anew(
    client: Lockbeat, lossy: Proxy, other: Lockbeat, pair: Pair
) -> None:
    task = await waiting(pair, client)
    [first] = await other.locks.list()
    lossy.cut()
    await wait_until(lambda: not pair.blocked(), "the server has noticed")
    await wait_until(pair.blocked, "the call is repeated, and the server waits again")
    assert not task.done()
    pair.replica.thaw()
    lease = await task
    assert lease is not None
    assert [held.fence for held in await other.locks.list()] == [first.fence] == [lease.fence]


async def test_a_connection_that_breaks_before_anything_was_answered_has_no_lines_in_the_log(
    lossy: Proxy, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Lockbeat(lossy.url, namespace=namespace) as lb:
        assert await lb.locks.try_acquire("warm", "alice", 30, durability=ONE)
        wire = lb.store._durable[0]._wire
        line = wire.line
        assert line is not None
        lossy.vanish()
        acquiring = asyncio.create_task(lb.locks.try_acquire("k", "alice", 30, durability=ONE))
        await wait_until(lambda: len(line.sent) == 3, "the script, the mark and WAIT are on their way")
        lossy.cut()
        assert await acquiring
        gc.collect()
    assert "never retrieved" not in caplog.text


async def test_a_script_that_the_server_forgot_is_not_acknowledged_before_it_ran(pair: Pair, lb: Lockbeat) -> None:
    await lb.locks.try_acquire("warm", "alice", 30, durability=ONE)
    pair.primary.call("SCRIPT", "FLUSH")
    pair.replica.freeze()
    with pytest.raises(NotDurable):
        await lb.locks.try_acquire("k", "alice", 30, durability=SOON)
    pair.replica.thaw()
    pair.primary.call("SCRIPT", "FLUSH")
    lease = await lb.locks.try_acquire("k", "alice", 30, durability=ONE)
    assert lease is not None
    assert str(lease.fence) in str(pair.replica.call("HGET", lb.store.keys.key(0, "lock"), "k"))


async def test_waiting_longer_than_the_clients_timeout_is_not_an_outage(pair: Pair, namespace: str) -> None:
    async with Lockbeat(pair.primary.url, namespace=namespace, timeout=1) as lb:
        task = await waiting(pair, lb)
        wire = lb.store._durable[0]._wire
        line = wire.line
        assert line is not None
        await asyncio.sleep(1.5)
        assert wire.line is line
        assert not task.done()
        pair.replica.thaw()
        assert await task


async def test_a_primary_that_is_demoted_while_it_is_waited_for_has_acknowledged_nothing(pair: Pair, lb: Lockbeat) -> None:
    task = await waiting(pair, lb)
    pair.primary.call("REPLICAOF", "127.0.0.1", "1")
    await wait_until(lambda: not pair.blocked(), "it lets go")
    assert not task.done()
    pair.primary.call("REPLICAOF", "NO", "ONE")
    pair.replica.thaw()
    lease = await task
    assert lease is not None
    assert str(lease.fence) in str(pair.replica.call("HGET", lb.store.keys.key(0, "lock"), "k"))


async def test_a_user_who_may_not_wait_is_told(pair: Pair, lb: Lockbeat, namespace: str) -> None:
    pair.primary.call("ACL", "SETUSER", "hasty", "on", ">pw", "allkeys", "allchannels", "+@all", "-wait")
    try:
        async with Lockbeat(f"redis://hasty:pw@127.0.0.1:{pair.primary.port}", namespace=namespace) as hasty:
            with pytest.raises(NotDurable, match=r"(?i)no permissions|NOPERM"):
                await hasty.locks.try_acquire("k", "alice", 30, durability=ONE)
        assert await lb.locks.owner("k") is None
    finally:
        pair.primary.call("ACL", "DELUSER", "hasty")
