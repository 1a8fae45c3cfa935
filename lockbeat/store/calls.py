"""Script calls to every shard of a store, from one event loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from copy import copy
from functools import partial
from typing import Any, TypeVar

from lockbeat.connection import Connector
from lockbeat.errors import NotDurable, StoreError, StoreUnavailable, Unreadable
from lockbeat.process import chance
from lockbeat.store.batch import Target
from lockbeat.store.durable import Durability, DurableWire
from lockbeat.store.keys import Keys
from lockbeat.store.memory import MemoryWire
from lockbeat.store.rows import Row
from lockbeat.store.scripts import Script, load
from lockbeat.store.wire import Wire, patience_for
from lockbeat.values.staying import Stays

T = TypeVar("T")


class Calls(Stays):
    """Calls scripts by name and shard. Not shared between event loops: a thread of ours makes its own.

    `timeout`, in seconds, bounds each attempt, and how long a call is repeated while the store is away. A call that takes or
    renews a lease says for how long (`lease`, in seconds): its attempts are shorter, so that something is left of a short one.
    `moved` is told of each place (see there) whose connection was made anew: its calls may run on another server from now on.
    """

    def __init__(self, connector: Connector, keys: Keys, timeout: float, moved: Callable[[int], None] | None = None) -> None:
        self.keys = keys
        self.timeout = self._patience = timeout
        self.shards = 1
        """Of the store; whoever makes this has to say so."""
        self._connector = connector
        self._moved = moved
        self._wires: dict[int, Wire] = {}
        self._durable: dict[int, DurableWire] = {}
        self._closed = False
        self._refused: StoreError | None = None
        self._targets: dict[tuple[str, int], tuple[Wire, Target]] = {}
        self._durable_targets: dict[tuple[str, int], tuple[DurableWire, Target]] = {}

    def wire(self, shard: int) -> Wire:
        """The connection that serves a shard: one for all, except on a Cluster."""
        if self._refused is not None:
            raise copy(self._refused)
        place = self.place(shard)
        wire = self._wires.get(place)
        if wire is None:
            if self._closed:
                raise StoreError("the store is closed")
            wire = self._wires[place] = self._new_wire(place)
            if self._moved is not None:
                wire.moved = partial(self._moved, place)
        return wire

    def place(self, shard: int) -> int:
        """What the shards that share a server have in common: each its own on a Cluster, else one for all."""
        return shard if self._connector.kind == "cluster" else 0

    def _new_wire(self, shard: int) -> Wire:
        connector = self._connector
        if connector.kind == "memory":
            return MemoryWire(connector.memory_client(), self.timeout)
        key = self.keys.key(shard, "fence")
        wire = Wire(lambda: connector.dedicated_for_key(key), self.timeout, outage=connector.outage)
        wire.primary, wire.alone = connector.primary(key), connector.kind != "cluster"
        if self._patience != self.timeout:
            wire.hurry(self._patience)
        if connector.counting is not None:
            wire.traffic = connector.counting.traffic()
        return wire

    def _load(self, name: str) -> Script:
        return load(name, bare=self._connector.kind == "memory")

    def _target(self, name: str, shard: int) -> tuple[Wire, Target]:
        """Made once, and then found in `_targets`."""
        script = self._load(name)
        pair = self.wire(shard), Target(script, [self.keys.key(shard, key) for key in script.keys])
        self._targets[name, shard] = pair
        return pair

    def _durable_target(self, name: str, shard: int) -> tuple[DurableWire, Target]:
        pair = self._durable_targets.get((name, shard))
        if pair is None:
            if self._connector.kind == "memory":
                raise NotDurable("a store in memory has neither replicas nor a disk")
            if self._closed:
                raise StoreError("the store is closed")
            if self._refused is not None:
                raise copy(self._refused)
            place = self.place(shard)
            wire = self._durable.get(place)
            if wire is None:
                own = self._new_wire(place)
                wire = self._durable[place] = DurableWire(own, self.keys.key(place, "durable"), self._connector.doubt)
            script = load(name)
            pair = wire, Target(script, [self.keys.key(shard, key) for key in script.keys])
            self._durable_targets[name, shard] = pair
        return pair

    def submit(
        self, row: Row, shard: int, *, last: bool = False, lasts: float = 0.0, lease: float = math.inf
    ) -> asyncio.Future[Any]:
        """Put a call on its way, now; the future gets its reply or StoreUnavailable, and the call is not repeated.

        Cancelling the future does not take the call back. `last`: it runs after every call made so far, and for `lasts` seconds
        it is repeated until it has run.
        """
        wire, target = self._targets.get((row.script, shard)) or self._target(row.script, shard)
        return wire.submit(target, row, last=last, lasts=lasts, limit=patience_for(lease))

    def submit_many(self, rows: Sequence[Row], shard: int) -> asyncio.Future[list[Any]]:
        """Calls of a batched script as one, up to its `most`; the future gets their replies, in order."""
        name = rows[0].script
        wire, target = self._targets.get((name, shard)) or self._target(name, shard)
        return wire.submit_many(target, rows)

    def refuse(self, problem: StoreError) -> None:
        """Let no call through from now on: each raises `problem`."""
        self._refused = problem
        self._targets.clear()
        self._durable_targets.clear()

    def doubt(self) -> None:
        """A thread was stopped in the midst of a call: what it was at is given up, and the lines are made anew."""
        for place, wire in self._wires.items():
            wire.doubt(target for (_, shard), (_, target) in self._targets.items() if self.place(shard) == place)

    def hurry(self, timeout: float) -> None:
        """Give up connections sooner, or later, than after `timeout`; see `Wire.hurry`."""
        if timeout != self._patience:
            self._patience = timeout
            for wire in self._wires.values():
                wire.hurry(timeout)

    async def call(self, name: str, shard: int, /, *, lease: float = math.inf, **args: Any) -> Any:
        """Call a script by the names of its header, and repeat it while the store is away, for at most `timeout` seconds.

        Every script gives a repeated call its first outcome. Raises TypeError, StoreUnavailable, StoreError, ScriptError.
        """
        wire, target = self._targets.get((name, shard)) or self._target(name, shard)
        row, limit = target.script.encode(**args), patience_for(lease)
        try:
            return await wire.submit(target, row, limit=limit)
        except StoreUnavailable:
            return await self._repeat(lambda: wire.submit(target, row, limit=limit))

    async def call_row(self, row: Row, shard: int, *, lease: float = math.inf) -> Any:
        """As `call`, for a row that was made before."""
        wire, target = self._targets.get((row.script, shard)) or self._target(row.script, shard)
        limit = patience_for(lease)
        try:
            return await wire.submit(target, row, limit=limit)
        except StoreUnavailable:
            return await self._repeat(lambda: wire.submit(target, row, limit=limit))

    async def on_every_shard(self, call: Callable[[int], Awaitable[T]]) -> list[T]:
        """What `call` returns for each shard, in their order; all at once."""
        return await asyncio.gather(*map(call, range(self.shards)))

    async def pages(self, name: str, shard: int, /, **args: Any) -> AsyncIterator[Any]:
        """The replies of a script that lists in pages: `after` is the `cursor` of the reply before, empty in the last one."""
        after: str | bytes = ""
        while True:
            page = await self.call(name, shard, after=after, **args)
            yield page
            if not (after := page.cursor):
                return

    async def call_many(self, rows: Sequence[Row], shard: int) -> list[Any]:
        """As `call`, for many rows of a batched script, in as few runs as its `most` allows, which share the way.

        The reply to one that met what can't be read is an Unreadable, in its place.
        """
        if not rows:
            return []
        most = load(rows[0].script).most
        if len(rows) > most:
            runs = [self.call_many(rows[at : at + most], shard) for at in range(0, len(rows), most)]
            return [reply for replies in await asyncio.gather(*runs) for reply in replies]
        try:
            return await self.submit_many(rows, shard)
        except StoreUnavailable:
            replies: list[Any] = await self._repeat(lambda: self.submit_many(rows, shard))
            return replies

    async def call_named(self, name: str, shard: int, word: str, /, **args: Any) -> Any:
        """As `call`, for a script with a key such as `fenced:NAME`: `word` takes the place of the one in capitals."""
        script = self._load(name)
        keys = [self.keys.key(shard, key, word) for key in script.keys]
        wire, target, row = self.wire(shard), Target(script, keys), script.encode(**args)
        try:
            return await wire.submit(target, row)
        except StoreUnavailable:
            return await self._repeat(lambda: wire.submit(target, row))

    async def call_durably(
        self,
        row: Row,
        shard: int,
        durability: Durability,
        *,
        changed: Callable[[Any], object] | None = None,
    ) -> Any:
        """As `call_row`, and wait until what it wrote is as durable as asked for.

        Raises NotDurable when it is not in time: the call was made, its reply is the error's `reply`, and it is the caller's to
        take it back; `reply` None: it was not made, this store can't do what is asked. `changed` is asked about the reply: where
        nothing was, there is nothing to wait for. Ordinary calls go ahead meanwhile: await this one to have them follow it.
        """
        try:
            [reply] = await self.call_many_durably([row], shard, durability, changed=changed)
        except NotDurable as problem:
            if problem.reply is not None:
                [problem.reply] = problem.reply
            raise
        if isinstance(reply, Unreadable):
            raise reply
        return reply

    async def call_many_durably(
        self,
        rows: Sequence[Row],
        shard: int,
        durability: Durability,
        *,
        changed: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """As `call_durably`, for many calls of a batched script made as one, up to its `most`; `changed` is asked about each."""
        wire, target = self._durable_target(rows[0].script, shard)
        try:
            return await wire.call(target, rows, durability, changed)
        except StoreUnavailable:
            replies: list[Any] = await self._repeat(lambda: wire.call(target, rows, durability, changed))
            return replies

    def unanswered(self, shard: int) -> set[asyncio.Future[Any]]:
        """Durable calls to a shard that are on their way: each of the futures ends when one has been executed, or is lost."""
        wire = self._durable.get(self.place(shard))
        return set() if wire is None else wire.unanswered

    async def _repeat(self, submit: Callable[[], Awaitable[Any]]) -> Any:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self.timeout, 0.02
        while True:
            await asyncio.sleep(pause * chance.between(0.5, 1.0))
            try:
                return await submit()
            except StoreUnavailable:
                pause = min(pause * 2, 0.5)
                if loop.time() + pause > deadline:
                    raise

    async def aclose(self) -> None:
        """Wait for the replies on their way, within the timeout, and hang up."""
        self._closed = True
        await asyncio.gather(*(durable.aclose() for durable in self._durable.values()))
        await asyncio.gather(*(wire.aclose() for wire in self._wires.values()))
