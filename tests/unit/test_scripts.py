"""The loader: a header that can't be read or contradicts itself is refused."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import fakeredis
import pytest

from lockbeat.store import scripts
from lockbeat.store.scripts import HeaderError, header, load, names, parse

GOOD = """\
-- lock/toy: does nothing, for each.
--
-- KEYS[1] lock   hash    the locks
-- KEYS[2] fence  string
-- ARGV[1] key    str
-- ARGV[2] ttl    int
-- Batch: ARGV[1..2] repeat, one group a call, at most 9 a run.
--
-- Returns  1
-- include: _lib/a _lib/b

return {}
-- KEYS[9] not part of the header
"""
LIBRARIES = {"_lib/a": "local a = 1", "_lib/b": "local b = a"}


def test_a_header_is_the_calling_contract() -> None:
    script = parse("lock/toy", GOOD, LIBRARIES)
    assert (script.name, script.summary) == ("lock/toy", "does nothing, for each.")
    assert (script.keys, script.argv, script.batched) == (("lock", "fence"), ("key", "ttl"), True)


def test_libraries_come_first_in_the_order_of_their_inclusion() -> None:
    script = parse("lock/toy", GOOD, LIBRARIES)
    assert script.source == "local a, b\na = 1\nb = a\n" + GOOD
    assert script.sha == hashlib.sha1(script.source.encode(), usedforsecurity=False).hexdigest()


def test_a_script_without_a_batch_line_is_called_alone() -> None:
    text = GOOD.replace("-- Batch: ARGV[1..2] repeat, one group a call, at most 9 a run.\n", "")
    assert not parse("lock/toy", text, LIBRARIES).batched


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("-- lock/toy: does", "-- lock/other: does", "first line must be"),
        ("-- lock/toy: does nothing, for each.\n", "", "first line must be"),
        ("-- KEYS[2]", "-- KEYS[3]", r"KEYS\[3\] is out of order"),
        ("-- KEYS[1]", "-- KEYS[2]", r"KEYS\[2\] is out of order"),
        ("-- ARGV[2]", "-- ARGV[1]", r"ARGV\[1\] is out of order"),
        ("-- KEYS[2] fence", "-- KEYS[2] fance", "knows no key 'fance'"),
        ("ARGV[1..2]", "ARGV[1..3]", "a batch of 3, but 2 arguments"),
        ("_lib/b", "_lib/c", "no library '_lib/c'"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(old: str, new: str, problem: str) -> None:
    with pytest.raises(HeaderError, match=problem):
        parse("lock/toy", GOOD.replace(old, new, 1), LIBRARIES)


def test_the_header_ends_where_the_comment_does() -> None:
    assert header(GOOD)[-1] == "-- include: _lib/a _lib/b"


RARE = """\
local function deep()
  return 7
end
local function rare(n)
  if n > 0 then return rare(n - 1) end
  return deep()
end
local function often() return 1 end
"""


def test_what_is_reached_by_way_of_a_rare_function_alone_is_made_when_that_is_first_called() -> None:
    text = "-- a/b: it.\n-- include: _lib/x\n-- Rarely: rare\n"
    body = "if ARGV[1] == '1' then return {rare(0), rare(2), often()} end\nreturn often()\n"
    script = parse("a/b", text + body, {"_lib/x": RARE})
    assert script.source.index("rarely = function()") < script.source.index("local function deep()")
    assert script.source.index("\nfunction often()") < script.source.index("rarely = function()")
    client = fakeredis.FakeRedis()
    assert [client.eval(script.source, 0, rarely) for rarely in (0, 1)] == [1, [7, 7, 1]]


def test_constants_are_told_by_what_they_say() -> None:
    page = "local RESULT = {\n  DONE = 1,  -- so it is\n  NO_MORE = -2,\n}\nlocal HOUR_MS, DAYS = 60 * 60000, 7  -- a while\n"
    script = parse(
        "a/b",
        "-- a/b: it.\n-- include: _lib/x\nreturn {RESULT.DONE, 5 - RESULT.NO_MORE, -RESULT.NO_MORE, HOUR_MS / DAYS}\n",
        {"_lib/x": page},
    )
    assert not {"RESULT", "HOUR_MS", "DAYS"} & set(re.findall(r"\w+", script.source))
    assert fakeredis.FakeRedis().eval(script.source, 0) == [1, 7, 2, 514285]


def test_every_script_loads_and_no_two_are_the_same() -> None:
    scripts = [load(name) for name in names()]
    assert len({script.sha for script in scripts}) == len(scripts)
    assert not any(script.name.startswith("_") for script in scripts)
    assert load("lock/release") is load("lock/release")


def test_an_unknown_script_is_not_found() -> None:
    with pytest.raises(KeyError):
        load("lock/nothing")


def test_no_file_is_opened_once_a_script_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may have no file left to open, or another release in its place, when it renews for the first time."""
    known = names()
    monkeypatch.setattr(scripts, "_root", lambda: Path("gone"))
    shas = {name: load(name).sha for name in known}
    monkeypatch.setattr(scripts, "_loaded", {})
    assert {name: load(name).sha for name in known} == shas


def test_comments_of_libraries_are_left_out_and_texts_that_look_like_one_are_not() -> None:
    library = "-- _lib/x: a.\n\nlocal a = 'a -- b'  -- said\n-- more\nlocal function f()\n  -- why\n  return a\nend\n"
    source = parse("x/y", "-- x/y: does it.\n-- include: _lib/x\nreturn f()\n", {"_lib/x": library}).source
    assert "\na = 'a -- b'\n" in source
    assert not {"said", "more", "why"} & set(re.findall(r"\w+", source))
