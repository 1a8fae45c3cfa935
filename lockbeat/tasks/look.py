"""Looking at tasks, and tending those that have ended."""

from __future__ import annotations

import asyncio
import builtins
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, get_args

from lockbeat.errors import TaskError, TaskTimeout, UnknownTask, Unreadable
from lockbeat.store import Store, messages, results
from lockbeat.store.keys import job_of_task, shard_of_task
from lockbeat.store.replies import sifted
from lockbeat.store.wakeup import Wakeup
from lockbeat.tasks.values import STATES, Counts, EndState, State, TaskInfo
from lockbeat.values.checks import of_type, one_of, whole
from lockbeat.values.durations import Seconds, milliseconds, seconds
from lockbeat.values.names import MAX_NAME_BYTES, check_by, check_name

log = logging.getLogger("lockbeat")

PAGE = 100
ASK_AGAIN = 30.0
"""Seconds after which one who waits for the end of a task asks, though nobody told of it."""
CALLED = "is run by those who call for its slots, not by an instance: lockbeat exec"
PLACES = {
    "waiting": ("ready", "delayed"),
    "running": ("running", "jobs"),
    "dead": ("dead",),
    "done": ("ended",),
    "cancelled": ("ended",),
    None: ("running", "jobs", "ready", "delayed", "ended"),
}
RECORDED = {"cancelled": ("cancelled", "stopping", "skipped", "missed", "anchored")}
"""By the state of a task in which states its record may be; others are recorded by their own name."""


def asked(place: str, state: str | None = None, queue: str | None = None, function: str | None = None) -> dict[str, Any]:
    """What `task/list` is asked for of a place. What ends meanwhile may be found all the same: whoever reads it looks again."""
    in_queue = queue if place in ("running", "jobs", "ended") else None  # elsewhere the order is by queue, and each has the state
    said = {"queue": in_queue, "name": function}
    return {
        "texts": [f'"{name}":{json.dumps(text)}' for name, text in said.items() if text is not None],
        "job": function if function is not None and in_queue is None else "",
        "states": [] if state is None or place != "ended" else list(RECORDED.get(state, (state,))),
    }


def _said(by: str | None) -> str:
    return "" if by is None else check_by(by)


def none_again(queue: str, called: int) -> str:
    """Why none of a queue's dead tasks is tried again."""
    return f"none of queue {queue!r} can be tried again: what lockbeat exec ran ({called} dead) is run by calling the command"


class Look:
    """The verbs of `Tasks` that need no attempt: they name tasks by id, or queues."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._awaited: dict[str, set[Wakeup]] = {}
        self._unlisten: Callable[[], None] = lambda: None

    def shard_of(self, task_id: str) -> int:
        return shard_of_task(task_id, self._store.shards)

    async def _by_id(self, script: str, task_id: str, **args: Any) -> bool:
        check_name("task_id", task_id, MAX_NAME_BYTES + 24)
        reply: int = await self._store.call(script, self.shard_of(task_id), id=task_id, **args)
        if reply == results.UNKNOWN:
            raise self._unknown(task_id)
        if reply == results.CALLED:
            raise TaskError(f"{task_id} can't be tried again: job {job_of_task(task_id)!r} {CALLED}")
        if reply == results.BUSY:
            raise TaskError(f"{task_id} can't be tried again yet: it was cancelled, and its function has yet to stop")
        return reply == results.DONE

    def _unknown(self, task_id: str) -> UnknownTask:
        return UnknownTask(f"no task {task_id!r} in {self._store.connector.location}")

    async def get(self, task_id: str) -> TaskInfo:
        """What is known of a task, until its retention is over (`task/get`).

        The task of a slot is known as long as the ledger keeps it.

        Raises: UnknownTask when there is none of that id.
        """
        check_name("task_id", task_id, MAX_NAME_BYTES + 24)
        shard = self.shard_of(task_id)
        reply = await self._store.call("task/get", shard, id=task_id)
        found = TaskInfo.of(task_id, reply, partial(self._store.keys.key, shard))
        if found is None:
            raise self._unknown(task_id)
        return found

    async def wait(self, task_id: str, timeout: Seconds | None = None) -> TaskInfo:
        """Wait until a task has ended, and return what is known of it.

        Nothing is polled: the script that ends the task tells who waits for it.
        timeout: seconds; None: as long as it takes.

        Raises: UnknownTask when there is none of that id. TaskTimeout when `timeout` is over.
        """
        check_name("task_id", task_id, MAX_NAME_BYTES + 24)
        limit = None if timeout is None else seconds("timeout", timeout, least=0)
        store, shard = self._store, self.shard_of(task_id)
        if not self._awaited:
            self._unlisten = store.listen({messages.Ended: lambda ended: self._rouse(ended.task_id)}, self._on_gap)
        wakeup, waiting = Wakeup(), self._awaited.setdefault(task_id, set())
        waiting.add(wakeup)
        try:
            async with asyncio.timeout(limit):
                await store.listening(shard)
                while await self._by_id("task/await", task_id, channel=store.channel):
                    # A message can be lost with the connection: `_on_gap` makes us ask again. Or the store was emptied.
                    await wakeup.wait(ASK_AGAIN)
                return await self.get(task_id)
        except TimeoutError:
            raise TaskTimeout(task_id, limit or 0) from None
        finally:
            waiting.discard(wakeup)
            if not waiting:
                self._awaited.pop(task_id, None)
            if not self._awaited:
                self._unlisten()

    def _on_gap(self) -> None:
        for task_id in list(self._awaited):
            self._rouse(task_id)

    def _rouse(self, task_id: str) -> None:
        for wakeup in self._awaited.get(task_id, ()):
            wakeup.ring()

    async def cancel(self, task_id: str, *, by: str | None = None) -> bool:
        """End a task that has not ended; False: it had (`task/cancel`).

        A task that waits leaves its queue at once. A task that runs has ended in the store at once. Its worker is told, and
        cancels the body; whatever the attempt still reports is refused. Nothing else runs under its lease until the body has
        stopped. It does not run again, unless somebody wants that by `retry(..., cancelled=True)`.

        by: who did it, which is kept; None: nobody in particular.

        Raises: UnknownTask when there is none of that id.
        """
        return await self._by_id("task/cancel", task_id, call=self._store.new_call(), by=_said(by))

    async def retry(
        self, task_id: str, *, attempts: int = 1, delay: Seconds = 0, cancelled: bool = False, by: str | None = None
    ) -> bool:
        """Try a dead task again, or one that was cancelled (`task/retry`). False: it is neither, or too old.

        A spawned task can be tried again while it is known. The task of a slot runs under its own slot again: for a week after it
        has ended, and no longer than the ledger keeps its entry.
        attempts: how many more, 1 to 1,000.
        delay: seconds before which nobody may claim it.
        cancelled: also if it was cancelled; else that is final.
        by: who did it, which is kept; None: nobody in particular.

        Raises: UnknownTask when there is none of that id. TaskError for what `lockbeat exec` ran, as only a call can run it; and
        for a cancelled task whose function has yet to stop.
        """
        of_type("cancelled", cancelled, bool, "a bool")
        whole("attempts", attempts, 1, 1000)
        delay_ms = milliseconds("delay", delay, least=0)
        call = self._store.new_call()
        return await self._by_id(
            "task/retry", task_id, call=call, attempts=attempts, delay_ms=delay_ms, by=_said(by), cancelled=int(cancelled)
        )

    async def redrive(self, queue: str = "default", limit: int | None = None, *, by: str | None = None) -> int:
        """Let the dead tasks of a queue be tried again, each with all its attempts anew, the oldest first; how many.

        What `lockbeat exec` ran stays dead: only a call can run it. What was cancelled stays so.
        by: as for `retry`.

        Raises: TaskError when that is all there is.
        """
        check_name("queue", queue)
        left = 1 << 53 if limit is None else whole("limit", limit, 1, 1 << 53)
        count, called, told_by = 0, 0, _said(by)
        for shard in range(self._store.shards):
            async for ids in self._pages(shard, "dead", queue, None):
                while ids and count < left:
                    some, ids = ids[: left - count], ids[left - count :]
                    rows = [
                        self._store.row["task/retry"](
                            id=task_id, call=self._store.new_call(), attempts=0, delay_ms=0, by=told_by, cancelled=0
                        )
                        for task_id in some
                    ]
                    replies = sifted(await self._store.call_many(rows, shard))
                    count, called = count + replies.count(results.DONE), called + replies.count(results.CALLED)
                if count >= left:
                    return count
        if called and not count:
            raise TaskError(none_again(queue, called))
        return count

    async def purge(self, queue: str = "default", *, state: EndState | None = None) -> int:
        """Forget the tasks of a queue that have ended (`done`, `dead`, `cancelled`; None: all three); how many."""
        check_name("queue", queue)
        if state is not None:
            one_of("state", state, get_args(EndState))
        count = 0
        for shard in range(self._store.shards):
            # All are listed before any goes: these pages go by rank.
            ended = [info async for info in self._infos(shard, "ended", queue, state)]
            rows = [self._store.row["task/purge"](id=info.id, state=state or "", call=self._store.new_call()) for info in ended]
            count += sifted(await self._store.call_many(rows, shard)).count(results.DONE)
        return count

    async def dead(self, queue: str = "default", limit: int = PAGE) -> builtins.list[TaskInfo]:
        """The dead tasks of a queue, up to `limit`, the oldest first."""
        check_name("queue", queue)
        whole("limit", limit, 1, 1_000_000)
        found = await self._gather(["dead"], queue, "dead", limit)
        return sorted(found, key=lambda info: info.ended_at or 0)[:limit]

    async def list(self, queue: str | None = None, *, state: State | None = None, limit: int = PAGE) -> builtins.list[TaskInfo]:
        """Up to `limit` tasks of a queue, or of all: running, then waiting in the order in which they are claimed, then ended."""
        if queue is not None:
            check_name("queue", queue)
        if state is not None:
            one_of("state", state, STATES)
        whole("limit", limit, 1, 1_000_000)
        return await self._gather(PLACES[state], queue or "", state, limit)

    async def _gather(self, places: Sequence[str], queue: str, state: str | None, limit: int) -> builtins.list[TaskInfo]:
        found: dict[str, TaskInfo] = {}
        for place in places:
            for shard in range(self._store.shards):
                count = 0
                async for info in self._infos(shard, place, queue, state):
                    found.setdefault(info.id, info)
                    count += 1
                    if count == limit:
                        break
            if len(found) >= limit:
                break
        return [*found.values()][:limit]

    async def counts(self, queue: str = "default") -> Counts:
        """How many tasks a queue holds (`task/counts`; O(log n), and O(running) of all queues)."""
        check_name("queue", queue)
        ready = delayed = running = dead = 0
        for shard in range(self._store.shards):
            reply = await self._store.call("task/counts", shard, queue=queue, after="", limit=1)
            [(_, *counts)] = reply.queues
            ready, delayed, dead = ready + counts[0], delayed + counts[1], dead + counts[2]
            running += len(await self._running(shard, queue))
        return Counts(ready, delayed, running, dead)

    async def queues(self) -> builtins.list[str]:
        """The queues that hold waiting, running or dead tasks, in order of name."""
        names: set[str] = set()
        for shard in range(self._store.shards):
            async for page in self._store.pages("task/counts", shard, queue="", limit=PAGE):
                names.update(name.decode(errors="replace") for name, *_ in page.queues)
            names.update(info.queue for info in await self._running(shard))
        return sorted(names)

    async def _running(self, shard: int, queue: str = "") -> builtins.list[TaskInfo]:
        return [info for place in PLACES["running"] async for info in self._infos(shard, place, queue, "running")]

    async def _pages(self, shard: int, place: str, queue: str, state: str | None) -> AsyncIterator[builtins.list[str]]:
        asks = asked(place, state, queue or None)
        async for page in self._store.pages("task/list", shard, place=place, queue=queue, limit=PAGE, **asks):
            yield [task_id.decode(errors="replace") for task_id in page.ids]

    async def _infos(self, shard: int, place: str, queue: str, state: str | None) -> AsyncIterator[TaskInfo]:
        """Tasks of a queue, or of all (""), in a state, or in any. Some places are of all queues."""
        async for ids in self._pages(shard, place, queue, state):
            replies = await self._store.call_many([self._store.row["task/get"](id=task_id) for task_id in ids], shard)
            for task_id, reply in zip(ids, replies, strict=True):
                try:
                    info = TaskInfo.of(task_id, reply, partial(self._store.keys.key, shard))
                except Unreadable as problem:
                    log.error("task %r is left out: %s", task_id, problem)
                    continue
                # None: it has ended since it was listed.
                if info is not None and queue in ("", info.queue) and state in (None, info.state):
                    yield info
