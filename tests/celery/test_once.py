"""`once`, in real workers: a message that comes twice runs once."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import celery
import pytest
from celery import current_app
from celery.exceptions import Reject

from lockbeat.celery import once, task_id
from lockbeat.celery.once import _clients
from tests.celery.arena import Arena
from tests.conftest import needs, only
from tests.servers import standalone, valkey_binary

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


@pytest.fixture
def app(url: str, namespace: str) -> Iterator[celery.Celery]:
    before = current_app._get_current_object()
    app = celery.Celery("test", broker="memory://", set_as_current=True)
    app.conf.update(lockbeat_url=url, lockbeat_namespace=namespace, lockbeat_timeout=0.5)
    yield app
    before.set_current()
    while _clients:  # a worker has them until it ends; their threads would go on trying to reach a store that is gone
        _clients.popitem()[1].close()


def deliver(task: Any) -> Any:
    """As a worker runs a message of a beat's, here; always the same one."""
    return task.apply(task_id="the same", headers={"lockbeat_job": "job"})


@only("memory", "valkey")
def test_a_message_is_known_by_its_slot_where_its_entry_gives_all_one_id(app: celery.Celery) -> None:
    ran = list[str]()

    @app.task
    @once
    def counted(which: str) -> None:
        ran.append(which)

    for which in ("first", "first", "second"):
        counted.apply([which], task_id="mine", headers={"lockbeat_job": "job", "lockbeat_message": which})
    assert ran == ["first", "second"]


@only("memory", "valkey")
@pytest.mark.parametrize(("requeue", "runs"), [(True, 2), (False, 1)])
def test_a_message_that_the_function_puts_back_runs_when_it_comes_again(app: celery.Celery, requeue: bool, runs: int) -> None:
    ran: list[str] = []

    @app.task
    @once
    def put_back() -> None:
        ran.append("again")
        raise Reject("not yet", requeue=requeue)

    for _ in range(2):
        deliver(put_back)
    assert len(ran) == runs


@only("valkey")
def test_what_has_run_is_done_though_the_store_went_away_meanwhile(app: celery.Celery, caplog: pytest.LogCaptureFixture) -> None:
    with standalone(valkey_binary()) as store:
        app.conf.lockbeat_url = store.url

        @app.task
        @once
        def report(fail: bool) -> str:
            store.kill()
            if fail:
                raise ValueError("no such customer")
            return "sent"

        assert report.apply(args=[False], task_id="a", headers={"lockbeat_job": "job"}).get() == "sent"
        assert "may again if it comes again" in caplog.text
        store.start()
        with pytest.raises(ValueError, match="no such customer"):
            report.apply(args=[True], task_id="b", headers={"lockbeat_job": "job"}).get()


@pytest.mark.parametrize(("option", "value"), [("lease", 0.5), ("remember", 0), ("remember", "long")])
def test_a_wrong_option_is_named(option: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=option):
        once(**{option: value})
