"""Promise 4: what was written while the server's clock was years ahead ends when it would have, once the clock is right again.

The holders are dead: nobody but the store can set it right. A holder that lives renews within its lease, and keeps it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from lockbeat import Claim, Fixed, Lockbeat
from lockbeat.errors import ScriptError, StoreError
from tests.claims import acquired
from tests.conftest import only
from tests.tasks import NOON, begun, claim_one, died, state, stopped

pytestmark = only("memory")

AHEAD = NOON + 10 * 366 * 86_400
BEYOND = 2**53 / 1_000_000  # in the year 2255 microseconds outgrow what a fence can be
At = Callable[[float], None]


@pytest.fixture
def at() -> Iterator[At]:
    with stopped() as at:
        yield at


async def test_a_lock_of_a_dead_holder_is_free_after_its_ttl(lb: Lockbeat, at: At) -> None:
    at(AHEAD)
    taken = await lb.locks.try_acquire("k", "dead", 30)
    assert taken is not None
    at(NOON)
    assert await lb.locks.owner("k") == "dead", "who holds it may live, and has not been told otherwise"
    assert await lb.locks.try_acquire("k", "bob", 30) is None
    at(NOON + 29)
    assert await lb.locks.try_acquire("k", "bob", 30) is None
    at(NOON + 30)
    mine = await lb.locks.try_acquire("k", "bob", 30)
    assert mine is not None
    assert mine.fence > taken.fence


async def test_a_holder_that_lives_keeps_its_lock_and_renews_it_by_the_right_clock(lb: Lockbeat, at: At) -> None:
    at(AHEAD)
    assert await lb.locks.try_acquire("k", "alice", 30)
    at(NOON)
    assert await lb.locks.try_acquire("k", "bob", 30) is None
    at(NOON + 10)
    assert await lb.locks.renew("k", "alice", 30)
    at(NOON + 39)
    assert await lb.locks.try_acquire("k", "bob", 30) is None
    at(NOON + 40)
    assert await lb.locks.try_acquire("k", "bob", 30)


async def test_a_lock_that_was_released_is_free_at_once(lb: Lockbeat, at: At) -> None:
    at(AHEAD)
    assert await lb.locks.try_acquire("k", "alice", 30)
    assert await lb.locks.release("k", "alice")
    at(NOON)
    assert not await lb.locks.is_locked("k")
    assert await lb.locks.try_acquire("k", "bob", 30)


@pytest.mark.parametrize("step", [1.5, 20, 3600])
async def test_a_small_step_leaves_no_lease_longer_than_its_ttl(lb: Lockbeat, at: At, step: float) -> None:
    at(NOON + step)
    assert await lb.locks.try_acquire("k", "dead", 5)
    await acquired(lb.claims, "k", "dead", lease=5)
    at(NOON)
    await lb.locks.try_acquire("k", "bob", 5)
    await lb.claims.acquire("k", "bob", 5)
    at(NOON + 6)
    assert await lb.locks.try_acquire("k", "bob", 5)
    await acquired(lb.claims, "k", "bob", lease=5)


async def test_a_claim_of_a_dead_owner_is_taken_over_after_its_lease(lb: Lockbeat, at: At) -> None:
    at(AHEAD)
    await acquired(lb.claims, "k", "dead", lease=30)
    at(NOON)
    assert not await lb.claims.acquire("k", "bob", 30)
    at(NOON + 30)
    claim = await lb.claims.acquire("k", "bob", 30)
    assert isinstance(claim, Claim)
    assert claim.outcome == "took_over"


@pytest.mark.parametrize("look", ["active", "list", "expired", "cleanup"])
async def test_claims_of_the_dead_are_found_though_nobody_asks_for_their_keys(lb: Lockbeat, at: At, look: str) -> None:
    at(AHEAD)
    for key in "abc":
        await acquired(lb.claims, key, "dead", lease=30)
    at(NOON)
    looks: dict[str, Callable[[], Awaitable[Any]]] = {
        "active": lb.claims.active,
        "list": lb.claims.list,
        "expired": lb.claims.expired,
        "cleanup": lb.claims.cleanup,
    }
    await looks[look]()
    at(NOON + 30)
    assert len(await lb.claims.expired()) == 3
    assert await lb.claims.cleanup() == 3


async def test_what_a_claim_is_held_with_is_held_no_longer_than_it_was_to_be(lb: Lockbeat, at: At) -> None:
    at(AHEAD)
    assert await lb.claims.complete(await acquired(lb.claims, "k"), "result", hold=60)
    at(NOON)
    assert not await lb.claims.acquire("k", "bob")
    at(NOON + 60)
    await acquired(lb.claims, "k", "bob")


async def test_the_attempt_of_a_dead_instance_is_taken_back(lb: Lockbeat, at: At) -> None:
    at(AHEAD)
    task = await begun(lb, owner="dead", lease=30)
    at(NOON)
    assert await lb.tasks.claim("default", "bob", 1, 30) == []
    at(NOON + 31)
    await lb.tasks.claim("default", "bob", 1, 30)  # takes it back; its retry waits a second
    at(NOON + 33)
    again = await claim_one(lb, owner="bob")
    assert (again.id, again.attempt) == (task.id, 2)


async def test_a_longer_lease_hides_no_attempt_for_longer_than_itself(lb: Lockbeat, at: At) -> None:
    at(NOON + 100)
    await begun(lb, owner="dead", lease=30)
    at(NOON)
    await begun(lb, owner="slow", lease=300)
    await lb.tasks.spawn("other")
    at(NOON + 131)
    await lb.tasks.claim("default", "bob", 10, 30)
    at(NOON + 133)
    assert (await claim_one(lb, owner="bob")).attempt == 2


@pytest.mark.parametrize("put_off", ["delay", "retry", "defer"])
async def test_what_was_put_off_is_due_as_long_from_now_as_it_was_from_then(lb: Lockbeat, at: At, put_off: str) -> None:
    at(AHEAD)
    if put_off == "delay":
        await lb.tasks.spawn("job", delay=60)
    else:
        task = await begun(lb, retry=Fixed(60, jitter=0))
        await (lb.tasks.fail(task, "broken") if put_off == "retry" else lb.tasks.defer(task, 60))
    at(NOON)
    assert await lb.tasks.claim("default", "bob", 1, 30) == []
    at(NOON + 59)
    assert await lb.tasks.claim("default", "bob", 1, 30) == []
    at(NOON + 61)
    await claim_one(lb, owner="bob")


async def test_what_was_put_off_by_the_right_clock_keeps_its_time(lb: Lockbeat, at: At) -> None:
    at(NOON)
    await lb.tasks.spawn("year", delay=365 * 86_400)
    at(AHEAD)
    await lb.tasks.spawn("soon", delay=60)
    at(NOON)
    await lb.tasks.spawn("month", delay=30 * 86_400)  # numbered by a counter that stands years ahead
    await lb.tasks.claim("default", "bob", 1, 30)
    at(NOON + 61)
    soon = await claim_one(lb, owner="bob")
    assert soon.name == "soon"
    assert await lb.tasks.complete(soon)
    at(NOON + 30 * 86_400 - 1)
    assert await lb.tasks.claim("default", "bob", 1, 30) == []
    at(NOON + 30 * 86_400)
    assert (await claim_one(lb, owner="bob")).name == "month"


@pytest.mark.parametrize("put_off", ["delay", "retry"])
async def test_what_was_put_off_for_longer_than_the_set_back_is_put_off_anew_once(lb: Lockbeat, at: At, put_off: str) -> None:
    at(NOON + 3600)
    if put_off == "delay":
        await lb.tasks.spawn("job", delay=7200)
    else:
        await lb.tasks.fail(await begun(lb, retry=Fixed(7200, jitter=0)), "broken")
    at(NOON)
    for moment in (0, 1, 7199):
        at(NOON + moment)
        assert await lb.tasks.claim("default", "bob", 1, 30) == []
    at(NOON + 7200)
    await claim_one(lb, owner="bob")


@pytest.mark.parametrize("put_off", ["delay", "retry"])
async def test_what_is_put_off_after_the_clock_was_set_back_is_not_due_early(lb: Lockbeat, at: At, put_off: str) -> None:
    """Its number stands an hour ahead, as numbers never go back: it says nothing of when the task was put off."""
    at(NOON + 3600)
    await lb.tasks.spawn("other", queue="other")
    at(NOON)
    if put_off == "delay":
        await lb.tasks.spawn("job", delay=7200)
    else:
        await lb.tasks.fail(await begun(lb, retry=Fixed(7200, jitter=0)), "broken")
    assert await lb.tasks.claim("default", "bob", 1, 30) == []
    at(NOON + 7199)
    assert await lb.tasks.claim("default", "bob", 1, 30) == []
    at(NOON + 7200)
    await claim_one(lb, owner="bob")


async def test_an_idempotency_key_is_free_again_when_its_retention_is_over(lb: Lockbeat, at: At) -> None:
    at(AHEAD)
    first = await lb.tasks.spawn("job", idempotency_key="once", retention=60)
    assert await lb.tasks.complete(await claim_one(lb))
    at(NOON)
    assert not (await lb.tasks.spawn("job", idempotency_key="once", retention=60)).created
    at(NOON + 61)
    again = await lb.tasks.spawn("job", idempotency_key="once", retention=60)
    assert again.created
    assert again.task_id == first.task_id


async def test_ended_and_dead_tasks_are_forgotten_when_they_would_have_been(lb: Lockbeat, at: At) -> None:
    at(AHEAD)
    dead = await died(lb)
    task = await begun(lb, retention=60)
    assert await lb.tasks.complete(task)
    at(NOON)
    await lb.tasks.spawn("other", queue="elsewhere")
    await lb.tasks.spawn("other", queue="elsewhere")
    assert [info.id for info in await lb.tasks.dead("default")] == [dead]
    at(NOON + 61)
    for _ in range(3):
        await lb.tasks.spawn("other", queue="elsewhere")
    assert {info.name for info in await lb.tasks.list(state="done")} == set()
    at(NOON + 8 * 86_400)
    await lb.tasks.spawn("other", queue="elsewhere")
    assert await lb.tasks.dead("default") == []


@pytest.mark.parametrize("limit", ["max_delay", "max_duration"])
async def test_a_limit_is_met_when_it_would_have_been(lb: Lockbeat, at: At, limit: str) -> None:
    at(AHEAD)
    spawned = await lb.tasks.spawn("job", **{limit: 60})  # type: ignore[arg-type]
    task = await claim_one(lb, lease=3600) if limit == "max_duration" else None
    at(NOON)
    await lb.tasks.claim("elsewhere", "bob", 1, 30)
    at(NOON + 61)
    if task is not None:
        assert not await lb.tasks.heartbeat(task, 3600)
    await lb.tasks.claim("elsewhere", "bob", 1, 30)
    assert await state(lb, spawned.task_id) == "cancelled"


async def test_an_instance_that_died_then_is_not_shown_for_years(lb: Lockbeat, at: At) -> None:
    from lockbeat.monitor import HEARTBEAT_TTL_MS, instances

    at(AHEAD)
    await lb.store.call("beat/heartbeat", 0, owner="ghost", info="{}", ttl_ms=HEARTBEAT_TTL_MS, version="")
    at(NOON)
    await lb.store.call("beat/heartbeat", 0, owner="alive", info="{}", ttl_ms=HEARTBEAT_TTL_MS, version="")
    at(NOON + 29)
    await lb.store.call("beat/heartbeat", 0, owner="alive", info="{}", ttl_ms=HEARTBEAT_TTL_MS, version="")
    at(NOON + 31)
    assert [instance.owner for instance in await instances(lb.store)] == ["alive"]


@pytest.mark.parametrize("later", [0.0, 50 * 366 * 86_400.0])
async def test_a_clock_beyond_every_fence_is_refused_and_leaves_no_trace(lb: Lockbeat, at: At, later: float) -> None:
    before = await lb.locks.try_acquire("k", "alice", 30)
    assert before is not None
    at(BEYOND + later)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: lb.locks.try_acquire("k", "bob", 30),
        lambda: lb.claims.acquire("k", "bob", lease=30),
        lambda: lb.tasks.spawn("job"),
        lambda: lb.tasks.claim("default", "bob", 1, 30),
        lambda: lb.locks.owner("k"),
    ]
    for call in calls:
        with pytest.raises(StoreError, match=r"^the server's clock is past the year 2255$") as refused:
            await call()
        assert not isinstance(refused.value, ScriptError), "the clock is wrong, not a script"
    at(NOON + 1)
    assert await lb.locks.owner("k") == "alice"
    after = await lb.locks.try_acquire("other", "bob", 30)
    assert after is not None
    assert before.fence < after.fence < 2**53
    assert isinstance(await lb.claims.acquire("k", "bob", lease=30), Claim)
    assert await begun(lb)
