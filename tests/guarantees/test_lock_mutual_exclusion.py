"""Promise 1: at any server instant at most one owner holds a key."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
from pathlib import Path

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import LockTimeout
from tests.conftest import Backend, Connect, only


async def test_an_unprotected_counter_loses_no_increment(connect: Connect) -> None:
    counter = {"a": 0, "b": 0}
    inside: set[str] = set()

    async def increment(client: Lockbeat, name: str, times: int) -> None:
        for _ in range(times):
            async with client.lock(name, ttl=10):
                assert name not in inside
                inside.add(name)
                seen = counter[name]
                for _ in range(random.randrange(3)):
                    await asyncio.sleep(0)
                counter[name] = seen + 1
                inside.discard(name)

    async with connect() as one, connect() as two, connect() as three:
        clients = [one, two, three]
        await asyncio.gather(*(increment(clients[n % 3], "ab"[n % 2], 10) for n in range(18)))
    assert counter == {"a": 90, "b": 90}


async def test_a_mix_of_waiting_trying_and_giving_up_never_puts_two_inside(connect: Connect) -> None:
    inside = 0
    entries = 0

    async def visit(client: Lockbeat, dice: random.Random) -> None:
        nonlocal inside, entries
        for _ in range(12):
            try:
                async with client.lock("k", ttl=5, wait=dice.choice([None, 0, 0.005, 0.05])):
                    inside += 1
                    entries += 1
                    assert inside == 1
                    await asyncio.sleep(dice.choice([0, 0, 0.001]))
                    inside -= 1
            except LockTimeout:
                await asyncio.sleep(0)

    async with connect() as one, connect() as two:
        await asyncio.gather(*(visit((one, two)[n % 2], random.Random(n)) for n in range(12)))
        assert entries > 12
        assert not await one.locks.is_locked("k")


COUNTER = """
import asyncio, sys
from pathlib import Path
from lockbeat import Lockbeat

async def main():
    url, namespace, shards, place, times = sys.argv[1:]
    counter = Path(place)
    async with Lockbeat(url, namespace=namespace, shards=int(shards)) as lb:
        for _ in range(int(times)):
            async with lb.lock("counter", ttl=10):
                seen = int(counter.read_text())
                await asyncio.sleep(0)
                counter.write_text(str(seen + 1))

asyncio.run(main())
"""


@only("valkey", "cluster")
def test_processes_that_share_a_file_lose_no_increment(backend: Backend, namespace: str, tmp_path: Path) -> None:
    place = tmp_path / "counter"
    place.write_text("0")
    arguments = [backend.url, namespace, str(backend.shards), str(place), "40"]
    running = [subprocess.Popen([sys.executable, "-c", COUNTER, *arguments]) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert place.read_text() == "120"


@pytest.fixture
def dice() -> random.Random:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


async def test_leases_that_expire_under_their_holders_never_overlap(lb: Lockbeat, connect: Connect, dice: random.Random) -> None:
    """A fence is the server's time of the grant, in µs: no grant comes before the lease ahead of it was over."""
    history: list[tuple[int, float]] = []  # fence, and a time at which the lease surely still stood

    async def rival(client: Lockbeat, owner: str) -> None:
        while len(history) <= 30:  # grants, not tries: on a busy machine most tries find it held
            ttl = dice.choice([0.002, 0.005, 0.02])
            lease = await client.locks.try_acquire("k", owner, ttl)
            if lease is None:
                await asyncio.sleep(dice.random() * 0.004)
                continue
            until = lease.expires_at
            if dice.random() < 0.5:
                now = await client.store.server_time()
                if await client.locks.release("k", owner):
                    until = min(now, until)
            else:
                await asyncio.sleep(ttl)
            history.append((lease.fence, until))

    async with connect() as other:
        await asyncio.gather(*(rival((lb, other)[n % 2], f"o{n}") for n in range(6)))
    history.sort()
    for (fence, until), (after, _) in itertools.pairwise(history):
        assert after > fence
        assert after / 1e6 >= until - 1e-6
