"""The handle: a lock for as long as a block of code runs."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable
from contextlib import nullcontext
from operator import itemgetter
from types import TracebackType
from typing import Any

from lockbeat.errors import LockbeatError, LockTimeout, StoreError
from lockbeat.leases.holding import Handle, Holding
from lockbeat.leases.keeper import Keeper
from lockbeat.leases.lease import Lease, monotonic
from lockbeat.locks.waiting import Waiter, WaitingRoom, releasing
from lockbeat.store import Store
from lockbeat.store.durable import Durability, check_durability
from lockbeat.store.rows import Row
from lockbeat.values.durations import Seconds, milliseconds, seconds
from lockbeat.values.names import check_name

log = logging.getLogger("lockbeat")

_NO_LIMIT = nullcontext()


def acquire(store: Store, row: Row, shard: int, durability: Durability | None) -> Awaitable[Any]:
    """Send a row of `lock/try_acquire`, and wait until what it took is as durable as asked for. NotDurable: undo it."""
    if durability is None:
        return store.call_row(row, shard, lease=row.ttl_ms / 1000)
    return store.call_durably(row, shard, durability, changed=itemgetter(0))


class Lock(Handle):
    """`async with lb.lock("report", ttl=30) as lease:` holds the lock while the block runs.

    The keeper renews it. Handles exclude each other, within a process and an owner, too; one handle is for one block at a time.

    ttl: seconds or a timedelta, 0.001 s to 10 years: how long others wait for a holder that was killed.
    wait: seconds to wait for the lock; None: as long as it takes, first come, first served; 0: try once.
    durability: the block is entered when the lock is as durable as this asks for.

    Raises: LockTimeout when `wait` is over. NotDurable when the durability is not met in time. LeaseLost at the block's end
    when the lock was lost: the block is cancelled then, and an error of its own comes first, with the loss as a note.
    """

    def __init__(
        self,
        store: Store,
        keeper: Keeper,
        room: WaitingRoom,
        key: str,
        ttl: Seconds,
        wait: Seconds | None,
        owner: str,
        durability: Durability | None,
    ) -> None:
        self._store, self._keeper, self._room = store, keeper, room
        self.key = check_name("key", key)
        self.owner = check_name("owner", owner)
        self._ttl_ms = milliseconds("ttl", ttl)
        self._wait = None if wait is None else seconds("wait", wait, least=0)
        self._durability = check_durability(durability, self._ttl_ms)
        self._token = ""
        self._shard = store.shard_of(key)
        self._lease: Lease | None = None

    @property
    def lease(self) -> Lease | None:
        """What is held; None outside of the block."""
        return self._lease

    @property
    def trusted_until(self) -> float:
        """Until when what is held is trusted, in seconds of `time.monotonic`; 0 outside of the block."""
        return 0.0 if self._holding is None or self._lease is None else self._holding.trusted_until

    async def __aenter__(self) -> Lease:
        if self._token:
            raise LockbeatError(f"this handle on {self.key!r} is in use; make one for each block: lb.lock(...)")
        self._token = self._store.new_call()
        try:
            lease, asked_at = await self._acquire(self._token)
        except BaseException:
            self._token = ""
            raise
        self._lease = lease
        row = self._store.row["lock/renew"](key=self.key, owner=self.owner, token=self._token + "+", ttl_ms=self._ttl_ms)
        self._holding = Holding(self._keeper, row, self._shard, ttl=self._ttl_ms / 1000, asked_at=asked_at, told=self.told)
        return lease

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        holding, lease, token = self._holding, self._lease, self._token
        assert holding is not None
        assert lease is not None
        holding.leave()
        self._token, self._lease = "", None
        if holding.lost is not None:
            # It may still stand in the store. Whoever lost it is told now, not when a store that is away answers.
            self._store.undo(self._releasing(token), self._shard, lasts=self._ttl_ms / 1000)
        # Nothing is awaited before this call is on its way: a caller that is cancelled here still gives the lock back.
        elif not await self._release(token, holding):
            holding.lost = "it had ended before the block did"
        holding.report(lease.key, lease.owner, lease.fence, error)

    async def _release(self, token: str, holding: Holding) -> bool:
        store, asked_at, row = self._store, monotonic(), self._releasing(token + "+")
        try:
            released = bool(await store.call_row(row, self._shard, lease=self._ttl_ms / 1000))
            return released or holding.too_late(asked_at)
        except BaseException as problem:
            store.undo(row, self._shard, lasts=self._ttl_ms / 1000)
            if not isinstance(problem, StoreError):
                raise
            if asked_at >= holding.trusted_until:
                return False
            # The work is done, and was done under the lock: not worth an error. Others wait until the store is back, or the
            # lease ends.
            log.warning("could not release %r yet, it ends within %g s: %s", self.key, self._ttl_ms / 1000, problem)
            return True

    def _releasing(self, token: str) -> Row:
        return releasing(self._store, self.key, self.owner, token)

    async def _acquire(self, token: str) -> tuple[Lease, float]:
        """The lease, and when it was asked for."""
        store, shard = self._store, self._shard
        channel = store.channel if self._wait != 0 else ""
        row = store.row["lock/try_acquire"](
            key=self.key, owner=self.owner, token=token, ttl_ms=self._ttl_ms, reentrant=0, channel=channel
        )
        waiter = Waiter(self.key, token, row, shard, store.loop.create_future())
        room = self._room
        room.enter(waiter)
        try:
            async with asyncio.timeout(self._wait) if self._wait else _NO_LIMIT:
                if channel:
                    await store.listening(shard)
                again = False
                while True:
                    asked_at = monotonic()
                    reply = await acquire(store, row, shard, self._durability)
                    if reply.fence and (again or monotonic() < asked_at + self._ttl_ms / 2000):
                        return Lease(self.key, self.owner, reply.fence, reply.expires_at_ms / 1000), asked_at
                    if reply.fence:
                        again = True  # the store was away: by our clock little is left. The same call sets the ttl anew.
                        continue
                    if self._wait == 0:
                        raise LockTimeout(self.key, 0)
                    room.refused(waiter, reply.wait_ms)
                    granted = await waiter.granted
                    if self._durability is None:
                        return granted
                    # Nobody waited for the hand-over to be durable: the same call again does.
                    waiter.granted = store.loop.create_future()
        except LockTimeout:
            raise
        except BaseException as problem:
            # Ends what the call had begun, be it a lock taken or a place in the queue. Whoever asks again would follow that, so
            # it leaves the room first.
            room.give_up(waiter)
            lasts = math.inf if channel else self._ttl_ms / 1000  # a place in the queue outlives the lease that was asked for
            durably = self._durability is not None
            await store.take_back(problem, self._releasing(token), shard, lasts=lasts, durably=durably)
            if isinstance(problem, TimeoutError) and self._wait is not None:
                raise LockTimeout(self.key, self._wait) from None
            raise
        finally:
            room.leave(waiter)
