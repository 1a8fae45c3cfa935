"""Periodic work that fires exactly when it is due and only once, however many instances run it."""

from lockbeat.app import Beat
from lockbeat.client import Lockbeat
from lockbeat.errors import LeaseLost, LockbeatError, LockTimeout, StoreUnavailable
from lockbeat.jobs import Job
from lockbeat.lease import Lease
from lockbeat.locks import LockBackend
from lockbeat.retry import Exponential, Fixed
from lockbeat.triggers import At, Cron, Every
from lockbeat.worker import Run

__all__ = [
    "At",
    "Beat",
    "Cron",
    "Every",
    "Exponential",
    "Fixed",
    "Job",
    "Lease",
    "LeaseLost",
    "LockBackend",
    "LockTimeout",
    "Lockbeat",
    "LockbeatError",
    "Run",
    "StoreUnavailable",
]
