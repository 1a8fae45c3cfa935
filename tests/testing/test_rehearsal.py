"""lockbeat.testing: time that a test moves, what comes due on the way, and what the ledger has of it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from lockbeat import Beat, Fixed, InvalidArgument, Lockbeat, LockbeatError, Run
from lockbeat.connection._memory import _servers
from lockbeat.testing import (
    assert_fired,
    assert_skipped,
    drain,
    fire,
    next_slots,
    rehearse,
    takes,
    travel,
)

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def beat() -> Beat:
    return Beat("redis://127.0.0.1:1", grace=1)  # nobody is there: what a program is made with is not asked


async def test_what_comes_due_on_the_way_runs_at_its_time_and_in_its_order(beat: Beat) -> None:
    seen = list[tuple[str, datetime, datetime]]()

    @beat.cron("0 9 * * *", timezone="Europe/Berlin")
    async def report(run: Run) -> None:
        seen.append(("report", run.slot, datetime.now(UTC)))

    @beat.every(timedelta(hours=8))
    def sweep(run: Run) -> None:
        seen.append(("sweep", run.slot, datetime.now(UTC)))

    async with rehearse(beat, at=NEW_YEAR) as rehearsal:
        await travel(beat, to="2027-01-02T08:00Z")
        assert [(slot.day, slot.hour) for name, slot, _ in seen if name == "report"] == [(1, 8), (2, 8)]
        assert [slot.hour for name, slot, _ in seen if name == "sweep"] == [8, 16, 0, 8]
        assert seen == sorted(seen, key=lambda one: one[1])
        assert all(slot <= at <= slot + timedelta(milliseconds=1) for _, slot, at in seen)
        assert rehearsal.now == datetime(2027, 1, 2, 8, tzinfo=UTC)
        assert datetime.now(UTC) - rehearsal.now < timedelta(milliseconds=1)
        assert (await assert_fired(report, "2027-01-01T08:00Z", state="done")).lateness == (0, 0, 0, 0)
        assert await next_slots("report", 2) == [datetime(2027, 1, day, 8, tzinfo=UTC) for day in (3, 4)]


async def test_everything_is_left_as_it_was(beat: Beat) -> None:
    before, threads = time.time(), threading.active_count()
    async with rehearse(beat, at="2031-01-01T00:00Z") as rehearsal:
        takes("never", 1)
        assert time.time() > before + 86_400
        assert rehearsal.url.removeprefix("memory://") in _servers
    assert abs(time.time() - before) < 3600
    assert threading.active_count() <= threads
    assert rehearsal.url.removeprefix("memory://") not in _servers
    assert beat.made_with is None
    with pytest.raises(LockbeatError, match=r"nothing is rehearsed: take the fixture lockbeat_beat"):
        await drain()


async def test_tasks_run_with_what_they_spawn_while_time_stands_still(beat: Beat) -> None:
    ran = list[int]()

    @beat.task
    async def count(run: Run) -> None:
        ran.append(run.params)
        if run.params:
            await beat.spawn(count, run.params - 1)

    async with rehearse(beat) as rehearsal:
        await beat.spawn(count, 3)
        await rehearsal.client.tasks.spawn("count", 0, delay=60)
        assert await drain() == 4
        assert ran == [3, 2, 1, 0]
        await travel(by=59)
        assert len(ran) == 4
        await travel(by=1)
        assert ran == [3, 2, 1, 0, 0]


async def test_what_fails_is_tried_again_at_its_time(beat: Beat) -> None:
    tried = list[float]()

    @beat.cron("0 0 * * *", max_attempts=3, retry=Fixed(90, jitter=0))
    def flaky(run: Run) -> None:
        tried.append(time.time())
        if run.attempt < 3:
            raise ConnectionError("the bank is away")

    async with rehearse(beat, at="2027-01-01T23:59Z"):
        await travel(by=61)
        with pytest.raises(
            AssertionError, match=r"it was fired, and is 'retrying', not 'done'.*ConnectionError: the bank is away"
        ):
            await assert_fired(flaky, "2027-01-02T00:00Z", state="done")
        await travel(by=300)
        assert (await assert_fired(flaky, "2027-01-02T00:00Z", state="done")).attempt == 3
        assert [round(later - sooner) for sooner, later in itertools.pairwise(tried)] == [90, 90]


async def test_one_slot_is_fired_be_it_to_come_or_past(beat: Beat) -> None:
    slots = list[datetime]()

    @beat.cron("0 9 * * mon-fri")
    async def report(run: Run) -> None:
        slots.append(run.slot)

    async with rehearse(beat, at=NEW_YEAR) as rehearsal:  # a Friday
        assert (await fire(report, "2026-12-31T09:00Z")).state == "done"
        assert (await fire(report, "2026-12-31T09:00Z")).state == "done"
        assert (await fire("report", "2027-01-01T09:00Z")).state == "done"
        assert [slot.day for slot in slots] == [31, 1]
        assert rehearsal.now.hour == 9
        with pytest.raises(InvalidArgument, match=r"slot: 2027-01-02 09:00:00\+00:00 is none of 'report'.*2027-01-04 09:00"):
            await fire(report, "2027-01-02T09:00Z")
        with pytest.raises(InvalidArgument, match=r"job: 'print' is no function of the beat that is rehearsed"):
            await fire(print, "2027-01-04T09:00Z")


async def test_an_assertion_says_what_the_ledger_says(beat: Beat) -> None:
    @beat.cron("0 9 * * *", overlap="skip")
    async def report() -> None: ...

    async with rehearse(beat, at=NEW_YEAR) as rehearsal:
        await drain()
        await rehearsal.client.jobs.pause("report", by="ann", reason="stocktaking")
        await travel(to="2027-01-02T00:00Z")
        with pytest.raises(AssertionError, match=r"it was not fired. .*by ann.*stocktaking. It is skipped if the job is resumed"):
            await assert_fired(report, "2027-01-01T09:00Z")
        assert (await assert_skipped(report, "2027-01-01T09:00Z", "paused")).code == "paused"
        await rehearsal.client.jobs.resume("report", by="ann")
        await assert_skipped(report, "2027-01-01T09:00Z", "by ann")
        with pytest.raises(AssertionError, match=r"it was skipped for 'paused', not for 'overlap'. .*skipped.*paused by ann"):
            await assert_skipped(report, "2027-01-01T09:00Z", "overlap")
        with pytest.raises(AssertionError, match=r"it was not skipped. .*has not come due"):
            await assert_skipped(report, "2027-01-02T09:00Z")
        await travel(to="2027-01-02T09:00Z")
        with pytest.raises(AssertionError, match=r"it was not skipped. report at 2027-01-02T09:00:00\+00:00: done"):
            await assert_skipped(report, "2027-01-02T09:00Z")


@pytest.mark.parametrize(
    ("options", "states"),
    [
        ({"overlap": "skip"}, ["done", "skipped", "done", "skipped"]),
        ({"overlap": "allow"}, ["done", "done", "done", "fired"]),
        ({"overlap": "buffer_one"}, ["done", "done", "fired", "fired"]),
        ({"overlap": "cancel_other"}, ["cancelled", "cancelled", "cancelled", "fired"]),
        ({"overlap": "skip", "timeout": 30}, ["failed", "failed", "failed", "failed"]),
    ],
)
async def test_a_job_takes_as_long_as_it_is_told(beat: Beat, options: dict[str, object], states: list[str]) -> None:
    beat.every(60, name="slow", **options)(lambda: None)  # type: ignore[arg-type]
    async with rehearse(beat, at="2027-01-01T00:00:30Z") as rehearsal:
        takes("slow", 90)
        await travel(by=4 * 60 + 10)
        entries = (await rehearsal.client.jobs.ledger("slow"))[::-1]
        assert [entry.state for entry in entries] == states
        if options == {"overlap": "skip"}:
            assert [entry.ended_at - entry.started_at for entry in entries if entry.ended_at and entry.started_at] == [90, 90]
            await assert_skipped("slow", "2027-01-01T00:02Z", "overlap")


async def test_a_lock_lasts_while_time_is_moved(beat: Beat) -> None:
    async with rehearse(beat) as rehearsal, rehearsal.client.lock("report", ttl=5) as lease:
        await travel(by=3600)
        [held] = await rehearsal.client.locks.list()
        assert held.fence == lease.fence
        assert held.expires_at == pytest.approx(rehearsal.now.timestamp() + 5)


async def test_a_function_that_does_not_end_is_told_of(beat: Beat) -> None:
    never = asyncio.Event()

    @beat.every(60)
    async def stuck() -> None:
        await never.wait()

    async with rehearse(beat, patience=0.2):
        with pytest.raises(AssertionError, match=r"(?s)stuck@\d+ \(stuck\) still runs after 0.2 s.*`takes`.*never.wait"):
            await travel(by=60)


async def test_more_slots_than_expected_are_told_of(beat: Beat) -> None:
    beat.every(1, name="tick")(lambda: None)
    async with rehearse(beat):
        with pytest.raises(AssertionError, match=r"6 slots have come due on the way.*begin later, with at="):
            await travel(by=60, most=5)


async def test_time_goes_forward_and_nobody_else_moves_it(beat: Beat) -> None:
    async with rehearse(beat, at=NEW_YEAR):
        with pytest.raises(InvalidArgument, match=r"to: 2026-.* comes before 2027-.*time does not go back"):
            await travel(beat, to="2026-12-31T00:00Z")
        for given in ({}, {"to": NEW_YEAR, "by": 1}):
            with pytest.raises(InvalidArgument, match=r"to: say either to when, or by how long"):
                await travel(beat, **given)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=r"to: 'tomorrow' is no instant; write it as"):
            await travel(beat, to="tomorrow")
        with pytest.raises(InvalidArgument, match=r"has no time zone"):
            await travel(beat, to="2027-01-02T00:00")
        with time_machine.travel(0), pytest.raises(RuntimeError, match=r"something else in this test moves time"):
            await travel(beat, by=1)
        with pytest.raises(LockbeatError, match=r"this beat is not the one that is rehearsed"):
            await travel(Beat(), by=1)


async def test_what_is_declared_later_is_there_as_after_a_deploy(beat: Beat) -> None:
    async with rehearse(beat, at=NEW_YEAR):
        await drain()
        beat.every(60, name="late")(lambda: None)
        await travel(by=60)
        await assert_fired("late", NEW_YEAR + timedelta(minutes=1), state="done")


async def test_the_programs_lifespan_surrounds_what_runs() -> None:
    said = list[str]()

    @asynccontextmanager
    async def life(_: Beat) -> AsyncIterator[str]:
        said.append("open")
        yield "a pool"
        said.append("closed")

    beat = Beat(lifespan=life)

    @beat.every(60)
    async def job(run: Run) -> None:
        said.append(run.state)

    async with rehearse(beat):
        await travel(by=60)
    assert said == ["open", "a pool", "closed"]


async def test_a_beat_made_with_a_client_has_it_back() -> None:
    mine = Lockbeat("memory://mine")
    beat = Beat(mine)
    async with rehearse(beat):
        await drain()
        assert not mine.is_open
    assert beat.made_with is mine


async def test_a_schedule_is_proved_over_a_change_of_the_clock(beat: Beat) -> None:
    beat.cron("30 2 * * *", timezone="Europe/Berlin", name="nightly")(lambda: None)
    async with rehearse(beat, at="2027-03-25T12:00Z") as rehearsal:
        await travel(to="2027-03-31T12:00Z")
        entries = (await rehearsal.client.jobs.ledger("nightly"))[::-1]
        assert [(entry.slot.day, entry.slot.hour, entry.state) for entry in entries] == [
            *((26, 1, "done"), (27, 1, "done"), (28, 1, "done"), (29, 0, "done"), (30, 0, "done"), (31, 0, "done"))
        ]
        await assert_fired("nightly", "2027-03-28T01:00Z")  # 02:30 did not exist


async def test_a_job_may_sleep_though_time_stands_still(beat: Beat) -> None:
    @beat.every(60)
    async def nap() -> None:
        await asyncio.sleep(0.01)

    async with rehearse(beat, at=NEW_YEAR) as rehearsal:
        await travel(by=60)
        entry = await assert_fired(nap, NEW_YEAR + timedelta(minutes=1), state="done")
        assert entry.ended_at == rehearsal.now.timestamp()


async def test_the_programs_hooks_are_told(beat: Beat) -> None:
    told = list[tuple[str, datetime]]()
    beat.every(60, name="tick")(lambda: None)
    beat.events.slot_fired.at_once(lambda event: told.append((event.job, event.slot)))
    async with rehearse(beat, at=NEW_YEAR):
        await travel(by=60)
    assert told == [("tick", NEW_YEAR + timedelta(minutes=1))]
