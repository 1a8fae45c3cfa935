"""Locks against a model that fits on a page; the server's clock is moved by the test."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import time_machine
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lockbeat import Lockbeat
from tests.conftest import CHOSEN

T = TypeVar("T")
START = dt.datetime(2031, 5, 5, tzinfo=dt.UTC)
KEYS = st.sampled_from(["k", "k\xff", "kk", "{k}"])
OWNERS = st.sampled_from(["a", "ab", "a\xff"])
TTLS = st.sampled_from([0.001, 0.5, 1, 3.25, 60])

_numbers = itertools.count()


@dataclass
class Entry:
    owner: str
    fence: int
    until_ms: int


class LocksFollowTheModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = time_machine.travel(START, tick=False)
        self.travel = self.clock.start()
        self.runner = asyncio.Runner()
        self.lb = Lockbeat(f"memory://model-{next(_numbers)}", namespace="model")
        self.run(self.lb.__aenter__())
        self.now_ms = round(START.timestamp() * 1000)
        self.held: dict[str, Entry] = {}
        self.last_fence: dict[str, int] = {}

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def live(self, key: str) -> Entry | None:
        entry = self.held.get(key)
        return entry if entry is not None and entry.until_ms > self.now_ms else None

    @rule(key=KEYS, owner=OWNERS, ttl=TTLS)
    def try_acquire(self, key: str, owner: str, ttl: float) -> None:
        lease = self.run(self.lb.locks.try_acquire(key, owner, ttl))
        entry = self.live(key)
        if entry is not None and entry.owner != owner:
            assert lease is None
            return
        assert lease is not None
        assert (lease.key, lease.owner) == (key, owner)
        if entry is not None:
            assert lease.fence == entry.fence
        else:
            assert lease.fence > self.last_fence.get(key, 0)
        self.last_fence[key] = lease.fence
        self.held[key] = Entry(owner, lease.fence, self.now_ms + round(ttl * 1000))
        assert round(lease.expires_at * 1000) == self.held[key].until_ms

    @rule(key=KEYS, owner=OWNERS)
    def release(self, key: str, owner: str) -> None:
        entry = self.live(key)
        mine = entry is not None and entry.owner == owner
        assert self.run(self.lb.locks.release(key, owner)) is mine
        if mine:
            del self.held[key]

    @rule(key=KEYS, owner=OWNERS, ttl=TTLS)
    def renew(self, key: str, owner: str, ttl: float) -> None:
        entry = self.live(key)
        mine = entry is not None and entry.owner == owner
        assert self.run(self.lb.locks.renew(key, owner, ttl)) is mine
        if entry is not None and mine:
            entry.until_ms = self.now_ms + round(ttl * 1000)

    @rule(owner=OWNERS)
    def release_all(self, owner: str) -> None:
        mine = [key for key in self.held if (entry := self.live(key)) and entry.owner == owner]
        assert self.run(self.lb.locks.release_all(owner)) == len(mine)
        for key in mine:
            del self.held[key]

    @rule(milliseconds=st.sampled_from([1, 499, 500, 1000, 3249, 3250, 9_999, 10_001, 61_000, 300_000]))
    def let_time_pass(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        self.travel.move_to(dt.datetime.fromtimestamp(self.now_ms / 1000, dt.UTC))

    @invariant()
    def the_store_shows_what_the_model_holds(self) -> None:
        async def seen() -> list[tuple[str, str, int, int]]:
            return [(found.owner, found.key, found.fence, round(found.expires_at * 1000)) for found in await self.lb.locks.list()]

        entries = {key: entry for key in self.held if (entry := self.live(key))}
        assert self.run(seen()) == sorted((entry.owner, key, entry.fence, entry.until_ms) for key, entry in entries.items())
        for key in ("k", "kk"):
            entry = self.live(key)
            assert self.run(self.lb.locks.owner(key)) == (entry.owner if entry else None)
            assert self.run(self.lb.locks.is_locked(key)) is (entry is not None)

    def teardown(self) -> None:
        try:
            self.run(self.lb.__aexit__(None, None, None))
        finally:  # or the clock stands still for the tests that follow
            self.clock.stop()
            self.runner.close()


if "memory" in CHOSEN:
    TestLocksFollowTheModel = LocksFollowTheModel.TestCase
    TestLocksFollowTheModel.settings = settings(
        max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
    )
