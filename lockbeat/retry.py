"""How long to wait before a task that failed is tried again. Pure; the wait itself is kept by the store.

The delay after attempt n is also computed inside a script, from the numbers in the JSON form, so that form
holds nothing but plain numbers.

Jitter only lengthens a delay, by up to a share of it: what failed together comes back spread, and nothing comes back before
the policy says, which a service that asked to be left alone for a minute would resent. The script draws it from the task's id and
attempt, so that a call which is repeated gets the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InvalidArgument, InvalidType

JITTER = 0.25
"""The share by which delays are lengthened unless a policy says otherwise."""
MOST_ATTEMPTS = 1000
_MAX_SECONDS = 3_653 * 86_400.0  # ten years: beyond that a delay is a mistake, and milliseconds stay exact


@dataclass(frozen=True)
class Fixed:
    """The same delay after every attempt.

    seconds: the delay, 0 to ten years.
    jitter: the share of it by which it is at most lengthened, 0 to 1.

    Raises: InvalidArgument for what is out of these bounds.
    """

    seconds: float
    jitter: float = JITTER

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", _seconds("seconds", self.seconds))
        object.__setattr__(self, "jitter", _share(self.jitter))

    def delay(self, attempt: int) -> float:
        """Seconds to wait at least after attempt `attempt` (the first is 1) failed: without jitter."""
        _attempt(attempt)
        return self.seconds

    def to_json(self) -> dict[str, Any]:
        return {"type": "fixed", "seconds": self.seconds, "jitter": self.jitter}


@dataclass(frozen=True)
class Exponential:
    """base · factor^(n-1) seconds after attempt n, at most `max` seconds, and at most ten years without one.

    base, max: seconds, 0 to ten years.
    factor: 1 or more.
    jitter: the share of a delay, 0 to 1, by which it is at most lengthened, the longest included.

    Raises: InvalidArgument for what is out of these bounds.
    """

    base: float
    factor: float = 2.0
    max: float | None = None
    jitter: float = JITTER

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", _seconds("base", self.base))
        object.__setattr__(self, "factor", _number("factor", self.factor, 1, sys.float_info.max, "1 or more"))
        if self.max is not None:
            object.__setattr__(self, "max", _seconds("max", self.max))
        object.__setattr__(self, "jitter", _share(self.jitter))

    def delay(self, attempt: int) -> float:
        """Seconds to wait at least after attempt `attempt` (the first is 1) failed: without jitter. Never overflows."""
        _attempt(attempt)
        most = _MAX_SECONDS if self.max is None else self.max
        if self.base == 0 or self.factor == 1:
            return min(self.base, most)
        try:
            return min(self.base * self.factor ** (attempt - 1), most)
        except OverflowError:
            return most

    def to_json(self) -> dict[str, Any]:
        return {"type": "exponential", "base": self.base, "factor": self.factor, "max": self.max, "jitter": self.jitter}


Retry = Fixed | Exponential


def retry_from_json(data: Mapping[str, Any]) -> Retry:
    """The policy that `to_json` wrote; before there was jitter, without any. Raises InvalidArgument for anything else."""
    if not isinstance(data, Mapping):
        raise InvalidType("retry", f"must be a JSON object, not {type(data).__name__}")
    match {"jitter": 0.0, **data}:
        case {"type": "fixed", "seconds": seconds, "jitter": jitter, **rest} if not rest:
            return Fixed(seconds, jitter)
        case {"type": "exponential", "base": base, "factor": factor, "max": most, "jitter": jitter, **rest} if not rest:
            return Exponential(base, factor, most, jitter)
    raise InvalidArgument("retry", f"can't be read: {str(dict(data))[:80]}")


def _attempt(attempt: object) -> None:
    if isinstance(attempt, bool) or not isinstance(attempt, int):
        raise InvalidType("attempt", f"must be an int, not {type(attempt).__name__}")
    if attempt < 1:
        raise InvalidArgument("attempt", f"counts from 1, is {attempt}")


def _number(argument: str, value: object, least: float, most: float, bounds: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidType(argument, f"must be a number, not {type(value).__name__}")
    if not least <= value <= most:  # also refuses NaN
        raise InvalidArgument(argument, f"must be {bounds}, not {value}")
    return float(value)


def _share(value: object) -> float:
    return _number("jitter", value, 0, 1, "between 0 and 1, the share by which a delay is lengthened")


def _seconds(argument: str, value: object) -> float:
    return _number(argument, value, 0, _MAX_SECONDS, "seconds, 0 to ten years")
