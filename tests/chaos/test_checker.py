"""The checker finds what it is there to find."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.checker import Effect, Entry, Evidence, Exit, Pause, Stretch, judge


def effect(slot: int, *, job: str = "job", attempt: int = 1, fence: int | None = None, late: float = 5.0) -> Effect:
    return Effect("start", job, slot, attempt, slot if fence is None else fence, slot + late, "i1", 1)


def good() -> Evidence:
    """Ten seconds of a job each second, without a fault."""
    effects = [effect(slot) for slot in range(1000, 11_000, 1000)]
    return Evidence(0, 10_000, {"job": 1000}, effects, [], {"i1": Exit(0, False, "", 1.0)})


def test_a_good_run_has_no_problems() -> None:
    verdict = judge(good(), p99_ms=10)
    assert verdict.problems == []
    assert (verdict.expected, verdict.ran, verdict.missed, verdict.duplicates) == (10, 10, 0, 0)
    assert verdict.p99_ms == 5


def drop(evidence: Evidence) -> None:
    del evidence.effects[4]


def only_fired(evidence: Evidence) -> None:
    drop(evidence)
    evidence.ledger.append(Entry("job", 5000, "fired", 5000))


def done_without_effect(evidence: Evidence) -> None:
    drop(evidence)
    evidence.ledger.append(Entry("job", 5000, "done", 5000))


def range_too_short(evidence: Evidence) -> None:
    del evidence.effects[4:7]
    evidence.ledger.append(Entry("job", 5000, "missed", 6000))


def twice(evidence: Evidence) -> None:
    evidence.effects.append(effect(5000, fence=5001))


def twice_as_another_attempt(evidence: Evidence) -> None:
    evidence.effects.append(effect(5000, attempt=2, fence=5001))


def retried_twice(evidence: Evidence) -> None:
    evidence.effects += [effect(1000, job="retried"), effect(1000, job="retried", fence=1001)]


def early(evidence: Evidence) -> None:
    evidence.effects[3] = effect(4000, late=-3)


def late(evidence: Evidence) -> None:
    evidence.effects[3] = effect(4000, late=1500)


def fence_repeats(evidence: Evidence) -> None:
    evidence.effects[3] = effect(4000, fence=3000)


def fence_back(evidence: Evidence) -> None:
    evidence.effects[3] = effect(4000, fence=2500)


def exit_code(evidence: Evidence) -> None:
    evidence.exits["i2"] = Exit(1, False, "boom")


def slow_end(evidence: Evidence) -> None:
    evidence.exits["i2"] = Exit(0, False, "", 9.0)


def traceback(evidence: Evidence) -> None:
    evidence.exits["i2"] = Exit(0, False, "Traceback (most recent call last)", 1.0)


def lease(evidence: Evidence) -> None:
    evidence.leases_left.append("task:owned x")


def paused(evidence: Evidence, *, until: float = 7500, skipped: bool = True) -> None:
    """From 4500 on; 5000 to 7000 are in it, and skipped."""
    evidence.effects[4:7] = []
    evidence.pauses.append(Pause("job", 4500, until, skipped))
    evidence.ledger.append(Entry("job", 5000, "skipped", 7000, "paused"))


def ran_in_a_pause(evidence: Evidence) -> None:
    paused(evidence)
    evidence.effects.insert(5, effect(6000))


def ran_after_a_pause(evidence: Evidence) -> None:
    """Its slots were skipped, and one of them runs all the same."""
    paused(evidence)
    evidence.effects.insert(5, effect(7000, late=900))


def paused_for_another_reason(evidence: Evidence) -> None:
    paused(evidence)
    evidence.ledger[-1] = Entry("job", 5000, "missed", 7000, "not_fired")


def not_backfilled(evidence: Evidence) -> None:
    drop(evidence)
    evidence.ledger.append(Entry("job", 5000, "missed", 5000, "not_fired"))
    evidence.backfills.append(Stretch("job", 4500, 5500))


def no_reason(evidence: Evidence) -> None:
    drop(evidence)
    evidence.ledger.append(Entry("job", 5000, "missed", 5000))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (drop, "vanished"),
        (only_fired, "vanished"),
        (done_without_effect, "vanished"),
        (range_too_short, "vanished"),
        (twice, "twice"),
        (twice_as_another_attempt, "twice"),
        (retried_twice, "twice"),
        (early, "early"),
        (late, "lateness"),
        (fence_repeats, "fences"),
        (fence_back, "fences"),
        (exit_code, "exited with 1"),
        (slow_end, "took 9.0 s"),
        (traceback, "traceback"),
        (lease, "left behind"),
        (ran_in_a_pause, "in a pause"),
        (ran_after_a_pause, "in a pause"),
        (paused_for_another_reason, "not said to be paused"),
        (not_backfilled, "not backfilled"),
        (no_reason, "no reason"),
    ],
)
def test_it_finds(spoil: Callable[[Evidence], None], word: str) -> None:
    evidence = good()
    spoil(evidence)
    verdict = judge(evidence, p99_ms=1000)
    assert verdict.problems
    assert word in verdict.problems[0]


def excused_by_range(evidence: Evidence) -> None:
    del evidence.effects[4:7]
    evidence.ledger.append(Entry("job", 5000, "missed", 7000, "not_fired"))


def excused_by_state(evidence: Evidence) -> None:
    drop(evidence)
    evidence.ledger.append(Entry("job", 5000, "lost", 5000))


def retried(evidence: Evidence) -> None:
    evidence.effects += [effect(1000, job="retried"), effect(1000, job="retried", attempt=2, fence=1001)]


def killed(evidence: Evidence) -> None:
    evidence.exits["i2"] = Exit(-9, True, "")


def latest_of_a_pause(evidence: Evidence) -> None:
    """It is fired when the job is resumed."""
    paused(evidence, skipped=False)
    evidence.effects.insert(4, effect(7000, late=600))


def backfilled(evidence: Evidence) -> None:
    """It runs after later slots, by a later fence."""
    evidence.effects[4] = effect(5000, fence=20_000, late=900)
    evidence.backfills.append(Stretch("job", 4500, 5500))


@pytest.mark.parametrize("fine", [excused_by_range, excused_by_state, retried, killed, paused, latest_of_a_pause, backfilled])
def test_it_accepts(fine: Callable[[Evidence], None]) -> None:
    evidence = good()
    fine(evidence)
    assert judge(evidence, p99_ms=1000).problems == []
