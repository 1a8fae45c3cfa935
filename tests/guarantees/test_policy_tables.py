"""What a job's policies make of its slots, slot by slot: over a clock that is moved, and on a real server in real seconds."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from datetime import UTC, datetime

import pytest
import time_machine

from lockbeat import Lockbeat
from tests.conftest import Connect, only
from tests.policies import moment, table
from tests.tables.clocks import CLOCKS, START
from tests.tables.crossed import CROSSED
from tests.tables.people import PEOPLE
from tests.tables.single import LONGER, PLAYS

ALL = {name: (START, 1.0, *one) for name, one in (PLAYS | LONGER | CROSSED | PEOPLE).items()} | CLOCKS
SHORT = PLAYS | {name: one for name, one in (CROSSED | PEOPLE).items() if one[0].in_real_seconds}


@only("memory")
@pytest.mark.parametrize("name", ALL)
async def test_what_becomes_of_each_slot(lb: Lockbeat, name: str) -> None:
    start, unit, play, expected = ALL[name]
    with time_machine.travel(start, tick=False) as clock:

        async def move(now: float) -> None:
            clock.move_to(moment(start, unit, now))

        assert await play.play(lb, "job", start, unit, move) == table(expected)


def first_of(line: str) -> int:
    """The first slot that a line tells of."""
    return int(re.split("[:-]", line, maxsplit=1)[0])


def became(text: str, last: int) -> list[str]:
    """What became of each slot up to the last, and why; when it ran is the machine's affair, and so is what came due later."""
    lines = [re.sub(r"( \d+-\d*)+$", "", line) for line in table(text).splitlines()]
    return [line for line in lines if first_of(line) <= last]


@only("valkey")
async def test_the_same_in_real_seconds(connect: Connect, namespace: str) -> None:
    """All beside each other, each in a namespace, with an instance and a worker. What is compared lies five units apart."""
    unit, mine = 0.3, asyncio.get_running_loop().time
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(namespace=f"{namespace}-{number}")) for number in range(len(SHORT))]
        ahead = await clients[0].store.server_time() - mine()
        start = datetime.fromtimestamp(round(mine() + ahead) + 1, UTC)

        async def move(now: float) -> None:
            await asyncio.sleep(moment(start, unit, now).timestamp() - ahead - mine())

        plays = [dataclasses.replace(play) for play, _ in SHORT.values()]
        playing = (play.play(lb, "job", start, unit, move) for lb, play in zip(clients, plays, strict=True))
        found = dict(zip(SHORT, await asyncio.gather(*playing), strict=True))
    for name, (_, expected) in SHORT.items():
        last = first_of(table(expected).splitlines()[-1])
        assert became(found[name], last) == became(expected, last), name
