"""A backfill fires each past slot once, under its own identity, and none that has run, whoever dies meanwhile."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Lockbeat, Task
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError, UnknownJob
from lockbeat.jobs import Job, backfiller
from lockbeat.store.records import JobCounts
from lockbeat.triggers import ByHand, Every
from tests.backfills import Filler, at, claimed, hours, told
from tests.beats import MINUTE, Hands, backdate, eventually, last_slot, ledger, minutely, overdue, scheduler, states
from tests.conftest import Connect, needs, only
from tests.servers import standalone, valkey_binary
from tests.tasks import NOON, stopped

here_and_there = only("memory", "valkey")


async def test_each_past_slot_is_fired_once_under_its_own_identity_and_oldest_first(lb: Lockbeat) -> None:
    slots, ids = await hours(lb, 5), []

    async def complete(lb: Lockbeat, task: Task) -> None:
        ids.append((task.id, task.job, task.params))
        assert await lb.locks.is_locked("job:report"), "as any slot of a job, under the job's lock"
        await lb.tasks.complete(task)

    filler = Filler(lb, end=complete)
    begun = await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1), by="anna", reason="a new report")
    assert (begun.state, begun.total, begun.left, begun.by, begun.rate) == ("running", 5, 5, "anna", None)
    found = await filler.go_on()
    assert filler.ran == slots
    assert ids == [(f"report@{slot}", "report", None) for slot in slots]
    assert (found.state, found.fired, found.done, found.left, found.running) == ("done", 5, 5, 0, 0)
    assert found.is_over
    assert [(entry.slot_ms, entry.state) for entry in await ledger(lb, "report")] == [(slot, "done") for slot in slots]
    assert (await lb.jobs.get("report")).counts == JobCounts(fired=5, done=5)
    [change] = await lb.jobs.changes("report")
    assert (change.what, change.by, change.reason) == ("backfill", "anna", "a new report")


async def test_what_was_backfilled_is_not_backfilled_again(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 5), Filler(lb)
    for start in (slots[2], slots[0]):
        await lb.jobs.backfill("report", at(start), at(slots[-1] + 1))
        await filler.go_on()
    assert filler.ran == [*slots[2:], *slots[:2]]
    found = await told(lb)
    assert (found.fired, found.known, found.total) == (2, 3, 5)


@here_and_there
async def test_a_slot_that_the_ledger_lists_and_whose_record_was_lost_is_left_unless_it_is_asked_for(
    lb: Lockbeat, raw: Any
) -> None:
    slots, filler = await hours(lb, 5), Filler(lb)
    await lb.jobs.backfill("report", at(slots[1]), at(slots[-1] + 1))
    await filler.go_on()
    assert raw.delete(lb.store.keys.key(lb.jobs.shard_of("report"), "task"))
    plan = await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1), dry_run=True)
    assert (plan.fired, plan.unknown) == (1, 4)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await filler.go_on()
    assert (found.fired, found.unknown) == (1, 4)
    assert filler.ran == [*slots[1:], slots[0]], "they had run: nobody knows any more, so none is fired again unasked"
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1), unknown=True)
    assert (await filler.go_on()).fired == 4


@here_and_there
async def test_what_the_ledger_no_longer_lists_is_listed_again_by_its_records(lb: Lockbeat, raw: Any) -> None:
    slots, filler = await hours(lb, 5), Filler(lb)
    shard = lb.jobs.shard_of("report")
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    await filler.go_on()
    assert raw.delete(lb.store.keys.key(shard, "ledger:order"))
    while await lb.store.call("task/mend", shard, limit=100):
        pass
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await filler.go_on()
    assert (found.fired, found.known, filler.ran) == (0, 5, slots)


@here_and_there
async def test_what_the_ledger_says_of_a_slot_decides(lb: Lockbeat, raw: Any) -> None:
    """One for each state that a slot can have."""
    job = minutely(keep=1000, overlap="allow")
    slots = await hours(lb, 9, job)
    shard = lb.jobs.shard_of("report")
    for slot in slots[:6]:
        await backdate(lb, raw, "report", slot)
        await lb.store.call_row(_shot(lb, job, slot), shard)
    done, failed, cancelled, waiting, runs, tried = await _claimed_in_order(lb)
    await lb.tasks.complete(done)
    await lb.tasks.fail(failed, "broken")
    await lb.tasks.cancel(cancelled.id)
    await lb.tasks.release(cancelled, begun=True)
    await lb.tasks.release(waiting)
    await lb.tasks.defer(tried, 3600)
    assert runs.slot_ms == slots[4]
    hold = await lb.tasks.claim("default", lb.owner, 1, 60)
    assert [task.slot_ms for task in hold] == [slots[3]]
    await backdate(lb, raw, "report", slots[-1] + MINUTE)
    filler = Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await filler.go_on()
    assert filler.ran == slots[6:]
    assert (found.known, found.fired) == (6, 3)


def _shot(lb: Lockbeat, job: Job, slot: int) -> Any:
    from tests.beats import shot

    return shot(lb, job, slot)


async def _claimed_in_order(lb: Lockbeat) -> list[Task]:
    return sorted(await claimed(lb), key=lambda task: task.slot_ms)


@pytest.mark.parametrize(
    ("first", "last", "left"),
    [
        (0, 5, {}),
        (0, 2, {(3, 5): 3}),
        (3, 5, {(0, 2): -1}),
        (2, 3, {(0, 1): -1, (4, 5): -1}),
        (1, 4, {(0, 0): 1, (5, 5): -1}),
        (5, 5, {(0, 4): -1}),
        (0, 0, {(1, 5): 5}),
    ],
)
@here_and_there
async def test_slots_that_were_missed_together_are_fired_and_the_rest_stay_missed(
    lb: Lockbeat, raw: Any, first: int, last: int, left: dict[tuple[int, int], int]
) -> None:
    """Six were missed as one entry: slots `first` to `last` of them are backfilled, and the ledger still has the others."""
    job, hands = minutely(keep=1000), Hands("report")
    oldest = await overdue(lb, raw, job, back=6)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    assert await lb.tasks.complete(hands.tasks[0])
    slots = [oldest + MINUTE * n for n in range(7)]
    [entry, _] = await ledger(lb, "report")
    assert (entry.slot_ms, entry.last_ms, entry.count) == (slots[0], slots[5], 6)
    filler = Filler(lb)
    await lb.jobs.backfill("report", at(slots[first]), at(slots[last] + 1))
    await filler.go_on()
    assert filler.ran == slots[first : last + 1]
    entries = await ledger(lb, "report")
    missed = {(entry.slot_ms, entry.last_ms): entry.count for entry in entries if entry.state == "missed"}
    assert missed == {(slots[a], slots[b]): count for (a, b), count in left.items()}
    assert [entry.slot_ms for entry in entries if entry.state == "done"] == [*slots[first : last + 1], slots[6]]
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await filler.go_on()
    assert sorted(filler.ran) == slots[:6], "and those are fired by another backfill, and nothing twice"
    assert found.known == 7 - found.fired
    assert await states(lb, "report") == ["done"] * 7


@here_and_there
@pytest.mark.parametrize(
    ("period", "left"),
    [
        (120, [(1, 1), (3, 3), (5, 5)]),  # every other slot of then is one of now
        (90, [(1, 2), (4, 5)]),  # one in three is, and the other that are fired lie between
        (20, []),  # all are
        (45, [(1, 2), (4, 5)]),
    ],
)
async def test_slots_of_an_older_trigger_that_were_missed_stay_so_where_the_new_one_has_none(
    lb: Lockbeat, raw: Any, period: int, left: list[tuple[int, int]]
) -> None:
    job, hands = minutely(keep=1000), Hands("report")
    oldest = await overdue(lb, raw, job, back=6)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    assert await lb.tasks.complete(hands.tasks[0])
    slots = [oldest + MINUTE * n for n in range(7)]
    await lb.jobs.put(minutely(keep=1000, trigger=Every(period, at(oldest))))
    filler = Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[6]))
    await filler.go_on()
    assert filler.ran == [*range(oldest, slots[6], period * 1000)]
    missed = [(entry.slot_ms, entry.last_ms) for entry in await ledger(lb, "report") if entry.state == "missed"]
    told = {slot: [(first, last) for first, last in missed if first <= slot <= (last or first)] for slot in slots}
    assert {n for n, slot in enumerate(slots) if told[slot]} == {n for first, last in left for n in range(first, last + 1)}
    assert all(len(entries) < 2 for entries in told.values())
    assert all(first in slots for first, _ in missed), "and no entry is of a time that was no slot"


@here_and_there
async def test_one_that_is_known_among_several_that_were_missed_stays_as_it_is(lb: Lockbeat, raw: Any) -> None:
    """After the clock was set back an entry for several may stand around one that ran."""
    job, hands = minutely(keep=1000), Hands("report")
    oldest = await overdue(lb, raw, job, back=5)
    slots = [oldest + MINUTE * n for n in range(6)]
    shard = lb.jobs.shard_of("report")
    await backdate(lb, raw, "report", slots[2])
    await lb.store.call_row(_shot(lb, job, slots[2]), shard)
    [task] = await claimed(lb)
    assert await lb.tasks.complete(task)
    await backdate(lb, raw, "report", slots[0])
    await scheduler(lb, job, runner=hands).tick(shard)
    assert await lb.tasks.complete(hands.tasks[0])
    filler = Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await filler.go_on()
    assert filler.ran == [slots[0], slots[1], slots[3], slots[4]]
    assert (found.fired, found.known) == (4, 2)
    assert await states(lb, "report") == ["done"] * 6


@here_and_there
async def test_slots_that_the_ledger_has_forgotten_are_left_unless_they_are_asked_for(lb: Lockbeat, raw: Any) -> None:
    job = minutely(keep=8, overlap="allow")
    slots, shard, kept, ran = await hours(lb, 400, job), lb.jobs.shard_of("report"), 0, 0
    while ran < 30 or kept > 11:  # it is trimmed now and then; with five more it is not twice what the job keeps
        await backdate(lb, raw, "report", slots[5 + ran])
        await lb.store.call_row(_shot(lb, job, slots[5 + ran]), shard)
        for task in await claimed(lb):
            await lb.tasks.complete(task)
        kept, ran = len(await ledger(lb, "report")), ran + 1
    slots = slots[: 5 + ran]
    plan = await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1), dry_run=True)
    assert (plan.state, plan.fired, plan.known, plan.unknown, plan.total) == ("planned", 5, kept, ran - kept, 5 + ran)
    assert await lb.jobs.get_backfill("report") is None, "it was only asked"
    filler = Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await filler.go_on()
    assert filler.ran == slots[:5], "before the oldest that was forgotten there was nothing"
    assert (found.fired, found.unknown) == (5, ran - kept)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1), unknown=True)
    found = await filler.go_on()
    assert found.fired == ran - kept
    assert len(set(filler.ran)) == len(filler.ran)


@here_and_there
async def test_a_slot_is_counted_though_the_job_keeps_few_and_newer_ones(lb: Lockbeat, raw: Any) -> None:
    """By the number that the job keeps, a slot of a year ago would be forgotten when it is entered."""
    slots, filler = await hours(lb, 60, minutely(keep=2)), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await filler.go_on()
    assert filler.ran == slots
    assert (found.fired, found.done, found.missed) == (60, 60, 0)
    assert len(await ledger(lb, "report")) <= 4
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    found = await filler.go_on()
    assert filler.ran == slots, "though most are forgotten, none is fired again"
    assert found.unknown + found.known == 60


@here_and_there
async def test_slots_that_come_due_meanwhile_take_no_backfilled_one_from_the_ledger(lb: Lockbeat, raw: Any) -> None:
    job = minutely(keep=4, overlap="allow")
    slots, shard, filler = await hours(lb, 60, job), lb.jobs.shard_of("report"), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[10]))
    tasks = await filler.turn()
    assert len(tasks) == 10
    for slot in slots[20:]:
        await backdate(lb, raw, "report", slot)
        await lb.store.call_row(_shot(lb, job, slot), shard)
    for task in [*tasks, *await claimed(lb)]:
        await lb.tasks.complete(task)
    found = await filler.go_on()
    assert (found.missed, found.done) == (0, 10)


@only("memory")
async def test_it_fires_no_faster_than_its_rate_by_the_servers_clock(lb: Lockbeat) -> None:
    with stopped() as go_to:
        slots, filler = await hours(lb, 31, Job.declare("report", Every(60), overlap="allow")), Filler(lb)
        await lb.jobs.backfill("report", at(slots[0]), at(slots[-1]), rate=0.5)
        for number in range(1, 31):
            await filler.go_on()
            assert len(filler.ran) == number
            go_to(NOON + 2 * number - 0.01)
            await filler.go_on()
            assert len(filler.ran) == number
            go_to(NOON + 2 * number + 0.001)
        assert (await told(lb)).is_over


@only("memory")
async def test_what_a_rate_allowed_while_nobody_was_there_is_not_made_up_for(lb: Lockbeat) -> None:
    with stopped() as go_to:
        slots, filler = await hours(lb, 31, Job.declare("report", Every(60), overlap="allow")), Filler(lb)
        await lb.jobs.backfill("report", at(slots[0]), at(slots[-1]), rate=0.5)
        await filler.go_on()
        go_to(NOON + 20)
        await filler.go_on()
        assert len(filler.ran) == 2


@here_and_there
async def test_one_slot_at_a_time_unless_overlap_is_allow(lb: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfiller, "AT_ONCE", 7)
    for overlap, at_once in (("skip", 1), ("buffer_one", 1), ("buffer_all", 1), ("cancel_other", 1), ("allow", 7)):
        name: str = overlap
        job: Any = minutely(name, overlap=overlap)
        slots = await hours(lb, 20, job)
        filler = Filler(lb, name)
        await lb.jobs.backfill(name, at(slots[0]), at(slots[-1] + 1))
        assert len(await filler.turn()) == at_once
        assert await filler.turn() == []
        assert (await told(lb, name)).running == at_once
        await lb.jobs.delete(name)


@pytest.mark.parametrize("begins", [True, False], ids=["it runs", "no worker has begun it"])
@here_and_there
async def test_a_slot_that_comes_due_waits_for_one_that_is_backfilled(lb: Lockbeat, raw: Any, begins: bool) -> None:
    """Also under overlap skip: to fill a gap must not tear another."""
    job, shard, filler = minutely(), lb.jobs.shard_of("report"), Filler(lb)
    slots = await hours(lb, 10, job)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[5]))
    await filler.filler.tick(shard)
    tasks = await claimed(lb) if begins else []
    await backdate(lb, raw, "report", slots[-1])
    await scheduler(lb, job).tick(shard)
    [entry] = [entry for entry in await ledger(lb, "report") if entry.slot_ms == slots[-1]]
    assert (entry.state, entry.code) == ("fired", "buffered")
    [task] = tasks or await claimed(lb)
    assert task.slot_ms == slots[0]
    assert await filler.turn() == [], "it waits"
    assert await lb.tasks.complete(task)
    [live] = await filler.turn()
    assert live.slot_ms == slots[-1], "it has its turn before the next that is backfilled"
    assert await filler.turn() == []
    assert await lb.tasks.complete(live)
    found = await filler.go_on()
    assert filler.ran == slots[1:5]
    assert (found.done, found.missed, found.cancelled) == (5, 0, 0)


@here_and_there
async def test_it_waits_for_what_runs_and_what_was_triggered(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 3), Filler(lb)
    spawned = await lb.jobs.trigger("report")
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    [task] = await filler.turn()
    assert task.id == spawned.task_id
    assert await filler.turn() == []
    assert await lb.tasks.complete(task)
    assert (await filler.go_on()).done == 3


@here_and_there
async def test_the_window_and_a_pause_of_the_job_are_for_slots_that_come_due(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 5, minutely(catchup="skip", window=1)), Filler(lb)
    await lb.jobs.pause("report")
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    assert (await filler.go_on()).done == 5
    assert (await lb.jobs.get("report")).paused


@only("memory")
async def test_what_has_come_due_and_is_not_fired_is_the_beats(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(), Hands("report")
    oldest = await overdue(lb, raw, job, back=3)
    filler = Filler(lb)
    await lb.jobs.backfill("report", at(oldest))
    found = await filler.go_on()
    assert (found.state, found.fired, found.left) == ("running", 0, 4)
    await scheduler(lb, job, runner=hands).tick(0)
    assert [task.slot_ms for task in hands.tasks] == [oldest + 3 * MINUTE]
    await lb.tasks.complete(hands.tasks[0])
    found = await filler.go_on()
    assert (found.state, found.fired, found.known) == ("done", 3, 1)


@here_and_there
async def test_excluded_slots_are_not_backfilled_and_told_as_such(lb: Lockbeat, raw: Any) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    await lb.calendars.put("holidays", ["2026-01-02 a day off", "2026-01-05"])
    job = Job.declare("report", Every(6 * 3600), exclude=["holidays"])
    await lb.jobs.put(job)
    filler = Filler(lb)
    plan = await lb.jobs.backfill("report", start, start + timedelta(days=5), dry_run=True)
    assert (plan.total, plan.fired, plan.excluded) == (20, 12, 8)
    await lb.jobs.backfill("report", start, start + timedelta(days=4, hours=7))
    found = await filler.go_on()
    assert (found.total, found.fired, found.done, found.excluded) == (18, 12, 12, 6)
    told_of = [entry for entry in await ledger(lb, "report") if entry.state == "skipped"]
    assert [(entry.code, entry.count, entry.detail) for entry in told_of] == [
        ("excluded", 4, "holidays a day off"),
        ("excluded", 2, "holidays"),
    ]
    await lb.calendars.put("holidays", ["2026-01-05"])
    await lb.jobs.backfill("report", start, start + timedelta(days=5))
    found = await filler.go_on()
    assert (found.fired, found.known, found.excluded) == (4, 12, 4), "what they exclude now counts, by whatever instance"
    assert [task_ms % 86_400_000 // 21_600_000 for task_ms in filler.ran[-4:]] == [0, 1, 2, 3]


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


@here_and_there
async def test_airflow_47886_a_backfill_does_not_move_where_the_job_stands(lb: Lockbeat, raw: Any) -> None:
    slots = await hours(lb, 5)
    key, shard = lb.store.keys.key, lb.jobs.shard_of("report")
    before = raw.hget(key(shard, "job:slot"), "report"), raw.zscore(key(shard, "job:due"), "report")
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    await Filler(lb).go_on()
    assert (raw.hget(key(shard, "job:slot"), "report"), raw.zscore(key(shard, "job:due"), "report")) == before


@here_and_there
async def test_airflow_1266_and_temporal_5213_neither_a_slot_more_nor_one_less_than_asked_for(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 9), Filler(lb)
    await lb.jobs.backfill("report", at(slots[2]), at(slots[5]))
    await filler.go_on()
    assert filler.ran == slots[2:5], "from the first on, and before the end"


@here_and_there
async def test_airflow_38954_a_slot_that_takes_long_holds_up_no_others_under_allow(
    lb: Lockbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfiller, "AT_ONCE", 3)
    slots, filler = await hours(lb, 9, minutely(overlap="allow")), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    [long, *others] = sorted(await filler.turn(), key=lambda task: task.slot_ms)
    for task in others:
        await lb.tasks.complete(task)
    found = await filler.go_on()
    assert (found.done, found.running, found.left) == (8, 1, 0)
    await lb.tasks.complete(long)
    assert (await filler.go_on()).state == "done"


@here_and_there
async def test_airflow_72337_what_a_cancelled_backfill_fired_can_be_retried(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 5), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    [task] = await filler.turn()
    await lb.jobs.cancel_backfill("report")
    await lb.tasks.fail(task, "broken")
    assert (await filler.go_on()).failed == 1
    assert await lb.tasks.retry(task.id)
    [again] = await filler.turn()
    assert again.id == task.id
    assert await lb.tasks.complete(again)
    assert await states(lb, "report") == ["done"]


@here_and_there
async def test_airflow_570_what_ends_in_any_way_holds_nothing_up(lb: Lockbeat, raw: Any) -> None:
    """Cancelled before it began, and its record deleted by hand."""
    slots, filler = await hours(lb, 4, minutely(overlap="allow")), Filler(lb)
    shard = lb.jobs.shard_of("report")
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    await filler.filler.tick(shard)
    assert await lb.tasks.cancel(f"report@{slots[0]}")
    deleted, *others = await claimed(lb)
    raw.hdel(lb.store.keys.key(shard, "task"), deleted.id)
    for task in others:
        await lb.tasks.complete(task)
    found = await filler.go_on()
    assert (found.state, found.cancelled, found.missed, found.done) == ("done", 1, 1, 2)


@here_and_there
async def test_airflow_72730_slots_that_come_due_again_and_again_do_not_starve_it(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    slots, filler, beat = await hours(lb, 30, job), Filler(lb), scheduler(lb, job)
    shard = lb.jobs.shard_of("report")
    await lb.jobs.backfill("report", at(slots[0]), at(slots[5]))
    for slot in slots[10:]:
        await backdate(lb, raw, "report", slot)
        await beat.tick(shard)
        for task in await filler.turn():
            filler.ran.append(task.slot_ms)
            await lb.tasks.complete(task)
    assert set(filler.ran) >= {*slots[:5]}, "they take turns"


@here_and_there
async def test_kestra_13873_of_a_time_without_gaps_nothing_is_fired(lb: Lockbeat) -> None:
    slots, filler = await hours(lb, 4), Filler(lb)
    for _ in range(2):
        await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
        found = await filler.go_on()
    assert (found.fired, found.known, found.state) == (0, 4, "done")
    assert filler.ran == slots


# What people are told of it.


@here_and_there
async def test_a_slot_that_was_backfilled_is_told_from_others_for_good(lb: Lockbeat, raw: Any) -> None:
    job, reason = minutely(keep_for=86_400), "ü" * 150
    slots, filler = await hours(lb, 3, job), Filler(lb)
    live = await last_slot(lb, await lb.jobs.get("report"))
    hands = Hands("report")
    await backdate(lb, raw, "report", live)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    await lb.tasks.complete(hands.tasks[0])
    await lb.jobs.backfill("report", at(slots[0]), at(slots[2]), by="anna\x1e", reason=reason)
    [first] = await filler.turn()
    assert (await ledger(lb, "report"))[0].backfill == ("anna ", reason[:100]), "as many characters as 200 bytes hold"
    await lb.tasks.fail(first, "broken")
    await filler.go_on()
    told_of = {entry.slot_ms: (entry.state, entry.backfill, entry.lateness is None) for entry in await ledger(lb, "report")}
    mark = ("anna ", reason[:100])
    assert told_of == {slots[0]: ("failed", mark, True), slots[1]: ("done", mark, True), live: ("done", None, False)}
    assert {entry.slot_ms: entry.backfill for entry in (await lb.jobs.history()).entries} == {
        slot: found for slot, (_, found, _) in told_of.items()
    }
    why = (await lb.jobs.why("report", at(slots[1]))).text
    assert "A backfill fired it at 20" in why
    assert "for it had not run at its time: begun by anna : üü" in why
    assert "after its slot" not in why
    assert "A backfill" not in (await lb.jobs.why("report", at(live))).text
    assert await lb.tasks.retry(first.id)
    [again] = await filler.turn()
    await lb.tasks.complete(again)
    assert {entry.slot_ms: entry.backfill for entry in await ledger(lb, "report")}[slots[0]] == mark, "also after a retry"


async def test_all_backfills_are_listed_in_order_of_job_and_in_pages(lb: Lockbeat) -> None:
    assert await lb.jobs.backfills() == []
    names = [f"job-{n:02}" for n in range(12)]
    for name in names:
        slots = await hours(lb, 3, minutely(name))
        await lb.jobs.backfill(name, at(slots[0]), reason=name)
    await lb.jobs.pause_backfill(names[3])
    await lb.jobs.cancel_backfill(names[5])
    await lb.jobs.put(minutely("without"))
    found = await lb.jobs.backfills()
    assert [(one.job, one.reason) for one in found] == [(name, name) for name in names]
    assert [one.job for one in await lb.jobs.backfills(state="paused")] == [names[3]]
    assert [one.job for one in await lb.jobs.backfills(state="cancelled")] == [names[5]]
    assert [one.job for one in await lb.jobs.backfills(after=names[6], limit=3)] == names[7:10]
    assert await lb.jobs.backfills(after=names[-1]) == []
    states = {state.job.name: state.backfill and state.backfill.state for state in await lb.jobs.list()}
    assert states == dict.fromkeys(names, "running") | {names[3]: "paused", names[5]: None, "without": None}
    for given in ({"state": "odd"}, {"limit": 0}, {"after": ""}):
        with pytest.raises(InvalidArgument):
            await lb.jobs.backfills(**given)


@only("memory", "valkey")
async def test_they_are_listed_though_there_are_many_or_their_places_were_lost(lb: Lockbeat, raw: Any) -> None:
    names = [f"job-{n:02}" for n in range(9)]
    for name in names[::2]:
        slots = await hours(lb, 3, minutely(name))
        await lb.jobs.backfill(name, at(slots[0]))
    await lb.jobs.put(*(minutely(name) for name in names[1::2]))
    raw.delete(lb.store.keys.key(0, "backfill:due"))  # then it goes through the jobs, as where there are many
    assert [one.job for one in await lb.jobs.backfills()] == names[::2]
    assert [one.job for one in await lb.jobs.backfills(after="job-02", limit=2)] == names[4:8:2]


@pytest.fixture
def american(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started now compares texts in the order of en_US."""
    made = ["localedef", "-i", "en_US", "-f", "UTF-8", str(tmp_path / "en_US.UTF-8")]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs localedef and the locale en_US")
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")


@needs("valkey")
@pytest.mark.usefixtures("american")
async def test_they_are_listed_in_one_order_whatever_the_servers_locale() -> None:
    names = ["B", "Z", "a", "a b", "a-b", "ab", "c"]
    with standalone(valkey_binary()) as server:
        assert server.call("EVAL", "return 'a' < 'B' and 1 or 0", 0) == 1, "the server's order is that of the locale"
        async with Lockbeat(server.url) as lb:
            for name in names:
                slots = await hours(lb, 1, minutely(name))
                await lb.jobs.backfill(name, at(slots[0]))
            assert [one.job for one in await lb.jobs.backfills()] == names
            pages, after = list[str](), None
            while page := await lb.jobs.backfills(after=after, limit=2):
                pages, after = pages + [one.job for one in page], page[-1].job
    assert pages == names


# A line that never empties.


async def _comes_due(lb: Lockbeat, raw: Any, job: Job, slot: int) -> None:
    """A slot of the job comes due, and is fired."""
    await backdate(lb, raw, job.name, slot)
    await lb.store.call_row(_shot(lb, job, slot), lb.jobs.shard_of(job.name))


@pytest.mark.parametrize("overlap", ["skip", "buffer_one", "buffer_all"])
@here_and_there
async def test_a_line_that_never_empties_does_not_starve_it_and_it_takes_no_slots_place(
    lb: Lockbeat, raw: Any, overlap: Any
) -> None:
    """Before each end of what runs another slot has come due. Each that waited has its turn, and so has each backfilled one."""
    job = minutely(overlap=overlap, keep=1000, buffer=2) if overlap == "buffer_all" else minutely(overlap=overlap, keep=1000)
    slots, filler, ran = await hours(lb, 60, job), Filler(lb), list[int]()
    await lb.jobs.backfill("report", at(slots[0]), at(slots[5]))
    comes = iter(slots[10:])

    async def due() -> None:
        await _comes_due(lb, raw, job, next(comes))

    for _ in range(3 if overlap == "buffer_all" else 1):
        await due()
    while not (await told(lb)).is_over:
        for task in await filler.turn():
            ran.append(task.slot_ms)
            await due()  # while it runs
            await lb.tasks.complete(task)
    assert [slot for slot in ran if slot < slots[5]] == slots[:5]
    backs = [at for at, slot in enumerate(ran) if slot < slots[5]]
    if overlap != "skip":
        assert all(second - first > 1 for first, second in pairwise(backs)), "between two of them another has its turn"
    found = {entry.slot_ms: (entry.state, entry.code) for entry in await ledger(lb, "report")}
    assert {found[slot][0] for slot in slots[:5]} == {"done"}
    lost = {code for slot, (state, code) in found.items() if state in ("skipped", "missed")}
    assert lost <= {{"skip": "overlap", "buffer_one": "overtaken", "buffer_all": "buffer_full"}[overlap], "overtaken"}
    assert not any(state == "missed" for state, _ in found.values())


@here_and_there
async def test_in_line_it_is_overtaken_by_none_and_counts_as_none(lb: Lockbeat, raw: Any) -> None:
    job = minutely(overlap="buffer_one", keep=1000)
    slots, filler = await hours(lb, 30, job), Filler(lb)
    await _comes_due(lb, raw, job, slots[10])
    [runs] = await claimed(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[1]))
    await filler.turn()
    [entry] = [entry for entry in await ledger(lb, "report") if entry.slot_ms == slots[0]]
    assert (entry.in_line, entry.code) == (True, "buffered")
    assert "in line" in (await lb.jobs.why("report", at(slots[0]))).text
    for slot in slots[11:14]:
        await _comes_due(lb, raw, job, slot)
    assert (await lb.jobs.get("report")).in_line == 2, "the latest slot, and the one of the backfill"
    await lb.tasks.complete(runs)
    for slot in (slots[0], slots[13]):
        [task] = await claimed(lb)
        assert task.slot_ms == slot
        await lb.tasks.complete(task)
    assert (await filler.go_on()).done == 1
    assert {entry.slot_ms: entry.code for entry in await ledger(lb, "report") if entry.state == "skipped"} == dict.fromkeys(
        slots[11:13], "overtaken"
    )


@here_and_there
async def test_a_slot_that_takes_the_place_of_one_that_nobody_began_lets_it_go_first(lb: Lockbeat, raw: Any) -> None:
    job = minutely(keep=1000)
    slots, filler, shard = await hours(lb, 30, job), Filler(lb), lb.jobs.shard_of("report")
    await _comes_due(lb, raw, job, slots[10])  # no worker begins it
    await lb.jobs.backfill("report", at(slots[0]), at(slots[1]))
    filler.filler._mine[shard].look = 0.0
    await filler.filler.tick(shard)
    await _comes_due(lb, raw, job, slots[11])
    for slot in (slots[0], slots[11]):
        [task] = await claimed(lb)
        assert task.slot_ms == slot
        assert await claimed(lb) == [], "one at a time"
        await lb.tasks.complete(task)
    assert (await filler.go_on()).done == 1
    assert await states(lb, "report") == ["done", "missed", "done"]
