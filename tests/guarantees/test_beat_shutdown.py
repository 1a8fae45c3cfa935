"""Promises 8 and 10: whenever an instance is ended, it lets its work finish for a while and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from lockbeat import Beat, Lockbeat, Run
from lockbeat.errors import StoreUnavailable
from tests import servers
from tests.beats import Beats, eventually, held_by, ledger, overdue, states, tasks_of
from tests.conftest import only, wait_until
from tests.servers import Server

ROOT = Path(__file__).parents[2]


async def end(serving: asyncio.Task[None], within: float = 30.0) -> None:
    """Cancel it, and wait for its end."""
    serving.cancel()
    await asyncio.wait([serving], timeout=within)
    assert serving.done(), f"it did not end within {within:g} s"
    assert serving.cancelled()


async def test_cancelled_at_any_moment_it_leaves_no_lease(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    turns = [*range(0, 40, 3), 60, 90, 140, 250]
    for number, most in enumerate(turns):
        beat = beats(owner=f"owner-{number}", grace=0.02)

        def declare(beat: Beat = beat) -> None:
            @beat.every(0.01, overlap="allow", max_attempts=3)
            async def both() -> None:
                await asyncio.sleep(0.1)

            @beat.every(0.01, lease=30)
            async def quick() -> None:
                await asyncio.sleep(0)

            @beat.every(0.02, lease=30)
            def plain() -> None:
                threading.Event().wait(0.005)

        declare()
        serving = asyncio.create_task(beat.serve())
        for _ in range(most):
            await asyncio.sleep(0.0002)
        await end(serving)
        assert held_by(raw, lb.store, f"owner-{number}") == [], f"after {most} turns"


async def test_what_runs_may_finish_within_grace(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat, events = beats(grace=5, owner="me"), []

    @beat.every(0.2)
    async def work(run: Run) -> None:
        events.append("began")
        await asyncio.sleep(0.5)
        events.append("ended")

    serving = asyncio.create_task(beat.serve())
    await wait_until(lambda: events, "it runs")
    await end(serving)
    assert events == ["began", "ended"], "and nothing was begun after"
    assert (await states(lb, "work")).count("done") == 1
    assert held_by(raw, lb.store, "me") == []


async def test_what_does_not_finish_is_cut_short_and_not_run_again(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    """max_attempts 1: a body that began is not begun again, whatever ends it."""
    beat, other, slots = beats(grace=0.05), beats(), []

    async def long(run: Run) -> None:
        slots.append(run.slot)
        await asyncio.sleep(30)

    for each in (beat, other):
        each.every(0.3, lease=60)(long)
    serving = asyncio.create_task(beat.serve())
    await wait_until(lambda: slots, "it runs")
    await end(serving)
    entry = (await ledger(lb, "long"))[0]
    assert (entry.state, entry.reason) == ("failed", "cut short: the instance was shut down")
    async with other.lifespan():
        await wait_until(lambda: len(slots) > 1, "the next slot runs at once: nothing holds the job's lock", timeout=15)
    assert len(set(slots)) == len(slots)


async def test_what_may_be_tried_again_goes_on_elsewhere_at_once(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    """Not after its lease of 30 s."""
    beat, other, attempts = beats(grace=0.05, owner="one"), beats(owner="two"), []

    async def long(run: Run) -> None:
        attempts.append((run.slot, run.attempt))
        await asyncio.sleep(30 if run.attempt == 1 else 0)

    for each in (beat, other):
        each.every(60, lease=30, max_attempts=2)(long)
    await overdue(lb, raw, beat.declared["long"])
    serving = asyncio.create_task(beat.serve())
    await wait_until(lambda: attempts, "it runs")
    async with other.lifespan():
        await end(serving)
        await wait_until(lambda: len(attempts) > 1, "the other goes on", timeout=15)
        assert attempts[1] == (attempts[0][0], 2)

        async def done() -> bool:
            return (await states(lb, "long"))[0] == "done"

        await eventually(done, "it ends well")
    entry = (await ledger(lb, "long"))[0]
    assert (entry.by, entry.attempt) == ("two", 2)


@only("memory", "valkey")
async def test_a_thread_that_does_not_end_holds_nobody_up(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    """It can't be stopped: its lease is left to expire, or another instance would start beside it."""
    beat, release, began = beats(grace=0.05, timeout=2, owner="me"), threading.Event(), threading.Event()

    @beat.every(0.2, lease=30)
    def stuck() -> None:
        began.set()
        release.wait(60)

    serving = asyncio.create_task(beat.serve())
    try:
        await wait_until(began.is_set, "it runs")
        await end(serving)
        [entry] = [entry for entry in await ledger(lb, "stuck") if entry.state == "fired"]
        assert await lb.locks.owner("job:stuck") == "me"
        assert tasks_of(raw, lb) == [entry.task_id]
    finally:
        release.set()


async def test_an_instance_that_leaves_is_no_longer_listed(lb: Lockbeat, beats: Beats) -> None:
    beat = beats(owner="me")

    async def listed() -> bool:
        return [row[0] for row in await lb.store.call("beat/instances", 0, limit=100)] == [b"me"]

    async with beat.lifespan():
        await eventually(listed, "it is listed")
    assert not await listed()


async def test_lifespan_lets_the_applications_own_error_through(beats: Beats) -> None:
    with pytest.raises(ValueError, match="the app's own"):
        async with beats().lifespan():
            raise ValueError("the app's own")


async def test_lifespan_can_be_cancelled(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    entered = asyncio.Event()

    async def app() -> None:
        async with beats(owner="me").lifespan():
            entered.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(app())
    await entered.wait()
    await end(task)
    assert held_by(raw, lb.store, "me") == []


async def test_lifespan_ends_with_the_task_group_it_is_in(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    """As in an application built on anyio: its scope is cancelled, and stays so while the beat shuts down."""
    beat, events = beats(owner="me", grace=5), []

    @beat.every(0.1)
    async def work() -> None:
        events.append("began")
        await asyncio.sleep(0.3)
        events.append("ended")

    async def app() -> None:
        async with beat.lifespan():
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(app)
        await wait_until(lambda: events, "it runs")
        group.cancel_scope.cancel()
    assert events.count("began") == events.count("ended")
    assert held_by(raw, lb.store, "me") == []


def nobody() -> str:
    """A URL where nothing listens."""
    return f"redis://127.0.0.1:{servers.free_port()}"


async def test_a_store_that_is_away_at_the_start_is_said_plainly() -> None:
    with pytest.raises(StoreUnavailable):
        await Beat(nobody(), timeout=0.2).serve()
    with pytest.raises(StoreUnavailable):
        async with Beat(nobody(), timeout=0.2).lifespan():
            pytest.fail("it is not serving")


def test_run_says_so_too() -> None:
    with pytest.raises(StoreUnavailable):
        Beat(nobody(), timeout=0.2).run()


PROGRAM = """
import asyncio, sys
from lockbeat import Beat
beat = Beat(sys.argv[1], namespace=sys.argv[2], grace=60, owner="program")
@beat.every(0.1)
async def work():
    print("began", flush=True)
    await asyncio.sleep(float(sys.argv[3]))
    print("ended", flush=True)
beat.run()
print("returned", flush=True)
"""


def program(server: Server, namespace: str, seconds: float) -> subprocess.Popen[str]:
    """A process that runs a beat, and has begun an attempt of so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, namespace, str(seconds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_work_finish_and_ends_the_process_well(server: Server, namespace: str, number: signal.Signals) -> None:
    process = program(server, namespace, 0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert out == "ended\nreturned\n"
    assert err == ""
    with server.client() as client:
        assert client.hgetall(f"{{{namespace}:0}}:task:lease") == {}


def test_a_second_signal_ends_it_at_once(server: Server, namespace: str) -> None:
    process = program(server, namespace, 100)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # sent twice, it is one signal
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.7)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 128 + signal.SIGTERM
    assert out == ""
