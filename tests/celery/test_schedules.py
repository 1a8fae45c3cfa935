"""Celery's schedules and their triggers have the same slots."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab, schedule, solar
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbeat.celery.schedules import trigger_of
from lockbeat.cli._errors import Usage
from lockbeat.cli._jobfile import read_jobs
from lockbeat.errors import InvalidTrigger
from lockbeat.triggers import Cron, Every, Solar, Trigger, trigger_from_json, upcoming
from lockbeat.values.durations import instant

APP = Celery("test", set_as_current=False)
START = datetime(2030, 1, 29, 22, 17, tzinfo=UTC)


def in_zone(zone: str) -> Celery:
    app = Celery("zoned", set_as_current=False)
    app.conf.timezone = zone
    return app


def celerys(said: Any, after: datetime, n: int) -> list[datetime]:
    """The next runs by Celery's own reckoning, each from the one before."""
    found = list[datetime]()
    for _ in range(n):
        said.nowfun = lambda now=after: now
        after = (after + said.remaining_estimate(after)).astimezone(UTC)
        found.append(after)
    return found


def ours(trigger: Trigger, after: datetime, n: int) -> list[datetime]:
    return [instant(slot) for slot in upcoming(trigger, round(after.timestamp() * 1000), n)]


def field(low: int, high: int) -> st.SearchStrategy[Any]:
    numbers = st.sets(st.integers(low, high), min_size=1, max_size=4)
    return st.one_of(
        st.just("*"),
        st.integers(2, high).map(lambda step: f"*/{step}"),
        st.integers(low, high),
        numbers,
        numbers.map(lambda some: ",".join(map(str, sorted(some)))),
    )


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "minute": field(0, 59),
            "hour": field(0, 23),
            "day_of_month": field(1, 28),
            "month_of_year": field(1, 12),
            "day_of_week": field(0, 6),
        }
    )
)
def test_a_crontab_has_the_slots_that_celery_reckons(fields: dict[str, Any]) -> None:
    said = crontab(**fields, app=APP)
    assert ours(trigger_of(said, APP), START, 5) == celerys(said, START, 5)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (crontab(minute="*/15"), "*/15 * * * *"),
        (crontab(minute=0, hour=[3, 21]), "0 3,21 * * *"),
        (crontab(minute=0, hour=0, day_of_week="mon-fri"), "0 0 * * mon-fri"),
        (crontab(minute=0, hour=0, day_of_week="sunday"), "0 0 * * 0"),
        (crontab(minute=0, hour="8-17/3"), "0 8-17/3 * * *"),
        (crontab(minute="0-59"), "* * * * *"),
        (crontab(minute="*/90"), "0 * * * *"),
        (crontab(minute="0", hour="0", day_of_month="1", month_of_year="*/3"), "0 0 1 */3 *"),
    ],
)
def test_a_crontab_reads_as_people_write_it(said: Any, line: str) -> None:
    assert trigger_of(said, APP) == Cron(line)


def test_the_first_monday_of_a_month_is_a_day_that_both_fields_name() -> None:
    found = trigger_of(crontab(minute=0, hour=9, day_of_month="1-7", day_of_week="mon"), APP)
    assert found == Cron("0 9 1-7 * mon", days="both")
    assert [day.day for day in ours(found, datetime(2030, 1, 1, tzinfo=UTC), 3)] == [7, 4, 4]
    assert found.needs == 4
    assert trigger_from_json(found.to_json()) == found


def test_a_crontab_is_in_the_time_zone_of_its_app() -> None:
    app = in_zone("Europe/Berlin")
    found = trigger_of(crontab(minute=0, hour=3, app=app), app)
    assert found == Cron("0 3 * * *", "Europe/Berlin")


def test_a_clock_of_its_own_gives_a_crontab_no_other_zone_as_in_celery() -> None:
    """Which redbeat#192 and #222 expect of it."""
    app, after = in_zone("Europe/Vienna"), datetime(2030, 6, 1, tzinfo=UTC)
    said = crontab(minute=5, hour=9, nowfun=lambda: after.astimezone(ZoneInfo("Asia/Tokyo")), app=app)
    assert trigger_of(said, app) == Cron("5 9 * * *", "Europe/Vienna")
    assert after + said.remaining_estimate(said.now()) == datetime(2030, 6, 1, 7, 5, tzinfo=UTC)


@pytest.mark.parametrize("period", [float("inf"), float("nan")])
def test_a_period_without_an_end_is_refused(period: float) -> None:
    with pytest.raises(InvalidTrigger, match=f"must be seconds, not {period}"):
        trigger_of(period, APP)


def test_a_change_of_the_clock_neither_skips_nor_doubles_a_run() -> None:
    """celery #1604, #6438, #9715: a daily run at 17:00 came at 16:00 as well, or not at all; hourly ones were left out."""
    app = in_zone("America/New_York")
    daily = trigger_of(crontab(minute=20, hour=1, app=app), app)  # a time that the clock shows twice
    assert [day.day for day in ours(daily, datetime(2026, 10, 31, tzinfo=UTC), 3)] == [31, 1, 2]
    skipped = trigger_of(crontab(minute=20, hour=2, app=app), app)  # and one that it leaves out
    assert [day.day for day in ours(skipped, datetime(2026, 3, 7, tzinfo=UTC), 3)] == [7, 8, 9]
    hourly = ours(trigger_of(crontab(minute=0, app=app), app), datetime(2026, 11, 1, tzinfo=UTC), 24)
    assert {after - before for before, after in itertools.pairwise(hourly)} == {timedelta(hours=1)}


def test_a_period_is_counted_from_the_epoch() -> None:
    assert trigger_of(30, APP) == trigger_of(timedelta(seconds=30), APP) == trigger_of(schedule(30.0), APP) == Every(30)
    assert trigger_of(0.0125, APP) == Every(0.013)  # whole milliseconds, and never sooner


@pytest.mark.parametrize(
    ("period", "zone", "trigger"),
    [
        (timedelta(days=1), "America/New_York", Cron("0 0 * * *", "America/New_York")),
        (timedelta(hours=36), "UTC", Cron("0 0 * * *")),
        (timedelta(days=2), "UTC", Every(timedelta(days=2))),
        (timedelta(minutes=90), "UTC", Every(3600)),
        (timedelta(hours=1), "Asia/Kolkata", Every(3600, anchor=datetime(1970, 1, 1, 0, 30, tzinfo=UTC))),
        (timedelta(seconds=150), "UTC", Every(120)),
        (timedelta(seconds=1.5), "UTC", Every(1)),
        (timedelta(milliseconds=500), "UTC", Every(0.5)),
    ],
)
def test_a_relative_period_is_rounded_to_its_resolution(period: timedelta, zone: str, trigger: Trigger) -> None:
    app = in_zone(zone)
    assert trigger_of(schedule(period, relative=True, app=app), app) == trigger == trigger_of(period, app, relative=True)


@pytest.mark.parametrize(("period", "n"), [(timedelta(hours=1), 6), (timedelta(minutes=90), 6), (timedelta(minutes=5), 10)])
def test_a_relative_period_runs_as_often_as_celery_has_it(period: timedelta, n: int) -> None:
    said = schedule(period, relative=True, app=APP)
    theirs = celerys(said, START.replace(minute=0), n)
    assert ours(trigger_of(said, APP), START.replace(minute=0), n) == theirs


@pytest.mark.parametrize("event", ["dawn_astronomical", "sunrise", "solar_noon", "sunset", "dusk_civil"])
@pytest.mark.parametrize(("lat", "lon"), [(52.5, 13.4), (-33.9, 151.2), (19.4, -99.1), (69.6, 18.9)])
def test_the_sun_has_the_slots_that_celery_reckons(event: str, lat: float, lon: float) -> None:
    said, at = solar(event, lat, lon, app=APP), datetime(2030, 1, 5, tzinfo=UTC)
    found = trigger_of(said, APP)
    for _ in range(60):
        said.nowfun = lambda now=at: now
        theirs = at + said.remaining_estimate(at)
        [slot] = ours(found, at, 1)
        assert abs(slot - theirs) < timedelta(seconds=2), (at, slot, theirs)
        at = slot + timedelta(days=5, hours=1)


@pytest.mark.parametrize(("lat", "lon"), [(52.5, 13.4), (69.6, 18.9), (-89.0, 0.0), (0.0, 179.9), (64.1, -180.0)])
def test_the_sun_has_the_same_slots_forwards_and_backwards(lat: float, lon: float) -> None:
    trigger = Solar("sunset", lat, lon)
    slots = upcoming(trigger, round(START.timestamp() * 1000), 100)
    for before, slot in itertools.pairwise(slots):
        assert before < slot
        assert trigger.prev(slot) == slot
        assert trigger.prev(slot - 1) == before
        assert trigger.next(slot - 1) == slot


def test_the_sun_can_be_written_down_and_read() -> None:
    trigger = Solar("sunrise", 52, 13)
    assert trigger_from_json(trigger.to_json()) == trigger
    assert str(trigger) == "sunrise at 52, 13"


@pytest.mark.parametrize(
    ("event", "lat", "lon", "argument"),
    [("moonrise", 0, 0, "event"), ("sunrise", 91, 0, "lat"), ("sunrise", 0, float("nan"), "lon"), ("sunrise", "0", 0, "lat")],
)
def test_a_wrong_place_or_event_is_named(event: str, lat: Any, lon: Any, argument: str) -> None:
    with pytest.raises(InvalidTrigger) as caught:
        Solar(event, lat, lon)
    assert caught.value.argument == argument


def test_a_file_of_jobs_may_say_both(tmp_path: Path) -> None:
    file = tmp_path / "jobs.toml"
    file.write_text(
        '[[jobs]]\nname = "a"\ncron = "0 9 1-7 * mon"\ndays = "both"\n'
        '[[jobs]]\nname = "b"\nsolar = "sunset"\nlat = 52.5\nlon = 13.4\n'
    )
    assert [job.trigger for job in read_jobs(str(file))] == [Cron("0 9 1-7 * mon", days="both"), Solar("sunset", 52.5, 13.4)]
    file.write_text('[[jobs]]\nname = "b"\nsolar = "sunset"\nlat = 52.5\n')
    with pytest.raises(Usage, match="lon"):
        read_jobs(str(file))


class Own(schedule):  # type: ignore[misc]
    def is_due(self, last_run_at: datetime) -> Any:
        return False, 60


@pytest.mark.parametrize("said", [Own(60), None, "* * * * *", object()])
def test_what_has_slots_of_its_own_is_refused(said: Any) -> None:
    with pytest.raises(InvalidTrigger, match="schedule"):
        trigger_of(said, APP)


def test_a_zone_that_no_other_host_could_know_is_refused() -> None:
    said = crontab(minute=0, app=APP)
    said.tz = timezone(timedelta(hours=5, minutes=30))
    assert trigger_of(said, APP).timezone == "+05:30"
    said.tz = ZoneInfo("Asia/Tokyo")
    assert trigger_of(said, APP).timezone == "Asia/Tokyo"
