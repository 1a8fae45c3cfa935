"""Looks after an instance from a thread of its own, for its event loop may be what is stuck."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from lockbeat.health.state import Health, Phase
from lockbeat.health.systemd import Systemd

STEP = 1.0
"""Seconds between two looks, at most."""
SAID = {"serving": ("READY=1", "STATUS=serves"), "draining": ("STOPPING=1", "STATUS=shuts down")}


class Watch:
    """Looks every second whether the event loop turns, while its block runs, and tells systemd.

    A sign of life is given while the instance is live and its loop has turned since the last look: `WatchdogSec=` says by itself
    for how long it may stand still.
    """

    def __init__(self, health: Health, systemd: Systemd | None = None) -> None:
        self._health = health
        self._systemd = Systemd() if systemd is None else systemd
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lockbeat health", daemon=True)

    def __enter__(self) -> Self:
        if self._systemd:
            self._health.changed = self._tell
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._health.changed = None
        self._over.set()
        self._thread.join(STEP)

    def _tell(self, phase: Phase) -> None:
        self._systemd.tell(*SAID.get(phase, ()))

    def _look(self) -> None:
        watchdog = self._systemd.watchdog
        step = STEP if watchdog is None else min(STEP, watchdog / 4)
        while not self._over.wait(step):
            still = self._health.still(watching=True)
            if watchdog is not None and not still and self._health.live().ok:
                self._systemd.tell("WATCHDOG=1")
