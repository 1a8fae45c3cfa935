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
import contextlib
import logging
import math
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from copy import copy
from typing import Any

import hiredis
from redis.exceptions import RedisError

from lockbeat.connection import Primary
from lockbeat.connection.outage import Outage, Pace
from lockbeat.errors import LockbeatError, ScriptError, StoreError, StoreUnavailable, Unreadable
from lockbeat.process import forks
from lockbeat.store.keys import KEYS
from lockbeat.store.replies import error_of, is_denial, readable
from lockbeat.store.rows import Row
from lockbeat.store.scripts import Script

log = logging.getLogger("lockbeat")

_RESET = struct.pack("ii", 1, 0)  # linger, for no time: closing resets the connection

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


class Target:
    """A script on one shard: where calls that can share a run meet."""

    __slots__ = ("batch", "batched", "decode", "head", "most", "row", "script")

    def __init__(self, script: Script, keys: Sequence[str]) -> None:
        self.script = script
        self.row, self.decode, self.batched, self.most = script.row, script.decode, script.batched, script.most
        self.head = ("EVALSHA", script.sha, str(len(keys)), *keys)
        self.batch: Batch | None = None

    def refusal(self, row: object) -> TypeError:
        """It is no row of this script, and would shift what the others of a shared run mean."""
        return TypeError(f"{self.script.name} can't be called with {row!r}: make a row of it, by the names of its header")


class Batch:
    """Calls that share one run of a script, or one plain command."""

    __slots__ = ("args", "calls", "head", "keep_until", "last", "limit", "patience", "shared", "target")

    def __init__(self, target: Target | None, head: tuple[str | bytes, ...], *, shared: bool = False) -> None:
        self.target = target
        self.head = head
        self.shared = shared
        self.last = False
        self.keep_until = 0.0  # the loop's time; until then it is sent again over the next line, if this one is lost
        self.limit = math.inf  # seconds; a server that has not answered by then is taken for gone, as after the wire's timeout
        self.patience = 0.0
        self.args: list[str | bytes | int] = []
        self.calls: list[asyncio.Future[Any]] = []

    def command(self) -> tuple[Any, ...]:
        return (*self.head, *self.args)

    def succeed(self, reply: Any) -> None:
        """A group that met what can't be read has an error for a reply; of many groups made as one call it is in its place."""
        target, decode = self.target, None if self.target is None else self.target.decode
        alone = target is not None and (self.shared or not target.batched)
        if target is not None and not alone:
            reply = [_said(mine, decode) for mine in reply]
        for future, mine in zip(self.calls, reply if self.shared else (reply,), strict=True):
            if future.done():
                continue  # its caller was cancelled
            if alone and mine.__class__ is not int:
                mine = _said(mine, decode)
                if isinstance(mine, LockbeatError):
                    future.set_exception(mine)
                    continue
            future.set_result(mine)

    def fail(self, error: LockbeatError) -> None:
        """Every caller gets its own copy."""
        for future in self.calls:
            if not future.done():
                future.set_exception(copy(error))


def _said(reply: Any, decode: Callable[[Any], Any] | None) -> Any:
    """A script's reply to one call, its fields by name; or the error that it is for the caller."""
    if reply.__class__ is not list or decode is None:
        return readable(reply)
    try:
        return decode(reply)
    except ScriptError as problem:
        return problem


def take_over(connection: Any) -> tuple[asyncio.StreamWriter, asyncio.WriteTransport]:
    """The socket of an established redis-py connection, which no longer owns it; keep both while it is in use.

    redis-py has no public way to it; test_wire.py pins this one.
    """
    stream: asyncio.StreamWriter = connection._writer
    connection._reader = connection._writer = None
    return stream, stream.transport


class _Line(asyncio.Protocol):
    """One connected socket, and the batches on their way over it."""

    def __init__(self, wire: Wire, connection: Any) -> None:
        self.wire = wire
        self.stream, self.transport = take_over(connection)
        self.reader = hiredis.Reader()
        self.sent: deque[tuple[Batch, float]] = deque()
        self.packed: list[bytes] = []
        self.moves = wire.primary.moves
        self.known: set[str] = set()  # digests of the scripts that this server surely had
        self.began = self.heard_at = self.wire.loop.time()
        self.transport.set_protocol(self)

    def send(self, batch: Batch) -> None:
        target = batch.target
        if target is not None and target.script.sha not in self.known:
            # A new connection may lead to a server that was restarted. Healed only after NOSCRIPT, a call would run after those
            # sent behind it, such as the one that takes it back.
            self.known.add(target.script.sha)
            batch.head = ("EVAL", target.script.source, *batch.head[2:])
        try:
            packed = hiredis.pack_command(batch.command())
        except (UnicodeEncodeError, TypeError) as problem:
            batch.fail(StoreError(f"can't be sent: {problem}"))
            return
        self.sent.append((batch, self.wire.loop.time()))
        self.packed.append(packed)

    def flush(self) -> None:
        """Put what was sent on its way in one write: the server reads it in one go, and answers in one."""
        if self.packed:
            packed, self.packed = self.packed, []
            if forks.generation != self.wire.generation:
                return  # a forked child, on its parent's socket
            self.transport.write(packed[0] if len(packed) == 1 else b"".join(packed))

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.wire.loop.time()
        self.reader.feed(data)
        try:
            while (reply := self.reader.gets()) is not False:
                batch, _ = self.sent.popleft()
                if isinstance(reply, hiredis.ReplyError):
                    self.refused(batch, reply)
                else:
                    batch.succeed(reply)
                    if self.wire.outage.away:
                        self.wire.outage.over(self.wire)
        except (hiredis.ProtocolError, IndexError) as problem:
            self.drop(f"the server does not speak the protocol: {problem}")

    def refused(self, batch: Batch, reply: hiredis.ReplyError) -> None:
        forgotten = str(reply).startswith("NOSCRIPT") and self.wire.heals
        if forgotten and batch.target is not None and batch.head[0] == "EVALSHA":
            # SCRIPT FLUSH emptied the cache. EVAL fills it and runs in one step.
            batch.head = ("EVAL", batch.target.script.source, *batch.head[2:])
            behind = [later for later, _ in self.sent if later.last]
            self.send(batch)
            for later in behind:  # already run, and to run after this one: it is a release, which may come twice
                again = Batch(None, later.command())
                again.calls.append(self.wire.loop.create_future())
                again.calls[0].add_done_callback(asyncio.Future.exception)
                self.send(again)
            self.flush()
            return
        # Where calls are not healed one by one they are all made anew, over a connection that sends the scripts again.
        error = StoreUnavailable(str(reply)) if str(reply).startswith("NOSCRIPT") and batch.target else error_of(reply)
        if isinstance(error, StoreUnavailable) and self.wire.keeps(batch):
            self.sent.appendleft((batch, 0.0))
        elif batch.target is not None and "WRONGTYPE" in str(reply):
            self.wire.name_the_key(batch, error)
        else:
            batch.fail(error)
        if isinstance(error, StoreUnavailable):
            self.wire.outage.failed(self.wire, str(error), refused=True)
            self.drop(str(error))  # connect anew: the address may lead to another server now

    def drop(self, reason: str) -> None:
        """End the line; what is on its way has an unknown outcome."""
        if self.wire.line is self:
            self.wire.line = None
            self.wire.pace.lost(self.wire.loop.time() - self.began, self.wire.longest_pause)
        if self.sent:
            self._take_along()
        self.transport.abort()
        lost, self.sent = self.sent, deque()
        error = StoreUnavailable(f"connection lost: {reason}")
        kept = []
        for batch, _ in lost:
            if self.wire.keeps(batch):
                kept.append(batch)
            else:
                batch.fail(error)
        self.wire.resume(kept)

    def _take_along(self) -> None:
        """Have the kernel forget what it has not delivered. It would go on for a minute or two, and the server might take a lease
        for a call that was repeated over another line, and whose block is over.
        """
        with contextlib.suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(str(exc) if exc else "closed by the server")

    def eof_received(self) -> bool:
        return False


class Wire:
    """The shared connection to one server.

    `connect` opens a redis-py connection; `timeout`, in seconds, bounds connecting and waiting for a reply. `heals`: a script
    that the server has forgotten is sent again, behind what was sent meanwhile; else its callers get StoreUnavailable.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Any]], timeout: float, *, heals: bool = True, outage: Outage | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.generation = forks.generation
        self.timeout = self._longest = self._connect_timeout = timeout
        self._limit: asyncio.Timeout | None = None  # of the connection that is being made
        self.heals = heals
        self.outage = outage or Outage("its server")
        self.pace = Pace()
        self.line: _Line | None = None
        self.moved: Callable[[], None] | None = None
        self.primary = Primary()
        """When it is found to be another, the line to the one before is left."""
        """Told when the line was made anew, perhaps to another server; not of the first."""
        self._lines = 0
        self._connect = connect
        self._connecting: asyncio.Task[None] | None = None
        self._pausing: asyncio.TimerHandle | None = None
        self._waiting: list[Batch] = []
        self._scheduled = False
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False

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

    def _send_waiting(self, line: _Line) -> None:
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
                line = _Line(self, await self._connect())
        except Exception as problem:  # whatever it was, callers wait
            if not isinstance(problem, (RedisError, OSError, LockbeatError)):  # TimeoutError is an OSError
                log.exception("connecting failed")
            reason = str(problem) or f"no answer within {self._connect_timeout:g} s"
            error = error_of(problem) if isinstance(problem, RedisError) else StoreUnavailable(reason)
            if not isinstance(error, StoreUnavailable) and not is_denial(problem):
                error = StoreUnavailable(reason)
            self.pace.failed(self.longest_pause)
            self.outage.failed(self, reason)
            self._fail_waiting(error)
        else:
            self.line = line
            self._lines += 1
            if self._lines > 1 and self.moved is not None:
                self.moved()
        finally:
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

    def resume(self, kept: list[Batch]) -> None:
        """Send these over the next line, ahead of what is waiting."""
        if kept:
            self._waiting[:0] = kept
            self._wake()

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
        due, waited = min((max(sent_at, heard_at) + self._time_for(batch), self._time_for(batch)) for batch, sent_at in sent)
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
        sent = [batch for batch, _ in self.line.sent] if self.line is not None else []
        await self._settle([batch for batch in (*self._waiting, *sent) if self.keeps(batch)], deadline)
        self._closed = True
        if self.line is not None:
            await self._settle([batch for batch, _ in self.line.sent], deadline)
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

    async def _settle(self, batches: list[Batch], deadline: float) -> None:
        pending = [future for batch in batches for future in batch.calls if not future.done()]
        if pending:
            await asyncio.wait(pending, timeout=max(deadline - self.loop.time(), 0))
