"""A TCP proxy between a client and its server that loses replies, or the whole connection, when told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable


class Proxy:
    """Forwards both ways. `lose_reply(matches)` forwards the next matching request, and hangs up instead of its reply."""

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.port = 0
        self.lost = 0
        """How many replies were lost so far."""
        self.on_lost: Callable[[], None] | None = None
        """Called after the server has answered and before the client learns that it will not hear."""
        self._matches: list[Callable[[bytes], bool]] = []
        self._links: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def lose_reply(self, matches: Callable[[bytes], bool] = bool, times: int = 1) -> None:
        """Lose the replies to the next requests for which `matches` is true."""
        self._matches += [matches] * times

    def cut(self) -> None:
        """Hang up on everybody."""
        for link in self._links:
            link.cancel()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        losing = False

        async def requests() -> None:
            nonlocal losing
            while data := await reader.read(1 << 16):
                if self._matches and self._matches[0](data):
                    del self._matches[0]
                    losing = True
                up_writer.write(data)

        async def replies() -> None:
            while data := await up_reader.read(1 << 16):
                if losing:
                    self.lost += 1
                    if self.on_lost is not None:
                        self.on_lost()
                    return
                writer.write(data)

        both = [asyncio.create_task(requests()), asyncio.create_task(replies())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass
        finally:
            self._links.discard(task)
            for half in both:
                half.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for end in (writer, up_writer):
                end.transport.abort()


@contextlib.asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    """A proxy to 127.0.0.1:`port`, on a port of its own."""
    made = Proxy(port)
    listener = await asyncio.start_server(made._link, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listener.close()
        links = list(made._links)
        made.cut()
        await asyncio.gather(*links, return_exceptions=True)
