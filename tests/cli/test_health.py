"""Probes tell the truth of an instance that is well, stuck, frozen, cut off from its store, starting, or about to end."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

import pytest

from lockbeat.health import Health
from lockbeat.health.http import AT_ONCE, FEW, Listener, Page, probes, sparing
from tests.cli.conftest import Lockbeat, Process, Start, wait_until
from tests.conftest import needs
from tests.servers import Server, free_port

JOBS = """
    import time
    from pathlib import Path
    from lockbeat import Beat

    beat = Beat({options})
    HERE = Path(__file__).parent

    @beat.every(0.2)
    async def tick():
        if (HERE / "block").exists():
            (HERE / "blocked").touch()
            while (HERE / "block").exists():
                time.sleep(0.05)

    @beat.task
    async def long():
        import asyncio
        (HERE / "begun").touch()
        while not (HERE / "end").exists():
            await asyncio.sleep(0.05)
"""


class Probes:
    """Asks a served beat's ports."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, path: str, timeout: float = 30) -> tuple[int, Any]:
        """The status and what is said; (0, None): there is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            return answer.code, json.load(answer)
        except (OSError, ValueError):
            return 0, None

    def becomes(self, live: int, ready: int, started: int = 200) -> str:
        """Wait until all three answer so; what is wrong, by those that are red."""
        wanted = (live, ready, started)
        said: list[Any] = []

        def are_so() -> bool:
            said[:] = [self(path) for path in ("/livez", "/readyz", "/startupz")]
            return tuple(status for status, _ in said) == wanted

        try:
            wait_until(are_so, f"the probes are {wanted}", 60)
        except AssertionError as problem:
            raise AssertionError(f"{problem}; they are {said}") from None
        return "; ".join(problem for _, verdict in said for problem in verdict["problems"])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def probe(port: int) -> Probes:
    return Probes(port)


@pytest.fixture
def serve(start: Start, module: Callable[..., str], port: int) -> Callable[..., Process]:
    """Serves the jobs above, with probes. Its limit is short, so that it is red soon."""

    def serve(url: str, *more: str, options: str = "", **env: str) -> Process:
        path = module(JOBS.format(options=options))
        return start("run", f"{path}:beat", "--url", url, *more, LOCKBEAT_HEALTH_PORT=str(port), **env)

    return serve


def test_an_instance_that_is_well(serve: Callable[..., Process], probe: Probes, store: str, lockbeat: Lockbeat) -> None:
    serve(store)
    assert probe.becomes(200, 200) == ""
    assert probe("/livez") == (200, {"ok": True, "phase": "serving", "problems": []})
    for what in ("live", "ready", "startup"):
        said = lockbeat("check", what, "--health-port", str(probe.port))
        assert (said.code, said.err) == (0, "")
        assert ": it is serving\n" in said.out
    assert lockbeat("check", "--health-port", str(probe.port), "--json").json["ok"] is True


def test_one_whose_event_loop_is_blocked_is_not_live(
    serve: Callable[..., Process], probe: Probes, store: str, lockbeat: Lockbeat, tmp_path: Path
) -> None:
    serve(store, "--health-limit", "2s")
    probe.becomes(200, 200)
    (tmp_path / "block").touch()
    wait_until(lambda: (tmp_path / "blocked").exists(), "the function blocks the loop")
    said = probe.becomes(503, 503)
    assert "the event loop has not turned for" in said
    lockbeat("check", "--health-port", str(probe.port)).refuses(1, "not live: the event loop has not turned for")
    (tmp_path / "block").unlink()
    probe.becomes(200, 200)


def test_one_that_is_stopped_does_not_answer_and_is_live_again_when_it_goes_on(
    serve: Callable[..., Process], probe: Probes, store: str, lockbeat: Lockbeat
) -> None:
    process = serve(store)
    probe.becomes(200, 200)
    process.popen.send_signal(signal.SIGSTOP)
    try:
        lockbeat("check", "--health-port", str(probe.port), "--timeout", "0.5").refuses(1, "not live: no answer within 0.5 s")
        assert probe("/livez", timeout=0.5) == (0, None)
    finally:
        process.popen.send_signal(signal.SIGCONT)
    probe.becomes(200, 200)


@needs("valkey")
def test_one_whose_store_is_away_is_live_and_not_ready(serve: Callable[..., Process], probe: Probes, server_: Server) -> None:
    serve(server_.url, "--health-limit", "20s", LOCKBEAT_TIMEOUT="1")
    probe.becomes(200, 200)
    server_.kill()
    assert "the store is away" in probe.becomes(200, 503)
    server_.restart()
    probe.becomes(200, 200)


@needs("valkey")
def test_one_whose_store_hangs_is_live_and_not_ready(serve: Callable[..., Process], probe: Probes, server_: Server) -> None:
    serve(server_.url, "--health-limit", "30s", LOCKBEAT_TIMEOUT="1")
    probe.becomes(200, 200)
    server_.freeze()
    try:
        probe.becomes(200, 503)
    finally:
        server_.thaw()
    probe.becomes(200, 200)


@needs("valkey")
def test_one_that_waits_for_its_store_has_not_started(serve: Callable[..., Process], probe: Probes, server_: Server) -> None:
    server_.kill()
    serve(server_.url, options="wait_for_store=False", LOCKBEAT_TIMEOUT="1")
    assert "it has not begun to serve" in probe.becomes(200, 503, 503)
    server_.restart()
    probe.becomes(200, 200)


def test_one_that_shuts_down_is_live_and_not_ready(
    serve: Callable[..., Process], probe: Probes, store: str, tmp_path: Path, lockbeat: Lockbeat
) -> None:
    from tests.cli.conftest import using

    process = serve(store, options="grace=120")
    probe.becomes(200, 200)
    using(store, lambda lb: lb.tasks.spawn("long"))
    wait_until(lambda: (tmp_path / "begun").exists(), "the task runs")
    process.popen.send_signal(signal.SIGTERM)
    assert "it shuts down" in probe.becomes(200, 503)
    lockbeat("check", "ready", "--health-port", str(probe.port)).refuses(1, "not ready: it shuts down")
    (tmp_path / "end").touch()
    assert process.popen.wait(60) == 0
    lockbeat("check", "--health-port", str(probe.port)).refuses(1, "not live: nobody answers: Connection refused")


@pytest.fixture
def server_() -> Iterator[Server]:
    """A server of this test alone."""
    from tests import servers

    with servers.standalone(servers.valkey_binary()) as started:
        yield started


# -- systemd


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """In the place of systemd: a socket that hears what is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(60)
        yield heard


def test_systemd_is_told_of_start_and_end_and_hears_no_sign_of_life_while_the_loop_is_stuck(
    serve: Callable[..., Process], manager: socket.socket, store: str, tmp_path: Path
) -> None:
    process = serve(store, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="2000000")
    while (said := manager.recv(1000)) == b"WATCHDOG=1":
        pass  # it is live while it starts
    assert said == b"READY=1\nSTATUS=serves"
    assert manager.recv(1000) == b"WATCHDOG=1"
    (tmp_path / "block").touch()
    wait_until(lambda: (tmp_path / "blocked").exists(), "the function blocks the loop")

    def silent() -> bool:
        manager.settimeout(3)  # it gives a sign each half second while it is well
        try:
            return not manager.recv(1000)
        except TimeoutError:
            return True

    wait_until(silent, "the signs of life stop", 60)
    (tmp_path / "block").unlink()
    manager.settimeout(60)
    assert manager.recv(1000) == b"WATCHDOG=1"
    process.popen.send_signal(signal.SIGTERM)
    while (said := manager.recv(1000)) == b"WATCHDOG=1":
        pass
    assert said == b"STOPPING=1\nSTATUS=shuts down"
    assert process.popen.wait(60) == 0


# -- what is refused


def test_a_port_that_is_taken_is_one_line(start: Start, module: Callable[..., str], store: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("run", f"{module(JOBS.format(options=''))}:beat", "--url", store, "--health-port", str(port))
        assert process.popen.wait(60) == 1
    assert f"lockbeat: can't listen on 127.0.0.1:{port}: Address already in use" in process.err
    assert "Traceback" not in process.err


def test_check_wants_a_port_and_an_instance_behind_it(lockbeat: Lockbeat, port: int) -> None:
    lockbeat("check").refuses(2, "$LOCKBEAT_HEALTH_PORT")
    lockbeat("check", "--health-port", str(port)).refuses(1, "nobody answers: Connection refused")
    lockbeat("check", "everything", "--health-port", str(port)).refuses(2, "everything")
    with socket.create_server(("127.0.0.1", port), backlog=1):  # it is there, and says nothing
        said = lockbeat("check", "--health-port", str(port), "--timeout", "0.3", "--json")
    assert (said.code, said.json["ok"]) == (1, False)
    assert "no answer within 0.3 s" in said.json["problems"][0]


def test_a_health_limit_that_is_none_is_refused(lockbeat: Lockbeat, module: Callable[..., str], store: str) -> None:
    path = module(JOBS.format(options=""))
    lockbeat("run", f"{path}:beat", "--url", store, "--health-limit", "soon").refuses(2, "health-limit")


def test_the_environment_says_the_port_once_for_all(lockbeat: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener(probes(Health()), 0) as listener:
        monkeypatch.setenv("LOCKBEAT_HEALTH_PORT", str(listener.port))
        assert lockbeat("check").out == "live: it is idle\n"


# -- the listener


def test_scrapes_that_take_long_leave_places_to_probes_at_the_same_port() -> None:
    may, asked = threading.Event(), threading.Semaphore(0)

    def waits() -> Page:
        asked.release()
        assert may.wait(60)
        return Page(b"{}")

    with Listener(probes(Health()) | sparing({"/metrics/store": waits}), 0) as listener:
        probe = Probes(listener.port)
        with ThreadPoolExecutor(FEW) as scraping:
            scrapes = [scraping.submit(probe, "/metrics/store", 60) for _ in range(FEW)]
            assert all(asked.acquire(timeout=60) for _ in range(FEW))
            with pytest.raises(ValueError, match="Expecting value"):  # what it says is no JSON
                probe("/metrics/store")
            assert probe("/livez")[0] == 200
            may.set()
            assert [scrape.result(60)[0] for scrape in scrapes] == [200] * FEW
    assert not asked.acquire(blocking=False), "the ninth was refused"


def test_a_listener_answers_get_and_head_and_nothing_else() -> None:
    with Listener(probes(Health()), 0) as listener:

        def ask(request: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", listener.port), timeout=30) as asking:
                asking.sendall(request + b"\r\n\r\n")
                return asking.makefile("rb").read()

        assert ask(b"GET /livez?verbose HTTP/1.1").startswith(b"HTTP/1.0 200 ")
        head = ask(b"HEAD /readyz HTTP/1.0")
        assert head.startswith(b"HTTP/1.0 503 ")
        assert head.endswith(b"\r\n\r\n")
        assert b"/livez, /readyz, /startupz" in ask(b"GET / HTTP/1.0")
        assert ask(b"POST /livez HTTP/1.0").startswith(b"HTTP/1.0 501 ")
        assert b" 400 " in ask(b"nonsense that is no request at all")


def test_who_connects_and_says_nothing_keeps_no_probe_waiting() -> None:
    """A hundred of them: more than it has places for are hung up on, and all let go of theirs in a while."""
    with Listener(probes(Health()), 0) as listener:
        idle = [socket.create_connection(("127.0.0.1", listener.port), timeout=30) for _ in range(20)]
        assert Probes(listener.port)("/livez")[0] == 200
        idle += [socket.create_connection(("127.0.0.1", listener.port), timeout=30) for _ in range(80)]
        wait_until(lambda: Probes(listener.port)("/livez")[0] == 200, "places become free", 60)
        for one in idle:
            one.close()


def test_who_asks_a_byte_at_a_time_takes_no_place_from_a_probe_and_is_hung_up_on() -> None:
    """No single read of theirs takes long, so that no timeout of a read ends them."""
    with Listener(probes(Health()), 0) as listener:
        slow = [socket.create_connection(("127.0.0.1", listener.port), timeout=30) for _ in range(AT_ONCE)]
        for one in slow:
            one.sendall(b"GET /livez HTTP/1.1\r\nx: ")
        open_ = [*slow]

        def ended() -> bool:
            assert Probes(listener.port)("/livez")[0] == 200
            for one in [*open_]:
                try:
                    one.sendall(b"x")
                    gone = bool(select.select([one], [], [], 0)[0])  # it is at its end: nothing was answered
                except OSError:
                    gone = True
                if gone:
                    open_.remove(one)
            return not open_

        wait_until(ended, "all of them are hung up on", 60)
        for one in slow:
            one.close()


def test_a_request_that_gets_no_thread_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with Listener(probes(Health()), 0) as listener:
        with monkeypatch.context() as patch:
            patch.setattr(ThreadingMixIn, "process_request", none_left)
            for _ in range(AT_ONCE + 1):
                with socket.create_connection(("127.0.0.1", listener.port), timeout=30) as asking:
                    assert asking.recv(1) == b""
        assert Probes(listener.port)("/livez")[0] == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forked children")
def test_a_forked_child_does_not_keep_the_port() -> None:
    with Listener(probes(Health()), 0) as listener:
        reading, writing = os.pipe()
        began, begins = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(begins, b"\n")
            os.read(reading, 1)
            os._exit(0)
        port = listener.port
    try:
        os.read(began, 1)  # what is done in a child after the fork is done
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=30).close()
    finally:
        os.write(writing, b"\n")
        os.waitpid(child, 0)
        for end in (reading, writing, began, begins):
            os.close(end)
