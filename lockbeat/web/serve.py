"""The page as a server of its own, by uvicorn: on the loopback, unless somebody has to say who they are."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from lockbeat.errors import InvalidArgument, LockbeatError, MissingExtra
from lockbeat.leases.lease import monotonic
from lockbeat.web.board import Dashboard
from lockbeat.web.guard import LOOPBACK

CONNECTIONS = 256
LONGEST_REQUEST = 16_384
"""Bytes of a request's line and headers."""
GRACE = 3
"""Seconds that an answer gets to end on shutdown."""


HEARD_WITHIN = 30.0
"""Seconds in which a request has to come whole, and an answer to be taken."""
LOOK_EVERY = 5.0


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises InvalidArgument for a name that is none, LockbeatError for a port that is taken."""
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as problem:  # UnicodeError: no name could be like it
        raise InvalidArgument("host", f"{host!r} is no address of this machine: {problem}") from None
    try:
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as problem:
        raise LockbeatError(f"can't listen on {host} port {port}: {problem.strerror}") from problem


async def serve(board: Dashboard, bound: socket.socket, ended: asyncio.Future[int], ready: Callable[[str], object]) -> None:
    """Serve until `ended`; then within GRACE whatever was begun. ready: is told the URL."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("the web page needs uvicorn: pip install 'lockbeat[web]'") from error

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # they are the caller's

    config = uvicorn.Config(
        board,
        lifespan="on",
        ws="none",
        http="h11",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody is believed who says that they are another
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=LONGEST_REQUEST,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=GRACE,
    )
    server = Server(config)

    def end(_: object) -> None:
        board.streams.end()
        server.should_exit = True

    ended.add_done_callback(end)
    host, port = bound.getsockname()[:2]
    ready(f"http://{f'[{host}]' if ':' in host else host}:{port}{board.prefix}/")
    looking = asyncio.create_task(_hang_up(server.server_state.connections))
    try:
        await server.serve(sockets=[bound])
    finally:
        looking.cancel()
        await asyncio.wait([looking])


async def _hang_up(connections: Collection[Any]) -> None:
    """Hang up on who does not ask, or does not take the answer: uvicorn would keep their places for ever."""
    known: dict[tuple[Any, object, bool], float] = {}
    while True:
        await asyncio.sleep(LOOK_EVERY)
        now, before, known = monotonic(), known, {}
        for one in [*connections]:
            cycle, taking = one.cycle, one.transport.get_write_buffer_size() > 0
            if taking or cycle is None or cycle.response_complete or cycle.more_body:
                standing = one, cycle, taking  # another request has a cycle of its own
                known[standing] = before.get(standing, now)
                if now - known[standing] >= HEARD_WITHIN:
                    one.transport.abort()
