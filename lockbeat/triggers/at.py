"""`At`: one slot, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import InvalidTrigger
from .base import FAR_MS, Trigger, instant_ms, isoformat

_FIRST_MS = -62_135_596_800_000  # the first instant of the year 1; one in the east of it is in the year 0


@dataclass(frozen=True, init=False)
class At(Trigger):
    """Fires once.

    when: an aware datetime before the year 3000, rounded up to whole milliseconds.

    Raises: InvalidTrigger ("when") for a naive datetime, since an instance's own time zone must not decide, and for a later one.
    """

    timezone = "UTC"
    when_ms: int

    def __init__(self, when: datetime) -> None:
        when_ms = instant_ms("when", when)
        if not _FIRST_MS <= when_ms < FAR_MS:
            raise InvalidTrigger("when", f"{when.isoformat()} is too far off: it must be before the year 3000")
        object.__setattr__(self, "when_ms", when_ms)

    def next(self, after_ms: int) -> int | None:
        return self.when_ms if self.when_ms > after_ms else None

    def prev(self, until_ms: int) -> int | None:
        return self.when_ms if self.when_ms <= until_ms else None

    def to_json(self) -> dict[str, Any]:
        return {"type": "at", "when_ms": self.when_ms}

    def __str__(self) -> str:
        return f"at {isoformat(self.when_ms)}"
