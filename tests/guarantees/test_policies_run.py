"""The policies of a job where a real worker runs its functions: what is cancelled stops, and what waited begins."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest

from lockbeat import Lockbeat, Run
from tests.beats import Beats, backdate, eventually, ledger, now_ms
from tests.conftest import only, wait_until

pytestmark = only("memory", "valkey")


async def test_cancel_other_begins_the_next_slot_when_the_body_has_stopped(beats: Beats) -> None:
    told: list[tuple[str, int]] = []
    beat = beats()

    @beat.every(1, overlap="cancel_other")
    async def job(run: Run) -> None:
        slot = round(run.slot.timestamp())
        told.append(("began", slot))
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            told.append(("stopped", slot))

    async with beat.lifespan():
        await wait_until(lambda: len(told) >= 5, "two bodies made way")
    slots = [slot for what, slot in told if what == "began"]
    assert told[:5] == [
        ("began", slots[0]),
        ("stopped", slots[0]),
        ("began", slots[1]),
        ("stopped", slots[1]),
        ("began", slots[2]),
    ]


async def test_buffer_all_runs_one_after_the_other_and_none_is_lost(beats: Beats) -> None:
    began: list[datetime] = []
    running: list[Any] = []
    first, beat = asyncio.Event(), beats()

    @beat.every(1, overlap="buffer_all")
    async def job(run: Run) -> None:
        began.append(run.slot)
        running.append(run)
        assert len(running) == 1
        if len(began) == 1:
            await first.wait()
        running.remove(run)

    async with beat.lifespan():

        async def in_line() -> bool:
            return (await beat.jobs.get("job")).in_line >= 2

        await eventually(in_line, "slots wait in line")
        assert len(began) == 1
        first.set()
        await wait_until(lambda: len(began) >= 4, "those in line, and one of now")
    assert [slot - began[0] for slot in began[:4]] == [timedelta(seconds=number) for number in range(4)]


@pytest.mark.parametrize("overlap", ["skip", "allow"])
async def test_catch_up_all_runs_what_an_outage_missed(beats: Beats, lb: Lockbeat, raw: Any, overlap: Any) -> None:
    ran: list[int] = []
    running, beat = 0, beats()

    @beat.every(1, overlap=overlap, catchup="all", cap=3)
    async def job(run: Run) -> None:
        nonlocal running
        running += 1
        assert running == 1 or overlap == "allow"
        ran.append(round(run.slot.timestamp()))
        await asyncio.sleep(0)
        running -= 1

    await lb.jobs.put(beat.declared["job"])
    since = await now_ms(lb) // 1000 - 30
    await backdate(lb, raw, "job", since * 1000)
    async with beat.lifespan():
        await wait_until(lambda: len(ran) >= 4, "what was missed, and one of now")
        entries = await ledger(lb, "job")
        [missed] = [entry for entry in entries if entry.state == "missed"]
    # A busy machine is behind: what comes due meanwhile is skipped for those that are caught up with.
    behind = {entry.slot_ms // 1000 for entry in entries if entry.state == "skipped" and overlap == "skip"}
    assert {*ran} == {*range(min(ran), max(ran) + 1)} - behind
    assert min(ran) == ran[0] or overlap == "allow"
    assert len({*ran}) == len(ran)
    assert ran == sorted(ran) or overlap == "allow"
    assert min(ran) > since + 20
    assert missed.slot_ms == since * 1000
    assert missed.last_ms == (min(ran) - 1) * 1000


async def test_so_many_failures_pause_a_job_at_once(lb: Lockbeat, beats: Beats, raw: Any) -> None:
    """Not when its next slot comes due, which is a year off."""
    beat, slots = beats(), list[Any]()

    @beat.every(366 * 86_400, pause_after=2)
    async def job(run: Run) -> None:
        slots.append(run.slot)
        raise RuntimeError("broken")

    async def failed() -> bool:
        return [entry.state for entry in await ledger(lb, "job")].count("failed") == len(slots)

    async def paused() -> bool:
        return (await lb.jobs.get("job")).paused is not None

    async with beat.lifespan():
        for number in (1, 2):
            assert not await paused()
            await backdate(lb, raw, "job", await now_ms(lb) - 10_000)
            await lb.jobs.put(dataclasses.replace(beat.declared["job"], priority=number))  # which rings
            await wait_until(lambda number=number: len(slots) == number, "it ran")  # type: ignore[misc]
            await eventually(failed, "it has failed")
        await eventually(paused, "it is paused")
    state = await lb.jobs.get("job")
    assert state.paused is not None
    assert (state.paused.by, state.paused.reason) == ("pause_after", "2 failures in a row")
