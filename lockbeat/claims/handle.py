"""The handle: a claim for as long as a block of code runs."""

from __future__ import annotations

import asyncio
import logging
from operator import attrgetter
from types import TracebackType
from typing import Any, Self

from lockbeat.claims.holding import ClaimHolding
from lockbeat.claims.table import Table
from lockbeat.claims.values import REFUSALS, Busy, Claim, Done, check_place, error_json
from lockbeat.errors import ClaimBusy, ClaimDone, ClaimRefused, InvalidArgument, LockbeatError, StoreError
from lockbeat.leases.holding import Handle
from lockbeat.leases.lease import monotonic
from lockbeat.store.durable import Durability, check_durability
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name
from lockbeat.values.payloads import dump

log = logging.getLogger("lockbeat")


def _of_the_claim(name: str, doc: str) -> Any:
    """A property of the handle that is its claim's. Raises LockbeatError before there is one."""
    return property(attrgetter(f"claim.{name}"), doc=doc)


class ClaimHandle(Handle):
    """`async with lb.claims.hold("order:17") as claim:` claims the work while the block runs.

    The keeper renews the claim. How the block ends decides how the claim ends:
    at its end: it is completed, with `claim.result` if the block sets that.
    by an error: it fails, with the error's text; the next acquire gets the next attempt.
    cancelled from outside, or by KeyboardInterrupt: it is given back, and the attempt does not count.

    The block may also finish the claim by a verb of the handle; until that is answered, it still has the claim. The verbs raise
    ClaimRefused where those of `Claims` answer False, and `refusal` says why. One handle is for one block at a time.

    Raises: on entry ClaimBusy while somebody is at it, ClaimDone while it is remembered as done, NotDurable when `durability` is
    not met in time. LeaseLost when the claim is lost: the block is cancelled then, and an error of its own comes first, with
    the loss as a note.
    """

    def __init__(
        self,
        table: Table,
        key: str,
        queue: str,
        owner: str,
        lease: Seconds = 30,
        hold: Seconds = 0,
        claim: Claim | None = None,
        durability: Durability | None = None,
    ) -> None:
        check_place(key, queue)
        self._table = table
        self.key = key
        self.queue = queue
        self.owner = check_name("owner", owner)
        self._lease_ms = milliseconds("lease", lease)
        self._durability = check_durability(durability, self._lease_ms)
        self._hold_ms = milliseconds("hold", hold, least=0)
        self._claim = self._given = claim
        self._entered = self._finished = False
        self.result: Any = None
        """What a block that gets to its end completes the claim with: any JSON value of at most 1 MiB."""
        self.refusal: str | None = None
        """Why a verb was last refused: "unknown", "expired", "finished", "wrong owner" or "stale token"."""

    @property
    def claim(self) -> Claim:
        """The claim, as it was acquired. Raises LockbeatError before there is one."""
        if self._claim is None:
            raise LockbeatError(f"{self.key!r} is not claimed yet: the `with` that begins its block does that")
        return self._claim

    _holding: ClaimHolding | None = None

    fence: int = _of_the_claim("fence", "Grows with each new claim of the key; hand it to whatever the work writes to.")
    attempt: int = _of_the_claim("attempt", "1 for new work; one more after a failure, and after an attempt that ran out.")
    expires_at: float = _of_the_claim("expires_at", "When it would have ended unrenewed: epoch seconds, by the server's clock.")
    outcome: str = _of_the_claim("outcome", '"acquired", or "took_over" from `previous_owner`.')
    previous_owner: str | None = _of_the_claim("previous_owner", "Who had it, and let it run out.")
    last_error: Any = _of_the_claim("last_error", "How the last attempt failed that did, if one has.")

    async def renew(self, lease: Seconds | None = None) -> None:
        """Set the time left to `lease`; None: to what the handle was made with, as the keeper does. Raises ClaimRefused."""
        lease_ms, claim = self._lease_ms if lease is None else milliseconds("lease", lease), self.claim
        if self._entered and lease_ms != self._lease_ms:
            # The keeper's own renewals may be on their way, and would set it back.
            raise InvalidArgument("lease", "while the block runs it is what `hold` was given")
        self._check(await self._table.renew(claim, lease_ms))

    async def complete(self, result: Any = None, hold: Seconds | None = None) -> None:
        """The work is done; `hold`: None as the handle says. Raises ClaimRefused."""
        text = dump("result", result)
        hold_ms = self._hold_ms if hold is None else milliseconds("hold", hold, least=0)
        await self._finish("claim/complete", result=text, hold_ms=hold_ms)

    async def fail(self, error: Any) -> None:
        """The work failed: the next acquire gets it at once, as its next attempt. Raises ClaimRefused."""
        await self._finish("claim/fail", error=error_json(error))

    async def release(self) -> None:
        """Give it back as if it had not been acquired: its attempt does not count. Raises ClaimRefused."""
        await self._finish("claim/release", token="-")

    async def _finish(self, script: str, **args: Any) -> None:
        holding = self._holding
        if holding is None:
            said = await self._table.change(script, self.claim, **args)
        else:
            # Held on to until the store has said that it is over: if it can't be asked, the block goes on, and so does its claim.
            with holding.finishing():
                said = await self._table.change(script, self.claim, **args)
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
        asked_at = monotonic()
        if self._given is not None:
            self._check(await self._table.renew(self._given, self._lease_ms))
        else:
            self._claim = claim = await self._acquire()
            if (again_at := monotonic()) > asked_at + self._lease_ms / 2000:
                # The store was away: by our clock little is left of the claim, though it may have been granted just now. If this
                # is refused it did run out on the way, and will be found lost.
                try:
                    renewed = await self._table.renew(claim, self._lease_ms) > 0
                except BaseException:
                    self._table.undo("claim/release", claim, token="-", lasts=self._lease_ms / 1000)
                    raise
                asked_at = again_at if renewed else asked_at
        self._holding = self._table.holding(self.claim, self._lease_ms, asked_at, self.told)

    async def _acquire(self) -> Claim:
        answer = await self._table.acquire(self.key, self.queue, self.owner, self._lease_ms, self._durability)
        if isinstance(answer, Busy):
            raise ClaimBusy(self.key, self.queue, answer.owner, answer.expires_at)
        if isinstance(answer, Done):
            raise ClaimDone(self.key, self.queue, answer.owner, answer.result, answer.completed_at, answer.until)
        return answer

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._entered = False
        holding, claim = self._holding, self.claim
        if holding is None:
            return
        if self._finished:
            if error is not None:
                holding.report(claim.key, claim.owner, claim.fence, error)
            return
        holding.leave(keep=True)
        try:
            if error is None:
                await self._complete(claim, holding)
            else:
                await self._give_up(claim, holding, error)
        finally:
            holding.drop()
        holding.report(claim.key, claim.owner, claim.fence, error)

    async def _complete(self, claim: Claim, holding: ClaimHolding) -> None:
        try:
            result = dump("result", self.result)
        except InvalidArgument as problem:
            await self._give_up(claim, holding, problem)
            raise
        if holding.lost is not None and not holding.unnoticed:
            return  # it was told to stop: who knows whether it got to its end
        try:
            # Nothing is awaited before this call is on its way: a caller that is cancelled here has still completed.
            said = await self._table.change(
                "claim/complete", claim, result=result, hold_ms=self._hold_ms, keep=self._lease_ms / 1000
            )
        except StoreError:
            if holding.lost is None:
                raise  # the work is done, and nobody may know: it may be done again unless the caller sees to it
            return
        # Taken, though it had run out: the work is done, and nobody has begun it anew.
        holding.lost = None if said > 0 else self._lost_as(said)

    async def _give_up(self, claim: Claim, holding: ClaimHolding, error: BaseException) -> None:
        lease = self._lease_ms / 1000
        failed = isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError)
        if holding.lost is not None:
            # Whoever lost it is told now, not when a store that is away answers.
            if failed:
                self._table.undo("claim/fail", claim, error=error_json(error), lasts=lease)
            return
        asked_at = monotonic()
        args: dict[str, Any]
        script, args = ("claim/fail", {"error": error_json(error)}) if failed else ("claim/release", {"token": "-"})
        try:
            said = await self._table.change(script, claim, keep=lease, **args)
        except StoreError as problem:
            log.warning("could not end the claim on %r yet, it ends within %g s: %s", self.key, lease, problem)
            return
        if said <= 0 and not holding.too_late(asked_at):
            holding.lost = self._lost_as(said)

    def _lost_as(self, said: int) -> str:
        self.refusal = REFUSALS[said]
        return f"it had ended before the block did ({self.refusal})"
