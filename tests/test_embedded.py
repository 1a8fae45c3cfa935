"""The embedded server: shared by processes, ended by the last one, recovered from every kill."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lockbeat.embedded import EmbeddedServer, default_directory, serve_forever
from lockbeat.errors import InvalidArgument, StoreUnavailable
from tests.conftest import needs
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parent.parent

# A user in a process of its own: says its server's pid, then does what it is told, a line at a time.
USER = """
    import sys
    from lockbeat.embedded import EmbeddedServer
    server = EmbeddedServer.open(sys.argv[1])
    print(server.pid, flush=True)
    for line in sys.stdin:
        if line.strip() == "close":
            server.close()
            print("closed", flush=True)
        elif line.strip() == "ensure":
            server.ensure_running()
            print(server.pid, flush=True)
"""


class User:
    """A process that uses the embedded server of a directory."""

    def __init__(self, directory: Path, code: str = USER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.read()

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.communicate(timeout=90)


@contextlib.contextmanager
def users(directory: Path, number: int) -> Iterator[list[User]]:
    started = [User(directory) for _ in range(number)]
    try:
        yield started
    finally:
        for user in started:
            if user.process.poll() is None:
                user.kill()


def client(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis(unix_socket_path=server.socket_path, decode_responses=True, protocol=2)


def put(server: EmbeddedServer, name: str, value: str) -> None:
    with client(server) as connection:
        connection.set(name, value)


def got(server: EmbeddedServer, name: str) -> object:
    with client(server) as connection:
        return connection.get(name)


def kill_server(server: EmbeddedServer) -> None:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.pid is None, "the killed server is gone")


def ended(server: EmbeddedServer) -> bool:
    return not os.path.exists(server.socket_path)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory whose server, should a test leave one, is ended by joining and leaving it."""
    place = tmp_path / "store"
    yield place
    if place.exists() and (place / "alive").exists():
        EmbeddedServer.open(place).close()


def test_five_processes_that_start_at_once_share_one_server(directory: Path) -> None:
    with users(directory, 5) as five:
        assert len({user.read() for user in five}) == 1
        for user in five[1:]:
            assert user.tell("close") == "closed"
        with EmbeddedServer.open(directory) as here:
            assert five[0].tell("ensure") == str(here.pid)


def test_the_last_user_ends_the_server(directory: Path) -> None:
    with users(directory, 1) as (other,):
        other.read()
        server = EmbeddedServer.open(directory)
        server.close()
        assert not ended(server), "the other process still uses it"
        assert other.tell("close") == "closed"
        assert ended(server)
        assert (directory / "server.pid").exists() is False


def test_an_orderly_exit_without_close_counts_as_leaving(directory: Path) -> None:
    with users(directory, 1) as (other,):
        other.read()
        other.end()
    assert not (directory / "server.sock").exists()


def test_what_was_written_outlives_the_last_user(directory: Path) -> None:
    with EmbeddedServer.open(directory) as server:
        put(server, "slot", "1")
    assert ended(server)
    with EmbeddedServer.open(directory) as server:
        assert got(server, "slot") == "1"


def test_without_persistence_nothing_is_left(directory: Path) -> None:
    with EmbeddedServer.open(directory, persist=False) as server:
        put(server, "slot", "1")
    with EmbeddedServer.open(directory, persist=False) as server:
        assert got(server, "slot") is None
        assert not (directory / "appendonlydir").exists()


def test_a_killed_server_comes_back_with_its_data(directory: Path) -> None:
    with EmbeddedServer.open(directory) as server:
        put(server, "slot", "1")
        before = server.pid
        kill_server(server)
        server.ensure_running()
        assert server.pid not in (None, before)
        assert got(server, "slot") == "1"


def test_all_users_that_find_the_server_killed_bring_back_one(directory: Path) -> None:
    with users(directory, 3) as three, EmbeddedServer.open(directory) as server:
        for user in three:
            user.read()
        kill_server(server)
        for user in three:
            assert user.process.stdin is not None
            user.process.stdin.write("ensure\n")
            user.process.stdin.flush()
        assert {user.read() for user in three} == {str(server.pid)}


def test_when_every_user_was_killed_the_next_joins_and_ends_the_orphan(directory: Path) -> None:
    with users(directory, 2) as two:
        pids = {user.read() for user in two}
        for user in two:
            user.kill()
    with EmbeddedServer.open(directory) as server:
        assert {str(server.pid)} == pids
        put(server, "slot", "1")
    assert ended(server)


def test_when_users_and_server_were_killed_the_next_recovers(directory: Path) -> None:
    with users(directory, 1) as (user,):
        pid = int(user.read())
        user.kill()
        os.kill(pid, signal.SIGKILL)
    with EmbeddedServer.open(directory) as server:
        assert server.pid not in (None, pid)


def test_a_stale_socket_and_pid_file_are_no_obstacle(directory: Path) -> None:
    directory.mkdir()
    (directory / "server.sock").touch()
    (directory / "server.pid").write_text(str(os.getpid()))
    with EmbeddedServer.open(directory) as server:
        assert server.pid not in (None, os.getpid())


def test_a_file_cut_in_the_middle_of_a_write_is_read_up_to_there(directory: Path) -> None:
    with EmbeddedServer.open(directory) as server:
        put(server, "first", "1")
        put(server, "second", "2")
        kill_server(server)
        (log,) = (directory / "appendonlydir").glob("*.incr.aof")
        log.write_bytes(log.read_bytes()[:-7])
        server.ensure_running()
        assert (got(server, "first"), got(server, "second")) == ("1", None)


def test_a_file_beyond_repair_is_an_error_with_the_end_of_the_log(directory: Path) -> None:
    with EmbeddedServer.open(directory) as server:
        put(server, "first", "1")
        put(server, "second", "2")
    (log,) = (directory / "appendonlydir").glob("*.incr.aof")
    whole = log.read_bytes()
    log.write_bytes(b"garbage" + whole[7:])
    with pytest.raises(StoreUnavailable, match="Bad file format"):
        EmbeddedServer.open(directory)
    log.write_bytes(whole)


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with EmbeddedServer.open(deep) as server, EmbeddedServer.open(deep) as again:
        assert len(server.socket_path) < 104
        assert again.pid == server.pid
        put(server, "slot", "1")
        with users(deep, 1) as (other,):
            assert other.read() == str(server.pid)
    with EmbeddedServer.open(deep) as server:
        assert got(server, "slot") == "1"


def test_spaces_quotes_and_symlinks_in_a_path_name_the_same_server(tmp_path: Path) -> None:
    odd = tmp_path / 'it\'s a "path" \\ ü'
    link = tmp_path / "link"
    with EmbeddedServer.open(odd) as server:
        link.symlink_to(odd)
        with EmbeddedServer.open(link) as again:
            assert (again.directory, again.pid) == (server.directory, server.pid)


def test_threads_and_handles_of_one_process_share_one_use(directory: Path) -> None:
    handles: list[EmbeddedServer] = []
    threads = [threading.Thread(target=lambda: handles.append(EmbeddedServer.open(directory))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({handle.pid for handle in handles}) == 1
    for handle in handles[1:]:
        handle.close()
        handle.close()
    assert not ended(handles[0])
    handles[0].close()
    assert ended(handles[0])


def test_a_closed_handle_starts_nothing(directory: Path) -> None:
    server = EmbeddedServer.open(directory)
    server.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        server.ensure_running()
    assert server.pid is None


FORKS = """
    import os, sys
    from lockbeat.embedded import EmbeddedServer
    server = EmbeddedServer.open(sys.argv[1])
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    if os.fork() == 0:
        os.close(from_parent)
        os.read(to_child, 1)              # the parent has left
        if sys.argv[1].endswith("joins"):
            server.ensure_running()
            os.write(from_child, b"x")
        os.read(to_child, 1)
        server.close()
        os._exit(0)
    os.close(to_child)
    os.close(from_child)
    if sys.argv[1].endswith("joins"):
        os.write(from_parent, b"x")       # joins while the parent is a user still
        os.read(to_parent, 1)
    server.close()
    print(server.pid is not None, flush=True)
    os.close(from_parent)
    os.wait()
    print(server.pid is not None, flush=True)
"""


@pytest.mark.parametrize(("name", "after_parent"), [("idles", "False"), ("joins", "True")])
def test_a_forked_child_is_a_user_only_when_it_uses_the_server(tmp_path: Path, name: str, after_parent: str) -> None:
    user = User(tmp_path / name, FORKS)
    assert user.read() == after_parent
    assert user.read() == "False"
    user.end()


def test_the_directory_and_the_socket_are_for_one_user(directory: Path) -> None:
    with EmbeddedServer.open(directory) as server:
        assert server.directory.stat().st_mode & 0o077 == 0
        assert os.stat(server.socket_path).st_mode & 0o077 == 0
        assert all(path.stat().st_mode & 0o077 == 0 for path in directory.rglob("*"))


def test_a_default_directory_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    default_directory().mkdir(mode=0o755)
    with pytest.raises(InvalidArgument, match="only user"):
        EmbeddedServer.open()
    default_directory().rmdir()
    default_directory().symlink_to(tmp_path)
    with pytest.raises(InvalidArgument, match="only user"):
        EmbeddedServer.open()


def test_the_default_directory_is_made_when_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EmbeddedServer.open() as server:
        assert server.directory == default_directory()


def test_a_path_that_is_no_safe_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match="directory"):
        EmbeddedServer.open(tmp_path / "file")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(InvalidArgument, match="every user"):
        EmbeddedServer.open(tmp_path / "open")


def test_a_binary_that_is_not_there_or_ends_at_once_is_one_clear_error(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKBEAT_SERVER_BINARY", "/nowhere/valkey-server")
    with pytest.raises(InvalidArgument, match="LOCKBEAT_SERVER_BINARY"):
        EmbeddedServer.open(directory)
    for binary in ("false", "true"):  # ends with an error; ends as if it had left for the background
        monkeypatch.setenv("LOCKBEAT_SERVER_BINARY", binary)
        with pytest.raises(StoreUnavailable, match="ended"):
            EmbeddedServer.open(directory)
    monkeypatch.delenv("LOCKBEAT_SERVER_BINARY")
    EmbeddedServer.open(directory).close()


@needs("redis")
def test_the_second_engine_serves_as_well(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKBEAT_SERVER_BINARY", "redis-server")
    with EmbeddedServer.open(directory) as server:
        put(server, "slot", "1")
        kill_server(server)
        server.ensure_running()
        assert got(server, "slot") == "1"


def test_the_machine_bound_store_is_announced_once(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "lockbeat"):
        for _ in range(2):
            EmbeddedServer.open(directory).close()
    (record,) = caplog.records
    assert "guards this machine only" in record.getMessage()
    assert str(directory) in record.getMessage()


SERVES = """
    import sys
    from lockbeat.embedded import serve_forever
    serve_forever(sys.argv[1], int(sys.argv[2]), on_ready=lambda server: print(server.pid, flush=True))
"""


def test_a_foreground_server_restarts_what_dies_and_ends_on_sigterm(directory: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVES), str(directory), str(port)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    first = int(process.stdout.readline())
    with redis.Redis(port=port, protocol=2) as connection:
        assert connection.ping()
    os.kill(first, signal.SIGKILL)
    second = int(process.stdout.readline())
    assert second != first
    with redis.Redis(port=port, protocol=2) as connection:
        assert connection.ping()
    with EmbeddedServer.open(directory) as server:
        process.terminate()
        process.communicate(timeout=90)
        assert process.returncode == 0
        assert server.pid == second, "another user keeps it"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    assert ended(server)


def test_a_foreground_server_says_when_its_port_is_taken(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidArgument, match="port"):
            serve_forever(directory, taken.getsockname()[1])
    assert not (directory / "server.sock").exists()


def test_an_engine_that_cannot_read_the_store_is_refused_in_a_sentence(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis ends with a page of log over what Valkey 9 wrote."""
    with EmbeddedServer.open(str(directory)) as server:
        put(server, "k", "v")
    monkeypatch.setenv("LOCKBEAT_SERVER_BINARY", "/bin/true")
    with pytest.raises(StoreUnavailable, match="was written by valkey-server, and only true is here"):
        EmbeddedServer.open(str(directory))
    monkeypatch.delenv("LOCKBEAT_SERVER_BINARY")
    with EmbeddedServer.open(str(directory)) as server:
        assert got(server, "k") == "v"


FULL = """
    import resource, signal, sys
    from lockbeat.embedded import EmbeddedServer
    from lockbeat.errors import StoreUnavailable
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        EmbeddedServer.open(sys.argv[1])
    except StoreUnavailable as error:
        print(error, flush=True)
"""


def test_a_disk_that_takes_nothing_is_a_store_that_is_not_there(tmp_path: Path) -> None:
    said = User(tmp_path, FULL)
    told = said.read()
    said.end()
    assert told.startswith(f"embedded store at {tmp_path}: "), told
