"""The clock of a test: the process's own, which stands still but for the test. A store in memory has no other."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from lockbeat.errors import InvalidArgument, InvalidType, MissingExtra
from lockbeat.triggers.base import instant_ms
from lockbeat.values.durations import instant

EXTRA = "pip install 'lockbeat[testing]'"
LITTLE = 0.0002
"""Seconds. A float may lie a little before its millisecond."""


class Clock:
    """Stands at a millisecond, from `start` to `stop`: `time.time`, `datetime.now` and what else time_machine moves."""

    def __init__(self, at_ms: int) -> None:
        self.now_ms = at_ms
        try:
            import time_machine
        except ImportError as error:
            raise MissingExtra(f"lockbeat.testing moves time by time-machine: {EXTRA}") from error
        self._travel = time_machine.travel(at_ms / 1000 + LITTLE, tick=False)
        self._moved: Any = None

    def start(self) -> None:
        self._moved = self._travel.start()

    def move_to(self, ms: int) -> None:
        """Let it be then. Raises RuntimeError when somebody else moves time as well, inside of this."""
        self.now_ms = ms
        self._moved.move_to(ms / 1000 + LITTLE)
        if abs(time.time() - ms / 1000) > 0.01:
            raise RuntimeError(f"it is not {instant(ms)} now: something else in this test moves time, and only `travel` may")

    def stop(self) -> None:
        if self._moved is not None:
            self._moved = None
            self._travel.stop()


def moment(argument: str, when: object) -> int:
    """An instant in ms: an aware datetime, or the same in ISO 8601. Raises InvalidArgument and InvalidType."""
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            raise InvalidArgument(argument, f"{when!r} is no instant; write it as 2027-01-31T09:00Z") from None
    if isinstance(when, (int, float, timedelta)) or not isinstance(when, datetime):
        raise InvalidType(argument, f"must be an aware datetime, or a str such as 2027-01-31T09:00Z, not {type(when).__name__}")
    return instant_ms(argument, when)
