"""What is sent to services: by httpx, with a bound on the whole of a request, and errors that show no keys.

httpx can be cancelled at any await, so that a service that answers a byte a minute holds nobody up; a request of urllib in
a thread can't be. It goes by $HTTPS_PROXY, and keeps connections.
"""

from __future__ import annotations

import logging
import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio

from lockbeat.errors import MissingExtra

if TYPE_CHECKING:
    import httpx

TIMEOUT = 10.0
"""Seconds that a request may take."""
LONGEST = 60.0
"""Seconds; what a service may ask to wait for."""
PASSING = (408, 425, 429)
"""Refusals that are worth another try, as those above 499 are."""


class NotTold(Exception):
    """A service was not told."""

    def __init__(self, reason: str, *, again: bool, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        """Whether another try may help."""
        self.wait = wait
        """Seconds that the service asks to wait for."""


_ours: ContextVar[bool] = ContextVar("ours", default=False)


class _Unlogged(logging.Filter):
    """httpx logs each request with its URL, at INFO: in ours there are keys."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _ours.get()


_unlogged = _Unlogged()


def load() -> Any:
    """httpx. Raises MissingExtra."""
    try:
        import httpx
    except ImportError:
        raise MissingExtra("monitors need httpx: pip install 'lockbeat[monitors]'") from None
    logging.getLogger("httpx").addFilter(_unlogged)  # once, however often it is added
    return httpx


class Http:
    """Sends requests; `async with Http() as http:`."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        """Hang up."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.move_on_after(TIMEOUT, shield=True):
            await self.aclose()

    async def send(self, method: str, url: str, **options: Any) -> None:
        """Send a request. Raises NotTold unless the answer says that it was taken."""
        httpx = load()
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, headers={"User-Agent": "lockbeat"})
        token = _ours.set(True)
        try:
            with anyio.fail_after(TIMEOUT):
                answer = await self._client.request(method, url, **options)
        except TimeoutError:
            raise NotTold(f"no answer within {TIMEOUT:g} s", again=True) from None
        except httpx.HTTPError as problem:  # its text may have the URL, and that the key
            raise NotTold(type(problem).__name__, again=True) from None
        except httpx.InvalidURL:
            raise NotTold("its URL can't be used", again=False) from None
        finally:
            _ours.reset(token)
        if not answer.is_success:
            again = answer.status_code >= 500 or answer.status_code in PASSING
            raise NotTold(f"HTTP {answer.status_code}", again=again, wait=_wait(answer.headers.get("Retry-After", "")))


def _wait(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), LONGEST) if math.isfinite(seconds) else 0.0
