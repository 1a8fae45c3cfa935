"""The verbs of claims, each one atomic script."""

from __future__ import annotations

import builtins
from typing import Any

from lockbeat.claims.handle import ClaimHandle
from lockbeat.claims.table import Table
from lockbeat.claims.values import (
    MOST_EXPIRED,
    MOST_LISTED,
    Busy,
    Claim,
    ClaimStats,
    Done,
    check_claim,
    check_place,
    error_json,
)
from lockbeat.store.durable import Durability, check_durability
from lockbeat.values.checks import MOST_FENCE, whole
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name
from lockbeat.values.payloads import dump


class Claims:
    """The claims of a store. Every verb is one atomic script; `now` is always the server's.

    A unit of work is named by its key, within a queue; queues are separate.
    key, owner, queue: non-empty str of at most 1,024 bytes in UTF-8.
    lease: seconds or a timedelta, 0.001 s to 10 years.
    result, error: any JSON value of at most 1 MiB.

    Raises: InvalidArgument for bad arguments, before anything is sent. StoreUnavailable when the store could not be reached for
    the store's timeout: repeating the call is then safe.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    async def acquire(
        self,
        key: str,
        owner: str,
        lease: Seconds = 120,
        queue: str = "default",
        durability: Durability | None = None,
    ) -> Claim | Busy | Done:
        """Claim the work unless somebody is at it (`Busy`, for the same owner too), or it is remembered as done (`Done`).

        `outcome` is "took_over" if the last owner's claim ran out unfinished, else "acquired". `attempt` goes up in the first
        case and after a failure. Nothing renews the claim but you; `hold` does (`claim/acquire`).
        A cancelled call leaves no claim behind. `durability` that is not met: NotDurable, and the same.
        """
        check_place(key, queue)
        check_name("owner", owner)
        lease_ms = milliseconds("lease", lease)
        return await self._table.acquire(key, queue, owner, lease_ms, check_durability(durability, lease_ms))

    async def renew(self, claim: Claim, lease: Seconds) -> bool:
        """Set the time left to `lease`, longer or shorter. True only while it is live; never revives it (`claim/renew`)."""
        check_claim(claim)
        return await self._table.renew(claim, milliseconds("lease", lease)) > 0

    async def complete(self, claim: Claim, result: Any = None, hold: Seconds = 0) -> bool:
        """The work is done. For `hold` seconds from now `acquire` answers `Done`, with the result (`claim/complete`).

        Accepted after the claim ran out, too, while nobody took it over. False: it had ended, or is another's by now.
        """
        check_claim(claim)
        text, hold_ms = dump("result", result), milliseconds("hold", hold, least=0)
        return await self._table.change("claim/complete", claim, result=text, hold_ms=hold_ms) > 0

    async def fail(self, claim: Claim, error: Any) -> bool:
        """The work failed: the next acquire gets it at once, as its next attempt, and is told why (`claim/fail`).

        error: a text or an exception, of which 4,000 characters are kept, or any JSON value, which is given back as such.
        Accepted like `complete`. Attempts are counted for 7 days after the last failure.
        """
        check_claim(claim)
        return await self._table.change("claim/fail", claim, error=error_json(error)) > 0

    async def release(self, claim: Claim) -> bool:
        """Give it back as if it had not been acquired: its attempt does not count (`claim/release`).

        True only while it is live. What ran out stays to be taken over: the work may have begun.
        """
        return await self._table.change("claim/release", check_claim(claim), token="-") > 0

    async def release_all(self, owner: str) -> int:
        """Give back all that an owner has claimed; how many there were (`claim/release_all`).

        O(owned): no other owner's claim is looked at. What ran out is not counted, and stays to be taken over.
        """
        return await self._table.sweep("claim/release_all", owner=check_name("owner", owner))

    async def owns(self, key: str, owner: str, fence: int, queue: str = "default") -> bool:
        """Whether the claim of that owner and fence is live (`claim/get`)."""
        check_place(key, queue)
        return await self._table.owns(key, queue, check_name("owner", owner), whole("fence", fence, 1, MOST_FENCE))

    async def is_claimed(self, key: str, queue: str = "default") -> Claim | None:
        """The live claim, whoever's; None: nobody is at it (`claim/get`)."""
        check_place(key, queue)
        return await self._table.get(key, queue)

    async def get(self, key: str, owner: str, queue: str = "default") -> Claim | None:
        """The live claim if it is that owner's (`claim/get`)."""
        check_name("owner", owner)
        claim = await self.is_claimed(key, queue)
        return claim if claim is not None and claim.owner == owner else None

    async def list(self, queue: str = "default", limit: int = 100) -> list[Claim]:
        """The live claims of a queue in order of their keys, up to `limit`, at most 10,000 (`claim/list`, in pages)."""
        return await self._table.list(check_name("queue", queue), whole("limit", limit, 1, MOST_LISTED))

    async def active(self, queue: str = "default") -> int:
        """How many claims of a queue are live (`claim/active`)."""
        return await self._table.active(check_name("queue", queue))

    async def expired(self, limit: int = 100) -> builtins.list[Claim]:
        """Claims of all queues that ran out unfinished and that nobody has taken over, up to `limit`, at most 1,000.

        The oldest first. Changes nothing: acquire one to take it over (`claim/expired`).
        """
        return await self._table.expired(whole("limit", limit, 1, MOST_EXPIRED))

    async def cleanup(self) -> int:
        """End the claims of all queues that ran out unfinished; how many (`claim/cleanup`, in pages).

        Whoever acquires one next begins at attempt 1, and takes over from nobody. They can't be completed any more.
        """
        return await self._table.sweep("claim/cleanup")

    async def stats(self) -> ClaimStats:
        """How often what happened, in all queues (`claim/stats`)."""
        return await self._table.stats()

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
        ours = self._table.owner
        return ClaimHandle(self._table, key, queue, ours if owner is None else owner, lease, hold, durability=durability)

    def handle(self, claim: Claim, lease: Seconds = 30, hold: Seconds = 0) -> ClaimHandle:
        """A handle on a claim that is there already. Its verbs raise ClaimRefused, which says why.

        Nothing renews it but you, unless it is entered: then it is as if `hold` had acquired it; ClaimRefused when it is lost.
        """
        check_claim(claim)
        return ClaimHandle(self._table, claim.key, claim.queue, claim.owner, lease, hold, claim)
