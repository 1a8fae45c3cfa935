"""The demo's instances: real processes, to be killed, frozen and brought back."""

from __future__ import annotations

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
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self) -> None:
        """A new process: a new instance to the store, whatever its letter."""
        home = str(Path(__file__).parents[3])
        env = os.environ | {
            jobs.NAME: self.name,
            jobs.EFFECTS: str(self._directory / "effects.jsonl"),
            "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH")))),
        }
        with self._log.open("ab") as log:
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

    def end(self) -> None:
        """SIGKILL: no goodbye. It is gone when this returns, whatever state it was in."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def freeze(self) -> None:
        """SIGSTOP: as a paused virtual machine, or a long garbage collection."""
        self.process.send_signal(signal.SIGSTOP)
        self.condition = "frozen"

    def thaw(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        self.process.send_signal(signal.SIGCONT)
        self.condition = "alive"

    def last_words(self) -> str:
        """The end of its log."""
        lines = self._log.read_text(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-3:] if line.strip()) or "its log is empty"

    @property
    def _log(self) -> Path:
        return self._directory / f"{self.name}.log"
