"""The checker of tasks finds what it is there to find."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.checker import Exit
from tests.chaos.task_checker import Effect, Evidence, Given, Known, judge


def effects(task: str, attempt: int, fence: int, *events: str, instance: str = "w1") -> list[Effect]:
    return [Effect(event, task, attempt, fence, fence + at / 10, instance) for at, event in enumerate(events)]


def good() -> Evidence:
    """Five tasks, one of each fate; w2 was killed: before its body ended, between body and report, and once it had reported."""
    return Evidence(
        given={
            "plain": Given("noop", 100),
            "flaky": Given("flaky", 100, raises=1),
            "doomed": Given("doomed", 2, raises=99),
            "once": Given("once", 1),
            "killed": Given("sleep", 100),
            "brief": Given("brief", 100, fleeting=True),
        },
        known={
            "plain": Known("done", 1, 1),
            "flaky": Known("done", 2, 3),
            "doomed": Known("dead", 2, 5, "Deliberate"),
            "once": Known("dead", 1, 6, "Lost"),
            "killed": Known("done", 4, 10),
        },
        effects=[
            *effects("plain", 1, 1, "begin", "end", "completed"),
            *effects("flaky", 1, 2, "begin", "raise", "requeued"),
            *effects("flaky", 2, 3, "begin", "end", "completed"),
            *effects("doomed", 1, 4, "begin", "raise", "requeued"),
            *effects("doomed", 2, 5, "begin", "raise", "dead_lettered"),
            *effects("once", 1, 6, "begin", instance="w2"),
            *effects("killed", 1, 7, "begin", instance="w2"),
            *effects("killed", 2, 8, "begin", "end", instance="w2"),
            # The third was claimed, and never begun.
            *effects("killed", 4, 10, "begin", "end", instance="w2"),
            *effects("brief", 1, 11, "begin", "end", "completed"),
        ],
        stats={"spawned": 6, "begun": 11, "done": 4, "retried": 5, "failed": 1, "lost": 1},
        again=[("plain", "plain", False)],
        excused={"w2": [(5, 12)]},
        forgotten=True,
        counts={"default": (0, 0, 0, 2)},
        kept={"fence": 1, "epoch": 1, "task:stats": 6},
        fleeting=3,
        exits={"w1": Exit(0, False, ""), "w2": Exit(-9, True, "")},
        kills=1,
    )


def test_a_good_run_has_no_problems() -> None:
    verdict = judge(good())
    assert verdict.problems == []
    assert (verdict.tasks, verdict.done, verdict.dead) == (6, 4, 2)
    assert (verdict.begun, verdict.lost, verdict.again, verdict.refused, verdict.duplicates) == (10, 4, 1, 0, 0)


def vanished(evidence: Evidence) -> None:
    del evidence.known["plain"]


def still_waiting(evidence: Evidence) -> None:
    evidence.known["plain"] = Known("waiting", 1)


def still_running(evidence: Evidence) -> None:
    evidence.known["killed"] = Known("running", 4, 10)


def not_forgotten(evidence: Evidence) -> None:
    evidence.known["brief"] = Known("done", 1, 11)


def too_many_attempts(evidence: Evidence) -> None:
    evidence.known["doomed"] = Known("dead", 3, 5, "Deliberate")


def dead_too_soon(evidence: Evidence) -> None:
    evidence.known["killed"] = Known("dead", 4, 10, "Lost")


def dead_without_reason(evidence: Evidence) -> None:
    evidence.known["once"] = Known("dead", 1, 6, "Error")


def done_while_raising(evidence: Evidence) -> None:
    evidence.known["doomed"] = Known("done", 2, 5)


def done_unended(evidence: Evidence) -> None:
    evidence.known["killed"] = Known("done", 4, 7)


def lost_for_nothing(evidence: Evidence) -> None:
    evidence.excused.clear()


def begun_twice(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 2, 9, "begin", "end", instance="w2")


def once_begun_twice(evidence: Evidence) -> None:
    evidence.effects += effects("once", 2, 12, "begin", instance="w2")


def fences_back(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 3, 6, "begin", instance="w2")


def fence_again(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 3, 8, "begin", instance="w2")


def uncounted(evidence: Evidence) -> None:
    evidence.known["killed"] = Known("done", 3, 10)


def completed_twice(evidence: Evidence) -> None:
    evidence.effects += [*effects("flaky", 1, 2, "completed")]


def completed_by_the_old(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 2, 8, "completed", instance="w2")


def completed_unknown(evidence: Evidence) -> None:
    evidence.effects += effects("once", 1, 6, "end", "completed", instance="w2")


def begun_after_the_end(evidence: Evidence) -> None:
    evidence.known["plain"] = Known("done", 2, 1)
    evidence.effects += effects("plain", 2, 12, "begin", instance="w2")


def refused_by_mistake(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 4, 10, "refused", instance="w2")


def answered_in_two_ways(evidence: Evidence) -> None:
    evidence.effects += effects("flaky", 1, 2, "refused", instance="w2")


def came_to_nothing(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 3, 9, "begin")


def cut(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 3, 9, "begin", "cut")


def done_again(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 3, 9, "begin", "end")


def refused_without_death(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 3, 9, "refused")


def done_again_long_before_the_death(evidence: Evidence) -> None:
    evidence.excused["w2"] = [(13, 13)]


def refused_after_the_thaw(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 3, 9, "begin", "end", "refused", instance="w3")
    evidence.excused["w3"] = [(6, 8)]


def never_spawned(evidence: Evidence) -> None:
    evidence.effects += effects("unheard of", 1, 12, "begin", "end")


def a_key_of_two(evidence: Evidence) -> None:
    evidence.again.append(("plain", "flaky", False))


def a_key_made_again(evidence: Evidence) -> None:
    evidence.again.append(("plain", "plain", True))


def spawned_miscounted(evidence: Evidence) -> None:
    evidence.stats["spawned"] += 1


def done_miscounted(evidence: Evidence) -> None:
    evidence.stats["done"] += 1


def dead_miscounted(evidence: Evidence) -> None:
    evidence.stats["lost"] += 1


def begun_miscounted(evidence: Evidence) -> None:
    evidence.stats["begun"] -= 5


def counts_left(evidence: Evidence) -> None:
    evidence.counts["mail"] = (0, 1, 0, 0)


def queue_left(evidence: Evidence) -> None:
    evidence.queues.append("mail")


def lease_left(evidence: Evidence) -> None:
    evidence.kept["task:owned"] = 1


def kept_grows(evidence: Evidence) -> None:
    evidence.kept["task:stats"] = 1000


def replies_left(evidence: Evidence) -> None:
    evidence.fleeting = 1000


def exit_code(evidence: Evidence) -> None:
    evidence.exits["w1"] = Exit(1, False, "boom")


def traceback(evidence: Evidence) -> None:
    evidence.exits["w2"] = Exit(-9, True, "Traceback (most recent call last)")


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (vanished, "vanished"),
        (still_waiting, "not ended"),
        (still_running, "not ended"),
        (not_forgotten, "not forgotten"),
        (too_many_attempts, "more attempts"),
        (dead_too_soon, "before its attempts were used up"),
        (dead_without_reason, "did not raise"),
        (done_while_raising, "by an attempt that raised"),
        (done_unended, "never ended"),
        (lost_for_nothing, "lost without anybody's death"),
        (begun_twice, "began twice"),
        (once_begun_twice, "more often"),
        (fences_back, "fences"),
        (fence_again, "fences"),
        (uncounted, "does not count"),
        (completed_twice, "completed twice"),
        (completed_by_the_old, "not the newest"),
        (completed_unknown, "knows nothing"),
        (begun_after_the_end, "begun again"),
        (refused_by_mistake, "refused, though"),
        (answered_in_two_ways, "two ways"),
        (came_to_nothing, "came to nothing"),
        (cut, "came to nothing"),
        (done_again, "done again"),
        (done_again_long_before_the_death, "done again"),
        (refused_after_the_thaw, "refused, without"),
        (refused_without_death, "refused, without"),
        (never_spawned, "never spawned"),
        (a_key_of_two, "two tasks"),
        (a_key_made_again, "two tasks"),
        (spawned_miscounted, "counted"),
        (done_miscounted, "completions were counted"),
        (dead_miscounted, "counted"),
        (begun_miscounted, "more attempts ended"),
        (counts_left, "still holds"),
        (queue_left, "not empty"),
        (lease_left, "left behind"),
        (kept_grows, "left behind"),
        (replies_left, "left behind"),
        (exit_code, "exited with 1"),
        (traceback, "traceback"),
    ],
)
def test_it_finds(spoil: Callable[[Evidence], None], word: str) -> None:
    evidence = good()
    spoil(evidence)
    problems = judge(evidence).problems
    assert any(word in problem.partition(": ")[0] or word in problem.partition(", with")[0] for problem in problems), problems


def calm() -> Evidence:
    """As a run in which nobody was harmed."""
    evidence = good()
    for task in ("once", "killed", "doomed", "brief"):
        del evidence.given[task]
        evidence.known.pop(task, None)
    evidence.effects = [effect for effect in evidence.effects if effect.task in evidence.given]
    evidence.stats = {"spawned": 2, "begun": 3, "done": 2, "retried": 1}
    evidence.excused, evidence.forgotten, evidence.kills = {}, False, 0
    return evidence


def test_where_nobody_was_harmed_each_body_runs_as_often_as_it_needs() -> None:
    evidence = calm()
    assert judge(evidence).problems == []
    evidence.effects += effects("flaky", 0, 0, "begin", "raise", "requeued")
    assert any("not run as often" in problem for problem in judge(evidence).problems)


def test_where_nobody_was_harmed_no_attempt_is_used_up_without_a_body() -> None:
    evidence = calm()
    evidence.known["plain"] = Known("done", 2, 1)
    assert any("used up" in problem for problem in judge(evidence).problems)


def test_duplicates_are_counted() -> None:
    for spoil in (begun_twice, completed_twice, begun_after_the_end):
        evidence = good()
        spoil(evidence)
        assert judge(evidence).duplicates > 0, spoil
    evidence = good()
    completed_by_the_old(evidence)
    assert judge(evidence).duplicates > 0


def completed_before_the_kill(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 4, 10, "completed", instance="w2")


def brief_is_there_unless_waited_for(evidence: Evidence) -> None:
    not_forgotten(evidence)
    evidence.forgotten = False


def late_report(evidence: Evidence) -> None:
    evidence.effects += effects("killed", 3, 9, "begin", "end", "refused", instance="w2")


@pytest.mark.parametrize("fine", [completed_before_the_kill, brief_is_there_unless_waited_for, late_report])
def test_it_accepts(fine: Callable[[Evidence], None]) -> None:
    evidence = good()
    fine(evidence)
    assert judge(evidence).problems == []
