"""What a command wrote and its disk would not take: that is said, and the slot has not gone well."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from lockbeat.embedded import EmbeddedServer
from tests.cli.conftest import ROOT

from .conftest import Lockbeat

pytestmark = pytest.mark.usefixtures("old")

FULL = Path("/dev/full")
on_full = pytest.mark.skipif(not FULL.exists(), reason="/dev/full is Linux'")
SLOT = ("--slot", "1h", "--early", "0")


def call(
    server: EmbeddedServer, tmp_path: Path, script: str, *options: str, out: IO[Any] | int, err: IO[Any] | int, **more: Any
) -> tuple[int, str]:
    """The exit code of `lockbeat exec report`, and what it said on stderr, if that is a pipe."""
    args = [sys.executable, "-m", "lockbeat", "exec", "report", *options, "--url", f"unix://{server.socket_path}", "--"]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [*args, "sh", "-c", script], check=False, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, timeout=120, **more
    )
    return done.returncode, (done.stderr or b"").decode()


def entry(lockbeat: Lockbeat, store: str) -> dict[str, Any]:
    [found] = lockbeat("ledger", "report", "--url", store, "--json").json
    return dict(found)


@on_full
def test_a_command_that_ends_well_and_whose_output_is_lost_has_failed(
    server: EmbeddedServer, tmp_path: Path, lockbeat: Lockbeat, store: str
) -> None:
    with FULL.open("wb") as full:
        code, said = call(server, tmp_path, "echo the dump; exit 0", *SLOT, out=full, err=subprocess.PIPE)
    assert code == 74
    assert said == "lockbeat: what the command of 'report' wrote is lost: stdout: No space left on device\n"
    found = entry(lockbeat, store)
    assert found["state"] == "failed"
    assert found["reason"] == "exit code 0, and what it wrote is lost (stdout: No space left on device): the dump"
    told = lockbeat("why", "report", "--url", store, "--json").json
    assert (told["exit_code"], told["output"]) == (0, "the dump\n"), "its end is kept"


@on_full
def test_where_stderr_is_full_too_the_exit_code_says_it(
    server: EmbeddedServer, tmp_path: Path, lockbeat: Lockbeat, store: str
) -> None:
    with FULL.open("wb") as full:
        assert call(server, tmp_path, "echo the dump", *SLOT, out=full, err=subprocess.STDOUT)[0] == 74
    assert entry(lockbeat, store)["state"] == "failed"


@on_full
def test_the_exit_code_of_a_command_that_failed_stays(
    server: EmbeddedServer, tmp_path: Path, lockbeat: Lockbeat, store: str
) -> None:
    with FULL.open("wb") as full:
        code, said = call(server, tmp_path, "echo no >&2; exit 3", *SLOT, out=subprocess.DEVNULL, err=full)
    assert (code, said) == (3, "")
    assert entry(lockbeat, store)["reason"].startswith("exit code 3, and what it wrote is lost (stderr: ")


@on_full
def test_a_command_that_writes_to_its_disk_itself_is_told_by_it(server: EmbeddedServer, tmp_path: Path) -> None:
    """Nothing is passed on, so nothing is added."""
    for options in ((*SLOT, "--no-output"), ()):
        with FULL.open("wb") as full:
            code, said = call(server, tmp_path, "echo the dump || exit 9", *options, out=full, err=subprocess.PIPE)
        assert code == 9
        assert "lockbeat:" not in said


def test_a_limit_on_the_size_of_files_counts_as_a_full_disk(
    server: EmbeddedServer, tmp_path: Path, lockbeat: Lockbeat, store: str
) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))

    with (tmp_path / "out").open("wb") as out:
        code, said = call(server, tmp_path, "printf 123456", *SLOT, out=out, err=subprocess.PIPE, preexec_fn=limited)
    assert code == 74
    assert said == "lockbeat: what the command of 'report' wrote is lost: stdout: File too large\n"
    assert (tmp_path / "out").read_bytes() == b"1234"
    assert entry(lockbeat, store)["state"] == "failed"


def test_a_reader_that_has_gone_has_lost_nothing(server: EmbeddedServer, tmp_path: Path, lockbeat: Lockbeat, store: str) -> None:
    """As in `lockbeat exec ... | head -1`."""
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as gone:
        gone.wait()
        code, said = call(server, tmp_path, "echo the dump", *SLOT, out=gone.stdin or 0, err=subprocess.PIPE)
    assert (code, said) == (0, "")
    assert entry(lockbeat, store)["state"] == "done"


LATE = """
import os
from lockbeat.exec.output import Output
output = Output()
os.write(output.stdout, b"the dump")
os.close(output.stdout)
output.finish()  # the command has ended before anybody read
output.pass_on(lambda: os.write(2, f"told: {output.trouble}|".encode()))
output.join()
"""


@on_full
def test_what_is_lost_is_known_before_the_end_is_reported() -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", LATE],
            check=True,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=120,
            env={"PYTHONPATH": str(ROOT)},
        )
    assert done.stderr.startswith(b"told: stdout: No space left on device|")
