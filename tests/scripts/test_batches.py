"""Calls that share a run of a script see each other: they answer, and leave the store, as one after the other would."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lockbeat import Lockbeat
from tests.beats import Hands, ledger, minutely, overdue, scheduler
from tests.conftest import Backend, Connect, only
from tests.tasks import NOON, dump, stopped
from tests.verbs import LOOKS, VERBS, look, shape

Call = Callable[[Lockbeat, Any], Awaitable[Any]]
SECONDS: dict[str, Call] = {
    "locks.try_acquire": lambda lb, _: lb.locks.try_acquire("k", "bob", 30),
    "locks.renew": lambda lb, _: lb.locks.renew("k", "alice", 90),
    "locks.release": lambda lb, _: lb.locks.release("k", "bob"),
    "claims.acquire": lambda lb, _: lb.claims.acquire("k", "bob", 30),
    "claims.acquire what ran out": lambda lb, _: lb.claims.acquire("k", "bob", 30),
    "claims.complete": lambda lb, claim: lb.claims.complete(claim, "another"),
    "claims.fail": lambda lb, claim: lb.claims.fail(claim, "another"),
    "tasks.complete": lambda lb, task: lb.tasks.complete(task, "another"),
    "tasks.fail": lambda lb, task: lb.tasks.fail(task, "another"),
    "tasks.retry": lambda lb, task_id: lb.tasks.retry(task_id, attempts=9),
}
"""Who comes second, where it is not the same call again."""
ALONE = {
    "locks.lock",
    "locks.release_all",
    "claims.hold",
    "claims.release_all",
    "claims.cleanup",
    "tasks.claim",
    "tasks.release_all",
}
ALONE |= {
    name
    for name in VERBS
    if name.startswith(("fenced.", "jobs.", "calendars.", "tasks.spawn_many", "tasks.redrive", "tasks.purge"))
}
"""These verbs share no run: their scripts take one call, or they are several calls themselves."""
SHARED = [name for name in VERBS if name not in {*LOOKS, *ALONE} and not name.endswith("in pages")]
PAIRS = {f"{name} twice": (name, VERBS[name].call) for name in SHARED} | {name: (name, call) for name, call in SECONDS.items()}
pairs = pytest.mark.parametrize("pair", PAIRS)


async def both(lb: Lockbeat, pair: str, together: bool) -> Any:
    """What the two answer, and what is seen of the store then."""
    name, second = PAIRS[pair]
    verb = VERBS[name]
    given = await verb.given(lb)
    if together:
        answers = list(await asyncio.gather(verb.call(lb, given), second(lb, given)))
    else:
        answers = [await verb.call(lb, given), await second(lb, given)]
    return shape(answers), await look(lb, name.partition(".")[0])


@only("valkey")
@pairs
async def test_two_calls_at_once_answer_as_one_after_the_other(connect: Connect, namespace: str, pair: str) -> None:
    found = []
    for together in (False, True):
        async with connect(namespace=f"{namespace}-{together}", owner="alice") as lb:
            found.append(await both(lb, pair, together))
    assert found[0] == found[1]


@only("memory", "valkey")
async def test_two_schedulers_of_one_process_fire_a_slot_once(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(), [Hands("report"), Hands("report")]
    slot = await overdue(lb, raw, job)
    await asyncio.gather(*(scheduler(lb, job, runner=runner).tick(0) for runner in hands))
    assert [entry.slot_ms for entry in await ledger(lb, "report")] == [slot]
    assert [task.slot_ms for runner in hands for task in runner.tasks] == [slot]


@only("memory", "valkey")
async def test_of_two_definitions_in_one_call_the_later_holds(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely(priority=1), minutely(priority=2))
    assert [state.job.priority for state in await lb.jobs.list()] == [2]


@only("valkey")
@pytest.mark.parametrize("name", SHARED)
async def test_they_do_share_a_run(lb: Lockbeat, backend: Backend, name: str) -> None:
    verb = VERBS[name]
    given = await verb.given(lb)
    before = sum(backend.calls("eval", "evalsha").values())
    await asyncio.gather(verb.call(lb, given), verb.call(lb, given))
    assert sum(backend.calls("eval", "evalsha").values()) - before == 1


@only("memory")
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if "ran out" not in pair])  # for which the clock would have to go on
async def test_two_calls_at_once_leave_the_store_as_one_after_the_other(
    connect: Connect, namespace: str, backend: Backend, pair: str
) -> None:
    """To the letter, but for the ids of instances, and by how much a fence is above the one before it."""
    found = []
    with stopped():
        for together in (False, True):
            async with connect(namespace=f"{namespace}-{together}", owner="alice") as lb:
                answers = await both(lb, pair, together)
                instance = lb.store.channel.rpartition(":")[2]
            found.append((answers, text_of(backend, f"{namespace}-{together}", instance)))
    assert found[0] == found[1]


def text_of(backend: Backend, namespace: str, instance: str) -> list[str]:
    """All that the store holds; the fences, all of them minted at NOON, by their order."""
    lines = []
    for key, value in dump(backend).items():
        if key.startswith(f"{{{namespace}:".encode()) and not key.endswith(b":fence"):
            lines += [f"{key!r} {field!r}" for field in (value.items() if isinstance(value, dict) else [value])]
    text = "\n".join(lines).replace(namespace, "NAMESPACE").replace(instance, "INSTANCE")
    fence = re.compile(rf"{NOON * 1000:.0f}[0-9]{{3}}")
    order = sorted({*fence.findall(text)})
    return sorted(fence.sub(lambda found: f"FENCE-{order.index(found[0])}", text).splitlines())
