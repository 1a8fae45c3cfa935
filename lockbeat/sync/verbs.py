"""The verbs of the asynchronous client, blocking. Each is taken from there, with its signature and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    cast,
    overload,
    runtime_checkable,
)

from lockbeat import calendars, fences, jobs, tasks
from lockbeat.jobs import Job, JobOptions, Put
from lockbeat.leases.lease import Lease
from lockbeat.sync.portal import Portal
from lockbeat.triggers import Trigger
from lockbeat.values.durations import Seconds

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")


class Verbs(Generic[V]):
    """Verbs that are run in a portal's loop. reach: the portal, and whose verbs they are."""

    def __init__(self, reach: Callable[[], tuple[Portal, V]]) -> None:
        self._reach = reach


def blocking(verb: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
    """The verb, as a method of Verbs that waits for its answer."""

    @wraps(verb)
    def call(self: Verbs[Any], *args: P.args, **options: P.kwargs) -> T:
        portal, of = self._reach()
        return portal.call(partial(verb, of, *args, **options))

    return cast("Callable[Concatenate[Any, P], T]", call)


@runtime_checkable
class LockBackend(Protocol):
    """What celers calls `DistributedLockBackend`: write against this, and no code of yours imports Redis."""

    def try_acquire(self, key: str, owner: str, ttl: Seconds) -> Lease | None: ...
    def release(self, key: str, owner: str) -> bool: ...
    def renew(self, key: str, owner: str, ttl: Seconds) -> bool: ...
    def is_locked(self, key: str) -> bool: ...
    def owner(self, key: str) -> str | None: ...
    def release_all(self, owner: str) -> int: ...


class Tasks(Verbs[tasks.Tasks]):
    """`lb.tasks`; see `lockbeat.tasks.Tasks`."""

    cancel = blocking(tasks.Tasks.cancel)
    claim = blocking(tasks.Tasks.claim)
    complete = blocking(tasks.Tasks.complete)
    counts = blocking(tasks.Tasks.counts)
    dead = blocking(tasks.Tasks.dead)
    defer = blocking(tasks.Tasks.defer)
    fail = blocking(tasks.Tasks.fail)
    get = blocking(tasks.Tasks.get)
    heartbeat = blocking(tasks.Tasks.heartbeat)
    list = blocking(tasks.Tasks.list)
    purge = blocking(tasks.Tasks.purge)
    queues = blocking(tasks.Tasks.queues)
    redrive = blocking(tasks.Tasks.redrive)
    release = blocking(tasks.Tasks.release)
    release_all = blocking(tasks.Tasks.release_all)
    retry = blocking(tasks.Tasks.retry)
    spawn = blocking(tasks.Tasks.spawn)
    spawn_many = blocking(tasks.Tasks.spawn_many)
    wait = blocking(tasks.Tasks.wait)


class SeveralJobs(Verbs[jobs.SeveralJobs]):
    """What `lb.jobs.all` answers; see `lockbeat.SeveralJobs`."""

    delete = blocking(jobs.SeveralJobs.delete)
    pause = blocking(jobs.SeveralJobs.pause)
    resume = blocking(jobs.SeveralJobs.resume)
    skip_next = blocking(jobs.SeveralJobs.skip_next)
    trigger = blocking(jobs.SeveralJobs.trigger)


class Jobs(Verbs[jobs.Jobs]):
    """`lb.jobs`; see `lockbeat.jobs.Jobs`."""

    put_one = blocking(jobs.Jobs.put_one)
    apply = blocking(jobs.Jobs.apply)
    backfill = blocking(jobs.Jobs.backfill)
    backfills = blocking(jobs.Jobs.backfills)
    cancel_backfill = blocking(jobs.Jobs.cancel_backfill)
    changes = blocking(jobs.Jobs.changes)
    delete = blocking(jobs.Jobs.delete)
    get = blocking(jobs.Jobs.get)
    get_backfill = blocking(jobs.Jobs.get_backfill)
    get_many = blocking(jobs.Jobs.get_many)
    history = blocking(jobs.Jobs.history)
    ledger = blocking(jobs.Jobs.ledger)
    list = blocking(jobs.Jobs.list)
    next = blocking(jobs.Jobs.next)
    pause = blocking(jobs.Jobs.pause)
    pause_backfill = blocking(jobs.Jobs.pause_backfill)
    resume = blocking(jobs.Jobs.resume)
    resume_backfill = blocking(jobs.Jobs.resume_backfill)
    skip_next = blocking(jobs.Jobs.skip_next)
    trigger = blocking(jobs.Jobs.trigger)
    upcoming = blocking(jobs.Jobs.upcoming)
    why = blocking(jobs.Jobs.why)

    if TYPE_CHECKING:  # a ParamSpec takes the first of several overloads only

        @overload
        def put(self, *jobs: Job, since_ms: int = 0, by: str | None = None) -> dict[int, int]: ...
        @overload
        def put(self, job: Job, /, *, if_rev: str, take_over: bool = False, by: str | None = None) -> Put: ...
        @overload
        def put(
            self,
            name: str,
            trigger: Trigger | None,
            *,
            function: str | None = None,
            origin: str = ...,
            if_rev: str | None = None,
            take_over: bool = False,
            by: str | None = None,
            **options: Unpack[JobOptions],
        ) -> Put: ...
        def put(self, *jobs: Any, **options: Any) -> Any: ...

    else:
        put = blocking(jobs.Jobs.put)

    def all(self, *, tag: str | None = None, queue: str | None = None) -> SeveralJobs:
        """Several jobs at once: `lb.jobs.all(tag="billing").pause()`. Without tag and queue: every job."""
        portal, of = self._reach()
        several = of.all(tag=tag, queue=queue)
        return SeveralJobs(lambda: (portal, several))


class Calendars(Verbs[calendars.Calendars]):
    """`lb.calendars`; see `lockbeat.calendars.Calendars`."""

    delete = blocking(calendars.Calendars.delete)
    get = blocking(calendars.Calendars.get)
    list = blocking(calendars.Calendars.list)
    put = blocking(calendars.Calendars.put)
    users = blocking(calendars.Calendars.users)


class Fenced(Verbs[fences.Fenced]):
    """`lb.fenced`; see `lockbeat.fences.Fenced`."""

    check = blocking(fences.Fenced.check)
    delete = blocking(fences.Fenced.delete)
    get = blocking(fences.Fenced.get)
    set = blocking(fences.Fenced.set)
