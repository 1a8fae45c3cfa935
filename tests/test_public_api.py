"""The names that users may import: adding one is a decision, losing one is a break."""

from __future__ import annotations

import inspect

import pytest

import lockbeat
from lockbeat import errors


def test_the_package_exports_these_names_and_no_others() -> None:
    assert sorted(lockbeat.__all__) == [
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
