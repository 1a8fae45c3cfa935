"""The keeper made to do now what it would do later: no test waits for the third of a lease."""

from __future__ import annotations

from lockbeat import Lockbeat
from lockbeat.leases.lease import Held
from tests.conftest import wait_until


def kept(lb: Lockbeat) -> Held:
    """The one lease that the client's keeper looks after."""
    [held] = lb.keeper._held
    return held


def hurry(lb: Lockbeat) -> None:
    """Let a third of each lease have passed: the keeper renews what it holds."""
    for held in list(lb.keeper._held):
        held.renew_at = 0.0
    lb.keeper._rouse()


async def renewed(lb: Lockbeat, times: int = 1) -> None:
    """Wait until the keeper has renewed all that it holds, so many times."""
    for _ in range(times):
        before = {held: held.asked_at for held in list(lb.keeper._held)}
        assert before, "the keeper holds nothing"
        hurry(lb)
        await wait_until(lambda before=before: all(_is_over(lb, held, at) for held, at in before.items()), "all are renewed")  # type: ignore[misc]


def _is_over(lb: Lockbeat, held: Held, asked_at: float) -> bool:
    return held.asked_at > asked_at or not lb.keeper.holds(held)
