"""Hooks: what happened, told to functions of the program's own. `@beat.events.slot_missed` above a function has it called.

An event is told in one instance. Those that are decided by an instance's own call are told by it: slot_fired, run_done,
run_failed; and what happens to an instance alone: lease_lost, store_lost, store_back. The others (slot_missed, slot_skipped,
run_lost, task_dead, job_paused) may be decided by anybody's call, a command's or a web process's. The store keeps them until an
instance that listens has told its hooks, see `lockbeat/jobs/outbox.py`.

A hook never keeps the beat waiting: each function has a queue and a runner of its own, see `lockbeat/listeners.py`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from lockbeat.errors import InvalidType
from lockbeat.listeners import Listener, Listening, Told, listener


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


class Hook(Generic[E]):
    """One kind of event. Called with a function, as a decorator is, it adds that to those that are called."""

    __slots__ = ("_hooks", "heard", "inline", "listeners", "name")

    def __init__(self, hooks: Hooks, name: str) -> None:
        self._hooks = hooks
        self.name = name
        self.listeners: list[Listener] = []
        self.inline: list[Callable[[E], None]] = []
        self.heard = False
        """Whether anybody listens: who tells asks first, and makes no event for nobody."""

    def __call__(self, function: Callable[[E], R]) -> Callable[[E], R]:
        """Have a function called with each such event: an `async def`, or a plain function, in a thread of its own."""
        if not callable(function):
            raise InvalidType("function", f"must be callable, not {type(function).__name__}")
        self.listeners.append(listener(self._hooks, self.name, function))
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

    def tell(self, event: E, told: Told | None = None) -> None:
        """Tell those who listen; from any thread, and without waiting. told: knows when they have returned."""
        for count in self.inline:
            try:
                count(event)
            except Exception:  # noqa: BLE001 - it is logged
                self._hooks.failed(self.name, count)
        listeners = self.listeners
        if told is not None:
            told.by(len(listeners))
        for one in listeners:
            one.put(event, told)


class Hooks(Listening):
    """The hooks of a beat or a client, by kind: `@beat.events.run_failed` above a function."""

    def __init__(self) -> None:
        super().__init__()
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
        self.spans: Any = None
        """Makes spans of what is spawned and run, see `lockbeat.otel`; None: nobody does."""

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
            for one in hook.listeners:
                one.reset()

    async def aclose(self, seconds: float) -> None:
        """Let the hooks end what they were told, for at most so long."""
        ends = [end for hook in self.all for one in hook.listeners if (end := one.end()) is not None]
        if ends:
            _, left = await asyncio.wait(ends, timeout=seconds)
            for end in left:
                end.cancel()
        self.loop = None
