"""Looks at a store from outside: which instances live, and whether the server is fit for its work. Changes nothing."""

from lockbeat.monitor._doctor import examine
from lockbeat.monitor._instances import HEARTBEAT, HEARTBEAT_TTL_MS, Instance, engine, instances
from lockbeat.monitor._server import TRIALS, Finding, State, commands

__all__ = [
    "HEARTBEAT",
    "HEARTBEAT_TTL_MS",
    "TRIALS",
    "Finding",
    "Instance",
    "State",
    "commands",
    "engine",
    "examine",
    "instances",
]
