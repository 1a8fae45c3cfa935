"""How an attempt runs and ends: attempts, retries, time-outs, threads, errors, and what becomes of them in the ledger."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Beat, Exponential, Fixed, Lockbeat, Run
from lockbeat.errors import InvalidArgument
from lockbeat.jobs import LedgerEntry
from lockbeat.leases.lease import Held
from lockbeat.store.rows import Row
from lockbeat.tasks import Task, Tasks
from lockbeat.worker import Worker
from lockbeat.worker.attempt import Attempt
from tests.beats import Beats, client_of, eventually, ledger, overdue, scheduler, states
from tests.conftest import only, wait_until
from tests.keeping import hurry, renewed


async def ends(lb: Lockbeat, name: str, *wanted: str) -> None:
    """Wait until a job's first slot has ended in one of these states."""

    async def ended() -> bool:
        return any(state in wanted for state in await states(lb, name))

    await eventually(ended, f"{name} is {' or '.join(wanted)}")


async def first(lb: Lockbeat, name: str) -> LedgerEntry:
    """Of the first slot that began: on a busy machine those before it may have been missed."""
    return next(entry for entry in await ledger(lb, name) if entry.state not in ("missed", "skipped"))


async def test_a_function_is_told_which_attempt_it_is(lb: Lockbeat, beats: Beats) -> None:
    beat = beats(owner="me")
    runs: list[Run] = []

    @beat.every(0.2)
    async def told(run: Run) -> None:
        runs.append(run)

    async with beat.lifespan():
        await wait_until(lambda: runs, "it runs")
        await ends(lb, "told", "done")
    run = runs[0]
    assert run.job == "told"
    assert run.slot is not None
    assert run.slot.tzinfo is UTC
    assert run.slot <= datetime.now(UTC)
    assert run.task_id == f"told@{round(run.slot.timestamp() * 1000)}"
    entry = await first(lb, "told")
    assert (entry.task_id, entry.fence, entry.by, entry.attempt) == (run.task_id, run.fence, "me", run.attempt)


async def test_functions_may_be_plain_or_async_methods_or_objects_with_or_without_the_run(beats: Beats) -> None:
    beat, seen = beats(), set()

    class Service:
        async def method(self) -> None:
            seen.add("method")

        def __call__(self, run: Run) -> None:
            seen.add(f"object {run.job}")

    @beat.every(0.2)
    def plain() -> None:
        seen.add("plain")
        assert threading.current_thread() is not threading.main_thread()

    @beat.every(0.2)
    async def optional(extra: int = 7) -> None:
        seen.add(f"optional {extra}")

    beat.every(0.2)(Service().method)
    beat.every(0.2, name="called")(Service())
    async with beat.lifespan():
        await wait_until(lambda: len(seen) == 4, "all of them run")
    assert seen == {"plain", "optional 7", "method", "object called"}


async def test_an_attempt_that_raised_is_not_repeated_unless_asked(
    lb: Lockbeat, beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    beat, slots = beats(), []

    @beat.every(0.1, retry=Fixed(0))
    async def bad(run: Run) -> None:
        slots.append(run.slot)
        raise ValueError("no luck")

    async with beat.lifespan():
        await wait_until(lambda: len(slots) > 3, "it runs on")
        await ends(lb, "bad", "failed")
    assert len(slots) == len(set(slots))
    entry = await first(lb, "bad")
    assert entry.attempt == 1
    assert entry.reason is not None
    assert entry.reason.startswith("ValueError: no luck\nTraceback")
    assert entry.reason.endswith("ValueError: no luck")
    assert "no luck" in caplog.text


@only("memory", "valkey")
async def test_retries_follow_the_policy(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat, attempts = beats(), []

    @beat.every(3600, max_attempts=4, retry=Exponential(0.1, 2))
    async def flaky(run: Run) -> None:
        attempts.append((run.attempt, run.slot, run.fence, asyncio.get_running_loop().time()))
        if run.attempt < 4:
            raise ValueError(f"attempt {run.attempt}")

    await overdue(lb, raw, beat.declared["flaky"])
    async with beat.lifespan():
        await ends(lb, "flaky", "done", "failed")
    assert [attempt for attempt, *_ in attempts] == [1, 2, 3, 4]
    assert len({slot for _, slot, *_ in attempts}) == 1
    fences = [fence for _, _, fence, _ in attempts]
    assert fences == sorted(set(fences))
    times = [at for *_, at in attempts]
    for pause, least in zip((b - a for a, b in itertools.pairwise(times)), (0.1, 0.2, 0.4), strict=True):
        assert least - 0.002 <= pause
    [entry] = await ledger(lb, "flaky")
    assert (entry.state, entry.attempt) == ("done", 4)


async def test_attempts_that_are_used_up_end_in_failure(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat, attempts = beats(), []

    @beat.every(3600, max_attempts=2, retry=Fixed(0))
    async def hopeless(run: Run) -> None:
        attempts.append(run.attempt)
        raise ValueError(f"attempt {run.attempt}")

    await overdue(lb, raw, beat.declared["hopeless"])
    async with beat.lifespan():
        await ends(lb, "hopeless", "failed")
    assert attempts == [1, 2]
    [entry] = await ledger(lb, "hopeless")
    assert entry.attempt == 2
    assert entry.reason is not None
    assert "attempt 2" in entry.reason


async def test_an_attempt_that_takes_too_long_is_cancelled(lb: Lockbeat, beats: Beats) -> None:
    beat, cancelled = beats(), []

    @beat.every(0.2, timeout=0.1)
    async def slow(run: Run) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.append(run.slot)

    async with beat.lifespan():
        await wait_until(lambda: len(cancelled) > 1, "it is cancelled, and the next slot runs")
        await ends(lb, "slow", "failed")
    entry = await first(lb, "slow")
    assert entry.reason == "timed out after 100 ms"


async def test_a_plain_function_keeps_its_lease_until_it_ends(lb: Lockbeat, beats: Beats) -> None:
    """A thread can't be stopped, so nobody else may start beside it."""
    beat, running, most, stop = beats(), [], [], threading.Event()

    @beat.every(0.2, timeout=0.1)
    def stubborn() -> None:
        running.append(1)
        most.append(len(running))
        stop.wait(30)
        running.pop()

    async def skipped() -> bool:
        return (await states(lb, "stubborn")).count("skipped") >= 2

    async with beat.lifespan():
        await eventually(skipped, "later slots came while it ran on")
        await renewed(client_of(beat))
        assert most == [1]
        stop.set()
        await wait_until(lambda: len(most) > 1, "it runs again")
        await ends(lb, "stubborn", "done")
    assert set(most) == {1}


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_function_that_exits_ends_itself_and_not_the_instance(lb: Lockbeat, beats: Beats, kind: str) -> None:
    """`main()` of some other program, say, called from a job."""
    beat, ran = beats(), []

    if kind == "async":

        @beat.every(0.2, name="exits")
        async def exits() -> None:
            ran.append(1)
            sys.exit(3)

    else:

        @beat.every(0.2, name="exits")
        def exits_too() -> None:
            ran.append(1)
            sys.exit(3)

    async with beat.lifespan():
        await wait_until(lambda: len(ran) > 1, "it runs on")
        await ends(lb, "exits", "failed")
    entry = await first(lb, "exits")
    assert entry.reason is not None
    assert entry.reason.endswith("SystemExit: 3")


@pytest.mark.parametrize("text", ["\udcff of a file name", "\x00", "ä" * 5000, ""], ids=["surrogate", "nul", "long", "empty"])
async def test_an_error_of_any_text_is_recorded(lb: Lockbeat, beats: Beats, text: str) -> None:
    beat, ran = beats(), []

    @beat.every(0.2)
    async def bad() -> None:
        ran.append(1)
        raise ValueError(text)

    async with beat.lifespan():
        await wait_until(lambda: len(ran) > 1, "it runs on")
        await ends(lb, "bad", "failed")
    entry = await first(lb, "bad")
    assert entry.reason is not None
    assert len(entry.reason) <= 4000
    assert "ValueError" in entry.reason or "ä" in entry.reason


async def test_a_function_that_cancels_itself_has_failed(lb: Lockbeat, beats: Beats) -> None:
    beat = beats()

    @beat.every(0.2)
    async def gone() -> None:
        raise asyncio.CancelledError

    async with beat.lifespan():
        await ends(lb, "gone", "failed")
    assert (await first(lb, "gone")).reason == "the function was cancelled"


async def test_a_long_attempt_keeps_its_lease(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat, rival, attempts, go = beats(), beats(), [], asyncio.Event()

    async def long(run: Run) -> None:
        attempts.append((run.slot, run.attempt))
        await go.wait()

    for each in (beat, rival):
        each.every(3600, lease=30, max_attempts=5)(long)
    await overdue(lb, raw, beat.declared["long"])
    async with beat.lifespan():
        await wait_until(lambda: attempts, "it runs")
        [lease] = await leases(lb, raw, "long")
        async with rival.lifespan():
            await renewed(client_of(beat), 3)
            [later] = await leases(lb, raw, "long")
            assert later > lease
            go.set()
            await ends(lb, "long", "done")
    assert len(attempts) == 1


async def leases(lb: Lockbeat, raw: Any, job: str) -> list[int]:
    """When the lease of each attempt of a job's slots ends, in ms."""
    ends = [
        pair
        for index in ("task:live", "lock:live")
        for pair in raw.zrange(lb.store.keys.key(lb.jobs.shard_of(job), index), 0, -1, withscores=True)
    ]
    return [int(at) for member, at in ends if member]


@only("valkey")
async def test_a_function_that_blocks_the_event_loop_for_a_whole_lease_is_not_run_twice(
    lb: Lockbeat, raw: Any, beats: Beats
) -> None:
    """The keeper renews from a thread of its own."""
    beat, rival, attempts = beats(), beats(), []

    async def blocking(run: Run) -> None:
        attempts.append(run.attempt)
        time.sleep(4)  # noqa: ASYNC251 - that is what is tested

    for each in (beat, rival):
        each.every(3600, lease=3, max_attempts=5)(blocking)
    await overdue(lb, raw, beat.declared["blocking"])
    async with beat.lifespan(), rival.lifespan():
        await ends(lb, "blocking", "done")
    assert attempts == [1]


async def test_an_attempt_whose_lease_was_lost_is_cancelled_and_not_reported(
    lb: Lockbeat, beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    beat, events = beats(owner="me"), []

    @beat.every(0.2, lease=30)
    async def robbed() -> None:
        events.append("began")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async with beat.lifespan():
        await wait_until(lambda: events, "it runs")
        await lb.tasks.release_all("me")
        hurry(client_of(beat))
        await wait_until(lambda: "cancelled" in events, "it is cancelled")
    entry = await first(lb, "robbed")
    assert (entry.state, entry.reason) == ("lost", "all leases of its owner were released")
    assert "its lease was lost" in caplog.text


async def test_an_attempt_that_was_started_too_late_is_not_begun(
    lb: Lockbeat, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply came after the lease had ended, as after a freeze: it may be another's by now. It is taken back when its lease
    ends, and not when the worker would look again by itself."""
    monkeypatch.setattr("lockbeat.worker.worker.LOOK_AFTER", 3600)
    began: list[Run] = []
    beat = beats()

    @beat.every(0.5, lease=0.3)
    async def late(run: Run) -> None:
        began.append(run)

    real = Worker._begin

    def aged(self: Worker, task: Task, held: Held) -> None:
        # As if the reply had been on its way for all but the margin, and the keeper without the store.
        task.asked_at, held.asked_at = task.asked_at - 0.29, 0.0
        real(self, task, held)

    monkeypatch.setattr(Worker, "_begin", aged)
    async with beat.lifespan():
        await ends(lb, "late", "lost")
    assert began == []


async def test_a_task_whose_function_is_not_here_is_left_to_others(
    lb: Lockbeat, raw: Any, beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    """A rolling deploy: the old code knows nothing of the new job."""
    caplog.set_level(logging.INFO, logger="lockbeat")
    new, ran = beats(), []

    @new.every(3600)
    async def fresh(run: Run) -> None:
        ran.append(run.attempt)

    await overdue(lb, raw, new.declared["fresh"])
    old = beats()
    async with old.lifespan():
        await wait_until(lambda: "no function 'fresh' here" in caplog.text, "the old instance passes it on")
        assert (await states(lb, "fresh")) == ["fired"]
        assert old._client is not None
        raised = await lb.jobs.get("fresh")
        assert raised.open is not None
    async with new.lifespan():
        await wait_until(lambda: ran, "the new instance runs it")
    assert ran == [1], "what the old one passed on was no attempt"


@only("memory", "valkey")
async def test_two_programs_on_one_store_run_every_slot_of_both(lb: Lockbeat, beats: Beats) -> None:
    """Any instance fires any job; what it can't run goes to those who can, at once."""
    one, other = beats(owner="one"), beats(owner="other")
    ran: list[tuple[str, int]] = []

    @one.every(2)
    async def ours(run: Run) -> None:
        ran.append(("ours", run.attempt))

    @other.every(2)
    async def theirs(run: Run) -> None:
        ran.append(("theirs", run.attempt))

    async with one.lifespan(), other.lifespan():
        await wait_until(lambda: min(ran.count(("ours", 1)), ran.count(("theirs", 1))) >= 2, "two slots of each")
    assert {attempt for _, attempt in ran} == {1}
    assert "skipped" not in await states(lb, "ours") + await states(lb, "theirs")


async def test_no_more_run_at_once_than_concurrency_allows(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat, running, most, ended = beats(concurrency=3), [], [], []

    def declare(number: int) -> None:
        @beat.every(3600, name=f"job-{number}")
        async def body(run: Run) -> None:
            running.append(number)
            most.append(len(running))
            await asyncio.sleep(0.05)
            running.remove(number)
            ended.append(number)

    for number in range(12):
        declare(number)
        await overdue(lb, raw, beat.declared[f"job-{number}"])
    async with beat.lifespan():
        await wait_until(lambda: len(ended) == 12, "all of them run")
    assert max(most) == 3
    assert sorted(ended) == list(range(12))


async def test_a_job_in_another_queue_is_run_by_who_serves_it(lb: Lockbeat, beats: Beats) -> None:
    beat, other, ran = beats(), beats(queue="gpu"), []

    @beat.every(0.3, queue="gpu")
    async def heavy() -> None:
        ran.append("beat")

    async with beat.lifespan(), other.lifespan(schedule=False):
        await wait_until(lambda: len(ran) > 1, "a beat serves the queues of its own jobs")
    with pytest.raises(LookupError):
        await lb.jobs.get("other")


@pytest.mark.parametrize("queue", ["a", "b", "c"])
async def test_each_queue_gets_its_turn_at_a_single_place(lb: Lockbeat, raw: Any, beats: Beats, queue: str) -> None:
    """A queue that has nothing gives the place up, and the others are told."""
    beat, ran = beats(concurrency=1, queue="a"), []

    def declare(name: str) -> None:
        @beat.every(86_400, name=f"job-{name}", queue=name)
        async def body() -> None:
            ran.append(name)

    for name in ("a", "b", "c"):
        declare(name)
    job = beat.declared[f"job-{queue}"]
    await overdue(lb, raw, job)
    await scheduler(lb, job).tick(lb.jobs.shard_of(job.name))
    async with beat.lifespan(schedule=False):
        await wait_until(lambda: ran == [queue], "it runs")


class _Odd(BaseException):
    """Neither an Exception nor anything that asyncio knows."""


@only("memory", "valkey")
@pytest.mark.parametrize(
    "raised", [_Odd("odd"), GeneratorExit("odd"), SystemExit("odd")], ids=lambda raised: type(raised).__name__
)
async def test_whatever_a_function_raises_ends_its_attempt_and_frees_its_place(
    raised: BaseException, lb: Lockbeat, beats: Beats
) -> None:
    beat = beats(concurrency=1)
    runs = 0

    @beat.every(0.2)
    async def odd() -> None:
        nonlocal runs
        runs += 1
        raise raised

    async with beat.lifespan():
        await wait_until(lambda: runs >= 3, "its place is free again")
        await ends(lb, "odd", "failed")
    assert not await lb.locks.list()


async def test_a_lambda_around_an_async_function_is_awaited(lb: Lockbeat, beats: Beats) -> None:
    beat, seen = beats(), []

    async def body(run: Run) -> None:
        await asyncio.sleep(0)
        seen.append(run.job)

    beat.every(0.2, name="wrapped")(lambda run: body(run))
    async with beat.lifespan():
        await ends(lb, "wrapped", "done")
    assert seen


def test_a_generator_is_refused_where_it_is_declared() -> None:
    beat = Beat()

    def generator() -> Any:
        yield 1

    with pytest.raises(InvalidArgument, match="generator"):
        beat.every(1)(generator)
    assert not beat.declared


@only("memory", "valkey")
async def test_what_a_burst_fires_begins_before_what_it_ran_is_ended(
    lb: Lockbeat, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the last of a burst would be late by the bookkeeping of all before it."""
    monkeypatch.setattr("lockbeat.worker.reports.ENDS_WAIT", 3600)
    monkeypatch.setattr("lockbeat.worker.reports.NEXT_HANDFUL", 1)
    order: list[str] = []
    completing = Tasks.completing

    def ended(self: Tasks, task: Task, result: Any = None) -> Row:
        order.append("ended")
        return completing(self, task, result)

    monkeypatch.setattr(Tasks, "completing", ended)
    beat, when = beats(concurrency=1000), datetime.now(UTC) + timedelta(seconds=3)

    async def job() -> None:
        order.append("began")

    for number in range(200):  # several runs of beat/fire
        beat.at(when, name=f"job-{number}")(job)

    async with beat.lifespan():
        await wait_until(lambda: order.count("ended") == 200, "all have ended")
    assert order == ["began"] * 200 + ["ended"] * 200


@pytest.fixture
def firing_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever an attempt has succeeded, further slots are being fired."""
    monkeypatch.setattr("lockbeat.worker.reports.NEXT_HANDFUL", 3600)
    monkeypatch.setattr("lockbeat.worker.reports.LOOK_AGAIN", 0.01)


@pytest.mark.usefixtures("firing_without_end")
async def test_a_burst_without_end_does_not_keep_what_it_ran_from_being_ended(lb: Lockbeat, beats: Beats) -> None:
    beat = beats()

    @beat.every(0.5, name="quick")
    async def quick() -> None: ...

    async with beat.lifespan():
        await ends(lb, "quick", "done")


@pytest.mark.usefixtures("firing_without_end")
async def test_what_waits_for_a_burst_to_begin_is_ended_by_the_shutdown(
    lb: Lockbeat, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockbeat.worker.reports.ENDS_WAIT", 3600)
    beat, ran = beats(grace=1), []

    @beat.every(0.5, name="quick", lease=3600)
    async def quick() -> None:
        ran.append(1)

    async with beat.lifespan():
        await wait_until(lambda: ran, "it ran")
    assert (await states(lb, "quick")).count("done") == 1
    assert not await lb.locks.list()


async def test_an_attempt_that_has_succeeded_is_freed_at_once(lb: Lockbeat, beats: Beats) -> None:
    """And not when Python's collector comes by: for what waits for that it comes by in the middle of a burst."""
    beat = beats()

    @beat.task
    async def quick() -> None: ...

    def attempts() -> list[Attempt]:
        return [one for one in gc.get_objects() if isinstance(one, Attempt)]

    gc.collect()
    others = attempts()  # of tests before this one, whose log or error is still kept
    gc.disable()
    try:
        async with beat.lifespan():
            for _ in range(5):
                spawned = await lb.tasks.spawn("quick")
                await lb.tasks.wait(spawned.task_id, timeout=30)
            await wait_until(lambda: len(attempts()) == len(others), "none is left")
    finally:
        gc.enable()
