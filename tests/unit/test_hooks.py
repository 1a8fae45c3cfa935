"""Hooks: each has a queue and a runner of its own; whatever one does, neither those who tell nor the other hooks notice."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from lockbeat import listeners
from lockbeat.errors import InvalidType
from lockbeat.events import Hooks, StoreBack
from lockbeat.listeners import Told
from tests.conftest import PATIENCE, wait_until


def back(seconds: float) -> StoreBack:
    return StoreBack("here", seconds)


async def test_async_and_plain_functions_are_told_in_order_and_plain_ones_in_threads_of_their_own() -> None:
    hooks, here = Hooks(), threading.get_ident()
    hooks.open()
    told: dict[str, list[Any]] = {"async": [], "plain": [], "method": []}

    class Ear:
        async def __call__(self, event: StoreBack) -> None:
            told["method"].append((event.away, threading.get_ident() == here))

    @hooks.store_back
    async def one(event: StoreBack) -> None:
        told["async"].append((event.away, threading.get_ident() == here))

    @hooks.store_back
    def other(event: StoreBack) -> None:
        told["plain"].append((event.away, threading.get_ident() == here))

    hooks.store_back(Ear())
    for number in range(50):
        hooks.store_back.tell(back(number))
    await hooks.aclose(PATIENCE)
    assert told["async"] == told["method"] == [(number, True) for number in range(50)]
    assert told["plain"] == [(number, False) for number in range(50)]


@pytest.mark.parametrize("problem", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_what_a_hook_raises_is_logged_and_ends_nothing(
    kind: str, problem: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    hooks, told = Hooks(), list[float]()
    hooks.open()

    def plain(event: StoreBack) -> None:
        told.append(event.away)
        if event.away == 1:
            raise problem

    async def awaits(event: StoreBack) -> None:
        plain(event)

    hooks.store_back(awaits if kind == "async" else plain)
    for number in (1, 2, 1, 3):
        hooks.store_back.tell(back(number))
    await hooks.aclose(PATIENCE)
    assert told == [1, 2, 1, 3]
    lines = [record for record in caplog.records if "a hook of store_back failed" in record.getMessage()]
    assert len(lines) == 1, "and not at each time"
    assert lines[0].exc_info is not None


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_hook_that_is_too_slow_keeps_nobody_waiting_and_what_it_is_not_told_is_counted_and_said(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    hooks, told, other = Hooks(), list[float](), list[float]()
    hooks.open()
    go, may = asyncio.Event(), threading.Event()

    async def awaits(event: StoreBack) -> None:
        await go.wait()
        told.append(event.away)

    def blocks(event: StoreBack) -> None:
        may.wait()
        told.append(event.away)

    hooks.store_back(awaits if kind == "async" else blocks)
    hooks.store_back.tell(back(0))
    await asyncio.sleep(0)  # it is at it, and has taken that from its queue
    slow = hooks.store_back.listeners[0]
    await wait_until(lambda: not slow.waits, "the first is taken")
    done = list[int]()
    for number in range(1, listeners.MOST + 11):
        hooks.store_back.tell(back(number), Told(lambda: done.append(1)))
    hooks.store_back(lambda event: other.append(event.away))
    hooks.store_back.tell(back(-1), Told(lambda: done.append(1)))
    await wait_until(lambda: other == [-1], "another hook is told")
    assert hooks.dropped == 11
    assert len(done) == 11, "who waits for its end is told of what is dropped"
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "is too slow" in line
    go.set()
    may.set()
    await hooks.aclose(PATIENCE)
    assert told == [*range(listeners.MOST + 1)]


async def test_an_event_for_which_no_thread_can_be_started_is_dropped_counted_and_said_and_the_next_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hooks, told, done = Hooks(), list[float](), list[int]()
    hooks.open()

    @hooks.store_back
    def one(event: StoreBack) -> None:
        told.append(event.away)

    def cannot(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", cannot)
        hooks.store_back.tell(back(1), Told(lambda: done.append(1)))
    assert (hooks.dropped, done) == (1, [1])
    assert "has no thread, as none can be started" in caplog.text
    hooks.store_back.tell(back(2))
    await hooks.aclose(PATIENCE)
    assert told == [2]


async def test_what_was_withdrawn_before_its_turn_came_is_told_to_nobody() -> None:
    hooks, told, may, done = Hooks(), list[float](), threading.Event(), list[int]()
    hooks.open()

    @hooks.store_back
    def blocks(event: StoreBack) -> None:
        may.wait()
        told.append(event.away)

    sent = [Told(lambda: done.append(1)) for _ in range(3)]
    for number, one in enumerate(sent):
        hooks.store_back.tell(back(number), one)
    await wait_until(lambda: sent[0].is_called, "it is at the first")
    assert [one.withdraw() for one in sent[:2]] == [False, True], "a function was called with the first"
    may.set()
    await hooks.aclose(PATIENCE)
    assert told == [0, 2]
    assert len(done) == 2


async def test_an_async_hook_that_hangs_is_cancelled_and_the_next_event_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listeners, "LIMIT", 0.05)
    hooks, told = Hooks(), list[float]()
    hooks.open()

    @hooks.store_back
    async def hang(event: StoreBack) -> None:
        if event.away == 1:
            await asyncio.Event().wait()
        told.append(event.away)

    hooks.store_back.tell(back(1))
    await wait_until(lambda: "was cancelled" in caplog.text, "it is cancelled")
    hooks.store_back.tell(back(2))
    await wait_until(lambda: told == [2], "the next is told")
    await hooks.aclose(PATIENCE)


async def test_an_async_hook_that_is_cancelled_and_returns_leaves_the_next_a_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listeners, "LIMIT", 0.05)
    hooks, told = Hooks(), list[float]()
    hooks.open()

    @hooks.store_back
    async def hang(event: StoreBack) -> None:
        try:
            if event.away < 3:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            if event.away == 2:
                raise
        told.append(event.away)

    for number in (1, 2, 3):
        hooks.store_back.tell(back(number))
    await wait_until(lambda: told == [1, 3], "the second is cancelled, and the third told")
    assert "was cancelled" in caplog.text
    await hooks.aclose(PATIENCE)


async def test_closing_waits_for_what_was_told_but_not_for_ever() -> None:
    hooks, told, may = Hooks(), list[float](), threading.Event()
    hooks.open()

    @hooks.store_back
    async def hang(event: StoreBack) -> None:
        await asyncio.Event().wait()

    @hooks.store_back
    def blocks(event: StoreBack) -> None:
        may.wait()

    @hooks.store_back
    async def quick(event: StoreBack) -> None:
        told.append(event.away)

    hooks.store_back.tell(back(1))
    async with asyncio.timeout(PATIENCE):
        await hooks.aclose(0.05)
    assert told == [1]
    may.set()


async def test_a_hook_is_told_from_any_thread() -> None:
    hooks, told = Hooks(), list[float]()
    hooks.open()

    @hooks.store_back
    async def one(event: StoreBack) -> None:
        told.append(event.away)

    def tell() -> None:
        for number in range(100):
            hooks.store_back.tell(back(number))

    await asyncio.to_thread(tell)
    await wait_until(lambda: told == [*range(100)], "all of them")
    await hooks.aclose(PATIENCE)


async def test_what_counts_at_once_is_called_in_place_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    hooks, told = Hooks(), list[float]()

    def fails(event: StoreBack) -> None:
        raise ValueError("no")

    def counts(event: StoreBack) -> None:
        told.append(event.away)

    hooks.store_back.at_once(fails)
    hooks.store_back.at_once(counts)
    assert hooks.store_back.heard
    hooks.store_back.tell(back(1))
    assert told == [1]
    assert "a hook of store_back failed" in caplog.text
    hooks.store_back.drop(fails)
    hooks.store_back.drop(counts)
    assert not hooks.store_back.heard


def test_what_can_not_be_called_is_no_hook() -> None:
    with pytest.raises(InvalidType, match="function: must be callable, not str"):
        Hooks().store_back("a name")  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="events: must be the `events` of a beat or client, not list"):
        Hooks.of([])  # type: ignore[arg-type]


def test_the_hooks_are_those_that_are_promised() -> None:
    assert [hook.name for hook in Hooks().all] == [
        *("slot_fired", "slot_missed", "slot_skipped", "run_done", "run_failed", "run_lost", "task_dead"),
        *("lease_lost", "job_paused", "store_lost", "store_back"),
    ]
