"""What an instance does about the version of its code: says it, declares its jobs by it, lets those retire that left the code."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from lockbeat.jobs.definition import Job
from lockbeat.jobs.registry import Jobs
from lockbeat.jobs.version import Version
from lockbeat.store import Store

log = logging.getLogger("lockbeat")

PAGE = 100
"""Jobs that one run of job/retire looks at."""
INDEXED = 500
"""Jobs that one run of job/tags enters; keeps it under 5 ms."""
NAMED = 10
"""Jobs that the log names."""
MOST_BEFORE = 8
"""Versions that one shard is told of another."""


class Deployed:
    """A program of this version, with these jobs in its code. `version` None: nobody asks which of its jobs is the newer."""

    def __init__(self, store: Store, jobs: Jobs, declared: Mapping[str, Job], version: Version | None) -> None:
        self.declared = declared
        self._store = store
        self._jobs = jobs
        self._version = version
        self._first_ms = 0
        self._again: dict[int, int] = {}
        self._met = set[int]()  # shards that have been told of this instance
        self._before = list[str]()

    @property
    def said(self) -> str:
        """The version as `beat/heartbeat` takes it."""
        return self._version.said(self._first_ms, self._before) if self._version else ""

    async def declare(self, jobs: Iterable[Job], since_ms: int = 0) -> dict[int, int]:
        """Declare jobs of the program; the epoch of each shard that was written to. `since_ms`: as for `Jobs.put`."""
        return await self._jobs.declare(jobs, since_ms, self.said)

    async def declare_on(self, shard: int, since_ms: int = 0) -> int:
        """Declare those of a shard; its epoch, 0: there are none."""
        mine = [job for job in self.declared.values() if self._jobs.shard_of(job.name) == shard]
        return (await self.declare(mine, since_ms)).get(shard, 0)

    async def heard(self, shard: int, reply: Any, epoch: int, acts: bool) -> None:
        """What a sign of life has learned (`beat/heartbeat`). epoch: of the shard, as last seen. acts: this instance schedules.

        It declares its jobs again when the version that had taken them over has gone, or when the store has lost something of
        the versions; and it looks for jobs that are to retire. Not before it has declared its own, which nobody may have declared
        for days: their slots were missed, not retired.
        """
        new = shard not in self._met
        self._met.add(shard)
        if self._version is not None:
            self._first_ms = self._first_ms or reply.first_ms
            if self._store.shards > 1 and reply.before:
                self._before = [*dict.fromkeys([*reply.before.decode().split(","), *self._before])][:MOST_BEFORE]
            before = self._again.setdefault(shard, reply.again)  # the first one comes before the jobs are declared
            if acts and reply.again != before:
                if reply.epoch == epoch:  # else the scheduler does it, and tells the ledger
                    await self.declare_on(shard)
                self._again[shard] = reply.again
        if acts and reply.walk and not new:
            await self.retire(shard)
        if acts and reply.tags:
            await self.index_tags(shard)

    async def index_tags(self, shard: int) -> None:
        """Make the index of tags anew, which does not know all jobs (`job/tags`)."""
        async for page in self._store.pages("job/tags", shard, limit=INDEXED):
            if page.done:
                log.info("the index of tags was made anew")

    async def retire(self, shard: int) -> None:
        """Let those jobs retire that have left the code (`job/retire`)."""
        retired = list[str]()
        async for page in self._store.pages("job/retire", shard, limit=PAGE, by=self._store.owner):
            retired += [name.decode(errors="replace") for name in page.jobs]
        if retired:
            some, rest = ", ".join(map(repr, retired[:NAMED])), f" and {len(retired) - NAMED} more" * (len(retired) > NAMED)
            log.warning("retired, as no instance that lives declares them: %s%s", some, rest)
