"""The wire of `memory://`: a batch is one command of a fakeredis client."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import RedisError

from lockbeat.errors import ScriptError, StoreError
from lockbeat.store.batch import Batch
from lockbeat.store.replies import error_of
from lockbeat.store.wire import Wire


class MemoryWire(Wire):
    def __init__(self, client: Any, timeout: float) -> None:
        super().__init__(self._never, timeout)
        self.client = client
        """What sends its commands."""
        self._running: asyncio.Task[None] | None = None

    async def _never(self) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        self._scheduled = False
        if self._closed:
            self._fail_waiting(StoreError("the store is closed"))
        elif self._running is None:
            self._running = self.loop.create_task(self._run())

    async def _run(self) -> None:
        """One after the other: a call never overtakes one that was made before it."""
        try:
            while self._waiting:
                batch = self._waiting.pop(0)
                if batch.target is not None and batch.target.batch is batch:
                    batch.target.batch = None
                try:
                    batch.succeed(await self._reply(batch))
                except (RedisError, OSError) as problem:
                    if batch.target is not None and "WRONGTYPE" in str(problem):
                        self.name_the_key(batch, error_of(problem))
                    else:
                        batch.fail(error_of(problem))
                except Exception as problem:  # noqa: BLE001 - what fakeredis makes of a script's own error is a lupa one
                    batch.fail(ScriptError(str(problem)))
        finally:
            self._running = None

    async def _reply(self, batch: Batch) -> Any:
        try:
            return await self.client.execute_command(*batch.command())
        except RedisError as problem:
            if batch.target is None or "matching script" not in str(problem):
                raise
            batch.head = ("EVAL", batch.target.script.source, *batch.head[2:])
            return await self.client.execute_command(*batch.command())

    async def aclose(self) -> None:
        if self._waiting:
            self._flush()
        self._closed = True
        if self._running is not None:
            await asyncio.wait((self._running,), timeout=self.timeout)
        self._fail_waiting(StoreError("the store is closed"))
        await self.client.aclose()
