"""Beat, for programs that block: in the main thread, in a thread behind a web application, or as long as a block runs."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from lockbeat import program
from lockbeat.errors import LockbeatError
from lockbeat.events import Hooks
from lockbeat.health import Health
from lockbeat.jobs import Version
from lockbeat.jobs.why import iso
from lockbeat.program import signals
from lockbeat.program.comparing import Comparison
from lockbeat.program.declaring import Declared
from lockbeat.program.lifespan import MOMENT
from lockbeat.settings import UNSET, Found, Unset
from lockbeat.store.durable import Durability
from lockbeat.sync.client import Lockbeat
from lockbeat.sync.portal import Portal
from lockbeat.sync.serving import Serving, around, check_lifespan, stop_at_exit
from lockbeat.sync.verbs import Jobs, blocking
from lockbeat.values.durations import Seconds

log = logging.getLogger("lockbeat")

if TYPE_CHECKING:
    from lockbeat.alarms import Monitor, Webhook


def _around(make: Callable[[Beat], AbstractContextManager[Any]], beat: Beat, _: program.Beat) -> AbstractAsyncContextManager[Any]:
    return around(make, beat)


class Beat(Declared):
    """Declares jobs and serves them: `beat.run()`, `beat.start()` and `beat.stop()`, or `with beat.lifespan():`.

    store: a URL, or a `lockbeat.sync.Lockbeat`, which the beat opens and closes if it is not open; None: $LOCKBEAT_URL, else
        embedded://.
    lifespan: makes a context manager of the beat, where `lockbeat.Beat` takes an asynchronous one. One thread enters and leaves
        it.

    The rest is that of `lockbeat.Beat`. Functions run in threads of their own. An `async def` runs in the event loop of the beat;
    there a call of this module would wait for itself, and raises LockbeatError.
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
        lifespan: Callable[[Beat], AbstractContextManager[Any]] | None = None,
        wait_for_store: bool | None = None,
        credential_provider: Any = None,
        version: str | int | None = None,
        log_url: str | None = None,
        monitors: Sequence[Monitor | Webhook] | None = None,
    ) -> None:
        if lifespan is not None:
            check_lifespan(lifespan)
        shared = store if isinstance(store, Lockbeat) else None
        self._options = {"owner": owner, "shards": shards, "timeout": timeout, "credential_provider": credential_provider}
        self._options["log_url"] = log_url
        self._beat = program.Beat(
            store.url if isinstance(store, Lockbeat) else store,
            queue=queue,
            concurrency=concurrency,
            grace=grace,
            namespace=namespace if shared is None else shared.namespace,
            durability=durability,
            stall=stall,
            lifespan=None if lifespan is None else partial(_around, lifespan, self),
            wait_for_store=wait_for_store,
            version=version,
            monitors=monitors,
            **self._options,
        )
        super().__init__(self._beat.queue)
        self._beat.share(self)
        self._beat.declare_webhooks()
        if shared is not None:
            self._beat.tell(shared.events)
        self._shared = shared is not None
        self._lb = self._own() if shared is None else shared
        self._serving: Serving | None = None

    def _own(self) -> Lockbeat:
        return Lockbeat(self._beat.url, namespace=self._beat.namespace, **self._options, events=self._beat.events)

    @property
    def events(self) -> Hooks:
        """Its hooks: `@beat.events.slot_missed` above a function, see docs/events.md."""
        return self._beat.events

    @property
    def url(self) -> str | None:
        """Of its store, as it was given."""
        return self._beat.url

    @property
    def namespace(self) -> str:
        """The part of the store that it serves."""
        return self._beat.namespace

    @property
    def settings(self) -> dict[str, Found]:
        """Its options, and where each came from."""
        return self._beat.settings

    @property
    def version(self) -> Version | None:
        """The version of its code: a digest of the jobs that it declares so far, and its number; None: it declares none."""
        return self._beat.version

    @property
    def health(self) -> Health:
        """How this instance stands: what probes are answered."""
        return self._beat.health

    @property
    def within(self) -> program.Beat:
        """The asynchronous beat that it is made of, for what awaits."""
        return self._beat

    @property
    def concurrency(self) -> int:
        return self._beat.concurrency

    @property
    def grace(self) -> float:
        return self._beat.grace

    @property
    def durability(self) -> Durability | None:
        return self._beat.durability

    @property
    def stall(self) -> float | None:
        return self._beat.stall

    @property
    def patience(self) -> float:
        """Seconds that a shutdown takes at most."""
        return self._beat.patience

    @property
    def abandoned(self) -> list[str]:
        """The tasks whose functions still ran after the last shutdown."""
        return self._beat.abandoned

    spawn = blocking(program.Beat.spawn)

    @property
    def jobs(self) -> Jobs:
        """The store's jobs, while the beat serves. Raises LockbeatError otherwise."""
        serving = self._here()
        if serving is None:
            raise self._not_serving("jobs")
        portal, jobs = serving.portal, self._beat.jobs
        return Jobs(lambda: (portal, jobs))

    def _not_serving(self, verb: str) -> LockbeatError:
        if self._serving is not None:  # in the parent: its thread was not forked
            return LockbeatError(
                "the beat serves in the process of which this one was forked, and not here: call `beat.start()` here as well, "
                "under gunicorn --preload in `post_worker_init`"
            )
        return LockbeatError(f"the beat is not serving: use `lb.{verb}` of a Lockbeat")

    def _here(self) -> Serving | None:
        """How it is served in this process, if it is."""
        return self._serving if self._serving is not None and self._serving.is_here else None

    def _reach(self) -> tuple[Portal, program.Beat]:
        serving = self._here()
        if serving is not None:
            return serving.portal, self._beat
        if not self._shared:
            raise self._not_serving("tasks.spawn")
        opened = self._lb.reach()
        self._beat.use(opened.lb)
        return opened.portal, self._beat

    def move(self, url: str | None = None, *, namespace: str | None = None) -> None:
        """Serve another store than the one it was made with, or another part of it; what `lockbeat run --url` does.

        Raises: LockbeatError for a beat that was made with a Lockbeat, and while it serves.
        """
        if self._shared:
            raise LockbeatError("this beat was made with a Lockbeat, whose store it can't leave")
        if self._here():
            raise LockbeatError("this beat is serving already")
        self._beat.move(url, namespace=namespace)
        self._lb = self._own()

    def compare(self, *, timeout: float | None = None, clock: Callable[[float], str] = iso) -> Comparison:
        """What it would do to the store's jobs if it was served; changes nothing there. See `lockbeat.Beat.compare`."""
        portal = Portal()
        try:
            return portal.call(partial(self._beat.compare, timeout=timeout, clock=clock))
        finally:
            portal.close(_nothing, 0)

    def narrow(self, *, queues: Iterable[str] | None = None, concurrency: int | None = None) -> None:
        """Have its worker serve these queues alone, or another number at once; what `lockbeat worker --queue --concurrency` does.

        None: as it was.

        Raises: InvalidArgument for what can't be a queue or a number of places. LockbeatError while it serves.
        """
        self._beat.narrow(queues=queues, concurrency=concurrency)

    def run(self, *, schedule: bool = True, work: bool = True) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP; blocks. See `lockbeat.Beat.run`."""
        signals.check_alone("`beat.start()`", "`beat.start()`, or `beat.serve()`, which blocks")
        serving = self._begin()
        gc.freeze()  # see lockbeat.Beat.run
        try:
            serve = partial(serving.portal.attend, partial(self._beat.serve, schedule=schedule, work=work))
            signals.run(serve, patience=self.patience, abandoned=lambda: self.abandoned)
        finally:
            self._end(serving)

    def serve(self, *, schedule: bool = True, work: bool = True, wait_for_store: bool | None = None) -> None:
        """Serve until `stop` is called in another thread; blocks. Raises what `lockbeat.Beat.serve` raises."""
        serving = self._start(schedule, work, wait_for_store)
        try:
            serving.ended.wait()
        finally:
            self.stop()

    def start(self, *, schedule: bool = True, work: bool = True, wait_for_store: bool | None = None) -> None:
        """Serve in a thread until `stop`, or until Python exits. When this returns, it serves.

        Call it in each process that is to serve, for threads are not forked: under gunicorn --preload, in `post_worker_init`
        (not in `post_fork`, where gunicorn does not hear SIGTERM yet).

        wait_for_store: False: it returns though the store is away, after a second at most; None: as the beat has it.

        Raises: what `lockbeat.Beat.serve` raises. LockbeatError while it serves.
        """
        self._start(schedule, work, wait_for_store)

    def _start(self, schedule: bool, work: bool, wait_for_store: bool | None) -> Serving:
        wait = self.settings["wait_for_store"].value if wait_for_store is None else wait_for_store
        serving = self._begin()
        serve = partial(self._beat.serve, schedule=schedule, work=work, wait_for_store=wait, task_status=serving)
        try:
            serving.start(serve, None if wait else MOMENT)
        except BaseException:
            self.stop()
            raise
        stop_at_exit(self)
        return serving

    def stop(self) -> None:
        """Shut down what `start` has begun, as a signal does `run`; within `patience` seconds. Nothing is served: does nothing.

        Raises: what ended it before, such as StoreFormatError.
        """
        serving = self._here()
        if serving is None:
            return
        try:
            serving.stop(self.patience)
        finally:
            self._end(serving)

    @contextmanager
    def lifespan(
        self,
        app: Any = None,
        *,
        inner: Callable[[Any], AbstractContextManager[Any]] | None = None,
        schedule: bool = True,
        work: bool = True,
        wait_for_store: bool | None = None,
    ) -> Iterator[Any]:
        """Serve while the block runs: `start`, then `stop`.

        inner: makes a plain context manager of `app`, entered before and left after; what it yields is the block's value, and
            `run.state` unless the beat has a lifespan of its own.
        """
        if inner is not None:
            check_lifespan(inner, "inner", "application")
        try:
            with nullcontext() if inner is None else inner(app) as self._beat.given:
                self.start(schedule=schedule, work=work, wait_for_store=wait_for_store)
                try:
                    yield self._beat.given
                finally:
                    self.stop()
        finally:
            self._beat.given = None

    def _begin(self) -> Serving:
        with self._lb.guard():
            if self._here() is not None:
                raise LockbeatError("this beat is serving already")
            ours = not self._lb.is_begun
            opened = self._lb.begin() if ours else self._lb.reach()
            self._beat.use(opened.lb)
            self._serving = serving = Serving(opened, ours)
            return serving

    def _end(self, serving: Serving) -> None:
        with self._lb.guard():
            if self._serving is serving:
                self._serving = None
            self._beat.use(None)
            if serving.ours:
                self._lb.end(serving.opened)


async def _nothing() -> None:
    pass
