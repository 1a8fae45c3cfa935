"""What the holder writes to refuses an old fence: promise 2 put to use, in the store and in what docs/fences.md recommends."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import time_machine

from lockbeat import Lockbeat
from lockbeat.errors import InvalidArgument, InvalidType, ScriptError
from lockbeat.fences import FencedValue
from tests.conftest import Backend, Connect, only
from tests.proxy import calls_of, proxy

DOCS = (Path(__file__).parent.parent.parent / "docs" / "fences.md").read_text()
DAY = 86_400


async def fence_of(lb: Lockbeat, key: str = "k") -> int:
    """A new one, newer than those before it."""
    lease = await lb.locks.try_acquire(key, "alice", 30)
    assert lease is not None
    assert await lb.locks.release(key, "alice")
    return lease.fence


@pytest.fixture
async def old(lb: Lockbeat) -> int:
    return await fence_of(lb)


@pytest.fixture
async def new(lb: Lockbeat, old: int) -> int:
    return await fence_of(lb)


async def test_an_old_fence_is_refused_once_a_newer_one_has_written(lb: Lockbeat, old: int, new: int) -> None:
    assert await lb.fenced.set("report", "by old", fence=old) is True
    assert await lb.fenced.set("report", "by new", fence=new) is True
    assert await lb.fenced.set("report", "by the zombie", fence=old) is False
    assert await lb.fenced.get("report") == FencedValue("by new", new)


async def test_the_same_fence_may_write_again(lb: Lockbeat, old: int) -> None:
    for value in ("first", "second"):
        assert await lb.fenced.set("report", value, fence=old)
    assert await lb.fenced.get("report") == FencedValue("second", old)


async def test_a_holder_that_lost_its_lease_to_another_can_no_longer_write(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        slow = await lb.locks.try_acquire("report", "slow", 0.005)
        assert slow is not None
        async with asyncio.timeout(30), other.lock("report") as fast:
            assert await other.fenced.set("report", "fast", fence=fast.fence)
            assert not await lb.fenced.set("report", "slow", fence=slow.fence)
        assert await other.fenced.get("report") == FencedValue("fast", fast.fence)


async def test_names_do_not_concern_each_other(lb: Lockbeat, old: int, new: int) -> None:
    assert await lb.fenced.set("a", 1, fence=new)
    assert await lb.fenced.set("b", 2, fence=old)
    assert await lb.fenced.get("a") == FencedValue(1, new)
    assert await lb.fenced.get("b") == FencedValue(2, old)
    assert await lb.fenced.get("c") is None


async def test_a_deleted_value_is_not_brought_back_by_an_old_fence(lb: Lockbeat, old: int, new: int) -> None:
    await lb.fenced.set("report", "by old", fence=old)
    assert await lb.fenced.delete("report", fence=new) is True
    assert await lb.fenced.get("report") is None
    assert await lb.fenced.set("report", "by the zombie", fence=old) is False
    assert await lb.fenced.delete("report", fence=old) is False
    assert await lb.fenced.set("report", "again", fence=new) is True


async def test_a_check_shuts_out_older_fences_and_leaves_the_value(lb: Lockbeat, old: int, new: int) -> None:
    await lb.fenced.set("report", "by old", fence=old)
    assert await lb.fenced.check("report", old) is True
    assert await lb.fenced.check("report", new) is True
    assert await lb.fenced.check("report", old) is False
    assert await lb.fenced.set("report", "by the zombie", fence=old) is False
    assert await lb.fenced.get("report") == FencedValue("by old", new)


async def test_a_check_of_an_unknown_name_lets_in_and_shows_no_value(lb: Lockbeat, old: int, new: int) -> None:
    assert await lb.fenced.check("mail", new)
    assert not await lb.fenced.check("mail", old)
    assert await lb.fenced.get("mail") is None


async def test_of_many_writers_at_once_the_newest_stays(lb: Lockbeat, connect: Connect) -> None:
    fences = [await fence_of(lb) for _ in range(40)]
    mixed = random.Random(3).sample(fences, len(fences))
    async with connect() as other:
        clients = (lb, other)
        written = await asyncio.gather(*(clients[n % 2].fenced.set("k", n, fence=fence) for n, fence in enumerate(mixed)))
    found = await lb.fenced.get("k")
    assert found == FencedValue(mixed.index(fences[-1]), fences[-1])
    assert written[mixed.index(fences[-1])]


async def test_fences_that_a_float_would_confuse_are_told_apart(lb: Lockbeat) -> None:
    assert await lb.fenced.set("k", "new", fence=2**53 - 1)
    assert not await lb.fenced.set("k", "old", fence=2**53 - 2)
    assert await lb.fenced.get("k") == FencedValue("new", 2**53 - 1)


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, 2**70, 0.1, "ü🔒\n\0 1 2", {"a": [None, {}]}, "x" * 1_000_000])
async def test_any_json_value_comes_back_as_it_was(lb: Lockbeat, old: int, value: Any) -> None:
    assert await lb.fenced.set("name with } and \n", value, fence=old)
    found = await lb.fenced.get("name with } and \n")
    assert found == FencedValue(value, old)
    assert type(found.value) is type(value)


@only("memory")
async def test_a_refused_fence_stays_refused_when_the_name_has_been_forgotten(lb: Lockbeat) -> None:
    """The record expires; a zombie that slept for longer still does not get in, whenever it wakes up."""
    with time_machine.travel(dt.datetime(2031, 1, 1, tzinfo=dt.UTC), tick=False) as clock:
        old = await fence_of(lb)
        clock.shift(1)
        new = await fence_of(lb)
        assert await lb.fenced.set("report", "by new", fence=new)
        for days, known in ((29.99, True), (0.02, False), (400, False)):
            clock.shift(days * DAY)
            assert (await lb.fenced.get("report") is not None) is known
            assert await lb.fenced.set("report", "by the zombie", fence=old) is False
            assert await lb.fenced.check("report", old) is False
        assert await lb.fenced.set("report", "later", fence=await fence_of(lb)) is True


@only("memory")
async def test_a_holder_keeps_its_name_known_by_writing(lb: Lockbeat) -> None:
    with time_machine.travel(dt.datetime(2031, 1, 1, tzinfo=dt.UTC), tick=False) as clock:
        fence = await fence_of(lb)
        for _ in range(5):
            assert await lb.fenced.set("a", 1, fence=fence)
            assert await lb.fenced.check("b", fence)
            clock.shift(29 * DAY)


@pytest.mark.parametrize("verb", ["set", "check", "get"])
async def test_foreign_data_under_a_fenced_name_is_an_error_and_no_grant(lb: Lockbeat, raw: Any, old: int, verb: str) -> None:
    key = lb.store.keys.key(lb.store.shard_of("report"), "fenced:NAME", "report")
    raw.set(key, "something", px=60_000)
    with pytest.raises(ScriptError):
        await (
            lb.fenced.get("report")
            if verb == "get"
            else lb.fenced.check("report", old)
            if verb == "check"
            else lb.fenced.set("report", 1, fence=old)
        )
    assert raw.get(key) == b"something"


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("fence", None, InvalidType),
        ("fence", True, InvalidType),
        ("fence", 1.5, InvalidType),
        ("fence", 0, InvalidArgument),
        ("fence", -1, InvalidArgument),
        ("fence", 2**53, InvalidArgument),
        ("name", "", InvalidArgument),
        ("name", 7, InvalidType),
        ("value", object(), InvalidType),
        ("value", float("nan"), InvalidArgument),
        ("value", "x" * (1 << 20), InvalidArgument),
    ],
)
async def test_bad_arguments_are_refused_before_anything_is_sent(
    lb: Lockbeat, argument: str, value: Any, error: type[InvalidArgument]
) -> None:
    given: dict[str, Any] = {"name": "k", "value": 1, "fence": 5} | {argument: value}
    with pytest.raises(error) as caught:
        await lb.fenced.set(given["name"], given["value"], fence=given["fence"])
    assert caught.value.argument == argument
    if argument == "fence":
        with pytest.raises(error):
            await lb.fenced.check("k", value)


@pytest.fixture
async def behind_a_proxy(backend: Backend, namespace: str) -> AsyncIterator[tuple[Any, Lockbeat]]:
    async with (
        proxy(backend.servers[0].port) as lossy,
        Lockbeat(lossy.url, namespace=namespace, shards=backend.shards, timeout=2) as client,
    ):
        yield lossy, client


@only("valkey", "redis")
async def test_a_write_whose_reply_was_lost_is_told_as_it_was(
    behind_a_proxy: tuple[Any, Lockbeat], lb: Lockbeat, old: int
) -> None:
    lossy, client = behind_a_proxy
    lossy.lose_reply(calls_of("fenced/set"), 2)
    assert await client.fenced.set("report", 1, fence=old) is True
    assert lossy.lost == 2
    assert await lb.fenced.get("report") == FencedValue(1, old)


@only("valkey", "redis")
async def test_the_script_of_the_docs_refuses_an_old_fence(raw: Any, namespace: str) -> None:
    found = re.search(r"```lua\n(.*?)```", DOCS, re.DOTALL)
    assert found is not None
    script, keys = raw.register_script(found[1]), [f"{{{namespace}}}:v", f"{{{namespace}}}:f"]
    try:
        written = [script(keys, args) for args in (("old", 5), ("new", 2**53 - 1), ("zombie", 2**53 - 2), ("again", 2**53 - 1))]
        assert written == [1, 1, 0, 1]
        assert raw.get(keys[0]) == b"again"
    finally:
        raw.delete(*keys)


def test_the_statements_of_the_docs_refuse_an_old_fence() -> None:
    update, upsert = re.findall(r"```sql\n(.*?)```", DOCS, re.DOTALL)
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE report (id TEXT PRIMARY KEY, body TEXT, fence BIGINT)")
        writes = [("r", "old", 5), ("r", "new", 2**53 - 1), ("r", "zombie", 2**53 - 2), ("r", "again", 2**53 - 1)]
        assert [database.execute(upsert, row).rowcount for row in writes] == [1, 1, 0, 1]
        assert [database.execute(update, (body, fence, key, fence)).rowcount for key, body, fence in writes[1:]] == [1, 0, 1]
        assert database.execute("SELECT body FROM report").fetchone() == ("again",)
    database.close()
