"""The unit of work that scripts are written in: calls of a run see each other, and one that can't be answered changes nothing."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import time_machine

from lockbeat.store.keys import Keys
from lockbeat.store.scripts import libraries, parse
from tests.conftest import only
from tests.scripts.decisions import Decisions, plain

NOW = 1_800_000_000_000
INCLUDE = "-- include: _lib/leases _lib/reply\n"
KEYS = ("task:lease", "task:live", "task:owned", "fence", "reply:0", "reply:1", "reply:2", "claim:stats", "bell")
PARTS = """
local t = lease_table(KEYS[1], KEYS[2], KEYS[3])
local replies, stats = join(reply_table(KEYS[5], KEYS[6], KEYS[7]), reply_close), count(KEYS[8])
"""


class Toy:
    """Runs the body of a script over the tables of the locks."""

    def __init__(self, raw: Any, namespace: str) -> None:
        self.raw, self.keys = raw, Keys(namespace)

    def key(self, name: str) -> str:
        return self.keys.key(0, name)

    def __call__(self, body: str, *args: Any) -> Any:
        named = "".join(f"-- KEYS[{n}] {name} string\n" for n, name in enumerate(KEYS, 1))
        script = parse("toy/run", f"-- toy/run: a body.\n{named}{INCLUDE}{PARTS}{body}", libraries())
        return self.raw.eval(script.source, len(KEYS), *map(self.key, KEYS), *args)


@pytest.fixture
def toy(raw: Any, namespace: str) -> Toy:
    return Toy(raw, namespace)


def test_calls_of_one_run_see_each_other_before_anything_is_written(toy: Toy) -> None:
    body = """
    return each(2, function(i)
      local seen = read(t.records, ARGV[i]) or 'nothing'
      if ARGV[i + 1] == '' then erase(t.records, ARGV[i]) else write(t.records, ARGV[i], ARGV[i + 1]) end
      return {seen, redis.call('HLEN', KEYS[1])}
    end)"""
    assert toy(body, "a", "1", "a", "2", "b", "3", "a", "") == [[b"nothing", 0], [b"1", 0], [b"nothing", 0], [b"2", 0]]
    assert toy.raw.hgetall(toy.key("task:lease")) == {b"b": b"3"}


def test_what_is_ranged_over_is_what_calls_of_the_run_have_entered(toy: Toy) -> None:
    body = """
    enter(t.owned, 'b', 0)
    enter(t.owned, 'a', 0)
    enter(t.live, 'a', 5)
    enter(t.live, 'b', 3)
    leave(t.live, 'a')
    return {range(t.owned, '-', '+', 9), due(t.live, 9, 9)}"""
    assert toy(body) == [[b"a", b"b"], [b"b"]]


@pytest.mark.parametrize("flush", ["", "range(t.owned, '-', '+', 9) due(t.live, 9, 9)"])
def test_a_call_that_meets_what_cannot_be_read_has_changed_nothing(toy: Toy, flush: str) -> None:
    toy.raw.hset(toy.key("task:lease"), mapping={"broken": "scribble", "old": "as it was", "not read": "as it was"})
    body = f"""
    return each(1, function(i)
      local key = ARGV[i]
      write(t.records, 'new ' .. key, key)
      write(t.records, 'old', key)
      erase(t.records, 'gone ' .. key)
      enter(t.live, key, 7)
      enter(t.owned, 'o\\255' .. key, 0)
      write(replies, 'call of ' .. key, '1')
      tally(stats, 'seen')
      say(KEYS[9], key)
      if key == 'broken' then write(t.records, 'not read', key) end
      {flush}
      if key == 'broken' then lease_read(t, key) end
      return {{read(t.records, 'old')}}
    end)"""
    with toy.raw.pubsub() as pubsub:
        pubsub.subscribe(toy.key("bell"))
        assert pubsub.get_message(timeout=30)["type"] == "subscribe"
        first, broken, last = toy(body, "a", "broken", "b")
        assert [pubsub.get_message(timeout=30)["data"] for _ in "ab"] == [b"a", b"b"]
    assert (first, last) == ([b"a"], [b"b"])
    assert broken == f"LOCKBEAT_UNREADABLE {toy.key('task:lease')}".encode() + b"\xffbroken"
    assert toy.raw.hgetall(toy.key("task:lease")) == {
        b"broken": b"scribble",
        b"not read": b"as it was",
        b"old": b"b",
        b"new a": b"a",
        b"new b": b"b",
    }
    assert toy.raw.zrange(toy.key("task:live"), 0, -1) == [b"a", b"b"]
    assert toy.raw.zrange(toy.key("task:owned"), 0, -1) == [b"o\xffa", b"o\xffb"]
    assert toy.raw.hgetall(toy.key("claim:stats")) == {b"seen": b"2"}
    for key in ("reply:0", "reply:1", "reply:2"):
        assert not toy.raw.hexists(toy.key(key), "call of broken")


def test_what_an_attempt_within_another_did_is_undone_with_that_one_and_no_more(toy: Toy) -> None:
    toy.raw.hset(toy.key("task:lease"), mapping={"broken": "scribble", "before": "as it was", "within": "as it was"})
    body = """
    local function say_so(id, text) write(t.records, id, text) end
    local said = {}
    write(t.records, 'before', 'outside of all')
    for _, ends in ipairs({'well', 'badly', 'well'}) do
      local _, problem = attempt(function()
        write(t.records, 'outer', (read(t.records, 'outer') or '') .. ends)
        attempt(say_so, 'within', ends)
        attempt(function()
          write(t.records, 'within', 'not for long')
          lease_read(t, 'broken')
        end)
        if ends == 'badly' then lease_read(t, 'broken') end
      end)
      said[#said + 1] = {problem and 1 or 0, read(t.records, 'outer'), read(t.records, 'within')}
    end
    return said"""
    assert toy(body) == [[0, b"well", b"well"], [1, b"well", b"well"], [0, b"wellwell", b"well"]]
    found = toy.raw.hgetall(toy.key("task:lease"))
    assert found == {b"broken": b"scribble", b"before": b"outside of all", b"outer": b"wellwell", b"within": b"well"}


def test_the_same_message_is_said_once_a_run(toy: Toy) -> None:
    with toy.raw.pubsub() as pubsub:
        pubsub.subscribe(toy.key("bell"))
        assert pubsub.get_message(timeout=30)["type"] == "subscribe"
        toy("for _, text in ipairs({'task', 'b', 'task', 'c'}) do say(KEYS[9], text) end return 1")
        assert [pubsub.get_message(timeout=30)["data"] for _ in "tbc"] == [b"task", b"b", b"c"]


LEASES = """
local function lease(key) return lease_read(t, key) end
return each(1, function(i)
  local key = ARGV[i]
  local old = lease(key)
  if old and old.live then return {old.fence, lease_renew(t, key, old, 5000) - now} end
  local new = lease_grant(t, key, old, {fence = mint(KEYS[4]), ttl = 5000, calls = 'c', note = '-', owner = 'alice'})
  lease_outlive(t, new.expires)
  return {new.fence, new.expires - now}
end)"""


def test_a_lease_is_granted_once_renewed_in_its_index_alone_and_dropped_whole(toy: Toy) -> None:
    [first, again, other] = toy(LEASES, "a", "a", "b")
    assert first == again
    assert other[0] == first[0] + 1
    assert first[1] == 5000
    assert int(toy.raw.get(toy.key("fence"))) == other[0]
    record = toy.raw.hget(toy.key("task:lease"), "a")
    assert record == f"{first[0]} 5000 c - alice".encode()
    toy(LEASES, "a")
    assert toy.raw.hget(toy.key("task:lease"), "a") == record
    for name in ("task:lease", "task:live", "task:owned"):
        assert toy.raw.pttl(toy.key(name)) > 60_000
    assert toy("return lease_owned(t, 'alice', 9)") == [b"a", b"b"]
    assert toy("return lease_owned(t, 'alice', 9, 'a')") == [b"b"]
    toy("lease_drop(t, 'a', lease_read(t, 'a')) return 1")
    assert toy("return {lease_read(t, 'a') == nil and 1, lease_owned(t, 'alice', 9)}") == [1, [b"b"]]
    assert toy.raw.zscore(toy.key("task:live"), "a") is None


def test_who_takes_over_what_has_expired_leaves_what_it_was_the_lease_of_beside_it(toy: Toy) -> None:
    old = "{fence = 1, ttl = 0, calls = 'c', note = '%s', owner = 'dead'}"
    for key, note in (("a", "-"), ("b", "17")):
        toy(f"lease_grant(t, '{key}', nil, {old % note}) return 1")
    toy(LEASES, "a", "b")
    aside = b"b\xff17"
    assert set(toy.raw.hkeys(toy.key("task:lease"))) - {b""} == {b"a", b"b", aside}
    assert toy.raw.hget(toy.key("task:lease"), aside) == b"1 0 c 17 dead"
    assert toy.raw.zrange(toy.key("task:live"), 0, 0) == [aside]
    assert toy("return lease_owned(t, 'dead', 9)") == []


@pytest.mark.parametrize(
    ("value", "score", "fields"),
    [
        ("7 900 t1 - alice", NOW + 500, {"expires": NOW + 500, "live": True, "mended": False, "ttl": 900, "fence": 7}),
        ("7 900 t1 - alice", NOW, {"expires": NOW, "live": False, "mended": False}),
        ("7 900 t1 - alice", NOW - 1, {"live": False}),
        ("7 900 t1 - alice", NOW + 90_000, {"expires": NOW + 900, "live": True, "mended": True}),
        ("7 900 t1 - alice", NOW + 1_900, {"expires": NOW + 1_900, "mended": False}),
        ("7 900 t1 - alice", NOW + 1_901, {"expires": NOW + 900, "mended": True}),
        ("7 900 t1 - alice", False, {"expires": NOW + 900, "live": True, "mended": True}),
        ("7 900 t1,t2 17 alice of K\xc3\xb6ln", NOW + 5, {"owner": "alice of K\xc3\xb6ln", "calls": "t1,t2", "note": "17"}),
    ],
)
def test_a_lease_is_judged_by_its_expiry_and_the_clock(value: str, score: Any, fields: dict[str, Any]) -> None:
    lease = Decisions("_lib/lease", now=NOW).call("lease_parse", value, score)
    assert {name: lease[name] for name in fields} == fields


@pytest.mark.parametrize("value", ["", "7", "7 1 t1 -", "7 1 t1 alice", "x7 1 t1 - alice", "7.5 1 t1 - alice", "7 -1 t1 - alice"])
def test_what_is_no_lease_is_none(value: str) -> None:
    assert Decisions("_lib/lease", now=NOW).call("lease_parse", value, NOW + 1) is None


def test_a_lease_is_spelled_as_it_is_read() -> None:
    lua, words = Decisions("_lib/lease", now=NOW), "9007199254740991 315360000000 t1,t2,+ 17 alice of K\xc3\xb6ln"
    assert lua.call("lease_text", lua.call("lease_parse", words, NOW)) == words


@pytest.mark.parametrize(
    ("calls", "token", "may"),
    [
        ("t1", "t1", True),
        ("t1", "t1+", True),
        ("t1", "-", True),
        ("t1", "t2", False),
        ("t1", "t", False),
        ("t1,t2", "t1", False),
        ("t1,t2", "t1+", True),
        ("t1,t2", "t2+", True),
        ("t1,t2", "t1,t2", True),
        ("t1,t2", "t3+", False),
    ],
)
def test_a_token_may_end_or_renew_what_its_call_took(calls: str, token: str, may: bool) -> None:
    assert Decisions("_lib/lease", now=NOW).call("lease_taken_by", {"calls": calls}, token) is may


@pytest.mark.parametrize(
    ("value", "score", "owner", "token", "ttl"),
    [
        ("7 900 t1 - alice", NOW + 1, "alice", "t1", 900),
        ("7 900 t1 - alice", NOW + 1, "alice", "t1+", 900),
        ("7 900 t1 - alice", NOW + 1, "alice", "-", 900),
        ("7 900 t1,t2 - alice", NOW + 1, "alice", "t2+", 900),
        ("7 900 t1,t2 - alice", NOW + 1, "alice", "t2", False),
        ("7 900 t1 - alice", NOW + 1, "alice", "t2", False),
        ("7 900 t1 - alice", NOW + 1, "bob", "t1", False),
        ("7 900 t1 - eve 900 t1 - alice", NOW + 1, "alice", "t1", False),
        ("7 900 t1 17 alice", NOW + 1, "alice", "t1", False),
        ("7 900 t1 - alice", NOW, "alice", "t1", False),
        ("7 900 t1 - alice", NOW + 90_000, "alice", "t1", 900),
        ("7 900 t1 - alice", None, "alice", "t1", 900),
        ("scribble", NOW + 1, "alice", "t1", None),
        ("7 900 t1 -", NOW + 1, "", "t1", None),
    ],
)
def test_a_lock_is_renewed_by_its_live_owner_alone(value: str, score: Any, owner: str, token: str, ttl: Any) -> None:
    assert Decisions("_lib/lease", now=NOW).call("lease_renewable", value, score, owner, token) == ttl


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ("0000000000000007 900 to:b alice of K\xc3\xb6ln", {"seq": "0000000000000007", "ttl": 900, "channel": "to:b"}),
        ("7 900 to:b ", None),
        ("7 to:b alice", None),
        ("scribble", None),
        (False, None),
    ],
)
def test_a_waiter_that_cannot_be_read_is_none(value: Any, fields: dict[str, Any] | None) -> None:
    waiter = Decisions("_lib/waiting", now=NOW).call("waiter_parse", value)
    assert (waiter and {name: waiter[name] for name in fields or ()}) == fields


@pytest.mark.parametrize(
    ("calls", "call", "was", "left"),
    [
        ("t1", "t1", False, "t1"),
        ("t1,t2", "t1", True, "t2"),
        ("t1,t2", "t2", True, "t1"),
        ("t1,t2,t3", "t2", True, "t1,t3"),
        ("t1,t2,+", "t2", True, "t1,+"),
        ("t1,t2", "t", False, "t1,t2"),
    ],
)
def test_a_call_that_is_undone_leaves_the_lease_to_the_others_that_took_it(calls: str, call: str, was: bool, left: str) -> None:
    lua = Decisions("_lib/lease", now=NOW)
    lease = lua.table({"calls": calls})
    assert (lua.call("lease_untake", lease, call), plain(lease)["calls"]) == (was, left)


def test_calls_that_took_a_lease_are_kept_until_they_are_too_many() -> None:
    lua = Decisions("_lib/lease", now=NOW)
    lease = lua.table({"calls": "0123456789.0"})
    for n in range(40):
        lua.call("lease_retake", lease, f"0123456789.{n}")
    assert plain(lease)["calls"].endswith(",+")
    assert len(plain(lease)["calls"]) < 180


def test_an_answer_is_found_again_by_its_call(toy: Toy) -> None:
    assert toy("write(replies, 'c1', '1') return {reply_of(replies, 'c1'), reply_of(replies, 'c2') or 'none'}") == [b"1", b"none"]
    assert toy("return {reply_of(replies, 'c1'), reply_of(replies, 'c2') or 'none'}") == [b"1", b"none"]


def test_an_answer_that_is_given_twice_in_one_run_goes_in_time(toy: Toy) -> None:
    toy("write(replies, 'c1', '1') write(replies, 'c1', '2') return 1")
    assert toy("return reply_of(replies, 'c1')") == b"2"
    assert [toy.raw.pttl(key) for n in range(3) if toy.raw.exists(key := toy.key(f"reply:{n}"))] != [-1]


@only("memory")
def test_an_answer_is_kept_for_twenty_seconds_at_least_and_a_minute_at_most(toy: Toy) -> None:
    with time_machine.travel(dt.datetime(2031, 1, 1, tzinfo=dt.UTC), tick=False) as clock:
        for n in range(40):
            toy(f"write(replies, 'c{n}', '1') return 1")
            for back in (0, 1, 2):
                if n >= back:
                    assert toy(f"return reply_of(replies, 'c{n - back}') or 'none'") == b"1", (n, back)
            clock.shift(10)
            kept = sum(toy.raw.hlen(toy.key(f"reply:{at}")) for at in range(3))
            assert kept <= 6
        clock.shift(61)
        assert not toy.raw.exists(*(toy.key(f"reply:{at}") for at in range(3)))


@only("memory")
def test_an_answer_is_found_after_the_clock_was_set_back_and_goes_in_time(toy: Toy) -> None:
    with time_machine.travel(dt.datetime(2031, 1, 1, tzinfo=dt.UTC), tick=False) as clock:
        toy("write(replies, 'c1', '1') return 1")
        clock.shift(-3_600 - 20)
        assert toy("return reply_of(replies, 'c1')") == b"1"
        for n in range(9):
            toy(f"write(replies, 'd{n}', '1') return 1")
            clock.shift(10)
        assert toy("return reply_of(replies, 'c1') or 'none'") == b"none"
        clock.shift(61)
        assert not toy.raw.exists(*(toy.key(f"reply:{at}") for at in range(3)))
