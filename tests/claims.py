"""For the tests of claims."""

from __future__ import annotations

import asyncio
from typing import Any

from lockbeat import Busy, Claim, Done, Lockbeat

SHORT = 0.02  # seconds: a lease that ends within the test


async def acquired(claims: Any, key: str, owner: str = "alice", lease: Any = 30, queue: str = "default") -> Claim:
    """The claim; AssertionError when somebody else is at it."""
    answer: Claim | Busy | Done = await claims.acquire(key, owner, lease, queue)
    assert isinstance(answer, Claim), answer
    assert answer
    return answer


async def ran_out(lb: Lockbeat, *keys: str, queue: str = "default") -> None:
    """Wait until these claims have run out, by the server's clock."""
    async with asyncio.timeout(30):
        for key in keys:
            while await lb.claims.is_claimed(key, queue):
                await asyncio.sleep(0.002)


async def left_behind(lb: Lockbeat, key: str, owner: str = "alice", queue: str = "default") -> Claim:
    """A claim whose owner has let it run out."""
    claim = await acquired(lb.claims, key, owner, SHORT, queue)
    await ran_out(lb, key, queue=queue)
    return claim
