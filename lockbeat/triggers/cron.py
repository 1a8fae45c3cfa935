"""`Cron`: a cron line in a time zone.

    minute hour day-of-month month day-of-week            or, with six fields,
    second minute hour day-of-month month day-of-week     THE SECOND COMES FIRST

Fields take `*`, numbers, names (jan-dec, sun-sat, in any case), ranges `a-b` (`22-2` and `fri-mon` wrap),
steps `*/n` `a-b/n` `a/n`, and lists of these. A step that is longer than its field, or that gets no further than the first of
several values (`10-20/15`), is a mistake and refused. Day of month also takes `L` (the last day); day of week also
takes `5#2` (the second Friday) and `L5` or `5L` (the last Friday), and 7 for Sunday. A `?` stands for `*`
in the two day fields. Aliases: @yearly @annually @monthly @weekly @daily @midnight @hourly.

**Days.** As in Vixie cron, when both day fields are restricted a day matches that satisfies either; when
one of them *starts with* `*`, also as `*/2`, it must satisfy both. (croniter by default takes either for
`*/2`, too.)

**When the clock is changed**, also as in Vixie cron (Debian's `cron.c`, MIN_STAR and HR_STAR):

- A line whose minute or hour field starts with `*` follows real time. It fires at every instant at which
  the clock shows a matching time: in both passes through a repeated hour, and never for a time that was
  skipped. So does one with a star in its second field, which Vixie cron does not have.
- Any other line names fixed local times. One that is skipped fires once, at the first instant after the
  gap; several in one gap fire there together, as one slot. One that comes twice fires the first time only.

The rule is the same for every change of offset, be it by half an hour, by a day, or for good.

cronsim has the same rules, and the tests compare the two over all zones. On purpose they differ in this:
cronsim lets every line of six fields follow real time, while here `0 30 2 * * *` is `30 2 * * *`. Where
cronsim misses a slot or makes one up is written in tests/unit/test_cron_vs_cronsim.py.

**How.** croniter reads the fields, and only that. Its search takes some 80 µs a step, knows other rules for
DST, and joins `13 * fri#2` with AND instead of OR. The search here runs on wall time without zones
(wall.py), and stretches of constant offset (zones.py) turn wall time into instants. `next` and `prev` read
the same slots off the same stretches, so that they can't disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from functools import lru_cache
from typing import Any

from ..errors import InvalidTrigger
from .base import Trigger
from .grammar import canonical, parse
from .wall import WallClock, wall_clock
from .zones import DAY, LAST, Stretch, stretch_at, zone_name

# Longer than any line has to wait (a fifth Friday in February: 40 years). One that names only times which its
# zone always skips (`*/15 2 * 3 sun#2` in New York) has no slot at all, and must not search for ever.
_HORIZON = 50 * 366 * DAY
# Local time is never more than a day from UTC; two leave room for a gap of a day.
_FAR = 2 * DAY


@dataclass(frozen=True, init=False)
class Cron(Trigger):
    """Fires at the times that a cron line names in a time zone; see the module for its grammar and for DST.

    expression: five fields, six with the second first, or an alias such as `@daily`.
    timezone: an IANA name, a ZoneInfo that has one, or a zone of one fixed offset: `datetime.UTC`, `timezone(...)`, "+05:30".

    Slots are whole seconds from 1970 on. Equality is by spelling, apart from case, blanks and aliases.

    Raises: InvalidTrigger ("expression", "timezone") for what can't be read, or can never fire, as `0 0 30 2 *`.
    """

    expression: str
    timezone: str
    _schedule: _Schedule = field(repr=False, compare=False)

    def __init__(self, expression: str, timezone: str | tzinfo = "UTC") -> None:
        if not isinstance(expression, str):
            raise InvalidTrigger("expression", f"must be a str, not {type(expression).__name__}")
        if not isinstance(timezone, str | tzinfo):
            raise InvalidTrigger("timezone", f"must be an IANA name or a tzinfo, not {type(timezone).__name__}")
        canon, name = canonical(expression), zone_name(timezone)
        object.__setattr__(self, "expression", canon)
        object.__setattr__(self, "timezone", name)
        object.__setattr__(self, "_schedule", _schedule(canon, name))

    def next(self, after_ms: int) -> int | None:
        return _next(self._schedule, after_ms // 1000)

    def prev(self, until_ms: int) -> int | None:
        return _prev(self._schedule, until_ms // 1000)

    def to_json(self) -> dict[str, Any]:
        return {"type": "cron", "expression": self.expression, "timezone": self.timezone}

    def __str__(self) -> str:
        return f"{self.expression} {self.timezone}"

    def __reduce__(self) -> tuple[type[Cron], tuple[str, str]]:
        return Cron, (self.expression, self.timezone)


class _Schedule:
    """The slots of one expression in one zone, shared by every Cron that has them. Seconds throughout."""

    def __init__(self, canon: str, zone: str) -> None:
        self.wall: WallClock = wall_clock(canon)
        self.fixed = not parse(canon).real_time
        self.zone = zone

    def next(self, after: int) -> int | None:
        start = max(after + 1, 0)
        end = min(start + _HORIZON, LAST)
        while start < end:
            # Straight to where the line can match, whatever the offset: no use to look at the years between.
            match = self.wall.next(start - _FAR)
            if match is None:
                return None
            start = max(start, match - _FAR)
            if start >= end:
                return None
            stretch = stretch_at(self.zone, start)
            if start == stretch.start and self._skipped(stretch):
                return start
            wall = self.wall.next(max(start + stretch.offset, self._floor(stretch)))
            if wall is not None and wall < stretch.end + stretch.offset:
                return wall - stretch.offset
            start = stretch.end
        return None

    def prev(self, until: int) -> int | None:
        start = min(until, LAST - 1)
        end = max(start - _HORIZON, 0)
        while start >= end:
            match = self.wall.prev(start + _FAR)
            if match is None:
                return None
            start = min(start, match + _FAR)
            if start < end:
                return None
            stretch = stretch_at(self.zone, start)
            wall = self.wall.prev(start + stretch.offset)
            if wall is not None and wall >= self._floor(stretch):
                return wall - stretch.offset
            if self._skipped(stretch):
                return stretch.start
            start = stretch.start - 1
        return None

    def _floor(self, stretch: Stretch) -> int:
        """The first wall time of `stretch` that counts: a fixed one not if the clock showed it before."""
        wall = stretch.start + stretch.offset
        return max(wall, stretch.reached) if self.fixed else wall

    def _skipped(self, stretch: Stretch) -> bool:
        """Whether the gap before `stretch` swallowed a fixed time, which then fires at its start."""
        if not self.fixed or stretch.reached >= stretch.start + stretch.offset:
            return False
        wall = self.wall.next(stretch.reached)
        return wall is not None and wall < stretch.start + stretch.offset


@lru_cache(maxsize=8192)
def _schedule(canon: str, zone: str) -> _Schedule:
    return _Schedule(canon, zone)


# Thousands of jobs share `* * * * *` and ask for the successor of the same slot: all but one look it up.
@lru_cache(maxsize=16384)
def _next(schedule: _Schedule, after: int) -> int | None:
    found = schedule.next(after)
    return None if found is None else found * 1000


@lru_cache(maxsize=16384)
def _prev(schedule: _Schedule, until: int) -> int | None:
    found = schedule.prev(until)
    return None if found is None else found * 1000
