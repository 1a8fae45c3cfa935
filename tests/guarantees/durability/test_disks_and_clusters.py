"""Durable on a disk, on a cluster, and where nothing is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Durability, Lockbeat, NotDurable
from lockbeat.errors import InvalidArgument, InvalidType
from tests import servers
from tests.conftest import Connect, chosen, needs, only, wait_until
from tests.guarantees.conftest import Pair
from tests.guarantees.durability.replicas import DISK, ONE, SOON, cancel_everywhere
from tests.keeping import renewed
from tests.servers import Server


@pytest.fixture(params=chosen("valkey"))
def on_disk(tmp_path: Path) -> Iterator[Server]:
    with servers.standalone(servers.valkey_binary(), aof_dir=tmp_path) as server:
        yield server


async def test_what_is_on_disk_outlives_a_crash(on_disk: Server, namespace: str) -> None:
    async with Lockbeat(on_disk.url, namespace=namespace) as lb:
        lease = await lb.locks.try_acquire("k", "alice", 30, durability=DISK)
        assert lease is not None
        await asyncio.to_thread(on_disk.restart)
        assert [held.fence for held in await lb.locks.list()] == [lease.fence]
        async with lb.lock("other", durability=DISK):
            pass  # asked again of the new server, over a new connection


async def test_what_does_not_reach_the_disk_is_not_held(on_disk: Server, namespace: str) -> None:
    on_disk.call("CONFIG", "SET", "appendfsync", "no")
    async with Lockbeat(on_disk.url, namespace=namespace) as lb:
        with pytest.raises(NotDurable, match="not on the server's disk"):
            await lb.locks.try_acquire("k", "alice", 30, durability=Durability(fsync=True, timeout=0.05))
        assert await lb.locks.owner("k") is None


async def test_the_disk_of_a_replica_is_waited_for_too(on_disk: Server, namespace: str) -> None:
    both = Durability(fsync=True, replicas=1, timeout=0.3)
    with servers.replica(on_disk):
        async with Lockbeat(on_disk.url, namespace=namespace) as lb:
            with pytest.raises(NotDurable, match="0 of 1 replicas"):  # it has it in memory
                await lb.locks.try_acquire("k", "alice", 30, durability=both)
            assert await lb.locks.try_acquire("k", "alice", 30, durability=ONE)


async def test_a_cancelled_call_to_a_server_that_is_asked_first_leaves_no_lock(on_disk: Server, namespace: str) -> None:
    await cancel_everywhere(on_disk.url, namespace, DISK, fresh=True, closed=False)


async def test_a_server_without_a_disk_says_so_and_nothing_is_written(pair: Pair, lb: Lockbeat) -> None:
    """No appendonly; and Redis 7.0 has no WAITAOF at all."""
    before = pair.calls("set"), pair.primary.call("DBSIZE")
    with pytest.raises(NotDurable, match=r"can't tell what is on its disk: .*(appendonly|unknown command)") as caught:
        await lb.locks.try_acquire("k", "alice", 30, durability=DISK)
    assert caught.value.reply is None
    assert (pair.calls("set"), pair.primary.call("DBSIZE")) == before


async def test_a_store_in_memory_says_so(namespace: str) -> None:
    async with Lockbeat(f"memory://{namespace}", namespace=namespace) as lb:
        for durability in (ONE, DISK):
            with pytest.raises(NotDurable, match="memory"):
                await lb.locks.try_acquire("k", "alice", 30, durability=durability)
            with pytest.raises(NotDurable, match="memory"):
                await lb.lock("k", durability=durability).__aenter__()
        assert await lb.locks.list() == []


# Elsewhere


@only("cluster")
async def test_on_a_cluster_each_shard_counts_its_own_replicas(connect: Connect) -> None:
    async with connect() as lb:
        results = await asyncio.gather(
            *(lb.locks.try_acquire(f"k{n}", "alice", 30, durability=SOON) for n in range(9)), return_exceptions=True
        )
        assert [type(result) for result in results] == [NotDurable] * 9
        assert await lb.locks.list() == []


@needs("cluster")
async def test_on_a_cluster_with_replicas_it_is_met() -> None:
    with servers.cluster(servers.valkey_binary(), replicas=1) as cluster:
        async with Lockbeat(cluster.url, shards=3) as lb:
            leases = await asyncio.gather(*(lb.locks.try_acquire(f"k{n}", "alice", 30, durability=ONE) for n in range(9)))
            assert all(leases)


async def test_bad_arguments_are_refused_before_anything_is_sent(lb: Lockbeat) -> None:
    with pytest.raises(InvalidArgument, match="durability: may take 20 s"):
        await lb.locks.try_acquire("k", "alice", 20, durability=ONE)
    with pytest.raises(InvalidArgument, match="durability: may take 20 s"):
        lb.lock("k", ttl=10, durability=ONE)
    with pytest.raises(InvalidArgument, match="durability: may take 20 s"):
        await lb.claims.acquire("k", "alice", 10, durability=ONE)
    with pytest.raises(InvalidArgument, match="durability: may take 20 s"):
        lb.claims.hold("k", 10, durability=ONE)
    wrong: Any = 1
    with pytest.raises(InvalidType, match="durability: must be a Durability"):
        await lb.locks.try_acquire("k", "alice", 20, durability=wrong)
    assert await lb.locks.list() == []


@needs("valkey")
async def test_an_instance_leaves_a_primary_that_no_replica_follows(namespace: str) -> None:
    """It answers as ever, but is cut off from its replica and the sentinels, who have promoted that one: NotDurable makes the
    client ask them. From then on all of its calls go to the new one, the keeper's, too.
    """
    with servers.sentinel(servers.valkey_binary()) as sentinels:
        old = sentinels.primary
        async with Lockbeat(sentinels.url, namespace=namespace, timeout=2) as lb, lb.lock("held", ttl=60):
            assert await lb.locks.try_acquire("k", "alice", 60, durability=ONE)
            await renewed(lb)
            with old.client() as admin:
                admin.config_set("requirepass", "for those who come anew")
                for peer in admin.client_list():
                    if peer["name"] != "lockbeat" and int(peer["id"]) != admin.client_id():
                        admin.client_kill_filter(_id=peer["id"])
                await wait_until(lambda: sentinels.primary is not old, "the sentinels promote the replica")
                assert await lb.locks.try_acquire("stale", "alice", 60)
                assert admin.hexists(lb.store.keys.key(0, "lock"), "stale"), "nobody has told it"
            new = sentinels.primary
            with pytest.raises(NotDurable):
                await lb.locks.try_acquire("another", "alice", 60, durability=SOON)
            with pytest.raises(NotDurable):  # for want of a replica of the new one
                await lb.locks.try_acquire("yet another", "alice", 60, durability=SOON)
            assert await lb.locks.try_acquire("plain", "alice", 60)
            assert new.call("HEXISTS", lb.store.keys.key(0, "lock"), "plain")

            def held() -> float:
                return float(str(new.call("ZSCORE", lb.store.keys.key(0, "lock:live"), "held")))

            before = held()
            await renewed(lb)
            assert held() > before
