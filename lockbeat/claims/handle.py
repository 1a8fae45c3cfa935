"""The handle: a claim for as long as a block of code runs."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lockbeat.claims.values import REFUSALS, Busy, Claim, Done, check_place, error_json
from lockbeat.errors import ClaimBusy, ClaimDone, ClaimRefused, InvalidArgument, LockbeatError, StoreError
from lockbeat.leases.holding import Holding
from lockbeat.leases.keeper import GONE
from lockbeat.leases.lease import monotonic
from lockbeat.store.durable import Durability, check_durability
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name
from lockbeat.values.payloads import dump

if TYPE_CHECKING:
    from lockbeat.claims.verbs import Claims

log = logging.getLogger("lockbeat")


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

    def _on_lost(self, reason: str) -> None:
        if reason == GONE and self._verbs:
            # A renewal overtook the answer of a verb, perhaps; but never wait for it longer than the lease is trusted.
            self._gone = reason
            asyncio.get_running_loop().call_later(max(self.trusted_until - monotonic(), 0), self._tell, reason)
        else:
            self._tell(reason)

    def _tell(self, reason: str) -> None:
        if self.lost is None:  # once: each cancelling is one that the exit has to take back
            super()._on_lost(reason)


class ClaimHandle:
    """`async with lb.claims.hold("order:17") as claim:` claims the work while the block runs.

    Entering raises ClaimBusy while somebody is at it, ClaimDone while it is done and held. The keeper renews the claim. A block
    that gets to its end completes it, with `claim.result` if it sets that. One that raises fails it, with the error's text; the
    next acquire gets the next attempt. One that is cancelled from outside, or by a KeyboardInterrupt, gives it back, and the
    attempt does not count. When the claim is lost, the block is cancelled and LeaseLost raised; an error that the block itself
    raised comes first, with the loss as a note.

    The block may also finish it by a verb of the handle; while that has not been answered, the claim is still held. The verbs
    raise ClaimRefused where those of `Claims` answer False, and `refusal` says why. One handle is for one block at a time.
    `durability`: the block is entered when the claim is as durable as asked for, or NotDurable raised.
    """

    def __init__(
        self,
        claims: Claims | None,
        key: str,
        queue: str,
        owner: str,
        lease: Seconds = 30,
        hold: Seconds = 0,
        claim: Claim | None = None,
        durability: Durability | None = None,
    ) -> None:
        """`claims`: None, nothing is claimed and everything allowed. `claim`: one that is there already, to be held on to."""
        check_place(key, queue)
        self._claims = claims
        self.key = key
        self.queue = queue
        self.owner = check_name("owner", owner)
        self._lease_ms = milliseconds("lease", lease)
        self._durability = check_durability(durability, self._lease_ms)
        self._hold_ms = milliseconds("hold", hold, least=0)
        self._claim = self._given = claim
        self._holding: ClaimHolding | None = None
        self._entered = self._finished = False
        self.result: Any = None
        """What a block that gets to its end completes the claim with: any JSON value of at most 1 MiB."""
        self.refusal: str | None = None
        """Why a verb was last refused: "unknown", "expired", "finished", "wrong owner" or "stale token"."""

    @property
    def claim(self) -> Claim:
        """The claim, as it was acquired. Raises LockbeatError before there is one."""
        if self._claim is None:
            raise LockbeatError(f"{self.key!r} is not claimed yet: use `async with`")
        return self._claim

    @property
    def fence(self) -> int:
        """Grows with each new claim of the key; hand it to whatever the work writes to."""
        return self.claim.fence

    @property
    def attempt(self) -> int:
        """1 for new work; one more after a failure, and after an attempt that ran out."""
        return self.claim.attempt

    @property
    def expires_at(self) -> float:
        """When it would have ended without renewal: seconds since the epoch, by the server's clock."""
        return self.claim.expires_at

    @property
    def outcome(self) -> str:
        """ "acquired", or "took_over" from `previous_owner`."""
        return self.claim.outcome

    @property
    def previous_owner(self) -> str | None:
        """Who had it, and let it run out."""
        return self.claim.previous_owner

    @property
    def last_error(self) -> Any:
        """How the last attempt failed that did, if one has."""
        return self.claim.last_error

    @property
    def lost(self) -> bool:
        """Whether the claim was lost while the block ran."""
        return self._holding is not None and self._holding.lost is not None

    async def renew(self, lease: Seconds | None = None) -> None:
        """Set the time left to `lease`; None: to what the handle was made with, as the keeper does. Raises ClaimRefused."""
        lease_ms, claim = self._lease_ms if lease is None else milliseconds("lease", lease), self.claim
        if self._entered and lease_ms != self._lease_ms:
            # The keeper's own renewals may be on their way, and would set it back.
            raise InvalidArgument("lease", "while the block runs it is what `hold` was given")
        self._check(1 if self._claims is None else await self._claims._renew(claim, lease_ms))

    async def complete(self, result: Any = None, hold: Seconds | None = None) -> None:
        """The work is done; `hold`: None as the handle says. Raises ClaimRefused."""
        text = dump("result", result)
        hold_ms, claim = self._hold_ms if hold is None else milliseconds("hold", hold, least=0), self.claim
        await self._finish(lambda claims: claims._complete(claim, text, hold_ms))

    async def fail(self, error: Any) -> None:
        """The work failed: the next acquire gets it at once, as its next attempt. Raises ClaimRefused."""
        text, claim = error_json(error), self.claim
        await self._finish(lambda claims: claims._fail(claim, text))

    async def release(self) -> None:
        """Give it back as if it had not been acquired: its attempt does not count. Raises ClaimRefused."""
        claim = self.claim
        await self._finish(lambda claims: claims._release(claim))

    async def _finish(self, verb: Callable[[Claims], Awaitable[int]]) -> None:
        holding = self._holding
        if self._claims is None:
            said = 1
        elif holding is None:
            said = await verb(self._claims)
        else:
            # Held on to until the store has said that it is over: if it can't be asked, the block goes on, and so does its claim.
            with holding.finishing():
                said = await verb(self._claims)
            holding.finished()
        self._check(said)
        self._finished = True

    def _check(self, said: int) -> None:
        self.refusal = None if said > 0 else REFUSALS[said]
        if self.refusal is not None:
            claim = self.claim
            raise ClaimRefused(claim.key, claim.queue, claim.owner, claim.fence, self.refusal)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise LockbeatError(f"this handle on {self.key!r} is in use; make one for each block: lb.claims.hold(...)")
        self._entered, self._finished, self.result, self.refusal = True, False, None, None
        try:
            await self._enter()
        except BaseException:
            self._entered = False
            raise
        return self

    async def _enter(self) -> None:
        if self._claims is None:
            self._claim = self._given or passthrough(self.key, self.owner, self.queue)
            return
        asked_at = monotonic()
        if self._given is None:
            self._claim = await self._acquire(self._claims)
            if monotonic() > asked_at + self._lease_ms / 2000:
                asked_at = await self._refreshed(self._claims, self._claim, asked_at)
        else:
            self._check(await self._claims._renew(self._given, self._lease_ms))
        args = (self.queue, self.key, self.owner, self.claim.fence, "-", self._lease_ms)
        lease, shard = self._lease_ms / 1000, self._claims._shard_of(self.key, self.queue)
        self._holding = ClaimHolding(self._claims._keeper, "claim/renew", shard, args, ttl=lease, asked_at=asked_at)

    async def _refreshed(self, claims: Claims, claim: Claim, asked_at: float) -> float:
        """The store was away: by our clock little is left of the claim, though it may have been granted just now. Renew it.

        Returns when that was asked for; if it was refused, as given: the claim did run out on the way, and will be found lost.
        """
        again_at = monotonic()
        try:
            return again_at if await claims._renew(claim, self._lease_ms) > 0 else asked_at
        except BaseException:
            args = (claim.queue, claim.key, claim.owner, claim.fence, "-", claims._store.new_call())
            shard = claims._shard_of(claim.key, claim.queue)
            claims._store.undo("claim/release", shard, args, lasts=self._lease_ms / 1000)
            raise

    async def _acquire(self, claims: Claims) -> Claim:
        answer = await claims._acquire(self.key, self.owner, self._lease_ms, self.queue, self._durability)
        if isinstance(answer, Busy):
            raise ClaimBusy(self.key, self.queue, answer.owner, answer.expires_at)
        if isinstance(answer, Done):
            raise ClaimDone(self.key, self.queue, answer.owner, answer.result, answer.completed_at, answer.until)
        return answer

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._entered = False
        holding, claims, claim = self._holding, self._claims, self.claim
        if claims is None or holding is None:
            return
        if self._finished:
            if error is not None:
                holding.report(claim.key, claim.owner, claim.fence, error)
            return
        holding.leave(keep=True)
        try:
            await self._end(claims, claim, holding, error)
        finally:
            holding.drop()
        holding.report(claim.key, claim.owner, claim.fence, error)

    async def _end(self, claims: Claims, claim: Claim, holding: ClaimHolding, error: BaseException | None) -> None:
        if error is not None:
            await self._give_up(claims, claim, holding, error)
            return
        try:
            result = dump("result", self.result)
        except InvalidArgument as problem:
            await self._give_up(claims, claim, holding, problem)
            raise
        # Nothing is awaited before this call is on its way: a caller that is cancelled here has still completed.
        await self._completed(claims, claim, holding, result)

    async def _completed(self, claims: Claims, claim: Claim, holding: ClaimHolding, result: str) -> None:
        if holding.lost is not None and not holding.unnoticed:
            return  # it was told to stop: who knows whether it got to its end
        try:
            said = await claims._complete(claim, result, self._hold_ms, keep=self._lease_ms / 1000)
        except StoreError:
            if holding.lost is None:
                raise  # the work is done, and nobody may know: it may be done again unless the caller sees to it
            return
        # Taken, though it had run out: the work is done, and nobody has begun it anew.
        holding.lost = None if said > 0 else self._lost_as(said)

    async def _give_up(self, claims: Claims, claim: Claim, holding: ClaimHolding, error: BaseException) -> None:
        failed = isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError)
        if holding.lost is not None:
            # Whoever lost it is told now, not when a store that is away answers.
            if failed:
                store, shard = claims._store, claims._shard_of(claim.key, claim.queue)
                args = (claim.queue, claim.key, claim.owner, claim.fence, store.new_call(), error_json(error))
                store.undo("claim/fail", shard, args, lasts=self._lease_ms / 1000)
            return
        asked_at = monotonic()
        try:
            keep = self._lease_ms / 1000
            said = await (claims._fail(claim, error_json(error), keep=keep) if failed else claims._release(claim, keep=keep))
        except StoreError as problem:
            log.warning("could not end the claim on %r yet, it ends within %g s: %s", self.key, self._lease_ms / 1000, problem)
            return
        if said <= 0 and not holding.too_late(asked_at):
            holding.lost = self._lost_as(said)

    def _lost_as(self, said: int) -> str:
        self.refusal = REFUSALS[said]
        return f"it had ended before the block did ({self.refusal})"


def passthrough(key: str, owner: str, queue: str) -> Claim:
    """The claim of a Gate with nothing behind it. Its fence grows like those of a store, but guards nothing."""
    return Claim(key, queue, owner, time.time_ns() // 1000, 1, math.inf, "passthrough")
