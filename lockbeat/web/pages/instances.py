"""Instances: who lives, in which version, and what each runs."""

from __future__ import annotations

import asyncio
from collections import Counter

from lockbeat.monitor import SILENT, tasks
from lockbeat.monitor import instances as living
from lockbeat.web.look import Look, Page

SHOWN = 100
RUNNING = 500
FUNCTIONS = 60
"""Of one instance that are named, as links if jobs are called so."""


async def instances(look: Look) -> Page:
    store = look.lb.store
    found, running, now = await asyncio.gather(living(store), tasks(store, "running", limit=RUNNING), look.now())
    only = look.text("owner")
    shown = [one for one in found if only in (None, one.owner)]
    known = [name for one in shown[:SHOWN] for name in one.tasks[:FUNCTIONS]] if only else []
    return Page(
        "instances.html",
        {
            "instances": shown[:SHOWN],
            "more": len(shown) - SHOWN,
            "silent": SILENT,
            "load": Counter(info.owner for info in running.tasks),
            "complete": running.more is None,
            "running": [info for info in running.tasks if info.owner == only] if only else [],
            "owner": only or "",
            "jobs": await look.lb.jobs.get_many(known) if known else {},
            "rules": len({one.tzdata for one in found if one.tzdata}) > 1,
            "versions": len({one.version for one in found if one.version}) > 1,
            "now": now,
        },
    )
