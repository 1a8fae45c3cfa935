"""Periodic work that fires exactly when it is due and only once, however many instances run it."""

from lockbeat.calendars import Calendar, CalendarEntry
from lockbeat.claims import Busy, Claim, ClaimHandle, ClaimStats, Done, Gate
from lockbeat.client import Lockbeat
from lockbeat.errors import (
    CalendarInUse,
    ClaimBusy,
    ClaimDone,
    ClaimRefused,
    Conflict,
    InvalidArgument,
    LeaseLost,
    LifespanError,
    LockbeatError,
    LockTimeout,
    NotDurable,
    StoreFormatError,
    StoreUnavailable,
    TaskTimeout,
    UnknownCalendar,
    UnknownTask,
)
from lockbeat.fences import FencedValue
from lockbeat.jobs import Applied, Change, Job, JobState, LedgerEntry, Put, Resumed, Slot, Upcoming
from lockbeat.leases.lease import Lease
from lockbeat.locks import Lock, LockBackend
from lockbeat.program import Beat, Comparison, Difference
from lockbeat.retry import Exponential, Fixed
from lockbeat.store.durable import Durability
from lockbeat.tasks import Attempt, Counts, Failed, Failure, Heartbeat, NewTask, Spawned, Task, TaskInfo
from lockbeat.triggers import AnyOf, At, Cron, Every
from lockbeat.worker import Run

__all__ = [
    "AnyOf",
    "Applied",
    "At",
    "Attempt",
    "Beat",
    "Busy",
    "Calendar",
    "CalendarEntry",
    "CalendarInUse",
    "Change",
    "Claim",
    "ClaimBusy",
    "ClaimDone",
    "ClaimHandle",
    "ClaimRefused",
    "ClaimStats",
    "Comparison",
    "Conflict",
    "Counts",
    "Cron",
    "Difference",
    "Done",
    "Durability",
    "Every",
    "Exponential",
    "Failed",
    "Failure",
    "FencedValue",
    "Fixed",
    "Gate",
    "Heartbeat",
    "InvalidArgument",
    "Job",
    "JobState",
    "Lease",
    "LeaseLost",
    "LedgerEntry",
    "LifespanError",
    "Lock",
    "LockBackend",
    "LockTimeout",
    "Lockbeat",
    "LockbeatError",
    "NewTask",
    "NotDurable",
    "Put",
    "Resumed",
    "Run",
    "Slot",
    "Spawned",
    "StoreFormatError",
    "StoreUnavailable",
    "Task",
    "TaskInfo",
    "TaskTimeout",
    "UnknownCalendar",
    "UnknownTask",
    "Upcoming",
]
