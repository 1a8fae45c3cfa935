"""When the clock is changed: the rules told in lockbeat/triggers/cron.py, date by date."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbeat.errors import InvalidTrigger
from lockbeat.triggers import Cron, upcoming
from lockbeat.triggers.cron import Fold, Gap


def ms(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp()) * 1000


def slots(cron: Cron, start: str, end: str) -> list[str]:
    """The slots in (start, end], as the zone's clock shows them, with the offset."""
    after, until = ms(start), ms(end)
    found = []
    while (slot := cron.next(after)) is not None and slot <= until:
        found.append(datetime.fromtimestamp(slot / 1000, ZoneInfo(cron.timezone)).isoformat(timespec="minutes"))
        after = slot
    return found


def read(table: str) -> list[tuple[str, str, str, str, list[str]]]:
    rows: list[tuple[str, str, str, str, list[str]]] = []
    for line in table.strip().splitlines():
        if line.startswith("    "):
            rows[-1][-1].extend(line.split())
        elif not line.startswith("#"):
            zone, expression, start, end = line.split(" | ")
            rows.append((zone, expression, start, end, []))
    return rows


# Zone | line | from (exclusive) | to, and below it the slots.
FIXED = read("""
# Spring: skipped once, at the end of the gap, and not on the days around.
America/New_York | 30 2 * * * | 2026-03-07T00:00-05:00 | 2026-03-10T00:00-04:00
    2026-03-07T02:30-05:00 2026-03-08T03:00-04:00 2026-03-09T02:30-04:00
# Autumn: the first of the two.
America/New_York | 30 1 * * * | 2026-10-31T00:00-04:00 | 2026-11-03T00:00-05:00
    2026-10-31T01:30-04:00 2026-11-01T01:30-04:00 2026-11-02T01:30-05:00
America/New_York | 15,45 1,2 * * * | 2026-11-01T00:00-04:00 | 2026-11-02T00:00-05:00
    2026-11-01T01:15-04:00 2026-11-01T01:45-04:00 2026-11-01T02:15-05:00 2026-11-01T02:45-05:00
# Several in one gap are one slot, also together with one that is really there.
Europe/Berlin | 15,45 2 * * * | 2026-03-29T00:00+01:00 | 2026-03-30T12:00+02:00
    2026-03-29T03:00+02:00 2026-03-30T02:15+02:00 2026-03-30T02:45+02:00
Europe/Berlin | 0 2,3,4 * * * | 2026-03-29T00:00+01:00 | 2026-03-30T00:00+02:00
    2026-03-29T03:00+02:00 2026-03-29T04:00+02:00
# The borders: 02:00 is skipped, 03:00 is not, 01:59 is not.
Europe/Berlin | 0 2 * * * | 2026-03-29T00:00+01:00 | 2026-03-29T12:00+02:00
    2026-03-29T03:00+02:00
Europe/Berlin | 0 3 * * * | 2026-03-29T00:00+01:00 | 2026-03-29T12:00+02:00
    2026-03-29T03:00+02:00
Europe/Berlin | 59 1 * * * | 2026-03-29T00:00+01:00 | 2026-03-29T12:00+02:00
    2026-03-29T01:59+01:00
# 02:00 comes twice, 03:00 once; on this day only the first 02:00 counts.
Europe/Berlin | 0 2,3 * * * | 2026-10-25T00:00+02:00 | 2026-10-26T00:00+01:00
    2026-10-25T02:00+02:00 2026-10-25T03:00+01:00
# A range of hours is no star, though it names them all.
Europe/Berlin | 30 0-23 * * * | 2026-10-25T00:00+02:00 | 2026-10-25T04:00+01:00
    2026-10-25T00:30+02:00 2026-10-25T01:30+02:00 2026-10-25T02:30+02:00 2026-10-25T03:30+01:00
Europe/London | 30 1 * * * | 2026-03-28T00:00+00:00 | 2026-03-31T00:00+01:00
    2026-03-28T01:30+00:00 2026-03-29T02:00+01:00 2026-03-30T01:30+01:00
Europe/London | 30 1 * * * | 2026-10-25T00:00+01:00 | 2026-10-26T12:00+00:00
    2026-10-25T01:30+01:00 2026-10-26T01:30+00:00
# Half an hour: 02:00-02:30 is skipped, 01:30-02:00 comes twice.
Australia/Lord_Howe | 15 2 * * * | 2026-10-03T00:00+10:30 | 2026-10-06T00:00+11:00
    2026-10-03T02:15+10:30 2026-10-04T02:30+11:00 2026-10-05T02:15+11:00
Australia/Lord_Howe | 0,45 1 * * * | 2026-04-05T00:00+11:00 | 2026-04-06T00:00+10:30
    2026-04-05T01:00+11:00 2026-04-05T01:45+11:00
# Midnight is skipped: the day begins at 01:00.
America/Havana | 0 0 * * * | 2026-03-07T00:00-05:00 | 2026-03-09T12:00-04:00
    2026-03-08T01:00-04:00 2026-03-09T00:00-04:00
America/Havana | 30 0 * * * | 2026-11-01T00:00-04:00 | 2026-11-02T12:00-05:00
    2026-11-01T00:30-04:00 2026-11-02T00:30-05:00
America/Santiago | @daily | 2026-09-05T00:00-04:00 | 2026-09-07T12:00-03:00
    2026-09-06T01:00-03:00 2026-09-07T00:00-03:00
# The hour before midnight comes twice; midnight itself once.
America/Santiago | 30 23 * * * | 2026-04-04T12:00-03:00 | 2026-04-06T00:00-04:00
    2026-04-04T23:30-03:00 2026-04-05T23:30-04:00
America/Santiago | 0 0 * * * | 2026-04-04T12:00-03:00 | 2026-04-06T00:00-04:00
    2026-04-05T00:00-04:00 2026-04-06T00:00-04:00
# Back for Ramadan, forward after it.
Africa/Casablanca | 30 2 * * * | 2026-02-14T12:00+01:00 | 2026-02-16T12:00+00:00
    2026-02-15T02:30+01:00 2026-02-16T02:30+00:00
Africa/Casablanca | 30 2 * * * | 2026-03-21T12:00+00:00 | 2026-03-23T12:00+01:00
    2026-03-22T03:00+01:00 2026-03-23T02:30+01:00
# A whole day that never was: its jobs fire at the first instant of the next.
Pacific/Apia | 0 12 * * * | 2011-12-29T00:00-10:00 | 2012-01-01T00:00+14:00
    2011-12-29T12:00-10:00 2011-12-31T00:00+14:00 2011-12-31T12:00+14:00
# A change for good: three hours back, on an Antarctic station.
Antarctica/Casey | 0 1 * * * | 2010-03-04T00:00+11:00 | 2010-03-06T00:00+08:00
    2010-03-04T01:00+11:00 2010-03-05T01:00+11:00
""")

# Lines that follow real time.
REAL_TIME = read("""
Europe/Berlin | */30 * * * * | 2026-10-25T01:30+02:00 | 2026-10-25T03:00+01:00
    2026-10-25T02:00+02:00 2026-10-25T02:30+02:00 2026-10-25T02:00+01:00 2026-10-25T02:30+01:00
    2026-10-25T03:00+01:00
Europe/Berlin | */30 * * * * | 2026-03-29T01:00+01:00 | 2026-03-29T03:30+02:00
    2026-03-29T01:30+01:00 2026-03-29T03:00+02:00 2026-03-29T03:30+02:00
America/New_York | 30 * * * * | 2026-11-01T00:30-04:00 | 2026-11-01T02:30-05:00
    2026-11-01T01:30-04:00 2026-11-01T01:30-05:00 2026-11-01T02:30-05:00
America/New_York | 30 * * * * | 2026-03-08T00:30-05:00 | 2026-03-08T03:30-04:00
    2026-03-08T01:30-05:00 2026-03-08T03:30-04:00
# A star in either field is enough: Vixie's rule, though the hour is fixed.
America/New_York | */30 2 * * * | 2026-03-08T00:00-05:00 | 2026-03-09T02:30-04:00
    2026-03-09T02:00-04:00 2026-03-09T02:30-04:00
America/New_York | */30 1 * * * | 2026-11-01T00:00-04:00 | 2026-11-01T12:00-05:00
    2026-11-01T01:00-04:00 2026-11-01T01:30-04:00 2026-11-01T01:00-05:00 2026-11-01T01:30-05:00
Australia/Lord_Howe | */15 * * * * | 2026-04-05T01:15+11:00 | 2026-04-05T02:00+10:30
    2026-04-05T01:30+11:00 2026-04-05T01:45+11:00 2026-04-05T01:30+10:30 2026-04-05T01:45+10:30
    2026-04-05T02:00+10:30
# 02:00 does not exist and nothing is made up for it; 03:00 is the next full hour.
Australia/Lord_Howe | 0 * * * * | 2026-10-04T00:00+10:30 | 2026-10-04T04:00+11:00
    2026-10-04T01:00+10:30 2026-10-04T03:00+11:00 2026-10-04T04:00+11:00
America/Havana | */30 0 * * * | 2026-03-07T12:00-05:00 | 2026-03-09T12:00-04:00
    2026-03-09T00:00-04:00 2026-03-09T00:30-04:00
America/Santiago | 0 */12 * * * | 2026-09-05T00:00-04:00 | 2026-09-07T00:00-03:00
    2026-09-05T12:00-04:00 2026-09-06T12:00-03:00 2026-09-07T00:00-03:00
Africa/Casablanca | 0 * * * * | 2026-02-15T01:00+01:00 | 2026-02-15T03:00+00:00
    2026-02-15T02:00+01:00 2026-02-15T02:00+00:00 2026-02-15T03:00+00:00
Africa/Casablanca | */30 * * * * | 2026-03-22T01:00+00:00 | 2026-03-22T03:30+01:00
    2026-03-22T01:30+00:00 2026-03-22T03:00+01:00 2026-03-22T03:30+01:00
# The seconds come first, and a star among them counts, too.
Europe/London | */30 59 1 * * * | 2026-10-25T00:00+01:00 | 2026-10-25T12:00+00:00
    2026-10-25T01:59+01:00 2026-10-25T01:59+01:00 2026-10-25T01:59+00:00 2026-10-25T01:59+00:00
""")


@pytest.mark.parametrize(("zone", "expression", "start", "end", "expected"), FIXED)
def test_a_fixed_time_fires_once_a_day_even_if_the_clock_skips_or_repeats_it(
    zone: str, expression: str, start: str, end: str, expected: list[str]
) -> None:
    assert slots(Cron(expression, zone), start, end) == expected


@pytest.mark.parametrize(("zone", "expression", "start", "end", "expected"), REAL_TIME)
def test_a_star_follows_real_time_through_gap_and_fold(
    zone: str, expression: str, start: str, end: str, expected: list[str]
) -> None:
    assert slots(Cron(expression, zone), start, end) == expected


@pytest.mark.parametrize(("zone", "expression", "start", "end", "expected"), FIXED + REAL_TIME)
def test_going_back_finds_the_slots_that_going_forward_found(
    zone: str, expression: str, start: str, end: str, expected: list[str]
) -> None:
    cron = Cron(expression, zone)
    found = []
    slot = cron.prev(ms(end))
    while slot is not None and slot > ms(start):
        found.append(datetime.fromtimestamp(slot / 1000, ZoneInfo(zone)).isoformat(timespec="minutes"))
        slot = cron.prev(slot - 1)
    assert found[::-1] == expected


def test_a_fixed_time_with_seconds_is_treated_like_the_same_line_without() -> None:
    without, having = Cron("30 2 * * *", "Europe/Berlin"), Cron("0 30 2 * * *", "Europe/Berlin")
    start = ms("2026-01-01T00:00+01:00")
    assert upcoming(having, start, 400) == upcoming(without, start, 400)


def test_a_start_inside_the_second_pass_does_not_go_back_to_the_first() -> None:
    cron = Cron("30 1 * * *", "America/New_York")
    after = ms("2026-11-01T01:10-05:00")
    assert cron.next(after) == ms("2026-11-02T01:30-05:00")
    assert cron.prev(after) == ms("2026-11-01T01:30-04:00")


def test_half_hours_never_go_backwards_and_are_half_an_hour_apart_all_year() -> None:
    found = upcoming(Cron("*/30 * * * *", "Europe/Berlin"), ms("2026-01-01T00:00+01:00"), 365 * 48)
    assert {later - earlier for earlier, later in pairwise(found)} == {30 * 60_000}


def test_a_line_that_names_only_times_its_zone_always_skips_has_no_slot() -> None:
    cron = Cron("*/15 2 * 3 sun#2", "America/New_York")
    assert cron.next(ms("2026-01-01T00:00+00:00")) is None
    assert cron.next(ms("2026-01-01T00:00+00:00")) is None
    # The same as a fixed time fires at the end of the gap.
    assert Cron("15 2 * 3 sun#2", "America/New_York").next(ms("2026-01-01T00:00+00:00")) == ms("2026-03-08T03:00-04:00")


@pytest.mark.parametrize(
    ("gap", "spring"),
    [
        ("after", ["2026-03-28T02:30+01:00", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("skip", ["2026-03-28T02:30+01:00", "2026-03-30T02:30+02:00"]),
    ],
)
def test_a_gap_makes_up_for_what_it_skips_or_does_not(gap: Gap, spring: list[str]) -> None:
    cron = Cron("30 2 * * *", "Europe/Berlin", gap=gap)
    assert slots(cron, "2026-03-28T00:00+01:00", "2026-03-30T12:00+02:00") == spring


@pytest.mark.parametrize(
    ("fold", "autumn"),
    [
        ("first", ["2026-10-25T02:30+02:00"]),
        ("last", ["2026-10-25T02:30+01:00"]),
        ("both", ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"]),
    ],
)
def test_a_time_that_comes_twice_fires_first_last_or_both_times(fold: Fold, autumn: list[str]) -> None:
    cron = Cron("30 2 * * *", "Europe/Berlin", fold=fold)
    assert slots(cron, "2026-10-25T00:00+02:00", "2026-10-25T12:00+01:00") == autumn
    before_and_after = ["2026-10-24T02:30+02:00", *autumn, "2026-10-26T02:30+01:00"]
    assert slots(cron, "2026-10-24T00:00+02:00", "2026-10-26T12:00+01:00") == before_and_after


@pytest.mark.parametrize("line", ["* * * * *", "*/15 2 * * *", "30 * * * *", "H * * * *"])
@pytest.mark.parametrize("option", [{"gap": "skip"}, {"fold": "both"}, {"fold": "last"}])
def test_a_line_that_follows_real_time_takes_neither_gap_nor_fold(line: str, option: dict[str, Any]) -> None:
    [(name, word)] = option.items()
    with pytest.raises(InvalidTrigger, match=f"{name}: {word!r} is for fixed local times"):
        Cron(line, "Europe/Berlin", **option)


# Zone and a day near one of its changes; some changes are odd: not by whole hours, at midnight, by a day.
CHANGES = [
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("Europe/London", "2026-10-25"),
    ("Europe/Dublin", "2026-03-29"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Havana", "2026-03-08"),
    ("America/Santiago", "2026-04-05"),
    ("America/Santiago", "2026-09-06"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Asia/Beirut", "2026-03-29"),
    ("Atlantic/Azores", "2026-10-25"),
    ("Antarctica/Troll", "2026-03-29"),
    ("Pacific/Apia", "2011-12-30"),
    ("Pacific/Kwajalein", "1993-08-21"),
    ("Antarctica/Vostok", "1994-01-31"),
    ("Africa/Monrovia", "1972-01-07"),
    ("Asia/Kathmandu", "1985-12-31"),
    ("America/Caracas", "2016-05-01"),
]


@cache
def clock(zone: str, start: int) -> list[tuple[int, datetime]]:
    """What the zone's clock shows, every half minute from three days before `start` to three days after."""
    tz = ZoneInfo(zone)
    instants = range(start - 72 * 3600, start + 72 * 3600, 30)
    return [(t, datetime.fromtimestamp(t, tz).replace(tzinfo=None, fold=0)) for t in instants]


def by_walking(
    zone: str, start: int, minutes: set[int], hours: set[int], real_time: bool, gap: str = "after", fold: str = "first"
) -> list[int]:
    """The slots of three days, from the words of the rule: every minute looked at, nothing clever."""
    shown: dict[datetime, list[int]] = {}  # wall time: the instants that show it
    found = set()
    for instant, wall in clock(zone, start):
        shown.setdefault(wall, []).append(instant)
        if real_time and wall.second == 0 and wall.minute in minutes and wall.hour in hours:
            found.add(instant)
    if not real_time:
        walls = sorted(shown)
        wall, i = walls[0].replace(second=0), 0
        while wall <= walls[-1]:
            if wall.minute in minutes and wall.hour in hours:
                # Not shown: the first wall time after it that is.
                while walls[i] < wall:
                    i += 1
                if walls[i] == wall:
                    found.update({"first": shown[wall][:1], "last": shown[wall][-1:], "both": shown[wall]}[fold])
                elif gap == "after":
                    found.add(shown[walls[i]][0])
            wall += timedelta(minutes=1)
    return sorted(slot * 1000 for slot in found if start <= slot < start + 71 * 3600)


@pytest.mark.long
@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    change=st.sampled_from(CHANGES),
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=4),
    hours=st.sets(st.integers(0, 23) | st.integers(0, 3), min_size=1, max_size=5),
    star=st.sampled_from(["none", "hour", "minute"]),
    gap=st.sampled_from(get_args(Gap)),
    fold=st.sampled_from(get_args(Fold)),
)
def test_the_slots_are_those_that_a_walk_over_every_minute_finds(
    change: tuple[str, str], minutes: set[int], hours: set[int], star: str, gap: Gap, fold: Fold
) -> None:
    zone, day = change
    if star == "hour":
        hours = set(range(24))
    if star == "minute":
        minutes = set(range(60))
    fields = ["*" if len(values) > 5 else ",".join(map(str, sorted(values))) for values in (minutes, hours)]
    start = ms(f"{day}T00:00+00:00") - 36 * 3_600_000
    if star != "none":
        gap, fold = "after", "first"
    expected = by_walking(zone, start // 1000, minutes, hours, star != "none", gap, fold)
    cron = Cron(f"{fields[0]} {fields[1]} * * *", zone, gap=gap, fold=fold)
    found = []
    slot = cron.next(start - 1)
    while slot is not None and slot < start + 71 * 3_600_000:
        found.append(slot)
        assert cron.prev(slot) == slot
        assert cron.prev(slot + 59_999) in (slot, slot + 30_000)  # Monrovia's gap ends at a half minute
        slot = cron.next(slot)
    assert found == expected
