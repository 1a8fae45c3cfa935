"""Whether the program's event loop turns, as the keeper's thread sees it: being alive is not enough to be renewed for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

from lockbeat.leases.lease import monotonic
from lockbeat.process.stacks import all_stacks, stack_of, task_in

log = logging.getLogger("lockbeat")

STEP = 5.0
"""Seconds between two looks, at most."""
SIGN = 10.0
"""Seconds of standing still after which the keeper says so in the instance's name, and again each time."""


class Stall:
    """Watches one event loop from another thread. Made in the loop's own thread.

    limit: seconds without a turn after which the leases are given up; None: never. sign: called in the watching thread, with
    the seconds the loop has stood still and whether the leases are given up, at each SIGN, and when they are.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float | None) -> None:
        self.limit = limit
        self.sign: Callable[[float, bool], object] | None = None
        self.given_up = False
        self._loop = loop
        self._thread = threading.get_ident()
        self._asked = False
        self._since = self._looked_at = monotonic()
        self._signed = 0.0

    @property
    def step(self) -> float:
        """Seconds until the next look."""
        return STEP if self.limit is None else min(STEP, self.limit / 4)

    def look(self) -> bool:
        """Ask the loop to turn. True: it has not for so long that its leases are to be given up; once a standstill."""
        now = monotonic()
        # This thread was late itself: the process was frozen, or one C call held the interpreter. Neither is the loop's fault.
        late, self._looked_at = now - self._looked_at > 2 * self.step + 1, now
        if not self._asked:
            if self.given_up:
                log.info("the event loop turns again")
            self._asked, self.given_up, self._signed = True, False, 0.0
            self._since = now
            with contextlib.suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._turned)
            return False
        if late and not self.given_up:
            self._since = now
        still = now - self._since
        give_up = self.limit is not None and still >= self.limit and not self.given_up
        self.given_up = self.given_up or give_up
        if self.sign is not None and (give_up or still - self._signed >= SIGN):
            self._signed = still
            self.sign(still, self.given_up)
        return give_up

    def _turned(self) -> None:
        self._asked = False

    def say_given_up(self, leases: int) -> None:
        """Log that all leases are given up, and where every thread is."""
        log.critical(
            "the event loop has not turned for %.3g s, in %s: no lease of this instance is renewed any more (%d are held)",
            monotonic() - self._since,
            task_in(self._loop) or "no task of its own",
            leases,
            extra={"stacks": all_stacks()},
        )

    def where(self) -> str:
        """What the loop's thread is at; empty while the loop turns."""
        return f"{task_in(self._loop)} blocks the event loop:\n{stack_of(self._thread)}" if self._asked else ""
