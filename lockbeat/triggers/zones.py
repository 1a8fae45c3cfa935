"""Time zones as stretches of constant offset.

`zoneinfo` answers for one instant at a time and keeps its transitions to itself. Cron needs them, to tell a
wall time that the clock skipped from one that it shows twice, so they are found by asking every
third day and halving. (The shortest stretch since 1970 is a week, in Brazil in 2000.)
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from datetime import timedelta, timezone, tzinfo
from functools import lru_cache
from typing import NamedTuple

from ..errors import InvalidTrigger
from .base import EPOCH

DAY = 86_400
_STEP = 3 * DAY
_WINDOW = 134 * _STEP
LAST = 7000 * _WINDOW  # about the year 9670; datetime ends with 9999


class Stretch(NamedTuple):
    """[start, end) in seconds since the epoch, during which local time is UTC + `offset`.

    `reached` is the wall time that the zone's clock had got to before `start` (exclusive, running maximum):
    below start + offset, the clock skipped what lies between; above it, the clock went back.
    `repeated` is the wall time from which on its times come again, as the clock goes back at `end`; that of `end` if it doesn't.
    """

    start: int
    end: int
    offset: int
    reached: int
    repeated: int


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - {"localtime", "posixrules"})


@lru_cache(maxsize=1024)
def zone_name(zone: str | tzinfo) -> str:
    """The IANA name of a zone, or its offset as `+05:30`. Raises InvalidTrigger ("timezone"), with a near name if there is one.

    Others look the zone up by it, on machines of their own.
    """
    if isinstance(zone, tzinfo):
        zone = _name_of(zone)
    # Membership, not an attempt to load: ZoneInfo also reads `localtime`, which differs from machine to
    # machine, and `europe/berlin` where the file system folds case.
    if zone == "UTC" or zone in _names():  # to list the names takes 50 ms
        return zone
    if (offset := _fixed(zone)) is not None:
        return _spell(offset)
    if said := re.fullmatch(r"(?:UTC|GMT)([+-])(\d{1,2})(?::?(\d\d))?", zone, re.IGNORECASE | re.ASCII):
        raise InvalidTrigger(
            "timezone", f"unknown time zone {zone!r}: an offset is written '{said[1]}{said[2]:0>2}:{said[3] or '00'}'"
        )
    # Of names alike: none of `EST` and its like, for CEST is not nearly that.
    folded = {name.casefold(): name for name in sorted(_names()) if "/" in name or name == "UTC"}
    near = difflib.get_close_matches(zone.casefold(), folded, n=1, cutoff=0.75)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else " (an IANA name such as 'Europe/Berlin')"
    raise InvalidTrigger("timezone", f"unknown time zone {zone[:80]!r}{hint}")


def _name_of(zone: tzinfo) -> str:
    """What others can look the zone up by: its IANA name (pytz calls it `zone`), or the offset that it always has."""
    name = getattr(zone, "key", getattr(zone, "zone", None))
    if isinstance(name, str):
        return name
    if isinstance(zone, zoneinfo.ZoneInfo):
        raise InvalidTrigger("timezone", "a ZoneInfo without a key has no name that others could look up")
    try:
        offset = zone.utcoffset(None)  # None of a zone whose offset changes
    except Exception:  # noqa: BLE001 - whatever a zone of others does that needs a datetime
        offset = None
    if offset is None:
        raise InvalidTrigger("timezone", f"{zone!r:.80} has no name that others could look up; give an IANA name or a ZoneInfo")
    if offset.microseconds:
        raise InvalidTrigger("timezone", f"the offset of {zone!r:.80} is no whole number of seconds")
    return _spell(offset)


def _spell(offset: timedelta) -> str:
    """UTC, +05:30, -03:00."""
    return str(timezone(offset)).removeprefix("UTC") or "UTC"


@lru_cache(maxsize=1024)
def _fixed(name: str) -> timedelta | None:
    """The offset that `+05:30` names, or `UTC+05:30`, as str() has it; None: it names none."""
    found = re.fullmatch(r"(?:UTC)?([+-])([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", name, re.ASCII)
    if found is None:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]), seconds=int(found[4] or 0))
    return -offset if found[1] == "-" else offset


@lru_cache(maxsize=1024)
def clocks_of(name: str) -> tzinfo | None:
    """What shows an instant as the clocks of a zone do, or of an offset; None: this host has no such zone."""
    try:
        return zoneinfo.ZoneInfo(name) if (fixed := _fixed(name)) is None else timezone(fixed)
    except (KeyError, ValueError, OSError):
        return None


def stretch_at(name: str, instant: int) -> Stretch:
    """The stretch of zone `name` that holds `instant` (seconds, 0 <= instant < LAST).

    Cut at the borders of the window it was computed in, which neither skips nor repeats anything.
    """
    for stretch in _stretches(name, instant // _WINDOW):
        if instant < stretch.end:
            return stretch
    raise AssertionError("the stretches of a window cover it")


@lru_cache(maxsize=8192)
def _stretches(name: str, window: int) -> tuple[Stretch, ...]:
    fixed = _fixed(name)
    zone = zoneinfo.ZoneInfo(name) if fixed is None else timezone(fixed)
    begin, end = window * _WINDOW, (window + 1) * _WINDOW
    # Started before the window, to know how far the clock had got: it never went back by more than a day.
    start = begin - _STEP
    offset = _offset(zone, start)
    reached = start + offset
    found: list[Stretch] = []
    for probe in range(begin, end + 1, _STEP):
        # A loop, for a zone that changes twice within a step.
        while _offset(zone, probe) != offset:
            edge = _first_change(zone, max(start, probe - _STEP), probe, offset)
            following = _offset(zone, edge)
            found.append(Stretch(start, edge, offset, reached, edge + min(offset, following)))
            reached = max(reached, edge + offset)
            start, offset = edge, following
    found.append(Stretch(start, end, offset, reached, end + offset))
    return tuple(
        s if s.start >= begin else s._replace(start=begin, reached=max(s.reached, begin + s.offset))
        for s in found
        if begin < s.end and s.start < end
    )


def _first_change(zone: tzinfo, low: int, high: int, offset: int) -> int:
    """The first second in (low, high] at which the offset is not `offset` any more."""
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == offset:
            low = middle
        else:
            high = middle
    return high


def _offset(zone: tzinfo, instant: int) -> int:
    offset = (EPOCH + timedelta(seconds=instant)).astimezone(zone).utcoffset()
    assert offset is not None
    return offset.days * DAY + offset.seconds
