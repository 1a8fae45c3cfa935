"""Promise 8: whoever gives up while the line is down leaves nothing behind, once the store is back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from lockbeat import Beat, Durability, Lockbeat
from lockbeat.errors import LockbeatError, LockTimeout
from lockbeat.leases.lease import monotonic
from lockbeat.store.scripts import names
from tests import servers
from tests.beats import eventually
from tests.conftest import chosen, wait_until
from tests.keeping import kept
from tests.proxy import Proxy, calls_of, proxy
from tests.servers import Server

HOUR = 3600
ON_DISK = Durability(fsync=True)

TAKING: dict[str, Callable[[Lockbeat], Awaitable[Any]]] = {
    "try_acquire": lambda lb: lb.locks.try_acquire("tried", "alice", HOUR),
    "try_acquire, durable": lambda lb: lb.locks.try_acquire("tried durably", "alice", HOUR, durability=ON_DISK),
    "lock": lambda lb: lb.lock("locked", ttl=HOUR, wait=20).__aenter__(),
    "lock, tried once": lambda lb: lb.lock("locked once", ttl=HOUR, wait=0).__aenter__(),
    "lock, durable": lambda lb: lb.lock("locked durably", ttl=HOUR, durability=ON_DISK).__aenter__(),
    "lock that another holds": lambda lb: lb.lock("taken", ttl=HOUR, wait=1).__aenter__(),
    "claims.acquire": lambda lb: lb.claims.acquire("acquired", "alice", HOUR),
    "claims.acquire, durable": lambda lb: lb.claims.acquire("acquired durably", "alice", HOUR, durability=ON_DISK),
    "claims.hold": lambda lb: lb.claims.hold("held", lease=HOUR).__aenter__(),
    "claims.hold, durable": lambda lb: lb.claims.hold("held durably", lease=HOUR, durability=ON_DISK).__aenter__(),
    "tasks.claim": lambda lb: lb.tasks.claim("default", "alice", 3, lease=HOUR),
    "tasks.spawn, durable": lambda lb: lb.tasks.spawn("job", queue="durable", durability=ON_DISK),
}
FAULTS = ("reply lost", "line down", "store away", "store hung", "failover")


class Pair:
    """A primary and its replica, which change places when told to."""

    def __init__(self, primary: Server, replica: Server) -> None:
        self.primary, self.replica = primary, replica

    def caught_up(self) -> bool:
        offset = [
            str(server.call("INFO", "replication")).partition("master_repl_offset:")[2].split()[0]
            for server in (self.primary, self.replica)
        ]
        return offset[0] == offset[1]

    def fail_over(self) -> None:
        self.replica.call("REPLICAOF", "NO", "ONE")
        self.primary, self.replica = self.replica, self.primary

    def replicate(self) -> None:
        self.replica.call("REPLICAOF", "127.0.0.1", self.primary.port)
        servers.wait_until(lambda: "link_status:up" in str(self.replica.call("INFO", "replication")), "it follows")


@pytest.fixture(scope="module", params=chosen("valkey"))
def pair() -> Iterator[Pair]:
    with (
        servers.standalone(servers.valkey_binary(), extra=["appendonly yes"]) as primary,
        servers.replica(primary, extra=["appendonly yes"]) as replica,
    ):
        yield Pair(primary, replica)


@pytest.fixture
async def lossy(pair: Pair) -> AsyncIterator[Proxy]:
    async with proxy(pair.primary.port) as made:
        yield made
    pair.primary.call("FLUSHALL")


def lose_replies(lossy: Proxy, prefix: str = "", times: int = 1000) -> None:
    """Of all scripts whose names begin so."""
    lossy.lose_reply(calls_of(*(name for name in names() if name.startswith(prefix))), times)


async def begin(fault: str, lossy: Proxy, pair: Pair) -> None:
    if fault == "store away":
        await lossy.become("refused")
    elif fault == "store hung":
        pair.primary.freeze()
    else:
        lose_replies(lossy)


async def meet(fault: str, lossy: Proxy, pair: Pair, lb: Lockbeat) -> None:
    """The calls have run into it."""
    if fault == "store away":
        await wait_until(lambda: lb.store.connector.outage.away, "they found nobody")
    elif fault == "store hung":
        await wait_until(lambda: lb.store.wire(0).line is None, "they had no answer")
    else:
        await wait_until(lambda: lossy.lost, "they were executed, and are not answered")
    if fault in ("line down", "failover"):
        await lossy.become("refused")
        await wait_until(lambda: lb.store.connector.outage.away, "the line is down")
    if fault == "failover":
        await wait_until(pair.caught_up, "the replica has it all")


async def end(fault: str, lossy: Proxy, pair: Pair) -> None:
    lossy.recover()
    if fault == "store hung":
        pair.primary.thaw()
    elif fault == "failover":
        pair.fail_over()
        lossy.upstream = pair.primary.port
        await lossy.listen()
        await asyncio.to_thread(pair.replicate)
    elif fault != "reply lost":
        await lossy.listen()


async def left(other: Lockbeat) -> list[str]:
    """What is held, queued or running, but for what `other` has itself."""
    found = [lease.key for lease in await other.locks.list() if lease.owner != other.owner]
    found += [claim.key for claim in await other.claims.list()]
    found += [f"task {info.state}" for info in await other.tasks.list() if info.state != "waiting"]
    found += [f"spawned {info.id}" for info in await other.tasks.list() if info.queue == "durable"]
    queue = other.store.keys.key(0, "lock:queue")
    found += [f"waiter {place!r}" for place in await other.store.wire(0).command("ZRANGE", queue, "0", "-1")]
    return found


async def emptied(server: Server, namespace: str, owner: str) -> None:
    """Within 5 s: longer than two timeouts of any client here, and far shorter than any lease."""
    async with Lockbeat(server.url, namespace=namespace, owner=owner) as there:

        async def nothing() -> bool:
            return not await left(there)

        with contextlib.suppress(AssertionError):
            await eventually(nothing, "nothing is left", timeout=5)
        assert await left(there) == []


@pytest.mark.parametrize("giving_up", ["cancelled", "timed out"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_nothing_is_held_or_queued_once_the_store_is_back(
    pair: Pair, lossy: Proxy, namespace: str, fault: str, giving_up: str
) -> None:
    """The table: each verb that takes something. Its client lives on, and asks nothing more."""
    async with (
        Lockbeat(pair.primary.url, namespace=namespace) as other,
        Lockbeat(lossy.url, namespace=namespace, timeout=1) as lb,
    ):
        assert await other.locks.try_acquire("taken", other.owner, HOUR)
        for n in range(5):
            await other.tasks.spawn("job", n, max_attempts=1)
        # One that has waited for a while when the trouble begins.
        calls = [asyncio.create_task(lb.lock("taken", ttl=HOUR, wait=2).__aenter__())]
        queue = other.store.keys.key(0, "lock:queue")
        await wait_until(lambda: pair.primary.call("ZCARD", queue), "it waits")
        await begin(fault, lossy, pair)
        calls += [asyncio.create_task(asyncio.wait_for(taking(lb), None)) for taking in TAKING.values()]
        await meet(fault, lossy, pair, lb)
        if giving_up == "cancelled":
            for call in calls:
                call.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        kinds: tuple[type[BaseException], ...] = (LockbeatError, asyncio.CancelledError)
        assert all(isinstance(outcome, kinds) for outcome in outcomes), outcomes
        await end(fault, lossy, pair)
        await emptied(pair.primary, namespace, other.owner)


@pytest.mark.parametrize("ending", ["ended", "failed", "cancelled"])
async def test_blocks_that_end_while_the_store_is_away_give_back_what_they_held(
    pair: Pair, lossy: Proxy, namespace: str, ending: str
) -> None:
    async with Lockbeat(lossy.url, namespace=namespace, timeout=1) as lb:
        entered, leave = asyncio.Barrier(3), asyncio.Event()

        async def block(handle: Any) -> None:
            async with handle:
                await entered.wait()
                await leave.wait()
                if ending == "failed":
                    raise ValueError("no luck")

        blocks = [asyncio.create_task(block(handle)) for handle in (lb.lock("k", ttl=HOUR), lb.claims.hold("k", lease=HOUR))]
        await entered.wait()
        await lossy.become("refused")
        leave.set()
        await wait_until(lambda: lb.store.connector.outage.away, "they tried to give it back")
        if ending == "cancelled":
            for task in blocks:
                task.cancel()
        await asyncio.gather(*blocks, return_exceptions=True)
        await lossy.listen()
        await emptied(pair.primary, namespace, "nobody")


async def test_waiters_that_gave_up_while_the_line_was_down_cost_the_next_no_time(
    pair: Pair, lossy: Proxy, namespace: str
) -> None:
    """Forty of them, whose process still listens: each would be handed the lock before the one that waits for it."""
    async with (
        Lockbeat(pair.primary.url, namespace=namespace) as other,
        Lockbeat(lossy.url, namespace=namespace, timeout=1) as lb,
    ):
        assert await other.locks.try_acquire("taken", other.owner, HOUR)
        waiters = [asyncio.create_task(lb.lock("taken", ttl=HOUR, wait=2).__aenter__()) for _ in range(40)]
        queue = other.store.keys.key(0, "lock:queue")
        await wait_until(lambda: pair.primary.call("ZCARD", queue) == 40, "they wait")
        await lossy.become("refused")
        await asyncio.gather(*waiters, return_exceptions=True)
        await lossy.listen()
        await emptied(pair.primary, namespace, other.owner)
        waiting = asyncio.create_task(lb.lock("taken", ttl=30).__aenter__())
        await wait_until(lambda: pair.primary.call("ZCARD", queue) == 1, "it waits")
        assert await other.locks.release("taken", other.owner)
        await asyncio.wait_for(waiting, 30)  # each of those would cost two seconds


async def test_what_a_shot_began_whose_reply_was_lost_is_given_back_when_the_beat_ends(
    pair: Pair, lossy: Proxy, namespace: str
) -> None:
    """The client is not the beat's own, and lives on: no release_all ends what it holds."""
    async with Lockbeat(lossy.url, namespace=namespace, timeout=1) as lb:
        beat = Beat(lb, grace=0)

        @beat.every(1, lease=HOUR)
        async def job() -> None: ...

        async with beat.lifespan():
            lose_replies(lossy, "beat/fire", 1)
            await wait_until(lambda: lossy.lost, "it was fired, and nobody knows")
            await lossy.become("refused")
        assert pair.primary.call("HLEN", lb.store.keys.key(0, "task"))
        await lossy.listen()
        await emptied(pair.primary, namespace, "nobody")


@pytest.mark.parametrize("verb", ["try_acquire", "tasks.claim"])
async def test_a_client_that_is_closed_waits_for_the_store_within_its_timeout(
    pair: Pair, lossy: Proxy, namespace: str, verb: str
) -> None:
    async with Lockbeat(pair.primary.url, namespace=namespace) as other:
        await other.tasks.spawn("job")
    lb = Lockbeat(lossy.url, namespace=namespace, timeout=20)
    await lb.__aenter__()
    lose_replies(lossy, times=1)
    call = asyncio.ensure_future(TAKING[verb](lb))
    await wait_until(lambda: lossy.lost, "the reply is lost")
    await lossy.become("refused")
    await wait_until(lambda: lb.store.connector.outage.away, "the line is down")
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    closing = asyncio.create_task(lb.__aexit__(None, None, None))
    await asyncio.sleep(0)
    await lossy.listen()
    await closing
    await emptied(pair.primary, namespace, "nobody")


async def test_calls_to_be_taken_back_are_bounded(lossy: Proxy, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockbeat.store.wire.MOST_KEPT", 3)
    async with Lockbeat(lossy.url, namespace=namespace, timeout=1) as lb:
        await lossy.become("refused")
        calls = [asyncio.create_task(lb.locks.try_acquire(f"k{n}", "alice", HOUR)) for n in range(9)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        wire = lb.store.wire(0)
        await wait_until(lambda: lb.store.connector.outage.away, "the line is down")
        assert len(wire._waiting) == 3
        await lossy.listen()


async def test_a_grant_that_nobody_wants_is_given_back(pair: Pair, namespace: str) -> None:
    """A waiter's release can be lost in a failover: then it stands in the queue, and nobody waits."""
    async with Lockbeat(pair.primary.url, namespace=namespace) as lb, Lockbeat(pair.primary.url, namespace=namespace) as other:
        assert await other.locks.try_acquire("k", "holder", HOUR)
        for _ in range(20):
            with pytest.raises(LockTimeout):
                await lb.lock("k", ttl=HOUR, wait=0.01).__aenter__()
        for gone in lb.locks._room._gone.values():
            await lb.store.call_row(gone.row, gone.shard)
        queue = lb.store.keys.key(0, "lock:queue")
        assert pair.primary.call("ZCARD", queue) == 20
        waiting = asyncio.create_task(lb.lock("k", ttl=30).__aenter__())
        await wait_until(lambda: pair.primary.call("ZCARD", queue) == 21, "one waits")
        assert await other.locks.release("k", "holder")
        await asyncio.wait_for(waiting, 10)  # each of the twenty would keep it for two seconds


@pytest.mark.parametrize("kind", ["locks.handle", "claims.handle"])
async def test_a_lease_that_the_store_was_long_in_granting_is_held_for_its_whole_time(
    lossy: Proxy, namespace: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """By our clock most of it was over when the answer came; the store may have granted it just now."""
    async with Lockbeat(lossy.url, namespace=namespace) as lb:
        handle = lb.lock("k", ttl=30) if kind == "locks.handle" else lb.claims.hold("k", lease=30)
        began = monotonic()
        clock = itertools.chain([began - 25], iter(monotonic, None))
        monkeypatch.setattr(f"lockbeat.{kind}.monotonic", lambda: next(clock))
        async with handle:
            assert kept(lb).asked_at >= began
