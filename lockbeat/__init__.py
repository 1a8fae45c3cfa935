"""Periodic work that fires exactly when it is due and only once, however many instances run it."""

from lockbeat.client import Lockbeat
from lockbeat.errors import LeaseLost, LockbeatError, LockTimeout
from lockbeat.lease import Lease
from lockbeat.locks import LockBackend

__all__ = ["LeaseLost", "Lease", "LockBackend", "LockTimeout", "Lockbeat", "LockbeatError"]
