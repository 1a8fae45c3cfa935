"""Promise 8: a call whose reply was lost is repeated, gives the first outcome, and counts once."""

from __future__ import annotations

import asyncio

import pytest

from lockbeat import Busy, Claim, Lockbeat
from lockbeat.claims import ClaimStats
from tests.claims import acquired, left_behind, ran_out
from tests.conftest import only, wait_until
from tests.guarantees.test_lock_lost_replies import calls_of
from tests.proxy import Proxy

pytestmark = only("valkey", "redis")


def counts(stats: ClaimStats) -> dict[str, int]:
    """What is not 0."""
    return {name: getattr(stats, name) for name in ClaimStats.__slots__ if getattr(stats, name)}


@pytest.mark.parametrize("times", [1, 3])
async def test_acquire_claims_once(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    lossy.lose_reply(calls_of("claim/acquire"), times)
    claim = await acquired(client.claims, "k")
    assert lossy.lost == times
    assert await lb.claims.list() == [claim]
    assert (claim.attempt, claim.outcome) == (1, "acquired")
    assert counts(await lb.claims.stats()) == {"attempts": 1, "acquired": 1}


async def test_a_take_over_is_told_as_such_though_it_had_happened_by_then(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    await left_behind(lb, "k", "dead")
    lossy.lose_reply(calls_of("claim/acquire"), 2)
    claim = await acquired(client.claims, "k")
    assert lossy.lost == 2
    assert (claim.attempt, claim.outcome, claim.previous_owner) == (2, "took_over", "dead")
    assert counts(await lb.claims.stats()) == {"attempts": 2, "acquired": 1, "took_over": 1, "expired": 1}


async def test_acquire_after_a_failure_is_still_told_of_it(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    await lb.claims.fail(await acquired(lb.claims, "k"), "boo")
    lossy.lose_reply(calls_of("claim/acquire"))
    claim = await acquired(client.claims, "k")
    assert (lossy.lost, claim.attempt, claim.last_error) == (1, 2, "boo")


async def test_what_ran_out_before_the_repeat_is_the_same_claim_and_not_revived(
    client: Lockbeat, lossy: Proxy, lb: Lockbeat
) -> None:
    await lb.claims.stats()
    lossy.lose_reply(calls_of("claim/acquire"))
    claim = await acquired(client.claims, "k", lease=0.001)
    assert lossy.lost == 1
    assert (claim.attempt, claim.outcome) == (1, "acquired")
    await ran_out(lb, "k")
    assert await lb.claims.renew(claim, 30) is False
    assert await lb.claims.expired() == [claim]
    assert counts(await lb.claims.stats()) == {"attempts": 1, "acquired": 1}


async def test_busy_counts_each_time(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    await acquired(lb.claims, "k", "holder")
    lossy.lose_reply(calls_of("claim/acquire"), 3)
    assert isinstance(await client.claims.acquire("k", "alice"), Busy)
    assert lossy.lost == 3
    assert counts(await lb.claims.stats()) == {"attempts": 5, "acquired": 1, "contended": 4}


async def test_a_busy_that_nobody_heard_may_be_a_claim_by_the_next_try(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    holder = await acquired(lb.claims, "k", "holder")
    lossy.lose_reply(calls_of("claim/acquire"), 3)
    acquiring = asyncio.create_task(client.claims.acquire("k", "alice"))
    await wait_until(lambda: lossy.lost, "the reply is lost")
    await lb.claims.complete(holder)
    assert isinstance(await acquiring, Claim)
    stats = await lb.claims.stats()
    assert (stats.acquired, stats.completed) == (2, 1)


async def test_done_counts_each_time(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    await lb.claims.complete(await acquired(lb.claims, "k"), "result", hold=30)
    lossy.lose_reply(calls_of("claim/acquire"), 2)
    answer = await client.claims.acquire("k", "alice")
    assert not answer
    assert lossy.lost == 2
    assert counts(await lb.claims.stats()) == {"attempts": 4, "acquired": 1, "contended": 3, "completed": 1}


@pytest.mark.parametrize("verb", ["complete", "fail", "release"])
async def test_complete_fail_and_release_are_true_though_it_had_ended_by_then(
    client: Lockbeat, lossy: Proxy, lb: Lockbeat, verb: str
) -> None:
    claim = await acquired(client.claims, "k")
    lossy.lose_reply(calls_of(f"claim/{verb}"), 2)
    assert await end(client, verb, claim) is True
    assert lossy.lost == 2
    assert await end(client, verb, claim) is False
    ended = {"complete": "completed", "fail": "failed", "release": "released"}[verb]
    assert counts(await lb.claims.stats()) == {"attempts": 1, "acquired": 1, ended: 1}


async def end(lb: Lockbeat, verb: str, claim: Claim) -> bool:
    if verb == "complete":
        return await lb.claims.complete(claim, "result")
    return await (lb.claims.fail(claim, "boo") if verb == "fail" else lb.claims.release(claim))


@pytest.mark.parametrize("verb", ["complete", "fail", "release"])
async def test_they_are_true_though_others_have_claimed_it_since(client: Lockbeat, lossy: Proxy, lb: Lockbeat, verb: str) -> None:
    claim = await acquired(client.claims, "k")
    lossy.lose_reply(calls_of(f"claim/{verb}"), 3)
    ending = asyncio.create_task(end(client, verb, claim))
    await wait_until(lambda: lossy.lost, "the reply is lost")
    for owner in ("bob", "carol", "dave"):
        assert await lb.claims.fail(await acquired(lb.claims, "k", owner), "boo")
    erin = await acquired(lb.claims, "k", "erin")
    assert not ending.done()
    assert await ending is True
    assert await lb.claims.is_claimed("k") == erin


async def test_renew_counts_once(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    claim = await acquired(client.claims, "k", lease=30)
    lossy.lose_reply(calls_of("claim/renew"), 2)
    assert await client.claims.renew(claim, 60) is True
    assert lossy.lost == 2
    assert (await lb.claims.stats()).renewed == 1
    [found] = await lb.claims.list()
    assert found.expires_at > await lb.store.server_time() + 50


async def test_renew_is_true_though_it_ran_out_before_the_repeat(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    claim = await acquired(client.claims, "k", lease=30)
    lossy.lose_reply(calls_of("claim/renew"), 2)
    assert await client.claims.renew(claim, 0.001) is True
    assert await client.claims.renew(claim, 30) is False


async def test_cleanup_and_release_all_count_what_the_first_call_ended(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    await asyncio.gather(*(acquired(lb.claims, f"old {n}", lease=0.01) for n in range(250)))
    await ran_out(lb, *(f"old {n}" for n in range(250)))
    lossy.lose_reply(calls_of("claim/cleanup"), 2)
    assert await client.claims.cleanup() == 250
    await asyncio.gather(*(acquired(lb.claims, f"k{n}") for n in range(250)))
    lossy.lose_reply(calls_of("claim/release_all"), 2)
    assert await client.claims.release_all("alice") == 250
    assert lossy.lost == 4
    assert counts(await lb.claims.stats()) == {"attempts": 500, "acquired": 500, "expired": 250, "released": 250}


async def test_a_whole_batch_survives_a_lost_reply(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    lossy.lose_reply(calls_of("claim/acquire"))
    answers = await asyncio.gather(*(client.claims.acquire(f"k{n % 32}", "alice") for n in range(64)))
    assert lossy.lost >= 1
    listed = await lb.claims.list()
    assert sorted(answer.fence for answer in answers if isinstance(answer, Claim)) == sorted(claim.fence for claim in listed)
    stats = await lb.claims.stats()
    assert stats.acquired == 32
    assert stats.contended >= 32


async def test_a_block_is_not_told_of_a_loss_that_was_its_own_completion(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    async with client.claims.hold("k", hold=30) as claim:
        claim.result = "result"
        lossy.lose_reply(calls_of("claim/complete"), 2)
    assert lossy.lost == 2
    assert not await lb.claims.acquire("k", "bob")
