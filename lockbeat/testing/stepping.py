"""An instance that takes its turns when a test says so: scheduler, worker and backfiller, without loops of their own."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import anyio
from anyio.abc import TaskStatus

from lockbeat.client import Lockbeat
from lockbeat.health import Health
from lockbeat.leases.lease import monotonic
from lockbeat.program.serving import Program, Serving
from lockbeat.store.wakeup import Wakeup
from lockbeat.testing.clock import Clock
from lockbeat.worker import Worker
from lockbeat.worker.attempt import TIMED_OUT, Attempt
from lockbeat.worker.passing import Passing


class Story(Protocol):
    """What a test wants to happen to attempts."""

    def takes_ms(self, name: str) -> int:
        """How long an attempt of this job, or of this task's function, is to take."""
        ...

    def dies(self, name: str) -> bool:
        """Whether its instance is to be killed now: it has done its work, and nobody was told."""
        ...


class Alarms:
    """What is to happen when the clock comes to an instant."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def at(self, ms: int, do: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (ms, next(self._numbers), do))

    @property
    def next_ms(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def ring(self, now_ms: int) -> bool:
        """Whether there was something."""
        before = len(self._heap)
        while self._heap and self._heap[0][0] <= now_ms:
            heapq.heappop(self._heap)[2]()
        return len(self._heap) < before


class Passed(Passing):
    """Nothing is looked at again for want of something better: that is by the clock that goes on."""

    def after(self, shard: int) -> dict[str, str]:
        return {}

    def claimed(self, shard: int, after: dict[str, str], wake: float | None) -> float | None:
        return wake


class SteppedWorker(Worker):
    """Knows which of its attempts wait for the test's clock."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._passing = Passed()
        self.burst = nullcontext[None]  # type: ignore[assignment]  # what has run is ended at once
        self.lingering = set[Attempt]()
        self.stirred = Wakeup()
        self.ended = 0

    def _clock_ms(self, shard: int) -> int:
        return 0  # it is set forward all the time

    def _ended(self, attempt: Attempt) -> None:
        super()._ended(attempt)
        self.ended += 1
        self.stirred.ring()

    @property
    def attempts(self) -> list[Attempt]:
        return list(self._attempts.values())

    async def settle(self, patience: float, *, told: bool = True) -> None:
        """Wait until every attempt has ended, or waits for the clock. Raises AssertionError after so many seconds of ours.

        told: and the store knows how it ended.
        """
        until = monotonic() + patience
        while running := [one for one in self.attempts if self._goes_on(one, told)]:
            left = max(until - monotonic(), 0)
            if not await self.stirred.wait(left if told else min(left, 0.005)) and monotonic() >= until:
                one = running[0]
                raise AssertionError(
                    f"{one.task.id} ({one.task.name}) still runs after {patience:g} s. Time stands still for it: what is to take "
                    f"long is said by `takes`. It is at:\n{one.stack()}"
                )

    def _goes_on(self, attempt: Attempt, told: bool) -> bool:
        if attempt.ended and not told:
            return False
        return attempt not in self.lingering or attempt.stopped is not None


class Turn(NamedTuple):
    """What a turn came to."""

    moved: bool
    """Whether it did anything; then there may be more to do at this instant."""
    next_ms: int | None
    """When there may be more by itself."""


class SteppedServing(Serving):
    """Serves a program turn by turn."""

    _worker: SteppedWorker
    worker_class = SteppedWorker

    def __init__(self, client: Lockbeat, program: Program, health: Health, *, story: Story, clock: Clock, **options: Any) -> None:
        self._story, self._clock = story, clock
        functions = {name: replace(function, then=self._linger) for name, function in program.functions.items()}
        program = replace(program, functions=functions)
        super().__init__(client, program, health, **options)
        self.alarms = Alarms()
        self.killed = False
        self.doomed = False
        """It is to be killed before it takes another turn."""
        self._over = asyncio.Event()
        self._declared = False

    async def run(self, task_status: TaskStatus[None]) -> None:
        task_status.started()
        try:
            await self._over.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self._shut_down()

    def end(self) -> None:
        """Shut down."""
        self._over.set()

    def kill(self) -> None:
        """Die: what it runs is stopped, and the store is told nothing."""
        self.killed = True
        self._over.set()

    async def _shut_down(self) -> None:
        if self.killed:
            await self._worker.drain(0)
        elif self._worker.attempts or self._declared:
            await super()._shut_down()

    @property
    def attempts(self) -> list[Attempt]:
        """What it runs."""
        return self._worker.attempts

    @property
    def stopping(self) -> bool:
        """Whether something that it runs was told to stop, and has yet to."""
        return any(one.stopped is not None for one in self.attempts)

    @property
    def fired(self) -> int:
        """How many slots it has fired."""
        return self._scheduler.fired

    @property
    def ended(self) -> int:
        """How many attempts have ended."""
        return self._worker.ended

    async def let_end(self, now_ms: int, patience: float) -> None:
        """Let end what does by then, though nobody can be told of it."""
        self.alarms.ring(now_ms)
        await self._worker.settle(patience, told=False)

    async def turn(self, patience: float) -> Turn:
        """Do what is to be done at this instant, and let what it starts end. Raises StoreError."""
        before, now_ms, following = (self.fired, self.ended), self._clock.now_ms, list[int]()
        if not self._declared:
            await self._introduce()
            await self._scheduler.register()
            self._declared = True
        if self.alarms.ring(now_ms):  # what ends now has ended, and what waits for that has begun, when the next comes due
            await self._worker.settle(patience)
            await self._queued(now_ms)
            await self._worker.settle(patience)
        for shard in range(self._store.shards):
            due_ms = await self._beat(shard)
            if 0 < due_ms <= now_ms:
                await self._scheduler.tick(shard)
                await self._worker.settle(patience)
            following += [due_ms] if due_ms else []
        if before == (self.fired, self.ended):  # else another turn follows
            following += await self._queued(now_ms)
            await self._worker.settle(patience)
        if (alarm := self.alarms.next_ms) is not None:
            following.append(alarm)
        return Turn(before != (self.fired, self.ended), min(following, default=None))

    async def _queued(self, now_ms: int) -> list[int]:
        """Go on with backfills, and begin what waits in queues; when there may be more."""
        following = list[int]()
        for shard in range(self._store.shards):
            await self._backfiller.tick(shard)
            following += [looks_ms] if (looks_ms := self._backfiller.looks_ms.get(shard)) else []
            if self._worker.room > 0:
                wake = await self._worker.tick(shard)
                following += [] if wake is None else [now_ms + max(round(wake * 1000), 0)]
        return following

    async def _linger(self, attempt: Attempt) -> None:
        """The attempt has done its work. Let it take as long as the test wants it to take."""
        name = attempt.task.job or attempt.task.name
        over = self._store.loop.create_future()
        if self._story.dies(name):
            self.doomed = True
        elif takes_ms := self._story.takes_ms(name):
            self.alarms.at(self._clock.now_ms + takes_ms, lambda: self._go_on(attempt, over))
            timeout_ms = attempt.task.timeout_ms or attempt.function.timeout_ms
            if timeout_ms and timeout_ms < takes_ms:
                self.alarms.at(self._clock.now_ms + timeout_ms, lambda: self._time_out(attempt))
        else:
            return
        self._worker.lingering.add(attempt)
        self._worker.stirred.ring()
        try:
            await over
        finally:
            self._worker.lingering.discard(attempt)

    def _go_on(self, attempt: Attempt, over: asyncio.Future[None]) -> None:
        self._worker.lingering.discard(attempt)
        if not over.done():
            over.set_result(None)

    def _time_out(self, attempt: Attempt) -> None:
        if attempt in self._worker.lingering:
            self._worker.lingering.discard(attempt)
            attempt.stop(TIMED_OUT)
