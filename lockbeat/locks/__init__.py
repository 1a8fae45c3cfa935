"""Locks: leases on names, for whoever comes first."""

from lockbeat.locks.handle import Lock
from lockbeat.locks.verbs import LockBackend, Locks

__all__ = ["Lock", "LockBackend", "Locks"]
