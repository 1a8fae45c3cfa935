"""The crontab lines and the CronJob of docs/cron.md are run, with a command that is there."""

from __future__ import annotations

import re
import shlex
import time

import pytest

from lockbeat import Cron
from tests.cli.conftest import ROOT

from .conftest import Exec

pytestmark = pytest.mark.usefixtures("old")

PAGE = (ROOT / "docs" / "cron.md").read_text()
LINE = re.compile(r"^((?:\S+ +){4}\S+) +lockbeat exec (.*)$", re.MULTILINE)
LINES = LINE.findall(PAGE)


def latest_slot(when: str, options: list[str]) -> int | None:
    zone = options[options.index("--timezone") + 1] if "--timezone" in options else "UTC"
    return Cron(when, timezone=zone).prev(time.time_ns() // 1_000_000)


def test_there_are_several() -> None:
    assert len(LINES) == 4


@pytest.mark.parametrize(("when", "args"), LINES)
def test_each_line_runs_its_command_once(execute: Exec, when: str, args: str) -> None:
    words = shlex.split(args)
    at = words.index("--")
    options = words[:at]
    if "--slot" in options:
        assert options[options.index("--slot") + 1] == re.sub(r" +", " ", when)
        options += ["--early", "0"]
    assert words[at + 1 :]
    before = latest_slot(when, options)
    host = execute(*options, "--", "echo", "ran")
    assert host.ends() == 0
    assert host.out == "ran\n"
    again = execute(*options, "--", "echo", "ran")
    assert again.ends() == 0
    if "--slot" in options:
        # The next slot may have come between the two, and is run as well.
        assert again.out in ([""] if latest_slot(when, options) == before else ["", "ran\n"])
    else:
        assert again.out == ("" if "--at-most-once-per" in options else "ran\n")


def test_the_cronjob_calls_for_its_own_schedule(execute: Exec) -> None:
    [schedule] = re.findall(r'schedule: "(.*)"', PAGE)
    [command] = re.findall(r"command: \[(.*)\]", PAGE)
    words = [word.strip('"') for word in re.findall(r'"[^"]*"|[^ ,]+', command)]
    assert words[:2] == ["lockbeat", "exec"]
    assert words[words.index("--slot") + 1] == schedule
    host = execute(*words[2 : words.index("--")], "--early", "0", "--", "echo", "ran")
    assert host.ends() == 0
    assert host.out == "ran\n"
