"""`ByHand`: no slots. A job that has it runs when somebody triggers it, and only then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .base import Trigger


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
