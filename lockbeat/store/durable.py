"""Durability: whether what was answered outlives the server that answered it.

A server answers before its replicas have what it wrote, and maybe before its disk has it: a failover, or a crash, can undo a
call that was answered. `Durability` says what to wait for; WAIT and WAITAOF do the waiting, on a connection of its own, for the
server reads nothing more from one that waits.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

from lockbeat.connection.outage import STEADY
from lockbeat.errors import InvalidArgument, LockbeatError, NotDurable, StoreError, StoreUnavailable, Unreadable
from lockbeat.store.batch import Target
from lockbeat.store.rows import Row
from lockbeat.store.wire import Wire
from lockbeat.values.checks import of_type, whole
from lockbeat.values.durations import Seconds, milliseconds

MARK_MS = 60_000
MOST_REPLICAS = 100
LONGEST = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Durability:
    """What must have been written before a call counts: `durability=Durability(replicas=1)`.

    replicas: how many must have it in memory, 0 or more.
    fsync: it must be on the server's disk, and on the disks of `replicas`. Needs Redis 7.2 or Valkey, and `appendonly yes`.
    timeout: how long to wait for that: seconds or a timedelta, up to 60 s. Then the call is taken back and NotDurable raised.
    """

    replicas: int = 0
    fsync: bool = False
    timeout: Seconds = 1.0

    def __post_init__(self) -> None:
        whole("replicas", self.replicas, 0, MOST_REPLICAS)
        of_type("fsync", self.fsync, bool, "a bool")
        if not self.replicas and not self.fsync:
            raise InvalidArgument("replicas", "must be 1 or more, or fsync True: else there is nothing to wait for")
        milliseconds("timeout", self.timeout, most=LONGEST)

    @property
    def timeout_ms(self) -> int:
        return milliseconds("timeout", self.timeout, most=LONGEST)

    @property
    def command(self) -> tuple[str, ...]:
        """What waits for the writes of its connection."""
        if self.fsync:
            return ("WAITAOF", "1", str(self.replicas), str(self.timeout_ms))
        return ("WAIT", str(self.replicas), str(self.timeout_ms))

    def missing(self, reply: Any) -> str | None:
        """What its reply lacks, in words; None: nothing."""
        synced, replicas = reply if self.fsync else (1, reply)
        if synced < 1:
            return f"not on the server's disk after {self.timeout_ms / 1000:g} s"
        if replicas < self.replicas:
            return f"{replicas} of {self.replicas} replicas have it after {self.timeout_ms / 1000:g} s"
        return None


def check_durability(durability: Durability | None, ttl_ms: int | None = None) -> Durability | None:
    """Whether it is one, and leaves something of a lease of `ttl_ms`. Raises InvalidType, InvalidArgument."""
    if durability is None:
        return None
    of_type("durability", durability, Durability, "a Durability or None")
    if ttl_ms is not None and durability.timeout_ms >= ttl_ms:
        waits, lasts = durability.timeout_ms / 1000, ttl_ms / 1000
        raise InvalidArgument("durability", f"may take {waits:g} s, and the lease lasts {lasts:g} s: shorten its timeout")
    return durability


class _Call:
    """One call, from when it is made until its writes are acknowledged."""

    __slots__ = ("acknowledged", "durability", "replies", "rows", "target")

    def __init__(self, target: Target, rows: Sequence[Row], durability: Durability) -> None:
        loop = asyncio.get_running_loop()
        self.target = target
        self.rows = rows
        self.durability = durability
        self.replies: asyncio.Future[list[Any]] = loop.create_future()
        self.acknowledged: asyncio.Future[LockbeatError | None] = loop.create_future()

    @property
    def over(self) -> bool:
        """Nobody waits for it: it has ended, or its caller has gone."""
        return self.acknowledged.done()

    def leave(self) -> None:
        if not self.acknowledged.done():
            self.acknowledged.set_result(None)

    def end(self, problem: LockbeatError | None) -> None:
        if not self.replies.done():
            self.replies.set_exception(copy(problem or StoreError("no reply")))
        if not self.acknowledged.done():
            self.acknowledged.set_result(problem)


class DurableWire:
    """Makes calls that are acknowledged, over a connection of its own to one server.

    What is called while another call is waited for goes when that is over, all at once and before one WAIT. A call whose caller
    is cancelled by then is never sent.
    """

    def __init__(self, wire: Wire, mark: str, doubt: Callable[[], None]) -> None:
        self._wire = wire
        self._doubt = doubt
        self._doubted_at = -math.inf
        self._mark = mark
        self._queue: deque[_Call] = deque()
        self._group: list[_Call] = []
        self._waiting: asyncio.Future[Any] | None = None
        self._working: asyncio.Task[None] | None = None
        self._probed: object = None
        self._closed = False
        self.unanswered: set[asyncio.Future[Any]] = set()
        """What is on its way: whether it was executed is not known yet."""

    async def call(
        self, target: Target, rows: Sequence[Row], durability: Durability, changed: Callable[[Any], object] | None
    ) -> list[Any]:
        """The replies to the rows. Raises NotDurable with the replies, StoreUnavailable, StoreError, ScriptError.

        Replies none of which says that something has `changed` are not waited for.
        """
        if self._closed:
            raise StoreError("the store is closed")
        call = _Call(target, rows, durability)
        self._queue.append(call)
        if self._working is None:
            self._working = self._wire.loop.create_task(self._work())
        try:
            replies = await call.replies
            if changed is not None and not any(changed(reply) for reply in replies if not isinstance(reply, Unreadable)):
                return replies
            problem = await call.acknowledged
        finally:
            call.leave()
        if isinstance(problem, StoreUnavailable):
            raise copy(problem)
        if problem is not None:
            raise NotDurable(str(problem), replies)
        return replies

    async def _work(self) -> None:
        try:
            while group := self._take():
                problem: LockbeatError | None = StoreError("no outcome")
                try:
                    problem = await self._send(group)
                except LockbeatError as error:
                    problem = error
                finally:
                    for call in group:
                        call.end(problem)
        finally:
            self._working = None

    def _take(self) -> list[_Call]:
        """Those that ask for the same as the one that has waited longest."""
        calls = [call for call in self._queue if not call.over]
        self._group = [call for call in calls if call.durability == calls[0].durability]
        self._queue = deque(call for call in calls if call.durability != calls[0].durability)
        return self._group

    async def _send(self, group: list[_Call]) -> LockbeatError | None:
        """Why they are not durable; None: they are."""
        durability, wire = group[0].durability, self._wire
        if durability.fsync:
            await self._probe()
        # Nothing is awaited from here to WAIT, so that all of it goes over one line, or fails.
        group = [call for call in group if not call.over]
        if not group:
            return None
        for call in group:
            sent = [wire.submit(call.target, row) for row in call.rows]  # those of one script share its runs
            self.unanswered.update(sent)
            for future in sent:
                future.add_done_callback(self.unanswered.discard)
            asyncio.gather(*sent, return_exceptions=True).add_done_callback(partial(_answer, call))
        # WAIT counts what its own connection has written, and a call that is repeated may find all done and write nothing.
        # Whoever has what was written last has everything before it, too, by all connections.
        mark = wire.command("SET", self._mark, "", "PX", str(MARK_MS))
        self._waiting = wire.command(*durability.command, patience=durability.timeout_ms / 1000)
        await asyncio.wait((mark, self._waiting))
        if mark.cancelled() or self._waiting.cancelled():
            return StoreError("the store is closed")
        problems = [done.exception() for done in (mark, self._waiting)]  # of both: asyncio logs what nobody has heard of
        for problem in problems:
            if isinstance(problem, LockbeatError):
                return problem
        missing = durability.missing(self._waiting.result())
        if missing is None:
            return None
        now = wire.loop.time()
        if durability.replicas and wire.line is not None and now >= self._doubted_at + STEADY:
            # Too few follow it: another may be the primary by now, and this one not know. Connect anew, and ask who is.
            self._doubted_at = now
            self._doubt()
            wire.line.drop("it lacks replicas")
        return NotDurable(missing)

    async def _probe(self) -> None:
        """Ask a server that is new to us whether it knows WAITAOF and has a disk, before anything is written."""
        if self._wire.line is not None and self._wire.line is self._probed:
            return
        try:
            await self._wire.command("WAITAOF", "1", "0", "1")
        except StoreUnavailable:
            raise
        except StoreError as problem:
            raise NotDurable(f"the server can't tell what is on its disk: {problem}") from None
        self._probed = self._wire.line

    async def aclose(self) -> None:
        self._closed = True
        queue, self._queue = self._queue, deque()
        for call in queue:
            call.end(StoreError("the store is closed"))
        if self._waiting is not None and all(call.over for call in self._group):
            self._waiting.cancel()
        await self._wire.aclose()
        if self._working is not None:
            await asyncio.wait((self._working,))


def _answer(call: _Call, done: asyncio.Future[list[Any]]) -> None:
    if call.replies.done():
        return  # its caller was cancelled
    replies = done.result()
    problems = [reply for reply in replies if isinstance(reply, BaseException) and not isinstance(reply, Unreadable)]
    if problems:
        call.replies.set_exception(problems[0])
    else:
        call.replies.set_result(replies)
