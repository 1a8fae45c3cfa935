"""Locks: leases on names, for whoever comes first."""

from __future__ import annotations

import asyncio
import logging
import math
from operator import itemgetter
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from lockbeat.errors import InvalidType, LockbeatError, LockTimeout, StoreError
from lockbeat.leases.holding import Holding
from lockbeat.leases.keeper import Keeper
from lockbeat.leases.lease import Lease, monotonic
from lockbeat.locks.waiting import Waiter, WaitingRoom
from lockbeat.store import Store
from lockbeat.store.durable import Durability, check_durability
from lockbeat.store.replies import sifted
from lockbeat.store.wire import Args
from lockbeat.values.durations import Seconds, milliseconds, seconds
from lockbeat.values.names import check_name

log = logging.getLogger("lockbeat")

PAGE = 500  # leases that one run of a script looks at; keeps it under 5 ms


@runtime_checkable
class LockBackend(Protocol):
    """What celers calls `DistributedLockBackend`: write against this, and no code of yours imports Redis."""

    async def try_acquire(self, key: str, owner: str, ttl: Seconds) -> Lease | None: ...
    async def release(self, key: str, owner: str) -> bool: ...
    async def renew(self, key: str, owner: str, ttl: Seconds) -> bool: ...
    async def is_locked(self, key: str) -> bool: ...
    async def owner(self, key: str) -> str | None: ...
    async def release_all(self, owner: str) -> int: ...


class Locks:
    """The locks of a store. Every verb is one atomic script; `now` is always the server's.

    Keys and owners: non-empty str of at most 1,024 bytes in UTF-8. ttl: seconds or a timedelta, 0.001 s to 10 years.
    Bad arguments raise InvalidArgument before anything is sent. All verbs raise StoreUnavailable when the store could not be
    reached for the store's timeout: repeating the call is then safe, and gives the first outcome.
    """

    def __init__(self, store: Store, keeper: Keeper) -> None:
        self._store = store
        self._keeper = keeper
        self._room = WaitingRoom(store)

    async def try_acquire(self, key: str, owner: str, ttl: Seconds, durability: Durability | None = None) -> Lease | None:
        """Take the lock if it is free or expired; None while another owner holds it (`lock/try_acquire`).

        The same owner again: the same fence, ttl set anew, longer or shorter. Nothing renews it but you.
        A cancelled call leaves no lock behind that it took itself. `durability` that is not met: NotDurable, and the same.
        """
        check_name("key", key)
        check_name("owner", owner)
        ttl_ms = milliseconds("ttl", ttl)
        check_durability(durability, ttl_ms)
        store, token = self._store, self._store.new_call()
        shard = store.shard_of(key)

        try:
            reply = await self._acquire(shard, (key, owner, token, ttl_ms, 1, ""), durability)
        except BaseException as problem:
            args = (key, owner, token, store.new_call())
            await store.take_back(problem, "lock/release", shard, args, lasts=ttl_ms / 1000, durably=durability is not None)
            raise
        return Lease(key, owner, reply[0], reply[1] / 1000) if reply[0] else None

    async def _acquire(self, shard: int, args: Args, durability: Durability | None) -> Any:
        if durability is None:
            return await self._store.call("lock/try_acquire", shard, args, lease=int(args[3]) / 1000)
        return await self._store.call_durably("lock/try_acquire", shard, args, durability, changed=itemgetter(0))

    async def release(self, key: str, owner: str) -> bool:
        """Give the lock back. True only for its live owner; expired, missing or another's: False (`lock/release`)."""
        check_name("key", key)
        check_name("owner", owner)
        store = self._store
        args = (key, owner, "-", store.new_call())
        return bool(await store.call("lock/release", store.shard_of(key), args))

    async def renew(self, key: str, owner: str, ttl: Seconds) -> bool:
        """Set the time left anew. True only for the live owner; never revives an expired lock (`lock/renew`)."""
        check_name("key", key)
        check_name("owner", owner)
        store = self._store
        ttl_ms = milliseconds("ttl", ttl)
        args = (key, owner, "-", ttl_ms)
        return bool(await store.call("lock/renew", store.shard_of(key), args, lease=ttl_ms / 1000))

    async def is_locked(self, key: str) -> bool:
        """Whether anyone holds the lock; an expired one is nobody's (`lock/is_locked`)."""
        check_name("key", key)
        return bool(await self._store.call("lock/is_locked", self._store.shard_of(key), (key,)))

    async def owner(self, key: str) -> str | None:
        """Who holds the lock; None when it is free or expired (`lock/owner`)."""
        check_name("key", key)
        reply = await self._store.call("lock/owner", self._store.shard_of(key), (key,))
        return reply[0].decode() if reply else None

    async def release_all(self, owner: str) -> int:
        """Give back all that an owner holds; how many there were (`lock/release_all`).

        O(owned): no other owner's lock is looked at. One round trip a shard for up to 500 locks, one more for each 500.
        """
        check_name("owner", owner)
        store = self._store

        async def one_shard(shard: int) -> int:
            count, more = 0, 1
            while more:
                call = store.new_call()
                released, more, *left = await store.calls.call_named("lock/release_all", shard, (owner, call, PAGE), call)
                sifted(left)
                count += released
            return count

        return sum(await asyncio.gather(*(one_shard(shard) for shard in range(store.shards))))

    async def list(self, owner: str | None = None) -> list[Lease]:
        """The live locks, of one owner or of all, in order of owner and key (`lock/list`, in pages)."""
        if owner is not None:
            check_name("owner", owner)
        found = []
        for shard in range(self._store.shards):
            cursor: bytes = b""
            while True:
                cursor, *page = await self._store.call("lock/list", shard, (owner or "", cursor, PAGE))
                found += [Lease(key.decode(), who.decode(), fence, ms / 1000) for key, who, fence, ms in sifted(page)]
                if not cursor:
                    break
        return sorted(found, key=lambda lease: (lease.owner, lease.key))

    async def unlock(self, lease: Lease) -> bool:
        """Give back a lock whoever holds it, as `list` showed it (`lock/release`). False: it is not held so any more.

        By its owner and fence: what the same owner has taken again since is not touched. A holder that lives is told when it next
        renews, and goes on till then.
        """
        if not isinstance(lease, Lease):
            raise InvalidType("lease", f"must be a Lease, as `list` returns them, not {type(lease).__name__}")
        store = self._store
        args = (check_name("key", lease.key), check_name("owner", lease.owner), f"={lease.fence:d}", store.new_call())
        return bool(await store.call("lock/release", store.shard_of(lease.key), args))

    async def holder(self, key: str) -> Lease | None:
        """The lock as it is held; None when it is free or expired (`lock/owner`)."""
        check_name("key", key)
        reply = await self._store.call("lock/owner", self._store.shard_of(key), (key,))
        return Lease(key, reply[0].decode(), reply[1], reply[2] / 1000) if reply else None

    def lock(
        self,
        key: str,
        ttl: Seconds = 30,
        wait: Seconds | None = None,
        owner: str | None = None,
        durability: Durability | None = None,
    ) -> Lock:
        """A handle that takes the lock, renews it by itself and gives it back: see `Lock`."""
        return Lock(self, key, ttl, wait, self._store.owner if owner is None else owner, durability)


class Lock:
    """`async with lb.lock("report", ttl=30) as lease:` holds the lock while the block runs.

    Renewed by the keeper. When it is lost all the same, the block is cancelled and LeaseLost raised; an error that the block
    itself raised comes first, with the loss as a note. `wait`: None waits as long as it takes, first come, first served; 0 tries
    once; else seconds, and LockTimeout. Handles exclude each other, within a process and an owner, too; one handle is
    for one block at a time. `durability`: the block is entered when the lock is as durable as asked for, or NotDurable raised.
    """

    def __init__(
        self, locks: Locks, key: str, ttl: Seconds, wait: Seconds | None, owner: str, durability: Durability | None
    ) -> None:
        self._locks = locks
        self.key = check_name("key", key)
        self.owner = check_name("owner", owner)
        self._ttl_ms = milliseconds("ttl", ttl)
        self._wait = None if wait is None else seconds("wait", wait, least=0)
        self._durability = check_durability(durability, self._ttl_ms)
        self._token = ""
        self._shard = locks._store.shard_of(key)
        self._holding: Holding | None = None
        self._lease: Lease | None = None

    @property
    def lease(self) -> Lease | None:
        """What is held; None outside of the block."""
        return self._lease

    @property
    def lost(self) -> bool:
        """Whether the lease was lost while the block ran."""
        return self._holding is not None and self._holding.lost is not None

    async def __aenter__(self) -> Lease:
        if self._token:
            raise LockbeatError(f"this handle on {self.key!r} is in use; make one for each block: lb.lock(...)")
        self._token = self._locks._store.new_call()
        try:
            lease, asked_at = await self._acquire(self._token)
        except BaseException:
            self._token = ""
            raise
        self._lease = lease
        args = (self.key, self.owner, self._token + "+", self._ttl_ms)
        self._holding = Holding(self._locks._keeper, "lock/renew", self._shard, args, ttl=self._ttl_ms / 1000, asked_at=asked_at)
        return lease

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        holding, lease, token = self._holding, self._lease, self._token
        assert holding is not None
        assert lease is not None
        holding.leave()
        self._token, self._lease = "", None
        if holding.lost is not None:
            # It may still stand in the store. Whoever lost it is told now, not when a store that is away answers.
            store = self._locks._store
            args = (self.key, self.owner, token, store.new_call())
            store.undo("lock/release", self._shard, args, lasts=self._ttl_ms / 1000)
        # Nothing is awaited before this call is on its way: a caller that is cancelled here still gives the lock back.
        elif not await self._release(token, holding):
            holding.lost = "it had ended before the block did"
        holding.report(lease.key, lease.owner, lease.fence, error)

    async def _release(self, token: str, holding: Holding) -> bool:
        store, asked_at = self._locks._store, monotonic()
        args = (self.key, self.owner, token + "+", store.new_call())
        try:
            released = bool(await store.call("lock/release", self._shard, args, lease=self._ttl_ms / 1000))
            return released or holding.too_late(asked_at)
        except BaseException as problem:
            store.undo("lock/release", self._shard, args, lasts=self._ttl_ms / 1000)
            if not isinstance(problem, StoreError):
                raise
            if asked_at >= holding.trusted_until:
                return False
            # The work is done, and was done under the lock: not worth an error. Others wait until the store is back, or the
            # lease ends.
            log.warning("could not release %r yet, it ends within %g s: %s", self.key, self._ttl_ms / 1000, problem)
            return True

    async def _acquire(self, token: str) -> tuple[Lease, float]:
        """The lease, and when it was asked for."""
        store, shard = self._locks._store, self._shard
        channel = store.channel if self._wait != 0 else ""
        args = (self.key, self.owner, token, self._ttl_ms, 0, channel)
        waiter = Waiter(self.key, token, args, shard, store.loop.create_future())
        room = self._locks._room
        room.enter(waiter)
        try:
            async with asyncio.timeout(self._wait or None):
                if channel:
                    await store.listening(shard)
                again = False
                while True:
                    asked_at = monotonic()
                    fence, until_ms, *_ = await self._locks._acquire(shard, args, self._durability)
                    if fence and (again or monotonic() < asked_at + self._ttl_ms / 2000):
                        return Lease(self.key, self.owner, fence, until_ms / 1000), asked_at
                    if fence:
                        again = True  # the store was away: by our clock little is left. The same call sets the ttl anew.
                        continue
                    if self._wait == 0:
                        raise LockTimeout(self.key, 0)
                    room.refused(waiter, until_ms)
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
            undoing = (self.key, self.owner, token, store.new_call())
            lasts = math.inf if channel else self._ttl_ms / 1000  # a place in the queue outlives the lease that was asked for
            await store.take_back(problem, "lock/release", shard, undoing, lasts=lasts, durably=self._durability is not None)
            if isinstance(problem, TimeoutError) and self._wait is not None:
                raise LockTimeout(self.key, self._wait) from None
            raise
        finally:
            room.leave(waiter)
