"""Claims what there is room for, runs it, and reports how it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from lockbeat.errors import StoreError
from lockbeat.jobs import Job
from lockbeat.leases.keeper import CANCELLED, Keeper
from lockbeat.leases.lease import NOBODY, Held, monotonic
from lockbeat.logs import fields
from lockbeat.process.logs import log
from lockbeat.store import Store, messages, results
from lockbeat.store.durable import Durability
from lockbeat.store.wakeup import Turns, Wakeup
from lockbeat.tasks import NOT_DURABLE_MS, Task, Tasks
from lockbeat.worker.attempt import SHUT_DOWN, Attempt
from lockbeat.worker.functions import Function
from lockbeat.worker.passing import Passing
from lockbeat.worker.reports import Reports

HANDFUL = 50
"""Tasks that one claim takes; keeps its script under 5 ms."""
CLAIM_LEASE_MS = 5000
STEP_MS = 200
"""By so much a server's clock goes ahead of ours when it is set, and not because an answer took long."""
SWEEP = 1.0
"""Seconds between looks at what time has brought while there is no room for more."""
MEND, MENDED = 60.0, 50
"""Seconds between looks at whether tasks stand where their records say; and how many such a look picks, at random."""
LOOK_AFTER = 30.0
"""Seconds. Looks again after this time though nobody rang: a message can be lost with the instance that was to send it."""


class Starting:
    """What one call is about to start in this instance's name, each attempt in a place that is kept for it."""

    def __init__(self, begin: Callable[[Task, Held], None], put_off: Callable[[Task], None], held: Held, places: int) -> None:
        self._begin, self._held = begin, held
        self.put_off = put_off
        """Give an attempt back that is not durable yet."""
        self.left = places
        self.here: Sequence[bool] = ()
        """Of each job whose slot is fired, whether its attempt has a place."""

    def begin(self, task: Task) -> None:
        """Run an attempt that was started."""
        self.left -= 1
        self._begin(task, self._held)


class Worker:
    """Runs tasks of some queues, at most `concurrency` at a time. The queues take turns."""

    def __init__(
        self,
        store: Store,
        keeper: Keeper,
        tasks: Tasks,
        functions: Mapping[str, Function],
        queues: Iterable[str],
        concurrency: int,
        durability: Durability | None = None,
        shortest_lease_ms: int = CLAIM_LEASE_MS,
        grace: float = 10.0,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._tasks = tasks
        self._functions = functions
        self._queues = tuple(dict.fromkeys(queues))
        self._durability = durability
        self._lease_ms = min(CLAIM_LEASE_MS, shortest_lease_ms)
        self._grace = grace
        self._attempts: dict[Task, Attempt] = {}
        self._clocks: dict[int, float] = {}  # of the shards' servers, against ours
        self._outran: set[str] = set()  # what ran when a server's clock was set forward
        tasks.running = self._unsure
        self._strangers: set[str] = set()  # functions that others have: older or newer code, another program
        self._free = concurrency
        self._freed = Wakeup()  # a place
        self._undoing: set[asyncio.Task[None]] = set()  # cancelled claims
        self._stopping = False
        self._passing = Passing()
        self._next = asyncio.Lock()  # held by the shard whose turn it is to take what room there is
        self._turns: defaultdict[int, int] = defaultdict(int)  # of the queues, shard by shard
        self._wakeups: dict[int, list[Wakeup]] = {}
        self._mend_at: dict[int, float] = {}
        self._idle = asyncio.Event()  # a shutdown, and all that ran has ended
        self.reports = Reports(store, tasks, self.wake, self._ended)
        self.burst = self.reports.burst
        """While slots are being fired, what has run is not ended: those of a burst begin first."""
        self.abandoned: list[str] = []
        """The tasks whose functions a shutdown left running."""

    @property
    def room(self) -> int:
        """How many more attempts it would take now."""
        return 0 if self._stopping else self._free

    @property
    def turning(self) -> list[Turns]:
        """How its loops turn, one a shard. A turn waits for room to run more."""
        return [wakeup.turns for wakeups in [*self._wakeups.values()] for wakeup in wakeups]

    def _give_places(self, places: int) -> None:
        self._free += places
        self._freed.ring()

    @contextlib.contextmanager
    def starting(self, shard: int, call: str, jobs: Sequence[Job]) -> Iterator[Starting]:
        """Places for the first attempts of jobs that a call fires, as far as there is room and this program has them.

        If its reply is lost, the next claim brings what it started.
        """
        room, here = self.room, list[bool]()
        for job in jobs:
            here.append(room > 0 and job.queue in self._queues and job.function in self._functions)
            room -= here[-1]
        leases_ms = [job.lease_ms for job, mine in zip(jobs, here, strict=True) if mine]
        with self._places(shard, call, len(leases_ms), min(leases_ms, default=0)) as starting:
            starting.here = here
            try:
                yield starting
            except StoreError:
                self._tasks.reply_lost(shard, self._store.owner, [call] if leases_ms else ())
                self.wake(shard)
                raise

    @contextlib.contextmanager
    def _places(self, shard: int, call: str, places: int, lease_ms: int) -> Iterator[Starting]:
        """Keep places for what a call is about to start, and have the keeper renew that until each attempt is looked after alone.

        The reply may come while a function blocks the event loop.
        """
        self._free -= places
        row = self._store.row["task/renew_call"](owner=self._store.owner, call=call, lease_ms=lease_ms)
        held = Held(row, shard, lease_ms / 1000, 0.0, NOBODY)
        held.taken(monotonic())
        starting = Starting(self._begin, lambda task: self._tasks.give_back(task, NOT_DURABLE_MS), held, places)
        if places:
            self._keeper.hold(held)
        try:
            yield starting
        finally:
            self._keeper.drop(held)
            self._give_places(starting.left)

    def _begin(self, task: Task, held: Held) -> None:
        """Run an attempt that was started in this instance's name, in a place kept for it. `held`: what has renewed it since."""
        attempt = self._attempts[task] = Attempt(task, self._functions[task.name], max(task.asked_at, held.asked_at), self._grace)
        self._keeper.hold(attempt.held)  # from here on: its function may have to wait for one that blocks the event loop
        attempt.runner = self._store.loop.create_task(self._execute(attempt), name=task.id)

    def _cancel(self, task_id: str) -> None:
        """A task may have been cancelled in the store: if it runs here, ask, and stop it if that is so."""
        for task, attempt in self._attempts.items():
            if task.id == task_id:
                self._ask(attempt)

    def wake(self, shard: int) -> None:
        """There may be something to claim on a shard."""
        for wakeup in self._wakeups.get(shard, ()):
            wakeup.ring()

    async def serve(self, shard: int) -> None:
        """Claim and run, until cancelled. Losing the store ends nothing."""
        wakeup = Wakeup()
        self._wakeups.setdefault(shard, []).append(wakeup)
        heard = {messages.TaskWaits: lambda _: wakeup.ring(), messages.Cancel: lambda cancel: self._cancel(cancel.task_id)}
        unlisten = self._store.listen(heard, wakeup.ring, bell=shard)
        try:
            await wakeup.serve(
                self._store.connector,
                lambda: self.tick(shard),
                doing="claiming",
                blocked=f"can't claim from {', '.join(map(repr, self._queues))}",
                look=LOOK_AFTER,
                longest_pause=2.0,
            )
        finally:
            unlisten()

    async def tick(self, shard: int) -> float | None:
        """Claim what there is room for. Seconds until there may be more; None: when rung for. Raises StoreError."""
        async with self._next:  # first come, first served: a shard that has claimed is last in line
            while self.room <= 0:
                if not await self._freed.wait(SWEEP):
                    await self._sweep()
            limit, call = min(self.room, HANDFUL), self._store.new_call()
            places = self._places(shard, call, limit, self._lease_ms)
        # Another queue is the first each time: with room for one, all get their turn. Each shard counts for itself, or shards
        # and queues of the same number would go round in step.
        first = self._turns[shard] = (self._turns[shard] + 1) % len(self._queues)
        queues = (*self._queues[first:], *self._queues[:first])
        with places as starting:
            try:
                tasks, wake, after, clock = await self._tasks.claim_on(
                    shard,
                    queues,
                    self._store.owner,
                    limit,
                    CLAIM_LEASE_MS,
                    self._strangers,
                    self._durability,
                    call=call,
                    after=self._passing.after(shard),
                    clock_ms=self._clock_ms(shard),
                )
            except asyncio.CancelledError:
                # What it has begun would stay leased to an instance that does not run it.
                undoing = self._store.settle(self._tasks.find_lost(shard, self._store.owner, "", self._lease_ms))
                self._undoing.add(undoing)
                undoing.add_done_callback(self._undoing.discard)
                raise
            self._note_clock(shard, clock)
            for task in tasks:
                self._begin_claimed(task, starting)
        await self._mend(shard)
        return self._passing.claimed(shard, after, 0 if len(tasks) == limit else wake)

    async def _sweep(self) -> None:
        """Without room for more, what time has brought is seen to all the same: nobody else may be there to do it."""
        for shard in range(self._store.shards):
            clock_ms = self._clock_ms(shard)
            claim = self._tasks.claim_on(
                shard, self._queues, self._store.owner, 0, CLAIM_LEASE_MS, memory="sweep", clock_ms=clock_ms
            )
            self._note_clock(shard, (await claim).clock)

    async def _mend(self, shard: int) -> None:
        """Look now and then whether tasks were lost from where they stand; as long as one was, again."""
        if monotonic() < self._mend_at.setdefault(shard, monotonic() + MEND):
            return
        self._mend_at[shard] = monotonic() + MEND
        while mended := await self._store.call("task/mend", shard, limit=MENDED):
            log.warning("the store had lost %d tasks from where they stand: put right", mended)

    def _clock_ms(self, shard: int) -> int:
        """What the server's clock should show by now; 0: not known yet."""
        return round(self._clocks[shard] + monotonic() * 1000) if shard in self._clocks else 0

    def _note_clock(self, shard: int, clock: float) -> None:
        if clock - self._clocks.get(shard, clock) > STEP_MS:
            self._outran = {task.id for task in self._attempts}
        self._clocks[shard] = clock

    def _unsure(self) -> list[str]:
        """Tasks whose leases may have run out, and whose functions still run."""
        now = monotonic()
        return [
            task.id
            for task, attempt in self._attempts.items()
            if attempt.stopped is not None or now >= attempt.held.trusted_until or task.id in self._outran
        ]

    def _begin_claimed(self, task: Task, starting: Starting) -> None:
        if task.name in self._functions and not self._stopping:
            starting.begin(task)
            return
        if not self._stopping:
            self._strangers.add(task.name)
            log.info("task %s is left to others: no function %r here", task.id, task.name)
        self._tasks.give_back(task)

    async def _execute(self, attempt: Attempt) -> None:
        if attempt.task.ends_in is not None:
            attempt.limit = self._store.loop.call_later(attempt.task.ends_in, self._ask, attempt)
        spans = self._store.events.spans
        if spans is not None:
            attempt.span = spans.processing(attempt.task)
        try:
            failure = await attempt.outcome()
            if attempt.span is not None:
                attempt.span.ended(failure and failure.type, failure.summary if failure else "", attempt.problem)
        except BaseException:  # Ctrl-C, in a program that leaves it to Python
            self._ended(attempt)
            raise
        finally:
            # The next may begin: it is claimed in the same write that reports the end of this one.
            self._give_places(1)
        if failure is None and attempt.stopped != CANCELLED:
            self.reports.done(attempt)
        else:
            await self.reports.report(attempt, failure)

    def _ended(self, attempt: Attempt) -> None:
        """The store knows how it ended, or will not be told."""
        log.debug("ended %s in %.0f ms", attempt.task.id, (monotonic() - attempt.began) * 1000)
        if (counting := self._store.counting) is not None:
            counting.ran(attempt.task.job, attempt.task.name, attempt.became, attempt.took)
        if attempt.limit is not None:
            attempt.limit.cancel()
        if attempt.span is not None:
            attempt.span.settled()
        self._keeper.drop(attempt.held)
        attempt.held.holder = NOBODY  # a circle: what is in one stays until Python's collector comes by
        del self._attempts[attempt.task]
        if self._stopping and not self._attempts:
            self._idle.set()

    def _ask(self, attempt: Attempt) -> None:
        """It was perhaps cancelled, or its max_duration should be over: the script says so, by the server's clock."""
        asking = self._store.submit(attempt.held.row, attempt.task.shard)

        def answered(done: asyncio.Future[int]) -> None:
            if not done.cancelled() and done.exception() is None and done.result() == results.CANCELLED:
                attempt.stop(CANCELLED)

        asking.add_done_callback(answered)

    async def drain(self, grace: float) -> None:
        """Stop claiming, let what runs end within `grace` seconds, cancel the rest and give it back."""
        self._stopping = True
        self._freed.ring()
        if self._undoing:  # what was claimed is given back, before release_all takes it for begun
            await asyncio.wait(self._undoing, timeout=self._store.timeout)
        for shard in range(self._store.shards):
            self._store.settle(self._tasks.find_lost(shard, self._store.owner, "", self._lease_ms))
        self.reports.shut_down()
        await self._wait_for_attempts(grace)
        for attempt in list(self._attempts.values()):
            attempt.stop(SHUT_DOWN)
        await self._wait_for_attempts(self._store.timeout)
        for attempt in list(self._attempts.values()):
            if not attempt.ended:
                said = "%s still runs and can't be stopped; its lease is left to expire"
                log.error(said, attempt.task.id, extra={"stacks": attempt.stack(), **fields(attempt.task)})
                attempt.abandoned = True
                self.abandoned.append(attempt.task.id)
            if attempt.runner is not None:
                attempt.runner.cancel()

    async def _wait_for_attempts(self, seconds: float) -> None:
        if self._attempts:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
