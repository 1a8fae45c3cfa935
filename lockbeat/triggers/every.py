"""`Every`: a fixed period, counted from an anchor and not from the start of the program.

An interval counted from the start fires at every restart and drifts; slots on a fixed grid do neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..errors import InvalidTrigger
from .base import Trigger, instant_ms

_MAX_MS = 3_653 * 86_400_000  # ten years
_MS = timedelta(milliseconds=1)
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


@dataclass(frozen=True, init=False)
class Every(Trigger):
    """Fires at anchor + k · period, for every whole k, negative ones too: an anchor is a phase, not a start.

    period: seconds or a timedelta, 0.001 s to ten years, a whole number of milliseconds.
    anchor: an aware datetime, or an instant in milliseconds; by default the Unix epoch.

    Raises: InvalidTrigger ("period", "anchor") for what is out of these bounds.
    """

    timezone = "UTC"
    period_ms: int
    anchor_ms: int  # brought into [0, period_ms), so that anchors of one phase are equal

    def __init__(self, period: float | timedelta, anchor: datetime | int | None = None) -> None:
        period_ms = _period_ms(period)
        object.__setattr__(self, "period_ms", period_ms)
        object.__setattr__(self, "anchor_ms", _anchor_ms(anchor) % period_ms)

    def next(self, after_ms: int) -> int:
        return self.prev(after_ms) + self.period_ms

    def prev(self, until_ms: int) -> int:
        return until_ms - (until_ms - self.anchor_ms) % self.period_ms

    def count(self, after_ms: int, until_ms: int, limit: int) -> int | None:
        found = max(0, (self.prev(until_ms) - self.prev(after_ms)) // self.period_ms)
        return found if found <= limit else None

    def to_json(self) -> dict[str, Any]:
        return {"type": "every", "period_ms": self.period_ms, "anchor_ms": self.anchor_ms}

    def __str__(self) -> str:
        phase = f" (+{human(self.anchor_ms)})" if self.anchor_ms else ""
        return f"every {human(self.period_ms)}{phase}"


def _period_ms(period: object) -> int:
    if isinstance(period, bool) or not isinstance(period, int | float | timedelta):
        written = "; write @beat.every(SECONDS)" if callable(period) else ""
        raise InvalidTrigger("period", f"must be seconds or a timedelta, not {type(period).__name__}{written}")
    if isinstance(period, float) and not math.isfinite(period):
        raise InvalidTrigger("period", f"must be finite, not {period}")
    seconds = period if not isinstance(period, timedelta) else period.total_seconds()
    # Compared before it is multiplied: an int of a thousand digits can't become a float.
    if not 0.001 <= seconds <= _MAX_MS // 1000:
        raise InvalidTrigger("period", "must be 0.001 s to ten years")
    ms = round(seconds * 1000)
    if isinstance(period, timedelta):
        exact = period == ms * _MS
    else:
        # 0.29 * 1000 is 289.99999999999994: what a float can't say must not be held against it.
        exact = math.isclose(seconds * 1000, ms, rel_tol=1e-12)
    if not exact:
        raise InvalidTrigger("period", f"must be a whole number of milliseconds, not {seconds * 1000:.16g} ms")
    return ms


def _anchor_ms(anchor: object) -> int:
    if anchor is None:
        return 0
    if isinstance(anchor, int) and not isinstance(anchor, bool):
        return anchor
    if not isinstance(anchor, datetime):
        raise InvalidTrigger("anchor", f"must be an aware datetime or milliseconds, not {type(anchor).__name__}")
    return instant_ms("anchor", anchor)


def human(ms: int) -> str:
    """1m30s, 250ms, 1d: the two largest units would lie about an odd period, so all that are not zero."""
    parts = []
    for unit, size in _UNITS:
        n, ms = divmod(ms, size)
        if n:
            parts.append(f"{n}{unit}")
    return "".join(parts)
