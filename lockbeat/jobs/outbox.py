"""Events that anybody's call may decide: the store keeps them, and one instance that listens tells its hooks and monitors.

There is a line of events for each hook, and one for monitors: what hangs in one keeps none of the others waiting. Those of a job
are told in order, by one instance at a time. An event is forgotten when its functions have returned; one whose instance dies
first is told by another, after a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence, Set
from functools import partial
from typing import Any, Final, NamedTuple

import anyio

from lockbeat.errors import StoreError
from lockbeat.events import Event, Hook
from lockbeat.jobs.happened import Taken, event_of
from lockbeat.leases.lease import monotonic
from lockbeat.listeners import LIMIT, Told
from lockbeat.store import Store, messages
from lockbeat.store.wakeup import LOOK_IN_MEMORY, Wakeup, at_most

log = logging.getLogger("lockbeat")

LEASE_MS = 30_000
"""An event whose instance has died is told by another after this time."""
KEEP = 10.0
"""Seconds after which events that are still being told are kept."""
MOST = 40
"""Events of a line that an instance tells at a time, of a shard."""
HANGS = LIMIT + KEEP
"""Seconds after which a function is taken to hang: what waits behind it is given back. An `async def` is cancelled before."""
LOOK = 20.0
"""Seconds. Events are looked for this often though nobody rang."""
DRAIN = 1.0
"""Seconds that a shutdown waits for hooks to return, so that what they were told is not told again."""

Consumer = Callable[[Event, str], Awaitable[None]]
"""Is told an event, and its id: the same event has the same, also when it is told again."""

LINES: Final = {
    "missed": "slot_missed",
    "skipped": "slot_skipped",
    "lost": "run_lost",
    "dead": "task_dead",
    "paused": "job_paused",
}
"""The lines of hooks, by the word that scripts keep their events under. See `scripts_lua/_lib/events.lua`."""
FOR_CONSUMERS: Final = "all"
"""The line of monitors, in which is every event. What an instance's own call decides it tells its hooks itself."""


class Outbox:
    """Tells the hooks of one program, and `consumers`, which see every event, those of a job in order."""

    def __init__(self, store: Store, consumers: Iterable[Consumer] = ()) -> None:
        self._store = store
        self._consumers = list(consumers)
        self._wakeups = [Wakeup() for _ in range(store.shards)]
        self._lines: list[dict[str, Line]] = [{} for _ in range(store.shards)]

    def _listening(self, shard: int) -> list[Line]:
        """The lines that it listens at. A function may be added, or dropped, at any time."""
        lines, hooks, store = self._lines[shard], self._store.events, self._store
        if self._consumers and FOR_CONSUMERS not in lines:
            lines[FOR_CONSUMERS] = OfConsumers(FOR_CONSUMERS, shard, store, self._wakeups[shard], self._consumers)
        for name, of in LINES.items():
            hook: Hook[Any] = getattr(hooks, of)
            if hook.heard and name not in lines:
                lines[name] = OfHook(name, shard, store, self._wakeups[shard], hook)
        return [line for line in lines.values() if line.is_heard]

    @property
    def busy(self) -> bool:
        """Whether anything is being told."""
        return any(line.telling for lines in self._lines for line in lines.values())

    async def register(self) -> None:
        """Say where it listens, so that nothing is lost from now on. Raises StoreError."""
        await self._store.on_every_shard(lambda shard: self._take(shard, takes=False))

    async def serve(self, shard: int) -> None:
        """Tell what happens on a shard, until cancelled. Losing the store ends nothing."""
        wakeup, store = self._wakeups[shard], self._store
        unlisten = store.listen({messages.Happened: lambda _: wakeup.ring()}, wakeup.ring, bell=shard)
        try:
            await wakeup.keep_turning(
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
                await asyncio.gather(*(line.drain() for line in self._lines[shard].values()))

    async def tick(self, shard: int) -> float | None:
        """One turn. Returns in how many seconds to look again; None: when told to. Raises StoreError."""
        return await self._take(shard)

    async def _take(self, shard: int, *, takes: bool = True) -> float | None:
        lines = self._listening(shard)
        if not lines:
            return None
        asked = [line.ask(takes) for line in lines]
        try:
            reply = await self._store.call(
                "event/take",
                shard,
                lines=[f"{line.name} {one.limit}" for line, one in zip(lines, asked, strict=True)],
                told=[told for one in asked for told in one.told],
                keeps=[kept for one in asked for kept in one.keeps],
                back=[given for one in asked for given in one.back],
                lease_ms=LEASE_MS,
            )
        except BaseException:
            for line, one in zip(lines, asked, strict=True):
                line.unanswered(one)
            raise
        if reply.dropped:
            self._store.events.dropped += reply.dropped
            log.warning("%d events were dropped: nobody had told them for an hour, or there were too many", reply.dropped)
        taken: dict[str, list[Taken]] = defaultdict(list)
        for event in map(Taken, reply.events):
            taken[event.line].append(event)
        for line, one in zip(lines, asked, strict=True):
            line.answered(one, f"{reply.now_ms + LEASE_MS:015d}", taken[line.name])
        if any(line.told or line.back for line in lines):
            return 0
        # Without room it is told when there is some.
        next_in = (reply.next_ms - reply.now_ms) / 1000 if reply.next_ms and any(line.room for line in lines) else None
        return at_most(next_in, KEEP if any(line.telling for line in lines) else None)

    async def aclose(self) -> None:
        """Have what was told forgotten, so that nobody tells it again. Bounded in time."""
        with anyio.move_on_after(DRAIN):
            for shard, lines in enumerate(self._lines):
                if any(line.told or line.back for line in lines.values()):
                    try:
                        await self._take(shard, takes=False)
                    except StoreError as problem:
                        log.debug("could not say which events were told: %s", problem)


class Asked(NamedTuple):
    """What the store is asked about a line."""

    limit: int
    told: list[str]
    keeps: list[str]
    back: list[str]
    at: float
    """Monotonic seconds."""


class Line:
    """What this instance tells of one line of a shard."""

    def __init__(self, name: str, shard: int, store: Store, wakeup: Wakeup) -> None:
        self.name, self._shard, self._store, self._wakeup = name, shard, store, wakeup
        self.telling: dict[str, str] = {}
        """ID -> until when it is in hand, as it was handed out or kept last."""
        self.told: list[str] = []
        """Those that the store is to forget: "LINE ID"."""
        self.back: list[str] = []
        """Those that others are to tell: "LINE ID FROM"."""
        self._keep_at = 0.0

    @property
    def is_heard(self) -> bool:
        """Whether anybody is told."""
        raise NotImplementedError

    @property
    def slow(self) -> Set[str]:
        """IDs of those that have been told for so long that their jobs' others are not to wait for them."""
        return frozenset()

    @property
    def room(self) -> int:
        """How many more may be told now."""
        return max(MOST - len(self.telling), 0)

    def look(self) -> None:
        """See what hangs."""

    def tell(self, taken: Sequence[Taken]) -> None:
        """Tell these, in order, without waiting; and `forget` each when it was told."""
        raise NotImplementedError

    def ask(self, takes: bool) -> Asked:
        """What to ask the store now; it is to be `answered` or `unanswered`."""
        self.look()
        now, slow = monotonic(), self.slow
        kept = [] if now < self._keep_at else [f"{self.name} {one}{'~' if one in slow else ''}" for one in self.telling]
        asked = Asked(self.room if takes else 0, self.told, kept, self.back, now)
        self.told, self.back = [], []
        return asked

    def unanswered(self, asked: Asked) -> None:
        """The store may not have heard it."""
        self.told, self.back = asked.told + self.told, asked.back + self.back

    def answered(self, asked: Asked, until: str, taken: Sequence[Taken]) -> None:
        """Tell what was handed out. What was kept is in hand until then."""
        if asked.keeps or not self.telling:
            self._keep_at = asked.at + KEEP
        for kept in asked.keeps:
            event_id = kept.rstrip("~").rpartition(" ")[2]
            if event_id in self.telling:
                self.telling[event_id] = until
        new = [one for one in taken if one.id not in self.telling]  # the lease of another had ended, as nobody could keep it
        self.telling.update({one.id: one.until for one in taken})
        self.tell(new)

    def forget(self, event_id: str) -> None:
        """It was told."""
        if self.telling.pop(event_id, None) is not None:
            self.told.append(f"{self.name} {event_id}")
            self._wakeup.ring()

    async def drain(self) -> None:
        """Let what is being told be told, for a moment."""
        raise NotImplementedError

    def _read(self, taken: Taken) -> Event | None:
        """The event; None: it is told to nobody."""
        try:
            return event_of(taken)
        except Exception:
            log.exception("an event can't be read: %r", taken.text)
            return None


class OfHook(Line):
    """The functions of a hook: each has a queue, and what hangs in one is given back."""

    def __init__(self, name: str, shard: int, store: Store, wakeup: Wakeup, hook: Hook[Any]) -> None:
        super().__init__(name, shard, store, wakeup)
        self._hook = hook
        self._given: dict[str, Told] = {}
        self._hanging: set[str] = set()
        self._stuck = False
        """Whether each of its functions hangs: it takes no more, others may."""

    @property
    def is_heard(self) -> bool:
        return self._hook.heard or bool(self.telling or self.told or self.back)

    @property
    def slow(self) -> Set[str]:
        return self._hanging

    @property
    def room(self) -> int:
        return 0 if self._stuck or not self._hook.heard else super().room

    def look(self) -> None:
        now = time.monotonic()
        since = [one.begun_at for one in self._given.values() if one.is_called and one.begun_at is not None]
        hangs = bool(since) and now >= min(since) + HANGS
        self._hanging = {at for at, one in self._given.items() if hangs and one.is_called}
        if not hangs:
            self._stuck = False
            return
        self._store.events.hangs(self._hook.name, now - min(since))
        for event_id, one in [*self._given.items()]:
            if one.withdraw():
                self._give_back(event_id)
                self._stuck = True
            elif not one.is_called:  # only a function that hangs has yet to be told: there it waits for its turn
                self.forget(event_id)

    def _give_back(self, event_id: str) -> None:
        self._given.pop(event_id)
        self.back.append(f"{self.name} {event_id} {self.telling.pop(event_id)}")

    def forget(self, event_id: str) -> None:
        self._given.pop(event_id, None)
        super().forget(event_id)

    def tell(self, taken: Sequence[Taken]) -> None:
        loop = self._store.loop
        for one in taken:
            event = self._read(one)
            if event is None or not self._hook.heard:
                self.forget(one.id)
                continue
            told = self._given[one.id] = Told(partial(_in, loop, partial(self.forget, one.id)))
            self._hook.tell(event, told)

    async def drain(self) -> None:
        with anyio.move_on_after(DRAIN):
            while self.telling:
                await self._wakeup.wait(None)
        for event_id, told in [*self._given.items()]:
            # Else it has been told, though a shutdown does not wait for that; of what is in memory there is nobody else to tell.
            if self._store.connector.kind != "memory" and told.withdraw():
                self._give_back(event_id)
            else:
                self.forget(event_id)


class OfConsumers(Line):
    """Monitors and webhooks: those of a job one after the other, of different jobs at the same time."""

    def __init__(self, name: str, shard: int, store: Store, wakeup: Wakeup, consumers: Sequence[Consumer]) -> None:
        super().__init__(name, shard, store, wakeup)
        self._consumers = consumers
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_heard(self) -> bool:
        return True

    def tell(self, taken: Sequence[Taken]) -> None:
        chains: dict[str, list[Taken]] = defaultdict(list)
        for one in taken:
            chains[one.job or one.id].append(one)
        for chain in chains.values():
            task = self._store.loop.create_task(self._tell(chain), name="lockbeat events")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell(self, chain: Sequence[Taken]) -> None:
        for taken in chain:
            event = self._read(taken)
            for consumer in self._consumers:
                if event is None:
                    break
                try:
                    await consumer(event, f"{self._shard}-{taken.id}")
                except Exception:
                    log.exception("an event could not be told")
            self.forget(taken.id)

    async def drain(self) -> None:
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=DRAIN)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)


def _in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Call it in the loop, from whatever thread."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        pass  # it has ended
