"""When a task is tried again, how long an attempt is leased, and how a shutdown leaves it to others."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from lockbeat import Exponential, Fixed, Lockbeat, Run
from lockbeat.errors import InvalidArgument
from lockbeat.tasks import NewTask
from lockbeat.worker import worker as worker_module
from tests.beats import Beats, eventually, held_by
from tests.conftest import only, wait_until
from tests.guarantees.test_beat_shutdown import end
from tests.tasks import NOON, end_of, state, stopped

# -- attempts


async def test_a_task_is_leased_for_as_long_as_it_says(lb: Lockbeat, beats: Beats) -> None:
    """Whoever claims it, for whatever; and of `spawn` and `@beat.task`, `spawn` has the last word."""
    await lb.tasks.spawn("t", lease=600)
    [task] = await lb.tasks.claim("default", "me", lease=5)
    assert task.lease_ms == 600_000
    assert task.expires_at > await lb.store.server_time() + 500
    beat = beats()

    @beat.task(lease=600, queue="other")
    async def patient() -> None: ...

    async with beat.lifespan(work=False):
        await beat.spawn(patient)
        await beat.spawn(patient, lease=300)
    assert [task.lease_ms for task in await lb.tasks.claim("other", "me", limit=2)] == [600_000, 300_000]
    with pytest.raises(InvalidArgument, match=r"^lease: "):
        await lb.tasks.spawn("t", lease=0.05)
    with pytest.raises(InvalidArgument, match=r"^stall: "):
        beats(stall=0)


@only("memory")
async def test_retries_come_by_the_policy_to_the_millisecond_of_the_servers_clock(lb: Lockbeat, beats: Beats) -> None:
    beat, begun = beats(), []

    @beat.task(max_attempts=5, retry=Exponential(0.5, factor=3, max=2, jitter=0))
    async def flaky(run: Run) -> None:
        begun.append((run.attempt, run.slot.timestamp()))
        raise ValueError(f"attempt {run.attempt}")

    with stopped() as to:
        async with beat.lifespan():
            task_id, moment = (await beat.spawn(flaky)).task_id, NOON
            for attempt, delay in enumerate((0.5, 1.5, 2.0, 2.0), start=1):

                async def failed(attempt: int = attempt) -> bool:
                    info = await lb.tasks.get(task_id)
                    return info.failure is not None and info.failure.message == f"attempt {attempt}" and info.state == "waiting"

                await eventually(failed, f"attempt {attempt} has failed, and another follows")
                assert begun[-1] == (attempt, moment)
                moment += delay
                assert (await lb.tasks.get(task_id)).due_at == moment
                to(moment - 0.001)
                assert await lb.tasks.claim("default", "early") == [], "a millisecond before, nobody gets it"
                to(moment)
            info = await end_of(lb, task_id)
    assert begun[-1] == (5, moment)
    assert (info.state, info.attempts) == ("dead", 5)


@pytest.mark.parametrize(("retry", "pauses"), [(Fixed(0.15), (0.15, 0.15)), (Exponential(0.1, 2), (0.1, 0.2)), (None, (0, 0))])
async def test_no_retry_begins_before_its_time(lb: Lockbeat, beats: Beats, retry: Any, pauses: tuple[float, ...]) -> None:
    beat, moments = beats(), []

    @beat.task(max_attempts=3, retry=retry)
    async def flaky(run: Run) -> None:
        moments.append((run.slot.timestamp(), await lb.store.server_time()))
        raise ValueError

    async with beat.lifespan():
        await end_of(lb, (await beat.spawn(flaky)).task_id)
    assert len(moments) == 3
    for (_, before), (due, began), pause in zip(moments, moments[1:], pauses, strict=False):
        assert began >= due >= before + pause - 0.0011


async def test_attempts_that_are_used_up_leave_it_dead_with_its_last_error(lb: Lockbeat, beats: Beats) -> None:
    beat, attempts = beats(), []

    @beat.task(max_attempts=3, retry=None)
    async def hopeless(run: Run) -> None:
        attempts.append(run.attempt)
        raise ValueError(f"attempt {run.attempt}")

    async with beat.lifespan():
        spawned = await beat.spawn(hopeless)
        info = await end_of(lb, spawned.task_id)
        assert attempts == [1, 2, 3]
        assert (info.state, info.attempts) == ("dead", 3)
        assert info.failure is not None
        assert info.failure.message == "attempt 3"
        assert [dead.id for dead in await lb.tasks.dead()] == [spawned.task_id]
        assert await lb.tasks.redrive() == 1
        await wait_until(lambda: attempts == [1, 2, 3, 1, 2, 3], "it is tried anew")


@only("valkey")
async def test_a_body_that_runs_longer_than_its_lease_keeps_it(
    lb: Lockbeat, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "CLAIM_LEASE_MS", 4000)
    beat, rival, attempts = beats(), beats(), []

    async def long(run: Run) -> None:
        attempts.append(run.attempt)
        await asyncio.sleep(5)

    for each in (beat, rival):
        each.task(long)
    async with beat.lifespan(), rival.lifespan():
        info = await end_of(lb, (await beat.spawn(long)).task_id)
    assert (info.state, info.attempts, attempts) == ("done", 1, [1])


@only("valkey")
async def test_a_worker_whose_event_loop_is_blocked_for_a_whole_lease_loses_nothing_and_doubles_nothing(
    lb: Lockbeat, beats: Beats, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper renews from a thread of its own."""
    monkeypatch.setattr(worker_module, "CLAIM_LEASE_MS", 4000)
    beat, ran, go, stolen, over = beats(), [], asyncio.Event(), [], threading.Event()

    def rob() -> None:
        """Another instance, in another loop: it sweeps what expires, and takes whatever there is."""

        async def claim() -> None:
            async with Lockbeat(url, namespace=namespace) as thief:
                while not over.is_set():
                    stolen.extend(await thief.tasks.claim("default", "thief", 50))
                    await asyncio.sleep(0.02)

        asyncio.run(claim())

    robber = threading.Thread(target=rob)

    @beat.task(max_attempts=5)
    async def waits(run: Run) -> None:
        ran.append(run.task_id)
        await go.wait()

    @beat.task(max_attempts=5)
    async def blocks(run: Run) -> None:
        ran.append(run.task_id)
        robber.start()
        time.sleep(5)  # noqa: ASYNC251 - that is what is tested
        go.set()

    async with beat.lifespan():
        try:
            spawned = await lb.tasks.spawn_many([NewTask("waits")] * 20)
            await wait_until(lambda: len(ran) == 20, "they run")
            spawned.append(await beat.spawn(blocks))
            infos = [await end_of(lb, one.task_id) for one in spawned]
        finally:
            over.set()
            await asyncio.to_thread(robber.join)
    assert stolen == []
    assert {(info.state, info.attempts) for info in infos} == {("done", 1)}
    assert sorted(ran) == sorted(one.task_id for one in spawned)


# -- shutting down


async def test_what_runs_ends_within_grace_and_the_rest_is_left_to_others(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat, other = beats(concurrency=2, grace=5, owner="one"), beats(owner="two")
    ran: list[tuple[str, int]] = []

    async def job(run: Run) -> None:
        ran.append((run.owner, run.attempt))
        if run.owner == "one":
            await asyncio.sleep(0.4)

    for each in (beat, other):
        each.task(max_attempts=1)(job)
    spawned = await lb.tasks.spawn_many([NewTask("job", max_attempts=1)] * 10)
    serving = asyncio.create_task(beat.serve())
    await wait_until(lambda: len(ran) == 2, "two of them run")
    await end(serving)
    assert ran == [("one", 1)] * 2, "nothing was begun after"
    assert held_by(raw, lb.store, "one") == []
    assert sorted([await state(lb, one.task_id) for one in spawned]) == ["done"] * 2 + ["waiting"] * 8
    async with other.lifespan():
        infos = [await end_of(lb, one.task_id) for one in spawned]
    assert {(info.state, info.attempts) for info in infos} == {("done", 1)}
    assert sorted(ran) == [("one", 1)] * 2 + [("two", 1)] * 8


async def test_what_does_not_end_within_grace_goes_on_elsewhere_at_once(
    lb: Lockbeat, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after its lease, of an hour here, nor after the pause of its policy."""
    monkeypatch.setattr(worker_module, "CLAIM_LEASE_MS", 3_600_000)
    beat, other = beats(grace=0.05, owner="one"), beats(owner="two")
    attempts: list[tuple[str, int]] = []

    async def long(run: Run) -> str:
        attempts.append((run.owner, run.attempt))
        await asyncio.sleep(60 if run.owner == "one" else 0)
        return run.owner

    for each in (beat, other):
        each.task(max_attempts=2, retry=Fixed(3600))(long)
    serving = asyncio.create_task(beat.serve())
    spawned = await lb.tasks.spawn("long", max_attempts=2, retry=Fixed(3600))
    await wait_until(lambda: attempts, "it runs")
    async with other.lifespan():
        await end(serving)
        info = await end_of(lb, spawned.task_id)
    assert attempts == [("one", 1), ("two", 2)]
    assert (info.state, info.result) == ("done", "two")


async def test_a_last_attempt_that_is_cut_short_is_not_begun_again(lb: Lockbeat, beats: Beats) -> None:
    beat, began = beats(grace=0.05), asyncio.Event()

    @beat.task(max_attempts=1)
    async def long() -> None:
        began.set()
        await asyncio.sleep(60)

    serving = asyncio.create_task(beat.serve())
    spawned = await lb.tasks.spawn("long", max_attempts=1)
    await asyncio.wait_for(began.wait(), 30)
    await end(serving)
    info = await lb.tasks.get(spawned.task_id)
    assert info.state == "dead"
    assert info.failure is not None
    assert info.failure.type == "CutShort"


async def test_attempts_that_were_not_begun_are_not_counted_whenever_an_instance_ends(
    lb: Lockbeat, raw: Any, beats: Beats
) -> None:
    """Each task has one attempt: one that was claimed, not begun, and counted all the same would be dead."""
    ran: list[str] = []
    spawned = await lb.tasks.spawn_many([NewTask("job", max_attempts=1, lease=60)] * 300)
    for number, pause in enumerate([0, 0.001, 0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12]):
        beat = beats(concurrency=7, owner=f"owner-{number}", grace=5)

        @beat.task(max_attempts=1)
        async def job(run: Run) -> None:
            await asyncio.sleep(0.002)
            ran.append(run.task_id)

        async with beat.lifespan():
            await asyncio.sleep(pause)
        assert held_by(raw, lb.store, f"owner-{number}") == []
        assert await lb.tasks.dead() == [], f"after {pause} s"
    final = beats(owner="final")
    final.task(max_attempts=1)(job)
    async with final.lifespan():
        infos = [await end_of(lb, one.task_id) for one in spawned]
    assert {(info.state, info.attempts) for info in infos} == {("done", 1)}
    assert sorted(ran) == sorted(one.task_id for one in spawned)
