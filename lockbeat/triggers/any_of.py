"""`AnyOf`: several triggers of one job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InvalidTrigger
from .base import Trigger

MOST = 50


@dataclass(frozen=True, init=False)
class AnyOf(Trigger):
    """Fires at the slots of each of its triggers; where several have the same instant, that is one slot.

    triggers: `Cron`, `Every`, `At`, up to fifty; their order is of no matter.

    Raises: InvalidTrigger ("triggers") for none, too many, or what is no trigger.
    """

    triggers: tuple[Trigger, ...]

    def __init__(self, *triggers: Trigger) -> None:
        found: dict[Trigger, None] = {}
        for one in triggers:
            if not isinstance(one, Trigger):
                raise InvalidTrigger("triggers", f"must be triggers such as Cron or Every, not {type(one).__name__}")
            found.update(dict.fromkeys(one.triggers if isinstance(one, AnyOf) else (one,)))
        if not 1 <= len(found) <= MOST:
            raise InvalidTrigger("triggers", f"must be 1 to {MOST}, not {len(found)}")
        object.__setattr__(self, "triggers", tuple(sorted(found, key=lambda one: sorted(map(str, one.to_json().items())))))

    @property
    def needs(self) -> int:  # type: ignore[override]
        return max(2, *(one.needs for one in self.triggers))

    @property
    def timezone(self) -> str:  # type: ignore[override]
        """The one that they share; UTC if they share none."""
        zones = {one.timezone for one in self.triggers}
        return zones.pop() if len(zones) == 1 else "UTC"

    @property
    def zoned(self) -> bool:  # type: ignore[override]
        return any(one.zoned for one in self.triggers)

    def of_job(self, job: str) -> AnyOf:
        return AnyOf(*(one.of_job(job) for one in self.triggers))

    def next(self, after_ms: int) -> int | None:
        return min((slot for one in self.triggers if (slot := one.next(after_ms)) is not None), default=None)

    def prev(self, until_ms: int) -> int | None:
        return max((slot for one in self.triggers if (slot := one.prev(until_ms)) is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        return {"type": "any_of", "triggers": [one.to_json() for one in self.triggers]}

    def __str__(self) -> str:
        return " or ".join(map(str, self.triggers))
