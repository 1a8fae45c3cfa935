"""Every program in docs/ that has a name is run, and prints what its page says it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockbeat.embedded import EmbeddedServer
from tests.test_readme import BLOCK, ROOT, commands, run, shape

PAGES = sorted((ROOT / "docs").glob("*.md"))
NAME = re.compile(r"# (\w+\.py)\n")


def blocks(page: Path, kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text()) if found == kind]


def programs(page: Path) -> dict[str, str]:
    """By name; a python block that does not begin with one is a fragment."""
    return {name[1]: block for block in blocks(page, "python") if (name := NAME.match(block))}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with EmbeddedServer.open(str(tmp_path / "store")):  # so that a program finds what the one before did
        yield tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)], ids=lambda page: page.name)
def test_every_program_prints_what_its_page_says(page: Path, folder: Path) -> None:
    for name, text in programs(page).items():
        (folder / name).write_text(text)
    found = [command for block in blocks(page, "console") for command in commands(block)]
    for command in found:
        printed = run(command, folder)
        assert [shape(line) for line in printed] == [shape(line) for line in command.output], command.line
    unused = [name for name in programs(page) if not any(name in command.line for command in found)]
    assert not unused


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


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
