"""Running a command under a lock, or as a slot's attempt: what is held, told to the guardian, and reported at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from lockbeat.client import Lockbeat
from lockbeat.errors import LeaseLost, LockbeatError, LockTimeout, StoreError, TaskTimeout, UnknownTask
from lockbeat.exec.guardian import FORWARDED, Ended, Guardian
from lockbeat.exec.output import Output
from lockbeat.jobs import Job
from lockbeat.jobs.calling import Call, begin, nearest
from lockbeat.leases.holding import Holding
from lockbeat.leases.keeper import CANCELLED
from lockbeat.leases.lease import monotonic
from lockbeat.store import Store
from lockbeat.store.keys import job_lock
from lockbeat.tasks import Failure, Task
from lockbeat.triggers import Called, isoformat

log = logging.getLogger("lockbeat")

QUEUE = "exec"
"""Of slots whose commands failed, so that `lockbeat dead --queue exec` lists them. No worker serves it."""
REPORTING = 30.0
"""Seconds for which the end of a command is offered to a store that is away."""
DRAIN = 5.0
"""Seconds for what was written by a command that has ended."""
PULSES = 20
"""How often within a ttl the guardian is told until when the lock is trusted."""
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: `lockbeat exec`'s own options."""

    name: str
    ttl: float
    """Seconds."""
    wait: float
    early: float
    """Seconds before a slot from which on a call belongs to it."""
    trigger: Called | None
    """None: no slots, and nothing is kept: the lock alone."""

    def job(self) -> Job:
        assert self.trigger is not None
        return Job.declare(self.name, self.trigger, lease=self.ttl, queue=QUEUE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What it came to."""

    kind: Literal["ended", "busy", "known", "soon", "paused", "unsure", "lost", "signalled"]
    """lost: the command was ended, for its lock was lost. signalled: before it had begun. Of the others but `ended`, none was
    begun."""
    said: str
    """For people."""
    code: int = 0
    """Of the command; signalled: 128 and the signal."""


class Running:
    """One call: its guardian, and the signals that it gets."""

    def __init__(self, guardian: Guardian, output: Output | None, ttl: float, begins: Callable[[], None]) -> None:
        self._guardian, self._output, self._ttl, self._begins = guardian, output, ttl, begins
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self.ended: Ended | None = None
        self.asked: int = 0
        """The signal that ended it before the command had begun, or after it had ended."""
        self._started = False
        self._drained = asyncio.Event()

    @contextlib.asynccontextmanager
    async def hearing(self) -> AsyncIterator[None]:
        """Pass signals on meanwhile; before there is a command, those that ask for the end cancel the block."""
        heard = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCONT]
        for number in heard:
            self._loop.add_signal_handler(number, self._hear, number)
        try:
            yield
        finally:
            for number in heard:
                self._loop.remove_signal_handler(number)

    def _hear(self, number: int) -> None:
        if self._started and self.ended is None:
            self._guardian.signal(number)
        elif number in ENDING and not self.asked and self._task is not None:
            self.asked = number
            self._task.cancel()

    async def command(self, env: Mapping[str, str | None], trusted_until: Callable[[], float]) -> Ended:
        """Start the command, and wait for its end. Cancelled, it ends it first: SIGTERM, and SIGKILL after the grace."""
        ended: asyncio.Future[Ended] = self._loop.create_future()
        link = self._guardian.link

        def hear() -> None:
            try:
                data = link.recv(1 << 16)
            except OSError:
                data = b""
            found = self._guardian.hear(data)
            if found is not None:
                self._loop.remove_reader(link)
                ended.set_result(found)

        if self._output is not None:
            self._output.pass_on(self._is_drained)
        self._loop.add_reader(link, hear)
        self._begins()
        self._guardian.start(env, trusted_until())
        self._started = True
        pulse = self._loop.create_task(self._pulse(trusted_until))
        try:
            try:
                await asyncio.shield(ended)
            except asyncio.CancelledError:
                self._guardian.stop()
                await asyncio.wait([ended])
                raise
        finally:
            pulse.cancel()
            self._loop.remove_reader(link)
            if ended.done():
                self.ended = ended.result()
                await self._drain()
                if self._output is not None:
                    self.ended = replace(self.ended, unwritten=self._output.trouble)
        return self.ended or ended.result()

    async def _pulse(self, trusted_until: Callable[[], float]) -> None:
        while True:
            await asyncio.sleep(self._ttl / PULSES)
            self._guardian.trust(trusted_until())

    def _is_drained(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._drained.set)

    async def _drain(self) -> None:
        if self._output is not None:
            self._output.finish()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), DRAIN)

    @property
    def tail(self) -> str:
        return "" if self._output is None else self._output.tail


async def run(
    url: str | None,
    namespace: str | None,
    request: Request,
    guardian: Guardian,
    output: Output | None,
    begins: Callable[[], None],
) -> Outcome:
    """Take the lock, or begin the slot, run the command, and give it back. `begins` is called before the command is.

    Raises: StoreError, InvalidArgument before the command has begun.
    """
    running = Running(guardian, output, request.ttl, begins)
    try:
        async with running.hearing(), Lockbeat(url, namespace=namespace) as lb:
            if request.trigger is None:
                return await _locked(lb, request, running)
            return await _called(lb, request, request.trigger, running)
    except asyncio.CancelledError:
        if not running.asked:
            raise
        return Outcome("signalled", f"ended by {signal.Signals(running.asked).name}", 128 + running.asked)


def _over(running: Running) -> Outcome:
    """The command has ended, and what it was run under was held to its end, unless its guardian could not know that."""
    ended = running.ended
    assert ended is not None
    if ended.overdue:
        return Outcome("lost", "its lock could not be renewed in time, and the command was ended", ended.code)
    return Outcome("ended", str(ended), ended.told)


async def _locked(lb: Lockbeat, request: Request, running: Running) -> Outcome:
    lock = lb.lock(request.name, request.ttl, request.wait)
    try:
        async with lock as lease:
            env = {"LOCKBEAT_KEY": lease.key, "LOCKBEAT_FENCE": str(lease.fence), "LOCKBEAT_SLOT": None, "LOCKBEAT_TASK": None}
            await running.command(env, lambda: lock.trusted_until)
    except LockTimeout:
        holder = await lb.locks.owner(request.name)
        return Outcome("busy", f"{request.name!r} is held by {holder}" if holder else f"{request.name!r} was held")
    except LeaseLost as lost:
        return Outcome("lost", f"{lost}; the command was ended: {running.ended}")
    return _over(running)


async def _called(lb: Lockbeat, request: Request, trigger: Called, running: Running) -> Outcome:
    job, store = request.job(), lb.store
    shard, slot_ms = lb.jobs.shard_of(job.name), None
    if trigger.slots is not None:
        now_ms = await store.server_ms(shard)
        slot_ms = nearest(trigger.slots, now_ms, round(request.early * 1000))
        if slot_ms is None:
            raise LockbeatError(f"no slot of {trigger.slots} has come yet")
        await _come(store, shard, slot_ms)
    call = await _begun(lb, job, slot_ms, request)
    if call.said == "unsure" and slot_ms is not None and trigger.slots is not None:
        following = trigger.slots.next(slot_ms)
        if following is not None and following - await store.server_ms(shard) <= request.early * 1000:
            await _come(store, shard, slot_ms := following)
            call = await _begun(lb, job, slot_ms, request)
    task = call.task
    if task is None:
        return Outcome(*_not_begun(job, slot_ms, call))
    row = store.row["task/renew"](id=task.id, owner=task.owner, fence=task.fence, lease_ms=task.lease_ms, lock=task.lock)
    holding = Holding(lb.keeper, row, task.shard, ttl=task.lease_ms / 1000, asked_at=task.asked_at)
    env = {
        "LOCKBEAT_KEY": task.lock,
        "LOCKBEAT_FENCE": str(task.fence),
        "LOCKBEAT_SLOT": isoformat(task.slot_ms).replace("+00:00", "Z"),
        "LOCKBEAT_TASK": task.id,
    }
    try:
        try:
            await running.command(env, lambda: holding.trusted_until)
        except BaseException as error:
            holding.leave(keep=True)
            holding.report(task.lock, task.owner, task.fence, error)
            raise
        holding.leave(keep=True)
        holding.report(task.lock, task.owner, task.fence, None)
        await _report(lb, task, running)
    except LeaseLost as lost:
        if lost.reason != CANCELLED:
            return Outcome("lost", f"{lost}; the command was ended: {running.ended}")
        with contextlib.suppress(StoreError):
            await lb.tasks.release(task, begun=True)  # refused, but it ends the lease: the command has stopped
        return Outcome("lost", f"{task.id} was cancelled; the command was ended: {running.ended}")
    finally:
        holding.drop()
    return _over(running)


async def _come(store: Store, shard: int, slot_ms: int) -> None:
    """Wait until a slot has come by the server's clock."""
    while True:
        left_ms = slot_ms - await store.server_ms(shard)
        if left_ms <= 0:
            return
        await asyncio.sleep(left_ms / 1000)


async def _begun(lb: Lockbeat, job: Job, slot_ms: int | None, request: Request) -> Call:
    """Begin it; while a task of the job has not ended, try again for `wait` seconds."""
    until, lease_ms = monotonic() + request.wait, round(request.ttl * 1000)
    while True:
        left = until - monotonic()
        call = await begin(lb.store, lb.jobs, lb.tasks, job, slot_ms, lease_ms=lease_ms, skips=left <= 0)
        if call.said != "busy" or left <= 0:
            return call
        if call.of.startswith(f"{job.name}@"):
            with contextlib.suppress(TaskTimeout, UnknownTask):
                await lb.tasks.wait(call.of, timeout=min(left, await _expires_in(lb, call.of)))
        else:
            with contextlib.suppress(LockTimeout):  # somebody else's, under the job's name: until it is free
                async with lb.lock(job_lock(job.name), 5, left):
                    pass


async def _expires_in(lb: Lockbeat, task_id: str) -> float:
    """Seconds after which a call finds that its holder is dead, unless it is renewed: no worker may be there to find it."""
    info, now = await lb.tasks.get(task_id), await lb.store.server_time()
    return 0.02 if info.expires_at is None else max(info.expires_at - now, 0.0) + 0.02


def _not_begun(job: Job, slot_ms: int | None, call: Call) -> tuple[Any, str]:
    slot = "now" if slot_ms is None else f"slot {isoformat(slot_ms).replace('+00:00', 'Z')}"
    said = {
        "known": f"{slot} of {job.name!r} was run before, or is being run",
        "soon": f"{job.name!r} was last run as {call.of}: {job.trigger}",
        "busy": f"{job.name!r} is busy: {call.of} has not ended",
        "paused": f"{job.name!r} is paused by {call.of}",
        "unsure": f"{slot} of {job.name!r} came before the store was first written to: it may have run, and is not run now",
    }
    return call.said, said[call.said]


async def _report(lb: Lockbeat, task: Task, running: Running) -> None:
    """Tell the store how the command ended; it is worth patience, for the work is done."""
    ended, tail = running.ended, running.tail
    assert ended is not None
    said = {"exit_code": ended.code, "output": tail}
    last = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "")
    failure = Failure("CommandFailed", f"{ended}{last and f': {last[:300]}'}", detail=said)
    until = monotonic() + REPORTING
    while True:
        try:
            if ended.overdue:
                return  # the lease ends by itself, and the slot is lost
            told = await (lb.tasks.fail(task, failure) if ended.told else lb.tasks.complete(task, said))
        except StoreError as problem:
            if monotonic() < until:
                continue
            log.error("how %s ended is lost, %s: %s", task.id, ended, problem)
        else:
            if not told:
                log.error("%s had been taken from this call before it ended; its writes may come twice", task.id)
        return
