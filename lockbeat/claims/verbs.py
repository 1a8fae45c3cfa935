"""The verbs of claims, each one atomic script."""

from __future__ import annotations

import asyncio
import builtins
import heapq
import logging
import math
from collections.abc import Iterable
from typing import Any

from lockbeat.claims.handle import ClaimHandle
from lockbeat.claims.values import (
    MOST_EXPIRED,
    MOST_LISTED,
    Busy,
    Claim,
    ClaimStats,
    Done,
    check_claim,
    check_fence,
    check_limit,
    check_place,
    error_json,
)
from lockbeat.errors import Unreadable
from lockbeat.leases.keeper import Keeper
from lockbeat.store import Store
from lockbeat.store.durable import Durability, check_durability
from lockbeat.store.keys import claim_place
from lockbeat.store.replies import sifted
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name
from lockbeat.values.payloads import dump, load

log = logging.getLogger("lockbeat")

PAGE = 100  # claims that one run of a script looks at or ends; keeps it under 5 ms


class Claims:
    """The claims of a store. Every verb is one atomic script; `now` is always the server's.

    A unit of work is named by its key, within a queue; queues are separate. Keys, owners, queues: non-empty str of at most
    1,024 bytes in UTF-8. lease: seconds or a timedelta, 0.001 s to 10 years. Results: any JSON value of at most 1 MiB. Bad
    arguments raise InvalidArgument before anything is sent. All verbs raise StoreUnavailable when the store could not be reached
    for the store's timeout: repeating the call is then safe.
    """

    def __init__(self, store: Store, keeper: Keeper) -> None:
        self._store = store
        self._keeper = keeper

    async def acquire(
        self,
        key: str,
        owner: str,
        lease: Seconds = 120,
        queue: str = "default",
        durability: Durability | None = None,
    ) -> Claim | Busy | Done:
        """Claim the work unless somebody is at it (`Busy`, for the same owner too), or it is done and held (`Done`).

        New work, and work that was completed or given back: "acquired". Work that ran out unfinished: "took_over", as the next
        attempt; so, by "acquired", after a failure, at once. Nothing renews it but you; `hold` does (`claim/acquire`).
        A cancelled call leaves no claim behind. `durability` that is not met: NotDurable, and the same.
        """
        check_place(key, queue)
        check_name("owner", owner)
        lease_ms = milliseconds("lease", lease)
        return await self._acquire(key, owner, lease_ms, queue, check_durability(durability, lease_ms))

    async def _acquire(
        self, key: str, owner: str, lease_ms: int, queue: str, durability: Durability | None
    ) -> Claim | Busy | Done:
        store, token, shard = self._store, self._store.new_call(), self._shard_of(key, queue)
        args = (queue, key, owner, token, lease_ms)
        try:
            if durability is None:
                said, *reply = await store.call("claim/acquire", shard, args, lease=lease_ms / 1000)
            else:
                said, *reply = await store.call_durably("claim/acquire", shard, args, durability, changed=_was_claimed)
            # Before it is too late to take it back.
            claim = self._claim(shard, reply) if said == 1 else None
        except BaseException as problem:
            undoing = (queue, key, owner, "-", token, store.new_call())
            await store.take_back(problem, "claim/release", shard, undoing, lasts=lease_ms / 1000, durably=durability is not None)
            raise
        if claim is not None:
            return claim
        if said == 0:
            return Busy(key, queue, reply[0].decode(), reply[1] / 1000)
        return Done(key, queue, reply[0].decode(), self._load(shard, queue, key, reply[3]), reply[1] / 1000, reply[2] / 1000)

    async def renew(self, claim: Claim, lease: Seconds) -> bool:
        """Set the time left to `lease`, longer or shorter. True only while it is live; never revives it (`claim/renew`)."""
        return await self._renew(check_claim(claim), milliseconds("lease", lease)) > 0

    async def complete(self, claim: Claim, result: Any = None, hold: Seconds = 0) -> bool:
        """The work is done. For `hold` seconds from now `acquire` answers `Done`, with the result (`claim/complete`).

        Accepted after the claim ran out, too, while nobody took it over. False: it had ended, or is another's by now.
        """
        check_claim(claim)
        return await self._complete(claim, dump("result", result), milliseconds("hold", hold, least=0)) > 0

    async def fail(self, claim: Claim, error: Any) -> bool:
        """The work failed: the next acquire gets it at once, as its next attempt, and is told why (`claim/fail`).

        error: a text or an exception, of which 4,000 characters are kept, or any JSON value, which is given back as such.
        Accepted like `complete`. Attempts are counted for 7 days after the last failure.
        """
        check_claim(claim)
        return await self._fail(claim, error_json(error)) > 0

    async def release(self, claim: Claim) -> bool:
        """Give it back as if it had not been acquired: its attempt does not count (`claim/release`).

        True only while it is live. What ran out stays to be taken over: the work may have begun.
        """
        return await self._release(check_claim(claim)) > 0

    async def release_all(self, owner: str) -> int:
        """Give back all that an owner has claimed; how many there were (`claim/release_all`).

        O(owned): no other owner's claim is looked at. What ran out is not counted, and stays to be taken over.
        """
        check_name("owner", owner)
        return await self._until_done("claim/release_all", owner)

    async def owns(self, key: str, owner: str, fence: int, queue: str = "default") -> bool:
        """Whether the claim of that owner and fence is live (`claim/get`)."""
        check_fence(fence)
        claim = await self.get(key, owner, queue)
        return claim is not None and claim.fence == fence

    async def is_claimed(self, key: str, queue: str = "default") -> Claim | None:
        """The live claim, whoever's; None: nobody is at it (`claim/get`)."""
        check_place(key, queue)
        shard = self._shard_of(key, queue)
        reply = await self._store.call("claim/get", shard, (queue, key))
        return self._claim(shard, reply) if reply else None

    async def get(self, key: str, owner: str, queue: str = "default") -> Claim | None:
        """The live claim if it is that owner's (`claim/get`)."""
        check_name("owner", owner)
        claim = await self.is_claimed(key, queue)
        return claim if claim is not None and claim.owner == owner else None

    async def list(self, queue: str = "default", limit: int = 100) -> list[Claim]:
        """The live claims of a queue in order of their keys, up to `limit`, at most 10,000 (`claim/list`, in pages)."""
        check_name("queue", queue)
        check_limit(limit, MOST_LISTED)

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

        shards = await asyncio.gather(*(one_shard(shard) for shard in range(self._store.shards)))
        return builtins.list(heapq.merge(*shards, key=lambda claim: claim.key.encode()))[:limit]

    async def active(self, queue: str = "default") -> int:
        """How many claims of a queue are live (`claim/active`)."""
        check_name("queue", queue)

        async def one_shard(shard: int) -> int:
            while True:
                count, more = await self._store.call("claim/active", shard, (queue, PAGE))
                if not more:
                    return int(count)

        return sum(await asyncio.gather(*(one_shard(shard) for shard in range(self._store.shards))))

    async def expired(self, limit: int = 100) -> builtins.list[Claim]:
        """Claims of all queues that ran out unfinished and that nobody has taken over, up to `limit`, at most 1,000.

        The oldest first. Changes nothing: acquire one to take it over (`claim/expired`).
        """
        check_limit(limit, MOST_EXPIRED)

        async def one_shard(shard: int) -> builtins.list[Claim]:
            found: builtins.list[Claim] = []
            for skip in range(0, limit, PAGE):
                size = min(PAGE, limit - skip)
                page = await self._store.call("claim/expired", shard, (skip, size))
                found += self._claims(shard, filter(None, page))
                if len(page) < size:
                    break
            return found

        shards = await asyncio.gather(*(one_shard(shard) for shard in range(self._store.shards)))
        return builtins.list(heapq.merge(*shards, key=lambda claim: claim.expires_at))[:limit]

    async def cleanup(self) -> int:
        """End the claims of all queues that ran out unfinished; how many (`claim/cleanup`, in pages).

        Whoever acquires one next begins at attempt 1, and takes over from nobody. They can't be completed any more.
        """
        return await self._until_done("claim/cleanup")

    async def stats(self) -> ClaimStats:
        """How often what happened, in all queues (`claim/stats`)."""
        acquired, contended, took_over, *others = map(sum, zip(*await self._store.on_every_shard("claim/stats", ()), strict=True))
        return ClaimStats(acquired + contended + took_over, acquired, contended, took_over, *others)

    def hold(
        self,
        key: str,
        lease: Seconds = 30,
        queue: str = "default",
        hold: Seconds = 0,
        owner: str | None = None,
        durability: Durability | None = None,
    ) -> ClaimHandle:
        """A handle that claims the work, renews the claim while the block runs, and finishes it: see `ClaimHandle`."""
        self._store.check_loop()
        owner = self._store.owner if owner is None else owner
        return ClaimHandle(self, key, queue, owner, lease, hold, durability=durability)

    def handle(self, claim: Claim, lease: Seconds = 30, hold: Seconds = 0) -> ClaimHandle:
        """A handle on a claim that is there already. Its verbs raise ClaimRefused, which says why.

        Nothing renews it but you, unless it is entered: then it is as if `hold` had acquired it; ClaimRefused when it is lost.
        """
        check_claim(claim)
        return ClaimHandle(self, claim.key, claim.queue, claim.owner, lease, hold, claim)

    # What the handle calls too. Above 0: so it is; otherwise a key of REFUSALS.

    async def _renew(self, claim: Claim, lease_ms: int) -> int:
        return await self._change("claim/renew", claim, self._store.new_call(), lease_ms, lease=lease_ms / 1000)

    async def _complete(self, claim: Claim, result: str, hold_ms: int, *, keep: float = 0) -> int:
        return await self._change("claim/complete", claim, self._store.new_call(), result, hold_ms, keep=keep)

    async def _fail(self, claim: Claim, error: str, *, keep: float = 0) -> int:
        return await self._change("claim/fail", claim, self._store.new_call(), error, keep=keep)

    async def _release(self, claim: Claim, *, keep: float = 0) -> int:
        return await self._change("claim/release", claim, "-", self._store.new_call(), keep=keep)

    async def _change(self, script: str, claim: Claim, *args: str | int, keep: float = 0, lease: float = math.inf) -> int:
        """`keep`: seconds for which it is to be sent all the same, though the caller gives up."""
        store, shard = self._store, self._shard_of(claim.key, claim.queue)
        given = (claim.queue, claim.key, claim.owner, claim.fence, *args)
        try:
            return int(await store.call(script, shard, given, lease=keep or lease))
        except BaseException:
            if keep:
                store.undo(script, shard, given, lasts=keep)
            raise

    async def _until_done(self, script: str, *args: str) -> int:
        store = self._store

        async def one_shard(shard: int) -> int:
            count, more = 0, 1
            while more:
                call = store.new_call()
                ended, more, *left = await store.calls.call_named(script, shard, (*args, call, PAGE), call)
                sifted(left)
                count += ended
            return count

        return sum(await asyncio.gather(*(one_shard(shard) for shard in range(store.shards))))

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
    return bool(reply[0] == 1)
