"""Promises 10 and 13: what functions do to the process they run in, it ends when it is asked to, and not before."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lockbeat import LeaseLost, Lockbeat, LockbeatError, LockTimeout, Run
from lockbeat.cli.commands.leases import heard
from lockbeat.leases import stall as stall_module
from lockbeat.monitor import instances
from lockbeat.process import blame
from lockbeat.program import signals
from lockbeat.tasks import TaskInfo
from tests.beats import Beats, eventually
from tests.conftest import Connect, only, wait_until

ROOT = Path(__file__).parents[2]
FORK_KINDS = {
    "pool": [2, 4],
    "executor": [2, 4],
    "terminate": -signal.SIGTERM,
    "terminate at once": [-signal.SIGTERM],
    "preexec": -signal.SIGTERM,
    "exit": 7,
    "raise": 1,
    "return": 0,
    "daemon": 0,
    "own client": True,
}


def heeds_signals() -> None:
    """For a child of tests that run in a shell's background, or under nohup: these are ignored there, and that is inherited."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Program:
    """A process of `tests.misbehaving`."""

    def __init__(self, lb: Lockbeat, url: str, *, grace: float = 0.2, stall: float = 600, nohup: bool = False) -> None:
        self.lb = lb
        arguments = (url, lb.store.keys.namespace, str(grace), str(stall))
        self.process = subprocess.Popen(
            [*(["nohup"] if nohup else []), sys.executable, "-m", "tests.misbehaving", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heeds_signals,
        )

    async def result(self, name: str, params: Any) -> TaskInfo:
        spawned = await self.lb.tasks.spawn(name, params, max_attempts=1)
        return await self.lb.tasks.wait(spawned.task_id, timeout=30)

    async def begin(self, name: str, params: Any, **options: Any) -> str:
        """Its id, once it runs."""
        spawned = await self.lb.tasks.spawn(name, params, **({"max_attempts": 1} | options))
        assert self.process.stdout is not None
        assert await asyncio.to_thread(self.process.stdout.readline) == "began\n"
        return spawned.task_id

    def close(self) -> None:
        """Kill it if it has not ended, and let go of its pipes."""
        self.process.kill()
        self.process.communicate()

    async def end(self) -> tuple[int, str]:
        """Its exit code, once it has ended, and what it said."""
        assert self.process.stderr is not None
        said = await asyncio.wait_for(asyncio.to_thread(self.process.stderr.read), 30)
        await asyncio.to_thread(self.process.wait, 30)
        return self.process.returncode, said


@pytest.fixture
async def program(lb: Lockbeat, url: str, request: pytest.FixtureRequest) -> AsyncIterator[Program]:
    made = Program(lb, url, grace=getattr(request, "param", 0.2))
    yield made
    made.close()


@only("valkey")
async def test_what_becomes_of_a_forked_child_is_no_matter_of_its_parents(program: Program) -> None:
    for function in ("forks", "forks_in_the_loop"):
        for kind, right in FORK_KINDS.items():
            info = await program.result(function, kind)
            assert (kind, info.state, info.result) == (kind, "done", right)
        said = (await program.result(function, "client")).result
        assert said.startswith("StoreError: this client is the parent process': in a forked child open a Lockbeat")
    assert (await program.result("forks_in_the_loop", "await")).result == 1, "it does not turn its parent's loop"
    program.process.send_signal(signal.SIGTERM)
    code, said = await program.end()
    assert code == 0, said


@only("valkey")
async def test_what_a_program_declares_is_not_looked_at_by_the_garbage_collector(program: Program) -> None:
    assert (await program.result("frozen", None)).result > 0


@only("valkey")
async def test_no_function_ends_the_program_by_what_it_raises(program: Program) -> None:
    for error in ("SystemExit", "KeyboardInterrupt"):
        for how in ("itself", "group", "awaited", "left alone", "callback"):
            info = await program.result("raises", [how, error])
            assert info.failure is not None
            assert (how, info.state, info.failure.type) == (how, "dead", error)
        info = await program.result("raises_in_a_thread", ["itself", error])
        assert info.failure is not None
        assert info.failure.type == error
    assert (await program.result("stops_the_loop", None)).result == "goes on"
    program.process.send_signal(signal.SIGTERM)
    code, said = await program.end()
    assert code == 0, said


@only("valkey")
@pytest.mark.parametrize("program", [600], indirect=True)
@pytest.mark.parametrize("how", ["sleep", "spin", "receive"])
async def test_a_second_signal_ends_a_program_whose_event_loop_is_stuck(program: Program, how: str) -> None:
    await program.begin("hangs", how)
    for _ in range(20):  # the first may be heard late, and the next be taken for its repetition
        program.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(signals.REPEATED * 1.2)
        if program.process.poll() is not None:
            break
    code, said = await program.end()
    assert code == 128 + signal.SIGTERM
    assert "SIGTERM again" in said


@only("valkey")
@pytest.mark.parametrize(
    ("function", "how", "number"),
    [
        ("hangs", "sleep", signal.SIGTERM),
        ("hangs", "except", signal.SIGHUP),
        ("hangs", "to_thread", signal.SIGINT),
        ("hangs_in_a_thread", "", signal.SIGTERM),
    ],
)
async def test_one_signal_is_enough_to_end_it_and_the_log_names_what_would_not_end(
    program: Program, function: str, how: str, number: signal.Signals
) -> None:
    task_id = await program.begin(function, how)
    program.process.send_signal(number)
    code, said = await program.end()
    assert code == 1
    where = {"sleep": "time.sleep(600)", "to_thread": "in wait"}.get(how, task_id)
    assert where in said


@only("valkey")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
async def test_a_program_whose_event_loop_can_turn_no_more_ends_and_says_so(program: Program) -> None:
    await program.begin("closes", "selector")
    code, said = await program.end()
    assert code == 1, said[-2000:]
    assert "the event loop can't be turned any more: OSError" in said
    assert said.count("Traceback") < 10, "it was not tried again and again"


@only("valkey")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
async def test_a_keeper_whose_file_was_closed_renews_all_the_same(program: Program, lb: Lockbeat) -> None:
    assert (await program.result("closes", "eventpoll")).result == "closed"
    running = await lb.tasks.spawn("outlives_its_lease")
    expiries = set[float]()
    async with asyncio.timeout(30):
        while (info := await lb.tasks.get(running.task_id)).state in ("waiting", "running"):
            if info.expires_at is not None:
                expiries.add(info.expires_at)
                await lb.tasks.claim("default", "neighbour", 10, 30)  # takes what has run out
            await asyncio.sleep(0.02)
    assert (info.state, info.result) == ("done", 1)
    assert len(expiries) > 1, "it was renewed"
    program.process.send_signal(signal.SIGTERM)
    assert (await program.end())[0] == 0


@only("valkey")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
async def test_a_signal_is_heard_though_all_sockets_were_closed(program: Program) -> None:
    await program.result("closes", "socket")
    assert (await program.result("stops_the_loop", None)).result == "goes on"
    for _ in range(20):  # what hears it may have to be opened anew first
        program.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(signals.REPEATED * 1.2)
        if program.process.poll() is not None:
            break
    code, said = await program.end()
    assert code in (0, 128 + signal.SIGTERM), said[-2000:]


@only("valkey")
async def test_under_nohup_the_terminals_end_is_not_its_own(lb: Lockbeat, url: str) -> None:
    program = Program(lb, url, nohup=True)
    try:
        assert (await program.result("stops_the_loop", None)).state == "done"
        program.process.send_signal(signal.SIGHUP)
        assert (await program.result("stops_the_loop", None)).state == "done"
        program.process.send_signal(signal.SIGTERM)
        assert (await program.end())[0] == 0
    finally:
        program.close()


def test_who_ends_without_being_asked_says_so() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(LockbeatError, match="no signal had asked"):
        signals.run(cancelled, patience=1, abandoned=list)


def test_signals_are_the_programs_again_once_it_has_served() -> None:
    async def serve() -> None:
        assert signal.getsignal(signal.SIGTERM) is blame.heard

    before = signal.signal(signal.SIGTERM, own := lambda number, frame: None)
    try:
        signals.run(serve, patience=1, abandoned=list)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


# -- what hangs


async def taken_over(lb: Lockbeat, *task_ids: str) -> None:
    """Another instance gets the next attempt of each, and ends it."""
    left = set(task_ids)

    async def begun() -> bool:
        for task in await lb.tasks.claim("default", "other", limit=10):
            assert task.attempt == 2
            assert await lb.tasks.complete(task, "by another")
            left.discard(task.id)
        return not left

    await eventually(begun, "another begins the next attempt")


@only("valkey")
async def test_what_blocks_the_event_loop_beyond_its_timeout_and_grace_is_renewed_no_more(program: Program, lb: Lockbeat) -> None:
    task_id = await program.begin("hangs_past_its_timeout", "sleep", max_attempts=2, retry=None, lease=3)
    await taken_over(lb, task_id)
    program.process.kill()
    _, log = await program.end()
    assert f"{task_id} (hangs_past_its_timeout) still runs 0.2 s after its timeout" in log
    assert f"{task_id} blocks the event loop" in log
    assert "time.sleep(600)" in log


@only("memory", "valkey")
@pytest.mark.parametrize("plain", [True, False])
async def test_what_ignores_its_timeout_beyond_grace_is_renewed_no_more(
    lb: Lockbeat, beats: Beats, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    beat, goes_on = beats(grace=0.05, timeout=0.2), asyncio.Event()
    with released() as end:

        @beat.task(name="plain", timeout=0.05, lease=30)
        def in_a_thread() -> None:
            end.wait()

        @beat.task(name="async", timeout=0.05, lease=30)
        async def in_the_loop() -> None:
            while not goes_on.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await goes_on.wait()

        async with beat.lifespan():
            spawned = await beat.spawn("plain" if plain else "async")
            assert beat._client is not None
            await wait_until(lambda: "s after its timeout" in caplog.text, "it is let go")
            assert f"{spawned.task_id} ({'plain' if plain else 'async'}) still runs 0.05 s after its timeout" in caplog.text
            await wait_until(lambda: not len(beat._client.keeper), "nothing is held")  # type: ignore[union-attr]
            assert ("end.wait()" if plain else "await goes_on.wait()") in caplog.text
            goes_on.set()
            end.set()


@only("valkey")
async def test_an_instance_whose_event_loop_stands_still_gives_all_its_leases_up_and_says_so(lb: Lockbeat, url: str) -> None:
    program = Program(lb, url, stall=1)
    try:
        neighbour = await program.begin("waits", None, max_attempts=2, retry=None, lease=3)
        stuck = await program.begin("hangs", "sleep", max_attempts=2, retry=None, lease=3)
        await taken_over(lb, neighbour, stuck)
        [instance] = await instances(lb.store)
        assert instance.gave_up
        assert instance.stuck_s is not None
        state = str(heard(instance, instance.seen_ms / 1000)[0])
        assert state.startswith("stuck ")
        assert state.endswith("gave its leases up")
        program.process.kill()
        _, log = await program.end()
        assert f"in {stuck}: no lease of this instance is renewed" in log
        assert "time.sleep(600)" in log
        assert "Thread 'lockbeat signals'" in log
    finally:
        program.close()


@only("valkey")
@pytest.mark.parametrize("stall", [0.3, None])
async def test_a_block_that_blocks_the_event_loop_for_longer_than_stall_loses_its_lock(
    connect: Connect, stall: float | None
) -> None:
    """And keeps it in a client that was not asked for that, as of a script that takes its time."""

    async def waiting() -> bool:
        async with connect() as other:
            try:
                async with other.lock("k", wait=30 if stall else 2):
                    return True
            except LockTimeout:
                return False

    got: list[bool] = []
    async with connect(stall=stall) as lb:
        with contextlib.nullcontext() if stall is None else pytest.raises(LeaseLost):
            async with lb.lock("k", ttl=1):
                thread = threading.Thread(target=lambda: got.append(asyncio.run(waiting())))
                thread.start()
                thread.join()
    assert got == [stall is not None]


@pytest.mark.parametrize(
    ("limit", "looks", "gives_up_at"),
    [
        (60.0, range(0, 200, 5), 60),
        (None, range(0, 2000, 5), None),
        (60.0, [0, 5, 500, *range(505, 700, 5)], 560),  # the process was frozen, or the interpreter held: not the loop's fault
        (1.0, [n / 4 for n in range(20)], 1),
    ],
)
async def test_the_loop_is_given_up_once_and_for_what_it_did_itself(
    monkeypatch: pytest.MonkeyPatch, limit: float | None, looks: Sequence[float], gives_up_at: float | None
) -> None:
    clock = [0.0]
    monkeypatch.setattr(stall_module, "monotonic", lambda: clock[0])
    stall = stall_module.Stall(asyncio.get_running_loop(), limit)

    def look(at: float) -> bool:
        clock[0] = at
        return stall.look()

    given_up = [at for at in looks if look(at)]
    assert given_up == ([] if gives_up_at is None else [gives_up_at])
    await asyncio.sleep(0)  # it turns
    assert not stall.look()
    assert not stall.given_up


# -- what ends late


@contextlib.contextmanager
def released() -> Iterator[threading.Event]:
    """Set at the end, so that no thread outlives its test."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


@only("memory", "valkey")
@pytest.mark.parametrize("plain", [True, False])
async def test_what_returns_after_grace_while_its_lease_is_held_is_done(lb: Lockbeat, beats: Beats, plain: bool) -> None:
    beat, began = beats(grace=0.02, timeout=30), threading.Event()

    @beat.task(name="late", max_attempts=3)
    def waits(run: Run) -> str:
        began.set()
        with released() as never:
            while run.stopped() is None:
                never.wait(0.005)
        return "late"

    @beat.task(name="late twin", max_attempts=3)
    async def sleeps() -> str:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "late"

    async with beat.lifespan():
        spawned = await beat.spawn("late" if plain else "late twin")
        await wait_until(began.is_set, "it runs")
    info = await lb.tasks.get(spawned.task_id)
    assert (info.state, info.result, info.attempts) == ("done", "late", 1)


@only("memory", "valkey")
@pytest.mark.parametrize("plain", [True, False])
async def test_what_returns_after_its_timeout_while_its_lease_is_held_is_done(lb: Lockbeat, beats: Beats, plain: bool) -> None:
    beat = beats(grace=30)

    @beat.task(name="late", timeout=0.05, max_attempts=3)
    def waits(run: Run) -> str:
        with released() as never:
            while run.stopped() is None:
                never.wait(0.005)
        return "late"

    @beat.task(name="late twin", timeout=0.05, max_attempts=3)
    async def sleeps() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "late"

    async with beat.lifespan():
        info = await lb.tasks.wait((await beat.spawn("late" if plain else "late twin")).task_id, timeout=30)
    assert (info.state, info.result, info.attempts) == ("done", "late", 1)


@only("memory", "valkey")
async def test_what_asks_and_is_told_to_stop_has_timed_out(lb: Lockbeat, beats: Beats) -> None:
    """By the error of its own `run.heartbeat()`, in a thread and in the loop."""
    beat = beats()

    @beat.task(timeout=0.05, max_attempts=1)
    def plain(run: Run) -> None:
        with released() as never:
            while not never.wait(0.005):
                run.heartbeat()

    @beat.task(timeout=0.05, max_attempts=1)
    async def in_the_loop(run: Run) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            run.heartbeat()

    async with beat.lifespan():
        for function in (plain, in_the_loop):
            info = await lb.tasks.wait((await beat.spawn(function)).task_id, timeout=30)
            assert info.failure is not None
            assert (info.state, info.failure.type) == ("dead", "TimedOut")


@only("memory", "valkey")
async def test_a_client_is_of_no_use_in_another_loop(connect: Connect) -> None:
    async with connect() as lb:

        async def elsewhere() -> None:
            await lb.locks.owner("k")

        with pytest.raises(LockbeatError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())
