"""An embedded server ends itself some minutes after its last user died, and never under a newcomer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lockbeat.embedded import EmbeddedServer, _launch, _locks
from tests.servers import wait_until

ROOT = Path(__file__).parent.parent

KILLED = """
    import os, signal, sys
    from lockbeat.embedded import EmbeddedServer, _launch
    _launch._IDLE = float(sys.argv[2])
    server = EmbeddedServer.open(sys.argv[1])
    print(server.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_user(directory: Path, idle: float) -> int:
    """Somebody starts the server and is killed; the server's pid."""
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(directory), str(idle)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    return int(done.stdout)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return not Path("/proc").exists()


def is_watched(directory: Path) -> bool:
    return not _locks.is_free(directory / "watch")


def watcher(directory: Path) -> int:
    """Its pid, found by what it was started with."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"_watch.py") for word in words) and os.fsencode(directory / "server.sock") in words:
                return int(process.name)
    raise AssertionError("nobody watches")


def waits(pid: int) -> bool:
    return any(line.split()[1] == "->" and f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines())


def written(server: EmbeddedServer, name: str, value: str | None = None) -> object:
    with redis.Redis(unix_socket_path=server.socket_path, decode_responses=True, protocol=2) as client:
        return client.get(name) if value is None else client.set(name, value)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Its server, should a test leave one, is ended."""
    yield tmp_path / "store"
    if (tmp_path / "store" / "alive").exists():
        EmbeddedServer.open(tmp_path / "store").close()


def test_a_server_whose_users_were_killed_ends_itself_and_keeps_its_data(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_launch, "_IDLE", 0.2)  # the watch of the first server may go on to that of the second
    with EmbeddedServer.open(directory) as server:
        written(server, "slot", "1")
    pid = killed_user(directory, 0.2)
    wait_until(lambda: not lives(pid), "the server has ended")
    wait_until(lambda: not is_watched(directory), "and so has its watch")
    with EmbeddedServer.open(directory) as server:
        assert written(server, "slot") == "1"


def test_a_server_with_a_user_goes_on(directory: Path) -> None:
    killed_user(directory, 0.2)
    with EmbeddedServer.open(directory) as server:
        pid = server.pid  # of the one that was there, or of another if that one's time was over
        assert pid is not None
        assert is_watched(directory)
        # Starting a process takes about as long as the server may be idle; another user's death is no reason to end it.
        for _ in range(2):
            assert killed_user(directory, 0.2) == pid
        assert server.pid == pid
        written(server, "k", "1")
    wait_until(lambda: not lives(pid) and not is_watched(directory), "its last user ended it, and the watch ended")


def test_nobody_is_given_a_server_that_is_about_to_end(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newcomers that come just as its time is over: each gets one that stays."""
    monkeypatch.setattr(_launch, "_IDLE", 0.05)
    for round_ in range(5):
        killed_user(directory, 0.02 * round_ + 0.05)
        with EmbeddedServer.open(directory) as server:
            pid = server.pid
            assert pid is not None, "it answers whoever has joined"
            written(server, "round", str(round_))
            # The watch has had time to decide: it gets the lock before us, or finds a user.
            for _ in range(3):
                with _locks.exclusive(directory / "lock", 10):
                    pass
            assert server.pid == pid
            assert written(server, "round") == str(round_)


def test_a_newcomer_in_the_middle_of_joining_is_not_passed_over(directory: Path) -> None:
    pid = killed_user(directory, 0.2)
    with _locks.exclusive(directory / "lock", 10):  # as who joins holds it
        watch = watcher(directory)
        wait_until(lambda: waits(watch), "the watch waits for the lock, as the kernel shows")
        assert lives(pid)
        users = _locks.open_fd(directory / "users")
        _locks.take(users, fcntl.LOCK_SH, 0)
    for _ in range(2):  # starting a process takes longer than the looks that are left
        assert killed_user(directory, 0.2) == pid
    assert lives(pid)
    _locks.close_fd(users)
    wait_until(lambda: not lives(pid), "without us it ends")


def test_a_server_that_was_brought_back_is_watched_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_launch, "_IDLE", 0.2)
    server = EmbeddedServer.open(directory)
    first = server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: server.pid is None, "it is gone")
    server.ensure_running()
    second = server.pid
    assert second not in (None, first)
    assert is_watched(directory)
    server._shared._exit()  # as if we were killed
    wait_until(lambda: server.pid is None, "the second has ended as well")
    server.close()


def test_a_watch_that_was_killed_is_replaced_by_who_comes_next_and_there_is_one(directory: Path) -> None:
    with EmbeddedServer.open(directory):
        first = watcher(directory)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not is_watched(directory), "it is gone")
        with EmbeddedServer.open(directory):
            second = watcher(directory)
            assert second != first
        with EmbeddedServer.open(directory):
            assert watcher(directory) == second
    wait_until(lambda: not lives(second), "it ends with its server")


def test_a_server_whose_directory_was_removed_ends_without_users(directory: Path) -> None:
    pid = killed_user(directory, 2)
    with redis.Redis(unix_socket_path=str(directory / "server.sock"), protocol=2) as client:
        wait_until(lambda: len(client.client_list()) == 2, "the watch has connected")

    def removed() -> bool:
        shutil.rmtree(directory, ignore_errors=True)  # the watch may write there meanwhile
        return not directory.exists()

    wait_until(removed, "the directory is gone")
    wait_until(lambda: not lives(pid), "the server has ended")


def test_a_program_that_carries_its_own_python_starts_nothing_else(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with EmbeddedServer.open(directory):
        assert not is_watched(directory)
    monkeypatch.delattr(sys, "frozen")
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    with EmbeddedServer.open(directory):
        assert not is_watched(directory)
