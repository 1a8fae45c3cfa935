"""Nothing is changed through the page by one who may not, or for another site; and what is changed says who did it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest

from lockbeat import Every, Lockbeat
from lockbeat.web import ACTIONS
from lockbeat.web.actions import PATHS
from lockbeat.web.board import SAID
from lockbeat.web.guard import COOKIE, Basic
from tests.conftest import Backend, only, wait_until
from tests.tasks import dump
from tests.web.asking import Ask

FAR = datetime(2000, 1, 1, tzinfo=UTC)


async def a_job(lb: Lockbeat) -> dict[str, str]:
    await lb.jobs.put("report", Every(365 * 86_400, FAR))
    return {"name": "report"}


async def a_paused_job(lb: Lockbeat) -> dict[str, str]:
    form = await a_job(lb)
    await lb.jobs.pause("report", by="bob")
    return form


async def a_past(lb: Lockbeat) -> dict[str, str]:
    """A job whose slots of the last hours nobody fired."""
    await lb.jobs.put("report", Every(3600))
    now = datetime.now(UTC)
    return {"name": "report", "start": f"{now - timedelta(hours=5):%Y-%m-%dT%H:%M}", "unknown": "yes"}


async def a_backfill(lb: Lockbeat) -> dict[str, str]:
    await lb.jobs.put("report", Every(3600))
    await lb.jobs.backfill("report", datetime.now(UTC) - timedelta(hours=5), unknown=True, by="bob")
    return {"name": "report"}


async def a_paused_backfill(lb: Lockbeat) -> dict[str, str]:
    form = await a_backfill(lb)
    await lb.jobs.pause_backfill("report", by="bob")
    return form


async def a_dead_task(lb: Lockbeat) -> dict[str, str]:
    spawned = await lb.tasks.spawn("mail", {"to": 1}, max_attempts=1)
    [task] = await lb.tasks.claim("default", "w", 1)
    await lb.tasks.fail(task, ValueError("no such address 17"))
    return {"id": spawned.task_id, "queue": "default", "function": "mail"}


async def a_waiting_task(lb: Lockbeat) -> dict[str, str]:
    return {"id": (await lb.tasks.spawn("mail")).task_id}


async def a_run_and_slots_behind_it(lb: Lockbeat) -> dict[str, str]:
    form = await a_past(lb)
    spawned = await lb.jobs.trigger("report", by="bob")
    await lb.tasks.claim("default", "w", 1)
    return form | {"id": spawned.task_id}


@dataclass(frozen=True)
class Case:
    given: Callable[[Lockbeat], Awaitable[dict[str, str]]]
    changed: Callable[[Lockbeat, dict[str, str]], Awaitable[bool]]
    """Whether the store has what the action does."""


async def _last(lb: Lockbeat, what: str) -> bool:
    change = (await lb.jobs.changes("report"))[0]
    return (change.what, change.by) == (what, "alice")


async def _is(lb: Lockbeat, form: dict[str, str], state: str) -> bool:
    return (await lb.tasks.get(form["id"])).state == state


async def _backfilled(lb: Lockbeat, state: str) -> bool:
    found = await lb.jobs.get_backfill("report")
    return found is not None and found.state == state


async def _instead(lb: Lockbeat, form: dict[str, str]) -> bool:
    return await _is(lb, form, "cancelled") and await _backfilled(lb, "running")


async def _dead(lb: Lockbeat) -> int:
    return (await lb.tasks.counts("default")).dead


CASES: dict[str, Case] = {
    "/job/pause": Case(a_job, lambda lb, form: _last(lb, "pause")),
    "/job/resume": Case(a_paused_job, lambda lb, form: _last(lb, "resume")),
    "/job/trigger": Case(a_job, lambda lb, form: _last(lb, "trigger")),
    "/job/skip": Case(a_job, lambda lb, form: _last(lb, "skip_next")),
    "/backfill/start": Case(a_past, lambda lb, form: _backfilled(lb, "running")),
    "/backfill/instead": Case(a_run_and_slots_behind_it, lambda lb, form: _instead(lb, form)),
    "/backfill/pause": Case(a_backfill, lambda lb, form: _backfilled(lb, "paused")),
    "/backfill/resume": Case(a_paused_backfill, lambda lb, form: _backfilled(lb, "running")),
    "/backfill/cancel": Case(a_backfill, lambda lb, form: _backfilled(lb, "cancelled")),
    "/task/retry": Case(a_dead_task, lambda lb, form: _is(lb, form, "waiting")),
    "/task/cancel": Case(a_waiting_task, lambda lb, form: _is(lb, form, "cancelled")),
    "/dead/redrive": Case(a_dead_task, lambda lb, form: _is(lb, form, "waiting")),
    "/dead/purge": Case(a_dead_task, lambda lb, form: _nobody_is_dead(lb)),
}


async def _nobody_is_dead(lb: Lockbeat) -> bool:
    return await _dead(lb) == 0


every_route = pytest.mark.parametrize("path", CASES)


def test_each_route_that_changes_anything_is_tested() -> None:
    assert {*CASES} == {*PATHS}
    assert {action.name for action in PATHS.values()} == {*ACTIONS}


@every_route
async def test_who_may_changes_it_and_the_log_of_changes_says_who(lb: Lockbeat, ask: Callable[..., Ask], path: str) -> None:
    case, page = CASES[path], ask()
    form = await case.given(lb)
    found = await page.post(path, form | {"token": await page.token("/dead?queue=default") or await _token(page, form)})
    assert found.status_code == 303, found.text
    assert found.headers["location"].startswith("/")
    assert await case.changed(lb, form)


async def _token(page: Ask, form: dict[str, str]) -> str:
    """Of the page on which the form is."""
    return await page.token(f"/task?id={form['id']}" if "id" in form else f"/job?name={form['name']}")


DENIED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "read-only": ({"read_only": True}, {}),
    "nobody says who asks": ({"user": None}, {}),
    "the application says nobody asks": ({"user": lambda scope: None}, {}),
    "no password": ({"basic": Basic("alice", "correct horse")}, {}),
    "a wrong password": ({"basic": Basic("alice", "correct horse")}, {"auth": ("alice", "wrong")}),
    "cross-site": ({}, {"headers": {"sec-fetch-site": "cross-site"}}),
    "another name of the same site": ({}, {"headers": {"sec-fetch-site": "same-site"}}),
    "from an old browser, of another origin": ({}, {"headers": {"sec-fetch-site": "", "origin": "http://evil.test"}}),
    "of a sandbox": ({}, {"headers": {"sec-fetch-site": "", "origin": "null"}}),
    "no token": ({}, {"token": ""}),
    "a token of another": ({}, {"token": "0" * 64}),
    "allow says no": ({"allow": lambda user, action, target: False}, {}),
}


@only("memory")
@pytest.mark.parametrize("why", DENIED)
@every_route
async def test_who_may_not_changes_nothing(lb: Lockbeat, backend: Backend, ask: Callable[..., Ask], path: str, why: str) -> None:
    options, said = DENIED[why]
    form = await CASES[path].given(lb)
    token = said.get("token", await _token(ask(), form))
    before = dump(backend)
    page = ask(**options)
    headers = said.get("headers", {})
    if headers.get("sec-fetch-site") == "":
        del page.client.headers["sec-fetch-site"]
        headers = {name: value for name, value in headers.items() if value}
    found = await page.post(path, form | {"token": token}, headers=headers, auth=said.get("auth"))
    assert found.status_code in (401, 403), found.text
    assert dump(backend) == before


@only("memory")
@every_route
async def test_asking_for_a_page_changes_nothing(lb: Lockbeat, backend: Backend, ask: Callable[..., Ask], path: str) -> None:
    form = await CASES[path].given(lb)
    before = dump(backend)
    assert (await ask().get(path, params=form)).status_code == 404
    assert dump(backend) == before


@only("memory")
async def test_allow_is_asked_for_user_action_and_target_and_may_take_its_time(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    asked = []

    async def allow(user: str, action: str, target: str) -> bool:
        await asyncio.sleep(0)
        asked.append((user, action, target))
        return action == "pause"

    page = ask(allow=allow)
    form = await a_job(lb) | {"token": await ask().token("/job?name=report") or await _token(page, {"name": "report"})}
    text = await page.page("/job?name=report")
    assert 'action="/job/pause"' in text
    assert 'action="/job/trigger"' not in text
    assert (await page.post("/job/trigger", form)).status_code == 403
    token = {"token": await page.token("/job?name=report")}
    assert (await page.post("/job/pause", form | token)).status_code == 303
    assert ("alice", "pause", "report") in asked
    assert ("alice", "trigger", "report") in asked


@only("memory")
@pytest.mark.parametrize("refused", ["cancel", "backfill"])
async def test_what_does_two_things_is_done_by_one_who_may_do_both(
    lb: Lockbeat, backend: Backend, ask: Callable[..., Ask], refused: str
) -> None:
    form = await a_run_and_slots_behind_it(lb)
    asked = list[tuple[str, str]]()

    def allow(user: str, action: str, target: str) -> bool:
        asked.append((action, target))
        return action != refused

    before, page = dump(backend), ask(allow=allow)
    token = {"token": await _token(ask(), form)}
    found = await page.post("/backfill/instead", form | token)
    assert (found.status_code, dump(backend)) == (403, before)
    assert asked[-1] == (refused, form["id" if refused == "cancel" else "name"])


@only("memory")
async def test_a_form_of_one_user_is_no_form_of_another(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    form = await a_job(lb)
    mine = await ask(user=lambda scope: "mallory").token("/job?name=report")
    assert (await ask().post("/job/pause", form | {"token": mine})).status_code == 403


@only("memory")
async def test_a_form_that_the_browser_sends_again_by_itself_is_done_once(
    lb: Lockbeat, ask: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the connection ended before the answer: the second had said that 0 are forgotten, or had triggered twice."""
    form, page = await a_dead_task(lb), ask()
    said = re.search(r'name="once" value="([0-9a-f]+)"', text := await page.page("/dead"))
    assert said is not None
    assert text.count(said[1]) == text.count('name="once"')
    form |= {"token": await page.token("/dead"), "once": said[1]}
    begun, go_on, purge = list[str](), asyncio.Event(), PATHS["/dead/purge"]

    async def slowly(look: Any, form: Any) -> Any:
        begun.append(form["once"])
        await go_on.wait()
        return await purge.do(look, form)

    monkeypatch.setitem(PATHS, "/dead/purge", replace(purge, do=slowly))
    asked = [asyncio.create_task(page.post("/dead/purge", form)) for _ in range(3)]
    await wait_until(lambda: begun, "it is begun")
    go_on.set()
    answers = [*await asyncio.gather(*asked), await page.post("/dead/purge", form)]
    assert {(one.status_code, one.headers["set-cookie"].partition(";")[0].partition("%20")[2]) for one in answers} == {
        (303, "1%20are%20forgotten")
    }
    assert len(begun) == 1
    again = await page.post("/dead/purge", form | {"once": "another page's"})
    assert "0%20are%20forgotten" in again.headers["set-cookie"]


@only("memory")
async def test_what_was_done_is_said_by_the_page_that_did_it_and_by_no_other_of_that_host(
    lb: Lockbeat, ask: Callable[..., Ask]
) -> None:
    """Browsers send a cookie to each port of its host (OctoPrint#1479), as where two stores are forwarded to one machine."""
    form, page = await a_job(lb), ask()
    form |= {"token": await page.token("/job?name=report")}
    done = await page.post("/job/pause", form, headers={"host": "localhost:7330"})
    assert done.status_code == 303
    cookie = f"{page.client.cookies[COOKIE]}; {SAID}={done.headers['set-cookie'].partition(';')[0].partition('=')[2]}"
    asked = {"cookie": f"{COOKIE}={cookie}"}
    there = await page.get("/job?name=report", headers=asked | {"host": "localhost:7331"})
    here = await page.get("/job?name=report", headers=asked | {"host": "localhost:7330"})
    said = '<p class="said" role="status">report is paused</p>'
    assert (said in there.text, said in here.text) == (False, True)
    assert ("set-cookie" in there.headers, "set-cookie" in here.headers) == (False, True)  # forgotten once it is said


@only("memory")
async def test_a_form_that_failed_is_tried_anew(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    page = ask()
    await a_dead_task(lb)
    form = {"name": "report", "once": "1", "token": await page.token("/dead")}
    assert (await page.post("/job/pause", form)).status_code == 404
    await a_job(lb)
    assert (await page.post("/job/pause", form)).status_code == 303
    assert (await lb.jobs.get("report")).paused


@only("memory")
async def test_a_form_without_the_cookie_of_its_page_is_refused(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    page = ask()
    form = await a_job(lb) | {"token": await page.token("/job?name=report")}
    page.client.cookies.delete(COOKIE)
    assert (await page.post("/job/pause", form)).status_code == 403


@only("memory")
async def test_without_anybody_who_says_who_asks_the_page_can_be_read_and_offers_nothing(
    lb: Lockbeat, ask: Callable[..., Ask]
) -> None:
    await a_job(lb)
    text = await ask(user=None).page("/job?name=report")
    assert 'method="post"' not in text
    assert "changes nothing" in text


@only("memory")
async def test_a_user_that_starlette_has_signed_in_is_who_asks(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    from starlette.authentication import SimpleUser

    from lockbeat.web import dashboard

    board = dashboard(lb)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await board({**scope, "user": SimpleUser("carol")}, receive, send)

    form = await a_job(lb)
    page = ask(app)
    found = await page.post("/job/pause", form | {"token": await page.token("/job?name=report")})
    assert found.status_code == 303
    assert (await lb.jobs.changes("report"))[0].by == "carol"


@only("memory")
async def test_what_has_characters_that_are_spelled_out_can_be_changed_all_the_same(
    lb: Lockbeat, ask: Callable[..., Ask]
) -> None:
    """A family of emoji is joined by one. The page had sent back what it shows, and said that 0 are forgotten."""
    odd, page = "mail \U0001f469\u200d\U0001f467 <\x1b\u202e", ask()

    def forms(text: str, action: str) -> list[dict[str, str]]:
        found = re.findall(rf'<form method="post" action="{action}".*?</form>', text, re.DOTALL)
        return [{n: unescape(v) for n, v in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', one)} for one in found]

    for _ in range(3):
        await lb.tasks.spawn(odd, queue=odd, max_attempts=1)
    for task in await lb.tasks.claim(odd, "w", 3):
        await lb.tasks.fail(task, ValueError(odd))
    [form] = forms(await page.page("/dead"), "/dead/purge")
    assert (await page.post("/dead/purge", form)).status_code == 303
    assert (await lb.tasks.counts(odd)).dead == 0
    assert "3 are forgotten" in await page.page("/dead")

    await lb.jobs.put(odd, Every(3600))
    [form] = forms((await page.get("/job", params={"name": odd})).text, "/job/pause")
    assert (await page.post("/job/pause", form)).status_code == 303
    assert (await lb.jobs.get(odd)).paused
