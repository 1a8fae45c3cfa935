"""What is made of how an instance stands: tables, without a server."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from lockbeat.errors import StoreUnavailable, Unreadable
from lockbeat.health import Health, Turning, state, turning
from lockbeat.health.state import Serves, Sign
from lockbeat.health.systemd import Systemd
from lockbeat.health.watch import Watch
from lockbeat.jobs.owed import FORGOTTEN, MOST, Owed
from lockbeat.store.wakeup import Turns, Wakeup
from tests.conftest import wait_until


class Standing(Serves):
    """An instance that stands as a test says."""

    def __init__(self, *signs: Sign, away: bool = False, unanswered: float = 0.0, owed: tuple[str, float] | None = None) -> None:
        self._signs, self._away, self._unanswered, self._owed = signs, away, unanswered, owed

    def signs(self) -> Iterable[Sign]:
        return self._signs

    def away(self) -> bool:
        return self._away

    def unanswered(self, now: float) -> float:
        return self._unanswered

    def owed(self, now: float) -> tuple[str, float] | None:
        return self._owed


NOW = 10_000.0


def turns(*, in_turn: float | None = None, overdue: float = 0.0, problem: Exception | None = None, failing: float = 0.0) -> Turns:
    """A loop that has been in one turn for so many seconds, or is that late for its next, or has failed for so long."""
    made, now = Turns(), NOW
    made.began_at, made.due_at = None if in_turn is None else now - in_turn, now - overdue
    made.problem, made.failing_since = problem, None if problem is None else now - failing
    return made


def stood(serves: Serves, limit: float = 60) -> Health:
    """Of an instance that has served for an hour."""
    health = Health(limit)
    loop = asyncio.new_event_loop()
    health._turning = Turning(loop)
    health._turning.resumed_at = NOW - 3600
    loop.close()
    health.serving(serves)
    return health


AWAY = StoreUnavailable("no answer")


@pytest.mark.parametrize(
    ("serves", "live", "ready"),
    [
        (Standing(), "", ""),
        (Standing(Sign("firing", turns(overdue=-30))), "", ""),
        (Standing(Sign("firing", turns(in_turn=59))), "", ""),
        (Standing(Sign("firing", turns(in_turn=61))), "firing has not turned for 61 s", ""),
        (Standing(Sign("firing", turns(overdue=61))), "firing has not turned for 61 s", ""),
        (Standing(Sign("claiming", turns(in_turn=3600), True)), "", ""),
        (Standing(Sign("firing", turns(in_turn=61)), away=True), "", "the store is away"),
        (Standing(unanswered=6), "", "the store has not answered for 6 s"),
        (Standing(Sign("firing", turns(problem=AWAY, failing=3600))), "", "firing fails: no answer"),
        (Standing(Sign("firing", turns(problem=Unreadable("task", "x"), failing=3600))), "", ""),
        (Standing(Sign("firing", turns(problem=KeyError("x"), failing=59))), "", ""),
        (Standing(Sign("firing", turns(problem=KeyError("x"), failing=61))), "firing has failed for 61 s: KeyError('x')", ""),
        (Standing(owed=("a slot of report", 59)), "", ""),
        (Standing(owed=("a slot of report", 61)), "a slot of report was due, and has not been fired for 61 s", ""),
        (Standing(owed=("a slot of report", 61), away=True), "", "the store is away"),
    ],
)
def test_what_is_wrong_with_an_instance(monkeypatch: pytest.MonkeyPatch, serves: Serves, live: str, ready: str) -> None:
    monkeypatch.setattr(state, "monotonic", lambda: NOW)
    health = stood(serves)
    assert "; ".join(health.live().problems) == live
    assert "; ".join(health.ready().problems) == ready
    assert health.live().ok is not bool(live)


async def test_the_phases_of_an_instance() -> None:
    health, told = Health(), list[str]()
    health.changed = told.append

    def phase() -> str:
        return health.phase

    def answers() -> tuple[bool, bool, bool]:
        return health.live().ok, health.ready().ok, health.started().ok

    assert answers() == (True, False, False)
    health.starting()
    assert answers() == (True, False, False)
    health.draining()  # it was cancelled before it served
    assert phase() == "starting"
    health.serving(Standing())
    assert answers() == (True, True, True)
    health.draining()
    assert answers() == (True, False, True)
    health.ended()
    assert answers() == (False, False, True)
    assert told == ["starting", "serving", "draining", "ended"]


async def test_a_loop_that_turns_is_told_from_one_that_does_not() -> None:
    lags: list[float] = []
    turning = Turning(asyncio.get_running_loop(), lags.append)
    assert turning.look() == 0
    time.sleep(0.02)  # noqa: ASYNC251 - the loop is blocked
    assert 0.02 <= turning.look() < 30
    await wait_until(lambda: lags, "the loop turns")
    assert lags[0] >= 0.02
    assert turning.look() == 0


async def test_a_time_in_which_nobody_could_look_is_not_held_against_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(turning, "monotonic", lambda: now)
    looked = Turning(asyncio.get_running_loop())
    looked.look(watching=True)
    for _ in range(3):
        now += 1
        looked.look(watching=True)
    assert looked.look() == 3
    now += 600  # frozen
    assert looked.look() == 0
    assert looked.resumed_at == now
    now += 2
    assert looked.look(watching=True) == 2


async def test_who_asks_now_and_then_does_not_take_the_time_between_for_a_freeze() -> None:
    """Without a watch: a program that asks `beat.health` itself once a minute."""
    looked = Turning(asyncio.get_running_loop())
    before = looked.resumed_at
    for _ in range(3):
        looked.look()
        await asyncio.sleep(0)
    assert looked.resumed_at == before


async def test_a_loop_says_when_its_turn_began_and_when_the_next_is_due() -> None:
    wakeup, go_on = Wakeup(), asyncio.Event()
    outcomes: list[Exception | None] = [None, ValueError("a bug"), AWAY]

    async def tick() -> float:
        await go_on.wait()
        if outcomes and (problem := outcomes.pop()) is not None:
            raise problem
        return 3600

    turning = asyncio.create_task(
        wakeup.keep_turning(tick, doing="x", blocked="x", longest_pause=0.01, look=7200, told=lambda: True)
    )
    await wait_until(lambda: wakeup.turns.began_at is not None, "it is in a turn")
    assert 0 <= wakeup.turns.late(time.monotonic()) < 30
    go_on.set()
    await wait_until(lambda: wakeup.turns.problem is not None and wakeup.turns.began_at is None, "a turn fails")
    since = wakeup.turns.failing_since
    assert since is not None
    await wait_until(lambda: isinstance(wakeup.turns.problem, ValueError), "the next fails, too")
    assert wakeup.turns.failing_since == since
    wakeup.ring()
    await wait_until(lambda: wakeup.turns.problem is None, "one goes well")
    assert not wakeup.turns.failing_since
    turning.cancel()


def test_a_slot_that_is_handed_out_again_and_again_is_owed() -> None:
    owed = Owed()
    assert owed.longest(0) is None
    for at in range(0, 100, 2):
        owed.left("report", "60000 60000 r", at)
        owed.left("other", f"{at} {at} r", at)  # another fires it each time: it moves on
    assert owed.longest(98) == ("a slot of report", 98)
    assert owed.longest(98 + FORGOTTEN) is None
    owed.left("report", "60000 60000 r", 200)
    assert owed.longest(200) == ("a slot of report", 0)
    for number in range(3 * MOST):
        owed.left(f"job {number}", "x", 201)
    assert len(owed._slots) <= MOST


# -- systemd


@pytest.fixture
def socket_path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(socket_path: str, abstract: bool) -> None:
    where = f"lockbeat-test-{os.getpid()}-{time.monotonic_ns()}" if abstract else socket_path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{where}" if abstract else where)
        heard.settimeout(30)
        systemd = Systemd({"NOTIFY_SOCKET": f"@{where}" if abstract else where})
        assert systemd
        systemd.tell("READY=1", "STATUS=serves")
        assert heard.recv(1000) == b"READY=1\nSTATUS=serves"
    systemd.tell("WATCHDOG=1")  # nobody listens any more


@pytest.mark.parametrize(
    ("said", "watchdog"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, None),
        ({"NOTIFY_SOCKET": "/n"}, None),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000"}, 30),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_when_systemd_wants_signs_of_life(said: dict[str, str], watchdog: float | None) -> None:
    assert Systemd(said).watchdog == watchdog
    assert not Systemd({})


async def test_no_sign_of_life_is_given_of_an_instance_that_is_not_live(socket_path: str) -> None:
    """Though its event loop turns: one of its own loops is stuck."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(socket_path)
        heard.setblocking(False)
        health, stuck = Health(limit=60), Turns()
        health._turning = Turning(asyncio.get_running_loop(), health._lagged)
        health._turning.resumed_at -= 3600
        health.serving(Standing(Sign("firing", stuck)))
        said: list[bytes] = []

        def hear() -> int:
            try:
                while True:
                    said.append(heard.recv(1000))
            except BlockingIOError:
                return said.count(b"WATCHDOG=1")

        looks = threading.Semaphore(0)
        health.lagged = lambda _: looks.release()

        def looked() -> bool:
            return looks.acquire(blocking=False)

        with Watch(health, Systemd({"NOTIFY_SOCKET": socket_path, "WATCHDOG_USEC": "400000"})):
            await wait_until(lambda: hear() >= 2, "signs of life")
            stuck.due_at = time.monotonic() - 3000
            for _ in range(3):
                await wait_until(looked, "it looks")
            hear()
            said.clear()
            for _ in range(5):
                await wait_until(looked, "it looks")
            assert hear() == 0
            stuck.due_at = time.monotonic() + 3600
            await wait_until(lambda: hear() >= 1, "a sign of life")
