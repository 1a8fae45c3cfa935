"""Heads of jobs: which definition each has, and who declared it. Enough to tell which jobs of many differ."""

from __future__ import annotations

from typing import NamedTuple

from lockbeat.store import Store

PAGE = 500
"""Jobs that one run of job/heads looks at; keeps it under 5 ms."""


class Head(NamedTuple):
    """What the store says of a job besides its definition."""

    rev: str
    origin: str | None
    """None: a version declared it that did not say so."""
    version: str | None
    """Of the code that declared it, by id; None: nobody said it."""
    is_retired: bool


async def heads(store: Store) -> dict[str, Head]:
    """The heads of all jobs by name (`job/heads`)."""

    async def of_shard(shard: int) -> dict[str, Head]:
        found = dict[str, Head]()
        async for page in store.pages("job/heads", shard, limit=PAGE):
            for name, rev, origin, version, retired in page.heads:
                head = Head(rev.decode(), origin.decode() or None, version.decode() or None, bool(retired))
                found[name.decode(errors="replace")] = head
        return found

    all_of_them = dict[str, Head]()
    for found in await store.on_every_shard(of_shard):
        all_of_them |= found
    return all_of_them
