"""claims and release-all: who is at what, and giving it back for one that is gone."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from lockbeat import Claim
from lockbeat import Lockbeat as Client

from .conftest import Lockbeat, using


async def acquire(lb: Client, key: str, owner: str, lease: float = 60, queue: str = "default") -> Claim:
    claim = await lb.claims.acquire(key, owner, lease, queue)
    assert isinstance(claim, Claim)
    return claim


async def ran_out(lb: Client, key: str, owner: str) -> None:
    claim = await acquire(lb, key, owner, 0.001)
    while await lb.store.server_time() <= claim.expires_at:
        await asyncio.sleep(0.001)


@pytest.fixture
def claimed(store: str) -> str:
    """a: live, in its second attempt; b: taken over; c: ran out; d: live in another queue; e: completed."""

    async def fill(lb: Client) -> None:
        await lb.claims.fail(await acquire(lb, "a", "host-1"), ValueError("no route\nto host"))
        await acquire(lb, "a", "host-1")
        await ran_out(lb, "b", "gone-1")
        await acquire(lb, "b", "host-2")
        await ran_out(lb, "c", "gone-1")
        await acquire(lb, "d", "host-1", queue="mail")
        await lb.claims.complete(await acquire(lb, "e", "host-1"))

    using(store, fill)
    return store


def test_claims_lists_the_live_ones_and_those_that_ran_out(lockbeat: Lockbeat, claimed: str) -> None:
    answer = lockbeat("claims", "--url", claimed)
    assert (answer.code, answer.err) == (0, "")
    head, a, b, c = answer.out.splitlines()
    assert head.split() == ["KEY", "STATE", "OWNER", "FENCE", "ATTEMPT", "EXPIRES", "IN", "NOTE"]
    assert a.split()[:3] == ["a", "claimed", "host-1"]
    assert a.split()[4] == "2"
    assert a.endswith("  failed before: ValueError: no route")
    assert b.split()[:3] == ["b", "claimed", "host-2"]
    assert b.endswith("  taken over from gone-1")
    assert c.split()[:3] == ["c", "expired", "gone-1"]
    assert " ago " in c
    mail = lockbeat("claims", "--queue", "mail", "--url", claimed).out.splitlines()
    assert [line.split()[0] for line in mail] == ["KEY", "d"]


def test_claims_json(lockbeat: Lockbeat, claimed: str) -> None:
    a, b, c = lockbeat("claims", "--url", claimed, "--json").json
    assert (a["key"], a["queue"], a["state"], a["owner"], a["attempt"]) == ("a", "default", "claimed", "host-1", 2)
    assert a["fence"] > 0
    assert datetime.fromisoformat(a["expires_at"]).utcoffset() is not None
    assert 30 < a["expires_in"] <= 60
    assert a["last_error"] == "ValueError: no route\nto host"
    assert (a["previous_owner"], b["previous_owner"]) == (None, "gone-1")
    assert c["state"] == "expired"
    assert c["expires_in"] < 0


def test_claims_of_an_empty_queue_say_where_there_are_some(lockbeat: Lockbeat, claimed: str, raw: Any) -> None:
    assert (
        lockbeat("claims", "--queue", "no", "--url", claimed).out == "no claims in queue no; 4 in other queues (--queue QUEUE)\n"
    )
    raw.flushall()
    assert lockbeat("claims", "--url", claimed).out == "no claims in queue default\n"
    assert lockbeat("claims", "--url", claimed, "--json").json == []


def test_claims_says_when_there_are_more_than_it_shows(lockbeat: Lockbeat, claimed: str) -> None:
    answer = lockbeat("claims", "--limit", "2", "--url", claimed)
    assert len(answer.out.splitlines()) == 3
    assert answer.err == "lockbeat: there are more than 2; --limit N shows up to N\n"


def test_claims_stats(lockbeat: Lockbeat, claimed: str) -> None:
    told = lockbeat("claims", "--stats", "--url", claimed, "--json").json
    assert (told["attempts"], told["acquired"], told["took_over"], told["completed"], told["failed"]) == (7, 6, 1, 1, 1)
    assert told["claimed"] == 4
    lines = lockbeat("claims", "--stats", "--url", claimed).out.splitlines()
    assert "took over  1" in lines
    assert "claimed    4" in lines


def test_release_all_gives_back_locks_tasks_and_claims_of_one_owner(lockbeat: Lockbeat, claimed: str) -> None:
    async def take(lb: Client) -> None:
        await lb.locks.try_acquire("l", "host-1", 60)
        await lb.tasks.spawn("resize")
        await lb.tasks.claim("default", "host-1")

    using(claimed, take)
    assert lockbeat("release-all", "host-1", "--url", claimed).out == "released 1 lock, 1 task and 2 claims of host-1\n"
    assert lockbeat("release-all", "host-1", "--url", claimed).out == "host-1 held nothing\n"
    told = lockbeat("release-all", "host-2", "--url", claimed, "--json").json
    assert told == {"owner": "host-2", "tasks": 0, "locks": 0, "claims": 1}
    assert [claim["key"] for claim in lockbeat("claims", "--url", claimed, "--json").json] == ["c"]
