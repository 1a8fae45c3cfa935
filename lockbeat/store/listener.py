"""The one connection of a process on which the store tells it things: pub/sub, never polled.

A message is a hint: it can be lost, late, doubled, or come from a server that is no longer the primary. Whoever acts on one asks
the store first. Whoever relies on one is told when some may have been lost (`on_gap`), and asks.

The listener stays on the server that the calls go to. When calls have found another (`follow`) it subscribes there, and only then
leaves the old one. When it hears nothing for long it sends itself a message, by the way of the calls: a server that hangs keeps
its connections, and one that is no longer the primary answers a PING.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from lockbeat.connection.final import is_final
from lockbeat.connection.outage import Outage, Pace
from lockbeat.errors import LockbeatError, StoreError, StoreUnavailable
from lockbeat.store.link import Link, Subscribe
from lockbeat.store.messages import Message, parse

log = logging.getLogger("lockbeat")

SETTLED = 10.0
"""Seconds. A subscription younger than that is not suspected."""


Heard = Mapping[type[Message], Callable[[Any], None]]
"""Whom to tell of a message, by its kind."""


class Subscribers:
    """Who is to be told of what arrives on each channel."""

    def __init__(self) -> None:
        self._heard: dict[str, list[Heard]] = {}
        self._gaps: list[Callable[[], None]] = []

    def add(self, channel: str, heard: Heard, on_gap: Callable[[], None]) -> Callable[[], None]:
        """Tell of these messages on a channel, and of times when some may have been lost. Returns what ends that."""
        several = self._heard.setdefault(channel, [])
        several.append(heard)
        self._gaps.append(on_gap)

        def end() -> None:
            several.remove(heard)
            self._gaps.remove(on_gap)

        return end

    def tell(self, channel: str, payload: bytes) -> None:
        message = parse(payload)
        for heard in [*self._heard.get(channel, ())]:
            try:
                if message is not None and (told := heard.get(type(message))) is not None:
                    told(message)
            except Exception:
                log.exception("%r was not seen to", message)

    def tell_gap(self) -> None:
        for told in [*self._gaps]:
            try:
                told()
            except Exception:
                log.exception("what may have been missed was not seen to")


class Listener:
    """Keeps one subscription alive from the first `ready()` until `aclose()`."""

    def __init__(
        self,
        subscribe: Subscribe,
        channels: Sequence[str],
        subscribers: Subscribers,
        timeout: float,
        outage: Outage,
    ) -> None:
        self._subscribe = subscribe
        self._subscribers = subscribers
        self._channels = channels
        self._timeout = timeout
        self._outage = outage
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._since = 0.0
        self._subscribed = asyncio.Event()
        self._told = asyncio.Event()  # that we are subscribed, or may not be
        self._moved = asyncio.Event()
        self._problem: Exception | None = None
        self._closed = False

    async def ready(self) -> None:
        """Wait until the store would reach us.

        Raises StoreUnavailable when that takes longer than the timeout, StoreError at once where we may not listen.
        """
        self._start()
        if self._subscribed.is_set():
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._told.wait()
        except TimeoutError:
            reason = f": {self._problem}" if self._problem else ""
            raise StoreUnavailable(f"could not subscribe within {self._timeout:g} s{reason}") from None
        if not self._subscribed.is_set():
            raise StoreError(f"can't subscribe: {self._problem}")

    def follow(self) -> None:
        """Calls go over a new connection, perhaps to another server: subscribe anew, and there."""
        self._moved.set()

    def doubt(self) -> None:
        """The store has met nobody on the other end of our channel: subscribe anew, unless we have just done so."""
        if self._link is not None and asyncio.get_running_loop().time() > self._since + SETTLED:
            self._moved.set()

    def begin_anew(self) -> None:
        """A thread was stopped in the midst of a turn of the loop, perhaps one of ours."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._unsubscribed()
            self._start()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="lockbeat listener")

    async def _run(self) -> None:
        loop, pace = asyncio.get_running_loop(), Pace()
        while True:
            # Cleared before it connects: when calls move meanwhile, it may have found the server that they have left.
            self._moved.clear()
            link = await self._renew()
            if self._closed:  # redis-py connects by way of asyncio.wait_for, which can swallow a cancellation before Python 3.12
                break
            moved = asyncio.ensure_future(self._moved.wait())
            try:
                if link is not None:
                    await asyncio.wait((link.ended, moved), return_when=asyncio.FIRST_COMPLETED)
                if self._link is not None and self._link.ended.done():
                    self._note(self._link.ended.result())
                    self._link = None
                    self._unsubscribed()
                pace.lost(loop.time() - self._since if link is not None else 0.0)
                if not moved.done():
                    await asyncio.wait((moved,), timeout=pace.wait())
            finally:
                moved.cancel()

    async def _renew(self) -> Link | None:
        """Subscribe, and hang up on the server listened to so far. None: it failed, and that one is still listened to."""
        try:
            async with asyncio.timeout(self._timeout):
                link = await self._subscribe(self._channels, self._subscribers.tell)
        except (RedisError, OSError, LockbeatError) as problem:  # TimeoutError is an OSError
            self._note(problem)
            refused = isinstance(problem, LockbeatError) and not isinstance(problem, StoreUnavailable)
            if not refused:
                # Whoever waits for a lock may ask nothing for long: then nobody else would tell.
                self._outage.failed(self, str(problem) or f"no answer within {self._timeout:g} s")
            if not self._subscribed.is_set():
                # It is tried again all the same: rights may be given.
                (self._told.set if refused or is_final(problem) else self._told.clear)()
            return None
        except Exception as problem:  # whatever it was, those who wait for a message still do
            self._problem = problem
            log.exception("the listener failed, and subscribes anew")
            return None
        if self._link is not None:
            self._link.close()
        if self._since:
            self._subscribers.tell_gap()
        self._link, self._since = link, asyncio.get_running_loop().time()
        self._subscribed.set()
        self._told.set()
        if self._outage.away:
            self._outage.over(self)
        return link

    def _unsubscribed(self) -> None:
        self._subscribed.clear()
        self._told.clear()

    def _note(self, problem: Exception) -> None:
        self._problem = problem
        log.debug("listener: %s", problem)

    async def aclose(self) -> None:
        """Unsubscribe; no callback runs after this."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._link is not None:
            self._link.close()
            await asyncio.wait((self._link.ended,))
            self._link = None
        self._outage.forget(self)
