"""One worker of the task chaos tier, as a process: forked from a server that has this module imported, so that a new one is there
at once.

Each body writes that it began and how it ended, each report of an outcome what the store answered: one line in one O_APPEND
write each, so the evidence needs neither lockbeat nor the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from lockbeat import Beat, Lockbeat, Run
from lockbeat.errors import StoreError
from lockbeat.tasks import Failed, Task
from lockbeat.worker import worker as worker_module

BY_HAND = "hand"
"""The queue of those who use the verbs themselves: their late reports show whether the store refuses them."""


@dataclass(frozen=True)
class Orders:
    """What a worker is told."""

    name: str
    url: str
    namespace: str
    log: str
    effects: str
    """Path of the file."""
    lease: float
    """Seconds."""
    lease_by_hand: float
    """Seconds, of what is claimed by the verbs, which nobody renews."""
    concurrency: int


class Attempt(Protocol):
    """What a Run and a Task both say of an attempt."""

    @property
    def attempt(self) -> int: ...

    @property
    def fence(self) -> int: ...


class Deliberate(Exception):
    """What a body raises that is to."""


class Effects:
    """The file that all workers append to."""

    def __init__(self, path: str, instance: str) -> None:
        self._instance = instance
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def record(self, event: str, task_id: str, attempt: Attempt) -> None:
        """One line; the kernel keeps lines of several processes apart."""
        line = {
            "event": event,
            "task": task_id,
            "attempt": attempt.attempt,
            "fence": attempt.fence,
            "at": time.time(),
            "instance": self._instance,
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")

    @contextlib.contextmanager
    def body(self, task_id: str, attempt: Attempt) -> Iterator[None]:
        """What happens in the block is the body of an attempt."""
        self.record("begin", task_id, attempt)
        try:
            yield
        except Deliberate:
            self.record("raise", task_id, attempt)
            raise
        except BaseException:
            self.record("cut", task_id, attempt)
            raise
        self.record("end", task_id, attempt)


def declare(beat: Beat, effects: Effects) -> None:
    """Functions of each kind; between them they make the worker serve three queues."""

    @beat.task
    async def noop(run: Run) -> None:
        with effects.body(run.task_id, run):
            pass

    @beat.task(queue="mail")
    async def sleep(run: Run) -> float:
        with effects.body(run.task_id, run):
            await asyncio.sleep(run.params["seconds"])
        return float(run.params["seconds"])

    @beat.task(queue="heavy")
    def plain(run: Run) -> str:
        with effects.body(run.task_id, run):
            time.sleep(run.params["seconds"])
        return "plain"

    @beat.task
    async def flaky(run: Run) -> None:
        with effects.body(run.task_id, run):
            await asyncio.sleep(0.01)
            if run.attempt <= run.params["raises"]:
                raise Deliberate(run.attempt)

    @beat.task
    async def block(run: Run) -> None:
        with effects.body(run.task_id, run):
            await asyncio.sleep(run.params["first"])
            time.sleep(run.params["seconds"])  # noqa: ASYNC251 - blocking the loop is what is tested


def listen_in(lb: Lockbeat, effects: Effects) -> None:
    """Record what the store answers to each report of an outcome."""
    complete, fail = lb.tasks.complete, lb.tasks.fail

    async def completed(task: Task, result: Any = None) -> bool:
        accepted = await complete(task, result)
        effects.record("completed" if accepted else "refused", task.id, task)
        return accepted

    async def failed(task: Task, error: Any, retry_at: Any = None) -> Failed:
        answer = await fail(task, error, retry_at)
        effects.record(answer.outcome, task.id, task)
        return answer

    lb.tasks.complete = completed  # type: ignore[method-assign]
    lb.tasks.fail = failed  # type: ignore[method-assign]


async def one_by_hand(lb: Lockbeat, effects: Effects, task: Task) -> None:
    try:
        with effects.body(task.id, task):
            await asyncio.sleep(task.params["seconds"])
            if task.attempt <= task.params["raises"]:
                raise Deliberate(task.attempt)
    except Deliberate as problem:
        await lb.tasks.fail(task, problem)
    else:
        await lb.tasks.complete(task)


async def by_hand(lb: Lockbeat, effects: Effects, lease: float) -> None:
    """Work without a keeper, which would stop a body whose lease is lost: this one reports however late it is."""
    while True:
        try:
            for task in await lb.tasks.claim(BY_HAND, f"{lb.owner}-hand", 1, lease):
                await one_by_hand(lb, effects, task)
        except StoreError as problem:
            logging.getLogger("chaos").info("by hand: %s", problem)
        await asyncio.sleep(0.2)


def deliberate(record: logging.LogRecord) -> bool:
    """Whether a log line tells of a body that failed on purpose; its traceback is none of lockbeat's."""
    return "tests.chaos.worker.Deliberate" in record.getMessage() or "Deliberate: " in record.getMessage()


async def serve(orders: Orders) -> None:
    """Work until SIGTERM."""
    worker_module.CLAIM_LEASE_MS = round(orders.lease * 1000)
    effects = Effects(orders.effects, orders.name)
    async with Lockbeat(orders.url, namespace=orders.namespace) as lb:
        listen_in(lb, effects)
        beat = Beat(lb, concurrency=orders.concurrency, grace=3)
        declare(beat, effects)
        hand = asyncio.ensure_future(by_hand(lb, effects, orders.lease_by_hand))
        serving = asyncio.ensure_future(beat.serve(schedule=False))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        hand.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hand


def end_with_parent() -> None:
    """However the test process ends, its workers do not stay."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def work(orders: Orders) -> None:
    """The whole life of the process."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    out = os.open(orders.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("lockbeat").addFilter(lambda record: not deliberate(record))
    asyncio.run(serve(orders))
