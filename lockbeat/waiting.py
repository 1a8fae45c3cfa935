"""The waiting room: callers of this process that wait for a lock, and the one message or timer that each needs.

Nobody polls. The script that releases a lock makes the first waiter its owner and tells that waiter's process. Only a holder that
dies says nothing: so for each contended lock one timer runs until the holder's lease would end, and asks then.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from dataclasses import dataclass, field
from typing import Any

from lockbeat.lease import Lease, monotonic
from lockbeat.store import Store

log = logging.getLogger("lockbeat")

CLOCK_LASTS = 60.0
"""Seconds. Clocks drift, and a server's may be set."""
LONGEST_NAP = 60.0
"""Seconds. A holder with a longer lease is asked after sooner: it keeps the queue from expiring, and heals a lost message."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One caller that waits for one lock."""

    key: str
    token: str
    args: tuple[str | int, ...]
    """Of lock/try_acquire: the same call again, whenever it must ask."""
    shard: int
    granted: asyncio.Future[tuple[Lease, float, float]]
    """The lease, how long it was granted for in seconds, and a monotonic time at which it surely was not yet granted."""


@dataclass(slots=True)
class _Room:
    waiters: dict[str, Waiter] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


class WaitingRoom:
    """Delivers hand-offs to the waiters of this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rooms: dict[str, _Room] = {}
        self._waiters: dict[str, Waiter] = {}
        # By shard, for each may have its own server: (monotonic before a request) - (the server's time in its reply), and when.
        self._clocks: dict[int, tuple[float, float]] = {}
        store.listen(self._on_message, self._on_gap)

    def enter(self, waiter: Waiter) -> None:
        """From now on a hand-off to this waiter reaches it."""
        self._waiters[waiter.token] = waiter
        self._rooms.setdefault(waiter.key, _Room()).waiters[waiter.token] = waiter

    def leave(self, waiter: Waiter) -> None:
        """It no longer waits. What the store knows of it is for `lock/release` to end."""
        if self._waiters.pop(waiter.token, None) is None:
            return
        room = self._rooms[waiter.key]
        del room.waiters[waiter.token]
        if not room.waiters:
            if room.timer is not None:
                room.timer.cancel()
            del self._rooms[waiter.key]

    def refused(self, waiter: Waiter, wait_ms: int, asked_at: float, server_ms: int) -> None:
        """Another holds the lock until `wait_ms` from the server's `server_ms` on, unless it renews: ask then."""
        clock, (best, since) = asked_at - server_ms / 1000, self._clocks.get(waiter.shard, (-math.inf, -math.inf))
        # Each is a lower bound, off by the time that the request took: the highest of late is the closest.
        if clock >= best or asked_at - since > CLOCK_LASTS:
            self._clocks[waiter.shard] = clock, asked_at
        self._set_timer(waiter.key, wait_ms / 1000 + 0.002)

    def _set_timer(self, key: str, delay: float) -> None:
        room = self._rooms.get(key)
        if room is None:
            return
        if room.timer is not None:
            room.timer.cancel()
        room.timer = self._store.loop.call_later(min(delay, LONGEST_NAP), self._ask_first, key)

    def _ask_first(self, key: str) -> None:
        room = self._rooms.get(key)
        if room is not None:
            self._ask(next(iter(room.waiters.values())))

    def _ask(self, waiter: Waiter) -> None:
        """Repeat the waiter's own call: whoever is first in the queue gets the lock if it is free."""
        if waiter.granted.done():
            return  # about to leave; asked now, the call could follow its lock/release
        asked_at = monotonic()
        future = self._store.submit("lock/try_acquire", waiter.shard, waiter.args)

        def answered(done: asyncio.Future[Any]) -> None:
            if waiter.token not in self._waiters:
                # Left meanwhile, and its lock/release follows this call on the same wire. Those it asked for, too, still wait.
                self._set_timer(waiter.key, 0)
                return
            if done.exception() is not None:
                self._set_timer(waiter.key, random.uniform(0.2, 0.5))  # noqa: S311 - spreads retries
                return
            fence, until_ms, third = done.result()
            if fence:
                ttl = float(waiter.args[3]) / 1000
                self._grant(waiter, fence, until_ms, ttl, asked_at)
            else:
                self.refused(waiter, until_ms, asked_at, third)

        future.add_done_callback(answered)

    def _grant(self, waiter: Waiter, fence: int, expires_ms: int, ttl: float, not_before: float) -> None:
        if not waiter.granted.done():
            lease = Lease(waiter.key, str(waiter.args[1]), fence, expires_ms / 1000)
            waiter.granted.set_result((lease, ttl, not_before))
            self._set_timer(waiter.key, ttl)  # for those who wait behind it: a holder in this process can die, too

    def _on_message(self, channel: str, payload: bytes) -> None:
        if channel != self._store.channel:
            return
        if payload.startswith(b"next "):
            # Now first in the queue, behind one that was granted the lock and may not live to renew it.
            _, token, wait_ms = payload.decode().split(" ")
            if token in self._waiters:
                self._set_timer(self._waiters[token].key, int(wait_ms) / 1000 + 0.002)
            return
        if not payload.startswith(b"granted "):
            return
        _, token, fence, expires_ms, now_ms = payload.decode().split(" ")
        waiter = self._waiters.get(token)
        if waiter is None:
            return  # it left, and its lock/release gives back what this message tells of
        server_s = int(now_ms) / 1000
        ttl = int(expires_ms) / 1000 - server_s
        # Nothing of ours was asked, so there is no "time before the request". The last exchange with the server tells how its
        # clock stands to ours, as an upper bound of the lag; never later than now.
        not_before = min(self._clocks.get(waiter.shard, (math.inf, 0.0))[0] + server_s, monotonic())
        if monotonic() > not_before + ttl / 2:
            self._ask(waiter)  # a bound that loose would have the lease given up at once; an answer makes it tight
        else:
            self._grant(waiter, int(fence), int(expires_ms), ttl, not_before)

    def _on_gap(self) -> None:
        """Messages may have been lost, and PUBLISH may have found nobody here: everyone asks."""
        for waiter in list(self._waiters.values()):
            self._ask(waiter)
