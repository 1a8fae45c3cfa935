"""celers' `DistributedLockBackend`, function by function, on every backend."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError
from lockbeat.locks import LockBackend
from tests.conftest import Connect, wait_until

SHORT = 0.02  # seconds: a lease that ends within the test

ODD_NAMES = [
    "{braced}",
    "{",
    "}:lock",
    "two\nlines",
    "nul\0inside",
    "\0",
    "🔒🔑",
    "with spaces ",
    "ÿ",
    "\u00ff\u00ff",
    "tab\tand\\back'\"slash",
    "%s%d %",
    "[a-z]*",
    "-",
    "0",
    "x" * 1024,
    "é" * 512,
]


async def ended(lb: Lockbeat, *keys: str) -> None:
    """Wait until the leases have run out, by the server's clock."""
    async with asyncio.timeout(30):
        for key in keys:
            while await lb.locks.is_locked(key):
                await asyncio.sleep(0.002)


async def test_a_free_lock_is_taken(lb: Lockbeat) -> None:
    lease = await lb.locks.try_acquire("k", "alice", 30)
    assert lease is not None
    assert (lease.key, lease.owner) == ("k", "alice")
    assert lease.fence > 0
    assert lease.expires_at == pytest.approx(await lb.store.server_time() + 30, abs=5)


async def test_another_owner_is_refused_while_the_lease_lives(lb: Lockbeat) -> None:
    first = await lb.locks.try_acquire("k", "alice", 30)
    assert await lb.locks.try_acquire("k", "bob", 30) is None
    assert await lb.locks.list() == [first]


async def test_an_expired_lock_is_free_for_anyone(lb: Lockbeat) -> None:
    first = await lb.locks.try_acquire("k", "alice", SHORT)
    await ended(lb, "k")
    second = await lb.locks.try_acquire("k", "bob", 30)
    assert first is not None
    assert second is not None
    assert second.fence > first.fence
    assert await lb.locks.owner("k") == "bob"


@pytest.mark.parametrize("ttl", [60, 5])
async def test_the_same_owner_keeps_its_fence_and_gets_the_ttl_anew(lb: Lockbeat, ttl: float) -> None:
    first = await lb.locks.try_acquire("k", "alice", 30)
    again = await lb.locks.try_acquire("k", "alice", ttl)
    assert first is not None
    assert again is not None
    assert again.fence == first.fence
    assert again.expires_at - first.expires_at == pytest.approx(ttl - 30, abs=5)


async def test_the_same_owner_after_expiry_gets_a_new_fence(lb: Lockbeat) -> None:
    first = await lb.locks.try_acquire("k", "alice", SHORT)
    await ended(lb, "k")
    again = await lb.locks.try_acquire("k", "alice", 30)
    assert first is not None
    assert again is not None
    assert again.fence > first.fence


async def test_of_many_racers_one_wins(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        tries = [client.locks.try_acquire("k", f"o{n}", 30) for n in range(16) for client in (lb, other)]
        # Two attempts of one owner both hold it.
        won = {lease.owner for lease in await asyncio.gather(*tries) if lease is not None}
    assert len(won) == 1
    assert await lb.locks.owner("k") in won


async def test_only_the_live_owner_releases(lb: Lockbeat) -> None:
    assert await lb.locks.release("k", "alice") is False  # missing
    await lb.locks.try_acquire("k", "alice", 30)
    assert await lb.locks.release("k", "bob") is False
    assert await lb.locks.owner("k") == "alice"
    assert await lb.locks.release("k", "alice") is True
    assert await lb.locks.release("k", "alice") is False


async def test_an_expired_lock_can_not_be_released(lb: Lockbeat) -> None:
    await lb.locks.try_acquire("k", "alice", SHORT)
    await ended(lb, "k")
    assert await lb.locks.release("k", "alice") is False


async def test_release_of_a_lock_that_passed_to_another_leaves_it_alone(lb: Lockbeat) -> None:
    await lb.locks.try_acquire("k", "alice", SHORT)
    await ended(lb, "k")
    await lb.locks.try_acquire("k", "bob", 30)
    assert await lb.locks.release("k", "alice") is False
    assert await lb.locks.owner("k") == "bob"


async def test_only_the_live_owner_renews(lb: Lockbeat) -> None:
    assert await lb.locks.renew("k", "alice", 30) is False
    await lb.locks.try_acquire("k", "alice", 5)
    assert await lb.locks.renew("k", "bob", 99) is False
    assert await lb.locks.renew("k", "alice", 99) is True
    [lease] = await lb.locks.list()
    assert lease.owner == "alice"
    assert lease.expires_at == pytest.approx(await lb.store.server_time() + 99, abs=5)


async def test_renew_may_shorten_a_lease(lb: Lockbeat) -> None:
    await lb.locks.try_acquire("k", "alice", 99)
    assert await lb.locks.renew("k", "alice", SHORT)
    await ended(lb, "k")


async def test_renew_revives_neither_an_expired_nor_a_released_lock(lb: Lockbeat) -> None:
    await lb.locks.try_acquire("expired", "alice", SHORT)
    await lb.locks.try_acquire("released", "alice", 30)
    await lb.locks.release("released", "alice")
    await ended(lb, "expired")
    for key in ("expired", "released"):
        assert await lb.locks.renew(key, "alice", 30) is False
        assert not await lb.locks.is_locked(key)


async def test_is_locked_and_owner_know_live_locks_only(lb: Lockbeat) -> None:
    assert (await lb.locks.is_locked("k"), await lb.locks.owner("k")) == (False, None)
    await lb.locks.try_acquire("k", "alice", 30)
    assert (await lb.locks.is_locked("k"), await lb.locks.owner("k")) == (True, "alice")
    await lb.locks.renew("k", "alice", SHORT)
    await ended(lb, "k")
    assert (await lb.locks.is_locked("k"), await lb.locks.owner("k")) == (False, None)
    assert await lb.locks.list() == []
    assert await lb.locks.list("alice") == []


async def test_release_all_counts_live_locks_and_touches_no_other_owner(lb: Lockbeat) -> None:
    for n in range(8):
        await lb.locks.try_acquire(f"k{n}", "alice", 30)
    await lb.locks.try_acquire("old", "alice", SHORT)
    await lb.locks.try_acquire("mine", "bob", 30)
    await ended(lb, "old")
    assert await lb.locks.release_all("alice") == 8
    assert await lb.locks.release_all("alice") == 0
    assert [(lease.key, lease.owner) for lease in await lb.locks.list()] == [("mine", "bob")]


async def test_release_all_tells_owners_apart_that_begin_alike(lb: Lockbeat) -> None:
    for owner in ("a", "ab", "a\xff", "a\0", "a:b", "\xffa", "\xff", "a "):
        await lb.locks.try_acquire(f"of {owner}", owner, 30)
        await lb.locks.try_acquire(f"also of {owner}", owner, 30)
    assert await lb.locks.release_all("a") == 2
    assert await lb.locks.release_all("\xff") == 2
    assert {lease.owner for lease in await lb.locks.list()} == {"ab", "a\xff", "a\0", "a:b", "\xffa", "a "}
    assert {lease.key for lease in await lb.locks.list("a\xff")} == {"of a\xff", "also of a\xff"}


async def test_locks_is_a_lock_backend(lb: Lockbeat) -> None:
    backend: LockBackend = lb.locks  # mypy checks the signatures
    assert isinstance(backend, LockBackend)


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name[:12]))
async def test_any_text_of_up_to_1024_bytes_is_a_key_and_an_owner(lb: Lockbeat, name: str) -> None:
    lease = await lb.locks.try_acquire(name, name, 30)
    assert lease is not None
    assert (lease.key, lease.owner) == (name, name)
    assert await lb.locks.try_acquire(name, name + "x" if len(name) < 512 else "x", 30) is None
    assert await lb.locks.owner(name) == name
    assert await lb.locks.list(name) == [lease]
    assert await lb.locks.renew(name, name, 30)
    assert await lb.locks.release(name, name)
    await lb.locks.try_acquire(name, name, 30)
    assert await lb.locks.release_all(name) == 1


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name[:12]))
async def test_any_such_key_can_be_waited_for(lb: Lockbeat, name: str) -> None:
    await lb.locks.try_acquire(name, "holder", 30)
    waiting = asyncio.create_task(lb.lock(name, wait=10).__aenter__())
    await wait_until(lambda: lb.locks._room._rooms.get(name), "it waits")
    await lb.locks.try_acquire(name, "newcomer", 30)  # a round trip: by now the waiter is in the queue
    assert await lb.locks.release(name, "holder")
    assert (await waiting).key == name
    await lb.locks.release_all(lb.owner)


async def test_keys_that_begin_alike_are_different_locks(lb: Lockbeat) -> None:
    keys = ["k", "k\xff", "kk", "k:", "k\0", "k k", "k{", "K"]
    for key in keys:
        assert await lb.locks.try_acquire(key, f"of {key}", 30)
    for key in keys:
        assert await lb.locks.owner(key) == f"of {key}"
    assert await lb.locks.release("k", "of k")
    assert {lease.key for lease in await lb.locks.list()} == set(keys) - {"k"}


BAD_NAMES: list[tuple[Any, type[LockbeatError]]] = [
    ("", InvalidArgument),
    ("x" * 1025, InvalidArgument),
    ("é" * 513, InvalidArgument),
    ("lone \ud800 surrogate", InvalidArgument),
    (b"bytes", InvalidType),
    (None, InvalidType),
    (7, InvalidType),
    (["k"], InvalidType),
]
BAD_TTLS: list[tuple[Any, type[LockbeatError]]] = [
    (0, InvalidArgument),
    (0.0, InvalidArgument),
    (0.0009, InvalidArgument),
    (-1, InvalidArgument),
    (math.nan, InvalidArgument),
    (math.inf, InvalidArgument),
    (-math.inf, InvalidArgument),
    (10**400, InvalidArgument),
    (11 * 365.25 * 86_400, InvalidArgument),
    (timedelta(0), InvalidArgument),
    (timedelta.max, InvalidArgument),
    (True, InvalidType),
    ("5", InvalidType),
    (None, InvalidType),
    (Decimal(5), InvalidType),
]


@pytest.mark.parametrize(("value", "error"), BAD_NAMES, ids=lambda value: ascii(value)[:20])
@pytest.mark.parametrize("argument", ["key", "owner"])
async def test_a_bad_name_is_refused_by_every_verb_and_nothing_is_sent(
    lb: Lockbeat, raw: Any, argument: str, value: Any, error: type[LockbeatError]
) -> None:
    good: dict[str, Any] = {"key": "k", "owner": "alice", "ttl": 5} | {argument: value}
    key, owner, ttl = good["key"], good["owner"], good["ttl"]
    verbs: list[Any] = [
        lambda: lb.locks.try_acquire(key, owner, ttl),
        lambda: lb.locks.release(key, owner),
        lambda: lb.locks.renew(key, owner, ttl),
    ]
    if argument == "key":
        verbs += [lambda: lb.locks.is_locked(key), lambda: lb.locks.owner(key), lambda: take(lb, key)]
    else:
        verbs += [lambda: lb.locks.release_all(owner)]
        if owner is not None:
            verbs += [lambda: lb.locks.list(owner)]
    before = set(raw.keys("*"))
    for verb in verbs:
        with pytest.raises(error) as caught:
            await verb()
        assert isinstance(caught.value, InvalidArgument)
        assert isinstance(caught.value, TypeError if error is InvalidType else ValueError)
        assert caught.value.argument == argument
        assert str(caught.value).startswith(f"{argument}: ")
    assert set(raw.keys("*")) == before


async def take(lb: Lockbeat, key: str, **options: Any) -> None:
    async with lb.lock(key, **options):
        pass


@pytest.mark.parametrize(("ttl", "error"), BAD_TTLS, ids=lambda value: ascii(value)[:20])
async def test_a_bad_ttl_is_refused_by_every_verb_and_nothing_is_sent(
    lb: Lockbeat, raw: Any, ttl: Any, error: type[LockbeatError]
) -> None:
    await lb.locks.try_acquire("held", "alice", 30)
    before = await lb.locks.list()
    for verb in (
        lambda: lb.locks.try_acquire("held", "alice", ttl),
        lambda: lb.locks.renew("held", "alice", ttl),
        lambda: take(lb, "k", ttl=ttl),
    ):
        with pytest.raises(error) as caught:
            await verb()
        assert isinstance(caught.value, InvalidArgument)
        assert caught.value.argument == "ttl"
    assert await lb.locks.list() == before


@pytest.mark.parametrize("ttl", [0.001, 1, 2.5, timedelta(milliseconds=1), 10 * 365.25 * 86_400])
async def test_a_ttl_is_seconds_or_a_timedelta_from_a_millisecond_to_ten_years(lb: Lockbeat, ttl: Any) -> None:
    lease = await lb.locks.try_acquire("k", "alice", ttl)
    assert lease is not None
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    assert lease.expires_at == pytest.approx(await lb.store.server_time() + seconds, abs=5)
    await lb.locks.release("k", "alice")


async def test_a_ttl_keeps_its_milliseconds(lb: Lockbeat) -> None:
    before = await lb.store.server_time()
    first = await lb.locks.try_acquire("k", "alice", 0.9)  # celers made this 0
    after = await lb.store.server_time()
    assert first is not None
    assert before + 0.899 <= first.expires_at <= after + 0.901


@pytest.mark.parametrize("wait", [-1, math.nan, "5", True])
async def test_a_bad_wait_is_refused(lb: Lockbeat, wait: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^wait: "):
        lb.lock("k", wait=wait)
