"""A keeper without a thread: leases are renewed as the test's clock moves, and by nothing else."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from math import inf
from typing import Any, Self

from lockbeat.client import Lockbeat
from lockbeat.errors import StoreError
from lockbeat.leases.keeper import OVERDUE, Keeper
from lockbeat.leases.lease import Held, margin, monotonic
from lockbeat.store import Store
from lockbeat.store.rows import Row
from lockbeat.store.scripts import load
from lockbeat.testing.clock import Clock
from lockbeat.testing.faults import Faults, Line, put_between

TRIES = 3


class SteppedKeeper(Keeper):
    """Trusts each lease for as long as the test's clock says."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store.connector, store.keys, store.timeout)
        self._store, self._clock = store, clock
        self._trusted_ms: dict[Held, float] = {}

    def _start(self) -> None:
        """There is no thread."""

    def hold(self, held: Held) -> None:
        super().hold(held)
        self._trust(held)

    def drop(self, held: Held) -> bool:
        self._trusted_ms.pop(held, None)
        return super().drop(held)

    def _trust(self, held: Held, more_ms: int = 0) -> None:
        held.trusted_until = inf  # by the clock that has not been moved
        self._trusted_ms[held] = self._clock.now_ms + more_ms + (held.ttl - margin(held.ttl)) * 1000

    async def renew(self, more_ms: int = 0) -> None:
        """Renew every lease, so that it lasts for its own time and so much more: the clock is about to be moved by that."""
        due: defaultdict[tuple[str, int], list[Held]] = defaultdict(list)
        for held in self._held:
            due[held.row.script, held.shard].append(held)
        for (script, shard), several in due.items():
            most = load(script).most
            for start in range(0, len(several), most):
                await self._ask(several[start : start + most], shard, more_ms)
        if due:
            await turns()  # whoever is told is told in the loop's next turn

    async def _ask(self, asked: list[Held], shard: int, more_ms: int) -> None:
        for _ in range(TRIES):  # a reply may be lost
            asking = self._store.submit_many([_for_longer(held.row, more_ms) for held in asked], shard)
            await asyncio.wait((asking,))
            if not isinstance(asking.exception(), StoreError):
                break
        self._renewed(asked, monotonic(), asking)
        for held in asked:
            if held in self._held:
                self._trust(held, more_ms)

    async def give_up_overdue(self) -> None:
        """The clock was moved, and nothing could be renewed: what can't be trusted any more is lost."""
        for held in [held for held, until_ms in self._trusted_ms.items() if until_ms <= self._clock.now_ms]:
            self._trusted_ms.pop(held)
            self._lost(held, OVERDUE)
        await turns()


async def turns(times: int = 3) -> None:
    """Let what is ready in the event loop run."""
    for _ in range(times):
        await asyncio.sleep(0)


def _for_longer(row: Row, more_ms: int) -> Row:
    argv = load(row.script).argv
    place = argv.index("ttl_ms" if "ttl_ms" in argv else "lease_ms")
    longer: Row = type(row)((*row[:place], int(row[place]) + more_ms, *row[place + 1 :]))
    return longer


class Client(Lockbeat):
    """A client of a test's store."""

    line: Line

    def __init__(self, url: str, clock: Clock, faults: Faults, **options: Any) -> None:
        super().__init__(url, **options)
        self._clock, self._faults = clock, faults

    def _new_keeper(self, store: Store) -> Keeper:
        return SteppedKeeper(store, self._clock)

    @property
    def keeping(self) -> SteppedKeeper:
        """Its keeper."""
        assert isinstance(self.keeper, SteppedKeeper)
        return self.keeper

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.line = put_between(self, self._faults)
        return self
