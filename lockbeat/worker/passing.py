"""Tasks whose functions a worker lacks: how it passes them, and looks at them again."""

from __future__ import annotations

from lockbeat.leases.lease import monotonic
from lockbeat.store.wakeup import at_most


class Passing:
    """How far a worker has passed tasks whose functions it lacks, so that those behind them are reached.

    They stay where they are, in front: now and then it looks at all of them again, for at most a twentieth of the time.
    """

    def __init__(self) -> None:
        self._after: dict[int, dict[str, str]] = {}
        self._began: dict[int, float] = {}
        self._again: dict[int, float] = {}

    def after(self, shard: int) -> dict[str, str]:
        """Where the next claim is to begin."""
        after = self._after.get(shard)
        if not after or monotonic() >= self._again.get(shard, 0):
            self._began[shard], self._again[shard] = monotonic(), float("inf")
            return {}
        return after

    def claimed(self, shard: int, after: dict[str, str], wake: float | None) -> float | None:
        """A claim has got so far, and would be made again in `wake` seconds. When it is to be."""
        self._after[shard] = after
        if not after or (wake is not None and wake <= 0):
            return wake
        now = monotonic()
        if self._again[shard] == float("inf"):
            self._again[shard] = now + max(1.0, 20 * (now - self._began[shard]))
        return at_most(self._again[shard] - now, wake)
