"""The demo's instances: real processes, to be killed, frozen and brought back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

from lockbeat.cli.demo import jobs

Condition = Literal["starting", "alive", "killed", "frozen", "stopped"]


class Member:
    """One instance, known by its letter through all its lives."""

    def __init__(self, name: str, directory: Path, url: str) -> None:
        self.name = name
        self.condition: Condition = "stopped"
        self._directory = directory
        self._url = url
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._directory / f"{self.name}.log"

    def start(self) -> None:
        """A new process: a new instance to the store, whatever its letter."""
        home = str(Path(__file__).parents[3])
        env = os.environ | {
            jobs.NAME: self.name,
            jobs.EFFECTS: str(self._directory / "effects.jsonl"),
            "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH")))),
        }
        with self.log.open("ab") as log:
            # A process group of its own keeps the terminal's Ctrl-C from it; a session of its own would keep a frozen
            # one frozen for ever if the demo was killed, since the kernel wakes only those that lose their parent's session.
            self._process = subprocess.Popen(  # noqa: S603 - this very Python
                [sys.executable, "-m", "lockbeat", "run", f"{jobs.__name__}:beat", "--url", self._url],
                env=env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self.condition = "starting"

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self._signal(signal.SIGKILL)
        self._gone()
        self.condition = "killed"

    def freeze(self) -> None:
        """SIGSTOP: as a paused virtual machine, or a long garbage collection."""
        self._signal(signal.SIGSTOP)
        self.condition = "frozen"

    def thaw(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        self._signal(signal.SIGCONT)
        self.condition = "alive"

    def terminate(self) -> None:
        """SIGTERM: shut down in order."""
        self._signal(signal.SIGTERM)

    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def end(self) -> None:
        """Gone when this returns, whatever state it was in."""
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGKILL)  # also ends a frozen one
        self._gone()

    def _gone(self) -> None:
        if self._process is not None:
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
