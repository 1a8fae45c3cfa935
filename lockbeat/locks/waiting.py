"""The waiting room: callers of this process that wait for a lock, and the one message or timer that each needs.

Nobody polls. The script that releases a lock makes the first waiter its owner and tells that waiter's process. Only a holder that
dies says nothing: so for each contended lock one timer runs until the holder's lease would end, and asks then.

A message is a hint. A waiter that is told of its grant makes its own call again, and holds the lock when the reply says so:
a message that is late, doubled, forged or from an old primary costs that call, and one that is lost costs time.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lockbeat.errors import StoreError, StoreUnavailable
from lockbeat.leases.lease import Lease, monotonic
from lockbeat.process import chance
from lockbeat.store import Store, messages
from lockbeat.store.rows import Row

log = logging.getLogger("lockbeat")

MOST_GONE = 10_000
"""Waiters that are remembered after they gave up, should they be granted the lock all the same."""
LONGEST_NAP = 60.0
"""Seconds. A holder with a longer lease is asked after sooner: it keeps the queue from expiring, and heals a lost message."""


def releasing(store: Store, key: str, owner: str, token: str) -> Row:
    """A row of `lock/release`. token: of the call that took it; "=FENCE"; or "-": whatever the owner has of it."""
    return store.row["lock/release"](key=key, owner=owner, token=token, call=store.new_call())


@dataclass(slots=True, eq=False)
class Waiter:
    key: str
    token: str
    row: Row
    """Of lock/try_acquire: the same call again, whenever it must ask."""
    shard: int
    granted: asyncio.Future[tuple[Lease, float]]
    """The lease, and a monotonic time before the request that it answers."""
    asking: bool = False
    """Its call is on its way."""
    again: bool = False
    """It was told of something since: that call may have run before."""


@dataclass(slots=True)
class _Room:
    waiters: dict[str, Waiter] = field(default_factory=dict)
    """By token, in the order of the queue."""
    timer: asyncio.TimerHandle | None = None


class WaitingRoom:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._rooms: dict[str, _Room] = {}
        self._waiters: dict[str, Waiter] = {}
        self._gone: dict[str, Waiter] = {}
        store.listen({messages.Granted: self._on_granted, messages.Next: self._on_next}, self._on_gap)

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

    def give_up(self, waiter: Waiter) -> None:
        """Leave without the lock. Its lock/release may be lost in a failover, or overtaken: a grant that comes is given back."""
        self.leave(waiter)
        self._gone[waiter.token] = waiter
        if len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def _give_back(self, waiter: Waiter) -> None:
        asked = waiter.row
        back = releasing(self._store, asked.key, asked.owner, asked.token)
        self._store.undo(back, waiter.shard, lasts=asked.ttl_ms / 1000)

    def refused(self, waiter: Waiter, wait_ms: int) -> None:
        """Another holds the lock for `wait_ms` from now on, unless it renews: ask then."""
        self._set_timer(waiter.key, wait_ms / 1000 + 0.002)

    def _set_timer(self, key: str, delay: float, *, sooner: bool = False) -> None:
        """Ask after `delay` seconds; `sooner`: unless that is to be done before."""
        room, when = self._rooms.get(key), self._store.loop.time() + min(delay, LONGEST_NAP)
        if room is None:
            return
        if room.timer is not None:
            if sooner and room.timer.when() < when and not room.timer.cancelled():
                return
            room.timer.cancel()
        room.timer = self._store.loop.call_at(when, self._ask_first, key)

    def _ask_first(self, key: str) -> None:
        room = self._rooms.get(key)
        if room is not None:
            self._ask(next(iter(room.waiters.values())))

    def _ask(self, waiter: Waiter) -> None:
        """Repeat the waiter's own call: whoever is first in the queue gets the lock if it is free."""
        if waiter.granted.done():
            return  # about to leave; asked now, the call could follow its lock/release
        if waiter.asking:
            waiter.again = True
            return
        waiter.asking, waiter.again, asked_at = True, False, monotonic()
        future = self._store.submit(waiter.row, waiter.shard, lease=waiter.row.ttl_ms / 1000)
        future.add_done_callback(partial(self._answered, waiter, asked_at))

    def _answered(self, waiter: Waiter, asked_at: float, done: asyncio.Future[Any]) -> None:
        waiter.asking = False
        problem = done.exception()  # asked for in any case: asyncio has a line in the log for each that nobody has heard of
        if waiter.token not in self._waiters:
            # Left meanwhile, and its lock/release follows this call on the same wire. Those it asked for, too, still wait.
            self._set_timer(waiter.key, 0)
        elif (problem := done.exception()) is not None:
            self._set_timer(waiter.key, chance.between(0.2, 0.5))
            if isinstance(problem, StoreError) and not isinstance(problem, StoreUnavailable):
                self._confirm(waiter)
        elif (reply := done.result()).fence:
            self._grant(waiter, reply, asked_at)
        else:
            self.refused(waiter, reply.wait_ms)
            if reply.joined:
                self._lost_its_place(waiter)
            if waiter.again:
                self._ask(waiter)

    def _confirm(self, waiter: Waiter) -> None:
        """The store refuses to give a lock to anybody, its memory is full; but this waiter may have been handed it before."""
        asked, asked_at = waiter.row, monotonic()

        def answered(done: asyncio.Future[Any]) -> None:
            if waiter.token in self._waiters and done.exception() is None and (reply := done.result()).fence:
                self._grant(waiter, reply, asked_at)

        row = self._store.row["lock/confirm"](key=asked.key, owner=asked.owner, token=asked.token, ttl_ms=asked.ttl_ms)
        self._store.submit(row, waiter.shard).add_done_callback(answered)

    def _grant(self, waiter: Waiter, reply: Any, asked_at: float) -> None:
        if not waiter.granted.done():
            waiter.granted.set_result((Lease(waiter.key, waiter.row.owner, reply.fence, reply.expires_at_ms / 1000), asked_at))
            # For those who wait behind it: a holder in this process can die, too.
            self._set_timer(waiter.key, waiter.row.ttl_ms / 1000)

    def _lost_its_place(self, waiter: Waiter) -> None:
        """A release passed it over, as one that nobody on our channel listens for, or it was too slow to take what it got."""
        self._store.unheard(waiter.shard)
        waiters = self._rooms[waiter.key].waiters
        waiters[waiter.token] = waiters.pop(waiter.token)
        self._set_timer(waiter.key, 0)  # the others may have lost theirs, too: one asks after the other, until one has not

    def _on_granted(self, granted: messages.Granted) -> None:
        if granted.token in self._gone:
            self._give_back(self._gone.pop(granted.token))
        elif granted.token in self._waiters:
            self._ask(self._waiters[granted.token])

    def _on_next(self, following: messages.Next) -> None:
        if following.token in self._waiters:
            self._set_timer(self._waiters[following.token].key, following.wait_ms / 1000 + 0.002, sooner=True)

    def _on_gap(self) -> None:
        """Messages may have been lost, and PUBLISH may have found nobody here: everyone asks."""
        for waiter in list(self._waiters.values()):
            self._ask(waiter)
