"""`Every`: a grid of slots that restarts neither move nor fire."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbeat.errors import InvalidTrigger
from lockbeat.triggers import Every, upcoming


def test_slots_lie_on_a_grid_from_the_epoch() -> None:
    assert upcoming(Every(10), 1_000_003, 3) == [1_010_000, 1_020_000, 1_030_000]


def test_next_is_strictly_after_and_prev_is_at_or_before() -> None:
    every = Every(10)
    assert every.next(20_000) == 30_000
    assert every.next(19_999) == 20_000
    assert every.prev(20_000) == 20_000
    assert every.prev(19_999) == 10_000


def test_an_anchor_shifts_the_grid_both_ways() -> None:
    every = Every(timedelta(hours=1), anchor=datetime(2026, 1, 1, 0, 10, tzinfo=UTC))
    before = int(datetime(2020, 5, 5, 5, 5, tzinfo=UTC).timestamp()) * 1000
    assert every.next(before) == before + 5 * 60_000


@pytest.mark.parametrize(
    "anchor",
    [600_000, 4_200_000, -3_000_000, datetime(2026, 1, 1, 2, 10, tzinfo=timezone(timedelta(hours=1)))],
)
def test_anchors_of_one_phase_are_one_trigger(anchor: int | datetime) -> None:
    every = Every(3600, anchor=anchor)
    assert every == Every(timedelta(hours=1), anchor=600_000)
    assert hash(every) == hash(Every(3600.0, anchor=600_000))
    assert every.to_json() == {"type": "every", "period_ms": 3_600_000, "anchor_ms": 600_000}


def test_another_period_or_phase_is_another_trigger() -> None:
    assert Every(10) != Every(20)
    assert Every(10) != Every(10, anchor=1)


@pytest.mark.parametrize(
    ("period", "ms"),
    [
        (0.001, 1),
        (0.29, 290),
        (0.1 + 0.2, 300),
        (1, 1000),
        (1.001, 1001),
        (86_400.003, 86_400_003),
        (timedelta(milliseconds=1), 1),
        (timedelta(days=3653), 315_619_200_000),
        (3653 * 86_400, 315_619_200_000),
    ],
)
def test_a_period_is_seconds_or_a_timedelta_of_whole_milliseconds(period: float | timedelta, ms: int) -> None:
    assert Every(period).period_ms == ms


@pytest.mark.parametrize(
    ("period", "problem"),
    [
        (0, "must be 0.001 s to ten years"),
        (-1, "must be 0.001 s to ten years"),
        (0.0009, "must be 0.001 s to ten years"),
        (timedelta(0), "must be 0.001 s to ten years"),
        (timedelta(days=3654), "must be 0.001 s to ten years"),
        (3653 * 86_400 + 1, "must be 0.001 s to ten years"),
        (10**400, "must be 0.001 s to ten years"),
        (-(10**400), "must be 0.001 s to ten years"),
        (1e300, "must be 0.001 s to ten years"),
        (math.inf, "must be finite, not inf"),
        (math.nan, "must be finite, not nan"),
        (0.0015, "must be a whole number of milliseconds, not 1.5 ms"),
        (1 / 3, "must be a whole number of milliseconds, not 333.333"),
        (timedelta(microseconds=1500), "must be a whole number of milliseconds, not 1.5 ms"),
        # A microsecond too many in eight years is still seen.
        (timedelta(days=3000, microseconds=1), "must be a whole number of milliseconds"),
        (True, "must be seconds or a timedelta, not bool"),
        ("10", "must be seconds or a timedelta, not str"),
        (None, "must be seconds or a timedelta, not NoneType"),
    ],
)
def test_a_period_that_cannot_be_kept_is_refused(period: object, problem: str) -> None:
    with pytest.raises(InvalidTrigger) as caught:
        Every(period)  # type: ignore[arg-type]
    assert caught.value.argument == "period"
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("anchor", "problem"),
    [
        (datetime(2026, 1, 1), "2026-01-01T00:00:00 has no time zone"),
        (True, "must be an aware datetime or milliseconds, not bool"),
        (1.5, "must be an aware datetime or milliseconds, not float"),
        ("2026-01-01", "must be an aware datetime or milliseconds, not str"),
    ],
)
def test_an_anchor_that_is_no_instant_is_refused(anchor: object, problem: str) -> None:
    with pytest.raises(InvalidTrigger) as caught:
        Every(10, anchor=anchor)  # type: ignore[arg-type]
    assert caught.value.argument == "anchor"
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("every", "text"),
    [
        (Every(10), "every 10s"),
        (Every(90), "every 1m30s"),
        (Every(0.25), "every 250ms"),
        (Every(timedelta(days=1, hours=2)), "every 1d2h"),
        (Every(3600, anchor=600_000), "every 1h (+10m)"),
    ],
)
def test_it_reads_as_people_say_it(every: Every, text: str) -> None:
    assert str(every) == text


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Every(10).period_ms = 5  # type: ignore[misc]


@given(
    period=st.integers(1, 315_619_200_000),
    anchor=st.integers(-(10**13), 10**13),
    instant=st.integers(-(10**13), 10**13),
)
def test_next_and_prev_name_the_same_slots(period: int, anchor: int, instant: int) -> None:
    every = Every(timedelta(milliseconds=period), anchor)
    assert every.period_ms == period
    slot, before = every.next(instant), every.prev(instant)
    assert before <= instant < slot == before + period
    assert (slot - anchor) % period == 0
    assert every.prev(slot) == slot
    assert every.next(slot) == slot + period
    assert every.count(instant, instant + 5 * period, 5) == 5
    assert every.count(instant, instant + 6 * period, 5) is None
    assert every.count(instant, instant - 1, 5) == 0
