"""What the page shows is safe to show, within bounds, and only to whom it is for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import escape
from html.parser import HTMLParser
from typing import Any

import pytest

from lockbeat import Cron, Every, Lockbeat
from lockbeat.errors import InvalidArgument
from lockbeat.jobs import Job
from lockbeat.web import dashboard
from lockbeat.web.guard import Basic
from lockbeat.web.hidden import shown_json, without_secrets
from lockbeat.web.pages import PAGES
from tests.conftest import Backend, only
from tests.web.asking import Ask

MARKUP = """<script>alert('x')</script>"><img src=x onerror=alert(1)>&amp;{{7*7}}</td>"""
QUERIES = {"/job": "?name=report", "/backfill": "?name=report", "/task": "?id={task}", "/dead": "?queue=default"}


class Parsed(HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def is_safe(text: str) -> None:
    """No script but ours, no style and no handler in the page."""
    for tag, attributes in Parsed(text).tags:
        assert tag not in ("img", "iframe", "object", "embed", "style", "base"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
        if tag == "script":
            assert (attributes.get("src") or "").startswith("/page.js?v=")
        for name in ("href", "src", "action", "formaction"):
            value = attributes.get(name)
            assert value is None or (value.startswith("/") and not value.startswith("//")) or value.startswith("#"), value


async def filled(lb: Lockbeat, name: str = "report", *, words: str = "because", names: str = "") -> str:
    """A store with something for each page; the id of a dead task."""
    await lb.jobs.put(name, Every(3600), description=words, tags=["t" + names[:100]])
    await lb.jobs.pause(name, words, by="bob")
    await lb.jobs.resume(name, by="bob")
    await lb.jobs.trigger(name, {"password": "hunter2"}, reason=words, by="bob", overlap="allow")
    [task] = await lb.tasks.claim("default", "worker " + names, 1)
    await lb.tasks.fail(task, ValueError(words))
    spawned = await lb.tasks.spawn(name, {"to": words, "api_key": "sesame"}, queue="q" + names, max_attempts=1)
    [task] = await lb.tasks.claim("q" + names, "worker " + names, 1)
    await lb.tasks.fail(task, ValueError(words))
    await lb.locks.try_acquire("lock " + names, "holder " + names, 60)
    await lb.claims.acquire("claim " + names, "holder " + names, 60)
    return spawned.task_id


@pytest.mark.parametrize("path", PAGES)
async def test_markup_in_names_errors_and_reasons_is_text(lb: Lockbeat, ask: Callable[..., Ask], path: str) -> None:
    name = f"report {MARKUP}"
    task = await filled(lb, name, words=MARKUP, names=MARKUP)
    page = ask(show_params=True, title=MARKUP)
    params = {"/job": {"name": name}, "/backfill": {"name": name}, "/task": {"id": task}, "/dead": {"queue": "q" + MARKUP}}
    found = await page.get(path, params=params.get(path, {}))
    assert found.status_code == 200, found.text
    is_safe(found.text)
    assert "49" not in found.text.split("{{7*7}}")[0][-3:]
    if path in params:
        assert escape("<script>alert", quote=False) in found.text


async def test_control_and_bidirectional_characters_are_spelled_out(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    await lb.jobs.put("a\u202eb\x1b", Every(3600))
    text = await ask().page("/jobs")
    assert "a\\u202eb\\x1b" in text
    assert not {"\u202e", "\x1b"} & {*text}


@pytest.mark.parametrize("path", PAGES)
async def test_each_page_of_an_empty_store(lb: Lockbeat, ask: Callable[..., Ask], path: str) -> None:
    found = await ask().get(path)
    assert found.status_code == (400 if path in ("/job", "/backfill", "/task") else 200), found.text
    is_safe(found.text)


@only("memory")
@pytest.mark.parametrize("path", [*PAGES, "/page.js", "/nowhere"])
async def test_headers_keep_other_sites_and_inline_scripts_out(lb: Lockbeat, ask: Callable[..., Ask], path: str) -> None:
    headers = (await ask().get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    if path != "/page.js":
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["cache-control"] == "no-store"


async def test_params_and_results_are_hidden_unless_they_are_asked_for_and_secrets_even_then(
    lb: Lockbeat, ask: Callable[..., Ask]
) -> None:
    task = await filled(lb, words="see redis://app:swordfish@db/0?token=opensesame")
    for show in (False, True):
        page = ask(show_params=show)
        for path in (f"/task?id={task}", "/job?name=report", "/dead", "/tasks", "/"):
            text = await page.page(path)
            assert not [word for word in ("swordfish", "opensesame", "hunter2", "sesame&") if word in text], path
            assert '"sesame"' not in text
    assert "api_key" in await ask(show_params=True).page(f"/task?id={task}")
    assert "api_key" not in await ask().page(f"/task?id={task}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://u:p@h/db", "postgres://***@h/db"),
        ("redis://:hunter@2@h:6379/0, redis://:b@h2", "redis://***@h:6379/0, redis://***@h2"),
        ("https://h/?a=1&access_token=abc&b=2", "https://h/?a=1&access_token=***&b=2"),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer ***"),
        ("mail to a@b.c about monkey=7", "mail to a@b.c about monkey=7"),
    ],
)
def test_secrets_in_texts(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_secrets_in_params() -> None:
    text = shown_json({"user": "u", "db_password": "p", "nested": [{"api-key": 1, "apiKey": "x", "url": "http://a:b@c"}]})
    assert '"u"' in text
    assert '"p"' not in text
    assert '"x"' not in text
    assert "a:b@" not in text
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    assert "..." in shown_json(deep)


@only("memory")
@pytest.mark.parametrize(
    "path",
    [
        "/jobs?after=%00", "/jobs?state=none", "/job?name=report&slot=-1", "/job?name=report&slot=99999999999999999999",
        "/job?name=report&run=other!00", "/tasks?state=x", "/jobs?q=%ff", "/backfill?name=report&start=yesterday",
        "/backfill?name=report&start=2000-01-01T00:00", "/backfill?name=report&start=2999-01-01T00:00",
        "/job?name=" + "x" * 1100, "/jobs?" + "&".join(f"a{n}=1" for n in range(60)), "/jobs?q=" + "x" * 5000,
        "/jobs?page=1&self=2&query=3&after=a",
        "/jobs?sort=next&after=x", "/tasks?after=x+y+z", "/tasks?after=ready+0+%C4%80", "/instances?owner=",
    ],
)  # fmt: skip
async def test_an_odd_question_is_refused_or_answered_and_never_an_error_of_ours(
    lb: Lockbeat, ask: Callable[..., Ask], path: str
) -> None:
    await filled(lb)
    found = await ask().get(path)
    assert found.status_code in (200, 400, 414), found.text
    is_safe(found.text)


@only("memory")
async def test_what_is_too_large_is_refused(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    page = ask()
    assert (await page.get("/jobs", params={"q": "x" * 5000})).status_code == 414
    assert (await page.post("/job/pause", {"name": "x" * 70_000})).status_code == 413
    assert (await page.post("/job/pause", {f"f{n}": "1" for n in range(60)})).status_code == 400
    assert (await page.client.post("/job/pause", json={"name": "report"})).status_code == 415
    assert (await page.client.put("/job/pause")).status_code == 405


@only("memory")
async def test_another_host_name_is_refused_where_names_are_given(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    """A page of somebody else's may have its name resolve to 127.0.0.1, and then asks as the same origin."""
    page = ask(hosts=("localhost", "127.0.0.1", "::1"))
    for host in ("localhost:7330", "127.0.0.1", "[::1]:7330", "LOCALHOST.", "localhost"):
        assert (await page.get("/", headers={"host": host})).status_code == 200, host
    for host in ("evil.test", "localhost.evil.test", "evil.test:7330", "", "[::2]", "127.0.0.1.nip.io", "evil.test#localhost"):
        found = await page.get("/", headers={"host": host})
        assert found.status_code == 421, host
        assert "Overview" not in found.text


@only("memory")
async def test_a_password_is_asked_for(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    page = ask(basic=Basic("alice", "pä:ss"))
    found = await page.get("/")
    assert found.status_code == 401
    assert "Basic" in found.headers["www-authenticate"]
    assert "Overview" not in found.text
    assert (await page.get("/", headers={"authorization": "Basic x"})).status_code == 401
    assert (await page.get("/", auth=("alice", "pä:ss".encode()))).status_code == 200
    assert (await page.get("/", auth=("alice:p", "ss"))).status_code == 401


@only("memory")
@pytest.mark.parametrize(
    ("password", "sent"),
    [
        ("pä:ss", "pä:ss".encode()),  # browsers, curl
        ("pä:ss", "pä:ss".encode("latin-1")),  # requests, older tools (influxdata/ui#6856)
        ("日本", "日本".encode()),
        ("p\udce4ss", b"p\xe4ss"),  # what the environment holds need not be UTF-8
    ],
)
async def test_a_password_that_is_not_ascii_is_known_however_it_is_spelled(
    lb: Lockbeat, ask: Callable[..., Ask], password: str, sent: bytes
) -> None:
    page = ask(basic=Basic("alice", password))
    assert (await page.get("/", auth=("alice", sent))).status_code == 200
    for wrong in (b"", sent + b"x", b"p\xc3ss"):
        assert (await page.get("/", auth=("alice", wrong))).status_code == 401, wrong


@only("memory")
async def test_hosts_may_be_spelled_as_people_do(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    page = ask(hosts=("Ops.example.com.", "müller.test", "[::1]", "FE80:0::1"))
    for host in ("ops.example.com:8443", "xn--mller-kva.test", "[::1]:7330", "[fe80::1]"):
        assert (await page.get("/", headers={"host": host})).status_code == 200, host


@pytest.mark.parametrize("host", ["https://ops.example.com", "ops.example.com:8080", "ops/x", "*", "", "a b", "-x", "1::2::3"])
def test_what_no_host_header_holds_is_refused(host: str) -> None:
    """Else it would refuse each request, and say to name what was named."""
    with pytest.raises(InvalidArgument, match=r"hosts: .* must be a name or an address"):
        dashboard(Lockbeat("memory://"), hosts=(host,))


@only("memory")
@pytest.mark.parametrize("prefix", ["/lockbeat", "/a/b", ""])
@pytest.mark.parametrize("stripped", [True, False])
async def test_links_begin_with_the_prefix_whether_or_not_the_proxy_takes_it_off(
    lb: Lockbeat, ask: Callable[..., Ask], prefix: str, stripped: bool
) -> None:
    await lb.jobs.put("report", Every(3600))
    page = ask(prefix=prefix, user=lambda scope: "alice")
    above = "" if stripped else prefix
    text = await page.page(f"{above}/jobs")
    assert f'href="{prefix}/job?name=report"' in text
    form = {"name": "report", "token": await page.token(f"{above}/job?name=report")}
    assert (await page.post(f"{above}/job/pause", form)).headers["location"] == f"{prefix}/job?name=report"
    assert (await page.get(f"{above}/page.css")).status_code == 200


@only("memory")
async def test_mounted_it_finds_where_by_itself_and_believes_no_header(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    await lb.jobs.put("report", Every(3600))
    page = ask(Starlette(routes=[Mount("/ops/lockbeat", dashboard(lb))]))
    lies = {"x-forwarded-prefix": "//evil.test", "x-forwarded-host": "evil.test", "x-script-name": "/evil"}
    found = await page.get("/ops/lockbeat/jobs", headers=lies)
    assert 'href="/ops/lockbeat/job?name=report"' in found.text
    assert "evil" not in found.text
    assert 'src="/ops/lockbeat/page.js?v=' in found.text


@only("memory")
async def test_a_root_path_that_lies_makes_no_link_to_another_site(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    board = dashboard(lb, user=lambda scope: "alice")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await board({**scope, "root_path": "//evil.test/<x>"}, receive, send)

    is_safe_under = (await ask(app).page("/jobs")).replace('src="/evil.test', 'src="').replace("/%3Cx%3E/", "/")
    is_safe(is_safe_under)
    assert 'href="//' not in is_safe_under


@pytest.mark.parametrize("prefix", ["lockbeat", "//evil.test", "/a b", "/<x>", "/..", "/a/../b", "/jobs", "/a?b", "/a#b"])
def test_a_prefix_that_is_no_path_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidArgument, match="prefix"):
        dashboard(Lockbeat("memory://"), prefix=prefix)


@only("memory")
@pytest.mark.parametrize("name", ["..", ".", "a/b", "a?b=c&d", "%2e%2e", "//evil.test", "a#b", "é ü", "a+b c"])
async def test_each_name_has_a_page_of_its_own(lb: Lockbeat, ask: Callable[..., Ask], name: str) -> None:
    await lb.jobs.put(name, Every(3600))
    page = ask()
    [link] = [
        href for tag, at in Parsed(await page.page("/jobs")).tags if tag == "a" and "/job?" in (href := at.get("href") or "")
    ]
    text = await page.page(link)
    assert f"<h1>{escape(name)}</h1>" in text
    form = {"name": name, "token": await page.token(link)}
    assert (await page.post("/job/pause", form)).headers["location"].replace("+", "%20") == link.replace("+", "%20")


async def test_jobs_are_found_by_name_tag_and_state_and_in_the_order_in_which_they_come_due(
    lb: Lockbeat, ask: Callable[..., Ask]
) -> None:
    def names(text: str) -> list[str]:
        return [
            href.rpartition("name=")[2]
            for tag, at in Parsed(text).tags
            if tag == "a" and "/job?" in (href := at.get("href") or "") and "slot=" not in href
        ]

    now = datetime.now(UTC)
    far = {name: Every(365 * 86_400, now + timedelta(hours=hours)) for name, hours in (("b", 3), ("ab", 1), ("c", 2), ("a", 4))}
    for name, trigger in far.items():
        await lb.jobs.put(name, trigger, tags=["first"] if name.startswith("a") else [])
    await lb.jobs.pause("c", by="bob")
    page = ask()
    assert names(await page.page("/jobs")) == ["a", "ab", "b", "c"]
    assert names(await page.page("/jobs?sort=next")) == ["ab", "b", "a", "c"]
    assert names(await page.page("/jobs?q=a")) == ["a", "ab"]
    assert names(await page.page("/jobs?q=ab")) == ["ab"]
    assert names(await page.page("/jobs?tag=first")) == ["a", "ab"]
    assert names(await page.page("/jobs?state=paused")) == ["c"]
    assert names(await page.page("/jobs?tag=first&state=paused")) == []


@pytest.mark.parametrize("sort", ["name", "next"])
async def test_pages_of_jobs_follow_each_other_without_a_gap(lb: Lockbeat, ask: Callable[..., Ask], sort: str) -> None:
    """Many share a time, and stand in order of their names."""
    wanted = {f"job-{n:03}" for n in range(70)}
    await lb.jobs.put(*(Job.declare(name, Cron("0 0 1 1 *")) for name in wanted))
    page, seen, path = ask(), list[str](), f"/jobs?sort={sort}"
    while path:
        tags = Parsed(await page.page(path)).tags
        links = [at.get("href") or "" for tag, at in tags if tag == "a"]
        seen += [link.rpartition("name=")[2] for link in links if "/job?" in link]
        path = next((at["href"] or "" for tag, at in tags if tag == "a" and at.get("rel") == "next"), "")
    assert seen == sorted(wanted)


@only("memory")
async def test_a_job_of_a_newer_release_leaves_the_page_standing(
    lb: Lockbeat, ask: Callable[..., Ask], raw: Any, backend: Backend
) -> None:
    await lb.jobs.put("report", Every(3600))
    await lb.jobs.put("strange", Every(3600))
    key = lb.store.keys.key(lb.jobs.shard_of("strange"), "job")
    raw.hset(key, "strange", 'r {"needs":99}')
    text = await ask().page("/jobs")
    assert "report" in text
    assert (await ask().get("/job?name=strange")).status_code == 502
