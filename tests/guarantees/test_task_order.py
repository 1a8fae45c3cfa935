"""Who comes first: priority, then due time, then spawn order; to the millisecond of the server's clock, nobody before its due."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Exponential, Fixed, Lockbeat
from lockbeat.tasks import NewTask, Task
from tests.conftest import Connect, only
from tests.tasks import NOON, begun, claim_one, stopped, until

HOUR = 3600.0


async def drain(lb: Lockbeat, limit: int = 1) -> list[Task]:
    found: list[Task] = []
    while tasks := await lb.tasks.claim("default", "alice", limit, 30):
        found += tasks
    return found


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_tasks_of_one_priority_begin_in_the_order_of_their_spawning(lb: Lockbeat, connect: Connect, limit: int) -> None:
    async with connect() as other:
        ids = [(await (lb, other)[n % 2].tasks.spawn("single")).task_id for n in range(20)]
        for client in (lb, other):
            ids += [spawned.task_id for spawned in await client.tasks.spawn_many([NewTask("many")] * 25)]
    assert [task.id for task in await drain(lb, limit)] == ids


async def test_a_higher_priority_goes_first(lb: Lockbeat) -> None:
    priorities = [*range(-49, 50), 0, 0, -49, 49]
    random.Random(1).shuffle(priorities)
    spawned = await lb.tasks.spawn_many(NewTask("job", n, priority=n) for n in priorities)
    expected = sorted(zip(priorities, spawned, strict=True), key=lambda pair: -pair[0])  # stable: spawn order decides
    assert [task.id for task in await drain(lb, 10)] == [task.task_id for _, task in expected]


@only("memory")
@pytest.mark.parametrize("seed", range(8))
async def test_the_order_is_priority_then_due_time_then_spawn_order(lb: Lockbeat, seed: int) -> None:
    dice = random.Random(seed)
    with stopped() as to:
        made = []
        for n in range(40):
            to(NOON + n * 0.001)
            priority, delay = dice.choice([-2, 0, 0, 7]), dice.choice([0, 0, 0.005, 0.05, 3])
            spawned = await lb.tasks.spawn("job", priority=priority, delay=delay)
            made.append(((-priority, round(n + delay * 1000), n), spawned.task_id))
        to(NOON + 10)
        assert [task.id for task in await drain(lb, dice.choice([1, 3, 50]))] == [task_id for _, task_id in sorted(made)]


@only("memory")
async def test_what_is_not_due_is_passed_over_whatever_its_priority(lb: Lockbeat) -> None:
    with stopped() as to:
        late = (await lb.tasks.spawn("late", priority=49, delay=10)).task_id
        low = [(await lb.tasks.spawn("low", priority=-49)).task_id for _ in range(2)]
        to(NOON + 9.999)
        assert [task.id for task in await lb.tasks.claim("default", "alice")] == low[:1]
        to(NOON + 10)
        assert [task.id for task in await drain(lb)] == [late, low[1]]


async def test_a_delayed_task_keeps_its_priority_when_it_comes_due(lb: Lockbeat) -> None:
    low = (await lb.tasks.spawn("low")).task_id
    high = (await lb.tasks.spawn("high", priority=1, delay=0.02)).task_id
    await until(lb, (await lb.tasks.get(high)).due_at)
    assert [task.id for task in await drain(lb)] == [high, low]


# -- to the millisecond


@pytest.mark.parametrize("delay", [0.001, 0.0501, timedelta(milliseconds=250)])
async def test_a_delayed_task_is_claimed_from_its_due_time_on_and_not_before(lb: Lockbeat, delay: Any) -> None:
    before = await lb.store.server_time()
    spawned = await lb.tasks.spawn("job", delay=delay)
    after = await lb.store.server_time()
    due = (await lb.tasks.get(spawned.task_id)).due_at
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    assert due is not None
    assert before - 0.001 <= due - seconds <= after + 0.001
    claims: list[Task] = []
    while not claims:  # asks all the time, so that it would get one that is too early
        late = await lb.store.server_time() >= due
        claims = await lb.tasks.claim("default", "alice", 1, 30)
        assert claims or not late, "it was due, and was not given"
    assert claims[0].expires_at - 30 >= due - 1e-6


@only("memory")
@pytest.mark.parametrize("delay", [0.001, 0.25, 1, 59.999, HOUR, 24 * HOUR, 365 * 24 * HOUR])
async def test_a_delay_holds_to_the_millisecond(lb: Lockbeat, delay: float) -> None:
    with stopped() as to:
        spawned = await lb.tasks.spawn("job", delay=delay)
        assert (await lb.tasks.get(spawned.task_id)).due_at == pytest.approx(NOON + delay, abs=1e-4)
        assert (await lb.tasks.counts()).delayed == 1
        to(NOON + delay - 0.001)
        assert await lb.tasks.claim("default", "alice") == []
        to(NOON + delay)
        assert [task.id for task in await lb.tasks.claim("default", "alice")] == [spawned.task_id]


RETRIES: list[tuple[Any, int, float]] = [
    (None, 1, 0),
    (Fixed(0, jitter=0), 1, 0),
    (Fixed(0.001, jitter=0), 2, 0.001),
    (Fixed(7.5, jitter=0), 3, 7.5),
    (Exponential(1, factor=2, max=60, jitter=0), 1, 1),
    (Exponential(1, factor=2, max=60, jitter=0), 2, 2),
    (Exponential(1, factor=2, max=60, jitter=0), 6, 32),
    (Exponential(1, factor=2, max=60, jitter=0), 7, 60),
    (Exponential(0.125, factor=3, jitter=0), 4, 0.125 * 27),
    (Exponential(1, factor=1e300, max=5, jitter=0), 9, 5),
    (Exponential(1, factor=1e300, jitter=0), 9, 3653 * 86_400),
]


@only("memory")
@pytest.mark.parametrize(("retry", "attempt", "delay"), RETRIES)
async def test_the_delay_after_each_attempt_is_the_policys_to_the_millisecond(
    lb: Lockbeat, retry: Any, attempt: int, delay: float
) -> None:
    with stopped() as to:
        task = await begun(lb, retry=retry, max_attempts=1000)
        while task.attempt < attempt:
            assert await lb.tasks.fail(task, "broken", retry_at=0)
            task = await claim_one(lb)
        failed = await lb.tasks.fail(task, "broken")
        assert failed.retry_at == pytest.approx(NOON + delay, abs=1e-4)
        if delay:
            to(NOON + delay - 0.001)
            assert await lb.tasks.claim("default", "alice") == []
        to(NOON + delay)
        assert (await claim_one(lb)).attempt == attempt + 1


@only("memory")
@pytest.mark.parametrize("form", [float, lambda seconds: datetime.fromtimestamp(seconds, UTC)])
@pytest.mark.parametrize("delay", [0.001, 12.345, HOUR])
async def test_a_given_retry_time_wins_over_the_policy(lb: Lockbeat, form: Any, delay: float) -> None:
    with stopped() as to:
        task = await begun(lb, retry=Fixed(60, jitter=0))
        failed = await lb.tasks.fail(task, "broken", retry_at=form(NOON + delay))
        assert failed.outcome == "requeued"
        assert failed.retry_at == pytest.approx(NOON + delay, abs=1e-4)
        to(NOON + delay - 0.001)
        assert await lb.tasks.claim("default", "alice") == []
        to(NOON + delay)
        assert (await claim_one(lb)).attempt == 2


@pytest.mark.parametrize(
    "past", [0, 1.5, -1, datetime(1999, 1, 1, tzinfo=UTC), datetime(1960, 1, 1, tzinfo=UTC)], ids=lambda past: str(past)[:4]
)
async def test_a_retry_time_that_is_past_means_now(lb: Lockbeat, past: Any) -> None:
    task = await begun(lb, retry=Fixed(HOUR, jitter=0))
    before = await lb.store.server_time()
    failed = await lb.tasks.fail(task, "broken", retry_at=past)
    assert failed.outcome == "requeued"
    assert failed.retry_at is not None
    assert before - 0.001 <= failed.retry_at <= await lb.store.server_time() + 0.001
    assert (await claim_one(lb)).attempt == 2


async def test_a_deferred_task_comes_back_when_its_time_is_over_and_not_before(lb: Lockbeat) -> None:
    task = await begun(lb)
    before = await lb.store.server_time()
    assert await lb.tasks.defer(task, 0.2)
    due = (await lb.tasks.get(task.id)).due_at
    assert due is not None
    assert due >= before + 0.199
    claims: list[Task] = []
    while not claims:
        late = await lb.store.server_time() >= due
        claims = await lb.tasks.claim("default", "bob")
        assert claims or not late, "it was due, and was not given"
    assert claims[0].expires_at - 30 >= due - 1e-6


async def test_many_that_come_due_at_once_are_all_claimed(lb: Lockbeat) -> None:
    """More than a script may move in one run."""
    spawned = await lb.tasks.spawn_many(NewTask("job", n, delay=0.3) for n in range(1200))
    await until(lb, await lb.store.server_time() + 0.301)
    claimed = [task.id for task in await drain(lb, 100)]
    assert len(claimed) == 1200
    assert set(claimed) == {task.task_id for task in spawned}


async def test_claims_of_many_workers_share_the_queue_without_overlap(lb: Lockbeat, connect: Connect) -> None:
    spawned = await lb.tasks.spawn_many([NewTask("job")] * 200)

    async def worker(client: Lockbeat, owner: str) -> list[str]:
        got: list[str] = []
        while tasks := await client.tasks.claim("default", owner, 3, 30):
            got += [task.id for task in tasks]
        return got

    async with connect() as other:
        shares = await asyncio.gather(*(worker((lb, other)[n % 2], f"w{n}") for n in range(8)))
    claimed = [task_id for share in shares for task_id in share]
    assert sorted(claimed) == sorted(task.task_id for task in spawned)
