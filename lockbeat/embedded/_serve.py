"""Keep an embedded server in the foreground, for `lockbeat server`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator

from lockbeat.embedded._launch import ask
from lockbeat.embedded._server import EmbeddedServer
from lockbeat.errors import InvalidArgument


def serve_forever(
    path: str | os.PathLike[str] | None = None,
    port: int | None = None,
    *,
    on_ready: Callable[[EmbeddedServer], None] | None = None,
) -> None:
    """Keep the server of `path` running until SIGINT or SIGTERM, bringing it back when it dies.

    Call it from the main thread.

    port: listen on 127.0.0.1 as well, for tools and containers: without a password, so every user of this machine can read and
        change the store. It is closed again at the end if others keep the server.
    on_ready: called after each start.

    Raises: as `EmbeddedServer.open`, and InvalidArgument when the port can't be had.
    """
    with _stop_signals() as stop, EmbeddedServer.open(path) as server:
        try:
            while not select.select([stop], [], [], 0)[0]:
                server.ensure_running()
                if port is not None:
                    _listen(server, port)
                if on_ready is not None:
                    on_ready(server)
                # Until a signal comes or the server is gone: it never closes an idle connection by itself.
                with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as watch:
                    watch.connect(server.socket_path)
                    select.select([stop, watch], [], [])
        finally:
            if port is not None:
                ask(server.socket_path, "CONFIG", "SET", "port", "0")


def _listen(server: EmbeddedServer, port: int) -> None:
    for name, value in (("bind", "127.0.0.1"), ("port", str(port))):
        answer = ask(server.socket_path, "CONFIG", "SET", name, value)
        if answer is not None and answer.startswith(b"-"):
            raise InvalidArgument("port", f"127.0.0.1:{port} can't be listened on")


@contextlib.contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """SIGINT and SIGTERM as a readable socket, so that waiting for them needs no poll."""
    reading, writing = socket.socketpair()
    before = {each: signal.signal(each, lambda *_: writing.send(b"x")) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield reading
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        reading.close()
        writing.close()
