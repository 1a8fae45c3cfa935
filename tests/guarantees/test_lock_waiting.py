"""Waiting for a lock: first come, first served, told by message, and nobody polls."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import LockTimeout
from lockbeat.store.keys import Keys
from tests.beats import Hands, minutely, overdue, scheduler, states
from tests.conftest import Backend, Connect, only, wait_until
from tests.servers import Server
from tests.tasks import until

REAL = only("valkey", "redis", "cluster")


async def queued(lb: Lockbeat, key: str, count: int) -> None:
    """Wait until so many callers of `lb` are in the queue for the lock."""
    await wait_until(lambda: (room := lb.locks._room._rooms.get(key)) and len(room.waiters) == count, f"{count} wait for {key}")
    await lb.store.listening(lb.store.shard_of(key))
    await asyncio.sleep(0)
    await lb.locks.is_locked(key)  # a round trip behind their calls


@asynccontextmanager
async def holding(lb: Lockbeat, key: str = "k", ttl: float = 30) -> AsyncIterator[None]:
    """Held by somebody, and given back at the end."""
    assert await lb.locks.try_acquire(key, "holder", ttl)
    yield
    assert await lb.locks.release(key, "holder")


async def visit(lb: Lockbeat, key: str = "k", **options: Any) -> float:
    """Wait for the lock, and give it back at once; when it was granted (monotonic)."""
    async with lb.lock(key, **options):
        return time.monotonic()


async def test_waiters_of_two_instances_are_served_in_order_of_arrival(lb: Lockbeat, connect: Connect) -> None:
    served: list[int] = []

    async def enter(client: Lockbeat, number: int) -> None:
        async with client.lock("k"):
            served.append(number)

    async with connect() as other:
        tasks = []
        async with holding(lb):
            for number in range(20):
                client = (lb, other)[number // 3 % 2]
                waiting = len(room.waiters) if (room := client.locks._room._rooms.get("k")) else 0
                tasks.append(asyncio.create_task(enter(client, number)))
                await queued(client, "k", waiting + 1)
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert served == list(range(20))


def only_told(lb: Lockbeat) -> None:
    """What waits in this client never asks by itself: only a message wakes it."""

    def never(key: str, delay: float, *, sooner: bool = False) -> None:
        pass

    lb.locks._room._set_timer = never  # type: ignore[method-assign]


async def test_a_release_wakes_the_first_waiter_by_a_message(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        only_told(other)
        for _ in range(5):
            async with holding(lb):
                waiting = asyncio.create_task(visit(other))
                await queued(other, "k", 1)
            await asyncio.wait_for(waiting, 15)


@only("valkey")
async def test_fifty_waiters_cost_no_commands_while_they_wait(lb: Lockbeat, connect: Connect, backend: Backend) -> None:
    async with connect() as other, connect() as third:
        async with holding(lb, ttl=60):
            tasks = [asyncio.create_task(visit((other, third)[n % 2])) for n in range(50)]
            await queued(other, "k", 25)
            await queued(third, "k", 25)
            before = backend.calls()
            await asyncio.sleep(1)
            after = backend.calls()
        await asyncio.gather(*tasks)
    ours = {name: after[name] - before.get(name, 0) for name in after}
    assert {name for name, calls in ours.items() if calls} <= {"info", "client|setinfo"}  # our own looking


@only("valkey")
async def test_a_hand_off_costs_few_commands(lb: Lockbeat, connect: Connect, backend: Backend) -> None:
    """One release, and the new holder's own call."""
    async with connect() as other:
        tasks = []
        async with holding(lb):
            tasks = [asyncio.create_task(visit(client)) for client in (lb, other) for _ in range(10)]
            await queued(lb, "k", 10)
            await queued(other, "k", 10)
            before = backend.calls("evalsha")["evalsha"]
        await asyncio.gather(*tasks)
    assert backend.calls("evalsha")["evalsha"] - before <= 21 + 20 + 3


@REAL
async def test_a_dead_waiter_at_the_head_costs_no_grant(lb: Lockbeat, connect: Connect, backend: Backend) -> None:
    """Its process was killed: its subscription went with it, and the release passes it by."""
    async with connect() as other:
        only_told(other)
        script = (
            "import asyncio, sys\nfrom lockbeat import Lockbeat\n"
            "async def main():\n"
            "    async with Lockbeat(sys.argv[1], namespace=sys.argv[2]) as lb:\n"
            "        task = asyncio.create_task(lb.lock('k').__aenter__())\n"
            "        while not lb.locks._room._rooms: await asyncio.sleep(0)\n"
            "        await lb.store.listening(lb.store.shard_of('k'))\n"
            "        await asyncio.sleep(0)\n"
            "        await lb.locks.is_locked('k')\n"
            "        print('waits', flush=True)\n"
            "        await task\n"
            "asyncio.run(main())\n"
        )
        async with holding(lb):
            command = [sys.executable, "-c", script, backend.url, lb.store.keys.namespace]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"waits\n"
            waiting = asyncio.create_task(visit(other))
            await queued(other, "k", 1)
            process.kill()
            await asyncio.to_thread(process.wait)
            process.stdout.close()
        await asyncio.wait_for(waiting, 15)


@only("valkey")
async def test_a_frozen_waiter_at_the_head_costs_the_grant_and_no_whole_ttl(
    lb: Lockbeat, connect: Connect, backend: Backend
) -> None:
    """SIGSTOP: the server still delivers to its socket. Only the one behind it can tell that nobody renews."""
    script = (
        "import asyncio, sys\nfrom lockbeat import Lockbeat\n"
        "async def main():\n"
        "    async with Lockbeat(sys.argv[1], namespace=sys.argv[2]) as lb:\n"
        "        tasks = [asyncio.create_task(lb.lock('k').__aenter__()) for _ in range(2)]\n"
        "        while not lb.locks._room._rooms: await asyncio.sleep(0)\n"
        "        await lb.store.listening(lb.store.shard_of('k'))\n"
        "        await asyncio.sleep(0)\n"
        "        await lb.locks.is_locked('k')\n"
        "        print('waits', flush=True)\n"
        "        await asyncio.gather(*tasks)\n"
        "asyncio.run(main())\n"
    )
    async with connect() as other:
        async with holding(lb, ttl=60):
            command = [sys.executable, "-c", script, backend.url, lb.store.keys.namespace]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"waits\n"
            waiting = asyncio.create_task(visit(other))
            await queued(other, "k", 1)
            os.kill(process.pid, signal.SIGSTOP)
            released = time.monotonic()
        try:
            # Two frozen waiters, two grants of two seconds each.
            assert await waiting - released < 30
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
            process.stdout.close()


async def test_the_expiry_of_a_dead_holder_wakes_the_first_on_time(lb: Lockbeat) -> None:
    lease = await lb.locks.try_acquire("k", "dead", 0.25)
    assert lease is not None
    async with lb.lock("k", wait=60):
        assert 0 <= await lb.store.server_time() - lease.expires_at < 30


@only("memory", "valkey")
async def test_a_holder_that_renews_is_waited_for_past_its_first_expiry(lb: Lockbeat) -> None:
    lease = await lb.locks.try_acquire("k", "holder", 2)
    assert lease is not None
    waiting = asyncio.create_task(visit(lb, wait=60))
    await queued(lb, "k", 1)
    assert await lb.locks.renew("k", "holder", 60)
    await until(lb, lease.expires_at + 0.1)  # it has asked by itself
    assert not waiting.done()
    assert await lb.locks.release("k", "holder")
    await waiting


async def test_a_wait_that_runs_out_raises_and_leaves_the_queue(lb: Lockbeat, raw: Any, namespace: str, shards: int) -> None:
    async with holding(lb):
        began = time.monotonic()
        with pytest.raises(LockTimeout) as caught:
            await visit(lb, wait=0.05)
        assert 0.045 < time.monotonic() - began < 15
        assert (caught.value.key, caught.value.wait) == ("k", 0.05)
        await lb.locks.is_locked("k")
        assert_nobody_waits(raw, namespace, shards)


def assert_nobody_waits(raw: Any, namespace: str, shards: int) -> None:
    for shard in range(shards):
        assert raw.zcard(Keys(namespace).key(shard, "lock:queue")) == 0
        assert raw.hlen(Keys(namespace).key(shard, "lock:waiters")) == 0


async def test_a_cancelled_waiter_leaves_the_queue_and_the_next_is_served(
    lb: Lockbeat, raw: Any, namespace: str, shards: int
) -> None:
    async with holding(lb):
        first = asyncio.create_task(visit(lb))
        await queued(lb, "k", 1)
        second = asyncio.create_task(visit(lb))
        await queued(lb, "k", 2)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    await asyncio.wait_for(second, 15)
    assert_nobody_waits(raw, namespace, shards)


async def test_a_waiter_that_left_after_it_was_granted_passes_the_lock_on(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        only_told(other)
        async with holding(lb):
            first = asyncio.create_task(visit(lb))
            await queued(lb, "k", 1)
            second = asyncio.create_task(visit(other))
            await queued(other, "k", 1)
        first.cancel()  # the grant is on its way, or there
        await asyncio.gather(first, return_exceptions=True)
        await asyncio.wait_for(second, 15)


async def test_nobody_barges_past_those_who_wait(lb: Lockbeat, connect: Connect) -> None:
    fences: list[int] = []

    async def wait_for_it() -> None:
        async with other.lock("k") as lease:
            fences.append(lease.fence)

    async with connect() as other:
        assert await lb.locks.try_acquire("k", "dead", 0.05)
        waiting = asyncio.create_task(wait_for_it())
        await queued(other, "k", 1)
        lease = None
        while lease is None:
            lease = await lb.locks.try_acquire("k", "newcomer", 30)
        await waiting
        assert fences[0] < lease.fence


async def test_a_newcomer_that_finds_the_lease_expired_hands_it_to_the_first_who_waits(lb: Lockbeat, connect: Connect) -> None:
    """The newcomer's own call finds the lock free, and gives it to another."""
    async with connect() as other:
        await other.store.listening(other.store.shard_of("k"))
        assert await lb.locks.try_acquire("k", "dead", 0.3)
        over = asyncio.Event()
        waiting = asyncio.create_task(visit_until(other, over))
        await queued(other, "k", 1)
        other.locks._room._set_timer("k", 30)  # it does not ask by itself
        while await lb.locks.is_locked("k"):
            await asyncio.sleep(0.002)
        assert await lb.locks.try_acquire("k", "newcomer", 5) is None
        assert await lb.locks.owner("k") == other.owner
        over.set()
        await waiting


async def visit_until(lb: Lockbeat, over: asyncio.Event, key: str = "k") -> None:
    async with lb.lock(key):
        await over.wait()


async def test_a_slot_that_finds_its_jobs_lock_expired_hands_it_to_the_first_who_waits(
    lb: Lockbeat, connect: Connect, raw: Any
) -> None:
    """A slot is a newcomer like others: it is skipped."""
    job, hands, lock = minutely(), Hands("report"), "job:report"
    async with connect() as other:
        await other.store.listening(other.store.shard_of(lock))
        assert await lb.locks.try_acquire(lock, "dead", 0.3)
        over = asyncio.Event()
        waiting = asyncio.create_task(visit_until(other, over, lock))
        await queued(other, lock, 1)
        other.locks._room._set_timer(lock, 30)  # it does not ask by itself
        await overdue(lb, raw, job)
        while await lb.locks.is_locked(lock):
            await asyncio.sleep(0.002)
        await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
        assert hands.tasks == []
        assert await states(lb, "report") == ["skipped"]
        assert await lb.locks.owner(lock) == other.owner
        over.set()
        await waiting


@REAL
@pytest.mark.parametrize("moment", ["before", "at", "after"])
async def test_no_wake_up_is_lost_with_the_subscription(lb: Lockbeat, connect: Connect, backend: Backend, moment: str) -> None:
    """The pub/sub connections are killed around the hand-off; whoever reconnects asks."""

    def kill() -> None:
        for server in backend.servers:
            server.call("CLIENT", "KILL", "TYPE", "pubsub")

    async with connect() as other:
        async with holding(lb, ttl=60):
            waiting = asyncio.create_task(visit(other))
            await queued(other, "k", 1)
            if moment == "before":
                kill()
                await asyncio.sleep(0)
            released = time.monotonic()
            release = asyncio.create_task(lb.locks.release("k", "holder"))
            if moment == "at":
                kill()
            await release
            if moment == "after":
                kill()
            await lb.locks.try_acquire("k", "holder", 60)  # for `holding` to release
            if await lb.locks.owner("k") != "holder":
                assert await waiting - released < 20
                assert await lb.locks.try_acquire("k", "holder", 60)
        assert await waiting - released < 20


async def test_a_waiter_survives_a_restart_of_the_server(server: Server, namespace: str) -> None:
    """The store came back empty: the lock with its holder is gone, and the waiter asks and gets it."""
    async with (
        Lockbeat(server.url, namespace=namespace, timeout=30) as lb,
        Lockbeat(server.url, namespace=namespace, timeout=30) as other,
    ):
        assert await lb.locks.try_acquire("k", "holder", 60)
        waiting = asyncio.create_task(visit(other))
        await queued(other, "k", 1)
        await asyncio.to_thread(server.restart)
        await asyncio.wait_for(waiting, 30)


async def test_a_wait_counts_the_time_that_the_store_is_away(server: Server, namespace: str) -> None:
    async with Lockbeat(server.url, namespace=namespace, timeout=60) as lb:
        await asyncio.to_thread(server.kill)
        began = time.monotonic()
        with pytest.raises(LockTimeout):
            await visit(lb, wait=0.1)
        assert time.monotonic() - began < 30
        await asyncio.to_thread(server.restart)  # or closing would wait for it, to leave the queue


async def test_many_locks_and_waiters_at_once_all_get_their_turn(lb: Lockbeat, connect: Connect) -> None:
    turns: dict[str, int] = {}

    async def enter(client: Lockbeat, key: str) -> None:
        async with client.lock(key):
            turns[key] = turns.get(key, 0) + 1

    async with connect() as other, asyncio.timeout(30):
        tasks = [enter(client, f"k{n % 10}") for n in range(60) for client in (lb, other)]
        await asyncio.gather(*tasks)
    assert turns == {f"k{n}": 12 for n in range(10)}
