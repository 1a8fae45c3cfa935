"""Where the tests run: memory, embedded Valkey, Debian's Redis and a cluster; each test under a namespace of its own.

`LOCKBEAT_TEST_BACKENDS=memory,valkey` picks some. What needs a server that can't be had is not collected, and the summary says so
in one line; where CI is set the run fails at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, settings

from lockbeat import Lockbeat
from lockbeat.connection._memory import memory_server
from lockbeat.store.keys import KEYS
from tests import endless, quick_lua, servers
from tests.endless import pytest_runtest_call, pytest_runtest_setup, pytest_runtest_teardown, pytest_unconfigure
from tests.servers import Server

PATIENCE = 30.0
"""Seconds until what a test waits for counts as never happening: only a broken program comes near it, a busy machine does not."""
BACKENDS = ("memory", "valkey", "redis", "cluster")
_WANTED = [name for name in os.environ.get("LOCKBEAT_TEST_BACKENDS", ",".join(BACKENDS)).replace(" ", "").split(",") if name]
if unknown := set(_WANTED) - set(BACKENDS):
    raise pytest.UsageError(f"LOCKBEAT_TEST_BACKENDS: {', '.join(sorted(unknown))} is none of {', '.join(BACKENDS)}")
MISSING = servers.missing()
"""Why a backend can't be had, by its name."""
CHOSEN = [name for name in _WANTED if name not in MISSING]
"""What the tests run on."""
_THERE = {*CHOSEN, "chromium", "faketime", "promtool"} - {*MISSING}
_LACKING = ", ".join(f"{name} ({why})" for name, why in MISSING.items() if name in _WANTED or name not in BACKENDS)
if os.environ.get("CI") and _LACKING:
    raise pytest.UsageError(f"CI promised: {_LACKING}")

# A property holds or fails by the program, not by the day: the same examples in each run, in however many seconds.
settings.register_profile(
    "same", derandomize=True, deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", settings.get_profile("same"), derandomize=False)
settings.load_profile("same")

quick_lua.install()
# redis-py reads the text of its own metadata at each connection.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)

_numbers = itertools.count(1)
_run = secrets.token_hex(2)


class _Shared(redis.RedisCluster):
    """Made once, as it asks for all commands then. Closed by one test, it connects anew for the next."""

    def close(self) -> None:
        self.disconnect_connection_pools()  # type: ignore[no-untyped-call]


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
            return self._cluster
        return redis.Redis(port=self.servers[0].port, protocol=2, socket_timeout=5)

    @functools.cached_property
    def _cluster(self) -> Any:
        return _Shared(host="127.0.0.1", port=self.servers[0].port, protocol=2)

    def nodes(self) -> list[Any]:
        """A blocking client of each server."""
        if self.name == "cluster":
            return [redis.Redis(port=server.port, protocol=2, socket_timeout=5) for server in self.servers]
        return [self.client()]

    @functools.cached_property
    def looked_at(self) -> list[Any]:
        """As `nodes()`, for what looks after each test."""
        return self.nodes()

    def close(self) -> None:
        for client in self.looked_at:
            client.close()

    def calls(self, *commands: str) -> dict[str, int]:
        """How often each of the commands was called since the server started; without any, every command."""
        counts: dict[str, int] = {}
        for server in self.servers:
            for line in str(server.call("INFO", "commandstats")).splitlines():
                if line.startswith("cmdstat_"):
                    name, _, rest = line.removeprefix("cmdstat_").partition(":calls=")
                    counts[name] = counts.get(name, 0) + int(rest.partition(",")[0])
        return {name: counts.get(name, 0) for name in commands} if commands else counts


def chosen(*names: str) -> list[str]:
    """Those of the backends that the tests run on; for the parameters of a fixture that starts a server of its own."""
    return [name for name in CHOSEN if name in names]


class Connect(Protocol):
    """Makes a further client of the test's store: `async with connect() as other:`."""

    def __call__(self, **options: Any) -> Lockbeat: ...


async def wait_until(condition: Callable[[], object], description: str, timeout: float = PATIENCE, step: float = 0.002) -> None:
    """Look at `condition` in short steps; AssertionError with the description when it never came true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened within {timeout:g} s: {description}")
        await asyncio.sleep(step)


__all__ = ["pytest_runtest_call", "pytest_runtest_setup", "pytest_runtest_teardown", "pytest_unconfigure"]


def pytest_configure(config: pytest.Config) -> None:
    """Ctrl-C and Ctrl-\\ are heard, by what tests start as well: both are ignored where pytest runs in a shell's background."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    endless.pytest_configure(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a backend that was not chosen or can't be had: no line for each of a thousand tests."""

    left_out = [item for item in items if _lacks_a_server(item)]
    config.hook.pytest_deselected(items=left_out)
    out = {*left_out}
    items[:] = [item for item in items if item not in out]
    if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        items[:] = _long_first(items, int(processes))


def _long_first(items: list[pytest.Item], processes: int) -> list[pytest.Item]:
    """Each process begins with an equal part of them, and its share of the long ones is the first of it."""
    long = [item for item in items if item.get_closest_marker("long")]
    others = (item for item in items if not item.get_closest_marker("long"))
    ordered = list[pytest.Item]()
    for number in range(processes):
        part = (len(items) - len(ordered)) // (processes - number)
        first = long[number::processes]
        ordered += [*first, *itertools.islice(others, max(0, part - len(first)))]
    assert len(ordered) == len(items)
    return ordered


def _lacks_a_server(item: pytest.Item) -> bool:
    reasons = [str(mark.kwargs.get("reason")) for mark in item.iter_markers("skip")]
    needed = {name for mark in item.iter_markers("needs") for name in mark.args}
    # What no backend is left for has an empty set of parameters.
    return any(reason.startswith("got empty parameter set") for reason in reasons) or not needed <= _THERE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _LACKING:
        terminalreporter.write_line(f"left out: {_LACKING}", yellow=True)


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
            cluster = self._stack.enter_context(servers.cluster(servers.valkey_binary()))
            backend = Backend("cluster", cluster.url, 3, cluster.nodes)
        else:
            server = self._stack.enter_context(servers.standalone(servers.binary(name)))
            backend = Backend(name, server.url, 1, [server])
        self._stack.callback(backend.close)
        return backend


valkey_or_skip = servers.valkey_binary


@pytest.fixture(scope="session")
def running() -> Iterator[_Running]:
    with contextlib.ExitStack() as stack:
        yield _Running(stack)


@pytest.fixture
def no_thread_stays() -> Iterator[None]:
    """After the test no thread runs that it began: it would call, log and draw numbers while others are tested.

    Used by all tests of the folders whose conftest says so.
    """
    before = {*threading.enumerate()}
    yield
    until = time.monotonic() + PATIENCE
    while (left := _begun_since(before)) and time.monotonic() < until:
        left[0].join(0.1)
    assert not left, "\n".join(map(_where, left))


def _begun_since(before: set[threading.Thread]) -> list[threading.Thread]:
    # Not those that Python did not begin, and knows nothing of.
    return [each for each in threading.enumerate() if each not in before and not isinstance(each, threading._DummyThread)]


def _where(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
    return f"the test has left the thread {thread.name!r} behind:\n{stack}"


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
    for client in backend.looked_at:
        complaints += leaks(client, namespace)
        client.flushall()
    if backend.name == "memory":
        backend.close()
    assert not complaints, "\n".join(complaints)


def leaks(client: Any, namespace: str) -> Iterator[str]:
    """What is wrong with the keys that a test left behind."""
    keys = [*client.scan_iter(count=1000)]
    asking = client.pipeline(transaction=False)
    for key in keys:
        asking.pttl(key)
    for key, ttl in zip(keys, asking.execute(), strict=True):
        text = key.decode(errors="replace")
        tag, brace, name = text.partition("}:")
        if not tag.startswith("{" + namespace) or not brace:
            yield f"{text!r} lies outside of the namespace {namespace!r}"
            continue
        family = next((key for key in KEYS if key[-1].isupper() and name.startswith(key.rpartition(":")[0] + ":")), name)
        if family not in KEYS:
            yield f"{text!r} is not in keys.py"
        # -2: it expired after it was listed.
        elif ttl == -1 and (
            (family.startswith(("lock", "claim", "reply")) and family != "claim:stats") or any(map(str.isupper, family))
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


@pytest.fixture(params=chosen("valkey"))
def server() -> Iterator[Server]:
    """A Valkey server of this test alone, to kill, freeze and restart."""
    with servers.standalone(servers.valkey_binary()) as started:
        yield started


def needs(*names: str) -> pytest.MarkDecorator:
    """The test starts servers of its own, of these backends."""
    return pytest.mark.needs(*names)


def only(*names: str) -> pytest.MarkDecorator:
    """Run the test on these backends alone."""
    return pytest.mark.parametrize("backend", chosen(*names), indirect=True)
