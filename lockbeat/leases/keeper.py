"""The keeper renews every lease of the process, from a thread and over a connection of its own.

A job that blocks the event loop therefore keeps its leases. What is due together is renewed together, one call a shard. A lease
that the server no longer knows, or that could not be renewed by `trusted_until`, is lost: its holder is told, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from lockbeat.connection import Connector
from lockbeat.connection.outage import Pace
from lockbeat.errors import LockbeatError, StoreUnavailable, Unreadable
from lockbeat.events import Hooks, LostLease
from lockbeat.leases.lease import NOBODY, Held
from lockbeat.leases.stall import Stall
from lockbeat.process.lasting import Lasting
from lockbeat.store import results
from lockbeat.store.calls import Calls
from lockbeat.store.keys import Keys
from lockbeat.store.rows import Row
from lockbeat.store.scripts import load
from lockbeat.store.wakeup import Wakeup
from lockbeat.store.wire import patience_for

log = logging.getLogger("lockbeat")

GONE = "the server no longer knows it"
CANCELLED = "it was cancelled"
LINGER = 1.0  # seconds
OVERDUE = "it could not be renewed in time"
OVERRUN = "its holder ran on after its time was over"
STALLED = "the event loop had not turned for too long"


class Keeper:
    """Renews what it is given to `hold`, until told to `drop` it. Its thread starts with the first lease, or with `watch`.

    stall: seconds without a turn of the event loop after which it renews nothing of it any more; None: never.
    """

    def __init__(self, connector: Connector, keys: Keys, timeout: float, stall: float | None = None) -> None:
        self._connector = connector
        self._keys = keys
        self._timeout = timeout
        self._held: dict[Held, asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: Wakeup | None = None
        self._wakes_at = 0.0
        self._busy = False  # something was held since the last tick
        self._closed = False
        self._on_end: Callable[[], object] = lambda: None
        """Tells `aclose` that the thread ends."""
        self._stall = Stall(asyncio.get_running_loop(), stall)
        self._calls: Calls | None = None
        self.events: Hooks | None = None
        """Who is told of a lease that is lost."""

    def watch(self, stall: float | None, standing: Callable[[float, bool], Row]) -> None:
        """Give the leases up after `stall` seconds, unless less was said, and say in the store that the loop stands still.

        standing: the row of `beat/heartbeat`, from the seconds it has stood still, and whether the leases are given up.
        """
        limits = [limit for limit in (stall, self._stall.limit) if limit is not None]
        self._stall.limit = min(limits, default=None)

        def sign(still: float, given_up: bool) -> None:
            if self._calls is not None:
                said = self._calls.submit(standing(still, given_up), 0)
                said.add_done_callback(_note)

        self._stall.sign = sign
        self._start()

    def unwatch(self) -> None:
        """Undo `watch`, but for the limit."""
        self._stall.sign = None

    def hold(self, held: Held) -> None:
        self._held[held] = asyncio.get_running_loop()
        self._busy = True
        if held.renew_at < self._wakes_at:
            self._rouse()
        elif self._thread is None:
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._run, name="lockbeat keeper", daemon=True)
                    self._thread.start()

    def drop(self, held: Held) -> bool:
        """Renew it no longer. False: it had been found lost."""
        return self._held.pop(held, None) is not None

    def give_up(self, reason: str) -> None:
        """Tell the holders of all leases that they are lost."""
        for held in list(self._held):
            self._lost(held, reason)

    def holds(self, held: Held) -> bool:
        """Whether the lease is still looked after, that is: neither dropped nor lost."""
        return held in self._held

    def __len__(self) -> int:
        return len(self._held)

    async def aclose(self) -> None:
        """End the thread, within the timeout. Leases that are still held are no longer renewed."""
        ended = asyncio.Event()
        self._on_end = partial(asyncio.get_running_loop().call_soon_threadsafe, ended.set)  # before it may end
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        self._held.clear()
        if thread is not None:
            self._rouse()
            # Not by `asyncio.to_thread`, which does nothing any more in a function of `atexit`.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), self._timeout)
                thread.join(self._timeout)  # at its last line

    def _rouse(self) -> None:
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            try:
                loop.call_soon_threadsafe(wake.ring)
            except RuntimeError:
                pass  # the thread has ended: aclose

    def _run(self) -> None:
        pace = Pace()
        while not self._closed:
            try:
                with asyncio.Runner(loop_factory=Lasting) as runner:
                    runner.run(self._keep())
            except Exception:  # no file can be opened, or one of its own was closed by the program
                log.exception("the keeper's event loop failed, and another takes its place")
                pace.failed()
                time.sleep(pace.wait())
        with contextlib.suppress(RuntimeError):  # the loop of `aclose` has ended
            self._on_end()

    async def _keep(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), Wakeup()
        self._calls = calls = Calls(self._connector, self._keys, self._timeout)
        try:
            while not self._closed:
                try:
                    pause = self.tick(calls)
                except Exception:
                    log.exception("the keeper failed, and goes on")
                    pause = 0.1
                await self._wake.wait(pause)
        finally:
            await calls.aclose()

    def tick(self, calls: Calls) -> float | None:
        """Ask for what is due, give up what is overdue. Returns seconds until there is more to do; None: nothing held."""
        now = time.monotonic()
        # hold() compares with this without a lock: while it is 0 it never rouses, so set it before the leases are read.
        self._wakes_at = float("inf")
        due: dict[tuple[str, int], list[Held]] = defaultdict(list)
        soonest = float("inf")
        # Locks that come and go between two ticks must not rouse the thread each time: linger.
        linger, self._busy = now + LINGER if self._busy else float("inf"), False
        if (self._held and self._stall.limit is not None) or self._stall.sign is not None:
            linger = min(linger, now + self._stall.step)
            if self._stall.look():
                self._stall.say_given_up(len(self._held))
                for held in list(self._held):
                    self._lost(held, STALLED)
        shortest = float("inf")
        for held in list(self._held):
            if now >= held.trusted_until:
                self._lost(held, OVERDUE)
                continue
            if now >= held.until:
                held.holder.on_overrun(self._stall.where())
                self._lost(held, OVERRUN)
                continue
            if (trusted_for := held.trusted_until - held.asked_at) < shortest:
                shortest = trusted_for
            # A little early rather than in a call of its own soon after.
            if now >= held.renew_at - held.ttl / 12:
                due[held.row.script, held.shard].append(held)
                # Unless the answer says better. A lease just handed over is short: leave room for a second try.
                held.renew_at = now + min(held.ttl / 9, max((held.trusted_until - now) / 4, 0.05))
            if (look_at := held.renew_at if held.renew_at < held.trusted_until else held.trusted_until) < soonest:
                soonest = look_at
        # A connection that a firewall forgot says nothing: give it up while there is time for another, and another try.
        calls.hurry(min(patience_for(shortest), self._timeout))
        for (script, shard), several in due.items():
            self._renew(calls, script, shard, several, now)
        self._wakes_at = soonest = min(soonest, linger)
        return None if soonest == float("inf") else max(soonest - time.monotonic(), 0.001)

    def _renew(self, calls: Calls, script: str, shard: int, several: list[Held], asked_at: float) -> None:
        most = load(script).most
        for start in range(0, len(several), most):
            asked = several[start : start + most]
            future = calls.submit_many([held.row for held in asked], shard)
            future.add_done_callback(partial(self._renewed, asked, asked_at))

    def _renewed(self, asked: list[Held], asked_at: float, done: asyncio.Future[list[Any]]) -> None:
        if done.cancelled():
            return
        problem = done.exception()
        if problem is not None:
            # Not a loss: tried again until trusted_until, which decides.
            level = logging.DEBUG if isinstance(problem, LockbeatError) else logging.ERROR
            log.log(level, "could not renew %d leases: %s", len(asked), problem)
            if isinstance(problem, StoreUnavailable) and self._wake is not None:
                for held in asked:  # at once: the wire makes it wait while the store is away
                    held.renew_at = min(held.renew_at, time.monotonic())
                self._wake.ring()
            return
        for held, expires_at_ms in zip(asked, done.result(), strict=True):
            if isinstance(expires_at_ms, Unreadable):  # no loss either: it may yet be repaired
                log.error("could not renew a lease: %s", expires_at_ms)
                continue
            if expires_at_ms > 0 or expires_at_ms == results.CANCELLED:
                held.taken(asked_at)
            if expires_at_ms == results.CANCELLED:
                self._tell(held, CANCELLED, self._held.get(held))  # kept until dropped: its body has yet to stop
            elif expires_at_ms <= 0:
                self._lost(held, GONE)

    def _lost(self, held: Held, reason: str) -> None:
        self._tell(held, reason, self._held.pop(held, None))

    def _tell(self, held: Held, reason: str, loop: asyncio.AbstractEventLoop | None) -> None:
        if loop is not None:
            if reason != CANCELLED and held.holder is not NOBODY:
                if self._connector.counting is not None:
                    self._connector.counting.lost[held.row.script.partition("/")[0]] += 1
                if self.events is not None and self.events.lease_lost.heard:
                    self.events.lease_lost.tell(_loss(held.row, reason))
            try:
                loop.call_soon_threadsafe(held.holder.on_lost, reason)
            except RuntimeError:
                pass  # that loop has ended, and its holder with it


def _loss(row: Row, reason: str) -> LostLease:
    """What the row says that renews it."""
    kind, fields = row.script.partition("/")[0], type(row)
    key = row.id if hasattr(fields, "id") else row.key
    fence = row.fence if hasattr(fields, "fence") else None
    return LostLease(kind, str(key), str(row.owner), fence, reason)


def _note(done: asyncio.Future[Any]) -> None:
    if not done.cancelled() and done.exception() is not None:
        log.debug("could not say that the event loop stands still: %s", done.exception())
