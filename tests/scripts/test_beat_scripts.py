"""The scripts of the beat, called straight: what each returns, and what it leaves in the store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.jobs import Job
from lockbeat.jobs.definition import READS
from lockbeat.store import results
from lockbeat.triggers import Every
from tests.beats import backdate, eventually, held_by, ledger, minutely, now_ms, shot, states, tasks_of
from tests.conftest import only

MINUTE = 60_000
NOT_YOURS = results.NOT_YOURS


class Bench:
    """One job whose slot has come due, and the calls that a scheduler and a worker would make."""

    def __init__(self, lb: Lockbeat, raw: Any, job: Job) -> None:
        self.lb = lb
        self.raw = raw
        self.job = job
        self.shard = lb.jobs.shard_of(job.name)
        self.slot = 0

    async def due(self, slot: int | None = None) -> None:
        """Let a slot be due; by default the last full minute."""
        await self.lb.jobs.put(self.job)
        self.slot = (await now_ms(self.lb)) // MINUTE * MINUTE if slot is None else slot
        await backdate(self.lb, self.raw, self.job.name, self.slot)

    async def call(self, script: str, **args: Any) -> Any:
        return await self.lb.store.call(script, self.shard, **args)

    async def fire(self, *, owner: str = "o", call: str = "c", lease_ms: int = 0, **changes: Any) -> Any:
        """beat/fire for the slot that is due."""
        row = shot(self.lb, self.job, self.slot, **{"owner": owner, "call": call, "lease_ms": lease_ms} | changes)
        return await self.lb.store.call_row(row, self.shard)

    async def next(self) -> int | None:
        state = await self.lb.jobs.get(self.job.name)
        return state.next.slot_ms if state.next else None

    @property
    def id(self) -> str:
        return f"{self.job.name}@{self.slot}"


@pytest.fixture
async def bench(lb: Lockbeat, raw: Any) -> Bench:
    made = Bench(lb, raw, minutely())
    await made.due()
    return made


# beat/due


async def test_due_tells_the_time_the_epoch_and_what_is_next(lb: Lockbeat, raw: Any) -> None:
    now, epoch, following, _, odd, _ = await lb.store.call("beat/due", 0, limit=10, hide_ms=300, seen="")
    assert odd == 0
    assert abs(now - await now_ms(lb)) < 1000
    assert (epoch, following) == (0, 0), "an empty store"
    names = [f"job-{number}" for number in range(12)]
    await lb.jobs.put(*(minutely(name) for name in names))
    for shard in range(lb.store.shards):
        _, epoch, following, _, odd, rows = await lb.store.call("beat/due", shard, limit=10, hide_ms=300, seen="")
        assert odd == 0
        assert epoch > 0
        assert rows == []
        assert now < following <= now + MINUTE + 1000


async def test_due_hands_out_the_longest_due_first_up_to_its_limit(lb: Lockbeat, raw: Any) -> None:
    names = [f"job-{number}" for number in range(9)]
    await lb.jobs.put(*(minutely(name) for name in names))
    now = await now_ms(lb)
    wanted: dict[int, list[bytes]] = {}
    for number, name in enumerate(names):
        await backdate(lb, raw, name, now - 1000 * (number + 1))
        wanted.setdefault(lb.jobs.shard_of(name), []).insert(0, name.encode())
    for shard, mine in wanted.items():
        _, _, following, _, _, rows = await lb.store.call("beat/due", shard, limit=2, hide_ms=300, seen="")
        assert rows[::2] == mine[:2]
        if len(mine) > 2:
            assert following <= now, "there are more"


async def test_due_forgets_a_job_that_has_no_slot(bench: Bench) -> None:
    bench.raw.hdel(bench.lb.store.keys.key(bench.shard, "job:slot"), "report")
    assert (await bench.call("beat/due", limit=10, hide_ms=300, seen="")).jobs == []
    assert bench.raw.zcard(bench.lb.store.keys.key(bench.shard, "job:due")) == 0


# beat/fire


async def test_fire_into_the_queue(bench: Bench) -> None:
    code, fence, expires, now = await bench.fire()
    assert (code, fence, expires) == (results.WAITING, 0, 0)
    assert abs(now - await now_ms(bench.lb)) < 1000
    assert tasks_of(bench.raw, bench.lb) == [bench.id]
    assert await bench.next() == bench.slot + MINUTE
    assert await states(bench.lb, "report") == ["fired"]


async def test_fire_and_start(bench: Bench) -> None:
    code, fence, expires, now = await bench.fire(lease_ms=5000)
    assert code == results.STARTED
    assert expires == now + 5000
    assert fence > now * 1000 - 10**6
    assert len(held_by(bench.raw, bench.lb.store, "o")) == 1, "the job's lock is the attempt's lease"
    [lease] = await bench.lb.locks.list()
    assert (lease.key, lease.fence, round(lease.expires_at * 1000)) == ("job:report", fence, expires)


@pytest.mark.parametrize("lease_ms", [0, 5000])
async def test_fire_refuses_another_slot_than_the_expected_one(bench: Bench, lease_ms: int) -> None:
    other = bench.slot - MINUTE
    reply = await bench.fire(expected=f"{other} {other} {bench.job.rev}", slot=other, lease_ms=lease_ms)
    assert reply[:3] == (0, 0, 0)
    assert await bench.next() == bench.slot
    assert tasks_of(bench.raw, bench.lb) == []
    assert await states(bench.lb, "report") == []


@pytest.mark.parametrize("lease_ms", [0, 5000])
async def test_fire_refuses_a_slot_whose_time_has_not_come(bench: Bench, lease_ms: int) -> None:
    await bench.due(bench.slot + 10 * MINUTE)
    assert (await bench.fire(lease_ms=lease_ms))[0] == 0
    assert await bench.next() == bench.slot
    assert tasks_of(bench.raw, bench.lb) == []


async def test_fire_of_a_job_that_is_gone_does_nothing(bench: Bench) -> None:
    await bench.lb.jobs.delete("report")
    assert (await bench.fire(lease_ms=5000))[0] == 0
    assert tasks_of(bench.raw, bench.lb) == []


async def test_the_same_call_again_gets_its_attempt_again_and_another_does_not(bench: Bench) -> None:
    first = await bench.fire(lease_ms=5000, call="mine")
    again = await bench.fire(lease_ms=5000, call="mine")
    assert again[:3] == first[:3]
    assert (await bench.fire(lease_ms=5000, call="other"))[0] == 0
    assert (await bench.fire(lease_ms=5000, call="mine", owner="p"))[0] == 0
    assert tasks_of(bench.raw, bench.lb) == [bench.id]


async def test_fire_of_the_last_slot_ends_the_job(bench: Bench) -> None:
    assert (await bench.fire(next=""))[0] == results.WAITING
    assert await bench.next() is None
    assert (await bench.call("beat/due", limit=10, hide_ms=300, seen="")).jobs == []


async def test_a_batch_decides_each_job_by_itself(lb: Lockbeat, raw: Any) -> None:
    names = [name for name in (f"job-{number}" for number in range(60)) if lb.jobs.shard_of(name) == 0][:6]
    benches = [Bench(lb, raw, minutely(name)) for name in names]
    rows = []
    for number, made in enumerate(benches):
        await made.due()
        saw = made.slot - (number % 2)
        rows.append(shot(lb, made.job, made.slot, expected=f"{saw} {saw} {made.job.rev}", lease_ms=5000, call=f"c{number}"))
    replies = await lb.store.call_many(rows, 0)
    assert [reply[0] for reply in replies] == [results.STARTED, results.NO] * 3
    fences = [reply[1] for reply in replies if reply[0]]
    assert fences == sorted(set(fences))
    assert tasks_of(raw, lb) == sorted(made.id for made in benches[::2])


@only("valkey", "redis", "cluster")
async def test_the_fields_of_many_jobs_are_found_by_hashing(lb: Lockbeat, raw: Any) -> None:
    names = [name for name in (f"job-{number}" for number in range(90)) if lb.jobs.shard_of(name) == 0][:8]
    benches = [Bench(lb, raw, minutely(name)) for name in names]
    for made in benches:
        await made.due()
    replies = await lb.store.call_many([shot(lb, made.job, made.slot) for made in benches], 0)
    assert [reply.fired for reply in replies] == [results.WAITING] * 8
    for name in ("job:slot", "job:open", "job:counts"):
        assert raw.object("encoding", lb.store.keys.key(0, name)) == b"hashtable", name


# task/claim, complete, fail, release, renew


async def claim_from(bench: Bench, queues: list[str], **changes: Any) -> list[Any]:
    given = {"owner": "w", "call": "k", "limit": 10, "lease_ms": 5000, "lost": [], "strangers": [], "running": []}
    reply = await bench.call("task/claim", queues=queues, after="{}", clock_ms=0, **(given | changes))
    return list(reply.tasks)


async def renewal(bench: Bench, fence: int) -> Any:
    return await bench.call("task/renew", id=bench.id, owner="o", fence=fence, lease_ms=5000, lock="job:report")


async def claim(bench: Bench, owner: str = "w", call: str = "k", limit: int = 10, repeated: int = 0) -> list[Any]:
    """The rows of a claim."""
    lost = [call] if repeated else []
    return await claim_from(bench, ["default"], owner=owner, call=call, limit=limit, lost=lost)


async def test_claim_leases_for_as_long_as_the_task_says(lb: Lockbeat, raw: Any) -> None:
    """Not for as long as the caller would: the keeper renews by the task's own lease."""
    bench = Bench(lb, raw, minutely(lease=60))
    await bench.due()
    await bench.fire()
    [[task_id, _, record, attempt, fence, expires, *_]] = await claim(bench)
    assert (task_id.decode(), attempt) == (bench.id, 1)
    assert json.loads(record)["lease_ms"] == 60_000
    assert expires > await now_ms(lb) + 55_000
    [lease] = await lb.locks.list()
    assert (lease.fence, round(lease.expires_at * 1000)) == (fence, expires)


async def test_claim_again_by_the_same_call_gets_the_same_attempts(bench: Bench) -> None:
    await bench.fire()
    first = await claim(bench)
    assert await claim(bench, repeated=1) == first
    assert await claim(bench, call="other", repeated=1) == []
    assert await claim(bench, owner="x", repeated=1) == []


async def test_claim_takes_the_most_urgent_and_then_the_longest_due(lb: Lockbeat, raw: Any) -> None:
    names = [name for name in (f"job-{number}" for number in range(60)) if lb.jobs.shard_of(name) == 0][:6]
    for number, name in enumerate(names):
        made = Bench(lb, raw, minutely(name, priority=(0, 0, 5, 0, -5, 49)[number]))
        await made.due((await now_ms(lb)) - (1000, 3000, 0, 2000, 9000, 0)[number])
        await made.fire()
    order = [names.index(row[0].decode().partition("@")[0]) for row in await claim(made)]
    assert order == [5, 2, 1, 3, 0, 4]


@pytest.mark.parametrize("queue", ["default", "x", "default\n", "d"])
async def test_queues_are_kept_apart(bench: Bench, queue: str) -> None:
    await bench.fire()
    assert len(await claim_from(bench, [queue])) == (1 if queue == "default" else 0)


@pytest.mark.parametrize(("owner", "shift"), [("o", 1), ("o", -1), ("p", 0)])
async def test_only_the_newest_attempt_ends_renews_or_gives_back(bench: Bench, owner: str, shift: int) -> None:
    _, fence, *_ = await bench.fire(lease_ms=5000)
    stale = fence + shift
    no: dict[str, Any] = {"error": "no", "failure": "{}", "retry_at": -1, "call": "c"}
    assert await bench.call("task/renew", id=bench.id, owner=owner, fence=stale, lease_ms=5000, lock="job:report") == NOT_YOURS
    assert await bench.call("task/complete", id=bench.id, owner=owner, fence=stale, result="") == NOT_YOURS
    assert await bench.call("task/fail", id=bench.id, owner=owner, fence=stale, **no) == NOT_YOURS
    assert await bench.call("task/release", id=bench.id, owner=owner, fence=stale, begun=0, delay_ms=0, call="c") == NOT_YOURS
    assert await states(bench.lb, "report") == ["fired"]
    assert await bench.call("task/renew", id=bench.id, owner="o", fence=fence, lease_ms=5000, lock="job:report") > 0
    assert await bench.call("task/complete", id=bench.id, owner="o", fence=fence, result="") == 1
    assert await bench.call("task/complete", id=bench.id, owner="o", fence=fence, result="") == 1, "the same call, repeated"
    answers = (results.DONE, NOT_YOURS) if shift == 0 else (NOT_YOURS,)
    assert await bench.call("task/complete", id=bench.id, owner=owner, fence=stale, result="") in answers


async def test_renewing_sets_the_task_and_the_lock_anew_and_revives_neither(bench: Bench) -> None:
    _, fence, *_ = await bench.fire(lease_ms=5000)
    until = await bench.call("task/renew", id=bench.id, owner="o", fence=fence, lease_ms=1500, lock="job:report")
    [lease] = await bench.lb.locks.list()
    assert round(lease.expires_at * 1000) == until

    async def over() -> bool:
        return not await bench.lb.locks.is_locked("job:report")

    await eventually(over, "it ends")
    assert await renewal(bench, fence) == results.EXPIRED
    assert not await bench.lb.locks.is_locked("job:report")


async def test_an_expired_attempt_without_a_lock_is_not_revived_either(lb: Lockbeat, raw: Any) -> None:
    bench = Bench(lb, raw, minutely(overlap="allow"))
    await bench.due()
    _, fence, *_ = await bench.fire(lease_ms=5000)

    async def over() -> bool:
        return await now_ms(lb) >= int(expires)

    expires = await bench.call("task/renew", id=bench.id, owner="o", fence=fence, lease_ms=30, lock="")
    assert expires > 0
    await eventually(over, "it ends")
    assert await bench.call("task/renew", id=bench.id, owner="o", fence=fence, lease_ms=5000, lock="") == results.EXPIRED


async def test_the_work_counts_though_its_lease_had_ended_if_nobody_took_over(bench: Bench) -> None:
    _, fence, *_ = await bench.fire(lease_ms=1)

    async def over() -> bool:
        return not await bench.lb.locks.is_locked("job:report")

    await eventually(over, "it ends")
    assert await bench.call("task/complete", id=bench.id, owner="o", fence=fence, result="") == 1
    assert await states(bench.lb, "report") == ["done"]


async def test_the_verbs_of_locks_leave_a_jobs_attempt_alone(bench: Bench) -> None:
    """It is leased as the lock `job:NAME`, and ends by the verbs of tasks."""
    _, fence, *_ = await bench.fire(lease_ms=5000)
    assert not await bench.lb.locks.release("job:report", "o")
    assert not await bench.lb.locks.renew("job:report", "o", 60)
    assert await bench.lb.locks.release_all("o") == 0
    assert await bench.lb.locks.try_acquire("job:report", "x", 5) is None
    assert await bench.lb.tasks.cancel(bench.id)
    assert await renewal(bench, fence) == results.CANCELLED


async def test_a_renewal_does_not_outlive_the_jobs_lock(bench: Bench) -> None:
    """Somebody took the lock away by hand: the attempt is to stop."""
    _, fence, *_ = await bench.fire(lease_ms=5000)
    assert await renewal(bench, fence) > 0
    for key in ("lock", "lock:live"):
        bench.raw.delete(bench.lb.store.keys.key(bench.shard, key))
    assert await renewal(bench, fence) == results.EXPIRED


@pytest.mark.parametrize("begun", [0, 1])
async def test_released_before_it_began_it_waits_again_else_that_was_its_only_attempt(bench: Bench, begun: int) -> None:
    _, fence, *_ = await bench.fire(lease_ms=5000)
    said = await bench.call("task/release", id=bench.id, owner="o", fence=fence, begun=begun, delay_ms=0, call="c")
    assert said == (results.FINISHED if begun else results.WAITING)
    rows = await claim(bench)
    assert [(row[0].decode(), row[3]) for row in rows] == ([] if begun else [(bench.id, 1)])
    assert (await states(bench.lb, "report")) == (["failed"] if begun else ["fired"])


async def test_release_all_is_exact(lb: Lockbeat, raw: Any) -> None:
    names = [name for name in (f"job-{number}" for number in range(60)) if lb.jobs.shard_of(name) == 0][:6]
    for number, name in enumerate(names):
        made = Bench(lb, raw, minutely(name))
        await made.due()
        said, *_ = await made.fire(lease_ms=5000, owner=("alice", "bob", "alic")[number % 3], call=f"c{number}")
        assert said == results.STARTED
    assert await lb.tasks.release_all("alice") == 2
    assert await lb.tasks.release_all("alice") == 0
    assert held_by(raw, lb.store, "alice") == []
    assert len(held_by(raw, lb.store, "bob")) == len(held_by(raw, lb.store, "alic")) == 2
    assert [await states(lb, name) for name in names] == [["lost"], ["fired"], ["fired"]] * 2


# job/put and the rest


async def test_put_says_what_it_found(lb: Lockbeat) -> None:
    job = minutely()
    shard = lb.jobs.shard_of("report")
    far = 4_000_000_000_000

    async def put(given: Job) -> int:
        args: dict[str, Any] = {
            "rev": given.rev,
            "definition": given.definition,
            "keep": given.keeps,
            "rules": "-",
            "reads": READS,
            "limit": 0,
            "by": "anna",
        }
        reply = await lb.store.call("job/put", shard, job=given.name, slot=far, due=far, since=0, version="", **args)
        assert reply.epoch > 0
        return int(reply.code)

    assert [await put(job), await put(job)] == [results.NEW, results.NO]
    assert [await put(minutely(lease=9)), await put(minutely(lease=9)), await put(minutely(trigger=Every(9)))] == [
        results.CHANGED,
        results.NO,
        results.CHANGED,
    ]


@pytest.mark.parametrize("known", [False, True])
async def test_put_refuses_a_first_slot_that_has_come_due_on_the_way(lb: Lockbeat, raw: Any, known: bool) -> None:
    """Another instance may have fired it by the definition before, or before the store was emptied."""
    job, shard = minutely(trigger=Every(30)), lb.jobs.shard_of("report")
    if known:
        await lb.jobs.put(minutely())
    before = await lb.jobs.list()
    late = await now_ms(lb)
    args: dict[str, Any] = {
        "rev": job.rev,
        "definition": job.with_origin("api").stored,
        "keep": job.keeps,
        "rules": "-",
        "reads": READS,
        "limit": 0,
        "by": "anna",
    }
    reply = await lb.store.call("job/put", shard, job=job.name, slot=late, due=late, since=0, version="", **args)
    assert reply.code == results.TOO_LATE
    assert await lb.jobs.list() == before
    assert raw.zcard(lb.store.keys.key(shard, "job:due")) == len(before)


async def test_a_job_that_is_due_all_the_time_can_be_declared(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely(trigger=Every(0.001)), minutely("slow"))
    assert [state.job.name for state in await lb.jobs.list()] == ["report", "slow"]


async def test_heartbeats_list_who_lives(lb: Lockbeat) -> None:
    for owner, ttl in (("c", 20), ("a", 60_000), ("b", 60_000)):
        now, *_ = await lb.store.call("beat/heartbeat", 0, owner=owner, info='{"pid": 1}', ttl_ms=ttl, version="")
        assert abs(now - await now_ms(lb)) < 1000

    async def listed() -> list[str]:
        return [row[0].decode() for row in await lb.store.call("beat/instances", 0, limit=100)]

    async def without_c() -> bool:
        return await listed() == ["a", "b"]

    await eventually(without_c, "c is taken for dead")
    await lb.store.call("beat/heartbeat", 0, owner="a", info="", ttl_ms=0, version="")
    assert await listed() == ["b"]


async def test_jobs_of_one_run_are_fired_each_by_its_own_policies(lb: Lockbeat, raw: Any) -> None:
    names = [name for name in (f"job-{number}" for number in range(60)) if lb.jobs.shard_of(name) == 0][:3]
    options: list[dict[str, Any]] = [{"overlap": "allow"}, {}, {"limit": 1}]
    benches = [Bench(lb, raw, minutely(name, **given)) for name, given in zip(names, options, strict=True)]
    for later in (0, 1):
        for made in benches:
            if later == 0:
                await made.due()
            elif await made.next() is not None:
                made.slot += 1
                await backdate(lb, raw, made.job.name, made.slot)
        replies = await lb.store.call_many([shot(lb, made.job, made.slot, lease_ms=5000) for made in benches], 0)
        expected = [results.STARTED, results.NO, results.NO] if later else [results.STARTED] * 3
        assert [reply.fired for reply in replies] == expected
    assert [await states(lb, name) for name in names] == [["fired", "fired"], ["fired", "skipped"], ["fired"]]
    assert await benches[2].next() is None


async def test_the_ledger_comes_newest_first_and_in_pages(bench: Bench) -> None:
    first = bench.slot - 1000
    for number in range(25):
        await bench.due(first + number)
        assert (await bench.fire(policies=minutely(overlap="allow").firing))[0] == results.WAITING
    newest = [entry.slot_ms for entry in await bench.lb.jobs.ledger("report", 10)]
    assert newest == [first + number for number in range(24, 14, -1)]
    older = [entry.slot_ms for entry in await bench.lb.jobs.ledger("report", 10, before_ms=newest[-1])]
    assert older == [first + number for number in range(14, 4, -1)]
    assert [entry.slot_ms for entry in await ledger(bench.lb, "report")] == [first + number for number in range(25)]
