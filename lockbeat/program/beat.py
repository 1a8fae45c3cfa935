"""Beat: periodic jobs, declared by decorators and fired once across all instances that run them."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import anyio
from anyio.abc import TaskStatus

from lockbeat import settings
from lockbeat.client import Lockbeat
from lockbeat.connection import check_provider
from lockbeat.counting import Counting
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError, StoreUnavailable
from lockbeat.events import Hooks
from lockbeat.health import Health
from lockbeat.health.state import LIMIT
from lockbeat.jobs import Jobs, Version, check_version, version_of
from lockbeat.jobs.outbox import DRAIN
from lockbeat.jobs.why import iso
from lockbeat.program import signals
from lockbeat.program.comparing import Comparison, compare
from lockbeat.program.declaring import Declared
from lockbeat.program.lifespan import MOMENT, Lifespan, Started, alongside, check_lifespan, entered, once_there
from lockbeat.program.serving import Program, Serving
from lockbeat.settings import UNSET, Unset
from lockbeat.store.durable import Durability, check_durability
from lockbeat.tasks import Spawned, SpawnOptions
from lockbeat.values.checks import whole
from lockbeat.values.durations import Seconds, seconds
from lockbeat.values.links import check_link
from lockbeat.values.names import check_name

if TYPE_CHECKING:
    from lockbeat.alarms import Monitor, Webhook

WEBHOOK_TIMEOUT = 30.0
"""Seconds that one try of a webhook may take."""


class Beat(Declared):
    """Declares jobs and serves them: `beat.run()`, `await beat.serve()`, or `async with beat.lifespan()`.

    store: a URL as Lockbeat takes it, or a Lockbeat, which the beat opens and closes if it is not open; None: $LOCKBEAT_URL,
        else embedded://.
    queue: where jobs put their tasks unless they say otherwise; this beat's worker serves it.
    concurrency: how many functions run at once in this instance.
    grace: seconds that running functions get to end on shutdown, or after their timeout.
    stall: seconds for which the event loop may stand still before the instance's leases are given up; None: for ever.
    durability: no function begins before the store keeps its slot or claim so.
    lifespan: makes an async context manager of the beat. It is entered before the worker claims anything, and left after the
        last function has ended; its value is `run.state`.
    wait_for_store: False: start though the store is away, and serve when it is there.
    version: of the code, to be compared: an int, or numbers with dots such as "2030.1.31"; None: the one that is declared later
        is the newer. While instances of a newer one live, older ones change none of its jobs.
    monitors: services that are told of each slot, and webhooks: `lockbeat.alarms`, see docs/monitors.md.
    namespace, owner, shards, timeout, credential_provider, log_url: as for Lockbeat.

    What is not given of these is as configured by $LOCKBEAT_QUEUE, $LOCKBEAT_CONCURRENCY and so on, or by [tool.lockbeat] in
    pyproject.toml, see docs/configuration.md; else "default", 100, 10 s, 60 s and True.
    """

    def __init__(
        self,
        store: str | Lockbeat | None = None,
        *,
        queue: str | None = None,
        concurrency: int | None = None,
        grace: Seconds | None = None,
        namespace: str | None = None,
        owner: str | None = None,
        shards: int | None = None,
        timeout: float | None = None,
        durability: Durability | None = None,
        stall: Seconds | Unset | None = UNSET,
        lifespan: Callable[[Beat], AbstractAsyncContextManager[Any]] | None = None,
        wait_for_store: bool | None = None,
        credential_provider: Any = None,
        version: str | int | None = None,
        log_url: str | None = None,
        monitors: Sequence[Monitor | Webhook] | None = None,
    ) -> None:
        said = settings.all_found(
            queue=queue,
            concurrency=concurrency,
            grace=grace,
            stall=stall,
            wait_for_store=wait_for_store,
            namespace=namespace,
            owner=owner,
            shards=shards,
            timeout=timeout,
            log_url=log_url,
        )
        self.settings = said
        """Its options, and where each came from."""
        super().__init__(said["queue"].value)
        self._number = check_version(version)
        self._monitors: tuple[Monitor | Webhook, ...] = ()
        if monitors is not None:
            from lockbeat.alarms import check_monitors

            self._monitors = check_monitors(monitors)
        self.declare_webhooks()
        if lifespan is not None:
            check_lifespan(lifespan)
        self._around = lifespan
        self.given: Any = None
        """`run.state`, where the beat has no lifespan of its own: what the application's has yielded."""
        self._wait_for_store = said["wait_for_store"].value
        self.concurrency = whole(said["concurrency"].name, said["concurrency"].value, 1, 10_000)
        self.grace = seconds(said["grace"].name, said["grace"].value, least=0)
        self.durability = check_durability(durability)
        self.stall = None if said["stall"].value is None else seconds(said["stall"].name, said["stall"].value)
        self.health = Health(LIMIT if self.stall is None else self.stall)
        """How this instance stands: what probes are answered."""
        self.counting: Counting | None = None
        """Where what happens here is counted; `lockbeat.metrics` sets it. None: nowhere."""
        self._shared = store if isinstance(store, Lockbeat) else None
        self._events = Hooks() if self._shared is None else self._shared.events
        self._options = {name: said[name].value for name in ("namespace", "owner", "shards", "timeout")}
        self._options["credential_provider"] = check_provider(credential_provider)
        self._options["log_url"] = check_link(said["log_url"].name, said["log_url"].value)
        self.url = store.url if isinstance(store, Lockbeat) else store
        self._only: list[str] | None = None
        self._client: Lockbeat | None = None
        self._new_serving: Callable[..., Serving] = Serving
        self._serving = False
        self._abandoned: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        if self._serving:
            raise TypeError("a Beat that serves can't be copied, nor sent to another process: send it before it does")
        return self.__dict__

    async def spawn(
        self,
        function: Callable[..., Any] | str,
        params: Any = None,
        *,
        durability: Durability | None = None,
        **options: Unpack[SpawnOptions],
    ) -> Spawned:
        """Spawn a task of this program, by its function or name; `options` win over those of `@beat.task`.

        It works while the beat serves, and with a beat that was made with an open Lockbeat; elsewhere use `lb.tasks.spawn`.

        Raises: UnknownTask for what `@beat.task` has not declared. LockbeatError while the beat does not serve.
        StoreUnavailable before the store was reached.
        """
        client = self._client or self._shared
        if client is None or not client.is_open:
            raise self._not_serving("tasks.spawn")
        [spawned] = await client.tasks.spawn_many([self._new_task(function, params, options)], durability=durability)
        return spawned

    @property
    def events(self) -> Hooks:
        """Its hooks: `@beat.events.slot_missed` above a function, see docs/events.md."""
        return self._events

    @property
    def client(self) -> Lockbeat | None:
        """The open client that it serves over; None: it does not serve, or has not reached the store."""
        return self._client

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

    @property
    def version(self) -> Version | None:
        """The version of its code: a digest of the jobs that it declares so far, and its number; None: it declares none."""
        return version_of(self.declared.values(), self._number)

    @property
    def namespace(self) -> str:
        """The part of the store that it serves."""
        return self._shared.namespace if self._shared is not None else str(self._options["namespace"])

    async def compare(self, *, timeout: float | None = None, clock: Callable[[float], str] = iso) -> Comparison:
        """What it would do to the store's jobs if it was served; changes nothing there.

        timeout: seconds to wait for the store; None: as the beat has it. clock: spells an instant (seconds since the Unix epoch)
            in remarks; by default ISO 8601, UTC.

        Raises: InvalidURL, StoreError.
        """
        provider = self._options["credential_provider"]
        options = {"timeout": timeout or self._options["timeout"], "credential_provider": provider}
        return await compare(self.url, self.declared, self.version, clock=clock, namespace=self.namespace, **options)

    def move(self, url: str | None = None, *, namespace: str | None = None) -> None:
        """Serve another store than the one it was made with, or another part of it; what `lockbeat run --url` does.

        Raises: LockbeatError for a beat that was made with a Lockbeat, and while it serves.
        """
        if self._shared is not None:
            raise LockbeatError("this beat was made with a Lockbeat, whose store it can't leave")
        if self._serving:
            raise LockbeatError("this beat is serving already")
        self.url = self.url if url is None else url
        if namespace is not None:
            self._options["namespace"] = namespace

    def tell(self, events: Hooks) -> None:
        """Have these hooks, of the client that it shares."""
        self._events = events

    def declare_webhooks(self) -> None:
        """Declare the tasks of its webhooks."""
        if self._monitors:
            from lockbeat.alarms import Webhook

            for one in self._monitors:
                if isinstance(one, Webhook):
                    self.task(name=one.task, timeout=WEBHOOK_TIMEOUT)(one.deliver)

    @property
    def made_with(self) -> Lockbeat | None:
        """The client that it serves over; None: it opens one of its own."""
        return self._shared

    def use(self, client: Lockbeat | None, *, serving: Callable[..., Serving] = Serving) -> None:
        """Serve over this client next time; for whoever sees to it that it is served once at a time, in each process.

        None: as it was made. serving: what one run of it is made by.
        """
        self._shared, self._client, self._serving, self._new_serving = client, None, False, serving

    def narrow(self, *, queues: Iterable[str] | None = None, concurrency: int | None = None) -> None:
        """Have its worker serve these queues alone, or another number at once; what `lockbeat worker --queue --concurrency` does.

        None: as it was.

        Raises: InvalidArgument for what can't be a queue or a number of places. LockbeatError while it serves.
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

    def run(self, *, schedule: bool = True, work: bool = True) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP; blocks. A second signal ends it at once, and leaves leases to expire.

        It ends within `grace` and four times the store's timeout after a signal, and what the lifespan takes.

        Raises: StoreUnavailable when the store can't be reached at the start; later it waits instead. SystemExit(1) when
        functions would not end; the log names them. LockbeatError inside of an event loop, for it makes one of its own, and in
        another thread than the main one, for no other gets signals.
        """
        signals.check_alone("`await beat.serve()` or `async with beat.lifespan():`", "`asyncio.run(beat.serve())`")
        serve = partial(self.serve, schedule=schedule, work=work)
        gc.freeze()  # what is declared stays: to look at 100,000 jobs takes Python's collector 80 ms, in which nothing begins
        signals.run(serve, patience=self.patience, abandoned=lambda: self._abandoned)

    @property
    def patience(self) -> float:
        """Seconds that a shutdown takes at most."""
        timeout = seconds("timeout", self._options["timeout"])
        hooks = 3 * DRAIN + timeout if self._monitors or any(hook.heard for hook in self._events.all) else 0.0
        return self.grace + 4 * timeout + hooks + (0.0 if self._around is None else self.grace + timeout)

    @property
    def abandoned(self) -> list[str]:
        """The tasks whose functions still ran after the last shutdown."""
        return self._abandoned

    async def serve(
        self,
        *,
        schedule: bool = True,
        work: bool = True,
        wait_for_store: bool | None = None,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the scheduler, the worker, or both, until cancelled; then shut down within grace and the store's timeout.

        Shutting down, it stops claiming, lets running functions end, cancels what is left after `grace`, and gives all leases
        back.
        wait_for_store: None: as the beat has it.

        Raises: StoreError when the store can't be reached at the start, unless `wait_for_store` is False. LifespanError when the
        lifespan fails.
        """
        if self._serving:
            raise LockbeatError("this beat is serving already")
        self._serving = True
        self.health.starting()
        try:
            client = self._shared or Lockbeat(self.url, **self._options, events=self._events)
            if self.counting is not None:
                self.counting.know({name: job.function for name, job in self.declared.items()}, self.task_names)
                if not client.is_open:
                    client.counting = self.counting
            if self._wait_for_store if wait_for_store is None else wait_for_store:
                await self._serve(client, schedule, work, task_status)
            else:
                await once_there(partial(self._serve, client, schedule, work), task_status)
        finally:
            self._serving = False
            self.health.ended()

    async def _serve(self, client: Lockbeat, schedule: bool, work: bool, task_status: TaskStatus[None]) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(setattr, self, "_client", None)
            shared = client.is_open
            if not shared:
                await stack.enter_async_context(client)
            self._client = client
            state = self.given
            if self._around is not None and work:
                state = await stack.enter_async_context(entered(self._around, self, self.grace + client.store.timeout))
            options = {"schedule": schedule, "work": work, "shared": shared}
            serving = self._new_serving(client, self._program(state), self.health, **options)
            stack.callback(lambda: setattr(self, "_abandoned", serving.abandoned))
            await serving.run(task_status)

    def _program(self, state: object) -> Program:
        return Program(
            self.declared,
            {name: function if state is None else replace(function, state=state) for name, function in self._functions.items()},
            self.task_names,
            self._only or self._queues(),
            self.concurrency,
            self.grace,
            self.durability,
            self.stall,
            self._leases_ms(),
            self.version,
            self._monitors,
            self.queue,
        )

    def lifespan(
        self,
        app: Any = None,
        *,
        inner: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
        schedule: bool = True,
        work: bool = True,
        wait_for_store: bool | None = None,
    ) -> Lifespan:
        """Serve while the block runs: `FastAPI(lifespan=beat.lifespan)`, or `async with beat.lifespan():`.

        inner: the application's own lifespan: `FastAPI(lifespan=beat.lifespan(inner=opening))`. It is entered before the beat
            serves, and left after the last function has ended. What it yields is the block's value, and `run.state` unless the
            beat has a lifespan of its own.
        wait_for_store: False: the block begins though the store is away, after a second at most, and the beat serves when it is
            there; None: as the beat has it.

        Raises: what `serve` raises, and what `inner` raises.
        """
        if inner is not None:
            check_lifespan(inner, "inner", "application")
        wait = self._wait_for_store if wait_for_store is None else wait_for_store

        @asynccontextmanager
        async def around(app: Any) -> AsyncIterator[Any]:
            try:
                async with nullcontext() if inner is None else inner(app) as self.given:
                    started = Started()
                    serve = self.serve(schedule=schedule, work=work, wait_for_store=wait, task_status=started)
                    async with alongside(serve, started, None if wait else MOMENT):
                        yield self.given
            finally:
                self.given = None

        return Lifespan(around, app)
