"""What is decided of a claim, as tables: the lease and the past before, the answer, the lease and the past after."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat.store import results
from tests.scripts.decisions import Decisions, unreadable

NOW = 1_800_000_000_000
WEEK = 7 * 86_400_000
MEMBER = "q\xffk"
LEASE = "5 1000 t1 2 alice"  # of fence 5, for a second, by the call t1, the second attempt


def past(state: str, attempts: int, till: int, json: str = "", *, fence: int = 3, owner: str = "bob", since: int = NOW) -> str:
    return f"{state} {attempts} {till} {since} {fence} {owner}\xff{json}"


class Table:
    """One claim, as it stands in the store; whatever a decision leaves of it is read from the pages of the run."""

    def __init__(self, lease: str | None = None, ends: int | None = None, was: str | None = None, **replies: str) -> None:
        stands = {"claim": lease, "claim:live": ends, "claim:past": was}

        def server(command: str, key: str, *asked: Any) -> Any:
            assert command in ("GET", "HMGET", "ZMSCORE"), "a decision writes nothing"
            if command == "GET":
                return None
            if key.startswith("reply:"):
                return [replies.get(one, False) for one in asked]
            return [stands.get(key) or False if one == MEMBER else False for one in asked]

        self.lua = Decisions("_lib/claim", now=NOW, server=server)

    def give(self, owner: str, call: str, ttl: int) -> Any:
        """As claim/acquire does; the lease."""
        lua = self.lua._named
        return lua["claim_grant"](MEMBER, lua["lease_read"](lua["t"], MEMBER), lua["past_read"](MEMBER), owner, call, ttl)[0]

    def end(self, owner: str, fence: int, *how: Any) -> Any:
        """By the call "c"."""
        return self.lua.call("claim_conclude", MEMBER, owner, str(fence), "c", *how)

    def left(self) -> tuple[Any, Any, Any]:
        """Its lease, when that expires, and its past."""
        t, c = self.lua._named["t"], self.lua._named["c"]
        lease, ends, was = (self.lua.call("read", part, MEMBER) or False for part in (t["records"], t["live"], c["past"]))
        return lease, ends, was

    def moves(self) -> tuple[Any, Any]:
        """Whether it was entered in the order, and when it is to be forgotten."""
        order, ended = (self.lua.call("read", self.lua._named["c"][name], MEMBER) for name in ("order", "ended"))
        return order is not None, ended


@pytest.mark.parametrize("ends", [NOW + 500, NOW, NOW - WEEK], ids=["live", "at its end", "run out long ago"])
@pytest.mark.parametrize(
    ("state", "attempts", "keep_ms", "json", "left"),
    [
        ("done", 0, 0, "", past("done", 0, NOW, fence=5, owner="alice")),
        ("done", 0, 60_000, "[1]", past("done", 0, NOW + 60_000, "[1]", fence=5, owner="alice")),
        ("failed", None, WEEK, '"boo"', past("failed", 2, NOW + WEEK, '"boo"', fence=5, owner="alice")),
    ],
)
def test_an_end_of_its_newest_claim_is_its_past(
    ends: int, state: str, attempts: int | None, keep_ms: int, json: str, left: str
) -> None:
    table = Table(LEASE, ends, past("failed", 1, NOW + WEEK, '"before"'))
    assert table.end("alice", 5, state, attempts, keep_ms, json) == results.DONE
    assert table.left() == (False, False, left)
    assert table.moves() == (False, NOW + max(keep_ms, 20_000))


@pytest.mark.parametrize(
    ("lease", "was", "owner", "fence", "said"),
    [
        (None, None, "alice", 5, results.UNKNOWN),
        (LEASE, None, "bob", 5, results.ANOTHERS),
        (LEASE, None, "alice", 4, results.STALE),
        (LEASE, past("lost", 1, NOW + WEEK, fence=4, owner="alice"), "alice", 4, results.STALE),
        (None, past("done", 0, NOW, fence=5, owner="alice"), "alice", 5, results.FINISHED),
        (None, past("swept", 0, NOW, fence=5, owner="alice"), "alice", 5, results.EXPIRED),
        (None, past("swept", 0, NOW, fence=6, owner="alice"), "alice", 5, results.STALE),
    ],
)
def test_an_end_is_refused_changes_nothing_and_is_remembered_by_its_call(
    lease: str | None, was: str | None, owner: str, fence: int, said: int
) -> None:
    ends = NOW + 500 if lease else None
    for replies, answer in (({}, said), ({"another": "1"}, said), ({"c": "1"}, results.DONE)):
        table = Table(lease, ends, was, **replies)
        assert table.end(owner, fence, "done", 0, 0, "") == answer
        assert table.left()[0] == (lease or False)
        changed = table.lua.value("CHANGED")
        assert not any(part[changed] for part in (table.lua._named["t"]["records"], table.lua._named["c"]["past"]))


@pytest.mark.parametrize(
    ("lease", "was", "attempt", "kept"),
    [
        (None, None, 1, False),
        (None, past("failed", 3, NOW + 1, '"boo"'), 4, past("failed", 3, NOW + 1, '"boo"')),
        (None, past("failed", 3, NOW, '"boo"'), 1, False),
        (None, past("released", 1, NOW + WEEK, '"boo"'), 2, past("released", 1, NOW + WEEK, '"boo"')),
        (None, past("done", 0, NOW, "[1]"), 1, False),
        (None, past("swept", 0, NOW), 1, False),
        (LEASE, None, 3, past("lost", 2, NOW + WEEK, fence=5, owner="alice")),
        (LEASE, past("failed", 1, NOW, '"boo"'), 3, past("lost", 2, NOW + WEEK, '"boo"', fence=5, owner="alice")),
    ],
)
def test_who_is_given_a_claim_has_the_attempts_and_the_error_that_count(
    lease: str | None, was: str | None, attempt: int, kept: str | bool
) -> None:
    table = Table(lease, NOW if lease else None, was)
    fence = table.give("carol", "t9", 30_000)["fence"]
    assert fence > 5
    assert table.left() == (f"{fence:.0f} 30000 t9 {attempt} carol", NOW + 30_000, kept)
    assert table.moves()[0]


@pytest.mark.parametrize("was", ["", "done", "done 1 2 3 4 alice", "done 1 2 3 x alice\xff", "done 1 2 3 4 \xff"])
def test_a_past_that_is_none_is_named(was: str) -> None:
    with unreadable(f"claim:past\xff{MEMBER}"):
        Table(None, None, was or " ").lua.call("past_read", MEMBER)


def test_a_past_of_before_the_clock_was_set_back_is_kept_for_as_long_from_now_on() -> None:
    table = Table(None, None, past("done", 0, NOW + 90_000, "[1]", since=NOW + 60_000))
    table.lua.call("past_read", MEMBER)
    assert table.left()[2] == past("done", 0, NOW + 30_000, "[1]")
