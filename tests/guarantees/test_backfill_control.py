"""A backfill is paused, resumed, cancelled, and goes on where an instance died; what can't be is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Lockbeat, Task
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError, UnknownJob
from lockbeat.jobs import Job, backfiller
from lockbeat.triggers import ByHand, Every
from tests.backfills import Filler, at, hours, told
from tests.beats import MINUTE, eventually, last_slot, minutely, states
from tests.conftest import Connect, only
from tests.tasks import NOON, stopped

here_and_there = only("memory", "valkey")


@here_and_there
async def test_it_is_paused_resumed_and_cancelled_and_what_it_fired_runs(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 10), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1), by="anna")
    [first] = await filler.turn()
    assert await lb.jobs.pause_backfill("report", "too warm", by="bob")
    assert not await lb.jobs.pause_backfill("report", by="bob")
    await filler.turn()
    assert (await told(lb)).running == 1
    assert await lb.tasks.complete(first)
    found = await filler.go_on()
    assert (found.state, found.fired, found.done, found.left, found.is_over) == ("paused", 1, 1, 9, False)
    assert await lb.jobs.resume_backfill("report", by="bob")
    assert not await lb.jobs.resume_backfill("report", by="bob")
    [second] = await filler.turn()
    assert await lb.jobs.cancel_backfill("report", by="carl")
    assert not (await told(lb)).is_over, "one of it runs"
    assert await lb.tasks.complete(second)
    found = await filler.go_on()
    assert (found.state, found.fired, found.done, found.left, found.is_over) == ("cancelled", 2, 2, 8, True)
    assert not await lb.jobs.cancel_backfill("report")
    for verb in (lb.jobs.pause_backfill, lb.jobs.resume_backfill):
        with pytest.raises(LockbeatError, match="the backfill of job 'report' has ended"):
            await verb("report")
    said = [(change.what, change.by, change.reason) for change in await lb.jobs.changes("report")]
    assert said == [
        ("cancel_backfill", "carl", None),
        ("resume_backfill", "bob", None),
        ("pause_backfill", "bob", "too warm"),
        ("backfill", "anna", None),
    ]
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await filler.go_on()
    assert (found.fired, found.known) == (8, 2)


@here_and_there
async def test_another_instance_goes_on_where_one_died(lb: Lockbeat, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds nothing that the next would have to wait for, but for a moment's peace."""
    monkeypatch.setattr(backfiller, "HIDE_MS", 50)
    slots = await hours(lb, 4)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    ran: list[int] = []
    for _ in range(4):
        async with connect() as instance:
            for task in await _first_tasks(Filler(instance)):
                ran.append(task.slot_ms)
                await lb.tasks.complete(task)
    last = Filler(lb)
    await eventually(lambda: _is_over(last), "the last one counts what it had fired")
    assert ran == slots
    assert ((await told(lb)).state, (await told(lb)).done) == ("done", 4)


async def _is_over(filler: Filler) -> bool:
    return (await filler.go_on()).is_over


async def _first_tasks(filler: Filler) -> list[Task]:
    while not (tasks := await filler.turn()):
        pass
    return tasks


@here_and_there
async def test_two_that_go_on_with_the_same_one_fire_nothing_twice(lb: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfiller, "HIDE_MS", 0)
    monkeypatch.setattr(backfiller, "SLOTS", 3)
    monkeypatch.setattr(backfiller, "ROUNDS", 1)
    slots = await hours(lb, 40, minutely(overlap="allow"))
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    fillers = [Filler(lb) for _ in range(3)]
    ran: list[int] = []
    while not (await told(lb)).is_over:
        for filler in fillers:
            for task in await filler.turn():
                ran.append(task.slot_ms)
                await lb.tasks.complete(task)
    assert ran == slots
    assert ((await told(lb)).fired, (await told(lb)).done, (await told(lb)).known) == (40, 40, 0)


@here_and_there
async def test_what_failed_was_cancelled_or_never_begun_is_counted_so(lb: Lockbeat) -> None:
    slots = await hours(lb, 4)

    async def end(lb: Lockbeat, task: Task) -> None:
        if task.slot_ms == slots[0]:
            await lb.tasks.fail(task, "broken")
        elif task.slot_ms == slots[1]:
            await lb.tasks.cancel(task.id)
            await lb.tasks.release(task, begun=True)
        else:
            await lb.tasks.complete(task)

    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await Filler(lb, end=end).go_on()
    assert (found.fired, found.failed, found.cancelled, found.done) == (4, 1, 1, 2)
    assert await states(lb, "report") == ["failed", "cancelled", "done", "done"]


@here_and_there
async def test_it_goes_on_by_a_trigger_that_was_changed_meanwhile(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 8), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    [task] = await filler.turn()
    assert isinstance(minutely().trigger, Every)
    await lb.jobs.put(minutely(trigger=Every(120, at(slots[0]))))
    await lb.tasks.complete(task)
    await filler.go_on()
    assert filler.ran == slots[2::2]


@here_and_there
@pytest.mark.parametrize("trigger", [ByHand(), Every(86_400 * 365, at(0))])
async def test_it_ends_when_its_job_has_no_slots_left_in_that_time(lb: Lockbeat, trigger: Any) -> None:
    slots, filler = await hours(lb, 5), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    for _ in range(2):
        for task in await filler.turn():
            await lb.tasks.complete(task)
    await lb.jobs.put(minutely(trigger=trigger))
    found = await filler.go_on()
    assert (found.state, found.done, found.left) == ("done", 2, 0)


@here_and_there
async def test_it_goes_with_its_job(lb: Lockbeat, raw: Any) -> None:
    slots, filler = await hours(lb, 8), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    await filler.turn()
    await lb.jobs.delete("report")
    await lb.jobs.put(minutely())
    assert await lb.jobs.get_backfill("report") is None
    assert await filler.turn() == []
    shard = lb.jobs.shard_of("report")
    for key in ("backfill", "backfill:due", "job:counts"):
        assert not raw.exists(lb.store.keys.key(shard, key)), key


@here_and_there
async def test_the_limit_of_a_job_is_not_used_up_by_it(lb: Lockbeat) -> None:
    slots = await hours(lb, 8, minutely(limit=3))
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    assert (await Filler(lb).go_on()).done == 8
    assert (await lb.jobs.get("report")).counts.fired == 0
    assert (await lb.jobs.get("report")).next is not None


@here_and_there
async def test_one_whose_place_among_those_to_look_at_was_lost_is_found_again(lb: Lockbeat, raw: Any) -> None:
    slots = await hours(lb, 3)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    raw.delete(lb.store.keys.key(lb.jobs.shard_of("report"), "backfill:due"))
    assert (await Filler(lb).go_on()).done == 3


@only("memory")
async def test_it_is_forgotten_a_week_after_its_end(lb: Lockbeat, raw: Any) -> None:
    with stopped() as go_to:
        slots, filler = await hours(lb, 3, Job.declare("report", Every(60))), Filler(lb)
        await lb.jobs.backfill("report", at(slots[0]), at(slots[-1]))
        assert (await filler.go_on()).is_over
        go_to(NOON + 7 * 86_400 - 1)
        await filler.turn()
        assert await lb.jobs.get_backfill("report") is not None
        go_to(NOON + 7 * 86_400 + 1)
        await filler.turn()
        assert await lb.jobs.get_backfill("report") is None


LATER = datetime(2100, 1, 1, tzinfo=UTC)
EARLY = datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@here_and_there
@pytest.mark.parametrize(
    ("start", "end", "options", "error", "said"),
    [
        (EARLY, EARLY - DAY, {}, InvalidArgument, "start: must lie before the end"),
        (EARLY, EARLY, {}, InvalidArgument, "start: must lie before the end"),
        (EARLY, LATER, {}, InvalidArgument, "end: lies ahead, by the server's clock"),
        (LATER, LATER + DAY, {}, InvalidArgument, "end: lies ahead"),
        (LATER, None, {}, InvalidArgument, "start: must lie before the end"),
        (datetime(2020, 1, 1), None, {}, InvalidArgument, "start: must be aware"),
        (EARLY, datetime(2020, 1, 2), {}, InvalidArgument, "end: must be aware"),
        ("yesterday", None, {}, InvalidType, "start: must be an aware datetime, not str"),
        (datetime(1960, 1, 1, tzinfo=UTC), EARLY, {"confirm": True}, InvalidArgument, "start: must not lie before 1970"),
        (EARLY, EARLY + DAY, {"rate": 0}, InvalidArgument, "rate: must be 0.0001 to 1000 slots a second, not 0"),
        (EARLY, EARLY + DAY, {"rate": -1}, InvalidArgument, "rate: must be"),
        (EARLY, EARLY + DAY, {"rate": float("nan")}, InvalidArgument, "rate: must be"),
        (EARLY, EARLY + DAY, {"rate": "fast"}, InvalidType, "rate: must be slots a second, not str"),
        (EARLY, EARLY + DAY, {"rate": True}, InvalidType, "rate: must be slots a second, not bool"),
        (EARLY, EARLY + DAY, {"unknown": 1}, InvalidType, "unknown: must be a bool"),
        (EARLY, EARLY + DAY, {"by": ""}, InvalidArgument, "by: "),
        (EARLY, EARLY + DAY, {"reason": "x" * 501}, InvalidArgument, "reason: "),
        (EARLY, EARLY + DAY, {}, InvalidArgument, "confirm: job 'report' has 1440 slots"),
        (EARLY, EARLY + timedelta(days=695), {"confirm": True}, InvalidArgument, "start: more than 1000000 slots lie between"),
    ],
)
async def test_what_can_not_be_is_refused_and_changes_nothing(
    lb: Lockbeat, start: Any, end: Any, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    await lb.jobs.put(minutely(trigger=Every(60)))
    with pytest.raises(error) as caught:
        await lb.jobs.backfill("report", start, end, **options)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert await lb.jobs.get_backfill("report") is None
    assert await lb.jobs.changes("report") == []


@here_and_there
async def test_a_job_that_is_unknown_or_has_no_slots_or_has_one_already_is_told_so(lb: Lockbeat) -> None:
    with pytest.raises(UnknownJob, match="no job named 'report'"):
        await lb.jobs.backfill("report", EARLY)
    for verb in (lb.jobs.get_backfill, lb.jobs.pause_backfill, lb.jobs.resume_backfill, lb.jobs.cancel_backfill):
        with pytest.raises(UnknownJob):
            await verb("report")
    await lb.jobs.put(Job.declare("by hand", ByHand()), minutely())
    with pytest.raises(LockbeatError, match="has no slots: it runs when it is triggered"):
        await lb.jobs.backfill("by hand", EARLY)
    with pytest.raises(LockbeatError, match="job 'report' has no backfill"):
        await lb.jobs.pause_backfill("report")
    slots = await hours(lb, 3)
    await lb.jobs.backfill("report", at(slots[0]))
    with pytest.raises(LockbeatError, match="job 'report' has a backfill that is running: wait for its end, or cancel it"):
        await lb.jobs.backfill("report", at(slots[0]))
    assert len(await lb.jobs.changes("report")) == 1


@only("memory")
async def test_a_million_slots_are_begun_when_that_is_meant(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely(trigger=Every(60)))
    begun = await lb.jobs.backfill("report", EARLY, EARLY + timedelta(minutes=1_000_000), confirm=True)
    assert begun.total == 1_000_000
    await lb.jobs.cancel_backfill("report")


@only("memory")
async def test_a_job_that_has_ended_is_backfilled_too(lb: Lockbeat) -> None:
    slot = await last_slot(lb, await _declared(lb))
    await lb.jobs.put(minutely(trigger=Every(60), end=at(slot)))
    await lb.jobs.backfill("report", at(slot - 5 * MINUTE))
    assert (await Filler(lb).go_on()).done == 5


async def _declared(lb: Lockbeat) -> Any:
    await lb.jobs.put(minutely(trigger=Every(60)))
    return await lb.jobs.get("report")


@here_and_there
async def test_it_is_paused_after_as_many_failures_in_a_row_as_its_job(lb: Lockbeat) -> None:
    """airflow #60767: each run builds on the one before, and if one has failed all others do."""
    slots = await hours(lb, 10, minutely(pause_after=3))

    async def end(lb: Lockbeat, task: Task) -> None:
        await (lb.tasks.complete(task) if task.slot_ms == slots[1] else lb.tasks.fail(task, "broken"))

    filler = Filler(lb, end=end)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await filler.go_on()
    assert (found.state, found.failed, found.done) == ("paused", 4, 1)
    [change, _] = await lb.jobs.changes("report")
    assert (change.what, change.by, change.reason) == ("pause_backfill", "pause_after", "3 failed in a row")
    assert await lb.jobs.resume_backfill("report")
    found = await filler.go_on()
    assert (found.state, found.failed) == ("paused", 7)


# Reports about the backfills of others, each tried here.
