"""Who asks when: as tables, without a store."""

from __future__ import annotations

import pytest

from lockbeat.jobs.standby import FIRST, MOST, NEEDED_MS, Standby

T = 1_800_000_000_000


def in_vain(standby: Standby, times: int) -> None:
    for _ in range(times):
        standby.after(T)
        standby.asked(T + 1, None, T + 1000)


def test_whoever_asks_in_vain_asks_later_and_later_up_to_a_bound() -> None:
    standby, delays = Standby(), []
    for _ in range(8):
        in_vain(standby, 1)
        delays.append(standby.delay)
    assert delays == [min(FIRST * 2**n, MOST) for n in range(8)]
    assert {standby.after(T) <= MOST for _ in range(100)} == {True}
    assert len({standby.after(T) for _ in range(100)}) > 50, "not all at once"


@pytest.mark.parametrize(
    ("slept_until", "now_ms", "next_ms"),
    [
        (0, T, T + 1000),  # nothing was expected
        (T + 500, T, T + 1000),  # rung before its time
        (T + 1, T + 1, T + 1),  # nobody was first: it is not due yet, by the server's clock
    ],
)
def test_who_was_not_too_late_for_anything_asks_on_time(slept_until: int, now_ms: int, next_ms: int) -> None:
    standby = Standby()
    standby.after(slept_until)
    standby.asked(now_ms, None, next_ms)
    assert standby.delay == 0


@pytest.mark.parametrize(
    ("times", "late_ms", "on_time"),
    [
        (1, NEEDED_MS - 1, False),  # whoever fires has not asked yet
        (1, NEEDED_MS, True),
        (7, MOST * 500 - 1, False),
        (7, MOST * 500, True),
        (7, MOST * 1000, True),  # nobody has looked since it came due
    ],
)
def test_whoever_finds_what_nobody_has_taken_asks_on_time_again(times: int, late_ms: float, on_time: bool) -> None:
    standby = Standby()
    in_vain(standby, times)
    standby.after(T)
    standby.asked(T + round(late_ms), T, T + 1000)
    assert (standby.delay == 0) is on_time


def test_turns_that_follow_one_another_in_a_burst_are_not_in_vain() -> None:
    standby = Standby()
    standby.after(T)
    standby.asked(T, T, T + 1000)
    standby.asked(T + 1, None, T + 1000)
    assert standby.delay == 0
