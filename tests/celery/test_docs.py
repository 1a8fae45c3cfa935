"""What docs/celery.md shows is run: its project, its commands, its words."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lockbeat.celery.config import OPTIONS
from tests.celery.arena import ROOT, Arena
from tests.conftest import needs
from tests.servers import wait_until

PAGE = (ROOT / "docs" / "celery.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
PROJECT = (ROOT / "examples" / "celery" / "proj.py").read_text()


def test_the_example_is_the_pages() -> None:
    assert ("python", PROJECT) in BLOCKS


def test_every_setting_is_on_the_page() -> None:
    for name in OPTIONS:
        assert f"`lockbeat_{name}`" in PAGE or name == "timeout"


@pytest.mark.long
@needs("valkey")
def test_the_page_works_as_it_stands(field: Arena, tmp_path: Path) -> None:
    """A worker and two beats, of which one is killed."""
    [commands] = [text.splitlines() for kind, text in BLOCKS if kind == "sh" and text.startswith("celery ")]
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "proj.py").write_text(PROJECT)
    env = {**os.environ, "BROKER": field.broker.url, "LOCKBEAT_URL": field.broker.url, "PYTHONUNBUFFERED": "1"}

    def start(number: int, line: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{number}.log").open("wb") as log:
            command = [sys.executable, "-m", *shlex.split(line)]
            return subprocess.Popen(command, cwd=tmp_path / "here", env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def said() -> list[str]:
        return re.findall(r"hello (\S+) (\S+)", (tmp_path / "0.log").read_text())

    def lockbeat(*words: str) -> str:
        command = [sys.executable, "-m", "lockbeat", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False).stdout

    started = [start(number, line) for number, line in enumerate(commands)]
    try:
        assert len(started) == 3
        wait_until(lambda: len(said()) >= 2, "two messages", 90)
        started[1].kill()
        before = len(said())
        wait_until(lambda: len(said()) >= before + 2, "two more", 90)
        assert len(said()) == len(set(said()))
        assert "0 9 * * mon-fri UTC" in lockbeat("ls")
        assert "done" in lockbeat("ledger", "tick")
        assert "tick" in lockbeat("history", "--since", "1h")
        assert "report!" in lockbeat("trigger", "report")
        lockbeat("pause", "tick")
        assert "paused" in lockbeat("ls")
        assert "report!" in lockbeat("why", "report"), "its newest run"
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`lockbeat ([a-z-]+)", PAGE))))
def test_the_commands_that_it_names_are_there(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", "lockbeat", command, "--help"], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
