"""A block holds its claim while it runs, ends it as the block ends, and is told by the deadline when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from lockbeat import ClaimBusy, ClaimDone, ClaimRefused, Done, LeaseLost, Lockbeat
from lockbeat.claims import ClaimHandle
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError, StoreError, StoreUnavailable
from lockbeat.leases.keeper import GONE, OVERDUE
from tests.claims import SHORT, acquired, left_behind, ran_out
from tests.conftest import Connect, only
from tests.keeping import hurry, kept, renewed
from tests.servers import Server


async def test_a_block_that_gets_to_its_end_completes_with_its_result(lb: Lockbeat) -> None:
    async with lb.claims.hold("k", lease=30, queue="q", hold=30) as claim:
        assert (claim.key, claim.queue, claim.owner, claim.attempt, claim.outcome) == ("k", "q", lb.owner, 1, "acquired")
        assert await lb.claims.owns("k", lb.owner, claim.fence, queue="q")
        claim.result = {"rows": 3}
    answer = await lb.claims.acquire("k", "bob", queue="q")
    assert isinstance(answer, Done)
    assert (answer.owner, answer.result) == (lb.owner, {"rows": 3})


async def test_without_hold_and_result_it_just_completes(lb: Lockbeat) -> None:
    async with lb.claims.hold("k"):
        pass
    assert (await lb.claims.stats()).completed == 1
    assert (await acquired(lb.claims, "k")).attempt == 1


async def test_a_block_that_raises_fails_with_the_text_of_the_error(lb: Lockbeat) -> None:
    with pytest.raises(RuntimeError, match="boo") as caught:
        async with lb.claims.hold("k"):
            raise RuntimeError("boo")
    assert not hasattr(caught.value, "__notes__")
    async with lb.claims.hold("k") as claim:
        assert (claim.attempt, claim.outcome, claim.previous_owner) == (2, "acquired", None)
        assert claim.last_error == "RuntimeError: boo"
    assert (await lb.claims.stats()).failed == 1


async def test_a_block_that_is_cancelled_from_outside_gives_it_back(lb: Lockbeat) -> None:
    entered = asyncio.Event()

    async def body() -> None:
        async with lb.claims.hold("k"):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stats = await lb.claims.stats()
    assert (stats.released, stats.failed, stats.completed) == (1, 0, 0)
    assert (await acquired(lb.claims, "k")).attempt == 1


async def test_a_block_that_takes_over_is_told_from_whom(lb: Lockbeat) -> None:
    await left_behind(lb, "k", "dead")
    async with lb.claims.hold("k") as claim:
        assert (claim.outcome, claim.previous_owner, claim.attempt) == ("took_over", "dead", 2)


async def test_entering_raises_while_somebody_is_at_it(lb: Lockbeat) -> None:
    busy = await acquired(lb.claims, "k", lb.owner)
    with pytest.raises(ClaimBusy) as caught:
        async with lb.claims.hold("k"):
            pytest.fail("it was claimed")
    assert (caught.value.key, caught.value.queue, caught.value.owner) == ("k", "default", lb.owner)
    assert caught.value.expires_at == busy.expires_at
    assert len(lb.keeper) == 0


async def test_entering_raises_while_it_is_done_and_held(lb: Lockbeat) -> None:
    await lb.claims.complete(await acquired(lb.claims, "k"), [1, 2], hold=30)
    with pytest.raises(ClaimDone) as caught:
        async with lb.claims.hold("k"):
            pytest.fail("it was claimed")
    assert (caught.value.key, caught.value.owner, caught.value.result) == ("k", "alice", [1, 2])
    assert caught.value.until > caught.value.completed_at


@only("valkey")
async def test_a_block_outlives_its_lease_though_it_blocks_the_event_loop(lb: Lockbeat) -> None:
    async with lb.claims.hold("k", lease=4) as claim:
        await renewed(lb, 3)
        time.sleep(5)  # noqa: ASYNC251 - the point
        assert await lb.claims.owns("k", lb.owner, claim.fence)
    assert (await lb.claims.stats()).renewed > 3


async def test_a_block_is_cancelled_when_its_claim_is_gone(lb: Lockbeat) -> None:
    handle = lb.claims.hold("k")
    with pytest.raises(LeaseLost) as caught:
        async with handle:
            await lb.claims.release_all(lb.owner)
            hurry(lb)
            await asyncio.sleep(60)
    assert (caught.value.key, caught.value.owner, caught.value.reason) == ("k", lb.owner, GONE)
    assert handle.lost
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert (await lb.claims.stats()).completed == 0


async def test_a_block_that_swallows_the_cancelling_does_not_complete(lb: Lockbeat) -> None:
    """It was told to stop while the claim still stood: nobody can say that it got to its end."""
    with pytest.raises(LeaseLost):
        async with lb.claims.hold("k", hold=30):
            held = kept(lb)
            lb.keeper.drop(held)
            asyncio.get_running_loop().call_soon(held.holder.on_lost, OVERDUE)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
    assert (await lb.claims.stats()).completed == 0
    assert await lb.claims.get("k", lb.owner)


async def test_the_blocks_own_error_comes_first_with_the_loss_as_a_note(lb: Lockbeat) -> None:
    with pytest.raises(RuntimeError, match="my own") as caught:
        async with lb.claims.hold("k"):
            await lb.claims.release_all(lb.owner)
            hurry(lb)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise RuntimeError("my own") from None
    assert any("lease on 'k'" in note and "is lost" in note for note in caught.value.__notes__)


async def test_a_block_that_ends_after_it_was_taken_away_is_told_why(lb: Lockbeat) -> None:
    handle = lb.claims.hold("k")
    with pytest.raises(LeaseLost, match="before the block did"):
        async with handle:
            await lb.claims.release_all(lb.owner)
    assert (handle.lost, handle.refusal) == (True, "finished")

    with pytest.raises(RuntimeError, match="boo") as caught:
        async with lb.claims.hold("k"):
            await lb.claims.release_all(lb.owner)
            raise RuntimeError("boo")
    assert "before the block did" in caught.value.__notes__[0]


async def test_work_that_got_to_its_end_after_the_lease_ran_out_is_done_while_nobody_took_over(
    lb: Lockbeat, connect: Connect
) -> None:
    """The block kept the event loop, and with the keeper gone nothing renewed: it was never told."""
    async with lb.claims.hold("k", hold=30) as claim:
        await run_out(lb, claim)
        claim.result = "late"
    answer = await lb.claims.acquire("k", "bob")
    assert isinstance(answer, Done)
    assert answer.result == "late"

    with pytest.raises(LeaseLost):
        async with lb.claims.hold("k2") as claim:
            await run_out(lb, claim)
            async with connect() as other:
                assert (await acquired(other.claims, "k2", "bob")).previous_owner == lb.owner
    assert await lb.claims.get("k2", "bob")


async def run_out(lb: Lockbeat, handle: ClaimHandle) -> None:
    """Let the claim run out, the keeper having given it up without a word."""
    lb.keeper.drop(kept(lb))
    await lb.claims.renew(handle.claim, SHORT)
    await ran_out(lb, handle.key)


async def test_while_the_store_hangs_a_block_is_cancelled_by_the_deadline(server: Server, namespace: str) -> None:
    async with Lockbeat(server.url, namespace=namespace, timeout=60) as lb:
        with pytest.raises(LeaseLost) as caught:
            async with lb.claims.hold("k", lease=1.5):
                server.freeze()
                held = kept(lb)
                try:
                    await asyncio.sleep(60)
                finally:
                    assert time.monotonic() >= held.trusted_until
        assert time.monotonic() < held.trusted_until + 30, "it waited for the store that does not answer"
        server.thaw()
        assert caught.value.reason == OVERDUE


async def test_work_that_is_done_and_can_not_be_recorded_is_an_error(server: Server, namespace: str) -> None:
    """Unlike a lock that can't be released: it will be done again unless the caller sees to it."""
    async with Lockbeat(server.url, namespace=namespace, timeout=1) as lb:
        with pytest.raises(StoreUnavailable):
            async with lb.claims.hold("k"):
                server.kill()


async def test_an_error_is_not_masked_by_a_store_that_is_away(
    server: Server, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Lockbeat(server.url, namespace=namespace, timeout=1) as lb:
        with pytest.raises(RuntimeError, match="boo"):
            async with lb.claims.hold("k"):
                server.kill()
                raise RuntimeError("boo")
        assert "could not end the claim on 'k'" in caplog.text


@pytest.mark.parametrize("verb", ["complete", "fail", "release"])
async def test_a_block_may_end_it_by_itself(lb: Lockbeat, verb: str) -> None:
    async with lb.claims.hold("k", hold=30) as claim:
        await finish(claim, verb)
        assert await lb.claims.is_claimed("k") is None
        assert len(lb.keeper) == 0, "what has ended is not taken for lost"
    stats = await lb.claims.stats()
    assert (stats.completed, stats.failed, stats.released) == (verb == "complete", verb == "fail", verb == "release")
    answer = await lb.claims.acquire("k", "bob")
    assert bool(answer) is (verb != "complete")


async def finish(claim: ClaimHandle, verb: str) -> None:
    await (claim.complete("early") if verb == "complete" else claim.fail("boo") if verb == "fail" else claim.release())


async def test_a_block_keeps_its_claim_when_a_verb_did_not_end_it(server: Server, namespace: str) -> None:
    async with Lockbeat(server.url, namespace=namespace, timeout=1) as lb:
        async with lb.claims.hold("k", hold=30) as claim:
            server.call("CONFIG", "SET", "min-replicas-to-write", 1)
            for verb in ("complete", "fail", "release"):
                with pytest.raises(StoreError):
                    await finish(claim, verb)
            server.call("CONFIG", "SET", "min-replicas-to-write", 0)
            await renewed(lb)
            assert await lb.claims.owns("k", lb.owner, claim.fence)
            claim.result = "late"
        answer = await lb.claims.acquire("k", "bob")
        assert isinstance(answer, Done)
        assert answer.result == "late"


@pytest.mark.parametrize("timeout", [0.5, 60])
async def test_a_block_whose_verb_found_no_store_is_cancelled_by_the_deadline(
    server: Server, namespace: str, timeout: float
) -> None:
    """Whether the verb is still waiting by then, or has raised and the block went on."""
    async with Lockbeat(server.url, namespace=namespace, timeout=timeout) as lb:
        handle = lb.claims.hold("k", lease=2)
        with pytest.raises(LeaseLost) as caught:
            async with handle as claim:
                server.freeze()
                held = kept(lb)
                try:
                    with contextlib.suppress(StoreUnavailable):
                        await claim.complete()
                    await asyncio.sleep(60)
                finally:
                    assert time.monotonic() >= held.trusted_until
        assert time.monotonic() < held.trusted_until + 30, "it waited for the store that does not answer"
        server.thaw()
        assert caught.value.reason == OVERDUE
        assert handle.lost
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@pytest.mark.parametrize("told", [True, False])
async def test_a_renewal_that_overtakes_the_answer_of_a_verb_is_no_loss(lb: Lockbeat, told: bool) -> None:
    """The claim has ended in the store, so the keeper finds it gone, before the block knows that it has."""
    async with lb.claims.hold("k") as claim:
        held = kept(lb)
        verb = asyncio.create_task(claim.complete())
        await asyncio.sleep(0)
        lb.keeper.drop(held)
        if told:
            held.holder.on_lost(GONE)
        await verb
        if not told:
            held.holder.on_lost(GONE)
        await asyncio.sleep(0.05)
        assert not claim.lost
    assert (await lb.claims.stats()).completed == 1


@pytest.mark.parametrize("raised", [True, False])
async def test_a_claim_found_gone_while_a_verb_is_under_way_is_lost_unless_that_ended_it(
    server: Server, namespace: str, raised: bool
) -> None:
    """Told as soon as the verb has raised, and by the deadline while it waits; once."""
    async with Lockbeat(server.url, namespace=namespace, timeout=1 if raised else 60) as lb:
        with pytest.raises(LeaseLost) as caught:
            async with lb.claims.hold("k", lease=30 if raised else 2) as claim:
                if raised:
                    server.call("CONFIG", "SET", "min-replicas-to-write", 1)
                else:
                    server.freeze()
                verb = asyncio.create_task(claim.complete())
                await asyncio.sleep(0)
                held = kept(lb)
                lb.keeper.drop(held)
                held.holder.on_lost(GONE)
                try:
                    with contextlib.suppress(StoreError):
                        await verb
                    await asyncio.sleep(60)
                finally:
                    assert (time.monotonic() >= held.trusted_until) is not raised
        server.thaw()
        assert caught.value.reason == GONE
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_a_claim_that_a_block_finishes_as_it_is_cancelled_for_a_loss_is_told_as_lost(lb: Lockbeat) -> None:
    with pytest.raises(LeaseLost) as caught:
        async with lb.claims.hold("k") as claim:
            held = kept(lb)
            lb.keeper.drop(held)
            asyncio.get_running_loop().call_soon(held.holder.on_lost, OVERDUE)
            try:
                await asyncio.sleep(60)
            finally:
                await claim.release()
    assert caught.value.reason == OVERDUE
    assert (await lb.claims.stats()).released == 1


async def test_a_claim_that_is_there_already_can_be_held_on_to(lb: Lockbeat) -> None:
    claim = await acquired(lb.claims, "k", "alice")
    async with lb.claims.handle(claim, lease=30, hold=30) as handle:
        assert handle.claim == claim
        await renewed(lb)
        assert await lb.claims.owns("k", "alice", claim.fence)
        handle.result = "result"
    answer = await lb.claims.acquire("k", "bob")
    assert isinstance(answer, Done)
    assert answer.result == "result"
    with pytest.raises(ClaimRefused) as caught:
        async with lb.claims.handle(claim):
            pytest.fail("it has ended")
    assert caught.value.refusal == "finished"
    assert len(lb.keeper) == 0


async def test_a_verb_of_the_block_that_is_refused_says_why(lb: Lockbeat) -> None:
    with pytest.raises(LeaseLost):
        async with lb.claims.hold("k") as claim:
            await refused_in(lb, claim)


async def refused_in(lb: Lockbeat, claim: ClaimHandle) -> None:
    await claim.renew()
    await lb.claims.release_all(lb.owner)
    with pytest.raises(ClaimRefused) as caught:
        await claim.renew()
    assert caught.value.refusal == claim.refusal == "finished"
    with pytest.raises(InvalidArgument, match=r"^lease: "):
        await claim.renew(99)


async def test_a_result_that_is_not_json_fails_the_claim(lb: Lockbeat) -> None:
    with pytest.raises(InvalidType, match=r"^result: "):
        async with lb.claims.hold("k") as claim:
            claim.result = object()
    again = await acquired(lb.claims, "k")
    assert again.attempt == 2
    assert "result" in str(again.last_error)


async def test_a_handle_is_for_one_block_at_a_time_and_may_be_used_again(lb: Lockbeat) -> None:
    handle = lb.claims.hold("k")
    with pytest.raises(LockbeatError, match="not claimed yet"):
        _ = handle.fence
    async with handle as claim:
        first = claim.fence
        with pytest.raises(LockbeatError, match="in use"):
            await handle.__aenter__()
    async with handle as claim:
        assert claim.fence > first
    assert (await lb.claims.stats()).completed == 2


async def test_handles_of_one_process_exclude_each_other(lb: Lockbeat) -> None:
    async with lb.claims.hold("k"):
        with pytest.raises(ClaimBusy):
            async with lb.claims.hold("k"):
                pass


async def test_release_all_gives_back_what_an_owner_has_and_nothing_else(lb: Lockbeat) -> None:
    for n in range(8):
        await acquired(lb.claims, f"k{n}", "alice", queue=f"q{n % 2}")
    old = await left_behind(lb, "old", "alice")
    for owner in ("alic", "alice\xff", "alice2"):
        await acquired(lb.claims, "k", owner, queue=f"of {owner}")
    assert await lb.claims.release_all("alice") == 8
    assert await lb.claims.release_all("alice") == 0
    assert await lb.claims.expired() == [old]
    assert (await acquired(lb.claims, "k0", "bob", queue="q0")).attempt == 1
    for owner in ("alic", "alice\xff", "alice2"):
        assert await lb.claims.get("k", owner, f"of {owner}")
