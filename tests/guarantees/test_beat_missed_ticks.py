"""Missed ticks and daylight saving, by moving the time and not by waiting: `memory://` follows the process' clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine

from lockbeat import Lockbeat
from lockbeat.jobs import Job, plan
from lockbeat.triggers import At, Cron, Every
from tests.beats import Hands, ledger, scheduler
from tests.conftest import only

pytestmark = only("memory")

BERLIN = ZoneInfo("Europe/Berlin")


class Clockwork:
    """One instance whose time goes from one thing to do to the next."""

    def __init__(self, lb: Lockbeat, job: Job, clock: Any) -> None:
        self.lb = lb
        self.job = job
        self.hands = Hands(job.name)
        self.beat = scheduler(lb, job, runner=self.hands)
        self.move_to: Callable[[datetime], None] = clock.move_to
        self.ran: list[tuple[datetime, datetime]] = []
        """Slot, and when it was fired."""

    async def turn(self) -> datetime | None:
        """One tick, and all work done at once. When to look again."""
        again = await self.beat.tick(0)
        now = datetime.now(UTC)
        for task in self.hands.tasks:
            assert task.slot_ms is not None
            self.ran.append((datetime.fromtimestamp(task.slot_ms / 1000, UTC), now))
            assert await self.lb.tasks.complete(task)
        self.hands.tasks.clear()
        return None if again is None else now + timedelta(seconds=again)

    async def run(self, until: datetime) -> None:
        """Sleep as long as it is told to, and not a moment longer, until that time."""
        while (wake := await self.turn()) is not None and wake <= until:
            self.move_to(wake + timedelta(milliseconds=1))
        self.move_to(until)

    @property
    def local(self) -> list[str]:
        """The slots as clocks in Berlin showed them."""
        return [slot.astimezone(BERLIN).strftime("%d %H:%M %Z") for slot, _ in self.ran]


async def clockwork(lb: Lockbeat, job: Job, clock: Any) -> Clockwork:
    made = Clockwork(lb, job, clock)
    await made.beat.register()
    return made


def berlin(day: int, month: int, hour: int) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=BERLIN).astimezone(UTC)


async def test_a_time_that_comes_twice_fires_the_first_time_only(lb: Lockbeat) -> None:
    with time_machine.travel(berlin(24, 10, 12), tick=False) as clock:
        beat = await clockwork(lb, Job.declare("job", Cron("30 2 * * *", BERLIN)), clock)
        await beat.run(berlin(26, 10, 12))
    assert beat.local == ["25 02:30 CEST", "26 02:30 CET"]


async def test_a_time_that_is_skipped_fires_right_after_the_gap(lb: Lockbeat) -> None:
    with time_machine.travel(berlin(28, 3, 12), tick=False) as clock:
        beat = await clockwork(lb, Job.declare("job", Cron("30 2 * * *", BERLIN)), clock)
        await beat.run(berlin(30, 3, 12))
    assert beat.local == ["29 03:00 CEST", "30 02:30 CEST"]


async def test_every_half_hour_follows_real_time_through_the_fold(lb: Lockbeat) -> None:
    with time_machine.travel(berlin(25, 10, 0), tick=False) as clock:
        beat = await clockwork(lb, Job.declare("job", Cron("*/30 * * * *", BERLIN)), clock)
        await beat.run(berlin(26, 10, 0) + timedelta(seconds=1))
    slots = [slot for slot, _ in beat.ran]
    assert len(slots) == 50
    assert {b - a for a, b in zip(slots, slots[1:], strict=False)} == {timedelta(minutes=30)}  # noqa: RUF007


async def test_every_slot_of_a_day_is_fired_on_time_and_the_ledger_has_each(lb: Lockbeat) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        beat = await clockwork(lb, Job.declare("job", Every(300), keep=1000), clock)
        await beat.run(start + timedelta(days=1, seconds=1))
        found = await ledger(lb, "job")
    assert [slot for slot, _ in beat.ran] == [start + timedelta(minutes=5 * number) for number in range(1, 289)]
    assert max(at - slot for slot, at in beat.ran) <= timedelta(milliseconds=2)
    assert [(entry.slot, entry.state) for entry in found] == [(slot, "done") for slot, _ in beat.ran]


@pytest.mark.parametrize("days", [0.1, 3, 400])
async def test_after_an_outage_latest_fires_once_and_goes_on(lb: Lockbeat, days: float) -> None:
    start = datetime(2026, 5, 1, 0, 10, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        beat = await clockwork(lb, Job.declare("job", Cron("0 * * * *")), clock)
        await beat.turn()
        back = start + timedelta(days=days)
        beat.move_to(back)
        await beat.turn()
        latest = back.replace(minute=0)
        assert [slot for slot, _ in beat.ran] == [latest]
        await beat.run(back + timedelta(hours=1))
        assert [slot for slot, _ in beat.ran] == [latest, latest + timedelta(hours=1)]
        missed = (await ledger(lb, "job"))[0]
    assert missed.slot == start.replace(hour=1, minute=0)
    assert missed.last_ms == (latest - timedelta(hours=1)).timestamp() * 1000
    hours = (latest - missed.slot) / timedelta(hours=1)
    assert missed.count == (hours if hours < 1000 else -1)


@pytest.mark.parametrize(("late", "fires"), [(0, True), (9.9, True), (10, True), (10.001, False), (1000, False)])
async def test_catchup_skip_fires_what_is_at_most_ten_seconds_late(lb: Lockbeat, late: float, fires: bool) -> None:
    slot = datetime(2026, 5, 1, 1, tzinfo=UTC)
    with time_machine.travel(slot - timedelta(minutes=1), tick=False) as clock:
        beat = await clockwork(lb, Job.declare("job", Cron("0 * * * *"), catchup="skip"), clock)
        beat.move_to(slot + timedelta(seconds=late))
        await beat.turn()
        assert bool(beat.ran) is fires
        [entry] = await ledger(lb, "job")
        assert entry.state == ("done" if fires else "missed")
        await beat.run(slot + timedelta(hours=1, seconds=1))
    assert beat.ran[-1][0] == slot + timedelta(hours=1)


async def test_jitter_holds_back_and_never_to_the_next_slot(lb: Lockbeat) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        job = Job.declare("job", Every(60), jitter=120)
        beat = await clockwork(lb, job, clock)
        await beat.run(start + timedelta(hours=2))
    assert [slot for slot, _ in beat.ran[:3]] == [start + timedelta(minutes=number) for number in (1, 2, 3)]
    delays = [round((at - slot).total_seconds() * 1000) for slot, at in beat.ran]
    assert all(0 <= delay < 60_000 for delay in delays)
    assert max(delays) - min(delays) > 30_000
    for (slot, _), delay in zip(beat.ran, delays, strict=True):
        ms = round(slot.timestamp() * 1000)
        assert abs(slot.timestamp() * 1000 + delay - plan.due(job, ms, ms + 60_000)) <= 2


async def test_a_server_clock_that_steps_back_fires_nothing_again(lb: Lockbeat) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        beat = await clockwork(lb, Job.declare("job", Every(60)), clock)
        await beat.run(start + timedelta(minutes=5, seconds=1))
        beat.move_to(start + timedelta(minutes=2))
        await beat.run(start + timedelta(minutes=7, seconds=1))
        found = await ledger(lb, "job")
    assert [slot for slot, _ in beat.ran] == [start + timedelta(minutes=number) for number in range(1, 8)]
    assert [entry.slot for entry in found if entry.state == "done"] == [slot for slot, _ in beat.ran]
    [anchored] = [entry for entry in found if entry.state == "anchored"]
    assert anchored.reason == "the server's clock was set back: its next slot stood at 2026-05-01T00:06:00+00:00"


@pytest.mark.parametrize("restart", ["none", "instance", "declares others"])
@pytest.mark.parametrize("jitter", [0, 20])
async def test_a_clock_that_was_years_ahead_while_a_job_fired_silences_nothing(
    lb: Lockbeat, caplog: pytest.LogCaptureFixture, restart: str, jitter: int
) -> None:
    start, ahead = datetime(2026, 5, 1, tzinfo=UTC), datetime(2036, 5, 1, 0, 0, 30, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        beat = await clockwork(lb, Job.declare("job", Every(60), jitter=jitter), clock)
        await beat.run(start + timedelta(minutes=3, seconds=1))
        beat.move_to(ahead)
        await beat.run(ahead + timedelta(minutes=2))
        assert {slot.year for slot, _ in beat.ran} == {2026, 2036}
        beat.move_to(start + timedelta(minutes=5, seconds=40))
        before = len(beat.ran)
        if restart == "instance":
            beat.beat = scheduler(lb, beat.job, runner=beat.hands)
            await beat.beat.register()
        elif restart == "declares others":
            beat.beat = scheduler(lb, Job.declare("other", Every(86_400)), runner=beat.hands)
            await beat.beat.register()
        await beat.run(start + timedelta(minutes=9, seconds=59))
        found = await ledger(lb, "job")
    assert [slot for slot, _ in beat.ran[before:]] == [start + timedelta(minutes=number) for number in (6, 7, 8, 9)]
    assert "clock was set back" in caplog.text
    assert [entry.state for entry in found].count("anchored") == 1
    assert found[-1].slot == start + timedelta(minutes=9), "the newest are those of today"


async def test_a_job_hidden_by_an_instance_that_died_while_the_clock_was_wrong_is_due_again(lb: Lockbeat) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        beat = await clockwork(lb, Job.declare("job", Every(60)), clock)
        beat.move_to(start + timedelta(days=3650))
        await lb.store.call("beat/due", 0, limit=10, hide_ms=300, seen="")
        beat.move_to(start + timedelta(seconds=50))
        await beat.run(start + timedelta(minutes=2, seconds=1))
    assert [slot for slot, _ in beat.ran] == [start + timedelta(minutes=number) for number in (1, 2)]


async def test_the_ledger_keeps_todays_entries_though_it_is_full_of_those_of_another_decade(lb: Lockbeat) -> None:
    start = datetime(2036, 5, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        beat = await clockwork(lb, Job.declare("job", Every(60), keep=5), clock)
        await beat.run(start + timedelta(minutes=12))
        back = datetime(2026, 5, 1, 0, 0, 30, tzinfo=UTC)
        beat.move_to(back)
        await beat.run(back + timedelta(minutes=20))
        found = await lb.jobs.ledger("job", 5)
    assert [entry.slot for entry in found] == [back.replace(minute=minute, second=0) for minute in (20, 19, 18, 17, 16)]


async def test_a_yearly_job_that_is_not_astray_stays_where_it_is(lb: Lockbeat) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        yearly, job = Job.declare("yearly", Cron("0 0 1 1 *")), Job.declare("job", Every(60))
        beat = await clockwork(lb, job, clock)
        await lb.jobs.put(yearly)
        beat.move_to(start + timedelta(minutes=30))
        await beat.turn()
        beat.move_to(start + timedelta(minutes=10))
        await beat.run(start + timedelta(minutes=40))
        state = await lb.jobs.get("yearly")
        assert state.next is not None
        assert state.next.slot_ms == datetime(2027, 1, 1, tzinfo=UTC).timestamp() * 1000
        assert await ledger(lb, "yearly") == []


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("late", [0, 30, 60 * 24])
async def test_a_slot_by_old_rules_of_its_zone_is_not_fired_but_the_one_in_its_place_once(
    lb: Lockbeat, raw: Any, declared: bool, late: int
) -> None:
    """Almaty went from +06 to +05 in 2024: nine o'clock is 04:00Z, where old rules said 03:00Z."""
    start = datetime(2026, 5, 1, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        job = Job.declare("job", Cron("0 9 * * *", "Asia/Almaty"))
        beat = await clockwork(lb, job, clock)
        stored = round(start.replace(hour=3).timestamp() * 1000)
        raw.hset(lb.store.keys.key(0, "job:slot"), "job", f"{stored} {stored} {job.rev} 2023c")
        raw.zadd(lb.store.keys.key(0, "job:due"), {"job": stored})
        if declared:
            await beat.beat.register()
        else:
            beat.move_to(start.replace(hour=3) + timedelta(minutes=late))
        await beat.run(start + timedelta(days=2, hours=2))
        found = await ledger(lb, "job")
    slots = [slot for slot, _ in beat.ran]
    assert slots == [datetime(2026, 5, day, 4, tzinfo=UTC) for day in (1, 2)]
    [anchored] = [entry for entry in found if entry.state == "anchored"]
    assert anchored.reason is not None
    assert anchored.reason.startswith("2026-05-01T03:00:00+00:00 is no slot any more: the rules of its time zone changed")
    assert "tzdata 2023c then" in anchored.reason


async def test_a_slot_by_newer_rules_than_ours_is_left_as_it_is(lb: Lockbeat, raw: Any) -> None:
    """Two instances that do not agree must not put the slot out of each other's way for ever."""
    start = datetime(2026, 5, 1, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        job = Job.declare("job", Cron("0 9 * * *", "Asia/Almaty"))
        beat = await clockwork(lb, job, clock)
        stored = round(start.replace(hour=2).timestamp() * 1000)
        raw.hset(lb.store.keys.key(0, "job:slot"), "job", f"{stored} {stored} {job.rev} 2099a")
        raw.zadd(lb.store.keys.key(0, "job:due"), {"job": stored})
        await beat.beat.register()
        await beat.run(start.replace(hour=2, minute=1))
    assert [slot.hour for slot, _ in beat.ran] == [2]


async def test_a_slot_that_the_new_rules_put_earlier_is_fired_at_once(lb: Lockbeat, raw: Any) -> None:
    start = datetime(2026, 5, 1, 4, 30, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        job = Job.declare("job", Cron("0 9 * * *", "Asia/Almaty"))
        beat = await clockwork(lb, job, clock)
        stored = round(start.replace(hour=5).timestamp() * 1000)
        raw.hset(lb.store.keys.key(0, "job:slot"), "job", f"{stored} {stored} {job.rev} 2023c")
        raw.zadd(lb.store.keys.key(0, "job:due"), {"job": stored})
        await beat.beat.register()
        await beat.run(start + timedelta(days=1))
    assert [slot for slot, _ in beat.ran] == [datetime(2026, 5, day, 4, tzinfo=UTC) for day in (1, 2)]


async def test_an_at_job_that_ended_is_forgotten_after_a_week(lb: Lockbeat, raw: Any) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        at = start + timedelta(hours=1)
        beat = await clockwork(lb, Job.declare("job", At(at)), clock)
        await lb.jobs.put(Job.declare("past", At(start - timedelta(days=1))))
        await beat.run(start + timedelta(days=7, minutes=1))
        assert [slot for slot, _ in beat.ran] == [at]
        assert [(state.job.name, state.next) for state in await lb.jobs.list()] == [("job", None)]
        assert [entry.state for entry in await ledger(lb, "job")] == ["done"]
        await beat.run(start + timedelta(days=8))
        assert await lb.jobs.list() == []
        assert await ledger(lb, "job") == []
        for name in ("job", "job:order", "job:due", "ledger", "ledger:order"):
            assert not raw.exists(lb.store.keys.key(0, name)), name
        assert raw.hkeys(lb.store.keys.key(0, "job:slot")) == [b""]
