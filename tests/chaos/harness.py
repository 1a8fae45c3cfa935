"""Starts a server and instances of it as processes, does them harm, and gathers the evidence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import redis

from lockbeat import Lockbeat
from lockbeat.store.keys import Keys
from tests import servers
from tests.chaos.checker import Effect, Entry, Evidence, Exit, Pause, Stretch
from tests.servers import Server

T = TypeVar("T")
NAMESPACE = "chaos"
ROOT = Path(__file__).parents[2]
GRACE = 3.0
"""Seconds, as the instances have it."""


@dataclass
class Size:
    """How much of everything; from LOCKBEAT_CHAOS_SECONDS, _INSTANCES and _JOBS, unless given."""

    seconds: float
    instances: int
    jobs: int

    @classmethod
    def full(cls) -> Size:
        ask = os.environ.get
        return cls(
            float(ask("LOCKBEAT_CHAOS_SECONDS", "20")),
            int(ask("LOCKBEAT_CHAOS_INSTANCES", "5")),
            int(ask("LOCKBEAT_CHAOS_JOBS", "50")),
        )


@dataclass
class Instance:
    """One process, and what was done to it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    killed: bool = False
    stopping: bool = False
    frozen: bool = False
    stop_took: float | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, text: str) -> bool:
        """Whether its log holds the text."""
        return text in self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.killed = True
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """SIGTERM."""
        self.stopping = True
        self.process.terminate()

    def freeze(self) -> None:
        self.frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        self.signal(signal.SIGCONT)


@dataclass
class Arena:
    """The server, the instances, and the clock of a run."""

    directory: Path
    server: Server
    size: Size
    blocking: bool = False
    versions: bool = False
    """Whether instances are of two versions of the code."""
    pauses: list[Pause] = field(default_factory=list)
    backfills: list[Stretch] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    snapshots: dict[str, Entry] = field(default_factory=dict)
    """Ledger entries that were in the store just before it was emptied."""
    random: random.Random = field(default_factory=lambda: random.Random(7))
    started: float = 0.0
    _numbers: int = 0

    @property
    def effects(self) -> Path:
        return self.directory / "effects.jsonl"

    def told(self) -> list[dict[str, Any]]:
        """What bodies have written of themselves so far."""
        return [json.loads(line) for line in self.effects.read_text().splitlines()] if self.effects.exists() else []

    @property
    def exits(self) -> dict[str, Exit]:
        """How each instance ended."""
        return {
            one.name: Exit(one.process.returncode, one.killed, one.log.read_text(errors="replace"), one.stop_took)
            for one in self.instances
        }

    def close(self) -> None:
        """Nothing of it outlives the run, whatever happened."""
        for instance in self.instances:
            if instance.process.poll() is None:
                instance.process.kill()
                instance.process.wait()

    @property
    def running(self) -> list[Instance]:
        return [one for one in self.instances if not one.killed and not one.stopping]

    @property
    def busiest(self) -> Instance:
        """Who began the latest attempt: whoever asks first takes the whole burst, so harm to others would show nothing."""
        names = {one.name: one for one in self.running}
        for said in reversed(self.told()):
            if said["instance"] in names:
                return names[said["instance"]]
        return self.running[0]

    @property
    def left(self) -> float:
        """Seconds of the run that are left."""
        return self.started + self.size.seconds - time.monotonic()

    def launch(self, **environment: str) -> Instance:
        """Start one more instance."""
        self._numbers += 1
        name = f"i{self._numbers}"
        log = self.directory / f"{name}.log"
        env = {
            **os.environ,
            "CHAOS_URL": self.server.url,
            "CHAOS_NAMESPACE": NAMESPACE,
            "CHAOS_EFFECTS": str(self.effects),
            "CHAOS_JOBS": str(self.size.jobs),
            "CHAOS_NAME": name,
            "CHAOS_BLOCKING": "1" if self.blocking else "",
            "CHAOS_CLOCK_OFFSET": repr(time.time() - time.monotonic()),
            **environment,
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.instance"],
                env=env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        instance = Instance(name, process, log)
        self.instances.append(instance)
        return instance

    def ready(self, *instances: Instance) -> None:
        """Wait until they serve."""
        for instance in instances:
            self._wait_for(instance)

    @staticmethod
    def _wait_for(instance: Instance) -> None:
        def serves() -> bool:
            return instance.said("serving") or instance.process.poll() is not None

        servers.wait_until(serves, f"{instance.name} serves", 30)

    def sleep(self, seconds: float) -> None:
        """Let the beat go on for a while; that is what is watched, so nothing is awaited."""
        time.sleep(max(0.0, seconds))

    def command(self, *words: str | int) -> object:
        return self.server.call(*words)

    def empty(self) -> None:
        """FLUSHALL, and in the same transaction take down what the ledger had."""
        with contextlib.closing(redis.Redis(port=self.server.port, protocol=2, socket_timeout=5)) as client:
            pipe = client.pipeline(transaction=True)
            pipe.hgetall(Keys(NAMESPACE).key(0, "task"))
            pipe.flushall()
            ledger, _ = pipe.execute()
        for entry in entries_of(ledger):
            self.snapshots[f"{entry.job}@{entry.slot}"] = entry

    def end(self) -> float:
        """SIGTERM to all; how long the slowest took."""
        last = self.running
        self.ready(*last)  # before that they have no handlers yet
        began = time.monotonic()
        for instance in last:
            instance.terminate()
        for instance in last:
            try:
                instance.process.wait(GRACE + 12)
            except subprocess.TimeoutExpired:
                instance.process.kill()
                instance.process.wait()
            instance.stop_took = time.monotonic() - began
        return time.monotonic() - began

    def evidence(self, since_ms: float, until_ms: float) -> Evidence:
        """All that is known after the end."""
        with contextlib.closing(redis.Redis(port=self.server.port, protocol=2, socket_timeout=5)) as client:
            keys = Keys(NAMESPACE)
            ledger: Any = client.hgetall(keys.key(0, "task"))
            dead = {str(one.pid) for one in self.instances if one.killed}
            left = []
            for index in ("task:owned", "lock:owned"):
                members: Any = client.zrange(keys.key(0, index), 0, -1)
                for member in members:
                    if member.startswith(b"\xff"):
                        continue  # holds the key's place
                    owner, key = (part.decode() for part in member.split(b"\xff", 1))
                    if owner.rsplit("-", 2)[-2] not in dead:
                        left.append(f"{index} {owner} {key}")
        entries = {f"{one.job}@{one.slot}": one for one in self.snapshots.values()}
        entries |= {f"{one.job}@{one.slot}": one for one in entries_of(ledger)}
        return Evidence(
            since_ms=since_ms,
            until_ms=until_ms,
            jobs=periods(self.size.jobs, self.blocking, self.versions),
            effects=[Effect(**said) for said in self.told()],
            ledger=list(entries.values()),
            exits=self.exits,
            leases_left=left,
            emptied=bool(self.snapshots),
            pauses=self.pauses,
            backfills=self.backfills,
        )

    def ask(self, question: Callable[[Lockbeat], Awaitable[T]]) -> T:
        """Ask the store by a client of one's own."""

        async def asking() -> T:
            async with Lockbeat(self.server.url, namespace=NAMESPACE) as lb:
                return await question(lb)

        return asyncio.run(asking())


def periods(jobs: int, blocking: bool, versions: bool = False) -> dict[str, int]:
    """Every job that the instances declare, and its period in ms. All are anchored at the epoch.

    Of a job of which two versions have another the slots that both have.
    """
    found = {f"quick-{number}": 1000 for number in range(jobs)}
    found |= {"cron": 2000, "slow": 1000, "both": 1000, "thread": 2000, "retried": 1000}
    if blocking:
        found["blocking"] = 5000
    if versions:
        found |= {"changed": 2000, "tuned": 1000}
    return found


def entries_of(ledger: Mapping[bytes, bytes]) -> Iterator[Entry]:
    """The ledger as it lies in the store, read without lockbeat."""
    for key, value in ledger.items():
        job, at, slot = key.decode().rpartition("@")
        if at:
            head, attempts, policies = value.split(b"\xff")
            state, *_, code, _ = head.decode().split(" ", 10)
            how = attempts.rpartition(b"\xfe")[2].split(b" ", 5)[4:5]
            if state == "dead":
                state = "lost" if how == [b"lost"] else "failed"
            elif state in ("waiting", "running"):
                state = "retrying" if how and how != [b"-"] else "fired"
            last = json.loads(policies or b"{}").get("last", slot)
            yield Entry(job, int(slot), "cancelled" if state == "stopping" else state, int(last), "" if code == "-" else code)


@contextlib.contextmanager
def arena(directory: Path, size: Size, *, blocking: bool = False, versions: bool = False) -> Iterator[Arena]:
    """A server with an append-only file; whatever happens, nothing of it outlives the block."""
    data = directory / "data"
    data.mkdir()
    with servers.standalone(servers.valkey_binary(), aof_dir=data, extra=["aof-use-rdb-preamble no"]) as server:
        made = Arena(directory, server, size, blocking, versions)
        with contextlib.closing(made):
            yield made
