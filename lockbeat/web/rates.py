"""How much happens in a second: from counts that the store keeps for ever, between two looks at them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LEAST, WINDOW, OLD = 1.0, 60.0, 600.0
"""Seconds: nothing is told of less time; of more than WINDOW where nobody looked in between; of more than OLD at first."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How often a second, over the time between two looks."""

    seconds: float
    fired: float
    """Slots."""
    made: float
    """Tasks: fired, spawned and triggered."""
    begun: float
    """Attempts, less those that were left to others."""
    done: float
    bad: float
    """Attempts that failed or were lost, the last of a task or not."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The counts of a store at one moment, by the server's clock."""

    at: float
    fired: int
    made: int
    begun: int
    done: int
    bad: int

    @property
    def counts(self) -> tuple[int, ...]:
        return self.fired, self.made, self.begun, self.done, self.bad

    def is_less_than(self, before: Seen) -> bool:
        """The store was emptied since. That fewer were begun says nothing: some may have been left to others."""
        least = before.fired, before.made, before.done, before.bad
        return any(new < old for new, old in zip((self.fired, self.made, self.done, self.bad), least, strict=True))


class Looks:
    """What was seen in the last minute, and once before."""

    def __init__(self) -> None:
        self._seen = deque[Seen]()

    def rates(self, now: Seen) -> Rates | None:
        """Since a minute ago, or since the last look before; None: this is the first look, or the store was emptied since."""
        seen = self._seen
        if seen and (now.at < seen[-1].at or now.is_less_than(seen[-1])):
            seen.clear()
        while len(seen) > 1 and (now.at - seen[1].at >= WINDOW or now.at - seen[0].at > OLD):
            seen.popleft()
        found = None
        if seen and (elapsed := now.at - seen[0].at) >= LEAST:
            found = Rates(elapsed, *(max(new - old, 0) / elapsed for new, old in zip(now.counts, seen[0].counts, strict=True)))
        if not seen or now.at - seen[-1].at >= LEAST:
            seen.append(now)
        return found
