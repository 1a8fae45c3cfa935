"""What tests of the tasks share: attempts to work with, the server's clock, and what the store holds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import time_machine

from lockbeat import Lockbeat, Run
from lockbeat.tasks import Task, TaskInfo
from tests.conftest import PATIENCE, Backend

T = TypeVar("T")

NOON = 1_924_992_000.0
"""Where the stopped clock stands at first."""


@contextlib.contextmanager
def stopped() -> Iterator[Callable[[float], None]]:
    """memory's clock, stopped at NOON; it goes where it is told to."""
    beyond = 0.0002  # a float may lie a little before its millisecond
    with time_machine.travel(NOON + beyond, tick=False) as clock:
        yield lambda moment: clock.move_to(moment + beyond)


async def until(lb: Lockbeat, moment: float | None) -> None:
    """Wait until it is that late by the server's clock."""
    assert moment is not None
    while (left := moment - await lb.store.server_time()) > 0:
        await asyncio.sleep(min(left, 0.05))


async def claim_one(lb: Lockbeat, queue: str = "default", owner: str = "alice", lease: float = 30) -> Task:
    """An attempt of the one task that can be claimed."""
    [task] = await lb.tasks.claim(queue, owner, 10, lease)
    return task


async def begun(lb: Lockbeat, *, owner: str = "alice", lease: float = 30, **options: Any) -> Task:
    """An attempt of a new task."""
    spawned = await lb.tasks.spawn("job", **options)
    task = await claim_one(lb, options.get("queue", "default"), owner, lease)
    assert task.id == spawned.task_id
    return task


async def died(lb: Lockbeat, **options: Any) -> str:
    """The id of a task whose only attempt failed."""
    task = await begun(lb, max_attempts=1, **options)
    assert (await lb.tasks.fail(task, "broken")).outcome == "dead_lettered"
    return task.id


async def state(lb: Lockbeat, task_id: str) -> str:
    return str((await lb.tasks.get(task_id)).state)


async def end_of(lb: Lockbeat, task_id: str, timeout: float = PATIENCE) -> TaskInfo:
    """What became of a task, once it has ended."""
    deadline = time.monotonic() + timeout
    while (info := await lb.tasks.get(task_id)).state in ("waiting", "running"):
        assert time.monotonic() < deadline, f"it never ended within {timeout:g} s: {info}"
        await asyncio.sleep(0.01)
    return info


async def is_leased(lb: Lockbeat, raw: Any, task_id: str) -> bool:
    """Whether an attempt still keeps its lease, be the task cancelled or not."""
    return bool(raw.hexists(lb.store.keys.key(lb.tasks.shard_of(task_id), "task:lease"), task_id))


async def no_lease(lb: Lockbeat, raw: Any, task_id: str) -> None:
    """Wait until none keeps its lease."""
    deadline = time.monotonic() + PATIENCE
    while await is_leased(lb, raw, task_id):
        assert time.monotonic() < deadline, f"the lease of {task_id} never goes"
        await asyncio.sleep(0.01)


def either(kind: str, body: Callable[[Run], Any]) -> Callable[[Run], Any]:
    """The body as a function of that kind: plain, which runs in a thread, or async."""

    async def function(run: Run) -> Any:
        return body(run)

    return body if kind == "plain" else function


def until_cancelled(events: list[str]) -> Callable[[], Coroutine[Any, Any, None]]:
    """A body, `long`, that says when it began, and waits to be cancelled."""

    async def long() -> None:
        events.append("began")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    return long


async def cancelled_after(steps: int, call: Coroutine[Any, Any, T]) -> T | None:
    """Let it run for so many turns of the loop, then cancel it. What it returned, if it was over by then."""
    task = asyncio.create_task(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    [result] = await asyncio.gather(task, return_exceptions=True)
    if isinstance(result, asyncio.CancelledError):
        return None
    if isinstance(result, BaseException):
        raise result
    return result


def dump(backend: Backend) -> dict[bytes, Any]:
    """Everything that the store holds."""
    found = {}
    for client in backend.nodes():
        with contextlib.closing(client):
            read: dict[bytes, Callable[[bytes], Any]] = {
                b"string": client.get,
                b"hash": client.hgetall,
                b"zset": lambda key, client=client: client.zrange(key, 0, -1, withscores=True),  # type: ignore[misc]
                b"set": client.smembers,
                b"list": lambda key, client=client: client.lrange(key, 0, -1),  # type: ignore[misc]
            }
            for key in client.scan_iter(count=1000):
                found[key] = read[client.type(key)](key)
    return found
