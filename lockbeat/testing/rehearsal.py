"""A rehearsal: a program's jobs and tasks, run over a store in memory as the test moves time, with what can go wrong."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from lockbeat.connection._memory import forget_memory_server, memory_server
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError, MissingExtra
from lockbeat.jobs import LedgerEntry
from lockbeat.jobs.why import Explanation
from lockbeat.program import Beat
from lockbeat.program.lifespan import Started
from lockbeat.store import reasons
from lockbeat.testing.clock import EXTRA, Clock, moment
from lockbeat.testing.faults import Faults
from lockbeat.testing.keeping import Client
from lockbeat.testing.stepping import SteppedServing
from lockbeat.triggers.no_slot import no_slot
from lockbeat.values.checks import whole
from lockbeat.values.durations import Seconds, instant, milliseconds, seconds

MOST_SLOTS = 10_000
"""That `travel` fires on its way, unless it is told that there may be more."""
PATIENCE = 30.0
"""Seconds of ours until a function that does not end is told of."""
ROUNDS = 1000
RAN = ("waiting", "in_line", "running", "retrying", "done", "failed", "lost", "cut", "cancelled", "stopping")
"""Situations of a slot that was fired."""
NOT_FIRED = ("skipped", "missed", "to_be_skipped", reasons.EXCLUDED)

When = datetime | str
"""An aware datetime, or the same in ISO 8601."""

_numbers = itertools.count(1)
_rehearsals: list[Rehearsal] = []


def current(beat: Beat | None = None) -> Rehearsal:
    """The rehearsal that goes on; of this beat, if one is named. Raises LockbeatError."""
    for one in reversed(_rehearsals):
        if beat is None or beat is one.beat:
            return one
    if beat is not None and _rehearsals:
        raise LockbeatError("this beat is not the one that is rehearsed: take the fixture lockbeat_beat, or `rehearse(beat)`")
    raise LockbeatError("nothing is rehearsed: take the fixture lockbeat_beat, or `async with rehearse(beat):`")


def _no_beat(given: object) -> InvalidType:
    kind, within = type(given), getattr(given, "within", None)
    hint = ": give its `within`" if isinstance(within, Beat) else ""  # it is of lockbeat.sync
    return InvalidType("beat", f"must be a lockbeat.Beat, not {kind.__module__}.{kind.__qualname__}{hint}")


class Rehearsal:
    """`async with rehearse(beat) as rehearsal:` see there. Its verbs are the functions of `lockbeat.testing`."""

    def __init__(self, beat: Beat | None = None, *, at: When | None = None, patience: Seconds = PATIENCE) -> None:
        if beat is not None and not isinstance(beat, Beat):
            raise _no_beat(beat)
        self.beat = Beat() if beat is None else beat
        at_ms = int(time.time() * 1000) if at is None else moment("at", at)
        self.clock, self.faults = Clock(at_ms), Faults()
        self.url = f"memory://rehearsal-{next(_numbers)}-{secrets.token_hex(4)}"
        self._patience = seconds("patience", patience)
        self._takes_ms: dict[str, int] = {}
        self._doomed: set[str] = set()
        self._before: Any = None
        self._clients: list[Client] = []
        self._owners = itertools.count(1)
        self._serving: SteppedServing | None = None
        self._instance: asyncio.Task[None] | None = None
        self.client = self._new_client("test")
        """An open Lockbeat of the store, beside the instance."""
        self._client: Client | None = None
        self._known: tuple[object, ...] = ()
        self._moves = asyncio.Lock()

    # -- from the start to the end

    async def __aenter__(self) -> Self:
        try:
            memory_server(self._store)
        except MissingExtra as problem:
            raise MissingExtra(f"lockbeat.testing runs a store in memory, by fakeredis with Lua: {EXTRA}") from problem
        self._before = self.beat.made_with
        self.clock.start()
        _rehearsals.append(self)
        try:
            await self.client.__aenter__()
            await self._begin()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._leave()

    async def _leave(self) -> None:
        try:
            self.faults.away = False
            self.faults.to_lose = 0
            await self._end(kill=self._serving is not None and bool(self._serving.attempts))
            if self.client.is_open:
                await self.client.__aexit__(None, None, None)
        finally:
            self.beat.use(self._before)
            _rehearsals.remove(self)
            self.clock.stop()  # or the clock stands still for the tests that follow
            forget_memory_server(self._store)

    @property
    def _store(self) -> str:
        return self.url.removeprefix("memory://")

    def _new_client(self, owner: str, **options: Any) -> Client:
        return Client(self.url, self.clock, self.faults, namespace=self.beat.namespace, owner=owner, **options)

    async def _begin(self) -> None:
        """Start an instance, as another process would."""
        started, owner = Started(), f"instance-{next(self._owners)}"
        self._client = self._new_client(owner, events=self.beat.events)
        self._known = self._declared()

        def serving(*args: Any, **options: Any) -> SteppedServing:
            self._serving = SteppedServing(*args, **options, story=self, clock=self.clock)
            return self._serving

        self.beat.use(self._client, serving=serving)
        self._instance = asyncio.create_task(self.beat.serve(wait_for_store=True, task_status=started), name="rehearsal")
        self._instance.add_done_callback(lambda _: started.event.set())
        await started.event.wait()
        if self._instance.done():
            self._instance.result()

    async def _end(self, *, kill: bool = False) -> None:
        serving, instance, self._serving, self._instance = self._serving, self._instance, None, None
        if instance is None:
            return
        if serving is not None and kill:
            if self._client is not None:
                if not self.faults.away:
                    await self._client.keeping.renew()  # so long they last from now
                self._client.line.dead = True
            serving.kill()
        elif serving is not None:
            serving.end()
        await instance

    def _declared(self) -> tuple[object, ...]:
        return (*self.beat.declared.values(), *self.beat.task_names)

    # -- what attempts are to meet

    def takes_ms(self, name: str) -> int:
        return self._takes_ms.get(name, 0)

    def dies(self, name: str) -> bool:
        known = name in self._doomed
        self._doomed.discard(name)
        return known

    # -- the clock

    @property
    def now(self) -> datetime:
        """By the clock of the test."""
        return instant(self.clock.now_ms)

    async def travel(self, to: When | None = None, *, by: Seconds | None = None, most: int = MOST_SLOTS) -> None:
        """Move the clock, and run everything that comes due on the way, each at its time."""
        if (to is None) == (by is None):
            raise InvalidArgument("to", "say either to when, or by how long")
        whole("most", most, 1, 10_000_000)
        to_ms = moment("to", to) if to is not None else self.clock.now_ms + milliseconds("by", by, least=0)
        if to_ms < self.clock.now_ms:
            raise InvalidArgument("to", f"{instant(to_ms)} comes before {self.now}, which it is now: time does not go back")
        async with self._moves:
            try:
                await self._go(to_ms, most)
            finally:
                if not self.faults.away:
                    await self._renew()

    async def _go(self, to_ms: int, most: int) -> None:
        fired = 0
        while True:
            if self.faults.away:
                await self._pass(to_ms)
                return
            some, _, next_ms = await self._settle(to_ms - self.clock.now_ms)
            fired += some
            if fired > most:
                late = f"{fired} slots have come due on the way, and it is only {self.now}"
                raise AssertionError(f"{late}: begin later, with at=, or say most=")
            if self.clock.now_ms >= to_ms:
                return
            self.clock.move_to(min(max(next_ms, self.clock.now_ms + 1), to_ms) if next_ms is not None else to_ms)

    async def _pass(self, to_ms: int) -> None:
        """Move the clock while nobody reaches the store."""
        while self.clock.now_ms < to_ms:
            alarm = self._serving.alarms.next_ms if self._serving is not None else None
            self.clock.move_to(to_ms if alarm is None else min(max(alarm, self.clock.now_ms), to_ms))
            for client in self._living():
                await client.keeping.give_up_overdue()
            if self._serving is not None:
                await self._serving.let_end(self.clock.now_ms, self._patience)

    async def _renew(self, more_ms: int = 0) -> None:
        for client in self._living():
            await client.keeping.renew(more_ms)

    def _living(self) -> list[Client]:
        return [client for client in (self.client, self._client) if client is not None and client.is_open]

    async def _settle(self, more_ms: int = 0) -> tuple[int, int, int | None]:
        """Do what is to be done now: how many slots were fired, how many attempts have ended, and when there is more.

        Leases last for so much longer then.
        """
        fired = ended = 0
        for _ in range(ROUNDS):
            serving = await self._present()
            before = serving.fired, serving.ended
            turn = await serving.turn(self._patience)
            fired, ended = fired + serving.fired - before[0], ended + serving.ended - before[1]
            if serving.doomed:
                await self._kill()
            elif not turn.moved and (turn.next_ms is None or turn.next_ms > self.clock.now_ms):
                await self._renew(more_ms)
                if not serving.stopping:  # it may have been told so by that
                    return fired, ended, turn.next_ms
        raise AssertionError(f"at {self.now} there is always more to do: {ROUNDS} turns have not come to an end")

    async def _present(self) -> SteppedServing:
        """The instance, with all that is declared by now: what was declared since it began is there as after a deploy."""
        if self._serving is not None and self._declared() != self._known:
            if running := self._serving.attempts:
                problem = f"what is declared has changed, and {running[0].task.id} still runs"
                raise LockbeatError(f"{problem}: declare it before, or let that end")
            await self._end()
        if self._serving is None:
            await self._begin()
        assert self._serving is not None
        return self._serving

    async def drain(self) -> int:
        """Run everything that is due now, and what that spawns; time stands still."""
        self._reachable()
        async with self._moves:
            return (await self._settle())[1]

    # -- jobs

    def name_of(self, job: str | Callable[..., Any]) -> str:
        """Of a job, from its name or its function."""
        if isinstance(job, str):
            return job
        if names := self.beat.names_of(job):
            return names[0]
        raise InvalidArgument("job", f"{getattr(job, '__name__', job)!r} is no function of the beat that is rehearsed")

    async def fire(self, job: str | Callable[..., Any], slot: When) -> LedgerEntry:
        """Have one slot of a job run, and end. One that is to come is travelled to; one that has passed is backfilled."""
        self._reachable()
        name, slot_ms = self.name_of(job), moment("slot", slot)
        await self.drain()  # it is declared
        trigger = (await self.client.jobs.get(name)).job.trigger
        if found := no_slot(trigger, slot_ms):
            near = [str(instant(ms)) for ms in (trigger.prev(slot_ms), trigger.next(slot_ms)) if ms is not None]
            why = f"{'; '.join(one.why for one in found)}. Near it: {', '.join(near) or 'none'}"
            raise InvalidArgument("slot", f"{instant(slot_ms)} is none of {name!r} ({trigger}): {why}")
        if slot_ms > self.clock.now_ms:
            await self.travel(instant(slot_ms))
        else:
            known = await self.client.jobs.why(name, instant(slot_ms))
            if known.entry is None or known.situation not in RAN:
                await self.client.jobs.backfill(name, instant(slot_ms), instant(slot_ms + 1), by="test")
            await self.drain()
        return await self.assert_fired(name, instant(slot_ms))

    async def next_slots(self, job: str | Callable[..., Any], n: int = 5) -> list[datetime]:
        """The next slots of a job that are to be fired."""
        self._reachable()
        await self.drain()
        return await self.client.jobs.next(self.name_of(job), n)

    async def _why(self, job: str | Callable[..., Any], slot: When) -> Explanation:
        self._reachable()
        await self.drain()
        return await self.client.jobs.why(self.name_of(job), instant(moment("slot", slot)))

    async def assert_fired(self, job: str | Callable[..., Any], slot: When, *, state: str | None = None) -> LedgerEntry:
        """A slot of a job was fired. Returns what the ledger has of it."""
        known = await self._why(job, slot)
        if known.situation not in RAN or known.entry is None:
            raise AssertionError(f"it was not fired. {known.text}")
        if state is not None and known.entry.state != state:
            raise AssertionError(f"it was fired, and is {known.entry.state!r}, not {state!r}. {known.text}")
        return known.entry

    async def assert_skipped(self, job: str | Callable[..., Any], slot: When, reason: str | None = None) -> Explanation:
        """A slot of a job was not fired, for this reason. Returns why."""
        known = await self._why(job, slot)
        if known.situation not in NOT_FIRED:
            raise AssertionError(f"it was not skipped. {known.text}")
        if reason is not None and reason.lower() != (known.code or "").lower() and reason.lower() not in known.text.lower():
            raise AssertionError(f"it was skipped for {known.code!r}, not for {reason!r}. {known.text}")
        return known

    # -- what goes wrong

    def takes(self, job: str | Callable[..., Any], duration: Seconds) -> None:
        """From now on an attempt of a job, or of a task, takes so long by the clock of the test; 0: no time."""
        self._takes_ms[self.name_of(job)] = milliseconds("duration", duration, least=0)

    async def kill_instance(self, *, during: str | Callable[..., Any] | None = None) -> None:
        """Kill the instance, as kill -9 does: now, or when the next attempt of a job has done its work, and nobody was told."""
        if during is not None:
            self._doomed.add(self.name_of(during))
            return
        if self._instance is not None and asyncio.current_task() is self._instance:
            raise LockbeatError("an instance can't wait for its own death: kill_instance(during=...)")
        async with self._moves:
            await self._kill()

    async def _kill(self) -> None:
        await self._end(kill=True)
        if not self.faults.away:
            await self._begin()

    def lose_reply(self, script: str | None = None, *, times: int = 1) -> None:
        """The next calls reach the store, and their replies are lost."""
        self.faults.lose(script, times)

    @contextmanager
    def store_away(self) -> Iterator[None]:
        """While the block runs nobody reaches the store."""
        timeouts = [(client.store, client.store.timeout) for client in self._living()]
        self.faults.away = True
        for store, _ in timeouts:
            store.timeout = 0.0  # to wait is of no use
        try:
            yield
        finally:
            self.faults.away = False
            for store, timeout in timeouts:
                store.timeout = timeout

    def _reachable(self) -> None:
        if self.faults.away:
            raise LockbeatError("nobody reaches the store inside of store_away: ask when the block has ended")
