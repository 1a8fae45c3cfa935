"""Entries as jobs: what they keep of what the code says, and what they refuse."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from celery.beat import BeatLazyFunc, ScheduleEntry
from celery.schedules import crontab

from lockbeat.celery.entries import UnknownEntry, attempts_for, job_of, message_of, patience
from lockbeat.celery.ids import task_id
from lockbeat.errors import InvalidArgument
from lockbeat.triggers import At, Cron, Every

APP = Celery("test", set_as_current=False)


def job(**entry: Any) -> Any:
    return job_of("report", {"task": "proj.report", "schedule": 60, **entry}, APP)


def message(made: Any, **entries: Any) -> Any:
    return message_of(made.params, "report", entries)


def test_an_entry_is_a_job_that_sends_a_message() -> None:
    made = job(args=(1, "two"), kwargs={"three": 3}, options={"queue": "slow", "expires": 30})
    assert (made.function, made.queue, made.overlap, made.trigger) == ("celery.send", "celery", "allow", Every(60))
    assert made.params == {
        "task": "proj.report",
        "args": [1, "two"],
        "kwargs": {"three": 3},
        "options": {"queue": "slow", "expires": 30},
    }
    assert message(made) == ("proj.report", [1, "two"], {"three": 3}, {"queue": "slow", "expires": 30})


def test_an_entry_of_a_scheduler_is_the_same_job_as_the_dict_that_it_was_made_of() -> None:
    said = {"task": "proj.report", "schedule": crontab(minute=5), "args": (1,)}
    assert job_of("report", ScheduleEntry(name="report", app=APP, **said), APP) == job_of("report", said, APP)


@pytest.mark.parametrize(
    "value",
    [datetime(2030, 1, 31, tzinfo=UTC), date(2030, 1, 31), Decimal("1.10"), UUID(int=7), b"bytes", {"a": [1, {"b": None}]}, "ü"],
)
def test_what_celery_can_put_into_json_comes_out_as_it_was(value: Any) -> None:
    made = job(args=[value], kwargs={"value": value})
    assert "local" not in made.params
    assert message(made) == ("proj.report", [value], {"value": value}, {})


@pytest.mark.parametrize("value", [BeatLazyFunc(lambda: 7), {1: "an int key"}, {1, 2}, timedelta(1), "long" * 5000, object()])
def test_what_json_can_not_carry_is_taken_from_the_code_when_it_is_sent(value: Any) -> None:
    entry = {"task": "proj.report", "schedule": 60, "args": [value]}
    made = job_of("report", entry, APP)
    assert made.params == {"task": "proj.report", "local": True}
    assert message(made, report=entry) == ("proj.report", [value], {}, {})
    with pytest.raises(UnknownEntry, match="stands in the code of another instance"):
        message(made)


def test_a_run_that_is_triggered_with_params_of_its_own_needs_a_task() -> None:
    assert message_of({"task": "other", "args": [1]}, "report", {}) == ("other", [1], {}, {})
    with pytest.raises(InvalidArgument, match="must say what to send"):
        message_of({"customer": 7}, "report", {})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"task": None}, "task: of entry 'report' must be the name of a task"),
        ({"schedule": 0}, "of entry 'report' must be 0.001 s to ten years"),
        ({"schedule": "hourly"}, "schedule: of entry 'report' must be seconds, a timedelta, a crontab or solar"),
    ],
)
def test_a_wrong_entry_is_named(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        job(**entry)


def test_a_slot_is_tried_to_be_sent_until_about_the_next() -> None:
    assert patience(Every(1)) == 300
    assert patience(Every(3600)) == 3600
    assert patience(Cron("0 3 * * *")) == 86_400
    assert patience(At(datetime(2030, 1, 1, tzinfo=UTC))) == 300
    assert attempts_for(0) == 1
    assert attempts_for(300) == 11  # 1 + 2 + 4 + 8 + 16 + 32 + 4 x 60
    assert job().max_attempts == attempts_for(300)


def test_the_starting_deadline_of_celery_is_the_window_of_its_crontabs() -> None:
    app = Celery("deadline", set_as_current=False)
    app.conf.beat_cron_starting_deadline = 90
    assert job_of("report", {"task": "t", "schedule": crontab(minute=5)}, app).window_ms == 90_000
    assert job_of("report", {"task": "t", "schedule": 60}, app).window_ms is None


def test_the_id_of_a_message_hangs_on_entry_slot_and_namespace_alone() -> None:
    slot = datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert task_id("report", slot) == "1bee2774-70bc-5ade-be6a-c11bdafb4761"
    others = {task_id("report", slot), task_id("report", slot, "other"), task_id("report", slot + timedelta(seconds=1))}
    assert len({*others, task_id("other", slot)}) == 4


def test_params_are_json() -> None:
    json.dumps(job(args=[datetime(2030, 1, 1, tzinfo=UTC)]).params)
