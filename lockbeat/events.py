"""Hooks: what happened, told to functions of the program's own. `@beat.events.slot_missed` above a function has it called.

An event is told in one instance. Those that are decided by an instance's own call are told by it: slot_fired, run_done,
run_failed; and what happens to an instance alone: lease_lost, store_lost, store_back. The others (slot_missed, slot_skipped,
run_lost, task_dead, job_paused) may be decided by anybody's call, a command's or a web process's. The store keeps them until an
instance that listens has told its hooks, see `lockbeat/jobs/outbox.py`.

A hook never keeps the beat waiting: each has a queue and a runner of its own, a task for an `async def`, a thread for a plain
function.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from lockbeat.errors import InvalidType

log = logging.getLogger("lockbeat")

MOST = 1000
"""Events that wait for one hook; what comes then is dropped, and counted."""
LIMIT = 30.0
"""Seconds that one call of an `async def` may take; then it is cancelled."""
REMIND = 60.0
"""Seconds between two lines of the log on one hook."""


class SlotFired(NamedTuple):
    """A slot was fired by this instance."""

    job: str
    slot: datetime
    task_id: str
    late: float
    """Seconds after the slot, by the server's clock."""


class SlotMissed(NamedTuple):
    """Slots came due and are not fired: no instance was there, no worker had room, the store had lost them."""

    job: str
    slot: datetime
    last: datetime
    """The last of them; `slot` is the first."""
    slots: int | None
    """How many; None: nobody knows."""
    code: str
    """Of the reason, see docs/events.md."""
    reason: str
    at: datetime
    """When that was decided, by the server's clock."""


class SlotSkipped(NamedTuple):
    """Slots are not fired on purpose: by overlap, a pause, a calendar."""

    job: str
    slot: datetime
    last: datetime
    slots: int | None
    code: str
    reason: str
    at: datetime


class RunDone(NamedTuple):
    """An attempt of this instance ended well."""

    task_id: str
    name: str
    job: str
    """Empty: it was spawned."""
    slot: datetime | None
    """None: it is no slot's."""
    attempt: int
    fence: int
    took: float
    """Seconds."""


class RunFailed(NamedTuple):
    """The function of an attempt of this instance failed, or ran into its timeout."""

    task_id: str
    name: str
    job: str
    slot: datetime | None
    attempt: int
    fence: int
    took: float
    error: str
    again: bool
    """Whether it is tried again."""


class RunLost(NamedTuple):
    """An attempt was taken back, as its instance did not renew it: it was killed, frozen, or cut off."""

    task_id: str
    name: str
    job: str
    slot: datetime | None
    attempt: int
    fence: int
    owner: str
    """The instance that had it."""
    code: str
    reason: str
    again: bool
    at: datetime


class TaskDead(NamedTuple):
    """A task's last attempt failed, was lost or cut; that of a slot or a spawned one's."""

    task_id: str
    name: str
    job: str
    slot: datetime | None
    attempts: int
    code: str
    """Of the reason, where there is one; empty: its function failed."""
    reason: str
    at: datetime


class RunCancelled(NamedTuple):
    """The task of a slot was cancelled. No hook is told of it: whoever cancelled it knows. Monitors are."""

    task_id: str
    job: str
    slot: datetime | None
    code: str
    reason: str
    at: datetime


class LostLease(NamedTuple):
    """A lease that this instance held is lost: of a lock, a claim or a task."""

    kind: str
    """"lock", "claim" or "task"."""
    key: str
    owner: str
    fence: int | None
    """Of a task or a claim."""
    reason: str


class JobPaused(NamedTuple):
    """A job was paused: by somebody, or as its `pause_after` says."""

    job: str
    by: str
    why: str
    until: datetime | None
    """None: until it is resumed."""
    at: datetime


class StoreLost(NamedTuple):
    """This instance does not reach the store any more."""

    location: str
    reason: str


class StoreBack(NamedTuple):
    """It does again."""

    location: str
    away: float
    """Seconds."""


Event = (
    SlotFired
    | SlotMissed
    | SlotSkipped
    | RunDone
    | RunFailed
    | RunLost
    | TaskDead
    | RunCancelled
    | LostLease
    | JobPaused
    | StoreLost
    | StoreBack
)
NAMES: dict[type[Any], str] = {
    SlotFired: "slot_fired",
    SlotMissed: "slot_missed",
    SlotSkipped: "slot_skipped",
    RunDone: "run_done",
    RunFailed: "run_failed",
    RunLost: "run_lost",
    TaskDead: "task_dead",
    RunCancelled: "run_cancelled",
    LostLease: "lease_lost",
    JobPaused: "job_paused",
    StoreLost: "store_lost",
    StoreBack: "store_back",
}
"""What each kind of event is called, as its hook is."""


def name_of(event: Event) -> str:
    """What an event is called."""
    return NAMES[type(event)]


E = TypeVar("E", bound=Event)
R = TypeVar("R")
Done = Callable[[], None]


class Hook(Generic[E]):
    """One kind of event. Called with a function, as a decorator is, it adds that to those that are called."""

    __slots__ = ("_hooks", "heard", "inline", "listeners", "name")

    def __init__(self, hooks: Hooks, name: str) -> None:
        self._hooks = hooks
        self.name = name
        self.listeners: list[_Listener] = []
        self.inline: list[Callable[[E], None]] = []
        self.heard = False
        """Whether anybody listens: who tells asks first, and makes no event for nobody."""

    def __call__(self, function: Callable[[E], R]) -> Callable[[E], R]:
        """Have a function called with each such event: an `async def`, or a plain function, in a thread of its own."""
        if not callable(function):
            raise InvalidType("function", f"must be callable, not {type(function).__name__}")
        self.listeners.append(_in_loop_or_thread(self._hooks, self.name, function))
        self.heard = True
        return function

    def at_once(self, function: Callable[[E], None]) -> None:
        """Have a function called where the event happens: for counting, as it must neither block nor raise."""
        self.inline.append(function)
        self.heard = True

    def drop(self, function: Callable[[E], Any]) -> None:
        """Have it called no more."""
        self.inline = [one for one in self.inline if one is not function]
        self.listeners = [one for one in self.listeners if one.function is not function]
        self.heard = bool(self.inline or self.listeners)

    def tell(self, event: E, done: Done | None = None) -> None:
        """Tell those who listen; from any thread, and without waiting. done: called once all of them have returned."""
        for count in self.inline:
            try:
                count(event)
            except Exception:  # noqa: BLE001 - it is logged
                self._hooks.failed(self.name, count)
        if done is not None:
            done = _after(len(self.listeners), done)
        for listener in self.listeners:
            listener.put(event, done)


def _after(times: int, done: Done) -> Done | None:
    """Calls `done` when it has been called so often; at once for none."""
    if times == 0:
        done()
        return None
    left, lock = [times], threading.Lock()

    def one() -> None:
        with lock:
            left[0] -= 1
            last = left[0] == 0
        if last:
            done()

    return one


class Hooks:
    """The hooks of a beat or a client, by kind: `@beat.events.run_failed` above a function."""

    def __init__(self) -> None:
        self.slot_fired: Hook[SlotFired] = Hook(self, "slot_fired")
        self.slot_missed: Hook[SlotMissed] = Hook(self, "slot_missed")
        self.slot_skipped: Hook[SlotSkipped] = Hook(self, "slot_skipped")
        self.run_done: Hook[RunDone] = Hook(self, "run_done")
        self.run_failed: Hook[RunFailed] = Hook(self, "run_failed")
        self.run_lost: Hook[RunLost] = Hook(self, "run_lost")
        self.task_dead: Hook[TaskDead] = Hook(self, "task_dead")
        self.lease_lost: Hook[LostLease] = Hook(self, "lease_lost")
        self.job_paused: Hook[JobPaused] = Hook(self, "job_paused")
        self.store_lost: Hook[StoreLost] = Hook(self, "store_lost")
        self.store_back: Hook[StoreBack] = Hook(self, "store_back")
        self.dropped = 0
        """Events that were not told, as a hook had too many to do. The log says it, too."""
        self.spans: Any = None
        """Makes spans of what is spawned and run, see `lockbeat.otel`; None: nobody does."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = 0
        self._told: dict[object, float] = {}

    @classmethod
    def of(cls, events: Hooks | None) -> Hooks:
        """Those, or new ones."""
        if events is None:
            return cls()
        if not isinstance(events, cls):
            raise InvalidType("events", f"must be the `events` of a beat or client, not {type(events).__name__}")
        return events

    @property
    def all(self) -> list[Hook[Any]]:
        """Every kind."""
        return [hook for hook in vars(self).values() if isinstance(hook, Hook)]

    def open(self) -> None:
        """From now on `async def`s run in this event loop."""
        self.loop, self.thread = asyncio.get_running_loop(), threading.get_ident()
        for hook in self.all:
            for listener in hook.listeners:
                listener.reset()

    async def aclose(self, seconds: float) -> None:
        """Let the hooks end what they were told, for at most so long."""
        ends = [end for hook in self.all for listener in hook.listeners if (end := listener.end()) is not None]
        if ends:
            _, left = await asyncio.wait(ends, timeout=seconds)
            for end in left:
                end.cancel()
        self.loop = None

    def drop(self, name: str, function: Callable[..., Any]) -> None:
        """An event is not told."""
        self.dropped += 1
        if self._may(function):
            log.warning("a hook of %s is too slow: %s; %d events are dropped so far", name, _name(function), self.dropped)

    def failed(self, name: str, function: Callable[..., Any]) -> None:
        """It raised."""
        if self._may(function):
            log.exception("a hook of %s failed: %s", name, _name(function))

    def took_too_long(self, name: str, function: Callable[..., Any]) -> None:
        if self._may(function):
            log.warning("a hook of %s was cancelled, as it took more than %g s: %s", name, LIMIT, _name(function))

    def _may(self, function: Callable[..., Any]) -> bool:
        now = time.monotonic()
        if now < self._told.get(function, float("-inf")) + REMIND:
            return False
        self._told[function] = now
        return True


class _Listener:
    """One function, and what waits for it."""

    def __init__(self, hooks: Hooks, name: str, function: Callable[[Any], Any]) -> None:
        self._hooks, self.name, self.function = hooks, name, function
        self.reset()

    @property
    def waits(self) -> int:
        """How many events wait for it."""
        raise NotImplementedError

    def put(self, event: Event, done: Done | None) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Begin anew: the loop or the process is another one."""
        raise NotImplementedError

    def _drop(self, done: Done | None) -> None:
        """There is no room for one."""
        self._hooks.drop(self.name, self.function)
        if done is not None:
            done()

    def end(self) -> asyncio.Future[Any] | None:
        """Take no more; what is done when the rest is. None: nothing waits."""
        raise NotImplementedError


class _InLoop(_Listener):
    """An `async def`: called in a task of its own, one event after the other."""

    def reset(self) -> None:
        self._queue: deque[tuple[Event, Done | None] | None] = deque()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def waits(self) -> int:
        return len(self._queue)

    def put(self, event: Event, done: Done | None) -> None:
        loop = self._hooks.loop
        if loop is None or len(self._queue) >= MOST:
            self._drop(done)
            return
        self._queue.append((event, done))
        if threading.get_ident() == self._hooks.thread:
            self._rouse()
        else:
            try:
                loop.call_soon_threadsafe(self._rouse)
            except RuntimeError:
                pass  # the loop has ended, and the program with it

    def _rouse(self) -> None:
        if self._task is not None:
            self._wake.set()
        elif self._hooks.loop is not None:
            self._task = self._hooks.loop.create_task(self._run(), name=f"hook of {self.name}")

    def end(self) -> asyncio.Future[Any] | None:
        if self._task is not None:
            self._queue.append(None)
            self._wake.set()
        return self._task

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            while self._queue:
                try:
                    async with asyncio.timeout(LIMIT) as limit:
                        if not await self._some(limit):
                            return
                except TimeoutError:
                    self._hooks.took_too_long(self.name, self.function)
            await self._wake.wait()

    async def _some(self, limit: asyncio.Timeout) -> bool:
        """Tell what waits, until it is time to set the limit anew, which costs more than a quick hook. False: that was all."""
        loop, since = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        while self._queue:
            waiting = self._queue.popleft()
            if waiting is None:
                return False
            event, done = waiting
            if loop.time() > since + 1:
                since = loop.time()
                limit.reschedule(since + LIMIT)
            try:
                await self.function(event)
            except asyncio.CancelledError:
                if limit.expired() or (self._task is not None and self._task.cancelling()):
                    raise
                self._hooks.failed(self.name, self.function)
            except BaseException:  # noqa: BLE001 - a hook's own sys.exit() must not end the program
                self._hooks.failed(self.name, self.function)
            finally:
                if done is not None:
                    done()
            if limit.expired():  # it was cancelled and has returned all the same: the next one needs a limit of its own
                self._hooks.took_too_long(self.name, self.function)
                return True
        return True


class _InThread(_Listener):
    """A plain function, which may block: called in a thread of its own, one event after the other."""

    def reset(self) -> None:
        self._queue: SimpleQueue[tuple[Event, Done | None] | Callable[[], None]] = SimpleQueue()
        self._started = False
        self._lock = threading.Lock()

    @property
    def waits(self) -> int:
        return self._queue.qsize()

    def put(self, event: Event, done: Done | None) -> None:
        if self._queue.qsize() >= MOST:
            self._drop(done)
            return
        self._queue.put((event, done))
        if not self._started:
            with self._lock:
                if not self._started:
                    self._started = True
                    threading.Thread(target=self._run, args=(self._queue,), name=f"hook of {self.name}", daemon=True).start()

    def end(self) -> asyncio.Future[Any] | None:
        if not self._started:
            return None
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def last() -> None:
            try:
                loop.call_soon_threadsafe(_settle, ended)
            except RuntimeError:
                pass  # nobody waits any more

        queue = self._queue
        self.reset()
        queue.put(last)
        return ended

    def _run(self, queue: SimpleQueue[tuple[Event, Done | None] | Callable[[], None]]) -> None:
        while True:
            waiting = queue.get()
            if not isinstance(waiting, tuple):
                waiting()
                return
            event, done = waiting
            try:
                self.function(event)
            except BaseException:  # noqa: BLE001 - a hook's own sys.exit() must not end its thread
                self._hooks.failed(self.name, self.function)
            finally:
                if done is not None:
                    done()


def _in_loop_or_thread(hooks: Hooks, name: str, function: Callable[[Any], Any]) -> _Listener:
    called = function if inspect.isroutine(function) else type(function).__call__
    of = _InLoop if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called) else _InThread
    return of(hooks, name, function)


def _settle(ended: asyncio.Future[Any]) -> None:
    if not ended.done():
        ended.set_result(None)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
