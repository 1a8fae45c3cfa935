"""Cyclium's `WorkClaims`, function by function, on every backend."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lockbeat import Busy, Claim, Done, Gate, Lockbeat
from lockbeat.claims.table import PAGE
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError
from tests.claims import SHORT, acquired, left_behind, ran_out
from tests.conformance.test_celers import BAD_NAMES, BAD_TTLS, ODD_NAMES
from tests.conftest import Connect

# acquire


async def test_acquire_of_new_work_is_its_first_attempt(lb: Lockbeat) -> None:
    claim = await lb.claims.acquire("k", "alice", lease=30)
    assert isinstance(claim, Claim)
    assert claim
    assert (claim.key, claim.queue, claim.owner, claim.attempt) == ("k", "default", "alice", 1)
    assert (claim.outcome, claim.previous_owner, claim.last_error) == ("acquired", None, None)
    assert claim.fence > 0
    assert claim.expires_at == pytest.approx(await lb.store.server_time() + 30, abs=5)


@pytest.mark.parametrize("owner", ["alice", "bob"])
async def test_acquire_of_a_live_claim_is_busy_for_the_same_owner_too(lb: Lockbeat, owner: str) -> None:
    claim = await acquired(lb.claims, "k", "alice")
    answer = await lb.claims.acquire("k", owner, lease=60)
    assert isinstance(answer, Busy)
    assert not answer
    assert (answer.key, answer.queue, answer.owner, answer.expires_at) == ("k", "default", "alice", claim.expires_at)
    assert await lb.claims.is_claimed("k") == claim


@pytest.mark.parametrize("owner", ["alice", "bob"])
async def test_acquire_of_what_ran_out_takes_it_over(lb: Lockbeat, owner: str) -> None:
    first = await left_behind(lb, "k", "alice")
    second = await acquired(lb.claims, "k", owner)
    assert (second.owner, second.outcome, second.previous_owner, second.attempt) == (owner, "took_over", "alice", 2)
    assert second.fence > first.fence
    assert await lb.claims.get("k", owner) == second


async def test_each_take_over_is_a_further_attempt(lb: Lockbeat) -> None:
    fences = [(await left_behind(lb, "k", f"owner {n}")).fence for n in range(3)]
    last = await acquired(lb.claims, "k", "bob")
    assert (last.attempt, last.previous_owner) == (4, "owner 2")
    assert sorted({*fences, last.fence}) == [*fences, last.fence]


async def test_acquire_after_done_is_the_first_attempt_anew(lb: Lockbeat) -> None:
    await left_behind(lb, "k")
    second = await acquired(lb.claims, "k")
    assert second.attempt == 2
    assert await lb.claims.complete(second)
    third = await acquired(lb.claims, "k", "bob")
    assert (third.attempt, third.outcome, third.previous_owner, third.last_error) == (1, "acquired", None, None)
    assert third.fence > second.fence


async def test_acquire_after_failed_is_at_once_the_next_attempt(lb: Lockbeat) -> None:
    fence = 0
    for attempt in range(1, 5):
        claim = await acquired(lb.claims, "k", f"owner {attempt}")
        assert (claim.attempt, claim.outcome, claim.previous_owner) == (attempt, "acquired", None)
        assert claim.last_error == (None if attempt == 1 else f"no. {attempt - 1}")
        assert claim.fence > fence
        fence = claim.fence
        assert await lb.claims.fail(claim, f"no. {attempt}")
    assert await lb.claims.complete(await acquired(lb.claims, "k"))
    claim = await acquired(lb.claims, "k")
    assert (claim.attempt, claim.last_error) == (1, None)


async def test_acquire_after_release_counts_no_attempt(lb: Lockbeat) -> None:
    """It was given back without having been worked on."""
    first = await acquired(lb.claims, "k")
    assert await lb.claims.release(first)
    second = await acquired(lb.claims, "k", "bob")
    assert (second.attempt, second.outcome, second.previous_owner) == (1, "acquired", None)
    assert second.fence > first.fence
    await lb.claims.fail(second, "boo")
    third = await acquired(lb.claims, "k")
    assert await lb.claims.release(third)
    fourth = await acquired(lb.claims, "k")
    assert (third.attempt, fourth.attempt, fourth.last_error) == (2, 2, "boo")


async def test_of_eight_racers_one_acquires_and_seven_are_busy(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        tries = [client.claims.acquire("k", f"o{n}") for n in range(4) for client in (lb, other)]
        answers = await asyncio.gather(*tries)
    assert sorted(type(answer).__name__ for answer in answers) == ["Busy"] * 7 + ["Claim"]
    [winner] = [answer for answer in answers if answer]
    assert {answer.owner for answer in answers if not answer} == {winner.owner}


async def test_of_eight_racers_one_takes_over_and_seven_are_busy(lb: Lockbeat, connect: Connect) -> None:
    await left_behind(lb, "k", "dead")
    async with connect() as other:
        tries = [client.claims.acquire("k", f"o{n}") for n in range(4) for client in (lb, other)]
        answers = await asyncio.gather(*tries)
    assert sorted(type(answer).__name__ for answer in answers) == ["Busy"] * 7 + ["Claim"]
    [winner] = [answer for answer in answers if isinstance(answer, Claim)]
    assert (winner.outcome, winner.previous_owner, winner.attempt) == ("took_over", "dead", 2)


# complete, fail


@pytest.mark.parametrize("verb", ["complete", "fail"])
async def test_complete_and_fail_end_the_claim_once(lb: Lockbeat, verb: str) -> None:
    claim = await acquired(lb.claims, "k")
    assert await finish(lb, verb, claim) is True
    assert await lb.claims.is_claimed("k") is None
    for again in ("complete", "fail"):
        assert await finish(lb, again, claim) is False


async def finish(lb: Lockbeat, verb: str, claim: Claim) -> bool:
    return await (lb.claims.complete(claim) if verb == "complete" else lb.claims.fail(claim, "boo"))


@pytest.mark.parametrize("verb", ["complete", "fail"])
async def test_complete_and_fail_want_the_newest_owner_and_fence(lb: Lockbeat, verb: str) -> None:
    claim = await acquired(lb.claims, "k")
    for wrong in (
        replace(claim, owner="bob"),
        replace(claim, fence=claim.fence - 1),
        replace(claim, fence=claim.fence + 1),
        replace(claim, key="other"),
        replace(claim, queue="other"),
    ):
        assert await finish(lb, verb, wrong) is False
    assert await lb.claims.is_claimed("k") == claim


@pytest.mark.parametrize("verb", ["complete", "fail"])
async def test_complete_and_fail_are_accepted_after_it_ran_out_while_nobody_took_over(lb: Lockbeat, verb: str) -> None:
    claim = await left_behind(lb, "k")
    assert await finish(lb, verb, claim) is True
    assert await lb.claims.expired() == []
    after = await acquired(lb.claims, "k", "bob")
    assert (after.outcome, after.attempt) == ("acquired", 1 if verb == "complete" else 2)


@pytest.mark.parametrize("verb", ["complete", "fail"])
async def test_a_zombie_does_not_finish_the_claim_of_its_successor_on_the_same_node(lb: Lockbeat, verb: str) -> None:
    zombie = await left_behind(lb, "k", "node 1")
    successor = await acquired(lb.claims, "k", "node 1")
    assert await finish(lb, verb, zombie) is False
    assert await lb.claims.get("k", "node 1") == successor
    assert await finish(lb, verb, successor) is True
    assert await finish(lb, verb, zombie) is False


@pytest.mark.parametrize("verb", ["complete", "fail"])
async def test_a_claim_that_was_swept_can_not_be_finished(lb: Lockbeat, verb: str) -> None:
    claim = await left_behind(lb, "k")
    assert await lb.claims.cleanup() == 1
    assert await finish(lb, verb, claim) is False


async def test_fail_keeps_the_text_of_an_error(lb: Lockbeat) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    errors: list[tuple[Any, str]] = [
        ("plain", "plain"),
        ("", ""),
        (ValueError("bad\nnews 🔥"), "ValueError: bad\nnews 🔥"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        ("x" * 5000, "x" * 4000),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
    ]
    for error, text in errors:
        assert await lb.claims.fail(await acquired(lb.claims, "k"), error)
        claim = await acquired(lb.claims, "k")
        assert claim.last_error == text
        assert await lb.claims.complete(claim)
    assert await lb.claims.fail(await acquired(lb.claims, "k"), Mute())
    assert "Mute" in str((await acquired(lb.claims, "k")).last_error)


# hold


async def test_hold_answers_done_with_the_result(lb: Lockbeat) -> None:
    result = {"rows": [], "big": 2**63 + 1, "none": None, "text": "é🔥\n", "nested": {"empty": {}}}
    claim = await acquired(lb.claims, "k", "alice")
    assert await lb.claims.complete(claim, result, hold=30)
    answer = await lb.claims.acquire("k", "bob")
    assert isinstance(answer, Done)
    assert not answer
    assert (answer.key, answer.queue, answer.owner, answer.result) == ("k", "default", "alice", result)
    now = await lb.store.server_time()
    assert answer.completed_at == pytest.approx(now, abs=5)
    assert answer.until == pytest.approx(answer.completed_at + 30)
    assert await lb.claims.is_claimed("k") is None
    assert await lb.claims.list() == []


@pytest.mark.parametrize("result", [None, 0, False, "", [], {}, 1.5])
async def test_hold_gives_back_any_json_value(lb: Lockbeat, result: Any) -> None:
    assert await lb.claims.complete(await acquired(lb.claims, "k"), result, hold=timedelta(seconds=30))
    answer = await lb.claims.acquire("k", "bob")
    assert isinstance(answer, Done)
    assert answer.result == result
    assert type(answer.result) is type(result)


async def test_after_the_hold_the_work_is_new_again(lb: Lockbeat) -> None:
    first = await acquired(lb.claims, "k")
    assert await lb.claims.complete(first, "result", hold=0.05)
    async with asyncio.timeout(30):
        while not (again := await lb.claims.acquire("k", "bob")):
            await asyncio.sleep(0.005)
    assert isinstance(again, Claim)
    assert (again.attempt, again.outcome, again.last_error) == (1, "acquired", None)
    assert again.fence > first.fence


# renew, owns?


@pytest.mark.parametrize("lease", [60, 5])
async def test_renew_sets_now_plus_lease(lb: Lockbeat, lease: float) -> None:
    claim = await acquired(lb.claims, "k", lease=30)
    assert await lb.claims.renew(claim, lease) is True
    now = await lb.claims.is_claimed("k")
    assert now is not None
    assert now.expires_at == pytest.approx(await lb.store.server_time() + lease, abs=5)
    assert (now.owner, now.fence, now.attempt) == (claim.owner, claim.fence, claim.attempt)


async def test_renew_wants_the_newest_owner_and_fence(lb: Lockbeat) -> None:
    claim = await acquired(lb.claims, "k")
    for wrong in (replace(claim, owner="bob"), replace(claim, fence=claim.fence - 1), replace(claim, key="other")):
        assert await lb.claims.renew(wrong, 99) is False
    assert await lb.claims.is_claimed("k") == claim


async def test_renew_never_revives(lb: Lockbeat) -> None:
    old = await left_behind(lb, "ran out")
    ended = await acquired(lb.claims, "done")
    await lb.claims.complete(ended)
    for claim in (old, ended):
        assert await lb.claims.renew(claim, 30) is False
        assert await lb.claims.is_claimed(claim.key) is None


async def test_owns_is_exact_and_live(lb: Lockbeat) -> None:
    claim = await acquired(lb.claims, "k")
    assert await lb.claims.owns("k", "alice", claim.fence) is True
    assert await lb.claims.owns("k", "bob", claim.fence) is False
    assert await lb.claims.owns("k", "alice", claim.fence - 1) is False
    assert await lb.claims.owns("k", "alice", claim.fence + 1) is False
    assert await lb.claims.owns("k", "alice", claim.fence, queue="other") is False
    assert await lb.claims.owns("other", "alice", claim.fence) is False
    assert await lb.claims.renew(claim, SHORT)
    await ran_out(lb, "k")
    assert await lb.claims.owns("k", "alice", claim.fence) is False


# reclaim_expired


async def test_expired_lists_what_ran_out_the_oldest_first_and_changes_nothing(lb: Lockbeat) -> None:
    keys = [f"k{n}" for n in (3, 1, 4, 0, 5)]
    old = [await acquired(lb.claims, key, "dead", 0.01 * (n + 1), f"q{n % 2}") for n, key in enumerate(keys)]
    await acquired(lb.claims, "live")
    done = await acquired(lb.claims, "done", lease=SHORT)
    for claim in old:
        await ran_out(lb, claim.key, queue=claim.queue)
    await ran_out(lb, "done")
    await lb.claims.complete(done)
    for _ in range(2):
        assert await lb.claims.expired() == sorted(old, key=lambda claim: claim.expires_at)
        assert await lb.claims.expired(limit=2) == sorted(old, key=lambda claim: claim.expires_at)[:2]
    assert await lb.claims.active("q0") == 0  # has moved them to another index
    assert await lb.claims.expired() == sorted(old, key=lambda claim: claim.expires_at)
    taken = await acquired(lb.claims, "k3", "bob", queue="q0")
    assert (taken.outcome, taken.previous_owner) == ("took_over", "dead")
    assert {claim.key for claim in await lb.claims.expired()} == {"k1", "k4", "k0", "k5"}


async def test_expired_goes_on_over_pages(lb: Lockbeat) -> None:
    count = PAGE + 20
    await asyncio.gather(*(acquired(lb.claims, f"k{n}", lease=SHORT) for n in range(count)))
    await ran_out(lb, *(f"k{n}" for n in range(count)))
    assert len(await lb.claims.expired(1000)) == count
    assert len(await lb.claims.expired(PAGE + 5)) == PAGE + 5


async def test_expired_of_nothing_is_nothing(lb: Lockbeat) -> None:
    assert await lb.claims.expired() == []
    await acquired(lb.claims, "live")
    assert await lb.claims.expired(1000) == []


# gate_*


async def test_a_gate_with_nothing_behind_it_lets_everything_pass() -> None:
    gate = Gate(None)
    first, second = await gate.acquire("k", "alice"), await gate.acquire("k", "bob")
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert (first.key, first.owner, first.outcome, first.attempt) == ("k", "alice", "passthrough", 1)
    assert first.expires_at == math.inf
    assert second.fence >= first.fence > 0
    for claim in (first, second):
        assert await gate.renew(claim, 30) is True
        assert await gate.complete(claim, {"x": 1}, hold=5) is True
        assert await gate.fail(claim, "boo") is True
        assert await gate.release(claim) is True
        assert await gate.owns("k", claim.owner, claim.fence) is True
    assert await gate.owns("k", "whoever", 1) is True
    assert (await gate.expired(), await gate.list(), await gate.active(), await gate.cleanup()) == ([], [], 0, 0)
    assert (await gate.is_claimed("k"), await gate.get("k", "alice"), await gate.release_all("alice")) == (None, None, 0)
    assert (await gate.stats()).attempts == 0
    async with gate.hold("k") as one, gate.hold("k") as other:
        assert one.fence
        assert other.attempt == 1
        other.result = "result"
        await one.renew()
        await one.complete("done")
    with pytest.raises(RuntimeError, match="boo"):
        async with gate.hold("k"):
            raise RuntimeError("boo")
    await gate.handle(first).release()


async def test_a_gate_with_claims_behind_it_is_those_claims(lb: Lockbeat) -> None:
    gate = Gate(lb.claims)
    claim = await acquired(gate, "k")
    assert await lb.claims.is_claimed("k") == claim == await gate.is_claimed("k") == await gate.get("k", "alice")
    assert not await gate.acquire("k", "bob")
    assert await gate.owns("k", "alice", claim.fence) is True
    assert await gate.owns("k", "bob", claim.fence) is False
    assert await gate.renew(claim, 60) is True
    assert (len(await gate.list()), await gate.active()) == (1, 1)
    assert await gate.complete(claim, "result", hold=30) is True
    assert isinstance(await gate.acquire("k", "bob"), Done)
    assert await gate.fail(await acquired(gate, "f"), "boo") is True
    assert await gate.release(await acquired(gate, "r")) is True
    old = await left_behind(lb, "old")
    assert await gate.expired() == [old]
    assert await gate.cleanup() == 1
    await acquired(gate, "owned", "carol")
    assert await gate.release_all("carol") == 1
    assert await gate.stats() == await lb.claims.stats()
    async with gate.hold("held") as handle:
        assert await lb.claims.get("held", lb.owner) == handle.claim
    with pytest.raises(LockbeatError):
        await gate.handle(claim).release()


@pytest.mark.parametrize("gated", [False, True], ids=["passing", "claimed"])
async def test_a_service_is_written_once_for_both(lb: Lockbeat, gated: bool) -> None:
    gate = Gate(lb.claims if gated else None)
    done: list[str] = []

    async def episode(owner: str) -> None:
        claim = await gate.acquire("episode", owner)
        if not claim:
            return
        assert isinstance(claim, Claim)
        if await gate.owns("episode", owner, claim.fence):
            done.append(owner)
        await gate.complete(claim, hold=30)

    for owner in ("a", "b"):
        await episode(owner)
    assert done == (["a"] if gated else ["a", "b"])


async def test_a_gate_refuses_bad_arguments_either_way() -> None:
    gate, claim = Gate(None), await acquired(Gate(None), "k")
    bad: list[tuple[str, Any]] = [
        ("key", lambda: gate.acquire("", "alice")),
        ("owner", lambda: gate.acquire("k", "")),
        ("lease", lambda: gate.acquire("k", "alice", 0)),
        ("queue", lambda: gate.acquire("k", "alice", queue="")),
        ("lease", lambda: gate.renew(claim, -1)),
        ("claim", lambda: gate.renew("k", 1)),  # type: ignore[arg-type]
        ("result", lambda: gate.complete(claim, object())),
        ("hold", lambda: gate.complete(claim, hold=-1)),
        ("error", lambda: gate.fail(claim, object())),
        ("limit", lambda: gate.expired(0)),
        ("fence", lambda: gate.owns("k", "alice", "7")),  # type: ignore[arg-type]
    ]
    for argument, call in bad:
        with pytest.raises(InvalidArgument) as caught:
            await call()
        assert caught.value.argument == argument
    with pytest.raises(InvalidType, match=r"^claims: "):
        Gate("redis://")  # type: ignore[arg-type]


# What may be said


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name[:12]))
async def test_any_text_of_up_to_1024_bytes_is_a_key_an_owner_and_a_queue(lb: Lockbeat, name: str) -> None:
    claim = await acquired(lb.claims, name, name, SHORT, name)
    assert (claim.key, claim.owner, claim.queue) == (name, name, name)
    await ran_out(lb, name, queue=name)
    assert await lb.claims.expired() == [claim]
    taken = await acquired(lb.claims, name, name, 30, name)
    assert taken.previous_owner == name
    assert await lb.claims.list(name) == [taken] == [await lb.claims.get(name, name, name)]
    assert await lb.claims.active(name) == 1
    assert await lb.claims.renew(taken, 30)
    assert await lb.claims.fail(taken, name)
    again = await acquired(lb.claims, name, name, 30, name)
    assert (again.attempt, again.last_error) == (3, name)
    assert await lb.claims.release_all(name) == 1
    assert await lb.claims.complete(await acquired(lb.claims, name, name, 30, name), name, hold=30)
    answer = await lb.claims.acquire(name, name, 30, name)
    assert isinstance(answer, Done)
    assert (answer.owner, answer.result) == (name, name)


BAD_RESULTS: list[tuple[Any, type[LockbeatError]]] = [
    (object(), InvalidType),
    ({1, 2}, InvalidType),
    (b"bytes", InvalidType),
    ([math.nan], InvalidArgument),
    ("lone \ud800 surrogate", InvalidArgument),
    ("x" * (1 << 20), InvalidArgument),
]


@pytest.mark.parametrize(("value", "error"), BAD_RESULTS, ids=lambda value: ascii(value)[:20])
async def test_a_result_that_is_not_json_is_refused_and_nothing_changes(
    lb: Lockbeat, value: Any, error: type[LockbeatError]
) -> None:
    claim = await acquired(lb.claims, "k")
    with pytest.raises(error) as caught:
        await lb.claims.complete(claim, value)
    assert isinstance(caught.value, InvalidArgument)
    assert caught.value.argument == "result"
    assert await lb.claims.is_claimed("k") == claim


async def test_a_result_may_have_a_mebibyte(lb: Lockbeat) -> None:
    result = "x" * ((1 << 20) - 2)
    assert await lb.claims.complete(await acquired(lb.claims, "k"), result, hold=30)
    answer = await lb.claims.acquire("k", "bob")
    assert isinstance(answer, Done)
    assert answer.result == result


@pytest.mark.parametrize(("value", "error"), BAD_NAMES, ids=lambda value: ascii(value)[:20])
@pytest.mark.parametrize("argument", ["key", "owner", "queue"])
async def test_a_bad_name_is_refused_by_every_verb_and_nothing_is_sent(
    lb: Lockbeat, raw: Any, argument: str, value: Any, error: type[LockbeatError]
) -> None:
    given: dict[str, Any] = {"key": "k", "owner": "alice", "queue": "q"} | {argument: value}
    key, owner, queue = given["key"], given["owner"], given["queue"]
    claim = Claim(key, queue, owner, 1, 1, 0.0, "acquired")
    verbs: list[Any] = [
        lambda: lb.claims.acquire(key, owner, 30, queue),
        lambda: lb.claims.renew(claim, 30),
        lambda: lb.claims.complete(claim),
        lambda: lb.claims.fail(claim, "boo"),
        lambda: lb.claims.release(claim),
        lambda: lb.claims.owns(key, owner, 1, queue),
        lambda: lb.claims.get(key, owner, queue),
        lambda: held(lb, key, queue, owner),
    ]
    if argument == "owner":
        verbs = verbs if owner is not None else verbs[:-1]
        verbs += [lambda: lb.claims.release_all(owner)]
    else:
        verbs += [lambda: lb.claims.is_claimed(key, queue)]
    if argument == "queue":
        verbs += [lambda: lb.claims.list(queue), lambda: lb.claims.active(queue)]
    before = set(raw.keys("*"))
    for verb in verbs:
        with pytest.raises(error) as caught:
            await verb()
        assert isinstance(caught.value, InvalidArgument)
        assert caught.value.argument == argument
        assert str(caught.value).startswith(f"{argument}: ")
    assert set(raw.keys("*")) == before


async def held(lb: Lockbeat, key: str, queue: str, owner: str | None, **options: Any) -> None:
    async with lb.claims.hold(key, queue=queue, owner=owner, **options):
        pass


@pytest.mark.parametrize(("value", "error"), BAD_TTLS, ids=lambda value: ascii(value)[:20])
async def test_a_bad_lease_is_refused_by_every_verb_and_nothing_changes(
    lb: Lockbeat, value: Any, error: type[LockbeatError]
) -> None:
    claim = await acquired(lb.claims, "k")
    for verb in (
        lambda: lb.claims.acquire("other", "alice", value),
        lambda: lb.claims.renew(claim, value),
        lambda: held(lb, "other", "default", None, lease=value),
    ):
        with pytest.raises(error) as caught:
            await verb()
        assert isinstance(caught.value, InvalidArgument)
        assert caught.value.argument == "lease"
    assert await lb.claims.list() == [claim]


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "5", True, None])
async def test_a_bad_hold_is_refused_and_nothing_changes(lb: Lockbeat, value: Any) -> None:
    claim = await acquired(lb.claims, "k")
    for verb in (lambda: lb.claims.complete(claim, hold=value), lambda: held(lb, "other", "default", None, hold=value)):
        with pytest.raises(InvalidArgument, match=r"^hold: "):
            await verb()
    assert await lb.claims.list() == [claim]


@pytest.mark.parametrize("value", [0, -1, 10_001, 10**400, True, 1.0, "1", None])
async def test_a_bad_limit_is_refused(lb: Lockbeat, value: Any) -> None:
    verbs: list[Any] = [lambda: lb.claims.list("q", value), lambda: lb.claims.expired(value)]
    for verb in verbs:
        with pytest.raises(InvalidArgument, match=r"^limit: "):
            await verb()


@pytest.mark.parametrize("value", [0, -1, 2**53, 10**400, True, 1.0, "1", None])
async def test_a_bad_fence_is_refused(lb: Lockbeat, value: Any) -> None:
    claim = await acquired(lb.claims, "k")
    verbs: list[Any] = [
        lambda: lb.claims.owns("k", "alice", value),
        lambda: lb.claims.complete(replace(claim, fence=value)),
    ]
    for verb in verbs:
        with pytest.raises(InvalidArgument, match=r"^fence: "):
            await verb()


@pytest.mark.parametrize("value", [None, "k", 7, Busy("k", "default", "alice", 0.0)])
async def test_what_is_no_claim_is_refused(lb: Lockbeat, value: Any) -> None:
    verbs: list[Any] = [
        lambda: lb.claims.renew(value, 30),
        lambda: lb.claims.complete(value),
        lambda: lb.claims.fail(value, "boo"),
        lambda: lb.claims.release(value),
    ]
    for verb in verbs:
        with pytest.raises(InvalidType, match=r"^claim: "):
            await verb()
    with pytest.raises(InvalidType, match=r"^claim: "):
        lb.claims.handle(value)


@pytest.mark.parametrize("value", [b"boo", object(), {"boo"}, {"at": object()}])
async def test_an_error_is_text_an_exception_or_json(lb: Lockbeat, value: Any) -> None:
    claim = await acquired(lb.claims, "k")
    with pytest.raises(InvalidType, match=r"^error: "):
        await lb.claims.fail(claim, value)
    assert await lb.claims.is_claimed("k") == claim
