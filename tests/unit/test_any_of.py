"""AnyOf and Between: several triggers of one job, and one from a start to an end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbeat.errors import InvalidTrigger, InvalidType
from lockbeat.jobs import Job, plan
from lockbeat.triggers import AnyOf, At, Between, Cron, Every, Trigger, missed, upcoming

HOUR = 3_600_000
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
NOON_MS = 1_777_636_800_000

PARTS = (
    st.builds(Every, st.integers(1, 500), st.integers(0, 500_000))
    | st.sampled_from(["*/7 * * * *", "0,30 1-22/3 * * *", "17 * * * *", "30 2 * * *"]).map(
        lambda line: Cron(line, "Europe/Berlin")
    )
    | st.integers(0, 10**6).map(lambda second: At(datetime.fromtimestamp(NOON_MS / 1000 + second, UTC)))
)


def walk(trigger: Trigger, after_ms: int, until_ms: int) -> list[int]:
    found, slot = list[int](), trigger.next(after_ms)
    while slot is not None and slot <= until_ms:
        found.append(slot)
        slot = trigger.next(slot)
    return found


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(PARTS, min_size=1, max_size=4), minutes=st.integers(0, 300))
def test_its_slots_are_those_of_its_parts_and_no_instant_twice(parts: list[Trigger], minutes: int) -> None:
    trigger, until = AnyOf(*parts), NOON_MS + minutes * 60_000
    found = walk(trigger, NOON_MS, until)
    assert found == sorted({slot for part in parts for slot in walk(part, NOON_MS, until)})
    back, slot = list[int](), trigger.prev(until)
    while slot is not None and slot > NOON_MS:
        back.append(slot)
        slot = trigger.prev(slot - 1)
    assert back[::-1] == found, "going back finds what going forward found"
    if found:
        assert trigger.count(NOON_MS, until, len(found)) == len(found)
        late = missed(trigger, found[0], until, 1000)
        assert (late.first, late.last) == (found[0], found[-1])


@settings(max_examples=200, deadline=None)
@given(part=PARTS, start=st.none() | st.integers(-100, 200), length=st.integers(1, 200), open_end=st.booleans())
def test_between_has_the_slots_from_the_start_on_and_before_the_end(
    part: Trigger, start: int | None, length: int, open_end: bool
) -> None:
    start_ms = None if start is None else NOON_MS + start * 60_000
    end_ms = None if open_end else (start_ms or NOON_MS) + length * 60_000
    trigger, until = Between(part, start_ms, end_ms), NOON_MS + 3 * HOUR
    expected = [
        slot
        for slot in walk(part, NOON_MS, until)
        if (start_ms is None or slot >= start_ms) and (end_ms is None or slot < end_ms)
    ]
    assert walk(trigger, NOON_MS, until) == expected
    back, slot = list[int](), trigger.prev(until)
    while slot is not None and slot > NOON_MS:
        back.append(slot)
        slot = trigger.prev(slot - 1)
    assert back[::-1] == expected
    assert trigger.count(NOON_MS, until, 100_000) == len(expected)


def test_the_order_and_repetitions_of_its_parts_are_of_no_matter() -> None:
    nine, hourly = Cron("0 9 * * *"), Every(3600)
    assert AnyOf(nine, hourly) == AnyOf(hourly, nine, nine) == AnyOf(AnyOf(nine), hourly)
    assert hash(AnyOf(nine, hourly)) == hash(AnyOf(hourly, nine))
    assert str(AnyOf(nine, hourly)) == "every 1h or 0 9 * * * UTC"


@pytest.mark.parametrize(("parts", "problem"), [([], "must be 1 to 50, not 0"), ([5], "must be triggers such as Cron")])
def test_what_is_no_trigger_is_refused(parts: list[Any], problem: str) -> None:
    with pytest.raises(InvalidTrigger, match=f"triggers: {problem}"):
        AnyOf(*parts)


def test_there_is_a_bound_to_its_parts() -> None:
    assert len(AnyOf(*(Every(period) for period in range(1, 51))).triggers) == 50
    with pytest.raises(InvalidTrigger, match="must be 1 to 50, not 51"):
        AnyOf(*(Every(period) for period in range(1, 52)))


def test_a_jobs_start_and_end_bound_its_slots() -> None:
    job = Job.declare("job", Every(3600), start=NOON, end=datetime(2026, 5, 1, 15, tzinfo=UTC))
    assert upcoming(job.trigger, 0, 9) == [NOON_MS, NOON_MS + HOUR, NOON_MS + 2 * HOUR]
    assert plan.first(job, 0) == plan.Slot(NOON_MS, NOON_MS)
    assert plan.of(job, NOON_MS + 2 * HOUR, NOON_MS + 99 * HOUR).next is None
    assert str(job.trigger) == "every 1h from 2026-05-01T12:00:00+00:00 until 2026-05-01T15:00:00+00:00"


@pytest.mark.parametrize(
    ("bounds", "problem"),
    [
        ({"start": NOON, "end": NOON}, "end: 2026-05-01T12:00:00\\+00:00 does not come after the start"),
        ({"start": datetime(2026, 5, 1)}, "start: 2026-05-01T00:00:00 has no time zone"),
        ({"end": "tomorrow"}, "end: must be an aware datetime, not str"),
        ({"start": NOON, "end": datetime(2026, 5, 1, 12, 0, 1, tzinfo=UTC)}, "end: .* has no slot"),
        ({"end": datetime(1960, 1, 1, tzinfo=UTC)}, "end: .* has no slot"),
        ({"start": datetime(3000, 1, 1, tzinfo=UTC)}, "start: is too far off"),
    ],
)
def test_bounds_that_leave_nothing_are_refused(bounds: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidTrigger, match=problem):
        Job.declare("job", Cron("17 3 * * *"), **bounds)


@pytest.mark.parametrize(
    "trigger",
    [
        AnyOf(Cron("0 9 * * *"), Every(7)),
        Between(Every(7), 0, 10**12),
        Cron("30 2 * * *", gap="skip"),
        Cron("30 2 * * *", fold="both"),
    ],
    ids=str,
)
def test_what_older_versions_lack_is_left_to_newer_ones(trigger: Trigger) -> None:
    job = Job("job", trigger)
    assert job.definition.startswith('{"needs":2,"trigger":')
    assert Job.from_definition("job", job.definition) == job
    assert Job("job", trigger).rev.partition(".")[0] != Job("job", Every(7)).rev.partition(".")[0]


def test_description_and_tags_decide_no_slots() -> None:
    plain, told = Job("job", Every(7)), Job.declare("job", Every(7), description="for Ada", tags=["billing", "eu", "eu"])
    assert told.tags == ("billing", "eu")
    assert Job.from_definition("job", told.definition) == told
    assert told.rev.partition(".")[0] == plain.rev.partition(".")[0]
    assert "needs" not in told.definition
    assert told.definition.startswith(plain.definition[:20])
    assert "tags" not in plain.definition


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"tags": "billing"}, "tags: must be a list of str, not str"),
        ({"tags": 5}, "tags: must be a list of str, not int"),
        ({"tags": [""]}, "tags: "),
        ({"tags": [5]}, "tags: "),
        ({"tags": [str(number) for number in range(51)]}, "tags: must be at most 50, not 51"),
        ({"description": None}, "description: must be a str, not NoneType"),
        ({"description": "x" * 1001}, "description: longer than 1000 characters"),
    ],
)
def test_what_can_not_be_shown_is_refused(option: dict[str, Any], problem: str) -> None:
    with pytest.raises((InvalidTrigger, InvalidType, ValueError), match=problem):
        Job.declare("job", Every(7), **option)
