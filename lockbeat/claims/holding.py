"""Holding a claim while a block runs that may also finish it by a verb."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from lockbeat.leases.holding import Holding
from lockbeat.leases.keeper import GONE
from lockbeat.leases.lease import monotonic


class ClaimHolding(Holding):
    """A claim that the block itself may finish, by a verb: it is held on to until the store has answered that."""

    _verbs = 0  # on their way
    _gone: str | None = None

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """While a verb that finishes the claim is on its way. `finished` when it was answered, else it is held on to."""
        self._verbs += 1
        try:
            yield
        except BaseException:
            self._verbs -= 1
            if self._gone is not None and not self._verbs:
                # Taken away, or ended by a call whose answer was lost: either way the block has it no longer. From the loop:
                # a task that cancels itself can be cancelled once more than it is told of.
                asyncio.get_running_loop().call_soon(self._tell, self._gone)
            raise
        self._verbs -= 1

    def finished(self) -> None:
        """The store has answered. What the keeper found gone meanwhile was not lost: whoever called the verb is told of it."""
        if not self._over:
            told = self.lost is not None
            self.leave()
            if not told:
                self.lost, self.unnoticed = None, False

    def on_lost(self, reason: str) -> None:
        if reason == GONE and self._verbs:
            # A renewal overtook the answer of a verb, perhaps; but never wait for it longer than the lease is trusted.
            self._gone = reason
            asyncio.get_running_loop().call_later(max(self.trusted_until - monotonic(), 0), self._tell, reason)
        else:
            self._tell(reason)

    def _tell(self, reason: str) -> None:
        if self.lost is None:  # once: each cancelling is one that the exit has to take back
            super().on_lost(reason)
