"""Job: what it takes, how it is written down, and how it plans what to fire. No store."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.jobs import MOST_COUNTED, Job, Slot, plan, task_id
from lockbeat.jobs.definition import READS
from lockbeat.retry import Exponential, Fixed
from lockbeat.triggers import At, Cron, Every

S = 1000
EPOCH_PLUS_10 = datetime.fromtimestamp(10, UTC)


def job(trigger: Any = None, **options: Any) -> Job:
    return Job.declare("job", trigger or Every(10), **options)


@pytest.mark.parametrize(
    ("slot", "now", "fire", "missed", "count", "following"),
    [
        (10, 10, 10, None, 0, 20),
        (10, 19.999, 10, None, 0, 20),
        (10, 20, 20, (10, 10), 1, 30),
        (10, 55, 50, (10, 40), 4, 60),
        (10, 10 * MOST_COUNTED, 10 * MOST_COUNTED, (10, 10 * MOST_COUNTED - 10), MOST_COUNTED - 1, 10 * MOST_COUNTED + 10),
        (10, 10 * MOST_COUNTED + 10, 10 * MOST_COUNTED + 10, (10, 10 * MOST_COUNTED), -1, 10 * MOST_COUNTED + 20),
    ],
)
def test_it_fires_the_latest_and_names_those_before(
    slot: int, now: float, fire: int, missed: tuple[int, int] | None, count: int, following: int
) -> None:
    planned = plan.of(job(), slot * S, round(now * S))
    assert planned.fire == fire * S
    assert planned.count == count
    if missed is not None:
        assert (planned.first, planned.last) == (missed[0] * S, missed[1] * S)
    assert planned.next == Slot(following * S, following * S)


def test_the_last_slot_has_no_next() -> None:
    planned = plan.of(job(At(EPOCH_PLUS_10)), 10 * S, 99 * S)
    assert (planned.fire, planned.count, planned.next) == (10 * S, 0, None)


def test_a_slot_that_is_none_of_the_trigger_is_fired_as_it_was_promised() -> None:
    planned = plan.of(job(), 13 * S, 14 * S)
    assert (planned.fire, planned.count, planned.next) == (13 * S, 0, Slot(20 * S, 20 * S))


@given(
    period=st.integers(1, 50),
    jitter=st.integers(0, 120),
    first=st.integers(1, 20),
    late=st.integers(0, 2000),
    name=st.text(min_size=1, max_size=3).filter(lambda text: text.isascii()),
)
@settings(max_examples=300, deadline=None)
def test_a_plan_loses_no_slot_and_fires_none_early(period: int, jitter: int, first: int, late: int, name: str) -> None:
    made = Job.declare(name, Every(period), jitter=jitter)
    slot = first * period * S
    now = plan.due(made, slot, slot + period * S) + late * S // 7
    planned = plan.of(made, slot, now)
    assert plan.due(made, planned.fire, planned.fire + period * S) <= now, "what is fired has come due"
    assert planned.next is not None
    assert planned.next.due_ms > now, "what follows has not"
    assert planned.next.slot_ms == planned.fire + period * S, "nothing lies between"
    assert planned.next.due_ms == plan.due(made, planned.next.slot_ms, planned.next.slot_ms + period * S)
    if planned.fire == slot:
        assert planned.count == 0
    else:
        assert (planned.first, planned.last) == (slot, planned.fire - period * S)
        assert planned.count in (-1, (planned.fire - slot) // (period * S))


@given(st.integers(0, 10**7), st.integers(0, 400))
@settings(max_examples=100, deadline=None)
def test_a_plan_of_a_cron_line_loses_no_slot(start: int, minutes: int) -> None:
    trigger = Cron("*/7 1-20 * * *", "Europe/Berlin")
    made = Job.declare("job", trigger)
    slot = trigger.next(start * S)
    assert slot is not None
    planned = plan.of(made, slot, slot + minutes * 60 * S)
    between, at = [], slot
    while at < planned.fire:
        between.append(at)
        at = trigger.next(at) or 0
    assert planned.count == len(between)
    assert not between or (planned.first, planned.last) == (between[0], between[-1])
    assert planned.next is not None
    assert planned.next.slot_ms == trigger.next(planned.fire)


@given(
    period=st.integers(1, 50),
    jitter=st.integers(0, 60),
    late=st.integers(0, 3000),
    cap=st.integers(1, 20),
    window=st.none() | st.integers(1, 500),
)
@settings(max_examples=300, deadline=None)
def test_catching_up_fires_the_newest_that_cap_and_window_allow_each_once_the_oldest_first(
    period: int, jitter: int, late: int, cap: int, window: int | None
) -> None:
    made = job(Every(period), jitter=jitter, catchup="all", cap=cap, window=window)
    at: Slot | None = plan.first(made, 0)
    assert at is not None
    now = at.due_ms + late * S // 7
    due_by_now = [slot for slot in range(at.slot_ms, now + 1, period * S) if plan.due(made, slot, slot + period * S) <= now]
    fired, missed = [], 0
    while at is not None and at.due_ms <= now:
        planned = plan.of(made, at.slot_ms, now)
        fired.append(planned.fire)
        missed += planned.count
        if planned.count:
            assert (planned.first, planned.last) == (at.slot_ms, planned.fire - period * S)
        at = planned.next
    within = [slot for slot in due_by_now if window is None or now - slot <= made.fires_within_ms]
    assert fired == (within or due_by_now[-1:])[-cap:], "the latest is for the script to refuse"
    assert missed == len(due_by_now) - len(fired) or missed == -1
    assert at is not None
    assert at.slot_ms == due_by_now[-1] + period * S


@pytest.mark.parametrize("count", [999, 5000])
def test_catching_up_after_a_long_outage_takes_no_walk_over_all_of_it(count: int) -> None:
    planned = plan.of(job(catchup="all", cap=3), 10 * S, 10 * S * count)
    assert planned.fire == 10 * S * (count - 2)
    assert (planned.first, planned.last) == (10 * S, 10 * S * (count - 3))
    assert planned.count == (count - 3 if count < MOST_COUNTED else -1)
    assert planned.next == Slot(10 * S * (count - 1), 10 * S * (count - 1))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"overlap": "buffer"}, "overlap: must be one of"),
        ({"catchup": "none"}, "catchup: must be one of"),
        ({"buffer": 5}, "buffer: is for overlap 'buffer_all', not 'skip'"),
        ({"buffer": 0, "overlap": "buffer_all"}, "buffer: "),
        ({"buffer": 1001, "overlap": "buffer_all"}, "buffer: "),
        ({"cap": 5}, "cap: is for catch-up 'all', not 'latest'"),
        ({"cap": 0, "catchup": "all"}, "cap: "),
        ({"cap": "5", "catchup": "all"}, "cap: "),
    ],
)
def test_policies_that_mean_nothing_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises((ValueError, TypeError), match=problem):
        job(**options)


def test_a_function_in_the_place_of_its_name_is_refused() -> None:
    def bill() -> None: ...

    with pytest.raises(InvalidType, match="must be the name of a function, a str, not the function itself"):
        Job.declare("bill-7", Every(60), function=bill)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"overlap": "buffer_one"},
        {"overlap": "buffer_all", "buffer": 5},
        {"overlap": "cancel_other"},
        {"catchup": "all", "cap": 5},
        {"limit": 3},
    ],
)
def test_policies_that_older_versions_lack_are_left_to_newer_ones(options: dict[str, Any]) -> None:
    made = job(**options)
    assert made.definition.startswith('{"needs":2,"trigger":')
    assert Job.from_definition("job", made.definition) == made


def test_the_first_slot_lies_after_now() -> None:
    assert plan.first(job(), 10 * S) == Slot(20 * S, 20 * S)
    assert plan.first(job(), 10 * S - 1) == Slot(10 * S, 10 * S)
    assert plan.first(job(At(EPOCH_PLUS_10)), 10 * S) is None


def test_a_definition_reads_back_as_the_same_job() -> None:
    made = Job.declare(
        "job",
        Cron("*/5 * * * *", "Europe/Berlin"),
        queue="q",
        overlap="allow",
        catchup="skip",
        window=3,
        jitter=0.5,
        timeout=7,
        max_attempts=3,
        retry=Exponential(1, 2, 60),
        lease=9,
        priority=-3,
        keep=5,
    )
    again = Job.from_definition("job", made.definition)
    assert again == made
    assert again.rev == made.rev
    assert json.loads(made.definition)["trigger"]["type"] == "cron"
    assert "name" not in json.loads(made.definition)


@pytest.mark.parametrize("text", ["", "}{", "{}", "[]", "7", '{"trigger": 5}', '{"trigger": {"type": "moon"}}'])
def test_a_definition_that_can_not_be_read_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Job.from_definition("job", text)
    assert "\n" not in str(caught.value)


def test_what_a_newer_release_added_is_carried_along_and_written_back() -> None:
    """It decides no slots, or the definition would say which version it needs."""
    data = json.loads(job().definition) | {"moon": {"phase": "full"}, "name": "x"}
    read = Job.from_definition("job", json.dumps(data))
    assert read == replace(job(), carried='"moon":{"phase":"full"},"name":"x"')
    assert json.loads(read.definition) == data
    assert read.rev != job().rev
    assert json.loads(replace(read, priority=5).definition) == data | {"priority": 5}


@pytest.mark.parametrize("needs", [READS + 1, 99])
def test_a_definition_that_needs_a_newer_release_is_refused(needs: int) -> None:
    data = {"needs": needs} | json.loads(job().definition)
    with pytest.raises(InvalidArgument, match=f"needs a lockbeat that reads definitions {needs}, not {READS}"):
        Job.from_definition("job", json.dumps(data))
    assert Job.from_definition("job", json.dumps(data | {"needs": READS})) == job()


def test_an_option_that_a_newer_release_knows_more_of_is_refused() -> None:
    data = json.loads(job().definition) | {"overlap": "buffer_everything"}
    with pytest.raises(InvalidArgument, match="overlap"):
        Job.from_definition("job", json.dumps(data))


def test_the_first_part_of_rev_changes_only_with_what_decides_the_slots() -> None:
    base = job().rev.partition(".")[0]
    for same in ({"lease": 9}, {"overlap": "allow"}, {"retry": Fixed(1)}, {"keep": 3}, {"queue": "x"}, {"window": 4}):
        other = job(**same).rev
        assert other.partition(".")[0] == base
        assert other != job().rev
    for changed in (job(Every(11)), job(jitter=1), job(Cron("* * * * *"))):
        assert changed.rev.partition(".")[0] != base


def test_what_a_task_carries_is_what_a_worker_needs() -> None:
    most, _, record = job(timeout=3, max_attempts=2, retry=Fixed(1), priority=4).record.partition(" ")
    assert most == "2"
    assert json.loads(record) == {
        "name": "job",
        "job": "job",
        "queue": "default",
        "overlap": "skip",
        "priority": 4,
        "lease_ms": 5000,
        "retry": {"type": "fixed", "seconds": 1, "jitter": 0.25},
        "timeout_ms": 3000,
    }
    assert task_id("job", 17) == "job@17"


@pytest.mark.parametrize(
    ("options", "ms"),
    [({}, -1), ({"catchup": "skip"}, 10_000), ({"window": 3}, 3000), ({"catchup": "skip", "window": 3, "jitter": 2}, 5000)],
)
def test_how_late_a_slot_may_be_fired(options: dict[str, Any], ms: int) -> None:
    assert job(**options).fires_within_ms == ms
