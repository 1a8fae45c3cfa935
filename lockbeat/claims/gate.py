"""The gate: claims where a store is configured, and free passage where none is."""

from __future__ import annotations

import builtins
from typing import Any

from lockbeat.claims.handle import ClaimHandle, passthrough
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
from lockbeat.claims.verbs import Claims
from lockbeat.errors import InvalidType
from lockbeat.store.durable import Durability, check_durability
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name
from lockbeat.values.payloads import dump


class Gate:
    """The verbs of claims, for a service that may or may not have a store: `Gate(lb.claims)`, `Gate(None)`.

    With None everything passes: `acquire` answers a claim (its outcome is "passthrough"), `renew`, `complete`, `fail`, `release`
    and `owns` answer True, and there is nothing to list. So a service is written once, and begins to share its work when it is
    given claims, without another change. Bad arguments are refused either way.
    """

    def __init__(self, claims: Claims | None) -> None:
        if claims is not None and not isinstance(claims, Claims):
            raise InvalidType("claims", f"must be lb.claims or None, not {type(claims).__name__}")
        self._claims = claims

    async def acquire(
        self,
        key: str,
        owner: str,
        lease: Seconds = 120,
        queue: str = "default",
        durability: Durability | None = None,
    ) -> Claim | Busy | Done:
        """As `Claims.acquire`; passing through: a claim."""
        if self._claims is not None:
            return await self._claims.acquire(key, owner, lease, queue, durability)
        check_place(key, queue)
        check_name("owner", owner)
        check_durability(durability, milliseconds("lease", lease))
        return passthrough(key, owner, queue)

    async def renew(self, claim: Claim, lease: Seconds) -> bool:
        """As `Claims.renew`; passing through: True."""
        if self._claims is not None:
            return await self._claims.renew(claim, lease)
        check_claim(claim)
        milliseconds("lease", lease)
        return True

    async def complete(self, claim: Claim, result: Any = None, hold: Seconds = 0) -> bool:
        """As `Claims.complete`; passing through: True."""
        if self._claims is not None:
            return await self._claims.complete(claim, result, hold)
        check_claim(claim)
        dump("result", result)
        milliseconds("hold", hold, least=0)
        return True

    async def fail(self, claim: Claim, error: Any) -> bool:
        """As `Claims.fail`; passing through: True."""
        if self._claims is not None:
            return await self._claims.fail(claim, error)
        check_claim(claim)
        error_json(error)
        return True

    async def release(self, claim: Claim) -> bool:
        """As `Claims.release`; passing through: True."""
        if self._claims is not None:
            return await self._claims.release(claim)
        check_claim(claim)
        return True

    async def release_all(self, owner: str) -> int:
        """As `Claims.release_all`; passing through: 0."""
        if self._claims is not None:
            return await self._claims.release_all(owner)
        check_name("owner", owner)
        return 0

    async def owns(self, key: str, owner: str, fence: int, queue: str = "default") -> bool:
        """As `Claims.owns`; passing through: True."""
        if self._claims is not None:
            return await self._claims.owns(key, owner, fence, queue)
        check_place(key, queue)
        check_name("owner", owner)
        check_fence(fence)
        return True

    async def is_claimed(self, key: str, queue: str = "default") -> Claim | None:
        """As `Claims.is_claimed`; passing through: None."""
        if self._claims is not None:
            return await self._claims.is_claimed(key, queue)
        check_place(key, queue)
        return None

    async def get(self, key: str, owner: str, queue: str = "default") -> Claim | None:
        """As `Claims.get`; passing through: None."""
        if self._claims is not None:
            return await self._claims.get(key, owner, queue)
        check_place(key, queue)
        check_name("owner", owner)
        return None

    async def list(self, queue: str = "default", limit: int = 100) -> list[Claim]:
        """As `Claims.list`; passing through: []."""
        if self._claims is not None:
            return await self._claims.list(queue, limit)
        check_name("queue", queue)
        check_limit(limit, MOST_LISTED)
        return []

    async def active(self, queue: str = "default") -> int:
        """As `Claims.active`; passing through: 0."""
        if self._claims is not None:
            return await self._claims.active(queue)
        check_name("queue", queue)
        return 0

    async def expired(self, limit: int = 100) -> builtins.list[Claim]:
        """As `Claims.expired`; passing through: []."""
        if self._claims is not None:
            return await self._claims.expired(limit)
        check_limit(limit, MOST_EXPIRED)
        return []

    async def cleanup(self) -> int:
        """As `Claims.cleanup`; passing through: 0."""
        return 0 if self._claims is None else await self._claims.cleanup()

    async def stats(self) -> ClaimStats:
        """As `Claims.stats`; passing through: all 0."""
        return ClaimStats(*[0] * 9) if self._claims is None else await self._claims.stats()

    def hold(
        self,
        key: str,
        lease: Seconds = 30,
        queue: str = "default",
        hold: Seconds = 0,
        owner: str | None = None,
        durability: Durability | None = None,
    ) -> ClaimHandle:
        """As `Claims.hold`; passing through: the block runs, and nothing is claimed."""
        if self._claims is not None:
            return self._claims.hold(key, lease, queue, hold, owner, durability)
        return ClaimHandle(None, key, queue, "nobody" if owner is None else owner, lease, hold, durability=durability)

    def handle(self, claim: Claim, lease: Seconds = 30, hold: Seconds = 0) -> ClaimHandle:
        """As `Claims.handle`; passing through: a handle whose verbs change nothing."""
        if self._claims is not None:
            return self._claims.handle(claim, lease, hold)
        check_claim(claim)
        return ClaimHandle(None, claim.key, claim.queue, claim.owner, lease, hold, claim)
