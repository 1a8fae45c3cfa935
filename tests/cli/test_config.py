"""Each option by argument, environment, file and default, in that order; and `config`, which says which it was."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Beat, InvalidArgument
from lockbeat import Lockbeat as Client
from lockbeat.cli import _settings
from lockbeat.jobs import Job
from lockbeat.settings import SETTINGS, found
from lockbeat.triggers import Every

from .conftest import ROOT, Lockbeat, using

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the pyproject.toml of the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCKBEAT_URL", raising=False)

    def write(text: str) -> Path:
        path = tmp_path / "pyproject.toml"
        path.write_text(text)
        return path

    return write


VALUES: dict[str, tuple[Any, str, Any, str, Any]] = {
    # argument; environment, as read; file, as read
    "url": ("redis://a", "redis://b", "redis://b", '"redis://c"', "redis://c"),
    "namespace": ("a", "b", "b", '"c"', "c"),
    "owner": ("a", "b", "b", '"c"', "c"),
    "shards": (2, "3", 3, "4", 4),
    "timeout": (1.5, "2s", 2.0, "3", 3.0),
    "queue": ("a", "b", "b", '"c"', "c"),
    "concurrency": (1, "2", 2, "3", 3),
    "grace": (1, "2m", 120.0, '"1h 30m"', 5400.0),
    "stall": (None, "none", None, '"90"', 90.0),
    "log_url": ("http://a/{task_id}", "http://b/{task_id}", "http://b/{task_id}", '"http://c/{task_id}"', "http://c/{task_id}"),
    "wait_for_store": (False, "no", False, "false", False),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_argument_environment_file_default(name: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    argument, text, by_environment, in_file, by_file = VALUES[name]
    unset = found(name) if name != "stall" else None
    assert unset is None or unset.source == "default"
    path = write(f"[tool.lockbeat]\n{name} = {in_file}\n")
    beat = Beat()
    assert name == "url" or (beat.settings[name].value, beat.settings[name].source) == (by_file, str(path))
    monkeypatch.setenv(f"LOCKBEAT_{name.upper()}", text)
    beat = Beat()
    assert name == "url" or (beat.settings[name].value, beat.settings[name].source) == (
        by_environment,
        f"$LOCKBEAT_{name.upper()}",
    )
    if name != "url":
        beat = Beat(**{name: argument})
        assert (beat.settings[name].value, beat.settings[name].source) == (argument, "argument")
    monkeypatch.setenv(f"LOCKBEAT_{name.upper()}", "")
    assert name == "url" or Beat().settings[name].value == by_file


def test_a_beat_and_a_client_go_by_it(write: Write, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[tool.lockbeat]\nnamespace = "shop"\nconcurrency = 7\nqueue = "mail"\nstall = "none"\ntimeout = 2\n')
    monkeypatch.setenv("LOCKBEAT_GRACE", "3s")
    beat = Beat()
    assert (beat.queue, beat.concurrency, beat.grace, beat.stall) == ("mail", 7, 3.0, None)

    async def namespace(lb: Client) -> tuple[str, float]:
        return lb.store.keys.namespace, lb.store.timeout

    assert using(store, namespace) == ("shop", 2.0)
    assert using(store, namespace, namespace="other", timeout=1.0) == ("other", 1.0)


def test_commands_go_by_it(lockbeat: Lockbeat, write: Write, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    using(store, lambda lb: lb.jobs.put(Job.declare("report", Every(60))), namespace="shop")
    path = write(f'[tool.lockbeat]\nurl = "{store}"\nnamespace = "shop"\n[tool.lockbeat.next]\nn = 3\n')
    assert [job["job"] for job in lockbeat("ls", "--json").json] == ["report"]
    assert len(lockbeat("next", "report").out.splitlines()) == 3
    monkeypatch.setenv("LOCKBEAT_NEXT_N", "2")
    monkeypatch.setenv("LOCKBEAT_NEXT_JSON", "1")
    assert len(lockbeat("next", "report").json) == 2
    assert len(lockbeat("next", "report", "-n", "4").json) == 4
    monkeypatch.setenv("LOCKBEAT_LS_NAMESPACE", "empty")
    assert lockbeat("ls", "--json").json == []
    monkeypatch.setenv("LOCKBEAT_NAMESPACE", "other")
    lockbeat("next", "report").refuses(1, "no job named 'report'")
    said = lockbeat("config", "--json").json
    assert said["file"] == str(path)
    assert {one["option"]: (one["value"], one["from"]) for one in said["options"] if one["from"] != "default"} == {
        "url": (store, str(path)),
        "namespace": ("other", "$LOCKBEAT_NAMESPACE"),
        "ls --namespace": ("empty", "$LOCKBEAT_LS_NAMESPACE"),
        "next --n": ("2", "$LOCKBEAT_NEXT_N"),
        "next --json": ("1", "$LOCKBEAT_NEXT_JSON"),
    }


@pytest.mark.parametrize(
    ("command", "variable", "value"),
    [
        ("check", "LOCKBEAT_HEALTH_PORT", "many"),
        ("check", "LOCKBEAT_CHECK_HEALTH_PORT", "70000"),
        ("check", "LOCKBEAT_CHECK_TIMEOUT", "soon"),
        ("run jobs.py:beat", "LOCKBEAT_METRICS_PORT", "0"),
        ("run jobs.py:beat", "LOCKBEAT_RUN_HEALTH_LIMIT", "soon"),
        ("run jobs.py:beat", "LOCKBEAT_RUN_LOG_FORMAT", "xml"),
        ("worker jobs.py:beat", "LOCKBEAT_WORKER_CONCURRENCY", "0"),
        ("run jobs.py:beat", "LOCKBEAT_CONCURRENCY", "0"),
        ("run jobs.py:beat", "LOCKBEAT_GRACE", "soon"),
        ("ls", "LOCKBEAT_LS_LIMIT", "few"),
        ("ls", "LOCKBEAT_NAMESPACE", "{"),
        ("demo", "LOCKBEAT_DEMO_INSTANCES", "99"),
        ("calendar put days --country DE", "LOCKBEAT_CALENDAR_PUT_YEARS", "soon"),
    ],
)
def test_a_wrong_value_of_the_environment_is_named_by_its_variable(
    lockbeat: Lockbeat, write: Write, store: str, monkeypatch: pytest.MonkeyPatch, command: str, variable: str, value: str
) -> None:
    write(f'[tool.lockbeat]\nurl = "{store}"\n').with_name("jobs.py").write_text(
        "from lockbeat import Beat\nbeat = Beat()\nbeat.every(60, name='job')(print)\n"
    )
    monkeypatch.setenv(variable, value)
    said = lockbeat(*command.split())
    assert said.code == 2, said
    assert f"${variable}" in said.err
    assert "--health" not in said.err


def test_a_wrong_value_of_the_file_is_named_by_its_place_and_one_that_was_typed_by_its_option(
    lockbeat: Lockbeat, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write('[tool.lockbeat.check]\ntimeout = "soon"\n')
    lockbeat("check", "--health-port", "1").refuses(2, f"timeout in [tool.lockbeat.check] of {path}")
    monkeypatch.setenv("LOCKBEAT_CHECK_TIMEOUT", "later")
    lockbeat("check", "--health-port", "1").refuses(2, "$LOCKBEAT_CHECK_TIMEOUT")
    lockbeat("check", "--health-port", "1", "--timeout", "never").refuses(2, "'--timeout'")
    lockbeat("check", "--health-port", "1", "--timeout=never").refuses(2, "'--timeout'")


def test_config_shows_what_a_beat_says_of_itself_and_hides_passwords(
    lockbeat: Lockbeat, module: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = module("""
        from lockbeat import Beat
        def make():
            return Beat("redis://:secret@code/0", concurrency=5)
        beat = make()
    """)
    monkeypatch.setenv("LOCKBEAT_URL", "redis://:hidden@env/1")
    monkeypatch.setenv("LOCKBEAT_LS_URL", "redis://:hidden@ls/1")
    said = lockbeat("config")
    assert said.code == 0
    assert "redis://:***@env:6379/1" in said.out
    assert "hidden" not in said.out
    for target in (f"{path}:beat", f"{path}:make()"):
        said = lockbeat("config", target)
        assert re.search(r"url +redis://:\*\*\*@code:6379 +argument", said.out)
        assert re.search(r"concurrency +5 +argument", said.out)
        assert "secret" not in said.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.lockbeat]\nconcurency = 2\n", "concurency: no such option in [tool.lockbeat] of"),
        ("[tool.lockbeat]\nconcurency = 2\n", "did you mean concurrency?"),
        ('[tool.lockbeat]\nconcurrency = "many"\n', "concurrency in [tool.lockbeat] of"),
        ("[tool.lockbeat]\nconcurrency = [1]\n", "must be a string or a number, not list"),
        ('[tool.lockbeat]\ngrace = "soon"\n', "is no duration"),
        ("[tool.lockbeat.exec]\nttll = 2\n", "ttll: no such option in [tool.lockbeat.exec]"),
        ("[tool.lockbeat.exce]\nttl = 2\n", "there is no command 'exce'"),
        ("[tool]\nlockbeat = 3\n", "must be a table"),
    ],
)
def test_what_the_file_has_wrong_is_one_line(lockbeat: Lockbeat, write: Write, text: str, said: str) -> None:
    write(text)
    lockbeat("config").refuses(2, said)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LOCKBEAT_CONCURRENCY", "many", "$LOCKBEAT_CONCURRENCY: must be a whole number, not 'many'"),
        ("LOCKBEAT_CONCURRENCY", "0", "$LOCKBEAT_CONCURRENCY: must be "),
        ("LOCKBEAT_GRACE", "soon", "$LOCKBEAT_GRACE: 'soon' is no duration"),
        ("LOCKBEAT_WAIT_FOR_STORE", "maybe", "$LOCKBEAT_WAIT_FOR_STORE: must be true or false"),
        ("LOCKBEAT_CONFIG", "/no/such.toml", "LOCKBEAT_CONFIG: /no/such.toml can't be read"),
    ],
)
def test_what_a_variable_has_wrong_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgument, match=re.escape(said)):
        Beat()


def test_a_file_that_is_none_of_ours_stops_nobody(lockbeat: Lockbeat, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("this is no toml")
    assert lockbeat("config").code == 0
    monkeypatch.setenv("LOCKBEAT_CONFIG", str(path))
    lockbeat("config").refuses(2, "can't be read")


def test_a_file_of_ours_that_can_not_be_read_is_no_reason_to_go_by_the_defaults(lockbeat: Lockbeat, write: Write) -> None:
    """herdr#3678: who goes by them serves another store, and says nothing."""
    write("[tool.lockbeat]\nurl = 'redis://store'\nnamespace = \n")
    lockbeat("config").refuses(2, "pyproject.toml: ")


def test_a_mark_that_editors_on_windows_put_first_is_none_of_the_file(lockbeat: Lockbeat, write: Write) -> None:
    write("\ufeff[tool.lockbeat]\nnamespace = 'shop'\n")
    assert "shop" in lockbeat("config").out


def test_only_the_working_directorys_file_is_read(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write("[tool.lockbeat]\nconcurrency = 2\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    assert Beat().concurrency == 100
    monkeypatch.setenv("LOCKBEAT_CONFIG", str(path))
    assert Beat().concurrency == 2


def test_a_variable_that_nothing_reads_is_remarked(lockbeat: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKBEAT_CONCURENCY", "3")
    said = lockbeat("config")
    assert said.code == 0
    assert "nothing reads LOCKBEAT_CONCURENCY (did you mean LOCKBEAT_CONCURRENCY?)" in said.err


def test_what_a_command_is_given_by_exec_is_no_option_of_it() -> None:
    """A command of `lockbeat exec` may call lockbeat again."""
    import typer

    from lockbeat.cli._command import app
    from lockbeat.cli.commands.config import GIVEN_TO_COMMANDS

    options = list(_settings.options(typer.main.get_command(app)))
    assert {name for option in options for name in option.variables}.isdisjoint(GIVEN_TO_COMMANDS)
    assert {"LOCKBEAT_EXEC_SLOT", "LOCKBEAT_RUN_CONCURRENCY", "LOCKBEAT_UTC"} <= {
        name for option in options for name in option.variables
    }


def test_the_page_shows_what_config_prints(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    [file] = re.findall(r"```toml\n# pyproject.toml\n(.*?)```", page, re.DOTALL)
    [shown] = re.findall(r"```console\n\$ (.*?)```", page, re.DOTALL)
    line, _, expected = shown.partition("\n")
    (tmp_path / "pyproject.toml").write_text(file)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOCKBEAT_")}
    command = line.replace("lockbeat config", f"{sys.executable} -m lockbeat config")
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=clean | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    plain = done.stdout.replace(str(tmp_path / "pyproject.toml"), "/srv/shop/pyproject.toml")
    assert [line.split() for line in plain.splitlines()] == [line.split() for line in expected.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str) -> None:
    words = {
        "COMP_WORDS": "lockbeat skip",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "lockbeat skip",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from lockbeat.cli import main; raise SystemExit(main())"],
        env=os.environ | words | {"_LOCKBEAT_COMPLETE": f"complete_{shell}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "skip-next" in done.stdout, done.stderr
