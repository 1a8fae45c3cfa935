"""web: a page on the loopback; elsewhere only for who says who they are; gone at a signal, though somebody looks on."""

from __future__ import annotations

import re
import signal
import socket
from base64 import b64encode
from typing import Any

import httpx
import pytest

from lockbeat.triggers import Every

from .conftest import Lockbeat, Process, Start, using


def asked(url: str, **headers: str) -> tuple[int, str]:
    """The status and the text of a page."""
    found = httpx.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=30)
    return found.status_code, found.text


def where(process: Process) -> str:
    """The address that it prints."""
    found = re.search(r"http://\S+", process.says("serving http://"))
    assert found is not None
    return found[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_though_somebody_looks_on(store: str, start: Start, number: int) -> None:
    using(store, lambda lb: lb.jobs.put("report", Every(3600)))
    process = start("web", "--port", "0", LOCKBEAT_URL=store)
    url = where(process)
    status, text = asked(f"{url}jobs")
    assert status == 200
    assert "report" in text
    with httpx.stream("GET", url, headers={"accept": "text/event-stream"}, timeout=30) as watched:
        lines = watched.iter_lines()
        while "event: page" not in next(lines):
            pass
        assert process.end(number) == 0
    assert process.err == ""


def test_the_log_says_who_changed_what(store: str, start: Start) -> None:
    task_id = using(store, lambda lb: lb.tasks.spawn("send", queue="mail")).task_id
    process = start("web", "--port", "0", LOCKBEAT_URL=store)
    with httpx.Client(base_url=where(process), timeout=30, headers={"sec-fetch-site": "same-origin"}) as browser:
        token = re.search(r'name="token" value="([0-9a-f]+)"', browser.get("task", params={"id": task_id}).text)
        assert token is not None
        assert browser.post("task/cancel", data={"id": task_id, "token": token[1]}).status_code == 303
    assert process.end(signal.SIGTERM) == 0
    assert f"cancel {task_id!r} by " in process.err


def test_on_the_loopback_it_goes_by_no_other_name(store: str, start: Start) -> None:
    """Its page could be another site's, whose name was made to lead here."""
    url = where(start("web", "--port", "0", "--allow-host", "box.internal", LOCKBEAT_URL=store))
    assert asked(url, host="evil.test")[0] == 421
    assert asked(url, host="localhost")[0] == 200
    assert asked(url, host="box.internal")[0] == 200


def test_it_asks_for_the_user_and_the_password(store: str, start: Start) -> None:
    """A line end behind it is none of it: such a secret is made by `echo` (kubernetes#23404)."""
    url = where(
        start("web", "--port", "0", "--read-only", LOCKBEAT_URL=store, LOCKBEAT_WEB_USER="alice", LOCKBEAT_WEB_PASSWORD="pa:ss\n")
    )
    assert asked(url)[0] == 401
    assert asked(url, authorization=f"Basic {b64encode(b'alice:wrong').decode()}")[0] == 401
    status, text = asked(url, authorization=f"Basic {b64encode(b'alice:pa:ss').decode()}")
    assert status == 200
    assert "read-only" in text


def test_under_a_prefix(store: str, start: Start) -> None:
    url = where(start("web", "--port", "0", "--prefix", "/ops/lockbeat", LOCKBEAT_URL=store))
    assert url.endswith("/ops/lockbeat/")
    assert 'href="/ops/lockbeat/jobs"' in asked(url)[1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 - to be refused
def test_where_others_can_reach_it_it_does_not_start_without_a_user(store: str, lockbeat: Lockbeat, host: str) -> None:
    lockbeat("web", "--url", store, "--host", host).refuses(2, "can be reached by others")
    lockbeat("web", "--url", store, "--host", host, "--read-only").refuses(2, "can be reached by others")


@pytest.mark.parametrize(
    ("args", "env", "code", "said"),
    [
        (("--user", "alice"), {}, 2, "LOCKBEAT_WEB_PASSWORD"),
        ((), {"LOCKBEAT_WEB_PASSWORD": "x"}, 2, "--user"),
        (("--user", "a:b"), {"LOCKBEAT_WEB_PASSWORD": "x"}, 2, "colon"),
        (("--prefix", "//evil.test"), {}, 2, "prefix"),
        (("--host", "127.0.0.1.nowhere.invalid"), {}, 2, "can be reached by others"),
        (("--host", "a..b", "--user", "alice"), {"LOCKBEAT_WEB_PASSWORD": "pass"}, 2, "no address of this machine"),
        (("--port", "70000"), {}, 2, "--port"),
        (("--allow-host", "https://ops.test/"), {}, 2, "--allow-host: 'https://ops.test/' must be a name"),
    ],
)
def test_what_is_wrong_is_one_line(
    store: str,
    lockbeat: Lockbeat,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    env: dict[str, str],
    code: int,
    said: str,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    lockbeat("web", "--url", store, "--port", "0", *args).refuses(code, said)


def test_a_port_that_is_taken_is_one_line(store: str, lockbeat: Lockbeat) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        lockbeat("web", "--url", store, "--port", port).refuses(1, f"port {port}")


def test_a_store_that_is_away_is_one_line(lockbeat: Lockbeat) -> None:
    lockbeat("web", "--port", "0").refuses(1, "can't reach redis://127.0.0.1:1")


def test_without_the_extra_it_says_what_to_install(store: str, lockbeat: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith(("lockbeat.web", "starlette"))]:
        monkeypatch.delitem(sys.modules, name)
    broken: dict[str, Any] = {"starlette": None}
    monkeypatch.setitem(sys.modules, "starlette", broken["starlette"])
    lockbeat("web", "--url", store).refuses(1, "pip install 'lockbeat[web]'")
