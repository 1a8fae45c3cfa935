"""An instance that answers probes while its beat stands still says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from lockbeat import Beat
from lockbeat.health.watch import Watch
from tests.beats import Beats
from tests.conftest import only, wait_until
from tests.proxy import Proxy, calls_of


@contextlib.asynccontextmanager
async def served(beat: Beat, lossy: Proxy | None = None) -> AsyncIterator[None]:
    """Serve it, and look after it; a store that hangs answers again at the end."""
    with Watch(beat.health):
        task = asyncio.create_task(beat.serve())
        try:
            await wait_until(lambda: beat.health.started().ok or task.done(), "it serves")
            yield
        finally:
            if lossy is not None:
                lossy.recover()
                lossy.go_on()
            task.cancel()
            await asyncio.wait([task])
    assert not beat.health.live().ok


@only("valkey")
async def test_a_reply_of_the_store_that_hangs_for_ever_makes_it_not_live(beats: Beats, lossy: Proxy) -> None:
    """With a timeout that is no bound: nothing else ends the wait for the reply, and the event loop turns all the while."""
    beat = beats(url=lossy.url, timeout=3600)
    beat.every(0.1, name="tick")(lambda: None)
    beat.health.limit = 2
    async with served(beat, lossy):
        await wait_until(lambda: beat.health.live().ok, "it is live")
        lossy.delay_reply(calls_of("beat/due"))
        await wait_until(lambda: "firing has not turned for" in "; ".join(beat.health.live().problems), "it is not live", 60)
        lossy.go_on()
        await wait_until(lambda: beat.health.live().ok, "it is live again", 60)


@only("memory", "valkey")
async def test_an_instance_without_a_free_place_is_live(beats: Beats) -> None:
    """Its worker's turn lasts as long as what runs, and that is no standstill."""
    beat, go_on, begun = beats(concurrency=1), asyncio.Event(), asyncio.Event()

    async def long() -> None:
        begun.set()
        await go_on.wait()

    beat.task(long)
    async with served(beat):
        await beat.spawn(long)
        await beat.spawn(long)
        async with asyncio.timeout(60):
            await begun.wait()
        worker = next(sign for sign in beat.health._serves.signs() if sign.doing == "claiming")
        loop = asyncio.get_running_loop()
        await wait_until(lambda: worker.turns.late(loop.time()) > 1, "it waits for a place for long", 60)
        beat.health.limit = 0.5
        assert [problem for problem in beat.health.live().problems if "claiming" in problem] == []
        go_on.set()
