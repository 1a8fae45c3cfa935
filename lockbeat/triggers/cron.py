"""`Cron`: a cron line in a time zone.

    minute hour day-of-month month day-of-week            or, with six fields,
    second minute hour day-of-month month day-of-week     THE SECOND COMES FIRST

Fields take `*`, numbers, names (jan-dec, sun-sat, in any case), ranges `a-b` (`22-2` and `fri-mon` wrap),
steps `*/n` `a-b/n` `a/n`, and lists of these. A step that is longer than its field, or that gets no further than the first of
several values (`10-20/15`), is a mistake and refused. Day of month also takes `L` (the last day); day of week also
takes `5#2` (the second Friday) and `L5` or `5L` (the last Friday), and 7 for Sunday. A `?` stands for `*`
in the two day fields. `H` `H(0-29)` `H/15` stand for numbers that the
job's name decides (`grammar.settled`). Aliases: @yearly @annually @monthly @weekly @daily @midnight @hourly.

**Days.** As in Vixie cron, when both day fields are restricted a day matches that satisfies either; when
one of them *starts with* `*`, also as `*/2`, it must satisfy both. (croniter by default takes either for
`*/2`, too.) `days="both"` has a day satisfy both in any case, as Celery's crontab does.

**When the clock is changed**, also as in Vixie cron (Debian's `cron.c`, MIN_STAR and HR_STAR):

- A line whose minute or hour field starts with `*` follows real time. It fires at every instant at which
  the clock shows a matching time: in both passes through a repeated hour, and never for a time that was
  skipped. So does one with a star in its second field, which Vixie cron does not have.
- Any other line names fixed local times. One that is skipped fires once, at the first instant after the
  gap; several in one gap fire there together, as one slot. One that comes twice fires the first time only.

`gap` and `fold` say otherwise for a line of fixed local times: "skip" drops what a gap skipped, "both" and "last" fire
in both passes, or in the last only. To a line that follows real time they say nothing, and are refused.

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
from typing import Any, Literal, get_args

from ..errors import InvalidTrigger
from .base import Trigger
from .grammar import canonical, is_hashed, parse, settled
from .wall import WallClock, wall_clock
from .zones import DAY, LAST, Stretch, stretch_at, zone_name

Gap = Literal["after", "skip"]
Fold = Literal["first", "both", "last"]
Days = Literal["either", "both"]
_GAPS, _FOLDS, _DAYS = get_args(Gap), get_args(Fold), get_args(Days)
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
    gap: what becomes of a fixed local time that the clock skips: it fires right "after" the gap, or "skip".
    fold: of one that comes twice: the "first" fires, "both", or the "last".
    days: where both day fields are restricted, a day that satisfies "either", or "both".

    Slots are whole seconds from 1970 on. Equality is by spelling, apart from case, blanks and aliases. With `H` in its line it
    has slots only as a job has it.

    Raises: InvalidTrigger ("expression", "timezone") for what can't be read, or can never fire, as `0 0 30 2 *`. InvalidTrigger
    ("gap", "fold", "days") for another word; of the first two also with a line that follows real time.
    """

    expression: str
    timezone: str
    gap: Gap
    fold: Fold
    days: Days
    _schedule: _Schedule | None = field(repr=False, compare=False)

    def __init__(
        self,
        expression: str,
        timezone: str | tzinfo = "UTC",
        *,
        gap: Gap = "after",
        fold: Fold = "first",
        days: Days = "either",
    ) -> None:
        if not isinstance(expression, str):
            raise InvalidTrigger("expression", f"must be a str, not {type(expression).__name__}")
        if not isinstance(timezone, (str, tzinfo)):
            raise InvalidTrigger("timezone", f"must be an IANA name or a tzinfo, not {type(timezone).__name__}")
        for argument, given, default, known in (("gap", gap, "after", _GAPS), ("fold", fold, "first", _FOLDS)):
            if given not in known:
                raise InvalidTrigger(argument, f"must be one of {', '.join(map(repr, known))}, not {given!r:.80}")
            if given != default and parse(settled(canonical(expression), "")).real_time:
                raise InvalidTrigger(
                    argument, f"{given!r} is for fixed local times, and {expression!r:.80} follows real time, by its `*`"
                )
        if days not in _DAYS:
            raise InvalidTrigger("days", f"must be one of {', '.join(map(repr, _DAYS))}, not {days!r:.80}")
        canon, name = canonical(expression), zone_name(timezone)
        object.__setattr__(self, "expression", canon)
        object.__setattr__(self, "timezone", name)
        object.__setattr__(self, "gap", gap)
        object.__setattr__(self, "fold", fold)
        object.__setattr__(self, "days", days)
        object.__setattr__(self, "_schedule", None if is_hashed(canon) else _schedule(canon, name, gap, fold, days))

    @property
    def needs(self) -> int:  # type: ignore[override]
        if self.days == "both":
            return 4
        return 1 if self._as_ever else 2

    @property
    def zoned(self) -> bool:  # type: ignore[override]
        return self.timezone != "UTC"

    @property
    def _as_ever(self) -> bool:
        return self.gap == "after" and self.fold == "first"

    def of_job(self, job: str) -> Cron:
        if not is_hashed(self.expression):
            return self
        return Cron(settled(self.expression, job), self.timezone, gap=self.gap, fold=self.fold, days=self.days)

    def next(self, after_ms: int) -> int | None:
        return _next(self._schedule or self._unsettled(), after_ms // 1000)

    def prev(self, until_ms: int) -> int | None:
        return _prev(self._schedule or self._unsettled(), until_ms // 1000)

    def _unsettled(self) -> _Schedule:
        raise InvalidTrigger("expression", f"{self.expression!r:.80} has slots only as a job has it, for its H; see of_job(name)")

    def to_json(self) -> dict[str, Any]:
        data = {"type": "cron", "expression": self.expression, "timezone": self.timezone}
        if self.days != "either":
            data["days"] = self.days
        return data if self._as_ever else {**data, "gap": self.gap, "fold": self.fold}

    def __str__(self) -> str:
        changed = "" if self._as_ever else f" gap={self.gap} fold={self.fold}"
        return f"{self.expression} {self.timezone}{changed}{' days=both' * (self.days == 'both')}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _cron, (self.expression, self.timezone, self.gap, self.fold, self.days)


def _cron(expression: str, timezone: str, gap: Gap, fold: Fold, days: Days = "either") -> Cron:
    return Cron(expression, timezone, gap=gap, fold=fold, days=days)


class _Schedule:
    """The slots of one expression in one zone, shared by every Cron that has them. Seconds throughout."""

    def __init__(self, canon: str, zone: str, gap: Gap, fold: Fold, days: Days) -> None:
        self.wall: WallClock = wall_clock(canon, days == "both")
        fixed = not parse(canon).real_time
        self.makes_up = fixed and gap == "after"
        self.first_only = fixed and fold == "first"
        self.last_only = fixed and fold == "last"
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
            if wall is not None and wall < self._ceiling(stretch):
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
            wall = self.wall.prev(min(start + stretch.offset, self._ceiling(stretch) - 1))
            if wall is not None and wall >= self._floor(stretch):
                return wall - stretch.offset
            if self._skipped(stretch):
                return stretch.start
            start = stretch.start - 1
        return None

    def _floor(self, stretch: Stretch) -> int:
        """The first wall time of `stretch` that counts: a fixed one not if the clock showed it before."""
        wall = stretch.start + stretch.offset
        return max(wall, stretch.reached) if self.first_only else wall

    def _ceiling(self, stretch: Stretch) -> int:
        """The wall time at which `stretch` ends, or from which on its times count only when they come again."""
        return stretch.repeated if self.last_only else stretch.end + stretch.offset

    def _skipped(self, stretch: Stretch) -> bool:
        """Whether the gap before `stretch` swallowed a fixed time, which then fires at its start."""
        if not self.makes_up or stretch.reached >= stretch.start + stretch.offset:
            return False
        wall = self.wall.next(stretch.reached)
        return wall is not None and wall < stretch.start + stretch.offset


@lru_cache(maxsize=8192)
def _schedule(canon: str, zone: str, gap: Gap, fold: Fold, days: Days) -> _Schedule:
    return _Schedule(canon, zone, gap, fold, days)


# Thousands of jobs share `* * * * *` and ask for the successor of the same slot: all but one look it up.
@lru_cache(maxsize=16384)
def _next(schedule: _Schedule, after: int) -> int | None:
    found = schedule.next(after)
    return None if found is None else found * 1000


@lru_cache(maxsize=16384)
def _prev(schedule: _Schedule, until: int) -> int | None:
    found = schedule.prev(until)
    return None if found is None else found * 1000
