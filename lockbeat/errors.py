"""Every error that lockbeat raises on purpose.

LockbeatError
├── InvalidArgument (ValueError)   mend the call; `.argument` names what is wrong. Nothing was sent.
│   ├── InvalidType (TypeError)    … its type is wrong
│   ├── InvalidTrigger             a cron line, interval or time zone that can't be read
│   └── InvalidURL                 a store URL that can't be read
├── StoreError                     the store could not be asked, or answered with an error
│   ├── StoreFormatError           the store is in another format: `.found` and `.speaks` are the numbers
│   ├── StoreUnavailable           not reached in time: repeating the call is safe
│   ├── NotDurable                 the durability asked for was not met in time: nothing was done
│   └── ScriptError                a script refused its own contract: a bug
│       └── Unreadable             an entry of the store can't be read: `.key` and `.field` name it
├── MissingExtra (ImportError)     install the named extra
├── LockTimeout (TimeoutError)     `wait` ran out before the lock was free
├── LeaseLost                      stop writing: the lease is gone or can no longer be trusted
├── ClaimError
│   ├── ClaimBusy                  another is at it; ask again after `.expires_at`
│   ├── ClaimDone                  it is remembered as done: `.result` is what came of it
│   └── ClaimRefused               the claim is not yours to change any more; `.refusal` says why
├── TaskError
│   ├── UnknownTask (LookupError)  no task of that id in the store
│   └── TaskTimeout (TimeoutError) `timeout` ran out before the task ended
├── JobError
│   ├── DuplicateJob (ValueError)  two jobs of one name in one program
│   ├── UnknownJob (LookupError)   no job of that name in the store
│   └── Conflict                   jobs are not as the call expects them, or another origin's: `.jobs`
└── CalendarError
    ├── UnknownCalendar (LookupError)  no calendar of that name in the store
    └── CalendarInUse              jobs exclude by it: `.jobs`
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class LockbeatError(Exception):
    """The root: `except LockbeatError` catches everything lockbeat raises on purpose.

    Every one of them survives copy, deepcopy and pickle with its fields, whatever its constructor takes: one that did not
    would break a whole ProcessPoolExecutor. A field that can't be pickled arrives as its repr.
    """

    def __copy__(self) -> LockbeatError:
        return _remade(type(self), self.args, dict(self.__dict__))

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), self.args, {name: _portable(value) for name, value in self.__dict__.items()})


def _remade(kind: type[LockbeatError], args: tuple[Any, ...], fields: dict[str, Any]) -> LockbeatError:
    """Without its own `__init__`, whose arguments nobody has kept; with Python's, which ImportError and OSError need."""
    error = kind.__new__(kind)
    python: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    python.__init__(error, *args)
    error.__dict__.update(fields)
    return error


def _portable(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 - our own: many an exception can be written, and not be read
    except Exception:  # noqa: BLE001 - whatever its own code raises
        return repr(value)
    return value


class InvalidArgument(LockbeatError, ValueError):
    """An argument can't be used; nothing was sent. `argument` is its name."""

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument, self.problem = argument, problem


class InvalidType(InvalidArgument, TypeError):
    """An argument has the wrong type; nothing was sent."""


class InvalidTrigger(InvalidArgument):
    """A cron line, an interval or a time zone can't be read."""


class InvalidURL(InvalidArgument):
    """A store URL can't be read."""


class StoreError(LockbeatError):
    """The store could not be asked, or answered with an error."""


class StoreFormatError(StoreError):
    """The store is in a format that this version of lockbeat does not speak; nothing was done.

    Two versions that read it differently must not share a store: each would grant what the other holds.
    """

    def __init__(self, where: str, found: int, speaks: int) -> None:
        super().__init__(where, found, speaks)
        self.where = where
        """Location and namespace."""
        self.found = found
        """The store's format."""
        self.speaks = speaks
        """The format of this version."""

    def __str__(self) -> str:
        older = "an older" if self.found < self.speaks else "a newer"
        return (
            f"{self.where} is in format {self.found}, of {older} version of lockbeat, and this one speaks format {self.speaks}: "
            f"use that version, or another namespace, or empty the store once no program uses it"
        )


class StoreUnavailable(StoreError):
    """The store was not reached in time. Whether the call took effect is unknown; repeating it is safe."""


class NotDurable(StoreError):
    """The durability asked for was not met in time, or can't be met by this store. What was done has been taken back."""

    def __init__(self, problem: str, reply: Any = None) -> None:
        super().__init__(problem)
        self.reply = reply
        """What the call had answered; None where it was not made. For whoever takes it back."""


class ScriptError(StoreError):
    """A script refused what it found or was given: a bug, unless it is Unreadable."""


class Unreadable(ScriptError):
    """What the store has under `key` (and `field`, in a hash) can't be read. It is never taken for absent: it may be a lease.

    Nothing was done for this call, unless the key is of another type and was met on the way. Repair the entry, or delete it once
    you know that nobody needs it.
    """

    def __init__(self, key: str, field: str = "") -> None:
        super().__init__(key, field)
        self.key, self.field = key, field

    def __str__(self) -> str:
        what = f"field {self.field!r} of {self.key}" if self.field else self.key
        return f"the store's entry can't be read: {what}; repair it, or delete it once nobody needs it"


class MissingExtra(LockbeatError, ImportError):
    """A package that an extra installs is missing; the message is the command that installs it."""


class LockTimeout(LockbeatError, TimeoutError):
    """The lock was not free within `wait` seconds. Nothing is held."""

    def __init__(self, key: str, wait: float) -> None:
        super().__init__(f"lock {key!r} was not free within {wait:g} s")
        self.key, self.wait = key, wait


class LeaseLost(LockbeatError):
    """The lease is gone, or could not be renewed in time to be trusted: stop writing in its name."""

    def __init__(self, key: str, owner: str, fence: int, reason: str) -> None:
        super().__init__(f"lease on {key!r} (fence {fence}) is lost: {reason}")
        self.key, self.owner, self.fence, self.reason = key, owner, fence, reason


class ClaimError(LockbeatError):
    """A unit of work can't be claimed, or is claimed no longer."""


class ClaimBusy(ClaimError):
    """Somebody is at it, be it the same owner. Nothing was claimed."""

    def __init__(self, key: str, queue: str, owner: str, expires_at: float) -> None:
        super().__init__(f"{key!r} in queue {queue!r} is claimed by {owner!r}")
        self.key, self.queue, self.owner, self.expires_at = key, queue, owner, expires_at


class ClaimDone(ClaimError):
    """It is remembered as done, until `until`: no need to do it again. Nothing was claimed."""

    def __init__(self, key: str, queue: str, owner: str, result: Any, completed_at: float, until: float) -> None:
        super().__init__(f"{key!r} in queue {queue!r} has been completed by {owner!r}")
        self.key, self.queue, self.owner = key, queue, owner
        self.result, self.completed_at, self.until = result, completed_at, until


class ClaimRefused(ClaimError):
    """The claim is not this holder's to change any more, so nothing was changed; stop writing in its name."""

    def __init__(self, key: str, queue: str, owner: str, fence: int, refusal: str) -> None:
        super().__init__(f"claim on {key!r} in queue {queue!r} (fence {fence}) is refused: {refusal}")
        self.key, self.queue, self.owner, self.fence, self.refusal = key, queue, owner, fence, refusal


class LifespanError(LockbeatError):
    """The function that was given as `Beat(lifespan=...)` failed; mend what it says. Its own error is the cause."""

    def __init__(self, what: str, problem: BaseException) -> None:
        lines = str(problem).strip().splitlines()
        super().__init__(f"the beat's lifespan {what}: {': '.join([type(problem).__name__, *lines[:1]])}")
        self.what, self.problem = what, problem


class TaskError(LockbeatError):
    """Something is wrong with a task."""


class UnknownTask(TaskError, LookupError):
    """The store has no task of that id: it never had, or its retention is over."""


class TaskTimeout(TaskError, TimeoutError):
    """The task had not ended within `timeout` seconds; it goes on."""

    def __init__(self, task_id: str, timeout: float) -> None:
        super().__init__(f"task {task_id!r} did not end within {timeout:g} s")
        self.task_id, self.timeout = task_id, timeout


class JobError(LockbeatError):
    """Something is wrong with a job."""


class DuplicateJob(JobError, ValueError):
    """Two jobs of one name in one program."""


class UnknownJob(JobError, LookupError):
    """The store has no job of that name."""


class Conflict(JobError):
    """Jobs are not as the call expects them, or belong to another origin: look at them, and decide anew."""

    def __init__(self, problem: str, jobs: list[str]) -> None:
        super().__init__(problem)
        self.jobs = jobs
        """Names of those that were left as they are; the first hundred."""


class CalendarError(LockbeatError):
    """Something is wrong with a calendar."""


class UnknownCalendar(CalendarError, LookupError):
    """The store has no calendar of that name."""


class CalendarInUse(CalendarError):
    """Jobs exclude by the calendar, so it was not deleted: change them, or delete it with `force=True`."""

    def __init__(self, name: str, jobs: list[str]) -> None:
        several = ", ".join(jobs[:3]) + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else "")
        super().__init__(f"calendar {name!r} is in use: {several} {'exclude' if len(jobs) > 1 else 'excludes'} by it")
        self.name = name
        self.jobs = jobs
