"""A TCP proxy between a client and its server that loses requests, replies, or the whole connection, when told to.

It also takes the place of a server in trouble: see `become` and `FAULTS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable

import hiredis

from lockbeat.store.scripts import load

LOADING = b"-LOADING the dataset is in memory soon\r\n"
ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "wrong password": lambda command: b"-NOAUTH Authentication required.\r\n",
    "loading": lambda command: b"+OK\r\n" if command in (b"CLIENT", b"SELECT") else LOADING,
}
FAULTS = ("refused", "black hole", "full", *ANSWERS, "speaks TLS")
"""What a server in trouble does: it does not listen; drops packets; has no place for one more client; refuses, or loads; is
another kind of server."""


def calls_of(*scripts: str) -> Callable[[bytes], bool]:
    """Whether a request runs one of these scripts: by its digest, or first on a connection by the end of its source.

    One request may come in many pieces; only one of them has the end.
    """
    loaded = [load(script) for script in scripts]
    marks = [mark for script in loaded for mark in (script.sha.encode(), script.source[-200:].encode())]
    return lambda request: any(mark in request for mark in marks)


class Proxy:
    """Forwards both ways. `lose_reply(matches)` forwards the next matching request, and hangs up instead of its reply.

    `lose_request` hangs up instead of forwarding it, and `delay_reply` keeps the reply until `go_on`.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.port = 0
        self.lost = 0
        """How many requests and replies were lost or delayed so far."""
        self.waits = False
        """Whether to let nobody through, once something was lost, before `go_on` is called."""
        self.on_lost: Callable[[], None] | None = None
        """Called after the server has answered and before the client learns that it will not hear."""
        self.messages: Callable[[bytes], Iterable[tuple[float, bytes]]] | None = None
        """What becomes of messages of pub/sub: after how many seconds to deliver what."""
        self._fault = ""
        self._listener: asyncio.Server | None = None
        self._hole: list[socket.socket] = []
        self._matches: list[tuple[Callable[[bytes], bool], str]] = []
        self._way = asyncio.Event()
        self._way.set()
        self._links: set[asyncio.Task[None]] = set()
        self._vanished: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def lose_reply(self, matches: Callable[[bytes], bool] = bool, times: int = 1) -> None:
        """Lose the replies to the next requests for which `matches` is true."""
        self._matches += [(matches, "lost")] * times

    def lose_request(self, matches: Callable[[bytes], bool] = bool) -> None:
        """Hang up on the next request for which `matches` is true: the server never sees it."""
        self._matches.append((matches, "unsent"))

    def delay_reply(self, matches: Callable[[bytes], bool] = bool) -> None:
        """Keep the reply to the next request for which `matches` is true until `go_on`."""
        self._matches.append((matches, "late"))
        self.waits = True

    def go_on(self) -> None:
        """Let everybody through again."""
        self.waits = False
        self._way.set()

    def _met(self) -> None:
        self.lost += 1
        if self.waits:
            self._way.clear()
        if self.on_lost is not None:
            self.on_lost()

    def vanish(self) -> None:
        """Drop the packets of every connection there is, as a firewall that forgot them; new ones work."""
        self._vanished |= self._links

    def recover(self) -> None:
        """Lose nothing more."""
        self._matches.clear()

    def cut(self) -> None:
        """Hang up on everybody."""
        for link in self._links:
            link.cancel()

    async def listen(self) -> None:
        """Forward again, on the same port as before."""
        self._fault = ""
        await self._listen()

    async def _listen(self) -> None:
        self._close()
        self._listener = await asyncio.start_server(self._link, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def become(self, fault: str) -> None:
        """Hang up on everybody, and be a server in trouble from now on: one of FAULTS."""
        self._fault = fault  # first: who connects while it begins to listen is not let through either
        self._close()
        self.cut()
        if fault == "black hole":
            hole = socket.create_server(("127.0.0.1", self.port), backlog=0)
            self._hole = [hole]
            for _ in range(4):  # no place is left in the queue: whoever comes now is not answered
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", self.port))
                self._hole.append(one)
        elif fault != "refused":
            await self._listen()

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for one in self._hole:
            one.close()
        self._hole = []

    async def _in_trouble(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault == "full":
            writer.write(b"-ERR max number of clients reached\r\n")
        elif self._fault == "speaks TLS":
            await reader.read(1 << 16)
            writer.write(b"\x15\x03\x01\x00\x02\x02\x46")
        elif self._fault in ANSWERS:
            answer, requests = ANSWERS[self._fault], hiredis.Reader()
            while data := await reader.read(1 << 16):
                requests.feed(data)
                while (command := requests.gets()) is not False:
                    writer.write(answer(command[0]))
        writer.close()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._fault:
            with contextlib.suppress(OSError):
                await self._in_trouble(reader, writer)
            return
        self._links.add(task)
        try:
            await self._way.wait()
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except (OSError, asyncio.CancelledError):
            self._links.discard(task)
            writer.transport.abort()
            return
        fate = ""

        async def requests() -> None:
            nonlocal fate
            begun = b""  # the end of a piece that is not the end of a request: a script may come in several
            while data := await reader.read(1 << 16):
                if task in self._vanished:
                    continue
                begun = b"" if not begun or begun.endswith(b"\r\n") else begun[-256:]
                begun += data
                if self._matches and self._matches[0][0](begun):
                    _, fate = self._matches.pop(0)
                    if fate == "unsent":
                        self._met()
                        return
                up_writer.write(data)

        async def replies() -> None:
            nonlocal fate
            while data := await up_reader.read(1 << 16):
                if task in self._vanished:
                    continue
                if fate:
                    self._met()
                    if fate == "lost":
                        return
                    await self._way.wait()
                    fate = ""
                if self.messages is not None and data.startswith(b"*3\r\n$7\r\nmessage"):
                    for delay, message in self.messages(data):
                        asyncio.get_running_loop().call_later(delay, writer.write, message)
                else:
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
            for end in (writer, up_writer):
                end.transport.abort()
            await asyncio.gather(*both, return_exceptions=True)  # it may be cancelled here, by `cut`


@contextlib.asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    """A proxy to 127.0.0.1:`port`, on a port of its own."""
    made = Proxy(port)
    await made.listen()
    try:
        yield made
    finally:
        made._close()
        links = list(made._links)
        made.cut()
        await asyncio.gather(*links, return_exceptions=True)
