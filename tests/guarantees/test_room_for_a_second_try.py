"""Promise 7: no lease is lost to one connection: there is time for another, and for another try, within the shortest lease."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from lockbeat import Beat, LeaseLost, Lockbeat
from lockbeat.connection import Connector
from lockbeat.leases.lease import monotonic
from tests.claims import acquired, ran_out
from tests.conftest import Backend, only, wait_until
from tests.keeping import renewed
from tests.proxy import Proxy, proxy

VALKEY = only("valkey")


async def holding(handle: Any, entered: asyncio.Event) -> None:
    async with handle:
        entered.set()
        await asyncio.Event().wait()


@VALKEY
async def test_a_connection_that_is_forgotten_costs_no_lease(lossy: Proxy, namespace: str) -> None:
    """As by a firewall: its packets vanish, without a word; new connections work. The client's timeout is 5 s, its default."""
    async with Lockbeat(lossy.url, namespace=namespace) as lb:
        began = []
        beat = Beat(lb, grace=0)

        @beat.every(1)
        async def job() -> None:
            began.append("job")
            await asyncio.Event().wait()

        @beat.task
        async def task() -> None:
            began.append("task")
            await asyncio.Event().wait()

        handles = [
            *(lb.lock(f"k{ttl}", ttl=ttl) for ttl in (3, 8)),
            *(lb.claims.hold(f"k{lease}", lease=lease) for lease in (3, 8)),
        ]
        entered = [asyncio.Event() for _ in handles]
        blocks = [asyncio.create_task(holding(handle, event)) for handle, event in zip(handles, entered, strict=True)]
        for event in entered:
            await event.wait()
        async with beat.lifespan():
            await beat.spawn(task)
            await wait_until(lambda: len(began) == 2, "they run")
            held = [one for one in lb.keeper._held if one.row.script != "task/renew_call"]
            assert len(held) == 6
            await renewed(lb)
            vanished_at = monotonic()
            lossy.vanish()
            await wait_until(lambda: all(one.asked_at > vanished_at for one in held), "each has been renewed")
            assert all(lb.keeper.holds(one) for one in held), "none was lost on the way"
            assert not any(block.done() for block in blocks)
            assert len(began) == 2, "nothing was begun again"
            for block in blocks:
                block.cancel()
            await asyncio.gather(*blocks, return_exceptions=True)


@VALKEY
async def test_a_call_for_a_short_lease_does_not_wait_for_a_forgotten_connection(lossy: Proxy, namespace: str) -> None:
    """As long as for another: by then the lease would be over."""
    async with Lockbeat(lossy.url, namespace=namespace) as lb:
        assert await lb.locks.try_acquire("k", "alice", 3)
        claim = await acquired(lb.claims, "k", lease=3)
        lossy.vanish()
        assert await lb.locks.renew("k", "alice", 3)
        assert await lb.claims.renew(claim, 3)
        lossy.vanish()
        lease = await lb.locks.try_acquire("another", "alice", 3)
        assert lease is not None
        assert lease.expires_at > await lb.store.server_time()


@VALKEY
@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("error", [None, ValueError, asyncio.CancelledError])
async def test_a_late_answer_is_no_loss_for_a_block_that_ended_in_time(
    lossy: Proxy, namespace: str, backend: Backend, error: type[BaseException] | None, taken: bool
) -> None:
    """The store is away when the block ends, and back when the lease has run out; another may have taken it by then."""
    async with Lockbeat(lossy.url, namespace=namespace, timeout=20) as lb, Lockbeat(backend.url, namespace=namespace) as other:

        async def block(handle: Any) -> None:
            async with handle:
                await leave.wait()
                if error is not None:
                    raise error("no luck")

        leave, lock, claim = asyncio.Event(), lb.lock("k"), lb.claims.hold("k")
        blocks = [asyncio.create_task(block(handle)) for handle in (lock, claim)]
        await wait_until(lambda: lock.lease and claim._holding, "both are held")
        holdings = [lock._holding, claim._holding]
        await lossy.become("refused")
        leave.set()
        await wait_until(lambda: lb.store.connector.outage.away, "the blocks have ended, and nobody answers")
        assert await other.locks.renew("k", lb.owner, 0.01)
        assert await other.claims.renew(claim.claim, 0.01)
        await ran_out(other, "k")
        for holding in holdings:
            assert holding is not None
            holding._held.trusted_until = monotonic()
        if taken:
            assert await other.lock("k", ttl=30, wait=20).__aenter__()
            assert await other.claims.acquire("k", "bob", 30)
        await lossy.listen()
        ends = await asyncio.gather(*blocks, return_exceptions=True)
        if taken and error is None:
            assert isinstance(ends.pop(), LeaseLost), "the work is another's by now, and not recorded as done"
        assert all(isinstance(end, error) if error is not None else end is None for end in ends), ends
        assert not any(getattr(end, "__notes__", None) for end in ends)


@only("cluster")
async def test_a_node_that_hangs_is_not_asked_first_again(backend: Backend) -> None:
    """A try may be over before the next node has been asked: the one after it begins there."""
    async with (
        proxy(backend.servers[0].port) as hole,
        await Connector.open(f"redis+cluster://127.0.0.1:{hole.port},127.0.0.1:{backend.servers[1].port}") as connector,
    ):
        await hole.become("black hole")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await connector.dedicated_for_key("k")
        async with asyncio.timeout(4):  # it would be given up after 5 s
            connection = await connector.dedicated_for_key("k")
        await connection.disconnect(nowait=True)


@only("memory", "valkey")
async def test_a_claim_that_was_long_in_coming_is_trusted_from_when_it_was_renewed(
    lb: Lockbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from its first try, it would have run out by our clock when its block begins."""
    began = monotonic()
    moments = iter([began - 25, began])  # when it was asked for, and when it was answered
    monkeypatch.setattr("lockbeat.claims.handle.monotonic", lambda: next(moments, monotonic()))
    async with lb.claims.hold("k", lease=30) as claim:
        assert claim._holding is not None
        assert claim._holding._held.asked_at == began
        assert claim._holding.trusted_until > monotonic() + 20
