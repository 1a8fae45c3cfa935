"""Why an instant is no slot of a trigger: a CODE, and a sentence for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from .any_of import AnyOf
from .at import At
from .base import Trigger, isoformat
from .between import Between
from .by_hand import ByHand
from .cron import Cron
from .every import Every
from .grammar import parse
from .solar import Solar
from .wall import WallClock, wall_clock
from .zones import DAY, LAST, Stretch, stretch_at

CODES = ("field", "gap", "fold", "period", "once", "before_start", "after_end", "by_hand")
"""field: a field of the cron line says another time. gap: the clock skips the time that the line names. fold: the clock shows it
twice, and the slot is the other one. period, once: Every, At. before_start, after_end: the job's `start` and `end`."""


class NoSlot(NamedTuple):
    """Why an instant is no slot."""

    code: str
    """One of CODES."""
    why: str


def no_slot(trigger: Trigger, at_ms: int) -> list[NoSlot]:
    """Why this instant is no slot; of `AnyOf` why it is none of each of its triggers. Empty: it is one."""
    if isinstance(trigger, AnyOf):
        parts = [(one, no_slot(one, at_ms)) for one in trigger.triggers]
        if not all(found for _, found in parts):
            return []
        return [NoSlot(found[0].code, f"{one}: {found[0].why}") for one, found in parts]
    if isinstance(trigger, Between):
        if trigger.start_ms is not None and at_ms < trigger.start_ms:
            return [NoSlot("before_start", f"the job starts at {isoformat(trigger.start_ms)}")]
        if trigger.end_ms is not None and at_ms >= trigger.end_ms:
            return [NoSlot("after_end", f"the job ends before {isoformat(trigger.end_ms)}")]
        return no_slot(trigger.trigger, at_ms)
    if trigger.prev(at_ms) == at_ms:
        return []
    if isinstance(trigger, Cron):
        return [_of_cron(trigger, at_ms)]
    if isinstance(trigger, Every):
        return [NoSlot("period", f"a slot comes {trigger}, counted from {isoformat(trigger.anchor_ms)}")]
    if isinstance(trigger, At):
        return [NoSlot("once", f"its only slot is {isoformat(trigger.when_ms)}")]
    if isinstance(trigger, Solar):
        return [NoSlot("period", f"a slot is {trigger}, to the second")]
    assert isinstance(trigger, ByHand)
    return [NoSlot("by_hand", "it has no slots, and runs when somebody triggers it")]


def _of_cron(cron: Cron, at_ms: int) -> NoSlot:
    if not 0 <= at_ms < LAST * 1000:
        return NoSlot("field", "slots of a cron line begin with the year 1970")
    second, rest = divmod(at_ms, 1000)
    stretch, line = stretch_at(cron.timezone, second), wall_clock(cron.expression, cron.days == "both")
    wall = second + stretch.offset
    if not rest and line.prev(wall) == wall:
        return _of_fold(cron, stretch, wall)
    skipped = stretch.reached + second - stretch.start
    if not rest and skipped < stretch.start + stretch.offset and line.prev(skipped) == skipped:
        return _of_gap(cron, stretch, skipped)
    shown = f"the clock of {cron.timezone} shows {_shown(wall)}"
    if rest:
        return NoSlot("field", f"{shown} and {rest} ms, and slots of a cron line are whole seconds")
    return NoSlot("field", f"{shown}, and {' and '.join(_wrong(cron, line, wall))}")


def _of_fold(cron: Cron, stretch: Stretch, wall: int) -> NoSlot:
    """The line names this time of a clock that was set back: it comes twice, and the slot is the other one."""
    other = "first" if wall < stretch.reached else "last"
    return NoSlot("fold", f"the clock of {cron.timezone} shows {_shown(wall)} twice, and fold={cron.fold} fires the {other} time")


def _of_gap(cron: Cron, stretch: Stretch, skipped: int) -> NoSlot:
    """The line names a time that the clock skipped, when it was set forward to this one."""
    instead = "drops it" if cron.gap == "skip" else f"fires at {isoformat(stretch.start * 1000)}, right after the gap"
    if parse(cron.expression).real_time:
        return NoSlot("gap", f"the clock of {cron.timezone} skipped {_shown(skipped)}, and a line with `*` follows real time")
    return NoSlot("gap", f"the clock of {cron.timezone} skipped {_shown(skipped)}, and gap={cron.gap} {instead}")


def _wrong(cron: Cron, line: WallClock, wall: int) -> Iterator[str]:
    """Which fields say another time than this one."""
    words = cron.expression.split(" ")
    second, minute, hour, of_month, month, of_week = words if len(words) == 6 else ["0", *words]
    fields, shown, midnight = parse(cron.expression), datetime.fromtimestamp(wall, UTC), wall // DAY * DAY
    last = line.prev(midnight + DAY - 1)
    for name, word, value, allowed in (
        ("second", second, shown.second, fields.seconds),
        ("minute", minute, shown.minute, fields.minutes),
        ("hour", hour, shown.hour, fields.hours),
    ):
        if value not in allowed:
            yield f"its {name} is {value}, where the line says {word}"
    if shown.month not in fields.months:
        yield f"its month is {shown:%B}, where the line says {month}"
    elif last is None or last < midnight:
        days = f"{of_month} as day of the month" if of_month[0] != "*" else ""
        weekdays = f"{of_week} as day of the week" if of_week[0] != "*" else ""
        both = " and " if fields.both_days or cron.days == "both" else " or "
        yield f"its day is {shown:%A}, the {shown.day}, where the line says {both.join(filter(None, (days, weekdays)))}"


def _shown(wall: int) -> str:
    """A wall time: 2030-01-31 12:00:00."""
    return datetime.fromtimestamp(wall, UTC).isoformat(" ").partition("+")[0]
