"""Tasks, by state, queue and function; and one task with its attempts."""

from __future__ import annotations

import asyncio

from lockbeat.monitor import tasks as read
from lockbeat.store.keys import job_of_task, slot_of_task
from lockbeat.tasks.values import STATES, State
from lockbeat.values.durations import instant
from lockbeat.web.look import Look, Page
from lockbeat.web.pages.dead import called
from lockbeat.web.pages.overview import counts

SHOWN = 50


async def tasks(look: Look) -> Page:
    store = look.lb.store
    state, queue, function = look.one_of("state", *STATES), look.text("queue"), look.text("function")
    after = look.text("after", 2500)

    wanted: State | None = state  # type: ignore[assignment]
    page, counted, now = await asyncio.gather(
        read(store, wanted, queue=queue, function=function, limit=SHOWN, after=after), counts(store), look.now()
    )
    return Page(
        "tasks.html",
        {
            "tasks": page.tasks,
            "more": page.more,
            "looked": page.looked,
            "counted": counted,
            "now": now,
            "state": state or "",
            "queue": queue or "",
            "function": function or "",
            "states": STATES,
            "filtered": bool(state or queue or function),
            "paged": after is not None,
        },
    )


async def task(look: Look) -> Page:
    task_id = look.text("id", 1100) or ""
    info, now, may = await asyncio.gather(look.lb.tasks.get(task_id), look.now(), look.may("retry", "cancel", target=task_id))
    job, slot_ms = job_of_task(task_id), slot_of_task(task_id)
    by_call = await called(look, task_id) if job and info.state != "done" else ()
    return Page(
        "task.html",
        {
            "info": info,
            "now": now,
            "may": may,
            "called": bool(by_call),
            "stopping": info.state == "cancelled" and bool(info.attempts_made) and info.attempts_made[-1].how == "running",
            "job": job,
            "slot_ms": slot_ms,
            "slot_at": None if slot_ms is None else instant(slot_ms),
            "show_params": look.show_params,
        },
    )
