"""What docs/ says and does not run: fragments of Python are Python, tests that it names are there, figures were measured."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import test_chaos, test_task_chaos
from tests.test_docs import PAGES, blocks
from tests.test_readme import ROOT

BENCHMARKS = ROOT / "benchmarks"
FAILURES = ROOT / "docs" / "failures.md"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_every_python_block_is_python(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


def test_every_failure_names_what_tries_it() -> None:
    rows = [
        line for line in FAILURES.read_text().splitlines() if line.count("|") == 5 and not line.startswith(("| failure", "|---"))
    ]
    assert len(rows) > 25
    modes = {*test_chaos.MODES, *test_task_chaos.MODES}
    for row in rows:
        tried = row.split("|")[4]
        files = re.findall(r"`([\w/]+\.py)`", tried)
        named = re.findall(r"`(\w+)`", tried)
        assert [name for name in files if not (ROOT / "tests" / name).exists()] == []
        assert {*named} <= modes
        assert files or named or "README" in tried, row


@pytest.fixture
def measured() -> Iterator[Any]:
    """The module that makes the tables of pages from the results."""
    before = {*sys.modules}
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("pages")
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in {*sys.modules} - before:
            if name in ("pages", "tables"):
                del sys.modules[name]


def test_every_table_of_figures_is_as_measured(measured: Any) -> None:
    results = measured.read(BENCHMARKS / "results")
    seen = set()
    for page in PAGES:
        text = page.read_text()
        seen |= {*re.findall(r"<!-- measured: (\w+) -->", text)}
        assert text == measured.refreshed(text, results), f"{page.name}: run `python benchmarks/run.py report`"
    assert seen == {*measured.TABLES}
