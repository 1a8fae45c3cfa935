"""Periodic work that fires exactly when it is due and only once, however many instances run it."""

from lockbeat.app import Beat
from lockbeat.client import Lockbeat
from lockbeat.errors import LeaseLost, LockbeatError, LockTimeout
from lockbeat.lease import Lease
from lockbeat.locks import LockBackend
from lockbeat.retry import Exponential, Fixed
from lockbeat.worker import Run

__all__ = [
    "Beat",
    "Exponential",
    "Fixed",
    "Lease",
    "LeaseLost",
    "LockBackend",
    "LockTimeout",
    "Lockbeat",
    "LockbeatError",
    "Run",
]
