"""Promise 8: cancelling any verb of the tasks at any await leaves no orphan behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.tasks import NewTask, Task
from tests.conftest import Connect
from tests.tasks import begun, cancelled_after, claim_one, died, state

STEPS = 40


async def claimed_soon(lb: Lockbeat, expected: int = 1) -> list[Task]:
    """So many tasks, claimed before any lease of 30 s would have ended."""
    found: list[Task] = []
    async with asyncio.timeout(30):
        while len(found) < expected:
            found += await lb.tasks.claim("default", "other", expected, 30)
            await asyncio.sleep(0.002)
    return found


@pytest.mark.parametrize(("limit", "steps_of"), [(1, [*range(STEPS), *[2] * 30]), (3, range(STEPS)), (120, range(0, STEPS, 3))])
async def test_a_cancelled_claim_leaves_no_leased_task(
    lb: Lockbeat, connect: Connect, limit: int, steps_of: Iterable[int]
) -> None:
    """At every turn of the loop, and many times in flight. Nothing ran, so the one attempt that there is is not used up."""
    async with connect() as other:
        for steps in steps_of:
            await other.tasks.spawn_many([NewTask("job", max_attempts=1)] * limit)
            tasks = await cancelled_after(steps, lb.tasks.claim("default", "alice", limit, 30))
            if tasks is None:
                tasks = await claimed_soon(other, limit)
            assert [task.attempt for task in tasks] == [1] * limit
            assert [await other.tasks.complete(task) for task in tasks] == [True] * limit


async def test_undoing_a_cancelled_claim_spares_what_its_owner_runs(lb: Lockbeat) -> None:
    mine = await begun(lb)
    for steps in range(STEPS):
        spawned = await lb.tasks.spawn("job")
        both = asyncio.gather(
            cancelled_after(steps, lb.tasks.claim("default", "alice", 1, 30)), lb.tasks.claim("default", "alice", 1, 30)
        )
        cancelled, tasks = await both
        for task in (cancelled or tasks) or await claimed_soon(lb):
            assert task.id == spawned.task_id
            assert (await lb.tasks.get(task.id)).fence == task.fence, "it was taken from the one that claimed it"
            assert await lb.tasks.complete(task)
    assert await lb.tasks.heartbeat(mine)


async def test_a_cancelled_spawn_exists_once_or_not_at_all(lb: Lockbeat) -> None:
    for steps in [*range(STEPS), *[2] * 30]:
        spawned = await cancelled_after(steps, lb.tasks.spawn("job", steps))
        await lb.store.server_time()
        ids = [info.id for info in await lb.tasks.list()]
        assert len(ids) <= 1
        assert spawned is None or ids == [spawned.task_id]
        for task in await claimed_soon(lb, len(ids)):
            assert (task.id, task.name, task.params) == (ids[0], "job", steps)
            assert await lb.tasks.complete(task)
        assert await lb.tasks.purge() == len(ids)


async def test_a_cancelled_spawn_with_a_key_is_found_or_made_by_the_next(lb: Lockbeat) -> None:
    for n, steps in enumerate([*range(STEPS), *[2] * 30]):
        first = await cancelled_after(steps, lb.tasks.spawn("job", idempotency_key=f"k{n}"))
        again = await lb.tasks.spawn("job", idempotency_key=f"k{n}")
        assert first is None or (first.task_id, again.created) == (again.task_id, False)
        assert [info.id for info in await lb.tasks.list(state="waiting")] == [again.task_id]
        assert await lb.tasks.complete(await claim_one(lb))


async def test_a_cancelled_spawn_many_creates_whole_tasks_only(lb: Lockbeat) -> None:
    for steps in range(STEPS):
        await cancelled_after(steps, lb.tasks.spawn_many(NewTask("job", n) for n in range(10)))
        await lb.store.server_time()
        listed = await lb.tasks.list()
        tasks = await claimed_soon(lb, len(listed))
        assert len({task.params for task in tasks}) == len(tasks) == len(listed)
        for task in tasks:
            assert await lb.tasks.complete(task)
        assert await lb.tasks.purge() == len(tasks)


async def test_a_cancelled_complete_is_done_or_can_be_done_again(lb: Lockbeat) -> None:
    for steps in range(STEPS):
        task = await begun(lb)
        await cancelled_after(steps, lb.tasks.complete(task, steps))
        assert await lb.tasks.complete(task, steps) is True
        info = await lb.tasks.get(task.id)
        assert (info.state, info.result) == ("done", steps)


async def test_a_cancelled_fail_counts_one_attempt_or_none(lb: Lockbeat) -> None:
    for steps in range(STEPS):
        task = await begun(lb, retry=None)
        await cancelled_after(steps, lb.tasks.fail(task, "broken"))
        await lb.tasks.fail(task, "broken")
        [again] = await claimed_soon(lb)
        assert (again.id, again.attempt) == (task.id, 2)
        assert await lb.tasks.complete(again)


@pytest.mark.parametrize("verb", ["release", "defer"])
async def test_a_cancelled_giving_back_gives_back_or_leaves_it_running(lb: Lockbeat, verb: str) -> None:
    def give_back(task: Task) -> Coroutine[Any, Any, bool]:
        return lb.tasks.release(task) if verb == "release" else lb.tasks.defer(task, 0)

    for steps in range(STEPS):
        task = await begun(lb, max_attempts=1)
        await cancelled_after(steps, give_back(task))
        await give_back(task)
        [again] = await claimed_soon(lb)
        assert (again.id, again.attempt) == (task.id, 1)
        assert await lb.tasks.complete(again)


@pytest.mark.parametrize("at_work", [False, True])
async def test_a_cancelled_cancel_cancels_or_can_be_made_again(lb: Lockbeat, at_work: bool) -> None:
    for steps in range(STEPS):
        task_id = (await lb.tasks.spawn("job")).task_id
        if at_work:
            await claim_one(lb)
        await cancelled_after(steps, lb.tasks.cancel(task_id))
        assert await state(lb, task_id) in ("running" if at_work else "waiting", "cancelled")
        await lb.tasks.cancel(task_id)
        assert await state(lb, task_id) == "cancelled"
        assert await lb.tasks.claim("default", "bob") == []


@pytest.mark.parametrize("verb", ["retry", "redrive"])
async def test_a_cancelled_revival_revives_once_or_not_at_all(lb: Lockbeat, verb: str) -> None:
    for steps in range(STEPS):
        dead = await died(lb)

        def revive(dead: str = dead) -> Coroutine[Any, Any, Any]:
            return lb.tasks.retry(dead) if verb == "retry" else lb.tasks.redrive()

        await cancelled_after(steps, revive())
        await revive()
        [task] = await claimed_soon(lb)
        assert (task.id, task.max_attempts - task.attempt) == (dead, 0)
        assert await lb.tasks.complete(task)


@pytest.mark.parametrize("verb", ["heartbeat", "get", "list", "dead", "counts", "queues", "purge"])
async def test_cancelling_any_other_verb_leaves_the_client_usable(lb: Lockbeat, verb: str) -> None:
    task = await begun(lb)
    calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "heartbeat": lambda: lb.tasks.heartbeat(task),
        "get": lambda: lb.tasks.get(task.id),
        "list": lambda: lb.tasks.list(),
        "dead": lambda: lb.tasks.dead(),
        "counts": lambda: lb.tasks.counts(),
        "queues": lambda: lb.tasks.queues(),
        "purge": lambda: lb.tasks.purge(),
    }
    for steps in range(12):
        await cancelled_after(steps, calls[verb]())
        assert (await lb.tasks.get(task.id)).owner == "alice"
    assert await lb.tasks.complete(task)
