"""`At`: one slot, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .base import Trigger, instant_ms, isoformat


@dataclass(frozen=True, init=False)
class At(Trigger):
    """Fires once, at `when`: an aware datetime, rounded up to whole milliseconds.

    Raises InvalidTrigger ("when") for a naive datetime: an instance's own time zone must not decide.
    """

    when_ms: int

    def __init__(self, when: datetime) -> None:
        object.__setattr__(self, "when_ms", instant_ms("when", when))

    def next(self, after_ms: int) -> int | None:
        return self.when_ms if self.when_ms > after_ms else None

    def prev(self, until_ms: int) -> int | None:
        return self.when_ms if self.when_ms <= until_ms else None

    def to_json(self) -> dict[str, Any]:
        return {"type": "at", "when_ms": self.when_ms}

    def __str__(self) -> str:
        return f"at {isoformat(self.when_ms)}"
