"""Locks and claims: their verbs, and the handles by which blocks hold them."""

from __future__ import annotations

from types import NoneType

from lockbeat import claims as asynchronous
from lockbeat import locks
from lockbeat.claims import Claim
from lockbeat.store.durable import Durability
from lockbeat.sync.blocks import ClaimHandle, Lock, OnLoss
from lockbeat.sync.portal import Inline, Portal
from lockbeat.sync.verbs import Verbs, blocking
from lockbeat.values.checks import of_type
from lockbeat.values.durations import Seconds


class Locks(Verbs[locks.Locks]):
    """`lb.locks`; see `lockbeat.locks.Locks`."""

    holder = blocking(locks.Locks.holder)
    is_locked = blocking(locks.Locks.is_locked)
    list = blocking(locks.Locks.list)
    owner = blocking(locks.Locks.owner)
    release = blocking(locks.Locks.release)
    release_all = blocking(locks.Locks.release_all)
    renew = blocking(locks.Locks.renew)
    try_acquire = blocking(locks.Locks.try_acquire)
    unlock = blocking(locks.Locks.unlock)

    def lock(
        self,
        key: str,
        ttl: Seconds = 30,
        wait: Seconds | None = None,
        owner: str | None = None,
        durability: Durability | None = None,
        *,
        on_loss: OnLoss | None = None,
    ) -> Lock:
        """A handle that takes the lock, renews it by itself and gives it back: see `Lock`."""
        portal, locks = self._reach()
        return Lock(portal, locks.lock(key, ttl, wait, owner, durability), on_loss)


class Claims(Verbs[asynchronous.Claims]):
    """`lb.claims`; see `lockbeat.claims.Claims`."""

    acquire = blocking(asynchronous.Claims.acquire)
    active = blocking(asynchronous.Claims.active)
    cleanup = blocking(asynchronous.Claims.cleanup)
    complete = blocking(asynchronous.Claims.complete)
    expired = blocking(asynchronous.Claims.expired)
    fail = blocking(asynchronous.Claims.fail)
    get = blocking(asynchronous.Claims.get)
    is_claimed = blocking(asynchronous.Claims.is_claimed)
    list = blocking(asynchronous.Claims.list)
    owns = blocking(asynchronous.Claims.owns)
    release = blocking(asynchronous.Claims.release)
    release_all = blocking(asynchronous.Claims.release_all)
    renew = blocking(asynchronous.Claims.renew)
    stats = blocking(asynchronous.Claims.stats)

    def hold(
        self,
        key: str,
        lease: Seconds = 30,
        queue: str = "default",
        hold: Seconds = 0,
        owner: str | None = None,
        durability: Durability | None = None,
        *,
        on_loss: OnLoss | None = None,
    ) -> ClaimHandle:
        """A handle that claims the work, renews the claim while the block runs, and finishes it: see `ClaimHandle`."""
        portal, claims = self._reach()
        return ClaimHandle(portal, claims.hold(key, lease, queue, hold, owner, durability), on_loss)

    def handle(self, claim: Claim, lease: Seconds = 30, hold: Seconds = 0, *, on_loss: OnLoss | None = None) -> ClaimHandle:
        """A handle on a claim that is there already: see `lockbeat.claims.Claims.handle`."""
        portal, claims = self._reach()
        return ClaimHandle(portal, claims.handle(claim, lease, hold), on_loss)


class Gate(Claims):
    """The verbs of claims, for a service that may or may not have a store: `Gate(lb.claims)`, `Gate(None)`.

    With None everything passes; see `lockbeat.Gate`.
    """

    def __init__(self, claims: Claims | None) -> None:
        of_type("claims", claims, (Claims, NoneType), "lb.claims or None")
        super().__init__(_passing if claims is None else claims._reach)


def _passing() -> tuple[Portal, asynchronous.Gate]:
    return Inline(), asynchronous.Gate(None)
