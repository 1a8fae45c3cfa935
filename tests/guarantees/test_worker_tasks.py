"""What becomes of a spawned task in a worker: its body, its outcome, its retries, its limits, and what stops it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Beat, Exponential, Fixed, LeaseLost, Lockbeat, LockbeatError, Run
from lockbeat.errors import DuplicateJob, InvalidArgument, InvalidType, UnknownTask
from lockbeat.store.scripts import load
from lockbeat.tasks import NewTask, TaskInfo
from lockbeat.worker import Worker
from lockbeat.worker import worker as worker_module
from tests import servers
from tests.beats import Beats, client_of, eventually, held_by, ledger, states
from tests.conftest import PATIENCE, Backend, Connect, needs, only, wait_until
from tests.guarantees.test_beat_shutdown import end
from tests.keeping import hurry
from tests.proxy import proxy
from tests.servers import Server
from tests.tasks import NOON, state, stopped, until


async def end_of(lb: Lockbeat, task_id: str, timeout: float = PATIENCE) -> TaskInfo:
    """What became of a task, once it has ended."""
    deadline = time.monotonic() + timeout
    while (info := await lb.tasks.get(task_id)).state in ("waiting", "running"):
        assert time.monotonic() < deadline, f"it never ended within {timeout:g} s: {info}"
        await asyncio.sleep(0.01)
    return info


async def is_leased(lb: Lockbeat, raw: Any, task_id: str) -> bool:
    """Whether an attempt still keeps its lease, be the task cancelled or not."""
    return bool(raw.hexists(lb.store.keys.key(lb.tasks.shard_of(task_id), "task:lease"), task_id))


async def no_lease(lb: Lockbeat, raw: Any, task_id: str) -> None:
    async def gone() -> bool:
        return not await is_leased(lb, raw, task_id)

    await eventually(gone, f"the lease of {task_id} goes")


# -- what a function is told, and what is kept of it


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_function_is_told_all_of_its_attempt(lb: Lockbeat, beats: Beats, kind: str) -> None:
    beat, runs = beats(owner="me"), []
    params, headers = {"big": 2**70, "none": [], "text": "ä\0\ud83d\ude00"}, {"trace": ["a", 1]}

    if kind == "async":

        @beat.task(name="job")
        async def job(run: Run) -> Any:
            runs.append((run, threading.current_thread() is threading.main_thread()))
            return run.params

    else:

        @beat.task(name="job")
        def plain(run: Run) -> Any:
            runs.append((run, threading.current_thread() is threading.main_thread()))
            return run.params

    params["text"] = "ä\0😀"
    async with beat.lifespan():
        spawned = await beat.spawn("job", params, headers=headers)
        info = await end_of(lb, spawned.task_id)
    [(run, in_main)] = runs
    assert in_main is (kind == "async")
    assert (run.task_id, run.name, run.queue, run.attempt, run.owner) == (spawned.task_id, "job", "default", 1, "me")
    assert (run.params, run.headers, run.job) == (params, headers, "")
    assert round(run.slot.timestamp() * 1000) == round((info.spawned_at or 0) * 1000), "its slot is when it was due"
    assert run.slot.tzinfo is not None
    assert (info.state, info.result, info.owner, info.fence) == ("done", params, "me", run.fence)


async def test_a_function_may_take_nothing_and_return_nothing(lb: Lockbeat, beats: Beats) -> None:
    beat, ran = beats(), []

    @beat.task
    async def nothing() -> None:
        ran.append("async")

    @beat.task
    def plain_nothing() -> None:
        ran.append("plain")

    async with beat.lifespan():
        for function in (nothing, plain_nothing):
            info = await end_of(lb, (await beat.spawn(function)).task_id)
            assert (info.state, info.result, info.params, info.headers) == ("done", None, None, {})
    assert ran == ["async", "plain"]


async def test_each_attempt_of_any_task_has_a_higher_fence_and_its_own_number(lb: Lockbeat, beats: Beats) -> None:
    beat, seen = beats(), []

    @beat.task(max_attempts=3, retry=None)
    async def flaky(run: Run) -> None:
        seen.append((run.attempt, run.fence))
        raise ValueError

    async with beat.lifespan():
        await end_of(lb, (await beat.spawn(flaky)).task_id)
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    fences = [fence for _, fence in seen]
    assert fences == sorted(set(fences))


@pytest.mark.parametrize(
    "result",
    [object(), {1, 2}, float("nan"), b"bytes", {(1, 2): 3}, "x" * (1 << 20), "\ud800", 10**5000],
    ids=["object", "set", "nan", "bytes", "tuple-key", "too-large", "surrogate", "huge-int"],
)
async def test_a_result_that_is_no_json_is_left_out_and_the_task_is_done(
    lb: Lockbeat, beats: Beats, caplog: pytest.LogCaptureFixture, result: Any
) -> None:
    """The work is done: doing it again for want of a result would be worse."""
    beat, ran = beats(), []

    @beat.task
    async def job() -> Any:
        ran.append(1)
        return result

    async with beat.lifespan():
        spawned = await beat.spawn(job)
        info = await end_of(lb, spawned.task_id)
    assert (info.state, info.result, info.attempts, ran) == ("done", None, 1, [1])
    assert f"{spawned.task_id} is done, without its result" in caplog.text


class _Unspeakable(Exception):
    """An error that can't say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_an_exception_keeps_its_type_message_and_traceback_as_text(lb: Lockbeat, beats: Beats, kind: str) -> None:
    beat = beats()

    class Outer:
        class NoLuckError(Exception):
            pass

    if kind == "async":

        @beat.task(name="bad", max_attempts=1)
        async def bad() -> None:
            try:
                raise KeyError("cause")
            except KeyError as cause:
                raise Outer.NoLuckError("no luck, ä \udcff") from cause

    else:

        @beat.task(name="bad", max_attempts=1)
        def worse() -> None:
            try:
                raise KeyError("cause")
            except KeyError as cause:
                raise Outer.NoLuckError("no luck, ä \udcff") from cause

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn("bad")).task_id)
    assert info.state == "dead"
    failure = info.failure
    assert failure is not None
    assert failure.type.endswith("Outer.NoLuckError")
    assert failure.message == "no luck, ä \\udcff"
    assert failure.traceback is not None
    assert failure.traceback.startswith("Traceback")
    assert "KeyError: 'cause'" in failure.traceback
    assert "raise Outer.NoLuckError(" in failure.traceback
    assert failure.traceback.endswith("NoLuckError: no luck, ä \\udcff")


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (StopIteration("over"), "StopIteration"),
        (_Unspeakable(), "_Unspeakable"),
        (ExceptionGroup("several", [ValueError("one"), OSError("two")]), "ValueError: one"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_a_body_raises_is_its_failure_and_ends_no_instance(
    lb: Lockbeat, beats: Beats, kind: str, raised: BaseException, words: str
) -> None:
    beat = beats(concurrency=1)

    if kind == "async":

        @beat.task(name="odd", max_attempts=1)
        async def odd() -> None:
            raise raised

    else:

        @beat.task(name="odd", max_attempts=1)
        def odder() -> None:
            raise raised

    @beat.task
    async def good() -> str:
        return "goes on"

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn("odd")).task_id)
        assert info.state == "dead"
        assert info.failure is not None
        assert words in (info.failure.traceback or "")
        assert info.failure.type != "Lost"
        assert (await end_of(lb, (await beat.spawn(good)).task_id)).result == "goes on"


@pytest.mark.parametrize("raised", [KeyboardInterrupt, GeneratorExit])
async def test_what_no_future_can_carry_out_of_a_thread_is_its_failure_all_the_same(
    lb: Lockbeat, beats: Beats, raised: type[BaseException]
) -> None:
    """Signals reach the main thread only: a KeyboardInterrupt here is the function's own."""
    beat = beats()

    @beat.task(max_attempts=1)
    def interrupted() -> None:
        raise raised

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(interrupted)).task_id)
    assert info.failure is not None
    assert info.failure.type == raised.__name__


async def test_sys_exit_is_a_failure_that_is_tried_again(lb: Lockbeat, beats: Beats) -> None:
    beat = beats()

    @beat.task(max_attempts=2, retry=None)
    async def exits(run: Run) -> str:
        if run.attempt == 1:
            sys.exit("bye")
        return "stayed"

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(exits)).task_id)
    assert (info.state, info.result, info.attempts) == ("done", "stayed", 2)


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


# -- timeout and limits


async def test_an_attempt_that_times_out_is_cancelled_and_tried_again(lb: Lockbeat, beats: Beats) -> None:
    beat, cancelled = beats(), []

    @beat.task(timeout=0.1, max_attempts=2, retry=None)
    async def slow(run: Run) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(run.attempt)
            raise

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(slow)).task_id)
    assert cancelled == [1, 2]
    assert info.state == "dead"
    assert info.failure is not None
    assert (info.failure.type, info.failure.message) == ("TimedOut", "timed out after 100 ms")


async def test_a_plain_function_learns_of_its_time_out_by_heartbeat(
    lb: Lockbeat, beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    beat, reasons = beats(), []

    @beat.task(timeout=0.1, max_attempts=1)
    def slow(run: Run) -> None:
        try:
            while True:
                run.heartbeat()
                time.sleep(0.01)
        except LeaseLost as lost:
            reasons.append((lost.key, lost.owner, lost.fence, lost.reason))
            raise

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(slow)).task_id)
    assert info.failure is not None
    assert info.failure.type == "TimedOut"
    assert reasons == [(info.id, info.owner, info.fence, "timed out")]
    assert "never retrieved" not in caplog.text


async def test_a_task_that_nobody_began_in_time_is_cancelled_and_never_runs(lb: Lockbeat, beats: Beats) -> None:
    beat, ran = beats(), []

    @beat.task
    async def job(run: Run) -> None:
        ran.append(run.params)

    late = await lb.tasks.spawn("job", "late", max_delay=0.05)
    fine = await lb.tasks.spawn("job", "fine", max_delay=60)
    await until(lb, await lb.store.server_time() + 0.06)
    async with beat.lifespan():
        info = await end_of(lb, late.task_id)
        await end_of(lb, fine.task_id)
    assert ran == ["fine"]
    assert (info.state, info.attempts) == ("cancelled", 0)
    assert info.failure is not None
    assert info.failure.message == "max_delay: nobody began it in time"


async def test_max_delay_passes_while_the_only_place_is_taken(lb: Lockbeat, beats: Beats) -> None:
    beat, ran, go = beats(concurrency=1), [], asyncio.Event()

    @beat.task
    async def job(run: Run) -> None:
        ran.append(run.params)
        await go.wait()

    async with beat.lifespan():
        await beat.spawn(job, "first")
        await wait_until(lambda: ran, "the place is taken")
        spawned = await beat.spawn(job, "second", max_delay=0.1)
        await until(lb, await lb.store.server_time() + 0.15)
        go.set()
        assert (await end_of(lb, spawned.task_id)).state == "cancelled"
    assert ran == ["first"]


async def test_max_delay_counts_until_a_body_begins_not_until_somebody_looked(lb: Lockbeat, beats: Beats) -> None:
    """An instance without the function claims it, and gives it back untouched."""
    old, new, ran = beats(), beats(), []

    @new.task
    async def fresh() -> None:
        ran.append(1)

    async with old.lifespan():
        spawned = await lb.tasks.spawn("fresh", max_delay=0.5)
        await until(lb, await lb.store.server_time() + 0.6)
    async with new.lifespan():
        info = await end_of(lb, spawned.task_id)
    assert (info.state, ran) == ("cancelled", [])


async def test_max_duration_counts_from_when_a_body_began_not_from_when_somebody_looked(lb: Lockbeat, beats: Beats) -> None:
    old, new, ran = beats(), beats(), []

    @new.task
    async def fresh() -> None:
        ran.append(1)

    async with old.lifespan():
        spawned = await lb.tasks.spawn("fresh", max_duration=0.5)
        await until(lb, await lb.store.server_time() + 0.6)
    async with new.lifespan():
        info = await end_of(lb, spawned.task_id)
    assert (info.state, ran) == ("done", [1])


@pytest.mark.parametrize("concurrency", [1, 10])
async def test_a_body_is_cancelled_when_max_duration_is_over(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    """Also while the worker has no room, and so asks for no other task; its next renewal would come after 20 minutes."""
    monkeypatch.setattr(worker_module, "CLAIM_LEASE_MS", 3_600_000)
    beat, events = beats(concurrency=concurrency), []

    @beat.task(max_duration=0.4)
    async def long() -> None:
        events.append("began")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    @beat.task
    async def short() -> str:
        return "its place is free"

    async with beat.lifespan():
        spawned = await beat.spawn(long)
        info = await end_of(lb, spawned.task_id)
        await wait_until(lambda: "cancelled" in events, "its body is cancelled")
        await no_lease(lb, raw, spawned.task_id)
        assert (await end_of(lb, (await beat.spawn(short)).task_id)).state == "done"
    assert events == ["began", "cancelled"]
    assert (info.state, info.attempts) == ("cancelled", 1)
    assert info.failure is not None
    assert info.failure.message == "max_duration: it had not ended in time"
    assert info.ended_at is not None
    assert info.started_at is not None
    assert info.ended_at >= info.started_at + 0.4


async def test_max_duration_counts_from_the_first_attempt(lb: Lockbeat, beats: Beats) -> None:
    beat, began = beats(), []

    @beat.task(max_duration=0.5, retry=None, max_attempts=1000)
    async def flaky(run: Run) -> None:
        began.append(run.attempt)
        await asyncio.sleep(0.15)
        raise ValueError

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(flaky)).task_id)
    assert info.state == "cancelled"
    assert began == [*range(1, len(began) + 1)]
    assert len(began) <= 4, "none began after half a second"


async def test_a_retry_that_would_come_after_max_duration_ends_it_at_once(lb: Lockbeat, beats: Beats) -> None:
    beat = beats()

    @beat.task(max_duration=30, retry=Fixed(60))
    async def flaky() -> None:
        raise ValueError

    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(flaky)).task_id)
    assert (info.state, info.attempts) == ("cancelled", 1)


# -- cancelling


async def test_cancelling_a_waiting_task_ends_it_before_it_began(lb: Lockbeat, beats: Beats) -> None:
    beat, ran = beats(), []

    @beat.task
    async def job(run: Run) -> None:
        ran.append(run.params)

    ready, delayed = await lb.tasks.spawn("job", "ready"), await lb.tasks.spawn("job", "delayed", delay=0.2)
    assert await lb.tasks.cancel(ready.task_id)
    assert await lb.tasks.cancel(delayed.task_id)
    async with beat.lifespan():
        await end_of(lb, (await beat.spawn(job, "after", delay=0.3)).task_id)
    assert ran == ["after"]
    assert await state(lb, ready.task_id) == await state(lb, delayed.task_id) == "cancelled"


async def test_a_running_body_is_cancelled_by_the_notification_long_before_its_next_renewal(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would come after 20 minutes; and the lease goes as soon as the body has stopped, not before."""
    monkeypatch.setattr(worker_module, "CLAIM_LEASE_MS", 3_600_000)
    beat, events, go = beats(owner="me"), [], asyncio.Event()

    @beat.task
    async def long() -> None:
        events.append("began")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("cancelled")
            await go.wait()
            events.append("stopped")
            raise

    async with beat.lifespan():
        task_id = (await beat.spawn(long)).task_id
        await wait_until(lambda: events, "it runs")
        assert await lb.tasks.cancel(task_id)
        await wait_until(lambda: "cancelled" in events, "it is cancelled")
        assert await state(lb, task_id) == "cancelled"
        assert await is_leased(lb, raw, task_id), "its body has not stopped yet"
        go.set()
        await no_lease(lb, raw, task_id)
        assert events == ["began", "cancelled", "stopped"]
        assert held_by(raw, lb.store, "me") == []
    info = await lb.tasks.get(task_id)
    assert (info.state, info.attempts, info.result) == ("cancelled", 1, None)


async def test_a_body_whose_notification_was_lost_is_cancelled_at_the_next_renewal(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "_cancel", lambda self, task_id: None)
    beat, events = beats(), []

    @beat.task
    async def long() -> None:
        events.append("began")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async with beat.lifespan():
        task_id = (await beat.spawn(long)).task_id
        await wait_until(lambda: events, "it runs")
        assert await lb.tasks.cancel(task_id)
        hurry(client_of(beat))
        await wait_until(lambda: "cancelled" in events, "it is cancelled")
        await no_lease(lb, raw, task_id)
    assert await state(lb, task_id) == "cancelled"


@only("valkey", "redis")
async def test_a_body_is_cancelled_though_the_server_hung_up_on_who_listens(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, events = beats(), []

    @beat.task
    async def long(run: Run) -> None:
        events.append(f"began {run.params}")
        try:
            await asyncio.sleep(60)
        finally:
            events.append(f"cancelled {run.params}")

    async with beat.lifespan():
        for turn in range(3):
            task_id = (await beat.spawn(long, turn)).task_id
            await wait_until(lambda turn=turn: f"began {turn}" in events, "it runs")  # type: ignore[misc]
            raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            assert await lb.tasks.cancel(task_id)
            hurry(client_of(beat))
            await wait_until(lambda turn=turn: f"cancelled {turn}" in events, "it is cancelled")  # type: ignore[misc]


@pytest.mark.parametrize("heard", [True, False], ids=["told", "by renewal"])
async def test_a_plain_function_sees_by_heartbeat_that_it_was_cancelled(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, heard: bool
) -> None:
    if not heard:
        monkeypatch.setattr(Worker, "_cancel", lambda self, task_id: None)
    beat, began, reasons = beats(), threading.Event(), []

    @beat.task
    def long(run: Run) -> None:
        run.heartbeat()
        began.set()
        try:
            while True:
                run.heartbeat()
                time.sleep(0.005)
        except LeaseLost as lost:
            reasons.append(lost.reason)
            raise

    async with beat.lifespan():
        task_id = (await beat.spawn(long)).task_id
        await wait_until(began.is_set, "it runs")
        assert await lb.tasks.cancel(task_id)
        hurry(client_of(beat))
        await wait_until(lambda: reasons, "it sees that it is to stop")
        await no_lease(lb, raw, task_id)
    assert reasons == ["it was cancelled"]
    assert await state(lb, task_id) == "cancelled"
    assert "never retrieved" not in caplog.text


async def test_a_cancelled_body_that_ends_well_all_the_same_stays_cancelled(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat, began = beats(), asyncio.Event()

    @beat.task
    async def stubborn() -> str:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return "done all the same"

    async with beat.lifespan():
        task_id = (await beat.spawn(stubborn)).task_id
        await asyncio.wait_for(began.wait(), 30)
        assert await lb.tasks.cancel(task_id)
        await no_lease(lb, raw, task_id)
    info = await lb.tasks.get(task_id)
    assert (info.state, info.result) == ("cancelled", None)


async def test_a_cancelled_task_is_not_tried_again(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat, attempts = beats(), []

    @beat.task(max_attempts=5, retry=None)
    async def long(run: Run) -> None:
        attempts.append(run.attempt)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("on the way out") from None

    @beat.task
    async def other() -> None: ...

    async with beat.lifespan():
        task_id = (await beat.spawn(long)).task_id
        await wait_until(lambda: attempts, "it runs")
        assert await lb.tasks.cancel(task_id)
        await no_lease(lb, raw, task_id)
        await end_of(lb, (await beat.spawn(other)).task_id)
    assert attempts == [1]
    assert await state(lb, task_id) == "cancelled"


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_no_slot_starts_beside_the_cancelled_body_of_the_one_before(lb: Lockbeat, beats: Beats, kind: str) -> None:
    """Under overlap skip: the job's lock goes when the body has stopped."""
    beat, running, most = beats(), [], []
    slots: list[str] = []
    stop = threading.Event()

    if kind == "async":

        @beat.every(0.2, name="job")
        async def job(run: Run) -> None:
            slots.append(run.task_id)
            running.append(1)
            most.append(len(running))
            try:
                await asyncio.sleep(60 if len(slots) == 1 else 0)
            finally:
                while not stop.is_set():
                    await asyncio.sleep(0.01)
                running.pop()

    else:

        @beat.every(0.2, name="job")
        def plain(run: Run) -> None:
            slots.append(run.task_id)
            running.append(1)
            most.append(len(running))
            stop.wait(30)
            running.pop()

    async def skipped() -> bool:
        later = [entry.state for entry in await ledger(lb, "job") if entry.task_id != first]
        return later.count("skipped") >= 2

    async with beat.lifespan():
        await wait_until(lambda: slots, "the first runs")
        first = slots[0]
        assert await lb.tasks.cancel(first)
        await eventually(skipped, "later slots came while it was stopping")
        assert slots == [first]
        stop.set()
        await wait_until(lambda: len(slots) > 1, "another follows")
    assert set(most) == {1}
    found = {entry.task_id: entry.state for entry in await ledger(lb, "job")}
    assert found[first] == "cancelled"


# -- declaring and spawning


async def test_the_decorators_options_are_what_spawn_takes_for_granted(lb: Lockbeat, beats: Beats) -> None:
    beat = beats()
    options: dict[str, Any] = {
        "queue": "mail", "max_attempts": 7, "retry": Fixed(9), "priority": 3, "delay": 50, "headers": {"a": 1},
        "max_delay": 70, "max_duration": 80, "retention": 90,
    }  # fmt: skip

    @beat.task(name="named", timeout=5, **options)
    async def job() -> None: ...

    async with beat.lifespan():
        info = await lb.tasks.get((await beat.spawn(job)).task_id)
        assert (info.name, info.queue, info.max_attempts, info.priority, info.headers) == ("named", "mail", 7, 3, {"a": 1})
        assert round((info.due_at or 0) - (info.spawned_at or 0), 3) == 50
        other = await lb.tasks.get((await beat.spawn("named", 5, queue="sms", max_attempts=1, headers=None, delay=60)).task_id)
        assert (other.queue, other.max_attempts, other.priority, other.headers, other.params) == ("sms", 1, 3, {}, 5)
        assert round((other.due_at or 0) - (other.spawned_at or 0), 3) == 60


async def test_a_bare_decorator_and_one_with_options_return_the_function(beats: Beats) -> None:
    beat = beats(queue="ours")

    async def one() -> int:
        return 1

    def two(run: Run) -> int:
        return 2

    assert beat.task(one) is one
    assert beat.task(max_attempts=2)(two) is two
    async with beat.lifespan(work=False):
        assert (await beat.jobs.list()) == []
        for function in (one, two):
            spawned = await beat.spawn(function)
            assert spawned.created
            assert beat._client is not None
            assert (await beat._client.tasks.get(spawned.task_id)).queue == "ours", "the beat's own queue"


@pytest.mark.parametrize(
    ("options", "argument", "words"),
    [
        ({"max_atempts": 3}, "max_atempts", "did you mean 'max_attempts'"),
        ({"nonsense": 3}, "nonsense", "no such option"),
        ({"max_attempts": 0}, "max_attempts", "between 1 and 1000"),
        ({"priority": 50}, "priority", "between -49 and 49"),
        ({"retry": 3}, "retry", "must be Fixed or Exponential"),
        ({"timeout": 0}, "timeout", "timeout"),
        ({"timeout": "soon"}, "timeout", "timeout"),
        ({"queue": ""}, "queue", "queue"),
        ({"name": ""}, "name", "name"),
        ({"max_delay": -1}, "max_delay", "max_delay"),
        ({"retention": -1}, "retention", "retention"),
        ({"delay": None}, "delay", "delay"),
        ({"headers": [1]}, "headers", "must be a dict"),
        ({"idempotency_key": "same"}, "idempotency_key", "idempotency_key"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_named_on_the_decorators_line(options: dict[str, Any], argument: str, words: str) -> None:
    """An idempotency key is wrong there as well: all calls of the function would be one task."""
    with pytest.raises(InvalidArgument, match=words) as caught:
        Beat().task(**options)
    assert caught.value.argument == argument


def test_what_can_not_be_a_task_is_refused_where_it_is_declared() -> None:
    beat = Beat()

    def two_needed(a: Any, b: Any) -> None: ...

    def generator() -> Any:
        yield 1

    wrongs: list[Any] = [two_needed, generator, lambda: None]
    for wrong in wrongs:
        with pytest.raises(InvalidArgument):
            beat.task(wrong)
    with pytest.raises(InvalidType, match="callable"):
        beat.task("job")  # type: ignore[call-overload]
    beat.task(name="said")(lambda: None)
    with pytest.raises(DuplicateJob):
        beat.task(name="said")(lambda: None)


def test_a_name_is_given_once_to_a_task_or_a_job() -> None:
    beat = Beat()

    @beat.task
    async def mail() -> None: ...

    @beat.every(60)
    async def report() -> None: ...

    with pytest.raises(DuplicateJob, match="'mail'"):
        beat.task(mail)
    with pytest.raises(DuplicateJob, match="'mail'"):
        beat.every(60, name="mail")(report)
    with pytest.raises(DuplicateJob, match="'report'"):
        beat.task(report)
    assert list(beat.declared) == ["report"]


async def test_spawning_what_was_not_declared_is_refused(beats: Beats, lb: Lockbeat) -> None:
    beat = beats()

    async def stranger() -> None: ...

    @beat.every(3600)
    async def job() -> None: ...

    async with beat.lifespan():
        for unknown in ("nobody", stranger, job, "job"):
            with pytest.raises(UnknownTask, match=r"was not declared by @beat\.task"):
                await beat.spawn(unknown)
        with pytest.raises(InvalidArgument, match="max_atempts: no such option"):
            beat.task(name="known")(stranger)
            await beat.spawn("known", max_atempts=1)  # type: ignore[call-arg]
    assert await lb.tasks.list() == []


async def test_a_function_is_spawned_by_itself_whatever_its_name(beats: Beats, lb: Lockbeat) -> None:
    class Mailer:
        async def send(self, run: Run) -> str:
            return "sent"

    beat, mailer = beats(), Mailer()
    beat.task(name="mail")(mailer.send)
    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(mailer.send)).task_id)
    assert (info.name, info.result) == ("mail", "sent")


async def test_spawning_outside_of_serving_says_what_to_use_instead(beats: Beats, lb: Lockbeat) -> None:
    beat = beats()

    @beat.task
    async def job() -> None: ...

    with pytest.raises(LockbeatError, match=r"not serving: use `lb\.tasks\.spawn`"):
        await beat.spawn(job)
    async with beat.lifespan():
        await beat.spawn(job)
    with pytest.raises(LockbeatError, match="not serving"):
        await beat.spawn(job)
    shared = Beat(lb)
    shared.task(job)
    assert (await shared.spawn(job)).created, "a beat made with an open Lockbeat needs no serving"


async def test_a_function_may_spawn_others(beats: Beats, lb: Lockbeat) -> None:
    beat, leaves = beats(), []

    @beat.task
    async def tree(run: Run) -> None:
        leaves.append(run.params)
        if run.params < 3:
            for _ in range(2):
                await beat.spawn(tree, run.params + 1)

    async with beat.lifespan():
        await beat.spawn(tree, 0)
        await wait_until(lambda: len(leaves) == 15, "all of them run")
    assert sorted(leaves) == [0] + [1] * 2 + [2] * 4 + [3] * 8


# -- the log


async def test_run_log_names_the_task_in_message_and_record(beats: Beats, lb: Lockbeat, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="lockbeat.run")
    beat, runs = beats(), []

    @beat.task
    async def chatty(run: Run) -> None:
        runs.append(run)
        run.log.info("%d of %d", 1, 2)
        run.log.warning("no arguments: 100 %", extra={"mine": 7})

    async with beat.lifespan():
        await end_of(lb, (await beat.spawn(chatty)).task_id)
    [run] = runs
    one, two = (record for record in caplog.records if record.name == "lockbeat.run")
    assert one.getMessage() == f"{run.task_id}: 1 of 2"
    assert two.getMessage() == f"{run.task_id}: no arguments: 100 %"
    for record in (one, two):
        said: dict[str, Any] = record.__dict__
        assert (said["task_id"], said["attempt"], said["fence"]) == (run.task_id, 1, run.fence)
    assert two.__dict__["mine"] == 7


@pytest.mark.parametrize("kind", ["task", "job"])
@only("memory")
async def test_a_failure_is_logged_in_one_line_with_its_exception_and_fields(
    beats: Beats, lb: Lockbeat, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    beat, runs = beats(), []

    async def bad(run: Run) -> None:
        runs.append(run)
        raise ValueError("no luck\nand more")

    if kind == "task":
        beat.task(max_attempts=1)(bad)
    else:
        beat.every(0.1)(bad)
    async with beat.lifespan():
        if kind == "task":
            await beat.spawn(bad)
        await wait_until(lambda: any(record.exc_info for record in caplog.records), "a failure is logged")
    record = next(record for record in caplog.records if record.exc_info)
    run = next(run for run in runs if run.task_id == record.__dict__["task_id"])
    assert record.getMessage() == f"{run.task_id} (bad) failed in attempt 1, its last: ValueError: no luck"
    assert (record.name, record.levelname) == ("lockbeat", "ERROR")
    expected = {"job": run.job or None, "attempt": 1, "fence": run.fence}
    expected["slot"] = run.slot.isoformat(timespec="milliseconds") if kind == "job" else None
    assert {name: record.__dict__[name] for name in expected} == expected
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no luck\nand more"
    frame = record.exc_info[2]
    assert frame is not None
    assert frame.tb_frame.f_code.co_name == "bad", "no frame of ours"


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


# -- lost replies, and a store that goes away


@only("valkey", "redis")
@pytest.mark.parametrize("script", ["task/claim", "task/complete", "task/fail", "task/spawn"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_lost_reply_neither_loses_nor_doubles_a_task(
    lb: Lockbeat, backend: Backend, namespace: str, script: str, times: int
) -> None:
    ran: list[tuple[Any, int]] = []
    async with proxy(backend.servers[0].port) as lossy:
        beat = Beat(lossy.url, namespace=namespace, timeout=2, grace=1, concurrency=3)

        @beat.task(max_attempts=2, retry=None)
        async def job(run: Run) -> Any:
            ran.append((run.params, run.attempt))
            if run.params % 2 and run.attempt == 1:
                raise ValueError
            return run.params

        sha, source = load(script).sha.encode(), load(script).source.encode()
        async with beat.lifespan():
            lossy.lose_reply(lambda data: sha in data or source[-200:] in data, times)
            spawned = [await beat.spawn(job, number) for number in range(12)]
            infos = [await end_of(lb, one.task_id) for one in spawned]
        assert lossy.lost == times
    assert [(info.state, info.result, info.attempts) for info in infos] == [("done", n, 1 + n % 2) for n in range(12)]
    assert sorted(ran) == sorted([(n, 1) for n in range(12)] + [(n, 2) for n in range(1, 12, 2)])
    assert len(await lb.tasks.list()) == 12


async def test_tasks_that_run_while_the_store_hangs_are_reported_when_it_is_back(server: Server, namespace: str) -> None:
    beat, ran, go = Beat(server.url, namespace=namespace, timeout=1, grace=1), [], asyncio.Event()

    @beat.task
    async def job(run: Run) -> Any:
        ran.append(run.params)
        await go.wait()
        if run.params == 7:
            raise ValueError("no luck")
        return run.params

    async with beat.lifespan(), Lockbeat(server.url, namespace=namespace) as lb:
        spawned = await lb.tasks.spawn_many([NewTask("job", n, max_attempts=1) for n in range(10)])
        await wait_until(lambda: len(ran) == 10, "they run")
        server.freeze()
        try:
            go.set()
            await asyncio.sleep(2.2)  # longer than the first reports wait for their answers
        finally:
            server.thaw()
        infos = [await end_of(lb, one.task_id) for one in spawned]
    assert [info.state for info in infos] == ["done"] * 7 + ["dead"] + ["done"] * 2
    assert infos[7].failure is not None
    assert infos[7].failure.message == "no luck"
    assert sorted(ran) == list(range(10))


@needs("valkey")
async def test_a_server_that_dies_and_comes_back_with_its_data_loses_and_doubles_nothing(
    namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with servers.standalone(servers.valkey_binary(), aof_dir=tmp_path, extra=["appendfsync always"]) as server:
        beat = Beat(server.url, namespace=namespace, timeout=1, grace=1, concurrency=10)
        ran: list[int] = []
        go = asyncio.Event()

        @beat.task
        async def job(run: Run) -> Any:
            ran.append(run.params)
            await go.wait()
            return run.params

        async with beat.lifespan(), Lockbeat(server.url, namespace=namespace) as lb:
            spawned = await lb.tasks.spawn_many([NewTask("job", n) for n in range(30)])
            await wait_until(lambda: len(ran) == 10, "some of them run")
            await asyncio.to_thread(server.kill)
            go.set()
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.restart)
            infos = [await end_of(lb, one.task_id) for one in spawned]
    assert [(info.state, info.result, info.attempts) for info in infos] == [("done", n, 1) for n in range(30)]
    assert sorted(ran) == list(range(30))


async def test_a_store_that_is_emptied_while_tasks_run_stops_their_bodies(
    lb: Lockbeat, backend: Backend, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, events = beats(), []

    @beat.task
    async def long(run: Run) -> None:
        events.append("began")
        try:
            await asyncio.sleep(60)
        finally:
            events.append("cancelled")

    @beat.task
    async def short() -> str:
        return "goes on"

    async with beat.lifespan():
        await beat.spawn(long)
        await wait_until(lambda: events, "it runs")
        for client in backend.nodes():
            client.flushall()
        hurry(client_of(beat))
        await wait_until(lambda: "cancelled" in events, "its lease is gone, and so it is cancelled")
        assert (await end_of(lb, (await beat.spawn(short)).task_id)).result == "goes on"


async def test_an_attempt_that_was_lost_stops_and_does_not_overwrite_who_took_over(
    lb: Lockbeat, connect: Connect, beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    beat, events = beats(owner="me"), []

    @beat.task(max_attempts=5)
    async def robbed(run: Run) -> str:
        events.append(f"began {run.attempt}")
        if run.attempt > 1:
            return "second"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        return "first"

    async with beat.lifespan():
        task_id = (await beat.spawn(robbed)).task_id
        await wait_until(lambda: events, "it runs")
        await lb.tasks.release_all("me")
        info = await end_of(lb, task_id)
        await wait_until(lambda: "cancelled" in events, "the first is cancelled")
    assert sorted(events) == ["began 1", "began 2", "cancelled"]
    assert (info.result, info.attempts) == ("second", 2)
    assert (await lb.tasks.get(task_id)).result == "second"


async def test_jobs_and_tasks_share_one_worker(lb: Lockbeat, beats: Beats) -> None:
    beat, ran = beats(concurrency=1), []

    @beat.every(0.1)
    async def job(run: Run) -> None:
        ran.append("job")

    @beat.task
    async def task(run: Run) -> None:
        ran.append("task")

    async with beat.lifespan():
        spawned = [await beat.spawn(task) for _ in range(5)]
        for one in spawned:
            await end_of(lb, one.task_id)
        await wait_until(lambda: ran.count("job") > 2, "both run")
    assert ran.count("task") == 5
    assert "done" in await states(lb, "job")
