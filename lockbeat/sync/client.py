"""The facade: one object for a store and everything in it, for code that blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from lockbeat import client, settings
from lockbeat.errors import LockbeatError, StoreUnavailable
from lockbeat.events import Hooks
from lockbeat.process import forks
from lockbeat.store.durable import Durability
from lockbeat.sync.blocks import Lock, OnLoss
from lockbeat.sync.holders import Claims, Locks
from lockbeat.sync.portal import Portal
from lockbeat.sync.turning import CLOSED
from lockbeat.sync.verbs import Calendars, Fenced, Jobs, Tasks
from lockbeat.values.durations import Seconds


@dataclass(frozen=True, slots=True)
class Opened:
    """What one process has open."""

    portal: Portal
    lb: client.Lockbeat
    generation: int

    def part(self, name: str) -> tuple[Portal, Any]:
        if not self.lb.is_open:
            raise StoreUnavailable("the beat that opens this client has not reached the store since it was started")
        return self.portal, getattr(self.lb, name)


_kept: list[Opened] = []
"""The parent's, in a forked child: never used, and never destroyed, for what they are made of is shared with the parent."""


class Lockbeat:
    """A blocking client of one store, for any number of threads: `with Lockbeat(url) as lb:`.

    Without a block, its first call opens it, and `close` closes it. A forked child opens it anew, under a name of its own unless
    `owner` says one.

    What its calls do, the asynchronous client does in an event loop that has a thread of its own. So they can be made where an
    event loop runs, as in Jupyter; they block it. The arguments, and what is raised, are those of `lockbeat.Lockbeat`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        owner: str | None = None,
        shards: int | None = None,
        timeout: float | None = None,
        credential_provider: Any = None,
        stall: Seconds | None = None,
        events: Hooks | None = None,
        log_url: str | None = None,
    ) -> None:
        self.events = Hooks.of(events)
        """Its hooks: `@lb.events.lease_lost` above a function."""
        self._make = partial(
            client.Lockbeat,
            url,
            namespace=namespace,
            owner=owner,
            shards=shards,
            timeout=timeout,
            credential_provider=credential_provider,
            stall=stall,
            events=self.events,
            log_url=log_url,
        )
        self._namespace = self._make().namespace  # or says what is wrong with the arguments, here and now
        self._url, self._timeout = url, float(settings.all_found(timeout=timeout)["timeout"].value)
        self._watched = stall is not None  # in one thread, of which it is said where that stands
        self._opened: Opened | None = None
        self._entered: int | None = None  # in which process
        self._closed = False
        self.guard = forks.OwnLock()
        """Held while it is opened or closed."""
        self.locks = Locks(self._part("locks"))
        self.claims = Claims(self._part("claims"))
        self.fenced = Fenced(self._part("fenced"))
        self.calendars = Calendars(self._part("calendars"))
        self.tasks = Tasks(self._part("tasks"))
        self.jobs = Jobs(self._part("jobs"))

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, as a process has it that is not forked: closed, and under a name of its own unless `owner` says one."""
        return partial(type(self), *self._make.args, **self._make.keywords), ()

    def _part(self, name: str) -> Callable[[], tuple[Portal, Any]]:
        return partial(_part, self, name)

    @property
    def url(self) -> str | None:
        """As it was given."""
        return self._url

    @property
    def namespace(self) -> str:
        """The part of the store that it works in."""
        return self._namespace

    @property
    def is_begun(self) -> bool:
        """Whether this process has a thread for it."""
        return self._opened is not None and self._opened.generation == forks.generation

    @property
    def is_open(self) -> bool:
        """Whether this process has it open."""
        opened = self._opened
        return opened is not None and opened.generation == forks.generation and opened.lb.is_open

    @property
    def owner(self) -> str:
        return self.reach().lb.owner

    def reach(self) -> Opened:
        """What this process has open; opened now, if it is not. Raises LockbeatError once it was closed."""
        opened = self._opened
        if opened is None or opened.generation != forks.generation:
            with self.guard():
                if self._closed:
                    raise LockbeatError("not connected: it was closed; use `with Lockbeat(...) as lb:`, or `lb.open()`")
                opened = self._opened
                if opened is None or opened.generation != forks.generation:
                    opened = self._open()
        return opened

    def _open(self) -> Opened:
        new = Opened(Portal(), self._make(), forks.generation)
        try:
            new.portal.call(new.lb.__aenter__)
        except BaseException:
            self._close(new)
            raise
        return self._keep(new)

    def _keep(self, new: Opened) -> Opened:
        if self._opened is not None:
            _kept.append(self._opened)
        new.portal.settle, new.portal.events = partial(_heard, new.lb), new.lb.events
        new.portal.doubt, new.portal.lends = partial(_doubt, new.lb), not self._watched
        self._opened = new
        return new

    def begin(self) -> Opened:
        """A portal, and a client that somebody else is to enter. `end` undoes it."""
        with self.guard():
            return self._keep(Opened(Portal(), self._make(), forks.generation))

    def end(self, only: Opened | None = None) -> None:
        """Close what this process has open; `only`: if it is that."""
        with self.guard():
            opened = self._opened
            if opened is None or only not in (None, opened):
                return
            self._opened = None
            if opened.generation != forks.generation:
                _kept.append(opened)
                return
            self._close(opened)

    def _close(self, opened: Opened) -> None:
        # The keeper's thread, the listener, the calls that take something back and the connections, one after the other.
        opened.portal.close(partial(_leave, opened.lb), 4 * self._timeout)

    def open(self) -> Self:
        """Open it, if it is not. Raises StoreUnavailable when the store can't be reached in time."""
        self._closed = False
        self.reach()
        return self

    def close(self) -> None:
        """Close it; bounded by four times its timeout. Calls on their way raise StoreError; blocks are told of their loss."""
        self._closed, self._entered = True, None
        self.end()

    def __enter__(self) -> Self:
        if self._entered == forks.generation:
            raise LockbeatError("already connected: make one Lockbeat for each `with`")
        self.open()
        self._entered = forks.generation
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def lock(
        self,
        key: str,
        ttl: Seconds = 30,
        wait: Seconds | None = None,
        *,
        durability: Durability | None = None,
        on_loss: OnLoss | None = None,
    ) -> Lock:
        """`with lb.lock("report", ttl=30) as lease:` see `Lock`."""
        return self.locks.lock(key, ttl, wait, durability=durability, on_loss=on_loss)


async def _heard(lb: client.Lockbeat) -> None:
    """Wait until every server has answered what was sent so far."""
    if lb.is_open:
        await lb.store.on_every_shard(lb.store.server_ms)


def _doubt(lb: client.Lockbeat) -> None:
    if lb.is_open:
        lb.store.doubt()


async def _leave(lb: client.Lockbeat) -> None:
    if lb.is_open:
        lb.keeper.give_up(CLOSED)
        await lb.__aexit__(None, None, None)


def _part(of: Lockbeat, name: str) -> tuple[Portal, Any]:
    return of.reach().part(name)
