"""Dead tasks, by function and error: to be tried again, or forgotten, many at once."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from lockbeat.monitor import called_jobs
from lockbeat.monitor import tasks as read
from lockbeat.store.keys import job_of_task
from lockbeat.tasks.values import TaskInfo
from lockbeat.values.visible import first_line
from lockbeat.web.hidden import without_secrets
from lockbeat.web.look import Look, Page
from lockbeat.web.pages.overview import counts

LOOKED = 400
"""Dead tasks that one page is made from."""
SHOWN = 40


@dataclass
class Group:
    """Dead tasks of one function that failed alike."""

    queue: str
    function: str
    error: str
    tasks: list[TaskInfo] = field(default_factory=list)
    called: bool = False
    """lockbeat exec ran them: only a call can run them again."""

    @property
    def last(self) -> float | None:
        return max((info.ended_at or 0 for info in self.tasks), default=None)


def error_of(info: TaskInfo) -> str:
    """What it failed by, less the numbers that differ from task to task."""
    if info.failure is None:
        return "unknown"
    line = first_line(info.failure.message)
    return re.sub(r"\d+", "N", without_secrets(f"{info.failure.type}: {line}"))[:160]


async def groups(look: Look, queue: str | None) -> tuple[list[Group], int, bool]:
    """The groups, the largest first; how many tasks were looked at; and whether that was all."""
    page = await read(look.lb.store, "dead", queue=queue, limit=LOOKED)
    found: dict[tuple[str, str, str], Group] = {}
    for info in page.tasks:
        key = info.queue, info.name, error_of(info)
        found.setdefault(key, Group(*key)).tasks.append(info)
    return sorted(found.values(), key=lambda group: -len(group.tasks)), len(page.tasks), page.more is None


async def called(look: Look, *task_ids: str) -> set[str]:
    """Those of these tasks that are slots which are called: no worker can run them."""
    jobs = await called_jobs(look.lb.jobs, map(job_of_task, task_ids))
    return {one for one in task_ids if job_of_task(one) in jobs}


async def dead(look: Look) -> Page:
    queue = look.text("queue")
    (found, looked, complete), counted, now = await asyncio.gather(groups(look, queue), counts(look.lb.store), look.now())
    by_call = await called(look, *(group.tasks[0].id for group in found[:SHOWN]))
    for group in found[:SHOWN]:
        group.called = group.tasks[0].id in by_call
    return Page(
        "dead.html",
        {
            "groups": found[:SHOWN],
            "looked": looked,
            "complete": complete and len(found) <= SHOWN,
            "queues": [row for row in counted.queues if row[3]],
            "queue": queue or "",
            "dead": counted.dead,
            "now": now,
            "all_called": all(group.called for group in found[:SHOWN]),
            "may": await look.may("redrive", "purge", target=queue or ""),
        },
    )
