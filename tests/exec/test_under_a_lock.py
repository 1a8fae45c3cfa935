"""A command runs while a lock is held, and no longer: exit codes, signals, loss, and the death of whoever is in between."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lockbeat.embedded import EmbeddedServer
from tests import servers
from tests.cli.conftest import using
from tests.conftest import needs

from .conftest import Exec, Lockbeat, alive, wait_until

WAITS = "echo pid=$$; exec sleep 600"
STUBBORN = "trap '' TERM; sleep 600 & echo pid=$$ child=$!; while :; do wait; done"
"""It does not hear SIGTERM, and neither does what it has started."""


def test_the_command_is_told_what_holds_it_and_the_lock_is_given_back(
    execute: Exec, lockbeat: Lockbeat, store: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = f"echo $LOCKBEAT_KEY $LOCKBEAT_FENCE slot=$LOCKBEAT_SLOT; until [ -e {go} ]; do sleep 0.05; done; cat; exit 3"
    reading, writing = os.pipe()
    os.write(writing, b"from stdin\n")
    os.close(writing)
    host = execute("report", "--", "sh", "-c", script, stdin=reading, LOCKBEAT_SLOT="of another")
    host.says("slot=")
    [lock] = lockbeat("locks", "--url", store, "--json").json
    assert host.out == f"report {lock['fence']} slot=\n"
    go.touch()
    assert host.ends() == 3
    os.close(reading)
    assert host.out.endswith("from stdin\n")
    assert host.err == ""
    assert lockbeat("locks", "--url", store, "--json").json == []
    assert lockbeat("ls", "--url", store, "--json").json == []


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["sh", "-c", "exit 0"], 0, ""),
        (["sh", "-c", "exit 75"], 75, ""),
        (["sh", "-c", "kill -KILL $$"], 128 + 9, ""),
        (["no-such-command"], 127, "lockbeat: no-such-command: command not found\n"),
        (["/etc/passwd"], 126, "lockbeat: /etc/passwd: Permission denied\n"),
    ],
)
@pytest.mark.parametrize("slot", [(), ("--at-most-once-per", "1h")])
def test_the_exit_code_is_the_commands(execute: Exec, command: list[str], code: int, said: str, slot: tuple[str, ...]) -> None:
    host = execute("report", *slot, "--", *command)
    assert host.ends() == code
    assert host.out + host.err == said


def test_another_that_holds_it_is_an_exit_code_and_said_to_people_alone(execute: Exec, tmp_path: Path) -> None:
    holder = execute("report", "--", "sh", "-c", WAITS)
    holder.says("pid=")
    calls = [
        execute("report", "--", "touch", str(tmp_path / "ran")),
        execute("report", "--busy-code", "0", "--", "touch", str(tmp_path / "ran")),
        execute("report", "-v", "--", "touch", str(tmp_path / "ran")),
    ]
    assert [call.ends() for call in calls] == [75, 0, 75]
    assert [call.out + call.err for call in calls[:2]] == ["", ""]
    assert calls[2].err.startswith("lockbeat: 'report' is held by ")
    assert not (tmp_path / "ran").exists()

    waiting = execute("report", "--wait", "1m", "--", "touch", str(tmp_path / "ran"))
    holder.signal(signal.SIGTERM)
    assert holder.ends() == 128 + signal.SIGTERM
    assert waiting.ends() == 0
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("args", [(), ("--slot", "1h"), ("--at-most-once-per", "5m")])
def test_without_the_store_the_command_is_not_run(execute: Exec, tmp_path: Path, args: tuple[str, ...]) -> None:
    host = execute("report", *args, "--", "touch", str(tmp_path / "ran"), url="redis://127.0.0.1:1")
    assert host.ends() == 69
    assert host.err.count("\n") == 1
    assert "'report' was not run" in host.err
    assert "127.0.0.1:1" in host.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["report"], "Missing argument"),
        (["", "--", "true"], "name: must not be empty"),
        (["report", "--slot", "every tuesday", "--", "true"], "--slot 'every tuesday'"),
        (["report", "--slot", "0 3 * * *", "--timezone", "Mars/Base", "--", "true"], "Mars/Base"),
        (["report", "--slot", "0s", "--", "true"], "must be 0.001 s"),
        (["report", "--slot", "5m", "--at-most-once-per", "5m", "--", "true"], "give one of them"),
        (["report", "--ttl", "soon", "--", "true"], "is no duration"),
        (["report", "--ttl", "10s", "--grace", "6s", "--", "true"], "more than half"),
        (["report", "--ttl", "0.5", "--", "true"], "ttl: must be between 1 s"),
        (["report", "--busy-code", "256", "--", "true"], "busy-code"),
        (["report", "--url", "memory://x", "--", "true"], "inside one process"),
    ],
)
def test_a_wrong_call_is_one_line(lockbeat: Lockbeat, args: list[str], said: str) -> None:
    lockbeat("exec", *args).refuses(2, said)


def test_the_commands_own_options_are_its_own(execute: Exec) -> None:
    """consul #1063: the wrapper took them for its own."""
    host = execute("report", "--ttl", "1m", "--", "echo", "-v", "--ttl", "5", "--", "--help")
    assert host.ends() == 0
    assert host.out == "-v --ttl 5 -- --help\n"


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_are_passed_on(execute: Exec, name: str) -> None:
    script = f"trap 'echo heard; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
    host = execute("report", "--", "sh", "-c", script)
    host.says("ready")
    host.signal(getattr(signal, f"SIG{name}"))
    host.says("heard")
    assert host.ends() == 7


def test_a_signal_before_the_command_has_begun_ends_the_wait(execute: Exec, tmp_path: Path) -> None:
    holder = execute("report", "--", "sh", "-c", WAITS)
    holder.says("pid=")
    waiting = execute("report", "--wait", "10m", "-v", "--", "touch", str(tmp_path / "ran"))
    wait_until(
        lambda: b"SigCgt" in Path(f"/proc/{waiting.popen.pid}/status").read_bytes() and _hears(waiting.popen.pid),
        "it hears signals",
    )
    waiting.signal(signal.SIGTERM)
    assert waiting.ends() == 128 + signal.SIGTERM
    assert not (tmp_path / "ran").exists()


def _hears(pid: int) -> bool:
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_lost_lock_ends_the_command_and_what_it_has_started(execute: Exec, store: str) -> None:
    """consul #2022: only the shell was killed, and what it had started went on."""
    host = execute("report", "--ttl", "3", "--grace", "0.5", "--", "sh", "-c", STUBBORN)
    pid, child = host.number("pid"), host.number("child")

    async def take(lb: Any) -> bool:
        return bool(await lb.locks.unlock(await lb.locks.holder("report")))

    assert using(store, take)
    assert host.ends() == 70
    assert "lockbeat: " in host.err
    assert "ended by SIGKILL" in host.err
    assert not alive(pid)
    assert not alive(child)


@needs("valkey")
@pytest.mark.parametrize("args", [(), ("--at-most-once-per", "1h")])
def test_a_store_that_goes_away_ends_the_command_before_its_lock_does(execute: Exec, args: tuple[str, ...]) -> None:
    with servers.standalone(servers.valkey_binary()) as server:
        host = execute("report", *args, "--ttl", "2", "--grace", "0.4", "--", "sh", "-c", STUBBORN, url=server.url)
        pid = host.number("pid")
        server.freeze()
        assert host.ends() == 70
        assert not alive(pid)
        assert "lockbeat: " in host.err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_whoever_renews_is_gone_and_the_command_is_ended(execute: Exec, store: str, number: int) -> None:
    """Frozen, it hears of nothing: its guardian ends the command when the lock is not known to be held any more."""
    ttl = "2" if number == signal.SIGSTOP else "10m"
    host = execute("report", "--ttl", ttl, "--grace", "0.4", "--", "sh", "-c", STUBBORN)
    pid, child = host.number("pid"), host.number("child")
    host.signal(number)
    wait_until(lambda: not alive(pid) and not alive(child), "the command and its child are gone")
    if number == signal.SIGSTOP:
        host.signal(signal.SIGCONT)
        assert host.ends() == 70


def test_its_guardian_is_killed_and_the_command_with_it(execute: Exec) -> None:
    host = execute("report", "--", "sh", "-c", STUBBORN)
    pid, child = host.number("pid"), host.number("child")
    os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    assert host.ends() == 128 + signal.SIGKILL
    wait_until(lambda: not alive(pid) and not alive(child), "the command and its child are gone")


def test_what_the_command_leaves_behind_keeps_neither_the_lock_nor_the_call(
    execute: Exec, lockbeat: Lockbeat, store: str
) -> None:
    """Maho #1314 and many more: what a command has started inherits flock's descriptor, and with it the lock."""
    for slot in ((), ("--at-most-once-per", "1h")):
        host = execute("report", *slot, "--", "sh", "-c", "sleep 600 & echo child=$!")
        assert host.ends() == 0
        child = host.number("child")
        assert alive(child)
        os.kill(child, signal.SIGKILL)
        assert lockbeat("locks", "--url", store, "--json").json == []


@pytest.mark.parametrize("args", [(), ("--at-most-once-per", "1ms")])
def test_standard_files_may_be_closed(server: EmbeddedServer, args: tuple[str, ...]) -> None:
    url = f"unix://{server.socket_path}"
    call = [
        sys.executable,
        "-m",
        "lockbeat",
        "exec",
        "report",
        *args,
        "--url",
        url,
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ]
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(["sh", "-c", f"{shlex.join(call)} {closed}"], capture_output=True, text=True, check=False)
        assert done.returncode == 3
        assert done.stdout == ("" if ">&- " in f" {closed} ".replace("2>&-", "") else "out\n")
        assert done.stderr == ("" if "2>&-" in closed else "err\n")


def test_a_command_that_writes_much_is_not_held_up(execute: Exec) -> None:
    """dkron #798: does much output hurt? Twenty megabytes, and every byte arrives."""
    host = execute("report", "--at-most-once-per", "1h", "--", "sh", "-c", "head -c 20000000 /dev/zero; echo end >&2")
    assert host.ends() == 0
    assert host.out_file.stat().st_size == 20_000_000
    assert host.err == "end\n"


def test_commands_that_hold_other_locks_do_not_meet(execute: Exec, store: str) -> None:
    outer = execute("one", "--", "sh", "-c", f"{sys.executable} -m lockbeat exec two --url {store} -- echo inner; echo $?")
    assert outer.ends() == 0
    assert "inner\n0\n" in outer.out
