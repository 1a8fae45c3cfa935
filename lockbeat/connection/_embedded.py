"""The connection to an embedded server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.to_thread
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from lockbeat.embedded import EmbeddedServer


class EmbeddedConnection(redis.asyncio.UnixDomainSocketConnection):
    """Brings a dead embedded server back before giving up: its users are the only ones who can."""

    def __init__(self, *, server: EmbeddedServer, **settings: Any) -> None:
        self._server = server
        super().__init__(**settings)

    async def connect(self) -> None:
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except RedisConnectionError:
            await anyio.to_thread.run_sync(self._server.ensure_running, abandon_on_cancel=True)
            await super().connect()  # type: ignore[no-untyped-call]
