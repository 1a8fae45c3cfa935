"""The beat, for a newcomer: one concept a test, public API only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from lockbeat import Beat, Fixed, Lockbeat, Run
from tests.conftest import wait_until


@pytest.fixture
def make_beat(url: str, namespace: str, shards: int) -> Callable[[], Beat]:
    """What `Beat("redis://…")` is in your program."""
    return lambda: Beat(url, namespace=namespace, shards=shards, grace=1)


@pytest.fixture
def beat(make_beat: Callable[[], Beat]) -> Beat:
    return make_beat()


async def test_a_function_runs_every_so_often(beat: Beat) -> None:
    ran = []

    @beat.every(0.1)
    async def tick() -> None:
        ran.append(1)

    async with beat.lifespan():
        await wait_until(lambda: len(ran) >= 3, "it runs")


async def test_it_is_told_the_slot_that_it_stands_for(beat: Beat) -> None:
    runs: list[Run] = []

    @beat.every(timedelta(milliseconds=200))
    async def report(run: Run) -> None:
        runs.append(run)

    async with beat.lifespan():
        await wait_until(lambda: runs, "it runs")
    slot = runs[0].slot
    assert slot is not None
    assert slot.microsecond % 200_000 == 0, "slots are counted from the epoch, whenever the program started"


async def test_several_instances_run_each_slot_once(make_beat: Callable[[], Beat]) -> None:
    slots = []

    async def report(run: Run) -> None:
        slots.append(run.slot)

    beats = [make_beat() for _ in range(3)]
    for beat in beats:
        beat.every(0.1)(report)
    async with beats[0].lifespan(), beats[1].lifespan(), beats[2].lifespan():
        await wait_until(lambda: len(slots) >= 5, "they run")
    assert len(slots) == len(set(slots))


async def test_a_plain_function_runs_in_a_thread(beat: Beat) -> None:
    ran = []

    @beat.every(0.1)
    def blocking() -> None:
        ran.append(1)

    async with beat.lifespan():
        await wait_until(lambda: ran, "it runs")


async def test_cron_lines_may_have_seconds_and_a_time_zone(beat: Beat, lb: Lockbeat) -> None:
    @beat.cron("*/5 * * * *", timezone="Europe/Berlin")
    async def five() -> None: ...

    @beat.cron("30 0 0 1 1 *", name="new year")
    async def salute() -> None: ...

    async with beat.lifespan():
        [soon] = await beat.jobs.next("five", 1)
        assert soon - datetime.now(UTC) <= timedelta(minutes=5)
        [new_year] = await lb.jobs.next("new year", 1)
        assert (new_year.month, new_year.day, new_year.second) == (1, 1, 30)


async def test_at_runs_once(beat: Beat) -> None:
    ran = []

    @beat.at(datetime.now(UTC) + timedelta(seconds=2))
    async def launch(run: Run) -> None:
        ran.append(run.slot)

    async with beat.lifespan():
        await wait_until(lambda: ran, "it runs")
        assert await beat.jobs.next("launch") == []
    assert len(ran) == 1


async def test_a_slot_that_comes_while_the_job_still_runs_is_skipped_and_the_ledger_says_so(beat: Beat) -> None:
    @beat.every(0.3)
    async def slow() -> None:
        await asyncio.sleep(0.5)

    async with beat.lifespan():
        found: list[str] = []
        while "skipped" not in found:
            found = [entry.state for entry in await beat.jobs.ledger("slow")]
            await asyncio.sleep(0.01)
        entry = next(entry for entry in await beat.jobs.ledger("slow") if entry.state == "skipped")
    assert entry.reason is not None
    assert entry.reason.startswith("overlap: slow@")


async def test_overlap_allow_runs_both(beat: Beat) -> None:
    running: list[int] = []
    most: list[int] = []

    @beat.every(0.1, overlap="allow")
    async def slow() -> None:
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0.35)
        running.pop()

    async with beat.lifespan():
        await wait_until(lambda: max(most, default=0) > 1, "they overlap")


async def test_a_failure_is_tried_again_when_you_ask_for_it(beat: Beat) -> None:
    attempts: list[int] = []

    @beat.every(0.5, max_attempts=3, retry=Fixed(0.01))
    async def flaky(run: Run) -> None:
        attempts.append(run.attempt)
        if run.attempt < 3:
            raise RuntimeError("not yet")

    async with beat.lifespan():
        await wait_until(lambda: attempts[:3] == [1, 2, 3], "it is tried again")


async def test_the_ledger_says_what_became_of_each_slot(beat: Beat) -> None:
    @beat.every(0.1)
    async def fails() -> None:
        raise ValueError("no luck")

    async with beat.lifespan():
        while not (ended := [entry for entry in await beat.jobs.ledger("fails") if entry.state == "failed"]):
            await asyncio.sleep(0.01)
    assert ended[0].reason is not None
    assert "ValueError: no luck" in ended[0].reason


async def test_serve_ends_when_it_is_cancelled_and_lets_work_finish(beat: Beat) -> None:
    events: list[str] = []

    @beat.every(0.1)
    async def work() -> None:
        events.append("began")
        await asyncio.sleep(0.2)
        events.append("ended")

    serving = asyncio.create_task(beat.serve())
    await wait_until(lambda: events, "it runs")
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert events.count("began") == events.count("ended")
