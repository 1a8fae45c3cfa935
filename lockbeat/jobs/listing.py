"""Listing: which jobs are asked for, and their names in order over all shards, a page at a time."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple, get_args

from lockbeat.jobs.options import CODE, check_origin
from lockbeat.jobs.state import JobState, Stands
from lockbeat.store import Store
from lockbeat.values.checks import one_of
from lockbeat.values.names import check_name

State = Literal[Stands, "open", "failing"]
"""How a job stands; `open`: a task of it has not ended (of overlap `allow` nobody knows); `failing`: the last of its tasks that
succeeded or failed was lost or failed."""


def as_indexed(tag: str | None) -> str:
    """A tag as definitions and `job:tag` have it; empty: none."""
    return "" if tag is None else json.dumps(tag)[1:-1]


class Wanted(NamedTuple):
    """Which jobs are asked for; None: whatever they are."""

    tag: str | None
    origin: str | None
    state: State | None

    @classmethod
    def of(cls, tag: str | None, origin: str | None, state: State | None) -> Wanted:
        """Raises InvalidArgument and InvalidType."""
        if tag is not None:
            check_name("tag", tag)
        if origin is not None:
            check_origin("origin", origin)
        if state is not None:
            one_of("state", state, get_args(State))
        return cls(tag, origin, state)

    def takes(self, found: JobState) -> bool:
        """Whether a job is one of them that a script found: it looks for texts, and not where they stand."""
        return (
            self.tag in (None, *found.job.tags)
            and self.origin in (None, found.job.origin)
            and (self.state == found.state or self.state not in get_args(Stands))
        )

    async def names(self, store: Store, after: bytes, page: int) -> AsyncIterator[tuple[bytes, int]]:
        """The names and shards of those that may be wanted, in order (`job/list`), `page` asked for at a time."""
        texts = [f'"origin":{json.dumps(self.origin)}'] if self.origin is not None else []
        indexed = self.origin if self.origin not in (None, CODE) else ""
        buffers = [deque[bytes]() for _ in range(store.shards)]
        cursors = dict.fromkeys(range(store.shards), after)

        async def refill(shard: int) -> None:
            while not buffers[shard] and shard in cursors:
                reply = await store.call(
                    "job/list",
                    shard,
                    after=cursors[shard],
                    limit=page,
                    texts=texts,
                    state=self.state or "",
                    origin=indexed,
                    tag=as_indexed(self.tag),
                )
                buffers[shard].extend(reply.jobs)
                cursors[shard] = reply.cursor
                if not reply.cursor:
                    del cursors[shard]

        while True:
            await asyncio.gather(*(refill(shard) for shard in [*cursors] if not buffers[shard]))
            if not any(buffers):
                return
            first = min((buffer[0], shard) for shard, buffer in enumerate(buffers) if buffer)
            buffers[first[1]].popleft()
            yield first
