"""The Connector: one store's address turned into clients and connections."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from redis.asyncio.connection import AbstractConnection, Connection
from redis.connection import AbstractConnection as SyncConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from lockbeat.connection import _discovery, _memory, _pools
from lockbeat.connection._url import Address, Kind, parse_url
from lockbeat.errors import MissingExtra

if TYPE_CHECKING:
    from fakeredis import FakeAsyncRedis, FakeRedis, FakeServer

    from lockbeat.embedded import EmbeddedServer

    AsyncClient = redis.asyncio.Redis | redis.asyncio.cluster.RedisCluster | FakeAsyncRedis
    SyncClient = redis.Redis | redis.cluster.RedisCluster | FakeRedis

_CONNECT_TIMEOUT = 5.0  # s to open a socket and shake hands
_SENTINEL_TIMEOUT = 1.0  # s for one sentinel: the next one is asked sooner than a primary is given up
_SOCKET_TIMEOUT = 5.0  # s for one reply


class Connector:
    """How to reach one store. Made by `await Connector.open(url)`; `aclose()` when the last client is closed.

    Clients and connections are the caller's to close. They retry nothing, send nothing while idle and raise
    redis-py's own errors: only the caller knows which command may be repeated.
    """

    def __init__(self, address: Address, *, embedded: EmbeddedServer | None = None, memory: FakeServer | None = None) -> None:
        self.address = address
        self._embedded = embedded
        self._memory = memory
        self._seen_nodes: list[tuple[str, int]] = []

    @classmethod
    async def open(cls, url: str | None = None) -> Connector:
        """Read `url` (None: $LOCKBEAT_URL, else `embedded://`); start or join an embedded server.

        Sends nothing to any other store. Raises InvalidURL, MissingExtra, and StoreUnavailable (embedded).
        """
        address = parse_url(url)
        if address.kind == "memory":
            return cls(address, memory=_memory.memory_server(address.name))
        if address.kind != "embedded":
            return cls(address)
        made: list[Connector] = []
        handing_over = threading.Lock()
        abandoned = False

        def open_here() -> None:
            connector = cls._open_embedded(address)
            with handing_over:
                made.append(connector)
                if not abandoned:
                    return
            connector._give_back()

        try:
            await anyio.to_thread.run_sync(open_here)
        except BaseException:
            # Cancelled while the thread was at it, which does not stop the thread: what it opens, or has just
            # opened, has no other owner.
            with handing_over:
                abandoned = True
                finished = bool(made)
            if finished:
                await made[0].aclose()
            raise
        return made[0]

    @classmethod
    def _open_embedded(cls, address: Address) -> Connector:
        try:
            from lockbeat.embedded import EmbeddedServer
        except ImportError as error:  # no fcntl
            raise MissingExtra("embedded:// needs Linux or macOS; set LOCKBEAT_URL to a Redis or Valkey") from error
        return cls(address, embedded=EmbeddedServer.open(address.path, persist=address.persist))

    @property
    def kind(self) -> Kind:
        """standalone, sentinel, cluster, embedded or memory."""
        return self.address.kind

    @property
    def location(self) -> str:
        """The store's URL for people: secrets masked, the directory of an embedded store spelled out."""
        return f"embedded://{self._embedded.directory}" if self._embedded else self.address.safe

    @property
    def embedded(self) -> EmbeddedServer | None:
        """The server behind `embedded://`; None for every other store."""
        return self._embedded

    async def ensure_running(self) -> None:
        """Bring a dead embedded server back, as connections made here do; nothing for other stores."""
        if self._embedded is not None:
            await anyio.to_thread.run_sync(self._embedded.ensure_running, abandon_on_cancel=True)

    async def aclose(self) -> None:
        """Give back the embedded server, if there is one; its last user ends it. Idempotent.

        A cancelled call still gives it back, in up to 15 s.
        """
        if self._embedded is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._give_back)

    def _give_back(self) -> None:
        if self._embedded is not None:
            self._embedded.close()

    async def __aenter__(self) -> Connector:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def async_client(self, *, timeout: float | None = _SOCKET_TIMEOUT) -> AsyncClient:
        """A new client with its own pool; bytes in, bytes out, RESP2. Connects when first used.

        `timeout`: seconds for one reply; None for blocking reads such as pub/sub. Close it with `aclose()`.
        """
        address = self.address
        if self._memory is not None:
            return _memory.async_client(self._memory)
        settings = self._settings(timeout) | {"retry": _pools.no_retry()} | _pool_options(address)
        if address.kind == "cluster":
            seeds = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in address.nodes]
            return redis.asyncio.cluster.RedisCluster(startup_nodes=seeds, ssl=address.tls, **_without_db(settings))
        if address.kind == "sentinel":
            asked = self._sentinel_settings() | {"retry": _pools.no_retry(), "ssl": address.tls}
            behind = _pools.SentinelPool.of(address.nodes, address.service, asked, ssl=address.tls, **settings)
            return redis.asyncio.Redis.from_pool(behind)
        kind, where = self._async_connection()
        return redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(connection_class=kind, **where, **settings))

    def sync_client(self, *, timeout: float | None = _SOCKET_TIMEOUT) -> SyncClient:
        """The same for a thread of ours: a blocking client of this store. A cluster's connects at once."""
        address = self.address
        if self._memory is not None:
            return _memory.sync_client(self._memory)
        settings = self._settings(timeout) | {"retry": _pools.no_retry_sync()} | _pool_options(address)
        if address.kind == "cluster":
            seeds = [_pools.sync_node(host, port) for host, port in address.nodes]
            return redis.cluster.RedisCluster(startup_nodes=seeds, ssl=address.tls, **_without_db(settings))
        if address.kind == "sentinel":
            asked = self._sentinel_settings() | {"retry": _pools.no_retry_sync(), "ssl": address.tls}
            behind = _pools.SyncSentinelPool.of(address.nodes, address.service, asked, ssl=address.tls, **settings)
            return redis.Redis.from_pool(behind)
        kind, where = self._sync_connection()
        return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **where, **settings))

    async def dedicated(self, *, timeout: float | None = None) -> AbstractConnection:
        """One new connection, connected and authenticated, that belongs to no pool; `disconnect()` it.

        `timeout`: seconds for one reply, None to wait without limit. Behind Sentinel it leads to
        the server that calls itself primary now. For `memory://` it is a stand-in with the same methods.
        Raises redis' ConnectionError or TimeoutError, and TypeError for a cluster: see `dedicated_for_key`.
        """
        address = self.address
        if address.kind == "cluster":
            raise TypeError("a cluster has no single server to connect to; use dedicated_for_key")
        if self._memory is not None:
            return await _discovery.connected(_memory.connection(self._memory))
        settings = self._settings(timeout) | {"retry": _pools.no_retry()}
        if address.kind == "sentinel":
            return await self._primary_behind_sentinel(settings)
        kind, where = self._async_connection()
        return await _discovery.connected(kind(**where, **settings))

    async def dedicated_for_key(self, key: bytes | str, *, timeout: float | None = None) -> AbstractConnection:
        """As `dedicated`, to the primary that owns the slot of `key` now; any other store ignores the key.

        Each call asks the cluster anew, so after a MOVED or a lost connection: call again.
        """
        if self.address.kind != "cluster":
            return await self.dedicated(timeout=timeout)
        connection_class = self._tcp_class()
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        short = _without_db(self._settings(_SOCKET_TIMEOUT)) | {"retry": _pools.no_retry()}
        # Nodes seen before come after the seeds: a cluster whose seeds have all moved away is still found.
        seeds = [*self.address.nodes, *(node for node in self._seen_nodes if node not in self.address.nodes)]
        (host, port), self._seen_nodes = await _discovery.slot_owner(seeds, slot, connection_class, short)
        settings = _without_db(self._settings(timeout)) | {"retry": _pools.no_retry()}
        return await _discovery.connected(connection_class(host=host, port=port, **settings))

    async def _primary_behind_sentinel(self, settings: dict[str, Any]) -> AbstractConnection:
        address, connection_class = self.address, self._tcp_class()
        asked = self._sentinel_settings() | {"retry": _pools.no_retry()}
        trouble: Exception | None = None
        for sentinel in address.nodes:
            try:
                host, port = await _discovery.master_address(sentinel, address.service or "", connection_class, asked)
                link = await _discovery.connected(connection_class(host=host, port=port, **settings))
            except (RedisError, OSError) as error:
                trouble = error
                continue
            # A sentinel that missed the failover names the old primary, which may be back as a replica.
            if await _discovery.is_primary(link):
                return link
            await link.disconnect(nowait=True)
            trouble = RedisConnectionError(f"{host}:{port} is no longer the primary")
        raise trouble or RedisConnectionError("no sentinel")

    def _settings(self, timeout: float | None) -> dict[str, Any]:
        address = self.address
        settings: dict[str, Any] = {
            "db": address.db,
            "username": address.username,
            "password": address.password,
            "client_name": "lockbeat",
            "decode_responses": False,
            "protocol": 2,  # pub/sub on a connection of its own; also keeps redis-py's maintenance pushes off
            "health_check_interval": 0,
            "socket_connect_timeout": _CONNECT_TIMEOUT,
            "socket_timeout": timeout,
        }
        if address.nodes:
            settings |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive_options()}
        given = {name: value for name, value in address.options.items() if name != "max_connections"}
        if timeout is None:
            given.pop("socket_timeout", None)  # the caller means to block
        if not address.nodes:
            given.pop("socket_keepalive", None)
        return settings | given

    def _sentinel_settings(self) -> dict[str, Any]:
        """The sentinels have users of their own, and no databases."""
        settings = _without_db(self._settings(_SENTINEL_TIMEOUT))
        return settings | {
            "username": self.address.sentinel_username,
            "password": self.address.sentinel_password,
            "socket_connect_timeout": _SENTINEL_TIMEOUT,
            "socket_timeout": _SENTINEL_TIMEOUT,
        }

    def _tcp_class(self) -> type[Connection]:
        return redis.asyncio.SSLConnection if self.address.tls else redis.asyncio.Connection

    def _async_connection(self) -> tuple[type[AbstractConnection], dict[str, Any]]:
        if self._embedded is not None:
            return _pools.EmbeddedConnection, {"server": self._embedded, "path": self._embedded.socket_path}
        if self.address.path is not None:
            return redis.asyncio.UnixDomainSocketConnection, {"path": self.address.path}
        host, port = self.address.nodes[0]
        return self._tcp_class(), {"host": host, "port": port}

    def _sync_connection(self) -> tuple[type[SyncConnection], dict[str, Any]]:
        if self._embedded is not None:
            return _pools.EmbeddedSyncConnection, {
                "server": self._embedded,
                "path": self._embedded.socket_path,
            }
        if self.address.path is not None:
            return redis.UnixDomainSocketConnection, {"path": self.address.path}
        host, port = self.address.nodes[0]
        return redis.SSLConnection if self.address.tls else redis.Connection, {"host": host, "port": port}


async def connect(url: str | None = None) -> Connector:
    """`Connector.open` as a function."""
    return await Connector.open(url)


def _keepalive_options() -> dict[int, int]:
    """A dead peer is noticed in 30 s, by the kernel, without a command of ours on an idle connection."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def _pool_options(address: Address) -> dict[str, Any]:
    return {name: value for name, value in address.options.items() if name == "max_connections"}


def _without_db(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "db"}
