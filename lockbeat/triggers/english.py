"""A trigger in English, as people say it: "at 09:00 on weekdays, Europe/Berlin time". Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .any_of import AnyOf
from .at import At
from .base import Trigger, isoformat
from .between import Between
from .by_hand import ByHand, Called
from .cron import Cron
from .every import Every
from .grammar import Fields, is_hashed, parse

DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"),
)
NTH = ("last", "first", "second", "third", "fourth", "fifth")
FEW = 6
"""So many times or numbers are named one by one."""
_UNITS = (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000), ("millisecond", 1))


def in_english(trigger: Trigger) -> str:
    """What a trigger says, in a phrase without a full stop."""
    if isinstance(trigger, Cron):
        if is_hashed(trigger.expression):
            return f"at times that the job's name decides: {trigger.expression}"
        return _of_cron(parse(trigger.expression), trigger)
    if isinstance(trigger, Every):
        return f"every {length(trigger.period_ms)}"
    if isinstance(trigger, At):
        return f"once, at {isoformat(trigger.when_ms)}"
    if isinstance(trigger, AnyOf):
        return "; and ".join(map(in_english, trigger.triggers))
    if isinstance(trigger, Between):
        start = "" if trigger.start_ms is None else f", from {isoformat(trigger.start_ms)} on"
        end = "" if trigger.end_ms is None else f", before {isoformat(trigger.end_ms)}"
        return f"{in_english(trigger.trigger)}{start}{end}"
    if isinstance(trigger, Called):
        if trigger.slots is None:
            return f"when it is called, at most once per {length(trigger.least_ms)}"
        return f"{in_english(trigger.slots)}, when it is called"
    return "only when it is triggered" if isinstance(trigger, ByHand) else str(trigger)


def length(ms: int) -> str:
    """A duration in words: minute, 90 seconds, 2 hours."""
    for unit, size in _UNITS:
        if ms % size == 0:
            return unit if ms == size else f"{ms // size} {unit}s"
    return f"{ms} milliseconds"


def _of_cron(fields: Fields, trigger: Cron) -> str:
    days, times = _days(fields), _times(fields)
    if not days and times.startswith("at ") and ":" in times.partition(",")[0]:
        times = f"every day {times}"
    all_day = len(fields.hours) == 24 and not days and len(fields.months) == 12
    zone = ("" if all_day else ", UTC") if trigger.timezone == "UTC" else f", {trigger.timezone} time"
    return f"{times}{days}{_months(fields)}{zone}".replace(" of the month in ", " of ")


def _times(fields: Fields) -> str:
    """At which times of a day."""
    seconds, minutes, hours = fields.seconds, fields.minutes, fields.hours
    if len(seconds) > 1:
        every = _every(seconds, 60, "second")
        where = (f"{every} from second {seconds[0]}" if seconds[0] else every) if every else f"at seconds {_numbers(seconds)}"
        if len(minutes) < 60:
            where += f" of minutes {_numbers(minutes)}"
        return f"{where}{_within(hours)}"
    second = seconds[0]
    past = f", {second} s past" if second else ""
    if len(minutes) * len(hours) <= FEW and len(minutes) < 60:
        tail = f":{second:02}" if second else ""
        return f"at {_and([f'{hour:02}:{minute:02}{tail}' for hour in hours for minute in minutes])}"
    if len(minutes) == 1 and (step := _every(hours, 24, "hour")) and not hours[0]:
        return f"{step} at :{minutes[0]:02}{past}" if minutes[0] or second else step
    if len(minutes) == 1 and (step or [*hours] == [*range(hours[0], hours[-1] + 1)]):
        until = "" if step else f" to {hours[-1]:02}:{minutes[0]:02}"
        return f"{step or 'every hour'} from {hours[0]:02}:{minutes[0]:02}{until}{past}"
    if step := _every(minutes, 60, "minute"):
        begin = f" from :{minutes[0]:02}" if minutes[0] else ""
        return f"{step}{begin}{past}{_within(hours)}"
    unit = "minutes" if len(minutes) > 1 else "minute"
    return f"every hour at {unit} {_numbers(minutes)}{past}{_within(hours)}"


def _every(values: Sequence[int], size: int, unit: str) -> str:
    """Of values that lie equally far apart all around; empty: they don't."""
    if len(values) == size:
        return f"every {unit}"
    step = size // len(values)
    if len(values) > 1 and size % len(values) == 0 and [*values] == [*range(values[0], size, step)]:
        return f"every {step} {unit}s"
    return ""


def _within(hours: Sequence[int]) -> str:
    """Of which hours; empty: of all."""
    if len(hours) == 24:
        return ""
    if len(hours) > 1 and [*hours] == [*range(hours[0], hours[-1] + 1)]:
        return f" from {hours[0]:02}:00 to {hours[-1]:02}:59"
    return (
        f" in the hours {_and([f'{hour:02}' for hour in hours])}"
        if len(hours) > 1
        else f" from {hours[0]:02}:00 to {hours[0]:02}:59"
    )


def _days(fields: Fields) -> str:
    """On which days; empty: on all."""
    of_month, of_week = _of_month(fields), _of_week(fields)
    if of_month and of_week:
        if fields.both_days:
            day = _one_of(sorted(fields.weekdays)) or of_week.removeprefix(" on").removesuffix(" of the month")
            return f"{of_month}, if that is{day}"
        return f"{of_month}, and{of_week}"
    return of_month or of_week


def _of_month(fields: Fields) -> str:
    if len(fields.days) == 31:
        return ""
    days = sorted(fields.days)
    if len(days) > FEW and not fields.last_day and days == [*range(days[0], 32, days[1] - days[0])]:
        start = "" if days[0] == 1 else f" from the {_ordinal(days[0])} on"
        return (
            f" on every {_ordinal(days[1] - days[0])} day of the month{start}"
            if days[1] - days[0] > 1
            else f" of the month,{start}"
        )
    named = [f"the {_ordinal(day)}" for day in days] + ["the last day"] * fields.last_day
    if len(days) > FEW and (not fields.last_day) and days == [*range(days[0], days[-1] + 1)]:
        named = [f"the {_ordinal(days[0])} to the {_ordinal(days[-1])}"]
    return f" on {_and(named)} of the month"


def _of_week(fields: Fields) -> str:
    days = sorted(fields.weekdays)
    if fields.nth_weekdays:
        named = [f"the {NTH[nth]} {DAYS[day]}" for day, nth in sorted(fields.nth_weekdays, key=lambda one: (one[1] or 6, one[0]))]
        return f" on {_and(named)} of the month"
    if len(days) in (0, 7):
        return ""
    if days == [1, 2, 3, 4, 5]:
        return " on weekdays"
    if days == [0, 6]:
        return " on weekends"
    return f" on {_and([f'{DAYS[day]}s' for day in [*days[days[0] == 0 :], *days[: days[0] == 0]]])}"


def _one_of(days: Sequence[int]) -> str:
    """That a day is one of these of the week."""
    return f" a {' or a '.join(DAYS[day] for day in days)}" if days else ""


def _months(fields: Fields) -> str:
    months = sorted(fields.months)
    if len(months) == 12:
        return ""
    if len(months) > 2 and months == [*range(months[0], months[-1] + 1)]:
        return f", {MONTHS[months[0] - 1]} to {MONTHS[months[-1] - 1]}"
    return f" in {_and([MONTHS[month - 1] for month in months])}"


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _numbers(values: Sequence[int]) -> str:
    if len(values) > FEW and [*values] == [*range(values[0], values[-1] + 1)]:
        return f"{values[0]} to {values[-1]}"
    return _and([str(value) for value in values])


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
