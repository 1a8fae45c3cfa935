"""A site: a web server of several processes, started as its users start it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockbeat.monitor import instances
from lockbeat.sync import Lockbeat
from tests.conftest import PATIENCE
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "web"
LONG = 2 * PATIENCE
"""Seconds until several processes count as never coming up."""
RUN = re.compile(r"slot ([\d:]+) by process (\d+)\n")


class Site:
    """A web server and its processes, all of one session, whose output goes to one file."""

    def __init__(self, command: list[str], folder: Path, log: Path, store: str, namespace: str) -> None:
        self.port = free_port()
        words = [word.replace("PORT", str(self.port)) for word in command]
        environment = os.environ | {
            "LOCKBEAT_URL": store,
            "LOCKBEAT_NAMESPACE": namespace,
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "PYTHONWARNINGS": "default",
        }
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.log.read_text()

    def runs(self) -> list[tuple[str, int]]:
        """Which slot ran in which process, in the order in which they said so."""
        return [(slot, int(pid)) for slot, pid in RUN.findall(self.text())]

    def post(self, path: str) -> Any:
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method="POST")
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:  # noqa: S310
            return json.loads(answer.read())

    def until(self, condition: Callable[[], object], description: str) -> None:
        """Wait for it; AssertionError with what the site has said when it never came true, or when the site has ended."""
        deadline = time.monotonic() + LONG
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.text()}"
            assert time.monotonic() < deadline, f"never happened within {LONG:g} s: {description}\n{self.text()}"
            time.sleep(0.05)

    def alive(self) -> bool:
        """Whether a process of its session is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 0)
            return True
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM, *, to_all: bool = False) -> None:
        """Ask it to end: its first process, as a supervisor does, or all at once, as Ctrl-C does."""
        if to_all:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        code = self.process.wait(LONG)
        assert code in (0, -number, 128 + number), f"exit code {code}: {self.text()}"
        deadline = time.monotonic() + LONG
        while self.alive():
            assert time.monotonic() < deadline, f"processes were left behind: {self.text()}"
            time.sleep(0.05)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def owners(lb: Lockbeat) -> dict[int, str]:
    """The instances that live, by process."""
    opened = lb.reach()
    return {one.pid or 0: one.owner for one in opened.portal.call(lambda: instances(opened.lb.store))}


@pytest.fixture
def site(tmp_path: Path, url: str, namespace: str) -> Iterator[Callable[..., Site]]:
    """Starts a site by the words of a command; PORT stands for a free one."""
    started: list[Site] = []

    def start(*command: str, folder: Path = EXAMPLES, store: str = url) -> Site:
        started.append(Site([*command], folder, tmp_path / f"log{len(started)}", store, namespace))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def slb(url: str, namespace: str) -> Iterator[Lockbeat]:
    """A blocking client of the site's store."""
    with Lockbeat(url, namespace=namespace) as client:
        yield client
