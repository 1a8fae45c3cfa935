"""A backfill fires each past slot once, under its own identity, and none that has run, whoever dies meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Lockbeat, Task
from lockbeat.jobs import Job, backfiller
from lockbeat.store.records import JobCounts
from lockbeat.triggers import Every
from tests.backfills import Filler, at, claimed, claimed_in_order, hours, told
from tests.beats import MINUTE, Hands, backdate, ledger, minutely, overdue, scheduler, shot, states
from tests.conftest import only
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
        await lb.store.call_row(shot(lb, job, slot), shard)
    done, failed, cancelled, waiting, runs, tried = await claimed_in_order(lb)
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
    await lb.store.call_row(shot(lb, job, slots[2]), shard)
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
        await lb.store.call_row(shot(lb, job, slots[5 + ran]), shard)
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
        await lb.store.call_row(shot(lb, job, slot), shard)
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
