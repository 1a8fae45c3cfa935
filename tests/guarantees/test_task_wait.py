"""Waiting for a task's end: told by the script that ends it, never polled."""

from __future__ import annotations

import asyncio

import pytest

from lockbeat import Lockbeat, TaskTimeout, UnknownTask
from tests.conftest import Backend, Connect, only, wait_until
from tests.tasks import begun, claim_one


async def waits(lb: Lockbeat, task_id: str) -> asyncio.Task[str]:
    """Someone who waits for it, and is in the store's book."""
    waiting = asyncio.create_task(state_at_end(lb, task_id))
    key = lb.store.keys.key(lb.tasks.shard_of(task_id), "task:awaited")
    while not await lb.store.wire(lb.tasks.shard_of(task_id)).command("ZCARD", key):
        await asyncio.sleep(0.002)
    return waiting


async def state_at_end(lb: Lockbeat, task_id: str) -> str:
    return (await lb.tasks.wait(task_id, 20)).state


@pytest.mark.parametrize("how", ["done", "dead", "cancelled", "cancelled before"])
async def test_who_waits_is_told_however_it_ends(lb: Lockbeat, connect: Connect, how: str) -> None:
    async with connect() as other:
        spawned = await lb.tasks.spawn("job", max_attempts=1)
        waiting = await waits(other, spawned.task_id)
        if how == "cancelled before":
            assert await lb.tasks.cancel(spawned.task_id)
        else:
            task = await claim_one(lb)
            assert not waiting.done()
            if how == "done":
                assert await lb.tasks.complete(task, 7)
            elif how == "dead":
                assert (await lb.tasks.fail(task, "no")).outcome == "dead_lettered"
            else:
                assert await lb.tasks.cancel(task.id)
        assert await waiting == how.split(" ")[0]
        assert (await other.tasks.wait(spawned.task_id)).state == how.split(" ")[0], "it has ended: at once"


async def test_a_retry_is_not_the_end(lb: Lockbeat) -> None:
    task = await begun(lb, max_attempts=2, retry=None)
    waiting = await waits(lb, task.id)
    assert (await lb.tasks.fail(task, "no")).outcome == "requeued"
    assert await lb.tasks.complete(await claim_one(lb), "second")
    assert await waiting == "done"


async def test_a_task_that_is_unknown_is_not_waited_for(lb: Lockbeat) -> None:
    with pytest.raises(UnknownTask):
        await lb.tasks.wait("000-nobody")


async def test_waiting_ends_when_its_time_is_over_and_the_task_goes_on(lb: Lockbeat) -> None:
    task = await begun(lb)
    with pytest.raises(TaskTimeout) as caught:
        await lb.tasks.wait(task.id, 0.05)
    assert (caught.value.task_id, caught.value.timeout) == (task.id, 0.05)
    assert await lb.tasks.complete(task)


async def test_many_wait_for_one_and_are_all_told(lb: Lockbeat) -> None:
    task = await begun(lb)
    waiting = [await waits(lb, task.id) for _ in range(20)]
    assert await lb.tasks.complete(task)
    assert await asyncio.gather(*waiting) == ["done"] * 20
    assert not lb.tasks._awaited


@only("valkey", "redis")
async def test_a_message_that_was_lost_is_made_good(lb: Lockbeat, connect: Connect, backend: Backend) -> None:
    async with connect() as other:
        task = await begun(other)
        waiting = await waits(lb, task.id)
        [server] = backend.servers
        server.call("CLIENT", "KILL", "TYPE", "pubsub")
        assert await other.tasks.complete(task)
        await wait_until(waiting.done, "it asked again")
        assert await waiting == "done"
