"""Every block of the README is run, and prints what the README says it prints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lockbeat.embedded import EmbeddedServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What differs from run to run: dates and times, counts, fences, instances, triggered runs; a slot may have come due meanwhile.
VARIES = re.compile(
    r"\bnow\b|![0-9a-f]{12}\b|[\w-]+-\d+-[0-9a-f]{8}\b|(overdue )?[+-]?\d[\d:.\-]*Z?( (ms|s|m|h|d)\b( \d+ (s|m|h)\b)?)?"
)


@dataclass(frozen=True)
class Command:
    line: str
    output: list[str]

    @property
    def code(self) -> int:
        """The exit code that the line says."""
        return int(said[1]) if (said := re.search(r"# exit code (\d)$", self.line)) else 0

    @property
    def is_stopped(self) -> bool:
        return "Ctrl-C" in self.line


def blocks(kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall(README) if found == kind]


def commands(block: str) -> list[Command]:
    found: list[Command] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], []))
        else:
            found[-1].output.append(line)
    return found


def shape(line: str) -> str:
    """The line with what varies blanked, and columns no longer aligned."""
    return re.sub(r" +", " ", VARIES.sub("#", line)).strip()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for block in blocks("python"):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name, "a python block begins with the name of its file"
        (tmp_path / name[1]).write_text(block)
    with EmbeddedServer.open(str(tmp_path / "store")):  # so that what `run` did is still there for `ls`
        yield tmp_path


def environment(folder: Path) -> dict[str, str]:
    """Of the commands that a page shows."""
    return os.environ | {
        "LOCKBEAT_URL": f"embedded://{folder / 'store'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "200",
        "TZ": "UTC",  # what people are shown, they are shown in their own
    }


def run(command: Command, folder: Path) -> list[str]:
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command.line}"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if command.is_stopped:
        lines = [process.stdout.readline().rstrip("\n") for _ in command.output]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    else:
        output, errors = process.communicate(timeout=180)
        lines = output.splitlines()
    assert process.returncode == command.code, errors
    return lines


def test_every_block_prints_what_it_says(folder: Path) -> None:
    found = [command for block in blocks("console") for command in commands(block)]
    assert len(found) >= 5
    for command in found:
        printed = run(command, folder)
        assert [shape(line) for line in printed] == [shape(line) for line in command.output], command.line


def test_it_fits_on_a_few_screens() -> None:
    assert len(README.splitlines()) <= 150


def test_every_command_is_named() -> None:
    from lockbeat.cli._command import app

    names = {info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands}
    missing = {name for name in names if f"`{name}" not in README and f"lockbeat {name}" not in README}
    assert not missing


def test_every_figure_of_speed_is_one_that_was_measured() -> None:
    rows = README.split("## Speed")[1].split("`make bench`")[0]
    said = r"two PINGs|64 callers|16 threads|50 wait|5,000 jobs|1,000 due|p99|100 at a time|100 read ahead"  # no figures of speed
    figures = re.findall(r"(?<![\w-])\d[\d,]*(?:\.\d+)?", re.sub(said, "", rows))
    measured = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    assert len(figures) >= 10
    assert not [figure for figure in figures if figure.strip(",") not in measured]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
