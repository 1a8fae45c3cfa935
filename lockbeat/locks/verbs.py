"""The verbs of locks, each one atomic script."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lockbeat.leases.keeper import Keeper
from lockbeat.leases.lease import Lease
from lockbeat.locks.handle import Lock, acquire
from lockbeat.locks.waiting import WaitingRoom, releasing
from lockbeat.store import Store
from lockbeat.store.durable import Durability, check_durability
from lockbeat.store.replies import sifted
from lockbeat.values.checks import of_type
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name

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

    key, owner: non-empty str of at most 1,024 bytes in UTF-8.
    ttl: seconds or a timedelta, 0.001 s to 10 years.

    Raises: InvalidArgument for bad arguments, before anything is sent. StoreUnavailable when the store could not be reached for
    the store's timeout: repeating the call is then safe, and gives the first outcome.
    """

    def __init__(self, store: Store, keeper: Keeper) -> None:
        self._store = store
        self._keeper = keeper
        self._room = WaitingRoom(store)

    async def try_acquire(self, key: str, owner: str, ttl: Seconds, durability: Durability | None = None) -> Lease | None:
        """Take the lock if it is free or expired; None while another owner holds it (`lock/try_acquire`).

        The same owner gets it again, with the same fence and `ttl` from now on, longer or shorter. Nothing renews it but you.
        A cancelled call leaves no lock behind that it took itself.

        Raises: NotDurable when `durability` is not met in time; it leaves no lock behind either.
        """
        check_name("key", key)
        check_name("owner", owner)
        ttl_ms = milliseconds("ttl", ttl)
        check_durability(durability, ttl_ms)
        store, token = self._store, self._store.new_call()
        shard = store.shard_of(key)
        row = store.row["lock/try_acquire"](key=key, owner=owner, token=token, ttl_ms=ttl_ms, reentrant=1, channel="")
        try:
            reply = await acquire(store, row, shard, durability)
        except BaseException as problem:
            back = releasing(store, key, owner, token)
            await store.take_back(problem, back, shard, lasts=ttl_ms / 1000, durably=durability is not None)
            raise
        return Lease(key, owner, reply.fence, reply.expires_at_ms / 1000) if reply.fence else None

    async def release(self, key: str, owner: str) -> bool:
        """Give the lock back. True only for its live owner; expired, missing or another's: False (`lock/release`)."""
        return await self._release(key, owner, "-")

    async def _release(self, key: str, owner: str, token: str) -> bool:
        store, row = self._store, releasing(self._store, check_name("key", key), check_name("owner", owner), token)
        return bool(await store.call_row(row, store.shard_of(key)))

    async def renew(self, key: str, owner: str, ttl: Seconds) -> bool:
        """Set the time left anew. True only for the live owner; never revives an expired lock (`lock/renew`)."""
        store, ttl_ms = self._store, milliseconds("ttl", ttl)
        row = store.row["lock/renew"](key=check_name("key", key), owner=check_name("owner", owner), token="-", ttl_ms=ttl_ms)
        return bool(await store.call_row(row, store.shard_of(key), lease=ttl_ms / 1000))

    async def is_locked(self, key: str) -> bool:
        """Whether anyone holds the lock; an expired one is nobody's (`lock/is_locked`)."""
        return bool(await self._store.call("lock/is_locked", self._store.shard_of(check_name("key", key)), key=key))

    async def owner(self, key: str) -> str | None:
        """Who holds the lock; None when it is free or expired (`lock/owner`)."""
        held = await self.holder(key)
        return None if held is None else held.owner

    async def release_all(self, owner: str) -> int:
        """Give back all that an owner holds; how many there were (`lock/release_all`).

        O(owned): no other owner's lock is looked at. One round trip a shard for up to 500 locks, one more for each 500.
        """
        return await self._store.until_done("lock/release_all", owner=check_name("owner", owner), limit=PAGE)

    async def list(self, owner: str | None = None) -> list[Lease]:
        """The live locks, of one owner or of all, in order of owner and key (`lock/list`, in pages)."""
        if owner is not None:
            check_name("owner", owner)
        found = []
        for shard in range(self._store.shards):
            async for page in self._store.pages("lock/list", shard, owner=owner or "", limit=PAGE):
                found += [Lease(key.decode(), who.decode(), fence, ms / 1000) for key, who, fence, ms in sifted(page.locks)]
        return sorted(found, key=lambda lease: (lease.owner, lease.key))

    async def unlock(self, lease: Lease) -> bool:
        """Give back a lock whoever holds it, as `list` showed it (`lock/release`). False: it is not held so any more.

        It goes by owner and fence: what the same owner has taken again since stays. A holder that lives goes on until it next
        renews, and is told then.
        """
        of_type("lease", lease, Lease, "a Lease, as `list` returns them")
        return await self._release(lease.key, lease.owner, f"={lease.fence:d}")

    async def holder(self, key: str) -> Lease | None:
        """The lock as it is held; None when it is free or expired (`lock/owner`)."""
        reply = await self._store.call("lock/owner", self._store.shard_of(check_name("key", key)), key=key)
        return Lease(key, reply.owner.decode(), reply.fence, reply.expires_at_ms / 1000) if reply else None

    def lock(
        self,
        key: str,
        ttl: Seconds = 30,
        wait: Seconds | None = None,
        owner: str | None = None,
        durability: Durability | None = None,
    ) -> Lock:
        """A handle that takes the lock, renews it by itself and gives it back: see `Lock`."""
        mine = self._store.owner
        return Lock(self._store, self._keeper, self._room, key, ttl, wait, mine if owner is None else owner, durability)
