"""Every error that lockbeat raises on purpose.

LockbeatError
├── InvalidArgument (ValueError)   mend the call; `.argument` names what is wrong. Nothing was sent.
│   ├── InvalidType (TypeError)    … its type is wrong
│   ├── InvalidTrigger             a cron line, interval or time zone that can't be read
│   └── InvalidURL                 a store URL that can't be read
├── StoreError                     the store could not be asked, or answered with an error
│   ├── StoreUnavailable           not reached in time: repeating the call is safe
│   └── ScriptError                a script refused its own contract: a bug, or foreign data under our keys
├── MissingExtra (ImportError)     install the named extra
├── LockTimeout (TimeoutError)     `wait` ran out before the lock was free
├── LeaseLost                      stop writing: the lease is gone or can no longer be trusted
└── JobError
    ├── DuplicateJob (ValueError)  two jobs of one name in one program
    └── UnknownJob (LookupError)   no job of that name in the store
"""

from __future__ import annotations


class LockbeatError(Exception):
    """The root: `except LockbeatError` catches everything lockbeat raises on purpose."""


class InvalidArgument(LockbeatError, ValueError):
    """An argument can't be used; nothing was sent. `argument` is its name."""

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument = argument
        self.problem = problem


class InvalidType(InvalidArgument, TypeError):
    """An argument has the wrong type; nothing was sent."""


class InvalidTrigger(InvalidArgument):
    """A cron line, an interval or a time zone can't be read."""


class InvalidURL(InvalidArgument):
    """A store URL can't be read."""


class StoreError(LockbeatError):
    """The store could not be asked, or answered with an error."""


class StoreUnavailable(StoreError):
    """The store was not reached in time. Whether the call took effect is unknown; repeating it is safe."""


class ScriptError(StoreError):
    """A script refused what it found or was given: a bug, or foreign data under lockbeat's keys."""


class MissingExtra(LockbeatError, ImportError):
    """A package that an extra installs is missing; the message is the command that installs it."""


class LockTimeout(LockbeatError, TimeoutError):
    """The lock was not free within `wait` seconds. Nothing is held."""

    def __init__(self, key: str, wait: float) -> None:
        super().__init__(f"lock {key!r} was not free within {wait:g} s")
        self.key = key
        self.wait = wait


class LeaseLost(LockbeatError):
    """The lease is gone, or could not be renewed in time to be trusted: stop writing in its name."""

    def __init__(self, key: str, owner: str, fence: int, reason: str) -> None:
        super().__init__(f"lease on {key!r} (fence {fence}) is lost: {reason}")
        self.key = key
        self.owner = owner
        self.fence = fence
        self.reason = reason


class JobError(LockbeatError):
    """Something is wrong with a job."""


class DuplicateJob(JobError, ValueError):
    """Two jobs of one name in one program."""


class UnknownJob(JobError, LookupError):
    """The store has no job of that name."""
