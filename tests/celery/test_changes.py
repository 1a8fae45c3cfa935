"""Entries that change while a beat runs, and those that leave the code: as a deploy, by the rules of docs/deploys.md."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import celery
import click
import pytest

from lockbeat import Cron, Every, Lockbeat
from lockbeat.celery import Scheduler
from lockbeat.celery.sending import SOCKET_TIMEOUT, Sender
from tests.conftest import only
from tests.deploys import pass_for_versions

pytestmark = only("valkey")


@pytest.fixture
def app(url: str, namespace: str) -> celery.Celery:
    app = celery.Celery("changes", broker=url, set_as_current=False)
    app.conf.update(lockbeat_namespace=namespace, beat_schedule={"a": entry(3600), "b": entry(7200)})
    return app


@pytest.fixture
def beat(app: celery.Celery) -> Iterator[Scheduler]:
    """As Celery makes and closes one."""
    made = Scheduler(app)
    yield made
    made.close()
    made.close()


def entry(period: float, **more: Any) -> dict[str, Any]:
    return {"task": "proj.task", "schedule": period, **more}


async def stands(lb: Lockbeat) -> dict[str, Any]:
    return {state.job.name: state for state in await lb.jobs.list() if state.job.name != "celery.backend_cleanup"}


async def becomes(lb: Lockbeat, names: set[str]) -> dict[str, Any]:
    """The jobs, when there are these."""
    for _ in range(600):
        if (found := await stands(lb)).keys() == names:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{names} never came about: {found.keys()}")


async def test_entries_are_jobs_of_the_code(beat: Scheduler, lb: Lockbeat) -> None:
    assert 0 < await asyncio.to_thread(beat.tick) <= 5
    found = await becomes(lb, {"a", "b"})
    assert {state.job.origin for state in found.values()} == {"code"}
    assert found["a"].job.trigger == Every(3600)
    [cleanup] = [state.job for state in await lb.jobs.list() if state.job.name == "celery.backend_cleanup"]
    assert cleanup.trigger == Cron("0 4 * * *")


async def test_one_that_is_added_or_changed_is_served_at_the_next_look(beat: Scheduler, app: celery.Celery, lb: Lockbeat) -> None:
    await asyncio.to_thread(beat.tick)
    before = (await becomes(lb, {"a", "b"}))["a"]

    @app.task(name="proj.other")
    def other() -> None: ...

    app.add_periodic_task(celery.schedules.crontab(minute=5), other.s(7), name="c")
    app.conf.beat_schedule["b"] = entry(60, args=[1])
    await asyncio.to_thread(beat.tick)
    found = await becomes(lb, {"a", "b", "c"})
    assert found["a"] == before
    assert (found["b"].job.trigger, found["b"].job.params) == (Every(60), {"task": "proj.task", "args": [1]})
    assert (found["c"].job.trigger, found["c"].job.params) == (Cron("5 * * * *"), {"task": "proj.other", "args": [7]})


async def test_one_that_leaves_retires_when_no_beat_has_it_any_more(
    beat: Scheduler, app: celery.Celery, lb: Lockbeat, raw: Any
) -> None:
    await asyncio.to_thread(beat.tick)
    await becomes(lb, {"a", "b"})
    del app.conf.beat_schedule["b"]
    await asyncio.to_thread(beat.tick)
    await asyncio.to_thread(beat.tick)
    assert (await stands(lb))["b"].state == "scheduled", "ten minutes, in which another beat may still have it"
    pass_for_versions(raw, lb, 700)
    for _ in range(1200):
        if (await stands(lb))["b"].state == "retired":
            break
        await asyncio.sleep(0.05)
    found = await stands(lb)
    assert (found["a"].state, found["b"].state) == ("scheduled", "retired")


async def test_what_a_scheduler_of_somebodys_own_puts_in_stays(beat: Scheduler, app: celery.Celery, lb: Lockbeat) -> None:
    beat.add(name="mine", task="proj.task", schedule=30)
    app.conf.beat_schedule["d"] = entry(30)
    await asyncio.to_thread(beat.tick)
    await becomes(lb, {"a", "b", "d", "mine"})


async def test_a_change_that_can_not_be_a_job_leaves_all_as_it_was(
    beat: Scheduler, app: celery.Celery, lb: Lockbeat, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(beat.tick)
    await becomes(lb, {"a", "b"})
    app.conf.beat_schedule["b"] = entry(0)
    await asyncio.to_thread(beat.tick)
    assert "entries have changed, but stay as they were: period: of entry 'b' must be" in caplog.text
    assert (await stands(lb))["b"].job.trigger == Every(7200)
    app.conf.beat_schedule["b"] = entry(60)
    await asyncio.to_thread(beat.tick)
    await becomes(lb, {"a", "b"})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"a": entry(60, enabled=False)}, "entry 'a': TypeError: .*'enabled'"),
        ({"a": entry(float("inf"))}, "entry 'a': OverflowError"),
        ([entry(60)], "must be a dict of entries by their names, not a list"),
    ],
)
async def test_a_change_that_celery_can_not_read_ends_no_beat(
    beat: Scheduler, app: celery.Celery, lb: Lockbeat, caplog: pytest.LogCaptureFixture, wrong: Any, said: str
) -> None:
    """Nor do those of the other hosts, which see the same change."""
    await asyncio.to_thread(beat.tick)
    before = await becomes(lb, {"a", "b"})
    app.conf.beat_schedule = wrong
    for _ in range(2):
        await asyncio.to_thread(beat.tick)
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert re.search(f"entries have changed, but stay as they were: beat_schedule: {said}", told)
    assert await stands(lb) == before
    with pytest.raises(click.ClickException, match=said):
        Scheduler(app, lazy=True)


def test_a_broker_that_hangs_is_given_up_where_it_is_one_of_a_list_as_well(url: str) -> None:
    for broker in (url, [url], f"{url};{url}"):
        app = celery.Celery("several", broker=broker, set_as_current=False)
        producer = Sender(app, "several", {})._made()
        assert producer.connection.transport_options["socket_timeout"] == SOCKET_TIMEOUT
        producer.connection.release()


async def test_an_entry_that_is_changed_within_is_served_as_well(beat: Scheduler, app: celery.Celery, lb: Lockbeat) -> None:
    app.conf.beat_schedule["a"]["args"] = [1]
    await asyncio.to_thread(beat.tick)
    await becomes(lb, {"a", "b"})
    app.conf.beat_schedule["b"]["schedule"] = 60
    app.conf.beat_schedule["a"]["args"].append(2)
    await asyncio.to_thread(beat.tick)
    async with asyncio.timeout(60):
        while (found := await stands(lb))["b"].job.trigger != Every(60):
            await asyncio.sleep(0.05)
    assert found["a"].job.params["args"] == [1, 2]
