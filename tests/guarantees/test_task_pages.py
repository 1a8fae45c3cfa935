"""Pages of tasks of a state, a queue and a function: by few commands all that are like that are found, and no others."""

from __future__ import annotations

from itertools import product
from typing import Any

from lockbeat import Lockbeat
from lockbeat.monitor import tasks
from lockbeat.tasks import TaskInfo
from lockbeat.tasks.values import STATES
from tests.beats import MINUTE, fired, minutely, overdue, shot

QUEUES = ("mail", 'café/"1"', "mai")
NAMES = ("send", 'naïve \\ "name"', "report")


async def some(lb: Lockbeat, raw: Any) -> None:
    """Tasks in every state, of every queue and name; and slots that have ended, which have neither."""
    for queue, name in product(QUEUES, NAMES):
        for _ in range(6):
            await lb.tasks.spawn(name, {"name": "send", "queue": "mail"}, queue=queue, max_attempts=1)
        done, dead, running, stopping = await lb.tasks.claim(queue, "worker", 4, 600)
        await lb.tasks.complete(done)
        await lb.tasks.fail(dead, "no such address")
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
