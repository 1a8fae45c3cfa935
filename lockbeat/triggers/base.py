"""What every trigger can do, and what the beat asks of any of them.

An instant is an int: milliseconds since the Unix epoch, UTC. Nothing here reads a clock, so the same question
gives the same answer on every instance, whatever its clock or its `TZ` says.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import InvalidArgument, InvalidTrigger

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
FAR_MS = 32_503_680_000_000
"""The year 3000: no slot lies beyond. Dates that far off mean "never", and some lie beyond what a datetime can say."""


class Trigger(ABC):
    """A set of slots, as an immutable value: equal triggers have the same slots, hash and JSON."""

    needs: int = 1
    """The version of definitions that an instance must read to fire it, see `lockbeat.jobs.definition.READS`."""
    timezone: str
    """In which its days are counted."""
    zoned: bool = False
    """Whether its slots hang on the rules of a time zone, which change."""

    def of_job(self, job: str) -> Trigger:
        """The trigger as the job of that name has it: `H` in a cron line is settled."""
        return self

    @abstractmethod
    def next(self, after_ms: int) -> int | None:
        """The first slot strictly after `after_ms`; None when there is none any more."""

    @abstractmethod
    def prev(self, until_ms: int) -> int | None:
        """The last slot at or before `until_ms`; None when there was none yet."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values that `trigger_from_json` reads; equal triggers give equal dicts."""

    def count(self, after_ms: int, until_ms: int, limit: int) -> int | None:
        """How many slots lie in (after_ms, until_ms]; None when they are more than `limit`.

        Takes at most `limit` + 1 steps.
        """
        found, slot = 0, self.next(after_ms)
        while slot is not None and slot <= until_ms:
            found += 1
            if found > limit:
                return None
            slot = self.next(slot)
        return found


@dataclass(frozen=True, slots=True)
class Missed:
    """What came due while nobody looked."""

    first: int
    last: int
    count: int | None  # None: more than the limit
    next: int | None  # the first slot still to come; None: never again


def missed(trigger: Trigger, slot_ms: int, now_ms: int, limit: int) -> Missed:
    """What came due in [slot_ms, now_ms], `slot_ms` itself being the first of it.

    A `slot_ms` that is no slot of `trigger` (its definition changed meanwhile) still counts as one, for it
    was promised. O(1) for `Every` and `At`; at most `limit` + 3 steps for `Cron`.

    Raises InvalidArgument when `slot_ms` lies after `now_ms`, or `limit` is below 1.
    """
    if slot_ms > now_ms:
        raise InvalidArgument("slot_ms", f"{slot_ms} is not due at {now_ms}")
    if limit < 1:
        raise InvalidArgument("limit", f"must be at least 1, not {limit}")
    rest = trigger.count(slot_ms, now_ms, limit - 1)
    last = trigger.prev(now_ms)
    return Missed(
        first=slot_ms,
        last=slot_ms if last is None else max(slot_ms, last),
        count=None if rest is None else rest + 1,
        next=trigger.next(now_ms),
    )


def upcoming(trigger: Trigger, after_ms: int, n: int) -> list[int]:
    """The next `n` slots strictly after `after_ms`; fewer when the trigger ends before, or they reach the year 3000."""
    slots: list[int] = []
    slot = trigger.next(after_ms) if n > 0 else None
    while slot is not None and slot < FAR_MS:
        slots.append(slot)
        if len(slots) == n:
            break
        slot = trigger.next(slot)
    return slots


def jitter_ms(job: str, slot_ms: int, max_ms: int, next_ms: int | None) -> int:
    """How long to hold back `job` at this slot: 0 to `max_ms`, and always strictly before `next_ms`.

    The same job and slot give the same delay on every instance and after every restart, so it comes from a
    digest: `hash()` differs from process to process.

    Raises InvalidArgument when `max_ms` is negative.
    """
    if max_ms < 0:
        raise InvalidArgument("max_ms", f"must not be negative, is {max_ms}")
    most = max_ms if next_ms is None else min(max_ms, next_ms - slot_ms - 1)
    if most <= 0:
        return 0
    digest = hashlib.blake2b(f"{slot_ms}@{job}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (most + 1)


def instant_ms(argument: str, when: object) -> int:
    """An aware datetime as an instant, rounded up to whole milliseconds, since nothing may fire early."""
    if not isinstance(when, datetime):
        raise InvalidTrigger(argument, f"must be an aware datetime, not {type(when).__name__}")
    if when.utcoffset() is None:
        raise InvalidTrigger(argument, f"{when.isoformat()} has no time zone; give it one, e.g. tzinfo=UTC")
    return -((EPOCH - when) // _MS)


def isoformat(instant: int) -> str:
    """An instant as ISO 8601 in UTC, with milliseconds only where there are some."""
    precision = "milliseconds" if instant % 1000 else "seconds"
    return (EPOCH + instant * _MS).isoformat(timespec=precision)
