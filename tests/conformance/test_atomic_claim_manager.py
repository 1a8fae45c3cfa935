"""`AtomicClaimManager`, function by function, on every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from lockbeat import Busy, Claim, ClaimRefused, Lockbeat
from lockbeat.claims import ClaimHandle
from lockbeat.claims.table import PAGE
from tests.claims import SHORT, acquired, left_behind, ran_out
from tests.conftest import Backend, only

# claim


async def test_claim_is_acquired_already_claimed_or_taken_over(lb: Lockbeat) -> None:
    first = await lb.claims.acquire("task", "worker 1", 30, queue="q")
    assert isinstance(first, Claim)
    assert first.outcome == "acquired"
    second = await lb.claims.acquire("task", "worker 2", 30, queue="q")
    assert isinstance(second, Busy)
    assert await lb.claims.renew(first, SHORT)
    await ran_out(lb, "task", queue="q")
    third = await lb.claims.acquire("task", "worker 2", 30, queue="q")
    assert isinstance(third, Claim)
    assert (third.outcome, third.previous_owner, third.queue) == ("took_over", "worker 1", "q")
    assert third.fence > first.fence


async def test_queues_are_isolated(lb: Lockbeat) -> None:
    claims = {queue: await acquired(lb.claims, "task", f"of {queue}", queue=queue) for queue in ("a", "b", "default")}
    assert not await lb.claims.acquire("task", "other", queue="a")
    assert await lb.claims.complete(claims["a"], "result", hold=30)
    assert await lb.claims.release(claims["b"])
    assert await lb.claims.list("a") == [] == await lb.claims.list("b")
    assert await lb.claims.list() == [claims["default"]]


async def test_queue_and_key_are_not_confused(lb: Lockbeat) -> None:
    places = [("a", "bc"), ("ab", "c"), ("a\xff", "b"), ("a", "\xffb"), ("a\0", "b"), ("a", "\0b"), ("a b", "c"), ("a", "b c")]
    for queue, key in places:
        await acquired(lb.claims, key, f"{queue}|{key}", queue=queue)
    for queue, key in places:
        claim = await lb.claims.is_claimed(key, queue)
        assert claim is not None
        assert (claim.queue, claim.key, claim.owner) == (queue, key, f"{queue}|{key}")
    assert [claim.key for claim in await lb.claims.list("a")] == ["\0b", "b c", "bc", "\xffb"]
    assert [claim.key for claim in await lb.claims.list("a\xff")] == ["b"]


# release, extend


Verb = Callable[[Lockbeat, Claim], Awaitable[bool]]
verbs: list[Any] = [
    pytest.param(lambda lb, claim: lb.claims.release(claim), lambda handle: handle.release(), id="release"),
    pytest.param(lambda lb, claim: lb.claims.renew(claim, 30), lambda handle: handle.renew(30), id="extend"),
]
Raising = Callable[[ClaimHandle], Awaitable[None]]


async def refused(lb: Lockbeat, verb: Verb, raising: Raising, claim: Claim, refusal: str) -> None:
    """False; and of the handle an error that says why."""
    assert await verb(lb, claim) is False
    handle = lb.claims.handle(claim)
    assert not handle.refusal
    with pytest.raises(ClaimRefused, match=refusal) as caught:
        await raising(handle)
    assert caught.value.refusal == handle.refusal == refusal
    assert (caught.value.key, caught.value.queue) == (claim.key, claim.queue)
    assert (caught.value.owner, caught.value.fence) == (claim.owner, claim.fence)


@pytest.mark.parametrize(("verb", "raising"), verbs)
async def test_release_and_extend_of_the_live_claim_are_true(lb: Lockbeat, verb: Verb, raising: Raising) -> None:
    assert await verb(lb, await acquired(lb.claims, "a")) is True
    handle = lb.claims.handle(await acquired(lb.claims, "b"))
    await raising(handle)
    assert handle.refusal is None


@pytest.mark.parametrize(("verb", "raising"), verbs)
async def test_a_stale_token_is_refused(lb: Lockbeat, verb: Verb, raising: Raising) -> None:
    stale = await left_behind(lb, "task", "worker")
    newer = await acquired(lb.claims, "task", "worker")
    await refused(lb, verb, raising, stale, "stale token")
    assert await lb.claims.is_claimed("task") == newer


@pytest.mark.parametrize(("verb", "raising"), verbs)
async def test_a_wrong_owner_is_refused(lb: Lockbeat, verb: Verb, raising: Raising) -> None:
    claim = await acquired(lb.claims, "task", "worker")
    await refused(lb, verb, raising, replace(claim, owner="other"), "wrong owner")
    assert await lb.claims.is_claimed("task") == claim


@pytest.mark.parametrize(("verb", "raising"), verbs)
async def test_an_expired_claim_is_refused(lb: Lockbeat, verb: Verb, raising: Raising) -> None:
    claim = await left_behind(lb, "task")
    await refused(lb, verb, raising, claim, "expired")
    assert await lb.claims.expired() == [claim]
    await lb.claims.cleanup()
    await refused(lb, verb, raising, claim, "expired")


@pytest.mark.parametrize(("verb", "raising"), verbs)
async def test_an_unknown_claim_is_refused(lb: Lockbeat, verb: Verb, raising: Raising) -> None:
    claim = await acquired(lb.claims, "task")
    await refused(lb, verb, raising, replace(claim, key="no such"), "unknown")
    await refused(lb, verb, raising, replace(claim, queue="no such"), "unknown")


@pytest.mark.parametrize(("verb", "raising"), verbs)
async def test_a_finished_claim_is_refused(lb: Lockbeat, verb: Verb, raising: Raising) -> None:
    ends: list[Any] = [lb.claims.complete, lambda claim: lb.claims.fail(claim, "boo"), lb.claims.release]
    for n, finish in enumerate(ends):
        claim = await acquired(lb.claims, f"task {n}")
        assert await finish(claim)
        await refused(lb, verb, raising, claim, "finished")


async def test_the_handle_says_why_it_can_not_finish_too(lb: Lockbeat) -> None:
    stale = await left_behind(lb, "task", "worker")
    await acquired(lb.claims, "task", "worker")
    ends: list[Any] = [lambda handle: handle.complete("result"), lambda handle: handle.fail("boo")]
    for finish in ends:
        handle = lb.claims.handle(stale)
        with pytest.raises(ClaimRefused):
            await finish(handle)
        assert handle.refusal == "stale token"


# is_claimed, get_token


async def test_is_claimed_knows_live_claims_only(lb: Lockbeat) -> None:
    assert await lb.claims.is_claimed("task") is None
    claim = await acquired(lb.claims, "task", "worker", 30)
    found = await lb.claims.is_claimed("task")
    assert found is not None
    assert (found.owner, found.expires_at) == (claim.owner, claim.expires_at)
    assert await lb.claims.renew(claim, SHORT)
    await ran_out(lb, "task")
    assert await lb.claims.is_claimed("task") is None


async def test_get_is_the_live_claim_if_that_owners(lb: Lockbeat) -> None:
    assert await lb.claims.get("task", "worker") is None
    claim = await acquired(lb.claims, "task", "worker", 30)
    assert await lb.claims.get("task", "worker") == claim
    assert await lb.claims.get("task", "other") is None
    assert await lb.claims.get("task", "worker", queue="other") is None
    assert await lb.claims.renew(claim, SHORT)
    await ran_out(lb, "task")
    assert await lb.claims.get("task", "worker") is None


async def test_a_claim_that_was_got_is_as_good_as_the_acquired_one(lb: Lockbeat) -> None:
    await left_behind(lb, "task", "dead")
    await acquired(lb.claims, "task", "worker")
    claim = await lb.claims.get("task", "worker")
    assert claim is not None
    assert (claim.outcome, claim.previous_owner, claim.attempt) == ("took_over", "dead", 2)
    assert await lb.claims.complete(claim)


# cleanup_expired


async def test_cleanup_counts_what_ran_out_and_the_next_acquire_takes_over_from_nobody(lb: Lockbeat) -> None:
    await acquired(lb.claims, "live")
    for n in range(3):
        await left_behind(lb, f"task {n}", queue=f"q{n}")
    assert await lb.claims.cleanup() == 3
    assert await lb.claims.cleanup() == 0
    assert await lb.claims.expired() == []
    claim = await acquired(lb.claims, "task 0", queue="q0")
    assert (claim.outcome, claim.previous_owner, claim.attempt) == ("acquired", None, 1)
    assert await lb.claims.is_claimed("live")


async def test_cleanup_of_failed_work_that_ran_out_begins_anew(lb: Lockbeat) -> None:
    await lb.claims.fail(await acquired(lb.claims, "task"), "boo")
    assert (await left_behind(lb, "task")).attempt == 2
    assert await lb.claims.cleanup() == 1
    claim = await acquired(lb.claims, "task")
    assert (claim.attempt, claim.last_error) == (1, None)


async def test_cleanup_leaves_alone_what_ended(lb: Lockbeat) -> None:
    done, failed = [await acquired(lb.claims, key, lease=SHORT) for key in ("done", "failed")]
    await lb.claims.complete(done, "result", hold=30)
    await lb.claims.fail(failed, "boo")
    await asyncio.sleep(2 * SHORT)
    assert await lb.claims.cleanup() == 0
    assert not await lb.claims.acquire("done", "worker")
    assert (await acquired(lb.claims, "failed")).attempt == 2


async def test_cleanup_goes_on_in_batches_until_all_are_gone(lb: Lockbeat) -> None:
    count = 2 * PAGE + 7
    await asyncio.gather(*(acquired(lb.claims, f"task {n}", lease=SHORT) for n in range(count)))
    await ran_out(lb, *(f"task {n}" for n in range(count)))
    assert await lb.claims.cleanup() == count
    assert await lb.claims.cleanup() == 0
    assert (await lb.claims.stats()).expired == count


# stats


async def test_stats_count_what_happened(lb: Lockbeat) -> None:
    assert (await lb.claims.stats()).attempts == 0
    first = await acquired(lb.claims, "a")
    await lb.claims.renew(first, 30)
    await lb.claims.renew(first, 30)
    await lb.claims.acquire("a", "bob")  # contended
    await lb.claims.complete(first, hold=30)
    await lb.claims.complete(first)  # refused, counts nowhere
    await lb.claims.acquire("a", "bob")  # done: contended, too
    await lb.claims.fail(await acquired(lb.claims, "b"), "boo")
    await lb.claims.release(await acquired(lb.claims, "c"))
    await left_behind(lb, "d")
    await acquired(lb.claims, "d", "bob")  # took over
    await left_behind(lb, "e")
    await lb.claims.cleanup()
    await left_behind(lb, "f")
    await lb.claims.renew(replace(first, key="no such"), 30)
    stats = await lb.claims.stats()
    assert (stats.acquired, stats.contended, stats.took_over) == (6, 2, 1)
    assert (stats.completed, stats.failed, stats.released, stats.renewed, stats.expired) == (1, 1, 1, 2, 2)
    assert stats.attempts == stats.acquired + stats.contended + stats.took_over
    still = len(await lb.claims.expired()) + await lb.claims.active()
    assert stats.acquired + stats.took_over == stats.completed + stats.failed + stats.released + stats.expired + still


async def test_stats_count_all_calls_of_a_batch(lb: Lockbeat) -> None:
    answers = await asyncio.gather(*(lb.claims.acquire(f"task {n // 3}", f"o{n}") for n in range(90)))
    claims = [answer for answer in answers if isinstance(answer, Claim)]
    await asyncio.gather(*(lb.claims.renew(claim, 30) for claim in claims))
    await asyncio.gather(*(lb.claims.complete(claim) for claim in claims))
    stats = await lb.claims.stats()
    assert (stats.attempts, stats.acquired, stats.contended) == (90, 30, 60)
    assert (stats.renewed, stats.completed) == (30, 30)


# active_claims, list_claims


async def test_active_and_list_are_the_live_claims_of_a_queue_in_order(lb: Lockbeat) -> None:
    assert (await lb.claims.active("q"), await lb.claims.list("q")) == (0, [])
    made = {key: await acquired(lb.claims, key, queue="q") for key in ("c", "a", "b", "é", "Z")}
    await acquired(lb.claims, "a", queue="other")
    await left_behind(lb, "old", queue="q")
    await lb.claims.complete(await acquired(lb.claims, "done", queue="q"), hold=30)
    assert await lb.claims.active("q") == 5
    assert await lb.claims.list("q") == [made[key] for key in ("Z", "a", "b", "c", "é")]
    assert await lb.claims.list("q", limit=2) == [made["Z"], made["a"]]
    assert await lb.claims.release_all("alice") == 6
    assert (await lb.claims.active("q"), await lb.claims.list("q")) == (0, [])


async def test_list_without_active_leaves_out_what_ran_out(lb: Lockbeat) -> None:
    for n in range(25):
        await acquired(lb.claims, f"old {n}", lease=SHORT)
    live = await acquired(lb.claims, "z")
    await ran_out(lb, *(f"old {n}" for n in range(25)))
    assert await lb.claims.list(limit=1) == [live]


async def test_list_and_active_go_on_over_pages(lb: Lockbeat) -> None:
    count = PAGE + 30
    await asyncio.gather(*(acquired(lb.claims, f"old {n}", lease=SHORT) for n in range(count)))
    await asyncio.gather(*(acquired(lb.claims, f"task {n:04}") for n in range(count)))
    await ran_out(lb, *(f"old {n}" for n in range(count)))
    assert await lb.claims.active() == count
    assert [claim.key for claim in await lb.claims.list(limit=10_000)] == [f"task {n:04}" for n in range(count)]


@only("valkey", "redis")
async def test_list_active_and_expired_cost_what_they_return_however_many_there_are(lb: Lockbeat, backend: Backend) -> None:
    await asyncio.gather(*(acquired(lb.claims, f"task {n}", queue="big") for n in range(3000)))
    await asyncio.gather(*(acquired(lb.claims, f"old {n}", lease=SHORT, queue="big") for n in range(200)))
    await ran_out(lb, *(f"old {n}" for n in range(200)), queue="big")
    assert await lb.claims.active("big") == 3000  # moves away what ran out, once

    def reads() -> int:
        return sum(backend.calls("hget", "hmget", "hgetall", "zrange", "zrem").values())

    before = reads()
    assert len(await lb.claims.list("big", 10)) == 10
    assert await lb.claims.active("big") == 3000
    assert len(await lb.claims.expired(10)) == 10
    assert reads() - before <= 3 * 20 + 20
