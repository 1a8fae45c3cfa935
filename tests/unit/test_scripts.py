"""The loader: a header that can't be read or contradicts itself is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
    assert script.source == "local a = 1\nlocal b = a\n" + GOOD
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
