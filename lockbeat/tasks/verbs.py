"""The verbs of tasks: every transition is one script that checks owner and fence, by the server's clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from datetime import datetime
from typing import Any, Literal, NamedTuple

from lockbeat.errors import InvalidArgument, InvalidType, NotDurable, StoreError, StoreUnavailable
from lockbeat.leases.lease import monotonic
from lockbeat.store import Store, results
from lockbeat.store.durable import Durability
from lockbeat.store.replies import sifted
from lockbeat.store.rows import Row
from lockbeat.tasks.failure import Failure
from lockbeat.tasks.look import PAGE
from lockbeat.tasks.spawning import Spawning
from lockbeat.tasks.values import Failed, Heartbeat, Refusal, Task
from lockbeat.values.checks import of_type, whole
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name
from lockbeat.values.payloads import dump

log = logging.getLogger("lockbeat")

REFUSALS: dict[int, Refusal] = {
    results.EXPIRED: "expired",
    results.CANCELLED: "cancelled",
    results.NOT_YOURS: "not the owner",
}
OUTCOMES: dict[int, Literal["dead_lettered", "cancelled", "refused"]] = {
    results.DEAD: "dead_lettered",
    results.CANCELLED: "cancelled",
    results.NOT_YOURS: "refused",
}
NOT_DURABLE_MS = 1000
"""What was claimed and may be lost is put off for so long: the replica may be back by then."""
LAST = 253_402_300_799  # seconds; the end of the year 9999
HANDFUL = 50
"""Tasks that one run of the claiming script begins; keeps it under 5 ms."""


class Claimed(NamedTuple):
    """What a claim on one shard brought."""

    tasks: list[Task]
    wake: float | None
    """Seconds until there may be more; None: not by itself."""
    after: dict[str, str]
    """How far strangers were passed, by queue; for the next claim."""
    clock: float
    """What the server's clock showed, in ms, when ours (monotonic) stood at 0, or a little more."""


class Tasks(Spawning):
    """The tasks of a store. Every verb is one atomic script; `now` is always the server's.

    Raises: InvalidArgument or InvalidType for bad arguments, before anything is sent. StoreUnavailable when the store could not
    be reached for its timeout: whether the call took effect is then unknown. A spawn with an idempotency key may be repeated.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._lost: dict[tuple[int, str, str], set[str]] = defaultdict(set)
        self._first = 0
        self.running: Callable[[], Iterable[str]] = tuple
        """Tasks of this process that it may have lost, and whose functions still run: no claim takes them back."""

    # -- claiming

    def reply_lost(self, shard: int, owner: str, calls: Iterable[str]) -> None:
        """These calls may have started attempts in the owner's name; its next claim brings those that they did."""
        self._lost[shard, owner, ""].update(calls)

    async def claim(self, queue: str, owner: str, limit: int = 1, lease: Seconds = 30) -> list[Task]:
        """Begin an attempt of up to `limit` tasks (`task/claim`), by priority, then due time, then order of spawning.

        Attempts whose leases have expired are taken back first. A cancelled call gives back what it had begun. What a call had
        begun that ended with StoreUnavailable comes with the owner's next claim, or is given back when none comes within the
        store's timeout.

        limit: how many at most, 1 to 10,000.
        lease: seconds or a timedelta; you renew it, by `heartbeat`. (A worker's are renewed by the keeper.)
        """
        check_name("queue", queue)
        check_name("owner", owner)
        whole("limit", limit, 1, 10_000)
        lease_ms = milliseconds("lease", lease)
        found: list[Task] = []
        shards, self._first = self._store.shards, self._first + 1
        for at in range(shards):
            shard = (self._first + at) % shards
            while len(found) < limit:
                ask = min(limit - len(found), HANDFUL)
                claiming = asyncio.ensure_future(self.claim_on(shard, [queue], owner, ask, lease_ms, memory=queue))
                try:
                    tasks, wake, *_ = await asyncio.shield(claiming)
                except BaseException:
                    for task in found:
                        self.give_back(task)
                    claiming.add_done_callback(self.give_all_back)
                    self._store.settle(self._find_and_give_back(claiming, shard, owner, queue, lease_ms))
                    raise
                found += tasks
                if len(tasks) < ask and (wake is None or wake > 0):
                    break
        for task in found[limit:]:
            self.give_back(task)
        return found[:limit]

    def claim_on(
        self,
        shard: int,
        queues: Iterable[str],
        owner: str,
        limit: int,
        lease_ms: int,
        strangers: Collection[str] = (),
        durability: Durability | None = None,
        *,
        memory: str = "",
        call: str = "",
        after: dict[str, str] | None = None,
        clock_ms: int = 0,
    ) -> Coroutine[Any, Any, Claimed]:
        """`claim` on one shard, from queues in turn.

        It is asked at once, so that it shares the way with what was asked just before, such as the end of an attempt. Where it
        is cancelled, `find_lost` gives back what it has begun.

        strangers: names of functions whose tasks are left to others.
        memory: what was begun by calls whose replies were lost comes with the owner's next claim of the same memory, beyond the
            limit.
        after: how far strangers were passed before.
        clock_ms: what the server's clock should show; if it was set forward, what this process runs is not taken back.
        """
        call = call or self._store.new_call()
        # Taken, not shared: two claims at a time that asked about the same calls would both get what those had begun.
        lost = self._lost.pop((shard, owner, memory), set())
        queues, running, asked_at = [*queues], [*self.running()], monotonic()

        def row(limit: int, after: dict[str, str] | None, clock_ms: int) -> Row:
            return self._store.row["task/claim"](
                queues=queues,
                owner=owner,
                call=call,
                limit=limit,
                lease_ms=lease_ms,
                lost=lost if durability is None else lost | {call},  # a durable call is repeated by itself
                strangers=strangers,
                after=json.dumps(after) if after else "{}",
                running=running,
                clock_ms=clock_ms,
            )

        def ask() -> Awaitable[Any]:
            asking = row(limit, after, clock_ms)
            if durability is None:
                return self._store.submit(asking, shard, lease=lease_ms / 1000)
            return self._store.call_durably(
                asking, shard, durability, changed=lambda reply: not all(isinstance(task, bytes) for task in reply.tasks)
            )

        async def answer(asked: Awaitable[Any]) -> Claimed:
            nonlocal asked_at
            deadline = asked_at + self._store.timeout
            while True:
                try:
                    reply = await asked
                    break
                except NotDurable as problem:
                    found = problem.reply.tasks if problem.reply else []
                    for task in self._read(found, 0, owner, shard, lease_ms, asked_at):
                        self.give_back(task, NOT_DURABLE_MS)
                    raise
                except StoreUnavailable:
                    lost.add(call)  # it may have claimed: the next that gets through says what
                    if monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.2)
                asked_at = monotonic()
                asked = ask()
            tasks = self._read(reply.tasks, reply.now_ms, owner, shard, lease_ms, asked_at)
            wake = (reply.wake_ms - reply.now_ms) / 1000 if reply.wake_ms else None
            clock = reply.now_ms - asked_at * 1000
            reached = json.loads(reply.after) if reply.after else {}
            while looked := reached.pop("", ""):  # the owner has more leases than one run looks at
                try:
                    reply = await self._store.call_row(row(0, {"": looked}, 0), shard)
                except StoreError as problem:
                    # Not asked from the start again: what was found is begun. The others' leases run out.
                    log.warning("not all that was claimed by calls whose replies were lost was found: %s", problem)
                    break
                tasks += self._read(reply.tasks, reply.now_ms, owner, shard, lease_ms, asked_at)
                reached[""] = json.loads(reply.after).get("", "") if reply.after else ""
            return Claimed(tasks, wake, reached, clock)

        async def remembered(answering: Coroutine[Any, Any, Claimed]) -> Claimed:
            try:
                return await answering
            except NotDurable:  # what it had begun is given back
                raise
            except BaseException:
                self._lost[shard, owner, memory] |= {*lost, call}  # it may have claimed: the next that gets through says what
                raise

        return remembered(answer(ask()))

    def _read(self, rows: Iterable[Any], now_ms: int, owner: str, shard: int, lease_ms: int, asked_at: float) -> list[Task]:
        """The attempts in a reply. One that can't be read fails; it must not take the others with it."""
        tasks = []
        for row in sifted(rows):
            try:
                tasks.append(Task.of(row, now_ms, owner, shard, lease_ms, asked_at))
            except Exception as problem:
                task_id, _, _, _, fence, *_ = row
                log.exception("task %s can't be read", task_id.decode(errors="replace"))
                failure = Failure("Unreadable", f"what the store has of it can't be read: {problem}")
                ending = self._failing(id=task_id, owner=owner, fence=fence, failure=failure, retry_at=-1)
                self._store.undo(ending, shard, lasts=lease_ms / 1000)
        return tasks

    def give_back(self, task: Task, delay_ms: int = 0) -> None:
        """Send an attempt back that was never begun; nobody waits for the answer."""
        self._store.undo(self._releasing(task, 0, delay_ms), task.shard, lasts=task.lease_ms / 1000)

    def give_all_back(self, claiming: asyncio.Future[Claimed]) -> None:
        """What a claim brought whose caller has gone."""
        if not claiming.cancelled() and claiming.exception() is None:
            for task in claiming.result().tasks:
                self.give_back(task)

    async def _find_and_give_back(
        self, claiming: asyncio.Future[Claimed], shard: int, owner: str, memory: str, lease_ms: int
    ) -> None:
        """The caller of a claim has gone. If nobody knows what it had begun, ask when the store is back.

        One that was told StoreUnavailable may claim again, and gets it with that: it has one timeout for it.
        """
        if claiming.done() and (claiming.cancelled() or claiming.exception() is None):
            return
        if claiming.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._store.closing.wait(), self._store.timeout)
        else:
            await asyncio.wait((claiming,))
        await self.find_lost(shard, owner, memory, lease_ms)

    async def find_lost(self, shard: int, owner: str, memory: str, lease_ms: int) -> None:
        """Give back what an owner's calls had begun whose replies were lost. Asks until the store is back."""
        if durable := self._store.unanswered(shard):  # they travel on another connection: one may be executed yet
            await asyncio.wait({*durable})
        while self._lost.get((shard, owner, memory)):
            with contextlib.suppress(StoreUnavailable):
                for task in (await self.claim_on(shard, (), owner, 0, lease_ms, memory=memory)).tasks:
                    self.give_back(task)

    # -- ending an attempt

    async def heartbeat(self, task: Task, lease: Seconds = 30) -> Heartbeat:
        """Let an attempt's lease end `lease` seconds from now (`task/renew`). Refused once it expired or was cancelled."""
        lease_ms = milliseconds("lease", lease)
        row = self._store.row["task/renew"](**_attempt(task), lease_ms=lease_ms, lock=task.lock)
        said = await self._store.call_row(row, task.shard, lease=lease_ms / 1000)
        return Heartbeat(said / 1000) if said > 0 else Heartbeat(None, REFUSALS[said])

    async def complete(self, task: Task, result: Any = None) -> bool:
        """End the task with a result, any JSON value (`task/complete`).

        It is accepted after the lease expired, while nobody took the task over, and again from the same attempt. False: the
        attempt is not the newest, or the task was cancelled.
        """
        return bool(await self._store.call_row(self.completing(task, result), task.shard) == results.DONE)

    def completing(self, task: Task, result: Any = None) -> Row:
        """The call that `complete` makes."""
        return self._store.row["task/complete"](**_attempt(task), result="" if result is None else dump("result", result))

    async def fail(self, task: Task, error: Any, retry_at: datetime | float | None = None) -> Failed:
        """The attempt failed: the task is tried again, or is dead when its attempts are used up (`task/fail`).

        error: a text, an exception, a Failure, or any JSON value, which `failure.detail` gives back as such.
        retry_at: an aware datetime, or seconds since the Unix epoch; it wins over the task's policy, and a past one means now.
        """
        failure = Failure.of(error)
        at = -1 if retry_at is None else _instant_ms("retry_at", retry_at)
        said = await self._store.call_row(self._failing(**_attempt(task), failure=failure, retry_at=at), task.shard)
        if said > 0:
            return Failed("requeued", said / 1000)
        return Failed(OUTCOMES[said])

    async def defer(self, task: Task, seconds: Seconds) -> bool:
        """Give an attempt back, uncounted; nobody may claim the task for so long. False: not this attempt's to give back."""
        return await self._release(task, begun=False, delay_ms=milliseconds("seconds", seconds, least=0))

    async def release(self, task: Task, *, begun: bool = False) -> bool:
        """Give an attempt back, so that others go on at once (`task/release`).

        begun: its body had begun, so the attempt counts.

        False: it is not this attempt's to give back, or it was the last.
        """
        return await self._release(task, begun=begun, delay_ms=0)

    async def _release(self, task: Task, *, begun: bool, delay_ms: int) -> bool:
        return bool(await self._store.call_row(self._releasing(task, int(begun), delay_ms), task.shard) == results.WAITING)

    def _releasing(self, task: Task, begun: int, delay_ms: int) -> Row:
        call = self._store.new_call()
        return self._store.row["task/release"](**_attempt(task), begun=begun, delay_ms=delay_ms, call=call)

    def _failing(self, *, failure: Failure, **args: str | bytes | int) -> Row:
        call = self._store.new_call()
        return self._store.row["task/fail"](**args, error=failure.text, failure=failure.to_json(), call=call)

    async def release_all(self, owner: str) -> int:
        """Take back all attempts of an owner that is gone, as if their leases had expired; how many (`task/release_all`)."""
        check_name("owner", owner)
        return await self._store.until_done("task/release_all", owner=owner, limit=PAGE)


def _attempt(task: Task) -> dict[str, Any]:
    of_type("task", task, Task, "a Task that was claimed")
    return {"id": task.id, "owner": task.owner, "fence": task.fence}


def _instant_ms(argument: str, when: datetime | float) -> int:
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise InvalidArgument(argument, "must be aware: a datetime without a time zone names no instant")
        when = when.timestamp()
    elif isinstance(when, bool) or not isinstance(when, (int, float)):
        raise InvalidType(argument, f"must be an aware datetime or seconds, not {type(when).__name__}")
    if not when <= LAST or when == -math.inf:  # NaN is refused as well; an int may be too large to be a float
        raise InvalidArgument(argument, "must be an instant before the year 10000")
    return max(round(when * 1000), 0)
