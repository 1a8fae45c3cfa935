"""Server-sent events: what of a page changes, made again every few seconds for those who look at it.

Who looks at the same page as the same user shares what was read. A reader who does not take what is sent is hung up on.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from lockbeat.errors import LockbeatError, StoreUnavailable
from lockbeat.leases.lease import monotonic
from lockbeat.process import chance
from lockbeat.values.visible import visible
from lockbeat.web.asked import Asked, Refused
from lockbeat.web.render import addressed

log = logging.getLogger("lockbeat")

MOST = 64
"""Streams at a time, of all users."""
MOST_OF_ONE = 24
EVERY = {"/": 3.0, "/day": 30.0, "/store": 30.0}
SOON = ("/job", "/task")
"""Pages that are looked at sooner at first, after one second, two and so on: somebody may have pressed a button just now."""
SECONDS = 5.0
"""Between two looks, of pages that say nothing else."""
LASTS = 600.0
"""Then the browser connects again, and is asked again who it is."""
SEND_WITHIN = 20.0
"""Seconds for which a reader may leave what was sent to it in the pipe."""

FAILED = b"failed"
"""In the place of what was sent last."""

Make = Callable[[], Awaitable[str]]


@dataclass
class _Shared:
    """What those who look at one page share."""

    make: Make
    readers: int = 0
    text: str = ""
    at: float = -1e9
    making: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def now(self, fresh: float) -> str:
        async with self.making:
            if monotonic() - self.at > fresh:
                self.text = await self.make()
                self.at = monotonic()
            return self.text


class Streams:
    """All that look on."""

    def __init__(self) -> None:
        self._shared: dict[tuple[str, ...], _Shared] = {}
        self._of = Counter[str]()
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Hang up: the server goes down."""
        self._ended.set()

    def answer(self, asked: Asked, make: Make, token: str, headers: Mapping[str, str]) -> _Stream:
        """Raises Refused where too many look on."""
        if self._of.total() >= MOST or self._of[asked.user] >= MOST_OF_ONE:
            raise Refused(503, "too many look on: load the page again to see it", {"retry-after": "30"})
        return _Stream(self, asked, make, token, headers)

    async def run(self, asked: Asked, make: Make, put: Callable[[str], Awaitable[None]], token: str) -> None:
        """Send a page to one reader until it has lasted long enough."""
        key = (asked.base, asked.path, asked.raw_query, asked.user)
        shared = self._shared.setdefault(key, _Shared(make))
        shared.readers += 1
        most, turns, sent, until = EVERY.get(asked.path, SECONDS), 0, b"", monotonic() + LASTS * chance.between(0.9, 1.1)
        try:
            # Not the same for all, nor does it last as long: they lose a server that is restarted at the same moment.
            await put(f"retry: {chance.between(4000, 8000):.0f}\n\n")
            while monotonic() < until and not self._ended.is_set():
                turns += 1
                every = min(most, float(turns)) if asked.path in SOON else most
                try:
                    text = await shared.now(every / 2)
                    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
                    event = ": the same\n\n" if digest == sent else _event("page", addressed(text, token))
                    sent = digest
                except (TimeoutError, StoreUnavailable):  # whose outage the log has
                    event, sent = _event("away", "the store does not answer"), b""
                except LockbeatError as problem:  # such as a job that somebody has deleted
                    event, sent = _event("away", visible(str(problem))), b""
                except Exception:
                    if sent != FAILED:  # once, and not at each look
                        log.exception("a live page can't be made")
                    event, sent = _event("away", "this page has failed: the log says why"), FAILED
                await put(event)
                with anyio.move_on_after(every):
                    await self._ended.wait()
        finally:
            shared.readers -= 1
            if not shared.readers:
                self._shared.pop(key, None)

    @contextmanager
    def counted(self, user: str) -> Iterator[None]:
        """One more looks on."""
        self._of[user] += 1
        try:
            yield
        finally:
            self._of[user] -= 1
            if not self._of[user]:
                del self._of[user]


def _event(name: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n"


@dataclass(frozen=True)
class _Stream:
    """One answer that goes on."""

    streams: Streams
    asked: Asked
    make: Make
    token: str
    headers: Mapping[str, str]

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        with self.streams.counted(self.asked.user):  # nothing was awaited since it was let in
            await self._send(receive, send)

    async def _send(self, receive: Any, send: Any) -> None:
        said = {**self.headers, "content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
        headers = [(name.encode(), value.encode()) for name, value in said.items()]

        async def put(text: str) -> None:
            with anyio.fail_after(SEND_WITHIN):
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        async def gone(scope: anyio.CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            scope.cancel()

        with anyio.fail_after(SEND_WITHIN):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self.asked.method == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        taken = True
        async with anyio.create_task_group() as group:
            group.start_soon(gone, group.cancel_scope)
            try:
                await self.streams.run(self.asked, self.make, put, self.token)
            except TimeoutError:
                taken = False
                log.info("a reader of %s does not take what is sent: hung up", self.asked.path)
            group.cancel_scope.cancel()
        if taken:
            await send({"type": "http.response.body", "body": b""})
