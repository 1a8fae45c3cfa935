"""Celery's own programs as processes, with a real Redis as their broker, and what ran in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lockbeat.sync import Lockbeat
from tests.servers import Server, standalone, valkey_binary, wait_until

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
LOCKBEAT, SHADOW = "lockbeat.celery:Scheduler", "lockbeat.celery:Shadow"
REDBEAT, PLAIN = "redbeat.RedBeatScheduler", "celery.beat.PersistentScheduler"


class Program:
    """`celery -A tests.celery.proj ...`, its output in a file."""

    def __init__(self, directory: Path, args: list[str], env: Mapping[str, str]) -> None:
        directory.mkdir(parents=True)
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tests.celery.proj", *args],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, text: str) -> None:
        """Wait until it does."""
        wait_until(lambda: text in self.said or self.popen.poll() is not None, f"{text!r} in {self.log}", PATIENCE)
        assert text in self.said, self.said

    def kill(self) -> None:
        """kill -9, of its children as well. Idempotent."""
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def ends(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.popen.send_signal(number)
        return self.popen.wait(PATIENCE)


@dataclass
class Arena:
    """A broker, a store, a record, and the programs of a project."""

    directory: Path
    broker: Server
    store: Server
    record: Server
    env: dict[str, str] = field(default_factory=dict)
    conf: dict[str, Any] = field(default_factory=dict)
    broker_url: str = ""
    """What the project is told; where it is not the broker's own, there is something between."""
    programs: list[Program] = field(default_factory=list)
    _lb: Lockbeat | None = None

    def _start(self, name: str, args: list[str], env: Mapping[str, str]) -> Program:
        said = {"BROKER": self.broker_url or self.broker.url, "RECORD": self.record.url, "CONF": json.dumps(self.conf)}
        started = Program(self.directory / f"{name}-{len(self.programs)}", args, {**said, **self.env, **env})
        self.programs.append(started)
        return started

    def beat(self, scheduler: str = LOCKBEAT, *args: str, **env: str) -> Program:
        return self._start("beat", ["beat", "-S", scheduler, "-l", "INFO", *args], env)

    def worker(self, *args: str, **env: str) -> Program:
        """A worker, once it is ready."""
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        started = self._start("worker", ["worker", "-l", "INFO", "-c", "2", *quiet, *args], {"BROKER": self.broker.url, **env})
        started.says("ready.")
        return started

    @property
    def ran(self) -> list[dict[str, Any]]:
        """What the worker's tasks wrote down, in the order in which they did."""
        with self.record.client() as client:
            lines: Any = client.lrange("record", 0, -1)
            return [json.loads(line) for line in lines]

    def wait_ran(self, wanted: Callable[[list[dict[str, Any]]], object], what: str) -> list[dict[str, Any]]:
        """What ran, when it is so."""
        wait_until(lambda: wanted(self.ran), f"{what} in {self.ran[-5:]}", PATIENCE)
        return self.ran

    @property
    def lb(self) -> Lockbeat:
        """The store."""
        if self._lb is None:
            self._lb = Lockbeat(self.store.url)
        return self._lb

    @property
    def waiting(self) -> int:
        """How many messages wait in the broker."""
        with self.broker.client() as client:
            number: Any = client.llen("celery")
            return int(number)

    def close(self) -> None:
        for program in self.programs:
            program.kill()
        if self._lb is not None:
            self._lb.close()


@contextmanager
def arena(directory: Path, *, apart: bool = True) -> Iterator[Arena]:
    """apart: the store is not in the broker."""
    with ExitStack() as stack:
        servers = [stack.enter_context(standalone(valkey_binary())) for _ in range(3 if apart else 2)]
        field = Arena(directory, servers[0], servers[2 if apart else 0], servers[1])
        if apart:
            field.conf["lockbeat_url"] = field.store.url
        stack.callback(field.close)
        yield field


@dataclass(frozen=True)
class Verdict:
    """What became of the slots of an arena's entries."""

    slots: int
    once: int
    twice: dict[str, int]
    """By task id, what ran more often."""
    told: int
    """That did not run, and of which the ledger says why."""
    lost: list[str]
    """Of which nothing is known."""
    unknown: list[str]
    """What ran that is no slot's."""


def judge(field: Arena, names: list[str], period_ms: int, first_ms: int, last_ms: int) -> Verdict:
    """Compare what ran with the slots of entries from `first_ms` to `last_ms`, and with the ledger."""
    from lockbeat.celery import task_id
    from lockbeat.values.durations import instant

    ran = Counter(line["id"] for line in field.ran)
    slots = range(-(-first_ms // period_ms) * period_ms, last_ms + 1, period_ms)
    ids = {task_id(name, instant(slot)): (name, slot) for name in names for slot in slots}
    ledgers = {name: field.lb.jobs.ledger(name, 10_000) for name in names}
    told, lost = 0, list[str]()
    for key, (name, slot) in ids.items():
        if ran[key]:
            continue
        why = next((each for each in ledgers[name] if each.slot_ms <= slot <= (each.last_ms or each.slot_ms)), None)
        if why is not None and why.state in ("missed", "skipped", "failed", "cancelled"):
            told += 1
        else:
            lost.append(f"{name}@{slot}: {why.state if why else 'not in the ledger'}")
    earliest, latest = slots[0], slots[-1]
    known = {task_id(name, instant(slot)) for name in names for slot in range(earliest - 120_000, latest + 120_000, period_ms)}
    return Verdict(
        len(ids),
        sum(ran[key] == 1 for key in ids),
        {key: count for key, count in ran.items() if count > 1},
        told,
        lost,
        [key for key in ran if key not in known],
    )
