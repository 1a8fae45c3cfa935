"""For the tests of the promises: instances of a beat, a client whose replies get lost, a primary with its replica."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from lockbeat import Lockbeat
from tests import servers
from tests.beats import Beats
from tests.conftest import Backend, chosen, leaks
from tests.proxy import Proxy, proxy
from tests.servers import Server


@pytest.fixture
def beats(url: str, namespace: str, shards: int) -> Beats:
    """A factory of instances of one beat on the test's store."""
    return Beats(url, namespace, shards)


@pytest.fixture
async def lossy(backend: Backend) -> AsyncIterator[Proxy]:
    """Between `client` and the server."""
    async with proxy(backend.servers[0].port) as made:
        yield made


@pytest.fixture
async def client(lossy: Proxy, namespace: str) -> AsyncIterator[Lockbeat]:
    """Behind the proxy."""
    async with Lockbeat(lossy.url, namespace=namespace, timeout=2) as lb:
        yield lb


@dataclass
class Pair:
    """A primary and its replica."""

    primary: Server
    replica: Server

    def calls(self, command: str) -> int:
        """How often it was called."""
        for line in str(self.primary.call("INFO", "commandstats")).splitlines():
            if line.startswith(f"cmdstat_{command}:calls="):
                return int(line.partition("=")[2].partition(",")[0])
        return 0

    def blocked(self) -> bool:
        """Whether a connection waits for the replica."""
        return "blocked_clients:1\r" in str(self.primary.call("INFO", "clients"))


@contextlib.contextmanager
def started(binary: str) -> Iterator[Pair]:
    with servers.standalone(binary) as primary, servers.replica(primary) as replica:
        yield Pair(primary, replica)


@pytest.fixture(scope="module", params=chosen("valkey", "redis"))
def shared(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with started(servers.binary(request.param)) as pair:
        yield pair


@pytest.fixture
def pair(shared: Pair, namespace: str) -> Iterator[Pair]:
    yield shared
    shared.replica.thaw()
    with shared.primary.client() as client:
        client.connection_pool.connection_kwargs["decode_responses"] = False
        complaints = list(leaks(client, namespace))
        client.flushall()
    assert not complaints
