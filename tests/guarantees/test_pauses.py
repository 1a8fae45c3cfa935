"""Pause, resume, skip what comes next: no slot of the pause is fired, each has its reason, and nothing floods afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError, UnknownJob, Unreadable
from lockbeat.jobs import Change, Job, Resumed
from lockbeat.jobs.control import MOST_SKIPPED, way_on
from lockbeat.store import results
from lockbeat.store.records import NEVER_MS, SlotLine
from lockbeat.triggers import At, Cron, Every
from lockbeat.values.durations import instant
from tests.beats import Beats, Hands, backdate, eventually, last_slot, ledger, minutely, now_ms, overdue, scheduler, shot, states
from tests.conftest import Connect, only, wait_until
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
        assert await lb.jobs.changes("report") == []


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


async def test_no_instance_fires_the_slot_that_it_was_handed_before_the_pause(lb: Lockbeat, raw: Any) -> None:
    """Between beat/due and beat/fire somebody pauses the job: who is to fire it has not heard of that."""
    job, shard = minutely(), lb.jobs.shard_of("report")
    slot = await overdue(lb, raw, job)
    due = await lb.store.call("beat/due", shard, limit=10, hide_ms=300, seen="")
    assert [name.decode() for name in due.jobs[::2]] == ["report"]
    assert await lb.jobs.pause("report", by="anna")
    row = shot(lb, job, slot, expected=due.jobs[1].decode())
    assert (await lb.store.call_row(row, shard)).fired == results.NO
    assert await states(lb, "report") == []
    resumed = await lb.jobs.resume("report", by="anna")
    assert resumed is not None
    assert resumed.skipped == 1
    assert (await lb.store.call_row(row, shard)).fired == results.NO, "and not later either"
    assert [(entry.state, entry.reason) for entry in await ledger(lb, "report")] == [("skipped", "paused by anna")]


async def test_an_older_instance_that_knows_of_no_pauses_fires_no_slot_of_a_paused_job(lb: Lockbeat, raw: Any) -> None:
    """All that it knows is that the slot is not due: what it is handed when the pause ends it can't fire either."""
    job, shard = minutely(), lb.jobs.shard_of("report")
    slot = await overdue(lb, raw, job)
    assert await lb.jobs.pause("report", by="anna")
    stands = raw.hget(lb.store.keys.key(shard, "job:slot"), "report").decode()
    assert SlotLine.of(stands).due_ms == NEVER_MS
    raw.zadd(lb.store.keys.key(shard, "job:due"), {"report": 0})  # the end of its pause has come
    for planned in (slot, slot + MINUTE):
        row = shot(lb, job, planned, expected=stands, lease_ms=5000)
        assert (await lb.store.call_row(row, shard)).fired == results.NO
    await lb.jobs.put(job)  # as an older one would declare it: the slot stays
    assert raw.hget(lb.store.keys.key(shard, "job:slot"), "report").decode() == stands
    assert await states(lb, "report") == []


@only("memory", "valkey", "redis")
async def test_a_pause_is_seen_by_all_instances_and_lets_end_what_runs(lb: Lockbeat, beats: Beats, connect: Connect) -> None:
    began, let_go, ended = asyncio.Event(), asyncio.Event(), list[object]()

    def instance() -> Beat:
        beat = beats()

        @beat.every(0.2, overlap="skip")
        async def report(run: Any) -> None:
            began.set()
            await let_go.wait()
            ended.append(run.slot)

        return beat

    async with instance().lifespan(), instance().lifespan():
        async with asyncio.timeout(30):
            await began.wait()
        assert await lb.jobs.pause("report")
        paused_ms = await now_ms(lb)
        let_go.set()
        await wait_until(lambda: ended, "it ended")
        for state in ("skipped", "fired"):
            assert not [entry for entry in await ledger(lb, "report") if entry.slot_ms > paused_ms], state

        async def later() -> bool:
            return await now_ms(lb) > paused_ms + 1000

        await eventually(later, "several slots of the pause have come and gone")
        assert [entry for entry in await ledger(lb, "report") if entry.slot_ms > paused_ms] == []
        assert await lb.jobs.resume("report")

        async def again() -> bool:
            return any(entry.state == "done" and entry.slot_ms > paused_ms for entry in await ledger(lb, "report"))

        await eventually(again, "it fires again")
    assert len(ended) == len(set(ended))


async def test_many_callers_at_once_pause_once_and_resume_once(lb: Lockbeat, connect: Connect, raw: Any) -> None:
    await overdue(lb, raw, minutely(), back=3)
    async with connect() as other:
        clients = [lb, other] * 8
        assert sum(await asyncio.gather(*(one.jobs.pause("report") for one in clients))) == 1
        resumed = [one for one in await asyncio.gather(*(one.jobs.resume("report") for one in clients)) if one is not None]
    assert [one.skipped for one in resumed] == [4]
    assert [(entry.state, entry.count) for entry in await ledger(lb, "report")] == [("skipped", 4)]
    assert (await lb.jobs.get("report")).counts.skipped == 4


async def test_a_resume_that_was_worked_out_before_the_pause_was_changed_is_refused(lb: Lockbeat) -> None:
    """Also that of an instance that found its time over, by itself: the script judges that, too."""
    await lb.jobs.put(minutely())
    await lb.jobs.pause("report", until=instant(await now_ms(lb) + 3_600_000))
    known, shard = await lb.jobs._standing("report"), lb.jobs.shard_of("report")
    way = way_on(known.job, known.place, await now_ms(lb), "skip")
    by_itself, by_anna = (lb.jobs._resuming(known, way, by) for by in ("", "anna"))
    assert await lb.store.call_row(by_itself, shard) == results.TOO_LATE
    assert await lb.jobs.pause("report", "longer") is False
    assert await lb.store.call_row(by_anna, shard) == results.TOO_LATE
    again = await lb.jobs._standing("report")
    await lb.jobs.put(minutely(priority=3))
    assert await lb.store.call_row(lb.jobs._resuming(again, way, "anna"), shard) == results.TOO_LATE, "its definition was changed"
    assert (await lb.jobs.get("report")).paused


async def test_two_who_skip_at_once_skip_two(lb: Lockbeat, connect: Connect) -> None:
    await lb.jobs.put(job := Job.declare("report", Every(86_400)))
    first = await lb.jobs.get("report")
    assert first.next is not None
    async with connect() as other:
        slots = await asyncio.gather(lb.jobs.skip_next("report"), other.jobs.skip_next("report"))
    assert sorted(slots) == [instant(first.next.slot_ms), instant(first.next.slot_ms) + timedelta(days=1)]
    state = await lb.jobs.get("report")
    assert state.next is not None
    assert state.next.slot_ms == job.trigger.next(round(max(slots).timestamp() * 1000))


async def test_who_did_what_is_kept_fifty_times_the_latest_first(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely())
    for n in range(30):
        await lb.jobs.pause("report", f"reason {n}", by="änna\n")
        await lb.jobs.resume("report")
    changes = await lb.jobs.changes("report")
    assert len(changes) == 50
    assert [change.what for change in changes[:2]] == ["resume", "pause"]
    assert (changes[1].by, changes[1].reason) == ("änna\n", "reason 29")
    assert changes[0].by, "the user of the operating system"
    assert changes[0].at is not None
    assert abs(changes[0].at - await lb.store.server_time()) < 60


@pytest.fixture
async def kept(lb: Lockbeat) -> AsyncIterator[Lockbeat]:
    """Whatever is wrong changes nothing."""
    await lb.jobs.put(minutely(), minutely("paused"))
    await lb.jobs.pause("paused")
    before = await lb.jobs.get("report")
    yield lb
    assert (await lb.jobs.get("paused")).paused
    assert await lb.jobs.get("report") == before
    assert await lb.jobs.changes("report") == []


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (lambda jobs: jobs.pause("nobody"), UnknownJob, "no job named 'nobody'"),
        (lambda jobs: jobs.resume("nobody"), UnknownJob, "no job named 'nobody'"),
        (lambda jobs: jobs.skip_next("nobody"), UnknownJob, "no job named 'nobody'"),
        (lambda jobs: jobs.changes("nobody"), UnknownJob, "no job named 'nobody'"),
        (lambda jobs: jobs.pause("report", until=datetime(2026, 1, 1, tzinfo=UTC)), InvalidArgument, "until: is over by"),
        (lambda jobs: jobs.pause("report", until=datetime(1970, 1, 1, tzinfo=UTC)), InvalidArgument, "until: is over by"),
        (lambda jobs: jobs.pause("report", until=datetime(1, 1, 1, tzinfo=UTC)), InvalidArgument, "until: is over by"),
        (lambda jobs: jobs.pause("report", until=datetime.max.replace(tzinfo=UTC)), InvalidArgument, "before the year 3000"),
        (lambda jobs: jobs.pause("report", until=datetime(2030, 1, 1)), InvalidArgument, "until: must be aware"),
        (lambda jobs: jobs.pause("report", until=60), InvalidType, "until: must be an aware datetime, not int"),
        (lambda jobs: jobs.pause("report", "x" * 501), InvalidArgument, "reason: must be at most 500 bytes"),
        (lambda jobs: jobs.pause("report", by=""), InvalidArgument, "by: must not be empty"),
        (lambda jobs: jobs.pause(7), InvalidType, "name: must be a str"),
        (lambda jobs: jobs.skip_next("report", 0), InvalidArgument, "n: must be between 1 and 1000"),
        (lambda jobs: jobs.skip_next("report", MOST_SKIPPED + 1), InvalidArgument, "n: must be between 1 and 1000"),
        (lambda jobs: jobs.skip_next("report", True), InvalidType, "n: must be an int"),
        (lambda jobs: jobs.resume("report", "some"), InvalidArgument, "catchup: must be one of 'skip', 'latest', 'all'"),
        (lambda jobs: jobs.resume("paused", "all"), InvalidArgument, "catchup: job 'paused' has catch-up 'latest'"),
    ],
)
@only("memory", "valkey")
async def test_what_is_wrong_is_one_clear_line(
    kept: Lockbeat, wrong: Callable[[Any], Awaitable[object]], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await wrong(kept.jobs)


@only("memory", "valkey")
async def test_what_is_paused_is_skipped_anyway_and_what_ends_has_few_slots(lb: Lockbeat) -> None:
    soon = datetime.fromtimestamp((await now_ms(lb)) // 1000 + 86_400, timezone.utc)  # noqa: UP017 - any zone
    await lb.jobs.put(minutely(), Job.declare("once", At(soon)))
    await lb.jobs.pause("report")
    with pytest.raises(LockbeatError, match="is paused: its slots are skipped anyway"):
        await lb.jobs.skip_next("report")
    with pytest.raises(LockbeatError, match="has no 2 slots left: it has 1"):
        await lb.jobs.skip_next("once", 2)
    assert await lb.jobs.skip_next("once") == soon
    state = await lb.jobs.get("once")
    assert (state.next, state.paused is not None) == (None, True)


@here_and_there
async def test_a_pause_that_can_not_be_read_is_named_pauses_all_the_same_and_stops_no_other(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = minutely("bad"), minutely("good")
    await lb.jobs.put(*jobs)
    for job in jobs:
        await backdate(lb, raw, job.name, await last_slot(lb, await lb.jobs.get(job.name)))
    soon = instant(await now_ms(lb) + 300)
    for job in jobs:
        assert await lb.jobs.pause(job.name, until=soon)
    key = lb.store.keys.key(0, "job:paused")
    raw.hset(key, "bad", "foreign")
    for call in (lb.jobs.get("bad"), lb.jobs.resume("bad"), lb.jobs.skip_next("bad"), lb.jobs.pause("bad")):
        with pytest.raises(Unreadable) as raised:
            await call
        assert (raised.value.key, raised.value.field) == (key, "bad")
    assert [state.job.name for state in await lb.jobs.list()] == ["good"]
    beat = scheduler(lb, *jobs)

    async def resumed() -> bool:
        await beat.tick(0)
        return (await lb.jobs.get("good")).paused is None

    await eventually(resumed, "the pause of the other is over")
    await eventually(lambda: _said(beat, caplog), "the log was told")
    assert await states(lb, "bad") == []
    raw.hdel(key, "bad")
    assert await lb.jobs.resume("bad"), "what is left of it says only that it is paused"
    raw.hset(lb.store.keys.key(0, "job:changes"), "bad", "foreign")
    with pytest.raises(Unreadable):
        await lb.jobs.changes("bad")


async def _said(beat: Any, caplog: pytest.LogCaptureFixture) -> bool:
    await beat.tick(0)
    return caplog.text.count("the pause of job 'bad' is over, but it can't be resumed") == 1


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
