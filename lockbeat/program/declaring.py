"""Beat: periodic jobs, declared by decorators and fired once across all instances that run them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, TypeVar, Unpack, cast, overload

import anyio
from anyio.abc import TaskStatus

from lockbeat.client import Lockbeat
from lockbeat.connection import check_provider
from lockbeat.errors import DuplicateJob, InvalidArgument, InvalidType, LockbeatError, StoreUnavailable, UnknownTask
from lockbeat.jobs import Job, JobOptions, Jobs
from lockbeat.program import signals
from lockbeat.program.lifespan import Started, check_lifespan, entered, once_there
from lockbeat.program.serving import Program, Serving
from lockbeat.store.durable import Durability
from lockbeat.tasks import NewTask, Spawned, SpawnOptions, TaskOptions
from lockbeat.triggers import At, Cron, Every, Trigger
from lockbeat.values.checks import whole
from lockbeat.values.durations import Seconds, milliseconds, seconds
from lockbeat.values.names import check_name
from lockbeat.worker import Function, Run

log = logging.getLogger("lockbeat")

MOMENT = 1.0
"""Seconds that a block which does not wait for the store gives it."""
F = TypeVar("F", bound=Callable[[Run], Any] | Callable[[], Any])


class Beat:
    """Declares jobs and serves them: `beat.run()`, `await beat.serve()`, or `async with beat.lifespan()`.

    store: a URL as Lockbeat takes it, or a Lockbeat, which the beat opens and closes if it is not open; None: $LOCKBEAT_URL, else
    embedded://.
    queue: where jobs put their tasks unless they say otherwise, and what this beat's worker serves. concurrency: how many
    functions run at once. grace: seconds that running functions get to end on shutdown, or after their timeout. stall: seconds
    for which the event loop may stand still before the instance's leases are given up; None: for ever. durability: no function
    begins before the store keeps its slot or claim so. lifespan: makes an async context manager of the beat, which is entered
    before the worker claims anything and left after the last function has ended; its value is `run.state`. wait_for_store:
    False: start though the store is away, and serve when it is there. The rest as for Lockbeat.
    """

    def __init__(
        self,
        store: str | Lockbeat | None = None,
        *,
        queue: str = "default",
        concurrency: int = 100,
        grace: Seconds = 10,
        namespace: str = "lockbeat",
        owner: str | None = None,
        shards: int | None = None,
        timeout: float = 5.0,
        durability: Durability | None = None,
        stall: Seconds | None = 60,
        lifespan: Callable[[Beat], AbstractAsyncContextManager[Any]] | None = None,
        wait_for_store: bool = True,
        credential_provider: Any = None,
    ) -> None:
        if lifespan is not None:
            check_lifespan(lifespan)
        self._around = lifespan
        self._wait_for_store = wait_for_store
        self.queue = check_name("queue", queue)
        self.concurrency = whole("concurrency", concurrency, 1, 10_000)
        self.grace = seconds("grace", grace, least=0)
        if durability is not None and not isinstance(durability, Durability):
            raise InvalidType("durability", f"must be a Durability, not {type(durability).__name__}")
        self.durability = durability
        self.stall = None if stall is None else seconds("stall", stall)
        self.declared: dict[str, Job] = {}
        """The jobs of this program, by name."""
        self._functions: dict[str, Function] = {}
        self._tasks: dict[str, SpawnOptions] = {}
        self._shared = store if isinstance(store, Lockbeat) else None
        self._options = {"namespace": namespace, "owner": owner, "shards": shards, "timeout": timeout}
        self._options["credential_provider"] = check_provider(credential_provider)
        self.url = store.url if isinstance(store, Lockbeat) else store
        self._only: list[str] | None = None
        self._client: Lockbeat | None = None
        self._serving = False
        self._abandoned: list[str] = []

    # -- declaring

    def cron(
        self, expression: str, timezone: str | tzinfo = "UTC", *, name: str | None = None, **options: Unpack[JobOptions]
    ) -> Callable[[F], F]:
        """`@beat.cron("*/5 * * * *", timezone="Europe/Berlin")`: five fields, or six with seconds first, or `@daily`.

        Options: name (default: the function's), overlap, catchup, window, jitter, timeout, max_attempts, retry, lease, queue,
        priority, keep; see `lockbeat.jobs.Job`. Raises InvalidTrigger, InvalidArgument, DuplicateJob.
        """
        return self._declare(Cron(expression, timezone), name, options)

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

    def _declare(self, trigger: Trigger, name: str | None, options: JobOptions) -> Callable[[F], F]:
        # Options are wrong or right before there is a function: said on the decorator's own line.
        given = cast("dict[str, Any]", {"queue": self.queue, **options})
        declared = Job.declare("unnamed" if name is None else name, trigger, **given)

        def decorate(function: F) -> F:
            called = Function.of(function)
            job = declared
            if name is None:
                job = replace(declared, name=_name_of(function))
            if job.name in self._functions:
                raise DuplicateJob(f"name: two functions are named {job.name!r}; give one of them another: name=...")
            self.declared[job.name] = job
            self._functions[job.name] = called
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

        It takes the `Run`, whose `params` are what it was spawned with, or nothing; what it returns is the task's result.
        timeout: seconds after which an attempt is cancelled and has failed. The other options are what `beat.spawn` takes for
        granted: queue, max_attempts, retry, headers, delay, priority, max_delay, max_duration, retention; see `NewTask`.
        Raises InvalidArgument, DuplicateJob.
        """
        timeout_ms = None if timeout is None else milliseconds("timeout", timeout)
        if "idempotency_key" in options:
            raise InvalidArgument("idempotency_key", "would make all tasks of the function one: give it to `beat.spawn`")
        given = cast("SpawnOptions", {"queue": self.queue, **options})
        declared = NewTask.declare("unnamed" if name is None else name, None, given)

        def decorate(function: F) -> F:
            called = Function.of(function, timeout_ms)
            known = declared.name if name is not None else _name_of(function)
            if known in self._functions:
                raise DuplicateJob(f"name: two functions are named {known!r}; give one of them another: name=...")
            self._functions[known] = called
            self._tasks[known] = given
            return function

        return decorate if function is None else decorate(function)

    async def spawn(
        self,
        function: Callable[..., Any] | str,
        params: Any = None,
        *,
        durability: Durability | None = None,
        **options: Unpack[SpawnOptions],
    ) -> Spawned:
        """Spawn a task of this program, by its function or name; `options` win over those of `@beat.task`.

        While the beat serves, or with a beat made with an open Lockbeat; elsewhere: `lb.tasks.spawn`. Raises UnknownTask for
        what was not declared by `@beat.task`, LockbeatError outside of serving, StoreUnavailable before the store was reached.
        """
        client = self._client or self._shared
        if client is None:
            raise self._not_serving("tasks.spawn")
        name = function if isinstance(function, str) else self._name_of_task(function)
        if name not in self._tasks:
            raise UnknownTask(f"function: {name!r} was not declared by @beat.task; to spawn another program's: lb.tasks.spawn")
        return (
            await client.tasks.spawn_many([NewTask.declare(name, params, self._tasks[name] | options)], durability=durability)
        )[0]

    def _name_of_task(self, function: Callable[..., Any]) -> str:
        for name in self._tasks:
            if self._functions[name].call == function:
                return name
        return getattr(function, "__name__", repr(function))

    @property
    def task_names(self) -> list[str]:
        """The functions that `@beat.task` declared."""
        return [*self._tasks]

    @property
    def jobs(self) -> Jobs:
        """The store's jobs, while the beat serves. Raises LockbeatError otherwise."""
        if self._client is None:
            raise self._not_serving("jobs")
        return self._client.jobs

    def _not_serving(self, verb: str) -> LockbeatError:
        if self._serving:
            return StoreUnavailable("the beat does not serve yet: it has not reached the store since it was started")
        return LockbeatError(f"the beat is not serving: use `lb.{verb}` of a Lockbeat")

    def move(self, url: str | None = None, *, namespace: str | None = None) -> None:
        """Serve another store than the one it was made with, or another part of it; what `lockbeat run --url` does.

        Raises LockbeatError for a beat that was made with a Lockbeat, and while it serves.
        """
        if self._shared is not None:
            raise LockbeatError("this beat was made with a Lockbeat, whose store it can't leave")
        if self._serving:
            raise LockbeatError("this beat is serving already")
        self.url = self.url if url is None else url
        if namespace is not None:
            self._options["namespace"] = namespace

    def narrow(self, *, queues: Iterable[str] | None = None, concurrency: int | None = None) -> None:
        """Have its worker serve these queues alone, or another number at once; what `lockbeat worker --queue --concurrency` does.

        None: as it was. Raises InvalidArgument, and LockbeatError while it serves.
        """
        if self._serving:
            raise LockbeatError("this beat is serving already")
        if isinstance(queues, str):
            raise InvalidType("queues", "must be several names, not one str")
        named = None if queues is None else [check_name("queues", queue) for queue in queues]
        if named == []:
            raise InvalidArgument("queues", "must name one at least")
        self.concurrency = self.concurrency if concurrency is None else whole("concurrency", concurrency, 1, 10_000)
        self._only = self._only if named is None else named

    # -- serving

    def run(self, *, schedule: bool = True, work: bool = True) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP; blocks. A second signal ends it at once, and leaves leases to expire.

        Ends within grace and four times the store's timeout after a signal, and what the lifespan takes. Raises StoreUnavailable
        when the store can't be reached at the start; later that only makes it wait. SystemExit(1) when functions would not end:
        the log names them. LockbeatError inside of an event loop, for it makes one of its own, and in another thread than the
        main one, for no other gets signals.
        """
        signals.check_alone()
        timeout = seconds("timeout", self._options["timeout"])
        patience = self.grace + 4 * timeout + (0.0 if self._around is None else self.grace + timeout)
        serve = partial(self.serve, schedule=schedule, work=work)
        signals.run(serve, patience=patience, abandoned=lambda: self._abandoned)

    async def serve(
        self,
        *,
        schedule: bool = True,
        work: bool = True,
        wait_for_store: bool | None = None,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the scheduler, the worker, or both, until cancelled; then shut down within grace and the store's timeout.

        Stops claiming, lets running functions end, cancels what is left after `grace`, and gives all leases back.
        wait_for_store: None: as the beat has it. Raises StoreError when the store can't be reached at the start, unless it is
        False; LifespanError.
        """
        if self._serving:
            raise LockbeatError("this beat is serving already")
        self._serving = True
        try:
            client = self._shared or Lockbeat(self.url, **self._options)  # type: ignore[arg-type]
            if self._wait_for_store if wait_for_store is None else wait_for_store:
                await self._serve(client, schedule, work, task_status)
            else:
                await once_there(partial(self._serve, client, schedule, work), task_status)
        finally:
            self._serving = False

    async def _serve(self, client: Lockbeat, schedule: bool, work: bool, task_status: TaskStatus[None]) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(setattr, self, "_client", None)
            shared = client.is_open
            if not shared:
                await stack.enter_async_context(client)
            self._client = client
            state = None
            if self._around is not None and work:
                state = await stack.enter_async_context(entered(self._around, self, self.grace + client.store.timeout))
            serving = Serving(client, self._program(state), schedule=schedule, work=work, shared=shared)
            stack.callback(lambda: setattr(self, "_abandoned", serving.abandoned))
            await serving.run(task_status)

    def _program(self, state: object) -> Program:
        functions = {name: replace(function, state=state) for name, function in self._functions.items()}
        task_queues = [options["queue"] for options in self._tasks.values()]
        queues = dict.fromkeys(self._only or [self.queue, *(job.queue for job in self.declared.values()), *task_queues])
        leases = [job.lease_ms for job in self.declared.values()]
        leases += [milliseconds("lease", lease) for options in self._tasks.values() if (lease := options.get("lease"))]
        return Program(
            self.declared,
            functions,
            self.task_names,
            [*queues],
            self.concurrency,
            self.grace,
            self.durability,
            self.stall,
            leases,
        )

    @asynccontextmanager
    async def lifespan(
        self, app: Any = None, *, schedule: bool = True, work: bool = True, wait_for_store: bool | None = None
    ) -> AsyncIterator[None]:
        """Serve while the block runs; fits `FastAPI(lifespan=beat.lifespan)` and Starlette.

        wait_for_store: False: the block begins though the store is away, after a second at most, and the beat serves when it is
        there; None: as the beat has it. Raises what `serve` raises.
        """
        wait = self._wait_for_store if wait_for_store is None else wait_for_store
        started = Started()
        serving = asyncio.ensure_future(self.serve(schedule=schedule, work=work, wait_for_store=wait, task_status=started))
        serving.add_done_callback(lambda _: started.event.set())
        try:
            with anyio.move_on_after(None if wait else MOMENT):
                await started.event.wait()
            if serving.done():
                await serving  # it could not start, and says why
            serving.add_done_callback(_tell_why_it_ended)
            yield
        finally:
            serving.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([serving])
        if not serving.cancelled() and (problem := serving.exception()) is not None:
            raise problem


def _name_of(function: Callable[..., Any]) -> str:
    name: str = getattr(function, "__name__", "<lambda>")
    if name == "<lambda>":
        raise InvalidArgument("name", "this function has none: say name=...")
    return name


def _tell_why_it_ended(serving: asyncio.Future[None]) -> None:
    """The program around it goes on, and learns of it when it ends, which may be in weeks."""
    if not serving.cancelled() and (problem := serving.exception()) is not None:
        log.error("the beat serves no more: %s", problem, exc_info=problem)
