"""One subscription: messages from one server, over a socket or in memory, until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import hiredis

from lockbeat.errors import LockbeatError, StoreUnavailable
from lockbeat.store.line import take_over
from lockbeat.store.replies import error_of

QUIET = 40.0
"""Seconds without a word from the server before one is asked for. An idle instance may send 0.2 commands a second in all."""

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


async def over_connection(
    connect: Callable[[], Awaitable[Any]], probe: Callable[[], None], timeout: float, channels: Sequence[str], tell: Tell
) -> Link:
    """Subscribe over a new connection of redis-py's. `probe` sends it a message, which must arrive within `timeout` seconds."""
    link = _Socket(await connect(), channels, tell, probe, timeout)
    try:
        await asyncio.wait((link.subscribed, link.ended), return_when=asyncio.FIRST_COMPLETED)
        if link.ended.done():
            raise link.ended.result()
    except BaseException:
        link.close()
        raise
    return link


class _InMemory:
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


async def over_client(client: Any, channels: Sequence[str], tell: Tell) -> Link:
    """Subscribe through a fakeredis client, for `memory://`."""
    pubsub = client.pubsub()
    await pubsub.subscribe(*channels)
    missing = len(channels)
    while missing:
        message = await pubsub.get_message(timeout=60)
        missing -= message is not None and message["type"] == "subscribe"
    return _InMemory(pubsub, tell)
