"""Absurd's tasks, as gabsurd spells them, function by function, on every backend."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from lockbeat import Exponential, Fixed, Lockbeat
from lockbeat.errors import InvalidArgument, UnknownTask
from lockbeat.tasks import NewTask, Task
from lockbeat.worker import Run
from tests.beats import Beats, eventually
from tests.conftest import Connect, only, wait_until
from tests.tasks import NOON, begun, claim_one, died, state, stopped, until

SHORT = 0.02  # seconds: a lease that ends within the test


async def claim(lb: Lockbeat, owner: str = "bob", limit: int = 10, queue: str = "default") -> list[Task]:
    return await lb.tasks.claim(queue, owner, limit, 30)


# -- spawn, SpawnOptions


async def test_a_new_task_is_created_at_its_first_attempt(lb: Lockbeat) -> None:
    spawned = [await lb.tasks.spawn("job") for _ in range(3)]
    assert [(task.attempt, task.created) for task in spawned] == [(1, True)] * 3
    assert len({task.task_id for task in spawned}) == 3


JSON: list[Any] = [
    None,
    True,
    0,
    -1.5,
    1e308,
    2**53 + 1,
    -(10**30),
    0.1,
    "",
    "text",
    "NUL \0, é, 🔥, \\ \" '",
    [],
    {},
    [[], {}, None, [None]],
    {"": {"nested": [1, {"deep": []}]}, "1": 1},
    {"created": True, "}": "{"},
    "x" * (2**20 - 2),
]


@pytest.mark.parametrize("value", JSON, ids=lambda value: ascii(value)[:20])
async def test_any_json_comes_back_as_it_went_in(lb: Lockbeat, value: Any) -> None:
    """As params, header and result: Lua would make 2**53 + 1 even, and {} of []."""
    header = value if len(str(value)) < 1000 else "as long as it may be with its name"
    spawned = await lb.tasks.spawn("job", value, headers={"h": header})
    task = await claim_one(lb)
    for got in (task, await lb.tasks.get(spawned.task_id)):
        assert (repr(got.params), repr(got.headers)) == (repr(value), repr({"h": header}))
    assert await lb.tasks.complete(task, value)
    assert repr((await lb.tasks.get(spawned.task_id)).result) == repr(value)


async def test_a_lone_surrogate_in_params_comes_back_or_is_refused(lb: Lockbeat) -> None:
    refused = ""
    try:
        await lb.tasks.spawn("job", "\ud800")
    except InvalidArgument as error:
        refused = error.argument
    assert (refused, [task.params for task in await claim(lb)]) in [("params", []), ("", ["\ud800"])]


NAMES = ["{braced}", "two\nlines", "\0", "🔒🔑", "x" * 1024, "a\xff", "%s", "-", "job@1700000000000"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
async def test_any_text_of_up_to_1024_bytes_names_tasks_queues_keys_and_owners(lb: Lockbeat, name: str) -> None:
    spawned = await lb.tasks.spawn(name, queue=name, idempotency_key=name)
    assert (await lb.tasks.spawn(name, queue=name, idempotency_key=name)).task_id == spawned.task_id
    [task] = await lb.tasks.claim(name, name)
    assert (task.id, task.name, task.queue, task.owner) == (spawned.task_id, name, name, name)
    assert await lb.tasks.heartbeat(task)
    assert (await lb.tasks.get(task.id)).owner == name
    assert await lb.tasks.complete(task)


async def _waiting(lb: Lockbeat) -> None:
    pass


async def _running(lb: Lockbeat) -> None:
    await claim_one(lb)


async def _done(lb: Lockbeat) -> None:
    assert await lb.tasks.complete(await claim_one(lb), "result")


async def _dead(lb: Lockbeat) -> None:
    assert (await lb.tasks.fail(await claim_one(lb), "broken")).outcome == "dead_lettered"


async def _cancelled(lb: Lockbeat) -> None:
    [info] = await lb.tasks.list("default")
    assert await lb.tasks.cancel(info.id)


STATES = {"waiting": _waiting, "running": _running, "done": _done, "dead": _dead, "cancelled": _cancelled}


@pytest.mark.parametrize("reached", STATES)
async def test_the_same_idempotency_key_gives_the_first_task_also_after_it_ended(lb: Lockbeat, reached: str) -> None:
    first = await lb.tasks.spawn("job", 1, idempotency_key="order-1", max_attempts=1)
    await STATES[reached](lb)
    before = await lb.tasks.get(first.task_id)
    again = await lb.tasks.spawn("another", 2, idempotency_key="order-1", delay=5, priority=3)
    assert (again.task_id, again.created) == (first.task_id, False)
    assert before.state == reached
    assert await lb.tasks.get(first.task_id) == before
    assert len(await lb.tasks.list("default")) == 1


async def test_the_first_task_is_given_with_the_attempt_it_is_at(lb: Lockbeat) -> None:
    task = await begun(lb, idempotency_key="k", retry=None)
    assert (await lb.tasks.spawn("job", idempotency_key="k")).attempt == 1
    assert await lb.tasks.fail(task, "broken")
    assert (await claim_one(lb)).attempt == 2
    assert (await lb.tasks.spawn("job", idempotency_key="k")).attempt == 2


async def test_an_idempotency_key_is_of_its_queue_alone(lb: Lockbeat) -> None:
    spawned = [await lb.tasks.spawn("job", queue=queue, idempotency_key="k") for queue in ("a", "b", "default", "a")]
    assert [task.created for task in spawned] == [True, True, True, False]
    assert len({task.task_id for task in spawned}) == 3


async def test_of_eight_that_spawn_with_one_key_one_creates(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        for n in range(10):
            tries = [client.tasks.spawn("job", idempotency_key=f"k{n}") for _ in range(4) for client in (lb, other)]
            spawned = await asyncio.gather(*tries)
            assert sorted(task.created for task in spawned) == [False] * 7 + [True]
            assert len({task.task_id for task in spawned}) == 1
    assert (await lb.tasks.counts()).ready == 10


async def test_spawn_many_gives_an_answer_a_task_in_order(lb: Lockbeat) -> None:
    keys = [None, "a", "b", "a", None, "b", "c"]
    spawned = await lb.tasks.spawn_many(NewTask("job", n, idempotency_key=key) for n, key in enumerate(keys))
    assert [task.created for task in spawned] == [True, True, True, False, True, False, True]
    assert (spawned[3].task_id, spawned[5].task_id) == (spawned[1].task_id, spawned[2].task_id)
    assert [task.params for task in await claim(lb)] == [0, 1, 2, 4, 6]
    assert await lb.tasks.spawn_many([]) == []


async def test_a_key_is_free_again_when_its_tasks_retention_is_over(lb: Lockbeat) -> None:
    first = await begun(lb, idempotency_key="k", retention=1.5)
    await until(lb, await lb.store.server_time() + 1.501)  # counted from its end, so this is nothing
    assert not (await lb.tasks.spawn("job", idempotency_key="k")).created
    assert await lb.tasks.complete(first)
    ended = (await lb.tasks.get(first.id)).ended_at
    assert ended is not None
    await until(lb, ended + 1.501)
    again = await lb.tasks.spawn("job", idempotency_key="k")
    assert again.created
    second = await claim_one(lb)
    assert (second.id, second.attempt) == (again.task_id, 1)
    assert second.fence > first.fence
    # The old attempt is not the new task's, whether or not that has the same id.
    assert not await lb.tasks.heartbeat(first)
    assert not await lb.tasks.fail(first, "late")
    info = await lb.tasks.get(second.id)
    assert (info.state, info.fence) == ("running", second.fence)


@only("memory")
@pytest.mark.parametrize("reached", ["done", "cancelled"])
async def test_a_key_holds_until_its_tasks_retention_is_over_and_no_longer(lb: Lockbeat, reached: str) -> None:
    with stopped() as to:
        first = await lb.tasks.spawn("job", idempotency_key="k", retention=3600)
        to(NOON + 5000)
        await STATES[reached](lb)
        to(NOON + 5000 + 3599)
        assert (await lb.tasks.spawn("job", idempotency_key="k")).task_id == first.task_id
        to(NOON + 5000 + 3601)
        assert (await lb.tasks.spawn("job", idempotency_key="k")).created
        assert len(await claim(lb)) == 1


@only("memory")
async def test_an_ended_task_is_forgotten_when_its_retention_is_over(lb: Lockbeat) -> None:
    with stopped() as to:
        done, gone = await begun(lb, retention=3600), await begun(lb, retention=3600)
        to(NOON + 20)
        assert await lb.tasks.complete(done)
        assert await lb.tasks.cancel(gone.id)
        for moment in (3619, 3621):
            to(NOON + moment)
            await claim(lb)
            assert {info.id for info in await lb.tasks.list()} == ({done.id, gone.id} if moment == 3619 else set())
        for task in (done, gone):
            with pytest.raises(UnknownTask):
                await lb.tasks.get(task.id)


async def test_max_attempts_is_how_often_a_task_is_begun(lb: Lockbeat) -> None:
    for most in (1, 2, 4):
        task = await begun(lb, max_attempts=most, retry=None)
        outcomes = []
        for attempt in range(1, most + 1):
            assert (task.attempt, task.max_attempts) == (attempt, most)
            outcomes.append((await lb.tasks.fail(task, "broken")).outcome)
            [task] = await claim(lb) or [task]
        assert outcomes == ["requeued"] * (most - 1) + ["dead_lettered"]


# -- claim


async def test_each_attempt_is_a_run_of_its_own_with_its_own_fence(lb: Lockbeat) -> None:
    task = await begun(lb, retry=None)
    seen = [task]
    for _ in range(3):
        assert await lb.tasks.fail(seen[-1], "broken")
        seen.append(await claim_one(lb))
    assert [task.attempt for task in seen] == [1, 2, 3, 4]
    assert len({task.id for task in seen}) == 1
    fences = [task.fence for task in seen]
    assert fences == sorted(set(fences))
    assert (await lb.tasks.get(task.id)).fence == fences[-1]


async def test_expired_attempts_are_swept_before_a_claim_looks(lb: Lockbeat) -> None:
    old = [(await lb.tasks.spawn("job", retry=None)).task_id for _ in range(3)]
    taken = await lb.tasks.claim("default", "alice", 3, SHORT)
    await until(lb, max(task.expires_at for task in taken))
    assert {(task.id, task.attempt) for task in await claim(lb)} == {(task_id, 2) for task_id in old}


# -- complete, get_result


async def test_get_knows_state_result_failure_attempts_and_times(lb: Lockbeat) -> None:
    before = await lb.store.server_time()
    spawned = await lb.tasks.spawn("job", {"n": 1}, queue="q", headers={"h": 1}, max_attempts=1, priority=7, delay=0.05)
    info = await lb.tasks.get(spawned.task_id)
    assert (info.id, info.name, info.queue, info.state) == (spawned.task_id, "job", "q", "waiting")
    assert (info.params, info.headers, info.priority, info.max_attempts) == ({"n": 1}, {"h": 1}, 7, 1)
    assert info.spawned_at is not None
    assert before - 0.001 <= info.spawned_at <= await lb.store.server_time() + 0.001
    assert info.due_at == pytest.approx(info.spawned_at + 0.05, abs=0.0011)
    assert (info.attempts, info.started_at, info.ended_at) == (0, None, None)
    assert (info.owner, info.fence, info.expires_at, info.result, info.failure) == (None, None, None, None, None)

    await until(lb, info.due_at)
    task = await claim_one(lb, "q")
    info = await lb.tasks.get(task.id)
    assert (info.state, info.attempts, info.owner, info.fence, info.expires_at) == (
        "running",
        1,
        "alice",
        task.fence,
        task.expires_at,
    )
    assert info.started_at == pytest.approx(task.expires_at - 30, abs=0.0011)
    assert (info.ended_at, info.result, info.failure) == (None, None, None)

    assert await lb.tasks.complete(task, [1, 2])
    done = await lb.tasks.get(task.id)
    assert (done.state, done.attempts, done.result, done.failure) == ("done", 1, [1, 2], None)
    assert done.started_at == info.started_at
    assert done.ended_at is not None
    assert info.started_at is not None
    assert info.started_at <= done.ended_at <= await lb.store.server_time() + 0.001


async def test_get_tells_what_ended_a_dead_and_a_cancelled_task(lb: Lockbeat) -> None:
    dead, gone = await lb.tasks.get(await died(lb)), await begun(lb)
    assert (dead.state, dead.attempts, dead.result) == ("dead", 1, None)
    assert dead.failure is not None
    assert dead.failure.message == "broken"
    assert dead.ended_at is not None
    await lb.tasks.cancel(gone.id)
    info = await lb.tasks.get(gone.id)
    assert (info.state, info.attempts, info.result) == ("cancelled", 1, None)
    assert info.ended_at is not None


# -- fail, fail_with_retry, RetryStrategy


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        (None, [0, 0, 0]),
        (Fixed(30, jitter=0), [30, 30, 30]),
        (Exponential(10, factor=3, max=60, jitter=0), [10, 30, 60, 60]),
        (Exponential(1, factor=1e200, max=100, jitter=0), [1, 100, 100, 100]),
        (Exponential(1, factor=1e200, jitter=0), [1, 3653 * 86_400, 3653 * 86_400]),
    ],
)
async def test_the_delay_after_attempt_n_follows_the_strategy(lb: Lockbeat, retry: Any, delays: list[float]) -> None:
    for attempt, delay in enumerate(delays, 1):
        task = await begun(lb, retry=retry)
        for _ in range(attempt - 1):
            assert await lb.tasks.fail(task, "broken", retry_at=0)
            task = await claim_one(lb)
        before = await lb.store.server_time()
        failed = await lb.tasks.fail(task, "broken")
        assert failed.retry_at is not None
        assert before - 0.001 <= failed.retry_at - delay <= await lb.store.server_time() + 0.001
        assert (await lb.tasks.get(task.id)).due_at == pytest.approx(failed.retry_at, abs=1e-4)
        assert await lb.tasks.cancel(task.id)


async def test_fail_with_retry_comes_back_at_the_given_time(lb: Lockbeat) -> None:
    for at in (lambda now: now + 3600.5, lambda now: datetime.fromtimestamp(round(now) + 3600, UTC)):
        task = await begun(lb, retry=Fixed(1, jitter=0))
        given = at(await lb.store.server_time())
        failed = await lb.tasks.fail(task, "broken", retry_at=given)
        seconds = given.timestamp() if isinstance(given, datetime) else given
        assert failed.outcome == "requeued"
        assert failed.retry_at == pytest.approx(seconds, abs=0.0011)
        assert await claim(lb) == []


async def test_a_given_retry_time_gives_no_attempt_beyond_the_last(lb: Lockbeat) -> None:
    task = await begun(lb, max_attempts=1)
    assert (await lb.tasks.fail(task, "broken", retry_at=await lb.store.server_time() + 60)).outcome == "dead_lettered"


# -- cancel, Cancellation


@pytest.mark.parametrize("options", [{}, {"delay": 60}], ids=["ready", "delayed"])
async def test_a_waiting_task_that_is_cancelled_is_gone_at_once(lb: Lockbeat, options: dict[str, Any]) -> None:
    spawned = await lb.tasks.spawn("job", **options)
    assert await lb.tasks.cancel(spawned.task_id) is True
    assert await claim(lb) == []
    assert await state(lb, spawned.task_id) == "cancelled"
    counts = await lb.tasks.counts()
    assert (counts.ready, counts.delayed) == (0, 0)
    assert await lb.tasks.cancel(spawned.task_id) is False


async def test_a_running_task_that_is_cancelled_is_told_and_its_attempt_refused_everything(lb: Lockbeat) -> None:
    verbs: dict[str, Any] = {
        "complete": lambda task: lb.tasks.complete(task, 1),
        "fail": lambda task: lb.tasks.fail(task, "broken"),
        "defer": lambda task: lb.tasks.defer(task, 0),
        "release": lb.tasks.release,
    }
    for name, verb in verbs.items():
        task = await begun(lb)
        assert await lb.tasks.cancel(task.id) is True
        assert (await lb.tasks.heartbeat(task)).refusal == "cancelled", name
        assert not await verb(task), name
        assert await state(lb, task.id) == "cancelled", name
        assert await claim(lb) == [], name


@pytest.mark.parametrize("reached", ["done", "dead", "cancelled"])
async def test_cancelling_an_ended_task_does_nothing(lb: Lockbeat, reached: str) -> None:
    spawned = await lb.tasks.spawn("job", max_attempts=1)
    await STATES[reached](lb)
    before = await lb.tasks.get(spawned.task_id)
    assert await lb.tasks.cancel(spawned.task_id) is False
    assert await lb.tasks.get(spawned.task_id) == before


async def test_a_cancelled_task_whose_worker_dies_stays_cancelled(lb: Lockbeat) -> None:
    task = await begun(lb, lease=1.5, retry=None)
    assert await lb.tasks.cancel(task.id)
    await until(lb, task.expires_at)
    assert await claim(lb) == []
    assert await state(lb, task.id) == "cancelled"


async def test_a_task_not_begun_within_max_delay_is_cancelled(lb: Lockbeat) -> None:
    spawned = await lb.tasks.spawn("job", max_delay=SHORT)
    await until(lb, await lb.store.server_time() + SHORT + 0.001)
    assert await claim(lb) == []
    assert await state(lb, spawned.task_id) == "cancelled"


async def test_none_of_many_is_begun_after_its_max_delay(lb: Lockbeat) -> None:
    """More than a script may cancel in one run."""
    await lb.tasks.spawn_many(NewTask("job", n, max_delay=SHORT) for n in range(700))
    await until(lb, await lb.store.server_time() + SHORT + 0.001)
    for _ in range(20):
        assert await claim(lb) == []
    assert {info.state for info in await lb.tasks.list(limit=1000)} == {"cancelled"}


@only("memory")
async def test_max_delay_is_no_matter_once_a_task_was_begun(lb: Lockbeat) -> None:
    with stopped() as to:
        await lb.tasks.spawn("job", max_delay=30, retry=Fixed(60, jitter=0))
        to(NOON + 29.999)
        assert await lb.tasks.fail(await claim_one(lb), "broken")
        to(NOON + 100)
        assert (await claim_one(lb)).attempt == 2


@only("memory")
async def test_max_duration_counts_from_the_first_start(lb: Lockbeat) -> None:
    with stopped() as to:
        await lb.tasks.spawn("job", max_duration=100, retry=None)
        to(NOON + 1000)
        task = await claim_one(lb)
        to(NOON + 1020)
        assert await lb.tasks.fail(task, "broken")
        task = await claim_one(lb)
        for moment in range(1040, 1100, 20):
            to(NOON + moment)
            assert await lb.tasks.heartbeat(task), moment
        to(NOON + 1099.999)
        assert await lb.tasks.heartbeat(task)
        to(NOON + 1100.001)
        beat = await lb.tasks.heartbeat(task)
        assert (bool(beat), beat.refusal) == (False, "cancelled")
        assert await state(lb, task.id) == "cancelled"


@only("memory", "valkey")
async def test_a_task_running_beyond_max_duration_is_cancelled(lb: Lockbeat) -> None:
    task = await begun(lb, max_duration=1.5)
    started = (await lb.tasks.get(task.id)).started_at
    assert started is not None
    await until(lb, started + 1.501)
    assert (await lb.tasks.heartbeat(task)).refusal == "cancelled"
    assert not await lb.tasks.fail(task, "broken")
    assert await claim(lb) == []
    assert await state(lb, task.id) == "cancelled"


@only("memory", "valkey")
async def test_a_task_lost_beyond_max_duration_is_not_begun_again(lb: Lockbeat) -> None:
    task = await begun(lb, max_duration=1.5, lease=1.5, retry=None)
    await until(lb, task.expires_at + 0.002)
    assert await claim(lb) == []
    assert await state(lb, task.id) == "cancelled"


@pytest.mark.parametrize("given", [None, 3600.0])
async def test_a_retry_that_would_come_too_late_cancels_at_once(lb: Lockbeat, given: float | None) -> None:
    task = await begun(lb, max_duration=60, retry=Fixed(3600, jitter=0) if given is None else None)
    retry_at = None if given is None else await lb.store.server_time() + given
    failed = await lb.tasks.fail(task, "broken", retry_at=retry_at)
    assert failed
    assert (failed.outcome, failed.retry_at) == ("cancelled", None)
    assert await state(lb, task.id) == "cancelled"
    assert await lb.tasks.dead() == []


async def test_a_retry_in_time_is_not_cancelled(lb: Lockbeat) -> None:
    task = await begun(lb, max_duration=3600, retry=Fixed(0.01, jitter=0))
    failed = await lb.tasks.fail(task, "broken")
    assert failed.outcome == "requeued"
    await until(lb, failed.retry_at)
    assert (await claim_one(lb)).attempt == 2


async def test_the_body_of_a_cancelled_task_is_cancelled(lb: Lockbeat, url: str, namespace: str, shards: int) -> None:
    beat = Beats(url, namespace, shards)()
    began, stopped_by = asyncio.Event(), []

    @beat.task
    async def job() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            stopped_by.append(error)
            raise

    async with beat.lifespan():
        spawned = await beat.spawn(job)
        await asyncio.wait_for(began.wait(), 30)
        assert await lb.tasks.cancel(spawned.task_id)
        await wait_until(lambda: stopped_by, "its body is cancelled")
        assert await state(lb, spawned.task_id) == "cancelled"


# -- retry


async def test_retry_gives_a_dead_task_one_more_attempt(lb: Lockbeat) -> None:
    dead = await died(lb)
    assert await lb.tasks.retry(dead) is True
    assert await lb.tasks.dead() == []
    task = await claim_one(lb)
    assert (task.id, task.attempt, task.max_attempts) == (dead, 2, 2)
    assert (await lb.tasks.fail(task, "again")).outcome == "dead_lettered"
    assert await lb.tasks.retry(dead) is True
    assert await lb.tasks.complete(await claim_one(lb), "at last")
    info = await lb.tasks.get(dead)
    assert (info.state, info.result, info.attempts) == ("done", "at last", 3)


async def test_retry_gives_as_many_attempts_as_asked_for_after_a_delay(lb: Lockbeat) -> None:
    dead = await died(lb, retry=None)
    before = await lb.store.server_time()
    assert await lb.tasks.retry(dead, attempts=3, delay=0.1) is True
    due = (await lb.tasks.get(dead)).due_at
    assert due is not None
    assert before - 0.001 <= due - 0.1 <= await lb.store.server_time() + 0.001
    await until(lb, due)
    outcomes = [(await lb.tasks.fail(await claim_one(lb), "again")).outcome for _ in range(3)]
    assert outcomes == ["requeued", "requeued", "dead_lettered"]


@pytest.mark.parametrize("reached", ["waiting", "running", "done", "cancelled"])
async def test_retry_of_a_task_that_is_not_dead_does_nothing(lb: Lockbeat, reached: str) -> None:
    spawned = await lb.tasks.spawn("job")
    await STATES[reached](lb)
    before = await lb.tasks.get(spawned.task_id)
    assert await lb.tasks.retry(spawned.task_id) is False
    assert await lb.tasks.get(spawned.task_id) == before


# -- extend_claim: see test_squidie's heartbeats


# -- schedule_run


async def test_a_deferred_task_has_the_same_attempt_next_time(lb: Lockbeat) -> None:
    task = await begun(lb, max_attempts=1)
    fences = [task.fence]
    for _ in range(3):
        before = await lb.store.server_time()
        assert await lb.tasks.defer(task, 0.05) is True
        due = (await lb.tasks.get(task.id)).due_at
        assert due is not None
        assert before - 0.001 <= due - 0.05 <= await lb.store.server_time() + 0.001
        await until(lb, due)
        task = await claim_one(lb)
        assert task.attempt == 1
        fences.append(task.fence)
    assert fences == sorted(set(fences))
    assert await lb.tasks.complete(task)


async def test_a_released_task_is_given_back_at_once_and_not_counted(lb: Lockbeat) -> None:
    first = await begun(lb, max_attempts=1)
    assert await lb.tasks.release(first) is True
    second = await claim_one(lb, owner="bob")
    assert (second.id, second.attempt) == (first.id, 1)
    assert second.fence > first.fence
    assert await lb.tasks.release(first) is False
    assert await lb.tasks.defer(first, 1) is False
    assert (await lb.tasks.get(first.id)).owner == "bob"


@pytest.mark.parametrize("verb", ["defer", "release"])
@pytest.mark.parametrize("owner", ["alice", "bob"])
async def test_nothing_is_given_back_but_by_the_newest_attempt(lb: Lockbeat, verb: str, owner: str) -> None:
    async def give_back(task: Task) -> bool:
        return await (lb.tasks.release(task) if verb == "release" else lb.tasks.defer(task, 0))

    lost = await begun(lb, lease=SHORT, retry=None)
    await until(lb, lost.expires_at)
    newest = await claim_one(lb, owner=owner)
    done = await begun(lb)
    assert await lb.tasks.complete(done)
    for task in (lost, done, replace(newest, owner="carol"), replace(newest, fence=newest.fence + 1)):
        assert await give_back(task) is False
    assert [await state(lb, task.id) for task in (lost, done)] == ["running", "done"]


async def test_a_task_this_instance_does_not_know_is_left_to_one_that_does(
    lb: Lockbeat, url: str, namespace: str, shards: int
) -> None:
    """A rolling deployment: the old code still runs."""
    old, new, ran = Beats(url, namespace, shards)(), Beats(url, namespace, shards)(), []

    @old.task
    async def known() -> None: ...

    @new.task
    async def job(run: Run) -> str:
        ran.append((run.task_id, run.attempt))
        return "done"

    async with old.lifespan():
        spawned = await lb.tasks.spawn("job", max_attempts=1)
        marker = await lb.tasks.spawn("known")

        async def marked() -> bool:
            return await state(lb, marker.task_id) == "done"

        await eventually(marked, "the old instance is at work")
        assert ran == []
        async with new.lifespan():
            await wait_until(lambda: ran, "the new one ran it")

            async def done() -> bool:
                return bool((await lb.tasks.get(spawned.task_id)).result == "done")

            await eventually(done, "it is done")
    assert ran == [(spawned.task_id, 1)]


# -- what there is


async def test_counts_say_what_is_ready_delayed_running_and_dead(lb: Lockbeat) -> None:
    await died(lb)
    for _ in range(2):
        await begun(lb)
    for _ in range(3):
        await lb.tasks.spawn("job")
    soon = await lb.tasks.spawn("job", delay=0.1)
    for _ in range(4):
        await lb.tasks.spawn("job", delay=60)
    await lb.tasks.spawn("job", queue="other")
    await until(lb, (await lb.tasks.get(soon.task_id)).due_at)
    counts = await lb.tasks.counts()
    assert (counts.ready, counts.delayed, counts.running, counts.dead) == (4, 4, 2, 1)
    counts = await lb.tasks.counts("nobody's")
    assert (counts.ready, counts.delayed, counts.running, counts.dead) == (0, 0, 0, 0)


async def test_queues_are_those_that_hold_work_or_dead_letters(lb: Lockbeat) -> None:
    assert await lb.tasks.queues() == []
    await lb.tasks.spawn("job", queue="ready")
    await lb.tasks.spawn("job", queue="delayed", delay=60)
    await begun(lb, queue="running")
    await died(lb, queue="dead")
    assert await lb.tasks.complete(await begun(lb, queue="done"))
    assert await lb.tasks.cancel((await lb.tasks.spawn("job", queue="cancelled")).task_id)
    queues = await lb.tasks.queues()
    assert sorted(queues) == ["dead", "delayed", "ready", "running"]


async def test_list_shows_tasks_by_queue_and_state(lb: Lockbeat) -> None:
    ids: dict[tuple[str, str], str] = {}
    for queue in ("a", "b"):
        ids[queue, "dead"] = await died(lb, queue=queue)
        ids[queue, "running"] = (await begun(lb, queue=queue)).id
        done, gone = await begun(lb, queue=queue), await begun(lb, queue=queue)
        assert await lb.tasks.complete(done)
        assert await lb.tasks.cancel(gone.id)
        ids[queue, "done"], ids[queue, "cancelled"] = done.id, gone.id
        ids[queue, "waiting"] = (await lb.tasks.spawn("job", queue=queue)).task_id
    of_states: tuple[Any, ...] = (*STATES, None)
    for of in ("a", "b", None):
        for wanted in of_states:
            expected = {each for (q, s), each in ids.items() if of in (q, None) and wanted in (s, None)}
            listed = await lb.tasks.list(of, state=wanted)
            assert {info.id for info in listed} == expected, (of, wanted)
            assert len(listed) == len(expected)
            assert listed == [await lb.tasks.get(info.id) for info in listed]
    assert len(await lb.tasks.list(limit=3)) == 3


@pytest.mark.parametrize("gone", ["done", "dead", "cancelled", None])
async def test_purge_forgets_what_has_ended(lb: Lockbeat, gone: Any) -> None:
    ids = {}
    for name in ("done", "dead", "cancelled"):
        ids[name] = (await lb.tasks.spawn(name, max_attempts=1, idempotency_key=name)).task_id
        if name == "cancelled":
            assert await lb.tasks.cancel(ids[name])
        else:
            await STATES[name](lb)
    ids["running"] = (await begun(lb)).id
    ids["waiting"] = (await lb.tasks.spawn("waiting")).task_id
    ids["other"] = await died(lb, queue="other")
    left = ids.keys() - ({gone} if gone else {"done", "dead", "cancelled"})
    assert await lb.tasks.purge(state=gone) == len(ids) - len(left)
    assert await lb.tasks.purge(state=gone) == 0
    assert {info.id for info in await lb.tasks.list()} == {ids[name] for name in left}
    for name in ids.keys() - left:
        with pytest.raises(UnknownTask):
            await lb.tasks.get(ids[name])
