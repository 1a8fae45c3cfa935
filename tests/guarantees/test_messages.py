"""A message is a hint, never authority: lost, late, doubled, forged or from an old primary, it costs nothing but time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from operator import ge
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat
from lockbeat.errors import StoreError
from lockbeat.jobs import backfiller, scheduler
from lockbeat.monitor import HEARTBEAT
from lockbeat.store import link, listener, messages
from lockbeat.triggers import Every
from lockbeat.worker import worker as worker_module
from tests import servers
from tests.beats import Beats, eventually, ledger, minutely
from tests.conftest import Backend, Connect, needs, only, wait_until
from tests.proxy import proxy
from tests.servers import Server


class Crowd:
    """Callers of two clients who take turns at one lock, and what was seen of them.

    Leases are so long that a hand-off which is not told costs the test its time.
    """

    def __init__(self, callers: int) -> None:
        self.inside = self.most = 0
        self.turns = [0] * callers

    async def _turns(self, lb: Lockbeat, caller: int) -> None:
        while True:
            try:
                async with lb.lock("k", ttl=60):
                    self.inside += 1
                    self.most = max(self.most, self.inside)
                    self.turns[caller] += 1
                    try:
                        await asyncio.sleep(0.002)
                    finally:
                        self.inside -= 1
            except StoreError:
                pass

    async def go_on(self, turns: int = 10) -> None:
        """Wait until each of them has had so many turns more."""
        goals = [taken + turns for taken in self.turns]
        await wait_until(lambda: all(map(ge, self.turns, goals)), f"{turns} more turns; {self.most} were inside at once")

    @asynccontextmanager
    @staticmethod
    async def of(*clients: Lockbeat) -> AsyncIterator[Crowd]:
        callers = [*clients, *clients]
        crowd = Crowd(len(callers))
        tasks = [asyncio.create_task(crowd._turns(lb, number)) for number, lb in enumerate(callers)]
        try:
            await crowd.go_on()
            yield crowd
            await crowd.go_on()
            assert crowd.most == 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def listeners(server: Server, lb: Lockbeat) -> int:
    """How many connections of this client's the server would tell."""
    reply = server.call("PUBSUB", "NUMSUB", lb.store.channel)
    assert isinstance(reply, list)
    return int(reply[1])


@needs("valkey")
async def test_after_a_failover_of_a_cluster_one_at_a_time_holds_the_lock(namespace: str) -> None:
    """The release on the new primary meets nobody who listens there, and the bus delivers its message all the same."""
    with servers.cluster(servers.valkey_binary(), 1, replicas=1) as cluster:
        async with (
            Lockbeat(cluster.url, namespace=namespace) as one,
            Lockbeat(cluster.url, namespace=namespace) as two,
            Crowd.of(one, two) as crowd,
        ):
            await asyncio.to_thread(cluster.replicas[0].call, "CLUSTER", "FAILOVER")
            await wait_until(lambda: all(listeners(cluster.replicas[0], lb) for lb in (one, two)), "they listen there")
            await crowd.go_on()


@needs("valkey")
async def test_listeners_follow_a_slot_to_another_node(namespace: str) -> None:
    with servers.cluster(servers.valkey_binary(), 2) as cluster:
        async with (
            Lockbeat(cluster.url, namespace=namespace) as one,
            Lockbeat(cluster.url, namespace=namespace) as two,
            Crowd.of(one, two) as crowd,
        ):
            key = one.store.keys.key(0, "lock")
            source = cluster.owner(key)
            target = next(node for node in cluster.nodes if node is not source)
            await asyncio.to_thread(move_slot, key, source, target)
            await wait_until(lambda: all(listeners(target, lb) for lb in (one, two)), "they listen there")
            await crowd.go_on()


def move_slot(key: str, source: Server, target: Server) -> None:
    """As `redis-cli --cluster reshard` does it."""
    slot = source.call("CLUSTER", "KEYSLOT", key)
    assert isinstance(slot, int)
    source_id, target_id = (str(node.call("CLUSTER", "MYID")) for node in (source, target))
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    while isinstance(names := source.call("CLUSTER", "GETKEYSINSLOT", slot, 100), list) and names:
        source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *names)
    for node in (target, source):
        node.call("CLUSTER", "SETSLOT", slot, "NODE", target_id)


@needs("valkey")
async def test_listeners_follow_a_primary_that_changes_places_with_its_replica(namespace: str) -> None:
    """Behind one address, and no connection is lost: the replica goes on telling what the primary publishes."""
    binary = servers.valkey_binary()
    with servers.standalone(binary) as primary, servers.replica(primary) as replica:
        async with (
            proxy(primary.port) as address,
            Lockbeat(address.url, namespace=namespace) as one,
            Lockbeat(address.url, namespace=namespace) as two,
            Crowd.of(one, two) as crowd,
        ):
            address.upstream = replica.port
            replica.call("REPLICAOF", "NO", "ONE")
            primary.call("REPLICAOF", "127.0.0.1", replica.port)
            await wait_until(lambda: all(listeners(replica, lb) for lb in (one, two)), "they listen there")
            await crowd.go_on()


@needs("valkey")
async def test_one_who_waits_leaves_a_primary_that_hangs(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no call by which it could learn that Sentinel has promoted another: it misses its message to itself."""
    monkeypatch.setattr(link, "QUIET", 0.3)
    with servers.sentinel(servers.valkey_binary()) as sentinels:
        url, old = sentinels.url, sentinels.primary
        async with Lockbeat(url, namespace=namespace, timeout=1) as lb, Lockbeat(url, namespace=namespace, timeout=1) as other:
            async with holding(lb):
                waiting = asyncio.create_task(enter(other))
                await queued(other)
                old.freeze()
                await wait_until(lambda: sentinels.primary is not old, "the sentinels promote the replica")
                await wait_until(lambda: listeners(sentinels.primary, other), "it listens there")
            await asyncio.wait_for(waiting, 30)


async def enter(lb: Lockbeat) -> int:
    async with lb.lock("k", ttl=60) as lease:
        return lease.fence


async def queued(lb: Lockbeat) -> None:
    """Wait until somebody waits for the lock in this client, and stands in the queue."""
    await wait_until(lambda: "k" in lb.locks._room._rooms, "it waits")
    await lb.store.listening(0)
    await asyncio.sleep(0)
    await lb.locks.is_locked("k")  # a round trip behind its call


@asynccontextmanager
async def holding(lb: Lockbeat) -> AsyncIterator[None]:
    assert await lb.locks.try_acquire("k", "holder", 60)
    yield
    assert await released(lb)


async def released(lb: Lockbeat) -> bool:
    """Once the store is there."""
    while True:
        try:
            return await lb.locks.release("k", "holder")
        except StoreError:
            pass


@needs("valkey")
@pytest.mark.parametrize("where", ["a server of others", "a replica"])
async def test_one_who_listens_at_the_wrong_server_notices(
    where: str, server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is well, and a replica even tells what is published: but there nobody counts us."""
    monkeypatch.setattr(link, "QUIET", 0.2)
    other = servers.standalone(server.binary) if where == "a server of others" else servers.replica(server)
    with other as wrong:
        async with proxy(server.port) as line, Lockbeat(line.url, namespace=namespace) as lb:
            line.upstream = wrong.port
            await lb.store.listening(0)
            assert listeners(wrong, lb)
            line.upstream = server.port
            await wait_until(lambda: listeners(server, lb), "it listens where its calls go")
            await wait_until(lambda: not listeners(wrong, lb), "it has left the other")


async def test_who_was_passed_over_finds_out_and_listens_where_the_calls_go(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens to a server that answers every PING, and is not the one that its calls go to."""
    monkeypatch.setattr(listener, "SETTLED", 0.0)
    with servers.standalone(server.binary) as wrong:
        async with (
            proxy(server.port) as line,
            Lockbeat(server.url, namespace=namespace) as lb,
            Lockbeat(line.url, namespace=namespace) as deaf,
        ):
            line.upstream = wrong.port
            await deaf.store.listening(0)
            line.upstream = server.port
            assert await lb.locks.try_acquire("k", "first", 1)
            waiting = [asyncio.create_task(enter(deaf)) for _ in range(2)]
            await wait_until(lambda: len(deaf.locks._room._waiters) == 2, "they wait")
            await queued(deaf)
            assert await lb.locks.release("k", "first"), "nobody hears of it"
            async with holding(lb):  # free though two wait: both were passed over
                await wait_until(lambda: listeners(server, deaf), "they learn of it when the first lease would have ended")
                await eventually(lambda: in_queue(lb, 2), "they have places again")
            await asyncio.gather(*waiting)


async def in_queue(lb: Lockbeat, count: int) -> bool:
    reply = await lb.store.wire(0).command("ZCARD", lb.store.keys.key(0, "lock:queue"))
    return bool(reply == count)


async def test_a_server_that_hangs_is_left_though_the_connection_stands(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "QUIET", 0.1)
    gaps: list[str] = []
    async with Lockbeat(server.url, namespace=namespace, timeout=1) as lb:
        lb.store.listen({}, lambda: gaps.append("gap"))
        await lb.store.listening(0)
        await wait_until(lambda: "cmdstat_publish" in str(server.call("INFO", "commandstats")), "it sends itself a message")
        assert lb.store._listeners[0]._subscribed.is_set()
        server.freeze()
        await wait_until(lambda: not lb.store._listeners[0]._subscribed.is_set(), "no answer")
        server.thaw()
        await wait_until(lambda: gaps, "it subscribes anew, and says that messages may have been lost")


@only("valkey", "redis")
async def test_messages_that_are_late_and_doubled_let_nobody_in(backend: Backend, namespace: str) -> None:
    dice = random.Random(7)

    def messages(data: bytes) -> list[tuple[float, bytes]]:
        return [(dice.uniform(0, 0.03), data) for _ in range(dice.choice((1, 2, 3)))]

    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            line = await stack.enter_async_context(proxy(backend.servers[0].port))
            line.messages = messages
            clients.append(await stack.enter_async_context(Lockbeat(line.url, namespace=namespace)))
        async with Crowd.of(*clients) as crowd:
            await crowd.go_on(25)


FORGED = (
    "granted {token}",
    "granted {token} 9007199254740991 9007199254740991 1",
    "granted",
    "granted nobody.1",
    "next {token} 0",
    "next {token} 999999999999999999999999",
    "next {token} soon",
    "ended {task}",
    "cancel {task}",
    "ended nobody",
    "cancel nobody",
    "task",
    "job",
    "\udcff\udcfe \udcff",
    "",
)


@only("memory", "valkey")
async def test_forged_messages_change_nothing(
    lb: Lockbeat, connect: Connect, beats: Beats, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """On every channel, each of them twice: nobody enters, no body is cancelled, nobody takes a task for ended."""
    beat, begun, may_end = beats(), [], asyncio.Event()

    @beat.task
    async def work() -> str:
        begun.append("a body")
        await may_end.wait()
        return "whole"

    async with beat.lifespan(), connect() as other:
        assert beat._client is not None
        served = beat._client.store
        spawned = await beat.spawn("work")
        await wait_until(lambda: begun, "it runs")
        async with holding(lb):
            entering = asyncio.create_task(enter(other))
            ending = asyncio.create_task(other.tasks.wait(spawned.task_id))
            await queued(other)
            await wait_until(lambda: other.tasks._awaited, "it waits for the end")
            [token] = other.locks._room._waiters
            channels = [other.store.channel, served.channel, *(served.bell(shard) for shard in range(served.shards))]
            last = messages.Ended("the last")
            heard: list[messages.Message] = []
            for store in (other.store, served):
                for bell in (None, *range(store.shards)):
                    store.listen({messages.Ended: heard.append}, lambda: None, bell=bell)
            for forged in FORGED * 2:
                payload = forged.format(token=token, task=spawned.task_id).encode(errors="surrogateescape")
                for channel in channels:
                    raw.publish(channel, payload)
            for channel in channels:
                raw.publish(channel, "ended the last")
            await wait_until(lambda: heard.count(last) >= len(channels), "all were heard")
            for store in (other.store, served):
                await store.server_time()  # a round trip behind what they ask
            assert not entering.done()
            assert not ending.done()
        assert await entering
        may_end.set()
        assert (await ending).result == "whole"
        assert len(begun) == 1
        assert not caplog.records


async def test_bells_that_nobody_hears_cost_time_only(server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is declared and a task that is spawned elsewhere are found by looking."""
    monkeypatch.setattr(scheduler, "LOOK_AGAIN", 0.3)
    monkeypatch.setattr(worker_module, "LOOK_AFTER", 0.3)
    async with proxy(server.port) as line, Lockbeat(server.url, namespace=namespace) as lb:
        line.messages = lambda data: ()
        beat, ran = Beat(line.url, namespace=namespace), asyncio.Event()

        @beat.task
        async def work() -> None:
            ran.set()

        async with beat.lifespan():
            assert beat._client is not None
            await beat._client.store.server_time()  # they have looked once, and sleep
            await lb.tasks.spawn("work")
            await lb.jobs.put(minutely("tick", trigger=Every(1)))
            await wait_until(ran.is_set, "the task is found")
            await eventually(lambda: ledger(lb, "tick"), "the job is found")


def test_an_idle_instance_may_send_a_fifth_of_a_command_a_second() -> None:
    looks = worker_module.LOOK_AFTER, worker_module.MEND, scheduler.LOOK_AGAIN, backfiller.LOOK_AGAIN
    often = HEARTBEAT, *looks, link.QUIET
    assert sum(1 / seconds for seconds in often) <= 0.2
