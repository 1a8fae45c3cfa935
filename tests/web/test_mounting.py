"""The page inside of an application: under its path, with its users, beside whatever else it serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lockbeat import Every, Lockbeat
from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.web import Basic, dashboard
from tests.conftest import Connect, only
from tests.web.asking import Ask


@only("memory")
async def test_by_hand_as_in_django_where_the_path_is_whole(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    await lb.jobs.put("report", Every(3600))
    page = dashboard(lb, user=lambda scope: "alice")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"].startswith("/lockbeat/")
        await page({**scope, "root_path": "/lockbeat"}, receive, send)

    browser = ask(application)
    assert 'href="/lockbeat/job?name=report"' in await browser.page("/lockbeat/jobs")
    form = {"name": "report", "token": await browser.token("/lockbeat/job?name=report")}
    assert (await browser.post("/lockbeat/job/pause", form)).headers["location"] == "/lockbeat/job?name=report"


@only("memory")
async def test_served_alone_it_opens_its_client_and_closes_it(connect: Connect) -> None:
    lb = connect()
    board, sent = dashboard(lb), list[str]()

    async def receive() -> dict[str, Any]:
        if sent:
            assert lb.is_open
        return {"type": "lifespan.shutdown" if sent else "lifespan.startup"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    await board({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert not lb.is_open


@only("memory")
async def test_a_client_that_is_not_open_is_said_to_be_so(connect: Connect, ask: Callable[..., Ask]) -> None:
    found = await ask(dashboard(connect())).get("/")
    assert found.status_code == 503
    assert "async with" in found.text


@only("memory")
async def test_a_websocket_is_closed(lb: Lockbeat) -> None:
    sent = list[dict[str, Any]]()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await dashboard(lb)({"type": "websocket", "path": "/"}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


@only("memory")
async def test_what_an_application_answers_wrongly_lets_nobody_in(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    def breaks(scope: Any) -> str:
        raise RuntimeError("the session store is away")

    assert (await ask(user=breaks).get("/")).status_code == 500
    assert (await ask(user=lambda scope: "x" * 300).get("/")).status_code == 403
    assert (await ask(user=lambda scope: "").get("/")).status_code == 401


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"basic": Basic("a", "b"), "user": lambda scope: "a"}, InvalidArgument),
        ({"prefix": "lockbeat"}, InvalidArgument),
    ],
)
def test_options_that_can_not_be_are_refused(options: dict[str, Any], problem: type[Exception]) -> None:
    with pytest.raises(problem):
        dashboard(Lockbeat("memory://"), **options)


def test_other_than_a_client_is_refused() -> None:
    with pytest.raises(InvalidType):
        dashboard("redis://127.0.0.1")  # type: ignore[arg-type]


@pytest.mark.parametrize("password", ["", "secret\n", "a\tb", "a\x7f"])
def test_a_password_that_no_browser_sends_is_refused(password: str) -> None:
    with pytest.raises(InvalidArgument, match="password: must not"):
        Basic("alice", password)


def test_a_password_is_not_in_its_repr() -> None:
    assert "hunter2" not in repr(Basic("alice", "hunter2"))
    with pytest.raises(InvalidArgument):
        Basic("a:b", "x")
    with pytest.raises(InvalidArgument):
        Basic("alice", "")
