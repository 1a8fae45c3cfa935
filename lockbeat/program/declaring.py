"""Declaring: the decorators by which a program says which functions are its jobs, and which its tasks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any, TypeVar, Unpack, cast, overload

from lockbeat.errors import DuplicateJob, InvalidArgument, UnknownTask
from lockbeat.jobs import CODE, Job, JobOptions
from lockbeat.tasks import NewTask, SpawnOptions, TaskOptions
from lockbeat.triggers import At, ByHand, Cron, Every, Trigger
from lockbeat.triggers.cron import Days, Fold, Gap
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name
from lockbeat.worker import Function, Run

F = TypeVar("F", bound=Callable[[Run], Any] | Callable[[], Any])


class Declared:
    """The jobs and tasks of a program, each a function of it."""

    def __init__(self, queue: str) -> None:
        self.queue = check_name("queue", queue)
        self.declared: dict[str, Job] = {}
        """The jobs of this program, by name."""
        self._functions: dict[str, Function] = {}
        self._tasks: dict[str, SpawnOptions] = {}

    def cron(
        self,
        expression: str,
        timezone: str | tzinfo = "UTC",
        *,
        gap: Gap = "after",
        fold: Fold = "first",
        days: Days = "either",
        name: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Callable[[F], F]:
        """`@beat.cron("*/5 * * * *", timezone="Europe/Berlin")`: five fields, or six with seconds first, or `@daily`.

        gap, fold: what becomes of a fixed local time that a clock change skips or repeats, see `Cron`.
        days: a day that satisfies "either" of the day fields, where both are restricted, or "both".
        name: the job's; None: the function's.
        options: overlap, catchup, window, jitter, timeout, max_attempts, retry, lease, queue, priority, keep, start, end,
            limit, buffer, cap, pause_after, description, tags, exclude, params: the fields of `lockbeat.jobs.Job`.

        Raises: InvalidTrigger for a line or zone that can't be read. InvalidArgument for another option. DuplicateJob for a name
        that this beat has.
        """
        return self._declare(Cron(expression, timezone, gap=gap, fold=fold, days=days), name, options)

    def every(
        self, period: Seconds, *, anchor: datetime | None = None, name: str | None = None, **options: Unpack[JobOptions]
    ) -> Callable[[F], F]:
        """`@beat.every(10)`: each `period` seconds (or timedelta), counted from `anchor` (default: the Unix epoch).

        Anchored, so restarts neither shift the slots nor fire. Options as for `cron`.
        """
        return self._declare(Every(period, anchor), name, options)

    def at(self, when: datetime, *, name: str | None = None, **options: Unpack[JobOptions]) -> Callable[[F], F]:
        """`@beat.at(datetime(..., tzinfo=UTC))`: once; not at all if that is past when the job is first declared."""
        return self._declare(At(when), name, options)

    @overload
    def job(self, function: F, /) -> F: ...
    @overload
    def job(
        self, trigger: Trigger | None = None, /, *, name: str | None = None, **options: Unpack[JobOptions]
    ) -> Callable[[F], F]: ...
    def job(self, trigger: Any = None, /, *, name: str | None = None, **options: Unpack[JobOptions]) -> Any:
        """`@beat.job(AnyOf(Cron("0 9 * * *"), Every(3600)))`: by a trigger that was made before. Options as for `cron`.

        `@beat.job`: it has no slots, and runs when somebody triggers it (`lb.jobs.trigger`), with `run.params`.
        """
        if trigger is None or isinstance(trigger, Trigger):
            return self._declare(trigger or ByHand(), name, options)
        return self._declare(ByHand(), name, options)(trigger)

    def _declare(self, trigger: Trigger, name: str | None, options: JobOptions) -> Callable[[F], F]:
        # Options are wrong or right before there is a function: said on the decorator's own line.
        for said in options.keys() & {"function", "origin"}:
            raise InvalidArgument(said, "is said by the decorator: it is the function below, and the code")
        given = cast("dict[str, Any]", {"queue": self.queue, "origin": CODE, **options})
        declared = Job.declare("unnamed" if name is None else name, trigger, **given)

        def decorate(function: F) -> F:
            called = Function.of(function)
            job = declared if name is not None else Job.declare(_name_of(function), trigger, **given)
            self._know(job.name, called)
            self.declared[job.name] = job
            return function

        return decorate

    @overload
    def task(self, function: F, /) -> F: ...
    @overload
    def task(
        self, *, name: str | None = None, timeout: Seconds | None = None, **options: Unpack[TaskOptions]
    ) -> Callable[[F], F]: ...
    def task(  # type: ignore[misc]  # mypy does not match an unpacked TypedDict with itself here
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        timeout: Seconds | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """`@beat.task` or `@beat.task(timeout=30)`: a function that this program's workers run when it is spawned.

        The function takes the `Run`, whose `params` are what it was spawned with, or nothing. What it returns is the result.

        name: by which it is spawned; None: the function's.
        timeout: seconds after which an attempt is cancelled and has failed; None: none.
        options: what `beat.spawn` takes unless told otherwise: queue, max_attempts, retry, headers, delay, priority, max_delay,
            max_duration, retention: the fields of `NewTask`.

        Raises: InvalidArgument for an option that can't be used. DuplicateJob for a name that this beat has.
        """
        timeout_ms = None if timeout is None else milliseconds("timeout", timeout)
        if "idempotency_key" in options:
            raise InvalidArgument("idempotency_key", "would make all tasks of the function one: give it to `beat.spawn`")
        given = cast("SpawnOptions", {"queue": self.queue, **options})
        declared = NewTask.declare("unnamed" if name is None else name, None, given)

        def decorate(function: F) -> F:
            called = Function.of(function, timeout_ms)
            known = declared.name if name is not None else _name_of(function)
            self._know(known, called)
            self._tasks[known] = given
            return function

        return decorate if function is None else decorate(function)

    def _know(self, name: str, function: Function) -> None:
        if name in self._functions:
            raise DuplicateJob(f"name: two functions are named {name!r}; give one of them another: name=...")
        self._functions[name] = function

    def share(self, other: Declared) -> None:
        """Declare together with another from now on."""
        self.declared, self._functions, self._tasks = other.declared, other._functions, other._tasks

    def names_of(self, function: Callable[..., Any]) -> list[str]:
        """By which a function is declared: of jobs, and of a task."""
        return [name for name, known in self._functions.items() if known.call == function]

    @property
    def task_names(self) -> list[str]:
        """The functions that `@beat.task` declared."""
        return [*self._tasks]

    def _new_task(self, function: Callable[..., Any] | str, params: Any, options: SpawnOptions) -> NewTask:
        """A task of this program. Raises UnknownTask for what was not declared by `@beat.task`."""
        name = function if isinstance(function, str) else self._name_of_task(function)
        if name not in self._tasks:
            raise UnknownTask(f"function: {name!r} was not declared by @beat.task; to spawn another program's: lb.tasks.spawn")
        return NewTask.declare(name, params, self._tasks[name] | options)

    def _name_of_task(self, function: Callable[..., Any]) -> str:
        for name in self._tasks:
            if self._functions[name].call == function:
                return name
        return getattr(function, "__name__", repr(function))

    def _queues(self) -> list[str]:
        queues = [self.queue, *(job.queue for job in self.declared.values()), *(of["queue"] for of in self._tasks.values())]
        return [*dict.fromkeys(queues)]

    def _leases_ms(self) -> list[int]:
        leases = [job.lease_ms for job in self.declared.values()]
        return leases + [milliseconds("lease", lease) for of in self._tasks.values() if (lease := of.get("lease"))]


def _name_of(function: Callable[..., Any]) -> str:
    name: str = getattr(function, "__name__", "<lambda>")
    if name == "<lambda>":
        raise InvalidArgument("name", "this function has none: say name=...")
    return name
