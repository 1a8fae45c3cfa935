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
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import hiredis
from redis.exceptions import RedisError

from lockbeat.connection.outage import Outage
from lockbeat.errors import LockbeatError, StoreUnavailable
from lockbeat.store.replies import error_of
from lockbeat.store.wire import take_over

log = logging.getLogger("lockbeat")

LONGEST_PAUSE = 2.0  # seconds between attempts to reconnect
QUIET = 40.0
"""Seconds without a word from the server before one is asked for. An idle instance may send 0.2 commands a second in all."""
SETTLED = 10.0
"""Seconds. A subscription younger than that is not suspected."""

Tell = Callable[[str, bytes], None]


class Link(Protocol):
    """One subscription that is established."""

    ended: asyncio.Future[LockbeatError]
    """Why it is over."""

    def close(self) -> None:
        """Hang up. Idempotent; nothing is told after this."""
        ...


Subscribe = Callable[[Sequence[str], Tell], Awaitable[Link]]
"""Returns once every channel is subscribed. From then on each message is told, until the link has ended."""


class _Socket(asyncio.Protocol):
    """A subscription over the socket of a redis-py connection.

    Driven by callbacks, as the wire is: reading through redis-py's stream costs more than the hand-off of a lock.
    """

    def __init__(self, connection: Any, channels: Sequence[str], tell: Tell, probe: Callable[[], None], timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._stream, self._transport = take_over(connection)
        self._reader = hiredis.Reader()
        self._tell = tell
        self._probe = probe
        self._timeout = timeout
        self._missing = len(channels)
        self._heard_at = self._loop.time()
        self._probed_at = 0.0
        self.subscribed: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[LockbeatError] = self._loop.create_future()
        self._transport.set_protocol(self)
        subscribe: tuple[Any, ...] = ("SUBSCRIBE", *channels)
        self._transport.write(hiredis.pack_command(subscribe))
        self._watch = self._loop.call_later(QUIET, self._check)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        self._reader.feed(data)
        try:
            while not self.ended.done() and (said := self._reader.gets()) is not False:
                self._heard(said)
        except hiredis.ProtocolError as problem:
            self._end(StoreUnavailable(f"the server does not speak the protocol: {problem}"))

    def _heard(self, said: Any) -> None:
        if isinstance(said, hiredis.ReplyError):
            self._end(error_of(said))
        elif isinstance(said, list) and len(said) == 3:
            kind, channel, payload = said
            if kind == b"message":
                self._tell(channel.decode(errors="replace"), payload)
            elif kind == b"subscribe":
                self._missing -= 1
                if self._missing == 0 and not self.subscribed.done():
                    self.subscribed.set_result(None)

    def _check(self) -> None:
        """Nothing was heard for a while: would we hear anything?"""
        now = self._loop.time()
        if self._probed_at > self._heard_at:
            self._end(StoreUnavailable(f"a message to ourselves did not arrive within {self._timeout:g} s"))
        elif (left := self._heard_at + QUIET - now) > 0:
            self._watch = self._loop.call_later(left, self._check)
        else:
            self._probed_at = now
            self._probe()
            self._watch = self._loop.call_later(self._timeout, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(StoreUnavailable(f"connection lost: {exc or 'closed by the server'}"))

    def eof_received(self) -> bool:
        return False

    def _end(self, why: LockbeatError) -> None:
        self._watch.cancel()
        self._transport.abort()
        if not self.ended.done():
            self.ended.set_result(why)

    def close(self) -> None:
        self._end(StoreUnavailable("hung up"))


def over_connection(connect: Callable[[], Awaitable[Any]], probe: Callable[[], None], timeout: float) -> Subscribe:
    """Subscribe over a new connection of redis-py's. `probe` sends it a message, which must arrive within `timeout` seconds."""

    async def subscribe(channels: Sequence[str], tell: Tell) -> Link:
        link = _Socket(await connect(), channels, tell, probe, timeout)
        try:
            await asyncio.wait((link.subscribed, link.ended), return_when=asyncio.FIRST_COMPLETED)
            if link.ended.done():
                raise link.ended.result()
        except BaseException:
            link.close()
            raise
        return link

    return subscribe


class _InMemory:
    """A subscription of a fakeredis client, for `memory://`."""

    def __init__(self, pubsub: Any, tell: Tell) -> None:
        self._pubsub = pubsub
        self._tell = tell
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[LockbeatError] = loop.create_future()
        self._task = loop.create_task(self._read(), name="lockbeat subscription")

    async def _read(self) -> None:
        try:
            while True:
                message = await self._pubsub.get_message(timeout=60)
                if message is not None and message["type"] == "message":
                    self._tell(message["channel"].decode(), message["data"])
        finally:
            await self._pubsub.aclose()
            self.ended.set_result(StoreUnavailable("the subscription ended"))

    def close(self) -> None:
        self._task.cancel()


def over_client(client: Any) -> Subscribe:
    """Subscribe through a fakeredis client, for `memory://`."""

    async def subscribe(channels: Sequence[str], tell: Tell) -> Link:
        pubsub = client.pubsub()
        await pubsub.subscribe(*channels)
        missing = len(channels)
        while missing:
            message = await pubsub.get_message(timeout=60)
            missing -= message is not None and message["type"] == "subscribe"
        return _InMemory(pubsub, tell)

    return subscribe


class Listener:
    """Keeps one subscription alive from the first `ready()` until `aclose()`."""

    def __init__(self, subscribe: Subscribe, channels: Sequence[str], timeout: float, outage: Outage | None = None) -> None:
        self.on_message: list[Tell] = []
        self.on_gap: list[Callable[[], None]] = []
        self._subscribe = subscribe
        self._channels = channels
        self._timeout = timeout
        self._outage = outage or Outage("its server")
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._since = 0.0
        self._subscribed = asyncio.Event()
        self._moved = asyncio.Event()
        self._problem: Exception | None = None
        self._closed = False

    async def ready(self) -> None:
        """Wait until the store would reach us. Raises StoreUnavailable when that takes longer than the timeout."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="lockbeat listener")
        if self._subscribed.is_set():
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._subscribed.wait()
        except TimeoutError:
            reason = f": {self._problem}" if self._problem else ""
            raise StoreUnavailable(f"could not subscribe within {self._timeout:g} s{reason}") from None

    def follow(self) -> None:
        """Calls go over a new connection, perhaps to another server: subscribe anew, and there."""
        self._moved.set()

    def doubt(self) -> None:
        """The store has met nobody on the other end of our channel: subscribe anew, unless we have just done so."""
        if self._link is not None and asyncio.get_running_loop().time() > self._since + SETTLED:
            self._moved.set()

    async def _run(self) -> None:
        loop, heard_before, pause = asyncio.get_running_loop(), False, 0.0
        while True:
            # Cleared before it connects: when calls move meanwhile, it may have found the server that they have left.
            self._moved.clear()
            link = await self._renew()
            if self._closed:  # redis-py connects by way of asyncio.wait_for, which can swallow a cancellation before Python 3.12
                break
            if link is not None:
                self._since = loop.time()
                if heard_before:
                    self._tell_gap()
                heard_before = True
            moved = asyncio.ensure_future(self._moved.wait())
            try:
                if link is not None:
                    await asyncio.wait((link.ended, moved), return_when=asyncio.FIRST_COMPLETED)
                if self._link is not None and self._link.ended.done():
                    self._note(self._link.ended.result())
                    self._link = None
                    self._subscribed.clear()
                # One that lived for a while was no failure: the next is tried almost at once.
                lived = link is not None and loop.time() > self._since + 2 * LONGEST_PAUSE
                pause = 0.05 if lived else min(max(pause * 2, 0.05), LONGEST_PAUSE)
                if not moved.done():
                    await asyncio.wait((moved,), timeout=pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects
            finally:
                moved.cancel()

    async def _renew(self) -> Link | None:
        """Subscribe, and hang up on the server listened to so far. None: it failed, and that one is still listened to."""
        try:
            async with asyncio.timeout(self._timeout):
                link = await self._subscribe(self._channels, self._tell)
        except (RedisError, OSError, LockbeatError) as problem:  # TimeoutError is an OSError
            self._note(problem)
            if not isinstance(problem, LockbeatError) or isinstance(problem, StoreUnavailable):
                # Whoever waits for a lock may ask nothing for long: then nobody else would tell.
                self._outage.failed(self, str(problem) or f"no answer within {self._timeout:g} s")
            return None
        except Exception as problem:  # whatever it was, those who wait for a message still do
            self._problem = problem
            log.exception("the listener failed, and subscribes anew")
            return None
        if self._link is not None:
            self._link.close()
        self._link = link
        self._subscribed.set()
        if self._outage.away:
            self._outage.over(self)
        return link

    def _note(self, problem: Exception) -> None:
        self._problem = problem
        log.debug("listener: %s", problem)

    def _tell(self, channel: str, payload: bytes) -> None:
        for callback in self.on_message:
            try:
                callback(channel, payload)
            except Exception:
                log.exception("a listener callback failed on %s", channel)

    def _tell_gap(self) -> None:
        for callback in self.on_gap:
            try:
                callback()
            except Exception:
                log.exception("a listener callback failed after a gap")

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
