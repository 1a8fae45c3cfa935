"""When a connection is tried again."""

from __future__ import annotations

import itertools

import pytest

from lockbeat.connection.outage import LONGEST_PAUSE, SHORTEST_PAUSE, STEADY, Pace


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still."""
    monkeypatch.setattr("lockbeat.connection.outage.time.monotonic", lambda: 1000.0)


def pauses(pace: Pace, count: int, longest: float = 10.0) -> list[float]:
    waits = []
    for _ in range(count):
        pace.failed(longest)
        waits.append(pace.wait())
    return waits


def test_the_first_try_is_made_at_once() -> None:
    assert Pace().wait() == 0


def test_the_pause_doubles_up_to_a_bound_and_has_jitter() -> None:
    for at, wait in enumerate(pauses(Pace(), 12)):
        whole = min(SHORTEST_PAUSE * 2**at, LONGEST_PAUSE)
        assert whole / 2 <= wait <= whole
    assert len(set(pauses(Pace(), 12)[-6:])) > 1


def test_a_call_that_has_less_time_gets_a_shorter_pause() -> None:
    assert max(pauses(Pace(), 12, longest=0.2)) <= 0.2


def test_a_connection_that_ended_soon_is_no_success() -> None:
    pace = Pace()
    waits = []
    for _ in range(12):
        pace.lost(STEADY / 2, 10.0)
        waits.append(pace.wait())
    assert all(later > wait / 2 for wait, later in itertools.pairwise(waits))
    assert waits[-1] >= LONGEST_PAUSE / 2


def test_after_a_steady_connection_the_first_try_is_made_at_once() -> None:
    pace = Pace()
    pauses(pace, 12)
    pace.lost(STEADY, 10.0)
    assert pace.wait() == 0
    assert pauses(pace, 1)[0] <= SHORTEST_PAUSE
