"""Durations: what is accepted, what it comes to in milliseconds, and what is refused."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.values.durations import TEN_YEARS, milliseconds, seconds


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (1, 1000),
        (0.9, 900),
        (0.001, 1),
        (0.0014, 1),
        (2.5, 2500),
        (timedelta(seconds=1, milliseconds=5), 1005),
        (timedelta(days=1), 86_400_000),
        (TEN_YEARS, 315_576_000_000),
    ],
)
def test_seconds_or_a_timedelta_become_whole_milliseconds(value: float | timedelta, ms: int) -> None:
    assert milliseconds("ttl", value) == ms


@given(st.floats(0.001, TEN_YEARS))
def test_whatever_is_accepted_is_a_millisecond_or_more(value: float) -> None:
    assert milliseconds("ttl", value) >= 1


@pytest.mark.parametrize("value", [0, 0.0, -0.0, 0.0009, -1, math.nan, math.inf, -math.inf, TEN_YEARS + 1, 10**400, -(10**400)])
def test_what_is_out_of_range_is_refused_and_the_argument_named(value: float) -> None:
    with pytest.raises(InvalidArgument, match=r"^ttl: must be between 0.001 s and 10 years, not ") as caught:
        seconds("ttl", value)
    assert caught.value.argument == "ttl"


@pytest.mark.parametrize("value", [True, False, "5", None, Decimal(5), Fraction(5), [5], b"5", 5j])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(InvalidType, match=r"^ttl: must be seconds \(int or float\) or a timedelta, not "):
        seconds("ttl", value)


def test_a_caller_may_set_other_limits() -> None:
    assert seconds("wait", 0, least=0) == 0
    with pytest.raises(InvalidArgument, match="between 1 s and 60 s, not 61"):
        seconds("window", 61, least=1, most=60)
