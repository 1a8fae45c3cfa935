"""Where claims are kept: in a store, by the scripts of `scripts_lua/claim`; or nowhere, and everything passes."""

from __future__ import annotations

import asyncio
import builtins
import heapq
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

from lockbeat.claims.holding import ClaimHolding
from lockbeat.claims.values import Busy, Claim, ClaimStats, Done
from lockbeat.errors import Unreadable
from lockbeat.leases.keeper import Keeper
from lockbeat.store import Store, results
from lockbeat.store.durable import Durability
from lockbeat.store.keys import claim_place
from lockbeat.store.replies import sifted
from lockbeat.values.payloads import load

log = logging.getLogger("lockbeat")

PAGE = 100  # claims that one run of a script looks at or ends; keeps it under 5 ms
T = TypeVar("T")


class Table(Protocol):
    """What the verbs and the handle of claims stand on. Arguments were checked by then."""

    @property
    def owner(self) -> str:
        """In whose name a handle claims that was not told one."""

    async def acquire(
        self, key: str, queue: str, owner: str, lease_ms: int, durability: Durability | None
    ) -> Claim | Busy | Done: ...

    async def change(self, script: str, claim: Claim, *args: str | int, keep: float = 0, lease: float = math.inf) -> int:
        """renew, complete, fail or release it. Above 0: so it is; otherwise a key of REFUSALS.

        `keep`: seconds for which the call is to be sent all the same, though the caller gives up.
        """

    def undo(self, script: str, claim: Claim, *args: str | int, lasts: float) -> None:
        """`change` it for a caller who does not wait; sent again for `lasts` seconds while the store is away."""

    def holding(self, claim: Claim, lease_ms: int, asked_at: float) -> ClaimHolding | None:
        """Renew it from now on; it was granted to a request of `asked_at`. None: it needs no renewal."""

    async def sweep(self, script: str, *args: str) -> int:
        """release_all or cleanup; how many it ended."""

    async def owns(self, key: str, queue: str, owner: str, fence: int) -> bool: ...
    async def get(self, key: str, queue: str) -> Claim | None: ...
    async def list(self, queue: str, limit: int) -> builtins.list[Claim]: ...
    async def expired(self, limit: int) -> builtins.list[Claim]: ...
    async def active(self, queue: str) -> int: ...
    async def stats(self) -> ClaimStats: ...


class Passing:
    """No claims at all: everything is allowed, and there is nothing to see."""

    owner = "nobody"

    async def acquire(self, key: str, queue: str, owner: str, lease_ms: int, durability: Durability | None) -> Claim:
        """Its fence grows like those of a store, but guards nothing."""
        return Claim(key, queue, owner, time.time_ns() // 1000, 1, math.inf, "passthrough")

    async def change(self, script: str, claim: Claim, *args: str | int, keep: float = 0, lease: float = math.inf) -> int:
        return 1

    def undo(self, script: str, claim: Claim, *args: str | int, lasts: float) -> None:
        pass

    def holding(self, claim: Claim, lease_ms: int, asked_at: float) -> None:
        return None

    async def sweep(self, script: str, *args: str) -> int:
        return 0

    async def owns(self, key: str, queue: str, owner: str, fence: int) -> bool:
        return True

    async def get(self, key: str, queue: str) -> None:
        return None

    async def list(self, queue: str, limit: int) -> builtins.list[Claim]:
        return []

    async def expired(self, limit: int) -> builtins.list[Claim]:
        return []

    async def active(self, queue: str) -> int:
        return 0

    async def stats(self) -> ClaimStats:
        return ClaimStats(*[0] * 9)


class Stored:
    """The claims of a store."""

    def __init__(self, store: Store, keeper: Keeper) -> None:
        self._store = store
        self._keeper = keeper

    @property
    def owner(self) -> str:
        self._store.check_loop()
        return self._store.owner

    async def acquire(
        self, key: str, queue: str, owner: str, lease_ms: int, durability: Durability | None
    ) -> Claim | Busy | Done:
        store, token, shard = self._store, self._store.new_call(), self._shard_of(key, queue)
        args = (queue, key, owner, token, lease_ms)
        try:
            if durability is None:
                said, *reply = await store.call("claim/acquire", shard, args, lease=lease_ms / 1000)
            else:
                said, *reply = await store.call_durably("claim/acquire", shard, args, durability, changed=_was_claimed)
            # Before it is too late to take it back.
            claim = self._claim(shard, reply) if said == results.DONE else None
        except BaseException as problem:
            undoing = (queue, key, owner, "-", store.new_call(), token)
            await store.take_back(problem, "claim/release", shard, undoing, lasts=lease_ms / 1000, durably=durability is not None)
            raise
        if claim is not None:
            return claim
        if said == results.BUSY:
            return Busy(key, queue, reply[0].decode(), reply[1] / 1000)
        return Done(key, queue, reply[0].decode(), self._load(shard, queue, key, reply[3]), reply[1] / 1000, reply[2] / 1000)

    async def change(self, script: str, claim: Claim, *args: str | int, keep: float = 0, lease: float = math.inf) -> int:
        shard, given = self._group(claim, args)
        try:
            return int(await self._store.call(script, shard, given, lease=keep or lease))
        except BaseException:
            if keep:
                self._store.undo(script, shard, given, lasts=keep)
            raise

    def undo(self, script: str, claim: Claim, *args: str | int, lasts: float) -> None:
        self._store.undo(script, *self._group(claim, args), lasts=lasts)

    def _group(self, claim: Claim, args: tuple[str | int, ...]) -> tuple[int, tuple[str | int, ...]]:
        shard = self._shard_of(claim.key, claim.queue)
        return shard, (claim.queue, claim.key, claim.owner, claim.fence, self._store.new_call(), *args)

    def holding(self, claim: Claim, lease_ms: int, asked_at: float) -> ClaimHolding:
        args = (claim.queue, claim.key, claim.owner, claim.fence, "-", lease_ms)
        shard = self._shard_of(claim.key, claim.queue)
        return ClaimHolding(self._keeper, "claim/renew", shard, args, ttl=lease_ms / 1000, asked_at=asked_at)

    async def sweep(self, script: str, *args: str) -> int:
        store = self._store

        async def one_shard(shard: int) -> int:
            count, more = 0, 1
            while more:
                call = store.new_call()
                ended, more, *left = await store.calls.call_named(script, shard, (*args, call, PAGE), call)
                sifted(left)
                count += ended
            return count

        return sum(await self._every(one_shard))

    async def owns(self, key: str, queue: str, owner: str, fence: int) -> bool:
        claim = await self.get(key, queue)
        return claim is not None and (claim.owner, claim.fence) == (owner, fence)

    async def get(self, key: str, queue: str) -> Claim | None:
        shard = self._shard_of(key, queue)
        reply = await self._store.call("claim/get", shard, (queue, key))
        return self._claim(shard, reply) if reply else None

    async def list(self, queue: str, limit: int) -> builtins.list[Claim]:
        async def one_shard(shard: int) -> builtins.list[Claim]:
            found: builtins.list[Claim] = []
            after: bytes = b""
            while True:
                # A page of one could be all that ran out and was not yet moved away.
                args = (queue, after, min(max(limit - len(found), 10), PAGE))
                after, *rows = await self._store.call("claim/list", shard, args)
                found += self._claims(shard, rows)
                if not after or len(found) >= limit:
                    return found

        shards = await self._every(one_shard)
        return builtins.list(heapq.merge(*shards, key=lambda claim: claim.key.encode()))[:limit]

    async def expired(self, limit: int) -> builtins.list[Claim]:
        async def one_shard(shard: int) -> builtins.list[Claim]:
            found: builtins.list[Claim] = []
            for skip in range(0, limit, PAGE):
                size = min(PAGE, limit - skip)
                page = await self._store.call("claim/expired", shard, (skip, size))
                found += self._claims(shard, filter(None, page))
                if len(page) < size:
                    break
            return found

        return builtins.list(heapq.merge(*await self._every(one_shard), key=lambda claim: claim.expires_at))[:limit]

    async def active(self, queue: str) -> int:
        async def one_shard(shard: int) -> int:
            while True:
                count, more = await self._store.call("claim/active", shard, (queue, PAGE))
                if not more:
                    return int(count)

        return sum(await self._every(one_shard))

    async def stats(self) -> ClaimStats:
        acquired, contended, took_over, *others = map(sum, zip(*await self._store.on_every_shard("claim/stats", ()), strict=True))
        return ClaimStats(acquired + contended + took_over, acquired, contended, took_over, *others)

    async def _every(self, one_shard: Callable[[int], Awaitable[T]]) -> builtins.list[T]:
        return await asyncio.gather(*(one_shard(shard) for shard in range(self._store.shards)))

    def _claim(self, shard: int, row: Any) -> Claim:
        """Raises Unreadable."""
        queue, key, owner, fence, expires_ms, attempt, previous, error = row
        return Claim(
            key.decode(),
            queue.decode(),
            owner.decode(),
            fence,
            attempt,
            expires_ms / 1000,
            "took_over" if previous else "acquired",
            previous.decode() if previous else None,
            self._load(shard, queue.decode(), key.decode(), error) if error else None,
        )

    def _claims(self, shard: int, rows: Iterable[Any]) -> builtins.list[Claim]:
        """Those of a listing that can be read; a line in the log names each of the others."""
        found = []
        for row in sifted(rows):
            try:
                found.append(self._claim(shard, row))
            except Unreadable as problem:
                log.error("left out: %s", problem)
        return found

    def _load(self, shard: int, queue: str, key: str, text: bytes) -> Any:
        return load(text, self._store.keys.key(shard, "claim:result"), f"{queue}\\xff{key}")

    def _shard_of(self, key: str, queue: str) -> int:
        store = self._store
        return store.shard_of(claim_place(queue, key)) if store.shards > 1 else 0


def _was_claimed(reply: Any) -> bool:
    return bool(reply[0] == results.DONE)
