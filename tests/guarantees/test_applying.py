"""Jobs made at run time: put as they are expected to be, applied as a set, and removed by nobody but their origin."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lockbeat import Applied, Cron, Every, Job, Lockbeat
from lockbeat.errors import Conflict, InvalidArgument, InvalidType, UnknownJob
from lockbeat.jobs import applying
from lockbeat.jobs.applying import Applying
from tests.beats import Hands, ledger, minutely, overdue, scheduler, shot
from tests.conftest import PATIENCE, Backend, Connect, only
from tests.tasks import dump

NAMES = ("a", "a b", "ab", "b", "é", "z", "日本")


def jobs(names: str | tuple[str, ...], **options: Any) -> list[Job]:
    return [minutely(name, function="send", params=name, **options) for name in names]


async def there(lb: Lockbeat) -> dict[str, str | None]:
    """The jobs of a store, and whose they are."""
    return {state.job.name: state.job.origin for state in await lb.jobs.list()}


def of(origin: str, names: Any) -> dict[str, str]:
    return dict.fromkeys(names, origin)


def counts(done: Applied) -> tuple[int, int, int, int]:
    return len(done.added), len(done.changed), len(done.removed), len(done.unchanged)


@pytest.fixture(params=[(applying.MOST, applying.LIGHT), (2, 1.0), (2, 0.5)], ids=["at once", "in steps", "in light steps"])
def most(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many jobs one run takes."""
    found, light = request.param
    monkeypatch.setattr(applying, "MOST", found)
    monkeypatch.setattr(applying, "LIGHT", light)
    return int(found)


# -- one job


async def test_a_job_is_put_by_its_name_and_says_what_became_of_it(lb: Lockbeat) -> None:
    every = minutely().trigger
    put = await lb.jobs.put("report", every, function="send", params={"customer": 7}, tags=["mail"])
    assert (put.outcome, put.job.origin) == ("added", "api")
    state = await lb.jobs.get("report")
    assert (state.job, state.rev) == (put.job, put.rev)
    assert (state.job.function, state.job.params, state.job.tags) == ("send", {"customer": 7}, ("mail",))
    assert (await lb.jobs.put("report", every, function="send", params={"customer": 7}, tags=["mail"])).outcome == "unchanged"
    changed = await lb.jobs.put("report", trigger=every, function="send", params={"customer": 8}, origin="api")
    assert (changed.outcome, changed.rev != put.rev) == ("changed", True)
    assert (await lb.jobs.get("report")).next == state.next, "the trigger is the same, and so is the slot"
    assert (await lb.jobs.put("by hand", None, function="send")).outcome == "added"
    assert str((await lb.jobs.get("by hand")).job.trigger) == "by hand"


async def test_if_rev_lets_one_of_two_writers_win(lb: Lockbeat, connect: Connect) -> None:
    first = await lb.jobs.put("report", Every(60), if_rev="")
    async with connect() as other:
        puts = (client.jobs.put("report", Every(60), priority=n, if_rev=first.rev) for n, client in enumerate((lb, other), 1))
        done = await asyncio.gather(*puts, return_exceptions=True)
    [won], [lost] = (
        [one for one in done if not isinstance(one, BaseException)],
        [one for one in done if isinstance(one, Conflict)],
    )
    state = await lb.jobs.get("report")
    assert (state.rev, state.job.priority) == (won.rev, won.job.priority)
    assert (str(lost), lost.jobs) == (f"job 'report' has rev '{won.rev}', not '{first.rev}'", ["report"])


async def test_if_rev_compares_and_changes_nothing_else(lb: Lockbeat) -> None:
    with pytest.raises(Conflict, match="job 'report' is not there, and should have rev 'x'"):
        await lb.jobs.put("report", Every(60), if_rev="x")
    assert await there(lb) == {}
    put = await lb.jobs.put("report", Every(60), if_rev="")
    with pytest.raises(Conflict, match=f"job 'report' is there already, with rev '{put.rev}'"):
        await lb.jobs.put("report", Every(90), if_rev="")
    state = await lb.jobs.get("report")
    assert state.job == Job.declare("report", Every(60))
    again = await lb.jobs.put(dataclasses.replace(state.job, priority=3), if_rev=state.rev)
    assert ((await lb.jobs.get("report")).job.priority, again.outcome) == (3, "changed")


async def test_what_another_origin_has_is_taken_over_by_name_only(lb: Lockbeat) -> None:
    await scheduler(lb, minutely()).register()
    for verb in (
        lambda: lb.jobs.put("report", Every(5)),
        lambda: lb.jobs.put("report", Every(5), origin="billing"),
        lambda: lb.jobs.apply([Job.declare("report", Every(5)), *jobs("ab")], origin="billing"),
    ):
        with pytest.raises(Conflict, match="job 'report' belongs to origin 'code'") as caught:
            await verb()
        assert caught.value.jobs == ["report"]
        assert await there(lb) == {"report": "code"}
        assert (await lb.jobs.get("report")).job == minutely()
    assert (await lb.jobs.put("report", minutely().trigger, take_over=True)).outcome == "changed"
    assert await there(lb) == {"report": "api"}
    done = await lb.jobs.apply([minutely()], origin="billing", take_over=True)
    assert (done.changed, await there(lb)) == (("report",), {"report": "billing"})
    assert (await lb.jobs.apply([], origin="api", prune=True)).removed == ()
    assert (await lb.jobs.apply([], origin="billing", prune=True)).removed == ("report",)


async def test_code_that_declares_what_was_taken_over_leaves_it(lb: Lockbeat) -> None:
    beat = scheduler(lb, minutely())
    await beat.register()
    await lb.jobs.put("report", Every(5), take_over=True)
    await beat.register()
    assert (await lb.jobs.get("report")).job == Job.declare("report", Every(5))


# -- a set


async def test_a_set_is_applied_and_what_the_origin_no_longer_has_is_removed(lb: Lockbeat, most: int) -> None:
    await scheduler(lb, minutely("code")).register()
    await lb.jobs.put(*jobs(("api 1", "a 1")))
    await lb.jobs.apply(jobs(("0", "bb", "other")), origin="other")
    assert counts(await lb.jobs.apply(jobs(NAMES), origin="billing", prune=True)) == (len(NAMES), 0, 0, 0)
    before = {state.job.name: state.next for state in await lb.jobs.list()}
    wanted = [*jobs(NAMES[1:3]), *jobs(NAMES[3:5], priority=7), *jobs(("new", "ü"))]
    for dry_run in (True, False):
        done = await lb.jobs.apply(wanted, origin="billing", prune=True, dry_run=dry_run)
        assert done == Applied("billing", ("new", "ü"), NAMES[3:5], ("a", "z", "日本"), NAMES[1:3], dry_run)
    theirs = {"code": "code"} | of("api", ("api 1", "a 1")) | of("other", ("0", "bb", "other"))
    assert await there(lb) == theirs | of("billing", (job.name for job in wanted))
    after = {state.job.name: state.next for state in await lb.jobs.list()}
    assert all(before[name] == after[name] for name in before.keys() & after.keys())
    assert counts(await lb.jobs.apply(wanted, origin="billing", prune=True)) == (0, 0, 0, 6)
    assert counts(await lb.jobs.apply([], origin="billing")) == (0, 0, 0, 0)
    assert counts(await lb.jobs.apply(iter(()), origin="billing", prune=True)) == (0, 0, 6, 0)
    assert await there(lb) == theirs


@only("valkey")
async def test_what_is_as_it_should_be_is_not_sent_again(lb: Lockbeat, raw: Any) -> None:
    many = [minutely(f"job-{n:03}", description="x" * 1000) for n in range(2 * applying.MOST)]
    await lb.jobs.apply(many, origin="billing", prune=True)
    before = raw.info("stats")["total_net_input_bytes"]
    changed = [minutely("job-007", description="x" * 1000, priority=1) if job.name == "job-007" else job for job in many]
    done = await lb.jobs.apply(changed, origin="billing", prune=True)
    assert (done.changed, len(done.unchanged)) == (("job-007",), len(many) - 1)
    assert raw.info("stats")["total_net_input_bytes"] - before < 200 * len(many)


async def test_what_another_changes_between_the_look_and_the_step_is_put_right(
    lb: Lockbeat, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was as it should be a moment ago, so its definition is not sent with the step: that says so, and is sent it then."""
    monkeypatch.setattr(applying, "MOST", 2)
    own, call = jobs(NAMES, priority=1), lb.store.call
    await lb.jobs.apply(own, origin="billing")
    async with connect() as other:

        async def between(name: str, shard: int, **args: Any) -> Any:
            if args.get("number") == 0:  # all was looked at
                await other.jobs.put(dataclasses.replace(own[0], priority=2, origin="billing"))
                await other.jobs.delete(own[1].name)
                await other.jobs.put("new", Every(60), origin="billing")
            return await call(name, shard, **args)

        monkeypatch.setattr(lb.store, "call", between)
        done = await lb.jobs.apply(own, origin="billing", prune=True)
    assert counts(done) == (1, 1, 1, len(own) - 2)
    found = {state.job.name: state.job for state in await lb.jobs.list()}
    assert found == {job.name: job for job in own}


@only("memory", "valkey")
async def test_a_dry_run_changes_nothing(lb: Lockbeat, backend: Backend, most: int) -> None:
    await lb.jobs.apply(jobs(NAMES), origin="billing")
    before = dump(backend)
    done = await lb.jobs.apply(jobs("xyz"), origin="billing", prune=True, dry_run=True)
    assert counts(done) == (2, 1, len(NAMES) - 1, 0) or counts(done) == (2, 0, len(NAMES) - 1, 1)
    assert dump(backend) == before


async def test_a_set_of_which_one_is_refused_changes_nothing(lb: Lockbeat, most: int) -> None:
    await lb.jobs.apply(jobs("mz"), origin="other")
    await lb.jobs.apply(jobs("ab"), origin="billing")
    with pytest.raises(Conflict, match="job 'm' belongs to origin 'other'; and 1 more") as caught:
        await lb.jobs.apply(jobs("bcdmxyz", priority=7), origin="billing", prune=True)
    assert caught.value.jobs == ["m", "z"]
    assert await there(lb) == of("other", "mz") | of("billing", "ab")
    assert {(await lb.jobs.get(name)).job.priority for name in "abmz"} == {0}


@pytest.mark.parametrize(
    ("given", "options", "problem"),
    [
        (["report"], {}, "jobs: must be Job, not str"),
        ("report", {}, "jobs: must be several jobs, not one str"),
        (lambda: None, {}, "jobs: must be several jobs, not NoneType"),
        (minutely, {}, "jobs: must be several jobs, not one Job"),
        (lambda: jobs("aba"), {}, "jobs: two of them are named 'a'"),
        (lambda: [minutely(origin="other")], {}, "jobs: 'report' says that it is of origin 'other', not 'billing'"),
        ([], {"origin": "code"}, "origin: must not be 'code'"),
        ([], {"origin": "two words"}, "origin: must be 1 to 100 letters"),
        ([], {"origin": 7}, "origin: must be a str"),
    ],
)
async def test_what_is_no_set_of_an_origin_is_refused(lb: Lockbeat, given: Any, options: dict[str, Any], problem: str) -> None:
    wanted = given() if callable(given) else given
    with pytest.raises((InvalidArgument, InvalidType), match=f"^{problem}"):
        await lb.jobs.apply(wanted, **({"origin": "billing"} | options))
    assert await there(lb) == {}


@pytest.mark.parametrize(
    ("verb", "problem"),
    [
        (lambda lb: lb.jobs.put("report", Every(5), function=""), "function: must not be empty"),
        (lambda lb: lb.jobs.put("report", Every(5), function=7), "function: must be a str"),
        (lambda lb: lb.jobs.put("report", Every(5), params={1, 2}), "params: must be JSON"),
        (lambda lb: lb.jobs.put("report", Every(5), origin="code"), "origin: must not be 'code'"),
        (lambda lb: lb.jobs.put("report", Every(5), if_rev=7), "if_rev: must be a str"),
        (lambda lb: lb.jobs.put("report", Every(5), parms=7), "parms: no such option of a job; did you mean 'params'"),
        (lambda lb: lb.jobs.put("report", "5 * * * *"), "trigger: must be a Cron"),
        (lambda lb: lb.jobs.put("report"), "jobs: must be jobs, or a name and a trigger"),
        (lambda lb: lb.jobs.put("report", Every(5), 7), "jobs: must be jobs, or a name and a trigger"),
        (lambda lb: lb.jobs.put(minutely(), params=7), "params: belongs to a job by its name"),
        (lambda lb: lb.jobs.put(minutely(), minutely("b"), if_rev=""), "if_rev: is for one job, not 2"),
        (lambda lb: lb.jobs.put_one("report"), "job: must be Job, not str"),
    ],
)
async def test_what_can_not_be_put_is_one_clear_error(
    lb: Lockbeat, verb: Callable[[Lockbeat], Awaitable[Any]], problem: str
) -> None:
    with pytest.raises((InvalidArgument, InvalidType), match=f"^{problem}"):
        await verb(lb)
    assert await there(lb) == {}


# -- what was removed


async def test_what_was_removed_is_fired_no_more_and_leaves_nothing_behind(lb: Lockbeat, raw: Any, most: int) -> None:
    slot = await overdue(lb, raw, job := minutely(origin="billing", overlap="buffer_all", catchup="all"), back=2)
    shard, hands = lb.jobs.shard_of("report"), Hands("report")
    for _ in range(3):
        await scheduler(lb, runner=hands).tick(shard)
    assert len(await ledger(lb, "report")) == 3
    await lb.jobs.put(*jobs(NAMES, origin="billing"))
    assert len((await lb.jobs.apply([], origin="billing", prune=True)).removed) == len(NAMES) + 1
    with pytest.raises(UnknownJob):
        await lb.jobs.get("report")
    assert await ledger(lb, "report") == []
    assert [info.state for info in await lb.tasks.list()] == ["running"], "what runs goes on"
    assert (await lb.store.call_row(shot(lb, job, slot + 60_000), shard)).fired == 0
    [task] = hands.tasks
    assert await lb.tasks.complete(task)
    assert await lb.tasks.list() == []
    for at in range(lb.store.shards):
        for key in ("job", "job:order", "job:due", "job:origin", "job:open", "job:counts", "ledger:order", "task"):
            assert not raw.exists(lb.store.keys.key(at, key)), key


async def test_what_a_removed_job_left_is_forgotten_though_whoever_removed_it_died(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await overdue(lb, raw, minutely(origin="billing"))
    await scheduler(lb).tick(shard := lb.jobs.shard_of("report"))
    with monkeypatch.context() as died:
        died.setattr(Applying, "forget_removed", lambda *_: asyncio.sleep(0))
        assert (await lb.jobs.apply([], origin="billing", prune=True)).removed == ("report",)
    assert len(await ledger(lb, "report")) == 1
    await scheduler(lb).register()
    assert await ledger(lb, "report") == []
    assert not raw.exists(lb.store.keys.key(shard, "job:origin"))


async def test_a_job_that_was_put_again_keeps_what_the_removed_one_left(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await overdue(lb, raw, minutely(origin="billing"))
    await scheduler(lb).tick(shard := lb.jobs.shard_of("report"))
    with monkeypatch.context() as died:
        died.setattr(Applying, "forget_removed", lambda *_: asyncio.sleep(0))
        await lb.jobs.apply([], origin="billing", prune=True)
    await lb.jobs.put("report", minutely().trigger)
    await lb.jobs.forget_removed(shard)
    assert len(await ledger(lb, "report")) == 1
    assert await there(lb) == {"report": "api"}


async def test_a_deleted_job_that_was_put_again_meanwhile_stays(lb: Lockbeat) -> None:
    """The reply to the deletion was lost, or it has more to forget: the same call comes again."""
    await lb.jobs.put("report", Every(60))
    shard, call = lb.jobs.shard_of("report"), lb.store.new_call()
    assert (await lb.store.call("job/delete", shard, job="report", limit=100, call=call, by="bob")).existed == 1
    await lb.jobs.put("report", Every(60))
    assert (await lb.store.call("job/delete", shard, job="report", limit=100, call=call, by="bob")).existed == 1
    assert await there(lb) == {"report": "api"}


# -- what was lost, and what older versions do


@only("memory", "valkey", "redis")
async def test_a_job_that_was_lost_from_its_origins_index_is_entered_again(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.apply(jobs("ab"), origin="billing")
    raw.delete(lb.store.keys.key(0, "job:origin"))
    assert counts(await lb.jobs.apply(jobs("ab"), origin="billing", prune=True)) == (0, 0, 0, 2)
    assert (await lb.jobs.apply([], origin="billing", prune=True)).removed == ("a", "b")


@only("memory", "valkey", "redis")
async def test_an_instance_that_sets_a_store_right_sets_right_whose_jobs_are(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.apply(jobs("ab"), origin="billing")
    await scheduler(lb, minutely("code")).register()
    raw.delete(*(lb.store.keys.key(0, key) for key in ("job:origin", "job:due")))
    beat = scheduler(lb)
    await beat.tick(0)
    assert (await lb.jobs.apply([], origin="billing", prune=True)).removed == ("a", "b")


@only("memory", "valkey", "redis")
async def test_the_index_is_a_hint_and_the_definition_says_whose_a_job_is(lb: Lockbeat, raw: Any, most: int) -> None:
    """An older version has deleted one, and declared another of its own."""
    await lb.jobs.apply(jobs("abcdef"), origin="billing")
    key = lb.store.keys.key
    for name in "abc":
        raw.hset(key(0, "job"), name, f"{minutely(name).rev} {minutely(name).definition}")
    raw.hdel(key(0, "job"), "d")
    assert (await lb.jobs.apply([], origin="billing", prune=True, dry_run=True)).removed == ("e", "f")
    assert (await lb.jobs.apply([], origin="billing", prune=True)).removed == ("e", "f")
    assert {name: origin for name, origin in (await there(lb)).items() if name in "abc"} == dict.fromkeys("abc")
    assert raw.zrange(key(0, "job:origin"), 0, -1) == []


# -- several at a time


async def test_of_two_applies_of_an_origin_the_later_counts(
    lb: Lockbeat, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "MOST", 2)
    monkeypatch.setattr(applying, "ABREAST", 1)
    old, new = jobs("abcdefgh"), jobs("bdxyz", priority=7)
    async with connect() as other:
        step, calls = lb.jobs._step, 0

        async def overtaken(*args: Any) -> Any:
            nonlocal calls
            way = args[1]
            calls += way.number > 0
            if calls == 3:
                await other.jobs.apply(new, origin="billing", prune=True)
            return await step(*args)

        monkeypatch.setattr(lb.jobs, "_step", overtaken)
        with pytest.raises(Conflict, match="a later apply of origin 'billing' has begun, of another set"):
            await lb.jobs.apply(old, origin="billing", prune=True)
    assert await there(lb) == of("billing", "bdxyz")
    assert {state.job.priority for state in await lb.jobs.list()} == {7}


async def test_of_many_writers_at_once_one_set_stands(lb: Lockbeat, connect: Connect, most: int) -> None:
    sets = [jobs(NAMES[n : n + 3], priority=n) for n in range(5)]
    async with connect() as other:
        clients = [lb, other] * 3
        applies = [client.jobs.apply(wanted, origin="billing", prune=True) for client, wanted in zip(clients, sets, strict=False)]
        done = await asyncio.gather(*applies, return_exceptions=True)
    assert all(isinstance(one, (Applied, Conflict)) for one in done), done
    found = [state.job for state in await lb.jobs.list()]
    assert sorted(found, key=lambda job: job.name) in [sorted(wanted, key=lambda job: job.name) for wanted in sets]


@only("valkey", "redis")
async def test_instances_that_sleep_are_told_of_a_job_that_is_applied(lb: Lockbeat, raw: Any) -> None:
    with raw.pubsub() as heard:
        heard.subscribe(lb.store.bell(0))
        assert heard.get_message(timeout=PATIENCE)["type"] == "subscribe"
        await lb.jobs.apply([Job.declare("tick", Every(1)), Job.declare("daily", Cron("0 0 * * *"))], origin="billing")
        assert heard.get_message(timeout=PATIENCE)["data"] == b"job"
        assert (await lb.jobs.apply([Job.declare("tick", Every(1))], origin="billing")).unchanged == ("tick",)
        assert heard.get_message() is None, "nothing comes due sooner"
