"""Open the store that --url names, ask it, and close it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lockbeat.cli._errors import Usage
from lockbeat.cli._output import complain
from lockbeat.client import Lockbeat
from lockbeat.connection import Address, parse_url
from lockbeat.errors import ScriptError, StoreError, StoreFormatError, StoreUnavailable

S = TypeVar("S")
T = TypeVar("T")

TIMEOUT = 3.0
"""Seconds: a person waits for the answer."""
ABREAST = 200
"""Of many calls, how many are on their way at a time."""


async def each(things: Sequence[S], ask: Callable[[S], Awaitable[T]]) -> list[T]:
    """What is answered of each, in order; many at a time."""
    found: list[T] = []
    for start in range(0, len(things), ABREAST):
        found += await asyncio.gather(*map(ask, things[start : start + ABREAST]))
    return found


class _LeftOut(logging.Handler):
    """Of all that is logged says only what a listing leaves out, since it can't be read."""

    def emit(self, record: logging.LogRecord) -> None:
        if "left out" in record.msg:
            complain(record.getMessage())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No log meanwhile: that a store is embedded is for those who serve, and for doctor, to say."""
    log, handler = logging.getLogger("lockbeat"), _LeftOut()
    before, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before


@dataclass(frozen=True, slots=True)
class Where:
    """Which store: --url and --namespace."""

    url: str | None
    namespace: str

    def address(self) -> Address:
        """Read the URL, and refuse what a short-lived process can't ask. Raises InvalidURL, Usage, StoreUnavailable."""
        address = parse_url(self.url)
        if address.kind == "memory":
            raise Usage("memory:// lives inside one process; name another store by --url or $LOCKBEAT_URL")
        if address.kind == "embedded":
            # To look at a store must not make one.
            from lockbeat.embedded import default_directory

            try:
                directory = Path(address.path).expanduser() if address.path else default_directory()
                is_there = (directory / "lock").exists()
            except (OSError, RuntimeError) as problem:  # not ours to look at; ~ of a user without a home
                reason = problem.strerror if isinstance(problem, OSError) else problem
                raise StoreUnavailable(f"{address.safe} can't be used: {reason}") from problem
            if not is_there:
                raise StoreUnavailable(
                    f"no embedded store at {directory}; start one with `lockbeat run MODULE:BEAT` or `lockbeat server`, "
                    "or name another store by --url or $LOCKBEAT_URL"
                )
        return address

    def ask(self, question: Callable[[Lockbeat], Awaitable[T]]) -> T:
        """Open the store, ask, close it. Raises what Lockbeat and the question raise."""

        async def asking() -> T:
            async with Lockbeat(self.url, namespace=self.namespace, timeout=TIMEOUT) as lb:
                return await question(lb)

        return self.run(asking)

    def run(self, asking: Callable[[], Coroutine[Any, Any, T]], *, log: bool = False) -> T:
        """Run what asks the store, which an error then names. log: what is logged meanwhile is said."""
        address = self.address()
        try:
            with contextlib.nullcontext() if log else quiet():
                return asyncio.run(asking())
        except StoreUnavailable as problem:
            raise unreachable(address, problem) from problem
        except ScriptError:
            raise
        except StoreError as problem:
            raise refused(address, problem) from problem


def refused(address: Address, problem: StoreError) -> StoreError:
    """The same, with the store's name, if it does not say it: the store answers, and will not have us."""
    if isinstance(problem, StoreFormatError):
        return StoreError(str(problem))
    remedy = " Write USER:PASSWORD@ in front of the host" if str(problem).startswith("Authentication required") else ""
    return StoreError(f"{address.safe} refuses: {problem}{remedy}")


def unreachable(address: Address, problem: StoreUnavailable) -> StoreUnavailable:
    """The same, with the store's name and, where there is one, the remedy."""
    if _REFUSED.search(str(problem)):
        return StoreUnavailable(f"{address.safe} refuses: {problem}")
    lost = [host for host, _ in address.nodes if not _resolves(host)] if _UNCLEAR.search(str(problem)) else []
    if lost:
        return StoreUnavailable(f"can't reach {address.safe}: the host name {lost[0]!r} can't be resolved")
    said = str(problem)
    if _NOBODY.match(said) and len(address.nodes) == 1:
        said = "nothing listens there (connection refused): is the server up, and the port right?"
    return StoreUnavailable(f"can't reach {address.safe}: {said}")


_REFUSED = re.compile("^(READONLY|NOREPLICAS|CLUSTERDOWN|LOADING|MASTERDOWN|BUSY) ")
_NOBODY = re.compile(rf"Error {errno.ECONNREFUSED} connecting to [^ ]+\. Connect call failed")
_UNCLEAR = re.compile(r"Error -\d+ connecting|no answer within|not known|name resolution|getaddrinfo")


def _resolves(host: str) -> bool:
    """Whether a name server knows the host, as far as it says within a while."""
    found: list[object] = []

    def look() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found.append(socket.getaddrinfo(host, None))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(TIMEOUT)
    return bool(found)
