"""A script's header, compiled: what makes rows of arguments by name, and gives the fields of replies their names."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import ScriptError
from lockbeat.store import results, scripts
from lockbeat.store.rows import RESERVED, decoder, encoder
from lockbeat.store.scripts import HeaderError, load, names, parse, row

RENEWAL: dict[str, Any] = {"key": "k", "owner": "alice", "token": "t", "ttl_ms": 30_000}


def test_a_row_has_its_arguments_in_the_headers_order_and_by_name() -> None:
    made: Any = row["lock/renew"](ttl_ms=30_000, token="t", owner="alice", key="k")
    assert made == ("k", "alice", "t", 30_000)
    assert (made.key, made.owner, made.token, made.ttl_ms) == made
    assert made.script == "lock/renew"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ttl_ms": None}, r"lock/renew: ttl_ms must be an int, not None"),
        ({"ttl_ms": "30000"}, r"lock/renew: ttl_ms must be an int, not '30000'"),
        ({"ttl_ms": True}, r"lock/renew: ttl_ms must be an int, not True"),
        ({"ttl_ms": 1.5}, r"lock/renew: ttl_ms must be an int, not 1.5"),
        ({"key": 7}, r"lock/renew: key must be str or bytes, not 7"),
        ({"token": ""}, r"lock/renew: token must be a str and not empty, not ''"),
        ({"token": b"t"}, r"lock/renew: token must be a str and not empty"),
        ({"fence": 1}, r"lock/renew\(\) got an unexpected keyword argument 'fence'"),
    ],
)
def test_a_wrong_argument_is_named_with_its_script(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        row["lock/renew"](**(RENEWAL | changes))


@pytest.mark.parametrize("name", names())
def test_an_argument_that_is_missing_is_named_with_its_script(name: str) -> None:
    given: dict[str, Any] = dict.fromkeys(load(name).argv, 0)
    for missing in given:
        with pytest.raises(TypeError, match=rf"{name}\(\) missing 1 required keyword-only argument: '{missing}'"):
            row[name](**{key: value for key, value in given.items() if key != missing})


def test_a_list_is_made_json_and_must_hold_text() -> None:
    made, encode = encoder("a/b", [("names", "list")])
    assert encode(names=["é", "b"]) == ('["\\u00e9", "b"]',)
    assert encode(names={"a"}).__class__ is made
    assert encode(names=()) == ("[]",)
    for wrong in ("abc", [1], None):
        with pytest.raises(TypeError, match="a/b: names must be a list of str"):
            encode(names=wrong)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-- ARGV[1] key string", "an argument can't be 'key' of type 'string'"),
        ("-- ARGV[1] ttl-ms int", "an argument can't be 'ttl-ms' of type 'int'"),
        *((f"-- ARGV[1] {word} str", f"an argument can't be '{word}'") for word in sorted(RESERVED)),
    ],
)
def test_an_argument_of_a_header_has_a_name_and_a_type_that_can_be_checked(line: str, problem: str) -> None:
    with pytest.raises(HeaderError, match=problem):
        parse("a/b", f"-- a/b: it.\n{line}\nreturn 1\n", {})


def reply(*returns: str) -> Any:
    decode = decoder("a/b", ["-- a/b: it.", "-- ARGV[1] key  str  {not, this}", f"-- Returns  {returns[0]}", *returns[1:]])
    assert decode is not None
    return decode


def test_the_fields_of_a_reply_have_the_names_of_the_header() -> None:
    decode = reply("{fence, now_ms}  since then")
    assert decode([7, 9]) == (7, 9)
    assert (decode([7, 9]).fence, decode([7, 9]).now_ms) == (7, 9)
    with pytest.raises(ScriptError, match=r"a/b answered \[7\]"):
        decode([7])
    with pytest.raises(ScriptError, match=r"a/b answered \[7, 8, 9\]"):
        decode([7, 8, 9])


def test_the_last_field_may_take_the_rest() -> None:
    decode = reply("{now_ms, cursor, *rows}  rows: each {this, that}")
    assert decode([1, b"", [2], [3]]).rows == [[2], [3]]
    assert decode([1, b""]).rows == []
    with pytest.raises(ScriptError):
        decode([1])


def test_the_first_field_may_say_which_the_others_are() -> None:
    decode = reply(
        "{said=DONE, fence}  so it is", "--          {said=BUSY, owner, until_ms}  somebody's", "--          {}  nothing"
    )
    assert decode([results.DONE, 5]).fence == 5
    assert decode([results.BUSY, b"bob", 9]).owner == b"bob"
    assert decode([]) is None
    with pytest.raises(ScriptError, match="its header has no such reply"):
        decode([results.REMEMBERED, 1])


@pytest.mark.parametrize("returns", ["1  done", "{{a, b}, ...}", "{a, {b, c}, ...}", "{job, ...}", "{1, 0}"])
def test_a_reply_without_names_is_left_as_it_is(returns: str) -> None:
    assert decoder("a/b", ["-- a/b: it.", f"-- Returns  {returns}"]) is None


async def test_a_short_row_in_a_shared_run_is_refused_and_shifts_nobodys_arguments(lb: Lockbeat) -> None:
    """All in one turn, and so in one run of the script, were it let through."""
    store = lb.store
    before = [asyncio.ensure_future(lb.locks.try_acquire(f"a{n}", "alice", 30)) for n in range(3)]
    await asyncio.sleep(0)  # they are waiting to be sent
    short: Any = ("k", "bob", "token", 30_000, 1)
    with pytest.raises(TypeError, match="lock/try_acquire can't be called with"):
        store._targets["lock/try_acquire", store.shard_of("k")][0].submit(
            store._targets["lock/try_acquire", store.shard_of("k")][1], short
        )
    with pytest.raises(TypeError, match=r"lock/try_acquire\(\) missing 1 required keyword-only argument: 'channel'"):
        await store.call("lock/try_acquire", 0, key="k", owner="bob", token="t", ttl_ms=30_000, reentrant=1)
    with pytest.raises(TypeError, match="lock/renew can't be called with"):
        await store.call_many([row["lock/renew"](**RENEWAL), row["lock/is_locked"](key="k")], 0)
    after = [asyncio.ensure_future(lb.locks.try_acquire(f"b{n}", "carol", 30)) for n in range(3)]
    leases = await asyncio.gather(*before, *after)
    held = [(lease.key, lease.owner) for lease in leases if lease]
    assert held == [*((f"a{n}", "alice") for n in range(3)), *((f"b{n}", "carol") for n in range(3))]
    assert sorted((lease.key, lease.owner) for lease in await lb.locks.list()) == sorted(held)


def test_threads_that_load_a_script_at_the_same_time_make_rows_of_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper's thread may be the first to call a script, or the second."""
    monkeypatch.setattr(scripts, "_loaded", {})
    made, begin = [], threading.Barrier(8)

    def race() -> None:
        begin.wait()
        made.append(load("lock/renew").row)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
