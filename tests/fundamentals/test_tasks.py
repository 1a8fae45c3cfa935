"""Tasks, for a newcomer: one concept a test, public API only."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from lockbeat import Beat, Fixed, LeaseLost, Lockbeat, Run
from lockbeat.tasks import NewTask, TaskInfo
from tests.conftest import wait_until


@pytest.fixture
def make_beat(url: str, namespace: str, shards: int) -> Callable[..., Beat]:
    """What `Beat("redis://…")` is in your program."""
    return lambda **options: Beat(url, namespace=namespace, shards=shards, grace=1, **options)


@pytest.fixture
def beat(make_beat: Callable[..., Beat]) -> Beat:
    return make_beat()


async def end_of(lb: Lockbeat, task_id: str) -> TaskInfo:
    """What became of a task."""
    async with asyncio.timeout(30):
        while (info := await lb.tasks.get(task_id)).state in ("waiting", "running"):
            await asyncio.sleep(0.01)
    return info


async def test_a_function_is_spawned_here_and_runs_wherever_there_is_a_worker(beat: Beat, lb: Lockbeat) -> None:
    """What you spawn runs once, with the params that you gave, and its return value is kept."""

    @beat.task
    async def add(run: Run) -> int:
        return sum(run.params)

    async with beat.lifespan():
        spawned = await beat.spawn(add, [1, 2, 3])
        info = await end_of(lb, spawned.task_id)
    assert (info.state, info.result, info.attempts) == ("done", 6, 1)


async def test_a_plain_function_runs_in_a_thread(beat: Beat, lb: Lockbeat) -> None:
    """It may block: the event loop goes on."""

    @beat.task
    def blocking() -> bool:
        return threading.current_thread() is threading.main_thread()

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(blocking)).task_id)
    assert info.result is False


async def test_a_task_waits_in_the_store_until_a_worker_comes(beat: Beat, lb: Lockbeat) -> None:
    """Who spawns needs no worker, nor the function: its name will do."""
    spawned = await lb.tasks.spawn("greet", {"name": "Ada"})
    assert (await lb.tasks.get(spawned.task_id)).state == "waiting"

    @beat.task
    async def greet(run: Run) -> str:
        return f"Hello {run.params['name']}"

    async with beat.lifespan():
        assert (await end_of(lb, spawned.task_id)).result == "Hello Ada"


async def test_headers_travel_beside_the_params(beat: Beat, lb: Lockbeat) -> None:
    """For what is not the function's business: trace ids, the tenant."""

    @beat.task
    async def told(run: Run) -> object:
        return run.headers["trace"]

    async with beat.lifespan():
        spawned = await beat.spawn(told, headers={"trace": "abc"})
        assert (await end_of(lb, spawned.task_id)).result == "abc"


async def test_a_delayed_task_does_not_begin_before_its_time(beat: Beat, lb: Lockbeat) -> None:
    """By the server's clock, to the millisecond."""

    @beat.task
    async def later() -> None: ...

    async with beat.lifespan():
        spawned = await beat.spawn(later, delay=timedelta(seconds=0.2))
        info = await end_of(lb, spawned.task_id)
    assert info.spawned_at is not None
    assert info.started_at is not None
    assert round((info.started_at - info.spawned_at) * 1000) >= 200


async def test_the_more_urgent_goes_first(make_beat: Callable[..., Beat], lb: Lockbeat) -> None:
    """A higher priority; then the longest due."""
    beat, order = make_beat(concurrency=1), []

    @beat.task
    async def job(run: Run) -> None:
        order.append(run.params)

    await lb.tasks.spawn("job", "first", priority=-1)
    await lb.tasks.spawn("job", "second")
    await lb.tasks.spawn("job", "third", priority=10)
    async with beat.lifespan():
        await wait_until(lambda: len(order) == 3, "they run")
    assert order == ["third", "second", "first"]


async def test_a_failed_attempt_is_followed_by_another(beat: Beat, lb: Lockbeat) -> None:
    """After a pause that you choose, up to so many attempts."""

    @beat.task(max_attempts=3, retry=Fixed(0.01))
    async def flaky(run: Run) -> str:
        if run.attempt < 3:
            raise ConnectionError("not yet")
        return "at last"

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(flaky)).task_id)
    assert (info.state, info.result, info.attempts) == ("done", "at last", 3)


async def test_a_task_that_keeps_failing_is_dead_and_says_why(beat: Beat, lb: Lockbeat) -> None:
    """Its last error is kept as text: type, message and traceback. You can have it tried again."""
    broken = True

    @beat.task(max_attempts=2, retry=None)
    async def charge() -> str:
        if broken:
            raise ValueError("no such account")
        return "charged"

    async with beat.lifespan():
        task_id = (await beat.spawn(charge)).task_id
        info = await end_of(lb, task_id)
        assert info.state == "dead"
        assert info.failure is not None
        assert (info.failure.type, info.failure.message) == ("ValueError", "no such account")
        assert [dead.id for dead in await lb.tasks.dead()] == [task_id]
        broken = False
        assert await lb.tasks.retry(task_id)
        assert (await end_of(lb, task_id)).result == "charged"


async def test_an_idempotency_key_names_one_task(lb: Lockbeat) -> None:
    """Spawn it as often as you like: it is one task, until its retention is over."""
    first = await lb.tasks.spawn("charge", 7, idempotency_key="order-7")
    again = await lb.tasks.spawn("charge", 7, idempotency_key="order-7")
    assert (first.created, again.created) == (True, False)
    assert again.task_id == first.task_id


async def test_many_are_spawned_in_one_call(beat: Beat, lb: Lockbeat) -> None:
    """One round trip for all of them."""

    @beat.task
    async def square(run: Run) -> int:
        return int(run.params**2)

    async with beat.lifespan():
        spawned = await lb.tasks.spawn_many(NewTask("square", n) for n in range(10))
        assert [(await end_of(lb, one.task_id)).result for one in spawned] == [n**2 for n in range(10)]


async def test_a_waiting_task_can_be_cancelled(beat: Beat, lb: Lockbeat) -> None:
    """Then it never runs."""

    @beat.task
    async def job() -> None:
        pytest.fail("it was cancelled")

    spawned = await lb.tasks.spawn("job")
    assert await lb.tasks.cancel(spawned.task_id)
    async with beat.lifespan():
        assert (await end_of(lb, spawned.task_id)).state == "cancelled"


async def test_a_running_task_can_be_cancelled(beat: Beat, lb: Lockbeat) -> None:
    """Its body gets CancelledError at its next await, wherever it runs."""
    events: list[str] = []

    @beat.task
    async def long() -> None:
        events.append("began")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("cleaned up")
            raise

    async with beat.lifespan():
        spawned = await beat.spawn(long)
        await wait_until(lambda: events, "it runs")
        assert await lb.tasks.cancel(spawned.task_id)
        await wait_until(lambda: "cleaned up" in events, "it is cancelled")
    assert (await lb.tasks.get(spawned.task_id)).state == "cancelled"


async def test_a_plain_function_asks_whether_it_is_to_go_on(beat: Beat, lb: Lockbeat) -> None:
    """A thread can't be stopped from outside: `run.heartbeat()` raises LeaseLost once it should end."""
    began, ended = threading.Event(), threading.Event()

    @beat.task
    def long(run: Run) -> None:
        began.set()
        try:
            while True:
                run.heartbeat()
                time.sleep(0.01)
        except LeaseLost:
            ended.set()
            raise

    async with beat.lifespan():
        spawned = await beat.spawn(long)
        await wait_until(began.is_set, "it runs")
        await lb.tasks.cancel(spawned.task_id)
        await wait_until(ended.is_set, "it ends")


async def test_an_attempt_that_takes_too_long_is_cancelled_and_has_failed(beat: Beat, lb: Lockbeat) -> None:
    """`timeout` is for each attempt; `max_duration` is for the whole task."""

    @beat.task(timeout=0.1, max_attempts=1)
    async def slow() -> None:
        await asyncio.sleep(60)

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(slow)).task_id)
    assert info.state == "dead"
    assert info.failure is not None
    assert info.failure.type == "TimedOut"


async def test_a_task_nobody_began_in_time_is_not_begun_at_all(beat: Beat, lb: Lockbeat) -> None:
    """`max_delay`: better never than late."""

    @beat.task
    async def remind() -> None:
        pytest.fail("that was too late")

    spawned = await lb.tasks.spawn("remind", max_delay=0.05)
    await asyncio.sleep(0.1)
    async with beat.lifespan():
        assert (await end_of(lb, spawned.task_id)).state == "cancelled"


async def test_a_worker_runs_as_many_at_once_as_you_allow(make_beat: Callable[..., Beat], lb: Lockbeat) -> None:
    """`concurrency`; the others wait in the store, where another worker may take them."""
    beat = make_beat(concurrency=2)
    running: list[int] = []
    most: list[int] = []

    @beat.task
    async def job() -> None:
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0.02)
        running.pop()

    async with beat.lifespan():
        for one in await lb.tasks.spawn_many([NewTask("job")] * 8):
            await end_of(lb, one.task_id)
    assert max(most) == 2


async def test_queues_keep_kinds_of_work_apart(make_beat: Callable[..., Beat], lb: Lockbeat) -> None:
    """A worker serves the queues of its own functions."""
    web, gpu = make_beat(), make_beat(queue="gpu")

    @web.task
    async def mail() -> str:
        return "web"

    @gpu.task
    async def train() -> str:
        return "gpu"

    async with web.lifespan(), gpu.lifespan():
        mailed, trained = await web.spawn(mail), await gpu.spawn(train)
        assert (await end_of(lb, mailed.task_id)).queue == "default"
        assert (await end_of(lb, trained.task_id)).queue == "gpu"


async def test_what_a_task_logs_says_whose_it_is(beat: Beat, lb: Lockbeat, caplog: pytest.LogCaptureFixture) -> None:
    """`run.log` puts the task's id in front, and into the record."""
    caplog.set_level(logging.INFO, logger="lockbeat.run")

    @beat.task
    async def chatty(run: Run) -> None:
        run.log.info("half way, %d %%", 50)

    async with beat.lifespan():
        spawned = await beat.spawn(chatty)
        await end_of(lb, spawned.task_id)
    assert f"{spawned.task_id}: half way, 50 %" in caplog.messages


async def test_without_a_worker_you_claim_and_complete_by_hand(lb: Lockbeat) -> None:
    """The worker uses nothing else: claim under a lease, renew it while you work, say how it ended."""
    await lb.tasks.spawn("resize", {"width": 100})
    [task] = await lb.tasks.claim("default", "alice", lease=30)
    assert (task.name, task.params, task.attempt) == ("resize", {"width": 100}, 1)
    assert await lb.tasks.claim("default", "bob") == [], "it is alice's"
    assert await lb.tasks.heartbeat(task, lease=60)
    assert await lb.tasks.complete(task, {"bytes": 512})
    assert (await lb.tasks.get(task.id)).result == {"bytes": 512}


async def test_you_can_see_how_much_there_is_to_do(lb: Lockbeat) -> None:
    """Counts by queue, and lists of tasks by state."""
    await lb.tasks.spawn_many([NewTask("job"), NewTask("job", delay=60), NewTask("job", queue="other")])
    counts = await lb.tasks.counts()
    assert (counts.ready, counts.delayed, counts.running, counts.dead) == (1, 1, 0, 0)
    assert await lb.tasks.queues() == ["default", "other"]
    assert len(await lb.tasks.list("default", state="waiting")) == 2
