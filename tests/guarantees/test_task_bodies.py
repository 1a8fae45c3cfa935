"""What a task's function is told, what is kept of what it returns or raises, and what is logged of it."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import pytest

from lockbeat import Lockbeat, Run
from tests.beats import Beats
from tests.conftest import only, wait_until
from tests.tasks import either, end_of


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_function_is_told_all_of_its_attempt(lb: Lockbeat, beats: Beats, kind: str) -> None:
    beat, runs = beats(owner="me"), []
    params, headers = {"big": 2**70, "none": [], "text": "ä\0\ud83d\ude00"}, {"trace": ["a", 1]}

    def job(run: Run) -> Any:
        runs.append((run, threading.current_thread() is threading.main_thread()))
        return run.params

    beat.task(name="job")(either(kind, job))
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

    def bad(run: Run) -> None:
        try:
            raise KeyError("cause")
        except KeyError as cause:
            raise Outer.NoLuckError("no luck, ä \udcff") from cause

    beat.task(name="bad", max_attempts=1)(either(kind, bad))
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

    def odd(run: Run) -> None:
        raise raised

    beat.task(name="odd", max_attempts=1)(either(kind, odd))

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
