"""`Solar`: dawn, sunrise, noon, sunset and dusk at a place, by `ephem`, which the extra `solar` brings.

An event is reckoned from the place's mean midnight before it, and rounded to the second: ephem comes near to it step by step, and
ends a little elsewhere from another start. So the same day gives the same slot, whatever was asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal, get_args

from ..errors import InvalidTrigger
from .base import EPOCH, FAR_MS, Trigger

Event = Literal[
    "dawn_astronomical",
    "dawn_nautical",
    "dawn_civil",
    "sunrise",
    "solar_noon",
    "sunset",
    "dusk_civil",
    "dusk_nautical",
    "dusk_astronomical",
]
EVENTS: tuple[str, ...] = get_args(Event)
_HORIZONS = {"civil": "-6", "nautical": "-12", "astronomical": "-18"}
_AT_THE_EDGE = "-0:34"
"""Where the sun's upper edge is seen to rise and set: the air lifts it by so much."""
_DAY = 86_400_000
_HOUR = 3_600_000
_DARK = 400
"""Days in which an event is looked for: near the poles the sun stays up or down for half a year."""
_MOST_LOOKS = 6
_EPHEMS_EPOCH = 25_567.5
"""The Unix epoch, as ephem counts days."""


@dataclass(frozen=True, init=False)
class Solar(Trigger):
    """Fires at an event of the sun at a place, to the second. A day without it, as near the poles, has no slot.

    event: one of EVENTS. lat, lon: degrees, north and east positive.

    Raises: InvalidTrigger ("event", "lat", "lon"); ("trigger") where ephem is not installed.
    """

    needs = 4
    timezone = "UTC"
    event: str
    lat: float
    lon: float

    def __init__(self, event: str, lat: float | None, lon: float | None) -> None:
        if event not in EVENTS:
            raise InvalidTrigger("event", f"must be one of {', '.join(EVENTS)}, not {event!r:.80}")
        object.__setattr__(self, "event", event)
        object.__setattr__(self, "lat", _degrees("lat", lat, 90))
        object.__setattr__(self, "lon", _degrees("lon", lon, 180))
        _ephem()

    def next(self, after_ms: int) -> int | None:
        day = self._day(after_ms)
        for at in range(day - 1, day + _DARK):
            for slot in _slots(self.event, self.lat, self.lon, at):
                if slot > after_ms:
                    return slot if slot < FAR_MS else None
        return None

    def prev(self, until_ms: int) -> int | None:
        day = self._day(until_ms)
        for at in range(day + 1, day - _DARK, -1):
            for slot in reversed(_slots(self.event, self.lat, self.lon, at)):
                if slot <= until_ms:
                    return slot
        return None

    def _day(self, at_ms: int) -> int:
        return (at_ms - _midnight_ms(self.lon, 0)) // _DAY

    def to_json(self) -> dict[str, Any]:
        return {"type": "solar", "event": self.event, "lat": self.lat, "lon": self.lon}

    def __str__(self) -> str:
        return f"{self.event} at {self.lat:g}, {self.lon:g}"


def _degrees(argument: str, value: object, most: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTrigger(argument, f"must be degrees, not {type(value).__name__}")
    if not -most <= value <= most:  # also refuses NaN
        raise InvalidTrigger(argument, f"must be between -{most} and {most} degrees, not {value}")
    return float(value)


def _ephem() -> Any:
    try:
        import ephem
    except ImportError:
        raise InvalidTrigger("trigger", "of the sun needs ephem: pip install 'lockbeat[solar]'") from None
    return ephem


def _midnight_ms(lon: float, day: int) -> int:
    """When the place's mean day of that number begins."""
    return day * _DAY - round(lon / 360 * _DAY)


@lru_cache(maxsize=16_384)
def _slots(event: str, lat: float, lon: float, day: int) -> tuple[int, ...]:
    """The slots of one mean day of the place: one, but for days near the poles, which may have none or two."""
    ephem = _ephem()
    observer, sun = ephem.Observer(), ephem.Sun()
    observer.lat, observer.lon, observer.elev, observer.pressure = str(lat), str(lon), 0, 0
    kind, _, depth = event.partition("_")
    observer.horizon = _HORIZONS.get(depth, _AT_THE_EDGE)
    find = {
        "dawn": observer.next_rising,
        "sunrise": observer.next_rising,
        "sunset": observer.next_setting,
        "dusk": observer.next_setting,
        "solar": observer.next_transit,
    }[kind]
    options = {"use_center": True} if kind in ("dawn", "dusk") else {}
    begins, ends = _midnight_ms(lon, day), _midnight_ms(lon, day + 1)
    found, start = list[int](), begins
    for _ in range(_MOST_LOOKS):
        if start >= ends:
            break
        try:
            date = ephem.Date((EPOCH + timedelta(milliseconds=start)).replace(tzinfo=None))
        except (ValueError, OverflowError):
            return ()
        try:
            slot = _rounded_ms(find(sun, start=date, **options))
        except ephem.CircumpolarError:  # ephem looks at the half turn around `start` alone
            start = _rounded_ms(observer.next_antitransit(sun, start=date)) + 1000
            continue
        if begins <= slot < ends and (not found or slot > found[-1]):
            found.append(slot)
        start = max(slot, start) + _HOUR
    return tuple(found)


def _rounded_ms(date: Any) -> int:
    """A date of ephem's, which counts days from the noon on which the year 1900 began."""
    return math.floor((float(date) - _EPHEMS_EPOCH) * 86_400 + 0.5) * 1000
