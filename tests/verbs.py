"""The verbs of the public API as a table: how each is called, what it answers, and what it leaves in the store."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

from lockbeat import Every, Fixed, Lockbeat
from lockbeat.errors import LockbeatError
from lockbeat.jobs import Job, applying
from lockbeat.tasks import NewTask
from tests.beats import ledger
from tests.claims import acquired, left_behind, ran_out
from tests.tasks import begun, died

DIFFERS = {"id", "task_id", "run", "fence", "asked_at"}
"""Fields that differ from call to call, as all times do."""
LOOKS = {
    *("locks.is_locked", "locks.owner", "locks.holder", "locks.list"),
    *("claims.owns", "claims.is_claimed", "claims.get", "claims.list", "claims.active", "claims.expired", "claims.stats"),
    *("tasks.get", "tasks.wait", "tasks.dead", "tasks.list", "tasks.counts", "tasks.queues", "tasks.spawn of a known key"),
    *(
        "jobs.get",
        "jobs.get_many",
        "jobs.list",
        "jobs.next",
        "jobs.upcoming",
        "jobs.ledger",
        "jobs.history",
        "jobs.why",
        "jobs.changes",
    ),
    *("jobs.get_backfill", "jobs.backfills", "jobs.backfill as a plan", "fenced.get"),
    *("calendars.get", "calendars.list", "calendars.users"),
}
"""They answer what is so when they are answered, and change nothing."""


async def nothing(lb: Lockbeat) -> None:
    """Nothing is there before."""


@dataclasses.dataclass(frozen=True)
class Verb:
    """How a verb is called, and what it answers."""

    call: Callable[[Lockbeat, Any], Awaitable[Any]]
    says: Any
    """The answer without what differs from call to call, or some of its fields."""
    given: Callable[[Lockbeat], Awaitable[Any]] = nothing
    """Makes what there is before; its answer is handed to `call`."""
    ends: tuple[Callable[[Lockbeat, Any], Awaitable[Any]], ...] | None = None
    """What a cancelled call may leave behind, as these would; by default, nothing or what it does when it is not cancelled."""


def job(period: float = 86_400 * 365, **options: Any) -> Job:
    """One whose slots are far away."""
    return Job.declare("report", Every(period, datetime.fromisoformat("2000-01-01T00:00Z")), **options)


def put_one(lb: Lockbeat, if_rev: str | None = None, **options: Any) -> Awaitable[Any]:
    return lb.jobs.put("report", job().trigger, function="send", params={"n": 7}, if_rev=if_rev, **options)


async def in_steps(lb: Lockbeat, names: Iterable[str], **options: Any) -> Any:
    """As if two jobs were as many as one run takes."""
    with patch.object(applying, "MOST", 2):
        jobs = [dataclasses.replace(job(**options), name=name, function=name) for name in names]
        return await lb.jobs.apply(jobs, origin="billing", prune=True)


YEARS = datetime(2000, 1, 1, tzinfo=UTC), datetime(2019, 12, 1, tzinfo=UTC)


async def another_backfill(lb: Lockbeat) -> str:
    """The error that refuses it."""
    try:
        return str(await lb.jobs.backfill("report", *YEARS))
    except LockbeatError as problem:
        return type(problem).__name__


async def backfilling(lb: Lockbeat) -> None:
    await lb.jobs.put(job())
    await lb.jobs.backfill("report", *YEARS, by="bob")


async def backfill_paused(lb: Lockbeat) -> None:
    await backfilling(lb)
    await lb.jobs.pause_backfill("report", by="bob")


def kept(lb: Lockbeat, day: str = "2030-12-25") -> Awaitable[Any]:
    return lb.calendars.put("holidays", [f"{day} Christmas"])


def held(lb: Lockbeat, owner: str = "alice") -> Awaitable[Any]:
    return lb.locks.try_acquire("k", owner, 30)


async def held_often(lb: Lockbeat) -> None:
    await asyncio.gather(*(lb.locks.try_acquire(f"k{n}", "alice", 30) for n in range(620)))


async def claimed_often(lb: Lockbeat, lease: float = 30) -> None:
    claims = await asyncio.gather(*(acquired(lb.claims, f"k{n}", lease=lease) for n in range(250)))
    if lease < 1:
        await ran_out(lb, *(claim.key for claim in claims))


async def failed(lb: Lockbeat) -> None:
    await lb.claims.fail(await acquired(lb.claims, "k"), "boo")


async def completed(lb: Lockbeat) -> None:
    await lb.claims.complete(await acquired(lb.claims, "k"), "result", hold=30)


async def spawned(lb: Lockbeat) -> list[str]:
    return [(await lb.tasks.spawn("job", n, max_attempts=2, retry=None)).task_id for n in range(4)]


async def at_work(lb: Lockbeat, **options: Any) -> Any:
    return await begun(lb, **{"retry": None, **options})


async def was_cancelled(lb: Lockbeat) -> str:
    task_id, *_ = await spawned(lb)
    assert await lb.tasks.cancel(task_id, by="bob")
    return task_id


async def several_dead(lb: Lockbeat) -> list[str]:
    return [await died(lb) for _ in range(3)]


async def paused(lb: Lockbeat) -> None:
    await lb.jobs.put(job())
    assert await lb.jobs.pause("report", by="bob")


async def triggered(lb: Lockbeat) -> None:
    await paused(lb)
    assert (await lb.jobs.trigger("report", by="bob")).created


async def held_lock(lb: Lockbeat) -> Any:
    async with lb.lock("k", ttl=30) as lease:
        return lease


async def held_claim(lb: Lockbeat) -> Any:
    async with lb.claims.hold("k", hold=30) as handle:
        return handle.claim


async def back(lb: Lockbeat, _: Any) -> None:
    """Claims, and gives it back."""
    await lb.claims.release(await acquired(lb.claims, "k"))


async def all_back(lb: Lockbeat, _: Any) -> None:
    for task in await lb.tasks.claim("default", "alice", 2, 30):
        await lb.tasks.release(task)


CHRISTMAS = {"name": "holidays", "entries": [{"first": "2030-12-25", "last": "2030-12-25", "name": "Christmas"}]}
ALICES, BOBS = {"key": "k", "owner": "alice"}, {"key": "k", "owner": "bob"}
VERBS = {
    "locks.try_acquire": Verb(lambda lb, _: held(lb), ALICES, ends=()),
    "locks.try_acquire again": Verb(lambda lb, _: held(lb), ALICES, held),
    "locks.try_acquire another's": Verb(lambda lb, _: held(lb), None, lambda lb: held(lb, "bob")),
    "locks.lock": Verb(lambda lb, _: held_lock(lb), ALICES),
    "locks.release": Verb(lambda lb, _: lb.locks.release("k", "alice"), True, held),
    "locks.release another's": Verb(lambda lb, _: lb.locks.release("k", "alice"), False, lambda lb: held(lb, "bob")),
    "locks.unlock": Verb(lambda lb, lease: lb.locks.unlock(lease), True, held),
    "locks.renew": Verb(lambda lb, _: lb.locks.renew("k", "alice", 60), True, held),
    "locks.is_locked": Verb(lambda lb, _: lb.locks.is_locked("k"), True, held),
    "locks.owner": Verb(lambda lb, _: lb.locks.owner("k"), "alice", held),
    "locks.holder": Verb(lambda lb, _: lb.locks.holder("k"), ALICES, held),
    "locks.list": Verb(lambda lb, _: lb.locks.list(), [ALICES], held),
    "locks.release_all": Verb(lambda lb, _: lb.locks.release_all("alice"), 1, held),
    "locks.release_all in pages": Verb(lambda lb, _: lb.locks.release_all("alice"), 620, held_often),
    "claims.acquire": Verb(
        lambda lb, _: lb.claims.acquire("k", "alice", 30), ALICES | {"attempt": 1, "outcome": "acquired"}, ends=(back,)
    ),
    "claims.acquire what ran out": Verb(
        lambda lb, _: lb.claims.acquire("k", "alice", 30),
        {"attempt": 2, "outcome": "took_over", "previous_owner": "dead"},
        lambda lb: left_behind(lb, "k", "dead"),
        ends=(back,),
    ),
    "claims.acquire what failed": Verb(
        lambda lb, _: lb.claims.acquire("k", "alice", 30), {"attempt": 2, "last_error": "boo"}, failed, ends=(back,)
    ),
    "claims.acquire another's": Verb(
        lambda lb, _: lb.claims.acquire("k", "alice"), BOBS, lambda lb: acquired(lb.claims, "k", "bob")
    ),
    "claims.acquire what is done": Verb(lambda lb, _: lb.claims.acquire("k", "bob"), ALICES | {"result": "result"}, completed),
    "claims.acquire one's own": Verb(lambda lb, _: lb.claims.acquire("k", "alice"), ALICES, lambda lb: acquired(lb.claims, "k")),
    "claims.hold": Verb(lambda lb, _: held_claim(lb), ALICES | {"attempt": 1}, ends=(lambda lb, _: held_claim(lb), back)),
    "claims.renew": Verb(lambda lb, claim: lb.claims.renew(claim, 60), True, lambda lb: acquired(lb.claims, "k")),
    "claims.complete": Verb(lambda lb, claim: lb.claims.complete(claim, "result"), True, lambda lb: acquired(lb.claims, "k")),
    "claims.complete for a while": Verb(
        lambda lb, claim: lb.claims.complete(claim, hold=30), True, lambda lb: acquired(lb.claims, "k")
    ),
    "claims.fail": Verb(lambda lb, claim: lb.claims.fail(claim, "boo"), True, lambda lb: acquired(lb.claims, "k")),
    "claims.release": Verb(lambda lb, claim: lb.claims.release(claim), True, lambda lb: acquired(lb.claims, "k")),
    "claims.release_all": Verb(lambda lb, _: lb.claims.release_all("alice"), 1, lambda lb: acquired(lb.claims, "k")),
    "claims.release_all in pages": Verb(lambda lb, _: lb.claims.release_all("alice"), 250, claimed_often),
    "claims.owns": Verb(lambda lb, claim: lb.claims.owns("k", "alice", claim.fence), True, lambda lb: acquired(lb.claims, "k")),
    "claims.is_claimed": Verb(lambda lb, _: lb.claims.is_claimed("k"), ALICES, lambda lb: acquired(lb.claims, "k")),
    "claims.get": Verb(lambda lb, _: lb.claims.get("k", "alice"), ALICES, lambda lb: acquired(lb.claims, "k")),
    "claims.list": Verb(lambda lb, _: lb.claims.list(), [ALICES], lambda lb: acquired(lb.claims, "k")),
    "claims.active": Verb(lambda lb, _: lb.claims.active(), 1, lambda lb: acquired(lb.claims, "k")),
    "claims.expired": Verb(lambda lb, _: lb.claims.expired(), [ALICES], lambda lb: left_behind(lb, "k")),
    "claims.cleanup": Verb(lambda lb, _: lb.claims.cleanup(), 1, lambda lb: left_behind(lb, "k")),
    "claims.cleanup in pages": Verb(lambda lb, _: lb.claims.cleanup(), 250, lambda lb: claimed_often(lb, 0.001)),
    "claims.stats": Verb(lambda lb, _: lb.claims.stats(), {"acquired": 1}, lambda lb: acquired(lb.claims, "k")),
    "tasks.spawn": Verb(lambda lb, _: lb.tasks.spawn("job", 7), {"attempt": 1, "created": True}),
    "tasks.spawn with a key": Verb(lambda lb, _: lb.tasks.spawn("job", idempotency_key="k"), {"attempt": 1, "created": True}),
    "tasks.spawn of a known key": Verb(
        lambda lb, _: lb.tasks.spawn("job", idempotency_key="k"),
        {"attempt": 1},
        lambda lb: lb.tasks.spawn("job", idempotency_key="k"),
    ),
    "tasks.spawn_many": Verb(
        lambda lb, _: lb.tasks.spawn_many([NewTask("job", n, idempotency_key=f"k{n}" if n else None) for n in range(3)]),
        [{"attempt": 1, "created": True}] * 3,
    ),
    "tasks.claim": Verb(
        lambda lb, _: lb.tasks.claim("default", "alice", 2, 30),
        [{"params": 0, "attempt": 1, "owner": "alice"}, {"params": 1, "attempt": 1, "owner": "alice"}],
        spawned,
        ends=(all_back,),
    ),
    "tasks.heartbeat": Verb(lambda lb, task: lb.tasks.heartbeat(task, 60), {"expires_at": "then"}, at_work),
    "tasks.complete": Verb(lambda lb, task: lb.tasks.complete(task, "result"), True, at_work),
    "tasks.complete what is not kept": Verb(lambda lb, task: lb.tasks.complete(task), True, lambda lb: at_work(lb, retention=0)),
    "tasks.complete a key's that is not kept": Verb(
        lambda lb, task: lb.tasks.complete(task), True, lambda lb: at_work(lb, retention=0, idempotency_key="k")
    ),
    "tasks.fail": Verb(lambda lb, task: lb.tasks.fail(task, "broken"), {"outcome": "requeued"}, at_work),
    "tasks.fail for a while": Verb(
        lambda lb, task: lb.tasks.fail(task, "broken"), {"outcome": "requeued"}, lambda lb: at_work(lb, retry=Fixed(60, jitter=0))
    ),
    "tasks.fail for the last time": Verb(
        lambda lb, task: lb.tasks.fail(task, "broken"), {"outcome": "dead_lettered"}, lambda lb: at_work(lb, max_attempts=1)
    ),
    "tasks.fail too late for another": Verb(
        lambda lb, task: lb.tasks.fail(task, "broken"),
        {"outcome": "cancelled"},
        lambda lb: at_work(lb, max_duration=60, retry=Fixed(3600)),
    ),
    "tasks.defer": Verb(lambda lb, task: lb.tasks.defer(task, 0), True, at_work),
    "tasks.release": Verb(lambda lb, task: lb.tasks.release(task), True, at_work),
    "tasks.release what had begun": Verb(lambda lb, task: lb.tasks.release(task, begun=True), True, at_work),
    "tasks.release_all": Verb(lambda lb, _: lb.tasks.release_all("alice"), 1, at_work),
    "tasks.get": Verb(lambda lb, task: lb.tasks.get(task.id), {"state": "running", "owner": "alice"}, at_work),
    "tasks.wait": Verb(lambda lb, task_id: lb.tasks.wait(task_id), {"state": "dead"}, died),
    "tasks.cancel": Verb(lambda lb, ids: lb.tasks.cancel(ids[0]), True, spawned),
    "tasks.cancel what runs": Verb(lambda lb, task: lb.tasks.cancel(task.id), True, at_work),
    "tasks.cancel what has ended": Verb(lambda lb, task_id: lb.tasks.cancel(task_id), False, died),
    "tasks.retry": Verb(lambda lb, task_id: lb.tasks.retry(task_id), True, died),
    "tasks.retry what was cancelled": Verb(
        lambda lb, task_id: lb.tasks.retry(task_id, cancelled=True, by="ann"), True, was_cancelled
    ),
    "tasks.redrive": Verb(lambda lb, _: lb.tasks.redrive(), 3, several_dead),
    "tasks.redrive some": Verb(lambda lb, _: lb.tasks.redrive(limit=2), 2, several_dead),
    "tasks.purge": Verb(lambda lb, _: lb.tasks.purge(), 3, several_dead),
    "tasks.dead": Verb(lambda lb, _: lb.tasks.dead(), [{"state": "dead"}], died),
    "tasks.list": Verb(lambda lb, _: lb.tasks.list(), [{"state": "running"}], at_work),
    "tasks.counts": Verb(lambda lb, _: lb.tasks.counts(), {"running": 1}, at_work),
    "tasks.queues": Verb(lambda lb, _: lb.tasks.queues(), ["default"], at_work),
    "jobs.put": Verb(lambda lb, _: lb.jobs.put(job()), {0: "then"}),
    "jobs.put anew": Verb(lambda lb, _: lb.jobs.put(job()), {0: "then"}, lambda lb: lb.jobs.put(job(3600 * 24 * 730))),
    "jobs.put one": Verb(lambda lb, _: put_one(lb), {"outcome": "added"}),
    "jobs.put one of that rev": Verb(
        lambda lb, put: put_one(lb, priority=7, if_rev=put.rev), {"outcome": "changed"}, lambda lb: put_one(lb)
    ),
    "jobs.put_one": Verb(lambda lb, _: lb.jobs.put_one(job(), if_rev=""), {"outcome": "added"}),
    "jobs.apply": Verb(
        lambda lb, _: lb.jobs.apply([job()], origin="billing", prune=True),
        {"added": ["report"], "removed": ["other"]},
        lambda lb: lb.jobs.apply([dataclasses.replace(job(), name="other", function="other")], origin="billing"),
    ),
    "jobs.apply in steps": Verb(
        lambda lb, _: in_steps(lb, "abcd"),
        {"added": ["b", "d"], "changed": ["a", "c"], "removed": ["cc", "e", "ee", "f"], "unchanged": []},
        lambda lb: in_steps(lb, ("a", "c", "cc", "e", "ee", "f"), priority=7),
    ),
    "jobs.get": Verb(
        lambda lb, _: lb.jobs.get("report"), {"next": {"slot_ms": "then", "due_ms": "then"}}, lambda lb: lb.jobs.put(job())
    ),
    "jobs.get_many": Verb(
        lambda lb, _: lb.jobs.get_many(["none", "report"]), {"report": {"open": None}}, lambda lb: lb.jobs.put(job())
    ),
    "jobs.list": Verb(lambda lb, _: lb.jobs.list(), [{}], lambda lb: lb.jobs.put(job())),
    "jobs.next": Verb(lambda lb, _: lb.jobs.next("report", 2), ["then", "then"], lambda lb: lb.jobs.put(job())),
    "jobs.upcoming": Verb(lambda lb, _: lb.jobs.upcoming("report", 1), [{"calendar": ""}], lambda lb: lb.jobs.put(job())),
    "jobs.ledger": Verb(lambda lb, _: lb.jobs.ledger("report"), [], lambda lb: lb.jobs.put(job())),
    "jobs.history": Verb(lambda lb, _: lb.jobs.history(), {"entries": [{"job": "report"}], "more": None}, triggered),
    "jobs.why": Verb(lambda lb, _: lb.jobs.why("report"), {"situation": "to_come"}, lambda lb: lb.jobs.put(job())),
    "jobs.pause": Verb(lambda lb, _: lb.jobs.pause("report", "why", by="alice"), True, lambda lb: lb.jobs.put(job())),
    "jobs.pause what is paused": Verb(lambda lb, _: lb.jobs.pause("report", by="alice"), False, paused),
    "jobs.resume": Verb(lambda lb, _: lb.jobs.resume("report", by="alice"), {"job": "report", "skipped": 0}, paused),
    "jobs.resume and say why": Verb(lambda lb, _: lb.jobs.resume("report", reason="mended"), {"skipped": 0}, paused),
    "jobs.resume what is not paused": Verb(lambda lb, _: lb.jobs.resume("report"), None, lambda lb: lb.jobs.put(job())),
    "jobs.skip_next": Verb(lambda lb, _: lb.jobs.skip_next("report", 2, by="alice"), "then", lambda lb: lb.jobs.put(job())),
    "jobs.trigger": Verb(lambda lb, _: lb.jobs.trigger("report", {"n": 7}, by="alice"), {"created": True}, paused),
    "jobs.trigger what has not ended": Verb(lambda lb, _: lb.jobs.trigger("report", by="alice"), {"created": False}, triggered),
    "jobs.changes": Verb(lambda lb, _: lb.jobs.changes("report"), [{"what": "pause", "by": "bob"}], paused),
    "jobs.backfill": Verb(
        lambda lb, _: lb.jobs.backfill("report", *YEARS, by="alice"),
        {"job": "report", "state": "running", "total": 20, "fired": 0, "by": "alice"},
        lambda lb: lb.jobs.put(job()),
    ),
    "jobs.backfill while one goes on": Verb(lambda lb, _: another_backfill(lb), "LockbeatError", backfilling),
    "jobs.backfill as a plan": Verb(
        lambda lb, _: lb.jobs.backfill("report", *YEARS, dry_run=True),
        {"state": "planned", "fired": 20},
        lambda lb: lb.jobs.put(job()),
    ),
    "jobs.get_backfill": Verb(lambda lb, _: lb.jobs.get_backfill("report"), {"state": "running", "by": "bob"}, backfilling),
    "jobs.backfills": Verb(lambda lb, _: lb.jobs.backfills(), [{"job": "report", "by": "bob"}], backfilling),
    "jobs.pause_backfill": Verb(lambda lb, _: lb.jobs.pause_backfill("report", by="alice"), True, backfilling),
    "jobs.resume_backfill": Verb(lambda lb, _: lb.jobs.resume_backfill("report", by="alice"), True, backfill_paused),
    "jobs.cancel_backfill": Verb(lambda lb, _: lb.jobs.cancel_backfill("report", by="alice"), True, backfilling),
    "jobs.delete": Verb(lambda lb, _: lb.jobs.delete("report"), True, lambda lb: lb.jobs.put(job())),
    "calendars.put": Verb(lambda lb, _: kept(lb), CHRISTMAS),
    "calendars.put another's": Verb(lambda lb, _: kept(lb), CHRISTMAS, lambda lb: kept(lb, "2031-12-25")),
    "calendars.put the same": Verb(lambda lb, _: kept(lb), CHRISTMAS, kept),
    "calendars.get": Verb(lambda lb, _: lb.calendars.get("holidays"), CHRISTMAS, kept),
    "calendars.list": Verb(lambda lb, _: lb.calendars.list(), [CHRISTMAS], kept),
    "calendars.users": Verb(lambda lb, _: lb.calendars.users("holidays"), [], kept),
    "calendars.delete": Verb(lambda lb, _: lb.calendars.delete("holidays"), True, kept),
    "fenced.set": Verb(lambda lb, lease: lb.fenced.set("k", "v", fence=lease.fence), True, held),
    "fenced.delete": Verb(lambda lb, lease: lb.fenced.delete("k", fence=lease.fence), True, held),
    "fenced.check": Verb(lambda lb, lease: lb.fenced.check("k", lease.fence), True, held),
    "fenced.get": Verb(lambda lb, _: lb.fenced.get("k"), None),
}


def shape(value: Any) -> Any:
    """The same without what differs from call to call."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items() if name not in DIFFERS}
    if isinstance(value, (list, tuple)):
        return [shape(one) for one in value]
    if isinstance(value, datetime) or (isinstance(value, (int, float)) and value > 1e9):
        return "then"
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def has(found: Any, said: Any) -> bool:
    """Whether it is what was said, or has the fields that were named."""
    if isinstance(said, dict) and isinstance(found, dict):
        return all(has(found.get(name), one) for name, one in said.items())
    if isinstance(said, list) and isinstance(found, list):
        return len(said) == len(found) and all(map(has, found, said))
    return bool(found == said) and type(found) is type(said)


async def look(lb: Lockbeat, room: str) -> list[Any]:
    """What a store holds that the verbs of the room could have changed."""
    found: list[Any] = []
    if room != "claims":
        found += [await lb.locks.list(), await lb.fenced.get("k")]
    if room in ("tasks", "jobs"):
        found.append(sorted(map(shape, await lb.tasks.list()), key=repr))
    if room == "jobs":
        for state in await lb.jobs.list():
            name = state.job.name
            found.append(
                (
                    name,
                    state.job.trigger,
                    state.job.origin,
                    state.rev,
                    state.paused,
                    await ledger(lb, name),
                    await lb.jobs.changes(name),
                    await lb.jobs.get_backfill(name),
                )
            )
    if room == "calendars":
        found.append(await lb.calendars.list())
    if room == "claims":
        found += [await lb.claims.list(), await lb.claims.expired()]
        stats = await lb.claims.stats()
        found.append(dataclasses.replace(stats, attempts=0, contended=0))  # a refusal that is asked for again counts again
    return [shape(one) for one in found]
