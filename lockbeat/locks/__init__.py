"""Locks: leases on names, for whoever comes first."""

from lockbeat.locks.verbs import Lock, LockBackend, Locks

__all__ = ["Lock", "LockBackend", "Locks"]
