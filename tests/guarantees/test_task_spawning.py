"""How tasks are declared, and spawned by their functions."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Beat, Fixed, Lockbeat, LockbeatError, Run
from lockbeat.errors import DuplicateJob, InvalidArgument, InvalidType, UnknownTask
from tests.beats import Beats
from tests.conftest import wait_until
from tests.tasks import end_of


async def test_the_decorators_options_are_what_spawn_takes_for_granted(lb: Lockbeat, beats: Beats) -> None:
    beat = beats()
    options: dict[str, Any] = {
        "queue": "mail", "max_attempts": 7, "retry": Fixed(9), "priority": 3, "delay": 50, "headers": {"a": 1},
        "max_delay": 70, "max_duration": 80, "retention": 90,
    }  # fmt: skip

    @beat.task(name="named", timeout=5, **options)
    async def job() -> None: ...

    async with beat.lifespan():
        info = await lb.tasks.get((await beat.spawn(job)).task_id)
        assert (info.name, info.queue, info.max_attempts, info.priority, info.headers) == ("named", "mail", 7, 3, {"a": 1})
        assert round((info.due_at or 0) - (info.spawned_at or 0), 3) == 50
        other = await lb.tasks.get((await beat.spawn("named", 5, queue="sms", max_attempts=1, headers=None, delay=60)).task_id)
        assert (other.queue, other.max_attempts, other.priority, other.headers, other.params) == ("sms", 1, 3, {}, 5)
        assert round((other.due_at or 0) - (other.spawned_at or 0), 3) == 60


async def test_a_bare_decorator_and_one_with_options_return_the_function(beats: Beats) -> None:
    beat = beats(queue="ours")

    async def one() -> int:
        return 1

    def two(run: Run) -> int:
        return 2

    assert beat.task(one) is one
    assert beat.task(max_attempts=2)(two) is two
    async with beat.lifespan(work=False):
        assert (await beat.jobs.list()) == []
        for function in (one, two):
            spawned = await beat.spawn(function)
            assert spawned.created
            assert beat._client is not None
            assert (await beat._client.tasks.get(spawned.task_id)).queue == "ours", "the beat's own queue"


@pytest.mark.parametrize(
    ("options", "argument", "words"),
    [
        ({"max_atempts": 3}, "max_atempts", "did you mean 'max_attempts'"),
        ({"nonsense": 3}, "nonsense", "no such option"),
        ({"max_attempts": 0}, "max_attempts", "between 1 and 1000"),
        ({"priority": 50}, "priority", "between -49 and 49"),
        ({"retry": 3}, "retry", "must be Fixed or Exponential"),
        ({"timeout": 0}, "timeout", "timeout"),
        ({"timeout": "soon"}, "timeout", "timeout"),
        ({"queue": ""}, "queue", "queue"),
        ({"name": ""}, "name", "name"),
        ({"max_delay": -1}, "max_delay", "max_delay"),
        ({"retention": -1}, "retention", "retention"),
        ({"delay": None}, "delay", "delay"),
        ({"headers": [1]}, "headers", "must be a dict"),
        ({"idempotency_key": "same"}, "idempotency_key", "idempotency_key"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_named_on_the_decorators_line(options: dict[str, Any], argument: str, words: str) -> None:
    """An idempotency key is wrong there as well: all calls of the function would be one task."""
    with pytest.raises(InvalidArgument, match=words) as caught:
        Beat().task(**options)
    assert caught.value.argument == argument


def test_what_can_not_be_a_task_is_refused_where_it_is_declared() -> None:
    beat = Beat()

    def two_needed(a: Any, b: Any) -> None: ...

    def generator() -> Any:
        yield 1

    wrongs: list[Any] = [two_needed, generator, lambda: None]
    for wrong in wrongs:
        with pytest.raises(InvalidArgument):
            beat.task(wrong)
    with pytest.raises(InvalidType, match="callable"):
        beat.task("job")  # type: ignore[call-overload]
    beat.task(name="said")(lambda: None)
    with pytest.raises(DuplicateJob):
        beat.task(name="said")(lambda: None)


def test_a_name_is_given_once_to_a_task_or_a_job() -> None:
    beat = Beat()

    @beat.task
    async def mail() -> None: ...

    @beat.every(60)
    async def report() -> None: ...

    with pytest.raises(DuplicateJob, match="'mail'"):
        beat.task(mail)
    with pytest.raises(DuplicateJob, match="'mail'"):
        beat.every(60, name="mail")(report)
    with pytest.raises(DuplicateJob, match="'report'"):
        beat.task(report)
    assert list(beat.declared) == ["report"]


async def test_spawning_what_was_not_declared_is_refused(beats: Beats, lb: Lockbeat) -> None:
    beat = beats()

    async def stranger() -> None: ...

    @beat.every(3600)
    async def job() -> None: ...

    async with beat.lifespan():
        for unknown in ("nobody", stranger, job, "job"):
            with pytest.raises(UnknownTask, match=r"was not declared by @beat\.task"):
                await beat.spawn(unknown)
        with pytest.raises(InvalidArgument, match="max_atempts: no such option"):
            beat.task(name="known")(stranger)
            await beat.spawn("known", max_atempts=1)  # type: ignore[call-arg]
    assert await lb.tasks.list() == []


async def test_a_function_is_spawned_by_itself_whatever_its_name(beats: Beats, lb: Lockbeat) -> None:
    class Mailer:
        async def send(self, run: Run) -> str:
            return "sent"

    beat, mailer = beats(), Mailer()
    beat.task(name="mail")(mailer.send)
    async with beat.lifespan():
        info = await end_of(lb, (await beat.spawn(mailer.send)).task_id)
    assert (info.name, info.result) == ("mail", "sent")


async def test_spawning_outside_of_serving_says_what_to_use_instead(beats: Beats, lb: Lockbeat) -> None:
    beat = beats()

    @beat.task
    async def job() -> None: ...

    with pytest.raises(LockbeatError, match=r"not serving: use `lb\.tasks\.spawn`"):
        await beat.spawn(job)
    async with beat.lifespan():
        await beat.spawn(job)
    with pytest.raises(LockbeatError, match="not serving"):
        await beat.spawn(job)
    shared = Beat(lb)
    shared.task(job)
    assert (await shared.spawn(job)).created, "a beat made with an open Lockbeat needs no serving"


async def test_a_function_may_spawn_others(beats: Beats, lb: Lockbeat) -> None:
    beat, leaves = beats(), []

    @beat.task
    async def tree(run: Run) -> None:
        leaves.append(run.params)
        if run.params < 3:
            for _ in range(2):
                await beat.spawn(tree, run.params + 1)

    async with beat.lifespan():
        await beat.spawn(tree, 0)
        await wait_until(lambda: len(leaves) == 15, "all of them run")
    assert sorted(leaves) == [0] + [1] * 2 + [2] * 4 + [3] * 8
