"""Tasks against a model of what each script answers and leaves behind; the server's clock is moved by the test.

LOCKBEAT_TEST_EXAMPLES=1000 looks longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import fakeredis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from lockbeat import Exponential, Fixed
from lockbeat.errors import TaskError, UnknownTask
from lockbeat.store.rows import Row
from lockbeat.store.scripts import Script
from lockbeat.tasks import NewTask, Task, TaskInfo
from tests.conftest import CHOSEN
from tests.stepped import Stepped, played
from tests.task_model import Model, Record

EXAMPLES = int(os.environ.get("LOCKBEAT_TEST_EXAMPLES", "10"))
QUEUES = st.sampled_from(["q", "q", "q\xff"])
OWNERS = st.sampled_from(["a", "a", "ab"])
LEASES = st.sampled_from([0.5, 3, 60])
WHICH = st.integers(0, 9)
"""Of the attempts that still hold their leases; 7 to 9: of all that there have been."""
TWICE = st.booleans()
"""The reply of the call is lost, and it is sent again."""


class ReplyLost(Exception):
    """Nobody heard what a claim was answered."""


def unhurried(script: Script) -> Script:
    """Without the bounds by CPU time: a claim may take fewer where the machine is slow, which the model does not know of."""
    source = re.sub(r"(local (?:SWEEP|CLAIM)_MS =) \S+", r"\1 math.huge", script.source)
    assert ("SWEEP_MS" in source) is (source != script.source)
    return replace(script, source=source, sha=hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class TasksFollowTheModel(Stepped):
    def __init__(self) -> None:
        self.model = Model()
        super().__init__()
        store, load = self.lb.store, self.lb.store._load
        store._load = lambda name: unhurried(load(name))  # type: ignore[method-assign]
        self.send, self.send_many, self.submit, self.undone = store.call_row, store.call_many, store.submit, store.undo
        store.call = self.call  # type: ignore[method-assign]
        store.call_row = self.call_row  # type: ignore[method-assign]
        store.call_many = self.call_many  # type: ignore[method-assign]
        store.submit = self.claims  # type: ignore[method-assign]
        store.undo = self.undo  # type: ignore[method-assign]
        self.calls: list[Row] = []
        self.attempts: list[Task] = []
        self.ids: list[str] = []
        self.twice = self.lose = False

    def let_pass(self, milliseconds: int) -> None:
        super().let_pass(milliseconds)
        self.model.now = self.now_ms

    # -- every call is held against the model on its way

    def expected(self, row: Row) -> Any:
        verb = row.script.removeprefix("task/")
        return getattr(self.model, verb)(*row)

    async def call(self, name: str, shard: int, /, *, lease: float = math.inf, **args: Any) -> Any:
        return await self.call_row(self.lb.store.row[name](**args), shard, lease=lease)

    async def call_row(self, row: Row, shard: int, *, lease: float = math.inf) -> Any:
        reply = await self.send(row, shard, lease=lease)
        if row.script.startswith("task/") and row.script not in ("task/get", "task/list", "task/counts"):
            assert reply == self.expected(row), row
            self.calls.append(row)
            if row.script == "task/spawn":
                self.model.sweep(2, spared=True)
            if self.twice:
                self.twice = False
                await self.again(1)
        return reply

    async def again(self, age: int) -> None:
        """The model says what a call gets that is repeated: its first outcome, or what a new one would get."""
        row = self.calls[-age]
        reply = await self.send(row, 0)
        assert reply == self.expected(row), row
        if row.script == "task/spawn":
            self.model.sweep(2, spared=True)

    async def call_many(self, rows: Sequence[Row], shard: int) -> list[Any]:
        replies = await self.send_many(rows, shard)
        if rows and rows[0].script not in ("task/get", "task/list"):
            assert replies == [self.expected(row) for row in rows], rows
            if rows[0].script == "task/spawn":
                self.model.sweep(2 * len(rows), spared=True)
        return replies

    def claims(self, row: Row, shard: int, **options: Any) -> asyncio.Future[Any]:
        async def claim() -> Any:
            reply = await self.submit(row, shard, **options)
            self.check_claimed(row, reply)
            if self.lose:
                self.lose = False
                raise ReplyLost
            return reply

        assert row.script == "task/claim"
        return asyncio.ensure_future(claim())

    def undo(self, row: Row, shard: int, *, lasts: float, durably: bool = False) -> asyncio.Future[Any]:
        """Nobody hears the answer."""
        self.expected(row)
        return self.undone(row, shard, lasts=lasts, durably=durably)

    def check_claimed(self, row: Row, reply: Any) -> None:
        lost, [queue] = json.loads(row.lost), json.loads(row.queues)
        rows = self.model.claim(queue, row.owner, row.call, row.limit, row.lease_ms, lost)
        assert [[task[0].decode(), task[3], *task[5:8]] for task in reply.tasks] == rows
        for task in reply.tasks:
            task_id, fence = task[0].decode(), task[4]
            lease, last = self.model.leases[task_id], self.model.last_fence.get(task_id, 0)
            assert fence == lease.fence or (fence > last and not lease.fence)
            lease.fence = self.model.last_fence[task_id] = fence
            assert task[3] <= self.model.tasks[task_id].max_attempts

    # -- the verbs

    def attempt(self, which: int) -> Task:
        live = [one for one in self.attempts if self.model.mine(one.id, one.owner, one.fence)]
        some = live if live and which < 7 else self.attempts
        return some[which % len(some)]

    @rule(
        queue=QUEUES,
        key=st.sampled_from([None, "one", "one"]),
        max_attempts=st.sampled_from([1, 2, 3]),
        retry=st.sampled_from([None, Fixed(0.5, jitter=0), Exponential(1, factor=3, max=5, jitter=0)]),
        delay=st.sampled_from([0, 0, 0.5]),
        priority=st.sampled_from([0, 0, 1, -49, 49]),
        max_delay=st.sampled_from([None, None, 0.5, 10]),
        max_duration=st.sampled_from([None, 0.5, 10]),
        retention=st.sampled_from([0, 0, 3600]),
        twice=TWICE,
    )
    def spawn(self, twice: bool, **options: Any) -> None:
        self.twice = twice
        before, key = set(self.model.tasks), options.pop("key")
        if options["max_delay"] is not None:
            options["max_delay"] += options["delay"]
        spawned = self.run(self.lb.tasks.spawn("job", {"n": 2**60}, idempotency_key=key, **options))
        assert spawned.created or spawned.task_id in before
        self.ids.append(spawned.task_id)

    @initialize(most=st.integers(1, 2), retention=st.sampled_from([0, 3600]), lease=LEASES)
    def start(self, most: int, retention: float, lease: float) -> None:
        """Not every example spawns and claims by itself."""
        self.spawn_several("q", most, [0, 0, 5])
        spawned = self.run(
            self.lb.tasks.spawn("job", queue="q", idempotency_key="one", retention=retention, priority=3, retry=None)
        )
        self.ids.append(spawned.task_id)
        self.claim("q", "a", 3, lease)

    @rule(queue=QUEUES, most=st.integers(1, 2), priorities=st.lists(st.sampled_from([0, 5]), min_size=2, max_size=4))
    def spawn_several(self, queue: str, most: int, priorities: list[int]) -> None:
        tasks = [NewTask("job", queue=queue, max_attempts=most, retry=None, priority=one) for one in priorities]
        self.ids += [one.task_id for one in self.run(self.lb.tasks.spawn_many(tasks))]

    @rule(queue=QUEUES, owner=OWNERS, limit=st.sampled_from([1, 2, 10]), lease=LEASES)
    def claim(self, queue: str, owner: str, limit: int, lease: float) -> None:
        self.attempts += self.run(self.lb.tasks.claim(queue, owner, limit, lease))

    @rule(queue=QUEUES, owner=OWNERS, limit=st.sampled_from([1, 2]), pause=st.sampled_from([0, 500]))
    def claim_and_lose_the_reply(self, queue: str, owner: str, limit: int, pause: int) -> None:
        """The owner's next claim brings what the lost one had begun, as far as it has not run out by then."""
        before = set(self.model.leases)
        self.lose = True
        with pytest.raises(ReplyLost):
            self.run(self.lb.tasks.claim(queue, owner, limit, 0.5))
        begun = set(self.model.leases) - before
        self.let_pass(pause)
        tasks = self.run(self.lb.tasks.claim(queue, owner, limit, 60))
        assert pause or begun <= {task.id for task in tasks}
        self.attempts += tasks

    @precondition(lambda self: self.attempts)
    @rule(which=WHICH, lease=LEASES, twice=TWICE)
    def heartbeat(self, which: int, lease: float, twice: bool) -> None:
        self.twice, task = twice, self.attempt(which)
        was = self.model.leases.get(task.id)
        live = was is not None and was.fence == task.fence and was.until_ms > self.model.now and not was.cancelled
        said = self.run(self.lb.tasks.heartbeat(task, lease))
        assert not said or live
        if said:
            assert said.expires_at == (self.model.now + round(lease * 1000)) / 1000
        elif live:
            assert said.refusal == "cancelled"  # max_duration is over

    @precondition(lambda self: self.attempts)
    @rule(which=WHICH, result=st.sampled_from([None, [], {"rows": [2**60]}]), twice=TWICE)
    def complete(self, which: int, result: Any, twice: bool) -> None:
        self.twice, task = twice, self.attempt(which)
        if self.run(self.lb.tasks.complete(task, result)):
            assert self.run(self.lb.tasks.complete(task, result))

    @precondition(lambda self: self.attempts)
    @rule(which=WHICH, retry_in=st.sampled_from([None, None, -5, 0.75, 20]), twice=TWICE)
    def fail(self, which: int, retry_in: float | None, twice: bool) -> None:
        self.twice = twice
        retry_at = None if retry_in is None else self.model.now / 1000 + retry_in
        said = self.run(self.lb.tasks.fail(self.attempt(which), "broken", retry_at))
        if said.outcome == "requeued" and retry_at is not None:
            assert said.retry_at == max(retry_at, self.model.now / 1000)

    @precondition(lambda self: self.attempts)
    @rule(which=WHICH, begun=st.booleans(), twice=TWICE)
    def release(self, which: int, begun: bool, twice: bool) -> None:
        self.twice, task = twice, self.attempt(which)
        if self.run(self.lb.tasks.release(task, begun=begun)) and not begun:
            assert self.model.tasks[task.id].attempts == task.attempt - 1

    @precondition(lambda self: self.attempts)
    @rule(which=WHICH, seconds=st.sampled_from([0.5, 10]), twice=TWICE)
    def defer(self, which: int, seconds: float, twice: bool) -> None:
        self.twice = twice
        self.run(self.lb.tasks.defer(self.attempt(which), seconds))

    @precondition(lambda self: self.ids)
    @rule(which=st.integers(0, 5), twice=TWICE)
    def cancel(self, which: int, twice: bool) -> None:
        self.cancel_one(self.ids[-1 - which % len(self.ids)], twice)

    @precondition(lambda self: self.attempts)
    @rule(which=WHICH, twice=TWICE)
    def cancel_what_runs(self, which: int, twice: bool) -> None:
        self.cancel_one(self.attempt(which).id, twice)

    def cancel_one(self, task_id: str, twice: bool) -> None:
        self.twice = twice
        with self.unknown_only(task_id):
            self.run(self.lb.tasks.cancel(task_id))
            assert self.model.tasks[task_id].ended

    @precondition(lambda self: self.ids)
    @rule(which=st.integers(0, 5), attempts=st.integers(1, 2), delay=st.sampled_from([0, 0.5]), twice=TWICE)
    def retry(self, which: int, attempts: int, delay: float, twice: bool) -> None:
        dead = [task.id for task in self.model.tasks.values() if task.state == "dead"] or self.ids
        task_id = dead[-1 - which % len(dead)]
        self.twice = twice
        with self.unknown_only(task_id):
            if self.run(self.lb.tasks.retry(task_id, attempts=attempts, delay=delay)):
                task = self.model.tasks[task_id]
                assert task.max_attempts - task.attempts == attempts

    @precondition(lambda self: any(task.state == "cancelled" for task in self.model.tasks.values()))
    @rule(which=st.integers(0, 5), attempts=st.integers(1, 2), delay=st.sampled_from([0, 0.5]), twice=TWICE)
    def retry_what_was_cancelled(self, which: int, attempts: int, delay: float, twice: bool) -> None:
        """It waits for its body to stop, and is tried again then."""
        cancelled = [task.id for task in self.model.tasks.values() if task.state == "cancelled"]
        task_id = cancelled[-1 - which % len(cancelled)]
        stopping, self.twice = task_id in self.model.leases, twice
        with pytest.raises(TaskError) if stopping else contextlib.nullcontext():
            assert self.run(self.lb.tasks.retry(task_id, attempts=attempts, delay=delay, cancelled=True))
            assert self.model.tasks[task_id].max_attempts - self.model.tasks[task_id].attempts == attempts

    def unknown_only(self, task_id: str) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if task_id in self.model.tasks else pytest.raises(UnknownTask)

    @precondition(lambda self: any(task.state == "dead" for task in self.model.tasks.values()))
    @rule(queue=QUEUES, limit=st.sampled_from([None, 1]))
    def redrive(self, queue: str, limit: int | None) -> None:
        dead = [task for task in self.of(queue) if task.state == "dead"]
        dead.sort(key=lambda task: (task.ended_ms, task.id))
        assert self.run(self.lb.tasks.redrive(queue, limit)) == len(dead[:limit])
        assert [task.state for task in dead] == ["waiting" if at < (limit or len(dead)) else "dead" for at in range(len(dead))]

    @precondition(lambda self: any(task.ended for task in self.model.tasks.values()))
    @rule(queue=QUEUES, state=st.sampled_from([None, "done", "dead", "cancelled"]))
    def purge(self, queue: str, state: Any) -> None:
        """What was cancelled stays until its body has stopped."""
        ended = [
            task for task in self.of(queue) if task.ended and state in (None, task.state) and task.id not in self.model.leases
        ]
        assert self.run(self.lb.tasks.purge(queue, state=state)) == len(ended)
        assert not {task.id for task in ended} & set(self.model.tasks)

    @precondition(lambda self: self.model.leases)
    @rule(owner=OWNERS)
    def release_all(self, owner: str) -> None:
        assert self.run(self.lb.tasks.release_all(owner)) == self.model.release_all(owner)

    @precondition(lambda self: len(self.calls) > 3)
    @rule(age=st.integers(2, 4))
    def repeat_an_older_call(self, age: int) -> None:
        self.run(self.again(age))

    @rule(milliseconds=st.sampled_from([1, 499, 500, 3_000, 20_000, 3_600_000]))
    def let_time_pass(self, milliseconds: int) -> None:
        self.let_pass(milliseconds)

    @precondition(lambda self: self.model.ahead())
    @rule(which=st.integers(0, 3), early=st.sampled_from([0, 0, 1]))
    def let_it_come(self, which: int, early: int) -> None:
        """What is next to run out, to come due or to be over: to the millisecond, or one less."""
        ahead = self.model.ahead()
        self.let_pass(max(ahead[which % len(ahead)] - self.model.now - early, 0))

    # -- what is always so

    def of(self, queue: str) -> list[Record]:
        return [task for task in self.model.tasks.values() if task.queue == queue]

    @invariant()
    def each_task_is_in_the_one_state_that_the_model_says(self) -> None:
        infos = self.run(self.lb.tasks.list(limit=1000))
        assert {info.id for info in infos} == set(self.model.tasks)
        assert len({info.id for info in infos}) == len(infos)
        for info in infos:
            self.check_info(info)

    def check_info(self, info: TaskInfo) -> None:
        task, lease = self.model.tasks[info.id], self.model.leases.get(info.id)
        assert (info.state, info.queue, info.priority) == (task.state, task.queue, task.priority)
        assert (info.attempts, info.max_attempts) == (task.attempts, task.max_attempts)
        assert info.attempts <= info.max_attempts
        assert (info.due_at, info.spawned_at) == (task.due_ms / 1000, task.spawned_ms / 1000)
        if task.state == "running":
            assert lease is not None
            assert (info.owner, info.fence, info.expires_at) == (lease.owner, lease.fence, lease.until_ms / 1000)
        if task.ended:
            assert info.ended_at == task.ended_ms / 1000
        if task.state == "done":
            assert (info.owner, info.fence, info.result) == (*task.ended_by, task.result)

    @rule()
    def counts_agree(self) -> None:
        tasks, now, held = self.lb.tasks, self.model.now, set()
        stopping = {task.queue for task in self.model.tasks.values() if task.id in self.model.leases}
        for queue in ("q", "q\xff"):
            states = [task.state for task in self.of(queue)]
            ready = sum(task.state == "waiting" and task.due_ms <= now for task in self.of(queue))
            counts = self.run(tasks.counts(queue))
            assert (counts.ready, counts.delayed) == (ready, states.count("waiting") - ready)
            assert (counts.running, counts.dead) == (states.count("running"), states.count("dead"))
            dead = self.run(tasks.dead(queue))
            assert [info.id for info in dead] == [
                task.id for task in sorted(self.of(queue), key=lambda task: (task.ended_ms, task.id)) if task.state == "dead"
            ]
            held |= {queue} & {task.queue for task in self.of(queue) if task.state in ("waiting", "running", "dead")}
        queues = self.run(tasks.queues())
        assert queues == sorted(set(queues))
        assert held <= set(queues) <= held | stopping

    def at_the_end(self) -> None:
        self.counts_agree()
        for task_id in list(self.model.tasks):
            self.run(self.lb.tasks.cancel(task_id))
        self.let_pass(61_000)
        assert self.run(self.lb.tasks.claim("q", "a")) == []
        for queue in ("q", "q\xff"):
            self.run(self.lb.tasks.purge(queue))
        left = self.left_behind()
        assert not left, f"left behind: {left}"

    def left_behind(self) -> Iterable[str]:
        """The keys of tasks that the store still has; what it counts, it may keep."""
        with contextlib.closing(fakeredis.FakeRedis(server=self.server, protocol=2)) as raw:
            return [key.decode() for key in raw.scan_iter(match="*}:task*") if not key.endswith(b":task:stats")]


if "memory" in CHOSEN:
    TestTasksFollowTheModel = played(TasksFollowTheModel, EXAMPLES)
