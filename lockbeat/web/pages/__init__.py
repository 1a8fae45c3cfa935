"""The pages, by path. Each reads what it shows within a bound, and changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lockbeat.web.look import Look, Page
from lockbeat.web.pages.backfill import backfill
from lockbeat.web.pages.day import day
from lockbeat.web.pages.dead import dead
from lockbeat.web.pages.instances import instances
from lockbeat.web.pages.job import job
from lockbeat.web.pages.jobs import jobs
from lockbeat.web.pages.leases import leases
from lockbeat.web.pages.overview import overview
from lockbeat.web.pages.store import store
from lockbeat.web.pages.tasks import task, tasks

PAGES: dict[str, Callable[[Look], Awaitable[Page]]] = {
    "/": overview,
    "/jobs": jobs,
    "/job": job,
    "/backfill": backfill,
    "/day": day,
    "/tasks": tasks,
    "/task": task,
    "/dead": dead,
    "/leases": leases,
    "/instances": instances,
    "/store": store,
}
PATHS = frozenset({*PAGES, "/page.css", "/page.js", "/page.svg"})
NAV = (
    ("", "Overview", "o"),
    ("jobs", "Jobs", "j"),
    ("day", "Next 24 hours", "n"),
    ("tasks", "Tasks", "t"),
    ("dead", "Dead", "d"),
    ("leases", "Locks & claims", "l"),
    ("instances", "Instances", "i"),
    ("store", "Store", "s"),
)
"""Path, name, and the key that leads there after a g."""
