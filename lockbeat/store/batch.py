"""Calls that share one run of a script, and how each gets its own reply."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import hiredis

from lockbeat.errors import LockbeatError, ScriptError
from lockbeat.store.replies import readable
from lockbeat.store.scripts import Script


class Target:
    """A script on one shard: where calls that can share a run meet."""

    __slots__ = ("batch", "batched", "decode", "head", "most", "packed", "row", "script")

    def __init__(self, script: Script, keys: Sequence[str]) -> None:
        self.script = script
        self.row, self.decode, self.batched, self.most = script.row, script.decode, script.batched, script.most
        self.head = ("EVALSHA", script.sha, str(len(keys)), *keys)
        self.packed = b""
        """The head as the server reads it, once it was sent."""
        self.batch: Batch | None = None

    def refusal(self, row: object) -> TypeError:
        """It is no row of this script, and would shift what the others of a shared run mean."""
        return TypeError(f"{self.script.name} can't be called with {row!r}: make a row of it, by the names of its header")


class Batch:
    """Calls that share one run of a script, or one plain command."""

    __slots__ = ("args", "calls", "head", "keep_until", "last", "limit", "patience", "sent_at", "shared", "target")

    def __init__(self, target: Target | None, head: tuple[str | bytes, ...], *, shared: bool = False) -> None:
        self.target = target
        self.head = head
        self.shared = shared
        self.last = False
        self.keep_until = 0.0  # the loop's time; until then it is sent again over the next line, if this one is lost
        self.limit = math.inf  # seconds; a server that has not answered by then is taken for gone, as after the wire's timeout
        self.patience = 0.0
        self.sent_at = 0.0
        self.args: list[str | bytes | int] = []
        self.calls: list[asyncio.Future[Any]] = []

    def command(self) -> tuple[Any, ...]:
        return (*self.head, *self.args)

    def packed(self) -> bytes:
        """The command as the server reads it. A script's head is most of it, and always the same."""
        target = self.target
        if target is None or self.head is not target.head:
            alone: bytes = hiredis.pack_command(self.command())
            return alone
        if not target.packed:
            target.packed = _packed(target.head)
        return b"*%d\r\n%b%b" % (len(target.head) + len(self.args), target.packed, _packed(tuple(self.args)))

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


def _packed(words: tuple[Any, ...]) -> bytes:
    """As the server reads them, without how many they are."""
    text: bytes = hiredis.pack_command(words)
    return text[text.index(b"\n") + 1 :]


def _said(reply: Any, decode: Callable[[Any], Any] | None) -> Any:
    """A script's reply to one call, its fields by name; or the error that it is for the caller."""
    if reply.__class__ is not list or decode is None:
        return readable(reply)
    try:
        return decode(reply)
    except ScriptError as problem:
        return problem
