"""Jobs as the store has them: definitions and next slots."""

from __future__ import annotations

import asyncio
import builtins
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from lockbeat.calendars import read_view
from lockbeat.jobs import around
from lockbeat.jobs.around import Upcoming
from lockbeat.jobs.control import who
from lockbeat.jobs.declaring import Declaring
from lockbeat.jobs.failing import Failing
from lockbeat.jobs.listing import State, Wanted
from lockbeat.jobs.several import SeveralJobs
from lockbeat.jobs.state import JobState
from lockbeat.jobs.state import states as states_of
from lockbeat.triggers import Called, upcoming
from lockbeat.values.checks import whole
from lockbeat.values.names import check_name

DELETED = 100
"""Entries of a ledger that one run of job/delete forgets, with their tasks; keeps it under 5 ms."""
NAMES = 200  # that one run of job/get takes


class Jobs(Failing, Declaring):
    """The jobs of a store."""

    async def get(self, name: str) -> JobState:
        """A job, and where it stands (`job/get`). Raises UnknownJob."""
        check_name("name", name)
        states = await states_of(self._store, self.shard_of(name), [name], strict=True)
        if not states:
            raise self._unknown(name)
        return states[0]

    async def get_many(self, names: Iterable[str]) -> dict[str, JobState]:
        """Several jobs by their names (`job/get`). One that is unknown is left out; so is one that can't be read, and the log
        says so."""
        by_shard = defaultdict[int, builtins.list[str]](builtins.list)
        for name in names:
            by_shard[self.shard_of(check_name("names", name))].append(name)
        found = await asyncio.gather(*(states_of(self._store, shard, some) for shard, some in by_shard.items()))
        return {state.job.name: state for states in found for state in states}

    async def list(
        self,
        tag: str | None = None,
        *,
        origin: str | None = None,
        state: State | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> builtins.list[JobState]:
        """Jobs in order of name (`job/list`, in pages).

        tag, origin, state: only those that have the tag, are of that origin, stand so. A tag, and an origin other than "code", is
            found in an index; a state by looking at all of the others, some thousands at a time.
        after: only names behind this one, such as the last that the call before returned; the job itself may be gone.
        limit: at most so many; None: all.

        Raises: InvalidArgument and InvalidType.
        """
        wanted, found, batch = Wanted.of(tag, origin, state), list[JobState](), list[tuple[bytes, int]]()
        begin = b"" if after is None else check_name("after", after).encode()
        most = whole("limit", limit, 1, 1_000_000) if limit is not None else math.inf
        names = wanted.names(self._store, begin, int(min(NAMES, most)))
        async for name in names:
            batch.append(name)
            if len(batch) == min(NAMES, most - len(found)):
                found += await self._those(batch, wanted)
                batch = []
            if len(found) == most:
                break
        return found + await self._those(batch, wanted)

    async def _those(self, batch: Sequence[tuple[bytes, int]], wanted: Wanted) -> builtins.list[JobState]:
        """Those of them that are wanted, in order of name."""
        by_shard = defaultdict[int, builtins.list[str]](builtins.list)
        for name, shard in batch:
            by_shard[shard].append(name.decode(errors="replace"))
        several = await asyncio.gather(*(states_of(self._store, shard, names) for shard, names in by_shard.items()))
        found = (state for states in several for state in states if wanted.takes(state))
        return sorted(found, key=lambda state: state.job.name)

    def all(self, *, tag: str | None = None, queue: str | None = None) -> SeveralJobs:
        """Several jobs at once: `await lb.jobs.all(tag="billing").pause()`. Without tag and queue: every job."""
        for argument, name in (("tag", tag), ("queue", queue)):
            if name is not None:
                check_name(argument, name)
        return SeveralJobs(self, tag, queue)

    async def next(self, name: str, n: int = 5) -> builtins.list[datetime]:
        """The next `n` slots of a job that are to be fired, before jitter. Raises UnknownJob."""
        return [coming.slot for coming in await self.upcoming(name, n) if not coming.calendar]

    async def upcoming(self, name: str, n: int = 5) -> builtins.list[Upcoming]:
        """The same, and of each day before the last of them that a calendar excludes the first slot, and which calendar. Raises
        UnknownJob."""
        whole("n", n, 1, 10_000)
        state = await self.get(name)
        job = state.job
        if isinstance(job.trigger, Called) and job.trigger.slots is not None:
            now_ms = await self._store.server_ms(self.shard_of(name))
            return [Upcoming(slot_ms) for slot_ms in upcoming(job.trigger.slots, now_ms, n)]
        if state.next is None:
            return []
        if job.limit is not None:
            n = min(n, job.limit - state.counts.fired)
        view = await read_view(self._store, self.shard_of(name), job.exclude, job.trigger.timezone)
        found = list[Upcoming]()
        for coming in around.upcoming(job, state.next.slot_ms, view.closed):
            if n <= 0:
                break
            found.append(coming)
            n -= not coming.calendar
        return found

    async def delete(self, name: str, *, by: str | None = None) -> bool:
        """Forget a job, its ledger, and its tasks that wait; whether there was one (`job/delete`).

        A task of it that runs goes on. An instance that declares the job in code declares it again when it starts.

        by: who did it; None: the user of the operating system. `changes` has the last fifty jobs of a shard that were deleted.
        """
        check_name("name", name)
        told_by = who(by)
        existed, more, call = False, 1, self._store.new_call()
        while more:
            gone, more = await self._store.call("job/delete", self.shard_of(name), job=name, limit=DELETED, call=call, by=told_by)
            existed = existed or bool(gone)
        return existed
