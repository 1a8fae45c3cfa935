"""A pause over days that calendars exclude: what is resumed, and what is said of it, is what is fired."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.calendars import read_view
from lockbeat.jobs import Job
from lockbeat.jobs.control import way_on
from lockbeat.store import results
from lockbeat.triggers import Every
from tests.beats import drain, ledger, now_ms, overdue, scheduler
from tests.conftest import only
from tests.guarantees.test_excluded_slots import DAY, day
from tests.tasks import NOON, stopped


@only("memory")
async def test_the_latest_of_a_pause_is_one_that_is_not_excluded(lb: Lockbeat) -> None:
    with stopped() as to:
        job = Job.declare("report", Every(600), exclude=["holidays"])
        await lb.jobs.put(job)
        await lb.jobs.pause("report")
        await lb.calendars.put("holidays", [day(1), day(2)])
        to(NOON + 2 * DAY)
        resumed = await lb.jobs.resume("report", "latest")
        latest = NOON + DAY - 600
        assert resumed is not None
        assert (resumed.skipped, resumed.next_slot) == (142, datetime.fromtimestamp(latest, UTC))
        await drain(scheduler(lb, job))
        entries = [
            (entry.slot.timestamp() - latest, entry.state, entry.code, entry.count) for entry in await ledger(lb, "report")
        ]
    assert sorted(entries) == [
        (-142 * 600, "skipped", "paused", 142),
        (0, "fired", "fired", None),
        (600, "skipped", "excluded", 144),
        (600 + DAY, "skipped", "excluded", 1),
    ]


@only("memory")
@pytest.mark.parametrize(("catchup", "first"), [("skip", 2 * DAY), ("latest", -3600), ("all", 3600 - DAY)])
async def test_the_slot_that_a_resume_names_is_the_first_that_is_fired(lb: Lockbeat, catchup: Any, first: int) -> None:
    """It is paused from the day before on; today and tomorrow are excluded."""
    with stopped() as to:
        to(NOON - DAY)
        job = Job.declare("report", Every(3600), exclude=["closing"], catchup="all", cap=1000, overlap="allow")
        await lb.jobs.put(job)
        await lb.jobs.pause("report")
        await lb.calendars.put("closing", [day(0), day(1)], until=date(2100, 1, 1))
        to(NOON + 40_000)
        would = await lb.jobs.resume("report", catchup, dry_run=True)
        resumed = await lb.jobs.resume("report", catchup)
        assert would == resumed
        assert resumed is not None
        assert resumed.next_slot == datetime.fromtimestamp(NOON + first, UTC)
        await drain(scheduler(lb, job))
        if catchup == "skip":
            to(NOON + first)
            await drain(scheduler(lb, job))
        fired_at = [entry.slot for entry in await ledger(lb, "report") if entry.state == "fired"]
        assert fired_at[0] == resumed.next_slot


@only("memory", "valkey")
async def test_a_resume_by_a_calendar_that_has_changed_since_is_worked_out_anew(lb: Lockbeat, raw: Any) -> None:
    """Else the slot that it fires could be one that is excluded by now."""
    job = Job.declare("report", Every(60), exclude=["closing"])
    slot = await overdue(lb, raw, job, back=3)
    shard, today = lb.jobs.shard_of("report"), datetime.fromtimestamp(slot / 1000, UTC).date()
    assert await lb.jobs.pause("report")
    await lb.calendars.put("closing", [today + timedelta(50)])
    known = await lb.jobs._standing("report")
    view = await read_view(lb.store, shard, job.exclude, "UTC")
    way = way_on(known.job, known.place, await now_ms(lb), "latest", view.closed)
    row = lb.jobs._resuming(known, way, "anna", view)
    await lb.calendars.put("closing", [today - timedelta(1), today, today + timedelta(1)])
    assert await lb.store.call_row(row, shard) == results.TOO_LATE
    assert (await lb.jobs.get("report")).paused
    assert await ledger(lb, "report") == []
    resumed = await lb.jobs.resume("report", "latest")
    assert resumed is not None
    assert resumed.next_slot is not None
    assert resumed.next_slot.date() == today + timedelta(2)
