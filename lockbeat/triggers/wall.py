"""The calendar search behind `Cron`: which wall times match, on a clock that is never changed.

A wall time is an int: seconds since 1970-01-01 00:00 as that clock shows it.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from itertools import product

from .grammar import Fields, never_fires, parse

_DAY = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()
# A fifth Friday in February comes back after 40 years when one of them is 2100; all other waits are shorter.
_MONTHS_AHEAD = 12 * 41


class WallClock:
    """The wall times that a cron line names."""

    def __init__(self, fields: Fields, both_days: bool = False) -> None:
        self._fields = fields
        self._seconds = _Steps.of(fields.seconds, 60)
        self._minutes = _Steps.of(fields.minutes, 60)
        self._hours = _Steps.of(fields.hours, 24)
        both = both_days or fields.both_days
        self._days = _kinds_of_month(fields.days, fields.last_day, fields.weekdays, fields.nth_weekdays, both)

    def next(self, wall: int) -> int | None:
        """The first match at or after `wall`."""
        day, second = divmod(wall, _DAY)
        found = self._next_day(day)
        if found == day:
            time = self._next_time(second)
            if time is not None:
                return day * _DAY + time
            found = self._next_day(day + 1)
        if found is None:
            return None
        return found * _DAY + self._hours.first * 3600 + self._minutes.first * 60 + self._seconds.first

    def prev(self, wall: int) -> int | None:
        """The last match at or before `wall`."""
        day, second = divmod(wall, _DAY)
        found = self._prev_day(day)
        if found == day:
            time = self._prev_time(second)
            if time is not None:
                return day * _DAY + time
            found = self._prev_day(day - 1)
        if found is None:
            return None
        return found * _DAY + self._hours.last * 3600 + self._minutes.last * 60 + self._seconds.last

    def ever(self) -> bool:
        """Whether there is any match, in any year."""
        lengths = {length for month in self._fields.months for length in _lengths(month)}
        return any(self._days[first, length] for length in lengths for first in range(7))

    def _next_time(self, time: int) -> int | None:
        hour, minute, second = time // 3600, time // 60 % 60, time % 60
        s = self._seconds.up[second]
        if s < 0:
            s, minute = self._seconds.first, minute + 1
        m = self._minutes.up[minute]
        if m < 0:
            m, s, hour = self._minutes.first, self._seconds.first, hour + 1
        elif m != minute:
            s = self._seconds.first
        h = self._hours.up[hour]
        if h < 0:
            return None
        if h != hour:
            m, s = self._minutes.first, self._seconds.first
        return h * 3600 + m * 60 + s

    def _prev_time(self, time: int) -> int | None:
        hour, minute, second = time // 3600, time // 60 % 60, time % 60
        s = self._seconds.down[second]
        if s < 0:
            s, minute = self._seconds.last, minute - 1
        m = self._minutes.down[minute]
        if m < 0:
            m, s, hour = self._minutes.last, self._seconds.last, hour - 1
        elif m != minute:
            s = self._seconds.last
        h = self._hours.down[hour]
        if h < 0:
            return None
        if h != hour:
            m, s = self._minutes.last, self._seconds.last
        return h * 3600 + m * 60 + s

    def _next_day(self, day: int) -> int | None:
        at = date.fromordinal(day + _EPOCH_DAY)
        year, month, of_month = at.year, at.month, at.day
        for _ in range(_MONTHS_AHEAD):
            if month in self._fields.months:
                start, bits = self._month(year, month)
                bits = bits >> of_month << of_month
                if bits:
                    return start + (bits & -bits).bit_length() - 2
            of_month = 1
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return None

    def _prev_day(self, day: int) -> int | None:
        at = date.fromordinal(day + _EPOCH_DAY)
        year, month, of_month = at.year, at.month, at.day
        for _ in range(_MONTHS_AHEAD):
            if month in self._fields.months:
                start, bits = self._month(year, month)
                bits &= (2 << of_month) - 1
                if bits:
                    return start + bits.bit_length() - 2
            of_month = 31
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)
        return None

    def _month(self, year: int, month: int) -> tuple[int, int]:
        start = date(year, month, 1).toordinal()
        after = date(year + month // 12, month % 12 + 1, 1).toordinal()
        return start - _EPOCH_DAY, self._days[start % 7, after - start]


class _Steps:
    """The next and the last value of one field, by table: no search, and -1 where there is none."""

    __slots__ = ("down", "first", "last", "up")

    def __init__(self, values: tuple[int, ...], size: int) -> None:
        self.first, self.last = values[0], values[-1]
        # One entry more than there are values: `up[size]` and `down[-1]` are what a carry asks for.
        self.up = tuple(min((v for v in values if v >= at), default=-1) for at in range(size + 1))
        self.down = (*(max((v for v in values if v <= at), default=-1) for at in range(size)), -1)

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(values: tuple[int, ...], size: int) -> _Steps:
        return _Steps(values, size)


@lru_cache(maxsize=1024)
def _kinds_of_month(
    days: frozenset[int],
    last_day: bool,
    weekdays: frozenset[int],
    nth_weekdays: frozenset[tuple[int, int]],
    both_days: bool,
) -> dict[tuple[int, int], int]:
    """The matching days of a month, day d as bit d, by the weekday of its first (Sunday 0) and its length.

    There are only these 28 kinds of month, so whether a line ever fires is decided without a search.
    """
    kinds = {}
    for first, length in product(range(7), range(28, 32)):
        bits = 0
        for day in range(1, length + 1):
            weekday = (first + day - 1) % 7
            by_date = day in days or (last_day and day == length)
            by_weekday = (
                weekday in weekdays
                or (weekday, (day + 6) // 7) in nth_weekdays
                or ((weekday, 0) in nth_weekdays and day + 7 > length)
            )
            if (by_date and by_weekday) if both_days else (by_date or by_weekday):
                bits |= 1 << day
        kinds[first, length] = bits
    return kinds


def _lengths(month: int) -> tuple[int, ...]:
    if month == 2:
        return (28, 29)
    return (30,) if month in (4, 6, 9, 11) else (31,)


@lru_cache(maxsize=4096)
def wall_clock(canon: str, both_days: bool = False) -> WallClock:
    """The wall times of a canonical expression; `both_days`: each day must match both day fields.

    Raises InvalidTrigger ("expression") when there are none.
    """
    clock = WallClock(parse(canon), both_days)
    if not clock.ever():
        raise never_fires(canon)
    return clock
