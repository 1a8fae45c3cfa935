"""One connection that every call of a process shares.

Script calls that are made in one turn of the event loop travel in one write; those of one batched script share one run of
it, and are told apart again by their place in the reply. Errors and cancellation stay with the call they belong to.

redis-py makes the connection (addresses, TLS, users, Sentinel); from then on the socket is driven from here, because a pool
check-out and a stream read a call cost more than the call itself. Nothing runs in the background: replies arrive as callbacks,
and whoever makes a call while the line is down brings it up. While that fails, calls wait for a pause that grows (`Pace`), and
nothing connects while nobody waits.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import hiredis
from redis.exceptions import RedisError

from lockbeat.connection import Primary, is_final
from lockbeat.connection.outage import STEADY, Outage, Pace
from lockbeat.counting import Traffic, Trouble
from lockbeat.errors import LockbeatError, ScriptError, StoreError, StoreUnavailable, Unreadable
from lockbeat.process import forks
from lockbeat.store.batch import Batch, Target
from lockbeat.store.keys import KEYS
from lockbeat.store.line import Line
from lockbeat.store.replies import error_of
from lockbeat.store.rows import Row

log = logging.getLogger("lockbeat")

MOST_KEPT = 10_000
"""Calls that take something back, and that a wire keeps while the store is away."""
LEAST_PATIENCE = 0.2
"""Seconds. A connection is given up sooner by no lease, however short: servers and networks stall for so long."""
LEAST_TO_CONNECT = 1.0
"""Seconds. The same for connecting, which takes several round trips."""
ENOUGH = 32
"""Calls that are sent without waiting for the end of the turn: the server runs them while the rest are being made."""


def patience_for(lease: float) -> float:
    """Seconds to wait for the answer to a call that takes or renews a lease of so many: a quarter, so that there is time for
    another connection and another try.
    """
    return lease / 4 if lease > 4 * LEAST_PATIENCE else LEAST_PATIENCE


class Wire:
    """The shared connection to one server.

    `connect` opens a redis-py connection; `timeout`, in seconds, bounds connecting and waiting for a reply.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]], timeout: float, *, outage: Outage | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.generation = forks.generation
        self.timeout = self._longest = self._connect_timeout = timeout
        self._limit: asyncio.Timeout | None = None  # of the connection that is being made
        self.outage = outage or Outage("its server")
        self.pace = Pace()
        self.line: Line | None = None
        self.traffic: Traffic | None = None
        """Where what goes over it is counted; None: nowhere."""
        self.moved: Callable[[], None] | None = None
        """Told when the line was made anew, perhaps to another server; not of the first."""
        self.alone = False
        """Its server is of no Cluster, as the URL has it."""
        self.primary = Primary()
        """When it is found to be another, the line to the one before is left."""
        self._lines = 0
        self._connect = connect
        self._connecting: asyncio.Task[None] | None = None
        self._pausing: asyncio.TimerHandle | None = None
        self._waiting: list[Batch] = []
        self._scheduled = False
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False
        self._lacked_at = -math.inf  # when the server last had lost a script

    @property
    def longest_pause(self) -> float:
        """Seconds. A call that waits for the next try must not have run out by then, nor a lease that is to be renewed."""
        return min(self.timeout, self._longest / 2)

    def hurry(self, timeout: float) -> None:
        """From now on, and for what is on its way, a server that has not answered for so many seconds is taken for gone."""
        sooner, self.timeout = timeout < self.timeout, timeout
        self._connect_timeout = min(max(timeout, LEAST_TO_CONNECT), self._longest)
        if sooner and self._watch is not None:
            self._watch.cancel()
            self._check_reply()
        if sooner and self._limit is not None:
            self._limit.reschedule(min(self._limit.when() or math.inf, self.loop.time() + self._connect_timeout))

    def submit(
        self, target: Target, row: Row, *, last: bool = False, lasts: float = 0.0, limit: float = math.inf
    ) -> asyncio.Future[Any]:
        """Make a call; the future gets its reply. It is on its way even if the future is cancelled.

        `last`: run it after every call made so far; it may run twice. Otherwise it may join a batch that goes ahead of another
        script's. `lasts`: seconds for which one that is `last` does not fail for want of a server: it goes with the next line.
        `limit`: seconds after which the server is taken for gone, if that is less than the timeout.
        """
        if asyncio._get_running_loop() is not self.loop:
            raise forks.foreign(self.generation)
        if row.__class__ is not target.row:
            raise target.refusal(row)
        future = self.loop.create_future()
        if last:
            alone = Batch(target, target.head, shared=target.batched)  # nobody joins it: it may wait for long
            alone.last, alone.keep_until = True, self.loop.time() + lasts
            alone.args.extend(row)
            alone.calls.append(future)
            self._enqueue(alone)
            return future
        batch = target.batch
        if batch is None or len(batch.calls) >= target.most:
            batch = target.batch = Batch(target, target.head, shared=target.batched)
            self._enqueue(batch)
        batch.args.extend(row)
        batch.calls.append(future)
        if limit < batch.limit:
            batch.limit = limit
        if len(batch.calls) == ENOUGH and self.line is not None and not self._closed:
            self._send_waiting(self.line)
        return future

    def submit_many(self, target: Target, rows: Iterable[Row]) -> asyncio.Future[Any]:
        """Make many calls of a batched script as one; the future gets the list of their replies. Of another script: one call."""
        self._check()
        batch = Batch(target, target.head)
        for row in rows:
            if row.__class__ is not target.row:
                raise target.refusal(row)
            batch.args.extend(row)
        future = self.loop.create_future()
        batch.calls.append(future)
        self._enqueue(batch)
        if len(batch.args) >= ENOUGH * len(target.script.argv) and self.line is not None and not self._closed:
            self._send_waiting(self.line)
        return future

    def command(self, *args: str | bytes, patience: float = 0.0) -> asyncio.Future[Any]:
        """Make a plain command, such as `PING`; `patience`: seconds that it may take longer than others."""
        self._check()
        batch = Batch(None, args)
        batch.patience = patience
        future = self.loop.create_future()
        batch.calls.append(future)
        self._enqueue(batch)
        return future

    def answered(self, batch: Batch) -> None:
        """The server has answered calls."""
        if self.outage.away:
            self.outage.over(self)
        if self.traffic is not None:
            script = batch.target.script.name if batch.target is not None else ""
            self.traffic.answered(script, self.loop.time() - batch.sent_at)

    def refused(self, line: Line, batch: Batch, reply: hiredis.ReplyError) -> None:
        """The server answered a batch with an error."""
        error = error_of(reply)
        if self.alone and str(error).startswith("MOVED "):
            error = StoreError("it is a node of a Cluster; write redis+cluster://HOST:PORT")
        self._count(error)
        if isinstance(error, StoreUnavailable):
            # Connect anew: the address may lead to another server now. One that has lost a script is sent all of them again.
            if self.keeps(batch):
                line.sent.appendleft(batch)
            else:
                batch.fail(error)
            if not self._only_lacks_scripts(error):
                self.outage.failed(self, str(error), refused=True)
            line.drop(str(error))
        elif batch.target is not None and "WRONGTYPE" in str(reply):
            self.name_the_key(batch, error)
        else:
            batch.fail(error)

    def _only_lacks_scripts(self, error: StoreUnavailable) -> bool:
        """The store is there, and is sent its scripts again. Nobody is to be woken by a SCRIPT FLUSH; one that lacks them
        again so soon is somebody's who can't keep them.
        """
        if not str(error).startswith("NOSCRIPT"):
            return False
        before, self._lacked_at = self._lacked_at, self.loop.time()
        if self._lacked_at < before + STEADY:
            return False
        log.info("the server had lost the scripts, as by SCRIPT FLUSH; they are sent again")
        return True

    def lost(self, line: Line, batches: Iterable[Batch], reason: str) -> None:
        """A line has ended. What was on its way fails, its outcome unknown, or goes ahead of all others over the next line."""
        if self.line is line:
            self.line = None
            self.pace.lost(self.loop.time() - line.began, self.longest_pause)
        error, kept = StoreUnavailable(f"connection lost: {reason}"), list[Batch]()
        if not self._closed:
            self._count(error)
        for batch in batches:
            if self.keeps(batch):
                kept.append(batch)
            else:
                batch.fail(error)
        if kept:
            self._waiting[:0] = kept
            self._wake()

    def _count(self, error: LockbeatError) -> None:
        if self.traffic is not None:
            kind: Trouble = "script" if isinstance(error, ScriptError) else "refused"
            self.traffic.errors["unavailable" if isinstance(error, StoreUnavailable) else kind] += 1

    def doubt(self, targets: Iterable[Target]) -> None:
        """A thread was stopped in the midst of a call for one of these: what it was at is given up, and the line made anew."""
        reason = "a thread was stopped in the midst of a call"
        for target in targets:
            if target.batch is not None and target.batch not in self._waiting:
                target.batch.fail(StoreUnavailable(reason))
                target.batch = None
        self._scheduled = False
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self.line is not None:
            self.line.drop(reason)
        self._wake()

    def name_the_key(self, batch: Batch, error: LockbeatError) -> None:
        """Fail a batch of which a key is of another type than ours; the server does not say which: ask for the types."""
        assert batch.target is not None
        keys = [str(key) for key in batch.head[3 : 3 + int(batch.head[2])]]
        types = [KEYS[name].partition(" ")[0] for name in batch.target.script.keys]
        asked = asyncio.gather(*(self.command("TYPE", key) for key in keys), return_exceptions=True)

        def told(done: asyncio.Future[list[Any]]) -> None:
            found = [] if done.cancelled() else done.result()
            for key, ours, said in zip(keys, types, found, strict=False):
                if isinstance(said, bytes) and said.decode() not in (ours, "none"):
                    batch.fail(Unreadable(key))
                    return
            batch.fail(error)

        asked.add_done_callback(told)

    def _check(self) -> None:
        if asyncio._get_running_loop() is not self.loop:
            raise forks.foreign(self.generation)

    def _enqueue(self, batch: Batch) -> None:
        self._waiting.append(batch)
        self._wake()

    def _flush(self) -> None:
        self._scheduled = False
        if self._closed:
            self._fail_waiting(StoreError("the store is closed"))
        elif self.line is not None:
            self._send_waiting(self.line)
        elif self._waiting and self._connecting is None and self._pausing is None:
            if pause := self.pace.wait():
                self._pausing = self.loop.call_later(pause, self._pause_is_over)
            else:
                self._connecting = self.loop.create_task(self._bring_up())

    def _pause_is_over(self) -> None:
        self._pausing = None
        self._flush()

    def _send_waiting(self, line: Line) -> None:
        if line.moves != self.primary.moves:
            line.drop("another server is the primary now")
            self._wake()
            return
        batches, self._waiting = self._waiting, []
        limit = self.timeout
        for batch in batches:
            if batch.target is not None and batch.target.batch is batch:
                batch.target.batch = None
            if batch.limit < limit:
                limit = batch.limit
            line.send(batch)
        line.flush()
        if not batches:
            return
        if self._watch is not None and limit < self.timeout and self._watch.when() > self.loop.time() + limit:
            self._watch.cancel()
            self._watch = None
        if self._watch is None:
            self._watch = self.loop.call_later(limit, self._check_reply)

    async def _bring_up(self) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout) as self._limit:
                line = Line(self, await self._connect(), self.primary.moves)
        except Exception as problem:  # whatever it was, callers wait
            if not isinstance(problem, (RedisError, OSError, LockbeatError)):  # TimeoutError is an OSError
                log.exception("connecting failed")
            reason = str(problem) or f"no answer within {self._connect_timeout:g} s"
            final = is_final(problem)
            error = StoreError(str(error_of(problem))) if final else StoreUnavailable(reason)
            self.pace.failed(self.longest_pause)
            self._count(error)
            if self._lines or not final:  # else it was never there, and whoever asks is told why
                self.outage.failed(self, reason)
            self._fail_waiting(error)
        else:
            self.line = line
            self._lines += 1
            if self._lines > 1:
                if self.traffic is not None:
                    self.traffic.reconnects += 1
                if self.moved is not None:
                    self.moved()
        finally:
            if self._connecting is asyncio.current_task():
                self._connecting = self._limit = None
        self._flush()

    def _fail_waiting(self, error: LockbeatError) -> None:
        batches, self._waiting = self._waiting, []
        for batch in batches:
            if self.keeps(batch) and len(self._waiting) < MOST_KEPT:
                self._waiting.append(batch)
                continue
            if batch.target is not None and batch.target.batch is batch:
                batch.target.batch = None
            batch.fail(error)

    def keeps(self, batch: Batch) -> bool:
        """Whether it is to wait for the next line, rather than fail with this one."""
        return batch.keep_until > self.loop.time() and not self._closed

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)

    def _check_reply(self) -> None:
        """A reply is overdue: a server that hangs is as good as away."""
        self._watch = None
        if self.line is None or not self.line.sent:
            return
        # A server that answers what came before is not gone.
        heard_at, sent = self.line.heard_at, self.line.sent
        due, waited = min((max(batch.sent_at, heard_at) + self._time_for(batch), self._time_for(batch)) for batch in sent)
        if due <= self.loop.time():
            self.line.drop(f"no answer within {waited:g} s")
        else:
            self._watch = self.loop.call_at(due, self._check_reply)

    def _time_for(self, batch: Batch) -> float:
        return min(batch.limit, self.timeout) + batch.patience

    async def aclose(self) -> None:
        """Send what is waiting, wait for the replies within the timeout, and hang up.

        For as long what is to be taken back is tried, if the store is away.
        """
        deadline = self.loop.time() + self.timeout
        if self._waiting and self.line is not None:
            self._flush()
        sent = self.line.sent if self.line is not None else ()
        await self._settle([batch for batch in (*self._waiting, *sent) if self.keeps(batch)], deadline)
        self._closed = True
        if self.line is not None:
            await self._settle(self.line.sent, deadline)
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self._fail_waiting(StoreError("the store is closed"))
        for timer in (self._watch, self._pausing):
            if timer is not None:
                timer.cancel()
        if self.line is not None:
            self.line.drop("the store is closed")
        self.outage.forget(self)

    async def _settle(self, batches: Iterable[Batch], deadline: float) -> None:
        pending = [future for batch in batches for future in batch.calls if not future.done()]
        if pending:
            await asyncio.wait(pending, timeout=max(deadline - self.loop.time(), 0))
