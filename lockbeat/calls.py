"""Script calls to every shard of a store, from one event loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from lockbeat.connection import Connector
from lockbeat.errors import StoreError, StoreUnavailable
from lockbeat.keys import Keys
from lockbeat.scripts import load
from lockbeat.wire import MemoryWire, Target, Wire

Args = Sequence[str | bytes | int]


class Calls:
    """Calls scripts by name and shard. Not shared between event loops: a thread of ours makes its own.

    `timeout`, in seconds, bounds each attempt, and how long a call is repeated while the store is away.
    """

    def __init__(self, connector: Connector, keys: Keys, timeout: float) -> None:
        self.keys = keys
        self.timeout = timeout
        self._connector = connector
        self._wires: dict[int, Wire] = {}
        self._closed = False
        self._targets: dict[tuple[str, int], tuple[Wire, Target]] = {}

    def wire(self, shard: int) -> Wire:
        """The connection that serves a shard: one for all, except on a Cluster."""
        place = shard if self._connector.kind == "cluster" else 0
        wire = self._wires.get(place)
        if wire is None:
            if self._closed:
                raise StoreError("the store is closed")
            wire = self._wires[place] = self._new_wire(place)
        return wire

    def _new_wire(self, shard: int) -> Wire:
        connector = self._connector
        if connector.kind == "memory":
            return MemoryWire(connector.memory_client(), self.timeout)
        key = self.keys.key(shard, "fence")
        return Wire(lambda: connector.dedicated_for_key(key), self.timeout)

    def _target(self, name: str, shard: int) -> tuple[Wire, Target]:
        pair = self._targets.get((name, shard))
        if pair is None:
            script = load(name)
            pair = self.wire(shard), Target(script, [self.keys.key(shard, key) for key in script.keys])
            self._targets[name, shard] = pair
        return pair

    def submit(self, name: str, shard: int, args: Args, *, last: bool = False) -> asyncio.Future[Any]:
        """Put a call on its way, now; the future gets its reply or StoreUnavailable, and the call is not repeated.

        Cancelling the future does not take the call back. `last`: it runs after every call made so far.
        """
        wire, target = self._target(name, shard)
        return wire.submit(target, args, last=last)

    def submit_groups(self, name: str, shard: int, groups: Sequence[Args]) -> asyncio.Future[list[Any]]:
        """Calls of a batched script as one, up to its `most`; the future gets their replies, in order."""
        wire, target = self._target(name, shard)
        return wire.submit_groups(target, [arg for group in groups for arg in group])

    async def call(self, name: str, shard: int, args: Args) -> Any:
        """Make a call, and repeat it while the store is away, for at most `timeout` seconds.

        Every script gives a repeated call its first outcome. Raises StoreUnavailable, StoreError, ScriptError.
        """
        wire, target = self._target(name, shard)
        try:
            return await wire.submit(target, args)
        except StoreUnavailable:
            return await self._repeat(wire, lambda: wire.submit(target, args))

    async def call_groups(self, name: str, shard: int, groups: Sequence[Args]) -> list[Any]:
        """As `call`, for many calls of a batched script made as one."""
        wire, target = self._target(name, shard)
        args = [arg for group in groups for arg in group]
        try:
            return await wire.submit_groups(target, args)
        except StoreUnavailable:
            replies: list[Any] = await self._repeat(wire, lambda: wire.submit_groups(target, args))
            return replies

    async def call_once(self, name: str, shard: int, args: Args, call: str) -> Any:
        """As `call`, for a script that keeps its answer under `reply:CALL`."""
        script = load(name)
        keys = [self.keys.key(shard, key.replace("CALL", call)) for key in script.keys]
        wire, target = self.wire(shard), Target(script, keys)
        try:
            return await wire.submit(target, args)
        except StoreUnavailable:
            return await self._repeat(wire, lambda: wire.submit(target, args))

    async def _repeat(self, wire: Wire, submit: Callable[[], asyncio.Future[Any]]) -> Any:
        loop = wire.loop
        deadline, pause = loop.time() + self.timeout, 0.02
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects
            try:
                return await submit()
            except StoreUnavailable:
                pause = min(pause * 2, 0.5)
                if loop.time() + pause > deadline:
                    raise

    async def aclose(self) -> None:
        """Wait for the replies on their way, within the timeout, and hang up."""
        self._closed = True
        for wire in self._wires.values():
            await wire.aclose()
