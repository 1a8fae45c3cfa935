"""Slots of a backfill that wait in line are overtaken by none, and take nobody's place."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.jobs import Job
from tests.backfills import Filler, at, claimed, hours, told
from tests.beats import backdate, ledger, minutely, shot, states
from tests.conftest import only

here_and_there = only("memory", "valkey")


async def _comes_due(lb: Lockbeat, raw: Any, job: Job, slot: int) -> None:
    """A slot of the job comes due, and is fired."""
    await backdate(lb, raw, job.name, slot)
    await lb.store.call_row(shot(lb, job, slot), lb.jobs.shard_of(job.name))


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
