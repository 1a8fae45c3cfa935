"""Promise 4: the server's clock decides, also when it is set back after a claim was found to have run out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lockbeat import Lockbeat
from lockbeat.claims.table import PAGE
from tests.claims import acquired
from tests.conftest import only
from tests.tasks import NOON, stopped

pytestmark = only("memory")


@pytest.fixture
def at() -> Iterator[Callable[[float], None]]:
    with stopped() as at:
        yield at


async def test_a_claim_that_is_live_again_and_renewed_is_counted_listed_and_released(
    lb: Lockbeat, at: Callable[[float], None]
) -> None:
    claim = await acquired(lb.claims, "k", lease=10)
    at(NOON + 11)
    assert await lb.claims.active() == 0
    at(NOON + 5)
    assert await lb.claims.renew(claim, 60)
    at(NOON + 12)  # nothing but the renewal has seen the earlier time
    assert await lb.claims.active() == 1
    assert [found.key for found in await lb.claims.list()] == ["k"]
    assert await lb.claims.expired() == []
    assert await lb.claims.cleanup() == 0
    assert await lb.claims.release_all("alice") == 1
    assert await lb.claims.is_claimed("k") is None


@pytest.mark.parametrize("found", ["expired", "release_all", "cleanup", "acquire"])
async def test_what_was_found_to_have_run_out_is_live_again_for_every_verb(
    lb: Lockbeat, at: Callable[[float], None], found: str
) -> None:
    """However it was found, and whichever verb is the first to see the earlier time; `left` is the one that ran out for good."""
    verbs = lb.claims
    for key in ("a", "b"):
        await acquired(verbs, key, lease=10)
    left = await acquired(verbs, "left", lease=2)
    for looks in range(3):
        at(NOON + 9.5 + (0 if found == "cleanup" else 2))
        if found == "expired":
            assert len(await verbs.expired()) == 3
        elif found == "release_all":
            assert await verbs.release_all("alice") == 0
        elif found == "acquire":
            await acquired(verbs, f"other {looks}", "bob", lease=0.5)
        at(NOON + 5)
        if looks == 0:
            assert await verbs.active() == 2 + (found == "acquire")
        elif looks == 1:
            assert [claim.key for claim in await verbs.list()][:2] == ["a", "b"]
        else:
            assert await verbs.release_all("alice") == 2
    assert await verbs.expired() == [left]
    assert await verbs.cleanup() == 1


async def test_release_all_finds_more_than_a_page_of_claims_that_are_live_again(
    lb: Lockbeat, at: Callable[[float], None]
) -> None:
    """Others' as well, which are entered anew before them."""
    many = PAGE + 1
    for n in range(many):
        await acquired(lb.claims, f"other {n}", "bob", lease=9)
        await acquired(lb.claims, f"k{n}", lease=10)
    at(NOON + 11)
    assert await lb.claims.active() == 0
    at(NOON + 5)
    assert await lb.claims.release_all("alice") == many
    assert await lb.claims.active() == many
    at(NOON + 11)
    assert await lb.claims.cleanup() == many


async def test_what_is_live_again_runs_out_again(lb: Lockbeat, at: Callable[[float], None]) -> None:
    claim = await acquired(lb.claims, "k", lease=10)
    for _ in range(2):
        at(NOON + 11)
        assert await lb.claims.expired() == [claim]
        assert await lb.claims.active() == 0
        at(NOON + 5)
        assert await lb.claims.expired() == []
        assert await lb.claims.active() == 1
    at(NOON + 11)
    assert (await acquired(lb.claims, "k", "bob")).previous_owner == "alice"
    assert (await lb.claims.stats()).expired == 1


async def test_what_is_claimed_while_the_clock_is_set_back_is_counted_out_again(
    lb: Lockbeat, at: Callable[[float], None]
) -> None:
    """It runs out at a time up to which all had been counted out before."""
    await acquired(lb.claims, "before", lease=10)
    at(NOON + 11)
    assert await lb.claims.active() == 0
    at(NOON + 1)
    assert await lb.claims.renew(await acquired(lb.claims, "since", lease=2), 5)
    assert await lb.claims.release(await acquired(lb.claims, "given back", lease=2))
    at(NOON + 12)
    assert await lb.claims.active() == 0
    assert await lb.claims.list() == []
    assert [claim.key for claim in await lb.claims.expired()] == ["since", "before"]
