"""A script's header is its calling contract: held against its body, the names in keys.py and the Python callers."""

from __future__ import annotations

import re
from pathlib import Path

import fakeredis
import lupa.lua51
import pytest
from redis.crc import key_slot

import lockbeat
from lockbeat.store.keys import KEYS, Keys
from lockbeat.store.scripts import HeaderError, _with_needs, header, libraries, load, names, parse

SCRIPTS = Path(lockbeat.__file__).parent.parent / "scripts_lua"
FORBIDDEN = {"KEYS", "SCAN", "HSCAN", "ZSCAN", "SSCAN", "HGETALL", "FLUSHALL", "FLUSHDB", "RANDOMKEY", "SELECT"}

every_script = pytest.mark.parametrize("name", names())


def text_of(name: str) -> str:
    return (SCRIPTS / f"{name}.lua").read_text()


def code(text: str) -> str:
    """The text without its comments."""
    return re.sub(r"--[^\n]*", "", text)


def test_there_are_scripts_of_every_lock_verb() -> None:
    verbs = {"try_acquire", "confirm", "release", "renew", "owner", "is_locked", "release_all", "list"}
    assert {name for name in names() if name.startswith("lock/")} == {f"lock/{verb}" for verb in verbs}


@every_script
def test_a_header_can_be_read_and_says_what_is_guaranteed_and_returned(name: str) -> None:
    script = load(name)
    assert script.summary
    assert script.summary.endswith(".")
    assert any(line.startswith("-- Returns  ") for line in header(text_of(name)))


@every_script
def test_the_keys_that_a_body_uses_are_the_keys_its_header_declares(name: str) -> None:
    script = load(name)
    used = {int(index) for index in re.findall(r"KEYS\[(\d+)\]", code(script.source))}
    parts = range(1, 28) if "-- KEYS[1..27] of _lib/task\n" in text_of(name) else ()
    assert used | set(parts) == set(range(1, len(script.keys) + 1))
    assert not re.findall(r"KEYS\[[^\d]", code(script.source)), "a key is chosen at run time"
    assert set(script.keys) <= set(KEYS)
    assert len(set(script.keys)) == len(script.keys)


@every_script
def test_the_parts_that_a_script_reads_are_made_before_it_reads_them(name: str) -> None:
    """Those that only what is rarely called reads, with that."""
    source = code(load(name).source)
    before, _, behind = source.partition("\nrarely = function()\n")
    rarely, _, text = behind.partition("\n_rare = {")
    made = re.search(r"^q = \{(.*)\}$", before, re.MULTILINE)
    at_once = {*re.findall(r"(\w+) = (?=\w+\(|KEYS|\{)", made[1])} if made else set()
    later = {*re.findall(r"^q\.(\w+) = ", rarely, re.MULTILINE)}
    assert {*re.findall(r"\bq\.(\w+)", before + text)} <= at_once
    assert {*re.findall(r"\bq\.(\w+)", rarely)} <= at_once | later
    assert not at_once & later


def test_each_key_of_tasks_is_used_by_a_script() -> None:
    with_tasks = [name for name in names() if "-- KEYS[1..27] of _lib/task\n" in text_of(name)]
    assert {
        index for name in with_tasks for index in re.findall(r"KEYS\[(\d+)\]", code(load(name).source)) if int(index) < 28
    } == {str(index) for index in range(1, 28)}


@every_script
def test_the_arguments_that_a_body_reads_are_those_its_header_declares(name: str) -> None:
    script = load(name)
    body = code(text_of(name))
    fixed = {int(index) for index in re.findall(r"ARGV\[(\d+)\]", body)}
    if not script.batched:
        steps = {int(step) for step in re.findall(r"#ARGV, (\d+) do", body)}
        assert not steps or max(fixed) <= len(script.argv)
        if not steps:
            assert fixed == set(range(1, len(script.argv) + 1))
        return
    loops = re.findall(r"(?:each\(|for i = 1, #ARGV,? ?)(\d*)(?:, | do)", body)
    assert {int(step or 1) for step in loops} == {len(script.argv)}
    offsets = {int(offset or 0) for offset in re.findall(r"ARGV\[i(?: \+ (\d+))?\]", body)}
    assert offsets == set(range(len(script.argv)))
    assert not fixed


@every_script
def test_a_body_sends_no_command_that_walks_the_store(name: str) -> None:
    commands = {command.upper() for command in re.findall(r"redis\.p?call\(\s*'([^']+)'", load(name).source)}
    assert not commands & FORBIDDEN
    assert "redis.call(" not in re.sub(r"redis\.call\(\s*'", "", code(load(name).source)), "a command chosen at run time"


@every_script
def test_a_body_assigns_no_global(name: str) -> None:
    """Redis refuses it; fakeredis lets it pass, and every later script breaks."""
    source = code(load(name).source)
    while (bare := re.sub(r"\{[^{}]*\}", "TABLE", source)) != source:
        source = bare
    declared = {"_"}
    for pattern in (
        r"local ([\w, ]+?)(?= =|\n)",
        r"function[^(\n]*\(([\w, ]*)\)",
        r"for ([\w, ]+?) (?:=|in) ",
        r"local function (\w+)",
    ):
        for group in re.findall(pattern, source):
            declared |= {word.strip() for word in group.split(",")}
    assigned = set()
    for group in re.findall(r"(?:^|;|\bthen\b|\bdo\b|\belse\b)[ \t]*(\w+(?:, \w+)*) = ", source, re.MULTILINE):
        assigned |= {word.strip() for word in group.split(",")}
    assert assigned <= declared


def test_what_ends_or_renews_runs_under_oom_and_what_begins_does_not() -> None:
    run = {name for name in names() if load(name).under_oom}
    assert run == {
        *(f"lock/{verb}" for verb in ("renew", "confirm", "release", "release_all")),
        *(f"claim/{verb}" for verb in ("renew", "complete", "fail", "release", "release_all", "cleanup")),
        *(f"task/{verb}" for verb in ("renew", "renew_call", "complete", "fail", "release", "release_all", "cancel", "purge")),
        "task/claim",  # what waits has its memory already, and only work that ends gives memory back
        "task/mend",  # likewise
        "task/confirm",  # of a task that was spawned while there was room
        *("job/pause", "backfill/control"),  # which keep work from beginning
        *("job/delete", "job/forget", "calendar/delete"),  # which give memory back
        "beat/heartbeat",
        "store/open",  # which instances say again with each heartbeat
    }


@every_script
def test_the_line_of_flags_comes_first_and_is_no_part_of_the_bare_script(name: str) -> None:
    script = load(name)
    assert script.source.startswith("#!lua flags=allow-oom\n") == script.under_oom
    assert "#!" not in script.bare().source
    assert (script.bare().sha == script.sha) is not script.under_oom
    assert "\n".join(header(text_of(name))) in script.bare().source


@every_script
def test_a_script_whose_library_defines_a_finish_ends_in_it(name: str) -> None:
    """Whatever its own text says: the loader appends it, and no script calls it by hand."""
    script = load(name)
    assert "finish(" not in code(text_of(name))
    included = [word for line in header(text_of(name)) if line.startswith("-- include: ") for word in line.split()[2:]]
    finishing = [
        library for library in _with_needs(name, included, libraries()) if "local function finish()\n" in libraries()[library]
    ]
    assert script.source.endswith("end)()\nfinish()\nreturn reply\n") == bool(finishing)
    assert len(re.findall(r"^function finish\(\)$", script.source, re.MULTILINE)) == len(finishing)


def test_a_finish_runs_on_every_way_out() -> None:
    library = "local function finish()\n  redis.call('INCR', KEYS[1])\nend\n"
    text = "-- a/b: early or late.\n-- include: _lib/x\nif ARGV[1] == '1' then return 1 end\nreturn 2 -- no line ends it"
    script = parse("a/b", text, {"_lib/x": library})
    client = fakeredis.FakeRedis()
    assert [client.eval(script.source, 1, "k", early) for early in (1, 0)] == [1, 2]
    assert client.get("k") == b"2"


def test_two_libraries_that_define_a_finish_are_refused() -> None:
    library = "local function finish()\nend\n"
    with pytest.raises(HeaderError, match="2 of its libraries define finish"):
        parse("a/b", "-- a/b: it.\n-- include: _lib/x _lib/y\nreturn 1\n", {"_lib/x": library, "_lib/y": library})


@every_script
def test_a_script_stays_short(name: str) -> None:
    lines = text_of(name).splitlines()
    assert len(lines) - len(header(text_of(name))) <= 70


@every_script
def test_what_a_script_calls_is_loaded_before_it_and_what_it_does_not_reach_is_left_out(name: str) -> None:
    source = code(load(name).source)
    calls = {*re.findall(r"(?<![.:\w])(\w+)\(", source)}
    known = {*re.findall(r"^local function (\w+)\(", "".join(libraries().values()), re.MULTILINE)}
    for function in calls & known:
        defined = re.search(rf"^(?:local )?function (?={function}\()", source, re.MULTILINE)
        assert defined, function
        assert next(call.start() for call in re.finditer(rf"(?<![.:\w]){function}\(", source)) == defined.end(), function
    for function in re.findall(r"^(?:local )?function (\w+)\(", source, re.MULTILINE):
        at_top = source.startswith("local ") and function in re.findall(r"\w+", source.partition("\n")[0])
        assert len(re.findall(rf"\b{function}\b", source)) > 1 + at_top, f"{function} is not used"


@every_script
def test_locals_of_libraries_are_declared_at_the_top_and_nowhere_else(name: str) -> None:
    """One that is set before it is declared there would be a global."""
    libraries, _, _ = load(name).bare().source.partition(header(text_of(name))[0])
    often, _, _ = libraries.partition("\nrarely = function()\n")
    at_top = [
        at for at, line in enumerate(often.splitlines()) if line.startswith("local ") and line != "local reply = (function()"
    ]
    assert at_top in ([0], [])


def test_libraries_that_declare_the_same_local_are_refused() -> None:
    shared = {"_lib/x": "local a, b = 1, 2\n", "_lib/y": "local function b()\nend\n"}
    with pytest.raises(HeaderError, match="a/b: its libraries declare b twice"):
        parse("a/b", "-- a/b: it.\n-- include: _lib/x _lib/y\nreturn a + b()\n", shared)


@every_script
def test_what_a_script_rarely_calls_is_made_when_it_does(name: str) -> None:
    source = load(name).source
    rare = [word for line in header(text_of(name)) if line.startswith("-- Rarely: ") for word in line.split()[2:]]
    often, _, rarely = source.partition("\nrarely = function()\n")
    for function in rare:
        assert f"\nfunction {function}(...)\n  if not _rare then rarely() end\n" in often, f"{name} does not call {function}"
        assert f"\nlocal function {function}(" in f"\n{rarely}"
    assert bool(rarely) is bool(rare)


@every_script
def test_a_script_keeps_within_what_lua_takes(name: str) -> None:
    """200 locals and 60 upvalues a function: what is made rarely is made in one."""
    lupa.lua51.LuaRuntime().compile(load(name).bare().source)


@every_script
def test_what_is_the_same_in_every_run_is_not_made_in_it(name: str) -> None:
    left = set(re.findall(r"\b(?:RESULT|REASON|KEY|CHANGED|[A-Z]+_MS)\b", code(load(name).source)))
    assert not left


@every_script
def test_all_keys_of_a_call_lie_in_one_slot(name: str) -> None:
    keys = Keys("some:name/space-1")
    slots = {key_slot(keys.key(2, key).encode()) for key in load(name).keys}
    assert len(slots) == 1


def test_a_library_keeps_its_names_to_itself() -> None:
    for name, text in libraries().items():
        functions = re.findall(r"^(local )?function (\w+)", text, re.MULTILINE)
        assert all(local for local, _ in functions), name


def test_every_script_has_a_caller_and_every_call_a_script() -> None:
    called = set()
    for path in Path(lockbeat.__file__).parent.rglob("*.py"):
        called |= set(
            re.findall(r'"((?:lock|fenced|claim|task|beat|job|backfill|calendar|store|event)/[a-z_]+)"', path.read_text())
        )
    assert called == set(names())
