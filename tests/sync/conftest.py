"""Blocking clients of the test's store, and threads for whoever waits."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest

from lockbeat.sync import Lockbeat
from lockbeat.sync.portal import Portal
from tests.conftest import PATIENCE


async def nothing() -> None:
    pass


@pytest.fixture
def portal() -> Iterator[Portal]:
    """One without a client."""
    portal = Portal()
    yield portal
    portal.close(nothing, 1)


class Blocking(Protocol):
    """Makes a client of the test's store, which is closed when the test has ended."""

    def __call__(self, **options: Any) -> Lockbeat: ...


@pytest.fixture
def blocking(url: str, namespace: str, shards: int) -> Iterator[Blocking]:
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Lockbeat:
            settings: dict[str, Any] = {"namespace": namespace, "shards": shards} | options
            lb = Lockbeat(url, **settings)
            stack.callback(lb.close)
            return lb

        yield make


@pytest.fixture
def slb(blocking: Blocking) -> Lockbeat:
    """An open one."""
    return blocking().open()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def until(condition: Callable[[], object], description: str) -> None:
    """Look at `condition` in short steps; AssertionError with the description when it never came true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never happened within {PATIENCE:g} s: {description}"
        time.sleep(0.002)


def waiters(lb: Lockbeat) -> int:
    """How many callers of this client wait for a lock that they were refused."""
    return sum(room.timer is not None for room in lb.reach().lb.locks._room._rooms.values())


def hurry(lb: Lockbeat) -> None:
    """Let a third of each lease have passed: the keeper renews what it holds."""
    keeper = lb.reach().lb.keeper
    for held in list(keeper._held):
        held.renew_at = 0.0
    keeper._rouse()


def in_thread(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> None:
    """Wait for its end; AssertionError when it never came."""
    thread.join(PATIENCE)
    assert not thread.is_alive(), f"{thread.name} still runs"


@pytest.fixture(autouse=True)
def ends_its_threads(no_thread_stays: None) -> None:
    """Each test."""
