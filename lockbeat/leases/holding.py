"""Holding a lease while a block of code runs: what the handles of locks and claims share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from lockbeat.errors import LeaseLost
from lockbeat.leases.keeper import OVERDUE, Keeper
from lockbeat.leases.lease import Held, Holder, monotonic
from lockbeat.store.rows import Row
from lockbeat.values.staying import BLOCK, Stays

log = logging.getLogger("lockbeat")


class Holding(Holder):
    """A lease from the entry of a block to its exit. Renewed by the keeper; when it is lost, the block is cancelled.

    Begins when made, in the task that runs the block. At the exit `leave`, then give the lease back unless it is `lost`,
    then `report`.
    """

    def __init__(
        self,
        keeper: Keeper,
        row: Row,
        shard: int,
        *,
        ttl: float,
        asked_at: float,
        told: Callable[[str], None] | None = None,
    ) -> None:
        """It was granted for `ttl` seconds to a request sent at `asked_at`; the row renews it for as long.

        told: see `Handle.told`.
        """
        self.lost: str | None = None
        """Why it was lost; None while it was not."""
        self.unnoticed = False
        """Lost, and the block got to its end without an await at which it could have been told."""
        self._keeper = keeper
        self._held = Held(row, shard, ttl, 0.0, self)
        self._held.taken(asked_at)
        self._told = told
        self._task: asyncio.Task[Any] | None = asyncio.current_task() if told is None else None
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        if self._task is not None:
            self._task.add_done_callback(self._abandoned)
        self._over = self._ours = False
        keeper.hold(self._held)

    @property
    def trusted_until(self) -> float:
        """Until when the lease is trusted, in monotonic seconds."""
        return self._held.trusted_until

    def leave(self, *, keep: bool = False) -> None:
        """The block is left: renew the lease no longer. Before anything is awaited; again changes nothing.

        `keep`: renew it until `drop`, for it must last until the store has been told how the block ended.
        """
        if self._over:
            return
        self._over = True
        if self._task is not None:
            self._task.remove_done_callback(self._abandoned)
        # Ours alone: nobody else asked the block to stop. As asyncio.timeout tells it.
        self._ours = self.lost is not None and self._task is not None and self._task.uncancel() <= self._cancelling
        known = self._keeper.holds(self._held) if keep else self._keeper.drop(self._held)
        if not known and self.lost is None:
            self.lost, self.unnoticed = OVERDUE, True  # found while the block kept the event loop from being told

    def drop(self) -> None:
        self._keeper.drop(self._held)

    def too_late(self, asked_at: float) -> bool:
        """Whether a call made at `asked_at`, at the block's end, was answered when the lease had run out on the way.

        If it was refused, then perhaps for that: the block had ended in time.
        """
        return asked_at < self.trusted_until <= monotonic()

    def report(self, key: str, owner: str, fence: int, error: BaseException | None) -> None:
        """Raise LeaseLost if it was lost; an error of the block's own goes first, with the loss as a note."""
        if self.lost is None:
            return
        loss = LeaseLost(key, owner, fence, self.lost)
        if error is None or (self._ours and isinstance(error, asyncio.CancelledError)):
            raise loss from None
        error.add_note(str(loss))

    def _abandoned(self, task: asyncio.Task[Any]) -> None:
        """It was entered by hand. Another task may yet leave it, as fixtures and start-up code do: not ours to take away."""
        if not self._over and self.lost is None:
            row = self._held.row
            log.warning(
                "%s %r: the task that entered it has ended and did not leave it. It is renewed until its handle is left, or this "
                "program ends; use `async with`",
                row.script.partition("/")[0],
                row.key,
            )

    def on_lost(self, reason: str) -> None:
        if self._over:
            return
        if self._told is not None:
            self.lost = reason
            self._told(reason)
        elif self._task is not None:
            self.lost = reason
            self._task.cancel()


class Handle(Stays):
    """What a block is entered and left by."""

    _stays = BLOCK
    told: Callable[[str], None] | None = None
    """Set for a block that runs in a thread, which nobody can cancel: told of a loss and why, in the event loop."""
    _holding: Holding | None = None

    @property
    def lost(self) -> bool:
        """Whether the lease was lost while the block ran."""
        return self._holding is not None and self._holding.lost is not None

    @property
    def trusted_until(self) -> float:
        """Until when the lease of the block is trusted, in monotonic seconds; without end once there is nothing to lose."""
        return float("inf") if self._holding is None or self._holding._over else self._holding.trusted_until

    def lose(self, reason: str) -> None:
        """The block itself has found that it can't trust the lease any more."""
        if self._holding is not None and not self.lost:
            self._holding.on_lost(reason)
