"""Connections and pools that do what redis-py's own leave out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import anyio.to_thread
import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.cluster
import redis.retry
import redis.sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from lockbeat.embedded import EmbeddedServer


class EmbeddedConnection(redis.asyncio.UnixDomainSocketConnection):
    """Brings a dead embedded server back before giving up: its users are the only ones who can."""

    def __init__(self, *, server: EmbeddedServer, **settings: Any) -> None:
        self._server = server
        super().__init__(**settings)

    async def connect(self) -> None:
        """Connect; start the server and connect again when that fails."""
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except RedisConnectionError:
            await anyio.to_thread.run_sync(self._server.ensure_running, abandon_on_cancel=True)
            await super().connect()  # type: ignore[no-untyped-call]


class EmbeddedSyncConnection(redis.UnixDomainSocketConnection):
    """The same for blocking clients."""

    def __init__(self, *, server: EmbeddedServer, **settings: Any) -> None:
        self._server = server
        super().__init__(**settings)  # type: ignore[no-untyped-call]

    def connect(self) -> None:
        """Connect; start the server and connect again when that fails."""
        try:
            super().connect()  # type: ignore[no-untyped-call]
        except RedisConnectionError:
            self._server.ensure_running()
            super().connect()  # type: ignore[no-untyped-call]


class SentinelPool(redis.asyncio.sentinel.SentinelConnectionPool):
    """Closes the clients of its sentinels with itself; redis-py leaves them to the garbage collector."""

    @classmethod
    def of(cls, sentinels: Sequence[tuple[str, int]], service: str | None, asked: dict[str, Any], **settings: Any) -> Self:
        """A pool to the primary that these sentinels name; `asked` is how to connect to themselves."""
        watch = redis.asyncio.sentinel.Sentinel(sentinels, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        return cls(service, watch, **settings)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the pool's connections, and the sentinels' unless only idle ones are meant."""
        await super().disconnect(inuse_connections)
        if inuse_connections:  # the pool calls this without them whenever the primary has changed
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


class SyncSentinelPool(redis.sentinel.SentinelConnectionPool):
    """The same for blocking clients."""

    @classmethod
    def of(cls, sentinels: Sequence[tuple[str, int]], service: str | None, asked: dict[str, Any], **settings: Any) -> Self:
        """A pool to the primary that these sentinels name; `asked` is how to connect to themselves."""
        watch = redis.sentinel.Sentinel(sentinels, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        return cls(service, watch, **settings)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the pool's connections, and the sentinels' unless only idle ones are meant."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                sentinel.close()


def no_retry() -> redis.asyncio.retry.Retry:
    """One attempt: what may be repeated, the caller knows."""
    return redis.asyncio.retry.Retry(NoBackoff(), 0)


def no_retry_sync() -> redis.retry.Retry:
    """One attempt, for blocking clients."""
    return redis.retry.Retry(NoBackoff(), 0)


def sync_node(host: str, port: int) -> redis.cluster.ClusterNode:
    """A seed of a blocking cluster client."""
    return redis.cluster.ClusterNode(host, port)  # type: ignore[no-untyped-call]
