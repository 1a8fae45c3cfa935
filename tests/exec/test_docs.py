"""The crontab lines and the CronJob of docs/cron.md are run, with a command that is there."""

from __future__ import annotations

import re
import shlex

import pytest

from lockbeat import Cron
from tests.cli.conftest import ROOT

from .conftest import Exec

pytestmark = pytest.mark.usefixtures("old")

PAGE = (ROOT / "docs" / "cron.md").read_text()
LINE = re.compile(r"^((?:\S+ +){4}\S+) +lockbeat exec (.*)$", re.MULTILINE)
LINES = LINE.findall(PAGE)


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
        Cron(when)
    assert words[at + 1 :]
    host = execute(*options, "--", "echo", "ran")
    assert host.ends() == 0
    assert host.out == "ran\n"
    again = execute(*options, "--", "echo", "ran")
    assert again.ends() == 0
    assert again.out == ("ran\n" if "--slot" not in options and "--at-most-once-per" not in options else "")


def test_the_cronjob_calls_for_its_own_schedule(execute: Exec) -> None:
    [schedule] = re.findall(r'schedule: "(.*)"', PAGE)
    [command] = re.findall(r"command: \[(.*)\]", PAGE)
    words = [word.strip('"') for word in re.findall(r'"[^"]*"|[^ ,]+', command)]
    assert words[:2] == ["lockbeat", "exec"]
    assert words[words.index("--slot") + 1] == schedule
    host = execute(*words[2 : words.index("--")], "--early", "0", "--", "echo", "ran")
    assert host.ends() == 0
    assert host.out == "ran\n"
