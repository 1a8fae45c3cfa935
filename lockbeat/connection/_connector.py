"""The Connector: one store's address turned into connections."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from lockbeat.connection import _discovery, _memory, _tls
from lockbeat.connection._credentials import Credentials, check_provider
from lockbeat.connection._url import Address, Kind, parse_url
from lockbeat.connection.final import SeveralAway
from lockbeat.connection.outage import Outage
from lockbeat.counting import Counting
from lockbeat.errors import InvalidArgument, MissingExtra
from lockbeat.process.lasting import has_executors, in_own_thread

if TYPE_CHECKING:
    from fakeredis import FakeAsyncRedis, FakeServer

    from lockbeat.embedded import EmbeddedServer

_CONNECT_TIMEOUT = 5.0  # s to open a socket and shake hands
_SENTINEL_TIMEOUT = 1.0  # s for one sentinel: the next one is asked sooner than a primary is given up
_NODE_TIMEOUT = 5.0  # s for what a cluster node knows of the others


class _EmbeddedConnection(redis.asyncio.UnixDomainSocketConnection):
    """Brings a dead embedded server back before giving up: its users are the only ones who can."""

    def __init__(self, *, server: EmbeddedServer, **settings: Any) -> None:
        self._server = server
        super().__init__(**settings)

    async def connect(self) -> None:
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except RedisConnectionError:
            await anyio.to_thread.run_sync(self._server.ensure_running, abandon_on_cancel=True)
            await super().connect()  # type: ignore[no-untyped-call]


class _ByName:
    """Looks its host up by itself where the program's event loop can't any more, as its main thread has ended."""

    host: str
    port: int

    def __init__(self, **settings: Any) -> None:
        self._found: dict[str, Any] = {}
        super().__init__(**settings)

    async def connect(self) -> None:
        link: Any = super()
        if has_executors():
            await link.connect()
            return
        look_up = partial(socket.getaddrinfo, self.host, self.port, type=socket.SOCK_STREAM)
        try:
            found = await in_own_thread(asyncio.get_running_loop(), look_up)
        except OSError as problem:
            raise RedisConnectionError(f"{self.host}: {problem}") from problem
        addresses = list(dict.fromkeys(address[0] for *_, address in found))
        for address in addresses:
            self._found = {"host": address}
            try:
                await link.connect()
            except (RedisConnectionError, RedisTimeoutError):
                if address == addresses[-1]:
                    raise
            else:
                return

    def _connection_arguments(self) -> Mapping[str, Any]:
        said = {**super()._connection_arguments(), **self._found}  # type: ignore[misc]
        return said | {"server_hostname": self.host} if self._found and "ssl" in said else said


class _Tcp(_ByName, redis.asyncio.Connection):
    pass


class _Tls(_ByName, redis.asyncio.SSLConnection):
    pass


class Primary:
    """The server to which the latest connection led."""

    __slots__ = ("moves", "node")

    def __init__(self) -> None:
        self.node: tuple[str, int] | None = None
        self.moves = 0
        """How often it was found to be another. Whoever has an older connection talks to a server that the others have left."""

    def is_at(self, node: tuple[str, int]) -> None:
        if self.node not in (None, node):
            self.moves += 1
        self.node = node


class Connector:
    """How to reach one store. Made by `await Connector.open(url)`; `aclose()` when the last connection is closed.

    Connections are the caller's to close. They retry nothing, send nothing while idle and raise redis-py's own
    errors: only the caller knows which command may be repeated.
    """

    def __init__(
        self,
        address: Address,
        *,
        embedded: EmbeddedServer | None = None,
        memory: FakeServer | None = None,
        timeout: float = _CONNECT_TIMEOUT,
        provider: Any = None,
    ) -> None:
        self.address = address
        # A little less than the caller's own patience: what redis-py says then tells more than "no answer".
        self._connect_timeout = min(_CONNECT_TIMEOUT, timeout * 0.9)
        self._credentials = None if provider is None else Credentials(provider)
        self._embedded = embedded
        self._memory = memory
        self._seen_nodes: list[tuple[str, int]] = []
        self._primaries: dict[str, Primary] = {}  # by key on a Cluster, else one
        self._doubted = False
        self._silent: dict[tuple[str, int], float] = {}  # whom to ask last: asked then, and has not answered
        self.outage = Outage(self.location)
        """What the log is told of failing connections: all of a process are one outage."""
        self.counting: Counting | None = None
        """Where what goes over its connections is counted; None: nowhere."""

    @classmethod
    async def open(
        cls, url: str | None = None, *, timeout: float = _CONNECT_TIMEOUT, credential_provider: Any = None
    ) -> Connector:
        """Read `url` (None: $LOCKBEAT_URL, else `embedded://`) and its TLS files; start or join an embedded server.

        It sends nothing to any other store.

        timeout: seconds that the caller gives a connection.
        credential_provider: as redis-py's; asked for each connection to a store that is neither embedded nor in memory.

        Raises: InvalidURL, InvalidArgument for what can't be used. MissingExtra for a package that is missing. StoreUnavailable
        when an embedded server does not come up.
        """
        address, provider = parse_url(url), check_provider(credential_provider)
        if address.kind == "memory":
            return cls(address, memory=_memory.memory_server(address.name))
        if address.kind != "embedded":
            if provider is not None and (address.username or address.password):
                raise InvalidArgument("credential_provider", "the URL has a user name or password already")
            if address.tls or address.sentinel_tls:
                _tls.check_files(address)
            return cls(address, timeout=timeout, provider=provider)
        try:
            from lockbeat.embedded import EmbeddedServer
        except ImportError as error:  # no fcntl
            raise MissingExtra("embedded:// needs Linux or macOS; set LOCKBEAT_URL to a Redis or Valkey") from error
        opened: Future[EmbeddedServer] = Future()

        def open_here() -> None:
            opened.set_result(EmbeddedServer.open(address.path, persist=address.persist))

        try:
            await anyio.to_thread.run_sync(open_here)
        except BaseException:
            # Cancelled while the thread was at it, which does not stop the thread: what it opens has no other owner.
            opened.add_done_callback(lambda done: done.result().close())
            raise
        return cls(address, embedded=opened.result())

    @property
    def kind(self) -> Kind:
        return self.address.kind

    @property
    def location(self) -> str:
        """The store's URL for people: secrets masked, the directory of an embedded store spelled out."""
        return f"embedded://{self._embedded.directory}" if self._embedded else self.address.safe

    @property
    def embedded(self) -> EmbeddedServer | None:
        return self._embedded

    async def aclose(self) -> None:
        """Give back the embedded server, if there is one; its last user ends it. Idempotent.

        A cancelled call still gives it back, in up to 15 s.
        """
        if self._embedded is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._embedded.close)

    async def __aenter__(self) -> Connector:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def memory_client(self) -> FakeAsyncRedis:
        """A new fakeredis client of a `memory://` store; bytes in, bytes out, RESP2. `aclose()` it.

        Raises TypeError for every other store: see `dedicated_for_key`.
        """
        if self._memory is None:
            raise TypeError("only memory:// has such clients; use dedicated_for_key")
        return _memory.client(self._memory)

    async def dedicated_for_key(self, key: bytes | str, *, timeout: float | None = None) -> AbstractConnection:
        """One new connection, connected and authenticated, that belongs to no pool; `disconnect()` it.

        On a Cluster it leads to the primary that owns the slot of `key` now, behind Sentinel to the server that calls itself
        primary now: after a MOVED or a lost connection call again. Any other store ignores the key.

        timeout: seconds for one reply; None: without limit.

        Raises: redis' ConnectionError or TimeoutError. StoreUnavailable when an embedded server does not come up. TypeError for
        `memory://`: see `memory_client`.
        """
        address = self.address
        try:
            if address.kind == "memory":
                raise TypeError("a store in memory has no server to connect to; use memory_client")
            if address.kind == "cluster":
                return await self._owner_of_slot(key.encode() if isinstance(key, str) else key, timeout)
            if address.kind == "sentinel":
                return await self._primary_behind_sentinel(self._settings(timeout))
            return await _discovery.connected(self._connection(self._settings(timeout)))
        except RedisError as problem:
            if isinstance(problem, ResponseError) and "DB index" in str(problem):
                raise ResponseError(f"{problem}: it has no database {address.db}") from problem
            hint = _tls.hint(address, problem)  # what the URL may have wrong about TLS
            if hint is None or isinstance(problem, (AuthenticationError, ResponseError)):
                raise
            kind = type(problem) if isinstance(problem, (SeveralAway, InvalidResponse)) else RedisConnectionError
            raise kind(f"{problem} ({hint})") from problem

    async def _owner_of_slot(self, key: bytes, timeout: float | None) -> AbstractConnection:
        # Nodes seen before come after the seeds: a cluster whose seeds have all moved away is still found.
        seeds = dict.fromkeys([*self.address.nodes, *self._seen_nodes])
        to_node = self._dial(self._settings(_NODE_TIMEOUT))
        node, self._seen_nodes = await _discovery.slot_owner(seeds, key_slot(key), to_node, self._silent)
        link = await _discovery.connected(self._dial(self._settings(timeout))(node))
        self.primary(key.decode()).is_at(node)
        return link

    def doubt(self) -> None:
        """The server that we had may be a primary no more, though it says so: the next connection asks all sentinels."""
        self._doubted = True

    def primary(self, key: str) -> Primary:
        """Where connections for `key` lead to; kept true as they are made."""
        return self._primaries.setdefault(key if self.address.kind == "cluster" else "", Primary())

    async def _ask_all_sentinels(self, to_sentinel: _discovery.Dial) -> None:
        """Put those first that name the primary which most of them name; of two, the one that we did not have."""
        named: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for sentinel in self.address.nodes:
            try:
                node = await _discovery.master_address(sentinel, self.address.service or "", to_sentinel)
            except (RedisError, OSError):
                continue
            named.setdefault(node, []).append(sentinel)
        if named:
            winner = max(named, key=lambda node: (len(named[node]), node != self.primary("").node))
            for sentinel in self.address.nodes:
                self._silent[sentinel] = 0.0 if sentinel in named[winner] else time.monotonic()
        self._doubted = False

    async def _primary_behind_sentinel(self, settings: dict[str, Any]) -> AbstractConnection:
        address, to_primary = self.address, self._dial(settings)
        to_sentinel = self._dial(self._sentinel_settings(), tls=address.sentinel_tls)
        if self._doubted:
            await self._ask_all_sentinels(to_sentinel)
        troubles: list[Exception] = []
        for sentinel in _discovery.in_turn(address.nodes, self._silent):
            try:
                node = await _discovery.master_address(sentinel, address.service or "", to_sentinel)
                link = await _discovery.connected(to_primary(node))
            except (RedisError, OSError) as error:
                troubles.append(error)
                continue
            # A sentinel that missed the failover names the old primary, which may be back as a replica.
            if await _discovery.is_primary(link):
                self._silent.pop(sentinel, None)
                self.primary("").is_at(node)
                return link
            await link.disconnect(nowait=True)
            troubles.append(RedisConnectionError(f"{node[0]}:{node[1]} is no longer the primary"))
        raise _discovery.why_none(troubles)

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
            "socket_connect_timeout": self._connect_timeout,
            "socket_timeout": timeout,
        }
        if self._credentials is not None:
            settings |= {"username": None, "password": None, "credential_provider": self._credentials}
        if address.nodes:
            settings |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive_options()}
        given = dict(address.options)
        if timeout is None:
            given.pop("socket_timeout", None)  # the caller means to block
        if not address.nodes:
            given.pop("socket_keepalive", None)
        return settings | given

    def _sentinel_settings(self) -> dict[str, Any]:
        """The sentinels have users of their own, and no databases."""
        return self._settings(_SENTINEL_TIMEOUT) | {
            "db": 0,
            "username": self.address.sentinel_username,
            "password": self.address.sentinel_password,
            "credential_provider": None,
            "socket_connect_timeout": _SENTINEL_TIMEOUT,
            "socket_timeout": _SENTINEL_TIMEOUT,
        }

    def _dial(self, settings: dict[str, Any], *, tls: bool | None = None) -> _discovery.Dial:
        secure = self.address.tls if tls is None else tls
        tcp_class = _Tls if secure else _Tcp
        given = settings if secure else {name: value for name, value in settings.items() if not name.startswith("ssl_")}
        return lambda node: tcp_class(host=node[0], port=node[1], **given)

    def _connection(self, settings: dict[str, Any]) -> AbstractConnection:
        if self._embedded is not None:
            return _EmbeddedConnection(server=self._embedded, path=self._embedded.socket_path, **settings)
        if self.address.path is not None:
            return redis.asyncio.UnixDomainSocketConnection(path=self.address.path, **settings)
        return self._dial(settings)(self.address.nodes[0])


def _keepalive_options() -> dict[int, int]:
    """A dead peer is noticed in 30 s, by the kernel, without a command of ours on an idle connection."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
