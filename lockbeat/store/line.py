"""One connected socket, and the batches on their way over it. It decides nothing: what becomes of them is its wire's affair."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import Any, Protocol

import hiredis

from lockbeat.errors import StoreError
from lockbeat.process import forks
from lockbeat.store.batch import Batch

_RESET = struct.pack("ii", 1, 0)  # linger, for no time: closing resets the connection


class Owner(Protocol):
    """Whose line it is, and what that is told."""

    loop: asyncio.AbstractEventLoop
    generation: int

    def answered(self, batch: Batch) -> None:
        """The server has answered these calls."""
        ...

    def refused(self, line: Line, batch: Batch, reply: hiredis.ReplyError) -> None:
        """The server answered a batch with an error."""
        ...

    def lost(self, line: Line, batches: deque[Batch], reason: str) -> None:
        """The line has ended; the outcome of these is unknown."""
        ...


def take_over(connection: Any) -> tuple[asyncio.StreamWriter, asyncio.WriteTransport]:
    """The socket of an established redis-py connection, which no longer owns it; keep both while it is in use.

    redis-py has no public way to it; test_wire.py pins this one.
    """
    stream: asyncio.StreamWriter = connection._writer
    connection._reader = connection._writer = None
    return stream, stream.transport


class Line(asyncio.Protocol):
    """One connected socket. `moves`: how often the primary had been found to be another when it was made."""

    def __init__(self, owner: Owner, connection: Any, moves: int) -> None:
        self.moves = moves
        self.sent: deque[Batch] = deque()
        self.known: set[str] = set()  # digests of the scripts that this server surely had
        self._owner = owner
        self._loop = owner.loop
        self._stream, self._transport = take_over(connection)
        self._reader = hiredis.Reader()
        self._packed: list[bytes] = []
        self.began = self.heard_at = self._loop.time()
        self._transport.set_protocol(self)

    def send(self, batch: Batch) -> None:
        target = batch.target
        if target is not None and target.script.sha not in self.known:
            # A new connection may lead to a server that was restarted. Healed only after NOSCRIPT, a call would run after those
            # sent behind it, such as the one that takes it back.
            self.known.add(target.script.sha)
            batch.head = ("EVAL", target.script.source, *target.head[2:])
        try:
            packed = batch.packed()
        except (UnicodeEncodeError, TypeError) as problem:
            batch.fail(StoreError(f"can't be sent: {problem}"))
            return
        batch.sent_at = self._loop.time()
        self.sent.append(batch)
        self._packed.append(packed)

    def flush(self) -> None:
        """Put what was sent on its way in one write: the server reads it in one go, and answers in one."""
        if self._packed:
            packed, self._packed = self._packed, []
            if forks.generation != self._owner.generation:
                return  # a forked child, on its parent's socket
            self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                batch = self.sent.popleft()
                if isinstance(reply, hiredis.ReplyError):
                    self._owner.refused(self, batch, reply)
                else:
                    batch.succeed(reply)
                    self._owner.answered(batch)
        except (hiredis.ProtocolError, IndexError) as problem:
            self.drop(f"the server does not speak the protocol: {problem}")

    def drop(self, reason: str) -> None:
        """End the line."""
        if self.sent:
            self._take_along()
        self._transport.abort()
        lost, self.sent = self.sent, deque()
        self._owner.lost(self, lost, reason)

    def _take_along(self) -> None:
        """Have the kernel forget what it has not delivered. It would go on for a minute or two, and the server might take a lease
        for a call that was repeated over another line, and whose block is over.
        """
        connected: socket.socket | None = self._transport.get_extra_info("socket")
        if connected is None:
            return  # over TLS one that is lost already has none any more
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(str(exc) if exc else "closed by the server")

    def eof_received(self) -> bool:
        return False
