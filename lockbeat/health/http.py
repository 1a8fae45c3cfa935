"""Answers probes over HTTP, from threads of its own: GET /livez, /readyz, /startupz, and what else it is given."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from lockbeat.errors import LockbeatError
from lockbeat.health.state import Health, Verdict

log = logging.getLogger("lockbeat")

LOOPBACK = "127.0.0.1"
AT_ONCE = 32
"""Requests that are answered at a time; for one more, who has been slowest to ask is hung up on."""
FEW = 8
"""Of these so many may be for what takes long, such as metrics of a store that does not answer."""
SLOW = 5.0
"""Seconds in which a request has to be read, and an answer to be taken."""


class Page(NamedTuple):
    """What is answered."""

    body: bytes
    kind: str = "application/json"
    status: int = 200


def probes(health: Health) -> dict[str, Callable[[], Page]]:
    """The pages of an instance, by their path."""

    def page(ask: Callable[[], Verdict]) -> Callable[[], Page]:
        def answer() -> Page:
            verdict = ask()
            return Page(json.dumps(asdict(verdict)).encode() + b"\n", status=200 if verdict.ok else 503)

        return answer

    return {"/livez": page(health.live), "/readyz": page(health.ready), "/startupz": page(health.started)}


def sparing(pages: Mapping[str, Callable[[], Page]], most: int = FEW) -> dict[str, Callable[[], Page]]:
    """The same pages, of which so many are answered at a time: what takes long leaves places to the others at its port."""
    places = threading.BoundedSemaphore(most)

    def spared(page: Callable[[], Page]) -> Callable[[], Page]:
        def answer() -> Page:
            if not places.acquire(blocking=False):
                return Page(b"too many are asking at a time\n", "text/plain; charset=utf-8", 503)
            try:
                return page()
            finally:
                places.release()

        return answer

    return {path: spared(page) for path, page in pages.items()}


class Listener:
    """Answers with these pages at a port while its block runs. Raises LockbeatError where it can't listen there."""

    def __init__(self, pages: Mapping[str, Callable[[], Page]], port: int, host: str = LOOPBACK) -> None:
        try:
            self._server = _Server(pages, host, port)
        except (OSError, OverflowError) as problem:
            reason = getattr(problem, "strerror", None) or str(problem)
            raise LockbeatError(f"can't listen on {_where(host, port)}: {reason}") from problem
        self.port = int(self._server.server_address[1])
        """The one that it listens on; asked for 0, it is any that is free."""
        _open.add(self._server)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="lockbeat http", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = AT_ONCE

    def __init__(self, pages: Mapping[str, Callable[[], Page]], host: str, port: int) -> None:
        self.pages = pages
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._asking: dict[socket.socket, float] = {}
        """Those whose request has not come whole, the oldest first, and when it has to have."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Answer)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks name servers for the host's own name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._has_place():
            self.shutdown_request(request)
            return
        self._asking[request] = time.monotonic() + SLOW
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._places.release()
            raise

    def _has_place(self) -> bool:
        """Whether one more can be answered. One who does not say what it wants can't keep the others out."""
        if self._places.acquire(blocking=False):
            return True
        slowest = next(iter([*self._asking]), None)
        if slowest is None:
            return False
        self._hang_up(slowest)
        return self._places.acquire(timeout=SLOW)

    def _hang_up(self, request: socket.socket) -> None:
        """Wake its thread, which then ends."""
        self.heard(request)
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def heard(self, request: Any) -> None:
        """Its request has come, or it is over."""
        self._asking.pop(request, None)

    def service_actions(self) -> None:
        # A socket's timeout is for one read: who sends a byte now and then would never reach it.
        now = time.monotonic()
        for request, until in [*self._asking.items()]:
            if until <= now:
                self._hang_up(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def shutdown_request(self, request: Any) -> None:
        self.heard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request over HTTP failed", exc_info=True)  # who asked has hung up, or was too slow


class _Answer(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "lockbeat", ""
    timeout = SLOW

    def do_GET(self) -> None:
        self.server.heard(self.connection)
        path = self.path.partition("?")[0]
        page = self.server.pages.get(path)
        if page is None:
            answer = Page(f"there is {', '.join(self.server.pages)}\n".encode(), "text/plain; charset=utf-8", 404)
        else:
            try:
                answer = page()
            except Exception:
                log.exception("%s can't be answered", path)
                answer = Page(b"it can't be answered; the log says why\n", "text/plain; charset=utf-8", 500)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815 - as the base class calls it

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Nobody wants a line for each probe."""


def _where(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_open: weakref.WeakSet[_Server] = weakref.WeakSet()


def _close_in_child() -> None:
    """If a forked child kept the port open, probes would wait for an answer that nobody gives once its parent has ended."""
    for server in list(_open):
        with contextlib.suppress(OSError):
            server.socket.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
