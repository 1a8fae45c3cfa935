"""Promise 8: a verb whose reply was lost is repeated, gives the first outcome, and doubles nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lockbeat import Fixed, Lockbeat
from lockbeat.errors import StoreUnavailable
from lockbeat.store.scripts import load, names
from lockbeat.tasks import NewTask, Task
from tests.conftest import only, wait_until
from tests.proxy import Proxy
from tests.tasks import begun, claim_one, died, state

pytestmark = only("valkey", "redis")

TIMES = pytest.mark.parametrize("times", [1, 3])


def lose(lossy: Proxy, times: int = 1) -> None:
    """Lose the next replies of scripts on tasks, whichever."""
    scripts = [load(name) for name in names() if name.startswith("task/")]
    marks = [mark for script in scripts for mark in (script.sha.encode(), f"-- {script.name}: ".encode())]
    lossy.lose_reply(lambda request: any(mark in request for mark in marks), times)


@TIMES
@pytest.mark.parametrize("key", [None, "order-1"])
async def test_spawn_creates_one_task_and_says_so(
    client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int, key: str | None
) -> None:
    lose(lossy, times)
    spawned = await client.tasks.spawn("job", 7, idempotency_key=key)
    assert lossy.lost == times
    assert (spawned.created, spawned.attempt) == (True, 1)
    assert [info.id for info in await lb.tasks.list()] == [spawned.task_id]
    if key:
        again = await client.tasks.spawn("job", 7, idempotency_key=key)
        assert (again.task_id, again.created) == (spawned.task_id, False)


async def test_spawn_of_a_known_key_gives_the_first_task(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    first = await lb.tasks.spawn("job", idempotency_key="k")
    lose(lossy)
    again = await client.tasks.spawn("job", idempotency_key="k")
    assert lossy.lost == 1
    assert (again.task_id, again.created) == (first.task_id, False)


async def test_spawn_creates_no_second_task_though_the_first_was_done_by_then(
    client: Lockbeat, lossy: Proxy, lb: Lockbeat
) -> None:
    for key in (None, "k"):
        lossy.lost = 0
        lose(lossy, 3)
        spawning = asyncio.create_task(client.tasks.spawn("job", idempotency_key=key, retention=60))
        await wait_until(lambda: lossy.lost, "the reply is lost")
        task = await claim_one(lb)
        assert await lb.tasks.complete(task)
        assert not spawning.done()
        spawned = await spawning
        assert (spawned.task_id, spawned.created) == (task.id, True)
        assert await lb.tasks.claim("default", "bob") == []


@TIMES
async def test_spawn_many_creates_each_once(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    lose(lossy, times)
    spawned = await client.tasks.spawn_many(NewTask("job", n, idempotency_key=f"k{n}" if n % 2 else None) for n in range(50))
    assert lossy.lost == times
    assert all(task.created for task in spawned)
    assert {info.id for info in await lb.tasks.list()} == {task.task_id for task in spawned}
    assert len({task.task_id for task in spawned}) == 50


@TIMES
async def test_claim_gives_the_attempts_it_had_begun(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    ids = [(await lb.tasks.spawn("job", n, max_attempts=1)).task_id for n in range(5)]
    lose(lossy, times)
    tasks = await client.tasks.claim("default", "alice", 3, 30)
    assert lossy.lost == times
    assert [(task.id, task.params, task.attempt) for task in tasks] == [(ids[n], n, 1) for n in range(3)]
    counts = await lb.tasks.counts()
    assert (counts.ready, counts.running) == (2, 3)
    for task in tasks:
        info = await lb.tasks.get(task.id)
        assert (info.fence, info.expires_at, info.attempts) == (task.fence, task.expires_at, 1)
        assert await client.tasks.complete(task)


async def test_claims_of_one_owner_keep_their_tasks_apart(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    """Two calls, both lost: neither may take what the other had begun for its own."""
    await lb.tasks.spawn_many([NewTask("job")] * 8)
    lose(lossy)
    claims = await asyncio.gather(*(client.tasks.claim("default", "alice", 2, 30) for _ in range(4)))
    assert lossy.lost == 1
    claimed = [task.id for tasks in claims for task in tasks]
    assert len(claimed) == len(set(claimed)) == 8


@pytest.mark.parametrize("times", [1, 2])
async def test_a_claim_cancelled_after_its_reply_was_lost_leaves_no_leased_task(
    client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int
) -> None:
    await lb.tasks.spawn("job", max_attempts=1)
    lose(lossy, times)
    claiming = asyncio.create_task(client.tasks.claim("default", "alice", 1, 30))
    await wait_until(lambda: lossy.lost, "the reply is lost")
    claiming.cancel()
    await asyncio.gather(claiming, return_exceptions=True)
    found: list[Task] = []
    async with asyncio.timeout(30):
        while not found:
            found = await lb.tasks.claim("default", "bob")
            await asyncio.sleep(0.01)
    assert found[0].attempt == 1


@pytest.mark.parametrize(("queue", "limit"), [("default", 1), ("default", 10), ("other", 10)])
async def test_a_claim_after_one_that_never_heard_keeps_to_its_own_queue_and_limit(
    lossy: Proxy, namespace: str, lb: Lockbeat, queue: str, limit: int
) -> None:
    """What the lost one had begun is not orphaned either."""
    tasks = [NewTask("job", max_attempts=1, queue=of) for of in ["default"] * 5 + ["other"] * 5]
    ids = {spawned.task_id for spawned in await lb.tasks.spawn_many(tasks)}
    async with Lockbeat(lossy.url, namespace=namespace, timeout=1) as client:
        lose(lossy, 1000)
        with pytest.raises(StoreUnavailable):
            await client.tasks.claim("default", "alice", 3, 30)
        lossy._matches.clear()
        claimed = await client.tasks.claim(queue, "alice", limit, 30)
        assert len(claimed) <= limit
        assert {task.queue for task in claimed} == {queue}
        for of in ("default", "other"):
            async with asyncio.timeout(30):
                while more := await client.tasks.claim(of, "alice", 10, 30):
                    claimed += more
        assert {task.id for task in claimed} == ids
        assert [await client.tasks.complete(task) for task in claimed] == [True] * 10


@TIMES
async def test_heartbeat_is_true(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    task = await begun(client)
    lose(lossy, times)
    beat = await client.tasks.heartbeat(task, 60)
    assert lossy.lost == times
    assert beat
    assert (await lb.tasks.get(task.id)).expires_at == beat.expires_at


@TIMES
async def test_complete_is_true(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    task = await begun(client)
    lose(lossy, times)
    assert await client.tasks.complete(task, "result") is True
    assert lossy.lost == times
    assert (await lb.tasks.get(task.id)).result == "result"


@TIMES
@pytest.mark.parametrize("key", [None, "k"])
async def test_complete_is_true_though_the_task_was_not_to_be_kept(
    client: Lockbeat, lossy: Proxy, times: int, key: str | None
) -> None:
    task = await begun(client, idempotency_key=key, retention=0)
    lose(lossy, times)
    assert await client.tasks.complete(task, "first") is True
    assert lossy.lost == times


@TIMES
async def test_fail_says_when_it_is_retried(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    task = await begun(client, retry=Fixed(60))
    lose(lossy, times)
    failed = await client.tasks.fail(task, "broken")
    assert lossy.lost == times
    assert failed.outcome == "requeued"
    info = await lb.tasks.get(task.id)
    assert (info.state, info.due_at, info.attempts) == ("waiting", failed.retry_at, 1)


@TIMES
async def test_fail_says_that_it_is_dead_lettered(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    task = await begun(client, max_attempts=1)
    lose(lossy, times)
    failed = await client.tasks.fail(task, "broken")
    assert lossy.lost == times
    assert (failed.outcome, failed.retry_at) == ("dead_lettered", None)
    assert [info.id for info in await lb.tasks.dead()] == [task.id]


@TIMES
async def test_fail_says_that_it_is_cancelled(client: Lockbeat, lossy: Proxy, times: int) -> None:
    task = await begun(client, max_duration=60, retry=Fixed(3600))
    lose(lossy, times)
    failed = await client.tasks.fail(task, "broken")
    assert lossy.lost == times
    assert (failed.outcome, failed.retry_at) == ("cancelled", None)


GIVE_BACK: dict[str, Callable[[Lockbeat, Task], Awaitable[object]]] = {
    "fail": lambda lb, task: lb.tasks.fail(task, "broken"),
    "release": lambda lb, task: lb.tasks.release(task),
    "defer": lambda lb, task: lb.tasks.defer(task, 0),
}


@pytest.mark.parametrize("verb", GIVE_BACK)
async def test_what_was_given_back_may_run_elsewhere_by_then(client: Lockbeat, lossy: Proxy, lb: Lockbeat, verb: str) -> None:
    """Even under the same owner: the repeat gives its first outcome, and leaves the successor's attempt alone."""
    for owner in ("alice", "bob"):
        lossy.lost = 0
        task = await begun(client, retry=None)
        lose(lossy, 3)
        giving = asyncio.ensure_future(GIVE_BACK[verb](client, task))
        await wait_until(lambda: lossy.lost, "the reply is lost")
        successor = await claim_one(lb, owner=owner)
        assert successor.attempt == (2 if verb == "fail" else 1)
        assert not giving.done()
        assert await giving
        info = await lb.tasks.get(task.id)
        assert (info.state, info.fence, info.attempts) == ("running", successor.fence, successor.attempt)
        assert await lb.tasks.complete(successor)


@pytest.mark.parametrize("verb", ["release", "defer"])
async def test_what_is_given_back_is_counted_once(client: Lockbeat, lossy: Proxy, lb: Lockbeat, verb: str) -> None:
    task = await begun(client, max_attempts=5, retry=None)
    assert await client.tasks.fail(task, "broken")
    task = await claim_one(client)
    lose(lossy, 3)
    assert await GIVE_BACK[verb](client, task)
    assert lossy.lost == 3
    assert (await claim_one(lb)).attempt == 2


async def test_a_fail_repeated_after_its_successor_was_dead_lettered_says_requeued(
    client: Lockbeat, lossy: Proxy, lb: Lockbeat
) -> None:
    task = await begun(client, retry=None, max_attempts=2)
    lose(lossy, 3)
    failing = asyncio.create_task(client.tasks.fail(task, "first"))
    await wait_until(lambda: lossy.lost, "the reply is lost")
    assert (await lb.tasks.fail(await claim_one(lb), "second")).outcome == "dead_lettered"
    assert (await failing).outcome == "requeued"
    [dead] = await lb.tasks.dead()
    assert dead.failure is not None
    assert (dead.failure.message, dead.attempts) == ("second", 2)


@TIMES
@pytest.mark.parametrize("at_work", [False, True])
async def test_cancel_is_true(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int, at_work: bool) -> None:
    task_id = (await lb.tasks.spawn("job")).task_id
    if at_work:
        await claim_one(lb)
    lose(lossy, times)
    assert await client.tasks.cancel(task_id) is True
    assert lossy.lost == times
    assert await client.tasks.cancel(task_id) is False
    assert await state(lb, task_id) == "cancelled"


@TIMES
async def test_retry_is_true_and_gives_one_attempt(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    dead = await died(lb)
    lose(lossy, times)
    assert await client.tasks.retry(dead) is True
    assert lossy.lost == times
    task = await claim_one(lb)
    assert (task.attempt, task.max_attempts) == (2, 2)
    assert (await lb.tasks.fail(task, "again")).outcome == "dead_lettered"


async def test_a_retry_repeated_after_the_task_died_again_does_not_revive_it(
    client: Lockbeat, lossy: Proxy, lb: Lockbeat
) -> None:
    dead = await died(lb)
    lose(lossy, 3)
    retrying = asyncio.create_task(client.tasks.retry(dead))
    await wait_until(lambda: lossy.lost, "the reply is lost")
    assert (await lb.tasks.fail(await claim_one(lb), "again")).outcome == "dead_lettered"
    assert await retrying is True
    assert await state(lb, dead) == "dead"


@TIMES
@pytest.mark.parametrize("limit", [None, 4])
async def test_redrive_counts_what_the_first_call_revived(
    client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int, limit: int | None
) -> None:
    for _ in range(6):
        await died(lb)
    lose(lossy, times)
    assert await client.tasks.redrive(limit=limit) == (limit or 6)
    assert lossy.lost == times
    counts = await lb.tasks.counts()
    assert (counts.ready, counts.dead) == ((4, 2) if limit else (6, 0))


@TIMES
async def test_purge_counts_what_the_first_call_forgot(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    for _ in range(6):
        await died(lb)
    lose(lossy, times)
    assert await client.tasks.purge() == 6
    assert lossy.lost == times
    assert await lb.tasks.list() == []


@TIMES
async def test_release_all_counts_what_the_first_call_released(client: Lockbeat, lossy: Proxy, lb: Lockbeat, times: int) -> None:
    for _ in range(6):
        await begun(lb, retry=None)
    lose(lossy, times)
    assert await client.tasks.release_all("alice") == 6
    assert lossy.lost == times
    assert len(await lb.tasks.claim("default", "bob", 10, 30)) == 6
