"""The walk: setting jobs right after the store lost something of them, was emptied, or had its clock set back."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lockbeat.jobs.deployed import Deployed
from lockbeat.jobs.known import Known
from lockbeat.jobs.registry import Jobs
from lockbeat.leases.lease import monotonic
from lockbeat.store import Store, results
from lockbeat.store.records import SlotLine

log = logging.getLogger("lockbeat")

WALK = 200
"""Jobs that one run of job/walk looks at."""
WALK_AGAIN = 1.0, 10.0, 600.0
"""Seconds between walks through the jobs of an odd store: its clock was set back; something was lost; the same, at most."""
ORPHANED = 30.0
"""Seconds after which a job without a definition is forgotten: an instance that declares it has had time to say so."""


class Walk:
    """Sets right the jobs of one store, as far as an instance knows them."""

    def __init__(self, store: Store, jobs: Jobs, known: Known, deployed: Deployed) -> None:
        self._store = store
        self._jobs = jobs
        self._known = known
        self._deployed = deployed
        self.epochs: dict[int, int] = {}
        """By shard, as last seen: another one means that it was emptied."""
        self.seen: dict[int, int] = {}
        """By shard, the time when it last answered."""
        self.again: dict[int, tuple[float, float]] = {}
        """By shard, when to walk again at the earliest, and how long to wait then."""
        self._orphans: dict[str, float] = {}

    async def rejoin(self, shard: int) -> None:
        """The store was emptied: declare this program's jobs again."""
        count = len(self._known.declared)
        log.warning("the store was emptied; declaring %d %s again", count, "job" if count == 1 else "jobs")
        self.epochs[shard] = await self._deployed.declare_on(shard, self.seen.get(shard, 0))

    async def through(self, shard: int, odd: int) -> bool:
        """The store's clock was set back (SET_BACK), or something of the jobs was lost (LOST): set right where they stand.

        False: that was done a moment ago.
        """
        not_before, pause = self.again.get(shard, (0.0, 0.0))
        if monotonic() < not_before:
            return False
        first, second, most = WALK_AGAIN
        pause = first if odd == results.SET_BACK else min(max(2 * pause, second), most)
        self.again[shard] = monotonic() + pause, pause
        log.warning(
            "%s: looking through its jobs",
            "the server's clock was set back" if odd == results.SET_BACK else "the store lost keys of jobs",
        )
        there = set[str]()
        async for page in self._store.pages("job/walk", shard, limit=WALK):
            found = [(name.decode(errors="replace"), rev.decode(), slot.decode()) for name, rev, slot in page.jobs]
            there.update(name for name, _, _ in found)
            await self._set_right(shard, page.now_ms, found, odd)
        await self.undefined(
            shard, [name for name in self._known.declared if name not in there and self._jobs.shard_of(name) == shard]
        )
        await self._store.call("job/walk", shard, after="", limit=0)
        await self._deployed.retire(shard)  # one that had may stand again, for all that was known
        return True

    async def _set_right(self, shard: int, now_ms: int, page: Sequence[tuple[str, str, str]], odd: int) -> None:
        back = odd == results.SET_BACK
        asked = {name: slot for name, rev, slot in page if rev and (not slot or (back and SlotLine.of(slot).slot_ms > now_ms))}
        known, undefined = await self._known.of(shard, [(name, f"0 0 {rev}") for name, rev, _ in page if name in asked])
        await self._jobs.stand_again(shard, [(job, asked[name]) for name, job in known.items()], now_ms)
        await self.undefined(shard, [*undefined, *(name for name, rev, _ in page if not rev)])

    def waits(self, shard: int) -> float:
        """Seconds until an odd store is walked through again."""
        return self.again[shard][0] - monotonic()

    async def undefined(self, shard: int, names: Sequence[str]) -> None:
        """The definitions of these jobs were lost. Declare ours again; forget those that nobody declares."""
        mine = [self._known.declared[name] for name in names if name in self._known.declared]
        if mine:
            await self._deployed.declare(mine, self.seen.get(shard, 0))
        for name in names:
            if name not in self._known.declared and monotonic() - self._orphans.setdefault(name, monotonic()) > ORPHANED:
                del self._orphans[name]
                if await self._jobs.delete(name) is False:
                    log.error("the definition of job %r was lost from the store: it is forgotten", name)
