"""Standing by: instances share what is due, but not all of them need to ask at each due time. Pure.

Whoever asks and finds that another was first asks a little later next time, and later still the time after. Whoever finds what
nobody has taken in time asks on time again. So one instance, or as many as the load needs, fires on time, and the others look in
its wake; none of them leads, and if one dies the first of the others to look takes its place.
"""

from __future__ import annotations

from lockbeat.process import chance

FIRST, MOST = 0.005, 0.2
"""Seconds after a due time at which an instance asks that was in vain once; and at most."""
NEEDED_MS = 20
"""What is so late when it is found was left by the others, not just not asked for yet."""


class Standby:
    """How an instance asks on one shard."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds after a due time at which it asks; less at random, so that not all ask at once."""
        self._expected_ms = 0

    def asked(self, now_ms: int, due_ms: int | None, next_ms: int) -> None:
        """It asked at `now_ms`. due_ms: since when the first that it was handed is due; None: nothing was. next_ms: when the next
        comes due; 0: none does."""
        if due_ms is None:
            if 0 < self._expected_ms <= now_ms and next_ms != self._expected_ms:
                self.delay = min(max(2 * self.delay, FIRST), MOST)
        elif now_ms - due_ms >= max(NEEDED_MS, self.delay * 500):
            self.delay = 0.0
        self._expected_ms = 0

    def after(self, next_ms: int) -> float:
        """Seconds after that due time, for which it now waits, at which to ask; it counts as in vain if others were first."""
        self._expected_ms = next_ms
        return self.delay * chance.between(0.5, 1.0)
