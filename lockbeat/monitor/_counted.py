"""What a change of many tasks would do, counted before somebody does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any, get_args

from lockbeat.jobs import Jobs
from lockbeat.store import Store
from lockbeat.store.keys import job_of_task
from lockbeat.tasks.look import asked
from lockbeat.tasks.values import EndState
from lockbeat.triggers import Called

PAGE = 500


async def purgeable(store: Store, queue: str, state: EndState | None = None) -> int:
    """How many tasks `purge` would forget. Dead ones are counted at once, others by going through all that have ended."""
    if state == "dead":
        asking = store.on_every_shard(lambda shard: store.call("task/counts", shard, queue=queue, after="", limit=1))
        return sum([dead for reply in await asking for _, _, _, dead in reply.queues])
    # One that was cancelled while it ran has not ended before its function has stopped.
    states = [*get_args(EndState)] if state is None else [state]
    return sum([len(ids) async for ids in _pages(store, "ended", queue, states=states)])


async def redrivable(store: Store, jobs: Jobs, queue: str) -> tuple[int, int]:
    """How many dead tasks `redrive` would have tried again; and how many stay dead, as only a call can run them."""
    of = Counter[str]()
    async for ids in _pages(store, "dead", queue):
        of.update(job_of_task(task_id) or "" for task_id in ids)
    called = sum([of[name] for name in await called_jobs(jobs, of)])
    return of.total() - called, called


async def called_jobs(jobs: Jobs, names: Iterable[str]) -> set[str]:
    """Those of these jobs that are run by those who call for their slots; an empty name is none."""
    states = await jobs.get_many(dict.fromkeys(filter(None, names)))
    return {name for name, state in states.items() if isinstance(state.job.trigger, Called)}


async def _pages(store: Store, place: str, queue: str, **more: Any) -> AsyncIterator[list[str]]:
    asks = asked(place, None, queue) | more
    for shard in range(store.shards):
        async for page in store.pages("task/list", shard, place=place, queue=queue, limit=PAGE, **asks):
            yield [task_id.decode(errors="replace") for task_id in page.ids]
