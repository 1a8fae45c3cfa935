"""What a store has lost of a ledger is unknown to a backfill: it fires none of that again, unless it is told to."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.jobs import Job, LedgerEntry
from tests.backfills import Filler, at, hours
from tests.beats import MINUTE, Hands, backdate, ledger, minutely, now_ms, overdue, scheduler
from tests.conftest import only

here_and_there = only("memory", "valkey")


def lose(lb: Lockbeat, raw: Any, *names: str) -> None:
    for name in names:
        assert raw.delete(lb.store.keys.key(lb.jobs.shard_of("report"), name))


async def mend(lb: Lockbeat) -> None:
    while await lb.store.call("task/mend", lb.jobs.shard_of("report"), limit=100):
        pass


LOSSES = ["task", "ledger:order", "job:counts", "task ledger:order", "task job:counts", "ledger:order job:counts"]


@here_and_there
@pytest.mark.parametrize("newer", [0, 1, 5])
@pytest.mark.parametrize("lost", LOSSES)
async def test_what_ran_before_keys_of_the_ledger_were_lost_is_not_fired_again(
    lb: Lockbeat, raw: Any, lost: str, newer: int
) -> None:
    """Some of it the ledger had forgotten by then, and some slots have run since."""
    slots, filler = await hours(lb, 25, keep=4, overlap="allow"), Filler(lb)
    older, later = slots[:20], slots[20 : 20 + newer]
    await lb.jobs.backfill("report", at(older[0]), at(older[-1] + 1))
    await filler.go_on()
    assert filler.ran == older
    lose(lb, raw, *lost.split(" "))
    await mend(lb)
    if later:
        await lb.jobs.backfill("report", at(later[0]), at(later[-1] + 1), unknown=True)
        await filler.go_on()
    await mend(lb)
    plan = await lb.jobs.backfill("report", at(older[0]), at(older[-1] + 1), dry_run=True)
    assert (plan.fired, plan.known + plan.unknown) == (0, 20)
    await lb.jobs.backfill("report", at(older[0]), at(older[-1] + 1))
    await filler.go_on()
    assert filler.ran == [*older, *later], "nobody knows whether they ran"
    await lb.jobs.backfill("report", at(older[0]), at(older[-1] + 1), unknown=True)
    assert (await filler.go_on()).fired >= plan.unknown > 0


async def come_due(lb: Lockbeat, raw: Any, job: Job, hands: Hands) -> None:
    """The next slot of the job comes due, and an instance looks."""
    state = await lb.jobs.get("report")
    assert state.next is not None
    await backdate(lb, raw, "report", state.next.slot_ms, await now_ms(lb))
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))


@here_and_there
@pytest.mark.parametrize("lost", ["job:counts", "ledger:order job:counts"])
async def test_a_slot_that_is_fired_before_anybody_looks_hides_no_loss(lb: Lockbeat, raw: Any, lost: str) -> None:
    """The counts begin anew with it, and what they said of forgotten slots is gone."""
    job, hands = minutely(keep=4, overlap="allow"), Hands("report")
    slots, filler = await hours(lb, 20, job), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    await filler.go_on()
    lose(lb, raw, *lost.split(" "))
    await come_due(lb, raw, job, hands)
    assert len(hands.tasks) == 1
    await mend(lb)
    plan = await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1), dry_run=True)
    assert (plan.fired, plan.known + plan.unknown) == (0, 20)


@here_and_there
async def test_a_slot_that_ran_while_the_ledger_lost_it_is_not_fired_again(lb: Lockbeat, raw: Any) -> None:
    """Though the ledger has as many entries as the job was fired: another slot was skipped meanwhile."""
    job, hands = minutely(), Hands("report")
    await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    [task] = hands.tasks
    lose(lb, raw, "ledger:order")
    await come_due(lb, raw, job, hands)
    assert (await lb.jobs.get("report")).counts.skipped == 1
    assert await lb.tasks.complete(task)
    assert task.slot_ms is not None
    plan = await lb.jobs.backfill("report", at(task.slot_ms), at(task.slot_ms + 1), dry_run=True)
    assert (plan.fired, plan.unknown) == (0, 1)


@here_and_there
@pytest.mark.parametrize("lost", ["ledger:order", "ledger:order job:counts"])
async def test_a_ledger_that_was_lost_is_listed_again_with_every_reason(lb: Lockbeat, raw: Any, lost: str) -> None:
    """What was not fired is of no instance: only its record tells why."""
    job, hands = minutely(), Hands("report")
    await overdue(lb, raw, job, back=2)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    assert await lb.tasks.complete(hands.tasks[0])

    async def told() -> tuple[list[LedgerEntry], Any]:
        return await ledger(lb, "report"), (await lb.jobs.history()).entries

    before = await told()
    assert [(entry.state, entry.code) for entry in before[0]] == [("missed", "not_fired"), ("done", None)]
    lose(lb, raw, *lost.split(" "))
    assert await ledger(lb, "report") == []
    await mend(lb)
    assert await told() == before
    assert await lb.jobs.delete("report")
    assert not raw.exists(lb.store.keys.key(lb.jobs.shard_of("report"), "task"))


@only("memory")
async def test_what_was_never_lost_is_not_unknown(lb: Lockbeat) -> None:
    """Slots before a job was declared are fired, whatever it has run, forgotten and been put to since."""
    slots, filler = await hours(lb, 60, keep=8, overlap="allow"), Filler(lb)
    for first in (40, 20):
        await lb.jobs.backfill("report", at(slots[first]), at(slots[first + 19] + 1))
        await filler.go_on()
    await lb.jobs.put(minutely(keep=2, overlap="allow"))
    await lb.jobs.backfill("report", at(slots[10]), at(slots[20]))
    assert (await filler.go_on()).fired == 10
    await lb.jobs.put(minutely(keep=100, overlap="allow"))
    await lb.jobs.backfill("report", at(slots[0]), at(slots[20]))
    found = await filler.go_on()
    assert (found.fired, found.fired + found.unknown + found.known) == (10, 20)
    assert len(filler.ran) == len(set(filler.ran)) == 60


@here_and_there
async def test_what_a_pause_still_holds_back_is_backfilled_and_not_told_of_twice(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    first = await overdue(lb, raw, job, back=9)
    slots, filler = [first + MINUTE * n for n in range(10)], Filler(lb)
    assert await lb.jobs.pause("report", "repair", by="anna")
    await lb.jobs.backfill("report", at(slots[3]), at(slots[7]))
    assert (await filler.go_on()).done == 4
    assert filler.ran == slots[3:7]
    resumed = await lb.jobs.resume("report", by="anna")
    assert resumed is not None
    assert resumed.first_slot == at(slots[7])
    entries = [(entry.state, entry.code, entry.slot_ms, entry.last_ms) for entry in await ledger(lb, "report")]
    assert entries[0] == ("skipped", "paused", slots[0], slots[2])
    assert [entry[2] for entry in entries[1:5]] == slots[3:7]
    assert entries[5][:3] == ("skipped", "paused", slots[7])
    assert len(entries) == 6
    assert {entry.detail for entry in await ledger(lb, "report") if entry.code == "paused"} == {"anna: repair"}


@here_and_there
async def test_an_emptied_store_ends_a_backfill_and_what_is_left_of_it_begins_nothing(lb: Lockbeat, raw: Any) -> None:
    """Nothing is known of it any more: neither is it gone on with, nor does an attempt of before end anything."""
    slots, filler, other = await hours(lb, 9), Filler(lb), Filler(lb)
    await lb.jobs.backfill("report", at(slots[0]), at(slots[-1] + 1))
    for _ in range(3):
        [task] = await filler.turn()
        await lb.tasks.complete(task)
    [task] = await filler.turn()
    raw.flushall()
    assert await filler.turn() == await other.turn() == []
    assert not await lb.tasks.complete(task)
    instance = scheduler(lb, minutely())
    await instance.register()
    assert await lb.jobs.get_backfill("report") is None
    assert await filler.turn() == await other.turn() == []
    await instance.tick(lb.jobs.shard_of("report"))
    assert await ledger(lb, "report") == []
    await lb.jobs.backfill("report", at(slots[4]), at(slots[-1] + 1))
    assert (await other.go_on()).done == 5
    assert other.ran == slots[4:]
