"""The one thing that a loop of ours waits on, and how such a loop goes on whatever happens to the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NoReturn

from lockbeat.connection import outage
from lockbeat.errors import NotDurable, StoreError

log = logging.getLogger("lockbeat")

LOOK_IN_MEMORY = 0.1
"""Seconds. Against `memory://` a test may move time, which wakes nobody: look again this often."""


def at_most(seconds: float | None, limit: float | None) -> float | None:
    """The shorter of two waits, either of which may be without limit."""
    if seconds is None or limit is None:
        return limit if seconds is None else seconds
    return min(seconds, limit)


class Wakeup:
    """Wakes one loop. A ring while it is at work is not lost: the next wait returns at once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake the loop, now or when it next waits."""
        self._event.set()

    async def wait(self, seconds: float | None) -> bool:
        """Wait for a ring, for at most `seconds` (None: without limit). Whether it rang."""
        if not self._event.is_set() and (seconds is None or seconds > 0):
            try:
                async with asyncio.timeout(seconds):
                    await self._event.wait()
            except TimeoutError:
                return False
        rang = self._event.is_set()
        self._event.clear()
        return rang

    async def keep_turning(
        self,
        tick: Callable[[], Awaitable[float | None]],
        *,
        doing: str,
        blocked: str,
        longest_pause: float,
        look: float | None,
        told: Callable[[], bool],
    ) -> NoReturn:
        """Take turns, and wait between them for as long as each says (None: for a ring), for at most `look` seconds.

        Until cancelled: losing the store ends nothing, it is asked again after 0.05 s to `longest_pause`, and an error of ours
        is logged. `doing` ("firing") and `blocked` ("can't ask what is due") are for the log, unless it is `told` of the outage.

        A turn that goes well soon after one that failed proves little: what can't be read in the store may stop every other turn.
        It is back when a turn has gone well a while after the last failure. Until then the log has one line a minute.
        """
        pace = outage.Pace(longest_pause)
        failed_at: float | None = None
        told_at: float | None = None
        while True:
            tell = told_at is None or monotonic() >= told_at + outage.REMIND
            try:
                again = await tick()
                if failed_at is not None and monotonic() < failed_at + outage.STEADY:
                    again = at_most(again, outage.STEADY)
                elif failed_at is not None:
                    if told_at is not None:
                        log.info("%s again", doing)
                    pace, failed_at, told_at = outage.Pace(longest_pause), None, None
            except StoreError as problem:
                failed_at = monotonic()
                if tell and (isinstance(problem, NotDurable) or not told()):
                    told_at = failed_at
                    log.warning("%s: %s", blocked, problem)
                pace.failed()
                again = pace.wait()
            except Exception:
                failed_at = monotonic()
                if tell:
                    told_at = failed_at
                    log.exception("%s failed, and goes on", doing)
                again = 1.0
            await self.wait(at_most(again, look))
