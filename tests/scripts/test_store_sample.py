"""store.txt: a small store in use, key by key, as the scripts left it. It shows the format, and every change of it.

`LOCKBEAT_TEST_WRITE=1 pytest tests/scripts/test_store_sample.py` writes it anew.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lockbeat import Every, Lockbeat
from lockbeat.jobs import Backfiller, Job
from lockbeat.store.keys import FORMAT, KEYS
from lockbeat.tasks import Task
from lockbeat.triggers import ByHand
from lockbeat.triggers.rules import rules_version
from tests.beats import Hands, scheduler
from tests.claims import acquired
from tests.conftest import Backend, Connect, only
from tests.tasks import NOON, begun, dump, stopped

FENCE, PACKED = r"1924992\d{9}", r"(\\xff(?:\d\d)?)00(19[23]\d{10})"
SAMPLE = Path(__file__).parent / "store.txt"
ABSENT = {"bell", "durable", "shards", "reply:1", "reply:2"}
"""A channel; what is there while a caller waits for a replica, where there are several shards, and at other times."""
HEAD = f"""A store of format {FORMAT} in use, as test_store_sample.py makes it. What stands in a key: fields of a hash and
members of a zset, each with its value or score. NOON+5: 5 ms after noon. F1, F2 ...: fences, by age; both in <>, and of fixed
width, where members are packed. alice.1: the id of a call. \\xff, \\xfe and \\xfd separate.
"""


@only("memory")
async def test_a_store_in_use_is_as_the_sample_shows_it(connect: Connect, namespace: str, backend: Backend, raw: Any) -> None:
    with stopped() as go_to:
        async with connect(owner="alice") as alice, connect(owner="bob") as bob:
            await use_locks(alice, bob)
            await use_claims(alice)
            await use_tasks(alice, bob)
            await use_jobs(alice, raw, go_to)
            await alice.calendars.put("holidays", ["2030-12-25 Christmas", "2030-12-31..2031-01-01"])
            said: dict[str, Any] = {"owner": "alice", "info": '{"queues":["default"]}', "ttl_ms": 30_000}
            await alice.store.call("beat/heartbeat", 0, **said, version="0f1e2d3c4b5a 0 2030.1 ")
            found = text_of(backend, namespace, {lb.owner: lb.store.channel.rpartition(":")[2] for lb in (alice, bob)})
    if os.environ.get("LOCKBEAT_TEST_WRITE"):
        SAMPLE.write_text(found)
    assert found == SAMPLE.read_text()
    shown = set(re.findall(r"^(\S+) +(?:string|hash|zset)", found, re.MULTILINE))
    assert {key.rpartition(":")[0] or key if key[-1].isupper() else key for key in KEYS} - shown == ABSENT


async def use_locks(alice: Lockbeat, bob: Lockbeat) -> None:
    lease = await alice.locks.try_acquire("printer", "alice", 30)
    assert lease is not None
    await alice.locks.try_acquire("given back", "alice", 30)
    await alice.locks.release("given back", "alice")
    row = bob.store.row["lock/try_acquire"](
        key="printer",
        owner="bob",
        token=bob.store.new_call(),
        ttl_ms=30_000,
        reentrant=0,
        channel=bob.store.channel,
    )
    await bob.store.call_row(row, 0)
    await alice.fenced.set("report", {"pages": 3}, fence=lease.fence)


async def use_claims(alice: Lockbeat) -> None:
    await acquired(alice.claims, "order 1")
    await alice.claims.complete(await acquired(alice.claims, "order 2"), "shipped", hold=60)
    await alice.claims.fail(await acquired(alice.claims, "order 3", queue="mail"), "no such address")


async def use_tasks(alice: Lockbeat, bob: Lockbeat) -> None:
    tasks = alice.tasks
    await tasks.complete(await begun(alice, max_attempts=2), "a result")
    await tasks.fail(await begun(alice, max_attempts=1), "broken")
    await tasks.cancel((await begun(alice)).id)
    again = (await tasks.spawn("job")).task_id
    assert await tasks.cancel(again, by="carol")
    assert await tasks.retry(again, delay=60, cancelled=True, by="dave")
    await begun(alice, params={"running": True}, max_duration=60)
    await tasks.spawn("job", {"delayed": True}, delay=60, max_delay=90, priority=7, idempotency_key="k")
    waiting = await tasks.spawn("job", {"ready": True}, headers={"trace": "1"})
    await bob.store.call("task/await", 0, id=waiting.task_id, channel=bob.store.channel)


async def use_jobs(alice: Lockbeat, raw: Any, go_to: Any) -> None:
    """One whose slot is done, and others of it are backfilled, one that runs, one tried again, one that waits, one cancelled; two
    paused; one triggered; two of an origin, with a tag."""
    jobs = [Job.declare(name, Every(10), max_attempts=2) for name in ("done", "running", "retried", "waiting", "cancelled")]
    await alice.jobs.put(*jobs)
    go_to(NOON + 10)
    hands = Hands("done", "running", "retried", "cancelled")
    await scheduler(alice, *jobs[:3], jobs[4], runner=hands).tick(0)
    by_job: dict[str, Task] = {task.job: task for task in hands.tasks}
    assert set(by_job) == hands.names
    await alice.tasks.complete(by_job["done"])
    await alice.tasks.fail(by_job["retried"], "broken", NOON + 40)
    await alice.tasks.cancel(by_job["cancelled"].id, by="carol")
    await alice.tasks.release(by_job["cancelled"], begun=True)
    await alice.jobs.put(*(Job.declare(name, Every(10)) for name in ("paused", "skipping")))
    assert await alice.jobs.pause("paused", "the printer burns", by="bob")
    await alice.jobs.skip_next("skipping", by="bob")
    await alice.jobs.put(Job.declare("by hand", ByHand()))
    await alice.jobs.trigger("by hand", {"customer": 7}, by="bob")
    bills = [Job.declare(f"bill {n}", Every(3600), function="bill", params={"customer": n}, tags=["bill"]) for n in range(3)]
    await alice.jobs.apply(bills, origin="billing")
    await alice.jobs.apply(bills[1:], origin="billing", prune=True)
    start, end = (datetime.fromtimestamp(NOON + at, UTC) for at in (-30, 10))
    await alice.jobs.backfill("done", start, end, rate=0.5, reason="a new report", by="bob")
    await Backfiller(alice.store).tick(0)


def text_of(backend: Backend, namespace: str, instances: dict[str, str]) -> str:
    """All that the store holds, key by key."""
    found = {key.decode().partition("}:")[2]: value for key, value in dump(backend).items()}
    raw = {key: [line.replace(namespace, "NAMESPACE") for line in lines_of(value)] for key, value in found.items()}
    fences = sorted({fence for lines in raw.values() for line in lines for fence in re.findall(FENCE, re.sub(PACKED, " ", line))})

    def plain(line: str) -> str:
        for owner, instance in instances.items():
            line = line.replace(instance, owner)
        line = re.sub(
            PACKED, lambda at: f"{at[1]}<NOON{int(at[2]) - round(NOON * 1000):+}>", line.replace(rules_version(), "RULES")
        )
        line = re.sub(r"(?<=by hand!)[0-9a-f]+", "ID", line)
        line = re.sub(FENCE + r"(?=\w)", lambda fence: f"<F{fences.index(fence[0]) + 1}>", line)
        line = re.sub(FENCE, lambda fence: f"F{fences.index(fence[0]) + 1}", line)
        return re.sub(r"19[23]\d{10}", lambda at: f"NOON{int(at[0]) - round(NOON * 1000):+}", line)

    text = HEAD
    for name, what in KEYS.items():
        family = name.rpartition(":")[0] if name[-1].isupper() else name
        for key in [key for key in sorted(raw) if key == name or (family != name and key.startswith(family + ":"))]:
            text += f"\n{family}  {what}\n" + (f"  {key}\n" if family != name else "")
            lines = map(plain, raw.pop(key))
            text += "".join(f"    {line}\n" for line in (sorted(lines) if isinstance(found[key], dict) else lines))
    assert not raw, "keys.py lists every key"
    return text


def lines_of(value: Any) -> list[str]:
    """What a key holds."""
    if isinstance(value, dict):
        return [f"{readable(field)}  {readable(said)}" for field, said in value.items()]
    if isinstance(value, list):
        return [f"{readable(member)}  {score:.0f}" if score else readable(member) for member, score in value]
    return [readable(value)]


def readable(value: bytes) -> str:
    return re.sub(r"[\x00-\x1f\xfd-\xff]", lambda byte: f"\\x{ord(byte[0]):02x}", value.decode("latin-1")) or "''"
