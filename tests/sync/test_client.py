"""The blocking client: opened and closed, used by many threads, and where event loops run."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import lockbeat
from lockbeat.errors import InvalidArgument, LockbeatError, StoreError, StoreUnavailable
from lockbeat.sync import Gate, Lockbeat
from lockbeat.sync.portal import Portal
from tests.conftest import PATIENCE, Backend, only
from tests.sync.conftest import Blocking, in_thread, until, waiters


def test_every_part_answers(slb: Lockbeat) -> None:
    lease = slb.locks.try_acquire("k", "me", 30)
    assert lease is not None
    assert slb.fenced.set("name", {"a": 1}, fence=lease.fence)
    assert slb.fenced.get("name") == lockbeat.FencedValue({"a": 1}, lease.fence)
    spawned = slb.tasks.spawn("send", {"to": "a"})
    [task] = slb.tasks.claim("default", "me")
    assert (task.id, task.params) == (spawned.task_id, {"to": "a"})
    assert slb.tasks.complete(task, 7)
    assert slb.tasks.wait(spawned.task_id, timeout=PATIENCE).result == 7
    assert slb.jobs.list() == []
    assert slb.calendars.list() == []
    assert slb.claims.active() == 0
    assert slb.locks.release("k", "me")


def test_bad_arguments_are_refused_before_anything_is_opened() -> None:
    with pytest.raises(InvalidArgument, match="stall"):
        Lockbeat("memory://", stall=-1)
    lb = Lockbeat("memory://")
    assert not lb.is_open
    assert lb.url == "memory://"


def test_its_first_call_opens_it_and_after_close_it_says_that_it_is_closed(blocking: Blocking) -> None:
    lb = blocking()
    states = [lb.is_open]
    assert lb.locks.owner("k") is None
    states.append(lb.is_open)
    lb.close()
    lb.close()
    assert [*states, lb.is_open] == [False, True, False]
    with pytest.raises(LockbeatError, match="it was closed"):
        lb.locks.owner("k")
    with lb:
        assert lb.locks.owner("k") is None
        with pytest.raises(LockbeatError, match="already connected"):
            lb.__enter__()
    with pytest.raises(LockbeatError, match="it was closed"):
        lb.lock("k")


def test_threads_that_come_first_at_once_open_it_once(blocking: Blocking, threads: ThreadPoolExecutor) -> None:
    lb, gate = blocking(), threading.Barrier(16)

    def come() -> str:
        gate.wait(PATIENCE)
        return lb.owner

    assert len({future.result(PATIENCE) for future in [threads.submit(come) for _ in range(16)]}) == 1


def test_it_leaves_no_thread_behind(blocking: Blocking) -> None:
    before = {*threading.enumerate()}
    with blocking() as lb, lb.lock("k"):
        assert len({*threading.enumerate()} - before) >= 2
    until(lambda: {*threading.enumerate()} <= before, "its threads have ended")


@only("valkey")
def test_calls_of_many_threads_share_the_way(slb: Lockbeat, backend: Backend, threads: ThreadPoolExecutor) -> None:
    """Those that were posted while the loop did something else leave in one write, and share a run of their script."""
    portal, gate = slb.reach().portal, threading.Event()
    assert slb.locks.try_acquire("k", "me", 30)  # the server has the script now
    portal.loop.call_soon_threadsafe(gate.wait)
    before = backend.calls("evalsha")["evalsha"]
    asked = [threads.submit(slb.locks.try_acquire, f"k{number}", "me", 30) for number in range(16)]
    until(lambda: len(portal._posted) == 16, "all are posted")
    gate.set()
    assert all(future.result(PATIENCE) for future in asked)
    assert backend.calls("evalsha")["evalsha"] - before == 1


@only("memory", "valkey")
def test_a_caller_that_waits_holds_up_no_other(slb: Lockbeat) -> None:
    with slb.lock("k"):

        def wait() -> None:
            with slb.lock("k"):
                pass

        waiting = in_thread(wait)
        until(lambda: waiters(slb), "it waits")
        assert slb.locks.is_locked("k")
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


@only("memory", "valkey")
def test_it_can_be_used_where_an_event_loop_runs(slb: Lockbeat) -> None:
    """As in Jupyter: it blocks that loop, and answers."""

    async def cell() -> str | None:
        with slb.lock("k"):
            return slb.locks.owner("k")

    assert asyncio.run(cell()) == slb.owner
    with pytest.raises(RuntimeError):  # and has left no loop of its own in this thread
        asyncio.get_running_loop()


@only("memory", "valkey")
def test_a_call_from_its_own_event_loop_is_an_error_and_no_deadlock(slb: Lockbeat) -> None:
    async def within() -> None:
        slb.locks.owner("k")

    with pytest.raises(LockbeatError, match="this call blocks"):
        slb.reach().portal.call(within)
    assert slb.locks.owner("k") is None


@only("memory")
def test_whatever_a_call_raises_is_raised_in_its_thread_and_the_loop_goes_on(slb: Lockbeat) -> None:
    for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, asyncio.CancelledError):

        async def failing(kind: type[BaseException] = kind) -> None:
            if kind is StopIteration:
                iter(()).__next__()
            raise kind

        with pytest.raises((kind, RuntimeError, StoreError)):
            slb.reach().portal.call(failing)
        assert slb.locks.owner("k") is None


@only("memory", "valkey")
def test_close_ends_the_waits_of_others(blocking: Blocking) -> None:
    lb, raised = blocking(), list[BaseException]()
    holder = blocking()

    def wait() -> None:
        try:
            with lb.lock("k"):
                pass
        except BaseException as problem:  # noqa: BLE001
            raised.append(problem)

    with holder.lock("k"):
        waiting = in_thread(wait)
        until(lambda: lb.is_open and waiters(lb), "it waits")
        lb.close()
        waiting.join(PATIENCE)
    assert [type(problem).__mro__[1] for problem in raised] == [StoreError]
    assert not holder.locks.is_locked("k")  # it had left the queue


def test_a_portal_that_is_closed_refuses_whoever_comes_late() -> None:
    async def nothing() -> None:
        pass

    portal = Portal()
    portal.close(nothing, 1)
    with pytest.raises(StoreError, match="closed"):
        portal.call(nothing)


def test_a_store_that_is_away_is_said_to_be_and_may_come_later() -> None:
    lb = Lockbeat("redis://127.0.0.1:1", timeout=0.2)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            lb.locks.owner("k")
        assert not lb.is_open


def test_a_gate_with_nothing_behind_it_lets_everything_pass() -> None:
    gate = Gate(None)
    with gate.hold("k") as claim:
        assert claim.outcome == "passthrough"
        claim.complete()
    assert gate.list() == []
    with pytest.raises(InvalidArgument):
        gate.hold("")
    with Lockbeat("memory://") as lb:
        assert Gate(lb.claims).active() == 0


LEFT_OPEN = """
import sys, threading
from lockbeat.sync import Lockbeat
lb = Lockbeat(sys.argv[1], namespace=sys.argv[2])
lock = lb.lock("k")
lease = lock.__enter__()
threading.Thread(target=lb.locks.owner, args=("other",)).start()
print(lease.key, flush=True)
"""


UNHEARD = """
import _thread
for _ in range(int(sys.argv[3])):
    lb.locks.owner("another")
threading.Timer(1, _thread.interrupt_main).start()  # it is noted for the main thread, and wakes nobody
lb.lock("k").__enter__()
"""


@only("valkey")
@pytest.mark.parametrize("calls", [0, 20])  # a wait in the portal's thread, and in the caller's
def test_a_ctrl_c_that_came_just_before_the_wait_is_heard(url: str, namespace: str, calls: int) -> None:
    command = [sys.executable, "-c", LEFT_OPEN + UNHEARD, url, namespace, str(calls)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert b"KeyboardInterrupt" in err, err.decode()


@only("valkey")
@pytest.mark.parametrize("how", ["", "raise SystemExit(3)", "lb.lock('k').__enter__()"])
def test_a_program_that_ends_without_closing_ends(url: str, namespace: str, how: str) -> None:
    """One that waits for itself is ended by Ctrl-C."""
    command = [sys.executable, "-c", LEFT_OPEN + how, url, namespace]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"k\n"
        if how.startswith("lb"):
            process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (b"KeyboardInterrupt" in err) == how.startswith("lb"), err.decode()
    assert process.returncode in ([3] if "Exit" in how else [1, -signal.SIGINT] if how else [0])
