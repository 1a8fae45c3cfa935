"""The metrics of one program: to mount, to register, or to be asked for as text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent import futures
from typing import TYPE_CHECKING, Any

from lockbeat import sync
from lockbeat.client import Lockbeat
from lockbeat.counting import NAMED, Counting
from lockbeat.errors import InvalidType, LockbeatError, StoreError
from lockbeat.metrics.families import TEXT, text
from lockbeat.metrics.process import of_process
from lockbeat.metrics.store import of_store
from lockbeat.monitor import Measures, measure
from lockbeat.program import Beat

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

FRESH = 2.0
"""Seconds for which what the store said is told again, whoever asks."""
PATIENCE = 5.0
"""Seconds that whoever asks for the store's is kept waiting."""


class Metrics:
    """Metrics of a beat, or of a client alone. Make it before the beat serves or the client is opened: it counts from then on.

    dynamic: jobs that were made at run time are counted by name, too, as long as there are 200 at most; else they are all
        `job="(dynamic)"`.

    Raises: MissingExtra without prometheus-client. LockbeatError for a client that is open already.
    """

    def __init__(self, of: Beat | sync.Beat | Lockbeat, *, dynamic: bool = False) -> None:
        beat = of.within if isinstance(of, sync.Beat) else of
        if not isinstance(beat, (Beat, Lockbeat)):
            raise InvalidType("of", f"must be a Beat or a Lockbeat, not {type(of).__name__}")
        if beat.counting is None and (beat.is_open if isinstance(beat, Lockbeat) else beat.client is not None):
            raise LockbeatError("it is open already: make its Metrics first, or what was done so far is not counted")
        self._of = beat
        self._counting = beat.counting = beat.counting or Counting(dynamic=dynamic)
        self._dynamic = dynamic
        self._measured: tuple[float, Measures] | None = None
        self._turn: tuple[Lockbeat, asyncio.Lock] | None = None
        """Of those who ask at once, one asks the store. Made for each client: a lock belongs to its event loop."""
        if isinstance(beat, Beat):
            beat.health.lagged = self._counting.lag.add
        self.process = Collector(self._of_process, self._of_process)
        """A collector of what this process has counted, for a registry of prometheus_client's."""
        self.store = Collector(self._of_store, lambda: of_store(None, self._named()))
        """A collector of what the store says, for another registry. Not to be collected in the event loop of the beat."""

    @property
    def _client(self) -> Lockbeat | None:
        if isinstance(self._of, Lockbeat):
            return self._of if self._of.is_open else None
        return self._of.client

    def _named(self) -> list[str]:
        """Jobs that are told of by name: the first that the code declares."""
        return [*self._of.declared][:NAMED] if isinstance(self._of, Beat) else []

    def _of_process(self) -> Iterable[Metric]:
        if isinstance(self._of, Beat):  # whatever it has declared by now
            jobs = {name: job.function for name, job in [*self._of.declared.items()]}
            self._counting.know(jobs, self._of.task_names)
        return of_process(self._counting, self._of.health if isinstance(self._of, Beat) else None)

    def _of_store(self) -> Iterable[Metric]:
        client = self._client
        if client is None:
            return of_store(None, self._named())
        asking = self._measure(client)
        try:
            asked = asyncio.run_coroutine_threadsafe(asking, client.store.loop)
        except RuntimeError:  # its loop has ended
            asking.close()
            return of_store(None, self._named())
        try:
            return of_store(asked.result(PATIENCE), self._named())
        except (TimeoutError, futures.CancelledError):  # its loop stands still, or ends
            asked.cancel()
            return of_store(None, self._named())

    async def _measure(self, client: Lockbeat) -> Measures | None:
        if self._turn is None or self._turn[0] is not client:
            self._turn = client, asyncio.Lock()
        try:
            async with asyncio.timeout(PATIENCE), self._turn[1]:
                if self._measured is None or time.monotonic() >= self._measured[0] + FRESH:
                    found = await measure(client.store, self._named())
                    self._measured = time.monotonic(), found
                return self._measured[1]
        except (StoreError, TimeoutError):
            return None

    def text(self) -> bytes:
        """What this process has counted, as Prometheus reads it."""
        return text(self._of_process())

    async def store_text(self) -> bytes:
        """What the store says, as Prometheus reads it; for the event loop of the beat or client."""
        client = self._client
        return text(of_store(None if client is None else await self._measure(client), self._named()))

    def store_text_from_thread(self) -> bytes:
        """As `store_text`, from any thread but the event loop's."""
        return text(self._of_store())

    async def app(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """An ASGI application, for the event loop of the beat: `app.mount("/metrics", metrics.app)`.

        The path under which it is mounted is answered with what the process has counted, `/store` below with what the store says.
        """
        if scope["type"] != "http":
            return
        path = str(scope.get("path", "")).removeprefix(str(scope.get("root_path", ""))).rstrip("/")
        body, status, kind = b"there is /store, and what is above it\n", 404, "text/plain; charset=utf-8"
        if path in ("", "/metrics"):
            body, status, kind = self.text(), 200, TEXT
        elif path in ("/store", "/metrics/store"):
            body, status, kind = await self.store_text(), 200, TEXT
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope.get("method") != "HEAD" else b""})


class Collector:
    """What prometheus_client takes for a collector."""

    def __init__(self, families: Callable[[], Iterable[Metric]], described: Callable[[], Iterable[Metric]]) -> None:
        self._families, self._described = families, described

    def collect(self) -> Iterable[Metric]:
        return self._families()

    def describe(self) -> Iterable[Metric]:
        """For their names, without waiting for the store: a registry refuses a second of the same, whose series it had twice."""
        return self._described()
