"""A store says in which format it is, and a version that speaks another one is refused before it reads or writes anything."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat, StoreFormatError
from lockbeat.errors import Unreadable
from lockbeat.program import serving
from lockbeat.store import Store
from lockbeat.store.keys import FORMAT, Keys
from tests.conftest import Backend, Connect, only, wait_until


class Newer(Store):
    """As a later version will open it."""

    speaks = FORMAT + 1


def formats(raw: Any, lb: Lockbeat) -> list[bytes | None]:
    return [raw.get(lb.store.keys.key(shard, "format")) for shard in range(lb.store.shards)]


def set_formats(raw: Any, namespace: str, shards: int, value: str | int) -> list[str]:
    keys = [Keys(namespace).key(shard, "format") for shard in range(shards)]
    for key in keys:
        raw.set(key, value)
    return keys


async def test_the_first_who_opens_a_store_writes_the_format_of_every_shard(lb: Lockbeat, raw: Any) -> None:
    assert formats(raw, lb) == [b"%d" % FORMAT] * lb.store.shards
    assert all(raw.ttl(lb.store.keys.key(shard, "format")) == -1 for shard in range(lb.store.shards))


@pytest.mark.parametrize(("found", "age"), [(1, "an older"), (FORMAT + 1, "a newer"), (10**6, "a newer")])
async def test_another_format_is_refused_by_both_numbers_and_nothing_is_written(
    raw: Any, connect: Connect, namespace: str, shards: int, found: int, age: str
) -> None:
    keys = set_formats(raw, namespace, shards, found)
    with pytest.raises(StoreFormatError) as refused:
        async with connect():
            pass
    assert (refused.value.found, refused.value.speaks) == (found, FORMAT)
    assert f"is in format {found}, of {age} version of lockbeat, and this one speaks format {FORMAT}" in str(refused.value)
    assert namespace in str(refused.value)
    assert [raw.get(key) for key in keys] == [str(found).encode()] * shards
    assert not any(raw.exists(Keys(namespace).key(shard, name)) for shard in range(shards) for name in ("shards", "fence"))


async def test_a_store_of_before_there_were_formats_is_in_format_1(
    raw: Any, connect: Connect, namespace: str, shards: int
) -> None:
    """By the second word of its counter, which this version does not write."""
    for shard in range(shards):
        raw.set(Keys(namespace).key(shard, "fence"), "1760000000000000 1760000060000")
    with pytest.raises(StoreFormatError) as refused:
        async with connect():
            pass
    assert refused.value.found == 1
    assert raw.get(Keys(namespace).key(0, "format")) is None


@only("cluster")
async def test_a_shard_of_another_format_is_refused_though_the_first_is_in_ours(lb: Lockbeat, raw: Any, connect: Connect) -> None:
    """One node of a Cluster was restored from an old copy."""
    raw.set(lb.store.keys.key(lb.store.shards - 1, "format"), 1)
    with pytest.raises(StoreFormatError):
        async with connect():
            pass


@pytest.mark.parametrize("damage", ["two", "", "2 "])
async def test_a_format_that_cannot_be_read_is_an_error_that_names_it(
    raw: Any, connect: Connect, namespace: str, damage: str
) -> None:
    key = Keys(namespace).key(0, "format")
    raw.set(key, damage + "x" * (damage == "2 "))
    with pytest.raises(Unreadable) as refused:
        async with connect():
            pass
    assert refused.value.key == key


async def test_of_openers_of_two_formats_those_of_one_get_in(url: str, namespace: str, shards: int) -> None:
    """Whichever was first; and it stays so."""

    async def opened(kind: type[Store]) -> Any:
        try:
            store = await kind.open(url, namespace=namespace, shards=shards)
        except StoreFormatError as problem:
            return problem
        await store.aclose()
        return store

    outcomes = await asyncio.gather(*(opened(kind) for kind in [Store, Newer, Newer, Store] * 4))
    got_in = {type(outcome) for outcome in outcomes if not isinstance(outcome, StoreFormatError)}
    assert len(got_in) == 1
    [winner] = got_in
    assert {(said.found, said.speaks) for said in outcomes if isinstance(said, StoreFormatError)} == {
        (winner.speaks, (Newer if winner is Store else Store).speaks)
    }
    assert isinstance(await opened(winner), winner)
    assert isinstance(await opened(Newer if winner is Store else Store), StoreFormatError)


def emptied(raw: Any, lb: Lockbeat) -> None:
    """As FLUSHALL leaves it, for this namespace."""
    for shard in range(lb.store.shards):
        for name in ("format", "shards", "fence", "epoch"):
            raw.delete(lb.store.keys.key(shard, name))


async def test_a_store_that_was_emptied_is_in_our_format_again_though_fences_were_minted_meanwhile(
    lb: Lockbeat, raw: Any, connect: Connect
) -> None:
    emptied(raw, lb)
    assert await lb.locks.try_acquire("k", "alice", 30)
    assert formats(raw, lb) == [None] * lb.store.shards
    await lb.store.reassert()
    assert formats(raw, lb) == [b"%d" % FORMAT] * lb.store.shards
    async with connect() as other:
        assert await other.locks.owner("k") == "alice"


async def test_whoever_is_overtaken_by_another_version_in_an_emptied_store_calls_it_no_more(lb: Lockbeat, raw: Any) -> None:
    emptied(raw, lb)
    set_formats(raw, lb.store.keys.namespace, lb.store.shards, Newer.speaks)
    with pytest.raises(StoreFormatError) as refused:
        await lb.store.reassert()
    assert (refused.value.found, refused.value.speaks) == (Newer.speaks, FORMAT)
    for call in (lb.locks.try_acquire("k", "alice", 30), lb.tasks.spawn("job"), lb.jobs.list(), lb.claims.acquire("k", "alice")):
        with pytest.raises(StoreFormatError):
            await call
    assert not raw.exists(lb.store.keys.key(0, "lock"))


@only("memory", "valkey")
async def test_a_beat_that_finds_another_version_in_its_store_ends_with_the_error(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "HEARTBEAT", 0.05)
    beat = Beat(lb, grace=1)

    @beat.every(3600)
    async def job() -> None: ...

    serve = asyncio.create_task(beat.serve())
    await wait_until(lambda: raw.exists(lb.store.keys.key(0, "job")), "it has declared its jobs")
    set_formats(raw, lb.store.keys.namespace, lb.store.shards, Newer.speaks)
    with pytest.raises(StoreFormatError):
        await asyncio.wait_for(serve, 20)
    assert f"stopping: {lb.store.connector.location}" in caplog.text


@only("memory", "valkey")
@pytest.mark.parametrize("lost", ["shards", "format"])
async def test_a_heartbeat_says_again_what_the_store_has_lost_of_itself(
    backend: Backend, namespace: str, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(serving, "HEARTBEAT", 0.05)
    raw = backend.client()
    async with Lockbeat(backend.url, namespace=namespace, shards=2) as lb, Beat(lb, grace=1).lifespan():
        key = lb.store.keys.key(0, lost)
        assert raw.delete(key) == 1
        await wait_until(lambda: raw.get(key) == b"2", "it is said again")
    raw.close()


def test_the_error_survives_copies() -> None:
    problem = StoreFormatError("redis://here, namespace 'app',", 3, 2)
    again = pickle.loads(pickle.dumps(problem))  # noqa: S301 - our own
    assert (again.where, again.found, again.speaks, str(again)) == (problem.where, 3, 2, str(problem))
