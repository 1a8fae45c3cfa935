"""What it means to hold something for a limited time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from lockbeat.store.rows import Row


class Lease(NamedTuple):
    """Ownership of a key for a limited time."""

    key: str
    owner: str
    fence: int
    """Grows with each new ownership of the key; hand it to whatever the holder writes to."""
    expires_at: float
    """When it ends unless renewed: seconds since the Unix epoch, by the server's clock."""


def margin(ttl: float) -> float:
    """How many seconds before its end a lease of `ttl` seconds is no longer trusted.

    Clocks of two machines drift apart by far less than 5 % in one ttl; the rest is time to stop the body.
    """
    return min(ttl * 0.05, 1.0)


class Holder:
    """Whose lease it is, and what that is told by the keeper."""

    __slots__ = ()

    def on_lost(self, reason: str) -> None:
        """Once, in the event loop that holds the lease."""

    def on_overrun(self, blocks: str) -> None:
        """Its time, `Held.until`, is over. Called in the keeper's thread, with what blocks the event loop, if anything does."""


NOBODY = Holder()


@dataclass(slots=True, eq=False)
class Held:
    """A lease of this process, as the keeper looks after it.

    `trusted_until` is in monotonic seconds: time before the request that took or renewed the lease, plus ttl, less the margin.
    """

    row: Row
    """Of the batched script that renews it; its reply is the new expiry in ms, or 0; -1: renewed, and its holder is to stop."""
    shard: int
    ttl: float
    trusted_until: float
    holder: Holder = field(repr=False)
    renew_at: float = 0.0
    asked_at: float = 0.0
    """Monotonic time before the request that took or last renewed it."""
    until: float = float("inf")
    """Not renewed after this, in monotonic seconds: its holder should have ended long before."""

    def taken(self, asked_at: float, ttl: float | None = None) -> None:
        """The server granted the lease, or renewed it, in answer to a request sent at `asked_at` (monotonic)."""
        ttl = self.ttl if ttl is None else ttl
        self.asked_at = asked_at
        self.trusted_until = asked_at + ttl - margin(ttl)
        self.renew_at = asked_at + ttl / 3


monotonic = time.monotonic
