"""Looks at a store from outside: what it is at, which instances live, whether the server is fit. Changes nothing."""

from lockbeat.monitor._counted import called_jobs, purgeable, redrivable
from lockbeat.monitor._doctor import examine
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
from lockbeat.monitor._pages import Mark, Names, Overdue, Strip, each_task, named, overdue, soonest, strips, tasks, triggered
from lockbeat.monitor._server import TRIALS, Finding, State, commands

__all__ = [
    "HEARTBEAT",
    "HEARTBEAT_TTL_MS",
    "MOST_FUNCTIONS",
    "SILENT",
    "TRIALS",
    "Finding",
    "Instance",
    "Mark",
    "Measures",
    "Names",
    "Overdue",
    "Overview",
    "QueueLoad",
    "State",
    "Strip",
    "TaskStats",
    "called_jobs",
    "commands",
    "each_task",
    "engine",
    "examine",
    "instances",
    "measure",
    "named",
    "nobody_runs",
    "overdue",
    "overview",
    "purgeable",
    "redrivable",
    "soonest",
    "stats_of",
    "strips",
    "tasks",
    "triggered",
]
