"""Locks: each contender as `pair(key)`, one acquire and release, and where it waits as `hold(key)`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import redis.asyncio
from child import OPTIONS, answer
from pottery import AIORedlock

from lockbeat import Lockbeat

Pair = Callable[[], Awaitable[Any]]
TTL = 10
RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


class Contender:
    """`pair(key)`: something that takes a key and gives it back, made before the clock starts."""

    def __init__(self, client: redis.asyncio.Redis, lb: Lockbeat | None) -> None:
        self.client = client
        self.lb = lb

    def pair(self, key: str) -> Pair:
        raise NotImplementedError

    def hold(self, key: str) -> AbstractAsyncContextManager[Any]:
        """Waits as long as it takes."""
        raise NotImplementedError


class Pings(Contender):
    def pair(self, key: str) -> Pair:
        ping = self.client.ping

        async def pair() -> None:
            await ping()
            await ping()

        return pair


class Raw(Contender):
    def pair(self, key: str) -> Pair:
        client, release, token = self.client, self.client.register_script(RELEASE), f"token-{key}"

        async def pair() -> None:
            assert await client.set(key, token, nx=True, px=TTL * 1000)
            assert await release(keys=[key], args=[token])

        return pair


class RedisPy(Contender):
    def pair(self, key: str) -> Pair:
        lock = self.client.lock(key, timeout=TTL)

        async def pair() -> None:
            assert await lock.acquire(blocking=False)
            await lock.release()

        return pair

    def hold(self, key: str) -> AbstractAsyncContextManager[Any]:
        return self.client.lock(key, timeout=30)


class Pottery(Contender):
    def pair(self, key: str) -> Pair:
        lock = AIORedlock(key=key, masters={self.client}, auto_release_time=TTL)

        async def pair() -> None:
            assert await lock.acquire(blocking=False)
            await lock.release()

        return pair

    def hold(self, key: str) -> AbstractAsyncContextManager[Any]:
        return AIORedlock(key=key, masters={self.client}, auto_release_time=30)


class WirePings(Contender):
    def pair(self, key: str) -> Pair:
        assert self.lb is not None
        wire = self.lb.store.wire(0)

        async def pair() -> None:
            await wire.command("PING")
            await wire.command("PING")

        return pair


class Backend(Contender):
    def pair(self, key: str) -> Pair:
        assert self.lb is not None
        locks, owner = self.lb.locks, self.lb.owner

        async def pair() -> None:
            assert await locks.try_acquire(key, owner, TTL)
            assert await locks.release(key, owner)

        return pair


class Handle(Contender):
    def pair(self, key: str) -> Pair:
        assert self.lb is not None
        lock = self.lb.lock(key, ttl=TTL, wait=0)

        async def pair() -> None:
            async with lock:
                pass

        return pair

    def hold(self, key: str) -> AbstractAsyncContextManager[Any]:
        assert self.lb is not None
        return self.lb.lock(key, ttl=30)


CONTENDERS: dict[str, type[Contender]] = {
    "pings": Pings,
    "raw": Raw,
    "redis-py": RedisPy,
    "pottery": Pottery,
    "lockbeat pings": WirePings,
    "lockbeat locks": Backend,
    "lockbeat handle": Handle,
}


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Contender]:
    kind = CONTENDERS[OPTIONS["contender"]]
    client = redis.asyncio.from_url(OPTIONS["url"])
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        ours = OPTIONS["contender"].startswith("lockbeat")
        lb = await stack.enter_async_context(Lockbeat(OPTIONS["url"])) if ours else None
        yield kind(client, lb)


async def main() -> None:
    async with opened() as contender:
        # Its default socket timeout would end a long BLPOP.
        turn = redis.asyncio.from_url(OPTIONS["url"], socket_timeout=None)

        async def pairs(callers: int, seconds: float) -> float:
            """Pairs a second by so many callers, each on its own key."""

            async def caller(pair: Pair) -> int:
                count = 0
                while time.perf_counter() < deadline:
                    await pair()
                    count += 1
                return count

            several = [contender.pair(f"key-{number}") for number in range(callers)]
            await asyncio.gather(*(pair() for pair in several))
            started = time.perf_counter()
            deadline = started + seconds
            counts = await asyncio.gather(*(caller(pair) for pair in several))
            return sum(counts) / (time.perf_counter() - started)

        async def turns(count: int, first: bool, me: str, other: str, key: str) -> list[tuple[float, float]]:
            """Hold the lock `count` times, in turn with another process; when it was acquired, and when released."""
            held = []
            for number in range(count):
                if number or not first:
                    await turn.blpop([f"turn {me} {key}"], timeout=0)
                async with contender.hold(key):
                    acquired = time.monotonic()
                    await turn.rpush(f"turn {other} {key}", 1)  # the other begins to wait now
                    await asyncio.sleep(random.uniform(0.03, 0.08))
                    released = time.monotonic()
                held.append((acquired, released))
            return held

        async def crowd(waiters: int, settle: float, key: str) -> dict[str, Any]:
            """Hold the lock while others queue for it in order; the reply to `crowd` comes before it is given back."""
            passed: list[int] = []
            holding = contender.hold(key)
            await holding.__aenter__()

            async def waiter(number: int) -> None:
                async with contender.hold(key):
                    passed.append(number)

            tasks = []
            for number in range(waiters):
                tasks.append(asyncio.create_task(waiter(number)))
                await asyncio.sleep(0.01)
            await asyncio.sleep(settle)

            async def let_go() -> dict[str, Any]:
                started = time.monotonic()
                await holding.__aexit__(None, None, None)
                await asyncio.gather(*tasks)
                took = time.monotonic() - started
                wrong = sum(passed[a] > passed[b] for a in range(waiters) for b in range(a + 1, waiters))
                return {"seconds": took, "inversions": wrong}

            crowd_of.append(let_go)
            return {"waiting": waiters - len(passed)}

        async def disperse() -> dict[str, Any]:
            return await crowd_of.pop()()

        async def take(key: str) -> float:
            """Wait for the lock; when it was acquired. `give` gives it back."""
            holding = contender.hold(key)
            await holding.__aenter__()
            taken.append(holding)
            return time.monotonic()

        async def give() -> float:
            at = time.monotonic()
            await taken.pop().__aexit__(None, None, None)
            return at

        crowd_of: list[Callable[[], Awaitable[dict[str, Any]]]] = []
        taken: list[AbstractAsyncContextManager[Any]] = []
        await answer(pairs=pairs, turns=turns, crowd=crowd, disperse=disperse, take=take, give=give)


asyncio.run(main())
