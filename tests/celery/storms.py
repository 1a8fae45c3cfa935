"""The harm that is done to beats while they send: killed one after the other, and the broker away for a while."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from tests.celery.arena import LOCKBEAT, Arena, Verdict, judge
from tests.conftest import PATIENCE
from tests.proxy import proxy

BEATS = 3


def now_ms(field: Arena) -> int:
    """The store's time."""
    with field.store.client() as client:
        seconds, micros = client.time()
        return int(seconds) * 1000 + int(micros) // 1000


async def storm(
    field: Arena,
    *,
    entries: int,
    seconds: float,
    kill_every: float,
    away: float,
    scheduler: str = LOCKBEAT,
    beats: int = BEATS,
) -> tuple[int, int]:
    """Beats, of which one is killed and replaced every `kill_every` seconds; the broker is away half-way. First and last slot."""
    loop = asyncio.get_running_loop()
    env = {"ENTRIES": str(entries)}
    async with proxy(field.broker.port) as way:
        field.broker_url = way.url
        worker = asyncio.to_thread(field.worker, **env)
        running = [field.beat(scheduler, **env) for _ in range(beats)]
        await worker
        await asyncio.to_thread(field.wait_ran, partial(_each, entries), "each entry")
        began, first_ms = loop.time(), await asyncio.to_thread(now_ms, field)
        next_kill, gone_at, back_at = kill_every, seconds / 2, 0.0
        while (passed := loop.time() - began) < seconds:
            if passed >= next_kill:
                next_kill += kill_every
                await asyncio.to_thread(running.pop(0).kill)
                running.append(field.beat(scheduler, **env))
            if gone_at and passed >= gone_at:
                gone_at, back_at = 0.0, passed + away
                await way.become("refused")
            if back_at and passed >= back_at:
                back_at = 0.0
                await way.listen()
            await asyncio.sleep(0.05)
        if back_at:
            await way.listen()
        last_ms = await asyncio.to_thread(now_ms, field)
        if scheduler == LOCKBEAT:
            await settled(field, entries, first_ms, last_ms)
        for each in running:
            await asyncio.to_thread(each.kill)
        return first_ms, last_ms


def _each(entries: int, ran: list[dict[str, Any]]) -> bool:
    return len({line["what"] for line in ran}) == entries


async def settled(field: Arena, entries: int, first_ms: int, last_ms: int, patience: float = 2 * PATIENCE) -> Verdict:
    """The verdict when every slot has run, or has its word in the ledger; what it is if that does not come about."""
    loop, names = asyncio.get_running_loop(), [f"entry-{number}" for number in range(entries)]
    until = loop.time() + patience
    while True:
        verdict = await asyncio.to_thread(judge, field, names, 1000, first_ms, last_ms)
        if not verdict.lost or loop.time() > until:
            return replace(verdict, lost=verdict.lost[:20])
        await asyncio.sleep(0.5)
