"""The names that users may import: adding one is a decision, losing one is a break."""

from __future__ import annotations

import inspect
import re

import pytest

import lockbeat
from lockbeat import calendars, claims, errors, fences, jobs, tasks

INTERNAL = {"Claimed", "Row", "Lifespan"}  # between the tasks and the worker; what a framework enters or calls


def test_the_package_exports_these_names_and_no_others() -> None:
    assert sorted(lockbeat.__all__) == [
        "AnyOf",
        "Applied",
        "At",
        "Attempt",
        "Backfill",
        "Backfilled",
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
        "Explanation",
        "Exponential",
        "Failed",
        "Failure",
        "FencedValue",
        "Fixed",
        "Gate",
        "Heartbeat",
        "History",
        "InvalidArgument",
        "Job",
        "JobState",
        "Lateness",
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
        "SeveralJobs",
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


def test_what_the_verbs_answer_can_be_imported() -> None:
    """And so can be named in annotations."""
    for kind in (
        lockbeat.locks.Locks,
        claims.Claims,
        tasks.Tasks,
        jobs.Jobs,
        calendars.Calendars,
        fences.Fenced,
        lockbeat.Lockbeat,
        lockbeat.Beat,
    ):
        for name, verb in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                answer = str(inspect.signature(verb).return_annotation)
                ours = set(re.findall(r"\b[A-Z]\w+", answer)) - {"None", "Any", "Self", "Coroutine"} - INTERNAL
                assert ours <= {*lockbeat.__all__, "Callable", "F", "AsyncIterator"}, f"{kind.__name__}.{name} -> {answer}"


def test_every_exported_name_has_a_docstring() -> None:
    for name in lockbeat.__all__:
        assert inspect.getdoc(getattr(lockbeat, name)), name


@pytest.mark.parametrize("error", [value for value in vars(errors).values() if inspect.isclass(value)])
def test_every_error_has_one_root_and_says_what_to_do(error: type[Exception]) -> None:
    assert issubclass(error, lockbeat.LockbeatError)
    assert inspect.getdoc(error)


def test_bad_arguments_are_also_what_python_calls_them() -> None:
    assert issubclass(errors.InvalidArgument, ValueError)
    assert issubclass(errors.InvalidType, TypeError)
    assert issubclass(errors.LockTimeout, TimeoutError)
    assert issubclass(errors.UnknownJob, LookupError)


def test_locks_satisfy_the_backend_protocol() -> None:
    backend: lockbeat.LockBackend
    locks = lockbeat.locks.Locks.__new__(lockbeat.locks.Locks)
    backend = locks
    assert isinstance(backend, lockbeat.LockBackend)
