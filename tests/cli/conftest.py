"""The command line against a private embedded server: in this process where it only looks, as a process where it serves."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import typer

from lockbeat import Lockbeat as Client
from lockbeat.cli import main
from lockbeat.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]
# A process reads the signatures of all commands once (three times); here thousands of commands are run in one.
_signatures = functools.cache(typer.main.get_params_from_function)  # type: ignore[attr-defined]
typer.main.get_params_from_function = _signatures  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def refuses(self, code: int, said: str = "") -> None:
        """It ended with that exit code, and one line on stderr that says it."""
        assert (self.code, self.out) == (code, "")
        assert self.err.startswith("lockbeat: ")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        assert said in self.err


Lockbeat = Callable[..., Answer]


@pytest.fixture(autouse=True)
def plain_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store but the one that a test names; a test without a server is about one that is away, and need not wait for it."""
    monkeypatch.setenv("LOCKBEAT_URL", "redis://127.0.0.1:1")
    if "server" not in request.fixturenames:
        monkeypatch.setattr("lockbeat.cli._store.TIMEOUT", 0.5)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that the tests of the command line share; each empties it."""
    with EmbeddedServer.open(tmp_path_factory.mktemp("cli") / "store", persist=False) as opened:
        yield opened


def left(raw: Any) -> set[str]:
    """What is in a store that was empty, but for its format, which the first who opens it writes."""
    return {key for key in raw.scan_iter() if not key.endswith(":format")}


@pytest.fixture
def raw(server: EmbeddedServer) -> Iterator[Any]:
    """redis-py, past lockbeat."""
    with redis.Redis(unix_socket_path=server.socket_path, decode_responses=True, protocol=2) as client:
        client.flushall()
        yield client


@pytest.fixture
def store(server: EmbeddedServer, raw: Any) -> str:
    """The URL of an empty store."""
    return f"embedded://{server.directory}"


def using(store: str, do: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:
    """What is done with the store, past the command line."""

    async def run() -> Any:
        async with Client(store, **options) as lb:
            return await do(lb)

    return asyncio.run(run())


@pytest.fixture
def lockbeat(capsys: pytest.CaptureFixture[str]) -> Iterator[Lockbeat]:
    """Runs a command in this process, and takes back how it sets up logging."""
    loggers = [logging.getLogger(name) for name in (None, "lockbeat", "lockbeat.run")]
    before = [(logger, logger.__class__, logger.level, [*logger.handlers]) for logger in loggers]

    def run(*args: str) -> Answer:
        code = main([str(arg) for arg in args])
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    yield run
    for logger, kind, level, handlers in before:
        logger.__class__, logger.handlers = kind, handlers
        logger.setLevel(level)


def wait_until(condition: Callable[[], Any], description: str, timeout: float = 90.0) -> Any:
    """Look in short steps; what the condition found, or AssertionError with the description."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened within {timeout:g} s: {description}"
        time.sleep(0.01)
    return found


class Process:
    """`python -m lockbeat ...`, its output in files."""

    def __init__(
        self, directory: Path, args: Sequence[str], env: dict[str, str], stdin: int = subprocess.DEVNULL, cwd: Path | None = None
    ) -> None:
        """cwd: None: the directory above that of its output."""
        self.out_file, self.err_file = directory / "out", directory / "err"
        directory.mkdir(parents=True)
        with self.out_file.open("wb") as out, self.err_file.open("wb") as err:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "lockbeat", *args],
                stdin=stdin,
                stdout=out,
                stderr=err,
                cwd=cwd or directory.parent,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
            )

    @property
    def out(self) -> str:
        return self.out_file.read_text()

    @property
    def err(self) -> str:
        return self.err_file.read_text()

    def says(self, text: str) -> str:
        """Wait for it on stdout; all that was said."""
        wait_until(lambda: text in self.out or self.popen.poll() is not None, f"{text!r} on stdout")
        assert text in self.out, f"{self.out}{self.err}"
        return self.out

    def end(self, number: int = signal.SIGTERM, timeout: float = 90.0) -> int:
        """Signal it, and wait for its exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(timeout)


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts commands as processes, which are gone after the test."""
    started: list[Process] = []

    def run(*args: str, **env: str) -> Process:
        started.append(Process(tmp_path / f"process-{len(started)}", args, env))
        return started[-1]

    yield run
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.wait()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a module of a user's, and gives its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)

    def write(text: str, name: str = "their_jobs") -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        for added in set(sys.modules) - before:
            if added == name:
                del sys.modules[added]
        return str(path)

    return write
