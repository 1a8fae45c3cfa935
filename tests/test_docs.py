"""Every program in docs/ that has a name is run, and prints what its page says it prints."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Self
from urllib.parse import urlsplit

import pytest

from lockbeat.embedded import EmbeddedServer
from tests.servers import free_port
from tests.test_readme import BLOCK, ROOT, Command, commands, environment, run, shape

PAGES = sorted((ROOT / "docs").glob("*.md"))
PROSE = sorted([*ROOT.glob("*.md"), *PAGES, *ROOT.glob("benchmarks/*.md")])
NAME = re.compile(r"# (\w+\.py)\n")
EXACT = {"clock.md"}
"""Pages whose output is the same in each run."""
LOOKS = re.compile(r"lockbeat (why|history|ledger|tasks) ")
"""Commands that change nothing. What they look at may still be about to happen, so they are asked again."""


def blocks(page: Path, kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text()) if found == kind]


def programs(page: Path) -> dict[str, str]:
    """By name; a python block that does not begin with one is a fragment."""
    return {name[1]: block for block in blocks(page, "python") if (name := NAME.match(block))}


class Background:
    """Commands that end with `&`, each in a session of its own, until `kill %1 %2` ends some. Their `--port` is a free one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: list[subprocess.Popen[bytes]] = []
        self._log = folder / "background.log"

    def took(self, line: str) -> bool:
        if line.endswith(" &"):
            words = re.sub(r"(--port )\d+", lambda found: f"{found[1]}{free_port()}", line.removesuffix(" &"))
            command = ["bash", "-c", f"exec {words}"]
            with self._log.open("ab") as out:
                job = subprocess.Popen(
                    command, cwd=self._folder, env=environment(self._folder), stdout=out, stderr=out, start_new_session=True
                )
            self._jobs.append(job)
            return True
        if not line.startswith("kill %"):
            return False
        ended = [self._jobs[int(number) - 1] for number in re.findall(r"%(\d+)", line)]
        for job in ended:
            job.send_signal(signal.SIGTERM)
        for job in ended:
            # A page may have killed one before, by kill -9.
            assert job.wait(120) in (0, -signal.SIGTERM, -signal.SIGKILL), self._log.read_text()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        for job in self._jobs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with EmbeddedServer.open(str(tmp_path / "store")):  # so that a program finds what the one before did
        yield tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)], ids=lambda page: page.name)
def test_every_program_prints_what_its_page_says(page: Path, folder: Path) -> None:
    for name, text in programs(page).items():
        (folder / name).write_text(text)
    found = [command for block in blocks(page, "console") for command in commands(block)]
    same = str if page.name in EXACT else shape

    def printed(command: Command) -> list[str]:
        return [*map(same, run(command, folder))]

    with Background(folder) as background:
        for command in found:
            if background.took(command.line):
                continue
            wanted, seen = [*map(same, command.output)], printed(command)
            until = monotonic() + 30
            while seen != wanted and LOOKS.match(command.line) and monotonic() < until:
                seen = printed(command)
            assert seen == wanted, command.line
    named = " ".join(command.line for command in found) + "\n".join(programs(page).values())
    # As app.py, as app:app, or by another program.
    used = r"(?m)(^import {0}$|^from {0} import |(?<!# )\b{0}(\.py|:))"
    unused = [name for name in programs(page) if not re.search(used.format(name[:-3]), named)]
    assert not unused


def prose(page: Path) -> str:
    """A page without its code; the words of a link may be code."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and the site name them."""
    found = list[str]()
    for heading in re.findall(r"(?m)^#+ (.+)$", prose(page)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def wrong(page: Path, link: str) -> str | None:
    """What is wrong with a link of a page. Other hosts are not asked."""
    if re.match(r"\w+:", link):
        url = urlsplit(link)
        return None if url.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", url.netloc) else "no URL of a page"
    target, _, anchor = link.partition("#")
    path = (page.parent / target).resolve() if target else page
    if not path.exists() or ROOT not in (path, *path.parents):
        return "is not there"
    return f"has no heading {anchor}" if anchor and (path.suffix != ".md" or anchor not in anchors(path)) else None


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))
    assert {link: problem for link in links if (problem := wrong(page, link))} == {}


def test_docstrings_and_errors_name_pages_that_are_there() -> None:
    sources = [path for top in ("lockbeat", "scripts_lua", "deploy", "examples") for path in (ROOT / top).rglob("*")]
    text = "\n".join(path.read_text() for path in sources if path.suffix in (".py", ".lua", ".yml", ".yaml"))
    named = set(re.findall(r"\bdocs/[\w/-]+\.md\b", text))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_files_that_design_names_are_there() -> None:
    text = (ROOT / "DESIGN.md").read_text()
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.(?:py|lua))`", text))
    assert {name for name in named if not any((ROOT / top / name).exists() for top in ("lockbeat", "scripts_lua", "."))} == set()
    assert len(named) > 20


def test_the_functions_on_the_walks_are_there() -> None:
    text = (ROOT / "DESIGN.md").read_text()
    walks = text[text.index("## Three walks") : text.index("## Calling a script")]
    sources = [path for top in ("lockbeat", "scripts_lua") for path in (ROOT / top).rglob("*") if path.suffix in (".py", ".lua")]
    defined = set(re.findall(r"\b(?:def|function) (\w+)", "\n".join(path.read_text() for path in sources)))
    assert set(re.findall(r"`([a-z_]+)`", walks)) - defined == set()
