"""`once`, in real workers: a message that comes twice runs once."""

from __future__ import annotations

import inspect
import os
import signal
from datetime import UTC, datetime
from typing import Any

import celery
import pytest

from lockbeat.celery import once, task_id
from tests.celery.arena import Arena
from tests.conftest import needs

SLOT = datetime(2030, 1, 31, 12, tzinfo=UTC)


def send(field: Arena, task: str, *args: Any, slot: datetime = SLOT, fence: int = 1) -> None:
    """A message as a beat sends it."""
    app = celery.Celery("sender", broker=field.broker.url, set_as_current=False)
    headers = {"lockbeat_job": "job", "lockbeat_slot": slot.isoformat(), "lockbeat_fence": fence}
    app.send_task(task, args, task_id=task_id("job", slot), headers=headers)
    app.close()


def of(ran: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    return [line for line in ran if line["what"] == what]


@needs("valkey")
def test_the_second_message_is_dropped_and_others_run(field: Arena) -> None:
    worker = field.worker()
    for fence in (1, 2, 3):
        send(field, "record", "a", fence=fence)
    send(field, "record", "b", slot=SLOT.replace(hour=13))
    send(field, "bare", "c")
    send(field, "bare", "c")
    field.wait_ran(lambda ran: len(of(ran, "c")) == 2, "both that are not guarded")
    worker.says("came again, and is dropped")
    ran = field.wait_ran(lambda ran: of(ran, "b"), "the other slot")
    assert len(of(ran, "a")) == 1


@needs("valkey")
def test_a_retry_is_another_message(field: Arena) -> None:
    field.worker()
    send(field, "again", "a")
    send(field, "again", "a")
    ran = field.wait_ran(lambda ran: any(line["retries"] == 2 for line in ran), "the last try")
    assert sorted(line["retries"] for line in of(ran, "a")) == [0, 1, 2]


@needs("valkey")
def test_what_no_beat_has_sent_is_not_asked_after(field: Arena) -> None:
    field.conf["lockbeat_url"] = "redis://127.0.0.1:1"
    field.worker()
    app = celery.Celery("sender", broker=field.broker.url, set_as_current=False)
    for _ in range(2):
        app.send_task("record", ["by hand"], task_id="the same")
    app.close()
    field.wait_ran(lambda ran: len(of(ran, "by hand")) == 2, "both")


@needs("valkey")
def test_a_message_whose_worker_died_runs_when_it_comes_again(field: Arena) -> None:
    """It comes while the claim of the dead still stands: that looks as if another were at it."""
    workers = {worker.popen.pid: worker for worker in (field.worker("-P", "solo"), field.worker("-P", "solo"))}
    send(field, "mortal", "a", 3600.0)
    [began] = field.wait_ran(lambda ran: of(ran, "a begins"), "its begin")
    os.kill(began["pid"], signal.SIGKILL)
    send(field, "mortal", "a", 0.0)
    field.wait_ran(lambda ran: of(ran, "a ends"), "its end, by the other")
    [other] = [worker for pid, worker in workers.items() if pid != began["pid"]]
    assert "dropped" not in other.said


@needs("valkey")
def test_a_message_that_is_being_worked_on_is_dropped_though_its_work_is_long(field: Arena) -> None:
    worker = field.worker()
    send(field, "slow", "a", 7.0)  # more than three leases
    field.wait_ran(lambda ran: of(ran, "a begins"), "its begin")
    send(field, "slow", "a", 0.0)
    worker.says("came again, and is dropped")
    ran = field.wait_ran(lambda ran: of(ran, "a ends"), "its end")
    assert (len(of(ran, "a begins")), len(of(ran, "a ends"))) == (1, 1)


def test_it_can_be_said_of_a_function_and_of_a_task_and_called_by_hand() -> None:
    app = celery.Celery("test", broker="memory://", set_as_current=False)

    @once
    def plain(a: int, b: int = 2) -> int:
        return a + b

    @once(remember=60, lease=5)
    @app.task
    def task(a: int) -> int:
        return a * 2

    assert plain(1) == 3
    assert str(inspect.signature(plain)) == "(a: 'int', b: 'int' = 2) -> 'int'"
    assert task(4) == 8
    assert task.run(4) == 8
    assert task.apply(args=[4]).get() == 8
    with pytest.raises(TypeError):
        task.delay()


@pytest.mark.parametrize(("option", "value"), [("lease", 0.5), ("remember", 0), ("remember", "long")])
def test_a_wrong_option_is_named(option: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=option):
        once(**{option: value})
