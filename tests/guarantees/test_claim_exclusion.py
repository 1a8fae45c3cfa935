"""Promise 1: at any moment at most one owner is at a unit of work, however many come upon it."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

from lockbeat import Busy, Claim, Done, Lockbeat
from tests.conftest import Connect


async def test_of_many_workers_on_the_same_units_each_unit_is_done_by_one(lb: Lockbeat, connect: Connect) -> None:
    """Some work, some fail, some give it back, some die and let it run out."""
    units = [f"unit {n}" for n in range(24)]
    at_it: dict[str, str] = {}
    begun: dict[str, list[Claim]] = defaultdict(list)
    done: dict[str, list[Claim]] = defaultdict(list)
    dice = random.Random(5)

    async def work(client: Lockbeat, owner: str, key: str) -> bool:
        answer = await client.claims.acquire(key, owner, lease=30)
        if isinstance(answer, (Busy, Done)):
            return isinstance(answer, Done)
        assert key not in at_it, f"{owner} got what {at_it[key]} was at"
        at_it[key] = owner
        begun[key].append(answer)
        await asyncio.sleep(dice.random() * 0.01)
        fate = dice.random()
        del at_it[key]
        if fate < 0.2:
            assert await client.claims.fail(answer, "boo")
        elif fate < 0.4:
            assert await client.claims.release(answer)
        elif fate < 0.6:
            assert await client.claims.renew(answer, 0.01)
        else:
            done[key].append(answer)
            assert await client.claims.complete(answer, owner, hold=60)
            return True
        return False

    async def worker(client: Lockbeat, owner: str) -> None:
        left = set(units)
        while left:
            for key in dice.sample(sorted(left), len(left)):
                if await work(client, owner, key):
                    left.discard(key)

    async with connect() as other, asyncio.timeout(30), asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(worker(lb, f"a{n}"))
            group.create_task(worker(other, f"b{n}"))

    assert {key: len(claims) for key, claims in done.items()} == dict.fromkeys(units, 1)
    for key in units:
        fences = [claim.fence for claim in begun[key]]
        assert fences == sorted(set(fences))
    stats = await lb.claims.stats()
    assert stats.attempts == stats.acquired + stats.contended + stats.took_over
    assert stats.acquired + stats.took_over == sum(map(len, begun.values()))
    assert stats.acquired + stats.took_over == stats.completed + stats.failed + stats.released + stats.expired
