"""The one thing that a loop of ours waits on: a time, or being woken before it."""

from __future__ import annotations

import asyncio

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
