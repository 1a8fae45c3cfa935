"""Promise 8: a call whose reply was lost is repeated, and gives the first outcome."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Fixed, Lockbeat
from tests.beats import Hands, fired, ledger, minutely, overdue, scheduler, states, tasks_of
from tests.conftest import only
from tests.proxy import Proxy, calls_of

pytestmark = only("valkey", "redis")


def lose(lossy: Proxy, script: str, times: int) -> None:
    """Lose the next replies of a script."""
    lossy.lose_reply(calls_of(script), times)


@pytest.mark.parametrize("times", [1, 3])
async def test_fire_starts_the_attempt_that_it_had_started(client: Lockbeat, lossy: Proxy, raw: Any, times: int) -> None:
    job, hands = minutely(), Hands("report")
    slot = await overdue(client, raw, job)
    lose(lossy, "beat/fire", times)
    await scheduler(client, job, runner=hands).tick(0)
    assert lossy.lost == times
    [task] = hands.tasks
    [entry] = await ledger(client, "report")
    assert (entry.slot_ms, entry.fence) == (slot, task.fence)
    assert await client.tasks.complete(task)
    assert tasks_of(raw, client) == []


async def test_a_whole_burst_is_begun_though_its_reply_was_lost(client: Lockbeat, lossy: Proxy, raw: Any) -> None:
    jobs = [minutely(f"job-{number}") for number in range(120)]
    for job in jobs:
        await overdue(client, raw, job)
    hands = Hands(*(job.name for job in jobs))
    lose(lossy, "beat/fire", 2)
    beat = scheduler(client, *jobs, runner=hands)
    while len(hands.tasks) < 120:
        await beat.tick(0)
    assert sorted(task.name for task in hands.tasks) == sorted(job.name for job in jobs)
    assert hands.places == 1000 - 120
    for task in hands.tasks:
        assert await client.tasks.complete(task)


async def test_due_is_asked_again(client: Lockbeat, lossy: Proxy, raw: Any) -> None:
    """What it had hidden comes back by itself."""
    job = minutely()
    await overdue(client, raw, job)
    beat = scheduler(client, job)
    lose(lossy, "beat/due", 1)
    again = await beat.tick(0)
    assert beat.fired or (again is not None and again <= 0.3)


@pytest.mark.parametrize("times", [1, 2])
async def test_claim_returns_what_it_had_claimed(client: Lockbeat, lossy: Proxy, raw: Any, times: int) -> None:
    jobs = [minutely(f"job-{number}", overlap=overlap) for number, overlap in enumerate(["skip", "allow"] * 3)]
    for job in jobs:
        await overdue(client, raw, job)
    await scheduler(client, *jobs).tick(0)
    lose(lossy, "task/claim", times)
    tasks, *_ = await client.tasks.claim_on(0, ["default"], client.owner, 4, 5000)
    assert lossy.lost == times
    assert len({task.id for task in tasks}) == len(tasks) == 4
    assert {task.attempt for task in tasks} == {1}
    rest, *_ = await client.tasks.claim_on(0, ["default"], client.owner, 10, 5000)
    assert len(rest) == 2
    for task in (*tasks, *rest):
        assert await client.tasks.complete(task)
    assert tasks_of(raw, client) == []


async def test_complete_is_true(client: Lockbeat, lossy: Proxy, raw: Any) -> None:
    task = await fired(client, raw)
    lose(lossy, "task/complete", 3)
    assert await client.tasks.complete(task) is True
    assert lossy.lost == 3
    assert await states(client, "report") == ["done"]


async def test_complete_by_an_attempt_that_is_not_the_newest_is_false(client: Lockbeat, raw: Any) -> None:
    first = await fired(client, raw, max_attempts=2)
    await client.tasks.release(first, begun=True)
    [second], *_ = await client.tasks.claim_on(0, ["default"], client.owner, 1, 5000)
    assert second.fence > first.fence
    assert await client.tasks.complete(first) is False
    assert await client.tasks.complete(second) is True
    assert await client.tasks.complete(first) is False, "also after it has ended"
    [entry] = await ledger(client, "report")
    assert (entry.state, entry.fence, entry.attempt) == ("done", second.fence, 2)


async def test_fail_is_one_failure(client: Lockbeat, lossy: Proxy, raw: Any) -> None:
    task = await fired(client, raw, max_attempts=3, retry=Fixed(0))
    lose(lossy, "task/fail", 2)
    await client.tasks.fail(task, "no luck")
    assert lossy.lost == 2
    [second], *_ = await client.tasks.claim_on(0, ["default"], client.owner, 5, 5000)
    assert second.attempt == 2
    assert await client.tasks.complete(second)


async def test_release_gives_back_once(client: Lockbeat, lossy: Proxy, raw: Any) -> None:
    task = await fired(client, raw)
    lose(lossy, "task/release", 2)
    await client.tasks.release(task, begun=False)
    assert lossy.lost == 2
    [again], *_ = await client.tasks.claim_on(0, ["default"], client.owner, 5, 5000)
    assert (again.id, again.attempt) == (task.id, 1)
    assert await client.tasks.complete(again)


async def test_release_all_takes_back_all(client: Lockbeat, lossy: Proxy, raw: Any) -> None:
    await fired(client, raw)
    lose(lossy, "task/release_all", 1)
    await client.tasks.release_all(client.owner)
    assert lossy.lost == 1
    assert tasks_of(raw, client) == []
    assert await client.locks.list() == []


async def test_put_declares_once(client: Lockbeat, lossy: Proxy) -> None:
    lose(lossy, "job/put", 2)
    await client.jobs.put(minutely())
    assert lossy.lost == 2
    assert [state.job.name for state in await client.jobs.list()] == ["report"]
    assert await ledger(client, "report") == []


async def test_a_job_that_runs_while_replies_are_lost_runs_once_a_slot(lossy: Proxy, lb: Lockbeat, namespace: str) -> None:
    from lockbeat import Beat, Run
    from tests.conftest import wait_until

    beat = Beat(lossy.url, namespace=namespace, timeout=2, grace=1)
    slots: list[object] = []

    @beat.every(0.1)
    async def often(run: Run) -> None:
        slots.append(run.slot)

    async with beat.lifespan():
        for script in ("beat/due", "beat/fire", "task/complete", "beat/fire", "task/complete") * 2:
            before, ran = lossy.lost, len(slots)
            lose(lossy, script, 1)
            await wait_until(lambda b=before: lossy.lost > b, f"a reply to {script} is lost")  # type: ignore[misc]
            await wait_until(lambda r=ran: len(slots) > r, f"it goes on after a lost {script}")  # type: ignore[misc]
    assert len(slots) == len(set(slots))
    assert not [entry for entry in await ledger(lb, "often") if entry.state not in ("done", "missed", "skipped")]
