"""Where the tests run: memory, embedded Valkey, Debian's Redis and a cluster; each test under a namespace of its own.

`LOCKBEAT_TEST_BACKENDS=memory,valkey` picks some. A server that can't be had skips its tests, and fails them where CI is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import fakeredis
import pytest
import redis

from lockbeat import Lockbeat
from lockbeat.connection._memory import memory_server
from lockbeat.keys import KEYS
from tests import servers
from tests.servers import Server

BACKENDS = ("memory", "valkey", "redis", "cluster")
CHOSEN = [name for name in os.environ.get("LOCKBEAT_TEST_BACKENDS", ",".join(BACKENDS)).replace(" ", "").split(",") if name]
if unknown := set(CHOSEN) - set(BACKENDS):
    raise pytest.UsageError(f"LOCKBEAT_TEST_BACKENDS: {', '.join(sorted(unknown))} is none of {', '.join(BACKENDS)}")

_numbers = itertools.count(1)
_run = secrets.token_hex(2)


@dataclass
class Backend:
    """A store to test against, shared by all tests of a run (`memory`: one a test)."""

    name: str
    url: str
    shards: int = 1
    servers: list[Server] = field(default_factory=list)
    """The primaries; none for `memory`."""

    def client(self) -> Any:
        """A blocking client of redis-py's, bytes in and out."""
        if self.name == "memory":
            return fakeredis.FakeRedis(server=memory_server(self.url.removeprefix("memory://")), protocol=2)
        if self.name == "cluster":
            return redis.RedisCluster(host="127.0.0.1", port=self.servers[0].port, protocol=2)
        return redis.Redis(port=self.servers[0].port, protocol=2, socket_timeout=5)

    def nodes(self) -> list[Any]:
        """A blocking client of each server."""
        if self.name == "cluster":
            return [redis.Redis(port=server.port, protocol=2, socket_timeout=5) for server in self.servers]
        return [self.client()]

    def calls(self, *commands: str) -> dict[str, int]:
        """How often each of the commands was called since the server started; without any, every command."""
        counts: dict[str, int] = {}
        for server in self.servers:
            for line in str(server.call("INFO", "commandstats")).splitlines():
                if line.startswith("cmdstat_"):
                    name, _, rest = line.removeprefix("cmdstat_").partition(":calls=")
                    counts[name] = counts.get(name, 0) + int(rest.partition(",")[0])
        return {name: counts.get(name, 0) for name in commands} if commands else counts


class Connect(Protocol):
    """Makes a further client of the test's store: `async with connect() as other:`."""

    def __call__(self, **options: Any) -> Lockbeat: ...


async def wait_until(condition: Callable[[], object], description: str, timeout: float = 5.0, step: float = 0.002) -> None:
    """Look at `condition` in short steps; AssertionError with the description when it never came true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened within {timeout:g} s: {description}")
        await asyncio.sleep(step)


def missing(reason: str) -> None:
    """Skip, for want of a server; fail where CI promised to have it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class _Running:
    """The session's servers, each started when first asked for."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._backends: dict[str, Backend] = {}

    def backend(self, name: str) -> Backend:
        if name == "memory":
            return Backend("memory", f"memory://test-{_run}-{next(_numbers)}")
        if name not in self._backends:
            self._backends[name] = self._start(name)
        return self._backends[name]

    def _start(self, name: str) -> Backend:
        if name == "cluster":
            cluster = self._stack.enter_context(servers.cluster(valkey_or_skip()))
            return Backend("cluster", cluster.url, 3, cluster.nodes)
        binary = valkey_or_skip() if name == "valkey" else servers.redis_binary()
        if binary is None:
            missing("no redis-server on PATH")
            raise AssertionError
        server = self._stack.enter_context(servers.standalone(binary))
        return Backend(name, server.url, 1, [server])


def valkey_or_skip() -> str:
    """The embedded Valkey's binary."""
    try:
        return servers.valkey_binary()
    except (ImportError, OSError) as problem:
        missing(f"no embedded Valkey: {problem}")
        raise


@pytest.fixture(scope="session")
def running() -> Iterator[_Running]:
    with contextlib.ExitStack() as stack:
        yield _Running(stack)


_USED = pytest.StashKey[tuple[Backend, str]]()


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """After the test every key of its store lies under its namespace, is one that keys.py names, and is bounded."""
    yield
    used = request.node.stash.get(_USED, None)
    if used is None:
        return
    backend, namespace = used
    complaints: list[str] = []
    for client in backend.nodes():
        with contextlib.closing(client):
            complaints += leaks(client, namespace)
            client.flushall()
    assert not complaints, "\n".join(complaints)


def leaks(client: Any, namespace: str) -> Iterator[str]:
    """What is wrong with the keys that a test left behind."""
    for key in client.scan_iter(count=1000):
        text = key.decode(errors="replace")
        tag, brace, name = text.partition("}:")
        if not tag.startswith("{" + namespace) or not brace:
            yield f"{text!r} lies outside of the namespace {namespace!r}"
            continue
        family = next((key for key in KEYS if key[-1].isupper() and name.startswith(key.rpartition(":")[0] + ":")), name)
        if family not in KEYS:
            yield f"{text!r} is not in keys.py"
        # -2: it expired after it was listed.
        elif client.pttl(key) == -1 and (
            (family.startswith(("lock", "claim")) and family != "claim:stats") or any(map(str.isupper, family))
        ):
            yield f"{text!r} has no TTL"


@pytest.fixture(params=CHOSEN)
def backend(request: pytest.FixtureRequest, running: _Running, namespace: str) -> Backend:
    """The store that the test runs on; a test that takes it, or anything made from it, runs on each of them."""
    chosen = running.backend(request.param)
    request.node.stash[_USED] = (chosen, namespace)
    return chosen


@pytest.fixture
def namespace() -> str:
    """Of this test alone."""
    return f"t-{_run}-{next(_numbers)}"


@pytest.fixture
def url(backend: Backend) -> str:
    return backend.url


@pytest.fixture
def shards(backend: Backend) -> int:
    """How many shards the test's store is opened with."""
    return backend.shards


@pytest.fixture
def connect(url: str, namespace: str, shards: int) -> Connect:
    """A factory of clients of the test's store, each as another instance would be."""

    def connect(**options: Any) -> Lockbeat:
        settings: dict[str, Any] = {"namespace": namespace, "shards": shards} | options
        return Lockbeat(url, **settings)

    return connect


@pytest.fixture
async def lb(connect: Connect) -> AsyncIterator[Lockbeat]:
    """An open client of the test's store."""
    async with connect() as client:
        yield client


@pytest.fixture
def raw(backend: Backend) -> Iterator[Any]:
    """redis-py, to look at the store past lockbeat; blocking, bytes in and out."""
    client = backend.client()
    with contextlib.closing(client):
        yield client


@pytest.fixture
def server() -> Iterator[Server]:
    """A Valkey server of this test alone, to kill, freeze and restart."""
    if not set(CHOSEN) - {"memory"}:
        pytest.skip("only memory was chosen")
    with servers.standalone(valkey_or_skip()) as started:
        yield started


def only(*names: str) -> pytest.MarkDecorator:
    """Run the test on these backends alone."""
    chosen = [name for name in CHOSEN if name in names]
    return pytest.mark.parametrize("backend", chosen, indirect=True)
