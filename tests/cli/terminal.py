"""A command on a terminal of its own, as a person runs it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from types import TracebackType
from typing import Self

from .conftest import ROOT

LINES, COLUMNS = 40, 120


class Terminal:
    """`python -m lockbeat ...` with a terminal for stdin, stdout and stderr."""

    def __init__(self, *args: str) -> None:
        self._fd, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        os.set_blocking(self._fd, False)
        self.said, self._heard = "", 0
        env = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
        env = {name: value for name, value in env.items() if name not in ("LINES", "COLUMNS", "NO_COLOR", "FORCE_COLOR")}

        def take() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal

        self._process = subprocess.Popen(
            [sys.executable, "-m", "lockbeat", *args], stdin=side, stdout=side, stderr=side, env=env, preexec_fn=take
        )
        os.close(side)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def says(self, text: str, timeout: float = 90.0) -> None:
        """Wait for it, in what was said since the last one that was waited for."""
        deadline, since = time.monotonic() + timeout, ""
        while text not in since:
            assert time.monotonic() < deadline, f"never said within {timeout:g} s: {text!r}; but {since!r}"
            assert self._read() or self._process.poll() is None, f"ended without {text!r}: {since!r}"
            since = self.said[self._heard :]
        self._heard += since.index(text) + len(text)

    def types(self, keys: str) -> None:
        """Press keys; \\x03 is Ctrl-C."""
        os.write(self._fd, keys.encode())

    def signals(self, number: int) -> None:
        self._process.send_signal(number)

    def stops(self, timeout: float = 90.0) -> None:
        """Wait until it is stopped, as by Ctrl-Z."""
        deadline = time.monotonic() + timeout
        while not os.WIFSTOPPED(os.waitpid(self._process.pid, os.WUNTRACED | os.WNOHANG)[1]):
            assert time.monotonic() < deadline, f"still runs: {self.said[-500:]!r}"
            self._read()

    def ends(self, timeout: float = 90.0) -> int:
        """Wait for its exit code, and read the rest."""
        deadline = time.monotonic() + timeout
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"still runs: {self.said[-500:]!r}"
            self._read()
        while self._read():
            pass
        return self._process.returncode

    def _read(self) -> bool:
        """Take what it has said; False: nothing, for now."""
        try:
            said = os.read(self._fd, 1 << 16)
        except OSError:  # nothing yet; or, as Linux has it, the other side has closed
            time.sleep(0.01)
            return False
        self.said += said.decode(errors="replace")
        return bool(said)
