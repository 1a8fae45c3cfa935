"""Celery's schedules as triggers, which have the same slots on every host."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import BaseSchedule, crontab, maybe_schedule, schedule, solar

from lockbeat.errors import InvalidTrigger
from lockbeat.triggers import At, Cron, Every, Solar, Trigger
from lockbeat.triggers.grammar import parse
from lockbeat.triggers.zones import zone_name

_FIELDS = (
    ("minute", "minutes", range(60)),
    ("hour", "hours", range(24)),
    ("day_of_month", "days", range(1, 32)),
    ("month_of_year", "months", range(1, 13)),
    ("day_of_week", "weekdays", range(7)),
)
"""Of a crontab, in the order of a cron line: what Celery calls them, what a parsed line does, and all their values."""
_KNOWN = ("celery.", "django_celery_beat.", "lockbeat.")
_UNITS = (86_400_000, 3_600_000, 60_000, 1000)


def trigger_of(said: Any, app: Any, relative: bool = False) -> Trigger:
    """The trigger of what an entry has as its `schedule`: seconds, a timedelta, a crontab, a schedule, or solar.

    app: whose time zone a crontab has that says none. relative: as an entry says it beside its schedule.

    Raises: InvalidTrigger for a schedule of another kind, whose slots nobody but the process that made it could know.
    """
    if isinstance(said, Trigger):
        return said
    if not isinstance(said, int | float | timedelta | BaseSchedule):
        raise InvalidTrigger("schedule", f"must be seconds, a timedelta, a crontab or solar, not {said!r:.80}")
    try:
        found = maybe_schedule(said, relative, app=app)
    except (OverflowError, ValueError):  # of infinitely many seconds, or of NaN
        raise InvalidTrigger("schedule", f"must be seconds, not {said!r:.80}") from None
    kind = type(found)
    _check_own(kind)
    if isinstance(found, crontab):
        return _cron(found)
    if isinstance(found, solar):
        return Solar(found.event, float(found.lat), float(found.lon))
    if hasattr(found, "clocked_time"):  # django_celery_beat's
        return At(found.clocked_time)
    if isinstance(found, schedule):
        return _interval(found)
    raise InvalidTrigger("schedule", f"is a {kind.__name__}: only crontab, schedule (seconds, timedelta) and solar can be jobs")


def _check_own(kind: type) -> None:
    """A class that says by itself when it is due has slots that nobody else can tell."""
    for name in ("is_due", "remaining_estimate"):
        owner = next((each for each in kind.__mro__ if name in vars(each)), BaseSchedule)
        if not f"{owner.__module__}.".startswith(_KNOWN):
            raise InvalidTrigger("schedule", f"is a {kind.__name__}, which says by its own {name} when it is due")


def _cron(found: Any) -> Cron:
    words = [_field(found, name, attribute, every) for name, attribute, every in _FIELDS]
    restricted = not words[2].startswith("*") and not words[4].startswith("*")
    return Cron(" ".join(words), zone_name(found.tz), days="both" if restricted else "either")


def _field(found: Any, name: str, attribute: str, every: range) -> str:
    """One field. As it was written, if a cron line means the same by it: what begins with `*` follows real time."""
    values = set(getattr(found, name))
    if values == set(every):
        return "*"
    written = getattr(found, f"_orig_{name}")
    if isinstance(written, str):
        word = written.replace(" ", "").lower()
        line = ["*"] * 5
        line[[field for field, _, _ in _FIELDS].index(name)] = word
        try:
            if set(getattr(parse(" ".join(line)), attribute)) == values:
                return word
        except InvalidTrigger:
            pass  # Celery takes weekdays in full, and steps that are longer than their field
    return ",".join(map(str, sorted(values)))


def _interval(found: Any) -> Trigger:
    period: timedelta = found.run_every
    period_ms = math.ceil(period / timedelta(milliseconds=1))
    if not found.relative:
        return Every(timedelta(milliseconds=period_ms))
    # Celery rounds the next run down to whole days, hours, minutes or seconds of the app's clock: whichever the period has.
    unit = next((unit for unit in _UNITS if period_ms >= unit), period_ms)
    rounded, zone = period_ms // unit * unit, found.tz
    if unit == _UNITS[0] and rounded == unit:
        return Cron("0 0 * * *", zone_name(zone))
    offset = datetime(1970, 1, 1, tzinfo=UTC).astimezone(zone).utcoffset() or timedelta()
    return Every(timedelta(milliseconds=rounded), -round(offset / timedelta(milliseconds=1)))
