"""Orders come in over the web, one of them twice; the card company does not always answer, and one address does not exist.

python examples/tasks.py

An order that is posted again finds the task that it has, by its idempotency key. A charge that fails is tried again, and what it
returns can be asked for. A parcel that can't be delivered ends among the dead, and is sent again once somebody has mended it.
"""

import asyncio

from lockbeat import Beat, Fixed, Lockbeat, Run
from lockbeat.tasks import TaskInfo

beat = Beat()
addresses = {"A-1": "1 Elm Road", "A-2": "2 Oak Road", "A-3": "?"}


@beat.task(retry=Fixed(0.2), timeout=10)
async def charge(run: Run) -> dict[str, str | int]:
    """An attempt can be cut short when the card was charged and nobody knows yet: so the card company is to be given a key, too,
    the same one in each attempt, such as `run.task_id`. And the next function is spawned under a key.
    """
    if run.params["order"] == "A-2" and run.attempt == 1:
        raise ConnectionError("the card company does not answer")
    parcel = await beat.spawn(ship, run.params, idempotency_key=f"ship {run.params['order']}")
    return {"cents": run.params["cents"], "attempt": run.attempt, "parcel": parcel.task_id}


@beat.task(queue="shipping", max_attempts=2, retry=None)
def ship(run: Run) -> str:
    """A plain function runs in a thread."""
    address = addresses[run.params["order"]]
    if address == "?":
        raise ValueError("no such address")
    return f"sent to {address}"


async def post(order: str, cents: int) -> str:
    """What a web handler does: spawns, and answers at once."""
    spawned = await beat.spawn(charge, {"order": order, "cents": cents}, idempotency_key=f"charge {order}")
    print(f"POST {order}: {'accepted' if spawned.created else 'is known'}")
    return spawned.task_id


async def ended(lb: Lockbeat, task_id: str) -> TaskInfo:
    while True:
        info = await lb.tasks.get(task_id)
        if info.ended_at is not None:
            return info
        await asyncio.sleep(0.05)


async def main() -> None:
    async with Lockbeat() as lb, beat.lifespan():
        orders = [await post(order, 100 * n) for n, order in enumerate(addresses, 1)]
        assert await post("A-1", 100) == orders[0]
        for order, task_id in zip(addresses, orders, strict=True):
            charged = (await ended(lb, task_id)).result
            print(f"{order}: {charged['cents']} cents, in attempt {charged['attempt']}")
            parcel = await ended(lb, charged["parcel"])
            print(f"{order}: {parcel.result or parcel.state}")

        [parcel] = await lb.tasks.dead("shipping")
        assert parcel.failure is not None
        print(f"dead after {parcel.attempts} attempts: {parcel.params['order']}, {parcel.failure.message}")
        addresses["A-3"] = "3 Ash Road"
        await lb.tasks.retry(parcel.id)
        print(f"{parcel.params['order']}: {(await ended(lb, parcel.id)).result}")


if __name__ == "__main__":
    asyncio.run(main())
