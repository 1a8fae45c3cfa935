"""The claim scripts, called straight: replies, batches, what they leave behind, and the contract that the Python callers keep."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine

from lockbeat import Lockbeat
from lockbeat.store import results
from lockbeat.store.keys import KEYS, Keys, claim_place
from lockbeat.store.scripts import load
from tests import servers
from tests.claims import acquired, left_behind
from tests.conftest import Backend, Connect, chosen, only
from tests.keeping import renewed
from tests.servers import Server

Run = Callable[..., Any]
HOUR_MS, WEEK_MS = 3_600_000, 7 * 86_400_000
FAMILIES = [name for name in KEYS if name.startswith("claim") and name != "claim:stats"]


@pytest.fixture
def run(raw: Any, namespace: str) -> Run:
    """Calls a script by its digest, on shard 0: `run(name, *args)`."""

    def run(name: str, *args: str | int) -> Any:
        script, keys = load(name).bare(), Keys(namespace)
        names = [keys.key(0, key) for key in script.keys]
        raw.script_load(script.source)
        return raw.evalsha(script.sha, len(names), *names, *args)

    return run


def acquire(key: str, owner: str, token: str, lease_ms: int = 30_000, queue: str = "q") -> tuple[Any, ...]:
    return (queue, key, owner, token, lease_ms)


def test_acquire_answers_each_group_in_order(run: Run) -> None:
    first, second, busy, again = run(
        "claim/acquire",
        *acquire("a", "alice", "t1"),
        *acquire("b", "alice", "t2"),
        *acquire("a", "alice", "t3"),
        *acquire("a", "alice", "t1"),
    )
    assert first[:4] == [results.DONE, b"q", b"a", b"alice"]
    assert first[6:] == [1, b"", b""]
    assert second[4] > first[4]
    assert busy == [results.BUSY, b"alice", first[5]]
    assert again == first


def test_done_is_answered_while_it_is_held(run: Run) -> None:
    [[_, _, _, _, fence, *_]] = run("claim/acquire", *acquire("a", "alice", "t1"))
    assert run("claim/complete", "q", "a", "alice", fence, "c1", '{"n":[]}', 5000) == [1]
    [[said, owner, at, until, result]] = run("claim/acquire", *acquire("a", "bob", "t2"))
    assert (said, owner, until - at, result) == (results.REMEMBERED, b"alice", 5000, b'{"n":[]}')


@pytest.mark.parametrize(
    ("script", "rest"),
    [
        ("claim/complete", ("null", 0)),
        ("claim/fail", ('"boo"',)),
    ],
)
def test_an_end_answers_each_group_says_why_and_knows_a_repeated_call(run: Run, script: str, rest: tuple[Any, ...]) -> None:
    fences = [reply[4] for reply in run("claim/acquire", *acquire("a", "alice", "t1"), *acquire("b", "alice", "t2"))]
    groups = [
        ("q", "a", "alice", fences[0], "c1", *rest),
        ("q", "a", "alice", fences[0], "c2", *rest),
        ("q", "b", "bob", fences[1], "c3", *rest),
        ("q", "b", "alice", fences[1] + 1, "c4", *rest),
        ("q", "x", "alice", fences[1], "c5", *rest),
    ]
    for _ in range(2):
        assert run(script, *(arg for group in groups for arg in group)) == [
            results.DONE,
            results.FINISHED,
            results.ANOTHERS,
            results.STALE,
            results.UNKNOWN,
        ]


def test_release_by_token_undoes_only_the_call_of_that_token(run: Run) -> None:
    [reply] = run("claim/acquire", *acquire("a", "alice", "t1"))
    assert run("claim/release", "q", "a", "alice", "-", "c1", "t2") == [results.STALE]
    assert run("claim/release", "q", "b", "alice", "-", "c2", "t1") == [results.UNKNOWN]
    assert run("claim/get", "q", "a") == [reply[1:]]
    assert run("claim/release", "q", "a", "alice", "-", "c3", "t1") == [1]
    assert run("claim/release", "q", "a", "alice", "-", "c3", "t1") == [1]
    assert run("claim/get", "q", "a", "q", "b") == [[], []]


def test_renew_answers_each_group_and_why_it_refuses(run: Run) -> None:
    [[*_, fence, expires, _, _, _]] = run("claim/acquire", *acquire("a", "alice", "t1"))
    for calls in ("----", "1234"):
        renewed, *refused = run(
            "claim/renew",
            *("q", "a", "alice", fence, calls[0], 60_000),
            *("q", "a", "bob", fence, calls[1], 5),
            *("q", "a", "alice", fence - 1, calls[2], 5),
            *("q", "x", "alice", fence, calls[3], 5),
        )
        assert renewed - expires >= 30_000
        assert refused == [results.ANOTHERS, results.STALE, results.UNKNOWN]


def test_release_all_and_cleanup_page_and_repeat_their_answers(run: Run) -> None:
    run("claim/acquire", *(arg for n in range(5) for arg in acquire(f"k{n}", "alice", f"t{n}")))
    for _ in range(2):
        assert run("claim/release_all", "alice", "", "c1", 3) == [3, b"q\xffk2"]
    assert run("claim/release_all", "alice", "q\xffk2".encode("latin-1"), "c2", 3) == [2, b""]
    assert run("claim/cleanup", "c3", 3) == [0, 0]


def test_list_pages_in_order_of_keys(run: Run) -> None:
    for key in ("z", "c", "a", "b"):
        run("claim/acquire", *acquire(key, "alice", f"t{key}"))
    run("claim/acquire", *acquire("aa", "alice", "other", queue="q2"))
    seen, after = [], b""
    for _ in range(3):
        after, *page = run("claim/list", "q", after, 2)
        seen += [row[1] for row in page]
    assert (seen, after) == ([b"a", b"b", b"c", b"z"], b"")


def test_a_repeated_end_is_known_while_the_claim_changes_hands_eight_times(run: Run) -> None:
    [[*_, fence, _, _, _, _]] = run("claim/acquire", *acquire("k", "alice", "t1"))
    assert run("claim/fail", "q", "k", "alice", fence, "0123456789.1", '"boo"') == [1]
    for n in range(7):
        [[*_, other, _, _, _, _]] = run("claim/acquire", *acquire("k", f"o{n}", f"t{n}"))
        assert run("claim/complete", "q", "k", f"o{n}", other, f"0123456789.{n + 2}", "null", 0) == [1]
        assert run("claim/fail", "q", "k", "alice", fence, "0123456789.1", '"boo"') == [1]
        assert run("claim/fail", "q", "k", "alice", fence, "123456789.1", '"boo"') != [1]


def test_every_claim_key_has_a_ttl_that_outlives_what_is_in_it(run: Run, raw: Any, namespace: str) -> None:
    keys = Keys(namespace)
    run("claim/acquire", *acquire("short", "alice", "t1", lease_ms=10))
    assert min(raw.pttl(keys.key(0, name)) for name in FAMILIES) > WEEK_MS
    [[*_, fence, _, _, _, _]] = run("claim/acquire", *acquire("long", "alice", "t2", lease_ms=30 * 86_400_000))
    assert min(raw.pttl(keys.key(0, name)) for name in FAMILIES) > 30 * 86_400_000 + WEEK_MS - 1000
    run("claim/complete", "q", "long", "alice", fence, "c1", "null", 90 * 86_400_000)
    assert min(raw.pttl(keys.key(0, name)) for name in FAMILIES) > 90 * 86_400_000 - 1000


def test_a_ttl_is_set_once_an_hour_not_once_a_call(run: Run, raw: Any, namespace: str) -> None:
    keys = Keys(namespace)
    run("claim/acquire", *acquire("k", "alice", "t1"))
    before = [raw.pexpiretime(keys.key(0, name)) for name in FAMILIES]
    run("claim/acquire", *acquire("k2", "alice", "t2"))
    assert [raw.pexpiretime(keys.key(0, name)) for name in FAMILIES] == before


def members(raw: Any, namespace: str) -> dict[str, int]:
    """How many members each key has, without the one that keeps it from being emptied."""
    keys = Keys(namespace)
    hashes = ("claim", "claim:past")
    found = {name: (raw.hlen if name in hashes else raw.zcard)(keys.key(0, name)) for name in FAMILIES}
    return {name: count - 1 for name, count in found.items() if count > 1}


@only("memory")
def test_after_everything_ended_and_time_has_passed_nothing_is_left(run: Run, raw: Any, namespace: str) -> None:
    """Whatever became of it: done and held, failed, released, swept, or run out and missed by nobody."""
    with time_machine.travel(dt.datetime(2031, 1, 1, tzinfo=dt.UTC), tick=False) as clock:
        for n in range(60):
            [[*_, fence, _, _, _, _]] = run("claim/acquire", *acquire(f"k{n}", "alice", f"t{n}", lease_ms=1000))
            if n % 6 == 0:
                run("claim/complete", "q", f"k{n}", "alice", fence, f"c{n}", '"result"', 60_000)
            elif n % 6 == 1:
                run("claim/fail", "q", f"k{n}", "alice", fence, f"c{n}", '"boo"')
            elif n % 6 == 2:
                run("claim/release", "q", f"k{n}", "alice", fence, f"c{n}", "-")
            elif n % 6 == 3:
                run("claim/complete", "q", f"k{n}", "alice", fence, f"c{n}", '"result"', 0)
        clock.shift(2)
        run("claim/cleanup", "s1", 10)
        clock.shift(25)
        run("claim/cleanup", "s2", 1000)
        # Ten held, ten failed, ten swept just now; what was released, done and not held, or swept before is forgotten.
        assert members(raw, namespace) == {"claim:past": 30, "claim:ended": 30}
        clock.shift(7 * 86_400)
        for n in range(30):  # each of those who come forgets a few
            [[*_, fence, _, _, _, _]] = run("claim/acquire", *acquire("new", "alice", f"u{n}"))
            run("claim/release", "q", "new", "alice", fence, f"d{n}", "-")
        assert members(raw, namespace) == {"claim:past": 1, "claim:ended": 1}
        clock.shift(21)
        run("claim/cleanup", "s4", 10)
        assert members(raw, namespace) == {}


@only("memory")
def test_what_nobody_missed_is_forgotten_after_a_week_and_counted(run: Run, raw: Any, namespace: str) -> None:
    with time_machine.travel(dt.datetime(2031, 1, 1, tzinfo=dt.UTC), tick=False) as clock:
        run("claim/acquire", *(arg for n in range(40) for arg in acquire(f"k{n}", "alice", f"t{n}", lease_ms=1000)))
        clock.shift(7 * 86_400 - 1)
        [[_, *row]] = run("claim/acquire", *acquire("k0", "bob", "u0", lease_ms=1000))
        assert row[5:7] == [2, b"alice"]  # taken over
        clock.shift(3)
        for n in range(25):
            run("claim/acquire", *acquire(f"new{n}", "bob", f"v{n}"))
        acquired_, *_, expired = run("claim/stats")
        assert (acquired_, expired) == (65, 40)
        assert members(raw, namespace)["claim"] == 26


@only("memory")
def test_a_run_moves_and_forgets_a_bounded_number(run: Run, raw: Any, namespace: str) -> None:
    with time_machine.travel(dt.datetime(2031, 1, 1, tzinfo=dt.UTC), tick=False) as clock:
        run("claim/acquire", *(arg for n in range(50) for arg in acquire(f"k{n}", "alice", f"t{n}", lease_ms=1000)))
        clock.shift(2)
        run("claim/acquire", *acquire("new", "bob", "u"))
        assert members(raw, namespace)["claim:order"] == 51
        assert run("claim/active", "q", 10) == [1, 1]  # the whole of one millisecond, in which all of them ran out
        assert run("claim/active", "q", 10) == [1, 0]


def test_what_was_evicted_alone_is_still_claimed(run: Run, raw: Any, namespace: str) -> None:
    keys = Keys(namespace)
    run("claim/acquire", *acquire("k", "alice", "t1"))
    raw.delete(keys.key(0, "claim:past"), keys.key(0, "claim:live"))
    [[said, owner, _]] = run("claim/acquire", *acquire("k", "bob", "t2"))
    assert (said, owner) == (results.BUSY, b"alice")
    raw.flushall()  # the new key gets its TTL within the hour


def test_the_shard_of_a_claim_is_stable_across_releases_and_told_by_queue_and_key() -> None:
    """Changing these loses every claim of a store in use."""
    assert claim_place("orders", "17") == "claim:6:orders17"
    places = [("a", "bc"), ("ab", "c"), ("1", "1:1"), ("1:1", "1"), ("é", "x"), ("\xff", "y")]
    assert len({claim_place(queue, key) for queue, key in places}) == len(places)


VERBS = ("acquire", "renew", "complete", "fail", "release", "release_all", "get", "list", "active", "expired", "cleanup", "stats")


async def use_every_verb(lb: Lockbeat) -> None:
    await lb.claims.renew(await acquired(lb.claims, "k"), 30)
    assert not await lb.claims.acquire("k", "bob")
    await lb.claims.complete(await acquired(lb.claims, "done"), "result", hold=30)
    assert not await lb.claims.acquire("done", "bob")
    await lb.claims.fail(await acquired(lb.claims, "failed"), "boo")
    await lb.claims.release(await acquired(lb.claims, "released"))
    await left_behind(lb, "old")
    await acquired(lb.claims, "old", "bob")
    await left_behind(lb, "older")
    assert [claim.key for claim in await lb.claims.expired()] == ["older"]
    assert [claim.key for claim in await lb.claims.list()] == ["k", "old"]
    assert await lb.claims.active() == 2
    assert await lb.claims.cleanup() == 1
    assert await lb.claims.get("k", "alice")
    async with lb.claims.hold("held"):
        await renewed(lb)
    task = asyncio.create_task(lb.claims.acquire("cancelled", "alice"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await lb.claims.release_all("alice") == 1
    assert (await lb.claims.stats()).attempts >= 8


async def test_the_python_callers_keep_to_the_headers(arity: set[str], connect: Connect) -> None:
    async with connect() as lb:
        await use_every_verb(lb)
    assert {f"claim/{verb}" for verb in VERBS} <= arity


@only("valkey", "redis", "cluster")
async def test_a_script_flush_in_the_middle_is_healed(lb: Lockbeat, backend: Backend) -> None:
    def flush() -> None:
        for server in backend.servers:
            server.call("SCRIPT", "FLUSH")

    claim = await acquired(lb.claims, "k")
    flush()
    assert not await lb.claims.acquire("k", "bob")
    flush()
    assert await lb.claims.renew(claim, 30)
    flush()
    assert await lb.claims.complete(claim)


COMMANDS = (
    "+evalsha +eval +client|setname +time +exists +get +set +pexpireat +pttl +unlink +hget +hset +hdel +hmget +hincrby "
    "+zadd +zrem +zmscore +zrange +zrangebylex +zrangebyscore +zrevrangebyscore +zlexcount"
)


@pytest.fixture(params=chosen("valkey"))
def guarded() -> Iterator[Server]:
    user = f"user limited on >pw resetkeys ~{{app:* resetchannels &{{app* -@all {COMMANDS}"
    with servers.standalone(servers.valkey_binary(), acl=[user]) as server:
        yield server


@only("valkey")
@pytest.mark.parametrize("shards", [1, 3])
async def test_a_user_of_one_namespace_can_do_everything_with_claims(backend: Backend, guarded: Server, shards: int) -> None:
    """So every key is declared and prefixed."""
    async with Lockbeat(f"redis://limited:pw@127.0.0.1:{guarded.port}", namespace="app", shards=shards) as lb:
        await use_every_verb(lb)
