"""Ten thousand held leases, and one round of renewing them all."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import redis.asyncio
from child import OPTIONS, answer

from lockbeat import Lockbeat
from lockbeat.leases.lease import Held, Holder

CALLERS = 64
client = redis.asyncio.from_url(OPTIONS["url"])


class Told(Holder):
    """Notes that a lease was lost."""

    def __init__(self, lost: list[str]) -> None:
        self._lost = lost

    def on_lost(self, reason: str) -> None:
        self._lost.append(reason)


class Watched(Held):
    """Notes when the keeper heard that it is renewed."""

    rounds: dict[float, float]

    def taken(self, asked_at: float, ttl: float | None = None) -> None:
        super().taken(asked_at, ttl)
        self.rounds[asked_at] = time.monotonic()


async def ours() -> None:
    async with Lockbeat(OPTIONS["url"]) as lb:

        async def hold(leases: int, ttl: float, rounds: int) -> dict[str, Any]:
            """Seconds that each round took, from the keeper's turn to the last reply."""
            store, seen = lb.store, dict[float, float]()
            lost: list[str] = []
            Watched.rounds = seen
            keys = [f"lease-{number}" for number in range(leases)]
            asked_at = time.monotonic()
            for start in range(0, leases, 1000):
                await asyncio.gather(*(lb.locks.try_acquire(key, lb.owner, ttl) for key in keys[start : start + 1000]))
            helds = []
            for key in keys:
                row = store.row["lock/renew"](key=key, owner=lb.owner, token="-", ttl_ms=round(ttl * 1000))
                helds.append(Watched(row, store.shard_of(key), ttl, 0.0, Told(lost)))
            # As if all had been taken in one moment, so that they come due in one.
            for held in helds:
                Held.taken(held, asked_at)
            for held in helds:
                lb.keeper.hold(held)

            async def until(count: int) -> int:
                while len(seen) < count and not lost:
                    await asyncio.sleep(0.1)
                await asyncio.sleep(ttl / 8)  # to the end of that round, and not into the next
                stats = await client.info("commandstats")
                return int(stats["cmdstat_evalsha"]["calls"])

            # The first round is cold: the thread starts, connects and loads the script.
            before = await until(1)
            calls = await until(rounds + 1) - before
            for held in helds:
                lb.keeper.drop(held)
            took = [heard - asked for asked, heard in sorted(seen.items())[1 : rounds + 1]]
            alive = len(await lb.locks.list(lb.owner))
            return {"rounds_s": took, "lost": len(lost), "alive": alive, "calls_a_round": calls / rounds}

        await answer(hold=hold)


async def redis_py() -> None:
    async def hold(leases: int, ttl: float, rounds: int) -> dict[str, Any]:
        locks = [client.lock(f"lease-{number}", timeout=ttl) for number in range(leases)]

        async def through(verb: str, *args: Any) -> float:
            left, started = iter(locks), time.monotonic()

            async def caller() -> None:
                for lock in left:
                    await getattr(lock, verb)(*args)

            await asyncio.gather(*(caller() for _ in range(CALLERS)))
            return time.monotonic() - started

        await through("acquire")
        took = [await through("extend", ttl, True) for _ in range(rounds)]
        return {"rounds_s": took, "lost": 0, "alive": leases, "calls_a_round": leases}

    await answer(hold=hold)


asyncio.run({"lockbeat": ours, "redis-py": redis_py}[OPTIONS["contender"]]())
