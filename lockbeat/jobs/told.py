"""What the log was told of lately, so that it is not told the same at every turn."""

from __future__ import annotations

import math

from lockbeat.connection.outage import REMIND
from lockbeat.leases.lease import monotonic

MOST_TOLD = 1000


class Told:
    """Remembers for a minute, and of the latest thousand."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def may(self, what: str) -> bool:
        """Whether the log may be told of this now; then it counts as told."""
        if monotonic() < self._at.get(what, -math.inf) + REMIND:
            return False
        self._at.pop(what, None)
        self._at[what] = monotonic()
        if len(self._at) > MOST_TOLD:
            del self._at[next(iter(self._at))]
        return True
