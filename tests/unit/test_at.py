"""`At`: one slot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from lockbeat.errors import InvalidTrigger
from lockbeat.triggers import At, upcoming

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
MOMENT_MS = 1_767_225_600_000


def test_it_has_one_slot() -> None:
    at = At(MOMENT)
    assert at.next(0) == MOMENT_MS
    assert at.next(MOMENT_MS - 1) == MOMENT_MS
    assert at.next(MOMENT_MS) is None
    assert at.prev(MOMENT_MS) == MOMENT_MS
    assert at.prev(MOMENT_MS - 1) is None
    assert upcoming(at, 0, 5) == [MOMENT_MS]


def test_one_instant_in_two_zones_is_one_trigger() -> None:
    berlin = At(datetime(2026, 1, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")))
    assert berlin == At(MOMENT)
    assert hash(berlin) == hash(At(MOMENT))
    assert berlin.to_json() == {"type": "at", "when_ms": MOMENT_MS}
    assert berlin != At(datetime(2026, 1, 1, 1, tzinfo=UTC))


def test_the_second_pass_through_a_repeated_hour_can_be_named() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first = At(datetime(2026, 10, 25, 2, 30, tzinfo=berlin))
    second = At(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=berlin))
    assert second.when_ms - first.when_ms == 3_600_000


@pytest.mark.parametrize(("microsecond", "ms"), [(0, 0), (1, 1), (1000, 1), (1001, 2), (999_999, 1000)])
def test_microseconds_are_rounded_up_so_that_nothing_fires_early(microsecond: int, ms: int) -> None:
    assert At(MOMENT.replace(microsecond=microsecond)).when_ms == MOMENT_MS + ms


def test_before_the_epoch_is_an_instant_too() -> None:
    assert At(datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC)).when_ms == 0
    assert At(datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)).when_ms == -1000


def test_it_reads_as_an_iso_date_in_utc() -> None:
    assert str(At(MOMENT)) == "at 2026-01-01T00:00:00+00:00"
    assert str(At(MOMENT.replace(microsecond=500_000))) == "at 2026-01-01T00:00:00.500+00:00"


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        (datetime(2026, 1, 1, 9, 30), "2026-01-01T09:30:00 has no time zone"),
        (MOMENT_MS, "must be an aware datetime, not int"),
        ("2026-01-01T00:00:00+00:00", "must be an aware datetime, not str"),
        (MOMENT.date(), "must be an aware datetime, not date"),
        # These are no times but a way to say never, and some lie beyond what a datetime in UTC can say.
        (datetime(3000, 1, 1, tzinfo=UTC), "3000-01-01T00:00:00+00:00 is too far off"),
        (datetime(9999, 12, 31, tzinfo=UTC), "is too far off: it must be before the year 3000"),
        (datetime.max.replace(tzinfo=UTC), "is too far off"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))), "is too far off"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "is too far off"),
    ],
)
def test_what_is_no_instant_is_refused(when: object, problem: str) -> None:
    with pytest.raises(InvalidTrigger) as caught:
        At(when)  # type: ignore[arg-type]
    assert caught.value.argument == "when"
    assert problem in caught.value.problem


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        At(MOMENT).when_ms = 0  # type: ignore[misc]
