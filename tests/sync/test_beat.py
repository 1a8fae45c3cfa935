"""The beat of programs that block: in a thread, in the main thread, and as long as a block runs."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from lockbeat.errors import InvalidArgument, InvalidType, LifespanError, LockbeatError, StoreUnavailable
from lockbeat.sync import Beat, Lockbeat, Run
from tests.conftest import PATIENCE, only
from tests.sync.conftest import Blocking, in_thread, until

Beats = Callable[..., Beat]


@pytest.fixture
def beats(url: str, namespace: str, shards: int) -> Iterator[Beats]:
    """Makes beats, which are stopped when the test has ended."""
    made: list[Beat] = []

    def make(store: Any = None, **options: Any) -> Beat:
        settings: dict[str, Any] = {"namespace": namespace, "shards": shards, "grace": 5} | options
        beat = Beat(url if store is None else store, **settings)
        made.append(beat)
        return beat

    yield make
    for beat in made:
        beat.stop()


def test_run_where_it_can_not_says_what_a_program_that_blocks_is_to_use(threads: ThreadPoolExecutor) -> None:
    """Not to await `serve`, which blocks."""

    async def in_a_notebook() -> None:
        Beat("memory://").run()

    calls: list[Callable[[], object]] = [
        lambda: asyncio.run(in_a_notebook()),
        lambda: threads.submit(Beat("memory://").run).result(),
    ]
    for call in calls:
        with pytest.raises(LockbeatError, match=r"use `beat.start\(\)`"):
            call()


def test_it_serves_in_a_thread_from_start_to_stop(slb: Lockbeat, beats: Beats) -> None:
    beat, fired = beats(), threading.Event()

    @beat.every(1)
    def tick(run: Run) -> None:
        assert run.job == "tick"
        fired.set()

    @beat.task
    def double(run: Run) -> int:
        return int(run.params) * 2

    for _ in range(2):
        beat.start()
        fired.clear()
        assert fired.wait(PATIENCE)
        spawned = beat.spawn(double, 21)
        assert slb.tasks.wait(spawned.task_id, timeout=PATIENCE).result == 42
        assert beat.jobs.get("tick").job.name == "tick"
        with pytest.raises(LockbeatError, match="serving already"):
            beat.start()
        beat.stop()
        beat.stop()
    with pytest.raises(LockbeatError, match="not serving"):
        beat.spawn(double, 1)
    with pytest.raises(LockbeatError, match="not serving"):
        _ = beat.jobs


def test_stop_lets_functions_end_and_gives_back_what_it_held(slb: Lockbeat, beats: Beats) -> None:
    beat, begun, go = beats(), threading.Event(), threading.Event()

    @beat.task
    def slow() -> str:
        begun.set()
        assert go.wait(PATIENCE)
        return "ended"

    with beat.lifespan():
        spawned = beat.spawn(slow)
        assert begun.wait(PATIENCE)
        threading.Timer(0.1, go.set).start()
    assert slb.tasks.get(spawned.task_id).result == "ended"
    assert slb.locks.list() == []


def test_it_leaves_no_thread_behind(beats: Beats) -> None:
    before = {*threading.enumerate()}
    with beats().lifespan():
        pass
    until(lambda: {*threading.enumerate()} <= before, "its threads have ended")


def test_a_beat_on_an_open_client_shares_its_name_and_leaves_it_open(slb: Lockbeat, beats: Beats) -> None:
    beat = beats(slb)
    owners: list[str] = []

    @beat.task
    def who(run: Run) -> None:
        with slb.lock("k") as lease:
            owners.extend([run.owner, lease.owner])

    spawned = beat.spawn(who)  # it need not serve for that
    with beat.lifespan():
        slb.tasks.wait(spawned.task_id, timeout=PATIENCE)
    assert owners == [slb.owner] * 2
    assert slb.is_open
    with pytest.raises(LockbeatError, match="can't leave"):
        beat.move("memory://")


def test_a_beat_on_a_client_that_is_not_open_opens_it_and_closes_it(blocking: Blocking, beats: Beats) -> None:
    lb = blocking()
    beat, owners = beats(lb), list[str]()

    @beat.task
    def who(run: Run) -> None:
        owners.extend([run.owner, lb.owner])

    with beat.lifespan():
        states = [lb.is_open]
        spawned = beat.spawn(who)
        lb.tasks.wait(spawned.task_id, timeout=PATIENCE)
    assert [*states, lb.is_open] == [True, False]
    assert owners[0] == owners[1]
    assert lb.tasks.get(spawned.task_id).state == "done"  # as before: its next call opens it


@only("memory", "valkey")
def test_serve_blocks_until_another_thread_stops_it(beats: Beats) -> None:
    beat, fired = beats(), threading.Event()
    beat.every(1, name="tick")(fired.set)
    serving = in_thread(beat.serve)
    assert fired.wait(PATIENCE)
    assert serving.is_alive()
    beat.stop()
    serving.join(PATIENCE)
    assert not serving.is_alive()


@only("memory", "valkey")
def test_what_an_async_function_calls_here_is_an_error_and_no_deadlock(slb: Lockbeat, beats: Beats) -> None:
    beat = beats()

    @beat.task
    def other() -> None:
        pass

    @beat.task(max_attempts=1)
    async def stuck() -> None:
        beat.spawn(other)

    with beat.lifespan():
        info = slb.tasks.wait(beat.spawn(stuck).task_id, timeout=PATIENCE)
    assert info.failure is not None
    assert "this call blocks" in info.failure.message


@only("memory", "valkey")
def test_a_system_exit_that_leaves_through_the_loop_stops_nobody(slb: Lockbeat, beats: Beats) -> None:
    beat = beats(slb)

    @beat.task(max_attempts=1)
    async def starts_one() -> None:
        async def leave() -> None:
            raise SystemExit(3)

        await asyncio.wait([asyncio.ensure_future(leave())])

    with beat.lifespan():
        slb.tasks.wait(beat.spawn(starts_one).task_id, timeout=PATIENCE)
        assert slb.locks.owner("k") is None


@only("memory", "valkey")
def test_its_lifespan_is_a_plain_one_entered_and_left_in_one_thread(slb: Lockbeat, beats: Beats) -> None:
    seen: list[Any] = []

    @contextmanager
    def state(beat: Beat) -> Iterator[str]:
        seen.append(threading.get_ident())
        yield "open"
        seen.append(threading.get_ident())

    beat = beats(lifespan=state)

    @beat.task
    def show(run: Run) -> Any:
        return run.state

    with beat.lifespan():
        assert slb.tasks.wait(beat.spawn(show).task_id, timeout=PATIENCE).result == "open"
    assert seen[0] == seen[1] != threading.get_ident()


@only("memory")
def test_a_lifespan_that_is_none_is_refused(beats: Beats) -> None:
    @asynccontextmanager
    async def other(beat: Beat) -> Any:
        yield

    async def coroutine(beat: Beat) -> None: ...

    def bare(beat: Beat) -> Iterator[None]:
        yield

    with pytest.raises(InvalidArgument, match="takes a plain one"):
        beats(lifespan=coroutine)
    with pytest.raises(InvalidArgument, match="bare generator"):
        beats(lifespan=bare)
    with pytest.raises(InvalidType, match="function of the beat"):
        beats(lifespan=3)
    with pytest.raises(LifespanError, match="no context manager"):
        beats(lifespan=other).start()


@only("memory")
def test_a_lifespan_that_fails_is_raised_by_start(beats: Beats) -> None:
    @contextmanager
    def state(beat: Beat) -> Iterator[None]:
        if beat.url is not None:
            raise RuntimeError("no database")
        yield

    beat = beats(lifespan=state)
    with pytest.raises(LifespanError, match="no database"):
        beat.start()
    with pytest.raises(LockbeatError, match="not serving"):
        _ = beat.jobs


def test_start_raises_where_the_store_is_away_or_goes_on_trying() -> None:
    beat = Beat("redis://127.0.0.1:1", timeout=0.2)

    @beat.task
    def nothing() -> None: ...

    with pytest.raises(StoreUnavailable):
        beat.start()
    with beat.lifespan(wait_for_store=False), pytest.raises(StoreUnavailable, match="has not reached the store"):
        beat.spawn(nothing)


@only("memory")
def test_narrow_and_move(url: str, beats: Beats) -> None:
    beat = beats("redis://127.0.0.1:1")
    beat.narrow(concurrency=3, queues=["mail"])
    beat.move(url)
    assert (beat.concurrency, beat.url) == (3, url)
    with beat.lifespan():
        with pytest.raises(LockbeatError, match="serving already"):
            beat.move("memory://other")
        with pytest.raises(LockbeatError, match="serving already"):
            beat.narrow(concurrency=4)


RUN = """
import sys
from lockbeat.sync import Beat, Lockbeat
url, namespace, how = sys.argv[1:]
lb = Lockbeat(url, namespace=namespace)
beat = Beat(lb)
@beat.every(1)
def tick(run):
    with lb.lock("k"):
        print("fired", run.owner == lb.owner, flush=True)
if how == "open":
    lb.open()
if how in ("open", "run"):
    beat.run()
    print("over", lb.is_open)
elif how == "exit":
    beat.start()
    sys.stdin.readline()
"""


@only("valkey")
@pytest.mark.parametrize("how", ["run", "open", "exit"])
def test_a_program_serves_until_it_is_asked_to_end(slb: Lockbeat, url: str, namespace: str, how: str) -> None:
    """By a signal; and one that ends without `stop` is shut down all the same."""
    command = [sys.executable, "-c", RUN, url, namespace, how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "fired True\n"
        if how == "exit":
            out, _ = process.communicate("\n", timeout=PATIENCE)
        else:
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=PATIENCE)
            assert out.splitlines()[-1] == f"over {how == 'open'}"
    assert process.returncode == 0
    assert slb.locks.list() == []
    assert slb.tasks.counts().running == 0


def test_two_programs_fire_a_slot_once(slb: Lockbeat, beats: Beats) -> None:
    slots: list[Any] = []
    for _ in range(3):
        beat = beats()

        @beat.every(1, name="tick")
        def tick(run: Run) -> None:
            slots.append(run.slot)

        beat.start()
    until(lambda: len({*slots}) >= 3, "three slots have fired")
    assert len(slots) == len({*slots})
