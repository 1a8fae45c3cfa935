"""What the beat asks of any trigger: its JSON, the slots to come, the slots it missed, and jitter."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbeat.errors import InvalidArgument, InvalidTrigger
from lockbeat.triggers import (
    AnyOf,
    At,
    Between,
    Called,
    Cron,
    Every,
    Missed,
    Trigger,
    jitter_ms,
    missed,
    trigger_from_json,
    upcoming,
)

MINUTE = 60_000
HOUR = 60 * MINUTE

AT = {"type": "at", "when_ms": 0}
TRIGGERS = [
    Cron("*/5 * * * *", "Europe/Berlin"),
    Cron("0 30 2 L * ?"),
    Cron("@daily", "America/Havana"),
    Every(10),
    Every(0.25, anchor=7),
    At(datetime(2026, 1, 1, tzinfo=UTC)),
    At(datetime(1, 1, 1, tzinfo=UTC)),
    At(datetime(2999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    Cron("30 2 * * *", "Europe/Berlin", gap="skip"),
    Cron("30 2 * * *", "Europe/Berlin", fold="both"),
    Cron("30 2 * * *", "Europe/Berlin", gap="skip", fold="last"),
    AnyOf(Cron("0 9 * * *", "Asia/Tokyo"), Every(3600), At(datetime(2026, 1, 1, tzinfo=UTC))),
    Between(Every(10), datetime(2026, 1, 1, tzinfo=UTC)),
    Between(AnyOf(Cron("0 9 * * *"), Every(7)), None, 10**12),
    AnyOf(Between(Every(10), 0, 10**12), Every(11)),
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
def test_a_trigger_survives_json(trigger: Trigger) -> None:
    read = trigger_from_json(json.loads(json.dumps(trigger.to_json())))
    assert read == trigger
    assert read.to_json() == trigger.to_json()
    assert str(read) == str(trigger)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (None, "trigger: must be a JSON object, not NoneType"),
        ("* * * * *", "trigger: must be a JSON object, not str"),
        ({}, "trigger: unknown type None; known: any_of, at, between, by_hand, called, cron, every"),
        ({"type": "moon"}, "trigger: unknown type 'moon'; known: any_of, at, between, by_hand, called, cron, every"),
        ({"type": ["cron"]}, "trigger: unknown type ['cron']"),
        ({"type": "cron"}, "trigger: 'cron' has the fields expression, timezone"),
        ({"type": "cron", "expression": "* * * * *"}, "trigger: 'cron' has the fields expression, timezone"),
        ({"type": "cron", "expression": 5, "timezone": "UTC"}, "trigger: expression must be str, not 5"),
        ({"type": "cron", "expression": "* * *", "timezone": "UTC"}, "expression: '* * *' has 3 fields"),
        ({"type": "cron", "expression": "* * * * *", "timezone": "X"}, "timezone: unknown time zone 'X'"),
        # Written by a newer version, which would fire at other times.
        ({"type": "at", "when_ms": 0, "until": 5}, "trigger: 'at' has the fields when_ms"),
        ({"type": "at", "when_ms": 10**30}, "trigger: out of range"),
        ({"type": "at", "when_ms": 1.5}, "trigger: when_ms must be int, not 1.5"),
        ({"type": "at", "when_ms": True}, "trigger: when_ms must be int, not True"),
        ({"type": "every", "period_ms": 0, "anchor_ms": 0}, "period: must be 0.001 s to ten years"),
        ({"type": "every", "period_ms": 10**30, "anchor_ms": 0}, "trigger: out of range"),
        ({"type": "every", "period_ms": 10**5000, "anchor_ms": 0}, "trigger: out of range"),
        ({"type": "every", "period_ms": "10", "anchor_ms": 0}, "trigger: period_ms must be int, not '10'"),
        (
            {"type": "every", "period_ms": "x" * 500, "anchor_ms": 0},
            "trigger: period_ms must be int, not 'xxx",
        ),
        (
            {"type": "cron", "expression": "0 2 * * *", "timezone": "UTC", "gap": "x"},
            "gap: must be one of 'after', 'skip', not 'x'",
        ),
        ({"type": "cron", "expression": "0 2 * * *", "timezone": "UTC", "fold": 5}, "trigger: fold must be str, not 5"),
        (
            {"type": "cron", "expression": "0 2 * * *", "timezone": "UTC", "hole": "x"},
            "trigger: 'cron' has the fields expression",
        ),
        ({"type": "any_of"}, "trigger: 'any_of' has the fields triggers, not"),
        ({"type": "any_of", "triggers": []}, "triggers: must be 1 to 50, not 0"),
        ({"type": "any_of", "triggers": [5]}, "trigger: must be a JSON object, not int"),
        ({"type": "between", "trigger": {"type": "moon"}}, "trigger: unknown type 'moon'"),
        ({"type": "between", "trigger": AT, "start_ms": "x"}, "trigger: start_ms must be int, not 'x'"),
        ({"type": "between", "trigger": AT, "start_ms": 10**30}, "start: is too far off"),
        (
            {"type": "between", "trigger": AT, "start_ms": 5, "end_ms": 5},
            "end: 1970-01-01T00:00:00.005+00:00 does not come after",
        ),
        (functools.reduce(lambda inner, _: {"type": "between", "trigger": inner}, range(9), AT), "trigger: more than 8 triggers"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(data: object, problem: str) -> None:
    with pytest.raises(InvalidTrigger) as caught:
        trigger_from_json(data)  # type: ignore[arg-type]
    assert str(caught.value).startswith(problem)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_triggers_of_different_kinds_are_never_equal() -> None:
    assert len(set(TRIGGERS)) == len(TRIGGERS)
    every: Trigger = Every(60)
    assert every != Cron("* * * * *")


def test_upcoming_gives_n_slots_or_all_there_are() -> None:
    assert upcoming(Every(60), 0, 3) == [MINUTE, 2 * MINUTE, 3 * MINUTE]
    assert upcoming(At(datetime(1970, 1, 2, tzinfo=UTC)), 0, 3) == [24 * HOUR]
    assert upcoming(Every(60), 0, 0) == []


@pytest.mark.parametrize("trigger", [Every(60), Cron("* * * * *")], ids=str)
def test_missed_tells_first_last_count_and_next(trigger: Trigger) -> None:
    assert missed(trigger, HOUR, HOUR, 100) == Missed(HOUR, HOUR, 1, HOUR + MINUTE)
    assert missed(trigger, HOUR, HOUR + MINUTE - 1, 100) == Missed(HOUR, HOUR, 1, HOUR + MINUTE)
    assert missed(trigger, HOUR, HOUR + MINUTE, 100) == Missed(HOUR, HOUR + MINUTE, 2, HOUR + 2 * MINUTE)
    assert missed(trigger, HOUR, 2 * HOUR, 61) == Missed(HOUR, 2 * HOUR, 61, 2 * HOUR + MINUTE)


@pytest.mark.parametrize("trigger", [Every(60), Cron("* * * * *")], ids=str)
def test_missed_does_not_count_beyond_its_limit_but_still_knows_the_last(trigger: Trigger) -> None:
    assert missed(trigger, HOUR, 2 * HOUR, 60) == Missed(HOUR, 2 * HOUR, None, 2 * HOUR + MINUTE)
    year = 365 * 24 * HOUR
    assert missed(trigger, 0, 10 * year, 3) == Missed(0, 10 * year, None, 10 * year + MINUTE)


def test_missed_takes_no_more_steps_than_its_limit() -> None:
    class Counted(Trigger):
        asked = 0

        def next(self, after_ms: int) -> int:
            self.asked += 1
            return after_ms + 1

        def prev(self, until_ms: int) -> int:
            self.asked += 1
            return until_ms

        def to_json(self) -> dict[str, object]:
            return {}

    trigger = Counted()
    assert missed(trigger, 0, 10**9, 50).count is None
    assert trigger.asked <= 53


def test_missed_counts_a_slot_that_a_changed_definition_no_longer_names() -> None:
    assert missed(Every(60), HOUR + 7, HOUR + 8, 10) == Missed(HOUR + 7, HOUR + 7, 1, HOUR + MINUTE)
    assert missed(Every(60), HOUR + 7, HOUR + MINUTE, 10) == Missed(HOUR + 7, HOUR + MINUTE, 2, HOUR + 2 * MINUTE)
    late = At(datetime(2030, 1, 1, tzinfo=UTC))
    assert missed(late, HOUR, 2 * HOUR, 10) == Missed(HOUR, HOUR, 1, late.when_ms)


def test_a_single_slot_that_was_missed_has_no_successor() -> None:
    at = At(datetime(1970, 1, 2, tzinfo=UTC))
    assert missed(at, at.when_ms, at.when_ms + HOUR, 10) == Missed(at.when_ms, at.when_ms, 1, None)


def test_missed_refuses_a_slot_that_is_not_due_and_a_limit_of_nothing() -> None:
    with pytest.raises(InvalidArgument, match="slot_ms: 5 is not due at 4"):
        missed(Every(1), 5, 4, 10)
    with pytest.raises(InvalidArgument, match="limit: must be at least 1"):
        missed(Every(1), 4, 5, 0)


@given(st.text(), st.integers(0, 10**13), st.integers(0, 10**9), st.none() | st.integers(1, 10**9))
def test_jitter_stays_within_its_bound_and_before_the_next_slot(job: str, slot: int, most: int, gap: int | None) -> None:
    delay = jitter_ms(job, slot, most, None if gap is None else slot + gap)
    assert 0 <= delay <= most
    assert gap is None or slot + delay < slot + gap
    assert delay == jitter_ms(job, slot, most, None if gap is None else slot + gap)


def test_jitter_spreads_jobs_over_its_whole_range() -> None:
    delays = [jitter_ms(f"job-{i}", HOUR, 999, None) for i in range(5000)]
    tenths = [sum(d // 100 == tenth for d in delays) for tenth in range(10)]
    assert min(tenths) > 400
    assert {min(delays), max(delays)} <= {*range(10), *range(990, 1000)}
    assert len({jitter_ms("job", slot, 10**6, None) for slot in range(100)}) > 95


def test_jitter_is_the_same_in_another_process_with_another_hash_seed() -> None:
    code = "from lockbeat.triggers import jitter_ms; print(jitter_ms('report', 1767225600000, 60000, None))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {str(jitter_ms("report", 1_767_225_600_000, 60_000, None))}


def test_jitter_takes_any_name_but_no_negative_bound() -> None:
    assert jitter_ms("\ud800", 0, 0, None) == 0
    with pytest.raises(InvalidArgument, match="max_ms"):
        jitter_ms("job", 0, -1, None)


@pytest.mark.parametrize("trigger", [Called(Cron("H 3 * * *", "Europe/Berlin")).of_job("report"), Called(None, 90_000)], ids=str)
def test_slots_that_are_called_for_are_none_to_whoever_fires(trigger: Called) -> None:
    assert trigger_from_json(trigger.to_json()) == trigger
    assert (trigger.next(0), trigger.prev(10**13)) == (None, None)
    assert trigger.timezone == ("UTC" if trigger.slots is None else "Europe/Berlin")
    assert trigger.of_job("another") == trigger


@pytest.mark.parametrize(("slots", "least_ms"), [(None, 0), (Cron("* * * * *"), 1), (Called(None, 1), 0)])
def test_slots_that_are_called_for_are_given_or_a_time_between_them(slots: Trigger | None, least_ms: int) -> None:
    with pytest.raises(InvalidTrigger, match="slots"):
        Called(slots, least_ms)
