"""What was answered under `durability=` is where it was asked to be; else NotDurable, and nothing is held.

A replica that is frozen keeps its connection and acknowledges nothing: calls wait for it as long as it stays so.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Claim, Durability, Lockbeat, NotDurable
from lockbeat.errors import InvalidArgument, InvalidType, LockTimeout, ScriptError, StoreError
from lockbeat.store.scripts import load
from tests import servers
from tests.conftest import Connect, chosen, needs, only, wait_until
from tests.guarantees.conftest import Pair, started
from tests.keeping import renewed
from tests.proxy import Proxy, proxy
from tests.servers import Server
from tests.tasks import cancelled_after

ONE = Durability(replicas=1, timeout=20)
SOON = Durability(replicas=1, timeout=0.05)
DISK = Durability(fsync=True, timeout=20)


@pytest.fixture
async def lb(pair: Pair, namespace: str) -> AsyncIterator[Lockbeat]:
    async with Lockbeat(pair.primary.url, namespace=namespace) as client:
        yield client


@pytest.fixture
async def other(pair: Pair, namespace: str) -> AsyncIterator[Lockbeat]:
    async with Lockbeat(pair.primary.url, namespace=namespace) as client:
        yield client


async def free(lb: Lockbeat, key: str = "k") -> None:
    """Nobody holds the lock any more, and nobody waits for it."""
    async with asyncio.timeout(30):
        while not await lb.locks.try_acquire(key, "prober", 30):
            await asyncio.sleep(0.001)
    assert await lb.locks.release(key, "prober")
    assert await lb.locks.owner(key) is None


def in_queue(pair: Pair, lb: Lockbeat) -> object:
    """How many wait."""
    return pair.primary.call("ZCARD", lb.store.keys.key(0, "lock:queue"))


# Met, and not met


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


# What goes on meanwhile


async def waiting(pair: Pair, lb: Lockbeat, key: str = "k", durability: Durability = ONE) -> asyncio.Task[Any]:
    """An acquire that waits for the replica, which is frozen."""
    pair.replica.freeze()
    task = asyncio.create_task(lb.locks.try_acquire(key, "alice", 30, durability=durability))
    await wait_until(pair.blocked, "the server waits for the replica")
    return task


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


async def cancel_everywhere(url: str, namespace: str, durability: Durability, *, fresh: bool, closed: bool) -> None:
    """Cancel an acquire at many turns of the loop, and find the lock free when all that was on its way has arrived."""
    async with Lockbeat(url, namespace=namespace) as other:
        for steps in [*range(0, 40, 2), *range(40, 1000, 80)]:
            async with Lockbeat(url, namespace=namespace) as lb:
                if not fresh:
                    await lb.locks.try_acquire("warm", "alice", 30, durability=durability)
                if await cancelled_after(steps, lb.locks.try_acquire("k", "alice", 30, durability=durability)):
                    await other.locks.release("k", "alice")
                if not closed:
                    await idle(lb)
                    assert await lb.locks.owner("k") is None
            assert await other.locks.owner("k") is None, "closing waits for what takes it back"


async def idle(lb: Lockbeat) -> None:
    """Nothing is on its way."""
    durable = lb.store._durable.values()
    await wait_until(lambda: not lb.store._undoing and not any(wire._working for wire in durable), "nothing is on its way")


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


# Lost replies


@pytest.fixture
async def lossy(pair: Pair) -> AsyncIterator[Proxy]:
    async with proxy(pair.primary.port) as made:
        yield made


@pytest.fixture
async def client(lossy: Proxy, namespace: str) -> AsyncIterator[Lockbeat]:
    """Behind the proxy."""
    async with Lockbeat(lossy.url, namespace=namespace, timeout=2) as lb:
        yield lb


def calls_of(script: str) -> Callable[[bytes], bool]:
    return lambda request: load(script).sha.encode() in request or f"-- {script}: ".encode() in request


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


# The disk


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
