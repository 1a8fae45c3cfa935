"""Promise 8: cancelling any call at any await leaves no claim behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lockbeat import Claim, Lockbeat
from tests.claims import acquired, left_behind, ran_out
from tests.guarantees.test_lock_cancellation import STEPS, cancelled_after


async def nobody_is_at_it(lb: Lockbeat, key: str) -> None:
    """The next call of the same client finds it free: its undoing went ahead."""
    assert await lb.claims.is_claimed(key) is None, "an orphan is claimed"
    assert await lb.claims.expired() == [], "an orphan ran out"


async def test_a_cancelled_acquire_leaves_no_claim(lb: Lockbeat) -> None:
    """At every turn of the loop, and 100 times in flight. And no attempt is counted."""
    for steps in [*range(STEPS), *[2] * 100]:
        over = await cancelled_after(steps, lb.claims.acquire("k", "alice"))
        if over:
            claim = await lb.claims.get("k", "alice")
            assert claim is not None
            assert await lb.claims.release(claim)
        await nobody_is_at_it(lb, "k")
    assert (await acquired(lb.claims, "k")).attempt == 1


async def test_a_cancelled_acquire_of_a_short_lease_leaves_nothing_to_take_over(lb: Lockbeat) -> None:
    """It has run out before it is undone."""
    for steps in range(12):
        over = await cancelled_after(steps, lb.claims.acquire(f"k{steps}", "alice", lease=0.001))
        await asyncio.sleep(0.002)
        await ran_out(lb, f"k{steps}")
        assert await lb.claims.cleanup() == (1 if over else 0), "an orphan ran out"


async def test_a_cancelled_take_over_leaves_no_claim_and_its_attempt_does_not_count(lb: Lockbeat) -> None:
    for steps in range(8):
        key = f"k{steps}"
        first = await left_behind(lb, key, "dead")
        over = await cancelled_after(steps, lb.claims.acquire(key, "alice"))
        if over:
            continue
        assert await lb.claims.is_claimed(key) is None
        second = await acquired(lb.claims, key, "bob")
        # One that was never sent has changed nothing, and there is somebody to take over from.
        assert second.attempt == 2
        assert second.fence > first.fence


async def test_undoing_a_cancelled_call_spares_what_the_owner_has(lb: Lockbeat) -> None:
    claim = await acquired(lb.claims, "k", "alice")
    for steps in range(STEPS):
        await cancelled_after(steps, lb.claims.acquire("k", "alice"))
        assert await lb.claims.list() == [claim]


async def test_a_cancelled_block_leaves_no_claim(lb: Lockbeat) -> None:
    async def block() -> None:
        async with lb.claims.hold("k"):
            await asyncio.sleep(0)

    for steps in [*range(STEPS), *[3] * 100]:
        await cancelled_after(steps, block())
        await nobody_is_at_it(lb, "k")
    assert len(lb.keeper) == 0


@pytest.mark.parametrize("verb", ["complete", "fail", "release"])
async def test_a_cancelled_end_is_an_end(lb: Lockbeat, verb: str) -> None:
    ends: dict[str, Callable[[Claim], Awaitable[Any]]] = {
        "complete": lambda claim: lb.claims.complete(claim, "result"),
        "fail": lambda claim: lb.claims.fail(claim, "boo"),
        "release": lambda claim: lb.claims.release(claim),
    }
    for steps in range(1, STEPS):
        claim = await acquired(lb.claims, "k")

        async def run(claim: Claim = claim) -> None:
            await ends[verb](claim)

        await cancelled_after(steps, run())
        await nobody_is_at_it(lb, "k")


@pytest.mark.parametrize("verb", ["renew", "get", "owns", "list", "active", "expired", "cleanup", "stats", "release_all"])
async def test_cancelling_any_other_verb_leaves_the_client_usable(lb: Lockbeat, verb: str) -> None:
    claim = await acquired(lb.claims, "k")
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "renew": lambda: lb.claims.renew(claim, 30),
        "get": lambda: lb.claims.get("k", "alice"),
        "owns": lambda: lb.claims.owns("k", "alice", claim.fence),
        "list": lambda: lb.claims.list(),
        "active": lambda: lb.claims.active(),
        "expired": lambda: lb.claims.expired(),
        "cleanup": lambda: lb.claims.cleanup(),
        "stats": lambda: lb.claims.stats(),
        "release_all": lambda: lb.claims.release_all("bob"),
    }
    for steps in range(12):

        async def run() -> None:
            await calls[verb]()

        await cancelled_after(steps, run())
        assert await lb.claims.owns("k", "alice", claim.fence)
