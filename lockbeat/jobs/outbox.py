"""Events that anybody's call may decide: the store keeps them, and one instance that listens tells its hooks.

Those of a job are told in order, by one instance at a time. An event is forgotten when its hooks have returned; one whose
instance dies first is told by another, after a while.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, Final

import anyio

from lockbeat.errors import StoreError
from lockbeat.events import (
    Event,
    Hook,
    Hooks,
    JobPaused,
    RunCancelled,
    RunDone,
    RunLost,
    SlotFired,
    SlotMissed,
    SlotSkipped,
    TaskDead,
)
from lockbeat.leases.lease import monotonic
from lockbeat.store import Store, messages, reasons
from lockbeat.store.keys import job_of_task
from lockbeat.store.wakeup import LOOK_IN_MEMORY, Wakeup, at_most
from lockbeat.values.durations import instant

log = logging.getLogger("lockbeat")

LEASE_MS = 30_000
"""An event whose instance has died is told by another after this time."""
KEEP = 10.0
"""Seconds after which events that are still being told are kept."""
MOST = 100
"""Events that an instance tells at a time, of a shard."""
LOOK = 20.0
"""Seconds. Events are looked for this often though nobody rang."""
DRAIN = 1.0
"""Seconds that a shutdown waits for hooks to return, so that what they were told is not told again."""

Consumer = Callable[[Event, str], Awaitable[None]]
"""Is told an event, and its id: the same event has the same, also when it is told again."""

WORDS: Final = {
    "missed": "slot_missed",
    "skipped": "slot_skipped",
    "lost": "run_lost",
    "dead": "task_dead",
    "paused": "job_paused",
}
"""The hook of each word that scripts keep events under. See `scripts_lua/_lib/events.lua`."""
FOR_CONSUMERS: Final = ("fired", "done", "cancelled", *WORDS)
"""The hooks of the first two are told by the instance whose call it was, the third has none: for hooks none is kept."""


class Outbox:
    """Tells the hooks of one program, and `consumers`, which see every event, those of a job in order."""

    def __init__(self, store: Store, consumers: Iterable[Consumer] = ()) -> None:
        self._store = store
        self._consumers = list(consumers)
        self._shards = [_Shard() for _ in range(store.shards)]

    @property
    def words(self) -> list[str]:
        """What it listens for."""
        hooks: Hooks = self._store.events
        return [*FOR_CONSUMERS] if self._consumers else [word for word, hook in WORDS.items() if getattr(hooks, hook).heard]

    @property
    def busy(self) -> bool:
        """Whether anything is being told."""
        return any(mine.tasks for mine in self._shards)

    async def register(self) -> None:
        """Say for what it listens, so that nothing is lost from now on. Raises StoreError."""
        if self.words:
            await self._store.on_every_shard(lambda shard: self._take(shard, 0))

    async def serve(self, shard: int) -> None:
        """Tell what happens on a shard, until cancelled. Losing the store ends nothing."""
        mine, store = self._shards[shard], self._store
        unlisten = store.listen({messages.Happened: lambda _: mine.wakeup.ring()}, mine.wakeup.ring, bell=shard)
        try:
            await mine.wakeup.keep_turning(
                lambda: self.tick(shard),
                doing="telling events",
                blocked="can't ask what has happened",
                longest_pause=5.0,
                look=LOOK_IN_MEMORY if store.connector.kind == "memory" else LOOK,
                told=lambda: store.connector.outage.away,
            )
        finally:
            unlisten()
            with anyio.CancelScope(shield=True):
                await mine.drain()

    async def tick(self, shard: int) -> float | None:
        """One turn. Returns in how many seconds to look again; None: when told to. Raises StoreError."""
        if not self.words:
            return None
        mine = self._shards[shard]
        room = max(MOST - len(mine.telling), 0)
        next_in = await self._take(shard, room)
        if mine.told:
            return 0
        # Without room it is told when there is some.
        return at_most(next_in if room else None, KEEP if mine.telling else None)

    async def _take(self, shard: int, limit: int) -> float | None:
        mine, asked_at = self._shards[shard], monotonic()
        told, mine.told = mine.told, []
        keeps = [] if asked_at < mine.keep_at else [at + event_id for event_id, at in mine.telling.items()]
        try:
            reply = await self._store.call(
                "event/take", shard, words=self.words, told=told, keeps=keeps, limit=limit, lease_ms=LEASE_MS
            )
        except BaseException:
            mine.told += told
            raise
        if keeps or not mine.telling:
            mine.keep_at = asked_at + KEEP
            kept_from = f"{reply.now_ms + LEASE_MS:015d}"
            mine.telling.update({event_id: kept_from for event_id in mine.telling if mine.telling[event_id] + event_id in keeps})
        if reply.dropped:
            self._store.events.dropped += reply.dropped
            log.warning("%d events were dropped: nobody had told them for an hour, or there were too many", reply.dropped)
        chains: dict[str, list[_Taken]] = defaultdict(list)
        for row in sorted(reply.events, key=lambda row: row[15:43]):
            taken = _Taken(row)
            being_told = taken.id in mine.telling
            mine.telling[taken.id] = taken.at
            if being_told:
                continue  # its lease had ended meanwhile, as the reply to what was to keep it was lost
            chains[taken.job or taken.id].append(taken)
        for chain in chains.values():
            task = self._store.loop.create_task(self._tell(mine, shard, chain), name="lockbeat events")
            mine.tasks.add(task)
            task.add_done_callback(mine.tasks.discard)
        return (reply.next_ms - reply.now_ms) / 1000 if reply.next_ms else None

    async def _tell(self, mine: _Shard, shard: int, chain: list[_Taken]) -> None:
        """Tell events of one job, one after the other."""
        for taken in chain:
            try:
                event = _event(taken)
            except Exception:
                log.exception("an event can't be read: %r", taken.text)
                event = None
            if event is None:
                mine.forget(taken)
            else:
                await self._tell_one(mine, shard, taken, event)
        mine.wakeup.ring()

    async def _tell_one(self, mine: _Shard, shard: int, taken: _Taken, event: Event) -> None:
        hook: Hook[Any] | None = getattr(self._store.events, WORDS[taken.word]) if taken.word in WORDS else None
        loop, returned = self._store.loop, asyncio.Event()
        if hook is not None and hook.heard:
            hook.tell(event, lambda: _in(loop, returned.set))
        else:
            returned.set()
        for consumer in self._consumers:
            try:
                await consumer(event, f"{shard}-{taken.id}")
            except Exception:
                log.exception("an event could not be told")
        try:
            await returned.wait()
        finally:  # the hooks have been told also if a shutdown does not wait for them
            mine.forget(taken)

    async def aclose(self) -> None:
        """Have what was told forgotten, so that nobody tells it again. Bounded in time."""
        with anyio.move_on_after(DRAIN):
            for shard, mine in enumerate(self._shards):
                if mine.told:
                    try:
                        await self._take(shard, 0)
                    except StoreError as problem:
                        log.debug("could not say which events were told: %s", problem)


class _Shard:
    """What this instance tells of one."""

    def __init__(self) -> None:
        self.wakeup = Wakeup()
        self.tasks: set[asyncio.Task[None]] = set()
        self.telling: dict[str, str] = {}  # ID -> FROM
        self.told: list[str] = []
        self.keep_at = 0.0

    def forget(self, taken: _Taken) -> None:
        """It was told."""
        self.told.append(self.telling.pop(taken.id) + taken.id)

    async def drain(self) -> None:
        """Let what is being told be told, for a moment."""
        if self.tasks:
            _, left = await asyncio.wait(self.tasks, timeout=DRAIN)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)


class _Taken:
    """An event as `event/take` hands it out."""

    def __init__(self, row: bytes) -> None:
        self.at, self.id = row[:15].decode(), row[15:43].decode()
        job, _, text = row[43:].partition(b"\xfe")
        self.job = job.decode()
        word, _, fields = text.partition(b" ")
        self.word = word.decode()
        self.text = fields

    @property
    def happened(self) -> datetime:
        return instant(int(self.id[:13]))


def _event(taken: _Taken) -> Event | None:
    """None: it is told to nobody."""
    fields = [*map(str, json.loads(taken.text))]
    if taken.word == "paused":
        by, why, until = fields
        return JobPaused(taken.job, by, why, instant(int(until)) if int(until) else None, taken.happened)
    task_id, *rest = fields
    job = job_of_task(task_id)
    slot_ms = int(task_id.rpartition("@")[2]) if job and task_id.startswith(f"{job}@") else None
    slot = None if slot_ms is None else instant(slot_ms)
    if taken.word == "lost":
        text, attempt, fence, owner, code, most = rest
        again, reason = int(attempt) < int(most), reasons.sentence(code)
        return RunLost(task_id, _name(text), job, slot, int(attempt), int(fence), owner, code, reason, again, taken.happened)
    if taken.word == "dead":
        text, attempts, code, detail = rest
        return TaskDead(task_id, _name(text), job, slot, int(attempts), code, _sentence(code, detail), taken.happened)
    if taken.word == "done":
        text, attempt, fence, began_ms, ended_ms = rest
        took = max(int(ended_ms) - int(began_ms), 0) / 1000
        return (
            None if "backfill" in json.loads(text) else RunDone(task_id, _name(text), job, slot, int(attempt), int(fence), took)
        )
    if taken.word == "cancelled":
        code, detail, _ = rest
        return RunCancelled(task_id, job, slot, code, _sentence(code, detail), taken.happened)
    assert slot is not None
    assert slot_ms is not None
    if taken.word == "fired":
        return SlotFired(job, slot, task_id, taken.happened.timestamp() - slot_ms / 1000)
    code, detail, several = rest
    said = json.loads(several) if several else {"last": slot_ms, "count": 1}
    last, count = instant(said["last"]), said["count"] if said["count"] > 0 else None
    kind = SlotMissed if taken.word == "missed" else SlotSkipped
    return kind(job, slot, last, count, code, _sentence(code, detail), taken.happened)


def _name(text: str) -> str:
    """Of the function, from the JSON of a task's record."""
    return str(json.loads(text).get("name", "")) if text else ""


def _sentence(code: str, detail: str) -> str:
    return reasons.sentence(code, detail.partition("\x1f")[0]) if code else ""


def _in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Call it in the loop, from whatever thread."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        pass  # it has ended
