"""Promise 8: what may happen to a call whose reply was lost, besides what every verb has in test_every_verb."""

from __future__ import annotations

import asyncio

import pytest

from lockbeat import Claim, Lockbeat
from lockbeat.claims import ClaimStats
from lockbeat.errors import StoreUnavailable
from lockbeat.store.scripts import names
from lockbeat.tasks import NewTask, Task
from tests.claims import acquired, ran_out
from tests.conftest import only, wait_until
from tests.proxy import Proxy, calls_of

pytestmark = only("valkey", "redis")


async def test_a_batch_of_locks_survives_a_lost_reply(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    lossy.lose_reply(calls_of("lock/try_acquire"))
    leases = await asyncio.gather(*(client.locks.try_acquire(f"k{n}", "alice", 30) for n in range(64)))
    assert lossy.lost >= 1
    listed = await lb.locks.list("alice")
    assert sorted((lease.fence for lease in leases if lease), key=int) == sorted(lease.fence for lease in listed)
    assert len(listed) == 64


async def test_a_waiter_whose_connection_breaks_keeps_its_wait(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    assert await lb.locks.try_acquire("k", "holder", 30)
    waiting = asyncio.create_task(client.lock("k", wait=5).__aenter__())
    await wait_until(lambda: client.locks._room._rooms.get("k"), "it waits")
    await client.store.server_time()
    lossy.cut()
    assert await lb.locks.release("k", "holder")
    lease = await asyncio.wait_for(waiting, 3)
    assert await lb.locks.list() == [lease]


def counts(stats: ClaimStats) -> dict[str, int]:
    """What is not 0."""
    return {name: getattr(stats, name) for name in ClaimStats.__slots__ if getattr(stats, name)}


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


async def test_a_busy_that_nobody_heard_may_be_a_claim_by_the_next_try(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    holder = await acquired(lb.claims, "k", "holder")
    lossy.lose_reply(calls_of("claim/acquire"), 3)
    acquiring = asyncio.create_task(client.claims.acquire("k", "alice"))
    await wait_until(lambda: lossy.lost, "the reply is lost")
    await lb.claims.complete(holder)
    assert isinstance(await acquiring, Claim)
    stats = await lb.claims.stats()
    assert (stats.acquired, stats.completed) == (2, 1)


async def test_renew_is_true_though_it_ran_out_before_the_repeat(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    claim = await acquired(client.claims, "k", lease=30)
    lossy.lose_reply(calls_of("claim/renew"), 2)
    assert await client.claims.renew(claim, 0.001) is True
    assert await client.claims.renew(claim, 30) is False


async def test_a_batch_of_claims_survives_a_lost_reply(client: Lockbeat, lossy: Proxy, lb: Lockbeat) -> None:
    lossy.lose_reply(calls_of("claim/acquire"))
    answers = await asyncio.gather(*(client.claims.acquire(f"k{n % 32}", "alice") for n in range(64)))
    assert lossy.lost >= 1
    listed = await lb.claims.list()
    assert sorted(answer.fence for answer in answers if isinstance(answer, Claim)) == sorted(claim.fence for claim in listed)
    stats = await lb.claims.stats()
    assert stats.acquired == 32
    assert stats.contended >= 32


def lose(lossy: Proxy, times: int = 1) -> None:
    """Lose the next replies of scripts on tasks, whichever."""
    lossy.lose_reply(calls_of(*(name for name in names() if name.startswith("task/"))), times)


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
