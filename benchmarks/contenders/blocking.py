"""Locks of blocking clients: each contender as `pair(key)`, one acquire and release, by so many threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from child import OPTIONS, answer_from_thread, say
from pottery import Redlock

kept = contextlib.ExitStack()
Pair = Callable[[], Any]
TTL = 10


def redis_py(url: str) -> Callable[[str], Pair]:
    client = redis.Redis.from_url(url)

    def made(key: str) -> Pair:
        lock = client.lock(key, timeout=TTL)

        def pair() -> None:
            assert lock.acquire(blocking=False)
            lock.release()

        return pair

    return made


def pings(url: str) -> Callable[[str], Pair]:
    client = redis.Redis.from_url(url)
    return lambda _: lambda: (client.ping(), client.ping())


def pottery(url: str) -> Callable[[str], Pair]:
    client = redis.Redis.from_url(url)

    def made(key: str) -> Pair:
        lock = Redlock(key=key, masters={client}, auto_release_time=TTL)

        def pair() -> None:
            assert lock.acquire(blocking=False)
            lock.release()

        return pair

    return made


def verbs(url: str) -> Callable[[str], Pair]:
    from lockbeat.sync import Lockbeat

    lb = Lockbeat(url)
    owner = lb.owner

    def made(key: str) -> Pair:
        def pair() -> None:
            assert lb.locks.try_acquire(key, owner, TTL)
            assert lb.locks.release(key, owner)

        return pair

    return made


def handle(url: str) -> Callable[[str], Pair]:
    from lockbeat.sync import Lockbeat

    lb = Lockbeat(url).open()

    def made(key: str) -> Pair:
        lock = lb.lock(key, ttl=TTL, wait=0)

        def pair() -> None:
            with lock:
                pass

        return pair

    return made


def portal(url: str) -> Callable[[str], Pair]:
    """anyio's, around the asynchronous client: what it would cost."""
    from anyio.from_thread import start_blocking_portal

    from lockbeat import Lockbeat

    lb = Lockbeat(url)
    ours = kept.enter_context(start_blocking_portal())
    kept.enter_context(ours.wrap_async_context_manager(lb))
    owner = lb.owner

    def made(key: str) -> Pair:
        def pair() -> None:
            assert ours.call(lb.locks.try_acquire, key, owner, TTL)
            assert ours.call(lb.locks.release, key, owner)

        return pair

    return made


CONTENDERS = {
    "pings": pings,
    "redis-py": redis_py,
    "pottery": pottery,
    "anyio's portal": portal,
    "lockbeat locks": verbs,
    "lockbeat handle": handle,
}
made = CONTENDERS[OPTIONS["contender"]](OPTIONS["url"])


def pairs(callers: int, seconds: float) -> float:
    """Pairs a second by so many threads, each on its own key."""
    several = [made(f"key-{number}") for number in range(callers)]
    counts, gate = [0] * callers, threading.Barrier(callers + 1)
    deadline = 0.0

    def caller(number: int, pair: Pair) -> None:
        pair()
        gate.wait()
        gate.wait()
        count = 0
        while time.perf_counter() < deadline:
            pair()
            count += 1
        counts[number] = count

    threads = [threading.Thread(target=caller, args=both) for both in enumerate(several)]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    deadline = started + seconds
    gate.wait()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


answer_from_thread(pairs=pairs)
say("ready")
threading.Event().wait()
