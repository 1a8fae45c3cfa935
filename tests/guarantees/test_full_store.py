"""A full store (maxmemory reached, noeviction): what is held stays held and can be ended; what is new is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.claims import Claim
from lockbeat.errors import StoreError, StoreUnavailable
from lockbeat.tasks import Task
from lockbeat.worker import Run
from tests.beats import Beats, eventually, minutely
from tests.conftest import Backend, Connect, only, wait_until
from tests.tasks import begun

pytestmark = only("valkey", "redis")
Fill = Callable[[], None]


@pytest.fixture
def fill(backend: Backend) -> Iterator[Fill]:
    """Lets the server's memory be full from then on, to the end of the test."""

    def fill() -> None:
        for server in backend.servers:
            assert server.call("CONFIG", "GET", "maxmemory-policy") == ["maxmemory-policy", "noeviction"]
            server.call("CONFIG", "SET", "maxmemory", "1")

    yield fill
    for server in backend.servers:
        server.call("CONFIG", "SET", "maxmemory", "0")


@dataclass
class Before:
    """What was held when the memory became full."""

    task: Task
    claim: Claim


Verb = Callable[[Lockbeat, Before], Awaitable[Any]]

PASSES: dict[str, Verb] = {
    "locks.renew": lambda lb, _: lb.locks.renew("k", "alice", 60),
    "locks.release": lambda lb, _: lb.locks.release("k", "alice"),
    "locks.release_all": lambda lb, _: lb.locks.release_all("alice"),
    "locks.owner": lambda lb, _: lb.locks.owner("k"),
    "locks.list": lambda lb, _: lb.locks.list(),
    "claims.renew": lambda lb, held: lb.claims.renew(held.claim, 60),
    "claims.complete": lambda lb, held: lb.claims.complete(held.claim, "result", hold=60),
    "claims.fail": lambda lb, held: lb.claims.fail(held.claim, "broken"),
    "claims.release": lambda lb, held: lb.claims.release(held.claim),
    "claims.release_all": lambda lb, _: lb.claims.release_all("alice"),
    "claims.cleanup": lambda lb, _: swept(lb),
    "claims.list": lambda lb, _: lb.claims.list(),
    "tasks.heartbeat": lambda lb, held: lb.tasks.heartbeat(held.task, 60),
    "tasks.complete": lambda lb, held: lb.tasks.complete(held.task, "result"),
    "tasks.fail": lambda lb, held: lb.tasks.fail(held.task, "broken"),
    "tasks.defer": lambda lb, held: lb.tasks.defer(held.task, 5),
    "tasks.release": lambda lb, held: lb.tasks.release(held.task, begun=True),
    "tasks.release_all": lambda lb, _: lb.tasks.release_all("alice"),
    "tasks.cancel": lambda lb, held: lb.tasks.cancel(held.task.id),
    "tasks.claim": lambda lb, _: lb.tasks.claim("default", "bob"),
    "tasks.purge": lambda lb, _: lb.tasks.purge("ended"),
    "jobs.pause": lambda lb, _: lb.jobs.pause("report"),
    "jobs.skip_next": lambda lb, _: lb.jobs.skip_next("report"),
    "jobs.delete": lambda lb, _: lb.jobs.delete("report"),
    "calendars.delete": lambda lb, _: lb.calendars.delete("holidays"),
    "calendars.get": lambda lb, _: lb.calendars.get("holidays"),
    "tasks.get": lambda lb, held: lb.tasks.get(held.task.id),
    "tasks.list": lambda lb, _: lb.tasks.list(),
}
REFUSED: dict[str, Verb] = {
    "locks.try_acquire": lambda lb, _: lb.locks.try_acquire("other", "alice", 30),
    "lock": lambda lb, _: lb.lock("other").__aenter__(),
    "claims.acquire": lambda lb, _: lb.claims.acquire("other", "alice", 30),
    "tasks.spawn": lambda lb, _: lb.tasks.spawn("job"),
    "jobs.put": lambda lb, _: lb.jobs.put(minutely("another")),
    "jobs.apply": lambda lb, _: lb.jobs.apply([minutely("another")], origin="billing"),
    "jobs.trigger": lambda lb, _: lb.jobs.trigger("paused"),
    "jobs.resume": lambda lb, _: lb.jobs.resume("paused"),
    "calendars.put": lambda lb, _: lb.calendars.put("other", ["2030-12-25"]),
    "fenced.set": lambda lb, held: lb.fenced.set("name", "value", fence=held.task.fence),
}


async def swept(lb: Lockbeat) -> bool:
    await lb.claims.cleanup()
    return True


@pytest.mark.parametrize("verb", [*PASSES, *REFUSED])
async def test_in_a_full_store_what_is_held_is_kept_or_ended_and_nothing_new_is_begun(
    lb: Lockbeat, fill: Fill, verb: str
) -> None:
    ended = await begun(lb, queue="ended")
    assert await lb.tasks.complete(ended)
    assert await lb.locks.try_acquire("k", "alice", 30)
    claim = await lb.claims.acquire("c", "alice", 30)
    assert isinstance(claim, Claim)
    held = Before(await begun(lb), claim)
    await lb.tasks.spawn("waiting")
    await lb.jobs.put(minutely(), minutely("paused"))
    assert await lb.jobs.pause("paused")
    await lb.calendars.put("holidays", ["2030-12-25"])
    fill()
    if verb in PASSES:
        assert await PASSES[verb](lb, held)
        return
    with pytest.raises(StoreError, match="OOM") as refused:
        await REFUSED[verb](lb, held)
    assert not isinstance(refused.value, StoreUnavailable), "repeating it at once is no use"
    assert await lb.locks.owner("other") is None
    assert not await lb.claims.is_claimed("other")
    assert len(await lb.tasks.list(state="waiting")) == 1
    assert (await lb.jobs.get("paused")).paused
    assert [calendar.name for calendar in await lb.calendars.list()] == ["holidays"]


async def test_in_a_full_store_the_keeper_goes_on_renewing(
    lb: Lockbeat, connect: Connect, beats: Beats, backend: Backend, fill: Fill
) -> None:
    beat, let_go = beats(), asyncio.Event()

    @beat.task
    async def job(run: Run) -> None:
        await let_go.wait()

    async def ends() -> list[float | None]:
        """When each lease ends, as the store has it."""
        [running] = await lb.tasks.list(state="running")
        claim = await lb.claims.is_claimed("c")
        [lock] = [lease for lease in await lb.locks.list() if lease.key == "k"]
        return [running.expires_at, claim.expires_at if claim else None, lock.expires_at]

    async with beat.lifespan(), lb.lock("k", ttl=60) as lease, lb.claims.hold("c", lease=60):
        spawned = await lb.tasks.spawn("job")
        await eventually(lambda: lb.tasks.list(state="running"), "it runs")
        before = await ends()
        fill()

        async def renewed() -> bool:
            for client in (lb, beat._client):
                assert client is not None
                for held in list(client.keeper._held):
                    held.renew_at = 0.0
                client.keeper._rouse()
            return all(
                now is not None and then is not None and now > then for now, then in zip(await ends(), before, strict=True)
            )

        await eventually(renewed, "every lease ends later than before")
        let_go.set()
        await eventually(lambda: ended(lb, spawned.task_id), "the task ended")
        assert (await lb.locks.owner("k")) == lease.owner
    assert not await lb.locks.is_locked("k")


async def test_in_a_full_store_a_lock_is_handed_to_who_waited_before(
    lb: Lockbeat, raw: Any, connect: Connect, fill: Fill
) -> None:
    async with connect() as other:
        held = await lb.locks.try_acquire("k", "alice", 300)
        assert held is not None
        waiting = [
            asyncio.create_task(other.lock("k", ttl=60).__aenter__()),
            asyncio.create_task(lb.lock("k", ttl=60).__aenter__()),
        ]
        queue = lb.store.keys.key(0, "lock:queue")
        await wait_until(lambda: raw.zcard(queue) == 2, "both wait")
        fill()
        assert await lb.locks.release("k", "alice")
        [first], _ = await asyncio.wait(waiting, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        lease = await first
        assert lease.fence > held.fence
        assert lease.expires_at > await lb.store.server_time() + 30, "for its whole ttl"
        assert await lb.locks.release("k", lease.owner)
        [second] = set(waiting) - {first}
        assert (await asyncio.wait_for(second, 30)).fence > lease.fence


async def ended(lb: Lockbeat, task_id: str) -> bool:
    return (await lb.tasks.get(task_id)).state == "done"
