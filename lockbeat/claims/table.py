"""Where claims are kept: in a store, by the scripts of `scripts_lua/claim`; or nowhere, and everything passes."""

from __future__ import annotations

import builtins
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from lockbeat.claims.holding import ClaimHolding
from lockbeat.claims.values import Busy, Claim, ClaimStats, Done
from lockbeat.errors import Unreadable
from lockbeat.leases.keeper import Keeper
from lockbeat.store import Store, results
from lockbeat.store.durable import Durability
from lockbeat.store.keys import claim_place
from lockbeat.store.replies import sifted
from lockbeat.store.rows import Row
from lockbeat.values.payloads import load

log = logging.getLogger("lockbeat")
T = TypeVar("T")

PAGE = 100  # claims that one run of a script looks at or ends; keeps it under 5 ms


class Table:
    """The claims of a store, as its scripts have them: what the verbs and the handle stand on. Arguments were checked by then."""

    def __init__(self, store: Store, keeper: Keeper) -> None:
        self._store = store
        self._keeper = keeper
        self.owner = store.owner
        """In whose name a handle claims that was not told one."""

    async def acquire(
        self, key: str, queue: str, owner: str, lease_ms: int, durability: Durability | None
    ) -> Claim | Busy | Done:
        store, token, shard = self._store, self._store.new_call(), self._shard_of(key, queue)
        row = store.row["claim/acquire"](queue=queue, key=key, owner=owner, token=token, lease_ms=lease_ms)
        try:
            if durability is None:
                reply = await store.call_row(row, shard, lease=lease_ms / 1000)
            else:
                reply = await store.call_durably(row, shard, durability, changed=_was_claimed)
            # Before it is too late to take it back.
            claim = self._claim(shard, reply[1:]) if reply.said == results.DONE else None
            if claim is not None and claim.outcome == "took_over" and self._store.counting is not None:
                self._store.counting.took_over += 1
        except BaseException as problem:
            back = store.row["claim/release"](queue=queue, key=key, owner=owner, fence=0, call=store.new_call(), token=token)
            await store.take_back(problem, back, shard, lasts=lease_ms / 1000, durably=durability is not None)
            raise
        if claim is not None:
            return claim
        holder = reply.owner.decode()
        if reply.said == results.BUSY:
            return Busy(key, queue, holder, reply.expires_at_ms / 1000)
        result = self._load(shard, queue, key, reply.result)
        return Done(key, queue, holder, result, reply.completed_at_ms / 1000, reply.until_ms / 1000)

    async def change(self, script: str, claim: Claim, *, keep: float = 0, lease: float = math.inf, **args: Any) -> int:
        """renew, complete, fail or release it. Above 0: so it is; otherwise a key of REFUSALS.

        `keep`: seconds for which the call is to be sent all the same, though the caller gives up.
        """
        row, shard = self._row(script, claim, call=self._store.new_call(), **args)
        try:
            return int(await self._store.call_row(row, shard, lease=keep or lease))
        except BaseException:
            if keep:
                self._store.undo(row, shard, lasts=keep)
            raise

    async def renew(self, claim: Claim, lease_ms: int) -> int:
        return await self.change("claim/renew", claim, lease_ms=lease_ms, lease=lease_ms / 1000)

    def undo(self, script: str, claim: Claim, *, lasts: float, **args: Any) -> None:
        """`change` it for a caller who does not wait; sent again for `lasts` seconds while the store is away."""
        self._store.undo(*self._row(script, claim, call=self._store.new_call(), **args), lasts=lasts)

    def _row(self, script: str, claim: Claim, **args: Any) -> tuple[Row, int]:
        row = self._store.row[script](queue=claim.queue, key=claim.key, owner=claim.owner, fence=claim.fence, **args)
        return row, self._shard_of(claim.key, claim.queue)

    def holding(self, claim: Claim, lease_ms: int, asked_at: float, told: Callable[[str], None] | None) -> ClaimHolding | None:
        """Renew it from now on; it was granted to a request of `asked_at`. None: it needs no renewal."""
        row, shard = self._row("claim/renew", claim, call="-", lease_ms=lease_ms)
        return ClaimHolding(self._keeper, row, shard, ttl=lease_ms / 1000, asked_at=asked_at, told=told)

    async def sweep(self, script: str, **args: Any) -> int:
        """release_all or cleanup; how many it ended."""
        return await self._store.until_done(script, limit=PAGE, **args)

    async def owns(self, key: str, queue: str, owner: str, fence: int) -> bool:
        claim = await self.get(key, queue)
        return claim is not None and (claim.owner, claim.fence) == (owner, fence)

    async def get(self, key: str, queue: str) -> Claim | None:
        shard = self._shard_of(key, queue)
        reply = await self._store.call("claim/get", shard, queue=queue, key=key)
        return self._claim(shard, reply) if reply else None

    async def list(self, queue: str, limit: int) -> builtins.list[Claim]:
        async def one_shard(shard: int) -> builtins.list[Claim]:
            found: builtins.list[Claim] = []
            # A page of one could be all that ran out and was not yet moved away.
            async for page in self._store.pages("claim/list", shard, queue=queue, limit=min(max(limit, 10), PAGE)):
                found += self._claims(shard, page.claims)
                if len(found) >= limit:
                    break
            return found

        return sorted(await self._from_all(one_shard), key=lambda claim: claim.key.encode())[:limit]

    async def expired(self, limit: int) -> builtins.list[Claim]:
        async def one_shard(shard: int) -> builtins.list[Claim]:
            found: builtins.list[Claim] = []
            for skip in range(0, limit, PAGE):
                page = await self._store.call("claim/expired", shard, skip=skip, limit=(size := min(PAGE, limit - skip)))
                found += self._claims(shard, filter(None, page))
                if len(page) < size:
                    break
            return found

        return sorted(await self._from_all(one_shard), key=lambda claim: claim.expires_at)[:limit]

    async def active(self, queue: str) -> int:
        async def one_shard(shard: int) -> builtins.list[int]:
            more = True
            while more:
                count, more = await self._store.call("claim/active", shard, queue=queue, limit=PAGE)
            return [count]

        return sum(await self._from_all(one_shard))

    async def stats(self) -> ClaimStats:
        async def one_shard(shard: int) -> builtins.list[Any]:
            return [await self._store.call("claim/stats", shard)]

        counted = await self._from_all(one_shard)
        acquired, contended, took_over, *others = map(sum, zip([0] * 8, *counted, strict=True))
        return ClaimStats(acquired + contended + took_over, acquired, contended, took_over, *others)

    async def _from_all(self, one_shard: Callable[[int], Awaitable[builtins.list[T]]]) -> builtins.list[T]:
        return [one for several in await self._store.on_every_shard(one_shard) for one in several]

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
        return load(text, self._store.keys.key(shard, "claim:past"), f"{queue}\\xff{key}")

    def _shard_of(self, key: str, queue: str) -> int:
        store = self._store
        return store.shard_of(claim_place(queue, key)) if store.shards > 1 else 0


def _was_claimed(reply: Any) -> bool:
    return bool(reply[0] == results.DONE)


class Passing(Table):
    """No claims at all: everything is allowed, and there is nothing to see."""

    owner = "nobody"

    def __init__(self) -> None:
        pass  # it has no store

    async def acquire(self, key: str, queue: str, owner: str, lease_ms: int, durability: Durability | None) -> Claim:
        """Its fence grows like those of a store, but guards nothing."""
        return Claim(key, queue, owner, time.time_ns() // 1000, 1, math.inf, "passthrough")

    async def change(self, script: str, claim: Claim, *, keep: float = 0, lease: float = math.inf, **args: Any) -> int:
        return results.DONE

    def undo(self, script: str, claim: Claim, *, lasts: float, **args: Any) -> None:
        pass

    def holding(self, claim: Claim, lease_ms: int, asked_at: float, told: Callable[[str], None] | None) -> None:
        return None

    async def sweep(self, script: str, **args: Any) -> int:
        return 0

    async def owns(self, key: str, queue: str, owner: str, fence: int) -> bool:
        return True

    async def get(self, key: str, queue: str) -> None:
        return None

    async def _from_all(self, one_shard: Callable[[int], Awaitable[builtins.list[T]]]) -> builtins.list[T]:
        return []
