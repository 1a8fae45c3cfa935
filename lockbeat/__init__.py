"""Periodic work that fires exactly when it is due and only once, however many instances run it."""

from lockbeat.app import Beat
from lockbeat.claims import Busy, Claim, Done, Gate
from lockbeat.client import Lockbeat
from lockbeat.durability import Durability
from lockbeat.errors import (
    ClaimBusy,
    ClaimDone,
    ClaimRefused,
    InvalidArgument,
    LeaseLost,
    LifespanError,
    LockbeatError,
    LockTimeout,
    NotDurable,
    StoreUnavailable,
    TaskTimeout,
    UnknownTask,
)
from lockbeat.jobs import Job
from lockbeat.lease import Lease
from lockbeat.locks import LockBackend
from lockbeat.retry import Exponential, Fixed
from lockbeat.tasks import NewTask, Spawned, Task, TaskInfo
from lockbeat.triggers import At, Cron, Every
from lockbeat.worker import Run

__all__ = [
    "At",
    "Beat",
    "Busy",
    "Claim",
    "ClaimBusy",
    "ClaimDone",
    "ClaimRefused",
    "Cron",
    "Done",
    "Durability",
    "Every",
    "Exponential",
    "Fixed",
    "Gate",
    "InvalidArgument",
    "Job",
    "Lease",
    "LeaseLost",
    "LifespanError",
    "LockBackend",
    "LockTimeout",
    "Lockbeat",
    "LockbeatError",
    "NewTask",
    "NotDurable",
    "Run",
    "Spawned",
    "StoreUnavailable",
    "Task",
    "TaskInfo",
    "TaskTimeout",
    "UnknownTask",
]
