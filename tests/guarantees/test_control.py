"""Who steps in while others do, beside instances that know of it or not; and what is wrong is one clear line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat, Run
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError, UnknownJob, Unreadable
from lockbeat.jobs import Job
from lockbeat.jobs.control import MOST_SKIPPED, way_on
from lockbeat.store import results
from lockbeat.store.records import NEVER_MS, SlotLine
from lockbeat.triggers import At, Every
from lockbeat.values.durations import instant
from tests.beats import Beats, backdate, eventually, last_slot, ledger, minutely, now_ms, overdue, scheduler, shot, states
from tests.conftest import Connect, only, wait_until

here_and_there = only("memory", "valkey", "redis")
MINUTE = 60_000


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


@only("valkey", "redis", "cluster")
async def test_other_instances_hear_of_a_resume_and_of_a_trigger_by_a_message(lb: Lockbeat, beats: Beats, raw: Any) -> None:
    """They look by themselves once a minute only."""
    ran = list[object]()

    def instance() -> Beat:
        beat = beats()

        @beat.every(86_400, name="report")
        async def report(run: Run) -> None:
            ran.append(run.slot)

        return beat

    async with instance().lifespan(), instance().lifespan():
        await lb.jobs.trigger("report")
        await wait_until(lambda: len(ran) == 1, "it was triggered")
        assert await lb.jobs.pause("report")
        shard, key = lb.jobs.shard_of("report"), lb.store.keys.key
        state = SlotLine.of(raw.hget(key(shard, "job:slot"), "report").decode())
        raw.hset(key(shard, "job:slot"), "report", f"{state.slot_ms - 86_400_000} {state.due_ms} {state.rev} {state.rules}")
        assert await lb.jobs.resume("report", "latest")
        await wait_until(lambda: len(ran) == 2, "the latest slot of the pause is fired")
    assert ran[1] == instant(state.slot_ms - 86_400_000)


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
