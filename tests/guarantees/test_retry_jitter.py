"""What failed together does not come back together, and nothing comes back before its policy says."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lockbeat import Exponential, Fixed, Lockbeat
from lockbeat.retry import Retry
from lockbeat.tasks import NewTask
from tests.conftest import only
from tests.tasks import NOON, begun, stopped


@only("memory", "valkey")
@pytest.mark.parametrize("retry", [None, Exponential(60), Fixed(60, jitter=1)], ids=["by default", "exponential", "fixed"])
async def test_200_tasks_that_fail_together_come_back_spread(lb: Lockbeat, retry: Retry | None) -> None:
    options = {} if retry is None else {"retry": retry}
    await lb.tasks.spawn_many([NewTask("job", n, **options) for n in range(200)])  # type: ignore[arg-type]
    tasks = await lb.tasks.claim("default", "alice", 200)
    before = await lb.store.server_time()
    times = sorted([(await lb.tasks.fail(task, "broken")).retry_at or 0 for task in tasks])
    after = await lb.store.server_time()
    base, jitter = (1.0, 0.25) if retry is None else (60.0, retry.jitter)
    assert times[0] >= before + base, "none is early"
    assert times[-1] <= after + base * (1 + jitter) + 0.001
    assert times[-1] - times[0] >= 0.9 * base * jitter
    if retry is not None:  # the clock's own progress is small against it
        assert max(later - sooner for sooner, later in pairwise(times)) < 0.1 * base * jitter + (after - before)


@only("memory")
async def test_tasks_differ_in_their_jitter(lb: Lockbeat) -> None:
    with stopped():
        task, shares = await begun(lb, retry=Fixed(100, jitter=0.5), max_attempts=4), set()
        for attempt in (1, 2, 3):
            again = (await lb.tasks.fail(task, "broken")).retry_at
            assert again is not None
            shares.add(round(again - NOON, 3))
            if attempt < 3:
                assert await lb.tasks.cancel(task.id)
                task = await begun(lb, retry=Fixed(100, jitter=0.5), max_attempts=4)
    assert len(shares) == 3
    assert all(100 <= share <= 150 for share in shares)


@only("memory")
async def test_without_jitter_and_with_a_time_given_it_is_exact(lb: Lockbeat) -> None:
    with stopped():
        exact = await begun(lb, retry=Fixed(100, jitter=0))
        assert (await lb.tasks.fail(exact, "broken")).retry_at == NOON + 100
        given = await begun(lb)
        assert (await lb.tasks.fail(given, "broken", retry_at=NOON + 7)).retry_at == NOON + 7
