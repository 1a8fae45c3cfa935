"""Pause, resume, skip what comes next: no slot of the pause is fired, each has its reason, and nothing floods afterwards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import LockbeatError
from lockbeat.jobs import Change, Job, Resumed
from lockbeat.triggers import At, ByHand, Cron, Every
from lockbeat.values.durations import instant
from tests.beats import Hands, ledger, scheduler
from tests.conftest import only
from tests.tasks import NOON, stopped

here_and_there = only("memory", "valkey", "redis")
MINUTE = 60_000


def at(seconds: float) -> datetime:
    """So many seconds after noon."""
    return datetime.fromtimestamp(NOON + seconds, UTC)


class Fleet:
    """Some instances of one program on a clock that the test moves; what they fire is done at once."""

    def __init__(self, lb: Lockbeat, to: Callable[[float], None], *jobs: Job, instances: int = 2) -> None:
        self.lb, self.to, self.hands = lb, to, Hands(*(job.name for job in jobs))
        self.beats = [scheduler(lb, *jobs, runner=self.hands) for _ in range(instances)]
        self.ran: list[int] = []
        """Slots, in seconds after noon."""

    async def declare(self) -> None:
        for beat in self.beats:
            await beat.register()

    async def until(self, seconds: int, begin: int = 0) -> None:
        """Every second of it all of them look."""
        for second in range(begin, seconds + 1):
            self.to(NOON + second)
            await self.turn()

    async def turn(self) -> None:
        for beat in (*self.beats, *self.beats):  # whoever resumes a job looks again at once
            await beat.tick(0)
            for task in self.hands.tasks:
                assert task.slot_ms is not None
                self.ran.append(round(task.slot_ms / 1000 - NOON))
                assert await self.lb.tasks.complete(task)
            self.hands.tasks.clear()


async def told(lb: Lockbeat, name: str = "report") -> list[tuple[str, int, int, int, str]]:
    """Of each line of the ledger its state, first and last slot in seconds after noon, how many it stands for, and why."""
    return [
        (
            entry.state,
            round(entry.slot_ms / 1000 - NOON),
            round((entry.last_ms or entry.slot_ms) / 1000 - NOON),
            entry.count or 1,
            entry.reason or "",
        )
        for entry in await ledger(lb, name)
    ]


def done(*slots: int) -> list[tuple[str, int, int, int, str]]:
    return [("done", slot, slot, 1, "") for slot in slots]


@only("memory")
async def test_a_resume_floods_nothing_as_in_kestra_pr15116(lb: Lockbeat) -> None:
    """kestra PR15116: after a pause of two hours its 7,200 slots were caught up with. Here they are one line."""
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(1)))
        await fleet.declare()
        await fleet.until(2, 1)
        assert await lb.jobs.pause("report", "maintenance", by="anna")
        await fleet.until(10, 3)
        to(NOON + 7202.5)
        await fleet.turn()
        assert fleet.ran == [1, 2]
        before = await told(lb)
        resumed = await lb.jobs.resume("report", by="anna")
        assert resumed == Resumed("report", -1, at(3), at(7202), at(7203))
        await fleet.until(7205, 7203)
        assert before == done(1, 2)
        assert fleet.ran == [1, 2, 7203, 7204, 7205]
        skipped = ("skipped", 3, 7202, -1, "paused by anna: maintenance")
        assert await told(lb) == [*done(1, 2), skipped, *done(7203, 7204, 7205)]


@only("memory")
async def test_a_pause_of_a_million_slots_is_one_line(lb: Lockbeat) -> None:
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(0.01)), instances=1)
        await fleet.declare()
        await lb.jobs.pause("report", by="anna")
        to(NOON + 10_000)
        resumed = await lb.jobs.resume("report", by="anna")
        assert resumed is not None
        assert (resumed.skipped, resumed.next_slot) == (-1, at(10_000.01))
        [entry] = await ledger(lb, "report")
    assert (entry.state, entry.code, entry.count) == ("skipped", "paused", -1)
    assert (entry.slot, entry.last_slot) == (at(0.01), at(10_000))


@only("memory")
@pytest.mark.parametrize(
    ("catchup", "fired", "skipped"),
    [(None, [65], (5, 60, 12)), ("skip", [65], (5, 60, 12)), ("latest", [60, 65], (5, 55, 11))],
)
async def test_what_becomes_of_the_slots_of_a_pause_is_said_at_its_end(
    lb: Lockbeat, catchup: Any, fired: list[int], skipped: tuple[int, int, int]
) -> None:
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(5)))
        await fleet.declare()
        await lb.jobs.pause("report", by="anna")
        to(NOON + 62)
        would = await lb.jobs.resume("report", catchup, by="anna", dry_run=True)
        assert (await lb.jobs.get("report")).paused, "it was only said"
        assert await lb.jobs.resume("report", catchup, by="anna") == would
        assert would is not None
        assert would.skipped == skipped[2]
        assert would.next_slot == at(fired[0])
        await fleet.until(65, 62)
        line = ("skipped", *skipped, "paused by anna")
        assert (fleet.ran, await told(lb)) == (fired, [line, *done(*fired)])


@only("memory")
async def test_all_slots_of_a_pause_are_fired_where_the_job_catches_up_so(lb: Lockbeat) -> None:
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(5), catchup="all", cap=4))
        await fleet.declare()
        await lb.jobs.pause("report", by="anna")
        to(NOON + 32)
        resumed = await lb.jobs.resume("report", "all", by="anna")
        assert resumed == Resumed("report", 0, None, None, at(5))
        fleet.hands.places = 0  # they go through the queue
        await fleet.until(35, 32)
        ran: list[int] = []
        while tasks := (await lb.tasks.claim_on(0, ["default"], lb.owner, 10, 5000))[0]:
            [task] = tasks
            ran.append(round(task.slot_ms / 1000 - NOON))
            assert await lb.tasks.complete(task)
        assert ran[-1] == 35
        assert ran == sorted(set(ran)), "one after the other, each once"
        entries = await told(lb)
        assert {slot for _, first, last, _, _ in entries for slot in range(first, last + 1, 5)} == {*range(5, 36, 5)}
        assert {line[0] for line in entries} == {"missed", "done"}


@only("memory")
async def test_the_latest_of_a_pause_is_fired_within_the_jobs_window_only(lb: Lockbeat) -> None:
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(60), window=10))
        await fleet.declare()
        await lb.jobs.pause("report", by="anna")
        to(NOON + 100)
        await lb.jobs.resume("report", "latest", by="anna")
        await fleet.until(120, 100)
        assert [entry.code for entry in await ledger(lb, "report")] == ["late", None]


@only("memory")
@pytest.mark.parametrize("anybody", [True, False], ids=["instances run", "nobody runs for a while"])
async def test_a_pause_until_a_time_ends_by_itself_and_the_slot_at_that_time_is_fired(lb: Lockbeat, anybody: bool) -> None:
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(10)))
        await fleet.declare()
        assert await lb.jobs.pause("report", until=at(60), by="anna")
        state = await lb.jobs.get("report")
        assert state.paused == Change("pause", NOON, "anna", None, NOON + 60)
        assert state.next_slot == at(60)
        if anybody:
            await fleet.until(80)
            late: list[tuple[str, int, int, int, str]] = []
        else:
            await fleet.until(40)
            to(NOON + 79)
            await fleet.turn()
            await fleet.until(80, 79)
            late = [("missed", 60, 60, 1, "no instance fired it before the next was due")]
        assert (await lb.jobs.get("report")).paused is None
        assert fleet.ran == ([70, 80] if late else [60, 70, 80])
        assert await told(lb) == [("skipped", 10, 50, 5, "paused by anna"), *late, *done(*fleet.ran)]
        assert [(change.what, change.by) for change in await lb.jobs.changes("report")] == [("resume", None), ("pause", "anna")]


@only("memory")
async def test_a_pause_can_be_lengthened_and_shortened_and_keeps_its_beginning(lb: Lockbeat) -> None:
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(10)))
        await fleet.declare()
        await lb.jobs.pause("report", "first", until=at(20), by="anna")
        to(NOON + 5)
        assert await lb.jobs.pause("report", "second", until=at(40), by="otto") is False
        assert (await lb.jobs.get("report")).paused == Change("pause", NOON, "otto", "second", NOON + 40)
        await fleet.until(30, 6)
        assert await lb.jobs.pause("report", until=at(35), by="otto") is False
        await fleet.until(50, 31)
        assert fleet.ran == [40, 50]
        assert await told(lb) == [("skipped", 10, 30, 3, "paused by otto"), *done(40, 50)]


@only("memory")
async def test_the_next_slots_are_skipped_and_no_more(lb: Lockbeat) -> None:
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(10)))
        await fleet.declare()
        assert await lb.jobs.skip_next("report", 2, "a holiday", by="anna") == at(20)
        state = await lb.jobs.get("report")
        assert (state.paused, state.next_slot) == (Change("skip_next", NOON, "anna", "a holiday", NOON + 20), at(30))
        assert await lb.jobs.next("report", 2) == [at(30), at(40)]
        await fleet.until(15)
        assert await lb.jobs.skip_next("report", by="otto") == at(30), "one more"
        await fleet.until(45, 16)
        assert fleet.ran == [40]
        assert await told(lb) == [("skipped", 10, 30, 3, "skipped on purpose by otto"), *done(40)]
        assert (await ledger(lb, "report"))[0].code == "skip_next"
        await lb.jobs.skip_next("report", by="anna")
        assert await lb.jobs.resume("report", by="anna") == Resumed("report", 0, None, None, at(50)), "taken back"
        await fleet.until(50, 46)
        assert fleet.ran == [40, 50]


@only("memory")
async def test_a_job_declared_again_by_code_stays_paused(lb: Lockbeat) -> None:
    with stopped() as to:
        job = Job.declare("report", Every(10))
        fleet = Fleet(lb, to, job)
        await fleet.declare()
        await lb.jobs.pause("report", by="anna")
        await fleet.until(25, 1)
        await fleet.declare()
        await lb.jobs.declare([Job.declare("report", Every(10), priority=3)])
        await fleet.until(30, 26)
        other = Fleet(lb, to, Job.declare("report", Every(7), keep=50))
        await other.declare()
        assert (await lb.jobs.get("report")).paused
        await other.until(50, 31)
        assert [*fleet.ran, *other.ran] == []
        await lb.jobs.resume("report", by="anna")
        await other.until(60, 51)
        assert other.ran == [round(slot) for slot in (NOON // 7 * 7 - NOON + 7 * n for n in range(12)) if 50 < slot <= 60]
        changed, resumed, *_ = await told(lb)
        assert changed[:4] == ("skipped", 10, 30, -1), "the slots of the trigger that was replaced"
        assert resumed[0] == "skipped"


@only("memory")
async def test_a_job_put_anew_after_it_was_deleted_is_not_paused_as_in_bullmq_3063(lb: Lockbeat) -> None:
    """bullmq #3063: removed and put again within one period, it never fired again."""
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(10)))
        await fleet.declare()
        await lb.jobs.pause("report", by="anna")
        to(NOON + 3)
        assert await lb.jobs.delete("report")
        await fleet.declare()
        await fleet.until(20, 4)
        assert fleet.ran == [10, 20]
        assert [change.what for change in await lb.jobs.changes("report")] == ["delete"]


@only("memory")
@pytest.mark.parametrize(
    "what", ["resumed after it", "resumed during it", "until, after it", "until, during it", "lost during it"]
)
async def test_a_pause_outlasts_a_time_without_slots(lb: Lockbeat, raw: Any, what: str) -> None:
    """Its trigger is taken away and given back."""
    with stopped() as to:
        periodic, by_hand = Fleet(lb, to, Job.declare("report", Every(10))), Fleet(lb, to, Job.declare("report", ByHand()))
        await periodic.declare()
        ends = {"until, after it": at(60), "until, during it": at(40)}.get(what)
        await lb.jobs.pause("report", until=ends, by="anna")
        to(NOON + 15)
        await by_hand.declare()
        assert (await lb.jobs.get("report")).paused == Change(
            "pause", NOON, "anna", None, None if ends is None else ends.timestamp()
        )
        await by_hand.until(30, 16)
        if what == "lost during it":
            raw.hdel(lb.store.keys.key(0, "job:slot"), "report")
            for beat in by_hand.beats:
                beat._walk.again.clear()
            await by_hand.until(35, 31)
        if what == "resumed during it":
            assert await lb.jobs.resume("report", by="anna") == Resumed("report", 0, None, None, None)
            assert (await lb.jobs.get("report")).paused is None
        await by_hand.until(50, 31)
        await periodic.declare()
        await periodic.until(70, 51)
        if what in ("resumed after it", "lost during it"):
            assert periodic.ran == []
            assert (await lb.jobs.get("report")).paused
            assert await lb.jobs.resume("report", by="anna")
            assert raw.hexists(lb.store.keys.key(0, "job:paused"), "report") == 0
        elif what in ("resumed during it", "until, after it", "until, during it"):
            assert periodic.ran == [60, 70]
        await periodic.until(80, 71)
        assert periodic.ran[-1] == 80
        assert by_hand.ran == []


@only("memory")
async def test_no_slot_is_fired_twice_when_a_paused_job_is_changed_as_in_prefect_18894(lb: Lockbeat) -> None:
    """prefect #18894: an update of a schedule left the runs that were planned by the old one, and made new ones beside them."""
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(10)))
        await fleet.declare()
        await fleet.until(10)
        await lb.jobs.pause("report", by="anna")
        await lb.jobs.declare([Job.declare("report", Every(5))])
        await lb.jobs.resume("report", by="anna")
        await lb.jobs.skip_next("report", by="anna")
        await lb.jobs.declare([Job.declare("report", Every(10))])
        await fleet.until(40, 11)
        assert fleet.ran == [10, 20, 30, 40]
        assert [line[:3] for line in await told(lb)] == [("done", slot, slot) for slot in fleet.ran]


@only("memory")
async def test_an_instance_that_slept_replays_no_slot_of_a_pause_as_in_dbos_803(lb: Lockbeat) -> None:
    """dbos #803: a laptop's sleep replayed every tick. One that slept through pause and resume finds them decided."""
    with stopped() as to:
        awake, asleep = (Fleet(lb, to, Job.declare("report", Every(10)), instances=1) for _ in range(2))
        await awake.declare()
        await asleep.until(10, 10)
        await lb.jobs.pause("report", by="anna")
        await awake.until(600, 500)
        await lb.jobs.resume("report", by="anna")
        await asleep.until(605, 601)
        await awake.until(610, 606)
        assert (asleep.ran, awake.ran) == ([10], [610])
        assert await told(lb) == [*done(10), ("skipped", 20, 600, 59, "paused by anna"), *done(610)]


@only("memory")
async def test_a_clock_set_back_resumes_nothing_and_lengthens_no_skip(lb: Lockbeat) -> None:
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(10)))
        await fleet.declare()
        to(NOON + 3600)
        await fleet.turn()
        await lb.jobs.pause("report", by="anna")
        to(NOON + 100)
        for beat in fleet.beats:
            beat._walk.again.clear()
        await fleet.until(130, 100)
        assert fleet.ran == [3600]
        assert (await lb.jobs.get("report")).paused
        await lb.jobs.resume("report", by="anna")
        await fleet.until(140, 131)
        assert fleet.ran == [3600, 140]


@only("memory")
@pytest.mark.parametrize("lost", ["job:slot", "job:due", "job:paused", "job:order"])
async def test_a_pause_survives_the_loss_of_a_key(lb: Lockbeat, raw: Any, lost: str) -> None:
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", Every(10)), Job.declare("other", Every(10)))
        await fleet.declare()
        await lb.jobs.pause("report", until=at(95), by="anna")
        await fleet.until(15, 1)
        fleet.ran.clear()
        raw.delete(lb.store.keys.key(0, lost))
        for beat in fleet.beats:
            beat._walk.again.clear()
        await fleet.until(90, 16)
        state = await lb.jobs.get("report")
        assert state.paused is not None
        assert not [entry for entry in await ledger(lb, "report") if entry.state == "done"]
        if lost == "job:paused":
            assert state.paused == Change("pause", None, None), "by whom and until when was lost"
            assert await lb.jobs.resume("report", by="anna")
        await fleet.until(110, 91)
        assert [entry.slot for entry in await ledger(lb, "report") if entry.state == "done"] == [at(100), at(110)]


@only("memory")
async def test_an_ended_job_is_forgotten_with_its_log(lb: Lockbeat, raw: Any) -> None:
    with stopped() as to:
        fleet = Fleet(lb, to, Job.declare("report", At(at(10))))
        await fleet.declare()
        await lb.jobs.pause("report", by="anna")
        await fleet.until(15, 5)
        resumed = await lb.jobs.resume("report", by="anna")
        assert resumed == Resumed("report", 1, at(10), at(10), None)
        assert [line[0] for line in await told(lb)] == ["skipped"]
        with pytest.raises(LockbeatError, match="has no slot left"):
            await lb.jobs.pause("report")
        to(NOON + 7 * 86_400 + 20)
        await fleet.turn()
        assert await lb.jobs.list() == []
        assert [raw.exists(lb.store.keys.key(0, key)) for key in ("job:paused", "job:changes")] == [0, 0]


@only("memory")
async def test_a_cron_job_in_its_zone_is_paused_over_a_change_of_the_clock(lb: Lockbeat) -> None:
    trigger = Cron("30 2 * * *", "Europe/Berlin")
    with stopped() as to:
        job = Job.declare("report", trigger)
        await lb.jobs.put(job)
        first = trigger.next(round(NOON * 1000))
        assert first is not None
        await lb.jobs.pause("report", by="anna")
        to(NOON + 200 * 86_400)
        resumed = await lb.jobs.resume("report", by="anna")
        assert resumed is not None
        assert resumed.skipped == 200
        assert resumed.first_slot == instant(first)
