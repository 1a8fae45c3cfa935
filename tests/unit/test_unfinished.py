"""Whether a run hangs: a table of how long it has run, how long others took, and how many slots were skipped for it."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat.jobs import LedgerEntry
from lockbeat.jobs.ledger import Backfilled
from lockbeat.jobs.marks import Mark
from lockbeat.jobs.unfinished import Unfinished
from lockbeat.store.records import Attempt, Retried

NOW = 1_893_456_000_000
SECOND, HOUR = 1000, 3_600_000


def run_of(ran_ms: int, took_ms: list[int], skipped: int = 0, state: str = "fired") -> Unfinished | None:
    began = NOW - ran_ms
    attempt = Attempt(1, "host.1", 7, began / 1000, None, "running")
    entry = LedgerEntry("report", began, state, started_ms=began, attempts_made=(attempt,))
    newer = [Mark(NOW - number, "skipped", "overlap") for number in range(skipped)]
    older = [Mark(began - HOUR * (number + 1), "done", "", took) for number, took in enumerate(took_ms)]
    return Unfinished.of(entry, NOW, [*newer, Mark(began, state), *older])


@pytest.mark.parametrize(
    ("ran_ms", "took_ms", "skipped", "hangs"),
    [
        (7 * HOUR, [4 * SECOND] * 3, 0, True),
        (60 * SECOND, [10] * 3, 0, True),
        (59 * SECOND, [10] * 3, 9, False),  # not a minute yet
        (99 * SECOND, [10 * SECOND] * 3, 9, False),  # not ten times as long
        (100 * SECOND, [10 * SECOND] * 3, 0, True),
        (20 * 60 * SECOND, [4 * SECOND] * 9 + [25 * 60 * SECOND] * 2, 0, False),  # as long as others before
        (20 * 60 * SECOND, [4 * SECOND] * 9 + [25 * 60 * SECOND], 0, True),  # one that hung before hides none
        (7 * HOUR, [4 * SECOND] * 2, 2, False),  # too few are known
        (7 * HOUR, [4 * SECOND] * 2, 3, True),
        (HOUR, [], 3, True),
        (HOUR - SECOND, [], 50, False),
    ],
)
@pytest.mark.parametrize("state", ["fired", "cancelled"])
def test_a_run_hangs_that_runs_far_longer_than_usual(
    ran_ms: int, took_ms: list[int], skipped: int, hangs: bool, state: str
) -> None:
    run = run_of(ran_ms, took_ms, skipped, state)
    assert run is not None
    assert run.hangs is hangs
    assert len(run.skipped_ms) == skipped


def test_how_it_stands_is_told_in_words() -> None:
    run, stopping = run_of(104 * SECOND, [4 * SECOND] * 3), run_of(104 * SECOND, [], state="cancelled")
    assert run is not None
    assert stopping is not None
    assert run.text == "running for 1 m 44 s; it usually takes 4 s"
    assert stopping.text == "it was cancelled, and its function has yet to stop; running for 1 m 44 s"


def test_what_has_ended_is_none() -> None:
    assert Unfinished.of(LedgerEntry("report", NOW, "done", started_ms=NOW, ended_ms=NOW), NOW, []) is None


OLD = 48 * HOUR


@pytest.mark.parametrize(
    ("again", "skipped"),
    [
        ({}, 5),
        ({"retried": Retried("ann", (NOW - 3 * HOUR) / 1000, "cancelled", "bob")}, 2),
        ({"backfill": Backfilled("ann", None)}, 0),
    ],
)
def test_what_was_skipped_for_others_before_an_old_slot_ran_is_not_said_to_be_skipped_for_it(
    again: dict[str, Any], skipped: int
) -> None:
    began = NOW - 3 * HOUR
    attempt = Attempt(1, "host.1", 7, began / 1000, None, "running")
    entry = LedgerEntry("report", NOW - OLD, "fired", started_ms=began, attempts_made=(attempt,), **again)
    hours = (1, 2, 4, 5, 6)
    run = Unfinished.of(entry, NOW, [Mark(NOW - ago * HOUR, "skipped", "overlap") for ago in hours])
    assert run is not None
    assert run.skipped_ms == tuple(NOW - ago * HOUR for ago in hours[:skipped])
    assert run.hangs is (skipped >= 3), "it blocks no others"
