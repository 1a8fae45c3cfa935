"""Promise 12: nothing spins: with nobody waiting nobody connects, and repeated tries wait longer, up to a bound."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lockbeat import Beat, LeaseLost, Lockbeat
from lockbeat.connection import outage
from lockbeat.errors import StoreError
from tests.conftest import Backend, only, wait_until
from tests.proxy import FAULTS, proxy

pytestmark = only("valkey")

WATCHED = 5.0
"""Seconds for which the store is away."""


def counting(lb: Lockbeat) -> list[float]:
    """When each connection was tried, by whatever part of the client; one that failed, too."""
    connector, tries = lb.store.connector, []
    connect = connector.dedicated_for_key

    async def counted(key: bytes | str, *, timeout: float | None = None) -> Any:
        tries.append(time.monotonic())
        return await connect(key, timeout=timeout)

    connector.dedicated_for_key = counted  # type: ignore[method-assign]
    return tries


@contextlib.asynccontextmanager
async def idle(lb: Lockbeat) -> AsyncIterator[None]:
    yield


@contextlib.asynccontextmanager
async def serving(lb: Lockbeat) -> AsyncIterator[None]:
    beat = Beat(lb, grace=0)

    @beat.every(1)
    async def job() -> None: ...

    @beat.task
    async def task() -> None: ...

    async with beat.lifespan():
        yield


@contextlib.asynccontextmanager
async def waiting(lb: Lockbeat) -> AsyncIterator[None]:
    """For locks that others hold."""
    keys = [f"{lb.owner}-{n}" for n in range(20)]
    await asyncio.gather(*(lb.locks.try_acquire(key, "another", 60) for key in keys))
    waiters = [asyncio.create_task(lb.lock(key, ttl=60).__aenter__()) for key in keys]
    await wait_until(lambda: len(lb.locks._room._waiters) == len(keys), "they wait")
    await lb.store.server_time()
    yield
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)


@contextlib.asynccontextmanager
async def holding(lb: Lockbeat) -> AsyncIterator[None]:
    """Leases of several lengths; all but the longest are lost meanwhile."""

    held = []

    async def hold(ttl: float) -> None:
        with contextlib.suppress(LeaseLost):
            async with lb.lock(f"{lb.owner}-held-{ttl}", ttl=ttl):
                held.append(ttl)
                await asyncio.sleep(60)

    holders = [asyncio.create_task(hold(ttl)) for ttl in (1, 3, 30)]
    await wait_until(lambda: len(held) == len(holders), "they hold")
    yield
    for holder in holders:
        holder.cancel()
    await asyncio.gather(*holders, return_exceptions=True)


@contextlib.asynccontextmanager
async def giving_up(lb: Lockbeat) -> AsyncIterator[None]:
    """One caller, who asks no more once it was told that the store is away."""

    async def ask() -> None:
        with contextlib.suppress(StoreError):
            while True:
                await lb.locks.is_locked("k")
                await asyncio.sleep(0.1)

    caller = asyncio.create_task(ask())
    yield
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)


@contextlib.asynccontextmanager
async def asking(lb: Lockbeat) -> AsyncIterator[None]:
    """As services do: many callers, each of which asks again after a while when it was told that the store is away."""

    async def ask() -> None:
        while True:
            with contextlib.suppress(StoreError):
                await lb.locks.is_locked("k")
            await asyncio.sleep(0.5)

    callers = [asyncio.create_task(ask()) for _ in range(10)]
    yield
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)


MOST = {idle: 0, giving_up: 12, serving: 30, waiting: 20, holding: 40, asking: 20}
"""Connections that may be tried while the store is away: a handful for each part at first, then one a second."""


async def test_a_process_whose_store_is_away_neither_works_nor_connects_all_the_time(
    backend: Backend, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind of process with each kind of trouble, all at once."""
    caplog.set_level(logging.INFO, logger="lockbeat")
    tries: dict[tuple[str, str], list[float]] = {}
    async with contextlib.AsyncExitStack() as stack:
        stores = {fault: await stack.enter_async_context(proxy(backend.servers[0].port)) for fault in FAULTS}
        for fault in FAULTS:
            for doing in MOST:
                lb = await stack.enter_async_context(Lockbeat(stores[fault].url, namespace=namespace))
                await stack.enter_async_context(doing(lb))
                tries[doing.__name__, fault] = counting(lb)
        await asyncio.gather(*(store.become(fault) for fault, store in stores.items()))
        worked, began = time.process_time(), time.monotonic()
        await asyncio.sleep(WATCHED)
        share = (time.process_time() - worked) / (time.monotonic() - began)
        counts = {which: len(times) for which, times in tries.items()}
        log = caplog.text
        await asyncio.gather(*(store.listen() for store in stores.values()))
    limits = {doing.__name__: most for doing, most in MOST.items()}
    assert not {which: count for which, count in counts.items() if count > limits[which[0]]}
    # The goal is 2 % of a core for each; one that spins takes all there is.
    assert share < 0.02 * len(counts), f"{share:.0%} of a core for {len(counts)} clients"
    assert log.count("the store is away") <= len(FAULTS) * (len(MOST) - 1), "one line for each client, none for those that idle"


async def test_the_log_has_one_line_at_the_loss_one_a_minute_and_one_at_the_return(
    backend: Backend, namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else a process does: it serves, waits, and holds leases."""
    caplog.set_level(logging.INFO, logger="lockbeat")

    def said() -> list[str]:
        return [record.message for record in caplog.records if "the store " in record.message]

    async with proxy(backend.servers[0].port) as store, Lockbeat(store.url, namespace=namespace, timeout=1) as lb:
        async with serving(lb), waiting(lb), holding(lb):
            await store.become("refused")
            await wait_until(said, "the loss is noticed")
            tries = counting(lb)
            await wait_until(lambda: len(tries) > 12, "all of its connections have been tried more than once", timeout=30)
            assert len(said()) == 1
            assert "away" in said()[0]
            monkeypatch.setattr(outage, "REMIND", 0.0)
            await wait_until(lambda: len(said()) > 1, "it is said again, a minute later")
            assert "has been away for" in said()[1]
            monkeypatch.setattr(outage, "REMIND", 60.0)
            before = len(said())
            await store.listen()
            await wait_until(lambda: len(said()) > before, "the return is noticed", timeout=30)
            await lb.store.server_time()
            assert len(said()) == before + 1
            assert "the store is back after" in said()[-1]
        assert "can't" not in caplog.text


async def test_a_process_that_only_waits_for_locks_says_that_the_store_is_away_and_back(
    backend: Backend, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It makes no call for up to a minute: its subscription is what fails."""
    caplog.set_level(logging.INFO, logger="lockbeat")
    async with proxy(backend.servers[0].port) as store, Lockbeat(store.url, namespace=namespace, timeout=1) as lb, waiting(lb):
        await store.become("refused")
        await wait_until(lambda: "the store is away" in caplog.text, "the loss is noticed")
        await store.listen()
        await wait_until(lambda: "the store is back after" in caplog.text, "the return is noticed")
        assert caplog.text.count("the store is away") == caplog.text.count("the store is back") == 1


async def test_waiters_that_give_up_before_their_line_is_lost_have_no_line_each_in_the_log(
    backend: Backend, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxy(backend.servers[0].port) as store, Lockbeat(store.url, namespace=namespace) as lb:
        async with waiting(lb):
            line = lb.store.wire(0).line
            assert line is not None
            store.vanish()
            lb.locks._room._on_gap()
            await wait_until(lambda: line.sent, "they ask once more")
        store.cut()
        await wait_until(lambda: not line.sent, "the line is lost")
        await asyncio.sleep(0)
        gc.collect()
    assert "never retrieved" not in caplog.text
