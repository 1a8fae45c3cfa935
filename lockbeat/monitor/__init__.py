"""Looks at a store from outside: what it is at, which instances live, whether the server is fit. Changes nothing."""

from lockbeat.jobs.marks import Mark
from lockbeat.monitor._counted import called_jobs, purgeable, redrivable
from lockbeat.monitor._doctor import examine, glance
from lockbeat.monitor._instances import (
    HEARTBEAT,
    HEARTBEAT_TTL_MS,
    MOST_FUNCTIONS,
    SILENT,
    Instance,
    engine,
    instances,
    nobody_runs,
)
from lockbeat.monitor._measures import Measures, measure
from lockbeat.monitor._overview import Overview, QueueLoad, TaskStats, overview, stats_of
from lockbeat.monitor._pages import Names, Overdue, Strip, each_task, named, overdue, some, soonest, strips, tasks, triggered
from lockbeat.monitor._server import TRIALS, Finding, State, commands
from lockbeat.monitor._told import Line, Name, Wrong, wrong
from lockbeat.monitor._wrong import Hanging, Lacking, Paused, changed, hanging, lacking, paused, unserved

__all__ = [
    "HEARTBEAT",
    "HEARTBEAT_TTL_MS",
    "MOST_FUNCTIONS",
    "SILENT",
    "TRIALS",
    "Finding",
    "Hanging",
    "Instance",
    "Lacking",
    "Line",
    "Mark",
    "Measures",
    "Name",
    "Names",
    "Overdue",
    "Overview",
    "Paused",
    "QueueLoad",
    "State",
    "Strip",
    "TaskStats",
    "Wrong",
    "called_jobs",
    "changed",
    "commands",
    "each_task",
    "engine",
    "examine",
    "glance",
    "hanging",
    "instances",
    "lacking",
    "measure",
    "named",
    "nobody_runs",
    "overdue",
    "overview",
    "paused",
    "purgeable",
    "redrivable",
    "some",
    "soonest",
    "stats_of",
    "strips",
    "tasks",
    "triggered",
    "unserved",
    "wrong",
]
