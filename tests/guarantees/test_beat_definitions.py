"""What a job is: data in the store. What changes with its definition, what does not, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat
from lockbeat.errors import DuplicateJob, InvalidArgument, InvalidTrigger, InvalidType, LockbeatError, UnknownJob
from lockbeat.jobs import Job, Slot, plan
from lockbeat.jobs.definition import READS
from lockbeat.triggers import At, Cron, Every
from tests.beats import Beats, Hands, eventually, ledger, minutely, now_ms, overdue, scheduler, states
from tests.conftest import Backend, Connect, only


async def test_a_job_begins_at_the_first_slot_after_now(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely(trigger=Every(60)))
    state, now = await lb.jobs.get("report"), await now_ms(lb)
    assert state.next is not None
    assert now < state.next.slot_ms <= now + 60_000
    assert state.next.slot_ms % 60_000 == 0, "counted from the epoch, not from the start of the program"
    assert await ledger(lb, "report") == []


async def test_a_restart_neither_shifts_slots_nor_fires(lb: Lockbeat, connect: Connect) -> None:
    job = minutely(trigger=Every(3600, datetime(2026, 1, 1, 0, 20, tzinfo=UTC)))
    await lb.jobs.put(job)
    before = await lb.jobs.get("report")
    assert before.next is not None
    assert before.next.slot_ms % 3_600_000 == 1_200_000
    for _ in range(3):
        async with connect() as again:
            beat = scheduler(again, job)
            await beat.register()
            await beat.tick(again.jobs.shard_of("report"))
            assert beat.fired == 0
    assert await lb.jobs.get("report") == before
    assert await ledger(lb, "report") == []


@pytest.mark.parametrize(
    "change",
    [{"overlap": "allow"}, {"lease": 9}, {"timeout": 3}, {"max_attempts": 4}, {"queue": "other"}, {"window": 70}, {"keep": 7}],
    ids=str,
)
async def test_a_change_that_leaves_the_trigger_keeps_the_slot(lb: Lockbeat, raw: Any, change: dict[str, Any]) -> None:
    slot = await overdue(lb, raw, minutely())
    await lb.jobs.put(changed := minutely(**change))
    state = await lb.jobs.get("report")
    assert state.job == changed
    assert state.next is not None
    assert state.next.slot_ms == slot
    assert await ledger(lb, "report") == []
    beat = scheduler(lb, changed)
    await beat.tick(lb.jobs.shard_of("report"))
    assert beat.fired == 1


@pytest.mark.parametrize("change", [{"trigger": Every(61)}, {"trigger": Cron("* * * * *")}, {"jitter": 1}], ids=str)
async def test_a_change_of_when_begins_anew_after_now(lb: Lockbeat, raw: Any, change: dict[str, Any]) -> None:
    slot = await overdue(lb, raw, minutely())
    await lb.jobs.put(changed := minutely(**change))
    state, now = await lb.jobs.get("report"), await now_ms(lb)
    assert state.next is not None
    assert state.next.slot_ms == changed.trigger.next(state.next.slot_ms - 1)
    assert now - 1000 < state.next.slot_ms <= now + 61_000
    assert [(entry.slot_ms, entry.state) for entry in await ledger(lb, "report")] == [(slot, "missed")]


async def test_an_instance_with_an_older_definition_fires_by_the_one_in_the_store(
    lb: Lockbeat, connect: Connect, raw: Any
) -> None:
    """A rolling deploy: the slots were reckoned by the new trigger."""
    old, new = minutely(), minutely(trigger=Every(3600), overlap="allow")
    await lb.jobs.put(old)
    async with connect() as deployed:
        slot = await overdue(deployed, raw, new)
        hands = Hands("report")
        beat = scheduler(lb, old, runner=hands)
        await beat.tick(lb.jobs.shard_of("report"))
        assert beat.fired == 1
        [task] = hands.tasks
        assert (task.slot_ms, task.lock) == (slot, "")
        state = await deployed.jobs.get("report")
        assert state.next is not None
        assert state.next.slot_ms == slot + 3_600_000


async def test_a_definition_that_is_too_new_to_be_read_is_left_to_newer_instances(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    key = lb.store.keys.key
    jobs = [minutely("newer"), minutely("garbage"), minutely("broken"), minutely("known")]
    for job in jobs:
        await overdue(lb, raw, job)
    shards = {name: lb.jobs.shard_of(name) for name in ("newer", "garbage", "broken", "known")}
    texts = {
        "newer": json.dumps({"needs": READS + 1} | json.loads(jobs[0].definition) | {"moon": "full"}),
        "garbage": "}{",
        "broken": "{}",
    }
    for name, text in texts.items():
        rev, slot = f"{name}.1", raw.hget(key(shards[name], "job:slot"), name).decode()
        raw.hset(key(shards[name], "job"), name, f"{rev} {text}")
        raw.hset(key(shards[name], "job:slot"), name, slot.rpartition(" ")[0] + f" {rev}")
    beat = scheduler(lb, jobs[3])
    for shard in range(lb.store.shards):
        await beat.tick(shard)
    assert beat.fired == 1
    assert await states(lb, "known") == ["fired"]
    assert "'newer' is left to newer instances" in caplog.text
    assert await states(lb, "newer") == []


async def test_a_slot_that_came_due_while_the_job_was_declared_is_not_fired_again(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance that was frozen between reckoning the first slot and declaring the job, while others fired that slot."""
    old, new = minutely(overlap="allow"), minutely(trigger=Every(30), overlap="allow")
    slot = await overdue(lb, raw, old)
    real, frozen = plan.first, [True]

    def first(job: Job, after_ms: int) -> Any:
        if frozen:
            frozen.pop()
            return Slot(slot, slot)
        return real(job, after_ms)

    beat = scheduler(lb, old)
    await beat.tick(lb.jobs.shard_of("report"))
    assert beat.fired == 1
    monkeypatch.setattr(plan, "first", first)
    late = scheduler(lb, new)
    await late.register()
    await late.tick(lb.jobs.shard_of("report"))
    assert late.fired == 0
    assert [(entry.slot_ms, entry.state) for entry in await ledger(lb, "report")] == [(slot, "fired")]
    state = await lb.jobs.get("report")
    assert state.next is not None
    assert state.next.slot_ms > slot


async def test_at_fires_once_and_never_again(lb: Lockbeat, connect: Connect) -> None:
    when = await now_ms(lb) + 100
    job = Job.declare("once", At(datetime.fromtimestamp(when / 1000, UTC)))
    await lb.jobs.put(job)
    shard, beat = lb.jobs.shard_of("once"), scheduler(lb, job)

    async def fired() -> bool:
        again = await beat.tick(shard)
        assert again is None or again <= 0.1
        return again is None

    await eventually(fired, "its time comes")
    assert beat.fired == 1
    assert [(entry.slot_ms, entry.state) for entry in await ledger(lb, "once")] == [(when, "fired")]
    assert (await lb.jobs.get("once")).next is None
    async with connect() as restarted:
        again = scheduler(restarted, job)
        await again.tick(shard)
        assert again.fired == 0


async def test_at_in_the_past_does_not_fire_when_first_declared(lb: Lockbeat) -> None:
    job = Job.declare("over", At(datetime(2020, 1, 1, tzinfo=UTC)))
    beat = scheduler(lb, job)
    await beat.register()
    assert (await lb.jobs.get("over")).next is None
    again = await beat.tick(lb.jobs.shard_of("over"))
    assert again is not None
    assert again > 6 * 86_400, "when it is forgotten"
    assert beat.fired == 0


async def test_what_is_deleted_is_gone_and_may_be_declared_again(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    await overdue(lb, raw, job, back=2)
    beat = scheduler(lb, job)
    shard = lb.jobs.shard_of("report")
    await beat.tick(shard)
    assert await lb.jobs.delete("report") is True
    assert await lb.jobs.delete("report") is False
    with pytest.raises(UnknownJob, match="report"):
        await lb.jobs.get("report")
    assert await lb.jobs.list() == []
    assert await ledger(lb, "report") == []
    assert await beat.tick(shard) is None
    await lb.jobs.put(job)
    assert [state.job for state in await lb.jobs.list()] == [job]


async def test_jitter_is_the_same_everywhere_and_stays_before_the_next_slot(lb: Lockbeat, connect: Connect) -> None:
    jobs = [minutely(f"job-{number}", jitter=600) for number in range(30)]
    await lb.jobs.put(*jobs)
    due = {}
    for state in await lb.jobs.list():
        assert state.next is not None
        slot = state.next.slot_ms
        assert slot <= state.next.due_ms < slot + 60_000
        due[state.job.name] = state.next
    assert len({slot.due_ms - slot.slot_ms for slot in due.values()}) > 20, "spread"
    async with connect() as other:
        for job in jobs:
            await other.jobs.delete(job.name)
        await other.jobs.put(*jobs)
        for state in await other.jobs.list():
            if state.next is not None and state.next.slot_ms == due[state.job.name].slot_ms:
                assert state.next == due[state.job.name]


async def test_next_tells_the_slots_to_come(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely())
    first, second, third = await lb.jobs.next("report", 3)
    assert (second - first, third - second) == (timedelta(minutes=1), timedelta(minutes=1))
    for n in (0, -1, 10_001, True, "3", 1.5):
        with pytest.raises(InvalidArgument, match=r"^n: "):
            await lb.jobs.next("report", n)  # type: ignore[arg-type]


async def test_the_list_comes_in_order_in_pages(lb: Lockbeat) -> None:
    names = sorted(f"job {number}" for number in range(450))
    await lb.jobs.put(*(minutely(name) for name in names))
    assert [state.job.name for state in await lb.jobs.list()] == names


async def test_jobs_of_a_beat_are_there_while_it_serves(beats: Beats) -> None:
    beat = beats()

    @beat.every(3600)
    async def hourly() -> None: ...

    with pytest.raises(LockbeatError, match="not serving"):
        _ = beat.jobs
    async with beat.lifespan():
        assert [state.job.name for state in await beat.jobs.list()] == ["hourly"]
        with pytest.raises(LockbeatError, match="serving already"):
            await beat.serve()
    with pytest.raises(LockbeatError, match="not serving"):
        _ = beat.jobs


async def test_a_beat_can_share_an_open_client(lb: Lockbeat) -> None:
    beat, ran = Beat(lb, grace=1), []

    @beat.every(0.2)
    async def often() -> None:
        ran.append(1)

    async with lb.lock("mine", ttl=30) as lease:
        async with beat.lifespan():

            async def done() -> bool:
                return "done" in await states(lb, "often")

            await eventually(done, "it runs")
        assert [held.fence for held in await lb.locks.list()] == [lease.fence], "its locks are not the beat's to release"


def cases() -> list[Any]:
    def case(name: str, argument: str, call: Callable[[Beat], object], error: type[Exception] = InvalidArgument) -> Any:
        return pytest.param(argument, call, error, id=name)

    def body() -> None: ...
    def two(a: object, b: object) -> None: ...
    def named(*, run: object) -> None: ...

    return [
        case("five fields", "expression", lambda beat: beat.cron("* * *"), InvalidTrigger),
        case("no such zone", "timezone", lambda beat: beat.cron("* * * * *", timezone="Mars/Phobos"), InvalidTrigger),
        case("period zero", "period", lambda beat: beat.every(0), InvalidTrigger),
        case("period nan", "period", lambda beat: beat.every(float("nan")), InvalidTrigger),
        case("period text", "period", lambda beat: beat.every("10"), InvalidTrigger),  # type: ignore[arg-type]
        case("naive at", "when", lambda beat: beat.at(datetime(2030, 1, 1)), InvalidTrigger),  # noqa: DTZ001, RUF100
        case("naive anchor", "anchor", lambda beat: beat.every(1, anchor=datetime(2030, 1, 1)), InvalidTrigger),
        case("empty name", "name", lambda beat: beat.every(1, name="")),
        case("long name", "name", lambda beat: beat.every(1, name="x" * 1025)),
        case("name no text", "name", lambda beat: beat.every(1, name=7), InvalidType),  # type: ignore[arg-type]
        case("surrogate", "name", lambda beat: beat.every(1, name="\ud800")),
        case("overlap", "overlap", lambda beat: beat.every(1, overlap="queue")),  # type: ignore[arg-type]
        case("overlap type", "overlap", lambda beat: beat.every(1, overlap=["skip"])),  # type: ignore[arg-type]
        case("catchup", "catchup", lambda beat: beat.every(1, catchup="never")),  # type: ignore[arg-type]
        case("lease", "lease", lambda beat: beat.every(1, lease=0)),
        case("lease type", "lease", lambda beat: beat.every(1, lease="5"), InvalidType),  # type: ignore[arg-type]
        case("timeout", "timeout", lambda beat: beat.every(1, timeout=0)),
        case("jitter", "jitter", lambda beat: beat.every(1, jitter=-1)),
        case("window", "window", lambda beat: beat.every(1, window=-1)),
        case("attempts", "max_attempts", lambda beat: beat.every(1, max_attempts=0)),
        case("attempts bool", "max_attempts", lambda beat: beat.every(1, max_attempts=True), InvalidType),
        case("attempts float", "max_attempts", lambda beat: beat.every(1, max_attempts=1.5), InvalidType),  # type: ignore[arg-type]
        case("retry", "retry", lambda beat: beat.every(1, retry=5), InvalidType),  # type: ignore[arg-type]
        case("priority", "priority", lambda beat: beat.every(1, priority=50)),
        case("keep", "keep", lambda beat: beat.every(1, keep=0)),
        case("queue", "queue", lambda beat: beat.every(1, queue="")),
        case("unknown option", "lese", lambda beat: beat.every(1, lese=5)),  # type: ignore[call-arg]
        case("not callable", "function", lambda beat: beat.every(1, name="x")(7), InvalidType),  # type: ignore[type-var]
        case("two arguments", "function", lambda beat: beat.every(1)(two)),  # type: ignore[type-var]
        case("keyword argument", "function", lambda beat: beat.every(1)(named)),  # type: ignore[type-var]
        case("twice", "name", lambda beat: (beat.every(1)(body), beat.every(2)(body)), DuplicateJob),
        case("nameless", "name", lambda beat: beat.every(1)(type("Task", (), {"__call__": lambda self: None})())),
    ]


@only("memory")
@pytest.mark.parametrize(("argument", "call", "error"), cases())
async def test_bad_input_is_one_line_that_names_the_argument(
    backend: Backend, beats: Beats, argument: str, call: Callable[[Beat], object], error: type[Exception]
) -> None:
    beat = beats()
    with pytest.raises(error) as caught:
        call(beat)
    text = str(caught.value)
    assert text.startswith(f"{argument}: ")
    assert "\n" not in text
    assert len(text) < 300
    assert isinstance(caught.value, (ValueError, TypeError))
    assert not [name for name in beat.declared if name != "body"]
    assert list(backend.client().scan_iter()) == [], "nothing is written"


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("concurrency", {"concurrency": 0}),
        ("concurrency", {"concurrency": "many"}),
        ("concurrency", {"concurrency": True}),
        ("queue", {"queue": ""}),
        ("grace", {"grace": -1}),
        ("grace", {"grace": "10"}),
    ],
)
def test_a_beat_refuses_what_it_cannot_do(argument: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=f"^{argument}: "):
        Beat("memory://", **options)


@only("memory")
async def test_the_store_refuses_what_is_no_job(lb: Lockbeat) -> None:
    with pytest.raises(InvalidType, match=r"^jobs: "):
        await lb.jobs.put("report")  # type: ignore[call-overload]
    for name in ("", 7):
        with pytest.raises(InvalidArgument, match=r"^name: "):
            await lb.jobs.get(name)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=r"^name: "):
            await lb.jobs.delete(name)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=r"^name: "):
            await lb.jobs.ledger(name)  # type: ignore[arg-type]
