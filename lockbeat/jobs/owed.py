"""Slots that an instance was handed and could not fire. Pure."""

from __future__ import annotations

MOST = 1000
FORGOTTEN = 10.0
"""Seconds after which a slot that was not handed out again was fired by another, or has moved on."""


class Owed:
    """Of each slot that was handed out and not fired, when that was so first and last. Others may have fired it since."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, str], tuple[float, float]] = {}

    def left(self, name: str, expected: str, now: float) -> None:
        """It was handed to this instance, which asked for it to be fired, and it was not."""
        first, last = self._slots.get((name, expected), (now, now))
        self._slots[name, expected] = (first if now - last < FORGOTTEN else now, now)
        if len(self._slots) > MOST:
            self._slots = {slot: times for slot, times in self._slots.items() if now - times[1] < FORGOTTEN}
            while len(self._slots) > MOST:
                del self._slots[next(iter(self._slots))]

    def longest(self, now: float) -> tuple[str, float] | None:
        """The one that is handed out for longest: its job, and for how many seconds. None: none is."""
        standing = [(last - first, name) for (name, _), (first, last) in [*self._slots.items()] if now - last < FORGOTTEN]
        if not standing:
            return None
        seconds, name = max(standing)
        return f"a slot of {name}", seconds
