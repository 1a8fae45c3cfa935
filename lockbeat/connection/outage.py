"""An outage of the store: when to try again, and what the log says of it."""

from __future__ import annotations

import logging
import math
import threading
import time

from lockbeat.events import Hooks, StoreBack, StoreLost
from lockbeat.process import chance

log = logging.getLogger("lockbeat")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds
STEADY = 2.0
"""Seconds. A connection that lasted for less was no success: a server that is loading, or full, accepts and hangs up."""
REMIND = 60.0
"""Seconds between two lines of the log on one outage."""
STALE = 15.0
"""Seconds after which a connection that failed, and that nobody has asked for since, says nothing of the store any more."""


class Pace:
    """When what failed may be tried again: at once, or after a pause that grows, with jitter, while tries fail.

    longest: seconds, the bound on a pause.
    """

    def __init__(self, longest: float = LONGEST_PAUSE) -> None:
        self._longest = longest
        self._pause = 0.0
        self._not_before = 0.0

    def failed(self, longest: float = math.inf) -> None:
        """A try failed. `longest`: seconds, another bound."""
        self._pause = min(max(2 * self._pause, SHORTEST_PAUSE), self._longest, longest)
        self._not_before = time.monotonic() + self._pause * chance.between(0.5, 1.0)

    def lost(self, lasted: float, longest: float = math.inf) -> None:
        """A connection is gone that lasted for so many seconds. The first try after one that was steady is made at once."""
        if lasted >= STEADY:
            self._pause = self._not_before = 0.0
        else:
            self.failed(longest)

    def wait(self) -> float:
        """Seconds until the next try; 0: now."""
        return max(self._not_before - time.monotonic(), 0.0)


class Outage:
    """Tells the log that the store is away: when it is lost, once a minute, and when it is back.

    One for all connections of a client, which live in several threads.
    """

    def __init__(self, where: str) -> None:
        self.away = False
        self.events: Hooks | None = None
        """Who is told that the store is away, and that it is back."""
        self._where = where
        self._since = self._told = 0.0
        self._failing: dict[int, float] = {}  # connections, and until when their failing counts
        self._settling: dict[int, float] = {}  # connections that were refused, and until when a good reply proves nothing
        self._lock = threading.Lock()

    def failed(self, connection: object, reason: str, *, refused: bool = False) -> None:
        """A connection could not be made; or the server `refused` to work, though it may answer other calls."""
        now = time.monotonic()
        with self._lock:
            self._failing[id(connection)] = now + STALE
            if refused:
                self._settling[id(connection)] = now + STEADY
            before, self.away = self.away, True
            if not before:
                self._since = self._told = now
            elif now - self._told < REMIND:
                return
            else:
                self._told = now
            lasted = now - self._since
        if before:
            log.warning("the store has been away for %.0f s: %s", lasted, reason)
        else:
            log.warning("the store is away, trying again: %s: %s", self._where, reason)
            if self.events is not None and self.events.store_lost.heard:
                self.events.store_lost.tell(StoreLost(self._where, reason))

    def over(self, connection: object) -> None:
        """A connection works. The store is back unless another one still fails."""
        now = time.monotonic()
        with self._lock:
            if self._settling.get(id(connection), 0.0) > now:
                return
            self._failing.pop(id(connection), None)
            if not self.away or any(until > now for until in self._failing.values()):
                return
            self.away = False
            self._failing.clear()
            self._settling.clear()
            lasted = now - self._since
        log.info("the store is back after %.1f s", lasted)
        if self.events is not None and self.events.store_back.heard:
            self.events.store_back.tell(StoreBack(self._where, lasted))

    def forget(self, connection: object) -> None:
        """A connection is closed for good."""
        with self._lock:
            self._failing.pop(id(connection), None)
            self._settling.pop(id(connection), None)
