"""The one thing that a loop of ours waits on: a time, or being woken before it."""

from __future__ import annotations

import asyncio


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
