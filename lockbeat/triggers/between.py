"""`Between`: a trigger from a start, to an end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import InvalidTrigger
from .base import FAR_MS, Trigger, instant_ms, isoformat

_LONG_AGO = -FAR_MS


@dataclass(frozen=True, init=False)
class Between(Trigger):
    """Fires at the slots of a trigger from `start` on, and before `end`: a job's `start=` and `end=`.

    start, end: aware datetimes, or instants in milliseconds; None: no bound.

    Raises: InvalidTrigger ("start", "end") for a naive datetime, and for an end that does not come after the start.
    """

    trigger: Trigger
    start_ms: int | None
    end_ms: int | None

    def __init__(self, trigger: Trigger, start: datetime | int | None = None, end: datetime | int | None = None) -> None:
        start_ms, end_ms = _bound("start", start), _bound("end", end)
        if start_ms is not None and end_ms is not None and end_ms <= start_ms:
            raise InvalidTrigger("end", f"{isoformat(end_ms)} does not come after the start, {isoformat(start_ms)}")
        object.__setattr__(self, "trigger", trigger)
        object.__setattr__(self, "start_ms", start_ms)
        object.__setattr__(self, "end_ms", end_ms)

    @property
    def needs(self) -> int:  # type: ignore[override]
        return max(2, self.trigger.needs)

    @property
    def timezone(self) -> str:  # type: ignore[override]
        return self.trigger.timezone

    @property
    def zoned(self) -> bool:  # type: ignore[override]
        return self.trigger.zoned

    def of_job(self, job: str) -> Between:
        return Between(self.trigger.of_job(job), self.start_ms, self.end_ms)

    def next(self, after_ms: int) -> int | None:
        slot = self.trigger.next(self._after(after_ms))
        return None if slot is None or (self.end_ms is not None and slot >= self.end_ms) else slot

    def prev(self, until_ms: int) -> int | None:
        slot = self.trigger.prev(self._until(until_ms))
        return None if slot is None or (self.start_ms is not None and slot < self.start_ms) else slot

    def count(self, after_ms: int, until_ms: int, limit: int) -> int | None:
        return self.trigger.count(self._after(after_ms), self._until(until_ms), limit)

    def _after(self, after_ms: int) -> int:
        return after_ms if self.start_ms is None else max(after_ms, self.start_ms - 1)

    def _until(self, until_ms: int) -> int:
        return until_ms if self.end_ms is None else min(until_ms, self.end_ms - 1)

    def to_json(self) -> dict[str, Any]:
        data = {"type": "between", "trigger": self.trigger.to_json(), "start_ms": self.start_ms, "end_ms": self.end_ms}
        return {name: value for name, value in data.items() if value is not None}

    def __str__(self) -> str:
        start = "" if self.start_ms is None else f" from {isoformat(self.start_ms)}"
        return f"{self.trigger}{start}{'' if self.end_ms is None else f' until {isoformat(self.end_ms)}'}"


def between(trigger: Trigger, start: datetime | None, end: datetime | None) -> Trigger:
    """A trigger as a job declares it. Raises InvalidTrigger as well when no slot lies between start and end."""
    if start is None and end is None:
        return trigger
    bounded = Between(trigger, start, end)
    if bounded.next(_LONG_AGO) is None:
        raise InvalidTrigger("end" if end is not None else "start", f"{bounded}: has no slot")
    return bounded


def _bound(argument: str, when: datetime | int | None) -> int | None:
    found = when if when is None or type(when) is int else instant_ms(argument, when)
    if found is not None and not abs(found) < FAR_MS:
        raise InvalidTrigger(argument, "is too far off: it must be before the year 3000")
    return found
