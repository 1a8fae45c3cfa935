"""Squidie's `Executor.Leases`, callback by callback, on every backend."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lockbeat import Exponential, Fixed, Lockbeat
from lockbeat.tasks import Task
from tests.conftest import only
from tests.tasks import NOON, begun, claim_one, died, state, stopped, until

SHORT = 0.02  # seconds: a lease that ends within the test


async def claim(lb: Lockbeat, owner: str = "bob", limit: int = 10, queue: str = "default") -> list[Task]:
    return await lb.tasks.claim(queue, owner, limit, 30)


# -- claim


async def test_a_claim_gives_up_to_its_limit_and_nothing_when_no_work_is_visible(lb: Lockbeat) -> None:
    assert await claim(lb) == []
    ids = [(await lb.tasks.spawn("job")).task_id for _ in range(5)]
    claims = [await claim(lb, limit=limit) for limit in (3, 1, 3, 3)]
    assert [[task.id for task in tasks] for tasks in claims] == [ids[:3], ids[3:4], ids[4:], []]


async def test_a_claim_takes_one_task_unless_told_otherwise(lb: Lockbeat) -> None:
    await lb.tasks.spawn("job")
    await lb.tasks.spawn("job")
    assert len(await lb.tasks.claim("default", "alice")) == 1


async def test_a_claim_carries_the_payload_and_its_lease(lb: Lockbeat) -> None:
    spawned = await lb.tasks.spawn("send", {"to": ["a", "b"]}, queue="mail", headers={"trace": 7}, max_attempts=3)
    before = await lb.store.server_time()
    [task] = await lb.tasks.claim("mail", "alice", lease=20)
    after = await lb.store.server_time()
    assert (task.id, task.name, task.queue, task.owner) == (spawned.task_id, "send", "mail", "alice")
    assert (task.params, task.headers) == ({"to": ["a", "b"]}, {"trace": 7})
    assert (task.attempt, task.max_attempts) == (1, 3)
    assert task.fence > 0
    assert before <= task.expires_at - 20 + 0.0005 <= after + 0.001


@pytest.mark.parametrize("lease", [30, 2.5, timedelta(seconds=30)])
async def test_claimed_work_is_invisible_while_its_lease_lives(lb: Lockbeat, lease: float) -> None:
    await lb.tasks.spawn("job")
    [task] = await lb.tasks.claim("default", "alice", lease=lease)
    assert await claim(lb, "alice") == await claim(lb, "bob") == []
    assert (await lb.tasks.get(task.id)).owner == "alice"


async def test_work_whose_lease_expired_is_claimed_by_another(lb: Lockbeat) -> None:
    first = await begun(lb, lease=SHORT, retry=None)
    await until(lb, first.expires_at)
    [second] = await claim(lb)
    assert (second.id, second.attempt, second.owner) == (first.id, 2, "bob")
    assert second.fence > first.fence


async def test_queues_are_isolated(lb: Lockbeat) -> None:
    names = ["q", "q\xff", "qq", "q:", "q\0", "q q", "q{", "Q", "}", "🐙", "x" * 1024]
    ids = {name: (await lb.tasks.spawn("job", queue=name)).task_id for name in names}
    for name in names:
        assert [(task.id, task.queue) for task in await claim(lb, queue=name)] == [(ids[name], name)]
    assert set(await lb.tasks.queues()) == set(names)


async def test_claims_go_by_priority_then_due_time_then_spawn_order(lb: Lockbeat) -> None:
    options: list[dict[str, Any]] = [{}, {}, {"priority": -1}, {"delay": 0.02}, {"priority": 1, "delay": 0.02}]
    first, second, low, late, high = [(await lb.tasks.spawn("job", **each)).task_id for each in options]
    await until(lb, (await lb.tasks.get(high)).due_at)
    assert [task.id for task in await claim(lb)] == [high, first, second, late, low]


# -- heartbeat


@pytest.mark.parametrize("lease", [60, 5, timedelta(minutes=1)])
async def test_a_heartbeat_sets_the_lease_to_now_and_so_long(lb: Lockbeat, lease: float | timedelta) -> None:
    task = await begun(lb)
    seconds = lease.total_seconds() if isinstance(lease, timedelta) else lease
    before = await lb.store.server_time()
    beat = await lb.tasks.heartbeat(task, lease)
    after = await lb.store.server_time()
    assert beat
    assert beat.refusal is None
    assert beat.expires_at is not None
    assert before <= beat.expires_at - seconds + 0.0005 <= after + 0.001
    assert (await lb.tasks.get(task.id)).expires_at == beat.expires_at


async def test_heartbeats_keep_work_invisible_beyond_its_first_lease(lb: Lockbeat) -> None:
    task = await begun(lb, lease=1.5)
    assert await lb.tasks.heartbeat(task, 30)
    await until(lb, task.expires_at)
    assert await claim(lb) == []
    assert await lb.tasks.complete(task)


async def test_a_heartbeat_is_refused_once_expired_and_revives_nothing(lb: Lockbeat) -> None:
    task = await begun(lb, lease=SHORT, retry=None)
    await until(lb, task.expires_at)
    for _ in range(2):
        beat = await lb.tasks.heartbeat(task, 30)
        assert not beat
        assert (beat.refusal, beat.expires_at) == ("expired", None)
    assert [task.attempt for task in await claim(lb)] == [2]


async def test_a_heartbeat_is_refused_once_cancelled(lb: Lockbeat) -> None:
    task = await begun(lb)
    assert await lb.tasks.cancel(task.id)
    beat = await lb.tasks.heartbeat(task, 30)
    assert not beat
    assert (beat.refusal, beat.expires_at) == ("cancelled", None)


async def test_a_heartbeat_is_refused_to_all_but_the_newest_attempt(lb: Lockbeat) -> None:
    task = await begun(lb, lease=SHORT, retry=None)
    await until(lb, task.expires_at)
    [newest] = await claim(lb, "alice")
    for other in (task, replace(newest, owner="bob"), replace(newest, fence=newest.fence + 1)):
        beat = await lb.tasks.heartbeat(other, 99)
        assert not beat
        assert (beat.refusal, beat.expires_at) == ("not the owner", None)
    assert (await lb.tasks.get(task.id)).expires_at == newest.expires_at


async def test_a_heartbeat_is_refused_once_the_attempt_has_ended(lb: Lockbeat) -> None:
    ended = [await begun(lb) for _ in range(4)]
    assert await lb.tasks.complete(ended[0])
    assert await lb.tasks.fail(ended[1], "broken")
    assert await lb.tasks.defer(ended[2], 60)
    assert await lb.tasks.release(ended[3])
    for task in ended:
        beat = await lb.tasks.heartbeat(task, 30)
        assert not beat
        assert beat.refusal is not None


# -- complete


async def test_complete_removes_work_from_delivery(lb: Lockbeat) -> None:
    task = await begun(lb, lease=1.5)
    assert await lb.tasks.complete(task, {"sent": 3}) is True
    await until(lb, task.expires_at)
    assert await claim(lb) == []
    info = await lb.tasks.get(task.id)
    assert (info.state, info.result, info.failure) == ("done", {"sent": 3}, None)


async def test_the_same_completion_again_is_accepted_and_changes_nothing(lb: Lockbeat) -> None:
    task = await begun(lb)
    assert await lb.tasks.complete(task, 1) is True
    first = await lb.tasks.get(task.id)
    assert await lb.tasks.complete(task, 1) is True
    assert await lb.tasks.get(task.id) == first


async def test_only_the_same_attempt_completes_again(lb: Lockbeat) -> None:
    first = await begun(lb, lease=SHORT, retry=None)
    await until(lb, first.expires_at)
    [second] = await claim(lb, "alice")
    assert await lb.tasks.complete(second, "second")
    for other in (first, replace(second, owner="bob")):
        assert await lb.tasks.complete(other, "other") is False
    assert (await lb.tasks.get(first.id)).result == "second"


async def test_complete_is_accepted_after_expiry_while_nobody_took_over(lb: Lockbeat) -> None:
    task = await begun(lb, lease=SHORT)
    await until(lb, task.expires_at)
    assert await lb.tasks.complete(task, "late") is True
    assert (await lb.tasks.get(task.id)).result == "late"
    assert await claim(lb) == []


@pytest.mark.parametrize("owner", ["alice", "bob"])
async def test_complete_is_refused_to_all_but_the_newest_attempt(lb: Lockbeat, owner: str) -> None:
    task = await begun(lb, lease=SHORT, retry=None)
    await until(lb, task.expires_at)
    [newest] = await claim(lb, owner)
    for other in (task, replace(newest, owner="carol"), replace(newest, fence=newest.fence + 1)):
        assert await lb.tasks.complete(other, "late") is False
    assert await state(lb, task.id) == "running"
    assert await lb.tasks.complete(newest, "right") is True
    assert (await lb.tasks.get(task.id)).result == "right"


# -- fail


@pytest.mark.parametrize("retry", [Fixed(0.2, jitter=0), Exponential(0.2, factor=7, jitter=0)])
async def test_failed_work_is_requeued_and_invisible_until_its_time(lb: Lockbeat, retry: Fixed | Exponential) -> None:
    first = await begun(lb, retry=retry)
    before = await lb.store.server_time()
    failed = await lb.tasks.fail(first, "broken")
    after = await lb.store.server_time()
    assert failed
    assert failed.outcome == "requeued"
    assert failed.retry_at is not None
    assert before <= failed.retry_at - 0.2 + 0.0005 <= after + 0.001
    claims: list[Task] = []
    while not claims:
        claims = await claim(lb)
    [second] = claims
    assert (second.id, second.attempt) == (first.id, 2)
    assert second.expires_at - 30 >= failed.retry_at - 0.0005


async def test_work_whose_attempts_are_used_up_is_dead_lettered_with_the_error(lb: Lockbeat) -> None:
    task = await begun(lb, max_attempts=2, retry=None)
    assert (await lb.tasks.fail(task, "first")).outcome == "requeued"
    failed = await lb.tasks.fail(await claim_one(lb), "second")
    assert failed
    assert (failed.outcome, failed.retry_at) == ("dead_lettered", None)
    assert await claim(lb) == []
    [dead] = await lb.tasks.dead()
    assert (dead.id, dead.state, dead.attempts, dead.max_attempts) == (task.id, "dead", 2, 2)
    assert dead.failure is not None
    assert dead.failure.message == "second"
    assert await lb.tasks.get(task.id) == dead


async def test_an_exception_is_dead_lettered_with_its_type_message_and_traceback(lb: Lockbeat) -> None:
    task = await begun(lb, max_attempts=1)
    try:
        raise ValueError("no such\n🔥 customer")
    except ValueError as error:
        await lb.tasks.fail(task, error)
    [dead] = await lb.tasks.dead()
    assert dead.failure is not None
    assert (dead.failure.type, dead.failure.message) == ("ValueError", "no such\n🔥 customer")
    assert dead.failure.traceback is not None
    assert "test_an_exception_is_dead_lettered" in dead.failure.traceback


@pytest.mark.parametrize("text", ["", "\0", "file \udc80", "x" * 3_000_000, '{"a": []}'], ids=lambda text: ascii(text[:12]))
async def test_whatever_its_text_an_error_is_dead_lettered(lb: Lockbeat, text: str) -> None:
    for error in (text, OSError(text)):
        task = await begun(lb, max_attempts=1)
        assert (await lb.tasks.fail(task, error)).outcome == "dead_lettered"
        failure = (await lb.tasks.get(task.id)).failure
        assert failure is not None
        assert failure.message[:5] == text[:5]


@pytest.mark.parametrize("owner", ["alice", "bob"])
async def test_fail_is_refused_to_all_but_the_newest_attempt(lb: Lockbeat, owner: str) -> None:
    first = await begun(lb, lease=SHORT, retry=None, max_attempts=2)
    await until(lb, first.expires_at)
    [newest] = await claim(lb, owner)
    for other in (replace(newest, owner="carol"), replace(newest, fence=newest.fence + 1), first):
        failed = await lb.tasks.fail(other, "late")
        assert await state(lb, first.id) == "running"
        assert not failed
        assert (failed.outcome, failed.retry_at) == ("refused", None)
    assert await lb.tasks.complete(newest)
    assert (await lb.tasks.fail(newest, "after all")).outcome == "refused"
    assert await state(lb, first.id) == "done"


async def test_dead_letters_are_listed_by_queue_oldest_first(lb: Lockbeat) -> None:
    ids = []
    for _ in range(5):
        ids.append(await died(lb))
        await until(lb, await lb.store.server_time() + 0.002)
    other = await died(lb, queue="other")
    assert [info.id for info in await lb.tasks.dead()] == ids
    assert [info.id for info in await lb.tasks.dead(limit=2)] == ids[:2]
    assert [info.id for info in await lb.tasks.dead("other")] == [other]
    assert await lb.tasks.dead("nobody's") == []


async def test_redrive_gives_dead_letters_a_fresh_set_of_attempts(lb: Lockbeat) -> None:
    task = await begun(lb, max_attempts=2, retry=None)
    other = await died(lb, queue="other")
    for round_ in range(3):
        outcomes = [(await lb.tasks.fail(task, "broken")).outcome, (await lb.tasks.fail(await claim_one(lb), "again")).outcome]
        assert outcomes == ["requeued", "dead_lettered"], f"round {round_}"
        assert await lb.tasks.redrive() == 1
        assert await lb.tasks.redrive() == 0
        assert await lb.tasks.dead() == []
        task = await claim_one(lb)
    assert await state(lb, other) == "dead"


async def test_redrive_takes_the_oldest_up_to_its_limit(lb: Lockbeat) -> None:
    ids = []
    for _ in range(5):
        ids.append(await died(lb))
        await until(lb, await lb.store.server_time() + 0.002)
    assert await lb.tasks.redrive(limit=2) == 2
    assert [info.id for info in await lb.tasks.dead()] == ids[2:]
    assert {task.id for task in await claim(lb)} == set(ids[:2])
    assert await lb.tasks.redrive() == 3


@only("memory")
async def test_dead_letters_are_kept_for_a_week(lb: Lockbeat) -> None:
    with stopped() as to:
        dead = await died(lb)
        to(NOON + 7 * 86_400 - 1)
        await claim(lb)
        assert [info.id for info in await lb.tasks.dead()] == [dead]
        to(NOON + 7 * 86_400 + 1)
        await claim(lb)
        assert await lb.tasks.dead() == []
        assert await lb.tasks.redrive() == 0


# -- now


@only("memory")
async def test_a_test_moves_time_without_sleeping(lb: Lockbeat) -> None:
    with stopped() as to:
        task = await begun(lb, retry=Fixed(60, jitter=0), max_attempts=3, delay=0)
        assert task.expires_at == pytest.approx(NOON + 30, abs=1e-4)
        to(NOON + 29.999)
        assert await lb.tasks.heartbeat(task, 10)
        to(NOON + 39.998)
        assert await claim(lb) == []
        failed = await lb.tasks.fail(task, "broken")
        assert failed.retry_at == pytest.approx(NOON + 99.998, abs=1e-4)
        to(NOON + 99.997)
        assert await claim(lb) == []
        to(NOON + 99.998)
        [task] = await claim(lb)
        to(NOON + 99.998 + 30)
        assert (await lb.tasks.heartbeat(task)).refusal == "expired"
