"""The grammar of cron lines, its errors, and what `next` and `prev` owe each other."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from importlib.resources import files
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockbeat.errors import InvalidTrigger
from lockbeat.triggers import Cron, Every, trigger_from_json, upcoming
from lockbeat.triggers.zones import LAST, zone_name

NEW_YEAR = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1000


class Changing(tzinfo):
    """As dateutil's zones: it has an offset only at a time, and no name."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else timedelta(hours=moment.month % 2)

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        return None


class Broken(Changing):
    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        assert moment is not None
        return timedelta(0)


class Always(Changing):
    """As a library's own fixed zone."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=-4)


class Named(Changing):
    """As pytz has it."""

    zone = "Europe/Berlin"


def attempt(expression: str, zone: str = "UTC") -> Cron | InvalidTrigger:
    try:
        return Cron(expression, zone)
    except InvalidTrigger as error:
        return error


def first(expression: str, n: int, after: int = NEW_YEAR - 1000) -> list[str]:
    slots = upcoming(Cron(expression), after, n)
    return [datetime.fromtimestamp(slot / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") for slot in slots]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", ["2026-01-01 00:00:00", "2026-01-01 00:01:00"]),
        ("* * * * * *", ["2026-01-01 00:00:00", "2026-01-01 00:00:01"]),
        ("*/5 * * * *", ["2026-01-01 00:00:00", "2026-01-01 00:05:00"]),
        ("*/40 * * * *", ["2026-01-01 00:00:00", "2026-01-01 00:40:00", "2026-01-01 01:00:00"]),
        # The second comes first.
        ("30 0 12 * * *", ["2026-01-01 12:00:30", "2026-01-02 12:00:30"]),
        ("*/20 59 23 31 12 *", ["2026-12-31 23:59:00", "2026-12-31 23:59:20", "2026-12-31 23:59:40"]),
        ("@yearly", ["2026-01-01 00:00:00", "2027-01-01 00:00:00"]),
        ("@annually", ["2026-01-01 00:00:00", "2027-01-01 00:00:00"]),
        ("@monthly", ["2026-01-01 00:00:00", "2026-02-01 00:00:00"]),
        ("@weekly", ["2026-01-04 00:00:00", "2026-01-11 00:00:00"]),
        ("@daily", ["2026-01-01 00:00:00", "2026-01-02 00:00:00"]),
        ("@midnight", ["2026-01-01 00:00:00", "2026-01-02 00:00:00"]),
        ("@Hourly", ["2026-01-01 00:00:00", "2026-01-01 01:00:00"]),
        # Names, ranges, lists, steps.
        ("0 9 * FEB,apr Mon", ["2026-02-02 09:00:00", "2026-02-09 09:00:00"]),
        ("0 0 0 * * mon/2", ["2026-01-02 00:00:00", "2026-01-05 00:00:00", "2026-01-07 00:00:00"]),
        ("0 0 * * mon-wed/2", ["2026-01-05 00:00:00", "2026-01-07 00:00:00", "2026-01-12 00:00:00"]),
        ("0 1-3,7 * * *", ["2026-01-01 01:00:00", "2026-01-01 02:00:00", "2026-01-01 03:00:00"]),
        ("50/4 0 * * *", ["2026-01-01 00:50:00", "2026-01-01 00:54:00", "2026-01-01 00:58:00"]),
        ("59/15 * * * *", ["2026-01-01 00:59:00", "2026-01-01 01:59:00"]),
        ("5-5 * * * *", ["2026-01-01 00:05:00", "2026-01-01 01:05:00"]),
        # A step as long as its field says what it does.
        ("*/60 * * * *", ["2026-01-01 00:00:00", "2026-01-01 01:00:00"]),
        ("15/60 * * * *", ["2026-01-01 00:15:00", "2026-01-01 01:15:00"]),
        ("0 */24 * * *", ["2026-01-01 00:00:00", "2026-01-02 00:00:00"]),
        ("0 0 1 */12 *", ["2026-01-01 00:00:00", "2027-01-01 00:00:00"]),
        ("0 0 * * */7", ["2026-01-04 00:00:00", "2026-01-11 00:00:00"]),
        ("5-5/2 * * * *", ["2026-01-01 00:05:00", "2026-01-01 01:05:00"]),
        ("0 0 1 jan-jan *", ["2026-01-01 00:00:00", "2027-01-01 00:00:00"]),
        # Ranges that wrap, also with a step.
        ("0 22-1 * * *", ["2026-01-01 00:00:00", "2026-01-01 01:00:00", "2026-01-01 22:00:00"]),
        ("0 23-5/3 * * *", ["2026-01-01 02:00:00", "2026-01-01 05:00:00", "2026-01-01 23:00:00"]),
        ("0 0 1 nov-jun/3 *", ["2026-02-01 00:00:00", "2026-05-01 00:00:00", "2026-11-01 00:00:00"]),
        ("0 0 * * sat-sun", ["2026-01-03 00:00:00", "2026-01-04 00:00:00", "2026-01-10 00:00:00"]),
        # Sunday is 0 and 7.
        ("0 0 * * 0", ["2026-01-04 00:00:00", "2026-01-11 00:00:00"]),
        ("0 0 * * 7", ["2026-01-04 00:00:00", "2026-01-11 00:00:00"]),
        ("0 0 * * 6-7", ["2026-01-03 00:00:00", "2026-01-04 00:00:00", "2026-01-10 00:00:00"]),
        ("0 0 * * 0-7", ["2026-01-01 00:00:00", "2026-01-02 00:00:00"]),
        # Last and nth.
        ("0 0 L * *", ["2026-01-31 00:00:00", "2026-02-28 00:00:00", "2026-03-31 00:00:00"]),
        ("0 0 15,l * *", ["2026-01-15 00:00:00", "2026-01-31 00:00:00", "2026-02-15 00:00:00"]),
        ("0 0 * * L5", ["2026-01-30 00:00:00", "2026-02-27 00:00:00"]),
        ("0 0 * * 5l", ["2026-01-30 00:00:00", "2026-02-27 00:00:00"]),
        ("0 0 * * friL", ["2026-01-30 00:00:00", "2026-02-27 00:00:00"]),
        ("0 0 * * fri#2", ["2026-01-09 00:00:00", "2026-02-13 00:00:00"]),
        ("0 0 * * 5#5", ["2026-01-30 00:00:00", "2026-05-29 00:00:00"]),
        ("0 0 * * mon#1,mon#3", ["2026-01-05 00:00:00", "2026-01-19 00:00:00"]),
        ("0 0 * * mon-tue#1", ["2026-01-05 00:00:00", "2026-01-06 00:00:00", "2026-02-02 00:00:00"]),
        ("0 0 * * 7#1,L7", ["2026-01-04 00:00:00", "2026-01-25 00:00:00"]),
        # Leap days, over a century without one.
        ("0 0 29 2 *", ["2028-02-29 00:00:00", "2032-02-29 00:00:00"]),
        # Both days restricted: either will do.
        ("0 0 13 * fri", ["2026-01-02 00:00:00", "2026-01-09 00:00:00", "2026-01-13 00:00:00"]),
        ("0 0 13 * fri#2", ["2026-01-09 00:00:00", "2026-01-13 00:00:00", "2026-02-13 00:00:00"]),
        ("0 0 30 2 fri", ["2026-02-06 00:00:00", "2026-02-13 00:00:00"]),
        ("0 0 1-31 * fri", ["2026-01-01 00:00:00", "2026-01-02 00:00:00"]),
        # One starts with a star: both must match, as in Vixie cron.
        ("0 0 */2 * fri", ["2026-01-09 00:00:00", "2026-01-23 00:00:00"]),
        ("0 0 1-7 * */7", ["2026-01-04 00:00:00", "2026-02-01 00:00:00"]),
        ("0 0 ? * fri", ["2026-01-02 00:00:00", "2026-01-09 00:00:00"]),
        ("0 0 13 * ?", ["2026-01-13 00:00:00", "2026-02-13 00:00:00"]),
    ],
)
def test_a_line_fires_at_the_times_it_names(expression: str, expected: list[str]) -> None:
    assert first(expression, len(expected)) == expected


def test_a_leap_day_waits_eight_years_over_the_turn_of_a_century() -> None:
    after = int(datetime(2096, 3, 1, tzinfo=UTC).timestamp()) * 1000
    assert first("0 0 29 2 *", 1, after) == ["2104-02-29 00:00:00"]
    # The longest wait of all: no Thursday, 29 February, for forty years.
    after = int(datetime(2080, 2, 29, tzinfo=UTC).timestamp()) * 1000
    assert first("0 0 * 2 thu#5", 1, after) == ["2120-02-29 00:00:00"]


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("", "is empty"),
        (" \t\n", "is empty"),
        (
            "* * * *",
            "'* * * *' has 4 fields, not 5 (minute hour day-of-month month day-of-week) or 6 (second first)",
        ),
        ("* * * * * * 2026", "there is no year field"),
        # A step that never steps: its line fires at other times than whoever wrote it means.
        ("*/90 * * * *", "the step is longer than the field, of 60; for a period: @beat.every(timedelta(minutes=90))"),
        ("*/61 * * * * *", "@beat.every(timedelta(seconds=61))"),
        ("0 */36 * * *", "can't read the hour field '*/36' in '0 */36 * * *': the step is longer than the field, of 24"),
        ("0 */25 * * *", "@beat.every(timedelta(hours=25))"),
        ("0 0 */32 * *", "@beat.every(timedelta(days=32))"),
        ("0 0 1 */13 *", "the step is longer than the field, of 12; for a period: @beat.every(...)"),
        ("0 0 * * */8", "@beat.every(timedelta(days=8))"),
        ("0-59/90 * * * *", "@beat.every(timedelta(minutes=90))"),
        ("5/90 * * * *", "@beat.every(timedelta(minutes=90))"),
        ("0,*/90 * * * *", "@beat.every(timedelta(minutes=90))"),
        ("*/99999999999999999999 * * * *", "for a period: @beat.every(...)"),
        ("0 0 * * mon-fri/9", "@beat.every(timedelta(days=9))"),
        ("10-20/15 * * * *", "its step gets no further than 10; write 10 alone, or for a period: @beat.every(...)"),
        ("50/15 * * * *", "its step gets no further than 50; write 50 alone"),
        ("0 20-2/8 * * *", "its step gets no further than 20"),
        ("0 0 1 jan-mar/4 *", "its step gets no further than jan; write jan alone"),
        ("0 0 * * mon-fri/6", "its step gets no further than mon"),
        # What other schedulers write.
        (
            "CRON_TZ=Europe/Berlin 0 9 * * *",
            "is no part of the line; it is an argument: @beat.cron('0 9 * * *', timezone='Europe/Berlin')",
        ),
        ("TZ=UTC @daily", "TZ= is no part of the line; it is an argument: @beat.cron('@daily', timezone='UTC')"),
        ("tz=Asia/Tokyo */5 * * * * *", "@beat.cron('*/5 * * * * *', timezone='Asia/Tokyo')"),
        (
            "0 9 * * * Europe/Berlin",
            "ends with a time zone; it is an argument: @beat.cron('0 9 * * *', timezone=",
        ),
        ("0 0 9 * * mon America/Argentina/Ushuaia", "@beat.cron('0 0 9 * * mon', timezone='America/Argentina/Ushuaia')"),
        ("@daily Europe/Berlin", "@beat.cron('@daily', timezone='Europe/Berlin')"),
        ("0 9 * * * +02:00", "@beat.cron('0 9 * * *', timezone='+02:00')"),
        ("@every 5m", "'@every 5m' is no cron line; a period is @beat.every(300)"),
        ("@every 1h30m10s", "@beat.every(5410)"),
        ("@Every 250ms", "@beat.every(0.25)"),
        ("@every", "a period is @beat.every(...)"),
        ("@every soon", "a period is @beat.every(...)"),
        ("@reboot", "'@reboot' is not a time"),
        ("@fortnightly", "unknown alias '@fortnightly'; known: @yearly"),
        ("60 * * * *", "can't read the minute field '60' in '60 * * * *': allowed are 0-59"),
        ("60 * * * * *", "can't read the second field '60'"),
        ("* 24 * * *", "can't read the hour field '24' in '* 24 * * *': allowed are 0-23"),
        ("* * 0 * *", "can't read the day-of-month field '0' in '* * 0 * *': allowed are 1-31, L"),
        ("0 * * 0 * *", "can't read the day-of-month field '0'"),
        ("* * 32 * *", "can't read the day-of-month field '32'"),
        ("* * * 13 *", "can't read the month field '13' in '* * * 13 *': allowed are 1-12, jan-dec"),
        ("* * * januar *", "can't read the month field 'januar'"),
        (
            "* * * * 8",
            "can't read the day-of-week field '8' in '* * * * 8': allowed are 0-7, sun-sat, 5#2, L5",
        ),
        ("* * * * fri#0", "can't read the day-of-week field 'fri#0'"),
        ("* * * * fri#6", "can't read the day-of-week field 'fri#6'"),
        ("* * * * L", "can't read the day-of-week field 'l'"),
        ("* * * * mon,fri#2", "plain days and # or L do not mix"),
        ("* * * * mon,mon#2", "plain days and # or L do not mix"),
        ("* * * * *,L5", "plain days and # or L do not mix"),
        ("*/0 * * * *", "can't read the minute field '*/0' in '*/0 * * * *': a step must be 1 or more"),
        ("5-10/0 * * * *", "a step must be 1 or more"),
        ("-5 * * * *", "can't read the minute field '-5'"),
        ("1-2-3 * * * *", "can't read the minute field '1-2-3'"),
        ("1,,2 * * * *", "can't read the minute field '1,,2'"),
        ("** * * * *", "can't read the minute field '**'"),
        ("5.5 * * * *", "can't read the minute field '5.5'"),
        ("\u0665 * * * *", "can't read the minute field '\u0665'"),
        ("? * * * *", "can't read the minute field '?'"),
        ("R * * * *", "random values are not offered; H and `jitter` spread jobs"),
        ("0,R 0 * * *", "random values are not offered"),
        ("H/0 * * * *", "can't read the minute field 'H/0' in 'H/0 * * * *': a step of H must be 1 to 60"),
        ("H/61 * * * *", "a step of H must be 1 to 60, as many as it chooses from"),
        ("H/99999999999 * * * *", "a step of H must be 1 to 60"),
        ("H(0-29)/31 * * * *", "a step of H must be 1 to 30"),
        ("H(5) * * * *", "H takes a range as in H(0-59); allowed are 0-59"),
        ("* H(0-24) * * *", "H takes a range as in H(0-23); allowed are 0-23"),
        ("H() * * * *", "H takes a range as in H(0-59)"),
        ("H(0-29 * * * *", "H is written as H, H(0-59), H/2 or H(0-59)/2"),
        ("H-30 * * * *", "H is written as H, H(0-59), H/2 or H(0-59)/2"),
        ("0 0 * * H#2", "H is written as H, H(0-6), H/2 or H(0-6)/2"),
        ("Hx * * * *", "can't read the minute field 'hx'"),
        ("0 0 15W * *", "W, the nearest weekday, is not offered"),
        ("0 0 LW * *", "W, the nearest weekday, is not offered"),
        ("0 0 30 2 *", "'0 0 30 2 *' never fires: none of its months has such a day"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 31 2 */2", "never fires"),
        ("5 " * 2000, "longer than 1000 characters"),
    ],
)
def test_a_line_that_cannot_be_read_is_one_line_that_says_what_is_wrong(expression: str, problem: str) -> None:
    with pytest.raises(InvalidTrigger) as caught:
        Cron(expression)
    assert caught.value.argument == "expression"
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.text(max_size=30) | st.lists(st.text("*?LlWwHhR#/,-0123456789()monfeb ", max_size=6), min_size=5, max_size=6).map(" ".join)
)
@example("0 0 * * 0-6#2#")
@example("0-99999999999999999999 * * * *")
@example("*/99999 * * * *")
@example("1/99999999999 * * * *")
@example("l-1 l l l l")
def test_any_text_is_either_a_trigger_or_one_clear_error(text: str) -> None:
    cron = attempt(text)
    if isinstance(cron, InvalidTrigger):
        assert cron.argument == "expression"
        assert len(str(cron).splitlines()) == 1
        return
    assert Cron(cron.expression) == cron
    slot = cron.next(NEW_YEAR)
    assert slot is not None
    assert cron.prev(slot) == slot


@pytest.mark.parametrize(
    ("zone", "problem"),
    [
        ("Mars/Base", "unknown time zone 'Mars/Base' (an IANA name such as 'Europe/Berlin')"),
        ("Europe/Berln", "unknown time zone 'Europe/Berln'; did you mean 'Europe/Berlin'?"),
        ("europe/berlin", "unknown time zone 'europe/berlin'; did you mean 'Europe/Berlin'?"),
        ("UTC+3", "unknown time zone 'UTC+3': an offset is written '+03:00'"),
        ("gmt-0530", "unknown time zone 'gmt-0530': an offset is written '-05:30'"),
        ("CEST", "unknown time zone 'CEST' (an IANA name such as 'Europe/Berlin')"),  # EST is not nearly that
        ("utc", "unknown time zone 'utc'; did you mean 'UTC'?"),
        ("", "unknown time zone ''"),
        ("Europe", "unknown time zone 'Europe'"),
        ("../../etc/passwd", "unknown time zone '../../etc/passwd'"),
        ("UTC\n", "unknown time zone 'UTC\\n'; did you mean 'UTC'?"),
        ("\0", "unknown time zone '\\x00'"),
        # What it means differs from machine to machine.
        ("localtime", "unknown time zone 'localtime'"),
        ("+5:30", "unknown time zone '+5:30'"),
        ("+24:00", "unknown time zone '+24:00'"),
        (None, "must be an IANA name or a tzinfo, not NoneType"),
        (2, "must be an IANA name or a tzinfo, not int"),
        (Changing(), "has no name that others could look up"),
        (Broken(), "has no name that others could look up"),
        (timezone(timedelta(microseconds=1)), "is no whole number of seconds"),
    ],
)
def test_an_unknown_time_zone_is_named_with_the_nearest_one(zone: object, problem: str) -> None:
    with pytest.raises(InvalidTrigger) as caught:
        Cron("* * * * *", zone)  # type: ignore[arg-type]
    assert caught.value.argument == "timezone"
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("zone", "name", "hour"),
    [
        (UTC, "UTC", "2026-01-01 09:00:00"),
        (timezone(timedelta(0)), "UTC", "2026-01-01 09:00:00"),
        (timezone(timedelta(hours=2)), "+02:00", "2026-01-01 07:00:00"),
        (timezone(timedelta(hours=-3, minutes=-30), "NST"), "-03:30", "2026-01-01 12:30:00"),
        (timezone(timedelta(hours=5, minutes=30)), "+05:30", "2026-01-01 03:30:00"),
        (timezone(timedelta(minutes=-1)), "-00:01", "2026-01-01 09:01:00"),
        (timezone(timedelta(hours=23, minutes=59, seconds=59)), "+23:59:59", "2026-01-01 09:00:01"),
        ("+05:30", "+05:30", "2026-01-01 03:30:00"),
        (str(timezone(timedelta(hours=5, minutes=30))), "+05:30", "2026-01-01 03:30:00"),
        ("-00:00", "UTC", "2026-01-01 09:00:00"),
        (Always(), "-04:00", "2026-01-01 13:00:00"),
        (Named(), "Europe/Berlin", "2026-01-01 08:00:00"),
    ],
)
def test_a_zone_of_one_offset_is_as_good_as_a_name(zone: str | tzinfo, name: str, hour: str) -> None:
    cron = Cron("0 9 * * *", zone)
    assert cron.timezone == name
    assert trigger_from_json(json.loads(json.dumps(cron.to_json()))) == cron
    slot = cron.next(NEW_YEAR - 1)
    assert slot is not None
    assert datetime.fromtimestamp(slot / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") == hour
    assert cron.prev(slot) == slot
    assert cron.next(slot) == slot + 86_400_000 or name == "Europe/Berlin"


def test_slots_end_with_the_year_2999_at_once() -> None:
    for trigger in (Cron("0 0 1 1 *", "Europe/Berlin"), Every(timedelta(days=3650))):
        slots = upcoming(trigger, NEW_YEAR, 10_000)
        assert 0 < len(slots) < 1000
        assert datetime.fromtimestamp(slots[-1] / 1000, UTC).year >= 2985


def test_a_zone_without_a_name_is_refused_since_others_could_not_look_it_up() -> None:
    with (files("tzdata") / "zoneinfo" / "Europe" / "Berlin").open("rb") as data:
        nameless = ZoneInfo.from_file(data)
    with pytest.raises(InvalidTrigger, match="without a key"):
        Cron("* * * * *", nameless)


def test_an_expression_must_be_text() -> None:
    with pytest.raises(InvalidTrigger, match="expression: must be a str, not int"):
        Cron(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("  0\t9 *  JAN  Mon-Fri\n", "0 9 * jan mon-fri"),
        ("@daily", "0 0 * * *"),
        ("@MIDNIGHT", "0 0 * * *"),
        ("0 0 l * ?", "0 0 L * *"),
        ("0 0 15-L * *", "0 0 15-L * *"),
        ("0 0 * * 5L", "0 0 * * L5"),
        ("0 0 * * FRIl,sunL", "0 0 * * L5,L0"),
        ("0 0 * jul *", "0 0 * jul *"),
    ],
)
def test_spellings_of_one_line_are_equal(written: str, canonical: str) -> None:
    cron = Cron(written, "Europe/Berlin")
    same = Cron(canonical, ZoneInfo("Europe/Berlin"))
    assert cron.expression == canonical
    assert cron == same
    assert hash(cron) == hash(same)
    assert cron.to_json() == {"type": "cron", "expression": canonical, "timezone": "Europe/Berlin"}
    assert str(cron) == f"{canonical} Europe/Berlin"


def test_another_line_or_another_zone_is_another_trigger() -> None:
    assert Cron("0 0 * * *") != Cron("1 0 * * *")
    assert Cron("0 0 * * *") != Cron("0 0 * * *", "Europe/Berlin")


def test_a_trigger_cannot_be_changed_and_survives_pickle() -> None:
    cron = Cron("0 0 * * *", "Europe/Berlin")
    with pytest.raises(AttributeError):
        cron.expression = "* * * * *"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(cron)) == cron  # noqa: S301 - our own bytes
    assert copy.deepcopy(cron).next(NEW_YEAR) == cron.next(NEW_YEAR)
    assert repr(cron) == "Cron(expression='0 0 * * *', timezone='Europe/Berlin', gap='after', fold='first', days='either')"
    skips = Cron("0 0 * * *", "Europe/Berlin", gap="skip", fold="last")
    assert copy.deepcopy(skips) == pickle.loads(pickle.dumps(skips)) == skips != cron  # noqa: S301


def test_next_is_strictly_after_and_prev_is_at_or_before() -> None:
    cron = Cron("* * * * *")
    assert cron.next(NEW_YEAR) == NEW_YEAR + 60_000
    assert cron.next(NEW_YEAR - 1) == NEW_YEAR
    assert cron.next(NEW_YEAR + 1) == NEW_YEAR + 60_000
    assert cron.prev(NEW_YEAR) == NEW_YEAR
    assert cron.prev(NEW_YEAR - 1) == NEW_YEAR - 60_000
    assert cron.prev(NEW_YEAR + 59_999) == NEW_YEAR


def test_slots_begin_with_the_epoch_and_end_before_the_calendar_does() -> None:
    cron = Cron("0 12 * * *", "Pacific/Apia")
    assert cron.prev(0) is None
    assert cron.prev(-(10**18)) is None
    earliest = cron.next(-(10**18))
    assert earliest is not None
    assert 0 <= earliest < 86_400_000
    latest = cron.prev(10**18)
    assert latest is not None
    assert LAST - 90_000 < latest // 1000 < LAST
    assert cron.next(latest) is None
    assert cron.next(10**18) is None


def test_ten_thousand_jobs_of_one_line_compute_its_next_slot_once(monkeypatch: pytest.MonkeyPatch) -> None:
    crons = [Cron("17 3 * * mon", "Asia/Tokyo") for _ in range(10_000)]
    schedule = crons[0]._schedule
    assert schedule is not None
    assert all(cron._schedule is schedule for cron in crons)
    calls = []
    real = schedule.next

    def counting(after: int) -> int | None:
        calls.append(after)
        return real(after)

    monkeypatch.setattr(schedule, "next", counting)
    assert len({cron.next(NEW_YEAR + 1) for cron in crons}) == 1
    assert len(calls) == 1


ZONES = sorted(available_timezones() - {"localtime"})
FIELD = {
    "second": st.sampled_from(["0", "*", "*/15", "7,30", "59"]),
    "minute": st.sampled_from(["0", "*", "*/7", "*/30", "15,45", "30", "59", "10-50/20", "50-10"]),
    "hour": st.sampled_from(["0", "*", "*/2", "1", "2", "1,2,3", "0-5/2", "23", "22-2", "12"]),
    "day": st.sampled_from(["*", "*", "*/3", "1", "8", "29-31", "L", "25-31", "15,L"]),
    "month": st.sampled_from(["*", "*", "3", "10-11", "apr", "2", "sep-mar"]),
    "weekday": st.sampled_from(["*", "*", "sun", "mon-fri", "sun#2", "L0", "*/2", "0#1,5#3"]),
}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    zone=st.sampled_from(ZONES),
    expression=st.tuples(*FIELD.values()).map(" ".join) | st.tuples(*list(FIELD.values())[1:]).map(" ".join),
    instant=st.integers(0, 4_102_444_800_000),
)
def test_next_and_prev_name_the_same_slots(zone: str, expression: str, instant: int) -> None:
    cron = attempt(expression, zone)
    if isinstance(cron, InvalidTrigger):
        assert "never fires" in cron.problem
        return
    slot = cron.next(instant)
    assert slot is not None
    assert slot > instant
    assert slot % 1000 == 0
    before = cron.prev(instant)
    assert before is None or before <= instant
    assert cron.prev(slot) == slot
    assert cron.prev(slot - 1) == before
    assert cron.next(slot - 1) == slot
    if before is not None:
        assert cron.next(before) == slot
        assert cron.prev(before) == before
    after = cron.next(slot)
    assert after is not None
    assert after > slot
    assert cron.prev(after - 1) == slot


def test_every_zone_of_the_database_has_a_name_that_is_accepted() -> None:
    assert [zone_name(zone) for zone in ZONES] == ZONES
