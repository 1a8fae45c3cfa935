"""Bad input: one line on stderr, exit code 2 for the way it was called and 1 for the state of things, and nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockbeat.embedded import EmbeddedServer

from .conftest import ROOT, Lockbeat, left

Module = Callable[..., str]

SERVING = ("run", "beat", "worker", "demo")
CONTROL = ("pause", "resume", "skip-next", "trigger", "backfill", "changes", "put", "apply")
LOOKING = (
    *("calendars", "calendar", "ls", "next", "ledger", "history", "why", "delete"),
    *("locks", "release-all", "instances", "unlock"),
)
TENDING = ("tasks", "task", "spawn", "cancel", "dead", "retry", "redrive", "purge", "claims", "top")
COMMANDS = (*SERVING, *LOOKING, *CONTROL, *TENDING, "server", "doctor")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["bogus"], "bogus"),
        (["ls", "--bogus"], "--bogus"),
        (["pause", "-report"], "a name that begins with a dash stands after --"),
        (["next"], "JOB"),
        (["next", "job", "-n", "0"], "-n"),
        (["next", "job", "-n", "many"], "-n"),
        (["release-all"], "OWNER"),
        (["demo", "--seconds", "1"], "--seconds"),
        (["ls", "--url", "localhost"], "scheme"),
        (["ls", "--url", "http://localhost"], "scheme"),
        (["ls", "--url", "redis://localhost:port"], "port"),
        (["ls", "--url", "memory://"], "memory://"),
        (["ls", "--namespace", "a b"], "namespace"),
        (["why", "job", "yesterday"], "yesterday"),
        (["pause"], "say which: names of jobs, or --all, --queue QUEUE or --tag TAG"),
        (["resume", "job", "--all"], "(not both)"),
        (["skip-next", "job", "-n", "0"], "-n"),
        (["pause", "job", "--until", "soon"], "'--until': 'soon' is no time"),
        (["trigger", "job", "{foreign"], "PARAMS: {foreign is not JSON"),
        (["trigger", "job", "{foreign"], "lockbeat trigger job '{"),
        (["put"], "JOB"),
        (["put", "job", "{foreign"], "PARAMS: {foreign is not JSON"),
        (["put", "job", "--every", "0"], "every: must be 0.001 s"),
        (["put", "job", "--cron", "61 * * * *"], "61"),
        (["put", "job", "--cron", "* * * * *", "--every", "60"], "every: can't go with cron"),
        (["put", "job", "--timezone", "UTC"], "timezone: goes with a trigger"),
        (["put", "job", "--at", "soon"], "at: 'soon' is no time"),
        (["put", "job", "--option", "overlap"], "--option: 'overlap' must be NAME=VALUE"),
        (["put", "job", "--option", "overlap=often"], "overlap: must be one of"),
        (["put", "job", "--function", ""], "function: must not be empty"),
        (["put", "job", "--origin", "two words"], "origin: must be 1 to 100 letters"),
        (["put", "job", "--origin", "code"], "origin: must not be 'code'"),
        (["apply"], "FILE"),
        (["apply", "jobs.json"], "--origin"),
        (["apply", "/nowhere.json", "--origin", "billing"], "/nowhere.json can't be read"),
        (["run", "no_such_module:beat"], "no module named 'no_such_module'"),
        (["run", "no_such.module:beat"], "no_such"),
        (["run", "no/such/file.py:beat"], "no file"),
        (["run", ":beat"], "names no module"),
        (["run", "json:beat"], "no 'beat'"),
        (["run", "json:dumps"], "no Beat"),
        (["run", "json"], "no Beat"),
        (["run", "json:dumps"], "to have it called, write 'json:dumps()'"),
        (["run", "json:dumps()"], "missing 1 required"),
        (["run", "json:loads", "--factory"], "TypeError"),
        (["run", "json:()"], "names no factory"),
        (["worker", "json", "--factory"], "names no factory"),
        (["worker", "json:dumps", "--concurrency", "0"], "--concurrency"),
        (["spawn"], "NAME"),
        (["spawn", ""], "name: must not be empty"),
        (["spawn", "send", "--queue", ""], "queue: must not be empty"),
        (["spawn", "send", "--key", ""], "idempotency_key: must not be empty"),
        (["spawn", "send", "--priority", "50"], "--priority"),
        (["spawn", "send", "--max-attempts", "0"], "--max-attempts"),
        (["spawn", "send", "--delay", "-1"], "delay: must be between"),
        (["spawn", "send", "--delay", "nan"], "delay: must be between"),
        (["spawn", "send", "--delay", "soon"], "--delay"),
        (["spawn", "send", "--header", "trace"], "--header: 'trace' must be KEY=VALUE"),
        (["spawn", "send", "--header", "=7"], "--header: '=7' must be KEY=VALUE"),
        (["spawn", "send", '"\\ud800"'], "params: must be text that UTF-8 can carry"),
        (["spawn", "send", "1e999"], "params: must be JSON"),
        (["spawn", "send", "NaN"], "params: must be JSON"),
        (["spawn", "send", "[1, -Infinity]"], "params: must be JSON"),
        (["tasks", "--state", "failed"], "'--state': 'failed' is not one of 'waiting', 'running', 'done', 'dead', 'cancelled'"),
        (["tasks", "--limit", "0"], "--limit"),
        (["tasks", "--queue", ""], "queue: must not be empty"),
        (["task"], "TASK"),
        (["task", ""], "task_id: must not be empty"),
        (["retry", "x", "--attempts", "0"], "--attempts"),
        (["redrive", "--limit", "0"], "--limit"),
        (["purge", "--state", "running", "--yes"], "'--state': 'running' is not one of 'done', 'dead', 'cancelled'"),
        (["purge"], "say --yes"),
        (["claims", "--limit", "0"], "--limit"),
        (["claims", "--limit", "10000"], "--limit"),
        (["claims", "--queue", ""], "queue: must not be empty"),
        (["top", "--refresh", "0"], "--refresh"),
        (["top", "--refresh", "often"], "--refresh"),
        (["top", "--once", "now"], "now"),
        (["calendar"], "Missing command"),
        (["calendar", "put"], "NAME"),
        (["calendar", "put", "x"], "DATES, --ics FILE or --country CODE"),
        (["calendar", "put", "x", "2030-01-01", "--country", "DE"], "DATES, --ics FILE or --country CODE"),
        (["calendar", "put", "x", "2030-02-30"], "no day that there is"),
        (["calendar", "put", "a b", "2030-02-03"], "letters, digits"),
        (["calendar", "put", "x", "--country", "XX"], "country"),
        (["calendar", "put", "x", "--country", "DE", "--years", "2031-2030"], "--years"),
        (["calendar", "put", "x", "--country", "DE", "--years", "soon"], "--years"),
        (["calendar", "put", "x", "--ics", "/nowhere.ics"], "No such file"),
        (["calendar", "put", "x", "2030-01-01", "--years", "2030"], "years"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(lockbeat: Lockbeat, store: str, raw: Any, args: list[str], said: str) -> None:
    names_store = args[0] in (*LOOKING, *CONTROL, *TENDING) and args != ["calendar"]  # which is a group
    lockbeat(*args, *(["--url", store] if names_store and "--url" not in args else [])).refuses(2, said)
    assert left(raw) == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux'")
@pytest.mark.parametrize("args", [["locks"], ["locks", "--json"]])
def test_an_answer_that_a_full_disk_does_not_take_is_one_line_and_exit_code_1(store: str, args: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "lockbeat", *args, "--url", store]
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT, env=plain)
    assert (ended.returncode, ended.stderr) == (1, "lockbeat: the answer can't be written: No space left on device\n")


SLOT = "2030-01-01T00:00:00"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        *(([command, "nobody"], "no job named 'nobody'") for command in ("next", "ledger", "delete", "why")),
        (["why", "nobody", SLOT], "no job named 'nobody'"),
        *(([command, "no-such\nid"], "lockbeat: no task 'no-such\\nid' in ") for command in ("task", "cancel", "retry")),
        (["calendar", "nobody"], "no calendar named 'nobody'"),
    ],
)
def test_what_is_unknown_is_one_line_and_exit_code_1(
    lockbeat: Lockbeat, store: str, raw: Any, args: list[str], said: str
) -> None:
    lockbeat(*args, "--url", store).refuses(1, said)
    assert left(raw) == set()


@pytest.mark.parametrize(
    "line",
    [
        "ls",
        "doctor",
        "release-all owner",
        "tasks",
        "spawn send",
        "dead",
        "redrive",
        "purge --yes",
        "cancel x",
        "top",
        "claims",
    ],
)
def test_a_missing_store_is_one_line_and_exit_code_1(lockbeat: Lockbeat, line: str) -> None:
    lockbeat(*line.split()).refuses(1, "lockbeat: can't reach redis://127.0.0.1:1")


def test_the_password_of_a_store_is_not_shown(lockbeat: Lockbeat) -> None:
    answer = lockbeat("ls", "--url", "redis://me:secret@127.0.0.1:1")
    assert answer.code == 1
    assert "secret" not in answer.err


@pytest.mark.parametrize("command", ["ls", "doctor"])
def test_a_host_that_has_no_address_is_said_to_have_none(lockbeat: Lockbeat, command: str) -> None:
    answer = lockbeat(command, "--url", "redis://no-such-host.invalid")
    answer.refuses(1, "the host name 'no-such-host.invalid' can't be resolved")


@pytest.mark.parametrize("command", ["ls", "doctor"])
@pytest.mark.parametrize("url", ["unix://them:wrong@{}", "unix://{}?db=99"])
def test_a_store_that_will_not_have_us_is_named(lockbeat: Lockbeat, server: EmbeddedServer, command: str, url: str) -> None:
    answer = lockbeat(command, "--url", url.format(server.socket_path))
    answer.refuses(1, f"{server.socket_path}")
    assert " refuses: " in answer.err
    assert "wrong@" not in answer.err


def test_to_look_for_an_embedded_store_makes_none(lockbeat: Lockbeat, tmp_path: Path) -> None:
    answer = lockbeat("ls", "--url", f"embedded://{tmp_path}/typo")
    answer.refuses(1, "lockbeat server")
    assert not (tmp_path / "typo").exists()


def test_serving_a_missing_store_is_one_line_and_exit_code_1(
    lockbeat: Lockbeat, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockbeat.cli.commands.serve.log_to_stderr", lambda verbose, log_format: None)
    path = module("""
        from lockbeat import Beat
        beat = Beat(timeout=0.5)
        @beat.every(1)
        def job(): ...
    """)
    answer = lockbeat("run", f"{path}:beat")
    answer.refuses(1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('@beat.cron("61 * * * *")', "expression"),
        ('@beat.cron("* * * * *", timezone="Mars/Olympus")', "timezone"),
        ("@beat.every(-1)", "period"),
        ('@beat.every(1, overlap="maybe")', "overlap"),
        ("@beat.every(1, bogus=1)", "bogus"),
        ('@beat.every(1, overlaps="skip")', "overlaps: no such option of a job; did you mean 'overlap'?"),
        ("@beat.every(1, window_ms=1)", "window_ms: no such option of a job; did you mean 'window'?"),
    ],
)
def test_a_bad_line_in_a_module_is_told_with_its_place(lockbeat: Lockbeat, module: Module, line: str, said: str) -> None:
    path = module(f"from lockbeat import Beat\nbeat = Beat()\n{line}\ndef job(): ...\n")
    answer = lockbeat("run", f"{path}:beat")
    answer.refuses(2, f"{path}:3: {said}")


def test_a_module_that_raises_shows_its_own_lines_and_none_of_ours(lockbeat: Lockbeat, module: Module) -> None:
    path = module("def inner():\n    raise KeyError('their setting')\n\ninner()\n")
    answer = lockbeat("run", f"{path}:beat")
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == f"lockbeat: {path}:2: KeyError: 'their setting'"
    assert f'"{path}", line 4' in answer.err
    assert "_load.py" not in answer.err
    assert "importlib" not in answer.err


def test_a_module_that_lacks_an_import_is_not_taken_for_missing(lockbeat: Lockbeat, module: Module) -> None:
    path = module("import not_installed_here\n")
    for target in (f"{path}:beat", "their_jobs:beat"):
        answer = lockbeat("run", target)
        assert answer.code == 2
        assert f"{path}:1: ModuleNotFoundError: No module named 'not_installed_here'" in answer.err


def test_a_syntax_error_is_told_with_its_place(lockbeat: Lockbeat, module: Module) -> None:
    path = module("x = 1\nbeat = = 2\n")
    answer = lockbeat("run", f"{path}:beat")
    answer.refuses(2, f"{path}:2: SyntaxError")


def test_a_module_that_has_another_beat_is_told_which(lockbeat: Lockbeat, module: Module) -> None:
    path = module("from lockbeat import Beat\nmorning = Beat()\nevening = Beat()\n")
    for target in (path, f"{path}:beat"):
        answer = lockbeat("run", target)
        assert answer.code == 2
        assert "evening, morning" in answer.err


def test_help_fits_a_narrow_terminal_and_names_every_command(lockbeat: Lockbeat) -> None:
    answer = lockbeat()
    assert answer.code == 0
    for command in COMMANDS:
        assert f"  {command} " in answer.out
        told = lockbeat(command, "--help")
        assert told.code == 0
        assert max(map(len, told.out.splitlines())) <= 80
    assert "..." not in answer.out.partition("Commands:")[2]  # none is cut
    assert "Exit code 2: wrong usage" in answer.out


def test_a_port_that_is_taken_is_one_line(lockbeat: Lockbeat, server: EmbeddedServer, raw: Any) -> None:
    raw.config_set("bind", "127.0.0.1")
    raw.config_set("port", "0")
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = lockbeat("server", str(server.directory), "--port", str(taken.getsockname()[1]))
    answer.refuses(2, "port")
