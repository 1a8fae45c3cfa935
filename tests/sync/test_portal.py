"""The portal: a loop that looks for news only now and then while it is busy, and tells callers at the end of a turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from lockbeat.errors import LockbeatError, StoreError
from lockbeat.sync.portal import Portal
from lockbeat.sync.turning import Call
from tests.conftest import PATIENCE
from tests.sync.conftest import in_thread, nothing, until


async def spin(ended: threading.Event) -> None:
    """Never let the loop come to rest."""
    while not ended.is_set():
        await asyncio.sleep(0)


@pytest.fixture
def busy(portal: Portal) -> Iterator[Portal]:
    """Its loop always has something to do."""
    ended = threading.Event()
    portal.post(Call(lambda: spin(ended)))
    yield portal
    ended.set()


def test_a_busy_loop_hears_calls_and_sockets(busy: Portal) -> None:
    async def echo(reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        writing.write(await reading.readline())
        await writing.drain()
        writing.close()

    async def answer(number: int) -> int:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reading, writing = await asyncio.open_connection(*server.sockets[0].getsockname())
            writing.write(b"%d\n" % number)
            said = int(await reading.readline())
            writing.close()
            return said

    answers: list[int] = []

    def ask(number: int) -> None:
        answers.append(busy.call(partial(answer, number)))

    for number in range(8):
        in_thread(partial(ask, number))
    until(lambda: len(answers) == 8, "all are answered")
    assert {*answers} == {*range(8)}


def test_timers_are_kept_beside_a_loop_that_never_rests(busy: Portal) -> None:
    sleeping = in_thread(lambda: busy.call(lambda: asyncio.sleep(0.01)))
    sleeping.join(PATIENCE)
    assert not sleeping.is_alive()


def test_everybody_is_told_when_it_closes(portal: Portal) -> None:
    """Whoever waits, whoever was not begun, and whoever comes after."""
    said: list[str] = []

    def wait() -> None:
        try:
            portal.call(asyncio.Event().wait)
        except StoreError as problem:
            said.append(str(problem))

    threads = [in_thread(wait) for _ in range(8)]
    until(lambda: len(portal._begun) == 8, "all wait")
    portal.close(nothing, 1)
    for thread in threads:
        thread.join(PATIENCE)
    wait()
    assert said == ["this client was closed"] * 9


def test_each_thread_that_comes_after_is_told_that_it_is_closed(portal: Portal) -> None:
    """The first of them rouses nobody, so the others must not rely on it."""
    portal.close(nothing, 1)
    said: list[str] = []

    def ask() -> None:
        try:
            portal.call(nothing)
        except StoreError as problem:
            said.append(str(problem))

    for number in range(1, 5):
        in_thread(ask).join(PATIENCE)
        assert len(said) == number


def test_greenlets_in_the_place_of_threads_are_refused_in_words(portal: Portal) -> None:
    """To asyncio all of them are the thread in which the loop runs, though each is a thread to `threading`."""

    async def ask() -> None:
        portal._turner = -1
        portal.call(nothing)

    with pytest.raises(LockbeatError, match="gevent and eventlet"):
        portal.call(ask)
