"""Blocks that run in a thread while they hold a lease. A thread can't be cancelled: it is told."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from copy import copy
from functools import partial
from operator import attrgetter
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from lockbeat import claims, locks
from lockbeat.claims import Claim
from lockbeat.errors import LeaseLost
from lockbeat.leases.keeper import OVERDUE
from lockbeat.leases.lease import Lease, monotonic
from lockbeat.process import forks
from lockbeat.sync.portal import Portal
from lockbeat.sync.turning import CLOSED, Call, Cut
from lockbeat.sync.verbs import Verbs, blocking
from lockbeat.values.staying import BLOCK, Stays

log = logging.getLogger("lockbeat")
H = TypeVar("H", bound=locks.Lock | claims.ClaimHandle)

OnLoss = Callable[[LeaseLost], object]
ENDED = "its block has ended"
PARENTS = "it is the parent process's, of which this one was forked while the block ran"


class Loss(threading.Event):
    """Set when a lease is lost, and true then: `if lease.lost:`, `lease.lost.wait(5)`."""

    def __init__(self, on_loss: OnLoss | None = None) -> None:
        super().__init__()
        self.error: LeaseLost | None = None
        """Says what was lost, and why."""
        self._on_loss = on_loss
        self._of = "", "", 0

    def __bool__(self) -> bool:
        return self.is_set()

    def of(self, key: str, owner: str, fence: int) -> None:
        """What is not to be lost."""
        self._of = key, owner, fence

    def tell(self, reason: str) -> None:
        """In the event loop. The callback gets a thread of its own, so it may block, and call the client."""
        self.error = LeaseLost(*self._of, reason)
        self.set()
        if self._on_loss is not None:
            threading.Thread(target=self._call, args=(self._on_loss, self.error), name="lockbeat loss", daemon=True).start()

    def _call(self, on_loss: OnLoss, error: LeaseLost) -> None:
        try:
            on_loss(error)
        except Exception:
            log.exception("on_loss of %r failed", error.key)


class HeldLease(Lease):
    """A lease, as the block has it that holds it."""

    lost: Loss
    """Set once it is lost."""
    _block: Lock

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, in another process as well, knows the lease and nothing of its block."""
        return Lease, tuple(self)

    def check(self) -> None:
        """Raise LeaseLost once the lease is lost, or can't be trusted any more. Costs nothing; call it between two steps."""
        if self._block.lease != self:
            raise LeaseLost(self.key, self.owner, self.fence, ENDED)
        self._block.check()


class Block(Stays, Verbs[H], Generic[H]):
    """What the blocks of locks and claims share. Any thread may enter and leave one."""

    _stays = BLOCK
    _inside = False

    def __init__(self, portal: Portal, handle: H, on_loss: OnLoss | None) -> None:
        super().__init__(lambda: (portal, handle))
        self._portal, self._handle, self._on_loss = portal, handle, on_loss
        self._generation = forks.generation
        self._loss = Loss()

    @property
    def lost(self) -> Loss:
        """Set once the lease is lost."""
        return self._loss

    @property
    def key(self) -> str:
        return self._handle.key

    @property
    def owner(self) -> str:
        return self._handle.owner

    @property
    def _fence(self) -> int:
        raise NotImplementedError

    def check(self) -> None:
        """Raise LeaseLost once the lease is lost, or can't be trusted any more. Costs nothing; call it between two steps."""
        if self._generation != forks.generation:
            raise self._error(PARENTS)
        if self._loss.error is not None:
            raise copy(self._loss.error)
        if monotonic() >= self._handle.trusted_until:
            raise self._error(OVERDUE)

    def _error(self, reason: str) -> LeaseLost:
        return LeaseLost(self.key, self.owner, self._fence, reason)

    async def _enter(self) -> None:
        # Not told by a method of ours: the keeper would know this block, and it would never be collected.
        self._loss = loss = Loss(self._on_loss)
        self._handle.told = loss.tell
        await self._handle.__aenter__()
        self._inside = True
        loss.of(self.key, self.owner, self._fence)

    async def _undo(self) -> None:
        """It was entered, for a caller who had been interrupted."""
        await self._leave(KeyboardInterrupt, KeyboardInterrupt(), None)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._generation != forks.generation:
            if error is None:
                raise self._error(PARENTS)
            return
        try:
            self._portal.call(partial(self._leave, kind, error, trace))
        except Cut:
            # The client was closed around the block, which was told of it.
            if error is None:
                raise self._loss.error or self._error(CLOSED) from None
        except BaseException:
            self._leave_now()  # interrupted before it was asked for
            raise

    async def _leave(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inside = False
        if isinstance(error, LeaseLost) and (error.key, error.fence) == (self.key, self._fence):
            # Of `check`: the block has stopped for it, as one that is cancelled does.
            self._handle.lose(error.reason)
            error = asyncio.CancelledError()
        await self._handle.__aexit__(kind, error, trace)

    def _leave_now(self) -> None:
        if self._inside and self._generation == forks.generation:
            self._portal.post(Call(self._undo))

    def __del__(self) -> None:
        # Ctrl-C can hit between the block and the first step of its `__exit__`: then nobody else leaves it.
        self._leave_now()


class Lock(Block[locks.Lock]):
    """`with lb.lock("report", ttl=30) as lease:` holds the lock while the block runs.

    As `lockbeat.Lock`, but for a loss: the block runs on, and is told by `lease.lost`, by `lease.check()` and by `on_loss`,
    which is called with the LeaseLost in a thread of its own. LeaseLost is raised at its end in any case.
    """

    @property
    def lease(self) -> HeldLease | None:
        """What is held; None outside of the block."""
        lease = self._handle.lease
        if lease is None:
            return None
        held = HeldLease(*lease)
        held.lost, held._block = self.lost, self
        return held

    @property
    def _fence(self) -> int:
        lease = self._handle.lease
        return 0 if lease is None else lease.fence

    def __enter__(self) -> HeldLease:
        return self._portal.call(self._enter_it, self._undo)

    async def _enter_it(self) -> HeldLease:
        await self._enter()
        lease = self.lease
        assert lease is not None
        return lease


def _of_the_claim(name: str, doc: str) -> Any:
    return property(attrgetter(f"_handle.{name}"), doc=doc)


class ClaimHandle(Block[claims.ClaimHandle]):
    """`with lb.claims.hold("order:17") as claim:` claims the work while the block runs.

    As `lockbeat.ClaimHandle`, but for a loss: the block runs on, and is told by `claim.lost`, by `claim.check()` and by
    `on_loss`, which is called with the LeaseLost in a thread of its own. LeaseLost is raised at its end in any case.
    """

    queue: str = _of_the_claim("queue", "The claim's queue.")
    claim: Claim = _of_the_claim("claim", "The claim, as it was acquired. Raises LockbeatError before there is one.")
    fence: int = _of_the_claim("fence", "Grows with each new claim of the key; hand it to whatever the work writes to.")
    attempt: int = _of_the_claim("attempt", "1 for new work; one more after a failure, and after an attempt that ran out.")
    expires_at: float = _of_the_claim("expires_at", "When it would have ended unrenewed: epoch seconds, by the server's clock.")
    outcome: str = _of_the_claim("outcome", '"acquired", or "took_over" from `previous_owner`.')
    previous_owner: str | None = _of_the_claim("previous_owner", "Who had it, and let it run out.")
    last_error: Any = _of_the_claim("last_error", "How the last attempt failed that did, if one has.")
    refusal: str | None = _of_the_claim("refusal", "Why a verb was last refused.")

    renew = blocking(claims.ClaimHandle.renew)
    complete = blocking(claims.ClaimHandle.complete)
    fail = blocking(claims.ClaimHandle.fail)
    release = blocking(claims.ClaimHandle.release)

    @property
    def result(self) -> Any:
        """What a block that gets to its end completes the claim with: any JSON value of at most 1 MiB."""
        return self._handle.result

    @result.setter
    def result(self, value: Any) -> None:
        self._handle.result = value

    @property
    def _fence(self) -> int:
        return self.fence

    def check(self) -> None:
        """Raise LeaseLost once the claim is lost, can't be trusted any more, or its block is over. Costs nothing.

        Raises: LockbeatError before its block has begun: it is nobody's yet.
        """
        if not self._inside:
            raise self._error(ENDED)
        super().check()

    def __enter__(self) -> Self:
        self._portal.call(self._enter, self._undo)
        return self
