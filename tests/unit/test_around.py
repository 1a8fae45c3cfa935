"""Plans around excluded days: every slot has one fate, and it is the right one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockbeat.calendars import Calendar, CalendarEntry, Closed
from lockbeat.jobs import Job, around
from lockbeat.triggers import At, Cron, Every, Trigger, upcoming

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Beirut",
    "Pacific/Apia",
    "America/Havana",
    "+05:30",
    "Pacific/Kiritimati",
]
MINUTE, HOUR = 60_000, 3_600_000


def ms(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def closed(zone: str, *days: str, name: str = "c") -> Closed:
    entries = tuple(CalendarEntry.of(day) for day in days)
    return Closed([Calendar(name, entries, max(entry.last for entry in entries))], zone)


def date_in(slot: int, zone: str) -> date:
    """By the standard library."""
    offset = datetime.fromisoformat(f"2000-01-01T00:00{zone}").tzinfo if zone[0] == "+" else ZoneInfo(zone)
    return datetime.fromtimestamp(slot / 1000, UTC).astimezone(offset).date()


@pytest.mark.parametrize(
    ("zone", "slot", "day"),
    [
        ("UTC", "2026-12-25T00:00", "2026-12-25"),
        ("Europe/Berlin", "2026-12-24T23:00", "2026-12-25"),
        ("America/New_York", "2026-12-26T04:59", "2026-12-25"),
        ("Pacific/Kiritimati", "2026-12-24T10:00", "2026-12-25"),
        ("Europe/Berlin", "2026-12-25T23:00", None),
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-31"),  # the day before was skipped
    ],
)
def test_a_day_is_one_of_the_jobs_zone(zone: str, slot: str, day: str | None) -> None:
    found = closed(zone, "2026-12-25 Christmas", "2011-12-31 after").on(ms(slot))
    assert (found is not None) == (day is not None)


def fates(job: Job, start: int, now: int, calendars: Closed) -> list[tuple[int, str]]:
    """What becomes of each slot that has come due, in the order in which the ledger is told."""
    found: list[tuple[int, str]] = []
    slot: int | None = start
    for _ in range(10_000):
        if slot is None or slot > now:
            return found
        planned = around.of(job, slot, now, calendars)
        if planned.count:
            missed = between(job.trigger, planned.first, planned.last)
            assert planned.count in (len(missed), -1)
            found += [(each, "missed") for each in missed]
        if planned.excluded:
            last, count, _ = (f"{planned.excluded} ").split(" ", 2)
            run = between(job.trigger, planned.fire, int(last))
            assert len(run) == int(count)
            assert len({calendars.day(each) for each in run}) == 1
            found += [(each, "excluded") for each in run]
        else:
            found.append((planned.fire, "fired"))
        slot = None if planned.next is None else planned.next.slot_ms
    raise AssertionError("it does not come to an end")


def between(trigger: Trigger, first: int, last: int) -> list[int]:
    found, slot = [first], trigger.next(first)
    while slot is not None and slot <= last:
        found.append(slot)
        slot = trigger.next(slot)
    return found


TABLE = [
    # catch-up, the days that are excluded, now; what becomes of the daily 06:00 from December 23 on
    ("latest", ["2026-12-25"], "2026-12-23T06:00", ["23 fired"]),
    ("latest", ["2026-12-23"], "2026-12-23T06:00", ["23 excluded"]),
    ("latest", ["2026-12-25"], "2026-12-25T07:00", ["23 missed", "24 fired", "25 excluded"]),
    ("latest", ["2026-12-25"], "2026-12-26T06:00", ["23 missed", "24 missed", "25 excluded", "26 fired"]),
    ("latest", ["2026-12-23..2026-12-25"], "2026-12-25T07:00", ["23 excluded", "24 excluded", "25 excluded"]),
    (
        "latest",
        ["2026-12-24", "2026-12-26..2026-12-27"],
        "2026-12-28T05:00",
        ["23 missed", "24 excluded", "25 fired", "26 excluded", "27 excluded"],
    ),
    ("skip", ["2026-12-24"], "2026-12-25T07:00", ["23 missed", "24 excluded", "25 fired"]),
]


@pytest.mark.parametrize(("catchup", "days", "now", "says"), TABLE)
def test_slot_by_slot_after_an_outage(catchup: str, days: list[str], now: str, says: list[str]) -> None:
    """What is late under catch-up skip, the script says."""
    job = Job.declare("report", Cron("0 6 * * *"), catchup=catchup, exclude=["c"])
    found = fates(job, ms("2026-12-23T06:00"), ms(now), closed("UTC", *days))
    assert [f"{datetime.fromtimestamp(slot / 1000, UTC).day} {fate}" for slot, fate in found] == says


DAYS = st.lists(st.integers(0, 12), max_size=6, unique=True).map(
    lambda days: [f"{date(2026, 10, 20) + timedelta(day)}" for day in days] or ["1999-01-01"]
)
TRIGGERS = st.sampled_from(ZONES).flatmap(
    lambda zone: st.sampled_from(
        [Cron("30 6 * * *", zone), Cron("*/40 * * * *", zone), Cron("30 1 * * *", zone), Cron("0 0,23 * * *", zone)]
    )
)


@settings(max_examples=300, deadline=None)
@given(TRIGGERS, DAYS, st.integers(0, 300), st.integers(0, 300), st.sampled_from([0, 50 * MINUTE]))
@example(Cron("*/40 * * * *", "Asia/Beirut"), ["2026-10-24", "2026-10-25"], 0, 300, 0)
def test_every_slot_has_one_fate_and_excluded_are_those_of_the_days(
    trigger: Trigger, days: list[str], start: int, hours: int, jitter: int
) -> None:
    job = Job.declare("report", trigger, jitter=jitter / 1000, exclude=["c"])
    zone, calendars = trigger.timezone, closed(trigger.timezone, *days)
    first = trigger.next(ms("2026-10-20T00:00") + start * HOUR)
    assert first is not None
    now = first + hours * HOUR
    found = fates(job, first, now, calendars)
    due = between(trigger, first, now)
    assert [slot for slot, _ in found] == due, "each once, in order"
    excluded = {slot for slot in due if f"{date_in(slot, zone)}" in days}
    assert {slot for slot, fate in found if fate == "excluded"} == excluded
    fired = [slot for slot, fate in found if fate == "fired"]
    kept = [slot for slot in due if slot not in excluded]
    assert fired[-1:] == kept[-1:] or jitter, "the latest that is not excluded"
    assert len(fired) <= (2 if jitter else 1)


@settings(max_examples=100, deadline=None)
@given(TRIGGERS, DAYS, st.integers(0, 300))
def test_what_is_to_come_is_every_slot_but_one_an_excluded_day(trigger: Trigger, days: list[str], start: int) -> None:
    job, calendars = Job.declare("report", trigger, exclude=["c"]), closed(trigger.timezone, *days)
    first = trigger.next(ms("2026-10-20T00:00") + start * HOUR)
    assert first is not None
    coming = around.upcoming(job, first, calendars)
    found = [next(coming) for _ in range(30)]
    slots = [first, *upcoming(trigger, first, 3000)]
    kept = [slot for slot in slots if f"{date_in(slot, trigger.timezone)}" not in days]
    assert [each.slot_ms for each in found if not each.calendar] == kept[: sum(not each.calendar for each in found)]
    named = [f"{date_in(each.slot_ms, trigger.timezone)}" for each in found if each.calendar]
    assert named == sorted(set(named) & set(days))


def test_a_job_that_ends_has_an_end_and_one_without_a_zone_has_utc_days() -> None:
    once = Job.declare("once", At(datetime(2026, 12, 25, 6, tzinfo=UTC)), exclude=["c"])
    planned = around.of(once, ms("2026-12-25T06:00"), ms("2026-12-26T06:00"), closed("UTC", "2026-12-25 Christmas"))
    assert (planned.next, planned.excluded) == (None, f"{ms('2026-12-25T06:00')} 1 c Christmas")
    assert Every(60).timezone == "UTC"


def test_a_long_day_of_many_slots_is_entered_in_pieces() -> None:
    job = Job.declare("tick", Every(1), exclude=["c"])
    start = ms("2026-12-25T00:00")
    planned = around.of(job, start, start + 86_400_000, closed("UTC", "2026-12-25"))
    assert planned.excluded == f"{start + 999_000} 1000 c"
    assert planned.next is not None
    assert planned.next.slot_ms == start + 1_000_000


def test_the_first_calendar_that_has_a_day_names_it() -> None:
    one, other = (Calendar(name, (CalendarEntry.of("2026-12-25 " + name),), date(2026, 12, 25)) for name in ("one", "other"))
    assert Closed([one, other], "UTC").on(ms("2026-12-25T10:00")) == ("one", "one")
    assert Closed([other, one], "UTC").on(ms("2026-12-25T10:00")) == ("other", "other")


def test_what_is_too_late_before_an_excluded_day_is_missed_as_one() -> None:
    """Four days' outage: the window counts from now, not from the day that is excluded."""
    start = ms("2026-12-24T00:00:10")
    job = Job.declare("tick", Every(10), exclude=["c"], catchup="all", cap=1000, window=60)
    planned = around.of(job, start, ms("2026-12-28T00:00"), closed("UTC", "2026-12-25"))
    assert (planned.first, planned.last, planned.count) == (start, ms("2026-12-24T23:59:50"), -1)
    assert planned.excluded == f"{ms('2026-12-25T02:46:30')} 1000 c"
    in_time = ms("2026-12-25T00:00:30")
    planned = around.of(job, start, in_time, closed("UTC", "2026-12-25"))
    assert (planned.fire, planned.excluded) == (in_time - 60_000, "")
    assert planned.next is not None
    assert planned.next.slot_ms == in_time - 50_000


@pytest.mark.parametrize(
    ("slot", "after"), [("2019-09-08T10:00", "2019-09-09T03:00"), ("2019-04-07T02:30", "2019-04-07T04:00")], ids=str
)
def test_quartznet_3465_a_day_ends_where_the_zones_next_day_begins(slot: str, after: str) -> None:
    """quartznet #3465: in a zone that moves its clocks at midnight a holiday ended an hour or a day off."""
    days = closed("America/Santiago", "2019-09-08", "2019-04-06")
    assert days.on(ms(slot)) is not None
    assert days.after_day(Every(1800), ms(slot)) == ms(after)
    assert days.on(ms(after)) is None
    assert days.on(ms(after) - 1) is not None
