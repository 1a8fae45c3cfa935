"""Three workers come upon the same twelve orders. Each order is done once, also the ones of the worker that dies in the middle.

python claims.py
"""

import asyncio

from lockbeat import ClaimBusy, ClaimDone, Lockbeat

ORDERS = [f"order {n}" for n in range(12)]
done: dict[str, list[str]] = {order: [] for order in ORDERS}


async def worker(lb: Lockbeat, name: str) -> None:
    """Looks for orders that nobody has done until there are none."""
    while True:
        left = False
        for order in ORDERS:
            try:
                async with lb.claims.hold(order, lease=5, hold=3600, owner=name) as claim:
                    await asyncio.sleep(0.01)
                    done[order].append(name)
                    claim.result = f"shipped by {name}"
                    if claim.outcome == "took_over":
                        print(f"{order}: begun by {claim.previous_owner}, who died, and done by another")
            except ClaimBusy:
                left = True
            except ClaimDone:
                pass
        if not left:
            return
        await asyncio.sleep(0.1)


async def main() -> None:
    async with Lockbeat() as lb:
        # A worker that dies says nothing: what it had claimed runs out.
        await lb.claims.acquire("order 3", "mortal", lease=1)
        async with asyncio.TaskGroup() as group:
            for name in ("ann", "bea", "cleo"):
                group.create_task(worker(lb, name))
        stats = await lb.claims.stats()
        print(f"{sum(map(len, done.values()))} orders done, {stats.completed} completed, {stats.took_over} taken over")


asyncio.run(main())
