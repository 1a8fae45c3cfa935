"""Which slots calendars exclude: the days of several, in one time zone. Pure: no store, no clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import date

from lockbeat.calendars.values import Calendar
from lockbeat.triggers import Trigger
from lockbeat.triggers.zones import DAY, stretch_at

_EPOCH = date(1970, 1, 1).toordinal()
# A day of a zone begins at most so long before that of UTC.
_AHEAD = 26 * 3600


class Closed:
    """The days that calendars exclude, as the clock of a zone shows them. The first calendar that has a day names it."""

    def __init__(self, calendars: Sequence[Calendar], zone: str) -> None:
        self._zone = zone
        self._days: dict[int, tuple[str, str]] = {}
        for calendar in calendars:
            for entry in calendar.entries:
                for day in range(entry.first.toordinal() - _EPOCH, entry.last.toordinal() - _EPOCH + 1):
                    self._days.setdefault(day, (calendar.name, entry.name))
        self._in_order = sorted(self._days)

    def on(self, slot_ms: int) -> tuple[str, str] | None:
        """The calendar that excludes a slot, and its entry's name; None: none does."""
        return self._days.get(self.day(slot_ms))

    def day(self, slot_ms: int) -> int:
        """The day that the zone's clock shows at a slot, counted from 1970-01-01."""
        second = slot_ms // 1000
        return (second + stretch_at(self._zone, max(second, 0)).offset) // DAY

    def date_of(self, slot_ms: int) -> date:
        """The same as a date."""
        return date.fromordinal(self.day(slot_ms) + _EPOCH)

    def next(self, trigger: Trigger, after_ms: int, until_ms: int) -> int | None:
        """The first excluded slot in (after_ms, until_ms]; None: there is none. At most a few steps an excluded day."""
        slot = trigger.next(after_ms)
        while slot is not None and slot <= until_ms:
            day = self.day(slot)
            if day in self._days:
                return slot
            at = bisect_right(self._in_order, day)
            if at == len(self._in_order):
                return None
            slot = trigger.next(max(self._begins_ms(self._in_order[at]) - 1, slot))
        return None

    def last_open(self, trigger: Trigger, after_ms: int, until_ms: int) -> int | None:
        """The last slot in (after_ms, until_ms] that is not excluded. Likewise."""
        slot = trigger.prev(until_ms)
        while slot is not None and slot > after_ms:
            day = self.day(slot)
            if day not in self._days:
                return slot
            slot = trigger.prev(min(self._begins_ms(day), slot) - 1)
        return None

    def after_day(self, trigger: Trigger, slot_ms: int) -> int | None:
        """The first slot of a later day than this one's; None: none."""
        slot, day = slot_ms, self.day(slot_ms)
        following = trigger.next(max(self._begins_ms(day + 1) - 1, slot))
        # Where the clock is set back over midnight, the day comes again.
        while following is not None and self.day(following) <= day:
            following = trigger.next(following)
        return following

    def _begins_ms(self, day: int) -> int:
        """When a day begins by the zone's clock, for the first time; of one that the clock skips, the day after."""
        at = max(day * DAY - _AHEAD, 0)
        while True:
            stretch = stretch_at(self._zone, at)
            begin = max(stretch.start, day * DAY - stretch.offset)
            if begin < stretch.end:
                return begin * 1000
            at = stretch.end
