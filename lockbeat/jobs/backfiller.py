"""Carries backfills on. Every instance that schedules has one; a backfill is gone on with by one of them at a time.

What it has done and where it stands is in the store. An instance takes a backfill for some seconds, and again with each step;
when it dies, another takes it. Two that go on with the same one do no harm: `backfill/step` compares where it stands.
"""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from typing import Any, NamedTuple, NoReturn

from lockbeat.calendars import Copies
from lockbeat.connection.outage import REMIND
from lockbeat.errors import LockbeatError, StoreUnavailable
from lockbeat.jobs.backfill import Era, stretch
from lockbeat.jobs.standing import Standing, standings
from lockbeat.leases.lease import monotonic
from lockbeat.store import Store, messages, results
from lockbeat.store.records import BackfillLine
from lockbeat.store.wakeup import Wakeup, at_most

log = logging.getLogger("lockbeat")

TAKEN = 10
"""Backfills that one instance takes on at a time."""
HIDE_MS = 3000
"""If the instance dies that goes on with a backfill, another does after this time."""
LOOK_AGAIN = 180.0
"""Seconds. Backfills are looked for this often though nobody rang."""
SLOTS = 100
"""That one run of backfill/step looks at; keeps it under 5 ms."""
AT_ONCE = 100
"""So many slots of a backfill are under way at a time, where overlap is `allow`."""
MOST_WHY = 200
"""Bytes of a backfill's reason that each of its slots keeps."""
ROUNDS = 20
"""Steps of one backfill before the others have their turn."""


class _Known(NamedTuple):
    """A backfill, and its job, as last seen."""

    standing: Standing
    line: BackfillLine
    eras: list[Era]


class _Mine:
    """What this instance goes on with on a shard."""

    def __init__(self) -> None:
        self.wakeup = Wakeup()
        self.look = -math.inf  # when to ask for backfills that nobody goes on with
        self.next: dict[str, float] = {}  # when to go on with a job's
        self.waits: dict[str, str] = {}  # a task whose end is awaited -> the job
        self.early = deque[str](maxlen=TAKEN)  # tasks that ended before we were told that they are to be awaited

    def ring(self) -> None:
        self.look = -math.inf
        self.wakeup.ring()

    def ended(self, message: messages.Ended) -> None:
        if (job := self.waits.pop(message.task_id, None)) is not None:
            self.next[job] = -math.inf
            self.wakeup.ring()
        else:
            self.early.append(message.task_id)

    def drop(self, job: str) -> None:
        self.next.pop(job, None)
        self.waits = {task_id: of for task_id, of in self.waits.items() if of != job}


class Backfiller:
    """Goes on with the backfills of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mine = [_Mine() for _ in range(store.shards)]
        self._known: dict[str, _Known] = {}
        self.looks_ms: dict[int, int] = {}
        """When there is a backfill of a shard to be gone on with, by the server's clock and as last seen; 0: there is none."""
        self._calendars = Copies(store)
        self._told: dict[str, float] = {}  # when the log was told of one that can't be gone on with

    async def serve(self, shard: int) -> NoReturn:
        """Go on with the backfills of a shard, until cancelled. Losing the store ends nothing."""
        mine, store = self._mine[shard], self._store
        unlisten = [
            store.listen({messages.Backfilling: lambda _: mine.ring()}, mine.ring, bell=shard),
            store.listen({messages.Ended: mine.ended}, mine.ring),
        ]
        try:
            await mine.wakeup.serve(
                store.connector,
                lambda: self.tick(shard),
                doing="backfilling",
                blocked="can't go on with backfills",
                look=LOOK_AGAIN,
            )
        finally:
            for end in unlisten:
                end()

    async def tick(self, shard: int) -> float | None:
        """One turn. Returns in how many seconds to look again; None: when told to. Raises StoreError."""
        mine = self._mine[shard]
        if monotonic() >= mine.look or self._store.connector.kind == "memory":
            now_ms, next_ms, jobs = await self._store.call("backfill/take", shard, limit=TAKEN, hide_ms=HIDE_MS)
            self.looks_ms[shard] = next_ms
            mine.look = monotonic() + ((next_ms - now_ms) / 1000 if next_ms else LOOK_AGAIN)
            if len(jobs) == TAKEN:
                mine.look = -math.inf
            mine.next |= {name.decode(): -math.inf for name in jobs}
        for name in [name for name, when in mine.next.items() if when <= monotonic()]:
            await self._go_on(shard, name)
        return at_most(max(mine.look - monotonic(), 0), max(min(mine.next.values(), default=math.inf) - monotonic(), 0))

    async def _go_on(self, shard: int, name: str) -> None:
        """Some steps of one backfill; and when the next is to be made."""
        mine = self._mine[shard]
        mine.next[name] = -math.inf
        try:
            overtaken = False
            for _ in range(ROUNDS):
                if name not in self._known and not await self._read(shard, name):
                    return mine.drop(name)
                reply = await self._step(shard, name)
                if reply.said == results.UNKNOWN or (reply.said == results.TOO_LATE and overtaken):
                    self._known.pop(name, None)
                    return mine.drop(name)  # another goes on with it
                overtaken = reply.said == results.TOO_LATE
                if overtaken:
                    self._calendars.forget(shard, self._known.pop(name).standing.job.exclude)
                    continue
                self._known[name] = self._known[name]._replace(line=BackfillLine.of(reply.line))
                if not reply.look_ms:
                    self._known.pop(name)
                    return mine.drop(name)
                if reply.waits and (waits := reply.waits.decode()) in mine.early:
                    mine.early.remove(waits)
                    continue
                if reply.waits:
                    mine.waits[waits] = name
                if reply.look_ms > reply.now_ms:
                    mine.next[name] = monotonic() + (reply.look_ms - reply.now_ms) / 1000
                    return None
        except StoreUnavailable:
            raise
        except (LockbeatError, ValueError) as problem:  # of this one; it must not stop the others
            self._known.pop(name, None)
            mine.drop(name)
            if monotonic() >= self._told.get(name, -math.inf) + REMIND:
                self._told[name] = monotonic()
                log.warning("the backfill of job %r does not go on here: %s", name, problem)

    async def _read(self, shard: int, name: str) -> bool:
        """Read a backfill and its job; whether there are both."""
        standing = (await standings(self._store, shard, [name])).get(name)
        if standing is not None and not isinstance(standing, Standing):
            raise standing
        line = (await self._store.call("backfill/get", shard, job=name)).line
        if standing is None or not line:
            return False
        changes = (await self._store.call("job/changes", shard, job=name)).changes.decode("latin-1")
        self._known[name] = _Known(standing, BackfillLine.of(line), Era.several(name, changes))
        return True

    async def _step(self, shard: int, name: str) -> Any:
        standing, line, eras = self._known[name]
        job = standing.job
        view = None
        if job.exclude:
            await self._calendars.read(shard, job.exclude)
            view = self._calendars.view(shard, job.exclude, job.trigger.timezone)
        items, before_ms, following_ms = stretch(
            job, line.at_ms, line.to_ms if line.state == "running" else 0, SLOTS, view.closed if view else None, eras
        )
        return await self._store.call(
            "backfill/step",
            shard,
            job=name,
            id=line.id,
            at=line.at_ms,
            rev=standing.rev,
            slots="\n".join(items),
            before=before_ms,
            following=following_ms,
            calendars=view.words if view else "",
            record=job.backfilled,
            overlap=job.overlap,
            most=AT_ONCE,
            keep=job.keeps,
            limit=job.limit or 0,
            owner=self._store.owner,
            channel=self._store.channel,
            hide_ms=HIDE_MS,
            row=job.pause_after or 0,
            said=said_of(line),
        )


def said_of(line: BackfillLine) -> str:
    """What each of its slots' tasks keeps of a backfill: who began it, and why."""
    why = line.why.encode()[:MOST_WHY].decode(errors="ignore")
    return "\x1e".join(re.sub("[\x1e\x1f]", " ", word) for word in (line.by, why))
