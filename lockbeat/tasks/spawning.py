"""Spawning: putting tasks into their queues, each once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import anyio

from lockbeat.errors import Unreadable
from lockbeat.store import results
from lockbeat.store.durable import Durability
from lockbeat.store.keys import queue_tag
from lockbeat.store.rows import Row
from lockbeat.store.scripts import load
from lockbeat.tasks.look import Look
from lockbeat.tasks.values import NewTask, Spawned, SpawnOptions
from lockbeat.values.checks import of_type


class Spawning(Look):
    """The verbs of `Tasks` that make tasks."""

    async def spawn(
        self, name: str, params: Any = None, *, durability: Durability | None = None, **options: Unpack[SpawnOptions]
    ) -> Spawned:
        """Put a task into its queue (`task/spawn`). A cancelled call has spawned it or has not, and never twice.

        name: of the function that is to run.
        params: any JSON value of at most 1 MiB.
        durability: nobody may claim the task before it is as durable as this asks for.
        options: the fields of `NewTask`. For an `idempotency_key` that the queue knows, the answer is the first task, with
            `created` False, until its retention is over.

        Raises: NotDurable when the durability is not met in time; the task is withdrawn.
        """
        return (await self.spawn_many([NewTask.declare(name, params, options)], durability=durability))[0]

    async def spawn_many(self, tasks: Iterable[NewTask], *, durability: Durability | None = None) -> list[Spawned]:
        """Spawn tasks in one round trip a shard (64 share a run of the script); the answers in their order.

        Each is spawned once or not at all. If the store is lost on the way, some may be, and others not.
        durability: nobody may claim one before it is as durable as this asks for.

        Raises: NotDurable when the durability is not met in time; the tasks are withdrawn.
        """
        of_type("tasks", tasks, Iterable, "NewTasks in a list")
        tasks = [*tasks]
        for task in tasks:
            of_type("tasks", task, NewTask, "NewTask")
        spans = self._store.events.spans
        if spans is None or not tasks:
            return await self._spawn_all(tasks, durability)
        with spans.sending(tasks) as sent:
            return await self._spawn_all(sent, durability)

    async def _spawn_all(self, tasks: Sequence[NewTask], durability: Durability | None) -> list[Spawned]:
        rows: list[Row] = []
        hold_ms = durability.timeout_ms + round(3000 * self._store.timeout) if durability is not None else 0
        by_shard: dict[int, list[int]] = defaultdict(list)
        delays = []
        for at, task in enumerate(tasks):
            call = self._store.new_call()
            rest = call if task.idempotency_key is None else _digest(task.queue, task.idempotency_key)
            task_id = f"{queue_tag(task.queue)}-{rest}"
            held = max(task.delay_ms, hold_ms)
            row = self._store.row["task/spawn"](
                id=task_id,
                call=call,
                record=task.record(call if hold_ms else ""),
                queue=task.queue,
                priority=task.priority,
                delay_ms=held,
                max_delay_ms=task.max_delay_ms,
                payload=task.payload,
            )
            rows.append(row)
            by_shard[self.shard_of(task_id)].append(at)
            delays.append(task.delay_ms)
        found: dict[int, Spawned] = {}

        async def one_shard(shard: int, places: list[int]) -> None:
            given = [rows[at] for at in places]
            if durability is None:
                replies = await self._store.call_many(given, shard)
            else:
                replies = await self._spawn_durably(shard, given, [delays[at] for at in places], durability)
            for at, reply in zip(places, replies, strict=True):
                if isinstance(reply, Unreadable):
                    raise reply
                found[at] = Spawned(rows[at].id, reply.attempt, reply.created == results.DONE)

        if len(rows) == 1 and durability is None:
            [shard] = by_shard
            reply = await self._store.call_row(rows[0], shard)
            return [Spawned(rows[0].id, reply.attempt, reply.created == results.DONE)]
        await asyncio.gather(*(one_shard(shard, places) for shard, places in by_shard.items()))
        return [found[at] for at in range(len(rows))]

    async def _spawn_durably(self, shard: int, rows: Sequence[Row], delays: Sequence[int], durability: Durability) -> list[Any]:
        """Spawned with a delay longer than the wait; then let go, or withdrawn. If we die in between they go by themselves."""
        replies: list[Any] = []
        most = load("task/spawn").most
        try:
            for start in range(0, len(rows), most):
                run = rows[start : start + most]
                replies += await self._store.call_many_durably(
                    run, shard, durability, changed=lambda reply: reply.created > results.NO
                )
        except BaseException:
            lasts = durability.timeout_ms / 1000 + 3 * self._store.timeout  # then it is let go, withdrawn or not
            undone = [self._store.undo(self._confirming(row, -1), shard, lasts=lasts, durably=True) for row in rows]
            # Before it is spawned again under the same key.
            with anyio.move_on_after(self._store.timeout, shield=True):
                await asyncio.wait(undone)
            raise
        created = [
            self._confirming(row, delay)
            for row, delay, reply in zip(rows, delays, replies, strict=True)
            if not isinstance(reply, Unreadable) and reply.created > results.NO
        ]
        await self._store.call_many(created, shard)
        return replies

    def _confirming(self, spawned: Row, delay_ms: int) -> Row:
        return self._store.row["task/confirm"](id=spawned.id, call=spawned.call, delay_ms=delay_ms)


def _digest(queue: str, key: str) -> str:
    """Names the task of a key: the same for everybody."""
    return hashlib.blake2b(json.dumps([queue, key]).encode(), digest_size=10).hexdigest()
