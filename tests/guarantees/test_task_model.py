"""Tasks against a model of what each script answers and leaves behind; the server's clock is moved by the test.

LOCKBEAT_TEST_EXAMPLES=1000 looks longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import fakeredis
import pytest
import time_machine
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lockbeat import Exponential, Fixed, Lockbeat
from lockbeat.connection._memory import memory_server
from lockbeat.errors import UnknownTask
from lockbeat.store import results
from lockbeat.store.rows import Row
from lockbeat.store.scripts import Script
from lockbeat.tasks import NewTask, Task, TaskInfo
from tests.conftest import CHOSEN

T = TypeVar("T")
EXAMPLES = int(os.environ.get("LOCKBEAT_TEST_EXAMPLES", "10"))
START_MS = 1_935_000_000_000
WEEK_MS = 7 * 86_400_000
REMEMBERED_MS = 20_000
"""How long a call may be repeated."""
QUEUES = st.sampled_from(["q", "q", "q\xff"])
OWNERS = st.sampled_from(["a", "a", "ab"])
LEASES = st.sampled_from([0.5, 3, 60])
WHICH = st.integers(0, 9)
"""Of the attempts that still hold their leases; 7 to 9: of all that there have been."""
TWICE = st.booleans()
"""The reply of the call is lost, and it is sent again."""

_numbers = itertools.count()


@dataclass
class Lease:
    owner: str
    fence: int
    until_ms: int
    token: str
    may_run_until: int
    """0: without limit."""
    cancelled: bool = False
    """The task has ended, but perhaps not the body."""


@dataclass
class Record:
    """A task."""

    id: str
    queue: str
    priority: int
    max_attempts: int
    policies: dict[str, Any]
    spawned_ms: int
    due_ms: int = 0
    place: int = 0
    """Among those of the same priority and time."""
    state: str = "waiting"
    """waiting, running, done, dead or cancelled."""
    attempts: int = 0
    till: int = 0
    """0: without limit; else cancelled then."""
    ended_ms: int = 0
    forget_ms: int = 0
    ended_by: tuple[str, int] = ("", 0)
    result: Any = None

    @property
    def keep_ms(self) -> int:
        return WEEK_MS if self.state == "dead" else int(self.policies["retention_ms"])

    @property
    def ended(self) -> bool:
        return self.state in ("done", "dead", "cancelled")


class Replies:
    """Answers that may be asked for again: in windows of 20 s, each kept for two more, or until the second after it is used."""

    def __init__(self) -> None:
        self.windows: dict[int, dict[str, int]] = {}

    def keep(self, now: int, call: str, answer: int) -> int:
        at = now // REMEMBERED_MS
        if at not in self.windows:
            self.windows = {window: told for window, told in self.windows.items() if window == at - 1}
        self.windows.setdefault(at, {})[call] = answer
        return answer

    def of(self, now: int, call: str) -> int:
        """0: nothing is known of it."""
        known = [told for window, told in self.windows.items() if now < (window + 3) * REMEMBERED_MS and call in told]
        return known[0][call] if known else 0


class Model:
    """What the store holds; a method for each script, which returns what it answers."""

    def __init__(self) -> None:
        self.now = START_MS
        self.tasks: dict[str, Record] = {}
        self.leases: dict[str, Lease] = {}
        self.last_fence: dict[str, int] = {}
        self.replies = Replies()
        self._places = itertools.count(1)

    # -- what happens to a task

    def enqueue(self, task: Record, due: int) -> None:
        task.state, task.due_ms, task.place = "waiting", due, next(self._places)

    def finish(self, task: Record, state: str, by: tuple[str, int] = ("", 0)) -> None:
        task.state, task.ended_ms, task.ended_by, task.till = state, self.now, by, 0
        task.forget_ms = self.now + max(task.keep_ms, REMEMBERED_MS)

    def cancelled(self, task: Record) -> None:
        lease = self.leases.get(task.id)
        self.finish(task, "cancelled")
        if lease:
            lease.cancelled = True

    def failed(self, task: Record, due: int | None) -> int:
        """When it is tried again; or DEAD, or CANCELLED."""
        if task.attempts >= task.max_attempts:
            self.finish(task, "dead")
            return results.DEAD
        when = math.ceil(max(self.now, self.now + delay_ms(task) if due is None else due))
        if task.till and when >= task.till:
            self.finish(task, "cancelled")
            return results.CANCELLED
        self.enqueue(task, when)
        return when

    def lost(self, task_id: str, due: int | None = None) -> None:
        lease = self.leases.pop(task_id)
        if not lease.cancelled:
            self.failed(self.tasks[task_id], due)

    def sweep(self, most: int, *, spared: bool = False) -> None:
        """What time has brought. `spared`: attempts are not taken back, for they are of the same process."""
        for task_id in [] if spared else soonest({one: lease.until_ms for one, lease in self.leases.items()}, self.now, most):
            self.lost(task_id)
        for task_id in soonest({task.id: task.till for task in self.tasks.values() if task.till}, self.now, most):
            self.cancelled(self.tasks[task_id])
        kept = {task.id: task.forget_ms for task in self.tasks.values() if task.ended}
        for task_id in soonest(kept, self.now, most):
            if task_id in self.leases:
                self.tasks[task_id].forget_ms = self.now + REMEMBERED_MS  # its body has yet to stop
            else:
                del self.tasks[task_id]

    def mine(self, task_id: str, owner: str, fence: int) -> Lease | None:
        lease = self.leases.get(task_id)
        return lease if lease and (lease.owner, lease.fence) == (owner, fence) else None

    def leave(self, lease: Lease, task_id: str) -> Record | None:
        """The attempt is over. Its task, unless that had been cancelled."""
        del self.leases[task_id]
        return None if lease.cancelled else self.tasks[task_id]

    def answered(self, call: str) -> int:
        return self.replies.of(self.now, call)

    def answer(self, call: str, said: int) -> int:
        return self.replies.keep(self.now, call, said)

    def ahead(self) -> list[int]:
        """Times at which something happens."""
        times = [lease.until_ms for lease in self.leases.values()]
        times += [task.till for task in self.tasks.values()]
        times += [task.due_ms for task in self.tasks.values() if task.state == "waiting"]
        times += [task.ended_ms + task.keep_ms for task in self.tasks.values() if task.ended]
        return sorted({at for at in times if at > self.now})

    # -- the scripts

    def spawn(
        self, task_id: str, call: str, record: str, queue: str, priority: int, delay: int, max_delay: int, _: str
    ) -> tuple[int, int]:
        known = self.tasks.get(task_id)
        keyed = task_id[4:] != call
        if known and (not keyed or self.answered(call)):
            return (results.DONE, 1)
        if known and known.ended and known.ended_ms + known.keep_ms <= self.now and task_id not in self.leases:
            known = None
        if known:
            return (results.NO, max(known.attempts + (known.state == "waiting"), 1))
        if keyed:
            self.answer(call, results.DONE)
        most, _, policies = record.partition(" ")
        task = Record(task_id, queue, priority, int(most), json.loads(policies), self.now)
        task.till = self.now + max_delay if max_delay else 0
        self.tasks[task_id] = task
        self.enqueue(task, self.now + delay)
        return (1, 1)

    def claim(self, queue: str, owner: str, call: str, limit: int, lease_ms: int, lost: Sequence[str]) -> list[list[Any]]:
        """Rows of id, attempt, expiry, due time and limit."""
        found = [
            task_id
            for task_id, lease in sorted(self.leases.items())
            if lease.owner == owner and lease.until_ms > self.now and lease.token in lost and not lease.cancelled
        ]
        self.sweep(40)
        ready = [
            task for task in self.tasks.values() if (task.state, task.queue) == ("waiting", queue) and task.due_ms <= self.now
        ]
        ready.sort(key=lambda task: (-task.priority, task.due_ms, task.place))
        for task in ready[: max(limit - len(found), 0)]:
            task.state, task.attempts = "running", task.attempts + 1
            longest = task.policies.get("max_duration_ms")
            if task.attempts == 1 or (longest and not task.till):
                task.till = self.now + longest if longest else 0
            self.leases[task.id] = Lease(owner, 0, self.now + lease_ms, call, task.till)
            found.append(task.id)
        return [
            [one.id, one.attempts, self.leases[one.id].until_ms, one.due_ms, one.till]
            for one in map(self.tasks.__getitem__, found)
        ]

    def renew(self, task_id: str, owner: str, fence: int, lease_ms: int, _: str) -> int:
        lease, task = self.leases.get(task_id), self.tasks.get(task_id)
        if lease is None:
            return results.CANCELLED if task and task.state == "cancelled" else results.EXPIRED
        if not self.mine(task_id, owner, fence):
            return results.NOT_YOURS
        if lease.may_run_until and lease.may_run_until <= self.now and not lease.cancelled:
            self.cancelled(self.tasks[task_id])
        live = lease.until_ms > self.now
        if live:
            lease.until_ms = self.now + lease_ms  # of a cancelled one, too: until its body has stopped
        return results.CANCELLED if lease.cancelled else lease.until_ms if live else results.EXPIRED

    def complete(self, task_id: str, owner: str, fence: int, result: str) -> int:
        lease, task = self.mine(task_id, owner, fence), self.tasks.get(task_id)
        if lease:
            task = self.leave(lease, task_id)
            if task:
                self.finish(task, "done", (owner, fence))
                task.result = json.loads(result) if result else None
            return results.DONE if task else results.NOT_YOURS
        mine = task_id not in self.leases and task is not None and task.state == "done" and task.ended_by == (owner, fence)
        return results.DONE if mine else results.NOT_YOURS

    def fail(self, task_id: str, owner: str, fence: int, _: str, __: str, retry_at: int, call: str) -> int:
        lease = self.mine(task_id, owner, fence)
        if not lease:
            return self.answered(call) or results.NOT_YOURS
        task = self.leave(lease, task_id)
        if task is None:
            return results.NOT_YOURS
        return self.answer(call, self.failed(task, retry_at if retry_at >= 0 else None))

    def release(self, task_id: str, owner: str, fence: int, begun: int, delay: int, call: str) -> int:
        lease = self.mine(task_id, owner, fence)
        if lease is None:
            return self.answered(call) or results.NOT_YOURS
        task = self.leave(lease, task_id)
        if task is None:
            return results.NOT_YOURS
        if begun:
            return self.answer(call, results.WAITING if self.failed(task, self.now + delay) > 0 else results.FINISHED)
        task.attempts -= 1
        if task.attempts == 0:
            task.till = task.spawned_ms + task.policies["max_delay_ms"] if "max_delay_ms" in task.policies else 0
        self.enqueue(task, self.now + delay if delay else task.due_ms)  # it keeps its place
        return self.answer(call, results.WAITING)

    def cancel(self, task_id: str, call: str) -> int:
        task = self.tasks.get(task_id)
        if self.answered(call):
            return results.DONE
        if task is None:
            return results.UNKNOWN
        if task.ended:
            return results.FINISHED
        self.cancelled(task)
        return self.answer(call, results.DONE)

    def retry(self, task_id: str, call: str, more: int, delay: int) -> int:
        task = self.tasks.get(task_id)
        if self.answered(call):
            return results.DONE
        if task is None:
            return results.UNKNOWN
        if task.state != "dead":
            return results.NO
        if more:
            task.max_attempts = task.attempts + more
        else:
            task.attempts = 0
        self.enqueue(task, self.now + delay)
        return self.answer(call, results.DONE)

    def purge(self, task_id: str, state: str, call: str) -> int:
        task = self.tasks.get(task_id)
        if task is None or not task.ended or task_id in self.leases:
            return self.answered(call) or results.NO
        if state not in ("", task.state):
            return results.NO
        del self.tasks[task_id]
        return self.answer(call, results.DONE)

    def release_all(self, owner: str) -> int:
        mine = [task_id for task_id, lease in sorted(self.leases.items()) if lease.owner == owner]
        live = sum(self.leases[task_id].until_ms > self.now for task_id in mine)
        for task_id in mine:
            self.lost(task_id, self.now)
        return self.answer("release_all", live)


def soonest(times: dict[str, int], now: int, most: int) -> list[str]:
    """The first that are over, in the order of the store."""
    return [one for at, one in sorted((at, one) for one, at in times.items()) if at <= now][:most]


def delay_ms(task: Record) -> float:
    """By the task's policy, after the attempt that it is at."""
    match task.policies.get("retry"):
        case {"type": "fixed", "seconds": seconds}:
            return float(seconds) * 1000
        case {"base": base, "factor": factor, "max": most}:
            return float(min(base * factor ** (task.attempts - 1), most)) * 1000
    return 0


class ReplyLost(Exception):
    """Nobody heard what a claim was answered."""


def unhurried(script: Script) -> Script:
    """Without the bounds by CPU time: a claim may take fewer where the machine is slow, which the model does not know of."""
    source = re.sub(r"(local (?:SWEEP|CLAIM)_MS =) \S+", r"\1 math.huge", script.source)
    assert ("SWEEP_MS" in source) is (source != script.source)
    return replace(script, source=source, sha=hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class TasksFollowTheModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.clock = time_machine.travel(0, tick=False)
        self.travel = self.clock.start()
        self.let_pass(0)
        self.runner = asyncio.Runner()
        name = f"tasks-{next(_numbers)}"
        self.server = memory_server(name)
        self.lb = Lockbeat(f"memory://{name}", namespace="model")
        self.run(self.lb.__aenter__())
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

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def let_pass(self, milliseconds: int) -> None:
        self.model.now += milliseconds
        self.travel.move_to(self.model.now / 1000 + 0.0002)  # a float may lie a little before its millisecond

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

    def teardown(self) -> None:
        try:
            self.counts_agree()
            for task_id in list(self.model.tasks):
                self.run(self.lb.tasks.cancel(task_id))
            self.let_pass(61_000)
            assert self.run(self.lb.tasks.claim("q", "a")) == []
            for queue in ("q", "q\xff"):
                self.run(self.lb.tasks.purge(queue))
            left = self.left_behind()
            self.run(self.lb.__aexit__(None, None, None))
            assert not left, f"left behind: {left}"
        finally:  # or the clock stands still for the tests that follow
            self.clock.stop()
            self.runner.close()

    def left_behind(self) -> Iterable[str]:
        """The keys of tasks that the store still has; what it counts, it may keep."""
        with contextlib.closing(fakeredis.FakeRedis(server=self.server, protocol=2)) as raw:
            return [key.decode() for key in raw.scan_iter(match="*}:task*") if not key.endswith(b":task:stats")]


if "memory" in CHOSEN:
    TestTasksFollowTheModel = TasksFollowTheModel.TestCase
    TestTasksFollowTheModel.settings = settings(
        max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
