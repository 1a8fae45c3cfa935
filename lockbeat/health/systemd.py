"""What systemd is told by sd_notify(3): that the instance serves, that it is about to end, and, while well, that it lives."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class Systemd:
    """The manager that started this process, where its unit has `Type=notify`; else nobody is told."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._where = environ.get("NOTIFY_SOCKET", "")
        self.watchdog: float | None = None
        """Seconds without a sign of life after which it ends this process (`WatchdogSec=`); None: never."""
        micros, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        if self._where and micros.isdecimal() and int(micros) and pid in ("", str(os.getpid())):
            self.watchdog = int(micros) / 1_000_000

    def __bool__(self) -> bool:
        """Whether there is anybody to be told."""
        return self._where[:1] in ("/", "@")

    def tell(self, *said: str) -> None:
        """Lines such as READY=1. Nothing waits for it, and what can't be told is not."""
        if not self or not said:
            return
        path = "\0" + self._where[1:] if self._where[0] == "@" else self._where
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto("\n".join(said).encode(), path)
