"""What each script of the tasks answers, and what it leaves behind: a model to hold a store against whose clock is known.

It says all that a store holds. `tests.lease_models.Tasks` judges one history, of which no time is known, by what users
were told of it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lockbeat.store import results
from tests.stepped import START_MS

WEEK_MS = 7 * 86_400_000
REMEMBERED_MS = 20_000
"""How long a call may be repeated."""


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

    def cancel(self, task_id: str, call: str, _: str = "") -> int:
        task = self.tasks.get(task_id)
        if self.answered(call):
            return results.DONE
        if task is None:
            return results.UNKNOWN
        if task.ended:
            return results.FINISHED
        self.cancelled(task)
        return self.answer(call, results.DONE)

    def retry(self, task_id: str, call: str, more: int, delay: int, _: str = "", cancelled: int = 0) -> int:
        task = self.tasks.get(task_id)
        if self.answered(call):
            return results.DONE
        if task is None:
            return results.UNKNOWN
        if cancelled and task.state == "cancelled" and task_id in self.leases:
            return results.BUSY
        if task.state != "dead" and not (cancelled and task.state == "cancelled"):
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
