"""How long to wait before the next attempt."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest

from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.retry import Exponential, Fixed, Retry, retry_from_json

TEN_YEARS = 3653 * 86_400.0


def test_fixed_waits_the_same_after_every_attempt() -> None:
    assert [Fixed(5).delay(n) for n in (1, 2, 10_000)] == [5.0, 5.0, 5.0]


def test_exponential_starts_with_its_base_and_grows_by_its_factor() -> None:
    assert [Exponential(1).delay(n) for n in range(1, 6)] == [1, 2, 4, 8, 16]
    assert [Exponential(0.5, factor=3).delay(n) for n in (1, 2, 3)] == [0.5, 1.5, 4.5]


def test_exponential_is_capped() -> None:
    retry = Exponential(1, factor=2, max=60)
    assert [retry.delay(n) for n in (6, 7, 8, 10_000)] == [32, 60, 60, 60]
    assert Exponential(100, max=60).delay(1) == 60


@pytest.mark.parametrize(
    ("retry", "delay"),
    [
        (Exponential(1), TEN_YEARS),
        (Exponential(1, factor=1e308), TEN_YEARS),
        (Exponential(TEN_YEARS, factor=1.5e308), TEN_YEARS),
        (Exponential(1, max=3600), 3600),
        (Exponential(5, factor=1), 5),
        (Exponential(0, factor=10), 0),
        (Exponential(1e-300, factor=1e300, max=0), 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("attempt", [10_000, 10**400])
def test_a_late_attempt_does_not_overflow(retry: Exponential, delay: float, attempt: int) -> None:
    assert retry.delay(attempt) == delay


@pytest.mark.parametrize(
    ("retry", "data"),
    [
        (Fixed(5), {"type": "fixed", "seconds": 5.0, "jitter": 0.25}),
        (Exponential(1), {"type": "exponential", "base": 1.0, "factor": 2.0, "max": None, "jitter": 0.25}),
        (Exponential(1, 3, 60, jitter=0), {"type": "exponential", "base": 1.0, "factor": 3.0, "max": 60.0, "jitter": 0.0}),
    ],
    ids=str,
)
def test_a_policy_survives_json_as_plain_numbers(retry: Retry, data: dict[str, object]) -> None:
    assert retry.to_json() == data
    assert retry_from_json(json.loads(json.dumps(data))) == retry
    assert hash(retry_from_json(data)) == hash(retry)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "linear", "seconds": 1},
        {"type": "fixed"},
        {"type": "fixed", "seconds": 1, "more": 2},
        {"type": "exponential", "base": 1},
        {"type": "exponential", "base": 1, "factor": 2, "max": 5, "more": 1},
    ],
)
def test_what_cannot_be_read_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="retry: can't be read"):
        retry_from_json(data)


def test_what_is_no_object_is_refused_and_values_are_checked_when_read() -> None:
    with pytest.raises(InvalidType, match="retry: must be a JSON object, not list"):
        retry_from_json([])  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="seconds: must be seconds, 0 to ten years, not -1"):
        retry_from_json({"type": "fixed", "seconds": -1})


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ((-1,), "base"),
        ((math.inf,), "base"),
        ((math.nan,), "base"),
        ((10**400,), "base"),
        ((TEN_YEARS * 2,), "base"),
        ((1, 0.99), "factor"),
        ((1, math.inf), "factor"),
        ((1, math.nan), "factor"),
        ((1, 2, -0.1), "max"),
        ((1, 2, math.inf), "max"),
    ],
)
def test_a_number_that_makes_no_delay_is_refused(arguments: tuple[float, ...], argument: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Exponential(*arguments)
    assert caught.value.argument == argument
    assert not isinstance(caught.value, TypeError)


@pytest.mark.parametrize("value", [True, "5", None, [1]])
def test_what_is_no_number_is_a_type_error(value: object) -> None:
    with pytest.raises(InvalidType) as caught:
        Fixed(value)  # type: ignore[arg-type]
    assert caught.value.argument == "seconds"
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("retry", [Fixed(1), Exponential(1)])
def test_attempts_count_from_one(retry: Retry) -> None:
    with pytest.raises(InvalidArgument, match="attempt: counts from 1, is 0"):
        retry.delay(0)
    with pytest.raises(InvalidType, match="attempt: must be an int, not float"):
        retry.delay(1.0)  # type: ignore[arg-type]


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Fixed(1).seconds = 2  # type: ignore[misc]


def test_a_policy_from_before_there_was_jitter_has_none() -> None:
    assert retry_from_json({"type": "fixed", "seconds": 5}) == Fixed(5, jitter=0)
    assert retry_from_json({"type": "exponential", "base": 1, "factor": 2, "max": None}) == Exponential(1, jitter=0)


@pytest.mark.parametrize("jitter", [-0.1, 1.1, math.nan, math.inf, "0.5", True, None])
@pytest.mark.parametrize("make", [lambda jitter: Fixed(1, jitter), lambda jitter: Exponential(1, jitter=jitter)])
def test_jitter_is_a_share(make: Callable[[object], Retry], jitter: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^jitter: "):
        make(jitter)
