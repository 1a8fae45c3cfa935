"""How a loop goes on when the store does not, and what the log says of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from lockbeat.connection import outage
from lockbeat.errors import StoreError
from lockbeat.store.wakeup import Wakeup


async def turn(outcomes: Iterator[bool]) -> None:
    """Take a turn for each of the outcomes; False: it fails."""
    over = asyncio.Event()

    async def tick() -> float | None:
        match next(outcomes, None):
            case None:
                over.set()
                return None
            case False:
                raise StoreError("an entry can't be read")
        return 0.0

    loop = asyncio.create_task(
        Wakeup().keep_turning(tick, doing="firing", blocked="can't ask", longest_pause=0.001, look=None, told=lambda: False)
    )
    await over.wait()
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def test_a_loop_of_which_every_other_turn_fails_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="lockbeat")
    monkeypatch.setattr(outage, "STEADY", 3600.0)
    monkeypatch.setattr(Wakeup, "wait", _at_once)
    await turn(number % 2 == 0 for number in range(50))
    assert [record.message for record in caplog.records] == ["can't ask: an entry can't be read"]


async def test_a_loop_that_goes_on_failing_says_so_again_after_a_while_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="lockbeat")
    monkeypatch.setattr(outage, "REMIND", 0.0)
    monkeypatch.setattr(outage, "STEADY", 0.0)
    monkeypatch.setattr(Wakeup, "wait", _at_once)
    await turn(iter([False, False, True, True]))
    assert [record.message for record in caplog.records] == ["can't ask: an entry can't be read"] * 2 + ["firing again"]


async def _at_once(self: Wakeup, seconds: float | None) -> bool:
    await asyncio.sleep(0)
    return False
