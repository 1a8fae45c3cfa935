"""`lockbeat exec` as processes, of which nothing is left after a test; and what their commands say."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lockbeat.embedded import EmbeddedServer
from lockbeat.triggers import Every
from tests.cli.conftest import Lockbeat, Process, lockbeat, plain_environment, raw, server, store, wait_until

__all__ = ["Exec", "Host", "Lockbeat", "alive", "lockbeat", "plain_environment", "raw", "server", "store", "wait_until"]

PERIOD = 3600
"""Seconds between the slots of most tests."""
SLOTS = Every(PERIOD)


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Host(Process):
    """One `lockbeat exec ... -- CMD`, as a host's cron calls it."""

    def __init__(self, directory: Path, args: Sequence[str], env: dict[str, str], stdin: int) -> None:
        super().__init__(directory, ["exec", *args], env, stdin, directory)

    def number(self, name: str) -> int:
        """What its command says of itself as NAME=NUMBER."""
        self.says(f"{name}=")
        wait_until(lambda: "\n" in self.out.partition(f"{name}=")[2], f"{name} on stdout")
        return int(self.out.partition(f"{name}=")[2].split()[0])

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def ends(self, timeout: float = 60.0) -> int:
        return self.popen.wait(timeout)


Exec = Callable[..., Host]


@pytest.fixture
def execute(tmp_path: Path, server: EmbeddedServer, store: str) -> Iterator[Exec]:
    """Starts `lockbeat exec` on the test's store."""
    started: list[Host] = []

    def run(*args: str, url: str | None = None, stdin: int = subprocess.DEVNULL, **env: str) -> Host:
        at = next((n for n, arg in enumerate(args) if arg == "--"), len(args))
        where = ["--url", f"unix://{server.socket_path}" if url is None else url]
        started.append(Host(tmp_path / f"host-{len(started)}", [*args[:at], *where, *args[at:]], env, stdin))
        return started[-1]

    yield run
    for host in started:
        if host.popen.poll() is None:
            host.popen.send_signal(signal.SIGCONT)
            host.popen.kill()  # its guardian ends the rest
        host.popen.wait()
        for word in ("pid", "child"):
            if found := re.search(rf"{word}=(\d+)", host.out):
                wait_until(partial(_is_gone, int(found[1])), "the command is gone")


def _is_gone(pid: int) -> bool:
    return not alive(pid)


@pytest.fixture
def old(raw: Any) -> None:
    """The store was first written to long ago."""
    raw.set("{lockbeat:0}:epoch", 1)
