"""What a step of the server's clock forward must not do: an instance begins nothing beside its own body that still runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine

from lockbeat import Beat, Fixed, Lockbeat
from lockbeat.jobs import LedgerEntry
from tests.beats import Beats, eventually, now_ms, overdue, states, tasks_of
from tests.conftest import only, wait_until

pytestmark = only("memory")  # whose clock is this process', and can be set


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(time.time(), tick=True) as clock:
        yield clock


class Body:
    """A function that runs until it is told to end; how many ran at once."""

    def __init__(self) -> None:
        self.running = self.most = self.begun = 0
        self.end = threading.Event()

    def __enter__(self) -> None:
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)

    def __exit__(self, *_: object) -> None:
        self.running -= 1


@pytest.mark.parametrize("overlap", ["skip", "allow"])
@pytest.mark.parametrize("kind", ["job", "task"])
async def test_a_step_forward_begins_nothing_beside_a_body_that_cannot_be_stopped(
    lb: Lockbeat, raw: Any, beats: Beats, clock: Any, kind: str, overlap: Any
) -> None:
    """A plain function in its thread: its lease is lost, and it runs on."""
    beat, body = beats(), Body()
    beat.task(name="tick")(lambda: None)

    def work() -> None:
        with body:
            body.end.wait(60)

    if kind == "job":
        beat.every(86_400 * 30, name="work", overlap=overlap, max_attempts=3)(work)
    else:
        beat.task(name="work", max_attempts=3, retry=Fixed(0))(work)
    try:
        async with beat.lifespan():
            if kind == "job":
                await overdue(lb, raw, beat.declared["work"])
                raw.publish(lb.store.bell(0), "job")
            else:
                await beat.spawn("work")
            await wait_until(lambda: body.begun == 1, "it runs", timeout=30)
            clock.shift(60)
            # Time for several claims: each spawn wakes the worker, and the last of them is done after all of them.
            for number in range(5):
                await beat_through(beat, lb, number)
            assert body.begun == 1
            body.end.set()
            await wait_until(lambda: body.running == 0, "it has ended", timeout=30)

            # Nobody has taken it back: it is done. Where the keeper was told that its lease is lost, another attempt follows.
            async def over() -> bool:
                return not [task_id for task_id in tasks_of(raw, lb) if not await ended(lb, task_id)]

            await eventually(over, "it is done, by one attempt or the next", timeout=30)
    finally:
        body.end.set()
    assert body.most == 1


async def beat_through(beat: Beat, lb: Lockbeat, number: int) -> None:
    """Have the worker claim, and run something, once more. Spawned by the beat itself: others take back what has run out."""
    spawned = await beat.spawn("tick")
    await eventually(lambda: ended(lb, spawned.task_id), f"the worker goes on, turn {number}", timeout=30)


async def ended(lb: Lockbeat, task_id: str) -> bool:
    return (await lb.tasks.get(task_id)).state == "done"


async def test_a_body_that_lost_its_lease_by_a_step_is_cancelled_and_its_slot_is_lost_when_it_has_stopped(
    lb: Lockbeat, raw: Any, beats: Beats, clock: Any
) -> None:
    """Renewal revives nothing: what has run out by the server's clock is nobody's."""
    beat, body = beats(), Body()

    @beat.every(86_400 * 30, lease=2)
    async def work() -> None:
        with body:
            await asyncio.sleep(60)

    async with beat.lifespan():
        slot = await overdue(lb, raw, beat.declared["work"])
        raw.publish(lb.store.bell(0), "job")
        await wait_until(lambda: body.running, "it runs", timeout=30)
        clock.shift(60)

        async def lost() -> bool:
            return await states(lb, "work") == ["lost"]

        await eventually(lost, "it is taken back", timeout=30)
        assert body.running == 0
        [entry] = await lb.jobs.ledger("work")
        assert isinstance(entry, LedgerEntry)
        assert entry.slot_ms == slot < await now_ms(lb)
        assert tasks_of(raw, lb) == []
