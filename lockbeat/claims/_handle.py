"""The handle: a claim for as long as a block of code runs."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lockbeat.claims._values import REFUSALS, Busy, Claim, Done, check_place, error_json
from lockbeat.durability import Durability, check_durability
from lockbeat.durations import Seconds, milliseconds
from lockbeat.errors import ClaimBusy, ClaimDone, ClaimRefused, InvalidArgument, LockbeatError, StoreError
from lockbeat.holding import Holding
from lockbeat.keys import check_name
from lockbeat.lease import monotonic
from lockbeat.payload import dump

if TYPE_CHECKING:
    from lockbeat.claims._claims import Claims

log = logging.getLogger("lockbeat")


class ClaimHandle:
    """`async with lb.claims.hold("order:17") as claim:` claims the work while the block runs.

    Entering raises ClaimBusy while somebody is at it, ClaimDone while it is done and held. The keeper renews the claim. A block
    that gets to its end completes it, with `claim.result` if it sets that. One that raises fails it, with the error's text; the
    next acquire gets the next attempt. One that is cancelled from outside, or by a KeyboardInterrupt, gives it back, and the
    attempt does not count. When the claim is lost, the block is cancelled and LeaseLost raised; an error that the block itself
    raised comes first, with the loss as a note.

    The block may also finish it by a verb of the handle. The verbs raise ClaimRefused where those of `Claims` answer False, and
    `refusal` says why. One handle is for one block at a time. `durability`: the block is entered when the claim is as durable as
    asked for, or NotDurable raised.
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
        self._holding: Holding | None = None
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
    def last_error(self) -> str | None:
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
        self._leave()
        self._check(1 if self._claims is None else await self._claims._complete(claim, text, hold_ms))
        self._finished = True

    async def fail(self, error: str | BaseException) -> None:
        """The work failed: the next acquire gets it at once, as its next attempt. Raises ClaimRefused."""
        text, claim = error_json(error), self.claim
        self._leave()
        self._check(1 if self._claims is None else await self._claims._fail(claim, text))
        self._finished = True

    async def release(self) -> None:
        """Give it back as if it had not been acquired: its attempt does not count. Raises ClaimRefused."""
        claim = self.claim
        self._leave()
        self._check(1 if self._claims is None else await self._claims._release(claim))
        self._finished = True

    def _leave(self) -> None:
        # Before the claim ends in the store: or the keeper would find it gone, and take that for a loss.
        if self._holding is not None:
            self._holding.leave()

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
        else:
            self._check(await self._claims._renew(self._given, self._lease_ms))
        args = (self.queue, self.key, self.owner, self.claim.fence, "-", self._lease_ms)
        lease, shard = self._lease_ms / 1000, self._claims._shard_of(self.key, self.queue)
        self._holding = Holding(self._claims._keeper, "claim/renew", shard, args, ttl=lease, granted=lease, asked_at=asked_at)

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
        if claims is None or holding is None or self._finished:
            return
        holding.leave()
        if error is None:
            try:
                result = dump("result", self.result)
            except InvalidArgument as problem:
                await self._give_up(claims, claim, holding, problem)
                raise
            # Nothing is awaited before this call is on its way: a caller that is cancelled here has still completed.
            await self._completed(claims, claim, holding, result)
        else:
            await self._give_up(claims, claim, holding, error)
        holding.report(claim.key, claim.owner, claim.fence, error)

    async def _completed(self, claims: Claims, claim: Claim, holding: Holding, result: str) -> None:
        if holding.lost is not None and not holding.unnoticed:
            return  # it was told to stop: who knows whether it got to its end
        try:
            said = await claims._complete(claim, result, self._hold_ms)
        except StoreError:
            if holding.lost is None:
                raise  # the work is done, and nobody may know: it will be done again unless the caller sees to it
            return
        # Taken, though it had run out: the work is done, and nobody has begun it anew.
        holding.lost = None if said > 0 else self._lost_as(said)

    async def _give_up(self, claims: Claims, claim: Claim, holding: Holding, error: BaseException) -> None:
        failed = isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError)
        if holding.lost is not None:
            # Whoever lost it is told now, not when a store that is away answers.
            if failed:
                store, shard = claims._store, claims._shard_of(claim.key, claim.queue)
                args = (claim.queue, claim.key, claim.owner, claim.fence, store.new_call(), error_json(error))
                store.undo("claim/fail", shard, args)
            return
        try:
            said = await (claims._fail(claim, error_json(error)) if failed else claims._release(claim))
        except StoreError as problem:
            log.warning("could not end the claim on %r, it ends within %g s: %s", self.key, self._lease_ms / 1000, problem)
            return
        holding.lost = None if said > 0 else self._lost_as(said)

    def _lost_as(self, said: int) -> str:
        self.refusal = REFUSALS[said]
        return f"it had ended before the block did ({self.refusal})"


def passthrough(key: str, owner: str, queue: str) -> Claim:
    """The claim of a Gate with nothing behind it. Its fence grows like those of a store, but guards nothing."""
    return Claim(key, queue, owner, time.time_ns() // 1000, 1, math.inf, "passthrough")
