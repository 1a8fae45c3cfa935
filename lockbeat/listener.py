"""The one connection of a process on which the store tells it things: pub/sub, never polled.

A message can be lost while the connection is down, so whoever relies on one is told of the gap as well (`on_gap`) and asks.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from redis.exceptions import RedisError

from lockbeat.errors import LockbeatError, StoreUnavailable

log = logging.getLogger("lockbeat")

Subscription = Callable[[Sequence[str]], AsyncIterator[tuple[str, bytes] | None]]
"""Yields None once everything is subscribed, then (channel, payload) for each message, until the connection ends."""

LONGEST_PAUSE = 2.0  # seconds between attempts to reconnect


def over_connection(connect: Callable[[], Awaitable[Any]]) -> Subscription:
    """Subscribe over a connection of redis-py's."""

    async def subscribe(channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes] | None]:
        connection = await connect()
        try:
            await connection.send_command("SUBSCRIBE", *channels)
            left = len(channels)
            while True:
                kind, channel, payload = await connection.read_response()
                if kind == b"message":
                    yield channel.decode(), payload
                elif kind == b"subscribe":
                    left -= 1
                    if left == 0:
                        yield None
        finally:
            await connection.disconnect(nowait=True)

    return subscribe


def over_client(client: Any) -> Subscription:
    """Subscribe through a fakeredis client, for `memory://`."""

    async def subscribe(channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes] | None]:
        pubsub = client.pubsub()
        try:
            await pubsub.subscribe(*channels)
            left = len(channels)
            while True:
                message = await pubsub.get_message(timeout=60)
                if message is None:
                    continue
                if message["type"] == "message":
                    yield message["channel"].decode(), message["data"]
                elif message["type"] == "subscribe":
                    left -= 1
                    if left == 0:
                        yield None
        finally:
            await pubsub.aclose()

    return subscribe


class Listener:
    """Keeps one subscription alive from the first `ready()` until `aclose()`."""

    def __init__(self, subscribe: Subscription, channels: Sequence[str], timeout: float) -> None:
        self.on_message: list[Callable[[str, bytes], None]] = []
        self.on_gap: list[Callable[[], None]] = []
        self._subscribe = subscribe
        self._channels = channels
        self._timeout = timeout
        self._task: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()
        self._problem: Exception | None = None

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

    async def _run(self) -> None:
        pause, heard_before = 0.05, False
        while True:
            try:
                async with aclosing(self._subscribe(self._channels)) as messages:  # type: ignore[type-var]
                    async for message in messages:
                        if message is not None:
                            self._tell(*message)
                            continue
                        pause = 0.05
                        self._subscribed.set()
                        if heard_before:
                            self._tell_gap()
                        heard_before = True
            except (RedisError, OSError, LockbeatError) as problem:
                self._problem = problem
                log.debug("listener: %s", problem)
            except Exception as problem:  # whatever it was, those who wait for a message still do
                self._problem = problem
                log.exception("the listener failed, and subscribes anew")
            self._subscribed.clear()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects
            pause = min(pause * 2, LONGEST_PAUSE)

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
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
