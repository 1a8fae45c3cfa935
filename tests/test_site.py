"""The site of docs/: built strictly, it has every page, public name and command, and asks no other host for anything."""

from __future__ import annotations

import fcntl
import functools
import http.server
import inspect
import os
import re
import runpy
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from mkdocs.config import load_config
from playwright.sync_api import ConsoleMessage, Request, sync_playwright

import lockbeat
import lockbeat.cli
from lockbeat.cli._command import app
from tests.conftest import PATIENCE, needs
from tests.test_readme import ROOT
from tests.unit.test_sync_surface import WITHIN, public

MODULES = ("sync", "triggers", "tasks", "events", "metrics", "testing", "celery", "otel", "web", "errors", "logs", "alarms")
HANDLES: tuple[type[Any], ...] = (
    *(lockbeat.jobs.Jobs, lockbeat.tasks.Tasks, lockbeat.locks.Locks, lockbeat.claims.Claims),
    *(lockbeat.calendars.Calendars, lockbeat.fences.Fenced),
)
"""What a client has its verbs in."""
SHOWN = re.compile(r"(?m)^<!-- picture ([\w-]+): .+? -->$")


def dot() -> bytes:
    """The smallest PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once for all processes of a run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    built, shots = shared / "site", shared / "shots"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            shots.mkdir(exist_ok=True)
            for name in SHOWN.findall((ROOT / "docs" / "page.md").read_text()):
                for look in ("light", "dark"):
                    (shots / f"{name}-{look}.png").write_bytes(dot())
            making = shared / "site.making"
            command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(making)]
            environment = os.environ | {"LOCKBEAT_SHOTS": str(shots), "NO_MKDOCS_2_WARNING": "1"}
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20 * PATIENCE)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Doc file" not in done.stderr, done.stderr  # of a link that leads out of the site mkdocs only says so
            making.rename(built)
    return built


def test_a_site_that_says_where_it_is_published_has_whole_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its sitemap is empty, no page says which of its copies is meant, and the 404 page of a folder has no looks."""
    monkeypatch.setenv("LOCKBEAT_SHOTS", "")
    hooks = runpy.run_path(str(ROOT / "docs" / "site.py"))
    for said, whole in (("https://docs.test/lockbeat/", "https://docs.test/lockbeat/jobs.md"), ("", "jobs.md")):
        monkeypatch.setenv("SITE_URL", said)
        config = load_config(str(ROOT / "mkdocs.yml"))
        assert (config.site_url or "") == said
        assert hooks["address"](config, "jobs.md") == whole


def text(site: Path, page: str) -> str:
    return (site / page).read_text()


def test_each_page_is_in_the_nav_and_llms_txt_says_what_it_is_about(site: Path) -> None:
    first, told = text(site, "index.html"), dict(re.findall(r"(?m)^- \[.+\]\((\S+)\): (.+)$", text(site, "llms.txt")))
    pages = [path.name for path in sorted((ROOT / "docs").glob("*.md"))] + ["DESIGN.md", "CHANGELOG.md", "benchmarks/RESULTS.md"]
    for page in pages:
        assert f'href="{page.removesuffix(".md")}.html"' in first, page
        assert (site / page).read_text().startswith("#"), page
    assert {*pages, "index.md"} <= told.keys()
    assert {f"reference/{module}.html" for module in (*MODULES, "lockbeat", "commands")} <= told.keys()
    assert [page for page in told if not (site / page).exists()] == []


def test_links_of_what_is_for_machines_lead_somewhere(site: Path) -> None:
    """Of the pages' sources beside them, and of all of them in one file."""
    full, sources = text(site, "llms-full.txt"), [path for path in site.rglob("*.md") if "deploy" not in path.parts]
    assert len(sources) > 30
    for path in (site / "llms-full.txt", *sources):
        lines = path.read_text().splitlines()
        assert next(filter(None, lines)) in full, path
        prose = re.sub(r"(?ms)^ *```.*?^ *```$|`[^`\n]*`", "", path.read_text())
        targets = re.findall(r"\]\((?!\w+:)([^)\s#]+)[^)\s]*\)", prose)
        assert [target for target in targets if not (path.parent / target).exists()] == [], path


def test_each_public_name_and_command_is_in_the_reference(site: Path) -> None:
    whole = {path.stem: path.read_text() for path in (site / "reference").glob("*.html")}
    named = {found for page in whole.values() for found in re.findall(r'id="(lockbeat\.[\w.]+)"', page)}
    assert {f"lockbeat.{name}" for name in lockbeat.__all__} <= named
    for short in MODULES:
        module = import_module(f"lockbeat.{short}")
        own = [name for name, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__]
        for name in getattr(module, "__all__", ["instrument", "uninstrument"] if short == "otel" else own):
            assert re.search(rf'id="lockbeat\.({short}\.)?{name}"|href="lockbeat\.html#lockbeat\.{name}"', whole[short]) or (
                short == "sync" and f"#lockbeat.{name}" in whole[short]
            ), f"{short}.{name}"
    for verbs in HANDLES:
        part = verbs.__module__.split(".")[1]
        for name in public(verbs):
            shown = f"lockbeat.{part}.{verbs.__name__}.{name}" in named
            assert shown is (name not in WITHIN.get(verbs, ())), f"{verbs.__name__}.{name}: what programs call, and nothing else"
    for command in app.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        assert f"<code>lockbeat {name.replace('_', '-')}</code>" in whole["commands"], name


@pytest.mark.parametrize(("page", "first"), [("jobs", "put"), ("tasks", "spawn"), ("claims", "acquire"), ("locks", "lock")])
def test_the_reference_of_a_handle_begins_with_what_programs_call_first(site: Path, page: str, first: str) -> None:
    handle = {"jobs": "Jobs", "tasks": "Tasks", "claims": "Claims", "locks": "Locks"}[page]
    names = re.findall(rf'id="lockbeat\.{page}\.{handle}\.(\w+)"', text(site, f"reference/{page}.html"))
    assert names[0] == first


class Loaded(HTMLParser):
    """What a page loads by itself."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found = list[str]()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "object", "embed"):
            self.found += [said.get(name) or "" for name in ("src", "srcset", "data", "poster")]
        elif tag == "link":
            self.found.append(said.get("href") or "")


def test_what_builds_the_site_is_not_in_it(site: Path) -> None:
    assert [path for path in site.rglob("*") if path.suffix == ".pyc" or path.name in ("site.py", "__pycache__")] == []


def test_nothing_comes_from_another_host(site: Path) -> None:
    loaded = {one for page in site.rglob("*.html") for one in Loaded(page).found}
    for sheet in site.rglob("*.css"):
        loaded |= {one.strip("'\"") for one in re.findall(r"url\((.*?)\)|@import\s+([^;]+)", sheet.read_text()) for one in one}
    assert {one for one in loaded if re.match(r"(\w+:)?//", one)} == set()
    assert len(loaded) > 10


def test_lists_tables_and_code_are_shown_as_such(site: Path) -> None:
    """GitHub takes a list without a blank line before it, and one nested by two spaces; the site's Markdown does not."""
    for page in site.rglob("*.html"):
        for paragraph in re.findall(r"<p>(.*?)</p>", page.read_text(), re.DOTALL):
            assert not re.search(r"(?m)^([-*|] |\|-|```|\d+\. )", paragraph), f"{page.name}: {paragraph}"


def test_the_pictures_are_those_that_the_browser_tests_take(site: Path) -> None:
    from tests.web.browser.test_looked_at import PAGES

    wanted = SHOWN.findall((ROOT / "docs" / "page.md").read_text())
    assert wanted
    assert set(wanted) <= {path.partition("?")[0] or "overview" for path in PAGES}
    page = text(site, "page.html")
    for name in wanted:
        for look in ("light", "dark"):
            assert f'src="pictures/{name}-{look}.png#only-{look}"' in page, name
            assert (site / "pictures" / f"{name}-{look}.png").exists()


@pytest.fixture
def at(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128  # of five, a browser's sixth connection would wait for a second

    with Server(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        serving.join()


@pytest.mark.long
@needs("chromium")
def test_each_page_opens_in_a_browser_its_console_says_nothing_and_no_other_host_is_asked(site: Path, at: str) -> None:
    complaints, foreign = list[str](), list[str]()

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{page.url}: {message.text}")

    def asked(request: Request) -> None:
        if not request.url.startswith((at, "data:", "blob:")):
            foreign.append(request.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"], timeout=10 * PATIENCE * 1000
        )
        page = browser.new_page()
        page.set_default_timeout(10 * PATIENCE * 1000)  # a page is much work where twenty others want the cores as well
        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.on("request", asked)
        for path in sorted(site.rglob("*.html")):
            page.goto(at + str(path.relative_to(site)))
        page.goto(at)
        page.get_by_role("textbox", name="Search").fill("fence")
        page.locator(".md-search-result__item").first.wait_for()
        browser.close()
    assert (complaints, foreign) == ([], [])


@needs("chromium")
def test_the_button_copies_what_is_to_be_typed_and_neither_prompt_nor_output(at: str) -> None:
    """openfaas/docs#44, chaostoolkit-documentation#120."""
    copied = list[str]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"], timeout=10 * PATIENCE * 1000
        )
        page = browser.new_page()
        page.set_default_timeout(10 * PATIENCE * 1000)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.goto(f"{at}sync.html")
        for said in ("python block.py", "import LeaseLost, Lockbeat, LockTimeout"):
            block = page.locator(".highlight", has_text=said)
            block.hover()
            block.get_by_title("Copy to clipboard").click()
            page.wait_for_function("async said => (await navigator.clipboard.readText()).includes(said)", arg=said)
            copied.append(page.evaluate("navigator.clipboard.readText()"))
        browser.close()
    assert copied[0] == "python block.py"
    assert copied[1].startswith("# block.py\nimport threading\n\nfrom lockbeat.sync import LeaseLost")
