"""Many jobs share one function: it is told whose run it is, and with which params; and each job says who declared it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lockbeat import Every, Fixed, Job, Lockbeat, Run, Task
from lockbeat.errors import Conflict, InvalidArgument, InvalidType
from lockbeat.jobs.options import MOST_PARAMS
from tests.beats import Beats, Hands, eventually, minutely, overdue, scheduler, states
from tests.conftest import only, wait_until

CUSTOMER = {"customer": 7, "tags": ["a", '"exclude":["x"]'], "overlap": "allow", "origin": "code"}


def report(name: str = "report", **options: Any) -> Job:
    return minutely(name, function="send", params=CUSTOMER, **options)


async def claimed(lb: Lockbeat) -> list[Task]:
    found: list[Task] = []
    for shard in range(lb.store.shards):
        tasks, *_ = await lb.tasks.claim_on(shard, ["default"], lb.owner, 10, 30_000)
        found += tasks
    return found


def what(task: Task) -> tuple[str, str, Any]:
    return task.job, task.name, task.params


async def test_a_slot_that_waits_for_a_worker_runs_the_jobs_function_with_its_params(lb: Lockbeat, raw: Any) -> None:
    slot = await overdue(lb, raw, report())
    await scheduler(lb).tick(lb.jobs.shard_of("report"))
    [task] = await claimed(lb)
    assert what(task) == ("report", "send", CUSTOMER)
    info = await lb.tasks.get(f"report@{slot}")
    assert (info.name, info.job, info.params) == ("send", "report", CUSTOMER)
    assert await lb.tasks.complete(task)
    assert await states(lb, "report") == ["done"]


async def test_a_slot_that_is_begun_where_it_is_fired_does_so_with_params_of_its_own(lb: Lockbeat, raw: Any) -> None:
    hands, job = Hands("report"), report()
    await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    [task] = hands.tasks
    assert what(task) == ("report", "send", CUSTOMER)
    task.params["customer"] = 8
    assert job.params == CUSTOMER, "a function may do with them what it likes"


async def test_what_is_tried_again_and_what_is_retried_by_hand_has_the_same_params(lb: Lockbeat, raw: Any) -> None:
    await overdue(lb, raw, report(max_attempts=2, retry=Fixed(0)))
    await scheduler(lb).tick(lb.jobs.shard_of("report"))
    for attempt in (1, 2):
        [task] = await claimed(lb)
        assert (task.attempt, *what(task)) == (attempt, "report", "send", CUSTOMER)
        assert await lb.tasks.fail(task, "broken")
    assert await lb.tasks.retry(task.id)
    [task] = await claimed(lb)
    assert what(task) == ("report", "send", CUSTOMER)


async def test_what_waits_in_line_has_its_params(lb: Lockbeat, raw: Any) -> None:
    job = report(overlap="buffer_all", catchup="all")
    await overdue(lb, raw, job, back=1)
    for _ in range(2):
        await scheduler(lb).tick(lb.jobs.shard_of("report"))
    for _ in range(2):
        [task] = await claimed(lb)
        assert what(task) == ("report", "send", CUSTOMER)
        assert await lb.tasks.complete(task)


@pytest.mark.parametrize(("given", "then"), [(None, CUSTOMER), ([1], [1]), (0, 0)])
async def test_a_triggered_run_has_the_jobs_params_unless_it_is_given_others(lb: Lockbeat, given: Any, then: Any) -> None:
    await lb.jobs.put(report())
    await lb.jobs.trigger("report", given)
    [task] = await claimed(lb)
    assert what(task) == ("report", "send", then)


@only("memory", "valkey")
async def test_many_jobs_share_one_function_async_or_not(beats: Beats, lb: Lockbeat) -> None:
    told: dict[str, Any] = {}
    beat = beats()

    @beat.task
    async def mail(run: Run) -> None:
        told[run.job] = run.name, run.params

    @beat.task
    def post(run: Run) -> None:
        told[run.job] = run.name, run.params

    @beat.every(1, params={"mine": True})
    async def own(run: Run) -> None:
        told[run.job] = run.name, run.params

    async with beat.lifespan():
        await beat.jobs.put(*(Job.declare(f"job {n}", Every(1), function=("mail", "post")[n % 2], params=n) for n in range(6)))
        await wait_until(lambda: len(told) == 7, "each job has run")
    assert told == {f"job {n}": (("mail", "post")[n % 2], n) for n in range(6)} | {"own": ("own", {"mine": True})}
    assert (await lb.jobs.get("own")).job.origin == "code"
    assert (await lb.jobs.get("job 1")).job.origin == "api"


@only("memory", "valkey")
async def test_a_job_whose_function_nobody_has_waits_and_is_run_when_somebody_comes_who_has_it(
    beats: Beats, lb: Lockbeat
) -> None:
    told: list[Any] = []
    await lb.jobs.put(Job.declare("report", Every(1), function="send", params=7))
    async with beats().lifespan():

        async def waits() -> bool:
            return bool(await lb.tasks.list(state="waiting"))

        await eventually(waits, "a slot is fired, and waits")
        newer = beats()

        @newer.task
        async def send(run: Run) -> None:
            told.append((run.job, run.params))

        async with newer.lifespan():
            await wait_until(lambda: told, "it is run")
    assert told[0] == ("report", 7)


# -- params


@pytest.mark.parametrize(
    ("params", "problem", "kind"),
    [
        ({1, 2}, "params: must be JSON", InvalidType),
        (float("nan"), "params: must be JSON", InvalidArgument),
        ({1: "a", "1": "b"}, "params: has keys that are the same in JSON", InvalidArgument),
        ("\ud800", "params: must be text that UTF-8 can carry", InvalidArgument),
        ("x" * MOST_PARAMS, "params: must be at most 16 KiB of JSON", InvalidArgument),
    ],
)
def test_params_that_are_no_json_or_too_long_are_refused(params: Any, problem: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=problem):
        Job.declare("report", Every(10), params=params)


def test_params_are_the_jobs_own_and_equal_ones_make_one_rev() -> None:
    params = {"b": [1], "a": 2.5}
    job = Job.declare("report", Every(10), params=params)
    params["b"] = "changed"
    assert job.params == {"a": 2.5, "b": [1]}
    assert job.rev == Job.declare("report", Every(10), params={"a": 2.5, "b": [1]}).rev
    again = Job.from_definition("report", job.stored)
    assert (again, again.rev, again.params) == (job, job.rev, job.params)


def test_an_older_version_is_told_that_it_lacks_what_names_a_function_or_params() -> None:
    options: Any
    for options in ({"function": "send"}, {"params": 7}, {"params": 0}):
        assert Job.declare("report", Every(10), **options).stored.startswith('{"needs":3,')
    for options in ({"function": "report"}, {"params": None}, {"origin": "billing"}):
        job = Job.declare("report", Every(10), **options)
        assert job.rev == Job.declare("report", Every(10)).rev
        assert "needs" not in json.loads(job.stored)


@pytest.mark.parametrize("word", ["", "two words", "a" * 101, "ünder", '"'])
def test_an_origin_is_a_word(word: str) -> None:
    with pytest.raises(InvalidArgument, match="origin: must be 1 to 100 letters"):
        Job.declare("report", Every(10), origin=word)


@pytest.mark.parametrize("said", ["function", "origin"])
def test_a_decorator_says_function_and_origin_itself(beats: Beats, said: str) -> None:
    options: Any = {said: "x"}
    with pytest.raises(InvalidArgument, match=f"{said}: is said by the decorator"):
        beats().every(10, **options)


# -- whose a job is


async def origin(lb: Lockbeat, name: str = "report") -> str | None:
    return (await lb.jobs.get(name)).job.origin


@pytest.mark.parametrize("options", [{}, {"function": "send", "params": 1}])
async def test_a_job_says_who_declared_it_and_what_it_does_is_the_same_whoever_did(lb: Lockbeat, options: Any) -> None:
    await lb.jobs.put(minutely("a", **options), minutely("b", origin="billing", **options))
    await scheduler(lb, minutely("c", **options)).register()
    assert [await origin(lb, name) for name in "abc"] == ["api", "billing", "code"]
    revs = {(await lb.jobs.get(name)).job.rev for name in "abc"}
    assert len(revs) == 1 or options


async def test_what_the_api_declared_is_not_taken_by_code_of_that_name(lb: Lockbeat, caplog: pytest.LogCaptureFixture) -> None:
    await lb.jobs.put(report())
    await scheduler(lb, minutely(priority=9), minutely("other")).register()
    state = await lb.jobs.get("report")
    assert (state.job.origin, state.job.function, state.job.priority) == ("api", "send", 0)
    assert await origin(lb, "other") == "code"
    assert "job 'report' of this program is left out: the name belongs to origin 'api'" in caplog.text
    assert "delete that one (lockbeat delete), by which its ledger is forgotten" in caplog.text


async def test_what_code_declared_is_not_taken_by_the_api(lb: Lockbeat) -> None:
    await scheduler(lb, minutely()).register()
    with pytest.raises(Conflict, match="job 'report' belongs to origin 'code'") as caught:
        await lb.jobs.put(minutely("other"), report(), minutely("report", origin="billing"))
    assert caught.value.jobs == ["report"]
    assert (await lb.jobs.get("report")).job == minutely()
    assert await origin(lb, "other") == "api"
    assert await lb.jobs.delete("report")
    await lb.jobs.put(report())
    assert await origin(lb) == "api"


@only("memory", "valkey", "redis")
async def test_a_job_of_no_origin_is_whoever_declares_its(lb: Lockbeat, raw: Any) -> None:
    """A version that knew of no origins wrote it."""
    job, key = minutely(), lb.store.keys.key(0, "job")
    await lb.jobs.put(job)
    slot = raw.hget(lb.store.keys.key(0, "job:slot"), "report")
    raw.hset(key, "report", f"{job.rev} {job.definition}")
    assert await origin(lb) is None
    await scheduler(lb, job).register()
    assert await origin(lb) == "code"
    assert raw.hget(lb.store.keys.key(0, "job:slot"), "report") == slot


async def test_the_words_of_params_and_descriptions_are_no_origin(lb: Lockbeat) -> None:
    await scheduler(lb, minutely(params={"origin": "api"}, description='{"origin":"api"')).register()
    await lb.jobs.put(minutely("b", params={"origin": "code"}, description='"needs":1,"origin":"code"'))
    with pytest.raises(Conflict):
        await lb.jobs.put(minutely())
    await scheduler(lb, minutely("b", priority=1)).register()
    assert (await origin(lb), await origin(lb, "b")) == ("code", "api")


@only("memory", "valkey")
async def test_whose_jobs_are_is_looked_at_where_only_digests_are_sent(lb: Lockbeat, raw: Any) -> None:
    """As when a program starts again with many jobs that stand as it declares them."""
    jobs = {f"job {n:03}": minutely(f"job {n:03}") for n in range(200)}
    await lb.jobs.put(*jobs.values())
    await scheduler(lb, *jobs.values()).register()
    assert {state.job.origin for state in await lb.jobs.list()} == {"api"}
    lines = {name: f"{job.rev} {job.definition}" for name, job in jobs.items()}
    raw.hset(lb.store.keys.key(0, "job"), mapping=lines)
    await scheduler(lb, *jobs.values()).register()
    assert {state.job.origin for state in await lb.jobs.list()} == {"code"}
