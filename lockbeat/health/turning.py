"""Whether an event loop turns, as other threads see it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from time import monotonic

LATE = 3.0
"""Seconds between two looks, at least, after which the one who looks was held up himself."""


class Turning:
    """Asks a loop to turn, at each look, and knows since when it has not.

    lagged: told, in the loop's thread, how many seconds it took to turn.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lagged: Callable[[float], object] | None = None) -> None:
        self.resumed_at = monotonic()
        """When somebody last looked after a time in which nobody could: the process was frozen, or one C call held it."""
        self._loop = loop
        self._lagged = lagged
        self._lock = threading.Lock()
        self._asked_at: float | None = None  # None: it has turned since
        self._looked_at: float | None = None

    def look(self, *, watching: bool = False) -> float:
        """Seconds for which it has not turned; 0: it has, since the last look.

        watching: who looks does so each second. If that was longer ago, time has passed in which nobody could look.
        """
        with self._lock:
            now = monotonic()
            if self._looked_at is not None and now - self._looked_at > LATE:
                self.resumed_at = self._looked_at = now
            if watching:
                self._looked_at = now
            if self._asked_at is None:
                self._asked_at = now
                with contextlib.suppress(RuntimeError):  # it is closed, and turns no more
                    self._loop.call_soon_threadsafe(self._turned, now)
                return 0.0
            return now - max(self._asked_at, self.resumed_at)

    def _turned(self, asked_at: float) -> None:
        self._asked_at = None
        if self._lagged is not None:
            self._lagged(monotonic() - asked_at)
