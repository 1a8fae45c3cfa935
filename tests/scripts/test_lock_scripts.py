"""The lock scripts, called straight: replies, batches, and the contract that the Python callers keep."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
import time_machine

from lockbeat import Lockbeat
from lockbeat.store.keys import Keys
from lockbeat.store.scripts import load
from tests.conftest import Backend, Connect, only

Run = Callable[..., Any]
HEARD = only("memory", "valkey", "redis")
"""On a cluster PUBLISH counts the listeners of one node."""


@pytest.fixture
def run(raw: Any, namespace: str) -> Run:
    """Calls a script by its digest, on shard 0: `run(name, *args)`."""

    def run(name: str, *args: str | int) -> Any:
        script, keys = load(name).bare(), Keys(namespace)
        names = [keys.key(0, key) for key in script.keys]
        raw.script_load(script.source)
        return raw.evalsha(script.sha, len(names), *names, *args)

    return run


def acquire(key: str, owner: str, token: str, ttl_ms: int = 30_000, reentrant: int = 1, channel: str = "") -> tuple[Any, ...]:
    return (key, owner, token, ttl_ms, reentrant, channel)


def test_try_acquire_answers_each_group_in_order(run: Run) -> None:
    replies = run(
        "lock/try_acquire",
        *acquire("a", "alice", "t1"),
        *acquire("b", "alice", "t2"),
        *acquire("a", "bob", "t3"),
        *acquire("a", "alice", "t4"),
    )
    (fence_a, expires, now), (fence_b, *_), (refused, wait_ms, *_), (again, *_) = replies
    assert expires == now + 30_000
    assert fence_b > fence_a
    assert (refused, wait_ms) == (0, 30_000)
    assert again == fence_a


def test_try_acquire_by_the_same_call_is_the_same_grant_for_handles_too(run: Run) -> None:
    [[first, *_]] = run("lock/try_acquire", *acquire("k", "alice", "t1", reentrant=0))
    [[again, *_]] = run("lock/try_acquire", *acquire("k", "alice", "t1", reentrant=0))
    [[other, *_]] = run("lock/try_acquire", *acquire("k", "alice", "t2", reentrant=0))
    assert (again, other) == (first, 0)


def test_release_answers_each_group_and_knows_a_repeated_call(run: Run) -> None:
    run("lock/try_acquire", *acquire("a", "alice", "t1"), *acquire("b", "bob", "t2"))
    release = ("a", "alice", "-", "c1", "b", "alice", "-", "c2", "missing", "alice", "-", "c3")
    assert run("lock/release", *release) == [1, 0, 0]
    assert run("lock/release", *release) == [1, 0, 0]
    assert run("lock/release", "a", "alice", "-", "c4") == [0]
    assert run("lock/owner", "b") == [[b"bob", *run("lock/owner", "b")[0][1:]]]


def test_release_wants_the_token_unless_any_will_do(run: Run) -> None:
    run("lock/try_acquire", *acquire("a", "alice", "t1"))
    assert run("lock/release", "a", "alice", "t2", "c1") == [0]
    assert run("lock/is_locked", "a") == [1]
    assert run("lock/release", "a", "alice", "t1", "c2") == [1]


def test_a_repeated_release_is_known_however_often_the_lock_changed_hands(run: Run) -> None:
    run("lock/try_acquire", *acquire("k", "alice", "t1"))
    assert run("lock/release", "k", "alice", "t1", "0123456789.1") == [1]
    for n in range(30):
        run("lock/try_acquire", *acquire("k", f"o{n}", f"t{n}"))
        assert run("lock/release", "k", f"o{n}", "-", f"0123456789.{n + 2}") == [1]
        assert run("lock/release", "k", "alice", "t1", "0123456789.1") == [1]
        assert run("lock/release", "k", "alice", "t1", "123456789.1") == [0]


def test_renew_answers_each_group_and_wants_owner_and_token(run: Run) -> None:
    run("lock/try_acquire", *acquire("a", "alice", "t1"), *acquire("b", "bob", "t2"))
    groups = [
        ("a", "alice", "-", 5),
        ("a", "alice", "t1", 60_000),
        ("a", "alice", "t2", 5),
        ("b", "alice", "-", 5),
        ("x", "bob", "-", 5),
    ]
    first, renewed, *refused = run("lock/renew", *(arg for group in groups for arg in group))
    assert renewed == first + 60_000 - 5
    assert refused == [0, 0, 0]


def test_a_renewal_of_the_same_length_leaves_the_record_as_it_is(run: Run, raw: Any, namespace: str) -> None:
    records, live = (Keys(namespace).key(0, name) for name in ("lock", "lock:live"))
    [[fence, *_]] = run("lock/try_acquire", *acquire("k", "alice", "t1"))
    before = raw.hget(records, "k")
    [expires] = run("lock/renew", "k", "alice", "t1", 30_000)
    assert (raw.hget(records, "k"), raw.zscore(live, "k")) == (before, expires)
    [expires] = run("lock/renew", "k", "alice", "t1", 5_000)
    assert raw.hget(records, "k") == f"{fence} 5000 t1 - alice".encode()
    assert run("lock/owner", "k") == [[b"alice", fence, expires]]


def test_calls_of_one_run_on_the_same_lock_see_each_other(run: Run, raw: Any, namespace: str) -> None:
    run("lock/try_acquire", *acquire("k", "alice", "t1"), *acquire("k", "alice", "t2"), *acquire("j", "alice", "t3"))
    group = ("k", "alice")
    assert run("lock/release", *group, "t1", "c1", *group, "t2", "c2", *group, "t2", "c3", "j", "alice", "t3", "c4") == [
        0,
        1,
        0,
        1,
    ]
    for name in ("lock", "lock:live", "lock:owned"):
        keys = raw.hkeys if name == "lock" else lambda key: raw.zrange(key, 0, -1)
        assert not {b"k", b"j", b"alice\xffk", b"alice\xffj"} & set(keys(Keys(namespace).key(0, name)))
    [[first, *_], [second, *_], [third, *_]] = run(
        "lock/try_acquire", *acquire("k", "a", "t4"), *acquire("k", "b", "t5"), *acquire("k", "a", "t6")
    )
    assert (first > 0, second, third) == (True, 0, first)
    assert run("lock/confirm", "k", "a", "t4", 9, "k", "a", "t4,t6", 9)[0] == [0, 0]


@HEARD
def test_a_lock_that_is_handed_on_and_given_back_in_one_run_goes_to_the_next(run: Run, raw: Any, namespace: str) -> None:
    keys = Keys(namespace)
    with raw.pubsub() as pubsub:
        pubsub.subscribe(keys.channel("to:b"))
        assert pubsub.get_message(timeout=30)["type"] == "subscribe"
        run("lock/try_acquire", *acquire("k", "alice", "t0"))
        for token in ("tb", "tc"):
            run("lock/try_acquire", *acquire("k", f"owner-{token}", token, channel=keys.channel("to:b")))
        groups = ("k", "alice", "t0", "c0", "k", "owner-tb", "tb", "c1")
        assert run("lock/release", *groups) == [1, 1]
        assert run("lock/release", *groups) == [1, 1], "the same calls, repeated"
    assert run("lock/owner", "k")[0][0] == b"owner-tc"
    assert raw.zrange(keys.key(0, "lock:owned"), 0, 0) == [b"owner-tc\xffk"]


@pytest.fixture
def attempt(raw: Any, namespace: str) -> Callable[[int], None]:
    """Leases `job:a` to alice as an attempt of the slot 17 is, to expire then (ms)."""

    def attempt(expires: int) -> None:
        keys = Keys(namespace)
        raw.hset(keys.key(0, "lock"), "job:a", "7 30000 c1 17 alice")
        raw.zadd(keys.key(0, "lock:live"), {"job:a": expires})
        raw.zadd(keys.key(0, "lock:owned"), {b"alice\xffjob:a": 0})

    return attempt


def test_the_verbs_of_locks_leave_what_an_attempt_holds_alone(run: Run, attempt: Callable[[int], None]) -> None:
    [[_, _, now]] = run("lock/try_acquire", *acquire("other", "alice", "t1"))  # which gives the keys their TTL
    attempt(now + 20_000)
    [[fence, wait_ms, *_]] = run("lock/try_acquire", *acquire("job:a", "alice", "t2"))
    assert (fence, wait_ms <= 20_000) == (0, True), "its own owner does not lock it either"
    assert run("lock/renew", "job:a", "alice", "-", 60_000, "job:a", "alice", "c1", 60_000) == [0, 0]
    assert run("lock/release", "job:a", "alice", "-", "c2", "job:a", "alice", "c1+", "c3", "job:a", "alice", "=7", "c4") == [
        0,
        0,
        0,
    ]
    assert run("lock/release_all", "alice", "", "c5", 1) == [0, b"job:a"]
    assert run("lock/release_all", "alice", "job:a", "c6", 1) == [1, b"other"]
    assert run("lock/owner", "job:a") == [[b"alice", 7, now + 20_000]]
    assert run("lock/list", "", "", 9) == [b"", [b"job:a", b"alice", 7, now + 20_000]]


def test_who_locks_what_an_expired_attempt_held_leaves_its_lease_to_the_sweep(
    run: Run, raw: Any, namespace: str, attempt: Callable[[int], None]
) -> None:
    attempt(1_000)
    for n in range(9):  # each of these forgets what has expired, but not this
        run("lock/try_acquire", *acquire(f"other{n}", "bob", f"t{n}"))
    keys, aside = Keys(namespace), b"job:a\xff17"
    assert raw.hget(keys.key(0, "lock"), "job:a") == b"7 30000 c1 17 alice"
    [[fence, *_]] = run("lock/try_acquire", *acquire("job:a", "bob", "t"))
    assert fence > 7
    assert raw.hget(keys.key(0, "lock"), aside) == b"7 30000 c1 17 alice"
    assert raw.zrange(keys.key(0, "lock:live"), 0, 0, withscores=True) == [(aside, 1_000)]
    assert run("lock/owner", "job:a")[0][:2] == [b"bob", fence]


def test_a_lock_without_an_expiry_is_held_for_its_ttl_from_when_somebody_asks_for_it(run: Run, raw: Any, namespace: str) -> None:
    live = Keys(namespace).key(0, "lock:live")
    run("lock/try_acquire", *acquire("k", "alice", "t1", ttl_ms=20_000))
    raw.zrem(live, "k")
    assert run("lock/is_locked", "k") == [1]
    [[fence, wait_ms, now, _]] = run("lock/try_acquire", *acquire("k", "bob", "t2"))
    assert (fence, wait_ms, raw.zscore(live, "k")) == (0, 20_000, now + 20_000)
    raw.zrem(live, "k")
    assert run("lock/renew", "k", "alice", "t1", 9_000)[0] > 0
    raw.zrem(live, "k")
    assert run("lock/release", "k", "alice", "t1", "c1") == [1]


def test_confirm_renews_what_the_very_call_of_that_owner_was_given(run: Run) -> None:
    [[fence, *_]] = run("lock/try_acquire", *acquire("k", "alice", "t1", ttl_ms=2_000))
    groups = ("k", "bob", "t1", 30_000, "k", "alice", "t2", 30_000, "missing", "alice", "t1", 30_000, "k", "alice", "t1", 30_000)
    *refused, (again, expires) = run("lock/confirm", *groups)
    assert (refused, again) == ([[0, 0]] * 3, fence)
    assert run("lock/owner", "k") == [[b"alice", fence, expires]]


def test_is_locked_and_owner_answer_each_group(run: Run) -> None:
    [[fence, expires, _]] = run("lock/try_acquire", *acquire("a", "alice", "t1"))
    assert run("lock/is_locked", "a", "b", "a") == [1, 0, 1]
    assert run("lock/owner", "b", "a") == [[], [b"alice", fence, expires]]


def test_release_all_pages_and_repeats_its_answer(run: Run) -> None:
    run("lock/try_acquire", *(arg for n in range(5) for arg in acquire(f"k{n}", "alice", f"t{n}")))
    assert run("lock/release_all", "alice", "", "c1", 3) == [3, b"k2"]
    assert run("lock/release_all", "alice", "", "c1", 3) == [3, b"k2"]
    assert run("lock/release_all", "alice", "k2", "c2", 3) == [2, b""]
    assert run("lock/release_all", "alice", "", "c3", 3) == [0, b""]


def test_list_pages_in_order_of_owner_and_key(run: Run) -> None:
    for owner, key in (("bob", "z"), ("alice", "c"), ("alice", "a"), ("alice", "b")):
        run("lock/try_acquire", *acquire(key, owner, f"t{key}"))
    seen, cursor = [], b""
    for _ in range(3):
        cursor, *page = run("lock/list", "", cursor, 2)
        seen += [(owner, key) for key, owner, *_ in page]
    assert seen == [(b"alice", b"a"), (b"alice", b"b"), (b"alice", b"c"), (b"bob", b"z")]
    assert cursor == b""


@HEARD
def test_a_release_hands_the_lock_to_the_first_who_listens(run: Run, raw: Any, namespace: str) -> None:
    keys = Keys(namespace)
    with raw.pubsub() as pubsub:
        pubsub.subscribe(keys.channel("to:b"))
        assert pubsub.get_message(timeout=30)["type"] == "subscribe"
        run("lock/try_acquire", *acquire("k", "alice", "t0"))
        for who in "abc":  # nobody listens for a
            run("lock/try_acquire", *acquire("k", f"owner-{who}", f"t{who}", channel=keys.channel(f"to:{who}")))
        assert raw.zcard(keys.key(0, "lock:queue")) == 3
        run("lock/release", "k", "alice", "t0", "c0")
        assert pubsub.get_message(timeout=30)["data"] == b"granted tb"
    [[fence, expires, now]] = run("lock/try_acquire", *acquire("k", "owner-b", "tb"))
    assert expires - now == 30_000, "on its own call it has the whole of its time"
    assert run("lock/owner", "k") == [[b"owner-b", fence, expires]]
    assert raw.hkeys(keys.key(0, "lock:waiters")) == [b"tc"]


@HEARD
def test_the_next_process_in_line_is_told_when_a_hand_off_ends_that_nobody_asks_for(run: Run, raw: Any, namespace: str) -> None:
    channels = [Keys(namespace).channel(f"to:{who}") for who in "bc"]
    with raw.pubsub() as pubsub:
        pubsub.subscribe(*channels)
        assert {pubsub.get_message(timeout=30)["type"] for _ in channels} == {"subscribe"}
        run("lock/try_acquire", *acquire("k", "alice", "t0"))
        for token, channel in (("t1", channels[0]), ("t2", channels[0]), ("t3", channels[1])):
            run("lock/try_acquire", *acquire("k", "someone", token, ttl_ms=1_500, reentrant=0, channel=channel))
        run("lock/release", "k", "alice", "t0", "c0")
        heard = {(message["channel"].decode(), message["data"]) for message in (pubsub.get_message(timeout=30) for _ in "ab")}
    assert heard == {(channels[0], b"granted t1"), (channels[1], b"next t3 1500")}


@HEARD
def test_what_was_handed_over_must_be_asked_for_within_two_seconds(run: Run, raw: Any, namespace: str) -> None:
    channel = Keys(namespace).channel("to:b")
    with raw.pubsub() as pubsub:
        pubsub.subscribe(channel)
        assert pubsub.get_message(timeout=30)["type"] == "subscribe"
        [[_, taken, _]] = run("lock/try_acquire", *acquire("k", "alice", "t0"))
        run("lock/try_acquire", *acquire("k", "bob", "tb", channel=channel))
        run("lock/release", "k", "alice", "t0", "c0")
        [[who, _, expires]] = run("lock/owner", "k")
    assert (who, expires < taken - 20_000) == (b"bob", True)


def test_a_waiter_is_told_whether_it_has_kept_its_place(run: Run, namespace: str) -> None:
    channel = Keys(namespace).channel("to:nobody")
    run("lock/try_acquire", *acquire("k", "alice", "t0"))
    asking = acquire("k", "bob", "tb", channel=channel)
    before = [run("lock/try_acquire", *asking)[0][3] for _ in range(2)]
    run("lock/release", "k", "alice", "t0", "c0")  # nobody listens: it is passed over, and the lock is free
    run("lock/try_acquire", *acquire("k", "carol", "t1"))
    after = [run("lock/try_acquire", *asking)[0][3] for _ in range(2)]
    assert (before, after) == ([1, 0], [1, 0])


@only("memory")
def test_what_has_expired_is_forgotten_by_those_who_come(run: Run, raw: Any, namespace: str) -> None:
    keys, old = Keys(namespace), 40
    with time_machine.travel(dt.datetime(2031, 1, 1, tzinfo=dt.UTC), tick=False) as clock:
        for n in range(old):
            run("lock/try_acquire", *acquire(f"old{n}", "alice", f"t{n}", ttl_ms=1))
            assert raw.hlen(keys.key(0, "lock")) == n + 2, "with the empty one that keeps the key"
        clock.shift(1)
        for n in range(old):
            run("lock/try_acquire", *acquire(f"new{n}", "alice", f"u{n}"))
    for name, count in (("lock", raw.hlen), ("lock:live", raw.zcard), ("lock:owned", raw.zcard)):
        assert count(keys.key(0, name)) == old + 1, name


def test_what_has_expired_is_forgotten_though_many_attempts_wait_for_a_sweep(run: Run, raw: Any, namespace: str) -> None:
    keys, attempts = Keys(namespace), {f"job:{n}": f"7 30000 c1 {n} alice" for n in range(40)}
    run("lock/try_acquire", *acquire("first", "alice", "t", ttl_ms=1))
    raw.hset(keys.key(0, "lock"), mapping=attempts)
    raw.zadd(keys.key(0, "lock:live"), dict.fromkeys(attempts, 1_000))
    for n in range(1_000):
        run("lock/try_acquire", *acquire(f"k{n}", "alice", f"t{n}", ttl_ms=1))
    assert raw.hlen(keys.key(0, "lock")) < 400
    assert {key.encode() for key in attempts} <= set(raw.hkeys(keys.key(0, "lock")))


def test_every_lock_key_has_a_ttl_that_outlives_what_is_in_it(run: Run, raw: Any, namespace: str) -> None:
    keys = Keys(namespace)
    run("lock/try_acquire", *acquire("short", "alice", "t0", ttl_ms=10))
    run("lock/try_acquire", *acquire("long", "alice", "t1", ttl_ms=3_600_000))
    run("lock/try_acquire", *acquire("other", "alice", "t2", ttl_ms=10))
    run("lock/release", "other", "alice", "t2", "c1")
    for name in ("lock", "lock:live", "lock:owned"):
        assert raw.pttl(keys.key(0, name)) > 3_600_000
    run("lock/renew", "long", "alice", "t1", 7_200_000)
    for name in ("lock", "lock:live", "lock:owned"):
        assert raw.pttl(keys.key(0, name)) > 7_200_000


async def test_the_python_callers_keep_to_the_headers(arity: set[str], connect: Connect) -> None:
    async with connect() as lb:
        await lb.locks.try_acquire("k", "alice", 1)
        await lb.locks.renew("k", "alice", 1)
        await lb.locks.is_locked("k")
        await lb.locks.owner("k")
        await lb.locks.list()
        await lb.locks.release("k", "alice")
        await lb.locks.release_all("alice")
        async with lb.lock("k"):
            pass
        task = asyncio.create_task(lb.locks.try_acquire("k", "alice", 1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert {f"lock/{verb}" for verb in ("try_acquire", "renew", "is_locked", "owner", "list", "release", "release_all")} <= arity


@only("valkey", "redis", "cluster")
async def test_a_script_flush_in_the_middle_is_healed(lb: Lockbeat, connect: Connect, backend: Backend) -> None:
    def flush() -> None:
        for server in backend.servers:
            server.call("SCRIPT", "FLUSH")

    async with connect() as other:
        first = await lb.locks.try_acquire("k", "alice", 30)
        flush()
        assert await lb.locks.try_acquire("k", "bob", 30) is None
        flush()
        assert await lb.locks.renew("k", "alice", 30)
        waiting = asyncio.create_task(other.lock("k", ttl=30).__aenter__())
        flush()
        leases = await asyncio.gather(*(lb.locks.try_acquire(f"k{n}", "alice", 30) for n in range(40)))
        assert all(leases)
        flush()
        assert await lb.locks.release("k", "alice")
        flush()
        lease = await asyncio.wait_for(waiting, 3)
        assert first is not None
        assert lease.fence > first.fence
        flush()
        assert await lb.locks.release_all("alice") == 40
