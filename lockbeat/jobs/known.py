"""What an instance knows of definitions: those that its program declares, and of the others the latest that it was handed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from lockbeat.jobs.definition import Job
from lockbeat.jobs.standing import Standing, standings
from lockbeat.jobs.told import Told
from lockbeat.store import Store

log = logging.getLogger("lockbeat")

MOST_READ = 10_000
"""Definitions that an instance remembers beside those that its program declares: some 20 MB. Others are read again."""


class Known:
    """`declared`: the jobs of this program, by name. Others are read from the store when they come due."""

    def __init__(self, store: Store, declared: Mapping[str, Job]) -> None:
        self.declared = declared
        self._store = store
        self._read: dict[str, tuple[str, Job]] = {}
        self._told = Told()

    async def of(self, shard: int, pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, Job], list[str]]:
        """The jobs as the store has them: the slots were reckoned by that definition, whatever the code here says.

        pairs: name, and what `job:slot` says. Returns also those that have no definition.
        """
        known, strange = {}, []
        for name, place in pairs:
            rev = "".join(place.split(" ")[2:3])  # a slot that can't be read has none
            declared = self.declared.get(name)
            if declared is not None and declared.rev == rev:
                known[name] = declared
                continue
            read = self._read.get(name)
            if read is not None and read[0] == rev:
                known[name] = read[1]
            else:
                strange.append(name)
        if not strange:
            return known, []
        found = await standings(self._store, shard, strange)
        for name, standing in found.items():
            if isinstance(standing, Standing):
                self._read.pop(name, None)  # the newest stands last
                self._read[name] = standing.rev, standing.job
                known[name] = standing.job
            elif self._told.may(name):
                log.warning("job %r is left to newer instances: %s", name, standing)
        while len(self._read) > MOST_READ:
            del self._read[next(iter(self._read))]
        return known, [name for name in strange if name not in found]
