"""Pages of tasks of a state, a queue and a function: by few commands all that are like that are found, and no others."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.jobs import Job
from lockbeat.jobs.calling import EXEC, begin
from lockbeat.monitor import purgeable, redrivable, tasks
from lockbeat.tasks import TaskInfo
from lockbeat.tasks.values import STATES
from lockbeat.triggers import Called
from tests.beats import MINUTE, fired, minutely, overdue, shot
from tests.tasks import died

QUEUES = ("mai", 'café/"1"', "mail")
NAMES = ("send", 'naïve \\ "name"', "report")


async def some(lb: Lockbeat, raw: Any) -> None:
    """Tasks in every state, of every queue and name; and slots that have ended, which have neither."""
    for queue, name in product(QUEUES, NAMES):
        for _ in range(6):
            await lb.tasks.spawn(name, {"name": "send", "queue": "mail"}, queue=queue, max_attempts=1)
        done, dead, running, stopping = await lb.tasks.claim(queue, "worker", 4, 600)
        await lb.tasks.complete(done)
        await lb.tasks.fail(dead, '{"queue":"mai","name":"report"}')
        await lb.tasks.cancel(stopping.id)
        [waiting, *_] = [info for info in await lb.tasks.list(queue, state="waiting") if info.name == running.name]
        await lb.tasks.cancel(waiting.id)
        await lb.tasks.spawn(name, queue=queue, delay=600)
    task = await fired(lb, raw, keep_for=3600)
    await lb.tasks.complete(task)
    job = minutely("late", keep_for=3600)
    slot = await overdue(lb, raw, job, 1)
    for at in (slot, slot + MINUTE):
        following = f"{at + MINUTE} {at + MINUTE} {job.rev}"
        await lb.store.call_row(shot(lb, job, at, next=following), lb.jobs.shard_of(job.name))


async def all_of(lb: Lockbeat, limit: int, **asked: Any) -> list[TaskInfo]:
    """All pages, one after the other."""
    found, after = list[TaskInfo](), None
    while True:
        page = await tasks(lb.store, limit=limit, after=after, **asked)
        found += page.tasks
        if (after := page.more) is None:
            return found


async def test_pages_have_all_that_are_asked_for_and_no_others(lb: Lockbeat, raw: Any) -> None:
    await some(lb, raw)
    everything = {info.id: info for info in await all_of(lb, 50)}
    assert {info.state for info in everything.values()} == {*STATES}
    assert any(not info.queue for info in everything.values()), "of a slot that has ended no queue is kept"
    assert len(everything) >= 7 * len(QUEUES) * len(NAMES)
    for state, queue, name in product((None, *STATES), (None, *QUEUES, "none"), (None, *NAMES, "late", "none")):
        asked = {"state": state, "queue": queue, "function": name}
        wanted = {
            info.id
            for info in everything.values()
            if state in (None, info.state) and queue in (None, info.queue) and name in (None, info.name)
        }
        found = [info.id for info in await all_of(lb, 7, **asked)]
        assert {*found} == wanted, asked
    states: tuple[Any, ...] = (None, *STATES)
    for state, queue in product(states, (None, *QUEUES)):
        listed = {info.id for info in await lb.tasks.list(queue, state=state, limit=1000)}
        assert listed == {info.id for info in await all_of(lb, 50, state=state, queue=queue)}


@pytest.mark.parametrize("state", [None, "done", "dead", "cancelled"])
async def test_a_purge_forgets_as_many_as_were_counted(lb: Lockbeat, raw: Any, state: Any) -> None:
    await some(lb, raw)
    for queue in QUEUES:
        counted = await purgeable(lb.store, queue, state)
        assert counted > 0
        assert await lb.tasks.purge(queue, state=state) == counted
    assert await purgeable(lb.store, "none", state) == 0


async def test_a_redrive_has_as_many_tried_again_as_were_counted_and_what_lockbeat_exec_ran_is_told_apart(lb: Lockbeat) -> None:
    for name in ("dump", "copy"):
        job = Job.declare(name, Called(None, 1), queue="exec", origin=EXEC)
        await lb.jobs.put(job)
        called = await begin(lb.store, lb.jobs, lb.tasks, job, None, lease_ms=60_000)
        assert called.task is not None
        await lb.tasks.fail(called.task, "exit code 1: disk full")
    assert await redrivable(lb.store, lb.jobs, "exec") == (0, 2)
    for _ in range(3):
        await died(lb, queue="exec")
    assert await redrivable(lb.store, lb.jobs, "exec") == (3, 2)
    assert await lb.tasks.redrive("exec") == 3
    assert await redrivable(lb.store, lb.jobs, "exec") == (0, 2)
