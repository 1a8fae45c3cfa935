"""Open the store that --url names, ask it, and close it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lockbeat.cli._errors import Usage
from lockbeat.client import Lockbeat
from lockbeat.connection import Address, parse_url
from lockbeat.errors import StoreUnavailable

T = TypeVar("T")

TIMEOUT = 3.0
"""Seconds: a person waits for the answer."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings meanwhile: that a store is embedded is for those who serve, and for doctor, to say."""
    log = logging.getLogger("lockbeat")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


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

            directory = Path(address.path).expanduser() if address.path else default_directory()
            if not (directory / "lock").exists():
                raise StoreUnavailable(f"no embedded store at {directory}; name another store by --url or $LOCKBEAT_URL")
        return address

    def ask(self, question: Callable[[Lockbeat], Awaitable[T]]) -> T:
        """Open the store, ask, close it. Raises what Lockbeat and the question raise."""
        address = self.address()

        async def asking() -> T:
            async with Lockbeat(self.url, namespace=self.namespace, timeout=TIMEOUT) as lb:
                return await question(lb)

        try:
            with quiet():
                return asyncio.run(asking())
        except StoreUnavailable as problem:
            raise unreachable(address, problem) from problem


def unreachable(address: Address, problem: StoreUnavailable) -> StoreUnavailable:
    """The same, with the store's name and, where there is one, the remedy."""
    moved = str(problem).startswith("MOVED ") and address.kind != "cluster"
    said = "it is a node of a Cluster; write redis+cluster://HOST:PORT" if moved else str(problem)
    return StoreUnavailable(f"can't reach {address.safe}: {said}")
