"""How the loop of a portal is turned: what it waits with, and the calls that are run in it."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import socket
import threading
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

from lockbeat.errors import StoreError
from lockbeat.process.lasting import Lasting

MOST_UNSEEN = 8
"""Turns of the loop in a row that look for nothing new, as long as there is something to do."""
LEND_AFTER = 3
"""Calls in a row, each of them alone, after which the loop is lent."""
UNHEARD = 1.0
"""Seconds after which one that waits looks for Ctrl-C: if that came in the instant before it began to wait, nothing wakes it."""
CLOSED = "this client was closed"
OVER = "Python has ended, and nothing can be asked of the store any more: do it sooner, as by `atexit.register`"


class Cut(StoreError):
    """A call was cancelled in the loop."""


class Call:
    """One call: what is asked for, and what came of it."""

    __slots__ = ("_ended", "ask", "begun", "context", "on_end", "over", "problem", "result", "task", "undo", "wait")

    def __init__(
        self,
        ask: Callable[[], Awaitable[Any]],
        undo: Callable[[], Awaitable[Any]] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.ask = ask
        self.undo = undo
        """Takes back what was done, for a caller who was interrupted and never gets to know of it."""
        self.on_end = on_end
        self._ended = threading.Lock()
        self._ended.acquire()
        self.wait = self._ended.acquire
        """Returns once it has ended; to one caller alone."""
        self.context: contextvars.Context | None = None
        """Of the caller, where it is to go along; a copy of it costs each call some time."""
        self.begun = self.over = False
        self.task: asyncio.Task[None] | None = None
        self.result: Any = None
        self.problem: BaseException | None = None

    async def run(self) -> None:
        """Whatever it ends with is its caller's: nothing is raised through the loop."""
        self.begun = True
        try:
            self.result = await self.ask()
        except asyncio.CancelledError:
            self.problem = Cut(CLOSED)
        except BaseException as problem:  # noqa: BLE001 - raised again in the caller's thread
            self.problem = problem
        self.over = True

    def end(self) -> None:
        """Tell the caller that it is over."""
        self._ended.release()
        if self.on_end is not None:
            self.on_end()

    def refuse(self) -> None:
        """It was never begun, or cancelled before its first step."""
        if not self.over:
            self.problem, self.over = Cut(CLOSED), True
            self.end()


class Waiting(selectors.DefaultSelector):
    """What the loop waits with: it hears a bell that any thread may ring, and tells callers of what has ended.

    A call takes the loop several turns. asyncio looks for news in each, which is a system call that lets go of the interpreter
    and takes it back; here it does where there is nothing else to do, and every few turns. Callers are told at the very end,
    just before the loop lets go of the interpreter: one that woke sooner would have to wait for it.

    heard: called when the bell has rung. stop: stops the loop. lend: called where the loop is at rest, and calls have come one
    after the other; has it stopped, if that is lent now.
    """

    def __init__(self, heard: Callable[[], None], stop: Callable[[], None], lend: Callable[[], bool]) -> None:
        super().__init__()
        self.ended: list[Call] = []
        self.leader: Call | None = None
        """The call whose caller turns the loop; None: the loop's thread does."""
        self.busy = False
        """The leader has left while there was more to do."""
        self.alone = 0
        """Calls in a row that met no other."""
        self._heard, self._stop, self._lend, self._unseen = heard, stop, lend, 0
        self._ear, self._bell = socket.socketpair()
        for end in (self._ear, self._bell):
            end.setblocking(False)
        self._key = self.register(self._ear, selectors.EVENT_READ)

    def ring(self) -> bool:
        """Have `heard` called in the loop, or the leader leave. False: it is closed."""
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            pass  # it has been rung many times, and will be heard
        except OSError:
            return False
        return True

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        leader = self.leader
        if timeout == 0 and self._unseen < MOST_UNSEEN and (leader is not None or not self.ended):
            self._unseen += 1
            return []
        self._unseen = 0
        if self.ended:
            self.tell()
        if leader is None:
            if self.alone >= LEND_AFTER and timeout != 0 and self._lend():
                return []
        elif leader.over:
            self.busy = timeout == 0
            self._stop()
            return []
        events = super().select(timeout if leader is None else min(UNHEARD, UNHEARD if timeout is None else timeout))
        for at, (key, _) in enumerate(events):
            if key is self._key:
                self._ear.recv(4096)
                del events[at]
                if leader is None:
                    self._heard()
                else:
                    self._stop()
                break
        return events

    def tell(self) -> None:
        """Tell the callers of what has ended."""
        ended, self.ended = self.ended, []
        self.alone = self.alone + 1 if len(ended) == 1 else 0
        for call in ended:
            call.end()

    def close(self) -> None:
        self.tell()
        super().close()
        self._bell.close()
        self._ear.close()


class Loop(Lasting):
    """It may stand still while it is lent, and is turned at once for what other threads want of it."""

    roused: Callable[[], None] | None = None
    stray: Callable[[BaseException], bool] | None = None
    """Asked about what a callback has raised, before the log is told: whether that is somebody else's affair."""

    @property
    def more(self) -> bool:
        """Whether something is to be done in the next turn, or still in this one."""
        return bool(self._ready)  # type: ignore[attr-defined]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        problem = context.get("exception")
        if problem is None or self.stray is None or not self.stray(problem):
            super().call_exception_handler(context)

    def call_soon_threadsafe(  # type: ignore[override]  # mypy knows no name for what binds the arguments to the function
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        if self.roused is not None:
            self.roused()
        return handle
