"""The loop is lent to callers that come one after the other: they turn it in their own thread."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
from functools import partial

import pytest

from lockbeat.errors import LockbeatError
from lockbeat.sync import Lockbeat
from lockbeat.sync.portal import Portal
from lockbeat.sync.turning import Call
from tests.conftest import PATIENCE, only
from tests.sync.conftest import Blocking, ended, in_thread, nothing, until


async def here() -> int:
    """In which thread the loop turns."""
    return threading.get_ident()


def lend(portal: Portal) -> None:
    """Until it is this thread's, unless that stands still for a moment."""
    until(lambda: portal.call(here) == threading.get_ident(), "the caller turns the loop itself")


def test_who_calls_again_and_again_turns_the_loop_itself(portal: Portal) -> None:
    assert portal.call(here) == portal._thread.ident
    lend(portal)
    ended(in_thread(partial(lend, portal)))  # another's turn is as good


def test_its_own_thread_turns_it_again_when_nobody_calls(portal: Portal) -> None:
    rung = threading.Event()

    async def later() -> int:
        asyncio.get_running_loop().call_later(0.02, rung.set)
        return threading.get_ident()

    lend(portal)
    while portal.call(later) != threading.get_ident():
        pass
    assert rung.wait(PATIENCE)
    until(lambda: not portal._lent, "the thread has it again")


def test_other_threads_are_heard_at_once_while_nobody_calls(portal: Portal) -> None:
    lend(portal)
    for _ in range(50):
        heard = threading.Event()
        portal.call(nothing)
        portal.loop.call_soon_threadsafe(heard.set)
        assert heard.wait(PATIENCE)


def test_what_a_call_leaves_to_be_done_is_done(portal: Portal) -> None:
    done = threading.Event()

    async def leave() -> int:
        async def step() -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            done.set()

        portal.kept = asyncio.get_running_loop().create_task(step())  # type: ignore[attr-defined]
        return threading.get_ident()

    lend(portal)
    for _ in range(20):
        done.clear()
        portal.call(leave)
        assert done.wait(PATIENCE)


def test_a_call_that_waits_holds_up_nobody(portal: Portal) -> None:
    """Neither the calls that come while its caller turns the loop, nor what it waits for itself."""
    lend(portal)
    for _ in range(20):
        gate = asyncio.Event()
        waiting = in_thread(partial(portal.call, gate.wait))
        until(lambda: portal._begun, "it waits")
        assert portal.call(here) != waiting.ident
        portal.loop.call_soon_threadsafe(gate.set)
        ended(waiting)
        lend(portal)


def test_many_threads_at_once_are_all_answered(portal: Portal) -> None:
    answers: list[int] = []

    async def answer(number: int) -> int:
        await asyncio.sleep(0)
        return number

    def ask(first: int) -> None:
        answers.extend(portal.call(partial(answer, number)) for number in range(first, first + 100))

    threads = [in_thread(partial(ask, 100 * at)) for at in range(8)]
    for thread in threads:
        ended(thread)
    assert sorted(answers) == [*range(800)]


def test_it_can_be_closed_while_it_is_lent() -> None:
    for _ in range(10):
        portal = Portal()
        lend(portal)
        portal.close(nothing, 1)
        assert not portal._thread.is_alive()


def test_an_event_loop_that_runs_keeps_its_thread(portal: Portal) -> None:
    """As in a notebook: no second one can run there."""

    async def ask() -> set[int]:
        return {portal.call(here) for _ in range(20)}

    lend(portal)
    assert threading.get_ident() not in asyncio.run(ask())


def test_ctrl_c_is_kept_until_the_loop_can_be_left(portal: Portal) -> None:
    """The caller's thread is in the midst of the loop, which must not be left half turned."""
    reached: list[int] = []

    async def pressed() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        for step in range(1000):  # each of them a moment at which it could hit
            reached.append(step)  # noqa: PERF402
        return threading.get_ident()

    lend(portal)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        portal.call(pressed)
    assert reached == [*range(1000)]
    assert signal.getsignal(signal.SIGINT) is before
    lend(portal)


def test_ctrl_c_ends_a_call_that_waits_in_the_caller_s_thread(portal: Portal) -> None:
    ended: list[str] = []

    async def wait() -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    lend(portal)
    with pytest.raises(KeyboardInterrupt):
        portal.call(wait)
    assert ended == ["cancelled"]
    lend(portal)


def test_where_a_handler_may_raise_the_main_thread_does_not_turn_it(portal: Portal) -> None:
    lend(portal)
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    try:
        assert {portal.call(here) for _ in range(20)} == {portal._thread.ident}
    finally:
        signal.signal(signal.SIGALRM, before)
    lend(portal)


def test_a_program_s_hook_is_not_run_in_a_caller_s_thread(blocking: Blocking) -> None:
    lb = blocking().open()
    lb.events.lease_lost(lambda event: None)
    portal = lb.reach().portal
    assert {portal.call(here) for _ in range(20)} == {portal._thread.ident}


class Stopped(BaseException):
    """What a library raises in a thread that took too long."""


@only("valkey")
def test_a_caller_that_is_stopped_within_the_loop_leaves_a_client_that_works(blocking: Blocking) -> None:
    """By a library that raises in a thread which takes too long. It hits anywhere, in asyncio as well."""
    looking, hits = blocking().open(), 0

    def work(lb: Lockbeat, name: str, over: threading.Event) -> None:
        nonlocal hits
        try:
            while True:
                with lb.lock(name, wait=PATIENCE):
                    pass
        except Stopped:
            hits += 1
        with lb.lock("after", wait=PATIENCE):
            over.set()

    for number in range(15):
        lb, over = blocking().open(), threading.Event()
        worker = in_thread(partial(work, lb, f"k{number}", over))
        portal = lb.reach().portal
        until(partial(getattr, portal, "_lent"), "it turns the loop itself")
        over.wait(0.0001 * (number % 20))
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident or 0), ctypes.py_object(Stopped))
        assert over.wait(PATIENCE)
        ended(worker)
        lb.close()
    until(lambda: looking.locks.list() == [], "nothing is held")
    assert hits == 15


def test_a_call_from_where_the_loop_is_turned_is_refused_and_hangs_nobody(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a `__del__`, which runs wherever garbage is collected: just before the loop turns, as well."""
    refused: list[LockbeatError] = []
    start = portal._start

    def collected(call: Call) -> None:
        with monkeypatch.context() as before, pytest.raises(LockbeatError, match="the very event loop") as problem:
            before.setattr(portal, "_start", start)
            portal.call(here)
        refused.append(problem.value)
        start(call)

    lend(portal)
    monkeypatch.setattr(portal, "_start", collected)
    portal.call(here)
    assert refused
    monkeypatch.undo()
    lend(portal)


def test_a_signal_handler_may_call_just_before_the_loop_is_turned(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, answers = portal._calm.begin, list[int]()

    def interrupted() -> bool:
        with monkeypatch.context() as before:
            before.setattr(portal._calm, "begin", begin)
            answers.append(portal.call(here))
        return begin()

    lend(portal)
    monkeypatch.setattr(portal._calm, "begin", interrupted)
    until(lambda: portal.call(here) and answers, "it is called while the loop is lent")
