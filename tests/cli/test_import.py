"""import crontab: lines that call a command, as jobs and with `lockbeat exec` in front; others stay, and are told of."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from lockbeat.cli import _crontab

from .conftest import Lockbeat

TAB = """\
# nightly
MAILTO=ops@example.org
*/5 * * * *   /opt/app/report.sh --fast > /dev/null 2>&1
CRON_TZ="Europe/Berlin"
0 3 * * 1-5  nice -n 10 pg_dump -f "/backup/it's all.sql" app

@daily python3 /opt/app/report.py
@reboot /opt/start
0 4 * * * date +%F
0 5 * * * date +\\%F
61 * * * * nope
0 6 * * * lockbeat exec known -- true
"""


def test_its_lines_become_jobs_and_the_crontab_is_printed(lockbeat: Lockbeat, store: str, tmp_path: Path) -> None:
    path = tmp_path / "tab"
    path.write_text(TAB)
    dry = lockbeat("import", "crontab", path, "--dry-run", "--url", store)
    assert dry.code == 0
    assert lockbeat("ls", "--url", store, "--json").json == []
    said = lockbeat("import", "crontab", path, "--url", store)
    assert (said.code, said.out, said.err) == (0, dry.out, dry.err)
    lines = said.out.splitlines()
    assert lines[2] == (
        "*/5 * * * * lockbeat exec report --slot '*/5 * * * *' -- sh -c '/opt/app/report.sh --fast > /dev/null 2>&1'"
    )
    words = shlex.split(lines[4].removeprefix("0 3 * * 1-5 "))
    assert words == [
        *("lockbeat", "exec", "pg_dump", "--slot", "0 3 * * 1-5", "--timezone", "Europe/Berlin"),
        *("--", "sh", "-c", 'nice -n 10 pg_dump -f "/backup/it\'s all.sql" app'),
    ]
    kept = [at for at, (before, after) in enumerate(zip(TAB.splitlines(), lines, strict=True)) if before == after]
    assert kept == [0, 1, 3, 5, 7, 8, 10, 11]
    assert [line.partition(" is left as it is: ")[2][:20] for line in said.err.splitlines()] == [
        "@reboot is each host",
        "a % is a new line th",
        "can't read the minut",
        "it calls lockbeat ex",
    ]
    jobs = lockbeat("ls", "--url", store, "--json").json
    assert {job["job"]: job["schedule"] for job in jobs} == {
        "date": "0 5 * * * Europe/Berlin, when called",
        "pg_dump": "0 3 * * 1-5 Europe/Berlin, when called",
        "report": "*/5 * * * * UTC, when called",
        "report-2": "0 0 * * * Europe/Berlin, when called",
    }
    assert lockbeat("import", "crontab", path, "--url", store).out == dry.out


def test_a_systems_crontab_has_a_column_for_the_user() -> None:
    [line] = _crontab.read("0 1 * * * root /bin/true", timezone="UTC", system=True)
    assert line.wrapped == "0 1 * * * root lockbeat exec true --slot '0 1 * * *' -- sh -c /bin/true"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/bin/python3 /opt/app/report.py --all", "report"),
        ("cd /srv/app && ./bin/sync.sh", "sync"),
        ("A=1 flock -n /tmp/x backup", "x"),
        ("'/opt/my app/run'", "my"),
        ("$HOME/x", "x"),
        ("echo ü", "echo"),
        ("> /dev/null", "null"),
        ("$(cat /etc/which)", "cat"),
    ],
)
def test_names(command: str, name: str) -> None:
    [line] = _crontab.read(f"* * * * * {command}", timezone="UTC", system=False)
    assert line.name == name


def test_a_mark_that_editors_on_windows_put_first_takes_no_line_away(lockbeat: Lockbeat, tmp_path: Path) -> None:
    (tmp_path / "tab").write_text("\ufeff*/5 * * * * /opt/first\n*/5 * * * * /opt/second\n")
    said = lockbeat("import", "crontab", tmp_path / "tab", "--dry-run").out
    assert said.count("lockbeat exec") == 2


def test_what_is_no_crontab_is_one_line(lockbeat: Lockbeat, tmp_path: Path) -> None:
    (tmp_path / "tab").write_text("hello\n")
    lockbeat("import", "crontab", tmp_path / "tab", "--dry-run").refuses(2, "has no line that calls a command")
    lockbeat("import", "crontab", tmp_path / "none", "--dry-run").refuses(2, "can't be read: No such file")
    (tmp_path / "tab").write_bytes(b"\xff\xfe")
    lockbeat("import", "crontab", tmp_path / "tab", "--dry-run").refuses(2, "it is no text")
