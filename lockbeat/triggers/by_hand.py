"""`ByHand`: no slots. A job that has it runs when somebody triggers it, and only then.

`Called`: slots that nobody fires. Each is run by the first who calls for it, as crontabs do by `lockbeat exec`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InvalidTrigger
from .base import Trigger
from .every import human


@dataclass(frozen=True)
class ByHand(Trigger):
    """Never fires."""

    needs = 2
    timezone = "UTC"

    def next(self, after_ms: int) -> int | None:
        return None

    def prev(self, until_ms: int) -> int | None:
        return None

    def to_json(self) -> dict[str, Any]:
        return {"type": "by_hand"}

    def __str__(self) -> str:
        return "by hand"


@dataclass(frozen=True)
class Called(ByHand):
    """To whoever plans and fires, no slots; `slots` are those that people are told of, and callers choose from.

    slots: None: whenever somebody calls, but no sooner than `least_ms` after the one before.
    """

    slots: Trigger | None = None
    least_ms: int = 0

    @property
    def needs(self) -> int:  # type: ignore[override]
        return 3 if self.slots is None else max(3, self.slots.needs)

    def __post_init__(self) -> None:
        if isinstance(self.slots, ByHand):
            raise InvalidTrigger("slots", "must be a trigger that has some")
        if (self.slots is None) == (self.least_ms <= 0):
            raise InvalidTrigger("slots", "must be given, or else least_ms, which is positive")

    @property
    def timezone(self) -> str:  # type: ignore[override]
        return "UTC" if self.slots is None else self.slots.timezone

    def of_job(self, job: str) -> Called:
        return self if self.slots is None else Called(self.slots.of_job(job))

    def to_json(self) -> dict[str, Any]:
        said = {"least_ms": self.least_ms} if self.slots is None else {"slots": self.slots.to_json()}
        return {"type": "called", **said}

    def __str__(self) -> str:
        return f"at most once per {human(self.least_ms)}" if self.slots is None else f"{self.slots}, when called"
